"""Calls of clients and answers of the mock teacher to them, in every wire format; nothing is sent."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final, get_args

import anthropic.types
import openai.types
import openai.types.chat
import openai.types.responses
import orjson
from pydantic import BaseModel

from corpusgen.mock.answer import DIALECT_OF, answer_to
from corpusgen.mock.plan import KINDS
from corpusgen.records import Completion, Json, Reply, Request
from corpusgen.serve.wires.calls import Call, Wire, read_call
from corpusgen.serve.wires.translating import request_of_call
from corpusgen.teachers.reading import body_of, read_choices
from corpusgen.teachers.teacher import Capabilities, TeacherCard

WIRES: Final[tuple[Wire, ...]] = get_args(Wire)
TALKS: Final[tuple[Wire, ...]] = ("chat", "messages", "responses")
ANSWERS: Final[dict[Wire, type[BaseModel]]] = {
    "chat": openai.types.chat.ChatCompletion,
    "completion": openai.types.Completion,
    "responses": openai.types.responses.Response,
    "messages": anthropic.types.Message,
}
"""What each client takes an answer for."""
BESIDES: Final = frozenset({"reasoning_content", "thinking_blocks"})
"""What servers of open models tell in a chat, and OpenAI's types do not know."""
WEATHER: Final = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
CARD: Final = TeacherCard(
    name="mock/m",
    identity="mock@http://localhost",
    provider="mock",
    model="m-1",
    route="mock",
    host="localhost",
    weights_sha256=None,
    capabilities=Capabilities(apis=frozenset({"chat", "completion"}), top_logprobs=20, parameters=None),
    in_flight=1,
)


def chat(text: str = "a swan", /, **fields: Json) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": text}], **fields}


def messages(text: str = "a swan", /, **fields: Json) -> dict[str, Any]:
    return {"model": "m", "max_tokens": 64, "messages": [{"role": "user", "content": text}], **fields}


def responses(text: str = "a swan", /, **fields: Json) -> dict[str, Any]:
    return {"model": "m", "input": text, **fields}


def completion(text: str = "a swan", /, **fields: Json) -> dict[str, Any]:
    return {"model": "m", "prompt": text, **fields}


MADE: Final = {"chat": chat, "messages": messages, "responses": responses, "completion": completion}
FUNCTION: Final = {"name": "weather", "description": "of a city", "parameters": WEATHER}
TOOLS: Final[dict[Wire, list[Json]]] = {
    "chat": [{"type": "function", "function": FUNCTION}],
    "messages": [{"name": "weather", "description": "of a city", "input_schema": WEATHER}],
    "responses": [{"type": "function", "strict": True, **FUNCTION}],
}
THINKING: Final[dict[Wire, dict[str, Json]]] = {
    "chat": {"reasoning_effort": "low"},
    "messages": {"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}},
    "responses": {"reasoning": {"effort": "low", "summary": "auto"}, "include": ["reasoning.encrypted_content"]},
}
FORMS: Final[dict[Wire, dict[str, Json]]] = {
    "chat": {
        "response_format": {"type": "json_schema", "json_schema": {"name": "w", "strict": True, "schema": WEATHER}}
    },
    "messages": {"output_config": {"format": {"type": "json_schema", "schema": WEATHER}}},
    "responses": {"text": {"format": {"type": "json_schema", "name": "w", "strict": True, "schema": WEATHER}}},
}
SHORT: Final[dict[Wire, dict[str, Json]]] = {
    "chat": {"max_completion_tokens": 3},
    "messages": {"max_tokens": 3},
    "responses": {"max_output_tokens": 3},
}


def calls_of(wire: Wire) -> Iterator[dict[str, Any]]:
    """What clients of one wire format send, each with something else to answer."""
    yield MADE[wire]()
    if wire == "completion":
        yield completion(logprobs=3, n=2, max_tokens=3, stop=["river"])
        return
    yield MADE[wire](**SHORT[wire])
    for extra in (THINKING[wire], FORMS[wire], {"tools": TOOLS[wire]}):
        yield MADE[wire](**extra)
        yield MADE[wire](**extra, **SHORT[wire])
    if wire == "chat":
        yield chat(n=3, logprobs=True, top_logprobs=2)
    if wire == "responses":
        yield responses(include=["message.output_text.logprobs"], top_logprobs=2)


def asked(body: dict[str, Any], wire: Wire, api: Any | None = None) -> tuple[Call, Request]:
    """The call in a body, and the request a teacher of another wire format is asked."""
    call = read_call(wire, body)
    return call, request_of_call(call, api=api or wire, card=CARD, defaults={"max_tokens": 64}, sample=0)


def replies_to(request: Request) -> Iterator[bytes]:
    """What the mock teacher says to a request: the good answer, and each that a fault makes of it."""
    dialect = DIALECT_OF[request.api]
    question = dialect.read(body_of(request), {"anthropic-version": "2023-06-01"})
    good = dialect.reply(question, answer_to(question), ())
    yield orjson.dumps(good)
    for kind in KINDS.values():
        if kind.change is not None and question.api in kind.apis:
            yield orjson.dumps(kind.change(dialect, good))


def read(request: Request, body: bytes) -> tuple[Completion, ...]:
    """What a teacher reads of a body. Raises InvalidAnswer."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return read_choices(request, Reply(body=body, request_id=None, sent_time=now, received_time=now))


def taken(wire: Wire, body: bytes) -> BaseModel:
    """The answer as the official client's own type has it, with every field of it known there and of its type."""
    answer = ANSWERS[wire].model_validate_json(body, strict=True)
    assert list(_strangers(answer, wire)) == []
    return answer


def _strangers(value: object, path: str) -> Iterator[str]:
    if isinstance(value, BaseModel):
        yield from (f"{path}.{name}" for name in (value.model_extra or {}).keys() - BESIDES)
        for name in type(value).model_fields:
            yield from _strangers(getattr(value, name), f"{path}.{name}")
    if isinstance(value, list):
        for at, item in enumerate(value):
            yield from _strangers(item, f"{path}[{at}]")
