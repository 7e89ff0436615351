"""Fans prompts out to a teacher and stores every answer that was paid for.

This is the only place that starts teacher tasks. For each prompt: known answer? → single flight → reserve → pace → ask
→ read → settle and store in one transaction. A fixed number of workers and a short queue stand between the prompts and
the reader, so a slow reader slows the asking and a reader that leaves ends it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Literal

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception
from tenacity.wait import wait_exponential_jitter

from corpusgen.assemble import RunFacts, read_labels, record_of, record_of_stored, reply_of
from corpusgen.budget.ledger import Intent, Ledger, Reservation
from corpusgen.budget.prices import Rate
from corpusgen.corpus import Corpus, microseconds
from corpusgen.errors import Interrupted, NotSent, RateLimited, TeacherError, UsageOverrun
from corpusgen.journal import Transaction
from corpusgen.prompting.prompts import Prompt
from corpusgen.records import Completion, Record, Reply, Request
from corpusgen.store.answers import (
    Answer,
    Card,
    RecordRow,
    find_answer,
    known_records,
    store_answer,
    store_record,
    stored_record,
)
from corpusgen.teachers.pacing import Pacer
from corpusgen.teachers.teacher import Teacher

LOOK_AHEAD = 256
WIDER = 10
"""How many times more runners-up are asked for when a label was not among them."""
FATAL_STATUS = frozenset({401, 402, 403, 404})
"""Refusals that no other prompt would escape: key, payment, permission, model."""
FAILURES_IN_A_ROW = 8
MOST_TRIES = 50


@dataclass(kw_only=True)
class Counts:
    """What has happened so far, for whoever watches."""

    done: int = 0
    known: int = 0
    in_flight: int = 0
    sent: int = 0
    drops: Counter[str] = field(default_factory=Counter)
    failures_in_a_row: int = 0


@dataclass(frozen=True, kw_only=True)
class Asker:
    """Everything that is the same for every prompt of a run."""

    corpus: Corpus
    ledger: Ledger
    teacher: Teacher
    rate: Rate
    card: Card
    facts: RunFacts
    scopes: tuple[str, ...]
    timeout_s: float
    in_flight: int
    attempts: int = 4
    on_failure: Literal["raise", "drop"] = "raise"
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    pacer: Pacer = field(default_factory=Pacer)
    counts: Counts = field(default_factory=Counts)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    """Set it to end the run after the calls that are under way."""


@asynccontextmanager
async def answers(asker: Asker, prompts: Iterable[Prompt]) -> AsyncIterator[AsyncIterator[Record]]:
    """A stream of the records of prompts, as they are answered.

    Leaving the block ends the asking: calls under way are waited for and stored, no new one is sent. When the block is
    left by cancellation they are cut off and booked as unknown. A failing call arrives at the reader as itself.
    """
    stream = _Stream(asker=asker, prompts=iter(prompts))
    failure: Exception | None = None
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(stream.work()) for _ in range(asker.in_flight)]
        tasks.append(group.create_task(stream.feed()))
        group.create_task(stream.close_after(list(tasks)))
        try:
            yield stream.records()
        except asyncio.CancelledError:
            for task in tasks:
                task.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - raised again below, not as a group
            failure = error
        await stream.leave()
    if failure is not None:
        raise failure


@dataclass(kw_only=True)
class _Stream:
    """One fan-out: prompts go in at one end, records come out at the other."""

    asker: Asker
    prompts: Iterator[Prompt]
    error: Exception | None = None
    left: bool = False
    ended: bool = False
    work_queue: asyncio.Queue[Prompt | None] = field(init=False)
    out: asyncio.Queue[Record | None] = field(init=False)

    def __post_init__(self) -> None:
        self.work_queue = asyncio.Queue(maxsize=self.asker.in_flight)
        self.out = asyncio.Queue(maxsize=self.asker.in_flight)

    @property
    def over(self) -> bool:
        return self.left or self.error is not None or self.asker.stopping.is_set()

    async def leave(self) -> None:
        """Ask no more, and take what is still coming off the workers' hands."""
        self.left = True
        while not self.ended:
            self.ended = await self.out.get() is None

    async def records(self) -> AsyncIterator[Record]:
        while not self.ended:
            record = await self.out.get()
            if record is not None:
                yield record
            self.ended = record is None
        if self.error is not None:
            raise self.error

    async def feed(self) -> None:
        """Give known answers to the reader and the others to the workers, in the order of the prompts."""
        try:
            while not self.over and (chunk := list(islice(self.prompts, LOOK_AHEAD))):
                known = known_records(self.asker.corpus.journal.reader, [prompt.record_id for prompt in chunk])
                for prompt in chunk:
                    if self.over:
                        break
                    if prompt.record_id in known:
                        await self._deliver(self._remember(prompt))
                    else:
                        await self.work_queue.put(prompt)
        except Exception as error:  # noqa: BLE001 - the prompts' own error reaches the reader as itself
            self._fail(error)
        for _ in range(self.asker.in_flight):
            await self.work_queue.put(None)

    async def work(self) -> None:
        """Answer one prompt after the other until there are no more."""
        while (prompt := await self.work_queue.get()) is not None:
            if self.over:
                continue
            try:
                record = await _answer(self.asker, prompt)
            except TeacherError as error:
                await self._call_failed(prompt, error)
            except Exception as error:  # noqa: BLE001 - whatever it is reaches the reader as itself
                self._fail(error)
            else:
                self.asker.counts.failures_in_a_row = 0
                await self._deliver(record)

    async def close_after(self, others: list[asyncio.Task[None]]) -> None:
        """Tell the reader that nothing more will come."""
        await asyncio.wait(others)
        if self.asker.stopping.is_set():
            self._fail(Interrupted("stopped as asked; every answer is kept, and the same command goes on from there"))
        await self.out.put(None)

    def _remember(self, prompt: Prompt) -> Record:
        asker = self.asker
        stored = stored_record(asker.corpus.journal.reader, prompt.record_id)
        assert stored is not None
        asker.counts.known += 1
        card = _card_of(asker, stored.answer.card_id)
        return record_of_stored(_facts_of(asker, stored.row.run_id), card, stored, asker.teacher)

    async def _deliver(self, record: Record) -> None:
        self.asker.counts.done += 1
        await self.out.put(record)

    def _fail(self, error: Exception) -> None:
        self.error = self.error or error

    async def _call_failed(self, prompt: Prompt, error: TeacherError) -> None:
        counts = self.asker.counts
        counts.failures_in_a_row += 1
        await _drop(self.asker, prompt, error)
        hopeless = error.status in FATAL_STATUS or isinstance(error, NotSent | UsageOverrun)
        if self.asker.on_failure == "raise" or hopeless or counts.failures_in_a_row >= FAILURES_IN_A_ROW:
            self._fail(error)


