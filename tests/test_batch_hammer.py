"""Killed at every step of a batch's life, nothing is lost or paid for twice; what would be wrong is seen to be."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

WRONG = ("lost", "paid_twice", "bill_over_booked", "over_cap")


def hammer(*arguments: str) -> dict[str, Any]:
    command = [sys.executable, "batch_hammer.py", "--json", *arguments]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=240)
    assert done.stdout, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.slow
def test_kill_9_at_every_step_of_a_batch_costs_nothing_twice() -> None:
    found = hammer("--stories", "16", "--seconds", "30")
    assert found["kills"] >= 8
    assert [found[name] for name in WRONG] == [0] * 4
    assert found["findings"] == []


@pytest.mark.slow
def test_a_lane_that_does_not_look_for_its_batches_is_seen_to_pay_twice() -> None:
    found = hammer("--stories", "4", "--seconds", "0", "--bug", "no-looking")
    assert found["paid_twice"] > 0
