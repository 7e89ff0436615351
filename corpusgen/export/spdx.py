"""A sealed dataset as SPDX 3.0.1: dataset, files, teachers as AI packages, sources, and the licences of each.

The profiles Core, Software, AI, Dataset and SimpleLicensing. Written by hand, so that nothing has to be installed;
tests read it with the bindings that SPDX's authors make. SPDX has no kind of dataset for synthetic text, no version of
terms and no roles of teachers: those stand in comments.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

import orjson

from corpusgen.export.card import CardSource, CardTeacher, CardTerms, told_of
from corpusgen.export.completeness import ON_SPDX_LIST, licences_in
from corpusgen.export.facts import NOT_LEGAL_ADVICE, DataFile, DatasetFacts, Document
from corpusgen.records import Json

CONTEXT: Final = "https://spdx.org/rdf/3.0.1/spdx-context.jsonld"
PROFILES: Final = ("core", "software", "ai", "dataset", "simpleLicensing")
_MADE: Final = "_:made"
_OWN: Final = "LicenseRef-"

_CANNOT_KNOW: Final = (
    "originatedBy: the person or organisation that made the dataset (the Dataset profile asks for it)",
    "releaseTime: when it is released (the Dataset profile asks for it)",
    "software_downloadLocation: where it can be fetched (the Dataset profile asks for it)",
    "dataset_knownBias: known biases of teachers and sources",
    "dataset_confidentialityLevel: red, amber, green or clear",
    "dataset_datasetAvailability: how others get it",
    "dataset_hasSensitivePersonalInformation: noAssertion stands here; only a person can say yes or no",
    "dataset_anonymizationMethodUsed: what was done to anonymise the sources",
    "ai_informationAboutTraining: what the teachers were trained on",
    "ai_energyConsumption: what the teachers consumed",
)


@dataclass(frozen=True, kw_only=True)
class _Graph:
    """Elements under ids that follow from the manifest alone, so that the same dataset gives the same bytes."""

    root: str
    elements: list[dict[str, Json]] = field(default_factory=list)

    def name(self, *parts: str) -> str:
        return f"{self.root}#" + "-".join(re.sub(r"[^A-Za-z0-9._-]+", "-", part) for part in parts)

    def add(self, kind: str, spdx_id: str, **properties: Json) -> str:
        filled = {name: value for name, value in properties.items() if value not in (None, "", [])}
        self.elements.append({"type": kind, "spdxId": spdx_id, "creationInfo": _MADE, **filled})
        return spdx_id

    def count(self, kind: str) -> int:
        return sum(element["type"] == kind for element in self.elements)

    def find(self, kind: str, **properties: Json) -> str | None:
        wanted = {"type": kind, **properties}.items()
        return next((element["spdxId"] for element in self.elements if wanted <= element.items()), None)

    def relate(self, start: str, how: str, ends: Sequence[str], comment: str = "") -> None:
        self.add(
            "Relationship",
            self.name("relationship", str(self.count("Relationship"))),
            **{"from": start, "to": list(ends), "relationshipType": how, "comment": comment},
        )


def spdx(facts: DatasetFacts) -> Document:
    """The document as it is written, and which fields have to be filled by hand."""
    text = orjson.dumps(spdx_json(facts), option=orjson.OPT_INDENT_2).decode() + "\n"
    return Document(text=text, not_filled=not_filled(facts))


def not_filled(facts: DatasetFacts) -> tuple[str, ...]:
    """Fields of the profiles that nothing in the corpus can fill."""
    facts = _spelled(facts)
    gaps = [] if facts.card.description else ["description: what the dataset is for (description in the spec)"]
    unread = sorted({name for name in _references(facts) if name not in _texts(facts)})
    if unread:
        gaps.append(f"simplelicensing_licenseText: the texts of {', '.join(unread)} are not held")
    if unlisted := sorted(name for name in _licences(facts) if not name.startswith(_OWN) and name not in ON_SPDX_LIST):
        gaps.append(f"simplelicensing_licenseExpression: whether {', '.join(unlisted)} is on the SPDX License List")
    return (*gaps, *_CANNOT_KNOW)


def spdx_json(facts: DatasetFacts) -> dict[str, Json]:
    """The document as JSON-LD."""
    facts = _spelled(facts)
    graph = _Graph(root=f"urn:uuid:{UUID(facts.manifest_sha256[:32])}")
    tool = graph.add("SoftwareAgent", graph.name("corpusgen"), name=facts.made_with)
    texts = {name: _licence_text(graph, facts, name) for name in sorted(_references(facts))}
    dataset = _dataset(graph, facts)
    graph.relate(dataset, "contains", [_file(graph, file) for file in facts.files])
    graph.relate(dataset, "hasConcludedLicense", [_licence(graph, facts.card.licence_expression, texts)])
    for source in facts.card.sources:
        named = _source(graph, source)
        graph.relate(named, "hasDeclaredLicense", [_licence(graph, source.licence, texts)])
        graph.relate(dataset, "descendantOf", [named])
    for number, teacher in enumerate(facts.card.teachers):
        _relate_teacher(graph, facts, dataset, (number, teacher), texts)
    document = _document(graph, facts, dataset)
    made = {
        "type": "CreationInfo",
        "@id": _MADE,
        "specVersion": "3.0.1",
        "created": _time(facts.card.created_time),
        "createdBy": [tool],
    }
    return {"@context": CONTEXT, "@graph": [made, document, *graph.elements]}


def _document(graph: _Graph, facts: DatasetFacts, dataset: str) -> dict[str, Json]:
    return {
        "type": "SpdxDocument",
        "spdxId": graph.name("document"),
        "creationInfo": _MADE,
        "name": facts.label,
        "comment": " ".join([NOT_LEGAL_ADVICE, *facts.notes, "Not filled: " + "; ".join(not_filled(facts)) + "."]),
        "profileConformance": list(PROFILES),
        "rootElement": [dataset],
        "element": [element["spdxId"] for element in graph.elements],
    }


def _dataset(graph: _Graph, facts: DatasetFacts) -> str:
    card = facts.card
    use = facts.purpose
    return graph.add(
        "dataset_DatasetPackage",
        graph.name("dataset"),
        name=card.name,
        description=card.description,
        comment=f"Manifest sha256 {facts.manifest_sha256}; Merkle root {card.merkle_root}; {card.rows} records.",
        software_packageVersion=card.version,
        software_primaryPurpose="data",
        software_attributionText=[source.notice for source in card.sources if source.notice],
        builtTime=_time(card.created_time),
        dataset_datasetType=["text", "categorical"] if card.labels else ["text"],
        dataset_datasetSize=sum(file.size_bytes for file in facts.files),
        dataset_dataCollectionProcess=_collected(facts),
        dataset_dataPreprocessing=[
            *card.how_made,
            *(f"{rows} records left out: {why}" for why, rows in facts.dropped.items()),
        ],
        dataset_datasetNoise=" ".join(card.limitations),
        dataset_datasetUpdateMechanism="A sealed version never changes; what is chosen anew is a new version.",
        dataset_hasSensitivePersonalInformation="noAssertion",
        dataset_intendedUse=f"Training a student: {use.student_distribution.replace('_', ' ')}; competes with a"
        f" teacher's provider: {use.student_competes}; {'commercial' if use.commercial else 'not commercial'}.",
    )


def _collected(facts: DatasetFacts) -> str:
    asked = "Teachers were asked prompts made of the sources' texts; every row is one answer."
    if facts.asked_from is None or facts.asked_until is None:
        return asked
    return f"{asked} Asked between {_time(facts.asked_from)} and {_time(facts.asked_until)}."


def _file(graph: _Graph, file: DataFile) -> str:
    return graph.add(
        "software_File",
        graph.name("file", file.path),
        name=file.path,
        comment=f"Split {file.split}, {file.rows} rows.",
        contentType="application/vnd.apache.parquet",
        software_primaryPurpose="data",
        software_fileKind="file",
        verifiedUsing=[{"type": "Hash", "algorithm": "sha256", "hashValue": file.sha256}],
    )


def _source(graph: _Graph, source: CardSource) -> str:
    return graph.add(
        "dataset_DatasetPackage",
        graph.name("source", source.source_id),
        name=source.title,
        comment=f"Source {source.source_id}."
        + (f" {source.records} records derive from it." if source.records is not None else "")
        + (f" Where: {source.locator}" if source.locator else "")
        + "".join(f" {what}: {said}." for what, said in told_of(source).items() if said and what != "Rightsholder"),
        software_primaryPurpose="data",
        software_copyrightText=source.rightsholder or "",
        software_homePage=source.locator if _is_url(source.locator) else None,
        software_attributionText=[source.notice] if source.notice else [],
        dataset_datasetType=["text"],
        dataset_hasSensitivePersonalInformation="noAssertion",
    )


def _is_url(locator: str | None) -> bool:
    return locator is not None and re.fullmatch(r"https?://\S+", locator) is not None


def _relate_teacher(
    graph: _Graph, facts: DatasetFacts, dataset: str, numbered: tuple[int, CardTeacher], texts: dict[str, str]
) -> None:
    number, teacher = numbered
    judged = teacher.name in facts.judges
    named = _teacher(graph, teacher, number, judged=judged)
    terms = " AND ".join(sorted({one.spdx for one in teacher.terms}))
    how = ("other", "judged rows of it") if judged else ("generates", f"{teacher.records} records")
    graph.relate(named, how[0], [dataset], how[1])
    if terms:
        graph.relate(named, "hasDeclaredLicense", [_licence(graph, terms, texts)], _terms(teacher))


def _teacher(graph: _Graph, teacher: CardTeacher, number: int, *, judged: bool) -> str:
    kind = "Organization"
    provider = graph.find(kind, name=teacher.provider)
    if provider is None:
        provider = graph.add(kind, graph.name("provider", str(graph.count(kind))), name=teacher.provider)
    return graph.add(
        "ai_AIPackage",
        graph.name("teacher", str(number), teacher.name),
        name=teacher.model,
        comment=f"Teacher {teacher.name}, reached by route {teacher.route}"
        + (f", host {teacher.host}" if teacher.host else "")
        + f". Training on its outputs: {teacher.outputs_train}.",
        suppliedBy=provider,
        software_primaryPurpose="model",
        ai_typeOfModel=["language model"],
        ai_informationAboutApplication="Judged rows of the dataset." if judged else "Wrote rows of the dataset.",
        ai_useSensitivePersonalInformation="noAssertion",
    )


def _terms(teacher: CardTeacher) -> str:
    return "; ".join(f"{one.title}, version {one.version} ({one.terms_id})" for one in teacher.terms)


def _licence(graph: _Graph, expression: str, texts: dict[str, str]) -> str:
    kind = "simplelicensing_LicenseExpression"
    if (there := graph.find(kind, simplelicensing_licenseExpression=expression)) is not None:
        return there
    own = [name for name in licences_in(expression) if name in texts]
    return graph.add(
        kind,
        graph.name("licence", str(graph.count(kind))),
        simplelicensing_licenseExpression=expression,
        simplelicensing_customIdToUri=[{"type": "DictionaryEntry", "key": name, "value": texts[name]} for name in own],
    )


def _licence_text(graph: _Graph, facts: DatasetFacts, name: str) -> str:
    titles = {f"{one.title}, version {one.version}" for one in _every_terms(facts) if one.spdx == name}
    return graph.add(
        "simplelicensing_SimpleLicensingText",
        graph.name("text", name),
        name=name,
        comment="; ".join(sorted(titles)),
        simplelicensing_licenseText=_texts(facts).get(name, "The text is not held here; see the title and version."),
    )


def _spelled(facts: DatasetFacts) -> DatasetFacts:
    """The facts with LicenseRef- before a licence whose text is held and that may be on no list: right either way."""
    own = {name for name in _texts(facts) if not name.startswith(_OWN) and name not in ON_SPDX_LIST}

    def spell(expression: str) -> str:
        return re.sub(r"[^\s()]+", lambda word: _OWN + word[0] if word[0] in own else word[0], expression)

    sources = tuple(replace(source, licence=spell(source.licence)) for source in facts.card.sources)
    card = replace(facts.card, licence_expression=spell(facts.card.licence_expression), sources=sources)
    return replace(facts, card=card)


def _licences(facts: DatasetFacts) -> set[str]:
    expressions = [facts.card.licence_expression, *(source.licence for source in facts.card.sources)]
    named = {name for expression in expressions for name in licences_in(expression)}
    return named | {one.spdx for one in _every_terms(facts)}


def _references(facts: DatasetFacts) -> set[str]:
    """Licences that are on no list, so that their text has to be told."""
    return {name for name in _licences(facts) if name.startswith(_OWN)}


def _texts(facts: DatasetFacts) -> dict[str, str]:
    return {source.licence: source.notice for source in facts.card.sources if source.notice}


def _every_terms(facts: DatasetFacts) -> Iterator[CardTerms]:
    for teacher in facts.card.teachers:
        yield from teacher.terms


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
