"""How far an erasure reaches: what shares a request, what descends, who has learned from it; and no further."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import orjson
import pytest
from choice_samples import exact_teacher, run, write_choices
from command import corpusgen
from erasure_samples import places
from flow_samples import NOON, open_corpus, write_task
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from task_samples import write_label_task
from test_parents import derived_task, rows_of

from corpusgen.corpus import Corpus
from corpusgen.errors import SealRefused, StoreError
from corpusgen.journal import Transaction
from corpusgen.pipeline import Distillation, distill, run_task
from corpusgen.records import Record
from corpusgen.stages.erasure.erasing import erase, foresee
from corpusgen.stages.erasure.reaching import Kind, Selector
from corpusgen.stages.loading import load_task
from corpusgen.stages.sealing import sealed_dataset
from corpusgen.stages.studying import learn_pool
from corpusgen.stages.task import connect
from corpusgen.stages.terms.deciding import decision_for
from corpusgen.stages.training import find_student, train, train_sealed
from corpusgen.stages.verifying import verify
from corpusgen.store.shards import read_records


def records(corpus: Path) -> list[Record]:
    return list(read_records(sorted(corpus.glob("shards/*/*.parquet"))))


def out(corpus: Corpus, kind: Kind, *values: str) -> dict[str, Any]:
    return erase(corpus, Selector(kind=kind, values=values), by="me")


# --- students ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def distilled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a label task and a corpus in which the main job has run."""
    folder = tmp_path_factory.mktemp("distilled")
    with Corpus.open(folder / "corpus") as opened:
        asyncio.run(distill(Distillation(task=load_task(write_label_task(folder)), corpus=opened)))
    return folder


@pytest.fixture
def folder(distilled: Path, tmp_path: Path) -> Path:
    shutil.copytree(distilled, tmp_path / "copy")
    return tmp_path / "copy"


def taught(corpus: Path) -> Record:
    """A record that the student was trained on."""
    return next(iter(read_records([next(corpus.glob("datasets/kinds-1/*.parquet"))])))


def test_students_are_named_and_neither_evaluated_nor_asked_any_more(folder: Path) -> None:
    with Corpus.open(folder / "corpus") as corpus:
        student = find_student(corpus, None).student_id
        report = out(corpus, "record", taught(folder / "corpus").record_id)
        assert report["students"] == [student]
        assert verify(corpus) == []
    for command in (("predict", "an oak"), ("evaluate", folder / "task.yaml", "-q")):
        ran = corpusgen(*command, "--corpus", folder / "corpus")
        assert (ran.code, "weights forget nothing" in ran.stderr) == (6, True)
    again = corpusgen("distill", folder / "task.yaml", "--corpus", folder / "corpus", "--json", "-q")
    assert again.code == 0, again.stderr
    assert corpusgen("predict", "an oak", "--corpus", folder / "corpus").code == 0
    told = corpusgen("status", "--corpus", folder / "corpus").stdout
    assert f"students to retrain or retire: {student}" in told


def test_the_trainer_takes_neither_the_old_name_nor_the_old_manifest_nor_the_old_files(folder: Path) -> None:
    task = load_task(folder / "task.yaml")
    shutil.copytree(folder / "corpus" / "datasets" / "kinds-1", folder / "kept")
    with Corpus.open(folder / "corpus") as corpus:
        old = sealed_dataset(corpus, "kinds-1")
        out(corpus, "record", taught(folder / "corpus").record_id)
        shutil.rmtree(old.folder)
        shutil.copytree(folder / "kept", old.folder)
        with pytest.raises(SealRefused, match="was revoked"):
            train_sealed(corpus, task, "kinds-1")
        decision = decision_for(corpus, task, connect(task, corpus.clock).card, corpus.clock().date())
        space = learn_pool(corpus, task, "", ["a cat", "an oak"])
        for name, version in (("kinds", "1"), ("others", "7")):
            again = type(old)(**{**vars(old), "name": name, "version": version})
            with pytest.raises(SealRefused, match="was revoked"):
                train(corpus, task, again, decision, space, "")
        assert [one.check for one in verify(corpus)] == ["datasets"]


