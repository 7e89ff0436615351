"""The items of eval files as 64-bit marks in sorted arrays, and which of them a text has parts of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from corpusgen.curation.evals import EvalFile, cells
from corpusgen.curation.grams import Marks, grams_of, marks_of
from corpusgen.errors import EvalFileError, Problem

Numbers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

FEWEST: Final = 3
"""Words that an item needs to be evidence at all."""
SMALL, MOST, SHARED = 5, 20, 50
"""An n-gram in more than one item in ``SHARED`` says nothing; at least ``SMALL`` may have it, at most ``MOST``."""
_LONGEST_NAME = 200
TRIPLE: Final = 3
"""Words of the short n-grams by which edited copies are told."""
_LAST = np.array([2**64 - 1], np.uint64)
"""Ends a table, so that every search finds a place."""
_NONE = _LAST[:0]


class Item(NamedTuple):
    """One text of an eval file and where it stands."""

    file: int
    number: int
    column: int
    marks: Marks


class Entry(NamedTuple):
    """What is looked for of one item: n-grams of ``length`` words; ``whole`` where all of them must be there."""

    item: Item
    grams: Marks
    length: int
    triples: Marks
    """The same of three words, where a copy that was edited is to be told from a text that has a sentence of it."""
    whole: bool = False


class Shelf:
    """Eval files being read: texts that say the same are one item."""

    def __init__(self, ngram: int) -> None:
        self.items: list[Item] = []
        self.files: list[EvalFile] = []
        self.columns: list[list[str]] = []
        self._ngram = ngram
        self._places: dict[int, int] = {}
        self._common: list[Marks] = []

    def add(self, file: EvalFile) -> None:
        """Read one file. Raises EvalFileError, also where it holds no text."""
        columns: dict[str, int] = {}
        before, rows, repeats = len(self.items), set[int](), Counter[int]()
        for cell in cells(file):
            column = columns.setdefault(cell.column, len(columns))
            rows.add(cell.number)
            marks = _NONE if _is_a_name(cell.text) else marks_of(cell.text)
            repeats[self._kept(Item(len(self.files), cell.number, column, marks))] += 1
        if not rows:
            where = f"the columns {', '.join(file.columns)}" if file.columns else "it"
            told = f"there is no text in {where}; name the columns that hold the items, or remove the file"
            raise EvalFileError(Problem(file=file.path, line=None, field="", message=told))
        self.files.append(file)
        self.columns.append(list(columns))
        self._common.append(_shared([item.marks for item in self.items[before:]], self._ngram))
        if len(repeats) > 1:
            self._set_aside(at for at, count in repeats.items() if _in_many(count, len(rows)))

    def _kept(self, item: Item) -> int:
        """The place of an item, or of an earlier one that says the same."""
        at = self._places.setdefault(hash(item.marks.tobytes()), len(self.items))
        if at == len(self.items):
            self.items.append(item)
        return at

    def _set_aside(self, places: Iterable[int]) -> None:
        for at in places:
            item = self.items[at]
            self._common.append(grams_of(item.marks, self._ngram))
            self.items[at] = item._replace(marks=_NONE)

    def common(self, template: Sequence[str]) -> Marks:
        """n-grams that are no evidence: many items have them, or every prompt of the task has."""
        told = [grams_of(marks_of(piece), self._ngram) for piece in template]
        return np.unique(np.concatenate([*self._common, *told, _LAST]))

    def entries(self, common: Marks) -> Iterator[Entry]:
        """What to look for of every item that says anything."""
        for item in self.items:
            entry = _entry(item, common, self._ngram)
            if entry is not None:
                yield entry


@dataclass(frozen=True, kw_only=True)
class Found:
    """Which n-grams of a table a text holds."""

    table: Table
    at: Numbers
    """For each n-gram of the text the place in the table where it would stand."""
    hit: Flags
    """Whether it stands there."""
    parts: dict[int, slice]
    """Where in ``at`` the n-grams of each length are."""

    def entries(self) -> tuple[Numbers, Numbers]:
        """The entries that have any of them, and how many of each."""
        return np.unique(self._posts[0], return_counts=True)

    def longest_run(self, entry: int) -> tuple[int, int]:
        """The most words in a row that the text has of an entry: the number of the first, and how many."""
        posts, places = self._posts
        length = int(self.table.lengths[entry])
        part = self.parts[length]
        first, count = _longest_run(np.isin(self.at[part], places[posts == entry]) & self.hit[part])
        return first, count + length - 1

    @cached_property
    def _posts(self) -> tuple[npt.NDArray[np.int32], Numbers]:
        """Every entry that has one of the n-grams, and the n-gram's place in the table."""
        places = np.unique(self.at[self.hit])
        starts = self.table.starts
        counts = starts[places + 1] - starts[places]
        before = np.cumsum(counts) - counts
        each = np.repeat(starts[places] - before, counts) + np.arange(int(counts.sum()))
        return self.table.posts[each], np.repeat(places, counts)


