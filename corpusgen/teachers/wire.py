"""OpenAI's chat and completions: a request as the bytes to send, a reply as completions that may be believed.

Everything a server may get wrong on HTTP 200 is checked here, and in ``responses_wire`` and ``messages_wire`` for the
other two formats; inside, nobody checks again. Reading is pure: the same bytes read the same at any later time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, Decimal
from functools import partial
from typing import Any, Final, Literal, NoReturn

import orjson

from corpusgen.errors import InvalidAnswer, RequestRefused
from corpusgen.records import Api, Completion, FinishReason, Json, Request, TokenLogprobs, TraceKind, Usage
from corpusgen.teachers.turns import said_plainly, turns_of

PATHS: Final[Mapping[Api, str]] = {
    "chat": "/chat/completions",
    "completion": "/completions",
    "responses": "/responses",
    "messages": "/messages",
}
"""Where each kind of request goes, after the base URL."""

# What no model bills for one answer; beyond it a count counts nothing.
_MOST_TOKENS: Final = 1_000_000_000
_MOST_DOLLARS: Final = 1_000_000
# llama.cpp and vLLM write -9999 or the lowest float where a probability is 0 or was not computed.
_NO_LOGPROB: Final = -9999.0
# A server's single-precision softmax may pass 1 by a rounding error, and by no more.
_ROUNDING: Final = 0.01

# What a record's column holds; no vocabulary is larger.
_LARGEST_ID: Final = 2**31 - 1

_LONGEST_NAME: Final = 200

_MORE: Final = ("refusal", "reasoning_content", "reasoning", "reasoning_details", "thinking_blocks", "tool_calls")
"""What a message may say besides its text."""

_HOURS: Final = re.compile(r"ttl_\d+h(_tokens)?")

_FINISH: Final[dict[str, FinishReason]] = {
    "stop": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "length": "length",
    "max_tokens": "length",
    "model_length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
    "refusal": "refusal",
}


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """What one server calls otherwise than OpenAI's chat completions do."""

    max_tokens: str = "max_tokens"
    seed: str = "seed"
    schema: Literal["json_schema", "json_object", "none"] = "json_schema"
    """``json_object``: the server promises JSON, not which; ``none``: the prompt must ask for it."""
    logprobs: Literal["top_logprobs", "number"] = "top_logprobs"
    """``number``: ``logprobs`` itself is how many runners-up are wanted."""
    body: Mapping[str, Json] = field(default_factory=dict)
    """Sent with every request."""
    trace: TraceKind = "raw"
    """What its reasoning field holds."""
    cost_is_bill: bool = False
    """``usage.cost`` is what is charged, in dollars."""
    reasons: bool = False
    """The model is known to reason, so its trace is asked for where that has to be said."""
    stream_usage: bool = True
    """A stream may be asked to end with its usage; elsewhere it does so by itself, or nobody counts."""


PLAIN: Final = Dialect()


def request_body(request: Request, dialect: Dialect = PLAIN) -> bytes:
    """The JSON a server is sent. Raises RequestRefused for what this wire format cannot say."""
    body: dict[str, Json] = {"model": request.model, **request.parameters}
    if request.api == "completion":
        _completion(request, body)
    else:
        _chat(request, body, dialect)
    if dialect is not PLAIN:
        _spell(body, dialect)
    return orjson.dumps(body)


def _chat(request: Request, body: dict[str, Json], dialect: Dialect) -> None:
    body["messages"] = turns_of(request)
    if "top_logprobs" in body:
        body["logprobs"] = True if dialect.logprobs == "top_logprobs" else body.pop("top_logprobs")
    if request.tools is not None:
        body["tools"] = request.tools
    if request.schema is not None and dialect.schema == "json_schema":
        schema = {"name": "answer", "strict": True, "schema": request.schema}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    elif request.schema is not None and dialect.schema == "json_object":
        body["response_format"] = {"type": "json_object"}


