"""Turning a teacher's label log-probabilities into probabilities that can be believed.

Two different things go by the name of calibration. A *label calibration* removes a small model's habit of preferring
some labels whatever it reads; which one is used is chosen on validation items. A *temperature* then makes the
confidence honest; it changes no answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from corpusgen.records import Json

Floats: TypeAlias = npt.NDArray[np.float64]
Integers: TypeAlias = npt.NDArray[np.int64]
CalibrationKind: TypeAlias = Literal["raw", "batch", "prior"]

BINS = 10
STRENGTHS = tuple(number / 20 for number in range(1, 20))


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What is subtracted from raw label log-probabilities; ``vector`` has one number per label, in label order.

    ``raw`` subtracts nothing. ``batch`` subtracts the mean over a random sample of the pool, which makes every label
    equally likely on average. That mean holds two things, the teacher's liking for some labels and the true shares of
    an uneven pool, and only the first is an error: ``prior`` subtracts the part of it that makes validation gold
    likeliest. The ``temperature`` changes no answer, only how sure it is.
    """

    kind: CalibrationKind
    vector: tuple[float, ...]
    temperature: float = 1.0
    runs: tuple[str, ...] = field(default=(), compare=False)
    """The runs whose answers it was made from; empty where an earlier version did not keep them."""

    def apply(self, logprobs: Floats) -> Floats:
        """Normalised log-probabilities (n x k). A missing label (NaN) gets none; a row of nothing stays NaN."""
        return at_temperature(np.asarray(logprobs, np.float64) - np.asarray(self.vector), self.temperature)

    def to_json(self) -> dict[str, Json]:
        """The calibration as a dataset's manifest keeps it."""
        told: dict[str, Json] = {"kind": self.kind, "vector": list(self.vector), "temperature": self.temperature}
        return told | ({"runs": list(self.runs)} if self.runs else {})

    @classmethod
    def from_json(cls, fields: Mapping[str, Json]) -> Calibration:
        """What ``to_json`` gave."""
        return cls(
            kind=fields["kind"],
            vector=tuple(fields["vector"]),
            temperature=fields["temperature"],
            runs=tuple(fields.get("runs", ())),
        )


@dataclass(frozen=True, kw_only=True)
class CalibrationChoice:
    """The calibration that did best on validation, every candidate's accuracy there, and the temperature.

    ``strength`` is the part of the mean that ``prior`` subtracts. It and the chosen calibration's temperature are the
    only numbers fitted on validation gold.
    """

    chosen: Calibration
    candidates: Mapping[CalibrationKind, Calibration]
    accuracies: Mapping[CalibrationKind, float]
    strength: float
    validation_items: int
    pool_items: int


@dataclass(frozen=True, kw_only=True)
class ReliabilityBin:
    """Items whose confidence lies in (low, high]: how sure they were and how often they were right."""

    low: float
    high: float
    items: int
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """How honest the probabilities are: expected calibration error over ten bins, Brier score, and the bins."""

    ece: float
    brier: float
    bins: tuple[ReliabilityBin, ...]


def choose_calibration(
    validation_logprobs: Floats, validation_gold: Integers, pool_logprobs: Floats
) -> CalibrationChoice:
    """The candidate with the most right answers on validation; of equals, the one under which gold is likelier.

    All are raw (n x k, NaN for missing); the pool's must be of a random sample, never of chosen items.
    """
    mean = pool_mean(pool_logprobs)
    strength = min(
        STRENGTHS, key=lambda part: _loss_at_best_temperature(validation_logprobs - part * mean, validation_gold)
    )
    candidates: dict[CalibrationKind, Calibration] = {
        "raw": _calibration("raw", np.zeros_like(mean)),
        "batch": _calibration("batch", mean),
        "prior": _calibration("prior", strength * mean),
    }
    applied = {kind: candidate.apply(validation_logprobs) for kind, candidate in candidates.items()}
    accuracies = {kind: accuracy(scores, validation_gold) for kind, scores in applied.items()}
    losses = {kind: _loss_at_best_temperature(scores, validation_gold) for kind, scores in applied.items()}
    chosen = max(candidates, key=lambda kind: (accuracies[kind], -losses[kind]))
    return CalibrationChoice(
        chosen=replace(candidates[chosen], temperature=fit_temperature(applied[chosen], validation_gold)),
        candidates=candidates,
        accuracies=accuracies,
        strength=strength,
        validation_items=len(validation_gold),
        pool_items=len(pool_logprobs),
    )


