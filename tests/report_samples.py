"""A full report with invented numbers, and a script that writes it: ``python tests/report_samples.py OUT.html``."""

from __future__ import annotations

import dataclasses
import random
import sys
from datetime import UTC, datetime
from pathlib import Path

from corpusgen.evaluate.report.facts import (
    Aim,
    CalibrationCandidate,
    CalibrationChoice,
    Confusion,
    Cost,
    Coverage,
    CoverageHole,
    CurvePoint,
    Decision,
    Discordant,
    Drop,
    Estimate,
    FunnelStep,
    Generation,
    Headline,
    HistogramBin,
    LabelBalance,
    LearningCurve,
    Loss,
    MillionRow,
    PlanLine,
    Provenance,
    Reliability,
    ReliabilityBin,
    Role,
    RunReport,
    Sample,
    SourceFacts,
    Spend,
    Spots,
    StratumCoverage,
    TeacherFacts,
    TermsDocument,
    Variety,
)

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\u202egnp.exe\x1b[31m\ud800 ' \" & ]]>"
LABELS = ("animal", "body", "food", "person", "place", "plant")


def full_report() -> RunReport:
    """A run of the main job in which one aim was missed."""
    return RunReport(
        task="word-domain",
        description="Say what kind of thing a dictionary definition describes.",
        run_id="run-7f3a2c",
        finished=datetime(2026, 11, 21, 23, 40, 12, tzinfo=UTC),
        wall_s=426.0,
        headline=_headline(),
        cost=_cost(),
        curve=_curve(),
        confusions=_confusions(),
        reliability=_reliability(),
        calibration=_calibration(),
        funnel=_funnel(),
        balance=LabelBalance(
            labels=LABELS,
            training=(291, 148, 187, 421, 205, 238),
            random_sample=(88, 21, 46, 152, 52, 41),
            seed=7,
        ),
        drops=(
            Drop(stage="before asking", reason="the same text after normalisation", count=212, example="a small fish"),
            Drop(stage="before asking", reason="shares 8 words in a row with the gold set", count=37),
            Drop(stage="after asking", reason="no label among the first 400 tokens", count=10, example=HOSTILE),
        ),
        coverage=coverage(),
        spend=_spend(),
        plan=_plan(),
        generation=generation(),
        provenance=_provenance(),
        limitations=(
            "Gold items come from the same dictionary as the pool; other text was not tried.",
            "Processor time was measured on one machine; ratios carry over better than milliseconds.",
            "The hosted teacher was priced, not asked: its accuracy on this task is unknown.",
        ),
    )


def bare_report() -> RunReport:
    """A run of which nothing is known but its name."""
    return RunReport(task="bare", description="", run_id="r", finished=datetime(2026, 1, 1, tzinfo=UTC), wall_s=0.4)


def hostile_report() -> RunReport:
    """The full run, with every string replaced by text that would like to be markup."""
    report = _poisoned(full_report())
    assert isinstance(report, RunReport)
    return report


def _poisoned(value: object) -> object:
    """The same facts with hostile strings, closed sets of strings left alone."""
    if isinstance(value, str):
        return value if value in {"student", "teacher", "neither", *UNITS, "allow"} else HOSTILE
    if isinstance(value, tuple):
        return tuple(_poisoned(item) for item in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: _poisoned(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return type(value)(**fields)
    return value


UNITS = ("share", "ratio", "count", "microusd", "seconds")


def _headline() -> Headline:
    return Headline(
        teacher_name="SmolLM2-135M",
        student_name="a hashed bag of words",
        teacher=Estimate(value=0.8694, low=0.853, high=0.8851),
        student=Estimate(value=0.8413, low=0.8233, high=0.8587),
        agreement=Estimate(value=0.8506, low=0.833, high=0.8675),
        retention=Estimate(value=0.9677, low=0.9493, high=0.9862),
        teacher_macro_f1=0.8552,
        student_macro_f1=0.8207,
        gold_items=1600,
        labels_asked=1490,
        majority=0.3341,
        unanswered=2,
        discordant=Discordant(only_teacher=131, only_student=86, p_value=0.0027),
        aims=(
            Aim(name="Teacher accuracy", wanted=0.86, reached=0.8694),
            Aim(name="Retention", wanted=0.95, reached=0.9677),
            Aim(name="Lower end of retention", wanted=0.92, reached=0.9493),
            Aim(name="Labels asked", wanted=1500, reached=1490, unit="count", at_least=False),
            Aim(name="Cost ratio at batch 64", wanted=4000, reached=3587.2, unit="ratio"),
        ),
    )


def _cost() -> Cost:
    return Cost(
        teacher_cpu_ms=212.4,
        student_cpu_ms=0.05921,
        student_cpu_ms_batch1=0.3184,
        ratio=3587.2,
        ratio_batch1=667.1,
        items_measured=1600,
        shadow_microusd_per_cpu_hour=40_000,
        million=(
            MillionRow(
                name="This student", role="student", cpu_hours=0.01645, microusd=658, basis="measured, 64 at a time"
            ),
            MillionRow(name="This teacher", role="teacher", cpu_hours=59.0, microusd=2_360_000, basis="measured"),
            MillionRow(
                name="gpt-4.1-mini",
                role="neither",
                cpu_hours=None,
                microusd=71_640_000,
                basis="171 input and 1 output tokens per item, price list of 2026-11-01",
            ),
        ),
        break_even_items=1521,
    )


def _curve() -> LearningCurve:
    points = ((400, 0.771, 0.762, "random"), (800, 0.812, 0.803, "margin"), (1200, 0.842, 0.829, "margin"))
    last = (1490, 0.853, 0.8413, "margin")
    return LearningCurve(
        points=tuple(
            CurvePoint(round=at, labels=labels, agreement=agreement, gold_accuracy=gold, chosen_by=chosen)
            for at, (labels, agreement, gold, chosen) in enumerate((*points, last), 1)
        ),
        heldout_items=400,
        teacher_accuracy=0.8694,
        target_accuracy=0.8259,
    )


def _confusions() -> tuple[Confusion, ...]:
    teacher = (
        (236, 5, 4, 19, 6, 14),
        (9, 88, 3, 4, 2, 3),
        (4, 1, 143, 6, 2, 12),
        (11, 2, 5, 499, 14, 4),
        (5, 3, 2, 16, 199, 8),
        (14, 4, 15, 9, 7, 226),
    )
    student = (
        (221, 7, 6, 28, 9, 13),
        (10, 81, 4, 8, 3, 3),
        (5, 2, 137, 9, 3, 12),
        (9, 3, 4, 505, 12, 2),
        (6, 4, 3, 27, 187, 6),
        (15, 5, 19, 14, 7, 215),
    )
    return (
        Confusion(name="Teacher", role="teacher", labels=LABELS, counts=teacher),
        Confusion(name="Student", role="student", labels=LABELS, counts=student),
    )


def _reliability() -> tuple[Reliability, ...]:
    raw = (
        (0.25, 0.58, 40),
        (0.35, 0.66, 210),
        (0.46, 0.78, 420),
        (0.55, 0.88, 480),
        (0.64, 0.94, 320),
        (0.74, 0.98, 130),
    )
    mended = (
        (0.35, 0.3, 18),
        (0.45, 0.49, 72),
        (0.56, 0.55, 150),
        (0.65, 0.7, 210),
        (0.76, 0.8, 300),
        (0.92, 0.94, 850),
    )
    student = (
        (0.26, 0.31, 31),
        (0.36, 0.45, 102),
        (0.55, 0.63, 267),
        (0.66, 0.74, 240),
        (0.75, 0.84, 310),
        (0.91, 0.95, 650),
    )
    named: tuple[tuple[str, Role, float, tuple[tuple[float, float, int], ...]], ...] = (
        ("Teacher, raw", "teacher", 0.312, raw),
        ("Teacher, calibrated", "teacher", 0.0213, mended),
        ("Student", "student", 0.0614, student),
    )
    return tuple(Reliability(name=n, role=role, ece=ece, brier=0.21, bins=_bins(rows)) for n, role, ece, rows in named)


def _bins(rows: tuple[tuple[float, float, int], ...]) -> tuple[ReliabilityBin, ...]:
    found = {int(confidence * 10): (confidence, accuracy, count) for confidence, accuracy, count in rows}
    return tuple(
        ReliabilityBin(low=at / 10, high=(at + 1) / 10, confidence=c, accuracy=a, count=n)
        for at in range(10)
        for c, a, n in (found.get(at, (at / 10 + 0.05, 0.0, 0)),)
    )


def _calibration() -> CalibrationChoice:
    return CalibrationChoice(
        candidates=(
            CalibrationCandidate(name="raw", accuracy=0.8467, chosen=False, detail="log-probabilities as they come"),
            CalibrationCandidate(
                name="batch-calibrated",
                accuracy=0.8633,
                chosen=False,
                detail="minus their mean over 400 random items of the pool",
            ),
            CalibrationCandidate(
                name="prior-aware",
                accuracy=0.8733,
                chosen=True,
                detail="batch-calibrated, plus the estimated class shares",
            ),
        ),
        validation_items=300,
        note="Raw log-probabilities stay in the records; the calibration vector is kept with the run.",
    )


def _funnel() -> tuple[FunnelStep, ...]:
    return (
        FunnelStep(name="Read from the pool", left=12_480),
        FunnelStep(name="Unlike each other", left=12_268, losses=(Loss(reason="exact duplicates", count=212),)),
        FunnelStep(name="Not in the gold set", left=12_231, losses=(Loss(reason="overlap with gold", count=37),)),
        FunnelStep(
            name="Chosen to be asked",
            left=1500,
            losses=(Loss(reason="the student was sure already", count=10_731, set_aside=True),),
        ),
        FunnelStep(name="Answered", left=1500),
        FunnelStep(
            name="Kept for training",
            left=1090,
            losses=(
                Loss(reason="held out to choose the loss", count=400, set_aside=True),
                Loss(reason="no label in the answer", count=10),
            ),
        ),
    )


def coverage() -> Coverage:
    """A pool in which two parts were left out."""
    draw = random.Random(3)
    return Coverage(
        chosen=Variety(
            items=1500, parts_reached=41, vendi=141.4, mean_nearest=1.049, radius=1.023,
            distinct=0.741, compression=2.54, self_repetition=0.094,
        ),
        random=Variety(
            items=1500, parts_reached=38, vendi=129.97, mean_nearest=0.758, radius=1.143,
            distinct=0.708, compression=2.57, self_repetition=0.239,
        ),
        passed_over=10_731,
        dropped=249,
        held_out=1600,
        parts=43,
        explained=0.061,
        vectors="hashed words",
        chosen_at=_cloud(draw, 380, 0.9),
        passed_over_at=_cloud(draw, 2_000, 1.0) + _cloud(draw, 90, 0.12, 0.62, 0.5) + _cloud(draw, 60, 0.1, -0.7, 0.45),
        dropped_at=_cloud(draw, 150, 0.7),
        held_out_at=_cloud(draw, 190, 0.9),
        holes=(
            CoverageHole(words=("verdict", "judge", "appeal", "court"), items=391, chosen=0, x=0.62, y=0.5, reach=0.17,
                         examples=("wn30-n-06559365", "wn30-n-00654885", HOSTILE)),
            CoverageHole(words=("orbit", "planet", "moon"), items=204, chosen=3, x=-0.7, y=0.45, reach=0.14),
        ),
        more_holes=1,
        strata=(
            StratumCoverage(name="train", pool=9_120, chosen=1100),
            StratumCoverage(name="web", pool=3_111, chosen=400),
        ),
    )  # fmt: skip


def _cloud(draw: random.Random, count: int, size: float, x: float = 0.0, y: float = 0.0) -> Spots:
    return tuple((round(draw.gauss(x, size * 0.4), 3), round(draw.gauss(y, size * 0.25), 3)) for _ in range(count))


def _spend() -> Spend:
    return Spend(
        settled_microusd=312_345,
        promised_microusd=4_100,
        unconfirmed_microusd=21_007,
        cap_microusd=5_000_000,
        settled_tokens=531_412,
        promised_tokens=1_024,
        unconfirmed_tokens=4_096,
        cap_tokens=800_000,
        requests=3_398,
        cap_requests=4_000,
        from_cache=120,
        saved_microusd=11_220,
    )


def _plan() -> tuple[PlanLine, ...]:
    return (
        PlanLine(name="Requests", unit="count", low=3300, likely=3400, high=3600, actual=3398),
        PlanLine(name="Tokens", unit="count", low=480_000, likely=540_000, high=760_000, actual=531_412),
        PlanLine(name="Money", unit="microusd", low=280_000, likely=330_000, high=470_000, actual=312_345),
        PlanLine(name="Wall time", unit="seconds", low=180, likely=290, high=400, actual=426),
    )


def generation() -> Generation:
    """Free text of a hundred items, one of them hostile."""
    return Generation(
        items=100,
        truncated=3,
        mean_tokens=14.62,
        lengths=tuple(
            HistogramBin(low=4 * at, high=4 * at + 4, count=n) for at, n in enumerate((0, 6, 23, 38, 19, 9, 3, 2))
        ),
        mean_logprob=-1.284,
        logprobs=tuple(
            HistogramBin(low=-3 + 0.5 * at, high=-2.5 + 0.5 * at, count=n) for at, n in enumerate((2, 7, 19, 41, 26, 5))
        ),
        samples=(
            Sample(
                prompt="Word: lighthouse\nDefinition: a tower with a light that warns ships\nSentence:",
                output="The lighthouse guided the fishermen home through the fog.",
                tokens=11,
                mean_logprob=-0.92,
            ),
            Sample(prompt="Word: xss\nSentence:", output=HOSTILE, tokens=32, mean_logprob=None, note="truncated"),
        ),
        distinct_outputs=98,
    )


def _provenance() -> Provenance:
    return Provenance(
        intended_use="internal use, does not compete, not commercial",
        licence_expression="Apache-2.0 AND LicenseRef-WordNet-3.0",
        teachers=(
            TeacherFacts(
                name="embedded/smollm2-135m",
                model="SmolLM2-135M-Instruct, Q4_1",
                route="self-hosted",
                host="this machine",
                outputs_train="allowed",
                documents=(
                    TermsDocument(
                        title="Apache License",
                        version="2.0",
                        effective="2004-01-01",
                        licence="Apache-2.0",
                        location="in the weights’ package",
                    ),
                ),
                duties=("Keep the notice with the weights; nothing is asked of what they write.",),
                weights_digest="sha256:" + "4c0f7a1e" * 8,
            ),
        ),
        sources=(
            SourceFacts(
                name="WordNet 3.0 noun glosses",
                licence="LicenseRef-WordNet-3.0",
                items=12_480,
                digest="sha256:" + "9d31b2e0" * 8,
                duties=("Keep Princeton University’s copyright notice.",),
            ),
        ),
        decisions=(
            Decision(
                subject="embedded/smollm2-135m",
                role="label",
                answer="allow",
                rule="R09",
                reason="Apache-2.0 sets no condition on outputs",
            ),
        ),
        digests=(("Task spec", "sha256:" + "0ab1" * 16), ("Prompt", "sha256:" + "77fe" * 16), ("Seal", "none")),
        versions=(("corpusgen", "0.1.0"), ("Python", "3.11.7"), ("scikit-learn", "1.9.1")),
    )


if __name__ == "__main__":
    from corpusgen.evaluate.report.page import render

    Path(sys.argv[1]).write_text(render(full_report()), encoding="utf-8")
