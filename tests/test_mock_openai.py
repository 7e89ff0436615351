"""The official OpenAI client runs unmodified against the mock teacher."""

from __future__ import annotations

import asyncio
import base64
import json
import math
from typing import Any

import httpx2
import openai
import pytest
from mock_samples import Bird, checked, official

from corpusgen.mock.bill import Prices
from corpusgen.mock.limits import RateLimit, duration
from corpusgen.mock.plan import KINDS

# A warning of pydantic's about a field would be a fault of the double.
pytestmark = pytest.mark.filterwarnings("error")

HI: list[Any] = [{"role": "user", "content": "hi"}]
FLY: Any = {"name": "fly", "parameters": Bird.model_json_schema(), "strict": True}
TOOLS: Any = [{"type": "function", "function": FLY}]


# --- chat completions ------------------------------------------------------------------------------------------------


async def test_a_chat_is_whole_and_says_what_it_took() -> None:
    async with official() as at:
        found = await at.openai.chat.completions.create(model="m", messages=HI, max_completion_tokens=50)
        checked(found)
        assert found.usage is not None
        assert at.bill["billed_tokens"] == found.usage.total_tokens
    assert found.choices[0].message.content
    assert (found.choices[0].finish_reason, found.model, found.object) == ("stop", "m", "chat.completion")
    assert found._request_id == f"mock-{next(iter(at.bill['answered']))[:16]}-1"


async def test_the_same_chat_is_the_same_and_streaming_changes_no_word() -> None:
    async with official() as at:
        whole = await at.openai.chat.completions.create(model="m", messages=HI, seed=1)
        again = await at.openai.chat.completions.create(model="m", messages=HI, seed=1)
        other = await at.openai.chat.completions.create(model="m", messages=HI, seed=2)
        stream = await at.openai.chat.completions.create(
            model="m", messages=HI, seed=1, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream if checked(chunk)]
    words = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert whole == again
    assert words == whole.choices[0].message.content != other.choices[0].message.content
    assert chunks[-1].usage == whole.usage
    assert at.bill["charged"][next(iter(at.bill["charged"]))] == 3


async def test_a_stream_says_nothing_of_usage_unless_asked() -> None:
    async with official() as at:
        stream = await at.openai.chat.completions.create(model="m", messages=HI, stream=True)
        assert [chunk.usage async for chunk in stream if chunk.usage] == []


async def test_several_choices_differ_and_are_all_paid_for() -> None:
    async with official() as at:
        found = await at.openai.chat.completions.create(model="m", messages=HI, n=3)
        one = await at.openai.chat.completions.create(model="m", messages=HI)
        assert at.bill["billed_tokens"] == found.usage.total_tokens + one.usage.total_tokens  # type: ignore[union-attr]
    assert [choice.index for choice in found.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in found.choices}) == 3


async def test_log_probabilities_come_with_bytes_and_sum_below_one() -> None:
    async with official() as at:
        found = await at.openai.chat.completions.create(model="m", messages=HI, logprobs=True, top_logprobs=5)
        checked(found)
    logprobs = found.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert "".join(token.token for token in logprobs.content) == found.choices[0].message.content
    for token in logprobs.content:
        assert bytes(token.bytes or ()) == token.token.encode()
        assert len(token.top_logprobs) == 5
        assert sum(math.exp(entry.logprob) for entry in token.top_logprobs) < 1


async def test_a_streamed_token_has_its_log_probability_with_it() -> None:
    async with official() as at:
        stream = await at.openai.chat.completions.create(
            model="m", messages=HI, logprobs=True, top_logprobs=1, stream=True
        )
        worded = [choice async for chunk in stream for choice in chunk.choices if choice.delta.content]
    for choice in worded:
        assert choice.logprobs is not None
        assert choice.logprobs.content is not None
        assert [token.token for token in choice.logprobs.content] == [choice.delta.content]


