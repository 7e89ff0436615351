"""Erasing a source, a record or a person: nowhere below the corpus, and nothing else is touched."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from command import corpusgen
from erasure_samples import SUBJECT, WORDS, echo, filled, judged_task, places
from flow_samples import fixed_clock
from teacher_samples import server

from corpusgen.corpus import Corpus
from corpusgen.errors import CorpusDamaged, SealRefused, StoreError, UsageError
from corpusgen.pipeline import run_task
from corpusgen.records import Record
from corpusgen.stages.erasure.erasing import erase
from corpusgen.stages.erasure.reaching import Kind, Selector
from corpusgen.stages.loading import load_task
from corpusgen.stages.repairing import repair
from corpusgen.stages.sealing import sealed_dataset
from corpusgen.stages.verifying import orphans, verify
from corpusgen.store.shards import read_records

CHILD = Path(__file__).with_name("erasing_child.py")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a task, a corpus in which it was answered, judged, sealed and reported, and a shared cache."""
    root = tmp_path_factory.mktemp("made")
    before = os.environ["CORPUSGEN_CACHE"]
    os.environ["CORPUSGEN_CACHE"] = str(root / "cache")
    try:
        asyncio.run(filled(root))
    finally:
        os.environ["CORPUSGEN_CACHE"] = before
    return root


