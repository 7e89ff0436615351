"""Calls that are ended when their time is over, all by one timer.

``asyncio.timeout`` sets a timer for each call and takes it away again, which costs as much as much of the call, though
next to none is ever late. Here the timer is set for the call that must be over first, and is left alone when that call
ends. When it goes off that call is mostly long gone, and it is set for the first of those that are still under way. So
nobody is ended later than by a timer of their own.
"""

from __future__ import annotations

import asyncio
import math
from types import TracebackType


class Deadlines:
    """The calls under way in one event loop, and the timer for the first that will be late."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._under_way: set[Within] = set()
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = math.inf

    def within(self, seconds: float) -> Within:
        """As ``asyncio.timeout``, but for a plain ``with``: what takes longer is cancelled, and raises TimeoutError."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:  # the timer of another loop may never go off
            self._loop, self._alarm, self._alarm_at = loop, None, math.inf
            self._under_way.clear()
        return Within(self, loop.time() + seconds)

    def begin(self, call: Within) -> None:
        """Watch a call."""
        self._under_way.add(call)
        if call.at < self._alarm_at:
            self._watch_for(call.at)

    def end(self, call: Within) -> None:
        """Watch it no more."""
        self._under_way.discard(call)

    def _watch_for(self, moment: float) -> None:
        assert self._loop is not None
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm, self._alarm_at = self._loop.call_at(moment, self._look), moment

    def _look(self) -> None:
        assert self._loop is not None
        # Timers go off a little early, and clocks are coarse.
        now = max(self._alarm_at, self._loop.time())
        self._alarm, self._alarm_at = None, math.inf
        for call in [each for each in self._under_way if each.at <= now]:
            self._under_way.discard(call)
            call.cancel()
        if self._under_way:
            self._watch_for(min(call.at for call in self._under_way))


class Within:
    """One call, from its beginning to its end."""

    __slots__ = ("_cancelling", "_deadlines", "_late", "_task", "at")

    def __init__(self, deadlines: Deadlines, at: float) -> None:
        self.at = at
        """The loop's time at which it is late."""
        self._deadlines = deadlines
        self._late = False

    def cancel(self) -> None:
        """It is late."""
        self._late = True
        self._task.cancel()

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task, self._cancelling = task, task.cancelling()
        self._deadlines.begin(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._deadlines.end(self)
        # Somebody else may have cancelled it too: then it is cancelled, and not late.
        if self._late and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error
