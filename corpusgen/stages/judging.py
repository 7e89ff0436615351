"""Judging: the answers of a run are scored by another teacher, whose judgements are records of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, count
from typing import Final

from corpusgen.fanout.stream import answers
from corpusgen.marks import Marks
from corpusgen.prompting.prompts import Prompt
from corpusgen.records import Record
from corpusgen.stages.checks import AnswerChecks, answer_checks
from corpusgen.stages.choosing import Choice, first_drop
from corpusgen.stages.choosing import Plan as Wanted
from corpusgen.stages.erasure.erasures import Sifter, Tombstones
from corpusgen.stages.judgements import Judging, score_in
from corpusgen.stages.judges import CHECK
from corpusgen.stages.runs import Run
from corpusgen.stages.selecting import Filters, reused, useless
from corpusgen.stages.watching import Watch, no_watch
from corpusgen.stages.writing import Names
from corpusgen.store.manifest import read_manifest
from corpusgen.store.shards import read_records

SPLIT: Final = "train"
NO_SCORE: Final = "no score"


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What came of the judging: how many judgements there are, and how many answers have none that is a score."""

    judged: int
    unscored: int


async def judge_answers(run: Run, watch: Watch = no_watch) -> Judged | None:
    """Have a run's committed answers scored, each once; None where the spec names no judge.

    What is of no use, or dropped by another check of the spec, is not paid for. Raises BudgetExhausted when a cap ends
    it; every judgement is kept, and the same call goes on from there.
    """
    if run.judge is None:
        return None
    wanted = await asyncio.to_thread(_of_run, run)
    checks = await asyncio.to_thread(answer_checks, run.task, judged=False)
    watch("judge", len(wanted))
    part, notes = run.task.spec.curate.judge, _Notes(run)
    assert part is not None
    asker, questions = run.judge.asker, _questions(run, _sound(run, wanted, checks))
    sifter = Sifter(tombstones=Tombstones.of(run.corpus.journal), task=asker.facts.task)
    async with answers(asker, sifter.through(questions) if sifter.tombstones else questions) as records:
        async for record in records:
            await notes.take(record, scored=score_in(record.structured, part) is not None)
    return Judged(judged=run.judge.asker.counts.done, unscored=len(notes.unscored))


def _of_run(run: Run) -> Names:
    """The ids of the run's answers."""
    names = Names()
    rows = run.corpus.journal.reader.execute(
        "select lower(hex(record_id)) from records where run_id = :run and split = :split"
        " union all select lower(hex(record_id)) from reuses join records using (record_id)"
        " where reuses.run_id = :run and split = :split",
        {"run": run.run_id, "split": SPLIT},
    )
    for (name,) in rows:
        names.add(str(name))
    return names


def _questions(run: Run, sound: Iterable[Record]) -> Iterator[Prompt]:
    """What the judge is asked, one answer at a time; equal answers to equal questions are asked about once."""
    assert run.judge is not None
    judging, seen, ordinals = Judging.of(run.task, run.judge.asker.teacher.card), Marks(), count()
    for record in sound:
        prompt = judging.prompt(record)
        if seen.add([int(prompt.record_id[:16], 16)])[0]:
            yield Prompt(item=prompt.item, request=prompt.request, ordinal=next(ordinals))


def _sound(run: Run, wanted: Names, checks: AnswerChecks | None) -> Iterator[Record]:
    """The answers that nothing speaks against as long as nobody has judged them."""
    choice = Choice(plan=Wanted(), base=lambda record: useless(record, Filters()), checks=checks)
    name, corpus = run.task.spec.name, run.corpus
    paths = read_manifest(corpus.folder).paths(corpus.folder, dataset=name, split=SPLIT)
    found, elsewhere = reused(corpus, name, SPLIT)
    theirs = (record for path in elsewhere for record in read_records([path]) if record.record_id in found)
    for record in chain(read_records(paths), theirs):
        if record.record_id in wanted and record.response.strip() and first_drop(choice.findings_of(record)) is None:
            yield record


class _Notes:
    """What is said of answers that the judge gave no score, taken back where it has given one since."""

    def __init__(self, run: Run) -> None:
        rows = run.corpus.journal.query("select item_id from drops where run_id = ? and stage = ?", (run.run_id, CHECK))
        self.run, self.unscored = run, {str(row[0]) for row in rows}

    async def take(self, record: Record, *, scored: bool) -> None:
        """Note what came of an answer."""
        name = record.parent_ids[0]
        if not scored:
            self.unscored.add(name)
            said = " ".join(record.response.split())[:200]
            sql = "insert or replace into drops(run_id, stage, item_id, reason, detail) values(?, ?, ?, ?, ?)"
            await self._write(sql, (self.run.run_id, CHECK, name, NO_SCORE, said))
        elif name in self.unscored:
            self.unscored.discard(name)
            sql = "delete from drops where run_id = ? and stage = ? and item_id = ?"
            await self._write(sql, (self.run.run_id, CHECK, name))

    async def _write(self, sql: str, values: tuple[str, ...]) -> None:
        await self.run.corpus.journal.run(lambda transaction: transaction.execute(sql, values).close())
