"""The lane a run's questions take: one by one as they come, or in batches at half the price."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import date
from functools import cache
from typing import Final

from corpusgen.assemble import read_labels, reply_of
from corpusgen.batching.asking import Lacking, ask_in_batches, cancel_batches, collect_batches, glance
from corpusgen.batching.life import Batcher, open_batches_of
from corpusgen.budget.ledger import claims_on
from corpusgen.budget.prices import Rate
from corpusgen.corpus import Corpus, microseconds
from corpusgen.errors import BudgetExhausted, CorpusgenError, PolicyRefused, TeacherError, UnsupportedParameter
from corpusgen.fanout.answering import second_request, wider_request
from corpusgen.fanout.asker import Asker
from corpusgen.fanout.notes import note_drop
from corpusgen.fanout.stream import answers
from corpusgen.prompting.prompts import Prompt
from corpusgen.records import Record, Request
from corpusgen.spec import Asking
from corpusgen.stages.erasure.erasures import Sifter, Tombstones, dropping
from corpusgen.stages.task import Task, price_of
from corpusgen.store.answers import find_answer, known_answers, known_records
from corpusgen.teachers.batches import WINDOW_S, BatchService, open_batches
from corpusgen.teachers.teacher import Teacher

LEAST: Final = 100
"""Fewer questions than this are asked one by one where ``lane: auto`` may choose: a day is long for little money."""
HOUR_US: Final = 3_600_000_000


@dataclass(frozen=True, kw_only=True)
class Lane:
    """How a run asks, and with what."""

    asker: Asker
    asking: Asking
    batcher: Batcher | None
    """None for a teacher that takes no batches."""
    started_us: int
    """When the run was first started; its deadline counts from there."""

    @property
    def open(self) -> bool:
        """Whether batches are under way at this teacher."""
        identity = self.asker.teacher.card.identity
        return self.batcher is not None and bool(open_batches_of(self.asker.corpus.journal, identity))

    @property
    def note(self) -> str:
        """What is to be said of the batches under way."""
        return "" if self.batcher is None else self.batcher.notice.text

    async def aclose(self) -> None:
        """Let go of the provider's connections; batches go on there."""
        if self.batcher is not None:
            await self.batcher.service.batches.aclose()


def lane_of(task: Task, corpus: Corpus, asker: Asker) -> Lane:
    """The lane of an open run. Raises UnsupportedParameter where the teacher has none such."""
    service = batch_service(task, asker.teacher)
    batcher = None
    if service is not None:
        rate_on: Callable[[date], Rate] = cache(lambda day: price_of(task, day, batch=True))
        batcher = Batcher(asker=asker, service=service, rate_on=rate_on, size=task.spec.asking.batch_size)
    started = corpus.journal.query("select started_us from runs where run_id = ?", (asker.facts.run_id,))
    return Lane(asker=asker, asking=task.spec.asking, batcher=batcher, started_us=started[0][0])


def batch_service(task: Task, teacher: Teacher) -> BatchService | None:
    """The teacher's batches. None where it has none and none are asked for; nothing is sent."""
    try:
        return open_batches(teacher)
    except UnsupportedParameter as error:
        if task.spec.asking.lane == "live":
            return None
        raise UnsupportedParameter(f"{task.located.where('asking', 'lane')}: asking.lane: {error}") from error


def in_batches(asking: Asking, waiting: int, now_us: int, started_us: int | None) -> bool:
    """Whether so many questions are asked in batches now."""
    if asking.lane != "auto":
        return asking.lane == "batch"
    assert asking.deadline is not None
    until_us = (started_us or now_us) + round(asking.deadline * HOUR_US)
    return waiting >= LEAST and until_us - now_us >= WINDOW_S * 1_000_000


@asynccontextmanager
async def lane_answers(lane: Lane, prompts: Iterable[Prompt]) -> AsyncIterator[AsyncIterator[Record]]:
    """As ``fanout.answers``, by the run's lane.

    In batches, everything is asked before the first record comes; what has no answer then is dropped with its reason,
    or, under ``lane: auto``, asked by itself. What was erased is not asked about again; that is noted as a drop.
    """
    sifter = Sifter(tombstones=Tombstones.of(lane.asker.corpus.journal), task=lane.asker.facts.task)
    async with _lane_answers(lane, sifter.through(prompts) if sifter.tombstones else prompts) as records:
        yield records
    if sifter.dropped:
        await lane.asker.corpus.journal.run(dropping(lane.asker.facts.run_id, sifter.dropped))


