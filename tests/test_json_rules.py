"""Schemas that would take for ever: what they are held against ends all the same, and says what jsonschema says."""

from __future__ import annotations

import resource
import subprocess
import sys
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpusgen import json_rules
from corpusgen.records import canonical_json
from corpusgen.teachers.json_schema import MOST_REFERENCES, UnsoundSchema, check_schema, misfits

EVIL = "^(a|aa|a?)+$"
LONG = "a" * 40 + "!"
OF_DRAFT_7 = "http://json-schema.org/draft-07/schema#"
DOUBLING: dict[str, Any] = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(60)}
NUMBERS = [*range(5000)]
TALL: dict[str, Any] = {}
for _ in range(120):
    TALL = {"items": TALL}

SLOW: dict[str, tuple[Any, Any]] = {
    "pattern": ({"pattern": EVIL}, LONG),
    "a property's pattern": ({"properties": {"x": {"type": "string", "pattern": EVIL}}}, {"x": LONG}),
    "patterns of names": ({"patternProperties": {EVIL: {}}}, {LONG: 1}),
    "patterns and no others": ({"patternProperties": {EVIL: {}}, "additionalProperties": False}, {LONG: 1}),
    "patterns and what is left": ({"patternProperties": {EVIL: {}}, "unevaluatedProperties": False}, {LONG: 1}),
    "names": ({"propertyNames": {"pattern": EVIL}}, {LONG: 1}),
    "an older draft": ({"$schema": OF_DRAFT_7, "pattern": EVIL}, LONG),
    "an older draft inside": ({"items": {"$schema": OF_DRAFT_7, "pattern": EVIL}}, [LONG]),
    "an older draft again": ({"$schema": OF_DRAFT_7, "items": {"$ref": "#"}, "pattern": EVIL}, [LONG]),
    "2019": ({"$schema": "https://json-schema.org/draft/2019-09/schema", "patternProperties": {EVIL: {}},
              "unevaluatedProperties": False}, {LONG: 1}),
    "look-ahead": ({"pattern": f"(?=a){EVIL}"}, LONG),
    "doubling": ({"$ref": "#/$defs/d0", "$defs": {**DOUBLING, "d60": {}}}, 1),
    "a chain": ({"properties": {f"p{n}": {"$ref": f"#/properties/p{n + 1}"} for n in range(8000)}}, {"p0": 1}),
    "equal items": ({"uniqueItems": True}, [{"a": n} for n in range(100_000)]),
    "choices": ({"items": {"enum": [[*NUMBERS, -n] for n in range(1, 15)]}}, [NUMBERS] * 2000),
    "what is left": ({"prefixItems": [True] * 5000, "unevaluatedItems": True}, [1] * 100_000),
    "unknown words": ({"items": {f"x{n}": 1 for n in range(20_000)}}, [1] * 100_000),
    "needed": ({"items": {"required": [str(n) for n in range(20_000)]}}, [{"a": 1}] * 50_000),
    "faults that are not told": ({"anyOf": [{"type": "string"}] * 10_000}, ["x" * 1_000_000]),
}  # fmt: skip
HELD = """
import sys, orjson
from corpusgen.teachers.json_schema import UnsoundSchema, check_schema, misfits
for schema, value in orjson.loads(sys.stdin.buffer.read()):
    misfits(schema, value)
    try:
        check_schema(schema)
    except UnsoundSchema:
        pass
print("done")
"""


def _for_some_seconds() -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (60, 60))


def test_nothing_that_is_held_against_a_schema_takes_for_ever() -> None:
    # A boundary, not a measure: without one any of these takes minutes, and most take for ever.
    told = subprocess.run(
        [sys.executable, "-c", HELD],
        input=orjson.dumps([*SLOW.values()]),
        capture_output=True,
        preexec_fn=_for_some_seconds,
        check=False,
    )
    assert (told.returncode, told.stdout) == (0, b"done\n"), told.stderr.decode()[-2000:]


@pytest.mark.parametrize("name", ["pattern", "a property's pattern", "an older draft inside", "names"])
def test_a_pattern_that_is_hard_is_matched_all_the_same(name: str) -> None:
    schema, value = SLOW[name]
    assert misfits(schema, value) != []
    assert misfits(schema, orjson.loads(orjson.dumps(value).replace(b"!", b""))) == []


