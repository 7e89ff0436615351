"""Texts that give away what a student will be tested on: the share of an eval item's word 8-grams found in a text.

What many items of an eval file share, such as an instruction, gives nothing away. The words of an n-gram that stands
in more than one item in fifty (in more than 5 items of a small file, in more than 20 of any; where a file has fewer
than ten, in more than half of them) are set aside, and so are those of the task's own template. Of what is left of
an item,

* runs of at least ``ngram`` words are looked for by containment: how many of their n-grams does the text hold? A text
  with enough to be reported is compared once more by three words at a time, of which an edited copy keeps far more
  than a text that merely shares a sentence; it is dropped where a copy that is edited evenly would be;
* where the longest run is shorter, it is looked for as a whole: from 5 words on anywhere in the text, with 3 or 4
  words where it makes up at least half of the text's own words;
* where no three words in a row are left but the item is long, all of it must be in the text, word for word;
* anything shorter is no evidence, and the item is counted as such.

A text that stands in every row of a file, or in more than 20 and one in fifty, is an instruction, a subject or a
licence and no item; nor is a cell that is one word without spaces, such as an address, a path or an id.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, Self

import numpy as np

from corpusgen.curation.eval_items import FEWEST, TRIPLE, Found, Shelf, Table, covered
from corpusgen.curation.evals import EvalFile, each_file
from corpusgen.curation.finding import Finding
from corpusgen.curation.grams import LONGEST, Marks, marks_of, passage

CHECK: Final = "decontaminate"
DROPPED: Final = "repeats an item of an eval file"
REPORTED: Final = "has a part of an item of an eval file"
ANYWHERE: Final = 5
"""Words from which a short item counts wherever it stands; a shorter one must be half of the text."""
LEAST: Final = 4
"""n-grams without which nothing is dropped, unless an item has fewer: of two texts of nine words that differ in a name
only, half of the 8-grams are the same, and yet they ask two things."""
LONG: Final = 2
"""Times ``ngram``: the n-grams from which an item is long enough for its copies to be told by three words at a time."""
CLOSELY: Final = 8
"""Items that are compared by three words at a time, of those a text has most of."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """From which share of an eval item a text is reported and dropped."""

    report: float = 0.2
    """Share of an item's n-grams, 0 to 1, from which a text is reported; not above ``drop``. 0: one will do."""
    drop: float = 0.3
    """Share, 0 to 1, from which it is dropped."""
    ngram: int = 8
    """Words in a row that are compared, 3 to 50; 13 is usual too, and finds fewer chance agreements and fewer edits."""

    def __post_init__(self) -> None:
        for name, share in (("report", self.report), ("drop", self.drop)):
            if not 0 <= share <= 1:
                raise ValueError(f"{name} is a share from 0 to 1, found {share!r}")
        if self.report > self.drop:
            raise ValueError(f"report ({self.report!r}) may not be above drop ({self.drop!r})")
        if not FEWEST <= self.ngram <= LONGEST:
            raise ValueError(f"ngram is {FEWEST} to {LONGEST} words, found {self.ngram!r}")

    @property
    def triples(self) -> float:
        """Share of an item's words in threes that a copy has when edits have left it ``drop`` of its n-grams."""
        return float(self.drop ** (TRIPLE / self.ngram))


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What was read of the eval files."""

    files: tuple[str, ...]
    items: int
    """Texts that differ from one another."""
    without_evidence: int
    """Items too short to say anything, such as ``42``, or made of what many items share; never found in a text."""
    shared: int
    """n-grams that stand in so many items that they are no evidence."""


class _Best(NamedTuple):
    """The item a text has most of."""

    entry: int
    share: float
    dropped: bool
    triples: float | None = None
    """Share of its words in threes, where that decided."""


class EvalSet:
    """The items of eval files, ready to be looked for: 32 bytes for each of their words, in sorted arrays; no text."""

    def __init__(self, *, settings: Settings, summary: Summary, names: _Names, table: Table, common: Marks) -> None:
        self.summary = summary
        self._settings = settings
        self._names = names
        self._table = table
        self._common = common

    @classmethod
    def read(
        cls,
        files: Sequence[EvalFile],
        *,
        report: float = 0.2,
        drop: float = 0.3,
        ngram: int = 8,
        template: Sequence[str] = (),
    ) -> Self:
        """The items of eval files. Raises EvalFileError, and ValueError for a setting outside its range.

        ``template`` is what every prompt of the task says, which is no leak though an eval file say it as well.
        """
        settings = Settings(report=report, drop=drop, ngram=ngram)
        shelf = Shelf(ngram)
        for file in each_file(files):
            shelf.add(file)
        common = shelf.common(template)
        entries = list(shelf.entries(common))
        names = _Names.of(shelf)
        return cls(
            settings=settings,
            summary=Summary(
                files=names.files,
                items=len(shelf.items),
                without_evidence=len(shelf.items) - len(entries),
                shared=len(common) - 1,
            ),
            names=names,
            table=Table.of(entries, report),
            common=common,
        )

    def check(self, text: str) -> Finding | None:
        """What a text gives away of an eval item, if anything; of several items the one it has most of."""
        marks = marks_of(text)
        found = self._table.found_in(marks)
        best = self._best(marks, found) if found else None
        return None if found is None or best is None else self._finding(text, found, best, len(marks))

    def _best(self, marks: Marks, found: Found) -> _Best | None:
        table = self._table
        entries, counts = found.entries()
        totals, lengths = table.totals[entries], table.lengths[entries]
        shares = counts / totals
        enough = shares >= np.where(table.whole[entries], 1, self._settings.report)
        if not enough.any():
            return None
        short = (lengths < ANYWHERE) & (totals == 1)
        if short.any():
            enough &= ~short | (2 * lengths.astype(np.int64) >= self._own(marks))
        dropped = (
            enough
            & (shares >= self._settings.drop)
            & (counts >= np.minimum(totals, LEAST if self._settings.drop else 1))
        )
        order = np.lexsort((entries, -totals, -shares, ~dropped, ~enough))[:CLOSELY]
        seen = (_Best(int(entries[at]), float(shares[at]), bool(dropped[at])) for at in order if enough[at])
        closer = (best if best.dropped else self._closer(marks, best) for best in seen)
        return max(closer, key=lambda best: best.dropped, default=None)

    def _closer(self, marks: Marks, best: _Best) -> _Best:
        """The same item, compared by three words at a time where it is long: an edited copy keeps most of those."""
        if self._table.totals[best.entry] < LONG * self._settings.ngram:
            return best
        share = self._table.triples_found(best.entry, marks)
        return best._replace(triples=share, dropped=True) if share >= self._settings.triples else best

    def _own(self, marks: Marks) -> int:
        """Words of a text that are not of what all texts share."""
        return len(marks) - int(covered(marks, self._common, self._settings.ngram).sum())

    def _finding(self, text: str, found: Found, best: _Best, words: int) -> Finding:
        first, count = found.longest_run(best.entry)
        metric, score, threshold = self._measured(best)
        return Finding(
            check=CHECK,
            kept=not best.dropped,
            reason=DROPPED if best.dropped else REPORTED,
            metric=metric,
            score=round(score, 4),
            threshold=round(threshold, 4),
            other=self._names.of_entry(self._table, best.entry),
            detail=passage(text, first, count, of=words),
        )

    def _measured(self, best: _Best) -> tuple[str, float, float]:
        """What decided, its value, and the threshold it reached."""
        settings, length = self._settings, int(self._table.lengths[best.entry])
        if best.triples is not None:
            return f"share of the item's {TRIPLE}-grams", best.triples, settings.triples
        metric = f"share of the item's {length}-grams" if length == settings.ngram else "the whole item"
        return metric, best.share, settings.drop if best.dropped else settings.report


@dataclass(frozen=True, kw_only=True)
class _Names:
    """What items are called: file and line, and the column where several are read."""

    files: tuple[str, ...]
    columns: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, shelf: Shelf) -> Self:
        paths = [file.path for file in shelf.files]
        return cls(
            files=tuple(_shortest(path, paths) for path in paths),
            columns=tuple(map(tuple, shelf.columns)),
        )

    def of_entry(self, table: Table, entry: int) -> str:
        file, number, column = table.places[entry].tolist()
        columns = self.columns[file]
        return f"{self.files[file]}:{number}{f' {columns[column]}' if len(columns) > 1 else ''}"


def _shortest(path: Path, paths: Sequence[Path]) -> str:
    """A file's name, or its path where another file of that name is read."""
    return path.name if sum(other.name == path.name for other in paths) == 1 else str(path)
