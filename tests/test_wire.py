from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from teacher_samples import chat_reply, ranked, reply, request

from corpusgen.errors import InvalidAnswer, RequestRefused
from corpusgen.records import Completion, Message, Request
from corpusgen.teachers.wire import read_completion, request_body


def completion(body: Any) -> Completion:
    return read_completion(orjson.dumps(body), api="completion")


def chat(body: Any) -> Completion:
    return read_completion(orjson.dumps(body), api="chat")


def sent(asked: Request) -> dict[str, Any]:
    body: dict[str, Any] = orjson.loads(request_body(asked))
    return body


def test_a_completion_sends_the_prompt_and_its_parameters_as_they_are() -> None:
    asked = request("Definition: a swan\nKind:", temperature=0, top_logprobs=100, stop=["\n"])
    assert sent(asked) == {
        "model": "m",
        "prompt": "Definition: a swan\nKind:",
        "max_tokens": 1,
        "temperature": 0,
        "stop": ["\n"],
        "logprobs": 100,
    }


def test_a_chat_sends_messages_and_asks_for_log_probabilities_by_their_number() -> None:
    body = sent(request("hello", api="chat", top_logprobs=5))
    assert body["messages"] == [{"role": "user", "content": "hello"}]
    assert (body["logprobs"], body["top_logprobs"]) == (True, 5)


def test_a_schema_and_tools_travel_with_a_chat() -> None:
    asked = Request(
        teacher="t", model="m", api="chat", messages=(), schema={"type": "object"}, tools=[{"type": "function"}]
    )
    assert sent(asked)["response_format"]["json_schema"]["schema"] == {"type": "object"}
    assert sent(asked)["tools"] == [{"type": "function"}]


def test_a_completion_of_two_messages_is_refused_before_sending() -> None:
    two = (Message(role="system", content="be brief"), Message(role="user", content="hello"))
    with pytest.raises(RequestRefused, match="one user message"):
        request_body(Request(teacher="t", model="m", api="completion", messages=two))


def test_an_answer_is_read_with_its_usage_model_and_id() -> None:
    usage = {"prompt_tokens": 10, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 8}}
    read = completion(reply(usage=usage))
    assert (read.text, read.finish_reason, read.model_served, read.provider_request_id) == (
        " animal",
        "stop",
        "m-1",
        "answer-1",
    )
    assert (read.usage.input_tokens, read.usage.cached_input_tokens, read.usage.total_tokens) == (10, 8, 12)


def test_the_id_in_the_header_goes_before_the_one_in_the_body() -> None:
    read = read_completion(orjson.dumps(reply()), api="completion", request_id="req-7")
    assert read.provider_request_id == "req-7"


def test_length_is_kept_as_truncated() -> None:
    assert completion(reply({"finish_reason": "length"})).truncated


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_reasoning_is_read_from_either_field_as_a_raw_trace(field: str) -> None:
    read = chat(chat_reply({field: "swans are birds"}))
    assert (read.reasoning, read.trace_kind) == ("swans are birds", "raw")


def test_a_summary_is_not_taken_for_the_trace_itself() -> None:
    read = chat(chat_reply({"reasoning": "in short", "reasoning_details": [{"type": "reasoning.summary"}]}))
    assert (read.reasoning, read.trace_kind) == ("in short", "summary")


def test_a_refusal_is_an_answer_of_its_own_kind() -> None:
    read = chat(chat_reply({"content": None, "refusal": "I will not"}))
    assert (read.text, read.finish_reason) == ("I will not", "refusal")


def test_a_filtered_answer_may_be_empty() -> None:
    assert chat(chat_reply({"content": None}, "content_filter")).finish_reason == "content_filter"


def test_tool_calls_are_kept_as_json() -> None:
    calls = [{"id": "1", "function": {"name": "f"}}]
    assert chat(chat_reply({"content": None, "tool_calls": calls}, "tool_calls")).tool_calls == orjson.dumps(
        calls
    ).decode("utf-8")


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b"<html>Bad gateway</html>", "<html>Bad gateway"),
        (b"", "not JSON"),
        (b"[]", r"an object, found '\[\]'"),
        (orjson.dumps({"error": {"message": "overloaded"}}), "overloaded"),
        (orjson.dumps(reply(choices=[])), "exactly one choice is needed, found 0"),
        (orjson.dumps(reply(choices=[{}, {}])), "found 2"),
        (orjson.dumps(reply(choices=None)), "a list of choices"),
        (orjson.dumps(reply({"text": None})), "text as text, found 'null'"),
        (orjson.dumps(reply({"finish_reason": "error"})), "did not end in an error"),
        (orjson.dumps(reply({"error": {"message": "upstream"}})), "upstream"),
    ],
)
def test_http_200_that_is_no_answer_says_what_was_found(body: bytes, found: str) -> None:
    with pytest.raises(InvalidAnswer, match=found):
        read_completion(body, api="completion")