# --- one prompt ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Got:
    """An answer, new or known."""

    request: Request
    answer: Answer
    completion: Completion
    bought: bool


Finish = Callable[[_Got], RecordRow | None]
"""The record an answer completes, or None while the item needs another answer."""


async def _answer(asker: Asker, prompt: Prompt) -> Record:
    """The record of one prompt; a label the teacher's runners-up left out is asked for once more with more of them."""
    wider = _wider(asker, prompt.request)

    def complete(got: _Got) -> RecordRow | None:
        return None if wider is not None and _lacks_label(asker, got) else _row(asker, prompt, got, got)

    first = got = await _obtain(asker, prompt, prompt.request, complete)
    row = complete(first)
    if row is None:
        assert wider is not None
        got = await _obtain(asker, prompt, wider, lambda got: _row(asker, prompt, first, got))
        row = _row(asker, prompt, first, got)
    if not got.bought:
        await asker.corpus.journal.run(lambda transaction: store_record(transaction, row))
    reading = read_labels(asker.facts, got.completion)
    card = _card_of(asker, got.answer.card_id)
    return record_of(asker.facts, card, row, got.answer, got.request, got.completion, reading)


def _lacks_label(asker: Asker, got: _Got) -> bool:
    reading = read_labels(asker.facts, got.completion)
    return reading is not None and reading.logprobs is not None and None in reading.logprobs


