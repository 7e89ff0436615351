"""What the API takes and gives; the OpenAPI document is made of these.

Money is integer micro-dollars, times are ISO 8601 in UTC, amounts in seconds of budgets are microseconds.
"""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from corpusgen.fields import MOST, NAME, Per, Unit
from corpusgen.serve.callers import Scope

Amount = Annotated[int, Field(ge=0, le=MOST)]
MOST_REPORTED: Final = 10**12
"""A million dollars under one lease: more is a mistake, or worse."""
Some = Annotated[int, Field(ge=0, le=MOST_REPORTED)]
Key = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="sha256 in hex")]
Text = Annotated[str, Field(max_length=1_000_000)]
Short = Annotated[str, Field(min_length=1, max_length=500)]
Fields = dict[str, Any]


class Taken(BaseModel):
    """A body or a query: these fields and no others."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Told(BaseModel):
    """An answer."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Open(BaseModel):
    """An answer that may say more than what is described here."""

    model_config = ConfigDict(extra="allow", frozen=True)


class Mistake(Open):
    """One mistake of what was sent."""

    field: str
    message: str


class ErrorBody(Open):
    """What is wrong."""

    type: str = Field(description="The kind of error, such as BadRequest, BudgetExhausted or PolicyRefused")
    message: str
    problems: list[Mistake] | None = None
    request_id: str | None = None


class ErrorTold(Told):
    """Why a request was not done."""

    error: ErrorBody


# --- Runs ------------------------------------------------------------------------------------------------------------


class Caps(Taken):
    """Caps by unit; one left out does not bind."""

    microusd: Amount | None = None
    tokens: Amount | None = None
    requests: Amount | None = None
    compute_us: Amount | None = Field(None, description="Processor time of your own machines, in microseconds")
    wall_us: Amount | None = Field(None, description="Time that the run is worked on, in microseconds")

    def by_unit(self) -> dict[Unit, int]:
        """The caps that bind."""
        caps: dict[Unit, int | None] = {
            "microusd": self.microusd,
            "tokens": self.tokens,
            "requests": self.requests,
            "compute_us": self.compute_us,
            "wall_us": self.wall_us,
        }
        return {unit: cap for unit, cap in caps.items() if cap is not None}


class TaskWanted(Taken):
    """A task: either one of the tasks folder, or a spec with its files."""

    task: str | None = Field(None, max_length=500, description="Path of a spec below the tasks folder")
    spec: Annotated[str, Field(max_length=1_000_000)] | Fields | None = Field(
        None, description="A task spec, as YAML text or as an object; its teachers are those of the service, by name"
    )
    files: dict[str, str] = Field(
        {}, max_length=16, description="Files the spec names, by plain name: prompt, seeds as .jsonl or .csv …"
    )


class RunWanted(TaskWanted):
    """A run to begin, or with ``dry_run`` only to be planned."""

    budget: Caps = Caps()
    dry_run: bool = False


class RunQuery(Taken):
    """Which runs are listed."""

    limit: Annotated[int, Field(ge=1, le=1000)] = 100
    before: str | None = Field(None, max_length=64, description="Id of the last run that is known already")


class TaskTold(Told):
    """A task that may be submitted by name."""

    task: str
    name: str | None
    kind: str | None
    description: str | None
    teachers: list[str]
    problem: str | None = Field(description="What is wrong with its file, if anything")


class TasksTold(Told):
    """Tasks that may be submitted by name."""

    tasks: list[TaskTold]


class DropTold(Told):
    """Items that were dropped for one reason."""

    stage: str
    reason: str
    items: int
    example: str | None


class ProgressTold(Told):
    """How far a run is at this moment."""

    stage: str | None = Field(description="What is being done; null where nobody in this process works on it")
    done: int
    total: int | None
    in_flight: int
    known: int | None = Field(description="Answers that were known already")
    rate_per_s: float
    eta_s: float | None
    requests: int
    settled_microusd: int
    promised_microusd: int
    unconfirmed_microusd: int
    cap_microusd: int | None
    tokens: int
    tokens_cap: int | None
    saved_microusd: int = Field(description="What the answers that were known would have cost")
    drops: list[DropTold]
    note: str


