"""Records of this process that are in no shard yet, so that no answer is read and parsed a second time.

This is a shortcut and never the truth: a shard is written from here only if the journal has exactly these records, and
has kept every row that was added since; else it is assembled from the journal, as a later process does. Both give the
same bytes. What is kept is bounded: it is compressed, and what comes when there is no more room is not kept.
"""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from operator import itemgetter
from typing import Any, Final

os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")  # as shards.py says, whichever is read first

import pyarrow as pa

from corpusgen.corpus import Corpus
from corpusgen.journal import Journal
from corpusgen.records import Record
from corpusgen.store.answers import PER_SHARD, RecordRow
from corpusgen.store.shards import (
    EXACT,
    ROWS_PER_BATCH,
    SCHEMA,
    SORT_KEY,
    UNFIT,
    Row,
    Sized,
    batch_of_rows,
    side_by_side,
    sized,
    weight_of,
)

MOST_BYTES: Final = 6 << 20
"""Compressed values of all that is kept; a full shard of usual answers takes one to five million."""
PARTS: Final = 16
"""By the first bits of the record id, so that a shard is put together a part at a time."""
WAITING: Final = 32
"""Records of a part that are packed together; until then they take twenty times the room."""
HEAVIEST: Final = 32_000
"""A record that weighs more is not kept, and so its shard is not either."""
WAITING_WEIGHT: Final = 256_000

Block = tuple[str, str, int]
"""Dataset, split, and which shard's worth of places in the run."""


class NotTheSame(Exception):
    """The journal has other records than are kept here."""


@dataclass(frozen=True, kw_only=True)
class _Pack:
    """Rows, compressed."""

    names: tuple[str, ...]
    """The columns that their values belong to."""
    compressed: bytes
    size: int

    def rows(self) -> list[Row]:
        rows: list[Row] = pickle.loads(_codec().decompress(self.compressed, self.size))  # noqa: S301 - packed below
        return rows


@dataclass(kw_only=True)
class _Part:
    waiting: list[Row] = field(default_factory=list)
    weight: int = 0
    packed: list[_Pack] = field(default_factory=list)

    def add(self, row: Row, weight: int) -> bool:
        """Keep a row; gives back whether what waits is to be packed."""
        self.waiting.append(row)
        self.weight += weight
        return len(self.waiting) == WAITING or self.weight > WAITING_WEIGHT

    def pack(self, names: tuple[str, ...]) -> int:
        """Compress what waits, values of these columns; gives back how many bytes it takes."""
        plain = pickle.dumps(self.waiting, pickle.HIGHEST_PROTOCOL)
        pack = _Pack(names=names, compressed=_codec().compress(plain, asbytes=True), size=len(plain))
        self.packed.append(pack)
        self.waiting.clear()
        self.weight = 0
        return len(pack.compressed)


def _codec() -> pa.Codec:
    return pa.Codec("zstd", 1)


@dataclass(frozen=True, kw_only=True)
class _Columns:
    """The columns of a shard, parted: most hold one value from top to bottom, which is not kept with every record."""

    same: Mapping[str, Any]
    """The value of each column that has had no other so far."""
    names: tuple[str, ...]
    """The columns that have."""
    told: Callable[[Mapping[str, Any]], Row]
    """What a record says in these."""
    fixed: Callable[[Mapping[str, Any]], Row]
    """What it says in the others: nothing else than ``value``."""
    value: Row

    @classmethod
    def of(cls, same: Mapping[str, Any]) -> _Columns:
        names = tuple(name for name in SCHEMA.names if name not in same)
        fixed = _taking(tuple(same))
        return cls(same=same, names=names, told=_taking(names), fixed=fixed, value=fixed(same))

    @classmethod
    def at_first(cls, values: Mapping[str, Any]) -> _Columns:
        """As a single record lets hope."""
        names = [name for name in SCHEMA.names if name in EXACT or values[name] is None or values[name] == ()]
        return cls.of({name: values[name] for name in names if name != SORT_KEY})

    def without(self, values: Mapping[str, Any]) -> _Columns:
        """As they are parted when a record says something else."""
        return self.of({name: value for name, value in self.same.items() if values[name] == value})

    def again(self, names: tuple[str, ...], row: Row, before: Mapping[str, Any]) -> Row:
        """A row of fewer columns as one of these; in the others it says what was the same ``before``."""
        return self.told({**before, **dict(zip(names, row, strict=True))})


