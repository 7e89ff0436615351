"""Asking: validation first, then the pool, at random and in rounds where the student wavers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from corpusgen.curation.active import first_round, next_round
from corpusgen.curation.exact import Repeat, without_repeats
from corpusgen.evaluate.calibration import Calibration, CalibrationChoice, choose_calibration
from corpusgen.journal import Transaction
from corpusgen.prompting.prompts import Item, Prompt, prompts
from corpusgen.records import Record
from corpusgen.stages import studying
from corpusgen.stages.lanes import lane_answers
from corpusgen.stages.opening import Run
from corpusgen.stages.task import Task

if TYPE_CHECKING:  # a run that is answered already, or writes free text, needs no student and its libraries
    from corpusgen.distill.students.bag import BagStudent, TextSpace

Floats: TypeAlias = npt.NDArray[np.float64]
Integers: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """An item with what the teacher said of it: raw label log-probabilities, NaN where it gave none."""

    item: Item
    record_id: str
    logprobs: tuple[float, ...]
    truncated: bool


@dataclass(frozen=True, kw_only=True)
class Round:
    """One round of asking: how many labels there were after it, and the student they made."""

    number: int
    labels: int
    chosen_by: str
    student: BagStudent


@dataclass(frozen=True, kw_only=True)
class Pool:
    """What may be asked about, repeats dropped, and how many went where.

    Labels are asked for in rounds, each among everything that is left, so their pool is held in memory; free text's
    is not (``stages.writing``).
    """

    items: tuple[Item, ...]
    read: int
    repeats: tuple[Repeat, ...]
    leaks: tuple[Repeat, ...]

    @property
    def unique(self) -> int:
        """How many items say something new."""
        return len(self.items)

    @property
    def repeated(self) -> int:
        """How many say what another says."""
        return len(self.repeats)

    @property
    def leaked(self) -> int:
        """How many say what a validation or gold item says."""
        return len(self.leaks)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Everything the teacher said in a run, and what was made of it on the way."""

    pool: Pool
    train: tuple[Labelled, ...]
    sample: int
    """How many of the first ``train`` items are the seeded random sample."""
    validation: tuple[Labelled, ...]
    choice: CalibrationChoice | None
    space: TextSpace | None
    """What the pool's text taught, where the choice of what to ask needed it."""
    rounds: tuple[Round, ...]


Watch: TypeAlias = Callable[[str, int | None], None]
"""Told of each stage and how many items it has."""


def no_watch(stage: str, total: int | None) -> None:
    """Nobody is watching."""


def read_pool(run: Run) -> Pool:
    """The pool, with everything that was dropped from it noted in the journal."""
    pool = unique_pool(run.task)
    note_drops(run, "dedup", "exact repeat", pool.repeats)
    note_drops(run, "decontaminate", "same text as a validation or gold item", pool.leaks)
    return pool


def unique_pool(task: Task) -> Pool:
    """The pool without repeats, and without what validation or gold already say."""
    held_out: dict[int, str] = {}
    for split in ("validation", "gold"):
        _unique(task.prompter.items(split), held_out, [])
    reserved = set(held_out.values())
    dropped: list[Repeat] = []
    read = list(task.prompter.items("train"))
    kept = tuple(_unique(read, held_out, dropped))
    return Pool(
        items=kept,
        read=len(read),
        repeats=tuple(repeat for repeat in dropped if repeat.repeat_of not in reserved),
        leaks=tuple(repeat for repeat in dropped if repeat.repeat_of in reserved),
    )


def _unique(items: Iterable[Item], known: dict[int, str], repeats: list[Repeat]) -> list[Item]:
    return list(
        without_repeats(
            items,
            name=lambda item: f"{item.split}:{item.item_id}",
            text=lambda item: item.input,
            report=repeats.append,
            known=known,
        )
    )


def note_drops(run: Run, stage: str, reason: str, repeats: Sequence[Repeat]) -> None:
    """Note in the journal which items were dropped, and whose repeats they are."""
    rows = [(run.run_id, stage, repeat.item_id, reason, repeat.repeat_of) for repeat in repeats]
    if not rows:
        return

    def operation(transaction: Transaction) -> None:
        transaction.connection.executemany(
            "insert into drops(run_id, stage, item_id, reason, repeat_of) values(?, ?, ?, ?, ?) on conflict do nothing",
            rows,
        )

    run.corpus.journal.run_now(operation)