@pytest.mark.parametrize("number", [-5, True, 1.5, "many", 10**12, 2**70])
def test_usage_that_counts_nothing_is_no_count(number: Any) -> None:
    body = orjson.dumps(reply(usage={"prompt_tokens": 0, "completion_tokens": 1}))
    absurd = body.replace(b'"prompt_tokens":0', b'"prompt_tokens":' + str(number).lower().encode())
    try:
        assert not read_completion(absurd, api="completion").usage.counted
    except InvalidAnswer:
        assert number == "many"  # which is not JSON


@pytest.mark.parametrize(
    ("usage", "counts"),
    [(None, (0, 0)), ({}, (0, 0)), ({"prompt_tokens": 3}, (3, 0)), ({"completion_tokens": 2}, (0, 2))],
)
def test_what_was_not_counted_is_said_not_to_be(usage: Any, counts: tuple[int, int]) -> None:
    read = completion(reply(usage=usage)).usage
    assert ((read.input_tokens, read.output_tokens), read.counted) == (counts, False)


@pytest.mark.parametrize("usage", [7, {"prompt_tokens": "1"}, [], "many"])
def test_usage_of_another_shape_is_no_count(usage: Any) -> None:
    read = completion(reply(usage=usage))
    assert (read.text, read.usage.counted) == (" animal", False)


def test_a_count_with_a_point_is_a_count() -> None:
    usage = completion(reply(usage={"prompt_tokens": 20.0, "completion_tokens": 5.0})).usage
    assert (usage.input_tokens, usage.output_tokens, usage.counted) == (20, 5, True)


@pytest.mark.parametrize(
    ("said", "read"), [(None, "other"), ("abort", "other"), (7, "other"), ("STOP", "stop"), ("Max_Tokens", "length")]
)
def test_a_paid_answer_is_kept_whatever_ended_it(said: Any, read: str) -> None:
    found = completion(reply({"finish_reason": said}))
    assert (found.text, found.finish_reason) == (" animal", read)


@pytest.mark.parametrize("details", [{"cached_tokens": 4}, {"cached_tokens": -1}, "none"])
def test_usage_that_contradicts_itself_is_no_count(details: Any) -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 1, "prompt_tokens_details": details}
    found = completion(reply(usage=usage)).usage
    assert (found.input_tokens, found.output_tokens, found.counted) == (0, 0, False)


@pytest.mark.parametrize("content", [None, ""])
def test_a_chat_that_stops_without_text_is_an_empty_answer(content: Any) -> None:
    found = chat(chat_reply({"content": content}))
    assert (found.text, found.finish_reason) == ("", "stop")


@pytest.mark.parametrize("content", [["parts"], 7])
def test_a_chat_whose_content_is_no_text_is_refused(content: Any) -> None:
    with pytest.raises(InvalidAnswer, match="content"):
        chat(chat_reply({"content": content}))


def test_thinking_until_the_limit_is_a_truncated_answer() -> None:
    read = chat(chat_reply({"content": None, "reasoning_content": "well"}, "length"))
    assert (read.text, read.reasoning, read.truncated) == ("", "well", True)


def test_chat_log_probabilities_keep_bytes_ids_and_runners_up() -> None:
    half = {"token": "\ufffd", "bytes": [0xE2, 0x80], "id": 7, "logprob": -0.5}
    other = {"token": "a", "bytes": None, "id": 8, "logprob": -2}
    content = [{**half, "top_logprobs": [half, other]}, {**other, "top_logprobs": []}]
    read = completion(reply({"logprobs": {"content": content}})).logprobs
    assert read is not None
    assert (read.token_bytes, read.token_ids, read.topk_len) == ((b"\xe2\x80", b"a"), (7, 8), (2, 0))
    assert (read.topk_bytes, read.topk_ids, read.topk_logprobs) == ((b"\xe2\x80", b"a"), (7, 8), (-0.5, -2.0))
    assert read.at(0) == {b"\xe2\x80": -0.5, b"a": -2.0}


def test_legacy_log_probabilities_are_read_too() -> None:
    legacy = {
        "tokens": [" animal", "bytes:\\xe2\\x80"],
        "token_logprobs": [None, -0.25],
        "top_logprobs": [None, {" a": -1.5, " b": -2.5}],
    }
    read = completion(reply({"logprobs": legacy})).logprobs
    assert read is not None
    assert (read.token_bytes, read.token_ids) == ((b" animal", b"\xe2\x80"), None)
    assert (read.token_logprobs, read.topk_len, read.at(1)) == ((None, -0.25), (0, 2), {b" a": -1.5, b" b": -2.5})


