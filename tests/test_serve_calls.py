"""What clients send is read whole, or refused in words that name the field."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import anthropic
import httpx2
import openai
import orjson
import pytest
from call_samples import (
    CARD,
    FORMS,
    MADE,
    TALKS,
    TOOLS,
    WEATHER,
    WIRES,
    calls_of,
    chat,
    completion,
    messages,
    responses,
)
from call_samples import asked as asked_of
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from corpusgen.errors import RequestRefused
from corpusgen.mock.answer import DIALECT_OF, answer_to
from corpusgen.mock.question import NotARequest
from corpusgen.records import Json, Message, Request
from corpusgen.serve.wires.calls import KNOWN, BadCall, Call, Wire, read_call
from corpusgen.serve.wires.translating import in_wire
from corpusgen.teachers.reading import body_of


def refused(wire: Wire, body: Any) -> BadCall:
    with pytest.raises(BadCall) as caught:
        read_call(wire, body)
    return caught.value


def test_a_client_may_ask_for_old_parts_to_be_left_out_and_is_told_that_they_are_not() -> None:
    edits = [{"type": "clear_thinking_20251015", "keep": "all"}, {"type": "clear_tool_uses_20250919"}]
    call = read_call("messages", messages(context_management={"edits": edits}))
    assert (call.ignored, call.parameters) == (("context_management",), read_call("messages", messages()).parameters)


def test_a_summary_in_the_place_of_turns_is_refused() -> None:
    error = refused("messages", messages(context_management={"edits": [{"type": "compact_20260112"}]}))
    assert error.field == "context_management.edits[0].type"


# --- plain turns ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wire", "body"),
    [
        ("chat", chat("hi")),
        ("chat", chat(messages=[{"role": "user", "content": [{"type": "text", "text": "hi"}], "name": None}])),
        ("messages", messages("hi")),
        ("messages", messages(messages=[{"role": "user", "content": [{"type": "text", "text": "hi"}]}])),
        ("responses", responses("hi")),
        ("responses", responses(input=[{"role": "user", "content": [{"type": "input_text", "text": "hi"}]}])),
        (
            "responses",
            responses(input=[{"type": "message", "role": "user", "content": "hi", "id": "m", "status": "x"}]),
        ),
        ("completion", completion("hi")),
        ("completion", completion(prompt=["hi"])),
    ],
)
def test_a_turn_that_is_text_is_the_turn_a_spec_would_send(wire: Wire, body: dict[str, Any]) -> None:
    assert read_call(wire, body).messages == (Message(role="user", content="hi"),)


@pytest.mark.parametrize("wire", ["chat", "messages", "responses"])
def test_a_system_text_is_the_first_turn_wherever_it_was_written(wire: Wire) -> None:
    first = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}]
    body = {
        "chat": chat(messages=first),
        "messages": messages("hi", system="be brief"),
        "responses": responses("hi", instructions="be brief"),
    }[wire]
    assert [(one.role, one.content, one.given) for one in read_call(wire, body).messages] == [
        ("system", "be brief", None),
        ("user", "hi", None),
    ]


def test_the_answer_of_an_sdk_handed_back_is_a_plain_turn() -> None:
    answered: dict[str, Json] = {"role": "assistant", "content": "a", "refusal": None, "annotations": [], "audio": None}
    turns = [*chat("hi")["messages"], {**answered, "function_call": None, "tool_calls": None}, *chat("b")["messages"]]
    assert [one.given for one in read_call("chat", chat(messages=turns)).messages] == [None, None, None]


def test_several_parts_of_text_are_kept_as_they_are() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    (turn,) = read_call("chat", chat(messages=[{"role": "user", "content": parts}])).messages
    assert (turn.content, orjson.loads(turn.given or "")) == ("ab", {"role": "user", "content": parts})


def test_marks_for_the_cache_are_kept() -> None:
    block = {"type": "text", "text": "be brief", "cache_control": {"type": "ephemeral"}}
    first = read_call("messages", messages(system=[block])).messages[0]
    assert (first.role, first.content) == ("system", "be brief")
    assert orjson.loads(first.given or "") == {"role": "system", "content": [block]}


def test_results_of_tools_and_signed_thinking_are_kept_word_for_word() -> None:
    thought = [{"type": "thinking", "thinking": "hm", "signature": "c2ln"}]
    used = [*thought, {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Rome"}}]
    result = [{"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "sunny"}]}]
    turns = [
        *messages("hi")["messages"],
        {"role": "assistant", "content": used},
        {"role": "user", "content": result},
    ]
    _, assistant, user = read_call("messages", messages(messages=turns)).messages
    assert orjson.loads(assistant.given or "") == turns[1]
    assert (orjson.loads(user.given or ""), user.content) == (turns[2], "sunny")


# --- parameters -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wire", "body", "found"),
    [
        ("chat", chat(max_completion_tokens=5), {"max_tokens": 5}),
        ("chat", chat(logprobs=True), {"top_logprobs": 0}),
        ("chat", chat(logprobs=True, top_logprobs=5), {"top_logprobs": 5}),
        ("chat", chat(logprobs=False), {}),
        ("chat", chat(n=1, service_tier="auto", temperature=None, modalities=["text"]), {}),
        ("chat", chat(response_format={"type": "text"}), {}),
        ("chat", chat(top_k=5, chat_template_kwargs={"a": 1}), {"top_k": 5, "chat_template_kwargs": {"a": 1}}),
        ("completion", completion(logprobs=5, best_of=1, echo=False), {"top_logprobs": 5}),
        ("messages", messages(stop_sequences=["x"]), {"max_tokens": 64, "stop": ["x"]}),
        ("messages", messages(output_config={"effort": "low"}), {"max_tokens": 64, "reasoning_effort": "low"}),
        ("responses", responses(max_output_tokens=5, truncation="disabled"), {"max_tokens": 5}),
        ("responses", responses(reasoning={"effort": "low"}), {"reasoning_effort": "low"}),
        ("responses", responses(include=["message.output_text.logprobs"], top_logprobs=3), {"top_logprobs": 3}),
        ("responses", responses(text={"format": {"type": "text"}, "verbosity": "low"}), {"text": {"verbosity": "low"}}),
    ],
)
def test_parameters_have_the_names_a_spec_would_use(wire: Wire, body: dict[str, Any], found: dict[str, Json]) -> None:
    assert read_call(wire, body).parameters == found


def test_what_changes_no_answer_is_left_out_and_said_to_be() -> None:
    call = read_call("chat", chat(user="u", metadata={"a": "b"}, store=True, safety_identifier="s"))
    assert (call.ignored, call.parameters) == (("metadata", "safety_identifier", "store", "user"), {})
    assert read_call("messages", messages(metadata={"user_id": "u"})).ignored == ("metadata",)


def test_only_the_schema_a_spec_would_send_is_a_schema() -> None:
    same = {"name": "answer", "strict": True, "schema": WEATHER}
    form = {"type": "json_schema", "json_schema": same}
    other = {"type": "json_schema", "json_schema": {**same, "name": "weather"}}
    flat = {"type": "json_schema", **same}
    assert read_call("chat", chat(response_format=form)).schema == WEATHER
    assert read_call("chat", chat(response_format=other)).parameters == {"response_format": other}
    assert read_call("responses", responses(text={"format": flat})).schema == WEATHER
    assert read_call("messages", messages(**FORMS["messages"])).schema == WEATHER


@pytest.mark.parametrize("wire", TALKS)
def test_a_call_and_a_specs_run_that_ask_the_same_are_one_request(wire: Wire) -> None:
    call, asked = asked_of(MADE[wire]("hi", temperature=0.5, top_p=0.9), wire)
    spec = Request(
        teacher=CARD.identity,
        model=CARD.model,
        api=wire,
        messages=(Message(role="user", content="hi"),),
        parameters={"max_tokens": 64, "temperature": 0.5, "top_p": 0.9},
    )
    assert (asked.key, orjson.loads(body_of(asked))) == (spec.key, orjson.loads(body_of(spec)))
    assert call.ignored == ()


@pytest.mark.parametrize(
    ("body", "stream", "usage"),
    [
        (chat(), False, False),
        (chat(stream=False), False, False),
        (chat(stream=True), True, False),
        (chat(stream=True, stream_options={"include_usage": True}), True, True),
        (chat(stream=True, stream_options={"include_obfuscation": False}), True, False),
    ],
)
def test_how_an_answer_is_sent_is_read_and_is_no_parameter(body: dict[str, Any], stream: bool, usage: bool) -> None:
    call = read_call("chat", body)
    assert (call.stream, call.stream_usage, call.parameters) == (stream, usage, {})


@pytest.mark.parametrize(
    ("wire", "body", "probe"),
    [
        ("chat", chat(messages=[]), True),
        ("chat", chat(""), True),
        ("chat", chat(" \n"), True),
        ("chat", chat(messages=[{"role": "system", "content": "say hi"}]), False),
        ("messages", messages(messages=[]), True),
        ("messages", messages(messages=[], system="be brief"), True),
        ("responses", responses(""), True),
        ("responses", responses(input=[]), True),
        ("completion", completion(""), True),
        ("chat", chat("hi"), False),
    ],
)
def test_a_call_that_asks_nothing_is_told_apart(wire: Wire, body: dict[str, Any], probe: bool) -> None:
    assert read_call(wire, body).probe is probe


# --- refusals ---------------------------------------------------------------------------------------------------------

IMAGE = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
SOURCE = {"type": "base64", "media_type": "image/png", "data": "aGk="}


@pytest.mark.parametrize(
    ("wire", "body", "field"),
    [
        (
            "chat",
            chat(messages=[{"role": "user", "content": [{"type": "text", "text": "a"}, IMAGE]}]),
            "messages[0].content[1].image_url",
        ),
        (
            "chat",
            chat(messages=[{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]),
            "messages[0].content[0].input_audio",
        ),
        (
            "chat",
            chat(messages=[{"role": "user", "content": [{"type": "file", "file": {}}]}]),
            "messages[0].content[0].file",
        ),
        (
            "messages",
            messages(messages=[{"role": "user", "content": [{"type": "image", "source": SOURCE}]}]),
            "messages[0].content[0]",
        ),
        (
            "messages",
            messages(messages=[{"role": "user", "content": [{"type": "document", "source": SOURCE}]}]),
            "messages[0].content[0]",
        ),
        (
            "messages",
            messages(
                messages=[
                    {
                        "role": "user",
                        "content": [{"type": "tool_result", "tool_use_id": "t", "content": [{"type": "image"}]}],
                    }
                ]
            ),
            "messages[0].content[0].content[0]",
        ),
        (
            "responses",
            responses(input=[{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]),
            "input[0].content[0]",
        ),
        ("responses", responses(input=[{"type": "computer_call_output", "call_id": "c", "output": {}}]), "input[0]"),
    ],
)
def test_what_is_no_text_is_refused_by_its_place(wire: Wire, body: dict[str, Any], field: str) -> None:
    error = refused(wire, body)
    assert (error.field, error.status) == (field, 400)
    assert "corpusgen asks for text" in str(error)


def test_all_unknown_parameters_are_named_at_once() -> None:
    error = refused("chat", chat(temprature=1, zzz=2, **{"a\nb": 3}))
    assert all(name in str(error) for name in ("temprature (did you mean temperature?)", "zzz", "a b"))
    assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("wire", "body", "field"),
    [
        ("responses", responses(previous_response_id="resp_1"), "previous_response_id"),
        ("responses", responses(conversation={"id": "c"}), "conversation"),
        ("responses", responses(background=True), "background"),
        ("responses", responses(prompt={"id": "p"}), "prompt"),
        ("responses", responses(tools=[{"type": "web_search"}]), "tools[0].type"),
        ("responses", responses(input=[{"type": "item_reference", "id": "m"}]), "input[0].id"),
        ("responses", {"model": "m"}, "input"),
        ("messages", messages(mcp_servers=[{"url": "https://example.org"}]), "mcp_servers"),
        ("messages", messages(container="c"), "container"),
        ("messages", messages(tools=[{"type": "web_search_20250305", "name": "web_search"}]), "tools[0].type"),
        ("messages", messages(messages=[{"role": "tool", "content": "a"}]), "messages[0].role"),
        (
            "messages",
            messages(messages=[{"role": "user", "content": "a"}, {"role": "system", "content": "b"}]),
            "messages[1].role",
        ),
        ("chat", chat(functions=[{"name": "f"}]), "functions"),
        ("chat", chat(audio={"voice": "x"}), "audio"),
        ("chat", chat(modalities=["text", "audio"]), "modalities"),
        ("chat", chat(web_search_options={"a": 1}), "web_search_options"),
        ("chat", chat(provider={"order": ["x"]}), "provider"),
        ("chat", chat(top_logprobs=3), "top_logprobs"),
        ("chat", chat(max_tokens=3, max_completion_tokens=4), "max_tokens"),
        ("chat", chat(temperature="hot"), "temperature"),
        ("chat", chat(temperature=True), "temperature"),
        ("chat", chat(temperature=-1), "temperature"),
        ("chat", chat(max_tokens=0), "max_tokens"),
        ("chat", chat(max_tokens=1.5), "max_tokens"),
        ("chat", chat(n=10**6), "n"),
        ("chat", chat(stop=["a", 1]), "stop[1]"),
        ("chat", chat(stream="yes"), "stream"),
        ("chat", chat(stream_options={"x": 1}), "stream_options.x"),
        ("chat", chat(seed=2**70), "seed"),
        ("chat", chat(temperature=float("nan")), "temperature"),
        ("chat", chat(logit_bias={"50256": 101}), "logit_bias.50256"),
        ("chat", chat(tools=[{"type": "function", "function": {"name": ""}}]), "tools[0].function.name"),
        ("chat", chat(response_format={"type": "xml"}), "response_format.type"),
        ("chat", chat(messages="hi"), "messages"),
        ("chat", {"model": "m"}, "messages"),
        ("chat", chat(messages=[{"role": "user"}]), "messages[0].content"),
        ("chat", chat(messages=[{"role": "wizard", "content": "a"}]), "messages[0].role"),
        ("chat", chat(messages=[{"role": "user", "content": "a", "zzz": 1}]), "messages[0].zzz"),
        ("chat", chat(messages=[{"role": "tool", "content": "a"}]), "messages[0].tool_call_id"),
        ("chat", chat(messages=[{"role": "function", "content": "a"}]), "messages[0].function_call"),
        ("chat", {**chat(), "model": ""}, "model"),
        ("chat", {**chat(), "model": "m\n"}, "model"),
        ("completion", completion(prompt=[1, 2]), "prompt"),
        ("completion", completion(prompt=["a", "b"]), "prompt"),
        ("completion", completion(echo=True), "echo"),
        ("completion", completion(best_of=3), "best_of"),
    ],
)
def test_what_cannot_be_passed_on_is_refused_by_its_field(wire: Wire, body: dict[str, Any], field: str) -> None:
    error = refused(wire, body)
    assert error.field == field
    assert field in str(error)


def test_what_lies_too_deep_is_refused_by_its_place() -> None:
    deep: Json = "x"
    for _ in range(100):
        deep = [deep]
    error = refused("chat", chat(metadata=deep))
    assert str(error.field).startswith("metadata[0][0]")
    assert refused("chat", chat("\ud800")).field == "messages[0].content"


@pytest.mark.parametrize("body", [[], None, "x", 5])
def test_a_body_that_is_no_object_is_refused(body: Any) -> None:
    assert "must be an object" in str(refused("chat", body))


# --- what the official clients send -----------------------------------------------------------------------------------


class City(BaseModel):
    """What is asked for as JSON."""

    city: str


class Sent:
    """The official clients before a mock teacher that is no server; what they send is read as calls."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        http: Any = httpx2.MockTransport(self._answer)
        self.openai = openai.OpenAI(
            base_url="http://here/v1", api_key="k", max_retries=0, http_client=httpx2.Client(transport=http)
        )
        self.anthropic = anthropic.Anthropic(
            base_url="http://here", api_key="k", max_retries=0, http_client=httpx2.Client(transport=http)
        )

    def _answer(self, request: httpx2.Request) -> httpx2.Response:
        wire: Any = {"chat/completions": "chat", "completions": "completion"}
        path = request.url.path.removeprefix("/v1/")
        call = read_call(wire.get(path, path), orjson.loads(request.content))
        self.calls.append(call)
        api: Any = call.wire
        asked = Request(
            teacher="t",
            model="m",
            api=api,
            messages=call.messages,
            parameters={"max_tokens": 64, **call.parameters},
            schema=call.schema,
            tools=call.tools,
        )
        body = orjson.loads(body_of(asked)) | ({"stream": True} if call.stream else {})
        dialect = DIALECT_OF[api]
        question = dialect.read(orjson.dumps(body), {"anthropic-version": "2023-06-01"})
        kind = "text/event-stream" if call.stream else "application/json"
        told = dialect.told(question, dialect.reply(question, answer_to(question), ()))
        return httpx2.Response(200, content=told, headers={"content-type": kind})


