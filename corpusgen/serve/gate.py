"""What every request goes through before a handler sees it, and every answer before a client does.

The order matters: a token that stands in an address is found before anything is written down, who asks for another host
is told nothing, and nothing of a body is read before it is known who sends it.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from typing import Final, NoReturn
from urllib.parse import unquote, urlsplit

from aiohttp import web

from corpusgen.errors import CorpusgenError
from corpusgen.serve.callers import LOCAL, Caller
from corpusgen.serve.logs import Log, masked_secrets
from corpusgen.serve.reading import closing
from corpusgen.serve.routes import CALLER, OPERATION, Operation, Shape
from corpusgen.serve.service import SERVICE, Service
from corpusgen.serve.sessions import COOKIE, SESSION, SESSIONS
from corpusgen.serve.spans import Spans
from corpusgen.serve.statuses import PAGE_HEADERS, Hidden, Refused, as_refused, refused
from corpusgen.serve.tokens import PREFIX

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

REQUEST_ID: web.RequestKey[str] = web.RequestKey("request_id", str)
"""The name of a request, in its answer and in the log."""
_BEGUN: web.RequestKey[bool] = web.RequestKey("begun", bool)
OPERATIONS: web.AppKey[Mapping[object, Operation]] = web.AppKey("operations", Mapping)
"""By route, what is asked for there."""

IN_ADDRESS: Final = re.compile(r"cg_[A-Za-z0-9_-]{20,}")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f\\]")
_BODIES: Final = ("POST", "PUT", "PATCH", "DELETE")
FAILURES: Final = 20
"""Wrong tokens from one address within ``FAILURES_S``, before it is told to wait."""
FAILURES_S: Final = 60.0
MOST_ADDRESSES: Final = 10_000


@dataclass(frozen=True, kw_only=True)
class GateSettings:
    """Who may come in, and how."""

    hosts: frozenset[str]
    """What a ``Host`` header may say, in small letters, with the port where it is not the scheme's own."""
    tls: bool = False
    behind_proxy: bool = False
    """A proxy of one's own stands before it: it tells the address and the scheme of who calls."""
    open_without_tokens: bool = False
    """Only this machine can reach it, so that nobody needs a token as long as there is none."""
    log: Log = field(default_factory=Log)
    spans: Spans = field(default_factory=Spans)

    @property
    def secure(self) -> bool:
        """Whether browsers reach it over TLS, by itself or through a proxy."""
        return self.tls or self.behind_proxy


SETTINGS: web.AppKey[GateSettings] = web.AppKey("settings", GateSettings)


class Failures:
    """Counts wrong tokens by address, within a minute."""

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._of: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def one_more(self, address: str) -> float | None:
        """Seconds to wait, if there were too many."""
        now = self._monotonic()
        began, count = self._of.pop(address, (now, 0))
        if now - began >= FAILURES_S:
            began, count = now, 0
        self._of[address] = (began, count + 1)
        if len(self._of) > MOST_ADDRESSES:
            self._of.popitem(last=False)
        return began + FAILURES_S - now if count >= FAILURES else None


FAILED: web.AppKey[Failures] = web.AppKey("failures", Failures)


class InFlight:
    """How many requests are under way that are worth waiting for when the service stops."""

    def __init__(self) -> None:
        self.idle = asyncio.Event()
        self.idle.set()
        self._count = 0

    def __enter__(self) -> None:
        self._count += 1
        self.idle.clear()

    def __exit__(self, *_: object) -> None:
        self._count -= 1
        if not self._count:
            self.idle.set()


IN_FLIGHT: web.AppKey[InFlight] = web.AppKey("in_flight", InFlight)
_NOBODY: Final = nullcontext()


