from __future__ import annotations

from typing import Any

import pytest
from quality_samples import answer, drops, said

from corpusgen.records import Json

SCHEMA: Json = {
    "type": "object",
    "properties": {"name": {"type": "string", "pattern": "^[A-Z]"}, "tags": {"type": "array", "uniqueItems": True}},
    "required": ["name"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("text", ["{}", "[1, 2]", " 3 ", '"text"', "```json\n{}\n```", "```\n[]\n```"])
def test_json_passes_in_a_fence_or_without(text: str) -> None:
    assert not drops("format", answer(text), is_json=True)


@pytest.mark.parametrize(
    "text", ["", "Lima", "{'a': 1}", "{} and more", "NaN", "[" * 2_000, "Here: ```json\n{}\n```", '"\ud800"']
)
def test_anything_else_is_not_json(text: str) -> None:
    found = said("format", answer(text), is_json=True)
    assert found is not None
    assert found.reason == "is not JSON"


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ('{"name": "Ada"}', True),
        ('{"name": "Ada", "tags": [1, "1", true, {}]}', True),
        ('{"name": "ada"}', False),
        ('{"name": "Ada", "tags": [{}, {}]}', False),
        ('{"name": "Ada", "age": 3}', False),
        ("[]", False),
    ],
)
def test_an_answer_is_held_to_a_schema(text: str, fits: bool) -> None:
    assert drops("format", answer(text), answer_schema=SCHEMA) is not fits


def test_what_does_not_fit_is_told_with_its_place() -> None:
    found = said("format", answer('{"name": 3}'), answer_schema=SCHEMA)
    assert found is not None
    assert found.detail == "name: 3 is not of type 'string'"


def test_the_whole_answer_must_match_a_pattern() -> None:
    assert not drops("format", answer("Answer: 12"), matches=r"Answer: \d+")
    assert drops("format", answer("Answer: 12."), matches=r"Answer: \d+")


def test_patterns_take_no_longer_than_the_answer_is_long() -> None:
    # With Python's own re, each of these would take longer than the universe has.
    assert drops("format", answer("a" * 100_000), matches=r"(a|aa)+b")
    assert drops("format", answer('"' + "a" * 100_000 + '"'), answer_schema={"pattern": "^(a+)+$b"})
    assert drops("format", answer(f"[{'{},' * 200_000}{{}}]"), answer_schema={"uniqueItems": True})


def test_a_schema_that_goes_in_circles_is_held_against_shallow_answers_only() -> None:
    circle: Any = {"type": "array", "items": {"$ref": "#"}}
    assert not drops("format", answer("[[[]]]"), answer_schema=circle)
    found = said("format", answer("[" * 500 + "]" * 500), answer_schema=circle)
    assert found is not None
    assert found.reason == "is nested too deep to be held to the schema"


@pytest.mark.parametrize(
    ("text", "wanted", "there"),
    [
        ("```python\nx\n```", "python", True),
        ("So:\n```Python\nx\n```\nand\n```sql\ny\n```", "sql", True),
        ("```\nx\n```", "any", True),
        ("```js\nx\n```", "python", False),
        ("print(x)", "any", False),
        ("```c\n```python\n```", "python", False),
    ],
)
def test_a_code_fence_of_a_language_can_be_asked_for(text: str, wanted: str, there: bool) -> None:
    assert drops("format", answer(text), code_fence=wanted) is not there


def test_headings_are_counted_outside_code() -> None:
    text = "# One\n\n```\n# a comment\n# another\n```\n\n## Two\n\n#hashtag"
    assert not drops("format", answer(text), max_headings=2)
    assert drops("format", answer(text), max_headings=1)


def test_an_answer_too_long_to_be_held_to_a_form_is_dropped() -> None:
    assert drops("format", answer("1" * 1_000_001), is_json=True)