def pool_mean(pool_logprobs: Floats) -> Floats:
    """Mean log-probability of each label, around zero; what is missing is left out, a label never seen counts as 0."""
    known = ~np.isnan(pool_logprobs)
    mean = np.where(known, pool_logprobs, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    centred: Floats = mean - mean.mean()
    return centred


def _calibration(kind: CalibrationKind, vector: Floats) -> Calibration:
    return Calibration(kind=kind, vector=tuple(vector.tolist()))


def _loss_at_best_temperature(scores: Floats, gold: Integers) -> float:
    return gold_loss(at_temperature(scores, fit_temperature(scores, gold)), gold)


def normalise(scores: Floats) -> Floats:
    """Log-probabilities that sum to one in each row; NaN counts as impossible, a row of NaN stays NaN."""
    filled = np.where(np.isnan(scores), -np.inf, scores)
    top = filled.max(axis=1, keepdims=True)
    known = np.isfinite(top)
    shifted = filled - np.where(known, top, 0.0)
    with np.errstate(divide="ignore"):
        total = np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return np.where(known, shifted - np.where(known, total, 0.0), np.nan)


def accuracy(scores: Floats, gold: Integers) -> float:
    """Share of rows whose best label is gold; a row of NaN is wrong."""
    known = ~np.isnan(scores).all(axis=1)
    best = np.where(np.isnan(scores), -np.inf, scores).argmax(axis=1)
    return float(np.mean(known & (best == gold)))


def at_temperature(logprobs: Floats, temperature: float) -> Floats:
    """The same scores flattened (above 1) or sharpened (below 1), normalised again."""
    return normalise(logprobs / temperature)


def fit_temperature(logprobs: Floats, gold: Integers) -> float:
    """The temperature between 1/8 and 8 under which gold is likeliest; 1 when there is nothing to fit on."""
    if not len(gold):
        return 1.0
    grid = np.exp2(np.linspace(-3.0, 3.0, 121))
    losses = [gold_loss(at_temperature(logprobs, float(temperature)), gold) for temperature in grid]
    return float(grid[int(np.argmin(losses))])


def gold_loss(logprobs: Floats, gold: Integers) -> float:
    """Mean negative log-probability of gold; what is impossible or missing counts as one in a million."""
    of_gold = logprobs[np.arange(len(gold)), gold]
    return -float(np.mean(np.maximum(np.nan_to_num(of_gold, nan=-np.inf, neginf=-np.inf), np.log(1e-6))))


def reliability(logprobs: Floats, gold: Integers) -> Reliability:
    """Calibration error, Brier score and reliability bins of normalised log-probabilities against gold."""
    known = ~np.isnan(logprobs).all(axis=1)
    probabilities, wanted = np.exp(logprobs[known]), gold[known]
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == wanted
    bins = _bins(confidence, right)
    gaps = [
        one.items * abs(one.confidence - one.accuracy)
        for one in bins
        if one.confidence is not None and one.accuracy is not None
    ]
    brier = ((probabilities - np.eye(probabilities.shape[1])[wanted]) ** 2).sum(axis=1)
    return Reliability(ece=float(sum(gaps) / len(wanted)), brier=float(brier.mean()), bins=bins)


def _bins(confidence: Floats, right: npt.NDArray[np.bool_]) -> tuple[ReliabilityBin, ...]:
    place = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
    return tuple(_bin(number, confidence[place == number], right[place == number]) for number in range(BINS))


def _bin(number: int, confidence: Floats, right: npt.NDArray[np.bool_]) -> ReliabilityBin:
    return ReliabilityBin(
        low=number / BINS,
        high=(number + 1) / BINS,
        items=len(right),
        confidence=float(confidence.mean()) if len(right) else None,
        accuracy=float(right.mean()) if len(right) else None,
    )
