"""Estimates: what so many requests come to, low, likely and high, from a sample of them and from settled calls.

High is a bound: every request at its worst case, and asked as often as this teacher's failures made necessary so far.
Likely learns from the same task's settled calls; caps never do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import sqrt
from typing import Literal

from corpusgen.budget.prices import Rate
from corpusgen.corpus import Corpus
from corpusgen.records import Json
from corpusgen.stages.task import Task
from corpusgen.teacher_fields import RateLimits
from corpusgen.teachers.teacher import Teacher

INPUT_OF_BYTES = (0.12, 0.28, 1.0)
"""Low, likely and high share of the byte bound that English prompts use, before this task's own answers are known."""
INPUT_OF_COUNT = (0.4, 0.85, 1.0)
"""The same where tokens are counted exactly and only the framing around them is bounded."""
LIKELY_OUTPUT = 0.4
"""Share of max_tokens that an answer likely takes."""
UNTOLD_RETRIES = 1.3
"""Requests per answer at most, as long as nothing is known of how often this teacher fails."""
LIKELY_WIDER = 0.1
"""Share of labels that are likely asked for again, with more runners-up, as long as none was asked for."""
LIKELY_REPAIRED = 0.05
"""Share of answers that likely do not fit their schema, as long as none was asked for."""
LEARNED_SPREAD = 0.15
START_S = (0.0, 1.0, 4.0)
ROW_S = (0.0002, 0.001, 0.006)
"""Seconds each request takes besides the teacher: keys, reservation, storage."""
UNTOLD_LATENCY_S = (0.0, 1.0, 20.0)
"""Seconds an answer takes, where limits are known and this teacher's answers are not yet."""
OF_LEARNED_TIME = (0.7, 1.0, 1.6)
"""How far latency and processor time may be from their mean so far."""
PACED_HIGH = 1.15
"""What pacing and refusals may add to the time that limits alone would take."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Low, likely and high."""

    low: float
    likely: float
    high: float

    def to_json(self) -> dict[str, Json]:
        """The three figures, rounded up."""
        return {name: -int(-value // 1) for name, value in zip(("low", "likely", "high"), self.figures, strict=True)}

    @property
    def figures(self) -> tuple[float, float, float]:
        """Low, likely, high."""
        return self.low, self.likely, self.high

    @property
    def whole(self) -> Estimate:
        """In whole units, no range narrower than before."""
        return Estimate(low=float(int(self.low)), likely=round(self.likely), high=float(-int(-self.high // 1)))

    def plus(self, other: Estimate) -> Estimate:
        """Both, one after the other."""
        return _of([mine + theirs for mine, theirs in zip(self.figures, other.figures, strict=True)])

    def times(self, factor: float) -> Estimate:
        """So many times as much."""
        return _of([figure * factor for figure in self.figures])


def _of(figures: list[float]) -> Estimate:
    low, likely, high = figures
    return Estimate(low=low, likely=likely, high=high)


NOTHING = Estimate(low=0.0, likely=0.0, high=0.0)


@dataclass(frozen=True, kw_only=True)
class Learned:
    """What this teacher's settled calls for tasks of this name came to."""

    answers: int
    calls: int
    input_share: float
    """Input tokens per token of the input bound."""
    output_tokens: float
    booked_over_settled: float
    """Micro-dollars booked, unconfirmed ones included, per micro-dollar settled."""
    wider: float | None
    latency_s: float
    compute_s: float | None
    """Processor seconds of our own that an answer took; None for a teacher on somebody else's machine."""

    @property
    def spread(self) -> float:
        """How far from the mean so few answers may be."""
        return LEARNED_SPREAD + 1 / sqrt(self.answers)

    @property
    def calls_per_answer(self) -> float:
        """Retries included."""
        return max(1.0, self.calls / self.answers)


def learned_of(corpus: Corpus, task: Task) -> Learned | None:
    """What is known from this teacher's answers to tasks of this name; for estimates, never for caps."""
    asking = task.spec.asking
    # The mean of what calls ask for: the last call about an item asks for the rest of its samples.
    per_call = asking.samples / -(-asking.samples // asking.samples_per_call)
    most = per_call * int(task.teacher.parameters["max_tokens"])
    values = (task.teacher.name, task.spec.name, asking.samples_per_call)
    answers, given, answered, reserved, microseconds, batched, settled, compute_us = corpus.journal.query(
        "select count(*), sum(a.input_tokens), sum(a.output_tokens), sum(c.reserved_tokens),"
        " sum(iif(c.batch_id is null, a.received_us - a.sent_us, 0)), count(c.batch_id), sum(c.microusd),"
        " avg(a.compute_us)"
        " from answers a join calls c using (call_id) join runs r using (run_id) where c.teacher = ? and r.task = ?"
        " and coalesce(json_extract(r.spec, '$.asking.samples_per_call'), 1) = ?",
        values,
    )[0]
    if not answers or reserved - answers * most <= 0:  # none, or asked with another max_tokens
        return None
    calls, unconfirmed = corpus.journal.query(
        "select count(*), coalesce(sum(iif(c.state = 'unknown', c.reserved_microusd, 0)), 0)"
        " from calls c join runs r using (run_id) where c.teacher = ? and r.task = ? and c.state != 'promised'"
        " and coalesce(json_extract(r.spec, '$.asking.samples_per_call'), 1) = ?",
        values,
    )[0]
    records, wider = corpus.journal.query(
        "select count(*), coalesce(sum(request_key != first_key), 0) from records where dataset = ?", (task.spec.name,)
    )[0]
    return Learned(
        answers=answers,
        calls=max(answers, calls - wider),
        input_share=given / (reserved - answers * most),
        output_tokens=answered / answers,
        booked_over_settled=(settled + unconfirmed) / settled if settled else 1.0,
        wider=wider / records if records else None,
        latency_s=microseconds / max(1, answers - batched) / 1e6,
        compute_s=None if compute_us is None else compute_us / 1e6,
    )


@dataclass(frozen=True, kw_only=True)
class PerRequest:
    """Means over a sample of what would be asked."""

    input_bound: float
    longest_input: float
    """The same where an answer that does not fit its schema is asked for again, in the same conversation."""
    most_output: float
    worst_microusd: float


Slowest = Literal["requests_per_second", "requests_per_minute", "tokens_per_minute", "latency"]
"""What decides how long it takes."""


@dataclass(frozen=True, kw_only=True)
class Estimator:
    """Everything an estimate is made from."""

    task: Task
    teacher: Teacher
    rate: Rate
    each: PerRequest
    learned: Learned | None
    in_flight: int

    def requests(self, to_send: int) -> Estimate:
        """Requests for so many answers, those asked again included."""
        wider, learned = self._wider(), self.learned
        if learned is None:
            return Estimate(
                low=to_send, likely=to_send * (1 + wider.likely), high=to_send * (1 + wider.high) * UNTOLD_RETRIES
            ).whole
        rate, spread = learned.calls_per_answer, learned.spread
        return Estimate(
            low=to_send,
            likely=to_send * rate * (1 + wider.likely),
            high=to_send * (1 + (rate - 1) * (1 + spread) + spread) * (1 + wider.high),
        ).whole

    def _wider(self) -> Estimate:
        """The share of answers that may be asked for twice: a label was left out, or a schema not kept to."""
        told, together = None if self.learned is None else self.learned.wider, self.task.spec.asking.samples_per_call
        further = float(together > 1)  # at most one call more for what did not come
        if self.task.schema is not None:
            likely = LIKELY_REPAIRED if told is None else told
            return Estimate(low=0.0, likely=together * likely, high=together + further)
        if further:
            return Estimate(low=0.0, likely=0.0, high=further)
        asked = self.task.teacher.parameters.get("top_logprobs")
        widest = self.teacher.card.capabilities.top_logprobs
        if self.task.spec.kind != "label" or not isinstance(asked, int) or asked >= widest:
            return NOTHING
        return Estimate(low=0.0, likely=LIKELY_WIDER if told is None else told, high=1.0)

    def tokens(self, requests: Estimate) -> Estimate:
        """Tokens of so many requests, input and output together."""
        each = self._input().plus(self._output())
        return _of([count * tokens for count, tokens in zip(requests.figures, each.figures, strict=True)])

    def _input(self) -> Estimate:
        """Input tokens of one request."""
        exact = getattr(self.teacher, "encoding", None) is not None
        low, likely, high = INPUT_OF_COUNT if exact else INPUT_OF_BYTES
        if self.learned is not None:
            spread, likely = self.learned.spread, self.learned.input_share
            low, high = max(0.0, likely * (1 - spread)), min(1.0, likely * (1 + spread))
        shortest, longest = self.each.input_bound, self.each.longest_input
        return Estimate(low=low * shortest, likely=likely * shortest, high=high * longest)

    def _output(self) -> Estimate:
        """Output tokens of one request."""
        most = self.each.most_output
        if self.learned is None:
            return Estimate(low=1.0, likely=max(1.0, most * LIKELY_OUTPUT), high=most)
        likely, spread = self.learned.output_tokens, self.learned.spread
        return Estimate(low=likely * max(0.0, 1 - spread), likely=likely, high=min(most, likely * (1 + spread)))

    def money(self, requests: Estimate) -> Estimate:
        """Micro-dollars that a provider bills for so many requests."""
        if self.rate.free:
            return NOTHING
        given, answered, learned = self._input(), self._output(), self.learned

        def cost(count: float, tokens_in: float, tokens_out: float) -> float:
            return float(self.rate.cost(int(count * tokens_in), int(count * tokens_out)))

        worst = requests.high * self.each.worst_microusd
        high = worst
        if learned is not None:
            # Each call is rounded up for itself, and a failed one stays booked at its worst.
            settled = cost(requests.high, given.high, answered.high) + requests.high
            high = min(worst, settled * learned.booked_over_settled)
        return Estimate(
            low=min(worst, self._cheapest(requests.low, given.low, answered.low)),
            likely=min(high, cost(requests.likely, given.likely, answered.likely) + requests.likely / 2),
            high=high,
        )

    def _cheapest(self, count: float, tokens_in: float, tokens_out: float) -> float:
        """Everything read from the teacher's own cache, at the cheapest tier that may answer."""
        tiers = [tier.base for name, tier in self.rate.tiers.items() if name in self.rate.served]
        figures = [(min(price.input, price.cached_input), price.output) for price in tiers]
        figures.append((self.rate.input_per_mtok, self.rate.output_per_mtok))
        return min(count * (tokens_in * given + tokens_out * answered) / 1e6 for given, answered in figures)

    def compute_s(self, requests: Estimate) -> Estimate | None:
        """Processor seconds of our own for so many requests; None as long as this teacher's are not known."""
        if not requests.high or self.teacher.card.route != "self_hosted":
            return NOTHING
        if self.learned is None or self.learned.compute_s is None:
            return None
        each = self.learned.compute_s
        return _of([count * each * far for count, far in zip(requests.figures, OF_LEARNED_TIME, strict=True)])

    def wall_s(self, requests: Estimate) -> Estimate | None:
        """Seconds of asking, under the limits and the latency seen so far; None as long as neither is known."""
        if not requests.high:
            return NOTHING
        if self.learned is None and self.task.teacher.rate == RateLimits():
            return None
        paced, working = self._paced(requests), self._working(requests)
        return _of([start + max(pair) for start, *pair in zip(START_S, paced.figures, working.figures, strict=True)])

    def _working(self, requests: Estimate) -> Estimate:
        """Seconds that the teacher answers for, so many calls at a time, and that each row takes besides."""
        every = UNTOLD_LATENCY_S
        if self.learned is not None:
            low, likely, high = (self.learned.latency_s * far for far in OF_LEARNED_TIME)
            every = low, likely, high
        low, likely, high = (latency / self.in_flight for latency in every)
        return Estimate(
            low=requests.low * max(low, ROW_S[0]),
            likely=requests.likely * max(likely, ROW_S[1]),
            high=requests.high * (high + ROW_S[2]),
        )

    def _paced(self, requests: Estimate) -> Estimate:
        """Seconds that the limits alone make it take; low begins with a minute's worth unused."""
        each = self._input().plus(self._output())
        worst = self.each.longest_input + self.each.most_output  # what limits may count, whatever is answered
        return Estimate(
            low=self._fastest(requests.low, each.low, unused=1.0)[0],
            likely=self._fastest(requests.likely, each.likely)[0],
            high=self._fastest(requests.high, worst)[0] * PACED_HIGH,
        )

    def _fastest(self, count: float, tokens: float, *, unused: float = 0.0) -> tuple[float, Slowest]:
        """Seconds for so many requests of so many tokens under the limits, and the limit that takes longest."""
        found: list[tuple[float, Slowest]] = [(0.0, "latency"), *self._by_limit(count, tokens, unused)]
        return max(found)

    def _by_limit(self, count: float, tokens: float, unused: float) -> Iterator[tuple[float, Slowest]]:
        limits = self.task.teacher.rate
        if limits.requests_per_second is not None:
            yield max(0.0, count / limits.requests_per_second - unused), "requests_per_second"
        if limits.requests_per_minute is not None:
            yield max(0.0, 60 * (count / limits.requests_per_minute - unused)), "requests_per_minute"
        if limits.tokens_per_minute is not None:
            yield max(0.0, 60 * (count * tokens / limits.tokens_per_minute - unused)), "tokens_per_minute"

    def slowest(self, requests: Estimate) -> Slowest:
        """What likely decides how long it takes: a limit, or the time that answers take."""
        each = self._input().plus(self._output())
        seconds, limit = self._fastest(requests.likely, each.likely)
        return limit if seconds > self._working(requests).likely else "latency"
