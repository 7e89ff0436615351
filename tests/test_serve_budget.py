"""Money at the gateway: no cap is passed, by the mock teacher's own bill, and a refusal tells the figures."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from gateway_samples import Gateway, chat, gateway, gateway_with_mock, offer, write_config

from corpusgen.budget.ledger import Cap, Ledger
from corpusgen.corpus import Corpus
from corpusgen.errors import SpecError
from corpusgen.fields import Per
from corpusgen.mock.server import Options, mock_teacher
from corpusgen.stages.budgeting import set_budget
from corpusgen.stages.verifying import verify


async def asked(gate: Gateway, text: str, **headers: str) -> tuple[int, Any, Any]:
    """Status, body and headers of a chat."""
    async with gate.http.post("/v1/chat/completions", json=chat(text), headers=headers) as response:
        return response.status, await response.json(), response.headers


async def cap(gate: Gateway, scope: str, microusd: int, per: Per = "total") -> None:
    """An administrator's cap."""
    found = Cap(scope=scope, unit="microusd", cap=microusd, origin="set by the test", per=per)
    await Ledger(gate.corpus.journal).set_caps([found])


async def test_a_budget_holds_under_64_clients_at_once_by_the_teachers_own_bill(tmp_path: Path) -> None:
    async with gateway_with_mock(tmp_path, Options(latency_s=0.01), budget={"usd": 0.006}) as gate:

        async def client(name: int) -> list[int]:
            return [(await asked(gate, f"client {name} asks {at}"))[0] for at in range(4)]

        statuses = [one for of_client in await asyncio.gather(*map(client, range(64))) for one in of_client]
        assert set(statuses) == {200, 402}
        assert 0 < gate.bill["billed_microusd"] <= 6_000
        ((settled, promised),) = gate.rows(
            "select settled, promised from balances where scope = 'service' and unit = 'microusd'"
        )
        assert (settled, promised) == (gate.bill["billed_microusd"], 0)
        assert gate.rows("select count(*) from records") == [(statuses.count(200),)]


async def test_a_second_run_of_the_same_calls_costs_nothing(tmp_path: Path) -> None:
    async with mock_teacher(Options()) as mock:
        bills = []
        for _ in range(2):
            async with gateway(tmp_path, mock) as gate:
                answers = [await asked(gate, f"question {at}") for at in range(20)]
                assert {status for status, *_ in answers} == {200}
            bills.append(mock.bill.to_json()["billed_microusd"])
        assert bills[0] == bills[1] > 0


async def test_a_used_up_cap_is_a_402_with_the_figures_in_both_vendors_words(tmp_path: Path) -> None:
    async with gateway_with_mock(tmp_path, budget={"usd": 0.0001}) as gate:
        status, body, headers = await asked(gate, "Too dear")
        assert (status, headers["x-should-retry"]) == (402, "false")
        assert body["error"]["code"] == "insufficient_quota"
        figures = body["error"]["corpusgen"]["budget"]
        assert (figures["scope"], figures["cap"], figures["settled"]) == ("service", 100, 0)
        assert figures["needed"] > 100
        turns = {"model": "mock-teacher", "max_tokens": 64, "messages": [{"role": "user", "content": "Too dear"}]}
        async with gate.http.post("/v1/messages", json=turns) as response:
            assert (response.status, (await response.json())["error"]["type"]) == (402, "billing_error")
        assert gate.bill["requests"] == 0


async def test_a_cap_of_a_day_frees_by_itself_so_clients_are_told_when(tmp_path: Path) -> None:
    async with gateway_with_mock(tmp_path) as gate:
        await cap(gate, "service", 400, "day")
        statuses = [(await asked(gate, f"day {at}"))[0] for at in range(8)]
        assert statuses[0] == 200
        status, body, headers = await asked(gate, "one more")
        assert status == 429
        assert 0 < int(headers["Retry-After"]) <= 86_401
        assert headers["x-should-retry"] == ("true" if int(headers["Retry-After"]) <= 60 else "false")
        assert body["error"]["corpusgen"]["budget"]["per"] == "day"


async def test_what_a_user_spends_is_booked_for_him_and_his_cap_binds_only_him(tmp_path: Path) -> None:
    async with gateway_with_mock(tmp_path) as gate:
        await cap(gate, "user:ann", 0)
        assert (await asked(gate, "Ann asks", **{"x-corpusgen-user": "ann"}))[0] == 402
        assert (await asked(gate, "Bob asks", **{"x-corpusgen-user": "bob"}))[0] == 200
        spent = gate.bill["billed_microusd"]
        scopes = ("corpus", "service", "teacher:endpoint/mock-teacher", "token:local", "user:bob")
        rows = dict(gate.rows("select scope, settled from balances where unit = 'microusd' and settled > 0"))
        assert rows.keys() >= set(scopes)
        assert all(rows[scope] == spent for scope in scopes)


async def test_an_administrators_cap_outlives_the_files_until_it_is_removed(tmp_path: Path) -> None:
    async with mock_teacher(Options()) as mock:
        async with gateway(tmp_path, mock) as gate:
            assert gate.rows("select cap from caps where scope = 'service'") == [(5_000_000,)]
            await cap(gate, "service", 7_000_000)
        async with gateway(tmp_path, mock) as gate:
            assert gate.rows("select cap from caps where scope = 'service'") == [(7_000_000,)]
            gate.corpus.journal.run_now(lambda transaction: transaction.execute("delete from caps").close())
        async with gateway(tmp_path, mock, budget={"usd": 3}) as gate:
            assert gate.rows("select cap from caps where scope = 'service'") == [(3_000_000,)]


def in_dollars(gate: Gateway) -> list[tuple[Any, ...]]:
    """The service's caps in micro-dollars."""
    return gate.rows("select cap from caps where scope = 'service' and unit = 'microusd'")


