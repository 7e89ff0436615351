"""What a ledger owes to those who wait, who leave, and who put right what was not known."""

from __future__ import annotations

import asyncio
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from flow_samples import RUN, cap, journal_in, violations

from corpusgen.budget import ledger as budget
from corpusgen.budget.amounts import CAPPED, Amounts, describe, in_period
from corpusgen.budget.ledger import (
    Cap,
    Intent,
    Ledger,
    Reservation,
    balances,
    claim_on,
    claims_on,
    promise,
    remove_caps,
    set_caps,
    set_right,
)
from corpusgen.corpus import microseconds
from corpusgen.errors import BudgetExhausted, CorpusgenError
from corpusgen.fields import Unit
from corpusgen.journal import Journal, Transaction

WORST = Amounts(microusd=10, tokens=100, requests=1)


def intent(number: int = 1) -> Intent:
    return Intent(
        run_id="r1",
        request_key=bytes([number]) * 32,
        teacher="t",
        role="response:train",
        attempt=1,
        worst=WORST,
        scopes=(RUN, "corpus"),
        price_version="test",
    )


def of_run(journal: Journal) -> dict[str, tuple[int, int, int]]:
    return {str(one.unit): (one.settled, one.promised, one.unconfirmed) for one in balances(journal, [RUN])}


async def unknown_call(journal: Journal) -> Reservation:
    ledger = Ledger(journal)
    call = await ledger.reserve(intent())
    await journal.run(lambda transaction: ledger.unknown(transaction, call, "cut"))
    return call


@pytest.mark.parametrize(("microusd", "state"), [(10, "settled"), (11, "overrun")])
async def test_what_was_unknown_is_put_right_once(tmp_path: Path, microusd: int, state: str) -> None:
    with journal_in(tmp_path) as journal:
        call = await unknown_call(journal)
        used = Amounts(microusd=microusd, tokens=7, requests=1)
        assert journal.run_now(lambda given: set_right(given, call.call_id, "settled", used)) is True
        assert journal.run_now(lambda given: set_right(given, call.call_id, "settled", used)) is False
        assert journal.query("select state, microusd, tokens, requests from calls") == [(state, microusd, 7, 1)]
        assert of_run(journal)["microusd"] == (microusd, 0, 0)
        assert of_run(journal)["tokens"] == (7, 0, 0)
        assert not violations(journal)


async def test_who_waits_is_woken_and_does_not_only_look_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "POLL_S", 60.0)
    with journal_in(tmp_path) as journal:
        ledger = Ledger(journal)
        await ledger.set_caps([cap(1)])
        first = await ledger.reserve(intent(1))
        waiting = asyncio.create_task(ledger.reserve(intent(2)))
        await asyncio.sleep(0.05)
        await journal.run(lambda transaction: ledger.release(transaction, first, "not sent"))
        ledger.freed()
        async with asyncio.timeout(20):
            assert (await waiting).worst == WORST


async def test_who_is_cancelled_while_reserving_is_cancelled(tmp_path: Path) -> None:
    with journal_in(tmp_path) as journal:
        task = asyncio.create_task(Ledger(journal).reserve(intent()))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert of_run(journal)["microusd"] == (0, 0, 0)


async def test_a_cap_removed_binds_nobody_in_the_same_transaction(tmp_path: Path) -> None:
    with journal_in(tmp_path) as journal:
        await Ledger(journal).set_caps([cap(1)])
        with pytest.raises(BudgetExhausted):
            journal.run_now(lambda given: promise(given, (RUN,), Amounts(requests=2)))

        def twice(given: Transaction) -> None:
            promise(given, (RUN,), Amounts(requests=1))
            remove_caps(given, RUN, ["requests"])
            promise(given, (RUN,), Amounts(requests=1))

        journal.run_now(twice)
        assert of_run(journal)["requests"] == (0, 2, 0)


async def test_who_waits_does_not_ask_again_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "POLL_S", 60.0)
    asked = list[int]()
    with journal_in(tmp_path) as journal:
        ledger = Ledger(journal)
        await ledger.set_caps([cap(1)])
        first = await ledger.reserve(intent(1))
        waiting = asyncio.create_task(ledger.reserve(intent(2), unless=lambda given: asked.append(given.now_us)))
        for _ in range(20):
            await journal.run(lambda given: None)
        assert len(asked) == 2, "once on coming, once at the head of the line"
        await journal.run(lambda given: ledger.release(given, first, "not sent"))
        ledger.freed()
        await waiting


