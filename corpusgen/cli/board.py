"""Runs a job with a live display, and stops it in an orderly way on Ctrl-C."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import click

from corpusgen.cli.live import live_display
from corpusgen.errors import Interrupted
from corpusgen.progress import Progress

if TYPE_CHECKING:
    from corpusgen.fanout import Counts
    from corpusgen.stages.opening import Run

T = TypeVar("T")
EVERY_S = 0.25
_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, the end of a service, and a terminal that was closed."""
_CUT_OFF = (
    "stopped at once; calls that were cut off count in full until they are reconciled, every answer is kept,"
    " and the same command goes on from there"
)


@dataclass(kw_only=True)
class Board:
    """What is going on, for the display: the stage, and the run once it is open."""

    current: Callable[[], Run | None]
    stage: str = "start"
    total: int | None = None
    began: float = field(default_factory=time.monotonic)
    done_before: int = 0

    def watch(self, stage: str, total: int | None) -> None:
        """A new stage begins."""
        self.stage, self.total, self.began = stage, total, time.monotonic()
        run = self.current()
        self.done_before = self.counts_of(run).done if run else 0

    def counts_of(self, run: Run) -> Counts:
        """What whoever is asking now has counted: the teachers, or their judge."""
        return run.judge.asker.counts if run.judge and self.stage == "judge" else run.asker.counts

    def snapshot(self) -> Progress:
        """What the display shows now."""
        run = self.current()
        if run is None:
            return Progress(stage=self.stage)
        from corpusgen.budget.ledger import balances

        counts = self.counts_of(run)
        found = {one.unit: one for one in balances(run.corpus.journal, [f"run:{run.run_id}"])}
        money, tokens, requests = found.get("microusd"), found.get("tokens"), found.get("requests")
        done = counts.done - self.done_before
        elapsed = max(1e-6, time.monotonic() - self.began)
        rate = done / elapsed if self.total else 0.0
        return Progress(
            stage=self.stage,
            done=done,
            total=self.total,
            in_flight=counts.in_flight,
            from_cache=counts.known,
            drops=dict(counts.drops),
            rate_per_s=rate,
            spent_microusd=money.settled if money else 0,
            promised_microusd=money.promised if money else 0,
            unconfirmed_microusd=money.unconfirmed if money else 0,
            cap_microusd=money.cap if money else None,
            tokens_spent=tokens.settled if tokens else 0,
            tokens_cap=tokens.cap if tokens else None,
            requests=run.sent,
            requests_cap=requests.cap if requests else None,
            note=run.lane.note,
            seconds_left=(self.total - done) / rate if self.total and rate else None,
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
