"""The official SDKs and our adapters at one server: equal requests, answers and decisions to ask again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anthropic
import conversation_samples as samples
import openai
import orjson
import pytest
from aiohttp import web
from conversation_samples import given_turn
from teacher_samples import TickingClock, chat_reply, claude, ranked, reply, response, server, spec

from corpusgen.errors import TeacherError, TeacherFault
from corpusgen.records import Completion, Message, Request
from corpusgen.teachers.registry import open_teacher

TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "How it is outside",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
SCHEMA = {
    "type": "object",
    "properties": {"kind": {"type": "string", "enum": ["animal", "food"]}},
    "required": ["kind"],
    "additionalProperties": False,
}
TURNS = (
    Message(role="user", content="Define: a swan"),
    Message(role="assistant", content="A bird."),
    Message(role="user", content="Which kind?"),
)
SAID = [{"role": turn.role, "content": turn.content} for turn in TURNS]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One feature of one provider: how the SDK is called, what the server says, what must come out of both."""

    call: dict[str, Any]
    body: dict[str, Any]
    parameters: dict[str, Any] = field(default_factory=dict)
    schema: Any = None
    tools: Any = None
    system: str | None = None
    turns: tuple[Message, ...] = TURNS


@dataclass(frozen=True, kw_only=True)
class Sides:
    """What both sides sent and got."""

    sent: list[tuple[str, Any]]
    sdk: Any
    read: tuple[Completion, ...]

    def check_same_request(self) -> None:
        theirs, ours, ours_by_sdk = self.sent
        assert ours == theirs
        assert ours_by_sdk == theirs


@asynccontextmanager
async def listening(body: Any) -> AsyncIterator[tuple[str, list[tuple[str, Any]]]]:
    """A server that says the same to everybody and notes what it was asked."""
    sent: list[tuple[str, Any]] = []

    async def handler(asked: web.Request) -> web.Response:
        sent.append((asked.path, orjson.loads(await asked.read())))
        return web.Response(body=orjson.dumps(body), content_type="application/json")

    async with server(handler) as url:
        yield url, sent


Ask = Callable[[str, dict[str, Any]], Awaitable[Any]]


async def chat(url: str, call: dict[str, Any]) -> Any:
    async with openai.AsyncOpenAI(base_url=url, api_key="k", max_retries=0) as client:
        return await client.chat.completions.create(model="m", **call)


async def responses(url: str, call: dict[str, Any]) -> Any:
    async with openai.AsyncOpenAI(base_url=url, api_key="k", max_retries=0) as client:
        return await client.responses.create(model="m", **call)


async def messages(url: str, call: dict[str, Any]) -> Any:
    async with anthropic.AsyncAnthropic(base_url=url.removesuffix("/v1"), api_key="k", max_retries=0) as client:
        return await client.messages.create(model="m", **call)


async def both(name: str, case: Case, ask: Ask, **fields: Any) -> Sides:
    """The SDK first, then ours, without and with ``transport: sdk``."""
    async with listening(case.body) as (url, sent):
        sdk = await ask(url, case.call)
        read = await ours(name, case, url, **fields)
        assert await ours(name, case, url, transport="sdk", **fields) == read
    return Sides(sent=sent, sdk=sdk, read=read)


async def ours(name: str, case: Case, url: str, **fields: Any) -> tuple[Completion, ...]:
    teacher = open_teacher(spec(name, base_url=url, **fields), folder=Path(), clock=TickingClock())
    system = () if case.system is None else (Message(role="system", content=case.system),)
    asked = Request(
        teacher=teacher.card.identity,
        model="m",
        api=teacher.card.chat_api,
        messages=(*system, *case.turns),
        parameters={"max_tokens": 64, **case.parameters},
        schema=case.schema,
        tools=case.tools,
    )
    try:
        return teacher.read_choices(asked, await teacher.ask(asked, timeout_s=20))
    finally:
        await teacher.aclose()


# --- Chat Completions ------------------------------------------------------------------------------------------------

