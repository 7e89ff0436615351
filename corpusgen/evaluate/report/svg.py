"""Pieces of inline SVG and the axes they lie on; colours come from the page's style sheet.

Charts are drawn for a width, because text that is scaled down with a picture cannot be read on a phone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

from corpusgen.evaluate.report.facts import Role
from corpusgen.evaluate.report.wording import percent, text

WIDE, NARROW_PAGE = 680, 340
Part: TypeAlias = str
"""A piece of SVG."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Where a value lies between ``low`` and ``high``; ``ticks`` are (value, words)."""

    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    log: bool = False

    def place(self, value: float, start: float, end: float) -> float:
        """The position of a value on the way from ``start`` to ``end``; values outside stick to the edge."""
        low, high, at = (math.log10(v) for v in (self.low, self.high, max(value, self.low))) if self.log else (
            self.low, self.high, value)  # fmt: skip
        share = (at - low) / (high - low) if high > low else 0.5
        return start + (end - start) * min(1.0, max(0.0, share))


def both(draw: Callable[[int, str], Part], name: str) -> str:
    """The same chart drawn for a page and for a phone; the style sheet shows one of them."""
    return (
        f'<div class="wide">{draw(WIDE, f"{name}-wide")}</div>'
        f'<div class="narrow">{draw(NARROW_PAGE, f"{name}-narrow")}</div>'
    )


def picture(name: str, title: str, description: str, width: float, height: float, parts: Iterable[Part]) -> str:
    """An SVG that says what it shows to those who cannot see it."""
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" style="max-width:{width:g}px" role="img" '
        f'aria-labelledby="{name}-t {name}-d"><title id="{name}-t">{text(title)}</title>'
        f'<desc id="{name}-d">{text(description)}</desc>{"".join(parts)}</svg>'
    )


def line(kind: str, x1: float, y1: float, x2: float, y2: float) -> Part:
    """A straight line."""
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def box(kind: str, x: float, y: float, width: float, height: float, opacity: float = 1) -> Part:
    """A rectangle; what is not nothing stays visible."""
    shown = max(width, 1.5) if width > 0 else 0
    faded = f' fill-opacity="{opacity:.2f}"' if opacity < 1 else ""
    return f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{shown:.1f}" height="{height:.1f}"{faded}/>'


def words(x: float, y: float, content: str, kind: str = "", anchor: str = "start") -> Part:
    """A line of text."""
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{text(content)}</text>'


def mark(role: Role, x: float, y: float, hollow: bool = False, size: float = 5) -> Part:
    """Student round, teacher square on its tip: told apart without colour."""
    kind = f"{role} hollow" if hollow else role
    if role != "teacher":
        return f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{size:g}"/>'
    tip = size * 1.25
    return f'<path class="{kind}" d="M{x:.1f} {y - tip:.1f}l{tip:g} {tip:g}l-{tip:g} {tip:g}l-{tip:g} -{tip:g}z"/>'


def share_scale(values: Iterable[float], ceiling: float = 1.0) -> Scale:
    """An axis in per cent that leaves out the empty part below the values."""
    seen = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    low = max(0.0, math.floor((min(seen) - 0.02) * 20) / 20)
    high = max(math.ceil((max(seen) + 0.005) * 20) / 20, low + 0.1)
    high = high if max(seen) > ceiling else min(ceiling, high)
    low = low if high > low else max(0.0, high - 0.1)
    step = next(step for step in (0.05, 0.1, 0.2, 0.5, 1, 10, 1e9) if (high - low) / step <= 6)
    first = math.ceil(low / step - 1e-9)
    ticks = [first * step + step * n for n in range(8) if first * step + step * n <= high + 1e-9]
    return Scale(low=low, high=high, ticks=tuple((tick, percent(tick, 0)) for tick in ticks))


def decade_scale(values: Iterable[float], unit: str) -> Scale:
    """A logarithmic axis: each step is ten times the one before."""
    seen = [value for value in values if math.isfinite(value) and value > 0] or [1.0]
    low, high = math.floor(math.log10(min(seen))), math.ceil(math.log10(max(seen)))
    high = max(high, low + 1)
    ticks = tuple((10.0**power, f"{10.0**power:g} {unit}") for power in range(low, high + 1))
    return Scale(low=10.0**low, high=10.0**high, ticks=ticks, log=True)


def grid(scale: Scale, start: float, end: float, top: float, bottom: float, sparse: bool = False) -> list[Part]:
    """Upright lines at the ticks of an axis, named below."""
    ticks = scale.ticks[:: 2 if sparse and len(scale.ticks) > 4 else 1]
    parts = []
    for value, name in ticks:
        x = scale.place(value, start, end)
        parts += [line("grid", x, top, x, bottom), words(x, bottom + 15, name, "tick", "middle")]
    return parts
