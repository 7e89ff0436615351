"""A sealed dataset under today's terms: exported and trained on, or refused; complete, and parted by licence."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from command import corpusgen
from release_samples import document, done, forbidden, free_text, labelled, mixed
from task_samples import write_label_task
from test_judging_answers import judged_task

from corpusgen.corpus import Corpus
from corpusgen.errors import PolicyRefused, SealRefused, UsageError
from corpusgen.pipeline import run_task
from corpusgen.spec import BaseModelSpec, StudentSpec, TaskSpec
from corpusgen.stages.loading import load_task
from corpusgen.stages.sealing import seal, sealed_dataset
from corpusgen.stages.selecting import Filters, find_selection, select
from corpusgen.stages.task import Task, connect
from corpusgen.stages.terms.deciding import decision_for
from corpusgen.stages.training import train_sealed
from corpusgen.store.shards import read_records


def decided(corpus: Path, stage: str) -> list[tuple[str, str, str]]:
    sql = f"select subject, outcome, decision from decisions where stage = '{stage}' order by decision_id"
    with Corpus.open(corpus) as opened:
        return [(row[0], row[1], json.loads(row[2])["teacher"]) for row in opened.journal.query(sql)]


def events(corpus: Path, kind: str) -> list[Mapping[str, Any]]:
    with Corpus.open(corpus) as opened:
        rows = opened.journal.query("select payload from events where kind = ? order by seq", (kind,))
        return [json.loads(row[0]) for row in rows]


# --- The policy is asked again ---------------------------------------------------------------------------------------


def test_rows_go_out_when_todays_terms_allow_it_and_that_is_written_down(tmp_path: Path) -> None:
    _, corpus = free_text(tmp_path)
    for _ in range(2):
        made = done("export", "words", tmp_path / "chat.jsonl", "--to", "chat", "--corpus", corpus)
        assert made["rows"] == 5
    assert decided(corpus, "export") == [("words-1", "allow", "scripted/test")]
    assert [(one["to"], one["rows"]) for one in events(corpus, "dataset_exported")] == [("chat", 5), ("chat", 5)]
    assert corpusgen("verify", "--corpus", corpus).code == 0


def test_rows_that_todays_terms_no_longer_allow_stay_where_they_are(tmp_path: Path) -> None:
    _, corpus = free_text(tmp_path)
    forbidden(corpus)
    ran = corpusgen("export", "words", tmp_path / "chat.jsonl", "--to", "chat", "--corpus", corpus)
    assert ran.code == 4
    assert "words-1 may not be exported" in ran.stderr
    assert "R04" in ran.stderr
    assert "corpusgen-scripted-now" in ran.stderr
    assert not (tmp_path / "chat.jsonl").exists()
    assert decided(corpus, "export") == [("words-1", "deny", "scripted/test")]
    assert not events(corpus, "dataset_exported")


def test_a_document_about_such_a_dataset_may_still_be_written(tmp_path: Path) -> None:
    spec, corpus = free_text(tmp_path)
    forbidden(corpus)
    out = tmp_path / "notice.md"
    assert corpusgen("export", "words", out, "--to", "notice", "--spec", spec, "--corpus", corpus).code == 0
    assert "scripted" in out.read_text("utf-8")


def test_a_judge_counts_as_much_as_who_wrote_the_rows(tmp_path: Path) -> None:
    spec, corpus = judged_task(tmp_path), tmp_path / "corpus"
    own = document("judging", model="judge")
    (tmp_path / "judging.yaml").write_text(own, "utf-8")
    spec.write_text(spec.read_text("utf-8") + "\nterms_files: [judging.yaml]\n", "utf-8")
    done("run", spec, "--corpus", corpus, "-q")
    done("select", "sentences", "--spec", spec, "--corpus", corpus)
    done("seal", "sentences", "--spec", spec, "--corpus", corpus)
    exported = ("export", "sentences", tmp_path / "chat.jsonl", "--to", "chat", "--corpus", corpus)
    done(*exported, "--spec", spec)
    (tmp_path / "judging.yaml").write_text(own.replace(": allowed", ": prohibited"), "utf-8")
    ran = corpusgen(*exported, "--spec", spec)
    assert ran.code == 4
    assert "scripted/judge" in ran.stderr


def test_terms_of_a_spec_that_nobody_names_are_asked_for_instead_of_taken_for_granted(tmp_path: Path) -> None:
    spec, corpus = mixed(tmp_path)
    exported = ("export", "words", tmp_path / "chat.jsonl", "--to", "chat", "--corpus", corpus)
    ran = corpusgen(*exported)
    assert ran.code == 4
    assert "--spec" in ran.stderr
    assert done(*exported, "--spec", spec)["rows"] > 0


def test_another_intended_use_is_judged_by_the_spec_that_names_it(tmp_path: Path) -> None:
    spec, corpus = mixed(tmp_path)
    said = yaml.safe_load(spec.read_text("utf-8"))
    said["intended_use"]["accepted_duties"] = []
    spec.write_text(yaml.safe_dump(said), "utf-8")
    ran = corpusgen("export", "words", tmp_path / "chat.jsonl", "--to", "chat", "--spec", spec, "--corpus", corpus)
    assert (ran.code, "R07" in ran.stderr) == (4, True)


def test_a_spec_with_other_licences_does_not_speak_for_a_dataset(tmp_path: Path) -> None:
    spec, corpus = free_text(tmp_path)
    spec.write_text(spec.read_text("utf-8").replace("CC0-1.0", "MIT"), "utf-8")
    ran = corpusgen("export", "words", tmp_path / "c.jsonl", "--to", "chat", "--spec", spec, "--corpus", corpus)
    assert ran.code == 2
    assert "source 'words' was under CC0-1.0" in ran.stderr


def test_a_student_is_not_trained_on_what_todays_terms_forbid(tmp_path: Path) -> None:
    spec, corpus, _ = labelled(tmp_path)
    assert ("kinds-1", "allow", "scripted/test") in decided(corpus, "train")
    forbidden(corpus)
    ran = corpusgen("train", "kinds", "--spec", spec, "--corpus", corpus)
    assert (ran.code, "R04" in ran.stderr) == (4, True)


def test_an_answered_job_that_runs_again_decides_and_notes_nothing_new(tmp_path: Path) -> None:
    spec, corpus, student = labelled(tmp_path)
    with Corpus.open(corpus) as opened:
        before = opened.journal.query(
            "select count(*), (select count(*) from events) from decisions where stage = 'train'"
        )
    again = done("distill", spec, "--corpus", corpus, "-q")
    assert Path(again["student"]).name == student
    with Corpus.open(corpus) as opened:
        after = opened.journal.query(
            "select count(*), (select count(*) from events) from decisions where stage = 'train'"
        )
    assert after == before


# --- The base of a student -------------------------------------------------------------------------------------------


def test_a_base_for_a_student_that_takes_none_is_refused_at_its_line(tmp_path: Path) -> None:
    spec = write_label_task(tmp_path, more="student:\n  base: {model: meta-llama/Llama-3.2-1B, provider: meta}\n")
    ran = corpusgen("plan", spec, "--corpus", tmp_path / "corpus")
    line = spec.read_text("utf-8").splitlines().index("  base: {model: meta-llama/Llama-3.2-1B, provider: meta}") + 1
    assert ran.code == 2
    assert f"task.yaml:{line}: student.base: the bag student is made from nothing; remove base" in ran.stderr


def begun_with(task: Task, model: str, provider: str) -> Task:
    """The task with a student that begins with these weights, as a kind that takes a base would have it."""
    base = BaseModelSpec(model=model, provider=provider, weights_sha256="ab" * 32)
    spec: TaskSpec = task.spec.model_copy(update={"student": StudentSpec.model_construct(kind="bag", base=base)})
    return replace(task, located=replace(task.located, spec=spec))


def test_the_licence_of_weights_that_a_student_begins_with_is_judged_before_it_is_trained(tmp_path: Path) -> None:
    spec, folder, _ = labelled(tmp_path)
    with Corpus.open(folder) as corpus:
        for model, provider, rule in (("nobody/knows-1b", "nobody", "R01"), ("meta-llama/Llama-3.2-1B", "meta", "R07")):
            with pytest.raises(PolicyRefused, match=f"may not be made into a student(?s:.*){rule}"):
                train_sealed(corpus, begun_with(load_task(spec), model, provider), "kinds")
    assert {(subject, outcome) for subject, outcome, _ in decided(folder, "train")} >= {
        ("nobody/knows-1b", "deny"),
        ("meta-llama/Llama-3.2-1B", "needs_waiver"),
    }


# --- Complete before it is sealed ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"title": " "}, r"task\.yaml:\d+: sources\.ours: the source has no title; write title"),
        ({"licence": "see the website!"}, r"sources\.ours: 'website!' is no SPDX identifier"),
    ],
)
def test_a_dataset_that_does_not_say_what_it_must_is_not_sealed(
    change: dict[str, str], told: str, tmp_path: Path
) -> None:
    task = load_task(write_label_task(tmp_path))
    with Corpus.open(tmp_path / "corpus") as corpus:
        asyncio.run(run_task(task, corpus, opened=[]))
        decision = decision_for(corpus, task, connect(task, corpus.clock).card, corpus.clock().date())
        chosen = select(corpus, "kinds", filters=Filters())
        (source,) = task.spec.sources
        spec = task.spec.model_copy(update={"sources": (source.model_copy(update=change),)})
        with pytest.raises(SealRefused, match=told):
            seal(corpus, replace(task, located=replace(task.located, spec=spec)), chosen, decision)
        assert find_selection(corpus, "kinds").status == "selected"
        assert not (corpus.folder / "datasets" / "kinds-1").exists()
        assert seal(corpus, task, chosen, decision).rows == 30


def test_a_manifest_names_everybody_who_touched_the_rows_and_whose_words_the_sources_are(tmp_path: Path) -> None:
    spec, folder = judged_task(tmp_path), tmp_path / "corpus"
    text = spec.read_text("utf-8").replace("licence: CC0-1.0", "licence: CC0-1.0, rightsholder: The authors")
    spec.write_text(text, "utf-8")
    done("run", spec, "--corpus", folder, "-q")
    done("select", "sentences", "--spec", spec, "--corpus", folder)
    done("seal", "sentences", "--spec", spec, "--corpus", folder)
    with Corpus.open(folder) as corpus:
        manifest = sealed_dataset(corpus, "sentences").manifest
    touched = {(one["teacher"], one["role"], one["rows"], one["judged"]) for one in manifest["touched"]}
    assert ("scripted/test", "response", 8, False) in touched
    assert ("scripted/judge", "judge", 8, True) in touched
    assert [(one["source_id"], one["rightsholder"]) for one in manifest["sources"]] == [("ours", "The authors")]
    assert manifest["intended_use"]["student_distribution"] == "internal"


# --- Rows by licence -------------------------------------------------------------------------------------------------


def test_rows_under_unlike_licences_lie_in_files_of_their_own(tmp_path: Path) -> None:
    spec, folder = mixed(tmp_path)
    with Corpus.open(folder) as corpus:
        made = sealed_dataset(corpus, "words")
        assert sorted(path.name.rpartition("-00000")[0] for path in made.files) == [
            "train-permissive",
            "train-restricted",
        ]
        for path in made.files:
            (teacher,) = {record.teacher for record in read_records([path])}
            assert teacher == {"permissive": "scripted/open", "restricted": "scripted/bound"}[path.name.split("-")[1]]
        assert {record.teacher for record in read_records(made.of_split("train"))} == {
            "scripted/open",
            "scripted/bound",
        }
        with pytest.raises(UsageError, match="lies in 2 files by licence"):
            made.file("train")
        assert made.rows == len(list(read_records(made.files))) == 12
    assert not [path for path in (folder / "datasets").iterdir() if path.name.startswith(".")]
    assert corpusgen("verify", "--corpus", folder).code == 0
    assert done("diff", "words-1", "words-1", "--corpus", folder)["kept"] == 12
    assert done("select", "words", "--corpus", folder)["splits"] == {"train": 12}
    assert done("seal", "words", "--spec", spec, "--corpus", folder)["rows"] == 12


def test_the_card_has_a_configuration_for_each_licence(tmp_path: Path) -> None:
    _, folder = mixed(tmp_path)
    text = (folder / "datasets" / "words-1" / "README.md").read_text("utf-8")
    configs = yaml.safe_load(text.split("---\n")[1])["configs"]
    assert [one["config_name"] for one in configs] == ["permissive", "restricted"]
    assert configs[0]["data_files"] == [{"split": "train", "path": "train-permissive-*.parquet"}]
    assert "| restricted | CC0-1.0 AND LicenseRef-bound |" in text
    assert 'load_dataset(folder, "permissive")' in text


def imported(corpus: Path, licence: str, name: str) -> None:
    """Four rows from outside, under a licence of their own."""
    rows = [{"prompt": f"{name}, number {at}", "response": f"{at} {name}s came"} for at in range(4)]
    file = corpus.parent / f"{name}.jsonl"
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")
    about = ("--licence", licence, "--source-id", name, "--title", f"Texts of {name}", "--rightsholder", "Bea")
    done("import", file, "--dataset", "words", *about, "--corpus", corpus)
    done("select", "words", "--corpus", corpus)


def test_rows_from_outside_are_judged_and_parted_by_their_own_licence(tmp_path: Path) -> None:
    spec, corpus = free_text(tmp_path)
    imported(corpus, "CC-BY-SA-4.0", "fern")
    sealing = ("seal", "words", "--spec", spec, "--corpus", corpus)
    assert "R07 CC-BY-SA-4.0" in corpusgen(*sealing).stderr
    said = yaml.safe_load(spec.read_text("utf-8"))
    said["intended_use"]["accepted_duties"] = ["share_alike", "attribution"]
    spec.write_text(yaml.safe_dump(said), "utf-8")
    done(*sealing)
    names = {path.name.rpartition("-00000")[0] for path in (corpus / "datasets" / "words-2").glob("*.parquet")}
    assert names == {"train-permissive", "train-share_alike"}
    # The use it was sealed for counts, not that of the run.
    assert done("export", "words", tmp_path / "c.jsonl", "--to", "chat", "--corpus", corpus)["rows"] == 9
    done("export", "words", tmp_path / "notice.md", "--to", "notice", "--spec", spec, "--corpus", corpus)
    assert "Texts of fern, Bea, licence CC-BY-SA-4.0" in (tmp_path / "notice.md").read_text("utf-8")
    imported(corpus, "ODbL-1.0", "moss")
    ran = corpusgen(*sealing)
    assert (ran.code, "R12 CC-BY-SA-4.0 and ODbL-1.0 cannot be mixed" in ran.stderr) == (4, True)
    assert corpusgen("verify", "--corpus", corpus).stdout.endswith("\nsound\n")


def test_a_split_without_rows_is_in_no_configuration(tmp_path: Path) -> None:
    spec, folder = mixed(tmp_path)
    made = done("select", "words", "--splits", "train=0.999,test=0.001", "--corpus", folder)
    assert made["splits"]["test"] == 0
    done("seal", "words", "--spec", spec, "--corpus", folder)
    sealed = folder / "datasets" / "words-2"
    configs = yaml.safe_load((sealed / "README.md").read_text("utf-8").split("---\n")[1])["configs"]
    assert {file["split"] for one in configs for file in one["data_files"]} == {"train"}
    assert (sealed / "test-00000-of-00001.parquet").exists()
    assert corpusgen("verify", "--corpus", folder).code == 0


def test_one_licence_keeps_one_configuration_and_one_file_a_split(tmp_path: Path) -> None:
    _, folder = free_text(tmp_path)
    text = (folder / "datasets" / "words-1" / "README.md").read_text("utf-8")
    assert yaml.safe_load(text.split("---\n")[1])["configs"] == [
        {"config_name": "default", "data_files": [{"split": "train", "path": "train-*.parquet"}]}
    ]
    assert "Configurations by licence" not in text


def test_a_process_killed_while_it_parted_rows_can_seal_again(tmp_path: Path) -> None:
    spec, folder = mixed(tmp_path)
    done("select", "words", "--limit", "8", "--corpus", folder)
    datasets = folder / "datasets"
    # Published and killed before it was noted: the folder is there, and so are the rows it was parted from.
    (datasets / "words-2").mkdir()
    (datasets / "words-2" / "train-permissive-00000-of-00001.parquet").write_bytes(b"unfinished")
    (datasets / ".words-2-parted").mkdir()
    assert done("seal", "words", "--spec", spec, "--corpus", folder)["rows"] == 8
    assert sorted(path.name for path in datasets.iterdir() if path.is_dir()) == ["words-1", "words-2"]
    assert corpusgen("verify", "--corpus", folder).code == 0


def test_documents_of_a_parted_dataset_name_each_file(tmp_path: Path) -> None:
    spec, folder = mixed(tmp_path)
    out = tmp_path / "croissant.json"
    done("export", "words", out, "--to", "croissant", "--spec", spec, "--corpus", folder)
    said = json.loads(out.read_bytes())
    assert [row["splits/name"] for row in said["recordSet"][0]["data"]] == ["train"]
    assert {one["@id"] for one in said["recordSet"]} >= {"train-permissive", "train-restricted"}
    assert len(said["distribution"]) == 2
