"""The section on what went in: funnel, drops, label balance."""

from __future__ import annotations

from functools import partial

from corpusgen.evaluate.report import charts
from corpusgen.evaluate.report.charts import Point, Row
from corpusgen.evaluate.report.facts import Drop, FunnelStep, LabelBalance
from corpusgen.evaluate.report.markup import BEHIND, Section, figure, folded, table
from corpusgen.evaluate.report.svg import both, share_scale
from corpusgen.evaluate.report.wording import DASH, count, percent, share_of


def material(
    funnel: tuple[FunnelStep, ...] | None, drops: tuple[Drop, ...] | None, balance: LabelBalance | None
) -> Section | None:
    """Funnel, drops and label balance."""
    body = (
        (_funnel(funnel) if funnel else "") + (_drops(drops) if drops else "") + (_balance(balance) if balance else "")
    )
    return Section(anchor="material", short="Material", title="What went in", body=body) if body else None


def _funnel(steps: tuple[FunnelStep, ...]) -> str:
    rows = [(step.name, count(step.left), _losses(step)) for step in steps]
    return figure(
        f"From {count(steps[0].left)} to {count(steps[-1].left)}",
        "The strong part of a bar went on, the faint part stayed behind. Nothing is paid before asking.",
        both(partial(_funnel_chart, steps), "funnel"),
        folded(BEHIND, table(("Step", "Left", "Taken away"), rows, wordy=(0, 2))),
    )


def _funnel_chart(steps: tuple[FunnelStep, ...], width: int, name: str) -> str:
    told = "; ".join(f"{step.name} {count(step.left)}" for step in steps)
    return charts.funnel(name, "What was left after each step", told, steps, width)


def _losses(step: FunnelStep) -> str:
    return "; ".join(f"{count(loss.count)} {loss.reason}" for loss in step.losses) or DASH


def _drops(drops: tuple[Drop, ...]) -> str:
    rows = [(drop.stage, count(drop.count), drop.reason, drop.example or DASH) for drop in drops]
    return "<h3>Dropped, and why</h3>" + table(
        ("Step", "Count", "Reason", "Example"), rows, wordy=(0, 2, 3), stacked=True
    )


def _balance(facts: LabelBalance) -> str:
    seed = "" if facts.seed is None else f" (seed\u00a0{facts.seed})"
    caption = (
        f"Teacher labels. Filled: the training set; hollow: a random sample of the pool{seed}. "
        "The gap is what choosing the items did to the mix."
    )
    rows = [
        (label, count(chosen), percent(share_of(chosen, sum(facts.training))), count(drawn),
         percent(share_of(drawn, sum(facts.random_sample))))
        for label, chosen, drawn in zip(facts.labels, facts.training, facts.random_sample, strict=True)
    ]  # fmt: skip
    head = ("Label", "Training", "Share", "Random sample", "Share")
    return figure(
        "Label balance", caption, both(partial(_balance_chart, facts), "balance"), folded(BEHIND, table(head, rows))
    )


def _balance_chart(facts: LabelBalance, width: int, name: str) -> str:
    rows = [
        Row(
            name=label, points=(_part(chosen, sum(facts.training), False), _part(drawn, sum(facts.random_sample), True))
        )
        for label, chosen, drawn in zip(facts.labels, facts.training, facts.random_sample, strict=True)
    ]
    told = "; ".join(f"{row.name}: {' and '.join(point.words for point in row.points)}" for row in rows)
    scale = share_scale([0.02, *(point.value for row in rows for point in row.points)])
    return charts.dot_rows(name, "Share of each label", told, rows, scale, width)


def _part(part: int, whole: int, hollow: bool) -> Point:
    share = share_of(part, whole)
    return Point(value=share, role="neither", words=percent(share, 0), hollow=hollow)
