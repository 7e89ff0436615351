"""What a judge will be asked, before there are answers to ask it about."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Final

from corpusgen.corpus import Corpus
from corpusgen.records import Request
from corpusgen.stages.estimating import LIKELY_OUTPUT
from corpusgen.stages.judgements import Judging
from corpusgen.stages.runs import judge_run_id
from corpusgen.stages.task import Task
from corpusgen.store.manifest import read_manifest
from corpusgen.store.shards import read_records
from corpusgen.teachers.teacher import Teacher

SAMPLE: Final = 200
BYTES_PER_TOKEN: Final = 4


def to_judge(corpus: Corpus, task: Task, asked: int, to_send: int) -> int:
    """How many answers there will be that the judge has not seen; ``to_send`` of them are not there yet."""
    assert task.judging is not None
    rows = corpus.journal.query("select run_id from runs where spec_digest = ? order by started_us", (task.identity,))
    name = judge_run_id(str(rows[0][0]), task.judging) if rows else ""
    judged, lost, whole = corpus.journal.query(
        "select (select count(*) from records where run_id = :run) + (select count(*) from reuses where run_id = :run),"
        " (select count(*) from drops where run_id = :run and stage glob 'ask:*'),"
        " exists(select 1 from runs where run_id = :run and status = 'complete')",
        {"run": name},
    )[0]
    # Of a run that came to its end, the judge has seen all that was worth judging.
    return to_send + int(lost) if whole else max(0, asked - int(judged))


def questions_foreseen(corpus: Corpus, task: Task, judge: Teacher, asked: Sequence[Request]) -> list[tuple[float, int]]:
    """Input tokens of some of a judge's questions, likely and at most, about answers there are and such as may come."""
    judging = Judging.of(task, judge.card)
    paths = read_manifest(corpus.folder).paths(corpus.folder, dataset=task.spec.name, split="train")
    known = [judging.prompt(record).request for record in islice(read_records(paths), SAMPLE)]
    bounds = [judge.input_tokens_bound(request) for request in known]
    longest = BYTES_PER_TOKEN * max(int(teacher.parameters["max_tokens"]) for teacher in task.spec.teachers)
    empty = [judge.input_tokens_bound(judging.foreseen(request)) for request in asked[:SAMPLE]]
    foreseen = [(bound + longest * LIKELY_OUTPUT, bound + longest) for bound in empty]
    return [*((float(bound), bound) for bound in bounds), *foreseen]
