"""The life of a batch as the journal keeps it: intended, submitted, ended; or freed, when it never came to be."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Final, Literal

import orjson

from corpusgen.budget.amounts import Amounts
from corpusgen.budget.ledger import Reservation
from corpusgen.budget.prices import Rate
from corpusgen.corpus import Corpus, microseconds
from corpusgen.errors import Interrupted
from corpusgen.fanout.asker import Asker
from corpusgen.journal import Journal, Operation, Transaction, owner_alive
from corpusgen.teachers.batches import BatchService, BatchState


def new_name() -> str:
    """A name that no other batch of anybody has."""
    return f"corpusgen-{os.urandom(8).hex()}"


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long to wait for what."""

    grace_s: float = 300.0
    """How long a batch that is not to be found may still have been on its way when its process died."""
    shortest_s: float = 0.2
    longest_s: float = 60.0
    failures: int = 10
    """Failed looks in a row until it is given up; the batches stay where they are."""
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    def pause(self, age_s: float) -> float:
        """How long until a batch of that age is looked at again: the younger, the sooner."""
        return min(self.longest_s, max(self.shortest_s, age_s / 10))


@dataclass(kw_only=True)
class Notice:
    """What is to be said of the batches under way, for whoever watches."""

    text: str = ""


@dataclass(frozen=True, kw_only=True)
class Batcher:
    """Everything that is the same for every batch of a run."""

    asker: Asker
    service: BatchService
    rate_on: Callable[[date], Rate]
    """What a call in a batch costs, on a day."""
    size: int | None = None
    patience: Patience = field(default_factory=Patience)
    new_name: Callable[[], str] = new_name
    mine: Callable[[str], bool] = lambda name: True
    """Which of the run's batches this one sees to, by our name for them, where others see to others."""
    passed: Callable[[str], None] = lambda step: None
    """Told of each step when it is durable; a test stops the process there."""
    notice: Notice = field(default_factory=Notice)

    @property
    def corpus(self) -> Corpus:
        """Where everything is kept."""
        return self.asker.corpus

    @property
    def journal(self) -> Journal:
        """Where every step is written down."""
        return self.asker.corpus.journal


@dataclass(frozen=True, kw_only=True)
class OpenBatch:
    """A batch that has not come to its end, as the journal has it."""

    batch_id: str
    run_id: str
    state: Literal["intended", "submitted"]
    provider_id: str | None
    card_id: str
    lines: int
    intended_us: int
    missed_us: int | None
    """When it was first noticed that nobody knows whether it was handed over."""
    submitted_us: int | None
    abandoned: bool
    """Whether the process that meant to hand it over is gone."""


_OPEN: Final = (
    "select batch_id, run_id, state, provider_batch_id, card_id, lines, intended_us, missed_us, submitted_us,"
    " pid, boot_id, start_ticks from batches join owners using (owner_id)"
    " where state in ('intended', 'submitted') and identity = ? order by intended_us, batch_id"
)


def open_batches_of(journal: Journal, identity: str) -> list[OpenBatch]:
    """The batches under way at a teacher, oldest first."""
    return [
        OpenBatch(
            batch_id=row[0],
            run_id=row[1],
            state=row[2],
            provider_id=row[3],
            card_id=row[4],
            lines=row[5],
            intended_us=row[6],
            missed_us=row[7],
            submitted_us=row[8],
            abandoned=not owner_alive(*row[9:]),
        )
        for row in journal.query(_OPEN, (identity,))
    ]


def note_missed(name: str) -> Operation[None]:
    """Note that nobody knows whether a batch was handed over."""
    sql = "update batches set missed_us = ? where batch_id = ? and state = 'intended' and missed_us is null"
    return lambda transaction: transaction.execute(sql, (transaction.now_us, name)).close()


def note_submitted(name: str, provider_id: str) -> Operation[None]:
    """Note under which name the provider has a batch."""
    sql = (
        "update batches set state = 'submitted', provider_batch_id = ?, submitted_us = ?"
        " where batch_id = ? and state = 'intended'"
    )
    return lambda transaction: transaction.execute(sql, (provider_id, transaction.now_us, name)).close()


