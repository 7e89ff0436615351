"""Records become shards once, in the order of the run, whoever commits and whenever."""

from __future__ import annotations

import fcntl
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from flow_samples import open_corpus, write_task

from corpusgen.corpus import Corpus
from corpusgen.errors import CorpusDamaged
from corpusgen.fanout.stream import answers
from corpusgen.journal import Journal
from corpusgen.prompting.prompts import Prompt, prompts
from corpusgen.records import Completion, Reply, Request
from corpusgen.stages import committing
from corpusgen.stages.committing import ROWS_PER_SHARD, commit_records, committed_shards, one_at_a_time
from corpusgen.stages.loading import load_task
from corpusgen.stages.opening import open_run
from corpusgen.stages.rereading import reader_of
from corpusgen.stages.runs import Run
from corpusgen.stages.task import request_for
from corpusgen.store.answers import Card
from corpusgen.store.manifest import Manifest, read_manifest
from corpusgen.store.shards import read_records
from corpusgen.teacher_fields import TeacherSpec
from corpusgen.teachers.registry import open_teacher
from corpusgen.teachers.scripted import Scripted

ITEMS = 10


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committing, "ROWS_PER_SHARD", 4)


@asynccontextmanager
async def opened(folder: Path, *, clock_of: str = "corpus") -> AsyncIterator[Run]:
    task = load_task(write_task(folder, items=ITEMS))
    with open_corpus(folder / clock_of) as corpus:
        async with open_run(task, corpus) as run:
            yield run


def every(run: Run) -> list[Prompt]:
    card = run.asker.teacher.card
    return list(
        prompts(run.task.prompter.items("train"), lambda item, n: request_for(run.task, card, item, n), samples=1)
    )


async def ask(run: Run, wanted: Iterable[Prompt]) -> None:
    async with answers(run.asker, wanted) as records:
        assert [record async for record in records]


async def commit(run: Run) -> Manifest:
    return await commit_records(run.corpus, run.asker.teacher)


def rows(manifest: Manifest, corpus: Corpus) -> dict[str, list[str]]:
    """The inputs in each shard."""
    found = {entry.name: read_records([corpus.folder / entry.path]) for entry in manifest.shards}
    return {name: sorted(record.input[-4:] for record in records) for name, records in found.items()}


def numbers(*of: int) -> list[str]:
    return [f"{at:04}" for at in of]


async def test_each_block_of_the_run_is_a_shard_in_the_order_of_the_prompts(tmp_path: Path) -> None:
    async with opened(tmp_path) as run:
        await ask(run, reversed(every(run)))
        manifest = await commit(run)
        assert rows(manifest, run.corpus) == {
            "train-00000.parquet": numbers(0, 1, 2, 3),
            "train-00001.parquet": numbers(4, 5, 6, 7),
            "train-00002.parquet": numbers(8, 9),
        }
        assert [(entry.dataset, entry.split, entry.rows) for entry in manifest.shards] == [
            ("words", "train", 4),
            ("words", "train", 4),
            ("words", "train", 2),
        ]


async def test_committing_again_writes_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path) as run:
        await ask(run, every(run))
        first = await commit(run)
        assert await commit(run) == first == read_manifest(run.corpus.folder)
        waiting = run.corpus.journal.query("select count(*) from records where shard is null")
        assert waiting == [(0,)]


async def test_later_records_of_a_block_get_the_next_number(tmp_path: Path) -> None:
    async with opened(tmp_path) as run:
        wanted = every(run)
        await ask(run, wanted[:2])
        await commit(run)
        await ask(run, wanted[:5])
        assert rows(await commit(run), run.corpus) == {
            "train-00000.parquet": numbers(0, 1),
            "train-00001.parquet": numbers(2, 3),
            "train-00002.parquet": numbers(4),
        }


async def test_another_split_counts_for_itself(tmp_path: Path) -> None:
    async with opened(tmp_path) as run:
        wanted = every(run)
        await ask(run, wanted[:2])
        await ask(run, [replace(prompt, item=replace(prompt.item, split="gold")) for prompt in wanted[2:4]])
        found = rows(await commit(run), run.corpus)
        assert found == {"gold-00000.parquet": numbers(2, 3), "train-00000.parquet": numbers(0, 1)}


