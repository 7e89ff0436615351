from __future__ import annotations

import math

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from teacher_samples import ranked, reply

from corpusgen.errors import UsageError
from corpusgen.records import Completion
from corpusgen.teachers.labels import check_first_tokens, read_label
from corpusgen.teachers.wire import read_completion

NAMES = ("animal", "plant", "place")
TOKENS = (b" animal", b" plant", b" place")


def answer(*tokens: tuple[str, float], text: str = " animal") -> Completion:
    choice = {"text": text, "logprobs": ranked(*tokens) if tokens else None}
    return read_completion(orjson.dumps(reply(choice)), api="completion")


def test_the_likeliest_label_is_the_answer_whatever_was_written() -> None:
    reading = read_label(NAMES, TOKENS, answer((" the", -0.1), (" plant", -2.0), (" animal", -3.0), (" place", -4.0)))
    assert (reading.label, reading.logprobs) == ("plant", (-3.0, -2.0, -4.0))


def test_a_label_among_no_runners_up_is_none_and_never_a_constant() -> None:
    reading = read_label(NAMES, TOKENS, answer((" plant", -2.0)))
    assert (reading.label, reading.logprobs) == ("plant", (None, -2.0, None))


def test_a_sampled_label_counts_although_it_is_no_runner_up() -> None:
    logprobs = ranked((" place", -5.0))
    logprobs["content"][0]["top_logprobs"] = [{"token": " plant", "logprob": -1.0}]
    body = orjson.dumps(reply({"logprobs": logprobs}))
    assert read_label(NAMES, TOKENS, read_completion(body, api="completion")).logprobs == (None, -1.0, -5.0)


@pytest.mark.parametrize("text", ["plant", " Plant\n", "PLANT "])
def test_without_log_probabilities_the_written_label_is_the_answer(text: str) -> None:
    reading = read_label(NAMES, None, answer(text=text))
    assert (reading.label, reading.logprobs) == ("plant", (None, None, None))


@pytest.mark.parametrize("text", ["a plant", "plants", "", "plant animal"])
def test_what_is_written_must_be_the_whole_label(text: str) -> None:
    assert read_label(NAMES, TOKENS, answer(text=text)).label is None


def test_without_first_tokens_the_ways_to_begin_a_label_add_up() -> None:
    reading = read_label(NAMES, None, answer(("Animal", math.log(0.25)), (" an", math.log(0.25)), (" plan", -3.0)))
    assert reading.logprobs[0] == pytest.approx(math.log(0.5))
    assert reading.logprobs[1:] == (-3.0, None)
    assert reading.label == "animal"


@pytest.mark.parametrize("token", ["pl", " PL", "p", " ", "", "a", "animals"])
def test_a_beginning_that_two_labels_share_or_that_says_little_counts_for_none(token: str) -> None:
    assert read_label(NAMES, None, answer((token, -0.1))).logprobs == (None, None, None)


def test_a_whole_label_goes_before_one_it_begins() -> None:
    assert read_label(("plan", "planet"), None, answer((" plan", -0.5))).logprobs == (-0.5, None)


def test_labels_with_the_same_first_token_are_named() -> None:
    with pytest.raises(UsageError, match=r"'plant' and 'plane' begin with the token ' pl'"):
        check_first_tokens(("animal", "plant", "plane"), (b" animal", b" pl", b" pl"))
    check_first_tokens(NAMES, TOKENS)


def test_a_label_that_begins_with_a_space_token_is_named() -> None:
    with pytest.raises(UsageError, match="'1st' begins with the empty token"):
        check_first_tokens(("1st", "other"), (b" ", b" other"))


@given(st.lists(st.floats(-30, 0), min_size=3, max_size=3))
def test_the_label_is_always_one_of_the_likeliest(values: list[float]) -> None:
    pairs = sorted(zip((" animal", " plant", " place"), values, strict=True), key=lambda pair: -pair[1])
    reading = read_label(NAMES, TOKENS, answer(*pairs))
    assert reading.logprobs == tuple(values)
    assert values[NAMES.index(str(reading.label))] == max(values)
