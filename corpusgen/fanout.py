"""Fans prompts out to a teacher and stores every answer that was paid for.

This is the only place that starts teacher tasks. For each prompt: known answer? → single flight → reserve → pace → ask
→ read → settle and store in one transaction. A fixed number of workers and a short queue stand between the prompts and
the reader, so a slow reader slows the asking and a reader that leaves ends it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import date
from itertools import islice
from typing import Any, Literal

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception
from tenacity.wait import wait_exponential_jitter

from corpusgen.assemble import RunFacts, read_labels, record_of, record_of_kept, reply_of, request_of
from corpusgen.budget.ledger import Amounts, Intent, Ledger, Reservation, claim_on
from corpusgen.budget.prices import Rate
from corpusgen.corpus import Corpus, microseconds
from corpusgen.elsewhere import Elsewhere
from corpusgen.errors import (
    CorpusgenError,
    Interrupted,
    NotSent,
    RateLimited,
    RequestRefused,
    TeacherError,
    UsageOverrun,
)
from corpusgen.journal import Transaction
from corpusgen.prompting.prompts import Prompt
from corpusgen.records import Completion, Record, Reply, Request
from corpusgen.store.answers import (
    Answer,
    Card,
    Kept,
    RecordRow,
    find_answer,
    kept_records,
    known_answers,
    store_answer,
    store_record,
    stored_request,
)
from corpusgen.teachers.labels import LabelReading
from corpusgen.teachers.pacing import Pacer
from corpusgen.teachers.teacher import Teacher

LOOK_AHEAD = 256
WIDER = 10
"""How many times more runners-up are asked for when a label was not among them."""
FATAL_STATUS = frozenset({401, 402, 403, 404})
"""Refusals that no other prompt would escape: key, payment, permission, model; an empty account may come as a 429."""
FAILURES_IN_A_ROW = 8
MOST_TRIES = 50
CLAIM_POLL_S = 0.07
"""How often who waits for another process's answer looks for it."""
UNTOLD_PAUSE_S = 0.5
"""How long everybody waits when a teacher says to slow down, but not for how long."""


@dataclass(kw_only=True)
class Counts:
    """What has happened so far, for whoever watches."""

    done: int = 0
    known: int = 0
    in_flight: int = 0
    sent: int = 0
    drops: Counter[str] = field(default_factory=Counter)
    failures_in_a_row: int = 0


@dataclass(kw_only=True)
class Hold:
    """Who is not cut off when the asking ends: a worker that has sent something or has something to hand over."""

    ended: bool = False
    tasks: set[asyncio.Task[Any] | None] = field(default_factory=set)

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Inside, the end of the asking leaves this task alone."""
        task = asyncio.current_task()
        self.tasks.add(task)
        try:
            yield
        finally:
            self.tasks.discard(task)

    def end(self, workers: Iterable[asyncio.Task[None]]) -> None:
        """Send nothing more: who waits for money, for a pause or for somebody else's answer goes home."""
        if self.ended:  # cutting a worker off twice would interrupt its tidying up
            return
        self.ended = True
        spared = {*self.tasks, asyncio.current_task()}
        for task in workers:
            if task not in spared:
                task.cancel()


class _Ended(Exception):
    """The asking ended before this was sent."""


class _Answered(CorpusgenError):
    """Somebody else got the answer in the meantime."""


class _Claimed(CorpusgenError):
    """Another process is asking this very thing."""


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
    compute_us: int = 0
    """The most processor time of ours that a call may take; 0 where it takes none."""
    attempts: int = 4
    on_failure: Literal["raise", "drop"] = "raise"
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    pacer: Pacer = field(default_factory=Pacer)
    counts: Counts = field(default_factory=Counts)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    """Set it to end the run after the calls that are under way."""
    hold: Hold = field(default_factory=Hold)
    elsewhere: Elsewhere | None = None
    rate_on: Callable[[date], Rate] | None = None
    """The rate of a day, for a run that goes on past midnight; without one ``rate`` holds."""


