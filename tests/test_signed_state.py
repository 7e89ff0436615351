"""What is signed is held against what there is, what is not signed excuses nothing, and verify says how far."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson
import pytest
from command import corpusgen
from ledger_samples import change, key_in, own_key, sign_again
from release_samples import done, labelled, mixed

from corpusgen.corpus import Corpus
from corpusgen.errors import CorpusDamaged, UsageError
from corpusgen.provenance.events import EventKind, commitment, note_event
from corpusgen.records import Json, canonical_json
from corpusgen.stages.committing import export_manifest
from corpusgen.stages.erasure.erasures import refuse_revoked, refuse_to_retire
from corpusgen.stages.lineage.attesting import attest, checkpoint, file_digests
from corpusgen.stages.lineage.ledger_checks import events_checked, export_events, ledger_checked
from corpusgen.stages.sealing import sealed_dataset
from corpusgen.stages.terms.signed_rows import TYPES
from corpusgen.stages.verifying import verified, verify


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus with a sealed dataset, a student and its release."""
    _, corpus, student = labelled(tmp_path_factory.mktemp("finished"))
    done("release", student, "--name", "ours", "--approver", "Ada", "--corpus", corpus)
    return corpus


@pytest.fixture(scope="module")
def of_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mixed(tmp_path_factory.mktemp("mixed") / "it")[1]


@pytest.fixture
def corpus(finished: Path, tmp_path: Path) -> Iterator[Corpus]:
    shutil.copytree(finished, tmp_path / "corpus")
    with Corpus.open(tmp_path / "corpus") as opened:
        yield opened


def said(corpus: Corpus) -> str:
    export_manifest(corpus)
    return "\n".join(f"{one.check} {one.subject}: {one.message}" for one in verify(corpus))


def note(corpus: Corpus, kind: EventKind, payload: dict[str, Json]) -> None:
    corpus.journal.run_now(lambda transaction: note_event(transaction, kind, payload))


def student_of(corpus: Corpus) -> str:
    return str(corpus.journal.query("select student_id from students")[0][0])


def erased(corpus: Path) -> Corpus:
    """The corpus after one of its records was erased."""
    with Corpus.open(corpus) as opened:
        record = opened.journal.query("select lower(hex(record_id)) from records where split = 'train'")[0][0]
    done("erase", "--record", record, "--reason", "asked for", "--corpus", corpus)
    return Corpus.open(corpus)


def test_an_undisturbed_release_and_erasure_are_sound(corpus: Corpus) -> None:
    assert said(corpus) == ""
    corpus.close()
    with erased(corpus.folder) as after:
        assert said(after) == ""


# --- the files of a sealed dataset -----------------------------------------------------------------------------------


def test_files_that_changed_places_between_buckets_are_found(of_two: Path, tmp_path: Path) -> None:
    shutil.copytree(of_two, tmp_path / "corpus")
    folder = tmp_path / "corpus" / "datasets" / "words-1"
    one, other = (folder / f"train-{name}-00000-of-00001.parquet" for name in ("permissive", "restricted"))
    one.rename(folder / "aside"), other.rename(one), (folder / "aside").rename(other)
    with Corpus.open(tmp_path / "corpus") as corpus:
        fields = orjson.loads(corpus.journal.query("select manifest from datasets")[0][0])
        files = fields["files"]
        open_, bound = files["train-permissive"], files["train-restricted"]
        fields["files"] = {
            "train-restricted": open_ | {"name": bound["name"]},
            "train-permissive": bound | {"name": open_["name"]},
        }
        change(corpus, ("update datasets set manifest = ?", (orjson.dumps(fields).decode(),)))
        with pytest.raises(CorpusDamaged, match="than the one that was sealed"):
            sealed_dataset(corpus, "words-1")
        assert "datasets words-1: words-1: the journal tells of another" in said(corpus)


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (lambda folder: (folder / "README.md").write_text("license: mit"), "README.md is not the one that was sealed"),
        (lambda folder: (folder / "README.md").unlink(), "README.md cannot be read"),
        (lambda folder: (folder / "LICENSE").write_text("MIT"), "LICENSE lies in its folder"),
        (lambda folder: (folder / ".hidden").write_text(""), ".hidden lies in its folder"),
        (lambda folder: (folder / "train-00001-of-00002.parquet").write_text(""), "train-00001-of-00002.parquet lies"),
    ],
)
def test_what_is_done_to_the_folder_of_a_dataset_is_named(
    corpus: Corpus, spoil: Callable[[Path], object], found: str
) -> None:
    spoil(corpus.folder / "datasets" / "kinds-1")
    assert found in said(corpus)


