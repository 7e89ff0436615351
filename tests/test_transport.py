from __future__ import annotations

import asyncio
import gzip
import inspect
import pickle
import socket
import traceback
import zlib
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.http import RawResponseMessage
from aiohttp.streams import StreamReader
from teacher_samples import TickingClock, answers, server, transport

from corpusgen.errors import (
    InvalidAnswer,
    NotSent,
    RateLimited,
    RequestRefused,
    TeacherError,
    TeacherFault,
    TeacherTimeout,
    UsageError,
)
from corpusgen.teachers.billing import Billing
from corpusgen.teachers.transport import Secret, Transport, provider_message, retry_after, secret_from_environment

KEY = "sk-very-secret-0123456789"


async def failure(handler: Any, *, timeout_s: float = 5.0, **fields: Any) -> TeacherError:
    async with transport(handler, **fields) as opened:
        with pytest.raises(TeacherError) as caught:
            await opened.post("/completions", b"{}", timeout_s=timeout_s)
    return caught.value


async def test_a_reply_brings_body_times_and_request_id() -> None:
    async with transport(answers(body=b"{}", x_request_id="req-1")) as opened:
        reply = await opened.post("/completions", b"{}", timeout_s=5)
    assert (reply.body, reply.request_id) == (b"{}", "req-1")
    assert reply.received_time - reply.sent_time == timedelta(seconds=1)


async def test_the_body_and_the_key_are_sent_as_given() -> None:
    seen: list[tuple[str, str, bytes]] = []

    async def handler(asked: web.Request) -> web.Response:
        seen.append((asked.path, asked.headers["Authorization"], await asked.read()))
        return web.Response(body=b"{}")

    async with transport(handler, secret=Secret(KEY)) as opened:
        await opened.post("/completions", b'{"a":1}', timeout_s=5)
    assert seen == [("/v1/completions", f"Bearer {KEY}", b'{"a":1}')]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, RequestRefused),
        (401, RequestRefused),
        (404, RequestRefused),
        (422, RequestRefused),
        (408, TeacherFault),
        (409, TeacherFault),
        (429, RateLimited),
        (500, TeacherFault),
        (503, TeacherFault),
        (529, RateLimited),
        (204, InvalidAnswer),
    ],
)
async def test_each_status_is_its_own_kind_of_failure(status: int, kind: type[TeacherError]) -> None:
    error = await failure(answers(status, {"error": {"message": "because"}}))
    assert type(error) is kind
    assert error.status == status


async def test_a_refusal_carries_the_providers_own_words() -> None:
    error = await failure(answers(400, {"error": {"message": "context is \x1b[31m too\nlong"}}))
    assert "HTTP 400" in str(error)
    assert "'context is [31m too long'" in str(error)


async def test_a_pause_is_taken_from_the_header() -> None:
    assert (await failure(answers(429, retry_after="7"))).retry_after_s == 7
    assert (await failure(answers(503, retry_after_ms="250"))).retry_after_s == 0.25
    assert (await failure(answers(429))).retry_after_s is None


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "1.5"}, 1.5),
        ({"Retry-After": "99999"}, 600.0),
        ({"Retry-After": "inf"}, 600.0),
        ({"Retry-After": "-3"}, 0.0),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "9", "retry-after-ms": "1500"}, 1.5),
        ({}, None),
    ],
)
def test_retry_after_is_read_in_every_form_and_capped(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, datetime(2026, 1, 1, tzinfo=UTC)) == seconds


def test_retry_after_may_be_a_date() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert retry_after({"Retry-After": format_datetime(now + timedelta(seconds=30), usegmt=True)}, now) == 30
    assert retry_after({"Retry-After": format_datetime(now - timedelta(seconds=30), usegmt=True)}, now) == 0


async def test_a_redirect_is_refused_and_nothing_reaches_the_other_place() -> None:
    async with server(answers()) as elsewhere:
        error = await failure(answers(307, Location=elsewhere))
    assert isinstance(error, RequestRefused)
    assert elsewhere in str(error)
    assert "base_url" in str(error)


async def test_a_refused_connection_was_not_sent() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    opened = Transport(base_url=f"http://127.0.0.1:{port}", clock=TickingClock())
    with pytest.raises(NotSent, match=str(port)):
        await opened.post("/completions", b"{}", timeout_s=5)
    await opened.aclose()


