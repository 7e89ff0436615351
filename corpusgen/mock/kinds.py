"""What a kind of fault is, and what it may do to one exchange."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from typing import Any, Final, Literal

import orjson

from corpusgen.mock.dialect import Dialect
from corpusgen.mock.question import Api, Question

Headers = tuple[tuple[str, str], ...]

TALKING: Final[frozenset[Api]] = frozenset({"chat", "completion", "responses", "messages"})
EVERYWHERE: Final[frozenset[Api]] = TALKING | {"embeddings"}


@dataclass(kw_only=True)
class Exchange:
    """One request under way: the good reply to it, and the connection to spoil."""

    question: Question
    dialect: Dialect
    reply: dict[str, Any]
    request_id: str
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    slow_s: float
    closing: bool = False
    """Set when the connection is of no further use."""
    patient: bool = False
    """Set when the client waited for a slow answer and has it."""

    async def send(self, status: int, body: bytes, *headers: tuple[str, str]) -> None:
        """A whole response, with a right length."""
        length = ("Content-Length", str(len(body)))
        await self.write(head(status, ((self.dialect.request_id, self.request_id), *headers, length)) + body)

    async def say(self, *headers: tuple[str, str]) -> None:
        """The good answer."""
        if not self.question.stream:
            body = orjson.dumps(self.reply)
            length = ("Content-Length", str(len(body)))
            self.writer.write(head(200, ((self.dialect.request_id, self.request_id), *headers, length)) + body)
            await self.writer.drain()
            return
        named = (self.dialect.request_id, self.request_id)
        start = head(200, (named, *self.typed, *headers, ("Transfer-Encoding", "chunked")))
        events = self.dialect.events(self.question, self.reply)
        chunks = [f"{len(event):x}\r\n".encode() + event + b"\r\n" for event in events]
        await self.write(start + b"".join(chunks) + b"0\r\n\r\n")

    async def answer(self, body: bytes, *headers: tuple[str, str]) -> None:
        """An HTTP 200 with this in it, under the type the client expects."""
        await self.send(200, body, *self.typed, *headers)

    async def refuse(self, status: int, message: str, *headers: tuple[str, str], code: str | None = None) -> None:
        """An error in the words of this wire format."""
        error = self.dialect.error(status, f"mock teacher: {message}", code)
        await self.send(status, named_error(error, self.request_id), *headers)

    @property
    def typed(self) -> Headers:
        """The content type of a good answer, where it is not JSON."""
        return (("Content-Type", "text/event-stream"),) if self.question.stream else ()

    def told(self, reply: dict[str, Any] | None = None) -> bytes:
        """A reply, or the good one, as the client asked for it: whole or as events."""
        return self.dialect.told(self.question, self.reply if reply is None else reply)

    async def write(self, raw: bytes) -> None:
        """Bytes as they are."""
        self.writer.write(raw)
        await self.writer.drain()

    async def client_leaves(self, within_s: float) -> bool:
        """Wait for the client to hang up; False if it is still there after so long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                return await self.reader.read(1) == b""
        return False

    def close(self) -> None:
        """End the connection in an orderly way."""
        self.closing = True
        self.writer.close()

    def reset(self) -> None:
        """End the connection with a reset, as a crashed machine or a firewall does."""
        self.closing = True
        found = self.writer.get_extra_info("socket")
        found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Act = Callable[[Exchange], Awaitable[None]]
Change = Callable[[Dialect, dict[str, Any]], dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One way of going wrong."""

    name: str
    what: str
    """One line for people."""
    billed: bool
    """Whether this server charges for the tokens of such a request."""
    act: Act
    usable: bool = False
    """Whether the client may keep what comes back as an answer."""
    extra_output_tokens: int = 0
    """Tokens charged and reported beyond the answer's own."""
    most_choices: int | None = None
    """The most answers that are given, and charged for, however many are asked for."""
    place: Literal["answer", "address", "batch"] = "answer"
    """``address``: no request ever arrives, so it is had by asking another address (see ``addresses``); ``batch``:
    happens to a whole batch."""
    apis: frozenset[Api] = EVERYWHERE
    """The wire formats in which it makes sense."""
    status: int | None = None
    """The HTTP status it is, where it is one; a line of a batch fails with it."""
    change: Change | None = None
    """What it does to a reply, where that is all; a line of a batch is spoilt in the same way."""


def named_error(error: dict[str, Any], request_id: str) -> bytes:
    """An error as JSON, with the name of its request where the vendor puts it into the body."""
    return orjson.dumps({**error, "request_id": request_id} if "request_id" in error else error)


def head(status: int, headers: Headers) -> bytes:
    """Status line and headers of an HTTP/1.1 response."""
    lines = [f"{name}: {value}\r\n" for name, value in headers]
    if "Content-Type" not in dict(headers):
        lines.insert(0, "Content-Type: application/json\r\n")
    return f"HTTP/1.1 {status} {_phrase(status)}\r\n{''.join(lines)}\r\n".encode("latin-1")


@cache
def _phrase(status: int) -> str:
    with suppress(ValueError):
        return HTTPStatus(status).phrase
    return "Unusual"
