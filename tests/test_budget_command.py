"""``corpusgen budget``: caps that people set, and what they are told of them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from command import corpusgen
from flow_samples import write_task

from corpusgen.budget.amounts import Amounts
from corpusgen.budget.leases import Leases
from corpusgen.corpus import Corpus


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    task = write_task(tmp_path, items=5)
    assert corpusgen("run", task, "--corpus", tmp_path / "corpus", "-q").code == 0
    return tmp_path / "corpus"


def test_a_cap_binds_what_is_run_afterwards(corpus: Path) -> None:
    ran = corpusgen("budget", "set", "corpus", "requests=7", "--per", "day", "--corpus", corpus, "--json")
    assert (ran.code, ran.object["warnings"]) == (0, [])
    task = write_task(corpus.parent / "more", items=9)
    stopped = corpusgen("run", task, "--corpus", corpus, "-q", "--json")
    assert stopped.code == 3
    assert "the cap of 7 requests for corpus on 2" in stopped.object["message"]
    found = corpusgen("budget", "show", "--corpus", corpus, "--json").object
    assert found["caps_live_in"] == str(corpus / "journal.sqlite")
    (day,) = (one for one in found["balances"] if one["per"] == "day" and one["unit"] == "requests")
    assert (day["settled"], day["promised"], day["unconfirmed"], day["cap"], day["left"]) == (7, 0, 0, 7, 0)


def test_a_cap_below_what_is_spent_is_set_with_a_warning(corpus: Path) -> None:
    ran = corpusgen("budget", "set", "corpus", "requests=2", "--corpus", corpus)
    assert ran.code == 0
    assert "5 are used already, the cap is now 2; nothing more will be sent for corpus" in ran.stderr
    assert "settled 5, promised 0, unconfirmed 0, cap 2 (budget set by" in ran.stdout


def test_a_cap_on_the_corpus_is_cap_enough_for_a_teacher_that_costs_money(corpus: Path) -> None:
    price = {"input_usd_per_mtok": 1, "output_usd_per_mtok": 1, "source": "test"}
    task = write_task(corpus.parent / "priced", items=2, teacher={"free": False, "price": price})
    assert corpusgen("run", task, "--corpus", corpus, "-q").code == 2
    assert corpusgen("budget", "set", "corpus", "usd=0.01", "--per", "month", "--corpus", corpus).code == 0
    assert corpusgen("run", task, "--corpus", corpus, "-q").code == 0


def test_what_is_only_leased_is_told_from_what_calls_were_promised(corpus: Path) -> None:
    with Corpus.open(corpus) as opened:
        leases = Leases(journal=opened.journal)
        held = Amounts(microusd=2_000_000, requests=9)
        lease = asyncio.run(leases.grant(("corpus", "user:service"), held, seconds=3600))
        assert lease is not None
        found = corpusgen("budget", "show", "--corpus", corpus, "--json").object["balances"]
        (money,) = (one for one in found if (one["scope"], one["unit"]) == ("user:service", "usd"))
        assert (money["promised"], money["leased"], money["settled"]) == (2_000_000, 2_000_000, 0)
        told = corpusgen("budget", "show", "--corpus", corpus).stdout
        assert "promised $2.000000, unconfirmed $0.000000, $2.000000 of the promised only leased so far" in told
        asyncio.run(leases.give_back(lease))
    assert "only leased" not in corpusgen("budget", "show", "--corpus", corpus).stdout


def test_none_takes_a_cap_away(corpus: Path) -> None:
    corpusgen("budget", "set", "user:me", "usd=1,tokens=5", "--corpus", corpus)
    ran = corpusgen("budget", "set", "user:me", "usd=none", "--corpus", corpus, "--json")
    assert [(one["unit"], one["cap"]) for one in ran.object["balances"]] == [("tokens", 5)]


def test_a_teacher_is_capped_by_its_name_and_shown_in_words(corpus: Path) -> None:
    assert corpusgen("budget", "set", "teacher:scripted/test", "usd=2.5,wall_s=90", "--corpus", corpus).code == 0
    told = corpusgen("budget", "show", "--corpus", corpus).stdout
    assert "caps live in the corpus: " in told
    assert "teacher:scripted/test" in told
    assert "cap $2.500000 (budget set by" in told
    assert "cap 90.00 s (budget set by" in told


@pytest.mark.parametrize(
    ("scope", "caps", "told"),
    [
        ("corpus", "usd=-1", "0 or more, found -1"),
        ("corpus", "usd=nan", "0 or more, found nan"),
        ("corpus", "usd=0.0000001", "more than six decimals"),
        ("corpus", "eur=5", "'eur=5' is not one of usd=..."),
        ("corpus", "usd", "'usd' is not one of usd=..."),
        ("corpus", "usd=1,usd=2", "usd stands twice"),
        ("all", "usd=1", "'all' is not one of corpus, service, teacher:NAME, user:NAME, token:ID, run:ID"),
        ("teacher:", "usd=1", "'teacher:' is not one of"),
        ("corpus:x", "usd=1", "'corpus:x' is not one of"),
        ("user:x@2026-11", "usd=1", "is not one of"),
        ("user:a\nb", "usd=1", "is not one of"),
        ("run:r9", "usd=1", "no run 'r9'"),
    ],
)
def test_what_makes_no_sense_is_refused_in_words(corpus: Path, scope: str, caps: str, told: str) -> None:
    before = corpusgen("budget", "show", "--corpus", corpus, "--json").object
    ran = corpusgen("budget", "set", scope, caps, "--corpus", corpus)
    assert ran.code == 2
    assert told in ran.stderr
    assert corpusgen("budget", "show", "--corpus", corpus, "--json").object == before


def test_looking_makes_no_corpus(tmp_path: Path) -> None:
    assert corpusgen("budget", "show", "--corpus", tmp_path / "none").code == 2
    assert not (tmp_path / "none").exists()
