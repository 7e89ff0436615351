"""Files from outside: Parquet, CSV or JSON Lines, row by row, each either sound or with what is wrong with it."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson

from corpusgen.errors import OutsideFileError, Problem, UsageError
from corpusgen.marks import Marks, mark_of
from corpusgen.prompting.conversations import Turns, text_of, turns_of
from corpusgen.records import Message

FIELDS: Final = ("id", "input", "response", "label", "messages", "reasoning", "system")
"""What a column of a file may be."""
LONGEST_ROW: Final = 16_000_000
"""Characters; a row is held in memory, and a longer one is a file of its own."""
LONGEST_ID: Final = 512
_LONGEST_LINE: Final = 8 * LONGEST_ROW
"""Bytes; what is longer is no row, but a file whose line ends or quotes are wrong."""
_BATCH: Final = 512
_PREFERENCE: Final = frozenset({"chosen", "rejected"})
_USUAL: Final[tuple[Mapping[str, str], ...]] = (
    {"messages": "messages"},
    {"input": "prompt", "response": "completion"},
    {"input": "prompt", "response": "response"},
    {"input": "input", "response": "response"},
    {"input": "input", "response": "output"},
    {"input": "question", "response": "answer"},
    {"input": "instruction", "response": "output"},
    {"input": "input", "label": "label"},
    {"input": "text", "label": "label"},
)
"""Columns that are understood where nobody says what they are; the first that a file has counts."""
_BESIDE: Final[tuple[str, ...]] = ("id", "reasoning", "system")
_NO_ROOM: Final = (
    "a record has room for one response, not for a pair; import the chosen answers as responses, with"
    " --columns input=prompt,response=chosen"
)
_RECORD: Final = re.compile(r"[0-9a-fA-F]{64}")
_OURS: Final = ("record_id", "licence_expression", "terms_set_id", "licence")
"""Columns of records and of their exports, read beside those that are wanted: they tell whose rows these are."""
_KEY: Final = re.compile(rb'"[ \t\r\n]*:')
_ANY: Final = Turns(system=True, last=False)
_THOUGHT: Final = ("reasoning_content", "reasoning")


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Which column of a file is what."""

    of: Mapping[str, str]
    """Names of columns by FIELDS."""

    @property
    def names(self) -> list[str]:
        """The columns that are read."""
        return list(dict.fromkeys(self.of.values()))

    @property
    def labelled(self) -> bool:
        """Whether answers are labels."""
        return "label" in self.of


class Ours(NamedTuple):
    """What a row says of itself that seems to be a record of some corpus."""

    record_ids: tuple[str, ...]
    tells_rights: bool
    """Whether it has columns for its licence or its terms."""
    licence_expression: object
    terms_set_id: object


class OutsideRow(NamedTuple):
    """A sound row: a question, and what was answered to it. ``number`` counts from 1."""

    number: int
    name: str | None
    """What its id column calls it."""
    input: str
    messages: tuple[Message, ...]
    text: str
    reasoning: str | None
    ours: Ours | None = None


class BadRow(NamedTuple):
    """A row that cannot be a record, and why."""

    number: int
    line: int | None
    field: str
    message: str


class _Raw(NamedTuple):
    number: int
    line: int | None
    values: Mapping[str, Any] | str
    """The cells, or why there are none."""


def parse_columns(text: str) -> Columns:
    """Columns from ``input=question,response=answer``. Raises UsageError that names the part and what to write."""
    of: dict[str, str] = {}
    for part in text.split(","):
        field, _, column = (word.strip() for word in part.partition("="))
        if field in ("chosen", "rejected"):
            raise UsageError(f"--columns: {part!r}: {_NO_ROOM}")
        if field not in FIELDS or not column or field in of:
            known = ", ".join(FIELDS)
            raise UsageError(f"--columns: {part!r} is no FIELD=COLUMN with a new field of {known}")
        of[field] = column
    return _whole(of)


