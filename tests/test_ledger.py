"""No cap is ever passed, whatever happens to the calls."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from flow_samples import RUN, cap, journal_in, states, violations
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from corpusgen.budget.amounts import UNITS, Amounts
from corpusgen.budget.ledger import Balance, Cap, Check, Intent, Ledger, Noted, Reservation, accept_overrun, balances
from corpusgen.budget.prices import Rate
from corpusgen.errors import BudgetExhausted, NotSent, RequestRefused, TeacherTimeout
from corpusgen.fields import Unit
from corpusgen.journal import Journal
from corpusgen.records import Usage

SCOPES = (RUN, "corpus", "teacher:t")
IN_MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None  # thousands of commits, and no disk to wait for


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with journal_in(tmp_path) as opened:
        yield opened


def intent(worst: Amounts, scopes: tuple[str, ...] = SCOPES) -> Intent:
    return Intent(
        run_id="r1",
        request_key=b"k",
        teacher="t",
        role="response",
        attempt=1,
        worst=worst,
        scopes=scopes,
        price_version="v",
    )


CALL = intent(Amounts(microusd=20_000, tokens=10, requests=1))


async def settle(journal: Journal, ledger: Ledger, reservation: Reservation, used: Amounts) -> None:
    await journal.run(lambda transaction: ledger.settle(transaction, reservation, used))
    ledger.freed()


def balance(journal: Journal, unit: Unit = "microusd", scope: str = RUN) -> Balance:
    return next(found for found in balances(journal, [scope]) if found.unit == unit)


# --- caps ------------------------------------------------------------------------------------------------------------


async def test_ten_cents_at_two_cents_a_call_are_five_calls_for_fifty_callers(journal: Journal) -> None:
    ledger = Ledger(journal)
    await ledger.set_caps([cap(100_000, "microusd")])

    async def call() -> None:
        reservation = await ledger.reserve(CALL)
        await asyncio.sleep(0.001)
        await settle(journal, ledger, reservation, CALL.worst)

    outcomes = await asyncio.gather(*(call() for _ in range(50)), return_exceptions=True)
    assert [outcomes.count(None), sum(isinstance(found, BudgetExhausted) for found in outcomes)] == [5, 45]
    assert balance(journal).settled == 100_000
    assert not violations(journal)


async def test_who_waits_gets_in_when_a_promise_settles_lower(journal: Journal) -> None:
    ledger = Ledger(journal)
    await ledger.set_caps([cap(30_000, "microusd")])
    first = await ledger.reserve(CALL)
    waiting = asyncio.create_task(ledger.reserve(CALL))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    await settle(journal, ledger, first, Amounts(microusd=10_000))
    assert (await waiting).worst == CALL.worst


async def test_who_waits_is_refused_when_a_promise_settles_high(journal: Journal) -> None:
    ledger = Ledger(journal)
    await ledger.set_caps([cap(30_000, "microusd")])
    first = await ledger.reserve(CALL)
    waiting = asyncio.create_task(ledger.reserve(CALL))
    await asyncio.sleep(0.05)
    await settle(journal, ledger, first, Amounts(microusd=20_000))
    with pytest.raises(BudgetExhausted, match=r"\$0.020000 settled"):
        await waiting


async def test_a_refusal_in_one_scope_does_not_wait_for_another(journal: Journal) -> None:
    ledger = Ledger(journal)
    await ledger.set_caps([cap(30_000, "microusd"), cap(5, "tokens", "corpus")])
    await ledger.reserve(intent(Amounts(microusd=20_000)))
    with pytest.raises(BudgetExhausted, match="5 tokens for corpus"):
        await ledger.reserve(CALL)


async def test_first_come_first_served(journal: Journal) -> None:
    ledger = Ledger(journal)
    await ledger.set_caps([cap(1)])
    open_call = await ledger.reserve(CALL)
    served: list[int] = []

    async def wait(number: int) -> None:
        reservation = await ledger.reserve(CALL)
        served.append(number)
        await journal.run(lambda transaction: ledger.release(transaction, reservation, "not sent"))
        ledger.freed()

    tasks = [asyncio.create_task(wait(number)) for number in range(5)]
    await asyncio.sleep(0.05)
    await journal.run(lambda transaction: ledger.release(transaction, open_call, "not sent"))
    ledger.freed()
    await asyncio.gather(*tasks)
    assert served == [0, 1, 2, 3, 4]


async def test_another_process_that_frees_something_is_noticed(journal: Journal) -> None:
    first, second = Ledger(journal), Ledger(journal)  # they do not hear each other's ``freed``
    await first.set_caps([cap(1)])
    open_call = await first.reserve(CALL)
    waiting = asyncio.create_task(second.reserve(CALL))
    await asyncio.sleep(0.01)
    await journal.run(lambda transaction: first.release(transaction, open_call, "not sent"))
    assert (await waiting).call_id != open_call.call_id


@pytest.mark.parametrize("unit", UNITS)
async def test_a_cap_of_0_sends_nothing_not_even_what_is_free(journal: Journal, unit: Unit) -> None:
    ledger = Ledger(journal)
    await ledger.set_caps([cap(0, unit)])
    with pytest.raises(BudgetExhausted):
        await ledger.reserve(intent(Amounts(tokens=0, requests=1)))
    assert not states(journal)


async def test_caps_are_replaced_in_one_step(journal: Journal) -> None:
    ledger = Ledger(journal)
    await ledger.set_caps([cap(5), cap(10, "tokens")])
    await ledger.replace_caps(RUN, [cap(7)])
    assert [(found.unit, found.cap) for found in balances(journal, [RUN])] == [("requests", 7)]


async def test_a_waiting_caller_that_is_cancelled_leaves_the_line_to_others(journal: Journal) -> None:
    ledger = Ledger(journal)
    await ledger.set_caps([cap(1)])
    open_call = await ledger.reserve(CALL)
    first, second = (asyncio.create_task(ledger.reserve(CALL)) for _ in range(2))
    await asyncio.sleep(0.01)
    first.cancel()
    await journal.run(lambda transaction: ledger.release(transaction, open_call, "not sent"))
    ledger.freed()
    await second
    assert states(journal)["promised"] == 1


# --- closing a promise -----------------------------------------------------------------------------------------------


async def test_closing_twice_books_once(journal: Journal) -> None:
    ledger = Ledger(journal)
    reservation = await ledger.reserve(CALL)
    await settle(journal, ledger, reservation, Amounts(microusd=5, tokens=2, requests=1))
    await settle(journal, ledger, reservation, Amounts(microusd=7, tokens=2, requests=1))
    await journal.run(lambda transaction: ledger.unknown(transaction, reservation, "again"))
    found = balance(journal)
    assert (found.settled, found.promised, found.unconfirmed) == (5, 0, 0)
    assert not violations(journal)


async def test_usage_above_the_promise_is_booked_in_full_as_an_overrun(journal: Journal) -> None:
    ledger = Ledger(journal)
    reservation = await ledger.reserve(CALL)
    await settle(journal, ledger, reservation, Amounts(microusd=30_000, tokens=2, requests=1))
    assert (balance(journal).settled, states(journal)) == (30_000, {"overrun": 1})


@pytest.mark.parametrize(
    ("error", "settled", "unconfirmed"),
    [(TeacherTimeout("t"), 0, 1), (NotSent("n"), 0, 0), (RequestRefused("r"), 1, 0)],
)
async def test_a_failed_call_counts_by_what_is_known_of_it(
    journal: Journal, error: TeacherTimeout | NotSent | RequestRefused, settled: int, unconfirmed: int
) -> None:
    ledger = Ledger(journal)
    reservation = await ledger.reserve(CALL)
    await journal.run(lambda transaction: ledger.failed(transaction, reservation, error))
    found = balance(journal, "requests")
    assert (found.settled, found.unconfirmed, found.promised) == (settled, unconfirmed, 0)
    assert balance(journal).settled == 0
    assert not violations(journal)


# --- prices ----------------------------------------------------------------------------------------------------------


def test_a_price_is_rounded_against_ourselves() -> None:
    rate = Rate(input_per_mtok=1, output_per_mtok=1, version="v")
    assert rate.cost(1, 0) == 1
    assert rate.cost(1_000_001, 0) == 2
    assert rate.used(Usage(input_tokens=3, output_tokens=2)) == Amounts(microusd=1, tokens=5, requests=1)


@pytest.mark.parametrize("given", [(0, 0), (7, 3), (10**6, 10**6)])
def test_the_worst_case_is_never_below_what_its_bounds_cost(given: tuple[int, int]) -> None:
    rate = Rate(input_per_mtok=150_000, output_per_mtok=600_001, version="v")
    used = rate.used(Usage(input_tokens=given[0], output_tokens=given[1]))
    assert not used.exceeds(rate.worst(*given))


# --- every order of events -------------------------------------------------------------------------------------------

AMOUNTS = st.builds(Amounts, microusd=st.integers(0, 40), tokens=st.integers(0, 40), requests=st.integers(0, 2))
ANY_SCOPES = st.sets(st.sampled_from(SCOPES), min_size=1).map(lambda scopes: tuple(sorted(scopes)))


@dataclass
class Checked:
    """What the model knows of one scope and unit."""

    settled: int = 0
    promised: int = 0
    unconfirmed: int = 0
    cap: int | None = None

    @property
    def used(self) -> int:
        return self.settled + self.unconfirmed


@dataclass
class Model:
    """The ledger as a person would keep it on paper."""

    accounts: dict[tuple[str, Unit], Checked] = field(
        default_factory=lambda: {(scope, unit): Checked() for scope in SCOPES for unit in UNITS}
    )
    excused: set[tuple[str, Unit]] = field(default_factory=set)

    def expects(self, asked: Intent) -> str:
        found = [(self.accounts[scope, unit], asked.worst.of(unit)) for scope in asked.scopes for unit in UNITS]
        if any(at.cap is not None and (at.used + need > at.cap or at.cap == 0) for at, need in found):
            return "refused"
        if any(at.cap is not None and at.used + at.promised + need > at.cap for at, need in found):
            return "waits"
        return "granted"

    def add(self, scopes: tuple[str, ...], name: str, amounts: Amounts, sign: int = 1) -> None:
        for scope in scopes:
            for unit in UNITS:
                account = self.accounts[scope, unit]
                setattr(account, name, getattr(account, name) + sign * amounts.of(unit))

    def excuse(self) -> None:
        """Whatever is above its cap now may stay there: the cap was lowered, or the teacher billed too much."""
        self.excused |= {
            name
            for name, account in self.accounts.items()
            if account.cap is not None and account.used + account.promised > account.cap
        }


class LedgerMachine(RuleBasedStateMachine):
    """Random orders of everything that can happen to promises and caps, against the model."""

    open_calls = Bundle("open_calls")

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(dir=IN_MEMORY)
        self.journal = Journal(Path(self.folder.name) / "journal.sqlite", clock_us=lambda: 0)
        self.loop = asyncio.new_event_loop()
        self.ledger = Ledger(self.journal)
        self.model = Model()

    def teardown(self) -> None:
        self.loop.close()
        self.journal.close()
        self.folder.cleanup()

    async def outcome(self, asked: Intent) -> Reservation | str:
        task = asyncio.create_task(self.ledger.reserve(asked))
        while not task.done() and not self.ledger._line.locked():  # noqa: ASYNC110 - both are looked at
            await asyncio.sleep(0)
        if not task.done():
            task.cancel()
        (found,) = await asyncio.gather(task, return_exceptions=True)
        if isinstance(found, Reservation):
            return found
        return "refused" if isinstance(found, BudgetExhausted) else "waits"

    @rule(target=open_calls, worst=AMOUNTS, scopes=ANY_SCOPES)
    def reserve(self, worst: Amounts, scopes: tuple[str, ...]) -> Reservation | None:
        asked = intent(worst, scopes)
        found = self.loop.run_until_complete(self.outcome(asked))
        assert self.model.expects(asked) == ("granted" if isinstance(found, Reservation) else found)
        if not isinstance(found, Reservation):
            return None
        self.model.add(scopes, "promised", worst)
        return found

    @rule(call=consumes(open_calls), used=AMOUNTS, times=st.integers(1, 2))
    def settle(self, call: Reservation | None, used: Amounts, times: int) -> None:
        if call is None:
            return
        for _ in range(times):
            self.journal.run_now(lambda transaction: self.ledger.settle(transaction, call, used))
        self.model.add(call.scopes, "promised", call.worst, -1)
        self.model.add(call.scopes, "settled", used)
        if used.exceeds(call.worst):
            self.model.excuse()
            self.journal.run_now(lambda transaction: accept_overrun(transaction, call.call_id))

    @rule(call=consumes(open_calls))
    def release(self, call: Reservation | None) -> None:
        if call is not None:
            self.journal.run_now(lambda transaction: self.ledger.release(transaction, call, "not sent"))
            self.model.add(call.scopes, "promised", call.worst, -1)

    @rule(call=consumes(open_calls))
    def unknown(self, call: Reservation | None) -> None:
        if call is not None:
            self.journal.run_now(lambda transaction: self.ledger.unknown(transaction, call, "cut"))
            self.model.add(call.scopes, "promised", call.worst, -1)
            self.model.add(call.scopes, "unconfirmed", call.worst)

    @rule(call=consumes(open_calls))
    def die_while_asking(self, call: Reservation | None) -> None:
        if call is None:
            return
        self.journal.run_now(
            lambda transaction: transaction.execute("insert into owners values(99, 0, '', 0)") and None
        )
        self.journal.run_now(
            lambda transaction: (
                transaction.execute("update calls set owner_id = 99 where call_id = ?", (call.call_id,)) and None
            )
        )
        assert self.loop.run_until_complete(self.ledger.recover()) == 1
        self.journal.run_now(lambda transaction: transaction.execute("delete from owners where owner_id = 99") and None)
        self.model.add(call.scopes, "promised", call.worst, -1)
        self.model.add(call.scopes, "unconfirmed", call.worst)

    @rule(scope=st.sampled_from(SCOPES), unit=st.sampled_from(UNITS), amount=st.integers(0, 120))
    def set_cap(self, scope: str, unit: Unit, amount: int) -> None:
        self.loop.run_until_complete(self.ledger.set_caps([Cap(scope=scope, unit=unit, cap=amount, origin="test")]))
        self.model.accounts[scope, unit].cap = amount
        self.model.excused.discard((scope, unit))
        self.model.excuse()

    @rule(scope=st.sampled_from(SCOPES))
    def drop_caps(self, scope: str) -> None:
        self.loop.run_until_complete(self.ledger.replace_caps(scope, ()))
        for unit in UNITS:
            self.model.accounts[scope, unit].cap = None

    @invariant()
    def no_cap_is_passed_and_the_books_add_up(self) -> None:
        assert violations(self.journal, excused=self.model.excused) == []

    @invariant()
    def the_books_are_those_of_the_model(self) -> None:
        for found in balances(self.journal):
            expected = self.model.accounts[found.scope, found.unit]
            kept = Checked(found.settled, found.promised, found.unconfirmed, found.cap)
            assert kept == expected, (found.scope, found.unit)


LedgerMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
TestLedgerMachine = LedgerMachine.TestCase


# --- the checker finds what it is for --------------------------------------------------------------------------------


class CheckThenSpend(Ledger):
    """The planted bug of the gateways: look at the balance now, book the money after the call."""

    def __init__(self, journal: Journal) -> None:
        super().__init__(journal)
        self._db = journal

    async def reserve(self, intent: Intent, *, unless: Check | None = None, noted: Noted | None = None) -> Reservation:
        rows = {(found.scope, found.unit): found for found in balances(self._db, intent.scopes)}
        for found in rows.values():
            if found.cap is not None and found.settled + found.unconfirmed + intent.worst.of(found.unit) > found.cap:
                raise BudgetExhausted("over")
        await asyncio.sleep(0)
        caps = [Cap(scope=at.scope, unit=at.unit, cap=at.cap, origin="") for at in rows.values() if at.cap is not None]
        for at in caps:
            await self.replace_caps(at.scope, ())
        reservation = await super().reserve(intent)
        await self.set_caps(caps)
        return reservation


async def test_check_then_spend_is_caught_by_the_checker(journal: Journal) -> None:
    ledger = CheckThenSpend(journal)
    await ledger.set_caps([cap(3)])
    granted = await asyncio.gather(*(ledger.reserve(CALL) for _ in range(20)), return_exceptions=True)
    assert sum(isinstance(found, Reservation) for found in granted) > 3
    assert any("above the cap" in found for found in violations(journal))


@pytest.mark.parametrize(
    "planted",
    [
        "update balances set promised = promised - 10 where unit = 'tokens'",  # released on an error
        "update balances set settled = settled + 10 where unit = 'tokens'",  # settled twice
        "update calls set state = 'released'",  # a cancelled call freed
        "delete from calls",  # a lost call
    ],
)
async def test_books_that_do_not_add_up_are_caught_by_the_checker(journal: Journal, planted: str) -> None:
    await Ledger(journal).reserve(CALL)
    assert not violations(journal)
    journal.run_now(lambda transaction: transaction.execute(planted) and None)
    assert violations(journal)
