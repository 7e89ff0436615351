"""What the items that were asked about cover of their pool, in the report's facts."""

from __future__ import annotations

from collections.abc import Iterator
from heapq import nsmallest
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from corpusgen.corpus import Corpus
from corpusgen.curation.active import ticket
from corpusgen.evaluate.report import facts, gather
from corpusgen.prompting.seeds import Seed
from corpusgen.stages.embedding import embedder_of
from corpusgen.stages.pool import HELD_OUT
from corpusgen.stages.task import Task

if TYPE_CHECKING:  # numbers and vectors are read where a map is drawn
    from corpusgen.curation.coverage import State

MOST: Final = 20_000
"""Items of the pool that are compared; of more, so many are drawn at random, those asked about first."""
MOST_HELD_OUT: Final = 2_000
FEWEST: Final = 10
"""Items of which a map can be drawn."""


class Asked(Protocol):
    """What is known of a run, open or long over."""

    @property
    def task(self) -> Task:
        """Whose pool it is."""
        ...

    @property
    def corpus(self) -> Corpus:
        """Where it was asked."""
        ...

    @property
    def run_id(self) -> str:
        """Its name there."""
        ...


class _Item(NamedTuple):
    state: State
    seed: Seed


def coverage(run: Asked) -> facts.Coverage | None:
    """Where the items that were asked about lie in the pool; None where there are too few to tell."""
    items = [*_pool(run), *_held_out(run.task)]
    if len(items) < FEWEST or all(item.state != "chosen" for item in items):
        return None
    from corpusgen.curation.coverage import coverage as covered

    seed, part = run.task.spec.asking.seed, run.task.spec.curate.diverse
    texts = [item.seed.values[run.task.spec.input] for item in items]
    column = part.strata if part is not None else None
    # Words, whatever else was chosen by: a map of a pool may not take longer than asking about it.
    embedder = embedder_of("hashing", texts, seed=seed)
    found = covered(
        embedder.embed(texts),
        [item.state for item in items],
        [item.seed.item_id if item.state != "held_out" else f"held out: {item.seed.item_id}" for item in items],
        texts,
        strata=None if column is None else [item.seed.values.get(column, "") for item in items],
        seed=seed,
        embedder=embedder.name,
    )
    return gather.coverage(found)


def _pool(run: Asked) -> list[_Item]:
    """The pool's items, each with what became of it."""
    asked = _names(run, "select distinct item_id from records where run_id = ? and split = 'train'")
    asked |= _names(
        run,
        "select distinct item_id from reuses u join records using (record_id) where u.run_id = ? and split = 'train'",
    )
    dropped = _names(run, "select substr(item_id, 7) from drops where run_id = ? and item_id glob 'train:*'") - asked

    def place(item: _Item) -> tuple[bool, bytes]:
        return item.state != "chosen", ticket(item.seed.item_id, run.task.spec.asking.seed)

    return nsmallest(MOST, _told(run.task, asked, dropped), key=place)


def _told(task: Task, asked: set[str], dropped: set[str]) -> Iterator[_Item]:
    for seed in task.prompter.seeds("train"):
        name = seed.item_id
        yield _Item("chosen" if name in asked else "dropped" if name in dropped else "passed_over", seed)


def _held_out(task: Task) -> list[_Item]:
    seeds = (seed for split in HELD_OUT for seed in task.prompter.seeds(split))
    drawn = nsmallest(MOST_HELD_OUT, seeds, key=lambda seed: ticket(seed.item_id, task.spec.asking.seed))
    return [_Item("held_out", seed) for seed in drawn]


def _names(run: Asked, sql: str) -> set[str]:
    return {str(row[0]) for row in run.corpus.journal.query(sql, (run.run_id,))}
