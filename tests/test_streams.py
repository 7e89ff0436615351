from __future__ import annotations

from contextlib import suppress
from random import Random
from typing import Any

import orjson
import pytest
from anthropic.lib.streaming._messages import accumulate_event
from hypothesis import given
from hypothesis import strategies as st
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletionChunk
from stream_samples import ANSWERS, CALLS, CHATS, MESSAGES, RESPONSES, chat, message, position, spoilt

from corpusgen.errors import InvalidAnswer
from corpusgen.records import Api
from corpusgen.serve.wires.replay import events_of
from corpusgen.teachers.chunks import event_of, few_words
from corpusgen.teachers.streams import Fold, Splitter, name_and_data, streamed_body

NAMES = [f"{api}: {name}" for api, name, _ in ANSWERS]


def folded(api: Any, events: list[bytes]) -> Any:
    fold = Fold(api)
    for event in events:
        fold.feed(event)
    return orjson.loads(fold.whole())


def chunk(delta: dict[str, Any], finish: str | None = None, index: int = 0, **fields: Any) -> bytes:
    return event_of({"id": "1", "choices": [{"index": index, "delta": delta, "finish_reason": finish}], **fields})


def told(*deltas: dict[str, Any]) -> dict[str, Any]:
    """The message that deltas add up to."""
    whole = folded("chat", [*map(chunk, deltas), chunk({}, "stop")])
    found: dict[str, Any] = whole["choices"][0]["message"]
    return found


# --- whole answers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("api", "name", "body"), ANSWERS, ids=NAMES)
def test_an_answer_told_in_a_stream_folds_to_the_same_answer(api: Any, name: str, body: dict[str, Any]) -> None:
    assert folded(api, list(events_of(api, orjson.dumps(body)))) == body


@given(text=st.text(), thought=st.text(min_size=1), calls=st.lists(st.text(), max_size=3))
def test_any_text_of_a_chat_survives_its_stream(text: str, thought: str, calls: list[str]) -> None:
    functions = [{**CALLS[0], "id": f"c{at}", "function": {"name": "f", "arguments": a}} for at, a in enumerate(calls)]
    body = chat({"content": text, "reasoning_content": thought, **({"tool_calls": functions} if calls else {})})
    assert folded("chat", list(events_of("chat", orjson.dumps(body)))) == body
    assert "".join(few_words(text)) == text


def test_choices_may_come_in_any_order_between_each_other() -> None:
    events = [chunk({"content": "b"}, index=1), chunk({"content": "a"}), chunk({"content": "B"}, "stop", index=1)]
    whole = folded("chat", [*events, chunk({"content": "A"}, "length")])
    said = [(choice["message"]["content"], choice["finish_reason"]) for choice in whole["choices"]]
    assert said == [("aA", "length"), ("bB", "stop")]


def test_the_last_usage_counts_and_the_first_name_that_is_one() -> None:
    events = [
        event_of({"id": "", "model": "", "choices": [], "prompt_filter_results": [1]}),
        chunk({"content": "a"}, id="x", model="m", usage={"completion_tokens": 1}),
        chunk({}, "stop", id="y", model="m", usage={"completion_tokens": 2}, obfuscation="zzz"),
    ]
    whole = folded("chat", events)
    assert (whole["id"], whole["model"], whole["usage"]) == ("x", "m", {"completion_tokens": 2})
    assert whole["prompt_filter_results"] == [1]
    assert "obfuscation" not in whole


def test_a_stream_without_usage_is_an_answer_without_usage() -> None:
    assert "usage" not in folded("chat", [chunk({"content": "a"}, "stop", usage=None), b"data: [DONE]\n\n"])


# --- held against the official clients -------------------------------------------------------------------------------

SHORT = st.text(max_size=4)


