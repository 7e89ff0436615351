"""The sections that say how good teacher and student are, and what their answers cost."""

from __future__ import annotations

import math
from functools import partial

from corpusgen.evaluate.report import charts, verdict
from corpusgen.evaluate.report.charts import Point, Row
from corpusgen.evaluate.report.facts import (
    CalibrationChoice,
    Confusion,
    Cost,
    CurvePoint,
    Discordant,
    Estimate,
    Headline,
    LearningCurve,
    Reliability,
    ReliabilityBin,
    Role,
)
from corpusgen.evaluate.report.markup import BEHIND, Html, Section, figure, folded, key, paragraph, table
from corpusgen.evaluate.report.svg import both, decade_scale, share_scale
from corpusgen.evaluate.report.wording import (
    DASH,
    count,
    dollars,
    listed,
    milliseconds,
    percent,
    plural,
    share_of,
    significant,
    times,
)


def quality(facts: Headline | None) -> Section | None:
    """Teacher, student, agreement and retention with their intervals."""
    if not facts:
        return None
    estimates: list[tuple[str, Role, Estimate]] = [
        ("Teacher against gold", "teacher", facts.teacher),
        ("Student against gold", "student", facts.student),
        ("Student agrees with teacher", "neither", facts.agreement),
        ("Retention: student ÷ teacher", "neither", facts.retention),
    ]
    chart = figure(
        "How often they are right",
        "Marks are what was measured, the bars behind them 95 % intervals." + _floor(facts.majority),
        both(partial(_quality_chart, estimates), "quality"),
        folded(BEHIND, _quality_table(facts, estimates)),
    )
    return Section(
        anchor="quality", short="Quality", title="How good the student is", body=chart + _discordant(facts.discordant)
    )


def _discordant(facts: Discordant | None) -> str:
    if not facts:
        return ""
    chance = f"{facts.p_value:.2g}" if facts.p_value >= 0.001 else "less than 0.001"
    return paragraph(
        f"Only the teacher was right on {plural(facts.only_teacher, 'item')}, only the student on "
        f"{count(facts.only_student)}. Were they equally good, a gap this wide would come up with a probability of "
        f"{chance} (exact McNemar test).",
        "note",
    )


def _floor(majority: float | None) -> str:
    return "" if majority is None else f" Always naming the commonest class would reach {percent(majority)}."


def _quality_chart(estimates: list[tuple[str, Role, Estimate]], width: int, name: str) -> str:
    rows = [Row(name=measure, points=(_point(role, found),)) for measure, role, found in estimates]
    told = "; ".join(f"{measure} {percent(found.value)}, {verdict.interval(found)}" for measure, _, found in estimates)
    reach = [v for _, _, found in estimates for v in (found.value, found.low, found.high) if v is not None]
    return charts.dot_rows(name, "Accuracy, agreement and retention", told, rows, share_scale(reach), width)


def _point(role: Role, found: Estimate) -> Point:
    return Point(value=found.value, role=role, words=percent(found.value), low=found.low, high=found.high)


def _quality_table(facts: Headline, estimates: list[tuple[str, Role, Estimate]]) -> str:
    rows = [(name, percent(found.value), verdict.interval(found)) for name, _, found in estimates]
    extra = (
        ("Teacher macro-F1", facts.teacher_macro_f1),
        ("Student macro-F1", facts.student_macro_f1),
        ("Always the commonest class", facts.majority),
    )
    rows += [(name, percent(value), DASH) for name, value in extra if value is not None]
    return table(("Measure", "Value", "95 % interval"), rows, caption=f"On {plural(facts.gold_items, 'gold item')}")


def cost(facts: Cost | None) -> Section | None:
    """Processor time per item of both, and a million items in money."""
    if not facts:
        return None
    chart = figure(
        "Processor time per item",
        f"Each step of the axis is ten times the one before. {_who(facts)} measured in this run on "
        f"{plural(facts.items_measured, 'item')}.",
        both(partial(_cost_chart, facts), "cost"),
        folded(BEHIND, _cost_table(facts)),
    )
    return Section(
        anchor="cost", short="Cost", title="What an answer costs", body=chart + _million(facts) + _break_even(facts)
    )


def _who(facts: Cost) -> str:
    if facts.teacher_cpu_ms is not None:
        return "Both were"
    return "The teacher runs on somebody else’s machine; the student was"


def _cost_rows(facts: Cost) -> tuple[tuple[str, Role, float, float | None], ...]:
    students: tuple[tuple[str, Role, float, float | None], ...] = (
        ("Student, one item at a time", "student", facts.student_cpu_ms_batch1, facts.ratio_batch1),
        ("Student, 64 items at a time", "student", facts.student_cpu_ms, facts.ratio),
    )
    return students if facts.teacher_cpu_ms is None else (("Teacher", "teacher", facts.teacher_cpu_ms, 1.0), *students)