def _wider(asker: Asker, request: Request) -> Request | None:
    asked = request.parameters.get("top_logprobs")
    most = asker.teacher.card.capabilities.top_logprobs
    if not isinstance(asked, int) or asked >= most:
        return None
    return replace(request, parameters={**request.parameters, "top_logprobs": min(most, asked * WIDER)})


def _row(asker: Asker, prompt: Prompt, first: _Got, got: _Got) -> RecordRow:
    item = {
        "input": prompt.item.input,
        "source_ids": list(prompt.item.source_ids),
        "sample_index": prompt.request.sample_index,
    }
    if first is not got:
        item["first_cost_microusd"] = first.answer.cost_microusd
    return RecordRow(
        record_id=prompt.record_id,
        run_id=asker.facts.run_id,
        dataset=asker.facts.task,
        split=prompt.item.split,
        ordinal=prompt.ordinal,
        item_id=prompt.item.item_id,
        request_key=got.request.key,
        first_key=first.request.key,
        from_cache=not got.bought and _of_another_run(asker, got.answer),
        item=item,
    )


def _of_another_run(asker: Asker, answer: Answer) -> bool:
    rows = asker.corpus.journal.query(
        "select c.run_id from answers a join calls c using (call_id) where a.request_key = ?", (answer.request_key,)
    )
    return bool(rows) and rows[0][0] != asker.facts.run_id


async def _obtain(asker: Asker, prompt: Prompt, request: Request, finish: Finish) -> _Got:
    """The answer to a request: known, under way for somebody else, or bought now."""
    flights = asker.corpus.flights
    while True:
        answer = find_answer(asker.corpus.journal.reader, request.key)
        if answer is not None:
            return _Got(
                request=request, answer=answer, completion=asker.teacher.read(request, reply_of(answer)), bought=False
            )
        flight = flights.get(request.key)
        if flight is None:
            break
        await asyncio.wait([flight])
    flights[request.key] = flight = asyncio.get_running_loop().create_future()
    try:
        return await _buy(asker, prompt, request, finish)
    finally:
        del flights[request.key]
        flight.set_result(None)


async def _buy(asker: Asker, prompt: Prompt, request: Request, finish: Finish) -> _Got:
    retrying = AsyncRetrying(
        stop=_Stop(attempts=asker.attempts),
        retry=retry_if_exception(lambda error: isinstance(error, TeacherError) and error.transient),
        wait=_wait,
        sleep=asker.sleep,
        reraise=True,
    )
    async for attempt in retrying:
        with attempt:
            return await _try(asker, prompt, request, finish, attempt.retry_state.attempt_number)
    raise AssertionError("unreachable: tenacity re-raises")  # pragma: no cover


@dataclass(kw_only=True)
class _Stop:
    """Give up after so many failures; being told to slow down is not one."""

    attempts: int
    failures: int = 0

    def __call__(self, state: RetryCallState) -> bool:
        self.failures += not isinstance(_error(state), RateLimited)
        return self.failures >= self.attempts or state.attempt_number >= MOST_TRIES


_backoff = wait_exponential_jitter(initial=0.5, max=8.0, jitter=0.5)


