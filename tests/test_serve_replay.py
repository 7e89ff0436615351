"""What was answered whole, told again to the official clients: they end up with the same object."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random
from typing import Any

import httpx2
import orjson
import pytest
from aiohttp import web
from anthropic import Anthropic, AsyncAnthropic
from openai import AsyncOpenAI, OpenAI
from stream_samples import ANSWERS, CHATS, CUT, MESSAGES, RESPONSES, TEXTS, spoilt
from teacher_samples import request, server

from corpusgen.errors import InvalidAnswer
from corpusgen.records import Reply
from corpusgen.serve.wires.replay import events_of
from corpusgen.teachers.reading import read_choices

ASKED: dict[str, Any] = {"model": "m-1", "messages": [{"role": "user", "content": "a swan"}]}
WIRES: dict[str, Any] = {
    "chat/completions": "chat",
    "completions": "completion",
    "responses": "responses",
    "messages": "messages",
}


NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Knows no authorities: reading them takes longer than these tests."""


@dataclass(frozen=True, kw_only=True)
class Clients:
    """The official clients, in front of a server that tells an answer again, whole or in a stream."""

    openai: AsyncOpenAI
    anthropic: AsyncAnthropic
    sync_openai: OpenAI
    sync_anthropic: Anthropic


@asynccontextmanager
async def clients(body: dict[str, Any]) -> AsyncIterator[Clients]:
    raw = orjson.dumps(body)

    async def handler(request: web.Request) -> web.StreamResponse:
        asked = orjson.loads(await request.read())
        if not asked.get("stream"):
            return web.Response(body=raw, content_type="application/json")
        usage = (asked.get("stream_options") or {}).get("include_usage", False)
        wire = WIRES[request.path.removeprefix("/v1/")]
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for event in events_of(wire, raw, usage=usage):
            await response.write(event)
        return response

    async with server(handler) as url:
        given: dict[str, Any] = {"api_key": "any", "max_retries": 0}
        origin = url.removesuffix("/v1")
        with (
            OpenAI(base_url=url, http_client=httpx2.Client(verify=NO_TLS), **given) as sync_openai,
            Anthropic(base_url=origin, http_client=httpx2.Client(verify=NO_TLS), **given) as sync_anthropic,
        ):
            async with (
                AsyncOpenAI(base_url=url, http_client=httpx2.AsyncClient(verify=NO_TLS), **given) as openai,
                AsyncAnthropic(base_url=origin, http_client=httpx2.AsyncClient(verify=NO_TLS), **given) as anthropic,
            ):
                yield Clients(
                    openai=openai, anthropic=anthropic, sync_openai=sync_openai, sync_anthropic=sync_anthropic
                )


def plain(answer: Any) -> Any:
    """An object of a client's as JSON, without what its helpers add to it."""
    return _without(orjson.loads(answer.model_dump_json()))


def _without(value: Any) -> Any:
    if isinstance(value, dict):
        added = ("parsed", "parsed_arguments", "parsed_output", "_request_id", "__json_buf")
        return {name: _without(one) for name, one in value.items() if name not in added and one is not None}
    return [_without(one) for one in value] if isinstance(value, list) else value


def unindexed(answer: Any) -> Any:
    """Without the indexes that the helper for chats leaves in tool calls."""
    for choice in answer["choices"]:
        for call in choice["message"].get("tool_calls") or ():
            call.pop("index", None)
    return answer


# --- chat completions ------------------------------------------------------------------------------------------------

USAGE: dict[str, Any] = {"stream_options": {"include_usage": True}}


@pytest.mark.parametrize("body", CHATS.values(), ids=CHATS)
async def test_the_helper_for_chats_ends_up_with_the_whole_answer(body: dict[str, Any]) -> None:
    async with clients(body) as here:
        whole = plain(await here.openai.chat.completions.create(**ASKED))
        async with here.openai.chat.completions.stream(**ASKED, **USAGE) as stream:
            assert unindexed(plain(await stream.get_final_completion())) == whole

        def in_a_thread() -> Any:
            with here.sync_openai.chat.completions.stream(**ASKED, **USAGE) as stream:
                return plain(stream.get_final_completion())

        assert unindexed(await asyncio.to_thread(in_a_thread)) == whole


