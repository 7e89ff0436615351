"""Responses, written from what a teacher was understood to say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from corpusgen.records import Completion, Json, Usage
from corpusgen.serve.wires.calls import Call
from corpusgen.serve.wires.render_chat import TIERS, calls_of, positions

_INCOMPLETE: Final = {"length": "max_output_tokens", "pause": "max_output_tokens", "content_filter": "content_filter"}


def responses_answer(call: Call, completions: Sequence[Completion], created: int, name: str) -> dict[str, Json]:
    """A response; there is one however many were asked for, for Responses cannot ask for several."""
    said, asked = completions[0], call.parameters
    why = _INCOMPLETE.get(said.finish_reason)
    return {
        "id": f"resp_{name}",
        "object": "response",
        "created_at": created,
        "status": "completed" if why is None else "incomplete",
        "error": None,
        "incomplete_details": None if why is None else {"reason": why},
        "instructions": None,
        "max_output_tokens": asked.get("max_tokens"),
        "metadata": {},
        "model": said.model_served or call.model,
        "output": _output(call, said, name, "completed" if why is None else "incomplete"),
        "parallel_tool_calls": asked.get("parallel_tool_calls", True),
        "previous_response_id": None,
        "reasoning": {"effort": asked.get("reasoning_effort"), "summary": None, **(asked.get("reasoning") or {})},
        "service_tier": said.usage.service_tier if said.usage.service_tier in TIERS else "default",
        "temperature": asked.get("temperature"),
        "text": {"format": _form(call), **(asked.get("text") or {})},
        "tool_choice": asked.get("tool_choice", "auto"),
        "tools": [_tool(tool) for tool in call.tools or ()],
        "top_logprobs": asked.get("top_logprobs", 0),
        "top_p": asked.get("top_p"),
        "truncation": asked.get("truncation", "disabled"),
        "usage": _usage(said.usage),
    }


def _form(call: Call) -> Json:
    if call.schema is None:
        return {"type": "text"}
    return {"type": "json_schema", "name": "answer", "strict": True, "schema": call.schema}


def _tool(tool: Mapping[str, Json]) -> Json:
    """A tool as it is told back, with what clients may leave out."""
    return {"parameters": None, "strict": None, **tool} if tool.get("type") == "function" else tool


def _output(call: Call, said: Completion, name: str, status: str) -> list[Json]:
    calls = [_call(one, name, at, status) for at, one in enumerate(calls_of(said, f"call_{name}"))]
    thought = [] if said.reasoning is None else [_reasoning(said, name)]
    spoken = [_message(call, said, name, status)] if said.text or said.refusal or not calls else []
    return [*thought, *spoken, *calls]


def _reasoning(said: Completion, name: str) -> Json:
    item: dict[str, Any] = {"id": f"rs_{name}", "type": "reasoning", "summary": []}
    if said.trace_kind == "raw":
        return {**item, "content": [{"type": "reasoning_text", "text": said.reasoning}]}
    return {**item, "summary": [{"type": "summary_text", "text": said.reasoning}]}


def _message(call: Call, said: Completion, name: str, status: str) -> Json:
    refused = [{"type": "refusal", "refusal": said.refusal}] if said.refusal else []
    text = "" if said.refusal == said.text else said.text
    parts = [*([_text(call, said)] if text or not refused else []), *refused]
    return {"id": f"msg_{name}", "type": "message", "role": "assistant", "status": status, "content": parts}


def _text(call: Call, said: Completion) -> Json:
    wanted = said.logprobs is not None and "top_logprobs" in call.parameters
    logprobs = list(positions(said.logprobs)) if wanted and said.logprobs is not None else []
    return {"type": "output_text", "text": said.text, "annotations": [], "logprobs": logprobs}


def _call(call: Mapping[str, Any], name: str, at: int, status: str) -> Json:
    function = call["function"]
    return {
        "id": f"fc_{name}_{at}",
        "type": "function_call",
        "status": status,
        "call_id": call["id"],
        "name": function["name"],
        "arguments": function["arguments"],
    }


def _usage(usage: Usage) -> dict[str, Json]:
    into = {"cached_tokens": usage.cached_input_tokens, "cache_write_tokens": usage.cache_write_tokens}
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": into,
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens or 0},
        "total_tokens": usage.total_tokens,
    }