def _whole(of: Mapping[str, str]) -> Columns:
    answers = [field for field in ("messages", "response", "label") if field in of]
    if len(answers) != 1:
        raise UsageError(
            "--columns: rows are answered by one of messages, response and label, found"
            f" {' and '.join(answers) or 'none'}; write such as input=question,response=answer"
        )
    if ("input" in of) == ("messages" in of):
        raise UsageError("--columns: write input=… beside response or label; messages hold both and go without it")
    if "messages" in of and "system" in of:
        raise UsageError("--columns: messages hold the system text; leave system=… out")
    return Columns(of=of)


def columns_of(path: Path) -> Columns:
    """The columns of a file that says by their names what they are. Raises OutsideFileError listing what it has."""
    check_regular(path)
    names = _names_in(path)
    if names >= _PREFERENCE:
        raise file_error(path, f"has chosen and rejected answers: {_NO_ROOM}")
    for usual in _USUAL:
        if "messages" in usual and names >= {"record_id", "response"}:
            continue  # a record's messages are the question alone
        if names >= set(usual.values()):
            beside = {name: name for name in _BESIDE if name in names and name not in usual.values()}
            if "messages" in usual:
                beside.pop("system", None)  # it is among the messages
            return Columns(of={**beside, **usual})
    there = ", ".join(sorted(names)) or "none"
    _refuse_first_bad(path)
    raise file_error(
        path, f"says by no column what is asked and answered (it has: {there}); write --columns input=…,response=…"
    )


def _names_in(path: Path) -> set[str]:
    if path.suffix.lower() == ".parquet":
        return set(_parquet_names(path))
    if path.suffix.lower() == ".csv":
        return set(_csv_names(path))
    first = next((raw.values for raw in _raw_rows(path, []) if not isinstance(raw.values, str)), {})
    return set(first)


def _refuse_first_bad(path: Path) -> None:
    """Raise OutsideFileError where the first row cannot be read at all: what it says is then no question of columns."""
    if path.suffix.lower() == ".jsonl":
        first = next(_raw_rows(path, []), None)
        if first is not None and isinstance(first.values, str):
            raise file_error(path, f"{first.values}. Nothing was imported", first.line)


def rows_of(path: Path, columns: Columns, limit: int | None = None) -> Iterator[OutsideRow | BadRow]:
    """The rows of a file in its order. Raises OutsideFileError where it cannot be read to its end, or holds none."""
    seen, none = Marks(), True
    read = _reader(columns)
    rows = islice(_raw_rows(path, columns.names), limit)
    while some := list(islice(rows, _BATCH)):
        none = False
        found = [_read(read, raw) for raw in some]
        yield from _once_each(seen, found, [raw.line for raw in some], columns)
    if none:
        raise file_error(path, "holds no rows")


def _once_each(
    seen: Marks, rows: Sequence[OutsideRow | BadRow], lines: Sequence[int | None], columns: Columns
) -> Iterator[OutsideRow | BadRow]:
    named = [at for at, row in enumerate(rows) if isinstance(row, OutsideRow) and row.name is not None]
    new = dict(zip(named, seen.add([mark_of(rows[at][1] or "") for at in named]), strict=True))  # type: ignore[arg-type]
    for at, (row, line) in enumerate(zip(rows, lines, strict=True)):
        if new.get(at, True):
            yield row
        else:
            told = f"{row[1]!r:.80} is the id of an earlier row too; ids name one row"
            yield BadRow(number=row.number, line=line, field=columns.of["id"], message=told)


# --- From cells to a row ---------------------------------------------------------------------------------------------