def _spell(body: dict[str, Json], dialect: Dialect) -> None:
    for ours, theirs in (("max_tokens", dialect.max_tokens), ("seed", dialect.seed)):
        if ours != theirs and ours in body:
            body[theirs] = body.pop(ours)
    for name, value in dialect.body.items():
        body.setdefault(name, value)


def _completion(request: Request, body: dict[str, Json]) -> None:
    roles = [message.role for message in request.messages]
    if roles != ["user"]:
        raise RequestRefused(f"a completion continues one user message, found roles {roles}; write api: chat")
    if request.tools is not None or request.schema is not None:
        raise RequestRefused("a completion takes neither tools nor a schema; write api: chat")
    body["prompt"] = said_plainly(request, "a completion").messages[0].content
    if "top_logprobs" in body:
        body["logprobs"] = body.pop("top_logprobs")


def read_completion(
    body: bytes,
    *,
    api: Literal["chat", "completion"],
    request_id: str | None = None,
    tokenizer: str | None = None,
    dialect: Dialect = PLAIN,
) -> Completion:
    """The one answer in the body of an HTTP 200. Raises InvalidAnswer saying what was found instead."""
    return read_choices(body, api=api, request_id=request_id, tokenizer=tokenizer, dialect=dialect)[0]


def read_choices(
    body: bytes,
    *,
    api: Literal["chat", "completion"],
    most: int = 1,
    request_id: str | None = None,
    tokenizer: str | None = None,
    dialect: Dialect = PLAIN,
) -> tuple[Completion, ...]:
    """The answers in the body of an HTTP 200, one or up to as many as were asked for.

    Of several, those that cannot be read or are too many are left out; the others are paid for and good. Raises
    InvalidAnswer.
    """
    reply = reply_object(body)
    choices, surplus = _choices(reply, most)
    whole: dict[str, Any] = {
        "usage": _usage(reply.get("usage"), text_or_none(reply, "service_tier"), dialect),
        "model_served": name_or_none(reply, "model"),
        "provider_request_id": request_id or name_or_none(reply, "id"),
        "system_fingerprint": name_or_none(reply, "system_fingerprint"),
        "upstream": name_or_none(reply, "provider"),
    }
    if surplus:
        whole["surplus"] = surplus
    read = _read_text if api == "completion" else _read_message
    if len(choices) == 1:
        return (read(choices[0], 0, whole, tokenizer, dialect),)
    return readable([partial(read, choice, at, whole, tokenizer, dialect) for at, choice in enumerate(choices)])


def readable(reads: Sequence[Callable[[], Completion]]) -> tuple[Completion, ...]:
    """What can be read of several answers. Raises the first InvalidAnswer if nothing can."""
    found: list[Completion] = []
    failures: list[InvalidAnswer] = []
    for read in reads:
        try:
            found.append(read())
        except InvalidAnswer as error:
            failures.append(error)
    if not found:
        raise failures[0]
    return tuple(found)


def _read_text(given: Json, index: int, whole: dict[str, Any], tokenizer: str | None, dialect: Dialect) -> Completion:
    choice = mapping(given, "choice")
    finish = _finish_reason(choice)
    return Completion(
        text=text_of(choice.get("text"), "text"),
        finish_reason=finish,
        logprobs=_logprobs_of(choice, tokenizer),
        choice_index=index,
        **whole,
    )


def _read_message(
    given: Json, index: int, whole: dict[str, Any], tokenizer: str | None, dialect: Dialect
) -> Completion:
    choice = mapping(given, "choice")
    finish = _finish_reason(choice)
    message = mapping(choice.get("message"), "message")
    says_more = any(map(message.get, _MORE)) or message.get("function_call") is not None
    if type(text := message.get("content")) is str and not says_more:  # most answers
        return Completion(
            text=text,
            finish_reason=finish,
            trace_kind="omitted" if whole["usage"].reasoning_tokens else None,
            refusal=text if finish == "refusal" else None,
            logprobs=_logprobs_of(choice, tokenizer),
            choice_index=index,
            **whole,
        )
    reasoning, trace_kind, parts = _reasoning(message, dialect)
    if trace_kind is None and whole["usage"].reasoning_tokens:
        trace_kind = "omitted"
    text, finish = _content(message, finish)
    return Completion(
        text=text,
        finish_reason=finish,
        reasoning=reasoning,
        trace_kind=trace_kind,
        reasoning_parts=parts,
        refusal=text if finish == "refusal" else None,
        logprobs=_logprobs_of(choice, tokenizer),
        tool_calls=_tool_calls(message),
        choice_index=index,
        **whole,
    )


