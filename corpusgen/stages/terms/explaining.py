"""Explaining: what the terms say of a whole spec, teacher by teacher and document by document, for a lawyer to read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date

from corpusgen.corpus import Corpus, utc_now
from corpusgen.provenance.explaining import duties_to_accept
from corpusgen.provenance.licences import licence_named, read_expression
from corpusgen.provenance.policy import Decision, Reason, policy_digest, suggest_allowed
from corpusgen.provenance.terms import STRICTNESS, Registry, TermsDocument
from corpusgen.records import Json
from corpusgen.stages.task import Task, connect
from corpusgen.stages.terms.ancestry import decisions_above
from corpusgen.stages.terms.deciding import decisions_for, rights_of, sources_of, strictest, to_do, use_of

NOTICE = "Not legal advice: how corpusgen applies the terms it has on file; your counsel owns the final word."


@dataclass(frozen=True, kw_only=True)
class Line:
    """One finding: about a document, or, without ``terms_id``, about the teacher, the use or a source."""

    outcome: str
    rule: str
    text: str
    terms_id: str | None = None
    title: str = ""
    version: str = ""
    clause: str = ""
    """What the document says, in its own words, and where."""
    grant: str = ""
    """What it grants for this student."""
    file: str = ""
    """The user's file it stands in; empty where it came with corpusgen."""

    def to_json(self) -> dict[str, Json]:
        """The line for machines."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


@dataclass(frozen=True, kw_only=True)
class Explained:
    """What the terms say of one teacher in one role."""

    decision: Decision
    lines: tuple[Line, ...]
    to_do: tuple[str, ...]
    would_pass: tuple[str, ...]
    """Other teachers that would pass, where this one does not."""

    def to_json(self) -> dict[str, Json]:
        """The same for machines."""
        one = self.decision
        return {
            "teacher": one.teacher.name,
            "provider": one.teacher.provider,
            "model": one.teacher.model,
            "route": one.teacher.route,
            "host": one.teacher.host,
            "role": one.role,
            "outcome": one.outcome,
            "findings": [line.to_json() for line in self.lines],
            "duties": [
                {"kind": duty.kind, "applies_to": duty.applies_to, "text": duty.text, "terms_id": duty.terms_id}
                for duty in one.duties
            ],
            "waivers": list(one.waivers),
            "licence_expression": one.licence_expression,
            "terms_set_id": one.terms_set_id,
            "to_do": list(self.to_do),
            "would_pass": list(self.would_pass),
        }


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """What the terms say of a spec on a day."""

    task: str
    on: date
    use: dict[str, Json]
    teachers: tuple[Explained, ...]
    sources: tuple[dict[str, Json], ...]
    registry_digest: str
    policy_digest: str

    @property
    def outcome(self) -> str:
        """The strictest of all."""
        return strictest([one.decision for one in self.teachers]).outcome

    def to_json(self) -> dict[str, Json]:
        """The whole for machines."""
        return {
            "task": self.task,
            "on": self.on.isoformat(),
            "outcome": self.outcome,
            "intended_use": self.use,
            "teachers": [one.to_json() for one in self.teachers],
            "sources": list(self.sources),
            "registry_digest": self.registry_digest,
            "policy_digest": self.policy_digest,
            "notice": NOTICE,
        }


def explained(corpus: Corpus | None, task: Task, on: date | None = None) -> Explanation:
    """What the terms say of every teacher of a spec in every role, of its judge, and of its sources. Sends nothing."""
    clock = utc_now if corpus is None else corpus.clock
    day = on or clock().date()
    registry = rights_of(corpus, task).registry
    views = [*task.of_each_teacher, *([task.judging] if task.judging is not None else [])]
    every = [
        _explained(corpus, decision, view, registry)
        for view in views
        for decision in decisions_for(corpus, view, connect(view, clock, sending=False).card, day)
    ]
    if corpus is not None:  # who wrote what the seeds were made from
        every += [_explained(corpus, decision, task, registry) for decision in decisions_above(corpus, task)]
    return Explanation(
        task=task.spec.name,
        on=day,
        use=_use(task),
        teachers=tuple(every),
        sources=tuple(_sources(task, registry)),
        registry_digest=registry.digest,
        policy_digest=policy_digest(),
    )


def _use(task: Task) -> dict[str, Json]:
    """Everything a spec says that a decision depends on, beside its sources."""
    spec = task.spec
    return {
        **spec.intended_use.model_dump(mode="json"),
        "egress": spec.egress,
        "organisation": spec.organisation.model_dump(mode="json", exclude_defaults=True),
        "agreements": [one.model_dump(mode="json", exclude_defaults=True) for one in spec.agreements],
    }


def _explained(corpus: Corpus | None, decision: Decision, view: Task, registry: Registry) -> Explained:
    others: Sequence[Decision] = ()
    if decision.outcome != "allow" and decision.teacher.route != "imported":
        sources = sources_of(view, corpus)
        others = suggest_allowed(registry, use_of(view), on=decision.decided_on, role=decision.role, sources=sources)
    return Explained(
        decision=decision,
        lines=tuple(_line(reason, registry, view) for reason in decision.reasons),
        to_do=(*_accepting(decision), *to_do(decision, registry, view)),
        would_pass=tuple(other.teacher.name for other in others),
    )


def _accepting(decision: Decision) -> Iterator[str]:
    if kinds := duties_to_accept(decision):
        yield f"whoever carries the duties out adds them to intended_use.accepted_duties: {', '.join(kinds)}"


def _line(reason: Reason, registry: Registry, view: Task) -> Line:
    document = registry.by_id.get(reason.terms_id or "")
    if document is None:
        return Line(outcome=reason.outcome, rule=reason.rule, text=reason.text, terms_id=reason.terms_id)
    return Line(
        outcome=reason.outcome,
        rule=reason.rule,
        text=reason.text,
        terms_id=document.id,
        title=document.title,
        version=document.version,
        clause=_clause(reason),
        grant=_grant(document, view),
        file=registry.file_of(document.id),
    )


def _clause(reason: Reason) -> str:
    """What the terms say, in their own words, and where; empty where nothing is written down of this very finding."""
    return f"{reason.location}: “{reason.quote}”" if reason.quote else reason.location


def _grant(document: TermsDocument, view: Task) -> str:
    if view.spec.intended_use.student_competes == "no":
        return document.outputs_train
    return max((document.outputs_train, document.outputs_train_competing), key=STRICTNESS.__getitem__)


def _sources(task: Task, registry: Registry) -> Iterator[dict[str, Json]]:
    for source in task.spec.sources:
        expression = read_expression(source.licence)
        licences = [licence_named(registry, name) for name in expression.parts if name not in expression.choices]
        known = [one for one in licences if one is not None]
        yield {
            "source": source.id,
            "title": source.title,
            "licence": source.licence,
            "known": len(known) == len(licences),
            "train": known[0].train if len(known) == len(expression.parts) == 1 else None,
            "generated_by": list(source.generated_by),
            "personal_data": list(source.personal_data),
            "processing_regions": list(source.processing_regions),
        }