class RunTold(Told):
    """A submitted run."""

    id: str
    task: str
    state: Literal["waiting", "running", "complete", "partial", "exhausted", "refused", "failed", "cancelled"]
    run_id: str | None = Field(description="The run of the corpus that it is, once it has begun")
    source: Fields
    user: str
    budget: dict[str, int]
    submitted: datetime
    began: datetime | None
    ended: datetime | None
    cancelling: bool
    reason: str | None = Field(description="Why it ended as it did")
    error: str | None
    result: Fields | None


class RunWatched(RunTold):
    """A submitted run and how far it is."""

    progress: ProgressTold
    spec: str = Field(description="The spec as it was submitted")


class RunsTold(Told):
    """Submitted runs, the newest first."""

    runs: list[RunTold]


class RangeTold(Open):
    """An estimate."""

    low: float
    likely: float
    high: float


class PlanTold(Open):
    """What a run would ask and cost, and what the terms say."""

    task: str
    teacher: str
    policy: Literal["allow", "needs_waiver", "deny"]
    refusal: str | None = Field(description="Rule, clause and what to do, where the terms do not allow it")
    requests: int
    known: int
    to_send: int
    microusd: RangeTold
    tokens: RangeTold
    teachers: list[Fields]


class Submitted(Told):
    """The run that was begun, or the plan that was asked for."""

    run: RunTold | None
    plan: PlanTold | None


# --- Money -----------------------------------------------------------------------------------------------------------


class BalanceTold(Told):
    """What one scope has used of one unit."""

    scope: str
    unit: Literal["microusd", "tokens", "requests", "compute_us", "wall_us"]
    per: Per
    settled: int
    promised: int
    unconfirmed: int
    leased: int = Field(description="Part of what is promised that is lent and not used yet")
    cap: int | None
    left: int | None
    origin: str | None


class BudgetsTold(Told):
    """Balances with their caps."""

    balances: list[BalanceTold]
    warnings: list[str] = []


class BudgetWanted(Taken):
    """Caps to put in force for a scope; null takes one away, one left out stays."""

    scope: Annotated[str, Field(min_length=1, max_length=200)] = Field(
        description="corpus, service, teacher:NAME, user:NAME, token:ID or run:ID"
    )
    per: Per = "total"
    caps: dict[Unit, Amount | None] = Field(min_length=1)


class StatusTold(Open):
    """The corpus in figures, as ``corpusgen status --json`` tells it; money in micro-dollars."""

    records: int
    shards: int
    in_flight: int


# --- Leases and answers for other machines ---------------------------------------------------------------------------


class AmountsWanted(Taken):
    """So much of each unit."""

    microusd: Some = 0
    tokens: Some = 0
    requests: Some = 0
    compute_us: Amount = 0


RunLabel = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]


class LeaseWanted(Taken):
    """A share of the budget, to be used by another process."""

    teacher: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:@/-]{0,199}$")]
    amounts: AmountsWanted
    seconds: Annotated[float, Field(ge=1, le=86_400)] = 60.0
    run: RunLabel | None = Field(None, description="Books it on run:USER/NAME as well, USER being the token's")
    scopes: list[Annotated[str, Field(max_length=200)]] = Field(
        [], max_length=8, description="Where it is to be booked, for whoever wants to be sure; others are refused"
    )
    run_caps: Caps | None = Field(None, description="Caps of run:USER/NAME, put in force if it has none yet")


class LeaseRenewal(Taken):
    """How long a lease goes on, from now."""

    seconds: Annotated[float, Field(ge=1, le=86_400)] = 60.0


class AmountsTold(Told):
    """So much of each unit."""

    microusd: int
    tokens: int
    requests: int
    compute_us: int


class LeaseTold(Told):
    """A lease."""

    lease: int
    teacher: str
    run: str | None
    scopes: list[str]
    granted: AmountsTold
    left: AmountsTold
    expires: datetime
    state: Literal["open", "returned", "overdue"] = Field(
        description="overdue: nobody said what was used, so all of it is booked as unconfirmed"
    )


class LeasesTold(Told):
    """Leases, the newest first."""

    leases: list[LeaseTold]


