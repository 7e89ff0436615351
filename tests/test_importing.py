"""Rows from outside become records with their licence; nobody is asked and nothing is paid."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import orjson
import pytest
from command import corpusgen
from flow_samples import write_task
from hypothesis import given, settings
from hypothesis import strategies as st
from import_samples import ROWS, WRITERS, bring_in, records_of, write_csv, write_jsonl, write_parquet
from task_samples import WORDS, write_label_task

from corpusgen.cli.importing import import_
from corpusgen.corpus import Corpus
from corpusgen.errors import OutsideFileError, UsageError
from corpusgen.records import Message
from corpusgen.spec import Source
from corpusgen.stages.imports.admitting import Outside, look_through
from corpusgen.stages.imports.importing import import_files
from corpusgen.stages.imports.outside import OutsideRow, columns_of, parse_columns, rows_of
from corpusgen.stages.verifying import verify


def pairs(corpus: Path, **where: str) -> set[tuple[str, str]]:
    return {(record.input, record.response) for record in records_of(corpus, **where)}


def sound(corpus: Path) -> bool:
    with Corpus.open(corpus, reading=True) as opened:
        return verify(opened) == []


@pytest.mark.parametrize("kind", WRITERS)
def test_rows_come_back_as_they_were_whatever_the_file(kind: str, tmp_path: Path) -> None:
    file = WRITERS[kind](tmp_path / f"rows.{kind}")
    (told,) = bring_in(tmp_path / "corpus", file).object["imports"]
    assert (told["added"], told["rows"], told["skipped"]) == (3, 3, 0)
    assert pairs(tmp_path / "corpus") == {(row["prompt"], row["completion"]) for row in ROWS}
    assert sound(tmp_path / "corpus")


def test_a_record_from_outside_names_its_source_and_says_that_nobody_was_paid(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "rows.jsonl", [{"id": "q7", "input": "Why?", "response": "Because."}])
    (told,) = bring_in(tmp_path / "corpus", file).object["imports"]
    (record,) = records_of(tmp_path / "corpus")
    assert (record.teacher, record.route, record.teacher_role) == (told["teacher"], "imported", None)
    assert (record.cost_microusd, record.input_tokens, record.output_tokens, record.from_cache) == (0, 0, 0, False)
    assert (record.licence_expression, record.outputs_train) == ("CC-BY-4.0", "allowed")
    assert record.source_ids == ("outside#q7",)
    assert record.messages == (Message(role="user", content="Why?"),)
    with Corpus.open(tmp_path / "corpus", reading=True) as corpus:
        assert corpus.journal.query("select count(*) from calls") == [(0,)]
        (facts,) = [orjson.loads(row[0]) for row in corpus.journal.query("select facts from imports")]
    assert {
        "import_id",
        "dataset",
        "source",
        "file",
        "sha256",
        "rows",
        "columns",
        "imported_time",
        "by",
    } <= facts.keys()
    assert (facts["source"]["licence"], facts["rows"], facts["file"]) == ("CC-BY-4.0", 1, "rows.jsonl")


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_conversations_keep_their_turns(kind: str, tmp_path: Path) -> None:
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi."},
        {"role": "user", "content": "And?"},
        {"role": "assistant", "content": "Bye."},
    ]
    file = WRITERS[kind](tmp_path / f"chats.{kind}", [{"messages": turns}])
    assert bring_in(tmp_path / "corpus", file).code == 0
    (record,) = records_of(tmp_path / "corpus")
    assert [(turn.role, turn.content) for turn in record.messages] == [
        (one["role"], one["content"]) for one in turns[:4]
    ]
    assert (record.input, record.response) == ("user: Hello\n\nassistant: Hi.\n\nuser: And?", "Bye.")


def test_conversational_prompts_and_completions_are_read_with_what_was_thought(tmp_path: Path) -> None:
    row = {
        "prompt": [{"role": "user", "content": "2+2?"}],
        "completion": [{"role": "assistant", "content": "4", "reasoning_content": "two and two"}],
    }
    assert bring_in(tmp_path / "corpus", write_jsonl(tmp_path / "rows.jsonl", [row])).code == 0
    (record,) = records_of(tmp_path / "corpus")
    assert (record.input, record.response, record.reasoning, record.trace_kind) == ("2+2?", "4", "two and two", "raw")


def test_our_own_chat_export_comes_in_again(tmp_path: Path) -> None:
    task, corpus = write_task(tmp_path / "task", items=4), tmp_path / "corpus"
    corpusgen("run", task, "--corpus", corpus, "-q")
    corpusgen("select", "words", "--corpus", corpus)
    corpusgen("seal", "words-1", "--spec", task, "--corpus", corpus)
    for kind in ("jsonl", "parquet"):
        out = tmp_path / f"out.{kind}"
        assert corpusgen("export", "words-1", out, "--to", "chat", "--corpus", corpus).code == 0
        ran = bring_in(tmp_path / kind, out, licence="LicenseRef-Own")
        assert (ran.code, "says licence_expression 'CC0-1.0'" in ran.stderr) == (4, True), ran.stderr
        assert bring_in(tmp_path / kind, out, licence="CC0-1.0").code == 0
        said = [{(one.messages, one.response) for one in records_of(folder)} for folder in (tmp_path / kind, corpus)]
        assert said[0] == said[1]


def test_labels_are_labels(tmp_path: Path) -> None:
    rows = [{"text": "cat", "label": "animal"}, {"text": "oak", "label": "plant"}, {"text": "dog", "label": "animal"}]
    (told,) = bring_in(tmp_path / "corpus", write_csv(tmp_path / "rows.csv", rows)).object["imports"]
    assert (told["kind"], told["labels"]) == ("label", ["animal", "plant"])
    assert {(one.input, one.label, one.kind) for one in records_of(tmp_path / "corpus")} == {
        (row["text"], row["label"], "label") for row in rows
    }
    made = corpusgen("select", "words", "--corpus", tmp_path / "corpus", "--json").object
    assert (made["rows"], made["status"]) == (3, "selected")


def test_named_columns_count_and_the_others_stay_outside(tmp_path: Path) -> None:
    rows = [{"key": 7, "q": "Why?", "a": "Because.", "why": "I said so", "secret": "password"}]
    file = write_parquet(tmp_path / "rows.parquet", rows)
    assert bring_in(tmp_path / "corpus", file, columns="id=key,input=q,response=a,reasoning=why").code == 0
    (record,) = records_of(tmp_path / "corpus")
    assert (record.input, record.response, record.reasoning) == ("Why?", "Because.", "I said so")
    assert record.source_ids == ("outside#7",)
    assert b"password" not in (tmp_path / "corpus" / "journal.sqlite").read_bytes()


def test_the_same_file_again_adds_nothing_and_is_no_event(tmp_path: Path) -> None:
    file, corpus = write_jsonl(tmp_path / "rows.jsonl"), tmp_path / "corpus"
    bring_in(corpus, file)
    before = {path: path.read_bytes() for path in (corpus / "shards").rglob("*.parquet")}
    (again,) = bring_in(corpus, file).object["imports"]
    assert (again["added"], again["rows"]) == (0, 3)
    assert {path: path.read_bytes() for path in (corpus / "shards").rglob("*.parquet")} == before
    with Corpus.open(corpus, reading=True) as opened:
        assert opened.journal.query("select kind, count(*) from events where kind = 'imported' group by 1") == [
            ("imported", 1)
        ]


def test_the_first_rows_and_then_all_of_them_are_each_there_once(tmp_path: Path) -> None:
    file, corpus = write_jsonl(tmp_path / "rows.jsonl"), tmp_path / "corpus"
    (first,) = bring_in(corpus, file, limit=1).object["imports"]
    (rest,) = bring_in(corpus, file).object["imports"]
    assert (first["added"], rest["added"], len(records_of(corpus))) == (1, 2, 3)
    assert sound(corpus)


def test_the_same_file_under_another_licence_is_refused(tmp_path: Path) -> None:
    file, corpus = write_jsonl(tmp_path / "rows.jsonl"), tmp_path / "corpus"
    bring_in(corpus, file)
    ran = bring_in(corpus, file, licence="CC0-1.0")
    assert (ran.code, "is a source under CC-BY-4.0 in this corpus" in ran.stderr) == (2, True)
    ran = bring_in(corpus, file, licence="CC0-1.0", source_id="other")
    assert (ran.code, "with another id, licence" in ran.stderr) == (2, True)
    assert {record.licence_expression for record in records_of(corpus)} == {"CC-BY-4.0"}
    assert corpusgen("erase", "--source", "outside", "--reason", "another licence", "--corpus", corpus).code == 0
    assert bring_in(corpus, file, licence="CC0-1.0", source_id="other").code == 0
    assert {record.licence_expression for record in records_of(corpus)} == {"CC0-1.0"}
    assert sound(corpus)


@pytest.mark.parametrize("licence", ["Unheard-1.0", "NOASSERTION", "CC-BY-4.0 AND Unheard-1.0", "CC0-1.0 OR MIT", ""])
def test_a_licence_nobody_knows_is_refused_before_anything_is_written(licence: str, tmp_path: Path) -> None:
    ran = bring_in(tmp_path / "corpus", write_jsonl(tmp_path / "rows.jsonl"), licence=licence)
    assert (ran.code, (tmp_path / "corpus").exists()) == (4, False)
    assert "choice" in ran.stderr or ("Known are: Apache-2.0, " in ran.stderr and "data_licences:" in ran.stderr)


def test_terms_of_writers_nobody_knows_are_refused(tmp_path: Path) -> None:
    ran = bring_in(tmp_path / "corpus", write_jsonl(tmp_path / "rows.jsonl"), generated_by=["openai-services-agreemen"])
    assert (ran.code, (tmp_path / "corpus").exists()) == (4, False)
    assert "did you mean openai-services-agreement" in ran.stderr


def test_a_dry_run_looks_and_writes_nothing(tmp_path: Path) -> None:
    ran = bring_in(tmp_path / "corpus", write_jsonl(tmp_path / "rows.jsonl"), dry_run=True)
    assert (ran.code, ran.object["dry_run"], ran.object["imports"][0]["rows"]) == (0, True, 3)
    assert not (tmp_path / "corpus").exists()


# --- Odd input -------------------------------------------------------------------------------------------------------


def test_every_bad_row_is_named_with_file_and_line_and_nothing_comes_in(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    bad = ['{"input":null,"response":"b"}', '{"input":"a"}', "no json", "[1]", '{"input":"a","response":7.5}']
    file.write_text("\n".join(['{"input":"a","response":"b"}', *bad]))
    ran = bring_in(tmp_path / "corpus", file)
    assert (ran.code, (tmp_path / "corpus").exists()) == (2, False)
    assert [line.partition("rows.jsonl:")[2][:2] for line in ran.stderr.splitlines()[:5]] == [
        "2:",
        "3:",
        "4:",
        "5:",
        "6:",
    ]
    assert "Nothing was imported" in ran.stderr
    (told,) = bring_in(tmp_path / "corpus", file, skip_bad=True).object["imports"]
    assert (told["added"], told["skipped"]) == (1, 5)
    with Corpus.open(tmp_path / "corpus", reading=True) as corpus:
        drops = corpus.journal.query("select item_id, reason, detail from drops order by item_id")
    assert [row[:2] for row in drops] == [(f"train:row {number}", "bad row") for number in range(2, 7)]
    assert "rows.jsonl:3" in drops[1][2]


def test_marks_and_line_ends_of_other_systems_are_no_text(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_bytes('\ufeffprompt,completion\r\n"a ""b""","x\r\ny"\r\n'.encode())
    assert bring_in(tmp_path / "corpus", file).code == 0
    assert pairs(tmp_path / "corpus") == {('a "b"', "x\r\ny")}


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("empty.csv", b"", "holds no rows|says by no column"),
        ("header.csv", b"prompt,completion\n", "holds no rows"),
        ("empty.jsonl", b"", "says by no column"),
        ("empty.parquet", b"", "is not a sound Parquet file"),
        ("utf16.csv", "prompt,completion\na,b\n".encode("utf-16"), "is UTF-16 text"),
        ("latin.csv", "prompt,completion\nä,b\n".encode("latin-1"), "is not UTF-8 text"),
        ("cells.csv", b"prompt,completion\na,b,c\n", "has more cells than the header"),
        ("quotes.csv", b'prompt,completion\n"a,b\n', "is not a sound CSV file"),
        ("twice.csv", b"prompt,completion,prompt\na,b,c\n", "has the column 'prompt' twice"),
        ("columns.csv", b"x,y\na,b\n", "it has: x, y"),
        ("rows.txt", b"a\n", "unknown kind of file '.txt'"),
        ("pairs.jsonl", b'{"prompt":"a","chosen":"b","rejected":"c"}\n', "a record has room for one response"),
    ],
)
def test_a_file_that_is_none_is_refused_in_words(name: str, content: bytes, told: str, tmp_path: Path) -> None:
    import re

    (tmp_path / name).write_bytes(content)
    ran = bring_in(tmp_path / "corpus", tmp_path / name)
    assert (ran.code, (tmp_path / "corpus").exists()) == (2, False)
    assert name in ran.stderr
    assert re.search(told, ran.stderr), ran.stderr