def _taking(names: tuple[str, ...]) -> Callable[[Mapping[str, Any]], Row]:
    return itemgetter(*names) if len(names) > 1 else lambda values: tuple([values[name] for name in names])


@dataclass(kw_only=True)
class Window:
    """What is kept of one shard."""

    facts: dict[str, object] = field(default_factory=dict)
    """What was taken as true of the runs that the records are of, by run id."""
    rows: int = 0
    _at_first: Mapping[str, Any] = field(default_factory=dict)
    """The columns that were the same in all of a single record, with their values."""
    _columns: _Columns | None = None
    _parts: list[_Part] = field(default_factory=lambda: [_Part() for _ in range(PARTS)])

    def add(self, record: Record, weight: int) -> int:
        """Keep a record; gives back how many bytes have been made of those that waited."""
        self.rows += 1
        values = vars(record)
        columns = self._columns
        if columns is None or columns.fixed(values) != columns.value:
            columns = self._parted(columns, values)
        part = self._parts[int(record.record_id[0], 16) * PARTS // 16]
        return part.pack(columns.names) if part.add(columns.told(values), weight) else 0

    def _parted(self, before: _Columns | None, values: Mapping[str, Any]) -> _Columns:
        if before is None:
            columns = _Columns.at_first(values)
            self._at_first = columns.same
        else:
            columns = before.without(values)
            for part in self._parts:
                part.waiting = [columns.again(before.names, row, before.same) for row in part.waiting]
        self._columns = columns
        return columns

    def batches(self, names: Sequence[bytes]) -> Iterator[Sized]:
        """Everything as ``to_batch`` makes it of sorted records. Raises NotTheSame where these are not its ids."""
        columns, done = self._columns or _Columns.of({}), 0
        schema = pa.schema([SCHEMA.field(name) for name in columns.names])
        same = cache(lambda rows: _of_one(columns.same, rows))
        for rows in self._sorted(columns):
            if [row[0] for row in rows] != [name.hex() for name in names[done : done + len(rows)]]:
                raise NotTheSame
            done += len(rows)
            try:
                batch = side_by_side(sized(batch_of_rows(rows, schema)), same(len(rows)))
            except UNFIT as error:  # whoever writes the shard from the journal will say which record it is
                raise NotTheSame from error
            yield batch
        if done != len(names):
            raise NotTheSame

    def _sorted(self, columns: _Columns) -> Iterator[list[Row]]:
        """The rows by record id, which is the first of their values, as many at once as become columns together."""
        rows: list[Row] = []
        for part in self._parts:
            rows += sorted(self._taken_from(part, columns), key=itemgetter(0))
            while len(rows) >= ROWS_PER_BATCH:
                yield rows[:ROWS_PER_BATCH]
                del rows[:ROWS_PER_BATCH]
        if rows:
            yield rows

    def _taken_from(self, part: _Part, columns: _Columns) -> Iterator[Row]:
        """The rows of a part; they are gone from there afterwards."""
        packed, part.packed = part.packed, []
        for pack in packed:
            if pack.names == columns.names:
                yield from pack.rows()
            else:
                yield from (columns.again(pack.names, row, self._at_first) for row in pack.rows())
        yield from part.waiting
        part.waiting = []


def _of_one(values: Mapping[str, Any], rows: int) -> Sized:
    """Columns that hold one value from top to bottom."""
    schema = pa.schema([SCHEMA.field(name) for name in values])
    return sized(batch_of_rows([tuple(values.values())] * rows, schema))


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
        self.size += window.add(record, weight)
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
