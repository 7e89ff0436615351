"""The last value that is read and the first that is refused, where an answer is worth money."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest
from teacher_samples import chat_reply, reply, request

from corpusgen.errors import InvalidAnswer, RequestRefused
from corpusgen.records import Completion
from corpusgen.teachers.wire import read_completion, request_body, shown


def chat(body: Any) -> Completion:
    return read_completion(orjson.dumps(body), api="chat")


def with_usage(**counts: Any) -> dict[str, Any]:
    plain = {"prompt_tokens": 10, "completion_tokens": 4}
    return {**chat_reply({"content": "x"}), "usage": {**plain, **counts}}


def with_logprob(value: Any) -> dict[str, Any]:
    body = chat_reply({"content": "x"})
    body["choices"][0]["logprobs"] = {"content": [{"token": "x", "logprob": value, "top_logprobs": []}]}
    return body


@pytest.mark.parametrize("value", [0.01, 0.0, -1.0, -9998.5])
def test_a_log_probability_rounded_up_a_little_is_read(value: float) -> None:
    found = chat(with_logprob(value)).logprobs
    assert found is not None
    assert found.token_logprobs == (value,)


def test_above_rounding_there_are_no_log_probabilities() -> None:
    assert (chat(with_logprob(0.011)).text, chat(with_logprob(0.011)).logprobs) == ("x", None)


@pytest.mark.parametrize(("number", "kept"), [(0, True), (2**31 - 1, True), (2**31, False), (-1, False)])
def test_a_token_number_fits_its_column_or_none_is_kept(number: int, kept: bool) -> None:
    body = with_logprob(-1.0)
    body["choices"][0]["logprobs"]["content"][0]["id"] = number
    found = chat(body).logprobs
    assert found is not None
    assert found.token_ids == ((number,) if kept else None)


@pytest.mark.parametrize("value", [-9999.0, -10_000, None])
def test_what_stands_for_none_is_none(value: Any) -> None:
    found = chat(with_logprob(value)).logprobs
    assert found is not None
    assert found.token_logprobs == (None,)


def test_tool_calls_that_are_no_list_are_refused() -> None:
    with pytest.raises(InvalidAnswer, match="a list of tool_calls"):
        chat(chat_reply({"content": "x", "tool_calls": {"name": "f"}}))


@pytest.mark.parametrize(
    ("details", "kind"),
    [([{"type": "reasoning.encrypted"}], "encrypted"), ([{"type": "reasoning.text"}], None), ("none", None)],
)
def test_a_trace_nobody_can_read_is_known_to_be_encrypted(details: Any, kind: str | None) -> None:
    found = chat(chat_reply({"content": "x", "reasoning_details": details}))
    assert (found.reasoning, found.trace_kind) == (None, kind)


@pytest.mark.parametrize(("name", "lasting"), [("ttl_1h", 3), ("ttl_24h", 3), ("ttl_5m", 0), ("other_1h", 0)])
def test_writes_that_last_an_hour_are_told_from_others(name: str, lasting: int) -> None:
    details = {"cache_write_tokens": 3, "cache_write_tokens_details": {name: 3}}
    assert chat(with_usage(prompt_tokens_details=details)).usage.cache_write_1h_tokens == lasting


def test_more_lasting_writes_than_writes_contradict_each_other() -> None:
    details = {"cache_write_tokens": 3, "cache_write_tokens_details": {"ttl_1h": 4}}
    assert not chat(with_usage(prompt_tokens_details=details)).usage.counted


@pytest.mark.parametrize(("cached", "written"), [(10, 0), (6, 4)])
def test_all_of_the_input_may_come_from_the_cache(cached: int, written: int) -> None:
    usage = chat(with_usage(prompt_tokens_details={"cached_tokens": cached, "cache_write_tokens": written})).usage
    assert (usage.cached_input_tokens, usage.cache_write_tokens) == (cached, written)


@pytest.mark.parametrize(("cached", "written"), [(11, 0), (6, 5)])
def test_more_than_the_input_may_not(cached: int, written: int) -> None:
    found = chat(with_usage(prompt_tokens_details={"cached_tokens": cached, "cache_write_tokens": written}))
    assert (found.text, found.usage.counted) == ("x", False)


@pytest.mark.parametrize(("reasoning", "fine"), [(4, True), (5, False)])
def test_reasoning_is_part_of_the_output(reasoning: int, fine: bool) -> None:
    usage = chat(with_usage(completion_tokens_details={"reasoning_tokens": reasoning})).usage
    assert (usage.reasoning_tokens, usage.counted) == ((reasoning, True) if fine else (None, False))


@pytest.mark.parametrize("details", [None, {}, {"cached_tokens": None}, {"cache_write_tokens_details": None}])
def test_details_that_say_nothing_are_nothing(details: Any) -> None:
    usage = chat(with_usage(prompt_tokens_details=details)).usage
    assert (usage.cached_input_tokens, usage.cache_write_tokens, usage.cache_write_1h_tokens) == (0, 0, 0)
    assert usage.reasoning_tokens is None


@pytest.mark.parametrize(("given", "tier"), [("flex", "flex"), ("", None), (7, None)])
def test_the_tier_is_the_one_the_answer_names(given: Any, tier: str | None) -> None:
    assert chat({**with_usage(), "service_tier": given}).usage.service_tier == tier
    assert chat(with_usage(service_tier=given)).usage.service_tier == tier


def test_input_and_output_are_not_mistaken_for_each_other() -> None:
    usage = chat(with_usage(total_tokens=14)).usage
    assert (usage.input_tokens, usage.output_tokens) == (10, 4)


@pytest.mark.parametrize("ids", [[1, "2"], [None, 1], []])
def test_token_ids_are_all_numbers_or_none_at_all(ids: list[Any]) -> None:
    body = chat_reply({"content": "x"})
    entries = [{"token": "x", "logprob": -1.0, "id": one} for one in ids]
    body["choices"][0]["logprobs"] = {"content": entries}
    found = chat(body).logprobs
    assert (found is None) if not ids else (found is not None and found.token_ids is None)


def test_a_legacy_token_that_is_not_text_is_its_bytes() -> None:
    body = reply()
    tokens = ["bytes:\\xe2\\x80", "bytes", "y"]
    body["choices"][0]["logprobs"] = {
        "tokens": tokens,
        "token_logprobs": [-1.0, -2.0, -3.0],
        "top_logprobs": [{token: -1.0} for token in tokens],
    }
    found = read_completion(orjson.dumps(body), api="completion").logprobs
    assert found is not None
    assert found.token_bytes == found.topk_bytes == (b"\xe2\x80", b"bytes", b"y")
    assert found.topk_len == (1, 1, 1)


@pytest.mark.parametrize("short", ["token_logprobs", "top_logprobs"])
def test_legacy_columns_of_different_lengths_are_none(short: str) -> None:
    body = reply()
    columns: dict[str, Any] = {"token_logprobs": [-1.0, -2.0], "top_logprobs": [{}, {}]}
    body["choices"][0]["logprobs"] = {"tokens": ["x", "y"], **columns, short: columns[short][:1]}
    assert read_completion(orjson.dumps(body), api="completion").logprobs is None


@pytest.mark.parametrize(("length", "name"), [(0, None), (1, "m")])
def test_a_name_without_letters_is_none(length: int, name: str | None) -> None:
    assert chat({**chat_reply({"content": "x"}), "model": "m" * length}).model_served == name


@pytest.mark.parametrize(("length", "ends"), [(200, "x'"), (201, "…'")])
def test_a_long_text_is_shown_shortened(length: int, ends: str) -> None:
    found = shown("x" * length)
    assert found.endswith(ends)
    assert len(found) == 202


def test_an_empty_refusal_is_none() -> None:
    found = chat(chat_reply({"content": "x", "refusal": ""}))
    assert (found.text, found.finish_reason) == ("x", "stop")


def test_no_output_is_no_output_where_nothing_says_more() -> None:
    assert chat(with_usage(completion_tokens=0)).usage.output_tokens == 0


# --- the last that is taken and the first that is not -----------------------------------------------------------------


def test_a_thousand_million_tokens_are_a_count_and_one_more_is_a_fault() -> None:
    assert chat(with_usage(prompt_tokens=10**9)).usage.input_tokens == 10**9
    assert not chat(with_usage(prompt_tokens=10**9 + 1)).usage.counted


@pytest.mark.parametrize(("length", "kept"), [(200, True), (201, False)])
def test_a_name_may_be_so_long(length: int, kept: bool) -> None:
    served = chat({**chat_reply({"content": "x"}), "model": "m" * length}).model_served
    assert served == ("m" * length if kept else None)


@pytest.mark.parametrize("message", [{}, {"reasoning_content": "hm"}])
def test_what_is_cut_before_its_first_word_is_an_empty_answer(message: Any) -> None:
    found = chat(chat_reply({"content": None, **message}, finish_reason="length"))
    assert (found.text, found.reasoning, found.truncated) == ("", message.get("reasoning_content"), True)


def test_a_total_that_is_all_input_leaves_no_output() -> None:
    assert chat(with_usage(completion_tokens=0, total_tokens=10)).usage.output_tokens == 0


@pytest.mark.parametrize("column", ["token_logprobs", "top_logprobs"])
def test_a_legacy_column_that_is_missing_is_unknown(column: str) -> None:
    body = reply()
    columns = {"token_logprobs": [-1.0, -2.0], "top_logprobs": [{"x": -1.0}, {"y": -2.0}], column: None}
    body["choices"][0]["logprobs"] = {"tokens": ["x", "y"], **columns}
    found = read_completion(orjson.dumps(body), api="completion", tokenizer="t").logprobs
    assert found is not None
    assert found.token_logprobs == ((None, None) if column == "token_logprobs" else (-1.0, -2.0))
    assert found.topk_len == ((0, 0) if column == "top_logprobs" else (1, 1))
    assert found.tokenizer == "t"


def test_log_probabilities_of_all_kinds_stand_side_by_side() -> None:
    body = chat_reply({"content": "x"})
    entries = [{"token": "x", "logprob": value} for value in (-1.5, -2, None)]
    body["choices"][0]["logprobs"] = {"content": entries}
    found = read_completion(orjson.dumps(body), api="chat", tokenizer="t").logprobs
    assert found is not None
    assert found.token_logprobs == (-1.5, -2.0, None)
    assert found.tokenizer == "t"


@pytest.mark.parametrize("value", [False, "-1", [-1.0]])
def test_a_log_probability_that_is_no_number_is_none(value: Any) -> None:
    assert (chat(with_logprob(value)).text, chat(with_logprob(value)).logprobs) == ("x", None)


def test_a_foreign_text_is_looked_at_only_at_its_beginning() -> None:
    assert shown(b"x" * 200) == repr("x" * 200)
    assert shown("\N{GRINNING FACE}".encode() * 200) == repr("\N{GRINNING FACE}" * 200)
    assert shown(b" " * 800 + b"x") == "''"


def test_a_control_character_is_never_shown() -> None:
    assert shown("a\x1b[2Jb\tc") == "'a [2Jb c'"


def test_a_schema_is_to_be_held_to() -> None:
    wanted = {"type": "object"}
    sent = orjson.loads(request_body(replace(request(api="chat"), schema=wanted)))
    assert sent["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "strict": True, "schema": wanted},
    }


@pytest.mark.parametrize("field", [{"schema": {"type": "object"}}, {"tools": [{"type": "function"}]}])
def test_a_completion_takes_neither_tools_nor_a_schema(field: dict[str, Any]) -> None:
    with pytest.raises(RequestRefused, match="neither tools nor a schema"):
        request_body(replace(request(), **field))
