"""Planning: what a run would ask, cost and take, before anything is sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from corpusgen.budget.prices import Rate
from corpusgen.corpus import Corpus
from corpusgen.prompting.prompts import Item, Prompt, prompts
from corpusgen.provenance.policy import Decision
from corpusgen.records import Json, Split
from corpusgen.spec import Unit
from corpusgen.stages.asking import unique_pool
from corpusgen.stages.opening import caps_of, judge
from corpusgen.stages.task import Task, connect, price_of, request_for
from corpusgen.store.answers import known_records
from corpusgen.teachers.teacher import Teacher

SAMPLE = 64
"""Requests whose bytes are counted to estimate the others."""
TOKENS_PER_BOUND = (0.12, 0.28, 1.0)
"""Low, likely and high share of the byte bound that English prompts use, before a teacher's own answers are known."""
LEARNED_SPREAD = 0.15


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

    def times(self, factor: float) -> Estimate:
        """Every figure multiplied."""
        return Estimate(low=self.low * factor, likely=self.likely * factor, high=self.high * factor)


@dataclass(frozen=True, kw_only=True)
class SplitPlan:
    """One split: items in the file, items left after repeats, how many will be asked, how many are answered."""

    split: Split
    read: int
    unique: int
    asked: int
    known: int

    @property
    def to_send(self) -> int:
        """Requests that are still to be sent."""
        return max(0, self.asked - self.known)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run would do. Estimates cover only what is still to be sent."""

    teacher: str
    decision: Decision
    splits: tuple[SplitPlan, ...]
    tokens: Estimate
    microusd: Estimate
    wall_s: Estimate | None
    caps: Mapping[Unit, int]
    in_flight: int

    @property
    def to_send(self) -> int:
        """Requests that are still to be sent."""
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
            "to_send": self.to_send,
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
    try:
        return _plan(task, corpus, teacher, price_of(task, corpus.clock().date()), caps or {})
    finally:
        await teacher.aclose()


def _plan(task: Task, corpus: Corpus, teacher: Teacher, rate: Rate, caps: Mapping[Unit, int]) -> Plan:
    pool = unique_pool(task)
    splits = [_train(task, corpus, teacher, pool.items, pool.read)]
    if task.spec.kind == "label":  # only labels can be right or wrong
        splits += [_whole(task, corpus, teacher, split) for split in ("validation", "gold")]
    to_send = sum(split.to_send for split in splits)
    bound = _bound(task, teacher, pool.items[:SAMPLE])
    share = _learned_share(corpus, task.teacher.name) or Estimate(
        low=TOKENS_PER_BOUND[0], likely=TOKENS_PER_BOUND[1], high=TOKENS_PER_BOUND[2]
    )
    tokens = share.times(bound * to_send)
    most = int(task.teacher.parameters["max_tokens"])
    dollars = Estimate(
        **{
            name: float(rate.cost(int(max(0, figure - most * to_send)), most * to_send))
            for name, figure in zip(("low", "likely", "high"), tokens.figures, strict=True)
        }
    )
    in_flight = task.teacher.in_flight or teacher.card.in_flight
    return Plan(
        teacher=task.teacher.name,
        decision=judge(task, teacher.card, corpus.clock().date()),
        splits=tuple(splits),
        tokens=tokens,
        microusd=dollars,
        wall_s=_wall(corpus, task.teacher.name, to_send, in_flight),
        caps={cap.unit: cap.cap for cap in caps_of(task, caps)},
        in_flight=in_flight,
    )


def _train(task: Task, corpus: Corpus, teacher: Teacher, items: Sequence[Item], read: int) -> SplitPlan:
    asking = task.spec.asking
    asked = min(asking.limit, len(items)) * asking.samples
    known = len(_known(task, corpus, teacher, items))
    return SplitPlan(split="train", read=read, unique=len(items), asked=asked, known=min(asked, known))


def _whole(task: Task, corpus: Corpus, teacher: Teacher, split: Split) -> SplitPlan:
    items = list(task.prompter.items(split))
    asked = len(items) * task.spec.asking.samples
    known = len(_known(task, corpus, teacher, items))
    return SplitPlan(split=split, read=len(items), unique=len(items), asked=asked, known=known)


def _known(task: Task, corpus: Corpus, teacher: Teacher, items: Sequence[Item]) -> set[str]:
    every = _prompts(task, teacher, items)
    return known_records(corpus.journal.reader, (prompt.record_id for prompt in every))


def _prompts(task: Task, teacher: Teacher, items: Sequence[Item]) -> list[Prompt]:
    return list(
        prompts(
            iter(items),
            lambda item, sample: request_for(task, teacher.card, item, sample),
            samples=task.spec.asking.samples,
        )
    )


def _bound(task: Task, teacher: Teacher, items: Sequence[Item]) -> float:
    requests = [prompt.request for prompt in _prompts(task, teacher, items)]
    most = int(task.teacher.parameters["max_tokens"])
    return sum(teacher.input_tokens_bound(request) + most for request in requests) / max(1, len(requests))


def _learned_share(corpus: Corpus, teacher: str) -> Estimate | None:
    """Tokens used per token reserved, from this teacher's settled calls; for estimates, never for caps."""
    rows = corpus.journal.query(
        "select sum(tokens), sum(reserved_tokens) from calls where teacher = ? and state = 'settled'", (teacher,)
    )
    used, reserved = rows[0]
    if not reserved:
        return None
    likely = used / reserved
    return Estimate(low=likely * (1 - LEARNED_SPREAD), likely=likely, high=min(1.0, likely * (1 + LEARNED_SPREAD)))


def _wall(corpus: Corpus, teacher: str, to_send: int, in_flight: int) -> Estimate | None:
    rows = corpus.journal.query(
        "select avg(a.received_us - a.sent_us) from answers a join calls c using (call_id) where c.teacher = ?",
        (teacher,),
    )
    if not to_send:
        return Estimate(low=0.0, likely=0.0, high=0.0)
    if rows[0][0] is None:
        return None
    likely = rows[0][0] / 1e6 * to_send / in_flight
    return Estimate(low=likely * 0.7, likely=likely, high=likely * 1.6)
