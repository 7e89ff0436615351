"""What the mock teacher says, in every wire format it speaks: the same request, the same answer, on every day."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from corpusgen.mock.anthropic_messages import MESSAGES
from corpusgen.mock.dialect import Dialect, Reply
from corpusgen.mock.openai_chat import CHAT
from corpusgen.mock.openai_completions import COMPLETIONS
from corpusgen.mock.openai_embeddings import EMBEDDINGS
from corpusgen.mock.openai_responses import RESPONSES
from corpusgen.mock.question import Api, Headers, NotARequest, Question
from corpusgen.mock.saying import Answer, answer_to

__all__ = ["DIALECTS", "DIALECT_OF", "Answer", "NotARequest", "Question", "answer_to", "read_question", "reply_to"]

DIALECTS: Final[Mapping[str, Dialect]] = {
    dialect.path: dialect for dialect in (CHAT, COMPLETIONS, RESPONSES, MESSAGES, EMBEDDINGS)
}
"""Every wire format, by the path it is asked at."""

DIALECT_OF: Final[Mapping[Api, Dialect]] = {dialect.api: dialect for dialect in DIALECTS.values()}


def read_question(api: Api, body: bytes, headers: Headers | None = None) -> Question:
    """The question in a request body. Raises NotARequest."""
    return DIALECT_OF[api].read(body, headers or {})


def reply_to(question: Question, answer: Answer, labels: Sequence[str] = ()) -> Reply:
    """The answer in the wire format in which it was asked for."""
    return DIALECT_OF[question.api].reply(question, answer, labels)