def test_versions_that_are_compared_are_told_to_be_revoked(folder: Path) -> None:
    with Corpus.open(folder / "corpus") as corpus:
        out(corpus, "record", taught(folder / "corpus").record_id)
    ran = corpusgen("diff", "kinds-1", "kinds-1", "--corpus", folder / "corpus")
    assert (ran.code, "kinds-1 was revoked on" in ran.stdout) == (0, True)
    told = corpusgen("diff", "kinds-1", "kinds-1", "--corpus", folder / "corpus", "--json").object
    assert "erasure 1" in told["revoked"]["kinds-1"]


def test_who_only_read_the_pool_is_named_too(folder: Path) -> None:
    with Corpus.open(folder / "corpus") as corpus:
        known = {one.record_id for one in read_records([next((folder / "corpus").glob("datasets/*/*.parquet"))])}
        other = next(one for one in records(folder / "corpus") if one.record_id not in known)
        found = foresee(corpus, Selector(kind="record", values=(other.record_id,)))
    assert found["datasets"] == []
    assert len(found["students"]) == 1


def test_a_source_whose_every_question_goes_leaves_an_empty_corpus_that_still_adds_up(folder: Path) -> None:
    with Corpus.open(folder / "corpus") as corpus:
        before = corpus.journal.query("select * from balances order by 1, 2")
        out(corpus, "source", "ours")
        assert verify(corpus) == []
        assert corpus.journal.query("select * from balances order by 1, 2") == before
        assert corpus.journal.query("select count(*) from shards") == [(0,)]
        assert [path for path in (folder / "corpus").rglob("*.parquet") if "datasets" not in str(path)] == []
    ran = corpusgen("run", folder / "task.yaml", "--corpus", folder / "corpus", "--json", "-q")
    assert (ran.code, "every one of the 40 items was erased" in ran.stderr) == (2, True)
    assert "took out 62 records by source" in corpusgen("status", "--corpus", folder / "corpus").stdout


# --- what shares a request, what descends -----------------------------------------------------------------------------


async def test_answers_that_came_in_one_reply_go_together_and_other_calls_stay(tmp_path: Path) -> None:
    async with exact_teacher() as mock:
        path = write_choices(tmp_path, mock.base_url, ["one", "two"], samples=3, per_call=2)
        await run(path, tmp_path / "corpus")
        asked = mock.bill.requests
        every = records(tmp_path / "corpus")
        first = next(one for one in every if one.source_ids == ("words#w0",) and one.sample_index == 0)
        with open_corpus(tmp_path / "corpus") as corpus:
            assert out(corpus, "record", first.record_id)["records"] == 2
            assert verify(corpus) == []
        left = records(tmp_path / "corpus")
        gone = {(one.source_ids[0], one.sample_index) for one in every} - {
            (one.source_ids[0], one.sample_index) for one in left
        }
        assert gone == {("words#w0", 0), ("words#w0", 1)}
        await run(path, tmp_path / "corpus")
        assert mock.bill.requests == asked  # nor are they bought again; the third sample is still known
    with open_corpus(tmp_path / "corpus") as corpus:
        assert corpus.journal.query("select count(*) from drops where stage = 'erased'") == [(1,)]
    assert {one.record_id for one in records(tmp_path / "corpus")} == {one.record_id for one in left}


def test_what_was_made_from_a_record_goes_with_it(tmp_path: Path) -> None:
    use = {"student_distribution": "internal", "student_competes": "no", "commercial": True}
    task = write_task(tmp_path / "words", items=4, intended_use=use)
    folder = tmp_path / "corpus"
    assert corpusgen("run", task, "--corpus", folder, "-q").code == 0
    parents = records(folder)
    assert corpusgen("run", derived_task(tmp_path / "more", rows_of(parents)), "--corpus", folder, "-q").code == 0
    with Corpus.open(folder) as corpus:
        report = out(corpus, "record", parents[1].record_id)
        assert (report["records"], report["by_task"]) == (2, {"otherwise": 1, "words": 1})
        assert verify(corpus) == []
    assert all(parents[1].record_id not in one.parent_ids for one in records(folder))


