"""The guide to a query: every table and view, what it is, and each column with its type and its meaning."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from typing import Final

import pyarrow as pa

from corpusgen.errors import UsageError
from corpusgen.provenance import lineage
from corpusgen.provenance.questions import NOTICE
from corpusgen.records import Json
from corpusgen.stages.lineage import guide_words
from corpusgen.stages.tables import TABLES
from corpusgen.store.shards import SCHEMA

_TYPES: Final[dict[pa.DataType, str]] = {
    pa.string(): "VARCHAR",
    pa.int64(): "BIGINT",
    pa.int32(): "INTEGER",
    pa.uint16(): "USMALLINT",
    pa.bool_(): "BOOLEAN",
    pa.float64(): "DOUBLE",
    pa.float32(): "FLOAT",
    pa.float16(): "FLOAT",
    pa.date32(): "DATE",
    pa.binary(): "BLOB",
    pa.binary(32): "BLOB",
}


@dataclass(frozen=True, kw_only=True)
class GuideColumn:
    """One column: its type in SQL, and what it says. ``optional``: it may be empty; None: nobody promises."""

    name: str
    type: str
    meaning: str
    optional: bool | None = None


@dataclass(frozen=True, kw_only=True)
class GuideTable:
    """One table or view, by the name that finds it in a statement."""

    name: str
    schema: str
    view: bool
    prov: str
    meaning: str
    columns: tuple[GuideColumn, ...]


def guide(table: str | None = None) -> tuple[GuideTable, ...]:
    """All tables and views, or those that are called so. Raises UsageError that names the nearest."""
    every = (*_today(), *_lineage_tables(), *_lineage_views())
    if table is None:
        return every
    asked = table.lower()
    found = tuple(one for one in every if asked in (one.name, f"{one.schema}.{one.name}", one.name.rpartition(".")[2]))
    if not found:
        near = get_close_matches(asked, [one.name for one in every], n=5, cutoff=0.4)
        hint = f"the nearest are {', '.join(near)}" if near else "corpusgen query --schema names them all"
        raise UsageError(f"no table or view is called {table!r}; {hint}")
    return found


def guide_json(table: str | None = None) -> dict[str, Json]:
    """The guide for --json."""
    tables = [{**asdict(one), "columns": [asdict(column) for column in one.columns]} for one in guide(table)]
    examples = [{"question": question, "sql": sql} for question, sql in guide_words.EXAMPLES]
    return {"tables": tables, "examples": examples, "notice": NOTICE}


def guide_lines(table: str | None = None) -> Iterator[str]:
    """The guide for people."""
    for one in guide(table):
        yield f"{one.name}  ({'view' if one.view else 'table'}; {one.prov} in PROV)"
        yield f"  {one.meaning}"
        name = max(len(column.name) for column in one.columns)
        kind = max(len(_short(column.type)) for column in one.columns)
        for column in one.columns:
            told = f"{column.meaning}{' (may be empty)' if column.optional else ''}"
            yield f"    {column.name:<{name}}  {_short(column.type):<{kind}}  {told}"
        yield ""
    if table is None:
        yield from _ending()


def _ending() -> Iterator[str]:
    yield "Times are UTC, money is millionths of a dollar. Join by columns in _no; lower(hex(...)) shows a BLOB."
    yield ""
    for question, sql in guide_words.EXAMPLES:
        yield f"-- {question}"
        yield from (*f"{sql};".splitlines(), "")
    yield NOTICE


def _short(kind: str) -> str:
    return "STRUCT[]" if kind.startswith("STRUCT") else kind


def _today() -> Iterator[GuideTable]:
    columns = {"records": [(field.name, field.type) for field in SCHEMA]}
    columns |= {name: found for name, (_, found) in TABLES.items()}
    for name, (prov, meaning) in guide_words.TABLES.items():
        told = tuple(GuideColumn(name=one, type=_sql(kind), meaning=_says(name, one)) for one, kind in columns[name])
        yield GuideTable(name=name, schema="main", view=False, prov=prov, meaning=meaning, columns=told)


def _lineage_tables() -> Iterator[GuideTable]:
    for table in lineage.TABLES.values():
        columns = tuple(_lineage_column(table.name, column) for column in table.columns)
        name = f"lineage.{table.name}" if table.name in guide_words.TABLES else table.name
        yield GuideTable(
            name=name, schema="lineage", view=False, prov=table.prov, meaning=table.meaning, columns=columns
        )


def _lineage_column(table: str, column: lineage.Column) -> GuideColumn:
    meaning = column.meaning or _says(f"lineage.{table}", column.name)
    return GuideColumn(name=column.name, type=_sql(column.type), meaning=meaning, optional=column.optional)


def _lineage_views() -> Iterator[GuideTable]:
    for name in lineage.VIEWS:
        prov, meaning, columns = guide_words.VIEWS[name]
        told = tuple(one for column, of in columns.items() for one in _view_columns(column, of))
        yield GuideTable(name=name, schema="lineage", view=True, prov=prov, meaning=meaning, columns=told)


def _view_columns(name: str, of: str) -> Iterator[GuideColumn]:
    table, _, other = of.partition(".")
    for column in lineage.TABLES[table].columns:
        if name == "*":
            yield _lineage_column(table, column)
        elif column.name == (other or name):
            meaning = guide_words.VIEW_COLUMNS.get(name) or column.meaning or _says(f"lineage.{table}", name)
            yield GuideColumn(name=name, type=_sql(column.type), meaning=meaning, optional=column.optional)


def _says(table: str, column: str) -> str:
    return guide_words.SPECIAL.get((table, column)) or guide_words.COLUMNS[column]


def _sql(kind: pa.DataType) -> str:
    """The type as DuckDB names it."""
    if pa.types.is_timestamp(kind):
        return "TIMESTAMP"
    if pa.types.is_list(kind):
        return f"{_sql(kind.value_type)}[]"
    if pa.types.is_struct(kind):
        return f"STRUCT({', '.join(f'{_named(field.name)} {_sql(field.type)}' for field in kind)})"
    return _TYPES[kind]


def _named(name: str) -> str:
    return f'"{name}"' if name in ("check", "content", "role") else name
