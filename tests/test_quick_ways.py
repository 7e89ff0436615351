"""What is read and written the quick way comes out as it does the long way round."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpusgen.errors import InvalidAnswer
from corpusgen.records import _whole_numbers, canonical_json
from corpusgen.teachers import wire
from corpusgen.teachers.wire import read_completion

NOTHING: list[Any] = [None, "", [], {}, 0, False]
TEXTS = st.text() | st.sampled_from(["1.0", ":1.0,", "127.0.0.1", "[2.0]", "v3.0}", "-0.0"])
NUMBERS = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53).map(float)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
)


@given(VALUES)
def test_canonical_json_has_no_whole_number_with_a_fraction(value: Any) -> None:
    assert canonical_json(value) == orjson.dumps(_whole_numbers(value), option=orjson.OPT_SORT_KEYS)


@given(
    st.dictionaries(st.sampled_from([*wire._MORE, "function_call"]), st.sampled_from(NOTHING)),
    st.sampled_from(["stop", "refusal", "length"]),
    st.sampled_from([None, 0, 3]),
)
def test_a_message_of_text_alone_reads_as_by_the_longer_way(more: dict[str, Any], finish: str, thought: Any) -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": 5, "completion_tokens_details": {"reasoning_tokens": thought}}
    message: dict[str, Any] = {"role": "assistant", "content": "Hello.", **more}
    choice = {"message": message, "finish_reason": finish}
    reply = {"model": "m", "usage": usage, "choices": [choice]}
    # A content of parts, all of them text, is never read the quick way.
    parts = choice | {"message": message | {"content": [{"type": "text", "text": "Hello."}]}}
    quick = read_completion(orjson.dumps(reply), api="chat")
    assert quick == read_completion(orjson.dumps(reply | {"choices": [parts]}), api="chat")


COUNTS = st.none() | st.integers(0, 9) | st.sampled_from([-1, 2.0, 1.5, "3", 10**10])


@given(*[COUNTS] * 6)
def test_usage_is_counted_only_where_its_parts_fit(
    given_: Any, said: Any, total: Any, cached: Any, written: Any, reasoning: Any
) -> None:
    into = {"cached_tokens": cached, "cache_write_tokens": written}
    usage = {"prompt_tokens": given_, "completion_tokens": said, "total_tokens": total, "prompt_tokens_details": into}
    usage["completion_tokens_details"] = {"reasoning_tokens": reasoning}
    read = wire._usage(usage, None, wire.PLAIN)
    if read.counted:
        assert read.cached_input_tokens + read.cache_write_tokens <= read.input_tokens
        assert (read.reasoning_tokens or 0) <= read.output_tokens
        assert read.output_tokens >= said
    numbers = [number for number in (given_, said, cached, written, reasoning) if number is not None]
    if any(not isinstance(number, int | float) or number in (-1, 1.5, 10**10) for number in numbers):
        assert not read.counted


def test_an_answer_that_says_it_failed_is_none_however_plain() -> None:
    choice = {"message": {"content": "Hello."}, "finish_reason": "error"}
    with pytest.raises(InvalidAnswer):
        read_completion(orjson.dumps({"choices": [choice]}), api="chat")
