from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from quality_samples import answer, made

from corpusgen.curation import filters
from corpusgen.fields import Misplaced, Place
from corpusgen.records import Json


def mistakes(config: dict[str, Json], where: Place = ()) -> dict[Place, str]:
    with pytest.raises(Misplaced) as caught:
        filters.load(config, where)
    return dict(caught.value.mistakes)


def test_filters_come_in_the_order_they_are_written_in() -> None:
    loaded = filters.load({"refusal": {}, "length": {"min_words": 2}, "echo": None})
    assert [one.name for one in loaded] == ["refusal", "length", "echo"]


def test_a_filter_can_be_used_several_times() -> None:
    loaded = filters.load({"length": [{"min_words": 2}, {"max_words": 9, "sides": ["prompt"]}]})
    assert [one.sides for one in loaded] == [("answer",), ("prompt",)]


def test_an_unknown_filter_is_told_with_the_nearest_names() -> None:
    found = mistakes({"lenght": {}}, ("curate", "quality"))
    assert "did you mean 'length'? there are: agreement, " in found["curate", "quality", "lenght"]


def test_every_mistake_is_told_at_once_and_at_its_place() -> None:
    found = mistakes(
        {
            "wisdom": {},
            "length": [{"min_words": 3}, {"min_words": 5, "max_words": 2}],
            "judge": {"min_scores": 3},
            "echo": {"max_share": 2, "min_words": "12"},
            "refusal": 3,
        }
    )
    assert list(found) == [
        ("wisdom",),
        ("length", 1, "max_words"),
        ("judge", "min_score"),
        ("judge", "min_scores"),
        ("echo", "max_share"),
        ("echo", "min_words"),
        ("refusal",),
    ]


@pytest.mark.parametrize(
    ("name", "settings", "place", "message"),
    [
        ("length", {}, (), "needs a bound, such as min_words: 3"),
        ("length", {"min_words": -1}, ("min_words",), "must be 0 or more, found -1"),
        ("language", {"allowed": []}, ("allowed",), "needs at least 1"),
        ("language", {"allowed": ["en", "xx"]}, ("allowed", 1), "'xx' is no language that can be told"),
        ("confidence", {}, (), "needs a bound"),
        ("confidence", {"min_mean_logprob": 0.5}, ("min_mean_logprob",), "must be 0.0 or less, found 0.5"),
        ("format", {}, (), "needs a form"),
        ("format", {"matches": "(a", "foo": 1}, ("matches",), "is no regular expression of RE2"),
        ("format", {"matches": r"(a)\1"}, ("matches",), "neither back-references nor look-around"),
        ("format", {"answer_schema": {"type": "objekt"}}, ("answer_schema",), "is no JSON schema"),
        ("format", {"answer_schema": {"$ref": "#/x"}}, ("answer_schema",), "cannot be used"),
        ("format", {"answer_schema": {"$ref": "https://example.org"}}, ("answer_schema",), "cannot be used"),
        ("format", {"answer_schema": {"patternProperties": {"a": {}}}}, ("answer_schema",), "patternProperties"),
        ("format", {"answer_schema": {"pattern": "(?=a)"}}, ("answer_schema",), "is no regular expression of RE2"),
        ("agreement", {"min_share": 0}, ("min_share",), "must be more than 0"),
        ("refusal", {"action": "mask"}, ("action",), "must be one of 'drop', 'remark'"),
        ("encoding", {"sides": []}, ("sides",), "needs at least 1"),
    ],
)
def test_a_setting_outside_its_range_is_told_with_its_range(
    name: str, settings: Any, place: Place, message: str
) -> None:
    assert message in mistakes({name: settings})[(name, *place)]


def test_prompts_are_looked_at_by_those_filters_that_are_told_to() -> None:
    told, other = filters.load({"length": {"min_words": 3, "sides": ["prompt"]}, "encoding": {}})
    found = told.on_prompt("too short")
    assert found is not None
    assert (found.kept, found.score) == (False, 2)
    assert told.on_answers([answer("short")]) == [None]
    assert other.on_prompt("\ufffd") is None


def test_a_remark_keeps_what_would_be_dropped_with_its_reason() -> None:
    (found,) = made("refusal", action="remark").on_answers([answer("I can't help with that.")])
    assert found is not None
    assert (found.kept, found.reason) == (True, "begins like a refusal")


def test_only_the_filters_that_are_asked_for_are_loaded() -> None:
    code = "from corpusgen.curation.filters import load; load({'refusal': {}}); import sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "corpusgen.curation.quality.refusal" in loaded
    assert not loaded & {"corpusgen.curation.quality.language", "py3langid", "re2", "numpy", "jsonschema", "tiktoken"}