def test_ids_that_stand_twice_are_bad_rows(tmp_path: Path) -> None:
    rows = [{"id": "a", "input": str(at), "response": "x"} for at in range(2)]
    ran = bring_in(tmp_path / "corpus", write_jsonl(tmp_path / "rows.jsonl", rows))
    assert (ran.code, "rows.jsonl:2: id: 'a' is the id of an earlier row too" in ran.stderr) == (2, True)


def test_a_huge_cell_comes_in_and_a_monstrous_one_does_not(tmp_path: Path) -> None:
    huge, monstrous = "x" * 1_000_000, "y" * 17_000_000
    file = write_csv(
        tmp_path / "rows.csv", [{"prompt": "a", "completion": huge}, {"prompt": "b", "completion": monstrous}]
    )
    assert "a row has at most 16,000,000" in bring_in(tmp_path / "corpus", file).stderr
    assert bring_in(tmp_path / "corpus", file, skip_bad=True).code == 0
    assert pairs(tmp_path / "corpus") == {("a", huge)}


def test_formulas_stay_text(tmp_path: Path) -> None:
    rows = [
        {"prompt": "=1+1", "completion": text} for text in ("=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)", "0012", "1e5")
    ]
    bring_in(tmp_path / "corpus", write_csv(tmp_path / "rows.csv", rows))
    assert {response for _, response in pairs(tmp_path / "corpus")} == {row["completion"] for row in rows}


