"""Eval files: Parquet, JSON Lines, JSON, CSV, TSV or plain text, read item by item."""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from glob import glob, has_magic
from io import TextIOWrapper
from pathlib import Path
from typing import IO, Any, Final, Literal, NamedTuple

import orjson

from corpusgen.errors import EvalFileError, Problem

TEXT: Final = "text"
"""The column of a file that has none: a text file, or rows that are bare texts."""
CONVERSATIONS: Final = frozenset({"messages", "conversations"})
"""Columns that hold turns; each turn is an item of its own."""
IN_FOLDERS: Final = (".parquet", ".jsonl", ".ndjson", ".csv", ".tsv")
"""Kinds that are taken from a folder; ``.json`` and ``.txt`` are as often settings and licences, so they are named."""
_LONGEST_CELL = 2**31 - 1
_BATCH_ROWS = 1_000


@dataclass(frozen=True, kw_only=True)
class EvalFile:
    """What a student will be tested on: a file, a folder of files, or a pattern such as ``evals/*.jsonl``.

    From a folder every Parquet, JSON Lines, CSV and TSV file is read, at any depth, hidden ones left out. Any of the
    text kinds may be compressed (``.gz``).
    """

    path: Path
    columns: tuple[str, ...] = ()
    """Columns whose texts are items, each cell one. Without names: every column that holds text."""
    separated: Literal["line", "blank"] = "line"
    """Where an item of a text file ends: with its line, or at the next blank line."""


class Row(NamedTuple):
    """One row: its line in the file, or its number where the kind of file has no lines; from 1."""

    number: int
    line: int | None
    values: dict[str, Any]


class Cell(NamedTuple):
    """The text of one item and where it stands."""

    number: int
    column: str
    text: str


def each_file(files: Sequence[EvalFile]) -> Iterator[EvalFile]:
    """The files that folders and patterns stand for, in order of name. Raises EvalFileError where there is none."""
    for named in files:
        found = _files_of(named.path)
        if not found:
            raise _error(named.path, _nothing(named.path))
        yield from (replace(named, path=path) for path in found)


def cells(file: EvalFile) -> Iterator[Cell]:
    """The items of one file, in file order. Raises EvalFileError naming file, line or row, and column."""
    for row in _rows(file):
        names = file.columns or row.values.keys()
        for name in names:
            if name not in row.values:
                raise _error(file.path, _missing(row.values), row, name)
            yield from (Cell(row.number, str(name), text) for text in _items(file.path, row, name) if text.strip())


def _files_of(path: Path) -> list[Path]:
    if path.is_dir():
        return [found for found in sorted(path.rglob("*")) if _in_folder(found.relative_to(path)) and found.is_file()]
    if path.exists() or not has_magic(str(path)):
        return [path] if path.exists() else []
    return [found for found in map(Path, sorted(glob(str(path), recursive=True))) if found.is_file()]


def _in_folder(path: Path) -> bool:
    return _kind(path) in IN_FOLDERS and not any(part.startswith(".") for part in path.parts)


def _nothing(path: Path) -> str:
    if path.is_dir():
        return f"the folder holds no {', '.join(IN_FOLDERS)} file; name a file or a pattern, such as {path / '*.json'}"
    return (
        "no file matches this pattern"
        if has_magic(str(path))
        else "there is no such file or folder; correct the path, or take it out"
    )


def _kind(path: Path) -> str:
    """The ending that says how a file is written, whether or not it is compressed."""
    return Path(path.stem).suffix.lower() if path.suffix.lower() == ".gz" else path.suffix.lower()


def _error(path: Path, message: str, row: Row | None = None, column: str = "") -> EvalFileError:
    told = message if row is None or row.line else f"row {row.number}: {message}"
    return EvalFileError(Problem(file=path, line=row.line if row else None, field=column, message=told))


def _missing(found: Iterable[str]) -> str:
    return f"no such column here; there is: {', '.join(map(str, found)) or 'none'}"


def _rows(file: EvalFile) -> Iterator[Row]:
    reader = _READERS.get(_kind(file.path))
    if reader is None:
        told = (
            f"unknown kind of eval file {file.path.suffix!r}; use {', '.join(_READERS)}, or one of the text kinds .gz"
        )
        raise _error(file.path, told)
    try:
        yield from reader(file)
    except UnicodeDecodeError as error:
        raise _error(file.path, "is not UTF-8 text; save it as UTF-8") from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise _error(file.path, f"is not a sound gzip file: {error}") from error
    except OSError as error:
        raise _error(file.path, f"cannot be read: {error.strerror or error}") from error


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    with path.open("rb") as raw:
        if path.suffix.lower() != ".gz":
            yield raw
            return
        with gzip.open(raw) as unpacked:
            yield unpacked  # type: ignore[misc] # a GzipFile reads like any other


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    with _opened(path) as file:
        for number, line in enumerate(file, 1):
            try:
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise _error(path, "is not UTF-8 text; save it as UTF-8", Row(number, number, {})) from error


