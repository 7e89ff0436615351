"""Tokens: who may come in; a new one's secret is shown once, in the answer to the form that made it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

from aiohttp import web

from corpusgen.errors import UsageError
from corpusgen.fields import Per
from corpusgen.serve.callers import SCOPES
from corpusgen.serve.console.aside import aside
from corpusgen.serve.console.forms import caps_in, fields_of, on, see, whole_number
from corpusgen.serve.console.money import PERIODS
from corpusgen.serve.console.pages import page
from corpusgen.serve.routes import caller_of
from corpusgen.serve.service import service_of
from corpusgen.serve.tokens import MOST_DAYS, Wish, create, listed, revoke

_FIELDS: Final = ("name", "user", "days", "task", "usd", "tokens", "requests", "per")


async def tokens(request: web.Request) -> web.StreamResponse:
    """Every token there ever was, and a form for another."""
    return await _tokens(request, {})


async def _tokens(
    request: web.Request, filled: Mapping[str, str], refused: str = "", made: tuple[Any, str] | None = None
) -> web.StreamResponse:
    corpus = service_of(request).corpus
    now = corpus.clock()
    found = await aside(listed, corpus)
    kept = {} if made else filled
    return page(
        request,
        "tokens.html",
        status=400 if refused else 200,
        tokens=[(one, one.state(now)) for one in reversed(found)],
        scopes=SCOPES,
        ticked=[scope for scope in SCOPES if on(kept, f"scope_{scope}")] or ["ask"],
        periods=PERIODS,
        most_days=MOST_DAYS,
        filled={name: kept.get(name, "") for name in _FIELDS},
        refused=refused,
        made=made,
        first=not found,
    )


async def make(request: web.Request) -> web.StreamResponse:
    """A new token. The answer is the page itself: a secret that is shown once cannot wait behind a redirect."""
    fields, service = await fields_of(request), service_of(request)
    try:
        wish = _wish(fields)
        made = await aside(lambda: create(service.corpus, wish, by=caller_of(request).user))
    except UsageError as error:
        return await _tokens(request, fields, str(error))
    service.tokens.look_again()
    return await _tokens(request, fields, made=made)


def _wish(fields: Mapping[str, str]) -> Wish:
    per = fields.get("per", "") or "total"
    if per not in PERIODS:
        raise UsageError(f"{per!r:.20} is not one of {', '.join(PERIODS)}")
    return Wish(
        name=fields.get("name", ""),
        user=fields.get("user", ""),
        scopes=tuple(scope for scope in SCOPES if on(fields, f"scope_{scope}")),
        days=whole_number(fields, "days", MOST_DAYS),
        task=fields.get("task") or None,
        caps=caps_in(fields) or None,
        per=cast("Per", per),
    )


async def unmake(request: web.Request) -> web.StreamResponse:
    """Let a token be worth nothing from now on."""
    await fields_of(request)
    service = service_of(request)
    await aside(revoke, service.corpus, request.match_info["token"], by=caller_of(request).user)
    service.runs.look_again()
    service.tokens.look_again()
    return see("/console/tokens")
