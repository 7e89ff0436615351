"""Random order that goes by what items are and not by where they stand."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import xxhash

_MASK = (1 << 64) - 1


def lots(names: Sequence[str], seed: int) -> npt.NDArray[np.uint64]:
    """A number for each name: the lower, the sooner; equal names draw equal numbers."""
    drawn = (xxhash.xxh3_64_intdigest(_bytes(name), seed & _MASK) for name in names)
    return np.fromiter(drawn, np.uint64, len(names))


def row_lots(rows: npt.NDArray[np.float32], seed: int) -> npt.NDArray[np.uint64]:
    """A number for each row of a matrix; equal rows draw equal numbers."""
    drawn = (xxhash.xxh3_64_intdigest(row.tobytes(), seed & _MASK) for row in rows)
    return np.fromiter(drawn, np.uint64, len(rows))


def drawn(texts: Iterable[str], most: int, seed: int) -> list[str]:
    """At most so many different texts of a stream of any length, in an order of their own."""
    lowest: list[tuple[int, str]] = []
    held: set[int] = set()
    for text in texts:
        lot = -xxhash.xxh3_64_intdigest(_bytes(text), seed & _MASK)
        if lot in held or (len(lowest) >= most and lot <= lowest[0][0]):
            continue
        held.add(lot)
        if len(lowest) < most:
            heapq.heappush(lowest, (lot, text))
        else:
            held.discard(heapq.heappushpop(lowest, (lot, text))[0])
    return [text for _, text in sorted(lowest, reverse=True)]


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
