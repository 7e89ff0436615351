"""Reporting: what a run reached, for people and for machines."""

from __future__ import annotations

import math
import platform
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

import numpy as np

from corpusgen.budget.ledger import Balance, balances
from corpusgen.budget.price_table import PriceTable, load_prices
from corpusgen.evaluate.report import facts, gather
from corpusgen.evaluate.report.page import render
from corpusgen.records import Json, Record
from corpusgen.shipped import shipped
from corpusgen.spec import Seeds, Unit
from corpusgen.stages.asking import Asked, Texts, logprobs_of
from corpusgen.stages.committing import one_at_a_time
from corpusgen.stages.evaluating import Evaluated, best
from corpusgen.stages.opening import Run
from corpusgen.stages.planning import Plan
from corpusgen.stages.sealing import Sealed
from corpusgen.stages.selecting import Selection
from corpusgen.stages.training import Trained
from corpusgen.store.durable import make_folder, write_file

MILLION = 1_000_000
MS_PER_HOUR = 3_600_000


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


def summary(outcome: Outcome) -> dict[str, Json]:
    """The figures of a run, for ``--json``. Shares are between 0 and 1, costs in milliseconds of processor time."""
    run = outcome.run
    spent = _run_balances(run)
    known: dict[str, Json] = {
        "task": run.task.spec.name,
        "run_id": run.run_id,
        "requests": run.asker.counts.sent,
        "known": run.asker.counts.known,
        "records": outcome.selection.file.rows if outcome.selection else 0,
        "labels": len(outcome.asked.train) if outcome.asked else 0,
        "dataset": str(outcome.sealed.folder) if outcome.sealed else None,
        "wall_s": round(outcome.wall_s, 1),
        "spent_microusd": spent["microusd"].settled,
        "unconfirmed_microusd": spent["microusd"].unconfirmed,
        "tokens": spent["tokens"].settled,
        "drops": dict(run.asker.counts.drops),
        "student": str(outcome.trained.folder) if outcome.trained else None,
    }
    return known | (quality(outcome.evaluated) if outcome.evaluated else {})


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


def _run_balances(run: Run) -> dict[Unit, Balance]:
    scope = f"run:{run.run_id}"
    empty = {
        unit: Balance(scope=scope, unit=unit, settled=0, promised=0, unconfirmed=0, cap=None, origin=None)
        for unit in ("microusd", "tokens", "requests")
    }
    return {**empty, **{balance.unit: balance for balance in balances(run.corpus.journal, [scope])}}  # type: ignore[dict-item]


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
    prices = load_prices(shipped("data/prices.yaml"))
    return facts.RunReport(
        task=run.task.spec.name,
        description=run.task.spec.description,
        run_id=run.run_id,
        finished=run.corpus.clock(),
        wall_s=outcome.wall_s,
        headline=_headline(outcome),
        cost=_cost(outcome, prices),
        curve=_curve(outcome),
        confusions=_confusions(outcome),
        reliability=_reliability(outcome),
        calibration=_calibration(outcome),
        funnel=_funnel(outcome),
        balance=_balance(outcome),
        drops=_drops(run),
        spend=_spend(run),
        plan=_plan(outcome),
        generation=_generation(outcome.texts.records) if outcome.texts else None,
        provenance=_provenance(outcome),
        limitations=_limitations(outcome),
    )


def _headline(outcome: Outcome) -> facts.Headline | None:
    if outcome.evaluated is None or outcome.asked is None:
        return None
    return gather.headline(
        outcome.evaluated.gap,
        teacher_name=outcome.plan.teacher,
        student_name=f"{outcome.run.task.spec.student.kind} student",
        labels_asked=len(outcome.asked.train),
        aims=tuple(_aims(outcome)),
    )


def _aims(outcome: Outcome) -> Iterator[facts.Aim]:
    aims, evaluated = outcome.run.task.spec.aims, outcome.evaluated
    assert evaluated is not None
    gap = evaluated.gap
    if aims.teacher_accuracy is not None:
        yield facts.Aim(name="Teacher accuracy", wanted=aims.teacher_accuracy, reached=gap.teacher.value)
    if aims.retention is not None:
        yield facts.Aim(name="Retention", wanted=aims.retention, reached=gap.retention.value)
    if aims.retention_low is not None:
        yield facts.Aim(name="Lower end of retention", wanted=aims.retention_low, reached=gap.retention.low)
    if aims.cost_ratio is not None and evaluated.teacher_cpu_ms is not None:
        ratio = evaluated.teacher_cpu_ms / evaluated.student_cost.batch64_ms
        yield facts.Aim(name="Cost ratio at batch 64", wanted=aims.cost_ratio, reached=ratio, unit="ratio")


