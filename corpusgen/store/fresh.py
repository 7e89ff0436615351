"""Records of this process that are in no shard yet, as columns, so that no answer is parsed a second time.

This is a shortcut and never the truth: a shard is written from here only if the journal has exactly these records, and
has kept every row that was added since; else it is assembled from the journal, as a later process does. Both give the
same bytes. What is kept is bounded: it is compressed, and what comes when there is no more room is not kept.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")  # as shards.py says, whichever is read first

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc

from corpusgen.corpus import Corpus
from corpusgen.journal import Journal
from corpusgen.records import Record
from corpusgen.store.answers import PER_SHARD, RecordRow
from corpusgen.store.shards import (
    ROWS_PER_BATCH,
    SCHEMA,
    SORT_KEY,
    UNFIT,
    Alike,
    Row,
    batch_of_rows,
    row_of,
    to_batch,
    weight_of,
    with_alike,
)

MOST_BYTES: Final = 6 << 20
"""Compressed columns of all that is kept; a full shard of usual answers takes two to five million."""
PARTS: Final = 16
"""By the first bits of the record id, so that a shard is put together a part at a time."""
WAITING: Final = 48
"""Records of a part that become columns together; until then they take twenty times the room."""
HEAVIEST: Final = 32_000
"""A record that weighs more is not kept, and so its shard is not either."""
WAITING_WEIGHT: Final = 256_000
PACKS_BETWEEN: Final = 2
"""Packs of a part after which memory is given back to the system, which takes a moment."""

Block = tuple[str, str, int]
"""Dataset, split, and which shard's worth of places in the run."""


class NotTheSame(Exception):
    """The journal has other records than are kept here."""


@dataclass(kw_only=True)
class _Part:
    waiting: list[Row] = field(default_factory=list)
    weight: int = 0
    packed: list[tuple[bytes, int]] = field(default_factory=list)
    """Batches, and how large each was before."""

    def add(self, record: Record, weight: int) -> bool:
        """Keep a record; gives back whether what waits is to be packed."""
        self.waiting.append(row_of(record))
        self.weight += weight
        return len(self.waiting) == WAITING or self.weight > WAITING_WEIGHT

    def pack(self, alike: Alike) -> int:
        """Make columns of what waits; gives back how many bytes they take."""
        plain = batch_of_rows(self.waiting, alike=alike).serialize()
        self.packed.append((_codec().compress(plain, asbytes=True), plain.size))
        self.waiting.clear()
        self.weight = 0
        if len(self.packed) % PACKS_BETWEEN == 0:
            pa.default_memory_pool().release_unused()  # what making the columns took
        return len(self.packed[-1][0])

    def sorted(self, rest: pa.RecordBatch) -> pa.RecordBatch:
        """These columns of it by record id, after ``rest``, which comes before it; it is gone from here afterwards."""
        plain = [_codec().decompress(packed, size) for packed, size in self.packed]
        batches = [pyarrow.ipc.read_record_batch(batch, SCHEMA).select(rest.schema.names) for batch in plain]
        self.packed.clear()
        whole = pa.concat_batches([rest, *batches])
        del plain, batches, rest
        pa.default_memory_pool().release_unused()
        return whole.take(pc.sort_indices(whole.column(SORT_KEY)))


@dataclass(kw_only=True)
class Window:
    """What is kept of one shard."""

    facts: dict[str, object] = field(default_factory=dict)
    """What was taken as true of the runs that the records are of, by run id."""
    rows: int = 0
    _same: dict[str, object] | None = None
    """The value of each column that has had no other so far."""
    _alike: Alike = field(default_factory=dict)
    _parts: list[_Part] = field(default_factory=lambda: [_Part() for _ in range(PARTS)])

    def add(self, record: Record, weight: int) -> int:
        """Keep a record; gives back how many bytes of columns have been made."""
        self.rows += 1
        part = self._parts[int(record.record_id[0], 16) * PARTS // 16]
        return self._pack(part) if part.add(record, weight) else 0

    def _pack(self, part: _Part) -> int:
        size = part.pack(self._alike)
        now = {name: value for name, (value, _) in self._alike.items()}
        before = now if self._same is None else self._same
        self._same = {name: value for name, value in before.items() if name in now and now[name] == value}
        return size

    def _pack_all(self) -> None:
        try:
            for part in self._parts:
                if part.waiting:
                    self._pack(part)
        except UNFIT as error:  # whoever writes the shard from the journal will say which record it is
            raise NotTheSame from error

    def batches(self, names: Sequence[bytes]) -> Iterator[pa.RecordBatch]:
        """Everything as ``to_batch`` makes it of sorted records. Raises NotTheSame where these are not its ids."""
        self._pack_all()
        same, done = self._same or {}, 0
        same.pop(SORT_KEY, None)  # a single record has one of these, too
        rest = to_batch([]).select([name for name in SCHEMA.names if name not in same])
        for at, part in enumerate(self._parts):
            there = part.sorted(rest)
            pa.default_memory_pool().release_unused()  # what it was put together from
            whole = len(there) if at == PARTS - 1 else len(there) - len(there) % ROWS_PER_BATCH
            for start in range(0, whole, ROWS_PER_BATCH):
                batch = there.slice(start, min(ROWS_PER_BATCH, whole - start))
                if batch.column(SORT_KEY).to_pylist() != [name.hex() for name in names[done : done + len(batch)]]:
                    raise NotTheSame
                done += len(batch)
                yield with_alike(batch, same, self._alike)
            rest = there.slice(whole)
        if done != len(names):
            raise NotTheSame


def _codec() -> pa.Codec:
    return pa.Codec("zstd", 1)


@dataclass(kw_only=True)
class Fresh:
    """What is kept for the shards of one open corpus."""

    journal: Journal
    size: int = 0
    _windows: dict[Block, Window] = field(default_factory=dict)
    _full: bool = False
    _changing: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, row: RecordRow, record: Record, facts: object) -> None:
        """Keep a record that the journal has just taken in, if there is room; ``facts`` are those of its run."""
        with self._changing:
            if not self._full:
                self._add(row, record, facts)

    def _add(self, row: RecordRow, record: Record, facts: object) -> None:
        block = (row.dataset, row.split, row.ordinal // PER_SHARD)
        window = self._windows.get(block)
        if window is None:
            window = self._windows[block] = Window()
        weight, known = weight_of(record), window.facts.setdefault(row.run_id, facts)
        if weight > HEAVIEST or (known is not facts and known != facts):
            self._forget()
            return
        try:
            self.size += window.add(record, weight)
        except UNFIT:
            self._forget()  # whoever writes the shard will say which record it is
            return
        if self.size > MOST_BYTES:
            self._full = True
            del self._windows[block]

    def forget(self) -> None:
        """Keep nothing more until the next shards have been written."""
        with self._changing:
            self._forget()

    def _forget(self) -> None:
        self._windows.clear()
        self._full = True

    def take(self, block: Block, rows: int) -> Window | None:
        """What is kept of a shard of so many records, if it is all of them; it is kept here no longer."""
        with self._changing:  # another run of this process may be at work on the same corpus
            window = self._windows.pop(block, None)
            if not self._windows:
                self.size, self._full = 0, False
        # A row that was turned away may be of any record here, and somebody else's stands in its place.
        return None if window is None or window.rows != rows or self.journal.turned_away else window


def fresh_of(corpus: Corpus) -> Fresh:
    """What is kept for a corpus."""
    if not isinstance(corpus.fresh, Fresh):
        corpus.fresh = Fresh(journal=corpus.journal)
    return corpus.fresh