USAGE = {
    "prompt_tokens": 40,
    "completion_tokens": 9,
    "total_tokens": 49,
    "prompt_tokens_details": {"cached_tokens": 16, "cache_write_tokens": 8},
    "completion_tokens_details": {"reasoning_tokens": 5},
}
CALLS = [{"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Ulm"}'}}]
BARE = {"messages": SAID, "max_completion_tokens": 64}


def several(count: int) -> dict[str, Any]:
    choices = [
        {"index": at, "finish_reason": "stop", "message": {"role": "assistant", "content": f"answer {at}"}}
        for at in range(count)
    ]
    return reply(choices=choices)


def with_logprobs() -> dict[str, Any]:
    body = chat_reply()
    body["choices"][0]["logprobs"] = ranked(("an", -0.25), ("the", -2.0))
    return body


CHAT = {
    "plain": Case(call=BARE, body=chat_reply(system_fingerprint="fp_1", service_tier="default")),
    "system": Case(
        call={**BARE, "messages": [{"role": "system", "content": "Be brief."}, *SAID]},
        body=chat_reply(),
        system="Be brief.",
    ),
    "tools": Case(
        call={**BARE, "tools": [TOOL], "tool_choice": "required"},
        body=chat_reply({"content": None, "tool_calls": CALLS}, "tool_calls"),
        parameters={"tool_choice": "required"},
        tools=[TOOL],
    ),
    "schema": Case(
        call={
            **BARE,
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "answer", "strict": True, "schema": SCHEMA},
            },
        },
        body=chat_reply({"content": '{"kind": "animal"}'}),
        schema=SCHEMA,
    ),
    "logprobs": Case(
        call={**BARE, "logprobs": True, "top_logprobs": 2, "temperature": 0},
        body=with_logprobs(),
        parameters={"top_logprobs": 2, "temperature": 0},
    ),
    "several": Case(call={**BARE, "n": 3}, body=several(3), parameters={"n": 3}),
    "thinking": Case(
        call={**BARE, "reasoning_effort": "high"},
        body=chat_reply(usage=USAGE),
        parameters={"reasoning_effort": "high"},
    ),
    "cached": Case(call={**BARE, "seed": 7}, body=chat_reply(usage=USAGE), parameters={"seed": 7}),
    "refusal": Case(call=BARE, body=chat_reply({"content": None, "refusal": "I will not"})),
    "length": Case(call=BARE, body=chat_reply({"content": "ani"}, "length")),
    "conversation": Case(
        call={**BARE, "messages": samples.CHAT, "tools": samples.TOOLS["chat"]},
        body=chat_reply(),
        tools=samples.TOOLS["chat"],
        turns=tuple(map(given_turn, samples.CHAT)),
    ),
}


@pytest.mark.parametrize("feature", CHAT)
async def test_a_chat_is_sent_and_read_as_the_sdk_does(feature: str) -> None:
    sides = await both("openai/m", CHAT[feature], chat)
    sides.check_same_request()
    assert sides.sent[0][0] == "/v1/chat/completions"
    sdk = sides.sdk
    assert len(sides.read) == len(sdk.choices)
    for ours, theirs in zip(sides.read, sdk.choices, strict=True):
        check_choice(ours, theirs)
        assert (ours.model_served, ours.provider_request_id) == (sdk.model, sdk.id)
        assert (ours.system_fingerprint, ours.usage.service_tier) == (sdk.system_fingerprint, sdk.service_tier)
        check_chat_usage(ours, sdk.usage)


def check_choice(ours: Completion, theirs: Any) -> None:
    message = theirs.message
    assert ours.text == (message.refusal or message.content or "")
    assert ours.refusal == message.refusal
    assert ours.finish_reason == ("refusal" if message.refusal else theirs.finish_reason)
    calls = [call.model_dump(exclude_none=True) for call in message.tool_calls or ()]
    assert (orjson.loads(ours.tool_calls) if ours.tool_calls else []) == calls
    if theirs.logprobs is None:
        assert ours.logprobs is None
        return
    content = theirs.logprobs.content
    assert ours.logprobs is not None
    assert ours.logprobs.token_bytes == tuple(bytes(token.bytes) for token in content)
    assert ours.logprobs.token_logprobs == tuple(token.logprob for token in content)
    assert ours.logprobs.at(0) == {bytes(one.bytes): one.logprob for one in content[0].top_logprobs}


def check_chat_usage(ours: Completion, usage: Any) -> None:
    given, said = usage.prompt_tokens_details, usage.completion_tokens_details
    assert (ours.usage.input_tokens, ours.usage.output_tokens) == (usage.prompt_tokens, usage.completion_tokens)
    assert ours.usage.cached_input_tokens == (given.cached_tokens if given else 0)
    assert ours.usage.cache_write_tokens == (given.cache_write_tokens if given else 0)
    assert ours.usage.reasoning_tokens == (said.reasoning_tokens if said else None)


async def test_what_a_schema_asked_for_is_there_as_json() -> None:
    sides = await both("openai/m", CHAT["schema"], chat)
    assert sides.read[0].structured == '{"kind":"animal"}'


async def test_hidden_reasoning_is_known_to_have_been_left_out() -> None:
    sides = await both("openai/m", CHAT["thinking"], chat)
    assert (sides.read[0].reasoning, sides.read[0].trace_kind) == (None, "omitted")


# --- Responses -------------------------------------------------------------------------------------------------------

ITEMS = {"input": SAID, "max_output_tokens": 64, "store": False}
FLAT = {"type": "function", **TOOL["function"]}
THOUGHT = {
    "id": "rs_1",
    "type": "reasoning",
    "encrypted_content": "gAAAA",
    "status": "completed",
    "summary": [{"type": "summary_text", "text": "Swans are birds."}],
}
TOLD = {
    "input_tokens": 40,
    "output_tokens": 9,
    "total_tokens": 49,
    "input_tokens_details": {
        "cached_tokens": 16,
        "cache_write_tokens": 8,
        "cache_write_tokens_details": {"ttl_30m_tokens": 3, "ttl_12h_tokens": 5},
    },
    "output_tokens_details": {"reasoning_tokens": 5},
}


def response_with_logprobs() -> dict[str, Any]:
    body = response("an")
    body["output"][0]["content"][0]["logprobs"] = ranked(("an", -0.25), ("the", -2.0))["content"]
    return body


def response_refusing() -> dict[str, Any]:
    body = response()
    body["output"][0]["content"] = [{"type": "refusal", "refusal": "I will not"}]
    return body


def response_calling() -> dict[str, Any]:
    call = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "weather", "status": "completed"}
    return response(output=[{**call, "arguments": '{"city":"Ulm"}'}])


RESPONSES = {
    "plain": Case(call=ITEMS, body=response(service_tier="default")),
    "system": Case(
        call={**ITEMS, "input": [{"role": "system", "content": "Be brief."}, *SAID]},
        body=response(),
        system="Be brief.",
    ),
    "tools": Case(
        call={**ITEMS, "tools": [FLAT], "tool_choice": {"type": "function", "name": "weather"}},
        body=response_calling(),
        parameters={"tool_choice": {"type": "function", "function": {"name": "weather"}}},
        tools=[TOOL],
    ),
    "schema": Case(
        call={
            **ITEMS,
            "text": {"format": {"type": "json_schema", "name": "answer", "strict": True, "schema": SCHEMA}},
        },
        body=response('{"kind": "animal"}'),
        schema=SCHEMA,
    ),
    "logprobs": Case(
        call={**ITEMS, "top_logprobs": 2, "include": ["message.output_text.logprobs"]},
        body=response_with_logprobs(),
        parameters={"top_logprobs": 2},
    ),
    "thinking": Case(
        call={**ITEMS, "reasoning": {"effort": "high", "summary": "auto"}},
        body=response("animal", THOUGHT, usage=TOLD),
        parameters={"reasoning_effort": "high", "reasoning": {"summary": "auto"}},
    ),
    "cached": Case(call=ITEMS, body=response(usage=TOLD)),
    "refusal": Case(call=ITEMS, body=response_refusing()),
    "length": Case(
        call=ITEMS, body=response("ani", status="incomplete", incomplete_details={"reason": "max_output_tokens"})
    ),
    "conversation": Case(
        call={**ITEMS, "input": samples.RESPONSES, "tools": samples.TOOLS["responses"]},
        body=response(),
        tools=samples.TOOLS["responses"],
        turns=tuple(map(given_turn, samples.RESPONSES)),
    ),
}


