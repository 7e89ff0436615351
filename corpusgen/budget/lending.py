"""Lending: leases for other machines, which report what they used of them in the end.

Whoever borrows cannot be asked whether it lives. So a lease that is over without a report is booked whole as
unconfirmed, as a call of unknown outcome: nobody knows that less of it was spent. A report that comes later puts it
right, and so does ``corpusgen reconcile``.

What is reported beyond what was lent is booked on the borrower's token alone, as a call of state ``overrun``: nobody
here has seen it spent, and a report must not use up what others may spend.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import orjson

from corpusgen.budget.amounts import DAY_US, NOTHING, UNITS, Amounts
from corpusgen.budget.leases import Lease, LeaseEnded, grant_lease
from corpusgen.budget.ledger import (
    Cap,
    Intent,
    end_leases,
    latest_us,
    note_call,
    note_overrun,
    promise_anyway,
    refuse_stopped,
    set_caps,
    set_right,
    settle_as_told,
    unknown_as_told,
)
from corpusgen.fields import Unit
from corpusgen.journal import Journal, Transaction
from corpusgen.records import Json

ROLE: Final = "lent"
"""The role of calls that were made under a lease elsewhere."""
OVERDUE: Final = "select 1 from lent join leases using (lease_id) where ended_us is null and expires_us <= ? limit 1"
"""Finds out whether there are leases to be booked, without writing."""
_NOBODY_SAID: Final = "the lease was over and nobody had said what was used of it"
_BEYOND: Final = "reported beyond what was lent; booked on the token alone"


@dataclass(frozen=True, kw_only=True)
class Lent:
    """A lease in another machine's hands."""

    lease_id: int
    token_id: str
    teacher: str
    run: str | None
    scopes: tuple[str, ...]
    """As they were asked for, without periods."""
    granted: Amounts
    left: Amounts
    expires_us: int
    state: Literal["open", "returned", "overdue"]


@dataclass(frozen=True, kw_only=True)
class Reported:
    """One call made under a lease, or all of them together."""

    request_key: bytes
    state: Literal["settled", "unknown"]
    used: Amounts
    price_version: str = ""
    provider_request_id: str | None = None


@dataclass(frozen=True, kw_only=True)
class Returned:
    """What was booked of a lease, and what is free again."""

    settled: Amounts
    unconfirmed: Amounts
    freed: Amounts
    overrun: Amounts
    """What of it was beyond what was lent, and is booked on the token alone."""
    call_ids: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Wish:
    """A lease that somebody wants."""

    token_id: str
    teacher: str
    run: str | None
    scopes: tuple[str, ...]
    amounts: Amounts
    seconds: float
    run_caps: Mapping[Unit, int]
    """Caps of the run, put in force where it has none."""
    by: str


def lend(transaction: Transaction, wish: Wish, owner_id: int) -> Lent | None:
    """A lease, or None while promises could still free enough. Raises BudgetExhausted and UsageOverrun."""
    refuse_stopped(transaction, wish.teacher)
    _cap_run(transaction, wish)
    lease = grant_lease(transaction, wish.scopes, wish.amounts, round(wish.seconds * 1e6), owner_id)
    if lease is None:
        return None
    facts = {"teacher": wish.teacher, "run": wish.run, "scopes": wish.scopes, "granted": _json(wish.amounts)}
    transaction.execute(
        "insert into lent(lease_id, token_id, facts) values(?, ?, ?)",
        (lease.lease_id, wish.token_id, orjson.dumps(facts).decode()),
    )
    return _lent_of(lease, wish)


def _lent_of(lease: Lease, wish: Wish) -> Lent:
    return Lent(
        lease_id=lease.lease_id,
        token_id=wish.token_id,
        teacher=wish.teacher,
        run=wish.run,
        scopes=wish.scopes,
        granted=wish.amounts,
        left=wish.amounts,
        expires_us=lease.expires_us,
        state="open",
    )


def _cap_run(transaction: Transaction, wish: Wish) -> None:
    scope = f"run:{wish.run}"
    if (
        wish.run is None
        or not wish.run_caps
        or transaction.rows("select 1 from caps where scope = ? limit 1", (scope,))
    ):
        return
    origin = f"lease by {wish.by} with {wish.token_id}"
    caps = [Cap(scope=scope, unit=unit, cap=cap, origin=origin) for unit, cap in wish.run_caps.items()]
    set_caps(transaction, caps)


def lent_out(journal: Journal, token_id: str | None = None, lease_id: int | None = None, most: int = 200) -> list[Lent]:
    """Leases in the hands of other machines and those that were, the newest first; of one token, or one of them."""
    rows = journal.query(
        f"{_SELECT} where (:token is null or token_id = :token) and (:lease is null or lease_id = :lease)"
        " order by lease_id desc limit :most",
        {"token": token_id, "lease": lease_id, "most": most},
    )
    return [_lent(row) for row in rows]


