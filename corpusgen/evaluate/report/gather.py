"""Measurements of this package as facts of the report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from corpusgen.evaluate import calibration as measured
from corpusgen.evaluate.gap import Gap, Interval
from corpusgen.evaluate.report.facts import (
    Aim,
    CalibrationCandidate,
    CalibrationChoice,
    Confusion,
    Coverage,
    CoverageHole,
    Discordant,
    Estimate,
    Headline,
    Reliability,
    ReliabilityBin,
    Role,
    StratumCoverage,
    Variety,
)

if TYPE_CHECKING:
    from corpusgen.curation import coverage as covered

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


def coverage(found: covered.Coverage) -> Coverage:
    """What chosen items cover of their pool, as it was measured."""
    at: dict[covered.State, list[tuple[float, float]]] = {state: [] for state in found.counts}
    for spot in found.spots:
        at[spot.state].append((spot.x, spot.y))
    return Coverage(
        chosen=_variety(found.chosen),
        random=_variety(found.random),
        passed_over=found.counts["passed_over"],
        dropped=found.counts["dropped"],
        held_out=found.counts["held_out"],
        parts=found.clusters,
        explained=found.explained,
        vectors=found.vectors,
        chosen_at=tuple(at["chosen"]),
        passed_over_at=tuple(at["passed_over"]),
        dropped_at=tuple(at["dropped"]),
        held_out_at=tuple(at["held_out"]),
        holes=tuple(_hole(hole) for hole in found.holes),
        more_holes=found.more_holes,
        strata=tuple(StratumCoverage(name=one.name, pool=one.pool, chosen=one.chosen) for one in found.strata),
    )


def _hole(of: covered.Hole) -> CoverageHole:
    return CoverageHole(
        words=of.words, items=of.items, chosen=of.chosen, x=of.x, y=of.y, reach=of.reach, examples=of.examples
    )


def _variety(of: covered.Spread) -> Variety:
    return Variety(
        items=of.items,
        parts_reached=of.clusters_hit,
        vendi=of.vendi,
        mean_nearest=of.mean_nearest,
        radius=of.radius,
        distinct=of.wording.distinct,
        compression=of.wording.compression,
        self_repetition=of.wording.self_repetition,
    )
