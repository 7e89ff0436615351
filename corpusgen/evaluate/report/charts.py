"""The charts of the page: plain functions from facts to SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from corpusgen.evaluate.report.facts import (
    Confusion,
    CurvePoint,
    FunnelStep,
    HistogramBin,
    LearningCurve,
    Reliability,
    ReliabilityBin,
    Role,
)
from corpusgen.evaluate.report.svg import WIDE, Part, Scale, box, grid, line, mark, picture, share_scale, words
from corpusgen.evaluate.report.wording import count, edge, percent


@dataclass(frozen=True, kw_only=True)
class Point:
    """One mark of a dot row; ``words`` is written beside it, ``low`` and ``high`` are its whiskers."""

    value: float
    role: Role
    words: str
    low: float | None = None
    high: float | None = None
    hollow: bool = False

    @property
    def finite(self) -> bool:
        """False for a number that cannot be drawn."""
        return math.isfinite(self.value)


@dataclass(frozen=True, kw_only=True)
class Row:
    """A name and its marks."""

    name: str
    points: tuple[Point, ...]


@dataclass(frozen=True, kw_only=True)
class Meter:
    """Amounts side by side under a cap: (kind, amount) with kind ``settled``, ``unconfirmed`` or ``promised``."""

    name: str
    parts: tuple[tuple[str, float], ...]
    cap: float
    words: str
    cap_words: str


def dot_rows(name: str, title: str, description: str, rows: Sequence[Row], scale: Scale, width: int) -> str:
    """One line per row, marks on a shared axis, values written beside the marks."""
    above = width < WIDE
    start, end = (48.0, width - 56.0) if above else (name_room([row.name for row in rows]), width - 60.0)
    step, top = (52, 30) if above else (32, 18)
    bottom = top + step * (len(rows) - 1) + 18
    parts = grid(scale, start, end, top - 14, bottom, sparse=above)
    for index, row in enumerate(rows):
        y = top + step * index
        parts.append(
            words(0, y - 15, _short(row.name, 46), "name") if above else words(0, y + 4, _short(row.name, 28), "name")
        )
        parts.append(line("rail", start, y, end, y))
        parts += _dots(row.points, scale, start, end, y)
    return picture(name, title, description, width, bottom + 22, parts)


def _dots(points: Sequence[Point], scale: Scale, start: float, end: float, y: float) -> list[Part]:
    drawn = sorted((point for point in points if point.finite), key=lambda point: point.value)
    parts = [
        line(f"whisker {p.role}", scale.place(p.low, start, end), y, scale.place(p.high, start, end), y)
        for p in drawn
        if p.low is not None and p.high is not None
    ]
    if len(drawn) > 1:
        ends = [scale.place(point.value, start, end) for point in (drawn[0], drawn[-1])]
        parts.append(line("gap", ends[0], y, ends[1], y))
    parts += [mark(p.role, scale.place(p.value, start, end), y, p.hollow) for p in drawn]
    return parts + _beside(drawn, scale, start, end, y)


def _beside(drawn: Sequence[Point], scale: Scale, start: float, end: float, y: float) -> list[Part]:
    if not drawn:
        return [words(start, y + 4, "no figure", "tick")]
    last, first = drawn[-1], drawn[0]
    right = scale.place(last.value if last.high is None else max(last.high, last.value), start, end)
    parts = [words(right + 10, y + 4, last.words, f"value {last.role}")]
    if len(drawn) > 1:
        left = scale.place(first.value, start, end)
        parts.append(words(left - 10, y + 4, first.words, f"value {first.role}", "end"))
    return parts


def name_room(names: Sequence[str]) -> float:
    """How far from the left the names of rows reach, near enough."""
    return min(224.0, 7.0 * max(map(len, names), default=0) + 30)


def meters(name: str, title: str, description: str, rows: Sequence[Meter], width: int) -> str:
    """How much of each cap is used; a cap is the end of the track."""
    parts: list[Part] = []
    for index, row in enumerate(rows):
        y = 16 + index * 58
        reach = max(row.cap, sum(amount for _, amount in row.parts), 1e-9)
        parts += [words(0, y, row.name, "name"), words(width, y, row.cap_words, "tick", "end")]
        parts.append(box("track", 0, y + 7, width * row.cap / reach, 12))
        x = 0.0
        for kind, amount in row.parts:
            parts.append(box(kind, x, y + 7, width * amount / reach, 12))
            x += width * amount / reach
        parts.append(words(0, y + 34, row.words, "tick"))
    return picture(name, title, description, width, 58 * len(rows) + 2, parts)


def funnel(name: str, title: str, description: str, steps: Sequence[FunnelStep], width: int) -> str:
    """What is left after each step (dark), what the step took (light) and why."""
    above = width < WIDE
    start, end = (0.0, width - 64.0) if above else (name_room([step.name for step in steps]), width - 64.0)
    most = max((step.left + sum(loss.count for loss in step.losses) for step in steps), default=0) or 1
    parts: list[Part] = []
    y = 4.0
    for step in steps:
        y += 18 if above else 0
        parts.append(words(0, y - 4 if above else y + 14, _short(step.name, 28), "name"))
        parts += _funnel_bar(step, start, (end - start) / most, y)
        y += 20
        for loss in step.losses:
            verb = "set aside" if loss.set_aside else "dropped"
            parts.append(words(start, y + 11, f"− {count(loss.count)} {verb}: {loss.reason}", "tick"))
            y += 16
        y += 10
    return picture(name, title, description, width, y, parts)


def _funnel_bar(step: FunnelStep, start: float, per_item: float, y: float) -> list[Part]:
    kept = step.left * per_item
    lost = sum(loss.count for loss in step.losses) * per_item
    return [
        box("bar", start, y, kept, 18),
        box("lost", start + kept, y, lost, 18),
        words(start + kept + lost + 7, y + 14, count(step.left), "value"),
    ]


def reliability(name: str, facts: Reliability) -> str:
    """Stated confidence against the share that was right; on the diagonal, confidence can be believed."""
    side, left, top = 158.0, 38.0, 24.0
    floor = top + side
    scale = Scale(low=0, high=1, ticks=tuple((n / 2, percent(n / 2, 0)) for n in range(3)))
    drawn = [bin_ for bin_ in facts.bins if bin_.count and math.isfinite(bin_.confidence + bin_.accuracy)]
    parts = grid(scale, left, left + side, top, floor)
    for value, tick in scale.ticks:
        y = scale.place(value, floor, top)
        parts += [line("grid", left, y, left + side, y), words(left - 6, y + 4, tick if value else "", "tick", "end")]
    parts.append(line("diagonal", left, floor, left + side, top))
    parts += _reliability_marks(facts.role, drawn, left, floor, side) + _bin_counts(facts.bins, left, floor + 56, side)
    parts.append(words(0, 12, "↑ share that was right", "tick"))
    parts.append(words(left + side, floor + 76, "how sure it said it was →", "tick", "end"))
    told = "; ".join(f"{percent(b.confidence, 0)} sure, {percent(b.accuracy, 0)} right, {b.count} items" for b in drawn)
    return picture(name, f"Reliability of {facts.name}", told or "No items.", left + side + 18, floor + 82, parts)


def _reliability_marks(
    role: Role, bins: Sequence[ReliabilityBin], left: float, floor: float, side: float
) -> list[Part]:
    spots = [(left + side * bin_.confidence, floor - side * bin_.accuracy) for bin_ in bins]
    parts = []
    for bin_, (x, _) in zip(bins, spots, strict=True):
        low, high = wilson(bin_.accuracy, bin_.count)
        parts.append(line(f"whisker {role}", x, floor - side * low, x, floor - side * high))
    parts += [line(f"curve {role}", *one, *two) for one, two in pairwise(spots)]
    return parts + [mark(role, x, y, size=3.5) for x, y in spots]


def _bin_counts(bins: Sequence[ReliabilityBin], left: float, floor: float, side: float) -> list[Part]:
    most = max((bin_.count for bin_ in bins), default=0) or 1
    parts = [words(left - 6, floor - 1, "items", "tick", "end")]
    for bin_ in bins:
        tall = 30 * bin_.count / most
        parts.append(box("bar", left + side * bin_.low + 0.5, floor - tall, side * (bin_.high - bin_.low) - 1, tall))
    return parts


def wilson(share: float, items: int) -> tuple[float, float]:
    """The 95 % Wilson interval of a share counted on so many items."""
    if not items:
        return 0.0, 1.0
    z = 1.96
    middle = (share + z * z / (2 * items)) / (1 + z * z / items)
    reach = z * math.sqrt(share * (1 - share) / items + z * z / (4 * items * items)) / (1 + z * z / items)
    return max(0.0, middle - reach), min(1.0, middle + reach)


def confusion(name: str, facts: Confusion) -> str:
    """Rows are what is true, columns what was answered; the darker, the larger the share of its row."""
    size, left, top = 42.0, 84.0, 34.0 if _fits_across(facts.labels) else 74.0
    span = size * len(facts.labels)
    parts = [words(0, 11, "answered →", "tick"), words(left - 8, top - 8, "gold ↓", "tick", "end")]
    for at, label in enumerate(facts.labels):
        middle = size * (at + 0.5)
        parts.append(_column_name(label, left + middle, top - 8, _fits_across(facts.labels)))
        parts.append(words(left - 8, top + middle + 4, _short(label, 11), "tick", "end"))
    for gold, row in enumerate(facts.counts):
        for answered, number in enumerate(row):
            x, y = left + size * answered, top + size * gold
            parts += _cell(facts.role, x, y, size, number, number / (sum(row) or 1), gold == answered)
    hits, items = sum(row[at] for at, row in enumerate(facts.counts)), sum(map(sum, facts.counts))
    told = f"{count(hits)} of {count(items)} on the diagonal. The table below holds every count."
    return picture(name, f"Confusion matrix of {facts.name}", told, left + span + 2, top + span + 4, parts)


def _fits_across(labels: Sequence[str]) -> bool:
    return max(map(len, labels), default=0) <= 7


def _column_name(label: str, x: float, y: float, across: bool) -> Part:
    if across:
        return words(x, y, label, "tick", "middle")
    return f'<g transform="translate({x + 4:.1f} {y:.1f}) rotate(-50)">{words(0, 0, _short(label, 11), "tick")}</g>'


def _short(label: str, most: int) -> str:
    return label if len(label) <= most else label[: most - 1] + "…"


def _cell(role: Role, x: float, y: float, size: float, number: int, share: float, right: bool) -> list[Part]:
    if not number:
        return [box("empty", x + 1, y + 1, size - 2, size - 2)]
    kind = role if right else "wrong"
    strength = 0.12 + 0.88 * share if right else min(1.0, 0.04 + 4 * share)
    ink = "cell strong" if strength > 0.55 else "cell"
    return [
        box("empty", x + 1, y + 1, size - 2, size - 2),
        box(f"{kind} flat", x + 1, y + 1, size - 2, size - 2, strength),
        words(x + size / 2, y + size / 2 + 4, count(number), ink, "middle"),
    ]


@dataclass(frozen=True, kw_only=True)
class _Plane:
    """The drawing area of a line chart with both of its axes."""

    across: Scale
    up: Scale
    left: float
    right: float
    top: float
    floor: float

    def spot(self, x: float, y: float) -> tuple[float, float]:
        return self.across.place(x, self.left, self.right), self.up.place(y, self.floor, self.top)


def learning_curve(name: str, title: str, description: str, facts: LearningCurve, width: int) -> str:
    """Labels asked against agreement with the teacher and, measured afterwards, accuracy against gold."""
    plane = _curve_plane(facts, width)
    agreed = [plane.spot(point.labels, point.agreement) for point in facts.points]
    right = [plane.spot(p.labels, p.gold_accuracy) for p in facts.points if p.gold_accuracy is not None]
    parts = _curve_grid(plane) + _reference_lines(plane, facts)
    for kind, spots in (("curve student dashed", agreed), ("curve student", right)):
        parts += [line(kind, *one, *two) for one, two in pairwise(spots)]
    parts += [mark("student", x, y, hollow=True, size=4) for x, y in agreed]
    parts += [mark("student", x, y, size=4.5) for x, y in right]
    parts += _end_words(_curve_ends(plane, facts, ", gold" if width >= WIDE else ""), plane.right + 12)
    return picture(name, title, description, width, plane.floor + 42, parts)


def _curve_plane(facts: LearningCurve, width: int) -> _Plane:
    shares = [point.agreement for point in facts.points]
    shares += [point.gold_accuracy for point in facts.points if point.gold_accuracy is not None]
    shares += [share for share in (facts.teacher_accuracy, facts.target_accuracy) if share is not None]
    labels = sorted({point.labels for point in facts.points}) or [1]
    room = 168 if width >= WIDE else 120
    across = Scale(low=0, high=max(labels[-1], 1), ticks=tuple((label, count(label)) for label in labels))
    return _Plane(across=across, up=share_scale(shares), left=40, right=width - room, top=12, floor=262)


def _curve_grid(plane: _Plane) -> list[Part]:
    parts = []
    for value, tick in plane.up.ticks:
        y = plane.up.place(value, plane.floor, plane.top)
        parts += [line("grid", plane.left, y, plane.right, y), words(plane.left - 6, y + 4, tick, "tick", "end")]
    last = math.inf
    for value, tick in reversed(plane.across.ticks):
        x = plane.across.place(value, plane.left, plane.right)
        parts.append(line("axis", x, plane.floor, x, plane.floor + 4))
        if last - x >= 40:
            parts.append(words(x, plane.floor + 17, tick, "tick", "middle"))
            last = x
    parts.append(line("axis", plane.left, plane.floor, plane.right, plane.floor))
    return [*parts, words(plane.right, plane.floor + 36, "labels asked →", "tick", "end")]


def _reference_lines(plane: _Plane, facts: LearningCurve) -> list[Part]:
    levels = (("curve teacher", facts.teacher_accuracy), ("target", facts.target_accuracy))
    return [
        line(kind, *plane.spot(0, level), *plane.spot(plane.across.high, level))
        for kind, level in levels
        if level is not None
    ]


def _curve_ends(plane: _Plane, facts: LearningCurve, of: str) -> list[tuple[float, str, str]]:
    """(height, words, kind) of what is written at the right end of each line."""
    last: CurvePoint | None = facts.points[-1] if facts.points else None
    levels = [
        (facts.teacher_accuracy, f"teacher{of}", "value teacher"),
        (facts.target_accuracy, "aim", "tick"),
        (last.agreement if last else None, "agreement", "value student light"),
        (last.gold_accuracy if last else None, f"student{of}", "value student"),
    ]
    return [
        (plane.up.place(level, plane.floor, plane.top), f"{percent(level)} {what}", kind)
        for level, what, kind in levels
        if level is not None and math.isfinite(level)
    ]


def _end_words(ends: Sequence[tuple[float, str, str]], x: float) -> list[Part]:
    parts = []
    lowest = -math.inf
    for y, what, kind in sorted(ends):
        lowest = max(y, lowest + 16)
        parts.append(words(x, lowest + 4, what, kind))
    return parts


def histogram(name: str, title: str, description: str, bins: Sequence[HistogramBin], axis: str, width: int) -> str:
    """How many answers fall between two values."""
    left, top, tall = 14.0, 20.0, 120.0
    floor, wide = top + tall, (width - 2 * left) / max(1, len(bins))
    most = max((bin_.count for bin_ in bins), default=0) or 1
    parts: list[Part] = []
    for at, bin_ in enumerate(bins):
        height, x = tall * bin_.count / most, left + wide * at
        parts.append(box("bar", x + 1, floor - height, wide - 2 if height else 0, height))
        parts.append(words(x + wide / 2, floor - height - 5, count(bin_.count) if height else "", "tick", "middle"))
    edges = [bin_.low for bin_ in bins] + [bin_.high for bin_ in bins[-1:]]
    every = max(1, math.ceil(len(edges) * 44 / width))
    for at, value in list(enumerate(edges))[::every]:
        parts.append(words(left + wide * at, floor + 15, edge(value), "tick", "middle"))
    parts.append(line("axis", left, floor, width - left, floor))
    parts.append(words(width - left, floor + 33, axis, "tick", "end"))
    return picture(name, title, description, width, floor + 38, parts)
