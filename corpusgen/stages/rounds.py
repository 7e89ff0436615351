"""Rounds: what the teacher says of some of the pool, and the student that makes of it what to ask next."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from corpusgen.curation.active import first_round, next_round
from corpusgen.evaluate.calibration import Calibration
from corpusgen.prompting.prompts import Item, Prompt, prompts
from corpusgen.records import Record
from corpusgen.stages import studying
from corpusgen.stages.lanes import lane_answers
from corpusgen.stages.pool import Pool
from corpusgen.stages.runs import Run
from corpusgen.stages.watching import Watch

if TYPE_CHECKING:  # a run that is answered already, or writes free text, needs no student and its libraries
    from corpusgen.curation.stopping import Expected, Point
    from corpusgen.distill.students.bag import BagStudent

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
    measured: Point | None = None
    """How far it agrees with the teacher, where that steers what is asked."""
    expected: Expected | None = None
    """What another round was expected to bring."""


@dataclass(kw_only=True)
class Rounds:
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
        asking = self.run.task.spec.questions
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

    @property
    def taught(self) -> BagStudent:
        """The latest student."""
        assert self.student is not None
        return self.student

    async def uncertain(self, count: int) -> list[int]:
        """Positions of what the student is least sure of."""
        rest = sorted(self.left)
        texts = [self.pool.items[at].input for at in rest]
        scores = await asyncio.to_thread(self.taught.log_probabilities, texts)
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
        usable, targets = teachable(self.train, self.calibration)
        return self.fit([item.item.input for item in usable], targets)

    def fit(self, texts: Sequence[str], targets: Floats) -> BagStudent:
        """A student of some of what is known: texts with their label probabilities."""
        from corpusgen.distill.selection import ways_to_fit
        from corpusgen.distill.students.bag import design, fit

        names, run = self.run.asker.facts.label_names or (), self.run
        way = ways_to_fit("soft")[0] if run.task.spec.student.loss == "soft" else ways_to_fit("hard")[1]
        worst_us = studying.worst_study_us(texts, len(names))
        with studying.studying(run.corpus, run.task, run.run_id, f"round {len(self.finished) + 1}", worst_us):
            return fit(design(self.space, texts), targets, names, way)

    def lesson(self) -> tuple[list[str], Floats, npt.NDArray[np.bool_]]:
        """Every text with a label, what the teacher makes of it, and whether it is of the random sample."""
        usable, targets = teachable(self.train, self.calibration)
        sample = {item.record_id for item in self.train[: self.sample]}
        return [one.item.input for one in usable], targets, np.array([one.record_id in sample for one in usable])

    def said_of(self, labelled: Sequence[Labelled]) -> tuple[list[str], Integers]:
        """The texts that the teacher gave a label, and which."""
        usable = [item for item in labelled if not np.isnan(item.logprobs).all()]
        if not usable:
            return [], np.zeros(0, np.int64)
        return [one.item.input for one in usable], teachable(usable, self.calibration)[1].argmax(axis=1)


async def ask_labels(run: Run, items: Sequence[Item], first_ordinal: int) -> list[Labelled]:
    """What the teacher says of some items, in the items' order."""
    ordered = {prompt.record_id: prompt.item for prompt in prompts_about(run, items, first_ordinal)}
    return [_labelled(ordered[record.record_id], record) for record in await ask_items(run, items, first_ordinal)]


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
        per_call=run.task.spec.asking.samples_per_call,
        first_ordinal=first_ordinal,
    )


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


def teachable(labelled: Sequence[Labelled], calibration: Calibration | None) -> tuple[list[Labelled], Floats]:
    """The items that have a label, and their calibrated label probabilities (n x k)."""
    usable = [item for item in labelled if not np.isnan(item.logprobs).all()]
    kept = calibration or Calibration(kind="raw", vector=(0.0,) * (len(usable[0].logprobs) if usable else 0))
    targets: Floats = np.nan_to_num(np.exp(kept.apply(logprobs_of(usable))))
    return usable, targets
