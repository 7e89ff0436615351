from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulation.clock import VirtualLoop

from corpusgen.teachers.deadlines import Deadlines

Within = Callable[[float], AbstractAsyncContextManager[object]]


@dataclass(frozen=True, kw_only=True)
class Call:
    """All of it in whole seconds; what happens gets fractions of its own, so that nothing coincides."""

    begins: int
    allowed: int
    takes: int
    cancelled: int | None
    """After how long somebody else cancels it too."""
    ends: str
    """What it makes of being cancelled."""


calls = st.builds(
    Call,
    begins=st.integers(0, 6),
    allowed=st.integers(-1, 6),
    takes=st.integers(0, 8),
    cancelled=st.none() | st.integers(0, 8),
    ends=st.sampled_from(["at once", "with an error", "in silence", "later"]),
)


async def work(call: Call) -> None:
    try:
        await asyncio.sleep(call.takes + 0.5)
    except asyncio.CancelledError:
        if call.ends == "with an error":
            raise ValueError from None
        if call.ends == "later":
            await asyncio.sleep(0.125)
        if call.ends != "in silence":
            raise


async def lived(call: Call, within: Within) -> tuple[Any, ...]:
    """How it ended, when, and how often its task is still to be cancelled."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    await asyncio.sleep(call.begins)
    if call.cancelled is not None:
        loop.call_later(call.cancelled + 0.75, task.cancel)
    end = "whole"
    try:
        async with within(call.allowed + 0.25):
            await work(call)
    except (asyncio.CancelledError, TimeoutError, ValueError) as error:
        end = type(error).__name__
    return end, loop.time(), task.cancelling()


async def lives(several: list[Call], within: Within) -> list[tuple[Any, ...]]:
    return await asyncio.gather(*(lived(call, within) for call in several))


def in_no_time(coroutine: Coroutine[Any, Any, Any]) -> Any:
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(coroutine)
    finally:
        loop.close()


def of(deadlines: Deadlines) -> Within:
    @asynccontextmanager
    async def within(seconds: float) -> AsyncIterator[None]:
        with deadlines.within(seconds):
            yield

    return within


@given(st.lists(calls, max_size=8))
def test_calls_end_as_and_when_they_do_with_a_timer_each(several: list[Call]) -> None:
    assert in_no_time(lives(several, of(Deadlines()))) == in_no_time(lives(several, asyncio.timeout))


def test_many_calls_have_one_timer() -> None:
    async def timers() -> int:
        deadlines = Deadlines()
        waiting = [asyncio.create_task(hang(deadlines, 100.0 - at % 7)) for at in range(200)]
        await asyncio.sleep(1)
        loop: Any = asyncio.get_running_loop()
        many = sum(not timer.cancelled() for timer in loop._scheduled)
        ends = await asyncio.gather(*waiting, return_exceptions=True)
        return many if all(isinstance(end, TimeoutError) for end in ends) else 0

    assert in_no_time(timers()) == 1


async def hang(deadlines: Deadlines, seconds: float) -> None:
    with deadlines.within(seconds):
        await asyncio.Event().wait()


def test_a_deadline_is_kept_in_the_next_event_loop_too() -> None:
    deadlines = Deadlines()
    for _ in range(2):
        with pytest.raises(TimeoutError):
            in_no_time(hang(deadlines, 5))
