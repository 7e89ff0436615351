"""Releasing a student: judged in all it touched, laid out with what its terms ask for, approved, signed, withdrawn."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command import Ran, corpusgen
from release_samples import document, done, forbidden, free_text, labelled, mixed

from corpusgen.corpus import Corpus
from corpusgen.distill.students.bag import BagStudent
from corpusgen.provenance.events import note_event
from corpusgen.stages.terms.deciding import registry_of

LLAMA = ("--base", "meta-llama/Llama-3.2-1B", "--base-provider", "meta", "--base-weights-sha256", "ab" * 32)
LLAMA_TERMS = "llama-3.2-community"
SAID = ("--name", "n", "--approver", "Ada")
HALF_A_BASE = (*SAID, "--base", "m", "--base-provider", "p", "--base-weights-sha256", "xyz")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """A distilled label task; tests release copies of its corpus."""
    return labelled(tmp_path_factory.mktemp("trained"))


@pytest.fixture
def corpus(trained: tuple[Path, Path, str], tmp_path: Path) -> Path:
    shutil.copytree(trained[1], tmp_path / "corpus")
    return tmp_path / "corpus"


@pytest.fixture
def student(trained: tuple[Path, Path, str]) -> str:
    return trained[2]


def released(corpus: Path, student: str | Path, *more: str | Path, name: str = "kinds-small") -> Ran:
    return corpusgen("release", student, "--name", name, "--approver", "Ada", "--corpus", corpus, *more)


def made(corpus: Path, student: str | Path, *more: str | Path, **named: str) -> dict[str, Any]:
    ran = released(corpus, student, *more, "--json", **named)
    assert ran.code == 0, ran.stderr
    return ran.object


def journal(corpus: Path, sql: str) -> list[tuple[Any, ...]]:
    with Corpus.open(corpus) as opened:
        return opened.journal.query(sql)


def test_a_release_holds_the_student_and_all_that_is_to_be_said_of_it(corpus: Path, student: str) -> None:
    said = made(corpus, student)
    folder = Path(said["folder"])
    assert folder == corpus.resolve() / "releases" / f"kinds-small-{said['release_id'][:8]}"
    assert {path.name for path in folder.iterdir()} == {
        "LICENSES",
        "MODEL_CARD.md",
        "NOTICE",
        "release.dsse.json",
        "release.json",
        "signer.pub",
        "student",
    }
    for path, sha256 in said["files"].items():
        assert hashlib.sha256((folder / path).read_bytes()).hexdigest() == sha256
    assert BagStudent.load(folder / "student").labels == ("animal", "plant")
    card = (folder / "MODEL_CARD.md").read_text("utf-8")
    for part in (student, "kinds-1", "scripted/test", "corpusgen-scripted", "Not legal advice", "student accuracy"):
        assert part in card
    assert "corpusgen-scripted" in (folder / "LICENSES" / "NOT_HELD.txt").read_text("utf-8")


def test_the_release_is_signed_and_noted_with_its_approver(corpus: Path, student: str) -> None:
    said = made(corpus, student)
    folder = Path(said["folder"])
    inside = json.loads((folder / "release.json").read_bytes())
    envelope = json.loads((folder / "release.dsse.json").read_bytes())
    assert json.loads(base64.b64decode(envelope["payload"])) == inside
    assert inside["approver"] == "Ada"
    assert inside["datasets"][0]["dataset"] == "kinds-1"
    assert {(one["role"], one["teacher"]) for one in inside["decisions"]} == {("logprobs", "scripted/test")}
    ((release_id, of_student),) = journal(corpus, "select release_id, student_id from releases")
    assert (release_id, of_student) == (said["release_id"], student)
    ((event,),) = journal(corpus, "select payload from events where kind = 'released'")
    assert json.loads(event)["approver"] == "Ada"
    decided = journal(corpus, "select subject, outcome from decisions where stage = 'release'")
    assert decided == [(student, "allow")]
    assert corpusgen("verify", "--corpus", corpus).code == 0


def test_the_same_release_is_found_and_not_made_twice(corpus: Path, student: str, tmp_path: Path) -> None:
    first, again = made(corpus, student), made(corpus, student)
    assert (again["found"], again["release_id"]) == (True, first["release_id"])
    elsewhere = made(corpus, student, "--out", tmp_path / "out")
    assert elsewhere["found"]
    for path in Path(first["folder"]).rglob("*"):
        if path.is_file():
            assert (tmp_path / "out" / path.relative_to(first["folder"])).read_bytes() == path.read_bytes()
    assert len(journal(corpus, "select 1 from releases")) == 1
    assert len(journal(corpus, "select 1 from events where kind = 'released'")) == 1


def test_a_release_killed_half_way_is_made_whole_by_the_next(corpus: Path, student: str) -> None:
    said = made(corpus, student)
    folder = Path(said["folder"])
    hidden = folder.with_name(f".{folder.name}.release")
    folder.rename(hidden)  # killed between the journal and the folder's name
    (hidden / "NOTICE").write_text("half")
    again = made(corpus, student)
    assert (again["found"], again["folder"]) == (True, str(folder))
    assert hashlib.sha256((folder / "NOTICE").read_bytes()).hexdigest() == said["files"]["NOTICE"]
    assert not hidden.exists()


KILLED = """
import os, signal, sys
from corpusgen.cli.main import main
from corpusgen.stages.release import releasing
setattr(releasing, sys.argv[1], lambda *_: os.kill(os.getpid(), signal.SIGKILL))
main(sys.argv[2:])
"""


@pytest.mark.parametrize(("step", "noted"), [("signed", 0), ("laid_out", 0), ("attest", 1), ("publish", 1)])
def test_a_process_killed_at_any_step_leaves_nothing_half_published(
    step: str, noted: int, corpus: Path, student: str
) -> None:
    asked = ("release", student, "--name", "kinds-small", "--approver", "Ada", "--corpus", str(corpus))
    ended = subprocess.run([sys.executable, "-c", KILLED, step, *asked], capture_output=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert not [path for path in (corpus / "releases").glob("*") if not path.name.startswith(".")]
    assert len(journal(corpus, "select 1 from releases")) == noted
    said = made(corpus, student)
    assert said["found"] is bool(noted)
    assert [path.name for path in (corpus / "releases").iterdir()] == [Path(said["folder"]).name]
    assert len(journal(corpus, "select 1 from events where kind = 'released'")) == 1
    assert corpusgen("verify", "--corpus", corpus).code == 0


def test_a_place_that_is_taken_is_left_as_it_is(corpus: Path, student: str, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    ran = released(corpus, student, "--out", tmp_path / "mine")
    assert (ran.code, "is there already" in ran.stderr) == (2, True)
    assert not journal(corpus, "select 1 from releases")
    folder = Path(made(corpus, student)["folder"])
    (folder / "NOTICE").write_text("changed")
    ran = released(corpus, student)
    assert (ran.code, "NOTICE is not what was released" in ran.stderr) == (6, True)


def test_a_student_whose_files_were_changed_is_not_released(corpus: Path, student: str) -> None:
    file = corpus / "students" / student / "student.safetensors"
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.write_bytes(raw)
    ran = released(corpus, student)
    assert (ran.code, "student.safetensors" in ran.stderr) == (6, True)
    assert not journal(corpus, "select 1 from releases")
    assert not list((corpus / "releases").iterdir())


def test_todays_terms_are_asked_again_in_every_role(corpus: Path, student: str) -> None:
    forbidden(corpus)
    ran = released(corpus, student)
    assert ran.code == 4
    assert f"{student} may not be released" in ran.stderr
    assert "R04" in ran.stderr
    assert "Not legal advice" in ran.stderr
    assert journal(corpus, "select outcome from decisions where stage = 'release'") == [("deny",)]
    assert not (corpus / "releases").exists()


def test_whose_answers_chose_the_calibration_counts_too(corpus: Path, student: str) -> None:
    # As if the validation items had been answered by somebody else, under other terms than the rows.
    (corpus / "terms.yaml").write_text(document("chooser", model="chooser"), "utf-8")
    with Corpus.open(corpus) as opened:
        card = json.loads(opened.journal.query("select card from cards")[0][0])
        other = card | {"teacher": "scripted/chooser", "terms_ids": ["chooser"], "terms_set_id": "cd" * 32}

        def operation(transaction: Any) -> None:
            transaction.execute("insert into cards values('other', ?)", (json.dumps(other),))
            transaction.execute(
                "update answers set card_id = 'other' where request_key in"
                " (select request_key from records where split = 'validation')"
            )

        opened.journal.run_now(operation)
    card_text = (Path(made(corpus, student)["folder"]) / "MODEL_CARD.md").read_text("utf-8")
    assert "| scripted/chooser | logprobs (calibration and choice of settings) |" in card_text
    said = document("chooser", model="chooser", train="prohibited")
    (corpus / "terms.yaml").write_text(said, "utf-8")
    ran = released(corpus, student)
    assert (ran.code, "scripted/chooser" in ran.stderr) == (4, True)


def test_a_dataset_that_was_revoked_is_not_released_from(corpus: Path, student: str) -> None:
    with Corpus.open(corpus) as opened:
        opened.journal.run_now(lambda transaction: transaction.execute("update datasets set status = 'revoked'"))
    ran = released(corpus, student)
    assert (ran.code, "revoked" in ran.stderr) == (6, True)


# --- Names, notices and licences (R15) -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def given_away(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """A student whose weights are to be given away, from a source that wants its notice kept."""
    folder = tmp_path_factory.mktemp("given-away")
    return labelled(folder, use="weights_released\n  accepted_duties: [notice_file]", sources="licence: WordNet")


def kept(corpus: Path, terms_id: str, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(f"The text of {terms_id}.", "utf-8")
    ran = corpusgen("terms", "snapshot", terms_id, tmp_path / "text.txt", "--corpus", corpus)
    assert ran.code == 0, ran.stderr


ACCEPTED = [
    part for duty in ("naming", "attribution", "license_copy", "use_policy_flow_down", "mau_cap", "notice_file")
    for part in ("--accept", duty)
]  # fmt: skip


def test_the_notice_of_a_source_goes_along_or_nothing_goes(given_away: tuple[Path, Path, str], tmp_path: Path) -> None:
    spec, _, student = given_away
    shutil.copytree(spec.parent, tmp_path, dirs_exist_ok=True)
    ran = released(tmp_path / "corpus", student)
    assert ran.code == 4
    assert "R15 WordNet: the notice of source 'ours' does not go along" in ran.stderr
    (tmp_path / "NOTICE.txt").write_text("WordNet 3.0 Copyright 2006 by Princeton University.", "utf-8")
    spec = tmp_path / spec.name
    spec.write_text(
        spec.read_text("utf-8").replace("licence: WordNet", "licence: WordNet, notice: NOTICE.txt"), "utf-8"
    )
    said = made(tmp_path / "corpus", student, "--spec", spec)
    text = "WordNet 3.0 Copyright 2006 by Princeton University."
    assert text in (Path(said["folder"]) / "NOTICE").read_text("utf-8")
    assert (Path(said["folder"]) / "LICENSES" / "WordNet-ours.txt").read_text("utf-8") == text


def test_a_llama_based_student_is_called_llama_and_brings_what_its_licence_asks_for(
    corpus: Path, student: str, trained: tuple[Path, Path, str], tmp_path: Path
) -> None:
    spec = tmp_path / "task.yaml"
    shutil.copytree(trained[0].parent, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("corpus"))
    text = spec.read_text("utf-8").replace(": internal", ": weights_released")
    spec.write_text(f"{text}\norganisation: {{monthly_active_users: 1000, domiciled_in: [us]}}\n", "utf-8")
    judged: tuple[str | Path, ...] = (*LLAMA, *ACCEPTED, "--spec", spec)
    ran = released(corpus, student, *judged)
    assert ran.code == 4
    assert f"R15 {LLAMA_TERMS}" in ran.stderr
    assert "must begin with 'Llama'" in ran.stderr
    assert f"no copy of {LLAMA_TERMS} goes along" in ran.stderr
    assert not (corpus / "releases").exists()
    kept(corpus, LLAMA_TERMS, tmp_path)
    said = made(corpus, student, *judged, name="Llama-kinds")
    folder = Path(said["folder"])
    assert "Built with Llama" in (folder / "NOTICE").read_text("utf-8")
    assert (folder / "LICENSES" / f"{LLAMA_TERMS}.txt").read_text("utf-8") == f"The text of {LLAMA_TERMS}."
    assert said["base"]["model"] == "meta-llama/Llama-3.2-1B"
    assert ("base", "allow") in {
        (json.loads(text)["role"], outcome)
        for outcome, text in journal(corpus, "select outcome, decision from decisions where stage = 'release'")
    }


def test_a_spec_that_is_not_of_the_student_is_refused(
    corpus: Path, student: str, trained: tuple[Path, Path, str], tmp_path: Path
) -> None:
    text = trained[0].read_text("utf-8")
    shutil.copytree(trained[0].parent, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("corpus"))
    for change, told in (("name: kinds", "is of task 'other'"), ("CC0-1.0", "was under CC0-1.0")):
        other = text.replace(change, "name: other" if change.startswith("name") else "MIT", 1)
        (tmp_path / "task.yaml").write_text(other, "utf-8")
        ran = released(corpus, student, "--spec", tmp_path / "task.yaml")
        assert (ran.code, told in ran.stderr) == (2, True), ran.stderr


def test_duties_of_a_base_that_nobody_accepted_are_named_with_what_to_write(corpus: Path, student: str) -> None:
    ran = released(corpus, student, *LLAMA)
    assert ran.code == 4
    assert "R07" in ran.stderr
    assert "naming" in ran.stderr
    assert "--accept" in ran.stderr


def test_a_base_that_no_terms_document_knows_is_denied(corpus: Path, student: str) -> None:
    ran = released(corpus, student, "--base", "nobody/knows-1b", "--base-provider", "nobody")
    assert (ran.code, "R01" in ran.stderr) == (4, True)


def test_a_waiver_that_is_over_no_longer_carries_a_release(corpus: Path, student: str) -> None:
    unclear = document("corpusgen-scripted-now", train="unclear", more="overrides: corpusgen-scripted")
    (corpus / "terms.yaml").write_text(unclear, "utf-8")
    assert "R05" in released(corpus, student).stderr
    with Corpus.open(corpus) as opened:
        version = registry_of(opened, None).version_of("corpusgen-scripted-now")
    granted = {
        "waiver_id": "w-1",
        "versions": {"corpusgen-scripted-now": version},
        "terms_ids": ["corpusgen-scripted-now"],
        "granted_by": "Counsel",
        "reason": "read and agreed",
        "evidence_sha256": "ab" * 32,
        "granted": "2026-01-01",
        "expires": "2999-01-01",
        "rules": [],
        "task": "",
        "teacher": "",
    }

    def waived(expires: str) -> None:
        row = json.dumps(granted | {"expires": expires})
        with Corpus.open(corpus) as opened:

            def operation(transaction: Any) -> None:
                transaction.execute(
                    "insert or replace into waivers(waiver_id, waiver, granted_us) values('w-1', ?, 0)", (row,)
                )
                note_event(transaction, "waiver_granted", granted | {"expires": expires})

            opened.journal.run_now(operation)

    waived("2999-01-01")
    said = made(corpus, student)
    assert said["waivers"] == ["w-1"]
    assert "w-1" in (Path(said["folder"]) / "MODEL_CARD.md").read_text("utf-8")
    waived("2026-02-01")
    ran = released(corpus, student, name="other")
    assert ran.code == 4
    assert "waiver w-1 of corpusgen-scripted-now was over on 2026-02-01" in ran.stderr


# --- Students made elsewhere -----------------------------------------------------------------------------------------


def test_a_student_made_elsewhere_is_released_by_the_datasets_it_learned_from(tmp_path: Path) -> None:
    _, corpus = free_text(tmp_path)
    (tmp_path / "model" / "sub").mkdir(parents=True)
    (tmp_path / "model" / "weights.safetensors").write_bytes(b"weights")
    (tmp_path / "model" / "sub" / "config.json").write_text("{}")
    assert "--dataset" in released(corpus, tmp_path / "model").stderr
    said = made(corpus, tmp_path / "model", "--dataset", "words")
    assert [one["dataset"] for one in said["datasets"]] == ["words-1"]
    assert (Path(said["folder"]) / "student" / "sub" / "config.json").read_text() == "{}"
    assert made(corpus, tmp_path / "model", "--dataset", "words")["found"]
    assert corpusgen("verify", "--corpus", corpus).code == 0
    assert corpusgen("predict", "text", "--corpus", corpus).code == 2  # there is no student here that could be asked
    assert "was made elsewhere" in released(corpus, said["student_id"]).stderr
    ran = corpusgen("audit", "q16", "--student", said["student_id"], "--corpus", corpus)
    assert (ran.code, "Ada" in ran.stdout) == (0, True), ran.stderr
    (tmp_path / "model" / "link").symlink_to("/etc/passwd")
    ran = released(corpus, tmp_path / "model", "--dataset", "words")
    assert (ran.code, "is no plain file" in ran.stderr) == (2, True)


def test_terms_that_only_a_spec_has_are_read_from_it(tmp_path: Path) -> None:
    spec, corpus = mixed(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights.safetensors").write_bytes(b"weights")
    ran = released(corpus, tmp_path / "model", "--dataset", "words")
    assert (ran.code, "--spec" in ran.stderr) == (4, True)
    said = made(corpus, tmp_path / "model", "--dataset", "words", "--spec", spec)
    assert {one["teacher"] for one in said["decisions"]} == {"scripted/open", "scripted/bound"}
    assert {(one["kind"], one["terms_id"]) for one in said["duties"]} == {("naming", "bound")}


# --- Afterwards ------------------------------------------------------------------------------------------------------


def test_a_release_is_listed_and_withdrawn_with_who_and_why(corpus: Path, student: str) -> None:
    assert "nothing was released" in corpusgen("release", "--list", "--corpus", corpus).stdout
    release_id = made(corpus, student)["release_id"]
    why = ("--by", "Bea", "--reason", "the source was taken back")
    said = done("release", "--withdraw", release_id[:6], *why, "--corpus", corpus)
    assert said["withdrawn"]["by"] == "Bea"
    (listed,) = done("release", "--list", "--corpus", corpus)["releases"]
    assert (listed["release_id"], listed["withdrawn"]["reason"]) == (release_id, "the source was taken back")
    assert "withdrawn" in corpusgen("release", "--list", "--corpus", corpus).stdout
    ((event,),) = journal(corpus, "select payload from events where kind = 'withdrawn'")
    assert json.loads(event)["by"] == "Bea"
    again = released(corpus, student)
    assert (again.code, "was withdrawn on" in again.stderr) == (2, True)
    assert corpusgen("release", "--withdraw", release_id, *why, "--corpus", corpus).code == 2
    assert corpusgen("verify", "--corpus", corpus).code == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "name a STUDENT"),
        (("nobody", "--name", "n", "--approver", "Ada"), "is no student of this corpus"),
        (("{student}", "--approver", "Ada"), "--name is missing"),
        (("{student}", "--name", "n"), "--approver is missing"),
        (("{student}", "--name", "../n", "--approver", "Ada"), "is no name"),
        (("{student}", "--name", "n", "--approver", " "), "--approver"),
        (("{student}", "--name", "n", "--approver", "Ada", "--base", "m"), "--base-provider is missing"),
        (("{student}", "--name", "n", "--approver", "Ada", "--base-provider", "p"), "--base is missing"),
        (("{student}", *HALF_A_BASE), "weights_sha256"),
        (("{student}", "--name", "n", "--approver", "Ada", "--dataset", "kinds"), "made elsewhere"),
        (("{student}", *SAID, "--accept", "nameing"), "--accept: 'nameing' is no duty; write one of"),
        (("--list", "--name", "n"), "are for a STUDENT"),
        (("--withdraw", "abc", "--by", "Bea", "--reason", "so"), "is not one release"),
        (("--withdraw", "abc"), "--reason"),
        (("--by", "Bea", "--list"), "are for --withdraw"),
    ],
)
def test_what_cannot_be_released_is_told_by_the_option_to_change(
    arguments: tuple[str, ...], told: str, corpus: Path, student: str
) -> None:
    ran = corpusgen("release", *(one.format(student=student) for one in arguments), "--corpus", corpus)
    assert (ran.code, told in ran.stderr) == (2, True), ran.stderr
