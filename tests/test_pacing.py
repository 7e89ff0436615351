"""What the pacer promises: as fast as a server takes it, no faster than it was told, and nobody is forgotten."""

from __future__ import annotations

import asyncio
import random
import sys
import time
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pacing_samples import (
    AtOnce,
    Client,
    Result,
    Server,
    SlidingWindow,
    TokenBucket,
    Unlimited,
    World,
    pace,
    side_by_side,
)
from simulation.clock import VirtualLoop

from corpusgen.errors import NotSent, RateLimited
from corpusgen.journal import Journal
from corpusgen.records import Reply, Usage
from corpusgen.teachers.limits import Limit, read_limits, span_s
from corpusgen.teachers.pacing import SOON_S, WAKES_S, Pacer
from corpusgen.teachers.rates import OUTAGE_PATIENCE_S, OUTAGES, Rates
from corpusgen.teachers.shares import Membership, Note, share_of

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
RATES = (50, 200, 1000)
SEEDS = range(4)


def against_bucket(rate: int, seed: int, *, noise: float = 0.0, seconds: int = 10, **known: Any) -> Result:
    """Ten seconds' worth of prompts against a bucket that holds a tenth of a second's worth."""
    burst = max(1, rate // 10)
    draw = random.Random(seed)
    server = Server(limiter=TokenBucket(per_s=rate, burst=burst), noise=noise, seed=seed, retry_after=lambda: None)
    prompts = rate * seconds
    ideal = (prompts / (1 - noise) - burst) / rate
    return pace(server, prompts=prompts, ideal_s=ideal, seed=seed, lag=lambda: draw.random() * 0.005, **known)


# --- servers with limits, in a world where time is a number -----------------------------------------------------------


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_limit_that_is_told_is_used_and_nothing_is_refused(rate: int, seed: int) -> None:
    result = against_bucket(rate, seed, told=rate)
    assert result.fraction >= 0.97
    assert (result.refused, result.lost) == (0, 0)


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_limit_nobody_tells_is_found_with_few_refusals(rate: int, seed: int) -> None:
    result = against_bucket(rate, seed)
    assert result.fraction >= 0.93
    assert result.refused <= 0.01
    assert result.lost == 0


@pytest.mark.parametrize("rate", [50, 200])
def test_in_a_longer_run_refusals_are_rarer_still(rate: int) -> None:
    result = against_bucket(rate, 0, seconds=60)
    assert result.fraction >= 0.97
    assert result.refused <= 0.006


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_limit_in_the_headers_is_used_like_one_that_is_told(rate: int, seed: int) -> None:
    heard, told = (against_bucket(rate, seed, **{known: rate}) for known in ("heard", "told"))
    assert heard.fraction >= max(0.98, told.fraction - 0.002)
    assert (heard.refused, heard.lost) == (0, 0)


@pytest.mark.parametrize("rate", [20, 30])
@pytest.mark.parametrize("seed", SEEDS)
def test_too_much_that_was_sent_before_a_limit_was_heard_of_is_no_reason_to_cut(rate: int, seed: int) -> None:
    result = against_bucket(rate, seed, heard=rate)
    assert result.fraction >= 0.97
    assert result.refused <= 0.01


def test_a_header_that_promises_far_too_much_is_not_taken_for_noise() -> None:
    assert against_bucket(50, 0, heard=1000).refused <= 0.4


@settings(max_examples=40, deadline=None)
@given(rate=st.integers(20, 500), workers=st.integers(20, 300), seed=st.integers(0, 2**16), latency=st.floats(0.01, 2))
def test_what_was_missed_before_a_limit_was_heard_of_is_made_up_for_within_it(
    rate: int, workers: int, seed: int, latency: float
) -> None:
    client = Client(rates=Rates(draw=random.Random(seed).random), prompts=rate * 5, workers=workers)
    server = Server(limiter=Unlimited(), latency_s=latency, seed=seed)
    world = World(server=server, clients=[client], heard=rate).run()
    assert client.answered == client.prompts
    sent = [at for at in client.sent_at if at >= world.heard_at]
    for first in range(0, len(sent), 7):
        for last in range(first, len(sent), 11):
            assert last - first + 1 <= rate * (sent[last] - sent[first] + 0.05) + 1.001


@pytest.mark.parametrize("seed", SEEDS)
def test_refusals_without_a_reason_do_not_slow_down_a_pacer_that_knows_its_limit(seed: int) -> None:
    result = against_bucket(200, seed, noise=0.3, told=200)
    assert result.fraction >= 1 / 1.3
    assert result.lost == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_a_sliding_window_and_a_limit_of_calls_at_once_lose_no_prompt(seed: int) -> None:
    window = pace(Server(limiter=SlidingWindow(most=200, window_s=1), seed=seed), prompts=2000, ideal_s=9)
    at_once = pace(Server(limiter=AtOnce(most=20), seed=seed), prompts=2000, ideal_s=2000 * 0.05 / 20, workers=100)
    assert (window.lost, at_once.lost) == (0, 0)
    assert window.fraction >= 0.5
    assert at_once.fraction >= 0.5


def test_a_server_without_a_limit_is_soon_asked_as_fast_as_the_workers_can() -> None:
    result = pace(Server(limiter=Unlimited()), prompts=10_000, ideal_s=10_000 * 0.05 / 256)
    assert result.refused == 0
    assert result.fraction >= 0.6


def test_an_answer_that_takes_long_is_not_taken_for_a_refusal() -> None:
    server = Server(limiter=TokenBucket(per_s=50, burst=5), latency_s=5.0)
    result = pace(server, prompts=3000, ideal_s=60, workers=1000)
    assert result.fraction >= 0.9
    assert result.refused <= 0.01


# --- what always holds ------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(rate=st.integers(1, 500), workers=st.integers(1, 300), seed=st.integers(0, 2**16), latency=st.floats(0.01, 2))
def test_no_stretch_of_time_holds_more_than_what_was_told_allows(
    rate: int, workers: int, seed: int, latency: float
) -> None:
    rates = Rates(draw=random.Random(seed).random)
    rates.configure([Limit(unit="requests", per_s=rate)])
    client = Client(rates=rates, prompts=min(300, rate * 5), workers=workers)
    World(server=Server(limiter=Unlimited(), latency_s=latency, seed=seed), clients=[client]).run()
    assert client.answered == client.prompts
    sent = client.sent_at
    for first in range(0, len(sent), 7):
        for last in range(first, len(sent), 11):
            assert last - first + 1 <= rate * (sent[last] - sent[first] + 0.05) + 1.001


@settings(max_examples=40, deadline=None)
@given(pause=st.floats(1.5, 100), before=st.integers(0, 20), seed=st.integers(0, 2**16))
def test_a_pause_that_was_asked_for_is_made(pause: float, before: int, seed: int) -> None:
    rates = Rates(draw=random.Random(seed).random)
    for at in range(before):
        rates.accepted(rates.take(at * 0.1), at * 0.1 + 0.05)
    rates.refused(rates.take(3.0), 3.05, pause)
    assert rates.due(3.06) >= 3.05 + pause


def test_whether_a_second_was_meant_is_asked_once_in_that_second() -> None:
    rates = Rates(draw=lambda: 0.0)
    first, granted = rates.take(0.0), rates.take(0.0)
    rates.refused(first, 0.05, 1.0)
    probe = rates.take(rates.due(0.06))
    assert 0.2 <= probe.at < 0.4
    assert all(
        rates.due(at / 100) > at / 100 for at in range(31, 120)
    )  # no answer is no leave, until the second is over
    assert rates.leave(granted, 0.35) > 0.35  # nor for what had been granted and not been sent
    assert rates.leave(probe, probe.at) <= probe.at
    rates.refused(probe, 0.4, 1.0)
    assert rates.due(0.41) >= 1.4


def test_what_was_reserved_together_does_not_leave_together() -> None:
    rates = Rates()
    rates.configure([Limit(unit="requests", per_s=100)])
    tickets = [rates.take(at / 100) for at in range(30)]
    moments = sorted(rates.leave(ticket, 0.5) for ticket in tickets)
    assert moments[0] == 0.5
    assert all(later - sooner >= 0.01 for sooner, later in pairwise(moments[4:]))


def test_a_ticket_that_needs_no_waiting_is_granted_without_giving_up_the_loop() -> None:
    async def turns() -> None:
        pacer = Pacer()
        for _ in range(1000):
            with pytest.raises(StopIteration):
                pacer.turn().send(None)

    asyncio.run(turns())


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**16), noise=st.floats(0, 0.6), rate=st.integers(5, 300), after=st.none() | st.just(1.0))
def test_every_prompt_is_answered_in_the_end(seed: int, noise: float, rate: int, after: float | None) -> None:
    server = Server(
        limiter=TokenBucket(per_s=rate, burst=5), noise=noise, seed=seed, retry_after=lambda: after, latency_s=0.1
    )
    assert pace(server, prompts=300, ideal_s=1, workers=20, seed=seed).lost == 0


