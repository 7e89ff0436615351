"""The server: reads requests, charges for them, and answers or misbehaves.

HTTP is spoken by hand over asyncio's streams, because a library that speaks it well cannot be made to speak it badly.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Final, Literal

import orjson

from corpusgen.mock.addresses import bad_addresses
from corpusgen.mock.answer import Answer, NotARequest, Question, answer_to, read_question, reply_to
from corpusgen.mock.bill import Bill, Prices
from corpusgen.mock.kinds import Exchange, Kind, error_body, head
from corpusgen.mock.plan import FaultPlan

MAX_REQUEST: Final = 64 * 2**20
_MAX_HEAD: Final = 64 * 2**10
_BACKLOG: Final = 4096

_ASKING: Final[dict[str, Literal["chat", "completion"]]] = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "completion",
}


@dataclass(frozen=True, kw_only=True)
class RateLimit:
    """So many requests a second, and so many at once before that counts."""

    per_s: float
    burst: int


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a mock teacher behaves."""

    plan: FaultPlan = field(default_factory=FaultPlan)
    prices: Prices = field(default_factory=Prices)
    latency_s: float = 0.0
    slow_s: float = 30.0
    """How long the slow kinds of fault hold a request."""
    rate_limit: RateLimit | None = None
    labels: tuple[str, ...] = ()
    """With labels, every answer is one of them."""
    host: str = "127.0.0.1"
    port: int = 0
    clock: Callable[[], float] = time.monotonic


@asynccontextmanager
async def mock_teacher(options: Options = Options()) -> AsyncIterator[MockTeacher]:
    """A running mock teacher; leaving the block stops it."""
    mock = MockTeacher(options=options)
    server = await asyncio.start_server(
        mock.accept, options.host, options.port, limit=_MAX_HEAD, backlog=_BACKLOG, reuse_address=True
    )
    port = server.sockets[0].getsockname()[1]
    mock.base_url = f"http://{options.host}:{port}/v1"
    try:
        with bad_addresses(options.host, port) as mock.bad_addresses:
            yield mock
    finally:
        server.close()
        await mock.hang_up()
        await server.wait_closed()


@dataclass(frozen=True, kw_only=True)
class _Heard:
    """One HTTP request, read whole."""

    method: str
    path: str
    body: bytes
    keep_alive: bool