_SELECT: Final = (
    f"select lease_id, token_id, facts, reported_us, call_id, expires_us, {', '.join(UNITS)}"  # noqa: S608 - own names
    " from lent join leases using (lease_id)"
)


def _lent(row: Sequence[Json]) -> Lent:
    lease_id, token_id, text, reported_us, call_id, expires_us, *left = row
    facts = orjson.loads(text)
    state: Literal["open", "returned", "overdue"] = "open"
    if reported_us is not None or call_id is not None:
        state = "returned" if reported_us is not None else "overdue"
    return Lent(
        lease_id=lease_id,
        token_id=token_id,
        teacher=facts["teacher"],
        run=facts["run"],
        scopes=tuple(facts["scopes"]),
        granted=Amounts(**facts["granted"]),
        left=Amounts(**dict(zip(UNITS, left, strict=True))) if state == "open" else NOTHING,
        expires_us=expires_us,
        state=state,
    )


def renew(transaction: Transaction, lease_id: int, seconds: float) -> int:
    """Until when a lease goes on, at most to the end of the day it was granted in. Raises LeaseEnded."""
    now_us = latest_us(transaction)
    rows = transaction.rows(
        "select granted_us from leases where lease_id = ? and ended_us is null and expires_us > ?", (lease_id, now_us)
    )
    if not rows:
        raise LeaseEnded(f"lease {lease_id} is over; return it, saying what was used, and ask for another")
    expires_us = min(now_us + round(seconds * 1e6), (rows[0][0] // DAY_US + 1) * DAY_US)
    transaction.execute("update leases set expires_us = ? where lease_id = ?", (expires_us, lease_id))
    return int(expires_us)


def give_back(transaction: Transaction, lease_id: int, reports: Sequence[Reported], owner_id: int) -> Returned:
    """Book what was used of a lease and free the rest; a second time it gives back what was booked the first time.

    What was used is booked in full: as far as it was lent in the lease's scopes, and the rest on the token alone.
    """
    text, token_id, reported_us, call_id = transaction.rows(
        "select facts, token_id, reported_us, call_id from lent where lease_id = ?", (lease_id,)
    )[0]
    facts = orjson.loads(text)
    if reported_us is not None:
        return _read_returned(facts["returned"])
    books = _Books(
        teacher=facts["teacher"], run=facts["run"] or f"lease-{lease_id}", token_id=token_id, owner_id=owner_id
    )
    if call_id is None:
        returned = _book_open(transaction, lease_id, books, reports)
    else:
        returned = _book_late(transaction, call_id, books, reports)
    transaction.execute(
        "update lent set reported_us = ?, facts = ? where lease_id = ?",
        (transaction.now_us, orjson.dumps({**facts, "returned": _returned_json(returned)}).decode(), lease_id),
    )
    return returned


@dataclass(frozen=True, kw_only=True)
class _Books:
    """What all calls of a lease are booked with."""

    teacher: str
    run: str
    token_id: str
    owner_id: int

    def own(self, scopes: Iterable[str]) -> tuple[str, ...]:
        """Those of some scopes that are the token's, its days and months among them."""
        whole = f"token:{self.token_id}"
        return tuple(scope for scope in scopes if scope == whole or scope.startswith(f"{whole}@"))


def _book_open(transaction: Transaction, lease_id: int, books: _Books, reports: Sequence[Reported]) -> Returned:
    columns = f"select scopes, {', '.join(UNITS)} from leases where lease_id = ?"  # noqa: S608 - own names
    text, *held = transaction.rows(columns, (lease_id,))[0]
    lent = Amounts(**dict(zip(UNITS, held, strict=True)))
    returned = _book_all(transaction, tuple(text.split("\n")), lent, books, reports)
    # The promises of the calls were added to that of the lease; now the lease's own goes, all of it.
    end_leases(transaction, [lease_id])
    return returned


def _book_all(
    transaction: Transaction, scopes: tuple[str, ...], lent: Amounts, books: _Books, reports: Sequence[Reported]
) -> Returned:
    """Book each call as far as what was lent reaches, and what is beyond that on the token."""
    left, over, call_ids = lent, NOTHING, []
    for one in reports:
        covered = _least(one.used, left)
        left, beyond = _minus(left, covered), _minus(one.used, covered)
        call_ids.append(_book_one(transaction, scopes, replace(one, used=covered), books))
        if any(beyond.each):
            over = over.plus(beyond)
            _book_beyond(transaction, books.own(scopes), replace(one, used=beyond), books)
    return _returned(reports, left, over, call_ids)


def _least(one: Amounts, other: Amounts) -> Amounts:
    return Amounts(**{unit: min(one.of(unit), other.of(unit)) for unit in UNITS})


def _minus(one: Amounts, other: Amounts) -> Amounts:
    return Amounts(**{unit: one.of(unit) - other.of(unit) for unit in UNITS})


def _book_one(transaction: Transaction, scopes: tuple[str, ...], one: Reported, books: _Books) -> int:
    promise_anyway(transaction, scopes, one.used)
    reservation = note_call(transaction, _intent(one, books.teacher, books.run), scopes, books.owner_id)
    if one.state == "settled":
        settle_as_told(transaction, reservation, one.used, request_id=one.provider_request_id)
    else:
        unknown_as_told(transaction, reservation, "reported as unknown by who made it", one.provider_request_id)
    return reservation.call_id


def _book_beyond(transaction: Transaction, scopes: tuple[str, ...], one: Reported, books: _Books) -> None:
    note = _intent(replace(one, used=NOTHING), books.teacher, books.run)
    reservation = note_call(transaction, note, scopes, books.owner_id)
    note_overrun(transaction, reservation, one.used, _BEYOND, one.provider_request_id)


def _intent(one: Reported, teacher: str, run: str) -> Intent:
    return Intent(
        run_id=run,
        request_key=one.request_key,
        teacher=teacher,
        role=ROLE,
        attempt=1,
        worst=one.used,
        scopes=(),
        price_version=one.price_version,
    )


def _returned(reports: Sequence[Reported], left: Amounts, over: Amounts, call_ids: Iterable[int]) -> Returned:
    settled = _sum(one.used for one in reports if one.state == "settled")
    unconfirmed = _sum(one.used for one in reports if one.state == "unknown")
    return Returned(settled=settled, unconfirmed=unconfirmed, freed=left, overrun=over, call_ids=tuple(call_ids))


def _sum(amounts: Iterable[Amounts]) -> Amounts:
    total = NOTHING
    for one in amounts:
        total = total.plus(one)
    return total


def _book_late(transaction: Transaction, call_id: int, books: _Books, reports: Sequence[Reported]) -> Returned:
    """What is reported of a lease that is booked as unconfirmed already takes the place of that."""
    rows = transaction.rows(
        "select scopes, reserved_microusd, reserved_tokens, reserved_requests, reserved_compute_us from calls"
        " where call_id = ?",
        (call_id,),
    )
    scopes, *held = rows[0]
    if not set_right(transaction, call_id, "released", NOTHING):  # somebody has reconciled it since: that word stands
        return Returned(settled=NOTHING, unconfirmed=NOTHING, freed=NOTHING, overrun=NOTHING, call_ids=())
    lent = Amounts(**dict(zip(UNITS, held, strict=True)))
    return _book_all(transaction, tuple(scopes.split("\n")), lent, books, reports)


def book_overdue(transaction: Transaction, owner_id: int) -> list[int]:
    """Book leases that are over without a report as unconfirmed, whole; gives back which."""
    rows = transaction.rows(
        f"select lease_id, facts, scopes, {', '.join(UNITS)} from lent join leases using (lease_id)"  # noqa: S608
        " where ended_us is null and reported_us is null and expires_us <= ?",
        (latest_us(transaction),),
    )
    for lease_id, text, scopes, *left in rows:
        facts, held = orjson.loads(text), Amounts(**dict(zip(UNITS, left, strict=True)))
        whole = Reported(request_key=_key_of(lease_id), state="unknown", used=held)
        intent = _intent(whole, facts["teacher"], facts["run"] or f"lease-{lease_id}")
        promise_anyway(transaction, scopes.split("\n"), held)
        reservation = note_call(transaction, intent, tuple(scopes.split("\n")), owner_id)
        unknown_as_told(transaction, reservation, _NOBODY_SAID)
        end_leases(transaction, [lease_id])
        transaction.execute("update lent set call_id = ? where lease_id = ?", (reservation.call_id, lease_id))
    return [row[0] for row in rows]


def totals(lease_id: int, used: Amounts) -> Reported:
    """A report that tells all calls of a lease together."""
    return Reported(request_key=_key_of(lease_id), state="settled", used=used)


def _key_of(lease_id: int) -> bytes:
    """What stands for the requests of a lease that nobody has named."""
    return hashlib.sha256(f"lease {lease_id}".encode()).digest()


def _json(amounts: Amounts) -> dict[str, int]:
    return dict(zip(UNITS, amounts.each, strict=True))


_FIGURES: Final = ("settled", "unconfirmed", "freed", "overrun")


def _returned_json(returned: Returned) -> dict[str, Json]:
    parts = {name: _json(getattr(returned, name)) for name in _FIGURES}
    return {**parts, "call_ids": returned.call_ids}


def _read_returned(fields: Mapping[str, Json]) -> Returned:
    parts = {name: Amounts(**fields.get(name, {})) for name in _FIGURES}
    return Returned(**parts, call_ids=tuple(fields["call_ids"]))
