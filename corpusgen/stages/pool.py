"""The pool of a task: what may be asked about, and what was dropped from it and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from corpusgen.curation.exact import Repeat, without_repeats
from corpusgen.journal import Transaction
from corpusgen.prompting.prompts import Item
from corpusgen.prompting.seeds import Seed
from corpusgen.records import Split
from corpusgen.stages.erasure.erasures import without_erased
from corpusgen.stages.runs import Run
from corpusgen.stages.sieving import Notes, check_left, sieved, sieves, text_of
from corpusgen.stages.task import Task

HELD_OUT: Final[tuple[Split, ...]] = ("validation", "gold")


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
    dropped: Mapping[str, int] = field(default_factory=dict)
    """How many each check of ``curate`` dropped."""

    @property
    def unique(self) -> int:
        """How many items are left to ask about."""
        return len(self.items)

    @property
    def repeated(self) -> int:
        """How many say what another says."""
        return len(self.repeats)

    @property
    def leaked(self) -> int:
        """How many say what a validation or gold item says."""
        return len(self.leaks)


def read_pool(run: Run) -> Pool:
    """The pool, with everything that was dropped from it noted in the journal."""
    pool = unique_pool(run.task, Notes.of(run))
    note_drops(run, "dedup", "exact repeat", pool.repeats)
    note_drops(run, "decontaminate", "same text as a validation or gold item", pool.leaks)
    return pool


def unique_pool(task: Task, notes: Notes) -> Pool:
    """The pool without repeats, without what validation or gold already say, and without what ``curate`` drops."""
    held_out: dict[int, str] = {}
    for split in HELD_OUT:
        _unique(task, task.prompter.seeds(split), split, held_out, [])
    reserved = set(held_out.values())
    dropped: list[Repeat] = []
    read = list(task.prompter.seeds("train"))
    kept: Iterable[Seed] = _unique(task, read, "train", held_out, dropped)
    by_check: Counter[str] = Counter()
    kept = list(without_erased(notes.journal, notes.run_id, kept, by_check))
    if sieves(task):
        kept = list(_sound(task, kept, notes, by_check))
    check_left(task, len(read), len(kept), by_check)
    return Pool(
        items=tuple(task.prompter.item(seed, "train") for seed in kept),
        read=len(read),
        repeats=tuple(repeat for repeat in dropped if repeat.repeat_of not in reserved),
        leaks=tuple(repeat for repeat in dropped if repeat.repeat_of in reserved),
        dropped=dict(by_check),
    )


def _sound(task: Task, seeds: Iterable[Seed], notes: Notes, by_check: Counter[str]) -> Iterable[Seed]:
    for one in sieved(task, seeds, notes):
        if one.dropped is None:
            yield one.seed
        else:
            by_check[one.dropped.check] += 1


def _unique(task: Task, seeds: Iterable[Seed], split: str, known: dict[int, str], repeats: list[Repeat]) -> list[Seed]:
    return list(
        without_repeats(
            seeds,
            name=lambda seed: f"{split}:{seed.item_id}",
            text=lambda seed: text_of(task, seed),
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
