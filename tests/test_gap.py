from __future__ import annotations

import numpy as np
import pytest

from corpusgen.evaluate.cost import measure_cost
from corpusgen.evaluate.gap import Gap, mcnemar, measure_gap

LABELS = ("animal", "food", "plant")


def answers(gold: np.ndarray, right: float, seed: int) -> np.ndarray:
    draw = np.random.default_rng(seed)
    return np.where(draw.random(len(gold)) < right, gold, draw.integers(0, 3, len(gold)))


def gap(items: int = 1500, *, teacher: float = 0.85, student: float = 0.8) -> Gap:
    gold = np.random.default_rng(0).choice(3, size=items, p=(0.5, 0.3, 0.2))
    return measure_gap(gold=gold, teacher=answers(gold, teacher, 1), student=answers(gold, student, 2), labels=LABELS)


def test_retention_is_student_over_teacher_within_its_interval() -> None:
    found = gap()
    assert found.retention.value == pytest.approx(found.student.value / found.teacher.value)
    assert found.retention.low < found.retention.value < found.retention.high
    assert 0.03 < found.retention.high - found.retention.low < 0.1


def test_a_student_that_says_what_the_teacher_says_keeps_everything() -> None:
    gold = np.array([0, 1, 2, 0, 1, 2])
    teacher = np.array([0, 1, 0, 0, 1, 1])
    found = measure_gap(gold=gold, teacher=teacher, student=teacher, labels=LABELS)
    assert (found.retention.low, found.retention.high, found.agreement.value) == (1.0, 1.0, 1.0)
    assert found.mcnemar.p_value == 1.0


def test_retention_of_a_useless_teacher_is_not_a_number() -> None:
    gold = np.array([0, 1, 2])
    assert np.isnan(measure_gap(gold=gold, teacher=(gold + 1) % 3, student=gold, labels=LABELS).retention.value)


def test_the_same_seed_gives_the_same_interval() -> None:
    assert gap() == gap()


def test_the_interval_agrees_with_drawing_items_one_by_one() -> None:
    found = gap(400)
    gold = np.random.default_rng(0).choice(3, size=400, p=(0.5, 0.3, 0.2))
    right = answers(gold, 0.85, 1) == gold
    drawn = np.random.default_rng(9).integers(0, 400, size=(4000, 400))
    low, high = np.quantile(right[drawn].mean(axis=1), (0.025, 0.975))
    assert found.teacher.low == pytest.approx(low, abs=0.006)
    assert found.teacher.high == pytest.approx(high, abs=0.006)


def test_no_answer_is_a_wrong_answer() -> None:
    gold = np.array([0, 0, 1, 2])
    found = measure_gap(gold=gold, teacher=np.array([0, -1, 1, 2]), student=gold, labels=LABELS)
    assert (found.unanswered, found.teacher.value) == (1, 0.75)
    assert found.classes[0].teacher_recall == 0.5
    assert found.classes[0].teacher_precision == 1.0


def test_confusion_rows_are_gold() -> None:
    found = measure_gap(
        gold=np.array([0, 0, 1]), teacher=np.array([0, 1, 1]), student=np.array([2, 0, 1]), labels=LABELS
    )
    assert found.teacher_confusion == ((1, 1, 0), (0, 1, 0), (0, 0, 0))
    assert found.student_confusion[0] == (1, 0, 1)
    assert found.majority == pytest.approx(2 / 3)


def test_mcnemar_counts_only_what_differs() -> None:
    teacher = np.array([True] * 12 + [False] * 2 + [True] * 50)
    found = mcnemar(teacher, np.array([False] * 12 + [True] * 2 + [True] * 50))
    assert (found.only_teacher, found.only_student) == (12, 2)
    assert found.p_value == pytest.approx(0.0129, abs=1e-4)


def test_cost_is_measured_in_batches_and_one_by_one() -> None:
    sizes: list[int] = []
    cost = measure_cost(lambda texts: sizes.append(sum(range(3_000)) and len(texts)), ["a text"] * 70)
    assert set(sizes) == {64, 6, 1}
    assert 0 < cost.batch64_ms < cost.batch1_ms