def test_conversations_of_the_openai_client_with_tools_are_read() -> None:
    sent, turns = Sent(), list[Any](chat("weather?")["messages"])
    tools: Any = TOOLS["chat"]
    answer = sent.openai.chat.completions.create(model="m", messages=turns, tools=tools, parallel_tool_calls=False)
    message = answer.choices[0].message
    assert message.tool_calls is not None
    turns += [message, {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "sunny"}]
    sent.openai.chat.completions.create(model="m", messages=turns, tools=tools, tool_choice="auto")
    assert [one.role for one in sent.calls[-1].messages] == ["user", "assistant", "tool"]
    assert orjson.loads(sent.calls[-1].messages[1].given or "")["tool_calls"][0]["id"] == message.tool_calls[0].id


def test_other_calls_of_the_openai_client_are_read() -> None:
    sent, turns = Sent(), list[Any](chat("hi")["messages"])
    create = sent.openai.chat.completions
    parsed = create.parse(model="m", messages=turns, response_format=City)
    assert parsed.choices[0].message.parsed is not None
    create.parse(model="m", messages=turns, tools=[openai.pydantic_function_tool(City)])
    assert len(list(create.create(model="m", messages=turns, stream=True, stream_options={"include_usage": True}))) > 2
    create.create(model="m", messages=turns, logprobs=True, top_logprobs=2, n=2, seed=1, store=True, user="u")
    create.create(model="m", messages=turns, extra_body={"top_k": 5, "chat_template_kwargs": {"x": 1}})
    sent.openai.completions.create(model="m", prompt="hi", logprobs=2, max_tokens=5)
    assert len(sent.calls) == 6


