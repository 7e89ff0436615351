"""Processor time of one's own machines: promised before it is used, booked after, and worth what its owner says."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import corpusgen
from flow_samples import RUN, cap, journal_in, states, violations
from task_samples import write_label_task

from corpusgen.budget.amounts import Amounts
from corpusgen.budget.compute import booked, worth
from corpusgen.budget.ledger import Balance, Intent, Ledger, balances, recover_dead_owners, set_caps
from corpusgen.errors import BudgetExhausted
from corpusgen.fields import Unit
from corpusgen.journal import Journal, Transaction
from corpusgen.stages.studying import worst_study_us

MINUTE = 60_000_000


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with journal_in(tmp_path) as opened:
        yield opened


def lesson(worst_us: int = MINUTE) -> Intent:
    return Intent(
        run_id="r1",
        request_key=b"k",
        teacher="student/bag",
        role="train",
        attempt=1,
        worst=Amounts(compute_us=worst_us),
        scopes=(RUN, "corpus"),
        price_version="own machine",
    )


def clock(*ticks: float) -> object:
    every = iter(ticks)
    return lambda: next(every)


def used(journal: Journal) -> Balance:
    return next(at for at in balances(journal, [RUN]) if at.unit == "compute_us")


def capped(journal: Journal, **caps: int) -> None:
    wanted = [cap(amount, unit) for unit, amount in caps.items()]  # type: ignore[arg-type]
    journal.run_now(lambda transaction: set_caps(transaction, wanted))


def test_what_was_used_is_booked_and_nothing_was_sent(journal: Journal) -> None:
    with booked(journal, lesson(), clock=clock(1.0, 3.5)):  # type: ignore[arg-type]
        assert used(journal).promised == MINUTE
    assert (used(journal).settled, used(journal).promised) == (2_500_000, 0)
    assert journal.query("select role, requests, tokens, microusd from calls") == [("train", 0, 0, 0)]
    assert not violations(journal)


def test_what_goes_beyond_the_bound_is_booked_in_full(journal: Journal) -> None:
    with booked(journal, lesson(1_000_000), clock=clock(0.0, 9.0)):  # type: ignore[arg-type]
        pass
    assert (used(journal).settled, states(journal)) == (9_000_000, {"overrun": 1})


def test_a_cap_that_is_too_small_lets_nothing_begin(journal: Journal) -> None:
    capped(journal, compute_us=MINUTE - 1)
    refused = pytest.raises(BudgetExhausted, match=r"59.999999 compute_s .* the work ahead may need 60\.")
    with refused, booked(journal, lesson()):
        raise AssertionError
    assert not states(journal)


@pytest.mark.parametrize("unit", ["microusd", "tokens", "requests"])
def test_a_cap_of_0_on_what_is_sent_does_not_stop_work_that_sends_nothing(journal: Journal, unit: Unit) -> None:
    capped(journal, **{unit: 0})
    with booked(journal, lesson()):
        pass
    assert states(journal) == {"settled": 1}


def test_work_that_fails_has_used_its_time_all_the_same(journal: Journal) -> None:
    with pytest.raises(ValueError, match="no labels"), booked(journal, lesson(), clock=clock(0.0, 4.0)):  # type: ignore[arg-type]
        raise ValueError("no labels")
    assert used(journal).settled == 4_000_000


def test_a_process_that_dies_while_it_works_leaves_the_worst_case_unconfirmed(journal: Journal) -> None:
    def dies(transaction: Transaction) -> None:
        transaction.execute("insert into owners values(99, 0, '', 0)")
        transaction.execute("update calls set owner_id = 99")

    with booked(journal, lesson()):
        journal.run_now(dies)
        assert journal.run_now(recover_dead_owners) == 1
    assert (used(journal).unconfirmed, states(journal)["unknown"]) == (MINUTE, 1)
    assert not violations(journal)


def test_who_waits_for_processor_time_gets_what_comes_free(journal: Journal) -> None:
    ledger = Ledger(journal)
    capped(journal, compute_us=MINUTE)
    asking = asyncio.run(ledger.reserve(lesson()))
    threading.Timer(
        0.05, lambda: journal.run_now(lambda transaction: ledger.release(transaction, asking, "not sent"))
    ).start()
    with booked(journal, lesson(), clock=clock(0.0, 1.0)):  # type: ignore[arg-type]
        assert states(journal) == {"released": 1, "promised": 1}
    assert not violations(journal)


def test_an_hour_is_worth_what_its_owner_says() -> None:
    assert worth(3_600_000_000, 40_000) == 40_000
    assert worth(1, 40_000) == 1  # rounded up
    assert worth(3_600_000_000, 0) == 0


def test_the_bound_grows_with_the_lesson() -> None:
    small = worst_study_us(["a word"] * 100, 2)
    assert small < worst_study_us(["a word"] * 1_000, 2) < worst_study_us(["a word"] * 1_000, 2, ways=6, folds=3)
    assert worst_study_us([], 2) > 0


# --- in a run --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def distilled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A label task with a price of an hour, stopped before its student by a cap on processor time, then let go on."""
    folder = tmp_path_factory.mktemp("compute")
    more = "budget: {compute_s: 600, compute_usd_per_hour: 3.6}"
    task = write_label_task(folder, more=more)
    return task, folder / "corpus"


