"""Whether a schema is one, and whether a value fits it; the rules themselves are ``jsonschema``'s.

A schema may refer to its own parts only: nothing is fetched. ``format`` is a note to the reader and not checked.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any, Final

import orjson

from corpusgen.json_rules import faults, faults_of_schema, pattern_faults
from corpusgen.records import Json, canonical_json

MOST_TOLD: Final = 5
"""Misfits that are told; a value that fits nowhere has one for every part."""
MOST_REFERENCES: Final = 2000
_LONGEST: Final = 200
_PROBES: Final[tuple[Json, ...]] = (None, True, 0, "", [], {}, [{}], {"": {}})
"""Values of every kind, which a schema that goes in circles cannot be held against."""


class UnsoundSchema(ValueError):
    """A schema that nothing can be held against; ``place`` leads to its faulty part."""

    def __init__(self, message: str, place: tuple[str | int, ...] = ()) -> None:
        super().__init__(message)
        self.place = place


def misfits(schema: Json, value: Json) -> list[str]:
    """What does not fit, each with its place, at most five; nothing when all of it does.

    A pattern that RE2 cannot take, which a schema from an archive may hold, is not tried.
    """
    try:
        return _told(faults(schema, value))
    except _faults() as error:
        return [f"the schema cannot be used: {_short(str(error))}"]


def check_schema(schema: Json) -> None:
    """Raise UnsoundSchema, with the place, for what is no JSON schema, takes too long or refers to what is not in it.

    Patterns are those of RE2, which are matched in the time it takes to read a text; others are refused.
    """
    try:
        error = next(faults_of_schema(schema), None)
        found = None if error is not None else next(pattern_faults(schema), None)
    except _faults() as fault:
        raise UnsoundSchema(_short(str(fault))) from fault
    if error is not None:
        raise UnsoundSchema(_short(error.message), tuple(error.absolute_path))
    if found is not None:
        raise UnsoundSchema(_short(found[1]), found[0])
    _check_references(schema)
    _check_circles(schema)


def fault_of_schema(schema: Json) -> UnsoundSchema | None:
    """What ``check_schema`` says, remembered: a client sends the same schema with every call."""
    try:
        return _fault_of_written(canonical_json(schema))
    except _faults() as error:
        return UnsoundSchema(_short(str(error)))


@lru_cache(maxsize=128)
def _fault_of_written(written: bytes) -> UnsoundSchema | None:
    try:
        check_schema(orjson.loads(written))
    except UnsoundSchema as error:
        return UnsoundSchema(str(error), error.place)  # without its traceback, which holds much
    return None


def _check_references(schema: Json) -> None:
    resolver = _resolver(schema)
    for at, (place, name) in enumerate(_references(schema, ())):
        if at == MOST_REFERENCES:
            raise UnsoundSchema(f"refers to parts more than {MOST_REFERENCES:,} times", place)
        _check_reference(resolver, place, name)


def _check_reference(resolver: Any, place: tuple[str | int, ...], name: str) -> None:
    try:
        resolver.lookup(name)
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
    try:
        for probe in _PROBES:
            list(faults(schema, probe))
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
