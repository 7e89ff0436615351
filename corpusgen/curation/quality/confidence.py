"""Answers their teacher was not sure of, by the log-probabilities it gave."""

from __future__ import annotations

import math
from typing import Annotated, Final

from pydantic import Field, model_validator

from corpusgen.curation import judging
from corpusgen.curation.finding import Finding
from corpusgen.curation.judging import fails, passes, remark
from corpusgen.fields import Misplaced
from corpusgen.records import Json, Record

SUMMARY: Final = "the teacher was not sure"
EXAMPLE: Final[dict[str, Json]] = {"min_mean_logprob": -1.0, "min_margin": 0.2}


class Settings(judging.Settings):
    """At least one bound. A record whose teacher gave no log-probabilities is kept with a remark."""

    min_mean_logprob: Annotated[float, Field(le=0)] | None = Field(
        None, description="Least mean log-probability of the answer's tokens (natural logarithm), such as -1.0"
    )
    min_margin: Annotated[float, Field(ge=0, le=1)] | None = Field(
        None, description="Least distance between the probabilities of the two likeliest labels; for kind: label"
    )

    @model_validator(mode="after")
    def _bounded(self) -> Settings:
        if self.min_mean_logprob is None and self.min_margin is None:
            raise Misplaced(((), "needs a bound: min_mean_logprob for answers, min_margin for labels"))
        return self


def check(record: Record, settings: Settings) -> Finding | None:
    """Whether the teacher was sure enough; for a label the margin decides where one is set, else the tokens."""
    if record.kind == "label" and settings.min_margin is not None:
        return _judged(label_margin(record), settings.min_margin, "label margin", "label")
    if settings.min_mean_logprob is not None:
        return _judged(mean_logprob(record), settings.min_mean_logprob, "mean log-probability", "answer")
    return None


def _judged(score: float | None, least: float, metric: str, what: str) -> Finding:
    if score is None:
        return remark("confidence", "the teacher gave no log-probabilities")
    if score < least:
        return fails("confidence", f"not sure of its {what}", metric=metric, score=score, threshold=least)
    return passes("confidence", metric=metric, score=score, threshold=least)


def mean_logprob(record: Record) -> float | None:
    """The mean log-probability of the tokens that have one; None where none has."""
    known = [logprob for logprob in record.token_logprobs or () if logprob is not None and not math.isnan(logprob)]
    return math.fsum(known) / len(known) if known and -math.inf not in known else (-math.inf if known else None)


def label_margin(record: Record) -> float | None:
    """The likeliest label's probability less the next one's, of calibrated ones if there are any."""
    given = record.calibrated_logprobs or record.label_logprobs or ()
    best = sorted(
        (min(logprob, 0.0) for logprob in given if logprob is not None and not math.isnan(logprob)), reverse=True
    )
    if len(best) < 2:
        return None
    return math.exp(best[0]) - math.exp(best[1])
