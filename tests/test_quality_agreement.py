from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from quality_samples import answer, made
from record_samples import sample_record

from corpusgen.records import Json, Record


def kept(records: Sequence[Record], **settings: Json) -> list[bool]:
    return [found is None or found.kept for found in made("agreement", **settings).on_answers(records)]


def labels(*names: str | None) -> list[Record]:
    return [sample_record(label=name, sample_index=at) for at, name in enumerate(names)]


def texts(*said: str) -> list[Record]:
    return [answer(text, sample_index=at) for at, text in enumerate(said)]


def test_the_majority_stays_and_who_differs_goes() -> None:
    assert kept(labels("cat", "dog", "cat")) == [True, False, True]


def test_the_score_is_the_majoritys_share() -> None:
    found = made("agreement").on_answers(labels("cat", "dog", "cat"))
    assert [one and one.score for one in found] == [pytest.approx(2 / 3)] * 3
    assert [one and one.reason for one in found] == ["passes", "differs from the majority", "passes"]


@pytest.mark.parametrize(
    "group",
    [
        labels("cat", "dog"),
        labels("cat", "cat", "dog", "dog"),
        labels("a", "b", "c"),
        labels(None, None),
        texts("", " "),
    ],
)
def test_a_tie_has_no_majority(group: list[Record]) -> None:
    found = made("agreement").on_answers(group)
    assert {one.reason for one in found if one} == {"no majority"}
    assert not any(kept(group))


def test_a_majority_can_be_too_small() -> None:
    group = labels("cat", "cat", "dog", "emu", "fox")
    assert not any(kept(group))
    assert kept(group, min_share=0.4) == [True, True, False, False, False]


def test_one_that_differs_can_cost_the_whole_group() -> None:
    assert not any(kept(labels("cat", "cat", "dog"), dissenters="drop_all"))
    assert all(kept(labels("cat", "cat", "cat"), dissenters="drop_all"))


def test_one_answer_has_nobody_to_agree_with() -> None:
    (found,) = made("agreement").on_answers(labels("cat"))
    assert found is not None
    assert (found.kept, found.reason) == (True, "too few answers to compare")


def test_texts_agree_that_say_almost_the_same() -> None:
    group = texts(
        "The capital of Peru is the city of Lima.",
        "the capital of Peru is the city of lima",
        "Cuzco, high up in the Andes, was the seat of the Inca.",
    )
    assert kept(group) == [True, True, False]
    assert not any(kept(texts("It is Lima, of course.", "Lima, it is of course!"), similarity=1.0))


def test_worked_answers_are_compared_by_their_last_number() -> None:
    group = texts("6 · 200 = 1,200", "Twice 600 makes 1200.00.", "So it is 1,300", "I do not know.")
    assert kept(group, compare="last_number") == [True, True, False, False]


def test_worked_answers_are_compared_by_their_last_line() -> None:
    group = texts("First this.\n\nAnswer: B\n", "First that.\nanswer:  b", "Answer: C")
    assert kept(group, compare="last_line") == [True, True, False]


def test_calibrated_labels_count_where_there_are_any() -> None:
    group = [sample_record(label="cat", calibrated_label="dog"), sample_record(label="dog"), sample_record(label="cat")]
    assert kept(group) == [True, True, False]


@given(st.lists(st.sampled_from(["a", "b", "c"]), min_size=2, max_size=9), st.randoms(use_true_random=False))
def test_who_stays_does_not_hang_on_the_order(names: list[str], numbers: object) -> None:
    order = sorted(range(len(names)), key=lambda at: (names[at] * 7, -at))
    there = kept(labels(*names))
    assert kept(labels(*(names[at] for at in order))) == [there[at] for at in order]
