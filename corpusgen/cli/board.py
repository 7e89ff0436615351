"""Runs a job with a live display, and stops it in an orderly way on Ctrl-C."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import TypeVar

import click

from corpusgen.cli.live import live_display
from corpusgen.errors import Interrupted
from corpusgen.stages.watching import Board

T = TypeVar("T")
EVERY_S = 0.25
_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, the end of a service, and a terminal that was closed."""
_CUT_OFF = (
    "stopped at once; calls that were cut off count in full until they are reconciled, every answer is kept,"
    " and the same command goes on from there"
)


def work(board: Board, job: Callable[[], Awaitable[T]], *, quiet: bool) -> T:
    """Run a job to its end. The first Ctrl-C lets calls under way finish, the second cuts them off."""
    return asyncio.run(_work(board, job, quiet=quiet))


async def _work(board: Board, job: Callable[[], Awaitable[T]], *, quiet: bool) -> T:
    task = asyncio.ensure_future(job())
    loop = asyncio.get_running_loop()
    heeded = [number for number in _STOPPING if signal.getsignal(number) is not signal.SIG_IGN]  # nohup
    for number in heeded:
        loop.add_signal_handler(number, _stop, board, task)
    try:
        if quiet:
            return await task
        with live_display(sys.stderr, plain=not sys.stderr.isatty()) as show:
            while not task.done():
                show(board.snapshot())
                await asyncio.wait([task], timeout=EVERY_S)
            show(board.snapshot())
        return task.result()
    except asyncio.CancelledError:
        raise Interrupted(_CUT_OFF if board.current() else "stopped before anything was asked") from None
    finally:
        for number in heeded:
            loop.remove_signal_handler(number)


def _stop(board: Board, task: asyncio.Future[T]) -> None:
    run = board.current()
    if run is None or run.asker.stopping.is_set():
        task.cancel()
        return
    run.asker.stopping.set()
    if run.lane.note:
        click.echo("\nstopping: batches that were handed over go on at the provider", err=True)
        return
    click.echo(
        f"\nstopping: {board.counts_of(run).in_flight} calls under way are waited for and kept;"
        " Ctrl-C again cuts them off",
        err=True,
    )
