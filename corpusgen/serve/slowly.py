"""Work that takes long, a few pieces at a time in threads of their own, so that nothing else waits for a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

from corpusgen.serve.statuses import Refused

P = ParamSpec("P")
T = TypeVar("T")


class Slowly:
    """So many pieces of work at once; a few more wait, and the next is told to come back."""

    def __init__(self, name: str, *, at_once: int = 2, waiting: int = 32) -> None:
        self._threads = ThreadPoolExecutor(at_once, thread_name_prefix=name)
        self._most = at_once + waiting
        self._begun = 0

    async def __call__(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What the work gives. Raises Refused where too much waits already."""
        if self._begun >= self._most:
            raise Refused(429, "too much of this is being worked on; come back", headers={"Retry-After": "5"})
        self._begun += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, partial(work, *args, **kwargs))
        finally:
            self._begun -= 1


READING = Slowly("reading")
"""Questions over the whole corpus: SQL, audits, stories, exports."""
PLANNING = Slowly("planning", at_once=1)
"""Plans, which read pools and drop what repeats."""
