"""What carries no meaning for an answer and is left out on the way into another wire format, by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

from corpusgen.records import Api, Json
from corpusgen.serve.wires.calls import Call, Wire
from corpusgen.serve.wires.from_messages import HINTS
from corpusgen.serve.wires.said_in_chat import turn_of
from corpusgen.serve.wires.to_messages import is_signed

_THOUGHTS: Final = ("thinking", "redacted_thinking")
_Turns: TypeAlias = Sequence[Mapping[str, Any]]


def left_out(call: Call, api: Api) -> tuple[str, ...]:
    """The fields of a call that a teacher of another wire format is not sent; none where both speak the same."""
    if api == call.wire or call.wire not in _OF:
        return ()
    turns = [turn_of(message) for message in call.messages if message.given is not None]
    return tuple(dict.fromkeys(_OF[call.wire](call, turns, api)))


def _of_messages(call: Call, turns: _Turns, api: Api) -> Iterator[str]:
    yield from (name for name in ("thinking", "cache_control") if name in call.parameters)
    blocks = list(_parts(turns))
    yield from _fields("messages.content", blocks, ("cache_control", "citations"))
    if any(block.get("type") in _THOUGHTS for block in blocks):
        yield "messages.content.thinking"
    yield from _fields("tools", call.tools or (), sorted(HINTS - {"type"}))


def _of_chat(call: Call, turns: _Turns, api: Api) -> Iterator[str]:
    yield from _fields("messages", turns, ("reasoning_content", "reasoning", "reasoning_details"))
    thoughts = [one for turn in turns for one in turn.get("thinking_blocks") or ()]
    if any(api != "messages" or not is_signed(one) for one in thoughts):
        yield "messages.thinking_blocks"
    if any(turn.get("content") and turn.get("refusal") for turn in turns):
        yield "messages.refusal"
    marks = ("prompt_cache_breakpoint",) if api == "messages" else ("prompt_cache_breakpoint", "cache_control")
    parts = list(_parts(turns))
    yield from _fields("messages.content", parts, marks)
    if any(part.get("type") in _THOUGHTS for part in parts):
        yield "messages.content.thinking"
    yield from _fields("tools", call.tools or (), ("cache_control",))
    form = (call.parameters.get("response_format") or {}).get("json_schema") or {}
    if api == "messages" and form.get("name"):
        yield "response_format.json_schema.name"


def _of_responses(call: Call, turns: _Turns, api: Api) -> Iterator[str]:
    if "include" in call.parameters:
        yield "include"
    yield from (f"reasoning.{name}" for name in call.parameters.get("reasoning") or ())
    if any(item.get("type") == "reasoning" for item in turns):
        yield "input.reasoning"
    yield from _fields("input", turns, ("phase",))
    form = (call.parameters.get("text") or {}).get("format") or {}
    if api == "messages" and form.get("name"):
        yield "text.format.name"


_OF: Final[Mapping[Wire, Callable[[Call, _Turns, Api], Iterator[str]]]] = {
    "messages": _of_messages,
    "chat": _of_chat,
    "responses": _of_responses,
}


def _parts(turns: _Turns) -> Iterator[Mapping[str, Any]]:
    """The parts of turns, and those in results of tools."""
    for turn in turns:
        content = turn.get("content")
        for part in content if isinstance(content, list) else ():
            yield part
            yield from _parts([part])


def _fields(place: str, those: Sequence[Mapping[str, Json]], names: Sequence[str]) -> Iterator[str]:
    yield from (f"{place}.{name}" for name in names if any(one.get(name) for one in those))
