"""Planning: what a run would ask, cost and take, before anything is sent."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from corpusgen.budget.compute import worth
from corpusgen.budget.prices import Rate
from corpusgen.budget.rate import BATCH
from corpusgen.corpus import Corpus, microseconds
from corpusgen.curation.active import first_round
from corpusgen.elsewhere import Source
from corpusgen.fields import Unit
from corpusgen.prompting.prompts import Item, Prompt, prompts
from corpusgen.provenance.policy import Decision
from corpusgen.records import Json, Request, Split, TeacherRole
from corpusgen.stages.estimating import Estimate, Estimator, PerRequest, Slowest, learned_of
from corpusgen.stages.lanes import batch_service, in_batches
from corpusgen.stages.parents import check_parents
from corpusgen.stages.pool import unique_pool
from corpusgen.stages.runs import caps_of
from corpusgen.stages.sieving import Notes
from corpusgen.stages.task import (
    Task,
    check_length,
    check_sizes,
    connect,
    first_asked,
    followers,
    price_of,
    request_for,
    requester,
    role_of,
)
from corpusgen.stages.terms.ancestry import decisions_above
from corpusgen.stages.terms.deciding import decision_for, decisions_for, refusal, strictest
from corpusgen.store.answers import known_answers, known_records
from corpusgen.store.shared_cache import Shared, SharedCache, open_shared_cache
from corpusgen.teacher_fields import RateLimits
from corpusgen.teachers.batches import WINDOW_S, Batches
from corpusgen.teachers.reading import choices_asked, most_output
from corpusgen.teachers.teacher import Teacher

if TYPE_CHECKING:  # a plan without a service does without an HTTP client
    from corpusgen.stages.at_service.wire import Address

SAMPLE = 1_000
"""Requests that are measured, spread over all that will be asked, to estimate the others."""
LOOKUP = 256
REPAIR_BYTES = 1_500
"""What a second turn says of an answer that does not fit, and a server's words around it."""


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
    dropped: Mapping[str, int] = field(default_factory=dict)
    """Items that each check of ``curate`` drops."""

    @property
    def to_send(self) -> int:
        """Answers that are still to be bought."""
        return max(0, self.asked - self.known - self.shared)


@dataclass(frozen=True, kw_only=True)
class TeacherPlan:
    """One teacher's part: what falls to who is asked first; for a fallback at most everything, likely nothing."""

    name: str
    role: TeacherRole
    decisions: tuple[Decision, ...]
    """What the terms say of it in each of its roles."""
    to_send: int
    """Answers that it may have to give."""
    requests: Estimate
    tokens: Estimate
    microusd: Estimate
    wall_s: Estimate | None
    compute_s: Estimate | None
    slowest: Slowest
    in_flight: int

    @property
    def decision(self) -> Decision:
        """The first refusal if there is one, else what is decided of its first role."""
        return strictest(self.decisions)

    def to_json(self) -> dict[str, Json]:
        """The same for machines."""
        return {
            "teacher": self.name,
            "role": self.role,
            "policy": self.decision.outcome,
            "decisions": [decided(one) for one in self.decisions],
            "would_have_cost_microusd": None if self.decision.outcome == "allow" else round(self.microusd.likely),
            "to_send": self.to_send,
            "requests_range": self.requests.to_json(),
            "tokens": self.tokens.to_json(),
            "microusd": self.microusd.to_json(),
            "wall_s": _json(self.wall_s),
        }


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run would do. Estimates cover only what is still to be sent."""

    teacher: str
    """The teacher's name; of several, all their names."""
    teachers: tuple[TeacherPlan, ...]
    decision: Decision
    """What the terms say of the teacher; of several, the first refusal if there is one."""
    splits: tuple[SplitPlan, ...]
    requests: Estimate
    """Requests that will be sent, those asked again included."""
    tokens: Estimate
    microusd: Estimate
    wall_s: Estimate | None
    compute_s: Estimate | None
    """Processor seconds of our own; None where they are not known yet."""
    compute_usd_per_hour: int | None
    """What an hour of them is worth, in micro-dollars."""
    caps: Mapping[Unit, int]
    in_flight: int
    limits: RateLimits
    slowest: Slowest
    last_call: int
    """The newest call when the plan was made; later ones are what it spoke of."""
    lane: Literal["live", "batch"]
    batch_priced: bool
    """Whether batches have a price of their own; else the usual one is assumed."""

    @property
    def to_send(self) -> int:
        """Answers that are still to be bought."""
        return sum(split.to_send for split in self.splits)

    @property
    def compute_microusd(self) -> Estimate | None:
        """What the processor time is worth; nobody bills it, and no cap in dollars counts it."""
        if self.compute_s is None or self.compute_usd_per_hour is None:
            return None
        hour = self.compute_usd_per_hour
        low, likely, high = (float(worth(round(seconds * 1e6), hour)) for seconds in self.compute_s.figures)
        return Estimate(low=low, likely=likely, high=high)

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
            "teachers": [one.to_json() for one in self.teachers],
            "splits": {
                split.split: {
                    "read": split.read,
                    "dropped": dict(split.dropped),
                    "unique": split.unique,
                    "asked": split.asked,
                    "known": split.known,
                    "to_send": split.to_send,
                }
                for split in self.splits
            },
            "tokens": self.tokens.to_json(),
            "microusd": self.microusd.to_json(),
            "wall_s": _json(self.wall_s),
            "compute_s": _json(self.compute_s),
            "compute_microusd": _json(self.compute_microusd),
            "in_flight": self.in_flight,
            "limits": self.limits.model_dump(exclude_none=True),
            "slowest": self.slowest,
            "caps": dict(self.caps),
            "lane": self.lane,
        }


