"""The service put together: its application, the door it listens at, and how it ends."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from importlib import import_module
from ipaddress import ip_address, ip_network
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

LONGEST_LINE: Final = 8 * 2**10
"""Bytes of a request line or of one header."""
LONGEST_HEAD: Final = 32 * 2**10
"""Bytes of a request line with all its headers."""
MOST_HEADERS: Final = 100
HEADERS_S: Final = 15.0
"""How long a request line and its headers may take, from the connection or from their first byte."""
IDLE_S: Final = 75.0
"""How long a connection is kept that asks nothing more; proxies give up theirs after a minute."""
LINGERING_S: Final = 1.0
BACKLOG: Final = 4_096
MOST_CONNECTIONS: Final = 4_096
MOST_OF_ONE: Final = 256
"""Connections of one address elsewhere."""
FIRST: Final = "corpusgen.store.fresh"
"""What the first answer needs and nobody else: reading it takes as long as half of all that comes before."""
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
    from corpusgen.serve import gateway, health
    from corpusgen.serve.api import operations as of_api
    from corpusgen.serve.batches import operations as batches

    of_gateway = [*gateway.operations(service), *batches.operations(service)]
    return [*health.operations(), *of_gateway, *of_api.operations(), *_pages()]


def _pages() -> Iterable[Operation]:
    from corpusgen.serve import console

    try:
        return console.operations()
    except ModuleNotFoundError as error:
        if error.name not in ("jinja2", "markupsafe"):
            raise
        return ()


def _routed(app: web.Application, operations: Iterable[Operation]) -> dict[object, Operation]:
    by_route: dict[object, Operation] = {}
    for operation in operations:
        route = app.router.add_route(operation.method, operation.path, operation.handler, expect_handler=_expected)
        by_route[route] = operation
        if operation.method == "GET" and operation.scope is None:
            by_route[app.router.add_route("HEAD", operation.path, operation.handler)] = operation
    return by_route


async def _expected(_: web.Request) -> None:
    """Nothing yet: aiohttp comes here before the gate, which asks for the body once it has looked at the headers."""


class _Heads:
    """The parser of a connection, which gives up on a request whose line and headers are too long together."""

    _PIECE: Final = 8 * 2**10

    def __init__(self, knock: _Knock, parser: Any) -> None:
        self._knock = knock
        self._parser = parser
        self._body: Any = None
        self.size = 0
        """Bytes of a head that has no end yet."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._parser, name)

    def feed_data(self, data: bytes) -> tuple[list[Any], bool, bytes]:
        """As the parser does, in pieces, between which is counted. Raises LineTooLong."""
        found: list[Any] = []
        for at in range(0, max(1, len(data)), self._PIECE):
            piece = data[at : at + self._PIECE]
            in_body = self._body is not None and not self._body.is_eof()
            messages, upgraded, tail = self._parser.feed_data(piece)
            found += messages
            if upgraded:
                return found, True, tail + data[at + self._PIECE :]
            if messages:
                self._body, self.size = messages[-1][1], 0
            elif not in_body and not self._knock.is_full(len(found)):
                self.size += len(piece)
                if self.size > LONGEST_HEAD:
                    raise http_exceptions.LineTooLong(b"", LONGEST_HEAD)
        return found, False, b""


class Guests:
    """How many connections each address has that is not this machine's own."""

    def __init__(self, most: int, exempt: Callable[[str], bool]) -> None:
        self._most = most
        self._exempt = exempt
        self._of: Counter[str] = Counter()

    def enter(self, address: str) -> str | None:
        """What a connection is counted under; None where there are too many already."""
        name = "" if self._exempt(address) else _neighbours(address)
        if name and self._of[name] >= self._most:
            return None
        self._of[name] += 1
        return name

    def leave(self, name: str) -> None:
        """A connection less."""
        self._of[name] -= 1
        if self._of[name] <= 0:
            del self._of[name]


