"""Reserve, call, settle: no cap is ever passed, whatever happens to the call.

Three figures are kept apart for every scope and unit: *settled* (the answer said so), *promised* (a call is under way)
and *unconfirmed* (a call whose outcome is unknown, booked at its worst case). Their sum never exceeds the cap.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import Literal, NoReturn

import apsw

from corpusgen.budget.amounts import CAPPED, DAY_US, NOTHING, UNITS, Amounts, in_period, period_of, shown, unit_name
from corpusgen.errors import BudgetExhausted, CorpusgenError, NotSent, TeacherError
from corpusgen.journal import Journal, Operation, Transaction, owner_alive
from corpusgen.spec import Per, Unit

_LOOKUP = 400
POLL_S = 0.2
"""How often a waiting reservation looks whether another process freed something."""


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
    """Where it is booked: the intent's scopes, and those of their periods that have caps, such as corpus@2026-11-21."""


@dataclass(frozen=True, kw_only=True)
class Cap:
    """An upper limit on one unit in one scope, for ever or in every day or month, and who set it where."""

    scope: str
    unit: Unit
    cap: int
    origin: str
    per: Per = "total"


@dataclass(frozen=True, kw_only=True)
class Balance:
    """What one scope, or one period of it, has used of one unit."""

    scope: str
    unit: Unit
    settled: int
    promised: int
    unconfirmed: int
    cap: int | None
    origin: str | None
    per: Per = "total"


class MustWait(CorpusgenError):
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


Accounts = dict[Unit, _Account]


@dataclass(frozen=True, kw_only=True)
class _Bound:
    """Everything that a call in some scopes is booked in, and the caps among it."""

    scopes: tuple[str, ...]
    accounts: list[Accounts]
    capped: list[tuple[str, Unit, _Account]]


