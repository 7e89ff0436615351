"""SQL questions, run in a child process that can be killed and reaches nothing."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Final

import orjson
from aiohttp import web

from corpusgen.corpus import Corpus
from corpusgen.errors import UsageError
from corpusgen.serve.api.models import QueryAsked, QueryTold, SchemaQuery, SchemaTold
from corpusgen.serve.api.saying import aside, said
from corpusgen.serve.reading import body_of, query_of
from corpusgen.serve.routes import Operation, caller_of
from corpusgen.serve.service import service_of
from corpusgen.serve.slowly import READING
from corpusgen.serve.statuses import NoSuch

if TYPE_CHECKING:
    from corpusgen.store.query import QueryResult

CONTENT_TYPES: Final = {
    "jsonl": "application/jsonl",
    "csv": "text/csv",
    "parquet": "application/vnd.apache.parquet",
}
MEMORY_MB: Final = 1024


async def ask(request: web.Request) -> web.Response:
    """Answer one SQL question."""
    wish, corpus, caller = await body_of(request, QueryAsked), service_of(request).corpus, caller_of(request)
    result = await READING(caller, _answered, corpus, wish, legal=caller.may("legal"))
    if wish.format == "json":
        return said(await aside(_told, result))
    body = await aside(_written, result, wish.format)
    headers = {
        "X-Corpusgen-Truncated": str(result.truncated).lower(),
        "Content-Disposition": f'attachment; filename="answer.{wish.format}"',
    }
    return web.Response(body=body, content_type=CONTENT_TYPES[wish.format], headers=headers)


def _answered(corpus: Corpus, wish: QueryAsked, *, legal: bool) -> QueryResult:
    from corpusgen.stages.sql import ask_sql
    from corpusgen.store.query import QueryLimits

    limits = QueryLimits(seconds=wish.seconds, rows=wish.rows, memory_mb=MEMORY_MB)
    return ask_sql(corpus, wish.sql, limits, legal=legal)


def _told(result: QueryResult) -> QueryTold:
    from corpusgen.store.tabulate import distinct, tabulate

    rows = orjson.loads(tabulate(result, "json"))
    columns = distinct(result.columns)
    return QueryTold(columns=columns, types=list(result.types), rows=rows, truncated=result.truncated)


def _written(result: QueryResult, kind: str) -> bytes:
    from corpusgen.store.tabulate import distinct, tabulate

    if kind != "parquet":
        return tabulate(result, "jsonl" if kind == "jsonl" else "csv").encode()
    import pyarrow.parquet as pq

    file = io.BytesIO()
    pq.write_table(result.table.rename_columns(distinct(result.columns)), file, compression="zstd")
    return file.getvalue()


async def schema(request: web.Request) -> web.Response:
    """What can be asked: tables, views and their columns."""
    query = query_of(request, SchemaQuery)
    try:
        return said(await aside(_schema, query.table))
    except UsageError as error:
        raise NoSuch(str(error)) from error


def _schema(table: str | None) -> SchemaTold:
    from corpusgen.stages.lineage.guide import guide_json

    return SchemaTold(**guide_json(table))


OPERATIONS: Final = (
    Operation(
        method="POST",
        path="/api/v1/query",
        handler=ask,
        scope="read",
        summary="One SQL question over records, money and lineage; over decisions and waivers with the scope legal",
        body=QueryAsked,
        answer=QueryTold,
        tag="query",
    ),
    Operation(
        method="GET",
        path="/api/v1/query/schema",
        handler=schema,
        scope="read",
        summary="Tables, views and columns that can be asked",
        query=SchemaQuery,
        answer=SchemaTold,
        tag="query",
    ),
)
