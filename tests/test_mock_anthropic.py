"""The official Anthropic client runs unmodified against the mock teacher."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any

import anthropic
import httpx2
import pytest
from mock_samples import Bird, checked, official

from corpusgen.mock.bill import Prices
from corpusgen.mock.limits import RateLimit
from corpusgen.mock.plan import KINDS

# A warning of pydantic's about a field would be a fault of the double.
pytestmark = pytest.mark.filterwarnings("error")

HI: list[Any] = [{"role": "user", "content": "hi"}]
FLY: list[Any] = [{"name": "fly", "input_schema": Bird.model_json_schema()}]
OLD = {"anthropic-version": "2023-06-01"}


async def test_a_message_is_whole_and_says_what_it_took() -> None:
    async with official() as at:
        found = await at.anthropic.messages.create(model="c", max_tokens=50, system="be brief", messages=HI)
        checked(found)
        assert at.bill["billed_tokens"] == found.usage.input_tokens + found.usage.output_tokens
    assert (found.stop_reason, found.model, found.type) == ("end_turn", "c", "message")
    assert found.content[0].type == "text"
    assert found._request_id is not None


async def test_a_streamed_message_is_the_whole_one() -> None:
    thinking: Any = {"type": "adaptive", "display": "summarized"}
    async with official() as at:
        whole = await at.anthropic.messages.create(model="c", max_tokens=50, messages=HI, thinking=thinking)
        async with at.anthropic.messages.stream(model="c", max_tokens=50, messages=HI, thinking=thinking) as stream:
            last = await stream.get_final_message()
        raw = await at.anthropic.messages.create(model="c", max_tokens=50, messages=HI, thinking=thinking, stream=True)
        events = [event.type async for event in raw if checked(event)]
    assert [block.model_dump(exclude={"parsed_output"}) for block in last.content] == [
        block.model_dump() for block in whole.content
    ]
    assert (last.stop_reason, last.usage) == (whole.stop_reason, whole.usage)
    assert (events[0], events[-2:]) == ("message_start", ["message_delta", "message_stop"])
    assert list(at.bill["charged"].values()) == [3]


@pytest.mark.parametrize(("display", "told"), [("summarized", True), ("omitted", False), (None, False)])
async def test_thoughts_are_told_only_in_summary_and_only_if_asked_for(display: Any, told: bool) -> None:
    thinking: Any = {"type": "adaptive", **({"display": display} if display else {})}
    async with official() as at:
        found = await at.anthropic.messages.create(model="c", max_tokens=50, messages=HI, thinking=thinking)
        checked(found)
        thought = found.content[0]
        assert thought.type == "thinking"
        said = [{"role": "assistant", "content": [block.model_dump() for block in found.content]}]
        again: list[Any] = [*HI, *said, {"role": "user", "content": "and?"}]
        assert (await at.anthropic.messages.create(model="c", max_tokens=50, messages=again)).content
    assert bool(thought.thinking) == told
    assert thought.signature
    assert found.usage.output_tokens_details is not None
    assert found.usage.output_tokens_details.thinking_tokens == 16


@pytest.mark.parametrize(("effort", "tokens"), [("low", 4), ("medium", 8), ("max", 32)])
async def test_effort_is_heeded(effort: Any, tokens: int) -> None:
    async with official() as at:
        found = await at.anthropic.messages.create(
            model="c",
            max_tokens=50,
            messages=HI,
            thinking={"type": "adaptive"},
            output_config={"effort": effort},
        )
    assert found.usage.output_tokens_details is not None
    assert found.usage.output_tokens_details.thinking_tokens == tokens


async def test_a_tool_is_called_and_its_result_is_talked_about() -> None:
    async with official() as at:
        called = await at.anthropic.messages.create(model="c", max_tokens=500, messages=HI, tools=FLY)
        checked(called)
        call = called.content[0]
        assert call.type == "tool_use"
        result = {"type": "tool_result", "tool_use_id": call.id, "content": "it flew"}
        said = [block.model_dump(exclude_none=True) for block in called.content]
        turns: list[Any] = [*HI, {"role": "assistant", "content": said}, {"role": "user", "content": [result]}]
        told = await at.anthropic.messages.create(model="c", max_tokens=500, messages=turns, tools=FLY)
        async with at.anthropic.messages.stream(model="c", max_tokens=500, messages=HI, tools=FLY) as stream:
            streamed = (await stream.get_final_message()).content[0]
    assert (called.stop_reason, call.name, told.stop_reason) == ("tool_use", "fly", "end_turn")
    assert Bird.model_validate(call.input)
    assert streamed.type == "tool_use"
    assert streamed.input == call.input


async def test_a_schema_is_kept_to() -> None:
    async with official() as at:
        found = await at.anthropic.messages.parse(model="c", max_tokens=500, messages=HI, output_format=Bird)
    assert isinstance(found.parsed_output, Bird)


async def test_the_reason_for_stopping_is_told() -> None:
    async with official() as at:
        cut = await at.anthropic.messages.create(model="c", max_tokens=2, messages=HI)
        stopped = await at.anthropic.messages.create(model="c", max_tokens=50, messages=HI, stop_sequences=["e", "o"])
        refusing: list[Any] = [{"role": "user", "content": "fault:refusal"}]
        refused = await at.anthropic.messages.create(model="c", max_tokens=50, messages=refusing)
        checked(refused)
    assert (cut.stop_reason, cut.usage.output_tokens) == ("max_tokens", 2)
    assert (stopped.stop_reason, stopped.stop_sequence in ("e", "o")) == ("stop_sequence", True)
    assert refused.stop_reason == "refusal"
    assert refused.stop_details is not None
    assert refused.stop_details.explanation == "I would rather not."


@pytest.mark.parametrize("name", ["temperature", "top_p", "top_k"])
async def test_sampling_is_refused_by_the_new_version_and_taken_by_the_old(name: str) -> None:
    async with official() as at:
        create = at.anthropic.messages.create
        with pytest.raises(anthropic.BadRequestError, match=name):
            await create(model="c", max_tokens=9, messages=HI, extra_body={name: 1})
        found = await create(model="c", max_tokens=9, messages=HI, extra_body={name: 1}, extra_headers=OLD)
    assert found.content


@pytest.mark.parametrize(
    ("asked", "complaint"),
    [
        ({"thinking": {"type": "enabled", "budget_tokens": 5}}, "budget_tokens"),
        ({"thinking": {"type": "adaptive"}, "tools": FLY, "tool_choice": {"type": "any"}}, "Thinking may not be"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]}, "reads text only"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "role"),
        ({"max_tokens": 0}, "max_tokens"),
    ],
)
async def test_what_the_provider_refuses_is_refused(asked: Any, complaint: str) -> None:
    async with official() as at:
        with pytest.raises(anthropic.BadRequestError, match=complaint):
            await at.anthropic.messages.create(**{"model": "c", "max_tokens": 50, "messages": HI, **asked})
        assert at.bill["billed_microusd"] == 0


@pytest.mark.parametrize(("ttl", "price"), [("5m", 125), ("1h", 200)])
async def test_a_marked_prompt_is_written_to_the_cache_and_read_from_it(ttl: Any, price: int) -> None:
    now = [0.0]
    system: Any = [{"type": "text", "text": "be brief " * 40, "cache_control": {"type": "ephemeral", "ttl": ttl}}]
    async with official(clock=lambda: now[0], prices=Prices(input_per_mtok=100_000_000, output_per_mtok=0)) as at:
        asked = {"model": "c", "max_tokens": 9, "system": system}
        first = await at.anthropic.messages.create(messages=HI, **asked)
        second = await at.anthropic.messages.create(messages=[{"role": "user", "content": "ho"}], **asked)
        now[0] = 4000.0
        third = await at.anthropic.messages.create(messages=HI, **asked)
    written = first.usage.cache_creation_input_tokens or 0
    assert (first.usage.cache_read_input_tokens, second.usage.cache_read_input_tokens) == (0, written)
    assert (third.usage.cache_read_input_tokens, third.usage.cache_creation_input_tokens) == (0, written)
    plain = sum(found.usage.input_tokens for found in (first, second, third))
    assert at.bill["billed_microusd"] == plain * 100 + written * (2 * price + 10)
    assert first.usage.cache_creation is not None
    assert first.usage.cache_creation.ephemeral_1h_input_tokens == (written if ttl == "1h" else 0)


async def test_a_request_may_leave_it_to_the_provider_what_to_cache() -> None:
    async with official() as at:
        found = [
            await at.anthropic.messages.create(
                model="c", max_tokens=9, messages=HI, cache_control={"type": "ephemeral"}
            )
            for _ in range(2)
        ]
    written, read = found[0].usage.cache_creation_input_tokens, found[1].usage.cache_read_input_tokens
    assert written == read == at.bill["billed_tokens"] / 2 - found[0].usage.output_tokens
    assert found[0].usage.input_tokens == 0


async def test_tokens_are_counted_for_nothing() -> None:
    async with official() as at:
        counted = await at.anthropic.messages.count_tokens(model="c", messages=HI, system="be brief", tools=FLY)
        assert at.bill["billed_microusd"] == 0
        found = await at.anthropic.messages.create(model="c", max_tokens=9, messages=HI, system="be brief", tools=FLY)
    assert checked(counted) == counted
    assert counted.input_tokens == found.usage.input_tokens


async def test_models_are_listed_with_what_they_can_do() -> None:
    async with official() as at:
        found = [checked(model) and model async for model in at.anthropic.models.list()]
        other = await at.anthropic.models.retrieve("claude-some-model")
    assert [model.id for model in found] == ["mock-large", "mock-small"]
    assert other.capabilities is not None
    assert other.capabilities.thinking.types.adaptive.supported


async def test_errors_have_the_vendors_shape() -> None:
    async with official() as at:
        with pytest.raises(anthropic.APIStatusError) as overloaded:
            await at.anthropic.messages.create(
                model="c", max_tokens=9, messages=[{"role": "user", "content": "fault:529"}]
            )
        with pytest.raises(anthropic.NotFoundError) as missing:
            await at.anthropic.messages.batches.retrieve("msgbatch_none")
    assert overloaded.value.type == "overloaded_error"
    assert missing.value.type == "not_found_error"
    for error in (overloaded.value, missing.value):
        assert isinstance(error.body, dict)
        assert error.body["request_id"] == error.request_id
    assert overloaded.value.request_id is not None


@pytest.mark.parametrize("header", ["x-api-key", "Authorization"])
async def test_a_key_is_taken_in_either_header(header: str) -> None:
    async with official(key="secret") as at:
        with pytest.raises(anthropic.AuthenticationError):
            await at.anthropic.messages.create(model="c", max_tokens=9, messages=HI)
        async with httpx2.AsyncClient(base_url=at.mock.origin) as raw:
            value = "secret" if header == "x-api-key" else "Bearer secret"
            asked = {"model": "c", "max_tokens": 9, "messages": HI}
            found = await raw.post("/v1/messages", json=asked, headers={**OLD, header: value})
            keyless = await raw.get("/bill")
    assert (found.status_code, keyless.status_code) == (200, 200)


async def test_limits_are_told_in_the_vendors_words() -> None:
    limits = {"rate_limit": RateLimit(per_s=1, burst=1), "token_limit": RateLimit(per_s=100, burst=200)}
    async with official(clock=lambda: 0.0, now=lambda: 1_000_000_000.0, **limits) as at:
        raw = at.anthropic.messages.with_raw_response
        headers = (await raw.create(model="c", max_tokens=100, messages=HI)).headers
        with pytest.raises(anthropic.RateLimitError) as refused:
            await raw.create(model="c", max_tokens=100, messages=HI)
    assert headers["anthropic-ratelimit-requests-limit"] == "60"
    assert headers["anthropic-ratelimit-input-tokens-remaining"] == "95"
    assert headers["anthropic-ratelimit-output-tokens-limit"] == "6000"
    assert datetime.fromisoformat(headers["anthropic-ratelimit-requests-reset"]).timestamp() == 1_000_000_001
    assert refused.value.response.headers["retry-after"] == "1"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.filterwarnings("default")  # what a client says about a spoilt answer is its own affair
async def test_every_fault_is_met_in_messages_too_and_nobody_else_suffers(stream: bool) -> None:
    slow = {"gzip-bomb", "endless-body", "timeout", "slow-headers", "slow-body", "endless-continue"}
    met = [name for name, kind in KINDS.items() if "messages" in kind.apis and kind.place == "answer"]
    # A connection over which too much was sent is of no use to the next question, and this client would not notice.
    once = httpx2.AsyncClient(limits=httpx2.Limits(max_keepalive_connections=0))
    async with official(slow_s=0.05) as at, once:
        spoilt = at.anthropic.with_options(http_client=once)
        for name in sorted(set(met) - slow):
            asked: Any = {"model": "c", "max_tokens": 50, "messages": [{"role": "user", "content": f"fault:{name}*1"}]}
            await _ask_for(spoilt, asked, stream)
            assert at.mock.bill.requests_by_kind[name] == 1
            whole = await at.anthropic.messages.create(**asked)
            assert (whole.stop_reason, whole.content[0].type) == ("end_turn", "text")


async def _ask_for(client: anthropic.AsyncAnthropic, asked: Any, stream: bool) -> None:
    try:
        found: Any = await client.messages.create(**asked, stream=stream, timeout=5)
        _ = [event async for event in found] if stream else found
    except (anthropic.AnthropicError, httpx2.HTTPError, TypeError, ValueError, AttributeError, RecursionError):
        pass  # the official client has no words for some of them


def test_the_client_that_waits_works_as_well() -> None:
    async def in_a_thread() -> None:
        async with official() as at:
            await asyncio.to_thread(_ask_waiting, at.mock.origin)

    asyncio.run(in_a_thread())


def _ask_waiting(url: str) -> None:
    with anthropic.Anthropic(base_url=url, api_key="any", max_retries=0) as client:
        whole = client.messages.create(model="c", max_tokens=50, messages=HI)
        with client.messages.stream(model="c", max_tokens=50, messages=HI) as stream:
            words = "".join(stream.text_stream)
        assert whole.content[0].type == "text"
        assert whole.content[0].text == words
        assert client.messages.count_tokens(model="c", messages=HI).input_tokens == whole.usage.input_tokens
