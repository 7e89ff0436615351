"""What the pacer does when something else is in trouble: the money, the journal, the clock, another limit."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

import pytest
from flow_samples import RUN, asker_of, cap, open_corpus, prompts, saying, states, violations

from corpusgen.budget.amounts import Amounts
from corpusgen.budget.ledger import Intent
from corpusgen.corpus import Corpus
from corpusgen.errors import RateLimited, StoreError
from corpusgen.fanout.asker import Asker
from corpusgen.fanout.stream import answers
from corpusgen.journal import Journal, Operation, T
from corpusgen.records import Request
from corpusgen.teachers import shares
from corpusgen.teachers.limits import Limit
from corpusgen.teachers.pacing import Pacer
from corpusgen.teachers.rates import LAPSES_S, Rates
from corpusgen.teachers.scripted import Rule, ScriptedAnswer, ScriptedUsage
from corpusgen.teachers.shares import STALE_S, Membership, shared_pace

PER_S = 50.0
LIMIT = Limit(unit="requests", per_s=PER_S)


@pytest.fixture
def corpus(tmp_path: Path) -> Iterator[Corpus]:
    with open_corpus(tmp_path) as opened:
        yield opened


# --- refusals that say more than a number -----------------------------------------------------------------------------


def refusal(requests_left: int, tokens_left: int, retry_after_s: float | None = None) -> RateLimited:
    error = RateLimited("slow down", status=429, retry_after_s=retry_after_s)
    error.headers = {
        "x-ratelimit-limit-requests": "10000",
        "x-ratelimit-remaining-requests": str(requests_left),
        "x-ratelimit-limit-tokens": "30000",
        "x-ratelimit-remaining-tokens": str(tokens_left),
    }
    return error


@pytest.mark.parametrize(("tokens_left", "needed", "obeyed"), [(500, 400, True), (25_000, 400, False), (500, 0, True)])
async def test_an_account_without_tokens_has_no_room_however_many_requests_are_left(
    tokens_left: int, needed: int, obeyed: bool
) -> None:
    pacer = Pacer()
    pacer.failed(await pacer.turn(needed, 0), refusal(9999, tokens_left))
    assert (pacer.rates.climb.cut_seq > 0) == obeyed


@pytest.mark.parametrize("noise", [0.0, 0.3])
@pytest.mark.parametrize("room", [False, True])
def test_a_pause_of_seconds_is_made_whatever_else_a_refusal_says(noise: float, room: bool) -> None:
    rates = Rates()
    rates.climb.noise = noise
    for ticket in [rates.take(0.0) for _ in range(50)]:
        rates.refused(ticket, 0.1, 60.0, room=room)
    assert rates.due(0.1) >= 60.1


# --- shares that cannot be renewed ------------------------------------------------------------------------------------


class BusyJournal(Journal):
    """A journal in which somebody else writes for so many of our attempts."""

    busy = 0

    async def run(self, operation: Operation[T], *, regret: Callable[[T], Operation[object]] | None = None) -> T:
        if self.busy > 0:
            self.busy -= 1
            raise StoreError("another process has been writing for 60 s; try again")
        return await super().run(operation, regret=regret)


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BusyJournal]:
    monkeypatch.setattr(shares, "RENEWED_S", 0.01)
    monkeypatch.setattr(shares, "WAITING_S", 0.01)
    opened = BusyJournal(tmp_path / "journal.sqlite", clock_us=lambda: 1)
    yield opened
    opened.close()


async def test_a_share_survives_a_renewal_that_fails(journal: BusyJournal) -> None:
    old, new = Pacer([LIMIT]), Pacer([LIMIT])
    async with shared_pace(journal, old, "lane"), shared_pace(journal, new, "lane"):
        journal.busy = shares.RENEWALS - 1
        await asyncio.wait_for(new.turn(), 10)
        assert journal.busy == 0
        assert 0 < new.rates.share < 1


async def test_who_waits_for_a_share_that_cannot_be_had_is_told(journal: BusyJournal) -> None:
    pacer, met = Pacer([LIMIT]), list[BaseException | None]()

    async def run() -> None:
        async with shared_pace(journal, pacer, "lane"):
            pacer.share(0)
            waiting = [asyncio.create_task(pacer.turn()) for _ in range(3)]
            journal.busy = 1000
            done, _ = await asyncio.wait(waiting, timeout=10)
            met.extend(task.exception() for task in done)
            await asyncio.wait_for(pacer.turn(), 1)  # who comes later meets it too

    with pytest.raises(StoreError, match="another process has been writing"):
        await run()
    assert [type(error) for error in met] == [StoreError] * 3


# --- clocks that are wrong --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("jump_s", [-36_000, 36_000])
async def test_a_clock_that_jumps_starves_nobody(tmp_path: Path, jump_s: int) -> None:
    now_us = [10**15]
    journal = Journal(tmp_path / "journal.sqlite", clock_us=lambda: now_us[0])
    old, new = (Membership(journal=journal, pacer=Pacer([LIMIT]), lane="lane") for _ in range(2))
    await old.renew()
    now_us[0] += jump_s * 500_000
    await new.renew()
    assert new.pacer.rates.share == 0  # the other has not made room yet
    now_us[0] += jump_s * 500_000
    await old.renew()
    await new.renew()
    assert [old.pacer.rates.share, new.pacer.rates.share] == [0.5, 0.5]
    journal.close()


async def test_who_hangs_is_waited_for_by_ones_own_clock_only(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite", clock_us=lambda: 1)
    hanging, new = (Membership(journal=journal, pacer=Pacer([LIMIT]), lane="lane") for _ in range(2))
    await hanging.renew()
    await new.renew()
    assert new.pacer.rates.share == 0
    new.seen = {member: (rounds, at - STALE_S) for member, (rounds, at) in new.seen.items()}
    await new.renew()
    assert new.pacer.rates.share == 1
    journal.close()


def test_who_has_no_share_asks_again_soon() -> None:
    rates = Rates()
    rates.configure([LIMIT])
    rates.claim(0.0, 0.0)
    assert 0 < rates.due(0.0) <= 1


# --- money that is waited for -----------------------------------------------------------------------------------------


@asynccontextmanager
async def nothing_left(asker: Asker) -> AsyncIterator[None]:
    """While it is open, all that the cap of the run allows is promised to somebody."""
    worst, key = Amounts(requests=20), os.urandom(32)
    intent = Intent(
        run_id="r1", request_key=key, teacher="t", role="x", attempt=1, worst=worst, scopes=(RUN,), price_version="p"
    )
    await asker.ledger.set_caps([cap(20)])
    promise = await asker.ledger.reserve(intent)
    yield
    await asker.corpus.journal.run(lambda given: asker.ledger.release(given, promise, "somebody was cut off"))
    asker.ledger.freed()


def noting(moments: list[float]) -> Rule:
    """A rule that notes when it was asked."""

    def rule(_: Request) -> ScriptedAnswer:
        moments.append(asyncio.get_running_loop().time())
        return ScriptedAnswer(text="hello")

    return rule


async def read(asker: Asker, count: int) -> int:
    async with answers(asker, prompts(count)) as records:
        return len([record async for record in records])


async def test_those_who_waited_for_money_do_not_leave_as_one_wave(corpus: Corpus) -> None:
    moments: list[float] = []
    asker = asker_of(corpus, noting(moments), in_flight=16, pacer=Pacer([LIMIT]))
    async with nothing_left(asker):
        reading = asyncio.create_task(read(asker, 16))
        await asyncio.sleep(1 + LAPSES_S)
    assert await reading == 16
    # Told 50 a second, of which a little may be caught up on: never half of them in a tenth of a second.
    assert all(later - sooner > 0.08 for sooner, later in zip(moments, moments[8:], strict=False))
    assert [later >= sooner for sooner, later in pairwise(moments)] == [True] * 15


async def test_those_who_wait_for_money_hold_up_nobody_who_has_it(corpus: Corpus) -> None:
    # The first eight are all that an unknown server is sent at first; of them only two have money at a time.
    usage = ScriptedUsage(input_tokens=3, output_tokens=1)
    asker = asker_of(corpus, saying(usage=usage, latency_s=LAPSES_S), in_flight=20, pacer=Pacer(unknown=True))
    await asker.ledger.set_caps([cap(160, "tokens")])
    assert await asyncio.wait_for(read(asker, 24), 60) == 24
    assert asker.pacer.rates.in_flight == 0
    assert not violations(corpus.journal)


async def test_who_leaves_while_waiting_for_another_turn_gives_the_money_back(corpus: Corpus) -> None:
    asker = asker_of(corpus, saying(), in_flight=4, pacer=Pacer([LIMIT]))
    async with nothing_left(asker):
        reading = asyncio.create_task(read(asker, 8))
        await asyncio.sleep(2 * LAPSES_S)
        asker.pacer.pause(100)
    while states(corpus.journal)["promised"] < 4:  # noqa: ASYNC110 - nothing tells when money has been promised
        await asyncio.sleep(0.01)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    assert states(corpus.journal) == {"released": 5}
    assert asker.pacer.rates.in_flight == 0


def test_who_is_reserving_when_a_long_pause_begins_takes_another_turn() -> None:
    rates = Rates()
    refused, reserving = rates.take(0.0), rates.take(0.0)
    assert not rates.lapsed(reserving, 0.05)
    rates.refused(refused, 0.05, 60.0)
    assert rates.lapsed(reserving, 0.05)
    rates.unused(reserving)
    assert rates.due(0.05) >= 60.05


def test_what_was_never_sent_teaches_nothing() -> None:
    rates = Rates()
    ticket = rates.take(0.0)
    ticket.sent = False
    assert rates.lapsed(ticket, 1.0)
    rates.due(1.0)
    assert (rates.climb.answered, rates.in_flight) == (0, 0)
    rates.unused(ticket)
    assert rates.in_flight == 0
