"""What a scan finds in a text, and the row that describes a kind of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Action = Literal["block", "mask", "allow"]
"""What happens to a text that holds something: it is not sent, the place is masked, or nothing."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """One place in a text, ``text[start:end]``; ``secret`` for keys and passwords, which are never sent."""

    kind: str
    start: int
    end: int
    secret: bool


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A row of the table of kinds: its name, what it is, how a find is made sure of, what is done by default."""

    name: str
    what: str
    validated: str
    action: Action = "mask"
    secret: bool = False
    spaced: bool = False
    """Spaces, hyphens, slashes, dots and brackets do not count when two values are compared."""


def secret_kind(name: str, what: str, validated: str) -> Kind:
    """A row for a kind that always blocks."""
    return Kind(name=name, what=what, validated=validated, action="block", secret=True)


def personal(kind: str, start: int, end: int) -> Found:
    """Something found that is no secret."""
    return Found(kind=kind, start=start, end=end, secret=False)
