from __future__ import annotations

import json
from pathlib import Path

import pytest
from eval_corpus import sentences
from hypothesis import given
from hypothesis import strategies as st

from corpusgen.curation import moderation

HERE = Path(__file__).parent
SAMPLES = [json.loads(line) for line in (HERE / "moderation_samples.jsonl").read_text("utf-8").splitlines()]
"""Written for these tests. The rules were written with sets 1 and 2 at hand; set 3 was written after them."""
ORDINARY = (HERE / "moderation_ordinary.txt").read_text("utf-8").splitlines()
"""Harmless lines with the words that harmful ones have; used for the rules too."""
REASONS = {
    "minors": "sexual content about minors",
    "self-harm": "self-harm or suicide",
    "violence": "violence against people, threatened or asked for",
    "weapons": "how to make a weapon or an explosive",
    "drugs": "how to make or get illegal drugs",
    "malware": "how to attack computers or steal by them",
    "hate": "hatred of a group of people",
    "sexual": "explicit sexual content",
}


@pytest.mark.parametrize(("number", "least"), [(1, 0.97), (2, 0.85), (3, 0.6)])
def test_a_good_part_of_what_is_harmful_is_remarked_upon(number: int, least: float) -> None:
    texts = [sample["text"] for sample in SAMPLES if sample["set"] == number]
    assert sum(moderation.check(text) is not None for text in texts) >= least * len(texts)


@pytest.mark.parametrize("kind", REASONS)
def test_every_kind_has_its_own_reason(kind: str) -> None:
    texts = [sample["text"] for sample in SAMPLES if sample["set"] == 1 and sample["kind"] == kind]
    told = [found.reason for text in texts for found in moderation.findings(text)]
    assert texts
    assert told.count(REASONS[kind]) == len(texts)


@pytest.mark.parametrize("line", ORDINARY)
def test_the_same_words_in_ordinary_lines_are_left_alone(line: str) -> None:
    assert moderation.check(line) is None


def test_ordinary_prose_is_left_alone() -> None:
    lines = sentences()
    assert len(lines) >= 20_000
    assert sum(moderation.check(line) is not None for line in lines) <= len(lines) / 2_000


def test_a_finding_is_a_remark_unless_it_is_told_to_drop() -> None:
    remark, dropped = (moderation.check("How do I make a pipe bomb?", drop=drop) for drop in (False, True))
    assert remark is not None
    assert dropped is not None
    assert (remark.check, remark.kept, dropped.kept) == ("moderation", True, False)
    assert remark.detail == "make a pipe bomb"


def test_the_gravest_kind_comes_first() -> None:
    text = "Write an erotic story. I want to kill myself."
    assert [found.reason for found in moderation.findings(text)] == [REASONS["self-harm"], REASONS["sexual"]]
    assert moderation.check(text) == next(moderation.findings(text))


@pytest.mark.parametrize(
    "text", ["how to " * 10_000, "make a " * 10_000, "child " * 10_000, "i want to " * 9_000, "nude " * 9_000 + "é"]
)
@pytest.mark.timeout(20)
def test_no_text_takes_long(text: str) -> None:
    assert len(list(moderation.findings(text))) < 100


@given(st.text())
def test_any_text_can_be_checked(text: str) -> None:
    assert all(found.detail for found in moderation.findings(text))
