"""Seed files: Parquet, CSV or JSON Lines, read in batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
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


def read_seeds(path: Path, seeds: Seeds, needed: tuple[str, ...]) -> Iterator[Seed]:
    """The items of a seed file in file order. Raises SeedError naming file, row and column."""
    columns = [seeds.id, *needed, *([seeds.gold] if seeds.gold else [])]
    for number, row in enumerate(_rows(path, columns), 1):
        if seeds.limit is not None and number > seeds.limit:
            return
        yield Seed(
            item_id=_text(path, number, seeds.id, row[seeds.id]),
            values={name: _text(path, number, name, row[name]) for name in needed},
            gold=_text(path, number, seeds.gold, row[seeds.gold]) if seeds.gold else None,
            source=seeds.source,
            row=number,
        )


def _text(path: Path, row: int, column: str, value: Any) -> str:
    if value is None or value == "":
        raise SeedError(Problem(file=path, line=row, field=column, message="is empty; fill it in or remove the row"))
    return value if isinstance(value, str) else str(value)


def _rows(path: Path, columns: list[str]) -> Iterator[Mapping[str, Any]]:
    readers = {".parquet": _parquet, ".csv": _csv, ".jsonl": _jsonl}
    reader = readers.get(path.suffix)
    if reader is None:
        raise _error(path, f"unknown kind of file {path.suffix!r}; use {', '.join(readers)}")
    try:
        yield from reader(path, list(dict.fromkeys(columns)))
    except OSError as error:
        raise _error(path, f"cannot be read: {error.strerror or error}") from error


def _error(path: Path, message: str, *, line: int | None = None, field: str = "") -> SeedError:
    return SeedError(Problem(file=path, line=line, field=field, message=message))


def _require(path: Path, columns: list[str], found: list[str]) -> None:
    for column in columns:
        if column not in found:
            raise _error(path, f"no such column; the file has: {', '.join(found)}", field=column)


def _parquet(path: Path, columns: list[str]) -> Iterator[Mapping[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            _require(path, columns, file.schema_arrow.names)
            for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=columns):
                yield from batch.to_pylist()
    except pa.ArrowException as error:
        raise _error(path, f"is not a sound Parquet file: {error}") from error


def _csv(path: Path, columns: list[str]) -> Iterator[Mapping[str, Any]]:
    import csv

    with path.open(newline="", encoding="utf-8") as file:
        try:
            reader = csv.DictReader(file, strict=True)
            _require(path, columns, list(reader.fieldnames or []))
            yield from reader
        except (csv.Error, UnicodeDecodeError) as error:
            raise _error(path, f"is not a sound CSV file: {error}") from error


def _jsonl(path: Path, columns: list[str]) -> Iterator[Mapping[str, Any]]:
    import orjson

    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                raise _error(path, f"is not JSON: {error}", line=number) from error
            if not isinstance(row, dict):
                raise _error(path, "is not a JSON object", line=number)
            _require(path, columns, list(row))
            yield row
