"""What a plan says of hosted teachers, without a key and without a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
from flow_samples import open_corpus, write_task

from corpusgen.corpus import utc_now
from corpusgen.errors import SpecError, UnsupportedParameter, UsageError
from corpusgen.records import Request
from corpusgen.stages.loading import load_task
from corpusgen.stages.planning import Plan, plan
from corpusgen.stages.task import check_sizes, connect, request_for
from corpusgen.teachers.batches import Batches, Limits

HOSTED = {"script": None, "free": False}


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "DEEPSEEK_API_KEY"):
        monkeypatch.delenv(name, raising=False)


async def planned(folder: Path, name: str, *, word: str = "a swan", **teacher: Any) -> Plan:
    path = write_task(folder, items=1, teacher={"name": name, "parameters": {"max_tokens": 8}, **HOSTED, **teacher})
    (folder / "words.jsonl").write_text(f'{{"id": "w0", "word": "{word}"}}')
    task = load_task(path)
    with open_corpus(folder / "corpus") as corpus:
        return await plan(task, corpus)


@pytest.mark.parametrize(
    ("name", "terms"),
    [
        ("openai/gpt-4.1", "openai-services-agreement"),
        ("anthropic/claude-sonnet-5-5", "anthropic-usage-policy"),
    ],
)
async def test_a_plan_needs_no_key_for_price_and_terms(name: str, terms: str, tmp_path: Path) -> None:
    found = await planned(tmp_path, name)
    assert found.microusd.high > 0
    assert any(one.startswith(terms) for one in found.decision.terms_ids)
    assert found.decision.outcome in ("allow", "deny", "needs_waiver")


@pytest.mark.parametrize("api", ["chat", "responses"])
async def test_either_api_of_openai_can_be_planned(api: str, tmp_path: Path) -> None:
    assert (await planned(tmp_path, "openai/gpt-5.4", api=api)).to_send == 1


@pytest.mark.parametrize(
    ("name", "fields", "said"),
    [
        ("anthropic/claude-sonnet-5-5", {"temperature": 0.7}, "diversity comes from prompts"),
        ("anthropic/claude-haiku-4-5", {"top_k": 5}, "diversity comes from prompts"),
        ("anthropic/claude-haiku-4-5", {"top_logprobs": 5}, "gives no log-probabilities"),
        ("groq/llama-3.3-70b", {"top_logprobs": 5}, "ask a teacher that gives them"),
        ("openai/o3", {"temperature": 1}, "listens to no sampling"),
        ("openai/gpt-5.4", {"temperature": 1}, "write parameters.reasoning_effort: none"),
        ("openai/gpt-4.1", {"temprature": 1}, "did you mean 'temperature'?"),
        ("openai/gpt-4.1", {"top_logprobs": 50}, "at most 20"),
        ("anthropic/claude-haiku-4-5", {"max_tokens": 10**6}, "at most 64000"),
        ("deepseek/deepseek-v4-flash", {"seed": 7}, "takes none"),
    ],
)
async def test_what_a_teacher_does_not_take_fails_at_plan_with_its_line(
    name: str, fields: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(UnsupportedParameter, match=said) as caught:
        await planned(tmp_path, name, parameters={"max_tokens": 8, **fields})
    line = int(str(caught.value).partition("task.yaml:")[2].partition(":")[0])
    text = (tmp_path / "task.yaml").read_text().splitlines()[line - 1]
    assert next(iter(fields)) in text


async def test_reasoning_told_to_stay_away_lets_a_temperature_pass(tmp_path: Path) -> None:
    parameters = {"max_tokens": 8, "temperature": 1, "reasoning_effort": "none"}
    assert (await planned(tmp_path, "openai/gpt-5.4", parameters=parameters)).to_send == 1


async def test_an_older_api_version_still_takes_a_temperature_from_older_models(tmp_path: Path) -> None:
    fields: dict[str, Any] = {"api_version": "2023-06-01", "parameters": {"max_tokens": 8, "temperature": 0.5}}
    assert (await planned(tmp_path, "anthropic/claude-haiku-4-5", **fields)).to_send == 1
    with pytest.raises(UnsupportedParameter, match="under any API version"):
        await planned(tmp_path, "anthropic/claude-sonnet-5-5", **fields)


async def test_a_model_that_only_one_api_serves_is_not_asked_by_the_other(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedParameter, match=r"api: openai/o3-pro is not served by chat; write api: responses"):
        await planned(tmp_path, "openai/o3-pro")


async def test_a_version_where_there_are_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no versions to choose from"):
        await planned(tmp_path, "openai/gpt-4.1", api_version="2024-10-21")


async def test_a_request_of_more_bytes_than_are_taken_fails_at_plan_with_its_item(tmp_path: Path) -> None:
    with pytest.raises(
        UnsupportedParameter, match=r"item 'w0': .*takes requests of at most 33,554,432 bytes"
    ) as caught:
        await planned(tmp_path, "anthropic/claude-opus-5", word="swan " * 6_800_000)
    line = int(str(caught.value).partition("task.yaml:")[2].partition(":")[0])
    assert "train" in (tmp_path / "task.yaml").read_text().splitlines()[line - 1]


class SmallBatches:
    """Batches that hold very little."""

    limits = Limits(lines=10, size_bytes=100)

    def line(self, custom_id: str, request: Request) -> bytes:
        return request.body


def test_a_request_that_no_batch_can_hold_fails_with_its_item(tmp_path: Path) -> None:
    task = load_task(write_task(tmp_path, items=1))
    teacher = connect(task, utc_now, sending=False)
    item = next(iter(task.prompter.items("train")))
    request = request_for(task, teacher.card, item, 0)
    check_sizes(task, teacher, item, request, None)
    with pytest.raises(UnsupportedParameter, match=r"task.yaml:\d+: item 'w0000': a batch of .* at most 100 bytes"):
        check_sizes(task, teacher, item, request, cast("Batches", SmallBatches()))


async def test_a_prompt_that_no_answer_fits_behind_fails_at_plan(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedParameter, match=r"context window of 8,192 tokens: the prompt that begins"):
        await planned(tmp_path, "openai/gpt-4", word="swan " * 9_000)
    with pytest.raises(UnsupportedParameter, match=r"context window of 200,000 tokens.*shorten"):
        await planned(tmp_path, "anthropic/claude-haiku-4-5", word="swan " * 450_000)
    assert (await planned(tmp_path, "anthropic/claude-haiku-4-5", word="swan " * 50_000)).to_send == 1


SCHEMA = {"type": "object", "properties": {"kind": {"type": "string"}}, "required": ["kind"]}
TOOL = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}


def test_a_schema_and_tools_of_a_spec_go_with_every_request(tmp_path: Path) -> None:
    chosen = {"name": "openai/gpt-4.1", "parameters": {"max_tokens": 8}, **HOSTED}
    task = load_task(write_task(tmp_path, items=1, teacher=chosen, answer_schema=SCHEMA, tools=[TOOL]))
    item = next(iter(task.prompter.items("train")))
    request = request_for(task, connect(task, utc_now, sending=False).card, item, 0)
    assert (request.schema, request.tools) == (SCHEMA, [TOOL])


def test_a_labelling_task_has_neither(tmp_path: Path) -> None:
    labels: dict[str, Any] = {"kind": "label", "labels": {"names": ["a", "b"]}, "asking": {"order": "file"}}
    with pytest.raises(SpecError, match="answer_schema is for kind: response"):
        load_task(write_task(tmp_path, items=1, answer_schema=SCHEMA, **labels))
