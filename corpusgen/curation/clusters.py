"""Groups of texts that point the same way: spherical k-means on a sample, then every row to its nearest centre."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

from corpusgen.curation.embed import Vectors, blocks
from corpusgen.curation.lots import row_lots

SAMPLE: Final = 10_000
"""Rows from which the centres are learnt."""
ROUNDS: Final = 12


@dataclass(frozen=True, kw_only=True, eq=False)
class Clusters:
    """Centres, one a row, and for every text the number of its centre."""

    centres: Vectors
    of_row: npt.NDArray[np.int64]


def clustered(rows: Vectors, number: int, *, seed: int) -> Clusters:
    """At most so many groups; fewer where the rows have fewer different directions. Goes by rows, not their order."""
    if number < 1:
        raise ValueError(f"number of clusters is {number}; it must be at least 1")
    if not len(rows):
        return Clusters(centres=np.empty((0, rows.shape[1]), np.float32), of_row=np.empty(0, np.int64))
    tickets = row_lots(rows, seed)
    sample = rows[np.argsort(tickets, kind="stable")[:SAMPLE]]
    centres = _centres(sample, number, seed)
    return Clusters(centres=centres, of_row=_nearest(rows, centres))


def _centres(sample: Vectors, number: int, seed: int) -> Vectors:
    centres = _first(sample, number, seed)
    for _ in range(ROUNDS):
        of_row = _nearest(sample, centres)
        members = csr_matrix((np.ones(len(sample)), (of_row, np.arange(len(sample)))), (len(centres), len(sample)))
        sums = members @ sample.astype(np.float64)
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        # A centre that no row is nearest to, or whose rows cancel out, stays where it was.
        centres = np.where(lengths > 1e-9, sums / np.maximum(lengths, 1e-9), centres).astype(np.float32)
    return centres


def _first(sample: Vectors, number: int, seed: int) -> Vectors:
    """Different rows to begin with: each drawn with the odds of its squared distance, by lots (k-means++)."""
    draw = np.random.Generator(np.random.PCG64(seed & (2**64 - 1)))
    chosen = [0]
    far = np.maximum(0, 1 - sample @ sample[0])
    while len(chosen) < number and far.max() > 1e-6:
        at = int(np.searchsorted(np.cumsum(far, dtype=np.float64), draw.random() * far.sum(dtype=np.float64)))
        at = min(at, len(sample) - 1)
        chosen.append(at)
        far = np.minimum(far, np.maximum(0, 1 - sample @ sample[at]))
        far[at] = 0
    return sample[chosen]


def _nearest(rows: Vectors, centres: Vectors) -> npt.NDArray[np.int64]:
    parts = [np.argmax(part @ centres.T, axis=1) for part in blocks(rows)]
    return np.concatenate(parts).astype(np.int64)
