"""What the mock teacher says: the same request, the same answer, in every process and on every day."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import orjson

from corpusgen.records import Json, Usage, canonical_json

DEFAULT_MAX_TOKENS: Final = 256
_TOKENS_PER_MESSAGE: Final = 4
_TEXT: Final = (
    "the quiet river carries grey stones past an old mill where seven patient birds wait for bread and a boy counts"
    " them twice before rain begins to fall on roofs of warm red clay while far away some bell rings for nobody"
)
_WORDS: Final = tuple(_TEXT.split())


class NotARequest(ValueError):
    """The body is not a question this server understands; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """One request as the server reads it."""

    key: str
    """sha256 of the canonical body: equal requests, equal key."""
    api: Literal["chat", "completion"]
    model: str
    text: str
    """The last message, or the prompt: where a fault may be asked for by name."""
    input_tokens: int
    max_tokens: int
    top_logprobs: int | None


def read_question(api: Literal["chat", "completion"], body: bytes) -> Question:
    """The question in a request body. Raises NotARequest."""
    try:
        asked = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise NotARequest(f"the body is not JSON: {error}") from error
    if not isinstance(asked, dict):
        raise NotARequest("the body is not an object")
    if asked.get("stream"):
        raise NotARequest("stream: this server answers whole; leave it out")
    texts = _chat_texts(asked) if api == "chat" else _prompt_text(asked)
    return Question(
        key=hashlib.sha256(canonical_json(asked)).hexdigest(),
        api=api,
        model=str(asked.get("model", "mock")),
        text=texts[-1],
        input_tokens=sum(-(-len(text.encode()) // 4) + _TOKENS_PER_MESSAGE for text in texts),
        max_tokens=_max_tokens(asked),
        top_logprobs=asked.get("top_logprobs") if api == "chat" else asked.get("logprobs"),
    )


def _chat_texts(asked: Mapping[str, Json]) -> list[str]:
    messages = asked.get("messages")
    if not isinstance(messages, list) or not messages:
        raise NotARequest("messages: a list of at least one message is needed")
    return [_content(message) for message in messages]


def _content(message: Json) -> str:
    text = message.get("content") if isinstance(message, dict) else None
    if not isinstance(text, str):
        raise NotARequest("messages: every content must be text")
    return text


def _prompt_text(asked: Mapping[str, Json]) -> list[str]:
    prompt = asked.get("prompt")
    if not isinstance(prompt, str):
        raise NotARequest("prompt: one text is needed")
    return [prompt]


def _max_tokens(asked: Mapping[str, Json]) -> int:
    limit = asked.get("max_tokens", asked.get("max_completion_tokens", DEFAULT_MAX_TOKENS))
    if type(limit) is not int or limit < 1:
        raise NotARequest(f"max_tokens: a whole number of 1 or more is needed, found {limit!r}")
    return limit


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What is said to a question, and the tokens it takes."""

    tokens: tuple[str, ...]
    finish_reason: Literal["stop", "length"]
    usage: Usage

    @property
    def text(self) -> str:
        """The tokens as one text."""
        return "".join(self.tokens)


def answer_to(question: Question, labels: Sequence[str] = ()) -> Answer:
    """The answer to a question: some words, or one of the labels, chosen by the question's digest."""
    draws = hashlib.sha256(question.key.encode()).digest()
    if labels:
        words = [labels[draws[0] % len(labels)]]
    else:
        words = [_WORDS[(draws[index] * 7 + index) % len(_WORDS)] for index in range(4 + draws[31] % 20)]
    spaced = [word if question.api == "chat" and index == 0 else f" {word}" for index, word in enumerate(words)]
    kept = tuple(spaced[: question.max_tokens])
    return Answer(
        tokens=kept,
        finish_reason="stop" if len(kept) == len(spaced) else "length",
        usage=Usage(input_tokens=question.input_tokens, output_tokens=len(kept)),
    )


def reply_to(question: Question, answer: Answer, labels: Sequence[str] = ()) -> dict[str, Any]:
    """The answer in the shape of OpenAI's wire format."""
    choice: dict[str, Json] = {"index": 0, "finish_reason": answer.finish_reason}
    if question.api == "chat":
        choice["message"] = {"role": "assistant", "content": answer.text}
    else:
        choice["text"] = answer.text
    choice["logprobs"] = _logprobs(question, answer, labels)
    return {
        "id": f"mock-{question.key[:24]}",
        "object": "chat.completion" if question.api == "chat" else "text_completion",
        "model": question.model,
        "choices": [choice],
        "usage": usage_of(answer.usage),
    }


def usage_of(usage: Usage) -> dict[str, Json]:
    """Token counts in the shape of OpenAI's wire format."""
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
    }


def _logprobs(question: Question, answer: Answer, labels: Sequence[str]) -> Json:
    if question.top_logprobs is None:
        return None
    ranked = [_ranking(token, index, question, labels) for index, token in enumerate(answer.tokens)]
    if question.api == "completion":
        return {
            "tokens": list(answer.tokens),
            "token_logprobs": [ranking[token] for token, ranking in zip(answer.tokens, ranked, strict=True)],
            "top_logprobs": [_best(ranking, question.top_logprobs) for ranking in ranked],
        }
    positions = zip(answer.tokens, ranked, strict=True)
    return {"content": [_position(token, ranking, question.top_logprobs) for token, ranking in positions]}


def _ranking(token: str, index: int, question: Question, labels: Sequence[str]) -> dict[str, float]:
    space = " " if token.startswith(" ") else ""
    if labels and index == 0:
        draws = hashlib.sha256(question.key.encode()).digest()
        weights = [8 if space + label == token else 1 + draws[at % 32] % 7 for at, label in enumerate(labels)]
        # A tenth of the probability stays with tokens that are no label, as it does with real models.
        pairs = zip(labels, weights, strict=True)
        return {space + label: math.log(0.9 * weight / sum(weights)) for label, weight in pairs}
    others = {f"{space}{word}": -2.5 - at for at, word in enumerate(_WORDS[:20]) if space + word != token}
    return {token: -0.25, **others}


def _best(ranking: Mapping[str, float], most: int) -> dict[str, float]:
    return dict(sorted(ranking.items(), key=lambda entry: (-entry[1], entry[0]))[:most])


def _position(token: str, ranking: Mapping[str, float], most: int) -> dict[str, Json]:
    runners_up = [_entry(text, logprob) for text, logprob in _best(ranking, most).items()]
    return {**_entry(token, ranking[token]), "top_logprobs": runners_up}


def _entry(token: str, logprob: float) -> dict[str, Json]:
    return {"token": token, "logprob": logprob, "bytes": list(token.encode())}