def test_conversations_of_the_openai_client_in_responses_are_read() -> None:
    sent, items = Sent(), list[Any](chat("weather?")["messages"])
    ask = sent.openai.responses
    tools: Any = TOOLS["responses"]
    more: Any = {"reasoning": {"effort": "low", "summary": "auto"}, "include": ["reasoning.encrypted_content"]}
    answer = ask.create(model="m", input=items, tools=tools, store=False, **more)
    items += answer.output
    called = next(item for item in answer.output if item.type == "function_call")
    items.append({"type": "function_call_output", "call_id": called.call_id, "output": "sunny"})
    items += ask.create(model="m", input=items, tools=tools, instructions="be brief").output
    assert ask.parse(model="m", input=[*items, *chat("again")["messages"]], text_format=City).output_parsed is not None
    assert [one.role for one in sent.calls[1].messages] == ["system", "user", "assistant", "assistant", "tool"]
    assert sent.calls[2].messages[-2].given is None


def test_conversations_of_the_anthropic_client_are_read() -> None:
    sent, turns = Sent(), list[Any](messages("weather?")["messages"])
    tools: Any = TOOLS["messages"]
    ask = sent.anthropic.messages
    answer = ask.create(model="m", max_tokens=2000, messages=turns, tools=tools, thinking={"type": "adaptive"})
    used = next(block for block in answer.content if block.type == "tool_use")
    turns += [
        {"role": "assistant", "content": answer.content},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": used.id, "content": "sunny"}]},
    ]
    with ask.stream(model="m", max_tokens=2000, messages=turns, tools=tools, system="be brief") as stream:
        assert stream.get_final_message().content
    parsed = ask.parse(model="m", max_tokens=64, messages=turns[:1], output_format=City)
    assert parsed.parsed_output is not None
    assert [one.role for one in sent.calls[1].messages] == ["system", "user", "assistant", "user"]
    assert sent.calls[2].schema is not None


