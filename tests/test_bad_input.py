"""What people and machines get wrong, through the front door: a clear error or a safe recovery, never a silent loss."""

from __future__ import annotations

import asyncio
import csv
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from command import Ran, corpusgen
from flow_samples import open_corpus, violations, write_task
from without_permission import on_another_disk, why_no_mounts

from corpusgen.corpus import Corpus
from corpusgen.journal_tables import JOURNAL_VERSION
from corpusgen.pipeline import run_task
from corpusgen.stages.loading import load_task
from corpusgen.stages.selecting import Filters, find_selection, select
from corpusgen.stages.verifying import verify

ITEMS = 30
NO_MOUNTS = why_no_mounts()


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A corpus of thirty records."""
    assert corpusgen("run", write_task(tmp_path, items=ITEMS), "--corpus", tmp_path / "corpus", "-q").code == 0
    return tmp_path / "corpus"


def requests(corpus: Path) -> int:
    """How many requests the corpus has paid for."""
    found = corpusgen("status", "--corpus", corpus, "--json").object["balances"]
    (one,) = (one for one in found if (one["scope"], one["unit"]) == ("corpus", "requests"))
    return int(one["settled"] + one["unconfirmed"])


def refused(ran: Ran, code: int, kind: str) -> str:
    """The words of a refusal that is one JSON object and no traceback."""
    assert (ran.code, ran.object["error"]) == (code, kind), ran
    assert "Traceback" not in ran.stderr
    return str(ran.object["message"])


# --- caps ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("caps", [{"usd": -1}, {"usd": float("nan")}, {"tokens": -5}, {"tokens": float("inf")}])
def test_negative_and_nan_caps_of_a_spec_are_refused_with_their_line(tmp_path: Path, caps: dict[str, float]) -> None:
    ran = corpusgen("run", write_task(tmp_path, budget=caps), "--corpus", tmp_path / "corpus", "--json")
    assert "task.yaml:" in (said := refused(ran, 2, "SpecError"))
    assert f"budget.{next(iter(caps))}: " in said
    assert not (tmp_path / "corpus").exists()


@pytest.mark.parametrize("budget", ["usd=-1", "usd=nan", "tokens=-5", "tokens=inf", "wall_s=-1", "compute_s=nan"])
def test_negative_and_nan_caps_of_a_command_are_refused(made: Path, budget: str) -> None:
    task = write_task(made.parent / "more", items=40)
    assert "--budget" in refused(
        corpusgen("run", task, "--corpus", made, "--json", "--budget", budget), 2, "UsageError"
    )
    assert "caps" in refused(corpusgen("budget", "set", "corpus", budget, "--corpus", made, "--json"), 2, "UsageError")
    assert requests(made) == ITEMS


def test_an_unknown_currency_is_refused_wherever_it_stands(made: Path, tmp_path: Path) -> None:
    task = write_task(tmp_path / "more", items=40)
    euros = corpusgen("run", write_task(tmp_path / "euros", budget={"eur": 5}), "--corpus", made, "--json")
    assert "budget.eur" in refused(euros, 2, "SpecError")
    assert "usd=..." in refused(
        corpusgen("run", task, "--corpus", made, "--budget", "eur=5", "--json"), 2, "UsageError"
    )
    assert "usd=..." in refused(
        corpusgen("budget", "set", "corpus", "eur=5", "--corpus", made, "--json"), 2, "UsageError"
    )
    with (tmp_path / "usage.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["id", "cost", "currency"], ["req-1", "1.00", "EUR"]])
    ran = corpusgen("reconcile", tmp_path / "usage.csv", "--corpus", made, "--json")
    assert "usage.csv:2: the cost must be in usd, found 'EUR'" in refused(ran, 2, "UsageError")
    assert requests(made) == ITEMS


def test_a_cap_below_what_is_spent_sends_nothing_more_whoever_sets_it(made: Path) -> None:
    more = write_task(made.parent / "more", items=40)
    said = corpusgen("budget", "set", "corpus", "requests=3", "--corpus", made)
    assert "30 are used already, the cap is now 3" in said.stderr
    refused(corpusgen("run", more, "--corpus", made, "--json", "-q"), 3, "BudgetExhausted")
    assert requests(made) == ITEMS
    corpusgen("budget", "set", "corpus", "requests=none", "--corpus", made)
    lowered = write_task(made.parent, items=ITEMS, budget={"requests": 3})
    again = corpusgen("run", lowered, "--corpus", made, "--json", "-q")
    assert (again.code, again.object["known"], again.object["requests"]) == (
        0,
        ITEMS,
        0,
    )  # what is answered costs nothing
    short = write_task(made.parent / "short", items=40, budget={"requests": 3})
    assert "the cap of 3" in refused(corpusgen("run", short, "--corpus", made, "--json", "-q"), 3, "BudgetExhausted")
    assert requests(made) == ITEMS + 3
    lower = write_task(made.parent / "short", items=40, budget={"requests": 2})
    refused(corpusgen("run", lower, "--corpus", made, "--json", "-q"), 3, "BudgetExhausted")
    assert requests(made) == ITEMS + 3


# --- a clock that jumps back -----------------------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 11, 22, 12, tzinfo=UTC)
        self.step = timedelta(milliseconds=1)

    def __call__(self) -> datetime:
        self.now += self.step
        return self.now


def ask(task: Path, corpus: Corpus) -> dict[str, Any]:
    return asyncio.run(run_task(load_task(task), corpus, opened=[]))


def test_a_clock_that_runs_backwards_loses_nothing_and_frees_nothing(tmp_path: Path) -> None:
    clock = Clock()
    with Corpus.open(tmp_path / "corpus", clock=clock) as corpus:
        ask(write_task(tmp_path, items=10), corpus)
        clock.step = -timedelta(seconds=1)
        assert ask(write_task(tmp_path / "more", items=20), corpus)["requests"] == 10
        clock.now -= timedelta(days=40)
        assert ask(write_task(tmp_path / "most", items=25), corpus)["requests"] == 5
        assert (verify(corpus), violations(corpus.journal)) == ([], [])
        rows = corpus.journal.query("select settled from balances where scope = 'corpus' and unit = 'requests'")
        assert rows == [(25,)]


def test_the_newest_dataset_is_the_last_one_made_though_the_clock_jumped_back(tmp_path: Path) -> None:
    clock = Clock()
    with Corpus.open(tmp_path / "corpus", clock=clock) as corpus:
        ask(write_task(tmp_path, items=10), corpus)
        select(corpus, "words", filters=Filters(limit=3))
        clock.now -= timedelta(days=2)
        select(corpus, "words", filters=Filters(limit=4))
        assert find_selection(corpus, "words").label == "words-2"


def test_the_catalog_is_made_anew_though_the_clock_jumped_back(made: Path) -> None:
    catalog, manifest = made / "catalog.duckdb", made / "MANIFEST.json"
    future = time.time_ns() + 10**12
    os.utime(manifest, ns=(future, future))
    os.utime(catalog, ns=(future, future))
    corpusgen("run", write_task(made.parent / "more", items=40), "--corpus", made, "-q")
    import duckdb

    with duckdb.connect(str(catalog), read_only=True) as connection:
        assert connection.execute("select count(*) from records").fetchall() == [(40,)]


# --- a full disk -----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(NO_MOUNTS is not None, reason=NO_MOUNTS or "")
@pytest.mark.parametrize("free_kb", [400, 1200])
def test_a_disk_that_fills_up_is_named_and_the_same_command_goes_on(tmp_path: Path, free_kb: int) -> None:
    task, disk = write_task(tmp_path, items=400), tmp_path / "disk"
    disk.mkdir()
    run = f"{sys.executable} -m corpusgen run {task} --corpus {disk}/corpus -q --json"
    done = on_another_disk(
        f"mount -t tmpfs -o size=8m tmpfs {disk}",
        f"head -c {8192 - free_kb}k /dev/zero > {disk}/ballast\n{run} || echo ended with $?\n"
        f"rm {disk}/ballast\n{run}\n{sys.executable} -m corpusgen verify --corpus {disk}/corpus",
    )
    assert "Traceback" not in done.stderr
    first, ended, second, _, sound = done.stdout.splitlines()
    assert (json.loads(first)["error"], ended) == ("CorpusUnwritable", "ended with 6"), done.stderr
    assert f"{disk}/corpus" in json.loads(first)["message"]
    assert (json.loads(second)["records"], sound, done.returncode) == (400, "sound", 0), done.stderr


@pytest.mark.skipif(NO_MOUNTS is not None, reason=NO_MOUNTS or "")
def test_a_disk_that_is_full_when_a_shard_is_committed_costs_nothing_twice(made: Path) -> None:
    run = f"{sys.executable} -m corpusgen run {write_task(made.parent / 'more', items=400)} --corpus {made} -q --json"
    done = on_another_disk(
        f"mount -t tmpfs -o size=16k tmpfs {made}/shards",
        f"{run} || echo ended with $?\numount {made}/shards\n{run}\n"
        f"{sys.executable} -m corpusgen verify --corpus {made}",
    )
    first, ended, second, _, sound = done.stdout.splitlines()
    assert (json.loads(first)["error"], ended) == ("CorpusUnwritable", "ended with 6"), done.stderr
    assert "shards" in (said := json.loads(first)["message"])
    assert "free some space and run again" in said
    assert (json.loads(second)["requests"], sound) == (0, "sound"), done.stderr
    assert requests(made) == 400


# --- a journal that is not whole -------------------------------------------------------------------------------------

COMMANDS: list[tuple[str, ...]] = [("status",), ("budget", "show"), ("query", "select 1"), ("gc",), ("verify",)]


@pytest.mark.parametrize("left", [0, 1, 100, 600, 4096, 0.5, -4096, -1])
def test_a_journal_that_was_cut_off_is_refused_and_nothing_is_bought_or_swept(made: Path, left: float) -> None:
    journal, task = made / "journal.sqlite", write_task(made.parent / "more", items=40)
    content = journal.read_bytes()
    keep = int(left * len(content)) if isinstance(left, float) else left % len(content)
    journal.write_bytes(content[:keep])
    before = {path: path.read_bytes() for path in made.rglob("*") if path.is_file()}
    for command in (*COMMANDS, ("run", str(task), "-q"), ("plan", str(task))):
        said = refused(corpusgen(*command, "--corpus", made, "--json"), 6, "CorpusDamaged")
        assert "journal.sqlite: " in said
        assert "restore" in said
    assert {path: path.read_bytes() for path in before if path.exists()} == before
    journal.write_bytes(content)
    for path in made.glob("journal.sqlite-*"):
        path.unlink()
    assert corpusgen("run", task, "--corpus", made, "-q", "--json").object["requests"] == 10


def test_a_journal_with_a_page_of_noughts_is_told_wherever_it_is_met(made: Path) -> None:
    journal, task = made / "journal.sqlite", write_task(made.parent / "more", items=40)
    content = journal.read_bytes()
    told = 0
    for at in range(4096, len(content), 5 * 4096):
        for path in made.glob("journal.sqlite-*"):
            path.unlink()
        journal.write_bytes(content[:at] + bytes(4096) + content[at + 4096 :])
        for command in (("verify",), ("run", str(task), "-q")):
            ran = corpusgen(*command, "--corpus", made, "--json")
            assert ran.code in (0, 6)
            assert ran.code == 0 or ran.object["error"] == "CorpusDamaged"
            told += ran.code == 6
    assert told > 5


def test_a_journal_that_is_gone_is_not_made_anew_beside_its_records(made: Path) -> None:
    (made / "journal.sqlite").unlink()
    task = str(made.parent / "task.yaml")
    for command in (*COMMANDS, ("run", task, "-q"), ("plan", task)):
        said = refused(corpusgen(*command, "--corpus", made, "--json"), 6, "CorpusDamaged")
        assert "is gone, but MANIFEST.json and shards are there" in said
    assert not (made / "journal.sqlite").exists()


# --- shards that are not whole ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["lost", "truncated", "flipped"])
def test_a_damaged_shard_is_named_and_costs_nothing_to_mend(made: Path, how: str) -> None:
    path = made / "shards" / "words" / "train-00000.parquet"
    content = bytearray(path.read_bytes())
    if how == "lost":
        path.unlink()
    else:
        content[len(content) // 3] ^= 16
        path.write_bytes(content if how == "flipped" else content[:-40])
    here = ("--corpus", made, "--json")
    for command in (("query", "select * from records"), ("select", "words")):
        assert "train-00000.parquet" in refused(corpusgen(*command, *here), 6, "CorpusDamaged")
    assert refused(corpusgen("verify", *here), 6, "CorpusDamaged")
    again = corpusgen("run", made.parent / "task.yaml", *here, "-q")
    assert again.object["requests"] == 0  # the answers are in the journal
    assert corpusgen("verify", "--repair", *here).code == 0
    assert corpusgen("select", "words", *here).object["rows"] == ITEMS
    assert requests(made) == ITEMS


# --- two versions of corpusgen on one corpus -------------------------------------------------------------------------


def set_version(corpus: Path, version: int) -> None:
    with closing(sqlite3.connect(corpus / "journal.sqlite")) as journal, journal:
        journal.execute(f"pragma user_version = {version}")


def test_an_older_corpusgen_leaves_a_newer_journal_alone(made: Path) -> None:
    set_version(made, JOURNAL_VERSION + 1)
    before = (made / "journal.sqlite").read_bytes()
    for command in (*COMMANDS, ("run", str(made.parent / "task.yaml"), "-q"), ("budget", "set", "corpus", "usd=1")):
        assert "newer corpusgen" in refused(corpusgen(*command, "--corpus", made, "--json"), 6, "CorpusTooNew")
    assert (made / "journal.sqlite").read_bytes() == before


@pytest.fixture
def asking(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A process that asks a slow teacher, two questions at a time."""
    task = write_task(tmp_path, items=200, teacher={"in_flight": 2})
    (tmp_path / "script.yaml").write_text("default: {text: hello, latency_s: 0.2}\n")
    command = [sys.executable, "-m", "corpusgen", "run", task, "--corpus", tmp_path / "corpus", "--json", "-q"]
    process = subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        wait_for_records(tmp_path / "corpus", 4)
        yield process, tmp_path / "corpus"
    finally:
        process.kill()
        process.communicate()


