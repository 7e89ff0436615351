"""Where a run's answers come from, in the report's facts: teachers, terms, sources, digests."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from hashlib import sha256
from importlib.metadata import version

from corpusgen.evaluate.report import facts
from corpusgen.spec import Seeds
from corpusgen.stages.report.outcome import Outcome
from corpusgen.stages.runs import Member, Run
from corpusgen.stages.sealing import licence_of
from corpusgen.stages.served import served_models


def provenance(outcome: Outcome) -> facts.Provenance:
    """Who answered, under which terms, from which sources."""
    run = outcome.run
    use = run.task.spec.intended_use
    return facts.Provenance(
        intended_use=f"student {use.student_distribution.replace('_', ' ')}, competes: {use.student_competes},"
        f" {'commercial' if use.commercial else 'not commercial'}",
        licence_expression=licence_of(run.decisions),
        teachers=tuple(_teacher(run, member) for member in run.everybody),
        sources=tuple(_sources(outcome)),
        decisions=tuple(
            facts.Decision(
                subject=decision.teacher.name,
                role=decision.role,
                answer=reason.outcome,
                rule=reason.rule,
                reason=reason.text,
            )
            for decision in run.decisions
            for reason in decision.reasons
        ),
        digests=tuple(_digests(outcome)),
        versions=(
            ("corpusgen", version("corpusgen-distill")),
            ("Python", platform.python_version()),
            ("teacher's runtime", run.asker.card.revision),
        ),
    )


def _teacher(run: Run, member: Member) -> facts.TeacherFacts:
    card, documents, decision = member.asker.teacher.card, run.task.registry.by_id, member.decision
    known = [documents[name] for name in decision.terms_ids if name in documents]
    return facts.TeacherFacts(
        name=card.name,
        model=card.model,
        route=card.route,
        host=card.host,
        outputs_train=decision.outputs_train,
        documents=tuple(
            facts.TermsDocument(
                title=one.title,
                version=one.version,
                effective=str(one.effective or "unknown"),
                licence=one.spdx,
                location=one.source,
            )
            for one in known
        ),
        duties=tuple(f"{duty.kind} on the {duty.applies_to}: {duty.text}" for duty in decision.duties),
        weights_digest=card.weights_sha256,
        served=tuple(
            facts.ServedModel(name=one.served, records=one.records, another=one.another)
            for one in served_models(run.corpus, run.task.spec.name) or ()
            if one.teacher == card.name
        ),
    )


def _sources(outcome: Outcome) -> Iterator[facts.SourceFacts]:
    task = outcome.run.task
    files = _seed_files(outcome)
    for source in task.spec.sources:
        mine = [(seeds, items) for seeds, items in files if seeds.source == source.id]
        yield facts.SourceFacts(
            name=source.title,
            licence=source.licence,
            items=sum(items for _, items in mine),
            digest=", ".join(sha256(task.located.resolve(seeds.path).read_bytes()).hexdigest() for seeds, _ in mine),
        )


def _seed_files(outcome: Outcome) -> list[tuple[Seeds, int]]:
    """Every file of seeds with how many of its items were read."""
    task = outcome.run.task
    found = outcome.asked or outcome.texts
    spec = task.spec
    files = [(spec.seeds.train, found.pool.read if found else 0), (spec.examples, len(task.prompter.example_sources))]
    if spec.kind == "label":
        files.append((spec.seeds.validation, len(list(task.prompter.items("validation")))))
        files.append((spec.seeds.gold, len(list(task.prompter.items("gold")))))
    return [(seeds, items) for seeds, items in files if seeds is not None]


def _digests(outcome: Outcome) -> Iterator[tuple[str, str]]:
    run = outcome.run
    yield "run", run.run_id
    yield "spec", run.task.identity
    yield "prompt", run.task.prompter.file.digest
    yield "terms set", run.decision.terms_set_id
    yield "terms registry", run.decision.registry_digest
    yield "policy", run.decision.policy_digest
    if outcome.sealed:
        yield f"dataset {outcome.sealed.label}", outcome.sealed.manifest_sha256
    if outcome.trained:
        yield "student", outcome.trained.student_id
