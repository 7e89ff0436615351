"""What goes wrong, told as a page; the gate calls it for whatever a page raises."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from aiohttp import web

from corpusgen.serve.console.pages import page
from corpusgen.serve.routes import CALLER
from corpusgen.serve.statuses import KINDS, Refused

_TOLD: Final[Mapping[int, str]] = {
    400: "That cannot be done",
    401: "Log in first",
    402: "The budget does not allow it",
    403: "Not allowed",
    404: "Not found",
    405: "Not done this way",
    409: "Not as things are now",
    413: "Too large",
    415: "Not in this form",
    429: "Too many at once",
    500: "Something is wrong here",
    503: "Not now",
}


def error_page(request: web.Request, error: Refused) -> web.Response:
    """The page for a request that is refused; whoever is not logged in is sent to where they can."""
    if error.status == 401 and request.method == "GET" and CALLER not in request:
        return web.Response(status=303, headers={"Location": "/console/login", "Cache-Control": "no-store"})
    title = _TOLD.get(error.status, KINDS.get(error.status, "Refused"))
    made = page(
        request,
        "error.html",
        status=error.status,
        title=title,
        message=str(error),
        problems=error.problems,
    )
    made.headers.update(error.headers)
    return made
