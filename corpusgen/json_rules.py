"""JSON schemas held against values in bounded time: patterns are RE2's, and the work is counted.

The rules are ``jsonschema``'s, but what it does with ``re``, which may never end, or pair by pair is done here.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any, Final, TypeAlias

import orjson

from corpusgen.records import Json, canonical_json

Place: TypeAlias = tuple[str | int, ...]

MOST_BYTES: Final = 512 * 1024
"""The longest schema, as canonical JSON."""
MOST_LEVELS: Final = 100
MOST_STEPS: Final = 500_000
"""A step is under a microsecond: a look at a keyword, an item of a list in it, some characters held to a pattern."""
MOST_STEPS_OF_CHECK: Final = 1_500_000
"""For whether a schema is one: what drafts say of a schema is long. Enough for some thousands of properties."""
_OF_PART: Final = 8
_OF_REFERENCE: Final = 24
_PATTERN_MEMORY: Final = 2 * 1024 * 1024
_ESCAPE: Final = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|.)", re.DOTALL)
_NAMED: Final = frozenset(("properties", "patternProperties", "$defs", "definitions", "dependentSchemas"))
"""What holds schemas by name, so that a name in it is no keyword."""
_VALUES: Final = frozenset(("const", "enum", "default", "examples"))
_WEIGHED: Final = frozenset(("const", "enum", "dependentRequired", "dependencies", "dependentSchemas"))
"""Keywords that are gone through to their depth."""


class TooMuchWork(ValueError):
    """A schema, or one with this value, that would take longer than anything sensible does."""


class _Work(threading.local):
    left = MOST_STEPS


_work = _Work()


def spend(steps: int) -> None:
    """Count some work. Raises TooMuchWork."""
    _work.left -= steps
    if _work.left < 0:
        raise TooMuchWork("takes more steps than are allowed; make the schema smaller, or refer less to its parts")


def faults(schema: Json, value: Json) -> Iterator[Any]:
    """What does not fit, as jsonschema's errors. Raises TooMuchWork, and whatever a schema ends in that is none."""
    written = canonical_json(schema)
    _work.left = MOST_STEPS
    yield from _validator(written).iter_errors(value)


def faults_of_schema(schema: Json) -> Iterator[Any]:
    """What makes a schema none, by its own draft's rules."""
    kind = type(_validator(canonical_json(schema)))
    _work.left = MOST_STEPS_OF_CHECK
    yield from kind(kind.META_SCHEMA, registry=_nothing()).iter_errors(schema)


def pattern_faults(schema: Json) -> Iterator[tuple[Place, str]]:
    """Every pattern that RE2 cannot take, with its place and what RE2 says."""
    _work.left = MOST_STEPS
    for place, pattern in _patterns(schema, (), named=False):
        if found := fault_of_pattern(pattern):
            yield place, found
        spend(programme_size(pattern) >> 2)


def _patterns(part: Json, place: Place, *, named: bool) -> Iterator[tuple[Place, str]]:
    if isinstance(part, list):
        for at, inner in enumerate(part):
            yield from _patterns(inner, (*place, at), named=False)
    elif isinstance(part, dict):
        for name, inner in part.items():
            if named or name not in _VALUES:
                yield from _patterns(inner, (*place, name), named=not named and name in _NAMED)
        yield from () if named else _own_patterns(part, place)


def _own_patterns(part: dict[str, Json], place: Place) -> Iterator[tuple[Place, str]]:
    if isinstance(part.get("pattern"), str):
        yield (*place, "pattern"), part["pattern"]
    if isinstance(of_names := part.get("patternProperties"), dict):
        yield from (((*place, "patternProperties", pattern), pattern) for pattern in of_names)


def depth_of(value: Json) -> int:
    """How many levels of lists and objects there are; counted no further than is allowed."""
    level, depth = [value], 0
    while level and depth <= MOST_LEVELS:
        level = [inner for outer in level for inner in _inside(outer)]
        depth += 1
    return depth


def _inside(value: Json) -> list[Json]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


# --- patterns --------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> Any:
    """The pattern as RE2 has it, or the words in which RE2 refuses it."""
    import re2

    options = re2.Options()
    options.log_errors = False
    options.max_mem = _PATTERN_MEMORY
    try:
        return re2.compile(_ESCAPE.sub(_code_point, pattern), options=options)
    except re2.error as error:
        text = error.args[0]
        return text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)
    except UnicodeEncodeError:
        return "it holds half of a character"


def _code_point(escape: re.Match[str]) -> str:
    return escape[0] if escape[1] is None else rf"\x{{{escape[1]}}}"


def fault_of_pattern(pattern: str) -> str | None:
    """Why RE2 cannot take a pattern, or None."""
    found = _compiled(pattern)
    if not isinstance(found, str):
        return None
    return f"is no regular expression of RE2, which has neither back-references nor look-around: {found}"


