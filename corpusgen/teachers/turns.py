"""Turns that say more than text, as they are sent: calls of tools and their results, signed thinking, cache marks.

They go word for word. What is looked at is only whether all of it is text, because no count of tokens bounds an image.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

import orjson

from corpusgen.errors import RequestRefused
from corpusgen.records import Api, Json, Message, Request

_TEXTS: Final = frozenset({"text", "refusal"})
_PARTS: Final[Mapping[Api, frozenset[str]]] = {
    "chat": _TEXTS | {"thinking"},
    "completion": _TEXTS,
    "responses": _TEXTS | {"input_text", "output_text", "reasoning_text"},
    "messages": _TEXTS | {"thinking", "redacted_thinking", "tool_use", "tool_result"},
}
"""What the content of a turn may be made of."""
_ITEMS: Final = frozenset(
    {"message", "function_call", "function_call_output", "reasoning", "custom_tool_call", "custom_tool_call_output"}
)
"""What the input of Responses may be made of; others stand for what the provider keeps, or bring fees."""


def turns_of(request: Request) -> list[Json]:
    """The turns of a request as its wire format has them. Raises RequestRefused for what is not all text."""
    return [_turn(request.api, at, message) for at, message in enumerate(request.messages, start=1)]


def _turn(api: Api, at: int, message: Message) -> Json:
    if message.given is None:
        return {"role": message.role, "content": message.content}
    turn = given_of(message, at)
    for problem in _problems(api, turn):
        raise RequestRefused(f"turn {at} ({message.role}) {problem}")
    return turn


def given_of(message: Message, at: int) -> dict[str, Any]:
    """The turn that was given, parsed. Raises RequestRefused if it is no JSON object."""
    try:
        turn = orjson.loads(message.given or "")
    except orjson.JSONDecodeError as error:
        raise RequestRefused(f"turn {at} ({message.role}) was given as what is no JSON: {error}") from error
    if not isinstance(turn, dict):
        raise RequestRefused(f"turn {at} ({message.role}) was given as {type(turn).__name__}; a turn is an object")
    return turn


def _problems(api: Api, turn: dict[str, Any]) -> Iterator[str]:
    """Why a turn cannot be sent."""
    if turn.get("audio"):  # names what was said before, kept by the provider
        yield "holds audio; leave it out"
    if api == "responses" and (kind := turn.get("type", "message")) not in _ITEMS:
        yield f"is an item of type {kind!r}; there are {', '.join(sorted(_ITEMS))}"
    for kind in _strange(api, [turn.get("content"), turn.get("output")]):
        yield f"holds a part of type {kind}: teachers are asked in text; leave images and audio out, or describe them"


def _strange(api: Api, contents: list[Json]) -> Iterator[str]:
    for content in contents:
        if isinstance(content, list):
            yield from _strange_parts(api, content)
        elif content is not None and not isinstance(content, str):
            yield type(content).__name__


def _strange_parts(api: Api, parts: list[Json]) -> Iterator[str]:
    for part in parts:
        kind = part.get("type") if isinstance(part, dict) else type(part).__name__
        if not isinstance(part, dict) or kind not in _PARTS[api]:
            yield str(kind)
        elif kind == "tool_result":  # whose content is made of parts again
            yield from _strange(api, [part.get("content")])


def said_plainly(request: Request, who: str) -> Request:
    """The request without anything but roles and text. Raises RequestRefused for a turn that says more."""
    if all(message.given is None for message in request.messages):
        return request
    messages = [_plain(message, at, who) for at, message in enumerate(request.messages, start=1)]
    return replace(request, messages=tuple(messages))


def _plain(message: Message, at: int, who: str) -> Message:
    if message.given is None:
        return message
    turn = given_of(message, at)
    text = _text(turn.get("content"))
    more = sorted(name for name, value in turn.items() if name not in ("role", "content", "type") and value)
    if text is None or more:
        what = ", ".join(more) or "more than text"
        raise RequestRefused(
            f"turn {at} ({message.role}) holds {what}, which {who} cannot be told; ask another teacher"
        )
    return Message(role=message.role, content=text)


def _text(content: Json) -> str | None:
    """The text of a content, if it is nothing else."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not all(isinstance(part, dict) for part in content):
        return None
    texts = [part.get("text") for part in content if part.keys() == {"type", "text"}]
    return "".join(texts) if len(texts) == len(content) and all(isinstance(text, str) for text in texts) else None
