"""A shard of what is still in memory is, byte for byte, the one that the journal gives."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from conversation_samples import TOOLS
from flow_samples import write_task
from hypothesis import given, settings
from hypothesis import strategies as st
from record_samples import SAMPLE_TIME, records, sample_record

from corpusgen.corpus import Corpus
from corpusgen.pipeline import generate
from corpusgen.records import Record
from corpusgen.stages import committing
from corpusgen.store import fresh as fresh_module
from corpusgen.store.answers import RecordRow
from corpusgen.store.fresh import Fresh, NotTheSame, Window, fresh_of
from corpusgen.store.shards import ShardFile, read_records, write_batches, write_shard


class Turning:
    """As much of a journal as is asked here."""

    turned_away = 0


def hashed(record: Record, at: int) -> Record:
    return replace(record, record_id=hashlib.sha256(f"{at}".encode()).hexdigest())


def window_of(made: list[Record]) -> Window:
    window = Window()
    for record in made:
        window.add(record, 100)
    return window


def both(folder: Path, made: list[Record]) -> tuple[ShardFile, ShardFile]:
    ordered = sorted(made, key=lambda record: record.record_id)
    names = [bytes.fromhex(record.record_id) for record in ordered]
    kept = write_batches(folder / "kept", "a.parquet", window_of(made).batches(names))
    return write_shard(folder / "again", "a.parquet", ordered), kept


@settings(max_examples=40, deadline=None)
@given(st.lists(records(), min_size=1, max_size=40), st.integers(1, 9))
def test_strange_records_give_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory, made: list[Record], waiting: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fresh_module, "WAITING", waiting)
        again, kept = both(tmp_path_factory.mktemp("fresh"), [hashed(one, at) for at, one in enumerate(made)])
    assert kept == again


def test_many_row_groups_and_columns_that_change_late_give_the_same_bytes(tmp_path: Path) -> None:
    made = [
        hashed(
            sample_record(
                input=f"{at} " * 300,
                response=f"{at % 7}" * 500,
                label=None if at % 3 else "plant",
                task="t" if at < 3_900 else "u",
                latency_ms=0.0 if at % 2 else -0.0,
                sent_time=SAMPLE_TIME,
            ),
            at,
        )
        for at in range(4_000)
    ]
    again, kept = both(tmp_path, made)
    assert kept == again


def test_other_names_than_the_journal_has_are_noticed(tmp_path: Path) -> None:
    made = [hashed(sample_record(), at) for at in range(300)]
    names = sorted(bytes.fromhex(record.record_id) for record in made)
    for wrong in ([*names[:-1], b"\xff" * 32], names[:-1], [*names, b"\xff" * 32]):
        with pytest.raises(NotTheSame):
            write_batches(tmp_path, "a.parquet", window_of(made).batches(wrong))
    assert not list(tmp_path.iterdir())


def test_a_record_that_does_not_fit_is_left_to_who_can_say_so(tmp_path: Path) -> None:
    for fields in ({"input_tokens": 2**40}, {"latency_ms": "long"}):
        made = [hashed(sample_record(**fields), at) for at in range(300)]
        names = sorted(bytes.fromhex(record.record_id) for record in made)
        with pytest.raises(NotTheSame):
            write_batches(tmp_path, "a.parquet", window_of(made).batches(names))


def row_of(record: Record, ordinal: int = 0) -> RecordRow:
    return RecordRow(
        record_id=record.record_id,
        run_id=record.run_id,
        dataset="d",
        split="train",
        ordinal=ordinal,
        item_id="i",
        request_key=b"k",
        first_key=b"k",
        from_cache=False,
        item={},
    )


def filled(count: int, **fields: object) -> Fresh:
    fresh = Fresh(journal=Turning())  # type: ignore[arg-type]
    for at in range(count):
        record = hashed(sample_record(**fields), at)
        fresh.add(row_of(record, at), record, "facts")
    return fresh


def test_what_is_kept_is_handed_out_once_and_only_whole() -> None:
    assert filled(5).take(("d", "train", 0), 4) is None
    fresh = filled(5)
    assert fresh.take(("d", "train", 0), 5) is not None
    assert fresh.take(("d", "train", 0), 5) is None


def test_after_a_row_that_the_journal_turned_away_nothing_is_believed() -> None:
    fresh = filled(5)
    fresh.journal.turned_away += 1
    assert fresh.take(("d", "train", 0), 5) is None


def test_a_heavy_record_or_other_facts_end_the_keeping() -> None:
    assert filled(3, response="x" * 40_000).take(("d", "train", 0), 3) is None
    fresh = filled(3)
    late = hashed(sample_record(), 9)
    fresh.add(row_of(late, 9), late, "other facts")
    assert fresh.take(("d", "train", 0), 4) is None


def test_no_more_is_kept_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fresh_module, "MOST_BYTES", 20_000)
    monkeypatch.setattr(fresh_module, "WAITING", 4)
    fresh = filled(2_000)
    assert fresh.size < 40_000
    assert fresh.take(("d", "train", 0), 2_000) is None


@pytest.fixture
def from_memory(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each shard was written from memory."""
    ways: list[bool] = []
    written = committing._written_from_memory

    def noted(*given: object) -> ShardFile | None:
        file = written(*given)  # type: ignore[arg-type]
        ways.append(file is not None)
        return file

    monkeypatch.setattr(committing, "_written_from_memory", noted)
    return ways


async def shard_of(folder: Path, *, forget: bool, items: int = 700, **changes: Any) -> list[bytes]:
    task = write_task(folder, items=items, **changes)
    clock = [SAMPLE_TIME]
    with Corpus.open(folder / "corpus", clock=lambda: clock[0], new_run_id=lambda: "run") as corpus:
        async with generate(task, corpus) as found:
            async for _ in found:
                pass
            if forget:
                fresh_of(corpus).forget()
        return [path.read_bytes() for path in sorted((folder / "corpus").rglob("*.parquet"))]


async def test_a_run_writes_the_same_shard_from_memory_and_from_the_journal(
    tmp_path: Path, from_memory: list[bool]
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert await shard_of(tmp_path / "a", forget=False) == await shard_of(tmp_path / "b", forget=True)
    assert from_memory == [True, False]


async def test_conversations_give_the_same_shard_from_memory_and_from_the_journal(
    tmp_path: Path, from_memory: list[bool]
) -> None:
    task: dict[str, Any] = {"items": 30, "tools": TOOLS["chat"], "curate": {"pii": {"stored": "mask"}}}
    shards = [await shard_of(tmp_path / name, forget=name == "b", **task) for name in "ab"]
    assert (shards[0], from_memory) == (shards[1], [True, False])
    told = {record.conversation for record in read_records((tmp_path / "a" / "corpus").rglob("*.parquet"))}
    assert len(told) == 30
    assert all(orjson.loads(one or "")["tools"] == TOOLS["chat"] for one in told)
