"""Reserve, call, settle: no cap is ever passed, whatever happens to the call.

Three figures are kept apart for every scope and unit: *settled* (the answer said so), *promised* (a call is under way)
and *unconfirmed* (a call whose outcome is unknown, booked at its worst case). Their sum never exceeds the cap.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NoReturn

from corpusgen.errors import BudgetExhausted, CorpusgenError, NotSent, TeacherError
from corpusgen.journal import Journal, Operation, Transaction, owner_alive
from corpusgen.spec import Unit

UNITS: tuple[Unit, ...] = ("microusd", "tokens", "requests")
POLL_S = 0.2
"""How often a waiting reservation looks whether another process freed something."""


@dataclass(frozen=True, kw_only=True)
class Amounts:
    """So much of each unit."""

    microusd: int = 0
    tokens: int = 0
    requests: int = 0

    @property
    def each(self) -> tuple[int, int, int]:
        """The amounts in the order of UNITS."""
        return self.microusd, self.tokens, self.requests

    def of(self, unit: Unit) -> int:
        """The amount in one unit."""
        return self.each[UNITS.index(unit)]

    def exceeds(self, other: Amounts) -> bool:
        """True when any unit is more than the other's."""
        return any(mine > theirs for mine, theirs in zip(self.each, other.each, strict=True))


@dataclass(frozen=True, kw_only=True)
class Intent:
    """One try of one request, before it is sent."""

    run_id: str
    request_key: bytes
    teacher: str
    role: str
    attempt: int
    worst: Amounts
    scopes: tuple[str, ...]
    price_version: str


@dataclass(frozen=True, kw_only=True)
class Reservation:
    """A committed promise; the call may be sent."""

    call_id: int
    worst: Amounts
    scopes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Cap:
    """An upper limit on one unit in one scope, and who set it where."""

    scope: str
    unit: Unit
    cap: int
    origin: str


@dataclass(frozen=True, kw_only=True)
class Balance:
    """What one scope has used of one unit."""

    scope: str
    unit: Unit
    settled: int
    promised: int
    unconfirmed: int
    cap: int | None
    origin: str | None


class _MustWait(CorpusgenError):
    """Promises under way may still free enough."""


@dataclass(kw_only=True)
class _Account:
    """One scope and unit inside a transaction."""

    settled: int = 0
    promised: int = 0
    unconfirmed: int = 0
    cap: int | None = None
    origin: str = ""
    changed: bool = False

    def add(self, *, settled: int = 0, promised: int = 0, unconfirmed: int = 0) -> None:
        self.settled += settled
        self.promised += promised
        self.unconfirmed += unconfirmed
        self.changed = self.changed or bool(settled or promised or unconfirmed)


@dataclass(kw_only=True)
class _Book:
    """The balances a transaction has touched; written back once, before the commit."""

    transaction: Transaction
    scopes: dict[str, dict[Unit, _Account]] = field(default_factory=dict)

    def accounts(self, scope: str) -> dict[Unit, _Account]:
        found = self.scopes.get(scope)
        if found is None:
            found = self.scopes[scope] = {unit: _Account() for unit in UNITS}
            rows = self.transaction.execute(
                "select unit, settled, promised, unconfirmed from balances where scope = ?", (scope,)
            )
            for unit, settled, promised, unconfirmed in rows:
                found[unit].settled, found[unit].promised, found[unit].unconfirmed = settled, promised, unconfirmed
            self.load_caps(scope)
        return found

    def load_caps(self, scope: str) -> None:
        accounts = self.scopes.get(scope, {})
        for account in accounts.values():
            account.cap = None
        for unit, cap, origin in self.transaction.execute(
            "select unit, cap, origin from caps where scope = ?", (scope,)
        ):
            if unit in accounts:
                accounts[unit].cap, accounts[unit].origin = cap, origin

    def write(self) -> None:
        self.transaction.connection.executemany(
            "insert into balances values(?, ?, ?, ?, ?) on conflict do update set"
            " settled = excluded.settled, promised = excluded.promised, unconfirmed = excluded.unconfirmed",
            [
                (scope, unit, account.settled, account.promised, account.unconfirmed)
                for scope, accounts in self.scopes.items()
                for unit, account in accounts.items()
                if account.changed
            ],
        )


