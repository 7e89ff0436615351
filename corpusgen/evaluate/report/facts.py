"""Everything the report page shows, as plain numbers and strings.

Shares are between 0 and 1, money is integer micro-dollars, processor time is milliseconds per item, times are UTC.
Whatever a run did not measure is None, and its section is left out of the page.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeAlias

Role: TypeAlias = Literal["teacher", "student", "neither"]
"""Whose number it is; decides colour and mark."""

AimUnit: TypeAlias = Literal["share", "ratio", "count"]
PlanUnit: TypeAlias = Literal["count", "microusd", "seconds"]


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A measured share with its 95 % interval; ``low`` and ``high`` are None when no interval was computed."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, kw_only=True)
class Aim:
    """One thing the run wanted to reach. ``at_least`` False means that ``wanted`` is a ceiling."""

    name: str
    wanted: float
    reached: float
    unit: AimUnit = "share"
    at_least: bool = True

    @property
    def met(self) -> bool:
        """True when the aim was reached; a number that is not one never is."""
        return self.reached >= self.wanted if self.at_least else self.reached <= self.wanted


@dataclass(frozen=True, kw_only=True)
class Discordant:
    """Gold items only one of the two got right, and the exact p-value (McNemar) that they are equally good."""

    only_teacher: int
    only_student: int
    p_value: float


@dataclass(frozen=True, kw_only=True)
class Headline:
    """How good the student is, against gold and against its teacher.

    ``retention`` is student accuracy over teacher accuracy, with a paired-bootstrap interval; it may exceed 1.
    ``majority`` is the accuracy of always naming the commonest class; ``unanswered`` counts gold items to which the
    teacher gave no label, which count as wrong.
    """

    teacher_name: str
    student_name: str
    teacher: Estimate
    student: Estimate
    agreement: Estimate
    retention: Estimate
    teacher_macro_f1: float | None
    student_macro_f1: float | None
    gold_items: int
    labels_asked: int
    majority: float | None = None
    unanswered: int = 0
    discordant: Discordant | None = None
    aims: tuple[Aim, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Spend:
    """What the budget's ledger says at the end of the run, for each unit: settled, promised, unconfirmed, cap.

    Settled was paid for an answer we hold; promised is reserved for calls under way; unconfirmed left the machine
    with unknown outcome and counts in full. A cap of None means that no cap was set.
    """

    settled_microusd: int
    promised_microusd: int
    unconfirmed_microusd: int
    cap_microusd: int | None
    settled_tokens: int
    promised_tokens: int
    unconfirmed_tokens: int
    cap_tokens: int | None
    requests: int
    cap_requests: int | None
    from_cache: int = 0
    saved_microusd: int = 0
    free_teacher: bool = False
    compute_us: tuple[int, int, int] = (0, 0, 0)
    """Processor time of one's own machines: settled, unconfirmed, promised."""
    cap_compute_us: int | None = None
    trained_us: int = 0
    """How much of it students took to learn."""
    compute_microusd: int | None = None
    """What it is worth to its owner; billed by nobody, and in none of the figures above."""
    wall_us: int = 0
    cap_wall_us: int | None = None


@dataclass(frozen=True, kw_only=True)
class PlanLine:
    """One forecast and what became of it, in ``unit`` (counts also stand for tokens and requests)."""

    name: str
    unit: PlanUnit
    low: float
    likely: float
    high: float
    actual: float


@dataclass(frozen=True, kw_only=True)
class Loss:
    """Why some items did not go on. ``set_aside`` True: not wanted this time, as opposed to thrown out."""

    reason: str
    count: int
    set_aside: bool = False


