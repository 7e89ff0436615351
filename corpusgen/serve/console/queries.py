"""A question in SQL over the corpus, with the guide to what can be asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aiohttp import web

from corpusgen.corpus import Corpus
from corpusgen.errors import QueryError
from corpusgen.serve.console.aside import aside, slowly
from corpusgen.serve.console.auditing import KINDS, attachment
from corpusgen.serve.console.forms import fields_of
from corpusgen.serve.console.pages import page
from corpusgen.serve.routes import caller_of
from corpusgen.serve.service import service_of
from corpusgen.stages.lineage.guide_words import EXAMPLES

if TYPE_CHECKING:
    from corpusgen.stages.lineage.guide import GuideTable
    from corpusgen.store.query import QueryResult
    from corpusgen.store.tabulate import Format

SHOWN: Final = 200
SECONDS: Final = 20
MEMORY_MB: Final = 1024


async def form(request: web.Request) -> web.StreamResponse:
    """Where a question is written."""
    return await _page(request, "", None, "")


async def ask(request: web.Request) -> web.StreamResponse:
    """Its answer, on the page or as a file. Nothing is changed by asking, so nothing is redirected."""
    fields, corpus = await fields_of(request), service_of(request).corpus
    sql, kind = fields.get("sql", ""), fields.get("as", "")
    try:
        found = await slowly(request, _asked, corpus, sql, legal=caller_of(request).may("legal"))
    except QueryError as error:
        return await _page(request, sql, None, str(error))
    if kind in KINDS:
        format_, content_type = KINDS[kind]
        return attachment(await aside(_written, found, format_), f"answer.{kind}", content_type)
    return await _page(request, sql, found, "")


def _asked(corpus: Corpus, sql: str, *, legal: bool) -> QueryResult:
    from corpusgen.stages.sql import ask_sql
    from corpusgen.store.query import QueryLimits

    return ask_sql(corpus, sql, QueryLimits(seconds=SECONDS, memory_mb=MEMORY_MB), legal=legal)


def _written(found: QueryResult, kind: Format) -> bytes:
    from corpusgen.store.tabulate import tabulate

    return tabulate(found, kind).encode()


def _guide() -> tuple[GuideTable, ...]:
    from corpusgen.stages.lineage.guide import guide

    return guide()


async def _page(request: web.Request, sql: str, found: QueryResult | None, refused: str) -> web.Response:
    return page(
        request,
        "query.html",
        status=400 if refused else 200,
        sql=sql,
        answer=found,
        rows=[] if found is None else found.rows[:SHOWN],
        count=0 if found is None else found.table.num_rows,
        shown=SHOWN,
        refused=refused,
        tables=await aside(_guide),
        examples=EXAMPLES,
        seconds=SECONDS,
    )