def programme_size(pattern: str) -> int:
    """How much work a character is, at worst."""
    found = _compiled(pattern)
    return 40_000 if isinstance(found, str) else int(found.programsize) + int(found.reverseprogramsize)


def matches(pattern: str, text: str) -> bool | None:
    """Whether a pattern is found in a text; None where RE2 cannot take it."""
    found, size = _compiled(pattern), programme_size(pattern)
    spend((size >> 4) + (len(text) * size >> 8))
    if isinstance(found, str):
        return None
    return found.search(text.encode("utf-8", "replace").decode()) is not None


# --- rules -----------------------------------------------------------------------------------------------------------

_Rule: TypeAlias = Callable[[Any, Any, Any, Any], Iterable[Any] | None]


def _error(message: str) -> Any:
    from jsonschema.exceptions import ValidationError

    return ValidationError(message)


def _pattern(validator: Any, pattern: str, instance: Json, _: Json) -> Iterator[Any]:
    if validator.is_type(instance, "string") and matches(pattern, instance) is False:
        yield _error(f"{instance!r} does not match {pattern!r}")


def _pattern_properties(validator: Any, patterns: dict[str, Json], instance: Json, _: Json) -> Iterator[Any]:
    if not validator.is_type(instance, "object"):
        return
    for pattern, inner in patterns.items():
        for name, value in instance.items():
            if matches(pattern, name):
                yield from validator.descend(value, inner, path=name, schema_path=pattern)


def _unique(validator: Any, wanted: bool, instance: Json, _: Json) -> Iterator[Any]:
    # jsonschema compares every pair, where items cannot be sorted.
    if wanted and validator.is_type(instance, "array"):
        spend(len(orjson.dumps(instance)) >> 4)
        if len({canonical_json(_number(item)) for item in instance}) < len(instance):
            yield _error(f"{instance!r} has non-unique elements")


