"""What a client may write into a field: types, bounds and text, each refusal naming the field it is about."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Final, TypeAlias

import orjson

from corpusgen.errors import CorpusgenError
from corpusgen.records import Json, Message, canonical_json
from corpusgen.teachers.wire import shown

DEEPEST: Final = 64
"""How many objects and lists may lie in one another."""
MOST_TURNS: Final = 10_000
MOST_TOOLS: Final = 512
MOST_TOKENS: Final = 10_000_000
_LONGEST_NAME: Final = 200
_LARGEST: Final = 2**63
_SHOWN: Final = 60

TEXT_ONLY: Final = "corpusgen asks for text"


class BadCall(CorpusgenError):
    """A client asked for what cannot be read or passed on; ``field`` is where, ``messages[3].content[1].image_url``."""

    exit_code = 2
    status = 400

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


Check: TypeAlias = Callable[[Json, str], Json]
"""Takes a value and the path of its field, and gives the value back or raises BadCall."""


@dataclass(frozen=True, kw_only=True)
class Known:
    """What one wire format's clients send besides what is asked, and what becomes of it. Read in November 2026."""

    read: frozenset[str]
    """Fields that their own code reads."""
    passed: Mapping[str, Check]
    """Parameters that may change the answer: checked and passed on."""
    ignored: frozenset[str]
    """What does not change the answer: left out, and said to be."""
    refused: Mapping[str, str]
    """What would change the answer and cannot be had here, each with what to do instead."""
    names: Mapping[str, str] = field(default_factory=dict)
    """What we call some of the parameters."""


def bad(field: str, message: str) -> BadCall:
    """What to raise about a field; the message goes on after its path."""
    return BadCall(f"{field}: {message}", field=field)


def found(value: Json) -> str:
    """A value as it is shown to whoever sent it."""
    return shown(orjson.dumps(value), _SHOWN)


# --- the whole body --------------------------------------------------------------------------------------------------


def check_json(value: Json) -> None:
    """Raise BadCall for numbers, texts and depths that canonical JSON does not hold, naming the place."""
    if fault := _fault(value, DEEPEST):
        path, what = fault
        path = path.lstrip(".")[:_LONGEST_NAME]
        raise BadCall(f"{path or 'the body'}: {what}", field=path or None)


def _fault(value: Json, deeper: int) -> tuple[str, str] | None:
    """Where below a value something is wrong, and what."""
    kind = type(value)
    if kind is str:
        return None if _is_unicode(value) else ("", "holds half a surrogate pair, which is no character")
    if kind is dict or kind is list:
        if deeper == 0:
            return "", f"lies more than {DEEPEST} objects and lists deep"
        return _fault_in_object(value, deeper - 1) if kind is dict else _fault_in_list(value, deeper - 1)
    if kind is int:
        return None if -_LARGEST <= value < _LARGEST else ("", "a whole number of at most 64 bits is needed")
    if kind is float:
        return None if math.isfinite(value) else ("", "NaN and infinity are no JSON")
    return None if value is None or kind is bool else ("", f"{kind.__name__} is no JSON")


def _fault_in_object(value: dict[Any, Any], deeper: int) -> tuple[str, str] | None:
    for name, item in value.items():
        if type(name) is not str or not _is_unicode(name):
            return "", "the names of an object must be text"
        if fault := _fault(item, deeper):
            return f".{clean(name)}{fault[0]}", fault[1]
    return None


def _fault_in_list(value: list[Any], deeper: int) -> tuple[str, str] | None:
    for at, item in enumerate(value):
        if fault := _fault(item, deeper):
            return f"[{at}]{fault[0]}", fault[1]
    return None