@pytest.mark.parametrize("feature", RESPONSES)
async def test_a_response_is_sent_and_read_as_the_sdk_does(feature: str) -> None:
    sides = await both("openai/m", RESPONSES[feature], responses, api="responses")
    sides.check_same_request()
    assert sides.sent[0][0] == "/v1/responses"
    (ours,), sdk = sides.read, sides.sdk
    assert ours.text == (sdk.output_text or ours.refusal or "")
    assert (ours.model_served, ours.provider_request_id) == (sdk.model, sdk.id)
    assert ours.usage.service_tier == sdk.service_tier
    usage = sdk.usage
    assert (ours.usage.input_tokens, ours.usage.output_tokens) == (usage.input_tokens, usage.output_tokens)
    assert ours.usage.cached_input_tokens == usage.input_tokens_details.cached_tokens
    assert ours.usage.cache_write_tokens == usage.input_tokens_details.cache_write_tokens
    assert ours.usage.reasoning_tokens == usage.output_tokens_details.reasoning_tokens
    calls = [item for item in sdk.output if item.type == "function_call"]
    found = orjson.loads(ours.tool_calls) if ours.tool_calls else []
    assert [(one["id"], one["function"]["name"], one["function"]["arguments"]) for one in found] == [
        (item.call_id, item.name, item.arguments) for item in calls
    ]


async def test_a_response_keeps_summary_and_encrypted_reasoning_apart() -> None:
    (read,) = (await both("openai/m", RESPONSES["thinking"], responses, api="responses")).read
    assert (read.reasoning, read.trace_kind) == ("Swans are birds.", "summary")
    assert orjson.loads(read.reasoning_parts or "") == [THOUGHT]
    assert read.usage.cache_write_1h_tokens == 5
    alone = Case(call=ITEMS, body=response("animal", {**THOUGHT, "summary": []}))
    (hidden,) = (await both("openai/m", alone, responses, api="responses")).read
    assert (hidden.reasoning, hidden.trace_kind) == (None, "encrypted")


@pytest.mark.parametrize(
    ("feature", "finish"), [("tools", "tool_calls"), ("refusal", "refusal"), ("length", "length"), ("plain", "stop")]
)
async def test_how_a_response_ended_is_told(feature: str, finish: str) -> None:
    (read,) = (await both("openai/m", RESPONSES[feature], responses, api="responses")).read
    assert read.finish_reason == finish


async def test_log_probabilities_of_a_response_are_those_of_the_sdk() -> None:
    sides = await both("openai/m", RESPONSES["logprobs"], responses, api="responses")
    told = sides.sdk.output[0].content[0].logprobs
    read = sides.read[0].logprobs
    assert read is not None
    assert read.token_logprobs == tuple(one.logprob for one in told)
    assert read.at(0) == {bytes(one.bytes): one.logprob for one in told[0].top_logprobs}


# --- Messages --------------------------------------------------------------------------------------------------------

ASKED = {"messages": SAID, "max_tokens": 64}
THINKING = {"type": "thinking", "thinking": "Swans are birds.", "signature": "EqQB"}
HIDDEN = {"type": "redacted_thinking", "data": "EmwK"}
BILLED = {
    "input_tokens": 16,
    "output_tokens": 9,
    "cache_read_input_tokens": 16,
    "cache_creation_input_tokens": 8,
    "cache_creation": {"ephemeral_5m_input_tokens": 3, "ephemeral_1h_input_tokens": 5},
    "output_tokens_details": {"thinking_tokens": 5},
    "service_tier": "standard",
}
TEXT = {"type": "text", "text": "animal"}