def _number(value: Json) -> Json:
    """Numbers that are equal are written alike."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, list):
        return [_number(item) for item in value]
    return {name: _number(item) for name, item in value.items()} if isinstance(value, dict) else value


def _additional(usual: _Rule) -> _Rule:
    def rule(validator: Any, allowed: Json, instance: Json, schema: dict[str, Json]) -> Iterator[Any]:
        patterns = schema.get("patternProperties")
        if not patterns:
            yield from usual(validator, allowed, instance, schema) or ()
        elif validator.is_type(instance, "object"):
            yield from _others(validator, allowed, instance, schema, patterns)

    return rule


def _others(validator: Any, allowed: Json, instance: Json, schema: Json, patterns: dict[str, Json]) -> Iterator[Any]:
    named = schema.get("properties", {})
    # A pattern that cannot be tried may be of any name.
    others = [name for name in instance if name not in named and all(matches(one, name) is False for one in patterns)]
    if validator.is_type(allowed, "object"):
        for name in others:
            yield from validator.descend(instance[name], allowed, path=name)
    elif not allowed and others:
        verb = "does" if len(others) == 1 else "do"
        names, wanted = (", ".join(map(repr, sorted(these))) for these in (others, patterns))
        yield _error(f"{names} {verb} not match any of the regexes: {wanted}")


def _unevaluated_items(validator: Any, wanted: Json, instance: Json, schema: Json) -> Iterator[Any]:
    if validator.is_type(instance, "array"):
        seen = _seen(validator, instance, schema, _items_seen)
        left = [item for at, item in enumerate(instance) if at not in seen]
        if wanted is not True and any(not _fits(validator, item, wanted) for item in left):
            yield _error(f"Unevaluated items are not allowed ({_listed(left)} unexpected)")


def _unevaluated_properties(validator: Any, wanted: Json, instance: Json, schema: Json) -> Iterator[Any]:
    if validator.is_type(instance, "object"):
        seen = _seen(validator, instance, schema, _names_seen)
        # As often as there are faults in it, as jsonschema tells it.
        others = [name for name in instance if name not in seen]
        left = [name for name in others for _ in validator.descend(instance[name], wanted)]
        if left and wanted is False:
            yield _error(f"Unevaluated properties are not allowed ({_listed(sorted(left))} unexpected)")
        elif left:
            told = f"({_listed(left)} unevaluated and invalid)"
            yield _error(f"Unevaluated properties are not valid under the given schema {told}")


def _listed(values: list[Json]) -> str:
    return f"{', '.join(map(repr, values))} {'was' if len(values) == 1 else 'were'}"


def _fits(validator: Any, value: Json, schema: Json) -> bool:
    return next(iter(validator.descend(value, schema)), None) is None


def _seen(validator: Any, instance: Any, schema: Json, own: Callable[[Any, Any, Any], set[Any]]) -> set[Any]:
    """Which items or properties some part of a schema has spoken of."""
    spend(_OF_PART + (len(instance) >> 2))
    if not isinstance(schema, dict):
        return set()
    found = own(validator, instance, schema)
    for inner, evolved in _spoken(validator, instance, schema):
        found |= _seen(evolved, instance, inner, own)
    return found


def _spoken(validator: Any, instance: Json, schema: dict[str, Json]) -> Iterator[tuple[Json, Any]]:
    """The parts of a schema that apply to the same value, each with the validator that knows its references."""
    for name in ("$ref", "$dynamicRef", "$recursiveRef"):
        if isinstance(reference := schema.get(name), str):
            resolved = validator._resolver.lookup(reference)
            yield resolved.contents, validator.evolve(schema=resolved.contents, _resolver=resolved.resolver)
    parts = [inner for name in ("allOf", "oneOf", "anyOf") for inner in schema.get(name, [])]
    yield from ((inner, validator) for inner in parts if _fits(validator, instance, inner))
    if isinstance(instance, dict):
        told = schema.get("dependentSchemas", {})
        yield from ((inner, validator) for name, inner in told.items() if name in instance)
    if "if" in schema:
        fits = _fits(validator, instance, schema["if"])
        yield from ((schema["if"], validator) for _ in range(fits))
        yield from ((schema[name], validator) for name in ("then" if fits else "else",) if name in schema)


def _items_seen(validator: Any, instance: list[Json], schema: dict[str, Json]) -> set[int]:
    items = schema.get("items")
    if "items" in schema and (not isinstance(items, list) or "additionalItems" in schema):
        return set(range(len(instance)))
    found = set(range(len(items if isinstance(items, list) else schema.get("prefixItems", ()))))
    for name in ("contains", "unevaluatedItems"):
        if name in schema:
            found |= {at for at, item in enumerate(instance) if _fits(validator, item, schema[name])}
    return found


def _names_seen(validator: Any, instance: dict[str, Json], schema: dict[str, Json]) -> set[str]:
    found = {name for name in schema.get("properties", ()) if name in instance}
    for keyword in ("additionalProperties", "unevaluatedProperties"):
        if keyword in schema:
            found |= {name for name, value in instance.items() if _fits(validator, value, schema[keyword])}
    for pattern in schema.get("patternProperties", ()):
        found |= {name for name in instance if matches(pattern, name) is not False}
    return found


def _counted(name: str, rule: _Rule) -> _Rule:
    def counted(validator: Any, wanted: Any, instance: Any, schema: Any) -> Iterator[Any]:
        spend(_cost(name, wanted, instance))
        for error in rule(validator, wanted, instance, schema) or ():
            spend(len(error.message) >> 6)  # jsonschema writes the whole value into it
            yield error

    return counted


def _cost(name: str, wanted: Any, instance: Any) -> int:
    if name in _WEIGHED:
        return 1 + (len(orjson.dumps(wanted)) >> 4)
    if isinstance(wanted, str):
        return _OF_REFERENCE + len(wanted) if name.endswith("ef") else 1
    of_schema = len(wanted) if isinstance(wanted, list | dict) else 0
    return 1 + of_schema + (len(instance) >> 2 if isinstance(instance, list | dict) else 0)


@lru_cache(maxsize=8)
def _kind(usual: Any) -> Any:
    """A draft's rules, in bounded time."""
    from jsonschema.validators import extend

    rules: dict[str, _Rule] = dict(usual.VALIDATORS)
    rules |= {"pattern": _pattern, "patternProperties": _pattern_properties, "uniqueItems": _unique}
    rules["additionalProperties"] = _additional(rules["additionalProperties"])
    if "unevaluatedItems" in rules:
        rules |= {"unevaluatedItems": _unevaluated_items, "unevaluatedProperties": _unevaluated_properties}
    kind = extend(usual, {name: _counted(name, rule) for name, rule in rules.items()})
    # jsonschema's own goes back to its own rules at every ``$schema`` inside a schema.
    kind.evolve = _evolved
    return kind


def _evolved(self: Any, **changes: Any) -> Any:
    schema = changes.get("schema", self.schema)
    spend(_OF_PART + (len(schema) if isinstance(schema, dict) else 0))
    resolver = changes.get("_resolver", self._resolver)
    return type(self)(schema=schema, registry=self._registry, _resolver=resolver)


def _nothing() -> Any:
    # With a registry of our own that holds nothing, a reference elsewhere fails; without one it would be fetched.
    from referencing import Registry

    return Registry()


@lru_cache(maxsize=32)
def _validator(written: bytes) -> Any:
    # Loaded when a schema is first asked for: a run without one does without.
    from jsonschema.validators import Draft202012Validator, validator_for

    if len(written) > MOST_BYTES:
        raise TooMuchWork(f"has {len(written):,} bytes, at most {MOST_BYTES:,} are held against anything")
    schema = orjson.loads(written)
    if depth_of(schema) > MOST_LEVELS:
        raise TooMuchWork(f"is nested deeper than {MOST_LEVELS} levels")
    if not isinstance(schema, dict | bool):
        schema = True
    return _kind(validator_for(schema, default=Draft202012Validator))(schema, registry=_nothing())
