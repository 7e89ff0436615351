"""Looking through records: filtered, a page at a time, as quick in a corpus of a million as in a small one."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import orjson

from corpusgen.corpus import Corpus
from corpusgen.errors import CorpusDamaged, UsageError

if TYPE_CHECKING:
    import duckdb

MOST: Final = 50
"""Records on a page."""
PATIENCE_S: Final = 1.5
"""How long is searched before what was found is shown, with where to go on."""
GROUP: Final = 8
"""Most shards that are read by one statement."""
_PLACE: Final = re.compile(r"([^~\x00]{1,400}\.parquet)~([0-9a-f]{64})?")
_BEGINNING: Final = re.compile(r"[0-9a-f]{4,64}")
_LEAST, _MOST_ID = "0" * 64, "f" * 64
_SHOWN: Final = 400
_TOOLS: Final = "(tool_calls is not null and tool_calls not in ('', '[]'))"

_COLUMNS: Final = f"""record_id, task, dataset_split, kind, teacher, left(input, {_SHOWN}) as input,
    left(response, {_SHOWN}) as response, label, timezone('UTC', sent_time) as sent_time, cost_microusd,
    reasoning is not null and reasoning <> '' as reasons, {_TOOLS} as calls_tools, file_index"""
_PAGE: Final = """
select {columns}
from (select *, list_position($files::varchar[], filename) as file_index
    from read_parquet($files::varchar[], union_by_name = true, filename = true))
where {where}
order by file_index, record_id
limit $most
"""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which records; what is empty does not matter."""

    task: str = ""
    split: str = ""
    teacher: str = ""
    user: str = ""
    text: str = ""
    reasoning: bool = False
    tools: bool = False


@dataclass(frozen=True, kw_only=True)
class Found:
    """One page of records."""

    rows: Sequence[Mapping[str, Any]]
    further: str
    """Where the next page begins; empty at the end."""
    searched: int
    """How many records were looked at, or passed over by their shard."""
    whole: bool
    """Whether everything was looked at that the page asked for, not only what there was time for."""


@dataclass(frozen=True, kw_only=True)
class _Shard:
    name: str
    """Its place in the folder ``shards``."""
    rows: int


def browse(
    corpus: Corpus,
    wanted: Wanted,
    place: str = "",
    *,
    most: int = MOST,
    patience_s: float = PATIENCE_S,
    monotonic: Callable[[], float] = time.monotonic,
) -> Found:
    """A page of records, those of the newest shard first, in a shard by their ids; ``place`` is where to begin.

    Shards that no such record can be in are never opened, and no more are opened than a page needs.
    """
    began, searched = monotonic(), 0
    rows: list[Mapping[str, Any]] = []
    shards, after = _from_place(_shards(corpus, wanted), place)
    at, size = 0, 1
    with _connected() as connection:
        while at < len(shards) and len(rows) <= most and (at == 0 or monotonic() - began < patience_s):
            group = shards[at : at + size]
            rows += _read(connection, corpus, group, wanted, after, most + 1)
            searched += sum(shard.rows for shard in group)
            at, size, after = at + len(group), min(GROUP, size * 2), ""
    if len(rows) > most:
        last = rows[most - 1]
        return Found(rows=rows[:most], further=f"{last['shard']}~{last['record_id']}", searched=searched, whole=True)
    further = f"{shards[at].name}~" if at < len(shards) else ""
    return Found(rows=rows, further=further, searched=searched, whole=not further)


def _shards(corpus: Corpus, wanted: Wanted) -> list[_Shard]:
    rows = corpus.journal.query(
        "select name, rows from shards where ? in ('', dataset) and ? in ('', split)"
        " order by committed_us desc, name desc",
        (wanted.task, wanted.split),
    )
    return [_Shard(name=row[0], rows=row[1]) for row in rows]


def _from_place(shards: list[_Shard], place: str) -> tuple[list[_Shard], str]:
    """The shards from a place on, and the record in the first of them that was shown last."""
    if not place:
        return shards, ""
    match = _PLACE.fullmatch(place)
    at = next((n for n, shard in enumerate(shards) if match and shard.name == match[1]), None)
    if match is None or at is None:
        raise UsageError("this page is no more: its shard was written anew; begin with the first page")
    return shards[at:], match[2] or ""


def _connected() -> duckdb.DuckDBPyConnection:
    import duckdb

    return duckdb.connect(config={"threads": "2", "memory_limit": "512MB", "autoinstall_known_extensions": "false"})


