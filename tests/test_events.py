"""The ledger of events: everything that happened is in it, and verify names whatever was done to it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ledger_samples import change, distilled, key_in, own_key, sign_again
from task_samples import write_label_task

from corpusgen.corpus import Corpus
from corpusgen.errors import CorpusDamaged, UsageError
from corpusgen.journal import Transaction
from corpusgen.provenance.events import EventKind, commitment, note_event
from corpusgen.provenance.merkle import merkle_root
from corpusgen.records import Json, canonical_json
from corpusgen.stages.committing import export_manifest
from corpusgen.stages.lineage.attesting import attest, checkpoint, latest_checkpoint, signed
from corpusgen.stages.lineage.ledger_checks import (
    events_checked,
    events_of,
    export_events,
    kept_checkpoint,
    ledger_findings,
)
from corpusgen.stages.verifying import verify
from corpusgen.store.manifest import read_manifest


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return distilled(tmp_path_factory.mktemp("finished"))


@pytest.fixture
def corpus(finished: Path, tmp_path: Path) -> Iterator[Corpus]:
    """A copy of it, to be spoiled."""
    shutil.copytree(finished, tmp_path / "corpus")
    with Corpus.open(tmp_path / "corpus") as opened:
        yield opened


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Corpus]:
    with Corpus.open(tmp_path / "empty") as opened:
        yield opened


def said(corpus: Corpus) -> str:
    """What verify finds, in lines."""
    export_manifest(corpus)  # what the manifest says is another test's matter
    return "\n".join(f"{one.check} {one.subject}: {one.message}" for one in verify(corpus))


def note(corpus: Corpus, kind: EventKind, **payload: Json) -> None:
    corpus.journal.run_now(lambda transaction: note_event(transaction, kind, payload))


def kinds(corpus: Corpus) -> list[str]:
    return [event.kind for event in events_of(corpus)]


def test_what_changes_a_corpus_is_in_its_ledger_and_signed(corpus: Corpus) -> None:
    assert {"shard_committed", "dataset_sealed", "student_trained", "key_added"} <= set(kinds(corpus))
    latest = latest_checkpoint(corpus)
    assert latest is not None
    assert latest.size == len(kinds(corpus))
    assert (corpus.folder / "keys" / f"{own_key().key_id}.pub").read_bytes() == own_key().public_pem
    assert said(corpus) == ""


def test_every_checkpoint_has_the_root_of_the_events_before_it(corpus: Corpus) -> None:
    events = list(events_of(corpus))
    rows = corpus.journal.query("select size, lower(hex(root)) from checkpoints")
    assert len(rows) > 1
    assert [root for _, root in rows] == [merkle_root(event.leaf for event in events[:size]) for size, _ in rows]


def test_the_manifest_says_how_far_the_ledger_is_signed(corpus: Corpus) -> None:
    head, latest = read_manifest(corpus.folder).ledger, latest_checkpoint(corpus)
    assert latest is not None
    assert head is not None
    assert (head.size, head.root) == (latest.size, latest.root)
    change(corpus, ("delete from checkpoints where size = ?", (latest.size,)))
    assert any("says of the ledger" in finding.message for finding in verify(corpus))


def test_a_checkpoint_of_the_same_events_is_not_signed_again(corpus: Corpus) -> None:
    before = latest_checkpoint(corpus)
    assert attest(corpus) is None
    assert checkpoint(corpus) == before


def test_an_event_stands_or_falls_with_what_it_tells_of(empty: Corpus) -> None:
    def operation(transaction: Transaction) -> None:
        note_event(transaction, "reconciled", {"confirmed": 1})
        transaction.execute("insert into shards values('a')")

    with pytest.raises(Exception, match="9 columns"):
        empty.journal.run_now(operation)
    assert kinds(empty) == []


def test_an_answered_run_writes_no_event_and_imports_nothing_that_signs(tmp_path: Path) -> None:
    task = write_label_task(tmp_path)
    code = (
        "import sys\nfrom corpusgen.cli.main import main\n"
        f"try: main(['run', {str(task)!r}, '--corpus', {str(tmp_path / 'corpus')!r}, '--json'])\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "sys.stderr.write(str('cryptography' in sys.modules))"
    )

    def run() -> str:
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr[-5:]

    assert run().endswith("True")
    before = (tmp_path / "corpus" / "MANIFEST.json").stat().st_mtime_ns
    with Corpus.open(tmp_path / "corpus") as corpus:
        told = kinds(corpus)
    assert run() == "False"
    with Corpus.open(tmp_path / "corpus") as corpus:
        assert kinds(corpus) == told
    assert (tmp_path / "corpus" / "MANIFEST.json").stat().st_mtime_ns == before


def test_a_key_that_cannot_be_used_loses_no_work(
    empty: Corpus, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("CORPUSGEN_SIGNING_KEY", str(tmp_path / "file" / "key"))
    note(empty, "reconciled", confirmed=1)
    assert attest(empty) is None
    assert "the ledger was not signed" in caplog.text
    assert "corpusgen checkpoint signs it" in caplog.text
    with pytest.raises(UsageError, match="signing key cannot be read or made"):
        checkpoint(empty)
    monkeypatch.undo()
    assert attest(empty) is not None
    assert said(empty) == ""


def test_a_second_key_is_told_by_an_event_of_its_own(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = key_in(tmp_path)
    monkeypatch.setenv("CORPUSGEN_SIGNING_KEY", str(tmp_path / "signing.pem"))
    note(corpus, "reconciled", confirmed=1)
    assert checkpoint(corpus).key_id == other.key_id
    assert kinds(corpus)[-1] == "key_added"
    assert said(corpus) == ""


def test_several_who_note_and_sign_at_once_make_one_ledger(tmp_path: Path) -> None:
    def work(number: int) -> None:
        with Corpus.open(tmp_path / "corpus") as opened:
            for _ in range(5):
                note(opened, "reconciled", confirmed=number)
                attest(opened)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    with Corpus.open(tmp_path / "corpus") as opened:
        assert kinds(opened).count("reconciled") == 20
        assert attest(opened) is None
        assert verify(opened) == []


def test_what_is_older_than_the_ledger_is_taken_into_it(corpus: Corpus) -> None:
    change(corpus, "delete from events", "delete from checkpoints", "delete from meta where name = 'corpus_id'")
    shutil.rmtree(corpus.folder / "keys")
    assert said(corpus) == ""
    checkpoint(corpus)
    assert sorted(set(kinds(corpus))) == ["dataset_sealed", "key_added", "shard_committed", "student_trained"]
    assert said(corpus) == ""


# --- what is done to it ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "found"),
    [
        ("update events set payload = replace(payload, 'rows', 'rowz') where seq = 3", "event 3: what it says"),
        ("update events set nonce = zeroblob(32) where seq = 3", "event 3: what it says (shard_committed) is not"),
        ("update events set nonce = null where seq = 3", "event 3: its nonce is gone"),
        ("update events set payload = null where seq = 3", "event 3: its payload is gone"),
        ("update events set payload = null, nonce = null where seq = 3", "event 3: what it says is gone"),
        ("update events set kind = 'imported' where seq = 3", "events 1 to "),
        ("update events set occurred_us = occurred_us + 1 where seq = 3", "not those that were signed"),
        ("delete from events where seq = 3", "event 3: is missing; the next one is 4"),
        ("delete from events where seq = (select max(seq) from events)", "the ledger was cut"),
        ("delete from events", "and there are only 0: the ledger was cut"),
        ("update checkpoints set root = zeroblob(32)", "is noted down with root 0000"),
        ("update checkpoints set peaks = zeroblob(32)", "do not have its root"),
        ("update checkpoints set envelope = replace(envelope, 'sig\":\"', 'sig\":\"A')", "is no signed envelope"),
        ("update checkpoints set envelope = '{}'", "is no signed envelope"),
        ("update meta set value = 'another' where name = 'corpus_id'", "this is another"),
        ("delete from shards where split = 'gold'", "shards kinds/gold-00000.parquet: event"),
        ("update shards set sha256 = 'x' where split = 'gold'", "sha256 are not what event"),
        ("update datasets set status = 'selected'", "datasets kinds-1: event"),
        ("delete from datasets", "and it is no more: it was deleted"),
        (
            "update datasets set manifest = replace(manifest, 'rfc9162', 'rfc6962')",
            "manifest_sha256 are not what event",
        ),
        ("delete from dataset_secrets", "the secret that its leaves are salted with is gone"),
        ("update dataset_secrets set secret = zeroblob(32)", "sealed was another"),
        ("delete from students", "and it is no more: it was deleted"),
    ],
)
def test_everything_done_to_the_ledger_is_named(corpus: Corpus, sql: str, found: str) -> None:
    change(corpus, sql)
    assert found in said(corpus)


def test_events_in_another_order_are_named(corpus: Corpus) -> None:
    change(
        corpus,
        "update events set seq = -3 where seq = 3",
        "update events set seq = 3 where seq = 4",
        "update events set seq = 4 where seq = -3",
    )
    found = said(corpus)
    assert "not in their order: event 4 is dated before the one before it" in found
    assert "event 4: what it says" not in found


def test_a_deleted_shard_is_named_even_where_everything_else_forgot_it(corpus: Corpus) -> None:
    (corpus.folder / "shards" / "kinds" / "gold-00000.parquet").unlink()
    change(corpus, "delete from records where split = 'gold'", "delete from shards where split = 'gold'")
    export_manifest(corpus)
    assert [one.subject for one in verify(corpus) if one.check == "shards"] == ["kinds/gold-00000.parquet"]


def test_an_event_of_a_deleted_shard_cannot_be_passed_off_as_erased(corpus: Corpus) -> None:
    change(
        corpus,
        "delete from shards where split = 'gold'",
        "update events set payload = null, nonce = null where kind = 'shard_committed' and payload like '%gold%'",
    )
    assert "what it says is gone, and no erasure tells of that" in said(corpus)


def test_a_shard_that_no_event_tells_of_is_named(corpus: Corpus) -> None:
    change(corpus, "update shards set name = 'kinds/other-00000.parquet' where split = 'gold'")
    assert "shards kinds/other-00000.parquet: no event in the ledger tells of it" in said(corpus)


def test_a_changed_student_is_named(corpus: Corpus) -> None:
    (weights,) = (corpus.folder / "students").glob("*/student.json")
    weights.write_bytes(weights.read_bytes() + b" ")
    assert "files are not what event" in said(corpus)


def test_a_checkpoint_forged_with_another_key_is_named(corpus: Corpus, tmp_path: Path) -> None:
    other = key_in(tmp_path)
    sign_again(corpus, other)
    assert f"signed with key {other.key_id}, which is not among the keys here" in said(corpus)


def test_a_key_swapped_in_keys_is_named(corpus: Corpus, tmp_path: Path) -> None:
    other, own = key_in(tmp_path), own_key()
    (corpus.folder / "keys" / f"{own.key_id}.pub").write_bytes(other.public_pem)
    found = said(corpus)
    assert f"keys/{own.key_id}.pub: was swapped: it holds key {other.key_id}" in found
    assert f"keys {own.key_id}: is not in keys/, but the ledger says that it signed here" in found


def test_a_key_swapped_with_all_its_signatures_is_named(corpus: Corpus, tmp_path: Path) -> None:
    other, own = key_in(tmp_path), own_key()
    (corpus.folder / "keys" / f"{own.key_id}.pub").unlink()
    (corpus.folder / "keys" / f"{other.key_id}.pub").write_bytes(other.public_pem)
    sign_again(corpus, other)
    assert f"keys {other.key_id}: has signed a checkpoint, but no event in the ledger tells of it" in said(corpus)


def test_a_public_key_that_is_gone_or_spoiled_is_named(corpus: Corpus) -> None:
    file = corpus.folder / "keys" / f"{own_key().key_id}.pub"
    file.write_bytes(b"spoiled")
    assert "is no public key" in said(corpus)
    file.unlink()
    assert "is not in keys/" in said(corpus)


def test_a_review_that_nobody_signed_is_named(corpus: Corpus) -> None:
    envelope = signed(corpus, "application/vnd.corpusgen.terms-review+json", {"by": "us"})
    row = "insert into reviews(terms_id, review, envelope, reviewed_us) values('t', '{\"by\":\"us\"}', ?, 0)"
    change(corpus, (row, (envelope,)))
    assert said(corpus) == ""
    change(corpus, (row, (envelope.replace('"sig":"', '"sig":"AAAA'),)))
    assert "signatures review 2: the signature" in said(corpus)


def test_whoever_has_the_key_can_write_another_ledger_unless_a_checkpoint_was_kept(
    corpus: Corpus, tmp_path: Path
) -> None:
    kept = checkpoint(corpus).envelope
    payload, nonce = canonical_json({"task": "another"}), bytes(32)
    values = (payload.decode(), nonce, commitment(payload, nonce))
    change(corpus, ("update events set payload = ?, nonce = ?, commitment = ? where seq = 1", values))
    sign_again(corpus, own_key())
    assert said(corpus) == ""
    (found,) = ledger_findings(corpus, [("kept.json", kept)])
    assert found.subject == "kept.json"
    assert "are not those that were signed" in found.message


def test_a_ledger_goes_on_from_a_checkpoint_that_was_kept(corpus: Corpus) -> None:
    kept = checkpoint(corpus).envelope
    note(corpus, "reconciled", confirmed=1)
    checkpoint(corpus)
    assert verify(corpus, [("kept.json", kept)]) == []


def test_a_verify_that_skipped_the_commitments_would_miss_what_was_changed(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A planted bug: nothing else stands in for this check."""
    change(corpus, "update events set payload = replace(payload, 'kinds', 'kindz') where kind = 'run_planned'")
    assert "what it says (run_planned) is not what was noted down" in said(corpus)
    monkeypatch.setattr("corpusgen.stages.lineage.ledger_checks.commitment_problem", lambda event, erased: None)
    assert said(corpus) == ""


