"""An event loop in which waiting takes no time, and in which a process can be killed without a last word."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from types import CoroutineType
from typing import Any

PROCESS: ContextVar[str] = ContextVar("PROCESS", default="world")
"""Which simulated process a task or a timer belongs to."""
LONGEST_S = 300.0
"""Nobody has a reason to wait longer than this for anything."""
LAST_WORDS = 50


class NeverEnds(Exception):
    """Nothing more can happen, or it goes on for ever."""


class _Task(asyncio.Task[Any]):
    """A task whose place in a set does not depend on where it lies in memory."""

    def __init__(self, number: int, coroutine: Any, *, loop: asyncio.AbstractEventLoop, context: Context) -> None:
        self._number = number
        self.process = context.get(PROCESS, "world")
        super().__init__(coroutine, loop=loop, context=context)

    def __hash__(self) -> int:
        return self._number


class VirtualLoop(asyncio.BaseEventLoop):
    """Jumps to the next timer when nothing is ready. It knows no sockets and no threads."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self.progress_s = 0.0
        """When something last happened that counts; whoever watches says when."""
        self._selector = self
        self._tasks: list[_Task] = []
        self.set_task_factory(self._new_task)

    def time(self) -> float:
        return self._now

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None:
            raise NeverEnds("everybody waits for somebody else")
        self._now += timeout
        if self._now > self.progress_s + LONGEST_S:
            raise NeverEnds(f"for {LONGEST_S:g} s somebody has waited, and nothing has changed")
        return []

    def run_in_executor(self, _: Any, function: Callable[..., Any], *given: Any) -> asyncio.Future[Any]:  # type: ignore[override] # at once, not in a thread
        future = self.create_future()
        future.set_result(function(*given))
        return future

    def start(self, name: str, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """The first task of a simulated process; whatever it starts belongs to the same one."""
        context = copy_context()
        context.run(PROCESS.set, name)
        return self.create_task(coroutine, context=context)

    def kill(self, name: str) -> None:
        """Nothing of that process ever runs again: no callback, no ``finally``."""
        for handle in [*self._ready, *self._scheduled]:  # type: ignore[attr-defined] # asyncio's own
            if handle._context.get(PROCESS, "world") == name:
                handle.cancel()

    def left_by(self, name: str) -> int:
        """How many tasks of that process still run, apart from asyncio's own that close a generator nobody reads."""
        left = [task for task in self._tasks if task.process == name and not task.done()]
        return sum(isinstance(task.get_coro(), CoroutineType) for task in left)

    def bury(self) -> None:
        """Take apart what was killed, once nobody can be disturbed by it any more."""
        for task in self._tasks:
            if not task.done():
                task._log_destroy_pending = False  # type: ignore[attr-defined] # asyncio's own
                _close(task.get_coro())
        for generator in list(self._asyncgens):  # type: ignore[attr-defined] # asyncio's own
            _close(generator.ag_await)
        self._tasks.clear()

    def _new_task(self, _: object, coroutine: Any, context: Context | None = None) -> _Task:
        task = _Task(len(self._tasks), coroutine, loop=self, context=context or copy_context())
        self._tasks.append(task)
        return task

    def _process_events(self, events: list[Any]) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """Nobody sleeps who must be woken."""


def _close(coroutine: Any) -> None:
    # Its clean-up finds no loop and a closed journal, and fails at once; a little later it is through.
    if not hasattr(coroutine, "close"):
        return
    for _ in range(LAST_WORDS):
        try:
            coroutine.close()
        except BaseException:  # noqa: BLE001 - it is dead; nobody wants to know what it says
            continue
        return
