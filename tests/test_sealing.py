from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import duckdb
import pytest
from rights_samples import PROHIBITED, write_terms
from task_samples import write_label_task

from corpusgen.corpus import Corpus
from corpusgen.errors import CorpusDamaged, PolicyRefused, SealRefused, UsageError
from corpusgen.pipeline import run_task
from corpusgen.provenance.policy import Decision
from corpusgen.stages.loading import load_task
from corpusgen.stages.sealing import Sealed, seal, sealed_dataset
from corpusgen.stages.selecting import Filters, Selection, data_file, find_selection, select, selections
from corpusgen.stages.task import Task, connect
from corpusgen.stages.terms.deciding import decision_for
from corpusgen.stages.training import find_student, train_sealed
from corpusgen.store.shards import read_records, write_shard

DATA_FILE = data_file("train")


@pytest.fixture
def corpus(tmp_path: Path) -> Iterator[Corpus]:
    with Corpus.open(tmp_path / "corpus") as opened:
        yield opened


@pytest.fixture
def task(tmp_path: Path, corpus: Corpus) -> Task:
    """A task whose pool has been asked about."""
    loaded = load_task(write_label_task(tmp_path))
    asyncio.run(run_task(loaded, corpus, opened=[]))
    return loaded


def decision(task: Task, corpus: Corpus) -> Decision:
    return decision_for(corpus, task, connect(task, corpus.clock).card, corpus.clock().date())


def selected(corpus: Corpus, limit: int | None = None) -> Selection:
    return select(corpus, "kinds", filters=Filters(limit=limit))


def sealed(task: Task, corpus: Corpus) -> Sealed:
    return seal(corpus, task, selected(corpus), decision(task, corpus))


def test_a_sealed_folder_holds_its_data_and_its_card_and_nothing_else(task: Task, corpus: Corpus) -> None:
    made = sealed(task, corpus)
    assert sorted(path.name for path in made.folder.iterdir()) == ["README.md", DATA_FILE]
    assert made.folder == corpus.folder / "datasets" / "kinds-1"
    assert "CC0-1.0" in (made.folder / "README.md").read_text("utf-8")
    assert not [path for path in (corpus.folder / "datasets").iterdir() if path.name.startswith(".")]


def test_any_reader_opens_it_with_a_glob(task: Task, corpus: Corpus) -> None:
    made = sealed(task, corpus)
    with duckdb.connect() as database:
        rows = database.execute(
            f"select calibrated_label, count(*) from '{made.folder}/*.parquet' group by 1"
        ).fetchall()
    assert {label for label, _ in rows} == {"animal", "plant"}
    assert sum(count for _, count in rows) == 30


def test_sealing_twice_is_the_same(task: Task, corpus: Corpus) -> None:
    first, second = sealed(task, corpus), sealed(task, corpus)
    assert first == second
    assert [one.label for one in selections(corpus)] == ["kinds-1"]


def test_another_choice_is_another_version(task: Task, corpus: Corpus) -> None:
    sealed(task, corpus)
    assert seal(corpus, task, selected(corpus, limit=5), decision(task, corpus)).label == "kinds-2"
    assert sealed_dataset(corpus, "kinds").label == "kinds-2"
    assert sealed_dataset(corpus, "kinds-1").rows == 30


def test_a_process_killed_while_sealing_can_seal_again(task: Task, corpus: Corpus) -> None:
    chosen = selected(corpus)
    chosen.folder.rename(corpus.folder / "datasets" / chosen.label)  # published, and killed before it was noted
    made = sealed(task, corpus)
    assert made.rows == 30
    assert sealed_dataset(corpus, "kinds") == made


@pytest.mark.parametrize("column", ["source_ids", "request_keys", "licence_expression", "terms_set_id", "teacher"])
def test_a_record_without_provenance_cannot_be_sealed(task: Task, corpus: Corpus, column: str) -> None:
    chosen = selected(corpus)
    records = list(read_records([chosen.folder / DATA_FILE]))
    nothing: object = () if isinstance(getattr(records[0], column), tuple) else ""
    records[3] = replace(records[3], **{column: nothing})  # type: ignore[arg-type] # the column's own kind of nothing
    forge(corpus, chosen, write_shard(chosen.folder, DATA_FILE, records))
    with pytest.raises(SealRefused, match=f"provenance is incomplete:\nrecord {records[3].record_id}"):
        seal(corpus, task, chosen, decision(task, corpus))
    assert find_selection(corpus, "kinds").status == "selected"
    assert not (corpus.folder / "datasets" / "kinds-1").exists()


def forge(corpus: Corpus, chosen: Selection, file: object) -> None:
    """Make the journal believe that a version always held other bytes."""
    fields = {name: getattr(file, name) for name in ("name", "rows", "sha256", "size_bytes")}
    corpus.journal.run_now(
        lambda transaction: transaction.execute(
            "update datasets set manifest = json_set(manifest, '$.files.train', json(?))"
            " where name = ? and version = ?",
            (json.dumps(fields), chosen.name, chosen.version),
        )
    )


def prohibit(corpus: Corpus) -> None:
    """Let the corpus have terms that changed for the worse."""
    mock = {"kind": "own", "routes": ["mock"], "hosts": [], "models": ["*"]}
    write_terms(corpus.folder / "terms.yaml", PROHIBITED | mock)


def test_changed_terms_stop_sealing_and_training(task: Task, corpus: Corpus) -> None:
    made, chosen = sealed(task, corpus), selected(corpus)
    prohibit(corpus)
    with pytest.raises(PolicyRefused, match=r"task\.yaml:\d+"):
        seal(corpus, task, chosen, decision(task, corpus))
    with pytest.raises(PolicyRefused):
        train_sealed(corpus, task, made.label)


def test_a_flipped_bit_is_found_before_and_after_sealing(task: Task, corpus: Corpus) -> None:
    made = sealed(task, corpus)
    flip(made.file())
    with pytest.raises(CorpusDamaged, match=DATA_FILE):
        sealed_dataset(corpus, "kinds")
    with pytest.raises(CorpusDamaged):
        train_sealed(corpus, task, "kinds")
    chosen = selected(corpus, limit=7)
    flip(chosen.folder / DATA_FILE)
    with pytest.raises(CorpusDamaged):
        seal(corpus, task, chosen, decision(task, corpus))


def flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


def test_a_student_learns_from_sealed_datasets_only(task: Task, corpus: Corpus) -> None:
    selected(corpus)
    with pytest.raises(SealRefused, match="kinds-1 is selected; seal it first: corpusgen seal kinds-1"):
        train_sealed(corpus, task, "kinds")
    with pytest.raises(UsageError, match=r"no dataset 'other'.*there are: kinds-1"):
        train_sealed(corpus, task, "other")


def test_a_process_killed_while_training_can_train_again(task: Task, corpus: Corpus) -> None:
    sealed(task, corpus)
    made = train_sealed(corpus, task, "kinds")
    corpus.journal.run_now(lambda transaction: transaction.execute("delete from students"))  # killed before the note
    assert train_sealed(corpus, task, "kinds").facts == made.facts
    assert find_student(corpus, None).student_id == made.student_id


def test_the_card_counts_each_record_of_a_source_once(task: Task, corpus: Corpus) -> None:
    card = (sealed(task, corpus).folder / "README.md").read_text("utf-8")
    assert "| ours | Written for the tests | CC0-1.0 |  | 30 |" in card
