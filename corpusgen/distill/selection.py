"""Choosing how a student is fitted, by what the teacher said of items the student has not seen. Never by gold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from corpusgen.distill.losses import Loss
from corpusgen.distill.students.bag import FitSettings, TextSpace, design, fit

Floats: TypeAlias = npt.NDArray[np.float64]
Integers: TypeAlias = npt.NDArray[np.int64]
LossKind: TypeAlias = Literal["auto", "hard", "soft", "both"]

LOSSES: dict[LossKind, tuple[Loss, ...]] = {
    "hard": (Loss(hard=1.0, soft=0.0),),
    "soft": (Loss(hard=0.0, soft=1.0, temperature=1.0),),
    "both": (Loss(hard=0.5, soft=0.5, temperature=1.0),),
}
PENALTIES = (1e-5, 3e-5)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One way of fitting: how often it agreed with the teacher on held-out items, and how far off it was in nats."""

    settings: FitSettings
    agreement: float
    divergence: float


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The way of fitting that agreed most with the teacher, with all that were tried, best first."""

    chosen: FitSettings
    trials: tuple[Trial, ...]
    folds: int
    items: int


def ways_to_fit(kind: LossKind, penalties: Sequence[float] = PENALTIES) -> tuple[FitSettings, ...]:
    """The settings to try for a kind of loss; ``auto`` tries them all."""
    losses = [loss for found in LOSSES.values() for loss in found] if kind == "auto" else LOSSES[kind]
    return tuple(FitSettings(loss=loss, penalty=penalty) for loss, penalty in product(losses, penalties))


def choose_settings(
    space: TextSpace,
    texts: Sequence[str],
    targets: Floats,
    ways: Sequence[FitSettings],
    *,
    folds: int = 3,
    seed: int = 0,
) -> Selection:
    """Cross-validate every way of fitting on the teacher's answers (probabilities, n x k) and take the best."""
    tried = np.zeros((len(ways), len(texts), targets.shape[1]))
    for kept, held_out in _folds(len(texts), folds, seed):
        lesson = design(space, [texts[at] for at in kept])
        asked = [texts[at] for at in held_out]
        for number, way in enumerate(ways):
            student = fit(lesson, targets[kept], range_labels(targets.shape[1]), way)
            tried[number, held_out] = student.log_probabilities(asked)
    trials = [_judge(way, scores, targets) for way, scores in zip(ways, tried, strict=True)]
    trials.sort(key=lambda trial: (-trial.agreement, trial.divergence))
    return Selection(chosen=trials[0].settings, trials=tuple(trials), folds=folds, items=len(texts))


def range_labels(count: int) -> tuple[str, ...]:
    """Stand-in label names, for students that are thrown away after scoring."""
    return tuple(map(str, range(count)))


def _judge(way: FitSettings, scores: Floats, targets: Floats) -> Trial:
    return Trial(
        settings=way,
        agreement=float(np.mean(scores.argmax(axis=1) == targets.argmax(axis=1))),
        divergence=-float(np.mean(np.sum(targets * scores, axis=1))),
    )


def _folds(items: int, folds: int, seed: int) -> Iterator[tuple[Integers, Integers]]:
    order = np.random.default_rng(seed).permutation(items)
    for number in range(folds):
        held_out = np.sort(order[number::folds])
        yield np.setdiff1d(order, held_out), held_out
