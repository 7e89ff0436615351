"""Kills processes at every step of a batch's life and at random, and counts what was lost or paid for twice.

``python tests/batch_hammer.py [--stories N] [--seconds S] [--items N] [--seed N] [--bug NAME] [--json]``
A story is one corpus: starts that are killed, alone or two at a time, until one ends by itself. The first stories die
once at each step in either protocol, the others as a seeded draw decides.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson
from batch_samples import PROTOCOLS, Protocol, Seen, look, write_batch_task
from flow_samples import violations
from hammer.processes import Teacher, fork, in_child, kill, teacher_process, wait

from corpusgen.batching import asking, collecting
from corpusgen.batching.life import OpenBatch, Patience, free_calls
from corpusgen.budget.ledger import balances
from corpusgen.corpus import Corpus
from corpusgen.errors import BudgetExhausted, PartialFailure
from corpusgen.mock.bill import Prices
from corpusgen.mock.server import Options
from corpusgen.pipeline import run_task
from corpusgen.stages import opening
from corpusgen.stages.lanes import Lane, lane_of
from corpusgen.stages.loading import load_task
from corpusgen.stages.task import Task

STEPS = {"intended": 2, "handed over": 4, "submitted": 2, "adopted": 2, "freed": 1, "kept": 2, "ended": 2}
"""Every step that can be died at, and how often that is tried."""
PATIENCE = Patience(shortest_s=0.03, longest_s=0.1, failures=50)
PRICES = Prices(input_per_mtok=10_000_000, output_per_mtok=40_000_000)
WORST_MICROUSD = 700
"""About what a call is promised at."""
LATE = "fault:batch-listed-late"
"""A batch that cannot be seen for half of its time: less than the grace, as it is at a provider."""
FAULTS = ("", LATE, "fault:batch-lost*1", "fault:batch-results-reset*1", "fault:batch-line-twice", "fault:500*1")
MOST_STARTS = 40
Fatal = tuple[str, int]
"""A step, and at which time of it to die."""
SCRIPTED: tuple[tuple[Fatal, ...], ...] = (
    (("handed over", 1), ("adopted", 1)),
    (("intended", 1), ("freed", 1)),
    (("kept", 2),),
    (("submitted", 1),),
    (("ended", 1),),
    (("handed over", 1),),
    (("intended", 1),),
    (("handed over", 2), ("kept", 1), ("ended", 2)),
)


@dataclass(kw_only=True)
class Found:
    """What came of all stories."""

    stories: int = 0
    starts: int = 0
    kills: int = 0
    kills_at: Counter[str] = field(default_factory=Counter)
    looks: int = 0
    """How often the books were compared with the caps and the bill between two starts."""
    batches: int = 0
    adopted: int = 0
    lost: int = 0
    paid_twice: int = 0
    bill_over_booked: int = 0
    over_cap: int = 0
    findings: list[str] = field(default_factory=list)


# --- one start -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Way:
    """How all stories are told."""

    items: int
    work_s: float
    """How long a batch takes."""
    bug: str


def start(task: Task, folder: Path, fatal: Fatal | None, way: Way) -> int:
    """Run a task to its end (0), or die by our own hand at the n-th time of a step."""
    seen: Counter[str] = Counter()
    patience = replace(PATIENCE, grace_s=0.0 if way.bug == "no-grace" else way.work_s / 2 + 0.5)

    def passed(step: str) -> None:
        seen[step] += 1
        if (step, seen[step]) == fatal:
            os.kill(os.getpid(), signal.SIGKILL)

    def hurried(*given: Any) -> Lane:
        lane = lane_of(*given)
        assert lane.batcher is not None
        return replace(lane, batcher=replace(lane.batcher, patience=patience, passed=passed))

    setattr(opening, "lane_of", hurried)  # noqa: B010 - in a process of its own, as monkeypatch would
    BUGS[way.bug]()
    try:
        with Corpus.open(folder, actor="hammer") as corpus:
            asyncio.run(run_task(task, corpus, opened=[]))
    except BudgetExhausted:
        return 3
    except PartialFailure as error:
        sys.stderr.write(f"{error}\n")
        return 5
    return 0


def _none() -> None:
    """Nothing is wrong."""


def _no_looking() -> None:
    async def search(self: Any, batch: OpenBatch) -> tuple[bool, str]:
        if batch.missed_us is None and not batch.abandoned:
            return False, ""
        await self.batcher.journal.run(free_calls(self.batcher, batch.batch_id, "not looked for"))
        return True, ""

    collecting.Watch._search = search  # type: ignore[method-assign] # the bug


def _intent_afterwards() -> None:
    usual = asking._submit

    async def submit(batcher: Any, name: str, lines: Any) -> None:
        await batcher.service.batches.submit(name, lines)
        await usual(batcher, name, lines)

    asking._submit = submit


BUGS: dict[str, Callable[[], None]] = {
    "none": _none,
    "no-looking": _no_looking,
    "no-grace": _none,
    "handed-over-twice": _intent_afterwards,
}
"""Ways to build it wrong, each of which the hammer must show."""


# --- stories ---------------------------------------------------------------------------------------------------------


def story(
    found: Found,
    teacher: Teacher,
    folder: Path,
    way: Way,
    protocol: Protocol,
    draw: random.Random,
    script: tuple[Fatal, ...],
) -> None:
    """Kill starts of one task until one ends, then count; the first are killed as a script says."""
    fault = LATE if script else draw.choice(FAULTS)
    words = [f"{folder.name} {at:03} {fault if at % 3 == 0 else ''}".strip() for at in range(way.items)]
    tight = not script and draw.random() < 0.3
    most = WORST_MICROUSD * way.items // 2 if tight else 10**6
    usd = f"{most / 1e6:.6f}"
    task = load_task(
        write_batch_task(folder, teacher.base_url, words, protocol, usd, batch_size=max(2, way.items // 3))
    )
    for number in range(MOST_STARTS):
        scripted = script[number] if number < len(script) else None
        ended = one_go(found, task, folder / "corpus", way, draw, scripted, again=not script)
        if ended in (0, 3):
            break
        billed = teacher.bill()["billed_microusd"]  # before the books, which may sink but never below the truth
        wrong, booked = in_child(lambda: _books(folder / "corpus"))
        found.looks += 1
        found.bill_over_booked += billed > booked
        found.findings += [f"{folder.name}, start {number + 1}: {one}" for one in wrong]
    time.sleep(way.work_s)  # what nobody asks after is charged for too
    billed = teacher.last_bill()
    teacher.reset()
    seen = Seen(**in_child(lambda: _look(folder / "corpus")))
    count(found, seen, billed, words, folder.name, most, whole=ended == 0)


def one_go(
    found: Found, task: Task, folder: Path, way: Way, draw: random.Random, scripted: Fatal | None, *, again: bool
) -> int:
    """One start, or two at once; gives back how the last of those that ended by themselves did, or 9."""
    fate, pids, codes = draw.random() if again else 1.0, [], []
    for _ in range(2 if again and draw.random() < 0.25 else 1):
        fatal = scripted
        if fate < 0.6:
            (step,) = draw.choices(list(STEPS), list(STEPS.values()))
            fatal = (step, draw.randint(1, 2 if step != "kept" else 6))
        pids.append((fork(lambda fatal=fatal: start(task, folder, fatal, way)), fatal))  # type: ignore[misc] # its own
    found.starts += len(pids)
    if 0.6 <= fate < 0.85:
        time.sleep(draw.uniform(0.02, 0.9))
        for pid, _ in pids:
            found.kills += kill(pid)
            found.kills_at["random"] += 1
        return 9
    for pid, fatal in pids:
        codes.append(wait(pid, 60))
        if codes[-1] == -signal.SIGKILL and fatal:
            found.kills += 1
            found.kills_at[fatal[0]] += 1
    own = [code for code in codes if code >= 0]
    if any(code not in (0, 3) for code in own):
        found.findings.append(f"a start ended with {own}")
    return own[-1] if own else 9


def _books(folder: Path) -> tuple[list[str], int]:
    """What contradicts the caps and the calls now, and everything booked: settled, promised and unconfirmed."""
    with Corpus.open(folder, actor="hammer") as corpus:
        booked = [one for one in balances(corpus.journal, ["corpus"]) if one.unit == "microusd"]
        return violations(corpus.journal), sum(one.settled + one.promised + one.unconfirmed for one in booked)


def _look(folder: Path) -> dict[str, Any]:
    with Corpus.open(folder, actor="hammer") as corpus:
        seen = Seen()
        look(corpus, seen)
        query = "select count(*) from batches where missed_us is not null and state = 'ended'"
        seen.told = {"adopted": corpus.journal.query(query)[0][0]}
    return {name: getattr(seen, name) for name in ("records", "states", "wrong", "booked_microusd", "batches", "told")}


def count(
    found: Found, seen: Seen, billed: dict[str, Any], words: list[str], name: str, most: int, *, whole: bool
) -> None:
    """Add what one story came to."""
    charged, cost = billed["charged"], billed["billed_microusd"]
    found.stories += 1
    found.batches += len(seen.batches)
    found.adopted += seen.told["adopted"]
    found.paid_twice += sum(times - 1 for times in charged.values())
    found.lost += len(words) - seen.records if whole else max(0, len(charged) - seen.records)
    found.bill_over_booked += cost > seen.booked_microusd
    found.over_cap += cost > most
    found.findings += [f"{name}: {one}" for one in seen.wrong]
    if set(seen.states) - {"settled", "released"}:
        found.findings.append(f"{name}: calls are {dict(seen.states)}")


def main() -> int:
    """Tell all stories; 0 if nothing is wrong."""
    options = _options()
    os.environ.setdefault("CORPUSGEN_CACHE", "off")
    os.environ["BATCH_KEY"] = "sk-batch-0123456789"
    _read_all()
    way = Way(items=options.items, work_s=options.work, bug=options.bug)
    draw, found = random.Random(options.seed), Found()
    scratch = Path(tempfile.mkdtemp(prefix="batch-hammer-"))
    began = time.monotonic()
    try:
        with teacher_process(Options(batch_delay_s=way.work_s, prices=PRICES)) as teacher:
            for number in range(options.stories):
                if options.seconds and time.monotonic() - began > options.seconds:
                    break
                protocol = PROTOCOLS[number % 2]
                script = SCRIPTED[number // 2] if number < 2 * len(SCRIPTED) else ()
                story(found, teacher, scratch / f"story{number:04}", way, protocol, draw, script)
    finally:
        shutil.rmtree(scratch)
    figures = {name: getattr(found, name) for name in Found.__dataclass_fields__}
    told = orjson.dumps(figures).decode() if options.json else "\n".join(f"{k:<17} {v}" for k, v in figures.items())
    sys.stdout.write(told + "\n")
    return 1 if found.lost or found.paid_twice or found.bill_over_booked or found.over_cap or found.findings else 0


def _read_all() -> None:
    """Read what every start needs, so that its forks need not."""
    import anthropic
    import openai

    client = openai.AsyncOpenAI(api_key="none", base_url="http://127.0.0.1:9")
    assert client.batches is not None
    assert client.files is not None
    assert anthropic.AsyncAnthropic(api_key="none").messages.batches is not None


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stories", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=30.0, help="begin no story after so long; 0: tell them all")
    parser.add_argument("--items", type=int, default=9)
    parser.add_argument("--work", type=float, default=0.6, help="seconds a batch takes; no-grace shows above 2")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--bug", choices=list(BUGS), default="none")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
