"""The NOTICE that goes along with a dataset: whom to credit, which texts to keep, which duties to carry out."""

from __future__ import annotations

from corpusgen.export.card import CardSource, CardTeacher
from corpusgen.export.completeness import licences_in
from corpusgen.export.facts import NOT_LEGAL_ADVICE, DatasetFacts, Document
from corpusgen.export.markdown import bullets, inline, page, section, table, verbatim


def notice(facts: DatasetFacts) -> Document:
    """The file as it is written, and which texts and names it could not give."""
    gaps = not_filled(facts)
    text = page(
        f"# NOTICE for {inline(facts.label)}",
        f"_{NOT_LEGAL_ADVICE}_",
        f"Licence of all records together: `{facts.card.licence_expression.replace('`', '')}`. {_written_by(facts)}",
        section("Licences of the rows", bullets(f"{name}: {rows:,} rows" for name, rows in facts.licences.items())),
        section("Sources to credit", "\n\n".join(_credit(source) for source in facts.card.sources)),
        section("Models", bullets(_model(facts, teacher) for teacher in facts.card.teachers)),
        section("Duties", _duties(facts)),
        section("Not filled", bullets(gaps)),
        section("Remarks", bullets(facts.notes)),
        section("Which dataset this is", bullets(_identity(facts))),
    )
    return Document(text=text, not_filled=gaps)


def _written_by(facts: DatasetFacts) -> str:
    imported = facts.card.imported
    if imported == facts.card.rows:
        return "All answers in this dataset came from outside; who wrote them is told with their source."
    told = "The answers in this dataset were written by AI models, not by people"
    return f"{told}, but for {imported:,} that came from outside." if imported else f"{told}."


def not_filled(facts: DatasetFacts) -> tuple[str, ...]:
    """Texts that have to go along and are not held, and names that nobody told."""
    gaps = [
        f"source {source.source_id}: its authors and copyright line"
        + ("" if source.locator else ", and where it is from")
        for source in facts.card.sources
        if not (source.notice or source.rightsholder)
    ]
    held = {name for source in facts.card.sources if source.notice for name in licences_in(source.licence)}
    others = [name for name in licences_in(facts.card.licence_expression) if name not in held]
    gaps += [f"licence {name}: its full text" for name in others]
    gaps += [
        f"terms {terms.terms_id}: the text that was in force, and where it is kept"
        for terms in {terms.terms_id: terms for one in facts.card.teachers for terms in one.terms}.values()
    ]
    return (*gaps, "contact: whom to ask, and where to send takedown requests")


def _credit(source: CardSource) -> str:
    holder = f", {inline(source.rightsholder)}" if source.rightsholder else ""
    line = f"{inline(source.title)}{holder}, licence {inline(source.licence)}"
    if source.locator:
        line += f", {inline(source.locator)}"
    return f"{line}\n\n{verbatim(source.notice)}" if source.notice else line


def _model(facts: DatasetFacts, teacher: CardTeacher) -> str:
    role = "judged" if teacher.name in facts.judges else "wrote"
    terms = "; ".join(f"{one.title}, version {one.version} ({one.spdx})" for one in teacher.terms)
    return f"{teacher.model}, {teacher.provider}, {role} {teacher.records:,} records, under: {terms}"


def _duties(facts: DatasetFacts) -> str:
    rows = [(one.kind, one.applies_to, one.text, one.terms_id) for one in facts.card.duties]
    return table(("Duty", "On the", "What to do", "Asked for by"), rows) or "None was found."


def _identity(facts: DatasetFacts) -> list[str]:
    return [
        f"manifest sha256 {facts.manifest_sha256}",
        f"Merkle root {facts.card.merkle_root}",
        *(f"{file.path}: {file.rows:,} rows, sha256 {file.sha256}" for file in facts.files),
        f"written by {facts.made_with}",
    ]
