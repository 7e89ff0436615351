"""Planning: what a run would ask, cost and take, before anything is sent.

An estimate is low, likely and high. High is a bound: every request at its worst case, and asked as often as this
teacher's failures made necessary so far. Likely learns from the same task's settled calls; caps never do.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import sqrt

from corpusgen.budget.prices import Rate
from corpusgen.corpus import Corpus
from corpusgen.curation.active import first_round
from corpusgen.prompting.prompts import Item, Prompt, prompts
from corpusgen.provenance.policy import Decision
from corpusgen.records import Json, Request, Split
from corpusgen.spec import Unit
from corpusgen.stages.asking import unique_pool
from corpusgen.stages.opening import caps_of, judge
from corpusgen.stages.task import Task, connect, price_of, request_for
from corpusgen.store.answers import known_answers, known_records
from corpusgen.store.shared_cache import SharedCache, open_shared_cache
from corpusgen.teachers.teacher import Teacher

SAMPLE = 1_000
"""Requests that are measured, spread over all that will be asked, to estimate the others."""
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
LEARNED_SPREAD = 0.15
LOOKUP = 256
START_S = (0.0, 1.0, 4.0)
ROW_S = (0.0002, 0.001, 0.006)
"""Seconds each request takes besides the teacher: keys, reservation, storage."""


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


@dataclass(frozen=True, kw_only=True)
class SplitPlan:
    """One split: items in the file, items left after repeats, how many will be asked, how many are answered."""

    split: Split
    read: int
    unique: int
    asked: int
    known: int
    shared: int = 0
    """Answers that the shared cache holds."""

    @property
    def to_send(self) -> int:
        """Answers that are still to be bought."""
        return max(0, self.asked - self.known - self.shared)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run would do. Estimates cover only what is still to be sent."""

    teacher: str
    decision: Decision
    splits: tuple[SplitPlan, ...]
    requests: Estimate
    """Requests that will be sent, those asked again included."""
    tokens: Estimate
    microusd: Estimate
    wall_s: Estimate | None
    caps: Mapping[Unit, int]
    in_flight: int

    @property
    def to_send(self) -> int:
        """Answers that are still to be bought."""
        return sum(split.to_send for split in self.splits)

    def to_json(self) -> dict[str, Json]:
        """The plan for machines."""
        return {
            "teacher": self.teacher,
            "policy": self.decision.outcome,
            "terms": list(self.decision.terms_ids),
            "licence_expression": self.decision.licence_expression,
            "duties": [f"{duty.kind} on the {duty.applies_to}: {duty.text}" for duty in self.decision.duties],
            "requests": sum(split.asked for split in self.splits),
            "unique": sum(split.unique for split in self.splits),
            "known": sum(split.known for split in self.splits),
            "shared": sum(split.shared for split in self.splits),
            "to_send": self.to_send,
            "requests_range": self.requests.to_json(),
            "splits": {
                split.split: {
                    "read": split.read,
                    "unique": split.unique,
                    "asked": split.asked,
                    "known": split.known,
                    "to_send": split.to_send,
                }
                for split in self.splits
            },
            "tokens": self.tokens.to_json(),
            "microusd": self.microusd.to_json(),
            "wall_s": None if self.wall_s is None else self.wall_s.to_json(),
            "caps": dict(self.caps),
        }


async def plan(task: Task, corpus: Corpus, *, caps: Mapping[Unit, int] | None = None) -> Plan:
    """What a run of this task would do here and now. Sends nothing."""
    teacher = connect(task, corpus.clock)
    rate = price_of(task, corpus.clock().date())
    cache = None if rate.free else open_shared_cache(os.environ)
    try:
        planner = _Planner(task=task, corpus=corpus, teacher=teacher, rate=rate, cache=cache)
        return await planner.plan(caps or {})
    finally:
        await teacher.aclose()
        if cache is not None:
            await cache.aclose()


@dataclass(frozen=True, kw_only=True)
class _Learned:
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

    @property
    def spread(self) -> float:
        """How far from the mean so few answers may be."""
        return LEARNED_SPREAD + 1 / sqrt(self.answers)

    @property
    def calls_per_answer(self) -> float:
        """Retries included."""
        return max(1.0, self.calls / self.answers)


@dataclass(frozen=True, kw_only=True)
class _PerRequest:
    """Means over a sample of what would be asked."""

    input_bound: float
    most_output: int
    worst_microusd: float


