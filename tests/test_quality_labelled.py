"""How many texts that should be dropped are, and how many others, on sets written for this: the numbers of the docs."""

from __future__ import annotations

import random
from functools import cache
from pydoc_data.topics import topics

import pytest
from quality_samples import Labelled, answer, drops, labelled, read

from corpusgen.records import Json


@pytest.mark.parametrize(
    ("name", "missed"),
    [("refusal", 3), ("boilerplate", 0), ("repetition", 0), ("truncation", 0), ("encoding", 0), ("echo", 0)],
)
def test_a_labelled_set_is_told_apart(name: str, missed: int) -> None:
    texts: Labelled = labelled(name)
    assert len(texts.flagged) >= 20
    assert len(texts.passed) >= 50
    assert [record.response for record in texts.passed if drops(name, record)] == []
    assert sum(not drops(name, record) for record in texts.flagged) <= missed


def test_two_of_three_refusals_that_no_opening_was_written_for_are_found() -> None:
    unseen = read("refusal_unseen")["flagged"]
    assert sum(drops("refusal", answer(text)) for text in unseen) >= 20


def test_each_of_31_languages_is_told_from_the_others() -> None:
    texts = read("language")
    for language, sentences in texts.items():
        for sentence in sentences:
            assert not drops("language", answer(sentence), allowed=[language])


def test_no_sentence_passes_for_one_of_another_language_unless_it_is_too_short_to_tell() -> None:
    texts = read("language")
    strange = [sentence for language, sentences in texts.items() if language != "en" for sentence in sentences]
    dropped = sum(drops("language", answer(sentence), allowed=["en"]) for sentence in strange)
    assert dropped / len(strange) >= 0.95


@cache
def found_paragraphs() -> tuple[str, ...]:
    """Prose that nobody wrote for this: of Python's manual, as every Python brings it along."""
    texts = (" ".join(text.split()) for topic in topics.values() for text in topic.split("\n\n"))
    return tuple(sorted({text for text in texts if len(text.split()) >= 15 and text.endswith(".")}))


@pytest.mark.parametrize(
    ("name", "settings", "share"),
    [
        ("refusal", {}, 0.001),
        ("boilerplate", {}, 0.001),
        ("repetition", {}, 0.005),
        ("truncation", {}, 0.005),
        ("encoding", {}, 0.0),
        ("language", {"allowed": ["en"]}, 0.001),
    ],
)
def test_next_to_nothing_is_dropped_of_found_prose(name: str, settings: dict[str, Json], share: float) -> None:
    texts = found_paragraphs()
    assert len(texts) >= 500
    assert sum(drops(name, answer(text), **settings) for text in texts) <= share * len(texts)


def test_four_of_five_found_paragraphs_cut_at_some_word_are_found() -> None:
    chance = random.Random(1)
    several = [text.split() for text in found_paragraphs() if text.count(". ") >= 2]
    cuts = [" ".join(words[: chance.randrange(len(words) // 2, len(words))]) for words in several]
    open_ended = [cut for cut in cuts if not cut.endswith((".", "!", "?", ":"))]
    assert len(open_ended) >= 100
    assert sum(drops("truncation", answer(cut)) for cut in open_ended) >= 0.75 * len(open_ended)
