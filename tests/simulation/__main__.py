"""``python -m simulation --worlds N --seed S`` (with ``tests`` on the path): a JSON object of what was found."""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import nullcontext
from dataclasses import asdict
from typing import Any

import orjson

from simulation.bugs import PLANTED, hunt
from simulation.world import Report, run_world


def main() -> int:
    """Exit code 1 when a world breaks a promise or a planted bug stays hidden."""
    wanted = _arguments()
    if wanted.show:
        with PLANTED[wanted.bug].plant() if wanted.bug else nullcontext():
            report = run_world(wanted.seed)
        _say(asdict(report))
        return int(bool(report.violations))
    started = time.perf_counter()
    scores = score(first_seed=wanted.seed, worlds=wanted.worlds, bugs=wanted.bugs)
    _say({**scores, "wall_s": round(time.perf_counter() - started, 1)})
    hidden = scores.get("planted", 0) - scores.get("planted_found", 0)
    return int(bool(scores["violations"] or hidden))


def score(*, first_seed: int, worlds: int, bugs: bool = True) -> dict[str, Any]:
    """Worlds without planted bugs and what went wrong in them, and the planted bugs that were found."""
    figures = {"worlds": worlds, "calls": 0, "steps": 0, "processes": 0, "kills": 0, "violations": 0}
    for seed in range(first_seed, first_seed + worlds):
        report = run_world(seed)
        for name in ("calls", "steps", "processes", "kills"):
            figures[name] += getattr(report, name)
        figures["violations"] += len(report.violations)
        if report.violations:
            sys.stderr.write(complaint(report) + "\n")
    if not bugs:
        return figures
    hunts = [hunt(name, first_seed=first_seed) for name in PLANTED]
    needed = {found.name: found.worlds for found in hunts if found.report is not None}
    return figures | {"planted": len(PLANTED), "planted_found": len(needed), "worlds_needed": needed}


def complaint(report: Report) -> str:
    """The violations of a world, and how to see them again."""
    again = f"see it again: PYTHONPATH=tests python -m simulation --show --seed {report.seed}"
    return "\n".join([*report.violations, again])


def _say(what: dict[str, Any]) -> None:
    sys.stdout.write(orjson.dumps(what).decode() + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="simulation", description=__doc__)
    parser.add_argument("--worlds", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0, help="the first one")
    parser.add_argument("--show", action="store_true", help="only this seed's world, with all that happened in it")
    parser.add_argument("--bug", choices=sorted(PLANTED), help="planted in the world that is shown")
    parser.add_argument("--no-bugs", dest="bugs", action="store_false", help="plant none")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
