"""The public way in: ``async with corpusgen.generate(spec, corpus) as records``."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from flow_samples import Server, endpoint, open_corpus, states, violations, write_task
from hypothesis import given
from hypothesis import strategies as st
from teacher_samples import answers as always
from teacher_samples import server

import corpusgen
from corpusgen.corpus import Corpus
from corpusgen.errors import BudgetExhausted, PolicyRefused, PriceUnknown, RequestRefused
from corpusgen.records import Json, Message, Record, Request
from corpusgen.store.manifest import read_manifest


@pytest.fixture
def corpus(tmp_path: Path) -> Iterator[Corpus]:
    with open_corpus(tmp_path / "corpus") as opened:
        yield opened


async def read(task: Path, corpus: Corpus, **fields: Any) -> list[Record]:
    async with corpusgen.generate(task, corpus, **fields) as records:
        return [record async for record in records]


async def test_a_task_becomes_records_and_shards(tmp_path: Path, corpus: Corpus) -> None:
    records = await read(write_task(tmp_path, items=20), corpus)
    assert len(records) == 20
    assert {record.response for record in records} == {"hello"}
    assert read_manifest(corpus.folder).rows == 20


async def test_a_second_run_asks_nothing(tmp_path: Path, corpus: Corpus) -> None:
    task = write_task(tmp_path)
    first = await read(task, corpus)
    second = await read(task, corpus)
    assert {record.record_id: record for record in first} == {record.record_id: record for record in second}
    assert states(corpus.journal) == {"settled": 20}


async def test_leaving_after_five_records_stops_the_spending(tmp_path: Path, corpus: Corpus) -> None:
    teacher = Server()
    async with server(teacher.answer) as url:
        task = write_task(tmp_path, items=500, teacher=endpoint(url, in_flight=8))
        async with corpusgen.generate(task, corpus) as records:
            for _ in range(5):
                await anext(records)
    assert 5 <= teacher.asked.total() <= 5 + 2 * 8
    assert teacher.most <= 8
    assert corpus.journal.query("select count(*) from answers") == [(teacher.asked.total(),)]
    assert states(corpus.journal)["promised"] == 0


async def test_a_slow_reader_slows_the_teacher(tmp_path: Path, corpus: Corpus) -> None:
    teacher = Server()
    ahead: list[int] = []
    async with server(teacher.answer) as url:
        task = write_task(tmp_path, items=60, teacher=endpoint(url, in_flight=4))
        async with corpusgen.generate(task, corpus) as records:
            async for _ in records:
                await asyncio.sleep(0.005)
                ahead.append(teacher.asked.total() - len(ahead) - 1)
    assert len(ahead) == 60
    assert max(ahead) <= 2 * 4


async def test_a_failing_call_arrives_as_itself(tmp_path: Path, corpus: Corpus) -> None:
    async with server(always(400, {"error": {"message": "no such thing"}})) as url:
        task = write_task(tmp_path, teacher=endpoint(url))
        with pytest.raises(RequestRefused, match="no such thing"):
            await read(task, corpus)


async def test_an_exception_of_the_reader_passes_as_itself(tmp_path: Path, corpus: Corpus) -> None:
    async def fail() -> None:
        async with corpusgen.generate(write_task(tmp_path), corpus) as records:
            raise ZeroDivisionError(await anext(records))

    with pytest.raises(ZeroDivisionError):
        await fail()


async def test_200_prompts_with_50_distinct_are_50_requests(tmp_path: Path, corpus: Corpus) -> None:
    teacher = Server(latency_s=0.01)
    async with server(teacher.answer) as url:
        task = write_task(tmp_path, items=200, distinct=50, teacher=endpoint(url, in_flight=32))
        await read(task, corpus)
    assert teacher.asked.total() == 50


async def test_two_runs_at_the_same_time_ask_the_same_thing_once(tmp_path: Path, corpus: Corpus) -> None:
    teacher = Server(latency_s=0.01)
    async with server(teacher.answer) as url:
        task = write_task(tmp_path, items=50, teacher=endpoint(url, in_flight=16))
        first, second = await asyncio.gather(read(task, corpus), read(task, corpus))
    assert len(first) == len(second) == 50
    assert teacher.asked.total() == 50
    assert read_manifest(corpus.folder).rows == 50


async def leave_after_one(task: Path, corpus: Corpus) -> None:
    async with corpusgen.generate(task, corpus) as records:
        await anext(records)
        raise InterruptedError


async def test_a_run_that_one_process_leaves_goes_on_while_another_asks(tmp_path: Path, corpus: Corpus) -> None:
    teacher = Server(latency_s=0.3)
    async with server(teacher.answer) as url:
        task = write_task(tmp_path, items=8, teacher=endpoint(url, in_flight=1))
        asking = asyncio.ensure_future(read(task, corpus))
        while not teacher.now:  # noqa: ASYNC110 - nothing tells when a call has arrived
            await asyncio.sleep(0.01)
        with open_corpus(corpus.folder) as beside:
            with pytest.raises(InterruptedError):
                await leave_after_one(task, beside)
            assert beside.journal.query("select distinct status from runs") == [("open",)]
        await asking
    assert corpus.journal.query("select distinct status from runs") == [("complete",)]


async def test_a_429_pauses_everybody_and_loses_no_prompt(tmp_path: Path, corpus: Corpus) -> None:
    teacher = Server()
    refused = 0

    async def limited(request: web.Request) -> web.StreamResponse:
        nonlocal refused
        if teacher.answered.total() >= 10 and refused < 3:
            refused += 1
            return web.json_response({"error": "slow down"}, status=429, headers={"retry-after-ms": "50"})
        return await teacher.answer(request)

    async with server(limited) as url:
        records = await read(write_task(tmp_path, items=40, teacher=endpoint(url)), corpus)
    assert (len(records), refused) == (40, 3)
    found = states(corpus.journal)
    assert (found["settled"], found["promised"], found.total()) == (40, 0, 43)


async def test_a_cap_stops_the_run_and_a_higher_one_goes_on(tmp_path: Path, corpus: Corpus) -> None:
    teacher = Server()
    async with server(teacher.answer) as url:
        task = write_task(tmp_path, items=20, teacher=endpoint(url))
        with pytest.raises(BudgetExhausted, match="--budget tokens"):
            await read(task, corpus, caps={"tokens": 100})
        assert not violations(corpus.journal)
        paid = corpus.journal.query("select count(*) from records")[0][0]
        assert 0 < paid == teacher.asked.total() < 20
        assert len(await read(task, corpus, caps={"tokens": 5000})) == 20
    assert teacher.asked.total() == 20


async def test_a_teacher_of_unknown_price_is_sent_nothing(tmp_path: Path, corpus: Corpus) -> None:
    task = write_task(tmp_path, teacher={"free": False})
    with pytest.raises(PriceUnknown, match="free: true"):
        await read(task, corpus)
    assert not states(corpus.journal)


async def test_a_denied_teacher_is_sent_nothing(tmp_path: Path, corpus: Corpus) -> None:
    teacher = Server()
    async with server(teacher.answer) as url:
        task = write_task(tmp_path, teacher=endpoint(url, provider="nobody-knows", route="api"))
        with pytest.raises(PolicyRefused):
            await read(task, corpus)
    assert teacher.asked.total() == 0


# --- the request key -------------------------------------------------------------------------------------------------

JSON: st.SearchStrategy[Json] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
PARAMETERS = st.dictionaries(st.text(min_size=1), JSON, max_size=5)


def key(parameters: dict[str, Json], **fields: Any) -> bytes:
    named = {"teacher": "t", "model": "m", "api": "chat", "messages": (Message(role="user", content="hi"),)} | fields
    return Request(parameters=parameters, **named).key


def plain(value: Json) -> Json:
    """The value as JSON has it: names in order, and 1.0 is 1."""
    if isinstance(value, dict):
        return {name: plain(value[name]) for name in sorted(value)}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value


@given(parameters=PARAMETERS, name=st.text(min_size=1), values=st.tuples(JSON, JSON))
def test_every_parameter_changes_the_key(parameters: dict[str, Json], name: str, values: tuple[Json, Json]) -> None:
    one, other = ({**parameters, name: value} for value in values)
    assert (key(one) == key(other)) == (repr(plain(values[0])) == repr(plain(values[1])))
    assert key(one) != key({given: value for given, value in parameters.items() if given != name})


@given(parameters=PARAMETERS)
def test_the_order_of_parameters_does_not_change_the_key(parameters: dict[str, Json]) -> None:
    assert key(dict(reversed(parameters.items()))) == key(parameters)


@given(number=st.integers(-(2**52), 2**52))
def test_a_whole_number_is_the_same_with_and_without_a_fraction(number: int) -> None:
    assert key({"temperature": number}) == key({"temperature": float(number)})


@pytest.mark.parametrize(
    "changed",
    [
        {"teacher": "other"},
        {"model": "other"},
        {"api": "completion"},
        {"messages": (Message(role="system", content="hi"),)},
        {"messages": (Message(role="user", content="hi "),)},
        {"schema": {"type": "object"}},
        {"tools": [{"name": "t"}]},
        {"sample_index": 1},
    ],
)
def test_everything_that_can_change_the_answer_changes_the_key(changed: dict[str, Any]) -> None:
    assert key({}, **changed) != key({})