@pytest.mark.parametrize("missing", [-9999.0, -3.4028234663852886e38, None])
def test_a_placeholder_for_no_log_probability_is_none(missing: float | None) -> None:
    logprobs = ranked((" a", -0.5), (" b", -1.0))
    logprobs["content"][0]["top_logprobs"][1]["logprob"] = missing
    read = completion(reply({"logprobs": logprobs})).logprobs
    assert read is not None
    assert read.topk_logprobs == (-0.5, None)


@pytest.mark.parametrize("nothing", [None, {"content": None}, {"content": []}, {"tokens": []}])
def test_no_log_probabilities_are_none_and_not_empty(nothing: Any) -> None:
    assert completion(reply({"logprobs": nothing})).logprobs is None


@pytest.mark.parametrize("value", [b"NaN", b"1e999"])
def test_a_log_probability_that_is_not_even_json_is_refused(value: bytes) -> None:
    body = orjson.dumps(reply({"logprobs": ranked((" a", -0.125))})).replace(b"-0.125", value)
    with pytest.raises(InvalidAnswer):
        read_completion(body, api="completion")


@pytest.mark.parametrize("value", ["-1", True, 0.5, []])
def test_an_answer_is_kept_without_log_probabilities_that_are_none(value: Any) -> None:
    body = orjson.dumps(reply({"logprobs": ranked((" a", -0.125))})).replace(b"-0.125", orjson.dumps(value))
    found = read_completion(body, api="completion")
    assert (found.text, found.logprobs) == (" animal", None)


@pytest.mark.parametrize(
    "shape",
    [
        7,
        [1],
        {"x": 1},
        {"content": [7]},
        {"content": [{"token": 7, "logprob": -1}]},
        {"content": [{"token": "a", "bytes": [256], "logprob": -1}]},
        {"tokens": ["a"], "token_logprobs": [-1, -2]},
        {"tokens": [1], "token_logprobs": [-1]},
    ],
)
def test_log_probabilities_of_an_unknown_shape_are_none(shape: Any) -> None:
    found = completion(reply({"logprobs": shape}))
    assert (found.text, found.logprobs) == (" animal", None)


def test_what_was_found_is_shown_without_control_characters() -> None:
    with pytest.raises(InvalidAnswer) as caught:
        read_completion(b"\x1b[31mred\x00\n" + b"x" * 1000, api="completion")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["choices", "message", "content", "usage", "logprobs", "text", "tokens", "token"]), inner
        )
    ),
    max_leaves=10,
)


@given(JSON, st.sampled_from(["choices", "usage", "message", "logprobs", "finish_reason", "text", "content"]))
def test_whatever_a_server_sends_is_an_answer_or_an_invalid_answer(value: Any, field: str) -> None:
    inside: Any = {field: value} if field in ("message", "logprobs", "finish_reason", "text") else {}
    bodies = [value, reply(inside), chat_reply({"content": value}), reply(**{field: value})]
    for body in bodies:
        for read in (completion, chat):
            try:
                read(body)
            except InvalidAnswer:
                continue


@pytest.mark.parametrize(
    ("counts", "output"),
    [
        ({"prompt_tokens": 20, "completion_tokens": 198, "total_tokens": 623}, 603),
        ({"prompt_tokens": 21, "completion_tokens": 0, "total_tokens": 81}, 60),
        ({"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 9}, 5),
        ({"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": None}, 5),
        ({"prompt_tokens": 0, "completion_tokens": 5, "total_tokens": 500}, 5),
    ],
)
def test_thoughts_that_only_the_total_counts_are_output(counts: dict[str, Any], output: int) -> None:
    assert completion(reply(usage=counts)).usage.output_tokens == output


def test_thoughts_counted_beside_the_answer_are_no_contradiction() -> None:
    counts = {"prompt_tokens": 21, "completion_tokens": 0, "total_tokens": 81}
    read = completion(reply(usage={**counts, "completion_tokens_details": {"reasoning_tokens": 60}}))
    assert (read.usage.output_tokens, read.usage.reasoning_tokens) == (60, 60)


@pytest.mark.parametrize("name", ["\x1b]0;owned\x07", "m" * 5000, "a\nb"])
def test_a_name_that_would_not_fit_a_record_is_none(name: str) -> None:
    read = completion(reply(model=name, id=name))
    assert (read.model_served, read.provider_request_id) == (None, None)