@dataclass(frozen=True, kw_only=True)
class Table:
    """Every n-gram that counts, sorted, with the entries it belongs to."""

    grams: Marks
    starts: Numbers
    posts: npt.NDArray[np.int32]
    wanted: npt.NDArray[np.int32]
    """For each n-gram how many a text must have, at the least, of any entry it belongs to."""
    totals: npt.NDArray[np.int32]
    """How many n-grams each entry has."""
    lengths: npt.NDArray[np.int8]
    whole: Flags
    triples: Marks
    triple_starts: Numbers
    places: npt.NDArray[np.int32]
    """File, line and column of each entry's item."""
    sizes: tuple[int, ...]
    """Each length of n-gram in the table."""

    @classmethod
    def of(cls, entries: list[Entry], report: float) -> Table:
        """The table of some entries, of which nothing matters below the share ``report``."""
        totals = np.array([len(entry.grams) for entry in entries], np.int32)
        grams = np.concatenate([*(entry.grams for entry in entries), _LAST])
        posts = np.append(np.repeat(np.arange(len(entries), dtype=np.int32), totals), np.int32(-1))
        order = np.argsort(grams, kind="stable")
        distinct, starts = np.unique(grams[order], return_index=True)
        lengths = np.array([entry.length for entry in entries], np.int8)
        whole = np.array([entry.whole for entry in entries], np.bool_)
        wanted = np.append(np.where(whole, totals, np.maximum(1, np.ceil(totals * report - 1e-9))), 1).astype(np.int32)
        return cls(
            grams=distinct,
            starts=np.append(starts, len(grams)),
            posts=posts[order],
            totals=totals,
            lengths=lengths,
            whole=whole,
            wanted=np.minimum.reduceat(wanted[posts[order]], starts),
            triples=np.concatenate([_NONE, *(entry.triples for entry in entries)]),
            triple_starts=np.cumsum([0, *(len(entry.triples) for entry in entries)]),
            places=np.array([entry.item[:3] for entry in entries], np.int32).reshape(-1, 3),
            sizes=tuple(np.unique(lengths).tolist()),
        )

    def found_in(self, marks: Marks) -> Found | None:
        """Which n-grams a text holds; None where they are too few to matter."""
        parts = [grams_of(marks, size) for size in self.sizes]
        asked = np.concatenate(parts) if len(parts) > 1 else parts[0] if parts else marks[:0]
        at = np.searchsorted(self.grams, asked)
        hit = self.grams[at] == asked
        count = np.count_nonzero(hit)
        if not count or count < self.wanted[at[hit]].min():
            return None
        ends = np.cumsum([0, *map(len, parts)]).tolist()
        places = {size: slice(ends[i], ends[i + 1]) for i, size in enumerate(self.sizes)}
        return Found(table=self, at=at, hit=hit, parts=places)

    def triples_found(self, entry: int, marks: Marks) -> float:
        """The share of an entry's words in threes that a text has, in a row as well."""
        own = self.triples[self.triple_starts[entry] : self.triple_starts[entry + 1]]
        return float(np.isin(own, grams_of(marks, TRIPLE)).mean()) if len(own) else 0.0


def covered(marks: Marks, common: Marks, ngram: int) -> Flags:
    """For each word whether it stands in an n-gram that is no evidence."""
    grams = grams_of(marks, ngram)
    shared = np.flatnonzero(common[np.searchsorted(common, grams)] == grams)
    steps = np.zeros(len(marks) + 1, np.int64)
    steps[shared] += 1
    steps[shared + ngram] -= 1
    return np.cumsum(steps)[:-1] > 0


def _is_a_name(text: str) -> bool:
    """Whether a cell holds an address, a path or an id and no text."""
    return text.isascii() and len(text.split()) == 1 and len(text) < _LONGEST_NAME and any(map(str.isalpha, text))


def _in_many(count: int, rows: int) -> bool:
    """Whether a text stands in so many rows that it is an instruction, a subject or a licence, and no item."""
    return rows > 1 and (count >= rows or count > max(MOST, rows / SHARED))


def _shared(items: list[Marks], ngram: int) -> Marks:
    """The n-grams that stand in many of some items."""
    most = max(1.0, min(len(items) / 2, max(SMALL, min(MOST, len(items) / SHARED))))
    grams = np.concatenate([_NONE, *(np.unique(grams_of(marks, ngram)) for marks in items)])
    distinct, counts = np.unique(grams, return_counts=True)
    return distinct[counts > most]


def _entry(item: Item, common: Marks, ngram: int) -> Entry | None:
    """What to look for of an item; None where it is no evidence."""
    shared = covered(item.marks, common, ngram)
    first, count = _longest_run(~shared)
    if count >= ngram:
        grams, triples = (np.unique(_uncovered(item.marks, shared, length)) for length in (ngram, TRIPLE))
        return Entry(item, grams, ngram, triples)
    if count >= FEWEST:
        return Entry(item, grams_of(item.marks[first : first + count], count), count, _NONE)
    grams = np.unique(grams_of(item.marks, ngram))
    own = grams[common[np.searchsorted(common, grams)] != grams]
    return Entry(item, own, ngram, _NONE, whole=True) if len(own) else None


def _uncovered(marks: Marks, shared: Flags, ngram: int) -> Marks:
    before = np.concatenate([[0], np.cumsum(shared)])
    own: Marks = grams_of(marks, ngram)[before[ngram:] == before[:-ngram]]
    return own


def _longest_run(flags: Flags) -> tuple[int, int]:
    """Where the longest run of True begins, and how long it is."""
    edges = np.flatnonzero(np.diff(flags, prepend=False, append=False))
    if not len(edges):
        return 0, 0
    counts = edges[1::2] - edges[::2]
    longest = int(np.argmax(counts))
    return int(edges[2 * longest]), int(counts[longest])
