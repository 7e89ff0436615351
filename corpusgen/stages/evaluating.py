"""Evaluating: teacher and student side by side on gold, asked under the same budget."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from corpusgen.distill.students.bag import BagStudent
from corpusgen.evaluate.calibration import Calibration, Reliability, reliability
from corpusgen.evaluate.cost import StudentCost, measure_cost
from corpusgen.evaluate.gap import Gap, measure_gap
from corpusgen.stages.asking import Asked, ask_validation, gold_of
from corpusgen.stages.rounds import Labelled, Round, ask_labels, logprobs_of
from corpusgen.stages.runs import Run
from corpusgen.stages.watching import Watch, no_watch

if TYPE_CHECKING:  # only runs that are steered have any
    from corpusgen.curation.stopping import Expected

Integers: TypeAlias = npt.NDArray[np.int64]
Floats: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One round's student, judged afterwards: agreement with the teacher on validation items, accuracy on gold."""

    number: int
    labels: int
    chosen_by: str
    agreement: float
    gold_accuracy: float
    expected: Expected | None = None
    """What one round more was expected to gain."""


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """How good the student is, with everything the report shows of it."""

    gap: Gap
    student_cost: StudentCost
    teacher_cpu_ms: float | None
    curve: tuple[Curve, ...]
    teacher_raw: Reliability
    teacher_calibrated: Reliability
    student: Reliability
    calibration_kind: str


@dataclass(frozen=True, kw_only=True)
class Yardstick:
    """How the teacher's answers are read: the label calibration, and what it was judged on."""

    calibration: Calibration
    validation: tuple[Labelled, ...]
    rounds: tuple[Round, ...] = ()


def yardstick_of(run: Run, asked: Asked) -> Yardstick:
    """The yardstick of a run's own choice."""
    choice = asked.choice
    return Yardstick(
        calibration=choice.chosen if choice else raw_calibration(run),
        validation=asked.validation,
        rounds=asked.rounds,
    )


async def yardstick_for(run: Run, calibration: Calibration | None, watch: Watch = no_watch) -> Yardstick:
    """The yardstick of a student trained earlier, whose calibration is known; validation answers are known or asked."""
    validation = await ask_validation(run, watch)
    return Yardstick(calibration=calibration or raw_calibration(run), validation=tuple(validation))


def raw_calibration(run: Run) -> Calibration:
    """Log-probabilities as they come."""
    return Calibration(kind="raw", vector=(0.0,) * len(run.asker.facts.label_names or ()))


async def evaluate(run: Run, yardstick: Yardstick, student: BagStudent, watch: Watch = no_watch) -> Evaluated | None:
    """The gap on gold, or None when the spec names no gold file."""
    items = list(run.task.prompter.items("gold"))
    if not items:
        return None
    watch("gold", len(items))
    gold = await ask_labels(run, items, 0)
    return await asyncio.to_thread(_compare, run, yardstick, student, gold)


def _compare(run: Run, yardstick: Yardstick, student: BagStudent, gold: Sequence[Labelled]) -> Evaluated:
    truth, raw = gold_of(run, gold), logprobs_of(gold)
    teacher = yardstick.calibration.apply(raw)
    texts = [item.item.input for item in gold]
    scores = student.log_probabilities(texts)
    labels = run.asker.facts.label_names or ()
    return Evaluated(
        gap=measure_gap(gold=truth, teacher=best(teacher), student=best(scores), labels=labels),
        student_cost=measure_cost(student.log_probabilities, texts),
        teacher_cpu_ms=teacher_cpu_ms(run),
        curve=tuple(_curve(yardstick, texts, truth)),
        teacher_raw=reliability(raw_calibration(run).apply(raw), truth),
        teacher_calibrated=reliability(teacher, truth),
        student=reliability(scores, truth),
        calibration_kind=yardstick.calibration.kind,
    )


def best(scores: Floats) -> Integers:
    """The likeliest label of each row; -1 where nothing is known."""
    known = ~np.isnan(scores).all(axis=1)
    return np.where(known, np.where(np.isnan(scores), -np.inf, scores).argmax(axis=1), -1)


def _curve(yardstick: Yardstick, texts: Sequence[str], truth: Integers) -> list[Curve]:
    validation = yardstick.validation
    held_out = [item.item.input for item in validation]
    said = best(yardstick.calibration.apply(logprobs_of(validation))) if validation else np.zeros(0, np.int64)
    return [
        Curve(
            number=one.number,
            labels=one.labels,
            chosen_by=one.chosen_by,
            agreement=_agreement(one, held_out, said),
            gold_accuracy=_share(best(one.student.log_probabilities(texts)) == truth),
            expected=one.expected,
        )
        for one in yardstick.rounds
    ]


def _agreement(one: Round, held_out: Sequence[str], said: Integers) -> float:
    """As it was counted when it decided about the next round, or else now."""
    if one.measured is not None:
        return one.measured.agreement
    return _share(best(one.student.log_probabilities(held_out)) == said)


def _share(right: npt.NDArray[np.bool_]) -> float:
    return float(right.mean()) if right.size else float("nan")


def teacher_cpu_ms(run: Run) -> float | None:
    """Processor milliseconds per item of a teacher on this machine, as measured when asked, both times if twice."""
    rows = run.corpus.journal.query(
        "select avg(total) from (select sum(a.compute_us) as total from records r"
        " join answers a on a.request_key in (r.request_key, r.first_key) join cards c using (card_id)"
        " where r.dataset = ? and json_extract(c.card, '$.identity') = ? group by r.record_id)",
        (run.task.spec.name, run.asker.card.identity),
    )
    return None if rows[0][0] is None else rows[0][0] / 1000
