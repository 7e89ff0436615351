"""Asking in rounds until the next is not worth its price.

What a round asks is written into the corpus before it is asked, with the figures it was decided by. A run that is taken
up again therefore asks the same, wherever it was interrupted and whatever its numerical libraries round differently
since; and anybody can see, and compute again, why it asked on or ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import orjson

from corpusgen.budget.amounts import UNITS, unit_name
from corpusgen.budget.ledger import Balance, balances
from corpusgen.curate_fields import Active
from corpusgen.curation.active import Candidates, choose_round
from corpusgen.curation.stopping import Expected, Point, expected_gain, worth_it
from corpusgen.journal import Transaction
from corpusgen.records import Json, canonical_json
from corpusgen.stages import studying
from corpusgen.stages.rounds import Labelled, Rounds
from corpusgen.stages.runs import Run

if TYPE_CHECKING:
    from corpusgen.distill.students.bag import BagStudent
    from corpusgen.fields import Unit

Right: TypeAlias = npt.NDArray[np.bool_]
Outcome: TypeAlias = Literal["ask", "stop", "end"]
"""ask: a round's items. stop: no more is worth it, which stays so. end: nothing left to ask about, or to pay with."""

STAGE = "asking"
ENOUGH_HELD_OUT = 100
"""Validation items with an answer from which agreement is counted on them alone."""
FOLDS = 3
MARGIN = 1.1
"""A round is begun when so many times its likely cost is left: prompts differ in length."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """What was decided before one round: what it asks, or why there is none."""

    number: int
    outcome: Outcome
    chosen_by: str
    items: tuple[str, ...] = ()
    labels: int = 0
    """Asked about before."""
    measured: Point | None = None
    """What the student of all those labels came to."""
    expected: Expected | None = None
    cost: Mapping[str, int] = field(default_factory=dict)
    """What the round is likely to use, by unit; of money micro-dollars."""
    reason: str = ""
    short_of: Mapping[str, int] = field(default_factory=dict)
    """The cap that leaves too little, for an end that another cap would put off."""
    held: Mapping[str, int] = field(default_factory=dict)
    """What was promised or unconfirmed under that cap, and may be free again by now."""

    def to_json(self) -> str:
        """The decision as its row keeps it."""
        fields = asdict(self)
        return canonical_json(
            {name: value for name, value in fields.items() if name not in ("number", "outcome")}
        ).decode()

    @classmethod
    def from_row(cls, subject: str, outcome: Outcome, decision: str) -> Step:
        """What ``to_json`` gave, with the row's own columns."""
        fields: dict[str, Json] = orjson.loads(decision)
        measured, expected = fields.pop("measured"), fields.pop("expected")
        return cls(
            number=int(subject.removeprefix("round ")),
            outcome=outcome,
            measured=Point(**measured) if measured else None,
            expected=Expected(**expected) if expected else None,
            items=tuple(fields.pop("items")),
            **fields,
        )


