"""Seed files: Parquet, CSV or JSON Lines, read in batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import count, islice
from pathlib import Path
from typing import Any

from corpusgen.errors import Problem, SeedError
from corpusgen.spec import Seeds

BATCH_ROWS = 2_000


@dataclass(frozen=True, kw_only=True)
class Seed:
    """One item of a seed file; ``row`` counts from 1."""

    item_id: str
    values: Mapping[str, str]
    gold: str | None
    source: str
    row: int


@dataclass(frozen=True, kw_only=True)
class _Row:
    """A row as its reader found it; Parquet has no lines."""

    number: int
    line: int | None
    values: Mapping[str, Any]


def read_seeds(path: Path, seeds: Seeds, needed: tuple[str, ...]) -> Iterator[Seed]:
    """The items of a seed file in file order. Raises SeedError naming file, line or row, and column."""
    columns = list(dict.fromkeys([seeds.id, *needed, *([seeds.gold] if seeds.gold else [])]))
    rows: dict[str, int] = {}
    for row in islice(_rows(path, columns), seeds.limit):
        texts = {column: _text(path, row, column) for column in columns}
        item_id = texts[seeds.id]
        first = rows.setdefault(item_id, row.number)
        if first != row.number:
            raise _error(path, f"{item_id!r} stands in rows {first} and {row.number}; ids name one item", row, seeds.id)
        yield Seed(
            item_id=item_id,
            values={name: texts[name] for name in needed},
            gold=texts[seeds.gold] if seeds.gold else None,
            source=seeds.source,
            row=row.number,
        )
    if not rows:
        raise _error(path, "holds no rows")


def _text(path: Path, row: _Row, column: str) -> str:
    value = row.values.get(column)
    if value is None or (isinstance(value, str) and not value.strip()):
        raise _error(path, f"row {row.number} is empty here; fill it in or remove the row", row, column)
    if isinstance(value, str):
        return value
    if type(value) is int:
        return str(value)
    found = type(value).__name__
    raise _error(
        path, f"row {row.number} holds {value!r:.60} ({found}); only text and whole numbers are read", row, column
    )


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

    numbers = count(1)
    with path.open("rb") as file:
        for line, text in enumerate(file, 1):
            told = text.removeprefix(b"\xef\xbb\xbf") if line == 1 else text
            if not told.strip():
                continue
            row = _Row(number=next(numbers), line=line, values={})
            try:
                values = orjson.loads(told)
            except orjson.JSONDecodeError as error:
                raise _error(path, f"is not JSON: {error}", row) from error
            if not isinstance(values, dict):
                raise _error(path, 'is not a JSON object, such as {"id": "1", "text": "..."}', row)
            _require(path, columns, list(values), row)
            yield replace(row, values=values)
