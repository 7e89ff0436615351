"""Everything the console answers to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, create_model

from corpusgen.provenance.questions import questions
from corpusgen.serve.callers import Scope
from corpusgen.serve.console import (
    access,
    auditing,
    batches,
    datasets,
    entering,
    money,
    overview,
    queries,
    records,
    rights,
    runs,
    starting,
    students,
    styles,
)
from corpusgen.serve.console.forms import FORM
from corpusgen.serve.routes import Handler, Operation


def _query(name: str, *fields: str) -> type[BaseModel]:
    """The query parameters of a page, all of them text that may be left out."""
    told: dict[str, Any] = dict.fromkeys(fields, (str, ""))
    return create_model(name, __config__=ConfigDict(extra="forbid"), **told)


_RUNS: Final = _query("RunsQuery", "before")
_BATCHES: Final = _query("BatchesQuery", "before")
_PLAN: Final = _query("PlanQuery", "task", "usd", "tokens", "requests", "limit")
_RECORDS: Final = _query(
    "RecordsQuery", "record", "task", "split", "teacher", "user", "text", "reasoning", "tools", "from"
)
_AUDIT: Final = _query("AuditQuery", "ask", *sorted({one.name for q in questions().values() for one in q.parameters}))
_RIGHTS: Final = _query("RightsQuery", "outcome", "before")
_EXPLAIN: Final = _query("ExplainQuery", "task", "on")
_TERMS: Final = _query("TermsQuery", "find", "stale")
_BUDGETS: Final = _query("BudgetsQuery", "find", "scope")


def operations() -> Iterable[Operation]:
    """The table of its pages and forms."""
    return [*_open(), *_reading(), *_legal(), *_acting()]


def _page(
    path: str, handler: Handler, summary: str, scope: Scope | None = "read", query: type[BaseModel] | None = None
) -> Operation:
    return Operation(
        method="GET",
        path=f"/console{path}",
        handler=handler,
        scope=scope,
        summary=summary,
        shape="page",
        query=query,
        content_type="text/html",
        tag="console",
        hidden=True,
    )


def _form(
    path: str,
    handler: Handler,
    summary: str,
    scope: Scope | None,
    *,
    takes: tuple[str, ...] = FORM,
    most_bytes: int = 64 << 10,
) -> Operation:
    return Operation(
        method="POST",
        path=f"/console{path}",
        handler=handler,
        scope=scope,
        summary=summary,
        shape="page",
        status=303,
        content_type="text/html",
        takes=takes,
        most_bytes=most_bytes,
        tag="console",
        hidden=True,
    )


def _open() -> Iterator[Operation]:
    yield _page("/login", entering.login_form, "Where a token is shown", None)
    yield _form("/login", entering.login, "Log in", None)
    yield _page("/static/{digest}/{name}", styles.static, "Style sheet, script and icon", None)


def _reading() -> Iterator[Operation]:
    yield _page("", overview.overview, "What is going on")
    yield _page("/live", overview.live, "The part of it that changes")
    yield _page("/about", entering.about, "Versions")
    yield _page("/runs", runs.runs, "Runs", query=_RUNS)
    yield _page("/runs/{run}", runs.run, "A run")
    yield _page("/runs/{run}/live", runs.live, "The part of it that changes")
    yield _page("/runs/{run}/coverage", runs.cover, "What a run's questions cover")
    yield _page("/runs/{run}/report", runs.report, "A run's report")
    yield _page("/batches", batches.batches, "Batches of callers", query=_BATCHES)
    yield _page("/start", starting.choose, "Tasks to start", "ask")
    yield _page("/start/plan", starting.plan, "What a run would cost", "ask", _PLAN)
    yield _page("/records", records.browser, "Records", query=_RECORDS)
    yield _page("/records/{record}", records.record, "A record")
    yield _page("/records/{record}/why", records.why, "A record's story")
    yield _page("/datasets", datasets.datasets, "Datasets")
    yield _page("/datasets/{dataset}", datasets.dataset, "A dataset")
    yield _page("/students", students.students, "Students")
    yield _page("/students/{student}", students.student, "A student")
    yield _page("/budgets", money.budgets, "Budgets", query=_BUDGETS)
    yield _page("/query", queries.form, "A question in SQL")
    yield _page("/tokens", access.tokens, "Tokens", "admin")


def _legal() -> Iterator[Operation]:
    yield _page("/audit", auditing.every, "Audit questions", "legal")
    yield _page("/audit/{question}", auditing.ask, "An audit question", "legal", _AUDIT)
    yield _page("/audit/{question}/answer.{kind}", auditing.download, "Its answer as a file", "legal", _AUDIT)
    yield _page("/rights", rights.decisions, "Decisions", "legal", _RIGHTS)
    yield _page("/rights/decisions/{decision}", rights.decision, "A decision", "legal")
    yield _page("/rights/explain", rights.explain, "What the terms say of a task", "legal", _EXPLAIN)
    yield _page("/rights/waivers", rights.waiver_list, "Waivers", "legal")
    yield _page("/rights/terms", rights.terms, "Terms documents", "legal", _TERMS)
    yield _page("/rights/terms/{terms}", rights.document, "A terms document", "legal")


def _acting() -> Iterator[Operation]:
    yield _form("/logout", entering.logout, "Log out", "read")
    yield _form("/theme", entering.theme, "Light or dark", "read")
    yield _form("/start", starting.start, "Start a run", "ask")
    yield _form("/runs/{run}/cancel", runs.cancel, "Cancel a run", "ask")
    yield _form("/query", queries.ask, "Ask in SQL", "read")
    yield _form("/datasets/{dataset}/export", datasets.export, "Export a dataset", "read")
    yield _form(
        "/rights/waivers", rights.waive, "Grant a waiver", "legal", takes=rights.UPLOAD, most_bytes=rights.MOST_EVIDENCE
    )
    yield _form("/rights/waivers/{waiver}/end", rights.unwaive, "Take a waiver back", "legal")
    yield _form("/budgets", money.edit, "Set caps", "admin")
    yield _form("/tokens", access.make, "Make a token", "admin")
    yield _form("/tokens/{token}/revoke", access.unmake, "Revoke a token", "admin")
