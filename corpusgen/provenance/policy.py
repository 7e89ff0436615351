"""May this teacher's answers be used like that? A pure function of terms, intended use, sources, waivers and the day.

Nothing is read and no clock is asked: the same arguments give the same decision, and both digests are kept in it.
Every role counts the same, because judging or filtering uses a teacher's output as much as writing does.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Literal, TypeAlias

from corpusgen.provenance.terms import (
    STRICTNESS,
    DataLicence,
    Gap,
    Grant,
    Registry,
    Route,
    TeacherRoute,
    TermsDocument,
    TermsMatch,
    terms_set_id,
)
from corpusgen.records import digest

__all__ = [
    "RULES",
    "Decision",
    "Duty",
    "IntendedUse",
    "Outcome",
    "Reason",
    "Role",
    "SourceUse",
    "TeacherRoute",
    "Waiver",
    "decide",
    "explain",
    "policy_digest",
    "suggest_allowed",
]

Outcome: TypeAlias = Literal["allow", "needs_waiver", "deny"]
Role: TypeAlias = Literal[
    "response", "rationale", "logprobs", "preference", "judge", "filter", "simulated_user", "paraphrase"
]

POLICY_VERSION = 1
"""Raise with every change of what decide() answers: it is part of the policy digest that decisions keep."""

RULES: dict[str, str] = {
    "R01": "no terms document matches, or the pinned terms lack one that matches: deny",
    "R02": "review older than the registry allows: needs_waiver; weights pinned by digest do not expire",
    "R03": "low confidence in our reading: needs_waiver",
    "R04": "training prohibited: deny; with written authorisation and a waiver that names the terms: needs_waiver",
    "R05": "unclear: needs_waiver",
    "R06": "conditional, and no duty a machine can check: needs_waiver",
    "R07": "a duty is not accepted: needs_waiver",
    "R08": "every duty is accepted: allow, and the duties are recorded",
    "R09": "allowed: allow",
    "R10": "non-commercial terms or source and a commercial student, or terms without distribution and one: deny",
    "R11": "personal data to a host without an agreement: deny",
    "R12": "source licence unknown, without derivatives, or two share-alikes that exclude each other: deny",
    "R14": "a cached answer: judged by the terms of the original request and by today's policy",
}

_SEVERITY: dict[Outcome, int] = {"allow": 0, "needs_waiver": 1, "deny": 2}
_OWN_MACHINE: frozenset[Route] = frozenset({"self_hosted", "mock"})


@dataclass(frozen=True, kw_only=True)
class IntendedUse:
    """What the student is for. ``accepted_duties`` are kinds (``naming``) or kinds of one document (``id/naming``).

    Duties must be accepted even by those who keep the student to themselves: it may be distributed one day.
    """

    student_distribution: Literal["internal", "hosted", "weights_released"]
    student_competes: Literal["yes", "no", "unknown"] = "unknown"
    commercial: bool = True
    accepted_duties: tuple[str, ...] = ()
    personal_data: bool = False
    agreements: tuple[str, ...] = ()
    """Hosts with which an agreement on personal data is in force."""


@dataclass(frozen=True, kw_only=True)
class SourceUse:
    """A source of seeds, and the licence it says it has."""

    source_id: str
    licence: str


@dataclass(frozen=True, kw_only=True)
class Waiver:
    """Somebody with the right to do so accepts what needs a waiver. No rules named: all of these terms' rules."""

    waiver_id: str
    terms_ids: tuple[str, ...]
    granted_by: str
    expires: date
    evidence_sha256: str
    rules: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Duty:
    """Something to carry out, and the document or source licence that asks for it."""

    kind: str
    applies_to: Literal["dataset", "student", "service"]
    text: str
    terms_id: str


