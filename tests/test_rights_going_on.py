"""A run that goes on is decided on again: past midnight, and when a waiver ends or the terms change while it asks."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from batch_double import BatchDouble, batch_double
from batch_samples import hurry, write_batch_task
from command import corpusgen
from rights_samples import PROHIBITED, UNCLEAR, acme_task, mocking, write_terms
from test_rights_gate import judged

from corpusgen.corpus import Corpus
from corpusgen.errors import CorpusgenError, LocatedError, PolicyRefused
from corpusgen.mock.server import Options
from corpusgen.pipeline import run_task
from corpusgen.stages.loading import load_task
from corpusgen.stages.terms import permitting

EVENING = datetime(2026, 11, 10, 23, 59, tzinfo=UTC)
MORNING = EVENING + timedelta(days=1)
TOMORROW = {"id": "acme-terms-2", "effective": str(MORNING.date())}
SLOWLY = {"in_flight": 1}


async def ran(folder: Path, clock: Callable[[], datetime], spec: Path | None = None) -> CorpusgenError | None:
    """Run a task by this clock; gives back what ended it."""
    with Corpus.open(folder / "corpus", clock=clock) as corpus:
        try:
            await run_task(load_task(spec or folder / "task.yaml"), corpus, opened=[])
        except CorpusgenError as error:
            return error
    return None


def lines(log: Path) -> int:
    return len(log.read_text().splitlines()) if log.exists() else 0


def midnight_after(log: Path, requests: int) -> Callable[[], datetime]:
    """A clock on which the day ends when so many requests have come."""
    return lambda: MORNING if lines(log) >= requests else EVENING


def kept(folder: Path) -> dict[str, Any]:
    with Corpus.open(folder / "corpus", reading=True) as corpus:
        query = corpus.journal.query
        return {
            "records": query("select count(*) from records where shard is not null")[0][0],
            "outcomes": [row[0] for row in query("select outcome from decisions order by decision_id")],
            "status": {row[0] for row in query("select status from runs")},
            "calls": dict(query("select state, count(*) from calls group by 1")),
        }


async def test_terms_that_prohibit_from_tomorrow_on_end_the_run_at_midnight(tmp_path: Path) -> None:
    log = tmp_path / "requests.jsonl"
    with mocking(Options(log=log)) as url:
        acme_task(tmp_path, url, {}, TOMORROW | PROHIBITED, items=6, teacher=SLOWLY)
        ended = await ran(tmp_path, midnight_after(log, 2))
    assert isinstance(ended, PolicyRefused)
    assert ended.exit_code == 4
    assert "R04" in str(ended)
    assert "It was allowed on 2026-11-10; nothing more was sent, and every answer is kept" in str(ended)
    assert lines(log) == 2
    found = kept(tmp_path)
    assert (found["records"], found["outcomes"], found["status"]) == (2, ["allow", "deny"], {"stopped"})
    assert found["calls"]["settled"] == 2


async def test_a_document_that_joins_at_midnight_ends_the_run_and_the_next_is_under_it(tmp_path: Path) -> None:
    log = tmp_path / "requests.jsonl"
    with mocking(Options(log=log)) as url:
        acme_task(tmp_path, url, {}, TOMORROW, items=6, teacher=SLOWLY)
        ended = await ran(tmp_path, midnight_after(log, 2))
        assert "terms changed, run again: endpoint/m as response is under other terms" in str(ended)
        assert (lines(log), kept(tmp_path)["records"]) == (2, 2)
        assert await ran(tmp_path, lambda: MORNING) is None
    assert (lines(log), kept(tmp_path)["records"]) == (6, 6)
    with Corpus.open(tmp_path / "corpus", reading=True) as corpus:
        assert corpus.journal.query("select count(*) from cards") == [(2,)]


async def test_a_run_goes_on_past_midnight_where_nothing_changes(tmp_path: Path) -> None:
    log = tmp_path / "requests.jsonl"
    with mocking(Options(log=log)) as url:
        acme_task(tmp_path, url, items=6, teacher=SLOWLY)
        assert await ran(tmp_path, midnight_after(log, 2)) is None
    assert kept(tmp_path)["outcomes"] == ["allow", "allow"]


async def test_a_judge_is_asked_no_more_after_midnight(tmp_path: Path) -> None:
    log = tmp_path / "requests.jsonl"
    with mocking(Options(log=log)) as url:
        spec = judged(tmp_path, url, quality=False)
        write_terms(tmp_path / "terms.yaml", {}, TOMORROW | PROHIBITED)
        told = "".join(f"  - {{contains: word {at:04}, text: hello {at}}}\n" for at in range(3))
        (tmp_path / "script.yaml").write_text(f"answers:\n{told}")
        spec.write_text(spec.read_text().replace("base_url: http", "in_flight: 1\n      base_url: http"))
        ended = await ran(tmp_path, midnight_after(log, 1))
    assert isinstance(ended, PolicyRefused)
    assert "as judge" in str(ended)
    assert (lines(log), kept(tmp_path)["records"]) == (1, 4)


async def test_no_batch_is_handed_over_after_midnight_and_those_under_way_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with batch_double(BatchDouble()) as double:
        spec = write_batch_task(tmp_path, double.base_url, [f"word {at}" for at in range(20)], batch_size=8)
        mock = {"provider": "corpusgen", "routes": ["mock"], "models": ["*"], "kind": "own"}
        write_terms(tmp_path / "terms.yaml", TOMORROW | PROHIBITED | mock)
        spec.write_text(spec.read_text() + "terms_files: [terms.yaml]\n")
        hurry(monkeypatch)
        ended = await ran(tmp_path, lambda: MORNING if double.batches else EVENING)
        assert len(double.batches) == 1
    assert isinstance(ended, PolicyRefused)
    assert (kept(tmp_path)["records"], kept(tmp_path)["calls"]) == (8, {"settled": 8})


async def test_terms_that_are_changed_while_it_asks_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(permitting, "LOOK_S", 0.0)
    log = tmp_path / "requests.jsonl"

    def changing() -> datetime:
        if lines(log) >= 2:
            write_terms(tmp_path / "terms.yaml", PROHIBITED)
        return EVENING

    with mocking(Options(log=log)) as url:
        acme_task(tmp_path, url, items=6, teacher=SLOWLY)
        ended = await ran(tmp_path, changing)
    assert isinstance(ended, PolicyRefused)
    assert (lines(log), kept(tmp_path)["outcomes"]) == (2, ["allow", "deny"])


async def test_a_terms_file_that_breaks_while_it_asks_ends_the_run_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(permitting, "LOOK_S", 0.0)
    log = tmp_path / "requests.jsonl"

    def breaking() -> datetime:
        if lines(log) >= 2:
            (tmp_path / "terms.yaml").write_text("documents: [")
        return EVENING

    with mocking(Options(log=log)) as url:
        acme_task(tmp_path, url, items=6, teacher=SLOWLY)
        ended = await ran(tmp_path, breaking)
    assert isinstance(ended, LocatedError)
    assert "terms.yaml" in str(ended)
    assert (lines(log), kept(tmp_path)["records"], kept(tmp_path)["status"]) == (2, 2, {"stopped"})


def waived(folder: Path) -> str:
    (folder / "letter.txt").write_text("Dear customer, yes.")
    until = str(datetime.now(UTC).date() + timedelta(days=30))
    words = ("--by", "Me", "--reason", "so", "--evidence", folder / "letter.txt", "--until", until, "--json")
    here = ("--corpus", folder / "corpus", "--spec", folder / "task.yaml")
    return str(corpusgen("policy", "waive", "--terms", "acme-terms-1", *words, *here).object["waiver_id"])


def test_a_waiver_that_another_process_takes_back_ends_the_run(tmp_path: Path) -> None:
    log = tmp_path / "requests.jsonl"
    with mocking(Options(log=log, latency_s=0.05)) as url:
        spec = acme_task(tmp_path, url, UNCLEAR, items=400, teacher=SLOWLY)
        name = waived(tmp_path)
        command = [sys.executable, "-m", "corpusgen", "run", str(spec), "--corpus", str(tmp_path / "corpus"), "-q"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as running:
            while lines(log) < 2 and running.poll() is None:
                time.sleep(0.02)
            assert corpusgen("policy", "unwaive", name, "--corpus", tmp_path / "corpus").code == 0
            _, told = running.communicate(timeout=60)
    assert (running.returncode, "R05" in told) == (4, True), told
    assert 2 <= lines(log) < 400
    assert kept(tmp_path)["records"] == lines(log)
    assert kept(tmp_path)["outcomes"][-1] == "needs_waiver"
