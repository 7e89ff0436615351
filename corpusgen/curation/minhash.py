"""Digests of texts by which near-duplicates find each other: 126 least hashes of each text's shingles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np
import numpy.typing as npt
from rensa import RMinHash

from corpusgen.curation.shingles import Hashes, shingles

PERMUTATIONS = 126
SEED = 42
PORTION = 262_144
"""Words that are hashed at once, so that memory does not grow with what is handed over."""

Digests = npt.NDArray[np.uint32]


def least_hashes(texts: Sequence[Sequence[str]]) -> Digests:
    """One row of 126 least hashes for each text, given as its words."""
    rows = [_by_rensa(*shingles(portion)) for portion in portions(texts)]
    return np.concatenate(rows) if rows else np.empty((0, PERMUTATIONS), np.uint32)


def least_hashes_numpy(texts: Sequence[Sequence[str]]) -> Digests:
    """The same without rensa, by permutations of its own: other figures, by which the same texts find each other."""
    rows = [_by_numpy(*shingles(portion)) for portion in portions(texts)]
    return np.concatenate(rows) if rows else np.empty((0, PERMUTATIONS), np.uint32)


def portions(texts: Sequence[Sequence[str]]) -> Iterator[Sequence[Sequence[str]]]:
    """The texts in pieces of about `PORTION` words, in order."""
    begin = held = 0
    for end, text in enumerate(texts):
        if held and held + len(text) > PORTION:
            yield texts[begin:end]
            begin, held = end, 0
        held += len(text)
    if begin < len(texts):
        yield texts[begin:]


def _by_rensa(values: Hashes, starts: Hashes) -> Digests:
    rows = RMinHash.digest_matrix_from_flat_token_hashes(values, starts, PERMUTATIONS, SEED).to_rows()
    return np.array(rows, np.uint32)


def _by_numpy(values: Hashes, starts: Hashes) -> Digests:
    begins = starts[:-1].astype(np.int64)
    columns = [
        np.minimum.reduceat((values * factor + addend) >> np.uint64(32), begins) for factor, addend in permutations()
    ]
    return np.stack(columns, axis=1).astype(np.uint32)


@cache
def permutations() -> tuple[tuple[np.uint64, np.uint64], ...]:
    """The factor (odd) and the addend of each permutation."""
    drawn = _mixed(
        np.arange(1, 2 * PERMUTATIONS + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(SEED)
    )
    return tuple(zip(drawn[::2] | np.uint64(1), drawn[1::2], strict=True))


def _mixed(values: Hashes) -> Hashes:
    """splitmix64 by Steele, Lea and Flood."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
