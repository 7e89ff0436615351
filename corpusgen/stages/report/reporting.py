"""Reporting: what a run reached, for people and for machines."""

from __future__ import annotations

from pathlib import Path

from corpusgen.budget.compute import worth
from corpusgen.budget.price_table import shipped_prices
from corpusgen.evaluate.report import facts
from corpusgen.evaluate.report.page import render
from corpusgen.records import Json
from corpusgen.stages.committing import one_at_a_time
from corpusgen.stages.evaluating import Evaluated
from corpusgen.stages.report import grading, material
from corpusgen.stages.report.costing import cost, cost_json
from corpusgen.stages.report.hindsight import plan_json, plan_lines
from corpusgen.stages.report.mapping import coverage
from corpusgen.stages.report.origins import provenance
from corpusgen.stages.report.outcome import Outcome, run_balances
from corpusgen.stages.runs import Run
from corpusgen.stages.studying import ROLE
from corpusgen.store.durable import make_folder, write_file


def summary(outcome: Outcome) -> dict[str, Json]:
    """The figures of a run, for ``--json``. Shares are between 0 and 1, costs in milliseconds of processor time."""
    run = outcome.run
    spent = run_balances(run)
    known: dict[str, Json] = {
        "task": run.task.spec.name,
        "run_id": run.run_id,
        "requests": run.sent,
        "known": run.asker.counts.known,
        "elsewhere": run.asker.counts.elsewhere,
        "other_models": dict(run.asker.counts.other_models),
        "put_aside": run.put_aside,
        "records": outcome.selection.rows if outcome.selection else 0,
        "labels": len(outcome.asked.train) if outcome.asked else 0,
        "dataset": str(outcome.sealed.folder) if outcome.sealed else None,
        "wall_s": round(outcome.wall_s, 1),
        "spent_microusd": spent["microusd"].settled,
        "unconfirmed_microusd": spent["microusd"].unconfirmed,
        "tokens": spent["tokens"].settled,
        **_own_time(outcome),
        "plan": plan_json(plan_lines(outcome.plan, run.corpus, run.run_id)),
        "drops": dict(run.asker.counts.drops),
        **({"judged": run.judge.asker.counts.done} if run.judge else {}),
        "student": str(outcome.trained.folder) if outcome.trained else None,
    }
    if outcome.evaluated is None:
        return known
    return known | quality(outcome.evaluated) | cost_json(outcome, shipped_prices())


def _own_time(outcome: Outcome) -> dict[str, Json]:
    """Seconds of one's own machines, and what they are worth where the spec says so."""
    spent = run_balances(outcome.run)
    hour = outcome.run.task.spec.budget.compute_usd_per_hour
    used_us = spent["compute_us"].settled + spent["compute_us"].unconfirmed
    return {
        "compute_s": round(used_us / 1e6, 3),
        "compute_microusd": None if hour is None else worth(used_us, hour),
    }


def quality(evaluated: Evaluated) -> dict[str, Json]:
    """How good the student is and what it costs, in figures."""
    gap, teacher_ms, cost = evaluated.gap, evaluated.teacher_cpu_ms, evaluated.student_cost
    return {
        "teacher_accuracy": round(gap.teacher.value, 4),
        "student_accuracy": round(gap.student.value, 4),
        "agreement": round(gap.agreement.value, 4),
        "retention": round(gap.retention.value, 4),
        "retention_low": round(gap.retention.low, 4),
        "retention_high": round(gap.retention.high, 4),
        "gold_items": gap.items,
        "teacher_macro_f1": round(gap.teacher_macro_f1, 4),
        "student_macro_f1": round(gap.student_macro_f1, 4),
        "calibration": evaluated.calibration_kind,
        "teacher_cpu_ms": None if teacher_ms is None else round(teacher_ms, 2),
        "student_cpu_ms": round(cost.batch64_ms, 5),
        "student_cpu_ms_batch1": round(cost.batch1_ms, 5),
        "cost_ratio": None if teacher_ms is None else round(teacher_ms / cost.batch64_ms, 1),
    }


def write_report(outcome: Outcome, path: Path | None) -> Path:
    """Write the report page; beside the corpus' other reports unless a path is given."""
    target = path or outcome.run.corpus.folder / "reports" / outcome.run.run_id / "report.html"
    make_folder(target.parent)
    page = render(report_facts(outcome)).encode("utf-8", "replace")
    with one_at_a_time(outcome.run.corpus.folder / ".reports.lock"):
        write_file(target, page)
    return target


def report_facts(outcome: Outcome) -> facts.RunReport:
    """Everything the page shows."""
    run = outcome.run
    return facts.RunReport(
        task=run.task.spec.name,
        description=run.task.spec.description,
        run_id=run.run_id,
        finished=run.corpus.clock(),
        wall_s=outcome.wall_s,
        headline=grading.headline(outcome),
        cost=cost(outcome, shipped_prices()),
        curve=grading.curve(outcome),
        confusions=grading.confusions(outcome),
        reliability=grading.reliability(outcome),
        calibration=grading.calibration(outcome),
        funnel=material.funnel(outcome),
        balance=material.balance(outcome),
        drops=material.drops(run),
        coverage=coverage(run),
        spend=_spend(run),
        plan=plan_lines(outcome.plan, run.corpus, run.run_id),
        generation=material.generation(outcome.texts.written) if outcome.texts else None,
        provenance=provenance(outcome),
        limitations=_limitations(outcome),
    )


def _spend(run: Run) -> facts.Spend:
    found = run_balances(run)
    money, tokens, requests = found["microusd"], found["tokens"], found["requests"]
    time, hour = found["compute_us"], run.task.spec.budget.compute_usd_per_hour
    return facts.Spend(
        settled_microusd=money.settled,
        promised_microusd=money.promised,
        unconfirmed_microusd=money.unconfirmed,
        cap_microusd=money.cap,
        settled_tokens=tokens.settled,
        promised_tokens=tokens.promised,
        unconfirmed_tokens=tokens.unconfirmed,
        cap_tokens=tokens.cap,
        requests=requests.settled + requests.unconfirmed,
        cap_requests=requests.cap,
        from_cache=run.asker.counts.known,
        free_teacher=run.asker.rate.free,
        compute_us=(time.settled, time.unconfirmed, time.promised),
        cap_compute_us=time.cap,
        trained_us=_trained_us(run),
        compute_microusd=None if hour is None else worth(time.settled + time.unconfirmed, hour),
        wall_us=found["wall_us"].settled,
        cap_wall_us=found["wall_us"].cap,
    )


def _trained_us(run: Run) -> int:
    rows = run.corpus.journal.query(
        "select coalesce(sum(compute_us), 0) from calls where run_id = ? and role = ?", (run.run_id, ROLE)
    )
    return int(rows[0][0])


def _limitations(outcome: Outcome) -> tuple[str, ...]:
    said = ["Names and addresses in texts are not looked for.", "Terms are a reading by engineers, not legal advice."]
    if outcome.texts:
        who = "Nobody has" if outcome.run.judge is None else "A model, and no person, has"
        said.insert(0, f"{who} judged how good the texts are; read the samples.")
    if outcome.trained and not outcome.evaluated:
        said.insert(0, "The spec names no gold file, so nobody knows how good the student is; add seeds.gold.")
    if outcome.evaluated:
        said.insert(0, "Gold items come from the same source as the pool; other text was not tried.")
        said.append("Processor time is this machine's; ratios carry over better than milliseconds.")
        said.append("Hosted teachers are priced, not asked: how good they are at this task is not known.")
    return tuple(said)