def decided(one: Decision) -> dict[str, Json]:
    """A decision in a few words, for machines."""
    rules = sorted({reason.rule for reason in one.reasons if reason.outcome != "allow"})
    return {"role": one.role, "outcome": one.outcome, "rules": rules, "terms": list(one.terms_ids)}


def _json(estimate: Estimate | None) -> dict[str, Json] | None:
    return None if estimate is None else estimate.to_json()


async def plan(
    task: Task, corpus: Corpus, *, caps: Mapping[Unit, int] | None = None, service: Address | None = None
) -> Plan:
    """What a run of this task would do here and now. Sends nothing; a ``service`` is asked what it has answers to."""
    check_parents(corpus, task)
    for decision in decisions_above(corpus, task):
        if decision.outcome != "allow":
            raise refusal(corpus, task, decision)
    async with AsyncExitStack() as stack:
        seats = [await _seat(stack, view, corpus) for view in task.of_each_teacher]
        cache = None if all(seat.rate.free for seat in seats) else open_shared_cache(os.environ)
        if cache is not None:
            stack.push_async_callback(cache.aclose)
        there = None if service is None else await _answers_at(stack, service, task)
        by_batch = None if service is not None else batch_service(task, seats[0].teacher)
        batches = None if by_batch is None or task.spec.asking.lane == "live" else by_batch.batches
        judge = None if task.judging is None else await _seat(stack, task.judging, corpus)
        planner = _Planner(
            task=task, corpus=corpus, seats=seats, cache=cache, there=there, batches=batches, judge=judge
        )
        return await planner.plan(caps or {})


async def _answers_at(stack: AsyncExitStack, service: Address, task: Task) -> Source:
    from corpusgen.stages.at_service.running import answers_at, check_live  # with an HTTP client that others do without

    check_live(task)
    return await stack.enter_async_context(answers_at(service))


async def _seat(stack: AsyncExitStack, task: Task, corpus: Corpus) -> _Seat:
    teacher, on = connect(task, corpus.clock, sending=False), corpus.clock().date()
    stack.push_async_callback(teacher.aclose)
    decisions = decisions_for(corpus, task, teacher.card, on)
    return _Seat(task=task, teacher=teacher, rate=price_of(task, on), decisions=decisions)


@dataclass(kw_only=True)
class _Sample:
    """Requests spread evenly over however many there are; a plan of a million holds no more of them."""

    taken: list[Request] = field(default_factory=list)
    seen: int = 0
    answers: int = 0
    """How many answers they ask for."""
    every: int = 1

    def add(self, request: Request) -> None:
        """Take it if it is its turn."""
        self.answers += choices_asked(request)
        if self.seen % self.every == 0:
            self.taken.append(request)
            if len(self.taken) == 2 * SAMPLE:
                self.taken, self.every = self.taken[::2], self.every * 2
        self.seen += 1


