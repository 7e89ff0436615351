"""What is said to a question: the same request, the same words, in every process and on every day."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import orjson

from corpusgen.mock.examples import example
from corpusgen.mock.question import Question
from corpusgen.records import Json, Usage

_TEXT: Final = (
    "the quiet river carries grey stones past an old mill where seven patient birds wait for bread and a boy counts"
    " them twice before rain begins to fall on roofs of warm red clay while far away some bell rings for nobody"
)
WORDS: Final = tuple(_TEXT.split())
_SPACED: Final = tuple(f" {word}" for word in WORDS)
_MANY: Final = len(WORDS)
_LONGEST: Final = 24
_BY_DRAW: Final = tuple(tuple(_SPACED[(draw * 7 + at) % _MANY] for draw in range(256)) for at in range(_LONGEST))
"""The word at each position, for each byte of a digest."""
_PIECE: Final = re.compile(r".{1,4}", re.DOTALL)

Finish = Literal["stop", "length", "tool_calls"]


@dataclass(kw_only=True, slots=True)
class Said:
    """One choice of an answer."""

    tokens: tuple[str, ...]
    """Of its words, or of the arguments of the tool it calls."""
    finish_reason: Finish
    thoughts: tuple[str, ...] = ()
    calls: str | None = None
    """The tool that is called."""
    stopped_by: str | None = None
    """The stop sequence that was met."""

    @property
    def text(self) -> str:
        """The tokens as one text."""
        return "".join(self.tokens)

    @property
    def thinking(self) -> str:
        """The thoughts as one text."""
        return "".join(self.thoughts)


@dataclass(kw_only=True, slots=True)
class Answer:
    """What is said to a question, and the tokens it takes."""

    choices: tuple[Said, ...]
    usage: Usage
    tier: str | None = None
    """Where the provider names the tier that answered."""

    @property
    def tokens(self) -> tuple[str, ...]:
        """The tokens of the first choice."""
        return self.choices[0].tokens

    @property
    def finish_reason(self) -> Finish:
        """Why the first choice ends."""
        return self.choices[0].finish_reason

    @property
    def text(self) -> str:
        """The first choice as one text."""
        return "".join(self.choices[0].tokens)


def answer_to(question: Question, labels: Sequence[str] = ()) -> Answer:
    """The answer to a question: some words, one of the labels, or JSON, chosen by the question's digest."""
    if question.api == "embeddings":
        return Answer(choices=(), usage=Usage(input_tokens=question.input_tokens, output_tokens=0))
    choices = tuple([_said(question, at, labels) for at in range(question.choices)])
    thought = sum([len(said.thoughts) for said in choices]) if question.thoughts else 0
    return Answer(
        choices=choices,
        usage=Usage(
            input_tokens=question.input_tokens,
            output_tokens=thought + sum([len(said.tokens) for said in choices]),
            reasoning_tokens=thought,
        ),
    )


def _said(question: Question, at: int, labels: Sequence[str]) -> Said:
    draws = _draws(question, at)
    thoughts = _thoughts(question, draws) if question.thoughts else ()
    calls = None if question.tool is None else question.tool.name
    tokens = _json(question, draws) if calls or question.schema else _words(question, draws, labels)
    tokens, stopped_by = _stopped(tokens, question.stop) if question.stop else (tokens, None)
    room = question.max_tokens - len(thoughts)
    if room < len(tokens):
        return Said(tokens=tuple(tokens[:room]), finish_reason="length", thoughts=thoughts, calls=calls)
    finish: Finish = "stop" if calls is None else "tool_calls"
    return Said(tokens=tuple(tokens), finish_reason=finish, thoughts=thoughts, calls=calls, stopped_by=stopped_by)


def _draws(question: Question, at: int) -> bytes:
    key = question.key if at == 0 else f"{question.key}:{at}"
    return hashlib.sha256(key.encode()).digest()


def _thoughts(question: Question, draws: bytes) -> tuple[str, ...]:
    many = min(question.thoughts, question.max_tokens)
    return tuple([_SPACED[draws[(at + 9) % 32] % _MANY] for at in range(many)])


def _words(question: Question, draws: bytes, labels: Sequence[str]) -> list[str]:
    if labels:
        spaced = [f" {labels[draws[0] % len(labels)]}"]
    else:
        spaced = [row[draw] for row, draw in zip(_BY_DRAW, draws[: 4 + draws[31] % 20], strict=False)]
    if question.api != "completion":
        spaced[0] = spaced[0][1:]
    return spaced


def _json(question: Question, draws: bytes) -> list[str]:
    schema = question.tool.schema if question.tool is not None else question.schema
    return _PIECE.findall(orjson.dumps(example(schema, draws)).decode())


def _stopped(tokens: list[str], stop: Sequence[str]) -> tuple[list[str], str | None]:
    """The tokens up to the first stop sequence, and that sequence."""
    text = "".join(tokens)
    found = sorted((text.index(mark), mark) for mark in stop if mark and mark in text)
    if not found:
        return tokens, None
    kept, left = [], found[0][0]
    for token in tokens:
        if left <= 0:
            break
        kept.append(token[:left])
        left -= len(token)
    return kept, found[0][1]


# --- log-probabilities -----------------------------------------------------------------------------------------------


def ranking(token: str, index: int, question: Question, labels: Sequence[str]) -> dict[str, float]:
    """The log-probabilities of a token and of its runners-up."""
    space = " " if token.startswith(" ") else ""
    if labels and index == 0:
        draws = _draws(question, 0)
        weights = [8 if space + label == token else 1 + draws[at % 32] % 7 for at, label in enumerate(labels)]
        # A tenth of the probability stays with tokens that are no label, as it does with real models.
        pairs = zip(labels, weights, strict=True)
        return {space + label: math.log(0.9 * weight / sum(weights)) for label, weight in pairs}
    others = {f"{space}{word}": -2.5 - at for at, word in enumerate(WORDS[:20]) if space + word != token}
    return {token: -0.25, **others}


def best(ranked: Mapping[str, float], most: int) -> dict[str, float]:
    """The most likely of them, in order."""
    return dict(sorted(ranked.items(), key=lambda entry: (-entry[1], entry[0]))[:most])


def spelt_logprobs(said: Said, question: Question, labels: Sequence[str]) -> list[dict[str, Json]]:
    """Each token with its runners-up, as OpenAI's chat and responses spell them."""
    most = question.top_logprobs or 0
    ranked = [(token, ranking(token, at, question, labels)) for at, token in enumerate(said.tokens)]
    return [_position(token, found, most) for token, found in ranked]


def _position(token: str, ranked: Mapping[str, float], most: int) -> dict[str, Json]:
    runners_up = [_entry(text, logprob) for text, logprob in best(ranked, most).items()]
    # A choice that was stopped within a token says part of it, which is in no ranking.
    return {**_entry(token, ranked.get(token, -0.25)), "top_logprobs": runners_up}


def _entry(token: str, logprob: float) -> dict[str, Json]:
    return {"token": token, "logprob": logprob, "bytes": list(token.encode())}
