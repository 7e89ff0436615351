"""A proof that one record is in a sealed dataset, checked by a script that knows nothing of corpusgen."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest
from ledger_samples import change, distilled, key_in, own_key

from corpusgen.corpus import Corpus
from corpusgen.errors import CorpusDamaged, UsageError
from corpusgen.provenance import check_proof
from corpusgen.provenance.events import CHECKPOINT_TYPE
from corpusgen.provenance.seal import manifest_digest, survey
from corpusgen.records import Json, canonical_json
from corpusgen.stages.lineage.proving import prove
from corpusgen.stages.sealing import record_row, seal_file, sealed_dataset
from corpusgen.stages.verifying import verify
from corpusgen.store.shards import read_columns, read_records


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return distilled(tmp_path_factory.mktemp("finished"))


@pytest.fixture
def corpus(finished: Path, tmp_path: Path) -> Iterator[Corpus]:
    shutil.copytree(finished, tmp_path / "corpus")
    with Corpus.open(tmp_path / "corpus") as opened:
        yield opened


def records(corpus: Corpus) -> list[str]:
    paths = sealed_dataset(corpus, "kinds-1").files
    return [str(name) for name in read_columns(paths, ["record_id"])["record_id"].to_pylist()]


def script(*arguments: str | Path, flag: str = "-I") -> subprocess.CompletedProcess[str]:
    """The script alone: isolated, Python finds no package but those that are installed, and not ours beside it."""
    command = [sys.executable, flag, check_proof.__file__, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def written(folder: Path, document: Mapping[str, Json]) -> Path:
    file = folder / "proof.json"
    file.write_bytes(orjson.dumps(document))
    return file


def test_a_proof_is_checked_by_the_script_alone(corpus: Corpus, tmp_path: Path) -> None:
    name = records(corpus)[7]
    file = written(tmp_path, prove(corpus, name).document)
    shutil.copy(corpus.folder / "keys" / f"{own_key().key_id}.pub", tmp_path / "key.pub")
    done = script(file, tmp_path / "key.pub")
    assert done.returncode == 0, done.stderr
    assert f"proved: record {name}" in done.stdout
    assert f"Key {own_key().key_id} signed its" in done.stdout
    assert "not proved: that what the record says is true" in done.stdout
    assert "that the dataset was not revoked or the record not erased since" in done.stdout
    assert "This key came with the proof" not in done.stdout
    assert script(file).stdout.startswith("This key came with the proof: compare it with one you trust: ")


def test_the_script_says_nothing_of_corpusgen() -> None:
    text = Path(check_proof.__file__).read_text("utf-8")
    imported = {
        line.split()[1].partition(".")[0] for line in text.splitlines() if line.split()[:1] in (["import"], ["from"])
    }
    assert imported <= {"__future__", "base64", "hashlib", "hmac", "json", "sys", "typing", "cryptography"}
    assert "assert " not in text


def test_every_record_of_the_dataset_has_a_proof(corpus: Corpus) -> None:
    for name in records(corpus):
        made = prove(corpus, name, "kinds-1")
        sealed, signed, key_id = check_proof.check(made.document, own_key().public_pem)
        assert (sealed["dataset"], signed["size"], key_id) == ("kinds-1", made.checkpoint.size, own_key().key_id)
        assert max(made.hashes) <= 5


def test_what_was_proved_is_what_the_record_says(corpus: Corpus) -> None:
    record = next(read_records(sealed_dataset(corpus, "kinds-1").files))
    content = json.loads(prove(corpus, record.record_id).document["record"]["content"])
    assert (content["record_id"], content["input"]) == (record.record_id, record.input)


def _changed(document: dict[str, Any], change_it: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    copy: dict[str, Any] = json.loads(json.dumps(document))
    change_it(copy)
    return copy


CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "another text": lambda it: it["record"].update(content=it["record"]["content"].replace('"input":"', '"input":"x')),
    "another record's name": lambda it: it["record"].update(record_id="0" * 64),
    "another place": lambda it: it["record"].update(index=it["record"]["index"] ^ 1),
    "no such place": lambda it: it["record"].update(index=10**6),
    "another nonce": lambda it: it["record"].update(nonce="00" * 32),
    "another way": lambda it: it["record"]["path"].reverse(),
    "a shorter way": lambda it: it["record"]["path"].pop(),
    "a longer way": lambda it: it["record"]["path"].append("00" * 32),
    "no way": lambda it: it["record"].update(path=[]),
    "another root": lambda it: it["event"].update(content=it["event"]["content"].replace("a", "b")),
    "another kind of event": lambda it: it["event"].update(kind="imported"),
    "another time": lambda it: it["event"].update(occurred_us=0),
    "another number": lambda it: it["event"].update(seq=it["event"]["seq"] + 1),
    "another way to the ledger": lambda it: it["event"]["path"].reverse(),
    "another checkpoint": lambda it: it["checkpoint"].update(payload=it["checkpoint"]["payload"][:-8] + "AAAAAAA="),
    "signed as something else": lambda it: it["checkpoint"].update(payloadType="application/json"),
    "no signature": lambda it: it["checkpoint"].update(signatures=[]),
    "nothing": lambda it: it.clear(),
    "a field more": lambda it: it["record"].update(text="what nobody signed"),
    "a place that is no whole number": lambda it: it["record"].update(index=float(it["record"]["index"])),
    "hashes in capitals": lambda it: it["record"].update(path=[one.upper() for one in it["record"]["path"]]),
    "a way in one text": lambda it: it["record"].update(path="".join(it["record"]["path"])),
    "a longer nonce": lambda it: it["event"].update(nonce=it["event"]["nonce"] + "00"),
    "a place below all": lambda it: it["record"].update(index=-1),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_changed_proof_proves_nothing(corpus: Corpus, what: str) -> None:
    document = prove(corpus, records(corpus)[7]).document
    with pytest.raises(Exception):  # noqa: B017, PT011 - of whatever kind
        check_proof.check(_changed(document, CHANGES[what]), own_key().public_pem)


@pytest.mark.parametrize("flag", ["-I", "-O"])
def test_a_changed_proof_ends_the_script_in_words(corpus: Corpus, tmp_path: Path, flag: str) -> None:
    document = prove(corpus, records(corpus)[7]).document
    done = script(written(tmp_path, _changed(document, CHANGES["another text"])), flag=flag)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == "NOT PROVED: ValueError: the dataset has no such record\n"


def test_a_proof_under_another_key_proves_nothing(corpus: Corpus, tmp_path: Path) -> None:
    file = written(tmp_path, prove(corpus, records(corpus)[7]).document)
    (tmp_path / "other.pub").write_bytes(key_in(tmp_path).public_pem)
    done = script(file, tmp_path / "other.pub")
    assert done.returncode == 1
    assert done.stderr.startswith("NOT PROVED: InvalidSignature")


def test_a_proof_in_which_a_name_stands_twice_proves_nothing(corpus: Corpus, tmp_path: Path) -> None:
    """A reader who takes the first would see other words than the ones that are checked."""
    text = orjson.dumps(prove(corpus, records(corpus)[7]).document).decode()
    (tmp_path / "proof.json").write_text(text.replace('"record":{', '"record":{"content":"another",', 1))
    done = script(tmp_path / "proof.json")
    assert done.stderr == "NOT PROVED: ValueError: a name stands twice in an object\n"


def test_what_somebody_elses_key_signed_does_nothing_to_a_terminal(corpus: Corpus, tmp_path: Path) -> None:
    document = prove(corpus, records(corpus)[7]).document
    payload = orjson.loads(base64.b64decode(document["checkpoint"]["payload"]))
    for name, words in (("corpus_id", "a\n\x1b[8m"), ("signed_time", "2026\x1b[8m")):
        envelope = key_in(tmp_path).sign(CHECKPOINT_TYPE, canonical_json(payload | {name: words}))
        forged = document | {"checkpoint": orjson.loads(envelope), "public_key": key_in(tmp_path).public_pem.decode()}
        done = script(written(tmp_path, forged))
        assert "\x1b" not in done.stdout + done.stderr
        assert "proved: record" not in done.stdout or done.stdout.startswith("This key came with the proof")


def test_the_first_letters_of_a_record_are_enough(corpus: Corpus) -> None:
    name = records(corpus)[7]
    assert prove(corpus, name[:12]).record_id == name
    with pytest.raises(UsageError, match="no sealed dataset has a record 'abc'; looked in: kinds-1"):
        prove(corpus, "abc")
    with pytest.raises(UsageError, match="no dataset"):
        prove(corpus, name, "others-1")


def test_a_record_of_a_changed_dataset_is_not_proved(corpus: Corpus) -> None:
    name = records(corpus)[7]
    change(corpus, "update dataset_secrets set secret = zeroblob(32)")
    with pytest.raises(CorpusDamaged, match=r"has the Merkle root .*, sealed was another"):
        prove(corpus, name)


def test_a_record_of_a_changed_ledger_is_not_proved(corpus: Corpus) -> None:
    name = records(corpus)[7]
    change(corpus, "update events set kind = 'imported' where seq = 1")
    with pytest.raises(CorpusDamaged, match="the ledger is not the one that was signed"):
        prove(corpus, name)


def unsalted(corpus: Corpus) -> None:
    """The dataset as a corpusgen without secrets and ledger has sealed it."""
    sealed = sealed_dataset(corpus, "kinds-1")
    root = survey(record_row(record) for record in read_records(sealed.files)).merkle_root
    merkle = {"root": root, "size": sealed.rows, "shape": "rfc9162", "hash": "sha256"}
    before = sealed.manifest | {"merkle": merkle}
    (row,) = corpus.journal.query("select manifest from datasets")[0]
    seal_file(corpus, "kinds-1").write_bytes(canonical_json(before) + b"\n")
    fields = orjson.dumps(orjson.loads(row) | {"seal": before}).decode()
    change(corpus, ("update datasets set manifest = ?", (fields,)), "delete from dataset_secrets")
    change(corpus, "delete from events", "delete from checkpoints", "update students set student_id = student_id")
    assert manifest_digest(sealed_dataset(corpus, "kinds-1").manifest) == manifest_digest(before)


def test_a_dataset_that_was_sealed_without_a_secret_still_verifies_and_proves(corpus: Corpus) -> None:
    unsalted(corpus)
    assert [one.check for one in verify(corpus)] == ["manifest"]  # which says how far the ledger was signed
    made = prove(corpus, records(corpus)[7])
    assert made.document["record"]["nonce"] == ""
    check_proof.check(made.document, own_key().public_pem)
    assert verify(corpus) == []


def test_nobody_finds_out_by_guessing_what_a_salted_leaf_stands_for(corpus: Corpus) -> None:
    sealed = sealed_dataset(corpus, "kinds-1")
    rows = [record_row(record) for record in read_records(sealed.files)]
    assert survey(rows).merkle_root != sealed.manifest["merkle"]["root"]
    assert sealed.manifest["merkle"]["leaves"] == "salted"
    (secret,) = corpus.journal.query("select secret from dataset_secrets")[0]
    assert len(secret) == 32
    assert survey(rows, secret=secret).merkle_root == sealed.manifest["merkle"]["root"]


def test_a_corpus_has_new_secrets_unless_one_says_which(tmp_path: Path) -> None:
    with Corpus.open(tmp_path / "a", new_secret=lambda: b"s" * 32) as corpus:
        assert corpus.new_secret() == corpus.new_secret() == b"s" * 32
    with Corpus.open(tmp_path / "b") as corpus:
        assert corpus.new_secret() != corpus.new_secret()


def cli(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "corpusgen", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_command_writes_a_proof_and_says_how_to_check_it(corpus: Corpus, tmp_path: Path) -> None:
    name, file = records(corpus)[7], tmp_path / "proof.json"
    corpus.close()
    done = cli("prove", name, "--corpus", corpus.folder, "--out", file)
    assert done.stdout.startswith(f"{file}: record {name} is in kinds-1 (")
    assert f"check_proof.py {file} {own_key().key_id}.pub" in done.stdout
    assert script(file).returncode == 0
    assert json.loads(cli("prove", name, "--corpus", corpus.folder).stdout) == json.loads(file.read_bytes())
    told = json.loads(cli("prove", name, "--corpus", corpus.folder, "--out", file, "--json").stdout)
    assert (told["record_id"], told["key_id"]) == (name, own_key().key_id)
