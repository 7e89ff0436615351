"""A corpus on a read-only disk, or of somebody else: it can be looked at, and nothing is spent on it."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import Ran, corpusgen
from flow_samples import write_task
from without_permission import held_to_permissions, nobody_may_write, on_another_disk, why_no_mounts

from corpusgen.corpus import Corpus
from corpusgen.pipeline import run_task
from corpusgen.reading import Unwritable
from corpusgen.stages.loading import load_task

ITEMS = 7
NO_MOUNTS = why_no_mounts()


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Path]:
    """A folder with a task and the corpus that was made of it, which nobody may write to."""
    corpusgen("run", write_task(tmp_path, items=ITEMS), "--corpus", tmp_path / "corpus", "-q")
    with nobody_may_write(tmp_path / "corpus"):
        yield tmp_path


def files(corpus: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in corpus.rglob("*") if path.is_file()}


def looked_at(folder: Path) -> list[Ran]:
    """How every command ends that only reads."""
    corpus = ("--corpus", folder / "corpus")
    counted = held_to_permissions("query", "select count(*) as n from records", *corpus, "--json")
    assert counted.code == 0, counted.stderr
    assert counted.object["rows"] == [{"n": ITEMS}]
    return [
        held_to_permissions("status", *corpus),
        held_to_permissions("budget", "show", *corpus),
        held_to_permissions("verify", *corpus),
        held_to_permissions("plan", folder / "task.yaml", *corpus),
        held_to_permissions("budget", "export", folder / "books.csv", *corpus),
        held_to_permissions("verify", "--ledger", folder / "books.csv", *corpus),
        held_to_permissions("reconcile", *corpus),
        held_to_permissions("gc", "--dry-run", *corpus),
    ]


def test_what_only_reads_works_and_leaves_no_trace(here: Path) -> None:
    before = files(here / "corpus")
    for ran in looked_at(here):
        assert ran.code == 0, ran.stderr
    assert files(here / "corpus") == before


def test_what_writes_is_refused_with_the_path_before_anything_is_sent(here: Path) -> None:
    corpus, more = ("--corpus", here / "corpus"), write_task(here / "more", items=9)
    for command in (
        ("run", more, "-q"),
        ("distill", more, "-q"),
        ("budget", "set", "corpus", "usd=1"),
        ("select", "words"),
        ("gc",),
        ("verify", "--repair"),
        ("reconcile", "--all", "--by", "me", "--reason", "so"),
    ):
        ran = held_to_permissions(*command, *corpus, "--json")
        assert (ran.code, ran.object["error"]) == (6, "CorpusUnwritable"), command
        assert f"{here}/corpus" in ran.object["message"]
        assert "may not be written" in ran.object["message"]
    assert held_to_permissions("status", *corpus, "--json").object["records"] == ITEMS


def test_shards_that_find_no_place_are_noticed_before_the_first_call(tmp_path: Path) -> None:
    task, corpus = write_task(tmp_path, items=ITEMS), ("--corpus", tmp_path / "corpus")
    corpusgen("run", task, *corpus, "-q")
    more = write_task(tmp_path / "more", items=9)
    with nobody_may_write(tmp_path / "corpus" / "shards"):
        ran = held_to_permissions("run", more, *corpus, "--json", "-q")
    assert (ran.code, ran.object["error"]) == (6, "CorpusUnwritable")
    assert "shards: may not be written" in ran.object["message"]
    assert len(corpusgen("status", *corpus, "--json").object["runs"]) == 1


_CRASH = """
import os, sys
from pathlib import Path
from corpusgen.journal import Journal
journal = Journal(Path(sys.argv[1]), clock_us=lambda: 0)
journal.run_now(lambda t: t.execute("insert into meta values('last', 'x')") and None)
os._exit(0)
"""


@pytest.mark.parametrize("index", [True, False], ids=["with its index", "without its index"])
def test_what_a_crash_left_in_the_wal_is_read_too(tmp_path: Path, index: bool) -> None:
    task, corpus = write_task(tmp_path, items=ITEMS), tmp_path / "corpus"
    corpusgen("run", task, "--corpus", corpus, "-q")
    subprocess.run([sys.executable, "-c", _CRASH, corpus / "journal.sqlite"], check=True)
    assert (corpus / "journal.sqlite-wal").stat().st_size > 0
    if not index:
        (corpus / "journal.sqlite-shm").unlink()
    with nobody_may_write(corpus):
        found = Unwritable.found(corpus / "journal.sqlite").connect()
        assert found.execute("select value from meta where name = 'last'").get == "x"
        found.close()
        assert held_to_permissions("status", "--corpus", corpus, "--json").object["records"] == ITEMS


def test_it_is_read_while_its_owner_works_on_it(tmp_path: Path) -> None:
    task = load_task(write_task(tmp_path, items=ITEMS))
    with Corpus.open(tmp_path / "corpus") as corpus:
        asyncio.run(run_task(task, corpus, opened=[]))
        with nobody_may_write(tmp_path / "corpus"):  # its owner has it open already
            assert held_to_permissions("status", "--corpus", corpus.folder, "--json").object["records"] == ITEMS
            corpus.journal.run_now(lambda transaction: transaction.execute("delete from records") and None)
            assert held_to_permissions("status", "--corpus", corpus.folder, "--json").object["records"] == 0


def test_a_journal_that_would_have_to_be_brought_up_is_said(tmp_path: Path) -> None:
    from test_journal import VERSION_1

    (tmp_path / "corpus").mkdir()
    old = sqlite3.connect(tmp_path / "corpus" / "journal.sqlite")
    old.executescript(VERSION_1)
    old.close()
    with nobody_may_write(tmp_path / "corpus"):
        ran = held_to_permissions("status", "--corpus", tmp_path / "corpus", "--json")
    assert (ran.code, ran.object["error"]) == (6, "CorpusUnwritable")
    assert "journal version 1 must be brought up" in ran.object["message"]


def test_a_file_that_somebody_else_writes_to_meanwhile_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    path.write_bytes(b"a")
    found = Unwritable.found(path)
    assert not found.changed()
    path.write_bytes(b"ab")
    assert found.changed()


@pytest.mark.skipif(NO_MOUNTS is not None, reason=NO_MOUNTS or "")
def test_a_disk_that_is_mounted_read_only_is_looked_at_and_not_worked_on(tmp_path: Path) -> None:
    task, corpus = write_task(tmp_path, items=ITEMS), tmp_path / "corpus"
    corpusgen("run", task, "--corpus", corpus, "-q")
    command = f"{sys.executable} -m corpusgen"
    done = on_another_disk(
        f"mount --bind {corpus} {corpus} && mount -o remount,ro,bind {corpus}",
        f"{command} status --json --corpus {corpus} && {command} verify --corpus {corpus}\n"
        f"{command} run {write_task(tmp_path / 'more', items=9)} --corpus {corpus} -q || echo ended with $?",
    )
    assert done.returncode == 0, done.stderr
    assert f'"records":{ITEMS}' in done.stdout
    assert done.stdout.endswith("sound\nended with 6\n")
    assert f"error: {corpus}: may not be written" in done.stderr


def test_a_copy_on_a_writable_disk_goes_on(here: Path) -> None:
    shutil.copytree(here / "corpus", here / "copy")
    for place in (here / "copy", *(here / "copy").rglob("*")):
        place.chmod(0o755)
    ran = corpusgen("run", write_task(here / "more", items=9), "--corpus", here / "copy", "-q", "--json")
    assert (ran.code, ran.object["requests"]) == (0, 2)
