from __future__ import annotations

import pytest

import corpusgen

NAMES = [
    "Completion",
    "Corpus",
    "CorpusgenError",
    "Message",
    "Record",
    "Request",
    "TaskSpec",
    "Teacher",
    "generate",
    "open_teacher",
]


def test_there_are_ten_public_names_and_no_more() -> None:
    assert sorted(corpusgen.__all__) == NAMES
    assert dir(corpusgen) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_each_can_be_had_from_the_package(name: str) -> None:
    assert getattr(corpusgen, name).__name__ == name


def test_other_names_are_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'corpusgen' has no attribute 'Pipeline'"):
        _ = corpusgen.Pipeline
