"""SQL over the records of a corpus, run where it can do no harm: in a child process over a copy in memory."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa

from corpusgen.errors import CorpusDamaged, QueryError
from corpusgen.store.shards import SCHEMA

_CHILD = Path(__file__).with_name("query_child.py")
_NAMING = {"query", "query_table"}
"""Functions that make a table's name of a text."""
_TABLE_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_READ_FROM = re.compile(r"\b(?:from|join|describe|summarize)\s+(\"?\w+\"?)")
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


@dataclass(frozen=True, kw_only=True)
class FiledSchema:
    """Tables in Parquet files and views over them, in a schema of their own.

    ``files`` makes them, and is only called for a statement that names one. A name that is a small table's too means
    that one, unless the schema stands before it.
    """

    name: str
    tables: Mapping[str, pa.Schema]
    views: Mapping[str, str]
    files: Callable[[], Mapping[str, Path]]

    def words(self, taken: Iterable[str]) -> set[str]:
        """What a statement that needs the files must hold, if ``taken`` are the names of other tables."""
        return {self.name, *self.tables, *self.views} - set(taken)


def run_query(
    sql: str,
    *,
    shard_paths: Iterable[Path],
    tables: Mapping[str, pa.Table] | None = None,
    filed: FiledSchema | None = None,
    limits: QueryLimits | None = None,
) -> QueryResult:
    """The answer to one reading statement over ``records`` (the given shards), the small ``tables`` and ``filed`` ones.

    Times are UTC. Nothing the statement does can touch a file: QueryError says why it was refused or stopped.
    """
    limits, tables = limits or QueryLimits(), tables or {}
    _check(sql, limits)
    shards = [str(path.absolute()) for path in shard_paths]
    words = filed.words([*tables, "records"]) if filed else set()
    likely = _reads_likely(sql, words)
    header, content = _asked(_request(sql, shards, tables, filed if likely else None, limits), limits)
    # A name may be a column's, or stand in a text: that it was the table's is sure once it is missing.
    unknown = header.get("kind") == "CatalogException"
    if filed and unknown and not likely and _holds(sql, words | _NAMING):
        header, content = _asked(_request(sql, shards, tables, filed, limits), limits)
    if "problem" in header:
        raise _problem(header, sql, sorted([*tables, "records"]), filed, limits)
    return _result(header, content)


def _reads_likely(sql: str, words: set[str]) -> bool:
    return any(_unquoted(word) in words for word in _READ_FROM.findall(sql.lower()))


def _holds(sql: str, words: set[str]) -> bool:
    return not words.isdisjoint(re.findall(r"\w+", sql.lower()))


def _unquoted(word: str) -> str:
    return word.strip('"')


def _check(sql: str, limits: QueryLimits) -> None:
    size = len(sql.encode(errors="replace"))
    if size > limits.sql_bytes:
        raise QueryError(f"the statement has {size} bytes, at most {limits.sql_bytes} are accepted")
    if "\0" in sql or any("\ud800" <= letter <= "\udfff" for letter in sql):
        raise QueryError("the statement holds characters that are not text")


def _request(
    sql: str, shards: list[str], tables: Mapping[str, pa.Table], filed: FiledSchema | None, limits: QueryLimits
) -> bytes:
    for name in tables:
        if not _TABLE_NAME.fullmatch(name) or name == "records":
            raise ValueError(f"not a name for a table beside 'records': {name!r}")
    stored: list[tuple[str, str, list[str]]] = [("main", "records", shards)]
    sent = {**tables, "main.records": SCHEMA.empty_table()}
    if filed is not None:
        files = filed.files()
        stored += [(filed.name, name, [str(files[name].absolute())]) for name in filed.tables]
        sent |= {f"{filed.name}.{name}": schema.empty_table() for name, schema in filed.tables.items()}
    streams = {name: _stream(table) for name, table in sent.items()}
    header = {
        "sql": sql,
        "stored": stored,
        "views": {filed.name: filed.views} if filed else {},
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


def _asked(request: bytes, limits: QueryLimits) -> tuple[dict[str, Any], memoryview]:
    """What the child says of the answer, and the answer."""
    answer, errors, status = _ask_child(request, limits)
    if status or len(answer) < 8:
        raise QueryError(_ended(status, errors, limits))
    size = int.from_bytes(answer[:8], "big")
    return orjson.loads(answer[8 : 8 + size]), memoryview(answer)[8 + size :]


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


def _result(header: Mapping[str, Any], content: memoryview) -> QueryResult:
    table = pa.ipc.open_stream(content).read_all()
    return QueryResult(
        columns=tuple(table.column_names), types=tuple(header["types"]), table=table, truncated=header["truncated"]
    )


def _problem(
    header: Mapping[str, str], sql: str, tables: list[str], filed: FiledSchema | None, limits: QueryLimits
) -> CorpusDamaged | QueryError:
    message = header["message"]
    match header["problem"]:
        case "damaged":
            return CorpusDamaged(f"{message}; {_advice(message, filed)}")
        case "memory":
            return QueryError(_too_large(limits))
        case "sql":
            clash = [] if filed is None else [name for name in filed.tables if name in tables and _holds(sql, {name})]
            if filed is not None and clash and header["kind"] == "BinderException":
                message += _two_of(clash, filed.name)
            return QueryError(_explained(header["kind"], message, tables, filed))
        case _:
            return QueryError(message)


def _two_of(names: list[str], schema: str) -> str:
    both = sorted(names)
    others = ", ".join(f"{schema}.{name}" for name in both)
    return f"\nWithout a schema before it, {', '.join(both)} is none of the {schema}'s; those are {others}."


def _advice(message: str, filed: FiledSchema | None) -> str:
    if filed is not None and any(f"{filed.name}{os.sep}{name}.parquet: " in message for name in filed.tables):
        return f"the folder {filed.name} is made anew when it is deleted"
    return "run `corpusgen verify`"


def _explained(kind: str, message: str, tables: list[str], filed: FiledSchema | None) -> str:
    if kind == "CatalogException" and "Table with name" in message:
        # DuckDB's guess is one of its own catalogue tables.
        known = f"\nTables here: {', '.join(tables)}."
        if filed is not None:
            known += f"\nIn the schema {filed.name}: {', '.join([*filed.tables, *filed.views])}."
            known += "\n`corpusgen query --schema` says what is in them."
        return re.sub(r'\nDid you mean "[^"]*"\?', known, message)
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
