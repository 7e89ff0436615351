"""Asking: validation first, then the pool, at random and in rounds where the student wavers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from corpusgen.evaluate.calibration import CalibrationChoice, choose_calibration
from corpusgen.stages import studying
from corpusgen.stages.pool import Pool, read_pool
from corpusgen.stages.rounds import Integers, Labelled, Round, Rounds, ask_labels, logprobs_of, teachable
from corpusgen.stages.runs import Run
from corpusgen.stages.watching import Watch, no_watch

if TYPE_CHECKING:  # a run that is answered already, or writes free text, needs no student and its libraries
    from corpusgen.curate_fields import Active
    from corpusgen.distill.students.bag import TextSpace
    from corpusgen.stages.steering import Steering


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
    ended: str | None = None
    """Why no more was asked, where that was decided on the way."""


def gold_of(run: Run, labelled: Sequence[Labelled]) -> Integers:
    """Gold labels as positions in the label set (n). Raises SpecError for one that is not a label."""
    names = run.asker.facts.label_names or ()
    for item in labelled:
        if item.item.gold not in names:
            message = f"item {item.item.item_id!r} has gold {item.item.gold!r}, which is not among labels.names"
            raise run.task.located.error(message, "labels", "names")
    return np.array([names.index(item.item.gold or "") for item in labelled], np.int64)


async def ask_for_labels(run: Run, watch: Watch = no_watch, *, later: int = 0) -> Asked:
    """All the labels a run asks for: validation, a seeded random first round, then rounds of what is uncertain.

    ``later`` items will be asked about afterwards, under the same budget.
    """
    asking, active = run.task.spec.questions, run.task.spec.curate.active
    validation = await ask_validation(run, watch)
    pool = await asyncio.to_thread(read_pool, run)
    limit = min(asking.limit, len(pool.items))
    first = min(asking.first_round if asking.order == "margin" else limit, limit)
    rounds = Rounds(run=run, pool=pool, watch=watch, limit=limit)
    steered = _steering(run, active, rounds, later) if active else None
    opening = await steered.opening(first) if steered else rounds.opening(first)
    await rounds.ask(opening, "file" if asking.order == "file" else "random")
    choice = _choose(run, validation, rounds.train)
    rounds.calibration = choice.chosen if choice else None
    if asking.order == "margin":
        await _begin_rounds(run, rounds)
        if steered is None:
            await _ask_what_is_uncertain(rounds, asking.round, limit)
    ended = await steered.go_on(validation) if steered else None
    return Asked(
        pool=pool,
        train=tuple(rounds.train),
        sample=rounds.sample,
        validation=tuple(validation),
        choice=choice,
        space=rounds.space,
        rounds=tuple(rounds.finished),
        ended=ended,
    )


def _steering(run: Run, settings: Active, rounds: Rounds, later: int) -> Steering:
    from corpusgen.stages.steering import steering  # its curves take libraries that other orders do without

    return steering(run, settings, rounds, later)


async def _begin_rounds(run: Run, rounds: Rounds) -> None:
    if rounds.train and not teachable(rounds.train, rounds.calibration)[0]:
        message = f"none of the first {rounds.asked} answers is a label; look at them with corpusgen query"
        raise run.task.located.error(message, "labels", "names")
    rounds.space = await asyncio.to_thread(learn_pool, run, rounds.pool)
    await rounds.study("random")


async def _ask_what_is_uncertain(rounds: Rounds, size: int, limit: int) -> None:
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
