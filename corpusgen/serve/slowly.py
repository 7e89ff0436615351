"""Work that takes long, a few pieces at a time in threads of their own, so that nothing else waits for a thread."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

from corpusgen.serve.callers import Caller
from corpusgen.serve.statuses import Refused

P = ParamSpec("P")
T = TypeVar("T")


class Slowly:
    """So many pieces of work at once, fewer of one token; a few more wait, and the next is told to come back."""

    def __init__(self, name: str, *, at_once: int = 4, of_one: int = 2, waiting: int = 32) -> None:
        self._threads = ThreadPoolExecutor(at_once, thread_name_prefix=name)
        self._most = at_once + waiting
        self._most_of_one = of_one + max(1, waiting // 4)
        self._begun: Counter[str] = Counter()
        self._seats: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(of_one))

    async def __call__(self, caller: Caller, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What the work gives. Raises Refused where too much waits already, of this token or of all."""
        whose = caller.token_id
        if self._begun[whose] >= self._most_of_one or self._begun.total() >= self._most:
            raise Refused(429, "too much of this is being worked on; come back", headers={"Retry-After": "5"})
        self._begun[whose] += 1
        job = asyncio.create_task(self._done(whose, partial(work, *args, **kwargs)))
        job.add_done_callback(_looked_at)
        # A thread is not stopped when who waits for it leaves: until it is done it counts.
        return await asyncio.shield(job)

    async def _done(self, whose: str, work: Callable[[], T]) -> T:
        try:
            async with self._seats[whose]:  # those of one token wait here, and not before everybody's threads
                return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self._begun[whose] -= 1
            if not self._begun[whose]:
                del self._begun[whose], self._seats[whose]


def _looked_at(job: asyncio.Task[T]) -> None:
    if not job.cancelled():
        job.exception()  # told to whoever waited; nobody need have


READING = Slowly("reading")
"""Questions over the whole corpus: SQL, audits, stories, exports."""
PLANNING = Slowly("planning", at_once=2, of_one=1)
"""Plans, which read pools and drop what repeats."""
