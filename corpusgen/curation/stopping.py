"""When to stop asking: what the next round is expected to bring, by the learning curve of the rounds so far.

Learning curves fall off like a power of the number of labels (Hestness et al. 2017; Viering & Loog 2022), so agreement
is taken to be ``end - distance * (labels / first) ** -bend``. A few noisy points fix three numbers badly. All values on
a grid are therefore weighed by how well they explain the points, and the gain is told with its interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

FEWEST_POINTS = 3
"""Points that a curve of three numbers takes; before them nothing is expected and nothing is stopped."""
_BENDS = np.geomspace(0.1, 2.0, 24)
_DISTANCES = np.linspace(0.0, 1.0, 401)


@dataclass(frozen=True, kw_only=True)
class Point:
    """What one round's student came to: its agreement with the teacher on so many held-out items.

    ``changed`` is how many of them it got right and the round before got wrong, or the other way round.
    """

    labels: int
    agreement: float
    items: int
    changed: int = 0


@dataclass(frozen=True, kw_only=True)
class Expected:
    """How much agreement the next ``block`` of labels is expected to gain, with its 80 % interval."""

    block: int
    gain: float
    low: float
    high: float

    def __post_init__(self) -> None:
        if self.block < 1:
            raise ValueError(f"block is {self.block}; it must be at least 1 label")


def expected_gain(points: Sequence[Point], block: int) -> Expected | None:
    """What ``block`` more labels would bring after the last of the points; None before there are three.

    Points must be in the order of their labels, each with more labels than the one before.
    """
    if any(one.labels >= other.labels for one, other in pairwise(points)):
        raise ValueError("points must have ever more labels")
    if len(points) < FEWEST_POINTS:
        return None
    gains, weights = _weighed(points, block)
    order = np.argsort(gains, kind="stable")
    ends = np.searchsorted(np.cumsum(weights[order]), (0.1, 0.9)).clip(0, len(order) - 1)
    low, high = gains[order[ends]].tolist()
    return Expected(block=block, gain=float(gains @ weights), low=low, high=high)


def worth_it(expected: Sequence[Expected | None], *, below: float, patience: int) -> bool:
    """False when each of the last ``patience`` rounds was expected to bring less than ``below``.

    ``below`` is a share of agreement from 0 to 1; at 0 it is always worth it. ``patience`` is 1 or more.
    """
    if not 0 <= below <= 1:
        raise ValueError(f"below is {below}; it must be from 0 to 1")
    if patience < 1:
        raise ValueError(f"patience is {patience}; it must be at least 1")
    last = expected[-patience:]
    return len(last) < patience or any(one is None or one.gain >= below for one in last)


def _weighed(points: Sequence[Point], block: int) -> tuple[Floats, Floats]:
    """What every curve on the grid would gain, and how much each counts."""
    labels = np.array([point.labels for point in points], np.float64)
    agreement = np.array([point.agreement for point in points])
    precision = 1 / _variances(points)
    bends, distances = _BENDS[:, None, None], _DISTANCES[None, :, None]
    fallen = distances * (labels / labels[0]) ** -bends
    # For each bend and distance the end that fits best, as far as there is one: agreement ends at 1.
    ends = np.clip(((agreement + fallen) @ precision) / precision.sum(), 0.0, 1.0)[..., None]
    misfits = np.square(agreement - ends + fallen) @ precision
    after = distances[..., 0] * ((labels[-1] + block) / labels[0]) ** -bends[..., 0]
    weights = np.exp(-(misfits - misfits.min()) / 2).ravel()
    return (fallen[..., -1] - after).ravel(), weights / weights.sum()


def _variances(points: Sequence[Point]) -> Floats:
    """How far each point may be off by chance.

    All rounds are measured on the same items, so luck with the items raises or lowers the whole curve and is no matter;
    what is left is the coming and going of single items between rounds.
    """
    moved = [point.changed / point.items**2 for point in points[1:] if point.items]
    usual = float(np.mean(moved)) if moved else 0.0
    return np.array([max(usual, 1 / max(point.items, 1) ** 2) / 2 for point in points])
