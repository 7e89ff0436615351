from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpusgen.teachers.json_schema import MOST_TOLD, UnsoundSchema, check_schema, misfits

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "pattern": "^[A-Z]"},
        "age": {"type": "integer", "minimum": 0, "exclusiveMaximum": 200},
        "kind": {"enum": ["a", "b"]},
        "tags": {"type": "array", "items": {"$ref": "#/$defs/tag"}, "maxItems": 2},
        "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
    },
    "required": ["name"],
    "additionalProperties": False,
    "$defs": {"tag": {"type": "string", "maxLength": 3}},
}


@pytest.mark.parametrize(
    "value",
    [
        {"name": "Ann"},
        {"name": "Ann", "age": 0, "kind": "a", "tags": ["x", "yy"], "note": None},
        {"name": "Ann", "age": 3.0},
    ],
)
def test_what_fits_fits(value: Any) -> None:
    assert misfits(PERSON, value) == []


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ([], "the value: [] is not of type 'object'"),
        ({}, "the value: 'name' is a required property"),
        ({"name": "ann"}, "name: 'ann' does not match"),
        ({"name": "A", "age": True}, "age: True is not of type 'integer'"),
        ({"name": "A", "age": 200}, "age: 200 is greater than or equal to"),
        ({"name": "A", "kind": "c"}, "kind: 'c' is not one of"),
        ({"name": "A", "tags": ["long"]}, "tags[0]: 'long' is too long"),
        ({"name": "A", "note": 7}, "note: 7 is not valid under any"),
        ({"name": "A", "extra": 1}, "the value: Additional properties are not allowed"),
    ],
)
def test_what_does_not_fit_is_named_with_its_place(value: Any, place: str) -> None:
    assert any(one.startswith(place) for one in misfits(PERSON, value))


def test_a_large_value_that_does_not_fit_is_told_in_a_few_words() -> None:
    told = misfits({"items": {"type": "integer"}}, ["x" * 100_000] * 50)
    assert len(told) == MOST_TOLD
    assert all(len(one) < 300 for one in told)


@pytest.mark.parametrize(
    "schema",
    [True, {}, PERSON, {"items": {"$ref": "#"}}, {"$id": "https://a.b/c", "$ref": "#/$defs/x", "$defs": {"x": {}}}],
)
def test_a_sound_schema_passes(schema: Any) -> None:
    check_schema(schema)


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        (7, ()),
        (None, ()),
        ({"type": "colour"}, ("type",)),
        ({"properties": {"a": {"type": "strin"}}}, ("properties", "a", "type")),
        ({"pattern": "("}, ("pattern",)),
        ({"items": {"$ref": "#/nowhere"}}, ("items", "$ref")),
        ({"$ref": "file:///etc/passwd"}, ("$ref",)),
        ({"$ref": "https://example.com/schema.json"}, ("$ref",)),
        ({"$ref": "#"}, ()),
    ],
)
def test_what_is_no_schema_is_refused_at_its_place(schema: Any, place: tuple[Any, ...]) -> None:
    with pytest.raises(UnsoundSchema) as caught:
        check_schema(schema)
    assert caught.value.place == place


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)
WORDS = st.sampled_from(["type", "properties", "items", "$ref", "anyOf", "enum", "pattern", "required", "minimum"])


@given(schema=st.dictionaries(WORDS, JSON, max_size=3), value=JSON)
def test_no_schema_of_an_archive_breaks_the_reading(schema: Any, value: Any) -> None:
    assert isinstance(misfits(schema, value), list)
