"""Reserve, call, settle: no cap is ever passed, whatever happens to the call.

Three figures are kept apart for every scope and unit: *settled* (the answer said so), *promised* (a call is under way)
and *unconfirmed* (a call whose outcome is unknown, booked at its worst case). Their sum never exceeds the cap.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache, cached_property
from itertools import chain, count
from typing import Literal, NoReturn

import apsw

from corpusgen.budget.amounts import CAPPED, DAY_US, NOTHING, UNITS, Amounts, in_period, period_of, shown, unit_name
from corpusgen.errors import BudgetExhausted, CorpusgenError, InvalidAnswer, NotSent, TeacherError, UsageOverrun
from corpusgen.fields import Per, Unit
from corpusgen.frozen import quickly_made
from corpusgen.journal import About, Journal, Operation, Transaction, marks, owner_alive, portions

_LOOKUP = 400
MOST_UNREADABLE = 2**20
"""Bytes that are kept of what came instead of an answer."""
POLL_S = 0.2
"""How often a waiting reservation looks whether another process freed something."""


@quickly_made
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


@quickly_made
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
    accounts: Mapping[Unit, Sequence[_Account]]
    capped: list[tuple[str, Unit, _Account]]

    def promise(self, amounts: Amounts) -> None:
        """Book so much as promised."""
        for unit, need in zip(UNITS, amounts.each, strict=True):
            if need:
                for account in self.accounts[unit]:
                    account.promised += need
                    account.changed = True


@dataclass(kw_only=True)
class _Book:
    """The balances a transaction has touched; written back once, before the commit."""

    transaction: Transaction
    scopes: dict[str, Accounts] = field(default_factory=dict)
    bounds: dict[tuple[str, ...], _Bound] = field(default_factory=dict)
    closing: dict[int, _Closing] = field(default_factory=dict)
    """Calls to close, not yet written down; whoever asks for the balances has them closed first."""

    @cached_property
    def _last(self) -> tuple[int, int]:
        """Number and time of the last call before this transaction's."""
        last = self.transaction.rows(_LAST)
        return (last[0][0], last[0][1]) if last else (0, 0)

    @cached_property
    def now_us(self) -> int:
        """The latest time the ledger knows of: a clock that jumps back takes no call into an earlier period."""
        return max(self.transaction.now_us, self._last[1])

    @property
    def ahead(self) -> str:
        """What a person should know where the ledger's time is more than a day later than the clock's."""
        clock_us, last_us = self.transaction.now_us, self._last[1]
        if last_us - clock_us <= DAY_US:
            return ""
        return (
            f" The clock says {_told(clock_us)}, but a call was made at {_told(last_us)}, and days and months go by"
            " that; if the clock was wrong then: corpusgen budget reset-clock --by NAME --reason TEXT."
        )

    @cached_property
    def call_ids(self) -> Iterator[int]:
        """Numbers for more calls; nobody else can take them before the commit."""
        return count(self._last[0] + 1)

    def accounts(self, scope: str) -> Accounts:
        self._load((scope,))
        return self.scopes[scope]

    def _load(self, scopes: Iterable[str]) -> None:
        lacking = tuple(scope for scope in scopes if scope not in self.scopes)
        if not lacking:
            return
        for scope in lacking:
            self.scopes[scope] = {unit: _Account() for unit in CAPPED}
        rows = self.transaction.rows(
            "select scope, unit, settled, promised, unconfirmed from balances"  # noqa: S608 - own text
            f" where scope in ({', '.join('?' * len(lacking))})",
            lacking,
        )
        for scope, unit, settled, promised, unconfirmed in rows:
            account = self.scopes[scope][unit]
            account.settled, account.promised, account.unconfirmed = settled, promised, unconfirmed

    def bound(self, scopes: tuple[str, ...]) -> _Bound:
        found = self.bounds.get(scopes)
        if found is None:
            names = self._load_caps(scopes)
            accounts = {name: self.scopes[name] for name in names}
            capped = [
                (name, unit, account)
                for name, units in accounts.items()
                for unit, account in units.items()
                if account.cap is not None
            ]
            of_unit = {unit: [units[unit] for units in accounts.values()] for unit in CAPPED}
            found = _Bound(scopes=tuple(names), accounts=of_unit, capped=capped)
            self.bounds[scopes] = found
        return found

    def _load_caps(self, scopes: tuple[str, ...]) -> list[str]:
        """The scopes, each with those of its periods that have caps now."""
        rows = self.transaction.rows(
            "select scope, unit, per, cap, origin from caps"  # noqa: S608 - own text
            f" where scope in ({', '.join('?' * len(scopes))})",
            scopes,
        )
        capped = [
            (scope, in_period(scope, per, self.now_us), unit, cap, origin) for scope, unit, per, cap, origin in rows
        ]
        periods = {scope: [name for of, name, *_ in capped if of == scope] for scope in scopes}
        names = list(dict.fromkeys(name for scope in scopes for name in (scope, *periods[scope])))
        self._load(names)
        for _, name, unit, cap, origin in capped:
            account = self.scopes[name][unit]
            account.cap, account.origin = cap, origin
        return names

    def caps_changed(self) -> None:
        self.bounds.clear()
        for accounts in self.scopes.values():
            for account in accounts.values():
                account.cap = None

    def close_waiting(self) -> None:
        """Close the calls that wait for it, and book what became of those that were still open."""
        while self.closing:
            closing, self.closing = self.closing, {}
            rows = [(call_id, *one.row) for call_id, one in closing.items()]
            self._book_closed(closing, chain.from_iterable(map(self._closed, portions(rows))))

    def _closed(self, rows: Sequence[tuple[object, ...]]) -> list[tuple[int, str]]:
        """Those of some calls that were open, and where they are booked."""
        self.transaction.write_waiting()  # a call may be one of those that this transaction adds
        found = self.transaction.write_late(
            _close_statement(len(rows)), (*chain.from_iterable(rows), self.transaction.now_us)
        )
        return [(call_id, scopes) for call_id, scopes in found]

    def _book_closed(self, closing: dict[int, _Closing], closed: Iterable[tuple[int, str]]) -> None:
        # The rows' scopes, not the reservations': a period may have got its cap since, and counts what is under way.
        together: dict[str, list[_Closing]] = {}
        for call_id, scopes in closed:
            together.setdefault(scopes, []).append(closing[call_id])
        for scopes, ones in together.items():
            settled, promised, unconfirmed = (
                [sum(each) for each in zip(*figures, strict=True)]
                for figures in (
                    [one.settled for one in ones],
                    [one.promised for one in ones],
                    [one.unconfirmed for one in ones],
                )
            )
            for scope in scopes.split("\n"):
                accounts = self.accounts(scope)
                for at, unit in enumerate(UNITS):
                    accounts[unit].add(settled=settled[at], promised=-promised[at], unconfirmed=unconfirmed[at])

    def write(self) -> None:
        self.close_waiting()
        rows = [
            (scope, unit, account.settled, account.promised, account.unconfirmed)
            for scope, accounts in self.scopes.items()
            for unit, account in accounts.items()
            if account.changed
        ]
        for some in portions(rows):
            self.transaction.execute(
                f"insert into balances values {marks(5, len(some))} on conflict do update set"  # noqa: S608 - own text
                " settled = excluded.settled, promised = excluded.promised, unconfirmed = excluded.unconfirmed",
                tuple(chain.from_iterable(some)),
            )