async def test_what_the_journal_says_is_what_is_in_the_file(tmp_path: Path) -> None:
    async with opened(tmp_path) as run:
        await ask(run, every(run)[:3])
        (entry,) = (await commit(run)).shards
        assert committed_shards(run.corpus) == [entry]
        assert entry.size_bytes == (run.corpus.folder / entry.path).stat().st_size
        marked = run.corpus.journal.query("select distinct shard from records")
        assert marked == [("words/train-00000.parquet",)]


@dataclass(kw_only=True)
class Interrupting(Scripted):
    """A teacher during whose reading somebody else adds a record."""

    journal: Journal
    row: tuple[object, ...]

    def read(self, request: Request, reply: Reply) -> Completion:
        sql = f"insert or ignore into records values({', '.join('?' * len(self.row))})"
        self.journal.run_now(lambda transaction: transaction.execute(sql, self.row) and None)
        return super().read(request, reply)


async def test_a_record_added_while_a_shard_is_written_waits_for_the_next(tmp_path: Path) -> None:
    async with opened(tmp_path) as run:
        await ask(run, every(run)[:3])
        journal, plain = run.corpus.journal, run.asker.teacher
        (row,) = journal.query("select * from records where ordinal = 2")
        journal.run_now(lambda transaction: transaction.execute("delete from records where ordinal = 2") and None)
        fields = {name: getattr(plain, name) for name in Scripted.__dataclass_fields__}
        await commit_records(run.corpus, Interrupting(**fields, journal=journal, row=row))
        assert rows(read_manifest(run.corpus.folder), run.corpus) == {"train-00000.parquet": numbers(0, 1)}
        assert rows(await commit(run), run.corpus)["train-00001.parquet"] == numbers(2)


async def test_a_lost_manifest_is_written_from_the_journal(tmp_path: Path) -> None:
    async with opened(tmp_path) as run:
        await ask(run, every(run))
        manifest = await commit(run)
        (run.corpus.folder / "MANIFEST.json").unlink()
        assert await commit(run) == manifest == read_manifest(run.corpus.folder)


async def test_answers_of_an_earlier_run_keep_their_own_facts(tmp_path: Path) -> None:
    async with opened(tmp_path) as run:
        await ask(run, every(run)[:2])
        (entry,) = (await commit(run)).shards
        (first, second) = read_records([run.corpus.folder / entry.path])
        assert {first.run_id, second.run_id} == {run.run_id}
        assert first.teacher == run.asker.card.teacher
        assert first.spec_digest == run.task.identity


def test_one_process_at_a_time_commits(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with one_at_a_time(path), path.open("w") as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with path.open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_ten_thousand_places_of_a_run_are_a_shard() -> None:
    assert ROWS_PER_SHARD == 10_000, "another number would write the same run to other files"


def test_a_reply_is_read_by_the_teacher_that_gave_it_and_by_no_namesake(tmp_path: Path) -> None:
    urls = ("https://openrouter.ai/api/v1", "http://127.0.0.1:8000/v1")
    specs = [TeacherSpec(name="endpoint/m", base_url=url, parameters={"max_tokens": 1}) for url in urls]
    router, here = (open_teacher(spec, sending=False) for spec in specs)
    with open_corpus(tmp_path) as corpus:
        run = json.dumps({"teachers": [spec.model_dump(mode="json", exclude_none=True) for spec in specs]})
        corpus.journal.run_now(
            lambda transaction: transaction.execute(
                "insert into runs(run_id, task, spec_digest, spec, status, started_us)"
                " values('r', 't', 's', ?, 'open', 0)",
                (run,),
            ).close()
        )
        for teacher in (router, here):
            card = Card(**{**CARD, "teacher": "endpoint/m", "model": "m", "identity": teacher.card.identity})
            assert reader_of(corpus, [router])(card).card.identity == teacher.card.identity
            assert reader_of(corpus)(card).card.identity == teacher.card.identity
        with pytest.raises(CorpusDamaged, match="no run here names"):
            reader_of(corpus, [router])(Card(**{**CARD, "teacher": "endpoint/n"}))


CARD: dict[str, Any] = {
    "teacher": "",
    "provider": "",
    "model": "",
    "route": "",
    "host": "",
    "identity": "",
    "revision": "",
    "terms_set_id": "",
    "terms_ids": (),
    "outputs_train": "allowed",
}
