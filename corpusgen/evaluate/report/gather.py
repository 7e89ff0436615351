"""Measurements of this package as facts of the report."""

from __future__ import annotations

from corpusgen.evaluate import calibration as measured
from corpusgen.evaluate.gap import Gap, Interval
from corpusgen.evaluate.report.facts import (
    Aim,
    CalibrationCandidate,
    CalibrationChoice,
    Confusion,
    Discordant,
    Estimate,
    Headline,
    Reliability,
    ReliabilityBin,
    Role,
)

READINGS: dict[measured.CalibrationKind, str] = {
    "raw": "log-probabilities as they come",
    "batch": "minus their mean over a random sample of the pool",
    "prior": "minus part of that mean, the part that fits the validation items",
}


def headline(
    gap: Gap, *, teacher_name: str, student_name: str, labels_asked: int, aims: tuple[Aim, ...] = ()
) -> Headline:
    """The headline of a measured gap."""
    return Headline(
        teacher_name=teacher_name,
        student_name=student_name,
        teacher=_estimate(gap.teacher),
        student=_estimate(gap.student),
        agreement=_estimate(gap.agreement),
        retention=_estimate(gap.retention),
        teacher_macro_f1=gap.teacher_macro_f1,
        student_macro_f1=gap.student_macro_f1,
        gold_items=gap.items,
        labels_asked=labels_asked,
        majority=gap.majority,
        unanswered=gap.unanswered,
        discordant=Discordant(
            only_teacher=gap.mcnemar.only_teacher, only_student=gap.mcnemar.only_student, p_value=gap.mcnemar.p_value
        ),
        aims=aims,
    )


def _estimate(found: Interval) -> Estimate:
    return Estimate(value=found.value, low=found.low, high=found.high)


def confusions(gap: Gap) -> tuple[Confusion, ...]:
    """Both confusion matrices of a measured gap, the teacher's first."""
    items = tuple(one.items for one in gap.classes)
    named: tuple[tuple[str, Role, tuple[tuple[int, ...], ...]], ...] = (
        ("Teacher", "teacher", gap.teacher_confusion),
        ("Student", "student", gap.student_confusion),
    )
    return tuple(
        Confusion(name=name, role=role, labels=gap.labels, counts=counts, items=items) for name, role, counts in named
    )


def reliability(name: str, role: Role, found: measured.Reliability) -> Reliability:
    """One reliability diagram."""
    bins = tuple(
        ReliabilityBin(
            low=one.low, high=one.high, confidence=one.confidence or 0.0, accuracy=one.accuracy or 0.0, count=one.items
        )
        for one in found.bins
    )
    return Reliability(name=name, role=role, ece=found.ece, brier=found.brier, bins=bins)


def calibration_choice(found: measured.CalibrationChoice, note: str = "") -> CalibrationChoice:
    """The candidates that were compared and the one that was chosen."""
    candidates = tuple(
        CalibrationCandidate(name=kind, accuracy=accuracy, chosen=kind == found.chosen.kind, detail=READINGS[kind])
        for kind, accuracy in found.accuracies.items()
    )
    return CalibrationChoice(candidates=candidates, validation_items=found.validation_items, note=note)
