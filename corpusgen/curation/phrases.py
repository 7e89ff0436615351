"""Rules that find turns of phrase: each a pattern that is tried only on texts that have one of its words.

Patterns are bounded everywhere (no ``.*``, no repetition inside a repetition that could match the same text in two
ways), so the time a text takes grows with its length and no faster.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

INVISIBLE: Final = (
    "\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff\U000e0000-\U000e007f"
    "\U000e0100-\U000e01ef"
)
_HIDDEN = re.compile(f"[{INVISIBLE}]+")
_SHOWN = 160


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What to look for in folded text, and what a hit is called."""

    name: str
    reason: str
    pattern: re.Pattern[str]
    keys: tuple[tuple[str, ...], ...]
    """Folded texts, quick to look for; a text with a hit has at least one of each group."""

    @classmethod
    def of(cls, name: str, reason: str, *, keys: Iterable[str], patterns: Iterable[str]) -> Rule:
        """A rule of patterns, of which any will do, and of groups of keys such as ``"one|other"``; both are folded."""
        told = "|".join(f"(?:{unicodedata.normalize('NFKC', pattern)})" for pattern in patterns)
        return cls(
            name=name,
            reason=reason,
            pattern=re.compile(told),
            keys=tuple(tuple(folded(group).split("|")) for group in keys),
        )

    def found_in(self, text: str) -> re.Match[str] | None:
        """The first hit in a folded text."""
        if all(any(key in text for key in group) for group in self.keys):
            return self.pattern.search(text)
        return None


def folded(text: str) -> str:
    """A text without case, compatibility forms and invisible signs; line ends stay."""
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", _HIDDEN.sub("", text)).casefold())


def hits(rules: Iterable[Rule], text: str) -> Iterator[tuple[Rule, str]]:
    """Every rule that holds of a text, with the passage: as it is written if it is plain, else folded."""
    seen = folded(text)
    for rule in rules:
        hit = rule.found_in(seen)
        if hit is not None:
            yield rule, shown((text if text.isascii() else seen)[slice(*hit.span())])


def shown(passage: str) -> str:
    """A passage on one line, cut where it is long, with signs nobody would see written out."""
    told = " ".join(passage[: 2 * _SHOWN].split())
    told = _HIDDEN.sub(lambda hidden: "".join(f"\\u{{{ord(sign):x}}}" for sign in hidden.group()), told)
    return told if len(told) <= _SHOWN else told[: _SHOWN - 1] + "…"
