"""Why a call of a client was not answered, in the words of its vendor: status, code, figures, whether to come back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
from aiohttp import web

from corpusgen.errors import (
    BudgetExhausted,
    CorpusgenError,
    Interrupted,
    NotSent,
    OutcomeUnknown,
    PolicyRefused,
    RateLimited,
    RequestRefused,
    StoreError,
    TeacherError,
    TeacherTimeout,
    UnknownTeacher,
    UnsupportedParameter,
    UsageError,
    UsageOverrun,
    Withheld,
)
from corpusgen.serve.routes import Shape
from corpusgen.serve.statuses import NOTHING, Hidden, Refused
from corpusgen.serve.wires.asked import BadCall

SOON_S: Final = 60.0
"""Official clients wait by themselves for as long as this when they are told to, and not longer."""
STOPPING_S: Final = 10.0
_NO: Final = "false"


class Busy(CorpusgenError):
    """As much is under way as may be, or was asked in this minute; coming back helps."""

    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Stopping(CorpusgenError):
    """The service is being stopped."""

    retry_after_s = STOPPING_S


class Contradicted(CorpusgenError):
    """A header asks for what the caller's token does not allow."""


class Erased(CorpusgenError):
    """What is asked was answered and erased; it is not asked again."""


@dataclass(frozen=True, kw_only=True)
class Told:
    """What a client is told of an error."""

    status: int
    openai: tuple[str, str]
    """OpenAI's type and code."""
    anthropic: str
    retry_after_s: float | None = None
    retry: bool = False
    """Whether clients may try again by themselves."""
    headers: Mapping[str, str] = field(default_factory=dict)


_BAD: Final = Told(status=400, openai=("invalid_request_error", "invalid_request"), anthropic="invalid_request_error")
_TABLE: Final[tuple[tuple[type[CorpusgenError], Told], ...]] = (
    (Stopping, Told(status=503, openai=("server_error", "stopping"), anthropic="overloaded_error", retry=True)),
    (Interrupted, Told(status=503, openai=("server_error", "stopping"), anthropic="overloaded_error", retry=True)),
    (Busy, Told(status=429, openai=("requests", "rate_limit_exceeded"), anthropic="rate_limit_error", retry=True)),
    (Contradicted, Told(status=403, openai=("permission_error", "not_allowed"), anthropic="permission_error")),
    (Erased, Told(status=403, openai=("permission_error", "erased"), anthropic="permission_error")),
    (BudgetExhausted, Told(status=402, openai=("insufficient_quota", "insufficient_quota"), anthropic="billing_error")),
    (PolicyRefused, Told(status=403, openai=("permission_error", "policy_refused"), anthropic="permission_error")),
    (
        UnknownTeacher,
        Told(status=404, openai=("invalid_request_error", "model_not_found"), anthropic="not_found_error"),
    ),
    (
        UnsupportedParameter,
        Told(status=400, openai=("invalid_request_error", "unsupported_parameter"), anthropic="invalid_request_error"),
    ),
    (Withheld, Told(status=400, openai=("invalid_request_error", "withheld"), anthropic="invalid_request_error")),
    (UsageOverrun, Told(status=402, openai=("insufficient_quota", "usage_overrun"), anthropic="billing_error")),
    (
        RateLimited,
        Told(status=429, openai=("requests", "rate_limit_exceeded"), anthropic="rate_limit_error", retry=True),
    ),
    (
        RequestRefused,
        Told(status=400, openai=("invalid_request_error", "refused_upstream"), anthropic="invalid_request_error"),
    ),
    (TeacherTimeout, Told(status=504, openai=("server_error", "upstream_timeout"), anthropic="timeout_error")),
    (NotSent, Told(status=502, openai=("server_error", "upstream_unreachable"), anthropic="api_error", retry=True)),
    (OutcomeUnknown, Told(status=502, openai=("server_error", "upstream_failed"), anthropic="api_error")),
    (TeacherError, Told(status=502, openai=("server_error", "upstream_failed"), anthropic="api_error")),
    (StoreError, Told(status=503, openai=("server_error", "storage"), anthropic="overloaded_error", retry=True)),
    (UsageError, Told(status=503, openai=("server_error", "misconfigured"), anthropic="api_error")),
    (CorpusgenError, Told(status=500, openai=("server_error", "internal"), anthropic="api_error")),
)


