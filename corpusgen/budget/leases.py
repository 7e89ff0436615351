"""Leases: a share of the budget handed out in advance, to be drawn from call by call.

For a service that asks for others, and for workers far away: what a lease grants counts as promised in all its scopes
until it is drawn, given back, or over. A call drawn from it is a promise of its own, noted before it is sent; if the
owner dies, such calls become unknown like any other, and the rest of the lease is free again.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import Protocol

from corpusgen.budget.amounts import DAY_US, NOTHING, UNITS, Amounts
from corpusgen.budget.ledger import (
    POLL_S,
    Check,
    Intent,
    MustWait,
    Reservation,
    end_leases,
    latest_us,
    note_call,
    promise,
    refuse_stopped,
)
from corpusgen.errors import BudgetExhausted, CorpusgenError
from corpusgen.fields import Unit
from corpusgen.journal import Journal, Transaction


class LeaseEnded(CorpusgenError):
    """The lease is over, or does not cover the call; give it back and ask for another."""


@dataclass(frozen=True, kw_only=True)
class Lease:
    """So much of every unit, in all these scopes, until a moment."""

    lease_id: int
    scopes: tuple[str, ...]
    granted: Amounts
    expires_us: int


class Lender(Protocol):
    """Whoever grants leases; a service may stand behind it as well as a corpus."""

    async def grant(self, scopes: tuple[str, ...], amounts: Amounts, *, seconds: float) -> Lease | None:
        """A lease, or None while promises could still free enough. Raises BudgetExhausted when none ever can."""
        ...

    async def draw(self, lease: Lease, intent: Intent, *, unless: Check | None = None) -> Reservation:
        """A committed promise out of a lease; the call may be sent.

        Raises LeaseEnded, and UsageOverrun for a teacher that billed above its bound and was not accepted; ``unless``
        looks at the same transaction first and may refuse with an error of its own.
        """
        ...

    async def renew(self, lease: Lease, *, seconds: float) -> Lease:
        """The same lease, from now on for so long. Raises LeaseEnded when it is over already."""
        ...

    async def give_back(self, lease: Lease) -> Amounts:
        """End a lease; gives back what was left of it, which is free again."""
        ...


@dataclass(frozen=True, kw_only=True)
class Leases:
    """The leases of one corpus."""

    journal: Journal

    async def grant(self, scopes: tuple[str, ...], amounts: Amounts, *, seconds: float) -> Lease | None:
        """As Lender says. No lease outlives its day (UTC), so that no call is booked in a day that is over."""
        lasting_us, owner_id = round(seconds * 1_000_000), self.journal.owner_id
        return await self.journal.run(
            lambda transaction: grant_lease(transaction, scopes, amounts, lasting_us, owner_id)
        )

    async def draw(self, lease: Lease, intent: Intent, *, unless: Check | None = None) -> Reservation:
        """As Lender says. The call is booked in the lease's scopes, whatever the intent says."""
        owner_id = self.journal.owner_id
        return await self.journal.run(lambda transaction: _draw(transaction, lease, intent, owner_id, unless))

    async def renew(self, lease: Lease, *, seconds: float) -> Lease:
        """As Lender says. It still ends with its day (UTC); it may end sooner than before."""
        lasting_us = round(seconds * 1_000_000)
        return await self.journal.run(lambda transaction: _renew(transaction, lease, lasting_us, self.journal.owner_id))

    async def give_back(self, lease: Lease) -> Amounts:
        """As Lender says; a second time it is nothing."""
        return await self.journal.run(lambda transaction: end_leases(transaction, [lease.lease_id]))


def leased(journal: Journal) -> dict[tuple[str, Unit], int]:
    """What open leases hold and nobody has drawn yet, by scope and unit; part of what is promised there."""
    found: dict[tuple[str, Unit], int] = {}
    rows = journal.query(f"select scopes, {', '.join(UNITS)} from leases where ended_us is null")  # noqa: S608 - own names
    for scopes, *left in rows:
        for scope in scopes.split("\n"):
            for unit, amount in zip(UNITS, left, strict=True):
                found[scope, unit] = found.get((scope, unit), 0) + amount
    return found


