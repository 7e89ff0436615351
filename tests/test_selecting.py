"""Which records a dataset is made of, whoever paid for them."""

from __future__ import annotations

from pathlib import Path

from command import corpusgen
from flow_samples import write_task


def test_records_that_a_run_found_there_are_its_own_too(tmp_path: Path) -> None:
    here = ("--corpus", tmp_path / "corpus", "--json")
    first = corpusgen("run", write_task(tmp_path / "first", items=10), *here, "-q").object["run_id"]
    second = corpusgen("run", write_task(tmp_path / "second", items=14), *here, "-q").object
    assert (second["known"], second["requests"]) == (10, 4)
    assert corpusgen("select", "words", "--run", first, *here).object["rows"] == 10
    assert corpusgen("select", "words", "--run", second["run_id"], *here).object["rows"] == 14
    assert corpusgen("run", tmp_path / "second" / "task.yaml", *here, "-q").object["requests"] == 0
    assert corpusgen("verify", *here).code == 0


def test_a_task_under_another_name_has_a_dataset_of_what_is_known(tmp_path: Path) -> None:
    here = ("--corpus", tmp_path / "corpus", "--json")
    corpusgen("run", write_task(tmp_path / "first", items=10), *here, "-q")
    other = corpusgen("run", write_task(tmp_path / "other", items=6, name="others"), *here, "-q").object
    assert other["requests"] == 0
    assert corpusgen("select", "others", *here).object["rows"] == 6
    assert corpusgen("select", "words", *here).object["rows"] == 10
    assert corpusgen("select", "others", "--run", other["run_id"], *here).object["dataset"] == "others-2"


def test_an_answer_without_words_is_kept_and_left_out_of_datasets(tmp_path: Path) -> None:
    here = ("--corpus", tmp_path / "corpus", "--json")
    task = write_task(tmp_path / "task", items=6)
    empty = "answers: [{contains: word 0003, text: ' '}]\ndefault: {text: hello, finish_reason: abort}\n"
    (tmp_path / "task" / "script.yaml").write_text(empty)
    assert corpusgen("run", task, *here, "-q").object["records"] == 6
    rows = corpusgen("query", "select finish_reason, count(*) as many from records group by 1 order by 1", *here).object
    assert [tuple(row.values()) for row in rows["rows"]] == [("other", 5), ("stop", 1)]
    assert corpusgen("select", "words", *here).object["rows"] == 5
    assert corpusgen("run", task, *here, "-q").object["requests"] == 0