async def test_a_cap_that_is_taken_away_leaves_the_files_in_force_at_once(tmp_path: Path) -> None:
    async with gateway_with_mock(tmp_path, budget={"usd": 0.0005}) as gate:
        assert (await asked(gate, "Under the file's"))[0] == 200
        set_budget(gate.corpus, "service", {"microusd": 7_000_000}, by="root")
        assert in_dollars(gate) == [(7_000_000,)]
        done = set_budget(gate.corpus, "service", {"microusd": None}, by="root")
        assert any("$0.000500 hold again, as" in warning for warning in done.warnings)
        assert in_dollars(gate) == [(500,)]
        statuses = [(await asked(gate, f"Under the file's again {at}"))[0] for at in range(9)]
        assert statuses[-1] == 402
        assert gate.bill["billed_microusd"] <= 500


async def test_a_cap_that_another_process_takes_away_leaves_the_files_in_force(tmp_path: Path) -> None:
    async with gateway_with_mock(tmp_path) as gate:
        command = (sys.executable, "-m", "corpusgen", "budget", "set", "service", "usd=none")
        process = await asyncio.create_subprocess_exec(
            *command, "--corpus", str(tmp_path / "corpus"), stdout=asyncio.subprocess.PIPE
        )
        said, _ = await process.communicate()
        assert (process.returncode, b"$5.000000" in said) == (0, True)
        assert in_dollars(gate) == [(5_000_000,)]


async def test_without_any_cap_in_dollars_nothing_that_costs_is_asked_and_what_is_known_is_given(
    tmp_path: Path,
) -> None:
    async with mock_teacher(Options()) as mock:
        with Corpus.open(tmp_path / "corpus") as corpus:
            set_budget(corpus, "corpus", {"microusd": 1_000_000})
        async with gateway(tmp_path, mock, budget={}) as gate:
            assert (await asked(gate, "Known"))[0] == 200
            set_budget(gate.corpus, "corpus", {"microusd": None})
            status, body, _ = await asked(gate, "New")
            assert (status, "no cap in dollars" in body["error"]["message"]) == (402, True)
            async with gate.http.post("/v1/chat/completions", json=chat("Known", user="other bytes")) as response:
                assert (response.status, response.headers["x-corpusgen-cache"]) == (200, "hit")
            async with gate.http.post("/v1/embeddings", json={"model": "mock-teacher", "input": "New"}) as response:
                assert response.status == 402
        assert mock.bill.to_json()["requests"] == 1


async def test_a_service_that_waits_uses_up_no_time(tmp_path: Path) -> None:
    async with gateway_with_mock(tmp_path) as gate:
        await asked(gate, "Quick")
        await asyncio.sleep(1.2)
    with Corpus.open(tmp_path / "corpus") as corpus:
        ((worked_us,),) = corpus.journal.query("select sum(wall_us) from spans")
        assert 0 < worked_us < 1_000_000


async def test_time_worked_counts_against_a_cap_on_it(tmp_path: Path) -> None:
    async with gateway_with_mock(tmp_path, Options(latency_s=0.3), budget={"usd": 5, "wall_s": 0.2}) as gate:
        assert (await asked(gate, "Slow"))[0] == 200
        await gate.service.desk._note()
        assert (await asked(gate, "Too late"))[0] == 402


async def test_a_teacher_that_may_cost_without_bound_is_refused_before_anything_listens(tmp_path: Path) -> None:
    async with mock_teacher(Options()) as mock:
        with pytest.raises(SpecError, match=r"service\.yaml:\d+: budget: endpoint/mock-teacher costs money"):
            async with gateway(tmp_path, mock, offer(mock), budget={}):
                pass


async def test_killed_during_200_streams_it_goes_on_under_the_same_cap_and_records_nothing_twice(
    tmp_path: Path,
) -> None:
    async with mock_teacher(Options(latency_s=0.5)) as mock:
        config = write_config(tmp_path, offer(mock, in_flight=300), budget={"usd": 0.05})
        bodies = [chat(f"stream {at}", stream=True) for at in range(200)]
        async with child(tmp_path, config) as (url, process):
            before = [asyncio.create_task(streamed(url, body)) for body in bodies]
            while mock.bill.to_json()["requests"] < 100:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
            process.kill()
            await asyncio.gather(*before, return_exceptions=True)
        async with child(tmp_path, config) as (url, process):
            statuses = [await streamed(url, body) for body in bodies[:40]]
            process.terminate()
            assert await process.wait() == 0
        assert set(statuses) <= {200, 402}
        assert mock.bill.to_json()["billed_microusd"] <= 50_000
    with Corpus.open(tmp_path / "corpus") as corpus:
        answered, recorded = corpus.journal.query("select (select count(*) from answers), count(*) from records")[0]
        assert answered == recorded >= statuses.count(200)
        assert corpus.journal.query("select count(*) from calls where state = 'promised'") == [(0,)]
        assert verify(corpus) == []


async def streamed(url: str, body: dict[str, Any]) -> int:
    """The status of a stream that was read to its end."""
    async with aiohttp.ClientSession() as http, http.post(f"{url}/v1/chat/completions", json=body) as response:
        await response.read()
        return response.status


@asynccontextmanager
async def child(folder: Path, config: Path) -> AsyncIterator[tuple[str, asyncio.subprocess.Process]]:
    """``corpusgen serve`` in a process of its own."""
    command = ("-m", "corpusgen", "serve", "--corpus", str(folder / "corpus"), "--config", str(config), "--port", "0")
    quiet = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, "--json", stdout=asyncio.subprocess.PIPE, stderr=quiet
    )
    assert process.stdout is not None
    try:
        yield json.loads(await process.stdout.readline())["url"], process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
