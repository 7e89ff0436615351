"""Deciding: may this teacher be used like that, under everything that is known of terms here?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Literal, TypeAlias

import orjson

from corpusgen.corpus import Corpus
from corpusgen.errors import PolicyRefused
from corpusgen.journal import Transaction
from corpusgen.provenance.events import note_event
from corpusgen.provenance.policy import (
    Agreement,
    Decision,
    IntendedUse,
    Role,
    SourceUse,
    Waiver,
    decide,
    explain,
    suggest_allowed,
)
from corpusgen.provenance.terms import Registry, Review, TeacherRoute, with_reviews, with_texts
from corpusgen.records import Json, canonical_json
from corpusgen.spec import Agreement as AgreementSpec
from corpusgen.stages.parents import inherited_sources
from corpusgen.stages.task import Task
from corpusgen.stages.terms.files import files_of, read_registry
from corpusgen.stages.terms.rights_checks import sound_reviews, sound_waivers
from corpusgen.teachers.registry import resolved
from corpusgen.teachers.teacher import TeacherCard

Stage: TypeAlias = Literal["plan", "request", "export", "train", "release"]
SubjectKind: TypeAlias = Literal["teacher", "dataset", "student", "base"]


# --- What is known here ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Rights:
    """The terms and waivers that count for a task in a corpus."""

    registry: Registry
    waivers: tuple[Waiver, ...] = ()


def rights_of(corpus: Corpus | None, task: Task | None) -> Rights:
    """Terms that ship, of the organisation, of the corpus and of the spec; reviews and waivers of the journal."""
    registry = _registry(corpus, task)
    if corpus is None:
        return Rights(registry=registry)
    query = corpus.journal.query
    texts = query("select terms_id, sha256 from snapshots order by taken_us, sha256")
    return Rights(
        registry=_with_notes(registry, _reviews(corpus), tuple((row[0], row[1]) for row in texts)),
        waivers=_waivers(corpus),
    )


def _reviews(corpus: Corpus) -> tuple[str, ...]:
    """Reviews as they were signed; others are told of and left out."""
    rows = corpus.journal.query("select review_id, review, envelope from reviews order by review_id")
    if not rows:
        return ()
    return sound_reviews(corpus, rows)


def _waivers(corpus: Corpus) -> tuple[Waiver, ...]:
    """Waivers in force as they were granted; others are told of and left out."""
    rows = corpus.journal.query("select waiver_id, waiver from waivers where ended_us is null order by waiver_id")
    if not rows:
        return ()
    return tuple(map(waiver_of, sound_waivers(corpus, rows)))


def _registry(corpus: Corpus | None, task: Task | None) -> Registry:
    return read_registry(terms_files(corpus, task))


def terms_files(corpus: Corpus | None, task: Task | None) -> tuple[Path, ...]:
    """The files beside the shipped one whose terms count for a task in a corpus."""
    spec_files = () if task is None else tuple(map(task.located.resolve, task.spec.terms_files))
    return files_of(corpus, *spec_files)


def registry_of(corpus: Corpus | None, task: Task | None) -> Registry:
    """The terms that count for a task in a corpus."""
    return rights_of(corpus, task).registry


@lru_cache(maxsize=16)
def _with_notes(registry: Registry, reviews: tuple[str, ...], texts: tuple[tuple[str, str], ...]) -> Registry:
    """The registry with what was read again, and with the digests of texts that are held."""
    # Texts first: a review counts for the text that is held.
    return with_reviews(with_texts(registry, dict(texts)), map(_review_of, reviews))


def _review_of(text: str) -> Review:
    fields = orjson.loads(text)
    return Review(
        terms=fields["terms_id"],
        reviewed=date.fromisoformat(fields["reviewed"]),
        by=fields["by"],
        found_text_sha256=fields["found_text_sha256"],
    )


@lru_cache(maxsize=256)
def waiver_of(text: str) -> Waiver:
    """A waiver as the journal keeps it."""
    fields = orjson.loads(text)
    days = {name: date.fromisoformat(fields[name]) for name in ("granted", "expires")}
    lists = {"terms_ids": tuple(fields["terms_ids"]), "rules": tuple(fields["rules"])}
    versions = tuple(sorted(fields.get("versions", {}).items()))
    return Waiver(**{**fields, **days, **lists, "versions": versions})


def with_terms_of(corpus: Corpus, task: Task) -> Task:
    """The task with the terms that count for it in a corpus."""
    registry = registry_of(corpus, task)
    if registry is task.registry:
        return task
    judging = None if task.judging is None else replace(task.judging, registry=registry)
    return replace(task, registry=registry, judging=judging)


# --- What is asked of the terms --------------------------------------------------------------------------------------


def roles_of(task: Task) -> tuple[Role, ...]:
    """What a task's teachers do for the dataset; terms count each of it alike."""
    if task.judges:
        return ("judge", "filter") if task.filters else ("judge",)
    used = task.spec.answers_as
    if task.spec.kind == "label":
        return ("logprobs",) if used == "response" else ("logprobs", used)
    return (used,)


