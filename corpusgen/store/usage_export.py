"""What a provider says it billed: its usage export, as CSV or JSON.

Providers name their columns in many ways; names are compared without case, spaces and punctuation. Needed are a column
that names the request (ours or theirs) and one with the cost in dollars; tokens and a time are used where they are.
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_CEILING, Decimal
from pathlib import Path
from typing import Any

import orjson

from corpusgen.errors import UsageError
from corpusgen.records import Json

MAX_BYTES = 512 * 1024 * 1024

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "request_id": ("request_id", "x_request_id", "provider_request_id", "response_id", "generation_id", "id"),
    "request_key": ("request_key", "corpusgen_key", "custom_id"),
    "cost_microusd": ("cost_microusd", "microusd", "billed_microusd"),
    "cost_usd": ("cost_usd", "usd", "cost", "amount_usd", "amount", "total_cost", "cost_in_usd", "price", "billed_usd"),
    "tokens": ("total_tokens", "tokens", "billed_tokens"),
    "input_tokens": ("input_tokens", "prompt_tokens", "n_context_tokens_total"),
    "output_tokens": ("output_tokens", "completion_tokens", "n_generated_tokens_total"),
    "time": ("time", "timestamp", "created", "created_at", "date", "start_time"),
    "currency": ("currency", "amount_currency"),
}
"""What is looked for, and the names it may go by, best first."""


@dataclass(frozen=True, kw_only=True)
class Billed:
    """One line of an export: a request the provider charged for, or says it did not."""

    line: int
    request_id: str | None
    request_key: bytes | None
    custom_id: str | None = None
    """Our name for a line of a batch."""
    microusd: int
    tokens: int | None
    time_us: int | None


@dataclass(frozen=True, kw_only=True)
class UsageExport:
    """A whole export."""

    name: str
    sha256: str
    lines: tuple[Billed, ...]

    @property
    def microusd(self) -> int:
        """Everything it bills."""
        return sum(line.microusd for line in self.lines)

    @property
    def period_us(self) -> tuple[int, int] | None:
        """The first and the last moment it tells of; None where some line has no time."""
        times = [line.time_us for line in self.lines if line.time_us is not None]
        return (min(times), max(times)) if times and len(times) == len(self.lines) else None


def read_export(path: Path) -> UsageExport:
    """An export in CSV, JSON or JSON Lines. Raises UsageError with the line and what to change."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
    if len(raw) > MAX_BYTES:
        raise UsageError(f"{path}: is larger than {MAX_BYTES:,} bytes; export a shorter time")
    rows = _csv(path, raw) if path.suffix.lower() in (".csv", ".tsv") else _json(path, raw)
    columns = _columns(path, rows)
    lines = tuple(_billed(path, number, row, columns) for number, row in rows)
    return UsageExport(name=path.name, sha256=hashlib.sha256(raw).hexdigest(), lines=lines)


NOTHING_FOUND = (
    "nothing was found in it, not one request. Needed are a line for each request with a column that names it"
    f" ({', '.join(COLUMNS['request_id'] + COLUMNS['request_key'])}) and one with its cost"
    f" ({', '.join(COLUMNS['cost_usd'] + COLUMNS['cost_microusd'])})"
)

Rows = Sequence[tuple[int, Mapping[str, Any]]]


def _csv(path: Path, raw: bytes) -> Rows:
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: is not UTF-8 text; save it as UTF-8") from error
    delimiter = max("\t;,", key=(text.splitlines() or [""])[0].count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        return [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise UsageError(f"{path}:{reader.line_num}: is not CSV: {error}") from error


def _json(path: Path, raw: bytes) -> Rows:
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError:
        try:
            value = [orjson.loads(line) for line in raw.splitlines() if line.strip()]
        except orjson.JSONDecodeError as error:
            raise UsageError(f"{path}: is neither JSON nor JSON Lines: {error}") from error
    if isinstance(value, dict):
        value = next(
            (value[name] for name in ("data", "usage", "requests", "rows", "results") if name in value), [value]
        )
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        raise UsageError(f"{path}: must hold a list of objects, one for each request")
    return list(enumerate(value, start=1))


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def _columns(path: Path, rows: Rows) -> Mapping[str, str]:
    """Which of the file's own columns is which of ours."""
    own = {_plain(name): name for _, row in rows for name in row if isinstance(name, str)}
    found = {wanted: own[known] for wanted, names in COLUMNS.items() for known in reversed(names) if known in own}
    if rows and not found.keys() & {"request_id", "request_key"}:
        raise UsageError(f"{path}: {_missing('that names the request', ('request_id', 'request_key'), own)}")
    if rows and not found.keys() & {"cost_usd", "cost_microusd"}:
        raise UsageError(f"{path}: {_missing('with the cost', ('cost_usd', 'cost_microusd'), own)}")
    return found


def _missing(what: str, wanted: Iterable[str], own: Mapping[str, str]) -> str:
    names = ", ".join(name for column in wanted for name in COLUMNS[column])
    return f"has no column {what}; it may be called {names}. Its columns are {', '.join(own.values())}"


def _billed(path: Path, number: int, row: Mapping[str, Any], columns: Mapping[str, str]) -> Billed:
    def cell(name: str) -> Json:
        value = row.get(columns[name]) if name in columns else None
        return None if value is None or str(value).strip() == "" else value

    try:
        currency = cell("currency")
        if currency is not None and str(currency).strip().lower() != "usd":
            raise ValueError(f"the cost must be in usd, found {str(currency)!r}; convert it")
        name, key = cell("request_id"), cell("request_key")
        return Billed(
            line=number,
            request_id=None if name is None else str(name).strip(),
            request_key=None if key is None else _key(str(key).strip()),
            custom_id=None if key is None else _custom_id(str(key).strip()),
            microusd=_cost(cell("cost_microusd"), cell("cost_usd")),
            tokens=_tokens(cell("tokens"), cell("input_tokens"), cell("output_tokens")),
            time_us=_time(cell("time")),
        )
    except (ValueError, ArithmeticError, OverflowError) as error:
        raise UsageError(f"{path}:{number}: {error}") from error


def _key(text: str) -> bytes | None:
    return bytes.fromhex(text) if re.fullmatch(r"[0-9a-fA-F]{64}", text) else None


def _custom_id(text: str) -> str | None:
    return text if re.fullmatch(r"corpusgen-[0-9a-f]+-\d+", text) else None


def _cost(microusd: Json, usd: Json) -> int:
    if microusd is None and usd is None:
        raise ValueError("names no cost; write 0 if it was not billed")
    given = _number(microusd) if microusd is not None else _number(str(usd).strip().lstrip("$")) * 1_000_000
    return int(given.to_integral_value(rounding=ROUND_CEILING))


def _tokens(total: Json, given: Json, answered: Json) -> int | None:
    if total is not None:
        return int(_number(total))
    parts = [int(_number(part)) for part in (given, answered) if part is not None]
    return sum(parts) if parts else None


def _number(value: Json) -> Decimal:
    try:
        number = Decimal(str(value).strip().replace(",", ""))
    except ArithmeticError as error:
        raise ValueError(f"{value!r} is not a number") from error
    if not number.is_finite() or number < 0:
        raise ValueError(f"{value} must be 0 or more; leave refunds out")
    return number


def _time(value: Json) -> int | None:
    if value is None:
        return None
    text = str(value).strip()
    if re.fullmatch(r"\d{9,11}(\.\d+)?", text):
        return int(Decimal(text) * 1_000_000)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is not a time; write 2026-11-21T12:00:00Z or seconds since 1970") from error
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1_000_000)