# --- what nobody signed ----------------------------------------------------------------------------------------------


def test_events_that_are_not_signed_yet_are_told_and_are_no_finding(corpus: Corpus) -> None:
    note(corpus, "reconciled", {"confirmed": 1})
    checked = verified(corpus)
    assert checked.findings == ()
    assert checked.covered.unsigned == 1
    assert checked.notes == ("1 event since the last checkpoint is not signed yet",)
    assert checked.covered.keys == (own_key().key_id,)
    told = corpusgen("verify", "--corpus", corpus.folder, "--json").object
    assert told["signed"]["unsigned"] == 1
    assert told["notes"] == list(checked.notes)


def test_an_unsigned_event_makes_no_changed_student_right(corpus: Corpus) -> None:
    student = student_of(corpus)
    folder = corpus.folder / "students" / student
    (folder / "student.json").write_bytes((folder / "student.json").read_bytes() + b" ")
    note(corpus, "student_trained", {"student_id": student, "files": file_digests(folder)})
    assert f"students {student}: files are not what event" in said(corpus)
    with pytest.raises(CorpusDamaged, match="says other files than event"):
        refuse_to_retire(corpus, student)


def test_a_student_that_is_said_to_be_of_another_dataset_is_named(corpus: Corpus) -> None:
    change(corpus, "update students set dataset = 'kinds-9'")
    assert f"students {student_of(corpus)}: dataset are not what event" in said(corpus)


def test_an_unsigned_erasure_excuses_nothing(corpus: Corpus) -> None:
    student = student_of(corpus)
    (seq,) = corpus.journal.query("select min(seq) from events where kind = 'decided'")[0]
    note(corpus, "erased", {"erasure_id": 1, "events": [seq], "students_removed": [student]})
    change(corpus, "delete from students")
    change(corpus, ("update events set payload = null, nonce = null where seq = ?", (seq,)))
    found = said(corpus)
    assert f"event {seq}: what it says is gone, and no erasure tells of that" in found
    assert f"students {student}: event" in found
    assert "its report is no more" in found


def test_a_signed_event_of_an_erasure_needs_its_report(corpus: Corpus) -> None:
    corpus.close()
    with erased(corpus.folder) as after:
        change(after, "delete from erasures")
        assert "erasure 1: event" in said(after)
        with pytest.raises(CorpusDamaged, match="its report is gone"):
            refuse_to_retire(after, "any")


# --- rows that were signed -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "found"),
    [
        ("update releases set release = json_set(release, '$.approver', 'Eve')", "is not what was signed"),
        ("update releases set release = json_set(release, '$.intended_use', json('{}'))", "is not what was signed"),
        ("delete from releases", "tells of it, and it is no more: it was deleted"),
        (
            "update releases set release = json_set(release, '$.withdrawn', json('{\"by\":\"Eve\"}'))",
            "is withdrawn, and no event in the ledger tells of that",
        ),
    ],
)
def test_a_changed_release_is_named(corpus: Corpus, sql: str, found: str) -> None:
    change(corpus, sql)
    assert found in said(corpus)