class _Wrong(Exception):
    """A cell is not what it must be."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


_Reader = Callable[[int, Mapping[str, Any]], OutsideRow]


def _read(read: _Reader, raw: _Raw) -> OutsideRow | BadRow:
    if isinstance(raw.values, str):
        return BadRow(number=raw.number, line=raw.line, field="", message=raw.values)
    try:
        return read(raw.number, raw.values)
    except _Wrong as error:
        return BadRow(number=raw.number, line=raw.line, field=error.field, message=str(error))


def _reader(columns: Columns) -> _Reader:
    of = columns.of
    told = of.get("messages") or of["input"]
    answered = of.get("label") or of.get("response") or ""

    def read(number: int, values: Mapping[str, Any]) -> OutsideRow:
        name = _name(values, of["id"]) if "id" in of else None
        if "messages" in of:
            messages, text, reasoning = _conversation(values, told)
        else:
            messages, text, reasoning = _question(values, told), *_answer(values, answered)
        if of.get("system") and _is_there(values, of["system"]):
            messages = (Message(role="system", content=_text(values, of["system"])), *messages)
        if of.get("reasoning") and _is_there(values, of["reasoning"]):
            reasoning = _text(values, of["reasoning"])
        asked = [turn for turn in messages if turn.role != "system"]
        row = OutsideRow(
            number,
            name,
            asked[0].content if len(asked) == 1 else text_of(asked),
            messages,
            text,
            reasoning,
            _ours(values, of.get("id")),
        )
        if _size(row) > LONGEST_ROW:
            raise _Wrong(told, f"holds {_size(row):,} characters; a row has at most {LONGEST_ROW:,}")
        return row

    return read


def _ours(values: Mapping[str, Any], id_column: str | None) -> Ours | None:
    record = values.get("record_id")
    named = (record, values.get(id_column) if id_column else None)
    ids = tuple(dict.fromkeys(one.lower() for one in named if isinstance(one, str) and _RECORD.fullmatch(one)))
    if record is None and not ids:
        return None
    rights = [name for name in ("licence_expression", "terms_set_id") if name in values]
    if not rights and record in ids and "licence" in values:
        return Ours(ids, True, values["licence"], None)  # a row of an export for trainers
    return (
        Ours(ids, bool(rights), values.get("licence_expression"), values.get("terms_set_id")) if ids or rights else None
    )


def _size(row: OutsideRow) -> int:
    return sum(len(turn.content) for turn in row.messages) + len(row.text) + len(row.reasoning or "")


def _is_there(values: Mapping[str, Any], column: str) -> bool:
    """Whether an optional cell says something."""
    value = values.get(column)
    return value is not None and not (isinstance(value, str) and not value.strip())


def _name(values: Mapping[str, Any], column: str) -> str:
    name = _text(values, column)
    if len(name) > LONGEST_ID or not name.isprintable():
        raise _Wrong(column, f"{name!r:.60} is no id: at most {LONGEST_ID} characters, all of them printable")
    return name


def _text(values: Mapping[str, Any], column: str) -> str:
    value = values.get(column)
    if isinstance(value, str):
        return _sound(value, column)
    if type(value) is int:
        return str(value)
    if value is None:
        there = ", ".join(map(str, values)) or "none"
        why = "is empty here" if column in values else f"is no column of this row, which has: {there:.200}"
        raise _Wrong(column, f"{why}; fill it in, or leave the row out with --skip-bad")
    raise _Wrong(column, f"holds {value!r:.60} ({type(value).__name__}); only text and whole numbers are read")


def _sound(text: str, column: str) -> str:
    if not text or text.isspace():
        raise _Wrong(column, "is empty here; fill it in, or leave the row out with --skip-bad")
    try:
        text.isascii() or text.encode()
    except UnicodeEncodeError as error:
        raise _Wrong(column, "is not UTF-8 text; save the file as UTF-8") from error
    return text


def _question(values: Mapping[str, Any], column: str) -> tuple[Message, ...]:
    value = values.get(column)
    if not isinstance(value, list):
        return (Message(role="user", content=_text(values, column)),)
    turns = _turns(value, column)
    if turns[-1].role != "user":
        raise _Wrong(column, f"ends with a turn of the {turns[-1].role}; the question ends with the user's")
    return turns


def _answer(values: Mapping[str, Any], column: str) -> tuple[str, str | None]:
    value = values.get(column)
    if not isinstance(value, list):
        return _text(values, column), None
    if len(value) != 1 or not isinstance(value[0], dict) or value[0].get("role") != "assistant":
        raise _Wrong(column, "is a list, and holds other than one turn of the assistant")
    return _said(value[0], column)


def _said(turn: Mapping[str, Any], column: str) -> tuple[str, str | None]:
    (said,) = _turns([turn], column)
    thought = next((turn[name] for name in _THOUGHT if isinstance(turn.get(name), str) and turn[name].strip()), None)
    return said.content, None if thought is None else _sound(thought, column)


def _conversation(values: Mapping[str, Any], column: str) -> tuple[tuple[Message, ...], str, str | None]:
    value = values.get(column)
    if isinstance(value, str):
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError as error:
            raise _Wrong(column, f"must be a list of turns in JSON: {error}") from error
    turns = _turns(value, column)
    if turns[-1].role != "assistant":
        raise _Wrong(column, f"ends with a turn of the {turns[-1].role}; the last turn is the answer, the assistant's")
    if all(turn.role != "user" for turn in turns):
        raise _Wrong(column, "has no turn of the user, so nothing was asked")
    assert isinstance(value, list)
    return turns[:-1], *_said(value[-1], column)


def _turns(value: object, column: str) -> tuple[Message, ...]:
    try:
        found = turns_of(value, _ANY)
    except ValueError as error:
        raise _Wrong(column, str(error)) from error
    for turn in found:
        _sound(turn.content, column)
    return found


# --- Files -----------------------------------------------------------------------------------------------------------


def _raw_rows(path: Path, columns: Sequence[str]) -> Iterator[_Raw]:
    readers = {".parquet": _parquet, ".csv": _csv, ".jsonl": _jsonl}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise file_error(path, f"unknown kind of file {path.suffix!r}; use {', '.join(readers)}")
    check_regular(path)
    try:
        yield from reader(path, columns)
    except OSError as error:
        raise file_error(path, f"cannot be read: {error.strerror or error}") from error


def check_regular(path: Path) -> None:
    """Raise OutsideFileError for a folder, a pipe or a device, which might never end."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise file_error(path, f"cannot be read: {error.strerror or error}") from error
    if not stat.S_ISREG(mode):
        raise file_error(path, "is no regular file (but a folder, a pipe or a device); name a file")


