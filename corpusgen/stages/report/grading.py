"""How good the student is, in the report's facts: the headline, the curve, mistakes, confidence."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from corpusgen.evaluate.report import facts, gather
from corpusgen.stages.asking import Asked
from corpusgen.stages.report.outcome import Outcome

if TYPE_CHECKING:  # only runs that are steered have any
    from corpusgen.curation.stopping import Expected


def headline(outcome: Outcome) -> facts.Headline | None:
    """The student against gold and against its teacher, with the aims."""
    if outcome.evaluated is None or outcome.asked is None:
        return None
    return gather.headline(
        outcome.evaluated.gap,
        teacher_name=outcome.plan.teacher,
        student_name=f"{outcome.run.task.spec.student.kind} student",
        labels_asked=len(outcome.asked.train),
        aims=tuple(_aims(outcome)),
    )


def _aims(outcome: Outcome) -> Iterator[facts.Aim]:
    aims, evaluated = outcome.run.task.spec.aims, outcome.evaluated
    assert evaluated is not None
    gap = evaluated.gap
    if aims.teacher_accuracy is not None:
        yield facts.Aim(name="Teacher accuracy", wanted=aims.teacher_accuracy, reached=gap.teacher.value)
    if aims.retention is not None:
        yield facts.Aim(name="Retention", wanted=aims.retention, reached=gap.retention.value)
    if aims.retention_low is not None:
        yield facts.Aim(name="Lower end of retention", wanted=aims.retention_low, reached=gap.retention.low)
    if aims.cost_ratio is not None and evaluated.teacher_cpu_ms is not None:
        ratio = evaluated.teacher_cpu_ms / evaluated.student_cost.batch64_ms
        yield facts.Aim(name="Cost ratio at batch 64", wanted=aims.cost_ratio, reached=ratio, unit="ratio")


def curve(outcome: Outcome) -> facts.LearningCurve | None:
    """The student after each round; without gold, where its rounds were steered by how far it agreed."""
    if outcome.asked is None:
        return None
    points = _measured_on_gold(outcome) or _measured_on_the_way(outcome.asked)
    if not points:
        return None
    teacher = outcome.evaluated.gap.teacher.value if outcome.evaluated else None
    wanted = outcome.run.task.spec.aims.retention
    measured = outcome.asked.rounds[-1].measured
    return facts.LearningCurve(
        points=points,
        heldout_items=measured.items if measured else len(outcome.asked.validation),
        teacher_accuracy=teacher,
        target_accuracy=None if wanted is None or teacher is None else wanted * teacher,
        ended=outcome.asked.ended or "",
    )


def _measured_on_gold(outcome: Outcome) -> tuple[facts.CurvePoint, ...]:
    return tuple(
        facts.CurvePoint(
            round=one.number,
            labels=one.labels,
            agreement=one.agreement,
            gold_accuracy=one.gold_accuracy,
            chosen_by=one.chosen_by,
            expected=_expected(one.expected),
        )
        for one in (outcome.evaluated.curve if outcome.evaluated else ())
    )


def _measured_on_the_way(asked: Asked) -> tuple[facts.CurvePoint, ...]:
    return tuple(
        facts.CurvePoint(
            round=one.number,
            labels=one.labels,
            agreement=one.measured.agreement,
            gold_accuracy=None,
            chosen_by=one.chosen_by,
            expected=_expected(one.expected),
        )
        for one in asked.rounds
        if one.measured is not None
    )


def _expected(found: Expected | None) -> facts.Estimate | None:
    return None if found is None else facts.Estimate(value=found.gain, low=found.low, high=found.high)


def confusions(outcome: Outcome) -> tuple[facts.Confusion, ...] | None:
    """Both confusion matrices."""
    return gather.confusions(outcome.evaluated.gap) if outcome.evaluated else None


def reliability(outcome: Outcome) -> tuple[facts.Reliability, ...] | None:
    """How far stated confidence can be believed."""
    found = outcome.evaluated
    if found is None:
        return None
    return (
        gather.reliability("Teacher, raw", "teacher", found.teacher_raw),
        gather.reliability("Teacher, calibrated", "teacher", found.teacher_calibrated),
        gather.reliability("Student", "student", found.student),
    )


def calibration(outcome: Outcome) -> facts.CalibrationChoice | None:
    """How the teacher was read, and what else was tried."""
    choice = outcome.asked.choice if outcome.asked else None
    if choice is None:
        return None
    vector = ", ".join(f"{value:.2f}" for value in choice.chosen.vector)
    note = (
        f"temperature {choice.chosen.temperature:.2f}; vector {vector} in label order,"
        f" from {choice.pool_items} random items of the pool"
    )
    return gather.calibration_choice(choice, note)
