"""The section on what the chosen items cover of their pool: a map, the holes by name, figures beside chance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from corpusgen.evaluate.report.facts import Coverage, CoverageHole, Spots, Variety
from corpusgen.evaluate.report.markup import Section, figure, folded, paragraph, table
from corpusgen.evaluate.report.svg import WIDE, Part, both, picture, words
from corpusgen.evaluate.report.wording import DASH, count, percent, plural, share_of, significant

LEGEND = 26.0
"""Room for one line of the legend."""
_LARGEST = 1e100
"""Lengths beyond it are no places on a map."""


def coverage(facts: Coverage | None) -> Section | None:
    """Map, holes and figures, or nothing when nothing was compared."""
    if facts is None:
        return None
    body = paragraph(_told(facts)) + _map(facts) + _holes(facts) + _figures(facts) + _strata(facts)
    return Section(anchor="coverage", short="Coverage", title="What the chosen items cover", body=body)


def _told(facts: Coverage) -> str:
    pool = facts.chosen.items + facts.passed_over
    return (
        f"{count(facts.chosen.items)} of {plural(pool, 'item')} were chosen. Cut into {plural(facts.parts, 'part')} of"
        f" like items, the pool was reached in {count(facts.chosen.parts_reached)}; as many items at random reach"
        f" {count(facts.random.parts_reached)}."
    )


def _map(facts: Coverage) -> str:
    left_out = len(facts.holes) + facts.more_holes
    found = (
        f"{plural(left_out, 'part')} of the pool left out, or nearly" if left_out else "No part of the pool left out"
    )
    caption = (
        f"Items that lie close are alike, compared by {facts.vectors or 'their vectors'}. A map has two directions and"
        f" shows {percent(facts.explained, 0)} of all differences, so what looks close may not be."
    )
    rows = [
        ("Chosen", count(facts.chosen.items), count(len(facts.chosen_at))),
        ("In the pool, not chosen", count(facts.passed_over), count(len(facts.passed_over_at))),
        ("Dropped before", count(facts.dropped), count(len(facts.dropped_at))),
        ("Held out for testing", count(facts.held_out), count(len(facts.held_out_at))),
    ]
    drawn = folded("The numbers", table(("Items", "Count", "Drawn"), rows))
    return figure(found, caption, both(partial(_chart, facts), "coverage-map"), drawn)


@dataclass(frozen=True, kw_only=True)
class _Plane:
    """How places on the map become places in the picture: both axes have one scale."""

    left: float
    bottom: float
    low_x: float
    low_y: float
    scale: float
    width: float
    height: float

    def spot(self, x: float, y: float) -> tuple[float, float]:
        return self.left + (x - self.low_x) * self.scale, self.bottom - (y - self.low_y) * self.scale


def _chart(facts: Coverage, width: int, name: str) -> Part:
    legend = _legend(facts, width)
    top = LEGEND * (1 + max((line for line, _, _, _ in legend), default=0))
    plane = _plane(facts, width, top)
    parts = [
        _marks("passed", facts.passed_over_at, plane, "h0"),
        _marks("dropped", facts.dropped_at, plane, "m-2.5-2.5l5 5m0-5l-5 5"),
        _marks("heldout", facts.held_out_at, plane, "m-3 0h6m-3-3v6"),
        _marks("chosen", facts.chosen_at, plane, "h0"),
        *(part for at, hole in enumerate(facts.holes) for part in _ring(at + 1, hole, plane)),
        *(part for line, x, mark, said in legend for part in (_sign(mark, x, line), _name(x, line, said))),
    ]
    told = "; ".join(_hole_told(at + 1, hole) for at, hole in enumerate(facts.holes)) or "No holes."
    title = f"{count(facts.chosen.items)} chosen items among {count(facts.passed_over)} that were not chosen"
    return picture(name, title, told, width, top + plane.height, parts)


def _plane(facts: Coverage, width: float, top: float) -> _Plane:
    """Room for all that is drawn, in the middle, between half and three quarters as high as wide."""
    spots = [*facts.chosen_at, *facts.passed_over_at, *facts.dropped_at, *facts.held_out_at]
    seen = [(x, y) for x, y in spots if _drawable(x, y)] or [(0.0, 0.0)]
    low_x, high_x = min(x for x, _ in seen), max(x for x, _ in seen)
    low_y, high_y = min(y for _, y in seen), max(y for _, y in seen)
    wide, high = max(high_x - low_x, 1e-9), max(high_y - low_y, 1e-9)
    shape = 1.0 if width < WIDE else 0.75
    height = width * min(shape, max(0.5, high / wide))
    scale = min((width - 24) / wide, (height - 24) / high)
    return _Plane(
        left=(width - wide * scale) / 2,
        bottom=top + height - (height - high * scale) / 2,
        low_x=low_x,
        low_y=low_y,
        scale=scale,
        width=width,
        height=height,
    )


def _drawable(*lengths: float) -> bool:
    """Whether these can be scaled to a page: numbers, and not so large that their differences or products are none."""
    return all(abs(length) < _LARGEST for length in lengths)


def _marks(kind: str, spots: Spots, plane: _Plane, shape: str) -> Part:
    """One path for all items of a kind: thousands of marks in few bytes."""
    placed = (plane.spot(x, y) for x, y in spots if _drawable(x, y))
    drawn = "".join(f"M{x:.1f} {y:.1f}{shape}" for x, y in placed)
    return f'<path class="dots {kind}" d="{drawn}"/>' if drawn else ""


def _ring(number: int, hole: CoverageHole, plane: _Plane) -> list[Part]:
    if not _drawable(hole.x, hole.y, hole.reach):
        return []
    x, y = plane.spot(hole.x, hole.y)
    size = min(plane.width / 12, max(11.0, hole.reach * plane.scale))
    return [
        f'<circle class="hole" cx="{x:.1f}" cy="{y:.1f}" r="{size:.1f}"/>',
        words(x, y + 5, str(number), "holename", "middle"),
    ]


def _legend(facts: Coverage, width: int) -> list[tuple[int, float, str, str]]:
    """(line, where, mark, words) of each kind that is on the map; lines are broken where the width ends."""
    kinds = (
        ("chosen", "chosen", facts.chosen_at),
        ("passed", "not chosen", facts.passed_over_at),
        ("dropped", "dropped before", facts.dropped_at),
        ("heldout", "held out", facts.held_out_at),
        ("hole", "left out, by number", facts.holes),
    )
    found, line, x = [], 0, 8.0
    for mark, said, there in kinds:
        if not there:
            continue
        room = 26 + 7.4 * len(said)
        if x > 8 and x + room > width:
            line, x = line + 1, 8.0
        found.append((line, x, mark, said))
        x += room
    return found


def _sign(mark: str, x: float, line: int) -> Part:
    y = 12 + LEGEND * line
    shapes = {"dropped": "m-2.5-2.5l5 5m0-5l-5 5", "heldout": "m-3 0h6m-3-3v6"}
    if mark == "hole":
        return f'<circle class="hole" cx="{x:.1f}" cy="{y:.1f}" r="6"/>'
    return f'<path class="dots {mark}" d="M{x:.1f} {y:.1f}{shapes.get(mark, "h0")}"/>'


def _name(x: float, line: int, said: str) -> Part:
    return words(x + 10, 16 + LEGEND * line, said, "tick")


def _hole_told(number: int, hole: CoverageHole) -> str:
    said = " ".join(hole.words) or "no telling words"
    return f"{number}: {said}, {count(hole.chosen)} of {plural(hole.items, 'item')} chosen"


def _holes(facts: Coverage) -> str:
    if not facts.holes:
        return ""
    pool = facts.chosen.items + facts.passed_over
    rows = [
        (f"{at + 1}: {', '.join(hole.words) or DASH}", count(hole.items), percent(share_of(hole.items, pool)),
         count(hole.chosen), ", ".join(hole.examples) or DASH)
        for at, hole in enumerate(facts.holes)
    ]  # fmt: skip
    more = f" {plural(facts.more_holes, 'smaller one is', 'smaller ones are')} not listed." if facts.more_holes else ""
    told = f"Parts of which nothing, or less than a quarter of their part, was chosen; the largest first.{more}"
    head = ("Hole and its words", "Items", "Of the pool", "Chosen", "Such as")
    return "<h3>What was left out</h3>" + paragraph(told) + table(head, rows, wordy=(0, 4), stacked=True)


def _figures(facts: Coverage) -> str:
    rows = [
        (name, _figure(facts.chosen, at), _figure(facts.random, at), better)
        for at, (name, better) in enumerate(_NAMES)
        if _figure(facts.chosen, at) != DASH
    ]
    head = ("Figure", "Chosen", "As many at random", "More varied is")
    return folded("How varied they are", table(head, rows, wordy=(0, 3)))


_NAMES = (
    ("Parts of the pool reached", "more"),
    ("Different items they are worth (Vendi score)", "more"),
    ("Mean distance to the nearest other", "more"),
    ("Distance of the pool’s farthest item", "less"),
    ("Different pairs of words", "more"),
    ("Shrink under gzip by the factor", "less"),
    ("Have four words in a row from another", "less"),
)


def _figure(of: Variety, at: int) -> str:
    """One figure of a set, by its place among the names above."""
    figures: tuple[str, ...] = (
        count(of.parts_reached),
        significant(of.vendi),
        significant(of.mean_nearest),
        significant(of.radius),
        _or_dash(of.distinct, percent),
        _or_dash(of.compression, significant),
        _or_dash(of.self_repetition, percent),
    )
    return figures[at]


def _or_dash(value: float | None, shown: Callable[[float], str]) -> str:
    return DASH if value is None else shown(value)


def _strata(facts: Coverage) -> str:
    if not facts.strata:
        return ""
    pool = sum(one.pool for one in facts.strata)
    rows = [
        (one.name, count(one.pool), percent(share_of(one.pool, pool)), count(one.chosen),
         percent(share_of(one.chosen, facts.chosen.items)))
        for one in facts.strata
    ]  # fmt: skip
    return folded("By kind", table(("Kind", "Pool", "Share", "Chosen", "Share"), rows))