def name_of(task: Task) -> str:
    """The name that waivers know a task by; judging is a part of the task it judges."""
    return task.spec.name.removesuffix(".judge") if task.judges else task.spec.name


def route_of(task: Task, card: TeacherCard) -> TeacherRoute:
    """A task's teacher as the terms see it."""
    return TeacherRoute(
        name=card.name,
        provider=card.provider,
        model=card.model,
        route=card.route,
        host=card.host,
        weights_sha256=card.weights_sha256,
        pinned_terms=resolved(task.teacher).terms,
        region=task.teacher.region,
        unpaid=task.teacher.unpaid,
    )


def use_of(task: Task) -> IntendedUse:
    """What a task's student is for, as the terms see it."""
    use, organisation = task.spec.intended_use, task.spec.organisation
    return IntendedUse(
        student_distribution=use.student_distribution,
        student_competes=use.student_competes,
        commercial=use.commercial,
        accepted_duties=use.accepted_duties,
        personal_data=_personal_data(task),
        agreements=tuple(map(_agreement, task.spec.agreements)),
        egress=task.spec.egress,
        monthly_active_users=organisation.monthly_active_users,
        annual_revenue_usd=organisation.annual_revenue_usd,
        domiciled_in=organisation.domiciled_in,
    )


def _personal_data(task: Task) -> tuple[str, ...]:
    """Classes of personal data that sources are said to hold, and kinds that ``curate.pii`` is told to let through.

    What its default lets through may not be there at all, so only kinds that are named count.
    """
    found = {name for source in task.spec.sources for name in source.personal_data}
    if task.spec.curate.pii is not None:
        found |= {kind for kind, action in task.spec.curate.pii.kinds.items() if action == "allow"}
    return tuple(sorted(found - _hidden(task)))


def _hidden(task: Task) -> frozenset[str]:
    """Kinds that ``curate.pii`` masks or blocks, and that therefore are not sent."""
    told = task.spec.curate.pii
    if told is None:
        return frozenset()
    hidden = {kind for kind, action in told.kinds.items() if action != "allow"}
    if told.default != "allow":
        from corpusgen.curation.kinds import PERSONAL

        hidden |= {kind.name for kind in PERSONAL} - told.kinds.keys()
    return frozenset(hidden)


def _agreement(told: AgreementSpec) -> Agreement:
    return Agreement(
        id=told.id,
        host=told.host,
        kind=told.kind,
        classes=told.classes,
        regions=told.regions,
        valid_from=told.valid_from,
        valid_until=told.valid_until,
    )


def sources_of(task: Task, corpus: Corpus | None = None) -> tuple[SourceUse, ...]:
    """A task's sources as the terms see them, and in a corpus those of the records that its seeds were made from."""
    hidden = _hidden(task)
    own = tuple(
        SourceUse(
            source_id=source.id,
            licence=source.licence,
            generated_by=source.generated_by,
            personal_data=tuple(name for name in source.personal_data if name not in hidden),
            lawful_basis=source.lawful_basis,
            processing_regions=source.processing_regions,
        )
        for source in task.spec.sources
    )
    return tuple(dict.fromkeys((*own, *inherited_sources(corpus, task))))