def is_here(address: str) -> bool:
    """Whether it is this machine that asks."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:  # a socket that has no address
        return True
    return (getattr(found, "ipv4_mapped", None) or found).is_loopback


def _neighbours(address: str) -> str:
    """An address as it is counted: of IPv6 everybody has as many as a network has, so that is one."""
    found = ip_address(address.partition("%")[0])
    return str(ip_network((found, 64), strict=False)) if found.version == 6 else str(found)


class _Knock(web.RequestHandler):
    """One connection; what is not HTTP is refused in our words, with nothing of it repeated."""

    unread: Callable[[int, str], None]
    """Takes note of it: the status, and who sent it."""
    guests: Guests
    headers_s: float
    turned_away: Callable[[], None]
    _guest: str | None = None
    _alarm: asyncio.TimerHandle | None = None

    def is_full(self, more: int) -> bool:
        """Whether so many requests wait that the next are not read yet."""
        return len(self._messages) + more >= self._max_msg_queue_size

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Let it in, unless its address has as many as it may."""
        peer = transport.get_extra_info("peername")
        self._guest = self.guests.enter(str(peer[0]) if isinstance(peer, tuple) else "")
        if self._guest is None:
            self.turned_away()
            _Full().connection_made(transport)
            return
        super().connection_made(transport)
        self._parser: Any = _Heads(self, self._parser)
        self._wait_for_head()

    def connection_lost(self, exc: BaseException | None) -> None:
        """One less."""
        if self._guest is None:
            return
        self.guests.leave(self._guest)
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on; a request whose head takes too long is not waited for."""
        if self._guest is None:
            return
        before = self._request_count
        super().data_received(data)
        if not data or self._parser is None:
            return
        if self._parser.size:
            if self._alarm is None:
                self._wait_for_head()
        elif self._request_count != before:
            self._stop_waiting()

    def _wait_for_head(self) -> None:
        self._alarm = self._loop.call_later(self.headers_s, self._late)

    def _stop_waiting(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _late(self) -> None:
        self._alarm = None
        if self._request_in_progress or self._messages:  # who waits for an answer may send the next one slowly
            self._wait_for_head()
        else:
            self.force_close()

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
        if exc is not None:
            exc.__traceback__ = (
                None  # it goes round in a circle, and keeps what was read until somebody looks for those
            )
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
    server: web.Server,
    meter: Meter,
    log: Log,
    *,
    most: int = MOST_CONNECTIONS,
    most_of_one: int = MOST_OF_ONE,
    exempt: Callable[[str], bool] = is_here,
    headers_s: float = HEADERS_S,
    idle_s: float = IDLE_S,
) -> Callable[[], asyncio.Protocol]:
    """What makes a protocol of each connection, so many at once, and so many of one address that is not exempt."""
    guests = Guests(most_of_one, exempt)

    def turned_away() -> None:
        meter.add("corpusgen_connections_refused_total", 1)

    def unread(status: int, address: str) -> None:
        meter.add("corpusgen_requests_total", 1, "other", "other", str(status))
        log.say("unreadable", status=status, address=address)

    def opened() -> asyncio.Protocol:
        if len(server.connections) >= most:
            turned_away()
            return _Full()
        knock = _Knock(
            server,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type] # None is what turns it off
            keepalive_timeout=idle_s,
            max_line_size=LONGEST_LINE,
            max_field_size=LONGEST_LINE,
            max_headers=MOST_HEADERS,
            auto_decompress=False,
            lingering_time=LINGERING_S,
        )
        knock.unread, knock.turned_away = unread, turned_away
        knock.guests, knock.headers_s = guests, headers_s
        return knock

    return opened


@asynccontextmanager
async def listening(
    app: web.Application,
    place: socket.socket,
    *,
    tls: ssl.SSLContext | None = None,
    **limits: Any,
) -> AsyncIterator[asyncio.Server]:
    """Answers at a bound socket while it is open; what is still being answered at the end is broken off.

    ``limits`` are those of ``door``.
    """
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=CLEANUP_S)
    await runner.setup()
    assert runner.server is not None
    meter = app[SERVICE].meter
    settings = app[SETTINGS]
    if settings.behind_proxy:  # which is everybody
        limits = {"exempt": lambda _: True, **limits}
    made = door(runner.server, meter, settings.log, **limits)
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
    from corpusgen.serve.batches.work import BatchWork
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
    """Read what the first answer needs; count connections and how late the event loop is, until cancelled."""
    loop = asyncio.get_running_loop()
    await asyncio.to_thread(import_module, FIRST)
    while True:
        due = loop.time() + every_s
        await asyncio.sleep(every_s)
        meter.set("corpusgen_loop_lag_seconds", max(0.0, round(loop.time() - due, 6)))
        meter.set("corpusgen_connections", len(server.connections))
