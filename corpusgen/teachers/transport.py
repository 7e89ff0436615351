"""One HTTP session to one server: bytes out, a reply or a TeacherError back.

No redirects, because they would carry the prompt to somebody the policy never judged; no proxy or netrc from the
environment; no retries, because each try is reserved by the caller.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final, NoReturn

import aiohttp
import orjson
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.connector import Connection
from aiohttp.tracing import Trace

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
from corpusgen.records import Reply
from corpusgen.teachers.billing import NOTHING_KNOWN, Billing
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
    }
)
"""OpenAI's words for it (help.openai.com, article 5955604, read 2026-11-21); others have copied the first."""

_MAX_ERROR_BODY: Final = 64 * 2**10
_CONNECT_S: Final = 10.0
_MESSAGE: Final = 500
_KEPT: Final[dict[str, Any]] = {"keepalive_timeout": 4.0}
"""uvicorn, and so vLLM, closes an idle connection after 5 s; a POST that meets that moment would be lost."""
_CLOSED: Final[dict[str, Any]] = {"force_close": True}

Clock = Callable[[], datetime]


class Secret:
    """A key that shows itself to nobody but the request header."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def __repr__(self) -> str:
        return "Secret('***')"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not to be pickled")

    def reveal(self) -> str:
        """The key itself."""
        return self._value

    def masked(self, text: str) -> str:
        """A text in which the key, should a server echo it, is stars."""
        return text.replace(self._value, "***")


def secret_from_environment(name: str | None) -> Secret | None:
    """The key in an environment variable, or None if no variable is named. Raises UsageError if it holds none."""
    if name is None:
        return None
    value = os.environ.get(name, "").strip()
    if not value:
        raise UsageError(f"key_env: the environment variable {name!r} is not set; export it or remove key_env")
    if not value.isascii() or not value.isprintable():
        raise UsageError(f"key_env: the environment variable {name!r} holds characters no key has; export it again")
    return Secret(value)


@dataclass(kw_only=True)
class Transport:
    """One session; opened by the first call, closed by ``aclose``."""

    base_url: str
    clock: Clock
    secret: Secret | None = None
    billing: Billing = NOTHING_KNOWN
    max_body: int = MAX_BODY
    keep_alive: bool = True
    _session: aiohttp.ClientSession | None = field(default=None, repr=False)

    async def post(self, path: str, body: bytes, *, timeout_s: float) -> Reply:
        """The reply to one POST. Raises a TeacherError for everything that is not a whole HTTP 200."""
        heard: list[str | None] = []
        try:
            return await self._post(path, body, timeout_s, heard)
        except (aiohttp.ClientError, OSError) as error:
            failure = self._mapped(error, timeout_s)
        except TeacherError as error:
            error.request_id = heard[0] if heard else None
            raise
        failure.request_id = heard[0] if heard else None
        # Raised out here because aiohttp's errors carry the request's headers, and with them the key.
        raise failure

    async def _post(self, path: str, body: bytes, timeout_s: float, heard: list[str | None]) -> Reply:
        sent = self.clock()
        # Well before the whole time is over, so that a connection nobody takes is known as a call that was not sent.
        timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=min(_CONNECT_S, timeout_s / 2))
        url = self.base_url + path
        async with self._open().post(url, data=body, timeout=timeout, allow_redirects=False) as response:
            name = _request_id(response)
            heard.append(None if name is None else self._masked(name))
            raw = await _limited(response, self.max_body if response.status == 200 else _MAX_ERROR_BODY)
            if response.status != 200:
                raise self._failure(response, raw)
        received = self.clock()
        return Reply(body=self._without_key(raw), request_id=heard[0], sent_time=sent, received_time=received)

    def _mapped(self, error: Exception, timeout_s: float) -> TeacherError:
        # The order matters: TimeoutError is an OSError, and a connection's time-out is both a TimeoutError and unsent.
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            return NotSent(f"no connection to {self.base_url} in time; check base_url")
        if isinstance(error, TimeoutError):
            return TeacherTimeout(f"no whole answer from {self.base_url} within {timeout_s:g} s")
        if isinstance(error, aiohttp.ClientConnectorError):
            return NotSent(f"no connection to {self.base_url}: {self._masked(str(error))}")
        # Not str(error): it may spell out the request.
        return TeacherFault(f"the connection to {self.base_url} broke: {type(error).__name__}")

    async def aclose(self) -> None:
        """Close the session's connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "corpusgen"}
            if self.secret is not None:
                headers["Authorization"] = f"Bearer {self.secret.reveal()}"
            self._session = aiohttp.ClientSession(
                headers=headers,
                # How many calls run at once is the caller's decision: a second limit here would hide waiting.
                connector=_Connector(limit=0, **(_KEPT if self.keep_alive else _CLOSED)),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
            )
        return self._session

    def _failure(self, response: aiohttp.ClientResponse, raw: bytes) -> TeacherError:
        failure = self._classified(response, raw)
        failure.billable = self.billing.may_charge(response.status)
        return failure

    def _classified(self, response: aiohttp.ClientResponse, raw: bytes) -> TeacherError:
        status = response.status
        message = f"HTTP {status} from {self.base_url}: {provider_message(self._without_key(raw))}"
        if 300 <= status < 400:
            where = shown(self._masked(response.headers.get("Location", "")))
            return RequestRefused(f"HTTP {status}: {self.base_url} redirects to {where}; mend base_url", status=status)
        if status < 300:
            return InvalidAnswer(message, status=status)
        pause = retry_after(response.headers, self.clock())
        if status == 429 and _spent(raw):
            return RequestRefused(message, status=status)
        if status in (429, 529):
            return RateLimited(message, retry_after_s=pause, status=status)
        if status in (408, 409) or status >= 500:
            return TeacherFault(message, retry_after_s=pause, status=status)
        return RequestRefused(message, status=status)

    def _masked(self, text: str) -> str:
        return text if self.secret is None else self.secret.masked(text)

    def _without_key(self, raw: bytes) -> bytes:
        # Answers are kept in the journal; a server that echoes its headers must not bring the key there.
        return raw if self.secret is None else raw.replace(self.secret.reveal().encode(), b"***")


