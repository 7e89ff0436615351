"""The ledger as a file for people who keep books: CSV, JSON Lines or Parquet, with its sha256 in a file beside it.

One row for each entry; dollars and seconds are exact decimals. The digest stands in ``FILE.sha256``, as ``sha256sum``
writes it, so ``sha256sum -c`` finds a changed file without corpusgen too.
"""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Final, TextIO, TypeAlias

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from corpusgen.errors import CorpusDamaged, UsageError
from corpusgen.store.durable import hidden_name, publish, unwritable, write_file

Cell: TypeAlias = str | int | Decimal | None
Row: TypeAlias = Mapping[str, Cell]
Numbered: TypeAlias = tuple[int, Mapping[str, str]]
"""A row as text, and the line of the file on which it ends (in Parquet: which row it is)."""

_TEXT, _INT, _MILLIONTHS = pa.string(), pa.int64(), pa.decimal128(20, 6)


def _figures(kind: str, *, wall: bool = False) -> list[tuple[str, pa.DataType]]:
    units = {"usd": _MILLIONTHS, "tokens": _INT, "requests": _INT, "compute_s": _MILLIONTHS}
    return [(f"{kind}_{unit}", of) for unit, of in units.items()] + ([(f"{kind}_wall_s", _MILLIONTHS)] if wall else [])


SCHEMA: Final = pa.schema(
    [
        ("entry", _TEXT),
        ("id", _INT),
        ("began", _TEXT),
        ("closed", _TEXT),
        ("run_id", _TEXT),
        ("teacher", _TEXT),
        ("user", _TEXT),
        ("role", _TEXT),
        ("attempt", _INT),
        ("state", _TEXT),
        ("scopes", _TEXT),
        *_figures("reserved"),
        *_figures("settled", wall=True),
        *_figures("promised"),
        *_figures("unconfirmed"),
        ("per", _TEXT),
        ("unit", _TEXT),
        ("cap", _MILLIONTHS),
        ("origin", _TEXT),
        ("price_version", _TEXT),
        ("request_key", _TEXT),
        ("provider_request_id", _TEXT),
        ("error", _TEXT),
        ("reconciled", _TEXT),
        ("reconciled_by", _TEXT),
        ("reconciled_reason", _TEXT),
        ("reconciled_source", _TEXT),
    ]
)
"""The columns, in their order, whatever the form of the file."""

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠")
_ROWS: Final = 8192


def side_file(path: Path) -> Path:
    """Where the digest of an exported ledger stands."""
    return path.with_name(f"{path.name}.sha256")


def write_ledger(path: Path, rows: Iterable[Row]) -> str:
    """The file at ``path`` and its digest beside it, each whole or not there; gives back the digest.

    Raises UsageError for a name that says no form, CorpusUnwritable where it cannot be written.
    """
    write, hidden = _form(path)[0], hidden_name(path)
    with unwritable(path):
        try:
            write(hidden, rows)
            with hidden.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                os.fsync(file.fileno())
            side_file(path).unlink(missing_ok=True)  # it is another file's from here on
            publish(hidden, path)
        finally:
            hidden.unlink(missing_ok=True)
    write_file(side_file(path), _side(path, digest))
    return digest


def check_digest(path: Path) -> str | None:
    """What is wrong with the file's bytes, in one sentence, or None."""
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    try:
        said = side_file(path).read_bytes()
    except OSError as error:
        return f"its digest {side_file(path).name} cannot be read ({error.strerror}); export it again"
    if said == _side(path, digest):
        return None
    return f"is not what was exported: its sha256 is {digest}, {side_file(path).name} says {said[:160]!r}"


def read_ledger(path: Path) -> Iterator[Numbered]:
    """The rows of an exported ledger as text. Raises CorpusDamaged with the line that is none."""
    return _form(path)[1](path)


def text_of(row: Row, path: Path) -> Mapping[str, str]:
    """A row as ``read_ledger`` gives it back for a file of that name."""
    quoted = path.suffix == ".csv"
    return {name: _guarded(_plain(row.get(name))) if quoted else _plain(row.get(name)) for name in SCHEMA.names}


