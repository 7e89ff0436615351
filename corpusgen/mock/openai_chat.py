"""OpenAI's Chat Completions: ``POST /v1/chat/completions``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from corpusgen.mock.dialect import CREATED, Count, Dialect, Reply, Shape, event
from corpusgen.mock.openai_errors import openai_error
from corpusgen.mock.prompt_cache import automatic_prefixes
from corpusgen.mock.question import (
    ANY_OBJECT,
    DEFAULT_MAX_TOKENS,
    Asked,
    Headers,
    NotARequest,
    Question,
    Tool,
    chosen_tool,
    key_of,
    listed,
    mapping,
    parse,
    text_of_parts,
    thinking_tokens,
    tokens_in,
    tokens_of,
    whole,
)
from corpusgen.mock.saying import Answer, Said, spelt_logprobs
from corpusgen.records import Json, Usage

MOST_CHOICES: Final = 128
_MOST_RUNNERS_UP: Final = 100
_TEXT_PARTS: Final = frozenset({"text", "refusal"})
_FREE_CHOICES: Final = (None, "none", "auto", "required")
# Reasoning models take these only at effort "none".
_NOT_WHILE_THINKING: Final = ("temperature", "top_p", "logprobs", "top_logprobs")
_PIECE: Final = re.compile(r"\s*\S+\s*?(?=\s|$)|\s+")


# --- the question ----------------------------------------------------------------------------------------------------


def read_chat(body: bytes, headers: Headers) -> Question:
    """The question in a request body. Raises NotARequest."""
    asked = parse(body)
    texts, model = _texts(asked), str(asked.get("model", "mock"))
    thoughts = thinking_tokens(asked.get("reasoning_effort"), "reasoning_effort")
    if thoughts:
        refuse_while_thinking(asked)
    input_tokens = tokens_in(texts, model) + tokens_of(asked.get("tools"))
    input_tokens += tokens_of(asked.get("response_format"))
    return Question(
        key=key_of(asked),
        api="chat",
        model=model,
        text=texts[-1],
        input_tokens=input_tokens,
        max_tokens=max_tokens(asked),
        top_logprobs=_top_logprobs(asked),
        choices=1 if "n" not in asked else whole(asked, "n", 1, most=MOST_CHOICES),
        stop=stop_sequences(asked),
        schema=_schema(asked) if "response_format" in asked else None,
        tool=_tool(asked) if "tools" in asked else None,
        thoughts=thoughts,
        stream=asked.get("stream") is True,
        half_price=asked.get("service_tier") == "flex",
        prefixes=automatic_prefixes(texts, input_tokens),
        asked=asked,
    )


def _texts(asked: Asked) -> list[str]:
    messages = asked.get("messages")
    if not isinstance(messages, list) or not messages:
        raise NotARequest("messages: a list of at least one message is needed")
    return [_content(message) for message in messages]


def _content(message: Json) -> str:
    text = message.get("content") if isinstance(message, dict) else None
    if isinstance(text, str):
        return text
    if isinstance(text, list):
        return text_of_parts(text, _TEXT_PARTS, "messages")
    if text is None and isinstance(message, dict) and message.get("tool_calls"):
        calls = [mapping(call.get("function"), "tool_calls") for call in message["tool_calls"]]
        return "".join([str(call.get("arguments")) for call in calls])
    raise NotARequest("messages: every content must be text")


def max_tokens(asked: Asked) -> int:
    """How long the answer may be. Raises NotARequest."""
    limit = asked.get("max_tokens")
    if limit is None:
        limit = asked.get("max_completion_tokens")
    if limit is None:
        return DEFAULT_MAX_TOKENS
    if type(limit) is not int or limit < 1:
        raise NotARequest(f"max_tokens: a whole number of 1 or more is needed, found {limit!r}")
    return limit


def refuse_while_thinking(asked: Asked) -> None:
    """Refuse what OpenAI's reasoning models do not take. Raises NotARequest."""
    for name in _NOT_WHILE_THINKING:
        if asked.get(name) is not None:
            raise NotARequest(f"Unsupported parameter: {name!r} is taken only with a reasoning effort of 'none'")


