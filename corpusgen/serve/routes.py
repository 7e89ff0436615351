"""The table of what the service answers to; routing, rights, limits and the OpenAPI document are all read from it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from aiohttp import web
from pydantic import BaseModel

from corpusgen.serve.callers import Caller, Scope

Method: TypeAlias = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]
Shape: TypeAlias = Literal["api", "openai", "anthropic", "page"]
"""In whose words errors are told: our own JSON, OpenAI's, Anthropic's, or a page."""

CALLER: web.RequestKey[Caller] = web.RequestKey("caller", Caller)
"""Who calls, put there by the gate before a handler runs."""


def caller_of(request: web.Request) -> Caller:
    """Who asks."""
    return request[CALLER]


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One method at one path."""

    method: Method
    path: str
    """As aiohttp writes it: ``/api/v1/runs/{run}``."""
    handler: Handler
    scope: Scope | None
    """What a caller must be allowed; None: anybody, such as ``/healthz``."""
    summary: str
    shape: Shape = "api"
    body: type[BaseModel] | None = None
    """What is sent; read with ``serve.reading.body_of``."""
    query: type[BaseModel] | None = None
    """Query parameters; others are refused."""
    answer: type[BaseModel] | None = None
    """What comes back with ``status``; None: something else than JSON, said by ``content_type``."""
    status: int = 200
    content_type: str = "application/json"
    takes: tuple[str, ...] = ("application/json",)
    """Content types of bodies; a page's forms take ``application/x-www-form-urlencoded``."""
    most_bytes: int = 1 << 20
    """The largest body."""
    most_s: float = 30.0
    """How long a body may take to arrive."""
    tag: str = "service"
    hidden: bool = False
    """Not in the OpenAPI document: pages, and what vendors have described themselves."""


OPERATION: web.RequestKey[Operation] = web.RequestKey("operation", Operation)
"""What a request asks for, put there with the caller."""


def of_vendor(
    method: Method, path: str, handler: Handler, summary: str, shape: Shape, most: int = 1 << 20
) -> Operation:
    """One of the gateway's addresses, which the vendor has described."""
    return Operation(
        method=method,
        path=path,
        handler=handler,
        scope="ask",
        summary=summary,
        shape=shape,
        most_bytes=most,
        tag="gateway",
        hidden=True,
    )
