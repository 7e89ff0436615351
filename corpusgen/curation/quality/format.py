"""Answers that are not in the form that was asked for: JSON, a schema, a pattern, a code fence, few headings."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Annotated, Any, Final

import orjson
from pydantic import AfterValidator, Field, model_validator

from corpusgen.curation import judging
from corpusgen.curation.finding import Finding
from corpusgen.curation.judging import MOST_CHARACTERS, fails, shown
from corpusgen.fields import Misplaced
from corpusgen.json_rules import TooMuchWork, faults, faults_of_schema
from corpusgen.records import Json, Record

SUMMARY: Final = "not JSON, not to a schema or pattern, no code fence, too many headings"
EXAMPLE: Final[dict[str, Json]] = {"is_json": True, "max_headings": 3}
_WHOLE_FENCE: Final = re.compile(r"\s*```[ \t]*[\w+#.-]*[ \t]*\n(.*?)\n?```\s*", re.DOTALL)
_FENCES: Final = re.compile(r"^[ \t]{0,3}```[ \t]*([\w+#.-]*)[^\n]*$", re.MULTILINE)
_HEADING: Final = re.compile(r"^[ \t]{0,3}#{1,6}[ \t]+\S", re.MULTILINE)
_PROBES: Final[tuple[Json, ...]] = (None, True, 0, "", [], {}, [{}], {"": {}})
"""Values of every kind, which a schema that goes in circles cannot be held against."""
_NESTING: Final = 100
"""Levels of JSON beyond which nothing is held to a schema; jsonschema goes down by recursion."""


def _sound_pattern(pattern: str) -> str:
    if fault := _fault_of_pattern(pattern):
        raise ValueError(fault)
    return pattern


def _sound_schema(schema: dict[str, Any]) -> dict[str, Any]:
    if fault := _fault_of_schema(schema):
        raise ValueError(fault)
    return schema


class Settings(judging.Settings):
    """At least one form. An answer that is one code fence as a whole counts as what is inside."""

    is_json: bool = Field(False, description="The answer must be JSON")
    answer_schema: Annotated[dict[str, Any], AfterValidator(_sound_schema)] | None = Field(
        None, description="JSON schema that the answer must fit; it may refer to its own parts only"
    )
    matches: Annotated[str, Field(max_length=10_000), AfterValidator(_sound_pattern)] | None = Field(
        None, description="Regular expression, as RE2 has them, that the whole answer must match"
    )
    code_fence: Annotated[str, Field(pattern=r"^[\w+#.-]+$", max_length=40)] | None = Field(
        None, description="Language of which there must be a code fence; any: of whichever"
    )
    max_headings: Annotated[int, Field(ge=0, le=10_000)] | None = Field(
        None, description="Most Markdown headings, those inside code not counted"
    )

    @model_validator(mode="after")
    def _formed(self) -> Settings:
        forms = (self.answer_schema, self.matches, self.code_fence, self.max_headings)
        if not self.is_json and all(form is None for form in forms):
            raise Misplaced(((), "needs a form, such as is_json: true or code_fence: python"))
        return self


def check(record: Record, settings: Settings) -> Finding | None:
    """Whether the answer is in the form that was asked for."""
    text = record.response
    if len(text) > MOST_CHARACTERS:
        return fails("format", "too long to be held to a form", detail=f"{len(text):,} characters")
    reason, detail = next(filter(None, (look(text, settings) for look in _LOOKS)), (None, None))
    return None if reason is None else fails("format", reason, detail=detail)


_Fault = tuple[str, str | None] | None


def _json(text: str, settings: Settings) -> _Fault:
    if not settings.is_json and settings.answer_schema is None:
        return None
    fenced = _WHOLE_FENCE.fullmatch(text)
    try:
        value = orjson.loads(fenced[1] if fenced else text)
    except orjson.JSONDecodeError as error:
        return "is not JSON", shown(str(error))
    return None if settings.answer_schema is None else _schema(settings.answer_schema, value)


def _schema(schema: Json, value: Json) -> _Fault:
    if _is_deep(value):
        return "is nested too deep to be held to the schema", None
    try:
        error = next(faults(schema, value), None)
    except TooMuchWork:
        return "takes too long to be held to the schema", None
    if error is None:
        return None
    place = error.json_path.removeprefix("$").removeprefix(".")
    return "does not fit the schema", shown(f"{place or 'the value'}: {error.message}", 200)


def _pattern(text: str, settings: Settings) -> _Fault:
    if settings.matches is None:
        return None
    return None if _compiled(settings.matches).fullmatch(_whole(text)) else ("does not match the pattern", shown(text))


def _fence(text: str, settings: Settings) -> _Fault:
    wanted = settings.code_fence
    if wanted is None:
        return None
    # Every second fence closes one.
    languages = [found.casefold() for found in _FENCES.findall(text)[::2]]
    if wanted == "any" and languages:
        return None
    if wanted.casefold() in languages:
        return None
    return "has no code fence of the language", f"{wanted} wanted, found {', '.join(languages)[:80] or 'none'}"


def _headings(text: str, settings: Settings) -> _Fault:
    if settings.max_headings is None:
        return None
    found = len(_HEADING.findall(judging.without_code(text)))
    return (
        ("has too many headings", f"{found}, at most {settings.max_headings}")
        if found > settings.max_headings
        else None
    )


_LOOKS: Final[tuple[Callable[[str, Settings], _Fault], ...]] = (_json, _pattern, _fence, _headings)


def _whole(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


@lru_cache(maxsize=64)
def _compiled(pattern: str) -> Any:
    import re2

    options = re2.Options()
    options.log_errors = False
    return re2.compile(pattern, options=options)


def _fault_of_pattern(pattern: str) -> str | None:
    import re2

    try:
        _compiled(pattern)
    except re2.error as error:
        text = error.args[0]
        told = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
        return f"is no regular expression of RE2, which has neither back-references nor look-around: {told}"
    return None


def _fault_of_schema(schema: Json) -> str | None:
    from jsonschema.exceptions import UnknownType
    from referencing.exceptions import Unresolvable

    for pattern in _patterns(schema):
        if pattern is None:
            return "patternProperties takes its time with patterns; write properties, or propertyNames with a pattern"
        if fault := _fault_of_pattern(pattern):
            return f"{pattern!r} {fault}"
    try:
        if error := next(faults_of_schema(schema), None):
            place = ".".join(map(str, error.absolute_path))
            return f"is no JSON schema{f', at {place}' if place else ''}: {shown(error.message, 200)}"
        for probe in _PROBES:
            list(faults(schema, probe))
    except (Unresolvable, UnknownType, RecursionError, TypeError, AttributeError, ValueError) as error:
        return f"cannot be used: {shown(str(error), 200)}"
    return None


def _patterns(part: Json) -> Iterator[str | None]:
    """Every pattern in a schema; None for those of properties' names, which jsonschema matches by itself."""
    if isinstance(part, dict):
        if isinstance(part.get("pattern"), str):
            yield part["pattern"]
        if "patternProperties" in part:
            yield None
    for inner in _inside(part):
        yield from _patterns(inner)


def _is_deep(value: Json) -> bool:
    level, depth = [value], 0
    while level and depth <= _NESTING:
        level = [inner for outer in level for inner in _inside(outer)]
        depth += 1
    return bool(level)


def _inside(value: Json) -> list[Json]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []
