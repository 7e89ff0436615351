"""Texts as words and runs of three words, in any script."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from itertools import chain, pairwise

import numpy as np
import numpy.typing as npt
import xxhash

from corpusgen.curation.exact import normalised
from corpusgen.curation.meaning_words import FILLERS

Hashes = npt.NDArray[np.uint64]

SPACELESS = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff"
)
"""Thai, Lao, Burmese, Khmer, Chinese and Japanese are written without spaces: each character counts as a word."""
MARKS = "\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0900-\u0dff"
"""Vowel signs and accents that belong to the word they stand in, and that ``\\w`` does not match."""
_ASCII_WORD = re.compile(r"[a-z0-9_]+")
_WORD = re.compile(rf"[{SPACELESS}]|(?:[^\W{SPACELESS}]|[{MARKS}])+")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_VISIBLE = re.compile(r"\S")
_FIRST, _SECOND, _THIRD, _MIX = (
    np.uint64(odd) for odd in (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0xFF51AFD7ED558CCD)
)
_ODD = np.uint64(1)
_NOTHING = 0x2545F4914F6CDD1D
_HALF = np.uint64(32)
_REMEMBERED = 200_000


class _WordHashes(dict[str, int]):
    """64 bits for each word, looked up rather than computed for the words that come again and again."""

    def __missing__(self, word: str) -> int:
        """Odd for a word that says something, even for a filler."""
        if len(self) >= _REMEMBERED:
            self.clear()
        mark = xxhash.xxh3_64_intdigest(word.encode("utf-8", "surrogatepass"))
        self[word] = mark & ~1 if word in FILLERS else mark | 1
        return self[word]


_hash_of = _WordHashes()


def composed(text: str) -> str:
    """The text with each character in its one usual form (NFKC), letters' case as it was."""
    return text if text.isascii() else unicodedata.normalize("NFKC", text)


def without_thousands(text: str) -> str:
    """The text with 1,000 as 1000."""
    if "," not in text:
        return text
    parts = text.split(",")
    if not any(here[-1:].isdigit() and there[:3].isdigit() for here, there in pairwise(parts)):
        return text
    return _THOUSANDS.sub("", text)


def words(text: str) -> list[str]:
    """The text's words without case; of a text that has none, its visible characters."""
    folded = without_thousands(text.lower() if text.isascii() else normalised(text))
    found: list[str] = (_ASCII_WORD if folded.isascii() else _WORD).findall(folded)
    return found or _VISIBLE.findall(folded)


def fingerprint(text: str) -> bytes:
    """128 bits that texts share which are equal but for case, spacing and Unicode form."""
    return xxhash.xxh3_128_digest(normalised(text).encode("utf-8", "surrogatepass"))


def shingles(texts: Sequence[Sequence[str]]) -> tuple[Hashes, Hashes]:
    """Hashes of each text's runs of three words and of its words but fillers, and where each text begins.

    The words themselves are among them because one changed word touches three runs: of texts with a fifth of their
    words changed, runs alone miss one in twenty-five.
    """
    if len(texts) == 1:
        values = _mixed(_shingles_of(_hashed(texts[0])))
        return values, np.array([0, len(values)], np.uint64)
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    flat = _hashed([*chain.from_iterable(texts)])
    owner = np.repeat(np.arange(len(texts)), lengths)
    runs = flat[:-2] * _FIRST + flat[1:-1] * _SECOND + flat[2:] * _THIRD
    inside = owner[:-2] == owner[2:]
    telling = (flat & _ODD).astype(bool)
    values, owners = np.concatenate([runs[inside], flat[telling]]), np.concatenate([owner[:-2][inside], owner[telling]])
    empty = np.flatnonzero(np.bincount(owners, minlength=len(texts)) == 0)
    values = np.concatenate([values, np.full(len(empty), _NOTHING, np.uint64)])
    owners = np.concatenate([owners, empty])
    values = _mixed(values)
    starts = np.concatenate([[0], np.cumsum(np.bincount(owners, minlength=len(texts)))])
    return np.ascontiguousarray(values[np.argsort(owners, kind="stable")]), starts.astype(np.uint64)


def _hashed(text: Sequence[str]) -> Hashes:
    return np.fromiter(map(_hash_of.__getitem__, text), np.uint64, len(text))


def _shingles_of(flat: Hashes) -> Hashes:
    """What `shingles` gives for one text, which needs no table of whose is what."""
    runs = flat[:-2] * _FIRST + flat[1:-1] * _SECOND + flat[2:] * _THIRD
    found = np.concatenate([runs, flat[(flat & _ODD).astype(bool)]])
    return found if len(found) else np.array([_NOTHING], np.uint64)


def _mixed(values: Hashes) -> Hashes:
    return (values ^ (values >> _HALF)) * _MIX
