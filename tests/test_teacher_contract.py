"""What every teacher must keep, over every file in ``corpusgen/teachers`` that is one, and every row of the table.

A new file is found by existing: if it speaks HTTP, it is asked here at a loopback server that answers in every wire
format we know. What has no address (a script, a model on this machine) says below how it is opened.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web
from teacher_samples import (
    Handler,
    TickingClock,
    answers,
    chat_reply,
    claude,
    every_format,
    reply,
    response,
    server,
    spec,
)
from test_embedded import needs_weights

from corpusgen.errors import (
    InvalidAnswer,
    NotSent,
    RateLimited,
    RequestRefused,
    TeacherError,
    TeacherFault,
    TeacherTimeout,
    UnknownTeacher,
    UnsupportedParameter,
    UsageError,
)
from corpusgen.records import Api, Message, Reply, Request
from corpusgen.teacher_fields import TeacherSpec
from corpusgen.teachers.billing import shipped_rows
from corpusgen.teachers.reading import most_output
from corpusgen.teachers.registry import _kinds, check_parameters, known_teachers, open_teacher
from corpusgen.teachers.teacher import Teacher

Opened = Callable[[], AbstractAsyncContextManager[Teacher]]
LABELS = ("animal", "food", "plant")
WITHOUT_ADDRESS = ("scripted", "embedded")
ASKED_BY_NOBODY = ("imported",)
"""Reads rows that came from outside; no spec can name it (``test_importing.py``)."""
BY_NAME = {
    **{row.name: {} for row in shipped_rows()},
    **{kind: {} for kind in _kinds() if kind not in (*WITHOUT_ADDRESS, *ASKED_BY_NOBODY)},
    "openai by responses": {"api": "responses"},
    "endpoint by responses": {"api": "responses"},
    "azure with a version": {"api_version": "2024-10-21"},
    "anthropic before": {"api_version": "2023-06-01"},
    "openai by sdk": {"transport": "sdk"},
    "openai by sdk and responses": {"transport": "sdk", "api": "responses"},
    "endpoint by sdk": {"transport": "sdk"},
    "azure by sdk": {"transport": "sdk", "api_version": "2024-10-21"},
    "anthropic by sdk": {"transport": "sdk"},
    "anthropic by sdk before": {"transport": "sdk", "api_version": "2023-06-01"},
    "bedrock": {"key_env": "CG_CLOUD_KEY"},
    "bedrock before": {"key_env": "CG_CLOUD_KEY", "api_version": "bedrock-2023-05-31"},
    "vertex": {"key_env": "CG_CLOUD_KEY"},
}
"""Every teacher with an address, and what its spec says besides."""
SILENT: dict[Api, Callable[..., dict[str, Any]]] = {
    "chat": chat_reply,
    "completion": reply,
    "responses": response,
    "messages": claude,
}


@asynccontextmanager
async def opened(chosen: TeacherSpec, folder: Path = Path()) -> AsyncIterator[Teacher]:
    teacher = open_teacher(chosen, folder=folder, clock=TickingClock())
    try:
        yield teacher
    finally:
        await teacher.aclose()


@asynccontextmanager
async def at(name: str, handler: Handler) -> AsyncIterator[Teacher]:
    """The teacher of a name, at a loopback server."""
    async with server(handler) as url, opened(named(name, base_url=url)) as teacher:
        yield teacher


def named(name: str, **fields: Any) -> TeacherSpec:
    return spec(f"{name.partition(' ')[0]}/m", **{**BY_NAME[name], **fields})


@pytest.fixture(autouse=True)
def in_a_cloud(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the clouds take from the environment; how they are signed in to without a key is tried elsewhere."""
    for variable in ("CG_CLOUD_KEY", "AWS_REGION", "CLOUD_ML_REGION", "ANTHROPIC_VERTEX_PROJECT_ID"):
        monkeypatch.setenv(variable, "eu-west-1")