@st.composite
def chats(draw: st.DrawFn) -> list[bytes]:
    """Chunks of a chat, its choices and their calls between each other."""
    calls: dict[int, int] = {}
    events = [chunk({"role": "assistant", "content": None}, index=at) for at in range(draw(st.integers(1, 3)))]
    count = len(events)
    for _ in range(draw(st.integers(0, 12))):
        index, text = draw(st.integers(0, count - 1)), draw(SHORT)
        kind = draw(st.sampled_from(["content", "refusal", "reasoning", "call", "arguments", "logprobs"]))
        known = calls.get(index, 0)
        if kind == "call":
            calls[index] = known + 1
            begun = {"id": f"c{known}", "type": "function", "function": {"name": "look", "arguments": text}}
            events.append(chunk({"tool_calls": [{"index": known, **begun}]}, index=index))
        elif kind == "arguments" and known:
            more = {"index": draw(st.integers(0, known - 1)), "function": {"arguments": text}}
            events.append(chunk({"tool_calls": [more]}, index=index))
        elif kind == "logprobs":
            events.append(_with_position(index, text))
        elif kind != "arguments":
            events.append(chunk({kind: text}, index=index))
    return [*events, *(chunk({}, "stop", index=at) for at in range(count)), _COUNTED]


_COUNTED = event_of(
    {"id": "1", "choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}}
)


def _with_position(index: int, text: str) -> bytes:
    logprobs = {"content": [position(text)], "refusal": None}
    return event_of(
        {"id": "1", "choices": [{"index": index, "delta": {}, "logprobs": logprobs, "finish_reason": None}]}
    )


@given(chats())
def test_chunks_fold_as_the_official_client_adds_them_up(events: list[bytes]) -> None:
    state: Any = ChatCompletionStreamState()
    for event in events:
        state.handle_chunk(ChatCompletionChunk.construct(**orjson.loads(name_and_data(event)[1])))
    theirs = orjson.loads(state.get_final_completion().to_json())
    assert _comparable(folded("chat", events)) == _comparable(theirs)


def _comparable(value: Any) -> Any:
    """Without what is null, empty lists of calls, and what the helper leaves in."""
    if isinstance(value, dict):
        kept = {name: _comparable(one) for name, one in value.items() if one is not None and one != []}
        return {name: one for name, one in kept.items() if name not in ("parsed", "parsed_arguments", "index")}
    return [_comparable(one) for one in value] if isinstance(value, list) else value


@st.composite
def said_messages(draw: st.DrawFn) -> list[bytes]:
    """Events of a message."""
    start = message(stop_reason=None, usage={"input_tokens": 3, "output_tokens": 1})
    events = [event_of({"type": "message_start", "message": start})]
    for index in range(draw(st.integers(0, 4))):
        block, name, field = draw(st.sampled_from(BLOCKS))
        events.append(event_of({"type": "content_block_start", "index": index, "content_block": block}))
        pieces = ['{"a": [1,', " 2]", "}"] if field == "partial_json" else draw(st.lists(SHORT, max_size=4))
        events += [_delta(index, {"type": name, field: piece}) for piece in pieces]
        events += [_delta(index, {"type": "signature_delta", "signature": draw(SHORT)})] if field == "thinking" else []
        events.append(event_of({"type": "content_block_stop", "index": index}))
    counted = draw(st.dictionaries(st.sampled_from(COUNTS), st.none() | st.integers(0, 9)))
    ending = {"stop_reason": "end_turn", "stop_sequence": None}
    events.append(event_of({"type": "message_delta", "delta": ending, "usage": {**counted, "output_tokens": 7}}))
    return [*events, event_of({"type": "message_stop"})]


BLOCKS: list[tuple[dict[str, Any], str, str]] = [
    ({"type": "text", "text": ""}, "text_delta", "text"),
    ({"type": "thinking", "thinking": "", "signature": ""}, "thinking_delta", "thinking"),
    ({"type": "tool_use", "id": "t", "name": "look", "input": {}}, "input_json_delta", "partial_json"),
]
COUNTS = ["input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens"]


def _delta(index: int, delta: dict[str, Any]) -> bytes:
    return event_of({"type": "content_block_delta", "index": index, "delta": delta})


@given(said_messages())
def test_events_fold_as_anthropics_client_adds_them_up(events: list[bytes]) -> None:
    snapshot: Any = None
    buffers: dict[int, bytes] = {}
    for event in events:
        told: Any = orjson.loads(name_and_data(event)[1])
        snapshot = accumulate_event(event=told, current_snapshot=snapshot, json_bufs=buffers)
    assert _comparable(folded("messages", events)) == _comparable(orjson.loads(snapshot.to_json()))


# --- tool calls, as servers write them -------------------------------------------------------------------------------


def piece(arguments: str, **fields: Any) -> dict[str, Any]:
    return {"tool_calls": [{"index": 0, "function": {"arguments": arguments}, **fields}]}


def begun(name: str, arguments: str = "", **fields: Any) -> dict[str, Any]:
    return {"tool_calls": [{"type": "function", "function": {"name": name, "arguments": arguments}, **fields}]}


def named(message: dict[str, Any]) -> list[tuple[Any, str, str]]:
    calls = message["tool_calls"]
    return [(call.get("id"), call["function"]["name"], call["function"]["arguments"]) for call in calls]


def test_a_new_id_with_every_piece_is_the_same_call() -> None:
    assert named(told(begun("f", index=0, id="a"), piece('{"x"', id="b"), piece(": 1}", id="c"))) == [
        ("a", "f", '{"x": 1}')
    ]


def test_calls_of_one_index_are_told_apart_by_id_and_name() -> None:
    assert named(told(begun("f", "{}", index=0, id="a"), begun("g", "[]", index=0, id="b"))) == [
        ("a", "f", "{}"),
        ("b", "g", "[]"),
    ]


def test_calls_without_an_index_are_told_apart_by_their_names() -> None:
    assert named(told(begun("f", "{}"), begun("g"), {"tool_calls": [{"function": {"arguments": "[]"}}]})) == [
        (None, "f", "{}"),
        (None, "g", "[]"),
    ]


def test_a_name_may_come_in_pieces_or_be_said_again() -> None:
    assert named(told(begun("lo", index=0), begun("ok", index=0), piece("{}")))[0][1] == "look"
    assert named(told(begun("look", index=0), begun("look", "{}", index=0)))[0] == (None, "look", "{}")


def test_an_old_function_call_is_put_together_too() -> None:
    deltas = ({"function_call": {"name": "f", "arguments": ""}}, {"function_call": {"arguments": "{}"}})
    assert told(*deltas) == {"function_call": {"name": "f", "arguments": "{}"}}


def test_thoughts_in_parts_grow_until_they_are_signed() -> None:
    parts: list[dict[str, Any]] = [
        {"type": "thinking", "thinking": "one ", "signature": ""},
        {"type": "thinking", "thinking": "two", "signature": None},
        {"type": "thinking", "thinking": "", "signature": "s"},
        {"type": "thinking", "thinking": "three", "signature": ""},
    ]
    blocks = told(*({"thinking_blocks": [part]} for part in parts))["thinking_blocks"]
    assert [(block["thinking"], block["signature"]) for block in blocks] == [("one two", "s"), ("three", "")]


def test_a_content_of_parts_goes_on_in_plain_text() -> None:
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": "hm "}]}
    again = {"type": "thinking", "thinking": [{"type": "text", "text": "so"}]}
    assert told(
        {"content": ""}, {"content": [thought]}, {"content": [again]}, {"content": "a "}, {"content": "swan"}
    ) == {
        "content": [
            {"type": "thinking", "thinking": [{"type": "text", "text": "hm so"}]},
            {"type": "text", "text": "a swan"},
        ]
    }


# --- messages --------------------------------------------------------------------------------------------------------


def test_counts_that_a_later_event_leaves_out_or_calls_null_stay() -> None:
    events = [
        event_of({"type": "message_start", "message": message(usage={"input_tokens": 3, "output_tokens": 1})}),
        event_of({"type": "ping"}),
        event_of(
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 9, "x": None}}
        ),
        event_of({"type": "something_new", "of": "no concern"}),
        event_of({"type": "message_stop"}),
    ]
    whole = folded("messages", events)
    assert (whole["usage"], whole["content"]) == ({"input_tokens": 3, "output_tokens": 9}, [])


