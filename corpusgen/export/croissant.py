"""A sealed dataset as Croissant 1.1: JSON-LD with its files, columns, responsible-AI facts and PROV-O origins.

Croissant: https://docs.mlcommons.org/croissant/docs/croissant-spec.html, RAI vocabulary beside it. The context is
written out, so no reader has to fetch one. No field of it tells versions of terms, routes or policy decisions; what can
be said of them stands in PROV's words, and in full in the manifest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import orjson

from corpusgen.export.card import CardFacts, CardSource, CardTeacher, written_by
from corpusgen.export.completeness import ON_SPDX_LIST, licences_in
from corpusgen.export.facts import NOT_LEGAL_ADVICE, Column, ColumnKind, DataFile, DatasetFacts, Document
from corpusgen.records import Json

CONFORMS_TO: Final = ("http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0")

CONTEXT: Final[dict[str, Json]] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "arrayShape": "cr:arrayShape",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "description": {"@container": "@language"},
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "name": {"@container": "@language"},
    "parentField": "cr:parentField",
    "path": "cr:path",
    "prov": "http://www.w3.org/ns/prov#",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}

_TYPES: Final[Mapping[ColumnKind, str]] = {
    "text": "sc:Text",
    "integer": "sc:Integer",
    "number": "sc:Float",
    "boolean": "sc:Boolean",
    "time": "sc:DateTime",
    "bytes": "sc:Text",
}
_SPLITS: Final = {
    "train": "cr:TrainingSplit",
    "validation": "cr:ValidationSplit",
    "test": "cr:TestSplit",
    "gold": "cr:TestSplit",
}
# What each row's columns say in PROV's words: the one standard way to point at origins that differ by row.
_ROW_PROVENANCE: Final = {
    "teacher": "prov:wasAttributedTo",
    "source_ids": "prov:wasDerivedFrom",
    "run_id": "prov:wasGeneratedBy",
    "received_time": "prov:generatedAtTime",
}
_CANNOT_KNOW: Final = (
    "url: where the dataset is published",
    "creator: the person or organisation that made it",
    "publisher: who publishes it",
    "datePublished: the day it is published",
    "citeAs: how to cite it",
    "sdLicense: the licence of this description itself",
    "rai:dataBiases: known biases of teachers and sources",
    "rai:dataSocialImpact: what its use may do to people",
    "rai:annotatorDemographics: none, no person annotated; say so if one did",
)


def croissant(facts: DatasetFacts) -> Document:
    """The description as it is written beside the data, and which of its fields have to be filled by hand."""
    return Document(
        text=orjson.dumps(croissant_json(facts), option=orjson.OPT_INDENT_2).decode() + "\n",
        not_filled=not_filled(facts),
    )


def not_filled(facts: DatasetFacts) -> tuple[str, ...]:
    """Fields of Croissant and its RAI vocabulary that nothing in the corpus can fill."""
    gaps = [] if facts.card.description else ["description: what the dataset is for (description in the spec)"]
    if not facts.card.languages:
        gaps.append("inLanguage: the languages of its texts")
    if facts.personal_data.looked_at < facts.card.rows:
        gaps.append("rai:personalSensitiveInformation: not every row was searched for personal data")
    return (*gaps, *_CANNOT_KNOW)


def croissant_json(facts: DatasetFacts) -> dict[str, Json]:
    """The description as JSON-LD."""
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": list(CONFORMS_TO),
        "name": facts.card.name,
        "description": _description(facts),
        "version": _semantic(facts.card.version),
        "license": _licence(facts.card.licence_expression),
        "dateCreated": facts.card.created_time.isoformat(),
        "isLiveDataset": False,
        "keywords": ["synthetic", "distillation", *facts.card.task_categories],
        **({"inLanguage": list(facts.card.languages)} if facts.card.languages else {}),
        **_responsible(facts),
        **_provenance(facts),
        "distribution": [_file(file) for file in facts.files],
        "recordSet": [_splits(facts.files), *(_records(file, facts.columns) for file in facts.files)],
    }


def _description(facts: DatasetFacts) -> str:
    card = facts.card
    return " ".join(
        [
            card.description or "No description was given.",
            f"{card.rows} records written by models, not by people." if not card.imported else _of_both(card),
            f"Licence: {card.licence_expression}.",
            f"Manifest sha256 {facts.manifest_sha256}, Merkle root {card.merkle_root}.",
            NOT_LEGAL_ADVICE,
        ]
    )


def _semantic(version: str) -> str:
    """The version as Croissant wants it: another selection is another dataset, so its number is the major one."""
    return f"{version}.0.0" if version.isdecimal() else version


def _licence(expression: str) -> Json:
    names = [_licence_url(name) for name in licences_in(expression)]
    if len(names) == 1:
        return names[0]
    # A list would say that all apply; where one may choose, only the expression says so.
    return expression if " OR " in expression or " WITH " in expression else names


def _licence_url(name: str) -> str:
    return f"https://spdx.org/licenses/{name}.html" if name in ON_SPDX_LIST else name


def _responsible(facts: DatasetFacts) -> dict[str, Json]:
    said: dict[str, Json] = {
        "rai:dataCollection": _collection(facts),
        "rai:dataCollectionType": sorted({_way(teacher) for teacher in facts.writers}),
        "rai:dataCollectionTimeFrame": [
            moment.isoformat() for moment in (facts.asked_from, facts.asked_until) if moment is not None
        ],
        "rai:dataCollectionMissingData": "A value that a teacher does not give is null, never an empty or made-up one.",
        "rai:dataImputationProtocol": "None: nothing that is missing was filled in.",
        "rai:dataPreprocessingProtocol": list(facts.card.how_made),
        "rai:dataManipulationProtocol": [f"{rows} records left out: {why}" for why, rows in facts.dropped.items()],
        "rai:machineAnnotationTools": [f"{one.name} ({one.model})" for one in (*facts.writers, *facts.judging)],
        "rai:dataAnnotationPlatform": [facts.made_with],
        "rai:dataUseCases": list(facts.card.task_categories),
        "rai:dataLimitations": [
            *facts.card.limitations,
            *facts.notes,
            f"Not filled here: {_listed(not_filled(facts))}.",
        ],
        "rai:personalSensitiveInformation": _personal(facts),
        "rai:dataReleaseMaintenancePlan": "A sealed version never changes; what is chosen anew is a new version.",
    }
    return {name: value for name, value in said.items() if value}


def _of_both(card: CardFacts) -> str:
    return f"{card.rows} records; {written_by(card)}"


def _collection(facts: DatasetFacts) -> str:
    told = "Prompts were made of the sources' texts, and every row is one teacher's answer to one."
    imported = facts.card.imported
    if not imported:
        return told
    outside = f"{imported} rows came from outside as they are, and nobody was asked for them."
    return outside if imported == facts.card.rows else f"{told[:-1]}, but for those from outside: {outside}"


def _listed(gaps: Sequence[str]) -> str:
    return ", ".join(gap.partition(": ")[0] for gap in gaps)


def _way(teacher: CardTeacher) -> str:
    return "Software Collection" if teacher.route == "self_hosted" else "Web API"


def _personal(facts: DatasetFacts) -> str:
    found = facts.personal_data
    said = "".join(
        f" Source {one.source_id} is said to hold: {', '.join(one.personal_data)}"
        f" (lawful basis: {one.lawful_basis or 'not told'})."
        for one in facts.card.sources
        if one.personal_data
    )
    if not found.looked_at:
        return f"Nobody looked: no row was searched for personal data.{said}"
    kinds = ", ".join(f"{kind} in {rows} rows" for kind, rows in found.kinds.items()) or "none"
    return (
        f"{found.looked_at} of {facts.card.rows} rows were searched for personal data by rules; found: {kinds}.{said}"
    )


def _provenance(facts: DatasetFacts) -> dict[str, Json]:
    return {
        "prov:wasDerivedFrom": [_source(source) for source in facts.card.sources],
        "prov:wasAttributedTo": [_agent(teacher) for teacher in facts.card.teachers],
        "prov:wasGeneratedBy": [
            _activity("answering", facts, facts.writers),
            *([_activity("judging", facts, facts.judging)] if facts.judging else []),
        ],
    }


def _source(source: CardSource) -> dict[str, Json]:
    return {
        "@type": "prov:Entity",
        "@id": f"source/{source.source_id}",
        "prov:label": source.title,
        "license": _licence(source.licence),
        **({"url": source.locator} if source.locator else {}),
        **_how_it_came(source),
    }


def _how_it_came(source: CardSource) -> dict[str, Json]:
    """Whose a source is and how it was come by, as far as the spec tells."""
    holder = {"@type": "prov:Agent", "prov:label": source.rightsholder}
    way = " ".join(filter(None, [source.acquisition, source.copyright_status]))
    came = {
        "@type": "prov:Activity",
        "prov:label": way.replace("_", " "),
        **({"prov:endedAtTime": source.acquired.isoformat()} if source.acquired else {}),
    }
    return {
        **({"prov:wasAttributedTo": holder} if source.rightsholder else {}),
        **({"prov:wasGeneratedBy": came} if way or source.acquired else {}),
        **({"prov:wasInfluencedBy": list(source.generated_by)} if source.generated_by else {}),
    }


def _agent(teacher: CardTeacher) -> dict[str, Json]:
    return {
        "@type": "prov:SoftwareAgent",
        "@id": _agent_id(teacher),
        "prov:label": f"{teacher.name}: {teacher.model}, route {teacher.route}"
        + (f", host {teacher.host}" if teacher.host else ""),
        "prov:actedOnBehalfOf": {"@type": "prov:Organization", "prov:label": teacher.provider},
    }


def _agent_id(teacher: CardTeacher) -> str:
    return "teacher/" + teacher.name.replace(" ", "-")


def _activity(name: str, facts: DatasetFacts, teachers: Iterable[CardTeacher]) -> dict[str, Json]:
    times = {"prov:startedAtTime": facts.asked_from, "prov:endedAtTime": facts.asked_until}
    return {
        "@type": "prov:Activity",
        "@id": f"activity/{name}",
        "prov:label": f"{name} with {facts.made_with}, task spec {facts.card.spec_digest}",
        **{when: moment.isoformat() for when, moment in times.items() if moment is not None and name == "answering"},
        "prov:used": [{"@id": f"source/{source.source_id}"} for source in facts.card.sources],
        "prov:wasAssociatedWith": [{"@id": _agent_id(teacher)} for teacher in teachers],
        "prov:qualifiedAssociation": [_association(teacher) for teacher in teachers],
    }


def _association(teacher: CardTeacher) -> dict[str, Json]:
    """The terms are the plan under which a teacher answered."""
    plans = [
        {"@type": "prov:Plan", "prov:label": f"{one.title}, version {one.version} ({one.terms_id}, {one.spdx})"}
        for one in teacher.terms
    ]
    return {"@type": "prov:Association", "prov:agent": {"@id": _agent_id(teacher)}, "prov:hadPlan": plans}


def _file(file: DataFile) -> dict[str, Json]:
    return {
        "@type": "cr:FileObject",
        "@id": file.path,
        "name": file.path,
        "description": f"Split {file.split}, {file.rows} rows.",
        "contentUrl": file.path,
        "contentSize": f"{file.size_bytes} B",
        "encodingFormat": "application/x-parquet",
        "sha256": file.sha256,
    }


def _splits(files: Sequence[DataFile]) -> dict[str, Json]:
    fields = [
        {"@type": "cr:Field", "@id": "splits/name", "dataType": "sc:Text"},
        {"@type": "cr:Field", "@id": "splits/url", "dataType": "sc:URL"},
    ]
    return {
        "@type": "cr:RecordSet",
        "@id": "splits",
        "name": "splits",
        "dataType": "cr:Split",
        "key": {"@id": "splits/name"},
        "field": fields,
        "data": [
            {"splits/name": split, "splits/url": _SPLITS.get(split, f"urn:split:{split}")}
            for split in dict.fromkeys(file.split for file in files)
        ],
    }


def _records(file: DataFile, columns: Iterable[Column]) -> dict[str, Json]:
    return {
        "@type": "cr:RecordSet",
        "@id": file.name,
        "name": file.name,
        "description": f"The {file.rows} rows of {file.path}.",
        "key": {"@id": f"{file.name}/record_id"},
        "field": [_field(file, column) for column in columns],
    }


def _field(file: DataFile, column: Column) -> dict[str, Json]:
    name = f"{file.name}/{column.name}"
    made: dict[str, Json] = {"@type": "cr:Field", "@id": name, "name": name}
    if column.repeated:
        made |= {"isArray": True, "arrayShape": "-1"}
    if column.kind == "struct":
        return made | {"subField": [_part(file, column, part, name) for part in column.parts]}
    if column.name in _ROW_PROVENANCE:
        made["equivalentProperty"] = _ROW_PROVENANCE[column.name]
    return made | {"dataType": _TYPES[column.kind], "source": _column_of(file, column)}


def _part(file: DataFile, column: Column, part: Column, name: str) -> dict[str, Json]:
    # Each part names the column itself: a reader takes none from the field it belongs to.
    return {
        "@type": "cr:Field",
        "@id": f"{name}/{part.name}",
        "name": f"{name}/{part.name}",
        "dataType": _TYPES[part.kind],
        "source": _column_of(file, column) | {"transform": {"jsonPath": f"$.{part.name}"}},
    }


def _column_of(file: DataFile, column: Column) -> dict[str, Json]:
    return {"fileObject": {"@id": file.path}, "extract": {"column": column.name}}
