"""The process that runs one foreign SQL statement and is thrown away: no files, no network, little memory, little time.

It is started by path and imports nothing of corpusgen, so that it starts fast. A request comes over stdin, the answer
goes to stdout: a length, JSON, then Arrow streams. What keeps the corpus safe is not a list of forbidden statements but
that DuckDB holds a private copy in memory and may neither open files nor change its settings.
"""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

if __name__ == "__main__":
    # Both libraries work without numpy here, and importing it would double the time to start.
    sys.modules["numpy"] = None  # type: ignore[assignment]

    # DuckDB tells where it would keep secrets and extensions: nobody's home is anybody's business here.
    os.environ.pop("HOME", None)

import duckdb
import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq

MAIN = "main"
RECORDS = "records"
_NOBODY = 65534
_PR_SET_PDEATHSIG = 1
_ROWS_PER_BATCH = 2048
_READS = {"SELECT", "EXPLAIN", "MULTI"}
_SETTINGS = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "enable_external_access": "false",
    "python_enable_replacements": "false",
    "temp_directory": "",
}


class Refused(Exception):
    """The statement is not run, for a reason the user can read."""


class Damaged(Exception):
    """A file cannot be read as it was written."""


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A table that lies in files: of it only what the statement reads is loaded."""

    schema: str
    name: str
    empty: pa.Table
    paths: tuple[str, ...]

    @property
    def shown(self) -> str:
        """As a statement names it."""
        return f"{self.schema}.{self.name}"


def main() -> None:
    """Answer the one request on stdin."""
    header = _header(sys.stdin.buffer)
    _confine(header["limits"], header["parent"])
    tables = {name: _table(sys.stdin.buffer.read(size)) for name, size in header["tables"]}
    try:
        _send(*_answer(header, tables))
    except Damaged as error:
        _send({"problem": "damaged", "message": str(error)})
    except (MemoryError, duckdb.OutOfMemoryException) as error:
        _send({"problem": "memory", "message": str(error)})
    except Refused as error:
        _send({"problem": "refused", "message": str(error)})
    except RecursionError:
        _send({"problem": "refused", "message": "the statement is nested too deeply, or joins too many tables"})
    except (duckdb.Error, pa.ArrowException) as error:
        _send({"problem": "sql", "kind": type(error).__name__, "message": str(error)})


def _confine(limits: Mapping[str, Any], parent: int) -> None:
    # DuckDB takes a database in memory for a file of that name in the current folder, which a statement may then touch.
    os.chdir("/")
    seconds = int(limits["seconds"]) + 1
    memory = limits["memory_mb"] << 20
    _limit(resource.RLIMIT_AS, memory)
    _limit(resource.RLIMIT_CPU, seconds * _threads())
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_CORE, 0)
    # The starter kills us in time; should it be gone, the alarm's default action does.
    signal.alarm(seconds + 1)
    _die_with(parent)


def _limit(what: int, value: int) -> None:
    hard = resource.getrlimit(what)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(what, (value, value))


def _die_with(parent: int) -> None:
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)


def _become_nobody(parent: int) -> None:
    if os.geteuid() != 0:
        return
    try:
        os.setgroups([])
        os.setgid(_NOBODY)
        os.setuid(_NOBODY)
    except OSError:  # root without the capability, as in some containers
        return
    # A change of user switches the death signal off.
    _die_with(parent)


def _answer(header: Mapping[str, Any], tables: dict[str, pa.Table]) -> tuple[dict[str, Any], pa.Buffer]:
    sql, limits, views = header["sql"], header["limits"], header["views"]
    stored = [
        Stored(schema=schema, name=name, empty=tables.pop(f"{schema}.{name}"), paths=tuple(paths))
        for schema, name, paths in header["stored"]
    ]
    needed = _needed_columns(sql, stored, tables, views, limits)
    connection = _connect(limits)
    _create_small(connection, tables)
    _create_schemas(connection, {"stored", *(one.schema for one in stored)})
    for one in stored:
        _create_stored(connection, one, needed[one.shown])
    _create_views(connection, views)
    _become_nobody(header["parent"])
    connection.execute("set lock_configuration = true")
    return _run(connection, sql, limits)


def _create_small(connection: duckdb.DuckDBPyConnection, tables: Mapping[str, pa.Table]) -> None:
    for name, table in tables.items():
        _create(connection, name, table)


def _create_schemas(connection: duckdb.DuckDBPyConnection, schemas: set[str]) -> None:
    for schema in sorted(schemas - {MAIN}):
        connection.execute(f"create schema {schema}")


def _create_views(connection: duckdb.DuckDBPyConnection, views: Mapping[str, Mapping[str, str]]) -> None:
    """The views of each schema over its tables; afterwards names are looked for in main first."""
    for schema, texts in views.items():
        connection.execute(f"set search_path = '{schema}'")
        for name, text in texts.items():
            connection.execute(f"create view {schema}.{name} as {text}")
    connection.execute(f"set search_path = '{','.join([MAIN, *views])}'")


def _connect(limits: Mapping[str, Any]) -> duckdb.DuckDBPyConnection:
    megabytes = limits["memory_mb"] * 6 // 10
    return duckdb.connect(":memory:", config={**_SETTINGS, "memory_limit": f"{megabytes}MB", "threads": _threads()})


def _threads() -> int:
    return min(4, os.cpu_count() or 1)


def _needed_columns(
    sql: str,
    stored: list[Stored],
    tables: Mapping[str, pa.Table],
    views: Mapping[str, Mapping[str, str]],
    limits: Mapping[str, Any],
) -> dict[str, list[str] | None]:
    """For each stored table the columns that the statement reads: what the planner says, and those in the text.

    None where the statement does not read the table at all.
    """
    connection = _connect(limits)
    _create_small(connection, {name: table.slice(0, 0) for name, table in tables.items()})
    _create_schemas(connection, {one.schema for one in stored})
    for one in stored:
        _create(connection, one.shown, one.empty)
    _create_views(connection, views)
    kind = _only_statement(connection, sql)
    _optimise_columns_only(connection)
    connection.execute("set lock_configuration = true")
    words = set(re.findall(r"\w+", sql.lower()))
    if kind == "MULTI":  # PIVOT: its columns come from the values themselves
        return _columns_of_named(connection, stored, views, words, whole=True)
    # Bound as it was written first, so that errors quote the user's own text.
    connection.sql(sql)
    if kind == "EXPLAIN":
        return _columns_of_named(connection, stored, views, words, whole=False)
    planned = _planned_columns(connection, [sql])
    return {one.shown: _columns(one, planned.get(one.shown), words) for one in stored}


def _columns(table: Stored, planned: set[str] | None, words: set[str]) -> list[str] | None:
    names = table.empty.column_names
    if planned is None:
        return None
    unknown = planned - set(names)
    return [name for name in names if unknown or name in planned or name in words]


def _columns_of_named(
    connection: duckdb.DuckDBPyConnection,
    stored: list[Stored],
    views: Mapping[str, Mapping[str, str]],
    words: set[str],
    *,
    whole: bool,
) -> dict[str, list[str] | None]:
    """Columns of the tables that the text names, all of them or those it names too, and what its views read."""
    named = [f"from {schema}.{view}" for schema, texts in views.items() for view in texts if view in words]
    read = _planned_columns(connection, named)
    # These make names of texts, where no word shows them.
    hidden = not words.isdisjoint({"query", "query_table"})
    for one in stored:
        if one.name in words or hidden:
            read.setdefault(one.shown, set()).update(one.empty.column_names if whole else ())
    return {one.shown: _columns(one, read.get(one.shown), words) for one in stored}


def _only_statement(connection: duckdb.DuckDBPyConnection, sql: str) -> str:
    try:
        statements = connection.extract_statements(sql)
        kinds = [str(statement.type).rpartition(".")[2] for statement in statements]
    except ValueError as error:  # the binding does not know every statement the parser knows
        raise Refused("only statements that read can be run here: SELECT, FROM, WITH, DESCRIBE, PIVOT …") from error
    if len(kinds) != 1:
        raise Refused(f"one statement at a time; found {len(kinds)}")
    if kinds[0] not in _READS:
        raise Refused(f"{kinds[0]} is not run here: a query reads, it changes nothing")
    return kinds[0]


def _optimise_columns_only(connection: duckdb.DuckDBPyConnection) -> None:
    # On empty tables the other optimisers would plan whole scans away.
    names = [row[0] for row in connection.execute("select name from duckdb_optimizers()").fetchall()]
    disabled = ",".join(name for name in names if name != "unused_columns")
    connection.execute(f"set disabled_optimizers = '{disabled}'")


def _planned_columns(connection: duckdb.DuckDBPyConnection, statements: list[str]) -> dict[str, set[str]]:
    read: dict[str, set[str]] = {}
    for sql in statements:
        for plan in connection.execute(f"explain (format json) {sql}").fetchall():
            for node in _nodes(json.loads(plan[1])):
                if table := node.get("Table"):
                    read.setdefault(table.partition(".")[2], set()).update(_projected(node))
    return read


def _nodes(plan: Any) -> Iterator[dict[str, Any]]:
    waiting = list(plan)
    while waiting:
        node = waiting.pop()
        waiting.extend(node.get("children", []))
        yield node.get("extra_info") or {}


def _projected(scan: dict[str, Any]) -> list[str]:
    names = scan.get("Projections") or []
    return [names] if isinstance(names, str) else names


def _create_stored(connection: duckdb.DuckDBPyConnection, table: Stored, columns: list[str] | None) -> None:
    """The table with all its columns; those the statement does not read are NULL and were never loaded."""
    if columns is None:
        _create(connection, table.shown, table.empty)
        return
    kept = columns or [_narrowest(table.empty.schema)]
    inner = f"stored.{table.schema}_{table.name}"
    _create(connection, inner, table.empty.select(kept))
    for path in table.paths:
        for batch in _batches(path, kept):
            _insert(connection, inner, batch)
    _create(connection, "stored.everything", table.empty)
    types = connection.execute("select column_name, column_type from (describe stored.everything)").fetchall()
    listed = ", ".join(_quoted(name) if name in kept else f"null::{kind} as {_quoted(name)}" for name, kind in types)
    connection.execute(f"create view {table.shown} as select {listed} from {inner}")  # noqa: S608 - our own names
    connection.execute("drop table stored.everything")


def _narrowest(schema: pa.Schema) -> str:
    """A column that costs little, where only rows are counted."""
    small = [str(field.name) for field in schema if field.type == pa.int32()]
    return small[0] if small else str(schema.names[0])


def _batches(path: str, columns: list[str]) -> Iterator[pa.Table]:
    try:
        source = pyarrow.fs.LocalFileSystem().open_input_file(path)
        with source, pq.ParquetFile(source, page_checksum_verification=True, pre_buffer=False) as file:
            present = [name for name in columns if name in file.schema_arrow.names]
            for index in range(file.num_row_groups):
                yield file.read_row_group(index, columns=present, use_threads=False)
    except pa.ArrowMemoryError:
        raise
    except (OSError, ValueError, pa.ArrowException) as error:
        raise Damaged(f"{path}: not the file that was written: {error}") from error


def _create(connection: duckdb.DuckDBPyConnection, name: str, table: pa.Table) -> None:
    connection.register("incoming", _plain(table))
    connection.execute(f"create table {name} as from incoming")
    connection.unregister("incoming")


def _insert(connection: duckdb.DuckDBPyConnection, name: str, table: pa.Table) -> None:
    connection.register("incoming", _plain(table))
    connection.execute(f"insert into {name} by name from incoming")
    connection.unregister("incoming")


def _plain(table: pa.Table) -> pa.Table:
    """The table in types DuckDB reads: single floats for halves, UTC without a zone for times."""
    fields = [pa.field(field.name, _plain_type(field.type)) for field in table.schema]
    return table.cast(pa.schema(fields))


def _plain_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_list(kind) and not pa.types.is_nested(kind.value_type):
        return pa.list_(_plain_type(kind.value_type))
    if pa.types.is_float16(kind):
        return pa.float32()
    return pa.timestamp("us") if pa.types.is_timestamp(kind) else kind


def _run(
    connection: duckdb.DuckDBPyConnection, sql: str, limits: Mapping[str, Any]
) -> tuple[dict[str, Any], pa.Buffer]:
    relation = connection.sql(sql)
    types = [str(kind) for kind in relation.types]
    reader = relation.to_arrow_reader(_ROWS_PER_BATCH)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, reader.schema) as writer:
        truncated = _copy(reader, writer, limits["rows"], limits["bytes"])
    return {"types": types, "truncated": truncated}, sink.getvalue()


def _copy(reader: pa.RecordBatchReader, writer: pa.RecordBatchWriter, rows: int, size: int) -> bool:
    """Copy what fits; True when something did not."""
    for batch in reader:
        fitting = min(batch.num_rows, rows, batch.num_rows * size // max(batch.nbytes, 1))
        writer.write_batch(batch.slice(0, fitting))
        if fitting < batch.num_rows:
            return True
        rows, size = rows - fitting, size - batch.nbytes
    return False


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _header(stdin: BinaryIO) -> dict[str, Any]:
    size = int.from_bytes(stdin.read(8), "big")
    header: dict[str, Any] = json.loads(stdin.read(size))
    return header


def _table(content: bytes) -> pa.Table:
    return pa.ipc.open_stream(content).read_all()


def _send(header: dict[str, Any], content: pa.Buffer | bytes = b"") -> None:
    encoded = json.dumps(header).encode()
    sys.stdout.buffer.write(len(encoded).to_bytes(8, "big") + encoded)
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
    # Nothing is left to tidy up, and a library that hangs at exit must not keep the answer back.
    os._exit(0)
