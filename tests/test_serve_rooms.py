"""Rooms and seats of a gateway: whose figures hold in which run, who waits for whom, and for how long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from gateway_samples import Gateway, chat, gateway, gateway_with_mock, offer, write_config

from corpusgen.corpus import Corpus
from corpusgen.errors import CorpusUnwritable
from corpusgen.mock.server import Options, mock_teacher
from corpusgen.serve.config import Configured, load_config
from corpusgen.serve.memory import Memory, Remembered
from corpusgen.serve.rooms import RoomKey, Rooms, task_of, use_text
from corpusgen.stages.erasure.erasing import erase
from corpusgen.stages.erasure.reaching import Selector
from corpusgen.store.durable import hidden_name


async def asked(gate: Gateway, body: dict[str, Any], **headers: str) -> tuple[int, Any]:
    """Status and headers of a chat."""
    async with gate.http.post("/v1/chat/completions", json=body, headers=headers) as response:
        await response.read()
        return response.status, response.headers


def key_of(config: Configured, at: int = 0, run: str = "") -> RoomKey:
    return RoomKey(at=at, task="traffic", use=use_text(config.spec.intended_use.model_dump(mode="json")), run=run)


PRICE = {"output_usd_per_mtok": 4, "source": "made up"}


@asynccontextmanager
async def two_aliases(folder: Path) -> AsyncIterator[Gateway]:
    """A service that offers one teacher under two names and two prices."""
    async with mock_teacher(Options()) as mock:
        cheap = offer(mock, model="cheap", price={"input_usd_per_mtok": 1, **PRICE})
        dear = offer(mock, model="dear", price={"input_usd_per_mtok": 1000, **PRICE})
        async with gateway(folder, mock, cheap, dear) as gate:
            yield gate


async def test_two_aliases_of_one_teacher_have_a_folder_a_run_and_a_price_each(tmp_path: Path) -> None:
    async with two_aliases(tmp_path) as gate:
        bodies = [{**chat(f"Ask {alias}"), "model": alias} for alias in ("cheap", "dear")]
        answers = await asyncio.gather(*(asked(gate, body) for body in bodies))
        cheap, dear = (float(headers["x-corpusgen-cost-usd"]) for _, headers in answers)
        assert 0 < cheap * 20 < dear
        rooms = gate.service.desk.rooms.open
        assert len({room.run.run_id for room in rooms}) == len({room.run.task.located.file for room in rooms}) == 2


async def test_a_price_that_changes_begins_no_other_run(tmp_path: Path) -> None:
    runs = []
    async with mock_teacher(Options()) as mock:
        for price in (1, 2):
            teacher = offer(mock, price={"input_usd_per_mtok": price, **PRICE})
            async with gateway(tmp_path, mock, teacher) as gate:
                await asked(gate, chat(f"At {price}"))
                runs.append(gate.service.desk.rooms.open[0].run.run_id)
    assert runs[0] == runs[1]


async def test_the_label_calls_is_another_run_than_none(tmp_path: Path) -> None:
    async with gateway_with_mock(tmp_path) as gate:
        for label in ({}, {"x-corpusgen-run": "calls"}, {"x-corpusgen-run": "label-calls"}):
            assert (await asked(gate, chat(f"Under {label}"), **label))[0] == 200
        assert len({room.run.run_id for room in gate.service.desk.rooms.open}) == 3


async def test_a_room_that_two_services_open_at_once_is_written_by_one_after_the_other(tmp_path: Path) -> None:
    async with mock_teacher(Options()) as mock:
        config = load_config(write_config(tmp_path, offer(mock)))
    with Corpus.open(tmp_path / "corpus") as corpus, ThreadPoolExecutor(4) as pool:
        for at in range(20):
            key = key_of(config, run=f"r{at}")
            tasks = [pool.submit(task_of, corpus, config, key) for _ in range(4)]
            assert len({task.result().identity for task in tasks}) == 1
        assert not list((tmp_path / "corpus" / "service").glob("*/.*"))


def test_writers_of_one_file_have_a_hidden_name_each(tmp_path: Path) -> None:
    assert len({hidden_name(tmp_path / "task.yaml", writer) for writer in ("", "1-1", "1-2")}) == 3


async def test_what_the_disk_would_not_take_is_tried_again_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with mock_teacher(Options()) as mock:
        config = load_config(write_config(tmp_path, offer(mock, price=None, free=True)))
        with Corpus.open(tmp_path / "corpus") as corpus:
            rooms, key = Rooms(corpus=corpus, config=config), key_of(config)
            with monkeypatch.context() as patched:
                patched.setattr("corpusgen.serve.rooms.task_of", _unwritable)
                with pytest.raises(CorpusUnwritable):
                    await rooms.room(key)
            assert (await rooms.room(key)).key == key
            await rooms.aclose()


def _unwritable(*_: object) -> None:
    raise CorpusUnwritable("somebody else had the file")


@asynccontextmanager
async def one_seat(folder: Path, **limits: float) -> AsyncIterator[Gateway]:
    """A slow teacher that is asked one call at a time."""
    async with (
        mock_teacher(Options(latency_s=1.0)) as mock,
        gateway(folder, mock, offer(mock, in_flight=1), limits=limits) as gate,
    ):
        yield gate


async def test_the_wait_for_a_seat_is_part_of_the_wait_that_a_limit_bounds(tmp_path: Path) -> None:
    async with one_seat(tmp_path, wait_s=0.2) as gate:
        answers = await asyncio.gather(*(asked(gate, chat(f"Ask {at}")) for at in range(3)))
        assert sorted(status for status, _ in answers) == [200, 429, 429]
        assert all(int(headers["Retry-After"]) >= 1 for status, headers in answers if status == 429)
        assert gate.bill["requests"] == 1
        assert (await asked(gate, chat("Ask 9")))[0] == 200


async def test_what_is_known_waits_for_no_seat(tmp_path: Path) -> None:
    async with one_seat(tmp_path) as gate:
        await asked(gate, chat("Known"))
        slow = asyncio.create_task(asked(gate, chat("Slow")))
        (room,) = gate.service.desk.rooms.open
        while not gate.service.desk.seat(room).locked():  # noqa: ASYNC110 - a semaphore tells nobody
            await asyncio.sleep(0.01)
        status, headers = await asked(gate, chat("Known", user="other bytes"))
        assert (status, headers["x-corpusgen-cache"], slow.done()) == (200, "hit", False)
        assert (await slow)[0] == 200


async def test_who_waits_for_the_same_answer_takes_no_seat(tmp_path: Path) -> None:
    async with one_seat(tmp_path) as gate:
        answers = await asyncio.gather(*(asked(gate, chat("Same", user=f"u{at}")) for at in range(4)))
        assert sorted(headers["x-corpusgen-cache"] for _, headers in answers) == ["hit", "hit", "hit", "miss"]
        assert gate.bill["requests"] == 1


async def test_erasing_a_subject_complains_of_no_file_of_a_service(tmp_path: Path) -> None:
    async with gateway_with_mock(tmp_path) as gate:
        await asked(gate, chat("Write to Alice Smith"))
    with Corpus.open(tmp_path / "corpus", erasing=True) as corpus:
        report = erase(corpus, Selector(kind="subject", values=("Alice Smith",)), by="test")
    assert "calls.jsonl" not in str(report)


def test_a_newer_answer_to_the_same_call_takes_the_place_of_the_one_at_hand() -> None:
    def answer(body: bytes) -> Remembered:
        return Remembered(room=None, body=body, headers={}, record_id="", saved_microusd=0)  # type: ignore[arg-type]

    memory = Memory()
    memory.keep(b"mark", answer(b"old and long"))
    memory.keep(b"mark", answer(b"new"))
    assert memory.get(b"mark") == answer(b"new")
    assert memory.size == len(b"new") + 2_000
