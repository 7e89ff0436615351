"""Fans prompts out to a teacher and stores every answer that was paid for.

This is the only place that starts teacher tasks. For each prompt: known answer? → single flight → reserve → pace → ask
→ read → settle and store in one transaction. A fixed number of workers and a short queue stand between the prompts and
the reader, so a slow reader slows the asking and a reader that leaves ends it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from copy import copy
from dataclasses import dataclass, field, replace
from datetime import date
from importlib import import_module
from itertools import islice
from typing import Any, Literal, Protocol

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception
from tenacity.wait import wait_exponential_jitter

from corpusgen.assemble import RunFacts, part_of, read_labels, record_of, record_of_kept, reply_of, request_of
from corpusgen.budget.amounts import Amounts
from corpusgen.budget.ledger import Intent, Ledger, Reservation, balances, claim_on, unheard_of
from corpusgen.budget.prices import Rate
from corpusgen.corpus import Corpus, microseconds
from corpusgen.elsewhere import Elsewhere
from corpusgen.errors import (
    AnswerBarred,
    AnswersMissing,
    CorpusgenError,
    Interrupted,
    InvalidAnswer,
    NotSent,
    RateLimited,
    RequestRefused,
    TeacherError,
    UsageOverrun,
    Withheld,
)
from corpusgen.frozen import quickly_made
from corpusgen.garbage import large_blocks_given_back, seldom_collected
from corpusgen.journal import Transaction
from corpusgen.prompting.prompts import Prompt, Requester, asking_for, part_of_prompt
from corpusgen.records import Completion, Json, Record, Reply, Request, TeacherRole
from corpusgen.screen import withheld_aside
from corpusgen.standing import DOUBTFUL_STATUS, FAILURES_IN_A_ROW, Standing, hopeless, is_another_model
from corpusgen.store.answers import (
    Answer,
    Card,
    Kept,
    RecordRow,
    find_answer,
    kept_records,
    known_answers,
    runs_of_records,
    store_answer,
    store_record,
    stored_request,
)
from corpusgen.teachers.labels import LabelReading
from corpusgen.teachers.pacing import Pacer
from corpusgen.teachers.rates import Ticket
from corpusgen.teachers.reading import most_output
from corpusgen.teachers.structured import repair_of
from corpusgen.teachers.teacher import Teacher

LOOK_AHEAD = 256
WIDER = 10
"""How many times more runners-up are asked for when a label was not among them."""
MOST_TRIES = 50
MOST_UNREADABLE = 2
"""Each was perhaps paid for; a server that answers so twice will go on to."""
REFUSALS_AT_FIRST = 100
"""So many refused prompts before the first answer, and it is not the prompts."""
UNCOUNTED = "answered, and nobody counted its tokens"
CLAIM_POLL_S = 0.07
"""How often who waits for another process's answer looks for it."""


@dataclass(kw_only=True)
class Counts:
    """What has happened so far, for whoever watches."""

    done: int = 0
    known: int = 0
    in_flight: int = 0
    sent: int = 0
    drops: Counter[str] = field(default_factory=Counter)
    failures_in_a_row: int = 0
    refused_at_first: int = 0
    """Prompts refused while nothing has been answered; a refusal may be on the bill."""
    elsewhere: int = 0
    """Answers that came from other corpora."""
    other_models: Counter[str] = field(default_factory=Counter)
    """Answers by another model than the one that was asked, by its name."""
    models: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Answers whose model calls itself otherwise than it was asked for, by the teacher and that name."""
    quarantined: Counter[str] = field(default_factory=Counter)
    """Answers that are kept and go into no dataset, by why: nobody checked the terms of the model that gave them."""


@dataclass(kw_only=True)
class Hold:
    """Who is not cut off when the asking ends: a worker that has sent something or has something to hand over."""

    ended: bool = False
    tasks: set[asyncio.Task[Any] | None] = field(default_factory=set)

    def __enter__(self) -> None:
        """Inside, the end of the asking leaves this task alone."""
        self.tasks.add(asyncio.current_task())

    def __exit__(self, *_: object) -> None:
        self.tasks.discard(asyncio.current_task())

    def end(self, workers: Iterable[asyncio.Task[None]]) -> None:
        """Send nothing more: who waits for money, for a pause or for somebody else's answer goes home."""
        if self.ended:  # cutting a worker off twice would interrupt its tidying up
            return
        self.ended = True
        spared = {*self.tasks, asyncio.current_task()}
        for task in workers:
            if task not in spared:
                task.cancel()


class Permit(Protocol):
    """The right to ask, which may end while a run goes on."""

    @property
    def due(self) -> bool:
        """Whether it has to be looked at again before anything is sent."""

    @property
    def now(self) -> object:
        """What it would be decided by at the moment: the same object as long as nothing of that has changed."""

    async def renew(self) -> None:
        """Look at it again. Raises PolicyRefused where it has ended."""


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
    wants_known: bool = True
    """Whether the reader is handed the records of what is known already; if not, they are counted and not read."""
    rate_on: Callable[[date], Rate] | None = None
    """The rate of a day, for a run that goes on past midnight; without one ``rate`` holds."""
    panel: tuple[Asker, ...] = ()
    """Every teacher of the run, where there are several; all of them work on the same counts."""
    after: tuple[int, ...] = ()
    """Who of the panel is asked, one after the other, where this teacher would or could not answer."""
    role: TeacherRole = "primary"
    standing: Standing = field(default_factory=Standing)
    request_for: Requester | None = None
    """How this teacher is asked about an item that another was asked about first."""
    blocked: frozenset[str] = frozenset()
    """Kinds of personal data that are never sent; secrets are not, whatever stands here."""
    at_once: asyncio.Semaphore | None = None
    """Its calls under way, where several teachers share the workers."""
    permit: Permit | None = None
    """What lets the asking go on past midnight and past changes of terms; None: nothing can end it."""
    put_aside: Callable[[str], str | None] = lambda served: None
    """Why answers by a model are put aside: the terms that were checked are not this one's; None if they are not."""
    barred: Callable[[Card], str | None] = lambda card: None
    """Why known answers of this card, given under other terms, are not for this use; who asks one by one is told."""

    def seat(self, request: Request) -> Asker:
        """Who of the panel a request is for."""
        for one in self.panel:
            if (one.teacher.card.identity, one.teacher.card.model) == (request.teacher, request.model):
                return one
        return self

    def held_by(self, hold: Hold) -> Asker:
        """The same in the hands of this hold, every teacher of it."""
        return replace(self, hold=hold, panel=tuple(replace(one, hold=hold) for one in self.panel))


