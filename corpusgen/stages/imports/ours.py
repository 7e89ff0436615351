"""Rows from outside that are no strangers: records of this corpus or of another, and rows that came in before.

A record that came in as a row would keep neither its licence nor what it was made from, and be free of both.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Final

import orjson

from corpusgen.corpus import Corpus
from corpusgen.errors import PolicyRefused
from corpusgen.marks import Marks, mark_of
from corpusgen.provenance.licences import read_expression
from corpusgen.records import Json
from corpusgen.stages.imports.outside import OutsideRow
from corpusgen.store.answers import expander, known_records

_AT_ONCE: Final = 400
_FORGET: Final = "an import would forget under which licences and terms they are, and what they were made from"


@dataclass(kw_only=True)
class _Found:
    """How many rows of a kind there are, and the first of them."""

    rows: int = 0
    first: int = 0
    told: str = ""

    def add(self, number: int, told: str) -> None:
        """One row more."""
        if not self.rows:
            self.first, self.told = number, told
        self.rows += 1


@dataclass(kw_only=True)
class Watch:
    """Looks at the rows of one file as they are read; ``refuse`` raises for what must not come in."""

    file: Path
    corpus: Corpus | None
    licence_expression: str
    """What licence and terms of the file were said to be."""
    terms_sets: frozenset[str]
    """The sets of terms that its rows may say they are under."""
    earlier: Mapping[str, Marks]
    """Rows that were imported under another licence, by what it says in words."""
    _names: list[tuple[int, str]] = field(default_factory=list)
    _marks: list[tuple[int, int]] = field(default_factory=list)
    _here: _Found = field(default_factory=_Found)
    _unlike: _Found = field(default_factory=_Found)
    _again: _Found = field(default_factory=_Found)

    def look(self, row: OutsideRow) -> None:
        """Look at a row."""
        if row.ours is not None:
            self._names += [(row.number, name) for name in row.ours.record_ids]
            if row.ours.tells_rights and (told := self._differs(row.ours.licence_expression, row.ours.terms_set_id)):
                self._unlike.add(row.number, told)
        if self.earlier:
            self._marks.append((row.number, content_mark(((m.role, m.content) for m in row.messages), row.text)))
        if len(self._names) >= _AT_ONCE or len(self._marks) >= _AT_ONCE:
            self._look_up()

    def _differs(self, expression: object, terms_set_id: object) -> str:
        """What a row's own rights say other than was said of the file; empty where they agree."""
        if not isinstance(expression, str) or not expression.strip():
            return "says no licence_expression"
        if set(read_expression(expression).parts) != set(read_expression(self.licence_expression).parts):
            return f"says licence_expression {expression!r:.200}"
        if terms_set_id is not None and terms_set_id not in self.terms_sets:
            return f"says terms_set_id {terms_set_id!r:.80}"
        return ""

    def _look_up(self) -> None:
        names, self._names = self._names, []
        asked = {name for _, name in names}
        known = set[str]() if self.corpus is None else known_records(self.corpus.journal.reader, asked)
        for number, name in {number: name for number, name in names if name in known}.items():
            self._here.add(number, name)
        marks, self._marks = self._marks, []
        for licence, there in self.earlier.items():
            for (number, _), again in zip(marks, there.known([mark for _, mark in marks]), strict=True):
                if again:
                    self._again.add(number, licence)

    def refuse(self) -> None:
        """Raise PolicyRefused where rows are records, or came in before under another licence."""
        self._look_up()
        if self._here.rows:
            raise self._refusal(
                self._here,
                f"from this corpus (record {self._here.told[:16]}…); {_FORGET}. To ask about them, name the column with"
                " their ids under parent in the seeds of a task; to choose among them, use corpusgen select",
            )
        if self._unlike.rows:
            raise self._refusal(
                self._unlike,
                f"from a corpus: row {self._unlike.first} {self._unlike.told}, while --licence and --generated-by come"
                f" to {self.licence_expression!r}. Rows keep the rights they have: say the licence of their source with"
                " --licence and the terms of who wrote them with --generated-by, all of them, and import rows under"
                " unlike ones as files of their own",
            )
        if self._again.rows:
            raise self._refusal(
                self._again,
                f"in this dataset already, {self._again.told}; records keep the rights they came with. Leave these rows"
                " out of the file, or erase the source first",
            )

    def _refusal(self, found: _Found, why: str) -> PolicyRefused:
        rows = (
            f"row {found.first} is"
            if found.rows == 1
            else f"{found.rows:,} rows, the first of them row {found.first}, are"
        )
        return PolicyRefused(f"{self.file}: {rows} {why}. Nothing was imported. Not legal advice")


def content_mark(turns: Iterable[tuple[str, str]], text: str) -> int:
    """What stands for a question and its answer."""
    return mark_of("\x00".join([part for turn in turns for part in turn] + [text]))


def marks_of_imports(corpus: Corpus, imports: Sequence[Mapping[str, Json]]) -> dict[str, Marks]:
    """The rows of earlier imports in eight bytes each, by what their licence says in words."""
    found: dict[str, Marks] = {}
    for facts in imports:
        told = f"as source {facts['source']['id']!r} under {facts['licence_expression']}"
        marks = found.setdefault(told, Marks())
        contents = (mark for _, mark in contents_of(corpus, facts["run_id"]))
        while some := list(islice(contents, _AT_ONCE)):
            marks.add(some)
    return {told: marks for told, marks in found.items() if len(marks)}


def contents_of(corpus: Corpus, run_id: str) -> Iterator[tuple[int, int]]:
    """The rows of an import that are records, each with what stands for its question and its answer."""
    expand = expander()
    sql = (
        "select r.ordinal + 1, q.body, a.body from records r join requests q using (request_key) join answers a"
        " using (request_key) where r.run_id = ?"
    )
    for number, asked, said in corpus.journal.reader.execute(sql, (run_id,)):
        turns = orjson.loads(expand(asked))["messages"]
        yield number, content_mark(((turn[0], turn[1]) for turn in turns), orjson.loads(expand(said))["text"])
