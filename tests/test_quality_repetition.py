from __future__ import annotations

import random

import pytest
from quality_samples import answer, drops, said

from corpusgen.curation.quality.repetition import loop_at_end, packed_share

WORDS = [f"{first}{second}" for first in ("ba", "ki", "lo", "mu", "se") for second in ("nor", "tel", "vak", "zim")]


def plain(words: int, seed: int = 1) -> str:
    """Text that says new things: no phrase of five words comes twice."""
    numbers = random.Random(seed)
    return " ".join(numbers.choice(WORDS) + str(numbers.randrange(1_000)) for _ in range(words))


@pytest.mark.parametrize("words", [30, 100, 1_000, 20_000])
def test_a_text_that_says_new_things_passes_at_any_length(words: int) -> None:
    assert not drops("repetition", answer(plain(words)))


def test_a_paragraph_said_again_and_again_is_found_wherever_it_stands() -> None:
    loop = plain(40) + ". "
    text = plain(60, seed=2) + ". " + loop * 6 + plain(60, seed=3)
    found = said("repetition", answer(text))
    assert found is not None
    assert (found.kept, found.reason) == (False, "repeats its phrases")
    assert found.score is not None
    assert found.threshold is not None
    assert found.score > found.threshold


def test_a_looping_end_is_found_after_any_length_of_good_text() -> None:
    assert drops("repetition", answer(plain(50_000) + " and so on" * 20))


def test_repeated_lines_are_found_in_short_texts() -> None:
    lines = ["Turn left at the mill."] * 3 + ["Go over the bridge.", "Turn left at the church.", "You are there now."]
    found = said("repetition", answer("\n".join(lines)))
    assert found is not None
    assert (found.kept, found.reason) == (False, "repeats its lines")


def test_a_loop_that_counts_on_is_a_loop() -> None:
    short = "\n".join(f"{number}. a paper clip can hold paper" for number in range(1, 6))
    assert drops("repetition", answer(short))
    found = said(
        "repetition", answer("Animals:\n" + "\n".join(f"{number}. Blue whale (large)" for number in range(1, 17)))
    )
    assert found is not None
    assert found.reason == "ends in a loop"


def test_a_list_of_short_verdicts_is_no_loop() -> None:
    chance = random.Random(2)
    assert not drops("repetition", answer("\n".join(f"{at}. {chance.choice(['yes', 'no'])}" for at in range(40))))


def test_code_may_repeat_its_lines() -> None:
    code = "```\n" + "    return None\n" * 20 + "```"
    assert not drops("repetition", answer(f"Each of these functions gives back nothing:\n{code}\nThat is all."))


def test_limits_can_be_drawn_closer() -> None:
    text = plain(300) + " " + " ".join([plain(12, seed=5)] * 3) + " " + plain(50, seed=6)
    assert not drops("repetition", answer(text))
    assert drops("repetition", answer(text), strictness=4.0)


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("Well, no, no, no.", None),
        ("----" * 100, None),
        ("1" + "0" * 100, None),
        ("yes " + "ha" * 40, "ha"),
        ("x" * 59, None),
        ("x" * 60, "x"),
    ],
)
def test_a_loop_is_the_same_again_five_times_and_sixty_characters(text: str, unit: str | None) -> None:
    assert loop_at_end(text) == unit


def test_a_text_that_packs_to_nothing_repeats_itself() -> None:
    assert packed_share("short") is None
    found = said("repetition", answer("😂" * 300))
    assert found is not None
    assert (found.kept, found.metric) == (False, "size packed / size")