_OURS: Final = (401, 402, 403, 429)
"""What a teacher's server says of our key and our account there, which no client can mend."""


def told_of(error: CorpusgenError) -> Told:
    """What a client is told of an error."""
    if isinstance(error, BadCall):
        return _BAD
    if isinstance(error, Refused):
        return _told_of_refused(error)
    told = next(told for kind, told in _TABLE if isinstance(error, kind))
    if isinstance(error, BudgetExhausted):
        return _of_budget(error, told)
    if isinstance(error, RequestRefused) and error.status in _OURS:
        return Told(status=502, openai=("server_error", "upstream_account"), anthropic="api_error")
    if isinstance(error, RequestRefused) and 300 <= (error.status or 0) < 400:  # a matter of our configuration
        return Told(status=502, openai=("server_error", "upstream_failed"), anthropic="api_error")
    waits = getattr(error, "retry_after_s", None)
    return Told(
        status=told.status,
        openai=told.openai,
        anthropic=told.anthropic,
        retry_after_s=waits if waits is not None else (1.0 if told.retry else None),
        retry=told.retry and (waits or 0.0) <= SOON_S,
    )


def _told_of_refused(error: Refused) -> Told:
    like = next((told for _, told in _TABLE if told.status == error.status), _BAD)
    return Told(status=error.status, openai=like.openai, anthropic=like.anthropic, headers=error.headers)


def _of_budget(error: BudgetExhausted, told: Told) -> Told:
    """A cap that frees by itself is a matter of time; others are a matter of money."""
    frees_in_s = (error.figures or {}).get("frees_in_s")
    if frees_in_s is None:
        return told
    return Told(
        status=429,
        openai=("requests", "rate_limit_exceeded"),
        anthropic="rate_limit_error",
        retry_after_s=float(frees_in_s),
        retry=frees_in_s <= SOON_S,
    )


def refusal(shape: Shape, error: CorpusgenError, hidden: Hidden = NOTHING) -> web.Response:
    """The response that says why, in the words of the client's vendor; what is ``hidden`` is not told."""
    told = told_of(error)
    headers = {**told.headers, "x-should-retry": "true" if told.retry else _NO}
    if told.retry_after_s is not None:
        headers["Retry-After"] = str(max(1, math.ceil(told.retry_after_s)))
    body = orjson.dumps(_body(shape, error, told, hidden))
    return web.Response(body=body, status=told.status, headers=headers, content_type="application/json")


def event_of(wire: str, error: CorpusgenError, hidden: Hidden = NOTHING) -> bytes:
    """The event that ends a stream which has begun."""
    told = told_of(error)
    if wire == "messages":
        return b"event: error\ndata: " + orjson.dumps(_body("anthropic", error, told, hidden)) + b"\n\n"
    if wire == "responses":
        fields = {"type": "error", "code": told.openai[1], "message": hidden.out_of(str(error)), "param": _param(error)}
        return b"event: error\ndata: " + orjson.dumps(fields) + b"\n\n"
    return b"data: " + orjson.dumps(_body("openai", error, told, hidden)) + b"\n\n"


def _body(shape: Shape, error: CorpusgenError, told: Told, hidden: Hidden) -> dict[str, Any]:
    figures = getattr(error, "figures", None)
    more = {"corpusgen": {"error": type(error).__name__, **({"budget": figures} if figures else {})}}
    if shape == "anthropic":
        return {"type": "error", "error": {"type": told.anthropic, "message": hidden.out_of(str(error)), **more}}
    kind, code = told.openai
    return {"error": {"message": hidden.out_of(str(error)), "type": kind, "param": _param(error), "code": code, **more}}


def _param(error: CorpusgenError) -> str | None:
    found = getattr(error, "field", None)
    return str(found) if found else None
