"""JSON that a schema accepts, chosen by a digest: what the server fills in where JSON is asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from corpusgen.records import Json

_DEEP: Final = 4
"""Below this many levels only what a schema demands is filled in."""

_DEEPEST: Final = 64
_NOUNS: Final = ("river", "stone", "mill", "bird", "bread", "boy", "rain", "roof", "clay", "bell")
_FORMATS: Final = {
    "date-time": "2026-01-02T03:04:05Z",
    "date": "2026-01-02",
    "time": "03:04:05Z",
    "duration": "P1D",
    "email": "bird@mill.example",
    "hostname": "mill.example",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://mill.example/bird",
    "uuid": "00000000-0000-4000-8000-000000000000",
}


@dataclass(frozen=True, kw_only=True)
class _At:
    """Where in a schema we are."""

    root: Mapping[str, Any]
    draws: bytes
    place: int = 0
    depth: int = 0

    def draw(self, below: int) -> int:
        return self.draws[self.place % len(self.draws)] % below

    def inside(self, place: int) -> _At:
        return replace(self, place=self.place * 5 + place + 1, depth=self.depth + 1)


def example(schema: Json, draws: bytes) -> Json:
    """A value of a schema. Of what schemas can say, ``pattern`` and conditions (``if``, ``not``) are not heeded."""
    root = schema if isinstance(schema, dict) else {}
    return _value(root, _At(root=root, draws=draws))


def _value(schema: Json, at: _At) -> Json:
    if not isinstance(schema, dict) or at.depth > _DEEPEST:
        return None
    if "$ref" in schema:
        found = {**_referred(schema["$ref"], at.root), **_without(schema, "$ref")}
        return _value(found, replace(at, depth=at.depth + 1))
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][at.draw(len(schema["enum"]))]
    for several in ("anyOf", "oneOf"):
        if schema.get(several):
            return _value({**_without(schema, several), **_one_of(schema[several], at)}, at)
    if schema.get("allOf"):
        return _value(_merged(schema, at), at)
    return _OF_TYPE.get(_type(schema), _nothing)(schema, at)


def _without(schema: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in schema.items() if key != name}


def _one_of(options: list[Any], at: _At) -> dict[str, Any]:
    """One of several schemas: deep down the last, where what may be null is null and recursion ends."""
    chosen = options[at.draw(len(options))] if at.depth < _DEEP else options[-1]
    return chosen if isinstance(chosen, dict) else {}


def _merged(schema: Mapping[str, Any], at: _At) -> dict[str, Any]:
    merged = _without(schema, "allOf")
    for part in schema["allOf"]:
        found = {**_referred(part["$ref"], at.root), **_without(part, "$ref")} if "$ref" in part else part
        properties = {**merged.get("properties", {}), **found.get("properties", {})}
        required = [*merged.get("required", []), *found.get("required", [])]
        merged |= {**found, "properties": properties, "required": required} if properties else found
    return merged


def _referred(ref: Json, root: Mapping[str, Any]) -> dict[str, Any]:
    """What ``#/$defs/Name`` stands for; an empty schema where it leads nowhere."""
    found: Any = root
    for step in str(ref).removeprefix("#").split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        found = found.get(name) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}


def _type(schema: Mapping[str, Any]) -> str:
    found = schema.get("type")
    if isinstance(found, list):
        return str(found[0]) if found else "object"
    if found is None:
        return "array" if "items" in schema else "object"
    return str(found)


def _object(schema: Mapping[str, Any], at: _At) -> Json:
    properties = schema.get("properties") or {}
    demanded = schema.get("required") or ()
    names = [name for name in properties if name in demanded or at.depth < _DEEP]
    return {name: _value(properties[name], at.inside(place)) for place, name in enumerate(names)}


def _array(schema: Mapping[str, Any], at: _At) -> Json:
    if "prefixItems" in schema:
        return [_value(item, at.inside(place)) for place, item in enumerate(schema["prefixItems"])]
    least = int(schema.get("minItems", 0 if at.depth >= _DEEP else 1))
    many = min(max(least, 1 + at.draw(3) if at.depth < _DEEP else 0), int(schema.get("maxItems", max(least, 3))))
    found = [_value(schema.get("items", {"type": "string"}), at.inside(place)) for place in range(many)]
    return _distinct(found) if schema.get("uniqueItems") else found


def _distinct(found: list[Json]) -> list[Json]:
    return [value for place, value in enumerate(found) if value not in found[:place]]


def _string(schema: Mapping[str, Any], at: _At) -> Json:
    if schema.get("format") in _FORMATS:
        return _FORMATS[schema["format"]]
    noun = _NOUNS[at.draw(len(_NOUNS))]
    least, most = int(schema.get("minLength", 0)), schema.get("maxLength")
    longer = noun * -(-max(least, 1) // len(noun)) if least > len(noun) else noun
    return longer if most is None else longer[: int(most)]


def _integer(schema: Mapping[str, Any], at: _At) -> Json:
    low, high = _bounds(schema, 1)
    step = int(schema.get("multipleOf", 1)) or 1
    least = math.ceil(low / step)
    return (least + at.draw(max(1, min(100, math.floor(high / step) - least + 1)))) * step


def _number(schema: Mapping[str, Any], at: _At) -> Json:
    low, high = _bounds(schema, 0)
    if schema.get("multipleOf"):
        return math.ceil(low / schema["multipleOf"]) * schema["multipleOf"]
    inside = low + (high - low) * (1 + at.draw(254)) / 256
    return round(inside, 6) if low <= round(inside, 6) <= high else inside


def _bounds(schema: Mapping[str, Any], step: float) -> tuple[float, float]:
    """The least and the greatest number; ``step`` is how far an exclusive bound is from them."""
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is None and "exclusiveMinimum" in schema:
        low = schema["exclusiveMinimum"] + step
    if high is None and "exclusiveMaximum" in schema:
        high = schema["exclusiveMaximum"] - step
    if low is None:
        low = 0 if high is None else min(0, high - 100)
    return low, low + 100 if high is None else high


def _boolean(schema: Mapping[str, Any], at: _At) -> Json:
    return at.draw(2) == 1


def _nothing(schema: Mapping[str, Any], at: _At) -> Json:
    return None


_OF_TYPE: Final[Mapping[str, Callable[[Mapping[str, Any], _At], Json]]] = {
    "object": _object,
    "array": _array,
    "string": _string,
    "integer": _integer,
    "number": _number,
    "boolean": _boolean,
}
