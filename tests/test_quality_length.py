from __future__ import annotations

import pytest
from quality_samples import answer, drops, said

THAI = "ไม่รู้"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", 0),
        ("one two-three four", 3),
        ("Yes — and no.", 3),
        ("* * *", 0),
        ("😀 😀", 0),
        ("我不能，對嗎？", 5),
        ("東京は big です。", 6),
        ("우리는 함께 간다", 3),
        ("मुझे पानी दो", 3),
        (THAI, 3),
    ],
)
def test_words_are_counted_and_characters_where_there_are_no_spaces(text: str, words: int) -> None:
    found = said("length", answer(text), min_words=0)
    assert found is not None
    assert found.score == words


def test_bounds_count_as_within() -> None:
    assert not drops("length", answer("one two three"), min_words=3, max_words=3)
    assert drops("length", answer("one two"), min_words=3)
    assert drops("length", answer("one two three four"), max_words=3)


def test_space_around_a_text_is_no_part_of_its_length() -> None:
    assert drops("length", answer("  four  \n"), min_characters=5)
    assert not drops("length", answer("  four  \n"), max_characters=4)


def test_a_drop_says_what_was_counted_and_what_is_allowed() -> None:
    found = said("length", answer("a b c d"), max_words=3)
    assert found is not None
    assert (found.reason, found.metric, found.score, found.threshold) == ("too many words", "words", 4, 3)


def test_tokens_are_those_of_a_public_encoding() -> None:
    found = said("length", answer("the cat sat on the mat"), min_tokens=1)
    assert found is not None
    assert found.score == 6


def test_counting_tokens_ends_soon_after_the_bound() -> None:
    found = said("length", answer("cat " * 1_000_000), max_tokens=10)
    assert found is not None
    assert found.score is not None
    assert 10 < found.score < 20_000
