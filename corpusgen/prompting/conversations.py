"""Conversations as seeds: a column of turns, each with a role and a text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from corpusgen.records import Message

COLUMN: Final = "messages"
"""The column that holds a conversation, and the name of the block of a prompt file in whose place it is put."""
_ROLES: Final = ("system", "user", "assistant")
_NO_TEXT: Final = ("tool_calls", "function_call", "audio", "images")
"""Fields of a turn that say what its text does not; a turn that has one is not sent without it."""


@dataclass(frozen=True, kw_only=True)
class Turns:
    """What a prompt file has room for: system text at the front, and whether the conversation is the end of it."""

    system: bool
    last: bool


def turns_of(value: object, room: Turns) -> tuple[Message, ...]:
    """The turns in a cell; in files without lists, as CSV, JSON text. Raises ValueError saying which turn is wrong."""
    found = _parsed(value)
    if not isinstance(found, Sequence) or isinstance(found, str | bytes) or not found:
        raise ValueError('must be a list of turns, such as [{"role": "user", "content": "..."}]')
    turns = tuple(_turn(at, turn) for at, turn in enumerate(found, 1))
    for at, turn in enumerate(turns, 1):
        if turn.role == "system" and (at > 1 or not room.system):
            raise ValueError(f"turn {at} is system text, which may only stand at the front of a prompt")
    if all(turn.role == "system" for turn in turns):
        raise ValueError("has system text only; a user turn is needed")
    if room.last and turns[-1].role != "user":
        raise ValueError(
            f"ends with a turn of the {turns[-1].role}; the last turn, which is answered, must be the user's"
        )
    return turns


def text_of(turns: Sequence[Message]) -> str:
    """A conversation as one text."""
    return "\n\n".join(f"{turn.role}: {turn.content}" for turn in turns)


def _parsed(value: object) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"must be a list of turns in JSON: {error}") from error


def _turn(at: int, turn: object) -> Message:
    if not isinstance(turn, dict):
        raise ValueError(f"turn {at} must be fields, such as {{role: user, content: ...}}, found {turn!r:.60}")
    role = turn.get("role")
    if role not in _ROLES:
        raise ValueError(f"turn {at} has role {role!r:.60}; roles are {', '.join(_ROLES)}")
    for name in _NO_TEXT:
        if turn.get(name):
            raise ValueError(f"turn {at} holds {name}; teachers are asked in text, so leave it out or describe it")
    text = "".join(_texts(at, turn.get("content")))
    if not text.strip():
        raise ValueError(f"turn {at} is empty; fill in its content or remove the row")
    return Message(role=role, content=text)


def _texts(at: int, content: object) -> Iterator[str]:
    """The text of a turn, whole or in parts."""
    if content is None or isinstance(content, str):
        yield content or ""
        return
    if not isinstance(content, list):
        raise ValueError(f"turn {at} has content {content!r:.60}; content is text")
    for part in content:
        text = part.get("text") if isinstance(part, dict) and part.get("type") in ("text", None) else None
        if not isinstance(text, str):
            kind = part.get("type") if isinstance(part, dict) else type(part).__name__
            raise ValueError(f"turn {at} holds {kind}; teachers are asked in text, so leave it out or describe it")
        yield text
