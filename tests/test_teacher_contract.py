"""What every teacher must keep, over every file in ``corpusgen/teachers`` that is one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import orjson
import pytest
from teacher_samples import TickingClock, answers, chat_reply, ranked, reply, request, server, spec
from test_embedded import needs_weights

from corpusgen.errors import InvalidAnswer, RequestRefused
from corpusgen.records import Message, Reply, Request
from corpusgen.spec import TeacherSpec
from corpusgen.teachers.registry import check_parameters, known_teachers, open_teacher
from corpusgen.teachers.teacher import Teacher

Opened = Callable[[], AbstractAsyncContextManager[Teacher]]
LABELS = ("animal", "food", "plant")


@asynccontextmanager
async def opened(chosen: TeacherSpec, folder: Path = Path()) -> AsyncIterator[Teacher]:
    teacher = open_teacher(chosen, folder=folder, clock=TickingClock())
    try:
        yield teacher
    finally:
        await teacher.aclose()


@asynccontextmanager
async def endpoint() -> AsyncIterator[Teacher]:
    both = chat_reply({"content": "animal"}) | {"id": "x"}
    both["choices"][0] |= {"text": " animal", "logprobs": ranked((" animal", -0.5), (" food", -1.5))}
    async with server(answers(body=both)) as url, opened(spec("endpoint/m", base_url=url)) as teacher:
        yield teacher


@pytest.fixture(
    params=[
        pytest.param("scripted"),
        pytest.param("endpoint"),
        pytest.param("embedded", marks=[pytest.mark.local, needs_weights]),
    ]
)
def teachers(request: pytest.FixtureRequest, tmp_path: Path) -> Opened:
    (tmp_path / "answers.yaml").write_text("default: {labels: [animal, food, plant]}")
    kinds: dict[str, Opened] = {
        "scripted": lambda: opened(spec("scripted/m", script="answers.yaml"), tmp_path),
        "endpoint": endpoint,
        "embedded": lambda: opened(spec("embedded/smollm2-135m", in_flight=1)),
    }
    return kinds[request.param]


def test_every_kind_of_teacher_is_held_to_this_contract() -> None:
    assert {offer.name.partition("/")[0] for offer in known_teachers()} == {"scripted", "endpoint", "embedded"}


async def test_the_card_says_who_answers(teachers: Opened) -> None:
    async with teachers() as teacher:
        card = teacher.card
    assert all((card.name, card.identity, card.provider, card.model, card.host))
    assert card.in_flight >= 1
    assert card.identity == (f"weights:sha256:{card.weights_sha256}" if card.weights_sha256 else card.identity)


async def test_an_answer_is_read_the_same_each_time_and_within_the_bound(teachers: Opened) -> None:
    asked = request("Definition: a swan\nKind:", top_logprobs=5, temperature=0)
    async with teachers() as teacher:
        check_parameters(teacher.card, asked.parameters, asked.api)
        got = await teacher.ask(asked, timeout_s=60)
        read = teacher.read(asked, got)
        assert read == teacher.read(asked, got)
        assert read.usage.input_tokens <= teacher.input_tokens_bound(asked)
    assert got.sent_time < got.received_time
    assert read.provider_request_id
    assert read.logprobs is not None
    assert read.logprobs.topk_len[0] >= 2


async def test_a_chat_is_answered_too(teachers: Opened) -> None:
    asked = request("Say hello.", api="chat", max_tokens=4)
    async with teachers() as teacher:
        read = teacher.read(asked, await teacher.ask(asked, timeout_s=60))
        assert read.usage.input_tokens <= teacher.input_tokens_bound(asked)
    assert read.text
    assert read.finish_reason in ("stop", "length")


async def test_first_tokens_are_not_known_or_tell_the_labels_apart(teachers: Opened) -> None:
    async with teachers() as teacher:
        tokens = await teacher.first_tokens(LABELS)
    assert tokens is None or len(set(tokens)) == len(LABELS)


async def test_what_cannot_be_asked_is_refused_and_owes_nothing(teachers: Opened) -> None:
    two = (Message(role="user", content="a"), Message(role="user", content="b"))
    asked = Request(teacher="t", model="m", api="completion", messages=two, parameters={"max_tokens": 1})
    async with teachers() as teacher:
        with pytest.raises(RequestRefused) as caught:
            await teacher.ask(asked, timeout_s=60)
    assert (caught.value.billable, caught.value.transient) == (False, False)


async def test_a_body_that_is_no_answer_is_never_read_as_one(teachers: Opened) -> None:
    clock = TickingClock()
    bad = [b"<html>", orjson.dumps({"error": {"message": "no"}}), orjson.dumps(reply(usage={}))]
    async with teachers() as teacher:
        for body in bad:
            with pytest.raises(InvalidAnswer):
                teacher.read(request(), Reply(body=body, request_id=None, sent_time=clock(), received_time=clock()))


async def test_a_teacher_may_be_closed_twice_and_unused(teachers: Opened) -> None:
    async with teachers() as teacher:
        await teacher.aclose()
        await teacher.aclose()
