"""Chains, mixtures and second turns against mock teachers: what is booked is what they bill."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from flow_samples import write_task
from test_hosted_runs import PRICES, SCHEMA, WAYS, asked

from corpusgen.mock.plan import parse_faults
from corpusgen.mock.server import MockTeacher, Options, mock_teacher

PRICE = {"input_usd_per_mtok": "10", "output_usd_per_mtok": "40", "source": "mock teacher"}


def served_by(mock: MockTeacher | str, way: str, **fields: Any) -> dict[str, Any]:
    """A teacher that a mock teacher stands in for."""
    url = mock if isinstance(mock, str) else mock.base_url
    named = {"base_url": url, "provider": "corpusgen", "route": "mock", "price": dict(PRICE)}
    return named | {"parameters": {"max_tokens": 64}, **WAYS[way], **fields}


def task_of(folder: Path, *teachers: dict[str, Any], items: int = 40, **changes: Any) -> Path:
    return write_task(folder, items=items, teachers=list(teachers), budget={"usd": "1"}, **changes)


@pytest.mark.parametrize("way", WAYS)
async def test_what_one_refuses_another_answers_and_both_bills_add_up(way: str, tmp_path: Path) -> None:
    refusing = Options(prices=PRICES, plan=parse_faults("refusal=0.3,400=0.2"))
    other = "vllm" if way != "vllm" else "messages"
    async with mock_teacher(refusing) as first, mock_teacher(Options(prices=PRICES)) as second:
        path = task_of(tmp_path, served_by(first, way), served_by(second, other))
        records, booked = await asked(tmp_path, path)
        bill = first.bill.microusd + second.bill.microusd, first.bill.requests + second.bill.requests
        again, _ = await asked(tmp_path, path)
        assert again == records
        assert first.bill.requests + second.bill.requests == bill[1]
    roles = Counter(record.teacher_role for record in records)
    assert len(records) == 40
    assert roles["fallback"] == second.bill.requests > 5
    assert (booked["microusd"], booked["requests"]) == bill
    assert sum(record.cost_microusd for record in records) == bill[0]
    assert all(record.finish_reason == "stop" for record in records)


async def test_a_server_that_is_down_costs_no_prompt(tmp_path: Path) -> None:
    async with mock_teacher(Options(prices=PRICES)) as second:
        path = task_of(tmp_path, served_by("http://127.0.0.1:9/v1", "chat"), served_by(second, "vllm"), items=5)
        records, _ = await asked(tmp_path, path)
    assert [record.teacher for record in records] == ["vllm/m"] * 5


async def test_a_mixture_of_three_wire_formats_books_each_teachers_bill(tmp_path: Path) -> None:
    async with mock_teacher(Options(prices=PRICES)) as one, mock_teacher(Options(prices=PRICES)) as two:
        teachers = [
            served_by(one, "chat", weight=1),
            served_by(two, "messages", weight=2),
            served_by(two, "vllm", weight=0),
        ]
        records, booked = await asked(tmp_path, task_of(tmp_path, *teachers, items=60))
    asked_of = Counter(record.teacher for record in records)
    assert asked_of["openai/gpt-4.1"] == one.bill.requests
    assert asked_of["anthropic/claude-haiku-4-5"] == two.bill.requests
    assert asked_of["openai/gpt-4.1"] < asked_of["anthropic/claude-haiku-4-5"]
    assert booked["microusd"] == one.bill.microusd + two.bill.microusd


async def test_who_keeps_to_no_schema_is_asked_twice_and_its_last_answer_is_kept_as_failed(tmp_path: Path) -> None:
    async with mock_teacher(Options(prices=PRICES)) as mock:
        teacher = served_by(mock, "vllm", name="deepseek/deepseek-v4-flash")
        path = task_of(tmp_path, teacher, items=10, answer_schema=SCHEMA)
        records, booked = await asked(tmp_path, path)
    assert mock.bill.requests == 20
    assert booked["microusd"] == mock.bill.microusd == sum(record.cost_microusd for record in records)
    assert {(len(record.request_keys), record.structured, record.verdicts[0].kept) for record in records} == {
        (2, None, False)
    }
    assert {message.role for record in records for message in record.messages} == {"user"}


async def test_a_second_corpus_is_answered_from_the_first_ones_chain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CORPUSGEN_CACHE", str(tmp_path / "cache"))
    refusing = Options(prices=PRICES, plan=parse_faults("refusal=0.4"))
    async with mock_teacher(refusing) as first, mock_teacher(Options(prices=PRICES)) as second:
        path = task_of(tmp_path / "a", served_by(first, "chat"), served_by(second, "vllm"), items=20)
        bought, _ = await asked(tmp_path / "a", path)
        bill = first.bill.requests + second.bill.requests
        shared, booked = await asked(tmp_path / "b", path)
        assert first.bill.requests + second.bill.requests == bill > 20
    assert booked.get("microusd", 0) == 0
    assert [(record.record_id, record.teacher, record.teacher_role, record.request_keys) for record in shared] == [
        (record.record_id, record.teacher, record.teacher_role, record.request_keys) for record in bought
    ]
