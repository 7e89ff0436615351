"""Anthropic's Messages: ``POST /v1/messages``, and the tokens one would take."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import orjson

from corpusgen.mock.anthropic_errors import anthropic_error
from corpusgen.mock.dialect import Count, Dialect, Reply, Shape, event
from corpusgen.mock.openai_chat import pieces
from corpusgen.mock.question import (
    ANY_OBJECT,
    EFFORTS,
    Asked,
    Headers,
    NotARequest,
    Prefix,
    Question,
    Tool,
    chosen_tool,
    key_of,
    listed,
    mapping,
    parse,
    thinking_tokens,
    tokens_in,
    tokens_of,
    whole,
)
from corpusgen.mock.saying import Answer, Said
from corpusgen.records import Json, Usage

WITHOUT_SAMPLING: Final = "2026-10-21"
"""From this version on the API takes no temperature, top_p or top_k."""

_VERSIONS: Final = ("2023-01-01", "2023-06-01", WITHOUT_SAMPLING)
_SAMPLING: Final = ("temperature", "top_p", "top_k")
_ROLES: Final = ("user", "assistant", "system")
_LEAST_BUDGET: Final = 1024
_KEPT_S: Final = {"5m": 300.0, "1h": 3600.0}


# --- the question ----------------------------------------------------------------------------------------------------


def _read(body: bytes, headers: Headers) -> Question:
    asked = parse(body)
    if type(asked.get("max_tokens")) is not int or asked["max_tokens"] < 1:
        raise NotARequest(f"max_tokens: a whole number of 1 or more is needed, found {asked.get('max_tokens')!r}")
    return _question(asked, headers)


def count_tokens(body: bytes, headers: Headers) -> Reply:
    """How many tokens a question would take; it needs no max_tokens. Raises NotARequest."""
    return {"input_tokens": _question({"max_tokens": 2**31, **parse(body)}, headers).input_tokens}


def _question(asked: dict[str, Any], headers: Headers) -> Question:
    version = _version(headers)
    _refuse_sampling(asked, version)
    if not isinstance(asked.get("model"), str):
        raise NotARequest("model: Field required")
    spans = _marked_at_the_end([*_system(asked), *_turns(asked)], asked.get("cache_control"))
    tool, thoughts = _tool(asked), _thinking(asked)
    _refuse_forced_thinking(asked, thoughts)
    output = mapping(asked.get("output_config"), "output_config")
    fixed = tokens_of(asked.get("tools")) + tokens_of(output.get("format"))
    return Question(
        key=key_of(asked, b"messages"),
        api="messages",
        model=asked["model"],
        text=spans[-1][0],
        input_tokens=fixed + tokens_in([text for text, _ in spans]),
        max_tokens=asked["max_tokens"],
        top_logprobs=None,
        stop=_stop(asked),
        schema=_schema(output),
        tool=tool,
        thoughts=thoughts,
        stream=asked.get("stream") is True,
        prefixes=_prefixes(asked, spans, fixed),
        asked=asked,
    )


def _version(headers: Headers) -> str:
    version = headers.get("anthropic-version", "")
    if version not in _VERSIONS:
        raise NotARequest(f"anthropic-version: one of {', '.join(_VERSIONS)} is needed, found {version!r}")
    return version


def _refuse_sampling(asked: Asked, version: str) -> None:
    if version < WITHOUT_SAMPLING:
        return
    for name in _SAMPLING:
        if asked.get(name) is not None:
            raise NotARequest(f"{name}: not taken under anthropic-version {version}; send 2023-06-01 or leave it out")


_Span = tuple[str, Json]
"""A text and its cache_control."""


def _marked_at_the_end(spans: list[_Span], control: Json) -> list[_Span]:
    """The spans, the last one marked for the cache where the request as a whole asks for that."""
    return spans if control is None else [*spans[:-1], (spans[-1][0], control)]


def _system(asked: Asked) -> list[_Span]:
    system = asked.get("system")
    if isinstance(system, str):
        return [(system, None)]
    return [_block(block, "system") for block in listed(system, "system")]


def _turns(asked: Asked) -> list[_Span]:
    messages = listed(asked.get("messages"), "messages")
    if not messages:
        raise NotARequest("messages: at least one message is required")
    return [span for at, message in enumerate(messages) for span in _turn(mapping(message, "messages"), at)]


def _turn(message: Asked, at: int) -> list[_Span]:
    name = f"messages.{at}"
    if message.get("role") not in _ROLES:
        raise NotARequest(f"{name}.role: one of {', '.join(_ROLES)} is needed, found {message.get('role')!r}")
    content = message.get("content")
    if isinstance(content, str):
        return [(content, None)]
    blocks = listed(content, f"{name}.content")
    if not blocks:
        raise NotARequest(f"{name}.content: every content must be text or a list of blocks")
    return [_block(block, name) for block in blocks]


def _block(block: Json, name: str) -> _Span:
    found = mapping(block, name)
    match found.get("type"):
        case "text":
            text = found.get("text")
        case "thinking":
            text = found.get("thinking")
        case "redacted_thinking":
            text = found.get("data")
        case "tool_use":
            text = orjson.dumps(found.get("input")).decode()
        case "tool_result":
            text = _result(found.get("content"), name)
        case kind:
            raise NotARequest(f"{name}: this server reads text only, found a block of type {kind!r}")
    if not isinstance(text, str):
        raise NotARequest(f"{name}: a block of type {found['type']!r} needs text")
    return text, found.get("cache_control")


def _result(content: Json, name: str) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    return "".join([_block(block, name)[0] for block in listed(content, name)])


def _tool(asked: Asked) -> Tool | None:
    found = [mapping(tool, "tools") for tool in listed(asked.get("tools"), "tools")]
    if any("input_schema" not in tool for tool in found):
        raise NotARequest("tools: this server calls tools with an input_schema only")
    tools = {str(tool.get("name")): tool["input_schema"] for tool in found}
    choice = mapping(asked.get("tool_choice"), "tool_choice")
    match choice.get("type", "auto"):
        case "none":
            return None
        case "auto" | "any" | "tool" as kind:
            named = str(choice.get("name")) if kind == "tool" else None
            return chosen_tool(tools, named, forced=kind == "any", answered=_has_result(asked["messages"][-1]))
    raise NotARequest(f"tool_choice.type: 'auto', 'any', 'tool' or 'none' is needed, found {choice.get('type')!r}")


def _has_result(message: Asked) -> bool:
    content = message.get("content")
    return isinstance(content, list) and any(block.get("type") == "tool_result" for block in content)


def _thinking(asked: Asked) -> int:
    thinking = mapping(asked.get("thinking"), "thinking")
    effort = mapping(asked.get("output_config"), "output_config").get("effort") or "high"
    match thinking.get("type"):
        case None | "disabled" | "between_tools":
            return 0
        case "adaptive":
            return thinking_tokens(effort, "output_config.effort")
        case "enabled":
            budget = whole(thinking, "budget_tokens", None, least=_LEAST_BUDGET)
            if budget >= asked["max_tokens"]:
                raise NotARequest("thinking.budget_tokens: must be less than max_tokens")
            return min(budget, EFFORTS["high"])
    raise NotARequest(f"thinking.type: 'adaptive', 'enabled' or 'disabled' is needed, found {thinking.get('type')!r}")


def _refuse_forced_thinking(asked: Asked, thoughts: int) -> None:
    if thoughts and mapping(asked.get("tool_choice"), "tool_choice").get("type") in ("any", "tool"):
        raise NotARequest("tool_choice: Thinking may not be enabled when tool_choice forces tool use.")


def _stop(asked: Asked) -> tuple[str, ...]:
    found = listed(asked.get("stop_sequences"), "stop_sequences")
    if not all(isinstance(mark, str) and mark.strip() for mark in found):
        raise NotARequest("stop_sequences: each must be a text that is not only spaces")
    return tuple(found)


def _schema(output: Asked) -> Json:
    wanted = mapping(output.get("format"), "output_config.format")
    if not wanted:
        return None
    if wanted.get("type") != "json_schema":
        raise NotARequest(f"output_config.format.type: 'json_schema' is needed, found {wanted.get('type')!r}")
    return wanted.get("schema") or ANY_OBJECT


def _prefixes(asked: Asked, spans: Sequence[_Span], fixed: int) -> tuple[Prefix, ...]:
    """The beginnings of the prompt that the request marks for the cache."""
    if not any(control for _, control in spans):
        return ()
    running, tokens, found = hashlib.sha256(orjson.dumps([asked["model"], asked.get("tools")])), fixed, []
    for text, control in spans:
        running.update(text.encode() + b"\0")
        tokens += tokens_in([text])
        if control:
            kept_s = _KEPT_S.get(mapping(control, "cache_control").get("ttl", "5m"), 300.0)
            found.append(Prefix(digest=running.hexdigest(), tokens=tokens, kept_s=kept_s, written=True))
    return tuple(found)


# --- the answer ------------------------------------------------------------------------------------------------------


def _reply(question: Question, answer: Answer, labels: Sequence[str]) -> Reply:
    said = answer.choices[0]
    return {
        "id": f"msg_mock{question.key[:24]}",
        "type": "message",
        "role": "assistant",
        "model": question.model,
        "content": _content(question, said),
        "stop_reason": _stop_reason(said),
        "stop_sequence": said.stopped_by,
        "stop_details": None,
        "usage": _usage(answer.usage, answer.tier or "standard"),
    }


def _stop_reason(said: Said) -> str:
    if said.finish_reason == "length":
        return "max_tokens"
    if said.calls is not None:
        return "tool_use"
    return "end_turn" if said.stopped_by is None else "stop_sequence"


def _content(question: Question, said: Said) -> list[Json]:
    blocks: list[Json] = [_thought(question, said)] if question.thoughts else []
    if said.calls is not None:
        blocks.append(_call(question, said))
    elif said.tokens:
        blocks.append({"type": "text", "text": said.text, "citations": None})
    return blocks


def _thought(question: Question, said: Said) -> dict[str, Json]:
    """Newer models tell their thoughts only to whoever asks, and then in summary."""
    thinking = mapping(question.asked.get("thinking"), "thinking")
    display = thinking.get("display") or ("summarized" if thinking.get("type") == "enabled" else "omitted")
    signature = base64.b64encode(hashlib.sha256(f"{question.key}:{said.thinking}".encode()).digest()).decode()
    told = said.thinking.strip() if display == "summarized" else ""
    return {"type": "thinking", "thinking": told, "signature": signature}


def _call(question: Question, said: Said) -> dict[str, Json]:
    given = orjson.loads(said.text) if said.finish_reason == "tool_calls" else {}
    return {"type": "tool_use", "id": f"toolu_mock{question.key[:24]}", "name": said.calls, "input": given}


def _usage(usage: Usage, tier: str) -> dict[str, Json]:
    read, written, lasting = usage.cached_input_tokens, usage.cache_write_tokens, usage.cache_write_1h_tokens
    return {
        "input_tokens": usage.input_tokens - read - written,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": read,
        "cache_creation": {"ephemeral_5m_input_tokens": written - lasting, "ephemeral_1h_input_tokens": lasting},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"thinking_tokens": usage.reasoning_tokens or 0},
        "service_tier": tier,
    }


# --- the answer as events --------------------------------------------------------------------------------------------


def _events(question: Question, reply: Reply) -> Iterator[bytes]:
    for data in _happenings(reply):
        yield event(data, data["type"])


def _happenings(reply: Reply) -> Iterator[dict[str, Any]]:
    counted = reply.get("usage") if isinstance(reply.get("usage"), dict) else None
    begun = {**reply, "content": [], "stop_reason": None, "stop_sequence": None, "stop_details": None}
    if counted is not None:
        begun["usage"] = {**counted, "output_tokens": 1}
    yield {"type": "message_start", "message": begun}
    yield {"type": "ping"}
    for index, block in enumerate(reply["content"]):
        yield {"type": "content_block_start", "index": index, "content_block": _empty(block)}
        for delta in _deltas(block):
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    ending = {name: reply.get(name) for name in ("stop_reason", "stop_sequence", "stop_details")}
    yield {"type": "message_delta", "delta": ending, **_last_usage(counted)}
    yield {"type": "message_stop"}


def _last_usage(counted: Mapping[str, Json] | None) -> dict[str, Json]:
    if counted is None:
        return {}
    left_out = ("cache_creation", "service_tier")
    return {"usage": {name: value for name, value in counted.items() if name not in left_out}}


def _empty(block: Mapping[str, Any]) -> dict[str, Json]:
    match block["type"]:
        case "text":
            return {**block, "text": ""}
        case "thinking":
            return {**block, "thinking": "", "signature": ""}
    return {**block, "input": {}}


def _deltas(block: Mapping[str, Any]) -> Iterator[dict[str, Json]]:
    match block["type"]:
        case "text":
            yield from ({"type": "text_delta", "text": piece} for piece in pieces(block["text"]))
        case "thinking":
            yield from ({"type": "thinking_delta", "thinking": piece} for piece in pieces(block["thinking"]))
            yield {"type": "signature_delta", "signature": block["signature"]}
        case "tool_use":
            for piece in pieces(orjson.dumps(block["input"]).decode()):
                yield {"type": "input_json_delta", "partial_json": piece}


# --- where it can be spoilt ------------------------------------------------------------------------------------------


def _said(reply: Reply, text: Json, reason: str, refusal: Json) -> Reply:
    kept = [block for block in reply["content"] if block["type"] == "thinking"]
    blocks = [*kept, {"type": "text", "text": text, "citations": None}]
    if not refusal:
        ending = {"stop": "end_turn", "length": "max_tokens"}.get(reason, reason)
        return {**reply, "content": blocks, "stop_reason": ending}
    details = {"type": "refusal", "category": "general_harms", "explanation": refusal}
    return {**reply, "content": blocks, "stop_reason": "refusal", "stop_details": details}


def _finished(reply: Reply, reason: Json) -> Reply:
    return {**reply, "stop_reason": "max_tokens" if reason == "length" else reason}


def _silent(reply: Reply) -> Reply:
    return {**reply, "content": []}


def _logprob(reply: Reply, value: Json) -> Reply:
    return reply  # there are none to spoil


_COUNTS: Final = Count(input="input_tokens", output="output_tokens", total=None, cached_in=None)

MESSAGES: Final = Dialect(
    api="messages",
    path="/v1/messages",
    vendor="anthropic",
    request_id="request-id",
    read=_read,
    reply=_reply,
    events=_events,
    error=anthropic_error,
    shape=Shape(counts=_COUNTS, said=_said, finished=_finished, silent=_silent, logprob=_logprob),
)
