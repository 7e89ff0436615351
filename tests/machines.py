"""Steps of every hypothesis state machine among the tests: ``python tests/machines.py [--steps N] [--json]``."""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import os
import sys
import tempfile
from pathlib import Path

os.environ["CORPUSGEN_CACHE"] = "off"
os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", str(Path(tempfile.gettempdir()) / "corpusgen-hypothesis"))

from hypothesis import HealthCheck, seed, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, run_state_machine_as_test

TESTS = Path(__file__).parent
STEPS_PER_EXAMPLE = 30


def machines() -> dict[str, type[RuleBasedStateMachine]]:
    """Every state machine that a test module defines, by name."""
    found: dict[str, type[RuleBasedStateMachine]] = {}
    for file in sorted(TESTS.glob("test_*.py")):
        if "(RuleBasedStateMachine)" in file.read_text():
            module = importlib.import_module(file.stem)
            own = (one for _, one in inspect.getmembers(module, inspect.isclass) if one.__module__ == file.stem)
            found |= {one.__name__: one for one in own if issubclass(one, RuleBasedStateMachine)}
    return found


def steps_of(machine: type[RuleBasedStateMachine], wanted: int, seed_: int) -> int:
    """Steps taken, each of them checked, with as many examples as the wanted number needs."""
    counted = 0

    class Counting(machine):  # type: ignore[misc, valid-type] # a machine is whatever class it is
        @invariant()
        def one_more(self) -> None:
            nonlocal counted
            counted += 1

    examples = 0
    while counted - examples < wanted:
        before, missing = counted, wanted - counted + examples
        chosen = _settings(max_examples=-(-missing // STEPS_PER_EXAMPLE))
        run_state_machine_as_test(seed(seed_ + examples)(Counting), settings=chosen)
        examples += chosen.max_examples
        if counted == before:
            break
    return counted - examples  # the invariants are also looked at before the first step


def _settings(max_examples: int) -> settings:
    return settings(
        max_examples=max_examples,
        stateful_step_count=STEPS_PER_EXAMPLE,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def measure(steps: int, seed_: int) -> dict[str, object]:
    """Steps of each machine and of all; a machine that fails raises."""
    every = machines()
    each = {name: steps_of(machine, -(-steps // len(every)), seed_) for name, machine in every.items()}
    return {"machine_steps": sum(each.values()), "machines": each}


def main() -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=30_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    found = measure(chosen.steps, chosen.seed)
    sys.stdout.write(json.dumps(found, indent=None if chosen.json else 1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
