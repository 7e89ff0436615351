"""The first page: what is going on, drawn anew every two seconds while somebody looks."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from corpusgen.serve.console.aside import aside
from corpusgen.serve.console.charts import budget_bars, burn_down
from corpusgen.serve.console.pages import HEADERS, page, rendered
from corpusgen.serve.console.submissions import under_way
from corpusgen.serve.console.watching import look
from corpusgen.serve.service import Service, service_of


async def overview(request: web.Request) -> web.StreamResponse:
    """The whole page."""
    return page(request, "overview.html", **await aside(_figures, service_of(request)))


async def live(request: web.Request) -> web.StreamResponse:
    """The part of it that changes."""
    values = await aside(_figures, service_of(request))
    return fragment(request, "overview_live.html", **values)


def fragment(request: web.Request, template: str, **values: Any) -> web.Response:
    """A part of a page, for the script that puts it in the place of what was there."""
    return web.Response(text=rendered(request, template, **values), content_type="text/html", headers=HEADERS)


def _figures(service: Service) -> dict[str, Any]:
    now, meter = look(service.corpus), service.meter
    return {
        "now": now,
        "asked": service.corpus.clock(),
        "requests": int(meter.value("corpusgen_requests_in_flight")),
        "streams": int(meter.value("corpusgen_streams_open")),
        "submitted": under_way(service.corpus),
        "stopping": service.stopping.is_set(),
        "burn": burn_down(now.burn),
        "bars": budget_bars(now.balances),
    }
