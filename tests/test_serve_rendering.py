"""Answers in a client's wire format are what the client's own types say they are, and the same each time."""

from __future__ import annotations

from typing import Any, get_args

import anthropic
import httpx2
import openai
import orjson
import pytest
from call_samples import MADE, TALKS, WIRES, asked, calls_of, chat, messages, read, replies_to, responses, taken
from hypothesis import given, settings
from hypothesis import strategies as st

from corpusgen.errors import InvalidAnswer
from corpusgen.records import Completion, FinishReason, Json, TokenLogprobs, Usage
from corpusgen.serve.wires.calls import BadCall, Call, Wire, read_call
from corpusgen.serve.wires.rendering import probe_answer, rendered, written
from corpusgen.serve.wires.replay import events_of

USAGE = Usage(
    input_tokens=100,
    output_tokens=20,
    cached_input_tokens=30,
    cache_write_tokens=10,
    cache_write_1h_tokens=4,
    reasoning_tokens=5,
)
CALLS = '[{"id":"call_1","type":"function","function":{"name":"weather","arguments":"{\\"city\\":\\"Rome\\"}"}}]'


def said(**fields: object) -> Completion:
    return Completion(**{"text": "grey stones", "finish_reason": "stop", "usage": USAGE, **fields})  # type: ignore[arg-type]


def told(call: Call, *completions: Completion) -> bytes:
    return rendered(call, completions, api="scripted", body=b"", created=1_700_000_000, name="r1")  # type: ignore[arg-type]


@pytest.mark.parametrize("api", TALKS)
@pytest.mark.parametrize("wire", TALKS)
def test_every_answer_of_the_mock_teacher_is_one_to_the_clients_own_types(wire: Wire, api: Wire) -> None:
    answers = 0
    for body in calls_of(wire):
        try:
            call, request = asked(body, wire, api)
        except BadCall:
            continue
        for reply in replies_to(request):
            try:
                completions = read(request, reply)
            except InvalidAnswer:
                continue
            if wire == api:
                assert rendered(call, completions, api=api, body=reply, created=1, name="r") is reply
            taken(wire, written(call, completions, created=1, name="r"))
            answers += 1
    assert answers > 30


def test_completions_written_anew_are_what_the_teacher_said() -> None:
    for body in calls_of("completion"):
        call, request = asked(body, "completion")
        for reply in replies_to(request):
            try:
                completions = read(request, reply)
            except InvalidAnswer:
                continue
            answer = orjson.loads(written(call, completions, created=1, name="r"))
            taken("completion", orjson.dumps(answer))
            assert [choice["text"] for choice in answer["choices"]] == [one.text for one in completions]
            told_of = [choice["logprobs"] is not None for choice in answer["choices"]]
            assert told_of == [one.logprobs is not None for one in completions]


@pytest.mark.parametrize("wire", WIRES)
def test_a_replay_has_the_same_bytes(wire: Wire) -> None:
    for body in calls_of(wire):
        call = read_call(wire, body)
        assert told(call, said(tool_calls=CALLS)) == told(call, said(tool_calls=CALLS))


@pytest.mark.parametrize("wire", WIRES)
def test_who_asks_nothing_is_answered_nothing_at_no_cost(wire: Wire) -> None:
    empty = {"chat": chat(messages=[]), "messages": messages(messages=[]), "responses": responses("")}
    call = read_call(wire, empty.get(wire, {"model": "m", "prompt": ""}))
    assert call.probe
    usage = orjson.loads(probe_answer(call))["usage"]
    assert usage.get("total_tokens", 0) == usage.get("output_tokens", 0) == 0
    taken(wire, probe_answer(call))


def test_each_vendor_counts_cached_tokens_its_own_way() -> None:
    in_chat = orjson.loads(told(read_call("chat", chat()), said()))["usage"]
    in_messages = orjson.loads(told(read_call("messages", messages()), said()))["usage"]
    assert (in_chat["prompt_tokens"], in_chat["prompt_tokens_details"]["cached_tokens"]) == (100, 30)
    assert in_chat["completion_tokens_details"]["reasoning_tokens"] == 5
    assert (in_messages["input_tokens"], in_messages["cache_read_input_tokens"]) == (60, 30)
    assert in_messages["cache_creation"] == {"ephemeral_5m_input_tokens": 6, "ephemeral_1h_input_tokens": 4}


