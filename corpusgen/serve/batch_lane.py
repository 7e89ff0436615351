"""Calls of a batch asked in batches: handed over to their teacher's own, at its price for batches.

A room's run has a lane of its own, as any run has. What was handed over for one batch of a caller's bears its tag, so
that it can be looked after, collected and ended for itself; after a crash it is found again by its requests and by that
tag.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from corpusgen.batching.asking import Lacking, ask_in_batches, cancel_batches
from corpusgen.batching.life import Batcher, Notice, Patience
from corpusgen.corpus import Corpus
from corpusgen.errors import BudgetExhausted, CorpusgenError, Interrupted, PolicyRefused, TeacherError
from corpusgen.fanout import Asker
from corpusgen.prompting.prompts import Prompt
from corpusgen.records import Request
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
class Handing:
    """What is the same for all that is handed over for a batch."""

    corpus: Corpus
    tag: str
    open_room: Callable[[int], Coroutine[Any, Any, Room]]
    asker_in: Callable[[Room], Asker]
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

    async def hand_over(self, parcels: Mapping[int, Sequence[Prompt]]) -> dict[int, Way]:
        """Have calls answered in batches, by teacher, and see all that was handed over to its end.

        Where ``stop`` is set meanwhile, what is out is ended there, and what was answered is kept. Raises Interrupted
        when the service is being stopped.
        """
        ways = {at: Way() for at in parcels}
        await all_of(
            self._slice(at, prompts[start : start + SLICE], ways[at])
            for at, prompts in parcels.items()
            for start in range(0, len(prompts), SLICE)
        )
        for at in parcels:
            await self._see_to_the_rest(at)
        return ways

    async def _slice(self, at: int, prompts: Sequence[Prompt], way: Way) -> None:
        try:
            await self._asked(at, prompts, way)
        except PolicyRefused:  # perhaps under other terms, which another opening decides
            try:
                await self._asked(at, prompts, way)
            except PolicyRefused as error:
                way.failure = error

    async def _asked(self, at: int, prompts: Sequence[Prompt], way: Way) -> None:
        room = await self.open_room(at)
        with room:
            batcher = self._batcher(room, self.stop, lambda name: False)
            try:
                way.failures |= await ask_in_batches(batcher, prompts, unanswered(self.corpus))
            except Interrupted:
                if self.halt.is_set():
                    raise
            except BudgetExhausted as error:
                today = batcher.rate_on(self.corpus.clock().date())
                error.figures = figures_of(replace(batcher.asker, rate=today), prompts[-1].request)
                way.failure = error
            except TeacherError as error:
                way.failure = error
            except PolicyRefused:
                room.stale = True
                raise

    async def _see_to_the_rest(self, at: int) -> None:
        """Wait for what is out though nobody needs its answers any more, or end it."""
        if not self.is_out:
            return
        room = await self.open_room(at)
        with room:
            try:
                mine = self._batcher(room, self.stop, lambda name: name.startswith(self.tag))
                await ask_in_batches(mine, [], unanswered(self.corpus))
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


def takes_batches(room: Room, request: Request) -> bool:
    """Whether a request may be handed over in a batch to the teacher of a room."""
    return room.run.lane.batcher is not None and request.parameters.get("n", 1) == 1


def unanswered(corpus: Corpus) -> Lacking:
    """Tells which calls lack an answer. Nothing is asked a second time to mend what came."""

    def found(prompts: Sequence[Prompt]) -> Iterable[tuple[Prompt, Request]]:
        known = known_answers(corpus.journal.reader, [prompt.request.key for prompt in prompts])
        return ((prompt, prompt.request) for prompt in prompts if prompt.request.key not in known)

    return found


async def all_of(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Wait for all of them to end, each in its own way, then raise what the first raised that did."""
    for outcome in await asyncio.gather(*work, return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome
