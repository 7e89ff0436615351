"""How far a student is behind its teacher, on items whose truth is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Integers: TypeAlias = npt.NDArray[np.int64]
Booleans: TypeAlias = npt.NDArray[np.bool_]
Floats: TypeAlias = npt.NDArray[np.float64]

RESAMPLES = 2000


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A measured value with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class ClassGap:
    """One class: how many gold items it has, and recall, precision and F1 of both."""

    label: str
    items: int
    teacher_recall: float
    teacher_precision: float
    teacher_f1: float
    student_recall: float
    student_precision: float
    student_f1: float


@dataclass(frozen=True, kw_only=True)
class McNemar:
    """Items only one of the two got right, and the exact two-sided p-value that they are equally good."""

    only_teacher: int
    only_student: int
    p_value: float


@dataclass(frozen=True, kw_only=True)
class Gap:
    """Teacher against gold, student against gold, and the two against each other; read them together.

    ``retention`` is student accuracy over teacher accuracy; above 1 it says that the teacher is weak, and it is NaN
    when the teacher got nothing right. ``majority`` is the accuracy of always naming the commonest class. Confusion
    rows are gold, columns are answers, in label order.
    """

    labels: tuple[str, ...]
    items: int
    unanswered: int
    teacher: Interval
    student: Interval
    agreement: Interval
    retention: Interval
    majority: float
    teacher_macro_f1: float
    student_macro_f1: float
    mcnemar: McNemar
    teacher_confusion: tuple[tuple[int, ...], ...]
    student_confusion: tuple[tuple[int, ...], ...]
    classes: tuple[ClassGap, ...]


def measure_gap(*, gold: Integers, teacher: Integers, student: Integers, labels: Sequence[str], seed: int = 0) -> Gap:
    """The whole comparison, from label numbers of the same items; -1 stands for no answer and counts as wrong."""
    teacher_confusion = confusion(gold, teacher, len(labels))
    student_confusion = confusion(gold, student, len(labels))
    classes = per_class(labels, np.bincount(gold, minlength=len(labels)), teacher_confusion, student_confusion)
    teacher_right, student_right = teacher == gold, student == gold
    agreed = teacher == student
    samples = resample(np.stack([teacher_right, student_right, agreed]), seed)
    return Gap(
        labels=tuple(labels),
        items=len(gold),
        unanswered=int(np.sum(teacher < 0)),
        teacher=interval(float(teacher_right.mean()), samples[0]),
        student=interval(float(student_right.mean()), samples[1]),
        agreement=interval(float(agreed.mean()), samples[2]),
        retention=retention(teacher_right, student_right, samples),
        majority=float(np.bincount(gold).max() / len(gold)),
        teacher_macro_f1=float(np.mean([one.teacher_f1 for one in classes if one.items])),
        student_macro_f1=float(np.mean([one.student_f1 for one in classes if one.items])),
        mcnemar=mcnemar(teacher_right, student_right),
        teacher_confusion=_rows(teacher_confusion),
        student_confusion=_rows(student_confusion),
        classes=classes,
    )


def resample(outcomes: Booleans, seed: int) -> Floats:
    """Means of each row of ``outcomes`` (m x n) over 2000 bootstrap samples of the items, the same for every row."""
    # A bootstrap sample is a multinomial count per item, and rows of outcomes repeat: counting the few distinct
    # columns gives the same distribution without drawing n numbers for each of 2000 samples.
    patterns, counts = np.unique(outcomes, axis=1, return_counts=True)
    total = int(counts.sum())
    drawn = np.random.default_rng(seed).multinomial(total, counts / total, RESAMPLES)
    means: Floats = patterns.astype(np.float64) @ drawn.T / total
    return means


def retention(teacher_right: Booleans, student_right: Booleans, samples: Floats) -> Interval:
    """Student accuracy over teacher accuracy; samples in which the teacher got nothing right say nothing."""
    if not teacher_right.any():
        return Interval(value=np.nan, low=np.nan, high=np.nan)
    telling = samples[:, samples[0] > 0]
    return interval(float(student_right.mean() / teacher_right.mean()), telling[1] / telling[0])


def interval(value: float, samples: Floats) -> Interval:
    """The value with the middle 95 % of its bootstrap samples."""
    low, high = np.quantile(samples, (0.025, 0.975))
    return Interval(value=value, low=float(low), high=float(high))


def mcnemar(teacher_right: Booleans, student_right: Booleans) -> McNemar:
    """The exact test on the items where exactly one of the two is right."""
    from scipy.stats import binomtest  # half a second, which whoever only draws pages need not wait for

    only_teacher = int(np.sum(teacher_right & ~student_right))
    only_student = int(np.sum(student_right & ~teacher_right))
    differing = only_teacher + only_student
    p_value = float(binomtest(only_student, differing).pvalue) if differing else 1.0
    return McNemar(only_teacher=only_teacher, only_student=only_student, p_value=p_value)


def confusion(gold: Integers, answers: Integers, labels: int) -> Integers:
    """How often each gold label (row) got each answer (column); items without an answer are left out."""
    there = answers >= 0
    cells = np.bincount(gold[there] * labels + answers[there], minlength=labels * labels)
    return cells.reshape(labels, labels).astype(np.int64)


def per_class(labels: Sequence[str], items: Integers, teacher: Integers, student: Integers) -> tuple[ClassGap, ...]:
    """Recall, precision and F1 of each class, from its gold items and the two confusion matrices."""
    teacher_scores, student_scores = _scores(items, teacher), _scores(items, student)
    return tuple(
        ClassGap(
            label=label,
            items=int(items[number]),
            teacher_recall=float(teacher_scores[0][number]),
            teacher_precision=float(teacher_scores[1][number]),
            teacher_f1=float(teacher_scores[2][number]),
            student_recall=float(student_scores[0][number]),
            student_precision=float(student_scores[1][number]),
            student_f1=float(student_scores[2][number]),
        )
        for number, label in enumerate(labels)
    )


def _scores(items: Integers, matrix: Integers) -> tuple[Floats, Floats, Floats]:
    # Recall divides by all gold items, answered or not, so that not answering is never an advantage.
    hits = np.diag(matrix).astype(np.float64)
    answers = matrix.sum(axis=0)
    recall = hits / np.maximum(items, 1)
    precision = hits / np.maximum(answers, 1)
    f1 = 2 * hits / np.maximum(items + answers, 1)
    return recall, precision, f1


def _rows(matrix: Integers) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(row) for row in matrix.tolist())
