"""Answers that say their prompt again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final

from pydantic import Field

from corpusgen.curation import judging
from corpusgen.curation.finding import Finding
from corpusgen.curation.judging import bare_words, fails, passes
from corpusgen.records import Json, Record

SUMMARY: Final = "the answer repeats the prompt"
EXAMPLE: Final[dict[str, Json]] = {}
METRIC: Final = "share of the answer's phrases that stand in the prompt"
LOOKED_AT: Final = 200_000
_SIZE: Final = 5
_LEAST_OPENING: Final = 8


class Settings(judging.Settings):
    """How much of the prompt an answer may repeat. For tasks that edit or extract text, set ``max_share`` to 1."""

    max_share: Annotated[float, Field(gt=0, le=1)] = Field(
        0.8, description="Most of the answer's five-word phrases that may stand in the last message"
    )
    min_words: Annotated[int, Field(ge=5, le=10_000)] = Field(
        12, description="Words an answer must have for its phrases to be counted; a short one may quote"
    )


def check(record: Record, settings: Settings) -> Finding | None:
    """Whether the answer says something that its prompt does not. Labels stand in prompts, and are not looked at."""
    if record.kind == "label" or not record.messages:
        return None
    prompt = bare_words(record.messages[-1].content[:LOOKED_AT])
    answer = bare_words(record.response[:LOOKED_AT])
    if reason := _whole_prompt(prompt, answer):
        return fails("echo", reason, metric=METRIC, score=1.0, threshold=settings.max_share)
    if len(answer) < settings.min_words:
        return None
    score = _share(prompt, answer)
    if score > settings.max_share:
        return fails("echo", "repeats the prompt", metric=METRIC, score=score, threshold=settings.max_share)
    return passes("echo", metric=METRIC, score=score, threshold=settings.max_share)


def _whole_prompt(prompt: Sequence[str], answer: Sequence[str]) -> str | None:
    if len(prompt) >= 2 and answer == prompt:
        return "is the prompt"
    if len(prompt) >= _LEAST_OPENING and answer[: len(prompt)] == prompt:
        return "begins with the whole prompt"
    return None


def _share(prompt: Sequence[str], answer: Sequence[str]) -> float:
    known = set(_phrases(prompt))
    phrases = _phrases(answer)
    return sum(phrase in known for phrase in phrases) / len(phrases)


def _phrases(words: Sequence[str]) -> list[tuple[str, ...]]:
    return list(zip(*(words[start:] for start in range(_SIZE)), strict=False))
