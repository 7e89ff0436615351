"""HTTP/1.1 as far as a provider needs it: a request read whole, a response to write."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final
from urllib.parse import parse_qs

import orjson

from corpusgen.mock.kinds import Headers, head

MAX_REQUEST: Final = 64 * 2**20


class NotHttp(Exception):
    """Somebody speaks another protocol, TLS for one."""


@dataclass(kw_only=True)
class Heard:
    """One request."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    """With names in lower case."""
    body: bytes
    keep_alive: bool

    @cached_property
    def asks(self) -> dict[str, str]:
        """The query, by name."""
        return {name: values[-1] for name, values in parse_qs(self.query).items()}


@dataclass(frozen=True, kw_only=True)
class Told:
    """One response, and whether the client ever hears it whole."""

    status: int = 200
    body: bytes
    headers: Headers = ()
    heard: float = 1.0
    """How much of it arrives before the connection is closed; 0 is nothing at all."""

    def raw(self, *headers: tuple[str, str]) -> bytes:
        """The response as bytes."""
        return response(self.status, self.body, *self.headers, *headers)


def json_told(said: dict[str, Any], *, heard: float = 1.0) -> Told:
    """A response in JSON."""
    return Told(body=orjson.dumps(said), heard=heard)


def response(status: int, body: bytes, *headers: tuple[str, str]) -> bytes:
    """A whole response with a right length."""
    return head(status, (*headers, ("Content-Length", str(len(body))))) + body


async def hear(reader: asyncio.StreamReader) -> Heard | None:
    """The next request, or None when the client is done. Raises NotHttp."""
    first = await reader.read(1)
    if not first:
        return None
    if not first.isalpha():  # TLS begins with a 22, and would wait for a word from us for ever
        raise NotHttp
    raw = first + await reader.readuntil(b"\r\n\r\n")
    start, *lines = raw.decode("latin-1").split("\r\n")
    words = start.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        raise NotHttp
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    coding = headers.get("transfer-encoding")
    body = await (reader.readexactly(_length(headers)) if coding is None else _chunks(reader, coding))
    path, _, query = words[1].partition("?")
    return Heard(
        method=words[0],
        path=path,
        query=query,
        headers=headers,
        body=body,
        keep_alive=words[2] != "HTTP/1.0" and headers.get("connection", "").lower() != "close",
    )


def _length(headers: dict[str, str]) -> int:
    length = headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > MAX_REQUEST:
        raise NotHttp
    return int(length)


async def _chunks(reader: asyncio.StreamReader, coding: str) -> bytes:
    if coding.lower() != "chunked":
        raise NotHttp
    found = bytearray()
    while True:
        line = (await reader.readuntil(b"\r\n")).partition(b";")[0].strip()
        try:
            size = int(line, 16)
        except ValueError as error:
            raise NotHttp from error
        if not 0 <= size <= MAX_REQUEST - len(found):
            raise NotHttp
        found += (await reader.readexactly(size + 2))[:-2]
        if size == 0:
            return bytes(found)


@dataclass(frozen=True, kw_only=True)
class Part:
    """One part of a form."""

    filename: str | None = None
    content: bytes = field(repr=False)


def form(heard: Heard) -> dict[str, Part]:
    """The parts of a multipart form, by name; none of what is no form."""
    kind, _, rest = heard.headers.get("content-type", "").partition(";")
    boundary = _parameter(rest, "boundary")
    if kind.strip().lower() != "multipart/form-data" or not boundary:
        return {}
    found = {}
    for portion in heard.body.split(b"--" + boundary.encode())[1:-1]:
        above, _, content = portion.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        named = next((line for line in above.decode().split("\r\n") if line.lower().startswith("content-disp")), "")
        part = Part(filename=_parameter(named, "filename"), content=content.removesuffix(b"\r\n"))
        found[_parameter(named, "name") or ""] = part
    return found


def _parameter(header: str, name: str) -> str | None:
    for piece in header.split(";"):
        key, given, value = piece.strip().partition("=")
        if given and key.lower() == name:
            return value.strip().strip('"')
    return None
