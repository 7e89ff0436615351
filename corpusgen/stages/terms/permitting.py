"""Whether a run may go on asking: what was decided when it was opened is decided again where it might not hold."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Final, TypeAlias

from corpusgen.corpus import Corpus
from corpusgen.errors import CorpusgenError, PolicyRefused
from corpusgen.provenance.policy import Decision
from corpusgen.stages.task import Task
from corpusgen.stages.terms.deciding import terms_files
from corpusgen.stages.terms.files import file_states
from corpusgen.stages.terms.gating import gate

LOOK_S: Final = 1.0
"""How often it is looked whether waivers, reviews or terms have changed, at most."""

Stamp: TypeAlias = tuple[object, ...]
_IN_JOURNAL: Final = (
    "select (select count(*) from waivers), (select count(ended_us) from waivers),"
    " (select max(granted_us) from waivers), (select max(review_id) from reviews), (select count(*) from reviews),"
    " (select max(taken_us) from snapshots)"
)


@dataclass(kw_only=True)
class Permit:
    """The right to ask: the decisions of one day, under the waivers, reviews and terms that stood then.

    ``due`` is cheap enough to be looked at before each request; ``renew`` decides again.
    """

    corpus: Corpus
    task: Task
    run_id: str
    decide: Callable[[], Sequence[Decision]]
    """Decides about every teacher in every role, as of now."""
    granted: Sequence[Decision]
    """What was decided when the run was opened; every one an allow."""
    state: Stamp
    """What it was decided under: the day, and a stamp of everything else. Take it before deciding."""
    monotonic: Callable[[], float] = time.monotonic
    _seen: Stamp = field(init=False)
    _look_at: float = field(init=False)
    _refused: CorpusgenError | None = None
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    def __post_init__(self) -> None:
        self._seen, self._look_at = self.state, self.monotonic() + LOOK_S

    @property
    def now(self) -> Stamp:
        """The day and the stamp, which is at most about a second old; answers that depend on them are kept by it."""
        if self.corpus.clock().date() != self._seen[0] or self.monotonic() >= self._look_at:
            self._look_at = self.monotonic() + LOOK_S
            found = state_of(self.corpus, self.task)
            self._seen = self._seen if found == self._seen else found  # the same one is compared at a glance
        return self._seen

    @property
    def due(self) -> bool:
        """Whether it has to be decided again before anything is sent."""
        return self._refused is not None or self.now is not self.state

    async def renew(self) -> None:
        """Decide again. Raises PolicyRefused, from then on each time, where it is not an allow under the same terms."""
        async with self._turn:
            if self._refused is not None:
                raise self._refused
            now = self.now
            if now is self.state:
                return
            try:
                await self._decide_again(now)
            except CorpusgenError as error:
                self._refused = error
                raise
            self.state = now

    async def _decide_again(self, now: Stamp) -> None:
        decisions = await asyncio.to_thread(self.decide)
        try:
            await gate(self.corpus, self.run_id, self.task, decisions)
        except PolicyRefused as error:
            raise PolicyRefused(f"{error}\nIt was allowed on {self.state[0]}; {_ENDING}") from error
        if (changed := _changed(self.granted, decisions)) is not None:
            where = self.task.located.where("teachers", 0, "name")
            raise PolicyRefused(
                f"{where}: terms changed, run again: {changed} since {self.state[0]}, and it is {now[0]}. Answers from"
                f" now on would be under other terms than this run's; {_ENDING}"
            )


_ENDING: Final = "nothing more was sent, and every answer is kept"


def state_of(corpus: Corpus, task: Task) -> Stamp:
    """The day, and what changes when waivers, reviews, texts or files of terms do."""
    (row,) = corpus.journal.query(_IN_JOURNAL)
    return corpus.clock().date(), *row, *file_states(terms_files(corpus, task))


def day_of(state: Stamp) -> date:
    """The day of a state."""
    assert isinstance(state[0], date)
    return state[0]


def _changed(before: Sequence[Decision], after: Sequence[Decision]) -> str | None:
    """What is other than it was, of what records say and students must keep; None where nothing is."""
    old, new = _promised(before), _promised(after)
    for (name, role), one in new.items():
        if old.get((name, role)) != one:
            return f"{name} as {role} is under other terms or duties"
    return None if old.keys() == new.keys() else "other teachers or sources count"


def _promised(decisions: Iterable[Decision]) -> dict[tuple[str, str], tuple[object, ...]]:
    return {
        (one.teacher.name, one.role): (
            one.terms_set_id,
            one.licence_expression,
            one.outputs_train,
            one.licence_bits,
            frozenset((duty.terms_id, duty.kind, duty.applies_to, duty.words) for duty in one.duties),
        )
        for one in decisions
    }
