"""Which fault a request meets: one it names itself, or one drawn by a seeded distribution."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from corpusgen.errors import UsageError
from corpusgen.mock.addresses import ADDRESSES
from corpusgen.mock.batch_faults import BATCHES
from corpusgen.mock.bodies import BODIES
from corpusgen.mock.kinds import Kind
from corpusgen.mock.question import Question
from corpusgen.mock.sockets import SOCKETS
from corpusgen.mock.statuses import STATUSES

KINDS: Final[Mapping[str, Kind]] = {kind.name: kind for kind in (*STATUSES, *BODIES, *SOCKETS, *BATCHES, *ADDRESSES)}
"""Every way of going wrong, by name."""

_DRAWN: Final = [name for name, kind in KINDS.items() if kind.place == "answer"]
_OF_BATCHES: Final = [kind.name for kind in BATCHES]

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


def marks_in(*raw: bytes) -> str:
    """The faults that are asked for by name anywhere in these, and nothing else of them."""
    # In JSON the end of a line is an n, which would run into the mark behind it.
    text = " ".join([part.decode(errors="replace").replace("\\n", " ") for part in raw])
    return " ".join([mark[0] for mark in _MARK.finditer(text)])


@dataclass(frozen=True, kw_only=True)
class FaultPlan:
    """A share of all requests for each kind of fault. Same seed, same request, same try: same fault."""

    seed: int = 0
    shares: Mapping[str, float] = field(default_factory=dict)
    markers: bool = True
    """Whether a text may ask for a fault: ``fault:NAME`` on every try, ``fault:NAME*2`` on the first two."""

    def fault_of(self, question: Question, attempt: int) -> Kind | None:
        """The fault the so-manieth try of a question meets (the first is 1), or None for a good answer."""
        kind = self._fault(_DRAWN, question.text, question.key, attempt)
        return kind if kind is None or question.api in kind.apis else None

    def batch_fault_of(self, text: str, key: str, attempt: int) -> Kind | None:
        """The fault the so-manieth try of a whole batch meets; its text is that of all its lines."""
        return self._fault(_OF_BATCHES, text, key, attempt)

    def _fault(self, names: Sequence[str], text: str, key: str, attempt: int) -> Kind | None:
        mark = next((mark for mark in _MARK.finditer(text) if mark[1] in names), None) if self.markers else None
        if mark is not None:
            return KINDS[mark[1]] if attempt <= int(mark[2] or attempt) else None
        return self._drawn(names, key, attempt) if self.shares else None

    def _drawn(self, names: Sequence[str], key: str, attempt: int) -> Kind | None:
        digest = hashlib.sha256(f"{self.seed}:{key}:{attempt}".encode()).digest()
        left = int.from_bytes(digest[:8]) / 2**64
        for name, share in self.shares.items():
            left -= share if name in names else 0.0
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
    if name in _DRAWN or name in _OF_BATCHES:
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
