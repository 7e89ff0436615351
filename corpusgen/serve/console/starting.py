"""Starting a run without YAML: a task is chosen, its price and what the terms say are shown, then it is started."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from aiohttp import web

from corpusgen.errors import CorpusgenError
from corpusgen.fields import Unit
from corpusgen.serve.console.aside import aside
from corpusgen.serve.console.forms import caps_in, fields_of, see, whole_number
from corpusgen.serve.console.pages import page
from corpusgen.serve.reading import parameters_of
from corpusgen.serve.routes import caller_of
from corpusgen.serve.service import service_of
from corpusgen.serve.submitted import Wanted

MOST_ITEMS: Final = 10_000_000


async def choose(request: web.Request) -> web.StreamResponse:
    """The tasks there are."""
    tasks = await aside(service_of(request).runs.tasks)
    return page(request, "start.html", tasks=tasks)


async def plan(request: web.Request) -> web.StreamResponse:
    """What a run would cost and whether it may be; nothing is sent."""
    asked = parameters_of(request)
    made, refused = None, ""
    try:
        wanted, caps = _wanted(asked)
        made = await service_of(request).runs.plan(wanted, caller_of(request), caps)
    except CorpusgenError as error:
        refused = str(error)
    values: dict[str, Any] = {name: asked.get(name, "") for name in ("task", "usd", "tokens", "requests", "limit")}
    return page(request, "plan.html", status=400 if refused else 200, plan=made, refused=refused, asked=values)


async def start(request: web.Request) -> web.StreamResponse:
    """Submit it."""
    fields = await fields_of(request)
    wanted, caps = _wanted(fields)
    made = await service_of(request).runs.submit(wanted, caller_of(request), caps)
    return see(f"/console/runs/{made.id}")


def _wanted(fields: Mapping[str, str]) -> tuple[Wanted, dict[Unit, int]]:
    limit = whole_number(fields, "limit", MOST_ITEMS)
    return Wanted(task=fields.get("task", ""), limit=limit), caps_in(fields)
