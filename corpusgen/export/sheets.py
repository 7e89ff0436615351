"""Sheets for lawyers: what a regulation or framework asks of training data, answered from what was recorded.

EU AI Act, template for the public summary of training content (Article 53(1)(d)), section 2.5; California's AB 2013
(Civil Code 3111(a)); actions of NIST AI 600-1. Questions are told in our words: hold them against the official text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from corpusgen.export.card import CardTeacher
from corpusgen.export.facts import NOT_LEGAL_ADVICE, DatasetFacts, Document
from corpusgen.export.markdown import bullets, inline, page, section, table

_OWN: Final = frozenset({"self_hosted", "mock"})
"""Routes on which nobody else serves the model."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One thing that is asked, what the records say to it, and what they do not say."""

    item: str
    asks: str
    answer: str = ""
    missing: str = ""

    @property
    def gap(self) -> str | None:
        """What a person has to fill in here; None where nothing is left."""
        return f"{self.item}: {self.missing or self.asks}" if self.missing or not self.answer else None


def eu_2_5(facts: DatasetFacts) -> Document:
    """Section 2.5 of the EU template: synthetic data, with which models it was made."""
    intro = (
        "For section 2.5 (synthetic AI-generated data) of the public summary under Article 53(1)(d) of Regulation (EU)"
        " 2024/1689, for a provider who trains on this dataset. The numbers are ours; other sections are not covered."
    )
    models = section("Models that wrote or judged rows", _models(facts))
    return _sheet(
        f"EU AI Act, training content summary, section 2.5: {facts.label}", intro, list(_eu(facts)), facts, models
    )


def ab2013(facts: DatasetFacts) -> Document:
    """California AB 2013: the twelve items about one training dataset."""
    intro = (
        "For the documentation that California's AB 2013 (Civil Code 3110-3111) asks for of each dataset that a"
        " generative system open to Californians was trained on, fine-tuning included. Items as in 3111(a)."
    )
    sources = section("Sources", _sources(facts))
    models = section("Models that wrote or judged rows", _models(facts))
    return _sheet(f"California AB 2013 sheet: {facts.label}", intro, list(_california(facts)), facts, sources, models)


def nist_600_1(facts: DatasetFacts) -> Document:
    """NIST AI 600-1: actions about the origin of data, and what this dataset shows for each."""
    intro = (
        "Actions of NIST AI 600-1 (Generative AI Profile) that concern the origin of data, with the evidence there is."
        " The framework is voluntary, and evidence of one dataset is no programme of risk management."
    )
    return _sheet(f"NIST AI 600-1 action sheet: {facts.label}", intro, list(_nist(facts)), facts)


def _sheet(title: str, intro: str, entries: Sequence[Entry], facts: DatasetFacts, *more: str) -> Document:
    gaps = tuple(entry.gap for entry in entries if entry.gap is not None)
    rows = [(entry.item, entry.asks, entry.answer or "**not filled**") for entry in entries]
    text = page(
        f"# {inline(title)}",
        f"_{NOT_LEGAL_ADVICE}_",
        intro,
        section("Answers", table(("Item", "Asked", "Answer"), rows)),
        *more,
        section("Not filled", bullets(gaps)),
        section("Remarks", bullets(facts.notes)),
        section("Where this comes from", _origin(facts)),
    )
    return Document(text=text, not_filled=gaps)