def test_labels_that_are_none_are_bad_rows_and_other_labels_another_dataset(tmp_path: Path) -> None:
    file = write_csv(tmp_path / "rows.csv", [{"text": "cat", "label": "animal"}, {"text": "rock", "label": "stone"}])
    ran = bring_in(tmp_path / "corpus", file, labels="animal,plant")
    assert (ran.code, "holds 'stone', which is none of the labels: animal, plant" in ran.stderr) == (2, True)
    bring_in(tmp_path / "corpus", write_jsonl(tmp_path / "rows.jsonl"))
    ran = bring_in(tmp_path / "corpus", file)
    assert (ran.code, "have no labels, and this file has labels (animal, stone)" in ran.stderr) == (2, True)


# --- Whatever happens ------------------------------------------------------------------------------------------------


def many(path: Path, count: int) -> Path:
    return write_jsonl(path, ({"input": f"question {at}", "response": f"answer {at}"} for at in range(count)))


def test_an_import_killed_in_the_middle_is_completed_by_the_next(tmp_path: Path) -> None:
    file, corpus = many(tmp_path / "rows.jsonl", 30_000), tmp_path / "corpus"
    said = [
        "--dataset",
        "words",
        "--licence",
        "CC0-1.0",
        "--source-id",
        "outside",
        "--title",
        "t",
        "--corpus",
        str(corpus),
    ]
    child = subprocess.Popen([sys.executable, "-m", "corpusgen", "import", str(file), *said], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and child.poll() is None and not _has_records(corpus):
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    ran = bring_in(corpus, file, licence="CC0-1.0", title="t")
    assert (ran.code, len(records_of(corpus))) == (0, 30_000)
    assert sound(corpus)
    with Corpus.open(corpus, reading=True) as opened:
        assert opened.journal.query("select rows from shards order by name") == [(10_000,)] * 3


def _has_records(corpus: Path) -> bool:
    import sqlite3

    if not (corpus / "journal.sqlite").exists():
        return False
    try:
        with sqlite3.connect(f"file:{corpus / 'journal.sqlite'}?mode=ro", uri=True) as connection:
            return bool(connection.execute("select 1 from records limit 1").fetchone())
    except sqlite3.OperationalError:
        return False


def test_a_lost_shard_of_imported_rows_is_written_again(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    bring_in(corpus, write_jsonl(tmp_path / "rows.jsonl"))
    (tmp_path / "rows.jsonl").unlink()
    (shard,) = (corpus / "shards").rglob("*.parquet")
    good = shard.read_bytes()
    shard.unlink()
    assert corpusgen("verify", "--repair", "--corpus", corpus).code == 0
    assert shard.read_bytes() == good


def test_what_was_erased_stays_out(tmp_path: Path) -> None:
    file, corpus = write_jsonl(tmp_path / "rows.jsonl"), tmp_path / "corpus"
    bring_in(corpus, file)
    name = records_of(corpus)[0].record_id
    ran = corpusgen("erase", "--record", name, "--reason", "asked to", "--corpus", corpus, "--json")
    assert ran.code == 0, ran.stderr
    (again,) = bring_in(corpus, file).object["imports"]
    assert (again["added"], again["erased"], len(records_of(corpus))) == (0, 1, 2)


def test_nobody_can_ask_an_import(tmp_path: Path) -> None:
    task = write_task(tmp_path, teacher={"name": "imported/abc", "script": None})
    ran = corpusgen("plan", task, "--corpus", tmp_path / "corpus")
    assert (ran.code, "is no teacher" in ran.stderr) == (2, True)


# --- Mixed with what was asked ---------------------------------------------------------------------------------------


@pytest.fixture
def mixed(tmp_path: Path) -> tuple[Path, Path]:
    """A task whose dataset holds its own answers and rows from outside, and its corpus."""
    use = {"student_distribution": "internal", "student_competes": "no", "commercial": True}
    task, corpus = write_task(tmp_path / "task", items=5, intended_use=use), tmp_path / "corpus"
    assert corpusgen("run", task, "--corpus", corpus, "-q").code == 0
    return task, corpus


def sealed(task: Path, corpus: Path) -> Any:
    assert corpusgen("select", "words", "--corpus", corpus).code == 0
    return corpusgen("seal", "words", "--spec", task, "--corpus", corpus, "--json")


def test_a_mixed_dataset_is_sealed_and_every_document_names_the_outside_source(
    mixed: tuple[Path, Path], tmp_path: Path
) -> None:
    task, corpus = mixed
    facts = {"locator": "https://example.org/data", "rightsholder": "Jane Doe"}
    bring_in(corpus, write_jsonl(tmp_path / "rows.jsonl"), **facts)
    ran = sealed(task, corpus)
    assert (ran.code, ran.object["rows"]) == (0, 8), ran.stderr
    text = (Path(ran.object["folder"]) / "README.md").read_text()
    assert all(word in text for word in ("The outside world", "CC-BY-4.0", "https://example.org/data", "Jane Doe"))
    for kind in ("croissant", "spdx", "notice", "ab2013", "eu-2.5"):
        out = tmp_path / f"{kind}.txt"
        made = corpusgen("export", "words-1", out, "--to", kind, "--spec", task, "--corpus", corpus)
        assert made.code == 0, (kind, made.stderr)
        if kind in ("croissant", "spdx", "notice"):
            assert "outside" in out.read_text(), kind
    assert sound(corpus)


def test_a_dataset_that_all_came_from_outside_is_sealed_and_says_so(tmp_path: Path) -> None:
    task, corpus = write_task(tmp_path / "task"), tmp_path / "corpus"
    bring_in(corpus, write_jsonl(tmp_path / "rows.jsonl"), licence="LicenseRef-Own")
    ran = sealed(task, corpus)
    assert (ran.code, ran.object["rows"]) == (0, 3), ran.stderr
    text = (Path(ran.object["folder"]) / "README.md").read_text()
    assert "all of them came from outside" in text
    assert "## Teachers" not in text
    assert "synthetic" not in text
    for kind in ("chat", "croissant", "spdx", "notice", "ab2013", "eu-2.5", "nist-600-1"):
        out = tmp_path / ("out.jsonl" if kind == "chat" else kind)
        made = corpusgen("export", "words-1", out, "--to", kind, "--spec", task, "--corpus", corpus)
        assert made.code == 0, (kind, made.stderr)


def test_a_student_learns_from_labels_that_were_asked_for_and_labels_from_outside(tmp_path: Path) -> None:
    task, corpus = write_label_task(tmp_path / "task"), tmp_path / "corpus"
    assert corpusgen("run", task, "--corpus", corpus, "-q").code == 0
    asked = len(records_of(corpus, "kinds"))
    rows = [{"text": f"{word} from outside", "label": kind} for kind, words in WORDS.items() for word in words]
    (told,) = bring_in(corpus, write_csv(tmp_path / "rows.csv", rows), dataset="kinds").object["imports"]
    assert told["labels"] == ["animal", "plant"]
    assert corpusgen("select", "kinds", "--corpus", corpus).code == 0
    ran = corpusgen("seal", "kinds", "--spec", task, "--corpus", corpus, "--json")
    assert (ran.code, ran.object["rows"]) == (0, asked + len(rows)), ran.stderr
    ran = corpusgen("train", "kinds", "--spec", task, "--corpus", corpus, "--json")
    assert ran.code == 0, ran.stderr


def test_a_licence_that_forbids_commerce_keeps_a_commercial_dataset_open(
    mixed: tuple[Path, Path], tmp_path: Path
) -> None:
    task, corpus = mixed
    bring_in(corpus, write_jsonl(tmp_path / "rows.jsonl"), licence="CC-BY-NC-4.0")
    ran = sealed(task, corpus)
    assert (ran.code, "R10" in ran.stderr, "CC-BY-NC-4.0 is non-commercial" in ran.stderr) == (4, True, True)


def test_terms_of_who_wrote_it_go_along_as_information(mixed: tuple[Path, Path], tmp_path: Path) -> None:
    task, corpus = mixed
    bring_in(corpus, write_jsonl(tmp_path / "rows.jsonl"), generated_by=["openai-services-agreement-2026-01-01"])
    ran = sealed(task, corpus)
    assert ran.code == 0, ran.stderr
    text = (Path(ran.object["folder"]) / "README.md").read_text()
    assert "openai-services-agreement-2026-01-01" in text
    licences = {record.licence_expression for record in records_of(corpus) if record.route == "imported"}
    assert {expression.startswith("CC-BY-4.0 AND LicenseRef-") for expression in licences} == {True}


def test_rows_that_say_the_same_as_an_answer_are_dropped_as_repeats_by_select(
    mixed: tuple[Path, Path], tmp_path: Path
) -> None:
    _, corpus = mixed
    bring_in(corpus, write_jsonl(tmp_path / "rows.jsonl"))
    first = corpusgen("select", "words", "--corpus", corpus, "--json").object
    assert first["rows"] == 8
    bring_in(corpus, write_csv(tmp_path / "more.csv", [{"prompt": "new", "completion": "newer"}]))
    assert corpusgen("select", "words", "--corpus", corpus, "--json").object["rows"] == 9
    found = corpusgen("diff", "words-1", "words-2", "--corpus", corpus, "--json").object
    assert (found["kept"], found["rows"]) == (8, [8, 9])


# --- Rows by themselves ----------------------------------------------------------------------------------------------

texts = st.text(min_size=1, max_size=40).filter(lambda text: text.strip() and "\x00" not in text)


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.tuples(texts, texts), min_size=1, max_size=5), kind=st.sampled_from(list(WRITERS)))
def test_any_text_comes_back_as_it_was(rows: list[tuple[str, str]], kind: str, tmp_path_factory: Any) -> None:
    file = tmp_path_factory.mktemp("any") / f"rows.{kind}"
    WRITERS[kind](file, [{"prompt": asked, "completion": said} for asked, said in rows])
    found = list(rows_of(file, columns_of(file)))
    assert [(row.input, row.text) for row in found if isinstance(row, OutsideRow)] == rows


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("input=a", "answered by one of"),
        ("input=a,response=b,label=c", "found response and label"),
        ("response=b", "write input="),
        ("messages=m,input=a", "answered by one of|go without it"),
        ("input=a,chosen=b,rejected=c", "room for one response"),
        ("input=a,answer=b", "is no FIELD=COLUMN"),
        ("input=a,input=b,response=c", "is no FIELD=COLUMN"),
        ("messages=m,system=s", "leave system"),
    ],
)
def test_columns_that_make_no_row_are_refused_in_words(text: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        parse_columns(text)


def test_a_file_that_changes_while_it_is_imported_is_refused(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "rows.jsonl", [{"input": "a", "response": "b"}])
    source = Source(id="outside", title="t", licence="CC0-1.0")
    with Corpus.open(tmp_path / "corpus") as corpus:
        looked = look_through(corpus, [Outside(file=file, dataset="words", source=source)])
        write_jsonl(file, [{"input": "a", "response": "something else"}])
        with pytest.raises(OutsideFileError, match="was changed while it was imported"):
            asyncio.run(import_files(corpus, looked))
        assert corpus.journal.query("select count(*) from records") == [(0,)]


def test_files_come_in_together_or_not_at_all(tmp_path: Path) -> None:
    good, bad = write_jsonl(tmp_path / "good.jsonl"), tmp_path / "bad.jsonl"
    bad.write_text('{"prompt": "a", "completion": null}\n')
    ran = bring_in(tmp_path / "corpus", good, bad)
    assert (ran.code, "bad.jsonl:1: completion: is empty here" in ran.stderr) == (2, True)
    assert not (tmp_path / "corpus").exists()
    labelled = [write_csv(tmp_path / f"{name}.csv", [{"text": name, "label": name}]) for name in ("cat", "oak")]
    made = bring_in(tmp_path / "corpus", *labelled).object["imports"]
    assert [one["labels"] for one in made] == [["cat", "oak"]] * 2


def test_every_option_stands_in_its_page() -> None:
    page = (Path(__file__).parent.parent / "docs" / "imports.md").read_text()
    options = [name for one in import_.params for name in one.opts if name.startswith("--")]
    assert [name for name in options if name not in page] == []


# --- What is no stranger ---------------------------------------------------------------------------------------------


def own_records(tmp_path: Path, licence: str = "CC-BY-NC-4.0") -> tuple[Path, Path]:
    """A corpus with answers under a licence, and their shard."""
    sources = [{"id": "words", "title": "Words", "licence": licence}]
    task, corpus = write_task(tmp_path / "task", items=4, sources=sources), tmp_path / "own"
    assert corpusgen("run", task, "--corpus", corpus, "-q").code == 0
    (shard,) = (corpus / "shards" / "words").glob("*.parquet")
    return corpus, shard


def exported(tmp_path: Path, corpus: Path, columns: str) -> Path:
    """Rows of the corpus as ``query`` writes them."""
    ran = corpusgen("query", f"select {columns} from records", "--format", "jsonl", "--corpus", corpus)
    assert ran.code == 0, ran.stderr
    (tmp_path / "query.jsonl").write_text(ran.stdout)
    return tmp_path / "query.jsonl"


@pytest.mark.parametrize("columns", ["record_id, input, response", "record_id as id, input, response, teacher"])
def test_records_of_this_corpus_do_not_come_in_as_rows(columns: str, tmp_path: Path) -> None:
    corpus, shard = own_records(tmp_path)
    for file in (shard, exported(tmp_path, corpus, columns)):
        for more in ({}, {"skip_bad": True}, {"dry_run": True}):
            ran = bring_in(corpus, file, licence="CC0-1.0", dataset="clean", **more)
            assert (ran.code, "4 rows, the first of them row 1, are from this corpus" in ran.stderr) == (4, True)
            assert "name the column with their ids under parent" in ran.stderr
    assert records_of(corpus, "clean") == []


@pytest.mark.parametrize(
    "columns",
    [
        "record_id, input, response, licence_expression",
        "record_id as id, input, response, licence_expression",
        "record_id, input, response, licence_expression, terms_set_id",
    ],
)
def test_records_of_another_corpus_come_in_under_no_other_licence(columns: str, tmp_path: Path) -> None:
    corpus, shard = own_records(tmp_path)
    for file in (shard, exported(tmp_path, corpus, columns)):
        ran = bring_in(tmp_path / "other", file, licence="CC0-1.0")
        assert (ran.code, "says licence_expression 'CC-BY-NC-4.0 AND CC0-1.0', while" in ran.stderr) == (4, True), (
            ran.stderr
        )
    assert not (tmp_path / "other").exists()
    made = exported(tmp_path, corpus, columns.replace(", terms_set_id", ""))
    assert bring_in(tmp_path / "other", made, licence="CC0-1.0 AND CC-BY-NC-4.0").code == 0
    assert {one.licence_expression for one in records_of(tmp_path / "other")} == {"CC-BY-NC-4.0 AND CC0-1.0"}


def test_records_of_another_corpus_bring_the_terms_of_who_wrote_them(tmp_path: Path) -> None:
    import hashlib

    terms = "openai-services-agreement-2026-01-01"
    row = {"record_id": "ab" * 32, "input": "a", "response": "b", "licence_expression": "CC0-1.0"}
    row["terms_set_id"] = hashlib.sha256(terms.encode()).hexdigest()
    file = write_jsonl(tmp_path / "rows.jsonl", [row])
    ran = bring_in(tmp_path / "corpus", file, licence="CC0-1.0")
    assert (ran.code, "says terms_set_id" in ran.stderr) == (4, True)
    del row["licence_expression"]
    write_jsonl(file, [row])
    assert "says no licence_expression" in bring_in(tmp_path / "corpus", file, licence="CC0-1.0").stderr
    known = write_jsonl(tmp_path / "known.jsonl", [{"input": "c", "response": "d"}])
    bring_in(tmp_path / "sample", known, licence="CC0-1.0", generated_by=[terms])
    row["licence_expression"] = records_of(tmp_path / "sample")[0].licence_expression
    write_jsonl(file, [row])
    assert bring_in(tmp_path / "corpus", file, licence="CC0-1.0", generated_by=[terms]).code == 0


@pytest.mark.parametrize("more", [b"\n", b'{"prompt": "new", "completion": "row"}\n'])
def test_rows_that_are_there_do_not_come_in_again_under_another_licence(more: bytes, tmp_path: Path) -> None:
    file, corpus = write_jsonl(tmp_path / "rows.jsonl"), tmp_path / "corpus"
    bring_in(corpus, file, licence="CC-BY-NC-4.0")
    file.write_bytes(file.read_bytes() + more)
    ran = bring_in(corpus, file, licence="CC0-1.0", source_id="clean")
    assert (ran.code, "3 rows, the first of them row 1, are in this dataset already" in ran.stderr) == (4, True)
    assert "as source 'outside' under CC-BY-NC-4.0" in ran.stderr
    assert {one.licence_expression for one in records_of(corpus)} == {"CC-BY-NC-4.0"}
    ran = bring_in(corpus, file, licence="CC0-1.0", source_id="clean", columns="input=prompt,response=completion")
    assert ran.code == 4
    assert bring_in(corpus, file, licence="CC-BY-NC-4.0").code == 0


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
@pytest.mark.parametrize("columns", [{}, {"columns": "input=a,response=b"}])
def test_what_is_no_regular_file_is_refused_at_once(kind: str, columns: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "device":
        file.symlink_to("/dev/zero")
    else:
        file.mkdir()
    ran = bring_in(tmp_path / "corpus", file, **columns)
    assert ran.code == 2
    assert "is no regular file" in ran.stderr or "is a directory" in ran.stderr


def test_a_notice_from_a_device_is_refused(tmp_path: Path) -> None:
    ran = bring_in(tmp_path / "corpus", write_jsonl(tmp_path / "rows.jsonl"), notice="/dev/zero")
    assert (ran.code, "no regular file" in ran.stderr) == (2, True)


@pytest.mark.parametrize(
    "row",
    [
        '{"input":"a","input":"b","response":"c"}',
        '{"input":"a","\\u0069nput":"b","response":"c"}',
        '{"input":"a" ,"input"\\t: "b","response":"c \\":"}'.replace("\\t", "\t"),
        '{"messages":[{"role":"user","content":"a","content":"b"},{"role":"assistant","content":"c"}]}',
    ],
)
def test_a_key_that_stands_twice_is_a_bad_row(row: str, tmp_path: Path) -> None:
    good = (
        '{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"c"}],"input":"a\\":","response":"b"}'
    )
    (tmp_path / "rows.jsonl").write_text(f"{good}\n{row}\n")
    columns = "messages=messages" if "messages" in row else "input=input,response=response"
    ran = bring_in(tmp_path / "corpus", tmp_path / "rows.jsonl", columns=columns)
    assert ran.code == 2
    assert [line for line in ran.stderr.splitlines() if "rows.jsonl:2: has the key" in line and "twice" in line]


@pytest.mark.parametrize("row", ['{"input":NaN,"response":"b"}', '{"input":' + "[" * 100_000, "{", "[1]"])
@pytest.mark.parametrize("after", ["", '{"x":1}\n'])
def test_a_first_row_that_is_no_json_is_told_as_that(row: str, after: str, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(f"\n{row}\n{after}")
    ran = bring_in(tmp_path / "corpus", tmp_path / "rows.jsonl")
    assert (ran.code, "rows.jsonl:2: is not " in ran.stderr, "no column" in ran.stderr) == (2, True, False)


def test_an_id_of_a_source_that_is_none_is_told_in_words(tmp_path: Path) -> None:
    ran = bring_in(tmp_path / "corpus", write_jsonl(tmp_path / "rows.jsonl"), source_id="My Source")
    assert (ran.code, "--source-id: 'My Source' is no id" in ran.stderr, "pattern" in ran.stderr) == (2, True, False)
