"""Pages: a template, its values and the headers that keep whatever text stands in it text."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, Final

from aiohttp import web
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from corpusgen.corpus import moment
from corpusgen.evaluate.report import wording
from corpusgen.serve.callers import Caller, Scope
from corpusgen.serve.routes import CALLER
from corpusgen.serve.statuses import CSP

HEADERS: Final[Mapping[str, str]] = {"Content-Security-Policy": CSP, "Cross-Origin-Opener-Policy": "same-origin"}
"""What pages, their files and what is taken away from them say beside what the gate has every answer say."""
THEMES: Final = ("light", "dark")
THEME: Final = "corpusgen_theme"
"""The cookie that says which theme was chosen; without it the browser's own counts."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """One page of the menu."""

    path: str
    name: str
    scope: Scope
    """Whoever may not do this is not shown it."""


MENU: Final = (
    Place(path="/console", name="Overview", scope="read"),
    Place(path="/console/runs", name="Runs", scope="read"),
    Place(path="/console/batches", name="Batches", scope="read"),
    Place(path="/console/records", name="Records", scope="read"),
    Place(path="/console/datasets", name="Datasets", scope="read"),
    Place(path="/console/students", name="Students", scope="read"),
    Place(path="/console/budgets", name="Budgets", scope="read"),
    Place(path="/console/audit", name="Audit", scope="legal"),
    Place(path="/console/rights", name="Rights", scope="legal"),
    Place(path="/console/query", name="Query", scope="read"),
    Place(path="/console/tokens", name="Tokens", scope="admin"),
)


def page(request: web.Request, template: str, *, status: int = 200, **values: Any) -> web.Response:
    """A whole page for whoever asks."""
    return web.Response(
        text=rendered(request, template, **values), status=status, content_type="text/html", headers=HEADERS
    )


def rendered(request: web.Request, template: str, **values: Any) -> str:
    """The text of a template, with what every page shows."""
    from corpusgen.serve.console.forms import guard_of  # which reads sessions, and they need no page

    caller = request.get(CALLER)
    chosen = request.cookies.get(THEME, "")
    return environment.get_template(template).render(
        caller=caller,
        guard_token=guard_of(request),
        menu=_menu(caller),
        path=request.path,
        theme=chosen if chosen in THEMES else "",
        version=version("corpusgen-distill"),
        **values,
    )


def _menu(caller: Caller | None) -> Sequence[Place]:
    return [] if caller is None else [one for one in MENU if caller.may(one.scope)]


# --- How values are written ------------------------------------------------------------------------------------------


def shown(value: Any) -> Any:
    """What a template says in braces. Text is foreign: it is escaped, and what hides or turns text is made visible."""
    if isinstance(value, Markup):
        return value
    if value is None:
        return wording.DASH
    if isinstance(value, datetime):
        return Markup(wording.text(time_told(value)))  # noqa: S704 - escaped by wording.text
    return Markup(wording.text(str(value)))  # noqa: S704 - escaped by wording.text


def time_told(value: datetime | int | None) -> str:
    """A time to the second, in UTC; microseconds since 1970 are one as well."""
    if value is None:
        return wording.DASH
    when = moment(value) if isinstance(value, int) else value
    when = when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)
    return f"{when:%Y-%m-%d %H:%M:%S}"


def amount(value: int | None, unit: str) -> str:
    """So much of a unit, by the word a budget uses for it; money and times are stored in millionths."""
    if value is None:
        return wording.DASH
    if unit == "usd":
        return wording.exact_dollars(value)
    return wording.duration(value / 1e6) if unit in ("compute_s", "wall_s") else wording.count(value)


def shortened(value: str, most: int = 160) -> str:
    """The beginning of a text, on one line."""
    one = " ".join(value.split())
    return one if len(one) <= most else f"{one[: most - 1]}…"


def told(value: Any) -> str:
    """A value of a table or a document, for reading."""
    if value is None or value == "" or value == [] or value == {}:
        return wording.DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return "; ".join(f"{name}: {told(one)}" for name, one in value.items() if one not in (None, "", []))
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        return ", ".join(told(one) for one in value)
    if isinstance(value, bytes):
        return value.hex()
    return time_told(value) if isinstance(value, datetime) else str(value)


_SPOKEN: Final = {"usd": "dollars", "compute_s": "processor time", "wall_s": "working time"}


def spoken(word: str) -> str:
    """A name of a field or a unit as a person writes it."""
    return _SPOKEN.get(word, word.replace("_", " "))


environment: Final = Environment(
    loader=PackageLoader("corpusgen.serve.console"),
    autoescape=True,
    undefined=StrictUndefined,
    finalize=shown,
    trim_blocks=True,
    lstrip_blocks=True,
)
environment.filters.update(
    amount=amount,
    count=lambda value: wording.DASH if value is None else wording.count(value),
    dollars=lambda value: wording.DASH if value is None else wording.dollars(value),
    exact=lambda value: wording.DASH if value is None else wording.exact_dollars(value),
    duration=lambda value: wording.DASH if value is None else wording.duration(value),
    percent=wording.percent,
    plural=wording.plural,
    shortened=shortened,
    spoken=spoken,
    time=time_told,
    told=told,
)


def asset_name(name: str, content: bytes) -> str:
    """The address of a file of ours, which changes when the file does."""
    return f"/console/static/{hashlib.sha256(content).hexdigest()[:12]}/{name}"
