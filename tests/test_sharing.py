"""What one corpus paid for is not bought again by another, and keeps its terms and its price."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from flow_samples import NOON, Server, endpoint, open_corpus, states, violations, write_task
from teacher_samples import server

import corpusgen
from corpusgen.corpus import Corpus
from corpusgen.records import Record
from corpusgen.stages.verifying import verify
from corpusgen.store.shared_cache import FOLDER

PRICE = {"input_usd_per_mtok": 10, "output_usd_per_mtok": 100, "source": "test"}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CORPUSGEN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / FOLDER


async def run(folder: Path, url: str, *, items: int = 20, **changes: Any) -> tuple[list[Record], list[Any]]:
    """The records of a task in a corpus of its own, and what is wrong with that corpus."""
    teacher = endpoint(url, price=PRICE, free=False) | changes.pop("teacher", {})
    task = write_task(folder / "task", items=items, teacher=teacher, budget={"usd": 5}, **changes)
    with open_corpus(folder / "corpus") as corpus:
        async with corpusgen.generate(task, corpus) as records:
            every = [record async for record in records]
        return every, [*verify(corpus), *violations(corpus.journal), states(corpus.journal)]


def as_bought(record: Record) -> Record:
    cost = record.origin_cost_microusd or record.cost_microusd
    return replace(record, from_cache=False, cost_microusd=cost, origin_cost_microusd=None)


async def test_the_same_prompts_in_a_second_corpus_send_nothing(tmp_path: Path) -> None:
    teacher = Server()
    async with server(teacher.answer) as url:
        bought, _ = await run(tmp_path / "a", url)
        asked = teacher.asked.total()
        shared, state = await run(tmp_path / "b", url)
    assert (asked, teacher.asked.total(), len(shared)) == (20, 20, 20)
    assert state == [{}]
    by_id = {record.record_id: record for record in bought}
    assert {as_bought(record).record_id: as_bought(record) for record in shared} == by_id
    assert {(record.from_cache, record.cost_microusd) for record in shared} == {(True, 0)}
    assert {record.origin_cost_microusd for record in shared} == {record.cost_microusd for record in bought} != {0}


async def test_only_what_is_new_is_asked(tmp_path: Path) -> None:
    teacher = Server()
    async with server(teacher.answer) as url:
        await run(tmp_path / "a", url, items=10)
        records, state = await run(tmp_path / "b", url, items=15)
        again, _ = await run(tmp_path / "b", url, items=15)
    assert teacher.asked.total() == 15
    assert sorted(record.from_cache for record in records) == [False] * 5 + [True] * 10
    assert state == [{"settled": 5}]
    assert {record.record_id: record for record in again} == {record.record_id: record for record in records}


async def test_a_deleted_or_tampered_cache_is_asked_around(tmp_path: Path, cache: Path) -> None:
    teacher = Server()
    async with server(teacher.answer) as url:
        first, _ = await run(tmp_path / "a", url)
        with closing(sqlite3.connect(cache / "cache.db")) as connection, connection:
            connection.execute("update Cache set value = substr(value, 1, 50) where rowid % 2 = 0")
        records, state = await run(tmp_path / "b", url)
        (cache / "cache.db").unlink()
        kept, _ = await run(tmp_path / "b", url)
    assert teacher.asked.total() == 30
    assert state == [{"settled": 10}]
    assert {record.response for record in records} == {record.response for record in first}
    assert len(kept) == 20


async def test_an_answer_given_on_terms_that_today_forbid_it_is_bought_anew(tmp_path: Path) -> None:
    teacher = Server()
    async with server(teacher.answer) as url:
        await run(tmp_path / "a", url)
        rewritten(tmp_path / "cache" / FOLDER, "no-such-terms")
        records, _ = await run(tmp_path / "b", url)
    assert teacher.asked.total() == 40
    assert not any(record.from_cache for record in records)


def rewritten(folder: Path, terms: str) -> None:
    """Give every entry other terms, as if it had been asked for on them."""
    from corpusgen.store.shared_cache import pack, unpack

    with closing(sqlite3.connect(folder / "cache.db")) as connection, connection:
        for name, value in connection.execute("select key, value from Cache").fetchall():
            shared = unpack(bytes.fromhex(name), value)
            other = replace(shared, card=replace(shared.card, terms_ids=(terms,)))
            connection.execute("update Cache set value = ? where key = ?", (pack(other), name))


async def test_off_is_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORPUSGEN_CACHE", "off")
    teacher = Server()
    async with server(teacher.answer) as url:
        await run(tmp_path / "a", url, items=3)
        await run(tmp_path / "b", url, items=3)
    assert teacher.asked.total() == 6
    assert "cache" not in os.listdir(tmp_path)


async def test_a_run_past_midnight_pays_the_new_days_price(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from corpusgen.budget.prices import Rate
    from corpusgen.stages import opening

    days = iter([NOON, *[datetime(2026, 1, 2, 12, tzinfo=UTC)] * 1000])
    monkeypatch.setattr(
        opening, "price_of", lambda task, on: Rate(input_per_mtok=0, output_per_mtok=on.day * 10**6, version=str(on))
    )
    teacher = Server()
    async with server(teacher.answer) as url:
        task = write_task(tmp_path, items=4, teacher=endpoint(url, price=PRICE, free=False), budget={"usd": 5})
        with Corpus.open(tmp_path / "corpus", clock=lambda: next(days), new_run_id=lambda: "r1") as corpus:
            async with corpusgen.generate(task, corpus) as records:
                every = [record async for record in records]
    assert {record.price_version for record in every} == {"2026-01-02"}
    assert {record.cost_microusd for record in every} == {2}
