"""Messages, written from what a teacher was understood to say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import orjson

from corpusgen.records import Completion, FinishReason, Json, Usage
from corpusgen.serve.wires.calls import Call
from corpusgen.serve.wires.render_chat import calls_of, signed_parts

_STOP: Final[Mapping[FinishReason, str]] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
    "refusal": "refusal",
    "pause": "pause_turn",
    "other": "end_turn",
}
_TIERS: Final = frozenset({"standard", "priority", "batch"})


def messages_answer(call: Call, completions: Sequence[Completion], created: int, name: str) -> dict[str, Json]:
    """A message; there is one however many were asked for, for Messages cannot ask for several."""
    said = completions[0]
    reason = "tool_use" if said.tool_calls and said.finish_reason in ("stop", "other") else _STOP[said.finish_reason]
    return {
        "id": f"msg_{name}",
        "type": "message",
        "role": "assistant",
        "model": said.model_served or call.model,
        "content": _content(said, name),
        "stop_reason": reason,
        "stop_sequence": None,
        "stop_details": _refusal(said) if reason == "refusal" else None,
        "usage": _usage(said.usage),
    }


def _refusal(said: Completion) -> Json:
    return {"type": "refusal", "category": None, "explanation": said.refusal}


def _content(said: Completion, name: str) -> list[Json]:
    """Thinking only where its provider signed it: any other would be refused when it is sent back."""
    blocks = signed_parts(said)
    if said.text:
        blocks.append({"type": "text", "text": said.text, "citations": None})
    for call in calls_of(said, f"toolu_{name}"):
        function = call["function"]
        given = {"name": function["name"], "input": _input(function["arguments"])}
        blocks.append({"type": "tool_use", "id": call["id"], **given})
    return blocks


def _input(arguments: str) -> dict[str, Json]:
    """The arguments as an object; what was cut off is none, as Anthropic has it."""
    try:
        given = orjson.loads(arguments or "{}")
    except orjson.JSONDecodeError:
        return {}
    return given if isinstance(given, dict) else {}


def _usage(usage: Usage) -> dict[str, Json]:
    """Tokens as Anthropic counts them: the input leaves out what came from the prompt cache or went into it."""
    read, written, lasting = usage.cached_input_tokens, usage.cache_write_tokens, usage.cache_write_1h_tokens
    counted: dict[str, Json] = {
        "input_tokens": max(0, usage.input_tokens - read - written),
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": read,
        "cache_creation": {"ephemeral_5m_input_tokens": written - lasting, "ephemeral_1h_input_tokens": lasting},
        "output_tokens": usage.output_tokens,
        "service_tier": usage.service_tier if usage.service_tier in _TIERS else "standard",
    }
    if usage.reasoning_tokens is not None:
        counted["output_tokens_details"] = {"thinking_tokens": usage.reasoning_tokens}
    return counted