@dataclass(frozen=True, kw_only=True)
class _Planner:
    task: Task
    corpus: Corpus
    teacher: Teacher
    rate: Rate
    cache: SharedCache | None
    sampled: list[Request] = field(default_factory=list)

    async def plan(self, caps: Mapping[Unit, int]) -> Plan:
        task = self.task
        pool = unique_pool(task)
        splits = [await self._split("train", self._candidates(pool.items), len(pool.items), pool.read)]
        if task.spec.kind == "label":  # only labels can be right or wrong
            for split in ("validation", "gold"):
                items = list(task.prompter.items(split))
                splits.append(await self._split(split, items, len(items), len(items)))
        to_send = sum(split.to_send for split in splits)
        learned, each = _learned(self.corpus, task), self._per_request()
        requests = self._requests(to_send, learned)
        in_flight = task.teacher.in_flight or self.teacher.card.in_flight
        return Plan(
            teacher=task.teacher.name,
            decision=judge(task, self.teacher.card, self.corpus.clock().date()),
            splits=tuple(splits),
            requests=requests,
            tokens=self._tokens(requests, each, learned).whole,
            microusd=self._money(requests, each, learned).whole,
            wall_s=_wall(requests, learned, in_flight),
            caps={cap.unit: cap.cap for cap in caps_of(task, caps)},
            in_flight=in_flight,
        )

    def _candidates(self, items: Sequence[Item]) -> Sequence[Item]:
        """The items of the pool that may be asked about: which ones exactly, only ``margin`` cannot tell yet."""
        asking = self.task.spec.asking
        if asking.order == "file":
            return items[: asking.limit]
        if asking.order == "random":
            ids = [item.item_id for item in items]
            return [items[at] for at in first_round(ids, count=asking.limit, seed=asking.seed)]
        return items

    async def _split(self, split: Split, items: Sequence[Item], unique: int, read: int) -> SplitPlan:
        samples = self.task.spec.asking.samples
        most = self.task.spec.asking.limit if split == "train" else len(items)
        known = shared = 0
        for chunk in _chunks(self._prompts(items)):
            left = self._unanswered(chunk)
            found = await self._elsewhere(left)
            known += len(chunk) - len(left)
            shared += len(found)
            self.sampled.extend(request for request in left if request.key not in found)
        asked = min(most, len(items)) * samples
        known = min(asked, known)
        return SplitPlan(
            split=split, read=read, unique=unique, asked=asked, known=known, shared=min(asked - known, shared)
        )

    def _prompts(self, items: Sequence[Item]) -> Iterator[Prompt]:
        card = self.teacher.card
        samples = self.task.spec.asking.samples
        return prompts(iter(items), lambda item, sample: request_for(self.task, card, item, sample), samples=samples)

    def _unanswered(self, chunk: Sequence[Prompt]) -> list[Request]:
        reader = self.corpus.journal.reader
        records = known_records(reader, (prompt.record_id for prompt in chunk))
        left = [prompt.request for prompt in chunk if prompt.record_id not in records]
        answers = known_answers(reader, [request.key for request in left])
        return [request for request in left if request.key not in answers]

    async def _elsewhere(self, requests: Sequence[Request]) -> set[bytes]:
        """Requests whose answer the shared cache holds, from this very teacher and usable under today's terms."""
        if self.cache is None or not requests:
            return set()
        found = await self.cache.get_many([request.key for request in requests])
        card, on = self.teacher.card, self.corpus.clock().date()
        origins = {entry.card for entry in found.values() if entry.card.identity == card.identity}
        usable = {
            origin
            for origin in origins
            if judge(self.task, card, on, original_terms=origin.terms_ids).outcome == "allow"
        }
        return {key for key, entry in found.items() if entry.card in usable}

    def _per_request(self) -> _PerRequest:
        sample = self.sampled[:: max(1, len(self.sampled) // SAMPLE)]
        bounds = [self.teacher.input_tokens_bound(request) for request in sample]
        most = int(self.task.teacher.parameters["max_tokens"])
        count = max(1, len(bounds))
        worst = sum(self.rate.worst(bound, most).microusd for bound in bounds)
        return _PerRequest(input_bound=sum(bounds) / count, most_output=most, worst_microusd=worst / count)

    def _requests(self, to_send: int, learned: _Learned | None) -> Estimate:
        wider = self._wider(learned)
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

    def _wider(self, learned: _Learned | None) -> Estimate:
        """The share of labels that may be asked for twice, because one was not among the runners-up."""
        asked = self.task.teacher.parameters.get("top_logprobs")
        widest = self.teacher.card.capabilities.top_logprobs
        if self.task.spec.kind != "label" or not isinstance(asked, int) or asked >= widest:
            return Estimate(low=0.0, likely=0.0, high=0.0)
        likely = LIKELY_WIDER if learned is None or learned.wider is None else learned.wider
        return Estimate(low=0.0, likely=likely, high=1.0)

    def _tokens(self, requests: Estimate, each: _PerRequest, learned: _Learned | None) -> Estimate:
        given, answered = self._input(each, learned), self._output(each, learned)
        return Estimate(
            low=requests.low * (given.low + answered.low),
            likely=requests.likely * (given.likely + answered.likely),
            high=requests.high * (given.high + answered.high),
        )

    def _input(self, each: _PerRequest, learned: _Learned | None) -> Estimate:
        """Input tokens of one request."""
        exact = getattr(self.teacher, "encoding", None) is not None
        low, likely, high = INPUT_OF_COUNT if exact else INPUT_OF_BYTES
        if learned is not None:
            low, likely = learned.input_share * (1 - learned.spread), learned.input_share
            high = min(1.0, likely * (1 + learned.spread))
        bound = each.input_bound
        return Estimate(low=bound * max(0.0, low), likely=bound * likely, high=bound * high)

    def _output(self, each: _PerRequest, learned: _Learned | None) -> Estimate:
        """Output tokens of one request."""
        most = each.most_output
        if learned is None:
            return Estimate(low=1.0, likely=max(1.0, most * LIKELY_OUTPUT), high=most)
        likely, spread = learned.output_tokens, learned.spread
        return Estimate(low=likely * max(0.0, 1 - spread), likely=likely, high=min(most, likely * (1 + spread)))

    def _money(self, requests: Estimate, each: _PerRequest, learned: _Learned | None) -> Estimate:
        if self.rate.free:
            return Estimate(low=0.0, likely=0.0, high=0.0)
        given, answered = self._input(each, learned), self._output(each, learned)

        def cost(count: float, tokens_in: float, tokens_out: float) -> float:
            return float(self.rate.cost(int(count * tokens_in), int(count * tokens_out)))

        worst = requests.high * each.worst_microusd
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


def _chunks(every: Iterator[Prompt]) -> Iterator[list[Prompt]]:
    while chunk := [prompt for _, prompt in zip(range(LOOKUP), every, strict=False)]:
        yield chunk


def _learned(corpus: Corpus, task: Task) -> _Learned | None:
    """What is known from this teacher's answers to tasks of this name; for estimates, never for caps."""
    most = int(task.teacher.parameters["max_tokens"])
    values = (task.teacher.name, task.spec.name)
    answers, given, answered, reserved, microseconds, settled = corpus.journal.query(
        "select count(*), sum(a.input_tokens), sum(a.output_tokens), sum(c.reserved_tokens),"
        " sum(a.received_us - a.sent_us), sum(c.microusd)"
        " from answers a join calls c using (call_id) join runs r using (run_id) where c.teacher = ? and r.task = ?",
        values,
    )[0]
    if not answers or reserved - answers * most <= 0:  # none, or asked with another max_tokens
        return None
    calls, unconfirmed = corpus.journal.query(
        "select count(*), coalesce(sum(iif(c.state = 'unknown', c.reserved_microusd, 0)), 0)"
        " from calls c join runs r using (run_id) where c.teacher = ? and r.task = ? and c.state != 'promised'",
        values,
    )[0]
    records, wider = corpus.journal.query(
        "select count(*), coalesce(sum(request_key != first_key), 0) from records where dataset = ?", (task.spec.name,)
    )[0]
    return _Learned(
        answers=answers,
        calls=max(answers, calls - wider),
        input_share=given / (reserved - answers * most),
        output_tokens=answered / answers,
        booked_over_settled=(settled + unconfirmed) / settled if settled else 1.0,
        wider=wider / records if records else None,
        latency_s=microseconds / answers / 1e6,
    )


def _wall(requests: Estimate, learned: _Learned | None, in_flight: int) -> Estimate | None:
    """Seconds of asking, under the latency seen so far; None as long as none was."""
    if not requests.high:
        return Estimate(low=0.0, likely=0.0, high=0.0)
    if learned is None:
        return None
    waiting = learned.latency_s / in_flight
    return Estimate(
        low=requests.low * max(0.7 * waiting, ROW_S[0]),
        likely=START_S[1] + requests.likely * max(waiting, ROW_S[1]),
        high=START_S[2] + requests.high * (1.6 * waiting + ROW_S[2]),
    )
