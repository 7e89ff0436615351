"""OpenAI's older Completions: ``POST /v1/completions``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Final

from corpusgen.mock.dialect import CREATED, Dialect, Reply, Shape, event
from corpusgen.mock.openai_chat import (
    CHAT_COUNTS,
    MOST_CHOICES,
    chat_usage,
    max_tokens,
    pieces,
    stop_sequences,
    usage_event,
    wants_usage,
)
from corpusgen.mock.openai_errors import openai_error
from corpusgen.mock.question import Asked, Headers, NotARequest, Question, key_of, parse, tokens_in, whole
from corpusgen.mock.saying import Answer, Said, best, ranking
from corpusgen.records import Json


def _read(body: bytes, headers: Headers) -> Question:
    asked = parse(body)
    prompt, model = _prompt(asked), str(asked.get("model", "mock"))
    return Question(
        key=key_of(asked),
        api="completion",
        model=model,
        text=prompt,
        input_tokens=tokens_in([prompt], model),
        max_tokens=max_tokens(asked),
        top_logprobs=None if asked.get("logprobs") is None else whole(asked, "logprobs", 0, least=0),
        choices=whole(asked, "n", 1, most=MOST_CHOICES),
        stop=stop_sequences(asked),
        stream=asked.get("stream") is True,
        asked=asked,
    )


def _prompt(asked: Asked) -> str:
    prompt = asked.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if not isinstance(prompt, str):
        raise NotARequest("prompt: one text is needed")
    return prompt


def _reply(question: Question, answer: Answer, labels: Sequence[str]) -> Reply:
    return {
        "id": f"cmpl-mock-{question.key[:24]}",
        "object": "text_completion",
        "created": CREATED,
        "model": question.model,
        "system_fingerprint": "fp_mock",
        "choices": [_choice(question, at, said, labels) for at, said in enumerate(answer.choices)],
        "usage": chat_usage(answer.usage),
    }


def _choice(question: Question, at: int, said: Said, labels: Sequence[str]) -> dict[str, Json]:
    logprobs = None if question.top_logprobs is None else _logprobs(question, said, labels)
    return {"text": said.text, "index": at, "logprobs": logprobs, "finish_reason": said.finish_reason}


def _logprobs(question: Question, said: Said, labels: Sequence[str]) -> dict[str, Json]:
    ranked = [(token, ranking(token, at, question, labels)) for at, token in enumerate(said.tokens)]
    starts = accumulate((len(token) for token in said.tokens), initial=len(question.text))
    return {
        "tokens": list(said.tokens),
        "token_logprobs": [found.get(token, -0.25) for token, found in ranked],
        "top_logprobs": [best(found, question.top_logprobs or 0) for _, found in ranked],
        "text_offset": list(starts)[:-1],
    }


def _events(question: Question, reply: Reply) -> Iterator[bytes]:
    chunk = {name: value for name, value in reply.items() if name not in ("choices", "usage")}
    if wants_usage(question):
        chunk["usage"] = None
    for choice in reply["choices"]:
        for piece in pieces(choice["text"]):
            told = {"index": choice["index"], "text": piece, "logprobs": None, "finish_reason": None}
            yield event({**chunk, "choices": [told]})
        yield event({**chunk, "choices": [{**choice, "text": ""}]})
    yield from usage_event(question, chunk, reply)
    yield b"data: [DONE]\n\n"


def _said(reply: Reply, text: Json, reason: str, refusal: Json) -> Reply:
    return _changed(reply, text=text, finish_reason=reason)


def _finished(reply: Reply, reason: Json) -> Reply:
    return _changed(reply, finish_reason=reason)


def _silent(reply: Reply) -> Reply:
    return {**reply, "choices": []}


def _logprob(reply: Reply, value: Json) -> Reply:
    return _changed(reply, logprobs={"tokens": ["x"], "token_logprobs": [value], "top_logprobs": [{"x": value}]})


def _changed(reply: Reply, **fields: Json) -> Reply:
    return {**reply, "choices": [{**reply["choices"][0], **fields}]}


COMPLETIONS: Final = Dialect(
    api="completion",
    path="/v1/completions",
    vendor="openai",
    request_id="x-request-id",
    read=_read,
    reply=_reply,
    events=_events,
    error=openai_error,
    shape=Shape(counts=CHAT_COUNTS, said=_said, finished=_finished, silent=_silent, logprob=_logprob),
)