def grant_lease(
    transaction: Transaction, scopes: tuple[str, ...], amounts: Amounts, lasting_us: int, owner_id: int
) -> Lease | None:
    """As ``Lender.grant``, in a transaction with what belongs to it."""
    try:
        booked = promise(transaction, scopes, amounts)
    except MustWait:
        return None
    now_us = latest_us(transaction)
    expires_us = min(now_us + lasting_us, (now_us // DAY_US + 1) * DAY_US)
    transaction.execute(
        f"insert into leases(owner_id, scopes, {', '.join(UNITS)}, granted_us, expires_us)"
        " values(?, ?, ?, ?, ?, ?, ?, ?)",
        (owner_id, "\n".join(booked), *amounts.each, now_us, expires_us),
    )
    lease_id = int(transaction.connection.last_insert_rowid())
    return Lease(lease_id=lease_id, scopes=scopes, granted=amounts, expires_us=expires_us)


def _open(transaction: Transaction, lease: Lease, owner_id: int) -> tuple[str, list[int]]:
    """Where an open lease is booked, and what is left of it."""
    rows = transaction.rows(
        f"select scopes, expires_us, {', '.join(UNITS)} from leases"  # noqa: S608 - own names
        " where lease_id = ? and owner_id = ? and ended_us is null",
        (lease.lease_id, owner_id),
    )
    if not rows or rows[0][1] <= latest_us(transaction):
        raise LeaseEnded(f"lease {lease.lease_id} is over; give it back and ask for another")
    scopes, _, *left = rows[0]
    return scopes, left


def _renew(transaction: Transaction, lease: Lease, lasting_us: int, owner_id: int) -> Lease:
    _open(transaction, lease, owner_id)
    granted_us = transaction.rows("select granted_us from leases where lease_id = ?", (lease.lease_id,))[0][0]
    # Of the day it was granted in, whatever today is: its calls are booked in that day's scopes.
    expires_us = min(latest_us(transaction) + lasting_us, (granted_us // DAY_US + 1) * DAY_US)
    transaction.execute("update leases set expires_us = ? where lease_id = ?", (expires_us, lease.lease_id))
    return replace(lease, expires_us=expires_us)


def _draw(transaction: Transaction, lease: Lease, intent: Intent, owner_id: int, unless: Check | None) -> Reservation:
    if unless is not None:
        unless(transaction)
    refuse_stopped(transaction, intent.teacher)
    scopes, left = _open(transaction, lease, owner_id)
    if intent.worst.exceeds(Amounts(**dict(zip(UNITS, left, strict=True)))):
        raise LeaseEnded(f"lease {lease.lease_id} does not cover the call; give it back and ask for another")
    taken = ", ".join(f"{unit} = {unit} - ?" for unit in UNITS)
    transaction.execute(
        f"update leases set {taken} where lease_id = ?",  # noqa: S608 - own names
        (*intent.worst.each, lease.lease_id),
    )
    # The balances stay as they are: what the lease had promised is now promised by the call.
    return note_call(transaction, intent, tuple(scopes.split("\n")), owner_id)


@dataclass(kw_only=True)
class Borrower:
    """Reserves call by call from leases, as one would from the ledger itself.

    ``share`` is what it asks for at once, and ``calls`` for how many such calls as the one that needs it; where that is
    not to be had it asks for fewer, and near the end of a budget makes do with what one call needs. A lease that
    is over or too small is given back and followed by another. Close it, so that what is left is free at once.
    """

    lender: Lender
    share: Amounts = NOTHING
    calls: int = 1
    seconds: float = 60.0
    _few: int | None = None
    """For how many calls it has lately been lent something, where that were fewer than it wanted."""
    _held: dict[tuple[str, ...], Lease] = field(default_factory=dict)
    _asking: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def reserve(self, intent: Intent, *, unless: Check | None = None) -> Reservation:
        """A committed promise; the call may be sent. Waits, and raises BudgetExhausted, as the ledger does."""
        while True:
            lease = self._held.get(intent.scopes) or await self._another(intent, None)
            try:
                return await self.lender.draw(lease, intent, unless=unless)
            except LeaseEnded:
                await self._another(intent, lease)

    async def _another(self, intent: Intent, over: Lease | None) -> Lease:
        async with self._asking:
            held = self._held.get(intent.scopes)
            if held is not None and held is not over:
                return held  # somebody else has asked meanwhile
            if held is not None:
                await self.lender.give_back(self._held.pop(intent.scopes))
            lease = self._held[intent.scopes] = await self._granted(intent)
            return lease

    async def _granted(self, intent: Intent) -> Lease:
        while True:
            lease = await self._for_several(intent)
            lease = lease or await self.lender.grant(intent.scopes, intent.worst, seconds=self.seconds)
            if lease is not None:
                return lease
            await asyncio.sleep(POLL_S)

    async def _for_several(self, intent: Intent) -> Lease | None:
        """A lease for more than one call, if there is still so much."""
        calls = min(self.calls, 2 * (self._few or self.calls))
        while (most := self._for(calls, intent.worst)) != intent.worst:
            try:
                lease = await self.lender.grant(intent.scopes, most, seconds=self.seconds)
            except BudgetExhausted:
                lease = None
            self._few = calls
            if lease is not None or calls == 1:
                return lease
            calls = max(1, calls // 4)
        self._few = calls
        return None

    def _for(self, calls: int, worst: Amounts) -> Amounts:
        return Amounts(**{unit: max(self.share.of(unit), calls * worst.of(unit)) for unit in UNITS})

    async def aclose(self) -> None:
        """Give back everything that is left."""
        while self._held:
            await self.lender.give_back(self._held.popitem()[1])