def test_tokens_are_paced_by_what_is_used_and_not_by_what_was_possible() -> None:
    rates = Rates()
    rates.configure([Limit(unit="tokens", per_s=1000.0)])
    now = 0.0
    for _ in range(2000):
        now = max(now, rates.due(now))
        rates.accepted(rates.take(now, 300, 700), now, 50, 50)
    assert now == pytest.approx(2000 * 100 / 1000, rel=0.05)


# --- a server that is not there ---------------------------------------------------------------------------------------


def broken(rates: Rates, now: float, times: int) -> float:
    for _ in range(times):
        now = max(now, rates.due(now))
        rates.failed(rates.take(now), now, outage=True)
    return now


def test_a_dead_server_is_asked_once_in_a_while_and_then_given_up() -> None:
    rates = Rates()
    rates.accepted(rates.take(0.0), 0.1)
    now = broken(rates, 1.0, OUTAGES)
    assert rates.due(now) >= now + 1
    probe = rates.take(rates.due(now))
    assert rates.due(now + 5) == float("inf")  # only one goes to look
    rates.failed(probe, now + 5, outage=True)
    assert rates.due(now + 5) >= now + 7
    while not rates.given_up:
        now = broken(rates, now, 1)
        assert now < 2 * OUTAGE_PATIENCE_S
    assert rates.due(now) == now


