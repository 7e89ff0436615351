"""What a release, an export and a training must not be talked out of: whose files, which sources, who calibrated."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from command import Ran, corpusgen
from flow_samples import write_task
from release_samples import document, done, free_text, labelled
from task_samples import write_label_task

from corpusgen.corpus import Corpus
from corpusgen.provenance.decisions import Bundle, Decision, Duty
from corpusgen.provenance.policy import release_problems
from corpusgen.provenance.signing import signing_key


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """A distilled label task from a non-commercial source, and a sealed dataset of other rows beside it."""
    folder = tmp_path_factory.mktemp("trained")
    made = labelled(folder, sources="licence: CC-BY-NC-4.0")
    other, corpus = write_task(folder / "other", items=5), made[1]
    done("run", other, "--corpus", corpus, "-q")
    done("select", "words", "--corpus", corpus)
    done("seal", "words", "--spec", other, "--corpus", corpus)
    return made


@pytest.fixture
def corpus(trained: tuple[Path, Path, str], tmp_path: Path) -> Path:
    shutil.copytree(trained[1], tmp_path / "corpus")
    return tmp_path / "corpus"


@pytest.fixture
def spec(trained: tuple[Path, Path, str], tmp_path: Path) -> Path:
    for path in trained[0].parent.iterdir():
        if path.is_file():
            shutil.copy(path, tmp_path)
    return tmp_path / trained[0].name


@pytest.fixture
def student(trained: tuple[Path, Path, str]) -> str:
    return trained[2]


def released(corpus: Path, student: str | Path, *more: str | Path, name: str = "small", by: str = "Ada") -> Ran:
    return corpusgen("release", student, "--name", name, "--approver", by, "--corpus", corpus, *more)


def placed(corpus: Path, student: str | Path, *more: str | Path) -> Path:
    ran = released(corpus, student, *more, "--json")
    assert ran.code == 0, ran.stderr
    return Path(ran.object["folder"])


def changed(corpus: Path, sql: str, *bound: Any) -> None:
    with Corpus.open(corpus) as opened:
        opened.journal.run_now(lambda transaction: transaction.execute(sql, bound))


# --- Whose files they are --------------------------------------------------------------------------------------------


def test_a_student_of_the_corpus_is_not_released_from_data_it_never_saw(
    corpus: Path, student: str, tmp_path: Path
) -> None:
    own = corpus / "students" / student
    shutil.copytree(own, tmp_path / "copy")
    (tmp_path / "copy" / "facts.json").unlink()
    (tmp_path / "copy" / "student.safetensors").rename(tmp_path / "copy" / "model.bin")
    for folder in (own, tmp_path / "copy"):
        ran = released(corpus, folder, "--dataset", "words-1")
        assert (ran.code, f"corpusgen release {student}" in ran.stderr) == (2, True), ran.stderr
    assert not (corpus / "releases").exists()


def test_a_copy_of_a_student_that_must_be_retired_is_not_released(corpus: Path, student: str, tmp_path: Path) -> None:
    shutil.copytree(corpus / "students" / student, tmp_path / "copy")
    with Corpus.open(corpus) as opened:
        rows = opened.journal.query("select lower(hex(record_id)) from records where dataset = 'kinds' limit 1")
    done("erase", "--record", rows[0][0], "--reason", "asked to", "--corpus", corpus)
    ran = released(corpus, tmp_path / "copy", "--dataset", "words-1")
    assert (ran.code, "weights forget nothing" in ran.stderr) == (6, True), ran.stderr


def test_a_folder_whose_facts_name_another_dataset_is_refused(corpus: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "weights.safetensors").write_bytes(b"weights")
    (folder / "facts.json").write_text(json.dumps({"dataset": "kinds-1"}), "utf-8")
    ran = released(corpus, folder, "--dataset", "words-1")
    assert (ran.code, "says dataset kinds-1" in ran.stderr) == (2, True), ran.stderr
    assert placed(corpus, folder, "--dataset", "words-1", "--dataset", "kinds-1").is_dir()


def test_weights_that_were_released_before_are_not_released_from_less(corpus: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "weights.safetensors").write_bytes(b"weights")
    placed(corpus, folder, "--dataset", "kinds-1")
    ran = released(corpus, folder, "--dataset", "words-1")
    assert (ran.code, "which learned from kinds-1" in ran.stderr) == (2, True), ran.stderr


# --- Which sources ---------------------------------------------------------------------------------------------------


def gates(corpus: Path, student: str, spec: Path, out: Path) -> list[Ran]:
    return [
        released(corpus, student, "--spec", spec),
        corpusgen("export", "kinds", out, "--to", "chat", "--spec", spec, "--corpus", corpus),
        corpusgen("train", "kinds-1", "--spec", spec, "--corpus", corpus),
    ]


def test_a_spec_that_renames_a_source_lifts_nothing(corpus: Path, student: str, spec: Path, tmp_path: Path) -> None:
    text = spec.read_text("utf-8").replace("commercial: false", "commercial: true")
    spec.write_text(text, "utf-8")
    assert [ran.code for ran in gates(corpus, student, spec, tmp_path / "o.jsonl")] == [4, 4, 4]
    renamed = text.replace("CC-BY-NC-4.0", "CC0-1.0").replace("id: ours", "id: mine").replace(": ours", ": mine")
    spec.write_text(renamed, "utf-8")
    for ran in gates(corpus, student, spec, tmp_path / "o.jsonl"):
        assert (ran.code, "rows are of source 'ours' (CC-BY-NC-4.0)" in ran.stderr) == (2, True), ran.stderr
    assert not (tmp_path / "o.jsonl").exists()


def test_nothing_is_sealed_by_a_spec_that_lacks_a_source_of_its_rows(tmp_path: Path) -> None:
    spec, corpus = write_task(tmp_path, items=3), tmp_path / "corpus"
    done("run", spec, "--corpus", corpus, "-q")
    done("select", "words", "--corpus", corpus)
    text = spec.read_text("utf-8")
    (source,) = yaml.safe_load(text)["sources"]
    other = yaml.safe_load(text)
    other["sources"], other["seeds"]["train"]["source"] = [source | {"id": "mine"}], "mine"
    spec.write_text(yaml.safe_dump(other), "utf-8")
    ran = corpusgen("seal", "words", "--spec", spec, "--corpus", corpus)
    assert (ran.code, f"3 rows are of source '{source['id']}'" in ran.stderr) == (6, True), ran.stderr


def test_what_wrote_a_source_is_told_of_when_a_later_spec_leaves_it_out(tmp_path: Path) -> None:
    source = {"id": "words", "title": "Words", "licence": "CC0-1.0", "generated_by": ["llama-3.1-community"]}
    spec, corpus = write_task(tmp_path / "task", items=3, sources=[source]), tmp_path / "corpus"
    done("run", spec, "--corpus", corpus, "-q")
    done("select", "words", "--corpus", corpus)
    done("seal", "words", "--spec", spec, "--corpus", corpus)
    later = yaml.safe_load(spec.read_text("utf-8"))
    del later["sources"][0]["generated_by"]
    spec.write_text(yaml.safe_dump(later), "utf-8")
    done("export", "words", tmp_path / "o.jsonl", "--to", "chat", "--spec", spec, "--corpus", corpus)
    with Corpus.open(corpus) as opened:
        ((text,),) = opened.journal.query("select decision from decisions where stage = 'export'")
    assert "source 'words' was written by a model under these terms" in text


def test_the_licence_of_text_read_without_labels_binds_the_student(corpus: Path, spec: Path, tmp_path: Path) -> None:
    text = spec.read_text("utf-8")
    more = "licence: CC-BY-NC-4.0}\n  - {id: pool, title: The pool, licence: CC-BY-NC-4.0}"
    read = text.replace("licence: CC-BY-NC-4.0}", more).replace("pool.jsonl, source: ours", "pool.jsonl, source: pool")
    spec.write_text(read, "utf-8")
    rows = [json.loads(line) for line in (tmp_path / "pool.jsonl").read_text("utf-8").splitlines()]
    lines = (json.dumps(row | {"text": f"zebra {row['text']}"}) for row in rows)
    (tmp_path / "pool.jsonl").write_text("\n".join(lines), "utf-8")
    student = Path(done("train", "kinds-1", "--spec", spec, "--corpus", corpus)["student"]).name
    facts = json.loads((corpus / "students" / student / "facts.json").read_bytes())
    assert [(one["source_id"], one["licence"]) for one in facts["sources"]] == [
        ("ours", "CC-BY-NC-4.0"),
        ("pool", "CC-BY-NC-4.0"),
    ]
    assert "The pool" in (placed(corpus, student) / "MODEL_CARD.md").read_text("utf-8")
    spec.write_text(text.replace("commercial: false", "commercial: true"), "utf-8")
    ran = released(corpus, student, "--spec", spec)
    assert (ran.code, "source 'pool': CC-BY-NC-4.0 is non-commercial" in ran.stderr) == (4, True), ran.stderr


# --- Who calibrated --------------------------------------------------------------------------------------------------


def test_whoever_calibrated_another_version_counts_in_every_gate(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    with Corpus.open(corpus):
        pass
    (corpus / "terms.yaml").write_text(document("bound", model="valid"), "utf-8")
    spec = write_label_task(tmp_path, pool=24, limit=16)
    text = spec.read_text("utf-8")
    spec.write_text(text.replace("scripted/test", "scripted/valid"), "utf-8")
    done("distill", spec, "--corpus", corpus, "-q")  # its answers chose a calibration
    spec.write_text(text, "utf-8")
    run_id = done("run", spec, "--corpus", corpus, "-q")["run_id"]
    done("select", "kinds", "--run", run_id, "--corpus", corpus)
    done("seal", "kinds", "--spec", spec, "--corpus", corpus)
    with Corpus.open(corpus) as opened:
        ((manifest,),) = opened.journal.query("select manifest from datasets where version = '2'")
    touched = json.loads(manifest)["seal"]["touched"]
    assert ("scripted/valid", "calibration") in {(one["teacher"], one["role"]) for one in touched}
    student = Path(done("train", "kinds-2", "--spec", spec, "--corpus", corpus)["student"]).name
    (corpus / "terms.yaml").write_text(document("bound", model="valid", train="prohibited"), "utf-8")
    for ran in (
        released(corpus, student),
        corpusgen("export", "kinds-2", tmp_path / "o.jsonl", "--to", "chat", "--corpus", corpus),
        corpusgen("train", "kinds-2", "--spec", spec, "--corpus", corpus),
    ):
        assert (ran.code, "scripted/valid" in ran.stderr) == (4, True), ran.stderr


# --- Names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["\N{CYRILLIC CAPITAL LETTER ES}laude-2", "\uff23laude", "Cl\N{LATIN SMALL LETTER A WITH ACUTE}ude", "a\u200bb"])  # fmt: skip # noqa: E501
def test_a_name_in_other_letters_is_refused(name: str, corpus: Path, student: str) -> None:
    ran = released(corpus, student, name=name)
    assert (ran.code, "is no name for a model" in ran.stderr) == (2, True), ran.stderr


@pytest.mark.parametrize("name", ["C-laude", "my.C l.a_u+d/e", "CLAUDE2", "\uff23laude"])
def test_a_barred_mark_is_seen_however_it_is_spelt(name: str) -> None:
    class Asked:
        duties = (Duty(kind="no_trademark", applies_to="student", text="t", terms_id="T", words=("Claude",)),)

    bundle = Bundle(card="", notice="", licences=(), use_policies=())
    decisions: list[Decision] = [Asked()]  # type: ignore[list-item]
    assert release_problems(name, decisions, bundle, distribution="weights_released")
    assert not release_problems("clau-d", decisions, bundle, distribution="weights_released")


# --- Places and approvals --------------------------------------------------------------------------------------------


def test_a_release_lies_where_nothing_clears_it_away(corpus: Path, student: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    inside = (
        "datasets/mine",
        f"students/{student}/r",
        "datasets/kinds-1/x",
        "releases/.mine",
        "keys/x",
        ".",
        "releases",
    )
    for place in inside:
        ran = released(corpus, student, "--out", corpus / place)
        assert (ran.code, "is in the corpus" in ran.stderr) == (2, True), (place, ran.stderr)
    ran = released(corpus, student, "--out", tmp_path / "file" / "y")
    assert (ran.code, "is a file, so no folder can lie below it" in ran.stderr) == (2, True), ran.stderr
    assert placed(corpus, student, "--out", corpus / "releases" / "mine").is_dir()
    assert corpusgen("verify", "--corpus", corpus).code == 0


@pytest.mark.parametrize("file", ["release.json", "release.dsse.json", "signer.pub", "EXTRA.md", "student/more.bin"])
def test_a_place_where_something_else_was_put_is_not_called_the_release(
    file: str, corpus: Path, student: str, tmp_path: Path
) -> None:
    said = json.loads((placed(corpus, student, "--out", tmp_path / "out") / "release.json").read_bytes())
    forged = json.dumps(said | {"approver": "Eve"}) if file == "release.json" else "{}"
    (tmp_path / "out" / file).write_text(forged, "utf-8")
    ran = released(corpus, student, "--out", tmp_path / "out")
    assert (ran.code, file in ran.stderr) == (6, True), ran.stderr


def test_a_folder_that_calls_itself_a_release_nobody_approved_is_refused(
    corpus: Path, student: str, trained: tuple[Path, Path, str], tmp_path: Path
) -> None:
    placed(corpus, student, "--out", tmp_path / "out")
    shutil.copytree(trained[1], tmp_path / "again")
    ran = released(tmp_path / "again", student, "--out", tmp_path / "out")
    assert (ran.code, "which nobody has approved here" in ran.stderr) == (2, True), ran.stderr


def test_another_approver_of_the_same_release_is_not_silently_dropped(corpus: Path, student: str) -> None:
    placed(corpus, student)
    ran = released(corpus, student, by="Bob")
    assert (ran.code, "Ada approved it on" in ran.stderr) == (2, True), ran.stderr


def test_a_row_that_is_not_what_was_signed_is_no_release(corpus: Path, student: str, tmp_path: Path) -> None:
    said = json.loads((placed(corpus, student) / "release.json").read_bytes())
    evil = signing_key({"CORPUSGEN_SIGNING_KEY": str(tmp_path / "evil.pem")})
    (corpus / "keys" / f"{evil.key_id}.pub").write_bytes(evil.public_pem)
    forged = json.dumps(said | {"approver": "Eve", "release_id": "f" * 16}, sort_keys=True, separators=(",", ":"))
    envelope = evil.sign("application/vnd.corpusgen.release+json", forged.encode())
    row = "insert into releases(release_id, student_id, release, envelope, released_us) values(?, ?, ?, ?, 5)"
    changed(corpus, row, "f" * 16, student, forged, envelope)
    assert [one["approver"] for one in done("release", "--list", "--corpus", corpus)["releases"]] == ["Ada"]
    changed(corpus, "delete from releases where release_id = ?", "f" * 16)
    changed(corpus, "update releases set release = json_set(release, '$.approver', 'Eve')")
    assert not done("release", "--list", "--corpus", corpus)["releases"]
    ran = released(corpus, student)
    assert (ran.code, "its row is not what was signed" in ran.stderr) == (6, True), ran.stderr


def test_a_withdrawal_that_is_taken_out_of_the_row_still_counts(corpus: Path, student: str) -> None:
    release_id = json.loads((placed(corpus, student) / "release.json").read_bytes())["release_id"]
    done("release", "--withdraw", release_id, "--by", "Bea", "--reason", "so", "--corpus", corpus)
    changed(corpus, "update releases set release = json_remove(release, '$.withdrawn'), withdrawn_us = null")
    (listed,) = done("release", "--list", "--corpus", corpus)["releases"]
    assert listed["withdrawn"]["by"] == "Bea"
    assert "was withdrawn on" in released(corpus, student).stderr


def test_free_text_can_still_be_released_twice_the_same(tmp_path: Path) -> None:
    _, corpus = free_text(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights.safetensors").write_bytes(b"weights")
    assert placed(corpus, tmp_path / "model", "--dataset", "words") == placed(
        corpus, tmp_path / "model", "--dataset", "words"
    )
