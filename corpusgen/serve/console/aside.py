"""Reading for pages, in a few threads of its own: who has a teacher asked never waits for who looks at a corpus."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_READERS: Final = ThreadPoolExecutor(max_workers=3, thread_name_prefix="console")


async def aside(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What blocking work gives, done in one of the threads."""
    return await asyncio.get_running_loop().run_in_executor(_READERS, partial(work, *args, **kwargs))