def _cost(outcome: Outcome, prices: PriceTable) -> facts.Cost | None:
    evaluated = outcome.evaluated
    if evaluated is None or evaluated.teacher_cpu_ms is None:
        return None
    student, teacher_ms = evaluated.student_cost, evaluated.teacher_cpu_ms
    return facts.Cost(
        teacher_cpu_ms=teacher_ms,
        student_cpu_ms=student.batch64_ms,
        student_cpu_ms_batch1=student.batch1_ms,
        ratio=teacher_ms / student.batch64_ms,
        ratio_batch1=teacher_ms / student.batch1_ms,
        items_measured=student.items,
        shadow_microusd_per_cpu_hour=prices.microusd_per_cpu_hour,
        million=tuple(_million(outcome, prices, teacher_ms, student.batch64_ms)),
        break_even_items=_break_even(outcome, teacher_ms, student.batch64_ms),
    )


def _million(outcome: Outcome, prices: PriceTable, teacher_ms: float, student_ms: float) -> Iterator[facts.MillionRow]:
    def local(name: str, role: facts.Role, ms: float) -> facts.MillionRow:
        hours = ms * MILLION / MS_PER_HOUR
        money = math.ceil(hours * prices.microusd_per_cpu_hour)
        return facts.MillionRow(name=name, role=role, cpu_hours=hours, microusd=money, basis="measured in this run")

    yield local("this student, 64 at a time", "student", student_ms)
    yield local(outcome.plan.teacher, "teacher", teacher_ms)
    used = outcome.run.corpus.journal.query(
        "select avg(input_tokens), avg(output_tokens) from answers where card_id = ?", (outcome.run.asker.card.card_id,)
    )[0]
    for name, rate in prices.hosted:
        yield facts.MillionRow(
            name=name,
            role="neither",
            cpu_hours=None,
            microusd=rate.cost(math.ceil(used[0] * MILLION), math.ceil(used[1] * MILLION)),
            basis=f"{used[0]:.0f} + {used[1]:.0f} tokens an item at the price of {rate.version}",
        )


def _break_even(outcome: Outcome, teacher_ms: float, student_ms: float) -> float | None:
    """Items after which the student has earned back the teacher's answers it learned from, in processor time."""
    if outcome.asked is None:
        return None
    answers = len(outcome.asked.train) + len(outcome.asked.validation)
    train_ms = 1000.0 * float(outcome.trained.facts["train_cpu_s"]) if outcome.trained else 0.0
    saved = teacher_ms - student_ms
    return (answers * teacher_ms + train_ms) / saved if saved > 0 else math.inf


def _curve(outcome: Outcome) -> facts.LearningCurve | None:
    if outcome.evaluated is None or outcome.asked is None or not outcome.evaluated.curve:
        return None
    points = tuple(
        facts.CurvePoint(
            round=one.number,
            labels=one.labels,
            agreement=one.agreement,
            gold_accuracy=one.gold_accuracy,
            chosen_by=one.chosen_by,
        )
        for one in outcome.evaluated.curve
    )
    teacher = outcome.evaluated.gap.teacher.value
    wanted = outcome.run.task.spec.aims.retention
    return facts.LearningCurve(
        points=points,
        heldout_items=len(outcome.asked.validation),
        teacher_accuracy=teacher,
        target_accuracy=None if wanted is None else wanted * teacher,
    )


def _confusions(outcome: Outcome) -> tuple[facts.Confusion, ...] | None:
    return gather.confusions(outcome.evaluated.gap) if outcome.evaluated else None


def _reliability(outcome: Outcome) -> tuple[facts.Reliability, ...] | None:
    found = outcome.evaluated
    if found is None:
        return None
    return (
        gather.reliability("Teacher, raw", "teacher", found.teacher_raw),
        gather.reliability("Teacher, calibrated", "teacher", found.teacher_calibrated),
        gather.reliability("Student", "student", found.student),
    )


def _calibration(outcome: Outcome) -> facts.CalibrationChoice | None:
    choice = outcome.asked.choice if outcome.asked else None
    if choice is None:
        return None
    vector = ", ".join(f"{value:.2f}" for value in choice.chosen.vector)
    note = (
        f"temperature {choice.chosen.temperature:.2f}; vector {vector} in label order,"
        f" from {choice.pool_items} random items of the pool"
    )
    return gather.calibration_choice(choice, note)


