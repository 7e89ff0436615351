"""The sections on where everything comes from, under which terms, and what was not measured."""

from __future__ import annotations

from corpusgen.evaluate.report.facts import Decision, Provenance, ServedModel, SourceFacts, TeacherFacts, TermsDocument
from corpusgen.evaluate.report.markup import Html, Section, bullets, definitions, folded, paragraph, table
from corpusgen.evaluate.report.wording import count, plural, text

ANSWERS = {"allow": "allowed", "deny": "denied", "needs_waiver": "needs a waiver"}


def provenance(facts: Provenance | None) -> Section | None:
    """Teachers with their terms, sources, policy decisions, digests and versions."""
    if not facts:
        return None
    use = definitions(
        (("Student is for", facts.intended_use), ("Licence of the records", facts.licence_expression)),
    )
    body = (
        use
        + "".join(_teacher(teacher) for teacher in facts.teachers)
        + _sources(facts.sources)
        + _decisions(facts.decisions)
        + _values("Digests", facts.digests, "code")
        + _values("Versions", facts.versions, "")
    )
    return Section(anchor="rights", short="Rights", title="Where it comes from, and what its terms say", body=body)


def _teacher(facts: TeacherFacts) -> str:
    pairs: list[tuple[str, str | Html]] = [
        ("Model", facts.model),
        ("Reached by", f"{facts.route}, {facts.host}"),
        ("May its answers train?", facts.outputs_train),
    ]
    pairs += [("Answered", _served(one)) for one in facts.served]
    if facts.weights_digest:
        pairs.append(("Weights", Html(f"<code>{text(facts.weights_digest)}</code>")))
    documents = table(
        ("Terms document", "Version", "In force", "Licence", "Where"),
        map(_document, facts.documents),
        wordy=range(5),
        stacked=True,
    )
    owed = paragraph("Duties that follow:") + bullets(facts.duties) if facts.duties else paragraph("No duties follow.")
    return f"<h3>Teacher: {text(facts.name)}</h3>" + definitions(pairs) + documents + owed


def _served(one: ServedModel) -> str | Html:
    """Who really answered, and how often."""
    told = f"{one.name or 'a model its server does not name'}: {plural(one.records, 'record')}"
    return Html(f"<b>{text(told)}, another model than was asked</b>") if one.another else told


def _document(facts: TermsDocument) -> tuple[str, ...]:
    return facts.title, facts.version, facts.effective, facts.licence, facts.location


def _sources(facts: tuple[SourceFacts, ...]) -> str:
    if not facts:
        return ""
    rows = [
        (one.name, one.licence, count(one.items), "; ".join(one.duties), Html(f"<code>{text(one.digest)}</code>"))
        for one in facts
    ]
    head = ("Source", "Licence", "Items", "Duties", "Digest")
    return "<h3>Sources</h3>" + table(head, rows, wordy=(0, 1, 3, 4), stacked=True)


def _decisions(facts: tuple[Decision, ...]) -> str:
    if not facts:
        return ""
    rows = [(one.subject, one.role, ANSWERS[one.answer], one.rule, one.reason) for one in facts]
    head = ("Subject", "Role", "Decision", "Rule", "Reason")
    return "<h3>Policy, asked before anything was sent</h3>" + table(head, rows, wordy=range(5), stacked=True)


def _values(title: str, pairs: tuple[tuple[str, str], ...], kind: str) -> str:
    return folded(title, definitions(pairs, kind)) if pairs else ""


def limits(facts: tuple[str, ...]) -> Section | None:
    """What the run did not measure."""
    return (
        Section(anchor="limits", short="Limits", title="What this page does not show", body=bullets(facts))
        if facts
        else None
    )