async def test_silence_is_a_timeout_although_a_timeout_is_an_os_error() -> None:
    async def silent(_: web.Request) -> web.Response:
        await asyncio.sleep(30)
        return web.Response()

    error = await failure(silent, timeout_s=0.1)
    assert type(error) is TeacherTimeout


async def test_a_cut_connection_is_a_fault() -> None:
    async def cut(asked: web.Request) -> web.StreamResponse:
        assert asked.transport is not None
        asked.transport.abort()
        return web.Response()

    assert type(await failure(cut)) is TeacherFault


async def test_half_a_body_is_a_fault() -> None:
    async def half(asked: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(asked)
        await response.write(b'{"choices":')
        assert asked.transport is not None
        asked.transport.close()
        return response

    assert type(await failure(half)) is TeacherFault


async def test_a_bomb_is_not_unpacked() -> None:
    bomb = gzip.compress(b"0" * 10_000_000)
    error = await failure(answers(body=bomb, Content_Encoding="gzip"), max_body=1_000_000)
    assert isinstance(error, InvalidAnswer)
    assert "larger than 1000000 bytes" in str(error)


async def test_what_is_not_http_is_a_fault() -> None:
    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH\r\n\r\n")
        await writer.drain()
        writer.close()

    listening = await asyncio.start_server(talk, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    opened = Transport(base_url=f"http://127.0.0.1:{port}", clock=TickingClock(), secret=Secret(KEY))
    with pytest.raises(TeacherFault) as caught:
        await opened.post("/completions", b"{}", timeout_s=5)
    await opened.aclose()
    listening.close()
    await listening.wait_closed()
    # aiohttp's own error holds the request's headers; it must not hang on ours.
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)


async def test_a_key_that_a_server_echoes_comes_back_as_stars() -> None:
    refused = await failure(answers(401, {"error": {"message": f"wrong key {KEY}"}}), secret=Secret(KEY))
    assert KEY not in "".join(traceback.format_exception(refused))
    assert "***" in str(refused)
    async with transport(answers(body=KEY.encode()), secret=Secret(KEY)) as opened:
        assert (await opened.post("/", b"{}", timeout_s=5)).body == b"***"


def test_a_secret_shows_itself_to_nobody() -> None:
    secret = Secret(KEY)
    opened = Transport(base_url="https://host.example", clock=TickingClock(), secret=secret)
    assert KEY not in f"{secret!r} {secret} {opened!r}"
    with pytest.raises(TypeError, match="not to be pickled"):
        pickle.dumps(secret)


def test_a_key_comes_from_the_environment_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", KEY)
    found = secret_from_environment("TEST_KEY")
    assert found is not None
    assert found.reveal() == KEY
    assert secret_from_environment(None) is None


@pytest.mark.parametrize("value", ["", "  ", "sk-1\nX-Evil: 1", "schlüssel"])
def test_a_variable_without_a_usable_key_is_named_and_its_value_is_not(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("TEST_KEY", value)
    with pytest.raises(UsageError, match="TEST_KEY") as caught:
        secret_from_environment("TEST_KEY")
    assert "sk-1" not in str(caught.value)


async def test_proxies_of_the_environment_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    async with transport(answers(body=b"{}")) as opened:
        assert (await opened.post("/completions", b"{}", timeout_s=5)).body == b"{}"


def test_the_providers_words_are_trimmed() -> None:
    assert len(provider_message(b"<html>" + b"x" * 5000)) <= 502
    assert provider_message(b'{"detail":"no"}') == "'no'"
    assert provider_message(b'{"error":"no"}') == "'no'"
    assert provider_message(b"[1,2]") == "'[1,2]'"


async def test_an_answer_nobody_asked_for_is_not_taken_for_the_next_one() -> None:
    said = iter([b"first", b"second"])

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = next(said)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        await writer.drain()
        await asyncio.sleep(0.02)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nalien")
        await reader.read()
        writer.close()

    listening = await asyncio.start_server(talk, "127.0.0.1", 0)
    opened = Transport(base_url=f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}", clock=TickingClock())
    bodies = []
    for _ in range(2):
        bodies.append((await opened.post("/", b"{}", timeout_s=5)).body)
        await asyncio.sleep(0.1)
    await opened.aclose()
    listening.close()
    assert bodies == [b"first", b"second"]


async def test_a_connection_that_nobody_takes_was_not_sent() -> None:
    with socket.socket() as deaf, socket.socket() as one, socket.socket() as other:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        for filler in (one, other):
            filler.setblocking(False)
            filler.connect_ex(deaf.getsockname())
        opened = Transport(base_url=f"http://127.0.0.1:{deaf.getsockname()[1]}", clock=TickingClock())
        with pytest.raises(NotSent, match="no connection"):
            await opened.post("/", b"{}", timeout_s=0.4)
        await opened.aclose()


@pytest.mark.parametrize("header", ["1 Jan 99999999999999999999 00:00:00 GMT", "1 Jan 2026 00:00:00 +99999999999999"])
def test_a_date_no_calendar_has_is_no_pause(header: str) -> None:
    assert retry_after({"Retry-After": header}, datetime(2026, 1, 1, tzinfo=UTC)) is None


@pytest.mark.parametrize(("status", "charged"), [(400, True), (404, False), (500, False), (503, True), (307, True)])
async def test_what_a_failure_may_have_cost_is_what_is_known_of_the_provider(status: int, charged: bool) -> None:
    error = await failure(answers(status), billing=Billing(known={400: True, 500: False}))
    assert error.billable is charged


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"code": "insufficient_quota"}, RequestRefused),
        ({"code": "credit_balance_exhausted", "type": "insufficient_quota"}, RequestRefused),
        ({"type": "rate_limit_error", "details": {"error_code": "enforced_spend_limit_reached"}}, RequestRefused),
        ({"code": "rate_limit_exceeded", "type": "tokens"}, RateLimited),
        ("insufficient_quota", RateLimited),
        ([], RateLimited),
    ],
)
async def test_an_empty_account_is_not_waited_for(error: Any, kind: type[TeacherError]) -> None:
    assert type(await failure(answers(429, {"error": error}))) is kind