@asynccontextmanager
async def answers(asker: Asker, prompts: Iterable[Prompt]) -> AsyncIterator[AsyncIterator[Record]]:
    """A stream of the records of prompts, as they are answered.

    Leaving the block ends the asking: calls under way are waited for and stored, no new one is sent. When the block is
    left by cancellation they are cut off and booked as unknown. A failing call arrives at the reader as itself, after
    the answers of its neighbours. At most ``2 * in_flight`` prompts are ahead of the reader: one in each worker's hands
    and as many in the queue.
    """
    stream = _Stream(asker=replace(asker, hold=Hold()), prompts=iter(prompts))
    failure: Exception | None = None
    async with asyncio.TaskGroup() as group:
        stream.start(group)
        try:
            yield stream.records()
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
    closed: bool = False
    workers: list[asyncio.Task[None]] = field(default_factory=list)
    upcoming: AsyncGenerator[tuple[Prompt, Kept | None]] = field(init=False)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    dropped: set[tuple[str, str]] = field(init=False)
    """What failed in an earlier try of this run; an answer takes it back."""
    out: asyncio.Queue[Record | None] = field(init=False)

    def __post_init__(self) -> None:
        self.upcoming = self._look_up()
        self.dropped = _dropped(self.asker)
        self.out = asyncio.Queue(maxsize=self.asker.in_flight)

    def start(self, group: asyncio.TaskGroup) -> None:
        """Set the workers to work."""
        watcher = group.create_task(self._stop_when_asked())
        self.workers += [group.create_task(self._work()) for _ in range(self.asker.in_flight)]
        group.create_task(self._close(watcher))

    async def leave(self) -> None:
        """Ask no more, and take what is still coming off the workers' hands."""
        self.asker.hold.end(self.workers)
        while not self.closed:
            self.closed = await self.out.get() is None

    async def records(self) -> AsyncIterator[Record]:
        while (record := await self.out.get()) is not None:
            yield record
        self.closed = True
        if self.error is not None:
            raise self.error

    async def _work(self) -> None:
        """Answer one prompt after the other until there are no more."""
        try:
            while not self.asker.hold.ended and (prompt := await self._next()) is not None:
                await self._answer(prompt)
        except _Ended:
            return
        except Exception as error:  # noqa: BLE001 - whatever it is reaches the reader as itself
            self._fail(error)

    async def _next(self) -> Prompt | None:
        """The next prompt to ask; known answers go to the reader on the way, in the order of the prompts."""
        async with self.turn:
            async for prompt, kept in self.upcoming:
                if kept is None:
                    return prompt
                await self._deliver(self._remember(prompt, kept))
                if self.asker.hold.ended:
                    break
        return None

    async def _look_up(self) -> AsyncGenerator[tuple[Prompt, Kept | None]]:
        while chunk := list(islice(self.prompts, LOOK_AHEAD)):
            names = [prompt.record_id for prompt in chunk]
            known = kept_records(self.asker.corpus.journal.reader, names)
            await self._note_unanswered(
                [prompt.request for prompt, name in zip(chunk, names, strict=True) if name not in known]
            )
            for prompt, name in zip(chunk, names, strict=True):
                yield prompt, known.get(name)

    async def _note_unanswered(self, requests: list[Request]) -> None:
        corpus, by_key = self.asker.corpus, {request.key: request for request in requests}
        answered = known_answers(corpus.journal.reader, list(by_key))
        if self.asker.elsewhere is not None:
            answered |= await self.asker.elsewhere.adopt({key: by_key[key] for key in by_key.keys() - answered})
        corpus.unanswered -= answered
        corpus.unanswered |= by_key.keys() - answered

    def _remember(self, prompt: Prompt, kept: Kept) -> Record:
        asker, request = self.asker, prompt.request
        asker.counts.known += 1
        if kept.row.request_key != request.key:  # it was asked again, with more runners-up
            request = request_of(stored_request(asker.corpus.journal.reader, kept.row.request_key))
        facts, card = _facts_of(asker, kept.row.run_id), _card_of(asker, kept.answer.card_id)
        return record_of_kept(facts, card, kept, request, asker.teacher)

    async def _answer(self, prompt: Prompt) -> None:
        try:
            record = await _answer(self.asker, prompt)
        except TeacherError as error:
            await self._call_failed(prompt, error)
        else:
            self.asker.counts.failures_in_a_row = 0
            if (place := _place(prompt)) in self.dropped:
                self.dropped.discard(place)
                await _undrop(self.asker, place)
            await self._deliver(record)

    async def _deliver(self, record: Record) -> None:
        self.asker.counts.done += 1
        if self.out.full():
            with self.asker.hold():
                await self.out.put(record)
        else:
            self.out.put_nowait(record)

    async def _call_failed(self, prompt: Prompt, error: TeacherError) -> None:
        counts = self.asker.counts
        counts.failures_in_a_row += 1
        empty_account = isinstance(error, RequestRefused) and error.status == 429
        hopeless = error.status in FATAL_STATUS or empty_account or isinstance(error, NotSent | UsageOverrun)
        if self.asker.on_failure == "raise" or hopeless or counts.failures_in_a_row >= FAILURES_IN_A_ROW:
            self._fail(error)
        await _drop(self.asker, prompt, error)

    def _fail(self, error: Exception) -> None:
        self.error = self.error or error
        self.asker.hold.end(self.workers)

    async def _stop_when_asked(self) -> None:
        await self.asker.stopping.wait()
        self._fail(Interrupted("stopped as asked; every answer is kept, and the same command goes on from there"))

    async def _close(self, watcher: asyncio.Task[None]) -> None:
        """Tell the reader that nothing more will come."""
        await asyncio.wait(self.workers)
        watcher.cancel()
        await self.upcoming.aclose()
        await self.out.put(None)