def _eu(facts: DatasetFacts) -> Iterator[Entry]:
    rows, asked = sum(teacher.records for teacher in facts.writers), facts.card.rows - facts.card.imported
    yield Entry(
        item="2.5 (1)",
        asks="Was synthetic data made by the provider, or for it, to train directly on the outputs of another AI model,"
        " in particular through distillation or alignment?",
        answer=_distilled(facts) + (f" {_judged(facts)}" if facts.judging else ""),
        missing="" if rows == asked else f"the teachers of {asked - rows} records",
    )
    yield Entry(item="2.5 (2)", asks="Modality of the synthetic data", answer="Text")
    yield Entry(
        item="2.5 (3)",
        asks="General-purpose models on the market that were used, with links to their public summaries",
        answer=_named(one for one in facts.card.teachers if one.route not in _OWN),
        missing="links to the public summaries of the models, and which of them are general-purpose models",
    )
    yield Entry(
        item="2.5 (4)",
        asks="Other models that were used, the provider's own among them, and what they were trained on, if known",
        answer=_named(one for one in facts.card.teachers if one.route in _OWN),
        missing="what these models were trained on, and which of them are on the market as well",
    )
    yield Entry(
        item="2.5 (5)",
        asks="Comments",
        answer=f"Prompts were made of: {_titles(facts)}.{_written_by_models(facts)} Cleaning and enriching by AI is"
        " outside this section.",
    )


def _distilled(facts: DatasetFacts) -> str:
    imported = facts.card.imported
    told = f"Yes: {facts.card.rows - imported:,} records are answers of models, made for training a student."
    if not imported:
        return told
    outside = f"{imported:,} records came from outside; terms of models that wrote them are told with their source."
    return outside if imported == facts.card.rows else f"{told} {outside}"


def _california(facts: DatasetFacts) -> Iterator[Entry]:
    card = facts.card
    yield Entry(
        item="(1)",
        asks="Sources or owners of the dataset",
        answer=f"Prompts: {_titles(facts)}.{_owners(facts)} Answers: {_named(facts.writers)}",
        missing=_left(facts, "rightsholder", "owners of the sources, and of the dataset", "owner of the dataset"),
    )
    yield Entry(
        item="(2)",
        asks="How it furthers the purpose of the system",
        answer=f"{card.description or ''} {_purpose(facts)}".strip(),
        missing="" if card.description else "what the dataset is for (description in the spec)",
    )
    yield Entry(item="(3)", asks="Number of data points", answer=_points(facts))
    yield Entry(item="(4)", asks="Types of data points", answer=_types(facts))
    yield Entry(
        item="(5)",
        asks="Protected by copyright, trademark or patent, or in the public domain",
        answer=f"Licence of all rows together: {card.licence_expression}{_told(facts, 'copyright_status')}",
        missing=_left(
            facts,
            "copyright_status",
            "copyright, trademark and patent status of each source and of the answers",
            "trademark and patent status of the sources, and status of the answers",
        ),
    )
    yield Entry(
        item="(6)",
        asks="Purchased or licensed",
        answer="Licensed, as the table of sources says; answers under the terms named with the models"
        + _told(facts, "acquisition"),
        missing=_left(facts, "acquisition", "whether any source was bought", "whether a licensed source was paid for"),
    )
    yield Entry(item="(7)", asks="Personal information in it", answer=_personal(facts), missing=_personal_gap(facts))
    yield Entry(item="(8)", asks="Aggregate consumer information in it")
    yield Entry(
        item="(9)",
        asks="Cleaning, processing and other changes, and what they were for",
        answer=" ".join([*card.how_made, *_left_out(facts)]),
    )
    yield Entry(
        item="(10)",
        asks="Period of collection, and whether it goes on",
        answer=f"Answers: {_period(facts)}. This sealed version is closed.{_told(facts, 'acquired')}",
        missing=_left(facts, "acquired", "when the sources were collected", ""),
    )
    yield Entry(
        item="(11)",
        asks="Dates of first use in development",
        answer="" if facts.first_used is None else f"A student first learned from it on {facts.first_used}.",
    )
    yield Entry(
        item="(12)",
        asks="Whether synthetic data generation was used or is used continuously",
        answer=f"Yes: all {card.rows:,} records were written by models.",
        missing="whether the system goes on using it",
    )


