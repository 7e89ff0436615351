"""Which fault a request meets: one it names itself, or one drawn by a seeded distribution."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from corpusgen.errors import UsageError
from corpusgen.mock.addresses import ADDRESSES
from corpusgen.mock.answer import Question
from corpusgen.mock.bodies import BODIES
from corpusgen.mock.kinds import Kind
from corpusgen.mock.sockets import SOCKETS
from corpusgen.mock.statuses import STATUSES

KINDS: Final[Mapping[str, Kind]] = {kind.name: kind for kind in (*STATUSES, *BODIES, *SOCKETS, *ADDRESSES)}
"""Every way of going wrong, by name."""

_DRAWN: Final = [name for name, kind in KINDS.items() if kind.place == "answer"]

PROFILES: Final[Mapping[str, Mapping[str, float]]] = {
    "none": {},
    "calm": {"429": 0.005, "500": 0.002, "timeout": 0.001, "reset-before-answer": 0.001},
    "bad-day": {
        "500": 0.08,
        "500-billed": 0.07,
        "reset-in-body": 0.04,
        "close-before-answer": 0.03,
        "timeout": 0.03,
        "usage-missing": 0.05,
        "429-bare": 0.04,
        "529": 0.02,
        "error-body": 0.02,
        "truncated-json": 0.02,
    },
    "everything": dict.fromkeys(_DRAWN, 0.5 / len(_DRAWN)),
}
"""Distributions with a name; ``everything`` lets half of all requests go wrong, in every way alike."""

_MARK: Final = re.compile(r"(?<![a-z0-9])fault:([a-z0-9.-]*[a-z0-9])(?:\*(\d{1,6}))?")


@dataclass(frozen=True, kw_only=True)
class FaultPlan:
    """A share of all requests for each kind of fault. Same seed, same request, same try: same fault."""

    seed: int = 0
    shares: Mapping[str, float] = field(default_factory=dict)
    markers: bool = True
    """Whether a text may ask for a fault: ``fault:NAME`` on every try, ``fault:NAME*2`` on the first two."""

    def fault_of(self, question: Question, attempt: int) -> Kind | None:
        """The fault the so-manieth try of a question meets (the first is 1), or None for a good answer."""
        mark = _MARK.search(question.text) if self.markers else None
        if mark is not None and mark[1] in _DRAWN:
            return KINDS[mark[1]] if attempt <= int(mark[2] or attempt) else None
        return self._drawn(question.key, attempt)

    def _drawn(self, key: str, attempt: int) -> Kind | None:
        digest = hashlib.sha256(f"{self.seed}:{key}:{attempt}".encode()).digest()
        left = int.from_bytes(digest[:8]) / 2**64
        for name, share in self.shares.items():
            left -= share
            if left < 0:
                return KINDS[name]
        return None


def parse_faults(text: str, *, seed: int = 0) -> FaultPlan:
    """A plan from ``timeout=0.05,500-billed=0.1``, from a profile's name, or from both. Raises UsageError."""
    shares: dict[str, float] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, given, share = part.partition("=")
        if given:
            shares[_known(name.strip())] = _share(part, share)
        elif name in PROFILES:
            shares |= PROFILES[name]
        else:
            raise UsageError(f"--faults: {part!r} is neither NAME=SHARE nor a profile ({', '.join(PROFILES)})")
    if sum(shares.values()) > 1 + 1e-9:
        raise UsageError(f"--faults: the shares add up to {sum(shares.values()):g}, and there is no more than 1")
    return FaultPlan(seed=seed, shares=shares)


def _known(name: str) -> str:
    if name in _DRAWN:
        return name
    if name in KINDS:
        raise UsageError(f"--faults: {name!r} cannot be drawn: no request arrives there; ask its own address instead")
    raise UsageError(f"--faults: no fault {name!r}; corpusgen mock-teacher --list names them all")


def _share(part: str, text: str) -> float:
    try:
        share = float(text)
    except ValueError as error:
        raise UsageError(f"--faults: {part!r} needs a share between 0 and 1, such as 0.05") from error
    if not 0 <= share <= 1:
        raise UsageError(f"--faults: {part!r} needs a share between 0 and 1, found {text}")
    return share