def _read(
    connection: duckdb.DuckDBPyConnection,
    corpus: Corpus,
    shards: Sequence[_Shard],
    wanted: Wanted,
    after: str,
    most: int,
) -> list[Mapping[str, Any]]:
    """The records of some shards, the first of them from a record on."""
    parts, bound = _conditions(wanted)
    if after:
        parts, bound = [*parts, "(file_index > 1 or record_id > $after)"], {**bound, "after": after}
    bound["files"] = [str(_path(corpus, shard)) for shard in shards]
    if wanted.user:  # whose they are is in the journal: all ids first, then the rows of a page
        every = _asked(connection, "record_id", parts, bound | {"most": sum(shard.rows for shard in shards)})
        theirs = _of_user(corpus, wanted.user, [str(row["record_id"]) for row in every])[:most]
        parts, bound = [*parts, "list_contains($ids::varchar[], record_id)"], {**bound, "ids": theirs}
    rows = _asked(connection, _COLUMNS, parts, bound | {"most": most})
    return [row | {"shard": shards[row["file_index"] - 1].name} for row in rows]


def _asked(
    connection: duckdb.DuckDBPyConnection, columns: str, parts: Sequence[str], bound: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Rows of a statement of our own words; those of strangers are bound, never written in."""
    import duckdb

    sql = _PAGE.format(columns=columns, where=" and ".join(parts) or "true")
    try:
        cursor = connection.execute(sql, dict(bound))
        names = [column[0] for column in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    except duckdb.Error as error:
        raise CorpusDamaged(f"a shard cannot be read; corpusgen verify says which: {error}") from error


def _conditions(wanted: Wanted) -> tuple[list[str], dict[str, Any]]:
    parts: list[str] = []
    bound: dict[str, Any] = {}
    if wanted.teacher:
        parts, bound = [*parts, "teacher = $teacher"], {**bound, "teacher": wanted.teacher}
    if wanted.text:
        seen = " or ".join(f"contains(lower({name}), $text)" for name in ("input", "response"))
        parts, bound = [*parts, f"({seen})"], {**bound, "text": wanted.text.lower()}
    if wanted.reasoning:
        parts.append("reasoning is not null and reasoning <> ''")
    if wanted.tools:
        parts.append(_TOOLS)
    return parts, bound


def _path(corpus: Corpus, shard: _Shard) -> Path:
    return corpus.folder / "shards" / shard.name


def _of_user(corpus: Corpus, user: str, ids: Sequence[str]) -> list[str]:
    """Those of some records whose call was booked for a user."""
    rows = corpus.journal.query(
        "select lower(hex(record_id)) from records join answers on answers.request_key = records.first_key"
        " join calls using (call_id) where record_id in (select unhex(value) from json_each(?))"
        " and instr(char(10) || scopes || char(10), ?)",
        (orjson.dumps(ids).decode(), f"\nuser:{user}\n"),
    )
    theirs = {row[0] for row in rows}
    return [name for name in ids if name in theirs]


# --- One record ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Located:
    """Where a record is: its whole id, its task, and its shard, where it is in one."""

    record_id: str
    task: str
    shard: str | None
    run_id: str


def find_record(corpus: Corpus, beginning: str) -> Located:
    """A record by its id, or by a beginning of it. Raises UsageError where that is none's, or several records'."""
    wanted = beginning.strip().lower()
    if not _BEGINNING.fullmatch(wanted):
        raise UsageError(f"{beginning!r:.80} is no record id; write 64 hexadecimal digits, or the first four or more")
    least, most = (bytes.fromhex(wanted + edge[len(wanted) :]) for edge in (_LEAST, _MOST_ID))
    rows = corpus.journal.query(
        "select lower(hex(record_id)), dataset, shard, run_id from records where record_id between ? and ?"
        " order by 1 limit 2",
        (least, most),
    )
    if not rows:
        raise UsageError(f"no record here has an id that begins with {wanted}")
    if len(rows) > 1:
        raise UsageError(f"several records begin with {wanted}; write more of the id")
    return Located(record_id=rows[0][0], task=rows[0][1], shard=rows[0][2], run_id=rows[0][3])


def read_record(corpus: Corpus, where: Located) -> dict[str, Any] | None:
    """Everything a shard has of a record; None while it waits to be committed."""
    if where.shard is None:
        return None
    import pyarrow.parquet as pq

    path = corpus.folder / "shards" / where.shard
    try:
        rows: list[dict[str, Any]] = pq.read_table(path, filters=[("record_id", "=", where.record_id)]).to_pylist()
    except (OSError, ValueError) as error:
        raise CorpusDamaged(f"{path.name}: cannot be read; corpusgen verify says what is wrong: {error}") from error
    if not rows:
        raise CorpusDamaged(f"{path.name}: does not hold record {where.record_id}; corpusgen verify says more")
    return rows[0]