@dataclass(kw_only=True)
class Steering:
    """What decides about the rounds of one run: its settings, what was decided before, and the curve so far."""

    run: Run
    settings: Active
    rounds: Rounds
    known: dict[int, Step]
    ends: dict[int, Step] = field(default_factory=dict)
    later: int = 0
    """Items that will be asked about afterwards, under the same budget."""
    points: list[Point] = field(default_factory=list)
    expected: list[Expected | None] = field(default_factory=list)
    _right: Right | None = None
    _places: npt.NDArray[np.float32] | None = None

    async def opening(self, count: int) -> list[int]:
        """Positions of the first round: a random sample of the pool, whatever comes after."""
        items = [self._item_id(at) for at in self.rounds.opening(count)]
        step = await self._decided(Step(number=1, outcome="ask", chosen_by="random", items=tuple(items)))
        return self._positions(step)

    async def go_on(self, validation: Sequence[Labelled]) -> str:
        """Ask round after round; gives back why it ended."""
        while True:
            await self._judge(validation)
            step = self.known.get(self._next) or await self._decided(await self._decide())
            if step.outcome != "ask":
                return step.reason
            await self.rounds.ask(self._positions(step), step.chosen_by)
            await self.rounds.study(step.chosen_by)

    @property
    def _next(self) -> int:
        return len(self.rounds.finished) + 1

    async def _judge(self, validation: Sequence[Labelled]) -> None:
        """Measure the latest student, and what it lets expect of the next."""
        right = await asyncio.to_thread(self._agreeing, validation)
        changed = 0 if self._right is None or len(self._right) != len(right) else int(np.sum(self._right != right))
        agreement = float(right.mean()) if right.size else 0.0
        point = Point(labels=self.rounds.asked, agreement=agreement, items=right.size, changed=changed)
        # A round whose items have all left the pool since has asked nothing.
        self.points = [*(one for one in self.points if one.labels < point.labels), point]
        self.expected.append(expected_gain(self.points, self.settings.round) if right.size else None)
        self._right = right
        self.rounds.finished[-1] = replace(self.rounds.finished[-1], measured=point, expected=self.expected[-1])

    def _agreeing(self, validation: Sequence[Labelled]) -> Right:
        held_out, said = self.rounds.said_of(validation)
        sample, _ = self.rounds.said_of(self.rounds.train[: self.rounds.sample])
        if len(held_out) >= min(ENOUGH_HELD_OUT, max(1, len(sample))):
            return _agree(self.rounds.taught, held_out, said)
        return self._cross_validated()

    def _cross_validated(self) -> Right:
        """Whether students that lack a third of the random sample agree with the teacher about that third."""
        texts, targets, sampled = self.rounds.lesson()
        fold = np.where(sampled, np.cumsum(sampled) % FOLDS, -1)
        right = np.zeros(len(texts), np.bool_)
        for number in range(FOLDS):
            out = fold == number
            if out.any() and not out.all():
                student = self.rounds.fit(
                    [text for text, left in zip(texts, out, strict=True) if not left], targets[~out]
                )
                asked = [text for text, left in zip(texts, out, strict=True) if left]
                right[out] = _agree(student, asked, targets[out].argmax(axis=1))
        return right[sampled]

    async def _decide(self) -> Step:
        settings, rounds = self.settings, self.rounds
        step = Step(
            number=self._next,
            outcome="end",
            chosen_by=" and ".join(settings.by),
            labels=rounds.asked,
            measured=self.points[-1],
            expected=self.expected[-1],
        )
        size = min(settings.round, rounds.limit - rounds.asked)
        if not rounds.left:
            return replace(step, reason="the whole pool was asked about")
        if size <= 0:
            return replace(step, reason=f"{rounds.limit:,} labels are the most that the spec wants")
        step = replace(step, cost=_likely_cost(self.run, size))
        if not self._worth_it():
            return replace(step, outcome="stop", reason=_not_worth_it(step, settings))
        if (end := self.ends.get(step.number)) and _still_short(self.run, end):
            return end
        if short := _short_of(self.run, size + self._still_later()):
            reason = f"what is left of {' and '.join(short)} does not buy {size:,} labels more and what comes after"
            return replace(step, reason=reason, short_of=short, held=_held(self.run, short))
        positions = await asyncio.to_thread(self._choose, size)
        return replace(step, outcome="ask", items=tuple(self._item_id(at) for at in positions))

    def _worth_it(self) -> bool:
        stop = self.settings.stop
        return stop is None or worth_it(self.expected, below=stop.below, patience=stop.patience)

    def _choose(self, count: int) -> list[int]:
        rounds, settings = self.rounds, self.settings
        rest = sorted(rounds.left)
        scores = rounds.taught.log_probabilities([rounds.pool.items[at].input for at in rest])
        places = self._points() if "diversity" in settings.by else np.zeros((len(rounds.pool.items), 1), np.float32)
        asked = np.setdiff1d(np.arange(len(rounds.pool.items)), rest)
        candidates = Candidates(ids=[self._item_id(at) for at in rest], log_probabilities=scores, points=places[rest])
        chosen = choose_round(
            candidates, by=settings.by, count=count, spread=settings.spread, seed=settings.seed, asked=places[asked]
        )
        return [rest[at] for at in chosen]

    def _points(self) -> npt.NDArray[np.float32]:
        """Where the pool's texts lie in the student's own space; the same in every round."""
        if self._places is None:
            run = self.run
            texts = [item.input for item in self.rounds.pool.items]
            self._places = studying.place_pool(run.corpus, run.task, run.run_id, self.rounds.space, texts)
        return self._places

    def _item_id(self, at: int) -> str:
        return self.rounds.pool.items[at].item_id

    def _positions(self, step: Step) -> list[int]:
        """Where the round's items are in the pool; what is no longer in it is left out."""
        places = {item.item_id: at for at, item in enumerate(self.rounds.pool.items)}
        return [places[name] for name in step.items if name in places]

    def _still_later(self) -> int:
        asked = self.run.corpus.journal.query(
            "select count(distinct item_id) from records where dataset = ? and split = 'gold'",
            (self.run.task.spec.name,),
        )
        return max(0, self.later - int(asked[0][0]))

    async def _decided(self, step: Step) -> Step:
        """The decision, written down; another's, if that was written first."""
        if step.number in self.known:
            return self.known[step.number]
        run_id, subject, text = self.run.run_id, f"round {step.number}", step.to_json()

        def operation(transaction: Transaction) -> list[tuple[Any, ...]]:
            rows = transaction.rows(f"{_DECIDED} and subject = ? order by decision_id", (run_id, STAGE, subject))
            binding = [row for row in rows if row[1] != "end"]
            if not binding and (subject, step.outcome, text) not in rows:
                row = (run_id, STAGE, subject, step.outcome, text, transaction.now_us)
                transaction.execute(f"insert into decisions({_COLUMNS}) values(?, ?, ?, ?, ?, ?)", row)
            return binding

        found = await self.run.corpus.journal.run(operation)
        return Step.from_row(*found[0]) if found else step


