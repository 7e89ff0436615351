"""Auditing: a lawyer's question over the lineage of a corpus, with what the answer can and cannot tell."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import duckdb
import orjson

from corpusgen.corpus import Corpus
from corpusgen.errors import SealRefused, UsageError
from corpusgen.provenance.lineage import VIEWS
from corpusgen.provenance.questions import NOTICE, Parameter, Question
from corpusgen.records import Json
from corpusgen.stages.lineage.ledger_checks import kept_checkpoint, ledger_findings
from corpusgen.stages.lineage.proving import prove
from corpusgen.stages.lineage.reading import opened, unreadable
from corpusgen.stages.lineage.tracing import lineage_files
from corpusgen.stages.terms.deciding import registry_of
from corpusgen.store.query import QueryResult
from corpusgen.store.tabulate import Format, marked, plain_line, tabulate

Value = str | int | date | None
"""What a parameter is bound to."""

_NOTHING: Mapping[str, Collection[str]] = {}
_HEX = re.compile("[0-9a-f]{1,64}")
_KNOWN: dict[str, str] = {
    "provider": "select provider from teachers union select provider from terms",
    "terms": "select terms_id from terms",
    "teacher": "select teacher_id from teachers",
    "dataset": "select dataset from v_dataset",
    "student": "select student_id from students",
    "source": "select source_id from sources",
    "rightsholder": "select rightsholder from sources where rightsholder is not null",
}
"""Where the names of each type of parameter stand."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a question came to: an Arrow table, what it was asked of, and notes on what the table does not say."""

    question: Question
    parameters: Mapping[str, Value]
    result: QueryResult
    notes: tuple[str, ...]
    problems: tuple[str, ...] = ()
    """What is wrong with the ledger, where it was looked at."""
    notice: str = NOTICE

    @property
    def rows(self) -> list[tuple[Any, ...]]:
        """The answer as Python tuples."""
        return self.result.rows

    @property
    def violated(self) -> bool:
        """Whether there are rows where a pass needs none, or the ledger does not hold."""
        return bool(self.problems) or (self.question.passes_when_empty and self.result.table.num_rows > 0)

    @property
    def verdict(self) -> str:
        """The answer in a few words."""
        return "; ".join(self.problems[:3]) if self.problems else _verdict(self.question, self.result)

    def to_json(self) -> dict[str, Json]:
        """Everything, for --json."""
        return {
            "question": self.question.number,
            "name": self.question.name,
            "title": self.question.title,
            "answer": self.question.answer,
            "parameters": dict(self.parameters),
            "columns": list(self.result.columns),
            "rows": orjson.loads(tabulate(self.result, "json")),
            "notes": list(self.notes),
            "problems": list(self.problems),
            "passes": not self.violated if self.question.passes_when_empty or self.question.reads_ledger else None,
            "notice": self.notice,
        }


def audit_corpus(corpus: Corpus, question: Question, given: Mapping[str, str], *, on: date) -> Answer:
    """The answer of a corpus to a question; its ledger is checked where the question is about it."""
    answer = audit(lineage_files(corpus), question, given, on=on, also=_registered(corpus))
    return _with_ledger(corpus, answer) if question.reads_ledger else answer


def _registered(corpus: Corpus) -> dict[str, set[str]]:
    """Providers and terms that nothing here is from: that there is nothing is an answer too."""
    documents = registry_of(corpus, None).documents
    return {"provider": {one.provider for one in documents}, "terms": {one.id for one in documents}}


def audit(
    lineage: Mapping[str, Path],
    question: Question,
    given: Mapping[str, str],
    *,
    on: date,
    also: Mapping[str, Collection[str]] = _NOTHING,
    views: Mapping[str, str] = VIEWS,
) -> Answer:
    """The answer to a question over lineage files by table. ``on`` is today, ``also`` are more names by their type.

    Raises UsageError that names the nearest known names where a parameter is not known here.
    """
    with _damage_told(), opened(lineage, views) as connection:
        _refuse_unknown(question, given)
        values = {
            parameter.name: _value(connection, parameter, given.get(parameter.name), on, also)
            for parameter in question.parameters
        }
        bound = {name: values[name] for name in question.bound}
        result = _run(connection, question.sql, bound)
        erased = _erased(connection, question, values)
    problems = tuple(one.told for one in erased if question.passes_when_empty and not one.counted)
    notes = (*_notes(question, result, problems), *(one.told for one in erased if one.told not in problems))
    return Answer(question=question, parameters=values, result=result, notes=notes, problems=problems)


# --- What was erased -------------------------------------------------------------------------------------------------