@dataclass(frozen=True, kw_only=True)
class _Seat:
    """One teacher: the task as it sees it, and what it would be asked."""

    task: Task
    teacher: Teacher
    rate: Rate
    decisions: tuple[Decision, ...]
    """What the terms say of it in each of its roles."""
    sample: _Sample = field(default_factory=_Sample)

    def add(self, item: Item, request: Request, batches: Batches | None) -> None:
        """Have a request among those it may be asked. Raises UnsupportedParameter for one that is too long for it."""
        check_sizes(self.task, self.teacher, item, request, batches)
        check_length(self.task, self.teacher, request)
        self.sample.add(request)

    @property
    def in_flight(self) -> int:
        """Calls under way at once."""
        return self.task.teacher.in_flight or self.teacher.card.in_flight


@dataclass(frozen=True, kw_only=True)
class _Planner:
    task: Task
    corpus: Corpus
    seats: Sequence[_Seat]
    cache: SharedCache | None
    there: Source | None
    """A service, whose answers count whatever a teacher costs."""
    batches: Batches | None
    judge: _Seat | None = None

    async def plan(self, caps: Mapping[Unit, int]) -> Plan:
        task = self.task
        pool = unique_pool(task, Notes(journal=self.corpus.journal))
        asked = await self._split("train", self._candidates(pool.items), len(pool.items), pool.read)
        splits = [replace(asked, dropped=pool.dropped)]
        if task.spec.kind == "label":  # only labels can be right or wrong
            for split in ("validation", "gold"):
                items = list(task.prompter.items(split))
                splits.append(await self._split(split, items, len(items), len(items)))
        waits = self._askings(splits)
        lane = self._lane(max(waits, default=0))
        on = self.corpus.clock().date()
        first = self.seats[0]
        rates = [seat.rate if lane == "live" else price_of(seat.task, on, batch=True) for seat in self.seats]
        # Which items of a pool are asked about in rounds is not known yet; with several teachers everything is.
        together = len(rates) == 1 and task.spec.asking.samples_per_call == 1
        to_send = [sum(split.to_send for split in splits)] if together else [s.sample.seen for s in self.seats]
        parts = [self._part(seat, rate, count) for seat, rate, count in zip(self.seats, rates, to_send, strict=True)]
        wall_s = _together([part.wall_s for part in parts]) if lane == "live" else _batch_wall(len(waits))
        if self.judge is not None:  # who comes after the others
            parts.append(self._judging(self.judge, splits[0]))
            wall_s = _sum_known([wall_s, parts[-1].wall_s])
        refused = [part.decision for part in parts if part.decision.outcome != "allow"]
        return Plan(
            teacher=", ".join(part.name for part in parts if part.role != "judge"),
            teachers=tuple(parts),
            decision=[*refused, first.decisions[0]][0],
            splits=tuple(splits),
            requests=_sum([part.requests for part in parts]),
            tokens=_sum([part.tokens for part in parts]),
            microusd=_sum([part.microusd for part in parts]),
            wall_s=wall_s,
            compute_s=_sum_known([part.compute_s for part in parts]),
            compute_usd_per_hour=task.spec.budget.compute_usd_per_hour,
            caps={cap.unit: cap.cap for cap in caps_of(task, caps)},
            in_flight=parts[0].in_flight,
            limits=task.teacher.rate,
            slowest=parts[0].slowest,
            last_call=self.corpus.journal.query("select coalesce(max(call_id), 0) from calls")[0][0],
            lane=lane,
            batch_priced=BATCH in rates[0].tiers or rates[0].free,
        )

    def _part(self, seat: _Seat, rate: Rate, calls: int) -> TeacherPlan:
        role = role_of(self.task.spec, seat.task.at)
        estimator = self._estimator(seat, rate)
        whole = estimator.requests(calls)
        requests = replace(whole, low=0.0, likely=0.0) if role == "fallback" else whole
        return TeacherPlan(
            name=seat.task.teacher.name,
            role=role,
            decisions=seat.decisions,
            to_send=calls if self.task.spec.asking.samples_per_call == 1 else seat.sample.answers,
            requests=requests,
            tokens=estimator.tokens(requests).whole,
            microusd=estimator.money(requests).whole,
            wall_s=estimator.wall_s(requests),
            compute_s=estimator.compute_s(requests),
            slowest=estimator.slowest(requests),
            in_flight=estimator.in_flight,
        )

    def _judging(self, seat: _Seat, asked: SplitPlan) -> TeacherPlan:
        """The judge's part: an answer to each question of the pool at most, less what it has judged already."""
        from corpusgen.stages.foreseeing import questions_foreseen, to_judge

        count = to_judge(self.corpus, self.task, asked.asked, asked.to_send)
        bounds = questions_foreseen(self.corpus, self.task, seat.teacher, self.seats[0].sample.taken) if count else []
        rate, most = seat.rate, int(seat.task.teacher.parameters["max_tokens"])
        more = (REPAIR_BYTES + 4 * most) // 2
        each = PerRequest(
            input_bound=_mean([likely for likely, _ in bounds]),
            longest_input=_mean([longest + more for _, longest in bounds]),
            most_output=most,
            worst_microusd=_mean([rate.worst(longest + more, most).microusd for _, longest in bounds]),
        )
        learned = learned_of(self.corpus, seat.task)
        estimator = Estimator(
            task=seat.task, teacher=seat.teacher, rate=rate, each=each, learned=learned, in_flight=seat.in_flight
        )
        # What was cut short, refused or dropped by another check is not judged.
        requests = replace(estimator.requests(count), low=0.0)
        return TeacherPlan(
            name=seat.task.teacher.name,
            role="judge",
            decisions=seat.decisions,
            to_send=count,
            requests=requests,
            tokens=estimator.tokens(requests).whole,
            microusd=estimator.money(requests).whole,
            wall_s=estimator.wall_s(requests),
            compute_s=estimator.compute_s(requests),
            slowest=estimator.slowest(requests),
            in_flight=estimator.in_flight,
        )

    def _askings(self, splits: Sequence[SplitPlan]) -> list[int]:
        """How many questions are asked together each time: validation and gold at once, the pool perhaps in rounds."""
        asking, sizes = self.task.spec.questions, []
        for split in splits:
            left, at_once = split.to_send, split.to_send
            if split.split == "train" and asking.order == "margin":
                at_once = asking.first_round * asking.samples
            while left > 0:
                sizes.append(min(left, at_once))
                left -= at_once
                at_once = min(at_once, asking.round * asking.samples)
        return sizes

    def _lane(self, most_at_once: int) -> Literal["live", "batch"]:
        if self.there is not None:
            return "live"
        started = self.corpus.journal.query(
            "select min(started_us) from runs where spec_digest = ?", (self.task.identity,)
        )[0][0]
        now_us = microseconds(self.corpus.clock())
        return "batch" if in_batches(self.task.spec.asking, most_at_once, now_us, started) else "live"

    def _candidates(self, items: Sequence[Item]) -> Sequence[Item]:
        """The items of the pool that may be asked about: which ones exactly, only ``margin`` cannot tell yet."""
        asking = self.task.spec.questions
        if asking.order == "file":
            return items[: asking.limit]
        if asking.order == "random":
            ids = [item.item_id for item in items]
            return [items[at] for at in first_round(ids, count=asking.limit, seed=asking.seed)]
        return items

    async def _split(self, split: Split, items: Sequence[Item], unique: int, read: int) -> SplitPlan:
        samples = self.task.spec.asking.samples
        most = self.task.spec.questions.limit if split == "train" else len(items)
        known = shared = 0
        for chunk in _chunks(self._prompts(items)):
            left = self._unanswered(chunk)
            found = await self._elsewhere(left)
            known += sum(prompt.count for prompt in chunk) - sum(prompt.count for prompt in left)
            shared += sum(prompt.count for prompt in left if prompt.request.key in found)
            for prompt in left:
                if prompt.request.key not in found:
                    self._take(prompt)
        asked = min(most, len(items)) * samples
        known = min(asked, known)
        return SplitPlan(
            split=split, read=read, unique=unique, asked=asked, known=known, shared=min(asked - known, shared)
        )

    def _take(self, prompt: Prompt) -> None:
        """Have a prompt among what its teachers may be asked, the first and those that may follow."""
        sample = prompt.request.sample_index
        at = first_asked(self.task.spec, prompt.item.item_id, sample)
        self.seats[at].add(prompt.item, prompt.request, self.batches)
        for later in followers(self.task.spec, at):
            seat = self.seats[later]
            for one in range(sample, sample + prompt.count):
                seat.add(prompt.item, request_for(seat.task, seat.teacher.card, prompt.item, one), self.batches)

    def _prompts(self, items: Sequence[Item]) -> Iterator[Prompt]:
        cards = [seat.teacher.card for seat in self.seats]
        asking = self.task.spec.asking
        asked_by = requester(self.task, cards)
        return prompts(iter(items), asked_by, samples=asking.samples, per_call=asking.samples_per_call)

    def _unanswered(self, chunk: Sequence[Prompt]) -> list[Prompt]:
        reader = self.corpus.journal.reader
        records = known_records(reader, (name for prompt in chunk for name in prompt.record_ids))
        left = [prompt for prompt in chunk if not records.issuperset(prompt.record_ids)]
        answers = known_answers(reader, [prompt.request.key for prompt in left])
        return [prompt for prompt in left if prompt.request.key not in answers]

    async def _elsewhere(self, left: Sequence[Prompt]) -> set[bytes]:
        """Requests whose answer the shared cache holds, from this very teacher and usable under today's terms."""
        keys = [prompt.request.key for prompt in left]
        here = await self.cache.get_many(keys) if self.cache is not None and left else {}
        there = await self.there.get_many(keys) if self.there is not None and left else {}
        return {
            key for seat in self.seats for key in self._usable(seat, there if seat.rate.free else {**here, **there})
        }

    def _usable(self, seat: _Seat, found: Mapping[bytes, Shared]) -> set[bytes]:
        card, on = seat.teacher.card, self.corpus.clock().date()
        origins = {entry.card for entry in found.values() if entry.card.identity == card.identity}
        usable = {
            origin
            for origin in origins
            if decision_for(self.corpus, seat.task, card, on, original_terms=origin.terms_ids).outcome == "allow"
        }
        return {key for key, entry in found.items() if entry.card in usable}

    def _estimator(self, seat: _Seat, rate: Rate) -> Estimator:
        return Estimator(
            task=seat.task,
            teacher=seat.teacher,
            rate=rate,
            each=self._per_request(seat, rate),
            learned=learned_of(self.corpus, seat.task),
            in_flight=seat.in_flight,
        )

    def _per_request(self, seat: _Seat, rate: Rate) -> PerRequest:
        taken = seat.sample.taken
        bounds = [seat.teacher.input_tokens_bound(request) for request in taken]
        most = int(seat.task.teacher.parameters["max_tokens"])
        # Half of the calls, at most, ask for an answer that fits its schema, with the one that does not before it.
        more = 0 if self.task.schema is None else (REPAIR_BYTES + 4 * most) // 2
        longest = [bound + more for bound in bounds]
        count = max(1, len(bounds))
        outputs = [most_output(request) for request in taken]
        worst = sum(rate.worst(bound, output).microusd for bound, output in zip(longest, outputs, strict=True))
        return PerRequest(
            input_bound=sum(bounds) / count,
            longest_input=sum(longest) / count,
            most_output=sum(outputs) / len(outputs) if outputs else most,
            worst_microusd=worst / count,
        )


def _mean(figures: Sequence[float]) -> float:
    return sum(figures) / max(1, len(figures))


def _sum(parts: Sequence[Estimate]) -> Estimate:
    whole, *others = parts
    for part in others:
        whole = whole.plus(part)
    return whole


def _sum_known(parts: Sequence[Estimate | None]) -> Estimate | None:
    known = [part for part in parts if part is not None]
    return _sum(known) if len(known) == len(parts) else None


def _together(parts: Sequence[Estimate | None]) -> Estimate | None:
    """Seconds of teachers that are asked at the same time; at worst each waits for the one before."""
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    longest = max(part.likely for part in known)
    return Estimate(low=max(part.low for part in known), likely=longest, high=sum(part.high for part in known))


def _batch_wall(waits: int) -> Estimate:
    """Seconds until so many batches, one after the other, have ended: most take an hour, none more than a day."""
    return Estimate(low=60.0 * waits, likely=3_600.0 * waits, high=float(WINDOW_S) * waits)


def _chunks(every: Iterator[Prompt]) -> Iterator[list[Prompt]]:
    while chunk := [prompt for _, prompt in zip(range(LOOKUP), every, strict=False)]:
        yield chunk
