"""What an answer costs, teacher's and student's, and when the student has earned back its teaching."""

from __future__ import annotations

import math
from collections.abc import Iterator

from corpusgen.budget.price_table import PriceTable
from corpusgen.evaluate.payback import Payback
from corpusgen.evaluate.report import facts
from corpusgen.records import Json
from corpusgen.stages.evaluating import Evaluated
from corpusgen.stages.report.outcome import Outcome
from corpusgen.stages.runs import Run
from corpusgen.stages.studying import ROLE

MILLION = 1_000_000
MS_PER_HOUR = 3_600_000


def cost(outcome: Outcome, prices: PriceTable) -> facts.Cost | None:
    """What an answer of each costs; None where no student was measured."""
    evaluated, found = outcome.evaluated, payback(outcome, prices)
    if evaluated is None or found is None:
        return None
    student, teacher_ms = evaluated.student_cost, evaluated.teacher_cpu_ms
    return facts.Cost(
        teacher_cpu_ms=teacher_ms,
        student_cpu_ms=student.batch64_ms,
        student_cpu_ms_batch1=student.batch1_ms,
        ratio=None if teacher_ms is None else teacher_ms / student.batch64_ms,
        ratio_batch1=None if teacher_ms is None else teacher_ms / student.batch1_ms,
        items_measured=student.items,
        shadow_microusd_per_cpu_hour=cpu_hour(outcome, prices),
        million=tuple(_million(outcome, evaluated, prices, found)),
        break_even_items=found.break_even,
        teacher_microusd=found.teacher_microusd,
        student_microusd=found.student_microusd,
        fixed_microusd=found.fixed_microusd,
    )


def cpu_hour(outcome: Outcome, prices: PriceTable) -> int:
    """Micro-dollars that an hour of one's own processor is worth: the spec's figure, else the table's."""
    said = outcome.run.task.spec.budget.compute_usd_per_hour
    return prices.microusd_per_cpu_hour if said is None else said


def payback(outcome: Outcome, prices: PriceTable) -> Payback | None:
    """What an answer of each comes to, and what the teaching came to: money billed, and processor time at its price.

    None without a student, and where a free teacher's processor time could not be measured.
    """
    evaluated, hour = outcome.evaluated, cpu_hour(outcome, prices)
    if evaluated is None:
        return None
    billed = None if outcome.run.asker.rate.free else settled_per_item(outcome.run)
    if billed is None and evaluated.teacher_cpu_ms is None:
        return None
    teacher_ms = evaluated.teacher_cpu_ms or 0.0
    return Payback(
        teacher_microusd=(billed or 0.0) + _worth(teacher_ms, hour),
        student_microusd=_worth(evaluated.student_cost.batch64_ms, hour),
        fixed_microusd=_taught(outcome, teacher_ms, hour),
    )


def _worth(ms: float, hour: int) -> float:
    return ms * hour / MS_PER_HOUR


def settled_per_item(run: Run) -> float | None:
    """Micro-dollars per item that this teacher's answers were settled at, both times where it was asked twice."""
    rows = run.corpus.journal.query(
        "select avg(total) from (select sum(a.cost_microusd) as total from records r"
        " join answers a on a.request_key in (r.request_key, r.first_key) join cards c using (card_id)"
        " where r.dataset = ? and json_extract(c.card, '$.identity') = ? group by r.record_id)",
        (run.task.spec.name, run.asker.card.identity),
    )
    return None if rows[0][0] is None else float(rows[0][0])


def _taught(outcome: Outcome, teacher_ms: float, hour: int) -> float:
    """Micro-dollars of the answers a student learned from, unconfirmed ones included, and of its learning."""
    if outcome.asked is None:
        return 0.0
    journal, run_id = outcome.run.corpus.journal, outcome.run.run_id
    ((billed,),) = journal.query(
        "select coalesce(sum(iif(state = 'unknown', reserved_microusd, coalesce(microusd, 0))), 0)"
        " from calls where run_id = ? and role not like '%:gold'",
        (run_id,),
    )
    answers = len(outcome.asked.train) + len(outcome.asked.validation)
    return float(billed) + _worth(answers * teacher_ms + _learned_ms(outcome), hour)


def _learned_ms(outcome: Outcome) -> float:
    """Processor time of all that was learned in this run; at least that of the student at hand."""
    rows = outcome.run.corpus.journal.query(
        "select coalesce(sum(compute_us), 0) from calls where run_id = ? and role = ?", (outcome.run.run_id, ROLE)
    )
    alone_s = float(outcome.trained.facts["train_cpu_s"]) if outcome.trained else 0.0
    return max(float(rows[0][0]) / 1000, 1000 * alone_s)


def _million(outcome: Outcome, evaluated: Evaluated, prices: PriceTable, found: Payback) -> Iterator[facts.MillionRow]:
    def own(name: str, role: facts.Role, ms: float | None, microusd: float, basis: str) -> facts.MillionRow:
        hours = None if ms is None else ms * MILLION / MS_PER_HOUR
        return facts.MillionRow(
            name=name, role=role, cpu_hours=hours, microusd=math.ceil(microusd * MILLION), basis=basis
        )

    measured, free = "measured in this run", outcome.run.asker.rate.free
    student_ms, teacher_ms = evaluated.student_cost.batch64_ms, evaluated.teacher_cpu_ms
    yield own("this student, 64 at a time", "student", student_ms, found.student_microusd, measured)
    basis = measured if free else f"settled in this corpus at the price of {outcome.run.asker.rate.version}"
    yield own(outcome.plan.teacher, "teacher", teacher_ms, found.teacher_microusd, basis)
    used = outcome.run.corpus.journal.query(
        "select avg(input_tokens), avg(output_tokens) from answers where card_id = ?", (outcome.run.asker.card.card_id,)
    )[0]
    for name, rate in prices.hosted:
        if used[0] is not None:
            yield facts.MillionRow(
                name=name,
                role="neither",
                cpu_hours=None,
                microusd=rate.cost(math.ceil(used[0] * MILLION), math.ceil(used[1] * MILLION)),
                basis=f"{used[0]:.0f} + {used[1]:.0f} tokens an item at the price of {rate.version}",
            )


def cost_json(outcome: Outcome, prices: PriceTable) -> dict[str, Json]:
    """What an answer costs, for machines: micro-dollars per item, and requests until the student has paid off."""
    found = payback(outcome, prices)
    if found is None:
        return {}
    never = not math.isfinite(found.break_even)
    return {
        "teacher_microusd_per_item": round(found.teacher_microusd, 4),
        "student_microusd_per_item": round(found.student_microusd, 6),
        "teaching_microusd": math.ceil(found.fixed_microusd),
        "break_even_requests": "never" if never else math.ceil(found.break_even),
    }