def _cost_chart(facts: Cost, width: int, name: str) -> str:
    measured = _cost_rows(facts)
    rows = [
        Row(name=who, points=(Point(value=ms, role=role, words=milliseconds(ms)),)) for who, role, ms, _ in measured
    ]
    scale = decade_scale([ms for _, _, ms, _ in measured], "ms")
    told = "; ".join(f"{who} {milliseconds(ms)}" for who, _, ms, _ in measured)
    return charts.dot_rows(name, "Processor milliseconds per item", told, rows, scale, width)


def _cost_table(facts: Cost) -> str:
    rows = [
        (key(role, who), milliseconds(ms), DASH if ratio is None or role == "teacher" else times(ratio))
        for who, role, ms, ratio in _cost_rows(facts)
    ]
    return table(("Who answers", "CPU time per item", "Cheaper than the teacher"), rows)


def _million(facts: Cost) -> str:
    rows = [(key(row.role, row.name), _hours(row.cpu_hours), dollars(row.microusd), row.basis) for row in facts.million]
    price = f"Processor time is priced at {dollars(facts.shadow_microusd_per_cpu_hour)} per CPU hour, a shadow price."
    head = ("Who answers", "CPU hours", "Money", "How it was reckoned")
    return (
        "<h3>A million items would cost</h3>" + table(head, rows, wordy=(0, 3), stacked=True) + paragraph(price, "note")
    )


def _hours(hours: float | None) -> str:
    return DASH if hours is None else significant(hours)


def _break_even(facts: Cost) -> str:
    if facts.break_even_items is None:
        return ""
    if not math.isfinite(facts.break_even_items):
        return paragraph(f"At these prices the student never earns back what teaching it cost{_fixed(facts)}.")
    return paragraph(
        f"Teaching the student is earned back after {count(math.ceil(facts.break_even_items))} items{_fixed(facts)}."
    )


def _fixed(facts: Cost) -> str:
    if facts.fixed_microusd is None or facts.teacher_microusd is None or facts.student_microusd is None:
        return ""
    return (
        f": it cost {dollars(facts.fixed_microusd)}, and a thousand items cost {dollars(1000 * facts.teacher_microusd)}"
        f" with the teacher and {dollars(1000 * facts.student_microusd)} with the student"
    )


def curve(facts: LearningCurve | None) -> Section | None:
    """The student after each round."""
    if not facts or not facts.points:
        return None
    caption = (
        f"Hollow: agreement with the teacher on {plural(facts.heldout_items, 'held-out item')}, "
        "which the run may look at. "
        "Filled: accuracy against gold, measured afterwards."
    )
    ended = (paragraph(f"It ended because {facts.ended}.", "note"),) if facts.ended else ()
    chart = figure(_gain(facts), caption, both(partial(_curve_chart, facts), "curve"), *ended, _curve_table(facts))
    return Section(anchor="curve", short="Learning", title="How it learned", body=chart)


def _gain(facts: LearningCurve) -> str:
    first, last = facts.points[0], facts.points[-1]
    if first is last:
        return f"{percent(last.agreement)} agreement after {count(last.labels)} labels"
    asked = f"{count(first.labels)} to {count(last.labels)} labels"
    return f"From {asked}, agreement went from {percent(first.agreement)} to {percent(last.agreement)}"


def _curve_chart(facts: LearningCurve, width: int, name: str) -> str:
    told = "; ".join(f"{count(point.labels)} labels: agreement {percent(point.agreement)}" for point in facts.points)
    return charts.learning_curve(name, "Learning curve by rounds", told, facts, width)


def _curve_table(facts: LearningCurve) -> str:
    steered = any(point.expected for point in facts.points)
    rows = [
        (
            *(str(p.round), count(p.labels), percent(p.agreement), _maybe_percent(p.gold_accuracy), p.chosen_by),
            *((_expected(p),) if steered else ()),
        )
        for p in facts.points
    ]
    levels = (("Teacher against gold", facts.teacher_accuracy), ("Aim for the student", facts.target_accuracy))
    lines = [f"{name}: {percent(level)}." for name, level in levels if level is not None]
    head = ["Round", "Labels asked", "Agreement", "Gold accuracy", "Chosen by"]
    if steered:
        head.append("Next to gain")
        lines.append(
            "Next to gain: points of agreement expected of the next round, with the 80 % interval of what is expected;"
            " a single round may do better or worse by luck."
        )
    return folded(BEHIND, table(head, rows, wordy=(0, 4)), *(paragraph(told, "note") for told in lines))


def _expected(point: CurvePoint) -> str:
    found = point.expected
    if found is None or found.low is None or found.high is None:
        return DASH
    return f"{100 * found.value:.2f} ({100 * found.low:.2f} to {100 * found.high:.2f})"


def _maybe_percent(value: float | None) -> str:
    return DASH if value is None else percent(value)


def mistakes(facts: tuple[Confusion, ...] | None) -> Section | None:
    """Recall by class and both confusion matrices."""
    if not facts:
        return None
    chart = figure(
        "Found, class by class",
        Html("Of the gold items of each class, the share that was named so. " + _legend(facts)),
        both(partial(_recall_chart, facts), "recall"),
        folded(BEHIND, _class_table(facts)),
    )
    matrices = "".join(_matrix(f"confusion-{at}", one) for at, one in enumerate(facts))
    return Section(
        anchor="mistakes",
        short="Mistakes",
        title="Where they go wrong",
        body=f'{chart}<div class="{_columns(facts)}">{matrices}</div>',
    )


