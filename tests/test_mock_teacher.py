from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import anthropic
import openai
import pytest
from click.testing import CliRunner
from fault_samples import options
from hypothesis import given
from hypothesis import strategies as st
from teacher_samples import TickingClock, request, spec

from corpusgen.cli.main import corpusgen
from corpusgen.errors import UsageError
from corpusgen.mock.answer import Question, answer_to, read_question
from corpusgen.mock.bill import Bill, Prices
from corpusgen.mock.examples import example
from corpusgen.mock.plan import KINDS, PROFILES, FaultPlan, parse_faults
from corpusgen.mock.server import MockTeacher, RateLimit, mock_teacher
from corpusgen.records import Usage
from corpusgen.teachers.endpoint import connect
from corpusgen.teachers.json_schema import misfits
from corpusgen.teachers.wire import read_completion, request_body

ROOT = Path(__file__).parent.parent


def chat(text: Any, **fields: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": text}], "max_tokens": 8, **fields}


async def post(mock: MockTeacher, asked: Any, *, path: str = "/chat/completions") -> tuple[int, bytes, dict[str, str]]:
    async with aiohttp.ClientSession() as session, session.post(mock.base_url + path, json=asked) as response:
        return response.status, await response.read(), {name.lower(): value for name, value in response.headers.items()}


async def bill(mock: MockTeacher) -> dict[str, Any]:
    async with aiohttp.ClientSession() as session, session.get(mock.base_url.replace("/v1", "/bill")) as response:
        found: dict[str, Any] = await response.json()
    return found


# --- answers ---------------------------------------------------------------------------------------------------------


async def test_the_same_question_gets_the_same_answer_from_every_server() -> None:
    async with mock_teacher() as one, mock_teacher(options(latency_s=0.001)) as other:
        assert (await post(one, chat("a swan")))[1] == (await post(other, chat("a swan")))[1]
        assert (await post(one, chat("a swan")))[1] != (await post(one, chat("a goose")))[1]


async def test_max_tokens_is_honoured_and_said() -> None:
    async with mock_teacher() as mock:
        read = read_completion((await post(mock, chat("a swan", max_tokens=2)))[1], api="chat")
    assert (read.usage.output_tokens, read.finish_reason) == (2, "length")
    assert len(read.text.split()) == 2


@pytest.mark.parametrize("labels", [(), ("animal", "plant")])
async def test_a_completion_comes_with_as_many_runners_up_as_asked_for(labels: tuple[str, ...]) -> None:
    asked = {"model": "m", "prompt": "a swan is", "max_tokens": 3, "logprobs": 2}
    async with mock_teacher(options(labels=labels)) as mock:
        read = read_completion((await post(mock, asked, path="/completions"))[1], api="completion")
    assert read.logprobs is not None
    assert read.logprobs.topk_len[0] == 2
    assert read.text.strip() in labels or not labels


async def test_a_chat_comes_with_log_probabilities_too() -> None:
    async with mock_teacher(options(labels=("animal", "plant"))) as mock:
        body = (await post(mock, chat("a swan", logprobs=True, top_logprobs=5)))[1]
    read = read_completion(body, api="chat")
    assert read.logprobs is not None
    likely = read.logprobs.at(0)
    assert set(likely) == {b"animal", b"plant"}
    assert read.text.encode() == max(likely, key=lambda token: likely[token])


@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=200), most=st.integers(1, 40))
def test_usage_is_within_what_a_client_can_foresee(text: str, most: int) -> None:
    asked = request(text, api="chat", max_tokens=most)
    teacher = connect(spec(base_url="http://127.0.0.1:1/v1"), folder=Path(), clock=TickingClock())
    usage = answer_to(read_question("chat", request_body(asked))).usage
    assert 1 <= usage.input_tokens <= teacher.input_tokens_bound(asked)
    assert 1 <= usage.output_tokens <= most


