"""Pictures of the console: the report's own, and what is left of a budget over time."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from markupsafe import Markup

from corpusgen.evaluate.report import charts as drawn
from corpusgen.evaluate.report import coverage as mapped
from corpusgen.evaluate.report.charts import Meter
from corpusgen.evaluate.report.facts import Coverage, FunnelStep
from corpusgen.evaluate.report.svg import Part, both, box, line, picture, words
from corpusgen.evaluate.report.wording import count
from corpusgen.serve.console.pages import amount, spoken

_STYLED: Final = re.compile(r' style="max-width:([0-9.]+)px"')
HOUR_US: Final = 3_600_000_000


def _ours(markup: str) -> Markup:
    """Markup that our own functions drew, escaping what is foreign; as these pages take it, without a style in it."""
    return Markup(_STYLED.sub(r' width="\1"', markup))  # noqa: S704 - drawn and escaped by evaluate.report


def budget_bars(balances: Sequence[Mapping[str, Any]], name: str = "caps") -> Markup:
    """How much of each cap is gone: settled, unconfirmed and promised apart. Empty where nothing is capped."""
    rows = [_meter(one) for one in balances if one["cap"] is not None]
    if not rows:
        return Markup()
    described = "; ".join(f"{row.name}: {row.words}, {row.cap_words}" for row in rows)
    return _ours(both(lambda width, id_: drawn.meters(id_, "Budgets against their caps", described, rows, width), name))


def _meter(one: Mapping[str, Any]) -> Meter:
    unit = one["unit"]
    kinds = ("settled", "unconfirmed", "promised")
    per = "" if one["per"] == "total" else f" per {one['per']}"
    return Meter(
        name=f"{one['scope']}, {spoken(unit)}{per}",
        parts=tuple((kind, float(one[kind])) for kind in kinds),
        cap=float(one["cap"]),
        words=", ".join(f"{amount(one[kind], unit)} {kind}" for kind in kinds if one[kind] or kind == "settled"),
        cap_words=f"cap {amount(one['cap'], unit)}",
    )


def funnel(steps: Sequence[FunnelStep], name: str = "funnel") -> Markup:
    """What was left after each step, and why the rest was not."""
    if len(steps) < 2:
        return Markup()
    described = "; ".join(f"{step.name} {count(step.left)}" for step in steps)
    draw: Callable[[int, str], Part] = lambda width, id_: drawn.funnel(  # noqa: E731 - what both() takes
        id_, "What was left after each step", described, steps, width
    )
    return _ours(both(draw, name))


def coverage_map(facts: Coverage) -> Markup:
    """The report's map of what was asked about in its pool, with holes and figures."""
    section = mapped.coverage(facts)
    return Markup() if section is None else _ours(section.body)


# --- What is left ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Burn:
    """What was spent over a time: (microseconds, micro-dollars so far), and the cap it goes against."""

    points: Sequence[tuple[int, int]]
    until_us: int
    cap: int | None
    scope: str


def burn_down(facts: Burn, name: str = "burn") -> Markup:
    """What is left of a cap over time; what was spent, where there is no cap."""
    if len(facts.points) < 2:
        return Markup()
    return _ours(both(partial(_burn_chart, facts), name))


def _burn_chart(facts: Burn, width: int, name: str) -> Part:
    left, top, floor, right = 8.0, 26.0, 168.0, width - 8.0
    start, end = facts.points[0][0], max(facts.until_us, facts.points[-1][0] + 1)
    values = [(at, spent if facts.cap is None else facts.cap - spent) for at, spent in facts.points]
    most = max(1, facts.cap or 0, *(value for _, value in values))

    def place(at: int, value: float) -> tuple[float, float]:
        return left + (right - left) * (at - start) / (end - start), floor - (floor - top) * max(0.0, value) / most

    parts = [line("grid", left, y, right, y) for y in (top, (top + floor) / 2)]
    parts += [line("axis", left, floor, right, floor), words(left, top - 6, amount(most, "usd"), "tick")]
    parts += [words(x, floor + 16, _clock(at, end - start), "tick", anchor) for x, at, anchor in (
        (left, start, "start"), (right, end, "end"))]  # fmt: skip
    parts.append(_steps([place(*one) for one in values], place(end, values[-1][1])))
    x, y = place(end, values[-1][1])
    told = f"{amount(values[-1][1], 'usd')} {'spent' if facts.cap is None else 'left'}"
    parts += [
        box("student", x - 3, y - 3, 6, 6),
        words(right - 8, y + 18 if y + 22 < floor else y - 8, told, "value", "end"),
    ]
    title = f"Spent, {facts.scope}" if facts.cap is None else f"Left of the cap on {facts.scope}"
    return picture(name, title, f"{told}, from {_clock(start, end - start)} to {_clock(end, end - start)} UTC", width,
                   floor + 24, parts)  # fmt: skip


def _steps(places: Sequence[tuple[float, float]], last: tuple[float, float]) -> Part:
    """A line that changes only where something was spent."""
    drawn_at = "".join(f"H{x:.1f}V{y:.1f}" for x, y in places[1:])
    x, y = places[0]
    return f'<path class="burn" d="M{x:.1f} {y:.1f}{drawn_at}H{last[0]:.1f}"/>'


def _clock(at_us: int, span_us: int) -> str:
    when = datetime.fromtimestamp(at_us / 1e6, UTC)
    return f"{when:%H:%M:%S}" if span_us < 2 * HOUR_US else f"{when:%d %b %H:%M}"
