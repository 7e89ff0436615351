"""Whether a schema is one, and whether a value fits it; the rules themselves are ``jsonschema``'s.

A schema may refer to its own parts only: nothing is fetched. ``format`` is a note to the reader and not checked.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any, Final

import orjson

from corpusgen.records import Json, canonical_json

MOST_TOLD: Final = 5
"""Misfits that are told; a value that fits nowhere has one for every part."""
_LONGEST: Final = 200
_PROBES: Final[tuple[Json, ...]] = (None, True, 0, "", [], {}, [{}], {"": {}})
"""Values of every kind, which a schema that goes in circles cannot be held against."""


class UnsoundSchema(ValueError):
    """A schema that nothing can be held against; ``place`` leads to its faulty part."""

    def __init__(self, message: str, place: tuple[str | int, ...] = ()) -> None:
        super().__init__(message)
        self.place = place


def misfits(schema: Json, value: Json) -> list[str]:
    """What does not fit, each with its place, at most five; nothing when all of it does."""
    try:
        return _told(_validator(canonical_json(schema)).iter_errors(value))
    except _faults() as error:
        return [f"the schema cannot be used: {_short(str(error))}"]


def check_schema(schema: Json) -> None:
    """Raise UnsoundSchema, with the place, for what is no JSON schema or refers to what it does not hold."""
    from jsonschema.exceptions import SchemaError

    try:
        _validator(canonical_json(schema)).check_schema(schema)
    except SchemaError as error:
        raise UnsoundSchema(_short(error.message), tuple(error.absolute_path)) from error
    except (TypeError, ValueError) as error:
        raise UnsoundSchema(_short(str(error))) from error
    for place, name in _references(schema, ()):
        _check_reference(schema, place, name)
    _check_circles(schema)


def _check_reference(schema: Json, place: tuple[str | int, ...], name: str) -> None:
    try:
        _resolver(schema).lookup(name)
    except _faults() as error:
        message = f"{name!r} is not in this schema; only its own parts can be referred to"
        raise UnsoundSchema(message, place) from error


def _resolver(schema: Json) -> Any:
    from referencing import Registry, Resource
    from referencing.jsonschema import DRAFT202012

    whole = Resource.from_contents(schema, default_specification=DRAFT202012)
    name = whole.id() or ""
    return Registry().with_resource(name, whole).resolver(name)


def _check_circles(schema: Json) -> None:
    validator = _validator(canonical_json(schema))
    try:
        for probe in _PROBES:
            list(validator.iter_errors(probe))
    except _faults() as error:
        raise UnsoundSchema(f"cannot be used: {_short(str(error))}") from error


def _references(part: Json, place: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Every reference in a schema with its place."""
    if isinstance(part, dict):
        for name, value in part.items():
            if name in ("$ref", "$dynamicRef") and isinstance(value, str):
                yield (*place, name), value
            yield from _references(value, (*place, name))
    elif isinstance(part, list):
        for at, value in enumerate(part):
            yield from _references(value, (*place, at))


@lru_cache(maxsize=32)
def _validator(written: bytes) -> Any:
    # Loaded when a schema is first asked for: a run without one does without.
    from jsonschema.validators import Draft202012Validator, validator_for
    from referencing import Registry

    schema = orjson.loads(written)
    if not isinstance(schema, dict | bool):
        schema = True
    # With a registry of our own that holds nothing, a reference elsewhere fails; without one it would be fetched.
    return validator_for(schema, default=Draft202012Validator)(schema, registry=Registry())


def _faults() -> tuple[type[Exception], ...]:
    """What a schema that is none may end in."""
    from jsonschema.exceptions import UnknownType
    from referencing.exceptions import Unresolvable

    return UnknownType, Unresolvable, re.error, RecursionError, TypeError, AttributeError, ValueError


def _told(errors: Iterable[Any]) -> list[str]:
    found: list[str] = []
    for error in errors:
        place = error.json_path.removeprefix("$").removeprefix(".")
        found.append(f"{place or 'the value'}: {_short(error.message)}")
        if len(found) == MOST_TOLD:
            break
    return found


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST // 2]} … {line[-_LONGEST // 2 :]}"
