"""Requests that are refused for what they are, each with its HTTP status, told in the words its client reads."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import urlsplit

import orjson
from aiohttp import web

from corpusgen.errors import (
    BudgetExhausted,
    CorpusDamaged,
    CorpusgenError,
    Interrupted,
    LocatedError,
    PolicyRefused,
    QueryError,
    RateLimited,
    SealRefused,
    StoreError,
    TeacherError,
    TeacherTimeout,
    UnknownTeacher,
    UsageError,
    Withheld,
)
from corpusgen.serve.routes import Shape

KINDS: Final[Mapping[int, str]] = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    408: "TooSlow",
    409: "Conflict",
    413: "TooLarge",
    415: "UnsupportedMediaType",
    417: "ExpectationFailed",
    421: "Misdirected",
    429: "TooMany",
    431: "HeadersTooLarge",
    500: "Unexpected",
    503: "Unavailable",
}
_OPENAI: Final[Mapping[int, str]] = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
}
_ANTHROPIC: Final[Mapping[int, str]] = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    503: "overloaded_error",
}
RETRY_AFTER_S: Final = "10"
CSP: Final = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self';"
    " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
PAGE_HEADERS: Final = {"Content-Security-Policy": CSP, "X-Frame-Options": "DENY"}


class Refused(CorpusgenError):
    """A request is not what it should be, or comes from somebody who may not ask it.

    ``kind`` is the type in the answer. ``problems`` are mistakes of a body, each with the path of its field.
    """

    exit_code = 2

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "",
        headers: Mapping[str, str] | None = None,
        problems: Sequence[Mapping[str, str]] = (),
    ) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind or KINDS.get(status, "Refused")
        self.headers = dict(headers or {})
        self.problems = tuple(problems)


class NoSuch(Refused):
    """What a path names is not here."""

    def __init__(self, message: str) -> None:
        super().__init__(404, message)


def refused(shape: Shape, error: Refused, request_id: str) -> web.Response:
    """The response that says so, in the words of the client's vendor."""
    headers = error.headers | ({"Retry-After": RETRY_AFTER_S} if error.status == 503 else {})
    if shape == "page":
        return _page(error, headers)
    if error.status == 500 and shape != "api":  # it may have been paid for, and official clients would ask again
        headers |= {"x-should-retry": "false"}
    body = _BODIES[shape](error, request_id)
    return web.Response(
        body=orjson.dumps(body, default=str), status=error.status, headers=headers, content_type="application/json"
    )


def _api(error: Refused, request_id: str) -> dict[str, Any]:
    told: dict[str, Any] = {"type": error.kind, "message": str(error), "request_id": request_id}
    return {"error": told | ({"problems": list(error.problems)} if error.problems else {})}


def _openai(error: Refused, request_id: str) -> dict[str, Any]:
    param = error.problems[0].get("field") if error.problems else None
    kind = _OPENAI.get(error.status, "invalid_request_error")
    return {"error": {"message": str(error), "type": kind, "param": param, "code": _snake(error.kind)}}


def _anthropic(error: Refused, request_id: str) -> dict[str, Any]:
    kind = _ANTHROPIC.get(error.status, "invalid_request_error")
    return {"type": "error", "error": {"type": kind, "message": str(error)}, "request_id": request_id}


_BODIES: Final = {"api": _api, "openai": _openai, "anthropic": _anthropic}


def _page(error: Refused, headers: Mapping[str, str]) -> web.Response:
    title = f"{error.status} {escape(error.kind)}"
    text = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title></head>'
        f'<body><main><h1>{title}</h1><p>{escape(str(error))}</p><p><a href="/console">console</a></p></main></body>'
        "</html>"
    )
    return web.Response(text=text, status=error.status, headers=headers, content_type="text/html")


def _snake(kind: str) -> str:
    return "".join(f"_{char.lower()}" if char.isupper() else char for char in kind).lstrip("_")


_STATUSES: Final[tuple[tuple[type[CorpusgenError], int], ...]] = (
    (UnknownTeacher, 404),
    (UsageError, 400),
    (QueryError, 400),
    (BudgetExhausted, 402),
    (PolicyRefused, 403),
    (SealRefused, 409),
    (CorpusDamaged, 500),
    (StoreError, 503),
    (Withheld, 400),
    (RateLimited, 429),
    (TeacherTimeout, 504),
    (TeacherError, 502),
    (Interrupted, 503),
)


@dataclass(frozen=True, kw_only=True)
class Hidden:
    """What errors do not tell: where things lie on this machine, and to most callers which addresses are asked."""

    folders: tuple[str, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    """What an address of a teacher is called instead."""
    addresses: bool = False
    """Whether addresses that mean nothing elsewhere are hidden, too."""

    def out_of(self, message: str) -> str:
        """The message without it."""
        for address in sorted(self.names, key=len, reverse=True):
            message = message.replace(address, self.names[address])
        if self.addresses and "://" in message:
            message = _URL.sub(_public, message)
        for folder in sorted(self.folders, key=len, reverse=True):
            if folder in message:
                message = message.replace(f"{folder}/", "").replace(folder, "this machine")
        return message


_URL: Final = re.compile(r"\b[a-z][a-z0-9+.-]{1,15}://[^\s\"'<>\\]+", re.IGNORECASE)
_LOCAL_NAMES: Final = (".internal", ".local", ".localhost", ".lan", ".home", ".corp", ".svc", ".intranet", ".home.arpa")


def _public(found: re.Match[str]) -> str:
    """An address if everybody may know it."""
    try:
        host = (urlsplit(found[0]).hostname or "").rstrip(".")
    except ValueError:
        return "[address]"
    try:
        return found[0] if ip_address(host).is_global else "[address]"
    except ValueError:
        # Digits alone, 0x7f.1 and the like are read as addresses of IPv4 by some.
        known = "." in host and not host.endswith(_LOCAL_NAMES) and not host.rpartition(".")[2][:1].isdigit()
        return found[0] if known else "[address]"


NOTHING: Final = Hidden()


def as_refused(error: CorpusgenError, *, hidden: Hidden = NOTHING) -> Refused:
    """One of our errors as the API tells it: its class is the type. What is ``hidden`` is not told."""
    message = hidden.out_of(str(error))
    if isinstance(error, Refused):
        problems = tuple(_without(hidden, error.problems))
        if message == str(error) and problems == error.problems:
            return error
        return Refused(error.status, message, kind=error.kind, headers=error.headers, problems=problems)
    said = getattr(error, "status", None) if not isinstance(error, TeacherError) else None
    status = said or next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)
    problems = tuple(_without(hidden, _problems(error)))
    return Refused(status, message, kind=type(error).__name__, problems=problems)


def _without(hidden: Hidden, problems: Iterable[Mapping[str, str]]) -> Iterable[Mapping[str, str]]:
    for problem in problems:
        yield {name: hidden.out_of(told) for name, told in problem.items()}


def _problems(error: CorpusgenError) -> Iterable[Mapping[str, str]]:
    if isinstance(error, LocatedError):
        for problem in error.problems:
            yield {"field": problem.field, "message": problem.message, "line": str(problem.line or "")}
    elif field := getattr(error, "field", None):
        yield {"field": str(field), "message": str(error)}