@dataclass(kw_only=True)
class MockTeacher:
    """A teacher with its bill."""

    options: Options
    base_url: str = ""
    bad_addresses: dict[str, str] = field(default_factory=dict)
    """Base URLs of the faults no request arrives at, by name."""
    bill: Bill = field(init=False)
    _tries: Counter[str] = field(default_factory=Counter)
    _talks: set[asyncio.Task[None]] = field(default_factory=set)
    _bucket: _Bucket | None = field(init=False)

    def __post_init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything that was asked and charged."""
        limit = self.options.rate_limit
        self.bill = Bill(prices=self.options.prices)
        self._tries.clear()
        self._bucket = None if limit is None else _Bucket(limit=limit, clock=self.options.clock)

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Begin a conversation; ``hang_up`` ends it."""
        task = asyncio.get_running_loop().create_task(self._talk(reader, writer))
        self._talks.add(task)
        task.add_done_callback(self._talks.discard)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until either side has had enough."""
        try:
            # A client that leaves in the middle is what this server is for.
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, _NotHttp):
                while await self._one(reader, writer):
                    pass
        finally:
            writer.close()

    async def hang_up(self) -> None:
        """End every conversation."""
        talks = list(self._talks)
        for task in talks:
            task.cancel()
        await asyncio.gather(*talks, return_exceptions=True)

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Serve one request; True if the connection can take another."""
        heard = await _hear(reader)
        if heard is None:
            return False
        closing = False
        api = _ASKING.get(heard.path)
        if api is not None and heard.method == "POST":
            closing = await self._answer(api, heard.body, reader, writer)
        else:
            writer.write(_response(*self._about_itself(heard)))
        await writer.drain()
        return heard.keep_alive and not closing

    def _about_itself(self, heard: _Heard) -> tuple[int, bytes]:
        match heard.method, heard.path:
            case "GET", "/bill":
                return 200, orjson.dumps(self.bill.to_json())
            case "POST", "/reset":
                self.reset()
                return 200, b"{}"
        return 404, error_body(404, f"no {heard.method} {heard.path}; there are POST {', '.join(_ASKING)}, GET /bill")

    async def _answer(
        self,
        api: Literal["chat", "completion"],
        body: bytes,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> bool:
        try:
            question = read_question(api, body)
        except NotARequest as error:
            self.bill.asked("bad-request")
            writer.write(_response(400, error_body(400, str(error))))
            return False
        limits: tuple[tuple[str, str], ...] = ()
        if self._bucket is not None:
            granted = self._bucket.take()
            limits = self._bucket.headers()
            if not granted:
                self.bill.asked("rate-limited")
                writer.write(_response(429, error_body(429, "the rate limit"), *limits, *self._bucket.pause()))
                return False
        return await self._teach(question, limits, reader, writer)

    async def _teach(
        self,
        question: Question,
        limits: tuple[tuple[str, str], ...],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> bool:
        self._tries[question.key] += 1
        attempt = self._tries[question.key]
        kind = self.options.plan.fault_of(question, attempt)
        answer = self._charged(question, kind)
        if self.options.latency_s > 0:
            await asyncio.sleep(self.options.latency_s)
        exchange = Exchange(
            question=question,
            reply=reply_to(question, answer, self.options.labels),
            request_id=f"mock-{question.key[:16]}-{attempt}",
            reader=reader,
            writer=writer,
            slow_s=self.options.slow_s,
        )
        if kind is None:
            await exchange.send(200, orjson.dumps(exchange.reply), *limits)
        else:
            await kind.act(exchange)
        if kind is None or kind.usable or exchange.patient:
            self.bill.answered[question.key] += 1
        return exchange.closing

    def _charged(self, question: Question, kind: Kind | None) -> Answer:
        """The answer to a question, charged for before anything can go wrong with telling it."""
        answer = answer_to(question, self.options.labels)
        name = "answer" if kind is None else kind.name
        if kind is not None and kind.extra_output_tokens:
            above = question.max_tokens + kind.extra_output_tokens
            answer = replace(answer, usage=replace(answer.usage, output_tokens=above))
        self.bill.asked(name)
        if kind is None or kind.billed:
            self.bill.charge(name, question.key, answer.usage)
        return answer


@dataclass(kw_only=True)
class _Bucket:
    """Tokens that fill up with time; each request takes one."""

    limit: RateLimit
    clock: Callable[[], float]
    left: float = field(init=False)
    seen: float = field(init=False)

    def __post_init__(self) -> None:
        self.left, self.seen = float(self.limit.burst), self.clock()

    def take(self) -> bool:
        now = self.clock()
        self.left = min(self.limit.burst, self.left + (now - self.seen) * self.limit.per_s)
        self.seen = now
        granted = self.left >= 1
        self.left -= granted
        return granted

    @property
    def wait_s(self) -> float:
        return max(0.0, (1 - self.left) / self.limit.per_s)

    def pause(self) -> tuple[tuple[str, str], ...]:
        milliseconds = math.ceil(self.wait_s * 1000)
        return ("retry-after-ms", str(milliseconds)), ("Retry-After", str(-(-milliseconds // 1000)))

    def headers(self) -> tuple[tuple[str, str], ...]:
        return (
            ("x-ratelimit-limit-requests", f"{self.limit.per_s * 60:g}"),
            ("x-ratelimit-remaining-requests", str(int(self.left))),
            ("x-ratelimit-reset-requests", f"{math.ceil(self.wait_s * 1000)}ms"),
        )


class _NotHttp(Exception):
    """Somebody speaks another protocol, TLS for one."""


async def _hear(reader: asyncio.StreamReader) -> _Heard | None:
    """The next request, or None when the client is done."""
    first = await reader.read(1)
    if not first:
        return None
    if not first.isalpha():  # TLS begins with a 22, and would wait for a word from us for ever
        raise _NotHttp
    raw = first + await reader.readuntil(b"\r\n\r\n")
    start, *lines = raw.decode("latin-1").split("\r\n")
    words = start.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        raise _NotHttp
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    length = headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > MAX_REQUEST:
        raise _NotHttp
    if headers.get("transfer-encoding"):
        raise _NotHttp
    return _Heard(
        method=words[0],
        path=words[1].partition("?")[0],
        body=await reader.readexactly(int(length)),
        keep_alive=words[2] != "HTTP/1.0" and headers.get("connection", "").lower() != "close",
    )


def _response(status: int, body: bytes, *headers: tuple[str, str]) -> bytes:
    return head(status, (*headers, ("Content-Length", str(len(body))))) + body
