"""One corpus under the hammer: workers are killed and started again until the work is done or the cap used up."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from corpusgen.errors import BudgetExhausted
from corpusgen.stages.task import Task
from hammer.looking import booked, look
from hammer.processes import STUCK, Teacher, ended, fork, in_child, kill, wait
from hammer.work import DROPPED, PLENTY, work

WORKERS = 5
PAUSE_S = (0.02, 0.18)
"""Between two kills."""
LAST_S = 90.0
MOST_TRIES = 20
USED_UP = BudgetExhausted.exit_code


@dataclass(kw_only=True)
class Blows:
    """What one corpus went through and what was found in it."""

    cap: int
    kills: int = 0
    samples: int = 0
    unbooked: int = 0
    """Times at which the bill was above what was booked."""
    bill: int = 0
    booked: int = 0
    records: int = 0
    lost: int = 0
    doubled: int = 0
    paid_twice: int = 0
    wrong: int = 0
    findings: list[str] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)
    """Exit codes that a worker should not have."""

    @property
    def bill_over_cap(self) -> float:
        """Bill ÷ cap."""
        return self.bill / self.cap


@dataclass(kw_only=True)
class _Crowd:
    """The workers of one corpus."""

    task: Task
    folder: Path
    blows: Blows
    pids: set[int] = field(default_factory=set)

    def fill(self) -> None:
        while len(self.pids) < WORKERS:
            self.pids.add(fork(lambda: work(self.task, self.folder, self.blows.cap)))

    def done(self) -> bool:
        """Bury who ended; True if one of them found nothing left to do, or no money."""
        over = False
        for pid in list(self.pids):
            code = ended(pid)
            if code is not None:
                self.pids.discard(pid)
                over |= code in (0, USED_UP)
                self.blows.codes += [code] if code not in (0, USED_UP, DROPPED) else []
        return over

    def kill(self, pid: int) -> None:
        self.pids.discard(pid)
        self.blows.kills += kill(pid)


def hammer(
    task: Task, folder: Path, teacher: Teacher, expected: Mapping[str, str], *, cap: int, kills: int, seed: int
) -> Blows:
    """Up to so many kills, then one worker that is left alone, then a look at everything."""
    blows, moments = Blows(cap=cap), random.Random(seed)
    crowd = _Crowd(task=task, folder=folder, blows=blows)
    crowd.fill()
    while blows.kills < kills:
        time.sleep(moments.uniform(*PAUSE_S))
        if crowd.done():
            break
        crowd.fill()
        crowd.kill(moments.choice(sorted(crowd.pids)))
        if blows.kills % 5 == 0:
            _compare(teacher, folder, blows)
        crowd.fill()
    for pid in sorted(crowd.pids):
        crowd.kill(pid)
    _finish(task, folder, blows)
    _examine(task, folder, teacher, expected, blows)
    return blows


def _compare(teacher: Teacher, folder: Path, blows: Blows) -> None:
    """The bill first: what is booked afterwards must cover it."""
    bill = teacher.bill()["billed_microusd"]
    blows.samples += 1
    blows.unbooked += bill > in_child(lambda: booked(folder))


def _finish(task: Task, folder: Path, blows: Blows) -> None:
    for _ in range(MOST_TRIES):
        code = wait(fork(lambda: work(task, folder, blows.cap, in_flight=32)), LAST_S)
        if code != DROPPED:
            break
    if code == STUCK or code not in (0, USED_UP) or (code == USED_UP and blows.cap == PLENTY):
        blows.codes.append(code)


def _examine(task: Task, folder: Path, teacher: Teacher, expected: Mapping[str, str], blows: Blows) -> None:
    bill = teacher.last_bill()
    found = in_child(lambda: look(task, folder, bill, expected, whole=blows.cap == PLENTY))
    for name, value in found.items():
        setattr(blows, name, value)
    blows.bill, blows.booked = bill["billed_microusd"], in_child(lambda: booked(folder))
    blows.samples += 1
    blows.unbooked += blows.bill > blows.booked
