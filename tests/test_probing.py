from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web
from flow_samples import open_corpus, violations
from teacher_samples import TickingClock, chat_reply, ranked, server, spec

from corpusgen.budget.ledger import balances
from corpusgen.budget.rate import Rate
from corpusgen.errors import UsageError
from corpusgen.stages.checking import probe_named
from corpusgen.stages.probing import Finding, Prober
from corpusgen.teachers.registry import open_teacher

PRICED = Rate(input_per_mtok=1_000_000, output_per_mtok=2_000_000, version="test")
Change = Callable[[dict[str, Any], dict[str, Any]], None]


def honest(asked: dict[str, Any]) -> dict[str, Any]:
    """What a good server says: in time, with what was asked for, the same at the same seed."""
    body = chat_reply({"content": "yes"}, model=asked["model"])
    if asked["max_tokens"] < 32:
        body["usage"] |= {"completion_tokens": asked["max_tokens"]}
    if "top_logprobs" in asked:
        body["choices"][0]["logprobs"] = ranked(("yes", -0.5), ("no", -1.5))
    body["choices"] *= asked.get("n", 1)
    return body


@asynccontextmanager
async def prober(change: Change = lambda asked, body: None, **fields: Any) -> AsyncIterator[Prober]:
    async def handler(request: web.Request) -> web.Response:
        asked = orjson.loads(await request.read())
        body = honest(asked)
        change(asked, body)
        return web.json_response(body)

    async with server(handler) as url:
        teacher = open_teacher(spec("vllm/m", base_url=url), folder=Path(), clock=TickingClock())
        try:
            yield Prober(teacher=teacher, rate=PRICED, **fields)
        finally:
            await teacher.aclose()


async def found(change: Change = lambda asked, body: None) -> dict[str, Finding]:
    async with prober(change) as asking:
        return {one.check: one for one in (await asking.probe()).findings}


async def test_a_teacher_that_keeps_its_word_is_as_said() -> None:
    async with prober() as asking:
        probe = await asking.probe()
    assert probe.ok
    assert probe.calls == 6
    assert {one.check for one in probe.findings if one.outcome == "as said"} >= {
        *("answer", "model", "usage", "input bound", "max_tokens", "logprobs", "seed", "choices"),
    }


def another_model(asked: dict[str, Any], body: dict[str, Any]) -> None:
    body["model"] = "somebody-else-7b"


def no_count(asked: dict[str, Any], body: dict[str, Any]) -> None:
    del body["usage"]


def too_likely(asked: dict[str, Any], body: dict[str, Any]) -> None:
    body["choices"][0]["logprobs"] = ranked(("yes", -0.1), ("no", -0.1))


def silent(asked: dict[str, Any], body: dict[str, Any]) -> None:
    body["choices"][0]["logprobs"] = None


def one_of_several(asked: dict[str, Any], body: dict[str, Any]) -> None:
    del body["choices"][1:]


def endless(asked: dict[str, Any], body: dict[str, Any]) -> None:
    body["usage"]["completion_tokens"] = 400


def different() -> Change:
    seen: list[int] = []

    def change(asked: dict[str, Any], body: dict[str, Any]) -> None:
        seen.append(1)
        body["choices"][0]["message"]["content"] = f"answer {len(seen)}"

    return change


@pytest.mark.parametrize(
    ("change", "check", "said"),
    [
        (another_model, "model", "somebody-else-7b"),
        (no_count, "usage", "no count came"),
        (too_likely, "logprobs", "add up to at most 1.8"),
        (silent, "logprobs", "none came"),
        (one_of_several, "choices", "1 of 2 answers came in one call"),
        (endless, "max_tokens", "400 tokens of at most 16"),
        (different(), "seed", "at the same seed"),
    ],
)
async def test_what_is_otherwise_than_said_is_named(change: Change, check: str, said: str) -> None:
    finding = (await found(change))[check]
    assert (finding.outcome, said in finding.said) == ("not as said", True)


async def test_a_server_that_is_down_is_a_finding() -> None:
    async with prober() as asking:
        pass
    probe = await asking.probe()
    assert not probe.ok
    assert probe.microusd == 0
    assert all("NotSent" in one.said for one in probe.findings if one.outcome == "failed")


async def test_in_a_corpus_every_call_is_booked(tmp_path: Path) -> None:
    with open_corpus(tmp_path) as corpus:
        async with prober(corpus=corpus) as asking:
            probe = await asking.probe()
        settled = {one.unit: one.settled for one in balances(corpus.journal, ["corpus"])}
        assert (settled["requests"], settled["microusd"]) == (6, probe.microusd)
        assert not violations(corpus.journal)
    assert probe.microusd


Ask = Callable[..., Awaitable[Any]]


@pytest.mark.parametrize(
    ("agreed", "caps", "said"),
    [
        (False, {}, "add --yes to agree"),
        (False, {"microusd": 1}, "which is above it"),
        (True, {"requests": 1}, "above it"),
    ],
)
async def test_what_costs_money_wants_a_word_first(
    agreed: bool, caps: Any, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    with pytest.raises(UsageError, match=said):
        await probe_named(spec("openai/gpt-4.1"), None, agreed=agreed, caps=caps)