@dataclass(frozen=True, kw_only=True)
class FunnelStep:
    """What is left after one step, and what the step took away."""

    name: str
    left: int
    losses: tuple[Loss, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Drop:
    """One reason for which items or answers were dropped; ``example`` is shown as text."""

    stage: str
    reason: str
    count: int
    example: str | None = None


@dataclass(frozen=True, kw_only=True)
class LabelBalance:
    """Teacher labels counted in the training set and in the seeded random sample of the pool, in one order."""

    labels: tuple[str, ...]
    training: tuple[int, ...]
    random_sample: tuple[int, ...]
    seed: int | None = None


@dataclass(frozen=True, kw_only=True)
class CoverageHole:
    """A part of the pool of which nothing or little was chosen: its telling words, its items, some of their names.

    ``x``, ``y`` and ``reach`` are its middle and mean extent on the map.
    """

    words: tuple[str, ...]
    items: int
    chosen: int
    x: float
    y: float
    reach: float
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Variety:
    """How varied a set of items is; not a number, or None, where there were too few to say.

    ``vendi`` is how many different items they are worth, distances are from 0 (equal) to 2 (opposite), ``radius`` is
    how far the pool's farthest item is from the nearest of these.
    """

    items: int
    parts_reached: int
    vendi: float
    mean_nearest: float
    radius: float
    distinct: float | None = None
    compression: float | None = None
    self_repetition: float | None = None


@dataclass(frozen=True, kw_only=True)
class StratumCoverage:
    """How many items of one kind are in the pool, and how many were chosen."""

    name: str
    pool: int
    chosen: int


Spots: TypeAlias = tuple[tuple[float, float], ...]
"""Places on a map."""


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """What the chosen items cover of their pool, beside as many drawn at random; a bounded number of them is drawn.

    The pool is what was chosen and what was passed over. ``parts`` are the clusters it was cut into, ``explained`` is
    the share of all differences between items that the map shows, ``vectors`` says what items were compared by.
    """

    chosen: Variety
    random: Variety
    passed_over: int
    dropped: int
    held_out: int
    parts: int
    explained: float
    vectors: str
    chosen_at: Spots = ()
    passed_over_at: Spots = ()
    dropped_at: Spots = ()
    held_out_at: Spots = ()
    holes: tuple[CoverageHole, ...] = ()
    more_holes: int = 0
    strata: tuple[StratumCoverage, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ReliabilityBin:
    """Answers given with a confidence from ``low`` to ``high``: how sure on average, how often right, how many."""

    low: float
    high: float
    confidence: float
    accuracy: float
    count: int


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """How far stated confidence and accuracy lie apart; ``ece`` is the expected calibration error (a share)."""

    name: str
    role: Role
    ece: float
    bins: tuple[ReliabilityBin, ...]
    brier: float | None = None


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """Counts of (gold class, answered class): ``counts[gold][answered]``. Answers without a label are left out.

    ``items`` are the gold items of each class, unanswered ones included; None when all of them were answered.
    """

    name: str
    role: Role
    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    items: tuple[int, ...] | None = None

    def gold_items(self, at: int) -> int:
        """How many gold items the class has."""
        return sum(self.counts[at]) if self.items is None else self.items[at]


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """The student after one round. ``gold_accuracy`` is measured afterwards and never steers the run.

    ``expected`` is the agreement that one round more was expected to gain, with its 80 % interval, where that steered
    the run.
    """

    round: int
    labels: int
    agreement: float
    gold_accuracy: float | None
    chosen_by: str
    expected: Estimate | None = None


@dataclass(frozen=True, kw_only=True)
class LearningCurve:
    """Labels asked against quality. ``agreement`` is counted on ``heldout_items`` with teacher labels.

    ``ended`` says why no more was asked; it is empty where that was no decision.
    """

    points: tuple[CurvePoint, ...]
    heldout_items: int
    teacher_accuracy: float | None = None
    target_accuracy: float | None = None
    ended: str = ""


@dataclass(frozen=True, kw_only=True)
class CalibrationCandidate:
    """One way of turning label log-probabilities into an answer, and how it did on validation."""

    name: str
    accuracy: float
    chosen: bool
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class CalibrationChoice:
    """The candidates that were compared, on how many validation items."""

    candidates: tuple[CalibrationCandidate, ...]
    validation_items: int
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class MillionRow:
    """What a million items cost. ``cpu_hours`` is None for a teacher on somebody else's machine."""

    name: str
    role: Role
    cpu_hours: float | None
    microusd: int
    basis: str


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Processor milliseconds per item, measured in this run, and what a million items would cost.

    A teacher on somebody else's machine has no processor time and no ratio. ``break_even_items`` is how many items the
    student must answer to earn back teaching it; infinity means never. ``teacher_microusd`` and ``student_microusd``
    are for one item, ``fixed_microusd`` is what the teaching came to.
    """

    teacher_cpu_ms: float | None
    student_cpu_ms: float
    student_cpu_ms_batch1: float
    ratio: float | None
    ratio_batch1: float | None
    items_measured: int
    shadow_microusd_per_cpu_hour: int
    million: tuple[MillionRow, ...]
    break_even_items: float | None = None
    teacher_microusd: float | None = None
    student_microusd: float | None = None
    fixed_microusd: float | None = None


@dataclass(frozen=True, kw_only=True)
class HistogramBin:
    """How many answers lie from ``low`` (included) to ``high`` (excluded)."""

    low: float
    high: float
    count: int


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One generated text; both strings are shown as text. ``mean_logprob`` is in natural logarithms per token."""

    prompt: str
    output: str
    tokens: int
    mean_logprob: float | None
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Generation:
    """What free text looks like: lengths in tokens, mean token log-probability (natural logarithm), samples."""

    items: int
    truncated: int
    mean_tokens: float
    lengths: tuple[HistogramBin, ...]
    mean_logprob: float | None
    logprobs: tuple[HistogramBin, ...] = ()
    samples: tuple[Sample, ...] = ()
    distinct_outputs: int | None = None


@dataclass(frozen=True, kw_only=True)
class TermsDocument:
    """A document that governs a teacher's answers. ``effective`` is a date as written, ``location`` shown as text."""

    title: str
    version: str
    effective: str
    licence: str = ""
    location: str = ""


@dataclass(frozen=True, kw_only=True)
class ServedModel:
    """A model that answered, as its server calls it; None where the server names none."""

    name: str | None
    records: int
    another: bool
    """Whether it is neither the one that was asked nor a dated version of it."""


@dataclass(frozen=True, kw_only=True)
class TeacherFacts:
    """One teacher as it was reached: model, route, host, what its terms say and which duties follow."""

    name: str
    model: str
    route: str
    host: str
    outputs_train: str
    documents: tuple[TermsDocument, ...]
    duties: tuple[str, ...] = ()
    weights_digest: str | None = None
    served: tuple[ServedModel, ...] = ()
    """Whose answers its records are."""


@dataclass(frozen=True, kw_only=True)
class SourceFacts:
    """Where inputs came from and what their licence asks."""

    name: str
    licence: str
    items: int
    digest: str
    duties: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What the policy said before anything was sent: for which role, by which rule, why."""

    subject: str
    role: str
    answer: Literal["allow", "deny", "needs_waiver"]
    rule: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Who answered, under which terms, from which sources; ``digests`` and ``versions`` are (name, value) pairs."""

    intended_use: str
    licence_expression: str
    teachers: tuple[TeacherFacts, ...]
    sources: tuple[SourceFacts, ...]
    decisions: tuple[Decision, ...]
    digests: tuple[tuple[str, str], ...]
    versions: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class RunReport:
    """Everything one page shows of one run; a part that is None or empty is left out."""

    task: str
    description: str
    run_id: str
    finished: datetime
    wall_s: float
    headline: Headline | None = None
    cost: Cost | None = None
    curve: LearningCurve | None = None
    confusions: tuple[Confusion, ...] | None = None
    reliability: tuple[Reliability, ...] | None = None
    calibration: CalibrationChoice | None = None
    funnel: tuple[FunnelStep, ...] | None = None
    balance: LabelBalance | None = None
    drops: tuple[Drop, ...] | None = None
    coverage: Coverage | None = None
    spend: Spend | None = None
    plan: tuple[PlanLine, ...] | None = None
    generation: Generation | None = None
    provenance: Provenance | None = None
    limitations: tuple[str, ...] = ()