class CallReport(Taken):
    """One call that was made under a lease."""

    request_key: Key
    state: Literal["settled", "unknown"] = Field(
        description="unknown: sent, and nobody knows whether it was billed; its figures are the worst case"
    )
    microusd: Some = 0
    tokens: Some = 0
    requests: Annotated[int, Field(ge=0, le=1_000_000)] = 1
    compute_us: Amount = 0
    price_version: Annotated[str, Field(max_length=300)] = ""
    provider_request_id: Annotated[str, Field(max_length=300)] | None = None


class LeaseReturn(Taken):
    """What was used of a lease: call by call, or the totals. What is not reported is free again."""

    calls: list[CallReport] = Field([], max_length=10_000)
    totals: AmountsWanted | None = None


class LeaseReturned(Told):
    """What was booked."""

    lease: int
    settled: AmountsTold
    unconfirmed: AmountsTold
    freed: AmountsTold
    overrun: AmountsTold = Field(description="What of it was beyond what was lent: booked on the token alone")
    calls: list[int] = Field(description="Numbers of the calls in the ledger, in the order of the report")


class AnswersWanted(Taken):
    """Requests whose answers are looked for."""

    keys: list[Key] = Field(min_length=1, max_length=256)


class CardTaken(Taken):
    """Who answered, by which road, under which terms."""

    teacher: Short
    provider: Annotated[str, Field(max_length=200)]
    model: Annotated[str, Field(max_length=300)]
    route: Annotated[str, Field(max_length=50)]
    host: Annotated[str, Field(max_length=300)]
    identity: Annotated[str, Field(max_length=300)]
    revision: Annotated[str, Field(max_length=300)]
    terms_set_id: Annotated[str, Field(max_length=200)]
    terms_ids: list[Annotated[str, Field(max_length=200)]] = Field(max_length=100)
    outputs_train: Annotated[str, Field(max_length=50)]


class AnswerTaken(Taken):
    """A stored answer: who gave it, what it cost, and the reply as it came over the wire."""

    request_key: Key
    card: CardTaken
    input_tokens: Amount
    cached_input_tokens: Amount = 0
    output_tokens: Amount
    reasoning_tokens: Amount | None = None
    cost_microusd: Amount
    price_version: Annotated[str, Field(max_length=300)]
    provider_request_id: Annotated[str, Field(max_length=300)] | None = None
    sent: datetime = Field(strict=False)
    received: datetime = Field(strict=False)
    compute_us: Amount | None = None
    body: str = Field(description="The reply's bytes in base64")


class AnswerTold(AnswerTaken):
    """A known answer."""


class AnswersTold(Told):
    """Known answers; ``left_off`` are keys of those that would have made this too large: ask for them again."""

    answers: list[AnswerTold]
    left_off: list[Key]


class AnswerOffered(AnswerTaken):
    """An answer with the request it is to, in its canonical form; the request's sha256 must be its key."""

    request: Fields


class AnswersOffered(Taken):
    """Answers to calls that were reported under a lease of the same token."""

    answers: list[AnswerOffered] = Field(min_length=1, max_length=256)


class Offer(Told):
    """What became of one offered answer."""

    request_key: Key
    kept: bool
    why: str = Field(description="Empty where it was kept")


class OffersTold(Told):
    """What became of each."""

    answers: list[Offer]


Holder = Annotated[
    str, Field(pattern=r"^[0-9a-f]{0,64}$", description="Tells apart processes that come with the same token")
]


class ClaimsWanted(Taken):
    """Requests that are about to be asked, so that no other machine asks them meanwhile."""

    keys: list[Key] = Field(min_length=1, max_length=256)
    seconds: Annotated[float, Field(ge=1, le=3600)] = 120.0
    holder: Holder = ""


class ClaimsReleased(Taken):
    """Requests that are asked no more."""

    keys: list[Key] = Field(min_length=1, max_length=256)
    holder: Holder = ""


class ClaimsTold(Told):
    """Which are the caller's now, which somebody else asks, and which have an answer already."""

    claimed: list[Key]
    busy: list[Key]
    answered: list[Key]


# --- Datasets, records, students -------------------------------------------------------------------------------------


class DatasetTold(Told):
    """One version of a dataset."""

    dataset: str = Field(description="Name and version: words-1a2b3c4d")
    name: str
    version: str
    status: str
    rows: int
    splits: dict[str, int]
    licence: list[str] = Field(description="SPDX expressions of its rows, once it is sealed")
    made: datetime
    manifest_sha256: str | None