def test_a_cap_on_processor_time_stops_before_the_student_learns(distilled: tuple[Path, Path]) -> None:
    task, corpus = distilled
    stopped = corpusgen("distill", task, "--corpus", corpus, "-q", "--json", "--budget", "compute_s=1")
    assert stopped.code == 3
    assert "--budget compute_s: the cap of 1 compute_s" in stopped.object["message"]
    went_on = corpusgen("distill", task, "--corpus", corpus, "-q", "--json", "--budget", "compute_s=600").object
    assert went_on["student"]
    assert went_on["compute_s"] > 0
    # 3.6 dollars an hour are a thousand micro-dollars a second.
    assert went_on["compute_microusd"] == pytest.approx(1_000 * went_on["compute_s"], abs=1)
    assert went_on["spent_microusd"] == 0


def test_processor_time_and_its_worth_are_shown_apart_from_money(distilled: tuple[Path, Path]) -> None:
    task, corpus = distilled
    found = corpusgen("budget", "show", "--corpus", corpus, "--json").object["balances"]
    by_name = {(one["scope"].partition(":")[0], one["unit"]): one for one in found}
    own = by_name["run", "compute_s"]
    assert own["worth_microusd"] == by_name["corpus", "compute_s"]["worth_microusd"] > 0
    assert by_name["run", "usd"]["settled"] == 0 if ("run", "usd") in by_name else True
    assert "that nobody bills" in corpusgen("status", "--corpus", corpus).stdout
    rows = corpusgen("query", "select role, count(*) n from calls where role = 'train' group by 1", "--corpus", corpus)
    assert "train" in rows.stdout
    assert corpusgen("verify", "--corpus", corpus).code == 0
    report = json.loads(corpusgen("distill", task, "--corpus", corpus, "-q", "--json").stdout)["report"]
    assert "no cap in dollars counts it" in Path(report).read_text()


def test_train_is_held_to_the_caps_of_its_task(distilled: tuple[Path, Path]) -> None:
    task, corpus = distilled
    label = "kinds-1"
    before = corpusgen("budget", "show", "--corpus", corpus, "--json").object["balances"]
    stopped = corpusgen("train", label, "--spec", task, "--corpus", corpus, "--budget", "wall_s=0.001", "--json")
    assert stopped.code == 3
    assert "wall_s" in stopped.object["message"]
    trained = corpusgen("train", label, "--spec", task, "--corpus", corpus, "--budget", "compute_s=600", "--json")
    assert trained.code == 0
    after = corpusgen("budget", "show", "--corpus", corpus, "--json").object["balances"]
    assert _of_run(after, "compute_s") > _of_run(before, "compute_s")
    assert _of_run(after, "wall_s") > _of_run(before, "wall_s")


def _of_run(found: list[dict[str, int | str]], unit: str) -> int:
    return next(int(one["settled"]) for one in found if str(one["scope"]).startswith("run:") and one["unit"] == unit)
