"""What the chosen items cover of their pool, and what they leave out: a map, figures, and the holes by name."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from corpusgen.curation.clusters import Clusters, clustered
from corpusgen.curation.embed import Vectors, checked, readable
from corpusgen.curation.lexical import words
from corpusgen.curation.lots import lots
from corpusgen.curation.spread import TEXTS, VENDI_ROWS, Wording, mean_nearest, radius, vendi, wording

State: TypeAlias = Literal["chosen", "passed_over", "dropped", "held_out"]
"""``passed_over`` were in the pool and not chosen; ``dropped`` were thrown out before; ``held_out`` are for testing."""

STATES: Final[tuple[State, ...]] = ("chosen", "passed_over", "dropped", "held_out")
Places: TypeAlias = npt.NDArray[np.int64]

SPOTS: Final = 3_000
"""Points at most on the map; up to a third of them are chosen items."""
LEAST_SPOTS: Final = 150
"""Points at least of each other state, if it has so many."""
ROWS: Final = 20_000
"""Rows at most that decide the map's axes and the clusters' words."""
FEW: Final = 0.25
"""A cluster is a hole when its items were chosen a quarter as often as the pool's on average, or not at all."""
LEAST_DUE: Final = 4
"""Of how many items that would have been the cluster's part that can be said."""
HOLES: Final = 12
TELLING: Final = 5
EXAMPLES: Final = 3
PAIRS: Final = 40_000_000
"""Pairs of items at most that are compared for a radius."""


@dataclass(frozen=True, kw_only=True)
class Spot:
    """An item's place on the map."""

    x: float
    y: float
    state: State


@dataclass(frozen=True, kw_only=True)
class Hole:
    """A part of the pool of which nothing, or little, was chosen; where it lies, its words, and some of its items."""

    words: tuple[str, ...]
    items: int
    chosen: int
    x: float
    y: float
    reach: float
    """Mean distance of its items from its middle, on the map."""
    examples: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Figures of a set of items; not a number where there are too few to say. Distances are from 0 (equal) to 2."""

    items: int
    vendi: float
    mean_nearest: float
    radius: float
    """How far the pool's farthest item is from the nearest in the set."""
    clusters_hit: int
    wording: Wording


@dataclass(frozen=True, kw_only=True)
class Stratum:
    """How many of a value's items are in the pool, and how many were chosen."""

    name: str
    pool: int
    chosen: int


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """What the chosen items cover of the pool (all chosen and passed over), beside as many drawn at random."""

    spots: tuple[Spot, ...]
    counts: Mapping[State, int]
    explained: float
    """Share of the vectors' variance that the map's two axes show."""
    clusters: int
    holes: tuple[Hole, ...]
    more_holes: int
    chosen: Spread
    random: Spread
    strata: tuple[Stratum, ...]
    vectors: str
    """The embedder's name."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Items:
    """All items in an order of their own; states by their number in ``STATES``."""

    rows: Vectors
    states: Places
    ids: Sequence[str]
    texts: Sequence[str]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Plane:
    """Two axes, the middle they start from, and the share of the variance they show."""

    middle: npt.NDArray[np.float64]
    axes: npt.NDArray[np.float64]
    explained: float

    def place(self, rows: Vectors) -> npt.NDArray[np.float64]:
        placed: npt.NDArray[np.float64] = (rows.astype(np.float64) - self.middle) @ self.axes.T
        return placed


def coverage(
    vectors: npt.NDArray[np.floating],
    states: Sequence[State],
    ids: Sequence[str],
    texts: Sequence[str],
    *,
    strata: Sequence[str] | None = None,
    clusters: int | None = None,
    seed: int = 1,
    embedder: str = "",
) -> Coverage:
    """What was chosen of these items and what is missing. The same items in another order give the same figures.

    ``clusters`` is how many parts the pool is cut into to look for holes (default: by its size, 2 to 100).
    Raises ValueError for rows that are no directions, and where an item lacks its state, id or text.
    """
    for name, column in (("states", states), ("ids", ids), ("texts", texts), ("strata", strata)):
        if column is not None and len(column) != len(vectors):
            raise ValueError(f"{len(column)} {name} for {len(vectors)} rows; give one for each")
    unknown = set(states) - set(STATES)
    if unknown:
        raise ValueError(f"state {min(unknown)!r} is none of {', '.join(STATES)}")
    rows = checked(vectors, names=ids)
    order = np.lexsort((np.arange(len(ids)), lots(ids, seed))).tolist()
    items = _Items(
        rows=rows[order],
        states=np.array([STATES.index(states[at]) for at in order], np.int64),
        ids=[ids[at] for at in order],
        texts=[texts[at] for at in order],
    )
    # One thread: sums in another order differ in their last bits, and the number of processors decides the order.
    with threadpool_limits(limits=1):
        found = _covered(items, clusters, seed)
    return replace(found, vectors=embedder, strata=() if strata is None else _strata(strata, states))


def _covered(items: _Items, clusters: int | None, seed: int) -> Coverage:
    pool = np.flatnonzero(items.states <= 1)
    chosen = np.flatnonzero(items.states == 0)
    rows = items.rows[pool]
    number = clusters or min(100, max(2, round(math.sqrt(len(pool)) / 2)))
    parts = clustered(rows, number, seed=seed)
    plane = _plane(rows[:ROWS] if len(rows) else items.rows[:ROWS])
    hit = np.bincount(parts.of_row[items.states[pool] == 0], minlength=len(parts.centres))
    holes = _holes(items, pool, parts, hit, plane)
    return Coverage(
        spots=_spots(items, plane),
        counts={state: int((items.states == at).sum()) for at, state in enumerate(STATES)},
        explained=plane.explained,
        clusters=len(parts.centres),
        holes=tuple(holes[:HOLES]),
        more_holes=max(0, len(holes) - HOLES),
        chosen=_spread(items, chosen, rows, int((hit > 0).sum())),
        random=_spread(items, pool[: len(chosen)], rows, len(np.unique(parts.of_row[: len(chosen)]))),
        strata=(),
        vectors="",
    )


def _strata(strata: Sequence[str], states: Sequence[State]) -> tuple[Stratum, ...]:
    """The values of the pool, the commonest first."""
    pool = Counter(value for value, state in zip(strata, states, strict=True) if state in STATES[:2])
    chosen = Counter(value for value, state in zip(strata, states, strict=True) if state == "chosen")
    by_size = sorted(pool, key=lambda value: (-pool[value], value))
    return tuple(Stratum(name=value, pool=pool[value], chosen=chosen[value]) for value in by_size)


def _spread(items: _Items, places: Places, pool: Vectors, hit: int) -> Spread:
    rows = items.rows[places]
    compared = min(ROWS, max(VENDI_ROWS, PAIRS // max(1, len(rows))))
    return Spread(
        items=len(places),
        vendi=vendi(rows),
        mean_nearest=mean_nearest(rows),
        radius=radius(pool[:compared], rows),
        clusters_hit=hit,
        wording=wording([items.texts[at] for at in places[:TEXTS].tolist()]),
    )


def _plane(rows: Vectors) -> _Plane:
    """The two directions in which the rows differ most; their signs go by the axis's largest number."""
    wide = rows.astype(np.float64)
    middle = wide.mean(axis=0) if len(wide) else np.zeros(rows.shape[1])
    wide -= middle
    strengths, axes = np.linalg.eigh(wide.T @ wide)
    two = np.zeros((2, rows.shape[1]))
    two[: min(2, len(axes))] = axes.T[::-1][:2]
    largest = two[np.arange(2), np.argmax(np.abs(two), axis=1)]
    two *= np.where(largest < 0, -1, 1)[:, None]
    total = float(strengths.sum())
    return _Plane(middle=middle, axes=two, explained=float(strengths[-2:].sum()) / total if total > 1e-9 else 0.0)


