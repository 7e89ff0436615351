"""Forms: what they send, read under the guard of a token that only our own pages know."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from aiohttp import web

from corpusgen.errors import UsageError
from corpusgen.fields import Unit, count, microusd
from corpusgen.serve.reading import form_of
from corpusgen.serve.sessions import SESSIONS

GUARD: Final = "guard"
"""The field of each form that holds its session's token."""
FORM: Final = ("application/x-www-form-urlencoded",)
_OURS: Final = re.compile(r"/console(?:/[A-Za-z0-9._~-]+){0,4}")


def guard_of(request: web.Request) -> str:
    """What every form of a page for this session carries."""
    return request.app[SESSIONS].csrf(request)


async def fields_of(request: web.Request) -> dict[str, str]:
    """What a form sends, without the blanks around it; Refused where it is not from a page of this session."""
    found = await form_of(request)
    request.app[SESSIONS].check_csrf(request, found.pop(GUARD, ""))
    return {name: value.strip() for name, value in found.items()}


def see(path: str) -> web.Response:
    """What follows a form that was carried out: a page of ours is asked for."""
    if not _OURS.fullmatch(path):  # a path is made of our own words and ids, never of what somebody sent
        raise ValueError(f"{path!r} is no page of the console")
    return web.Response(status=303, headers={"Location": path, "Cache-Control": "no-store"})


def on(fields: Mapping[str, str], name: str) -> bool:
    """Whether a box is ticked."""
    return fields.get(name, "") in ("1", "on", "yes")


CAPS: Final[Mapping[str, Unit]] = {"usd": "microusd", "tokens": "tokens", "requests": "requests"}
"""The caps that forms have a field for, by its name."""


def caps_in(fields: Mapping[str, str], prefix: str = "") -> dict[Unit, int]:
    """Caps that were written into a form; an empty field is none. Raises UsageError that names the field."""
    return {unit: cap for name, unit in CAPS.items() if (cap := _cap(fields, prefix, name)) is not None}


def _cap(fields: Mapping[str, str], prefix: str, name: str) -> int | None:
    written = fields.get(f"{prefix}{name}", "").replace(",", "").replace(" ", "").removeprefix("$")
    if not written:
        return None
    try:
        return microusd(written) if name == "usd" else count(written)
    except ValueError as error:
        raise UsageError(f"{name}: {error}") from error


def whole_number(fields: Mapping[str, str], name: str, most: int) -> int | None:
    """A whole number from 1 on; None for an empty field."""
    written = fields.get(name, "").replace(",", "").replace(" ", "")
    if not written:
        return None
    if not (written.isascii() and written.isdigit() and len(written) <= len(str(most)) and 0 < int(written) <= most):
        raise UsageError(f"{name}: {written!r:.40} is not a whole number from 1 to {most:,}")
    return int(written)
