"""Host names as they are written and as they are connected to: one spelling, so that terms are found by it."""

from __future__ import annotations

import re

_NAME = re.compile(r"[a-z0-9]([a-z0-9_-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9_-]*[a-z0-9])?)*")
_ADDRESS = re.compile(r"[0-9a-f:.]*:[0-9a-f:.]*")


def host_problem(host: str) -> str | None:
    """Why a host cannot be written like that; None where it can.

    Letters that look like others, percent signs and a closing dot are turned into another name before a connection is
    made, and the terms of that name would not be found.
    """
    if not host.isascii():
        return f"the host {host!r} has letters beyond ASCII; write it as it is connected to, in ASCII or as xn--…"
    if host.endswith("."):
        return f"the host {host!r} ends with a dot; write it without"
    if not _NAME.fullmatch(host.lower()) and not _ADDRESS.fullmatch(host.lower()):
        return f"the host {host!r} is no host name; write it with ASCII letters, digits, - and . only"
    return None
