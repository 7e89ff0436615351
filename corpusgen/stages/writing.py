"""Free text: the pool is read, asked about and forgotten item by item, so that it may be of any size."""

from __future__ import annotations

import asyncio
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from heapq import nsmallest
from itertools import islice
from typing import Final

import apsw
import orjson

from corpusgen.curation.active import first_round, ticket
from corpusgen.curation.exact import Repeat, normalised, told_apart
from corpusgen.marks import Marks, mark_of
from corpusgen.prompting.prompts import Item, Prompt
from corpusgen.prompting.seeds import Seed
from corpusgen.records import Message, Record
from corpusgen.stages.covering import chosen_seeds
from corpusgen.stages.erasure.erasures import without_erased
from corpusgen.stages.lanes import lane_answers
from corpusgen.stages.pool import HELD_OUT, note_drops
from corpusgen.stages.rounds import prompts_about
from corpusgen.stages.runs import Run
from corpusgen.stages.sieving import Notes, check_left, sieved, sieves
from corpusgen.stages.task import Task
from corpusgen.stages.watching import Watch, no_watch

HELD = 10_000
"""Items of a pool that are kept in memory to ask about; more are read from their file a second time."""
REPEATS_AT_ONCE = 10_000
POOLED, POOLED_PER_ITEM = 20_000, 20
"""Items from which those that cover a larger pool are chosen: so many, and so many for each that is wanted."""
POOL: Final = "train"
SAMPLES = 8


@dataclass(frozen=True, kw_only=True)
class PoolSize:
    """What may be asked about, in figures: how much was read, and how much of it says something new."""

    read: int
    unique: int
    repeated: int
    leaked: int
    dropped: Mapping[str, int] = field(default_factory=dict)
    """How many each check of ``curate`` dropped."""


class Names:
    """Record ids, by their first 64 bits."""

    def __init__(self) -> None:
        self._marks = Marks()

    def add(self, record_id: str) -> None:
        """Have a record's id among them."""
        self._marks.add([int(record_id[:16], 16)])

    def __len__(self) -> int:
        return len(self._marks)

    def __contains__(self, record_id: object) -> bool:
        return isinstance(record_id, str) and self._marks.known([int(record_id[:16], 16)])[0]


@dataclass(kw_only=True)
class Written:
    """What the answers of a run look like: a few figures of each, and the first few as they are."""

    output_tokens: array[int] = field(default_factory=lambda: array("Q"))
    mean_logprobs: array[float] = field(default_factory=lambda: array("d"))
    truncated: int = 0
    names: Names = field(default_factory=Names)
    distinct: Marks = field(default_factory=Marks)
    _first: dict[str, Record | None] = field(default_factory=dict)

    def watching(self, prompts: Iterable[Prompt]) -> Iterator[Prompt]:
        """The prompts, of which the first few are remembered."""
        for prompt in prompts:
            if len(self._first) < 4 * SAMPLES:  # some may have no answer
                self._first |= dict.fromkeys(prompt.record_ids)
            yield prompt

    def add(self, record: Record) -> None:
        """Take note of an answer."""
        self.output_tokens.append(record.output_tokens)
        known = [value for value in record.token_logprobs or () if value is not None]
        if known:
            self.mean_logprobs.append(sum(known) / len(known))
        self.truncated += record.truncated
        self.names.add(record.record_id)
        self.distinct.add([mark_of(record.response.strip())])
        if record.record_id in self._first:
            self._first[record.record_id] = record

    @property
    def samples(self) -> list[Record]:
        """Answers to the first prompts, in their order."""
        return list(islice((record for record in self._first.values() if record is not None), SAMPLES))

    def __len__(self) -> int:
        return len(self.output_tokens)


@dataclass(frozen=True, kw_only=True)
class Texts:
    """A run of free text."""

    pool: PoolSize
    written: Written


