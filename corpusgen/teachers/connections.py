"""Connections to one server, made by aiohttp and kept open here from one call to the next.

aiohttp's own pool asks for much more than one server needs, which cost each call as much as parsing its answer; and it
looks at whether something has arrived that nobody asked for only when a connection is put back, not when it is taken.
"""

from __future__ import annotations

import asyncio
from collections import deque

import aiohttp
from aiohttp.connector import Connection


class Connections:
    """The connections of one event loop; the one that has waited longest is used first."""

    def __init__(self, *, keep_s: float) -> None:
        self.loop = asyncio.get_running_loop()
        self._keep_s = keep_s
        # How many calls run at once is the caller's decision: a limit here would hide waiting.
        self._connector = aiohttp.TCPConnector(limit=0, force_close=True)
        self._idle: deque[tuple[Connection, float]] = deque()
        self._sweeping: asyncio.TimerHandle | None = None

    async def new(self, opening: aiohttp.ClientRequest, within_s: float) -> Connection:
        """One that is opened now. Raises aiohttp's ConnectionTimeoutError if nobody takes it in time."""
        try:
            return await self._connector.connect(opening, [], aiohttp.ClientTimeout(sock_connect=within_s))
        except TimeoutError as error:
            raise aiohttp.ConnectionTimeoutError from error

    def take(self) -> Connection | None:
        """One that is open, if there is one. Something that came after its last answer would be read as the next."""
        if not self._idle:
            return None
        oldest = self.loop.time() - self._keep_s
        while self._idle:
            connection, since = self._idle.popleft()
            if since >= oldest and _fit(connection):
                return connection
            connection.close()
        return None

    def put_back(self, connection: Connection) -> None:
        """Keep a connection whose answer has been read, for as long as its server will probably keep it."""
        if not self._keep_s or not _fit(connection):
            connection.close()
            return
        self._idle.append((connection, self.loop.time()))
        if self._sweeping is None:
            self._sweeping = self.loop.call_later(self._keep_s, self._sweep)

    def _sweep(self) -> None:
        """Close what nobody has wanted for so long."""
        idle, oldest = self._idle, self.loop.time() - self._keep_s
        while idle and (idle[0][1] <= oldest or idle[0][0].closed):
            idle.popleft()[0].close()
        self._sweeping = self.loop.call_at(idle[0][1] + self._keep_s, self._sweep) if idle else None

    async def aclose(self) -> None:
        """Close all of them, those in use too."""
        if self._sweeping is not None:
            self._sweeping.cancel()
        await self._connector.close()
        while self._idle:
            self._idle.popleft()[0].close()  # which it is; otherwise it would complain of being forgotten


def _fit(connection: Connection) -> bool:
    protocol = connection.protocol
    return protocol is not None and protocol.is_connected() and not protocol.should_close
