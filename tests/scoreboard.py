"""What holds when everything goes wrong, in figures: ``python tests/scoreboard.py [--json] [--long] [--only PART,…]``.

Every figure is measured here and now; of ``bill_over_cap``, which the hammer and the pressing both measure, the higher
one counts. One that cannot be measured is null, with the reason on stderr; the exit code is 1 when a figure misses its
target or is null.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

TESTS = Path(__file__).resolve().parent
Figures = dict[str, Any]
SIDE_BY_SIDE: Final = 2


@dataclass(frozen=True, kw_only=True)
class Target:
    """What a figure must be, in words and as a test."""

    words: str
    holds: Callable[[Any], bool]


def at_least(least: float) -> Target:
    return Target(words=f"≥ {least:,}", holds=lambda found: found >= least)


def exactly(wanted: int) -> Target:
    return Target(words=f"= {wanted}", holds=lambda found: found == wanted)


TARGETS: Final[Mapping[str, Target]] = {
    "kills": at_least(300),
    "lost": exactly(0),
    "doubled": exactly(0),
    "paid_twice": exactly(0),
    "bill_over_cap": Target(words="≤ 1", holds=lambda found: found <= 1),
    "control_bill_over_cap": Target(words="> 1", holds=lambda found: found > 1),
    "cap_used": at_least(0.98),
    "worlds": at_least(1_000),
    "violations": exactly(0),
    "planted": at_least(12),
    "planted_found": at_least(12),
    "machine_steps": at_least(30_000),
    "fault_kinds": at_least(40),
    "mutants_killed": at_least(0.9),
    "bit_flips": at_least(1_000),
    "bit_flips_found": at_least(1_000),
}
"""The scoreboard's figures, in its order."""

PAIRS: Final = (("planted_found", "planted"), ("bit_flips_found", "bit_flips"))
"""Figures that must be as high as another."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """Something that measures some of the figures, by a command that prints one JSON object."""

    name: str
    keys: tuple[str, ...]
    short: tuple[str, ...]
    long: tuple[str, ...]
    within_s: float = 900.0
    """Far more than it takes, for a part that hangs."""


COUNT_KINDS: Final = """
import contextlib, io, json, pytest
from corpusgen.mock.plan import KINDS
class Seen:
    kinds = set()
    def pytest_collection_finish(self, session):
        cases = [item.callspec.params.values() for item in session.items if hasattr(item, "callspec")]
        self.kinds = {value for case in cases for value in case if isinstance(value, str)} & set(KINDS)
with contextlib.redirect_stdout(io.StringIO()):
    pytest.main(["test_faults.py", "--collect-only", "-q"], plugins=[seen := Seen()])
print(json.dumps({"fault_kinds": len(seen.kinds)}))
"""
"""Counts the kinds of faults that tests by name meet, not those of a table."""

PARTS: Final = (
    Part(
        name="hammer",
        keys=("kills", "lost", "doubled", "paid_twice", "bill_over_cap", "control_bill_over_cap", "cap_used"),
        short=("-m", "hammer", "--json"),
        long=("-m", "hammer", "--json", "--long"),
    ),
    Part(
        name="pressing",
        keys=("bill_over_cap",),
        short=("-m", "hammer.pressing", "--json"),
        long=("-m", "hammer.pressing", "--json", "--worlds", "100"),
    ),
    Part(
        name="machines",
        keys=("machine_steps",),
        short=("machines.py", "--json"),
        long=("machines.py", "--json", "--steps", "1000000"),
    ),
    Part(
        name="simulation",
        keys=("worlds", "violations", "planted", "planted_found"),
        short=("-m", "simulation", "--worlds", "1000"),
        long=("-m", "simulation", "--worlds", "50000"),
    ),
    Part(
        name="faults",
        keys=("fault_kinds",),
        short=("-c", COUNT_KINDS),
        long=("-c", COUNT_KINDS),
    ),
    Part(
        name="mutants",
        keys=("mutants_killed",),
        short=("mutants.py", "--json", "--seconds", "140"),
        long=("mutants.py", "--json", "--long"),
    ),
    Part(
        name="flips",
        keys=("bit_flips", "bit_flips_found"),
        short=("flips.py", "--json"),
        long=("flips.py", "--json", "--flips", "20000"),
    ),
)


def measure(part: Part, *, long: bool) -> Figures:
    """The figures of one part; null, with a reason on stderr, where they cannot be had."""
    began = time.monotonic()
    command = [sys.executable, *(part.long if long else part.short)]
    found: Figures = {}
    try:
        done = subprocess.run(
            command,
            cwd=TESTS,
            env=_environment(),
            capture_output=True,
            text=True,
            timeout=None if long else part.within_s,
        )
        found = _said(part, done)
    except subprocess.TimeoutExpired:
        tell(f"{part.name}: took longer than {part.within_s:.0f} s")
    tell(f"{part.name}: {time.monotonic() - began:.0f} s")
    return {key: found.get(key) for key in part.keys}


def _environment() -> dict[str, str]:
    """As the tests have it: the package of this checkout, and no answers from other corpora."""
    paths = [str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"CORPUSGEN_CACHE": "off", "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def _said(part: Part, done: subprocess.CompletedProcess[str]) -> Figures:
    try:
        found = json.loads(done.stdout.strip().rpartition("\n")[2])
    except ValueError:
        found = None
    if not isinstance(found, dict):
        tell(f"{part.name}: cannot be measured: {(done.stderr or done.stdout).strip()[-600:] or 'it said nothing'}")
        return {}
    for name, value in found.items():
        if name not in part.keys and value:
            tell(f"{part.name}: {name}: {value}")
    return found


def both(found: Figures, more: Figures) -> Figures:
    """All figures; of one that two parts measure the higher, and none if one of them could not."""
    shared = {name: (found[name], more[name]) for name in found.keys() & more.keys()}
    return found | more | {name: None if None in pair else max(pair) for name, pair in shared.items()}


def misses(figures: Figures) -> list[str]:
    """Every figure that is not what it must be, in words."""
    found = []
    for name, target in TARGETS.items():
        if name in figures and (figures[name] is None or not target.holds(figures[name])):
            found.append(f"{name} is {figures[name]}, must be {target.words}")
    for name, other in PAIRS:
        if figures.get(name) != figures.get(other):
            found.append(f"{name} is {figures.get(name)}, of {figures.get(other)}")
    return found


def tell(words: str) -> None:
    sys.stderr.write(f"{words}\n")
    sys.stderr.flush()


def show(figures: Figures) -> str:
    """The scoreboard for people."""
    rows = []
    for name, value in figures.items():
        shown = "not measured" if value is None else f"{value:,}"
        rows.append(f"{name:<24}{shown:>14}   {TARGETS[name].words}")
    return "\n".join(rows)


def main() -> int:
    """Measure and print everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--long", action="store_true", help="Hours instead of minutes.")
    parser.add_argument("--only", default="", metavar="PART,…", help=", ".join(part.name for part in PARTS))
    chosen = parser.parse_args()
    wanted = set(filter(None, chosen.only.split(",")))
    found: Figures = {}
    parts = [part for part in PARTS if not wanted or part.name in wanted]
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:  # much of the time they wait, for a teacher or a disk
        for figures in pool.map(lambda part: measure(part, long=chosen.long), parts):
            found = both(found, figures)
    figures = {name: found[name] for name in TARGETS if name in found}
    sys.stdout.write((json.dumps(figures) if chosen.json else show(figures)) + "\n")
    missed = misses(figures)
    for words in missed:
        tell(f"missed: {words}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
