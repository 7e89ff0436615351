"""A whole answer of OpenAI's chat completions or completions as the chunks of a stream, for whoever asked for one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any, Final, Literal

import orjson

from corpusgen.records import Json

END: Final = b"data: [DONE]\n\n"

_TOKENS: Final = 4
_FEW_WORDS: Final = re.compile(r"(?:\S{1,24}\s{0,24}){1,4}|\s{1,24}")
_IN_EVERY_CHUNK: Final = ("id", "created", "model", "system_fingerprint", "service_tier")


def few_words(text: str) -> list[str]:
    """A text in pieces of a few words."""
    return _FEW_WORDS.findall(text)


def event_of(said: Mapping[str, Json], name: str | None = None) -> bytes:
    """One server-sent event."""
    return (b"" if name is None else b"event: %b\n" % name.encode()) + b"data: " + orjson.dumps(said) + b"\n\n"


def chunks_of(api: Literal["chat", "completion"], reply: Mapping[str, Any], *, usage: bool) -> Iterator[bytes]:
    """The events that tell a whole answer, up to ``[DONE]``; with its usage before that, if that is wanted."""
    tell, what = (_chat_choice, "chat.completion.chunk") if api == "chat" else (_text_choice, "text_completion")
    same = {name: reply[name] for name in _IN_EVERY_CHUNK if name in reply}
    same |= {"object": what, "usage": None} if usage else {"object": what}
    extras = {name: value for name, value in reply.items() if name not in (*same, "usage", "choices")}
    for at, choice in enumerate(reply["choices"]):
        for told in tell({**choice, "index": choice.get("index", at)}):
            yield event_of({**extras, **same, "choices": [told]})
            extras = {}
    if usage and reply.get("usage") is not None:
        yield event_of({**extras, **same, "choices": [], "usage": reply["usage"]})
    yield END


_Told = dict[str, Json]


def _chat_choice(choice: Mapping[str, Any]) -> Iterator[_Told]:
    message, logprobs = choice.get("message") or {}, choice.get("logprobs")
    of_choice = {name: value for name, value in choice.items() if name not in ("message", "logprobs", "finish_reason")}
    yield {**of_choice, "delta": _opening(message), "logprobs": None, "finish_reason": None}
    for delta, told in (*((delta, None) for delta in _before_words(message)), *_words(message, logprobs)):
        yield {"index": choice["index"], "delta": delta, "logprobs": told, "finish_reason": None}
    yield {"index": choice["index"], "delta": {}, "logprobs": None, "finish_reason": choice.get("finish_reason")}


def _opening(message: Mapping[str, Any]) -> _Told:
    """The first delta: whose turn it is, which texts there are none of, and what comes in one piece."""
    opening: _Told = {"role": message.get("role", "assistant")}
    for name, value in message.items():
        if name == "content" and isinstance(value, str):
            opening[name] = ""
        elif not isinstance(value, str) and not (name == "tool_calls" and value):
            opening[name] = value
    return opening


def _before_words(message: Mapping[str, Any]) -> Iterator[_Told]:
    for name, value in message.items():
        if isinstance(value, str) and name not in ("role", "content"):
            yield from ({name: piece} for piece in few_words(value))
    for at, call in enumerate(message.get("tool_calls") or ()):
        yield from _call(at, call)


def _call(at: int, call: Mapping[str, Any]) -> Iterator[_Told]:
    function = call.get("function")
    arguments = function.get("arguments") if isinstance(function, dict) else None
    if not isinstance(function, dict) or not isinstance(arguments, str):
        yield {"tool_calls": [{**call, "index": at}]}
        return
    yield {"tool_calls": [{**call, "index": at, "function": {**function, "arguments": ""}}]}
    for piece in few_words(arguments):
        yield {"tool_calls": [{"index": at, "function": {"arguments": piece}}]}


def _words(message: Mapping[str, Any], logprobs: Json) -> Iterator[tuple[_Told, Json]]:
    content = message.get("content")
    text = content if isinstance(content, str) else ""
    if not isinstance(logprobs, dict):
        yield from (({"content": piece}, None) for piece in few_words(text))
        return
    positions = logprobs.get("content") or []
    for piece, some in _with_tokens(text, [str(position.get("token")) for position in positions]):
        told = {name: value for name, value in logprobs.items() if name != "content"}
        logprobs = dict.fromkeys(logprobs)  # told once
        yield {} if piece is None else {"content": piece}, {**told, "content": positions[some]}


def _with_tokens(text: str, tokens: Sequence[str]) -> list[tuple[str | None, slice]]:
    """Pieces of a text, each with its tokens; if the text is not made of them, all tokens come with the first."""
    every = range(0, len(tokens), _TOKENS)
    if tokens and "".join(tokens) == text:
        return [("".join(tokens[at : at + _TOKENS]), slice(at, at + _TOKENS)) for at in every]
    pieces = few_words(text)
    return list(zip_longest(pieces, [slice(None), *(slice(0) for _ in pieces[1:])]))


def _text_choice(choice: Mapping[str, Any]) -> Iterator[_Told]:
    text, logprobs = choice.get("text") or "", choice.get("logprobs")
    if not isinstance(logprobs, dict):
        pieces: list[tuple[str | None, Json]] = [(piece, None) for piece in few_words(text)]
    else:
        pieces = [(piece, _cut(logprobs, some)) for piece, some in _with_tokens(text, _tokens(logprobs))]
    for piece, told in pieces:
        yield {"index": choice["index"], "text": piece or "", "logprobs": told, "finish_reason": None}
    yield {**choice, "text": "", "logprobs": None}


def _tokens(logprobs: Mapping[str, Any]) -> list[str]:
    """The tokens, in the shape of completions or, as some servers write it, of chat completions."""
    return [str(token.get("token")) if isinstance(token, dict) else str(token) for token in _longest(logprobs)]


def _longest(logprobs: Mapping[str, Any]) -> list[Json]:
    found = logprobs.get("tokens") or logprobs.get("content")
    return found if isinstance(found, list) else []


def _cut(logprobs: Mapping[str, Any], some: slice) -> dict[str, Json]:
    return {name: value[some] if isinstance(value, list) else value for name, value in logprobs.items()}
