"""The official SDKs: they write a request and sign it, and our own connections carry it.

So everything that comes back is measured, masked, bounded and told apart as it is without them, and no SDK repeats a
request, follows a redirect or asks the environment for a proxy. They are for whoever wants exactly what they send, and
for signing in to a cloud.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import orjson

from corpusgen.errors import NotSent, RequestRefused, TeacherError, TeacherFault
from corpusgen.records import Reply
from corpusgen.teachers.transport import Secret, Transport
from corpusgen.teachers.wire import shown

if TYPE_CHECKING:
    import anthropic
    import httpx2
    import openai

_UNUSED: Final = "none"
"""An SDK will not start without a key; the header it would write is left out, and ours put on at the end."""
_ENCODINGS: Final = {"Accept-Encoding": "gzip, deflate"}
"""What our connections unpack; said beforehand, because a signature is over it too."""
_WORDS: Final = 300
_SOON: Final = 0.001


@dataclass(frozen=True, kw_only=True)
class Client:
    """An SDK's client, opened, and what is known of it."""

    sdk: Any
    headers: dict[str, Any]
    """Sent with every request, in the place of the SDK's own and of what the environment adds."""
    failures: tuple[type[Exception], ...]
    """What it raises when it cannot write or sign a request."""
    passing: tuple[type[Exception], ...] = ()
    """Those of them that may be over at the next try."""
    hint: str = "see what the SDK asks for"
    signs: bool = False
    """It puts on the key or the signature itself; elsewhere it is not shown the key."""


Opens: TypeAlias = "Callable[[Transport, httpx2.AsyncClient], Client]"


@dataclass(kw_only=True)
class _Call:
    """One request on its way through an SDK."""

    until: float
    writing: asyncio.Timeout
    signed: bool
    sent: bool = False
    reply: Reply | None = None
    failure: TeacherError | None = None


_CALL: Final[ContextVar[_Call]] = ContextVar("_CALL")


@dataclass(kw_only=True)
class Sdk:
    """Asks as a transport does, by way of an SDK, which is read with the first request."""

    transport: Transport
    opens: Opens
    _client: Client | None = field(default=None, repr=False)

    async def post(self, path: str, body: bytes, *, timeout_s: float) -> Reply:
        """The reply to one POST. Raises a TeacherError for everything that is not a whole HTTP 200."""
        import httpx2

        client = self._open()
        failures: tuple[type[Exception], ...] = (TeacherError, *client.failures)
        failure: TeacherError = TeacherFault("the SDK sent nothing and said nothing")
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout_s
        call = _Call(until=until, writing=asyncio.timeout_at(until), signed=client.signs)
        token = _CALL.set(call)
        try:
            async with call.writing:
                options = {"headers": client.headers, "timeout": timeout_s}
                await client.sdk.post(path, cast_to=httpx2.Response, body=orjson.loads(body), options=options)
        except failures as error:
            failure = call.failure or self._unexplained(error, client, sent=call.sent)
        finally:
            _CALL.reset(token)
        if call.reply is not None:  # whatever the SDK made of it
            return call.reply
        # Raised out here because an SDK's errors carry the request's headers, and with them the key.
        raise failure

    def _unexplained(self, error: Exception, client: Client, *, sent: bool) -> TeacherError:
        """What an error of the SDK's own means: most likely that it could not sign in, so that nothing was sent."""
        where = self.transport.base_url
        if sent:
            return TeacherFault(f"the call to {where} broke: {type(error).__name__}")
        if isinstance(error, TimeoutError):
            return NotSent(f"signing in took too long; nothing was sent to {where}")
        said = f"nothing was sent to {where}: {type(error).__name__}: {shown(str(error), _WORDS)}"
        if isinstance(error, (OSError, *client.passing)) or getattr(error, "retryable", False):
            return NotSent(said)
        return RequestRefused(f"{said}; {client.hint}")

    def _open(self) -> Client:
        if self._client is None:
            self._client = self.opens(self.transport, _carrying(self.transport))
        return self._client

    async def aclose(self) -> None:
        """Close the SDK's client; the connections are the transport's own."""
        if self._client is not None:
            await self._client.sdk.close()
            self._client = None