MESSAGES = {
    "plain": Case(call=ASKED, body=claude()),
    "system": Case(call={**ASKED, "system": "Be brief."}, body=claude(), system="Be brief."),
    "tools": Case(
        call={
            **ASKED,
            "tools": [
                {
                    "name": "weather",
                    "description": "How it is outside",
                    "input_schema": TOOL["function"]["parameters"],
                }
            ],
            "tool_choice": {"type": "any"},
        },
        body=claude(
            {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Ulm"}}, stop_reason="tool_use"
        ),
        parameters={"tool_choice": "required"},
        tools=[TOOL],
    ),
    "schema": Case(
        call={**ASKED, "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": SCHEMA}}},
        body=claude({"type": "text", "text": '{"kind": "animal"}'}),
        parameters={"output_config": {"effort": "low"}},
        schema=SCHEMA,
    ),
    "thinking": Case(
        call={**ASKED, "thinking": {"type": "adaptive", "display": "summarized"}, "output_config": {"effort": "high"}},
        body=claude(THINKING, HIDDEN, TEXT, usage=BILLED),
        parameters={"thinking": {"type": "adaptive"}, "reasoning_effort": "high"},
    ),
    "cached": Case(
        call={**ASKED, "cache_control": {"type": "ephemeral"}},
        body=claude(usage=BILLED),
        parameters={"cache_control": {"type": "ephemeral"}},
    ),
    "stop": Case(
        call={**ASKED, "stop_sequences": ["\n"]},
        body=claude(stop_reason="stop_sequence", stop_sequence="\n"),
        parameters={"stop": "\n"},
    ),
    "refusal": Case(
        call=ASKED,
        body=claude(
            {"type": "text", "text": ""},
            stop_reason="refusal",
            stop_details={"type": "refusal", "category": "bio", "explanation": "I will not"},
        ),
    ),
    "length": Case(call=ASKED, body=claude(stop_reason="max_tokens")),
    "context": Case(call=ASKED, body=claude(stop_reason="model_context_window_exceeded")),
    "pause": Case(call=ASKED, body=claude(stop_reason="pause_turn")),
    "conversation": Case(
        call={
            **ASKED,
            "system": samples.MESSAGES[0]["content"],
            "messages": samples.MESSAGES[1:],
            "tools": samples.TOOLS["messages"],
        },
        body=claude(),
        tools=samples.TOOLS["messages"],
        turns=tuple(map(given_turn, samples.MESSAGES)),
    ),
}
ENDS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "tool_use": "tool_calls",
    "refusal": "refusal",
    "model_context_window_exceeded": "length",
    "pause_turn": "pause",
}


@pytest.mark.parametrize("feature", MESSAGES)
async def test_a_message_is_sent_and_read_as_the_sdk_does(feature: str) -> None:
    sides = await both("anthropic/m", MESSAGES[feature], messages)
    sides.check_same_request()
    assert sides.sent[0][0] == "/v1/messages"
    (ours,), sdk = sides.read, sides.sdk
    assert ours.text == "".join(block.text for block in sdk.content if block.type == "text")
    assert ours.finish_reason == ENDS[sdk.stop_reason]
    assert (ours.model_served, ours.provider_request_id) == (sdk.model, sdk.id)
    usage = sdk.usage
    cached, written = usage.cache_read_input_tokens or 0, usage.cache_creation_input_tokens or 0
    assert (ours.usage.input_tokens, ours.usage.output_tokens) == (
        usage.input_tokens + cached + written,
        usage.output_tokens,
    )
    assert (ours.usage.cached_input_tokens, ours.usage.cache_write_tokens) == (cached, written)
    calls = [block for block in sdk.content if block.type == "tool_use"]
    found = orjson.loads(ours.tool_calls) if ours.tool_calls else []
    assert [(one["id"], one["function"]["name"], orjson.loads(one["function"]["arguments"])) for one in found] == [
        (block.id, block.name, block.input) for block in calls
    ]


async def test_thinking_is_kept_with_its_signatures_as_a_summary() -> None:
    (read,) = (await both("anthropic/m", MESSAGES["thinking"], messages)).read
    assert (read.reasoning, read.trace_kind) == ("Swans are birds.", "summary")
    assert orjson.loads(read.reasoning_parts or "") == [THINKING, HIDDEN]
    assert (read.usage.reasoning_tokens, read.usage.cache_write_1h_tokens) == (5, 5)


@pytest.mark.parametrize(
    ("block", "kind"), [(HIDDEN, "encrypted"), ({**THINKING, "thinking": ""}, "omitted"), (TEXT, None)]
)
async def test_thinking_nobody_can_read_is_told_apart(block: dict[str, Any], kind: str | None) -> None:
    (read,) = (await both("anthropic/m", Case(call=ASKED, body=claude(block, TEXT)), messages)).read
    assert (read.reasoning, read.trace_kind) == (None, kind)


async def test_why_claude_would_not_is_kept() -> None:
    (read,) = (await both("anthropic/m", MESSAGES["refusal"], messages)).read
    assert (read.refusal, read.finish_reason) == ("I will not", "refusal")