def _top_logprobs(asked: Asked) -> int | None:
    if not asked.get("logprobs"):
        if asked.get("top_logprobs") is not None:
            raise NotARequest("top_logprobs: needs logprobs to be true")
        return None
    return whole(asked, "top_logprobs", 0, least=0, most=_MOST_RUNNERS_UP)


def stop_sequences(asked: Asked) -> tuple[str, ...]:
    """At what the answer stops. Raises NotARequest."""
    stop = asked.get("stop")
    if stop is None:
        return ()
    found = [stop] if isinstance(stop, str) else listed(stop, "stop")
    if len(found) > 4 or not all(isinstance(mark, str) for mark in found):
        raise NotARequest(f"stop: up to 4 texts are taken, found {stop!r:.80}")
    return tuple(found)


def _schema(asked: Asked) -> Json:
    wanted = mapping(asked.get("response_format"), "response_format")
    match wanted.get("type"):
        case None | "text":
            return None
        case "json_object":
            return ANY_OBJECT
        case "json_schema":
            schema = mapping(wanted.get("json_schema"), "response_format.json_schema")
            if not isinstance(schema.get("name"), str):
                raise NotARequest("response_format.json_schema.name: a name is needed")
            return schema.get("schema") or ANY_OBJECT
    raise NotARequest(f"response_format: text, json_object or json_schema is needed, found {wanted.get('type')!r}")


def _tool(asked: Asked) -> Tool | None:
    listed_ = [mapping(tool, "tools") for tool in listed(asked["tools"], "tools")]
    functions = [mapping(tool.get("function"), "tools.function") for tool in listed_]
    tools = {str(function.get("name")): function.get("parameters") or ANY_OBJECT for function in functions}
    choice, last = asked.get("tool_choice"), asked["messages"][-1]
    if choice == "none":
        return None
    return chosen_tool(
        tools,
        _named(choice),
        forced=choice == "required",
        answered=isinstance(last, dict) and last.get("role") == "tool",
    )


def _named(choice: Json) -> str | None:
    if isinstance(choice, dict):
        return str(mapping(choice.get("function"), "tool_choice.function").get("name"))
    if choice not in _FREE_CHOICES:
        raise NotARequest(f"tool_choice: 'none', 'auto', 'required' or a function is needed, found {choice!r:.80}")
    return None


# --- the answer ------------------------------------------------------------------------------------------------------


def chat_reply(question: Question, answer: Answer, labels: Sequence[str]) -> Reply:
    """The answer as a chat completion."""
    reply: Reply = {
        "id": f"chatcmpl-mock-{question.key[:24]}",
        "object": "chat.completion",
        "created": CREATED,
        "model": question.model,
        "system_fingerprint": "fp_mock",
        "choices": [_choice(question, at, said, labels) for at, said in enumerate(answer.choices)],
        "usage": chat_usage(answer.usage),
    }
    if "service_tier" in question.asked:
        reply["service_tier"] = answer.tier or ("flex" if question.half_price else "default")
    return reply


def _choice(question: Question, at: int, said: Said, labels: Sequence[str]) -> dict[str, Json]:
    logprobs = None
    if question.top_logprobs is not None and said.calls is None:
        logprobs = {"content": spelt_logprobs(said, question, labels), "refusal": None}
    return {
        "index": at,
        "message": _message(question, at, said),
        "logprobs": logprobs,
        "finish_reason": said.finish_reason,
    }


def _message(question: Question, at: int, said: Said) -> dict[str, Json]:
    if said.calls is None:
        message: dict[str, Json] = {"role": "assistant", "content": said.text, "refusal": None}
    else:
        call = {"name": said.calls, "arguments": said.text}
        calls = [{"id": f"call_{question.key[:24]}{at}", "type": "function", "function": call}]
        message = {"role": "assistant", "content": None, "refusal": None, "tool_calls": calls}
    # OpenAI keeps its thoughts; servers of open models tell them to whoever asks in this way.
    if question.thoughts and question.asked.get("include_reasoning"):
        message["reasoning_content"] = said.thinking
    return message


def chat_usage(usage: Usage) -> dict[str, Json]:
    """Token counts as chat completions and completions spell them."""
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_input_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens or 0},
    }


# --- the answer as events --------------------------------------------------------------------------------------------


