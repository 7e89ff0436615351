"""Answers held to a JSON schema: how a teacher is told, what is wrong with an answer, how it is asked again."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final

import orjson

from corpusgen.records import Completion, Json, Message, Request, canonical_json
from corpusgen.teachers.json_schema import misfits

_FENCED: Final = re.compile(r"\s*```(?:json)?\s*\n(.*?)\n?```\s*", re.DOTALL | re.IGNORECASE)

_TELL: Final = "Answer with one JSON value that fits this JSON schema, and with nothing else:"
_AGAIN: Final = "Answer again, with one JSON value that fits the schema and with nothing else."
_CUT_OFF: Final = "it was cut off before its end; be briefer"


def told(messages: tuple[Message, ...], schema: Json) -> tuple[Message, ...]:
    """The messages with the schema at their end, for a teacher whose server does not hold it to one."""
    *before, last = messages
    wanted = f"{_TELL}\n{canonical_json(schema).decode()}"
    if last.given is not None:
        return (*messages, Message(role="user", content=wanted))
    return (*before, replace(last, content=f"{last.content}\n\n{wanted}"))


def json_in(schema: Json, text: str) -> tuple[str | None, tuple[str, ...]]:
    """The JSON a text is, if it fits; else what is wrong with it. A text in a code fence counts as what is inside."""
    fenced = _FENCED.fullmatch(text)
    try:
        value = orjson.loads(fenced[1] if fenced else text)
    except orjson.JSONDecodeError as error:
        return None, (f"it is not JSON: {error}",)
    found = misfits(schema, value)
    return (None, tuple(found)) if found else (canonical_json(value).decode(), ())


def fault_of(request: Request, completion: Completion) -> str | None:
    """What is wrong with an answer that was to fit a schema; None where it fits, or where none was to."""
    if request.schema is None or completion.structured is not None or completion.tool_calls is not None:
        return None
    if completion.finish_reason in ("refusal", "content_filter"):
        return None  # it is no answer at all, and is told as what it is
    if completion.truncated:
        return _CUT_OFF
    return "; ".join(json_in(request.schema, completion.text)[1]) or None


def repair_of(request: Request, completion: Completion) -> Request | None:
    """The request that asks once more, with the faulty answer and what is wrong with it; None where nothing is."""
    fault = fault_of(request, completion)
    if fault is None:
        return None
    turns = (
        *request.messages,
        Message(role="assistant", content=completion.text if completion.text.strip() else "(nothing)"),
        Message(role="user", content=f"That does not do: {fault}. {_AGAIN}"),
    )
    return replace(request, messages=turns)