@pytest.mark.parametrize("body", CHATS.values(), ids=CHATS)
async def test_chunks_of_a_chat_hold_what_its_client_documents(body: dict[str, Any]) -> None:
    async with clients(body) as here:
        chunks = [chunk async for chunk in await here.openai.chat.completions.create(**ASKED, stream=True, **USAGE)]

        def in_a_thread() -> list[Any]:
            return list(here.sync_openai.chat.completions.create(**ASKED, stream=True, **USAGE))

        assert await asyncio.to_thread(in_a_thread) == chunks
    for chunk in chunks:
        type(chunk).model_validate_json(chunk.to_json(exclude_unset=True))
    ends = [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason]
    assert ends == ["stop"] * len(body["choices"])
    assert [chunk.usage is not None for chunk in chunks if not chunk.choices] == [True] * ("usage" in body)


async def test_usage_is_told_to_nobody_who_did_not_ask() -> None:
    async with clients(CHATS["text"]) as here:
        chunks = [chunk async for chunk in await here.openai.chat.completions.create(**ASKED, stream=True)]
    assert all(chunk.choices and chunk.usage is None for chunk in chunks)
    assert len(chunks) > 4


# --- completions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", TEXTS.values(), ids=TEXTS)
async def test_completions_add_up_to_the_whole_answer(body: dict[str, Any]) -> None:
    asked: dict[str, Any] = {"model": "m-1", "prompt": "a swan"}
    async with clients(body) as here:
        whole = await here.openai.completions.create(**asked)
        chunks = [chunk async for chunk in await here.openai.completions.create(**asked, stream=True, **USAGE)]

        def in_a_thread() -> list[Any]:
            return list(here.sync_openai.completions.create(**asked, stream=True, **USAGE))

        assert await asyncio.to_thread(in_a_thread) == chunks
    texts = [_joined(chunks, at) for at in range(len(whole.choices))]
    assert texts == [choice.text for choice in whole.choices]
    assert chunks[-1].usage == whole.usage


def _joined(chunks: Iterable[Any], at: int) -> str:
    return "".join(choice.text for chunk in chunks for choice in chunk.choices if choice.index == at)


# --- responses -------------------------------------------------------------------------------------------------------

INPUT: dict[str, Any] = {"model": "m-1", "input": "a swan"}


@pytest.mark.parametrize("body", RESPONSES.values(), ids=RESPONSES)
async def test_the_helper_for_responses_ends_up_with_the_whole_answer(body: dict[str, Any]) -> None:
    async with clients(body) as here:
        whole = plain(await here.openai.responses.create(**INPUT))
        async with here.openai.responses.stream(**INPUT) as stream:
            assert plain(await stream.get_final_response()) == whole

        def in_a_thread() -> Any:
            with here.sync_openai.responses.stream(**INPUT) as stream:
                return plain(stream.get_final_response())

        assert await asyncio.to_thread(in_a_thread) == whole


@pytest.mark.parametrize("body", [*RESPONSES.values(), CUT], ids=[*RESPONSES, "cut"])
async def test_events_of_a_response_hold_what_its_client_documents(body: dict[str, Any]) -> None:
    async with clients(body) as here:
        events = [event async for event in await here.openai.responses.create(**INPUT, stream=True)]

        def in_a_thread() -> list[Any]:
            return list(here.sync_openai.responses.create(**INPUT, stream=True))

        assert await asyncio.to_thread(in_a_thread) == events
    for event in events:
        type(event).model_validate_json(event.to_json())
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert plain(events[-1].response) == _without(body)


async def test_deltas_of_a_response_add_up_to_its_text() -> None:
    async with clients(RESPONSES["logprobs"]) as here, here.openai.responses.stream(**INPUT) as stream:
        deltas = [event async for event in stream if event.type == "response.output_text.delta"]
        final = await stream.get_final_response()
    assert "".join(delta.delta for delta in deltas) == deltas[-1].snapshot == final.output_text
    assert len(deltas) == sum(len(delta.logprobs) for delta in deltas)