def reply_object(body: bytes) -> dict[str, Any]:
    """The JSON object in a body, if it is one and no error."""
    try:
        reply = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidAnswer(f"the answer is not JSON ({error}); it begins {shown(body)}") from error
    if not isinstance(reply, dict):
        invalid("an object", reply)
    if reply.get("error"):
        raise InvalidAnswer(f"HTTP 200 with an error: {shown(orjson.dumps(reply['error']))}")
    return reply


def _choices(reply: dict[str, Any], most: int) -> tuple[list[Any], int]:
    """The choices that were asked for, and how many there are beyond them."""
    choices = reply.get("choices")
    if not isinstance(choices, list):
        invalid("a list of choices", choices)
    if len(choices) == 1:
        return choices, 0
    if not choices or most == 1:
        wanted = "exactly one choice is" if most == 1 else f"between 1 and {most} choices are"
        raise InvalidAnswer(f"{wanted} needed, found {len(choices)}")
    return choices[:most], max(0, len(choices) - most)


def _finish_reason(choice: dict[str, Any]) -> FinishReason:
    if choice.get("error"):
        raise InvalidAnswer(f"a choice with an error: {shown(_dumped(choice['error']))}")
    return finish_of(_FINISH, choice.get("finish_reason"))


def finish_of(known: Mapping[str, FinishReason], reason: Json) -> FinishReason:
    """Why an answer ended, in our words. One we do not know ends a paid answer all the same, unless it is a failure."""
    word = reason.lower() if isinstance(reason, str) else ""
    if word == "error":
        invalid("an answer that did not end in an error", reason)
    return known.get(word, "other")


def _content(message: dict[str, Any], finish: FinishReason) -> tuple[str, FinishReason]:
    refusal = message.get("refusal")
    if isinstance(refusal, str) and refusal:
        return refusal, "refusal"
    content = message.get("content")
    return "" if content is None else _joined(content), finish


def _joined(content: Json) -> str:
    """The text of a message; Mistral's reasoning models write a list of parts instead."""
    if type(content) is list and all(isinstance(part, dict) for part in content):
        return "".join(text_of(part.get("text"), "text") for part in content if part.get("type") == "text")
    return text_of(content, "content")


def _reasoning(message: dict[str, Any], dialect: Dialect) -> tuple[str | None, TraceKind | None, str | None]:
    """The trace, of which kind it is, and its parts as they came where they came in parts."""
    given = message.get("reasoning_content") or message.get("reasoning")
    details = message.get("reasoning_details") or message.get("thinking_blocks")
    trace = given if isinstance(given, str) else None
    parts = [part for part in details if isinstance(part, dict)] if isinstance(details, list) else []
    if not trace and not parts:
        thought = _thought(message.get("content"))
        return (thought, dialect.trace, None) if thought else (None, None, None)
    kinds = {str(part.get("type")) for part in parts}
    kept = orjson.dumps(parts).decode() if parts else None
    if not trace:
        hidden = not kinds.isdisjoint({"reasoning.encrypted", "redacted_thinking"})
        return None, "encrypted" if hidden else None, kept
    # An aggregator puts a provider's summary into the field others use for the trace itself; only the parts tell.
    # LiteLLM's thinking blocks are Claude's, whose text has been a summary since Claude 4.
    summary = not kinds.isdisjoint({"reasoning.summary", "thinking"})
    return trace, "summary" if summary else dialect.trace, kept


def _thought(content: Json) -> str | None:
    """What Mistral's reasoning models put among the parts of the content."""
    if type(content) is not list:
        return None
    chunks = [part.get("thinking") for part in content if isinstance(part, dict) and part.get("type") == "thinking"]
    texts = [chunk.get("text") for inner in chunks if type(inner) is list for chunk in inner if isinstance(chunk, dict)]
    return "".join(text for text in texts if isinstance(text, str)) or None


