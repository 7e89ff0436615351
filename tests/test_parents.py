"""Seeds made from records of the corpus: what they descend from stays with whatever is made of them."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from choice_samples import exact_teacher, write_choices
from choice_samples import run as run_choices
from command import Ran, corpusgen
from flow_samples import write_task
from import_samples import bring_in, records_of, write_jsonl
from task_samples import write_label_task

from corpusgen.corpus import Corpus
from corpusgen.records import Record
from corpusgen.stages.verifying import verify

USE = {"student_distribution": "internal", "student_competes": "no", "commercial": True}


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A corpus with four answers of the task ``words``."""
    task = write_task(tmp_path / "words", items=4, intended_use=USE)
    assert corpusgen("run", task, "--corpus", tmp_path / "corpus", "-q").code == 0
    return tmp_path / "corpus"


def derived_task(folder: Path, rows: list[dict[str, Any]], *, kind: str = "jsonl", **changes: Any) -> Path:
    """A task that says otherwise what records of the corpus say; ``rows`` name them in ``made_of``."""
    task = write_task(folder, items=len(rows), name="otherwise", intended_use=USE, answers_as="paraphrase", **changes)
    file = folder / f"seeds.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), file)
    elif kind == "csv":
        with file.open("w", newline="") as out:
            writer = csv.DictWriter(out, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        file.write_bytes(b"\n".join(map(orjson.dumps, rows)))
    spec = yaml.safe_load(task.read_text())
    spec["seeds"]["train"] = {"path": file.name, "source": "words", "parent": "made_of"}
    task.write_text(yaml.safe_dump(spec))
    return task


def rows_of(records: list[Record]) -> list[dict[str, Any]]:
    return [{"id": f"p{at}", "word": f"text {at}", "made_of": one.record_id} for at, one in enumerate(records)]


def run(task: Path, corpus: Path) -> Ran:
    return corpusgen("run", task, "--corpus", corpus, "-q")


def parents(corpus: Path, dataset: str = "otherwise") -> dict[str, tuple[str, ...]]:
    return {record.input: record.parent_ids for record in records_of(corpus, dataset)}


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_a_record_names_the_record_its_seed_was_made_from(corpus: Path, tmp_path: Path, kind: str) -> None:
    rows = rows_of(records_of(corpus))
    assert run(derived_task(tmp_path / "task", rows, kind=kind), corpus).code == 0
    assert parents(corpus) == {row["word"]: (row["made_of"],) for row in rows}
    assert {record.source_ids[0] for record in records_of(corpus, "otherwise")} == {f"words#p{at}" for at in range(4)}
    with Corpus.open(corpus, reading=True) as opened:
        assert verify(opened) == []


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_several_parents_stand_in_a_list(corpus: Path, tmp_path: Path, kind: str) -> None:
    names = [record.record_id for record in records_of(corpus)]
    made_of: Any = orjson.dumps(names[:3]).decode() if kind == "csv" else names[:3]
    assert (
        run(derived_task(tmp_path / "task", [{"id": "a", "word": "all", "made_of": made_of}], kind=kind), corpus).code
        == 0
    )
    assert parents(corpus) == {"all": tuple(names[:3])}


def test_an_empty_list_says_that_a_row_was_made_from_no_record(corpus: Path, tmp_path: Path) -> None:
    rows = [{"id": "a", "word": "new", "made_of": []}, *rows_of(records_of(corpus))[:1]]
    assert run(derived_task(tmp_path / "task", rows), corpus).code == 0
    assert sorted(map(len, parents(corpus).values())) == [0, 1]


@pytest.mark.parametrize("command", ["plan", "run"])
def test_a_parent_that_is_no_record_is_refused_with_file_and_row(corpus: Path, tmp_path: Path, command: str) -> None:
    rows = [*rows_of(records_of(corpus))[:1], {"id": "x", "word": "strange", "made_of": "ab" * 32}]
    ran = corpusgen(command, derived_task(tmp_path / "task", rows), "--corpus", corpus)
    assert ran.code == 2
    assert "seeds.jsonl:2: made_of: row 2 names the parent abab" in ran.stderr
    assert "is no record of this corpus" in ran.stderr
    assert records_of(corpus, "otherwise") == []


@pytest.mark.parametrize("made_of", [None, "", "short", "AB" * 32, 7, ["x"], {"a": 1}])
def test_what_is_no_id_of_a_record_is_refused(corpus: Path, tmp_path: Path, made_of: Any) -> None:
    ran = run(derived_task(tmp_path / "task", [{"id": "a", "word": "b", "made_of": made_of}]), corpus)
    assert (ran.code, "64 hex digits" in ran.stderr) == (2, True)


def test_shards_from_memory_and_from_the_journal_have_the_same_bytes(corpus: Path, tmp_path: Path) -> None:
    assert run(derived_task(tmp_path / "task", rows_of(records_of(corpus))), corpus).code == 0
    (shard,) = (corpus / "shards" / "otherwise").glob("*.parquet")
    good = shard.read_bytes()
    shard.unlink()
    assert corpusgen("verify", "--repair", "--corpus", corpus).code == 0
    assert shard.read_bytes() == good


def test_every_sample_has_the_parents_and_a_second_start_asks_nothing(corpus: Path, tmp_path: Path) -> None:
    task = derived_task(tmp_path / "task", rows_of(records_of(corpus)), asking={"samples": 3})
    assert corpusgen("run", task, "--corpus", corpus, "--json", "-q").object["requests"] == 12
    assert corpusgen("run", task, "--corpus", corpus, "--json", "-q").object["requests"] == 0
    assert [len(record.parent_ids) for record in records_of(corpus, "otherwise")] == [1] * 12


def test_the_same_question_about_another_parent_is_another_record_and_no_other_answer(
    corpus: Path, tmp_path: Path
) -> None:
    first, second = (one.record_id for one in records_of(corpus)[:2])
    task = derived_task(tmp_path / "task", [{"id": "a", "word": "same", "made_of": first}])
    assert corpusgen("run", task, "--corpus", corpus, "--json", "-q").object["requests"] == 1
    derived_task(tmp_path / "task", [{"id": "a", "word": "same", "made_of": second}])
    assert corpusgen("run", task, "--corpus", corpus, "--json", "-q").object["requests"] == 0
    assert {record.parent_ids for record in records_of(corpus, "otherwise")} == {(first,), (second,)}


def test_a_pool_in_random_order_keeps_the_parents(corpus: Path, tmp_path: Path) -> None:
    rows = rows_of(records_of(corpus))
    assert run(derived_task(tmp_path / "task", rows, asking={"order": "random"}), corpus).code == 0
    assert parents(corpus) == {row["word"]: (row["made_of"],) for row in rows}


def test_licences_of_parents_bind_what_is_made_from_them(corpus: Path, tmp_path: Path) -> None:
    outside = write_jsonl(tmp_path / "rows.jsonl", [{"input": "a", "response": "b"}])
    bring_in(corpus, outside, licence="CC-BY-NC-4.0", dataset="outside")
    task = derived_task(tmp_path / "task", rows_of(records_of(corpus, "outside")))
    ran = corpusgen("plan", task, "--corpus", corpus)
    assert (ran.code, "R10" in ran.stdout + ran.stderr) == (4, True)
    ran = run(task, corpus)
    assert (ran.code, "CC-BY-NC-4.0 is non-commercial" in ran.stderr) == (4, True)
    assert records_of(corpus, "otherwise") == []


def test_what_is_made_from_records_is_sealed_with_their_licences_sources_and_duties(
    corpus: Path, tmp_path: Path
) -> None:
    outside = write_jsonl(tmp_path / "rows.jsonl", [{"input": "a", "response": "b"}])
    bring_in(corpus, outside, dataset="outside", title="The outside world")
    task = derived_task(tmp_path / "task", rows_of(records_of(corpus, "outside")))
    assert run(task, corpus).code == 0
    (record,) = records_of(corpus, "otherwise")
    assert record.licence_expression == "CC-BY-4.0 AND CC0-1.0"
    corpusgen("select", "otherwise", "--spec", task, "--corpus", corpus)
    ran = corpusgen("seal", "otherwise", "--spec", task, "--corpus", corpus, "--json")
    assert ran.code == 0, ran.stderr
    card = (Path(ran.object["folder"]) / "README.md").read_text()
    assert "The outside world" in card
    assert "credit source outside" in card


def test_parents_of_parents_count(corpus: Path, tmp_path: Path) -> None:
    outside = write_jsonl(tmp_path / "rows.jsonl", [{"input": "a", "response": "b"}])
    bring_in(corpus, outside, licence="CC-BY-SA-4.0", dataset="outside")
    use = USE | {"accepted_duties": ["share_alike"]}
    first = derived_task(tmp_path / "first", rows_of(records_of(corpus, "outside")))
    spec = yaml.safe_load(first.read_text()) | {"intended_use": use}
    first.write_text(yaml.safe_dump(spec))
    assert run(first, corpus).code == 0
    second = derived_task(tmp_path / "second", rows_of(records_of(corpus, "otherwise")))
    spec = yaml.safe_load(second.read_text()) | {"name": "again"}
    second.write_text(yaml.safe_dump(spec))
    ran = run(second, corpus)
    assert (ran.code, "share_alike is not among accepted_duties" in ran.stderr) == (4, True)


def test_a_query_makes_the_seed_file_and_one_column_may_be_id_and_parent(corpus: Path, tmp_path: Path) -> None:
    sql = "select record_id, response || record_id as word from records where task = 'words' order by 1"
    lines = corpusgen("query", sql, "--format", "jsonl", "--corpus", corpus)
    assert lines.code == 0, lines.stderr
    task = derived_task(tmp_path / "task", [{"id": "a", "word": "b", "made_of": []}], asking={"limit": 9})
    spec = yaml.safe_load(task.read_text())
    spec["seeds"]["train"] |= {"id": "record_id", "parent": "record_id"}
    task.write_text(yaml.safe_dump(spec))
    (tmp_path / "task" / "seeds.jsonl").write_text(lines.stdout)
    assert run(task, corpus).code == 0
    names = {record.record_id for record in records_of(corpus)}
    assert {parent for found in parents(corpus).values() for parent in found} == names


async def test_several_answers_to_a_call_have_the_parents_each(corpus: Path, tmp_path: Path) -> None:
    rows = rows_of(records_of(corpus))
    async with exact_teacher() as mock:
        words = [row["word"] for row in rows]
        of_two: dict[str, Any] = {"samples": 2, "per_call": 2, "name": "otherwise", "intended_use": USE}
        task = write_choices(tmp_path / "task", mock.base_url, words, **of_two)
        write_jsonl(task.parent / "words.jsonl", rows)
        spec = yaml.safe_load(task.read_text())
        spec["seeds"]["train"]["parent"] = "made_of"
        task.write_text(yaml.safe_dump(spec))
        await run_choices(task, corpus)
        assert mock.bill.requests == 4
    found = sorted((record.input, record.parent_ids) for record in records_of(corpus, "otherwise"))
    assert found == sorted((row["word"], (row["made_of"],)) for row in rows for _ in range(2))


def test_records_that_worked_examples_were_made_from_are_parents_too(corpus: Path, tmp_path: Path) -> None:
    first, second = (one.record_id for one in records_of(corpus)[:2])
    task = derived_task(tmp_path / "task", [{"id": "a", "word": "new", "made_of": first}])
    (task.parent / "shown.jsonl").write_bytes(
        orjson.dumps({"id": "e", "word": "shown", "made_of": second, "said": "so"})
    )
    spec = yaml.safe_load(task.read_text())
    spec["examples"] = {"path": "shown.jsonl", "source": "words", "parent": "made_of", "gold": "said"}
    task.write_text(yaml.safe_dump(spec))
    text = "---\nname: words\nlicence: Apache-2.0\napi: chat\ninputs: [word]\nexample: |\n  {word} {answer}\n---\n"
    (task.parent / "prompt.md").write_text(text + "user:\n{examples}\nSay {word}.\n")
    ran = run(task, corpus)
    assert ran.code == 0, ran.stderr
    assert parents(corpus) == {"new": (first, second)}


def test_a_label_task_over_records_names_them(corpus: Path, tmp_path: Path) -> None:
    task = write_label_task(tmp_path / "labels")
    pool = task.parent / "pool.jsonl"
    name = records_of(corpus)[0].record_id
    rows = [orjson.loads(line) | {"made_of": name} for line in pool.read_bytes().splitlines()]
    pool.write_bytes(b"\n".join(map(orjson.dumps, rows)))
    spec = yaml.safe_load(task.read_text())
    spec["seeds"]["train"]["parent"] = "made_of"
    task.write_text(yaml.safe_dump(spec))
    assert run(task, corpus).code == 0
    assert {record.parent_ids for record in records_of(corpus, "kinds")} == {(name,)}


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize("command", ["plan", "run"])
def test_a_seed_that_is_called_as_a_record_and_names_no_parent_is_refused(
    corpus: Path, tmp_path: Path, command: str, kind: str
) -> None:
    rows = [{"id": "own", "word": "w"}, *({"id": r.record_id, "word": r.response} for r in records_of(corpus)[:2])]
    task = derived_task(tmp_path / "task", rows, kind=kind)
    spec = yaml.safe_load(task.read_text())
    del spec["seeds"]["train"]["parent"]
    task.write_text(yaml.safe_dump(spec))
    ran = corpusgen(command, task, "--corpus", corpus)
    where = f"seeds.{kind}: id: " if kind == "parquet" else f"seeds.{kind}:{2 if kind == 'jsonl' else 3}: id: "
    assert ran.code == 2
    assert f"{where}row 2 has the id of a record of this corpus, {rows[1]['id']}" in ran.stderr, ran.stderr
    assert "name the column under parent (parent: id)" in ran.stderr
    assert records_of(corpus, "otherwise") == []


@pytest.mark.parametrize("write", [str, str.upper, lambda name: "".join(f"\\u{ord(one):04x}" for one in name)])
def test_no_other_writing_of_an_id_hides_it_and_other_digests_are_ids_as_any(
    corpus: Path, tmp_path: Path, write: Any
) -> None:
    name = records_of(corpus)[0].record_id
    task = derived_task(tmp_path / "task", [{"id": "ab" * 32, "word": "w", "made_of": []}])
    assert run(task, corpus).code == 0
    file = tmp_path / "task" / "seeds.jsonl"
    file.write_text(file.read_text() + f'\n{{"id": "{write(name)}", "word": "x", "made_of": []}}\n')
    ran = run(task, corpus)
    assert (ran.code, "seeds.jsonl:2: made_of: row 2 has the id of a record" in ran.stderr) == (2, True), ran.stderr