@web.middleware
async def gate(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Admit a request, let it be answered, tell errors in its shape, count it and write one line of it."""
    service, settings, began = request.app[SERVICE], request.app[SETTINGS], time.perf_counter()
    request[REQUEST_ID] = f"req_{os.urandom(12).hex()}"
    service.meter.add("corpusgen_requests_in_flight", 1)
    operation = request.app[OPERATIONS].get(request.match_info.route)
    status = 499  # who asked has gone
    # Who only looks is not waited for at the end: some look for as long as they can.
    counted = _NOBODY if request.method == "GET" else request.app[IN_FLIGHT]
    try:
        with counted, settings.spans.of_request(request, operation) as span:
            response = await _answered(request, handler, operation)
            status = response.status
            span(status)
        return response
    finally:
        took = time.perf_counter() - began
        route = operation.path if operation is not None else "other"
        service.meter.add("corpusgen_requests_in_flight", -1)
        service.meter.add("corpusgen_requests_total", 1, route, _method(request), str(status))
        service.meter.observe("corpusgen_request_seconds", took, route)
        _write_line(request, settings, route, status, took)


async def _answered(request: web.Request, handler: Handler, operation: Operation | None) -> web.StreamResponse:
    try:
        _admit(request, operation)
        if "Expect" in request.headers:
            await _go_on(request)
        return await handler(request)
    except web.HTTPException as error:
        if "Location" in error.headers:
            return web.Response(status=error.status, headers={"Location": error.headers["Location"]})
        return _told(request, _of_library(error))
    except CorpusgenError as error:
        return _told(request, error)
    except (ConnectionError, TimeoutError) as error:
        if request.transport is None or request.transport.is_closing():
            raise ConnectionResetError("who asked has gone") from error
        return _unexpected(request, error)
    except Exception as error:  # noqa: BLE001 - the one place where a mistake of ours becomes an answer
        return _unexpected(request, error)


async def _go_on(request: web.Request) -> None:
    """Ask for the body, which is wanted now that the headers are."""
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    request.writer.output_size = 0  # the answer itself has not begun
    await request.writer.drain()


def _unexpected(request: web.Request, error: Exception) -> web.StreamResponse:
    return _told(request, noted(request, error))


def noted(request: web.Request, error: Exception) -> Refused:
    """What to tell who asked of a mistake of ours: only how to name it; what it was stands in the log."""
    import traceback

    name = request[REQUEST_ID]
    trouble = masked_secrets("".join(traceback.format_exception(error))[-4_000:])
    request.app[SETTINGS].log.say("unexpected", request_id=name, trouble=trouble)
    return Refused(500, f"something went wrong here; the log of the service tells of {name}")


def _told(request: web.Request, error: CorpusgenError) -> web.StreamResponse:
    if _BEGUN in request:
        # Half an answer is out already; all that can be said now is that it has no end.
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionResetError("an answer broke off") from error
    shape = shape_of(request)
    if shape in ("openai", "anthropic") and not isinstance(error, Refused):
        from corpusgen.serve.refusals import refusal

        return refusal(shape, error, _hidden_from(request))
    told = as_refused(error, hidden=_hidden_from(request))
    if told.status >= 500 and told.status != 503:
        request.app[SETTINGS].log.say(
            "failed", request_id=request[REQUEST_ID], kind=told.kind, message=masked_secrets(str(error))
        )
    return _page_of(request, told) if shape == "page" else refused(shape, told, request[REQUEST_ID])


def _hidden_from(request: web.Request) -> Hidden:
    """What errors do not tell whoever asks this."""
    service, caller = request.app[SERVICE], request.get(CALLER)
    hidden = service.desk.hidden_from(caller)
    rules = service.runs.rules
    return replace(hidden, folders=(*hidden.folders, *map(str, (*rules.roots, rules.kept))))


def _page_of(request: web.Request, error: Refused) -> web.Response:
    try:
        from corpusgen.serve.console.errors import error_page
    except ImportError:  # without the extra there are no pages, but there may be who asks for them
        return refused("page", error, request[REQUEST_ID])
    try:
        return error_page(request, error)
    except Exception as trouble:  # noqa: BLE001 - what tells of an error must not end in another
        request.app[SETTINGS].log.say("unexpected", request_id=request[REQUEST_ID], trouble=repr(trouble)[:200])
        return refused("page", error, request[REQUEST_ID])


def _of_library(error: web.HTTPException) -> Refused:
    headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
    words = {404: "there is nothing at this address", 405: "this address does not take that method"}
    return Refused(error.status, words.get(error.status, error.reason), headers=headers)


def shape_of(request: web.Request) -> Shape:
    """In whose words errors of a request are told."""
    operation = request.get(OPERATION)
    shape = operation.shape if operation is not None else shape_of_path(request.path)
    return "anthropic" if shape == "openai" and "anthropic-version" in request.headers else shape


def shape_of_path(path: str) -> Shape:
    """The shape of addresses where nothing is."""
    if path.startswith("/v1/messages"):
        return "anthropic"
    if path.startswith("/v1"):
        return "openai"
    return "page" if path.startswith("/console") else "api"


# --- who may come in -------------------------------------------------------------------------------------------------


def _admit(request: web.Request, operation: Operation | None) -> None:
    """Raises Refused, or leaves caller and operation with the request."""
    settings = request.app[SETTINGS]
    _check_address(request)
    _check_host(request, settings)
    _check_origin(request, settings)
    _check_own_headers(request)
    if operation is None:
        return
    request[OPERATION] = operation
    caller = _caller(request, operation)
    if caller is not None:
        request[CALLER] = caller
    if operation.scope is not None:
        if caller is None or not caller.may(operation.scope):
            raise _may_not(request, operation, caller)
        if request.app[SERVICE].stopping.is_set():
            raise Refused(503, "the service is stopping; ask again in a moment", headers={"Connection": "close"})
    _check_body(request, operation)
    _check_query(request, operation)


def _check_address(request: web.Request) -> None:
    raw = request.raw_path
    if PREFIX in raw and IN_ADDRESS.search(unquote(raw)):
        raise Refused(
            400,
            "a token stands in the address, where logs and browsers keep it: revoke it (corpusgen tokens revoke), make"
            " another, and send it as Authorization: Bearer",
        )
    path = unquote(raw.partition("?")[0])
    if _CONTROL.search(path) or "\N{REPLACEMENT CHARACTER}" in path or ".." in path.split("/"):
        raise Refused(400, "the address has characters or steps that no address here has")


def _check_host(request: web.Request, settings: GateSettings) -> None:
    named = request.headers.getall("Host", [])
    if len(named) != 1:
        raise Refused(400, "one Host header is needed")
    others = {named[0].lower()}
    target = request.raw_path
    if not target.startswith("/") and target != "*":
        others.add(urlsplit(target).netloc.lower())
    if not others <= settings.hosts:
        raise Refused(421, "this service goes by another name; start it with --host-name for more names")


def _check_origin(request: web.Request, settings: GateSettings) -> None:
    origins = request.headers.getall("Origin", ())
    if any(not _own(origin, settings) for origin in origins):
        raise Refused(403, "pages of other origins may not ask here")
    site = request.headers.get("Sec-Fetch-Site", "none")
    if site not in ("none", "same-origin"):
        # A link from elsewhere may lead to a page; nothing else may be had from elsewhere.
        link = request.method == "GET" and request.headers.get("Sec-Fetch-Mode") == "navigate"
        if not (link and shape_of_path(request.path) == "page"):
            raise Refused(403, "pages of other sites may not ask here")


def _check_own_headers(request: web.Request) -> None:
    for name, value in request.headers.items():
        if name[:12].lower() == "x-corpusgen-" and not (value.isascii() and value.isprintable()):
            raise Refused(400, f"{name[:40].lower()}: a header of ours has printable ASCII characters only")


def _own(origin: str, settings: GateSettings) -> bool:
    scheme, _, host = origin.partition("://")
    return scheme in (("https", "http") if settings.behind_proxy else ("https" if settings.tls else "http",)) and (
        host.lower() in settings.hosts
    )


def _caller(request: web.Request, operation: Operation) -> Caller | None:
    """Who calls. Raises Refused for a token that is worth nothing, where one is needed."""
    service = request.app[SERVICE]
    token = _token(request)
    needed = operation.scope is not None
    if not request.app[SETTINGS].open_without_tokens or service.tokens.exist:
        if token is not None:
            found = service.tokens.caller_of(token)
            if found is None and needed:
                _wrong(request, "is not known here, over or revoked")
            return found
        return _of_session(request, service)
    if token is not None and token.startswith(PREFIX) and needed:
        _wrong(request, "is not known here; this service has no tokens and needs none from this machine")
    if not _is_passed_on(request):
        return LOCAL
    if needed:
        raise Refused(
            403,
            "this came through a proxy or by the name of another machine, and without a token only this machine itself"
            " may ask; make one (corpusgen tokens create), and start the service with --behind-proxy",
        )
    return None


_OF_PROXIES: Final = ("forwarded", "via", "x-real-ip")


def _is_passed_on(request: web.Request) -> bool:
    """Whether somebody else may stand behind who asks: headers of proxies, or a name that no loopback address has."""
    names = (name.lower() for name in request.headers)
    if any(name in _OF_PROXIES or name.startswith("x-forwarded") for name in names):
        return True
    host = re.sub(r":[0-9]*$", "", request.headers.get("Host", "")).strip("[]").lower()
    try:
        return host != "localhost" and not ip_address(host).is_loopback
    except ValueError:
        return True


def _of_session(request: web.Request, service: Service) -> Caller | None:
    if COOKIE not in request.cookies:
        return None
    session = request.app[SESSIONS].found(request.cookies[COOKIE])
    if session is None:
        return None
    request[SESSION] = session
    caller = service.tokens.caller_by_id(session.token_id)
    if caller is None or request.method == "GET" or shape_of(request) == "page":
        return caller
    # A page's script says whose it is; a form of a page carries the same in a field.
    request.app[SESSIONS].check_csrf(request, request.headers.get("x-corpusgen-csrf", ""))
    return caller


def _token(request: web.Request) -> str | None:
    found = {key.strip() for key in request.headers.getall("x-api-key", ())}
    for value in request.headers.getall("Authorization", ()):
        scheme, _, secret = value.strip().partition(" ")
        if scheme.lower() != "bearer" or not secret.strip():
            _wrong(request, "must be sent as Authorization: Bearer TOKEN")
        found.add(secret.strip())
    if len(found) > 1:
        raise Refused(400, "two different tokens are sent; send one")
    return found.pop() if found else None


def failed_login(request: web.Request) -> None:
    """Count a wrong token. Raises Refused where there were too many from this address."""
    request.app[SERVICE].meter.add("corpusgen_logins_failed_total", 1)
    wait = request.app[FAILED].one_more(_address(request))
    if wait is not None:
        headers = {"Retry-After": str(max(1, round(wait)))}
        raise Refused(429, "too many wrong tokens from this address; wait", headers=headers)


def _wrong(request: web.Request, why: str) -> NoReturn:
    failed_login(request)
    raise Refused(401, f"the token {why}", headers={"WWW-Authenticate": "Bearer"})


def _address(request: web.Request) -> str:
    """Who calls. A proxy adds what it sees at the end: to the line there is, or as a line of its own."""
    lines = request.headers.getall("X-Forwarded-For", ()) if request.app[SETTINGS].behind_proxy else ()
    told = lines[-1].rpartition(",")[2].strip() if lines else ""
    with suppress(ValueError):
        if "%" not in told:
            return str(ip_address(told))
    return str(request.remote)


def _may_not(request: web.Request, operation: Operation, caller: Caller | None) -> Exception:
    if caller is not None:
        return Refused(403, f"the token may not do this; it needs the scope {operation.scope!r}")
    if operation.shape == "page" and request.method == "GET":
        return web.HTTPSeeOther("/console/login")
    return Refused(
        401,
        "a token is needed: Authorization: Bearer TOKEN, or x-api-key (corpusgen tokens create makes one)",
        headers={"WWW-Authenticate": "Bearer"},
    )


# --- what may be sent ------------------------------------------------------------------------------------------------


def _check_body(request: web.Request, operation: Operation) -> None:
    codings = request.headers.getall("Transfer-Encoding", ())
    if codings and ",".join(codings).strip().lower() != "chunked":
        raise closing(400, "of transfer encodings, chunked is the only one that is taken")
    if request.headers.get("Expect", "100-continue").strip().lower() != "100-continue":
        raise closing(417, "of expectations, 100-continue is the only one that is met")
    if not request.body_exists:
        return
    if request.method not in _BODIES:
        raise closing(400, f"a {_method(request)} has no body here")
    coding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if coding != "identity":
        raise closing(415, "bodies are not unpacked here; send it without Content-Encoding")
    length = request.content_length
    if length is not None and length > operation.most_bytes:
        raise closing(413, f"the body is larger than {operation.most_bytes:,} bytes")
    if length == 0:
        return
    kind, _, rest = request.headers.get("Content-Type", "").partition(";")
    if kind.strip().lower() not in operation.takes or len(request.headers.getall("Content-Type", ())) > 1:
        raise closing(415, f"send it as {' or '.join(operation.takes)}")
    charset = rest.strip().lower()
    if charset.startswith("charset") and charset.partition("=")[2].strip(' "') not in ("utf-8", "utf8"):
        raise closing(415, "send it as UTF-8")


_OF_VENDORS: Final = frozenset(("beta", "limit", "after", "after_id", "before_id", "order", "purpose"))
"""Query parameters that official clients send where they do not matter here."""


def _check_query(request: web.Request, operation: Operation) -> None:
    if not request.query_string:
        return
    known = {} if operation.query is None else operation.query.model_fields
    names = set(known) | {one.alias for one in known.values() if one.alias}
    if operation.query is None and operation.shape in ("openai", "anthropic"):
        names |= _OF_VENDORS
    unknown = sorted(set(request.query) - names)
    if unknown:
        there = f"; there are {', '.join(sorted(names))}" if names else "; there are none"
        raise Refused(400, f"unknown query parameters: {', '.join(name[:40] for name in unknown[:5])!r}{there}")


# --- what goes out ---------------------------------------------------------------------------------------------------

_ALWAYS: Final = {
    "X-Content-Type-Options": "nosniff",
    # Not "no-referrer": a browser would then send forms with the Origin "null", which is nobody's.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Headers of every answer, put there before its first byte goes out."""
    headers = response.headers
    for header, value in _ALWAYS.items():
        headers.setdefault(header, value)
    headers["Server"] = "corpusgen"
    name = request.get(REQUEST_ID, "")
    headers["x-request-id"] = name
    operation = request.get(OPERATION)
    if operation is not None and operation.shape == "anthropic":
        headers["request-id"] = name
    if response.content_type == "text/html":
        for header, value in PAGE_HEADERS.items():
            headers.setdefault(header, value)
    if headers.get("Connection", "").lower() == "close":
        response.force_close()
    request[_BEGUN] = True


def _write_line(request: web.Request, settings: GateSettings, route: str, status: int, took: float) -> None:
    caller = request.get(CALLER)
    settings.log.say(
        "request",
        method=_method(request),
        route=route,
        status=status,
        ms=round(took * 1000, 2),
        token=None if caller is None else caller.token_id,
        user=None if caller is None else caller.user,
        address=_address(request),
        request_id=request[REQUEST_ID],
    )


_METHODS: Final = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"))


def _method(request: web.Request) -> str:
    """Methods are words of strangers, too."""
    return request.method if request.method in _METHODS else "other"