@asynccontextmanager
async def _lane_answers(lane: Lane, prompts: Iterable[Prompt]) -> AsyncIterator[AsyncIterator[Record]]:
    batcher = lane.batcher
    if batcher is None or (lane.asking.lane == "live" and not lane.open):
        async with answers(lane.asker, prompts) as records:
            yield records
        return
    wanted = list(prompts)
    by_batch = in_batches(lane.asking, len(_missing(lane, wanted)), _now_us(lane), lane.started_us)
    if by_batch:
        answered, failure = await _by_batch(lane, batcher, wanted)
    else:
        answered, failure = wanted, None
        await _collect(lane, batcher, wanted)
    async with answers(lane.asker, answered) as records:
        yield _then(records, failure)


async def end_lane(lane: Lane) -> int:
    """End the run's batches at the provider and keep what they answered; gives back how many there were."""
    return 0 if lane.batcher is None else await cancel_batches(lane.batcher)


async def _collect(lane: Lane, batcher: Batcher, wanted: Sequence[Prompt]) -> None:
    """Wait for what an earlier start has handed over: asked a second time it would be paid for twice."""
    keys = [request.key for _, request in _missing(lane, wanted)]
    claimed = [key for key, batch in claims_on(lane.asker.corpus.journal.reader, keys).items() if batch is not None]
    if claimed:
        await collect_batches(batcher, claimed)
    await glance(batcher)


async def _by_batch(
    lane: Lane, batcher: Batcher, wanted: Sequence[Prompt]
) -> tuple[list[Prompt], CorpusgenError | None]:
    """The prompts that may be answered from the journal now, and what is to be raised after them."""
    failures: dict[str, TeacherError] = {}
    failure: CorpusgenError | None = None
    if lane.asking.lane == "auto":  # a second batch may take a second day
        batcher = replace(batcher, asker=replace(batcher.asker, attempts=1))
    try:
        failures = await ask_in_batches(batcher, wanted, lacking(lane.asker))
    except (BudgetExhausted, PolicyRefused, TeacherError) as error:
        failure = error
    missing = {prompt.record_id for prompt, _ in _missing(lane, wanted)}
    if lane.asking.lane == "auto" and failure is None:
        missing = {name for name in missing if name in failures and not failures[name].transient}
    for prompt in wanted:
        if prompt.record_id in missing and prompt.record_id in failures:
            why = failures[prompt.record_id]
            await note_drop(lane.asker, prompt, why)
            if lane.asker.on_failure == "raise":
                failure = failure or why
    return [prompt for prompt in wanted if prompt.record_id not in missing], failure


async def _then(records: AsyncIterator[Record], failure: CorpusgenError | None) -> AsyncIterator[Record]:
    async for record in records:
        yield record
    if failure is not None:
        raise failure


def _missing(lane: Lane, wanted: Sequence[Prompt]) -> list[tuple[Prompt, Request]]:
    return list(lacking(lane.asker)(wanted))


def _now_us(lane: Lane) -> int:
    return microseconds(lane.asker.corpus.clock())


def lacking(asker: Asker) -> Lacking:
    """Tells which prompts lack an answer, and what is to be asked for each next."""

    def found(prompts: Sequence[Prompt]) -> Iterator[tuple[Prompt, Request]]:
        reader = asker.corpus.journal.reader
        records = known_records(reader, (name for prompt in prompts for name in prompt.record_ids))
        left = [prompt for prompt in prompts if not records.issuperset(prompt.record_ids)]
        known = known_answers(reader, [prompt.request.key for prompt in left])
        for prompt in left:
            if prompt.request.key not in known:
                yield prompt, prompt.request
            elif prompt.count > 1:
                continue  # never asked for in batches, so what is still lacking is asked for as it comes
            elif (again := _second(asker, prompt.request)) is not None:
                yield prompt, again

    return found


def _second(asker: Asker, request: Request) -> Request | None:
    """What is to be asked beside an answered request, where its answer is not whole and that is not answered either."""
    wider = asker.facts.label_names is not None and wider_request(asker, request) is not None
    if not wider and request.schema is None:
        return None
    reader = asker.corpus.journal.reader
    answer = find_answer(reader, request.key)
    if answer is None:
        return None
    completion = asker.teacher.read(request, reply_of(answer))
    again = second_request(asker, request, completion, read_labels(asker.facts, completion))
    return None if again is None or known_answers(reader, [again.key]) else again
