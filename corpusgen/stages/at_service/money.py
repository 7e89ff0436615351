"""Money at a service: shares of its budget are borrowed, drawn from call by call, and accounted for.

The journal here stays the truth of what was sent: each call is a promise in it before it is sent, noted with the lease
it is drawn from. What became of the calls of a lease is reported when the last of them is closed; after a crash, when
a run of this corpus starts again. What nobody reports, the service books whole.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import orjson
from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from corpusgen.budget.amounts import NOTHING, UNITS, Amounts
from corpusgen.budget.leases import Borrower, Lease, LeaseEnded
from corpusgen.budget.ledger import Check, Intent, Ledger, Noted, Reservation
from corpusgen.corpus import microseconds
from corpusgen.errors import ServiceUnavailable
from corpusgen.journal import Journal, Transaction
from corpusgen.records import Json
from corpusgen.stages.at_service.wire import Gone, Heard, Later, Wire

AGE_S: Final = 10.0
"""A share is accounted for after so long, used up or not, so that the service's books are fresh."""
CLOCK_S: Final = 1.0
"""The service tells the time in whole seconds."""

_log = logging.getLogger("corpusgen.service")


class _LeaseTold(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    lease: int
    expires: AwareDatetime


@dataclass(kw_only=True)
class Share:
    """A lease in our hands."""

    borrowed_id: int
    lease_id: int
    left: Amounts
    borrowed_s: float
    until_s: float
    """When it is over at the service, by the clock that only goes forward; never later than there."""
    drawing: int = 0
    """Calls that are being promised out of it."""
    ended: bool = False
    """Nothing more is drawn from it."""
    lapsed: bool = False
    """The service holds it for over: it has booked all of it as unconfirmed, until it is accounted for."""

    def over(self, now_s: float) -> bool:
        """Whether nothing may be drawn from it any more."""
        return self.ended or now_s >= self.until_s

    def take(self, worst: Amounts) -> None:
        """Draw so much. Raises LeaseEnded where it does not cover that."""
        if self.over(time.monotonic()) or worst.exceeds(self.left):
            raise LeaseEnded(f"lease {self.lease_id} is over or does not cover the call")
        self.left = _minus(self.left, worst)


def _minus(one: Amounts, other: Amounts) -> Amounts:
    return Amounts(**{unit: one.of(unit) - other.of(unit) for unit in UNITS})


@dataclass(kw_only=True)
class ServiceLender:
    """A service as a lender: what is drawn is promised here, what is lent is promised there."""

    wire: Wire
    journal: Journal
    ledger: Ledger
    """The local books, whose own caps bind as well."""
    label: str
    """What the run is called at the service."""
    waking: asyncio.Event
    shares: dict[int, Share] = field(default_factory=dict)
    _asking: set[asyncio.Task[Lease | None]] = field(default_factory=set)

    async def grant(self, scopes: tuple[str, ...], amounts: Amounts, *, seconds: float) -> Lease | None:
        """As Lender says; ``scopes`` are those of this corpus, of which the service hears the teacher."""
        asked = asyncio.create_task(self._borrow(scopes, amounts, seconds))
        self._asking.add(asked)
        asked.add_done_callback(self._asking.discard)
        # Who asked may leave while the service answers; what it lends is ours all the same, and is returned.
        return await asyncio.shield(asked)

    async def _borrow(self, scopes: tuple[str, ...], amounts: Amounts, seconds: float) -> Lease | None:
        teacher = next(scope for scope in scopes if scope.startswith("teacher:")).removeprefix("teacher:")
        wish = {"teacher": teacher, "amounts": _json(amounts), "seconds": seconds, "run": self.label}
        began_s = time.monotonic()
        try:
            heard = await self.wire.post("/api/v1/leases", wish, patience_s=self.wire.address.patience_s)
        except Later:
            return None
        told = self._told(heard)
        facts = {"teacher": teacher, "granted": _json(amounts), "run": self.label}
        borrowed_id = await self.journal.run(lambda transaction: self._note(transaction, told.lease, facts))
        lasting_s = min(seconds, _lasting_s(told.expires, heard.date, seconds))
        self.shares[told.lease] = Share(
            borrowed_id=borrowed_id,
            lease_id=told.lease,
            left=amounts,
            borrowed_s=began_s,
            until_s=began_s + lasting_s,
            ended=lasting_s <= 0,
        )
        if lasting_s <= 0:  # its day is as good as over
            return None
        return Lease(lease_id=told.lease, scopes=scopes, granted=amounts, expires_us=microseconds(told.expires))

    def _told(self, heard: Heard) -> _LeaseTold:
        try:
            return _LeaseTold.model_validate(heard.fields)
        except ValidationError as error:
            raise ServiceUnavailable(
                f"{self.wire.url}: its lease cannot be read: {error.errors()[0]['msg']}"
            ) from error

    def _note(self, transaction: Transaction, lease_id: int, facts: dict[str, Json]) -> int:
        values = (self.wire.url, lease_id, self.journal.owner_id, orjson.dumps(facts).decode(), transaction.now_us)
        transaction.execute(
            "insert into borrowed(service, lease_id, owner_id, facts, borrowed_us) values(?, ?, ?, ?, ?)", values
        )
        return int(transaction.connection.last_insert_rowid())

    async def draw(self, lease: Lease, intent: Intent, *, unless: Check | None = None) -> Reservation:
        """As Lender says. The local caps are held to as well, and waited for."""
        share = self.shares.get(lease.lease_id)
        if share is None:
            raise LeaseEnded(f"lease {lease.lease_id} is returned")
        share.take(intent.worst)
        share.drawing += 1
        try:
            return await self.ledger.reserve(intent, unless=_unless_over(share, unless), noted=_noted(share))
        except BaseException:
            share.left = share.left.plus(intent.worst)
            raise
        finally:
            share.drawing -= 1

    async def renew(self, lease: Lease, *, seconds: float) -> Lease:
        """As Lender says."""
        share = self.shares.get(lease.lease_id)
        if share is None or not await self.prolong(share, seconds):
            raise LeaseEnded(f"lease {lease.lease_id} is over")
        return lease

    async def prolong(self, share: Share, seconds: float) -> bool:
        """Have a share for longer; False where it is over. Raises ServiceUnavailable."""
        began_s = time.monotonic()
        try:
            heard = await self.wire.post(f"/api/v1/leases/{share.lease_id}/renew", {"seconds": seconds})
        except Gone:
            share.ended = share.lapsed = True
            return False
        told = self._told(heard)
        share.until_s = began_s + min(seconds, _lasting_s(told.expires, heard.date, seconds))
        return True

    async def give_back(self, lease: Lease) -> Amounts:
        """As Lender says; it is returned as soon as nobody works with what was drawn from it."""
        share = self.shares.get(lease.lease_id)
        if share is None or share.ended:
            return NOTHING
        share.ended = True
        self.waking.set()
        return share.left

    async def settled(self) -> None:
        """Nobody borrows any more: what is being lent has come, and nothing is drawn."""
        if self._asking:
            await asyncio.wait(self._asking)
        for share in self.shares.values():
            share.ended = True

    def in_use(self, share: Share) -> bool:
        """Whether a call that was drawn from it may still be sent or answered."""
        return share.drawing > 0 or self.is_open(share.borrowed_id)

    def is_open(self, borrowed_id: int) -> bool:
        """Whether a call that was drawn from a lease is still promised."""
        return bool(self.journal.query(_OPEN, (borrowed_id,)))

    async def account(self, borrowed_id: int, lease_id: int) -> bool:
        """Report what became of the calls of a lease, all of which are closed; False where the service has none such.

        Raises ServiceUnavailable and UsageError.
        """
        calls = list(_reports(self.journal, borrowed_id))
        known = True
        try:
            await self.wire.post(f"/api/v1/leases/{lease_id}/return", {"calls": calls})
        except Gone as error:
            known = False
            _log.warning(
                "%s does not know lease %s of this token (%s); what was lent stays unconfirmed there until it is"
                " reconciled",
                self.wire.url,
                lease_id,
                error,
            )
        sql = "update borrowed set reported_us = ?, offered_us = iif(?, offered_us, ?) where borrowed_id = ?"
        await self.journal.run(
            lambda transaction: transaction.execute(
                sql, (transaction.now_us, known, transaction.now_us, borrowed_id)
            ).close()
        )
        return known


_OPEN: Final = (
    "select 1 from borrowed_calls join calls using (call_id) where borrowed_id = ? and state = 'promised' limit 1"
)
_CALLS: Final = (
    "select request_key, state, price_version, provider_request_id,"  # noqa: S608 - own names
    f" {', '.join(f'coalesce({unit}, 0), reserved_{unit}' for unit in UNITS)}"
    " from borrowed_calls join calls using (call_id) where borrowed_id = ? order by call_id"
)


def _reports(journal: Journal, borrowed_id: int) -> Iterator[dict[str, Json]]:
    """What is to be said of each call of a lease; of one that used nothing, nothing."""
    for key, state, price_version, name, *figures in journal.query(_CALLS, (borrowed_id,)):
        unknown = state == "unknown"
        used = figures[1::2] if unknown else figures[::2]
        if any(used):
            yield {
                "request_key": key.hex(),
                "state": "unknown" if unknown else "settled",
                **dict(zip(UNITS, used, strict=True)),
                "price_version": price_version[:300],
                "provider_request_id": None if name is None else name[:300],
            }


def _unless_over(share: Share, unless: Check | None) -> Check:
    def check(transaction: Transaction) -> None:
        if unless is not None:
            unless(transaction)
        if share.over(time.monotonic()):  # while the local caps were waited for
            raise LeaseEnded(f"lease {share.lease_id} is over")

    return check


def _noted(share: Share) -> Callable[[Transaction, Reservation], None]:
    return lambda transaction, given: transaction.add("borrowed_calls", (given.call_id, share.borrowed_id))


def _json(amounts: Amounts) -> dict[str, int]:
    return dict(zip(UNITS, amounts.each, strict=True))


def _lasting_s(expires: datetime, now: datetime | None, seconds: float) -> float:
    """How long a lease lasts for certain, by the service's own clock: ours may say another time."""
    return seconds if now is None else (expires - now).total_seconds() - CLOCK_S


class BorrowingLedger(Ledger):
    """The books of a corpus whose calls are paid out of what a service lends."""

    def __init__(self, lender: ServiceLender, borrower: Borrower) -> None:
        super().__init__(lender.journal)
        self._lender = lender
        self._borrower = borrower

    async def reserve(self, intent: Intent, *, unless: Check | None = None, noted: Noted | None = None) -> Reservation:
        """As a ledger does, within what is lent. Raises BudgetExhausted with the service's figures, too."""
        assert noted is None, "what is noted is the lease"
        return await self._borrower.reserve(intent, unless=unless)

    def freed(self) -> None:
        """Wake the reservation that waits, and whoever accounts for leases."""
        self._lender.ledger.freed()
        self._lender.waking.set()
