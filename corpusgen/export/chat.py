"""Conversations as trainers read them: ``messages``, and beside them conversational ``prompt`` and ``completion``.

Where tools were offered or called, turns have ``tool_calls`` and ``tool_call_id``, and a column ``tools`` holds them.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from corpusgen.errors import CorpusDamaged, CorpusUnwritable, UsageError
from corpusgen.export.conversations import chat_call, chat_tools, chat_turns

_TURNS = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
SCHEMA = pa.schema(
    [
        ("messages", _TURNS),
        ("prompt", _TURNS),
        ("completion", _TURNS),
        ("record_id", pa.string()),
        ("teacher", pa.string()),
        ("licence", pa.string()),
    ]
)
"""Columns of an export, whatever its format."""

_CALL = pa.struct(
    [
        ("id", pa.string()),
        ("type", pa.string()),
        ("function", pa.struct([("name", pa.string()), ("arguments", pa.string())])),
    ]
)
_TURNS_WITH_TOOLS = pa.list_(
    pa.struct(
        [
            ("role", pa.string()),
            ("content", pa.string()),
            ("tool_calls", pa.list_(_CALL)),
            ("tool_call_id", pa.string()),
            ("name", pa.string()),
        ]
    )
)
SCHEMA_WITH_TOOLS = pa.schema(
    [pa.field(field.name, _TURNS_WITH_TOOLS) if field.type == _TURNS else field for field in SCHEMA]
    + [pa.field("tools", pa.string())]
)
"""The same where a record has tools or calls some; ``tools`` is JSON, because no two tools have the same fields."""

_NEEDED = (
    "record_id",
    "kind",
    "messages",
    "response",
    "label",
    "truncated",
    "teacher",
    "licence_expression",
    "dataset_split",
)
_WITH_TOOLS = ("tool_calls", "conversation")
# Earlier shards have no such columns.
_USED_IF_THERE = ("calibrated_label", *_WITH_TOOLS)

Row: TypeAlias = Mapping[str, Any]
Batches: TypeAlias = Iterator[list[dict[str, Any]]]


@dataclass(frozen=True, kw_only=True)
class ChatExport:
    """What an export wrote, and what it left out for which reason."""

    path: Path
    rows: int
    skipped: Mapping[str, int]


def export_chat(
    shards: Sequence[Path], out: Path, *, splits: Collection[str] = ("train",), batch_rows: int = 1024
) -> ChatExport:
    """The answers of a sealed dataset in a .jsonl or .parquet file that TRL reads unchanged.

    Truncated and empty answers and other splits are left out and counted. Where a label was asked for, the label is the
    answer, the calibrated one if there is one. The file appears whole or not at all.
    """
    write = _writer(out)
    skipped: Counter[str] = Counter()
    schema = SCHEMA_WITH_TOOLS if any(map(_has_tools, shards)) else SCHEMA
    with _whole_file(out) as unfinished:
        rows = write(unfinished, _conversations(shards, splits, skipped, batch_rows), schema)
    return ChatExport(path=out, rows=rows, skipped=dict(sorted(skipped.items())))


def conversation(record: Row) -> dict[str, Any]:
    """One record as a row of the export."""
    sent = orjson.loads(record.get("conversation") or "null")
    prompt = [{"role": turn["role"], "content": turn["content"]} for turn in record["messages"]]
    prompt = prompt if sent is None else chat_turns(sent)
    tools = None if sent is None else chat_tools(sent)
    completion = [{"role": "assistant", "content": _answer(record), **_calls(record)}]
    return {
        "messages": prompt + completion,
        "prompt": prompt,
        "completion": completion,
        "record_id": record["record_id"],
        "teacher": record["teacher"],
        "licence": record["licence_expression"],
        "tools": None if tools is None else orjson.dumps(tools).decode(),
    }


def _calls(record: Row) -> dict[str, Any]:
    """The tools an answer calls, by their names and arguments; whatever else a server wrote beside them is left out."""
    calls = record.get("tool_calls") if record["kind"] != "label" else None
    return {"tool_calls": list(map(chat_call, orjson.loads(calls)))} if calls else {}


def _has_tools(shard: Path) -> bool:
    """Whether any record of a shard may have tools, by what its footer counts."""
    try:
        metadata = pq.read_metadata(shard)
    except (OSError, pa.ArrowException) as error:
        raise CorpusDamaged(f"{shard} cannot be read as Parquet: {error}") from error
    groups = (metadata.row_group(number) for number in range(metadata.num_row_groups))
    columns = (group.column(at) for group in groups for at in range(group.num_columns))
    return any(one.path_in_schema in _WITH_TOOLS and not _all_null(one) for one in columns)


def _all_null(column: pq.ColumnChunkMetaData) -> bool:
    known = column.statistics
    return known is not None and known.has_null_count and known.null_count == column.num_values


def _conversations(shards: Sequence[Path], splits: Collection[str], skipped: Counter[str], batch_rows: int) -> Batches:
    for shard in shards:
        for records in _batches(shard, batch_rows):
            kept = []
            for record in records:
                reason = _reason_to_skip(record, splits)
                if reason is None:
                    kept.append(conversation(record))
                else:
                    skipped[reason] += 1
            yield kept


def _reason_to_skip(record: Row, splits: Collection[str]) -> str | None:
    if record["dataset_split"] not in splits:
        return f"split {record['dataset_split']}"
    # A label is read off the first token, so its request always stops at max_tokens.
    if record["truncated"] and record["kind"] != "label":
        return "truncated"
    if not record["messages"]:
        return "no prompt"
    return None if _answer(record).strip() or _calls(record) else "empty answer"


def _answer(record: Row) -> str:
    if record["kind"] != "label":
        return record["response"] or ""
    return record.get("calibrated_label") or record["label"] or ""


def _batches(shard: Path, batch_rows: int) -> Batches:
    try:
        with pq.ParquetFile(shard) as file:
            columns = _columns(shard, file.schema_arrow.names)
            for batch in file.iter_batches(batch_size=batch_rows, columns=columns):
                yield batch.to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise CorpusDamaged(f"{shard} cannot be read as Parquet: {error}") from error


def _columns(shard: Path, present: Collection[str]) -> list[str]:
    missing = [name for name in _NEEDED if name not in present]
    if missing:
        raise CorpusDamaged(f"{shard} has no column {', '.join(missing)}; is it a file of a sealed dataset?")
    return [*_NEEDED, *(name for name in _USED_IF_THERE if name in present)]


def _writer(out: Path) -> Callable[[Path, Batches, pa.Schema], int]:
    writers = {".jsonl": _write_jsonl, ".parquet": _write_parquet}
    if out.suffix not in writers:
        raise UsageError(f"cannot export chat to {out.name!r}: end the name in {' or '.join(sorted(writers))}")
    return writers[out.suffix]


def _write_jsonl(path: Path, batches: Batches, schema: pa.Schema) -> int:
    rows = 0
    with path.open("wb") as file:
        for batch in batches:
            named = ({name: row[name] for name in schema.names} for row in batch)
            file.writelines(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in named)
            rows += len(batch)
    return rows


def _write_parquet(path: Path, batches: Batches, schema: pa.Schema) -> int:
    rows = 0
    with pq.ParquetWriter(path, schema, compression="zstd", write_page_checksum=True) as writer:
        for batch in filter(None, batches):
            writer.write_table(pa.Table.from_pylist(batch, schema=schema))
            rows += len(batch)
    return rows


@contextmanager
def _whole_file(out: Path) -> Iterator[Path]:
    """A hidden path to write to, which takes the real name only once it is complete and on the disk."""
    unfinished = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield unfinished
            _sync(unfinished)
            unfinished.replace(out)
            _sync(out.parent)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as error:
        raise CorpusUnwritable(f"{out} cannot be written: {error.strerror or error}") from error


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