_COLUMNS = "run_id, stage, subject, outcome, decision, decided_us"
_DECIDED = "select subject, outcome, decision from decisions where run_id = ? and stage = ?"


def steering(run: Run, settings: Active, rounds: Rounds, later: int) -> Steering:
    """The steering of a run, with what was decided before it was interrupted."""
    rows = run.corpus.journal.query(f"{_DECIDED} order by decision_id", (run.run_id, STAGE))
    steps = [Step.from_row(*row) for row in rows]
    return Steering(
        run=run,
        settings=settings,
        rounds=rounds,
        known={step.number: step for step in reversed(steps) if step.outcome != "end"},
        ends={step.number: step for step in steps if step.outcome == "end"},
        later=later,
    )


def _agree(student: BagStudent, texts: Sequence[str], said: npt.NDArray[np.int64]) -> Right:
    right: Right = student.log_probabilities(texts).argmax(axis=1) == said
    return right


def _not_worth_it(step: Step, settings: Active) -> str:
    assert step.expected is not None
    assert settings.stop is not None
    rounds = "" if settings.stop.patience == 1 else f", for {settings.stop.patience} rounds in a row"
    return (
        f"the next {settings.round:,} labels were expected to gain {100 * step.expected.gain:.2f} points of agreement,"
        f" less than {100 * settings.stop.below:g}{rounds}"
    )


def _likely_cost(run: Run, items: int) -> dict[str, int]:
    """What so many items are likely to use, going by the calls of this run."""
    mean, _ = _per_call(run)
    calls = items * run.task.spec.asking.samples
    return {unit: round(calls * used) for unit, used in mean.items() if used}


def _short_of(run: Run, items: int) -> dict[str, int]:
    """The cap that leaves too little for so many items, by its name; nothing if there is enough."""
    mean, worst = _per_call(run)
    calls = items * run.task.spec.asking.samples
    for name, balance in _capped(run).items():
        left = (balance.cap or 0) - balance.settled - balance.promised - balance.unconfirmed
        unit = balance.unit
        if unit in mean and left < MARGIN * calls * mean[unit] + worst[unit]:
            return {name: balance.cap or 0}
    return {}


def _capped(run: Run) -> dict[str, Balance]:
    """The balances that bind the run, by a name for people."""
    return {
        f"{unit_name(balance.unit)} of {balance.scope}": balance
        for balance in balances(run.corpus.journal)
        if balance.cap is not None and balance.scope.partition("@")[0] in run.asker.scopes
    }


def _still_short(run: Run, end: Step) -> bool:
    """Whether an end for want of money holds: under the same cap, of which nothing was given back since."""
    caps = {name: balance.cap or 0 for name, balance in _capped(run).items()}
    if not end.short_of or not end.short_of.items() <= caps.items():
        return False
    held = _held(run, end.short_of)
    return all(held.get(name, 0) >= before for name, before in end.held.items())


def _held(run: Run, names: Mapping[str, int]) -> dict[str, int]:
    """What is promised or unconfirmed under these caps."""
    return {name: one.promised + one.unconfirmed for name, one in _capped(run).items() if name in names}


def _per_call(run: Run) -> tuple[dict[Unit, float], dict[Unit, int]]:
    """What a call of this run used on average, and what was promised for the largest."""
    columns = ", ".join(f"coalesce(avg({unit}), 0), coalesce(max(reserved_{unit}), 0)" for unit in UNITS)
    row = run.corpus.journal.query(
        f"select {columns} from calls where run_id = ? and role <> ? and state in ('settled', 'overrun')",  # noqa: S608
        (run.run_id, studying.ROLE),
    )[0]
    return dict(zip(UNITS, row[::2], strict=True)), dict(zip(UNITS, row[1::2], strict=True))
