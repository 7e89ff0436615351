"""A process that reads all records of a task, for tests that kill it: ``resume_child.py TASK CORPUS [tokens]``."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

from flow_samples import open_corpus

from corpusgen.errors import CorpusgenError
from corpusgen.fanout.stream import answers
from corpusgen.prompting.prompts import prompts
from corpusgen.stages.committing import commit_records
from corpusgen.stages.loading import load_task
from corpusgen.stages.opening import open_run
from corpusgen.stages.task import request_for


async def work(path: Path, folder: Path, tokens: int | None) -> int:
    task = load_task(path)
    with open_corpus(folder) as corpus:
        async with open_run(task, corpus, caps=None if tokens is None else {"tokens": tokens}) as run:
            asyncio.get_running_loop().add_signal_handler(signal.SIGINT, run.asker.stopping.set)
            card = run.asker.teacher.card
            items = task.prompter.items("train")
            asking = task.spec.asking
            wanted = prompts(
                items,
                lambda item, n: request_for(task, card, item, n),
                samples=asking.samples,
                per_call=asking.samples_per_call,
            )
            try:
                async with answers(run.asker, wanted) as records:
                    print("started", flush=True)  # noqa: T201 - the test waits for it
                    return len([record async for record in records])
            finally:
                await commit_records(corpus, run.asker.teacher)


if __name__ == "__main__":
    try:
        count = asyncio.run(work(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]) if sys.argv[3:] else None))
        sys.stdout.write(f"{count}\n")
    except CorpusgenError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)
