"""What is said to a service over HTTP: whose address it is, with which token, and what its answers mean here.

The service is asked for shares of a budget and for answers. It never hears a teacher's key, and nothing it says
chooses an address: redirects are not followed, and proxies of the environment are not asked.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Final, NoReturn
from urllib.parse import urlsplit

import aiohttp
import orjson
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay
from tenacity.wait import wait_exponential_jitter

from corpusgen.errors import (
    BudgetExhausted,
    CorpusgenError,
    ServiceUnavailable,
    UnknownTeacher,
    UsageError,
    UsageOverrun,
)
from corpusgen.records import Json
from corpusgen.teachers.transport import Secret

TOKEN: Final = "CORPUSGEN_SERVICE_TOKEN"  # noqa: S105 - a name
TOKEN_FILE: Final = "CORPUSGEN_SERVICE_TOKEN_FILE"  # noqa: S105 - a name
MOST_BYTES: Final = 64 << 20
"""No answer of a service is longer."""
_TIMEOUT: Final = aiohttp.ClientTimeout(total=60, connect=10)
_LONGEST_MESSAGE: Final = 2_000

_log = logging.getLogger("corpusgen.service")


class Later(CorpusgenError):
    """The service asks to come back in a moment."""


class Gone(CorpusgenError):
    """What was named is not there, or not in the state that is needed."""


class Misunderstood(UsageError):
    """The service does not take what was said for what it was meant to be."""


@dataclass(frozen=True, kw_only=True)
class Address:
    """A service as a run may use it."""

    url: str
    token: Secret | None = None
    patience_s: float = 60.0
    """How long a service that does not answer is waited for, where nothing can go on without it."""
    lease_s: float = 120.0
    """For how long a share of the budget is borrowed, and then again; so long nobody notices that a machine died."""
    calls: int = 32
    """How many calls a share is to cover, while there is so much."""
    claim_s: float = 60.0
    """For how long it is said what is being asked for, and then again."""


def address(url: str, environ: Mapping[str, str] = os.environ) -> Address:
    """The service at an address, with the token of the environment. Raises UsageError for what would not be safe."""
    return Address(url=_checked(url), token=_token(environ))


def _checked(url: str) -> str:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError as error:
        raise UsageError(f"--service: {url!r:.200} is no address ({error}); write https://HOST[:PORT]") from error
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise UsageError(
            f"--service: the address has more than scheme, host and port; write https://HOST[:PORT], the token goes"
            f" into {TOKEN}"
        )
    if not host or not url.isascii() or not url.isprintable() or " " in url:
        raise UsageError(f"--service: {url!r:.200} is no address; write https://HOST[:PORT]")
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_here(host)):
        raise UsageError(
            f"--service: {url!r:.200} would send the token as it is over a network; write https://, http:// is for a"
            " service on this machine (127.0.0.1)"
        )
    return url.rstrip("/")


def _is_here(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _token(environ: Mapping[str, str]) -> Secret | None:
    said, file = environ.get(TOKEN, "").strip(), environ.get(TOKEN_FILE, "").strip()
    if said and file:
        raise UsageError(f"{TOKEN} and {TOKEN_FILE} are both set; keep one")
    found, named = (_read_token(Path(file).expanduser()), TOKEN_FILE) if file else (said, TOKEN)
    if not found:
        return None
    if not found.isascii() or not found.isprintable() or " " in found:
        raise UsageError(f"{named}: is no token; corpusgen tokens create makes one, cg_ and 43 letters and digits")
    return Secret(found)


def _read_token(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            mode = stat.S_IMODE(os.fstat(opened.fileno()).st_mode)
            found = opened.read(4096)
    except OSError as error:
        raise UsageError(f"{TOKEN_FILE}: {file}: {error.strerror or error}") from error
    if mode & 0o077:
        raise UsageError(f"{TOKEN_FILE}: others may read {file} (mode {mode:03o}); chmod 600 {file}")
    return found.decode("ascii", errors="replace").strip()


@dataclass(frozen=True, kw_only=True)
class Heard:
    """What a service answered, and when it was by its own clock."""

    fields: Json
    raw: bytes
    date: datetime | None


@dataclass(kw_only=True)
class Wire:
    """A session with one service; opened by the first question."""

    address: Address
    _session: aiohttp.ClientSession | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        """Where it is."""
        return self.address.url

    async def post(self, path: str, body: Json, *, patience_s: float = 0.0) -> Heard:
        """As ``ask``, with something said."""
        return await self.ask("POST", path, orjson.dumps(body), patience_s=patience_s)

    async def ask(self, method: str, path: str, body: bytes | None = None, *, patience_s: float = 0.0) -> Heard:
        """What the service answers.

        Asks again for so long while it does not answer, then raises ServiceUnavailable. Raises BudgetExhausted with the
        service's figures, UsageError for a token it does not take, Gone and Later.
        """
        again = AsyncRetrying(
            stop=stop_after_delay(patience_s),
            retry=retry_if_exception_type(ServiceUnavailable),
            wait=wait_exponential_jitter(multiplier=0.1, max=5.0, jitter=0.1),
            reraise=True,
        )
        async for attempt in again:
            with attempt:
                if attempt.retry_state.attempt_number == 2:
                    _log.warning("%s does not answer; it is asked again for %.0f s", self.url, patience_s)
                return await self._once(method, path, body)
        raise AssertionError("unreachable: tenacity re-raises")  # pragma: no cover

    async def aclose(self) -> None:
        """Hang up."""
        if self._session is not None:
            await self._session.close()

    async def _once(self, method: str, path: str, body: bytes | None) -> Heard:
        try:
            async with self._opened().request(method, self.url + path, data=body, allow_redirects=False) as got:
                heard = _heard(await _whole(got), got.headers.get("Date"), is_good=got.status < 300)
                if got.status >= 300:
                    self._refuse(got.status, heard)
                return heard
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            why = str(error) or type(error).__name__
            raise ServiceUnavailable(f"{self.url} does not answer: {why}; {GO_ON}") from error

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
            if self.address.token is not None:
                headers["Authorization"] = f"Bearer {self.address.token.reveal()}"
            self._session = aiohttp.ClientSession(headers=headers, timeout=_TIMEOUT, auto_decompress=False)
        return self._session

    def _refuse(self, status: int, heard: Heard) -> NoReturn:
        said = self._masked(_said(heard, "message") or f"HTTP {status}")
        if _said(heard, "type") == UsageOverrun.__name__:
            raise UsageOverrun(f"{self.url}: {said}")
        if _said(heard, "type") == UnknownTeacher.__name__:
            raise UnknownTeacher(f"{self.url}: {said}; its service.yaml names whom it pays for")
        if status == 402:
            raise BudgetExhausted(f"{self.url}: {said}")
        if status in (401, 403):
            what = "does not take this token" if self.address.token else "needs a token"
            raise UsageError(f"{self.url} {what} ({said}); set {TOKEN} to one of its own with the scope lend")
        if status in (404, 409):
            raise Gone(f"{self.url}: {said}")
        if status == 429:
            raise Later(f"{self.url}: {said}")
        if status >= 500:
            raise ServiceUnavailable(f"{self.url} answers {status}: {said}; {GO_ON}")
        raise Misunderstood(f"{self.url} answers {status}: {said}; is it a corpusgen service of this version?")

    def _masked(self, text: str) -> str:
        return text if self.address.token is None else self.address.token.masked(text)


GO_ON: Final = "every answer is kept here, and the same command goes on from there"


async def _whole(response: aiohttp.ClientResponse) -> bytes:
    parts, size = [], 0
    async for part in response.content.iter_chunked(1 << 16):
        size += len(part)
        if size > MOST_BYTES:
            raise aiohttp.ClientPayloadError(f"its answer is longer than {MOST_BYTES:,} bytes")
        parts.append(part)
    return b"".join(parts)


def _heard(raw: bytes, date: str | None, *, is_good: bool) -> Heard:
    try:
        fields = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        if is_good:
            raise aiohttp.ClientPayloadError("its answer is not JSON") from error
        fields = None
    return Heard(fields=fields, raw=raw, date=_date(date))


def _date(text: str | None) -> datetime | None:
    try:
        return None if text is None else parsedate_to_datetime(text).astimezone(UTC)
    except ValueError:
        return None


def _said(heard: Heard, name: str) -> str:
    error = heard.fields.get("error") if isinstance(heard.fields, dict) else None
    found = error.get(name) if isinstance(error, dict) else None
    return found[:_LONGEST_MESSAGE] if isinstance(found, str) else ""


async def pause(waking: asyncio.Event, seconds: float) -> None:
    """Wait so long, or until somebody wakes whoever waits."""
    try:
        async with asyncio.timeout(seconds):
            await waking.wait()
    except TimeoutError:
        return
    waking.clear()