def _funnel(outcome: Outcome) -> tuple[facts.FunnelStep, ...]:
    found = outcome.asked or outcome.texts
    if found is None:
        return ()
    pool = found.pool
    answered = len(outcome.asked.train) if outcome.asked else len(outcome.texts.records if outcome.texts else ())
    asking = outcome.run.task.spec.asking
    asked = min(asking.limit, len(pool.items)) * asking.samples
    steps = [
        facts.FunnelStep(name="read from the pool", left=pool.read),
        facts.FunnelStep(
            name="said something new",
            left=len(pool.items),
            losses=_losses({"exact repeat": len(pool.repeats), "also in validation or gold": len(pool.leaks)}),
        ),
        facts.FunnelStep(
            name="asked about",
            left=asked,
            losses=_losses({"not asked about": len(pool.items) - asked}, set_aside=True),
        ),
        facts.FunnelStep(name="answered", left=answered, losses=_losses({"no answer": asked - answered})),
    ]
    if outcome.selection:
        dropped = {reason: n for reason, n in outcome.selection.funnel.items() if reason not in ("read", "kept")}
        kept = outcome.selection.file.rows
        steps.append(facts.FunnelStep(name="kept in the dataset", left=kept, losses=_losses(dropped)))
    return tuple(steps)


def _losses(counts: dict[str, int], *, set_aside: bool = False) -> tuple[facts.Loss, ...]:
    return tuple(facts.Loss(reason=why, count=n, set_aside=set_aside) for why, n in counts.items() if n > 0)


def _balance(outcome: Outcome) -> facts.LabelBalance | None:
    asked = outcome.asked
    if asked is None or asked.choice is None:
        return None
    names = outcome.run.asker.facts.label_names or ()
    said = best(asked.choice.chosen.apply(logprobs_of(asked.train)))
    return facts.LabelBalance(
        labels=names,
        training=_counts(said, len(names)),
        random_sample=_counts(said[: asked.sample], len(names)),
        seed=outcome.run.task.spec.asking.seed,
    )


def _counts(labels: np.ndarray[tuple[int, ...], np.dtype[np.int64]], classes: int) -> tuple[int, ...]:
    return tuple(np.bincount(labels[labels >= 0], minlength=classes).tolist())


def _drops(run: Run) -> tuple[facts.Drop, ...]:
    rows = run.corpus.journal.query(
        "select stage, reason, count(*), min(coalesce(detail, repeat_of)) from drops where run_id = ? group by 1, 2",
        (run.run_id,),
    )
    return tuple(facts.Drop(stage=row[0], reason=row[1], count=row[2], example=row[3]) for row in rows)


def _spend(run: Run) -> facts.Spend:
    found = _run_balances(run)
    money, tokens, requests = found["microusd"], found["tokens"], found["requests"]
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
    )


def _plan(outcome: Outcome) -> tuple[facts.PlanLine, ...]:
    plan, run = outcome.plan, outcome.run
    sent = run.asker.counts.sent
    if not plan.to_send:
        return ()
    tokens = run.corpus.journal.query(
        "select coalesce(sum(tokens), 0), coalesce(sum(microusd), 0) from (select * from calls where run_id = ?"
        " and state in ('settled', 'overrun') order by call_id desc limit ?)",
        (run.run_id, sent),
    )[0]
    lines = [
        _line("requests", "count", plan.requests.figures, sent),
        _line("tokens", "count", plan.tokens.figures, tokens[0]),
    ]
    if not run.asker.rate.free:
        lines.append(_line("money", "microusd", plan.microusd.figures, tokens[1]))
    if plan.wall_s is not None:
        lines.append(_line("time", "seconds", plan.wall_s.figures, outcome.wall_s))
    return tuple(lines)


def _line(name: str, unit: facts.PlanUnit, figures: tuple[float, float, float], actual: float) -> facts.PlanLine:
    low, likely, high = figures
    return facts.PlanLine(name=name, unit=unit, low=low, likely=likely, high=high, actual=actual)


def _generation(records: Sequence[Record]) -> facts.Generation | None:
    if not records:
        return None
    tokens = [record.output_tokens for record in records]
    means = [mean for record in records if (mean := _mean_logprob(record)) is not None]
    return facts.Generation(
        items=len(records),
        truncated=sum(record.truncated for record in records),
        mean_tokens=float(np.mean(tokens)),
        lengths=_histogram(tokens),
        mean_logprob=float(np.mean(means)) if means else None,
        logprobs=_histogram(means),
        samples=tuple(_sample(record) for record in records[:8]),
        distinct_outputs=len(Counter(record.response.strip() for record in records)),
    )


def _mean_logprob(record: Record) -> float | None:
    known = [value for value in record.token_logprobs or () if value is not None]
    return float(np.mean(known)) if known else None