# --- keys and what is packed ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["EMPTY", "ollama", "1", "abcdefghijklmnopqrstuvwxyz"])
async def test_what_a_local_server_takes_for_a_key_is_left_in_answers(key: str) -> None:
    said = b'{"text":"The box is EMPTY, said ollama 1: abcdefghijklmnopqrstuvwxyz"}'
    async with transport(answers(body=said), secret=Secret(key)) as opened:
        assert (await opened.post("/", b"{}", timeout_s=5)).body == said


@pytest.mark.parametrize("spelt", [r"s\u006b-very-secret-0123456789", r"sk-very-secret-012345678\u0039"])
async def test_an_escaped_key_comes_back_as_stars_too(spelt: str) -> None:
    refused = await failure(answers(401, body=b'{"error":{"message":"wrong %b"}}' % spelt.encode()), secret=Secret(KEY))
    assert (KEY in str(refused), "wrong ***" in str(refused)) == (False, True)
    async with transport(answers(body=b'{"text":"%b"}' % spelt.encode()), secret=Secret(KEY)) as opened:
        assert (await opened.post("/", b"{}", timeout_s=5)).body == b'{"text":"***"}'


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "bare"])
@pytest.mark.parametrize("cut", [0, 1, 8, 12])
async def test_a_packed_answer_is_whole_or_none(encoding: str, cut: int) -> None:
    said = b'{"ok":1}' * 50
    packer = zlib.compressobj(wbits={"gzip": 31, "deflate": 15, "bare": -15}[encoding])
    packed = packer.compress(said) + packer.flush()
    name = "gzip" if encoding == "gzip" else "deflate"
    handler = answers(body=packed[: len(packed) - cut], Content_Encoding=name)
    if cut:
        assert type(await failure(handler)) is InvalidAnswer
    else:
        async with transport(handler) as opened:
            assert (await opened.post("/", b"{}", timeout_s=5)).body == said


def test_what_we_use_of_aiohttp_beyond_its_promises_is_still_there() -> None:
    where = "teachers/transport.py and connections.py"
    hint = f"aiohttp has changed inside: look at {where} before the pin in pyproject.toml is raised"
    connect = inspect.signature(aiohttp.TCPConnector.connect)
    assert list(connect.parameters) == ["self", "req", "traces", "timeout"], hint
    used = {"transport", "is_connected", "should_close", "read", "set_response_params"}
    assert used <= set(dir(ResponseHandler)), hint
    assert {"protocol", "closed", "close"} <= set(dir(Connection)), hint
    assert {"is_eof", "read_nowait", "iter_any"} <= set(dir(StreamReader)), hint
    assert {"code", "headers"} <= set(dir(RawResponseMessage)), hint
