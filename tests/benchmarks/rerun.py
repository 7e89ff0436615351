"""What a run costs when everything is answered already: ``python tests/benchmarks/rerun.py [--json] [--full]``.

``wall_s`` is the whole command for 2 000 rows, from process start to exit; ``cpu_us_per_row`` is the processor time
that each further row adds (a larger answered corpus against a smaller one); ``requests`` is what answered runs sent.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from flow_samples import write_task

ROWS = 2_000
MORE = 12_000


def run(task: Path, corpus: Path) -> tuple[float, float, int]:
    """Wall seconds, processor seconds and requests sent of one ``corpusgen run``."""
    before, began = _children(), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "corpusgen", "run", str(task), "--corpus", str(corpus), "--quiet", "--json"],
        check=True,
        capture_output=True,
        env=os.environ | {"CORPUSGEN_CACHE": "off"},
    )
    return time.perf_counter() - began, _children() - before, int(json.loads(done.stdout)["requests"])


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def answered(folder: Path, rows: int, repeats: int) -> tuple[float, float, int]:
    """Medians of wall and processor seconds over answered runs of so many rows, and all they sent."""
    task, corpus = write_task(folder, items=rows), folder / "corpus"
    sent = run(task, corpus)[2]
    if sent != rows:
        raise RuntimeError(f"the first run sent {sent} requests instead of {rows}")
    runs = [run(task, corpus) for _ in range(repeats)]
    return (
        statistics.median(wall for wall, _, _ in runs),
        statistics.median(cpu for _, cpu, _ in runs),
        sum(requests for _, _, requests in runs),
    )


def measure(repeats: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        wall, cpu, sent = answered(Path(folder) / "some", ROWS, repeats)
        _, cpu_of_more, sent_of_more = answered(Path(folder) / "more", MORE, repeats)
    return {
        "requests": sent + sent_of_more,
        "cpu_us_per_row": round((cpu_of_more - cpu) / (MORE - ROWS) * 1e6, 1),
        "wall_s": round(wall, 3),
        "cpu_s": round(cpu, 3),
        "rows": ROWS,
        "runs": repeats,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--full", action="store_true")
    chosen = parser.parse_args()
    found = measure(9 if chosen.full else 3)
    if chosen.json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            print(f"{name:<16} {value:>12}")


if __name__ == "__main__":
    main()
