"""What servers say otherwise than OpenAI's chat does: spelling, many choices, thoughts in parts, bills in dollars."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest
from teacher_samples import chat_reply, reply, request

from corpusgen.errors import InvalidAnswer
from corpusgen.records import Completion
from corpusgen.teachers.wire import PLAIN, Dialect, check_usage, read_choices, read_completion, request_body

ODD = Dialect(max_tokens="max_completion_tokens", seed="random_seed", body={"store": False, "user": "nobody"})
BILLS = Dialect(cost_is_bill=True)


def sent(dialect: Dialect = PLAIN, *, schema: Any = None, **parameters: Any) -> dict[str, Any]:
    asked = replace(request(api="chat", **parameters), schema=schema)
    found = orjson.loads(request_body(asked, dialect))
    assert isinstance(found, dict)
    return found


def chat(message: dict[str, Any], dialect: Dialect = PLAIN, **fields: Any) -> Completion:
    return read_completion(orjson.dumps(chat_reply({"content": "x", **message}, **fields)), api="chat", dialect=dialect)


def test_a_plain_server_is_sent_our_own_names() -> None:
    assert Dialect() == PLAIN
    assert (Dialect().reasons, Dialect().cost_is_bill) == (False, False)
    assert sent(seed=7) == {
        "model": "m",
        "max_tokens": 1,
        "seed": 7,
        "messages": [{"role": "user", "content": "a swan"}],
    }


def test_another_server_is_sent_its_own_names_and_what_it_always_wants() -> None:
    found = sent(ODD, seed=7, user="somebody")
    assert found["max_completion_tokens"] == 1
    assert found["random_seed"] == 7
    assert (found["store"], found["user"]) == (False, "somebody")
    assert found.keys().isdisjoint({"max_tokens", "seed"})
    assert "random_seed" not in sent(ODD)


@pytest.mark.parametrize(("kind", "logprobs", "left"), [("top_logprobs", True, 5), ("number", 5, None)])
def test_runners_up_are_asked_for_as_the_server_wants_it(kind: Any, logprobs: Any, left: int | None) -> None:
    found = sent(Dialect(logprobs=kind), top_logprobs=5)
    assert (found["logprobs"], found.get("top_logprobs")) == (logprobs, left)
    assert "logprobs" not in sent(Dialect(logprobs=kind))


@pytest.mark.parametrize(
    ("kind", "found"), [("json_schema", "json_schema"), ("json_object", "json_object"), ("none", None)]
)
def test_a_schema_is_asked_for_as_far_as_the_server_knows_schemas(kind: Any, found: str | None) -> None:
    dialect = Dialect(schema=kind)
    assert sent(dialect, schema={"type": "object"}).get("response_format", {}).get("type") == found
    assert "response_format" not in sent(dialect)


# --- several choices --------------------------------------------------------------------------------------------------


def of_several(*texts: Any, most: int = 3) -> tuple[Completion, ...]:
    choices = [{"message": {"role": "assistant", "content": text}, "finish_reason": "stop"} for text in texts]
    return read_choices(orjson.dumps(reply(choices=choices)), api="chat", most=most)


def test_each_of_several_choices_is_an_answer_with_its_number() -> None:
    assert [(one.choice_index, one.text) for one in of_several("a", "b", "c")] == [(0, "a"), (1, "b"), (2, "c")]
    assert [(one.choice_index, one.text) for one in of_several("a", "b")] == [(0, "a"), (1, "b")]
    assert [(one.choice_index, one.text) for one in of_several("a")] == [(0, "a")]


def test_a_choice_that_cannot_be_read_does_not_lose_its_neighbours() -> None:
    assert [(one.choice_index, one.text) for one in of_several("a", 7, "c")] == [(0, "a"), (2, "c")]


def test_when_no_choice_can_be_read_the_first_failure_is_told() -> None:
    with pytest.raises(InvalidAnswer, match="content"):
        of_several(7, 7)


def test_of_more_choices_than_the_several_that_were_asked_for_the_first_are_kept_and_the_others_counted() -> None:
    assert [(one.text, one.surplus) for one in of_several("a", "b", "c", "d", most=3)] == [("a", 1), ("b", 1), ("c", 1)]
    assert {one.surplus for one in of_several("a", "b", "c")} == {0}


@pytest.mark.parametrize(("texts", "most", "said"), [("ab", 1, "exactly one"), ("", 3, "between 1")])
def test_no_choice_and_two_where_one_was_asked_for_are_refused(texts: str, most: int, said: str) -> None:
    with pytest.raises(InvalidAnswer, match=said):
        of_several(*texts, most=most)


# --- thoughts and parts -----------------------------------------------------------------------------------------------


def test_content_in_parts_is_read_as_its_text_and_its_thought() -> None:
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "h"}, {"type": "text", "text": "m"}, 7]}
    found = chat({"content": [thinking, {"type": "text", "text": "a"}, {"type": "text", "text": "b"}]})
    assert (found.text, found.reasoning, found.trace_kind, found.reasoning_parts) == ("ab", "hm", "raw", None)


@pytest.mark.parametrize(
    "content", [[{"type": "text", "text": "a"}], [{"type": "thinking", "thinking": "h"}, {"type": "text", "text": "a"}]]
)
def test_parts_without_a_readable_thought_have_none(content: Any) -> None:
    found = chat({"content": content})
    assert (found.text, found.reasoning, found.trace_kind) == ("a", None, None)


@pytest.mark.parametrize("content", [7, ["a"], {"text": "a"}])
def test_content_of_another_shape_is_refused(content: Any) -> None:
    with pytest.raises(InvalidAnswer, match="content"):
        chat({"content": content})


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ({"reasoning_details": [{"type": "reasoning.text"}]}, "raw"),
        ({"reasoning_details": [{"type": "reasoning.summary"}]}, "summary"),
        ({"thinking_blocks": [{"type": "thinking"}]}, "summary"),
        ({}, "raw"),
    ],
)
def test_only_the_parts_tell_a_summary_from_a_trace(message: dict[str, Any], kind: str) -> None:
    found = chat({"reasoning": "hm", **message})
    assert (found.reasoning, found.trace_kind) == ("hm", kind)
    parts = next(iter(message.values()), None)
    assert found.reasoning_parts == (None if parts is None else orjson.dumps(parts).decode())


def test_a_server_whose_traces_are_summaries_is_believed() -> None:
    assert chat({"reasoning": "hm"}, Dialect(trace="summary")).trace_kind == "summary"


def test_thoughts_that_were_billed_and_not_shown_are_omitted() -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 5}
    thought = usage | {"completion_tokens_details": {"reasoning_tokens": 4}}
    assert chat({}, usage=thought).trace_kind == "omitted"
    assert chat({"reasoning": "hm"}, usage=thought).trace_kind == "raw"
    assert chat({}, usage=usage).trace_kind is None


def test_a_function_call_of_the_old_kind_is_a_tool_call() -> None:
    found = chat({"content": None, "function_call": {"name": "f"}}, finish_reason="function_call")
    assert orjson.loads(found.tool_calls or "") == [{"type": "function", "function": {"name": "f"}}]
    assert chat({"content": None, "function_call": {"name": "f"}}).finish_reason == "stop"
    assert chat({"function_call": "f"}).tool_calls is None


def test_a_refusal_is_kept_beside_the_text() -> None:
    assert chat({"refusal": "no"}).refusal == "no"
    assert chat({}).refusal is None


# --- what was used ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("usage", "counted"),
    [
        (None, False),
        ({"prompt_tokens": 3}, False),
        ({"completion_tokens": 1}, False),
        ({"prompt_tokens": 3, "completion_tokens": 1}, True),
    ],
)
def test_what_a_server_does_not_say_is_nought_and_not_counted(usage: Any, counted: bool) -> None:
    found = chat({}, usage=usage, service_tier="flex").usage
    told = usage or {}
    assert (found.input_tokens, found.output_tokens) == (told.get("prompt_tokens", 0), told.get("completion_tokens", 0))
    assert (found.counted, found.service_tier) == (counted, "flex")


def test_a_whole_nobody_told_contradicts_nothing() -> None:
    usage = {"prompt_tokens_details": {"cached_tokens": 2}, "completion_tokens_details": {"reasoning_tokens": 2}}
    found = chat({}, usage=usage).usage
    assert (found.cached_input_tokens, found.reasoning_tokens, found.counted) == (2, 2, False)


def test_usage_of_which_no_parts_are_told_contradicts_nothing() -> None:
    check_usage({}, 0, 0)


@pytest.mark.parametrize(
    ("cost", "bill"),
    [
        (0, 0),
        (0.0000011, 2),
        (0.25, 250_000),
        (1_000_000, 10**12),
        (1_000_000.5, None),
        (-1, None),
        ("1", None),
        (True, None),
    ],
)
def test_a_bill_in_dollars_is_rounded_up_and_what_is_no_price_is_none(cost: Any, bill: int | None) -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 1, "cost": cost}
    assert chat({}, BILLS, usage=usage).usage.billed_microusd == bill
    assert chat({}, PLAIN, usage=usage).usage.billed_microusd is None
