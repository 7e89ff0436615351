"""The most memory a run takes: ``python tests/benchmarks/memory.py [--json] [--full]``.

A scripted teacher is asked for so many prompts through ``corpusgen.generate``, which hands the records to a reader
that keeps none; the figure is the peak resident size of that process in MB. ``resume_scan_s`` is the time from process
start until the first record of the largest answered corpus is handed out again (every seed read and checked, what is
answered found), ``all_again_s`` until the last. ``growth`` is the largest corpus against the one before. A million, and
the 2 GB of disk that it takes, only with --full.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

SHORT = {"mb_at_10k": 10_000, "mb_at_100k": 100_000}
FULL = {"mb_at_10k": 10_000, "mb_at_100k": 100_000, "mb_at_1m": 1_000_000}


async def read_all(task: Path, folder: Path, began: float) -> dict[str, float]:
    """Read every record of a task and forget it."""
    from corpusgen.corpus import Corpus
    from corpusgen.pipeline import generate

    count, first = 0, 0.0
    with Corpus.open(folder) as corpus:
        async with generate(task, corpus) as records:
            async for _ in records:
                first = first or time.time() - began
                count += 1
    return {
        "mb": round(peak_mb(), 1),
        "records": count,
        "first_s": round(first, 2),
        "all_s": round(time.time() - began, 2),
    }


def peak_mb() -> float:
    """The most memory this process had; what ``getrusage`` says begins with that of the process that started it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def in_process(task: Path, folder: Path) -> dict[str, float]:
    """The same in a process of its own, whose memory is nobody else's."""
    done = subprocess.run(
        [sys.executable, __file__, "--child", str(task), str(folder), str(time.time())],
        check=True,
        capture_output=True,
        env=os.environ | {"CORPUSGEN_CACHE": "off"},
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def measure(sizes: dict[str, int]) -> dict[str, float | None]:
    from flow_samples import write_task

    found: dict[str, float] = {}
    again: dict[str, float] = {}
    for name, count in sizes.items():
        with tempfile.TemporaryDirectory() as folder:
            task = write_task(Path(folder), items=count)
            fresh = in_process(task, Path(folder) / "corpus")
            again = in_process(task, Path(folder) / "corpus")
        if fresh["records"] != count or again["records"] != count:
            raise RuntimeError(f"{fresh['records']} and {again['records']} records instead of {count}")
        found |= {name: fresh["mb"], "resume_scan_s": again["first_s"], "all_again_s": again["all_s"]}
    *_, before, most = (found[name] for name in sizes)
    return {"mb_at_1m": None} | found | {"mb_again": again["mb"], "growth": round(most / before, 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--child", nargs=3, metavar=("TASK", "CORPUS", "BEGAN"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.child:
        task, folder, began = chosen.child
        print(json.dumps(asyncio.run(read_all(Path(task), Path(folder), float(began)))))
        return
    found = measure(FULL if chosen.full else SHORT)
    if chosen.json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            print(f"{name:<16} {'-' if value is None else format(value, ','):>12}")


if __name__ == "__main__":
    main()