async def test_a_stop_sequence_ends_the_answer_before_it() -> None:
    async with official() as at:
        whole = await at.openai.chat.completions.create(model="m", messages=HI, stop="\n")
        words = str(whole.choices[0].message.content).split()
        # Another stop is another request, and so another answer: what is looked at is that it heeds its own.
        for stop in ("e", words[0][1:], "zz"):
            found = await at.openai.chat.completions.create(model="m", messages=HI, stop=[stop])
            assert stop not in str(found.choices[0].message.content)
            assert found.choices[0].finish_reason == "stop"


async def test_an_answer_that_is_too_long_says_so() -> None:
    async with official() as at:
        found = await at.openai.chat.completions.create(model="m", messages=HI, max_tokens=2)
    assert (found.choices[0].finish_reason, found.usage and found.usage.completion_tokens) == ("length", 2)


async def test_thinking_is_counted_and_goes_before_the_words() -> None:
    async with official() as at:
        found = await at.openai.chat.completions.create(model="m", messages=HI, reasoning_effort="medium")
        cut = await at.openai.chat.completions.create(
            model="m", messages=HI, reasoning_effort="high", max_completion_tokens=5
        )
    assert found.usage is not None
    assert found.usage.completion_tokens_details is not None
    assert found.usage.completion_tokens_details.reasoning_tokens == 8
    assert found.usage.completion_tokens == 8 + len(str(found.choices[0].message.content).split())
    assert (cut.choices[0].message.content, cut.choices[0].finish_reason) == ("", "length")


async def test_a_schema_is_kept_to_whole_and_streamed() -> None:
    async with official() as at:
        found = await at.openai.chat.completions.parse(model="m", messages=HI, response_format=Bird)
        async with at.openai.chat.completions.stream(model="m", messages=HI, response_format=Bird) as stream:
            last = await stream.get_final_completion()
    assert isinstance(found.choices[0].message.parsed, Bird)
    assert last.choices[0].message.parsed == found.choices[0].message.parsed


async def test_a_tool_is_called_and_its_result_is_talked_about() -> None:
    async with official() as at:
        called = await at.openai.chat.completions.create(model="m", messages=HI, tools=TOOLS)
        message = called.choices[0].message
        assert message.tool_calls is not None
        call: Any = message.tool_calls[0]
        result: Any = {"role": "tool", "tool_call_id": call.id, "content": "it flew"}
        said: Any = message.model_dump(exclude_none=True)
        told = await at.openai.chat.completions.create(model="m", messages=[*HI, said, result], tools=TOOLS)
        async with at.openai.chat.completions.stream(model="m", messages=HI, tools=TOOLS) as stream:
            streamed: Any = (await stream.get_final_completion()).choices[0].message.tool_calls
    assert Bird.model_validate_json(call.function.arguments)
    assert (called.choices[0].finish_reason, message.content, call.function.name) == ("tool_calls", None, "fly")
    assert told.choices[0].message.content
    assert streamed[0].function.arguments == call.function.arguments


@pytest.mark.parametrize(
    ("choice", "calls"),
    [("none", False), ("required", True), ({"type": "function", "function": {"name": "fly"}}, True)],
)
async def test_a_tool_choice_is_heeded(choice: Any, calls: bool) -> None:
    async with official() as at:
        found = await at.openai.chat.completions.create(model="m", messages=HI, tools=TOOLS, tool_choice=choice)
    assert bool(found.choices[0].message.tool_calls) == calls


async def test_the_slow_tier_is_half_the_price() -> None:
    async with official(prices=Prices(input_per_mtok=2_000_000, output_per_mtok=2_000_000)) as at:
        found = await at.openai.chat.completions.create(model="m", messages=HI, service_tier="flex")
        assert found.usage is not None
        assert at.bill["billed_microusd"] == found.usage.total_tokens
    assert found.service_tier == "flex"


