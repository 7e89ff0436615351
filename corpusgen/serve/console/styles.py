"""The files beside the pages: one style sheet in the report's colours, one script, one icon."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Final

from aiohttp import web

from corpusgen.evaluate.report.style import DARK, LIGHT
from corpusgen.serve.console.pages import HEADERS, asset_name, environment

_OURS_LIGHT: Final = "--wash:#f5f3ee;--edge:#8a8779;--accent:#0b61a4;--onaccent:#fff;--bad:#a3261b;--good:#1d6b36;"
_OURS_DARK: Final = "--wash:#1c1f24;--edge:#777c86;--accent:#63b0f0;--onaccent:#101215;--bad:#ff9184;--good:#7fcf95;"
"""What the report has no word for: fields to write in, buttons, refusals and permissions."""
KINDS: Final = {"console.css": "text/css", "console.js": "text/javascript", "icon.svg": "image/svg+xml"}


def colours() -> dict[str, dict[str, str]]:
    """Every colour of both themes, by its name."""
    return {"light": _read(LIGHT + _OURS_LIGHT), "dark": _read(DARK + _OURS_DARK)}


def _read(declared: str) -> dict[str, str]:
    pairs = (one.partition(":") for one in declared.split(";") if ":" in one)
    return {name.strip(): value.strip() for name, _, value in pairs}


@cache
def content(name: str) -> bytes:
    """The bytes of one of the files."""
    own = files("corpusgen.serve.console").joinpath("static", name).read_bytes()
    return _themes().encode() + own if name == "console.css" else own


def _themes() -> str:
    light, dark = LIGHT + _OURS_LIGHT, DARK + _OURS_DARK
    return (
        f":root{{color-scheme:light;{light}}}\n"
        f"@media screen and (prefers-color-scheme:dark){{:root:not([data-theme=light]){{color-scheme:dark;{dark}}}}}\n"
        f"@media screen{{:root[data-theme=dark]{{color-scheme:dark;{dark}}}}}\n"
    )


async def static(request: web.Request) -> web.Response:
    """One of the files, to be kept for good: its address changes with it."""
    name = request.match_info["name"]
    if name not in KINDS or request.path != address(name):
        raise web.HTTPNotFound
    headers = {**HEADERS, "Cache-Control": "public, max-age=31536000, immutable"}
    return web.Response(body=content(name), content_type=KINDS[name], charset="utf-8", headers=headers)


@cache
def address(name: str) -> str:
    """Where one of the files is."""
    return asset_name(name, content(name))


environment.globals["asset"] = address