@pytest.fixture(
    params=[
        *(pytest.param(name) for name in BY_NAME),
        pytest.param("scripted"),
        pytest.param("embedded", marks=[pytest.mark.local, needs_weights]),
    ]
)
def teachers(request: pytest.FixtureRequest, tmp_path: Path) -> Opened:
    (tmp_path / "answers.yaml").write_text("default: {labels: [animal, food, plant]}")
    kinds: dict[str, Opened] = {
        "scripted": lambda: opened(spec("scripted/m", script="answers.yaml"), tmp_path),
        "embedded": lambda: opened(spec("embedded/smollm2-135m", in_flight=1)),
    }
    return kinds.get(request.param, lambda: at(request.param, every_format()))


@pytest.fixture(params=list(BY_NAME))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def question(teacher: Teacher, *messages: Message, **parameters: Any) -> Request:
    """A request in the words of this teacher; a chat unless it is one text."""
    card = teacher.card
    given = messages or (Message(role="user", content="Definition: a swan\nKind:"),)
    api: Api = card.chat_api if messages or "completion" not in card.capabilities.apis else "completion"
    asked = {"max_tokens": 4, **parameters}
    return Request(teacher=card.identity, model=card.model, api=api, messages=given, parameters=asked)


def sampled(teacher: Teacher) -> dict[str, Any]:
    """Parameters this teacher takes, of those a labelling task asks for."""
    can = teacher.card.capabilities
    every: dict[str, Any] = {"temperature": 0, "top_logprobs": min(5, can.top_logprobs)}
    taken = can.parameters
    return {
        name: value
        for name, value in every.items()
        if name not in can.refused and (taken is None or name in taken) and (name != "top_logprobs" or value)
    }


# --- who it is -------------------------------------------------------------------------------------------------------


def test_every_kind_of_teacher_is_held_to_this_contract() -> None:
    held = {one.partition(" ")[0] for one in BY_NAME} | set(WITHOUT_ADDRESS)
    assert {offer.name.partition("/")[0] for offer in known_teachers()} == held


def test_a_name_alone_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    assert open_teacher("openai/gpt-4.1").card.host == "api.openai.com"
    with pytest.raises(UnknownTeacher, match="write scheme/model"):
        open_teacher("gpt-4.1")


async def test_the_card_says_who_answers(teachers: Opened) -> None:
    async with teachers() as teacher:
        card = teacher.card
    assert all((card.name, card.identity, card.provider, card.model, card.host))
    assert card.in_flight >= 1
    assert card.identity == (f"weights:sha256:{card.weights_sha256}" if card.weights_sha256 else card.identity)


async def test_a_teacher_may_be_closed_twice_and_unused(teachers: Opened) -> None:
    async with teachers() as teacher:
        await teacher.aclose()
        await teacher.aclose()


# --- asking and reading ----------------------------------------------------------------------------------------------


async def test_an_answer_is_read_the_same_each_time_and_within_the_bound(teachers: Opened) -> None:
    async with teachers() as teacher:
        asked = question(teacher, **sampled(teacher))
        check_parameters(teacher.card, asked.parameters, "completion" if asked.api == "completion" else "chat")
        got = await teacher.ask(asked, timeout_s=60)
        read = teacher.read(asked, got)
        assert read == teacher.read(asked, got)
        assert teacher.read_choices(asked, got) == (read,)
        assert read.usage.input_tokens <= teacher.input_tokens_bound(asked)
    assert got.sent_time < got.received_time
    assert read.provider_request_id
    if "top_logprobs" in asked.parameters:
        assert read.logprobs is not None
        assert read.logprobs.topk_len[0] >= 2


async def test_a_conversation_of_several_turns_is_answered(teachers: Opened) -> None:
    turns = (
        Message(role="system", content="Be brief."),
        Message(role="user", content="Say hello."),
        Message(role="assistant", content="Hello."),
        Message(role="user", content="Again."),
    )
    async with teachers() as teacher:
        asked = question(teacher, *turns)
        read = teacher.read(asked, await teacher.ask(asked, timeout_s=60))
        assert read.usage.input_tokens <= teacher.input_tokens_bound(asked)
    assert read.text
    assert read.finish_reason in ("stop", "length")


async def test_first_tokens_are_not_known_or_tell_the_labels_apart(teachers: Opened) -> None:
    async with teachers() as teacher:
        tokens = await teacher.first_tokens(LABELS)
    assert tokens is None or len(set(tokens)) == len(LABELS)