class DatasetsTold(Told):
    """Versions of datasets, by name, the newest of each first."""

    datasets: list[DatasetTold]


class DatasetWhole(DatasetTold):
    """A version with its funnel and files."""

    funnel: dict[str, int]
    files: Fields


class DatasetWanted(TaskWanted):
    """A new version of a task's dataset; its task (or spec) says how answers are judged, and is needed to seal it."""

    dataset: Annotated[str, Field(pattern=NAME)] = Field(description="The task's name")
    run_id: Annotated[str, Field(max_length=100)] | None = Field(None, description="Only records of this run")
    split: Annotated[str, Field(max_length=50)] = "train"
    min_confidence: Annotated[float, Field(ge=0, le=1)] = 0.0
    keep_truncated: bool = False
    limit: Annotated[int, Field(ge=1, le=10**9)] | None = None
    uncurated: bool = Field(False, description="Leave the curate: section of the records' spec out")
    seal: bool = Field(False, description="Seal it at once, if today's terms allow that a student learns from it")


class RecordTold(Open):
    """A record: where it stands, and its texts, which come from strangers."""

    record: Fields
    text: Fields


class StoryTold(RecordTold):
    """A record's story from source to student, and the same in PROV-JSON."""

    sources: list[Fields]
    run: Fields | None
    requests: list[Fields]
    verdicts: list[Any]
    parents: list[Fields]
    children: list[Fields]
    datasets: list[Fields]
    students: list[Fields]
    releases: list[Fields]
    prov: Fields
    notice: str


class StudentTold(Told):
    """A trained student."""

    student_id: str
    dataset: str
    run_id: str
    trained: datetime
    facts: Fields
    evaluation: Fields


class StudentsTold(Told):
    """Students, the newest first."""

    students: list[StudentTold]


class ServingTold(Told):
    """A student that answers here, and what it has done since the service began."""

    name: str = Field(description="Clients write it after student/")
    student_id: str
    task: str | None
    dataset: str | None
    labels: list[str]
    threshold: float = Field(description="How sure it must be to answer")
    teacher: str | None = Field(description="Model that is asked where it is not")
    answered: int
    abstained: int
    escalated: int = Field(description="Of those it abstained from, the ones its teacher was asked")
    unfit: int = Field(description="Of those it abstained from, calls that no student can answer")
    anomalies: int = Field(description="Inputs stranger than those it was trained on")
    refused: str | None = Field(description="Why it answers no more")
    drift: float | None = Field(description="Jensen-Shannon divergence of late answers, in bits; null for few inputs")
    drift_threshold: float
    drift_window: int
    drift_inputs: int = Field(description="Inputs of late that drift is told from")
    drifted: bool
    anomaly_bound: float | None = Field(description="Share of unseen n-grams from which on an input is an anomaly")
    measured_by: int = Field(description="Items of its dataset that drift is measured by")


class ServingsTold(Told):
    """Students that answer here as models."""

    serving: list[ServingTold]


# --- Rights ----------------------------------------------------------------------------------------------------------


class ParameterTold(Told):
    """One thing a question is asked of."""

    name: str
    type: str
    default: str
    meaning: str


class QuestionTold(Told):
    """A question of the audit."""

    number: str
    name: str
    title: str
    answer: str
    cannot_tell: str
    parameters: list[ParameterTold]
    passes_when_empty: bool


class QuestionsTold(Told):
    """All questions."""

    questions: list[QuestionTold]
    notice: str


class AuditAsked(Taken):
    """What a question is asked of, and in which form the answer comes."""

    parameters: dict[str, Annotated[str, Field(max_length=1000)]] = Field({}, max_length=20)
    format: Literal["json", "csv", "markdown"] = "json"


class AuditTold(Open):
    """The answer to a question."""

    question: str
    name: str
    title: str
    columns: list[str]
    rows: list[Any]
    notes: list[str]
    problems: list[str]
    passes: bool | None
    notice: str


class PageQuery(Taken):
    """A part of a list."""

    limit: Annotated[int, Field(ge=1, le=1000)] = 100
    before: Annotated[int, Field(ge=1, le=2**62)] | None = Field(None, description="Number of the last one known")


class DecisionTold(Told):
    """What the policy decided, once."""

    decision_id: int
    run_id: str
    stage: str
    subject: str
    outcome: str
    decided: datetime
    decision: Fields