async def test_the_version_and_the_key_go_as_the_sdk_sends_them(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, str]] = []

    async def handler(asked: web.Request) -> web.Response:
        seen.append({name.lower(): value for name, value in asked.headers.items()})
        return web.Response(body=orjson.dumps(claude()), content_type="application/json")

    monkeypatch.setenv("CG_KEY", "k")
    async with server(handler) as url:
        await messages(url, ASKED)
        for transport in ("http", "sdk"):
            chosen = spec("anthropic/m", base_url=url, key_env="CG_KEY", transport=transport)
            teacher = open_teacher(chosen, folder=Path(), clock=TickingClock())
            asked = Request(teacher="t", model="m", api="messages", messages=TURNS, parameters={"max_tokens": 64})
            await teacher.ask(asked, timeout_s=20)
            await teacher.aclose()
    theirs, *both_of_ours = seen
    for sent in both_of_ours:
        for name in ("anthropic-version", "authorization", "content-type"):
            assert sent[name] == theirs[name]
        assert "x-api-key" not in sent
    assert teacher.card.revision == f"api-version {theirs['anthropic-version']}"


# --- asking again ----------------------------------------------------------------------------------------------------

STATUSES = [400, 401, 402, 403, 404, 408, 409, 413, 422, 429, 500, 502, 503, 504, 529]
SAYS = [None, "true", "false"]


@asynccontextmanager
async def refusing(status: int, says: str | None, body: Any) -> AsyncIterator[tuple[str, list[int]]]:
    """A server that fails once, and answers then."""
    counted: list[int] = []

    async def handler(asked: web.Request) -> web.Response:
        counted.append(1)
        if len(counted) > 1:
            return web.Response(body=orjson.dumps(body), content_type="application/json")
        headers = {"retry-after-ms": "1"} | ({"x-should-retry": says} if says else {})
        error = orjson.dumps({"type": "error", "error": {"type": "mock", "message": "no"}})
        return web.Response(status=status, body=error, headers=headers, content_type="application/json")

    async with server(handler) as url:
        yield url, counted


async def sdk_asks_again(name: str, status: int, says: str | None) -> bool:
    body = claude() if name == "anthropic" else chat_reply()
    async with refusing(status, says, body) as (url, counted):
        try:
            if name == "anthropic":
                async with anthropic.AsyncAnthropic(base_url=url[:-3], api_key="k", max_retries=1) as claudes:
                    await claudes.messages.create(model="m", max_tokens=1, messages=[{"role": "user", "content": "a"}])
            else:
                async with openai.AsyncOpenAI(base_url=url, api_key="k", max_retries=1) as client:
                    await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "a"}])
        except (anthropic.APIStatusError, openai.APIStatusError):
            pass
        return len(counted) > 1


async def we_ask_again(name: str, status: int, says: str | None, transport: str) -> bool:
    async with refusing(status, says, {}) as (url, _):
        chosen = spec(f"{name}/m", base_url=url, transport=transport)
        teacher = open_teacher(chosen, folder=Path(), clock=TickingClock())
        turn = (Message(role="user", content="a"),)
        asked = Request(teacher="t", model="m", api=teacher.card.chat_api, messages=turn, parameters={"max_tokens": 1})
        with pytest.raises(TeacherError) as caught:
            await teacher.ask(asked, timeout_s=20)
        await teacher.aclose()
    return caught.value.transient


@pytest.mark.parametrize("says", SAYS)
@pytest.mark.parametrize("name", ["openai", "anthropic"])
async def test_what_the_sdk_asks_again_we_ask_again(name: str, says: str | None) -> None:
    theirs = {status: await sdk_asks_again(name, status, says) for status in STATUSES}
    for transport in ("http", "sdk"):
        assert {status: await we_ask_again(name, status, says, transport) for status in STATUSES} == theirs


async def test_a_connection_that_is_cut_is_asked_again_by_both() -> None:
    counted: list[int] = []

    async def handler(asked: web.Request) -> web.Response:
        counted.append(1)
        if len(counted) == 1:
            assert asked.transport is not None
            asked.transport.close()
        return web.Response(body=orjson.dumps(chat_reply()), content_type="application/json")

    async with server(handler) as url:
        async with openai.AsyncOpenAI(base_url=url, api_key="k", max_retries=1) as client:
            await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "a"}])
        assert len(counted) == 2
        counted.clear()
        teacher = open_teacher(spec("openai/m", base_url=url), folder=Path(), clock=TickingClock())
        asked = Request(teacher="t", model="m", api="chat", messages=TURNS, parameters={"max_tokens": 1})
        with pytest.raises(TeacherFault) as caught:
            await teacher.ask(asked, timeout_s=20)
        await teacher.aclose()
    assert caught.value.transient