def test_a_server_that_is_back_is_asked_again_by_everybody() -> None:
    rates = Rates()
    rates.accepted(rates.take(0.0), 0.1)
    now = broken(rates, 1.0, OUTAGES + 2)
    probe = rates.take(rates.due(now))
    rates.accepted(probe, probe.at + 0.1)
    assert rates.due(probe.at + 0.2) == probe.at + 0.2
    assert not rates.given_up


async def test_those_who_wait_are_let_through_in_line_and_the_cancelled_are_skipped() -> None:
    pacer = Pacer([Limit(unit="requests", per_s=200.0)])
    tickets: list[int] = []

    async def go(name: int) -> None:
        await pacer.turn()
        tickets.append(name)

    tasks = [asyncio.create_task(go(name)) for name in range(40)]
    await asyncio.sleep(0)
    tasks[30].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert tickets == [name for name in range(40) if name != 30]


async def test_what_a_refusal_says_of_the_limit_is_believed() -> None:
    pacer = Pacer()
    error = RateLimited("slow down", status=429)
    error.headers = {"x-ratelimit-limit-requests": "600", "x-ratelimit-remaining-requests": "0"}
    pacer.failed(await pacer.turn(), error)
    assert pacer.rates.told == {"requests": 10.0}
    reply = Reply(body=b"", request_id=None, sent_time=NOON, received_time=NOON)
    pacer.answered(await pacer.turn(), reply, Usage(input_tokens=1, output_tokens=1))
    pacer.failed(await pacer.turn(), NotSent("nobody there"))
    assert pacer.rates.in_flight == 0


# --- headers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "per_s"),
    [
        ({"x-ratelimit-limit-requests": "6000", "x-ratelimit-remaining-requests": "5999"}, 100.0),
        ({"anthropic-ratelimit-requests-limit": "50"}, 50 / 60),
        ({"ratelimit-policy": '"default";q=100;w=10', "ratelimit-limit": "100"}, 10.0),
        ({"ratelimit-limit": "100, 100;w=60"}, 100 / 60),
        # A limit by the day, named like one by the minute.
        (
            {
                "x-ratelimit-limit-requests": "14400",
                "x-ratelimit-remaining-requests": "14370",
                "x-ratelimit-reset-requests": "2m59.56s",
            },
            None,
        ),
        ({"x-ratelimit-limit": "100", "x-ratelimit-remaining": "99"}, None),
    ],
)
def test_limits_are_read_in_each_dialect(headers: dict[str, str], per_s: float | None) -> None:
    (limit,) = read_limits(headers, NOON)
    assert (limit.unit, limit.per_s) == ("requests", per_s)


@given(st.dictionaries(st.sampled_from(["x-ratelimit-limit-requests", "ratelimit-limit"]), st.text()))
def test_headers_that_make_no_sense_do_no_harm(headers: dict[str, str]) -> None:
    heard = read_limits(headers, NOON)
    Rates().hear(heard, 0.0)
    assert all(limit.per_s is None or 0 < limit.per_s < float("inf") for limit in heard)