class _Connector(aiohttp.TCPConnector):
    """Hands out no connection on which something has arrived since its last answer.

    aiohttp looks at that only when a connection is put back, not when it is taken: a second answer nobody asked for
    would be read as the answer to the next question.
    """

    async def _get(self, key: ConnectionKey, traces: list[Trace]) -> Connection | None:
        while (connection := await super()._get(key, traces)) is not None:
            if connection.protocol is not None and not connection.protocol.should_close:
                return connection
            connection.close()
        return None


async def _limited(response: aiohttp.ClientResponse, limit: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    async for chunk in response.content.iter_any():
        size += len(chunk)
        if size > limit:
            response.close()
            if response.status != 200:
                break
            raise InvalidAnswer(f"the answer is larger than {limit} bytes", status=response.status)
        chunks.append(chunk)
    return b"".join(chunks) if len(chunks) != 1 else chunks[0]


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds a server asks us to wait, between 0 and ten minutes, or None if it does not say."""
    seconds = _number(headers.get("retry-after-ms"))
    seconds = seconds / 1000 if seconds is not None else _number(headers.get("Retry-After"))
    if seconds is None:
        seconds = _until(headers.get("Retry-After"), now)
    return None if seconds is None else min(max(seconds, 0.0), MAX_RETRY_AFTER_S)


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return None if number != number else number


def _until(text: str | None, now: datetime) -> float | None:
    try:
        moment = parsedate_to_datetime(text or "")
    except (ValueError, OverflowError):
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - now.timestamp()


def provider_message(raw: bytes) -> str:
    """What the server said went wrong, on one line of at most 500 characters."""
    try:
        reply = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return shown(raw, _MESSAGE)
    error = reply.get("error", reply) if isinstance(reply, dict) else reply
    if isinstance(error, dict):
        error = error.get("message") or error.get("detail") or error
    return shown(error if isinstance(error, str) else orjson.dumps(error), _MESSAGE)


def _spent(raw: bytes) -> bool:
    """Whether a 429 says that there is no money left, which waiting does not mend."""
    try:
        error = orjson.loads(raw)["error"]
        return not _SPENT.isdisjoint((error.get("code"), error.get("type")))
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        return False


def _request_id(response: aiohttp.ClientResponse) -> str | None:
    found = response.headers.get("x-request-id") or response.headers.get("request-id")
    return found[:200] if found and found.isprintable() else None
