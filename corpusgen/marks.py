"""What has been seen, in eight bytes each: a set of 64-bit marks for corpora of millions."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

PACK = 32_768
"""How many marks are kept as Python's own numbers, which are quick and eight times as large."""
_PARTS = 16


_KEYED = hashlib.blake2b(digest_size=8, key=secrets.token_bytes(16))
"""Its key is of this process alone, so that nobody can write texts that share a mark; marks are never kept."""


def mark_of(text: str) -> int:
    """64 bits that stand for a text; two of a million texts share them once in thirty million such corpora."""
    told = _KEYED.copy()  # which has taken its key in already
    told.update(text.encode("utf-8", "surrogatepass"))
    return int.from_bytes(told.digest())


class Marks:
    """A set of marks that grows by eight bytes for each; it can be asked and added to, many at a time."""

    def __init__(self) -> None:
        self._recent: set[int] = set()
        self._packed: list[npt.NDArray[np.uint64]] = []

    def __len__(self) -> int:
        return len(self._recent) + sum(map(len, self._packed))

    def add(self, marks: Sequence[int]) -> list[bool]:
        """For each mark whether it is new, neither in the set nor earlier in the sequence; all are in it afterwards."""
        recent, known = self._recent, self._among_packed(marks) if self._packed else ()
        new = []
        for mark in marks:
            fresh = mark not in recent and mark not in known
            new.append(fresh)
            if fresh:
                recent.add(mark)
        if len(recent) >= PACK:
            self._pack()
        return new

    def known(self, marks: Sequence[int]) -> list[bool]:
        """For each mark whether it is in the set."""
        packed = self._among_packed(marks) if self._packed else ()
        return [mark in self._recent or mark in packed for mark in marks]

    def _among_packed(self, marks: Sequence[int]) -> set[int]:
        import numpy as np

        asked = np.sort(np.array(marks, np.uint64))
        found: set[int] = set()
        for part, wanted in zip(self._packed, _parted(asked), strict=True):
            if len(part) and len(wanted):
                places = np.minimum(np.searchsorted(part, wanted), len(part) - 1)
                found.update(wanted[part[places] == wanted].tolist())
        return found

    def _pack(self) -> None:
        import numpy as np

        added = _parted(np.sort(np.fromiter(self._recent, np.uint64, len(self._recent))))
        self._recent.clear()
        if not self._packed:
            self._packed = [part.copy() for part in added]
            return
        for at, part in enumerate(added):  # part by part, so that only a sixteenth is there twice
            merged = np.concatenate([self._packed[at], part])
            merged.sort(kind="stable")
            self._packed[at] = merged


def _parted(marks: npt.NDArray[np.uint64]) -> list[npt.NDArray[np.uint64]]:
    """Sorted marks, cut where their highest bits change."""
    import numpy as np

    edges = np.arange(1, _PARTS, dtype=np.uint64) << np.uint64(64 - (_PARTS - 1).bit_length())
    return np.split(marks, np.searchsorted(marks, edges))
