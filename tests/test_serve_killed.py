"""kill -9 of the service while it streams to 200 clients: what was paid is kept or owed, and nothing is there twice."""

from __future__ import annotations

import asyncio
import json
import signal
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp
from serve_samples import ANTHROPIC, OPENAI, USE, Child, mock_child, served_by_child

from corpusgen.budget.ledger import balances
from corpusgen.corpus import Corpus
from corpusgen.stages.verifying import verify

STREAMS = 200
CAP = 300_000
"""Micro-dollars: enough for all of them, with what may be owed for those that were cut off."""


def config(base_url: str) -> str:
    teachers = "".join(
        f"  - name: {name}\n    model: {model}\n    base_url: {base_url}\n    provider: corpusgen\n    route: mock\n"
        '    in_flight: 256\n    price: {input_usd_per_mtok: "1", output_usd_per_mtok: "4", source: mock}\n'
        "    parameters: {max_tokens: 32}\n"
        for name, model in (("endpoint/mock-model", OPENAI), ("anthropic/claude-mock", ANTHROPIC))
    )
    return f"{USE}\nbudget: {{usd: {CAP / 1e6}}}\nlimits: {{in_flight: 256}}\nteachers:\n{teachers}"


def call(at: int) -> tuple[str, dict[str, Any]]:
    """The so-manieth call; every second one is answered a byte at a time, the first time it is asked."""
    text = f"Say something about {at}." + (" fault:slow-body*1" if at % 2 else "")
    body = {"max_tokens": 16, "stream": True, "messages": [{"role": "user", "content": text}]}
    if at % 4 < 2:
        return "/v1/chat/completions", {"model": OPENAI, **body}
    return "/v1/messages", {"model": ANTHROPIC, **body}


async def streamed(client: aiohttp.ClientSession, child: Child, at: int, begun: Counter[str]) -> str:
    """One stream: whole, cut, or what it was refused with."""
    path, body = call(at)
    try:
        async with client.post(child.url + path, json=body) as answer:
            if answer.status != 200:
                return f"{answer.status}: {(await answer.text())[:200]}"
            begun["open"] += 1
            told = (await answer.content.read()).decode()
    except aiohttp.ClientError:
        return "cut"
    return "whole" if "[DONE]" in told or "message_stop" in told else "cut"


async def all_streams(child: Child, *, kill_after: int = 0) -> Counter[str]:
    """Every call at once; the service is killed once so many are being answered."""
    begun: Counter[str] = Counter()
    connector = aiohttp.TCPConnector(limit=STREAMS)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(120)) as client:
        asking = [asyncio.create_task(streamed(client, child, at, begun)) for at in range(STREAMS)]
        if kill_after:
            while begun["open"] < kill_after and not all(one.done() for one in asking):  # noqa: ASYNC110 - no event
                await asyncio.sleep(0.01)
            await asyncio.to_thread(child.end, signal.SIGKILL)
        return Counter(await asyncio.gather(*asking))


def bill_of(mock: dict[str, Any]) -> int:
    with urllib.request.urlopen(f"{mock['anthropic_base_url']}/bill") as answer:
        return int(json.loads(answer.read())["billed_microusd"])


def money_of(corpus: Corpus) -> tuple[int, int, int]:
    """Settled, promised, unconfirmed of the whole service."""
    [money] = [one for one in balances(corpus.journal, ["service"]) if one.unit == "microusd"]
    return money.settled, money.promised, money.unconfirmed


def test_killed_during_200_streams_nothing_is_lost_recorded_twice_or_beyond_the_cap(tmp_path: Path) -> None:
    folder, file = tmp_path / "corpus", tmp_path / "service.yaml"
    with mock_child("--slow-s", "3") as mock:
        file.write_text(config(mock["base_url"]))
        for kill_after in (STREAMS // 4, 3 * STREAMS // 4):
            with served_by_child(folder, config=file) as child:
                found = asyncio.run(all_streams(child, kill_after=kill_after))
                assert not found.keys() - {"whole", "cut"}, found
        with served_by_child(folder, config=file) as child:
            found = asyncio.run(all_streams(child))
            assert found == {"whole": STREAMS}
            before = bill_of(mock)
            assert asyncio.run(all_streams(child)) == {"whole": STREAMS}
            assert bill_of(mock) == before  # every one of them is known by now
            assert child.end() == 0
        billed = bill_of(mock)
    with Corpus.open(folder) as corpus:
        settled, promised, unconfirmed = money_of(corpus)
        assert promised == 0
        assert unconfirmed > 0  # the kills met calls under way
        assert billed <= settled + unconfirmed <= CAP
        query = corpus.journal.query
        assert query("select count(*), count(distinct request_key) from records") == [(STREAMS, STREAMS)]
        assert query("select count(*) from answers") == [(STREAMS,)]
        assert not verify(corpus)