# --- messages --------------------------------------------------------------------------------------------------------

PROMPT: dict[str, Any] = {**ASKED, "max_tokens": 99}


@pytest.mark.parametrize("body", MESSAGES.values(), ids=MESSAGES)
async def test_the_helper_for_messages_ends_up_with_the_whole_answer(body: dict[str, Any]) -> None:
    async with clients(body) as here:
        whole = plain(await here.anthropic.messages.create(**PROMPT))
        async with here.anthropic.messages.stream(**PROMPT) as stream:
            assert plain(await stream.get_final_message()) == whole

        def in_a_thread() -> Any:
            with here.sync_anthropic.messages.stream(**PROMPT) as stream:
                return plain(stream.get_final_message())

        assert await asyncio.to_thread(in_a_thread) == whole


@pytest.mark.parametrize("body", MESSAGES.values(), ids=MESSAGES)
async def test_events_of_a_message_hold_what_its_client_documents(body: dict[str, Any]) -> None:
    async with clients(body) as here:
        events = [event async for event in await here.anthropic.messages.create(**PROMPT, stream=True)]

        def in_a_thread() -> list[Any]:
            return list(here.sync_anthropic.messages.create(**PROMPT, stream=True))

        assert await asyncio.to_thread(in_a_thread) == events
    for event in events:
        type(event).model_validate_json(event.to_json())
    assert (events[0].type, events[-1].type) == ("message_start", "message_stop")


async def test_an_uncounted_message_can_be_told_too() -> None:
    body = {name: value for name, value in MESSAGES["text"].items() if name != "usage"}
    async with clients(body) as here, here.anthropic.messages.stream(**PROMPT) as stream:
        assert (await stream.get_final_text()) == body["content"][0]["text"]


# --- answers with something odd in them ------------------------------------------------------------------------------


@pytest.mark.parametrize(("api", "name", "body"), ANSWERS[::3], ids=[f"{api}: {name}" for api, name, _ in ANSWERS[::3]])
def test_whatever_can_be_read_can_be_told_again(api: Any, name: str, body: dict[str, Any]) -> None:
    chance, now = Random(7), datetime(2026, 1, 1, tzinfo=UTC)
    several: dict[str, Any] = {"n": 3} if api in ("chat", "completion") else {}
    asked = request(api=api, **several)
    told = 0
    for _ in range(100):
        raw = orjson.dumps(spoilt(body, chance))
        with suppress(InvalidAnswer):
            read_choices(asked, Reply(body=raw, request_id=None, sent_time=now, received_time=now))
            told += bool(list(events_of(api, raw)))
    assert told > 20


async def test_an_odd_answer_reaches_the_clients_as_it_is() -> None:
    part = {"type": "output_text", "text": "a swan", "annotations": 5, "logprobs": []}
    odd = {**RESPONSES["text"], "output": [{**RESPONSES["text"]["output"][0], "content": [part]}]}
    async with clients(odd) as here:
        events = [event async for event in await here.openai.responses.create(**INPUT, stream=True)]
    assert (len(events), events[-1].type) == (2, "response.completed")
    blocks = [{"type": "text", "text": "a swan", "citations": 5}]
    async with clients({**MESSAGES["text"], "content": blocks}) as here:
        said = [event.type async for event in await here.anthropic.messages.create(**PROMPT, stream=True)]
    assert said == ["message_start", "message_delta", "message_stop"]
    message = {"role": "assistant", "content": "a swan", "tool_calls": ["x"]}
    choices = [{**CHATS["text"]["choices"][0], "message": message}]
    async with clients({**CHATS["text"], "choices": choices}) as here:
        chunks = [chunk async for chunk in await here.openai.chat.completions.create(**ASKED, stream=True)]
    assert [chunk.choices[0].delta.content for chunk in chunks] == ["a swan"]
