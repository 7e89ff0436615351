"""The whole flow on one page: a task spec goes in, paid-for records come out, a student learns from them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Container, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from corpusgen.corpus import Corpus
from corpusgen.errors import PartialFailure
from corpusgen.fields import Unit
from corpusgen.prompting.prompts import prompts
from corpusgen.records import Json, Record
from corpusgen.stages.asking import Asked, ask_for_labels, learn_pool
from corpusgen.stages.cataloguing import refresh_catalog
from corpusgen.stages.committing import commit_records
from corpusgen.stages.lanes import end_lane, lane_answers
from corpusgen.stages.lineage.attesting import attest
from corpusgen.stages.loading import load_task
from corpusgen.stages.opening import end_run, judge_answers_by_terms, open_run
from corpusgen.stages.runs import Run
from corpusgen.stages.sieving import sieves
from corpusgen.stages.task import Task
from corpusgen.stages.watching import Watch, no_watch
from corpusgen.stages.writing import Texts, ask_for_texts, new_items, pool_items
from corpusgen.store.manifest import read_manifest

if TYPE_CHECKING:  # an answered run is over before these and their libraries could be read
    from corpusgen.stages.at_service.wire import Address
    from corpusgen.stages.evaluating import Evaluated
    from corpusgen.stages.judging import Judged
    from corpusgen.stages.planning import Plan
    from corpusgen.stages.report.outcome import Outcome
    from corpusgen.stages.sealing import Sealed
    from corpusgen.stages.selecting import Selection
    from corpusgen.stages.training import Trained


_WORDS = {
    "RequestRefused": "refused by the teacher",
    "InvalidAnswer": "with answers that cannot be read",
    "OutcomeUnknown": "of unknown outcome",
    "NotSent": "not sent",
    "RateLimited": "turned away by rate limits",
    "UsageOverrun": "above what was reserved",
    "Withheld": "with a secret in it, not sent",
    "AnswersMissing": "left out of the answers to one call",
}
"""Why there is no answer, in words."""


@asynccontextmanager
async def generate(
    spec: Path | Task, corpus: Corpus, *, caps: Mapping[Unit, int] | None = None
) -> AsyncIterator[AsyncIterator[Record]]:
    """The records of a task's pool, asked for as they are read.

    ``async with generate(spec, corpus) as records: async for record in records: ...``. Leaving the block ends the
    asking; a reader that is slow slows the teacher; what fails arrives as itself. Answers that are known already are
    handed out without asking, and every answer is in the corpus before it is handed out.
    """
    task = spec if isinstance(spec, Task) else load_task(spec)
    async with _working(task, corpus, caps, on_failure="raise") as run:
        items = await asyncio.to_thread(pool_items, run) if sieves(task) else new_items(task)
        wanted = prompts(
            islice(items, task.spec.questions.limit),
            run.requester,
            samples=task.spec.asking.samples,
            per_call=task.spec.asking.samples_per_call,
        )
        async with lane_answers(run.lane, wanted) as records:
            yield records


@asynccontextmanager
async def _working(
    task: Task,
    corpus: Corpus,
    caps: Mapping[Unit, int] | None,
    *,
    on_failure: Literal["raise", "drop"],
    scopes: tuple[str, ...] = (),
    service: Address | None = None,
) -> AsyncIterator[Run]:
    """An open run whose answers become shards and whose end is noted, however it ends."""
    async with open_run(task, corpus, caps=caps, on_failure=on_failure, scopes=scopes, service=service) as run:
        status: Literal["complete", "stopped"] = "stopped"
        try:
            yield run
            status = "complete"
        finally:
            await commit_records(corpus, *run.readers)
            await judge_answers_by_terms(run)
            await end_run(run, status)
            await asyncio.to_thread(attest, corpus)


@dataclass(kw_only=True)
class Distillation:
    """Everything the main job made, as far as it came."""

    task: Task
    corpus: Corpus
    began: float = field(default_factory=time.monotonic)
    plan: Plan | None = None
    run: Run | None = None
    asked: Asked | None = None
    texts: Texts | None = None
    selection: Selection | None = None
    sealed: Sealed | None = None
    trained: Trained | None = None
    evaluated: Evaluated | None = None
    report: Path | None = None

    def outcome(self) -> Outcome:
        """What the report and the summary are made from."""
        from corpusgen.stages.report.outcome import Outcome

        assert self.plan is not None
        assert self.run is not None
        return Outcome(
            plan=self.plan,
            run=self.run,
            asked=self.asked,
            texts=self.texts,
            selection=self.selection,
            sealed=self.sealed,
            trained=self.trained,
            evaluated=self.evaluated,
            wall_s=time.monotonic() - self.began,
        )


async def distill(
    job: Distillation,
    *,
    caps: Mapping[Unit, int] | None = None,
    watch: Watch = no_watch,
    report: Path | None = None,
    service: Address | None = None,
) -> dict[str, Json]:
    """The main job: plan → run → select → seal → train → evaluate → report.

    A ``service`` elsewhere lends the money and shares its answers. Raises BudgetExhausted when a cap ends it;
    everything paid for is in the corpus by then, and the same call with a higher cap goes on from there.
    """
    from corpusgen.stages.evaluating import evaluate, yardstick_of
    from corpusgen.stages.planning import plan
    from corpusgen.stages.release.evaluations import keep_evaluation
    from corpusgen.stages.report.reporting import quality, summary, write_report
    from corpusgen.stages.sealing import seal

    watch("plan", None)
    job.plan = await plan(job.task, job.corpus, caps=caps, service=service)
    async with _working(job.task, job.corpus, caps, on_failure="drop", service=service) as run:
        job.run = run
        await _ask(job, watch)
        watch("select", None)
        job.selection = await asyncio.to_thread(_select, job)
        watch("seal", None)
        job.sealed = await asyncio.to_thread(seal, job.corpus, job.task, job.selection, *run.decisions)
        if job.asked is not None:
            watch("train", None)
            job.trained = await asyncio.to_thread(_train, job)
            job.evaluated = await evaluate(run, yardstick_of(run, job.asked), job.trained.student, watch)
            if job.evaluated is not None:
                keep_evaluation(job.corpus, job.trained.student_id, quality(job.evaluated))
    watch("report", None)
    await asyncio.to_thread(refresh_catalog, job.corpus, read_manifest(job.corpus.folder))
    job.report = await asyncio.to_thread(write_report, job.outcome(), report)
    return summary(job.outcome()) | {"report": str(job.report)}


async def _ask(job: Distillation, watch: Watch) -> None:
    assert job.run is not None
    if job.task.spec.kind == "label":
        job.asked = await ask_for_labels(job.run, watch, later=_gold_items(job.task))
    else:
        job.texts = await ask_for_texts(job.run, watch)
    await commit_records(job.corpus, *job.run.readers)
    await _judge(job.run, watch)


async def _judge(run: Run, watch: Watch) -> Judged | None:
    """Have what was answered scored, where the spec names a judge."""
    if run.judge is None:
        return None
    from corpusgen.stages.judging import judge_answers  # with libraries that other tasks do without

    await commit_records(run.corpus, *run.readers)
    judged = await judge_answers(run, watch)
    await commit_records(run.corpus, *run.readers)
    return judged


def _gold_items(task: Task) -> int:
    """How many gold items there are, where what is asked before leaves money for them."""
    return sum(1 for _ in task.prompter.items("gold")) if task.spec.curate.active else 0


def _select(job: Distillation) -> Selection:
    from corpusgen.stages.selecting import Filters, select

    assert job.run is not None
    if job.asked is not None:
        wanted: Container[str] = frozenset(item.record_id for item in job.asked.train)
        chosen = job.asked.choice.chosen if job.asked.choice else None
        calibration = chosen and replace(chosen, runs=(job.run.run_id,))
    else:
        assert job.texts is not None
        wanted, calibration = job.texts.written.names, None
    name = job.task.spec.name
    return select(job.corpus, name, filters=Filters(), calibration=calibration, record_ids=wanted, task=job.task)


def _train(job: Distillation) -> Trained:
    from corpusgen.stages.training import train

    assert job.asked is not None
    assert job.sealed is not None
    assert job.run is not None
    space = job.asked.space or learn_pool(job.run, job.asked.pool)
    return train(job.corpus, job.task, job.sealed, job.run.decision, space, job.run.run_id)


async def run_task(
    task: Task,
    corpus: Corpus,
    *,
    caps: Mapping[Unit, int] | None = None,
    watch: Watch = no_watch,
    opened: list[Run],
    scopes: tuple[str, ...] = (),
    service: Address | None = None,
) -> dict[str, Json]:
    """Generate only: ask for what is missing, commit it, and count. ``opened`` receives the run for whoever watches.

    ``scopes`` are more places that its calls count for, such as a service and a token of it; a ``service`` elsewhere
    lends the money and shares its answers. Raises BudgetExhausted, or PartialFailure when some items have no answer;
    what was answered is committed first.
    """
    async with _working(task, corpus, caps, on_failure="drop", scopes=scopes, service=service) as run:
        opened.append(run)
        if task.spec.kind == "label":
            await ask_for_labels(run, watch)
        else:
            await ask_for_texts(run, watch, describe=False)
        judged = await _judge(run, watch)
    await asyncio.to_thread(refresh_catalog, corpus, read_manifest(corpus.folder))
    counts = run.asker.counts
    if counts.drops:
        why = ", ".join(f"{number:,} {_WORDS.get(name, name)}" for name, number in counts.drops.most_common())
        lost = counts.drops.total()
        what = "1 item has no answer" if lost == 1 else f"{lost:,} items have no answer"
        if task.spec.asking.samples > 1:
            what = "1 answer is missing" if lost == 1 else f"{lost:,} answers are missing"
        # What a call left out was asked for once more already, and is not asked for by the same call again.
        again = ", running again asks for them again" if counts.drops.keys() - {"AnswersMissing", "Withheld"} else ""
        raise PartialFailure(f"{what} ({why}); corpusgen status says why{again}{_withheld(run)}")
    _check_judged(run)
    return {
        "run_id": run.run_id,
        "records": counts.done,
        "known": counts.known,
        "elsewhere": counts.elsewhere,
        "requests": run.sent,
        "other_models": dict(counts.other_models),
        "put_aside": run.put_aside,
    } | ({"judged": judged.judged, "unscored": judged.unscored} if judged else {})


def _check_judged(run: Run) -> None:
    drops = dict(run.judge.asker.counts.drops) if run.judge else {}
    drops.pop("Withheld", None)  # noted, and asked again it would be withheld again
    if drops:
        why = ", ".join(f"{number:,} {_WORDS.get(name, name)}" for name, number in drops.items())
        lost = sum(drops.values())
        what = "1 answer was not judged" if lost == 1 else f"{lost:,} answers were not judged"
        raise PartialFailure(f"{what} ({why}); corpusgen status says why, running again asks the judge again")


def _withheld(run: Run) -> str:
    """The first rows that were not sent for what is in them, each with what that is."""
    rows = run.corpus.journal.query(
        "select item_id, detail from drops where run_id = ? and reason = 'Withheld' order by 1 limit 5", (run.run_id,)
    )
    return "".join(f"\n  {item_id}: {detail}" for item_id, detail in rows)


async def end_batches(
    task: Task, corpus: Corpus, *, caps: Mapping[Unit, int] | None = None, opened: list[Run]
) -> dict[str, Json]:
    """End the batches of a task at its teacher; what was answered by then is kept, and nothing new is asked."""
    async with _working(task, corpus, caps, on_failure="drop") as run:
        opened.append(run)
        return {"run_id": run.run_id, "batches": await end_lane(run.lane)}


async def evaluate_student(
    task: Task,
    corpus: Corpus,
    trained: Trained,
    *,
    caps: Mapping[Unit, int] | None = None,
    watch: Watch = no_watch,
    opened: list[Run],
) -> dict[str, Json]:
    """A student against its teacher on gold, under the run's budget."""
    from corpusgen.stages.evaluating import evaluate, yardstick_for
    from corpusgen.stages.release.evaluations import keep_evaluation
    from corpusgen.stages.report.reporting import quality

    if task.spec.seeds.gold is None:
        raise task.located.error("there is no gold file to evaluate on; add one", "seeds")
    async with _working(task, corpus, caps, on_failure="drop") as run:
        opened.append(run)
        yardstick = await yardstick_for(run, trained.calibration, watch)
        found = await evaluate(run, yardstick, trained.student, watch)
    if found is None:
        raise task.located.error("the gold file holds no item", "seeds", "gold")
    keep_evaluation(corpus, trained.student_id, quality(found))
    return quality(found) | {"student": trained.student_id, "requests": run.asker.counts.sent}
