"""Killed again and again, several processes lose nothing, pay for nothing twice and stay under their cap."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_kill_9_costs_no_answer_and_no_more_than_the_cap() -> None:
    command = [sys.executable, "-m", "hammer", "--json", "--kills", "20", "--items", "120", "--per-corpus", "15"]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["kills"] >= 20
    assert [found[name] for name in ("lost", "doubled", "paid_twice", "wrong", "unbooked")] == [0] * 5
    assert found["bill_over_cap"] <= 1 < found["control_bill_over_cap"]
    assert found["cap_used"] >= 0.98


@pytest.mark.slow
def test_a_cap_that_is_pressed_hard_is_nearly_used_and_never_passed() -> None:
    command = [sys.executable, "-m", "hammer.pressing", "--json", "--worlds", "1"]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert 0.9 <= json.loads(done.stdout)["bill_over_cap"] <= 1