def _book(transaction: Transaction) -> _Book:
    book = transaction.shared.get(_Book)
    if book is None:
        book = transaction.shared[_Book] = _Book(transaction=transaction)
        transaction.before_commit.append(book.write)
    assert isinstance(book, _Book)
    return book


Check = Callable[[Transaction], None]
"""Raises a CorpusgenError, without having written anything, if something speaks against it."""


class Ledger:
    """The caps and balances of one corpus."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._freed = asyncio.Event()
        self._line = asyncio.Lock()

    async def reserve(self, intent: Intent, *, unless: Check | None = None) -> Reservation:
        """A committed promise of the worst case.

        Waits while calls under way could still free enough, first come, first served. Raises BudgetExhausted when
        settled, unconfirmed and the needed amount together exceed a cap. ``unless`` looks at the same transaction first
        and may refuse with an error of its own.
        """
        operation = _reserve(intent, self._journal, unless)
        if not self._line.locked():
            with suppress(_MustWait):
                return await self._ask_once(operation)
        async with self._line:  # only the first of those who wait asks again and again
            return await self._ask_until_free(operation)

    async def _ask_until_free(self, operation: Operation[Reservation]) -> Reservation:
        while True:
            freed = self._freed
            try:
                return await self._ask_once(operation)
            except _MustWait:
                await _until(freed)

    async def _ask_once(self, operation: Operation[Reservation]) -> Reservation:
        pending = self._journal.start(operation)
        try:
            return await asyncio.shield(pending)
        except asyncio.CancelledError:
            await self._give_back(pending)
            raise

    async def _give_back(self, pending: asyncio.Future[Reservation]) -> None:
        with suppress(CorpusgenError):  # refused: there is nothing to give back
            promised = await pending
            await self._journal.run(lambda transaction: self.release(transaction, promised, "cancelled before sending"))

    def freed(self) -> None:
        """Wake the reservation that waits; call after a promise was closed."""
        self._freed.set()
        self._freed = asyncio.Event()  # a new one, so that nobody's wake-up is cleared by somebody else

    def settle(self, transaction: Transaction, reservation: Reservation, used: Amounts) -> None:
        """Book what the answer says was used, in full even above the reservation (then the state is ``overrun``)."""
        state = "overrun" if used.exceeds(reservation.worst) else "settled"
        _close(transaction, reservation, state=state, settled=used)

    def release(self, transaction: Transaction, reservation: Reservation, reason: str) -> None:
        """Free a promise of which it is known that nothing is owed."""
        _close(transaction, reservation, state="released", error=reason)

    def unknown(self, transaction: Transaction, reservation: Reservation, reason: str) -> None:
        """Keep the worst case of a call whose outcome is not known, until it is reconciled."""
        _close(transaction, reservation, state="unknown", unconfirmed=reservation.worst, error=reason)

    def failed(self, transaction: Transaction, reservation: Reservation, error: TeacherError) -> None:
        """Close a promise after a failed try, by what the failure says about the bill."""
        reason = f"{type(error).__name__}: {error}"
        if error.billable:
            self.unknown(transaction, reservation, reason)
        elif isinstance(error, NotSent):
            self.release(transaction, reservation, reason)
        else:  # refused: it costs nothing, but a request was sent
            sent = Amounts(requests=reservation.worst.requests)
            _close(transaction, reservation, state="released", settled=sent, error=reason)

    async def set_caps(self, caps: Iterable[Cap]) -> None:
        """Put caps in force; an existing one of the same scope and unit is replaced."""
        rows = [(cap.scope, cap.unit, cap.cap, cap.origin) for cap in caps]
        await self._journal.run(lambda transaction: _set_caps(transaction, rows))

    async def replace_caps(self, scope: str, caps: Iterable[Cap]) -> None:
        """Let exactly these caps bind a scope, without a moment in which none does."""
        rows = [(scope, cap.unit, cap.cap, cap.origin) for cap in caps]

        def operation(transaction: Transaction) -> None:
            _drop_caps(transaction, [(scope, unit) for unit in UNITS])
            _set_caps(transaction, rows)

        await self._journal.run(operation)

    async def drop_caps(self, scope: str, keep: Iterable[Unit]) -> None:
        """Remove a scope's caps but for the units in ``keep``."""
        kept = set(keep)
        gone = [(scope, unit) for unit in UNITS if unit not in kept]
        await self._journal.run(lambda transaction: _drop_caps(transaction, gone))

    async def recover(self) -> int:
        """Book the calls of dead processes as unknown; gives back how many there were."""
        return await self._journal.run(recover_dead_owners)


