"""How long a lawyer waits: ``python tests/benchmarks/audit.py [--json] [--full]``.

The twenty questions over made-up lineage, each from opening the files to the last row; bytes of lineage a record; what
a repeated decision of the policy, an event of the ledger (noted through the journal's group commit and taken into the
signed tree) and a proof cost. ``--full`` asks over a million records too. Where others use the machine, ``load`` says
so, and seconds of processors say more than seconds of a clock.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parent.parent))

from lineage_fixture import TODAY, write
from terms_samples import commercial_use, shipped_registry, teacher

from corpusgen.corpus import Corpus
from corpusgen.journal import Transaction
from corpusgen.provenance.events import event_leaf, note_event
from corpusgen.provenance.merkle import inclusion
from corpusgen.provenance.policy import decide
from corpusgen.provenance.questions import questions
from corpusgen.stages.lineage.auditing import audit

TIMES = 3
WAITING = 256
EVENTS_EACH = 64
"""Events that one operation notes, as planning and committing do with their decisions and shards."""
PAYLOAD = {"run_id": "run-1", "stage": "request", "subject": "openai/gpt-5.2", "role": "response", "outcome": "allow"}


def asked(lineage: Mapping[str, Path], records: int) -> dict[str, dict[str, str]]:
    table = pq.read_table(lineage["records"], columns=["record_id"])
    return {
        "q01": {"provider": "cobalt"},
        "q02": {"student": "mixed"},
        "q03": {"dataset": "beta-1", "student": "mixed"},
        "q04": {"dataset": "beta-1"},
        "q06": {"source": "source-007"},
        "q07": {"record": table["record_id"][records // 2 + 5].as_py().hex()},
        "q12": {"dataset": "beta-1"},
        "q13": {"student": "mixed"},
        "q15": {"dataset": "beta-1"},
        "q16": {"student": "mixed"},
        "q17": {"provider": "own"},
        "q19": {"rightsholder": "holder-01"},
    }


@dataclass(frozen=True, kw_only=True)
class Taken:
    """Seconds of a clock and of processors, medians."""

    wall: float
    cpu: float


def taken(work: Callable[[], object]) -> Taken:
    walls, cpus = [], []
    for _ in range(TIMES):
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return Taken(wall=statistics.median(walls), cpu=statistics.median(cpus))


def waits(records: int) -> tuple[dict[str, Taken], float]:
    """What each question takes, and bytes of lineage a record."""
    with tempfile.TemporaryDirectory() as folder:
        lineage = write(records, Path(folder))
        size = sum(path.stat().st_size for path in lineage.values()) / records
        given = asked(lineage, records)
        return {
            number: taken(lambda: audit(lineage, question, given.get(number, {}), on=TODAY))  # noqa: B023
            for number, question in questions().items()
        }, size


def decision_us(count: int = 100_000) -> float:
    """Microseconds for a decision that was made before."""
    registry, use, model = shipped_registry(), commercial_use(), teacher("qwen3-8b")
    decide(registry, model, use, on=TODAY)
    began = time.perf_counter()
    for _ in range(count):
        decide(registry, model, use, on=TODAY)
    return (time.perf_counter() - began) / count * 1e6


def _note(transaction: Transaction, number: int) -> None:
    for one in range(EVENTS_EACH):
        note_event(transaction, "decided", {**PAYLOAD, "number": number, "one": one})


async def _note_many(corpus: Corpus, operations: int) -> None:
    numbers = iter(range(operations))

    async def worker() -> None:
        for number in numbers:
            await corpus.journal.run(partial(_note, number=number))

    await asyncio.gather(*(worker() for _ in range(WAITING)))


def event_us(operations: int = 1_000) -> float:
    """Microseconds for an event, durable and covered by a signed root."""
    from corpusgen.stages.lineage.attesting import attest

    with tempfile.TemporaryDirectory() as folder:
        os.environ["CORPUSGEN_SIGNING_KEY"] = str(Path(folder) / "key.pem")
        with Corpus.open(Path(folder) / "corpus") as corpus:
            began = time.perf_counter()
            asyncio.run(_note_many(corpus, operations))
            attest(corpus)
            return (time.perf_counter() - began) / (operations * EVENTS_EACH) * 1e6


def proof_hashes(events: int = 1_000_000) -> int:
    """Hashes that prove one of so many events."""
    leaves = (event_leaf(seq, "decided", seq, seq.to_bytes(32, "big")) for seq in range(1, events + 1))
    return len(inclusion(leaves, events // 3).path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--full", action="store_true", help="A million records too.")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    small, size = waits(250_000)
    large, large_size = waits(1_000_000) if options.full else ({}, 0.0)
    found = {
        "slowest_250k_s": round(max(one.wall for one in small.values()), 3),
        "slowest_1m_s": round(max(one.wall for one in large.values()), 3) if large else None,
        "lineage_bytes": round(max(size, large_size), 1),
        "decision_us": round(decision_us(), 2),
        "event_us": round(statistics.median(event_us() for _ in range(TIMES)), 1),
        "proof_hashes": proof_hashes(),
        "slowest_250k_cpu_s": round(max(one.cpu for one in small.values()), 3),
        "slowest_1m_cpu_s": round(max(one.cpu for one in large.values()), 3) if large else None,
        "load": round(load, 1),
    }
    if options.json:
        print(json.dumps(found))
        return
    for number, question in questions().items():
        shown = [told[number] for told in (small, large) if told]
        columns = "".join(f"{one.wall:>9.3f} s ({one.cpu:.3f} s of processors)" for one in shown)
        print(f"{number} {question.name:<24}{columns}")
    for name, value in found.items():
        print(f"{name:<16} {value}")


if __name__ == "__main__":
    main()
