"""Several processes on one corpus: nothing is asked twice, and no cap is passed."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections import Counter
from pathlib import Path
from typing import Any

from aiohttp import web
from fault_samples import MAX_TOKENS, options, write_mock_task
from flow_samples import Server, asker_of, endpoint, open_corpus, prompt, saying, states, violations, write_task
from teacher_samples import chat_reply, server

from corpusgen.budget.amounts import Amounts
from corpusgen.budget.ledger import Intent, balances
from corpusgen.corpus import Corpus
from corpusgen.errors import RequestRefused
from corpusgen.fanout.asker import Asker
from corpusgen.fanout.stream import answers
from corpusgen.mock.server import mock_teacher

CHILD = Path(__file__).parent / "asking_child.py"


async def start(task: Path, folder: Path, *numbers: int) -> Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, str(CHILD), str(task), str(folder), *map(str, numbers), stdout=PIPE, stderr=PIPE
    )


async def finish(child: Process) -> Counter[str]:
    """How every call of every process went."""
    out, err = await child.communicate()
    assert child.returncode == 0, err.decode()
    told = Counter(out.decode().split())
    del told["started"]
    return told


def settled(corpus: Corpus, unit: str) -> int:
    return next(at.settled for at in balances(corpus.journal, ["run:r1"]) if at.unit == unit)


async def test_200_prompts_with_50_distinct_in_four_processes_are_50_requests(tmp_path: Path) -> None:
    teacher = Server(latency_s=0.05)
    async with server(teacher.answer) as url:
        task = write_task(tmp_path, items=50, teacher=endpoint(url, in_flight=4))
        told = await finish(await start(task, tmp_path / "corpus", 4, 4, 1))
    assert told == {"record": 4 * 4 * 50}
    assert (len(teacher.asked), teacher.asked.total()) == (50, 50)
    with open_corpus(tmp_path / "corpus") as corpus:
        assert states(corpus.journal)["settled"] == 50
        assert not violations(corpus.journal)


async def test_what_a_killed_process_was_asking_is_asked_again_by_who_waited(tmp_path: Path) -> None:
    teacher = Server(latency_s=60.0)  # until the kill, no answer comes
    async with server(teacher.answer) as url:
        task = write_task(tmp_path, items=3, teacher=endpoint(url, in_flight=3))
        first = await start(task, tmp_path / "corpus", 1, 3, 0)
        while teacher.now < 3:  # noqa: ASYNC110 - nothing tells when a call has arrived
            await asyncio.sleep(0.01)
        second = await start(task, tmp_path / "corpus", 1, 3, 0)
        assert second.stdout is not None
        await second.stdout.readline()
        await asyncio.sleep(0.2)
        assert teacher.asked.total() == 3  # it waits for the first's answers
        teacher.latency_s = 0.0
        kill_group(first)
        assert await finish(second) == {"record": 3}
    assert teacher.asked.total() == 6
    with open_corpus(tmp_path / "corpus") as corpus:
        assert states(corpus.journal) == {"settled": 3, "unknown": 3}
        assert not violations(corpus.journal)


def kill_group(parent: Process) -> None:
    """Kill a process and those it forked."""
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
    for pid in (*map(int, children), parent.pid):
        os.kill(pid, signal.SIGKILL)


async def test_ten_processes_never_make_the_teachers_own_bill_pass_the_cap(tmp_path: Path) -> None:
    words = [f"word {at}" for at in range(100)]
    async with mock_teacher(options(latency_s=0.01)) as mock:
        task = write_mock_task(tmp_path, mock.base_url, words, usd="0.05", in_flight=8)
        told = await finish(await start(task, tmp_path / "corpus", 10, 2, 1))
        bill = mock.bill
    assert bill.microusd <= 50_000
    assert bill.microusd > 50_000 - 2 * (200 * 10 + MAX_TOKENS * 40)  # and it is used nearly whole
    assert max(bill.charged.values()) == 1
    assert told["BudgetExhausted"] > 0
    with open_corpus(tmp_path / "corpus") as corpus:
        assert settled(corpus, "microusd") == bill.microusd
        assert not violations(corpus.journal)


def records_in(folder: Path) -> list[tuple[str, bytes, bytes]]:
    """Item, request and answer of every record."""
    with open_corpus(folder) as corpus:
        return corpus.journal.query(
            "select item_id, r.request_key, body from records r join answers using (request_key) order by item_id"
        )


async def test_ten_processes_make_the_records_of_one_or_under_a_cap_some_of_them(tmp_path: Path) -> None:
    words = [f"word {at}" for at in range(60)]
    async with mock_teacher(options()) as mock:
        task = write_mock_task(tmp_path / "free", mock.base_url, words, usd="5", in_flight=4)
        short = write_mock_task(tmp_path / "short", mock.base_url, words, usd="0.02", in_flight=4)
        await finish(await start(task, tmp_path / "one", 1, 4, 0))
        await finish(await start(task, tmp_path / "ten", 10, 2, 1))
        await finish(await start(short, tmp_path / "capped", 10, 2, 1))
    one, ten, capped = (records_in(tmp_path / name) for name in ("one", "ten", "capped"))
    assert (len(one), ten) == (60, one)
    assert 0 < len(capped) < 60
    assert set(capped) < set(one)
    assert len(set(capped)) == len(capped)


async def test_ten_cents_at_two_cents_a_call_are_five_calls_for_fifty_callers_in_four_processes(tmp_path: Path) -> None:
    asked = 0

    async def two_cents(_: web.Request) -> web.StreamResponse:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0.1)
        return web.json_response(chat_reply(usage={"prompt_tokens": 1, "completion_tokens": 8}))

    price = {"input_usd_per_mtok": 0, "output_usd_per_mtok": 2500, "source": "test"}
    async with server(two_cents) as url:
        task = write_task(tmp_path, items=50, teacher=endpoint(url, price=price, free=False), budget={"usd": "0.10"})
        told = await finish(await start(task, tmp_path / "corpus", 4, 13, 0))
    assert (asked, told) == (5, {"record": 5, "BudgetExhausted": 45})
    with open_corpus(tmp_path / "corpus") as corpus:
        assert settled(corpus, "microusd") == 100_000
        assert states(corpus.journal) == {"settled": 5}


# --- two corpora objects on one folder, which share nothing but the file ----------------------------------------------


async def read(asker: Asker, text: str, **fields: Any) -> int:
    async with answers(asker, [prompt(text, **fields)]) as records:
        return len([record async for record in records])


def intent(asker: Asker, text: str) -> Intent:
    return Intent(
        run_id="r1",
        request_key=prompt(text).request.key,
        teacher="t",
        role="r",
        attempt=1,
        worst=Amounts(tokens=9, requests=1),
        scopes=asker.scopes,
        price_version="v",
    )


async def test_who_waits_for_another_process_asks_itself_when_that_fails(tmp_path: Path) -> None:
    with open_corpus(tmp_path) as one, open_corpus(tmp_path) as other:
        first, second = asker_of(one, saying()), asker_of(other, saying())
        call = await first.ledger.reserve(intent(first, "x"))
        waiting = asyncio.create_task(read(second, "x"))
        await asyncio.sleep(0.2)
        assert second.counts.sent == 0
        refused = RequestRefused("not now")
        await one.journal.run(lambda transaction: first.ledger.failed(transaction, call, refused))
        assert await waiting == 1
        assert second.counts.sent == 1


async def test_what_a_closed_corpus_had_promised_is_taken_over_though_its_process_lives(tmp_path: Path) -> None:
    with open_corpus(tmp_path) as one:
        asker = asker_of(one, saying())
        await asker.ledger.reserve(intent(asker, "x"))
    with open_corpus(tmp_path) as other:
        assert await read(asker_of(other, saying()), "x") == 1
        assert states(other.journal) == {"unknown": 1, "settled": 1}


async def test_a_promise_nobody_will_close_is_booked_as_unknown_and_asked_again(tmp_path: Path) -> None:
    with open_corpus(tmp_path) as corpus:
        asker = asker_of(corpus, saying())
        await asker.ledger.reserve(intent(asker, "x"))
        assert await read(asker, "x") == 1
        assert states(corpus.journal) == {"unknown": 1, "settled": 1}
        assert not violations(corpus.journal)
