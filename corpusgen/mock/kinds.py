"""What a kind of fault is, and what it may do to one exchange."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Literal

import orjson

from corpusgen.mock.answer import Question
from corpusgen.records import Json

Headers = tuple[tuple[str, str], ...]


@dataclass(kw_only=True)
class Exchange:
    """One request under way: the good reply to it, and the connection to spoil."""

    question: Question
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
        await self.write(head(status, (("x-request-id", self.request_id), *headers, length)) + body)

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
    place: Literal["answer", "address"] = "answer"
    """``address``: no request ever arrives, so it is had by asking another address (see ``addresses``)."""


def head(status: int, headers: Headers) -> bytes:
    """Status line and headers of an HTTP/1.1 response."""
    named = {name.lower() for name, _ in headers}
    typed: Headers = () if "content-type" in named else (("Content-Type", "application/json"),)
    lines = [f"HTTP/1.1 {status} {_phrase(status)}", *(f"{name}: {value}" for name, value in (*typed, *headers))]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def error_body(status: int, message: str) -> bytes:
    """An error in the shape of OpenAI's wire format."""
    return orjson.dumps({"error": {"message": f"mock teacher: {message}", "type": "mock", "code": status}})


def changed(reply: Mapping[str, Json], **fields: Json) -> dict[str, Json]:
    """A reply with other top-level fields; None leaves the field out."""
    return {name: value for name, value in {**reply, **fields}.items() if value is not None}


def _phrase(status: int) -> str:
    with suppress(ValueError):
        return HTTPStatus(status).phrase
    return "Unusual"
