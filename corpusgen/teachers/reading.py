"""Requests to bytes and replies to answers, whichever wire format; all of it pure, so an archive can be read again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from corpusgen.errors import InvalidAnswer, RequestRefused
from corpusgen.records import Completion, Reply, Request, Usage
from corpusgen.teachers.messages_wire import messages_body, read_message
from corpusgen.teachers.responses_wire import check_sendable, read_response, responses_body
from corpusgen.teachers.structured import json_in
from corpusgen.teachers.wire import PLAIN, Dialect, request_body
from corpusgen.teachers.wire import read_choices as read_chat_choices


def body_of(request: Request, dialect: Dialect = PLAIN) -> bytes:
    """The bytes to send. Raises RequestRefused for what the request's wire format cannot say, or is not text."""
    for message in request.messages:
        if type(message.content) is not str:
            raise RequestRefused(_not_text(message.content))
    match request.api:
        case "responses":
            check_sendable(request)
            return responses_body(request, reasons=dialect.reasons)
        case "messages":
            return messages_body(request, dialect.body)
    return request_body(request, dialect)


def _not_text(content: object) -> str:
    """What to say of a content that came past the types: images and audio, most likely."""
    parts = content if isinstance(content, list) else [content]
    kinds = sorted({str(part.get("type")) for part in parts if isinstance(part, dict)} - {"text"})
    found = f"parts of type {', '.join(kinds)}" if kinds else type(content).__name__
    return f"teachers are asked in text: a message holds {found}; leave images and audio out, or describe them"


def read_choices(
    request: Request, reply: Reply, *, tokenizer: str | None = None, dialect: Dialect = PLAIN
) -> tuple[Completion, ...]:
    """Every answer in a reply, one unless the request's parameters ask for ``n``. Raises InvalidAnswer.

    What the provider left uncounted stands at nought and ``usage.counted`` is False; ``believed`` fills it in.
    """
    read: tuple[Completion, ...]
    match request.api:
        case "responses":
            read = (read_response(reply.body, request_id=reply.request_id, tokenizer=tokenizer),)
        case "messages":
            read = (read_message(reply.body, request_id=reply.request_id),)
        case api:
            read = read_chat_choices(
                reply.body,
                api=api,
                most=choices_asked(request),
                request_id=reply.request_id,
                tokenizer=tokenizer,
                dialect=dialect,
            )
    return read if request.schema is None else tuple([_structured(request, one) for one in read])


def choices_asked(request: Request) -> int:
    """How many answers one call asks for."""
    return int(request.parameters.get("n") or 1)


def most_output(request: Request) -> int:
    """The most tokens all answers of one call can have."""
    return int(request.parameters["max_tokens"]) * choices_asked(request)


def only(read: tuple[Completion, ...]) -> Completion:
    """The one answer. Raises InvalidAnswer where there are several."""
    if len(read) != 1:
        raise InvalidAnswer(f"exactly one choice is needed, found {len(read)}")
    return read[0]


def believed(read: tuple[Completion, ...], request: Request, bound: Callable[[], int]) -> tuple[Completion, ...]:
    """The answers, at their worst where nobody counted, or where reading and writing are said to have taken nothing.

    An answer that arrived is kept, whatever its bill: without a count it is booked as the most it can have used.
    """
    usage = read[0].usage
    if usage.counted and usage.input_tokens and usage.output_tokens:
        return read
    written = any(one.text or one.tool_calls or one.reasoning or one.refusal for one in read)
    if usage.counted and usage.input_tokens and not written:
        return read
    worst = _worst(usage, request, bound, written)
    return tuple([replace(one, usage=worst) for one in read])


def _worst(usage: Usage, request: Request, bound: Callable[[], int], written: bool) -> Usage:
    missing = written or not usage.counted
    return replace(
        usage,
        input_tokens=usage.input_tokens or bound(),
        output_tokens=usage.output_tokens or (most_output(request) if missing else 0),
        counted=False,
        billed_microusd=None,
    )


def _structured(request: Request, read: Completion) -> Completion:
    """With the JSON the answer is, if it is JSON and fits the schema that was asked for."""
    value, _ = json_in(request.schema, read.text)
    return read if value is None else replace(read, structured=value)