def _side(path: Path, digest: str) -> bytes:
    return f"{digest}  {path.name}\n".encode()


def _plain(value: Cell) -> str:
    return "" if value is None else str(value)


def _guarded(text: str) -> str:
    # A spreadsheet runs what looks like a formula. No figure here is negative.
    return f"'{text}" if text.startswith(_FORMULA) else text


# --- the three forms -------------------------------------------------------------------------------------------------


def _write_csv(path: Path, rows: Iterable[Row]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(SCHEMA.names)
        writer.writerows([_guarded(_plain(row.get(name))) for name in SCHEMA.names] for row in rows)


def _read_csv(path: Path) -> Iterator[Numbered]:
    with path.open(encoding="utf-8", newline="") as file:
        yield from _csv_rows(path, file)


def _csv_rows(path: Path, file: TextIO) -> Iterator[Numbered]:
    reader = csv.reader(file, strict=True)
    try:
        if next(reader, None) != SCHEMA.names:
            raise _not_ours(path, 1, "does not name the columns of a ledger")
        for cells in reader:
            if len(cells) != len(SCHEMA.names):
                raise _not_ours(path, reader.line_num, f"has {len(cells)} cells, not {len(SCHEMA.names)}")
            yield reader.line_num, dict(zip(SCHEMA.names, cells, strict=True))
    except (csv.Error, UnicodeDecodeError) as error:
        raise _not_ours(path, reader.line_num + 1, f"is not CSV: {error}") from error


def _write_jsonl(path: Path, rows: Iterable[Row]) -> None:
    with path.open("wb") as file:
        for row in rows:
            file.write(orjson.dumps({name: _json(row.get(name)) for name in SCHEMA.names}) + b"\n")


def _json(value: Cell) -> str | int | None:
    return str(value) if isinstance(value, Decimal) else value  # a JSON number would lose digits in many readers


def _read_jsonl(path: Path) -> Iterator[Numbered]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                found = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                raise _not_ours(path, number, f"is not JSON: {error}") from error
            if not isinstance(found, dict) or list(found) != SCHEMA.names:
                raise _not_ours(path, number, "has not the names of a ledger's row")
            yield number, {name: _plain(value) for name, value in found.items()}


def _write_parquet(path: Path, rows: Iterable[Row]) -> None:
    left = iter(rows)
    with pq.ParquetWriter(path, SCHEMA, compression="zstd", write_page_checksum=True) as writer:
        while chunk := list(islice(left, _ROWS)):
            columns = {name: [row.get(name) for row in chunk] for name in SCHEMA.names}
            writer.write_table(pa.table(columns, schema=SCHEMA))


def _read_parquet(path: Path) -> Iterator[Numbered]:
    number = 0
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            if file.schema_arrow.names != SCHEMA.names:
                raise _not_ours(path, 1, "has not the columns of a ledger")
            for batch in file.iter_batches(_ROWS):
                for row in batch.to_pylist():
                    number += 1
                    yield number, {name: _plain(value) for name, value in row.items()}
    except (OSError, EOFError, ValueError, pa.ArrowException) as error:
        raise _not_ours(path, number + 1, f"cannot be read: {error}") from error


def _not_ours(path: Path, number: int, reason: str) -> CorpusDamaged:
    return CorpusDamaged(f"{'row' if path.suffix == '.parquet' else 'line'} {number}: {reason}")


_Form: TypeAlias = tuple[Callable[[Path, Iterable[Row]], None], Callable[[Path], Iterator[Numbered]]]
_FORMS: Final[Mapping[str, _Form]] = {
    ".csv": (_write_csv, _read_csv),
    ".jsonl": (_write_jsonl, _read_jsonl),
    ".parquet": (_write_parquet, _read_parquet),
}


def _form(path: Path) -> _Form:
    if path.suffix not in _FORMS:
        raise UsageError(f"FILE: {path.name!r} must end in {', '.join(_FORMS)}: that says its form")
    return _FORMS[path.suffix]
