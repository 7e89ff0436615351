"""What a terms file holds: contracts, licences and policies as dated values, and who says so."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

Route: TypeAlias = Literal["api", "consumer", "aggregator", "cloud", "self_hosted", "mock", "imported"]
"""``imported``: nobody was asked; text from outside, whose rights are those of its source."""
Grant: TypeAlias = Literal["allowed", "conditional", "unclear", "prohibited"]
YesNo: TypeAlias = Literal["yes", "no", "unclear"]
DocumentKind: TypeAlias = Literal["api_terms", "consumer_terms", "usage_policy", "model_licence", "host_terms", "own"]
DutyKind: TypeAlias = Literal[
    "attribution",
    "naming",
    "notice_file",
    "license_copy",
    "use_policy_flow_down",
    "share_alike",
    "ai_label",
    "mau_cap",
    "revenue_cap",
    "non_commercial",
    "no_distribution",
    "no_trademark",
    "residency",
]

STRICTNESS: dict[str, int] = {"allowed": 0, "conditional": 1, "unclear": 2, "prohibited": 3}
"""Grants from loose to strict."""

Days: TypeAlias = Annotated[int, Field(ge=0)]


class Part(BaseModel):
    """Anything in a terms file: no field that is not known, no value of another type, never changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class TermsDuty(Part):
    """Something to carry out, or a fact to be true, if outputs under this document are used."""

    kind: DutyKind
    applies_to: Literal["dataset", "student", "service"]
    text: str = Field(min_length=1)
    location: str = Field("", description="The clause that asks for it; empty: not written down")
    words: tuple[str, ...] = Field(
        (),
        description="naming: the student's name begins with one of them; no_trademark: it holds none of them; "
        "attribution, notice_file and ai_label: one of them is said",
    )
    limit: int | None = Field(
        None, ge=1, description="mau_cap: monthly active users; revenue_cap: US dollars a year (a month's times twelve)"
    )
    above: Literal["no_licence", "duty"] = Field(
        "no_licence", description="What holds above the limit: no licence at all, or this duty"
    )
    regions: tuple[str, ...] = Field((), description="residency: whoever is domiciled there is granted nothing")
    models: tuple[str, ...] = Field((), description="Only for these models of the document; empty: all of them")
    roles: tuple[str, ...] = Field((), description="Only where the model is used as this, such as base; empty: anyhow")


class UnpaidTier(Part):
    """What a provider does with what is sent to its unpaid tier."""

    trains_on_inputs: YesNo
    human_readers: YesNo = "unclear"
    retention_days: Days | None = None


class TermsDocument(Part):
    """One version of one contract, policy or licence that a teacher may be under."""

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    overrides: str | None = Field(None, description="Id of a document of an earlier file that this one stands in for")
    supersedes: str | None = Field(None, description="Id of the version before this one")
    provider: str = Field(min_length=1)
    title: str = Field(min_length=1)
    version: str = Field(min_length=1)
    kind: DocumentKind
    effective: date | None = None
    superseded: date | None = None
    routes: tuple[Route, ...] = Field(min_length=1)
    providers: tuple[str, ...] = Field((), description="Only teachers of these providers; empty: any")
    hosts: tuple[str, ...] = Field((), description="Only these hosts; empty: any")
    served_at: tuple[str, ...] = Field(
        (),
        description="By route api only these hosts serve under it: elsewhere it covers nobody, and binds only by what "
        "it prohibits; empty: any",
    )
    models: tuple[str, ...] = Field(min_length=1)
    models_excluded: tuple[str, ...] = ()
    outputs_train: Grant
    outputs_train_competing: Grant
    as_base: Grant | None = Field(
        None, description="Whether a student may begin with these weights; null: as outputs_train_competing"
    )
    written_authorisation: bool = Field(False, description="A prohibition yields to the provider's written consent")
    commercial_use: Grant
    conditions: tuple[str, ...] = ()
    duties: tuple[TermsDuty, ...] = ()
    retention_days: Days | None = Field(None, description="Days that what is sent is kept; null: not known")
    trains_on_inputs: YesNo = Field("unclear", description="Whether the provider trains on what paying customers send")
    unpaid_tier: UnpaidTier | None = Field(None, description="null: nothing is known of an unpaid tier")
    processed_in: tuple[str, ...] = Field((), description="Regions where what is sent is known to be worked on")
    notes: dict[str, str] = Field(default_factory=dict)
    spdx: str
    quote: str = ""
    quote_location: str = ""
    source: str = Field(min_length=1)
    text_sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")
    confidence: Literal["high", "medium", "low"]
    reviewed: date

    def in_force(self, on: date) -> bool:
        """True if this version binds requests of that day."""
        begun = self.effective is None or self.effective <= on
        return begun and (self.superseded is None or on < self.superseded)


class DataLicence(Part):
    """What the licence of a source lets one do with text derived from it."""

    spdx: str
    aliases: tuple[str, ...] = ()
    train: Grant
    redistribute_derived: Grant
    attribution: bool = False
    share_alike: bool = False
    non_commercial: bool = False
    no_derivatives: bool = False
    becomes: tuple[str, ...] = Field((), description="Share-alike licences that derived text may be under instead")
    notice: str | None = None
    source: str | None = None


class AddRule(Part):
    """Documents that join a set which their own globs would not have put them in."""

    name: str
    why: str
    models: tuple[str, ...] = ()
    add: tuple[str, ...] = ()
    add_kind: DocumentKind | None = None


class KnownHost(Part):
    """A host whose route is no secret."""

    host: str
    routes: tuple[Route, ...] = Field(min_length=1)


class KnownTeacher(Part):
    """A teacher that a refusal may suggest."""

    name: str
    provider: str
    model: str
    route: Route
    host: str = ""


class Review(Part):
    """Somebody read a document again; where they say which text they found, it counts only for that text."""

    terms: str
    reviewed: date
    by: str = Field(min_length=1)
    found_text_sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")


class TermsFile(Part):
    """A whole file of terms, shipped or somebody's own."""

    schema_: Literal["corpusgen.terms/1"] | None = Field(None, alias="schema")
    notice: str = ""
    reviewed_by: str = ""
    stale_after_days: int | None = Field(None, ge=1)
    needs_host_terms: tuple[Route, ...] = ()
    known_hosts: tuple[KnownHost, ...] = ()
    always_add: tuple[AddRule, ...] = ()
    known_teachers: tuple[KnownTeacher, ...] = ()
    regions: dict[str, tuple[str, ...]] = Field(
        default_factory=dict, description="What lies in a region: country codes, and regions as clouds spell them"
    )
    documents: tuple[TermsDocument, ...] = ()
    data_licences: tuple[DataLicence, ...] = ()
    reviews: tuple[Review, ...] = ()
    known_gaps: tuple[str, ...] = ()
