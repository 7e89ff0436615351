"""The official openai and anthropic clients, unmodified, sync and async, through the gateway to the mock teacher."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import anthropic
import openai
import orjson
import pytest
from pydantic import BaseModel
from serve_samples import ANTHROPIC, OPENAI, Served, served, service_yaml

from corpusgen.mock.server import MockTeacher, Options, mock_teacher
from corpusgen.records import Record
from corpusgen.stages.committing import export_manifest
from corpusgen.store.shards import read_records

ADD = {
    "name": "add",
    "description": "Adds two numbers.",
    "parameters": {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
        "required": ["a", "b"],
        "additionalProperties": False,
    },
}
TOOLS = [{"type": "function", "function": {**ADD, "strict": True}}]
CLAUDE_TOOLS = [{"name": "add", "description": ADD["description"], "input_schema": ADD["parameters"]}]
SEVERAL = "gpt-several"
"""The mock asked as a model that is known to give several answers to one call."""
MORE = f"""\
  - name: openai/gpt-4.1
    model: {SEVERAL}
    base_url: BASE_URL
    key_env: MOCK_KEY
    provider: corpusgen
    route: mock
    price: {{input_usd_per_mtok: "1", output_usd_per_mtok: "4", source: mock teacher}}
    parameters: {{max_tokens: 64}}
