"""What was erased, overridden or calibrated on is not denied afterwards."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from command import corpusgen
from lineage_fixture import TODAY, write
from release_samples import document, forbidden, labelled
from task_samples import write_label_task
from tracing_samples import done, owned, rows

from corpusgen.corpus import Corpus
from corpusgen.provenance.questions import questions
from corpusgen.stages.lineage.auditing import Answer, audit, audit_corpus


def asked(corpus: Path, number: str, **given: str) -> tuple[list[dict[str, Any]], Answer]:
    with Corpus.open(corpus, reading=True) as opened:
        answer = audit_corpus(opened, questions()[number], given, on=date(2026, 11, 22))
    return [dict(zip(answer.result.columns, row, strict=True)) for row in answer.rows], answer


@pytest.fixture(scope="module")
def erased(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A released student whose labels were calibrated, and whose source was erased after."""
    spec, corpus, student = labelled(tmp_path_factory.mktemp("erased"), sources="licence: CC0-1.0, rightsholder: Jo")
    done("release", student, "--approver", "Ann", "--name", "S", "--spec", spec, "--corpus", corpus)
    done("erase", "--source", "ours", "--by", "Bob", "--corpus", corpus)
    return corpus, student


def test_a_release_still_tells_whose_output_it_learned_from_after_its_source_was_erased(
    erased: tuple[Path, str],
) -> None:
    found, answer = asked(erased[0], "q01", provider="corpusgen")
    assert [(row["used_for"], row["records"], row["erasure"]) for row in found] == [
        ("train", 16, "1"),
        ("calibration", 12, "1"),
    ]
    assert any(note.startswith("erasure 1 took 48 records") for note in answer.notes)


def test_what_was_erased_is_still_derived_from_its_source(erased: tuple[Path, str]) -> None:
    found = {(row["what"], row["name"]): row for row in asked(erased[0], "q06", source="ours")[0]}
    assert found["live records", "ours"]["records"] == 0
    assert found["erased records", "ours"]["records"] == 48
    assert found["dataset", "kinds-1"]["remark"] == "revoked, erased: 16"
    assert found["student", erased[1]]["remark"].endswith("used for calibration, train")
    assert found["erasure", "1"]["records"] == 48


def test_an_erased_dataset_was_generated_and_its_works_had_an_owner(erased: tuple[Path, str]) -> None:
    sheet = {row["item"]: row["value"] for row in asked(erased[0], "q13", student=erased[1])[0]}
    assert (sheet[1], sheet[4]) == ("ours (Jo)", "erased since: label: 28")
    assert sheet[12] == "yes: corpusgen test"
    assert [row["records"] for row in asked(erased[0], "q12", dataset="kinds-1")[0]] == [16]
    held = asked(erased[0], "q19", rightsholder="Jo")[0]
    assert {(row["records"], row["erased"], row["records_in_dataset"]) for row in held} == {(0, 48, 16), (0, 48, 12)}
    assert {row["teacher_role"] for row in asked(erased[0], "q17", provider="corpusgen")[0]} == {"logprobs"}


def test_what_is_left_of_an_erased_dataset_does_not_pass_for_the_whole(erased: tuple[Path, str]) -> None:
    answer = asked(erased[0], "q15", dataset="kinds-1")[1]
    assert answer.violated
    assert "what is counted here is what is left" in answer.verdict
    assert not asked(erased[0], "q02", student=erased[1])[1].violated


def test_terms_that_forbid_count_for_what_was_erased(erased: tuple[Path, str]) -> None:
    try:
        forbidden(erased[0])
        found, answer = asked(erased[0], "q02", student=erased[1])
    finally:
        (erased[0] / "terms.yaml").unlink()
    assert answer.violated
    assert {(row["terms"], row["erasure"]) for row in found} >= {("corpusgen-scripted-now", "1")}


def test_what_an_erasure_counted_is_signed_and_names_no_record(erased: tuple[Path, str]) -> None:
    report = orjson.loads((erased[0] / "erasures" / "1.json").read_bytes())["report"]
    assert {row["about"] for row in report["touched_counts"]} == {"record", "use", "source"}
    assert rows(erased[0], "select selector, subject, counted from erasures") == [("source", "ours", True)]