@dataclass(frozen=True, kw_only=True)
class Reason:
    """One rule's finding about one document; ``terms_id`` is None where the finding is about no document."""

    rule: str
    terms_id: str | None
    text: str
    outcome: Outcome
    duty: str | None = None
    """The kind of duty that is not accepted, for R07."""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What the terms allow, why, and under which duties."""

    outcome: Outcome
    teacher: TeacherRoute
    role: Role
    reasons: tuple[Reason, ...]
    duties: tuple[Duty, ...]
    terms_set_id: str
    terms_ids: tuple[str, ...]
    gaps: tuple[Gap, ...]
    licence_expression: str
    outputs_train: Grant
    registry_digest: str
    policy_digest: str
    decided_on: date


def policy_digest() -> str:
    """sha256 that names this version of the rules."""
    return digest({"version": POLICY_VERSION, "rules": RULES})


def decide(
    registry: Registry,
    teacher: TeacherRoute,
    use: IntendedUse,
    *,
    on: date,
    role: Role = "response",
    sources: Sequence[SourceUse] = (),
    waivers: Sequence[Waiver] = (),
    original_terms: Collection[str] | None = None,
) -> Decision:
    """The strictest finding over every document and source. ``original_terms`` are those of a cached answer."""
    match = registry.matching(teacher, on) if original_terms is None else registry.originally(original_terms)
    valid = [waiver for waiver in waivers if on <= waiver.expires]
    found = [_waived(reason, valid) for reason in _reasons(registry, match, teacher, use, on, sources, valid)]
    if original_terms is not None:
        found.append(Reason(rule="R14", terms_id=None, text="judged by the original request's terms", outcome="allow"))
    reasons = tuple(sorted(set(found), key=_reason_order))
    return Decision(
        outcome=max((reason.outcome for reason in reasons), key=_SEVERITY.__getitem__, default="deny"),
        teacher=teacher,
        role=role,
        reasons=reasons,
        duties=_duties(registry, match.documents, sources),
        terms_set_id=terms_set_id(match.documents),
        terms_ids=tuple(document.id for document in match.documents),
        gaps=match.gaps,
        licence_expression=_licence_expression(registry, match.documents, sources),
        outputs_train=_strictest(_grant(document, use) for document in match.documents),
        registry_digest=registry.digest,
        policy_digest=policy_digest(),
        decided_on=on,
    )


def suggest_allowed(
    registry: Registry,
    use: IntendedUse,
    *,
    on: date,
    role: Role = "response",
    sources: Sequence[SourceUse] = (),
    candidates: Iterable[TeacherRoute] | None = None,
) -> tuple[Decision, ...]:
    """The teachers known to the registry (or the candidates) that would pass for this use, with their decisions."""
    if candidates is None:
        candidates = [TeacherRoute(**known.model_dump()) for known in registry.known_teachers]
    decisions = (decide(registry, teacher, use, on=on, role=role, sources=sources) for teacher in candidates)
    return tuple(decision for decision in decisions if decision.outcome == "allow")


# --- Findings --------------------------------------------------------------------------------------------------------


def _reasons(
    registry: Registry,
    match: TermsMatch,
    teacher: TeacherRoute,
    use: IntendedUse,
    on: date,
    sources: Sequence[SourceUse],
    waivers: Sequence[Waiver],
) -> Iterator[Reason]:
    for gap in match.gaps:
        yield _deny("R01", None, gap.text)
    for document in match.documents:
        yield from _about_reading(registry, document, teacher, on)
        yield _about_training(document, use, waivers)
        yield from _about_duties(document, use)
        yield from _about_commerce(document, use)
        yield from _about_distribution(document, use)
    yield from _about_personal_data(teacher, use)
    yield from _about_sources(registry, sources, use)


def _about_reading(registry: Registry, document: TermsDocument, teacher: TeacherRoute, on: date) -> Iterator[Reason]:
    oldest = on - timedelta(days=registry.stale_after_days)
    if document.reviewed < oldest and not _final(document, teacher, on):
        age = f"last read on {document.reviewed}, more than {registry.stale_after_days} days ago"
        text = f"{age}; read it again and say so under reviews"
        yield _ask("R02", document.id, text)
    if document.confidence == "low":
        yield _ask("R03", document.id, "our reading of it has low confidence")


def _final(document: TermsDocument, teacher: TeacherRoute, on: date) -> bool:
    """True for a text that cannot change any more: a licence shipped with known weights, a superseded version."""
    pinned = document.kind == "model_licence" and teacher.weights_sha256 is not None
    superseded = document.superseded is not None and document.superseded <= on
    return pinned or superseded or document.kind == "own"


def _about_training(document: TermsDocument, use: IntendedUse, waivers: Sequence[Waiver]) -> Reason:
    grant = _grant(document, use)
    asked = "training a model" if use.student_competes == "no" else "training a model that may compete"
    if grant == "prohibited":
        authorised = document.written_authorisation and any(document.id in waiver.terms_ids for waiver in waivers)
        finding = _ask if authorised else _deny
        return finding("R04", document.id, f"{asked} is prohibited{_quoted(document)}")
    if grant == "unclear":
        return _ask("R05", document.id, f"whether {asked} is allowed is unclear: {_conditions(document)}")
    if grant == "conditional" and not document.duties:
        return _ask("R06", document.id, f"{asked} is conditional: {_conditions(document)}{_quoted(document)}")
    if grant == "conditional":
        return _pass("R08", document.id, f"{asked} is allowed under its duties")
    return _pass("R09", document.id, f"{asked} is allowed")


def _about_duties(document: TermsDocument, use: IntendedUse) -> Iterator[Reason]:
    for duty in document.duties:
        if duty.kind not in use.accepted_duties and f"{document.id}/{duty.kind}" not in use.accepted_duties:
            text = f"duty {duty.kind} ({duty.applies_to}: {duty.text}) is not among accepted_duties"
            yield replace(_ask("R07", document.id, text), duty=duty.kind)


def _about_commerce(document: TermsDocument, use: IntendedUse) -> Iterator[Reason]:
    if not use.commercial:
        return
    if document.commercial_use == "prohibited" or any(duty.kind == "non_commercial" for duty in document.duties):
        yield _deny("R10", document.id, "allows no commercial use, and the student is commercial")
    elif document.commercial_use == "unclear":
        yield _ask("R05", document.id, "whether commercial use is allowed is unclear")


def _about_distribution(document: TermsDocument, use: IntendedUse) -> Iterator[Reason]:
    bound = any(duty.kind == "no_distribution" for duty in document.duties)
    if bound and use.student_distribution != "internal":
        yield _deny("R10", document.id, f"allows no distribution, and the student is {use.student_distribution}")


def _about_personal_data(teacher: TeacherRoute, use: IntendedUse) -> Iterator[Reason]:
    if use.personal_data and teacher.route not in _OWN_MACHINE and teacher.host not in use.agreements:
        text = f"personal data would go to {teacher.host or teacher.provider!r}, with whom no agreement is in force"
        yield _deny("R11", None, text)


def _about_sources(registry: Registry, sources: Sequence[SourceUse], use: IntendedUse) -> Iterator[Reason]:
    share_alike: set[str] = set()
    for source in sources:
        for name in _licence_parts(source.licence):
            licence = registry.licence_names.get(name)
            yield from _about_licence(source, name, licence, use)
            if licence is not None and licence.share_alike:
                share_alike.add(licence.spdx)
    if len(share_alike) > 1:
        mixed = " and ".join(sorted(share_alike))
        yield _deny("R12", None, f"{mixed} cannot be mixed in one dataset; make one dataset per licence")


def _about_licence(source: SourceUse, name: str, licence: DataLicence | None, use: IntendedUse) -> Iterator[Reason]:
    where = f"source {source.source_id!r}"
    if licence is None:
        yield _deny("R12", None, f"{where}: licence {name!r} is not among data_licences; correct it or add it there")
    elif licence.train in ("unclear", "prohibited"):
        yield _deny("R12", licence.spdx, f"{where}: {licence.spdx} does not say that its text may train a model")
    elif licence.no_derivatives:
        yield _deny("R12", licence.spdx, f"{where}: {licence.spdx} allows no derivatives")
    elif licence.non_commercial and use.commercial:
        yield _deny("R10", licence.spdx, f"{where}: {licence.spdx} is non-commercial, and the student is commercial")
    elif licence.share_alike and not {"share_alike", f"{licence.spdx}/share_alike"} & set(use.accepted_duties):
        text = f"{where}: duty share_alike is not among accepted_duties"
        yield replace(_ask("R07", licence.spdx, text), duty="share_alike")
    else:
        yield _pass("R09", licence.spdx, f"{where}: {licence.spdx} allows it")


def _grant(document: TermsDocument, use: IntendedUse) -> Grant:
    if use.student_competes == "no":
        return document.outputs_train
    return _strictest((document.outputs_train, document.outputs_train_competing))


def _strictest(grants: Iterable[Grant]) -> Grant:
    return max(grants, key=STRICTNESS.__getitem__, default="unclear")


def _deny(rule: str, terms_id: str | None, text: str) -> Reason:
    return Reason(rule=rule, terms_id=terms_id, text=text, outcome="deny")


def _ask(rule: str, terms_id: str | None, text: str) -> Reason:
    return Reason(rule=rule, terms_id=terms_id, text=text, outcome="needs_waiver")


def _pass(rule: str, terms_id: str | None, text: str) -> Reason:
    return Reason(rule=rule, terms_id=terms_id, text=text, outcome="allow")


def _waived(reason: Reason, waivers: Sequence[Waiver]) -> Reason:
    for waiver in waivers:
        named = reason.terms_id in waiver.terms_ids and (not waiver.rules or reason.rule in waiver.rules)
        if reason.outcome == "needs_waiver" and named:
            text = f"{reason.text} (waived by {waiver.granted_by} until {waiver.expires}: {waiver.waiver_id})"
            return replace(reason, text=text, outcome="allow")
    return reason


def _reason_order(reason: Reason) -> tuple[int, str, str, str]:
    return -_SEVERITY[reason.outcome], reason.rule, reason.terms_id or "", reason.text


def _conditions(document: TermsDocument) -> str:
    return "; ".join(document.conditions) or "no condition is written down"


def _quoted(document: TermsDocument) -> str:
    return f", {document.quote_location}: “{document.quote}”" if document.quote else ""


# --- Duties and licences ---------------------------------------------------------------------------------------------


def _duties(registry: Registry, documents: Sequence[TermsDocument], sources: Sequence[SourceUse]) -> tuple[Duty, ...]:
    duties = {
        Duty(kind=duty.kind, applies_to=duty.applies_to, text=duty.text, terms_id=document.id)
        for document in documents
        for duty in document.duties
    }
    duties.update(duty for source in sources for duty in _source_duties(registry, source))
    return tuple(sorted(duties, key=lambda duty: (duty.terms_id, duty.kind, duty.applies_to, duty.text)))


def _source_duties(registry: Registry, source: SourceUse) -> Iterator[Duty]:
    for name in _licence_parts(source.licence):
        licence = registry.licence_names.get(name)
        if licence is None:
            continue
        asked = {
            "attribution": licence.attribution and f"credit source {source.source_id}",
            "notice_file": licence.notice,
            "share_alike": licence.share_alike and f"publish what derives from it under {licence.spdx}",
            "non_commercial": licence.non_commercial and "non-commercial use only",
        }
        for kind, text in asked.items():
            if text:
                yield Duty(kind=kind, applies_to="dataset", text=str(text), terms_id=licence.spdx)


def _licence_expression(registry: Registry, documents: Sequence[TermsDocument], sources: Sequence[SourceUse]) -> str:
    names = {document.spdx for document in documents}
    for source in sources:
        for name in _licence_parts(source.licence):
            licence = registry.licence_names.get(name)
            names.add(licence.spdx if licence is not None else "NOASSERTION")
    return " AND ".join(sorted(names, key=str.casefold)) or "NOASSERTION"


def _licence_parts(expression: str) -> list[str]:
    """The licences that all apply. A choice (OR) stays whole, because nobody said which side was chosen."""
    return [part.strip() for part in re.split(r"\s+AND\s+", expression)]


# --- Words for people ------------------------------------------------------------------------------------------------

_VERDICT: dict[Outcome, str] = {
    "allow": "may be used",
    "needs_waiver": "may be used only after somebody entitled to has waived what is listed",
    "deny": "may not be used",
}


def explain(decision: Decision, suggestions: Sequence[Decision] = ()) -> str:
    """A decision in sentences: verdict, findings from the strictest down, duties, and what to do about a refusal."""
    teacher = decision.teacher
    reached = f"route {teacher.route}" + (f", host {teacher.host}" if teacher.host else "")
    lines = [f"{decision.outcome}: {teacher.name} ({reached}) {_VERDICT[decision.outcome]} as {decision.role}."]
    lines += [_line(reason) for reason in decision.reasons if reason.outcome != "allow" or decision.outcome == "allow"]
    lines += [f"  duty {duty.kind} on the {duty.applies_to}: {duty.text} [{duty.terms_id}]" for duty in decision.duties]
    lines += [advice for advice in (_how_to_accept(decision), _how_to_add(decision)) if advice]
    if decision.outcome != "allow" and suggestions:
        lines += ["", "These would pass: " + ", ".join(other.teacher.name for other in suggestions) + "."]
    lines.append("")
    lines.append(f"Terms set {decision.terms_set_id[:12]}, licence {decision.licence_expression}. Not legal advice.")
    return "\n".join(lines)


def _line(reason: Reason) -> str:
    subject = f"{reason.terms_id}: " if reason.terms_id else ""
    return f"  {reason.outcome} {reason.rule} {subject}{reason.text}"


def _how_to_accept(decision: Decision) -> str:
    open_duties = {(reason.terms_id, reason.duty) for reason in decision.reasons if reason.rule == "R07"}
    kinds = sorted({duty.kind for duty in decision.duties if (duty.terms_id, duty.kind) in open_duties})
    if not kinds:
        return ""
    return f"To carry them out, add to intended_use.accepted_duties in the task spec: {', '.join(kinds)}"


def _how_to_add(decision: Decision) -> str:
    missing = [gap.about for gap in decision.gaps if gap.about in ("model", "host")]
    # Where the route is wrong, more terms for the wrong route would not help.
    if not missing or any(gap.about == "route" for gap in decision.gaps):
        return ""
    intro = "No terms, no request. Write `terms_files: [terms.yaml]` in the task spec, and in that file what you read:"
    return "\n".join([intro, "", "documents:", *(_example(decision, about) for about in missing)])


def _example(decision: Decision, about: str) -> str:
    teacher = decision.teacher
    name = re.sub(r"[^a-z0-9.-]+", "-", f"{teacher.provider}-{about}".lower()).strip("-.")
    kind = "host_terms" if about == "host" else "model_licence" if teacher.route == "self_hosted" else "api_terms"
    models = "*" if about == "host" else re.sub(r"[_:@]", "-", teacher.model.lower())
    hosts = f"\n    hosts: ['{teacher.host.lower().partition(':')[0]}']" if teacher.host else ""
    return f"""\
  - id: {name}-terms-1
    provider: '{teacher.provider}'
    title: Title of the contract or licence
    version: '1'
    kind: {kind}
    routes: [{teacher.route}]{hosts}
    models: ['{models}']
    outputs_train: unclear            # allowed, conditional, unclear or prohibited
    outputs_train_competing: unclear
    commercial_use: unclear
    spdx: LicenseRef-{name}-terms
    source: where you read it
    confidence: medium                # high, medium or low
    reviewed: {decision.decided_on}"""