async def test_a_long_prompt_is_found_in_the_cache_the_second_time() -> None:
    long: list[Any] = [{"role": "system", "content": "be brief " * 600}, {"role": "user", "content": "hi"}]
    async with official(prices=Prices(input_per_mtok=10_000_000, output_per_mtok=0)) as at:
        first, second = [await at.openai.chat.completions.create(model="m", messages=long) for _ in range(2)]
    assert first.usage is not None
    assert second.usage is not None
    assert first.usage.prompt_tokens_details is not None
    assert second.usage.prompt_tokens_details is not None
    assert first.usage.prompt_tokens_details.cached_tokens == 0
    cached = second.usage.prompt_tokens_details.cached_tokens or 0
    assert (cached >= 1024, cached % 128) == (True, 0)
    assert at.bill["billed_microusd"] == 20 * first.usage.prompt_tokens - 9 * cached


# --- the older completions, embeddings, models -----------------------------------------------------------------------


async def test_the_older_completions_are_spoken_too() -> None:
    async with official() as at:
        found = await at.openai.completions.create(model="m", prompt="a swan is", logprobs=2, max_tokens=3, n=2)
        checked(found)
        stream = await at.openai.completions.create(model="m", prompt="a swan is", max_tokens=3, stream=True)
        chunks = [chunk async for chunk in stream]
        whole = await at.openai.completions.create(model="m", prompt="a swan is", max_tokens=3)
    logprobs = found.choices[0].logprobs
    assert logprobs is not None
    assert "".join(logprobs.tokens or ()) == found.choices[0].text
    assert logprobs.text_offset is not None
    assert logprobs.text_offset[0] == len("a swan is")
    assert "".join(chunk.choices[0].text for chunk in chunks) == whole.choices[0].text


async def test_equal_texts_have_equal_vectors_and_shared_words_near_ones() -> None:
    async with official() as at:
        found = await at.openai.embeddings.create(model="m", input=["red bird", "red bird sings", "old mill"])
        checked(found)
        small = await at.openai.embeddings.create(model="m", input="red bird", dimensions=8, encoding_format="float")
        assert at.bill["billed_tokens"] == found.usage.total_tokens + small.usage.total_tokens
    near, far = (
        sum(one * other for one, other in zip(found.data[0].embedding, found.data[at_].embedding, strict=True))
        for at_ in (1, 2)
    )
    assert near > far
    assert len(small.data[0].embedding) == 8


async def test_models_are_listed_and_any_may_be_asked_about() -> None:
    async with official() as at:
        assert [checked(model) and model.id async for model in at.openai.models.list()] == ["mock-large", "mock-small"]
        assert (await at.openai.models.retrieve("org/some-model")).id == "org/some-model"


# --- responses -------------------------------------------------------------------------------------------------------


async def test_a_response_tells_its_thoughts_in_summary_and_sealed() -> None:
    async with official() as at:
        found = await at.openai.responses.create(
            model="m",
            input="hi",
            store=False,
            reasoning={"effort": "low", "summary": "auto"},
            include=["reasoning.encrypted_content"],
        )
        checked(found)
        assert found.usage is not None
        assert at.bill["billed_tokens"] == found.usage.total_tokens
    thought: Any = found.output[0]
    assert (thought.type, len(thought.summary[0].text.split())) == ("reasoning", 4)
    assert base64.b64decode(thought.encrypted_content)
    assert found.usage.output_tokens_details.reasoning_tokens == 4
    assert found.output_text


async def test_thoughts_can_be_handed_back() -> None:
    async with official() as at:
        first = await at.openai.responses.create(model="m", input="hi", reasoning={"effort": "low"}, store=False)
        items = [item.model_dump(exclude_none=True) for item in first.output]
        again: list[Any] = [{"role": "user", "content": "hi"}, *items, {"role": "user", "content": "and?"}]
        assert (await at.openai.responses.create(model="m", input=again, store=False)).output_text


