"""Behind the counter: which fault a question meets, what is answered, and what is charged for it."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from corpusgen.mock.answer import DIALECTS
from corpusgen.mock.bill import Bill, Prices
from corpusgen.mock.jobs import Line, Result
from corpusgen.mock.kinds import Kind
from corpusgen.mock.limits import RateLimit
from corpusgen.mock.plan import FaultPlan
from corpusgen.mock.prompt_cache import PromptCache
from corpusgen.mock.question import NotARequest, Question
from corpusgen.mock.saying import Answer, answer_to

_A_DAY_S = 86_400.0


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a mock teacher behaves."""

    plan: FaultPlan = field(default_factory=FaultPlan)
    prices: Prices = field(default_factory=Prices)
    latency_s: float = 0.0
    slow_s: float = 30.0
    """How long the slow kinds of fault hold a request."""
    rate_limit: RateLimit | None = None
    token_limit: RateLimit | None = None
    told: bool = True
    """Whether limits are told in headers."""
    labels: tuple[str, ...] = ()
    """With labels, every answer is one of them."""
    key: str | None = None
    """With a key, whoever has another one is refused."""
    batch_delay_s: float = 1.0
    """From a batch's submission to its results."""
    batch_life_s: float = _A_DAY_S
    """After which a batch expires."""
    log: Path | None = None
    """A file to which everything that arrives is added, a JSON line a request; keys are left out."""
    host: str = "127.0.0.1"
    port: int = 0
    clock: Callable[[], float] = time.monotonic
    """For rates and caches."""
    now: Callable[[], float] = time.time
    """For the times that are told, and the lives of batches."""


@dataclass(kw_only=True, slots=True)
class Decision:
    """What becomes of a question."""

    kind: Kind | None
    answer: Answer
    attempt: int


@dataclass(kw_only=True)
class Desk:
    """The teacher with its bill."""

    options: Options
    bill: Bill = field(init=False)
    _tries: Counter[str] = field(default_factory=Counter)
    _cache: PromptCache = field(init=False)

    def __post_init__(self) -> None:
        self.bill = Bill(prices=self.options.prices)
        self._cache = PromptCache(clock=self.options.clock)

    def now(self) -> float:
        """Seconds since 1970."""
        return self.options.now()

    def decide(self, question: Question) -> Decision:
        """What becomes of a question, charged for before anything can go wrong with telling it."""
        attempt = self._try(question.key)
        kind = self.options.plan.fault_of(question, attempt)
        answer = self._answer(question, kind)
        name = "answer" if kind is None else kind.name
        self.bill.asked(name)
        if kind is None or kind.billed:
            self.bill.charge(name, question.key, answer.usage, half=question.half_price)
        return Decision(kind=kind, answer=answer, attempt=attempt)

    def line(self, job: str, line: Line) -> Result:
        """Answer a line of a batch, charged for at half the price."""
        dialect = DIALECTS[line.path]
        try:
            question = dialect.read(line.body, line.headers)
        except NotARequest as error:
            self.bill.asked("bad-request")
            return _result(job, line, 400, dialect.error(400, str(error), None))
        attempt = self._try(question.key)
        kind = _fit_for_a_line(self.options.plan.fault_of(question, attempt))
        answer = replace(self._answer(question, kind), tier="batch" if dialect.vendor == "anthropic" else None)
        name = "batch" if kind is None else f"batch:{kind.name}"
        self.bill.asked(name)
        if kind is None or kind.billed:
            self.bill.charge_in_job(job, line.custom_id, name, question.key, answer.usage)
        if kind is not None and kind.status is not None:
            return _result(job, line, kind.status, dialect.error(kind.status, f"mock teacher: {kind.what}", None))
        if kind is None or kind.usable:
            self.bill.answered[question.key] += 1
        reply = dialect.reply(question, answer, self.options.labels)
        return _result(job, line, 200, reply if kind is None or kind.change is None else kind.change(dialect, reply))

    def fault_of_batch(self, text: str, key: str) -> Kind | None:
        """The fault of the next try at something about a batch."""
        return self.options.plan.batch_fault_of(text, key, self._try(f"batch/{key}"))

    def _try(self, key: str) -> int:
        self._tries[key] += 1
        return self._tries[key]

    def _answer(self, question: Question, kind: Kind | None) -> Answer:
        if kind is not None and kind.most_choices is not None:
            question = replace(question, choices=min(question.choices, kind.most_choices))
        answer = answer_to(question, self.options.labels)
        if question.prefixes:
            answer = replace(answer, usage=self._cache.usage(question, answer.usage))
        if kind is not None and kind.extra_output_tokens:
            above = question.choices * question.max_tokens + kind.extra_output_tokens
            answer = replace(answer, usage=replace(answer.usage, output_tokens=above))
        return answer


def _fit_for_a_line(kind: Kind | None) -> Kind | None:
    """A batch has no sockets: of its lines, some fail and some are spoilt, and the others are good."""
    return kind if kind is not None and (kind.status is not None or kind.change is not None) else None


def _result(job: str, line: Line, status: int, body: dict[str, object]) -> Result:
    name = hashlib.sha256(f"{job}/{line.custom_id}".encode()).hexdigest()[:16]
    return Result(custom_id=line.custom_id, status=status, request_id=f"mock-{name}", body=body)
