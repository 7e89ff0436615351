"""Whole runs through each hosted adapter, against the mock teacher: the books are the bill, nothing is asked twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from flow_samples import open_corpus, violations, write_task

from corpusgen.budget.ledger import balances
from corpusgen.mock.bill import Prices
from corpusgen.mock.server import MockTeacher, Options, mock_teacher
from corpusgen.pipeline import run_task
from corpusgen.records import Record
from corpusgen.stages.loading import load_task
from corpusgen.store.shards import read_records

PRICES = Prices(input_per_mtok=10_000_000, output_per_mtok=40_000_000)
WAYS: dict[str, dict[str, Any]] = {
    "chat": {"name": "openai/gpt-4.1"},
    "responses": {"name": "openai/gpt-4.1", "api": "responses"},
    "messages": {"name": "anthropic/claude-haiku-4-5"},
    "vllm": {"name": "vllm/m"},
    "chat by sdk": {"name": "openai/gpt-4.1", "transport": "sdk"},
    "messages by sdk": {"name": "anthropic/claude-haiku-4-5", "transport": "sdk"},
}


def task_of(folder: Path, mock: MockTeacher, way: str, **changes: Any) -> Path:
    price = {"input_usd_per_mtok": "10", "output_usd_per_mtok": "40", "source": "mock teacher"}
    served = {"base_url": mock.base_url, "provider": "corpusgen", "route": "mock", "script": None, "free": False}
    teacher = {**served, "price": price, "parameters": {"max_tokens": 64}, **WAYS[way], **changes.pop("teacher", {})}
    return write_task(folder, items=5, teacher=teacher, budget={"usd": "1"}, **changes)


async def asked(folder: Path, path: Path) -> tuple[list[Record], dict[str, int]]:
    with open_corpus(folder / "corpus") as corpus:
        await run_task(load_task(path), corpus, opened=[])
        assert not violations(corpus.journal)
        booked = {str(one.unit): one.settled + one.unconfirmed for one in balances(corpus.journal, ["corpus"])}
        shards = sorted((folder / "corpus" / "shards").rglob("*.parquet"))
        return sorted(read_records(shards), key=lambda record: record.input), booked


@pytest.mark.parametrize("way", WAYS)
async def test_a_run_books_what_is_billed_and_asks_nothing_twice(way: str, tmp_path: Path) -> None:
    async with mock_teacher(Options(prices=PRICES)) as mock:
        path = task_of(tmp_path, mock, way)
        first, booked = await asked(tmp_path, path)
        again, _ = await asked(tmp_path, path)
    assert len(first) == 5
    assert again == first
    assert (booked["microusd"], booked["requests"]) == (mock.bill.microusd, mock.bill.requests)
    assert mock.bill.requests == 5
    assert all(record.response and record.provider_request_id for record in first)


TOOL = {
    "type": "function",
    "function": {
        "name": "look_up",
        "parameters": {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]},
    },
}
SCHEMA = {
    "type": "object",
    "properties": {"kind": {"type": "string", "enum": ["animal", "plant"]}},
    "required": ["kind"],
    "additionalProperties": False,
}
THINKING: dict[str, dict[str, Any]] = {
    "responses": {"reasoning_effort": "high", "reasoning": {"summary": "auto"}},
    "messages": {"thinking": {"type": "adaptive"}},
}
HOSTED = ["chat", "responses", "messages"]


@pytest.mark.parametrize("way", HOSTED)
async def test_calls_of_tools_come_back_in_one_spelling(way: str, tmp_path: Path) -> None:
    parameters = {"max_tokens": 64, "tool_choice": "required"}
    async with mock_teacher(Options(prices=PRICES)) as mock:
        path = task_of(tmp_path, mock, way, tools=[TOOL], teacher={"parameters": parameters})
        records, _ = await asked(tmp_path, path)
    for record in records:
        (call,) = orjson.loads(record.tool_calls or "[]")
        assert (call["type"], call["function"]["name"], record.finish_reason) == ("function", "look_up", "tool_calls")
        assert "word" in orjson.loads(call["function"]["arguments"])


@pytest.mark.parametrize("way", HOSTED)
async def test_a_schema_is_kept_to(way: str, tmp_path: Path) -> None:
    async with mock_teacher(Options(prices=PRICES)) as mock:
        records, _ = await asked(tmp_path, task_of(tmp_path, mock, way, answer_schema=SCHEMA))
    assert all(orjson.loads(record.response)["kind"] in ("animal", "plant") for record in records)


@pytest.mark.parametrize("way", THINKING)
async def test_thinking_is_on_record_as_a_summary(way: str, tmp_path: Path) -> None:
    name = {"responses": "openai/gpt-5.4", "messages": "anthropic/claude-sonnet-5"}[way]
    parameters = {"max_tokens": 2_000, **THINKING[way]}
    async with mock_teacher(Options(prices=PRICES)) as mock:
        path = task_of(tmp_path, mock, way, teacher={"name": name, "parameters": parameters})
        records, booked = await asked(tmp_path, path)
    assert {record.trace_kind for record in records} == {"summary"}
    assert all(record.reasoning for record in records)
    assert booked["microusd"] == mock.bill.microusd


@pytest.mark.parametrize("way", WAYS)
async def test_an_answer_without_a_count_is_kept_and_booked_at_its_worst(way: str, tmp_path: Path) -> None:
    async with mock_teacher(Options(prices=PRICES)) as mock:
        path = task_of(tmp_path, mock, way)
        (tmp_path / "words.jsonl").write_text('{"id": "w0", "word": "fault:usage-missing*1"}')
        (record,), booked = await asked(tmp_path, path)
    assert record.output_tokens == 64
    assert mock.bill.requests == 1
    assert booked["microusd"] > mock.bill.microusd
