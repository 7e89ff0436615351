"""One HTTP session to one server: bytes out, a reply or a TeacherError back.

No redirects, because they would carry the prompt to somebody the policy never judged; no proxy or netrc from the
environment; no retries, because each try is reserved by the caller.
"""

from __future__ import annotations

import asyncio
import os
import zlib
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final, NoReturn

import aiohttp
import orjson
from aiohttp.connector import Connection
from aiohttp.http import HttpProcessingError, RawResponseMessage
from aiohttp.streams import StreamReader
from yarl import URL

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
from corpusgen.records import Api, Reply
from corpusgen.teachers.billing import NOTHING_KNOWN, Billing
from corpusgen.teachers.connections import Connections
from corpusgen.teachers.deadlines import Deadlines
from corpusgen.teachers.limits import only_limits
from corpusgen.teachers.streams import Fold, Splitter, name_and_data
from corpusgen.teachers.wire import shown

MAX_BODY: Final = 64 * 2**20
"""Most bytes of one answer, after decompression; more is a bomb or a fault."""

MAX_RETRY_AFTER_S: Final = 600.0
"""No server may put us to sleep for longer, whatever it writes."""

_SPENT: Final = frozenset(
    {
        "insufficient_quota",
        "credit_balance_exhausted",
        "organization_usage_limit_exceeded",
        "organization_spend_limit_exceeded",
        "project_spend_limit_exceeded",
        "enforced_spend_limit_reached",
    }
)
"""OpenAI's words for it (help.openai.com, article 5955604, read 2026-11-21), of which others have copied the first;
the last is Anthropic's (learn.microsoft.com, Dev Proxy, "Anthropic 529 overloaded_error", read 2026-11-22)."""

_MAX_ERROR_BODY: Final = 64 * 2**10
_KEPT_OF_STREAM: Final = 16 * 2**10
"""Bytes of a stream to be looked at if it is no answer; a thousand may be under way."""
_AFTERWARDS_S: Final = 0.25
"""How long the end of a response is waited for when its answer is whole; then the connection is given up."""
_CONNECT_S: Final = 10.0
_WINDOWS: Final = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
_MESSAGE: Final = 500
_LEAST_SECRET: Final = 16
"""Characters of a key that somebody handed out; what is shorter was made up."""
_LEAST_IN_MESSAGES: Final = 4
_PORTION: Final = 2**20
"""Most bytes that are unpacked of a stream at once."""
_KEEP_S: Final = 4.0
"""uvicorn, and so vLLM, closes an idle connection after 5 s; a POST that meets that moment would be lost."""

Clock = Callable[[], datetime]
_Reads = Callable[[RawResponseMessage, StreamReader], Awaitable[bytes]]
_WHOLE: Final = {"Accept": "application/json", "Accept-Encoding": "gzip, deflate"}
_STREAMED: Final = {"Accept": "text/event-stream", "Accept-Encoding": "identity"}
"""Packed, events would be held back until there is enough to pack."""


class Secret:
    """A key that shows itself to nobody but the request header."""

    __slots__ = ("_spelt", "_value")

    def __init__(self, value: str) -> None:
        self._value = value
        self._spelt: tuple[bytes, ...] | None = None

    def __repr__(self) -> str:
        return "Secret('***')"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not to be pickled")

    def reveal(self) -> str:
        """The key itself."""
        return self._value

    def masked(self, text: str) -> str:
        """A message in which the key, should a server echo it, is stars."""
        return text.replace(self._value, "***") if len(self._value) >= _LEAST_IN_MESSAGES else text

    def masked_body(self, raw: bytes) -> bytes:
        """An answer in which the key is stars, however JSON spells it.

        What local servers take for a key (``EMPTY``, ``ollama``, ``1``) is no secret, and may be part of any answer.
        """
        for spelt in self._spellings():
            raw = raw.replace(spelt, b"***")
        if not self._spelt or (b"\\u" not in raw and b"\\/" not in raw):
            return raw
        try:
            plain = orjson.dumps(orjson.loads(raw))
        except (orjson.JSONDecodeError, orjson.JSONEncodeError):
            return raw
        spelt = self._spelt[-1]
        return plain.replace(spelt, b"***") if spelt in plain else raw

    def _spellings(self) -> tuple[bytes, ...]:
        """How a body may hold it, the last as JSON spells it; none of what is no secret."""
        if self._spelt is None:
            secret = len(self._value) >= _LEAST_SECRET and not self._value.isalpha()
            both = (self._value.encode(), orjson.dumps(self._value)[1:-1]) if secret else ()
            self._spelt = tuple(dict.fromkeys(both))
        return self._spelt


