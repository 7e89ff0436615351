"""The tables of filters in ``docs/curation.md``, as ``python -m corpusgen.curation.filter_table`` prints them."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

import orjson
from pydantic.fields import FieldInfo

from corpusgen.curation import filters
from corpusgen.curation.judging import Settings, TextSettings
from corpusgen.records import Json

BEGIN: Final = "<!-- printed by python -m corpusgen.curation.filter_table -->"
END: Final = "<!-- end of what is printed -->"
_NEEDS: Final = {"text": "a text", "record": "an answer", "group": "all answers to an item"}
_KINDS: Final = {bool: "true, false", int: "whole number", float: "number", str: "text", dict: "fields"}
_SIGNS: Final = {"ge": "≥ {}", "gt": "> {}", "le": "≤ {}", "lt": "< {}"}


def table() -> str:
    """Every filter with its settings, in Markdown."""
    return "\n".join([*_filters(), "", *_settings()])


def _filters() -> Iterator[str]:
    yield "| filter | finds | looks at | example |"
    yield "|---|---|---|---|"
    for name in filters.names():
        module = filters.module_of(name)
        example = f"`{name}: {_yaml(module.EXAMPLE)}`"
        yield f"| `{name}` | {module.SUMMARY} | {_NEEDS[filters.needs_of(module)]} | {example} |"


def _settings() -> Iterator[str]:
    yield "| setting | values | default | meaning |"
    yield "|---|---|---|---|"
    yield _row("every filter: `action`", Settings.model_fields["action"])
    yield _row("those that look at a text: `sides`", TextSettings.model_fields["sides"])
    for name in filters.names():
        for field, info in filters.module_of(name).Settings.model_fields.items():
            if field not in TextSettings.model_fields:
                yield _row(f"`{name}.{field}`", info)


def _row(name: str, info: FieldInfo) -> str:
    return f"| {name} | {_values(info.annotation, info.metadata)} | {_default(info)} | {info.description} |"


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    return "—" if info.default is None else f"`{_yaml(_plain(info.default))}`"


def _values(annotation: Any, metadata: list[Any]) -> str:
    bounds = [bound for one in metadata for bound in _bounds(one)]
    if get_origin(annotation) is Annotated:
        inner, *more = get_args(annotation)
        return _values(inner, [*more, *metadata])
    if get_origin(annotation) in (Union, types.UnionType):
        return _values(next(part for part in get_args(annotation) if part is not type(None)), metadata)
    return ", ".join([_kind(annotation), *bounds])


def _kind(annotation: Any) -> str:
    arguments = get_args(annotation)
    if get_origin(annotation) is Literal:
        return ", ".join(f"`{one}`" for one in arguments)
    if get_origin(annotation) is tuple:
        return f"list of {_values(arguments[0], [])}"
    return _KINDS[get_origin(annotation) or annotation]


def _bounds(constraint: Any) -> Iterator[str]:
    """The range in what pydantic keeps of a field."""
    for one in getattr(constraint, "metadata", [constraint]):
        for name, sign in _SIGNS.items():
            if (bound := getattr(one, name, None)) is not None:
                yield sign.format(f"{bound:,}" if isinstance(bound, int) else f"{bound:g}")


def _plain(value: Any) -> Json:
    return list(value) if isinstance(value, tuple) else value


def _yaml(value: Json) -> str:
    """Flow style, as a spec would have it in one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {_yaml(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_yaml, value)) + "]"
    return value if isinstance(value, str) else orjson.dumps(value).decode()


if __name__ == "__main__":
    sys.stdout.write(f"{BEGIN}\n{table()}\n{END}\n")