def _is_unicode(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def clean(name: str) -> str:
    """A name somebody chose, fit for a message and a log."""
    return shown(name, _SHOWN)[1:-1]


# --- parameters ------------------------------------------------------------------------------------------------------


def parameters_of(body: Mapping[str, Json], known: Known) -> tuple[dict[str, Json], tuple[str, ...]]:
    """The parameters that are set, under our names, and what is left out. Raises BadCall naming all that is unknown."""
    _check_known(body, known)
    given: dict[str, Json] = {}
    for name, value in body.items():
        if name in known.refused and value not in (None, False, "", [], {}):
            raise bad(name, known.refused[name])
        if value is not None and (check := known.passed.get(name)) is not None:
            given[known.names.get(name, name)] = check(value, name)
    return given, tuple(sorted(name for name in known.ignored & body.keys() if body[name] is not None))


def _check_known(body: Mapping[str, Json], known: Known) -> None:
    groups = (known.read, known.passed, known.ignored, known.refused)
    unknown = sorted(name for name in body if not any(name in group for group in groups))
    if unknown:
        every = frozenset(name for group in groups for name in group)
        said = ", ".join(_unknown(name, every) for name in unknown[:20])
        raise BadCall(f"unknown parameters: {said}; leave them out", field=clean(unknown[0]))


def _unknown(name: str, every: frozenset[str]) -> str:
    close = get_close_matches(name[:_LONGEST_NAME], every, n=1)
    return f"{clean(name)} (did you mean {close[0]}?)" if close else clean(name)


def number(least: float, most: float) -> Check:
    """A check: a number within bounds."""

    def check(value: Json, field: str) -> Json:
        if type(value) not in (int, float) or not least <= value <= most:
            raise bad(field, f"a number from {least:g} to {most:g} is needed, found {found(value)}")
        return value

    return check


def whole(least: int, most: int) -> Check:
    """A check: a whole number within bounds."""

    def check(value: Json, field: str) -> Json:
        if type(value) is not int or not least <= value <= most:
            raise bad(field, f"a whole number from {least:,} to {most:,} is needed, found {found(value)}")
        return value

    return check


def text(most: int) -> Check:
    """A check: text of at most so many characters."""

    def check(value: Json, field: str) -> Json:
        if not isinstance(value, str) or len(value) > most:
            raise bad(field, f"text of at most {most:,} characters is needed, found {found(value)}")
        return value

    return check


def flag(value: Json, field: str) -> Json:
    """True or false."""
    if type(value) is not bool:
        raise bad(field, f"true or false is needed, found {found(value)}")
    return value


def mapping(value: Json, field: str) -> dict[str, Any]:
    """An object."""
    if not isinstance(value, dict):
        raise bad(field, f"an object is needed, found {found(value)}")
    return value


def listing(value: Json, field: str, most: int = MOST_TURNS) -> list[Any]:
    """A list of at most so many."""
    if not isinstance(value, list) or len(value) > most:
        raise bad(field, f"a list of at most {most:,} is needed, found {found(value)}")
    return value


def each(check: Check, most: int) -> Check:
    """A check: a list whose entries pass another."""

    def checked(value: Json, field: str) -> Json:
        return [check(item, f"{field}[{at}]") for at, item in enumerate(listing(value, field, most))]

    return checked


def either(one: type, check: Check, other: Check) -> Check:
    """A check: one for values of a type, another for all others."""

    def checked(value: Json, field: str) -> Json:
        return (check if isinstance(value, one) else other)(value, field)

    return checked


def among(*words: str) -> Check:
    """A check: one of these words."""

    def check(value: Json, field: str) -> Json:
        if value not in words:
            raise bad(field, f"{' or '.join(words)} is needed, found {found(value)}")
        return value

    return check


def biases(value: Json, field: str) -> Json:
    """Tokens by their number, each with what is added to its logit."""
    given, check = mapping(value, field), number(-100, 100)
    if len(given) > 1024:
        raise bad(field, f"at most 1,024 tokens are taken, found {len(given):,}")
    return {token: check(bias, f"{field}.{clean(token)}") for token, bias in given.items()}


word: Final = text(64)
"""A check: a word that a vendor gave a meaning."""
mark: Final = text(1000)
stops: Final = either(str, mark, each(mark, 16))
"""A check: at what an answer stops, one text or up to 16."""


def model_of(body: Mapping[str, Json]) -> str:
    """The model as the client wrote it. Raises BadCall."""
    name = body.get("model")
    if not isinstance(name, str) or not name or len(name) > _LONGEST_NAME or not name.isprintable():
        raise bad("model", f"the name of a model is needed, found {found(name)}; GET /v1/models lists them")
    return name


# --- turns and tools -------------------------------------------------------------------------------------------------


def known_only(given: Mapping[str, Json], names: frozenset[str], field: str) -> None:
    """Raise BadCall naming every field that is set and not known."""
    unknown = sorted(name for name, value in given.items() if name not in names and value not in (None, []))
    if unknown:
        raise bad(
            f"{field}.{clean(unknown[0])}", f"unknown fields: {', '.join(map(clean, unknown[:20]))}; leave them out"
        )


def said(given: Mapping[str, Json], name: str, field: str) -> str:
    """A text among the fields of an object."""
    value = given.get(name)
    if not isinstance(value, str):
        raise bad(f"{field}.{name}", f"text is needed, found {found(value)}")
    return value


def no_text(part: Mapping[str, Json], field: str) -> BadCall:
    """What to raise about a part that is no text."""
    kind = part.get("type")
    place = f"{field}.{kind}" if isinstance(kind, str) and kind in part else field
    raise bad(
        place, f"{TEXT_ONLY}; a part of type {found(kind)} is not passed on: leave it out, or ask the provider directly"
    )


def turn(role: str, content: str, given: Mapping[str, Json] | None) -> Message:
    """A turn, with the whole of it where it says more than its text."""
    whole_turn = None if given is None else canonical_json(given).decode()
    return Message(role=role, content=content, given=whole_turn)  # type: ignore[arg-type]  # readers know the roles


def choice(name_of: Callable[[dict[str, Any], str], Json]) -> Check:
    """A check of OpenAI's ``tool_choice``: a word, or an object of a type, whose function is looked at."""

    def check(value: Json, field: str) -> Json:
        if isinstance(value, str):
            return among("auto", "none", "required")(value, field)
        given = mapping(value, field)
        if word(given.get("type"), f"{field}.type") == "function":
            name_of(given, field)
        return value

    return check


def tool_list(value: Json, field: str, check: Callable[[dict[str, Any], str], None]) -> Json:
    """The tools as they were given, each looked at; None where there are none."""
    if value is None or value == []:
        return None
    tools = listing(value, field, MOST_TOOLS)
    for at, tool in enumerate(tools):
        check(mapping(tool, f"{field}[{at}]"), f"{field}[{at}]")
    return tools


def tool_name(given: Mapping[str, Json], field: str) -> str:
    """What a tool is called."""
    name = said(given, "name", field)
    if not 0 < len(name) <= _LONGEST_NAME or not name.isprintable():
        raise bad(
            f"{field}.name", f"a name of 1 to {_LONGEST_NAME} printable characters is needed, found {found(name)}"
        )
    return name


def joined(texts: Sequence[str]) -> str:
    """The texts of several parts as the one text of a turn."""
    return "".join(texts)