async def ask_items(run: Run, items: Sequence[Item], first_ordinal: int) -> list[Record]:
    """The records of some items, in the items' order; items whose call failed for good are missing."""
    ordered = list(prompts_about(run, items, first_ordinal))
    found: dict[str, Record] = {}
    async with lane_answers(run.lane, ordered) as records:
        async for record in records:
            found[record.record_id] = _without_runners_up(record)
    return [found[prompt.record_id] for prompt in ordered if prompt.record_id in found]


def _without_runners_up(record: Record) -> Record:
    """The record without what is large and only the shards need."""
    if record.topk_bytes is None:
        return record
    return replace(record, topk_bytes=None, topk_ids=None, topk_logprobs=None, topk_len=None)


def prompts_about(run: Run, items: Iterable[Item], first_ordinal: int) -> Iterable[Prompt]:
    """The prompts that ask about some items, so many for each as the spec wants samples."""
    return prompts(
        iter(items),
        run.requester,
        samples=run.task.spec.asking.samples,
        first_ordinal=first_ordinal,
    )


async def ask_labels(run: Run, items: Sequence[Item], first_ordinal: int) -> list[Labelled]:
    """What the teacher says of some items, in the items' order."""
    ordered = {prompt.record_id: prompt.item for prompt in prompts_about(run, items, first_ordinal)}
    return [_labelled(ordered[record.record_id], record) for record in await ask_items(run, items, first_ordinal)]


def _labelled(item: Item, record: Record) -> Labelled:
    names = record.label_names or ()
    if record.label_logprobs is not None:
        logprobs = tuple(float("nan") if value is None else value for value in record.label_logprobs)
    else:
        logprobs = tuple(0.0 if name == record.label else float("nan") for name in names)
    return Labelled(
        item=item,
        record_id=record.record_id,
        logprobs=logprobs,
        truncated=record.truncated,
    )


def logprobs_of(labelled: Sequence[Labelled]) -> Floats:
    """Raw label log-probabilities (n x k), NaN for missing."""
    width = len(labelled[0].logprobs) if labelled else 0
    return np.array([item.logprobs for item in labelled], np.float64).reshape(len(labelled), width)


def gold_of(run: Run, labelled: Sequence[Labelled]) -> Integers:
    """Gold labels as positions in the label set (n). Raises SpecError for one that is not a label."""
    names = run.asker.facts.label_names or ()
    for item in labelled:
        if item.item.gold not in names:
            message = f"item {item.item.item_id!r} has gold {item.item.gold!r}, which is not among labels.names"
            raise run.task.located.error(message, "labels", "names")
    return np.array([names.index(item.item.gold or "") for item in labelled], np.int64)


async def ask_for_labels(run: Run, watch: Watch = no_watch) -> Asked:
    """All the labels a run asks for: validation, a seeded random first round, then rounds of what is uncertain."""
    asking = run.task.spec.asking
    validation = await ask_validation(run, watch)
    pool = await asyncio.to_thread(read_pool, run)
    limit = min(asking.limit, len(pool.items))
    first = min(asking.first_round if asking.order == "margin" else limit, limit)
    rounds = _Rounds(run=run, pool=pool, watch=watch, limit=limit)
    await rounds.ask(rounds.opening(first), "file" if asking.order == "file" else "random")
    choice = _choose(run, validation, rounds.train)
    rounds.calibration = choice.chosen if choice else None
    if asking.order == "margin":
        await _ask_what_is_uncertain(run, rounds, asking.round, limit)
    return Asked(
        pool=pool,
        train=tuple(rounds.train),
        sample=rounds.sample,
        validation=tuple(validation),
        choice=choice,
        space=rounds.space,
        rounds=tuple(rounds.finished),
    )


async def _ask_what_is_uncertain(run: Run, rounds: _Rounds, size: int, limit: int) -> None:
    if rounds.train and not teachable(rounds.train, rounds.calibration)[0]:
        message = f"none of the first {rounds.asked} answers is a label; look at them with corpusgen query"
        raise run.task.located.error(message, "labels", "names")
    rounds.space = await asyncio.to_thread(learn_pool, run, rounds.pool)
    await rounds.study("random")
    while rounds.left and rounds.asked < limit:
        await rounds.ask(await rounds.uncertain(min(size, limit - rounds.asked)), "margin")
        await rounds.study("margin")