def test_shards_written_later_do_not_take_the_place_of_others(tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    for at in (1, 2, 3):  # another prompt is another run and another shard
        task = write_task(tmp_path / "task", items=2 * at)
        prompt = tmp_path / "task" / "prompt.md"
        prompt.write_text(prompt.read_text().replace("something", f"something {at}"))
        assert corpusgen("run", task, "--corpus", folder, "-q").code == 0
        if at == 2:
            first = next(iter(read_records([folder / "shards/words/train-00000.parquet"]))).run_id
            with Corpus.open(folder) as corpus:
                for one in [one for one in records(folder) if one.run_id == first]:
                    out(corpus, "record", one.record_id)
    names = sorted(path.name for path in folder.glob("shards/words/*"))
    assert names == ["train-00001.parquet", "train-00002.parquet"]
    with Corpus.open(folder) as corpus:
        assert verify(corpus) == []


def test_a_failed_call_keeps_its_money_and_loses_its_words(tmp_path: Path) -> None:
    task, folder = write_task(tmp_path / "task", items=3), tmp_path / "corpus"
    assert corpusgen("run", task, "--corpus", folder, "-q").code == 0

    def fail(writing: Transaction) -> None:
        columns = "run_id, request_key, teacher, role, attempt, scopes, owner_id, state, reserved_microusd,"
        columns += " reserved_tokens, reserved_requests, microusd, tokens, requests, price_version, error, reserved_us"
        sql = (
            f"insert into calls({columns}) select run_id, x'00aa', teacher, role, 2, '', owner_id, 'released', 0, 0, 0,"
        )
        writing.execute(f"{sql} 0, 0, 0, '', 'RequestRefused: word 0001 is odd', reserved_us from calls limit 1")

    with open_corpus(folder) as corpus:
        corpus.journal.run_now(fail)
        out(corpus, "source", "words#w0001")
        rows = corpus.journal.query("select error, length(request_key) from calls where state = 'released'")
    assert rows == [("RequestRefused", 32)]


def test_what_a_pool_was_sieved_by_is_forgotten_and_the_erased_is_not_sieved_again(tmp_path: Path) -> None:
    task = write_task(tmp_path / "task", items=4, curate={"near": {"threshold": 0.9}})
    folder = tmp_path / "corpus"
    assert corpusgen("run", task, "--corpus", folder, "-q").code == 0
    with open_corpus(folder) as corpus:
        assert corpus.journal.query("select count(*) from sieved") == [(4,)]
        assert out(corpus, "source", "words#w0001")["records"] == 1
        assert corpus.journal.query("select count(*) from sieved") == [(0,)]
    again = corpusgen("run", task, "--corpus", folder, "-q", "--json")
    assert (again.code, again.object["requests"], again.object["records"]) == (0, 0, 3)
    with open_corpus(folder) as corpus:
        assert corpus.journal.query("select count(*) from sieved") == [(3,)]
        assert verify(corpus) == []


def test_a_source_that_was_only_looked_at_leaves_no_note(tmp_path: Path) -> None:
    task, folder = write_task(tmp_path / "task", items=4, distinct=2), tmp_path / "corpus"
    assert corpusgen("run", task, "--corpus", folder, "-q").code == 0
    with open_corpus(folder) as corpus:
        assert out(corpus, "source", "words")["texts"] == 2  # what repeats was never asked about
        assert out(corpus, "source", "words")["erasure_id"] is None
        assert corpus.journal.query("select count(*) from drops") == [(0,)]


def test_a_version_that_is_only_selected_is_revoked_where_it_lies(tmp_path: Path) -> None:
    task, folder = write_task(tmp_path / "task", items=3), tmp_path / "corpus"
    assert corpusgen("run", task, "--corpus", folder, "-q").code == 0
    assert corpusgen("select", "words", "--corpus", folder).code == 0
    with open_corpus(folder) as corpus:
        assert out(corpus, "subject", "word 0001")["datasets"] == ["words-1"]
        assert verify(corpus) == []
    assert sorted(path.name for path in (folder / "datasets").iterdir()) == [".words-1"]
    assert corpusgen("seal", "words-1", "--spec", task, "--corpus", folder).code == 6
    made = corpusgen("select", "words", "--corpus", folder, "--json").object
    assert (made["dataset"], made["rows"]) == ("words-2", 2)


def test_rounds_of_asking_forget_what_they_chose(tmp_path: Path) -> None:
    task, folder = write_task(tmp_path / "task", items=3), tmp_path / "corpus"
    assert corpusgen("run", task, "--corpus", folder, "-q").code == 0
    with open_corpus(folder) as corpus:
        corpus.journal.run_now(
            lambda writing: writing.execute(
                "insert into decisions(run_id, stage, subject, outcome, decision, decided_us)"
                """ select run_id, 'ask', 'round 1', 'asked', '{"items":["w0000","w0001"]}', 0 from runs"""
            ).close()
        )
        out(corpus, "source", "words#w0001")
        rows = corpus.journal.query("select decision from decisions where subject = 'round 1'")
    assert rows == [('{"items":["w0000","(erased)"]}',)]


def test_what_is_in_a_batch_is_not_erased_before_it_has_ended(tmp_path: Path) -> None:
    task, folder = write_task(tmp_path / "task", items=3), tmp_path / "corpus"
    assert corpusgen("run", task, "--corpus", folder, "-q").code == 0
    with open_corpus(folder) as corpus:
        corpus.journal.run_now(
            lambda writing: writing.execute(
                "update calls set state = 'promised', batch_id = 'b1' where request_key ="
                " (select request_key from records where item_id = 'w0001')"
            ).close()
        )
        with pytest.raises(StoreError, match="is being asked in batch b1"):
            out(corpus, "source", "words#w0001")


def test_specs_that_hold_it_are_told_and_files_of_others_stay(tmp_path: Path) -> None:
    task = write_task(tmp_path / "task", items=3, description="Words for Zebulon Quackenbush, word 0001")
    folder = tmp_path / "corpus"
    assert corpusgen("run", task, "--corpus", folder, "-q").code == 0
    (folder / "notes.txt").write_text("about other things")
    with open_corpus(folder) as corpus:
        report = out(corpus, "subject", "Word   0001")
    assert [one["where"] for one in report["kept"]] == ["runs.spec", "seed file words.jsonl"]
    assert (report["records"], (folder / "notes.txt").exists()) == (1, True)


# --- any corpus -------------------------------------------------------------------------------------------------------

NAMES = ("Zebulon Quackenbush", "Ottoline Featherstone")


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(marked=st.lists(st.sampled_from(["", *NAMES]), min_size=1, max_size=7))
def test_any_corpus_loses_just_what_holds_it(marked: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tmp_path_factory.mktemp("any")
    task = write_task(root, items=len(marked))
    rows = [{"id": f"w{at}", "word": f"text {at} {name}"} for at, name in enumerate(marked)]
    (root / "words.jsonl").write_bytes(b"\n".join(map(orjson.dumps, rows)))
    with open_corpus(root / "corpus") as corpus:
        asyncio.run(run_task(load_task(task), corpus, opened=[]))
        before = {one.record_id: one for one in records(root / "corpus")}
        balances = corpus.journal.query("select * from balances order by 1, 2")
        report = out(corpus, "subject", NAMES[0])
        assert report["records"] == marked.count(NAMES[0])
        assert verify(corpus) == []
        assert corpus.journal.query("select * from balances order by 1, 2") == balances
    left = {one.record_id: one for one in records(root / "corpus")}
    assert left == {name: one for name, one in before.items() if NAMES[0] not in one.input}
    assert places(root / "corpus", NAMES[0]) == []
    assert bool(places(root / "corpus", NAMES[1])) == (NAMES[1] in marked)
    assert corpus.clock() == NOON