def file_error(path: Path, message: str, line: int | None = None) -> OutsideFileError:
    """What is wrong with a whole file."""
    return OutsideFileError(Problem(file=path, line=line, field="", message=message))


def _require(path: Path, columns: Iterable[str], found: Sequence[str]) -> None:
    if twice := sorted({name for name in found if found.count(name) > 1}):
        raise file_error(path, f"has the column {twice[0]!r} twice; rename one", 1)
    for column in columns:
        if column not in found:
            known = ", ".join(map(str, found)) or "none"
            raise OutsideFileError(
                Problem(file=path, line=None, field=column, message=f"no such column; the file has: {known:.300}")
            )


def _parquet(path: Path, columns: Sequence[str]) -> Iterator[_Raw]:
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")  # as store/shards.py says, whichever is read first

    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with path.open("rb") as raw, pq.ParquetFile(raw) as file:
            _require(path, columns, file.schema_arrow.names)
            number = 0
            ours = [name for name in _OURS if name in file.schema_arrow.names and name not in columns]
            for batch in file.iter_batches(batch_size=_BATCH, columns=[*columns, *ours], use_threads=False):
                for values in batch.to_pylist():
                    number += 1
                    yield _Raw(number, None, values)
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise file_error(path, f"is not a sound Parquet file: {error}") from error


