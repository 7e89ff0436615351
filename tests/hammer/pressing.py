"""``python -m hammer.pressing [--worlds N] [--json]``, from the folder of the tests: how close a bill comes to its cap.

Several processes that nobody kills ask under one tight cap, each time in another scope, of a teacher that fails now
and then: with failures it charges for and failures it is known not to charge for. What is booked must cover the bill,
and what is known to be free must not use the cap up.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

os.environ["CORPUSGEN_CACHE"] = "off"  # an answer from another corpus would cost nothing

from corpusgen.budget.ledger import Cap, Ledger
from corpusgen.corpus import Corpus
from corpusgen.mock.plan import FaultPlan
from corpusgen.mock.server import Options
from corpusgen.teachers.billing import Billing
from hammer.__main__ import worst_case
from hammer.blows import USED_UP
from hammer.looking import booked
from hammer.processes import fork, in_child, teacher_process, wait
from hammer.work import ACTOR, work, write_work

PROCESSES = 4
WORST_CALLS = 100
"""How many worst cases the cap holds."""
CALLS_A_CAP = 6
"""So many times as many prompts as worst cases: what is answered costs a part of that."""
LOOSER = 1.001
"""The caps of the other scopes, by the tight one."""
SCOPES = ("corpus", "teacher:endpoint/m", f"user:{ACTOR}")
"""What is capped beside the run."""
FAULTS = {
    "429-ms": 0.03,
    "529": 0.04,
    "400": 0.01,
    "500-billed": 0.012,
    "reset-in-body": 0.006,
    "usage-missing": 0.012,
}
KNOWN = Billing(known={429: False, 529: False, 500: True})
"""What this teacher is known to charge for."""


@dataclass(frozen=True, kw_only=True)
class Pressed:
    """What one corpus was billed under its cap."""

    tight: str
    bill_over_cap: float
    bill_over_booked: float
    codes: tuple[int, ...]

    @property
    def sound(self) -> bool:
        """Whether everybody stopped at the cap, and the bill is below it and below what is booked."""
        return self.codes == (USED_UP,) and self.bill_over_cap <= 1 and self.bill_over_booked <= 1


def press(folder: Path, seed: int, tight: str) -> Pressed:
    """One corpus asked until its money is used up; ``tight`` is the scope with the least of it."""
    options = Options(plan=FaultPlan(seed=seed, shares=FAULTS, markers=False), latency_s=0.02)
    with teacher_process(options) as teacher:
        task, corpus = write_work(folder / "task", teacher.base_url, CALLS_A_CAP * WORST_CALLS), folder / "corpus"
        cap = WORST_CALLS * int(in_child(lambda: worst_case(task)))
        caps = {scope: cap if scope == tight else round(cap * LOOSER) for scope in ("run", *SCOPES)}
        in_child(lambda: put_caps(corpus, caps))
        pids = [fork(lambda: work(task, corpus, caps["run"], billing=KNOWN)) for _ in range(PROCESSES)]
        codes = tuple(sorted({wait(pid, 60.0) for pid in pids}))
        bill = teacher.last_bill()["billed_microusd"]
        spent = in_child(lambda: booked(corpus))
        return Pressed(tight=tight, bill_over_cap=bill / cap, bill_over_booked=bill / max(1, spent), codes=codes)


def put_caps(folder: Path, caps: Mapping[str, int]) -> bool:
    """Put caps in force beside the run's own."""
    rows = [Cap(scope=scope, unit="microusd", cap=caps[scope], origin="pressing") for scope in SCOPES]
    with Corpus.open(folder, actor=ACTOR) as corpus:
        asyncio.run(Ledger(corpus.journal).set_caps(rows))
    return True


def main() -> int:
    """Press as often as asked, and print how close the bills came."""
    parser = argparse.ArgumentParser(prog="hammer.pressing", description=__doc__)
    parser.add_argument("--worlds", type=int, default=len(SCOPES) + 1)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    began, scopes = time.monotonic(), ("run", *SCOPES)
    with tempfile.TemporaryDirectory(prefix="pressing-") as folder:
        worlds = [press(Path(folder) / str(at), at, scopes[at % len(scopes)]) for at in range(chosen.worlds)]
    highest = round(max(world.bill_over_cap for world in worlds), 6)
    sound = all(world.sound for world in worlds)
    figures = {
        # What was measured wrongly is no figure, except where it shows that a cap was passed.
        "bill_over_cap": highest if sound or highest > 1 else None,
        "least_bill_over_cap": round(min(world.bill_over_cap for world in worlds), 6),
        "unsound": [asdict(world) for world in worlds if not world.sound],
        "seconds": round(time.monotonic() - began, 1),
    }
    lines = [json.dumps(figures)] if chosen.json else [f"{name:<24} {value}" for name, value in figures.items()]
    sys.stdout.write("\n".join(lines) + "\n")
    return 1 if figures["unsound"] else 0


if __name__ == "__main__":
    sys.exit(main())
