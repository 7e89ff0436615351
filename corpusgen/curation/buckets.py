"""Which kept texts share least hashes with a new one, in less than a kilobyte a text."""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from corpusgen.curation.minhash import PERMUTATIONS, Digests

BANDS, ROWS = 42, 3
LEAST_ALIKE, LEAST_ALIKE_LONG, LONG = 0.2, 0.3, 40
"""Estimated Jaccard of the shingles below which a kept text is not looked at; the same for a text of 40 words or more.

A fifth of the words changed leaves 0.45 or so; the estimate's own error is 0.04.
"""

Keys = npt.NDArray[np.uint32]
Rows = npt.NDArray[np.int64]

_FACTORS = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9], np.uint64)
_PLACES = (np.arange(1, BANDS + 1, dtype=np.uint64) * np.uint64(0xD6E8FEB86659FD93)).astype(np.uint64)
_FINAL = np.uint64(0xBF58476D1CE4E5B9)
_HALF = np.uint64(32)
_FIRST_ROOM = 1024
_COLUMN = np.arange(BANDS)
_NONE = np.empty(0, np.int64)
_SHARES = np.concatenate([[0], np.round(2**20 / np.arange(1, 4096))])
"""What sharing a bucket counts for, by how many share it; whole numbers, so that sums do not depend on their order."""

Table = TypeVar("Table", npt.NDArray[np.uint32], npt.NDArray[np.int32], npt.NDArray[np.uint8])


class Meeting(NamedTuple):
    """What was found of one text: those worth comparing, the likeliest first, and in which buckets there is room."""

    rows: Rows
    room: npt.NDArray[np.bool_]


def band_keys(digests: Digests) -> Keys:
    """A 32-bit key for each of the 42 bands of each digest."""
    rows = digests.reshape(-1, BANDS, ROWS).astype(np.uint64)
    mixed = (rows * _FACTORS).sum(axis=2, dtype=np.uint64) + _PLACES
    mixed = (mixed ^ (mixed >> _HALF)) * _FINAL
    keys: Keys = (mixed >> _HALF).astype(np.uint32)
    return keys


class Buckets:
    """Rows of digests, found again by any band they share; a bucket names only its first ``most`` rows.

    A row is in forty-two buckets. What many texts have in common fills up some of them; a repeat shares the others too.
    """

    def __init__(self, *, most: int) -> None:
        self._most = most
        self._count = 0
        self._keys = np.empty((_FIRST_ROOM, BANDS), np.uint32)
        self._next = np.full((_FIRST_ROOM, BANDS), -1, np.int32)
        self._sketch = np.empty((_FIRST_ROOM, PERMUTATIONS), np.uint8)
        self._heads = np.full((BANDS, _FIRST_ROOM), -1, np.int32)

    def __len__(self) -> int:
        return self._count

    @property
    def nbytes(self) -> int:
        return self._keys.nbytes + self._next.nbytes + self._sketch.nbytes + self._heads.nbytes

    def meet(self, digest: Digests, keys: Keys, *, words: int, most: int) -> Meeting:
        """At most ``most`` rows that share a band and enough of the digest, those with rare bands in common first.

        ``words`` is how many words the text has.
        """
        sharing, bands = self._sharing(keys)
        sizes = np.bincount(bands, minlength=BANDS)
        room = sizes < self._most
        if not len(sharing):
            return Meeting(_NONE, room)
        rows, which = np.unique(sharing, return_inverse=True)
        alike = (self._sketch[rows] == digest.astype(np.uint8)).sum(axis=1)
        near = (alike >= PERMUTATIONS * (LEAST_ALIKE if words < LONG else LEAST_ALIKE_LONG)).nonzero()[0]
        rarity = np.bincount(which, weights=_SHARES[sizes[bands]])[near]
        return Meeting(rows[near[np.argsort(-rarity, kind="stable")[:most]]], room)

    def _sharing(self, keys: Keys) -> tuple[Rows, Rows]:
        """The rows in each of the 42 buckets, and the band of each."""
        at, bands = self._heads[_COLUMN, keys & self._mask], _COLUMN
        flat_keys, flat_next = self._keys.reshape(-1), self._next.reshape(-1)
        rows, found = [_NONE], [_NONE]
        while True:
            live = (at >= 0).nonzero()[0]
            if not len(live):
                return np.concatenate(rows), np.concatenate(found)
            at, bands = at[live], bands[live]
            entry = at.astype(np.int64) * BANDS + bands
            hit = (flat_keys[entry] == keys[bands]).nonzero()[0]
            if len(hit):
                rows.append(at[hit])
                found.append(bands[hit])
            at = flat_next[entry]

    def add(self, digest: Digests, keys: Keys, room: npt.NDArray[np.bool_]) -> None:
        """One more row, found by those of its bands whose bucket has room."""
        self._grow(self._count + 1)
        row, bands = self._count, np.flatnonzero(room)
        slots = (keys & self._mask)[bands]
        self._keys[row], self._sketch[row] = keys, digest.astype(np.uint8)
        self._next[row, bands] = self._heads[bands, slots]
        self._heads[bands, slots] = row
        self._count += 1

    def add_many(self, digests: Digests) -> None:
        """Many rows at once, found exactly as if they had been added one after the other."""
        begin, end = self._count, self._count + len(digests)
        self._grow(end)
        self._keys[begin:end], self._sketch[begin:end] = band_keys(digests), digests.astype(np.uint8)
        self._count = end
        self._link()

    def _link(self) -> None:
        """Names every row in its buckets anew: in each the first ``most``."""
        for band in range(BANDS):
            self._link_band(band, self._keys[: self._count, band])

    def _link_band(self, band: int, keys: Keys) -> None:
        heads, following = self._heads[band], self._next[: self._count, band]
        heads.fill(-1)
        if not len(keys):
            return
        rows = _first_of_each(keys, self._most)
        slots = keys[rows] & self._mask
        order = np.argsort(slots, kind="stable")
        rows, slots = rows[order], slots[order]
        same = slots[1:] == slots[:-1]
        following[rows] = np.concatenate([[-1], np.where(same, rows[:-1], -1)])
        last = np.append(~same, True)
        heads[slots[last]] = rows[last]

    def _grow(self, rows: int) -> None:
        room = len(self._keys)
        if rows > room:
            wanted = max(rows, room + room // 2)
            self._keys, self._next = _longer(self._keys, wanted), _longer(self._next, wanted)
            self._sketch = _longer(self._sketch, wanted)
        if rows > self._heads.shape[1]:
            self._heads = np.full((BANDS, 2 << (rows - 1).bit_length()), -1, np.int32)
            self._link()

    @property
    def _mask(self) -> np.uint32:
        return np.uint32(self._heads.shape[1] - 1)


def _first_of_each(keys: Keys, most: int) -> Rows:
    """Positions of the first ``most`` of each key, in order."""
    order = np.argsort(keys, kind="stable")
    ordered, place = keys[order], np.arange(len(keys))
    begins = np.concatenate([[True], ordered[1:] != ordered[:-1]])
    rank = place - np.maximum.accumulate(np.where(begins, place, 0))
    return np.sort(order[rank < most])


def _longer(rows: Table, wanted: int) -> Table:
    longer = np.empty((wanted, rows.shape[1]), rows.dtype)
    longer[: len(rows)] = rows
    return longer