async def _until(freed: asyncio.Event) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(POLL_S):
            await freed.wait()


def balances(journal: Journal, scopes: Iterable[str] | None = None) -> list[Balance]:
    """What every scope has used, with its caps."""
    rows = journal.query(
        "select scope, unit, coalesce(settled, 0), coalesce(promised, 0), coalesce(unconfirmed, 0), cap, origin"
        " from balances full join caps using (scope, unit) order by scope, unit"
    )
    wanted = None if scopes is None else set(scopes)
    return [
        Balance(
            scope=row[0], unit=row[1], settled=row[2], promised=row[3], unconfirmed=row[4], cap=row[5], origin=row[6]
        )
        for row in rows
        if wanted is None or row[0] in wanted
    ]


def _reserve(intent: Intent, journal: Journal, unless: Check | None) -> Operation[Reservation]:
    def operation(transaction: Transaction) -> Reservation:
        if unless is not None:
            unless(transaction)
        book = _book(transaction)
        _check(book, intent)
        for scope in intent.scopes:
            for account, need in zip(book.accounts(scope).values(), intent.worst.each, strict=True):
                account.add(promised=need)
        return _insert(transaction, intent, journal.owner_id)

    return operation


def _check(book: _Book, intent: Intent) -> None:
    must_wait = False
    for scope in intent.scopes:
        for unit, account in book.accounts(scope).items():
            if account.cap is None:
                continue
            need, used = intent.worst.of(unit), account.settled + account.unconfirmed
            # A cap of 0 sends nothing at all, not even what costs nothing.
            if used + need > account.cap or account.cap == 0:
                _refuse(account, account.cap, scope, unit, need)
            must_wait = must_wait or used + account.promised + need > account.cap
    if must_wait:
        raise _MustWait


def _refuse(account: _Account, cap: int, scope: str, unit: Unit, need: int) -> NoReturn:
    show = money if unit == "microusd" else str
    raise BudgetExhausted(
        f"{account.origin}: the cap of {show(cap)} {unit_name(unit)} for {scope} is used up:"
        f" {show(account.settled)} settled, {show(account.unconfirmed)} unconfirmed,"
        f" the next call may need {show(need)}."
        f" Everything paid for is kept; raise the cap and run again to go on."
    )


def money(amount: int) -> str:
    """Micro-dollars as dollars with all their digits."""
    return f"${amount / 1_000_000:.6f}"


def unit_name(unit: Unit) -> str:
    """The word a budget uses for a unit."""
    return "usd" if unit == "microusd" else unit