# --- one prompt ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Got:
    """An answer, new or known."""

    request: Request
    answer: Answer
    completion: Completion
    reading: LabelReading | None
    used: Amounts | None
    """What it cost now; None for an answer that was known."""


Finish = Callable[[_Got], RecordRow | None]
"""The record an answer completes, or None while the item needs another answer."""


async def _answer(asker: Asker, prompt: Prompt) -> Record:
    """The record of one prompt; a label the teacher's runners-up left out is asked for once more with more of them."""
    wider = _wider(asker, prompt.request)

    def unless_lacking(got: _Got) -> RecordRow | None:
        return None if wider is not None and _lacks_label(got) else _row(asker, prompt, got, got)

    first, row = await _obtain(asker, prompt, prompt.request, unless_lacking)
    got = first
    if row is None:
        assert wider is not None
        if asker.elsewhere is not None:
            await asker.elsewhere.adopt({wider.key: wider})
        got, row = await _obtain(asker, prompt, wider, lambda got: _row(asker, prompt, first, got))
    assert row is not None
    card = _card_of(asker, got.answer.card_id)
    return record_of(asker.facts, card, row, got.answer, got.request, got.completion, got.reading)


def _lacks_label(got: _Got) -> bool:
    # Where no log-probabilities came at all, asking for more of them brings none either.
    return got.completion.logprobs is not None and got.reading is not None and None in got.reading.logprobs


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
        item["first_cost_microusd"] = 0 if _of_another_run(asker, first) else first.answer.cost_microusd
    return RecordRow(
        record_id=prompt.record_id,
        run_id=asker.facts.run_id,
        dataset=asker.facts.task,
        split=prompt.item.split,
        ordinal=prompt.ordinal,
        item_id=prompt.item.item_id,
        request_key=got.request.key,
        first_key=first.request.key,
        from_cache=_of_another_run(asker, got),
        item=item,
    )


def _of_another_run(asker: Asker, got: _Got) -> bool:
    if got.used is not None:
        return False
    rows = asker.corpus.journal.query(
        "select c.run_id from answers a left join calls c using (call_id) where a.request_key = ?", (got.request.key,)
    )
    return bool(rows) and rows[0][0] != asker.facts.run_id  # another corpus's answer has no call here


async def _obtain(asker: Asker, prompt: Prompt, request: Request, finish: Finish) -> tuple[_Got, RecordRow | None]:
    """The answer to a request (known, under way for somebody else, or bought now) and the record it completes."""
    corpus, key = asker.corpus, request.key
    while True:
        # Looked up with its neighbours a moment ago, unless it has been under way since.
        answer = None if key in corpus.unanswered else find_answer(corpus.journal.reader, key)
        if answer is not None:
            return await _known(asker, request, answer, finish)
        corpus.unanswered.discard(key)
        flight = corpus.flights.get(key)
        if flight is not None:
            await asyncio.wait([flight])
            continue
        corpus.flights[key] = flight = asyncio.get_running_loop().create_future()
        try:
            return await _buy(asker, prompt, request, finish)
        except _Answered:
            continue
        finally:
            del corpus.flights[key]
            corpus.unanswered.discard(key)
            flight.set_result(None)


async def _known(asker: Asker, request: Request, answer: Answer, finish: Finish) -> tuple[_Got, RecordRow | None]:
    completion = asker.teacher.read(request, reply_of(answer))
    reading = read_labels(asker.facts, completion)
    got = _Got(request=request, answer=answer, completion=completion, reading=reading, used=None)
    row = finish(got)
    if row is not None:
        await asker.corpus.journal.run(lambda transaction: store_record(transaction, row))
    return got, row