def test_an_erasure_that_kept_no_counts_lets_no_student_pass(tmp_path: Path) -> None:
    paths = write(2_000, tmp_path)
    table = pq.read_table(paths["erasures"])
    at = table.schema.get_field_index("counted")
    pq.write_table(table.set_column(at, table.schema.field(at), pa.array([False])), paths["erasures"])
    pq.write_table(pq.read_table(paths["erased_uses"]).slice(0, 0), paths["erased_uses"])
    answer = audit(paths, questions()["q02"], {"student": "old"}, on=TODAY)
    assert answer.rows == []
    assert answer.violated
    assert "it kept no counts of it" in answer.verdict
    assert not audit(paths, questions()["q02"], {"student": "clean"}, on=TODAY).violated


def test_a_document_that_stands_in_for_another_counts_for_what_was_made_under_that(tmp_path: Path) -> None:
    _, corpus, student = labelled(tmp_path)
    assert not asked(corpus, "q02", student=student)[1].violated
    forbidden(corpus)
    found, answer = asked(corpus, "q02", student=student)
    assert answer.violated
    assert {row["terms"] for row in found} == {"corpusgen-scripted", "corpusgen-scripted-now"}
    licences = asked(corpus, "q04", dataset="kinds-1")[0]
    assert "LicenseRef-corpusgen-scripted-now" in {row["licence"] for row in licences}


def test_terms_of_a_spec_are_known_from_every_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, corpus = write_label_task(tmp_path / "task", pool=24, limit=16), tmp_path / "elsewhere" / "corpus"
    (spec.parent / "own.yaml").write_text(document("own-now", more="overrides: corpusgen-scripted"), "utf-8")
    spec.write_text(f"{spec.read_text('utf-8')}\nterms_files: [own.yaml]\n", "utf-8")
    done("distill", spec, "--corpus", corpus, "-q")
    (spec.parent / "own.yaml").unlink()
    monkeypatch.chdir(tmp_path)
    assert ("terms", "LicenseRef-own-now") in {
        (row["comes_from"], row["licence"]) for row in asked(corpus, "q04", dataset="kinds-1")[0]
    }
    assert not asked(corpus, "q15", dataset="kinds-1")[1].violated


def test_terms_that_nobody_knows_any_more_make_no_row_disappear(tmp_path: Path) -> None:
    paths = write(2_000, tmp_path)
    table = pq.read_table(paths["terms"])
    keep = [name != "borealis-weights" for name in table["terms_id"].to_pylist()]
    pq.write_table(table.filter(pa.array(keep)), paths["terms"])
    answer = audit(paths, questions()["q02"], {"student": "clean"}, on=TODAY)
    assert {(row[5], row[9]) for row in answer.rows} == {("borealis-weights", "terms not known here")}
    assert answer.violated
    licences = audit(paths, questions()["q04"], {"dataset": "alpha-1"}, on=TODAY).rows
    assert ("terms not known here: borealis-weights", "NOASSERTION") in {row[:2] for row in licences}
    duties = audit(paths, questions()["q03"], {"dataset": "alpha-1"}, on=TODAY).rows
    assert ("unknown", "dataset", "borealis-weights", "terms not known here", "yes") in duties


def test_a_checkpoint_that_nobody_signed_is_a_problem(tmp_path: Path) -> None:
    corpus = owned(write_label_task(tmp_path, pool=12, limit=8)).parent / "corpus"
    done("distill", tmp_path / "task.yaml", "--corpus", corpus, "-q")
    answer = asked(corpus, "q20", checkpoint="99999")[1]
    assert answer.violated
    assert "none of this size was signed" in answer.verdict
    assert corpusgen("audit", "q20", "--checkpoint", "99999", "--check", "--corpus", corpus).code == 4
    assert corpusgen("audit", "q20", "--check", "--corpus", corpus).code == 0


def test_a_student_is_told_whose_labels_were_calibrated_on_a_source(tmp_path: Path) -> None:
    spec, corpus = write_label_task(tmp_path, pool=24, limit=16), tmp_path / "corpus"
    told = yaml.safe_load(spec.read_text("utf-8"))
    told["seeds"]["validation"]["source"] = "val"
    told["sources"].append({**told["sources"][0], "id": "val"})
    spec.write_text(yaml.safe_dump(told), "utf-8")
    done("distill", spec, "--corpus", corpus, "-q")
    found = {row["what"]: row for row in asked(corpus, "q06", source="val")[0]}
    assert found["student"]["remark"] == "retrain or retire: used for calibration"
    ran = corpusgen("erase", "--source", "val", "--dry-run", "--json", "--corpus", corpus)
    assert ran.object["students"] == [found["student"]["name"]]
