"""The report of one run as one HTML file that needs nothing else."""

from __future__ import annotations

from corpusgen.evaluate.report import coverage, generated, material, quality, rights, spending, verdict
from corpusgen.evaluate.report.facts import Aim, Headline, RunReport
from corpusgen.evaluate.report.markup import Html, Section, paragraph, table
from corpusgen.evaluate.report.style import STYLE
from corpusgen.evaluate.report.wording import duration, text

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""Nothing is fetched and nothing runs, whatever a model wrote."""


def render(report: RunReport) -> str:
    """The page: what the run reached first, then what stands behind it."""
    parts = sections(report)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta name="referrer" content="no-referrer"><meta name="color-scheme" content="light dark">'
        f"<title>{text(report.task)}: corpusgen report</title><style>{STYLE}</style></head>"
        f"<body>{_header(report, parts)}<main>{''.join(map(_section, parts))}</main>{_footer(report)}</body></html>\n"
    )


def sections(report: RunReport) -> list[Section]:
    """Every section this run has facts for, in reading order."""
    found = (
        quality.quality(report.headline),
        quality.cost(report.cost),
        quality.curve(report.curve),
        quality.mistakes(report.confusions),
        quality.confidence(report.reliability, report.calibration),
        material.material(report.funnel, report.drops, report.balance),
        coverage.coverage(report.coverage),
        spending.spend(report.spend, report.plan),
        generated.generation(report.generation),
        rights.provenance(report.provenance),
        rights.limits(report.limitations),
    )
    return [section for section in found if section]


def _header(report: RunReport, parts: list[Section]) -> str:
    when = f"{report.finished:%Y-%m-%d %H:%M} UTC"
    kicker = paragraph(f"{report.task} · {when} · {duration(report.wall_s)}", "kicker")
    links = "".join(f'<a href="#{part.anchor}">{text(part.short)}</a>' for part in parts)
    return f'<header>{kicker}{_opening(report)}<nav aria-label="Contents">{links}</nav></header>'


def _opening(report: RunReport) -> str:
    facts = report.headline
    if not facts:
        return f"<h1>{text(report.task)}</h1>{paragraph(report.description, 'lede')}"
    lede = paragraph(verdict.lede(facts), "lede")
    macro = verdict.macro_f1(facts)
    return (
        f"<h1>{text(verdict.headline(facts, report.cost))}</h1>{paragraph(report.description)}{lede}"
        + (paragraph(macro) if macro else "")
        + _verdict(facts)
    )


def _verdict(facts: Headline) -> str:
    cautions = "".join(paragraph(warning) for warning in verdict.warnings(facts))
    inside = (_aims(facts.aims) if facts.aims else "") + cautions
    return f'<div class="verdict">{inside}</div>' if inside else ""


def _aims(aims: tuple[Aim, ...]) -> str:
    told = paragraph(Html(f"<b>{text(verdict.verdict(aims))}</b>"))
    return told + table(("Aim", "Wanted", "Reached", ""), map(_aim, aims), wordy=(0, 3))


def _aim(aim: Aim) -> tuple[str | Html, ...]:
    *facts, outcome = verdict.aim_row(aim)
    return (*facts, outcome if aim.met else Html(f"<b>{text(outcome)}</b>"))


def _section(part: Section) -> str:
    return (
        f'<section id="{part.anchor}" aria-labelledby="{part.anchor}-title">'
        f'<h2 id="{part.anchor}-title">{text(part.title)}</h2>{part.body}</section>'
    )


def _footer(report: RunReport) -> str:
    told = f"Run {report.run_id}. Written by corpusgen; this file loads nothing and runs nothing."
    return f"<footer>{paragraph(told, 'note')}</footer>"