def learn_pool(run: Run, pool: Pool) -> TextSpace:
    """What the pool's own text teaches about n-grams."""
    return studying.learn_pool(run.corpus, run.task, run.run_id, [item.input for item in pool.items])


async def ask_validation(run: Run, watch: Watch = no_watch) -> list[Labelled]:
    """What the teacher says of the validation items."""
    items = list(run.task.prompter.items("validation"))
    watch("validation", len(items))
    return await ask_labels(run, items, 0)


def _choose(run: Run, validation: Sequence[Labelled], sample: Sequence[Labelled]) -> CalibrationChoice | None:
    if not validation or not sample:
        return None
    return choose_calibration(logprobs_of(validation), gold_of(run, validation), logprobs_of(sample))


@dataclass(kw_only=True)
class _Rounds:
    """What has been asked of the pool so far."""

    run: Run
    pool: Pool
    watch: Watch
    limit: int
    asked: int = 0
    sample: int = 0
    train: list[Labelled] = field(default_factory=list)
    finished: list[Round] = field(default_factory=list)
    left: set[int] = field(default_factory=set)
    calibration: Calibration | None = None
    space: Any = None
    student: BagStudent | None = None

    def __post_init__(self) -> None:
        self.left = set(range(len(self.pool.items)))

    def opening(self, count: int) -> list[int]:
        """Positions of the first round."""
        asking = self.run.task.spec.asking
        if asking.order == "file":
            return list(range(count))
        return first_round([item.item_id for item in self.pool.items], count=count, seed=asking.seed)

    async def ask(self, positions: Sequence[int], chosen_by: str) -> None:
        """Ask about some of the pool."""
        self.watch(f"round {len(self.finished) + 1} ({chosen_by})", len(positions))
        labelled = await ask_labels(self.run, [self.pool.items[at] for at in positions], self.asked)
        self.asked += len(positions)
        self.left -= set(positions)
        self.train += labelled
        self.sample = self.sample or len(labelled)

    async def uncertain(self, count: int) -> list[int]:
        """Positions of what the student is least sure of."""
        assert self.student is not None
        rest = sorted(self.left)
        texts = [self.pool.items[at].input for at in rest]
        scores = await asyncio.to_thread(self.student.log_probabilities, texts)
        ids = [self.pool.items[at].item_id for at in rest]
        seed = self.run.task.spec.asking.seed
        return [rest[at] for at in next_round(scores, ids, count=count, seed=seed)]

    async def study(self, chosen_by: str) -> None:
        """Fit a student on what is known so far."""
        self.student = await asyncio.to_thread(self._fit)
        self.finished.append(
            Round(number=len(self.finished) + 1, labels=self.asked, chosen_by=chosen_by, student=self.student)
        )

    def _fit(self) -> BagStudent:
        from corpusgen.distill.selection import ways_to_fit
        from corpusgen.distill.students.bag import design, fit

        usable, targets = teachable(self.train, self.calibration)
        names = self.run.asker.facts.label_names or ()
        way = ways_to_fit("soft")[0] if self.run.task.spec.student.loss == "soft" else ways_to_fit("hard")[1]
        texts, run = [item.item.input for item in usable], self.run
        worst_us = studying.worst_study_us(texts, len(names))
        with studying.studying(run.corpus, run.task, run.run_id, f"round {len(self.finished) + 1}", worst_us):
            return fit(design(self.space, texts), targets, names, way)


def teachable(labelled: Sequence[Labelled], calibration: Calibration | None) -> tuple[list[Labelled], Floats]:
    """The items that have a label, and their calibrated label probabilities (n x k)."""
    usable = [item for item in labelled if not np.isnan(item.logprobs).all()]
    kept = calibration or Calibration(kind="raw", vector=(0.0,) * (len(usable[0].logprobs) if usable else 0))
    targets: Floats = np.nan_to_num(np.exp(kept.apply(logprobs_of(usable))))
    return usable, targets