async def test_what_cannot_be_asked_is_refused_and_owes_nothing(teachers: Opened) -> None:
    two = (Message(role="user", content="a"), Message(role="system", content="b"))
    async with teachers() as teacher:
        api: Api = "messages" if teacher.card.chat_api == "messages" else "completion"
        asked = Request(teacher="t", model="m", api=api, messages=two, parameters={"max_tokens": 1})
        with pytest.raises(RequestRefused) as caught:
            await teacher.ask(asked, timeout_s=60)
    assert (caught.value.billable, caught.value.transient) == (False, False)


def as_reply(body: bytes) -> Reply:
    clock = TickingClock()
    return Reply(body=body, request_id=None, sent_time=clock(), received_time=clock())


async def test_a_body_that_is_no_answer_is_never_read_as_one(teachers: Opened) -> None:
    async with teachers() as teacher:
        asked = question(teacher, Message(role="user", content="a"))
        error = orjson.dumps({"type": "error", "error": {"message": "no"}})
        for body in (b"<html>", b"", b"[]", b"{}", error):
            with pytest.raises(InvalidAnswer):
                teacher.read(asked, as_reply(body))
        absurd = orjson.dumps(SILENT[asked.api](usage={"prompt_tokens": -1, "input_tokens": -1}))
        assert not teacher.read(asked, as_reply(absurd)).usage.counted


async def test_an_answer_without_a_count_is_kept_at_the_most_it_can_have_used(teachers: Opened) -> None:
    async with teachers() as teacher:
        asked = question(teacher)
        nothing: tuple[dict[str, int] | None, ...] = (None, {})
        for usage in nothing:
            read = teacher.read(asked, as_reply(orjson.dumps(SILENT[asked.api](usage=usage))))
            assert read.text.strip() == "animal"
            assert (read.usage.input_tokens, read.usage.output_tokens, read.usage.counted) == (
                teacher.input_tokens_bound(asked),
                most_output(asked),
                False,
            )


async def test_parameters_that_are_ours_or_too_large_are_refused_beforehand(teachers: Opened) -> None:
    async with teachers() as teacher:
        card = teacher.card
    for name, value in (("stream", True), ("n", 2), ("model", "x"), ("top_logprobs", 10**6)):
        with pytest.raises(UnsupportedParameter, match=name):
            check_parameters(card, {"max_tokens": 1, name: value}, min(card.capabilities.apis))


# --- over the wire ---------------------------------------------------------------------------------------------------

STATUSES: dict[int, tuple[type[TeacherError], bool]] = {
    400: (RequestRefused, False),
    401: (RequestRefused, False),
    404: (RequestRefused, False),
    408: (TeacherFault, True),
    409: (TeacherFault, True),
    422: (RequestRefused, False),
    429: (RateLimited, True),
    500: (TeacherFault, True),
    503: (TeacherFault, True),
    529: (RateLimited, True),
}


async def failing(name: str, handler: Handler, timeout_s: float = 20) -> TeacherError:
    async with at(name, handler) as teacher:
        asked = question(teacher, Message(role="user", content="a"))
        with pytest.raises(TeacherError) as caught:
            teacher.read(asked, await teacher.ask(asked, timeout_s=timeout_s))
    return caught.value


async def test_each_status_is_the_same_error_everywhere(name: str) -> None:
    for status, (kind, transient) in STATUSES.items():
        error = await failing(name, answers(status, {"error": {"message": "no such luck"}}))
        assert (type(error), error.transient, error.status) == (kind, transient, status)
        assert "no such luck" in str(error)


async def test_a_page_half_a_body_and_a_hanging_server_are_told_apart(name: str) -> None:
    async def half(asked: web.Request) -> web.StreamResponse:
        out = web.StreamResponse(headers={"Content-Length": "1000"})
        await out.prepare(asked)
        await out.write(b'{"id": "x", ')
        assert asked.transport is not None
        asked.transport.close()
        return out

    async def never(asked: web.Request) -> web.StreamResponse:
        await asked.read()
        out = web.StreamResponse()
        await out.prepare(asked)
        while asked.transport is not None:
            await out.write(b" ")
            await _moment()
        return out

    assert type(await failing(name, answers(200, b"<html>Sign in</html>", Content_Type="text/html"))) is InvalidAnswer
    assert type(await failing(name, half)) is TeacherFault
    assert type(await failing(name, never, timeout_s=0.3)) is TeacherTimeout


