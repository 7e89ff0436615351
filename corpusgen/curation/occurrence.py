"""Whether a text occurs in another, however it is written there: case, white space and escapes make no difference."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Final
from urllib.parse import unquote, unquote_plus

from corpusgen.errors import UsageError

SHORTEST: Final = 3
"""Characters; what is shorter occurs nearly everywhere."""
_DEEPEST: Final = 4
"""JSON within JSON within JSON, as in the arguments of tool calls that a judge is shown."""
_ESCAPE: Final = re.compile(r"\\(?:u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})|([bfnrt!-/:-@\[-`{-~]))")
"""JSON's, and beside them Python's and Markdown's."""
_SHORT: Final = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_UNSEEN: Final = re.compile(
    "[\u00ad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064"
    "\u2066-\u206f\ufeff\ufff9-\ufffb\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0001\U000e0020-\U000e007f]"
)
"""Unicode's category Cf: soft hyphens, zero-width spaces and joiners, marks of direction."""


@dataclass(frozen=True, kw_only=True)
class Occurrence:
    """A text that is looked for."""

    text: str

    @classmethod
    def of(cls, text: str) -> Occurrence:
        """Raises UsageError for a text that is so short that it would be found everywhere."""
        found = cls(text=text)
        if any("\ud800" <= char <= "\udfff" for char in text):
            raise UsageError("--subject is no text in UTF-8; write it anew")
        if len(found.folded) < SHORTEST:
            raise UsageError(f"--subject: {text!r} is too short to be looked for; give at least {SHORTEST} characters")
        return found

    @cached_property
    def folded(self) -> str:
        """The text as it is compared."""
        return folded(self.text)

    def is_in(self, text: str) -> bool:
        """Whether it occurs in a text, in any of the ways to write it."""
        return any(self.folded in folded(written) for written in readings(text))

    def is_in_bytes(self, content: bytes) -> bool:
        """Whether it occurs in UTF-8; what is none is passed over."""
        return self.is_in(content.decode("utf-8", "replace"))


def folded(text: str) -> str:
    """A text without differences of case, white space and composition, and without what is not seen."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", _UNSEEN.sub("", text))
    return " ".join(unicodedata.normalize("NFKC", text.casefold()).split())


def readings(text: str) -> Iterator[str]:
    """A text as it stands, and as whoever undoes JSON's, HTML's, a URL's or CSV's escapes would read it, also twice.

    Each kind is undone by itself, as what is looked for may hold what another kind takes for an escape; then all are.
    """
    yield text
    if "+" in text:
        yield text.replace("+", " ")
    kinds = [undo for mark, undo in _UNDOING if mark in text]
    for undo in kinds:
        yield from _undone(text, undo)
    if kinds:  # what is undone may show another kind of escape
        yield from _undone(text, _all_undone)


def _undone(text: str, undo: Callable[[str], str]) -> Iterator[str]:
    for _ in range(_DEEPEST):
        before, text = text, undo(text)
        if text == before:
            return
        yield text


def _all_undone(text: str) -> str:
    # Last the plus: where it was one, it was written as an escape that is undone in the same round.
    return unquote_plus(html.unescape(unescaped(_single_quotes(text))))


def _single_quotes(text: str) -> str:
    return text.replace('""', '"')


def unescaped(text: str) -> str:
    """A text with JSON's escapes resolved once; halves of a pair are joined, and those without the other stay."""
    resolved = _ESCAPE.sub(_resolved, text)
    if any("\ud800" <= char <= "\udfff" for char in resolved):
        resolved = resolved.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return resolved


def _resolved(found: re.Match[str]) -> str:
    if code := found[1] or found[2]:
        return chr(int(code, 16))
    return _SHORT.get(found[3], found[3])


_UNDOING: Final = (("\\", unescaped), ('""', _single_quotes), ("&", html.unescape), ("%", unquote))