# --- what is erased --------------------------------------------------------------------------------------------------


def test_what_an_erasure_tells_of_may_be_gone(corpus: Corpus) -> None:
    def operation(transaction: Transaction) -> None:
        transaction.execute("update events set payload = null, nonce = null where seq = 1")
        note_event(transaction, "erased", {"events": [1]})

    corpus.journal.run_now(operation)
    checkpoint(corpus)
    assert said(corpus) == ""


def test_what_was_revoked_or_removed_by_an_erasure_need_not_be_there(corpus: Corpus) -> None:
    (student,) = corpus.journal.query("select student_id from students")[0]
    change(corpus, "update datasets set status = 'revoked'", "delete from students", "delete from dataset_secrets")
    note(corpus, "dataset_revoked", dataset="kinds-1")
    note(corpus, "erased", students_removed=[student])
    checkpoint(corpus)
    assert list(ledger_findings(corpus)) == []


# --- in a file of its own --------------------------------------------------------------------------------------------


def exported(corpus: Corpus, tmp_path: Path) -> Path:
    export_events(corpus, tmp_path / "events.jsonl")
    return tmp_path / "events.jsonl"


def test_an_exported_ledger_is_checked_alone_and_tells_nothing(corpus: Corpus, tmp_path: Path) -> None:
    file = exported(corpus, tmp_path)
    assert events_checked(file).findings == ()
    content = file.read_text("utf-8")
    for nonce, payload in corpus.journal.query("select lower(hex(nonce)), payload from events"):
        assert nonce not in content
        assert payload not in content


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (lambda lines: [*lines[:3], *lines[4:]], "event 3: is missing; the next one is 4"),
        (lambda lines: [*lines[:3], lines[4], lines[3], *lines[5:]], "event 3: is missing; the next one is 4"),
        (lambda lines: lines[:4], "is not as it was exported"),
        (lambda lines: [lines[0], *lines[-2:]], "the ledger was cut"),
        (lambda lines: [*lines[:-2], lines[-1]], None),
        (lambda lines: [line for line in lines if b"checkpoint" not in line], "there is none, so nothing here is"),
        (lambda lines: [lines[0].replace(b'"corpus_id":"', b'"corpus_id":"0'), *lines[1:]], "is of corpus"),
        (lambda lines: [lines[0].replace(b"events/1", b"events/2"), *lines[1:]], "is no ledger that corpusgen"),
        (lambda lines: [], "is no ledger that corpusgen"),
    ],
)
def test_a_spoiled_export_is_named(corpus: Corpus, tmp_path: Path, spoil: object, found: str | None) -> None:
    file = exported(corpus, tmp_path)
    assert callable(spoil)
    file.write_bytes(b"".join(spoil(file.read_bytes().splitlines(keepends=True))))
    findings = events_checked(file).findings
    assert bool(findings) == (found is not None)
    assert (
        found is None
        or any(found in finding.message or found in str(finding) for finding in findings)
        or (any(f"{finding.subject}: {finding.message}".startswith(found) for finding in findings))
    )