def test_spans_of_time_are_read() -> None:
    assert [span_s(text) for text in ("6m0s", "120ms", "1h2m", "7", "")] == [360.0, 0.12, 3720.0, 7.0, None]


# --- processes --------------------------------------------------------------------------------------------------------


def note(member: str, *, used: float = 0.3, wanting: bool = True, rounds: int = 1) -> Note:
    return Note(member=member, used=used, wanting=wanting, round=rounds)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=9))
def test_shares_never_add_up_to_more_than_the_limit(said: list[tuple[float, bool]]) -> None:
    notes = [note(str(at), used=used, wanting=wanting) for at, (used, wanting) in enumerate(said)]
    assert sum(share_of(one.member, notes) for one in notes) <= 1 + 1e-9
    assert all(share_of(one.member, notes) > 0 for one in notes)


def test_who_comes_new_waits_until_the_others_have_made_room() -> None:
    old, new = note("old", rounds=4), note("new")
    assert share_of("new", [old, new], {"old": 4}) == 0
    assert share_of("old", [old, new]) == 0.5
    assert share_of("new", [note("old", rounds=5), new], {"old": 4}) == 0.5
    assert share_of("new", [new], {"old": 4}) == 1


def test_who_does_not_want_its_part_leaves_it_to_the_others() -> None:
    notes = [note("idle", used=0.05, wanting=False), note("busy")]
    assert share_of("busy", notes) == pytest.approx(0.94)


@pytest.mark.parametrize(("rate", "later_s"), [(50, 4.0), (200, 0.0), (200, 4.0), (1000, 0.0)])
def test_two_processes_divide_a_limit_that_nobody_tells(rate: int, later_s: float) -> None:
    server = Server(limiter=TokenBucket(per_s=rate, burst=rate // 10))
    clients = side_by_side(server, prompts=10 * rate, workers=max(16, rate // 4), later_s=later_s)
    assert [client.answered for client in clients] == [10 * rate] * 2
    assert len(server.refused_at) <= 0.02 * 20 * rate
    if later_s:  # those who begin together find unequal parts, and the one with the smaller is left alone in the end
        assert 20 / server.taken_at[-1] >= 0.7


HOLDS_A_SHARE = """
import asyncio, sys, time
from pathlib import Path
from corpusgen.journal import Journal
from corpusgen.teachers.pacing import Pacer
from corpusgen.teachers.shares import shared_pace

async def main():
    async with shared_pace(Journal(Path(sys.argv[1]), clock_us=lambda: time.time_ns() // 1000), Pacer(), "lane"):
        print("in", flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


async def test_the_share_of_a_killed_process_comes_back(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite", clock_us=lambda: time.time_ns() // 1000)
    pacer = Pacer([Limit(unit="requests", per_s=100)])
    mine = Membership(journal=journal, pacer=pacer, lane="lane")
    command = [sys.executable, "-c", HOLDS_A_SHARE, str(journal.path)]
    other = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert other.stdout is not None
    assert await other.stdout.readline()
    while pacer.rates.share in (0, 1):  # until the other has made room
        await mine.renew()
        await asyncio.sleep(0.05)
    assert pacer.rates.share > 0
    other.kill()
    await other.communicate()
    await mine.renew()
    assert pacer.rates.share == 1
    await mine.leave()
    journal.close()


@given(st.lists(st.floats(0.0, 0.02), min_size=1, max_size=60), st.floats(20.0, 3000.0))
def test_who_is_held_back_wakes_with_its_neighbours_and_never_in_vain(after_s: list[float], per_s: float) -> None:
    loop = VirtualLoop()
    woken, early = loop.run_until_complete(_leaving(after_s, per_s))
    loop.close()
    assert all(abs(moment / WAKES_S - round(moment / WAKES_S)) < 1e-3 for moment in woken)
    assert max(early) <= SOON_S


async def _leaving(after_s: list[float], per_s: float) -> tuple[list[float], list[float]]:
    """When whoever was held back woke, and how much too early each was sent."""
    loop, pacer, woken, early = asyncio.get_running_loop(), Pacer([Limit(unit="requests", per_s=per_s)]), [], []

    async def send(seconds: float) -> None:
        ticket = await pacer.turn()
        await asyncio.sleep(seconds)
        if (early_s := pacer.early_s(ticket)) > 0:
            await asyncio.sleep(early_s)
            woken.append(loop.time())
            assert pacer.early_s(ticket) == 0
        early.append(ticket.at - loop.time())

    await asyncio.gather(*map(send, after_s))
    return woken, early