@quickly_made
@dataclass(frozen=True, kw_only=True)
class _Closing:
    """What becomes of a call, and how much of what it had promised was used."""

    row: tuple[object, ...]
    settled: tuple[int, ...]
    promised: tuple[int, ...]
    unconfirmed: tuple[int, ...]


@cache
def _close_statement(rows: int) -> str:
    return (
        "with closing(id, became, used_microusd, used_tokens, used_requests, used_compute_us, failure, named) as"  # noqa: S608
        f" (values {marks(8, rows)})"
        " update calls set state = became, microusd = used_microusd, tokens = used_tokens, requests = used_requests,"
        " compute_us = used_compute_us, error = failure, provider_request_id = named, closed_us = ?"
        " from closing where call_id = id and state = 'promised' returning call_id, scopes"
    )


def _book(transaction: Transaction) -> _Book:
    """The balances, in which everything that has become of calls so far is booked."""
    book = _open_book(transaction)
    if book.closing:
        book.close_waiting()
    return book


def _open_book(transaction: Transaction) -> _Book:
    book: _Book | None = transaction.shared.get(_Book)
    if book is None:
        book = transaction.shared[_Book] = _Book(transaction=transaction)
        transaction.before_commit.append(book.write)
        transaction.before_reading.append(book.close_waiting)
    return book


Check = Callable[[Transaction], None]
"""Raises a CorpusgenError, without having written anything, if something speaks against it."""
Noted = Callable[[Transaction, Reservation], None]
"""Writes down something about a promise, in the transaction that makes it."""