def chat_events(question: Question, reply: Reply) -> Iterator[bytes]:
    """The reply as chunks, up to ``[DONE]``."""
    for choice in reply["choices"]:
        for delta, logprobs in _deltas(choice["message"], choice["logprobs"]):
            told = {"index": choice["index"], "delta": delta, "logprobs": logprobs, "finish_reason": None}
            yield event(_chunk(question, reply, [told]))
        last = {"index": choice["index"], "delta": {}, "logprobs": None, "finish_reason": choice["finish_reason"]}
        yield event(_chunk(question, reply, [last]))
    yield from usage_event(question, _chunk(question, reply, []), reply)
    yield b"data: [DONE]\n\n"


def usage_event(question: Question, chunk: Reply, reply: Reply) -> Iterator[bytes]:
    """The last chunk, with the usage, for a client that asked for it."""
    if wants_usage(question) and "usage" in reply:
        yield event({**chunk, "choices": [], "usage": reply["usage"]})


def wants_usage(question: Question) -> bool:
    """Whether a stream is to end with its usage."""
    return mapping(question.asked.get("stream_options"), "stream_options").get("include_usage") is True


def _chunk(question: Question, reply: Reply, choices: list[Json]) -> Reply:
    kept = {name: value for name, value in reply.items() if name not in ("choices", "usage")}
    chunk: Reply = {**kept, "object": "chat.completion.chunk", "choices": choices}
    if wants_usage(question):
        chunk["usage"] = None
    return chunk


def _deltas(message: Mapping[str, Any], logprobs: Json) -> Iterator[tuple[dict[str, Json], Json]]:
    yield {"role": "assistant", "content": "" if message.get("content") is not None else None, "refusal": None}, None
    if message.get("reasoning_content"):
        yield {"reasoning_content": message["reasoning_content"]}, None
    if message.get("refusal"):
        yield {"refusal": message["refusal"]}, None
    for at, call in enumerate(message.get("tool_calls") or ()):
        yield {"tool_calls": [{**call, "index": at, "function": {**call["function"], "arguments": ""}}]}, None
        for piece in pieces(call["function"]["arguments"]):
            yield {"tool_calls": [{"index": at, "function": {"arguments": piece}}]}, None
    yield from _worded(message.get("content"), (logprobs or {}).get("content"))


def _worded(content: Json, positions: Json) -> Iterator[tuple[dict[str, Json], Json]]:
    if positions:
        for position in positions:
            yield {"content": position["token"]}, {"content": [position], "refusal": None}
        return
    for piece in pieces(content):
        yield {"content": piece}, None


def pieces(text: Json) -> list[str]:
    """A text in the portions in which it is streamed."""
    return _PIECE.findall(text) if isinstance(text, str) else []


# --- where it can be spoilt ------------------------------------------------------------------------------------------


def _said(reply: Reply, text: Json, reason: str, refusal: Json) -> Reply:
    choice = reply["choices"][0]
    message = {**choice["message"], "content": text, "refusal": refusal}
    return {**reply, "choices": [{**choice, "message": message, "finish_reason": reason, "logprobs": None}]}


def _finished(reply: Reply, reason: Json) -> Reply:
    return {**reply, "choices": [{**reply["choices"][0], "finish_reason": reason}]}


def _silent(reply: Reply) -> Reply:
    return {**reply, "choices": []}


def _logprob(reply: Reply, value: Json) -> Reply:
    entry = {"token": "x", "bytes": [120], "logprob": value}
    content = [{**entry, "top_logprobs": [entry]}]
    return {**reply, "choices": [{**reply["choices"][0], "logprobs": {"content": content}}]}


CHAT_COUNTS: Final = Count(
    input="prompt_tokens", output="completion_tokens", total="total_tokens", cached_in="prompt_tokens_details"
)

CHAT: Final = Dialect(
    api="chat",
    path="/v1/chat/completions",
    vendor="openai",
    request_id="x-request-id",
    read=read_chat,
    reply=chat_reply,
    events=chat_events,
    error=openai_error,
    shape=Shape(counts=CHAT_COUNTS, said=_said, finished=_finished, silent=_silent, logprob=_logprob),
)