def secret_from_environment(name: str | None) -> Secret | None:
    """The key in an environment variable, or None if no variable is named. Raises UsageError if it holds none."""
    if name is None:
        return None
    value = os.environ.get(name, "").strip()
    if not value:
        raise UsageError(
            f"key_env: the environment variable {name!r} is not set; export it, or name another with key_env"
        )
    if not value.isascii() or not value.isprintable():
        raise UsageError(f"key_env: the environment variable {name!r} holds characters no key has; export it again")
    return Secret(value)


@dataclass(kw_only=True)
class Transport:
    """One session; opened by the first call, closed by ``aclose``.

    aiohttp opens the connections and reads what comes; the request is written by ourselves. Its own client makes half a
    dozen objects of every call and follows redirects, cookies and proxies, none of which may happen here.
    """

    base_url: str
    clock: Clock
    secret: Secret | None = None
    billing: Billing = NOTHING_KNOWN
    max_body: int = MAX_BODY
    keep_alive: bool = True
    headers: Mapping[str, str] = field(default_factory=dict)
    """What every request carries besides the usual; a name given here takes the place of ours."""
    key_header: str = "Authorization"
    """Where the key goes: as a bearer under this name, plain under any other."""
    hidden: list[Secret] = field(default_factory=list, repr=False)
    """Other secrets that requests carry, such as a token of somebody who signed in; kept as little as the key."""
    _connections: Connections | None = field(default=None, repr=False)
    _deadlines: Deadlines = field(default_factory=Deadlines, repr=False)
    _routes: dict[str, _Route] = field(default_factory=dict, repr=False)
    _streamed: dict[str, _Route] = field(default_factory=dict, repr=False)

    async def post(self, path: str, body: bytes, *, timeout_s: float) -> Reply:
        """The reply to one POST. Raises a TeacherError for everything that is not a whole HTTP 200."""
        route = self._routes.get(path) or self._route(path)
        return await self._sent(route, route.head + b"%d\r\n\r\n" % len(body) + body, timeout_s, self._whole)

    async def stream(
        self, path: str, body: bytes, *, api: Api, timeout_s: float, heard: Callable[[bytes], None]
    ) -> Reply:
        """The reply to one POST that asks for a stream, put together as if it had been answered whole.

        ``heard`` is given each event, masked, as soon as it is whole and has been read; ``timeout_s`` bounds the whole
        call. A server that answers in one piece is heard to say nothing. What fails after something was heard is not
        transient any more: somebody has begun to hear an answer, and another would not go on where it broke off.
        """
        route = self._streamed.get(path) or self._streaming_route(path)
        listener = _Listener(api=api, limit=self.max_body, masked=self._masked_event, heard=heard)

        async def read(head: RawResponseMessage, content: StreamReader) -> bytes:
            streams = head.code == 200 and _is_stream(head)
            return await (listener.listen(head, content) if streams else self._whole(head, content))

        try:
            return await self._sent(route, route.head + b"%d\r\n\r\n" % len(body) + body, timeout_s, read)
        except TeacherError as error:
            error.transient = error.transient and not listener.told
            if isinstance(error, InvalidAnswer) and listener.began:
                error.body = self.without_key(b"".join(listener.began))
            raise

    async def send(self, request: bytes, *, timeout_s: float) -> Reply:
        """The reply to one whole request that somebody else has written, head and body, at the base URL's server."""
        return await self._sent(self._routes.get("") or self._route(""), request, timeout_s, self._whole)

    async def _sent(self, route: _Route, request: bytes, timeout_s: float, read: _Reads) -> Reply:
        name: str | None = None
        try:
            sent = self.clock()
            connections = self._open()
            with self._deadlines.within(timeout_s):
                if (connection := connections.take()) is None:
                    # Well before the time is over, so that one nobody takes is known as a call that was not sent.
                    connection = await connections.new(route.opening, min(_CONNECT_S, timeout_s / 2))
                try:
                    head, content = await _exchange(connection, request)
                    if (name := _request_id(head.headers)) is not None:
                        name = self.masked(name)
                    raw = await read(head, content)
                except BaseException:
                    connection.close()
                    raise
            connections.put_back(connection)
            return self._reply(head, raw, name, sent)
        except (aiohttp.ClientError, HttpProcessingError, OSError) as error:
            failure = self._mapped(error, timeout_s)
        except TeacherError as error:
            error.request_id = name
            raise
        failure.request_id = name
        # Raised out here because aiohttp's errors may carry the request's headers, and with them the key.
        raise failure

    def _reply(self, head: RawResponseMessage, raw: bytes, name: str | None, sent: datetime) -> Reply:
        if head.code != 200:
            raise self._failure(head, raw)
        received = self.clock()
        body = self.without_key(raw)
        return Reply(body=body, request_id=name, sent_time=sent, received_time=received, headers=head.headers)

    async def _whole(self, head: RawResponseMessage, content: StreamReader) -> bytes:
        limit = self.max_body if head.code == 200 else _MAX_ERROR_BODY
        return _inflated(await _limited(content, head.code, limit), head, limit)

    def _mapped(self, error: Exception, timeout_s: float) -> TeacherError:
        # The order matters: TimeoutError is an OSError, and a connection's time-out is both a TimeoutError and unsent.
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            return NotSent(f"no connection to {self.base_url} in time; check base_url")
        if isinstance(error, TimeoutError):
            return TeacherTimeout(f"no whole answer from {self.base_url} within {timeout_s:g} s")
        if isinstance(error, aiohttp.ClientConnectorError):
            return NotSent(f"no connection to {self.base_url}: {self.masked(str(error))}")
        # Not str(error): it may spell out the request.
        return TeacherFault(f"the connection to {self.base_url} broke: {type(error).__name__}")

    async def aclose(self) -> None:
        """Close the session's connections."""
        if self._connections is not None:
            await self._connections.aclose()
            self._connections = None
            self._routes.clear()
            self._streamed.clear()

    def _open(self) -> Connections:
        kept = self._connections
        if kept is None or kept.loop is not asyncio.get_running_loop():
            kept = self._connections = Connections(keep_s=_KEEP_S if self.keep_alive else 0.0)
        return kept

    def _route(self, path: str) -> _Route:
        url = URL(self.base_url + path)
        opening = aiohttp.ClientRequest("POST", url, loop=asyncio.get_running_loop())
        route = self._routes[path] = _Route(opening=opening, head=self._head(url))
        return route

    def _streaming_route(self, path: str) -> _Route:
        whole = self._routes.get(path) or self._route(path)
        head = self._head(URL(self.base_url + path), _STREAMED)
        route = self._streamed[path] = _Route(opening=whole.opening, head=head)
        return route

    def _head(self, url: URL, accepted: Mapping[str, str] = _WHOLE) -> bytes:
        """Everything of a request before the length of its body."""
        headers = {
            "Host": url.host_port_subcomponent or "",
            **accepted,
            "User-Agent": "corpusgen",
            "Content-Type": "application/json",
            **({} if self.keep_alive else {"Connection": "close"}),
            **self.headers,
        }
        headers |= self.keyed()
        lines = [f"POST {url.raw_path_qs} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        if any(not line.isprintable() or not line.isascii() for line in lines):
            raise UsageError(f"base_url: {self.base_url!r} or a header holds characters HTTP has none for")
        return "\r\n".join([*lines, "Content-Length: "]).encode()

    def keyed(self) -> dict[str, str]:
        """The header with the key, if there is one."""
        if self.secret is None:
            return {}
        bearer = "Bearer " if self.key_header == "Authorization" else ""
        return {self.key_header: bearer + self.secret.reveal()}

    def _failure(self, response: RawResponseMessage, raw: bytes) -> TeacherError:
        failure = self._classified(response, raw)
        failure.headers = only_limits(response.headers)
        failure.billable = self.billing.may_charge(response.code)
        return failure

    def _classified(self, response: RawResponseMessage, raw: bytes) -> TeacherError:
        status = response.code
        message = f"HTTP {status} from {self.base_url}: {provider_message(raw, self.masked)}"
        if 300 <= status < 400:
            where = shown(self.masked(response.headers.get("Location", "")))
            return RequestRefused(f"HTTP {status}: {self.base_url} redirects to {where}; mend base_url", status=status)
        if status < 300:
            return InvalidAnswer(message, status=status)
        pause = retry_after(response.headers, self.clock())
        told = response.headers.get("x-should-retry")  # OpenAI and Anthropic know better than a status can say
        if (status == 429 and _spent(raw)) or told == "false":
            return RequestRefused(message, status=status)
        failure = failure_of(status, message, retry_after_s=pause)
        if isinstance(failure, RequestRefused) and told == "true":
            return TeacherFault(message, retry_after_s=pause, status=status)
        return failure

    def masked(self, text: str) -> str:
        """A message without the key and whatever else is to be kept."""
        for secret in self._secrets():
            text = secret.masked(text)
        return text

    def without_key(self, raw: bytes) -> bytes:
        """An answer without them: it is kept in the journal, and a server may echo its headers."""
        for secret in self._secrets():
            raw = secret.masked_body(raw)
        return raw

    def _masked_event(self, event: bytes) -> bytes:
        """The same for one event of a stream. A key that is said a few letters an event is not seen here."""
        masked = self.without_key(event)
        if b"\\" not in masked:
            return masked
        name, data = name_and_data(masked)
        plain = self.without_key(data)  # by itself, because only of JSON can escapes be undone
        if plain == data:
            return masked
        return (b"event: " + name + b"\n" if name else b"") + b"data: " + plain + b"\n\n"

    def _secrets(self) -> tuple[Secret, ...]:
        return (*self.hidden, *(() if self.secret is None else (self.secret,)))


@dataclass(frozen=True, kw_only=True)
class _Route:
    """What is the same for every request to one path."""

    opening: aiohttp.ClientRequest
    """Says where to connect; it is never sent."""
    head: bytes = field(repr=False)


async def _exchange(connection: Connection, request: bytes) -> tuple[RawResponseMessage, StreamReader]:
    """Send a request and read the answer's head."""
    protocol = connection.protocol
    if protocol is None or protocol.transport is None:
        raise aiohttp.ServerDisconnectedError
    # Unpacked by ourselves: aiohttp takes half a gzip stream for a whole one.
    protocol.set_response_params(read_until_eof=True, auto_decompress=False)
    protocol.transport.write(request)
    head, content = await protocol.read()
    while 100 <= head.code < 200 and head.code != 101:  # a server may say that the answer is still to come
        head, content = await protocol.read()
    return head, content


async def _limited(content: StreamReader, status: int, limit: int) -> bytes:
    if content.is_eof():  # it came in one piece, as most answers do
        raw = content.read_nowait(-1)
        return raw if len(raw) <= limit else _too_large(status, limit, [raw])
    chunks: list[bytes] = []
    size = 0
    async for chunk in content.iter_any():
        size += len(chunk)
        chunks.append(chunk)
        if size > limit:
            return _too_large(status, limit, chunks)
    return b"".join(chunks)


def _is_stream(head: RawResponseMessage) -> bool:
    kind = head.headers.get("Content-Type", "").partition(";")[0]
    return kind.strip().lower() == "text/event-stream"


@dataclass(kw_only=True)
class _Listener:
    """Reads one stream to its end."""

    api: Api
    limit: int
    masked: Callable[[bytes], bytes]
    heard: Callable[[bytes], None]
    told: bool = False
    """Something of the answer has been passed on."""
    began: list[bytes] = field(default_factory=list)
    """What came first, to be looked at if it is no answer."""
    _kept: int = 0

    async def listen(self, head: RawResponseMessage, content: StreamReader) -> bytes:
        """The body of the whole answer."""
        splitter, fold = Splitter(self.limit), Fold(self.api, limit=self.limit)
        unpacked = _Unpacked(encoding=head.headers.get("Content-Encoding", "").strip().lower())
        async for raw in content.iter_any():
            for portion in unpacked.portions(raw):
                for event in splitter.feed(portion):
                    self._take(event, fold)
            if fold.ended:
                await _afterwards(content)
                return fold.whole()
        unpacked.check_end()
        if rest := splitter.rest():
            self._take(rest if rest.endswith(b"\r") else rest + b"\n\n", fold)
        return fold.whole()

    def _take(self, event: bytes, fold: Fold) -> None:
        event = self.masked(event)
        if self._kept < _KEPT_OF_STREAM:
            self.began.append(event)
            self._kept += len(event)
        ended = fold.ended
        says = fold.feed(event)
        if not ended:
            self.told |= says
            self.heard(event)


@dataclass(kw_only=True)
class _Unpacked:
    """What a response's body is when it is unpacked, portion by portion."""

    encoding: str
    _inflater: Any = None

    def portions(self, raw: bytes) -> Iterator[bytes]:
        """What comes of these bytes. Raises TeacherFault if they are not packed at all."""
        if self.encoding not in _WINDOWS:
            yield raw
            return
        self._inflater = self._inflater or _inflater(self.encoding, raw)
        more = True
        while more and not self._inflater.eof:
            try:
                plain = self._inflater.decompress(raw, _PORTION)
            except zlib.error as error:
                raise TeacherFault(f"the answer says that it is {self.encoding} and is not: {error}") from error
            yield plain
            raw = self._inflater.unconsumed_tail
            more = bool(raw) or len(plain) == _PORTION

    def check_end(self) -> None:
        """Raise InvalidAnswer if something is still to come."""
        if self._inflater is not None and not self._inflater.eof:
            raise InvalidAnswer(f"the answer is cut off within its {self.encoding}")


async def _afterwards(content: StreamReader) -> None:
    """Let a response end, so that its connection may be used again; its answer is whole without that."""
    size = 0
    with suppress(TimeoutError, OSError, aiohttp.ClientError, HttpProcessingError):
        async with asyncio.timeout(_AFTERWARDS_S):
            async for portion in content.iter_any():
                size += len(portion)
                if size > _MAX_ERROR_BODY:
                    return


def _inflater(encoding: str, raw: bytes) -> Any:
    # Some servers leave out the two bytes before what they call deflate.
    bare = encoding == "deflate" and raw[0] & 0xF != 8
    return zlib.decompressobj(-zlib.MAX_WBITS if bare else _WINDOWS[encoding])


def _inflated(raw: bytes, head: RawResponseMessage, limit: int) -> bytes:
    """An answer unpacked. Raises InvalidAnswer if it is not all there, TeacherFault if it is not packed at all."""
    encoding = head.headers.get("Content-Encoding", "").strip().lower()
    if encoding not in _WINDOWS or not raw:
        return raw
    inflater = _inflater(encoding, raw)
    try:
        body: bytes = inflater.decompress(raw, limit + 1)
    except zlib.error as error:
        if head.code != 200:
            return b""
        raise TeacherFault(f"the answer says that it is {encoding} and is not: {error}") from error
    if len(body) > limit:
        return _too_large(head.code, limit, [body])
    if not inflater.eof and head.code == 200:
        raise InvalidAnswer(f"the answer is cut off within its {encoding}, after {len(raw)} bytes")
    return body


def _too_large(status: int, limit: int, chunks: list[bytes]) -> bytes:
    if status == 200:
        raise InvalidAnswer(f"the answer is larger than {limit} bytes", status=status)
    return b"".join(chunks)[:limit]


def failure_of(status: int, message: str, *, retry_after_s: float | None = None) -> TeacherError:
    """The error that an HTTP status of 400 or more stands for."""
    if status in (429, 529):
        return RateLimited(message, retry_after_s=retry_after_s, status=status)
    if status in (408, 409) or status >= 500:
        return TeacherFault(message, retry_after_s=retry_after_s, status=status)
    return RequestRefused(message, status=status)


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds a server asks us to wait, between 0 and ten minutes, or None if it does not say."""
    seconds = _number(headers.get("retry-after-ms"))
    seconds = seconds / 1000 if seconds is not None else _number(headers.get("Retry-After"))
    if seconds is None:
        # Counted from the server's own time, where it tells it: one of the two clocks may be wrong.
        seconds = _until(headers.get("Retry-After"), _moment(headers.get("Date")) or now)
    return None if seconds is None else min(max(seconds, 0.0), MAX_RETRY_AFTER_S)


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return None if number != number else number


def _until(text: str | None, now: datetime) -> float | None:
    moment = _moment(text)
    return None if moment is None else moment.timestamp() - now.timestamp()


def _moment(text: str | None) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text or "")
    except (ValueError, OverflowError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def provider_message(raw: bytes, masked: Callable[[str], str] = str) -> str:
    """What the server said went wrong, on one line of at most 500 characters, masked when its escapes are undone."""
    try:
        reply = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return shown(masked(raw.decode(errors="replace")), _MESSAGE)
    error = reply.get("error", reply) if isinstance(reply, dict) else reply
    if isinstance(error, dict):
        error = error.get("message") or error.get("detail") or error
    return shown(masked(error if isinstance(error, str) else orjson.dumps(error).decode()), _MESSAGE)


def _spent(raw: bytes) -> bool:
    """Whether a 429 says that there is no money left, which waiting does not mend."""
    try:
        error = orjson.loads(raw)["error"]
        details = error.get("details")
        code = details.get("error_code") if isinstance(details, dict) else None
        return not _SPENT.isdisjoint((error.get("code"), error.get("type"), code))
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        return False


def _request_id(headers: Mapping[str, str]) -> str | None:
    found = headers.get("x-request-id") or headers.get("request-id") or headers.get("x-amzn-requestid")
    return found[:200] if found and found.isprintable() else None
