from __future__ import annotations

import pytest
from quality_samples import answer, drops, said

FENCE = "```python\nprint('a')"
BRACKET = "The first king (who was also"
SENTENCE = "It rained. It snowed. In the evening the whole valley was covered by"


@pytest.mark.parametrize("finish_reason", ["length", "pause"])
def test_the_teachers_own_word_counts_whatever_the_text(finish_reason: str) -> None:
    found = said("truncation", answer("It is done.", finish_reason=finish_reason))
    assert found is not None
    assert (found.kept, found.detail) == (False, f"finish reason {finish_reason}")
    assert drops("truncation", answer("It is done.", truncated=True))


def test_a_label_always_breaks_off_and_is_let_alone() -> None:
    assert said("truncation", answer("ani", kind="label", finish_reason="length", truncated=True)) is None


@pytest.mark.parametrize(
    ("text", "setting", "reason"),
    [
        (FENCE, "fences", "a code fence is not closed"),
        (BRACKET, "brackets", "a bracket is not closed"),
        (SENTENCE, "sentences", "ends in the middle of a sentence"),
    ],
)
def test_each_sign_has_its_reason_and_can_be_left_out(text: str, setting: str, reason: str) -> None:
    found = said("truncation", answer(text))
    assert found is not None
    assert (found.kept, found.reason) == (False, reason)
    assert said("truncation", answer(text), **{setting: False}) is None


@pytest.mark.parametrize(
    "text",
    [
        "1) one 2) two",
        "[0, 1)",
        "well :(",
        "`f(` opens it",
        "(He was late.",
        "no end",
        "- One thing. And another.\n- The second one is about how things go on and on",
    ],
)
def test_what_only_looks_open_passes(text: str) -> None:
    assert not drops("truncation", answer(text), sentences=False)


def test_prose_without_full_stops_is_a_way_of_writing() -> None:
    assert not drops("truncation", answer("the first of many lines here\nthe second of many lines here\n" * 3))
    assert not drops("truncation", answer("The capital of Peru is the city of Lima"))
    assert not drops("truncation", answer("Prof. Ames teaches chemistry at the university of Graz"))


@pytest.mark.parametrize(
    "text", ["It rained all day. So we stayed.\n\nThe", "It rained. It snowed, and then all of it was in the"]
)
def test_a_word_that_nothing_ends_with_breaks_off_whatever_comes_before(text: str) -> None:
    assert drops(
        "truncation", answer("a line that is left open on purpose\n" + "It was cold in the house. " * 5 + text)
    )


def test_an_item_that_is_still_empty_breaks_off_a_list() -> None:
    found = said("truncation", answer("There are three.\n\n1. The sun.\n\n2. **"))
    assert found is not None
    assert found.reason == "a list's last item is empty"
