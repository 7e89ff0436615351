"""What is known of a student that is about to be released, for its card and its NOTICE."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from importlib.metadata import version

from corpusgen.corpus import Corpus
from corpusgen.export.card import CardSource
from corpusgen.export.completeness import licences_in
from corpusgen.export.facts import Purpose
from corpusgen.export.student import (
    HeldText,
    StudentBase,
    StudentDataset,
    StudentDuty,
    StudentFacts,
    StudentTeacher,
    StudentTerms,
)
from corpusgen.provenance.policy import Decision
from corpusgen.provenance.terms import Registry
from corpusgen.records import Json
from corpusgen.spec import BaseModelSpec, IntendedUse, TaskSpec
from corpusgen.stages.release.candidates import Candidate, Wanted
from corpusgen.stages.release.evaluations import evaluation_of
from corpusgen.stages.sealing import Sealed, card_source, notice_of
from corpusgen.stages.task import Task
from corpusgen.stages.terms.deciding import rights_of
from corpusgen.stages.terms.rejudging import Touch


def facts_of(
    corpus: Corpus,
    wanted: Wanted,
    tasks: Sequence[Task],
    candidate: Candidate,
    touched: Mapping[Touch, str],
    decisions: Sequence[Decision],
) -> StudentFacts:
    """Everything that its card and its NOTICE say, from manifests, terms and decisions."""
    registry, spec = rights_of(corpus, tasks[0]).registry, tasks[0].spec
    sources = tuple(_sources(candidate, spec, wanted.task))
    duties = dict.fromkeys(duty for one in decisions for duty in one.duties)
    teachers = tuple(_teacher(registry, touch, why) for touch, why in touched.items())
    base = None if candidate.base is None else _base(registry, candidate.base, decisions)
    needed = _needed(teachers, base, sources)
    held = tuple(_held(corpus, sources, needed))
    about = {one.about for one in held}
    return StudentFacts(
        name=wanted.name,
        student_id=candidate.student_id,
        description=spec.description or "",
        datasets=tuple(_dataset(one) for one in candidate.datasets),
        teachers=teachers,
        sources=sources,
        duties=tuple(
            StudentDuty(
                kind=one.kind,
                applies_to=one.applies_to,
                text=one.text,
                terms_id=one.terms_id,
                words=one.words,
                second_order=one.second_order,
            )
            for one in duties
        ),
        purpose=_purpose([task.spec.intended_use for task in tasks]),
        base=base,
        metrics=evaluation_of(corpus, candidate.student_id),
        waivers=tuple(dict.fromkeys(name for one in decisions for name in one.waivers)),
        held=held,
        not_held=tuple(name for name in needed if name not in about),
        made_with=f"corpusgen {version('corpusgen-distill')}",
    )


def _purpose(uses: Sequence[IntendedUse]) -> Purpose:
    """What the student is for; of several, what reaches furthest, and all of them were judged."""
    reach = ("internal", "hosted", "weights_released")
    doubt = ("no", "unknown", "yes")
    return Purpose(
        student_distribution=max((use.student_distribution for use in uses), key=reach.index),
        student_competes=max((use.student_competes for use in uses), key=doubt.index),
        commercial=any(use.commercial for use in uses),
    )


def _dataset(sealed: Sealed) -> StudentDataset:
    root = sealed.manifest["merkle"]["root"]
    return StudentDataset(
        label=sealed.label, manifest_sha256=sealed.manifest_sha256, merkle_root=root, rows=sealed.rows
    )


def _sources(candidate: Candidate, spec: TaskSpec, named: Task | None) -> Iterator[CardSource]:
    """The sources as the datasets' manifests tell of them; of one sealed by an earlier version, as its spec does.

    Notices that a manifest does not hold come from the spec that somebody names.
    """
    found: dict[str, CardSource] = {}
    for sealed in candidate.datasets:
        told = sealed.manifest.get("sources")
        ones = map(_card_source, told) if told is not None else (card_source(one, None, None) for one in spec.sources)
        found |= {one.source_id: one for one in ones}
    for one in map(_card_source, candidate.sources):  # what it has read without labels is of these
        found.setdefault(one.source_id, one)
    notices = {} if named is None else {one.id: notice_of(named, one) for one in named.spec.sources}
    for one in found.values():
        yield one if one.notice else replace(one, notice=notices.get(one.source_id))


def _card_source(fields: Mapping[str, Json]) -> CardSource:
    known = {"locator": None, "records": None, **fields}
    for name in ("generated_by", "personal_data", "processing_regions"):
        known[name] = tuple(known.get(name, ()))
    if known.get("acquired"):
        known["acquired"] = datetime.fromisoformat(known["acquired"]).date()
    return CardSource(**known)


def _teacher(registry: Registry, touch: Touch, why: str) -> StudentTeacher:
    return StudentTeacher(
        name=touch.teacher.name,
        model=touch.teacher.model,
        provider=touch.teacher.provider,
        route=touch.teacher.route + (f", {touch.teacher.host}" if touch.teacher.host else ""),
        role=touch.role + (f" ({why})" if why else ""),
        rows=touch.rows,
        terms=_terms(registry, touch.terms_ids),
    )


def _terms(registry: Registry, names: Sequence[str]) -> tuple[StudentTerms, ...]:
    found = (registry.by_id[name] for name in names if name in registry.by_id)
    return tuple(
        StudentTerms(terms_id=one.id, title=one.title, version=one.version, spdx=one.spdx, source=one.source)
        for one in found
    )


def _base(registry: Registry, base: BaseModelSpec, decisions: Sequence[Decision]) -> StudentBase:
    names = next(one.terms_ids for one in decisions if one.role == "base")
    return StudentBase(
        model=base.model,
        provider=base.provider,
        weights_sha256=base.weights_sha256,
        terms=_terms(registry, names),
    )


def _needed(teachers: Sequence[StudentTeacher], base: StudentBase | None, sources: Sequence[CardSource]) -> list[str]:
    """The terms and licences whose texts somebody who gets the student may want to read, each once."""
    every = [*(one.terms for one in teachers), *([base.terms] if base else [])]
    names = [terms.terms_id for found in every for terms in found]
    names += [name for source in sources for name in licences_in(source.licence)]
    return list(dict.fromkeys(names))


def _held(corpus: Corpus, sources: Sequence[CardSource], needed: Sequence[str]) -> Iterator[HeldText]:
    """Texts that are held: notices of sources, and snapshots of terms, the latest of each."""
    for source in sources:
        if source.notice:
            for about in licences_in(source.licence):
                name = f"{plain(about)}-{plain(source.source_id)}.txt"
                yield HeldText(file=name, about=about, text=source.notice.encode())
    for name in needed:
        rows = corpus.journal.query(
            "select text from snapshots where terms_id = ? and text is not null order by taken_us desc limit 1", (name,)
        )
        if rows:
            yield HeldText(file=f"{plain(name)}.txt", about=name, text=_bytes(rows[0][0]))


def _bytes(value: object) -> bytes:
    assert isinstance(value, bytes | str)
    return value if isinstance(value, bytes) else value.encode()


def plain(name: str) -> str:
    """A name as a file may have it."""
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", name).strip("-.") or "unnamed"