def test_arguments_that_broke_off_are_kept_under_anthropics_own_name_for_them() -> None:
    block = {**MESSAGES["calls"]["content"][1], "input": {"at": "a lake " * 9}}
    body = message(block, stop_reason="max_tokens")
    events = list(events_of("messages", orjson.dumps(body)))
    last = max(at for at, event in enumerate(events) if b"input_json_delta" in event)
    (block,) = folded("messages", events[:last] + events[last + 1 :])["content"]
    assert list(block["input"]) == ["INVALID_JSON"]


# --- streams that are no answer --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("api", "body"),
    [("chat", CHATS["several"]), ("messages", MESSAGES["thinking"]), ("responses", RESPONSES["reasoning"])],
)
def test_a_stream_that_breaks_off_is_no_answer_wherever_it_does(api: Any, body: dict[str, Any]) -> None:
    events = list(events_of(api, orjson.dumps(body), usage=False))
    enough = 2 if api == "chat" else 1  # a chat whose choices have all said why they ended is whole without [DONE]
    for there in range(len(events) - enough):
        if api == "chat" and all(choice["finish_reason"] for choice in _choices(events[:there])):
            continue  # the choices that are still to come cannot be missed yet
        with pytest.raises(InvalidAnswer, match=r"broke off|does not begin"):
            folded(api, events[:there])