# --- Decisions -------------------------------------------------------------------------------------------------------


def decision_for(
    corpus: Corpus | None,
    task: Task,
    card: TeacherCard,
    on: date,
    *,
    original_terms: tuple[str, ...] | None = None,
    role: Role | None = None,
) -> Decision:
    """What today's terms say of asking this teacher for this student, or of answers it gave under ``original_terms``.

    Of several roles, the first; ``decisions_for`` gives all.
    """
    rights = rights_of(corpus, task)
    return decide(
        rights.registry,
        route_of(task, card),
        use_of(task),
        on=on,
        role=role or roles_of(task)[0],
        sources=sources_of(task, corpus),
        waivers=rights.waivers,
        original_terms=original_terms,
        task=name_of(task),
    )


def decisions_for(corpus: Corpus | None, task: Task, card: TeacherCard, on: date) -> tuple[Decision, ...]:
    """What today's terms say of asking this teacher, in each of its roles."""
    return tuple(decision_for(corpus, task, card, on, role=role) for role in roles_of(task))


def strictest(decisions: Sequence[Decision]) -> Decision:
    """The first refusal if there is one, else the first decision."""
    return next((one for one in decisions if one.outcome != "allow"), decisions[0])


def refusal(corpus: Corpus | None, task: Task, decision: Decision, also: Sequence[Decision] = ()) -> PolicyRefused:
    """The refusal in words: rule, clause, what to do about it, and the teachers that would pass.

    ``also`` are the decisions about everybody else; those that refuse too are named.
    """
    rights = rights_of(corpus, task)
    others = suggest_allowed(
        rights.registry, use_of(task), on=decision.decided_on, role=decision.role, sources=sources_of(task, corpus)
    )
    if task.judging is not None and _is_of_judge(task, task.judging, decision):
        task = task.judging
    names = [teacher.name for teacher in task.spec.teachers]
    at = names.index(decision.teacher.name) if decision.teacher.name in names else task.at
    steps = "".join(f"\nTo do: {step}" for step in to_do(decision, rights.registry, task))
    told = f"\nThe whole table: corpusgen policy explain {task.located.file}"
    more = "".join(
        f"\nAlso refused: {one}" for one in map(_briefly, also) if one is not None and one != _briefly(decision)
    )
    if decision.teacher.route == "imported":  # no teacher of the spec, and no other could stand in its place
        where, others = task.located.where("name"), ()
        steps += f"\nTo leave such records out: corpusgen select {name_of(task)} --spec {task.located.file}"
    else:
        where = task.located.where("teachers", at, "name")
    return PolicyRefused(f"{where}: {explain(decision, others)}{more}{steps}{told}")


def to_do(decision: Decision, registry: Registry, task: Task) -> tuple[str, ...]:
    """What would let a refused decision about a task pass, a line each."""
    from corpusgen.stages.terms.advising import advice  # whoever is refused nothing needs none

    return advice(decision, registry, name_of(task), task.located.file if task.spec.terms_files else None)


def _is_of_judge(task: Task, judging: Task, decision: Decision) -> bool:
    own = decision.role in roles_of(task) and decision.teacher.name in {one.name for one in task.spec.teachers}
    return decision.role in roles_of(judging) and not own


def _briefly(decision: Decision) -> str | None:
    """A refusal in a few words; None where there is none."""
    rules = sorted({reason.rule for reason in decision.reasons if reason.outcome != "allow"})
    refused = decision.outcome != "allow"
    told = f"{decision.teacher.name} as {decision.role} ({decision.outcome}: {', '.join(rules)})"
    return told if refused else None


# --- What is written down --------------------------------------------------------------------------------------------

TERMS_KEPT = "terms:"
"""Before the id of a document of somebody's own, and the task it counted for, in the journal's ``meta``."""


def keep_terms(transaction: Transaction, registry: Registry, task: str) -> None:
    """Keep the documents that did not come with corpusgen as they are now: their files need not be there later."""
    for one in registry.documents:
        if registry.file_of(one.id):
            transaction.execute(
                "insert into meta values(?, ?) on conflict do update set value = excluded.value"
                " where value <> excluded.value",
                (f"{TERMS_KEPT}{one.id}\n{task}", canonical_json(one.model_dump(mode="json")).decode()),
            )


