"""``python -m hammer [--kills N] [--seed N] [--long] [--json]``, from the folder of the tests."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

os.environ["CORPUSGEN_CACHE"] = "off"  # an answer from another corpus would hide that one was lost

from corpusgen.mock.plan import FaultPlan
from corpusgen.mock.server import Options
from hammer.blows import Blows, hammer
from hammer.control import check_then_spend
from hammer.looking import contents
from hammer.processes import Teacher, fork, in_child, teacher_process, wait
from hammer.work import DROPPED, PLENTY, work, write_work

KILLS = 300
KILLS_LONG = 10_000
KILLS_PER_CORPUS = 55
ITEMS = 400
CAPPED_SHARE = 0.9
"""Of what everything would cost: the cap of every second corpus."""
FAULTS = {
    "500": 0.05,
    "500-billed": 0.06,
    "reset-in-body": 0.03,
    "close-before-answer": 0.03,
    "timeout": 0.01,
    "usage-missing": 0.05,
    "429-bare": 0.005,
    "429-ms": 0.015,
    "529": 0.02,
    "error-body": 0.015,
    "truncated-json": 0.015,
}
WORST_CALLS = 150
"""How many worst cases the cap of the undisturbed measurement holds."""


def main() -> int:
    """Hammer until there were enough kills, and print what was found."""
    chosen = _arguments()
    began = time.monotonic()
    worlds: list[Blows] = []
    control = 0.0
    with tempfile.TemporaryDirectory(prefix="hammer-") as folder:
        seed = chosen.seed
        while sum(world.kills for world in worlds) < chosen.kills:
            found, control_here = _pair(Path(folder) / str(seed), seed, chosen)
            worlds += found
            control = max(control, control_here)
            seed += 1
            _tell(worlds, began)
        used = None if chosen.without_use else cap_used(Path(folder) / "use")
    figures = _figures(worlds) | {"control_bill_over_cap": round(control, 4), "cap_used": used}
    figures["seconds"] = round(time.monotonic() - began, 1)
    _print(figures, as_json=chosen.json)
    return 0 if _sound(figures) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="hammer", description=__doc__)
    parser.add_argument("--kills", type=int)
    parser.add_argument("--items", type=int, default=ITEMS)
    parser.add_argument("--per-corpus", type=int, default=KILLS_PER_CORPUS)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--without-use", action="store_true", help="Leave out how much of a cap can be used.")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    chosen.kills = chosen.kills or (KILLS_LONG if chosen.long else KILLS)
    return chosen


def _pair(folder: Path, seed: int, chosen: argparse.Namespace) -> tuple[list[Blows], float]:
    """A corpus whose cap does not bind, one whose cap does, and the control, with one teacher."""
    options = Options(plan=FaultPlan(seed=seed, shares=FAULTS, markers=False), latency_s=0.04, slow_s=3.0)
    with teacher_process(options) as teacher:
        task = write_work(folder / "task", teacher.base_url, chosen.items)
        expected, cost = _undisturbed(task, folder / "undisturbed", teacher)
        found = []
        for at, cap in enumerate((PLENTY, round(cost * CAPPED_SHARE))):
            teacher.reset()
            world = folder / f"killed-{at}"
            moments = 2 * seed + at
            found.append(hammer(task, world, teacher, expected, cap=cap, kills=chosen.per_corpus, seed=moments))
        teacher.reset()
        cap = round(cost * CAPPED_SHARE)
        in_child(lambda: _control(teacher.base_url, cap, chosen.items * 4))
        control = teacher.last_bill()["billed_microusd"] / cap
    return found, control


def _control(base_url: str, cap: int, most: int) -> int:
    import asyncio

    return asyncio.run(check_then_spend(base_url, cap, most))


def _undisturbed(task: Any, folder: Path, teacher: Teacher) -> tuple[dict[str, str], int]:
    """The records of a run of one process that nobody kills, and what it was billed."""
    while (code := wait(fork(lambda: work(task, folder, in_flight=48)), 120.0)) == DROPPED:
        pass
    if code != 0:
        raise RuntimeError(f"the undisturbed run ended with {code}")
    return dict(in_child(lambda: contents(folder))), teacher.last_bill()["billed_microusd"]


def cap_used(folder: Path) -> float:
    """The share of a cap that three processes can use when nothing goes wrong."""
    with teacher_process(Options()) as teacher:
        task = write_work(folder / "task", teacher.base_url, 4 * WORST_CALLS)
        cap = WORST_CALLS * int(in_child(lambda: worst_case(task)))
        pids = [fork(lambda: work(task, folder / "corpus", cap)) for _ in range(3)]
        codes = {wait(pid, 120.0) for pid in pids}
        if codes != {3}:
            raise RuntimeError(f"the workers ended with {codes}, not at their cap")
        return round(float(teacher.last_bill()["billed_microusd"]) / cap, 4)


def worst_case(task: Any) -> int:
    """The most that any call of a task may cost, in micro-dollars."""
    from corpusgen.corpus import utc_now
    from corpusgen.stages.task import connect, price_of, request_for

    teacher, rate = connect(task, utc_now), price_of(task, utc_now().date())
    items = task.prompter.items("train")
    bounds = (teacher.input_tokens_bound(request_for(task, teacher.card, item, 0)) for item in items)
    return rate.worst(max(bounds), int(task.teacher.parameters["max_tokens"])).microusd


def _figures(worlds: list[Blows]) -> dict[str, Any]:
    added = ("kills", "records", "lost", "doubled", "paid_twice", "wrong", "samples", "unbooked")
    sums = {name: sum(asdict(world)[name] for world in worlds) for name in added}
    return sums | {
        "corpora": len(worlds),
        "bill_over_cap": round(max(world.bill_over_cap for world in worlds), 6),
        "bill_over_booked": round(max(world.bill / max(1, world.booked) for world in worlds), 4),
        "findings": [finding for world in worlds for finding in world.findings][:20],
        "codes": [code for world in worlds for code in world.codes],
    }


def _sound(figures: dict[str, Any]) -> bool:
    wrong = ("lost", "doubled", "paid_twice", "wrong", "unbooked", "findings", "codes")
    return not any(figures[name] for name in wrong) and figures["bill_over_cap"] <= 1


def _tell(worlds: list[Blows], began: float) -> None:
    kills = sum(world.kills for world in worlds)
    sys.stderr.write(f"hammer: {kills} kills, {len(worlds)} corpora, {time.monotonic() - began:.0f} s\n")


def _print(figures: dict[str, Any], *, as_json: bool) -> None:
    lines: Iterator[str] = iter([json.dumps(figures)])
    if not as_json:
        lines = (f"{name:<24} {value}" for name, value in figures.items())
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(main())
