"""What is lost or damaged is written again from the journal; what was there is kept aside."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import corpusgen
from flow_samples import Server, endpoint, open_corpus, write_task
from task_samples import write_label_task
from teacher_samples import server

from corpusgen.corpus import Corpus
from corpusgen.pipeline import Distillation, distill, generate
from corpusgen.stages import committing
from corpusgen.stages.loading import load_task
from corpusgen.stages.repairing import repair
from corpusgen.stages.verifying import orphans, verify


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committing, "ROWS_PER_SHARD", 4)


@pytest.fixture
def corpus(tmp_path: Path) -> Iterator[Corpus]:
    """Ten records in three shards."""
    with open_corpus(tmp_path / "corpus") as opened:
        asyncio.run(fill(write_task(tmp_path, items=10), opened))
        yield opened


async def fill(task: Path, corpus: Corpus) -> None:
    async with generate(task, corpus) as records:
        assert [record async for record in records]


def shard(corpus: Corpus, number: int = 1) -> Path:
    return corpus.folder / "shards" / "words" / f"train-0000{number}.parquet"


def damage(path: Path, how: str) -> None:
    content = path.read_bytes()
    if how == "lost":
        path.unlink()
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "truncated":
        path.write_bytes(content[: len(content) // 2])
    else:
        path.write_bytes(content[:200] + bytes([content[200] ^ 4]) + content[201:])


@pytest.mark.parametrize("how", ["lost", "empty", "truncated", "flipped"])
@pytest.mark.parametrize("file", ["shard", "MANIFEST.json"])
def test_a_damaged_file_gets_its_bytes_back(corpus: Corpus, how: str, file: str) -> None:
    path = shard(corpus) if file == "shard" else corpus.folder / file
    good = path.read_bytes()
    damage(path, how)
    bad = path.read_bytes() if path.exists() else None
    assert verify(corpus)
    (done,) = repair(corpus)
    assert (done.repaired, path.read_bytes()) == (True, good)
    assert (verify(corpus), orphans(corpus)) == ([], [])
    assert (done.kept_aside is None) == (bad is None)
    if bad is not None:
        assert (corpus.folder / str(done.kept_aside)).read_bytes() == bad
        assert "damaged" in str(done.kept_aside)
    assert repair(corpus) == []


def test_every_damaged_file_is_kept_under_a_name_of_its_own(corpus: Corpus) -> None:
    for _ in range(2):
        damage(shard(corpus), "flipped")
        repair(corpus)
    kept = sorted(path.name for path in (corpus.folder / "damaged").iterdir())
    assert kept == [f"shards-words-train-00001.parquet.damaged-{number}" for number in (1, 2)]


def test_a_shard_is_written_again_without_the_spec_the_script_and_the_prompts(corpus: Corpus, tmp_path: Path) -> None:
    good = shard(corpus).read_bytes()
    for path in tmp_path.glob("*.*"):
        path.unlink()
    damage(shard(corpus), "lost")
    assert [done.repaired for done in repair(corpus)] == [True]
    assert shard(corpus).read_bytes() == good


async def test_replies_of_a_server_that_is_gone_are_read_without_its_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_TEACHER_KEY", "secret")
    async with server(Server().answer) as url:
        task = write_task(tmp_path, items=10, teacher=endpoint(url, key_env="TEST_TEACHER_KEY"))
        with open_corpus(tmp_path / "corpus") as corpus:
            await fill(task, corpus)
    monkeypatch.delenv("TEST_TEACHER_KEY")
    with open_corpus(tmp_path / "corpus") as corpus:
        good = shard(corpus).read_bytes()
        damage(shard(corpus), "lost")
        assert [(done.repaired, done.message[-13:]) for done in repair(corpus)] == [(True, "written again")]
        assert shard(corpus).read_bytes() == good


def test_what_cannot_be_written_again_is_said_and_left_where_it_is(corpus: Corpus) -> None:
    damage(shard(corpus), "flipped")
    bad = shard(corpus).read_bytes()
    corpus.journal.run_now(
        lambda transaction: (
            transaction.execute("update records set item_id = 'x', item = json_set(item, '$.input', 'x')") and None
        )
    )
    (done,) = repair(corpus)
    assert (done.repaired, done.kept_aside, shard(corpus).read_bytes()) == (False, None, bad)
    assert "the journal's replies give 4 rows with sha256" in done.message
    assert "restore the shard from a backup" in done.message
    assert {path.name for path in shard(corpus).parent.iterdir()} == {shard(corpus, at).name for at in range(3)}


def test_replies_of_a_teacher_nobody_knows_any_more_are_said(corpus: Corpus) -> None:
    damage(shard(corpus), "lost")
    corpus.journal.run_now(
        lambda transaction: (
            transaction.execute("update cards set card = replace(card, 'scripted/test', 'gone/x')") and None
        )
    )
    (done,) = repair(corpus)
    assert not done.repaired
    assert "no run here names the teacher 'gone/x'" in done.message


def test_records_with_labels_and_log_probabilities_are_written_again_too(tmp_path: Path) -> None:
    with Corpus.open(tmp_path / "corpus") as corpus:
        asyncio.run(distill(Distillation(task=load_task(write_label_task(tmp_path)), corpus=corpus)))
        shards = sorted((corpus.folder / "shards").rglob("*.parquet"))
        good = [path.read_bytes() for path in shards]
        for path in shards:
            damage(path, "lost")
        damage(corpus.folder / "catalog.duckdb", "truncated")
        assert all(done.repaired for done in repair(corpus))
        assert [path.read_bytes() for path in shards] == good
        assert verify(corpus) == []


def test_the_command_says_what_it_did_and_what_is_left(tmp_path: Path) -> None:
    task, here = write_task(tmp_path, items=3), ("--corpus", tmp_path / "corpus")
    corpusgen("run", task, *here, "-q")
    path = tmp_path / "corpus" / "shards" / "words" / "train-00000.parquet"
    damage(path, "truncated")
    ran = corpusgen("verify", *here)
    assert (ran.code, "1 finding\n" in ran.stdout) == (6, True)
    ran = corpusgen("verify", "--repair", *here)
    assert ran.code == 0
    assert ran.stdout.startswith("repaired shards/words/train-00000.parquet: ")
    assert "the old file is damaged/shards-words-train-00000.parquet.damaged-1\nsigned by " in ran.stdout
    assert ran.stdout.endswith("\nsound\n")
    damage(path, "lost")
    (done,) = corpusgen("verify", "--repair", "--json", *here).object["repaired"]
    assert (done["repaired"], done["kept_aside"]) == (True, None)
    assert corpusgen("gc", *here).stdout == "0 files\n"