def _carrying(transport: Transport) -> httpx2.AsyncClient:
    """What an SDK hands its requests over to; they go out by a transport of ours."""
    import httpx2

    class Carrying(httpx2.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            body = await _carried(transport, request)
            return httpx2.Response(200, headers={"Content-Type": "application/json"}, content=body)

    return httpx2.AsyncClient(transport=Carrying(), trust_env=False, follow_redirects=False)


async def _carried(transport: Transport, request: httpx2.Request) -> bytes:
    call = _CALL.get()
    call.writing.reschedule(None)  # from here on the transport watches the time
    if call.signed:
        _hide(transport, request.headers)
    else:  # here, because the anthropic SDK writes the headers it is given into its debugging log
        request.headers.update(transport.keyed())
    left = max(call.until - asyncio.get_running_loop().time(), _SOON)
    try:
        written = _written(request)
        call.sent = True
        call.reply = await transport.send(written, timeout_s=left)
    except TeacherError as error:
        call.failure = error
        raise
    return call.reply.body


def _hide(transport: Transport, headers: httpx2.Headers) -> None:
    """Keep what somebody signed in with out of answers and messages, as a key is."""
    bearer = headers.get("authorization", "")
    said = (bearer[7:] if bearer.startswith("Bearer ") else "", headers.get("x-amz-security-token"))
    known = {secret.reveal() for secret in (*transport.hidden, transport.secret) if secret is not None}
    transport.hidden += [Secret(value) for value in said if value and value not in known]


def _written(request: httpx2.Request) -> bytes:
    """A request as it goes over the wire. Raises RequestRefused for a header that would be read as several."""
    lines = [b"%b %b HTTP/1.1" % (request.method.encode(), request.url.raw_path)]
    lines += [b"%b: %b" % pair for pair in request.headers.raw]
    if any(b"\r" in line or b"\n" in line for line in lines):
        raise RequestRefused("a header holds characters HTTP has none for")
    return b"\r\n".join(lines) + b"\r\n\r\n" + request.content


def openai_client(transport: Transport, carried: httpx2.AsyncClient) -> Client:
    """The openai SDK's client for any server that speaks OpenAI's wire formats."""
    import openai

    sdk: openai.AsyncOpenAI = openai.AsyncOpenAI(
        api_key=_UNUSED, base_url=transport.base_url, http_client=carried, max_retries=0
    )
    unwanted = ("Authorization", "OpenAI-Organization", "OpenAI-Project")
    headers = {**_without(openai.Omit(), "OPENAI_CUSTOM_HEADERS", *unwanted), **_ENCODINGS, **transport.headers}
    return Client(sdk=sdk, headers=headers, failures=failures_of(openai.OpenAIError))


def anthropic_client(transport: Transport, carried: httpx2.AsyncClient) -> Client:
    """The anthropic SDK's client."""
    import anthropic

    sdk: anthropic.AsyncAnthropic = anthropic.AsyncAnthropic(
        api_key=_UNUSED,
        base_url=transport.base_url,
        http_client=carried,
        max_retries=0,
        open_telemetry=False,
    )
    headers = {**anthropic_headers(), **transport.headers}
    return Client(sdk=sdk, headers=headers, failures=failures_of(anthropic.AnthropicError))


def anthropic_headers() -> dict[str, Any]:
    """What the anthropic SDK is told to send, and to leave out, whatever the environment says."""
    import anthropic

    return {**_without(anthropic.omit, "ANTHROPIC_CUSTOM_HEADERS", "Authorization"), **_ENCODINGS}


def failures_of(own: type[Exception], *others: type[Exception]) -> tuple[type[Exception], ...]:
    """What a client may raise before anything is sent: the SDK's own errors, and those of who signs in for it."""
    import httpx2

    return (own, httpx2.HTTPError, ValueError, TypeError, RuntimeError, OSError, *others)


def _without(omit: Any, variable: str, *names: str) -> dict[str, Any]:
    """Headers the environment would add: they were meant for one provider, and no spec says who else gets them."""
    lines = os.environ.get(variable, "").split("\n")
    named = [line.partition(":")[0].strip() for line in lines if ":" in line]
    return {name.title(): omit for name in (*named, *names)}