def _nist(facts: DatasetFacts) -> Iterator[Entry]:
    card, files = facts.card, f"{len(facts.files)} files, each with its sha256 in the manifest"
    yield Entry(
        item="GV-1.2-001",
        asks="Document origin and history of training data and of generated data",
        answer=f"Every row names teacher, terms, licence, sources, prompt, spec and request; {_period(facts)}."
        + _released(facts),
        missing="origin and history of the teachers' own training data",
    )
    yield Entry(
        item="MP-4.1-010",
        asks="Diligence on the use of training data: intellectual property, privacy",
        answer=f"Terms and licences were judged before anything was asked (registry {facts.registry_digest[:12]},"
        f" policy {facts.policy_digest[:12]}): {card.licence_expression}. {_personal(facts)}{_agreed(facts)}",
        missing="a review by a lawyer",
    )
    yield Entry(
        item="MS-1.1-001",
        asks="Trace origin and modifications of content",
        answer="Columns record_id, request_key, source_ids, parent_ids and verdicts of each row. "
        + " ".join(_left_out(facts)),
    )
    yield Entry(
        item="MS-2.2-002",
        asks="How provenance data interacts with privacy",
        answer="Rows carry digests of prompt and spec, and the ids of source items.",
        missing="whether ids of source items tell who somebody is",
    )
    yield Entry(
        item="MS-2.5-005",
        asks="Verify the provenance of training data and of data for test and evaluation",
        answer=f"{files}; Merkle root {card.merkle_root}; `corpusgen verify` checks them again.",
        missing="provenance of evaluation data that is not in this dataset",
    )
    yield Entry(
        item="MS-2.6-002",
        asks="Intellectual property and privacy issues in training data",
        answer=f"{_duties(facts)} {_personal(facts)}",
        missing=_personal_gap(facts),
    )
    yield Entry(
        item="MS-2.8-003",
        asks="Tamper-proof history of content",
        answer=f"Manifest sha256 {facts.manifest_sha256}. It shows later edits to whoever noted it down elsewhere; it"
        " does not show that what was recorded was true.",
        missing="where the manifest's digest is kept outside this machine",
    )


def _models(facts: DatasetFacts) -> str:
    rows = [
        (
            teacher.model,
            teacher.provider,
            teacher.route + (f", {teacher.host}" if teacher.host else ""),
            "judge" if teacher.name in facts.judges else "author",
            f"{teacher.records:,} ({teacher.records / max(facts.card.rows, 1):.1%})",
            f"{facts.output_tokens[teacher.name]:,}" if teacher.name in facts.output_tokens else "",
            "; ".join(f"{terms.title}, {terms.version}" for terms in teacher.terms),
        )
        for teacher in facts.card.teachers
    ]
    return table(("Model", "Provider", "Through", "Role", "Records", "Output tokens", "Terms"), rows)


def _sources(facts: DatasetFacts) -> str:
    rows = [
        (one.title, one.rightsholder or "", one.licence, one.locator or "", _count(one.records))
        for one in facts.card.sources
    ]
    return table(("Title", "Rightsholder", "Licence", "Where", "Records"), rows)


def _count(records: int | None) -> str:
    return "" if records is None else f"{records:,}"


def _left(facts: DatasetFacts, name: str, missing: str, else_missing: str) -> str:
    """What a person has to fill in: less where every source tells the field of that name."""
    told = all(getattr(source, name) not in (None, "unknown") for source in facts.card.sources)
    return else_missing if told and facts.card.sources else missing


def _told(facts: DatasetFacts, name: str) -> str:
    """What sources tell of themselves in one field, as a sentence; nothing where none does."""
    told = [(one.source_id, getattr(one, name)) for one in facts.card.sources if getattr(one, name) is not None]
    words = "; ".join(f"{source} {str(value).replace('_', ' ')}" for source, value in told)
    return f" Sources ({name.replace('_', ' ')}): {words}." if words else ""


def _owners(facts: DatasetFacts) -> str:
    named = [f"{one.title}: {one.rightsholder}" for one in facts.card.sources if one.rightsholder]
    return f" Owners: {'; '.join(named)}." if named else ""