@dataclass(kw_only=True)
class _Book:
    """The balances a transaction has touched; written back once, before the commit."""

    transaction: Transaction
    scopes: dict[str, Accounts] = field(default_factory=dict)
    bounds: dict[tuple[str, ...], _Bound] = field(default_factory=dict)

    @cached_property
    def now_us(self) -> int:
        """The latest time the ledger knows of: a clock that jumps back takes no call into an earlier period."""
        last = self.transaction.rows("select reserved_us from calls order by call_id desc limit 1")
        return max(self.transaction.now_us, last[0][0] if last else 0)

    def accounts(self, scope: str) -> Accounts:
        found = self.scopes.get(scope)
        if found is None:
            found = self.scopes[scope] = {unit: _Account() for unit in CAPPED}
            rows = self.transaction.execute(
                "select unit, settled, promised, unconfirmed from balances where scope = ?", (scope,)
            )
            for unit, settled, promised, unconfirmed in rows:
                found[unit].settled, found[unit].promised, found[unit].unconfirmed = settled, promised, unconfirmed
        return found

    def bound(self, scopes: tuple[str, ...]) -> _Bound:
        found = self.bounds.get(scopes)
        if found is None:
            names = dict.fromkeys(name for scope in scopes for name in self._load_caps(scope))
            accounts = {name: self.accounts(name) for name in names}
            capped = [
                (name, unit, account)
                for name, units in accounts.items()
                for unit, account in units.items()
                if account.cap is not None
            ]
            found = _Bound(scopes=tuple(names), accounts=list(accounts.values()), capped=capped)
            self.bounds[scopes] = found
        return found

    def _load_caps(self, scope: str) -> Iterator[str]:
        """The scope and those of its periods that have caps now."""
        yield scope
        rows = self.transaction.rows("select unit, per, cap, origin from caps where scope = ?", (scope,))
        for unit, per, cap, origin in rows:
            name = in_period(scope, per, self.now_us)
            account = self.accounts(name)[unit]
            account.cap, account.origin = cap, origin
            yield name

    def caps_changed(self) -> None:
        self.bounds.clear()
        for accounts in self.scopes.values():
            for account in accounts.values():
                account.cap = None

    def write(self) -> None:
        rows = [
            (scope, unit, account.settled, account.promised, account.unconfirmed)
            for scope, accounts in self.scopes.items()
            for unit, account in accounts.items()
            if account.changed
        ]
        self.transaction.connection.executemany(
            "insert into balances values(?, ?, ?, ?, ?) on conflict do update set"
            " settled = excluded.settled, promised = excluded.promised, unconfirmed = excluded.unconfirmed",
            rows,
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
            with suppress(MustWait):
                return await self._ask_once(operation)
        async with self._line:  # only the first of those who wait asks again and again
            return await self._ask_until_free(operation)

    async def _ask_until_free(self, operation: Operation[Reservation]) -> Reservation:
        while True:
            freed = self._freed
            try:
                return await self._ask_once(operation)
            except MustWait:
                await _until(freed)
                if not freed.is_set():  # perhaps all that could free something is promised to a process that died
                    await self.recover()

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

    def settle(
        self, transaction: Transaction, reservation: Reservation, used: Amounts, *, request_id: str | None = None
    ) -> None:
        """Book what the answer says was used, in full even above the reservation (then the state is ``overrun``)."""
        state = "overrun" if used.exceeds(reservation.worst) else "settled"
        _close(transaction, reservation, state=state, settled=used, request_id=request_id)

    def release(self, transaction: Transaction, reservation: Reservation, reason: str) -> None:
        """Free a promise of which it is known that nothing is owed."""
        _close(transaction, reservation, state="released", error=reason)

    def unknown(
        self, transaction: Transaction, reservation: Reservation, reason: str, *, request_id: str | None = None
    ) -> None:
        """Keep the worst case of a call whose outcome is not known, until it is reconciled."""
        worst = reservation.worst
        _close(transaction, reservation, state="unknown", unconfirmed=worst, error=reason, request_id=request_id)

    def failed(self, transaction: Transaction, reservation: Reservation, error: TeacherError) -> None:
        """Close a promise after a failed try, by what the failure says about the bill."""
        reason = f"{type(error).__name__}: {error}"
        if error.billable:
            self.unknown(transaction, reservation, reason, request_id=error.request_id)
        elif isinstance(error, NotSent):
            self.release(transaction, reservation, reason)
        else:  # refused: it costs nothing, but a request was sent
            sent = Amounts(requests=reservation.worst.requests)
            name = error.request_id
            _close(transaction, reservation, state="released", settled=sent, error=reason, request_id=name)

    async def set_caps(self, caps: Iterable[Cap]) -> None:
        """Put caps in force; an existing one of the same scope, unit and period is replaced."""
        rows = list(caps)
        await self._journal.run(lambda transaction: set_caps(transaction, rows))

    async def replace_caps(self, scope: str, caps: Iterable[Cap]) -> None:
        """Let exactly these caps bind a scope as a whole, without a moment in which none does."""
        rows = [replace(cap, scope=scope) for cap in caps]

        def operation(transaction: Transaction) -> None:
            remove_caps(transaction, scope, CAPPED)
            set_caps(transaction, rows)

        await self._journal.run(operation)

    def time_passed(
        self, transaction: Transaction, run_id: str, scopes: tuple[str, ...], passed_us: int, span: int | None
    ) -> tuple[int, int | None]:
        """Book time a process has worked on a run; gives back its span, and how much is left where time has a cap."""
        book = _book(transaction)
        bound = book.bound(scopes)
        for accounts in bound.accounts:
            accounts["wall_us"].add(settled=passed_us)
        span = _stretch(transaction, span, run_id, self._journal.owner_id, bound.scopes, passed_us, book.now_us)
        left = [(account.cap or 0) - account.settled for _, unit, account in bound.capped if unit == "wall_us"]
        return span, min(left) if left else None

    async def abandon(self, claim: Claim) -> None:
        """Book one open promise as unknown: whoever made it will never close it."""
        await self._journal.run(
            lambda transaction: _abandon(transaction, _promises(transaction, "call_id", claim.call_id))
        )
        self.freed()

    async def recover(self) -> int:
        """Book the calls of dead processes as unknown; gives back how many there were."""
        return await self._journal.run(recover_dead_owners)


async def _until(freed: asyncio.Event) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(POLL_S):
            await freed.wait()


def balances(journal: Journal, scopes: Iterable[str] | None = None) -> list[Balance]:
    """What every scope has used, with its caps; and what each of its periods has used that had a cap."""
    now_us = max(journal.clock_us(), *(row[0] for row in journal.query(_LAST)))
    caps = {
        (in_period(scope, per, now_us), unit): (cap, origin)
        for scope, unit, per, cap, origin in journal.query("select scope, unit, per, cap, origin from caps")
    }
    used = {
        (scope, unit): figures
        for scope, unit, *figures in journal.query("select scope, unit, settled, promised, unconfirmed from balances")
    }
    wanted = None if scopes is None else set(scopes)
    found = []
    for scope, unit in sorted(caps.keys() | used.keys()):
        if wanted is None or scope in wanted:
            settled, promised, unconfirmed = used.get((scope, unit), (0, 0, 0))
            cap, origin = caps.get((scope, unit), (None, None))
            found.append(
                Balance(
                    scope=scope,
                    unit=unit,
                    settled=settled,
                    promised=promised,
                    unconfirmed=unconfirmed,
                    cap=cap,
                    origin=origin,
                    per=period_of(scope)[1],
                )
            )
    return found


_LAST = "select coalesce((select reserved_us from calls order by call_id desc limit 1), 0)"


def _reserve(intent: Intent, journal: Journal, unless: Check | None) -> Operation[Reservation]:
    def operation(transaction: Transaction) -> Reservation:
        if unless is not None:
            unless(transaction)
        scopes = promise(transaction, intent.scopes, intent.worst)
        return note_call(transaction, intent, scopes, journal.owner_id)

    return operation


def promise(
    transaction: Transaction, scopes: tuple[str, ...], amounts: Amounts, *, sends: bool = True
) -> tuple[str, ...]:
    """Book so much as promised, if every cap allows it; gives back where, the periods that have caps included.

    ``sends`` False is for work that asks nobody, which a cap of 0 requests or dollars does not stop.
    """
    bound = _book(transaction).bound(scopes)
    _check(bound, amounts, sends)
    for unit, need in zip(UNITS, amounts.each, strict=True):
        if need:
            for accounts in bound.accounts:
                accounts[unit].add(promised=need)
    return bound.scopes


def free(transaction: Transaction, scopes: Iterable[str], amounts: Amounts) -> None:
    """Take back a promise of so much."""
    for scope in scopes:
        accounts = _book(transaction).accounts(scope)
        for unit, left in zip(UNITS, amounts.each, strict=True):
            accounts[unit].add(promised=-left)


def latest_us(transaction: Transaction) -> int:
    """The time by which the ledger goes: the clock's, or that of its last call if the clock has jumped back."""
    return _book(transaction).now_us


def _check(bound: _Bound, worst: Amounts, sends: bool) -> None:
    must_wait = False
    for scope, unit, account in bound.capped:
        cap = account.cap or 0
        need, used = worst.of(unit), account.settled + account.unconfirmed
        # A cap of 0 sends nothing at all, not even what costs nothing; and time is used up without being asked for.
        if used + need > cap or (sends and cap == 0) or (unit == "wall_us" and used >= cap):
            _refuse(account, cap, scope, unit, need, _CALL if sends else "the work ahead")
        must_wait = must_wait or used + account.promised + need > cap
    if must_wait:
        raise MustWait


_CALL = "the next call"


def _refuse(account: _Account, cap: int, name: str, unit: Unit, need: int, what: str) -> NoReturn:
    scope, per = period_of(name)
    within = {"total": "", "day": f" on {name[-10:]} (UTC)", "month": f" in {name[-7:]} (UTC)"}[per]
    bounded = ", as its timeout_s says" if unit == "compute_us" and what == _CALL else ""
    later = "" if per == "total" else f", or wait until the {per} is over,"
    raise BudgetExhausted(
        f"{account.origin}: the cap of {shown(cap, unit)} {unit_name(unit)} for {scope}{within} is used up:"
        f" {shown(account.settled, unit)} settled, {shown(account.unconfirmed, unit)} unconfirmed,"
        f" {what} may need {shown(need, unit)}{bounded}."
        f" Everything paid for is kept; raise the cap{later} and run again to go on."
    )


def note_call(transaction: Transaction, intent: Intent, scopes: tuple[str, ...], owner_id: int) -> Reservation:
    """A row for a call that is promised already."""
    transaction.execute(
        "insert into calls(run_id, request_key, teacher, role, attempt, scopes, owner_id, state, reserved_microusd,"
        " reserved_tokens, reserved_requests, reserved_compute_us, price_version, reserved_us)"
        " values(?, ?, ?, ?, ?, ?, ?, 'promised', ?, ?, ?, ?, ?, ?)",
        (
            intent.run_id,
            intent.request_key,
            intent.teacher,
            intent.role,
            intent.attempt,
            "\n".join(scopes),
            owner_id,
            intent.worst.microusd,
            intent.worst.tokens,
            intent.worst.requests,
            intent.worst.compute_us,
            intent.price_version,
            _book(transaction).now_us,
        ),
    )
    call_id = int(transaction.connection.last_insert_rowid())
    return Reservation(call_id=call_id, worst=intent.worst, scopes=scopes)


def _close(
    transaction: Transaction,
    reservation: Reservation,
    *,
    state: str,
    settled: Amounts = NOTHING,
    unconfirmed: Amounts = NOTHING,
    error: str | None = None,
    request_id: str | None = None,
) -> None:
    closed = transaction.rows(
        "update calls set state = ?, microusd = ?, tokens = ?, requests = ?, compute_us = ?, error = ?,"
        " provider_request_id = ?, closed_us = ?"
        " where call_id = ? and state = 'promised' returning scopes",
        (
            state,
            *settled.each,
            error,
            request_id,
            transaction.now_us,
            reservation.call_id,
        ),
    )
    if not closed:
        return  # closed already: booked once, whoever comes second
    # The row's scopes, not the reservation's: a period may have got its cap since, and counts what is under way.
    accounts = [_book(transaction).accounts(scope) for scope in closed[0][0].split("\n")]
    parts = (UNITS, settled.each, reservation.worst.each, unconfirmed.each)
    for unit, booked, promised, unknown in zip(*parts, strict=True):
        if booked or promised or unknown:
            for units in accounts:
                units[unit].add(settled=booked, promised=-promised, unconfirmed=unknown)


def set_caps(transaction: Transaction, caps: Iterable[Cap]) -> None:
    """Put caps in force; a period counts what was reserved in it before it had a cap."""
    book = _book(transaction)
    for cap in caps:
        if cap.per != "total":
            _count_period(book, cap.scope, cap.per)
        transaction.execute(
            "insert into caps(scope, unit, per, cap, origin, set_us) values(?, ?, ?, ?, ?, ?) on conflict do update set"
            " cap = excluded.cap, origin = excluded.origin, set_us = excluded.set_us",
            (cap.scope, cap.unit, cap.per, cap.cap, cap.origin, transaction.now_us),
        )
    book.caps_changed()


def remove_caps(transaction: Transaction, scope: str, units: Iterable[Unit], per: Per = "total") -> None:
    """Let no cap bind a scope in these units."""
    transaction.connection.executemany(
        "delete from caps where scope = ? and unit = ? and per = ?", [(scope, unit, per) for unit in units]
    )
    _book(transaction).caps_changed()


def _count_period(book: _Book, scope: str, per: Per) -> None:
    """Book the calls and the time of the present period in it, those that lacked it so far included."""
    name, transaction = in_period(scope, per, book.now_us), book.transaction
    values = {"name": name, "scope": scope, "since": _began(name)}
    for table, began in (("calls", "reserved_us"), ("spans", "began_us"), ("leases", "granted_us")):
        transaction.execute(
            f"update {table} set scopes = scopes || char(10) || :name where {began} >= :since"  # noqa: S608 - own text
            f" and {_LISTS.format('scope')} and not {_LISTS.format('name')}",
            values,
        )
    sums = ", ".join(
        f"sum(coalesce({unit}, 0)), sum(iif(state = 'promised', reserved_{unit}, 0)),"
        f" sum(iif(state = 'unknown', reserved_{unit}, 0))"
        for unit in UNITS
    )
    lists = _LISTS.format("name")
    (figures,) = transaction.rows(f"select {sums} from calls where reserved_us >= :since and {lists}", values)  # noqa: S608
    (time,) = transaction.rows(f"select sum(wall_us) from spans where began_us >= :since and {lists}", values)  # noqa: S608
    left = ", ".join(f"coalesce(sum({unit}), 0)" for unit in UNITS)
    (leased,) = transaction.rows(f"select {left} from leases where ended_us is null and {lists}", values)  # noqa: S608
    accounts = book.accounts(name)
    for at, unit in enumerate(UNITS):
        settled, promised, unconfirmed = figures[3 * at : 3 * at + 3]
        _put(accounts[unit], settled, (promised or 0) + leased[at], unconfirmed)
    _put(accounts["wall_us"], time[0])


_LISTS = "instr(char(10) || scopes || char(10), char(10) || :{} || char(10))"


def _began(name: str) -> int:
    day = name.rpartition("@")[2]
    return int(datetime.fromisoformat(day if len(day) == 10 else f"{day}-01").replace(tzinfo=UTC).timestamp()) * 10**6


def _put(account: _Account, settled: int | None, promised: int | None = 0, unconfirmed: int | None = 0) -> None:
    account.settled, account.promised, account.unconfirmed = settled or 0, promised or 0, unconfirmed or 0
    account.changed = True


def _stretch(
    transaction: Transaction,
    span: int | None,
    run_id: str,
    owner_id: int,
    scopes: tuple[str, ...],
    passed_us: int,
    now_us: int,
) -> int:
    """Add time to a span, or to a new one where the day or the periods are others."""
    names, day = "\n".join(scopes), now_us // DAY_US
    grown = transaction.rows(
        "update spans set wall_us = wall_us + ? where span_id = ? and scopes = ? and began_us / ? = ?"
        " returning span_id",
        (passed_us, span, names, DAY_US, day),
    )
    if grown and span is not None:
        return span
    transaction.execute(
        "insert into spans(run_id, owner_id, scopes, began_us, wall_us) values(?, ?, ?, ?, ?)",
        (run_id, owner_id, names, now_us, passed_us),
    )
    return int(transaction.connection.last_insert_rowid())


def recover_dead_owners(transaction: Transaction) -> int:
    """Book promises of processes that no longer run at their worst case, as unknown; what they had leased is free.

    Calls in a batch are left alone: the provider works on them whoever lives here.
    """
    end_leases(transaction, _over(transaction))
    owners = transaction.rows(
        "select owner_id, pid, boot_id, start_ticks from owners"
        " where owner_id in (select distinct owner_id from calls where state = 'promised' and batch_id is null)"
    )
    dead = [owner_id for owner_id, *process in owners if not owner_alive(*process)]
    return sum(_abandon(transaction, _promises(transaction, "owner_id", owner_id)) for owner_id in dead)


def _over(transaction: Transaction) -> list[int]:
    """Leases whose time is over, or whose owner no longer runs."""
    rows = transaction.rows(
        "select lease_id, expires_us, pid, boot_id, start_ticks from leases join owners using (owner_id)"
        " where ended_us is null"
    )
    return [row[0] for row in rows if row[1] <= _book(transaction).now_us or not owner_alive(*row[2:])]


def end_leases(transaction: Transaction, lease_ids: Iterable[int]) -> Amounts:
    """Free what is left of leases; gives back how much that was. What was drawn from them stays promised."""
    freed = Amounts()
    for lease_id in lease_ids:
        rows = transaction.rows(
            "update leases set ended_us = ? where lease_id = ? and ended_us is null"  # noqa: S608 - own names
            f" returning scopes, {', '.join(UNITS)}",
            (transaction.now_us, lease_id),
        )
        for scopes, *left in rows:
            rest = Amounts(**dict(zip(UNITS, left, strict=True)))
            free(transaction, scopes.split("\n"), rest)
            freed = freed.plus(rest)
    return freed


def _abandon(transaction: Transaction, left: list[Reservation]) -> int:
    for reservation in left:
        _close(
            transaction,
            reservation,
            state="unknown",
            unconfirmed=reservation.worst,
            error="the process ended while asking",
        )
    return len(left)


def _promises(transaction: Transaction, column: Literal["call_id", "owner_id"], value: int) -> list[Reservation]:
    rows = transaction.rows(
        "select call_id, reserved_microusd, reserved_tokens, reserved_requests, reserved_compute_us, scopes"  # noqa: S608
        f" from calls where {column} = ? and state = 'promised' and batch_id is null",
        (value,),
    )
    return [
        Reservation(
            call_id=row[0],
            worst=Amounts(microusd=row[1], tokens=row[2], requests=row[3], compute_us=row[4]),
            scopes=tuple(row[5].split("\n")),
        )
        for row in rows
    ]


@dataclass(frozen=True, kw_only=True)
class Claim:
    """An open promise for one request: somebody asks this very thing at the moment."""

    call_id: int
    owner_id: int
    alive: bool
    """Whether the process that asks still runs; a batch outlives its process."""
    batch_id: str | None = None
    """The batch in which it is asked, if it is in one."""


def claim_on(connection: apsw.Connection, request_key: bytes) -> Claim | None:
    """Who asks for this now, if anybody does. A claim is the promise itself, so it ends when that is closed."""
    row = connection.execute(
        "select call_id, owner_id, batch_id, pid, boot_id, start_ticks from claims join owners using (owner_id)"
        " where request_key = ? limit 1",
        (request_key,),
    ).fetchone()
    if row is None:
        return None
    alive = row[2] is not None or owner_alive(*row[3:])
    return Claim(call_id=row[0], owner_id=row[1], batch_id=row[2], alive=alive)


def claims_on(connection: apsw.Connection, request_keys: Sequence[bytes]) -> dict[bytes, str | None]:
    """Which of these requests somebody asks now, and in which batch; None for one asked by itself."""
    found: dict[bytes, str | None] = {}
    for start in range(0, len(request_keys), _LOOKUP):
        chunk = tuple(request_keys[start : start + _LOOKUP])
        marks = ",".join("?" * len(chunk))
        found.update(
            connection.execute(f"select request_key, batch_id from claims where request_key in ({marks})", chunk)  # noqa: S608
        )
    return found


def set_right(transaction: Transaction, call_id: int, state: Literal["settled", "released"], used: Amounts) -> bool:
    """Close a call whose outcome was unknown by what is known of it now; False where it is closed already."""
    rows = transaction.rows(
        "select reserved_microusd, reserved_tokens, reserved_requests, reserved_compute_us, scopes from calls"
        " where call_id = ? and state = 'unknown'",
        (call_id,),
    )
    if not rows:
        return False
    *worst, scopes = rows[0]
    over = any(mine > theirs for mine, theirs in zip(used.each, worst, strict=True))
    transaction.execute(
        "update calls set state = ?, microusd = ?, tokens = ?, requests = ?, compute_us = ? where call_id = ?",
        ("overrun" if over else state, *used.each, call_id),
    )
    for scope in scopes.split("\n"):
        accounts = _book(transaction).accounts(scope)
        for unit, settled, unconfirmed in zip(UNITS, used.each, worst, strict=True):
            accounts[unit].add(settled=settled, unconfirmed=-unconfirmed)
    return True
