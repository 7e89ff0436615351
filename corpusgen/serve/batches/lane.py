"""Calls of a batch asked in batches: handed over to their teacher's own, at its price for batches.

A room's run has a lane of its own, as any run has. What was handed over for one batch of a caller's bears its tag, so
that it can be looked after, collected and ended for itself; after a crash it is found again by its requests and by that
tag.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from corpusgen.batching.asking import Lacking, ask_in_batches, cancel_batches
from corpusgen.batching.life import Batcher, Notice, Patience
from corpusgen.budget.ledger import claims_on
from corpusgen.corpus import Corpus
from corpusgen.errors import BudgetExhausted, CorpusgenError, Interrupted, PolicyRefused, TeacherError
from corpusgen.fanout.asker import Asker
from corpusgen.prompting.prompts import Item, Prompt
from corpusgen.records import Json, Request
from corpusgen.serve.money import figures_of
from corpusgen.serve.rooms import Room
from corpusgen.store.answers import known_answers

SLICE: Final = 2_500
"""So many calls are handed over at once; making more of them ready takes long enough for others to notice."""


@dataclass(kw_only=True)
class Way:
    """How the calls to one teacher fared that were handed over."""

    failures: dict[str, TeacherError] = field(default_factory=dict)
    """By record."""
    failure: CorpusgenError | None = None
    """Why no more was handed over."""

    def why(self, record_id: str) -> CorpusgenError:
        """Why there is no answer."""
        return self.failures.get(record_id) or self.failure or TeacherError("no batch brought an answer to this")


@dataclass(frozen=True, kw_only=True)
class Parcel:
    """Calls to one teacher that are to be handed over, by the numbers of their lines; what they ask is large."""

    keys: dict[int, bytes] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)
    """What their records are to be called."""

    def put(self, n: int, prompt: Prompt) -> None:
        """Add a line."""
        self.keys[n], self.names[n] = prompt.request.key, prompt.record_id

    def prompts(self) -> Iterator[Prompt]:
        """The calls as the lane knows them, each with the number of its line for its place, and without its request."""
        for n, name in self.names.items():
            yield Prompt(item=_NOTHING, request=_NONE, ordinal=n, name=name)


_NOTHING: Final = Item(item_id="", split="train", input="", messages=(), source_ids=(), gold=None)
_NONE: Final = Request(teacher="", model="", api="chat", messages=(), parameters={})


@dataclass(frozen=True, kw_only=True)
class Handing:
    """What is the same for all that is handed over for a batch."""

    corpus: Corpus
    tag: str
    open_room: Callable[[int], Coroutine[Any, Any, Room]]
    asker_in: Callable[[Room], Asker]
    request_in: Callable[[Room, int], Request | None]
    """What a line asks in a room; None where it cannot be asked any more."""
    stop: asyncio.Event
    """Set: nothing more is handed over or waited for."""
    halt: asyncio.Event
    """Set: the service is being stopped; what was handed over goes on."""
    patience: Patience

    @property
    def is_out(self) -> bool:
        """Whether something that was handed over has not come to its end."""
        sql = "select exists(select 1 from batches where batch_id glob ? and state in ('intended', 'submitted'))"
        return bool(self.corpus.journal.query(sql, (f"{self.tag}*",))[0][0])

    async def hand_over(self, parcels: Mapping[int, Parcel]) -> dict[int, Way]:
        """Have calls answered in batches, by teacher, and see all that was handed over to its end.

        Where ``stop`` is set meanwhile, what is out is ended there, and what was answered is kept. Raises Interrupted
        when the service is being stopped.
        """
        ways = {at: Way() for at in parcels}
        tasks: list[asyncio.Task[None]] = []
        try:
            for at, parcel in parcels.items():
                prompts = list(parcel.prompts())
                for start in range(0, len(prompts), SLICE):
                    handed = _Handed(at=at, parcel=parcel, prompts=prompts[start : start + SLICE])
                    tasks.append(asyncio.create_task(self._slice(handed, ways[at])))
                    await handed.out.wait()  # one after the other, so that few requests are in memory at once
            await _ended(tasks)
        finally:
            for task in tasks:
                task.cancel()  # of those that have ended, nothing comes
        for at in parcels:
            await self._see_to_the_rest(at)
        return ways

    async def _slice(self, handed: _Handed, way: Way) -> None:
        try:
            await self._asked(handed, way)
        except PolicyRefused:  # perhaps under other terms, which another opening decides
            try:
                await self._asked(handed, way)
            except PolicyRefused as error:
                way.failure = error
        finally:
            handed.out.set()

    async def _asked(self, handed: _Handed, way: Way) -> None:
        room = await self.open_room(handed.at)
        with room:
            batcher = replace(self._batcher(room, self.stop, lambda name: False), passed=handed.passed)
            handed.look(self.corpus)
            try:
                way.failures |= await ask_in_batches(batcher, handed.prompts, self._unanswered(room, handed.parcel))
            except Interrupted:
                if self.halt.is_set():
                    raise
            except BudgetExhausted as error:
                error.figures = self._figures(batcher, room, handed.prompts[-1].ordinal)
                way.failure = error
            except TeacherError as error:
                way.failure = error
            except PolicyRefused:
                room.stale = True
                raise

    def _unanswered(self, room: Room, parcel: Parcel) -> Lacking:
        """Tells which calls lack an answer. Nothing is asked a second time to mend what came."""

        def found(prompts: Sequence[Prompt]) -> Iterator[tuple[Prompt, Request]]:
            known = known_answers(self.corpus.journal.reader, [parcel.keys[prompt.ordinal] for prompt in prompts])
            for prompt in prompts:
                if parcel.keys[prompt.ordinal] not in known:
                    request = self.request_in(room, prompt.ordinal)
                    if request is not None:
                        yield prompt, request

        return found

    def _figures(self, batcher: Batcher, room: Room, n: int) -> dict[str, Json] | None:
        request, today = self.request_in(room, n), batcher.rate_on(self.corpus.clock().date())
        return None if request is None else figures_of(replace(batcher.asker, rate=today), request)

    async def _see_to_the_rest(self, at: int) -> None:
        """Wait for what is out though nobody needs its answers any more, or end it."""
        if not self.is_out:
            return
        room = await self.open_room(at)
        with room:
            try:
                mine = self._batcher(room, self.stop, lambda name: name.startswith(self.tag))
                await ask_in_batches(mine, [], self._unanswered(room, Parcel()))
            except Interrupted:
                if self.halt.is_set():
                    raise
                await cancel_batches(self._batcher(room, self.halt, mine.mine))

    def _batcher(self, room: Room, stopping: asyncio.Event, mine: Callable[[str], bool]) -> Batcher:
        found = room.run.lane.batcher
        assert found is not None
        return replace(
            found,
            asker=replace(self.asker_in(room), stopping=stopping),
            new_name=lambda: f"{self.tag}{os.urandom(4).hex()}",
            mine=mine,
            patience=self.patience,
            notice=Notice(),
        )


@dataclass(frozen=True, kw_only=True)
class _Handed:
    """So many calls to one teacher that go together."""

    at: int
    parcel: Parcel
    prompts: Sequence[Prompt]
    out: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when they are on their way, or will not be."""

    def passed(self, step: str) -> None:
        """Hear of a step of theirs."""
        if step == "submitted":
            self.out.set()

    def look(self, corpus: Corpus) -> None:
        """See whether they are on their way already, since an earlier start."""
        keys = [self.parcel.keys[prompt.ordinal] for prompt in self.prompts]
        out = claims_on(corpus.journal.reader, keys).keys() | known_answers(corpus.journal.reader, keys)
        if out.issuperset(keys):
            self.out.set()


def takes_batches(room: Room, request: Request) -> bool:
    """Whether a request may be handed over in a batch to the teacher of a room."""
    return room.run.lane.batcher is not None and request.parameters.get("n", 1) == 1


async def all_of(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Wait for all of them to end, each in its own way, then raise what the first raised that did."""
    await _ended([asyncio.create_task(one) for one in work])


async def _ended(tasks: Sequence[asyncio.Task[None]]) -> None:
    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome
