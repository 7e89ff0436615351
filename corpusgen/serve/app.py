"""The service put together: its application, the door it listens at, and how it ends."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from aiohttp import http_exceptions, web

from corpusgen.corpus import Corpus
from corpusgen.errors import UsageError
from corpusgen.serve.bus import Bus
from corpusgen.serve.gate import (
    FAILED,
    IN_FLIGHT,
    OPERATIONS,
    SETTINGS,
    Failures,
    GateSettings,
    InFlight,
    add_headers,
    gate,
    shape_of_path,
)
from corpusgen.serve.logs import Log
from corpusgen.serve.meter import Meter
from corpusgen.serve.routes import Operation
from corpusgen.serve.service import SERVICE, Service
from corpusgen.serve.sessions import SESSIONS, Sessions
from corpusgen.serve.spans import Spans
from corpusgen.serve.statuses import Refused, refused
from corpusgen.serve.tokens import Tokens

if TYPE_CHECKING:
    from corpusgen.serve.config import Configured

LONGEST_LINE: Final = 16 * 2**10
"""Bytes of a request line or of one header."""
MOST_HEADERS: Final = 100
HEADERS_S: Final = 60.0
"""How long headers may take, and how long a connection may be idle."""
LINGERING_S: Final = 1.0
_log = logging.getLogger("corpusgen.serve")

BACKLOG: Final = 4_096
MOST_CONNECTIONS: Final = 4_096
GRACE_S: Final = 30.0
CLEANUP_S: Final = 2.0
"""How long answers that are still going out have, once those who ask have been waited for."""


def make_app(service: Service, operations: Iterable[Operation], settings: GateSettings) -> web.Application:
    """The application that answers to these operations, for callers that the settings let in."""
    app = web.Application(middlewares=[gate], client_max_size=2**40)  # bodies are bounded by each operation
    app[SERVICE], app[SETTINGS] = service, settings
    app[SESSIONS], app[FAILED], app[IN_FLIGHT] = Sessions(secure=settings.secure), Failures(), InFlight()
    app[OPERATIONS] = _routed(app, operations)
    app.on_response_prepare.append(add_headers)
    return app


def every_operation(service: Service) -> list[Operation]:
    """Everything the service answers to; without jinja2 there are no pages."""
    from corpusgen.serve import batches, gateway, health
    from corpusgen.serve.api import operations as of_api

    of_gateway = [*gateway.operations(service), *batches.operations(service)]
    return [*health.operations(), *of_gateway, *of_api.operations(), *_pages()]


def _pages() -> Iterable[Operation]:
    from corpusgen.serve import console

    try:
        return console.operations()
    except ModuleNotFoundError as error:
        if error.name not in ("jinja2", "markupsafe"):
            raise
        _log.warning("no console: install corpusgen-distill[serve]")
        return ()


def _routed(app: web.Application, operations: Iterable[Operation]) -> dict[object, Operation]:
    by_route: dict[object, Operation] = {}
    for operation in operations:
        route = app.router.add_route(operation.method, operation.path, operation.handler, expect_handler=_expected)
        by_route[route] = operation
        if operation.method == "GET" and operation.scope is None:
            by_route[app.router.add_route("HEAD", operation.path, operation.handler)] = operation
    return by_route


async def _expected(request: web.Request) -> None:
    """Ask for a body only in the one way there is; the gate looks at its headers first in any case."""
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # the answer itself has not begun


class _Knock(web.RequestHandler):
    """One connection; what is not HTTP is refused in our words, with nothing of it repeated."""

    unread: Callable[[int, str], None]
    """Takes note of it: the status, and who sent it."""

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # which repeats what was sent
    ) -> web.StreamResponse:
        """What is said of a request that nobody could read, or that failed before the gate saw it."""
        if request.writer.output_size > 0:
            raise ConnectionError("half an answer is out already")
        if isinstance(exc, http_exceptions.LineTooLong) or "Too many headers" in str(exc):
            told = Refused(431, "the request line or a header is longer than it may be, or there are too many")
        elif status == 400:
            told = Refused(400, "this is not a request that can be read as HTTP/1.1")
        else:
            told = Refused(status, "the request could not be answered")
        self.unread(told.status, str(request.remote))
        response = refused(shape_of_path(request.path), told, "")
        response.headers.update({"X-Content-Type-Options": "nosniff", "Server": "corpusgen"})
        response.force_close()
        return response


class _Full(asyncio.Protocol):
    """A connection more than there may be: told so, and closed."""

    _SAID: Final = b'{"error":{"type":"Unavailable","message":"too many connections; try again in a moment"}}'

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say it without reading anything."""
        assert isinstance(transport, asyncio.WriteTransport)
        head = (
            "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\n"
            f"Connection: close\r\nContent-Length: {len(self._SAID)}\r\n\r\n"
        )
        transport.write(head.encode() + self._SAID)
        transport.close()


def door(
    server: web.Server, meter: Meter, log: Log, *, most: int = MOST_CONNECTIONS, headers_s: float = HEADERS_S
) -> Callable[[], asyncio.Protocol]:
    """What makes a protocol of each connection, so many at once."""

    def unread(status: int, address: str) -> None:
        meter.add("corpusgen_requests_total", 1, "other", "other", str(status))
        log.say("unreadable", status=status, address=address)

    def opened() -> asyncio.Protocol:
        if len(server.connections) >= most:
            meter.add("corpusgen_connections_refused_total", 1)
            return _Full()
        knock = _Knock(
            server,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type] # None is what turns it off
            keepalive_timeout=headers_s,
            max_line_size=LONGEST_LINE,
            max_field_size=LONGEST_LINE,
            max_headers=MOST_HEADERS,
            auto_decompress=False,
            lingering_time=LINGERING_S,
        )
        knock.unread = unread
        return knock

    return opened