def _tool_calls(message: dict[str, Any]) -> str | None:
    calls = message.get("tool_calls")
    if not calls:
        old = message.get("function_call")
        return orjson.dumps([{"type": "function", "function": old}]).decode() if isinstance(old, dict) else None
    if not isinstance(calls, list):
        invalid("a list of tool_calls", calls)
    return orjson.dumps(calls).decode()


def usage_or_uncounted(value: Json, service_tier: str | None, read: Callable[[dict[str, Any]], Usage]) -> Usage:
    """The tokens of a call, or that nobody counted them: impossible figures are not believed, and cost no answer."""
    try:
        return read(mapping(value, "usage"))
    except InvalidAnswer:
        return _uncounted(service_tier)


def _uncounted(service_tier: str | None) -> Usage:
    return Usage(input_tokens=0, output_tokens=0, service_tier=service_tier, counted=False)


def _usage(value: Json, service_tier: str | None, dialect: Dialect) -> Usage:
    """The tokens of a call. What the server does not say at all is nought and not counted; what it says must fit."""
    try:
        return _counted(mapping(value, "usage"), service_tier, dialect)
    except InvalidAnswer:
        return _uncounted(service_tier)


def _counted(usage: dict[str, Any], service_tier: str | None, dialect: Dialect) -> Usage:
    given, said = count_if_given(usage, "prompt_tokens"), count_if_given(usage, "completion_tokens")
    answered = _answered(usage, given or 0, said or 0)
    into, out_of = _details(usage, "prompt_tokens_details"), _details(usage, "completion_tokens_details")
    cached = count_if_given(into, "cached_tokens") or 0
    written = count_if_given(into, "cache_write_tokens") or 0
    reasoning = count_if_given(out_of, "reasoning_tokens")
    lasting = lasting_writes(into)
    counted = given is not None and said is not None
    if cached or written or lasting or reasoning:  # parts that are nought contradict no whole
        output = None if said is None else answered
        check_usage(usage, given, output, cached=cached, written=written, lasting=lasting, reasoning=reasoning)
    return Usage(
        input_tokens=given or 0,
        output_tokens=answered,
        cached_input_tokens=cached,
        reasoning_tokens=reasoning,
        cache_write_tokens=written,
        cache_write_1h_tokens=lasting,
        service_tier=service_tier or text_or_none(usage, "service_tier"),
        counted=counted,
        # A bill without counts may be one for something else than these tokens.
        billed_microusd=_billed(usage) if dialect.cost_is_bill and counted else None,
    )


def check_usage(
    usage: Json,
    given: int | None,
    answered: int | None,
    *,
    cached: int = 0,
    written: int = 0,
    lasting: int = 0,
    reasoning: int | None = None,
) -> None:
    """Raise InvalidAnswer if parts are more than their whole; a whole nobody told contradicts nothing."""
    too_much_input = given is not None and cached + written > given
    too_much_output = answered is not None and (reasoning or 0) > answered
    if too_much_input or too_much_output or lasting > written:
        raise InvalidAnswer(f"usage contradicts itself: {shown(orjson.dumps(usage))}")


def _billed(usage: dict[str, Any]) -> int | None:
    """What is charged; with a key of one's own at the provider behind, that provider's bill comes on top."""
    cost = _microusd(usage.get("cost"))
    if cost is None or not usage.get("is_byok"):
        return cost
    details = usage.get("cost_details")
    upstream = _microusd(details.get("upstream_inference_cost") if isinstance(details, dict) else None)
    return None if upstream is None else cost + upstream


def _microusd(cost: Json) -> int | None:
    """Dollars as micro-dollars, rounded up; None for what is no price."""
    if type(cost) not in (int, float) or not 0 <= cost <= _MOST_DOLLARS:
        return None
    return int((Decimal(str(cost)) * 1_000_000).to_integral_value(ROUND_CEILING))