def _error(state: RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome else None


def _wait(state: RetryCallState) -> float:
    error = _error(state)
    held_back = isinstance(error, TeacherError) and error.retry_after_s is not None
    return 0.0 if held_back else _backoff(state)  # the pacer holds everybody back for what was asked


async def _try(asker: Asker, prompt: Prompt, request: Request, finish: Finish, attempt: int) -> _Got:
    """One try, reserved for itself."""
    await asker.pacer.turn()
    reservation = await asker.ledger.reserve(_intent(asker, prompt, request, attempt))
    asker.counts.in_flight += 1
    try:
        asker.counts.sent += 1
        reply = await asker.teacher.ask(request, timeout_s=asker.timeout_s)
        completion = asker.teacher.read(request, reply)
    except TeacherError as error:
        await _close_failed(asker, reservation, error)
        raise
    except BaseException as error:
        reason = f"{type(error).__name__} while asking"
        asker.corpus.journal.submit(lambda transaction: asker.ledger.unknown(transaction, reservation, reason))
        raise
    finally:
        asker.counts.in_flight -= 1
    return await _keep(asker, reservation, request, reply, completion, finish)


def _intent(asker: Asker, prompt: Prompt, request: Request, attempt: int) -> Intent:
    bound = asker.teacher.input_tokens_bound(request)
    return Intent(
        run_id=asker.facts.run_id,
        request_key=request.key,
        teacher=asker.teacher.card.name,
        role=f"{asker.facts.kind}:{prompt.item.split}",
        attempt=attempt,
        worst=asker.rate.worst(bound, int(request.parameters["max_tokens"])),
        scopes=asker.scopes,
        price_version=asker.rate.version,
    )


async def _close_failed(asker: Asker, reservation: Reservation, error: TeacherError) -> None:
    if error.retry_after_s is not None:
        asker.pacer.pause(error.retry_after_s)
    await asker.corpus.journal.run(lambda transaction: asker.ledger.failed(transaction, reservation, error))
    asker.ledger.freed()


async def _keep(
    asker: Asker, reservation: Reservation, request: Request, reply: Reply, completion: Completion, finish: Finish
) -> _Got:
    """Settle and store in one transaction: paid for and kept, or neither."""
    used = asker.rate.used(completion.usage)
    answer = Answer(
        request_key=request.key,
        card_id=asker.card.card_id,
        usage=completion.usage,
        cost_microusd=used.microusd,
        price_version=asker.rate.version,
        provider_request_id=completion.provider_request_id or reply.request_id,
        sent_us=microseconds(reply.sent_time),
        received_us=microseconds(reply.received_time),
        compute_us=reply.compute_us,
        body=reply.body,
    )
    got = _Got(request=request, answer=answer, completion=completion, bought=True)
    row = finish(got)

    def operation(transaction: Transaction) -> None:
        asker.ledger.settle(transaction, reservation, used)
        store_answer(transaction, request, answer, reservation.call_id)
        if row is not None:
            store_record(transaction, row)

    await asker.corpus.journal.run(operation)
    asker.ledger.freed()
    if used.exceeds(reservation.worst):
        raise UsageOverrun(
            f"{asker.card.teacher} reported {completion.usage.total_tokens} tokens where at most"
            f" {reservation.worst.tokens} were possible; all are booked, and no more is asked of it"
        )
    return got


async def _drop(asker: Asker, prompt: Prompt, error: TeacherError) -> None:
    reason = type(error).__name__
    asker.counts.drops[reason] += 1
    values = (asker.facts.run_id, f"ask:{prompt.item.split}", prompt.item.item_id, reason, str(error))

    def operation(transaction: Transaction) -> None:
        transaction.execute(
            "insert or replace into drops(run_id, stage, item_id, reason, detail) values(?, ?, ?, ?, ?)", values
        )

    await asker.corpus.journal.run(operation)


def _card_of(asker: Asker, card_id: str) -> Card:
    if card_id == asker.card.card_id:
        return asker.card
    rows = asker.corpus.journal.query("select card from cards where card_id = ?", (card_id,))
    return Card.from_json(rows[0][0])


def _facts_of(asker: Asker, run_id: str) -> RunFacts:
    if run_id == asker.facts.run_id:
        return asker.facts
    rows = asker.corpus.journal.query("select facts from runs where run_id = ?", (run_id,))
    return RunFacts.from_json(rows[0][0])