def _written_by_models(facts: DatasetFacts) -> str:
    named = [
        f"{one.title} by models under {', '.join(one.generated_by)}" for one in facts.card.sources if one.generated_by
    ]
    return f" Of these, models wrote: {'; '.join(named)}." if named else ""


def _agreed(facts: DatasetFacts) -> str:
    return f" Agreements on personal data: {'; '.join(facts.agreements)}." if facts.agreements else ""


def _released(facts: DatasetFacts) -> str:
    return f" Students of it that were released: {'; '.join(facts.released)}." if facts.released else ""


def _origin(facts: DatasetFacts) -> str:
    return bullets(
        [
            f"dataset {facts.label}, sealed {facts.card.created_time:%Y-%m-%d %H:%M} UTC",
            f"manifest sha256 {facts.manifest_sha256}",
            f"Merkle root {facts.card.merkle_root}",
            f"terms registry {facts.registry_digest}, policy {facts.policy_digest}",
            f"written by {facts.made_with}",
        ]
    )


def _named(teachers: Iterable[CardTeacher]) -> str:
    named = [f"{one.model} ({one.provider}, {one.records:,} records)" for one in teachers]
    return "; ".join(named) or "None."


def _titles(facts: DatasetFacts) -> str:
    return "; ".join(f"{one.title} ({one.licence})" for one in facts.card.sources) or "no source"


def _judged(facts: DatasetFacts) -> str:
    return f"Which rows were kept was decided by scores of: {_named(facts.judging)}."


def _purpose(facts: DatasetFacts) -> str:
    use = facts.purpose
    return (
        f"It trains a student ({use.student_distribution.replace('_', ' ')},"
        f" {'commercial' if use.commercial else 'not commercial'})."
    )


def _points(facts: DatasetFacts) -> str:
    return f"{facts.card.rows:,} (" + ", ".join(f"{file.rows:,} {file.split}" for file in facts.files) + ")"


def _types(facts: DatasetFacts) -> str:
    labels = sorted({name for counts in facts.card.labels.values() for name in counts})
    if labels:
        return f"Text with one label of: {', '.join(labels)}"
    return "Text: a prompt and its answer"


def _personal(facts: DatasetFacts) -> str:
    found = facts.personal_data
    said = _said_to_hold(facts)
    if not found.looked_at:
        return f"No row was searched for personal data.{said}"
    kinds = ", ".join(f"{kind} ({rows:,} rows)" for kind, rows in found.kinds.items())
    return f"{found.looked_at:,} rows were searched by rules; found: {kinds or 'none'}.{said}"


def _said_to_hold(facts: DatasetFacts) -> str:
    """What sources say of personal data in them, and why it may be processed."""
    told = [
        f"{one.source_id} {', '.join(one.personal_data)} (lawful basis: {one.lawful_basis or 'not told'})"
        for one in facts.card.sources
        if one.personal_data
    ]
    return f" Sources are said to hold personal data: {'; '.join(told)}." if told else ""


def _personal_gap(facts: DatasetFacts) -> str:
    if facts.personal_data.looked_at < facts.card.rows:
        return "whether it holds personal information (curate.pii in the spec searches for it)"
    return "a person's judgement: rules miss what they have no pattern for"


def _left_out(facts: DatasetFacts) -> list[str]:
    dropped = [f"{why} ({rows:,})" for why, rows in facts.dropped.items()]
    return [f"Left out when the dataset was selected: {', '.join(dropped)}."] if dropped else []


def _period(facts: DatasetFacts) -> str:
    if facts.asked_from is None or facts.asked_until is None:
        return "asked at unknown times"
    return f"asked from {facts.asked_from:%Y-%m-%d %H:%M} to {facts.asked_until:%Y-%m-%d %H:%M} UTC"


def _duties(facts: DatasetFacts) -> str:
    duties = "; ".join(f"{one.kind} on the {one.applies_to}: {one.text} ({one.terms_id})" for one in facts.card.duties)
    return f"Duties: {duties}." if duties else "No duty was found in the terms and licences."