async def ask_for_texts(run: Run, watch: Watch = no_watch, *, describe: bool = True) -> Texts:
    """Ask about a free-text task's pool, in file order or drawn at random, and note what the answers look like.

    Where nobody wants that described, answers that are known already are counted and not read again.
    """
    asking, written = run.task.spec.asking, Written()
    lane = run.lane if describe else replace(run.lane, asker=replace(run.lane.asker, wants_known=False))
    watch("pool", None)
    surveyed = await asyncio.to_thread(survey, run)
    limit = min(asking.limit, surveyed.size.unique)
    items = await asyncio.to_thread(_in_order, run.task, surveyed, limit)
    watch("answers", limit * asking.samples)
    async with lane_answers(lane, written.watching(prompts_about(run, items, 0))) as records:
        async for record in records:
            written.add(record)
    return Texts(pool=surveyed.size, written=written)


def pool_items(run: Run) -> Iterator[Item]:
    """What there is to ask about, in the order of the file, after every check of ``curate``."""
    return new_items(run.task, survey(run).dropped)


@dataclass(frozen=True, kw_only=True)
class Survey:
    """The pool as it was read to its end once."""

    size: PoolSize
    held: Sequence[Seed] | None
    """What may be asked about, where it is to be drawn from at random and there is not too much of it to keep."""
    dropped: Marks
    """The ids of what a check of ``curate`` dropped."""


def survey(run: Run) -> Survey:
    """Count the pool, and note in the journal what is dropped from it."""
    counted = _Counting(run=run, held_out=_held_out(run.task))
    new = counted.new(told_apart(run.task.prompter.seeds(POOL), text=_text(run.task), seen=Marks()))
    held, unique, dropped, by_check = list[Seed](), 0, Marks(), Counter[str]()
    sound = without_erased(run.corpus.journal, run.run_id, new, by_check)
    for seed, why in _sifted(run, sound):
        if why is not None:
            by_check[why] += 1
            dropped.add([mark_of(seed.item_id)])
            continue
        unique += 1
        held.append(seed) if unique <= HELD else held.clear()
    counted.drops.write()
    check_left(run.task, counted.read, unique, by_check)
    size = PoolSize(
        read=counted.read, unique=unique, repeated=counted.repeated, leaked=counted.leaked, dropped=dict(by_check)
    )
    return Survey(size=size, held=held if unique <= HELD else None, dropped=dropped)


def _sifted(run: Run, seeds: Iterator[Seed]) -> Iterator[tuple[Seed, str | None]]:
    """The items, each with the check that drops it."""
    if not sieves(run.task):
        yield from ((seed, None) for seed in seeds)
        return
    for one in sieved(run.task, seeds, Notes.of(run)):
        yield one.seed, None if one.dropped is None else one.dropped.check


@dataclass(kw_only=True)
class _Counting:
    """Lets through what says something new, and counts and notes the rest."""

    run: Run
    held_out: Marks
    read: int = 0
    repeated: int = 0
    leaked: int = 0

    def __post_init__(self) -> None:
        self.drops = _Drops(self.run)

    def new(self, told: Iterable[tuple[Seed, bool]]) -> Iterator[Seed]:
        for seed, new in told:
            self.read += 1
            if len(self.held_out) and self.held_out.known([_mark(self.run.task, seed)])[0]:
                self.leaked += 1
                self.drops.add(seed, leak=True)
            elif not new:
                self.repeated += 1
                self.drops.add(seed, leak=False)
            else:
                yield seed


def _held_out(task: Task) -> Marks:
    """What validation and gold say."""
    seen = Marks()
    for split in HELD_OUT:
        for _ in told_apart(task.prompter.seeds(split), text=_text(task), seen=seen):
            pass
    return seen


@dataclass(kw_only=True)
class _Drop:
    name: str
    mark: int
    leak: bool