def free_calls(batcher: Batcher, name: str, reason: str) -> Operation[None]:
    """Take back the promises of a batch that never came to be."""

    def operation(transaction: Transaction) -> None:
        if transaction.rows(
            "update batches set state = 'freed', closed_us = ? where batch_id = ? and state = 'intended'"
            " returning batch_id",
            (transaction.now_us, name),
        ):
            for call in promised_calls(transaction.rows, name).values():
                batcher.asker.ledger.release(transaction, call.reservation, reason)

    return operation


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """A call in a batch whose result has not been kept."""

    key: bytes
    reservation: Reservation


def promised_calls(rows: Callable[[str, tuple[Any, ...]], list[tuple[Any, ...]]], name: str) -> dict[str, Waiting]:
    """The calls of a batch that are still promised, by custom id."""
    found = rows(
        "select batch_line, request_key, call_id, reserved_microusd, reserved_tokens, reserved_requests,"
        " reserved_compute_us, scopes from calls where batch_id = ? and state = 'promised'",
        (name,),
    )
    waiting = {}
    for line, key, call_id, microusd, tokens, requests, compute_us, scopes in found:
        worst = Amounts(microusd=microusd, tokens=tokens, requests=requests, compute_us=compute_us)
        reservation = Reservation(call_id=call_id, worst=worst, scopes=tuple(scopes.split("\n")))
        waiting[f"{name}-{line}"] = Waiting(key=key, reservation=reservation)
    return waiting


def close_batch(batcher: Batcher, batch: OpenBatch, why: str, *, owed: bool) -> Operation[None]:
    """Close a batch and every call in it that is still promised, as unknown if something may be owed for those."""
    ledger = batcher.asker.ledger

    def operation(transaction: Transaction) -> None:
        rows = transaction.rows(
            "update batches set state = 'ended', closed_us = ? where batch_id = ? and state = 'submitted'"
            " returning batch_id",
            (transaction.now_us, batch.batch_id),
        )
        if not rows:
            return  # another process has closed it
        for call in promised_calls(transaction.rows, batch.batch_id).values():
            if owed:
                ledger.unknown(transaction, call.reservation, why)
            else:
                ledger.release(transaction, call.reservation, why)

    return operation


def note_state(name: str, state: BatchState) -> Operation[None]:
    """Note what the provider said last of a batch."""
    said = {"word": state.word, "total": state.total, "answered": state.answered, "why": state.why}
    sql = "update batches set said = ? where batch_id = ? and said != ?"
    text = orjson.dumps(said).decode()
    return lambda transaction: transaction.execute(sql, (text, name, text)).close()


def heed_stop(batcher: Batcher) -> None:
    """Raise Interrupted, naming what goes on at the provider, if the run is asked to stop."""
    if batcher.asker.stopping.is_set():
        identity = batcher.asker.teacher.card.identity
        where = "".join(_whereabouts(batcher, open_batches_of(batcher.journal, identity)))
        raise Interrupted(f"stopped as asked; every answer is kept{where}, and the same command collects them")


def _whereabouts(batcher: Batcher, batches: list[OpenBatch]) -> Iterator[str]:
    """What goes on at the provider, and what perhaps never came there."""
    if there := [batch.provider_id or batch.batch_id for batch in batches if batch.state == "submitted"]:
        yield f"; {', '.join(there)} go on at the provider"
    now_us = microseconds(batcher.corpus.clock())
    for batch in batches:
        if batch.state == "intended":
            waited_s = 0.0 if batch.missed_us is None else (now_us - batch.missed_us) / 1e6
            left_s = max(0.0, batcher.patience.grace_s - waited_s)
            yield f"; {batch.batch_id} is not known to have been handed over and is looked for another {left_s:.0f} s"


async def rest(batcher: Batcher, seconds: float) -> None:
    """A pause that ends when the run is asked to stop."""
    stop = asyncio.ensure_future(batcher.asker.stopping.wait())
    rest = asyncio.ensure_future(batcher.patience.sleep(seconds))
    try:
        await asyncio.wait([stop, rest], return_when=asyncio.FIRST_COMPLETED)
    finally:
        stop.cancel()
        rest.cancel()
        await asyncio.gather(stop, rest, return_exceptions=True)
