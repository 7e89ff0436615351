"""What the policy is asked and what it answers: uses, sources, agreements, waivers, reasons, decisions."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Literal, TypeAlias

from corpusgen.provenance.terms import Gap, Grant, Registry, TeacherRoute, TermsDocument

Outcome: TypeAlias = Literal["allow", "needs_waiver", "deny"]
Role: TypeAlias = Literal[
    "response", "rationale", "logprobs", "preference", "judge", "filter", "simulated_user", "paraphrase", "base"
]
"""What a teacher's output is used as; ``base``: no output, but weights that a student begins with."""
Distribution: TypeAlias = Literal["internal", "hosted", "weights_released"]
Bucket: TypeAlias = Literal["permissive", "share_alike", "restricted"]

SEVERITY: dict[Outcome, int] = {"allow": 0, "needs_waiver": 1, "deny": 2}
"""Outcomes from loose to strict."""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """What a provider has agreed to in writing about personal data. No classes or regions named: all of them."""

    id: str
    host: str
    kind: Literal["dpa", "zero_retention", "order_form", "other"] = "dpa"
    classes: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()
    valid_from: date | None = None
    valid_until: date | None = None


@dataclass(frozen=True, kw_only=True)
class IntendedUse:
    """What the student is for, and what is known of whoever uses it.

    ``accepted_duties`` are kinds (``naming``) or kinds of one document (``id/naming``). Duties must be accepted even by
    those who keep the student to themselves: it may be distributed one day.
    """

    student_distribution: Distribution
    student_competes: Literal["yes", "no", "unknown"] = "unknown"
    commercial: bool = True
    accepted_duties: tuple[str, ...] = ()
    personal_data: tuple[str, ...] = ()
    """Classes of personal data that will be sent, beside those that sources name."""
    agreements: tuple[Agreement, ...] = ()
    egress: Literal["any", "none"] = "any"
    """``none``: nothing leaves this machine, whatever a teacher is."""
    monthly_active_users: int | None = None
    annual_revenue_usd: int | None = None
    domiciled_in: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class SourceUse:
    """A source of seeds, the licence it says it has, and where its text may go."""

    source_id: str
    licence: str
    generated_by: tuple[str, ...] = ()
    """Terms documents that the models which wrote it were under."""
    personal_data: tuple[str, ...] = ()
    lawful_basis: str | None = None
    processing_regions: tuple[str, ...] = ()
    """The only regions its text may be sent to; empty: any."""


@dataclass(frozen=True, kw_only=True)
class Waiver:
    """Somebody with the right to do so accepts what needs a waiver. No rules named: all of these terms' rules but R04.

    ``task`` and ``teacher`` are globs over names; empty: any. With R04 among the rules, its evidence is the provider's
    written authorisation.
    """

    waiver_id: str
    terms_ids: tuple[str, ...]
    granted_by: str
    reason: str
    evidence_sha256: str
    granted: date
    expires: date
    rules: tuple[str, ...] = ()
    task: str = ""
    teacher: str = ""
    versions: tuple[tuple[str, str], ...] = ()
    """What each of its terms said when it was waived (``Registry.version_of``): it lifts nothing of other versions."""

    def is_of(self, registry: Registry, terms_id: str | None) -> bool:
        """Whether it was granted for these terms as they stand here."""
        version = None if terms_id is None else registry.version_of(terms_id)
        return version is not None and (terms_id, version) in self.versions

    @property
    def is_scoped(self) -> bool:
        """Whether it names a task or a teacher, and not just any."""
        return any(glob.strip("*?") for glob in (self.task, self.teacher))


@dataclass(frozen=True, kw_only=True)
class Duty:
    """Something to carry out, and the document or source licence that asks for it."""

    kind: str
    applies_to: Literal["dataset", "student", "service"]
    text: str
    terms_id: str
    words: tuple[str, ...] = ()
    """naming: the name begins with one of them; no_trademark: it holds none; else: one of them must be said."""
    second_order: bool = False
    """From terms that the models which wrote a source were under: information, not a condition."""


@dataclass(frozen=True, kw_only=True)
class Reason:
    """One rule's finding about one document; ``terms_id`` is None where the finding is about no document."""

    rule: str
    terms_id: str | None
    text: str
    outcome: Outcome
    duty: str | None = None
    """The kind of duty that is not accepted, or whose facts are not known."""
    quote: str = ""
    location: str = ""
    """The clause of the document, or of its duty: what it says, and where."""
    file: str = ""
    """The file of a document that did not come with corpusgen."""
    notice: bool = False
    """True for what is worth knowing and changes no outcome."""


@dataclass(frozen=True, kw_only=True)
class LicenceBits:
    """What the licences of a mix ask for, taken together."""

    non_commercial: bool = False
    share_alike: bool = False
    no_derivatives: bool = False
    attribution: bool = False


@dataclass(frozen=True, kw_only=True)
class EffectiveLicence:
    """The licence of a mix: all of its licences at once, and the one of three configs such records belong in."""

    expression: str
    bits: LicenceBits
    bucket: Bucket


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """What goes out with a released student."""

    card: str = ""
    """Text of the model's card and documentation."""
    notice: str = ""
    """Text of the NOTICE file."""
    licences: tuple[str, ...] = ()
    """Terms ids or licence ids of which a copy goes along."""
    use_policies: tuple[str, ...] = ()
    """Terms ids whose use restrictions the student's own licence passes on."""


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
    waivers: tuple[str, ...] = ()
    """Ids of the waivers that lifted something."""
    licence_bits: LicenceBits = LicenceBits()
    bucket: Bucket = "restricted"
    """Which of three configs of a dataset such records belong in."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """Everything that a decision depends on."""

    registry: Registry
    teacher: TeacherRoute
    use: IntendedUse
    on: date
    role: Role
    sources: tuple[SourceUse, ...]
    waivers: tuple[Waiver, ...]
    """Those that count on that day, for that task and teacher."""


def deny(rule: str, terms_id: str | None, text: str) -> Reason:
    """A finding that nothing lifts."""
    return Reason(rule=rule, terms_id=terms_id, text=text, outcome="deny")


def ask(rule: str, terms_id: str | None, text: str, *, duty: str | None = None) -> Reason:
    """A finding that somebody entitled to may lift."""
    return Reason(rule=rule, terms_id=terms_id, text=text, outcome="needs_waiver", duty=duty)


def grant(rule: str, terms_id: str | None, text: str) -> Reason:
    """A finding that nothing stands against it."""
    return Reason(rule=rule, terms_id=terms_id, text=text, outcome="allow")


def remark(rule: str, terms_id: str | None, text: str) -> Reason:
    """Something worth knowing that changes no outcome."""
    return Reason(rule=rule, terms_id=terms_id, text=text, outcome="allow", notice=True)


def quoted(document: TermsDocument) -> str:
    """The clause of a document, to be put behind a finding."""
    return f", {document.quote_location}: “{document.quote}”" if document.quote else ""
