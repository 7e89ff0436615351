"""Answers that a judge gave a low score. Who judges, and how it is asked, is not decided here."""

from __future__ import annotations

import math
from typing import Annotated, Final, Literal

from pydantic import Field

from corpusgen.curation import judging
from corpusgen.curation.finding import Finding
from corpusgen.curation.judging import fails, passes, remark
from corpusgen.records import Json, Record

SUMMARY: Final = "a judge's score is too low"
EXAMPLE: Final[dict[str, Json]] = {"min_score": 3.0}
METRIC: Final = "judge's score"


class Settings(judging.Settings):
    """Which score is read, and the least that passes, on the judge's own scale."""

    min_score: float = Field(description="Least score, on the scale the judge was given")
    verdict: Annotated[str, Field(min_length=1, max_length=100)] = Field(
        "judge", description="Name of the verdict whose score is read; of several the last"
    )
    unscored: Literal["keep", "drop"] = Field("keep", description="What happens to an answer that nobody has judged")


def check(record: Record, settings: Settings) -> Finding:
    """Whether the answer was judged well enough."""
    score = score_of(record, settings.verdict)
    if score is None:
        reason = "no judge has given a score"
        return remark("judge", reason) if settings.unscored == "keep" else fails("judge", reason)
    if score < settings.min_score:
        return fails("judge", "judged too low", metric=METRIC, score=score, threshold=settings.min_score)
    return passes("judge", metric=METRIC, score=score, threshold=settings.min_score)


def score_of(record: Record, verdict: str) -> float | None:
    """The last score that a verdict of that name gives."""
    scores = [one.score for one in record.verdicts if one.check == verdict and one.score is not None]
    return scores[-1] if scores and not math.isnan(scores[-1]) else None
