"""Leases: a share of the budget handed out in advance, to be drawn from call by call.

For a service that asks for others, and for workers far away: what a lease grants counts as promised in all its scopes
until it is drawn, given back, or over. A call drawn from it is a promise of its own, noted before it is sent; if the
owner dies, such calls become unknown like any other, and the rest of the lease is free again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from corpusgen.budget.ledger import (
    DAY_US,
    UNITS,
    Amounts,
    Intent,
    MustWait,
    Reservation,
    end_leases,
    latest_us,
    note_call,
    promise,
)
from corpusgen.errors import CorpusgenError
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

    async def draw(self, lease: Lease, intent: Intent) -> Reservation:
        """A committed promise out of a lease; the call may be sent. Raises LeaseEnded."""
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
        return await self.journal.run(
            lambda transaction: _grant(transaction, scopes, amounts, round(seconds * 1_000_000), self.journal.owner_id)
        )

    async def draw(self, lease: Lease, intent: Intent) -> Reservation:
        """As Lender says. The call is booked in the lease's scopes, whatever the intent says."""
        return await self.journal.run(lambda transaction: _draw(transaction, lease, intent, self.journal.owner_id))

    async def give_back(self, lease: Lease) -> Amounts:
        """As Lender says; a second time it is nothing."""
        return await self.journal.run(lambda transaction: end_leases(transaction, [lease.lease_id]))


def _grant(
    transaction: Transaction, scopes: tuple[str, ...], amounts: Amounts, lasting_us: int, owner_id: int
) -> Lease | None:
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


def _draw(transaction: Transaction, lease: Lease, intent: Intent, owner_id: int) -> Reservation:
    rows = transaction.rows(
        f"select scopes, expires_us, {', '.join(UNITS)} from leases"  # noqa: S608 - own names
        " where lease_id = ? and owner_id = ? and ended_us is null",
        (lease.lease_id, owner_id),
    )
    if not rows or rows[0][1] <= latest_us(transaction):
        raise LeaseEnded(f"lease {lease.lease_id} is over; give it back and ask for another")
    scopes, _, *left = rows[0]
    if intent.worst.exceeds(Amounts(**dict(zip(UNITS, left, strict=True)))):
        raise LeaseEnded(f"lease {lease.lease_id} does not cover the call; give it back and ask for another")
    taken = ", ".join(f"{unit} = {unit} - ?" for unit in UNITS)
    transaction.execute(
        f"update leases set {taken} where lease_id = ?",  # noqa: S608 - own names
        (*intent.worst.each, lease.lease_id),
    )
    # The balances stay as they are: what the lease had promised is now promised by the call.
    return note_call(transaction, intent, tuple(scopes.split("\n")), owner_id)
