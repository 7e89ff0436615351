from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
from teacher_samples import TickingClock

from corpusgen.errors import TeacherTimeout
from corpusgen.teachers.transport import Transport

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


@dataclass
class Counting:
    """A server that counts its connections, and those that have been closed."""

    answer: bytes = ANSWER
    opened: int = 0
    closed: int = 0
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def protocol(self) -> asyncio.Protocol:
        self.opened += 1
        return _Connection(self)


class _Connection(asyncio.Protocol):
    def __init__(self, server: Counting) -> None:
        self.server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, _: bytes) -> None:
        self.transport.write(self.server.answer)

    def connection_lost(self, _: Exception | None) -> None:
        self.server.closed += 1
        self.server.ended.set()


@asynccontextmanager
async def listening(server: Counting, **fields: Any) -> AsyncIterator[Transport]:
    async with await asyncio.get_running_loop().create_server(server.protocol, "127.0.0.1", 0) as one:
        url = f"http://127.0.0.1:{one.sockets[0].getsockname()[1]}"
        opened = Transport(base_url=url, clock=TickingClock(), **fields)
        yield opened
        await opened.aclose()


async def ask(opened: Transport, timeout_s: float = 5) -> bytes:
    return (await opened.post("/", b"{}", timeout_s=timeout_s)).body


async def test_calls_one_after_the_other_use_one_connection() -> None:
    server = Counting()
    async with listening(server) as opened:
        assert [await ask(opened) for _ in range(5)] == [b"{}"] * 5
    assert server.opened == 1


async def test_calls_side_by_side_have_a_connection_each_and_go_on_using_them() -> None:
    server = Counting()
    async with listening(server) as opened:
        for _ in range(3):
            await asyncio.gather(*(ask(opened) for _ in range(4)))
    assert server.opened == 4


async def test_closing_closes_what_is_kept_and_what_is_opened_afterwards_works() -> None:
    server = Counting()
    async with listening(server) as opened:
        await asyncio.gather(*(ask(opened) for _ in range(3)))
        await opened.aclose()
        assert await ask(opened) == b"{}"
    assert server.opened == 4


async def test_nothing_is_kept_by_who_is_told_to_keep_nothing() -> None:
    server = Counting()
    async with listening(server, keep_alive=False) as opened:
        for _ in range(3):
            await ask(opened)
    assert server.opened == 3


async def test_a_server_that_hangs_up_is_not_asked_there_again() -> None:
    server = Counting(ANSWER.replace(b"OK\r\n", b"OK\r\nConnection: close\r\n"))
    async with listening(server) as opened:
        for _ in range(3):
            await ask(opened)
    assert server.opened == 3


async def test_what_nobody_wants_any_more_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("corpusgen.teachers.transport._KEEP_S", 0.05)
    server = Counting()
    async with listening(server) as opened:
        await asyncio.gather(*(ask(opened) for _ in range(3)))
        await server.ended.wait()
        assert await ask(opened) == b"{}"
    assert server.opened == 4


async def test_a_call_that_is_given_up_gives_up_its_connection() -> None:
    server = Counting(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{")
    async with listening(server) as opened:
        for _ in range(2):
            with pytest.raises(TeacherTimeout):
                await ask(opened, timeout_s=0.05)
        await server.ended.wait()
    assert server.opened == 2


def test_another_event_loop_has_connections_of_its_own() -> None:
    opened = Transport(base_url="", clock=TickingClock())

    async def ask_there(server: Counting) -> bytes:
        async with listening(server) as there:
            opened.base_url = there.base_url
            body = await ask(opened)
            await opened.aclose()
        return body

    assert [asyncio.run(ask_there(Counting())) for _ in range(2)] == [b"{}", b"{}"]


class _Always(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_connections_that_an_ended_event_loop_left_open_are_not_used_again() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Always) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        opened = Transport(base_url=f"http://127.0.0.1:{server.server_port}", clock=TickingClock())
        assert [asyncio.run(ask(opened)) for _ in range(2)] == [b"{}", b"{}"]
        asyncio.run(opened.aclose())
        gc.collect()
        server.shutdown()
