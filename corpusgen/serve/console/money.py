"""Budgets: what every scope has used of its caps, and a form that sets them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, cast

from aiohttp import web

from corpusgen.corpus import Corpus
from corpusgen.errors import UsageError
from corpusgen.fields import Per, Unit
from corpusgen.serve.callers import Caller
from corpusgen.serve.console.aside import aside
from corpusgen.serve.console.charts import budget_bars
from corpusgen.serve.console.forms import CAPS, caps_in, fields_of, on, see
from corpusgen.serve.console.pages import page
from corpusgen.serve.reading import parameters_of
from corpusgen.serve.routes import caller_of
from corpusgen.serve.service import service_of
from corpusgen.stages.budgeting import set_budget
from corpusgen.stages.looking import budget_status

PERIODS: Final = ("total", "day", "month")
MOST: Final = 200
"""Balances on a page; a search finds the others."""


async def budgets(request: web.Request) -> web.StreamResponse:
    """Every balance with its cap, and the form."""
    return await _budgets(request, parameters_of(request), "")


async def _budgets(request: web.Request, asked: Mapping[str, str], refused: str) -> web.StreamResponse:
    corpus = service_of(request).corpus
    found = (await aside(budget_status, corpus))["balances"]
    words = asked.get("find", "").casefold()
    kept = [one for one in found if words in one["scope"].casefold()]
    shown = sorted(kept, key=lambda one: (one["cap"] is None, one["scope"].startswith("run:")))[:MOST]
    capped = [one for one in shown if one["cap"] is not None]
    return page(
        request,
        "budgets.html",
        status=400 if refused else 200,
        bars=budget_bars(capped),
        balances=shown,
        more=len(kept) - len(shown),
        scopes=sorted({one["scope"].partition("@")[0] for one in found} | {"corpus", "service"}),
        periods=PERIODS,
        asked={name: asked.get(name, "") for name in ("find", "scope", "per", *CAPS)},
        refused=refused,
    )


async def edit(request: web.Request) -> web.StreamResponse:
    """Set caps, or take them away."""
    fields = await fields_of(request)
    try:
        await aside(_set, service_of(request).corpus, fields, caller_of(request))
    except UsageError as error:
        return await _budgets(request, fields, str(error))
    return see("/console/budgets")


def _set(corpus: Corpus, fields: Mapping[str, str], caller: Caller) -> None:
    caps: dict[Unit, int | None] = {**caps_in(fields)}
    caps |= {unit: None for name, unit in CAPS.items() if on(fields, f"no_{name}")}
    per = fields.get("per", "total")
    if not caps:
        raise UsageError("write at least one cap, or tick one to be taken away")
    if per not in PERIODS:
        raise UsageError(f"{per!r:.20} is not one of {', '.join(PERIODS)}")
    set_budget(corpus, fields.get("scope", ""), caps, per=cast("Per", per), by=caller.user)