async def test_a_response_calls_a_tool_and_takes_its_result() -> None:
    tools: Any = [{"type": "function", **FLY}]
    async with official() as at:
        called = await at.openai.responses.create(model="m", input="hi", tools=tools)
        checked(called)
        call: Any = called.output[0]
        result = {"type": "function_call_output", "call_id": call.call_id, "output": "it flew"}
        given: list[Any] = [{"role": "user", "content": "hi"}, call.model_dump(exclude_none=True), result]
        told = await at.openai.responses.create(model="m", input=given, tools=tools)
    assert (call.type, call.name) == ("function_call", "fly")
    assert Bird.model_validate_json(call.arguments)
    assert told.output_text


async def test_a_response_keeps_to_a_schema() -> None:
    async with official() as at:
        found = await at.openai.responses.parse(model="m", input="hi", text_format=Bird)
    assert isinstance(found.output_parsed, Bird)


async def test_a_response_gives_log_probabilities_to_whoever_includes_them() -> None:
    async with official() as at:
        found = await at.openai.responses.create(
            model="m", input="hi", include=["message.output_text.logprobs"], top_logprobs=3
        )
        checked(found)
    message: Any = found.output[0]
    part = message.content[0]
    assert "".join(token.token for token in part.logprobs) == part.text
    assert {len(token.top_logprobs) for token in part.logprobs} == {3}


async def test_a_response_that_is_too_long_is_incomplete() -> None:
    async with official() as at:
        found = await at.openai.responses.create(model="m", input="hi", max_output_tokens=2)
        checked(found)
    assert found.status == "incomplete"
    assert found.incomplete_details is not None
    assert found.incomplete_details.reason == "max_output_tokens"


@pytest.mark.parametrize(
    "asked",
    [
        {"reasoning": {"effort": "low", "summary": "auto"}},
        {"include": ["message.output_text.logprobs"], "top_logprobs": 2},
        {"tools": [{"type": "function", **FLY}]},
        {"max_output_tokens": 2},
    ],
)
async def test_a_streamed_response_ends_with_the_whole_one(asked: Any) -> None:
    async with official() as at:
        whole = await at.openai.responses.create(model="m", input="hi", **asked)
        stream = await at.openai.responses.create(model="m", input="hi", stream=True, **asked)
        events = [event async for event in stream if checked(event)]
        async with at.openai.responses.stream(model="m", input="hi", **asked) as held:
            seen = [event.type async for event in held]
    assert events[-1].response == whole
    assert [event.sequence_number for event in events] == list(range(len(events)))
    deltas = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert deltas == whole.output_text
    assert seen[0] == "response.created"


async def test_a_response_refuses_what_needs_a_memory() -> None:
    async with official() as at:
        with pytest.raises(openai.BadRequestError, match="keeps no conversations"):
            await at.openai.responses.create(model="m", input="hi", previous_response_id="resp_1")


# --- refusals, keys, limits ------------------------------------------------------------------------------------------


async def test_errors_have_the_vendors_shape() -> None:
    async with official() as at:
        with pytest.raises(openai.RateLimitError) as limited:
            await at.openai.chat.completions.create(model="m", messages=[{"role": "user", "content": "fault:429"}])
        with pytest.raises(openai.InternalServerError) as failed:
            await at.openai.responses.create(model="m", input="fault:500")
    assert (limited.value.code, limited.value.type) == ("rate_limit_exceeded", "rate_limit_error")
    assert failed.value.type == "server_error"
    assert failed.value.request_id is not None


async def test_a_key_can_be_required() -> None:
    async with official(key="secret") as at:
        with pytest.raises(openai.AuthenticationError) as refused:
            await at.openai.models.list()
        keyed = at.openai.with_options(api_key="secret")
        assert (await keyed.chat.completions.create(model="m", messages=HI)).choices
    assert refused.value.code == "invalid_api_key"


