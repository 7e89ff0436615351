"""How handlers of the API answer: models as JSON, blocking work in threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from aiohttp import web
from pydantic import BaseModel

P = ParamSpec("P")
T = TypeVar("T")


def said(model: BaseModel, *, status: int = 200) -> web.Response:
    """An answer of the API."""
    return web.Response(body=model.model_dump_json().encode(), status=status, content_type="application/json")


async def aside(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What blocking work gives, done in a thread so that nobody else waits for it."""
    return await asyncio.to_thread(work, *args, **kwargs)
