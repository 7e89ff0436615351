"""Faults inside an HTTP 200: each is charged for, because the server believes that it answered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import orjson

from corpusgen.mock.kinds import Exchange, Kind, changed
from corpusgen.records import Json

Reply = dict[str, Any]
Body = Callable[[Reply], bytes]

_SURPLUS: Final = 1_000
_ABSURD: Final = 10**12
_DEEP: Final = 100_000
_LONG: Final = 2**20
# Control characters and letters that turn the writing direction, as a terminal or a log would meet them.
_CONTROLS: Final = "\x1b]0;owned\x07 \x1b[2J \x9b31m \u202e backwards"


def _kind(name: str, what: str, body: Body, *, usable: bool = False, extra_output_tokens: int = 0) -> Kind:
    async def act(exchange: Exchange) -> None:
        await exchange.send(200, body(exchange.reply))

    return Kind(name=name, what=what, billed=True, act=act, usable=usable, extra_output_tokens=extra_output_tokens)


def _html(name: str, what: str) -> Kind:
    async def act(exchange: Exchange) -> None:
        page = b"<!doctype html><title>Sign in</title><h1>Sign in to this network</h1>"
        await exchange.send(200, page, ("Content-Type", "text/html"))

    return Kind(name=name, what=what, billed=True, act=act)


def _raw(body: bytes) -> Body:
    return lambda _: body


def _with(**fields: Json) -> Body:
    return lambda reply: orjson.dumps(changed(reply, **fields))


def _usage(**counts: Json) -> Body:
    return lambda reply: orjson.dumps({**reply, "usage": {**reply["usage"], **counts}})


def _choice(**fields: Json) -> Body:
    return lambda reply: orjson.dumps({**reply, "choices": [{**reply["choices"][0], **fields}]})


def _said(text: Json, finish_reason: str = "stop", **message: Json) -> Body:
    """The reply with other words in it, whichever of the two shapes it has."""

    def body(reply: Reply) -> bytes:
        choice = {**reply["choices"][0], "finish_reason": finish_reason}
        if "message" in choice:
            choice["message"] = {**choice["message"], "content": text, **message}
        else:
            choice["text"] = text
        return orjson.dumps({**reply, "choices": [choice]})

    return body


def _in_words(spelt: bytes) -> Body:
    """The reply with these bytes where its words were, escaped by nobody."""
    mark = "in place of this"
    return lambda reply: _said(mark)(reply).replace(mark.encode(), spelt)


def _logprob(spelt: bytes) -> Body:
    """The reply with one token whose log-probability is spelt so."""
    entry = {"token": "x", "bytes": [120], "logprob": "in place of this"}
    shape = {"content": [{**entry, "top_logprobs": [entry]}]}
    return lambda reply: _choice(logprobs=shape)(reply).replace(b'"in place of this"', spelt)


def _whole(reply: Reply) -> bytes:
    return orjson.dumps(reply)


def _half(reply: Reply) -> bytes:
    body = _whole(reply)
    return body[: len(body) // 2]


def _two_choices(reply: Reply) -> bytes:
    return orjson.dumps({**reply, "choices": [*reply["choices"], {**reply["choices"][0], "index": 1}]})


def _without_usage(reply: Reply) -> bytes:
    return orjson.dumps({name: value for name, value in reply.items() if name != "usage"})


BODIES: Final = (
    _kind("error-body", "an error that calls itself a success", _raw(b'{"error":{"message":"overloaded"}}')),
    _html("html", "the sign-in page of a network"),
    _kind("empty-body", "nothing at all", _raw(b"")),
    _kind("broken-json", "JSON with a comma too many", lambda reply: _whole(reply)[:-1] + b",}"),
    _kind("truncated-json", "half the JSON, with a length that fits", _half),
    _kind("not-an-object", "JSON that is a list", lambda reply: orjson.dumps([reply])),
    _kind("deep-json", "a hundred thousand brackets", _raw(b"[" * _DEEP + b"]" * _DEEP)),
    _kind("no-choices", "a list of no choices", _with(choices=[])),
    _kind("two-choices", "two choices where one was asked for", _two_choices),
    _kind("null-content", "a choice without words", _said(None)),
    _kind("empty-content", "a choice with no words in it", _said("")),
    _kind("unknown-finish", "a reason for stopping nobody knows", _choice(finish_reason="bored")),
    _kind("no-finish", "no reason for stopping: the answer is not whole", _choice(finish_reason=None)),
    _kind("length", "cut off at max_tokens, and says so", _choice(finish_reason="length"), usable=True),
    _kind("content-filter", "withheld by a filter, and says so", _said("", "content_filter"), usable=True),
    _kind("refusal", "would rather not", _said("I would rather not.", refusal="I would rather not."), usable=True),
    _kind("usage-missing", "no word on tokens", _without_usage),
    _kind("usage-null", "token counts of null", lambda reply: orjson.dumps({**reply, "usage": None})),
    _kind("usage-negative", "less than no tokens", _usage(completion_tokens=-5)),
    _kind("usage-float", "half a token", _usage(completion_tokens=2.5)),
    _kind("usage-string", "many tokens, in words", _usage(completion_tokens="many")),
    _kind(
        "usage-zero",
        "claims no tokens at all",
        _usage(prompt_tokens=0, completion_tokens=0, total_tokens=0),
        usable=True,
    ),
    _kind("usage-no-input", "claims to have read nothing", _usage(prompt_tokens=0), usable=True),
    _kind(
        "usage-no-output", "claims to have written nothing", _usage(completion_tokens=0, total_tokens=None), usable=True
    ),
    _kind("usage-thoughts", "counts its thoughts in total_tokens alone", _usage(completion_tokens=1), usable=True),
    _kind("usage-contradicts", "more cached tokens than read", _usage(prompt_tokens_details={"cached_tokens": 10**8})),
    _kind("usage-absurd", "more tokens than were ever written", _usage(completion_tokens=_ABSURD)),
    _kind(
        "usage-huge",
        "charges for more than max_tokens allows, and says so",
        _whole,
        usable=True,
        extra_output_tokens=_SURPLUS,
    ),
    _kind(
        "strange-names",
        "an id and a model that would drive a terminal",
        _with(id=_CONTROLS, model=_CONTROLS),
        usable=True,
    ),
    _kind("endless-names", "an id and a model of a megabyte", _with(id="i" * _LONG, model="m" * _LONG), usable=True),
    _kind("wrong-model", "answers with another model", _with(model="somebody-else-7b"), usable=True),
    _kind("lone-surrogate", "half a character, escaped", _in_words(rb"half \ud83d of it")),
    _kind("invalid-utf8", "bytes that are no text", _in_words(b"caf\xe9 \xff\xfe")),
    _kind("raw-control", "control characters where JSON forbids them", _in_words(b"one\x00two\x1bthree\n")),
    _kind("nul-characters", "text with NUL in it", _said("one\x00two"), usable=True),
    _kind("control-characters", "text that would drive a terminal", _said(_CONTROLS), usable=True),
    _kind("nan-logprobs", "a log-probability that is not a number", _logprob(b"NaN")),
    _kind("infinite-logprobs", "a log-probability beyond every number", _logprob(b"-1e999")),
    _kind("positive-logprobs", "a probability above 1", _logprob(b"0.7")),
    _kind("minus-9999-logprobs", "a log-probability that stands for none", _logprob(b"-9999.0"), usable=True),
    _kind("string-logprobs", "a log-probability in words", _logprob(b'"likely"')),
)