def _spots(items: _Items, plane: _Plane) -> tuple[Spot, ...]:
    """A bounded number of items of every state, drawn at random; the pool's first, so that the chosen lie on top."""
    places = [np.flatnonzero(items.states == at) for at in range(len(STATES))]
    left = SPOTS - SPOTS // 3 - LEAST_SPOTS * (len(STATES) - 1)
    scale = left / max(left, len(items.rows) - len(places[0]))
    spots = []
    for at in (1, 2, 3, 0):
        some = places[at][: max(LEAST_SPOTS, int(scale * len(places[at]))) if at else SPOTS // 3]
        spots += [Spot(x=x, y=y, state=STATES[at]) for x, y in plane.place(items.rows[some]).round(4).tolist()]
    return tuple(spots)


def _holes(items: _Items, pool: Places, parts: Clusters, hit: Places, plane: _Plane) -> list[Hole]:
    """The clusters that were left out, the largest first."""
    sizes = np.bincount(parts.of_row, minlength=len(parts.centres))
    due = sizes * hit.sum() / max(1, len(pool))
    left_out = np.flatnonzero((sizes > 0) & ((hit == 0) | ((due >= LEAST_DUE) & (hit < FEW * due))))
    left_out = left_out[np.argsort(-sizes[left_out], kind="stable")]
    said = _telling([items.texts[at] for at in pool[:ROWS].tolist()], parts.of_row[:ROWS], left_out.tolist())
    return [_hole(items, pool[parts.of_row == at], parts.centres[at], int(hit[at]), said[at], plane)
            for at in left_out.tolist()]  # fmt: skip


def _hole(items: _Items, members: Places, centre: Vectors, chosen: int, said: tuple[str, ...], plane: _Plane) -> Hole:
    rows = items.rows[members]
    typical = members[np.argsort(-(rows @ centre), kind="stable")[:EXAMPLES]]
    placed = plane.place(rows)
    middle = placed.mean(axis=0)
    return Hole(
        words=said,
        items=len(members),
        chosen=chosen,
        x=round(float(middle[0]), 4),
        y=round(float(middle[1]), 4),
        reach=round(float(np.linalg.norm(placed - middle, axis=1).mean()), 4),
        examples=tuple(items.ids[at] for at in typical.tolist()),
    )


def _telling(texts: Sequence[str], of_text: Places, wanted: Sequence[int]) -> dict[int, tuple[str, ...]]:
    """The words that tell some clusters from all others (class-based TF-IDF, Grootendorst 2022)."""
    with_word: dict[int, Counter[str]] = {}
    overall: Counter[str] = Counter()
    sizes = np.bincount(of_text, minlength=max(wanted, default=0) + 1).tolist()
    for text, cluster in zip(texts, of_text.tolist(), strict=True):
        said = {word for word in words(readable(text)) if len(word) > 1 and not word.isdecimal()}
        overall.update(said)
        with_word.setdefault(cluster, Counter()).update(said)
    average = overall.total() / max(1, len(with_word))
    return {
        at: _first_words(with_word.get(at, Counter()), overall, sizes[at], len(texts) - sizes[at], average)
        for at in wanted
    }


def _first_words(
    here: Counter[str], overall: Counter[str], inside: int, outside: int, average: float
) -> tuple[str, ...]:
    """Frequent here and rare on the whole; words that are not twice as frequent here as elsewhere tell nothing."""
    score = {
        word: -number * math.log1p(average / overall[word])
        for word, number in here.items()
        if number * outside >= 2 * (overall[word] - number) * inside
    }
    return tuple(sorted(score, key=lambda word: (score[word], word))[:TELLING])
