"""What one item costs a student in processor time."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import process_time
from typing import Any

BATCH = 64
REPEATS = 7
AT_LEAST_S = 0.05


@dataclass(frozen=True, kw_only=True)
class StudentCost:
    """Processor milliseconds per item, texts in and probabilities out: in batches of 64 and one by one."""

    batch64_ms: float
    batch1_ms: float
    items: int


def measure_cost(predict: Callable[[Sequence[str]], Any], texts: Sequence[str]) -> StudentCost:
    """The median of seven measurements at each batch size, after a first pass that warms caches up."""
    if not texts:
        raise ValueError("measure_cost needs at least one text")
    return StudentCost(
        batch64_ms=cpu_ms_per_item(predict, texts, BATCH),
        batch1_ms=cpu_ms_per_item(predict, texts, 1),
        items=len(texts),
    )


def cpu_ms_per_item(predict: Callable[[Sequence[str]], Any], texts: Sequence[str], batch: int) -> float:
    """Processor milliseconds per item at one batch size."""
    full = [texts[start : start + batch] for start in range(0, len(texts), batch)]
    _pass(predict, full[: max(1, len(full) // 4)])
    return statistics.median(_measured(predict, full) for _ in range(REPEATS))


def _measured(predict: Callable[[Sequence[str]], Any], batches: Sequence[Sequence[str]]) -> float:
    # The processor clock ticks coarsely on some systems, so short passes are repeated until they can be measured.
    items, began = 0, process_time()
    while (spent := process_time() - began) < AT_LEAST_S:
        items += _pass(predict, batches)
    return spent * 1000.0 / items


def _pass(predict: Callable[[Sequence[str]], Any], batches: Sequence[Sequence[str]]) -> int:
    for batch in batches:
        predict(batch)
    return sum(map(len, batches))
