"""Processes that ask at the same time: ``asking_child.py TASK CORPUS PROCESSES CALLERS [REPEATED]``.

Each process has so many callers, each caller asks for one prompt after the other by itself, and says on stdout how that
went: the name of what was raised, or ``record``. With REPEATED every caller asks for all prompts of the task so often,
else callers share the prompts of their process among themselves.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from flow_samples import open_corpus

from corpusgen.corpus import Corpus
from corpusgen.errors import CorpusgenError
from corpusgen.fanout.stream import answers
from corpusgen.prompting.prompts import Prompt, prompts
from corpusgen.stages.loading import load_task
from corpusgen.stages.opening import open_run
from corpusgen.stages.runs import Run
from corpusgen.stages.task import request_for


def every_prompt(run: Run) -> list[Prompt]:
    card = run.asker.teacher.card
    items = run.task.prompter.items("train")
    asking = run.task.spec.asking
    asked = prompts(
        items,
        lambda item, n: request_for(run.task, card, item, n),
        samples=asking.samples,
        per_call=asking.samples_per_call,
    )
    return list(asked)


async def call(run: Run, wanted: Iterator[Prompt]) -> None:
    for prompt in wanted:
        try:
            async with answers(run.asker, [prompt]) as records:
                told = ["record" async for _ in records]
        except CorpusgenError as error:
            told = [type(error).__name__]
        os.write(1, f"{told[0]}\n".encode())


async def work(task: Path, corpus: Corpus, callers: int, process: int, processes: int, repeated: int) -> None:
    async with open_run(load_task(task), corpus, on_failure="drop") as run:
        os.write(1, b"started\n")
        every = every_prompt(run)
        if repeated:
            streams = [iter(every[at:] + every[:at]) for at in range(callers)]
        else:
            shared = iter(every[process::processes])
            streams = [shared] * callers
        await asyncio.gather(*(call(run, stream) for stream in streams))


def one(arguments: list[str], process: int) -> None:
    task, folder, processes, callers, repeated = Path(arguments[0]), Path(arguments[1]), *map(int, arguments[2:])
    with open_corpus(folder) as corpus:
        asyncio.run(work(task, corpus, callers, process, processes, repeated))


if __name__ == "__main__":
    children = []
    for process in range(int(sys.argv[3])):  # forked, so that ten processes import everything once
        if not (child := os.fork()):
            one(sys.argv[1:], process)
            os._exit(0)
        children.append(child)
    sys.exit(max(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children))