def test_an_export_that_is_cut_in_good_order_is_found_by_a_kept_checkpoint(corpus: Corpus, tmp_path: Path) -> None:
    kept = tmp_path / "kept.json"
    kept.write_text(checkpoint(corpus).envelope)
    first = corpus.journal.query("select min(size) from checkpoints")[0][0]
    change(corpus, ("delete from events where seq > ?", (first,)), ("delete from checkpoints where size > ?", (first,)))
    file = exported(corpus, tmp_path)
    assert events_checked(file).findings == ()
    (found,) = events_checked(file, kept).findings
    assert "the ledger was cut" in found.message


@pytest.mark.parametrize("around", ["{}", "said before\n{}\n", '{{"size": 3, "envelope": {quoted}}}'])
def test_a_kept_checkpoint_may_have_its_surroundings(corpus: Corpus, tmp_path: Path, around: str) -> None:
    envelope = checkpoint(corpus).envelope
    (tmp_path / "kept").write_text(around.format(envelope, quoted=json.dumps(envelope)))
    assert kept_checkpoint(tmp_path / "kept") == ("kept", envelope)


def test_a_file_without_a_checkpoint_is_said(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("nothing")
    with pytest.raises(UsageError, match="kept: holds no checkpoint"):
        kept_checkpoint(tmp_path / "kept")
    with pytest.raises(UsageError, match="cannot be read"):
        kept_checkpoint(tmp_path / "gone")


@given(st.binary(max_size=80))
def test_any_file_is_judged_and_none_breaks_the_check(tmp_path_factory: pytest.TempPathFactory, noise: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "noise.jsonl"
    file.write_bytes(noise)
    assert events_checked(file).findings


# --- on the command line ---------------------------------------------------------------------------------------------


def cli(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "corpusgen", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_commands_sign_export_and_check(corpus: Corpus, tmp_path: Path) -> None:
    corpus.close()
    file, kept = tmp_path / "events.jsonl", tmp_path / "kept.txt"
    done = cli("checkpoint", "--corpus", corpus.folder, "--export", file)
    assert "To be kept elsewhere" in done.stdout
    kept.write_text(done.stdout)
    for where in (("--events", file), ("--corpus", corpus.folder)):
        told = cli("verify", *where, "--checkpoint", kept).stdout
        assert told.startswith(f"signed by {own_key().key_id}, ")
        assert told.endswith(", 0 unsigned\nsound\n")
    told = json.loads(cli("checkpoint", "--corpus", corpus.folder, "--json").stdout)
    assert told["key_id"] == own_key().key_id
    assert datetime.fromisoformat(told["signed_time"]).tzinfo == UTC
    file.write_bytes(file.read_bytes().replace(b'"seq":2', b'"seq":3', 1))
    spoiled = cli("verify", "--events", file, "--json")
    assert spoiled.returncode == CorpusDamaged.exit_code
    assert "events.jsonl:3: is not as it was exported" in json.loads(spoiled.stdout)["findings"][0]["message"]


def test_a_changed_ledger_ends_verify_with_its_exit_code(corpus: Corpus) -> None:
    change(corpus, "delete from events where seq = 2")
    corpus.close()
    done = cli("verify", "--corpus", corpus.folder)
    assert done.returncode == CorpusDamaged.exit_code
    assert "event 2: is missing" in done.stdout


@pytest.mark.parametrize("options", [("--events", "f", "--repair"), ("--ledger", "f", "--checkpoint", "g")])
def test_options_that_exclude_each_other_are_refused(options: tuple[str, ...]) -> None:
    assert cli("verify", *options).returncode == UsageError.exit_code
