"""Evaluating: teacher and student side by side on gold, asked under the same budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from corpusgen.distill.students.bag import BagStudent
from corpusgen.evaluate.calibration import Calibration, Reliability, at_temperature, reliability
from corpusgen.evaluate.cost import StudentCost, measure_cost
from corpusgen.evaluate.gap import Gap, measure_gap
from corpusgen.stages.asking import Asked, Labelled, Watch, ask_labels, gold_of, logprobs_of, no_watch
from corpusgen.stages.opening import Run

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
    gold: tuple[Labelled, ...]


async def evaluate(run: Run, asked: Asked, student: BagStudent, watch: Watch = no_watch) -> Evaluated | None:
    """The gap on gold, or None when the spec names no gold file."""
    items = list(run.task.prompter.items("gold"))
    if not items:
        return None
    watch("gold", len(items))
    gold = await ask_labels(run, items, 0)
    truth = gold_of(run, gold)
    raw = logprobs_of(gold)
    calibration = asked.choice.chosen if asked.choice else Calibration(kind="raw", vector=(0.0,) * raw.shape[1])
    teacher = calibration.apply(raw)
    texts = [item.item.input for item in gold]
    scores = student.log_probabilities(texts)
    temperature = asked.choice.temperature if asked.choice else 1.0
    return Evaluated(
        gap=measure_gap(
            gold=truth, teacher=best(teacher), student=best(scores), labels=run.asker.facts.label_names or ()
        ),
        student_cost=measure_cost(student.log_probabilities, texts),
        teacher_cpu_ms=teacher_cpu_ms(run),
        curve=tuple(_curve(asked, calibration, texts, truth)),
        teacher_raw=reliability(Calibration(kind="raw", vector=(0.0,) * raw.shape[1]).apply(raw), truth),
        teacher_calibrated=reliability(at_temperature(teacher, temperature), truth),
        student=reliability(scores, truth),
        gold=tuple(gold),
    )


def best(scores: Floats) -> Integers:
    """The likeliest label of each row; -1 where nothing is known."""
    known = ~np.isnan(scores).all(axis=1)
    return np.where(known, np.where(np.isnan(scores), -np.inf, scores).argmax(axis=1), -1)


def _curve(asked: Asked, calibration: Calibration, texts: Sequence[str], truth: Integers) -> list[Curve]:
    held_out = [item.item.input for item in asked.validation]
    said = best(calibration.apply(logprobs_of(asked.validation))) if asked.validation else np.zeros(0, np.int64)
    return [
        Curve(
            number=one.number,
            labels=one.labels,
            chosen_by=one.chosen_by,
            agreement=float(np.mean(best(one.student.log_probabilities(held_out)) == said))
            if held_out
            else float("nan"),
            gold_accuracy=float(np.mean(best(one.student.log_probabilities(texts)) == truth)),
        )
        for one in asked.rounds
    ]


def teacher_cpu_ms(run: Run) -> float | None:
    """Processor milliseconds per answer of a teacher on this machine, as measured when its answers were asked for."""
    rows = run.corpus.journal.query(
        "select avg(a.compute_us) from answers a join cards c using (card_id) where a.card_id = ?",
        (run.asker.card.card_id,),
    )
    return None if rows[0][0] is None else rows[0][0] / 1000