def _choices(events: list[bytes]) -> list[dict[str, Any]]:
    last: dict[int, dict[str, Any]] = {}
    for event in events:
        last |= {choice["index"]: choice for choice in orjson.loads(name_and_data(event)[1])["choices"]}
    return list(last.values()) or [{"finish_reason": None}]


@pytest.mark.parametrize("api", ["chat", "completion", "messages", "responses"])
@pytest.mark.parametrize(
    "event",
    [
        b'data: {"error": {"message": "overloaded"}}\n\n',
        b'event: error\ndata: {"type": "error", "error": {"type": "overloaded_error", "message": "overloaded"}}\n\n',
        b'event: error\ndata: {"message": "overloaded"}\n\n',
        b'data: {"type": "error", "code": "server_error", "message": "overloaded"}\n\n',
    ],
)
def test_an_error_in_a_stream_is_told_in_its_own_words(api: Any, event: bytes) -> None:
    with pytest.raises(InvalidAnswer, match=r"broke off with an error.*overloaded"):
        Fold(api).feed(event)


def test_a_response_that_failed_is_no_answer() -> None:
    failed = {**RESPONSES["text"], "status": "failed", "error": {"code": "server_error", "message": "lost"}}
    with pytest.raises(InvalidAnswer, match="lost"):
        Fold("responses").feed(event_of({"type": "response.failed", "response": failed}))


@pytest.mark.parametrize(
    ("api", "data"),
    [
        ("chat", b"{"),
        ("chat", b"[1]"),
        ("chat", b"[" * 100_000),
        ("chat", b'{"choices": 5}'),
        ("chat", b'{"choices": [5]}'),
        ("chat", b'{"choices": [{"index": -1}]}'),
        ("chat", b'{"choices": [{"index": "0"}]}'),
        ("chat", b'{"choices": [{"delta": "x"}]}'),
        ("chat", b'{"choices": [{"logprobs": "x"}]}'),
        ("chat", b'{"choices": [{"delta": {"tool_calls": {}}}]}'),
        ("chat", b'{"choices": [{"delta": {"tool_calls": ["x"]}}]}'),
        ("chat", b'{"choices": [{"delta": {"content": ["x"]}}]}'),
        ("chat", b'{"choices": [{"delta": {"content": "\\ud83d"}}]}'),
        ("messages", b'{"type": "message_start"}'),
        ("messages", b'{"type": "message_stop"}'),
        ("messages", b'{"type": "message_delta", "delta": {}}'),
        ("messages", b'{"type": "content_block_start", "index": 0, "content_block": {}}'),
        ("messages", b'{"type": "content_block_delta", "index": [], "delta": {}}'),
        ("messages", b'{"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "x"}}'),
        ("responses", b'{"type": "response.completed"}'),
    ],
)
def test_what_is_no_event_is_no_answer(api: Any, data: bytes) -> None:
    with pytest.raises(InvalidAnswer):
        Fold(api).feed(b"data: " + data + b"\n\n")