# --- anything at all --------------------------------------------------------------------------------------------------

LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
WORDS = st.sampled_from(
    [
        *("role", "content", "type", "text", "name", "id", "input", "tool_calls", "function", "arguments", "call_id"),
        *("tool_use_id", "thinking", "signature", "summary", "output", "schema", "json_schema", "format", "effort"),
    ]
)
KINDS = st.sampled_from(
    [
        *("text", "tool_use", "tool_result", "thinking", "function", "custom", "json_schema", "json_object", "message"),
        *("function_call", "function_call_output", "reasoning", "input_text", "output_text", "refusal", "image_url"),
        *("user", "assistant", "system", "tool", "auto", "any", "required", "enabled"),
    ]
)
ANYTHING = st.recursive(
    LEAVES | KINDS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4), max_leaves=12
)
RICH: list[tuple[Wire, dict[str, Any]]] = [(wire, body) for wire in WIRES for body in calls_of(wire)]
RICH += [
    (
        "chat",
        chat(
            messages=[
                {"role": "developer", "content": "d"},
                {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
                },
                {"role": "tool", "tool_call_id": "c", "content": "r"},
            ],
            tools=TOOLS["chat"],
            tool_choice={"type": "function", "function": {"name": "f"}},
        ),
    ),
    (
        "messages",
        messages(
            system=[{"type": "text", "text": "s"}],
            messages=[
                {"role": "user", "content": [{"type": "text", "text": "a"}]},
                {
                    "role": "assistant",
                    "content": [
                        {"type": "thinking", "thinking": "t", "signature": "s"},
                        {"type": "tool_use", "id": "c", "name": "f", "input": {}},
                    ],
                },
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c", "content": "r"}]},
            ],
            tools=TOOLS["messages"],
            tool_choice={"type": "tool", "name": "f"},
            thinking={"type": "adaptive"},
        ),
    ),
    (
        "responses",
        responses(
            input=[
                {"role": "user", "content": [{"type": "input_text", "text": "a"}]},
                {"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": "t"}]},
                {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "r"}]},
            ],
            tools=TOOLS["responses"],
            tool_choice={"type": "function", "name": "f"},
        ),
    ),
]


