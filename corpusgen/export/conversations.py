"""Conversations with tools as trainers read them: OpenAI's chat form, whichever wire format they were sent in.

Thinking is left out: what was signed for one teacher is no text to learn from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeAlias

import orjson

from corpusgen.records import Json

Turn: TypeAlias = dict[str, Any]
"""``{role, content}``, and ``tool_calls``, ``tool_call_id`` or ``name`` where it has one."""

_ROLES: Final = {"developer": "system", "function": "tool"}
"""Roles that chat templates have another name for."""


def chat_turns(conversation: Mapping[str, Json]) -> list[Turn]:
    """The turns of a record's ``conversation``; what an assistant says and calls in one go is one turn."""
    told: list[Turn] = []
    for given in conversation["messages"]:
        for turn in _READ[conversation["api"]](given):
            if "tool_calls" in turn and told and told[-1]["role"] == "assistant" and not turn["content"]:
                told[-1].setdefault("tool_calls", []).extend(turn["tool_calls"])
            else:
                told.append(turn)
    return told


def chat_tools(conversation: Mapping[str, Json]) -> list[Json] | None:
    """The tools that were offered; None where there were none. Those a provider runs itself stay as they are."""
    tools = conversation.get("tools")
    return [_tool(tool) for tool in tools] if tools else None


def _tool(tool: Json) -> Json:
    if not isinstance(tool, dict) or "function" in tool or "name" not in tool:
        return tool
    if "input_schema" in tool:
        return _function(tool, tool["input_schema"])
    return _function(tool, tool.get("parameters")) if tool.get("type") == "function" else tool


def _function(tool: dict[str, Json], parameters: Json) -> Json:
    told = {name: tool[name] for name in ("name", "description", "strict") if tool.get(name) is not None}
    return {"type": "function", "function": {**told, "parameters": parameters or {"type": "object"}}}


def _of_chat(turn: dict[str, Json]) -> Iterator[Turn]:
    role = _ROLES.get(turn["role"], turn["role"])
    told: Turn = {"role": role, "content": _text(turn.get("content"))}
    calls = [chat_call(call) for call in turn.get("tool_calls") or ()]
    if old := turn.get("function_call"):
        calls.append(chat_call({"function": old}))
    if calls:
        told["tool_calls"] = calls
    yield told | {name: turn[name] for name in ("tool_call_id", "name") if turn.get(name)}


def chat_call(call: Mapping[str, Json]) -> Json:
    """A call of a tool; whatever else a server wrote beside name and arguments is left out."""
    what = call.get("function") or call.get("custom") or {}
    return _call(call.get("id"), what.get("name"), what.get("arguments", what.get("input")))


def _of_messages(turn: dict[str, Json]) -> Iterator[Turn]:
    blocks = turn["content"]
    if isinstance(blocks, str):
        yield {"role": turn["role"], "content": blocks}
        return
    results = [block for block in blocks if block.get("type") == "tool_result"]
    for block in results:
        yield {"role": "tool", "content": _text(block.get("content")), "tool_call_id": block.get("tool_use_id")}
    calls = [_call(one.get("id"), one.get("name"), one.get("input")) for one in blocks if one.get("type") == "tool_use"]
    text = _text(blocks)
    if text or calls or not results:
        yield {"role": turn["role"], "content": text} | ({"tool_calls": calls} if calls else {})


def _of_responses(item: dict[str, Json]) -> Iterator[Turn]:
    kind = item.get("type", "message")
    if kind == "message":
        yield {"role": _ROLES.get(item["role"], item["role"]), "content": _text(item.get("content"))}
    elif kind.endswith("_output"):
        yield {"role": "tool", "content": _text(item.get("output")), "tool_call_id": item.get("call_id")}
    elif kind.endswith("_call"):
        call = _call(item.get("call_id"), item.get("name"), item.get("arguments", item.get("input")))
        yield {"role": "assistant", "content": "", "tool_calls": [call]}


_READ: Final[Mapping[str, Callable[[dict[str, Json]], Iterator[Turn]]]] = {
    "chat": _of_chat,
    "completion": _of_chat,
    "messages": _of_messages,
    "responses": _of_responses,
}


def _call(name: Json, tool: Json, arguments: Json) -> Json:
    said = arguments if isinstance(arguments, str) else orjson.dumps(arguments or {}).decode()
    return {"id": name, "type": "function", "function": {"name": tool, "arguments": said}}


def _text(content: Json) -> str:
    """The text of a content; of parts, those that are text."""
    if not isinstance(content, list):
        return content or ""
    return "".join(part.get("text") or part.get("refusal") or "" for part in content if part.get("type") in _SAID)


_SAID: Final = frozenset({"text", "input_text", "output_text", "refusal"})
