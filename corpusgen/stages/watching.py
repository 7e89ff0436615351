"""Watching: how far a run is, told at any moment to whoever shows it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from corpusgen.progress import Progress

if TYPE_CHECKING:  # a command line that starts must not wait for these
    from corpusgen.fanout.asker import Counts
    from corpusgen.stages.runs import Run

Watch: TypeAlias = Callable[[str, int | None], None]
"""Told of each stage and how many items it has."""


def no_watch(stage: str, total: int | None) -> None:
    """Nobody is watching."""


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