@asynccontextmanager
async def answers(asker: Asker, prompts: Iterable[Prompt]) -> AsyncIterator[AsyncIterator[Record]]:
    """A stream of the records of prompts, as they are answered.

    Leaving the block ends the asking: calls under way are waited for and stored, no new one is sent. When the block is
    left by cancellation they are cut off and booked as unknown. A failing call arrives at the reader as itself, after
    the answers of its neighbours. At most ``2 * in_flight`` prompts are ahead of the reader: one in each worker's hands
    and as many in the queue.
    """
    stream = _Stream(asker=asker.held_by(Hold()), prompts=iter(prompts))
    failure: Exception | None = None
    large_blocks_given_back()
    with seldom_collected():
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
    prepared: asyncio.Future[Any] | None = None

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
            names = [name for prompt in chunk for name in prompt.record_ids]
            runs = runs_of_records(self.asker.corpus.journal.reader, names)
            own = self.asker.facts.run_id
            await _note_reuses(self.asker, [name for name in names if runs.get(name, own) != own])
            await self._note_unanswered(
                [one.request for one in chunk if not all(map(runs.__contains__, one.record_ids))]
            )
            known = self._kept(list(runs))
            for prompt in chunk:
                there = [at for at, name in enumerate(prompt.record_ids) if name in runs]
                for at in there:
                    await self._taken_back(prompt, at)
                    if (kept := known.get(prompt.record_ids[at])) is not None:
                        yield prompt, kept
                    else:
                        self.asker.counts.known += 1
                        self.asker.counts.done += 1
                if not there:
                    yield prompt, None
                elif len(there) < len(prompt.record_ids):
                    yield replace(prompt, known=frozenset(there)), None

    def _kept(self, names: list[str]) -> Mapping[str, Kept]:
        return kept_records(self.asker.corpus.journal.reader, names) if names and self.asker.wants_known else {}

    async def _note_unanswered(self, requests: list[Request]) -> None:
        corpus, by_key = self.asker.corpus, {request.key: request for request in requests}
        answered = known_answers(corpus.journal.reader, list(by_key))
        for one in self.asker.panel or (self.asker,):
            if one.elsewhere is not None:
                left = {key: by_key[key] for key in by_key.keys() - answered}
                mine = {key: request for key, request in left.items() if self.asker.seat(request) is one}
                adopted = await one.elsewhere.adopt(mine)
                self.asker.counts.elsewhere += len(adopted)
                answered |= adopted
        corpus.unanswered -= answered
        corpus.unanswered |= by_key.keys() - answered

    def _remember(self, prompt: Prompt, kept: Kept) -> Record:
        asker, request = self.asker, prompt.request
        asker.counts.known += 1
        if kept.row.request_key != request.key:  # it was asked again: with more runners-up, mended, of another teacher
            request = request_of(stored_request(asker.corpus.journal.reader, kept.row.request_key))
        facts, card = _facts_of(asker, kept.row.run_id), _card_of(asker, kept.answer.card_id)
        return record_of_kept(facts, card, kept, request, asker.seat(request).teacher)

    async def _prepared(self) -> None:
        """Read what the first answer will need before anything is sent: reading it takes a quarter of a second, in
        which nobody would hear the server.
        """
        if self.prepared is None:
            self.prepared = asyncio.ensure_future(asyncio.to_thread(import_module, "corpusgen.store.fresh"))
        if not self.prepared.done():
            await asyncio.shield(self.prepared)

    async def _answer(self, prompt: Prompt) -> None:
        await self._prepared()
        if prompt.count > 1:
            await self._answer_several(prompt)
            return
        try:
            record = await _answer(self.asker, prompt)
        except TeacherError as error:
            await self._call_failed(prompt, error)
        else:
            await self._answered(prompt, 0, record)

    async def _answer_several(self, prompt: Prompt) -> None:
        """Answer a prompt that asks for several answers in one call; what fails is only what has none."""
        several = _Several(asker=self.asker, prompt=prompt, made=self._answered)
        if self.asker.panel:
            await _several_of_panel(self.asker, several)
        else:
            await several.run()
        for failure in dict.fromkeys(several.failed.values()):
            await self._call_failed(prompt, failure, [at for at, why in several.failed.items() if why is failure])

    async def _taken_back(self, prompt: Prompt, at: int) -> None:
        """What has a record is not listed as dropped, whatever befell it at an earlier start."""
        if self.dropped and (place := _place(prompt, at)) in self.dropped:
            self.dropped.discard(place)
            await _undrop(self.asker, place)

    async def _answered(self, prompt: Prompt, at: int, record: Record) -> None:
        """Hand over the record of a prompt, or of the so-manieth of its answers."""
        self.asker.counts.failures_in_a_row = 0
        await self._taken_back(prompt, at)
        await self._deliver(record)

    async def _deliver(self, record: Record) -> None:
        self.asker.counts.done += 1
        if self.out.full():
            with self.asker.hold:
                await self.out.put(record)
        else:
            self.out.put_nowait(record)

    async def _call_failed(self, prompt: Prompt, error: TeacherError, places: Sequence[int] = (0,)) -> None:
        counts = self.asker.counts
        counts.failures_in_a_row += hopeless(error) or not isinstance(error, RequestRefused | AnswersMissing | Withheld)
        counts.refused_at_first += isinstance(error, RequestRefused)
        over = _for_all(self.asker, error) and not somebody_left(self.asker, prompt)
        if (self.asker.on_failure == "raise" and not isinstance(error, Withheld)) or over:
            self._fail(error)
        elif counts.failures_in_a_row >= FAILURES_IN_A_ROW:
            self._fail(_given_up(self.asker.seat(prompt.request), counts.failures_in_a_row, error))
        elif not counts.done and counts.refused_at_first >= REFUSALS_AT_FIRST:
            self._fail(_given_up(self.asker.seat(prompt.request), counts.refused_at_first, error))
        for at in places:
            await note_drop(self.asker, prompt, error, at)

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


