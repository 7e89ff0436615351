"""Choosing what to ask next: at first at random, then where the student wavers most.

These functions see scores, not students: whoever composes the loop hands them in.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

import numpy as np
import numpy.typing as npt


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