@pytest.mark.parametrize("name", ["doubling", "unknown words", "faults that are not told"])
def test_what_would_take_too_long_is_said_to(name: str) -> None:
    (told,) = misfits(*SLOW[name])
    assert "takes more steps than" in told


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        ({"pattern": "(?=a)b"}, ("pattern",)),
        ({"properties": {"pattern": {"pattern": r"(a)\1"}}}, ("properties", "pattern", "pattern")),
        ({"properties": {"default": {"pattern": "(?<!a)b"}}}, ("properties", "default", "pattern")),
        ({"patternProperties": {"a++": True}}, ("patternProperties", "a++")),
        ({"allOf": [{"pattern": "(?:a{1000}){1000}"}]}, ("allOf", 0, "pattern")),
    ],
)
def test_a_pattern_that_re2_does_not_take_is_refused_at_its_place(schema: Any, place: tuple[Any, ...]) -> None:
    with pytest.raises(UnsoundSchema, match="RE2") as caught:
        check_schema(schema)
    assert caught.value.place == place


def test_a_pattern_of_an_archive_that_re2_does_not_take_is_not_tried() -> None:
    assert misfits({"pattern": "(?=a)b", "maxLength": 3}, "xyz") == []
    assert misfits({"pattern": "(?=a)b", "maxLength": 3}, "wxyz") != []
    assert misfits({"patternProperties": {"(?=a)b": False}, "additionalProperties": False}, {"x": 1}) == []


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        (TALL, "nested deeper"),
        ({"description": "x" * json_rules.MOST_BYTES}, "at most 524,288"),
        ({"items": [{"$ref": "#/$defs/x"}] * 3000, "$defs": {"x": {}}, "$schema": OF_DRAFT_7, "title": "x"}, "more"),
        ({"$ref": "#/$defs/d0", "$defs": {**DOUBLING, "d60": {}}}, "takes more steps than"),
    ],
)
def test_a_schema_that_is_too_large_is_refused(schema: Any, said: str) -> None:
    assert MOST_REFERENCES < 3000
    with pytest.raises(UnsoundSchema, match=said):
        check_schema(schema)


def test_a_word_among_values_is_no_pattern() -> None:
    check_schema({"default": {"pattern": "(?=a)"}, "enum": [{"pattern": "(?=a)"}], "properties": {"pattern": {}}})


def test_code_points_may_be_written_as_in_javascript() -> None:
    assert misfits({"pattern": r"^[\u00e0-\u00ff]\\u$"}, r"é\u") == []
    assert misfits({"pattern": r"^[\u00e0-\u00ff]$"}, "e") != []


# --- the same as jsonschema's own ------------------------------------------------------------------------------------

NAMES = st.sampled_from(["a", "b", "ab", "x1"])
PATTERNS = st.sampled_from(["^a", "b$", "[a-z][0-9]", "^(a|b)+$", "x?", "^.{2,3}$"])
VALUES: Any = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from([0.5, 1.0, 2.0]) | NAMES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)
LEAVES: dict[str, Any] = {
    "type": st.sampled_from(["string", "integer", "array", "object", "number", "null"]),
    "pattern": PATTERNS,
    "enum": st.lists(VALUES, min_size=1, max_size=3),
    "const": VALUES,
    "uniqueItems": st.booleans(),
    "required": st.lists(NAMES, max_size=2, unique=True),
    "minimum": st.integers(-1, 1),
    "maxItems": st.integers(0, 2),
}


def _of(inner: Any) -> Any:
    by_name = st.dictionaries(NAMES, inner, max_size=3)
    several = st.lists(inner, min_size=1, max_size=2)
    nested = {
        "properties": by_name, "patternProperties": st.dictionaries(PATTERNS, inner, max_size=2),
        "additionalProperties": inner, "unevaluatedProperties": inner, "unevaluatedItems": inner, "items": inner,
        "prefixItems": several, "allOf": several, "anyOf": several, "oneOf": several, "not": inner, "if": inner,
        "then": inner, "else": inner, "contains": inner, "dependentSchemas": by_name,
        "$ref": st.sampled_from(["#/$defs/one", "#/$defs/two"]),
    }  # fmt: skip
    return st.booleans() | st.fixed_dictionaries({}, optional=LEAVES | nested)


SCHEMAS: Any = st.recursive(st.fixed_dictionaries({}, optional=LEAVES), _of, max_leaves=8)


@given(schema=SCHEMAS, one=st.fixed_dictionaries({}, optional=LEAVES), value=VALUES)
def test_what_does_not_fit_is_what_jsonschema_itself_says(schema: Any, one: Any, value: Any) -> None:
    from jsonschema.validators import Draft202012Validator

    if isinstance(schema, dict):
        schema = {**schema, "$defs": {"one": one, "two": {"$ref": "#/$defs/one"}}}
        schema = orjson.loads(canonical_json(schema))  # faults come in the order of its words
    usual = [(error.json_path, error.message) for error in Draft202012Validator(schema).iter_errors(value)]
    assert [(error.json_path, error.message) for error in json_rules.faults(schema, value)] == usual