async def _buy(asker: Asker, prompt: Prompt, request: Request, finish: Finish) -> tuple[_Got, RecordRow | None]:
    try:
        return await _try(asker, prompt, request, finish, 1)
    except TeacherError as error:
        failure = error
    async for attempt in _retrying(asker):
        with attempt:
            number = attempt.retry_state.attempt_number
            if number == 1:
                raise failure  # the try above; most calls need no more, and retrying has its price
            return await _try(asker, prompt, request, finish, number)
    raise AssertionError("unreachable: tenacity re-raises")  # pragma: no cover


def _retrying(asker: Asker) -> AsyncRetrying:
    def again(error: BaseException) -> bool:
        return isinstance(error, TeacherError) and error.transient and not asker.hold.ended

    return AsyncRetrying(
        stop=_Stop(attempts=asker.attempts),
        retry=retry_if_exception(again),
        wait=_wait,
        sleep=asker.sleep,
        reraise=True,
    )


@dataclass(kw_only=True)
class _Stop:
    """Give up after so many failures; being told to slow down is not one, unless it may have been billed.

    A refusal that may be billed is booked at its worst case each time, so trying on and on would use the budget up.
    """

    attempts: int
    failures: int = 0

    def __call__(self, state: RetryCallState) -> bool:
        error = _error(state)
        self.failures += not (isinstance(error, RateLimited) and not error.billable)
        return self.failures >= self.attempts or state.attempt_number >= MOST_TRIES


_backoff = wait_exponential_jitter(multiplier=0.5, max=8.0, jitter=0.5)


