"""What happens in the service, told to whoever watches, the last ten thousand events to who was away for a moment."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from corpusgen.corpus import Clock, microseconds, utc_now
from corpusgen.records import Json

KEPT: Final = 10_000


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened; ``id`` is larger than that of all before it, over restarts too."""

    id: int
    kind: str
    payload: Mapping[str, Json]
    happened: datetime


class Bus:
    """Tells events to any number of listeners; who is slow misses some and is told how many, and holds up nobody.

    For one event loop: other threads go through ``loop.call_soon_threadsafe``.
    """

    def __init__(self, *, clock: Clock = utc_now, kept: int = KEPT) -> None:
        self._clock = clock
        self._ring: deque[Event] = deque(maxlen=kept)
        self._last = microseconds(clock())
        self._closed = False
        self._news: asyncio.Future[None] | None = None
        self.listeners = 0

    @property
    def last(self) -> int:
        """The id of the latest event, or what ids start after."""
        return self._last

    def tell(self, kind: str, payload: Mapping[str, Json]) -> Event:
        """Tell everybody who listens."""
        self._last += 1
        event = Event(id=self._last, kind=kind, payload=payload, happened=self._clock())
        self._ring.append(event)
        self._wake()
        return event

    async def listen(self, since: int | None = None) -> AsyncIterator[Event]:
        """Every event after ``since``, or from now on, until the bus closes.

        Where some of them are no longer kept, an event ``missed`` comes first and says how many there were at most.
        """
        seen = self._last if since is None else min(since, self._last)
        self.listeners += 1
        try:
            while True:
                for event in self._after(seen):
                    seen = event.id
                    yield event
                if seen < self._last:
                    continue
                if self._closed:
                    return
                await asyncio.shield(self._waiting())
        finally:
            self.listeners -= 1

    def close(self) -> None:
        """Let every listener end."""
        self._closed = True
        self._wake()

    def _after(self, seen: int) -> list[Event]:
        """At most a hundred events that come next, so that no copy is large."""
        first = self._ring[0].id if self._ring else self._last + 1
        lost = first - 1 - seen
        if lost > 0:
            return [Event(id=first - 1, kind="missed", payload={"at_most": lost}, happened=self._clock())]
        start = seen + 1 - first
        return [self._ring[at] for at in range(start, min(start + 100, len(self._ring)))]

    def _waiting(self) -> asyncio.Future[None]:
        if self._news is None:
            self._news = asyncio.get_running_loop().create_future()
        return self._news

    def _wake(self) -> None:
        news, self._news = self._news, None
        if news is not None and not news.done():
            news.set_result(None)