def _parquet_names(path: Path) -> list[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        names: list[str] = pq.read_schema(path).names
    except OSError as error:
        raise file_error(path, f"cannot be read: {error.strerror or error}") from error
    except pa.ArrowException as error:
        raise file_error(path, f"is not a sound Parquet file: {error}") from error
    return names


def _csv(path: Path, columns: Sequence[str]) -> Iterator[_Raw]:
    import csv

    _refuse_utf_16(path)
    csv.field_size_limit(_LONGEST_LINE)
    # Bytes that are no UTF-8 are found cell by cell, so that the row can be named.
    with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        reader = csv.DictReader(file, strict=True)
        try:
            _require(path, columns, list(reader.fieldnames or []))
            for number, values in enumerate(reader, 1):
                more = "has more cells than the header; put texts that hold commas in quotes"
                yield _Raw(number, reader.line_num, more if None in values else values)
        except csv.Error as error:
            raise file_error(path, f"is not a sound CSV file from here on: {error}", reader.line_num) from error


def _csv_names(path: Path) -> list[str]:
    import csv

    _refuse_utf_16(path)
    try:
        with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            return next(csv.reader(file), [])
    except csv.Error as error:
        raise file_error(path, f"is not a sound CSV file: {error}", 1) from error


def _refuse_utf_16(path: Path) -> None:
    try:
        with path.open("rb") as file:
            mark = file.read(2)
    except OSError as error:
        raise file_error(path, f"cannot be read: {error.strerror or error}") from error
    if mark in (b"\xff\xfe", b"\xfe\xff"):
        raise file_error(path, "is UTF-16 text; save it as UTF-8")


def _jsonl(path: Path, columns: Sequence[str]) -> Iterator[_Raw]:
    number = line = 0
    with path.open("rb") as file:
        while text := file.readline(_LONGEST_LINE):
            line += 1
            if len(text) == _LONGEST_LINE:
                raise file_error(
                    path, f"holds a line of more than {_LONGEST_LINE:,} bytes; write one object a line", line
                )
            told = text.removeprefix(b"\xef\xbb\xbf") if line == 1 else text
            if not told.strip():
                continue
            number += 1
            yield _Raw(number, line, _object(told))


def _object(text: bytes) -> dict[str, Any] | str:
    try:
        values = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        return f"is not JSON: {error}"
    # Whatever is written, each key has its colon; so what has as many colons as keys has no key twice.
    doubt = _doubt(text) if len(_KEY.findall(text)) != _keys(values) else None
    if doubt is not None:
        return doubt
    return values if isinstance(values, dict) else 'is not a JSON object, such as {"input": "...", "response": "..."}'


def _keys(value: object) -> int:
    """The keys of all objects in a value."""
    keys, rest = 0, [value]
    while rest:
        one = rest.pop()
        if isinstance(one, dict):
            keys += len(one)
            rest += one.values()
        elif isinstance(one, list):
            rest += one
    return keys


class _Twice(Exception):
    """An object has a key twice; holds the key."""


def _doubt(text: bytes) -> str | None:
    """What is wrong where a key stands twice in one object of a JSON text that was read before; else None."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            names = [name for name, _ in pairs]
            raise _Twice(next(name for name in names if names.count(name) > 1))
        return found

    try:
        json.loads(text.decode(), object_pairs_hook=once, parse_int=str, parse_float=str)
    except _Twice as error:
        return f"has the key {str(error)!r:.60} twice; which of them counts is not said, so leave one out"
    except RecursionError:
        return "is nested so deeply that nobody can tell whether a key stands in it twice"
    return None


def describe(path: Path, row: BadRow) -> Problem:
    """What is wrong with a row, with its place."""
    where = "" if row.line is not None else f"row {row.number} "
    told = re.sub(r"[\x00-\x1f]+", " ", row.message)
    return Problem(file=path, line=row.line, field=row.field, message=f"{where}{told}")
