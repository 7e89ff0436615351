"""Faults that no request survives long enough to name: each has an address of its own, held while the server runs."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

from corpusgen.mock.kinds import Exchange, Kind

_FILLERS: Final = 4
"""Linux lets a backlog of 0 hold one connection; the rest make sure that it is full."""


async def _never_reached(exchange: Exchange) -> None:
    exchange.close()


ADDRESSES: Final = (
    Kind(
        name="connection-refused",
        what="nobody listens there",
        billed=False,
        act=_never_reached,
        place="address",
    ),
    Kind(
        name="connect-timeout",
        what="somebody listens there and never takes the call",
        billed=False,
        act=_never_reached,
        place="address",
    ),
    Kind(
        name="tls-failure",
        what="speaks no TLS although the address says https",
        billed=False,
        act=_never_reached,
        place="address",
    ),
)


@contextmanager
def bad_addresses(host: str, port: int) -> Iterator[dict[str, str]]:
    """Base URLs at which these kinds are had, by name."""
    with ExitStack() as held:
        refusing = held.enter_context(socket.socket())
        refusing.bind((host, 0))  # bound, so that nobody else listens there; not listening itself
        yield {
            "connection-refused": _url("http", refusing),
            "connect-timeout": _url("http", held.enter_context(_deaf(host))),
            "tls-failure": f"https://{host}:{port}/v1",
        }


@contextmanager
def _deaf(host: str) -> Iterator[socket.socket]:
    with ExitStack() as held:
        listening = held.enter_context(socket.socket())
        listening.bind((host, 0))
        listening.listen(0)
        for _ in range(_FILLERS):
            filler = held.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listening.getsockname())
        yield listening


def _url(scheme: str, bound: socket.socket) -> str:
    host, port = bound.getsockname()[:2]
    return f"{scheme}://{host}:{port}/v1"