async def test_who_objects_is_heard_before_anything_is_promised(tmp_path: Path) -> None:
    def objects(_: Transaction) -> None:
        raise CorpusgenError("asked already")

    with journal_in(tmp_path) as journal:
        with pytest.raises(CorpusgenError, match="asked already"):
            await Ledger(journal).reserve(intent(), unless=objects)
        assert of_run(journal) == {}


async def test_an_abandoned_call_is_unconfirmed_and_who_waited_for_it_learns_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "POLL_S", 60.0)
    with journal_in(tmp_path) as journal:
        ledger = Ledger(journal)
        await ledger.set_caps([cap(1)])
        call = await ledger.reserve(intent(1))
        claim = claim_on(journal.reader, intent(1).request_key)
        assert claim is not None
        assert (claim.call_id, claim.owner_id, claim.alive) == (call.call_id, journal.owner_id, True)
        assert claim_on(journal.reader, intent(2).request_key) is None
        waiting = asyncio.create_task(ledger.reserve(intent(2)))
        for _ in range(20):
            await journal.run(lambda given: None)
        await ledger.abandon(claim)
        async with asyncio.timeout(20):
            with pytest.raises(BudgetExhausted):
                await waiting
        assert of_run(journal)["requests"] == (0, 0, 1)
        assert claim_on(journal.reader, intent(1).request_key) is None


async def test_a_cap_set_binds_the_same_transaction(tmp_path: Path) -> None:
    def twice(given: Transaction) -> None:
        promise(given, (RUN,), Amounts(requests=1))
        set_caps(given, [cap(1)])
        promise(given, (RUN,), Amounts(requests=1))

    with journal_in(tmp_path) as journal, pytest.raises(CorpusgenError):
        journal.run_now(twice)


async def test_a_unit_used_up_refuses_only_calls_that_need_it(tmp_path: Path) -> None:
    with journal_in(tmp_path) as journal:
        ledger = Ledger(journal)
        await ledger.set_caps([cap(WORST.tokens, "tokens")])
        journal.run_now(lambda given: ledger.settle(given, _promised(given), WORST))
        journal.run_now(lambda given: promise(given, (RUN,), Amounts(requests=1)))
        with pytest.raises(BudgetExhausted, match=r"cap of 100 tokens"):
            await ledger.reserve(intent())


def _promised(given: Transaction) -> Reservation:
    return budget.note_call(given, intent(), promise(given, (RUN, "corpus"), WORST), 1)


async def test_work_that_asks_nobody_is_refused_in_its_own_words(tmp_path: Path) -> None:
    with journal_in(tmp_path) as journal:
        await Ledger(journal).set_caps([cap(0)])
        journal.run_now(lambda given: promise(given, (RUN,), Amounts(compute_us=1), sends=False))
        with pytest.raises(BudgetExhausted, match=r"the next call may need 0\."):
            journal.run_now(lambda given: promise(given, (RUN,), Amounts(compute_us=1)))
        with pytest.raises(BudgetExhausted, match=r"the work ahead may need 1\."):
            journal.run_now(lambda given: promise(given, (RUN,), Amounts(requests=1), sends=False))


@pytest.mark.parametrize(("unit", "said"), [("compute_us", True), ("tokens", False)])
async def test_a_call_refused_for_its_processor_time_says_where_that_comes_from(
    tmp_path: Path, unit: Unit, said: bool
) -> None:
    wanted = replace(intent(), worst=Amounts(tokens=2, compute_us=2))
    with journal_in(tmp_path) as journal:
        await Ledger(journal).set_caps([cap(1, unit)])
        with pytest.raises(BudgetExhausted) as refused:
            await Ledger(journal).reserve(wanted)
        assert ("timeout_s" in str(refused.value)) is said


# --- claims ----------------------------------------------------------------------------------------------------------


async def test_a_claim_lives_as_long_as_its_process_and_one_in_a_batch_longer(tmp_path: Path) -> None:
    with journal_in(tmp_path) as journal:
        ledger = Ledger(journal)
        await ledger.reserve(intent(2))
        call = await ledger.reserve(intent())
        journal.run_now(lambda given: given.execute("update owners set start_ticks = start_ticks + 1") and None)
        alone = claim_on(journal.reader, intent().request_key)
        assert alone is not None
        assert (alone.call_id, alone.owner_id) == (call.call_id, journal.owner_id) == (2, 1)
        assert (alone.alive, alone.batch_id) == (False, None)
        journal.run_now(lambda given: given.execute("update calls set batch_id = 'b1'") and None)
        together = claim_on(journal.reader, intent().request_key)
        assert together is not None
        assert (together.alive, together.batch_id) == (True, "b1")


