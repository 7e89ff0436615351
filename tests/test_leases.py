"""A share of the budget handed out in advance: it counts as promised until it is drawn, given back, or over."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from flow_samples import RUN, cap, states, violations
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule
from test_ledger import AMOUNTS, ANY_SCOPES, IN_MEMORY, SCOPES, Model, intent

from corpusgen.budget.amounts import DAY_US, UNITS, Amounts
from corpusgen.budget.leases import Borrower, Lease, LeaseEnded, Leases, Lender
from corpusgen.budget.ledger import Cap, Ledger, Reservation, accept_overrun, balances, set_caps
from corpusgen.corpus import Corpus
from corpusgen.errors import BudgetExhausted, UsageOverrun
from corpusgen.fields import Unit
from corpusgen.journal import Journal, Transaction
from corpusgen.stages.verifying import verify

TEN = Amounts(microusd=100, tokens=50, requests=10)
ONE = Amounts(microusd=10, tokens=5, requests=1)


@dataclass
class Clock:
    now_us: int = 0

    def __call__(self) -> int:
        return self.now_us


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def journal(tmp_path: Path, clock: Clock) -> Iterator[Journal]:
    opened = Journal(tmp_path / "journal.sqlite", clock_us=clock)
    yield opened
    opened.close()


def promised(journal: Journal, unit: Unit = "requests") -> int:
    return next((found.promised for found in balances(journal, [RUN]) if found.unit == unit), 0)


async def lease_of(journal: Journal, amounts: Amounts = TEN, seconds: float = 60) -> Lease:
    lender: Lender = Leases(journal=journal)
    lease = await lender.grant(SCOPES, amounts, seconds=seconds)
    assert lease is not None
    return lease


async def test_a_lease_counts_as_promised_and_calls_are_drawn_from_it(journal: Journal) -> None:
    ledger, leases = Ledger(journal), Leases(journal=journal)
    await ledger.set_caps([cap(10)])
    lease = await lease_of(journal)
    assert await leases.grant(SCOPES, ONE, seconds=60) is None  # everything is promised, and may come back
    calls = [await leases.draw(lease, intent(ONE)) for _ in range(10)]
    with pytest.raises(LeaseEnded, match="does not cover"):
        await leases.draw(lease, intent(ONE))
    for call in calls:
        await journal.run(lambda transaction, call=call: ledger.settle(transaction, call, ONE))  # type: ignore[misc]
    assert (promised(journal), states(journal)) == (0, {"settled": 10})
    with pytest.raises(BudgetExhausted):
        await leases.grant(SCOPES, ONE, seconds=60)
    assert not violations(journal)


async def test_nothing_is_drawn_for_a_teacher_that_billed_above_its_bound(journal: Journal) -> None:
    ledger, leases = Ledger(journal), Leases(journal=journal)
    lease = await lease_of(journal)
    call = await leases.draw(lease, intent(ONE))
    more = Amounts(microusd=11, tokens=5, requests=1)
    await journal.run(lambda transaction: ledger.settle(transaction, call, more))
    with pytest.raises(UsageOverrun, match=f"--accept {call.call_id}"):
        await leases.draw(lease, intent(ONE))
    assert not violations(journal)


async def test_what_is_given_back_lets_waiting_calls_in(journal: Journal) -> None:
    ledger, leases = Ledger(journal), Leases(journal=journal)
    await ledger.set_caps([cap(10)])
    lease = await lease_of(journal)
    await leases.draw(lease, intent(ONE))
    waiting = asyncio.create_task(ledger.reserve(intent(ONE)))
    assert await leases.give_back(lease) == Amounts(microusd=90, tokens=45, requests=9)
    assert await leases.give_back(lease) == Amounts()
    await waiting
    assert promised(journal) == 2
    assert not violations(journal)


async def test_a_lease_that_is_over_frees_its_rest_for_those_who_wait(journal: Journal, clock: Clock) -> None:
    ledger, leases = Ledger(journal), Leases(journal=journal)
    await ledger.set_caps([cap(10)])
    lease = await lease_of(journal, seconds=60)
    waiting = asyncio.create_task(ledger.reserve(intent(ONE)))
    await asyncio.sleep(0.01)
    clock.now_us = 60_000_000
    with pytest.raises(LeaseEnded, match="is over"):
        await leases.draw(lease, intent(ONE))
    await waiting
    assert promised(journal) == 1
    assert not violations(journal)


async def test_a_renewed_lease_lasts_from_now_on(journal: Journal, clock: Clock) -> None:
    ledger, leases = Ledger(journal), Leases(journal=journal)
    lease = await lease_of(journal, seconds=60)
    clock.now_us = 50_000_000
    renewed = await leases.renew(lease, seconds=60)
    assert (renewed.lease_id, renewed.expires_us) == (lease.lease_id, 110_000_000)
    clock.now_us = 100_000_000
    assert await ledger.recover() == 0
    await leases.draw(renewed, intent(ONE))
    clock.now_us = 110_000_000
    with pytest.raises(LeaseEnded, match="is over"):
        await leases.renew(renewed, seconds=60)
    assert not violations(journal)


async def test_renewing_carries_no_lease_into_the_next_day(journal: Journal, clock: Clock) -> None:
    clock.now_us = DAY_US - 10
    lease = await lease_of(journal, seconds=0.000005)
    assert (await Leases(journal=journal).renew(lease, seconds=3600)).expires_us == DAY_US


async def test_nobody_renews_what_was_given_back_or_belongs_to_others(journal: Journal) -> None:
    leases = Leases(journal=journal)
    lease, other = await lease_of(journal), await lease_of(journal)
    await leases.give_back(lease)
    await journal.run(lambda transaction: transaction.execute("update leases set owner_id = 99") and None)
    for over in (lease, other):
        with pytest.raises(LeaseEnded):
            await leases.renew(over, seconds=60)


async def test_a_borrower_reserves_as_the_ledger_does(journal: Journal) -> None:
    ledger = Ledger(journal)
    await ledger.set_caps([cap(25)])
    borrower = Borrower(lender=Leases(journal=journal), share=TEN)
    calls = [await borrower.reserve(intent(ONE)) for _ in range(25)]
    assert promised(journal) == 25  # near the end it borrows call by call
    waiting = asyncio.create_task(borrower.reserve(intent(ONE)))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    await journal.run(lambda transaction: ledger.release(transaction, calls[0], "not sent"))
    await waiting
    for call in calls[1:]:
        await journal.run(lambda transaction, call=call: ledger.settle(transaction, call, ONE))  # type: ignore[misc]
    await journal.run(lambda transaction: ledger.settle(transaction, waiting.result(), ONE))
    with pytest.raises(BudgetExhausted):
        await borrower.reserve(intent(ONE))
    await borrower.aclose()
    assert not violations(journal)


async def test_a_borrower_that_closes_frees_what_it_did_not_draw(journal: Journal, clock: Clock) -> None:
    borrower = Borrower(lender=Leases(journal=journal), share=TEN, seconds=60)
    await asyncio.gather(*(borrower.reserve(intent(ONE)) for _ in range(3)))
    assert promised(journal) == 10
    clock.now_us = 61_000_000  # over: the next call asks for another
    await borrower.reserve(intent(ONE))
    assert promised(journal) == 3 + 10
    await borrower.aclose()
    assert promised(journal) == 4
    assert not violations(journal)


def test_drawers_in_several_processes_never_pass_a_cap(tmp_path: Path) -> None:
    caps = {"microusd": 1_000_000, "tokens": 20_000, "requests": 90}
    with Corpus.open(tmp_path) as corpus:
        in_force = [Cap(scope="corpus", unit=unit, cap=amount, origin="test") for unit, amount in caps.items()]  # type: ignore[arg-type]
        corpus.journal.run_now(lambda transaction: set_caps(transaction, in_force))
        command = [sys.executable, str(Path(__file__).with_name("drawing_child.py")), str(tmp_path)]
        children = [subprocess.Popen([*command, str(seed), "8"], stdout=subprocess.PIPE) for seed in range(4)]
        passed = list[object]()
        while any(child.poll() is None for child in children):
            passed += corpus.journal.query(
                "select * from balances join caps using (scope, unit) where settled + promised + unconfirmed > cap"
            )
            time.sleep(0.02)
        sent = [int(child.communicate()[0]) for child in children]
        assert not passed
        assert min(sent) >= 0 < max(sent)
        assert (sum(sent), promised(corpus.journal)) == (sum(states(corpus.journal).values()), 0)
        assert not violations(corpus.journal)
        booked = next(at for at in balances(corpus.journal, ["corpus"]) if at.unit == "microusd")
        assert booked.settled + booked.unconfirmed > 900_000  # what leases hold is not lost to the others


async def test_no_lease_outlives_its_day(journal: Journal, clock: Clock) -> None:
    clock.now_us = DAY_US - 1
    assert (await lease_of(journal, seconds=3600)).expires_us == DAY_US


async def test_a_days_cap_counts_leases_that_were_granted_before_it_was_set(journal: Journal) -> None:
    ledger, leases = Ledger(journal), Leases(journal=journal)
    lease = await lease_of(journal)
    await ledger.set_caps([Cap(scope="corpus", unit="requests", cap=10, origin="test", per="day")])
    assert await leases.grant(SCOPES, ONE, seconds=60) is None
    call = await leases.draw(lease, intent(ONE))
    assert "corpus@1970-01-01" in call.scopes
    assert not violations(journal)


async def test_a_dead_owners_calls_become_unknown_and_the_rest_is_free(journal: Journal) -> None:
    ledger, leases = Ledger(journal), Leases(journal=journal)
    lease = await lease_of(journal)
    await leases.draw(lease, intent(ONE))
    await journal.run(dies)
    assert await ledger.recover() == 1
    found = next(found for found in balances(journal, [RUN]) if found.unit == "requests")
    assert (found.promised, found.unconfirmed) == (0, 1)
    assert not violations(journal)


def dies(transaction: Transaction) -> None:
    """Everything that is open belongs to a process that no longer runs."""
    transaction.execute("insert or ignore into owners values(99, 0, '', 0)")
    transaction.execute("update calls set owner_id = 99 where state = 'promised'")
    transaction.execute("update leases set owner_id = 99 where ended_us is null")


async def test_verify_adds_leases_up_too(tmp_path: Path) -> None:
    from flow_samples import open_corpus

    with open_corpus(tmp_path) as corpus:
        await lease_of(corpus.journal)
        assert not [found for found in verify(corpus) if found.check == "balances"]
        corpus.journal.run_now(lambda transaction: transaction.execute("update leases set tokens = 1") and None)
        assert [found.check for found in verify(corpus)].count("balances") == len(SCOPES)


@dataclass
class Held:
    """A lease as a person would keep it on paper."""

    lease: Lease
    left: Amounts
    ended: bool = False


class LeaseMachine(RuleBasedStateMachine):
    """Random orders of grants, draws, returns, deaths and caps, against the model of the ledger."""

    held = Bundle("held")
    calls = Bundle("calls")

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(dir=IN_MEMORY)
        self.clock = Clock()
        self.journal = Journal(Path(self.folder.name) / "journal.sqlite", clock_us=self.clock)
        self.ledger, self.leases = Ledger(self.journal), Leases(journal=self.journal)
        self.loop = asyncio.new_event_loop()
        self.model = Model()
        self.every: list[Held] = []
        self.open: list[Reservation] = []

    def teardown(self) -> None:
        self.loop.close()
        self.journal.close()
        self.folder.cleanup()

    def end(self, held: Held) -> None:
        if not held.ended:
            self.model.add(held.lease.scopes, "promised", held.left, -1)
            held.ended = True

    @rule(target=held, amounts=AMOUNTS, scopes=ANY_SCOPES, seconds=st.integers(0, 100))
    def grant(self, amounts: Amounts, scopes: tuple[str, ...], seconds: int) -> object:
        expected = self.model.expects(intent(amounts, scopes))
        try:
            lease = self.loop.run_until_complete(self.leases.grant(scopes, amounts, seconds=seconds))
        except BudgetExhausted:
            assert expected == "refused"
            return multiple()
        assert expected == ("waits" if lease is None else "granted")
        if lease is None:
            return multiple()
        self.model.add(scopes, "promised", amounts)
        self.every.append(Held(lease, amounts))
        return self.every[-1]

    @rule(target=calls, held=held, worst=AMOUNTS)
    def draw(self, held: Held, worst: Amounts) -> object:
        over = held.ended or held.lease.expires_us <= self.clock.now_us
        try:
            call = self.loop.run_until_complete(self.leases.draw(held.lease, intent(worst)))
        except LeaseEnded:
            assert over or worst.exceeds(held.left)
            return multiple()
        assert not over
        assert call.scopes == held.lease.scopes
        held.left = Amounts(**{unit: held.left.of(unit) - worst.of(unit) for unit in UNITS})
        self.open.append(call)
        return call

    @rule(call=consumes(calls), used=AMOUNTS, known=st.booleans())
    def close(self, call: Reservation, used: Amounts, known: bool) -> None:
        if call not in self.open:
            return  # its owner died
        self.open.remove(call)
        self.model.add(call.scopes, "promised", call.worst, -1)
        if known:
            self.journal.run_now(lambda transaction: self.ledger.settle(transaction, call, used))
            self.journal.run_now(lambda transaction: accept_overrun(transaction, call.call_id))
            self.model.add(call.scopes, "settled", used)
        else:
            self.journal.run_now(lambda transaction: self.ledger.unknown(transaction, call, "cut"))
            self.model.add(call.scopes, "unconfirmed", call.worst)
        self.model.excuse()

    @rule(held=held)
    def give_back(self, held: Held) -> None:
        left = Amounts() if held.ended else held.left
        assert self.loop.run_until_complete(self.leases.give_back(held.lease)) == left
        self.end(held)

    @rule(held=held, seconds=st.integers(0, 100))
    def renew(self, held: Held, seconds: int) -> None:
        over = held.ended or held.lease.expires_us <= self.clock.now_us
        try:
            held.lease = self.loop.run_until_complete(self.leases.renew(held.lease, seconds=seconds))
        except LeaseEnded:
            assert over
            return
        assert not over
        assert held.lease.expires_us == self.clock.now_us + seconds * 1_000_000

    @rule(seconds=st.integers(0, 40))
    def time_passes(self, seconds: int) -> None:
        self.clock.now_us += seconds * 1_000_000
        self.loop.run_until_complete(self.ledger.recover())
        for held in self.every:
            if held.lease.expires_us <= self.clock.now_us:
                self.end(held)

    @rule()
    def everybody_dies(self) -> None:
        self.journal.run_now(dies)
        assert self.loop.run_until_complete(self.ledger.recover()) == len(self.open)
        for call in self.open:
            self.model.add(call.scopes, "promised", call.worst, -1)
            self.model.add(call.scopes, "unconfirmed", call.worst)
        self.open = []
        for held in self.every:
            self.end(held)

    @rule(scope=st.sampled_from(SCOPES), unit=st.sampled_from(UNITS), amount=st.integers(0, 120))
    def set_cap(self, scope: str, unit: Unit, amount: int) -> None:
        self.loop.run_until_complete(self.ledger.set_caps([Cap(scope=scope, unit=unit, cap=amount, origin="test")]))
        self.model.accounts[scope, unit].cap = amount
        self.model.excused.discard((scope, unit))
        self.model.excuse()

    @invariant()
    def no_cap_is_passed_and_the_books_add_up(self) -> None:
        assert violations(self.journal, excused=self.model.excused) == []

    @invariant()
    def the_books_are_those_of_the_model(self) -> None:
        for found in balances(self.journal):
            expected = self.model.accounts[found.scope, found.unit]
            kept = (found.settled, found.promised, found.unconfirmed)
            assert kept == (expected.settled, expected.promised, expected.unconfirmed), (found.scope, found.unit)


LeaseMachine.TestCase.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)
TestLeaseMachine = LeaseMachine.TestCase