def test_a_withdrawal_that_was_undone_is_named(corpus: Corpus) -> None:
    (name,) = corpus.journal.query("select release_id from releases")[0]
    corpus.close()
    done("release", "--withdraw", name, "--by", "Ada", "--reason", "wrong", "--corpus", corpus.folder)
    with Corpus.open(corpus.folder) as after:
        assert said(after) == ""
        change(after, "update releases set release = json_remove(release, '$.withdrawn'), withdrawn_us = null")
        assert "says that it was withdrawn, and it is not any more" in said(after)


def test_an_envelope_of_another_kind_is_named(corpus: Corpus) -> None:
    row = orjson.loads(corpus.journal.query("select release from releases")[0][0])
    envelope = own_key().sign(TYPES["erasure"], canonical_json(row))
    change(corpus, ("update releases set envelope = ?", (envelope,)))
    assert f"is signed as {TYPES['erasure']}, not as what it is" in said(corpus)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("MODEL_CARD.md", "MODEL_CARD.md is not what was released"),
        ("release.json", "release.json"),
        ("release.dsse.json", "release.dsse.json is not what was signed"),
        ("EXTRA.md", "EXTRA.md was not released with it"),
    ],
)
def test_what_is_done_to_the_folder_of_a_release_is_named(corpus: Corpus, name: str, found: str) -> None:
    (folder,) = (corpus.folder / "releases").iterdir()
    (folder / name).write_text("{}")
    assert found in said(corpus)


def test_an_erasure_whose_row_was_edited_is_not_believed(corpus: Corpus) -> None:
    student = student_of(corpus)
    corpus.close()
    with erased(corpus.folder) as after:
        change(after, "update erasures set erasure = json_set(erasure, '$.students', json('[]'))")
        with pytest.raises(CorpusDamaged, match="erasure 1 is not what was signed"):
            refuse_to_retire(after, student)
        assert "signatures erasure 1: is not what was signed" in said(after)


def test_a_revocation_that_was_undone_is_refused(corpus: Corpus) -> None:
    corpus.close()
    with erased(corpus.folder) as after:
        change(after, "update datasets set status = 'sealed'")
        with pytest.raises(CorpusDamaged, match="kinds-1 was revoked"):
            refuse_revoked(after, "kinds-1")
        assert "kinds-1" in said(after)


def test_only_keys_that_the_ledger_knows_may_sign_rows(corpus: Corpus, tmp_path: Path) -> None:
    other = key_in(tmp_path)
    (corpus.folder / "keys" / f"{other.key_id}.pub").write_bytes(other.public_pem)
    (corpus.folder / "keys" / "notes.txt").write_text("left here")
    row = orjson.loads(corpus.journal.query("select release from releases")[0][0])
    envelope = other.sign(TYPES["release"], canonical_json(row | {"approver": "Eve"}))
    values = (json.dumps(row | {"approver": "Eve"}), envelope)
    change(corpus, ("update releases set release = ?, envelope = ?", values))
    found = said(corpus)
    assert f"signed with key {other.key_id}, and no signed event" in found
    assert "keys keys/notes.txt: no event in the ledger tells of a key in this file" in found
    assert f"keys keys/{other.key_id}.pub: no event" in found


# --- by whose key ----------------------------------------------------------------------------------------------------


def rewritten(corpus: Corpus, folder: Path) -> str:
    """The whole ledger as somebody with another key would write it."""
    other = key_in(folder)
    for path in (corpus.folder / "keys").glob("*"):
        path.unlink()
    (corpus.folder / "keys" / f"{other.key_id}.pub").write_bytes(other.public_pem)
    said_of_key, nonce = canonical_json({"key_id": other.key_id, "public": other.public_raw.hex()}), bytes(32)
    values = (said_of_key.decode(), nonce, commitment(said_of_key, nonce))
    change(corpus, ("update events set payload = ?, nonce = ?, commitment = ? where kind = 'key_added'", values))
    change(corpus, "delete from releases", "update events set kind = 'imported' where kind = 'released'")
    shutil.rmtree(corpus.folder / "releases")
    sign_again(corpus, other)
    export_manifest(corpus)
    return other.key_id