def test_an_index_of_a_billion_takes_no_memory() -> None:
    assert len(folded("chat", [chunk({"content": "a"}, "stop", index=10**9)])["choices"]) == 1


def test_what_is_nested_too_deep_to_be_written_again_is_no_answer() -> None:
    deep = b'{"choices":[{"delta":{"content":"a"},"finish_reason":"stop"}],"x":' + b"[" * 500 + b"]" * 500 + b"}"
    fold = Fold("chat")
    fold.feed(b"data: " + deep + b"\n\n")
    with pytest.raises(InvalidAnswer, match="cannot be put together"):
        fold.whole()


def test_a_stream_beyond_its_limit_is_no_answer() -> None:
    fold = Fold("chat", limit=100)
    with pytest.raises(InvalidAnswer, match="larger than 100 bytes"):
        fold.feed(chunk({"content": "a" * 100}))
    splitter = Splitter(limit=100)
    splitter.feed(b"data: ")
    with pytest.raises(InvalidAnswer, match="larger than 100 bytes"):
        splitter.feed(b"x" * 100)


def test_what_follows_the_end_is_nobodys_answer() -> None:
    events = [chunk({"content": "a"}, "stop"), b"data: [DONE]\n\n", chunk({"content": "b"}), b"data: {\n\n"]
    assert folded("chat", events)["choices"][0]["message"]["content"] == "a"


def test_the_last_response_may_leave_out_what_was_told_before() -> None:
    body = RESPONSES["calls"]
    events = [
        event_of({"type": "response.output_item.done", "output_index": at, "item": body["output"][at]}) for at in (1, 0)
    ]
    ending = event_of({"type": "response.completed", "response": {**body, "output": None}})
    assert folded("responses", [*events, ending]) == body


SPOILT_ONES = 150


@pytest.mark.parametrize(("api", "name", "body"), ANSWERS[::3], ids=NAMES[::3])
def test_a_stream_with_anything_spoilt_in_it_is_an_answer_or_none(api: Any, name: str, body: dict[str, Any]) -> None:
    chance = Random(7)
    events = [name_and_data(event)[1] for event in events_of(api, orjson.dumps(body))]
    for _ in range(SPOILT_ONES):
        at = chance.randrange(len(events))
        odd = events[at] if events[at] == b"[DONE]" else orjson.dumps(spoilt(orjson.loads(events[at]), chance))
        told = [*events[:at], odd, *events[at + 1 :]]
        with suppress(InvalidAnswer):
            folded(api, [b"data: " + data + b"\n\n" for data in told])


@pytest.mark.parametrize(("api", "name", "body"), ANSWERS[::7], ids=NAMES[::7])
def test_bytes_that_are_spoilt_are_an_answer_or_none(api: Any, name: str, body: dict[str, Any]) -> None:
    chance, raw = Random(7), b"".join(events_of(api, orjson.dumps(body)))
    for _ in range(SPOILT_ONES):
        odd = bytearray(raw)
        for _ in range(chance.randint(1, 3)):
            odd[chance.randrange(len(odd))] = chance.randrange(256)
        splitter = Splitter()
        with suppress(InvalidAnswer):
            folded(api, [*splitter.feed(bytes(odd)), splitter.rest()])


