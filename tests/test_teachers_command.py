"""``corpusgen teachers``, as people type it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from command import corpusgen
from flow_samples import open_corpus, write_task

from corpusgen.budget.ledger import balances
from corpusgen.mock.server import mock_teacher


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def test_every_scheme_is_listed() -> None:
    listed = corpusgen("teachers", "list").stdout
    for scheme in ("openai/MODEL", "anthropic/MODEL", "azure/MODEL", "ollama/MODEL", "endpoint/MODEL", "scripted/NAME"):
        assert scheme in listed


def test_what_is_known_of_a_teacher_costs_nothing_and_needs_no_key() -> None:
    found = corpusgen("teachers", "check", "openai/gpt-4.1", "--json").object
    assert (found["top_logprobs"], found["context_tokens"]) == (20, 1_000_000)
    assert found["key"] == "OPENAI_API_KEY (not set)"
    assert found["source"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("opnai/gpt-4.1",), "did you mean openai/MODEL?"),
        (("gpt-4.1",), "neither the file of a task spec nor a teacher's name"),
        (("openai/gpt-4.1", "--live"), "the environment variable 'OPENAI_API_KEY' is not set"),
        (("nowhere.yaml",), "cannot be read"),
    ],
)
def test_what_is_mistyped_or_missing_is_said(arguments: tuple[str, ...], said: str) -> None:
    ran = corpusgen("teachers", "check", *arguments)
    assert ran.code == 2
    assert said in ran.stderr


def test_what_would_cost_money_is_named_before_it_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    ran = corpusgen("teachers", "check", "openai/gpt-4.1", "--live")
    assert ran.code == 2
    assert "6 calls, at most" in ran.stderr
    assert "add --yes" in ran.stderr


@pytest.mark.parametrize(
    ("name", "agreed"), [("openai/gpt-4.1", ["--yes"]), ("anthropic/claude-haiku-4-5", ["--yes"]), ("vllm/m", [])]
)
async def test_a_server_on_this_machine_is_asked_whether_it_is_so(name: str, agreed: list[str]) -> None:
    async with mock_teacher() as mock:
        ran = await asyncio.to_thread(
            corpusgen, "teachers", "check", name, "--base-url", mock.base_url, "--live", "--json", *agreed
        )
    assert ran.code == 0, ran.stderr
    live = ran.object["live"]
    assert (live["ok"], live["calls"]) == (True, mock.bill.requests)


@pytest.mark.parametrize(
    ("arguments", "said"), [((), "add --yes"), (("--yes", "--budget", "usd=1"), "usd cannot be kept to")]
)
async def test_a_proxy_on_this_machine_is_not_taken_to_be_free(arguments: tuple[str, ...], said: str) -> None:
    async with mock_teacher() as mock:
        asked = ("teachers", "check", "litellm/gpt-4o", "--base-url", mock.base_url, "--live", *arguments)
        ran = await asyncio.to_thread(corpusgen, *asked)
    assert (ran.code, mock.bill.requests) == (2, 0)
    assert said in ran.stderr


async def test_where_no_price_is_known_none_is_told_and_a_named_corpus_is_made(tmp_path: Path) -> None:
    async with mock_teacher() as mock:
        asked = ("teachers", "check", "litellm/gpt-4o", "--base-url", mock.base_url, "--live", "--yes")
        ran = await asyncio.to_thread(corpusgen, *asked, "--corpus", tmp_path / "new")
    assert ran.code == 0, ran.stderr
    assert "no price is known" in ran.stdout
    assert "$0" not in ran.stdout
    assert (tmp_path / "new" / "journal.sqlite").exists()


async def test_a_teacher_of_a_spec_is_asked_within_a_corpus_and_booked_there(tmp_path: Path) -> None:
    async with mock_teacher() as mock:
        served = {"base_url": mock.base_url, "provider": "corpusgen", "route": "mock", "script": None, "free": False}
        price = {"input_usd_per_mtok": "10", "output_usd_per_mtok": "40", "source": "mock teacher"}
        teacher = {"name": "vllm/m", **served, "price": price, "parameters": {"max_tokens": 64}}
        spec = write_task(tmp_path, items=1, teacher=teacher, budget={"usd": "1"})
        here = ("--corpus", tmp_path / "corpus")
        open_corpus(tmp_path / "corpus").close()
        ran = await asyncio.to_thread(corpusgen, "teachers", "check", spec, "--live", "--budget", "usd=1", *here)
        assert ran.code == 0, ran.stderr
        assert (await asyncio.to_thread(corpusgen, "verify", *here)).code == 0
        with open_corpus(tmp_path / "corpus") as corpus:
            settled = {str(one.unit): one.settled for one in balances(corpus.journal, ["corpus"])}
    assert settled["requests"] == mock.bill.requests == 6
    assert settled["microusd"] > 0
