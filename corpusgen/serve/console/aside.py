"""Reading for pages, in a few threads of its own: who has a teacher asked never waits for who looks at a corpus."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, ParamSpec, TypeVar

from aiohttp import web

from corpusgen.serve.routes import CALLER
from corpusgen.serve.slowly import READING

P = ParamSpec("P")
T = TypeVar("T")

_READERS: Final = ThreadPoolExecutor(max_workers=3, thread_name_prefix="console")


async def aside(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What blocking work gives, done in one of the threads."""
    return await asyncio.get_running_loop().run_in_executor(_READERS, partial(work, *args, **kwargs))


async def slowly(request: web.Request, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """As ``aside``, for what may take long: within the bounds of the API, and no page waits for it."""
    return await READING(request[CALLER], work, *args, **kwargs)
