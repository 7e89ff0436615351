"""Asking a teacher a handful of questions, to see whether it does what the table and its card say of it.

Nothing of it becomes a record. In a corpus every call is reserved and settled like any other; without one they are only
bounded beforehand.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from corpusgen.assemble import completions_of
from corpusgen.budget.amounts import Amounts
from corpusgen.budget.ledger import Intent, Ledger
from corpusgen.budget.prices import Rate
from corpusgen.corpus import Corpus
from corpusgen.errors import TeacherError
from corpusgen.records import Completion, Json, Message, Request
from corpusgen.teachers.reading import most_output
from corpusgen.teachers.teacher import Teacher

RUN: Final = "teachers-check"
"""The run its calls are booked under; it has no row of its own, because it makes no records."""
SHORT: Final = 16
ENOUGH: Final = 1_024
"""Tokens that leave a model that reasons room to answer."""
CHOICES: Final = 2
"""Answers that one call is asked for, where several are promised."""
ROUNDING: Final = 0.02
UNPRICED: Final = Rate(input_per_mtok=0, output_per_mtok=0, version="not known")
"""Of a teacher that somebody agreed to ask although nobody here knows what it costs."""

Outcome = Literal["as said", "not as said", "failed", "left out"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one question showed."""

    check: str
    outcome: Outcome
    said: str

    def to_json(self) -> dict[str, Json]:
        """The finding for machines."""
        return {"check": self.check, "outcome": self.outcome, "said": self.said}


@dataclass(frozen=True, kw_only=True)
class Probe:
    """What a teacher showed, and what it cost to ask."""

    findings: tuple[Finding, ...]
    calls: int
    microusd: int | None
    """None where no price is known."""

    @property
    def ok(self) -> bool:
        """Whether nothing failed and nothing was otherwise than said."""
        return all(found.outcome in ("as said", "left out") for found in self.findings)


