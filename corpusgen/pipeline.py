"""The whole flow on one page: a task spec goes in, paid-for records come out, a student learns from them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Container, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from corpusgen.corpus import Corpus
from corpusgen.errors import PartialFailure
from corpusgen.fields import Unit
from corpusgen.prompting.prompts import prompts
from corpusgen.records import Json, Record
from corpusgen.stages.asking import (
    Asked,
    Watch,
    ask_for_labels,
    learn_pool,
    no_watch,
)
from corpusgen.stages.cataloguing import refresh_catalog
from corpusgen.stages.committing import commit_records
from corpusgen.stages.lanes import end_lane, lane_answers
from corpusgen.stages.opening import Run, end_run, open_run
from corpusgen.stages.planning import Plan, plan
from corpusgen.stages.task import Task, load_task
from corpusgen.stages.writing import Texts, ask_for_texts, new_items
from corpusgen.store.manifest import read_manifest

if TYPE_CHECKING:  # an answered run is over before these and their libraries could be read
    from corpusgen.stages.evaluating import Evaluated
    from corpusgen.stages.outcome import Outcome
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
        wanted = prompts(
            islice(new_items(task), task.spec.asking.limit),
            run.requester,
            samples=task.spec.asking.samples,
        )
        async with lane_answers(run.lane, wanted) as records:
            yield records


@asynccontextmanager
async def _working(
    task: Task, corpus: Corpus, caps: Mapping[Unit, int] | None, *, on_failure: Literal["raise", "drop"]
) -> AsyncIterator[Run]:
    """An open run whose answers become shards and whose end is noted, however it ends."""
    async with open_run(task, corpus, caps=caps, on_failure=on_failure) as run:
        status: Literal["complete", "stopped"] = "stopped"
        try:
            yield run
            status = "complete"
        finally:
            await commit_records(corpus, *run.teachers)
            await end_run(run, status)


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
        from corpusgen.stages.outcome import Outcome

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
    from corpusgen.stages.evaluating import evaluate, yardstick_of
    from corpusgen.stages.reporting import summary, write_report
    from corpusgen.stages.sealing import seal

    watch("plan", None)
    job.plan = await plan(job.task, job.corpus, caps=caps)
    async with _working(job.task, job.corpus, caps, on_failure="drop") as run:
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
    await commit_records(job.corpus, *job.run.teachers)


def _select(job: Distillation) -> Selection:
    from corpusgen.stages.selecting import Filters, select

    if job.asked is not None:
        wanted: Container[str] = frozenset(item.record_id for item in job.asked.train)
        calibration = job.asked.choice.chosen if job.asked.choice else None
    else:
        assert job.texts is not None
        wanted, calibration = job.texts.written.names, None
    return select(job.corpus, job.task.spec.name, filters=Filters(), calibration=calibration, record_ids=wanted)


def _train(job: Distillation) -> Trained:
    from corpusgen.stages.training import train

    assert job.asked is not None
    assert job.sealed is not None
    assert job.run is not None
    space = job.asked.space or learn_pool(job.run, job.asked.pool)
    return train(job.corpus, job.task, job.sealed, job.run.decision, space, job.run.run_id)


async def run_task(
    task: Task, corpus: Corpus, *, caps: Mapping[Unit, int] | None = None, watch: Watch = no_watch, opened: list[Run]
) -> dict[str, Json]:
    """Generate only: ask for what is missing, commit it, and count. ``opened`` receives the run for whoever watches.

    Raises BudgetExhausted, or PartialFailure when some items have no answer; what was answered is committed first.
    """
    async with _working(task, corpus, caps, on_failure="drop") as run:
        opened.append(run)
        if task.spec.kind == "label":
            await ask_for_labels(run, watch)
        else:
            await ask_for_texts(run, watch, describe=False)
    await asyncio.to_thread(refresh_catalog, corpus, read_manifest(corpus.folder))
    counts = run.asker.counts
    if counts.drops:
        why = ", ".join(f"{number:,} {_WORDS.get(name, name)}" for name, number in counts.drops.most_common())
        missing = f"{counts.drops.total():,} items have no answer ({why})"
        raise PartialFailure(f"{missing}; corpusgen status says why, running again asks for them again")
    return {
        "run_id": run.run_id,
        "records": counts.done,
        "known": counts.known,
        "elsewhere": counts.elsewhere,
        "requests": counts.sent,
        "other_models": dict(counts.other_models),
    }


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
    from corpusgen.stages.reporting import quality

    if task.spec.seeds.gold is None:
        raise task.located.error("there is no gold file to evaluate on; add one", "seeds")
    async with _working(task, corpus, caps, on_failure="drop") as run:
        opened.append(run)
        yardstick = await yardstick_for(run, trained.calibration, watch)
        found = await evaluate(run, yardstick, trained.student, watch)
    if found is None:
        raise task.located.error("the gold file holds no item", "seeds", "gold")
    return quality(found) | {"student": trained.student_id, "requests": run.asker.counts.sent}
