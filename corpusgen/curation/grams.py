"""Word n-grams as 64-bit marks: the same for texts that differ in case, spacing, punctuation or Unicode form only."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from itertools import islice
from typing import Final

import numpy as np
import numpy.typing as npt

Marks = npt.NDArray[np.uint64]

LONGEST: Final = 50
"""Words in the longest n-gram."""
_OPERATOR: Final = r"[-+*/^×÷](?:(?<=\d.)|(?<=\d\s.)|(?<=\d\s\s.))(?=\s{0,2}\d)"
"""Between numbers, where 12 + 7 and 12 - 7 are two questions."""
_APOSTROPHES: Final = "'\u2018\u2019\u02bc"
_INVISIBLE: Final = "\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff\U000e0000-\U000e0fff"
# Scripts without spaces count by characters: Han, kana, Thai, Lao, Burmese, Khmer; a vowel sign goes with its letter.
_UNSPACED: Final = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_SIGNS: Final = "\u0e31\u0e34-\u0e3a\u0e47-\u0e4e\u0eb1\u0eb4-\u0ebc\u0ec8-\u0ece\u102b-\u103e\u17b4-\u17d3"
# Signs that Python counts to no word, though they stand within words: accents, points, vowels of Indian scripts.
_JOINED: Final = (
    "\u0300-\u036f\u0483-\u0487\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06ed"
    "\u0900-\u0963\u0966-\u0dff\u0f71-\u0fbc"
)
_LETTERS: Final = rf"[^\W_{_UNSPACED}]"


def _pattern(joined: str) -> re.Pattern[str]:
    return re.compile(rf"(?=\w)[{_UNSPACED}][{_SIGNS}]*|{_LETTERS}+(?:[{joined}]+{_LETTERS}*)*|{_OPERATOR}")


_PLAIN = re.compile(rf"[a-z0-9]+|{_OPERATOR}")
_SUM = re.compile(_OPERATOR)
_SPACES = {at: " " for at in range(128) if not chr(at).isalnum()}
_ANY = _pattern(_JOINED)
_UNFOLDED = _pattern(_JOINED + _APOSTROPHES + _INVISIBLE)
_DROPPED = re.compile(f"[{_APOSTROPHES}{_INVISIBLE}]+")
_PIECE = re.compile(r"\S+")
_FACTORS: Final[Marks] = np.random.default_rng(8).integers(0, 2**64, LONGEST, np.uint64) | np.uint64(1)


def words(text: str) -> list[str]:
    """The words of a text, folded; in scripts without spaces its characters, and operators between numbers."""
    if not text.isascii():
        return _ANY.findall(_folded(text))
    seen = text.lower().replace("'", "")
    return _PLAIN.findall(seen) if _SUM.search(seen) else seen.translate(_SPACES).split()


def marks_of(text: str) -> Marks:
    """A mark for every word of a text, in order. Marks are of this process: Python salts its hashes."""
    found = words(text)
    return np.fromiter(map(hash, found), np.int64, len(found)).view(np.uint64)


def grams_of(marks: Marks, length: int) -> Marks:
    """A mark for every ``length`` words in a row."""
    if len(marks) < length:
        return marks[:0]
    return np.correlate(marks, _FACTORS[:length], "valid")


def passage(text: str, first: int, count: int, *, of: int, longest: int = 300) -> str:
    """``count`` words from the ``first`` on (from 0) as the text itself writes them, at most ``longest`` characters.

    ``of`` is how many words the text has.
    """
    begin, end = None, 0
    for start, stop in islice(_places(text, of), first, first + count):
        begin, end = start if begin is None else begin, stop
        if end - begin > 2 * longest:
            break
    found = " ".join(text[begin or 0 : end].split())
    return found if len(found) <= longest else found[: longest - 1].rstrip() + "…"


def _folded(text: str) -> str:
    seen = _DROPPED.sub("", text).replace("\u2212", "-")
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", seen).casefold())


def _places(text: str, count: int) -> Iterator[tuple[int, int]]:
    """Where each word of a text begins and ends in it."""
    if len(_UNFOLDED.findall(text)) == count:
        return (found.span() for found in _UNFOLDED.finditer(text))
    return _places_of_pieces(text)


def _places_of_pieces(text: str) -> Iterator[tuple[int, int]]:
    """The same where a sign stands for several words or a part of one, such as ½: what lies between two spaces."""
    pieces = ((word, piece.span()) for piece in _PIECE.finditer(text) for word in words(piece.group()))
    word, place = next(pieces, ("", (0, 0)))
    last = place
    for wanted in words(text):  # an operator is one only between its numbers, so pieces do not have it
        if wanted == word:
            last = place
            word, place = next(pieces, ("", last))
        yield last