@quickly_made
@dataclass(frozen=True, kw_only=True)
class _Got:
    """An answer, new or known."""

    request: Request
    answer: Answer
    completion: Completion
    reading: LabelReading | None
    used: Amounts | None
    """What it cost now; None for an answer that was known."""
    choices: tuple[Completion, ...] = ()
    """Every answer that can be read, where several were asked for; ``completion`` is one of them."""
    share: tuple[int, int] | None = None
    """Where several were asked for: which part of how many of the call's cost this one bears."""

    @property
    def cost_microusd(self) -> int:
        """What it costs, of the answers of one call its own part."""
        cost = self.answer.cost_microusd
        return cost if self.share is None else part_of(cost, *self.share)


Finish = Callable[[_Got], tuple[RecordRow, ...]]
"""The records an answer completes; none while the item needs another answer."""


async def _answer(asker: Asker, prompt: Prompt) -> Record:
    """The record of one prompt."""
    if asker.panel:
        return await _answer_of_panel(asker, prompt)
    try:
        record = await _answer_of(asker, prompt, prompt.request, [], last=True)
    except TeacherError as error:
        _failed(asker, error)
        raise
    asker.standing.answered()
    assert record is not None
    return record


def _failed(asker: Asker, error: TeacherError) -> None:
    """Note how a teacher did; one that answered in an earlier try of this run has shown that it may be asked."""
    standing = asker.standing
    if error.status in DOUBTFUL_STATUS and not standing.has_answered:
        sql = "select exists(select 1 from calls where run_id = ? and teacher = ? and state = 'settled')"
        named = (asker.facts.run_id, asker.teacher.card.name)
        standing.has_answered = bool(asker.corpus.journal.query(sql, named)[0][0])
    standing.failed(error, asker.corpus.clock())


def _given_up(asker: Asker, failures: int, error: TeacherError) -> TeacherError:
    """The last of many failures in a row, with what to look at."""
    card, scope = asker.teacher.card, f"run:{asker.facts.run_id}"
    kept = [one.unconfirmed for one in balances(asker.corpus.journal, [scope]) if one.unit == "microusd"]
    settled_by = f"; ${sum(kept) / 1e6:,.6f} are unconfirmed: settle them with corpusgen reconcile" if sum(kept) else ""
    told = copy(error)
    message = (
        f"{card.name} at {card.host} failed {failures} times in a row, so no more is asked; the last time: {error}"
        f"{settled_by}. Check that it runs and its base_url, then run again: every answer is kept"
    )
    told.args = (message,)
    return told


def _for_all(asker: Asker, error: TeacherError) -> bool:
    """Whether a failure may be that of every other prompt; of several teachers it is said by who is left."""
    doubtful = error.status in DOUBTFUL_STATUS and (bool(asker.panel) or asker.standing.out is not None)
    return hopeless(error) or doubtful


async def _answer_of(
    asker: Asker, prompt: Prompt, request: Request, earlier: list[_Got], *, last: bool
) -> Record | None:
    """The record that one teacher's answer makes, asked once more where that may mend it; ``earlier`` grows.

    None where it refused and is not the last to be asked.
    """
    again: Request | None = None

    def unless_lacking(got: _Got) -> tuple[RecordRow, ...]:
        nonlocal again
        again = None if got.request is not request else second_request(asker, request, got.completion, got.reading)
        if again is not None or (refused(got.completion) and not last):
            return ()
        return (_row(asker, prompt, request, earlier, got),)

    got, rows = await _obtain(asker, prompt, request, unless_lacking)
    if not rows and again is not None and asker.standing.out is None:
        earlier.append(got)
        if asker.elsewhere is not None:
            await asker.elsewhere.adopt({again.key: again})
        got, rows = await _obtain(asker, prompt, again, unless_lacking)
    if not rows and last:  # no more is asked of it meanwhile: what it said is all there is
        got, rows = await _obtain(asker, prompt, request, lambda got: (_row(asker, prompt, request, earlier, got),))
    if not rows:
        earlier.append(got)
        return None
    return await _record(asker, prompt, got, rows[0])


async def _record(asker: Asker, prompt: Prompt, got: _Got, row: RecordRow, at: int = 0) -> Record:
    """The record of an answer, what is wrong with it noted."""
    card = _card_of(asker, got.answer.card_id)
    record = record_of(asker.facts, card, row, got.answer, got.request, got.completion, got.reading)
    for verdict in record.verdicts:
        if not verdict.kept:
            await _note(asker, prompt, _stage(verdict.check, prompt, at), "does not fit", verdict.reason or "")
    # Of a schema and of several answers more goes into the record than is certain to be the same when it is read again.
    if got.request.schema is None and got.share is None:
        from corpusgen.store.fresh import fresh_of  # with Arrow, which an answered run needs nothing of

        fresh_of(asker.corpus).add(row, record, asker.facts)
    return record


def refused(completion: Completion) -> bool:
    """Whether a teacher answered only that it will not."""
    return completion.finish_reason in ("refusal", "content_filter")


def second_request(
    asker: Asker, request: Request, completion: Completion, reading: LabelReading | None
) -> Request | None:
    """What is to be asked next where an answer lacks a label or does not fit its schema; None where it is whole."""
    if lacks_label(completion, reading):
        return wider_request(asker, request)
    return None if request.schema is None else repair_of(request, completion)


def lacks_label(completion: Completion, reading: LabelReading | None) -> bool:
    """Whether the runners-up of an answer leave a label out."""
    # Where no log-probabilities came at all, asking for more of them brings none either.
    return completion.logprobs is not None and reading is not None and None in reading.logprobs


def wider_request(asker: Asker, request: Request) -> Request | None:
    """The same question with more runners-up, where the teacher gives more."""
    asked = request.parameters.get("top_logprobs")
    most = asker.teacher.card.capabilities.top_logprobs
    if not isinstance(asked, int) or asked >= most:
        return None
    return replace(request, parameters={**request.parameters, "top_logprobs": min(most, asked * WIDER)})


