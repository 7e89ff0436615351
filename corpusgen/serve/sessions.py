"""Sessions of the console: a browser that has shown a token once, known by a cookie from then on."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from corpusgen.serve.callers import Caller
from corpusgen.serve.statuses import Refused

COOKIE: Final = "corpusgen_session"
LASTS_S: Final = 12 * 3600
MOST: Final = 1_000
"""Sessions at once; the oldest ends."""
MOST_OF_ONE: Final = 20
"""Sessions of one token at once, so that nobody ends those of others."""


@dataclass(frozen=True, kw_only=True)
class Session:
    """One browser."""

    key: str
    token_id: str
    until: float


class Sessions:
    """The sessions of one process; they are gone with it."""

    def __init__(self, *, secure: bool = False, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._secure = secure
        self._monotonic = monotonic
        self._of: dict[str, Session] = {}
        self._csrf_key = os.urandom(32)

    def begin(self, caller: Caller, response: web.StreamResponse) -> Session:
        """A session for whoever has shown a token, its cookie set with the response."""
        own = [name for name, one in self._of.items() if one.token_id == caller.token_id]
        for name in own[: max(0, len(own) + 1 - MOST_OF_ONE)]:
            del self._of[name]
        while len(self._of) >= MOST:
            self._of.pop(next(iter(self._of)))
        key = secrets.token_urlsafe(32)
        session = self._of[_name(key)] = Session(key=key, token_id=caller.token_id, until=self._monotonic() + LASTS_S)
        response.set_cookie(
            COOKIE, key, max_age=LASTS_S, httponly=True, samesite="Strict", secure=self._secure, path="/"
        )
        return session

    def found(self, key: str) -> Session | None:
        """The session of a cookie; None where there is none or it is over."""
        session = self._of.get(_name(key))
        if session is not None and session.until <= self._monotonic():
            del self._of[_name(key)]
            return None
        return session

    def end(self, key: str, response: web.StreamResponse) -> None:
        """Forget a session and its cookie."""
        self._of.pop(_name(key), None)
        response.del_cookie(COOKIE, path="/")

    def csrf(self, request: web.Request) -> str:
        """What every form of a page must carry: nobody else's page can know it."""
        key = request.cookies.get(COOKIE, "") if SESSION in request else "local"
        return hmac.new(self._csrf_key, key.encode(), hashlib.sha256).hexdigest()

    def check_csrf(self, request: web.Request, given: str) -> None:
        """Raises Refused where a form was not sent by a page of this session."""
        if not hmac.compare_digest(self.csrf(request).encode(), given.encode("utf-8", "replace")):
            raise Refused(403, "the form is not of this session; open the page again and send it from there")


def _name(key: str) -> str:
    """Looked up by digest, so that no time tells of a key."""
    return hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()


SESSION: web.RequestKey[Session] = web.RequestKey("session", Session)
"""The session a request came with, put there by the gate where it was the cookie that told who calls."""
SESSIONS: web.AppKey[Sessions] = web.AppKey("sessions", Sessions)