class DecisionsTold(Told):
    """Decisions, the newest first."""

    decisions: list[DecisionTold]


class WaiverTold(Open):
    """A waiver and what hangs on it."""

    waiver_id: str
    terms_ids: list[str]
    rules: list[str]
    granted_by: str
    reason: str
    in_force: bool


class WaiversTold(Told):
    """All waivers."""

    waivers: list[WaiverTold]


class WaiverWanted(Taken):
    """What somebody entitled to accepts, who is whoever calls."""

    terms_ids: list[Short] = Field(min_length=1, max_length=50)
    rules: list[Annotated[str, Field(max_length=20)]] = Field([], max_length=50)
    task: Annotated[str, Field(max_length=200)] | None = None
    teacher: Annotated[str, Field(max_length=200)] | None = None
    reason: Annotated[str, Field(min_length=1, max_length=5000)]
    evidence: str = Field(min_length=1, description="The file that shows it, in base64; only its sha256 is kept")
    until: date = Field(strict=False, description="Last day (UTC) on which it counts")


class WaiverEnded(Told):
    """A waiver that was taken back."""

    waiver_id: str
    ended: bool


class TermsTold(Told):
    """Terms documents that count here."""

    terms: list[Fields]


class TermsShown(Open):
    """One terms document."""


class ExplanationTold(Open):
    """What the terms say of a task, teacher by teacher."""

    task: str
    outcome: Literal["allow", "needs_waiver", "deny"]
    teachers: list[Fields]
    notice: str


# --- Questions and files ---------------------------------------------------------------------------------------------


class QueryAsked(Taken):
    """One SQL question about the corpus."""

    sql: Annotated[str, Field(min_length=1, max_length=20_000)]
    format: Literal["json", "jsonl", "csv", "parquet"] = "json"
    seconds: Annotated[float, Field(gt=0, le=60)] = 30.0
    rows: Annotated[int, Field(ge=1, le=100_000)] = 10_000


class QueryTold(Told):
    """The answer to a question."""

    columns: list[str]
    types: list[str]
    rows: list[Any]
    truncated: bool


class SchemaQuery(Taken):
    """Of which table the columns are told; of all without it."""

    table: Annotated[str, Field(max_length=100)] | None = None


class SchemaTold(Open):
    """Tables and columns that can be asked."""


class ExportWanted(Taken):
    """A sealed dataset in another form, or a document about it."""

    dataset: Short
    to: Literal["chat", "card", "croissant", "spdx", "eu-2.5", "ab2013", "nist-600-1", "notice", "dataset"] = Field(
        description="chat: rows as trainers read them; dataset: its folder as a tar; the others describe it"
    )
    format: Literal["jsonl", "parquet"] = Field("jsonl", description="Of to: chat")
    split: Annotated[str, Field(max_length=50)] = "train"
    task: Annotated[str, Field(max_length=500)] | None = Field(
        None, description="The spec it was made with, below the tasks folder; documents need it"
    )


# --- Tokens ----------------------------------------------------------------------------------------------------------


class TokenWanted(Taken):
    """A token to be made."""

    name: Annotated[str, Field(min_length=1, max_length=64)]
    user: Annotated[str, Field(min_length=1, max_length=128)]
    scopes: list[Scope] = Field(min_length=1, max_length=5)
    days: Annotated[int, Field(ge=1, le=3650)] | None = 90
    task: Annotated[str, Field(pattern=NAME)] | None = None
    intended_use: dict[str, Any] | None = None
    may_name_users: bool = False
    caps: Caps | None = None
    per: Per = "total"


class TokenTold(Told):
    """A token, without its secret."""

    token_id: str
    name: str
    user: str
    scopes: list[Scope]
    task: str | None
    state: str
    created: datetime
    expires: datetime | None
    revoked: datetime | None
    used: datetime | None


class TokenMade(TokenTold):
    """A new token with its secret, which is told this once."""

    secret: str


class TokensTold(Told):
    """Every token there ever was."""

    tokens: list[TokenTold]


class EventsQuery(Taken):
    """From where events are told."""

    since: Annotated[int, Field(ge=0, le=2**62)] | None = Field(
        None, description="Id of the last event that is known, as Last-Event-ID"
    )
