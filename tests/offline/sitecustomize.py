"""Forbids sockets to anything but this machine, in the test process and in every Python it starts."""

from __future__ import annotations

import ipaddress
import sys
from typing import Any

_LOOKUPS = ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr")
_SENDS = ("socket.connect", "socket.sendto", "socket.sendmsg")


class NetworkForbidden(RuntimeError):
    """A test tried to reach another machine."""


def _loopback(host: object) -> bool:
    name = host.decode() if isinstance(host, bytes) else host
    if name in (None, "", "localhost"):
        return True
    try:
        return ipaddress.ip_address(str(name)).is_loopback
    except ValueError:
        return False


def _forbid(event: str, arguments: tuple[Any, ...]) -> None:
    if event in _LOOKUPS:
        host: object = arguments[0]
    elif event in _SENDS and isinstance(arguments[1], tuple):  # a path is a Unix socket, None is connected already
        host = arguments[1][0]
    else:
        return
    if not _loopback(host):
        raise NetworkForbidden(f"tests reach no network, but something asked for {host!r} ({event})")


# An audit hook sees sockets made before and after, by whatever library, and cannot be taken out again.
sys.addaudithook(_forbid)