def _histogram(values: Sequence[float]) -> tuple[facts.HistogramBin, ...]:
    if not values:
        return ()
    counts, edges = np.histogram(values, bins=min(12, max(1, len(set(values)))))
    bounds = zip(edges, edges[1:], counts, strict=False)
    return tuple(facts.HistogramBin(low=float(low), high=float(high), count=int(n)) for low, high, n in bounds)


def _sample(record: Record) -> facts.Sample:
    return facts.Sample(
        prompt=record.input,
        output=record.response,
        tokens=record.output_tokens,
        mean_logprob=_mean_logprob(record),
        note="truncated" if record.truncated else "",
    )


def _provenance(outcome: Outcome) -> facts.Provenance:
    run, decision = outcome.run, outcome.run.decision
    use = run.task.spec.intended_use
    return facts.Provenance(
        intended_use=f"student {use.student_distribution.replace('_', ' ')}, competes: {use.student_competes},"
        f" {'commercial' if use.commercial else 'not commercial'}",
        licence_expression=decision.licence_expression,
        teachers=(_teacher(run),),
        sources=tuple(_sources(outcome)),
        decisions=tuple(
            facts.Decision(
                subject=decision.teacher.name,
                role=decision.role,
                answer=reason.outcome,
                rule=reason.rule,
                reason=reason.text,
            )
            for reason in decision.reasons
        ),
        digests=tuple(_digests(outcome)),
        versions=(
            ("corpusgen", version("corpusgen-distill")),
            ("Python", platform.python_version()),
            ("teacher's runtime", run.asker.card.revision),
        ),
    )


def _teacher(run: Run) -> facts.TeacherFacts:
    card, documents = run.asker.teacher.card, run.task.registry.by_id
    known = [documents[name] for name in run.decision.terms_ids if name in documents]
    return facts.TeacherFacts(
        name=card.name,
        model=card.model,
        route=card.route,
        host=card.host,
        outputs_train=run.decision.outputs_train,
        documents=tuple(
            facts.TermsDocument(
                title=one.title,
                version=one.version,
                effective=str(one.effective or "unknown"),
                licence=one.spdx,
                location=one.source,
            )
            for one in known
        ),
        duties=tuple(f"{duty.kind} on the {duty.applies_to}: {duty.text}" for duty in run.decision.duties),
        weights_digest=card.weights_sha256,
    )


def _sources(outcome: Outcome) -> Iterator[facts.SourceFacts]:
    task = outcome.run.task
    files = _seed_files(outcome)
    for source in task.spec.sources:
        mine = [(seeds, items) for seeds, items in files if seeds.source == source.id]
        yield facts.SourceFacts(
            name=source.title,
            licence=source.licence,
            items=sum(items for _, items in mine),
            digest=", ".join(sha256(task.located.resolve(seeds.path).read_bytes()).hexdigest() for seeds, _ in mine),
        )


def _seed_files(outcome: Outcome) -> list[tuple[Seeds, int]]:
    """Every file of seeds with how many of its items were read."""
    task = outcome.run.task
    found = outcome.asked or outcome.texts
    spec = task.spec
    files = [(spec.seeds.train, found.pool.read if found else 0), (spec.examples, len(task.prompter.example_sources))]
    if spec.kind == "label":
        files.append((spec.seeds.validation, len(list(task.prompter.items("validation")))))
        files.append((spec.seeds.gold, len(list(task.prompter.items("gold")))))
    return [(seeds, items) for seeds, items in files if seeds is not None]


def _digests(outcome: Outcome) -> Iterator[tuple[str, str]]:
    run = outcome.run
    yield "run", run.run_id
    yield "spec", run.task.identity
    yield "prompt", run.task.prompter.file.digest
    yield "terms set", run.decision.terms_set_id
    yield "terms registry", run.decision.registry_digest
    yield "policy", run.decision.policy_digest
    if outcome.sealed:
        yield f"dataset {outcome.sealed.label}", outcome.sealed.manifest_sha256
    if outcome.trained:
        yield "student", outcome.trained.student_id


def _limitations(outcome: Outcome) -> tuple[str, ...]:
    said = ["Names and addresses in texts are not looked for.", "Terms are a reading by engineers, not legal advice."]
    if outcome.texts:
        said.insert(0, "Nobody has judged how good the texts are; read the samples.")
    if outcome.trained and not outcome.evaluated:
        said.insert(0, "The spec names no gold file, so nobody knows how good the student is; add seeds.gold.")
    if outcome.evaluated:
        said.insert(0, "Gold items come from the same source as the pool; other text was not tried.")
        said.append("Processor time is this machine's; ratios carry over better than milliseconds.")
        said.append("Hosted teachers are priced, not asked: how good they are at this task is not known.")
    return tuple(said)
