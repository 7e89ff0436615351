"""Chat completions and completions, written from what a teacher was understood to say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any, Final

import orjson

from corpusgen.records import Completion, FinishReason, Json, TokenLogprobs, Usage
from corpusgen.serve.wires.calls import Call

_FINISH: Final[Mapping[FinishReason, str]] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "content_filter": "content_filter",
    "refusal": "stop",
    "pause": "length",
    "other": "stop",
}
TIERS: Final = frozenset({"auto", "default", "flex", "scale", "priority", "fast"})
"""What OpenAI calls the tiers that answer."""
_NO_LOGPROB: Final = -9999.0
"""What OpenAI writes for a probability that is next to nothing."""
_SIGNED: Final = {"thinking": ("thinking", "signature"), "redacted_thinking": ("data",)}


def chat_answer(call: Call, completions: Sequence[Completion], created: int, name: str) -> dict[str, Json]:
    """A chat completion."""
    return {
        **_head(call, completions[0], created, f"chatcmpl-{name}", "chat.completion"),
        "choices": [_choice(call, at, completion, name) for at, completion in enumerate(completions)],
        "usage": usage_of_chat(completions[0].usage),
    }


def completion_answer(call: Call, completions: Sequence[Completion], created: int, name: str) -> dict[str, Json]:
    """A completion."""
    head = _head(call, completions[0], created, f"cmpl-{name}", "text_completion")
    head.pop("service_tier", None)
    return {
        **head,
        "choices": [_text_choice(at, completion) for at, completion in enumerate(completions)],
        "usage": usage_of_chat(completions[0].usage),
    }


def _head(call: Call, first: Completion, created: int, name: str, kind: str) -> dict[str, Json]:
    head = {"id": name, "object": kind, "created": created, "model": first.model_served or call.model}
    if first.system_fingerprint is not None:
        head["system_fingerprint"] = first.system_fingerprint
    if first.usage.service_tier in TIERS:
        head["service_tier"] = first.usage.service_tier
    return head


def usage_of_chat(usage: Usage) -> dict[str, Json]:
    """Tokens as chat completions count them: what was cached is part of the prompt, thoughts of the completion."""
    into = {"cached_tokens": usage.cached_input_tokens}
    if usage.cache_write_tokens:
        into["cache_write_tokens"] = usage.cache_write_tokens
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": into,
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens or 0},
    }


def _choice(call: Call, at: int, completion: Completion, name: str) -> dict[str, Json]:
    return {
        "index": at,
        "message": _message(completion, f"{name}-{at}"),
        "logprobs": _logprobs(completion.logprobs) if "top_logprobs" in call.parameters else None,
        "finish_reason": _finish(completion),
    }


def _finish(completion: Completion) -> str:
    if completion.tool_calls is not None and completion.finish_reason in ("stop", "other"):
        return "tool_calls"
    if completion.finish_reason == "refusal" and not completion.refusal:
        return "content_filter"  # nothing was said that a client could show
    return _FINISH[completion.finish_reason]


def _message(completion: Completion, name: str) -> dict[str, Json]:
    calls, refusal = calls_of(completion, f"call_{name}"), completion.refusal
    silent = bool(calls) or refusal is not None
    text = "" if refusal == completion.text else completion.text
    message: dict[str, Json] = {"role": "assistant", "content": text or (None if silent else ""), "refusal": refusal}
    if calls:
        message["tool_calls"] = calls
    if completion.reasoning is not None:
        message["reasoning_content"] = completion.reasoning
    if signed := signed_parts(completion):
        message["thinking_blocks"] = signed
    return message


def calls_of(completion: Completion, name: str) -> list[dict[str, Any]]:
    """The calls of tools, each with an id: its own, or one made of a name."""
    if completion.tool_calls is None:
        return []
    calls = [call for call in orjson.loads(completion.tool_calls) if isinstance(call, dict)]
    return [_call(call, f"{name}-{at}") for at, call in enumerate(calls)]


def _call(call: Mapping[str, Json], name: str) -> dict[str, Any]:
    given, called = call.get("id"), call.get("function")
    function = called if isinstance(called, dict) else {}
    arguments = function.get("arguments")
    # Some servers of open models give the arguments as an object.
    words = arguments if isinstance(arguments, str) else orjson.dumps(arguments or {}).decode()
    return {
        "id": given if isinstance(given, str) and given else name,
        "type": "function",
        "function": {"name": str(function.get("name") or ""), "arguments": words},
    }


def signed_parts(completion: Completion) -> list[Json]:
    """The parts of the reasoning that their provider signed, in its own form: those can be sent back to it."""
    if completion.reasoning_parts is None:
        return []
    parts = [part for part in orjson.loads(completion.reasoning_parts) if isinstance(part, dict)]
    return [kept for part in parts if (kept := _signed(part)) is not None]


def _signed(part: Mapping[str, Json]) -> Json:
    kind = part.get("type")
    names = _SIGNED.get(kind) if isinstance(kind, str) else None
    if names is None or not all(isinstance(part.get(name), str) for name in names):
        return None
    return {"type": kind, **{name: part[name] for name in names}}


# --- log-probabilities -----------------------------------------------------------------------------------------------


def _logprobs(logprobs: TokenLogprobs | None) -> Json:
    return None if logprobs is None else {"content": list(positions(logprobs)), "refusal": None}


def positions(logprobs: TokenLogprobs) -> Iterator[dict[str, Json]]:
    """Each token with its runners-up, as chat and responses spell them."""
    starts = accumulate(logprobs.topk_len, initial=0)
    chosen = zip(logprobs.token_bytes, logprobs.token_logprobs, logprobs.topk_len, starts, strict=False)
    for token, value, many, start in chosen:
        ranked = slice(start, start + many)
        pairs = zip(logprobs.topk_bytes[ranked], logprobs.topk_logprobs[ranked], strict=True)
        yield {**_entry(token, value), "top_logprobs": [_entry(other, its) for other, its in pairs]}


def _entry(token: bytes, value: float | None) -> dict[str, Json]:
    return {"token": _spelt(token), "bytes": list(token), "logprob": _NO_LOGPROB if value is None else value}


def _spelt(token: bytes) -> str:
    """A token as text; one that is part of a character as OpenAI spells it."""
    try:
        return token.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in token)


def _text_choice(at: int, completion: Completion) -> dict[str, Json]:
    finish = _finish(completion)
    return {
        "index": at,
        "text": completion.text,
        "logprobs": None if completion.logprobs is None else _text_logprobs(completion.logprobs),
        "finish_reason": finish if finish in ("stop", "length", "content_filter") else "stop",
    }


def _text_logprobs(logprobs: TokenLogprobs) -> dict[str, Json]:
    told = list(positions(logprobs))
    tokens = [position["token"] for position in told]
    return {
        "tokens": tokens,
        "token_logprobs": [position["logprob"] for position in told],
        "top_logprobs": [{one["token"]: one["logprob"] for one in position["top_logprobs"]} for position in told],
        "text_offset": list(accumulate(map(len, tokens), initial=0))[:-1],
    }