@asynccontextmanager
async def listening(
    app: web.Application,
    place: socket.socket,
    *,
    tls: ssl.SSLContext | None = None,
    most: int = MOST_CONNECTIONS,
    headers_s: float = HEADERS_S,
) -> AsyncIterator[asyncio.Server]:
    """Answers at a bound socket while it is open; what is still being answered at the end is broken off."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=CLEANUP_S)
    await runner.setup()
    assert runner.server is not None
    meter = app[SERVICE].meter
    made = door(runner.server, meter, app[SETTINGS].log, most=most, headers_s=headers_s)
    server = await asyncio.get_running_loop().create_server(made, sock=place, ssl=tls, backlog=BACKLOG)
    watch = asyncio.create_task(_watch(runner.server, meter), name="watch")
    try:
        yield server
    finally:
        watch.cancel()
        server.close()
        await runner.cleanup()


@asynccontextmanager
async def open_service(
    corpus: Corpus,
    config: Configured,
    *,
    tasks: Path | None = None,
    at_once: int = 1,
    grace_s: float = GRACE_S,
    spans: Spans | None = None,
) -> AsyncIterator[Service]:
    """The parts of a service over a corpus, closed at the end: what is under way has the grace to end, and is kept."""
    # Both bring half of the package, and whoever only writes a token needs neither.
    from corpusgen.serve.batch_work import BatchWork
    from corpusgen.serve.desk import Desk
    from corpusgen.serve.runs import Runs

    meter, bus = Meter(), Bus(clock=corpus.clock)
    desk = await Desk.open(corpus, config, meter=meter, bus=bus)
    desk.spans = spans or Spans()
    try:
        runs = await Runs.open(corpus, tasks=tasks, config=config, bus=bus, at_once=at_once)
        try:
            batches = await BatchWork.open(desk)
            try:
                service = Service(
                    corpus=corpus,
                    config=config.spec,
                    desk=desk,
                    runs=runs,
                    batches=batches,
                    tokens=Tokens(corpus),
                    meter=meter,
                    bus=bus,
                    started=corpus.clock(),
                )
                yield service
                if service.stopping.is_set():
                    grace_s = 0.0  # ``finish`` has waited already
            finally:
                await batches.close(grace_s=grace_s)
        finally:
            await runs.close(grace_s=grace_s)
    finally:
        bus.close()
        await desk.aclose(grace_s=grace_s)


async def finish(app: web.Application, server: asyncio.Server, *, grace_s: float, hurry: asyncio.Event) -> None:
    """Let nothing new begin, and wait for what is under way: as long as the grace, or until somebody is in a hurry."""
    service = app[SERVICE]
    service.stopping.set()
    service.desk.stopping.set()
    server.close()
    closing = (service.batches.close(grace_s=grace_s), service.runs.close(grace_s=grace_s))
    ended = asyncio.gather(app[IN_FLIGHT].idle.wait(), service.desk.idle(), *closing)
    waits: list[asyncio.Future[Any]] = [ended, asyncio.ensure_future(hurry.wait())]
    _, left = await asyncio.wait(waits, timeout=grace_s, return_when=asyncio.FIRST_COMPLETED)
    for one in left:
        one.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    service.bus.close()


def bound(host: str, port: int) -> socket.socket:
    """A socket at an address. Raises UsageError where it cannot be had."""
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise UsageError(f"--host: {host!r} is no address of this machine ({error.strerror})") from error
    place = socket.socket(family, kind, proto)
    try:
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            place.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        place.bind(address)
        # Bound but not listened at, two servers could share a port until the second of them begins.
        place.listen(BACKLOG)
    except OSError as error:
        place.close()
        raise UsageError(
            f"--port: {host}:{port} cannot be listened at: {error.strerror}; is another server running there?"
        ) from error
    place.setblocking(False)
    return place


def tls_context(cert: Path, key: Path) -> ssl.SSLContext:
    """TLS with a certificate. Raises UsageError for files that are none."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(cert, key, password=_no_password)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"--tls-cert, --tls-key: {str(cert)!r} and {str(key)!r} are no certificate with its key, without a"
            f" password, in PEM ({error})"
        ) from error
    return context


def _no_password() -> str:
    raise ValueError("the key has a password")


def hosts_of(host: str, port: int, names: Iterable[str], *, tls: bool, behind_proxy: bool) -> frozenset[str]:
    """What a ``Host`` header may say."""
    usual = 443 if tls else 80
    own = {"localhost", "127.0.0.1", "[::1]"}
    if host not in ("0.0.0.0", "::", ""):  # noqa: S104 - these are no names of a machine
        own.add(f"[{host}]" if ":" in host else host.lower())
    found = {f"{name}:{port}" for name in own} | (own if port == usual else set())
    for name in names:
        found |= {name.lower(), f"{name.lower()}:{port}"}
        if behind_proxy:
            found |= {f"{name.lower()}:443", f"{name.lower()}:80"}
    return frozenset(found)


async def _watch(server: web.Server, meter: Meter, *, every_s: float = 1.0) -> None:
    """Count connections, and how late the event loop comes to what is due, until cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + every_s
        await asyncio.sleep(every_s)
        meter.set("corpusgen_loop_lag_seconds", max(0.0, round(loop.time() - due, 6)))
        meter.set("corpusgen_connections", len(server.connections))
