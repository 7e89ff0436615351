"""``corpusgen terms``: one's own documents, read again and kept, and who is bound by which."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from command import Ran, corpusgen
from flow_samples import write_task
from rights_samples import ACME, UNCLEAR, acme, write_terms

from corpusgen.corpus import Corpus
from corpusgen.stages.loading import load_task
from corpusgen.stages.terms.deciding import registry_of

NOWHERE = "http://127.0.0.1:9/v1"
LONG_AGO = str(datetime.now(UTC).date() - timedelta(days=200))


def terms(folder: Path, *words: str | Path) -> Ran:
    return corpusgen("terms", *words, "--corpus", folder / "corpus")


def asking_acme(folder: Path) -> Path:
    """A task that asks Acme and names no terms of its own."""
    return write_task(folder, items=1, teacher=acme(NOWHERE))


def planned(folder: Path) -> int:
    return corpusgen("plan", folder / "task.yaml", "--corpus", folder / "corpus").code


def kinds(folder: Path) -> list[str]:
    with Corpus.open(folder / "corpus", reading=True) as corpus:
        return [
            row[0] for row in corpus.journal.query("select kind from events where kind like 'terms_%' order by seq")
        ]


def test_documents_that_are_added_count_in_this_corpus(tmp_path: Path) -> None:
    asking_acme(tmp_path)
    assert planned(tmp_path) == 4
    added = terms(tmp_path, "add", write_terms(tmp_path / "acme.yaml", {}), "--json")
    assert (added.code, added.object["documents"]) == (0, ["acme-terms-1"])
    assert planned(tmp_path) == 0
    assert kinds(tmp_path) == ["terms_added"]
    assert terms(tmp_path, "show", "acme-terms-1", "--json").object["file"] == str(tmp_path / "corpus" / "terms.yaml")


def test_documents_of_the_organisation_count_in_every_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORPUSGEN_TERMS", str(tmp_path / "ours" / "terms.yaml"))
    asking_acme(tmp_path)
    assert terms(tmp_path, "add", "--organisation", write_terms(tmp_path / "acme.yaml", {})).code == 0
    assert planned(tmp_path) == 0
    assert not (tmp_path / "corpus").exists()


def test_an_organisation_file_that_is_named_must_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORPUSGEN_TERMS", str(tmp_path / "gone.yaml"))
    refused = corpusgen("plan", asking_acme(tmp_path))
    assert (refused.code, "gone.yaml" in refused.stderr) == (2, True)


def test_a_wrong_file_is_refused_with_its_line_and_changes_nothing(tmp_path: Path) -> None:
    assert terms(tmp_path, "add", write_terms(tmp_path / "acme.yaml", {})).code == 0
    before = (tmp_path / "corpus" / "terms.yaml").read_bytes()
    wrong = write_terms(tmp_path / "wrong.yaml", {"id": "acme-terms-2", "outputs_train": "perhaps"})
    refused = terms(tmp_path, "add", wrong)
    assert (refused.code, f"{wrong}:" in refused.stderr, "perhaps" in refused.stderr) == (2, True, True)
    twice = write_terms(tmp_path / "twice.yaml", UNCLEAR)
    refused = terms(tmp_path, "add", twice)
    assert (refused.code, "stands twice" in refused.stderr) == (2, True)
    assert (tmp_path / "corpus" / "terms.yaml").read_bytes() == before
    assert kinds(tmp_path) == ["terms_added"]


def test_the_same_file_again_adds_nothing_and_more_of_it_only_what_is_new(tmp_path: Path) -> None:
    file = write_terms(tmp_path / "acme.yaml", {})
    assert terms(tmp_path, "add", file).code == 0
    assert "everything was there already" in terms(tmp_path, "add", file).stdout
    write_terms(file, {}, {"id": "acme-host-1", "kind": "host_terms", "models": ["*"]})
    assert terms(tmp_path, "add", file, "--json").object["documents"] == ["acme-host-1"]


def test_terms_that_somebody_overrides_are_those_that_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORPUSGEN_TERMS", str(tmp_path / "ours.yaml"))
    asking_acme(tmp_path)
    assert terms(tmp_path, "add", "--organisation", write_terms(tmp_path / "acme.yaml", {})).code == 0
    assert planned(tmp_path) == 0
    order = write_terms(tmp_path / "order.yaml", {"id": "our-order", "overrides": "acme-terms-1", **UNCLEAR})
    assert terms(tmp_path, "add", order).code == 0
    assert planned(tmp_path) == 4


def test_a_review_is_signed_and_makes_old_terms_pass(tmp_path: Path) -> None:
    asking_acme(tmp_path)
    terms(tmp_path, "add", write_terms(tmp_path / "acme.yaml", {"reviewed": LONG_AGO}))
    refused = corpusgen("plan", tmp_path / "task.yaml", "--corpus", tmp_path / "corpus")
    assert (refused.code, "R02" in refused.stderr) == (4, True)
    assert "corpusgen terms review acme-terms-1 --by NAME" in refused.stderr
    listed = terms(tmp_path, "list", "--stale", "--json").object["terms"]
    assert [one["terms_id"] for one in listed] == ["acme-terms-1"]
    done = terms(tmp_path, "review", "acme-terms-1", "--by", "Ms Counsel", "--remark", "nothing new", "--json")
    assert (done.code, done.object["refreshes"]) == (0, True)
    assert planned(tmp_path) == 0
    with Corpus.open(tmp_path / "corpus", reading=True) as corpus:
        ((envelope,),) = corpus.journal.query("select envelope from reviews")
    assert '"signatures"' in envelope
    assert kinds(tmp_path) == ["terms_added", "terms_reviewed"]


def test_terms_in_the_files_of_a_spec_are_reviewed_with_that_spec(tmp_path: Path) -> None:
    write_terms(tmp_path / "acme.yaml", {"reviewed": LONG_AGO})
    spec = write_task(tmp_path, items=1, teacher=acme(NOWHERE), terms_files=["acme.yaml"])
    refused = corpusgen("plan", spec, "--corpus", tmp_path / "corpus")
    assert f"corpusgen terms review acme-terms-1 --by NAME --spec {spec}" in refused.stderr
    assert terms(tmp_path, "review", "acme-terms-1", "--by", "Me").code == 2
    assert terms(tmp_path, "review", "acme-terms-1", "--by", "Me", "--spec", spec).code == 0
    assert planned(tmp_path) == 0


def test_terms_files_that_change_after_the_task_was_read_count_as_they_are(tmp_path: Path) -> None:
    spec = asking_acme(tmp_path)
    write_terms(tmp_path / "acme.yaml", {})
    spec.write_text(spec.read_text() + "terms_files: [acme.yaml]\n")
    task = load_task(spec)
    write_terms(tmp_path / "acme.yaml", {"outputs_train": "prohibited", "outputs_train_competing": "prohibited"})
    with Corpus.open(tmp_path / "corpus") as corpus:
        for there in (None, corpus):
            assert registry_of(there, task).by_id["acme-terms-1"].outputs_train == "prohibited"


def test_a_file_that_a_message_names_is_the_one_that_counts(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_terms(tmp_path / name / "acme.yaml", {"reviewed": "2020-01-01"})
        asking_acme(tmp_path / name)
        spec = tmp_path / name / "task.yaml"
        spec.write_text(spec.read_text() + "terms_files: [acme.yaml]\n")
    corpus = tmp_path / "corpus"
    (tmp_path / "text.txt").write_text("You may.")
    here = ("--spec", tmp_path / "one" / "task.yaml", "--corpus", corpus)
    corpusgen("terms", "snapshot", "acme-terms-1", tmp_path / "text.txt", *here)
    for name in ("one", "two"):
        refused = corpusgen("plan", tmp_path / name / "task.yaml", "--corpus", corpus)
        assert str(tmp_path / name / "acme.yaml") in refused.stderr, refused.stderr


def test_a_review_of_a_day_to_come_is_refused(tmp_path: Path) -> None:
    terms(tmp_path, "add", write_terms(tmp_path / "acme.yaml", {}))
    refused = terms(tmp_path, "review", "acme-terms-1", "--by", "Me", "--on", "2999-01-01")
    assert (refused.code, "yet to come" in refused.stderr) == (2, True)


def test_another_text_than_before_is_said_loudly_and_refreshes_nothing(tmp_path: Path) -> None:
    asking_acme(tmp_path)
    terms(tmp_path, "add", write_terms(tmp_path / "acme.yaml", {"reviewed": LONG_AGO}))
    (tmp_path / "before.txt").write_text("You may.")
    (tmp_path / "after.txt").write_text("You may not.")
    kept = terms(tmp_path, "snapshot", "acme-terms-1", tmp_path / "before.txt", "--json")
    assert kept.object["sha256"] == hashlib.sha256(b"You may.").hexdigest()
    read = terms(tmp_path, "review", "acme-terms-1", "--by", "Me", "--text", tmp_path / "after.txt")
    assert "THE TEXT OF acme-terms-1 HAS CHANGED" in read.stderr
    assert "refreshes nothing" in read.stderr
    assert planned(tmp_path) == 4
    again = terms(tmp_path, "snapshot", "acme-terms-1", tmp_path / "after.txt")
    assert (again.code, "HAS CHANGED" in again.stderr) == (0, True)
    assert planned(tmp_path) == 0  # the text that was read is now the one that is held


def test_the_text_of_a_document_is_not_held_until_a_snapshot_keeps_it(tmp_path: Path) -> None:
    terms(tmp_path, "add", write_terms(tmp_path / "acme.yaml", {}))
    assert "text not held" in terms(tmp_path, "show", "acme-terms-1").stdout
    (tmp_path / "text.txt").write_text("You may.")
    assert terms(tmp_path, "snapshot", "acme-terms-1", tmp_path / "text.txt").code == 0
    assert terms(tmp_path, "snapshot", "acme-terms-1", tmp_path / "text.txt").code == 0
    assert "text not held" not in terms(tmp_path, "show", "acme-terms-1").stdout
    assert kinds(tmp_path).count("terms_snapshot") == 1
    (tmp_path / "empty.txt").write_text(" ")
    assert "is empty" in terms(tmp_path, "snapshot", "acme-terms-1", tmp_path / "empty.txt").stderr


def test_who_is_bound_by_which_documents_can_be_asked(tmp_path: Path) -> None:
    asked = ("list", "--model", "gpt-5", "--route", "api", "--host", "api.openai.com", "--provider", "openai")
    found = terms(tmp_path, *asked, "--json").object
    assert found["binding"]["terms"] == ["openai-services-agreement-2026-01-01"]
    assert found["binding"]["gaps"] == []
    unknown = terms(tmp_path, "list", "--model", "nobody-9", "--route", "api")
    assert "missing: no terms document covers model 'nobody-9'" in unknown.stdout
    assert terms(tmp_path, "list", "--model", "gpt-5").code == 2


def test_a_name_that_is_nearly_right_is_answered_with_the_right_one(tmp_path: Path) -> None:
    refused = terms(tmp_path, "show", "openai-services-agreement-2026")
    assert (refused.code, "did you mean openai-services-agreement-2026-01-01" in refused.stderr) == (2, True)


def test_lint_finds_every_mistake_of_a_file_at_once(tmp_path: Path) -> None:
    assert "no mistake" in terms(tmp_path, "lint").stdout
    assert terms(tmp_path, "lint", write_terms(tmp_path / "fine.yaml", {})).code == 0
    wrong = write_terms(tmp_path / "wrong.yaml", {"spdx": "Mine"}, {"id": "b", "quote": "w " * 30})
    refused = terms(tmp_path, "lint", wrong)
    assert (refused.code, refused.stderr.count(f"{wrong}:") >= 2) == (2, True)


def test_a_teacher_of_ones_own_is_asked_under_the_terms_it_was_added_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CORPUSGEN_TEACHERS", str(tmp_path / "ours" / "teachers.yaml"))
    monkeypatch.setenv("CORPUSGEN_TERMS", str(tmp_path / "ours" / "terms.yaml"))
    file = write_terms(tmp_path / "acme.yaml", {"hosts": ["api.acme.example"]})
    where = ("--base-url", "https://api.acme.example/v1", "--provider", "acme", "--route", "api")
    added = corpusgen("teachers", "add", "acme", *where, "--terms", file, "--json", "--corpus", tmp_path / "none")
    assert (added.code, added.object["terms"]) == (0, ["acme-terms-1"]), added.stderr
    asked = {"name": "acme/m", "script": None, "free": True, "parameters": {"max_tokens": 8}}
    spec = write_task(tmp_path, items=1, teacher=asked)
    planned = corpusgen("plan", spec, "--corpus", tmp_path / "corpus")
    assert (planned.code, "acme/m: allow under acme-terms-1" in planned.stdout) == (0, True), planned.stderr
    assert "acme/MODEL" in corpusgen("teachers", "list").stdout
    again = corpusgen("teachers", "add", "acme", *where, "--terms", "acme-terms-1", "--corpus", tmp_path / "none")
    assert (again.code, "already" in again.stderr) == (2, True)
    assert not (tmp_path / "none").exists()


def test_a_teacher_is_not_added_under_terms_nobody_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORPUSGEN_TEACHERS", str(tmp_path / "teachers.yaml"))
    where = ("--base-url", "https://api.acme.example/v1", "--provider", "acme", "--route", "api")
    refused = corpusgen("teachers", "add", "acme", *where, "--terms", "no-such", "--corpus", tmp_path / "none")
    assert (refused.code, "no terms document has the id 'no-such'" in refused.stderr) == (2, True)
    assert not (tmp_path / "teachers.yaml").exists()


def test_a_teacher_that_is_checked_without_a_task_is_said_to_be_unjudged() -> None:
    told, unjudged = corpusgen("teachers", "check", "openai/gpt-4.1"), "terms were not judged: no task"
    assert (told.code, unjudged in told.stdout) == (0, True)
    assert corpusgen("teachers", "check", "openai/gpt-4.1", "--json").object["terms"] == unjudged


def test_acme_is_nobody_that_ships(tmp_path: Path) -> None:
    assert ACME["id"] not in {one["terms_id"] for one in terms(tmp_path, "list", "--json").object["terms"]}
