from __future__ import annotations

import pytest
from quality_samples import answer, drops, said

from corpusgen.curation.refusals import OPENINGS, language_of_refusal


@pytest.mark.parametrize(
    ("finish_reason", "reason"),
    [
        ("refusal", "the teacher said that it refuses"),
        ("content_filter", "a content filter kept the answer back"),
    ],
)
def test_the_teachers_own_word_counts_whatever_the_text(finish_reason: str, reason: str) -> None:
    found = said("refusal", answer("Here you are.", finish_reason=finish_reason))
    assert found is not None
    assert (found.kept, found.reason) == (False, reason)


def test_case_typography_and_decoration_make_no_difference() -> None:
    for text in ("I’M SORRY, BUT I CAN’T HELP WITH THAT.", "**I can't\nhelp** with that", "> I cannot assist."):
        assert drops("refusal", answer(text)), text


def test_a_refusal_quoted_further_on_is_part_of_a_story() -> None:
    story = "The clerk did not look up. " * 20 + "“I'm sorry, but I can't help you with that,” he said."
    assert not drops("refusal", answer(story))


def test_a_long_answer_that_begins_like_a_refusal_is_kept_with_a_remark() -> None:
    long = "I can't give medical advice, but this is what is known. " + "Sleep helps, and so does water. " * 40
    found = said("refusal", answer(long))
    assert found is not None
    assert (found.kept, found.reason) == (True, "begins like a refusal and goes on")
    assert drops("refusal", answer(long), max_words=1_000)


def test_the_language_of_a_refusal_is_told() -> None:
    assert language_of_refusal("Lo siento, pero no puedo ayudarte con eso.") == "es"
    assert language_of_refusal("Lima.") is None
    assert len(OPENINGS) >= 8
