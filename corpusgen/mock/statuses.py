"""Faults that are an HTTP status."""

from __future__ import annotations

from typing import Final

from corpusgen.mock.kinds import Act, Exchange, Headers, Kind

LONG_S: Final = 86_400
"""A Retry-After that would put a client to sleep for a day."""

ELSEWHERE: Final = "http://127.0.0.1:9/v1/elsewhere"
"""Where redirects lead: the discard port, where nobody listens."""


def _status(status: int, message: str, *headers: tuple[str, str]) -> Act:
    async def act(exchange: Exchange) -> None:
        await exchange.refuse(status, message, *headers)

    return act


def _kind(name: str, status: int, what: str, *headers: tuple[str, str], billed: bool = False) -> Kind:
    return Kind(name=name, what=what, billed=billed, act=_status(status, what, *headers), status=status)


async def _no_content(exchange: Exchange) -> None:
    await exchange.write(b"HTTP/1.1 204 No Content\r\n\r\n")


async def _switching(exchange: Exchange) -> None:
    await exchange.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
    exchange.close()


async def _nothing_left(exchange: Exchange) -> None:
    await exchange.refuse(429, "you exceeded your quota", code="insufficient_quota")


async def _unfinished_refusal(exchange: Exchange) -> None:
    await exchange.write(b'HTTP/1.1 500 Internal Server Error\r\nContent-Length: 500\r\n\r\n{"error"')
    exchange.reset()


def _too_many(name: str, what: str, *headers: tuple[str, str]) -> Kind:
    return _kind(name, 429, what, *headers)


_REDIRECT: Final[Headers] = (("Location", ELSEWHERE),)
_FAR_DATE: Final = "Fri, 31 Dec 9999 23:59:59 GMT"
_PAST_DATE: Final = "Sat, 01 Jan 2000 00:00:00 GMT"
_NO_DATE: Final = "1 Jan 99999999999999999999 00:00:00 GMT"

STATUSES: Final = (
    _kind("400", 400, "the request is wrong, it says"),
    _kind("400-billed", 400, "refused by a content filter after the prompt was read and charged", billed=True),
    _kind("401", 401, "the key is wrong"),
    _kind("402", 402, "the account is empty"),
    _kind("403", 403, "this key may not do that"),
    _kind("404", 404, "no such model"),
    _kind("408", 408, "the server gave up waiting, after doing the work", billed=True),
    _kind("409", 409, "in conflict with another request"),
    _kind("413", 413, "the request is too large"),
    _kind("422", 422, "a parameter cannot be processed"),
    _too_many("429", "too many requests, with a pause in seconds", ("Retry-After", "1")),
    _too_many("429-date", "too many requests, with a pause as a date long past", ("Retry-After", _PAST_DATE)),
    _too_many("429-far-date", "too many requests, with a pause until the year 9999", ("Retry-After", _FAR_DATE)),
    _too_many("429-no-date", "too many requests, with a date no calendar has", ("Retry-After", _NO_DATE)),
    _too_many("429-ms", "too many requests, with a pause in milliseconds", ("retry-after-ms", "250")),
    _too_many("429-bare", "too many requests, without a word on how long"),
    _too_many("429-long", "too many requests, come back tomorrow", ("Retry-After", str(LONG_S))),
    _too_many("429-negative", "too many requests, come back a minute ago", ("Retry-After", "-60")),
    _too_many("429-nonsense", "too many requests, with a pause that is no time at all", ("Retry-After", "soon, NaN")),
    Kind(name="429-quota", what="too many requests, because the account is empty", billed=False, act=_nothing_left),
    _kind("429-billed", 429, "too many requests, and charged all the same", ("Retry-After", "0"), billed=True),
    _kind("500", 500, "an internal error before any work was done"),
    _kind("500-billed", 500, "an internal error after the work was done and charged", billed=True),
    _kind("502", 502, "a gateway found nobody behind it"),
    _kind("503", 503, "not available just now", ("Retry-After", "0")),
    _kind("504", 504, "a gateway stopped waiting for work that was done and charged", billed=True),
    _kind("529", 529, "overloaded", ("Retry-After", "0")),
    _kind("999", 999, "a status nobody defined"),
    _kind("redirect", 307, "sends the prompt to another origin", *_REDIRECT),
    Kind(name="204", what="no content, for work that was done and charged", billed=True, act=_no_content),
    Kind(name="101", what="would rather speak another protocol", billed=False, act=_switching),
    Kind(name="500-cut", what="an internal error whose explanation is cut off", billed=True, act=_unfinished_refusal),
)