# --- events in bytes -------------------------------------------------------------------------------------------------

LINE_ENDS = st.sampled_from(["\n", "\r\n", "\r"])
DATA = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=8)


@st.composite
def written(draw: st.DrawFn) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """A stream as some server writes it, and what it says."""
    said: list[tuple[bytes, bytes]] = []
    raw = b"\xef\xbb\xbf" if draw(st.booleans()) else b""
    for _ in range(draw(st.integers(1, 4))):
        name, lines = draw(st.sampled_from(["", "ping", "a b"])), draw(st.lists(DATA, min_size=1, max_size=3))
        fields = [": a comment"] if draw(st.booleans()) else []
        fields += [f"event: {name}"] if name else []
        fields += [draw(st.sampled_from(["data: ", "data:"])) + line for line in lines]
        fields += ["id: 7", "retry: 5", "nonsense"] if draw(st.booleans()) else []
        ends = [draw(LINE_ENDS) for _ in fields]
        blank = draw(LINE_ENDS.filter(lambda end: ends[-1] + end != "\r\n"))  # noqa: B023 - drawn at once
        raw += "".join(map("".join, zip([*fields, ""], [*ends, blank], strict=True))).encode()
        said.append(
            (name.encode(), "\n".join(_unspaced(field) for field in fields if field.startswith("data:")).encode())
        )
    return raw, said


def _unspaced(field: str) -> str:
    return field.removeprefix("data:").removeprefix(" ")


@given(written(), st.data())
def test_events_are_the_same_wherever_the_bytes_break(
    stream: tuple[bytes, list[tuple[bytes, bytes]]], data: st.DataObject
) -> None:
    raw, said = stream
    cuts = sorted(data.draw(st.sets(st.integers(0, len(raw)), max_size=12)))
    splitter = Splitter()
    pieces = [raw[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    events = [event for one in pieces for event in splitter.feed(one)]
    events += [rest] if (rest := splitter.rest()) else []
    assert b"".join(events) == raw.removeprefix(b"\xef\xbb\xbf")
    assert [found for event in events if (found := name_and_data(event)) != (b"", b"")] == [
        one for one in said if one != (b"", b"")
    ]


@pytest.mark.parametrize(("api", "name", "body"), ANSWERS[::5], ids=NAMES[::5])
def test_an_answer_is_the_same_byte_for_byte_and_at_once(api: Any, name: str, body: dict[str, Any]) -> None:
    raw = b"".join(events_of(api, orjson.dumps(body)))
    for size in (1, 7, len(raw)):
        splitter = Splitter()
        events = [event for at in range(0, len(raw), size) for event in splitter.feed(raw[at : at + size])]
        assert folded(api, events) == body


def test_half_an_event_at_the_end_is_none() -> None:
    splitter = Splitter()
    assert splitter.feed(b'data: {"a": 1}\n\ndata: {"b"') == [b'data: {"a": 1}\n\n']
    assert splitter.rest() == b""


def test_an_end_without_its_blank_line_is_one() -> None:
    splitter = Splitter()
    splitter.feed(b"data: [DONE]")
    assert splitter.rest() == b"data: [DONE]"


# --- what is asked ---------------------------------------------------------------------------------------------------


def test_a_stream_is_asked_for_in_the_words_of_each_format() -> None:
    usage = {"stream": True, "stream_options": {"include_usage": True}}
    whole = orjson.dumps({"model": "m"})
    chats: tuple[Api, ...] = ("chat", "completion")
    others: tuple[Api, ...] = ("messages", "responses")
    for api in chats:
        assert orjson.loads(streamed_body(api, whole)) == {"model": "m", **usage}
        assert orjson.loads(streamed_body(api, whole, usage=False)) == {"model": "m", "stream": True}
    for api in others:
        assert orjson.loads(streamed_body(api, whole)) == {"model": "m", "stream": True}
