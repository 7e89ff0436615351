"""Faults inside an HTTP 200: each is charged for, because the server believes that it answered.

Where a client asked for a stream, the events tell the spoilt reply.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import orjson

from corpusgen.mock.dialect import Dialect, Reply, event
from corpusgen.mock.kinds import EVERYWHERE, TALKING, Change, Exchange, Kind
from corpusgen.mock.question import Api
from corpusgen.records import Json

Body = Callable[[Exchange], bytes]

_SURPLUS: Final = 1_000
_ABSURD: Final = 10**12
_DEEP: Final = 100_000
_LONG: Final = 2**20
# Control characters and letters that turn the writing direction, as a terminal or a log would meet them.
_CONTROLS: Final = "\x1b]0;owned\x07 \x1b[2J \x9b31m \u202e backwards"

# Kinds for which a wire format has no words are met there as good answers.
_WITH_CHOICES: Final[frozenset[Api]] = frozenset({"chat", "completion"})
_OPENAI: Final[frozenset[Api]] = TALKING - {"messages"}


def _kind(name: str, what: str, body: Body, apis: frozenset[Api] = EVERYWHERE, *, usable: bool = False) -> Kind:
    async def act(exchange: Exchange) -> None:
        await exchange.answer(body(exchange))

    return Kind(name=name, what=what, billed=True, act=act, apis=apis, usable=usable)


def _changing(
    name: str,
    what: str,
    change: Change,
    *,
    usable: bool = False,
    extra_output_tokens: int = 0,
    most_choices: int | None = None,
    apis: frozenset[Api] = TALKING,
) -> Kind:
    async def act(exchange: Exchange) -> None:
        await exchange.answer(exchange.told(change(exchange.dialect, exchange.reply)))

    return Kind(
        name=name,
        what=what,
        billed=True,
        act=act,
        usable=usable,
        extra_output_tokens=extra_output_tokens,
        most_choices=most_choices,
        apis=apis,
        change=change,
    )


def _html(name: str, what: str) -> Kind:
    async def act(exchange: Exchange) -> None:
        page = b"<!doctype html><title>Sign in</title><h1>Sign in to this network</h1>"
        await exchange.send(200, page, ("Content-Type", "text/html"))

    return Kind(name=name, what=what, billed=True, act=act)


def _raw(body: bytes) -> Body:
    return lambda _: body


def _error(exchange: Exchange) -> bytes:
    error = exchange.dialect.error(529, "overloaded", None)
    return event(error, "error") if exchange.question.stream else orjson.dumps(error)


def _with(**fields: Json) -> Change:
    return lambda _, reply: {**reply, **fields}


def _without(name: str) -> Change:
    return lambda _, reply: {field: value for field, value in reply.items() if field != name}


def _usage(*, read: Json = ..., output: Json = ..., total: Json = ..., cached: Json = ...) -> Change:
    """The reply with other counts of tokens; the ellipsis leaves one alone, None leaves it out."""

    def change(dialect: Dialect, reply: Reply) -> Reply:
        names = dialect.shape.counts
        told = {names.input: read, names.output: output, names.total: total, names.cached_in: cached}
        counts = {**reply["usage"], **{name: value for name, value in told.items() if name and value is not ...}}
        return {**reply, "usage": {name: value for name, value in counts.items() if value is not None}}

    return change


def _said(text: Json, reason: str = "stop", refusal: str | None = None) -> Change:
    return lambda dialect, reply: dialect.shape.said(reply, text, reason, refusal)


def _finished(reason: Json) -> Change:
    return lambda dialect, reply: dialect.shape.finished(reply, reason)


def _silent(dialect: Dialect, reply: Reply) -> Reply:
    return dialect.shape.silent(reply)


def _unchanged(dialect: Dialect, reply: Reply) -> Reply:
    return reply


def _two_choices(dialect: Dialect, reply: Reply) -> Reply:
    return {**reply, "choices": [*reply["choices"], {**reply["choices"][0], "index": 1}]}


def _of_several(change: Callable[[list[Reply]], list[Reply]]) -> Change:
    """The reply with other choices, where several were asked for."""

    def changed(dialect: Dialect, reply: Reply) -> Reply:
        choices = reply["choices"]
        return reply if len(choices) < 2 else {**reply, "choices": change(choices)}

    return changed


def _last(spoil: Callable[[Reply], Reply]) -> Change:
    return _of_several(lambda choices: [*choices[:-1], spoil(choices[-1])])


def _broken(choice: Reply) -> Reply:
    return {**choice, "error": {"code": 502, "message": "mock teacher: this choice was lost"}}


def _emptied(choice: Reply) -> Reply:
    worded = {"text": ""} if "text" in choice else {"message": {**choice["message"], "content": ""}}
    return {**choice, **worded, "logprobs": None}


def _withheld(choice: Reply) -> Reply:
    return {**_emptied(choice), "finish_reason": "content_filter"}


def _cut(choice: Reply) -> Reply:
    return {**choice, "finish_reason": "length"}


def _in_words(spelt: bytes) -> Body:
    """The reply with these bytes where its words were, escaped by nobody."""
    mark = "in-place-of-this"
    said = _said(mark)
    return lambda exchange: exchange.told(said(exchange.dialect, exchange.reply)).replace(mark.encode(), spelt)


def _logprob(spelt: bytes) -> Body:
    """The reply with one token whose log-probability is spelt so."""
    mark = "in place of this"

    def body(exchange: Exchange) -> bytes:
        spoilt = exchange.dialect.shape.logprob(exchange.reply, mark)
        return exchange.told(spoilt).replace(orjson.dumps(mark), spelt)

    return body


def _half(exchange: Exchange) -> bytes:
    body = exchange.told()
    return body[: len(body) // 2]


def _listed(exchange: Exchange) -> bytes:
    return orjson.dumps([exchange.reply])


BODIES: Final = (
    _kind("error-body", "an error that calls itself a success", _error),
    _html("html", "the sign-in page of a network"),
    _kind("empty-body", "nothing at all", _raw(b"")),
    _kind("broken-json", "JSON with a comma too many", lambda exchange: exchange.told()[:-1] + b",}"),
    _kind("truncated-json", "half the JSON, with a length that fits", _half),
    _kind("not-an-object", "JSON that is a list", _listed),
    _kind("deep-json", "a hundred thousand brackets", _raw(b"[" * _DEEP + b"]" * _DEEP)),
    _changing("no-choices", "a list of no choices", _silent, apis=EVERYWHERE),
    _changing("two-choices", "two choices where one was asked for", _two_choices, apis=_WITH_CHOICES),
    _changing("null-content", "a choice without words", _said(None), usable=True),
    _changing("empty-content", "a choice with no words in it", _said(""), usable=True),
    _changing("unknown-finish", "a reason for stopping nobody knows", _finished("bored"), usable=True),
    _changing("no-finish", "no reason for stopping", _finished(None), usable=True),
    _changing("length", "cut off at max_tokens, and says so", _finished("length"), usable=True),
    _changing(
        "content-filter",
        "withheld by a filter, and says so",
        _said("", "content_filter"),
        usable=True,
        apis=_OPENAI,
    ),
    _changing("refusal", "would rather not", _said("I would rather not.", refusal="I would rather not."), usable=True),
    _changing("usage-missing", "no word on tokens", _without("usage"), usable=True),
    _changing("usage-null", "token counts of null", _with(usage=None), usable=True),
    _changing("usage-negative", "less than no tokens", _usage(output=-5), usable=True),
    _changing("usage-float", "half a token", _usage(output=2.5), usable=True),
    _changing("usage-string", "many tokens, in words", _usage(output="many"), usable=True),
    _changing("usage-zero", "claims no tokens at all", _usage(read=0, output=0, total=0), usable=True),
    _changing("usage-no-input", "claims to have read nothing", _usage(read=0), usable=True),
    _changing("usage-no-output", "claims to have written nothing", _usage(output=0, total=None), usable=True),
    _changing(
        "usage-thoughts", "counts its thoughts in total_tokens alone", _usage(output=1), usable=True, apis=_OPENAI
    ),
    _changing(
        "usage-contradicts",
        "more cached tokens than read",
        _usage(cached={"cached_tokens": 10**8}),
        usable=True,
        apis=_OPENAI,
    ),
    _changing("usage-absurd", "more tokens than were ever written", _usage(output=_ABSURD), usable=True),
    _changing(
        "usage-huge",
        "charges for more than max_tokens allows, and says so",
        _unchanged,
        usable=True,
        extra_output_tokens=_SURPLUS,
    ),
    _changing(
        "strange-names",
        "an id and a model that would drive a terminal",
        _with(id=_CONTROLS, model=_CONTROLS),
        usable=True,
    ),
    _changing(
        "endless-names", "an id and a model of a megabyte", _with(id="i" * _LONG, model="m" * _LONG), usable=True
    ),
    _changing("wrong-model", "answers with another model", _with(model="somebody-else-7b"), usable=True),
    _kind("lone-surrogate", "half a character, escaped", _in_words(rb"half \ud83d of it"), TALKING),
    _kind("invalid-utf8", "bytes that are no text", _in_words(b"caf\xe9 \xff\xfe"), TALKING),
    _kind("raw-control", "control characters where JSON forbids them", _in_words(b"one\x00two\x1bthree\n"), TALKING),
    _changing("nul-characters", "text with NUL in it", _said("one\x00two"), usable=True),
    _changing("control-characters", "text that would drive a terminal", _said(_CONTROLS), usable=True),
    _kind("nan-logprobs", "a log-probability that is not a number", _logprob(b"NaN"), _OPENAI),
    _kind("infinite-logprobs", "a log-probability beyond every number", _logprob(b"-1e999"), _OPENAI),
    _kind("positive-logprobs", "a probability above 1", _logprob(b"0.7"), _OPENAI, usable=True),
    _changing(
        "minus-9999-logprobs",
        "a log-probability that stands for none",
        lambda dialect, reply: dialect.shape.logprob(reply, -9999.0),
        usable=True,
        apis=_OPENAI,
    ),
    _changing("one-choice", "one answer, however many were asked for", _unchanged, most_choices=1, usable=True),
    _changing(
        "fewer-choices",
        "one answer less than were asked for",
        _of_several(lambda choices: choices[:-1]),
        usable=True,
        apis=_WITH_CHOICES,
    ),
    _changing(
        "more-choices",
        "one answer more than the several that were asked for",
        _of_several(lambda choices: [*choices, {**choices[0], "index": len(choices)}]),
        usable=True,
        apis=_WITH_CHOICES,
    ),
    _changing("broken-choice", "an error in place of the last answer", _last(_broken), usable=True, apis=_WITH_CHOICES),
    _changing("empty-choice", "no words in the last answer", _last(_emptied), usable=True, apis=_WITH_CHOICES),
    _changing(
        "refused-choice", "the last answer withheld by a filter", _last(_withheld), usable=True, apis=_WITH_CHOICES
    ),
    _changing("cut-choice", "the last answer cut off at max_tokens", _last(_cut), usable=True, apis=_WITH_CHOICES),
    _kind("string-logprobs", "a log-probability in words", _logprob(b'"likely"'), _OPENAI, usable=True),
)
