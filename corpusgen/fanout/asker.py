"""Everything that is the same for every prompt of a run, and what has happened so far."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any, Literal, Protocol

from corpusgen.assemble import RunFacts
from corpusgen.budget.ledger import Ledger
from corpusgen.budget.prices import Rate
from corpusgen.corpus import Corpus
from corpusgen.elsewhere import Elsewhere
from corpusgen.prompting.prompts import Requester
from corpusgen.records import Request, TeacherRole
from corpusgen.standing import Standing
from corpusgen.store.answers import Card
from corpusgen.teachers.pacing import Pacer
from corpusgen.teachers.teacher import Teacher


@dataclass(kw_only=True)
class Counts:
    """What has happened so far, for whoever watches."""

    done: int = 0
    known: int = 0
    in_flight: int = 0
    sent: int = 0
    drops: Counter[str] = field(default_factory=Counter)
    failures_in_a_row: int = 0
    refused_at_first: int = 0
    """Prompts refused while nothing has been answered; a refusal may be on the bill."""
    elsewhere: int = 0
    """Answers that came from other corpora."""
    other_models: Counter[str] = field(default_factory=Counter)
    """Answers by another model than the one that was asked, by its name."""
    models: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Answers whose model calls itself otherwise than it was asked for, by the teacher and that name."""
    quarantined: Counter[str] = field(default_factory=Counter)
    """Answers that are kept and go into no dataset, by why: nobody checked the terms of the model that gave them."""


@dataclass(kw_only=True)
class Hold:
    """Who is not cut off when the asking ends: a worker that has sent something or has something to hand over."""

    ended: bool = False
    tasks: set[asyncio.Task[Any] | None] = field(default_factory=set)

    def __enter__(self) -> None:
        """Inside, the end of the asking leaves this task alone."""
        self.tasks.add(asyncio.current_task())

    def __exit__(self, *_: object) -> None:
        self.tasks.discard(asyncio.current_task())

    def end(self, workers: Iterable[asyncio.Task[None]]) -> None:
        """Send nothing more: who waits for money, for a pause or for somebody else's answer goes home."""
        if self.ended:  # cutting a worker off twice would interrupt its tidying up
            return
        self.ended = True
        spared = {*self.tasks, asyncio.current_task()}
        for task in workers:
            if task not in spared:
                task.cancel()


class Permit(Protocol):
    """The right to ask, which may end while a run goes on."""

    @property
    def due(self) -> bool:
        """Whether it has to be looked at again before anything is sent."""

    @property
    def now(self) -> object:
        """What it would be decided by at the moment: the same object as long as nothing of that has changed."""

    async def renew(self) -> None:
        """Look at it again. Raises PolicyRefused where it has ended."""


class Ended(Exception):
    """The asking ended before this was sent."""


@dataclass(frozen=True, kw_only=True)
class Asker:
    """Everything that is the same for every prompt of a run."""

    corpus: Corpus
    ledger: Ledger
    teacher: Teacher
    rate: Rate
    card: Card
    facts: RunFacts
    scopes: tuple[str, ...]
    timeout_s: float
    in_flight: int
    compute_us: int = 0
    """The most processor time of ours that a call may take; 0 where it takes none."""
    attempts: int = 4
    on_failure: Literal["raise", "drop"] = "raise"
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    pacer: Pacer = field(default_factory=Pacer)
    counts: Counts = field(default_factory=Counts)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    """Set it to end the run after the calls that are under way."""
    hold: Hold = field(default_factory=Hold)
    elsewhere: Elsewhere | None = None
    wants_known: bool = True
    """Whether the reader is handed the records of what is known already; if not, they are counted and not read."""
    rate_on: Callable[[date], Rate] | None = None
    """The rate of a day, for a run that goes on past midnight; without one ``rate`` holds."""
    panel: tuple[Asker, ...] = ()
    """Every teacher of the run, where there are several; all of them work on the same counts."""
    after: tuple[int, ...] = ()
    """Who of the panel is asked, one after the other, where this teacher would or could not answer."""
    role: TeacherRole = "primary"
    standing: Standing = field(default_factory=Standing)
    request_for: Requester | None = None
    """How this teacher is asked about an item that another was asked about first."""
    blocked: frozenset[str] = frozenset()
    """Kinds of personal data that are never sent; secrets are not, whatever stands here."""
    at_once: asyncio.Semaphore | None = None
    """Its calls under way, where several teachers share the workers."""
    permit: Permit | None = None
    """What lets the asking go on past midnight and past changes of terms; None: nothing can end it."""
    put_aside: Callable[[str], str | None] = lambda served: None
    """Why answers by a model are put aside: the terms that were checked are not this one's; None if they are not."""
    barred: Callable[[Card], str | None] = lambda card: None
    """Why known answers of this card, given under other terms, are not for this use; who asks one by one is told."""

    def seat(self, request: Request) -> Asker:
        """Who of the panel a request is for."""
        for one in self.panel:
            if (one.teacher.card.identity, one.teacher.card.model) == (request.teacher, request.model):
                return one
        return self

    def held_by(self, hold: Hold) -> Asker:
        """The same in the hands of this hold, every teacher of it."""
        return replace(self, hold=hold, panel=tuple(replace(one, hold=hold) for one in self.panel))