def _text(file: EvalFile) -> Iterator[Row]:
    if file.columns and file.columns != (TEXT,):
        raise _error(file.path, f"a text file has no columns; it was asked for {', '.join(file.columns)}")
    begun, found = 0, list[str]()
    for number, line in _lines(file.path):
        if line.strip():
            begun = begun if found else number
            found.append(line)
        if found and (file.separated == "line" or not line.strip()):
            yield Row(begun, begun, {TEXT: "\n".join(found)})
            found = []
    if found:
        yield Row(begun, begun, {TEXT: "\n".join(found)})


def _jsonl(file: EvalFile) -> Iterator[Row]:
    for number, line in _lines(file.path):
        if line.strip():
            yield _row(file.path, Row(number, number, {}), _parsed(file.path, Row(number, number, {}), line))


def _json(file: EvalFile) -> Iterator[Row]:
    with _opened(file.path) as raw:
        value = _parsed(file.path, None, raw.read().decode("utf-8-sig"))
    if not isinstance(value, list):
        raise _error(file.path, "is not a list of items; write them as [...] or as JSON Lines")
    for number, row in enumerate(value, 1):
        yield _row(file.path, Row(number, None, {}), row)


def _parsed(path: Path, place: Row | None, text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        try:
            return json.loads(text)  # which takes NaN and halves of surrogate pairs, as Python's own files have them
        except (ValueError, RecursionError):
            raise _error(path, f"is not JSON: {error}; mend it or take it out", place) from error


def _row(path: Path, place: Row, value: Any) -> Row:
    values = {TEXT: value} if isinstance(value, str) else value
    if not isinstance(values, dict):
        raise _error(path, 'is neither a text nor a JSON object, such as {"question": "..."}', place)
    return place._replace(values=values)


def _csv(file: EvalFile) -> Iterator[Row]:
    csv.field_size_limit(_LONGEST_CELL)
    with _opened(file.path) as raw, TextIOWrapper(raw, encoding="utf-8-sig", newline="") as text:
        reader = csv.DictReader(text, strict=True, delimiter="\t" if _kind(file.path) == ".tsv" else ",")
        try:
            _require(file, reader.fieldnames or ())
            for values in reader:
                place = Row(reader.line_num, reader.line_num, values)
                if None in values:
                    more = "has more cells than the header; put texts that hold commas in quotes"
                    raise _error(file.path, more, place)
                yield place
        except csv.Error as error:
            place = Row(reader.line_num, reader.line_num, {})
            raise _error(file.path, f"is not a sound CSV file: {error}", place) from error


def _parquet(file: EvalFile) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with file.path.open("rb") as raw, pq.ParquetFile(raw) as table:
            names = table.schema_arrow.names
            _require(file, names)
            numbers = iter(range(1, table.metadata.num_rows + 1))
            for batch in table.iter_batches(batch_size=_BATCH_ROWS, columns=list(file.columns or names)):
                yield from (Row(next(numbers), None, values) for values in batch.to_pylist())
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise _error(file.path, f"is not a sound Parquet file: {error}") from error


def _require(file: EvalFile, found: Sequence[str]) -> None:
    for column in file.columns:
        if column not in found:
            raise _error(file.path, _missing(found), None, column)


_READERS: Final[dict[str, Callable[[EvalFile], Iterator[Row]]]] = {
    ".parquet": _parquet,
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".json": _json,
    ".csv": _csv,
    ".tsv": _csv,
    ".txt": _text,
}


def _items(path: Path, row: Row, column: str) -> Iterator[str]:
    """The texts of a cell: one, or one for each turn of a conversation."""
    value = row.values[column]
    if column in CONVERSATIONS and isinstance(value, str) and value.lstrip().startswith("["):
        value = _parsed(path, row, value)
    if isinstance(value, list) and value and all(isinstance(turn, dict) for turn in value):
        yield from (" ".join(_strings(turn.get("content", turn.get("value", turn)))) for turn in value)
    else:
        yield "\n".join(_strings(value))


def _strings(value: object) -> Iterator[str]:
    """Every text inside a cell; numbers, dates and the like say nothing that could be leaked."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for part in [value["text"]] if "text" in value else value.values():  # a part of a message, or choices
            yield from _strings(part)
    elif isinstance(value, list):
        for part in value:
            yield from _strings(part)
