"""A provider that keeps its own bill and misbehaves by the seed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from contextvars import Context
from dataclasses import dataclass, field
from typing import Any

import orjson

from corpusgen.budget.rate import PerMtok, Rate, Tier, rate_from
from corpusgen.corpus import Clock
from corpusgen.errors import NotSent, RateLimited, RequestRefused, TeacherFault, TeacherTimeout
from corpusgen.records import Completion, Reply, Request
from corpusgen.teachers.endpoint import tokens_bound
from corpusgen.teachers.reading import believed, only, read_choices
from corpusgen.teachers.scripted import CAPABILITIES
from corpusgen.teachers.teacher import TeacherCard

MTOK = 1_000_000
PRICES = {
    "standard": (137_311, 13_731, 411_937),
    "priority": (274_623, 27_463, 823_871),
    "flex": (68_657, 6_867, 205_969),
}
"""Micro-dollars per million tokens of input, cached input and output; odd, so that rounding matters."""

RATE: Rate = rate_from(
    {
        name: Tier(base=PerMtok(input=given, cached_input=cached, output=said, cache_write=given, cache_write_1h=given))
        for name, (given, cached, said) in PRICES.items()
    },
    version="simulated",
    served=frozenset(PRICES),
)

CARD = TeacherCard(
    name="scripted/simulated",
    identity="script:simulated",
    provider="corpusgen",
    model="simulated",
    route="mock",
    host="localhost",
    weights_sha256=None,
    capabilities=CAPABILITIES,
    in_flight=4,
)

FAULTS = (
    "fault_billed",
    "fault_unbilled",
    "cut_billed",
    "late_billed",
    "late_unbilled",
    "hung_billed",
    "limited_after",
    "limited_bare",
    "limited_billed",
    "limited_known",
    "not_sent",
    "refused",
    "not_json",
    "usage_negative",
    "usage_missing",
    "cut_answer",
)
"""What may happen in place of an answer; ``usage_absurd`` is drawn apart, because it ends a run."""
UNCOUNTED = ("usage_missing", "usage_negative")
"""Good answers all the same, at the most they can have used."""


@dataclass(frozen=True, kw_only=True)
class Truth:
    """The one answer to a request, with what it costs: the same in every world and for everybody who asks."""

    text: str
    tier: str
    input_tokens: int
    cached_tokens: int
    output_tokens: int

    @property
    def micro_micro_usd(self) -> int:
        """What the provider charges, exactly, in millionths of a micro-dollar."""
        given, cached, said = PRICES[self.tier]
        fresh = self.input_tokens - self.cached_tokens
        return fresh * given + self.cached_tokens * cached + self.output_tokens * said

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens


def truth_of(request: Request) -> Truth:
    """What the provider will answer."""
    dice = random.Random(request.key)
    bound, most = tokens_bound(CARD, request), int(request.parameters["max_tokens"])
    at_worst = dice.random() < 0.3
    given = bound if at_worst else dice.randint(1, bound)
    return Truth(
        text=f"answer {dice.getrandbits(32):08x}",
        tier="priority" if at_worst else dice.choice(sorted(PRICES)),
        input_tokens=given,
        cached_tokens=0 if at_worst else dice.randint(0, given),
        output_tokens=most if at_worst else dice.randint(1, most),
    )


@dataclass(kw_only=True)
class Sent:
    """One request that reached the provider, and what it put on the bill for it."""

    process: str
    call_id: int
    key: bytes
    worst: tuple[int, int, int]
    kind: str = ""
    micro_micro_usd: int = 0
    tokens: int = 0
    requests: int = 1
    open: bool = True
    """Whether the one who asked still waits."""
    arrived: bool = False
    """Whether a good answer was handed over."""

    @property
    def absurd(self) -> bool:
        return self.kind == "usage_absurd"


@dataclass(kw_only=True)
class Provider:
    """One bill for all processes of a world."""

    dice: random.Random
    fault_share: float
    absurd_share: float
    latency_s: float
    charged: Callable[[Sent], None]
    received: Callable[[str, Request], Sent]
    ended: Callable[[Sent], None]
    context: Context
    """The provider goes on when a process that asked it is killed."""
    sent: list[Sent] = field(default_factory=list)

    def draw(self) -> str:
        """What happens to the next request."""
        if self.dice.random() < self.absurd_share:
            return "usage_absurd"
        return self.dice.choice(FAULTS) if self.dice.random() < self.fault_share else "answer"

    def charge_later(self, sent: Sent, delay_s: float, micro_micro_usd: int, tokens: int) -> None:
        def act() -> None:
            sent.micro_micro_usd, sent.tokens = micro_micro_usd, tokens
            self.charged(sent)

        asyncio.get_running_loop().call_later(delay_s, act, context=self.context)


@dataclass(frozen=True, kw_only=True)
class Simulated:
    """The teacher as one process sees it."""

    process: str
    provider: Provider
    clock: Clock
    card: TeacherCard = CARD

    def input_tokens_bound(self, request: Request) -> int:
        return tokens_bound(CARD, request)

    async def first_tokens(self, labels: Sequence[str]) -> tuple[bytes, ...] | None:
        return tuple(f" {label}".encode() for label in labels)

    def read_choices(self, request: Request, reply: Reply) -> tuple[Completion, ...]:
        read = read_choices(request, reply, tokenizer="simulated")
        return believed(read, request, lambda: self.input_tokens_bound(request))

    async def ask(self, request: Request, *, timeout_s: float) -> Reply:
        kind = self.provider.draw()
        if kind == "not_sent":
            raise NotSent("connection refused")
        sent = self.provider.received(self.process, request)
        sent.kind = kind
        self.provider.sent.append(sent)
        try:
            return await self._serve(request, sent, timeout_s)
        finally:
            sent.open = False
            self.provider.ended(sent)

    async def _serve(self, request: Request, sent: Sent, timeout_s: float) -> Reply:
        started, dice, kind = self.clock(), self.provider.dice, sent.kind
        truth = truth_of(request)
        takes_s = dice.expovariate(1 / self.provider.latency_s)
        if kind.startswith(("late", "hung")) or takes_s >= timeout_s:
            takes_s = timeout_s + dice.uniform(0, 2 * timeout_s)
        if not kind.endswith(("unbilled", "after", "bare", "known", "refused")):
            due_s = 0.0 if dice.random() < 0.5 else takes_s
            factor = 1000 if sent.absurd else 1
            self.provider.charge_later(sent, due_s, factor * truth.micro_micro_usd, factor * truth.tokens)
        await asyncio.sleep(min(takes_s, timeout_s))
        if takes_s > timeout_s:
            raise TeacherTimeout(f"no whole answer within {timeout_s:g} s")
        _fail(kind, dice)
        sent.arrived = kind in ("answer", "usage_absurd", *UNCOUNTED)
        return Reply(
            body=_body(truth, kind), request_id=f"id-{sent.call_id}", sent_time=started, received_time=self.clock()
        )

    def read(self, request: Request, reply: Reply) -> Completion:
        return only(self.read_choices(request, reply))

    async def aclose(self) -> None:
        """Nothing to let go of."""


def _fail(kind: str, dice: random.Random) -> None:
    if kind.startswith(("fault", "cut_billed")):
        raise TeacherFault("failed", status=500 if kind.startswith("fault") else None)
    if kind.startswith("limited"):
        told_s = dice.uniform(0, 5) if kind == "limited_after" else None
        error = RateLimited("slow down", status=429, retry_after_s=told_s)
        error.billable = kind != "limited_known"  # as the endpoint table has it
        raise error
    if kind == "refused":
        raise RequestRefused("no", status=400)


def _body(truth: Truth, kind: str) -> bytes:
    if kind == "not_json":
        return b"<html>busy</html>"
    factor = 1000 if kind == "usage_absurd" else 1
    usage: dict[str, Any] = {
        "prompt_tokens": factor * truth.input_tokens,
        "completion_tokens": factor * truth.output_tokens * (-1 if kind == "usage_negative" else 1),
        "prompt_tokens_details": {"cached_tokens": factor * truth.cached_tokens},
    }
    reply = {
        "id": "simulated",
        "model": "simulated",
        "service_tier": truth.tier,
        "choices": [
            {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": truth.text}},
        ],
        "usage": None if kind == "usage_missing" else usage,
    }
    whole = orjson.dumps(reply)
    return whole[: len(whole) // 2] if kind == "cut_answer" else whole