_OF_RECORDS = re.compile(r"\b(?:records|dataset_records|record_requests|v_use|v_source)\b")
_ERASED = """
select erasure_id, records, counted, datasets, students from erasures
where case
    when $dataset::varchar is not null then list_contains(datasets, $dataset::varchar)
    when $student::varchar is not null then list_contains(students, $student::varchar) or list_has_any(datasets, (
        select coalesce(list(dataset), []) from student_datasets join students using (student_no)
        join v_dataset using (dataset_no) where student_id = $student::varchar
    ))
    else records > 0
end
order by erasure_no
"""


@dataclass(frozen=True, kw_only=True)
class _Erased:
    """An erasure that the answer is touched by: whether what it took stands in the rows, and the words for it."""

    counted: bool
    told: str


def _erased(connection: duckdb.DuckDBPyConnection, question: Question, values: Mapping[str, Value]) -> list[_Erased]:
    if not _OF_RECORDS.search(question.sql) or "record" in values:
        return []
    named = {name: values.get(name) for name in ("dataset", "student")}
    adds_up = "erased_uses" in question.sql
    return [_told_of(*row, adds_up=adds_up) for row in connection.execute(_ERASED, named).fetchall()]


def _told_of(
    name: str, records: int, counts: bool, datasets: list[str], students: list[str], *, adds_up: bool
) -> _Erased:
    where = f" (datasets: {', '.join(datasets) or 'none'}; students: {', '.join(students) or 'none'})"
    what = f"erasure {name} took {records:,} {'record' if records == 1 else 'records'}{where}"
    if counts and adds_up:
        return _Erased(counted=True, told=f"{what}; they are counted in, and marked as erased")
    kept = "" if counts else ", and it kept no counts of it"
    return _Erased(counted=False, told=f"{what}; what is counted here is what is left{kept}")


def _with_ledger(corpus: Corpus, answer: Answer) -> Answer:
    path, record = answer.parameters.get("kept"), answer.parameters.get("record")
    kept = [] if path is None else [kept_checkpoint(Path(str(path)))]
    problems = tuple(f"{one.check}: {one.subject}: {one.message}" for one in ledger_findings(corpus, kept))
    problems += tuple(_unsigned(answer))
    proofs = [] if record is None or problems else [_proof_told(corpus, str(record))]
    found = "the ledger does not hold, or not what was asked of it" if problems else _held(answer.result.table.num_rows)
    return replace(answer, problems=problems, notes=(found, *proofs, *answer.notes))


def _unsigned(answer: Answer) -> Iterator[str]:
    """A checkpoint was asked for that nobody signed: nothing is proved by it."""
    size = answer.parameters.get("checkpoint")
    if size is not None and answer.result.table.num_rows == 0:
        yield f"checkpoint {size}: none of this size was signed here; corpusgen audit q20 lists those that were"


def _held(checkpoints: int) -> str:
    if checkpoints == 0:
        return "the ledger holds, but no such checkpoint was signed: nothing here says that it was not written anew"
    return "the ledger holds: no event before the last checkpoint listed was altered since that was signed"


def _proof_told(corpus: Corpus, record: str) -> str:
    try:
        proof = prove(corpus, record)
    except (UsageError, SealRefused) as error:
        return f"record {record} cannot be proved: {error}"
    where = f"record {proof.record_id} is in {proof.dataset}"
    return f"{where}, which the ledger tells of: {sum(proof.hashes)} hashes; corpusgen prove writes the proof"


def _run(connection: duckdb.DuckDBPyConnection, sql: str, values: Mapping[str, Value]) -> QueryResult:
    relation = connection.sql(sql, params=dict(values))
    types, table = tuple(map(str, relation.types)), relation.to_arrow_table()
    return QueryResult(columns=tuple(table.column_names), types=types, table=table, truncated=False)


@contextmanager
def _damage_told() -> Iterator[None]:
    # The SQL is ours and tested: what goes wrong with it here is a file that is not what was written.
    try:
        yield
    except duckdb.Error as error:
        raise unreadable(error) from error


def written(answer: Answer, kind: Format) -> str:
    """The answer as text: for people with what was asked, notes and notice; CSV and JSON are the rows alone."""
    rows = tabulate(answer.result, kind)
    if kind not in ("table", "markdown"):
        return rows
    asked = [f"{name}: {value}" for name, value in answer.parameters.items() if value is not None]
    notes = [*answer.problems, *answer.notes, answer.notice]
    if kind == "table":
        notes = [*(["… is longer; --format markdown, csv or json has it whole"] if "…" in rows else []), *notes]
        head = "".join(f"  {plain_line(line)}\n" for line in asked)
        return f"{answer.question.title}\n{head}\n{rows}\n" + "".join(f"{plain_line(line)}\n" for line in notes)
    head = "".join(f"- {marked(line)}\n" for line in (*asked, answer.question.answer))
    return f"## {marked(answer.question.title)}\n\n{head}\n{rows}\n" + "".join(f"- {marked(line)}\n" for line in notes)


