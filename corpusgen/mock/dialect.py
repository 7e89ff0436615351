"""What every wire format has to say: how it reads a question, tells an answer and an error, and how it is spoilt."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import orjson

from corpusgen.mock.question import Api, Headers, Question
from corpusgen.mock.saying import Answer
from corpusgen.records import Json

Reply: TypeAlias = dict[str, Any]
Vendor: TypeAlias = Literal["openai", "anthropic"]

CREATED: Final = 1_767_225_600
"""When every answer was made: 2026-01-01, so that the same question gets the same bytes on every day."""


@dataclass(frozen=True, kw_only=True)
class Count:
    """What the four figures of a usage are called, and the object within it that holds the cached ones."""

    input: str
    output: str
    total: str | None
    cached_in: str | None


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Where in a reply a fault can get at what it spoils."""

    counts: Count
    said: Callable[[Reply, Json, str, Json], Reply]
    """Other words, a reason for stopping ("stop", "length" or "content_filter") and a refusal."""
    finished: Callable[[Reply, Json], Reply]
    """Another reason for stopping, in nobody's words."""
    silent: Callable[[Reply], Reply]
    """No choices at all."""
    logprob: Callable[[Reply, Json], Reply]
    """One token with this as its log-probability, and a runner-up with the same."""


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """One wire format."""

    api: Api
    path: str
    vendor: Vendor
    request_id: str
    """The header with the request's name."""
    read: Callable[[bytes, Headers], Question]
    """Raises NotARequest."""
    reply: Callable[[Question, Answer, Sequence[str]], Reply]
    events: Callable[[Question, Reply], Iterable[bytes]]
    """The reply as server-sent events."""
    error: Callable[[int, str, str | None], Reply]
    """An error of a status, in words, perhaps with a code of its own."""
    shape: Shape

    def told(self, question: Question, reply: Reply) -> bytes:
        """The reply as the client asked for it: whole or as events."""
        return b"".join(self.events(question, reply)) if question.stream else orjson.dumps(reply)


def event(data: Mapping[str, Json], name: str | None = None) -> bytes:
    """One server-sent event."""
    named = b"" if name is None else b"event: " + name.encode() + b"\n"
    return named + b"data: " + orjson.dumps(data) + b"\n\n"