def places(value: Json) -> Iterator[tuple[Any, Any]]:
    """Each object or list in a value, with each of its keys."""
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from places(value[key])


@st.composite
def spoilt(draw: st.DrawFn) -> tuple[Wire, Any]:
    """What a client might send, with something else in one or two places."""
    wire, body = draw(st.sampled_from(RICH))
    body = copy.deepcopy(body)
    for _ in range(draw(st.integers(1, 2))):
        holder, key = draw(st.sampled_from(list(places(body))))
        if isinstance(holder, dict) and draw(st.booleans()):
            holder[draw(WORDS)] = draw(ANYTHING)
        else:
            holder[key] = draw(ANYTHING)
    return wire, body


def read_or_refused(wire: Wire, body: Any) -> Call | None:
    """The call, or None where it was refused, in words fit for a log."""
    refusal = "none"
    try:
        return read_call(wire, body)
    except BadCall as error:
        refusal = str(error)
    assert refusal.isprintable()
    return None


@settings(max_examples=600, deadline=None)
@given(spoilt())
@example(("chat", chat(tools=[{"type": "custom", "custom": {"name": "x"}}])))
def test_whatever_is_sent_is_read_or_refused_as_a_bad_call(sent: tuple[Wire, Any]) -> None:
    wire, body = sent
    call = read_or_refused(wire, body)
    for api in WIRES if call else ():
        assert call is not None
        try:
            said = in_wire(call, api)
        except BadCall:
            continue
        asked = Request(
            teacher="t",
            model="m",
            api=api,
            messages=said.messages,
            parameters={"max_tokens": 9, **said.parameters},
            schema=said.schema,
            tools=said.tools,
        )
        assert asked.key
        try:
            DIALECT_OF[api].read(body_of(asked), {"anthropic-version": "2023-06-01"})
        except (RequestRefused, NotARequest):
            continue


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(WIRES), st.dictionaries(st.text(max_size=5) | st.just("model"), ANYTHING, max_size=5) | ANYTHING)
def test_no_json_breaks_the_reader(wire: Wire, body: Any) -> None:
    read_or_refused(wire, body)


def _fields_of(typed: Any) -> set[str]:
    return set(typed.__annotations__)


def test_every_parameter_of_the_official_clients_is_known() -> None:
    from anthropic.types import message_create_params as of_messages
    from openai.types import completion_create_params as of_completions
    from openai.types.chat import completion_create_params as of_chat
    from openai.types.responses import response_create_params as of_responses

    theirs = {
        "chat": _fields_of(of_chat.CompletionCreateParamsBase),
        "completion": _fields_of(of_completions.CompletionCreateParamsBase),
        "responses": _fields_of(of_responses.ResponseCreateParamsBase),
        "messages": _fields_of(of_messages.MessageCreateParamsBase),
    }
    for wire, (known, _) in KNOWN.items():
        ours = known.read | known.passed.keys() | known.ignored | known.refused.keys()
        assert theirs[wire] - ours == set()
