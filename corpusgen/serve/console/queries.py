"""A question in SQL over the corpus, with the guide to what can be asked."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from corpusgen.errors import QueryError
from corpusgen.serve.console.aside import aside
from corpusgen.serve.console.auditing import KINDS, attachment
from corpusgen.serve.console.forms import fields_of, service_of
from corpusgen.serve.console.pages import page
from corpusgen.stages.guide import guide
from corpusgen.stages.guide_words import EXAMPLES
from corpusgen.stages.looking import ask_sql
from corpusgen.store.query import QueryLimits, QueryResult
from corpusgen.store.tabulate import tabulate

SHOWN: Final = 200
LIMITS: Final = QueryLimits(seconds=20, memory_mb=1024)


async def form(request: web.Request) -> web.StreamResponse:
    """Where a question is written."""
    return _page(request, "", None, "")


async def ask(request: web.Request) -> web.StreamResponse:
    """Its answer, on the page or as a file. Nothing is changed by asking, so nothing is redirected."""
    fields, corpus = await fields_of(request), service_of(request).corpus
    sql, kind = fields.get("sql", ""), fields.get("as", "")
    try:
        found = await aside(ask_sql, corpus, sql, LIMITS)
    except QueryError as error:
        return _page(request, sql, None, str(error))
    if kind in KINDS:
        format_, content_type = KINDS[kind]
        return attachment(tabulate(found, format_).encode(), f"answer.{kind}", content_type)
    return _page(request, sql, found, "")


def _page(request: web.Request, sql: str, found: QueryResult | None, refused: str) -> web.Response:
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
        tables=guide(),
        examples=EXAMPLES,
        seconds=LIMITS.seconds,
    )