@pytest.mark.parametrize("count", [0, 3, 400, 1001])
async def test_who_asks_what_is_told_for_any_number_of_requests(tmp_path: Path, count: int) -> None:
    def claimed(given: Transaction) -> None:
        for key in keys:
            budget.note_call(given, replace(intent(), request_key=key), (RUN,), journal.owner_id)
        given.execute("update calls set batch_id = 'b1' where call_id = 2")

    keys = [at.to_bytes(32, "big") for at in range(count)]
    with journal_in(tmp_path) as journal:
        journal.run_now(claimed)
        found = claims_on(journal.reader, [*keys, b"x" * 32])
        assert list(found) == keys
        assert [key for key, batch in found.items() if batch == "b1"] == keys[1:2]


# --- time ------------------------------------------------------------------------------------------------------------

MIDNIGHT_US = microseconds(datetime(2026, 11, 22, tzinfo=UTC))


def passed(journal: Journal, seconds: float, span: int | None = None) -> tuple[int, int | None]:
    ledger = Ledger(journal)
    us = round(seconds * 1_000_000)
    return journal.run_now(lambda given: ledger.time_passed(given, "r1", (RUN, "corpus"), us, span))


def test_no_call_needs_time() -> None:
    every = Amounts(microusd=1, tokens=1, requests=1, compute_us=1)
    assert [every.of(unit) for unit in CAPPED] == [1, 1, 1, 1, 0]


def test_a_period_changes_at_midnight_to_the_microsecond() -> None:
    assert in_period("corpus", "day", MIDNIGHT_US) == "corpus@2026-11-22"
    assert in_period("corpus", "day", MIDNIGHT_US - 1) == "corpus@2026-11-21"


async def test_time_left_is_the_least_that_any_cap_leaves(tmp_path: Path) -> None:
    with journal_in(tmp_path) as journal:
        assert passed(journal, 1)[1] is None
        await Ledger(journal).set_caps([cap(10_000_000, "wall_us"), cap(4_000_000, "wall_us", "corpus"), cap(1)])
        assert passed(journal, 2)[1] == 1_000_000


async def test_of_no_time_less_than_none_is_left(tmp_path: Path) -> None:
    with journal_in(tmp_path) as journal:
        await Ledger(journal).set_caps([cap(0, "wall_us")])
        assert passed(journal, 2)[1] == -2_000_000


async def test_when_its_time_is_used_up_to_the_last_a_run_sends_nothing(tmp_path: Path) -> None:
    with journal_in(tmp_path) as journal:
        ledger = Ledger(journal)
        await ledger.set_caps([cap(2_000_000, "wall_us")])
        passed(journal, 1.999999)
        await ledger.reserve(intent(1))
        passed(journal, 0.000001)
        with pytest.raises(BudgetExhausted, match=r"cap of 2 wall_s .* the next call may need 0\."):
            await ledger.reserve(intent(2))


def test_time_of_one_day_is_one_span_and_another_day_begins_its_own(tmp_path: Path) -> None:
    now = MIDNIGHT_US - 1
    with closing(Journal(tmp_path / "journal.sqlite", clock_us=lambda: now)) as journal:
        span, _ = passed(journal, 1)
        assert passed(journal, 2, span)[0] == span
        now = MIDNIGHT_US
        later, _ = passed(journal, 4, span)
        assert passed(journal, 8, later)[0] == later != span
        assert passed(journal, 16)[0] not in (span, later)
        assert journal.query("select wall_us / 1000000 from spans order by span_id") == [(3,), (12,), (16,)]


async def test_a_cap_on_the_time_of_a_day_counts_its_morning(tmp_path: Path) -> None:
    with journal_in(tmp_path) as journal:
        passed(journal, 3)
        await Ledger(journal).set_caps([Cap(scope=RUN, unit="wall_us", cap=5_000_000, origin="test", per="day")])
        assert passed(journal, 1)[1] == 1_000_000
        (today,) = [one for one in balances(journal) if one.per == "day" and one.unit == "wall_us"]
        assert (today.settled, today.cap) == (4_000_000, 5_000_000)


def test_caps_are_described_in_a_persons_words() -> None:
    assert describe({"microusd": 5, "wall_us": 1_500_000}) == "$0.000005 usd, 1.5 wall_s"
    assert describe({}) == "no caps"
