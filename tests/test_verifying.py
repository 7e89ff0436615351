from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest
from task_samples import write_label_task

from corpusgen.corpus import Corpus
from corpusgen.pipeline import Distillation, distill
from corpusgen.stages.task import load_task
from corpusgen.stages.verifying import orphans, sweep, verify


@pytest.fixture
def corpus(tmp_path: Path) -> Iterator[Corpus]:
    """A corpus in which the main job has run."""
    with Corpus.open(tmp_path / "corpus") as opened:
        asyncio.run(distill(Distillation(task=load_task(write_label_task(tmp_path)), corpus=opened)))
        yield opened


def found(corpus: Corpus) -> set[str]:
    return {finding.check for finding in verify(corpus)}


def change(corpus: Corpus, sql: str) -> None:
    connection = apsw.Connection(str(corpus.folder / "journal.sqlite"))
    connection.execute(sql)
    connection.close()


def test_an_undisturbed_corpus_is_sound_and_tidy(corpus: Corpus) -> None:
    assert verify(corpus) == []
    assert orphans(corpus) == []


@pytest.mark.parametrize(
    ("check", "sql"),
    [
        ("ledger", "update answers set cost_microusd = cost_microusd + 1 where rowid = 1"),
        ("ledger", "update calls set state = 'unknown' where call_id = 1"),
        ("balances", "update balances set settled = settled - 1 where scope = 'corpus' and unit = 'tokens'"),
        ("balances", "delete from balances where scope like 'run:%'"),
        ("requests", "update requests set body = (select body from requests limit 1 offset 1) where rowid = 1"),
        ("requests", "update requests set body = x'00' where rowid = 1"),
        ("records", "update records set shard = null where rowid = 1"),
        ("shards", "update shards set sha256 = hex(zeroblob(32)) where split = 'gold'"),
        ("manifest", "delete from shards where split = 'gold'"),
    ],
)
def test_a_changed_journal_is_found(corpus: Corpus, check: str, sql: str) -> None:
    change(corpus, sql)
    assert check in found(corpus)


def test_a_flipped_bit_in_a_shard_or_a_sealed_file_is_found(corpus: Corpus) -> None:
    for check, pattern in (("shards", "shards/*/*.parquet"), ("datasets", "datasets/*/*.parquet")):
        path = next(corpus.folder.glob(pattern))
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        assert check in found(corpus)


def test_an_edited_manifest_is_found(corpus: Corpus) -> None:
    path = corpus.folder / "MANIFEST.json"
    document = json.loads(path.read_text())
    document["shards"][0]["rows"] += 1
    path.write_text(json.dumps(document))
    assert "manifest" in found(corpus)


def test_files_no_commit_knows_are_swept_and_nothing_else(corpus: Corpus) -> None:
    before = {path for path in corpus.folder.rglob("*") if path.is_file()}
    stray = [corpus.folder / "shards" / "kinds" / ".train-00009.parquet.tmp", corpus.folder / "shards/kinds/x.parquet"]
    for path in stray:
        path.write_bytes(b"half")
    (corpus.folder / "datasets" / ".kinds-selected").mkdir()
    assert set(sweep(corpus)) == {*stray, corpus.folder / "datasets" / ".kinds-selected"}
    assert {path for path in corpus.folder.rglob("*") if path.is_file()} >= before - {
        corpus.folder / "journal.sqlite-wal"
    }
    assert verify(corpus) == []