def _columns(facts: tuple[Confusion, ...]) -> str:
    return "pair" if max(len(one.labels) for one in facts) <= 8 else "single"


def _legend(facts: tuple[Confusion, ...]) -> str:
    return f'<span class="key">{" ".join(key(one.role, one.name).source for one in facts)}</span>'


def _recall_chart(facts: tuple[Confusion, ...], width: int, name: str) -> str:
    rows = [
        Row(name=f"{label} ({count(facts[0].gold_items(at))})", points=tuple(_recall(one, at) for one in facts))
        for at, label in enumerate(facts[0].labels)
    ]
    scale = share_scale([point.value for row in rows for point in row.points])
    told = "; ".join(f"{row.name}: {', '.join(point.words for point in row.points)}" for row in rows)
    return charts.dot_rows(name, "Recall by class", told, rows, scale, width)


def _recall(facts: Confusion, at: int) -> Point:
    recall, _, _ = class_scores(facts, at)
    return Point(value=recall, role=facts.role, words=percent(recall, 0))


def class_scores(facts: Confusion, at: int) -> tuple[float, float, float]:
    """Recall, precision and F1 of one class; a gold item without an answer is one that was not found."""
    hits, items, answers = facts.counts[at][at], facts.gold_items(at), sum(row[at] for row in facts.counts)
    return share_of(hits, items), share_of(hits, answers), share_of(2 * hits, items + answers)


def _class_table(facts: tuple[Confusion, ...]) -> str:
    scores = ("recall", "precision", "F1")
    head = ("Class", "Items", *(f"{one.name} {score}" for one in facts for score in scores))
    rows = [
        (label, count(facts[0].gold_items(at)), *(percent(score) for one in facts for score in class_scores(one, at)))
        for at, label in enumerate(facts[0].labels)
    ]
    return table(head, rows, stacked=True)


def _matrix(name: str, facts: Confusion) -> str:
    rows = [(label, *(count(n) for n in row)) for label, row in zip(facts.labels, facts.counts, strict=True)]
    behind = folded(BEHIND, table(("gold \\ answered", *facts.labels), rows))
    return figure(f"{facts.name} against gold", _mixups(facts), charts.confusion(name, facts), behind)


def _mixups(facts: Confusion) -> str:
    wrong = sorted(
        ((number, gold, answered) for gold, row in enumerate(facts.counts) for answered, number in enumerate(row)
         if gold != answered and number), key=lambda found: (-found[0], found[1:]))[:3]  # fmt: skip
    told = [f"{facts.labels[gold]} taken for {facts.labels[answered]} ({count(n)})" for n, gold, answered in wrong]
    return f"Most often {listed(told)}." if told else "No mistake."


def confidence(facts: tuple[Reliability, ...] | None, choice: CalibrationChoice | None) -> Section | None:
    """Reliability diagrams, and the candidates for reading the teacher."""
    if not facts and not choice:
        return None
    body = (_reliability(facts) if facts else "") + (_calibration(choice) if choice else "")
    return Section(anchor="confidence", short="Confidence", title="Can their confidence be believed?", body=body)


def _reliability(facts: tuple[Reliability, ...]) -> str:
    told = "On the dashed line, what is said with 80 % confidence is right 80 % of the time; below it, too sure."
    return (
        paragraph(told) + f'<div class="pair three">{"".join(_diagram(at, one) for at, one in enumerate(facts))}</div>'
    )


def _diagram(at: int, facts: Reliability) -> str:
    brier = "" if facts.brier is None else f", Brier score {facts.brier:.3f}"
    behind = folded(BEHIND, table(("Confidence", "Mean", "Right", "Items"), map(_bin_row, facts.bins)))
    caption = f"Calibration error (ECE) {percent(facts.ece)}{brier}"
    return figure(facts.name, caption, charts.reliability(f"reliability-{at}", facts), behind)


def _bin_row(bin_: ReliabilityBin) -> tuple[str, ...]:
    span = f"{percent(bin_.low, 0)} to {percent(bin_.high, 0)}"
    shares = (percent(bin_.confidence), percent(bin_.accuracy)) if bin_.count else (DASH, DASH)
    return span, *shares, count(bin_.count)


def _calibration(choice: CalibrationChoice) -> str:
    rows = [(one.name, percent(one.accuracy), "chosen" if one.chosen else "", one.detail) for one in choice.candidates]
    told = paragraph(f"Compared on {plural(choice.validation_items, 'validation item')} with gold.")
    found = table(("Reading", "Accuracy", "Choice", "What it does"), rows, wordy=(0, 2, 3), stacked=True)
    note = paragraph(choice.note, "note") if choice.note else ""
    return f"<h3>How the teacher was read</h3>{told}{found}{note}"
