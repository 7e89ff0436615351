"""Coming in and going out, the theme, and what this is."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import Final

from aiohttp import web

from corpusgen.journal_tables import JOURNAL_VERSION
from corpusgen.records import SCHEMA_VERSION
from corpusgen.serve.console.forms import fields_of, see
from corpusgen.serve.console.pages import THEME, THEMES, page
from corpusgen.serve.gate import SETTINGS, failed_login
from corpusgen.serve.reading import form_of
from corpusgen.serve.routes import CALLER
from corpusgen.serve.service import service_of
from corpusgen.serve.sessions import COOKIE, SESSIONS

_YEAR_S: Final = 365 * 24 * 3600


async def login_form(request: web.Request) -> web.StreamResponse:
    """Where a token is shown."""
    return page(request, "login.html", refused="")


async def login(request: web.Request) -> web.StreamResponse:
    """A session for whoever shows a token that is worth something."""
    # There is no session yet, so there is no guard: the Origin of the request is what the gate goes by.
    secret = (await form_of(request)).get("token", "").strip()
    caller = service_of(request).tokens.caller_of(secret)
    if caller is None:
        failed_login(request)
        refused = "This token is not known here, has expired, or was revoked."
        return page(request, "login.html", status=403, refused=refused)
    response = see("/console")
    request.app[SESSIONS].begin(caller, response)
    return response


async def logout(request: web.Request) -> web.StreamResponse:
    """The end of a session."""
    await fields_of(request)
    response = see("/console/login")
    request.app[SESSIONS].end(request.cookies.get(COOKIE, ""), response)
    return response


async def theme(request: web.Request) -> web.StreamResponse:
    """Light, dark, or as the browser has it."""
    wanted = (await fields_of(request)).get("theme", "")
    response = see("/console")
    if wanted in THEMES:
        secure = request.app[SETTINGS].secure
        response.set_cookie(THEME, wanted, max_age=_YEAR_S, samesite="Strict", secure=secure, path="/console")
    else:
        response.del_cookie(THEME, path="/console")
    return response


async def about(request: web.Request) -> web.StreamResponse:
    """Versions, and what the service is over."""
    service, caller = service_of(request), request[CALLER]
    facts = [
        ("Version", version("corpusgen-distill")),
        ("Journal", f"version {JOURNAL_VERSION}"),
        ("Records", f"schema {SCHEMA_VERSION}"),
        ("Python", platform.python_version()),
        ("Corpus", str(service.corpus.folder)),
        ("Running since", service.started),
        ("You are", caller.user),
        ("You may", ", ".join(sorted(caller.scopes))),
    ]
    return page(request, "about.html", facts=facts)
