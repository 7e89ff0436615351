"""What a ledger owes to those who wait, who leave, and who put right what was not known."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from flow_samples import RUN, cap, journal_in, violations

from corpusgen.budget import ledger as budget
from corpusgen.budget.ledger import Amounts, Intent, Ledger, Reservation, balances, promise, remove_caps, set_right
from corpusgen.errors import BudgetExhausted
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
