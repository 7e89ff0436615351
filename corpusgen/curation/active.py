"""Choosing what to ask next: at first at random, then where the student wavers most, and not the same thing twice.

These functions see scores and points, not students: whoever composes the loop hands them in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

Ground: TypeAlias = Literal["uncertainty", "diversity"]
"""What a round is chosen by."""

SPREAD = 4.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidates:
    """What may be asked next, a row for each item: its name, what the student makes of it, and where it lies.

    ``points`` are unit rows in the student's own space; only the choice by diversity looks at them.
    """

    ids: Sequence[str]
    log_probabilities: npt.NDArray[np.floating]
    points: npt.NDArray[np.float32]

    def __post_init__(self) -> None:
        for name, rows in (("log-probabilities", self.log_probabilities), ("points", self.points)):
            if len(self.ids) != len(rows):
                raise ValueError(f"{len(self.ids)} ids for {len(rows)} rows of {name}")


def choose_round(
    candidates: Candidates,
    *,
    by: Sequence[Ground],
    count: int,
    spread: float = SPREAD,
    seed: int,
    asked: npt.NDArray[np.float32] | None = None,
) -> list[int]:
    """Positions of ``count`` candidates, or of all there are; the order of the rows decides nothing.

    By uncertainty: the smallest margins. By uncertainty and diversity: of the ``spread * count`` smallest margins (1 to
    100) as many clusters as are wanted, and of each the least certain (Zhdanov 2019), so that a round does not ask the
    same question in many wordings. By diversity: what lies farthest from everything ``asked`` (k-center).
    """
    if not by:
        raise ValueError("by names neither uncertainty nor diversity; name one or both")
    if not 1 <= spread <= 100:
        raise ValueError(f"spread is {spread}; it must be from 1 to 100")
    if count < 1:
        return []
    if count >= len(candidates.ids):
        return [int(at) for at in _least_certain(candidates, seed)]
    if "uncertainty" not in by:
        return _farthest(candidates, asked, count, seed)
    wavering = _least_certain(candidates, seed)
    if "diversity" not in by:
        return [int(at) for at in wavering[:count]]
    return _apart(candidates.points, wavering[: max(count, round(spread * count))], count, seed)


def _least_certain(candidates: Candidates, seed: int) -> npt.NDArray[np.int64]:
    """All positions, the smallest margin first; of equals as if drawn by lot."""
    lots = [ticket(name, seed) for name in candidates.ids]
    drawn = np.array(sorted(range(len(lots)), key=lots.__getitem__), np.int64)
    return drawn[np.argsort(margins(candidates.log_probabilities)[drawn], kind="stable")]


def _apart(points: npt.NDArray[np.float32], wavering: npt.NDArray[np.int64], count: int, seed: int) -> list[int]:
    """The least certain of each of ``count`` clusters; where there are fewer of them, the least certain besides."""
    from threadpoolctl import threadpool_limits

    from corpusgen.curation.clusters import clustered

    # One thread: sums in another order differ in their last bits, and the number of processors decides the order.
    with threadpool_limits(limits=1):
        of_row = clustered(points[wavering], count, seed=seed).of_row
    first = np.unique(of_row, return_index=True)[1]
    others = np.setdiff1d(np.arange(len(wavering)), first)
    chosen = np.sort(np.concatenate([first, others[: count - len(first)]]))
    return [int(at) for at in wavering[chosen]]


def _farthest(candidates: Candidates, asked: npt.NDArray[np.float32] | None, count: int, seed: int) -> list[int]:
    from corpusgen.curation.diverse import choose

    return list(choose(candidates.points, count, seed=seed, kept=asked, ids=candidates.ids).positions)


def first_round(ids: Sequence[str], *, count: int, seed: int) -> list[int]:
    """Positions of ``count`` items drawn at random; the same ids and seed give the same items in any order of ids."""
    return sorted(range(len(ids)), key=lambda at: ticket(ids[at], seed))[:count]


def next_round(
    log_probabilities: npt.NDArray[np.floating], ids: Sequence[str], *, count: int, spread: float = 1.0, seed: int
) -> list[int]:
    """Positions of ``count`` items among the least certain ones, most uncertain first.

    Uncertainty is the margin between the two likeliest labels. The ``count`` items are drawn at random from the
    ``spread * count`` with the smallest margins: 1 takes exactly the smallest, more avoids asking the same question
    in many wordings. Candidates are all rows given, so leave out what was asked already.
    """
    if len(ids) != len(log_probabilities):
        raise ValueError(f"{len(ids)} ids for {len(log_probabilities)} rows of log-probabilities")
    by_margin = np.argsort(margins(log_probabilities), kind="stable")
    wavering = by_margin[: max(count, round(spread * count))].tolist()
    drawn = (
        wavering
        if spread <= 1
        else [wavering[at] for at in first_round([ids[at] for at in wavering], count=count, seed=seed)]
    )
    rank = {at: number for number, at in enumerate(wavering)}
    return sorted(drawn[:count], key=rank.__getitem__)


def margins(log_probabilities: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Probability of the likeliest label minus that of the second (n)."""
    top = np.sort(np.exp(np.asarray(log_probabilities, np.float64)), axis=1)[:, -2:]
    gap: npt.NDArray[np.float64] = top[:, 1] - top[:, 0]
    return gap


def ticket(name: str, seed: int) -> bytes:
    """An item's place in the random order: the lower, the sooner."""
    return sha256(f"{seed}/{name}".encode()).digest()
