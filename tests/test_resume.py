"""However a run ends, the same command goes on from there and nothing is paid for twice."""

from __future__ import annotations

import asyncio
import hashlib
import random
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from flow_samples import Server, endpoint, open_corpus, states, violations, write_task
from teacher_samples import server

from corpusgen.records import Record
from corpusgen.store.manifest import read_manifest
from corpusgen.store.shards import read_records

CHILD = Path(__file__).parent / "resume_child.py"
ITEMS = 400
IN_FLIGHT = 16


async def start(task: Path, folder: Path, *tokens: int) -> Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, str(CHILD), str(task), str(folder), *map(str, tokens), stdout=PIPE, stderr=PIPE
    )


async def finish(task: Path, folder: Path, *tokens: int) -> tuple[int | None, str]:
    """Exit code and everything the run wrote."""
    child = await start(task, folder, *tokens)
    out, err = await child.communicate()
    return child.returncode, (out + err).decode()


@asynccontextmanager
async def teaching(folder: Path, *, items: int = ITEMS, latency_s: float = 0.02) -> AsyncIterator[tuple[Server, Path]]:
    """A server in this process, which survives the kills and counts, and a task that asks it."""
    teacher = Server(latency_s=latency_s)
    async with server(teacher.answer) as url:
        yield teacher, write_task(folder, items=items, teacher=endpoint(url, in_flight=IN_FLIGHT))


def shards(folder: Path) -> dict[str, str]:
    """The committed shards with the sha256 of their bytes."""
    paths = read_manifest(folder).paths(folder)
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


@pytest.mark.slow
async def test_after_ten_kills_the_shards_are_those_of_an_undisturbed_run(tmp_path: Path) -> None:
    moments = random.Random(20261122)
    async with teaching(tmp_path) as (teacher, task):
        assert await finish(task, tmp_path / "undisturbed") == (0, f"started\n{ITEMS}\n")
        assert set(teacher.asked.values()) == {1}
        teacher.asked.clear()
        teacher.answered.clear()
        for _ in range(10):
            child = await start(task, tmp_path / "killed")
            assert child.stdout is not None
            before = teacher.asked.total()
            await child.stdout.readline()
            # What it reads before it asks takes as long as the machine likes, and nobody tells of its first question.
            while teacher.asked.total() == before and child.returncode is None:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            await asyncio.sleep(moments.uniform(0, 0.06))
            child.send_signal(signal.SIGKILL)
            await child.communicate()
        killed_at = len(teacher.answered)
        code, said = await finish(task, tmp_path / "killed")
    assert code == 0, said
    assert 0 < killed_at < ITEMS
    assert len(teacher.asked) == ITEMS
    # What was under way at a kill is asked again; every kill finds at most so many calls under way.
    assert teacher.asked.total() <= ITEMS + 10 * IN_FLIGHT
    assert shards(tmp_path / "killed") == shards(tmp_path / "undisturbed")
    with open_corpus(tmp_path / "killed") as corpus:
        found = states(corpus.journal)
        assert (found["promised"], found["settled"]) == (0, ITEMS)
        assert not violations(corpus.journal)


async def test_the_same_command_again_sends_nothing(tmp_path: Path) -> None:
    async with teaching(tmp_path, items=50) as (teacher, task):
        await finish(task, tmp_path / "corpus")
        before = shards(tmp_path / "corpus")
        assert await finish(task, tmp_path / "corpus") == (0, "started\n50\n")
    assert teacher.asked.total() == 50
    assert shards(tmp_path / "corpus") == before


async def test_a_budget_stop_keeps_what_was_paid_for_and_more_budget_gives_the_same_records(tmp_path: Path) -> None:
    async with teaching(tmp_path, items=60, latency_s=0.002) as (teacher, task):
        await finish(task, tmp_path / "undisturbed")
        teacher.asked.clear()
        code, said = await finish(task, tmp_path / "stopped", 150)
        assert (code, "BudgetExhausted" in said, "tokens" in said) == (3, False, True)
        asked = teacher.asked.total()
        assert 0 < asked == read_manifest(tmp_path / "stopped").rows < 60
        assert (await finish(task, tmp_path / "stopped", 100_000))[0] == 0
    assert teacher.asked.total() == 60
    assert records(tmp_path / "stopped") == records(tmp_path / "undisturbed")


async def test_ctrl_c_waits_for_the_calls_under_way_and_exits(tmp_path: Path) -> None:
    async with teaching(tmp_path) as (teacher, task):
        child = await start(task, tmp_path / "corpus")
        while teacher.answered.total() < 20:  # noqa: ASYNC110 - the server only counts
            await asyncio.sleep(0.005)
        child.send_signal(signal.SIGINT)
        _, said = await child.communicate()
        assert (child.returncode, b"stopped as asked" in said) == (130, True)
        assert teacher.answered.total() == teacher.asked.total() < ITEMS
        assert read_manifest(tmp_path / "corpus").rows == teacher.asked.total()
        assert (await finish(task, tmp_path / "corpus"))[0] == 0
    assert set(teacher.asked.values()) == {1}
    with open_corpus(tmp_path / "corpus") as corpus:
        found = states(corpus.journal)
        assert (found["promised"], found["unknown"], found["settled"]) == (0, 0, ITEMS)


def records(folder: Path) -> list[Record]:
    """All records of a corpus, in a fixed order."""
    found = read_records(read_manifest(folder).paths(folder))
    return sorted(found, key=lambda record: record.record_id)