@pytest.mark.parametrize(
    ("wire", "finish"),
    [("chat", "tool_calls"), ("messages", "tool_use"), ("responses", "completed")],
)
def test_calls_of_tools_come_with_the_word_for_them(wire: Wire, finish: str) -> None:
    body = {"chat": chat(), "messages": messages(), "responses": responses()}[wire]
    raw = told(read_call(wire, body), said(text="", finish_reason="tool_calls", tool_calls=CALLS))
    taken(wire, raw)
    answer = orjson.loads(raw)
    found = {
        "chat": lambda: (answer["choices"][0]["finish_reason"], answer["choices"][0]["message"]["tool_calls"][0]["id"]),
        "messages": lambda: (answer["stop_reason"], answer["content"][0]["id"]),
        "responses": lambda: (answer["status"], answer["output"][0]["call_id"]),
    }[wire]()
    assert found == (finish, "call_1")


def test_a_call_without_an_id_gets_one_that_a_replay_gets_again() -> None:
    call = '[{"type":"function","function":{"name":"weather","arguments":{"city":"Rome"}}}]'
    answer = orjson.loads(told(read_call("chat", chat()), said(tool_calls=call)))
    assert answer["choices"][0]["message"]["tool_calls"] == [
        {"id": "call_r1-0-0", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Rome"}'}}
    ]


def test_arguments_that_were_cut_off_are_none_in_messages() -> None:
    cut = CALLS.replace('Rome\\"}', "")
    raw = told(read_call("messages", messages()), said(text="", finish_reason="length", tool_calls=cut))
    answer = orjson.loads(raw)
    taken("messages", raw)
    assert (answer["content"][0]["input"], answer["stop_reason"]) == ({}, "max_tokens")


def test_only_signed_thinking_is_a_block_of_thinking() -> None:
    call, parts = read_call("messages", messages()), '[{"type":"thinking","thinking":"hm","signature":"c2ln"}]'
    unsigned = orjson.loads(told(call, said(reasoning="hm", trace_kind="raw")))
    signed = orjson.loads(told(call, said(reasoning="hm", trace_kind="summary", reasoning_parts=parts)))
    assert [block["type"] for block in unsigned["content"]] == ["text"]
    assert [block["type"] for block in signed["content"]] == ["thinking", "text"]


def test_reasoning_is_told_where_each_client_looks_for_it() -> None:
    in_chat = orjson.loads(told(read_call("chat", chat()), said(reasoning="hm", trace_kind="raw")))
    item = orjson.loads(told(read_call("responses", responses()), said(reasoning="hm", trace_kind="raw")))["output"][0]
    assert in_chat["choices"][0]["message"]["reasoning_content"] == "hm"
    assert item["content"] == [{"type": "reasoning_text", "text": "hm"}]


@pytest.mark.parametrize("wire", TALKS)
@pytest.mark.parametrize("text", ["I cannot.", "", "Well, "])
def test_a_refusal_is_a_refusal_in_every_format(wire: Wire, text: str) -> None:
    body = {"chat": chat(), "messages": messages(), "responses": responses()}[wire]
    raw = told(read_call(wire, body), said(text=text, finish_reason="refusal", refusal="I cannot."))
    taken(wire, raw)
    assert b"I cannot." in raw
    if wire == "chat":
        assert orjson.loads(raw)["choices"][0]["message"]["refusal"] == "I cannot."
    if wire == "messages":
        assert orjson.loads(raw)["stop_reason"] == "refusal"


def test_log_probabilities_keep_their_bytes_where_a_token_is_half_a_character() -> None:
    half = TokenLogprobs(
        token_bytes=(b"\xe2\x80", b"a"),
        token_ids=None,
        token_logprobs=(-0.5, None),
        topk_bytes=(b"\xe2\x80", b"b", b"a"),
        topk_ids=None,
        topk_logprobs=(-0.5, -1.5, None),
        topk_len=(2, 1),
    )
    call = read_call("chat", chat(logprobs=True, top_logprobs=2))
    raw = told(call, said(logprobs=half))
    content = orjson.loads(raw)["choices"][0]["logprobs"]["content"]
    taken("chat", raw)
    assert [(one["token"], one["bytes"], one["logprob"]) for one in content] == [
        ("bytes:\\xe2\\x80", [0xE2, 0x80], -0.5),
        ("a", [97], -9999.0),
    ]
    assert [len(one["top_logprobs"]) for one in content] == [2, 1]


def test_log_probabilities_nobody_asked_for_are_not_told() -> None:
    one = TokenLogprobs(
        token_bytes=(b"a",),
        token_ids=None,
        token_logprobs=(-0.5,),
        topk_bytes=(),
        topk_ids=None,
        topk_logprobs=(),
        topk_len=(0,),
    )
    answer = orjson.loads(told(read_call("chat", chat()), said(logprobs=one)))
    assert answer["choices"][0]["logprobs"] is None


VALUES = st.recursive(st.none() | st.booleans() | st.integers(0, 9) | st.text(max_size=5), st.lists, max_leaves=3)
CALL = st.fixed_dictionaries(
    {},
    optional={
        "id": VALUES,
        "type": VALUES,
        "function": VALUES
        | st.fixed_dictionaries({}, optional={"name": VALUES, "arguments": VALUES | st.just('{"a":1}')}),
    },
)
PART = st.fixed_dictionaries(
    {"type": st.sampled_from(["thinking", "redacted_thinking", "reasoning.text"]) | VALUES},
    optional={"thinking": VALUES, "signature": VALUES, "data": VALUES},
)


@pytest.mark.parametrize("wire", WIRES)
@settings(max_examples=100, deadline=None)
@given(
    calls=st.none() | st.lists(CALL | VALUES, max_size=3),
    parts=st.none() | st.lists(PART | VALUES, max_size=3),
    text=st.text(max_size=5),
    refusal=st.none() | st.text(max_size=5),
    finish=st.sampled_from(get_args(FinishReason)),
)
def test_whatever_a_teacher_was_understood_to_say_is_an_answer(
    wire: Wire, calls: Json, parts: Json, text: str, refusal: str | None, finish: FinishReason
) -> None:
    completion = said(
        text=text,
        refusal=refusal,
        finish_reason=finish,
        tool_calls=None if calls is None else orjson.dumps(calls).decode(),
        reasoning_parts=None if parts is None else orjson.dumps(parts).decode(),
    )
    taken(wire, told(read_call(wire, MADE[wire]()), completion))


def test_tools_are_told_back_as_the_client_wrote_them() -> None:
    tools = [{"type": "function", "name": "f"}, {"type": "custom", "name": "g"}]
    call = read_call("responses", responses(tools=tools, tool_choice={"type": "function", "name": "f"}))
    answer = taken("responses", told(call, said()))
    assert [tool.name for tool in answer.tools] == ["f", "g"]  # type: ignore[attr-defined]  # it is a Response


class Told:
    """The official clients, for whom each answer is written anew and told as a stream."""

    def __init__(self, completion: Completion) -> None:
        self.completion = completion
        http: Any = httpx2.MockTransport(self._answer)
        client = httpx2.Client(transport=http)
        self.openai = openai.OpenAI(base_url="http://here/v1", api_key="k", max_retries=0, http_client=client)
        self.anthropic = anthropic.Anthropic(base_url="http://here", api_key="k", max_retries=0, http_client=client)

    def _answer(self, request: httpx2.Request) -> httpx2.Response:
        wires: dict[str, Wire] = {"/v1/chat/completions": "chat", "/v1/responses": "responses"}
        call = read_call(wires.get(request.url.path, "messages"), orjson.loads(request.content))
        events = b"".join(events_of(call.wire, told(call, self.completion), usage=True))
        return httpx2.Response(200, content=events, headers={"content-type": "text/event-stream"})


def test_an_answer_written_anew_is_one_to_the_clients_streams_too() -> None:
    clients = Told(said(finish_reason="tool_calls", tool_calls=CALLS, reasoning="hm", trace_kind="raw"))
    turns: Any = chat("hi")["messages"]
    with clients.openai.chat.completions.stream(model="m", messages=turns) as stream:
        choice = stream.get_final_completion().choices[0]
    with clients.openai.responses.stream(model="m", input="hi") as events:
        items = events.get_final_response().output
    with clients.anthropic.messages.stream(model="m", max_tokens=9, messages=turns) as blocks:
        content = blocks.get_final_message().content
    assert (choice.message.content, choice.finish_reason) == ("grey stones", "tool_calls")
    assert [item.type for item in items] == ["reasoning", "message", "function_call"]
    assert [block.type for block in content] == ["text", "tool_use"]