def _insert(transaction: Transaction, intent: Intent, owner_id: int) -> Reservation:
    transaction.execute(
        "insert into calls(run_id, request_key, teacher, role, attempt, scopes, owner_id, state, reserved_microusd,"
        " reserved_tokens, reserved_requests, price_version, reserved_us)"
        " values(?, ?, ?, ?, ?, ?, ?, 'promised', ?, ?, ?, ?, ?)",
        (
            intent.run_id,
            intent.request_key,
            intent.teacher,
            intent.role,
            intent.attempt,
            "\n".join(intent.scopes),
            owner_id,
            intent.worst.microusd,
            intent.worst.tokens,
            intent.worst.requests,
            intent.price_version,
            transaction.now_us,
        ),
    )
    call_id = int(transaction.connection.last_insert_rowid())
    return Reservation(call_id=call_id, worst=intent.worst, scopes=intent.scopes)


def _close(
    transaction: Transaction,
    reservation: Reservation,
    *,
    state: str,
    settled: Amounts = Amounts(),
    unconfirmed: Amounts = Amounts(),
    error: str | None = None,
) -> None:
    transaction.execute(
        "update calls set state = ?, microusd = ?, tokens = ?, requests = ?, error = ?, closed_us = ?"
        " where call_id = ? and state = 'promised'",
        (
            state,
            settled.microusd,
            settled.tokens,
            settled.requests,
            error,
            transaction.now_us,
            reservation.call_id,
        ),
    )
    if transaction.connection.changes() != 1:
        return  # closed already: booked once, whoever comes second
    book = _book(transaction)
    parts = (settled.each, reservation.worst.each, unconfirmed.each)
    for scope in reservation.scopes:
        for account, booked, promised, unknown in zip(book.accounts(scope).values(), *parts, strict=True):
            account.add(settled=booked, promised=-promised, unconfirmed=unknown)


def _set_caps(transaction: Transaction, rows: list[tuple[str, Unit, int, str]]) -> None:
    transaction.connection.executemany(
        "insert into caps values(?, ?, ?, ?, ?) on conflict do update set"
        " cap = excluded.cap, origin = excluded.origin, set_us = excluded.set_us",
        [(*row, transaction.now_us) for row in rows],
    )
    _reload_caps(transaction, {row[0] for row in rows})


def _drop_caps(transaction: Transaction, gone: list[tuple[str, Unit]]) -> None:
    transaction.connection.executemany("delete from caps where scope = ? and unit = ?", gone)
    _reload_caps(transaction, {scope for scope, _ in gone})


def _reload_caps(transaction: Transaction, scopes: Iterable[str]) -> None:
    for scope in scopes:
        _book(transaction).load_caps(scope)


def recover_dead_owners(transaction: Transaction) -> int:
    """Book promises of processes that no longer run at their worst case, as unknown."""
    owners = transaction.rows(
        "select owner_id, pid, boot_id, start_ticks from owners"
        " where owner_id in (select distinct owner_id from calls where state = 'promised')"
    )
    dead = [owner_id for owner_id, *process in owners if not owner_alive(*process)]
    left = [row for owner_id in dead for row in _promises(transaction, owner_id)]
    for reservation in left:
        _close(
            transaction,
            reservation,
            state="unknown",
            unconfirmed=reservation.worst,
            error="the process ended while asking",
        )
    return len(left)


def _promises(transaction: Transaction, owner_id: int) -> list[Reservation]:
    rows = transaction.rows(
        "select call_id, reserved_microusd, reserved_tokens, reserved_requests, scopes from calls"
        " where owner_id = ? and state = 'promised'",
        (owner_id,),
    )
    return [
        Reservation(
            call_id=row[0],
            worst=Amounts(microusd=row[1], tokens=row[2], requests=row[3]),
            scopes=tuple(row[4].split("\n")),
        )
        for row in rows
    ]


def describe(amounts: Mapping[Unit, int]) -> str:
    """Caps in a person's words."""
    shown = [f"{money(n) if unit == 'microusd' else n} {unit_name(unit)}" for unit, n in amounts.items()]
    return ", ".join(shown) or "no caps"