"""
ASKED = {"model": OPENAI, "max_tokens": 32}
TOLD = {"model": ANTHROPIC, "max_tokens": 32}


class City(BaseModel):
    """What an answer is parsed into."""

    city: str
    people: int


def turns(text: str) -> Any:
    return [{"role": "user", "content": text}]


async def done(made: Any) -> Any:
    """What a client gives back, whether it is a sync or an async one."""
    return await made if inspect.isawaitable(made) else made


async def pieces(stream: Any) -> list[Any]:
    """Everything a stream brings."""
    if hasattr(stream, "__aiter__"):
        return [piece async for piece in stream]
    return await asyncio.to_thread(list, stream)


async def chat(client: Any) -> str:
    return str(
        (await done(client.chat.completions.create(messages=turns("A chat"), **ASKED))).choices[0].message.content
    )


async def chat_streamed(client: Any) -> str:
    asked = client.chat.completions.create(messages=turns("A streamed chat"), stream=True, **ASKED)
    found = await pieces(await done(asked))
    return "".join(piece.choices[0].delta.content or "" for piece in found if piece.choices)


async def chat_with_logprobs(client: Any) -> str:
    asked = client.chat.completions.create(messages=turns("Sure?"), logprobs=True, top_logprobs=3, **ASKED)
    choice = (await done(asked)).choices[0]
    assert len(choice.logprobs.content[0].top_logprobs) == 3
    return str(choice.message.content)


async def chat_with_tools(client: Any) -> str:
    asked = client.chat.completions.create(messages=turns("1 + 2?"), tools=TOOLS, tool_choice="required", **ASKED)
    [call] = (await done(asked)).choices[0].message.tool_calls
    assert call.function.name == "add"
    result = {"role": "tool", "tool_call_id": call.id, "content": "3"}
    said = {"role": "assistant", "content": None, "tool_calls": [call.model_dump(exclude_none=True)]}
    again = client.chat.completions.create(messages=[*turns("1 + 2?"), said, result], tools=TOOLS, **ASKED)
    return str((await done(again)).choices[0].message.content)


async def chat_parsed(client: Any) -> str:
    asked = client.chat.completions.parse(messages=turns("Which city?"), response_format=City, **ASKED)
    return str((await done(asked)).choices[0].message.parsed.city)


async def chat_several(client: Any) -> str:
    asked = client.chat.completions.create(model=SEVERAL, max_tokens=32, messages=turns("Three times"), n=3)
    found = await done(asked)
    return "".join(str(choice.message.content) for choice in found.choices)


async def responses(client: Any) -> str:
    return str(
        (await done(client.responses.create(model=OPENAI, input="A response", max_output_tokens=32))).output_text
    )


async def responses_streamed(client: Any) -> str:
    asked = client.responses.create(model=OPENAI, input="Streamed", max_output_tokens=32, stream=True)
    found = await pieces(await done(asked))
    assert found[-1].type == "response.completed"
    return str(found[-1].response.output_text)


async def completion(client: Any) -> str:
    return str((await done(client.completions.create(prompt="Once upon a", **ASKED))).choices[0].text)


async def messages(client: Any) -> str:
    return str((await done(client.messages.create(messages=turns("A message"), **TOLD))).content[0].text)


async def messages_streamed(client: Any) -> str:
    found = await pieces(await done(client.messages.create(messages=turns("Streamed"), stream=True, **TOLD)))
    assert found[-1].type == "message_stop"
    return "".join(piece.delta.text for piece in found if piece.type == "content_block_delta")


async def messages_with_tools(client: Any) -> str:
    choice = {"type": "any"}
    asked = client.messages.create(messages=turns("1 + 2?"), tools=CLAUDE_TOOLS, tool_choice=choice, **TOLD)
    said = (await done(asked)).content
    [use] = [block for block in said if block.type == "tool_use"]
    result = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": use.id, "content": "3"}]}
    back = {"role": "assistant", "content": [block.model_dump(exclude_none=True) for block in said]}
    again = client.messages.create(messages=[*turns("1 + 2?"), back, result], tools=CLAUDE_TOOLS, **TOLD)
    return str((await done(again)).content[0].text)


async def messages_of_an_openai_model(client: Any) -> str:
    asked = client.messages.create(model=OPENAI, max_tokens=32, system="Be brief.", messages=turns("Across"))
    return str((await done(asked)).content[0].text)


async def chat_of_a_claude(client: Any) -> str:
    asked = client.chat.completions.create(model=ANTHROPIC, max_tokens=32, messages=turns("The other way"))
    return str((await done(asked)).choices[0].message.content)


def offers(mock: MockTeacher) -> str:
    return service_yaml(mock, more=MORE.replace("BASE_URL", mock.base_url))


Way = Callable[[Any], Coroutine[Any, Any, str]]
OF_OPENAI: dict[Way, int] = {
    chat: 1,
    chat_streamed: 1,
    chat_with_logprobs: 1,
    chat_with_tools: 2,
    chat_parsed: 1,
    chat_several: 3,
    responses: 1,
    responses_streamed: 1,
    completion: 1,
    chat_of_a_claude: 1,
}
OF_ANTHROPIC: dict[Way, int] = {
    messages: 1,
    messages_streamed: 1,
    messages_with_tools: 2,
    messages_of_an_openai_model: 1,
}
"""What a client does, and how many records come of it."""


async def records_of(there: Served) -> list[Record]:
    await there.service.desk.commit()
    shards = export_manifest(there.corpus).shards
    return list(read_records(there.corpus.shard_folder(one.dataset) / one.name for one in shards))


def client_for(way: Way, there: Served, key: str, *, sync: bool) -> Any:
    if way in OF_OPENAI:
        kind: Any = openai.OpenAI if sync else openai.AsyncOpenAI
        return kind(base_url=f"{there.url}/v1", api_key=key, max_retries=0)
    kind = anthropic.Anthropic if sync else anthropic.AsyncAnthropic
    return kind(base_url=there.url, api_key=key, max_retries=0)


async def said(way: Way, client: Any, *, sync: bool) -> str:
    """What came of it; a sync client waits in a thread of its own, as the service is in this one."""
    if not sync:
        async with client:
            return await way(client)

    def alone() -> str:
        with client:
            return asyncio.run(way(client))

    return await asyncio.to_thread(alone)


@pytest.mark.parametrize("sync", [True, False], ids=["sync", "async"])
@pytest.mark.parametrize("way", [*OF_OPENAI, *OF_ANTHROPIC], ids=lambda way: way.__name__)
async def test_every_call_of_a_client_is_a_complete_record_and_costs_once(
    way: Way, sync: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = (OF_OPENAI | OF_ANTHROPIC)[way]
    monkeypatch.setenv("MOCK_KEY", "not a real one")
    async with mock_teacher(Options()) as mock, served(tmp_path, mock=mock, config=offers(mock)) as there:
        key = there.token("ask")
        first = await said(way, client_for(way, there, key, sync=sync), sync=sync)
        assert first.strip()
        billed = there.bill["billed_microusd"]
        assert await said(way, client_for(way, there, key, sync=sync), sync=sync) == first
        assert there.bill["billed_microusd"] == billed
        records = await records_of(there)
    assert len(records) == wanted
    assert sum(record.cost_microusd for record in records) == billed
    for record in records:
        assert record.response or record.tool_calls
        assert record.terms_set_id
        assert record.source_ids
        assert record.request_key
        assert record.provider_request_id
    if "tools" in way.__name__:
        with_calls = [record for record in records if record.tool_calls]
        told = [orjson.loads(record.conversation) for record in records if record.conversation]
        assert with_calls
        assert len(told) == wanted
        assert all(one["tools"] for one in told)
    if way is chat_with_logprobs:
        assert records[0].token_logprobs
