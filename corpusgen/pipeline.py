"""The whole flow on one page: a task spec goes in, paid-for records come out, a student learns from them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from corpusgen.corpus import Corpus
from corpusgen.errors import CorpusgenError, PartialFailure
from corpusgen.fanout import answers
from corpusgen.prompting.prompts import prompts
from corpusgen.records import Json, Record
from corpusgen.spec import Unit
from corpusgen.stages.asking import Asked, Texts, Watch, ask_for_labels, ask_for_texts, no_watch, unique_pool
from corpusgen.stages.cataloguing import refresh_catalog
from corpusgen.stages.committing import commit_records
from corpusgen.stages.evaluating import Evaluated, evaluate, yardstick_for, yardstick_of
from corpusgen.stages.opening import Run, end_run, open_run
from corpusgen.stages.planning import Plan, plan
from corpusgen.stages.reporting import Outcome, quality, summary, write_report
from corpusgen.stages.sealing import Sealed, seal
from corpusgen.stages.selecting import Filters, Selection, select
from corpusgen.stages.task import Task, load_task, request_for
from corpusgen.stages.training import Trained, train
from corpusgen.store.manifest import read_manifest


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
    async with open_run(task, corpus, caps=caps) as run:
        pool = unique_pool(task)
        items = iter(pool.items[: task.spec.asking.limit])
        card = run.asker.teacher.card
        wanted = prompts(items, lambda item, n: request_for(task, card, item, n), samples=task.spec.asking.samples)
        try:
            async with answers(run.asker, wanted) as records:
                yield records
        finally:
            await commit_records(corpus, run.asker.teacher)


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
    job: Distillation, *, caps: Mapping[Unit, int] | None = None, watch: Watch = no_watch, report: Path | None = None
) -> dict[str, Json]:
    """The main job: plan → run → select → seal → train → evaluate → report.

    Raises BudgetExhausted when a cap ends it; everything paid for is in the corpus by then, and the same call with a
    higher cap goes on from there.
    """
    watch("plan", None)
    job.plan = await plan(job.task, job.corpus, caps=caps)
    async with open_run(job.task, job.corpus, caps=caps, on_failure="drop") as run:
        job.run = run
        try:
            await _ask(job, watch)
            watch("select", None)
            job.selection = await asyncio.to_thread(_select, job)
            watch("seal", None)
            job.sealed = await asyncio.to_thread(seal, job.corpus, job.task, job.selection, run.decision)
            if job.asked is not None:
                watch("train", None)
                job.trained = await asyncio.to_thread(_train, job)
                yardstick = yardstick_of(run, job.asked)
                job.evaluated = await evaluate(run, yardstick, job.trained.student, watch)
        except CorpusgenError:
            await end_run(run, "stopped")
            raise
        finally:
            await commit_records(job.corpus, run.asker.teacher)
        await end_run(run, "complete")
        watch("report", None)
        await asyncio.to_thread(refresh_catalog, job.corpus, read_manifest(job.corpus.folder))
        job.report = await asyncio.to_thread(write_report, job.outcome(), report)
        return summary(job.outcome()) | {"report": str(job.report)}


async def _ask(job: Distillation, watch: Watch) -> None:
    assert job.run is not None
    if job.task.spec.kind == "label":
        job.asked = await ask_for_labels(job.run, watch)
    else:
        job.texts = await ask_for_texts(job.run, watch)
    await commit_records(job.corpus, job.run.asker.teacher)


def _select(job: Distillation) -> Selection:
    if job.asked is not None:
        wanted = frozenset(item.record_id for item in job.asked.train)
        calibration = job.asked.choice.chosen if job.asked.choice else None
    else:
        assert job.texts is not None
        wanted, calibration = frozenset(record.record_id for record in job.texts.records), None
    return select(job.corpus, job.task.spec.name, filters=Filters(), calibration=calibration, record_ids=wanted)


def _train(job: Distillation) -> Trained:
    assert job.asked is not None
    assert job.sealed is not None
    assert job.run is not None
    return train(job.corpus, job.task, job.sealed, job.run.decision, job.asked.space, job.run.run_id)


async def run_task(
    task: Task, corpus: Corpus, *, caps: Mapping[Unit, int] | None = None, watch: Watch = no_watch, opened: list[Run]
) -> dict[str, Json]:
    """Generate only: ask for what is missing, commit it, and count. ``opened`` receives the run for whoever watches.

    Raises BudgetExhausted, or PartialFailure when some items have no answer; what was answered is committed first.
    """
    async with open_run(task, corpus, caps=caps, on_failure="drop") as run:
        opened.append(run)
        try:
            if task.spec.kind == "label":
                await ask_for_labels(run, watch)
            else:
                await ask_for_texts(run, watch)
        except CorpusgenError:
            await end_run(run, "stopped")
            raise
        finally:
            await commit_records(corpus, run.asker.teacher)
        await end_run(run, "complete")
        await asyncio.to_thread(refresh_catalog, corpus, read_manifest(corpus.folder))
        counts = run.asker.counts
        if counts.drops:
            missing = f"{counts.drops.total()} items have no answer: {dict(counts.drops)}"
            raise PartialFailure(f"{missing}; corpusgen status says why, running again asks for them again")
        return {"run_id": run.run_id, "records": counts.done, "known": counts.known, "requests": counts.sent}


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
    async with open_run(task, corpus, caps=caps, on_failure="drop") as run:
        opened.append(run)
        try:
            yardstick = await yardstick_for(run, trained.calibration, watch)
            found = await evaluate(run, yardstick, trained.student, watch)
        finally:
            await commit_records(corpus, run.asker.teacher)
        if found is None:
            raise task.located.error("the spec names no gold file to evaluate on", "seeds")
        return quality(found) | {"student": trained.student_id, "requests": run.asker.counts.sent}
