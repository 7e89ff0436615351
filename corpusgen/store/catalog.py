"""catalog.duckdb: the corpus for DuckDB users. It holds nothing of its own and is made anew at any time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import duckdb
import pyarrow as pa

from corpusgen.errors import CorpusDamaged, CorpusUnwritable, StoreError
from corpusgen.store.durable import hidden_name, make_folder, publish, unwritable
from corpusgen.store.manifest import Manifest, ShardEntry
from corpusgen.store.shards import SCHEMA

CATALOG_NAME = "catalog.duckdb"
"""The catalogue's name in the corpus folder."""

_SETTINGS = {"autoinstall_known_extensions": "false", "autoload_known_extensions": "false", "temp_directory": ""}
_SHARD_SCHEMA = pa.schema(
    [
        ("dataset", pa.string()),
        ("split", pa.string()),
        ("name", pa.string()),
        ("rows", pa.int64()),
        ("sha256", pa.string()),
        ("size_bytes", pa.int64()),
        ("schema_version", pa.int32()),
        ("writer_version", pa.int32()),
    ]
)


def build_catalog(
    corpus: Path,
    manifest: Manifest,
    tables: Mapping[str, pa.Table] | None = None,
    lineage: Mapping[str, str] | None = None,
) -> Path:
    """A fresh ``catalog.duckdb``: a view ``records`` over the committed shards, ``shards``, and the small ``tables``.

    ``lineage`` are views by name, in the order in which they build on each other, for the schema of that name. Times
    are UTC without a zone. Readers of the file before keep it until they close it.
    """
    make_folder(corpus)
    path = corpus / CATALOG_NAME
    hidden = hidden_name(path)
    try:
        with unwritable(path):
            hidden.unlink(missing_ok=True)
        with _connected(hidden, read_only=False) as connection:
            _fill(connection, corpus, manifest, {**(tables or {}), "shards": shard_table(manifest.shards)})
            _add_lineage(connection, lineage or {})
        with unwritable(path):
            publish(hidden, path)
    finally:
        hidden.unlink(missing_ok=True)
        hidden.with_name(f"{hidden.name}.wal").unlink(missing_ok=True)
    return path


def add_lineage(corpus: Path, views: Mapping[str, str]) -> None:
    """Put the views over the lineage into the catalogue that is there. Raises StoreError where somebody has it open."""
    with _connected(corpus / CATALOG_NAME, read_only=False) as connection:
        _add_lineage(connection, views)


def _add_lineage(connection: duckdb.DuckDBPyConnection, views: Mapping[str, str]) -> None:
    # In a schema of its own, where `records` and `runs` are other tables than the catalogue's.
    if views:
        connection.execute("create schema if not exists lineage")
        connection.execute("use lineage")
    with suppress(duckdb.Error):  # a lineage that cannot be read is made anew for who asks; nothing is lost here
        for name, sql in views.items():
            connection.execute(f'create or replace view "{name}" as {sql}')


@contextmanager
def open_catalog(corpus: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """The catalogue, read-only; close it soon, because an open reader keeps nobody out but is kept out by a writer."""
    path = corpus / CATALOG_NAME
    if not path.exists():
        raise StoreError(f"{path}: there is no catalogue yet; it is made by the next run")
    with _connected(path, read_only=True) as connection:
        yield connection


def read_through(corpus: Path) -> None:
    """Read everything the catalogue itself holds. Raises CorpusDamaged where a part cannot be read."""
    with open_catalog(corpus) as connection:
        named = (
            "select table_name from duckdb_tables() where database_name = current_database() and schema_name = 'main'"
        )
        try:
            for (name,) in connection.execute(named).fetchall():
                connection.sql(f'from "{name}"').to_arrow_table()
        except duckdb.Error as error:
            raise CorpusDamaged(f"{corpus / CATALOG_NAME}: {error}") from error


def shard_table(shards: tuple[ShardEntry, ...]) -> pa.Table:
    """The manifest's shards as rows."""
    return pa.table(
        {name: [getattr(shard, name) for shard in shards] for name in _SHARD_SCHEMA.names}, schema=_SHARD_SCHEMA
    )


def _fill(
    connection: duckdb.DuckDBPyConnection, corpus: Path, manifest: Manifest, tables: Mapping[str, pa.Table]
) -> None:
    for name, table in tables.items():
        _create_table(connection, f'"{name}"', _without_zones(table))
    connection.execute("create schema stored")
    _create_table(connection, "stored.no_records", _without_halves(SCHEMA.empty_table()))
    connection.execute(f"create view records as {_records_sql(manifest.paths(corpus.absolute()))}")


def _records_sql(paths: list[Path]) -> str:
    # The empty table gives every column, even those that shards of an older schema lack.
    sources = ["from stored.no_records"]
    if paths:
        listed = ", ".join(_quoted(str(path)) for path in paths)
        sources.append(f"from read_parquet([{listed}], union_by_name = true)")
    columns, rows = ", ".join(map(_column, SCHEMA)), " union all by name ".join(sources)
    return f"select {columns} from ({rows})"  # noqa: S608 - our own names, and paths are quoted


def _column(field: pa.Field) -> str:
    name = f'"{field.name}"'
    return f"timezone('UTC', {name}) as {name}" if pa.types.is_timestamp(field.type) else name


def _create_table(connection: duckdb.DuckDBPyConnection, name: str, table: pa.Table) -> None:
    # DuckDB's grammar has a word AT: such a column could only be asked for in quotes.
    if "at" in table.column_names:
        raise ValueError(f"table {name} has a column 'at'; name it for what happened, like 'sent_time'")
    connection.register("incoming", table)
    connection.execute(f"create table {name} as from incoming")
    connection.unregister("incoming")


def _without_zones(table: pa.Table) -> pa.Table:
    times = {field.name: pa.timestamp("us") for field in table.schema if pa.types.is_timestamp(field.type)}
    return _retyped(table, times)


def _without_halves(table: pa.Table) -> pa.Table:
    # DuckDB takes half floats from Parquet but not from Arrow.
    halves = pa.list_(pa.float16())
    return _retyped(table, {field.name: pa.list_(pa.float32()) for field in table.schema if field.type == halves})


def _retyped(table: pa.Table, types: Mapping[str, pa.DataType]) -> pa.Table:
    return table.cast(pa.schema([field.with_type(types.get(field.name, field.type)) for field in table.schema]))


@contextmanager
def _connected(path: Path, *, read_only: bool) -> Iterator[duckdb.DuckDBPyConnection]:
    try:
        connection = duckdb.connect(str(path), read_only=read_only, config={**_SETTINGS})
    except duckdb.Error as error:  # damage has no class of its own
        raise _not_opened(path, error, read_only=read_only) from error
    try:
        yield connection
    except duckdb.IOException as error:
        raise _not_opened(path, error, read_only=read_only) from error
    finally:
        connection.close()


def _not_opened(path: Path, error: duckdb.Error, *, read_only: bool) -> StoreError:
    if "lock on file" in str(error):
        return StoreError(f"{path}: another process has it open; close that, or ask with `corpusgen query`: {error}")
    if read_only:
        return CorpusDamaged(f"{path}: {error}; delete it, it is made anew from the manifest")
    return CorpusUnwritable(f"cannot write {str(path)!r}: {error}; free some space or make the folder writable")


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
