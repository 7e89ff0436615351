"""Runs: submitted, planned, watched and cancelled."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from corpusgen.records import Json
from corpusgen.serve.api.models import (
    ExplanationTold,
    PlanTold,
    RunQuery,
    RunsTold,
    RunTold,
    RunWanted,
    RunWatched,
    Submitted,
    TasksTold,
    TaskTold,
    TaskWanted,
)
from corpusgen.serve.api.saying import aside, said
from corpusgen.serve.callers import Caller
from corpusgen.serve.reading import body_of, query_of
from corpusgen.serve.routes import Operation, caller_of
from corpusgen.serve.runs import told
from corpusgen.serve.service import Service, service_of
from corpusgen.serve.slowly import PLANNING
from corpusgen.serve.submitted import Wanted, looked_at

MOST_BYTES: Final = 16 << 20
"""A spec with its seeds."""


async def list_tasks(request: web.Request) -> web.Response:
    """Tasks of the tasks folder and those that come with corpusgen."""
    found = await aside(service_of(request).runs.tasks)
    return said(TasksTold(tasks=[TaskTold(**one) for one in found]))


async def submit_run(request: web.Request) -> web.Response:
    """Begin a run, or plan it."""
    wish = await body_of(request, RunWanted)
    runs, caller, caps = service_of(request).runs, caller_of(request), wish.budget.by_unit()
    if wish.dry_run:
        return said(Submitted(run=None, plan=PlanTold(**await runs.plan(wanted_of(wish), caller, caps))))
    made = await runs.submit(wanted_of(wish), caller, caps)
    return said(Submitted(run=RunTold(**told(made)), plan=None))


def wanted_of(wish: TaskWanted) -> Wanted:
    """The task that a body names."""
    return Wanted(task=wish.task, spec=wish.spec, files=wish.files)


async def list_runs(request: web.Request) -> web.Response:
    """Submitted runs, the newest first."""
    query = query_of(request, RunQuery)
    found = service_of(request).runs.list(limit=query.limit, before=query.before)
    return said(RunsTold(runs=[RunTold(**told(one)) for one in found]))


async def show_run(request: web.Request) -> web.Response:
    """One run and how far it is."""
    runs, named = service_of(request).runs, request.match_info["run"]
    found = await aside(runs.watch, named)
    return said(RunWatched(**found, spec=runs.find(named).spec))


async def cancel_run(request: web.Request) -> web.Response:
    """End a run; calls in flight are waited for and kept."""
    ended = await service_of(request).runs.cancel(request.match_info["run"], caller_of(request))
    return said(RunTold(**told(ended)))


async def explain_task(request: web.Request) -> web.Response:
    """What the terms say of a task's teachers, document by document."""
    service, wish = service_of(request), await body_of(request, TaskWanted)
    found = await PLANNING(caller_of(request), _explained, service, wanted_of(wish), caller_of(request))
    return said(ExplanationTold(**found))


def _explained(service: Service, wanted: Wanted, caller: Caller) -> dict[str, Json]:
    from corpusgen.stages.terms.explaining import explained

    with looked_at(service.runs.rules, wanted, caller) as held:
        return explained(service.corpus, held.task).to_json()


OPERATIONS: Final = (
    Operation(
        method="GET",
        path="/api/v1/tasks",
        handler=list_tasks,
        scope="read",
        summary="Tasks that may be submitted by name",
        answer=TasksTold,
        tag="runs",
    ),
    Operation(
        method="POST",
        path="/api/v1/runs",
        handler=submit_run,
        scope="ask",
        summary="Submit a run, or with dry_run have it planned and priced without sending anything",
        body=RunWanted,
        answer=Submitted,
        most_bytes=MOST_BYTES,
        tag="runs",
    ),
    Operation(
        method="GET",
        path="/api/v1/runs",
        handler=list_runs,
        scope="read",
        summary="Submitted runs, the newest first",
        query=RunQuery,
        answer=RunsTold,
        tag="runs",
    ),
    Operation(
        method="GET",
        path="/api/v1/runs/{run}",
        handler=show_run,
        scope="read",
        summary="One run: state, counts, rate, money, tokens, savings, drops, time left",
        answer=RunWatched,
        tag="runs",
    ),
    Operation(
        method="POST",
        path="/api/v1/runs/{run}/cancel",
        handler=cancel_run,
        scope="ask",
        summary="End a run; calls in flight are waited for and kept",
        answer=RunTold,
        tag="runs",
    ),
    Operation(
        method="POST",
        path="/api/v1/policy/explain",
        handler=explain_task,
        scope="read",
        summary="What the terms say of a task, teacher by teacher and document by document",
        body=TaskWanted,
        answer=ExplanationTold,
        most_bytes=MOST_BYTES,
        tag="rights",
    ),
)