def test_verify_says_whose_key_and_takes_only_the_one_it_is_told(corpus: Corpus, tmp_path: Path) -> None:
    (tmp_path / "trusted.pub").write_bytes(own_key().public_pem)
    of_corpus = ("verify", "--corpus", corpus.folder)
    assert corpusgen(*of_corpus, "--key", tmp_path / "trusted.pub").code == 0
    other = rewritten(corpus, tmp_path)
    told = corpusgen(*of_corpus)
    assert told.code == 0  # nobody can tell from the corpus alone, so it says who signed
    assert told.stdout.startswith(f"signed by {other}, ")
    told = corpusgen(*of_corpus, "--key", tmp_path / "trusted.pub")
    assert told.code == CorpusDamaged.exit_code
    assert f"key {own_key().key_id}: has signed no checkpoint that fits this ledger" in told.stdout


def test_what_is_no_key_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    (tmp_path / "no.pub").write_text("nothing")
    for name in ("no.pub", "gone.pub"):
        ran = corpusgen("verify", "--corpus", corpus.folder, "--key", tmp_path / name)
        assert ran.code == UsageError.exit_code
        assert "--key: " in ran.stderr


def test_later_checkpoints_of_another_key_than_a_kept_one_are_told(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    kept = ("kept.txt", checkpoint(corpus).envelope)
    note(corpus, "reconciled", {"confirmed": 1})
    monkeypatch.setenv("CORPUSGEN_SIGNING_KEY", str(tmp_path / "signing.pem"))
    checkpoint(corpus)
    (told,) = ledger_checked(corpus, [kept]).notes
    assert told.startswith(f"kept.txt is signed by key {own_key_before(corpus)}, and later checkpoints here by ")


def own_key_before(corpus: Corpus) -> str:
    """The key of the first checkpoint."""
    (envelope,) = corpus.journal.query("select envelope from checkpoints order by size limit 1")[0]
    return str(json.loads(envelope)["signatures"][0]["keyid"])


# --- files that are no ledger, and processes that were killed --------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "row"),
    [
        (-1, {"keys": [], "root": "", "size": 0}),
        (-1, {"keys": {"a": None}, "root": "", "size": 0}),
        (-1, {"keys": {}, "root": None, "size": "x"}),
        (0, []),
        (0, {"schema": "corpusgen.events/1", "corpus_id": None}),
        (1, 5),
        (1, {"checkpoint": [1]}),
        (1, {"checkpoint": None}),
    ],
)
def test_a_malformed_line_of_an_export_is_a_finding(corpus: Corpus, tmp_path: Path, line: int, row: Json) -> None:
    export_events(corpus, tmp_path / "events.jsonl")
    lines = (tmp_path / "events.jsonl").read_bytes().splitlines(keepends=True)
    lines[line] = canonical_json(row) + b"\n"
    (tmp_path / "events.jsonl").write_bytes(b"".join(lines))
    (found,) = events_checked(tmp_path / "events.jsonl").findings
    assert "is not as it was exported" in found.message


@pytest.mark.parametrize("mend", [attest, checkpoint])
def test_a_process_killed_after_it_signed_leaves_nothing_that_stays_wrong(
    corpus: Corpus, mend: Callable[[Corpus], object]
) -> None:
    before = (corpus.folder / "MANIFEST.json").read_bytes()
    note(corpus, "reconciled", {"confirmed": 1})
    checkpoint(corpus)
    (corpus.folder / "MANIFEST.json").write_bytes(before)  # as if killed before it was written
    assert any("says of the ledger" in one.message for one in verify(corpus))
    mend(corpus)
    assert verify(corpus) == []
