"""Twelve bugs that lose money or answers, each planted in the running code; the simulation must find every one.

This is the one place where our own functions are patched: the point is to break them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, cast

from corpusgen.budget import ledger, rate
from corpusgen.budget.amounts import Amounts
from corpusgen.budget.ledger import Intent, Ledger, Reservation
from corpusgen.errors import CorpusgenError, TeacherError, TeacherTimeout
from corpusgen.fanout import calling, stream
from corpusgen.journal import Transaction
from corpusgen.records import Request
from corpusgen.store.answers import Answer, store_answer
from simulation.world import Report, run_world


@contextmanager
def _patched(where: object, name: str, broken: object) -> Iterator[None]:
    sound = getattr(where, name)
    setattr(where, name, broken)
    try:
        yield
    finally:
        setattr(where, name, sound)


def check_then_spend() -> AbstractContextManager[None]:
    """The budget is looked at, and the promise is made a moment later."""
    sound_check, sound_once = ledger._check, Ledger._ask_once
    checking = True

    def only_when_checking(*given: Any, **named: Any) -> None:
        if checking:
            sound_check(*given, **named)

    async def ask_once(self: Ledger, operation: Any) -> Reservation:
        nonlocal checking
        await self._journal.run(lambda transaction: _look_only(transaction, operation))
        await asyncio.sleep(0.001)

        def unchecked(transaction: Transaction) -> Reservation:
            nonlocal checking
            checking = False
            try:
                return cast("Reservation", operation(transaction))
            finally:
                checking = True

        return await sound_once(self, unchecked)

    @contextmanager
    def both() -> Iterator[None]:
        with _patched(ledger, "_check", only_when_checking), _patched(Ledger, "_ask_once", ask_once):
            yield

    return both()


class _Fits(CorpusgenError):
    """The check was passed; nothing is to be written."""


def _look_only(transaction: Transaction, operation: Callable[[Transaction], Reservation]) -> None:
    def stop(*_: object, **__: object) -> None:
        raise _Fits

    with _patched(ledger._Bound, "promise", stop):
        try:
            operation(transaction)
        except _Fits:
            return


def release_on_error() -> AbstractContextManager[None]:
    """A failed call is taken to cost nothing."""

    def failed(self: Ledger, transaction: Transaction, reservation: Reservation, error: TeacherError) -> None:
        self.release(transaction, reservation, str(error))

    return _patched(Ledger, "failed", failed)


def release_on_timeout() -> AbstractContextManager[None]:
    """A call without an answer in time is taken to cost nothing."""
    sound = Ledger.failed

    def failed(self: Ledger, transaction: Transaction, reservation: Reservation, error: TeacherError) -> None:
        if isinstance(error, TeacherTimeout):
            self.release(transaction, reservation, str(error))
        else:
            sound(self, transaction, reservation, error)

    return _patched(Ledger, "failed", failed)


def double_settle() -> AbstractContextManager[None]:
    """A call that is settled is settled once more."""
    sound = Ledger.settle

    def settle(self: Ledger, transaction: Transaction, reservation: Reservation, used: Amounts, **named: Any) -> None:
        sound(self, transaction, reservation, used, **named)
        for scope in reservation.scopes:
            for account, amount in zip(ledger._book(transaction).accounts(scope).values(), used.each, strict=False):
                account.add(settled=amount)

    return _patched(Ledger, "settle", settle)


def lost_answer() -> AbstractContextManager[None]:
    """Money is booked in one transaction, the answer in the next."""
    sound_keep, sound_store = calling._keep, store_answer
    waiting: dict[int, tuple[Request, Answer]] = {}

    def store_later(_: Transaction, request: Request, answer: Answer, call_id: int) -> None:
        waiting[call_id] = request, answer

    async def keep(asker: Any, reservation: Reservation, *given: Any) -> None:
        await sound_keep(asker, reservation, *given)
        request, answer = waiting.pop(reservation.call_id)
        await asker.corpus.journal.run(lambda given: sound_store(given, request, answer, reservation.call_id))

    @contextmanager
    def both() -> Iterator[None]:
        with _patched(calling, "_keep", keep), _patched(calling, "store_answer", store_later):
            yield

    return both()


def overrun_claim() -> AbstractContextManager[None]:
    """Two owners of one claim: nobody looks whether another process is asking the same."""

    @contextmanager
    def neither() -> Iterator[None]:
        unseen = "select exists(select 1 from answers where request_key = ?), ? is null"
        with _patched(calling, "claim_on", lambda *_: None), _patched(calling, "_NEEDLESS", unseen):
            yield

    return neither()


def stale_claim() -> AbstractContextManager[None]:
    """The claims and promises of dead processes are left as they are."""
    return _patched(ledger, "owner_alive", lambda *_: True)


def unreserved_retry() -> AbstractContextManager[None]:
    """The second try goes out under the promise of the first."""
    sound = Ledger.reserve
    first: dict[bytes, Reservation] = {}

    async def reserve(self: Ledger, intent: Intent, **named: Any) -> Reservation:
        if intent.attempt > 1 and intent.request_key in first:
            return first[intent.request_key]
        first[intent.request_key] = promised = await sound(self, intent, **named)
        return promised

    return _patched(Ledger, "reserve", reserve)


def wrong_tier() -> AbstractContextManager[None]:
    """Every answer is settled at the cheapest price."""

    def cheapest(self: rate.Rate, _: str | None) -> list[rate.Tier]:
        return [min((self._named[name] for name in self.served), key=lambda tier: tier.base.output)]

    return _patched(rate.Rate, "_tiers_of", cheapest)


def cancelled_call_freed() -> AbstractContextManager[None]:
    """A call that was cut off is taken to cost nothing."""
    sound = Ledger.unknown

    def unknown(self: Ledger, transaction: Transaction, reservation: Reservation, reason: str, **named: Any) -> None:
        if reason.startswith("CancelledError"):
            self.release(transaction, reservation, reason)
        else:
            sound(self, transaction, reservation, reason, **named)

    return _patched(Ledger, "unknown", unknown)


def rounding_down() -> AbstractContextManager[None]:
    """A fraction of a micro-dollar is nothing."""
    return _patched(rate, "_whole", lambda millionths: millionths // rate.MTOK)


def resume_skips_a_row() -> AbstractContextManager[None]:
    """A run that is taken up goes on behind the last row it knows, whatever is missing before it."""
    sound = stream._Stream._look_up

    async def look_up(self: Any) -> Any:
        ahead = [found async for found in sound(self)]
        last = max((prompt.ordinal for prompt, kept in ahead if kept is not None), default=-1)
        for prompt, kept in ahead:
            if kept is not None or prompt.ordinal > last:
                yield prompt, kept

    return _patched(stream._Stream, "_look_up", look_up)


@dataclass(frozen=True, kw_only=True)
class Plant:
    """A bug, and the violation by which it must show itself."""

    plant: Callable[[], AbstractContextManager[None]]
    shows: str | tuple[str, ...]


PLANTED: Mapping[str, Plant] = {
    "check_then_spend": Plant(plant=check_then_spend, shows="cap passed"),
    "release_on_error": Plant(plant=release_on_error, shows="bill above the books"),
    "release_on_timeout": Plant(plant=release_on_timeout, shows="bill above the books"),
    "double_settle": Plant(plant=double_settle, shows="balances"),
    "lost_answer": Plant(plant=lost_answer, shows="lost: "),
    "overrun_claim": Plant(plant=overrun_claim, shows="asked by two processes at once"),
    "stale_claim": Plant(plant=stale_claim, shows=("never ends", "are left when nobody runs")),
    "unreserved_retry": Plant(plant=unreserved_retry, shows="sent without a promise"),
    "wrong_tier": Plant(plant=wrong_tier, shows="bill above the books"),
    "cancelled_call_freed": Plant(plant=cancelled_call_freed, shows="bill above the books"),
    "rounding_down": Plant(plant=rounding_down, shows="bill above the books"),
    "resume_skips_a_row": Plant(plant=resume_skips_a_row, shows="prompts have no record"),
}


@dataclass(frozen=True, kw_only=True)
class Hunt:
    """Whether a planted bug was found, and after how many worlds."""

    name: str
    worlds: int
    report: Report | None
    """The world that shows it; None if none did."""


def hunt(name: str, *, first_seed: int = 0, worlds: int = 40) -> Hunt:
    """Run worlds with a planted bug until one shows what this bug does."""
    planted = PLANTED[name]
    for number in range(worlds):
        with planted.plant():
            report = run_world(first_seed + number)
        if _shown(planted, report):
            return Hunt(name=name, worlds=number + 1, report=report)
    return Hunt(name=name, worlds=worlds, report=None)


def _shown(planted: Plant, report: Report) -> bool:
    signs = [planted.shows] if isinstance(planted.shows, str) else planted.shows
    return any(sign in violation for sign in signs for violation in report.violations)
