from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import apsw
import pytest
from task_samples import write_label_task

from corpusgen.corpus import Corpus
from corpusgen.pipeline import Distillation, distill
from corpusgen.stages.loading import load_task
from corpusgen.stages.verifying import orphans, sweep, verify


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a corpus in which the main job has run."""
    folder = tmp_path_factory.mktemp("finished")
    with Corpus.open(folder / "corpus") as opened:
        asyncio.run(distill(Distillation(task=load_task(write_label_task(folder)), corpus=opened)))
    return folder / "corpus"


@pytest.fixture
def corpus(finished: Path, tmp_path: Path) -> Iterator[Corpus]:
    """A copy of it, to be spoiled."""
    shutil.copytree(finished, tmp_path / "corpus")
    with Corpus.open(tmp_path / "corpus") as opened:
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
        ("ledger", "delete from answers where call_id = 1"),
        ("answers", "update answers set body = x'0011' where rowid = 1"),
        ("records", "update records set request_key = x'00' where rowid = 1"),
        ("requests", "update requests set request_key = zeroblob(32) where rowid = 1"),
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


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda text: text.replace('"rows": ', '"rows": 1', 1), "rows, its shards add up to"),
        (
            lambda text: text.replace('"sha256": "', '"sha256": "0', 1),
            "differs from what the journal committed: shards/",
        ),
        (lambda text: text.replace(": ", ":  ", 1), "committed: in how it is written"),
        (lambda text: text + " ", "committed: in how it is written"),
        (lambda text: text.replace("manifest_version", "manifest_versiom"), "not a manifest"),
        (lambda text: text[:-9], "not a manifest"),
        (lambda text: "", "not a manifest"),
    ],
)
def test_no_byte_of_the_manifest_may_differ(corpus: Corpus, change: Callable[[str], str], told: str) -> None:
    path = corpus.folder / "MANIFEST.json"
    path.write_text(change(path.read_text()))
    (finding,) = verify(corpus)
    assert finding.check == "manifest"
    assert told in finding.message


def test_a_manifest_that_is_gone_is_found_where_something_was_committed(corpus: Corpus, tmp_path: Path) -> None:
    (corpus.folder / "MANIFEST.json").unlink()
    assert [finding.message for finding in verify(corpus)] == ["cannot be read: No such file or directory"]
    with Corpus.open(tmp_path / "empty") as empty:
        assert verify(empty) == []


def test_a_catalog_is_checked_where_there_is_one(corpus: Corpus) -> None:
    path = corpus.folder / "catalog.duckdb"
    content = bytearray(path.read_bytes())
    content[5000] ^= 1
    path.write_bytes(content)
    assert found(corpus) == {"catalog"}
    path.unlink()
    assert verify(corpus) == []


def test_what_a_person_or_a_lease_settled_needs_no_answer(corpus: Corpus) -> None:
    change(corpus, "delete from answers where call_id = 1")
    change(corpus, "delete from records where request_key = (select request_key from calls where call_id = 1)")
    change(corpus, "update shards set rows = rows - 1 where split = 'validation'")
    assert "ledger" in found(corpus)
    change(
        corpus,
        "insert into reconciliations(call_id, before, after, microusd_before, by, reason, reconciled_us)"
        " values(1, 'unknown', 'settled', 0, 'ann', 'invoice', 0)",
    )
    assert "ledger" not in found(corpus)
    change(corpus, "delete from reconciliations")
    change(
        corpus,
        "insert into leases(owner_id, scopes, microusd, tokens, requests, compute_us, granted_us, expires_us, ended_us)"
        " select owner_id, 'corpus', 0, 0, 0, 0, 0, 0, 1 from calls where call_id = 1",
    )
    assert "ledger" not in found(corpus)


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
