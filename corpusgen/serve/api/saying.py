"""How handlers of the API answer: models as JSON, blocking work in threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from aiohttp import web
from pydantic import BaseModel

from corpusgen.serve.callers import Caller
from corpusgen.serve.routes import CALLER, OPERATION
from corpusgen.serve.service import SERVICE, Service

P = ParamSpec("P")
T = TypeVar("T")


def said(model: BaseModel, *, status: int = 200) -> web.Response:
    """An answer of the API."""
    return web.Response(body=model.model_dump_json().encode(), status=status, content_type="application/json")


def service_of(request: web.Request) -> Service:
    """The service that was asked."""
    return request.app[SERVICE]


def caller_of(request: web.Request) -> Caller:
    """Who asks."""
    return request[CALLER]


def status_of(request: web.Request) -> int:
    """The status that the operation promises."""
    return request[OPERATION].status


async def aside(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What blocking work gives, done in a thread so that nobody else waits for it."""
    return await asyncio.to_thread(work, *args, **kwargs)
