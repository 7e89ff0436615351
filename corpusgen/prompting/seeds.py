"""Seed files: Parquet, CSV or JSON Lines, read in batches."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Any, NamedTuple

from corpusgen.errors import Problem, SeedError
from corpusgen.frozen import quickly_made
from corpusgen.marks import Marks, mark_of
from corpusgen.prompting.conversations import COLUMN, Turns, turns_of
from corpusgen.prompting.conversations import text_of as conversation_text
from corpusgen.records import Message
from corpusgen.spec import Seeds

BATCH_ROWS = 2_000
ROWS_AT_ONCE = 128
"""Rows held while their ids are looked up together."""
_RECORD = re.compile(r"[0-9a-f]{64}")
_LONGEST_CELL = 2**31 - 1
"""Characters; a text may be as long as it likes, and csv itself stops at 131,072."""


@quickly_made
@dataclass(frozen=True, kw_only=True)
class Seed:
    """One item of a seed file; ``row`` counts from 1."""

    item_id: str
    values: Mapping[str, str]
    gold: str | None
    source: str
    row: int
    turns: tuple[Message, ...] = ()
    """The conversation, where the prompt is about one."""
    parents: tuple[str, ...] = ()
    """The records it was made from, where the spec names a column that tells."""
    line: int | None = field(default=None, compare=False)
    """Where the row stands; Parquet has no lines."""


class _Row(NamedTuple):
    """A row as its reader found it; Parquet has no lines."""

    number: int
    line: int | None
    values: Mapping[str, Any]


def read_seeds(path: Path, seeds: Seeds, needed: tuple[str, ...], room: Turns | None = None) -> Iterator[Seed]:
    """The items of a seed file in file order. Raises SeedError naming file, line or row, and column.

    With ``room`` for a conversation, the column ``messages`` holds one.
    """
    for row, text in _sound(path, seeds, needed, room):
        yield Seed(
            item_id=text[seeds.id],
            values={name: text[name] for name in needed},
            gold=text[seeds.gold] if seeds.gold else None,
            source=seeds.source,
            row=row.number,
            turns=() if room is None else turns_of(row.values[COLUMN], room),
            parents=tuple(text[seeds.parent].split()) if seeds.parent else (),
            line=row.line,
        )


def read_golds(
    path: Path, seeds: Seeds, needed: tuple[str, ...], room: Turns | None = None
) -> Iterator[tuple[str, str | None]]:
    """Id and gold label of every item, for who only wants to know that the file is sound; errors as ``read_seeds``."""
    for _, text in _sound(path, seeds, needed, room):
        yield text[seeds.id], text[seeds.gold] if seeds.gold else None


def _sound(path: Path, seeds: Seeds, needed: tuple[str, ...], room: Turns | None) -> Iterator[_Told]:
    """The rows with their texts by column, each id once."""
    text_of = _text if room is None else partial(_text_or_turns, room)
    columns = list(dict.fromkeys([seeds.id, *needed, *([seeds.gold] if seeds.gold else [])]))
    read = columns if seeds.parent is None else list(dict.fromkeys([*columns, seeds.parent]))
    seen = Marks()
    rows = islice(_rows(path, read), seeds.limit)

    def told(row: _Row) -> _Told:
        text = {column: text_of(path, row, column) for column in columns}
        return row, text if seeds.parent is None else text | {seeds.parent: _parents(path, row, seeds.parent)}

    for chunk in _chunks(map(told, rows)):
        new = seen.add([mark_of(text[seeds.id]) for _, text in chunk.rows])
        if not all(new):
            yield from _until_second(path, columns, seeds.id, chunk.rows, new)
        else:
            yield from chunk.rows
        if chunk.error is not None:
            raise chunk.error
    if not len(seen):
        raise _error(path, "holds no rows")


def _until_second(path: Path, columns: list[str], column: str, rows: list[_Told], new: list[bool]) -> Iterator[_Told]:
    for (row, text), first_time in zip(rows, new, strict=True):
        if not first_time:
            _refuse_second(path, columns, row, column, text[column])
        yield row, text


_Told = tuple[_Row, dict[str, str]]
"""A row and its texts by column."""


class _Chunk(NamedTuple):
    """Some rows, and what is wrong with the one after them."""

    rows: list[_Told]
    error: SeedError | None = None


def _chunks(rows: Iterator[_Told]) -> Iterator[_Chunk]:
    chunk: list[_Told] = []
    try:
        for row in rows:
            chunk.append(row)
            if len(chunk) == ROWS_AT_ONCE:
                yield _Chunk(chunk)
                chunk = []
    except SeedError as error:  # after the rows before it, so that of two faults the first in the file is named
        yield _Chunk(chunk, error)
    else:
        yield _Chunk(chunk)


def _refuse_second(path: Path, columns: list[str], row: _Row, column: str, item_id: str) -> None:
    """Name the rows that share an id; only its mark was remembered, so the first is looked for in the file."""
    first = next(other for other in _rows(path, columns) if _text(path, other, column) == item_id)
    if first.number != row.number:
        message = f"{item_id!r} stands in rows {first.number} and {row.number}; ids name one item"
        raise _error(path, message, row, column)


def _text(path: Path, row: _Row, column: str) -> str:
    value = row.values.get(column)
    if isinstance(value, str) and value and not value.isspace():
        return value
    if value is None or isinstance(value, str):
        raise _error(path, f"row {row.number} is empty here; fill it in or remove the row", row, column)
    if type(value) is int:
        return str(value)
    found = type(value).__name__
    if kind := _medium(value):
        told = f"row {row.number} holds {kind}; teachers are asked in text, so leave it out or describe it"
        raise _error(path, told, row, column)
    raise _error(
        path, f"row {row.number} holds {value!r:.60} ({found}); only text and whole numbers are read", row, column
    )


def _parents(path: Path, row: _Row, column: str) -> str:
    """The ids of the records a row was made from, with spaces between them; an empty list says that there are none."""
    value = row.values.get(column)
    if isinstance(value, str) and value.lstrip().startswith("["):
        value = _listed(value)
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, list) or not all(isinstance(one, str) and _RECORD.fullmatch(one) for one in found):
        why = "holds the id of a record, 64 hex digits, or a list of such ids ([] says: made from no record)"
        raise _error(path, f"row {row.number} holds {value!r:.80}; this column {why}", row, column)
    return " ".join(dict.fromkeys(found))


def _listed(text: str) -> object:
    import orjson

    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


def _text_or_turns(room: Turns, path: Path, row: _Row, column: str) -> str:
    if column != COLUMN:
        return _text(path, row, column)
    try:
        return conversation_text(turns_of(row.values.get(column), room))
    except ValueError as error:
        raise _error(path, f"row {row.number}: {error}", row, column) from error


def _medium(value: object) -> str | None:
    """The kind of an image or a recording, as chat messages carry them."""
    parts = value if isinstance(value, list) else [value]
    inside = [content for part in parts if isinstance(part, dict) for content in _contents(part)]
    kinds = (
        str(part.get("type")) for part in inside if isinstance(part, dict) and part.get("type") not in (None, "text")
    )
    return next(kinds, None)


def _contents(part: dict[str, object]) -> list[object]:
    content = part.get("content")
    return content if isinstance(content, list) else [part]


def _error(path: Path, message: str, row: _Row | None = None, column: str = "") -> SeedError:
    return SeedError(Problem(file=path, line=row.line if row else None, field=column, message=message))


def _rows(path: Path, columns: list[str]) -> Iterator[_Row]:
    readers = {".parquet": _parquet, ".csv": _csv, ".jsonl": _jsonl}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise _error(path, f"unknown kind of file {path.suffix!r}; use {', '.join(readers)}")
    try:
        yield from reader(path, columns)
    except OSError as error:
        raise _error(path, f"cannot be read: {error.strerror or error}") from error


def _require(path: Path, columns: list[str], found: list[str], row: _Row | None = None) -> None:
    for column in columns:
        if column not in found:
            known = ", ".join(map(str, found)) or "none"
            raise _error(path, f"no such column; the file has: {known}", row, column)


def _parquet(path: Path, columns: list[str]) -> Iterator[_Row]:
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")  # as store/shards.py says, whichever is read first

    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with path.open("rb") as raw, pq.ParquetFile(raw) as file:
            _require(path, columns, file.schema_arrow.names)
            numbers = count(1)
            for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=columns):
                for values in batch.to_pylist():
                    yield _Row(number=next(numbers), line=None, values=values)
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise _error(path, f"is not a sound Parquet file: {error}") from error


def _csv(path: Path, columns: list[str]) -> Iterator[_Row]:
    import csv

    with path.open(newline="", encoding="utf-8-sig") as file:
        csv.field_size_limit(_LONGEST_CELL)
        try:
            reader = csv.DictReader(file, strict=True)
            _require(path, columns, list(reader.fieldnames or []), _Row(number=0, line=1, values={}))
            for number, values in enumerate(reader, 1):
                row = _Row(number=number, line=reader.line_num, values=values)
                if None in values:
                    more = "has more cells than the header; put texts that hold commas in quotes"
                    raise _error(path, f"row {number} {more}", row)
                yield row
        except csv.Error as error:
            raise _error(
                path, f"is not a sound CSV file: {error}", _Row(number=0, line=reader.line_num, values={})
            ) from error
        except UnicodeDecodeError as error:
            raise _error(path, "is not UTF-8 text; save it as UTF-8") from error


def _jsonl(path: Path, columns: list[str]) -> Iterator[_Row]:
    import orjson

    numbers, wanted = count(1), frozenset(columns)
    with path.open("rb") as file:
        for line, text in enumerate(file, 1):
            told = text.removeprefix(b"\xef\xbb\xbf") if line == 1 else text
            if not told.strip():
                continue
            number = next(numbers)
            try:
                values = orjson.loads(told)
            except orjson.JSONDecodeError as error:
                raise _error(path, f"is not JSON: {error}", _Row(number, line, {})) from error
            if not isinstance(values, dict):
                message = 'is not a JSON object, such as {"id": "1", "text": "..."}'
                raise _error(path, message, _Row(number, line, {}))
            row = _Row(number, line, values)
            if not wanted <= values.keys():
                _require(path, columns, list(values), row)
            yield row