def wait_for_records(corpus: Path, least: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            with closing(sqlite3.connect(f"file:{corpus}/journal.sqlite?mode=ro", uri=True)) as journal:
                if journal.execute("select count(*) from records").fetchone()[0] >= least:
                    return
        except sqlite3.OperationalError:
            pass
        time.sleep(0.05)
    raise AssertionError("it does not get on")


def test_a_process_under_whose_hands_the_journal_was_brought_up_stops_and_what_it_had_asked_counts(
    asking: tuple[subprocess.Popen[str], Path],
) -> None:
    process, corpus = asking
    set_version(corpus, JOURNAL_VERSION + 1)  # what a newer corpusgen that does not look would have done
    out, err = process.communicate(timeout=60)
    assert (process.returncode, json.loads(out)["error"]) == (6, "CorpusTooNew"), err
    set_version(corpus, JOURNAL_VERSION)
    with open_corpus(corpus) as opened:
        opened.journal.query("select 1")
        (asked, kept), *_ = opened.journal.query("select (select count(*) from calls), (select count(*) from answers)")
        assert 0 <= asked - kept <= 2
        assert violations(opened.journal) == []
    assert requests(corpus) <= asked
    again = corpusgen(
        "run", corpus.parent / "task.yaml", "--corpus", corpus, "--json", "-q", "--budget", f"requests={asked}"
    )
    assert again.code == 3  # what was under way counts at its worst: nothing more is sent
    found = corpusgen("status", "--corpus", corpus, "--json").object["balances"]
    (corpus_requests,) = (one for one in found if (one["scope"], one["unit"]) == ("corpus", "requests"))
    assert corpus_requests["settled"] == kept
    assert corpus_requests["settled"] + corpus_requests["unconfirmed"] == asked


def test_a_journal_is_not_brought_up_while_an_older_process_has_calls_under_way(
    asking: tuple[subprocess.Popen[str], Path],
) -> None:
    process, corpus = asking
    process.send_signal(signal.SIGSTOP)  # it stays in the middle of a call
    set_version(corpus, JOURNAL_VERSION - 1)
    said = refused(corpusgen("status", "--corpus", corpus, "--json"), 6, "StoreError")
    assert f"process {process.pid} has calls under way with an older corpusgen" in said
    set_version(corpus, JOURNAL_VERSION)
    process.send_signal(signal.SIGCONT)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert corpusgen("verify", "--corpus", corpus).stdout.endswith("\nsound\n")


def test_a_copy_of_a_corpus_is_a_corpus(made: Path) -> None:
    shutil.copytree(made, made.parent / "copy")
    assert corpusgen("verify", "--corpus", made.parent / "copy").stdout.endswith("\nsound\n")


# --- options that exclude each other ---------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [("--format", "csv"), ("--format", "parquet"), ("--out", "x.csv")])
def test_two_forms_for_one_answer_are_refused(made: Path, more: tuple[str, str]) -> None:
    assert corpusgen("query", "select 1 as n", "--corpus", made, "--json").code == 0
    assert corpusgen("query", "select 1", *more, "--corpus", made, "--json").code == 2