@dataclass(kw_only=True)
class Prober:
    """One teacher to be asked, with what its questions may cost."""

    teacher: Teacher
    rate: Rate
    parameters: dict[str, Json] = field(default_factory=dict)
    """What a spec sends with every request."""
    corpus: Corpus | None = None
    timeout_s: float = 120.0
    calls: int = 0
    microusd: int = 0
    came: int = 0
    """How many answers the last call gave."""

    def requests(self) -> dict[str, Request]:
        """Every question that would be asked, by what it is for."""
        can = self.teacher.card.capabilities
        asked = {"answer": self._request("Answer with the one word: yes", max_tokens=ENOUGH, **self._own())}
        counting = "Count from 1 to 200, separated by commas."
        asked["max_tokens"] = self._request(counting, max_tokens=SHORT, **self._quiet())
        if can.top_logprobs:
            several = {"top_logprobs": min(5, can.top_logprobs)}
            asked["logprobs"] = self._request("Name a colour.", max_tokens=SHORT, **several, **self._quiet())
        if can.seed and self._takes("seed") and self._takes("temperature"):
            drawn = {"seed": 7, "temperature": 1, **self._quiet()}
            once = self._request("Invent a name for a ship.", max_tokens=32, **drawn)
            asked |= {"seed": once, "seed again": replace(once, sample_index=1)}
        if can.choices > 1:  # the last, so that how many came is still known
            asked["choices"] = self._request("Name a bird.", max_tokens=SHORT, n=CHOICES, **self._quiet())
        return asked

    def worst(self) -> Amounts:
        """The most all of them can cost together."""
        worst = [self._worst(request) for request in self.requests().values()]
        return Amounts(
            microusd=sum(one.microusd for one in worst),
            tokens=sum(one.tokens for one in worst),
            requests=len(worst),
        )

    async def probe(self) -> Probe:
        """Ask, one question after the other; a call that fails is a finding. Raises BudgetExhausted."""
        answers = {name: await self._ask(request) for name, request in self.requests().items()}
        findings = tuple(self._findings(answers))
        spent = None if self.rate is UNPRICED else self.microusd
        return Probe(findings=findings, calls=self.calls, microusd=spent)

    # --- asking ----

    def _request(self, text: str, **parameters: Json) -> Request:
        card = self.teacher.card
        api = card.chat_api if "chat" in card.capabilities.apis else "completion"
        turn = Message(role="user", content=text)
        return Request(teacher=card.identity, model=card.model, api=api, messages=(turn,), parameters=parameters)

    def _own(self) -> dict[str, Json]:
        return {name: value for name, value in self.parameters.items() if name != "max_tokens"}

    def _quiet(self) -> dict[str, Json]:
        """What keeps a model from reasoning, where something else is to be seen."""
        return {"reasoning_effort": "none"} if self.teacher.card.capabilities.only_at_effort_none else {}

    def _takes(self, name: str) -> bool:
        can = self.teacher.card.capabilities
        return name not in can.refused and (can.parameters is None or name in can.parameters)

    def _worst(self, request: Request) -> Amounts:
        return self.rate.worst(self.teacher.input_tokens_bound(request), most_output(request))

    async def _ask(self, request: Request) -> Completion | TeacherError:
        if self.corpus is None:
            return await self._answer(request)
        corpus, card = self.corpus, self.teacher.card
        ledger = Ledger(corpus.journal)
        intent = Intent(
            run_id=RUN,
            request_key=request.key,
            teacher=card.name,
            role="check",
            attempt=1,
            worst=self._worst(request),
            scopes=("corpus", f"teacher:{card.name}", f"user:{corpus.actor}"),
            price_version=self.rate.version,
        )
        reservation = await ledger.reserve(intent)
        try:
            got = await self._answer(request)
        except BaseException as error:
            reason = f"{type(error).__name__} while asking"
            await corpus.journal.run(lambda transaction: ledger.unknown(transaction, reservation, reason))
            raise
        if isinstance(got, TeacherError):
            await corpus.journal.run(lambda transaction: ledger.failed(transaction, reservation, got))
        else:
            used, name = self.rate.used(got.usage), got.provider_request_id
            await corpus.journal.run(lambda transaction: ledger.settle(transaction, reservation, used, request_id=name))
        return got

    async def _answer(self, request: Request) -> Completion | TeacherError:
        self.calls += 1
        try:
            reply = await self.teacher.ask(request, timeout_s=self.timeout_s)
            self.came = len(every := completions_of(self.teacher, request, reply))
            read = every[0]
        except TeacherError as error:
            self.microusd += self._worst(request).microusd if error.billable else 0
            return error
        self.microusd += self.rate.used(read.usage).microusd
        return read

    # --- what it showed ----

    def _findings(self, answers: dict[str, Completion | TeacherError]) -> Iterator[Finding]:
        for name, got in answers.items():
            if isinstance(got, TeacherError):
                yield Finding(check=name, outcome="failed", said=f"{type(got).__name__}: {got}")
        read = {name: got for name, got in answers.items() if isinstance(got, Completion)}
        if "answer" in read:
            yield from self._of_answer(read["answer"])
        if "max_tokens" in read:
            yield _of_limit(read["max_tokens"])
        if "logprobs" in read:
            yield _of_logprobs(read["logprobs"])
        elif "logprobs" not in answers:
            yield Finding(check="logprobs", outcome="left out", said="none are promised")
        if "seed" in read and "seed again" in read:
            yield _of_seeds(read["seed"], read["seed again"])
        elif "seed" not in answers:
            yield Finding(check="seed", outcome="left out", said="no seed together with a temperature is taken")
        if "choices" in read:
            yield _finding("choices", self.came == CHOICES, f"{self.came} of {CHOICES} answers came in one call")

    def _of_answer(self, read: Completion) -> Iterator[Finding]:
        yield Finding(check="answer", outcome="as said", said=f"{read.text[:40]!r}, {read.finish_reason}")
        model, served = self.teacher.card.model, read.model_served
        same = served is not None and (served == model or served.startswith(model) or model.endswith(served))
        yield _finding("model", same, f"asked for {model!r}, served {served!r}")
        usage = read.usage
        counted = f"{usage.input_tokens} in, {usage.output_tokens} out"
        yield _finding("usage", usage.counted, counted if usage.counted else "no count came; the worst case is booked")
        if usage.counted:
            bound = self.teacher.input_tokens_bound(self.requests()["answer"])
            yield _finding("input bound", usage.input_tokens <= bound, f"{usage.input_tokens} of at most {bound}")
        promised = self.teacher.card.capabilities.trace
        if promised is None and read.trace_kind is None:
            yield Finding(check="trace", outcome="left out", said="none is promised and none came")
        elif read.trace_kind is None:
            yield Finding(
                check="trace", outcome="left out", said=f"{promised} is promised where it reasons; it did not"
            )
        else:
            fits = promised in (None, read.trace_kind) or read.trace_kind in ("omitted", "encrypted")
            yield _finding("trace", fits, f"{read.trace_kind} came, {promised or 'nothing'} is promised")


def _finding(check: str, fits: bool, said: str) -> Finding:
    return Finding(check=check, outcome="as said" if fits else "not as said", said=said)


def _of_limit(read: Completion) -> Finding:
    usage = read.usage
    said = f"{usage.output_tokens} tokens of at most {SHORT}, {read.finish_reason}"
    return _finding("max_tokens", not usage.counted or usage.output_tokens <= SHORT, said)


def _of_logprobs(read: Completion) -> Finding:
    logprobs = read.logprobs
    if logprobs is None:
        return Finding(check="logprobs", outcome="not as said", said="none came")
    sums = [sum(map(math.exp, logprobs.at(place).values())) for place in range(len(logprobs.topk_len))]
    most, runners_up = max(sums, default=0.0), max(logprobs.topk_len, default=0)
    said = f"{runners_up} runners-up a token; their probabilities add up to at most {most:.3f}"
    return _finding("logprobs", 0 < most <= 1 + ROUNDING and runners_up > 0, said)


def _of_seeds(once: Completion, again: Completion) -> Finding:
    same = once.text == again.text
    said = "the same seed, the same words" if same else f"{once.text[:30]!r} and {again.text[:30]!r} at the same seed"
    return _finding("seed", same, said)
