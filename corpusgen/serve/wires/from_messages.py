"""Messages said in chat completions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import orjson

from corpusgen.records import Json, Message
from corpusgen.serve.wires.asked import bad, found
from corpusgen.serve.wires.calls import Call
from corpusgen.serve.wires.said_in_chat import Chat, shortest, text_of, turn_of

_CHOICES: Final = {"auto": "auto", "none": "none", "any": "required"}
HINTS: Final = frozenset({"type", "cache_control", "eager_input_streaming"})
"""Of a tool: how it is kept and sent, which is nothing to the model."""
_OF_TOOLS: Final = frozenset({"name", "description", "input_schema", "strict"})


def chat_of_messages(call: Call) -> Chat:
    """The chat that asks the same. Raises BadCall for what a chat cannot say."""
    placed = list(_placed(call.messages, call.apart))
    return Chat(
        turns=[turn for _, turn in placed],
        places=[place for place, _ in placed],
        parameters=_parameters(call.parameters),
        tools=None if call.tools is None else [_tool(tool, f"tools[{at}]") for at, tool in enumerate(call.tools)],
        schema=call.schema,
    )


def _placed(messages: Sequence[Message], apart: int) -> Iterator[tuple[str, dict[str, Any]]]:
    for at, message in enumerate(messages, start=-apart):
        content, place = turn_of(message)["content"], f"messages[{at}]"
        if message.role == "system":
            yield "system" if at < 0 else place, {"role": "system", "content": _texts(content)}
            continue
        turns = _user(content) if message.role == "user" else _assistant(content)
        for turn in turns:
            yield place, turn


def _texts(content: Json) -> Json:
    """A content of text, without marks for the cache."""
    if isinstance(content, str):
        return content
    return shortest([{"type": "text", "text": block["text"]} for block in content])


def _user(content: Json) -> Iterator[dict[str, Any]]:
    """A turn of the user's: each result of a tool is a turn of its own in a chat."""
    if isinstance(content, str):
        yield {"role": "user", "content": content}
        return
    texts: list[Json] = []
    for block in content:
        if block["type"] == "text":
            texts.append(block)
            continue
        if texts:
            yield {"role": "user", "content": _texts(texts)}
            texts = []
        yield {"role": "tool", "tool_call_id": block["tool_use_id"], "content": _result(block)}
    if texts:
        yield {"role": "user", "content": _texts(texts)}


def _result(block: Mapping[str, Json]) -> Json:
    """What a tool said; a chat has no word for one that failed, so its text says so, to the model and the record."""
    content = block.get("content") or ""
    if not block.get("is_error"):
        return _texts(content)
    return orjson.dumps({"is_error": True, "content": text_of(content)}).decode()


def _assistant(content: Json) -> Iterator[dict[str, Any]]:
    if isinstance(content, str):
        yield {"role": "assistant", "content": content}
        return
    texts = [block for block in content if block["type"] == "text"]
    calls = [_call(block) for block in content if block["type"] == "tool_use"]
    turn: dict[str, Any] = {"role": "assistant", "content": _texts(texts) if texts else None if calls else ""}
    yield {**turn, "tool_calls": calls} if calls else turn


def _call(block: Mapping[str, Json]) -> Json:
    function = {"name": block["name"], "arguments": orjson.dumps(block["input"]).decode()}
    return {"id": block["id"], "type": "function", "function": function}


def _tool(tool: Mapping[str, Json], field: str) -> Json:
    if tool.get("type") not in (None, "custom"):
        raise bad(f"{field}.type", f"this teacher calls functions only, found {found(tool['type'])}")
    for name, value in tool.items():
        if name not in HINTS | _OF_TOOLS and value not in (None, False, []):
            raise bad(
                f"{field}.{name}", "this teacher is asked in another wire format, which cannot say that; leave it out"
            )
    kept = {name: tool[name] for name in ("name", "description", "strict") if tool.get(name) is not None}
    return {"type": "function", "function": {**kept, "parameters": tool["input_schema"]}}


def _parameters(given: Mapping[str, Json]) -> dict[str, Json]:
    said = {name: value for name, value in given.items() if name not in ("cache_control", "thinking", "tool_choice")}
    _check_thinking(given.get("thinking"))
    if said.pop("speed", "standard") != "standard":
        raise bad("speed", "this teacher has one speed; leave it out")
    if "inference_geo" in said:
        raise bad("inference_geo", "this teacher cannot be told where to run; leave it out")
    if said.get("service_tier") == "standard_only":
        said["service_tier"] = "default"
    return {**said, **_choice(given.get("tool_choice"))}


def _check_thinking(thinking: Json) -> None:
    if thinking is not None and thinking.get("type") == "enabled":
        raise bad("thinking.budget_tokens", "this teacher takes no budget for thinking; write output_config.effort")


def _choice(choice: Json) -> dict[str, Json]:
    if choice is None:
        return {}
    alone = {"parallel_tool_calls": False} if choice.get("disable_parallel_tool_use") else {}
    kind = choice.get("type")
    if kind == "tool":
        return {"tool_choice": {"type": "function", "function": {"name": choice.get("name")}}, **alone}
    if kind not in _CHOICES:
        raise bad("tool_choice.type", f"auto, any, tool or none is needed, found {found(kind)}")
    return {"tool_choice": _CHOICES[kind], **alone}
