"""A process that erases and kills itself: ``erasing_child.py CORPUS KIND VALUE STEP``; after so many steps, by -9."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from corpusgen.corpus import Corpus
from corpusgen.stages.erasure.erasing import erase
from corpusgen.stages.erasure.reaching import Selector


def main(folder: str, kind: str, value: str, last: int) -> None:
    """Erase, and be killed after ``last`` steps."""
    steps = 0

    def told(step: str) -> None:
        nonlocal steps
        steps += 1
        if steps == last:
            os.kill(os.getpid(), signal.SIGKILL)

    with Corpus.open(Path(folder)) as corpus:
        erase(corpus, Selector(kind=kind, values=(value,)), by="a child", reason="asked to", told=told)  # type: ignore[arg-type] # one of the three


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