class Ledger:
    """The caps and balances of one corpus."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._freed = asyncio.Event()
        self._line = asyncio.Lock()

    async def reserve(self, intent: Intent, *, unless: Check | None = None, noted: Noted | None = None) -> Reservation:
        """A committed promise of the worst case.

        Waits while calls under way could still free enough, first come, first served. Raises BudgetExhausted when
        settled, unconfirmed and the needed amount together exceed a cap. ``unless`` looks at the same transaction first
        and may refuse with an error of its own; ``noted`` writes down in it what belongs to the promise.
        """
        operation = About(request_key=intent.request_key, apply=_reserve(intent, self._journal, unless, noted))
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

    def _ask_once(self, operation: Operation[Reservation]) -> Coroutine[None, None, Reservation]:
        return self._journal.run(operation, regret=self._give_back)

    def _give_back(self, promised: Reservation) -> Operation[None]:
        return lambda transaction: self.release(transaction, promised, "cancelled before sending")

    def freed(self) -> None:
        """Wake the reservation that waits; call after a promise was closed."""
        if self._line.locked():  # nobody else waits for it
            self._freed.set()
            self._freed = asyncio.Event()  # a new one, so that nobody's wake-up is cleared by somebody else

    def settle(
        self, transaction: Transaction, reservation: Reservation, used: Amounts, *, request_id: str | None = None
    ) -> None:
        """Book what the answer says was used, in full even above the reservation (then the state is ``overrun``)."""
        over = used.exceeds(reservation.worst)
        _close(transaction, reservation, state="overrun" if over else "settled", settled=used, request_id=request_id)
        if over and replace(used, compute_us=0).exceeds(reservation.worst):  # our own time stops nobody else's work
            stop_teacher(transaction, reservation.call_id)

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
        if isinstance(error, InvalidAnswer) and error.body:  # it may have been paid for, so what came can be looked at
            transaction.add("unreadable", (reservation.call_id, zlib.compress(error.body[:MOST_UNREADABLE])))
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
        await self._journal.run(lambda transaction: replace_caps(transaction, scope, rows))

    def time_passed(
        self, transaction: Transaction, run_id: str, scopes: tuple[str, ...], passed_us: int, span: int | None
    ) -> tuple[int, int | None]:
        """Book time a process has worked on a run; gives back its span, and how much is left where time has a cap."""
        book = _book(transaction)
        bound = book.bound(scopes)
        for account in bound.accounts["wall_us"]:
            account.add(settled=passed_us)
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
    now_us = max([journal.clock_us(), *(row[1] for row in journal.query(_LAST))])
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


_CLOCK_RESET = "clock reset at call"
_LAST = (
    "select call_id, iif(call_id > coalesce((select cast(value as integer) from meta"  # noqa: S608 - own text
    f" where name = '{_CLOCK_RESET}'), 0), reserved_us, 0) from calls order by call_id desc limit 1"
)
"""Number and time of the last call; a time that a person has taken back counts as none."""


@dataclass(frozen=True, kw_only=True)
class ClockReset:
    """A time of the ledger's that a person has taken back, and the clock's."""

    call_id: int
    before_us: int
    now_us: int


def reset_clock(transaction: Transaction, *, by: str, reason: str) -> ClockReset | None:
    """Let the ledger go by the clock again after a call under a clock that was ahead; None where it does already."""
    last = transaction.rows(_LAST)
    now_us = transaction.now_us
    if not last or last[0][1] <= now_us:
        return None
    done = ClockReset(call_id=last[0][0], before_us=last[0][1], now_us=now_us)
    transaction.execute(
        "insert into meta values(?, ?) on conflict do update set value = excluded.value",
        (_CLOCK_RESET, str(last[0][0])),
    )
    transaction.execute(
        "insert into reconciliations(call_id, before, after, microusd_before, microusd, tokens, by, reason,"
        " reconciled_us) select call_id, ?, ?, coalesce(microusd, reserved_microusd), microusd, tokens, ?, ?, ?"
        " from calls where call_id = ?",
        (f"clock at {_told(done.before_us)}", f"clock at {_told(now_us)}", by, reason, now_us, done.call_id),
    )
    end_leases(transaction, [row[0] for row in transaction.rows(_LEASES_AHEAD, (now_us,))])
    return done


_LEASES_AHEAD = "select lease_id from leases where ended_us is null and granted_us > ?"


def _told(time_us: int) -> str:
    return f"{datetime.fromtimestamp(time_us / 1_000_000, UTC):%Y-%m-%d %H:%M} UTC"


def _overrun_of(teacher: str) -> str:
    return f"overrun of {teacher}"


def stop_teacher(transaction: Transaction, call_id: int) -> None:
    """Let nothing more be promised to the teacher of a call, which was billed above its bound, until it is accepted."""
    (teacher,) = transaction.rows("select teacher from calls where call_id = ?", (call_id,))[0]
    transaction.execute(
        "insert into meta values(?, ?) on conflict do update set value = excluded.value"
        " where cast(value as integer) < cast(excluded.value as integer)",
        (_overrun_of(teacher), str(call_id)),
    )
    transaction.shared.pop(refuse_stopped, None)


def accept_overrun(transaction: Transaction, call_id: int) -> None:
    """Let a teacher be asked again whose last call above its bound is this one, or an earlier one than this."""
    (teacher,) = transaction.rows("select teacher from calls where call_id = ?", (call_id,))[0]
    transaction.execute(
        "delete from meta where name = ? and cast(value as integer) <= ?", (_overrun_of(teacher), call_id)
    )


def refuse_stopped(transaction: Transaction, teacher: str) -> None:
    """Raises UsageOverrun for a teacher that billed more than its bound, in whatever process, and was not accepted."""
    stopped: dict[str, str] | None = transaction.shared.get(refuse_stopped)
    if stopped is None:
        sql = "select name, value from meta where name >= 'overrun of ' and name < 'overrun of!'"
        stopped = transaction.shared[refuse_stopped] = dict(transaction.rows(sql))
    call_id = stopped.get(_overrun_of(teacher)) if stopped else None
    if call_id is not None:
        raise UsageOverrun(
            f"{teacher} used more in call {call_id} than was possible by its bound, so nothing more is asked of it; see"
            f" why, then allow it with corpusgen reconcile --accept {call_id} --by NAME --reason TEXT"
        )


def _reserve(intent: Intent, journal: Journal, unless: Check | None, noted: Noted | None) -> Operation[Reservation]:
    def operation(transaction: Transaction) -> Reservation:
        if unless is not None:
            unless(transaction)
        refuse_stopped(transaction, intent.teacher)
        scopes = promise(transaction, intent.scopes, intent.worst)
        reservation = note_call(transaction, intent, scopes, journal.owner_id)
        if noted is not None:
            noted(transaction, reservation)
        return reservation

    return operation


def promise(
    transaction: Transaction, scopes: tuple[str, ...], amounts: Amounts, *, sends: bool = True
) -> tuple[str, ...]:
    """Book so much as promised, if every cap allows it; gives back where, the periods that have caps included.

    ``sends`` False is for work that asks nobody, which a cap of 0 requests or dollars does not stop.
    """
    book = _book(transaction)
    bound = book.bound(scopes)
    try:
        _check(bound, amounts, sends)
    except BudgetExhausted as error:
        raise BudgetExhausted(f"{error}{book.ahead}") from None
    bound.promise(amounts)
    return bound.scopes


def free(transaction: Transaction, scopes: Iterable[str], amounts: Amounts) -> None:
    """Take back a promise of so much."""
    for scope in scopes:
        accounts = _book(transaction).accounts(scope)
        for unit, left in zip(UNITS, amounts.each, strict=True):
            accounts[unit].add(promised=-left)


def promise_anyway(transaction: Transaction, scopes: Iterable[str], amounts: Amounts) -> None:
    """Book so much as promised whatever the caps say: it was spent already."""
    free(transaction, scopes, Amounts(**{unit: -amounts.of(unit) for unit in UNITS}))


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
    settle = "; settle the unconfirmed with corpusgen reconcile" if account.unconfirmed else ""
    raise BudgetExhausted(
        f"{account.origin}: the cap of {shown(cap, unit)} {unit_name(unit)} for {scope}{within} is used up:"
        f" {shown(account.settled, unit)} settled, {shown(account.unconfirmed, unit)} unconfirmed,"
        f" {what} may need {shown(need, unit)}{bounded}."
        f" Everything paid for is kept; raise the cap{later} and run again to go on{settle}."
    )


_CALLS = (
    "calls(call_id, run_id, request_key, teacher, role, attempt, scopes, owner_id, state, reserved_microusd,"
    " reserved_tokens, reserved_requests, reserved_compute_us, price_version, reserved_us)"
)


def note_call(transaction: Transaction, intent: Intent, scopes: tuple[str, ...], owner_id: int) -> Reservation:
    """A row for a call that is promised already."""
    book, worst = _open_book(transaction), intent.worst
    call_id = next(book.call_ids)
    transaction.add(
        _CALLS,
        (
            call_id,
            intent.run_id,
            intent.request_key,
            intent.teacher,
            intent.role,
            intent.attempt,
            "\n".join(scopes),
            owner_id,
            "promised",
            worst.microusd,
            worst.tokens,
            worst.requests,
            worst.compute_us,
            intent.price_version,
            book.now_us,
        ),
    )
    if transaction.unheard_of:
        transaction.unheard_of.discard(intent.request_key)
    return Reservation(call_id=call_id, worst=worst, scopes=scopes)


def settle_as_told(
    transaction: Transaction, reservation: Reservation, used: Amounts, *, request_id: str | None = None
) -> None:
    """Close a call by what another machine reports of it, whose whole amount was promised."""
    _close(transaction, reservation, state="settled", settled=used, request_id=request_id)


def unknown_as_told(transaction: Transaction, reservation: Reservation, reason: str, name: str | None = None) -> None:
    """Keep the worst case of a call of which another machine does not know what became."""
    worst = reservation.worst
    _close(transaction, reservation, state="unknown", unconfirmed=worst, error=reason, request_id=name)


def note_overrun(
    transaction: Transaction, reservation: Reservation, used: Amounts, reason: str, name: str | None = None
) -> None:
    """Close a call by what another machine reports beyond all that was promised; its teacher may still be asked."""
    _close(transaction, reservation, state="overrun", settled=used, error=reason, request_id=name)


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
    closing, used = _open_book(transaction).closing, settled.each
    if reservation.call_id in closing:
        return  # closed already: booked once, whoever comes second
    closing[reservation.call_id] = _Closing(
        row=(state, *used, error, request_id),
        settled=used,
        promised=reservation.worst.each,
        unconfirmed=unconfirmed.each,
    )
    transaction.defer()


def replace_caps(transaction: Transaction, scope: str, caps: Iterable[Cap]) -> None:
    """Let exactly these caps, which are of the scope, bind it as a whole."""
    remove_caps(transaction, scope, CAPPED)
    set_caps(transaction, caps)


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
    values = {"name": name, "scope": scope, "since": _began(name), "now": book.now_us}
    for table, began in (("calls", "reserved_us"), ("spans", "began_us"), ("leases", "granted_us")):
        transaction.execute(
            f"update {table} set scopes = scopes || char(10) || :name where {began} between :since and :now"  # noqa: S608
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
    """Leases whose time is over, or whose owner no longer runs; those lent to other machines end by ``lending``."""
    rows = transaction.rows(
        "select lease_id, expires_us, pid, boot_id, start_ticks from leases join owners using (owner_id)"
        " where ended_us is null and lease_id not in (select lease_id from lent)"
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


def unheard_of(transaction: Transaction, request_key: bytes) -> bool:
    """Whether a request is known to have neither an answer nor an open call; looked up once for a whole transaction.

    False where that is not known: then it is to be looked up by itself.
    """
    if transaction.unheard_of is None:
        transaction.unheard_of = {key for some in portions(transaction.about) for key in _unheard_of(transaction, some)}
    return request_key in transaction.unheard_of


def _unheard_of(transaction: Transaction, keys: Sequence[bytes]) -> set[bytes]:
    # Each key is searched for by itself: of two lists of them SQLite would first sort each.
    rows = transaction.rows(
        f"select column1 from (values {marks(1, len(keys))}) where"  # noqa: S608 - own text
        " exists(select 1 from answers where request_key = column1)"
        " or exists(select 1 from claims where request_key = column1)",
        tuple(keys),
    )
    return set(keys) - {row[0] for row in rows}


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
    bound = Amounts(**dict(zip(UNITS, worst, strict=True)))
    over = used.exceeds(bound)
    transaction.execute(
        "update calls set state = ?, microusd = ?, tokens = ?, requests = ?, compute_us = ? where call_id = ?",
        ("overrun" if over else state, *used.each, call_id),
    )
    if replace(used, compute_us=0).exceeds(bound):
        stop_teacher(transaction, call_id)
    for scope in scopes.split("\n"):
        accounts = _book(transaction).accounts(scope)
        for unit, settled, unconfirmed in zip(UNITS, used.each, worst, strict=True):
            accounts[unit].add(settled=settled, unconfirmed=-unconfirmed)
    return True