# --- Parameters ------------------------------------------------------------------------------------------------------


def _refuse_unknown(question: Question, given: Mapping[str, str]) -> None:
    taken = {parameter.name for parameter in question.parameters}
    for name in given:
        if name not in taken:
            options = ", ".join(f"--{one}" for one in sorted(taken)) or "nothing"
            raise UsageError(f"{question.number} is not asked of --{name}; it takes {options}")


def _value(
    connection: duckdb.DuckDBPyConnection,
    parameter: Parameter,
    text: str | None,
    on: date,
    also: Mapping[str, Collection[str]],
) -> Value:
    if text is None:
        return _default(parameter, on)
    if parameter.type == "file":
        return text
    if parameter.type in _READERS:
        return _READERS[parameter.type](parameter, text)
    if parameter.type == "record":
        return _record(connection, parameter, text)
    return _known(connection, parameter, text, also.get(parameter.type, ()))


def _default(parameter: Parameter, on: date) -> Value:
    if parameter.required:
        raise UsageError(f"give --{parameter.name}: {parameter.meaning}")
    if parameter.default == "today":
        return on
    return None if parameter.default == "any" else int(parameter.default)


def _date(parameter: Parameter, text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"--{parameter.name}: {text!r} is not a day; write it like 2026-01-31") from error


def _count(parameter: Parameter, text: str) -> int:
    most = _MOST[parameter.type]
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(most))):
        raise UsageError(f"--{parameter.name}: {text!r} is not a whole number from 0 to {most}")
    return int(text)


_MOST = {"days": 99_999, "count": 999_999_999_999}
_READERS: dict[str, Callable[[Parameter, str], Value]] = {"date": _date, "days": _count, "count": _count}


def _known(connection: duckdb.DuckDBPyConnection, parameter: Parameter, text: str, also: Collection[str]) -> str:
    names = sorted(str(name) for (name,) in connection.execute(_KNOWN[parameter.type]).fetchall())
    if text in names or text in also:
        return text
    raise UsageError(f"--{parameter.name}: no {parameter.type} here is called {text!r}; {_nearest(text, names, also)}")


def _nearest(text: str, names: list[str], also: Collection[str]) -> str:
    every = sorted({*names, *also})
    if not every:
        return "there is none at all"
    inside = [name for name in every if text.casefold() in name.casefold()]
    near = get_close_matches(text, every, n=5, cutoff=0.4)
    shown = list(dict.fromkeys([*near, *inside]))[:5] or names[:5]
    return f"the nearest are {', '.join(map(repr, shown))}"


def _record(connection: duckdb.DuckDBPyConnection, parameter: Parameter, text: str) -> str:
    """A record's id in full, from its beginning."""
    if not _HEX.fullmatch(text.lower()):
        raise UsageError(
            f"--{parameter.name}: {text!r} is not a record's id, nor the beginning of one: up to 64 hex digits"
        )
    least, most = (bytes.fromhex(text.lower().ljust(64, digit)) for digit in "0f")
    found = connection.execute(
        "select lower(hex(record_id)) from records where record_id between ?::blob and ?::blob order by 1 limit 4",
        [least, most],
    ).fetchall()
    if len(found) == 1:
        return str(found[0][0])
    if not found:
        raise UsageError(f"--{parameter.name}: no record here has an id that begins with {text!r}")
    begun = ", ".join(str(name)[: len(text) + 8] for (name,) in found[:3])
    raise UsageError(f"--{parameter.name}: {text!r} is the beginning of several ids, such as {begun}; write more of it")


# --- Notes -----------------------------------------------------------------------------------------------------------


def _notes(question: Question, result: QueryResult, problems: Collection[str]) -> Iterator[str]:
    rows = result.table.num_rows
    if not problems and (verdict := _verdict(question, result)):
        yield verdict
    if "text_held" in result.columns and rows:
        held = result.table.column("text_held").to_pylist().count(True)
        if held < rows:
            yield f"terms text not held for {rows - held:,} of {rows:,} rows; corpusgen terms snapshot keeps a text"
    if question.remark and rows:
        yield question.remark
    yield f"cannot tell: {question.cannot_tell}"


def _verdict(question: Question, result: QueryResult) -> str:
    rows = result.table.num_rows
    if question.passes_when_empty:
        return "0 rows: none" if rows == 0 else f"{rows:,} rows: each is a violation"
    return "0 rows: none known here" if rows == 0 and not question.reads_ledger else ""
