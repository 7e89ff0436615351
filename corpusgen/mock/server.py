"""The server: reads requests, and answers or misbehaves.

HTTP is spoken by hand over asyncio's streams, because a library that speaks it well cannot be made to speak it badly.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final
from urllib.parse import unquote

import orjson

from corpusgen.mock.addresses import bad_addresses
from corpusgen.mock.answer import DIALECTS
from corpusgen.mock.anthropic_batches import AnthropicBatches
from corpusgen.mock.anthropic_errors import anthropic_error
from corpusgen.mock.anthropic_messages import count_tokens
from corpusgen.mock.bill import Bill
from corpusgen.mock.desk import Desk, Options
from corpusgen.mock.dialect import Dialect
from corpusgen.mock.http import Heard, NotHttp, Told, hear, json_told
from corpusgen.mock.jobs import Pace
from corpusgen.mock.kinds import Exchange, named_error
from corpusgen.mock.limits import Limits, RateLimit
from corpusgen.mock.models import anthropic_models, openai_models
from corpusgen.mock.openai_batches import OpenAIBatches
from corpusgen.mock.openai_errors import openai_error
from corpusgen.mock.openai_files import Files
from corpusgen.mock.question import NotARequest, Question

__all__ = ["MockTeacher", "Options", "RateLimit", "mock_teacher"]

_MAX_HEAD: Final = 64 * 2**10
_BACKLOG: Final = 4096
_DEFAULTS: Final = Options()
_ASIDE: Final = ("GET /v1/models", "/v1/files", "/v1/batches", "/v1/messages/batches", "GET /bill", "POST /reset")


@asynccontextmanager
async def mock_teacher(options: Options = _DEFAULTS) -> AsyncIterator[MockTeacher]:
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


@dataclass(kw_only=True)
class MockTeacher:
    """A teacher with its bill."""

    options: Options
    base_url: str = ""
    """For clients of OpenAI; those of Anthropic take ``origin``."""
    bad_addresses: dict[str, str] = field(default_factory=dict)
    """Base URLs of the faults no request arrives at, by name."""
    _desk: Desk = field(init=False)
    _files: Files = field(init=False)
    _openai_batches: OpenAIBatches = field(init=False)
    _anthropic_batches: AnthropicBatches = field(init=False)
    _limits: Limits | None = field(init=False)
    _talks: set[asyncio.Task[None]] = field(default_factory=set)
    _ids: int = 0

    def __post_init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything that was asked and charged."""
        options = self.options
        pace = Pace(takes_s=options.batch_delay_s, lives_s=options.batch_life_s)
        self._desk = Desk(options=options)
        self._files = Files(now=options.now, new_id=self._new_id)
        self._openai_batches = OpenAIBatches(files=self._files, clerk=self._desk, pace=pace, new_id=self._new_id)
        self._anthropic_batches = AnthropicBatches(
            clerk=self._desk, pace=pace, new_id=self._new_id, origin=lambda: self.origin
        )
        limited = options.rate_limit is not None or options.token_limit is not None
        self._limits = _limits(options) if limited else None

    @property
    def origin(self) -> str:
        """The server's address: what clients of Anthropic take as base URL."""
        return self.base_url.removesuffix("/v1")

    @property
    def bill(self) -> Bill:
        """Everything charged for until now, batches included."""
        self._openai_batches.advance()
        self._anthropic_batches.advance()
        return self._desk.bill

    def _new_id(self, start: str) -> str:
        self._ids += 1
        digest = hashlib.sha256(f"{self.options.now()}/{self.base_url}/{self._ids}".encode()).hexdigest()
        return f"{start}mock{digest[:20]}"

    # --- conversations ---

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Begin a conversation; ``hang_up`` ends it."""
        task = asyncio.get_running_loop().create_task(self._talk(reader, writer))
        self._talks.add(task)
        task.add_done_callback(self._talks.discard)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until either side has had enough."""
        try:
            # A client that leaves in the middle is what this server is for.
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, NotHttp):
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
        heard = await hear(reader)
        if heard is None:
            return False
        if self.options.log is not None:
            _write_down(self.options.log, heard)
        if self.options.key is not None and not _has_key(heard, self.options.key):
            refused = self._refused(heard, 401, "the key is wrong; it is what --require-key says")
            closing = self._tell(refused, heard, writer)
        elif (dialect := DIALECTS.get(heard.path)) is not None and heard.method == "POST":
            closing = await self._answer(dialect, heard, reader, writer)
        else:
            closing = self._tell(self._aside(heard), heard, writer)
        await writer.drain()
        return heard.keep_alive and not closing

    # --- questions ---

    async def _answer(
        self, dialect: Dialect, heard: Heard, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        try:
            question = dialect.read(heard.body, heard.headers)
        except NotARequest as error:
            self._desk.bill.asked("bad-request")
            return self._tell(self._refused(heard, 400, str(error)), heard, writer)
        limits: tuple[tuple[str, str], ...] = ()
        if self._limits is not None:
            lacking = self._limits.take(question)
            limits = self._limits.headers(dialect.vendor)
            if lacking is not None:
                self._desk.bill.asked("rate-limited")
                pause = self._limits.pause(dialect.vendor, lacking, question)
                refusal = self._refused(heard, 429, f"the rate limit on {lacking}")
                return self._tell(replace(refusal, headers=(*limits, *pause)), heard, writer)
        return await self._teach(dialect, question, limits, reader, writer)

    async def _teach(
        self,
        dialect: Dialect,
        question: Question,
        limits: tuple[tuple[str, str], ...],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> bool:
        decision = self._desk.decide(question)
        if self.options.latency_s > 0:
            await asyncio.sleep(self.options.latency_s)
        exchange = Exchange(
            question=question,
            dialect=dialect,
            reply=dialect.reply(question, decision.answer, self.options.labels),
            request_id=f"mock-{question.key[:16]}-{decision.attempt}",
            reader=reader,
            writer=writer,
            slow_s=self.options.slow_s,
        )
        kind = decision.kind
        if kind is None:
            await exchange.say(*limits)
        else:
            await kind.act(exchange)
        if kind is None or kind.usable or exchange.patient:
            self._desk.bill.answered[question.key] += 1
        return exchange.closing

    # --- everything else ---

    def _tell(self, told: Told, heard: Heard, writer: asyncio.StreamWriter) -> bool:
        """Tell a response, or as much of it as is to arrive; True if that was the last."""
        self._ids += 1
        raw = told.raw(_request_id(heard, f"req_mock{self._ids}"))
        if told.heard >= 1:
            writer.write(raw)
            return False
        raw = raw if told.heard > 0 else b""
        writer.write(raw[: len(raw) - int(len(told.body) * (1 - told.heard))])
        writer.close()
        return True

    def _aside(self, heard: Heard) -> Told:
        try:
            found = self._respond(heard)
        except NotARequest as error:
            return self._refused(heard, error.status, str(error))
        if found is None:
            there_are = ", ".join([*(f"POST {path}" for path in DIALECTS), *_ASIDE])
            return self._refused(heard, 404, f"no {heard.method} {heard.path}; there are {there_are}")
        return found

    def _refused(self, heard: Heard, status: int, message: str) -> Told:
        error = anthropic_error if _speaks_anthropic(heard) else openai_error
        # Told as the next response, whose name is one more.
        body = named_error(error(status, f"mock teacher: {message}"), f"req_mock{self._ids + 1}")
        return Told(status=status, body=body)

    def _respond(self, heard: Heard) -> Told | None:
        match heard.method, *heard.path.strip("/").split("/"):
            case "GET", "bill":
                return json_told(self.bill.to_json())
            case "POST", "reset":
                self.reset()
                return json_told({})
            case "GET", "v1", "models", *name:
                models = anthropic_models if _speaks_anthropic(heard) else openai_models
                return json_told(models(unquote("/".join(name))))
            case _, "v1", "files", *rest:
                return self._files.respond(heard, rest)
            case _, "v1", "batches", *rest:
                return self._openai_batches.respond(heard, rest)
            case _, "v1", "messages", "batches", *rest:
                return self._anthropic_batches.respond(heard, rest)
            case "POST", "v1", "messages", "count_tokens":
                return json_told(count_tokens(heard.body, heard.headers))
        return None


def _write_down(log: Path, heard: Heard) -> None:
    with log.open("ab") as file:
        line = {"method": heard.method, "path": heard.path, "body": heard.body.decode("utf-8", "replace")}
        file.write(orjson.dumps(line) + b"\n")


def _limits(options: Options) -> Limits:
    return Limits(
        requests=options.rate_limit,
        tokens=options.token_limit,
        told=options.told,
        clock=options.clock,
        now=options.now,
    )


def _has_key(heard: Heard, key: str) -> bool:
    """Whether a request may be answered; the bill is for whoever runs the server."""
    if not heard.path.startswith("/v1/"):
        return True
    given = heard.headers.get("x-api-key") or heard.headers.get("authorization", "").removeprefix("Bearer ")
    return hmac.compare_digest(given.encode(), key.encode())


def _speaks_anthropic(heard: Heard) -> bool:
    return "anthropic-version" in heard.headers or heard.path.startswith("/v1/messages")


def _request_id(heard: Heard, name: str) -> tuple[str, str]:
    return ("request-id" if _speaks_anthropic(heard) else "x-request-id"), name
