"""Whatever goes wrong, in whatever order: no cap is passed, nothing is lost, nothing is paid for twice."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import orjson
import pytest
from simulation.__main__ import complaint
from simulation.bugs import PLANTED, hunt
from simulation.clock import NeverEnds, VirtualLoop
from simulation.world import run_world

from corpusgen.journal import Journal, Later, Operation

TESTS = Path(__file__).parent
WORLDS = range(60)
MOST = 40
"""So many worlds at most until a planted bug shows itself."""


def test_no_world_breaks_a_promise() -> None:
    broken = [complaint(report) for seed in WORLDS if (report := run_world(seed)).violations]
    assert not broken, "\n\n".join(broken)


def test_the_worlds_are_eventful_enough() -> None:
    reports = [run_world(seed) for seed in WORLDS[:20]]
    kinds = {line.split()[3] for report in reports for line in report.trace if line.split()[1] == "charged"}
    assert len(kinds) >= 8
    assert sum(report.kills for report in reports) >= 10
    assert sum(report.calls for report in reports) >= 200


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_bug_is_found(name: str) -> None:
    assert hunt(name, worlds=MOST).report is not None


def test_there_are_twelve_of_them() -> None:
    assert len(PLANTED) == 12


@pytest.mark.parametrize("seed", [3, 16])
def test_the_same_seed_gives_the_same_world_in_any_process(seed: int) -> None:
    assert [shown(seed, hash_seed) for hash_seed in ("1", "2")] == [orjson.loads(told(seed))] * 2


def told(seed: int) -> bytes:
    return orjson.dumps(asdict(run_world(seed)))


def shown(seed: int, hash_seed: str) -> object:
    """The world as another interpreter sees it."""
    said = subprocess.run(
        [sys.executable, "-m", "simulation", "--show", "--seed", str(seed)],
        env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])},
        capture_output=True,
        check=True,
    )
    return orjson.loads(said.stdout)


# --- what it stands on -----------------------------------------------------------------------------------------------


def inline(folder: Path, later: Later) -> Journal:
    return Journal(folder / "journal.sqlite", clock_us=lambda: 0, later=later)


def note(name: str) -> Operation[None]:
    return lambda transaction: transaction.execute("insert into meta values(?, '')", (name,)).close()


async def test_without_a_writer_thread_nothing_is_committed_before_its_turn(tmp_path: Path) -> None:
    turns: list[Callable[[], None]] = []
    journal = inline(tmp_path, turns.append)
    waiting = [journal.start(note(name)) for name in "ab"]
    assert journal.query("select count(*) from meta where name in ('a', 'b')") == [(0,)]
    turns.pop(0)()
    assert journal.query("select count(*) from meta where name in ('a', 'b')") == [(2,)]
    assert not any(outcome.done() for outcome in waiting)  # durable, and nobody has heard of it
    turns.pop()()
    assert all(outcome.done() for outcome in waiting)
    journal.close()


def test_without_a_writer_thread_what_waits_is_committed_on_closing(tmp_path: Path) -> None:
    async def leave() -> None:
        journal = inline(tmp_path, lambda _: None)
        journal.start(note("a"))
        journal.close()

    before = threading.active_count()
    asyncio.run(leave())
    journal = inline(tmp_path, lambda _: None)
    assert journal.query("select name from meta where name = 'a'") == [("a",)]
    assert threading.active_count() == before
    journal.close()


def test_waiting_takes_no_time() -> None:
    loop = VirtualLoop()
    loop.run_until_complete(asyncio.sleep(299))
    assert loop.time() == 299
    loop.close()


def test_who_waits_for_nobody_is_found_out() -> None:
    loop = VirtualLoop()
    with pytest.raises(NeverEnds, match="everybody waits"):
        loop.run_until_complete(_silence())
    loop.bury()
    loop.close()


async def _silence() -> None:
    await asyncio.get_running_loop().create_future()


def test_what_is_killed_has_no_last_word() -> None:
    loop, said = VirtualLoop(), []

    async def speak() -> None:
        try:
            await asyncio.sleep(5)
        finally:
            said.append("last word")

    async def kill() -> None:
        loop.start("victim", speak())
        await asyncio.sleep(1)
        loop.kill("victim")
        await asyncio.sleep(10)
        assert not said

    loop.run_until_complete(kill())
    loop.bury()
    loop.close()
