"""The fan-out of one run: what is read ahead, the workers, and what reaches the reader."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from copy import copy
from dataclasses import dataclass, field, replace
from importlib import import_module
from itertools import islice
from typing import Any

from corpusgen.assemble import record_of_kept, request_of
from corpusgen.budget.ledger import balances
from corpusgen.errors import AnswersMissing, Interrupted, RequestRefused, TeacherError, Withheld
from corpusgen.fanout.answering import answer_of
from corpusgen.fanout.asker import Asker, Ended, Hold
from corpusgen.fanout.notes import (
    card_of,
    facts_of,
    note_drop,
    note_failure,
    note_reuses,
    noted_drops,
    place_of,
    undrop,
)
from corpusgen.fanout.panel import answer_of_panel, several_of_panel, somebody_left
from corpusgen.fanout.several import Several
from corpusgen.garbage import large_blocks_given_back, seldom_collected
from corpusgen.prompting.prompts import Prompt
from corpusgen.records import Record, Request
from corpusgen.standing import DOUBTFUL_STATUS, FAILURES_IN_A_ROW, hopeless
from corpusgen.store.answers import Kept, kept_records, known_answers, runs_of_records, stored_request

LOOK_AHEAD = 256
REFUSALS_AT_FIRST = 100
"""So many refused prompts before the first answer, and it is not the prompts."""


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
    unasked: deque[Prompt] = field(default_factory=deque)
    """Prompts that come next and have no record; whoever is free takes one."""
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    dropped: set[tuple[str, str]] = field(init=False)
    """What failed in an earlier try of this run; an answer takes it back."""
    out: asyncio.Queue[Record | None] = field(init=False)
    prepared: asyncio.Future[Any] | None = None
    ready: bool = False
    """Whether all is prepared."""

    def __post_init__(self) -> None:
        self.upcoming = self._look_up()
        self.dropped = noted_drops(self.asker)
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
        hold, unasked = self.asker.hold, self.unasked
        try:
            while not hold.ended:
                prompt = unasked.popleft() if unasked else await self._next()
                if prompt is None:
                    return
                await self._answer(prompt)
        except Ended:
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
            if runs := runs_of_records(self.asker.corpus.journal.reader, names):
                async with aclosing(self._partly_known(chunk, names, runs)) as found:
                    async for one in found:
                        yield one
                continue
            await self._note_unanswered([prompt.request for prompt in chunk])
            self.unasked.extend(chunk)
            while self.unasked:  # those that nobody has taken meanwhile
                yield self.unasked.popleft(), None

    async def _partly_known(
        self, chunk: list[Prompt], names: list[str], runs: Mapping[str, str]
    ) -> AsyncGenerator[tuple[Prompt, Kept | None]]:
        """What is found where some of the records are there, each made by one of these runs."""
        own = self.asker.facts.run_id
        await note_reuses(self.asker, [name for name in names if runs.get(name, own) != own])
        await self._note_unanswered([one.request for one in chunk if not all(map(runs.__contains__, one.record_ids))])
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
        facts, card = facts_of(asker, kept.row.run_id), card_of(asker, kept.answer.card_id)
        return record_of_kept(facts, card, kept, request, asker.seat(request).teacher)

    async def _prepare(self) -> None:
        """Read what the first answer will need before anything is sent: reading it takes a quarter of a second, in
        which nobody would hear the server.
        """
        if self.prepared is None:
            self.prepared = asyncio.ensure_future(asyncio.to_thread(import_module, "corpusgen.store.fresh"))
        if not self.prepared.done():
            await asyncio.shield(self.prepared)
        self.ready = True

    async def _answer(self, prompt: Prompt) -> None:
        if not self.ready:
            await self._prepare()
        if prompt.count > 1:
            await self._answer_several(prompt)
            return
        try:
            record = await _answer(self.asker, prompt)
        except TeacherError as error:
            if not self.asker.panel:
                note_failure(self.asker, error)
            await self._call_failed(prompt, error)
        else:
            assert record is not None
            if not self.asker.panel:
                self.asker.standing.answered()
            await self._answered(prompt, 0, record)

    async def _answer_several(self, prompt: Prompt) -> None:
        """Answer a prompt that asks for several answers in one call; what fails is only what has none."""
        several = Several(asker=self.asker, prompt=prompt, made=self._answered)
        if self.asker.panel:
            await several_of_panel(self.asker, several)
        else:
            await several.run()
        for failure in dict.fromkeys(several.failed.values()):
            await self._call_failed(prompt, failure, [at for at, why in several.failed.items() if why is failure])

    async def _taken_back(self, prompt: Prompt, at: int) -> None:
        """What has a record is not listed as dropped, whatever befell it at an earlier start."""
        if self.dropped and (place := place_of(prompt, at)) in self.dropped:
            self.dropped.discard(place)
            await undrop(self.asker, place)

    async def _answered(self, prompt: Prompt, at: int, record: Record) -> None:
        """Hand over the record of a prompt, or of the so-manieth of its answers."""
        self.asker.counts.failures_in_a_row = 0
        await self._taken_back(prompt, at)
        await self._deliver(record)

    async def _deliver(self, record: Record) -> None:
        self.asker.counts.done += 1
        try:
            self.out.put_nowait(record)
        except asyncio.QueueFull:
            with self.asker.hold:
                await self.out.put(record)

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


def _answer(asker: Asker, prompt: Prompt) -> Awaitable[Record | None]:
    """The record of one prompt; there is one, unless this raises."""
    if asker.panel:
        return answer_of_panel(asker, prompt)
    return answer_of(asker, prompt, prompt.request, [], last=True)


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
