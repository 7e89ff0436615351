"""What the numbers come to, in plain words: the headline, the aims, the warnings."""

from __future__ import annotations

from corpusgen.evaluate.report.facts import Aim, Cost, Estimate, Headline
from corpusgen.evaluate.report.wording import count, listed, percent, plural, significant, times


def headline(facts: Headline, cost: Cost | None) -> str:
    """The page's first sentence."""
    cheaper = _cheaper(cost) if cost else ""
    if facts.retention.value >= 1:
        return f"The student is right at least as often as its teacher{cheaper}"
    return f"The student keeps {percent(facts.retention.value)} of its teacher’s accuracy{cheaper}"


def _cheaper(cost: Cost) -> str:
    if cost.ratio is not None:
        ratio, of_what = cost.ratio, "processor time"
    elif cost.teacher_microusd and cost.student_microusd:
        ratio, of_what = cost.teacher_microusd / cost.student_microusd, "price"
    else:
        return ""
    return f" at 1/{count(float(f'{ratio:.3g}'))} of the {of_what}" if ratio > 1.5 else ""


def lede(facts: Headline) -> str:
    """Teacher, student and agreement side by side: retention alone would flatter a weak teacher."""
    return (
        f"On {plural(facts.gold_items, 'gold item')} the teacher, {facts.teacher_name}, is right "
        f"{percent(facts.teacher.value)} of the time; the student, {facts.student_name}, "
        f"{percent(facts.student.value)}. "
        f"They give the same answer on {percent(facts.agreement.value)}. {_reach(facts.retention)}"
        f"The student learned from {plural(facts.labels_asked, 'answer')} of the teacher; "
        "the gold items served for scoring only."
    )


def _reach(retention: Estimate) -> str:
    if retention.low is None or retention.high is None:
        return ""
    return f"Retention, student over teacher, lies between {percent(retention.low)} and {percent(retention.high)}. "


def macro_f1(facts: Headline) -> str | None:
    """Macro-F1 of both in one sentence; None when neither was computed."""
    pairs = (("teacher", facts.teacher_macro_f1), ("student", facts.student_macro_f1))
    told = [f"{name} {percent(value)}" for name, value in pairs if value is not None]
    return f"Macro-F1, which counts rare and common classes alike: {', '.join(told)}." if told else None


def verdict(aims: tuple[Aim, ...]) -> str:
    """How many aims were reached."""
    missed = [aim.name for aim in aims if not aim.met]
    if not missed:
        return "The aim was met." if len(aims) == 1 else f"All {len(aims)} aims were met."
    if len(missed) == len(aims):
        return "The aim was missed." if len(aims) == 1 else f"All {len(aims)} aims were missed."
    return f"{len(missed)} of {len(aims)} aims {'was' if len(missed) == 1 else 'were'} missed: {listed(missed)}."


def aim_row(aim: Aim) -> tuple[str, str, str, str]:
    """One aim, what was reached, and by how much it was missed."""
    bound = "≥" if aim.at_least else "≤"
    outcome = "met" if aim.met else f"missed by {_shortfall(aim)}"
    return aim.name, f"{bound} {_amount(aim, aim.wanted)}", _amount(aim, aim.reached), outcome


def warnings(facts: Headline) -> list[str]:
    """What a reader must know before quoting the headline."""
    told = []
    if facts.retention.value > 1:
        told.append("Retention above 100 % says more about the weakness of the teacher than about the student.")
    if facts.majority is not None and facts.student.value <= facts.majority:
        told.append(f"The student is no better than always naming the commonest class ({percent(facts.majority)}).")
    if facts.unanswered:
        told.append(f"The teacher gave no label to {plural(facts.unanswered, 'gold item')}; they count as wrong.")
    if facts.gold_items < 500:
        told.append(f"{plural(facts.gold_items, 'gold item')} are few; read the intervals, not the points.")
    return told


def interval(estimate: Estimate) -> str:
    """The 95 % interval, or a dash."""
    if estimate.low is None or estimate.high is None:
        return "–"
    return f"{percent(estimate.low)} to {percent(estimate.high)}"


def _amount(aim: Aim, value: float) -> str:
    if aim.unit == "share":
        return percent(value)
    return times(value) if aim.unit == "ratio" else count(value)


def _shortfall(aim: Aim) -> str:
    gap = abs(aim.wanted - aim.reached)
    if aim.unit == "share":
        return f"{significant(gap * 100)} points"
    return times(gap) if aim.unit == "ratio" else count(gap)