async def test_limits_on_requests_and_tokens_are_told() -> None:
    now = [0.0]
    limits = {"rate_limit": RateLimit(per_s=2, burst=2), "token_limit": RateLimit(per_s=100, burst=200)}
    async with official(clock=lambda: now[0], **limits) as at:
        raw = at.openai.chat.completions.with_raw_response
        first = (await raw.create(model="m", messages=HI, max_tokens=100)).headers
        with pytest.raises(openai.RateLimitError, match="on tokens") as refused:
            await raw.create(model="m", messages=HI, max_tokens=100)
    assert (first["x-ratelimit-limit-requests"], first["x-ratelimit-limit-tokens"]) == ("120", "6000")
    assert (first["x-ratelimit-remaining-requests"], first["x-ratelimit-remaining-tokens"]) == ("1", "95")
    assert (first["x-ratelimit-reset-requests"], first["x-ratelimit-reset-tokens"]) == ("500ms", "1.05s")
    assert refused.value.response.headers["retry-after-ms"] == "100"


async def test_a_server_may_tell_nothing_of_its_limits() -> None:
    async with official(rate_limit=RateLimit(per_s=0.001, burst=1), told=False) as at:
        await at.openai.chat.completions.create(model="m", messages=HI)
        with pytest.raises(openai.RateLimitError) as refused:
            await at.openai.chat.completions.create(model="m", messages=HI)
    assert not [name for name in refused.value.response.headers if "ratelimit" in name or "retry" in name]


@pytest.mark.parametrize(
    ("seconds", "spelt"),
    [(0, "0ms"), (0.25, "250ms"), (1, "1s"), (1.5, "1.5s"), (360, "6m0s"), (3600, "1h0m0s"), (3725.5, "1h2m5.5s")],
)
def test_a_duration_is_spelt_as_openai_does(seconds: float, spelt: str) -> None:
    assert duration(seconds) == spelt


# --- faults ----------------------------------------------------------------------------------------------------------

SLOW_TO_MEET = {"gzip-bomb", "endless-body", "timeout", "slow-headers", "slow-body", "endless-continue"}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.filterwarnings("default")  # what a client says about a spoilt answer is its own affair
async def test_every_fault_is_met_in_responses_too_and_nobody_else_suffers(stream: bool) -> None:
    met = [name for name, kind in KINDS.items() if "responses" in kind.apis and kind.place == "answer"]
    # A connection over which too much was sent is of no use to the next question, and this client would not notice.
    once = httpx2.AsyncClient(limits=httpx2.Limits(max_keepalive_connections=0))
    async with official(slow_s=0.05) as at, once:
        spoilt = at.openai.with_options(http_client=once)
        for name in sorted(set(met) - SLOW_TO_MEET):
            await _ask_for(spoilt, f"fault:{name}*1", stream)
            assert at.mock.bill.requests_by_kind[name] == 1
            whole = await at.openai.responses.create(model="m", input=f"fault:{name}*1")
            assert (whole.status, bool(whole.output_text)) == ("completed", True)


async def _ask_for(client: openai.AsyncOpenAI, text: str, stream: bool) -> None:
    try:
        found: Any = await client.responses.create(model="m", input=text, stream=stream, timeout=5)
        _ = [event async for event in found] if stream else found
    except (openai.OpenAIError, httpx2.HTTPError, TypeError, ValueError, AttributeError, RecursionError):
        pass  # the official client has no words for some of them


def test_the_client_that_waits_works_as_well() -> None:
    async def in_a_thread() -> None:
        async with official() as at:
            await asyncio.to_thread(_ask_waiting, at.mock.base_url)

    asyncio.run(in_a_thread())


def _ask_waiting(url: str) -> None:
    with openai.OpenAI(base_url=url, api_key="any", max_retries=0) as client:
        assert client.chat.completions.create(model="m", messages=HI).choices[0].message.content
        with client.chat.completions.create(model="m", messages=HI, stream=True) as stream:
            assert len(list(stream)) > 2
        assert client.responses.create(model="m", input="hi").output_text
        assert json.loads(client.models.list().to_json())["object"] == "list"
