"""What one process of the hammer does: ask for everything that is missing, committing shards as it goes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from flow_samples import endpoint, write_task

from corpusgen.corpus import Corpus
from corpusgen.fanout.asker import Asker
from corpusgen.fanout.stream import answers
from corpusgen.prompting.prompts import Prompt, prompts
from corpusgen.stages.committing import commit_records
from corpusgen.stages.loading import load_task
from corpusgen.stages.opening import open_run
from corpusgen.stages.task import Task, request_for
from corpusgen.teachers.billing import NOTHING_KNOWN, Billing
from corpusgen.teachers.endpoint import Endpoint

DROPPED = 5
"""Exit code of a worker that had no answer to something; another one asks again."""
MAX_TOKENS = 24
RECORDS_PER_COMMIT = 100
HURRY = 0.05
"""What is left of a pause before a retry: nobody has to be spared here."""
PLENTY = 10**12
ACTOR = "hammer"


def write_work(folder: Path, url: str, items: int) -> Task:
    """A task of so many words for the mock teacher at an address."""
    price = {"input_usd_per_mtok": "1", "output_usd_per_mtok": "4", "source": "mock teacher"}
    teacher = endpoint(url, free=False, price=price, parameters={"max_tokens": MAX_TOKENS}, in_flight=6, timeout_s=1.5)
    return load_task(write_task(folder, items=items, teacher=teacher, budget={"usd": "1000"}))


def wanted(task: Task, asker: Asker) -> Iterator[Prompt]:
    """Every prompt of a task, in file order."""
    card = asker.teacher.card
    return prompts(task.prompter.items("train"), lambda item, n: request_for(task, card, item, n), samples=1)


def work(task: Task, folder: Path, cap: int = PLENTY, *, in_flight: int = 6, billing: Billing = NOTHING_KNOWN) -> int:
    """Ask until everything is answered (0), something is not (5), or the cap is used up (3, as BudgetExhausted)."""
    return asyncio.run(_work(task, folder, cap, in_flight, billing))


async def _work(task: Task, folder: Path, cap: int, in_flight: int, billing: Billing) -> int:
    with Corpus.open(folder, actor=ACTOR) as corpus:
        async with open_run(task, corpus, caps={"microusd": cap}, on_failure="drop") as run:
            asker = replace(run.asker, in_flight=in_flight, sleep=lambda seconds: asyncio.sleep(seconds * HURRY))
            assert isinstance(asker.teacher, Endpoint)
            asker.teacher.transport.billing = billing  # this teacher bills some of the errors others do not
            try:
                await _read(task, asker)
            finally:
                await commit_records(corpus, asker.teacher)
            return DROPPED if asker.counts.drops else 0


async def _read(task: Task, asker: Asker) -> None:
    read = 0
    async with answers(asker, wanted(task, asker)) as records:
        async for _ in records:
            read += 1
            if read % RECORDS_PER_COMMIT == 0:
                await commit_records(asker.corpus, asker.teacher)
