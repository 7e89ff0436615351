"""Responses said in chat completions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from corpusgen.records import Json, Message
from corpusgen.serve.wires.asked import bad, found
from corpusgen.serve.wires.calls import Call
from corpusgen.serve.wires.said_in_chat import Chat, shortest, turn_of

_DROPPED: Final = frozenset({"reasoning", "text", "include", "tool_choice"})
_ABOUT_DISPLAY: Final = frozenset({"summary", "generate_summary"})
_OF_TOOLS: Final = frozenset({"type", "name", "description", "parameters", "strict"})


def chat_of_responses(call: Call) -> Chat:
    """The chat that asks the same. Raises BadCall for what a chat cannot say."""
    turns, places = _turns(call.messages, call.apart)
    return Chat(
        turns=turns,
        places=places,
        parameters=_parameters(call.parameters),
        tools=None if call.tools is None else [_tool(tool, f"tools[{at}]") for at, tool in enumerate(call.tools)],
        schema=call.schema,
    )


def _turns(messages: Sequence[Message], apart: int) -> tuple[list[dict[str, Any]], list[str]]:
    turns: list[dict[str, Any]] = []
    places: list[str] = []
    for at, message in enumerate(messages, start=-apart):
        item, place = turn_of(message), f"input[{at}]" if at >= 0 else "instructions"
        if item.get("type") == "function_call" and turns and turns[-1]["role"] == "assistant":
            turns[-1].setdefault("tool_calls", []).append(_call(item))
        elif (turn := _turn(item, place)) is not None:
            turns.append(turn)
            places.append(place)
    return turns, places


def _turn(item: Mapping[str, Json], place: str) -> dict[str, Any] | None:
    match item.get("type", "message"):
        case "message":
            return {"role": item["role"], "content": _texts(item["content"])}
        case "function_call":
            return {"role": "assistant", "content": None, "tool_calls": [_call(item)]}
        case "function_call_output":
            return {"role": "tool", "tool_call_id": item["call_id"], "content": _texts(item["output"])}
        case "reasoning":
            return None  # only its own provider can read it
        case kind:
            raise bad(place, f"this teacher calls functions only, found an item of type {found(kind)}")


def _texts(content: Json) -> Json:
    if isinstance(content, str):
        return content
    return shortest([{"type": "text", "text": part.get("text") or part.get("refusal") or ""} for part in content])


def _call(item: Mapping[str, Json]) -> Json:
    function = {"name": item["name"], "arguments": item["arguments"]}
    return {"id": item["call_id"], "type": "function", "function": function}


def _tool(tool: Mapping[str, Json], field: str) -> Json:
    if tool.get("type") != "function":
        raise bad(f"{field}.type", f"this teacher calls functions only, found {found(tool.get('type'))}")
    for name, value in tool.items():
        if name not in _OF_TOOLS and value not in (None, False, []):
            raise bad(
                f"{field}.{name}", "this teacher is asked in another wire format, which cannot say that; leave it out"
            )
    kept = {name: value for name, value in tool.items() if name in _OF_TOOLS - {"type"} and value is not None}
    return {"type": "function", "function": kept}


def _parameters(given: Mapping[str, Json]) -> dict[str, Json]:
    said = {name: value for name, value in given.items() if name not in _DROPPED}
    for name in ("max_tool_calls", "truncation"):
        if name in said:
            raise bad(name, "this teacher is asked in another wire format, which cannot say that; leave it out")
    for name in (given.get("reasoning") or {}).keys() - _ABOUT_DISPLAY:
        raise bad(
            f"reasoning.{name}", "this teacher is asked in another wire format, which cannot say that; leave it out"
        )
    text = given.get("text") or {}
    if "verbosity" in text:
        said["verbosity"] = text["verbosity"]
    if "format" in text:
        said["response_format"] = _form(text["format"])
    if "tool_choice" in given:
        said["tool_choice"] = _choice(given["tool_choice"])
    return said


def _form(form: Mapping[str, Json]) -> Json:
    if form["type"] != "json_schema":
        return form
    inner = {name: value for name, value in form.items() if name != "type"}
    return {"type": "json_schema", "json_schema": inner}


def _choice(choice: Json) -> Json:
    if isinstance(choice, str):
        return choice
    if choice.get("type") != "function":
        raise bad("tool_choice", f"this teacher takes none, auto, required or one function, found {found(choice)}")
    return {"type": "function", "function": {"name": choice.get("name")}}