def count_if_given(usage: dict[str, Any], name: str) -> int | None:
    """A count of tokens, or None where there is none. Raises InvalidAnswer for what is no count."""
    number = usage.get(name)
    if type(number) is int and 0 <= number <= _MOST_TOKENS:
        return number
    return None if number is None else count_of(usage, name)


def _answered(usage: dict[str, Any], given: int, said: int) -> int:
    """What the total holds besides the input, if it is more: some leave thoughts out of what they say was answered."""
    total = count_if_given(usage, "total_tokens") if given else None
    return said if total is None or total - given < said else total - given


def lasting_writes(details: dict[str, Any]) -> int:
    """Cache writes kept for an hour or longer, out of those that the details of the input list by their life."""
    listed = details.get("cache_write_tokens_details")
    if listed is None:
        return 0
    by_life = mapping(listed, "cache_write_tokens_details")
    return sum(count_of(by_life, name) for name in by_life if _HOURS.fullmatch(name))


def _details(usage: dict[str, Any], group: str) -> dict[str, Any]:
    details = usage.get(group)
    return {} if details is None else details if type(details) is dict else mapping(details, group)


def count_of(counts: dict[str, Any], name: str) -> int:
    """A number of tokens that can be one."""
    number = counts.get(name)
    if type(number) is int and 0 <= number <= _MOST_TOKENS:
        return number
    if type(number) is float and number <= _MOST_TOKENS and number.is_integer():
        number = int(number)
    if type(number) is not int or not 0 <= number <= _MOST_TOKENS:
        invalid(f"a count of tokens in usage.{name}", number)
    return number


# --- log-probabilities -----------------------------------------------------------------------------------------------


def logprobs_or_none(read: Callable[[], TokenLogprobs | None]) -> TokenLogprobs | None:
    """Log-probabilities, or None for what cannot be some: the answer they came with is whole without them."""
    try:
        return read()
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _logprobs_of(choice: dict[str, Any], tokenizer: str | None) -> TokenLogprobs | None:
    given = choice.get("logprobs")
    return None if given is None else logprobs_or_none(partial(_logprobs, given, tokenizer))


def _logprobs(value: Json, tokenizer: str | None) -> TokenLogprobs | None:
    if "content" in value:
        return chat_logprobs(value["content"], tokenizer) if value["content"] else None
    return _legacy_logprobs(value, tokenizer) if value["tokens"] else None


def chat_logprobs(content: list[dict[str, Any]], tokenizer: str | None) -> TokenLogprobs:
    """Log-probabilities in the shape of chat and responses, one entry a token."""
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
        raise ValueError(f"logprobs of {len(tokens)} tokens have {len(chosen)} values and {len(ranked)} rankings")
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
    if not ids or set(map(type, ids)) != {int}:
        return None
    numbers: list[int] = ids  # type: ignore[assignment]  # all are int
    return tuple(numbers) if min(numbers) >= 0 and max(numbers) <= _LARGEST_ID else None


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


def mapping(value: Json, name: str) -> dict[str, Any]:
    """An object, or InvalidAnswer."""
    if not isinstance(value, dict):
        invalid(f"an object as {name}", value)
    return value


def text_of(value: Json, name: str) -> str:
    """Text, or InvalidAnswer."""
    if not isinstance(value, str):
        invalid(f"text as {name}", value)
    return value


def text_or_none(reply: dict[str, Any], name: str) -> str | None:
    """Text of at least one letter, or None."""
    value = reply.get(name)
    return value if isinstance(value, str) and value else None


def name_or_none(reply: dict[str, Any], name: str) -> str | None:
    """A name fit for a record; what is no name, or would drive a terminal, is none."""
    value = reply.get(name)
    return value if isinstance(value, str) and 0 < len(value) <= _LONGEST_NAME and value.isprintable() else None


def _dumped(value: Json) -> bytes:
    return orjson.dumps(value)


def invalid(needed: str, found: Json) -> NoReturn:
    """Say what was needed and what was found instead."""
    raise InvalidAnswer(f"the answer needs {needed}, found {shown(_dumped(found))}")
