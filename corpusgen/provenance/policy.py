"""May this teacher's answers be used like that? A pure function of terms, intended use, sources, waivers and the day.

Nothing is read and no clock is asked: the same arguments give the same decision, and both digests are kept in it.
Every role counts the same, because judging or filtering uses a teacher's output as much as writing does.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date, timedelta
from fnmatch import fnmatchcase
from functools import lru_cache

from corpusgen.provenance.decisions import (
    SEVERITY,
    Agreement,
    Bucket,
    Bundle,
    Decision,
    Distribution,
    Duty,
    EffectiveLicence,
    IntendedUse,
    LicenceBits,
    Outcome,
    Question,
    Reason,
    Role,
    SourceUse,
    Waiver,
    ask,
    deny,
    grant,
    quoted,
    remark,
)
from corpusgen.provenance.explaining import explain
from corpusgen.provenance.licences import about_sources, effective_licence, source_duties
from corpusgen.provenance.personal import about_sending
from corpusgen.provenance.places import is_known_place, lies_in
from corpusgen.provenance.release import release_problems
from corpusgen.provenance.terms import (
    OWN_ROUTES,
    STRICTNESS,
    Grant,
    Registry,
    TeacherRoute,
    TermsDocument,
    TermsDuty,
    TermsMatch,
    of_model,
    terms_set_id,
)
from corpusgen.records import digest

__all__ = [
    "RULES",
    "Agreement",
    "Bucket",
    "Bundle",
    "Decision",
    "Distribution",
    "Duty",
    "EffectiveLicence",
    "IntendedUse",
    "LicenceBits",
    "Outcome",
    "Reason",
    "Role",
    "SourceUse",
    "TeacherRoute",
    "Waiver",
    "decide",
    "effective_licence",
    "explain",
    "policy_digest",
    "release_problems",
    "served_model",
    "suggest_allowed",
    "waiver_problems",
]

POLICY_VERSION = 3
"""Raise with every change of what decide() answers: it is part of the policy digest that decisions keep."""

RULES: dict[str, str] = {
    "R01": "no terms document matches, or the pinned terms lack one that matches: deny",
    "R02": "review older than the registry allows, or of a day to come: needs_waiver; weights pinned by digest do not"
    " expire, nor does what is one's own on one's own machines",
    "R03": "low confidence in our reading: needs_waiver",
    "R04": "training prohibited: deny; a waiver of R04 lifts it only where the terms yield to written authorisation",
    "R05": "unclear: needs_waiver",
    "R06": "conditional, and no duty a machine can check: needs_waiver",
    "R07": "a duty is not accepted: needs_waiver",
    "R08": "every duty is accepted: allow, and the duties are recorded",
    "R09": "allowed: allow",
    "R10": "non-commercial and a commercial student, no distribution and one, users or revenue above a cap, or a"
    " domicile without a grant: deny; the organisation's facts not known: needs_waiver",
    "R11": "personal data without an agreement in force for its class and region, without a lawful basis, to an unpaid"
    " tier or to a provider that trains on it, or a source sent outside its regions: deny; whether it trains is"
    " unclear: needs_waiver",
    "R12": "source licence unknown, not chosen, without derivatives, or two that exclude each other: deny",
    "R13": "answered by a model whose terms were not checked: its records are put aside",
    "R14": "a cached answer: judged by the terms of the original request and by today's policy",
    "R15": "release: the name breaks a naming duty, duties conflict, or the bundle lacks what they ask for: deny",
    "R16": "egress none: every teacher whose requests leave this machine is denied",
}

_SHA256 = re.compile(r"^[0-9a-f]{64}$")
_JUDGED_BY_FACTS = ("mau_cap", "revenue_cap")
MOST_YEARS = 5
"""For so long a waiver may be granted; what it was granted on is not the same after that."""
_SKEW = timedelta(days=1)
"""Where it is tomorrow already, somebody may have read a document then."""
_MEMORY = 4096
"""Decisions that are remembered; a run asks a handful of questions again and again."""


@lru_cache(maxsize=1)
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
    task: str = "",
) -> Decision:
    """The strictest finding over every document and source.

    ``original_terms`` are those of a cached answer; ``task`` is the name that waivers of single tasks go by. A question
    that was asked before is answered from memory.
    """
    original = None if original_terms is None else tuple(original_terms)
    return _decided(registry, teacher, use, on, role, tuple(sources), tuple(waivers), original, task)


@lru_cache(maxsize=_MEMORY)
def _decided(
    registry: Registry,
    teacher: TeacherRoute,
    use: IntendedUse,
    on: date,
    role: Role,
    sources: tuple[SourceUse, ...],
    waivers: tuple[Waiver, ...],
    original_terms: tuple[str, ...] | None,
    task: str,
) -> Decision:
    match = registry.matching(teacher, on) if original_terms is None else registry.originally(original_terms)
    valid = [waiver for waiver in waivers if _counts(waiver, teacher, task, on)]
    asked = Question(
        registry=registry, teacher=teacher, use=use, on=on, role=role, sources=sources, waivers=tuple(valid)
    )
    lifted = [_waived(registry, reason, valid) for reason in _reasons(asked, match)]
    found = {_of_file(registry, reason) for reason, _ in lifted}
    if original_terms is not None:
        found.add(grant("R14", None, "judged by the original request's terms"))
    reasons = tuple(sorted(found, key=_reason_order))
    licence = effective_licence(registry, match.documents, sources)
    return Decision(
        outcome=max((reason.outcome for reason in reasons), key=SEVERITY.__getitem__, default="deny"),
        teacher=teacher,
        role=role,
        reasons=reasons,
        duties=_duties(asked, match.documents),
        terms_set_id=terms_set_id(match.documents),
        terms_ids=tuple(document.id for document in match.documents),
        gaps=match.gaps,
        licence_expression=licence.expression,
        outputs_train=_strictest(_granted(document, use, role) for document in match.documents),
        registry_digest=registry.digest,
        policy_digest=policy_digest(),
        decided_on=on,
        waivers=tuple(sorted({waiver_id for _, waiver_id in lifted if waiver_id})),
        licence_bits=licence.bits,
        bucket=licence.bucket,
    )


def suggest_allowed(
    registry: Registry,
    use: IntendedUse,
    *,
    on: date,
    role: Role = "response",
    sources: Sequence[SourceUse] = (),
) -> tuple[Decision, ...]:
    """The teachers known to the registry that would pass for this use without a waiver, with their decisions."""
    known = (TeacherRoute(**one.model_dump()) for one in registry.known_teachers)
    decisions = (decide(registry, teacher, use, on=on, role=role, sources=sources) for teacher in known)
    return tuple(decision for decision in decisions if decision.outcome == "allow")


# --- R13 -------------------------------------------------------------------------------------------------------------


def served_model(registry: Registry, decision: Decision, model_served: str, on: date) -> Reason:
    """Whether the model that answered is one whose terms were checked (R13); ``deny``: put its records aside.

    Covered is what every document that binds it was judged in the decision. Weights pinned by digest are what they are,
    whatever a server calls them.
    """
    return _served(registry, decision.teacher, decision.terms_ids, model_served, on)


@lru_cache(maxsize=_MEMORY)
def _served(
    registry: Registry, teacher: TeacherRoute, terms_ids: tuple[str, ...], model_served: str, on: date
) -> Reason:
    if not model_served:
        return remark("R13", None, f"{teacher.name} does not say which model answered")
    if teacher.weights_sha256 is not None or model_served == teacher.model:
        return grant("R13", None, f"{model_served!r} is the model whose terms were checked")
    match = registry.matching(replace(teacher, model=model_served, pinned_terms=()), on)
    unjudged = sorted({document.id for document in match.documents} - set(terms_ids))
    unknown = [gap.text for gap in match.gaps if gap.about == "model"]
    if unjudged or unknown:
        why = unknown[0] if unknown else f"it is under {', '.join(unjudged)}, which nobody judged"
        text = f"{teacher.model!r} was asked and {model_served!r} answered: {why}"
        return deny("R13", unjudged[0] if unjudged else None, text)
    return grant("R13", None, f"{model_served!r} is under the terms that were checked")


# --- Findings --------------------------------------------------------------------------------------------------------


def _reasons(asked: Question, match: TermsMatch) -> Iterator[Reason]:
    for gap in match.gaps:
        yield deny("R01", None, gap.text)
    for document in match.documents:
        yield from _about_reading(asked, document)
        yield _about_training(asked, document)
        yield from _about_duties(asked, document)
        yield from _about_commerce(asked, document)
        yield from _about_distribution(document, asked.use)
    if asked.role != "base":  # weights are sent nothing
        yield from about_sending(asked.registry, match.documents, asked.teacher, asked.use, asked.sources, asked.on)
    yield from about_sources(asked.registry, asked.sources, asked.use)


def _about_reading(asked: Question, document: TermsDocument) -> Iterator[Reason]:
    within = asked.registry.stale_after_days
    if document.reviewed > asked.on + _SKEW and not _final(document, asked):
        text = f"reviewed in the future: on {document.reviewed}, and the day is {asked.on}; correct the day"
        yield ask("R02", document.id, text)
    if document.reviewed < asked.on - timedelta(days=within) and not _final(document, asked):
        text = f"last read on {document.reviewed}, more than {within} days ago; read it again and say so under reviews"
        yield ask("R02", document.id, text)
    if document.confidence == "low":
        yield ask("R03", document.id, "our reading of it has low confidence")


def _final(document: TermsDocument, asked: Question) -> bool:
    """True for a text that cannot change any more: a licence shipped with known weights, a superseded version."""
    pinned = document.kind == "model_licence" and asked.teacher.weights_sha256 is not None
    superseded = document.superseded is not None and document.superseded <= asked.on
    return pinned or superseded or (document.kind == "own" and asked.teacher.route in OWN_ROUTES)


def _about_training(asked: Question, document: TermsDocument) -> Reason:
    granted, what = _granted(document, asked.use, asked.role), _what(asked)
    if granted == "prohibited":
        authorised = document.written_authorisation and any(_authorises(one, document, asked) for one in asked.waivers)
        finding = (ask if authorised else deny)("R04", document.id, f"{what} is prohibited{quoted(document)}")
    elif granted == "unclear":
        finding = ask("R05", document.id, f"whether {what} is allowed is unclear: {_conditions(document)}")
    elif granted == "conditional" and not any(_binding(document, asked)):
        text = f"{what} is conditional: {_conditions(document)}{quoted(document)}"
        finding = ask("R06", document.id, text)
    elif granted == "conditional":
        finding = grant("R08", document.id, f"{what} is allowed under its duties")
    else:
        finding = grant("R09", document.id, f"{what} is allowed")
    text = finding.text + _doubt(document, asked, granted) if finding.outcome != "allow" else finding.text
    return replace(finding, text=text, quote=document.quote, location=document.quote_location)


def _doubt(document: TermsDocument, asked: Question, granted: Grant) -> str:
    """That nobody has said whether the student competes, where saying no would make a difference."""
    matters = granted != _granted(document, replace(asked.use, student_competes="no"), asked.role)
    if not matters or asked.use.student_competes != "unknown":
        return ""
    return " (intended_use.student_competes is unknown, which counts as yes; say no if it does not compete)"


def _what(asked: Question) -> str:
    if asked.role == "base":
        return "beginning with these weights"
    return "training a model" if asked.use.student_competes == "no" else "training a model that may compete"


def _authorises(waiver: Waiver, document: TermsDocument, asked: Question) -> bool:
    named = document.id in waiver.terms_ids and "R04" in waiver.rules and waiver.is_scoped
    return named and waiver.is_of(asked.registry, document.id) and bool(_SHA256.match(waiver.evidence_sha256))


def _about_duties(asked: Question, document: TermsDocument) -> Iterator[Reason]:
    for duty in _binding(document, asked):
        yield from (replace(found, location=duty.location) for found in _about_duty(asked, document, duty))


def _about_duty(asked: Question, document: TermsDocument, duty: TermsDuty) -> Iterator[Reason]:
    if duty.kind in _JUDGED_BY_FACTS and duty.limit is not None:
        yield from _about_cap(asked.use, document, duty)
    elif duty.regions:
        yield from _about_domicile(asked, document, duty)
    elif not _accepted(asked.use, document, duty):
        text = f"duty {duty.kind} ({duty.applies_to}: {duty.text}) is not among accepted_duties"
        yield ask("R07", document.id, text, duty=duty.kind)


def _binding(document: TermsDocument, asked: Question) -> Iterator[TermsDuty]:
    """The duties of a document that are ones of this model, used like that."""
    for duty in document.duties:
        if of_model(duty, asked.teacher.model) and (not duty.roles or asked.role in duty.roles):
            yield duty


def _accepted(use: IntendedUse, document: TermsDocument, duty: TermsDuty) -> bool:
    return duty.kind in use.accepted_duties or f"{document.id}/{duty.kind}" in use.accepted_duties


def _about_cap(use: IntendedUse, document: TermsDocument, duty: TermsDuty) -> Iterator[Reason]:
    users = duty.kind == "mau_cap"
    name = "monthly_active_users" if users else "annual_revenue_usd"
    fact, limit = use.monthly_active_users if users else use.annual_revenue_usd, duty.limit or 0
    within = fact is not None and fact <= limit
    if within or (duty.above == "duty" and _accepted(use, document, duty)):
        yield grant("R10", document.id, f"duty {duty.kind} ({duty.text}): within {limit:,} or accepted")
    elif duty.above == "duty":
        text = (
            f"duty {duty.kind} ({duty.text}) is not among accepted_duties, nor is organisation.{name} within {limit:,}"
        )
        yield ask("R07", document.id, text, duty=duty.kind)
    elif fact is None:
        text = f"licensed up to {limit:,} ({duty.text}), and organisation.{name} is not known"
        yield ask("R10", document.id, text, duty=duty.kind)
    else:
        text = f"licensed up to {limit:,} ({duty.text}), and organisation.{name} is {fact:,}"
        yield deny("R10", document.id, text)


def _about_domicile(asked: Question, document: TermsDocument, duty: TermsDuty) -> Iterator[Reason]:
    regions, homes = asked.registry.regions, asked.use.domiciled_in
    barred = ", ".join(duty.regions)
    inside = [home for home in homes if _overlaps(regions, home, duty.regions)]
    unknown = [home for home in homes if not is_known_place(regions, home)]
    if inside:
        text = f"grants nothing to whoever is domiciled in {barred}, and organisation.domiciled_in is {inside[0]}"
        yield deny("R10", document.id, text)
    elif not homes or unknown:
        found = f"names {unknown[0]!r}, which is no country code" if unknown else "is not known"
        text = f"grants nothing to whoever is domiciled in {barred}, and organisation.domiciled_in {found}"
        yield ask("R10", document.id, text, duty=duty.kind)
    else:
        yield grant("R10", document.id, f"grants nothing in {barred}; domiciled in {', '.join(homes)}")


def _overlaps(regions: Mapping[str, tuple[str, ...]], home: str, barred: Sequence[str]) -> bool:
    """Inside of what is barred, or around a part of it: who is domiciled somewhere in the EEA may be in the EU."""
    return lies_in(regions, home, barred) or any(lies_in(regions, one, [home]) for one in barred)


def _about_commerce(asked: Question, document: TermsDocument) -> Iterator[Reason]:
    if not asked.use.commercial:
        return
    if document.commercial_use == "prohibited" or any(duty.kind == "non_commercial" for duty in document.duties):
        yield deny("R10", document.id, "allows no commercial use, and the student is commercial")
    elif document.commercial_use == "unclear":
        yield ask("R05", document.id, "whether commercial use is allowed is unclear")
    elif document.commercial_use == "conditional" and not any(_binding(document, asked)):
        yield ask("R06", document.id, f"commercial use is conditional: {_conditions(document)}")


def _about_distribution(document: TermsDocument, use: IntendedUse) -> Iterator[Reason]:
    bound = any(duty.kind == "no_distribution" for duty in document.duties)
    if bound and use.student_distribution != "internal":
        yield deny("R10", document.id, f"allows no distribution, and the student is {use.student_distribution}")


def _granted(document: TermsDocument, use: IntendedUse, role: Role) -> Grant:
    if role == "base" and document.as_base is not None:
        return document.as_base
    if role != "base" and use.student_competes == "no":
        return document.outputs_train
    return _strictest((document.outputs_train, document.outputs_train_competing))


def _strictest(grants: Iterable[Grant]) -> Grant:
    return max(grants, key=STRICTNESS.__getitem__, default="unclear")


def _of_file(registry: Registry, reason: Reason) -> Reason:
    file = registry.file_of(reason.terms_id) if reason.terms_id else ""
    return replace(reason, file=file) if file else reason


def _reason_order(reason: Reason) -> tuple[int, str, str, str]:
    return -SEVERITY[reason.outcome], reason.rule, reason.terms_id or "", reason.text


def _conditions(document: TermsDocument) -> str:
    return "; ".join(document.conditions) or "no condition is written down"


def _duties(asked: Question, documents: Sequence[TermsDocument]) -> tuple[Duty, ...]:
    duties = {
        Duty(kind=duty.kind, applies_to=duty.applies_to, text=duty.text, terms_id=document.id, words=duty.words)
        for document in documents
        for duty in _binding(document, asked)
    }
    duties.update(duty for source in asked.sources for duty in source_duties(asked.registry, source))
    return tuple(sorted(duties, key=lambda duty: (duty.terms_id, duty.kind, duty.applies_to, duty.text)))


# --- Waivers ---------------------------------------------------------------------------------------------------------


def _counts(waiver: Waiver, teacher: TeacherRoute, task: str, on: date) -> bool:
    of_task = not waiver.task or fnmatchcase(task, waiver.task)
    of_teacher = not waiver.teacher or fnmatchcase(teacher.name, waiver.teacher)
    return waiver.granted <= on <= waiver.expires and of_task and of_teacher


def _waived(registry: Registry, reason: Reason, waivers: Sequence[Waiver]) -> tuple[Reason, str | None]:
    """The finding as waivers leave it, and which of them lifted it. No waiver lifts a denial.

    A waiver of a document that says something else now is told of, and lifts nothing.
    """
    named = [one for one in sorted(waivers, key=lambda one: one.waiver_id) if _names(one, reason)]
    for waiver in named:
        if reason.outcome == "needs_waiver" and waiver.is_of(registry, reason.terms_id):
            text = f"{reason.text} (waived by {waiver.granted_by} until {waiver.expires}: {waiver.waiver_id})"
            return replace(reason, text=text, outcome="allow", duty=None), waiver.waiver_id
    others = ", ".join(one.waiver_id for one in named if not one.is_of(registry, reason.terms_id))
    if reason.outcome == "allow" or not others:
        return reason, None
    return replace(reason, text=f"{reason.text} (waived for another version of it: {others}; waive again)"), None


def _names(waiver: Waiver, reason: Reason) -> bool:
    return reason.terms_id in waiver.terms_ids and (
        reason.rule in waiver.rules or (not waiver.rules and reason.outcome == "needs_waiver")
    )


def waiver_problems(registry: Registry, waiver: Waiver, on: date) -> tuple[str, ...]:
    """Why a waiver is refused when it is granted; empty: nothing against it."""
    return tuple(_waiver_problems(registry, waiver, on))


def _waiver_problems(registry: Registry, waiver: Waiver, on: date) -> Iterator[str]:
    if not waiver.terms_ids:
        yield "it names no terms; a waiver is of one document at least"
    if not waiver.granted_by.strip() or not waiver.reason.strip():
        yield "say who grants it and why"
    if not _SHA256.match(waiver.evidence_sha256):
        yield "its evidence has no sha256; name the file that shows the decision"
    if waiver.expires < max(on, waiver.granted):
        yield f"it expires on {waiver.expires}, which is over; choose a later day"
    if waiver.expires > _years_after(waiver.granted, MOST_YEARS):
        yield f"it expires on {waiver.expires}, more than {MOST_YEARS} years from now; choose a day before that"
    if "R04" in waiver.rules and not waiver.is_scoped:
        yield "a waiver of R04 is of one task or teacher; name it with --task or --teacher"
    yield from (f"there is no rule {rule!r}; the rules are R01 to R16" for rule in waiver.rules if rule not in RULES)
    for name in waiver.terms_ids:
        document = registry.by_id.get(name)
        if document is not None and document.id != name:
            yield f"{name} is overridden by {document.id}; name that one"
        elif document is not None:
            yield from _prohibited_problems(document, waiver)
        elif name not in registry.licence_names:
            yield f"no document or licence is called {name!r}; `corpusgen terms list` shows them"


def _years_after(day: date, years: int) -> date:
    return date(day.year + years, day.month, min(day.day, 28) if day.month == 2 else day.day)


def _prohibited_problems(document: TermsDocument, waiver: Waiver) -> Iterator[str]:
    if document.outputs_train_competing == "prohibited" and not document.written_authorisation:
        if "R04" in waiver.rules or (not waiver.rules and document.outputs_train == "prohibited"):
            yield f"{document.id} prohibits it and takes no written authorisation; a prohibition is not waived"
    elif document.outputs_train == "prohibited" and not waiver.rules:
        why = "prohibits it unless the provider agrees in writing"
        yield f"{document.id} {why}; name rule R04, with that agreement as evidence"
