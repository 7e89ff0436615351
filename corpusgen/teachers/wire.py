"""The OpenAI wire format: a request as the bytes to send, a reply as a completion that may be believed.

Everything a server may get wrong on HTTP 200 is checked here and nowhere else; inside, nobody checks again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal, NoReturn

import orjson

from corpusgen.errors import InvalidAnswer, RequestRefused
from corpusgen.records import Completion, FinishReason, Json, Request, TokenLogprobs, TraceKind, Usage

PATHS: Final = {"chat": "/chat/completions", "completion": "/completions"}
"""Where each kind of request goes, after the base URL."""

# What no model bills for one answer; beyond it a count is a fault, not a price.
_MOST_TOKENS: Final = 1_000_000_000
# llama.cpp and vLLM write -9999 or the lowest float where a probability is 0 or was not computed.
_NO_LOGPROB: Final = -9999.0
# A server's single-precision softmax may pass 1 by a rounding error, and by no more.
_ROUNDING: Final = 0.01

_LONGEST_NAME: Final = 200

_FINISH: Final[dict[str, FinishReason]] = {
    "stop": "stop",
    "eos_token": "stop",
    "stop_sequence": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
    "refusal": "refusal",
}


def request_body(request: Request) -> bytes:
    """The JSON a server is sent. Raises RequestRefused for what this wire format cannot say."""
    body: dict[str, Json] = {"model": request.model, **request.parameters}
    if request.api == "completion":
        _completion(request, body)
    else:
        _chat(request, body)
    return orjson.dumps(body)


def _chat(request: Request, body: dict[str, Json]) -> None:
    body["messages"] = [{"role": message.role, "content": message.content} for message in request.messages]
    if "top_logprobs" in body:
        body["logprobs"] = True
    if request.tools is not None:
        body["tools"] = request.tools
    if request.schema is not None:
        schema = {"name": "answer", "strict": True, "schema": request.schema}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}


def _completion(request: Request, body: dict[str, Json]) -> None:
    roles = [message.role for message in request.messages]
    if roles != ["user"]:
        raise RequestRefused(f"a completion continues one user message, found roles {roles}; write api: chat")
    if request.tools is not None or request.schema is not None:
        raise RequestRefused("a completion takes neither tools nor a schema; write api: chat")
    body["prompt"] = request.messages[0].content
    if "top_logprobs" in body:
        body["logprobs"] = body.pop("top_logprobs")


def read_completion(
    body: bytes, *, api: Literal["chat", "completion"], request_id: str | None = None, tokenizer: str | None = None
) -> Completion:
    """The answer in the body of an HTTP 200. Raises InvalidAnswer saying what was found instead."""
    reply = _object(body)
    choice = _only_choice(reply)
    finish = _finish_reason(choice)
    usage = _usage(reply.get("usage"), _text_or_none(reply, "service_tier"))
    logprobs = _logprobs(choice.get("logprobs"), tokenizer)
    served, name = _name_or_none(reply, "model"), request_id or _name_or_none(reply, "id")
    if api == "completion":
        text = _text(choice.get("text"), "text")
        return Completion(
            text=text,
            finish_reason=finish,
            usage=usage,
            logprobs=logprobs,
            model_served=served,
            provider_request_id=name,
        )
    message = _mapping(choice.get("message"), "message")
    reasoning, trace_kind = _reasoning(message)
    text, finish = _content(message, finish, reasoning)
    return Completion(
        text=text,
        finish_reason=finish,
        usage=usage,
        reasoning=reasoning,
        trace_kind=trace_kind,
        logprobs=logprobs,
        tool_calls=_tool_calls(message),
        model_served=served,
        provider_request_id=name,
    )


def _object(body: bytes) -> dict[str, Any]:
    try:
        reply = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidAnswer(f"the answer is not JSON ({error}); it begins {shown(body)}") from error
    if not isinstance(reply, dict):
        _invalid("an object", reply)
    if reply.get("error"):
        raise InvalidAnswer(f"HTTP 200 with an error: {shown(orjson.dumps(reply['error']))}")
    return reply


def _only_choice(reply: dict[str, Any]) -> dict[str, Any]:
    choices = reply.get("choices")
    if not isinstance(choices, list):
        _invalid("a list of choices", choices)
    if len(choices) != 1:
        raise InvalidAnswer(f"exactly one choice is needed, found {len(choices)}")
    return _mapping(choices[0], "choice")


def _finish_reason(choice: dict[str, Any]) -> FinishReason:
    reason = choice.get("finish_reason")
    if not isinstance(reason, str) or reason not in _FINISH:
        _invalid(f"a finish_reason out of {', '.join(_FINISH)}", reason)
    return _FINISH[reason]


def _content(message: dict[str, Any], finish: FinishReason, reasoning: str | None) -> tuple[str, FinishReason]:
    refusal = message.get("refusal")
    if isinstance(refusal, str) and refusal:
        return refusal, "refusal"
    content = message.get("content")
    text = "" if content is None else _text(content, "content")
    lacking = finish == "stop" or (finish == "length" and content is None and reasoning is None)
    if not text and lacking and not message.get("tool_calls"):
        _invalid(f"content (finish_reason is {finish!r})", content)
    return text, finish


def _reasoning(message: dict[str, Any]) -> tuple[str | None, TraceKind | None]:
    trace = message.get("reasoning_content") or message.get("reasoning")
    details = message.get("reasoning_details")
    kinds = {part.get("type") for part in details if isinstance(part, dict)} if isinstance(details, list) else set()
    if not trace:
        return None, "encrypted" if "reasoning.encrypted" in kinds else None
    # OpenRouter puts a provider's summary into the field others use for the trace itself; only the details tell.
    return _text(trace, "reasoning"), "summary" if "reasoning.summary" in kinds else "raw"


def _tool_calls(message: dict[str, Any]) -> str | None:
    calls = message.get("tool_calls")
    if not calls:
        return None
    if not isinstance(calls, list):
        _invalid("a list of tool_calls", calls)
    return orjson.dumps(calls).decode()


def _usage(value: Json, service_tier: str | None) -> Usage:
    usage = _mapping(value, "usage")
    given = _tokens(usage, "prompt_tokens")
    answered = max(_tokens(usage, "completion_tokens"), _beyond_input(usage, given))
    cached = _detail(usage, "prompt_tokens_details", "cached_tokens") or 0
    written = _detail(usage, "prompt_tokens_details", "cache_write_tokens") or 0
    reasoning = _detail(usage, "completion_tokens_details", "reasoning_tokens")
    lasting = _lasting_writes(usage)
    if cached + written > given or lasting > written or (reasoning or 0) > answered:
        raise InvalidAnswer(f"usage contradicts itself: {shown(orjson.dumps(usage))}")
    return Usage(
        input_tokens=given,
        output_tokens=answered,
        cached_input_tokens=cached,
        reasoning_tokens=reasoning,
        cache_write_tokens=written,
        cache_write_1h_tokens=lasting,
        service_tier=service_tier or _text_or_none(usage, "service_tier"),
    )


def _beyond_input(usage: dict[str, Any], given: int) -> int:
    """Tokens the total holds besides the input: some leave thoughts out of completion_tokens, none out of the bill."""
    known = given and usage.get("total_tokens") is not None
    return max(0, _tokens(usage, "total_tokens") - given) if known else 0


def _lasting_writes(usage: dict[str, Any]) -> int:
    """Cache writes kept for an hour or longer, out of those a server lists by their time to live."""
    details = usage.get("prompt_tokens_details")
    listed = None if details is None else _mapping(details, "prompt_tokens_details").get("cache_write_tokens_details")
    if listed is None:
        return 0
    by_life = _mapping(listed, "cache_write_tokens_details")
    return sum(_tokens(by_life, name) for name in by_life if name.startswith("ttl_") and name.endswith("h"))


def _detail(usage: dict[str, Any], group: str, name: str) -> int | None:
    details = usage.get(group)
    if details is None or _mapping(details, group).get(name) is None:
        return None
    return _tokens(details, name)


def _tokens(counts: dict[str, Any], name: str) -> int:
    number = counts.get(name)
    if type(number) is not int or not 0 <= number <= _MOST_TOKENS:
        _invalid(f"a count of tokens in usage.{name}", number)
    return number


# --- log-probabilities -----------------------------------------------------------------------------------------------


def _logprobs(value: Json, tokenizer: str | None) -> TokenLogprobs | None:
    if value is None:
        return None
    try:
        if "content" in value:
            return _chat_logprobs(value["content"], tokenizer) if value["content"] else None
        return _legacy_logprobs(value, tokenizer) if value["tokens"] else None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidAnswer(f"logprobs have an unknown shape ({error!r}): {shown(_dumped(value))}") from error


def _chat_logprobs(content: list[dict[str, Any]], tokenizer: str | None) -> TokenLogprobs:
    ranked = [token.get("top_logprobs") or () for token in content]
    runners_up = [entry for entries in ranked for entry in entries]
    return TokenLogprobs(
        token_bytes=_token_bytes(content),
        token_ids=_token_ids(content),
        token_logprobs=_values([token.get("logprob") for token in content]),
        topk_bytes=_token_bytes(runners_up),
        topk_ids=_token_ids(runners_up),
        topk_logprobs=_values([entry.get("logprob") for entry in runners_up]),
        topk_len=tuple(map(len, ranked)),
        tokenizer=tokenizer,
    )


def _legacy_logprobs(value: dict[str, Any], tokenizer: str | None) -> TokenLogprobs:
    tokens = value["tokens"]
    chosen = value.get("token_logprobs") or [None] * len(tokens)
    ranked = [entries or {} for entries in value.get("top_logprobs") or [None] * len(tokens)]
    if not len(tokens) == len(chosen) == len(ranked):
        raise InvalidAnswer(f"logprobs of {len(tokens)} tokens have {len(chosen)} values and {len(ranked)} rankings")
    return TokenLogprobs(
        token_bytes=tuple(map(_legacy_bytes, tokens)),
        token_ids=None,
        token_logprobs=_values(chosen),
        topk_bytes=tuple(_legacy_bytes(token) for entries in ranked for token in entries),
        topk_ids=None,
        topk_logprobs=_values([logprob for entries in ranked for logprob in entries.values()]),
        topk_len=tuple(map(len, ranked)),
        tokenizer=tokenizer,
    )


def _token_bytes(entries: Sequence[dict[str, Any]]) -> tuple[bytes, ...]:
    given = [entry.get("bytes") for entry in entries]
    # bytes(5) would be five zeros and bytes(10**12) all memory: only lists of numbers are spelt out.
    return tuple(
        [
            bytes(spelt) if type(spelt) is list else entry["token"].encode()
            for entry, spelt in zip(entries, given, strict=True)
        ]
    )


def _legacy_bytes(token: str) -> bytes:
    # OpenAI's completions spell a token that is not UTF-8 as "bytes:\xe2\x80".
    if token.startswith("bytes:\\x"):
        return bytes.fromhex(token.removeprefix("bytes:").replace("\\x", ""))
    return token.encode()


def _token_ids(entries: Sequence[dict[str, Any]]) -> tuple[int, ...] | None:
    ids = [entry.get("id") for entry in entries]
    return tuple(ids) if ids and set(map(type, ids)) == {int} else None  # type: ignore[arg-type]  # all are int


def _values(values: Sequence[Json]) -> tuple[float | None, ...]:
    kinds = set(map(type, values))
    if not kinds <= {float, int, type(None)}:
        raise TypeError("a log-probability is not a number")
    known = [value for value in values if value is not None] if type(None) in kinds else values
    # JSON as orjson reads it has neither NaN nor infinity, so comparing is enough.
    if known and max(known) > _ROUNDING:
        raise ValueError(f"a log-probability of {max(known)}")
    if kinds == {float} and min(known) > _NO_LOGPROB:
        return tuple(values)
    return tuple([None if value is None or value <= _NO_LOGPROB else float(value) for value in values])


# --- what was found instead ------------------------------------------------------------------------------------------


def shown(raw: bytes | str, limit: int = 200) -> str:
    """The beginning of a foreign text, on one line and without control characters, for a message."""
    text = raw[: limit * 4].decode(errors="replace") if isinstance(raw, bytes) else raw
    clean = "".join(character if character.isprintable() else " " for character in text)
    line = " ".join(clean.split())
    return repr(line if len(line) <= limit else line[: limit - 1] + "…")


def _mapping(value: Json, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        _invalid(f"an object as {name}", value)
    return value


def _text(value: Json, name: str) -> str:
    if not isinstance(value, str):
        _invalid(f"text as {name}", value)
    return value


def _text_or_none(reply: dict[str, Any], name: str) -> str | None:
    value = reply.get(name)
    return value if isinstance(value, str) and value else None


def _name_or_none(reply: dict[str, Any], name: str) -> str | None:
    """A name fit for a record; what is no name, or would drive a terminal, is none."""
    value = _text_or_none(reply, name)
    return value if value is not None and len(value) <= _LONGEST_NAME and value.isprintable() else None


def _dumped(value: Json) -> bytes:
    return orjson.dumps(value)


def _invalid(needed: str, found: Json) -> NoReturn:
    raise InvalidAnswer(f"the answer needs {needed}, found {shown(_dumped(found))}")
