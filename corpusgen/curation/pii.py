"""Personal data and secrets in a text: found, masked, or the reason why the text is not sent.

Names, postal addresses and everything that needs understanding to see are not found.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import get_args

from corpusgen.curation import secrets
from corpusgen.curation.finding import Finding
from corpusgen.curation.found import Action, Found, Kind
from corpusgen.curation.kinds import BY_NAME, KINDS
from corpusgen.curation.outline import coarse

__all__ = [
    "BY_NAME", "KINDS", "USUAL", "Action", "Found", "Kind", "Rules", "Seen", "Treated", "apply", "kinds_in", "masked",
    "scan", "secret_in",
]  # fmt: skip

RANK = {kind.name: place for place, kind in enumerate(KINDS)}


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What is done about each kind. Secrets always block, whatever the default."""

    default: Action = "mask"
    """For kinds that ``kinds`` does not name."""
    kinds: Mapping[str, Action] = field(default_factory=dict)

    @classmethod
    def of(cls, default: str, kinds: Mapping[str, str]) -> Rules:
        """Rules from what somebody wrote; unknown kinds and actions are refused, and so is ``allow`` for secrets."""
        return cls(default=_action(default), kinds={_kind(name, act).name: _action(act) for name, act in kinds.items()})

    def action(self, kind: str) -> Action:
        """What happens to a text that holds this kind."""
        return "block" if BY_NAME[kind].secret else self.kinds.get(kind, self.default)


USUAL = Rules(default="mask", kinds={kind.name: kind.action for kind in KINDS if not kind.secret})
"""The table's own actions."""


@dataclass(frozen=True, kw_only=True)
class Treated:
    """A text as it may be sent, the kinds that were in it, and why it may not be sent (then the text is empty)."""

    text: str
    kinds: tuple[str, ...]
    blocked: Finding | None = None


def _action(word: str) -> Action:
    for action in get_args(Action):
        if word == action:
            return action  # type: ignore[no-any-return]  # get_args loses the literals
    raise ValueError(f"{word!r} is no action on personal data: write block, mask or allow")


def _kind(name: str, action: str) -> Kind:
    if name not in BY_NAME:
        from difflib import get_close_matches

        near = get_close_matches(name.lower(), BY_NAME, n=3, cutoff=0.5) or sorted(BY_NAME)
        raise ValueError(f"there is no kind {name!r} of personal data; the nearest: {', '.join(near)}")
    if BY_NAME[name].secret and action != "block":
        raise ValueError(f"{name!r} is a secret and always blocks; {action!r} cannot be set for it")
    return BY_NAME[name]


def _apart(candidates: list[Found]) -> list[Found]:
    """Places that do not overlap, in order: secrets first, then by the table, then the longer."""
    chosen: list[Found] = []
    ends: list[int] = []
    for found in sorted(candidates, key=lambda f: (not f.secret, RANK[f.kind], f.start - f.end, f.start)):
        place = bisect_left(ends, found.start + 1)
        if place == len(ends) or chosen[place].start >= found.end:
            ends.insert(place, found.end)
            chosen.insert(place, found)
    return chosen


def scan(text: str) -> list[Found]:
    """Everything found in a text, in order, nothing twice."""
    from corpusgen.curation.personal import personal_data

    raw = coarse(text)
    return _apart([*secrets.candidates(text, raw), *personal_data(text, raw)])


def secret_in(text: str) -> Finding | None:
    """Why a text must not be sent, if it holds a secret; cheaper than a scan for everything."""
    found = [*secrets.candidates(text, coarse(text))]
    return _blocked(text, _apart(found)) if found else None


def kinds_in(found: Iterable[Found]) -> tuple[str, ...]:
    """The kinds that were found, each once, by name."""
    return tuple(sorted({place.kind for place in found}))


def _same(kind: str, value: str) -> str:
    folded = value.casefold()
    return "".join(char for char in folded if char.isalnum()) if BY_NAME[kind].spaced else folded


Seen = dict[str, dict[str, int]]
"""The numbers of values that have placeholders, by kind."""


def masked(
    text: str,
    found: Sequence[Found],
    kinds: Collection[str],
    after: Mapping[str, int] | None = None,
    seen: Seen | None = None,
) -> str:
    """The text with placeholders such as ``[EMAIL_1]`` for these kinds; equal values share a number.

    ``after`` says for each kind which numbers are taken already; ``seen`` has those of texts that belong with this one.
    """
    seen = {} if seen is None else seen
    taken = after or {}
    parts: list[str] = []
    at = 0
    for place in found:
        if place.kind in kinds:
            values = seen.setdefault(place.kind, {})
            number = values.setdefault(_same(place.kind, text[place.start : place.end]), len(values) + 1)
            number += taken.get(place.kind, 0)
            parts += (text[at : place.start], f"[{place.kind.upper()}_{number}]")
            at = place.end
    return "".join((*parts, text[at:]))


def _sample(text: str, place: Found) -> str:
    size = place.end - place.start
    shown = text[place.start : place.start + 4] if size >= 20 and secrets.PREFIX.match(text, place.start) else ""
    return f'{place.kind} at character {place.start}, "{shown}…" ({size} characters)'


def _blocked(text: str, found: Sequence[Found]) -> Finding:
    """Why a text is not sent; says where and what, never the value."""
    what = "a secret" if any(place.secret for place in found) else "personal data"
    first = [_sample(text, place) for place in found[:3]]
    more = [f"and {len(found) - 3} more"] if len(found) > 3 else []
    return Finding(check="pii", kept=False, reason=f"holds {what}", detail="; ".join((*first, *more)))


def apply(text: str, rules: Rules) -> Treated:
    """The text as the rules let it be sent."""
    found = scan(text)
    stopped = [place for place in found if rules.action(place.kind) == "block"]
    if stopped:
        return Treated(text="", kinds=kinds_in(found), blocked=_blocked(text, stopped))
    masks = {place.kind for place in found if rules.action(place.kind) == "mask"}
    return Treated(text=masked(text, found, masks), kinds=kinds_in(found))
