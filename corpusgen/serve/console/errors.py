"""What goes wrong, told as a page."""

from __future__ import annotations

from collections.abc import Mapping
from functools import wraps
from typing import Final

from aiohttp import web

from corpusgen.errors import CorpusgenError
from corpusgen.serve.console.pages import page
from corpusgen.serve.gate import hidden_from
from corpusgen.serve.routes import CALLER, Handler
from corpusgen.serve.statuses import KINDS, Refused, as_refused

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


def told_as_page(handler: Handler) -> Handler:
    """A handler whose refusals are pages."""

    @wraps(handler)
    async def answered(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except CorpusgenError as error:
            return error_page(request, as_refused(error, hidden=hidden_from(request)))
        except web.HTTPNotFound:
            return error_page(request, Refused(404, "There is no such page."))

    return answered