def _row(asker: Asker, prompt: Prompt, request: Request, earlier: Sequence[_Got], got: _Got, at: int = 0) -> RecordRow:
    item: dict[str, Any] = {
        "input": prompt.item.input,
        "source_ids": list(prompt.item.source_ids),
        "sample_index": prompt.request.sample_index + at,
    }
    if prompt.item.parent_ids:
        item["parent_ids"] = list(prompt.item.parent_ids)
    if got.share is not None:
        item |= {"choice": got.completion.choice_index, "share": got.share}
    if earlier:
        paid = [0 if _of_another_run(asker, one) else one.cost_microusd for one in earlier]
        item["first_cost_microusd"] = sum(paid)
    if len(earlier) > 1:
        item["between"] = [one.request.key.hex() for one in earlier[1:]]
    if len(got.request.messages) > len(request.messages):
        item["turns"] = len(request.messages)
    if asker.role != "primary":
        item["role"] = asker.role
    return RecordRow(
        record_id=prompt.record_ids[at],
        run_id=asker.facts.run_id,
        dataset=asker.facts.task,
        split=prompt.item.split,
        ordinal=prompt.ordinal + at,
        item_id=prompt.item.item_id,
        request_key=got.request.key,
        first_key=earlier[0].request.key if earlier else got.request.key,
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


# --- one question from outside ---------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Said:
    """What a teacher said to one question, and the records it is kept as."""

    answer: Answer
    completions: tuple[Completion, ...]
    record_ids: tuple[str, ...]
    """In the order of the completions."""
    bought: bool
    """Whether it was paid for now; else it was known, or somebody else was asking the same."""
    adopted: bool = False
    """Whether it came from another corpus just now."""


async def ask_one(
    asker: Asker, prompt: Prompt, *, told: Mapping[str, Json] | None = None, recorded: bool = True
) -> Said:
    """The answer to one question as it came: known, under way for somebody else, or bought now.

    Nothing is asked a second time to mend what came, and each of several answers is a record of its own. ``told`` is
    kept with the records; without ``recorded`` there are none, only the answer and what it cost. Raises what
    the call raised; a TeacherError is noted as a drop, as in a run. Where the asker's hold has ended, nothing more is
    sent.
    """
    adopted = await _adopted(asker, prompt.request)
    try:
        said = await _said(asker, prompt, told or {}, recorded)
    except UsageOverrun as error:  # booked in full; what was answered is kept, and paid for
        if not known_answers(asker.corpus.journal.reader, [prompt.request.key]):
            await note_drop(asker, prompt, error)
            raise
        said = replace(await _said(asker, prompt, told or {}, recorded), bought=True)
    except _Ended:
        raise NotSent("it was not sent in time, and nothing is owed") from None
    except TeacherError as error:
        await note_drop(asker, prompt, error)
        raise
    return replace(said, adopted=True) if adopted else said


async def _adopted(asker: Asker, request: Request) -> bool:
    if asker.elsewhere is None or request.key in asker.corpus.flights:
        return False
    if known_answers(asker.corpus.journal.reader, [request.key]):
        return False
    return bool(await asker.elsewhere.adopt({request.key: request}))


async def _said(asker: Asker, prompt: Prompt, told: Mapping[str, Json], recorded: bool) -> Said:
    request, reader, reused = prompt.request, asker.corpus.journal.reader, list[str]()

    def lacking(got: _Got) -> tuple[RecordRow, ...]:
        if got.used is None:
            _refuse_barred(asker, got.answer)
        rows = [_row_of_one(asker, prompt, one, told) for one in _each(got)] if recorded else []
        if got.used is not None:
            return tuple(rows)
        runs = runs_of_records(reader, [row.record_id for row in rows])
        reused.extend(name for name, run_id in runs.items() if run_id != asker.facts.run_id)
        return tuple(row for row in rows if row.record_id not in runs)

    got, rows = await _obtain(asker, prompt, request, lacking)
    await _note_reuses(asker, reused)
    new = {row.record_id: row for row in rows}
    for one in _each(got):
        at = one.completion.choice_index
        if (row := new.get(prompt.record_ids[at])) is not None:
            await _record(asker, prompt, one, row, at)
            await _undrop_if_noted(asker, _place(prompt, at))
    completions = got.choices or (got.completion,)
    if rows and len(completions) < prompt.count:
        await _note_left_out(asker, prompt, {one.choice_index for one in completions})
    names = tuple(prompt.record_ids[one.choice_index] for one in completions)
    return Said(answer=got.answer, completions=completions, record_ids=names, bought=got.used is not None)


def _refuse_barred(asker: Asker, answer: Answer) -> None:
    """Raise AnswerBarred for a known answer whose own terms do not allow what this run is for."""
    card = _card_of(asker, answer.card_id)
    if card.terms_set_id != asker.card.terms_set_id and (why := asker.barred(card)) is not None:
        raise AnswerBarred(why)


def _each(got: _Got) -> list[_Got]:
    """Each of the answers to one call, with its part of the cost."""
    if not got.choices:
        return [got]
    among = len(got.choices)
    return [replace(got, completion=choice, share=(at, among)) for at, choice in enumerate(got.choices)]


def _row_of_one(asker: Asker, prompt: Prompt, got: _Got, told: Mapping[str, Json]) -> RecordRow:
    row = _row(asker, prompt, prompt.request, (), got, got.completion.choice_index)
    return replace(row, item={**row.item, **told}) if told else row


async def _undrop_if_noted(asker: Asker, place: tuple[str, str]) -> None:
    sql = "select exists(select 1 from drops where run_id = ? and stage = ? and item_id = ?)"
    if asker.corpus.journal.query(sql, (asker.facts.run_id, *place))[0][0]:
        await _undrop(asker, place)


async def _note_left_out(asker: Asker, prompt: Prompt, given: set[int]) -> None:
    name = asker.teacher.card.name
    error = AnswersMissing(f"{name} gave {len(given)} of {prompt.count} answers to one call; no more were asked for")
    for at in sorted(set(range(prompt.count)) - given):
        await note_drop(asker, prompt, error, at)


# --- several answers to a call ---------------------------------------------------------------------------------------


Made = Callable[[Prompt, int, Record], Awaitable[None]]
"""Told of the record that the so-manieth answer of a prompt has become."""


@dataclass(kw_only=True)
class _Several:
    """A prompt that asks for several answers in one call, each of which becomes a record of its own."""

    asker: Asker
    prompt: Prompt
    made: Made
    last: bool = True
    """Whether nobody else is asked for what this teacher refuses."""
    failed: dict[int, TeacherError] = field(default_factory=dict)
    """Why there is no record of an answer, by its number."""
    refused: dict[int, list[_Got]] = field(default_factory=dict)
    """What was said where somebody else is to be asked, by its number."""
    left: set[int] = field(init=False)
    """The numbers of the answers that are neither records nor given up."""

    def __post_init__(self) -> None:
        self.left = set(range(self.prompt.count)) - self.prompt.known

    async def run(self) -> None:
        """Ask for all of them in one call, and in one more for those that did not come."""
        try:
            await self._ask_for_all()
        except TeacherError as error:
            _failed(self.asker, error)
            self.fail(error)
        else:
            self.asker.standing.answered()

    def fail(self, error: TeacherError) -> None:
        """Give up what is left, for this reason."""
        self.failed |= dict.fromkeys(sorted(self.left), error)
        self.left.clear()

    async def _ask_for_all(self) -> None:
        asker, request, count = self.asker, self.prompt.request, self.prompt.count
        missing = await self._ask(request, range(count))
        if self.left.intersection(missing):
            further = asking_for(request, len(missing), request.sample_index + missing[0])
            if asker.elsewhere is not None:
                await asker.elsewhere.adopt({further.key: further})
            self._give_up(missing, await self._ask(further, missing))

    def _give_up(self, asked: Sequence[int], missing: Sequence[int]) -> None:
        lost = self.left.intersection(missing)
        if not lost:
            return
        came, count, name = self.prompt.count - len(asked), self.prompt.count, self.asker.teacher.card.name
        error = AnswersMissing(
            f"{name} gave {came} of {count} answers to one call, and {len(asked) - len(missing)} of the {len(asked)}"
            " others when asked once more; asking.samples_per_call: 1 asks for each by itself, as another run"
        )
        self.failed |= dict.fromkeys(sorted(lost), error)
        self.left -= lost

    async def _ask(self, request: Request, places: Sequence[int]) -> list[int]:
        """Have the answers to one call become records; gives back which of these places it gave none for."""

        def whole(got: _Got) -> tuple[RecordRow, ...]:
            placed = self._placed(got, places)
            return tuple(self._row(one, at) for at, one in placed.items() if self._is_whole(one, at))

        got, rows = await _obtain(self.asker, self.prompt, request, whole)
        if got.completion.surplus:
            await self._tell_surplus(got)
        made = {row.record_id: row for row in rows}
        placed = self._placed(got, places)
        for at, one in placed.items():
            if (row := made.get(self.prompt.record_ids[at])) is not None:
                await self._made(one, row, at)
        for at, one in placed.items():
            if at in self.left and self._is_passed_on(one):
                self._pass_on(at, one)
            elif at in self.left:
                await self._mend(one, at)
        given = {places[choice.choice_index] for choice in got.choices or (got.completion,)}
        return [at for at in places if at not in given]

    def _placed(self, got: _Got, places: Sequence[int]) -> dict[int, _Got]:
        """Each answer of a call that is not a record yet, by the number it is to have."""
        if not got.choices:  # one was asked for
            return {at: got for at in places if at in self.left}
        among = len(got.choices)
        return {
            places[choice.choice_index]: replace(got, completion=choice, share=(at, among))
            for at, choice in enumerate(got.choices)
            if places[choice.choice_index] in self.left
        }

    def _row(self, got: _Got, at: int) -> RecordRow:
        return _row(self.asker, self.prompt, got.request, (), got, at)

    def _is_whole(self, got: _Got, at: int) -> bool:
        return not self._is_passed_on(got) and self._again(got, at) is None

    def _is_passed_on(self, got: _Got) -> bool:
        return not self.last and refused(got.completion)

    def _pass_on(self, at: int, *said: _Got) -> None:
        self.refused[at] = list(said)
        self.left.discard(at)

    def _again(self, got: _Got, at: int) -> Request | None:
        """What is to be asked next where an answer does not fit its schema."""
        if got.request.schema is None:
            return None
        alone = asking_for(got.request, 1, self.prompt.request.sample_index + at)
        return second_request(self.asker, alone, got.completion, got.reading)

    async def _mend(self, got: _Got, at: int) -> None:
        """Ask once more for an answer that does not fit; its neighbours are not touched by how that ends."""
        asker, prompt, again = self.asker, self.prompt, self._again(got, at)
        assert again is not None
        if asker.standing.out is not None:  # no more is asked of it: what it said is all there is
            row = self._row(got, at)
            await asker.corpus.journal.run(lambda transaction: store_record(transaction, row))
            await self._made(got, row, at)
            return
        if asker.elsewhere is not None:
            await asker.elsewhere.adopt({again.key: again})

        def whole(mended: _Got) -> tuple[RecordRow, ...]:
            return () if self._is_passed_on(mended) else (_row(asker, prompt, got.request, (got,), mended, at),)

        try:
            mended, rows = await _obtain(asker, prompt, again, whole)
        except UsageOverrun:
            raise
        except TeacherError as error:
            _failed(asker, error)
            self.failed[at] = error
            self.left.discard(at)
        else:
            await self._made(mended, rows[0], at) if rows else self._pass_on(at, got, mended)

    async def _made(self, got: _Got, row: RecordRow, at: int) -> None:
        self.left.discard(at)
        await self.made(self.prompt, at, await _record(self.asker, self.prompt, got, row, at))

    async def _tell_surplus(self, got: _Got) -> None:
        asked = len(got.choices)
        said = f"gave {asked + got.completion.surplus} answers where {asked} were asked for; the first are kept"
        detail = f"{self.asker.teacher.card.name} {said}"
        await _note(self.asker, self.prompt, _stage("surplus", self.prompt), "more answers than asked for", detail)


# --- several teachers ------------------------------------------------------------------------------------------------


async def _answer_of_panel(asker: Asker, prompt: Prompt) -> Record:
    """The record of one prompt by the first of its teachers that answers; what the others said or cost is kept."""
    return await _answer_by(asker, prompt, _chain(asker, prompt), [])


async def _answer_by(asker: Asker, prompt: Prompt, chain: Sequence[Asker], earlier: list[_Got]) -> Record:
    for one in chain:
        last = one is chain[-1]
        request = prompt.request if _is_first(one, prompt) else _request_of(one, prompt)
        try:
            record = await _answer_of_one(one, prompt, request, earlier, last=last)
        except Withheld:
            raise  # nobody else may see it either
        except TeacherError as error:
            if not asker.hold.ended:
                _failed(one, error)
            if last or asker.hold.ended:
                raise
            await _note_passed_on(one, prompt, type(error).__name__, str(error))
            continue
        one.standing.answered()
        if record is not None:
            return record
        said = earlier[-1].completion
        await _note_passed_on(one, prompt, said.finish_reason, said.refusal or said.text)
    raise AssertionError("unreachable: the last one answers or raises")  # pragma: no cover


async def _several_of_panel(asker: Asker, several: _Several) -> None:
    """Ask for all answers of a prompt in one call, and the next teachers for each that this brings none of."""
    prompt = several.prompt
    try:
        chain = _chain(asker, prompt)
    except TeacherError as error:
        several.fail(error)
        return
    if _is_first(chain[0], prompt):
        several.asker, *chain = chain
        several.last = not chain
        await _in_its_turn(several)
    else:  # who would be first is away
        several.refused |= {at: [] for at in sorted(several.left)}
        several.left.clear()
    for at in sorted({*several.failed, *several.refused}) if chain else ():
        await _passed_on(asker, several, at, chain)


async def _in_its_turn(several: _Several) -> None:
    """As ``_answer_of_one``: an overrun is the end of this teacher's asking, not of what it has answered."""
    one = several.asker
    assert one.at_once is not None
    async with one.at_once:
        if one.standing.out is not None:  # since this prompt got into line
            several.fail(one.standing.out)
            return
        await several.run()
        if not several.last and any(isinstance(error, UsageOverrun) for error in several.failed.values()):
            several.left |= several.failed.keys()
            several.failed.clear()
            await several.run()


async def _passed_on(asker: Asker, several: _Several, at: int, chain: Sequence[Asker]) -> None:
    """One of the answers of a prompt, asked of the next teachers by itself."""
    error, said = several.failed.get(at), several.refused.get(at, [])
    if isinstance(error, Withheld) or asker.hold.ended:
        return
    part = part_of_prompt(several.prompt, at)
    if error is not None:
        await _note_passed_on(several.asker, part, type(error).__name__, str(error))
    elif said:
        last = said[-1].completion
        await _note_passed_on(several.asker, part, last.finish_reason, last.refusal or last.text)
    several.failed.pop(at, None)
    try:
        record = await _answer_by(asker, part, chain, said)
    except TeacherError as why:
        several.failed[at] = why
    else:
        await several.made(several.prompt, at, record)


def _chain(asker: Asker, prompt: Prompt) -> list[Asker]:
    """Who is asked for a prompt, one after the other; who is away is passed over, unless all are."""
    now = asker.corpus.clock()
    first = asker.seat(prompt.request)
    whole = [first, *(asker.panel[at] for at in first.after)]
    there = [one for one in whole if one.standing.out is None]
    if not there:
        assert whole[-1].standing.out is not None
        raise whole[-1].standing.out
    return [one for one in there if not one.standing.away(now)] or there


def somebody_left(asker: Asker, prompt: Prompt) -> bool:
    """Whether there is still a teacher that can be asked for such a prompt."""
    if not asker.panel:
        return False
    first, now = asker.seat(prompt.request), asker.corpus.clock()
    return any(not one.standing.away(now) for one in (first, *(asker.panel[at] for at in first.after)))


def _is_first(one: Asker, prompt: Prompt) -> bool:
    card = one.teacher.card
    return (card.identity, card.model) == (prompt.request.teacher, prompt.request.model)


def _request_of(one: Asker, prompt: Prompt) -> Request:
    assert one.request_for is not None
    return one.request_for(prompt.item, prompt.request.sample_index)


async def _answer_of_one(
    one: Asker, prompt: Prompt, request: Request, earlier: list[_Got], *, last: bool
) -> Record | None:
    """As ``_answer_of``, in this teacher's turn; an overrun is the end of its asking, not of the answer."""
    assert one.at_once is not None
    if one.elsewhere is not None and not _is_first(one, prompt):
        await one.elsewhere.adopt({request.key: request})
    async with one.at_once:
        if one.standing.out is not None:  # since this prompt got into line
            raise one.standing.out
        try:
            return await _answer_of(one, prompt, request, earlier, last=last)
        except UsageOverrun as error:
            one.standing.failed(error, one.corpus.clock())
            if last:
                raise
            return await _answer_of(one, prompt, request, earlier, last=last)  # the answer is there, and is read again


async def _obtain(asker: Asker, prompt: Prompt, request: Request, finish: Finish) -> tuple[_Got, tuple[RecordRow, ...]]:
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
            if (reason := await withheld_aside(request, asker.blocked)) is not None:
                raise reason
            if asker.elsewhere is not None and await asker.elsewhere.came(request):
                continue
            return await _buy(asker, prompt, request, finish)
        except _Answered:
            continue
        finally:
            del corpus.flights[key]
            corpus.unanswered.discard(key)
            flight.set_result(None)


async def _known(asker: Asker, request: Request, answer: Answer, finish: Finish) -> tuple[_Got, tuple[RecordRow, ...]]:
    completion, choices = _completions(asker, request, reply_of(answer))
    reading = read_labels(asker.facts, completion)
    got = _Got(request=request, answer=answer, completion=completion, reading=reading, used=None, choices=choices)
    rows = finish(got)
    if rows:
        await asker.corpus.journal.run(lambda transaction: _store_records(transaction, rows))
    return got, rows


def _completions(asker: Asker, request: Request, reply: Reply) -> tuple[Completion, tuple[Completion, ...]]:
    """The (first) answer in a reply, and all of them where several were asked for."""
    if "n" not in request.parameters:
        return asker.teacher.read(request, reply), ()
    choices = asker.teacher.read_choices(request, reply)
    return choices[0], choices


def _store_records(transaction: Transaction, rows: Iterable[RecordRow]) -> None:
    for row in rows:
        store_record(transaction, row)


async def _buy(asker: Asker, prompt: Prompt, request: Request, finish: Finish) -> tuple[_Got, tuple[RecordRow, ...]]:
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
        stop=_Stop(attempts=asker.attempts, pacer=asker.pacer),
        retry=retry_if_exception(again),
        wait=_wait,
        sleep=asker.sleep,
        reraise=True,
    )


