"""OpenAI's Responses: a request as the bytes to send, a reply as a completion that may be believed.

``store: false`` is always sent: the default would leave prompts and answers with the provider for a month.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Final

import orjson

from corpusgen.errors import RequestRefused
from corpusgen.records import Completion, FinishReason, Json, Request, TokenLogprobs, TraceKind, Usage
from corpusgen.teachers.turns import turns_of
from corpusgen.teachers.wire import (
    chat_logprobs,
    check_usage,
    count_if_given,
    finish_of,
    invalid,
    lasting_writes,
    logprobs_or_none,
    mapping,
    name_or_none,
    reply_object,
    text_of,
    text_or_none,
    usage_or_uncounted,
)

_LOGPROBS: Final = "message.output_text.logprobs"
_ENCRYPTED: Final = "reasoning.encrypted_content"
_INCOMPLETE: Final[dict[str, FinishReason]] = {"max_output_tokens": "length", "content_filter": "content_filter"}
_NO_ANSWER: Final = ("failed", "cancelled", "queued", "in_progress")


def responses_body(request: Request, *, reasons: bool = False) -> bytes:
    """The JSON a server is sent. ``reasons`` asks for the encrypted trace, which only models that reason can give."""
    body: dict[str, Json] = {"model": request.model, **request.parameters, "store": False}
    body["input"] = turns_of(request)
    if "max_tokens" in body:
        body["max_output_tokens"] = body.pop("max_tokens")
    if "reasoning_effort" in body:
        body["reasoning"] = {"effort": body.pop("reasoning_effort"), **(body.get("reasoning") or {})}
    wanted = [_LOGPROBS] if "top_logprobs" in body else []
    wanted += [_ENCRYPTED] if reasons else []
    if wanted:
        body["include"] = list(dict.fromkeys([*(body.get("include") or ()), *wanted]))
    if request.schema is not None:
        form = {"type": "json_schema", "name": "answer", "strict": True, "schema": request.schema}
        body["text"] = {**(body.get("text") or {}), "format": form}
    if request.tools is not None:
        body["tools"] = [_flat(tool) for tool in request.tools]
    if "tool_choice" in body:
        body["tool_choice"] = _flat(body["tool_choice"])
    return orjson.dumps(body)


def _flat(tool: Json) -> Json:
    """A function as Responses spells it: its fields beside ``type``, not inside ``function``."""
    if isinstance(tool, dict) and isinstance(tool.get("function"), dict):
        return {"type": "function", **tool["function"]}
    return tool


def read_response(body: bytes, *, request_id: str | None = None, tokenizer: str | None = None) -> Completion:
    """The answer in the body of an HTTP 200. Raises InvalidAnswer saying what was found instead."""
    reply = reply_object(body)
    finish = _finish(reply)
    items = [item for item in _list(reply.get("output"), "output") if isinstance(item, dict)]
    parts = _parts(items)
    refusal = "".join(text_of(part.get("refusal"), "refusal") for part in parts if part.get("type") == "refusal")
    text = "".join(text_of(part.get("text"), "text") for part in parts if part.get("type") == "output_text")
    calls = [_call(item) for item in items if item.get("type") == "function_call"]
    if finish == "stop":
        finish = "refusal" if refusal else "tool_calls" if calls else "stop"
    usage = _usage(reply.get("usage"), text_or_none(reply, "service_tier"))
    thoughts = [item for item in items if item.get("type") == "reasoning"]
    reasoning, kind = _reasoning(thoughts)
    return Completion(
        text=refusal if finish == "refusal" else text,
        finish_reason=finish,
        usage=usage,
        reasoning=reasoning,
        trace_kind=kind or ("omitted" if usage.reasoning_tokens else None),
        reasoning_parts=orjson.dumps(thoughts).decode() if thoughts else None,
        refusal=refusal or None,
        logprobs=logprobs_or_none(partial(_logprobs, parts, tokenizer)),
        tool_calls=orjson.dumps(calls).decode() if calls else None,
        model_served=name_or_none(reply, "model"),
        provider_request_id=request_id or name_or_none(reply, "id"),
        system_fingerprint=name_or_none(reply, "system_fingerprint"),
        upstream=name_or_none(reply, "provider"),
    )


def check_sendable(request: Request) -> None:
    """Raise RequestRefused for what Responses cannot be asked."""
    if "n" in request.parameters:
        raise RequestRefused("Responses give one answer a call; leave n out")


def _finish(reply: dict[str, Any]) -> FinishReason:
    status = reply.get("status")
    if status == "completed":
        return "stop"
    if status in _NO_ANSWER:
        invalid("status completed or incomplete", status)
    details = reply.get("incomplete_details")
    return finish_of(_INCOMPLETE, details.get("reason") if isinstance(details, dict) else None)


def _list(value: Json, name: str) -> list[Any]:
    if not isinstance(value, list):
        invalid(f"a list as {name}", value)
    return value


def _parts(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the messages hold; notes on the way to the answer only if there is nothing else."""
    messages = [item for item in items if item.get("type") == "message"]
    final = [message for message in messages if message.get("phase") != "commentary"] or messages
    every = [part for message in final for part in _list(message.get("content"), "content")]
    return [mapping(part, "content") for part in every]


def _call(item: dict[str, Any]) -> dict[str, Json]:
    function = {"name": text_of(item.get("name"), "name"), "arguments": text_of(item.get("arguments"), "arguments")}
    return {"id": text_or_none(item, "call_id"), "type": "function", "function": function}


def _reasoning(items: list[dict[str, Any]]) -> tuple[str | None, TraceKind | None]:
    for field, kind in (("content", "raw"), ("summary", "summary")):
        listed = [found for item in items if isinstance(found := item.get(field), list)]
        texts = [part.get("text") for parts in listed for part in parts if isinstance(part, dict)]
        if text := "\n\n".join(one for one in texts if isinstance(one, str) and one):
            return text, "raw" if kind == "raw" else "summary"
    if any(item.get("encrypted_content") for item in items):
        return None, "encrypted"
    return None, "omitted" if items else None


def _logprobs(parts: list[dict[str, Any]], tokenizer: str | None) -> TokenLogprobs | None:
    given = [entry for part in parts for entry in part.get("logprobs") or ()]
    return chat_logprobs(given, tokenizer) if given else None


def _usage(value: Json, service_tier: str | None) -> Usage:
    return usage_or_uncounted(value, service_tier, partial(_counted, service_tier=service_tier))


def _counted(usage: dict[str, Any], service_tier: str | None) -> Usage:
    given, answered = count_if_given(usage, "input_tokens"), count_if_given(usage, "output_tokens")
    details = mapping(usage.get("input_tokens_details") or {}, "input_tokens_details")
    cached, written = count_if_given(details, "cached_tokens") or 0, count_if_given(details, "cache_write_tokens") or 0
    reasoning = count_if_given(
        mapping(usage.get("output_tokens_details") or {}, "output_tokens_details"), "reasoning_tokens"
    )
    lasting = lasting_writes(details)
    check_usage(usage, given, answered, cached=cached, written=written, lasting=lasting, reasoning=reasoning)
    return Usage(
        input_tokens=given or 0,
        output_tokens=answered or 0,
        cached_input_tokens=cached,
        reasoning_tokens=reasoning,
        cache_write_tokens=written,
        cache_write_1h_tokens=lasting,
        service_tier=service_tier,
        counted=given is not None and answered is not None,
    )