def _error(state: RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome else None


def _wait(state: RetryCallState) -> float:
    error = _error(state)
    held_back = isinstance(error, TeacherError) and bool(error.retry_after_s)
    return 0.0 if held_back else _backoff(state)  # the pacer holds everybody back for what was asked


async def _try(
    asker: Asker, prompt: Prompt, request: Request, finish: Finish, attempt: int
) -> tuple[_Got, RecordRow | None]:
    """One try, reserved for itself."""
    if asker.hold.ended:
        raise _Ended
    asker, reservation = await _reserve(asker, prompt, request, attempt)
    with asker.hold():
        return await _ask(asker, reservation, request, finish)


async def _reserve(asker: Asker, prompt: Prompt, request: Request, attempt: int) -> tuple[Asker, Reservation]:
    """The right to ask this now, which nobody else has; and the asker at the rate it was promised at."""
    while True:
        await asker.pacer.turn()
        today = _at_todays_rate(asker)
        intent = _intent(today, prompt, request, attempt)
        try:
            return today, await asker.ledger.reserve(intent, unless=lambda given: _refuse_needless(given, request.key))
        except _Claimed:
            await _unclaimed(asker, request.key)


async def _unclaimed(asker: Asker, key: bytes) -> None:
    """Wait until no other process asks for this; what a dead one was asking for becomes unknown first."""
    journal = asker.corpus.journal
    while (claim := claim_on(journal.reader, key)) is not None:
        if claim.owner_id == journal.owner_id:  # our own flight is the one that waits here, so nobody will close it
            await asker.ledger.abandon(claim)
        elif not claim.alive:
            await asker.ledger.recover()
        else:
            await asyncio.sleep(CLAIM_POLL_S)


def _at_todays_rate(asker: Asker) -> Asker:
    """A call is promised and settled at the price of the day on which it is sent."""
    rate = asker.rate if asker.rate_on is None else asker.rate_on(asker.corpus.clock().date())
    return asker if rate is asker.rate else replace(asker, rate=rate)


def _refuse_needless(transaction: Transaction, key: bytes) -> None:
    # In the transaction that reserves: of several processes that find neither, one comes first.
    if known_answers(transaction.connection, [key]):
        raise _Answered
    if claim_on(transaction.connection, key) is not None:
        raise _Claimed


def _intent(asker: Asker, prompt: Prompt, request: Request, attempt: int) -> Intent:
    bound = asker.teacher.input_tokens_bound(request)
    return Intent(
        run_id=asker.facts.run_id,
        request_key=request.key,
        teacher=asker.teacher.card.name,
        role=f"{asker.facts.kind}:{prompt.item.split}",
        attempt=attempt,
        worst=_with_compute(asker.rate.worst(bound, int(request.parameters["max_tokens"])), asker.compute_us),
        scopes=asker.scopes,
        price_version=asker.rate.version,
    )


def _with_compute(amounts: Amounts, compute_us: int) -> Amounts:
    return replace(amounts, compute_us=compute_us) if compute_us else amounts


def _computed(asker: Asker, reply: Reply) -> int:
    """Processor time of ours that an answer took; where nobody measured it, at most the time until it came."""
    if not asker.compute_us or reply.compute_us is not None:
        return (reply.compute_us or 0) if asker.compute_us else 0
    return max(0, min(asker.compute_us, microseconds(reply.received_time) - microseconds(reply.sent_time)))


async def _ask(
    asker: Asker, reservation: Reservation, request: Request, finish: Finish
) -> tuple[_Got, RecordRow | None]:
    asker.counts.in_flight += 1
    asker.counts.sent += 1
    reply = None
    try:
        reply = await asker.teacher.ask(request, timeout_s=asker.timeout_s)
        got = _read(asker, request, reply)
        row = finish(got)
    except TeacherError as error:
        error.request_id = error.request_id or (reply.request_id if reply else None)
        await _close_failed(asker, reservation, error)
        raise
    except BaseException as error:
        reason = f"{type(error).__name__} while asking"
        await asker.corpus.journal.run(lambda transaction: asker.ledger.unknown(transaction, reservation, reason))
        raise
    finally:
        asker.counts.in_flight -= 1
    await _keep(asker, reservation, got, row)
    return got, row


async def _close_failed(asker: Asker, reservation: Reservation, error: TeacherError) -> None:
    if isinstance(error, RateLimited):
        asker.pacer.pause(error.retry_after_s or UNTOLD_PAUSE_S)
    elif error.retry_after_s is not None:
        asker.pacer.pause(error.retry_after_s)
    await asker.corpus.journal.run(lambda transaction: asker.ledger.failed(transaction, reservation, error))
    asker.ledger.freed()


def _read(asker: Asker, request: Request, reply: Reply) -> _Got:
    completion = asker.teacher.read(request, reply)
    used = _with_compute(asker.rate.used(completion.usage), _computed(asker, reply))
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
    reading = read_labels(asker.facts, completion)
    return _Got(request=request, answer=answer, completion=completion, reading=reading, used=used)


async def _keep(asker: Asker, reservation: Reservation, got: _Got, row: RecordRow | None) -> None:
    """Settle and store in one transaction: paid for and kept, or neither."""
    used = got.used
    assert used is not None

    def operation(transaction: Transaction) -> None:
        asker.ledger.settle(transaction, reservation, used, request_id=got.answer.provider_request_id)
        store_answer(transaction, got.request, got.answer, reservation.call_id)
        if row is not None:
            store_record(transaction, row)

    await asker.corpus.journal.run(operation)
    asker.ledger.freed()
    if asker.elsewhere is not None:
        asker.elsewhere.offer(got.answer, asker.card)
    if used.exceeds(reservation.worst):
        raise UsageOverrun(
            f"{asker.card.teacher} reported {got.completion.usage.total_tokens} tokens where at most"
            f" {reservation.worst.tokens} were possible; all are booked, and no more is asked of it"
        )


def _place(prompt: Prompt) -> tuple[str, str]:
    return f"ask:{prompt.item.split}", prompt.item.item_id


def _dropped(asker: Asker) -> set[tuple[str, str]]:
    rows = asker.corpus.journal.query(
        "select stage, item_id from drops where run_id = ? and stage glob 'ask:*'", (asker.facts.run_id,)
    )
    return {(stage, item_id) for stage, item_id in rows}


async def _drop(asker: Asker, prompt: Prompt, error: TeacherError) -> None:
    reason = type(error).__name__
    asker.counts.drops[reason] += 1
    values = (asker.facts.run_id, *_place(prompt), reason, str(error))
    sql = "insert or replace into drops(run_id, stage, item_id, reason, detail) values(?, ?, ?, ?, ?)"
    await asker.corpus.journal.run(lambda transaction: transaction.execute(sql, values).close())


async def _undrop(asker: Asker, place: tuple[str, str]) -> None:
    values = (asker.facts.run_id, *place)
    sql = "delete from drops where run_id = ? and stage = ? and item_id = ?"
    await asker.corpus.journal.run(lambda transaction: transaction.execute(sql, values).close())


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