@dataclass(kw_only=True)
class _Stop:
    """Give up after so many failures; being told to slow down is not one, until the pacer sees no end of it.

    A refusal that may be billed is booked at its worst case each time; the pacer keeps those few, and the caps hold.
    """

    attempts: int
    pacer: Pacer
    failures: int = 0
    unreadable: int = 0

    def __call__(self, state: RetryCallState) -> bool:
        error = _error(state)
        self.failures += not isinstance(error, RateLimited)
        self.unreadable += isinstance(error, InvalidAnswer)
        if self.unreadable >= MOST_UNREADABLE:
            return True
        return self.failures >= self.attempts or state.attempt_number >= MOST_TRIES or self.pacer.given_up


_backoff = wait_exponential_jitter(multiplier=0.5, max=8.0, jitter=0.5)


def _error(state: RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome else None


def _wait(state: RetryCallState) -> float:
    error = _error(state)
    held_back = isinstance(error, RateLimited) or (isinstance(error, TeacherError) and bool(error.retry_after_s))
    return 0.0 if held_back else _backoff(state)  # the pacer holds everybody back for what was asked


async def _try(
    asker: Asker, prompt: Prompt, request: Request, finish: Finish, attempt: int
) -> tuple[_Got, tuple[RecordRow, ...]]:
    """One try, reserved for itself."""
    if asker.hold.ended:
        raise _Ended
    asker, reservation, ticket = await _reserve(asker, prompt, request, attempt)
    if asker.permit is not None and asker.permit.due:
        await _renew(asker, asker.permit, reservation, ticket)
    with asker.hold:
        return await _ask(asker, reservation, ticket, request, finish)


async def _renew(asker: Asker, permit: Permit, reservation: Reservation, ticket: Ticket) -> None:
    """Have it decided again whether this may be sent, after all waiting, and give back what it held if not."""
    try:
        await permit.renew()
    except BaseException as error:
        asker.pacer.unused(ticket)
        reason = f"not sent: {type(error).__name__}"
        await asker.corpus.journal.run(lambda transaction: asker.ledger.release(transaction, reservation, reason))
        asker.ledger.freed()
        raise


async def _reserve(asker: Asker, prompt: Prompt, request: Request, attempt: int) -> tuple[Asker, Reservation, Ticket]:
    """The right to ask this now, which nobody else has; and the asker at the rate it was promised at."""
    while True:
        ticket = await _turn(asker, request)
        today = _at_todays_rate(asker)
        try:
            intent = _intent(today, prompt, request, attempt)
            given = await asker.ledger.reserve(intent, unless=lambda given: _refuse_needless(given, request.key))
        except BaseException as error:
            asker.pacer.unused(ticket)
            if not isinstance(error, _Claimed):
                raise
        else:
            if asker.pacer.lapsed(ticket):
                asker.pacer.unused(ticket)
                ticket = await _another_turn(asker, request, given)
            return today, given, ticket
        await _unclaimed(asker, request.key)


async def _turn(asker: Asker, request: Request) -> Ticket:
    if not asker.pacer.weighs:
        return await asker.pacer.turn()
    return await asker.pacer.turn(asker.teacher.input_tokens_bound(request), most_output(request))


async def _another_turn(asker: Asker, request: Request, reservation: Reservation) -> Ticket:
    """A new moment to send, after a long wait for money; who waited with it would leave as one wave."""
    try:
        return await _turn(asker, request)
    except BaseException:
        reason = "not sent: its turn did not come"
        await asker.corpus.journal.run(lambda transaction: asker.ledger.release(transaction, reservation, reason))
        asker.ledger.freed()
        raise


async def _unclaimed(asker: Asker, key: bytes) -> None:
    """Wait until no other process asks for this; what a dead one was asking for becomes unknown first."""
    journal = asker.corpus.journal
    while (claim := claim_on(journal.reader, key)) is not None:
        # One of ours is our own flight, the one that waits here, so nobody will close it.
        if claim.batch_id is not None:
            raise RequestRefused(
                f"it is being asked in batch {claim.batch_id}, which another process handed over meanwhile;"
                " run again to wait for that batch and collect it"
            )
        if claim.owner_id == journal.owner_id:
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
    if unheard_of(transaction, key):
        return
    (answered, claimed) = transaction.rows(_NEEDLESS, (key, key))[0]
    if answered:
        raise _Answered
    if claimed:
        raise _Claimed


_NEEDLESS = (
    "select exists(select 1 from answers where request_key = ?), exists(select 1 from claims where request_key = ?)"
)


def _intent(asker: Asker, prompt: Prompt, request: Request, attempt: int) -> Intent:
    bound = asker.teacher.input_tokens_bound(request)
    return Intent(
        run_id=asker.facts.run_id,
        request_key=request.key,
        teacher=asker.teacher.card.name,
        role=f"{asker.facts.kind}:{prompt.item.split}" if asker.role == "primary" else _role(asker, prompt),
        attempt=attempt,
        worst=_with_compute(asker.rate.worst(bound, most_output(request)), asker.compute_us),
        scopes=asker.scopes,
        price_version=asker.rate.version,
    )


def _role(asker: Asker, prompt: Prompt) -> str:
    return f"{asker.facts.kind}:{asker.role}:{prompt.item.split}"


def _with_compute(amounts: Amounts, compute_us: int) -> Amounts:
    return replace(amounts, compute_us=compute_us) if compute_us else amounts


def _computed(asker: Asker, reply: Reply) -> int:
    """Processor time of ours that an answer took; where nobody measured it, at most the time until it came."""
    if not asker.compute_us or reply.compute_us is not None:
        return (reply.compute_us or 0) if asker.compute_us else 0
    return max(0, min(asker.compute_us, microseconds(reply.received_time) - microseconds(reply.sent_time)))


async def _ask(
    asker: Asker, reservation: Reservation, ticket: Ticket, request: Request, finish: Finish
) -> tuple[_Got, tuple[RecordRow, ...]]:
    asker.counts.in_flight += 1
    asker.counts.sent += 1
    reply = None
    try:
        while (early_s := asker.pacer.early_s(ticket)) > 0:  # noqa: ASYNC110 - a moment, and no event
            await asyncio.sleep(early_s)
        reply = await asker.teacher.ask(request, timeout_s=asker.timeout_s)
        got = _read(asker, request, reply)
        rows = finish(got)
    except TeacherError as error:
        error.request_id = error.request_id or (reply.request_id if reply else None)
        if isinstance(error, InvalidAnswer) and reply is not None:
            error.body = reply.body
        asker.pacer.failed(ticket, error)
        await _close_failed(asker, reservation, error)
        raise
    except BaseException as error:
        asker.pacer.unused(ticket)
        reason = f"{type(error).__name__} while asking"
        await asker.corpus.journal.run(lambda transaction: asker.ledger.unknown(transaction, reservation, reason))
        raise
    finally:
        asker.counts.in_flight -= 1
    asker.pacer.answered(ticket, reply, got.completion.usage)
    await _keep(asker, reservation, got, rows)
    return got, rows


async def _close_failed(asker: Asker, reservation: Reservation, error: TeacherError) -> None:
    await asker.corpus.journal.run(lambda transaction: asker.ledger.failed(transaction, reservation, error))
    asker.ledger.freed()


def _read(asker: Asker, request: Request, reply: Reply) -> _Got:
    completion, choices = _completions(asker, request, reply)
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
    served = completion.model_served
    if served:
        count_served(asker, request.model, served)
    return _Got(request=request, answer=answer, completion=completion, reading=reading, used=used, choices=choices)


def count_served(asker: Asker, asked: str, served: str) -> None:
    """Count an answer by another model, and whether its terms are among those that were checked."""
    if served == asked:
        return
    asker.counts.models[asker.teacher.card.name, served] += 1
    if is_another_model(asked, served):
        asker.counts.other_models[served] += 1
    if (why := asker.put_aside(served)) is not None:
        asker.counts.quarantined[why] += 1


def book_answer(
    asker: Asker, transaction: Transaction, reservation: Reservation, answer: Answer, used: Amounts
) -> None:
    """Settle a call by its answer; where nobody counted, its worst case stays unconfirmed until it is reconciled."""
    name = answer.provider_request_id
    if answer.usage.counted or asker.rate.free or used.exceeds(reservation.worst):
        asker.ledger.settle(transaction, reservation, used, request_id=name)
    else:
        asker.ledger.unknown(transaction, reservation, UNCOUNTED, request_id=name)


async def _keep(asker: Asker, reservation: Reservation, got: _Got, rows: Sequence[RecordRow]) -> None:
    """Settle and store in one transaction: paid for and kept, or neither."""
    used = got.used
    assert used is not None

    def operation(transaction: Transaction) -> None:
        book_answer(asker, transaction, reservation, got.answer, used)
        store_answer(transaction, got.request, got.answer, reservation.call_id)
        for row in rows:
            store_record(transaction, row)

    try:
        await asker.corpus.journal.run(operation)
    except Exception as error:  # whatever it was: this answer was sent for, and may be on the bill
        await _lost(asker, reservation, error)
        raise
    asker.ledger.freed()
    if asker.elsewhere is not None:
        asker.elsewhere.offer(got.answer, asker.card)
    if used.exceeds(reservation.worst):
        raise UsageOverrun(
            f"{asker.card.teacher} reported {got.completion.usage.total_tokens} tokens where at most"
            f" {reservation.worst.tokens} were possible; all are booked, and no more is asked of it"
        )


async def _lost(asker: Asker, reservation: Reservation, error: Exception) -> None:
    """Book a call as unknown whose answer came and could not be kept; a disk that is full leaves it promised."""
    reason = f"{type(error).__name__}: its answer came and could not be kept"
    with suppress(CorpusgenError):  # what is promised becomes unknown when it is asked for again, or at the next start
        await asker.corpus.journal.run(lambda transaction: asker.ledger.unknown(transaction, reservation, reason))
    asker.ledger.freed()


async def _note_reuses(asker: Asker, record_ids: list[str]) -> None:
    """Remember that records another run has made are this one's too."""
    journal, run_id = asker.corpus.journal, asker.facts.run_id
    if not record_ids:
        return
    names = [bytes.fromhex(record_id) for record_id in record_ids]
    marks = ",".join("?" * len(names))
    sql = f"select record_id from reuses where run_id = ? and record_id in ({marks})"  # noqa: S608 - own text
    noted = {row[0] for row in journal.query(sql, (run_id, *names))}
    rows = [(run_id, name) for name in names if name not in noted]
    if rows:
        sql = "insert into reuses values(?, ?) on conflict do nothing"
        await journal.run(lambda transaction: transaction.connection.executemany(sql, rows).close())


def _stage(name: str, prompt: Prompt, at: int = 0) -> str:
    """Where an answer was lost; each sample of an item after the first has its own number there."""
    sample = prompt.request.sample_index + at
    return f"{name}:{prompt.item.split}#{sample}" if sample else f"{name}:{prompt.item.split}"


def _place(prompt: Prompt, at: int = 0) -> tuple[str, str]:
    return _stage("ask", prompt, at), prompt.item.item_id


def _dropped(asker: Asker) -> set[tuple[str, str]]:
    rows = asker.corpus.journal.query(
        "select stage, item_id from drops where run_id = ? and stage glob 'ask:*'", (asker.facts.run_id,)
    )
    return {(stage, item_id) for stage, item_id in rows}


async def note_drop(asker: Asker, prompt: Prompt, error: TeacherError, at: int = 0) -> None:
    """Note that a prompt, or the so-manieth of its answers, has no answer, and why."""
    reason = type(error).__name__
    asker.counts.drops[reason] += 1
    await _note(asker, prompt, _place(prompt, at)[0], reason, str(error))


async def _note_passed_on(asker: Asker, prompt: Prompt, reason: str, detail: str) -> None:
    """Note that a teacher would or could not answer, and that another one was asked."""
    await _note(asker, prompt, _stage(f"passed on by {asker.card.teacher}", prompt), reason, detail)


async def _note(asker: Asker, prompt: Prompt, stage: str, reason: str, detail: str) -> None:
    values = (asker.facts.run_id, stage, prompt.item.item_id)
    sql = "insert or replace into drops(run_id, stage, item_id, reason, detail) values(?, ?, ?, ?, ?)"
    await asker.corpus.journal.run(lambda transaction: transaction.execute(sql, (*values, reason, detail)).close())


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
