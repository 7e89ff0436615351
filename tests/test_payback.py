"""What an answer of each costs, and when a student has earned back its teaching."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from command import corpusgen
from task_samples import write_label_task

from corpusgen.evaluate.payback import Payback


def test_the_student_has_paid_off_when_what_it_saves_is_what_it_cost() -> None:
    found = Payback(teacher_microusd=50.0, student_microusd=10.0, fixed_microusd=4_000.0)
    assert found.break_even == 100.0


@pytest.mark.parametrize(("teacher", "student"), [(1.0, 1.0), (0.0, 2.0), (0.0, 0.0)])
def test_a_student_that_saves_nothing_never_pays_off(teacher: float, student: float) -> None:
    assert Payback(teacher_microusd=teacher, student_microusd=student, fixed_microusd=1.0).break_even == math.inf


def priced(folder: Path, **fields: Any) -> Path:
    """A label task whose teacher costs three dollars and fifteen per million tokens."""
    path = write_label_task(folder)
    spec = yaml.safe_load(path.read_text())
    price = {"input_usd_per_mtok": 3, "output_usd_per_mtok": 15, "source": "test"}
    spec["teachers"][0] |= {"free": False, "price": price}
    spec["budget"] = {"usd": 1} | fields
    path.write_text(yaml.safe_dump(spec))
    return path


def test_a_priced_teacher_is_compared_with_its_student_in_money(tmp_path: Path) -> None:
    ran = corpusgen("distill", priced(tmp_path), "--corpus", tmp_path / "corpus", "-q", "--json")
    found = ran.object
    answers = found["labels"] + 12
    assert found["teacher_microusd_per_item"] > found["spent_microusd"] / found["requests"] / 2
    assert found["student_microusd_per_item"] < found["teacher_microusd_per_item"]
    # What taught it: the answers that are not gold, and the time it took to learn, at the table's price of an hour.
    assert found["teaching_microusd"] >= answers * (found["spent_microusd"] / found["requests"]) * 0.9
    saved = found["teacher_microusd_per_item"] - found["student_microusd_per_item"]
    assert found["break_even_requests"] == pytest.approx(found["teaching_microusd"] / saved, abs=1)
    page = Path(found["report"]).read_text()
    assert "Teaching the student is earned back after" in page
    assert "settled in this corpus at the price of spec: test" in page
    assert "pays off" in corpusgen("distill", tmp_path / "task.yaml", "--corpus", tmp_path / "corpus", "-q").stdout


def test_dear_processors_may_never_pay_off(tmp_path: Path) -> None:
    task = priced(tmp_path, compute_usd_per_hour=900_000)
    spec = yaml.safe_load(task.read_text())
    spec["teachers"][0]["price"] |= {"input_usd_per_mtok": 0.000001, "output_usd_per_mtok": 0}
    task.write_text(yaml.safe_dump(spec))
    answers = tmp_path / "answers.yaml"
    answers.write_text(answers.read_text().replace('"compute_us": 2000', '"compute_us": 0'))
    found = corpusgen("distill", task, "--corpus", tmp_path / "corpus", "-q", "--json").object
    assert found["break_even_requests"] == "never"
    assert "never earns back what teaching it cost" in Path(found["report"]).read_text()
    assert found["compute_microusd"] > found["spent_microusd"]
