"""Query results as text for people and programs, harmless to the terminal or spreadsheet that opens them."""

from __future__ import annotations

import csv
import io
import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from corpusgen.store.durable import hidden_name, publish, unwritable
from corpusgen.store.query import QueryResult

Format: TypeAlias = Literal["table", "json", "jsonl", "csv", "markdown"]

_WIDEST_CELL = 60
# Control characters steer terminals, bidirectional marks make text read as what it is not.
_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_FORMULA = re.compile("[=+\\-@\t\r\n＝＋－＠]")
# As entities, characters of a cell are never Markdown or HTML: no link, picture or script comes out of what was stored.
_MARKUP = str.maketrans({letter: f"&#{ord(letter)};" for letter in "&<>|\\`*[]~!"})
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")


def tabulate(result: QueryResult, kind: Format) -> str:
    """The result as text ending in a newline: an aligned table, a JSON array, JSON lines, CSV or Markdown."""
    return _FORMATS[kind](result)


def plain_line(text: str) -> str:
    """Text on one line, without what steers a terminal."""
    return " ".join(_STEERING.sub("", text).split())


def marked(text: str) -> str:
    """Text on one line that Markdown shows as it is."""
    return plain_line(text).translate(_MARKUP)


def write_parquet(result: QueryResult, path: Path) -> None:
    """The result as a Parquet file at ``path``, whole or not at all."""
    hidden = hidden_name(path)
    table = result.table.rename_columns(distinct(result.columns))
    with unwritable(path):
        try:
            pq.write_table(table, hidden, compression="zstd", write_page_checksum=True)
            publish(hidden, path)
        finally:
            hidden.unlink(missing_ok=True)


def distinct(names: Iterable[str]) -> list[str]:
    """The names, a repeated one with a number behind: JSON objects and Parquet files hold each name once."""
    taken: list[str] = []
    for name in names:
        numbered = (f"{name}_{number}" for number in range(2, len(taken) + 3))
        taken.append(name if name not in taken else next(other for other in numbered if other not in taken))
    return taken


def _table(result: QueryResult) -> str:
    numeric = [_is_number(kind) for kind in result.table.schema.types]
    lines = [[_cell(name) for name in result.columns], *([_cell(value) for value in row] for row in result.rows)]
    widths = [max(map(_width, column)) for column in zip(*lines, strict=True)]
    header, *rows = [_aligned(line, widths, numeric) for line in lines]
    rule = "  ".join("─" * width for width in widths)
    return "\n".join([header, rule, *rows, _footer(result)]) + "\n"


def _json(result: QueryResult) -> str:
    lines = ",\n".join(f"  {line}" for line in _objects(result))
    return f"[\n{lines}\n]\n" if lines else "[]\n"


def _jsonl(result: QueryResult) -> str:
    return "".join(f"{line}\n" for line in _objects(result))


def _csv(result: QueryResult) -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow([_guarded(name) for name in result.columns])
    writer.writerows([_guarded(_text(value)) for value in row] for row in result.rows)
    return text.getvalue()


def _markdown(result: QueryResult) -> str:
    numeric = [_is_number(kind) for kind in result.table.schema.types]
    lines = [_markdown_line(map(marked, result.columns)), _markdown_line("---:" if one else "---" for one in numeric)]
    lines += (_markdown_line(marked(_text(value)) for value in row) for row in result.rows)
    return "\n".join([*lines, "", _footer(result)]) + "\n"


def _markdown_line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


_FORMATS: dict[Format, Callable[[QueryResult], str]] = {
    "table": _table,
    "json": _json,
    "jsonl": _jsonl,
    "csv": _csv,
    "markdown": _markdown,
}


def _objects(result: QueryResult) -> Iterable[str]:
    names = distinct(result.columns)
    for row in result.rows:
        yield json.dumps(dict(zip(names, map(_plain, row), strict=True)), ensure_ascii=False)


def _plain(value: Any) -> Any:
    """The value in JSON's own types; what JSON cannot say is null or text."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if abs(value) < float("inf") else None
        case Decimal():
            return int(value) if value == value.to_integral_value() else float(value)
        case dict():
            return {str(name): _plain(item) for name, item in value.items()}
        case list():
            return [_plain(item) for item in value]
        case _:
            return _scalar_text(value)


def _scalar_text(value: Any) -> str:
    match value:
        case bytes():
            return value.decode("utf-8", "backslashreplace")
        case datetime():
            # A time without a zone is UTC here: every stored time is.
            moment = value.astimezone(UTC) if value.tzinfo else value
            return f"{moment.replace(tzinfo=None).isoformat()}Z"
        case date() | time():
            return value.isoformat()
        case timedelta():
            return str(value)
        case _:
            return json.dumps(list(value)) if isinstance(value, tuple) else str(value)


def _text(value: Any) -> str:
    plain = _plain(value)
    if plain is None:
        return ""
    return plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)


def _cell(value: Any) -> str:
    shown = _STEERING.sub("", _text(value).replace("\n", "↵").replace("\t", " "))
    return shown if len(shown) <= _WIDEST_CELL else f"{shown[: _WIDEST_CELL - 1]}…"


def _guarded(text: str) -> str:
    # A spreadsheet runs what looks like a formula.
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def _aligned(line: Sequence[str], widths: Sequence[int], numeric: Sequence[bool]) -> str:
    cells = [_padded(*cell) for cell in zip(line, widths, numeric, strict=True)]
    return "  ".join(cells).rstrip()


def _padded(text: str, width: int, right: bool) -> str:
    space = " " * (width - _width(text))
    return space + text if right else text + space


def _width(text: str) -> int:
    return sum(_letter_width(letter) for letter in text)


def _letter_width(letter: str) -> int:
    if unicodedata.combining(letter):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _footer(result: QueryResult) -> str:
    count = result.table.num_rows
    rows = "1 row" if count == 1 else f"{count:,} rows"
    return f"(first {rows}; there are more)" if result.truncated else f"({rows})"
