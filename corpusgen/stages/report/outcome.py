"""What a run made, as far as it came: everything that a report speaks of."""

from __future__ import annotations

from dataclasses import dataclass

from corpusgen.budget.amounts import CAPPED
from corpusgen.budget.ledger import Balance, balances
from corpusgen.fields import Unit
from corpusgen.stages.asking import Asked
from corpusgen.stages.evaluating import Evaluated
from corpusgen.stages.planning import Plan
from corpusgen.stages.runs import Run
from corpusgen.stages.sealing import Sealed
from corpusgen.stages.selecting import Selection
from corpusgen.stages.training import Trained
from corpusgen.stages.writing import Texts


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a run made, as far as it came."""

    plan: Plan
    run: Run
    asked: Asked | None
    texts: Texts | None
    selection: Selection | None
    sealed: Sealed | None
    trained: Trained | None
    evaluated: Evaluated | None
    wall_s: float


def run_balances(run: Run) -> dict[Unit, Balance]:
    """What the run has used of every unit."""
    scope = f"run:{run.run_id}"
    nothing: dict[Unit, Balance] = {
        unit: Balance(scope=scope, unit=unit, settled=0, promised=0, unconfirmed=0, cap=None, origin=None)
        for unit in CAPPED
    }
    return {**nothing, **{balance.unit: balance for balance in balances(run.corpus.journal, [scope])}}