@pytest.fixture
def root(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, to be erased in."""
    shutil.copytree(made, tmp_path / "copy")
    monkeypatch.setenv("CORPUSGEN_CACHE", str(tmp_path / "copy" / "cache"))
    return tmp_path / "copy"


def erased(root: Path, kind: Kind, *values: str, **more: Any) -> dict[str, Any]:
    with Corpus.open(root / "corpus", erasing=True) as corpus:
        return erase(corpus, Selector(kind=kind, values=values), by="a lawyer", reason="asked to", **more)


def records(root: Path, item: str | None = None) -> dict[str, Record]:
    """The records in the shards by id, of one item or all."""
    every = read_records(sorted((root / "corpus" / "shards").glob("*/*.parquet")))
    return {one.record_id: one for one in every if item is None or one.source_ids == (f"words#{item}",)}


def findings(root: Path) -> list[str]:
    with Corpus.open(root / "corpus", reading=True) as corpus:
        return [f"{one.check} {one.subject}: {one.message}" for one in verify(corpus)]


def query(root: Path, sql: str) -> list[tuple[Any, ...]]:
    with Corpus.open(root / "corpus") as corpus:
        return corpus.journal.query(sql)


# --- the search itself ------------------------------------------------------------------------------------------------

WORD = "Quackenbush"


def _free_page(folder: Path) -> None:
    connection = apsw.Connection(str(folder / "a.sqlite"))
    connection.execute("create table t(x); create table u(x)")
    connection.execute("insert into t values(?)", (f"of {WORD} " * 2_000,))
    connection.execute("drop table t")
    assert connection.execute("pragma freelist_count").get
    connection.close()


def _wal_frame(folder: Path) -> None:
    connection = apsw.Connection(str(folder / "a.sqlite"))
    connection.pragma("journal_mode", "wal")
    connection.execute("create table t(x)")
    connection.execute("insert into t values(?)", (f"of {WORD}",))
    shutil.copy(folder / "a.sqlite-wal", folder / "kept-wal")
    connection.close()
    (folder / "a.sqlite").unlink()


def _zstd_in_journal(folder: Path) -> None:
    connection = apsw.Connection(str(folder / "a.sqlite"))
    connection.execute("create table t(x)")
    body = json.dumps({"of": WORD, "much": "x" * 9_000}).encode()
    connection.execute("insert into t values(?)", (zstandard.ZstdCompressor(level=1).compress(body),))
    connection.close()


def _dictionary_page(folder: Path) -> None:
    table = pa.table({"x": [f"of {WORD}"] * 500})
    pq.write_table(table, folder / "a.parquet", compression="zstd", use_dictionary=True)
    column = pq.read_metadata(folder / "a.parquet").row_group(0).column(0)
    assert column.has_dictionary_page


def _data_page(folder: Path) -> None:
    pq.write_table(pa.table({"x": [f"of {WORD}"]}), folder / "a.parquet", compression="zstd", use_dictionary=False)


def _duckdb(folder: Path) -> None:
    with duckdb.connect(str(folder / "a.duckdb")) as database:
        database.execute(f"create table t as select 'of {WORD}' as x from range(10000)")


def _escaped(folder: Path) -> None:
    (folder / "a.jsonl").write_text(json.dumps({"of": "Zoë Quackenbush"}).replace("Q", "\\u0051"))


@pytest.mark.parametrize(
    "plant", [_free_page, _wal_frame, _zstd_in_journal, _dictionary_page, _data_page, _duckdb, _escaped]
)
def test_the_search_finds_what_is_planted_in_every_kind_of_place(plant: Any, tmp_path: Path) -> None:
    plant(tmp_path)
    assert places(tmp_path, WORD)
    assert not places(tmp_path, "Nobody")


# --- a person ---------------------------------------------------------------------------------------------------------


def test_what_is_erased_is_in_no_byte_below_the_corpus_nor_in_the_cache(root: Path) -> None:
    before = {place.partition(":")[0] for place in places(root / "corpus", "Quückenbush")}
    assert len(before) == 9, before
    assert places(root / "cache", "Quückenbush")
    with Corpus.open(root / "corpus") as corpus:
        erase(corpus, Selector(kind="subject", values=("zebulon   quückenbush",)), by="me")
        assert places(root / "corpus", "Quückenbush") == []  # while it is open, with its log
    assert places(root / "corpus", "Quückenbush") == []
    assert places(root / "cache", "Quückenbush") == []
    assert findings(root) == []
    with Corpus.open(root / "corpus") as corpus:
        assert orphans(corpus) == []


def test_the_command_prints_signs_and_keeps_a_report_without_what_was_erased(root: Path) -> None:
    ran = corpusgen("erase", "--subject", SUBJECT, "--by", "a lawyer", "--corpus", root / "corpus", "--json")
    assert ran.code == 0, ran.stderr
    report = ran.object
    assert (report["records"], report["requests"], report["texts"]) == (4, 4, 2)
    assert report["shards"] == ["words.judge/train-00000.parquet", "words/train-00000.parquet"]
    assert (report["datasets"], report["by"]) == (["words-1"], "a lawyer")
    sent = {one["teacher"]: (one["host"], one["requests"]) for one in report["provider_copies"]}
    assert sent == {"endpoint/m": ("127.0.0.1", 2), "scripted/judge": ("localhost", 2)}
    kept = json.loads((root / "corpus" / "erasures" / "1.json").read_text())
    assert kept["report"] == report
    signed = json.loads(base64.b64decode(kept["envelope"]["payload"]))
    assert signed == report
    assert "zebulon" not in ran.stdout.lower()
    again = corpusgen("erase", "--subject", SUBJECT, "--corpus", root / "corpus")
    assert again.stdout == "nothing of it is here\n"


def test_a_dry_run_tells_the_same_and_changes_no_byte(root: Path) -> None:
    def content() -> dict[str, bytes]:
        files = (path for path in (root / "corpus").rglob("*") if path.is_file() and "sqlite-" not in path.name)
        return {str(path): path.read_bytes() for path in files if not path.name.startswith("journal")}

    before, rows = content(), query(root, "select * from calls")
    foreseen = corpusgen("erase", "--subject", SUBJECT, "--dry-run", "--corpus", root / "corpus", "--json").object
    assert (content(), query(root, "select * from calls")) == (before, rows)
    report = erased(root, "subject", SUBJECT)
    same = ("records", "requests", "answers", "shards", "datasets", "students", "provider_copies", "other_files")
    assert {name: foreseen[name] for name in same} == {name: report[name] for name in same}


def test_neighbours_keep_their_answers_and_the_books_their_sums(root: Path) -> None:
    before, balances = records(root), query(root, "select * from balances order by 1, 2")
    money = query(root, "select call_id, state, microusd, tokens, reserved_microusd from calls order by 1")
    erased(root, "subject", SUBJECT)
    after = records(root)
    assert after == {name: one for name, one in before.items() if "w1" not in str(one.source_ids) and
                     "w3" not in str(one.source_ids)}  # fmt: skip
    assert query(root, "select * from balances order by 1, 2") == balances
    assert query(root, "select call_id, state, microusd, tokens, reserved_microusd from calls order by 1") == money


def test_a_rewritten_shard_can_be_assembled_again_with_its_bytes(root: Path) -> None:
    erased(root, "subject", SUBJECT)
    for shard in (root / "corpus" / "shards").glob("*/*.parquet"):
        shard.unlink()
    with Corpus.open(root / "corpus") as corpus:
        assert [one.repaired for one in repair(corpus)] == [True, True]
        assert verify(corpus) == []


def test_no_digest_of_what_was_asked_is_left(root: Path) -> None:
    keys = [row[0].hex() for row in query(root, "select request_key from records where item_id in ('w1', 'w3')")]
    ids = [*records(root, "w1"), *records(root, "w3")]
    erased(root, "subject", SUBJECT)
    for digest in (*keys, *ids):
        assert places(root / "corpus", digest) == []
        raw = [path for path in (root / "corpus").rglob("*") if path.is_file()
               and bytes.fromhex(digest) in path.read_bytes()]  # fmt: skip
        assert raw == []


def test_a_reason_that_repeats_it_and_a_text_that_is_everywhere_are_refused(root: Path) -> None:
    with Corpus.open(root / "corpus") as corpus:
        for by, reason in (("me", f"{SUBJECT} asked"), (SUBJECT.upper(), "")):
            with pytest.raises(UsageError, match="repeats what is to be erased"):
                erase(corpus, Selector(kind="subject", values=(SUBJECT,)), by=by, reason=reason)
        with pytest.raises(UsageError, match="too short"):
            erase(corpus, Selector(kind="subject", values=(" e",)), by="me")
    assert places(root / "corpus", "Quückenbush")


# --- sources and records ----------------------------------------------------------------------------------------------


def test_a_source_takes_everything_made_from_it_along(root: Path) -> None:
    report = erased(root, "source", "words")
    assert (report["records"], report["source_id"]) == (10, "words")
    assert records(root) == {}
    assert query(root, "select count(*) from drops")[0][0] == 0
    for word in ("a river", "the barn", "Quückenbush"):
        found = [place for place in places(root / "corpus", word) if "w9" not in place]
        assert found == [], word
    assert findings(root) == []


def test_after_a_source_is_erased_nothing_live_is_derived_from_it(root: Path) -> None:
    erased(root, "source", "words")
    ran = corpusgen("audit", "q06", "--source", "words", "--corpus", root / "corpus", "--json")
    assert ran.code == 0, ran.stderr
    assert [one["records"] for one in ran.object["rows"] if one["what"] == "live records"] in ([], [0])
    assert findings(root) == []
    assert corpusgen("erase", "--source", "words", "--corpus", root / "corpus").stdout == "nothing of it is here\n"


def test_one_item_of_a_source_and_one_record_take_their_judgement_along(root: Path) -> None:
    (answer, judgement) = sorted(records(root, "w2").values(), key=lambda one: one.kind, reverse=True)
    assert judgement.parent_ids == (answer.record_id,)
    report = erased(root, "record", answer.record_id[:12])
    assert report["records"] == 2
    assert records(root, "w2") == {}
    assert erased(root, "source", "words#w0")["records"] == 2
    assert sorted({one.source_ids for one in records(root).values()}) == [(f"words#w{at}",) for at in (1, 3, 5)]
    told = corpusgen("status", "--corpus", root / "corpus", "--json").object["erasures"]
    assert [one["erasure_id"] for one in told] == [1, 2]
    assert findings(root) == []


def test_a_judgement_that_goes_leaves_its_answer_but_no_dataset_that_it_chose(root: Path) -> None:
    (judgement,) = [one for one in records(root, "w2").values() if one.kind == "judgement"]
    report = erased(root, "record", judgement.record_id)
    assert (report["records"], report["datasets"]) == (1, ["words-1"])
    assert [one.kind for one in records(root, "w2").values()] == ["response"]
    assert query(root, "select json_extract(manifest, '$.seal.rows') from datasets") == [(4,)]


async def test_a_judgement_that_was_erased_is_not_bought_again(root: Path) -> None:
    (judgement,) = [one for one in records(root, "w2").values() if one.kind == "judgement"]
    await asyncio.to_thread(erased, root, "record", judgement.record_id)
    with Corpus.open(root / "corpus", clock=fixed_clock) as corpus:
        found = await run_task(load_task(root / "task" / "task.yaml"), corpus, opened=[])
    assert (found["records"], found["requests"]) == (5, 0)
    assert [one.kind for one in records(root, "w2").values()] == ["response"]


def test_copies_that_have_gone_out_are_named(root: Path) -> None:
    out = root / "elsewhere.jsonl"
    assert corpusgen("export", "words-1", "--to", "chat", out, "--corpus", root / "corpus").code == 0
    (sent,) = erased(root, "subject", SUBJECT)["exports"]
    assert (sent["dataset"], sent["to"], sent["rows"]) == ("words-1", "chat", 5)
    assert (out.exists(), findings(root)) == (True, [])  # it lies outside of the corpus


def test_a_record_that_is_not_here_is_named(root: Path) -> None:
    with Corpus.open(root / "corpus") as corpus:
        for name, told in (("0" * 64, "no record of that id"), ("xyz", "is no record id")):
            with pytest.raises(UsageError, match=told):
                erase(corpus, Selector(kind="record", values=(name,)), by="me")
    assert findings(root) == []


# --- afterwards -------------------------------------------------------------------------------------------------------


async def test_the_same_seed_file_does_not_have_it_asked_again(root: Path) -> None:
    await asyncio.to_thread(erased, root, "subject", SUBJECT)
    asked: list[str] = []

    async def answer(request: Any) -> Any:
        asked.append(await request.text())
        return await echo(request)

    async with server(answer) as url:
        spec = load_task(judged_task(root / "task", url))
        with Corpus.open(root / "corpus", clock=fixed_clock) as corpus:
            found = await run_task(spec, corpus, opened=[])
            drops = corpus.journal.query("select stage, reason, item_id from drops where stage = 'erased'")
            assert verify(corpus) == []
    assert (found["records"], len(drops)) == (3, 2)
    assert not [text for text in asked if "uckenbush" in text.lower() or "\\u00dc" in text]
    assert {row[:2] for row in drops} == {("erased", "erased")}
    assert places(root / "corpus", "Quückenbush") == []


async def test_a_plan_counts_what_was_erased_as_dropped(root: Path) -> None:
    await asyncio.to_thread(erased, root, "subject", SUBJECT)
    async with server(echo) as url:
        spec = judged_task(root / "task", url)
        planned = (await asyncio.to_thread(corpusgen, "plan", spec, "--corpus", root / "corpus", "--json")).object
    assert planned["splits"]["train"]["dropped"] == {"erased": 2}
    assert planned["splits"]["train"]["unique"] == len(WORDS) - 3


def test_a_revoked_dataset_is_refused_by_name_and_told_in_status(root: Path) -> None:
    erased(root, "subject", SUBJECT)
    with Corpus.open(root / "corpus") as corpus, pytest.raises(SealRefused, match=r"was revoked on .* by a lawyer"):
        sealed_dataset(corpus, "words-1")
    out = corpusgen("export", "words-1", "--to", "chat", root / "x.jsonl", "--corpus", root / "corpus")
    assert (out.code, "was revoked" in out.stderr) == (6, True)
    told = corpusgen("status", "--corpus", root / "corpus").stdout
    assert "dataset words-1: revoked" in told
    assert "by a lawyer took out 4 records by subject, revoked words-1" in told


def test_a_revoked_dataset_with_other_bytes_or_its_secret_is_found(root: Path) -> None:
    erased(root, "subject", SUBJECT)
    (file,) = (root / "corpus" / "datasets").glob("words-1/*.parquet")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with Corpus.open(root / "corpus") as corpus:
        corpus.journal.run_now(
            lambda writing: writing.execute("insert into dataset_secrets values('words', '1', x'00')").close()
        )
    assert [one.split()[0] for one in findings(root)] == ["erasures", "datasets"]


def test_another_selection_is_a_new_version_without_it(root: Path) -> None:
    erased(root, "subject", SUBJECT)
    spec = root / "task" / "task.yaml"
    made = corpusgen("select", "words", "--spec", spec, "--corpus", root / "corpus", "--json").object
    assert (made["dataset"], made["rows"]) == ("words-2", 3)
    assert corpusgen("seal", "words-2", "--spec", spec, "--corpus", root / "corpus").code == 0
    assert findings(root) == []


# --- others, and crashes ----------------------------------------------------------------------------------------------


@pytest.fixture
def at_work(root: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the corpus open."""
    code = (
        "import sys; from pathlib import Path; from corpusgen.corpus import Corpus;"
        "c = Corpus.open(Path(sys.argv[1])); print('open', flush=True); sys.stdin.read()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(root / "corpus")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "open\n"
    yield child
    child.kill()
    child.communicate()


def test_nothing_is_erased_while_another_process_works(root: Path, at_work: subprocess.Popen[str]) -> None:
    with Corpus.open(root / "corpus") as corpus:
        with pytest.raises(StoreError, match=f"process {at_work.pid} works on it"):
            erase(corpus, Selector(kind="subject", values=(SUBJECT,)), by="me")
        at_work.communicate("")
        assert erase(corpus, Selector(kind="subject", values=(SUBJECT,)), by="me")["records"] == 4


def test_who_comes_in_between_is_seen_before_anything_is_cut(root: Path) -> None:
    def told(step: str) -> None:
        if step == "shared cache":
            with Corpus.open(root / "corpus", reading=True):
                pass

    with pytest.raises(StoreError, match="worked on it meanwhile"):
        erased(root, "subject", SUBJECT, told=told)
    assert findings(root) == []  # as it was
    assert erased(root, "subject", SUBJECT)["records"] == 4
    assert findings(root) == []


STEPS = 15


def test_all_steps_are_those_that_are_killed_after(root: Path) -> None:
    steps: list[str] = []
    erased(root, "subject", SUBJECT, told=steps.append)
    assert len(steps) == STEPS


@pytest.mark.parametrize("step", range(1, STEPS))
def test_killed_after_any_step_it_is_unfinished_and_ends_the_same(step: int, root: Path) -> None:
    wanted = {name: one for name, one in records(root).items() if not {"words#w1", "words#w3"} & {*one.source_ids}}
    command = [sys.executable, str(CHILD), str(root / "corpus"), "subject", SUBJECT, str(step)]
    assert subprocess.run(command, check=False).returncode == -9
    assert any("is unfinished" in one for one in findings(root))
    with pytest.raises(StoreError, match="is unfinished"):
        Corpus.open(root / "corpus")
    again = corpusgen("erase", "--corpus", root / "corpus", "--json")
    assert (again.code, again.object["records"]) == (0, 4)
    assert findings(root) == []
    assert records(root) == wanted
    assert places(root / "corpus", "Quückenbush") == places(root / "cache", "Quückenbush") == []


def test_what_is_damaged_is_mended_first(root: Path) -> None:
    shard = root / "corpus" / "shards" / "words" / "train-00000.parquet"
    shard.write_bytes(shard.read_bytes()[:-9])
    with pytest.raises(CorpusDamaged, match="verify --repair"):
        erased(root, "subject", SUBJECT)
    assert list((root / "corpus").rglob("erasing-*")) == []
    assert corpusgen("verify", "--repair", "--corpus", root / "corpus").code == 0
    assert erased(root, "subject", SUBJECT)["erasure_id"] == 1
    assert places(root / "corpus", "Quückenbush") == []
    assert findings(root) == []


def test_a_hidden_file_that_is_lost_meanwhile_is_written_again(root: Path) -> None:
    def told(step: str) -> None:
        if step == "cut":
            for path in (root / "corpus").rglob("erasing-*"):
                path.unlink()

    erased(root, "subject", SUBJECT, told=told)
    assert findings(root) == []
    assert places(root / "corpus", "Quückenbush") == []


def test_without_a_selector_there_must_be_something_unfinished(root: Path) -> None:
    ran = corpusgen("erase", "--corpus", root / "corpus")
    assert (ran.code, "no erasure is unfinished" in ran.stderr) == (2, True)
    both = corpusgen("erase", "--source", "words", "--subject", "abc", "--corpus", root / "corpus")
    assert (both.code, "exclude each other" in both.stderr) == (2, True)
