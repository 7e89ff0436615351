"""A process that asks for all labels of a task, for tests that kill it: ``steering_child.py TASK CORPUS``.

It says on stdout when a round begins.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from flow_samples import open_corpus

from corpusgen.errors import CorpusgenError
from corpusgen.pipeline import run_task
from corpusgen.stages.loading import load_task


def tell(stage: str, total: int | None) -> None:
    os.write(1, f"{stage}: {total}\n".encode())


if __name__ == "__main__":
    try:
        with open_corpus(Path(sys.argv[2])) as corpus:
            asyncio.run(run_task(load_task(Path(sys.argv[1])), corpus, watch=tell, opened=[]))
    except CorpusgenError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)
