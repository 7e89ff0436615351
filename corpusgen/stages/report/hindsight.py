"""How wrong a plan was: what it said, beside what came of it."""

from __future__ import annotations

from corpusgen.corpus import Corpus
from corpusgen.evaluate.report.facts import PlanLine, PlanUnit
from corpusgen.records import Json
from corpusgen.stages.estimating import Estimate
from corpusgen.stages.planning import Plan
from corpusgen.stages.runs import OF_RUN
from corpusgen.stages.studying import ROLE


def plan_lines(plan: Plan, corpus: Corpus, run_id: str) -> tuple[PlanLine, ...]:
    """Every figure that the plan gave, with what the calls since came to; nothing where nothing was to be sent."""
    if not plan.requests.high:
        return ()
    requests, tokens, microusd, compute_us = corpus.journal.query(_BOOKED, (run_id, plan.last_call, ROLE))[0]
    every = [
        _line("requests", "count", plan.requests, requests),
        _line("tokens", "count", plan.tokens, tokens),
        _line("money", "microusd", plan.microusd if plan.microusd.high else None, microusd),
        _line("time", "seconds", plan.wall_s, _asking_s(corpus, run_id, plan.last_call)),
        _line("processor time", "seconds", _used(plan.compute_s), compute_us / 1e6),
    ]
    return tuple(line for line in every if line is not None)


_BOOKED = (
    "select coalesce(sum(iif(state = 'unknown', reserved_requests, coalesce(requests, 0))), 0),"  # noqa: S608
    " coalesce(sum(tokens), 0), coalesce(sum(microusd), 0), coalesce(sum(compute_us), 0)"
    f" from calls where {OF_RUN} and call_id > ?2 and role != ?3"
)


def _used(estimate: Estimate | None) -> Estimate | None:
    return estimate if estimate is not None and estimate.high else None


def _asking_s(corpus: Corpus, run_id: str, last_call: int) -> float:
    """Seconds from the first call to the end of the last, without the students that learned in between."""
    values = (run_id, last_call, ROLE)
    began, ended = corpus.journal.query(
        f"select min(reserved_us), max(closed_us) from calls where {OF_RUN} and call_id > ?2 and role != ?3",  # noqa: S608
        values,
    )[0]
    if began is None or ended is None:
        return 0.0
    studied = corpus.journal.query(
        "select coalesce(sum(closed_us - reserved_us), 0) from calls where run_id = ? and call_id > ? and role = ?"
        " and reserved_us >= ? and closed_us <= ?",
        (*values, began, ended),
    )[0][0]
    return float(max(0, ended - began - studied)) / 1e6


def _line(name: str, unit: PlanUnit, estimate: Estimate | None, actual: float) -> PlanLine | None:
    if estimate is None:
        return None
    low, likely, high = estimate.figures
    return PlanLine(name=name, unit=unit, low=low, likely=likely, high=high, actual=actual)


def plan_json(lines: tuple[PlanLine, ...]) -> dict[str, Json]:
    """The same for machines; ``off`` is how far from likely it was, as a share of it."""
    return {
        line.name.replace(" ", "_"): {
            "low": line.low,
            "likely": line.likely,
            "high": line.high,
            "actual": line.actual,
            "off": round(line.actual / line.likely - 1, 4) if line.likely else None,
            "within": line.low <= line.actual <= line.high,
        }
        for line in lines
    }
