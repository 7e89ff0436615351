"""OpenAI's Embeddings: ``POST /v1/embeddings``. Equal texts get equal vectors; shared words bring texts closer."""

from __future__ import annotations

import base64
import hashlib
import math
from array import array
from collections.abc import Iterable, Sequence
from typing import Final

from corpusgen.mock.dialect import Count, Dialect, Reply, Shape
from corpusgen.mock.openai_errors import openai_error
from corpusgen.mock.question import Asked, Headers, NotARequest, Question, key_of, listed, parse, tokens_in, whole
from corpusgen.mock.saying import Answer
from corpusgen.records import Json

DIMENSIONS: Final = 64
_MOST_DIMENSIONS: Final = 4096


def _read(body: bytes, headers: Headers) -> Question:
    asked = parse(body)
    texts = _texts(asked)
    return Question(
        key=key_of(asked),
        api="embeddings",
        model=str(asked.get("model", "mock")),
        text=texts[-1],
        input_tokens=tokens_in(texts),
        max_tokens=0,
        top_logprobs=None,
        asked=asked,
    )


def _texts(asked: Asked) -> list[str]:
    given = asked.get("input")
    texts = [given] if isinstance(given, str) else listed(given, "input")
    if not texts or not all(isinstance(text, str) and text for text in texts):
        raise NotARequest("input: a text, or a list of texts, none of them empty, is needed")
    return texts


def _reply(question: Question, answer: Answer, labels: Sequence[str]) -> Reply:
    asked = question.asked
    size = whole(asked, "dimensions", DIMENSIONS, most=_MOST_DIMENSIONS)
    vectors = [_vector(text, size) for text in _texts(asked)]
    spelt = [_packed(vector) if asked.get("encoding_format") == "base64" else vector for vector in vectors]
    tokens = answer.usage.input_tokens
    return {
        "object": "list",
        "model": question.model,
        "data": [{"object": "embedding", "index": at, "embedding": vector} for at, vector in enumerate(spelt)],
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def _vector(text: str, size: int) -> list[float]:
    """The sum of a vector for each word, of length 1."""
    total = [0.0] * size
    for word in text.lower().split() or [text]:
        digest = hashlib.shake_256(word.encode()).digest(size)
        total = [sum_ + byte - 127.5 for sum_, byte in zip(total, digest, strict=True)]
    length = math.sqrt(sum(value * value for value in total)) or 1.0
    return [value / length for value in total]


def _packed(vector: list[float]) -> str:
    return base64.b64encode(array("f", vector).tobytes()).decode()


def _no_events(question: Question, reply: Reply) -> Iterable[bytes]:
    return ()


def _unchanged(reply: Reply, *_: Json) -> Reply:
    return reply


EMBEDDINGS: Final = Dialect(
    api="embeddings",
    path="/v1/embeddings",
    vendor="openai",
    request_id="x-request-id",
    read=_read,
    reply=_reply,
    events=_no_events,
    error=openai_error,
    shape=Shape(
        counts=Count(input="prompt_tokens", output="completion_tokens", total="total_tokens", cached_in=None),
        said=_unchanged,
        finished=_unchanged,
        silent=lambda reply: {**reply, "data": []},
        logprob=_unchanged,
    ),
)