def note_decisions(
    transaction: Transaction,
    run_id: str,
    stage: Stage,
    decisions: Sequence[Decision],
    *,
    subject: str | None = None,
    subject_kind: SubjectKind = "teacher",
    estimates: Mapping[str, int] | None = None,
    only_changes: bool = False,
) -> None:
    """Write decisions down, and an event for each that is not as the last one of the same subject and role.

    ``subject`` is the teacher's name where nothing else is given; ``estimates`` are micro-dollars that asking each
    teacher would cost, and stand with the first decision that refuses it. With ``only_changes`` what was decided like
    that before is not written once more.
    """
    last, saved = _last(transaction, run_id, stage), dict(estimates or {})
    for one in decisions:
        named = subject or one.teacher.name
        estimate = None if one.outcome == "allow" else saved.pop(one.teacher.name, None)
        text = decision_json(one, estimated_microusd=estimate, subject_kind=subject_kind)
        same = last.get((named, _which(orjson.loads(text)))) == _essence(one.outcome, text)
        if not (same and only_changes):
            transaction.execute(
                "insert into decisions(run_id, stage, subject, outcome, decision, decided_us) values(?, ?, ?, ?, ?, ?)",
                (run_id, stage, named, one.outcome, text, transaction.now_us),
            )
        if not same:
            note_event(transaction, "decided", _told(one, run_id, stage, named, text))


def _last(transaction: Transaction, run_id: str, stage: Stage) -> dict[tuple[str, str], str]:
    rows = transaction.execute(
        "select subject, outcome, decision from decisions where run_id = ? and stage = ? order by decision_id",
        (run_id, stage),
    )
    return {(row[0], _which(orjson.loads(row[2]))): _essence(row[1], row[2]) for row in rows}


def _which(fields: Mapping[str, Json]) -> str:
    """Of one subject: the teacher, the model that answered, the role, and the terms of the answers it is about."""
    asked = "original" if any(reason[0] == "R14" for reason in fields["reasons"]) else "today"
    terms = fields["terms_set_id"] if asked == "original" else ""
    return f"{fields.get('teacher')} {fields.get('model')} {fields['role']} {asked} {terms}"


_OF_THE_DAY = ("decided_on", "estimated_microusd")
"""What of a decision may differ although nothing was decided otherwise."""


def _essence(outcome: str, text: str) -> str:
    fields = {name: value for name, value in orjson.loads(text).items() if name not in _OF_THE_DAY}
    return canonical_json([outcome, fields]).decode()


def _told(one: Decision, run_id: str, stage: Stage, subject: str, text: str) -> dict[str, Json]:
    fields = orjson.loads(text)
    kept = ("role", "terms_set_id", "terms_ids", "waivers", "registry_digest", "policy_digest", "decided_on")
    rules = sorted({reason[0] for reason in fields["reasons"] if reason[2] != "allow"})
    about = {"run_id": run_id, "stage": stage, "subject": subject, "outcome": one.outcome, "rules": rules}
    return about | {name: fields[name] for name in kept}


def decision_json(
    decision: Decision, *, estimated_microusd: int | None = None, subject_kind: SubjectKind = "teacher"
) -> str:
    """A decision as a row keeps it."""
    return canonical_json(
        {
            "subject_kind": subject_kind,
            "teacher": decision.teacher.name,
            "model": decision.teacher.model,
            "role": decision.role,
            "reasons": [[reason.rule, reason.terms_id, reason.outcome, reason.text] for reason in decision.reasons],
            "duties": [[duty.kind, duty.applies_to, duty.terms_id, duty.text] for duty in decision.duties],
            "terms_set_id": decision.terms_set_id,
            "terms_ids": decision.terms_ids,
            "licence_expression": decision.licence_expression,
            "outputs_train": decision.outputs_train,
            "waivers": decision.waivers,
            "registry_digest": decision.registry_digest,
            "policy_digest": decision.policy_digest,
            "decided_on": decision.decided_on.isoformat(),
            "estimated_microusd": estimated_microusd,
        }
    ).decode()
