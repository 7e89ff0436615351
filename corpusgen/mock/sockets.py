"""Faults below HTTP, or in how it is spoken: cuts, drips, bombs, wrong lengths."""

from __future__ import annotations

import asyncio
import gzip
from dataclasses import replace
from functools import cache
from typing import Final

import orjson

from corpusgen.mock.kinds import Exchange, Kind, head
from corpusgen.mock.question import Question
from corpusgen.mock.saying import answer_to

BOMB_BYTES: Final = 80 * 2**20
"""What the bomb unpacks to: more than any client should take for one answer."""

_DRIP_S: Final = 0.05
_AFTERWARDS_S: Final = 0.02
_JSON: Final = (("Content-Type", "application/json"),)
_FLOOD: Final = b" " * 2**16
_MOST_FLOOD: Final = 2**13


def _good(exchange: Exchange) -> bytes:
    return exchange.told()


def _chunked(exchange: Exchange) -> bytes:
    return head(200, (*exchange.typed, ("Transfer-Encoding", "chunked")))


def _length(size: int) -> tuple[str, str]:
    return "Content-Length", str(size)


async def _reset_before(exchange: Exchange) -> None:
    exchange.reset()


async def _close_before(exchange: Exchange) -> None:
    exchange.close()


async def _half_a_body(exchange: Exchange) -> None:
    body = _good(exchange)
    await exchange.write(
        head(
            200,
            (
                *exchange.typed,
                _length(len(body)),
            ),
        )
        + body[: len(body) // 2]
    )


async def _reset_in_body(exchange: Exchange) -> None:
    await _half_a_body(exchange)
    await asyncio.sleep(_AFTERWARDS_S)  # a reset discards what the client has not read yet
    exchange.reset()


async def _close_in_body(exchange: Exchange) -> None:
    await _half_a_body(exchange)
    exchange.close()


async def _chunk_cut(exchange: Exchange) -> None:
    body = _good(exchange)
    await exchange.write(_chunked(exchange) + f"{len(body):x}\r\n".encode() + body + b"\r\n")
    exchange.close()  # all the words, but not the chunk that says so


async def _chunk_nonsense(exchange: Exchange) -> None:
    await exchange.write(_chunked(exchange) + b"many\r\n" + _good(exchange))
    exchange.close()


async def _close_after_headers(exchange: Exchange) -> None:
    await exchange.write(
        head(
            200,
            (
                *exchange.typed,
                _length(len(_good(exchange))),
            ),
        )
    )
    exchange.close()


async def _too_late(exchange: Exchange) -> None:
    if not await exchange.client_leaves(exchange.slow_s):
        await exchange.answer(_good(exchange))
        exchange.patient = True


async def _drip(exchange: Exchange, quick: bytes, slow: bytes) -> None:
    await exchange.write(quick)
    loop = asyncio.get_running_loop()
    until = loop.time() + exchange.slow_s
    for at in range(len(slow)):
        if loop.time() > until:
            await exchange.write(slow[at:])
            break
        if await exchange.client_leaves(_DRIP_S):
            return exchange.close()
        await exchange.write(slow[at : at + 1])
    exchange.patient = True
    return None


async def _slow_headers(exchange: Exchange) -> None:
    body = _good(exchange)
    start, rest = head(
        200,
        (
            *exchange.typed,
            _length(len(body)),
        ),
    ).split(b"\r\n", 1)
    await _drip(exchange, start + b"\r\n", rest + body)


async def _slow_body(exchange: Exchange) -> None:
    body = _good(exchange)
    await _drip(
        exchange,
        head(
            200,
            (
                *exchange.typed,
                _length(len(body)),
            ),
        ),
        body,
    )


async def _endless_continue(exchange: Exchange) -> None:
    loop = asyncio.get_running_loop()
    until = loop.time() + exchange.slow_s
    while loop.time() < until and not await exchange.client_leaves(_DRIP_S):
        await exchange.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    exchange.close()


async def _endless_body(exchange: Exchange) -> None:
    await exchange.write(_chunked(exchange))
    chunk = f"{len(_FLOOD):x}\r\n".encode() + _FLOOD + b"\r\n"
    for _ in range(_MOST_FLOOD):
        await exchange.write(chunk)
    exchange.close()


async def _bomb(exchange: Exchange) -> None:
    await exchange.answer(_packed_bomb(), ("Content-Encoding", "gzip"))


@cache
def _packed_bomb() -> bytes:
    return gzip.compress(bytes(BOMB_BYTES), compresslevel=1, mtime=0)


async def _broken_gzip(exchange: Exchange) -> None:
    await exchange.answer(b"this was never packed", ("Content-Encoding", "gzip"))


async def _cut_gzip(exchange: Exchange) -> None:
    packed = gzip.compress(_good(exchange), mtime=0)
    await exchange.answer(packed[:-12], ("Content-Encoding", "gzip"))


async def _length_too_long(exchange: Exchange) -> None:
    body = _good(exchange)
    await exchange.write(
        head(
            200,
            (
                *exchange.typed,
                _length(len(body) + 100),
            ),
        )
        + body
    )
    exchange.close()


async def _length_too_short(exchange: Exchange) -> None:
    body = _good(exchange)
    await exchange.write(
        head(
            200,
            (
                *exchange.typed,
                _length(len(body) // 2),
            ),
        )
        + body
    )


async def _two_lengths(exchange: Exchange) -> None:
    body = _good(exchange)
    await exchange.write(head(200, (*exchange.typed, _length(len(body)), _length(len(body) // 2))) + body)
    exchange.close()


async def _twice_named(exchange: Exchange) -> None:
    extra = (
        (exchange.dialect.request_id, "another"),
        ("Retry-After", "5"),
        ("Retry-After", "7"),
        ("Content-Type", "text/plain"),
    )
    await exchange.send(200, _good(exchange), *(exchange.typed or _JSON), *extra)


def _old_head(exchange: Exchange) -> bytes:
    return b"HTTP/1.0" + head(200, exchange.typed).removeprefix(b"HTTP/1.1")


async def _http_1_0(exchange: Exchange) -> None:
    await exchange.write(_old_head(exchange) + _good(exchange))
    exchange.close()


async def _http_1_0_cut(exchange: Exchange) -> None:
    body = _good(exchange)
    await exchange.write(_old_head(exchange) + body[: len(body) // 2])
    exchange.close()


async def _not_http(exchange: Exchange) -> None:
    await exchange.write(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
    exchange.close()


async def _huge_headers(exchange: Exchange) -> None:
    await exchange.answer(_good(exchange), *((f"x-padding-{number}", "x" * 4096) for number in range(256)))


async def _second_answer(exchange: Exchange) -> None:
    await exchange.answer(_good(exchange))
    # Soon, and not in the same packet: what comes after the next question was sent nobody can tell from its answer.
    await asyncio.sleep(0)
    other = _somebody_elses(exchange.question)
    await exchange.answer(orjson.dumps(exchange.dialect.reply(other, answer_to(other), ())))


def _somebody_elses(question: Question) -> Question:
    return replace(question, key="0" * 64, text="somebody else's question", tool=None, schema=None, choices=1)


SOCKETS: Final = (
    Kind(name="reset-before-answer", what="reset once the request is in", billed=True, act=_reset_before),
    Kind(name="close-before-answer", what="closed once the request is in", billed=True, act=_close_before),
    Kind(name="reset-in-body", what="reset in the middle of the answer", billed=True, act=_reset_in_body),
    Kind(name="close-in-body", what="closed in the middle of the answer", billed=True, act=_close_in_body),
    Kind(name="close-after-headers", what="closed after the headers", billed=True, act=_close_after_headers),
    Kind(name="chunk-cut", what="closed before the last chunk", billed=True, act=_chunk_cut),
    Kind(name="chunk-nonsense", what="a chunk whose size is a word", billed=True, act=_chunk_nonsense),
    Kind(name="timeout", what="answers after the client has stopped waiting", billed=True, act=_too_late),
    Kind(name="slow-headers", what="one byte of the headers at a time", billed=True, act=_slow_headers),
    Kind(name="slow-body", what="one byte of the answer at a time", billed=True, act=_slow_body),
    Kind(name="endless-continue", what="100 Continue, again and again", billed=True, act=_endless_continue),
    Kind(name="endless-body", what="an answer without an end", billed=True, act=_endless_body),
    Kind(name="gzip-bomb", what="a small body that unpacks to 80 MB", billed=True, act=_bomb),
    Kind(name="broken-gzip", what="says gzip and is none", billed=True, act=_broken_gzip),
    Kind(name="cut-gzip", what="gzip without its end", billed=True, act=_cut_gzip),
    Kind(name="length-too-long", what="a Content-Length beyond the answer", billed=True, act=_length_too_long),
    Kind(name="length-too-short", what="a Content-Length of half the answer", billed=True, act=_length_too_short),
    Kind(name="two-lengths", what="two Content-Lengths that differ", billed=True, act=_two_lengths),
    Kind(name="duplicate-headers", what="headers that stand twice", billed=True, act=_twice_named, usable=True),
    Kind(name="http-1.0", what="no length, the end is the end", billed=True, act=_http_1_0, usable=True),
    Kind(name="http-1.0-cut", what="no length, and the end comes too early", billed=True, act=_http_1_0_cut),
    Kind(name="not-http", what="another protocol", billed=True, act=_not_http),
    Kind(name="huge-headers", what="a megabyte of headers", billed=True, act=_huge_headers),
    Kind(
        name="second-answer",
        what="a second answer, to nobody's question, on the same connection",
        billed=True,
        act=_second_answer,
        usable=True,
    ),
)
