"""Anthropic's Messages: a request as the bytes to send, a reply as a completion that may be believed.

Its input count leaves out what came from the prompt cache or was written to it; here all of it is input, as elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson

from corpusgen.errors import RequestRefused
from corpusgen.records import Completion, FinishReason, Json, Request, TraceKind, Usage
from corpusgen.teachers.turns import turns_of
from corpusgen.teachers.wire import (
    check_usage,
    count_if_given,
    finish_of,
    invalid,
    mapping,
    name_or_none,
    reply_object,
    text_of,
    text_or_none,
    usage_or_uncounted,
)

_FINISH: Final[dict[str, FinishReason]] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "pause_turn": "pause",
    "refusal": "refusal",
}
_NOTHING: Final[Mapping[str, Json]] = {}
_CHOICES: Final = {"auto": "auto", "none": "none", "required": "any"}


def messages_body(request: Request, also: Mapping[str, Json] = _NOTHING) -> bytes:
    """The JSON a server is sent. Raises RequestRefused for what this wire format cannot say."""
    body: dict[str, Json] = {"model": request.model, **request.parameters, **also}
    _turns(request, body)
    if "stop" in body:
        stop = body.pop("stop")
        body["stop_sequences"] = [stop] if isinstance(stop, str) else stop
    if isinstance(thinking := body.get("thinking"), dict) and thinking.get("type") in ("adaptive", "enabled"):
        # Newer models leave the text out unless it is asked for.
        body["thinking"] = {"display": "summarized", **thinking}
    config = dict(body.get("output_config") or {})
    if "reasoning_effort" in body:
        config["effort"] = body.pop("reasoning_effort")
    if request.schema is not None:
        config["format"] = {"type": "json_schema", "schema": request.schema}
    if config:
        body["output_config"] = config
    if request.tools is not None:
        body["tools"] = [_tool(tool) for tool in request.tools]
    if "tool_choice" in body:
        body["tool_choice"] = _tool_choice(body["tool_choice"])
    return orjson.dumps(body)


def _turns(request: Request, body: dict[str, Json]) -> None:
    turns = turns_of(request)
    ahead = next((at for at, turn in enumerate(turns) if turn.get("role") != "system"), len(turns))
    system, turns = turns[:ahead], turns[ahead:]
    if any(turn.get("role") == "system" for turn in turns):
        raise RequestRefused("Messages take system text before the first turn only; move it to the front")
    if not turns:
        raise RequestRefused("Messages need at least one user turn; the prompt has only a system block")
    for at, turn in enumerate(turns, start=ahead + 1):
        if turn.get("role") not in ("user", "assistant"):
            raise RequestRefused(f"turn {at} is of role {turn.get('role')!r}; Messages know system, user and assistant")
    if system:
        body["system"] = _system([turn.get("content") for turn in system])
    body["messages"] = turns


def _system(contents: list[Json]) -> Json:
    """The system text; a list of blocks where one was given as such, which may carry cache marks."""
    if all(isinstance(content, str) for content in contents):
        return "\n\n".join(contents)
    return [block for content in contents for block in _as_blocks(content)]


def _as_blocks(content: Json) -> list[Json]:
    return content if isinstance(content, list) else [{"type": "text", "text": content}]


def _tool(tool: Json) -> Json:
    """A function in Anthropic's spelling; what is not in OpenAI's goes as it is."""
    function = tool.get("function") if isinstance(tool, dict) else None
    if not isinstance(function, dict):
        return tool
    ours = {name: value for name, value in function.items() if name != "parameters"}
    return {**ours, "input_schema": function.get("parameters") or {"type": "object"}}


def _tool_choice(choice: Json) -> Json:
    if isinstance(choice, str):
        return {"type": _CHOICES.get(choice, choice)}
    if isinstance(choice, dict) and isinstance(choice.get("function"), dict):
        return {"type": "tool", "name": choice["function"].get("name")}
    return choice


def read_message(body: bytes, *, request_id: str | None = None) -> Completion:
    """The answer in the body of an HTTP 200. Raises InvalidAnswer saying what was found instead."""
    reply = reply_object(body)
    finish = finish_of(_FINISH, reply.get("stop_reason"))
    blocks = _blocks(reply)
    text = "".join(text_of(block.get("text"), "text") for block in blocks if block.get("type") == "text")
    calls = [_call(block) for block in blocks if block.get("type") == "tool_use"]
    thoughts = [block for block in blocks if block.get("type") in ("thinking", "redacted_thinking")]
    usage = _usage(reply.get("usage"))
    reasoning, kind = _reasoning(thoughts)
    return Completion(
        text=text,
        finish_reason=finish,
        usage=usage,
        reasoning=reasoning,
        trace_kind=kind or ("omitted" if usage.reasoning_tokens else None),
        reasoning_parts=orjson.dumps(thoughts).decode() if thoughts else None,
        refusal=_refusal(reply, text) if finish == "refusal" else None,
        tool_calls=orjson.dumps(calls).decode() if calls else None,
        model_served=name_or_none(reply, "model"),
        provider_request_id=request_id or name_or_none(reply, "id"),
    )


def _blocks(reply: dict[str, Any]) -> list[dict[str, Any]]:
    content = reply.get("content")
    if not isinstance(content, list):
        invalid("a list as content", content)
    return [mapping(block, "content") for block in content]


def _call(block: dict[str, Any]) -> dict[str, Json]:
    arguments = orjson.dumps(mapping(block.get("input"), "input")).decode()
    function = {"name": text_of(block.get("name"), "name"), "arguments": arguments}
    return {"id": text_or_none(block, "id"), "type": "function", "function": function}


def _reasoning(blocks: list[dict[str, Any]]) -> tuple[str | None, TraceKind | None]:
    """The thinking, a summary of it since Claude 4; a block with a signature alone left it out, one of data hid it."""
    texts = [block.get("thinking") for block in blocks]
    if text := "\n\n".join(one for one in texts if isinstance(one, str) and one):
        return text, "summary"
    if any(block.get("type") == "redacted_thinking" for block in blocks):
        return None, "encrypted"
    return None, "omitted" if blocks else None


def _refusal(reply: dict[str, Any], text: str) -> str | None:
    details = reply.get("stop_details")
    said = details if isinstance(details, dict) else {}
    return text_or_none(said, "explanation") or text_or_none(said, "category") or text or None


def _usage(value: Json) -> Usage:
    tier = text_or_none(value, "service_tier") if isinstance(value, dict) else None
    return usage_or_uncounted(value, tier, _counted)


def _counted(usage: dict[str, Any]) -> Usage:
    fresh, answered = count_if_given(usage, "input_tokens"), count_if_given(usage, "output_tokens")
    cached = count_if_given(usage, "cache_read_input_tokens") or 0
    lives = mapping(usage.get("cache_creation") or {}, "cache_creation")
    lasting = count_if_given(lives, "ephemeral_1h_input_tokens") or 0
    listed = lasting + (count_if_given(lives, "ephemeral_5m_input_tokens") or 0)
    written = listed if (stated := count_if_given(usage, "cache_creation_input_tokens")) is None else stated
    details = mapping(usage.get("output_tokens_details") or {}, "output_tokens_details")
    reasoning = count_if_given(details, "thinking_tokens")
    check_usage(usage, None, answered, written=written, lasting=lasting, reasoning=reasoning)
    fast = usage.get("speed") == "fast"
    return Usage(
        input_tokens=0 if fresh is None else fresh + cached + written,
        output_tokens=answered or 0,
        cached_input_tokens=cached,
        reasoning_tokens=reasoning,
        cache_write_tokens=written,
        cache_write_1h_tokens=lasting,
        # The price lists name what is answered faster by that parameter.
        service_tier="speed=fast" if fast else text_or_none(usage, "service_tier"),
        counted=fresh is not None and answered is not None,
    )
