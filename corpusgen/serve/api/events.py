"""Events as they happen, by Server-Sent Events: ids grow over restarts, Last-Event-ID goes on where one left off."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, contextmanager, suppress
from typing import TYPE_CHECKING, Final

import orjson
from aiohttp import web

from corpusgen.serve.api.models import EventsQuery
from corpusgen.serve.callers import LOCAL
from corpusgen.serve.reading import query_of
from corpusgen.serve.routes import Handler, Operation, caller_of
from corpusgen.serve.runs import OVER, told
from corpusgen.serve.service import service_of
from corpusgen.serve.statuses import Refused

if TYPE_CHECKING:
    from collections.abc import Iterator

    from corpusgen.serve.bus import Bus, Event

MOST_STREAMS: Final = 16
"""Streams of events that one token may have open."""
ALIVE_S: Final = 15
"""Seconds in which nothing is said before a comment tells that the connection lives."""
LOOK_S: Final = 1.0
"""How often it is looked whether a reader to whom nothing is said is still there."""
SLOW_S: Final = 30.0
"""A reader that takes nothing for so long is let go; the bus keeps what it misses."""
KINDS_OF_ALL: Final = frozenset({"run", "budget", "waiver", "lease", "ledger", "missed"})
"""What everybody who may read is told; what else passes over the bus is for administrators."""


class Streams:
    """How many streams each token has open."""

    def __init__(self) -> None:
        self._open: Counter[str] = Counter()

    @contextmanager
    def one_more(self, token_id: str) -> Iterator[None]:
        """Room for a stream. Raises Refused where there is none."""
        if self._open[token_id] >= MOST_STREAMS:
            raise Refused(429, f"this token has {MOST_STREAMS} streams of events open; close one", headers=_LATER)
        self._open[token_id] += 1
        try:
            yield
        finally:
            self._open[token_id] -= 1


_LATER: Final = {"Retry-After": "5"}


def _since(request: web.Request) -> int | None:
    """The last event that is known. Raises Refused for one that is no number."""
    query = query_of(request, EventsQuery)
    header = request.headers.get("Last-Event-ID", "")
    if not header:
        return query.since
    if not (header.isascii() and header.isdigit() and len(header) <= 19):
        raise Refused(400, "Last-Event-ID: must be the id of an event")
    return int(header)


def _everything(streams: Streams) -> Handler:
    async def events(request: web.Request) -> web.StreamResponse:
        """Everything that happens."""
        admin = caller_of(request).may("admin")

        def wanted(event: Event) -> bool:
            return admin or event.kind in KINDS_OF_ALL

        return await _stream(request, streams, wanted, ends=lambda _: False)

    return events


def _of_run(streams: Streams) -> Handler:
    async def run_events(request: web.Request) -> web.StreamResponse:
        """What happens to one run, first how it stands now; the stream ends with the run."""
        runs, named = service_of(request).runs, request.match_info["run"]
        run = runs.find(named)
        first = orjson.dumps(told(run) | {"progress": runs.progress(run)})

        def wanted(event: Event) -> bool:
            return event.kind == "missed" or (event.kind == "run" and event.payload.get("id") == named)

        def ends(event: Event) -> bool:
            return event.kind == "run" and event.payload.get("state") in OVER

        return await _stream(request, streams, wanted, ends=ends, first=first, over=run.state in OVER)

    return run_events


async def _stream(
    request: web.Request,
    streams: Streams,
    wanted: Callable[[Event], bool],
    *,
    ends: Callable[[Event], bool],
    first: bytes | None = None,
    over: bool = False,
) -> web.StreamResponse:
    service, since = service_of(request), _since(request)
    with streams.one_more(caller_of(request).token_id):
        bus: Bus = service.bus
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        response.headers["X-Accel-Buffering"] = "no"
        begun = bus.last
        await response.prepare(request)
        with suppress(ConnectionError, TimeoutError):
            await _write(response, b"retry: 2000\n\n")
            if first is not None:
                await _write(response, _written(begun, "run", first))
            if not over:
                heard = _heard(bus, since if since is not None else begun, service.stopping)
                await _tell(request, response, heard, wanted, ends)
            await response.write_eof()
    return response


async def _tell(
    request: web.Request,
    response: web.StreamResponse,
    heard: AsyncGenerator[Event | None, None],
    wanted: Callable[[Event], bool],
    ends: Callable[[Event], bool],
) -> None:
    quiet = 0
    async with aclosing(heard):
        async for event in heard:
            quiet += event is None
            if request.transport is None or request.transport.is_closing() or not _may_still(request):
                return
            if event is not None and wanted(event):
                await _write(response, _written(event.id, event.kind, _payload(event)))
                quiet = 0
                if ends(event):
                    return
            elif quiet * LOOK_S >= ALIVE_S:
                await _write(response, b": alive\n\n")
                quiet = 0


def _may_still(request: web.Request) -> bool:
    """Whether the token that the stream was opened with still lets its bearer read; asked before anything is told."""
    tokens, caller = service_of(request).tokens, caller_of(request)
    if caller.token_id == LOCAL.token_id:
        return not tokens.exist
    now = tokens.caller_by_id(caller.token_id)
    return now is not None and now.may("read")


async def _heard(bus: Bus, since: int, stopping: asyncio.Event) -> AsyncGenerator[Event | None, None]:
    """Events of the bus, and None where nothing happened for a moment; ends with the service."""
    listening = bus.listen(since)
    coming = asyncio.ensure_future(anext(listening, None))
    stopped = asyncio.ensure_future(stopping.wait())
    try:
        while True:
            await asyncio.wait({coming, stopped}, timeout=LOOK_S, return_when=asyncio.FIRST_COMPLETED)
            if coming.done():
                event = coming.result()
                if event is None:
                    return
                yield event
                coming = asyncio.ensure_future(anext(listening, None))
            elif stopped.done():
                return
            else:
                yield None
    finally:
        stopped.cancel()
        coming.cancel()
        await asyncio.wait({coming, stopped})
        await listening.aclose()  # type: ignore[attr-defined] # it is a generator


def _payload(event: Event) -> bytes:
    return orjson.dumps({**event.payload, "happened": event.happened}, default=str)


def _written(number: int, kind: str, payload: bytes) -> bytes:
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (number, kind.encode(), payload)


async def _write(response: web.StreamResponse, data: bytes) -> None:
    async with asyncio.timeout(SLOW_S):
        await response.write(data)


def operations() -> tuple[Operation, ...]:
    """The streams, which count together."""
    streams = Streams()
    return (
        Operation(
            method="GET",
            path="/api/v1/events",
            handler=_everything(streams),
            scope="read",
            summary="Everything that happens, as Server-Sent Events; Last-Event-ID goes on where one left off",
            query=EventsQuery,
            content_type="text/event-stream",
            tag="events",
        ),
        Operation(
            method="GET",
            path="/api/v1/runs/{run}/events",
            handler=_of_run(streams),
            scope="read",
            summary="What happens to one run, as Server-Sent Events, first how it stands; ends with the run",
            query=EventsQuery,
            content_type="text/event-stream",
            tag="events",
        ),
    )
