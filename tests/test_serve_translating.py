"""What is asked in one wire format reaches a teacher that speaks another, whole, or is refused by its field."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from call_samples import CARD, FORMS, TALKS, TOOLS, WEATHER, asked, chat, completion, messages, responses
from hypothesis import given, settings
from hypothesis import strategies as st

from corpusgen.records import Json, Request
from corpusgen.serve.wires.calls import BadCall, Wire, read_call
from corpusgen.serve.wires.from_messages import chat_of_messages
from corpusgen.serve.wires.left_out import left_out
from corpusgen.serve.wires.translating import in_wire, request_of_call
from corpusgen.teachers.reading import body_of


def sent(body: dict[str, Any], wire: Wire, api: Wire) -> dict[str, Any]:
    """What a teacher of one wire format is sent for a call in another."""
    whole: dict[str, Any] = orjson.loads(body_of(asked(body, wire, api)[1]))
    return whole


def refused(body: dict[str, Any], wire: Wire, api: Wire) -> str | None:
    with pytest.raises(BadCall) as caught:
        in_wire(read_call(wire, body), api)
    assert str(caught.value.field) in str(caught.value)
    return caught.value.field


CALLED: dict[Wire, list[Json]] = {
    "chat": [
        {"role": "user", "content": "weather?"},
        {
            "role": "assistant",
            "content": "Let me look.",
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Rome"}'}},
                {"id": "c2", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Oslo"}'}},
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
        {"role": "tool", "tool_call_id": "c2", "content": "snow"},
        {"role": "user", "content": "and now?"},
    ],
    "messages": [
        {"role": "user", "content": "weather?"},
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "Let me look."},
                {"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Rome"}},
                {"type": "tool_use", "id": "c2", "name": "weather", "input": {"city": "Oslo"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "c1", "content": "sunny"},
                {"type": "tool_result", "tool_use_id": "c2", "content": "snow"},
            ],
        },
        {"role": "user", "content": "and now?"},
    ],
    "responses": [
        {"role": "user", "content": "weather?"},
        {"role": "assistant", "content": "Let me look."},
        {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": '{"city":"Rome"}'},
        {"type": "function_call", "call_id": "c2", "name": "weather", "arguments": '{"city":"Oslo"}'},
        {"type": "function_call_output", "call_id": "c1", "output": "sunny"},
        {"type": "function_call_output", "call_id": "c2", "output": "snow"},
        {"role": "user", "content": "and now?"},
    ],
}
"""One conversation in each wire format."""
BODIES: dict[Wire, dict[str, Any]] = {
    "chat": chat(messages=[{"role": "system", "content": "be brief"}, *CALLED["chat"]], tools=TOOLS["chat"]),
    "messages": messages(messages=CALLED["messages"], system="be brief", tools=TOOLS["messages"]),
    "responses": responses(input=CALLED["responses"], instructions="be brief", tools=TOOLS["responses"]),
}


@pytest.mark.parametrize("api", TALKS)
@pytest.mark.parametrize("wire", TALKS)
def test_a_conversation_with_tools_is_the_same_to_every_teacher(wire: Wire, api: Wire) -> None:
    body = sent(BODIES[wire], wire, api)
    turns, system = body.get("input", body.get("messages")), [{"role": "system", "content": "be brief"}]
    assert turns == (CALLED[api] if api == "messages" else system + CALLED[api])
    assert body.get("system", "be brief") == "be brief"
    (tool,) = body["tools"]
    told = tool["function"] if api == "chat" else tool
    assert told["name"] == "weather"
    assert WEATHER in told.values()


@pytest.mark.parametrize("api", TALKS)
@pytest.mark.parametrize("wire", TALKS)
def test_a_schema_reaches_every_teacher(wire: Wire, api: Wire) -> None:
    base = {"chat": chat, "messages": messages, "responses": responses}[wire]
    body = sent(base(**FORMS[wire]), wire, api)
    found = {
        "chat": lambda: body["response_format"]["json_schema"]["schema"],
        "messages": lambda: body["output_config"]["format"]["schema"],
        "responses": lambda: body["text"]["format"]["schema"],
    }[api]()
    assert found == WEATHER


@pytest.mark.parametrize(
    ("wire", "more"),
    [
        ("chat", {"reasoning_effort": "low", "max_completion_tokens": 9}),
        ("messages", {"output_config": {"effort": "low"}, "max_tokens": 9}),
        ("responses", {"reasoning": {"effort": "low"}, "max_output_tokens": 9}),
    ],
)
@pytest.mark.parametrize("api", TALKS)
def test_effort_and_length_reach_every_teacher(wire: Wire, more: dict[str, Json], api: Wire) -> None:
    base = {"chat": chat, "messages": messages, "responses": responses}[wire]
    request = asked(base(**more, temperature=0.5), wire, api)[1]
    assert request.parameters == {"reasoning_effort": "low", "max_tokens": 9, "temperature": 0.5}


CHOICES: list[tuple[Json, Json, Json]] = [
    ("auto", {"type": "auto"}, "auto"),
    ("none", {"type": "none"}, "none"),
    ("required", {"type": "any"}, "required"),
    (
        {"type": "function", "function": {"name": "weather"}},
        {"type": "tool", "name": "weather"},
        {"type": "function", "name": "weather"},
    ),
]


@pytest.mark.parametrize("api", TALKS)
@pytest.mark.parametrize("wire", TALKS)
@pytest.mark.parametrize("choices", CHOICES)
def test_the_choice_of_a_tool_reaches_every_teacher(choices: tuple[Json, ...], wire: Wire, api: Wire) -> None:
    of = dict(zip(TALKS, choices, strict=True))
    body = sent({**BODIES[wire], "tool_choice": of[wire]}, wire, api)
    assert body["tool_choice"] == of[api]


def test_one_tool_at_a_time_is_said_in_each_vendors_way() -> None:
    in_chat = {**BODIES["chat"], "parallel_tool_calls": False}
    alone = {"type": "any", "disable_parallel_tool_use": True}
    in_messages = {**BODIES["messages"], "tool_choice": alone}
    assert sent(in_chat, "chat", "messages")["tool_choice"] == {"type": "auto", "disable_parallel_tool_use": True}
    assert sent({**in_chat, "tool_choice": "required"}, "chat", "messages")["tool_choice"] == alone
    assert sent(in_messages, "messages", "chat")["parallel_tool_calls"] is False
    assert sent(in_messages, "messages", "responses")["tool_choice"] == "required"


def test_stop_sequences_have_each_vendors_name() -> None:
    assert sent(chat(stop="x"), "chat", "messages")["stop_sequences"] == ["x"]
    assert sent(messages(stop_sequences=["x"]), "messages", "chat")["stop"] == ["x"]


def test_thoughts_that_only_their_provider_can_read_are_left_out() -> None:
    thought = {"type": "thinking", "thinking": "hm", "signature": "c2ln"}
    turns = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": [thought, {"type": "text", "text": "b"}]},
    ]
    item = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"}
    told = sent(messages(messages=turns), "messages", "chat")["messages"]
    assert told == [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    asked_in_responses = responses(input=[{"role": "user", "content": "a"}, item])
    assert sent(asked_in_responses, "responses", "chat")["messages"] == told[:1]


def test_signed_thinking_in_a_chat_goes_back_to_who_signed_it() -> None:
    block = {"type": "thinking", "thinking": "hm", "signature": "c2ln"}
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "thinking_blocks": [block]}]
    (_, assistant) = sent(chat(messages=turns), "chat", "messages")["messages"]
    assert assistant["content"] == [block, {"type": "text", "text": "b"}]


USER = {"role": "user", "content": "a"}


def result(content: Json, **more: Json) -> list[Json]:
    """A conversation in which a tool has said something."""
    used = {"type": "tool_use", "id": "c1", "name": "weather", "input": {}}
    told = {"type": "tool_result", "tool_use_id": "c1", "content": content, **more}
    return [USER, {"role": "assistant", "content": [used]}, {"role": "user", "content": [told]}]


@pytest.mark.parametrize("content", ["no such city", [{"type": "text", "text": "no such city"}]])
def test_a_tool_that_failed_is_told_from_one_that_did_not(content: Json) -> None:
    failed = messages(messages=result(content, is_error=True), tools=TOOLS["messages"])
    said = '{"is_error":true,"content":"no such city"}'
    assert sent(failed, "messages", "chat")["messages"][-1]["content"] == said
    assert sent(failed, "messages", "responses")["input"][-1]["output"] == said
    worked = messages(messages=result(content, is_error=False), tools=TOOLS["messages"])
    assert sent(worked, "messages", "chat")["messages"][-1]["content"] == "no such city"


def test_a_tool_that_failed_without_a_word_is_told_too() -> None:
    failed = messages(messages=result(None, is_error=True), tools=TOOLS["messages"])
    assert sent(failed, "messages", "chat")["messages"][-1]["content"] == '{"is_error":true,"content":""}'


THOUGHT = {"type": "thinking", "thinking": "hm", "signature": "c2ln"}
MARK = {"type": "ephemeral"}
LOOSE: dict[str, Any] = {"type": "json_schema", "json_schema": {"name": "n", "strict": False, "schema": WEATHER}}
SAID = {"role": "assistant", "content": "b"}


@pytest.mark.parametrize(
    ("wire", "body", "api", "names"),
    [
        ("messages", messages(thinking={"type": "disabled"}), "chat", ["thinking"]),
        ("messages", messages(thinking={"type": "adaptive"}), "responses", ["thinking"]),
        (
            "messages",
            messages(messages=[USER, {"role": "assistant", "content": [THOUGHT, {"type": "text", "text": "b"}]}]),
            "chat",
            ["messages.content.thinking"],
        ),
        (
            "messages",
            messages(system=[{"type": "text", "text": "s", "cache_control": MARK}], cache_control=MARK),
            "chat",
            ["cache_control", "messages.content.cache_control"],
        ),
        (
            "messages",
            messages(tools=[{"name": "f", "input_schema": {}, "cache_control": MARK}]),
            "chat",
            ["tools.cache_control"],
        ),
        (
            "chat",
            chat(messages=[USER, {**SAID, "reasoning_content": "hm"}]),
            "messages",
            ["messages.reasoning_content"],
        ),
        ("chat", chat(messages=[USER, {**SAID, "thinking_blocks": [THOUGHT]}]), "messages", []),
        (
            "chat",
            chat(messages=[USER, {**SAID, "thinking_blocks": [THOUGHT]}]),
            "responses",
            ["messages.thinking_blocks"],
        ),
        (
            "responses",
            responses(include=["reasoning.encrypted_content"], reasoning={"effort": "low", "summary": "auto"}),
            "chat",
            ["include", "reasoning.summary"],
        ),
        (
            "responses",
            responses(input=[{"role": "user", "content": "a"}, {"type": "reasoning", "id": "r", "summary": []}]),
            "messages",
            ["input.reasoning"],
        ),
    ],
)
def test_what_is_left_out_on_the_way_is_named(wire: Wire, body: dict[str, Any], api: Wire, names: list[str]) -> None:
    call = read_call(wire, body)
    in_wire(call, api)
    assert list(left_out(call, api)) == names
    assert left_out(call, wire) == ()


def test_a_schema_that_only_hints_is_never_enforced() -> None:
    assert refused(chat(response_format=LOOSE), "chat", "messages") == "response_format.json_schema.strict"
    assert sent(chat(response_format=LOOSE), "chat", "responses")["text"]["format"]["strict"] is False
    strict = {**LOOSE, "json_schema": {**LOOSE["json_schema"], "strict": True}}
    assert sent(chat(response_format=strict), "chat", "messages")["output_config"]["format"]["schema"] == WEATHER


def test_a_function_that_is_not_strict_does_not_become_it_where_that_is_the_default() -> None:
    assert [tool["strict"] for tool in sent(BODIES["chat"], "chat", "responses")["tools"]] == [False]
    strict = [{"type": "function", "function": {**TOOLS["chat"][0]["function"], "strict": True}}]
    assert [tool["strict"] for tool in sent(chat(tools=strict), "chat", "responses")["tools"]] == [True]


def test_places_are_counted_as_the_client_counts_them() -> None:
    custom = {"type": "custom_tool_call", "call_id": "c", "name": "sql", "input": "x"}
    asked_for = {"input": [{"role": "user", "content": "a"}, custom]}
    assert refused(responses(**asked_for), "responses", "chat") == "input[1]"
    assert refused(responses(**asked_for, instructions="be brief"), "responses", "chat") == "input[1]"
    front = [{"role": "system", "content": "s"}, USER]
    for more in ({}, {"system": "be brief"}):
        call = read_call("messages", messages(messages=front, **more))
        assert chat_of_messages(call).places[-2:] == ["messages[0]", "messages[1]"]


def test_several_parts_stay_several() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    body = chat(messages=[{"role": "user", "content": parts}])
    assert sent(body, "chat", "messages")["messages"][0]["content"] == parts
    assert [part["type"] for part in sent(body, "chat", "responses")["input"][0]["content"]] == ["input_text"] * 2
    assert sent(messages(messages=body["messages"]), "messages", "chat")["messages"] == body["messages"]


def test_a_developers_text_is_system_text_to_anthropic() -> None:
    turns = [{"role": "developer", "content": "be brief"}, {"role": "user", "content": "a"}]
    assert sent(chat(messages=turns), "chat", "messages")["system"] == "be brief"


CUSTOM = [{"type": "custom", "custom": {"name": "sql"}}]
BROKEN = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{"}}
SYSTEM = {"role": "system", "content": "s"}


@pytest.mark.parametrize(
    ("wire", "body", "api", "field"),
    [
        ("chat", chat(n=2), "messages", "n"),
        ("chat", chat(n=2), "responses", "n"),
        ("chat", chat(temperature=1.5), "messages", "temperature"),
        ("chat", chat(response_format={"type": "json_object"}), "messages", "response_format"),
        ("chat", chat(service_tier="flex"), "messages", "service_tier"),
        ("chat", chat(tools=CUSTOM), "messages", "tools[0].type"),
        ("chat", chat(tools=CUSTOM), "responses", "tools[0].type"),
        ("chat", chat(tool_choice={"type": "allowed_tools"}), "messages", "tool_choice"),
        ("chat", chat(messages=[{**USER, "name": "Ann"}]), "messages", "messages[0].name"),
        ("chat", chat(messages=[USER, SYSTEM]), "messages", "messages[1].role"),
        (
            "chat",
            chat(messages=[USER, {"role": "assistant", "content": None, "tool_calls": [BROKEN]}]),
            "messages",
            "messages[1].tool_calls[0].function.arguments",
        ),
        (
            "messages",
            messages(max_tokens=4000, thinking={"type": "enabled", "budget_tokens": 2000}),
            "chat",
            "thinking.budget_tokens",
        ),
        ("messages", messages(speed="fast"), "chat", "speed"),
        ("messages", messages(inference_geo="us"), "chat", "inference_geo"),
        ("messages", messages(tools=[{"type": "bash_20250124", "name": "bash"}]), "chat", "tools[0].type"),
        (
            "messages",
            messages(tools=[{"name": "f", "input_schema": {}, "input_examples": [{}]}]),
            "chat",
            "tools[0].input_examples",
        ),
        ("responses", responses(truncation="auto"), "chat", "truncation"),
        ("responses", responses(max_tool_calls=2), "messages", "max_tool_calls"),
        ("responses", responses(reasoning={"mode": "pro"}), "chat", "reasoning.mode"),
        ("responses", responses(tools=[{"type": "custom", "name": "sql"}]), "chat", "tools[0].type"),
        ("completion", completion(), "chat", "model"),
        ("chat", chat(), "completion", "model"),
    ],
)
def test_what_the_other_format_cannot_say_is_refused_by_its_field(
    wire: Wire, body: dict[str, Any], api: Wire, field: str
) -> None:
    assert refused(body, wire, api) == field


@pytest.mark.parametrize("wire", TALKS)
def test_in_the_same_format_nothing_is_changed(wire: Wire) -> None:
    call = read_call(wire, BODIES[wire])
    said = in_wire(call, wire)
    assert (said.messages, said.parameters, said.tools, said.schema) == (
        call.messages,
        call.parameters,
        call.tools,
        call.schema,
    )


def limited(body: dict[str, Any], wire: Wire = "chat", **more: Any) -> Request:
    defaults = {"max_tokens": 100, "temperature": 0.5}
    return request_of_call(read_call(wire, body), api=wire, card=CARD, defaults=defaults, sample=2, **more)


def test_what_the_client_leaves_open_is_as_configured() -> None:
    request = limited(chat(temperature=0))
    assert (request.parameters, request.sample_index) == ({"max_tokens": 100, "temperature": 0}, 2)
    assert (request.teacher, request.model) == (CARD.identity, "m-1")


def test_more_than_the_configured_most_is_refused_with_the_limit() -> None:
    with pytest.raises(BadCall, match="max_output_tokens: is at most 100 for this teacher, found 101") as caught:
        limited(responses(max_output_tokens=101), "responses")
    assert caught.value.field == "max_output_tokens"
    assert limited(chat(max_tokens=101), most=200).parameters["max_tokens"] == 101


def test_a_call_without_a_limit_anywhere_is_refused() -> None:
    with pytest.raises(BadCall, match="max_tokens: is needed"):
        request_of_call(read_call("chat", chat()), api="chat", card=CARD, defaults={}, sample=0)


# --- there and back ---------------------------------------------------------------------------------------------------

WORDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12).filter(str.strip)
PARTS = st.lists(WORDS, min_size=1, max_size=3).map(lambda texts: [{"type": "text", "text": text} for text in texts])
CONTENT = WORDS | PARTS.filter(lambda parts: len(parts) > 1)
INPUTS = st.dictionaries(WORDS, st.none() | st.booleans() | st.integers(-9, 9) | WORDS, max_size=3)


@st.composite
def with_tools(draw: st.DrawFn, at: int) -> list[Json]:
    """An assistant's turn that calls tools, and what they say."""
    names = [f"c{at}-{number}" for number in range(draw(st.integers(1, 3)))]
    inputs = {name: orjson.dumps(draw(INPUTS), option=orjson.OPT_SORT_KEYS).decode() for name in names}
    calls = [{"id": name, "type": "function", "function": {"name": "f", "arguments": inputs[name]}} for name in names]
    said = {"role": "assistant", "content": draw(st.none() | WORDS), "tool_calls": calls}
    return [said, *({"role": "tool", "tool_call_id": name, "content": draw(CONTENT)} for name in names)]


@st.composite
def conversations(draw: st.DrawFn) -> list[Json]:
    turns: list[Json] = [{"role": "system", "content": draw(CONTENT)}] if draw(st.booleans()) else []
    for at in range(draw(st.integers(1, 4))):
        turns.append({"role": "user", "content": draw(CONTENT)})
        turns += draw(with_tools(at)) if draw(st.booleans()) else [{"role": "assistant", "content": draw(CONTENT)}]
    return turns


@pytest.mark.parametrize("through", ["messages", "responses"])
@settings(max_examples=100, deadline=None)
@given(turns=conversations())
def test_a_chat_that_went_through_another_format_is_the_same_chat(through: Wire, turns: list[Json]) -> None:
    there = sent(chat(messages=turns), "chat", through)
    kept: dict[str, Any] = {
        name: there[name] for name in ("model", "messages", "system", "input", "max_tokens") if name in there
    }
    back = sent(kept, through, "chat")
    assert back["messages"] == turns
