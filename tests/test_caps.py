"""Caps for a day, a month and for ever, and caps on time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from command import corpusgen as command
from flow_samples import Server, asker_of, cap, endpoint, open_corpus, prompts, saying, states, violations, write_task
from hypothesis import given, settings
from hypothesis import strategies as st
from teacher_samples import server

import corpusgen
from corpusgen.budget.amounts import Amounts, in_period, period_of
from corpusgen.budget.ledger import Balance, Cap, Intent, Ledger, Reservation, balances, remove_caps, reset_clock
from corpusgen.cli.options import parse_budget
from corpusgen.corpus import microseconds
from corpusgen.errors import BudgetExhausted, UsageError
from corpusgen.fanout.stream import answers
from corpusgen.fields import Per, seconds
from corpusgen.journal import Journal
from corpusgen.stages.verifying import verify

EVENING = datetime(2026, 11, 30, 23, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


class Clock:
    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> int:
        return microseconds(self.now)


@pytest.fixture
def clock() -> Clock:
    return Clock(EVENING)


@pytest.fixture
def journal(tmp_path: Path, clock: Clock) -> Iterator[Journal]:
    opened = Journal(tmp_path / "journal.sqlite", clock_us=clock)
    yield opened
    opened.close()


def of(amount: int, per: Per = "day", scope: str = "corpus") -> Cap:
    return Cap(scope=scope, unit="requests", cap=amount, origin="test", per=per)


def intent(requests: int = 1, scopes: tuple[str, ...] = ("run:r1", "corpus")) -> Intent:
    return Intent(
        run_id="r1",
        request_key=b"k",
        teacher="t",
        role="response",
        attempt=1,
        worst=Amounts(tokens=5, requests=requests),
        scopes=scopes,
        price_version="v",
    )


async def call(journal: Journal, ledger: Ledger, asked: Intent | None = None) -> Reservation:
    reservation = await ledger.reserve(asked or intent())
    await journal.run(lambda transaction: ledger.settle(transaction, reservation, reservation.worst))
    return reservation


async def exhaust(journal: Journal, ledger: Ledger) -> None:
    with suppress(BudgetExhausted):
        while True:
            await call(journal, ledger)


def used(journal: Journal) -> dict[str, int]:
    """Requests settled, by scope and period."""
    return {found.scope: found.settled for found in balances(journal) if found.unit == "requests"}


@pytest.mark.parametrize(("per", "step", "name"), [("day", DAY, "2026-11-30"), ("month", 2 * DAY, "2026-11")])
async def test_a_period_that_is_used_up_opens_again_with_the_next(
    journal: Journal, clock: Clock, per: Per, step: timedelta, name: str
) -> None:
    ledger = Ledger(journal)
    await ledger.set_caps([of(2, per)])
    await call(journal, ledger)
    await call(journal, ledger)
    with pytest.raises(BudgetExhausted, match=f"2 requests for corpus (on|in) {name} .UTC. .*{per} is over"):
        await ledger.reserve(intent())
    clock.now += step
    await call(journal, ledger)
    assert used(journal)["corpus"] == 3
    assert used(journal)[f"corpus@{name}"] == 2
    assert not violations(journal)


async def test_all_periods_of_all_scopes_bind_at_once(journal: Journal, clock: Clock) -> None:
    ledger = Ledger(journal)
    await ledger.set_caps([of(3), of(4, "month"), of(9, "total"), of(4, "day", "run:r1")])
    for _ in range(5):
        await exhaust(journal, ledger)
        clock.now += 10 * DAY
    found = used(journal)
    assert [found.get(f"corpus@{day}") for day in ("2026-11-30", "2026-12-10", "2026-12-20")] == [3, 3, 1]
    assert [found[f"corpus@{month}"] for month in ("2026-11", "2026-12", "2027-01")] == [3, 4, 2]
    assert found["corpus"] == found["run:r1"] == 9
    assert not violations(journal)


async def test_a_clock_that_jumps_back_reopens_no_earlier_period(journal: Journal, clock: Clock) -> None:
    ledger = Ledger(journal)
    await ledger.set_caps([of(2)])
    clock.now += DAY
    await call(journal, ledger)
    await call(journal, ledger)
    clock.now -= 2 * DAY
    with pytest.raises(BudgetExhausted, match="on 2026-12-01"):
        await ledger.reserve(intent())


async def test_a_call_belongs_to_the_day_on_which_it_was_reserved(journal: Journal, clock: Clock) -> None:
    ledger = Ledger(journal)
    await ledger.set_caps([of(1)])
    late = await ledger.reserve(intent())
    clock.now += 2 * HOUR
    await journal.run(lambda transaction: ledger.settle(transaction, late, late.worst))
    await call(journal, ledger)
    assert used(journal) == {"run:r1": 2, "corpus": 2, "corpus@2026-11-30": 1, "corpus@2026-12-01": 1}
    assert not violations(journal)


async def test_a_cap_counts_what_the_day_has_seen_before_it_was_set(journal: Journal, clock: Clock) -> None:
    ledger = Ledger(journal)
    await call(journal, ledger)
    clock.now += 2 * HOUR
    await call(journal, ledger)
    open_call = await ledger.reserve(intent())
    await ledger.set_caps([of(3)])
    await call(journal, ledger)
    waiting = asyncio.create_task(ledger.reserve(intent()))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    await journal.run(lambda transaction: ledger.release(transaction, open_call, "not sent"))
    await waiting
    assert used(journal)["corpus@2026-12-01"] == 2
    assert not violations(journal)


async def test_a_cap_taken_away_and_set_again_has_missed_nothing(journal: Journal, clock: Clock) -> None:
    ledger = Ledger(journal)
    await ledger.set_caps([of(5)])
    await call(journal, ledger)
    await journal.run(lambda transaction: remove_caps(transaction, "corpus", ["requests"], "day"))
    await call(journal, ledger)
    await ledger.set_caps([of(3)])
    await call(journal, ledger)
    with pytest.raises(BudgetExhausted):
        await ledger.reserve(intent())
    assert used(journal)["corpus@2026-11-30"] == 3
    assert not violations(journal)


def test_a_period_has_a_name_that_is_found_again() -> None:
    now = microseconds(EVENING)
    assert [in_period("user:a@b.c", per, now) for per in ("total", "day", "month")] == [
        "user:a@b.c",
        "user:a@b.c@2026-11-30",
        "user:a@b.c@2026-11",
    ]
    assert period_of("user:a@b.c") == ("user:a@b.c", "total")
    assert period_of("user:a@b.c@2026-11") == ("user:a@b.c", "month")


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["call", "call", "call", "open", "lose", "close", "later", "back", "cap", "uncap"]),
        st.integers(0, 6),
    ),
    max_size=40,
)


@given(steps=STEPS)
@settings(max_examples=120, deadline=None)
def test_whatever_happens_no_day_passes_its_cap_and_the_books_add_up(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    clock = Clock(EVENING)
    opened = Journal(tmp_path_factory.mktemp("days") / "journal.sqlite", clock_us=clock)
    try:
        asyncio.run(_days(opened, clock, steps))
    finally:
        opened.close()


async def _days(journal: Journal, clock: Clock, steps: list[tuple[str, int]]) -> None:
    ledger, open_calls, lowered = Ledger(journal), list[Reservation](), set[str]()
    for step, number in steps:
        if step in ("call", "open"):
            try:
                async with asyncio.timeout(0.001 if open_calls else None):
                    found = await ledger.reserve(intent(number % 3))
            except (BudgetExhausted, TimeoutError):
                continue
            open_calls.append(found)
        if step in ("call", "close", "lose") and open_calls:
            one = open_calls.pop()
            await _close(journal, ledger, one, lost=step == "lose")
        if step in ("later", "back"):
            clock.now += number * 8 * HOUR * (1 if step == "later" else -1)
        if step == "cap":
            await ledger.set_caps([of(number)])
            lowered |= {at.scope for at in balances(journal) if at.cap is not None and _total(at) > at.cap}
        if step == "uncap":
            await journal.run(lambda given: remove_caps(given, "corpus", ["requests"], "day"))
        assert violations(journal, excused=[(scope, "requests") for scope in lowered]) == []


async def _close(journal: Journal, ledger: Ledger, one: Reservation, *, lost: bool) -> None:
    if lost:
        await journal.run(lambda given: ledger.unknown(given, one, "lost"))
    else:
        await journal.run(lambda given: ledger.settle(given, one, one.worst))


def _total(at: Balance) -> int:
    return at.settled + at.promised + at.unconfirmed


# --- time ------------------------------------------------------------------------------------------------------------


async def test_a_local_teachers_processor_time_is_promised_and_settled(tmp_path: Path) -> None:
    with open_corpus(tmp_path) as corpus:
        asker = asker_of(corpus, saying(compute_us=300_000), compute_us=1_000_000, in_flight=2)
        await asker.ledger.set_caps([cap(2_000_000, "compute_us")])
        with pytest.raises(BudgetExhausted, match=r"the cap of 2 compute_s for run:r1 is used up: 1.2 settled"):
            async with answers(asker, prompts(20)) as records:
                assert [record async for record in records] == []
        found = next(at for at in balances(corpus.journal, ["run:r1"]) if at.unit == "compute_us")
        assert (found.settled, found.promised, states(corpus.journal)["settled"]) == (1_200_000, 0, 4)
        assert not violations(corpus.journal)


async def test_a_hosted_teacher_uses_none_of_our_processor_time(tmp_path: Path) -> None:
    with open_corpus(tmp_path) as corpus:
        asker = asker_of(corpus, saying(compute_us=300_000))
        await asker.ledger.set_caps([cap(1, "compute_us")])
        async with answers(asker, prompts(3)) as records:
            assert len([record async for record in records]) == 3


async def test_when_the_time_of_a_run_is_used_up_nothing_more_is_sent(tmp_path: Path) -> None:
    teacher = Server(latency_s=0.05)
    async with server(teacher.answer) as url:
        task = write_task(tmp_path, items=500, teacher=endpoint(url, in_flight=1), budget={"wall_s": 0.4})
        with open_corpus(tmp_path / "corpus") as corpus:
            for _ in range(2):  # the second start of the same run has no time left
                before = teacher.asked.total()
                with pytest.raises(BudgetExhausted, match=r"budget.wall_s: the cap of 0.4 wall_s"):
                    async with corpusgen.generate(task, corpus) as records:
                        assert len([record async for record in records]) > 500
            assert before == teacher.asked.total() < 500
            found = next(at for at in balances(corpus.journal, ["run:r1"]) if at.unit == "wall_us")
            assert found.settled >= 400_000
            assert not verify(corpus)


@pytest.mark.parametrize("wrong", ["-1", "nan", "inf", "1e99", "soon", True])
def test_seconds_that_are_none_are_refused(wrong: object) -> None:
    with pytest.raises(ValueError, match="second"):
        seconds(wrong)
    with pytest.raises(UsageError):
        parse_budget(f"wall_s={wrong}")


async def test_a_clock_that_was_once_ahead_freezes_no_cap_once_a_person_says_so(
    tmp_path: Path, journal: Journal, clock: Clock
) -> None:
    ledger = Ledger(journal)

    async def spend() -> None:
        given = await ledger.reserve(intent())
        await journal.run(lambda transaction: ledger.settle(transaction, given, Amounts(requests=1)))

    await ledger.set_caps([of(1)])
    clock.now = EVENING + 1830 * DAY
    await spend()
    clock.now = EVENING + DAY
    with pytest.raises(BudgetExhausted, match=r"clock says 2026-12-01 23:00 UTC, .* at 2031-12-04 .* reset-clock"):
        await spend()
    reset = journal.run_now(lambda transaction: reset_clock(transaction, by="ann", reason="a flat battery"))
    assert reset is not None
    assert reset.call_id == 1
    await spend()
    with pytest.raises(BudgetExhausted, match=r"on 2026-12-01 \(UTC\)"):
        await spend()
    clock.now += DAY
    await ledger.set_caps([of(1)])
    await spend()
    assert journal.run_now(lambda transaction: reset_clock(transaction, by="ann", reason="again")) is None
    rows = journal.query("select before, after, by, reason from reconciliations")
    assert rows == [("clock at 2031-12-04 23:00 UTC", "clock at 2026-12-01 23:00 UTC", "ann", "a flat battery")]


def test_the_command_that_resets_the_clock_wants_a_name_and_a_reason(tmp_path: Path) -> None:
    with open_corpus(tmp_path):
        pass
    assert command("budget", "reset-clock", "--corpus", tmp_path, "--by", "ann").code == 2
    done = command("budget", "reset-clock", "--corpus", tmp_path, "--by", "ann", "--reason", "x", "--json")
    assert (done.code, done.object) == (0, {"reset": None})