@pytest.mark.parametrize(
    ("asked", "complaint"),
    [
        ([1], "not an object"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user"}]}, "every content must be text"),
        (chat("x", max_tokens=0), "max_tokens"),
        (chat("x", n=0), "n: a whole number"),
        (chat("x", top_logprobs=3), "needs logprobs"),
        (chat("x", reasoning_effort="low", temperature=1), "'temperature'"),
        (chat([{"type": "image_url", "image_url": {}}]), "reads text only"),
    ],
)
async def test_what_is_no_question_is_refused_and_free(asked: Any, complaint: str) -> None:
    async with mock_teacher() as mock:
        status, body, _ = await post(mock, asked)
        assert (status, complaint in body.decode()) == (400, True)
        assert (await bill(mock))["by_kind"] == {"bad-request": {"requests": 1, "billed_microusd": 0}}


async def test_other_paths_are_named_in_the_refusal() -> None:
    async with mock_teacher() as mock:
        status, body, _ = await post(mock, {}, path="/moderations")
    assert status == 404
    assert b"POST /v1/moderations" in body


# --- the bill --------------------------------------------------------------------------------------------------------


async def test_the_bill_is_the_usage_at_the_price() -> None:
    async with mock_teacher(options()) as mock:
        reads = [read_completion((await post(mock, chat(f"bird {at}")))[1], api="chat").usage for at in range(5)]
        found = await bill(mock)
    given_, answered = sum(read.input_tokens for read in reads), sum(read.output_tokens for read in reads)
    assert found["billed_tokens"] == given_ + answered
    assert found["billed_microusd"] == 10 * given_ + 40 * answered
    assert found["by_kind"] == {"answer": {"requests": 5, "billed_microusd": found["billed_microusd"]}}
    assert list(found["answered"].values()) == [1] * 5


def test_a_bill_is_rounded_once_at_its_end() -> None:
    found = Bill(prices=Prices(input_per_mtok=100_000, output_per_mtok=0))
    for _ in range(10):
        found.charge("answer", "k", Usage(input_tokens=1, output_tokens=0))
    assert (found.microusd, found.tokens, found.charged["k"]) == (1, 10, 10)


async def test_what_the_client_never_got_is_charged_for() -> None:
    async with mock_teacher(options()) as mock:
        with pytest.raises(aiohttp.ClientError):
            await post(mock, chat("fault:close-before-answer"))
        found = await bill(mock)
    assert found["by_kind"]["close-before-answer"]["billed_microusd"] > 0
    assert found["answered"] == {}
    assert list(found["charged"].values()) == [1]


async def test_what_is_refused_is_not_charged_for() -> None:
    async with mock_teacher() as mock:
        await post(mock, chat("fault:500"))
        assert (await bill(mock))["billed_microusd"] == 0
        await post(mock, chat("fault:500-billed"))
        assert (await bill(mock))["billed_microusd"] > 0


async def test_a_client_that_asks_twice_pays_twice() -> None:
    async with mock_teacher() as mock:
        await post(mock, chat("a swan"))
        await post(mock, {**chat("a swan"), "max_tokens": 8})
        found = await bill(mock)
    assert list(found["charged"].values()) == list(found["answered"].values()) == [2]


async def test_a_reset_forgets_the_bill_and_the_tries() -> None:
    async with mock_teacher() as mock:
        assert (await post(mock, chat("fault:503*1")))[0] == 503
        async with aiohttp.ClientSession() as session:
            await session.post(mock.base_url.replace("/v1", "/reset"))
        assert (await bill(mock))["requests"] == 0
        assert (await post(mock, chat("fault:503*1")))[0] == 503


# --- faults ----------------------------------------------------------------------------------------------------------


def test_every_kind_says_what_it_is_in_one_line() -> None:
    assert all(kind.what and "\n" not in kind.what and len(kind.what) < 80 for kind in KINDS.values())
    assert len({kind.what for kind in KINDS.values()}) == len(KINDS)
    assert {name for shares in PROFILES.values() for name in shares} <= set(KINDS)


async def test_a_fault_is_met_as_often_as_the_prompt_says() -> None:
    async with mock_teacher() as mock:
        twice = [(await post(mock, chat("please fault:503*2")))[0] for _ in range(4)]
        always = [(await post(mock, chat("please fault:503")))[0] for _ in range(3)]
        never = (await post(mock, chat("a default:503 is no mark, nor is fault:nothing")))[0]
    assert (twice, always, never) == ([503, 503, 200, 200], [503] * 3, 200)


def question(text: str) -> Question:
    return Question(key=text, api="chat", model="m", text=text, input_tokens=1, max_tokens=1, top_logprobs=None)


def drawn(plan: FaultPlan, count: int) -> Counter[str]:
    found = (plan.fault_of(question(str(at)), 1) for at in range(count))
    return Counter("answer" if kind is None else kind.name for kind in found)


def test_faults_are_drawn_in_their_shares_and_alike_for_a_seed() -> None:
    plan = parse_faults("timeout=0.25,500-billed=0.5", seed=7)
    found = drawn(plan, 2000)
    assert found == drawn(parse_faults("timeout=0.25,500-billed=0.5", seed=7), 2000)
    assert found != drawn(parse_faults("timeout=0.25,500-billed=0.5", seed=8), 2000)
    assert 400 < found["timeout"] < 600
    assert 900 < found["500-billed"] < 1100


def test_each_try_is_drawn_anew() -> None:
    plan = parse_faults("500=0.5")
    assert {plan.fault_of(question("a"), attempt) is None for attempt in range(1, 30)} == {True, False}


def test_a_profile_can_be_added_to() -> None:
    plan = parse_faults("calm, timeout=1e-2")
    assert plan.shares == {**PROFILES["calm"], "timeout": 0.01}
    assert parse_faults("none").shares == {}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("tiemout=0.1", "no fault 'tiemout'.*--list"),
        ("stormy", "neither NAME=SHARE nor a profile"),
        ("timeout=often", "share between 0 and 1"),
        ("timeout=-1", "share between 0 and 1"),
        ("timeout=nan", "share between 0 and 1"),
        ("timeout=0.6,500=0.6", "add up to 1.2"),
        ("connection-refused=0.1", "ask its own address"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(UsageError, match=f"--faults: .*{complaint}"):
        parse_faults(text)


# --- the rate limit --------------------------------------------------------------------------------------------------


async def test_more_than_the_rate_limit_is_told_to_wait_and_not_charged() -> None:
    now = [0.0]
    limit = RateLimit(per_s=2.0, burst=3)
    async with mock_teacher(options(rate_limit=limit, clock=lambda: now[0])) as mock:
        statuses = [(await post(mock, chat(f"bird {at}")))[0] for at in range(4)]
        _, _, headers = await post(mock, chat("bird 9"))
        now[0] = 0.5
        statuses.append((await post(mock, chat("bird 4")))[0])
        found = await bill(mock)
    assert statuses == [200, 200, 200, 429, 200]
    assert (headers["retry-after-ms"], headers["retry-after"]) == ("500", "1")
    assert (headers["x-ratelimit-limit-requests"], headers["x-ratelimit-remaining-requests"]) == ("120", "0")
    assert found["by_kind"]["rate-limited"] == {"requests": 2, "billed_microusd": 0}


# --- the command -----------------------------------------------------------------------------------------------------


@contextmanager
def command(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The command in a process of its own."""
    inherited = os.environ.get("PYTHONPATH", "")
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{inherited}"}
    whole = [sys.executable, "-m", "corpusgen", "mock-teacher", *arguments]
    pipe = subprocess.PIPE
    with subprocess.Popen(whole, stdout=pipe, stderr=pipe, text=True, env=environment) as process:
        try:
            yield process
        finally:
            process.kill()


def line(process: subprocess.Popen[str]) -> dict[str, Any]:
    """The next line it prints."""
    assert process.stdout is not None
    told: dict[str, Any] = json.loads(process.stdout.readline())
    return told


def test_the_command_serves_until_it_is_interrupted_and_prints_its_bill() -> None:
    with command("--labels", "yes,no", "--input-usd-per-mtok", "10") as process:
        mock = MockTeacher(options=options(), base_url=line(process)["base_url"])
        with socket.create_connection(("127.0.0.1", int(mock.base_url.split(":")[2].split("/")[0]))):
            answer = read_completion(asyncio.run(post(mock, chat("a swan")))[1], api="chat")
            process.send_signal(signal.SIGINT)  # while somebody is still on the line
        found = line(process)["bill"]
        assert process.wait(20) == 0
        assert process.stderr is not None
        told = process.stderr.read()
    assert f'Anthropic(base_url="{mock.origin}", api_key="any")' in told
    assert "Traceback" not in told
    assert answer.text in ("yes", "no")
    assert found["requests"] == 1
    assert found["billed_microusd"] == 10 * answer.usage.input_tokens + 4


def test_official_clients_run_against_the_command_batches_included() -> None:
    price = ("--input-usd-per-mtok", "2", "--output-usd-per-mtok", "2")
    with command("--require-key", "k", "--batch-delay", "0", "--token-limit", "5000", "--untold", *price) as process:
        where = line(process)
        with openai.OpenAI(base_url=where["base_url"], api_key="k", max_retries=0) as asking:
            chatted = asking.chat.completions.create(**chat("one"))
            told = {"custom_id": "c", "method": "POST", "url": "/v1/chat/completions", "body": chat("two")}
            source = asking.files.create(file=("in.jsonl", json.dumps(told).encode()), purpose="batch")
            made = asking.batches.create(
                input_file_id=source.id, endpoint="/v1/chat/completions", completion_window="24h"
            )
            batched = asking.batches.retrieve(made.id).usage
        with anthropic.Anthropic(base_url=where["anthropic_base_url"], api_key="k", max_retries=0) as other:
            message = other.messages.create(**chat("three")).usage
        process.send_signal(signal.SIGINT)
        bill = line(process)["bill"]
    assert chatted.usage is not None
    assert batched is not None
    live = chatted.usage.total_tokens + message.input_tokens + message.output_tokens
    assert bill["billed_tokens"] == live + batched.total_tokens
    assert bill["billed_microusd"] == 2 * live + batched.total_tokens
    assert bill["batches"].keys() == {made.id}


def test_the_command_lists_every_fault() -> None:
    listed = CliRunner().invoke(corpusgen, ["mock-teacher", "--list", "--json"])
    assert [kind["name"] for kind in json.loads(listed.stdout)["kinds"]] == list(KINDS)
    told = CliRunner().invoke(corpusgen, ["mock-teacher", "--list"]).stdout
    assert all(f"\n{name} " in f"\n{told}" for name in KINDS)


@pytest.mark.parametrize(
    "arguments", [["--faults", "storm"], ["--burst", "3"], ["--input-usd-per-mtok", "-1"], ["--rate-limit", "0"]]
)
def test_the_command_refuses_what_it_cannot_do(arguments: list[str]) -> None:
    refused = CliRunner().invoke(corpusgen, ["mock-teacher", *arguments])
    assert refused.exit_code != 0
    assert arguments[0] in str(refused.exception) + refused.output


# --- JSON that a schema accepts --------------------------------------------------------------------------------------

LEAVES = st.sampled_from(
    [
        {"type": "string"},
        {"type": "string", "minLength": 12, "maxLength": 14},
        {"type": "string", "enum": ["a", "b"]},
        {"type": "integer", "minimum": 3, "exclusiveMaximum": 5},
        {"type": "integer", "multipleOf": 7, "maximum": -20},
        {"type": "number", "exclusiveMinimum": 0, "maximum": 0.5},
        {"type": ["null", "string"]},
        {"type": "boolean"},
        {"const": {"a": 1}},
        {"anyOf": [{"type": "null"}, {"type": "integer"}]},
        {"$ref": "#/$defs/bird"},
    ]
)
BIRD = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "mate": {"anyOf": [{"$ref": "#/$defs/bird"}, {"type": "null"}]}},
    "required": ["name", "mate"],
    "additionalProperties": False,
}


def arrays(items: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    sizes = {"minItems": st.integers(0, 2), "maxItems": st.integers(2, 4)}
    return st.fixed_dictionaries({"type": st.just("array"), "items": items}, optional=sizes)


def objects(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.dictionaries(st.sampled_from("abc"), values, min_size=1).map(
        lambda properties: {"type": "object", "properties": properties, "required": sorted(properties)}
    )


SCHEMAS = st.recursive(LEAVES, lambda inner: arrays(inner) | objects(inner), max_leaves=8)


@given(schema=SCHEMAS, draws=st.binary(min_size=32, max_size=32))
def test_what_is_filled_in_keeps_to_the_schema(schema: dict[str, Any], draws: bytes) -> None:
    whole = {**schema, "$defs": {"bird": BIRD}}
    assert misfits(whole, example(whole, draws)) == []