async def _moment() -> None:
    import asyncio

    await asyncio.sleep(0.02)


async def test_headers_without_end_are_a_fault_and_a_stream_is_no_answer(name: str) -> None:
    huge = answers(200, {}, X_Long="x" * 100_000)
    stream = answers(200, b'data: {"choices": []}\n\ndata: [DONE]\n\n', Content_Type="text/event-stream")
    assert type(await failing(name, huge)) is TeacherFault
    assert type(await failing(name, stream)) is InvalidAnswer


async def test_a_server_that_is_down_was_asked_nothing(name: str) -> None:
    async with server(answers()) as url:
        pass
    async with opened(named(name, base_url=url)) as teacher:
        with pytest.raises(NotSent) as caught:
            await teacher.ask(question(teacher, Message(role="user", content="a")), timeout_s=5)
    assert not caught.value.billable


async def test_a_content_type_that_is_wrong_does_not_spoil_an_answer(name: str) -> None:
    plain = every_format()

    async def handler(asked: web.Request) -> web.StreamResponse:
        got = await plain(asked)
        got.content_type = "text/plain"
        return got

    async with at(name, handler) as teacher:
        asked = question(teacher, Message(role="user", content="a"))
        assert teacher.read(asked, await teacher.ask(asked, timeout_s=20)).text


async def test_another_model_that_answers_is_named_as_such(name: str) -> None:
    async with at(name, every_format(model="somebody-else-7b")) as teacher:
        asked = question(teacher, Message(role="user", content="a"))
        assert teacher.read(asked, await teacher.ask(asked, timeout_s=20)).model_served == "somebody-else-7b"


# --- keys ------------------------------------------------------------------------------------------------------------

KEYED = [row.name for row in shipped_rows() if row.key_env and row.base_url]


@pytest.mark.parametrize("scheme", KEYED)
def test_a_missing_key_is_named_before_anything_is_sent_and_a_plan_needs_none(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = next(row.key_env for row in shipped_rows() if row.name == scheme)
    monkeypatch.delenv(str(wanted), raising=False)
    chosen = spec(f"{scheme}/m")
    with pytest.raises(UsageError, match=rf"key_env: the environment variable '{wanted}' is not set"):
        open_teacher(chosen, folder=Path(), clock=TickingClock())
    assert open_teacher(chosen, folder=Path(), clock=TickingClock(), sending=False).card.key_env == wanted


async def test_a_key_goes_to_its_own_provider_unless_it_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, str]] = []
    plain = every_format()

    async def handler(asked: web.Request) -> web.StreamResponse:
        seen.append(dict(asked.headers))
        return await plain(asked)

    for row in shipped_rows():
        monkeypatch.setenv(row.key_env or "CG_UNUSED", "the-default-key")
    monkeypatch.setenv("CG_KEY", "the-named-key")
    async with server(handler) as url:
        for fields in ({}, {"key_env": "CG_KEY"}):
            async with opened(named(name, base_url=url, **fields)) as teacher:
                await teacher.ask(question(teacher, Message(role="user", content="a")), timeout_s=20)
    without, with_key = seen
    assert "the-default-key" not in str(without)
    header, value = ("api-key", "the-named-key") if "azure" in name else ("Authorization", "Bearer the-named-key")
    assert with_key[header] == value
    assert os.environ["CG_KEY"] == "the-named-key"


# --- what is not text, and clocks that differ ------------------------------------------------------------------------


async def test_an_image_is_refused_before_anything_is_sent(teachers: Opened) -> None:
    parts: Any = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": "data:,"}}]
    async with teachers() as teacher:
        asked = question(teacher, Message(role="user", content=parts))
        with pytest.raises(RequestRefused, match="asked in text: a message holds parts of type image_url"):
            await teacher.ask(asked, timeout_s=60)


async def test_a_pause_until_a_time_of_day_is_counted_from_the_servers_own_clock() -> None:
    hours_off = {"Date": "Wed, 01 Jul 2026 12:00:00 GMT", "Retry_After": "Wed, 01 Jul 2026 12:00:07 GMT"}
    error = await failing("openai", answers(429, {"error": {"message": "slow"}}, **hours_off))
    assert error.retry_after_s == 7.0