class _Drops:
    """What is dropped, written down in portions; whose repeat it is, is looked up in the files for a whole portion."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._waiting: list[_Drop] = []

    def add(self, seed: Seed, *, leak: bool) -> None:
        mark = _mark(self._run.task, seed)
        self._waiting.append(_Drop(name=f"train:{seed.item_id}", mark=mark, leak=leak))
        if len(self._waiting) == REPEATS_AT_ONCE:
            self.write()

    def write(self) -> None:
        if not self._waiting:
            return
        first = self._first_of({drop.mark for drop in self._waiting})
        found = [(drop.leak, Repeat(item_id=drop.name, repeat_of=first[drop.mark])) for drop in self._waiting]
        note_drops(self._run, "dedup", "exact repeat", [repeat for leak, repeat in found if not leak])
        leaks = [repeat for leak, repeat in found if leak]
        note_drops(self._run, "decontaminate", "same text as a validation or gold item", leaks)
        self._waiting.clear()

    def _first_of(self, marks: set[int]) -> dict[int, str]:
        """The names of the first items with these texts."""
        first: dict[int, str] = {}
        task = self._run.task
        for split in (*HELD_OUT, POOL):
            for seed in task.prompter.seeds(split):
                if (mark := _mark(task, seed)) in marks:
                    first.setdefault(mark, f"{split}:{seed.item_id}")
                    if len(first) == len(marks):
                        return first
        return first


def _in_order(task: Task, surveyed: Survey, limit: int) -> Iterable[Item]:
    """The items to ask about, in the order of asking."""
    asking, held = task.spec.asking, surveyed.held
    if asking.order == "diverse":
        return _covering(task, surveyed, limit)
    if held is not None:
        ids = [seed.item_id for seed in held]
        order = first_round(ids, count=limit, seed=asking.seed) if asking.order == "random" else range(limit)
        return (task.prompter.item(held[at], POOL) for at in order)
    items = new_items(task, surveyed.dropped)
    return islice(_shuffled(items, asking.seed) if asking.order == "random" else items, limit)


def _covering(task: Task, surveyed: Survey, limit: int) -> Iterable[Item]:
    """So many items that cover the pool, the most telling first."""
    seeds = surveyed.held
    if seeds is None:
        seeds = list(_drawn(task, surveyed, max(POOLED, POOLED_PER_ITEM * limit)))
    chosen = chosen_seeds(task, seeds, limit)
    return (task.prompter.item(seeds[at], POOL) for at in chosen)


def _drawn(task: Task, surveyed: Survey, count: int) -> Iterator[Seed]:
    """So many of a large pool, drawn at random, in the order of the file."""
    seed, seeds = task.spec.asking.seed, partial(_new_seeds, task, surveyed.dropped)
    lots = nsmallest(count, (ticket(one.item_id, seed) for one in seeds()))
    last = lots[-1]
    return (one for one in seeds() if ticket(one.item_id, seed) <= last)


def new_items(task: Task, dropped: Marks | None = None) -> Iterator[Item]:
    """What the pool has to ask about, one item at a time: without repeats, what is held out, and what was dropped."""
    return (task.prompter.item(seed, POOL) for seed in _new_seeds(task, dropped or Marks()))


def _new_seeds(task: Task, dropped: Marks) -> Iterator[Seed]:
    for seed, new in told_apart(task.prompter.seeds(POOL), text=_text(task), seen=_held_out(task)):
        if new and not (len(dropped) and dropped.known([mark_of(seed.item_id)])[0]):
            yield seed


def _shuffled(items: Iterable[Item], seed: int) -> Iterator[Item]:
    """The items in the random order of ``first_round``, by way of a file that is gone when this process ends."""
    file = apsw.Connection("")
    file.execute("create table waiting(ticket blob primary key, item blob) without rowid; begin")
    file.executemany(
        "insert into waiting values(?, ?)", ((ticket(item.item_id, seed), _packed(item)) for item in items)
    )
    return (_unpacked(row[0]) for row in file.execute("select item from waiting order by ticket"))


def _packed(item: Item) -> bytes:
    messages = [(message.role, message.content) for message in item.messages]
    return orjson.dumps((item.item_id, item.split, item.input, messages, item.source_ids, item.gold, item.parent_ids))


def _unpacked(packed: bytes) -> Item:
    item_id, split, text, messages, source_ids, gold, parent_ids = orjson.loads(packed)
    return Item(
        item_id=item_id,
        split=split,
        input=text,
        messages=tuple(Message(role=role, content=content) for role, content in messages),
        source_ids=tuple(source_ids),
        gold=gold,
        parent_ids=tuple(parent_ids),
    )


def _text(task: Task) -> Callable[[Seed], str]:
    column = task.spec.input
    return lambda seed: seed.values[column]


def _mark(task: Task, seed: Seed) -> int:
    return mark_of(normalised(seed.values[task.spec.input]))
