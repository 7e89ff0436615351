"""Texts as hashed n-grams, found for a whole batch at once: words 1-2, bytes 2-5.

A batch becomes one byte buffer; every n-gram of every text is then hashed by a dozen numpy operations, with no loop
over texts or words. That is what lets a student answer in microseconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

Indices = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]

BYTE_GRAMS = (2, 3, 4, 5)
BLOCK = 1024

_NEWLINE = 10
_BASE = 0x9E3779B97F4A7C15
_INVERSE_BASE = pow(_BASE, -1, 2**64)
_MIX = np.uint64(0xD6E8FEB86659FD93)
_PAIR = np.uint64(0xC2B2AE3D27D4EB4F)
_IS_WORD = np.array([byte >= 128 or chr(byte).isalnum() for byte in range(256)])


@dataclass(frozen=True, kw_only=True)
class Ngrams:
    """Bucket numbers of a batch's n-grams: bytes in the first ``2**bits``, words in the next, then one for "none here".

    ``bytes_at[j][p]`` belongs to the n-gram of length ``BYTE_GRAMS[j]`` that begins at buffer position ``p``.
    ``words`` and ``pairs`` belong to the words that begin at ``word_at``. ``starts`` says where each text begins.
    """

    starts: Indices
    length: int
    bytes_at: tuple[Indices, ...]
    word_at: Indices
    words: Indices
    pairs: Indices


def normalised(text: str) -> str:
    """Lower case, single spaces: what a student sees of a text."""
    return " ".join(text.lower().split())


def hash_ngrams(texts: Sequence[str], bits: int) -> Ngrams:
    """Every n-gram of every text as a bucket number."""
    encoded = "".join(f" {normalised(text)} \n" for text in texts).encode()
    buffer = np.frombuffer(encoded, np.uint8)
    breaks = buffer == _NEWLINE
    starts = np.concatenate(([0], np.flatnonzero(breaks)[:-1] + 1))
    word_at, words, pairs = _hash_words(buffer, breaks, bits)
    return Ngrams(
        starts=starts,
        length=len(buffer),
        bytes_at=_hash_bytes(buffer, breaks, bits),
        word_at=word_at,
        words=words,
        pairs=pairs,
    )


def bucket_count(bits: int) -> int:
    """How many buckets there are, without the one for "none here"; that number is also its bucket."""
    return 2 << bits


def count_ngrams(texts: Sequence[str], bits: int) -> sp.csr_matrix:
    """How often each bucket occurs in each text (texts x buckets)."""
    blocks = [_count_block(block, bits) for block in in_blocks(texts)]
    return sp.vstack(blocks, format="csr") if blocks else sp.csr_matrix((0, bucket_count(bits)), dtype=np.float32)


def in_blocks(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """The texts, so many at a time that memory stays small whatever their number."""
    return (texts[start : start + BLOCK] for start in range(0, len(texts), BLOCK))


def _count_block(texts: Sequence[str], bits: int) -> sp.csr_matrix:
    found = hash_ngrams(texts, bits)
    row_at = np.repeat(np.arange(len(texts)), np.diff(np.append(found.starts, found.length)))
    word_rows = row_at[found.word_at]
    rows = np.concatenate([*([row_at] * len(found.bytes_at)), word_rows, word_rows])
    columns = np.concatenate([*found.bytes_at, found.words, found.pairs])
    there = columns < bucket_count(bits)
    ones = np.ones(int(there.sum()), np.float32)
    return sp.csr_matrix((ones, (rows[there], columns[there])), shape=(len(texts), bucket_count(bits)))


def _hash_bytes(buffer: npt.NDArray[np.uint8], breaks: npt.NDArray[np.bool_], bits: int) -> tuple[Indices, ...]:
    # The buffer ends in a line break, so what runs past the end has already crossed one and counts as none.
    size = len(buffer)
    wide = np.zeros(size + BYTE_GRAMS[-1], np.uint64)
    wide[:size] = buffer
    crossed = np.ones(size + BYTE_GRAMS[-1], np.bool_)
    crossed[:size] = breaks
    rolling, broken, found = wide[:size], crossed[:size], []
    for n in range(2, BYTE_GRAMS[-1] + 1):
        # Five bytes fit in 64 bits, so the value before mixing is exact; the length keeps sizes apart.
        rolling = (rolling << np.uint64(8)) | wide[n - 1 : n - 1 + size]
        broken = broken | crossed[n - 1 : n - 1 + size]
        if n in BYTE_GRAMS:
            buckets = _mix(rolling + (np.uint64(n) << np.uint64(56)), bits)
            buckets[broken] = bucket_count(bits)
            found.append(buckets)
    return tuple(found)


def _hash_words(
    buffer: npt.NDArray[np.uint8], breaks: npt.NDArray[np.bool_], bits: int
) -> tuple[Indices, Indices, Indices]:
    # A word's hash is a difference of prefix sums of byte * base**position, moved to position 0 by the inverse power.
    edges = np.flatnonzero(np.diff(_IS_WORD[buffer].view(np.int8)))
    begins, ends = edges[0::2] + 1, edges[1::2] + 1
    powers, inverses = _powers(1 << len(buffer).bit_length())
    sums = np.concatenate((np.zeros(1, np.uint64), np.cumsum((buffer + np.uint64(1)) * powers[: len(buffer)])))
    hashes = (sums[ends] - sums[begins]) * inverses[begins]
    texts = np.cumsum(breaks)[begins]
    following = np.append(hashes[1:], np.uint64(0)) if len(hashes) else hashes
    last = np.append(texts[1:] != texts[:-1], True) if len(texts) else texts.astype(np.bool_)
    words, pairs = _mix(hashes, bits), _mix(hashes * _PAIR + following, bits)
    words += 1 << bits
    pairs += 1 << bits
    pairs[last] = bucket_count(bits)
    return begins, words, pairs


def _mix(hashes: Hashes, bits: int) -> Indices:
    mixed = hashes * _MIX
    mixed ^= mixed >> np.uint64(32)
    mixed *= _MIX
    return (mixed >> np.uint64(64 - bits)).view(np.int64)


@lru_cache(maxsize=4)
def _powers(length: int) -> tuple[Hashes, Hashes]:
    def series(base: int) -> Hashes:
        values = np.full(length, base, np.uint64)
        values[0] = 1
        return np.cumprod(values)

    return series(_BASE), series(_INVERSE_BASE)
