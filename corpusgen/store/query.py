"""SQL over the records of a corpus, run where it can do no harm: in a child process over a copy in memory."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa

from corpusgen.errors import CorpusDamaged, QueryError
from corpusgen.store.shards import SCHEMA

_CHILD = Path(__file__).with_name("query_child.py")
_TABLE_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
# What an interpreter needs to find its libraries. Keys of teachers, above all, stay here.
_INHERITED = ("PATH", "HOME", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT", "LANG")


@dataclass(frozen=True, kw_only=True)
class QueryLimits:
    """What one statement may take before it is stopped or its answer is cut."""

    seconds: float = 30
    memory_mb: int = 2048
    rows: int = 100_000
    bytes: int = 64 << 20
    sql_bytes: int = 20_000


@dataclass(frozen=True, kw_only=True)
class QueryResult:
    """The answer: an Arrow table with DuckDB's types; ``truncated`` when a limit cut it short."""

    columns: tuple[str, ...]
    types: tuple[str, ...]
    table: pa.Table
    truncated: bool

    @property
    def rows(self) -> list[tuple[Any, ...]]:
        """The answer as Python tuples."""
        return list(zip(*(column.to_pylist() for column in self.table.columns), strict=True))


def run_query(
    sql: str,
    *,
    shard_paths: Iterable[Path],
    tables: Mapping[str, pa.Table] | None = None,
    limits: QueryLimits | None = None,
) -> QueryResult:
    """The answer to one reading statement over ``records`` (the given shards) and the small ``tables``.

    Times are UTC. Nothing the statement does can touch a file: QueryError says why it was refused or stopped.
    """
    limits = limits or QueryLimits()
    _check(sql, limits)
    request = _request(sql, [str(path.absolute()) for path in shard_paths], tables or {}, limits)
    answer, errors, status = _ask_child(request, limits)
    if status or len(answer) < 8:
        raise QueryError(_ended(status, errors, limits))
    return _result(answer, [*(tables or {}), "records"], limits)


def _check(sql: str, limits: QueryLimits) -> None:
    size = len(sql.encode(errors="replace"))
    if size > limits.sql_bytes:
        raise QueryError(f"the statement has {size} bytes, at most {limits.sql_bytes} are accepted")
    if "\0" in sql or any("\ud800" <= letter <= "\udfff" for letter in sql):
        raise QueryError("the statement holds characters that are not text")


def _request(sql: str, shards: list[str], tables: Mapping[str, pa.Table], limits: QueryLimits) -> bytes:
    for name in tables:
        if not _TABLE_NAME.fullmatch(name) or name == "records":
            raise ValueError(f"not a name for a table beside 'records': {name!r}")
    streams = {name: _stream(table) for name, table in {"records": SCHEMA.empty_table(), **tables}.items()}
    header = {
        "sql": sql,
        "shards": shards,
        "limits": asdict(limits),
        "parent": os.getpid(),
        "tables": [(name, len(stream)) for name, stream in streams.items()],
    }
    encoded = orjson.dumps(header)
    return b"".join([len(encoded).to_bytes(8, "big"), encoded, *streams.values()])


def _stream(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def _ask_child(request: bytes, limits: QueryLimits) -> tuple[bytes, bytes, int]:
    # By path and with -P: neither the current folder nor this package's files can pose as a library.
    command = [sys.executable, "-P", "-B", str(_CHILD)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=_environment()) as child:
        try:
            answer, errors = child.communicate(request, timeout=limits.seconds)
        except subprocess.TimeoutExpired as error:
            raise QueryError(_too_long(limits)) from error
        finally:
            child.kill()
        return answer, errors, child.returncode


def _environment() -> dict[str, str]:
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    # One arena and no thread pools: the memory limit counts addresses, used or not.
    return {**inherited, "TZ": "UTC", "MALLOC_ARENA_MAX": "1", "ARROW_DEFAULT_MEMORY_POOL": "system"}


def _result(answer: bytes, tables: list[str], limits: QueryLimits) -> QueryResult:
    size = int.from_bytes(answer[:8], "big")
    header = orjson.loads(answer[8 : 8 + size])
    if "problem" in header:
        raise _problem(header, tables, limits)
    table = pa.ipc.open_stream(memoryview(answer)[8 + size :]).read_all()
    return QueryResult(
        columns=tuple(table.column_names), types=tuple(header["types"]), table=table, truncated=header["truncated"]
    )


def _problem(header: dict[str, str], tables: list[str], limits: QueryLimits) -> CorpusDamaged | QueryError:
    message = header["message"]
    match header["problem"]:
        case "damaged":
            return CorpusDamaged(f"{message}; run `corpusgen verify`")
        case "memory":
            return QueryError(_too_large(limits))
        case "sql":
            return QueryError(_explained(header["kind"], message, sorted(tables)))
        case _:
            return QueryError(message)


def _explained(kind: str, message: str, tables: list[str]) -> str:
    if kind == "CatalogException" and "Table with name" in message:
        # DuckDB's guess is one of its own catalogue tables.
        return re.sub(r'\nDid you mean "[^"]*"\?', f"\nTables here: {', '.join(tables)}.", message)
    if kind in ("PermissionException", "IOException"):
        return f"{message}\nA query reads the tables of the corpus ({', '.join(tables)}) and no files."
    return message


def _ended(status: int, errors: bytes, limits: QueryLimits) -> str:
    if status in (-signal.SIGXCPU, -signal.SIGALRM):
        return _too_long(limits)
    last = errors.decode(errors="replace").strip().rpartition("\n")[2]
    if status < 0 or "memory" in last.lower() or "bad_alloc" in last:
        return _too_large(limits)
    return f"the statement could not be run: {last or f'exit status {status}'}"


def _too_long(limits: QueryLimits) -> str:
    return f"stopped after {limits.seconds:g} s; ask for less, or raise the limit with --seconds"


def _too_large(limits: QueryLimits) -> str:
    return (
        f"the statement needs more than {limits.memory_mb} MB; name the columns you need instead of *, "
        "or raise the limit with --memory-mb"
    )
