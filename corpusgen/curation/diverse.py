"""Choosing items that cover a pool: few that lie close together, none far from all that are chosen.

Three methods, all deterministic by seed and indifferent to the order of the items:

- ``k_center`` takes again and again what is farthest from everything chosen (Gonzalez 1985; Sener & Savarese 2018).
  It finds the rare and the odd, garbage first, so it runs after the quality filters.
- ``facility`` takes what brings most items closer to a chosen one (Mirzasoleiman et al. 2015): the typical first.
- ``clusters`` gives each of many clusters of the pool an equal part and draws in it by chance.

Work is bounded by a pool: of more rows than that, so many are drawn at random (by weight, if there are weights).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from corpusgen.curation.clusters import clustered
from corpusgen.curation.embed import Vectors, blocks, checked
from corpusgen.curation.lots import lots, row_lots
from corpusgen.curation.quotas import Allowance, Room, allowance

Method: TypeAlias = Literal["k_center", "facility", "clusters"]
Numbers: TypeAlias = npt.NDArray[np.float32]
Places: TypeAlias = npt.NDArray[np.int64]

POOL: Final = 20_000
POOL_PER_ITEM: Final = 20
"""The pool is at least ``POOL`` rows and at least so many for each item that is wanted."""
AHEAD: Final = 32
"""Likely next choices whose similarities to all rows are computed together, which reads the rows once for all."""
WITNESSES: Final = 2_000
"""Rows, drawn at random, that say how central (``facility``) or how far off (``trim``) another is."""
SAME: Final = 1e-6
"""Squared distance of two rows up to which they are the same item."""


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """Which items were chosen, the most telling first.

    ``radius`` is, after each choice, how far (0 the same, 2 opposite) the pool's farthest row is from all that is
    chosen or kept; it is empty where all rows were taken and nothing was compared.
    """

    positions: tuple[int, ...]
    radius: tuple[float, ...]
    remarks: tuple[str, ...] = ()
    pool: int = 0
    """Rows that were looked at."""


@dataclass(frozen=True, kw_only=True)
class _Field:
    """The pool in an order of its own: places among all rows, the rows, how much each weighs, its allowance."""

    places: Places
    rows: Vectors
    weights: Numbers
    allowed: Allowance


def choose(
    vectors: npt.NDArray[np.floating],
    k: int,
    *,
    seed: int,
    kept: npt.NDArray[np.floating] | None = None,
    strata: Sequence[str] | None = None,
    quotas: Mapping[str, float] | None = None,
    weights: Sequence[float] | npt.NDArray[np.floating] | None = None,
    ids: Sequence[str] | None = None,
    method: Method = "k_center",
    pool: int | None = None,
    trim: float = 0.0,
) -> Chosen:
    """``k`` of the rows, chosen so that they cover all; far from each other and from what is ``kept`` already.

    ``quotas`` gives values of ``strata`` (one a row) their part of ``k``: below 1 a share, else a number; the other
    values share the rest. What a value cannot fill goes to the others, with a remark. ``weights`` (0 or more, default
    1) multiply a row's distance or gain. ``ids`` decide between equals; without them, equal rows are interchangeable.
    ``pool`` bounds the rows looked at (default: 20 for each wanted, at least 20 000). ``trim`` is the share of the
    pool, farthest from everything else, that is not chosen (0 to 0.5). ``k`` above the number of rows takes all.
    Raises ValueError for rows that are no directions (it names the first), and for values outside their range.
    """
    _check(vectors, k, strata, weights, ids, pool, trim)
    allowed = allowance(k, len(vectors), strata, quotas)
    if k == 0 or not len(vectors):
        short = (f"{k} were wanted of an empty pool",) if k else ()
        return Chosen(positions=(), radius=(), remarks=short)
    rows = checked(vectors, names=ids)
    heavy = np.ones(len(rows), np.float32) if weights is None else np.asarray(weights, np.float32)
    order = _drawing_order(row_lots(rows, seed) if ids is None else lots(ids, seed), heavy)
    if k >= len(rows):
        more = (f"{k} were wanted and there are {len(rows)}: all were taken",) if k > len(rows) else ()
        return Chosen(positions=tuple(order.tolist()), radius=(), remarks=more, pool=len(rows))
    # One thread: sums in another order differ in their last bits, and the number of processors decides the order.
    with threadpool_limits(limits=1):
        places = allowed.pooled(order, _pool_size(k, pool))
        places = places[_inliers(rows[places], trim, k)] if trim else places
        field = _Field(places=places, rows=rows[places], weights=heavy[places], allowed=allowed.of(places))
        near = _nearest(field.rows, kept)
        found, radius = _METHODS[method](field, k, near, seed)
    return Chosen(
        positions=tuple(places[found].tolist()),
        radius=radius,
        remarks=(*allowed.remarks, *_remarks(found, field, k)),
        pool=len(places),
    )


def pool_of(
    ids: Sequence[str],
    k: int,
    *,
    seed: int,
    strata: Sequence[str] | None = None,
    quotas: Mapping[str, float] | None = None,
    weights: Sequence[float] | npt.NDArray[np.floating] | None = None,
    pool: int | None = None,
) -> tuple[int, ...]:
    """The rows ``choose`` would look at, by their ids: of a large pool, only these need vectors.

    Choosing among them with the same seed, settings and ids is choosing among all.
    """
    heavy = np.ones(len(ids), np.float32) if weights is None else np.asarray(weights, np.float32)
    allowed = allowance(k, len(ids), strata, quotas)
    order = _drawing_order(lots(ids, seed), heavy)
    return tuple(order.tolist() if k >= len(ids) else allowed.pooled(order, _pool_size(k, pool)).tolist())


def _pool_size(k: int, pool: int | None) -> int:
    return pool or max(POOL, POOL_PER_ITEM * k)


def _k_center(field: _Field, k: int, near: Numbers, seed: int) -> tuple[list[int], tuple[float, ...]]:
    """Farthest first. ``near`` is each row's highest similarity to what is kept, and is brought up to date."""
    found: list[int] = []
    radius: list[float] = []
    ahead: dict[int, Numbers] = {}
    room = field.allowed.room()
    while len(found) < min(k, len(field.rows)):
        score = room.open(field.weights * _distance(near))
        at = int(np.argmax(score))
        if at not in ahead:
            likely = np.argpartition(-score, min(AHEAD, len(score)) - 1)[:AHEAD].tolist()
            likely = sorted({at, *likely})
            ahead = dict(zip(likely, np.ascontiguousarray((field.rows @ field.rows[likely].T).T), strict=True))
        np.maximum(near, ahead.pop(at), out=near)
        near[at] = 1
        room.take(at)
        found.append(at)
        radius.append(float(_distance(near.min(keepdims=True))[0]))
    return found, tuple(radius)


def _facility(field: _Field, k: int, near: Numbers, seed: int) -> tuple[list[int], tuple[float, ...]]:
    """Of a few rows drawn at random, again and again the one that brings the witnesses closest to a chosen one."""
    draw = np.random.Generator(np.random.PCG64(seed & (2**64 - 1)))
    witnesses = np.sort(draw.permutation(len(field.rows))[:WITNESSES])
    among, served = field.rows[witnesses], near[witnesses].copy()
    few = max(8, round(np.log(20) * len(field.rows) / k))
    found: list[int] = []
    radius: list[float] = []
    room = field.allowed.room()
    while len(found) < min(k, len(field.rows)):
        asked = _asked(room, len(field.rows), few, draw)
        like = field.rows[asked] @ among.T
        gains = np.maximum(like - served, 0).sum(axis=1) * field.weights[asked]
        best = int(np.argmax(gains))
        np.maximum(served, like[best], out=served)
        room.take(int(asked[best]))
        found.append(int(asked[best]))
        radius.append(float(_distance(served.min(keepdims=True))[0]))
    return found, tuple(radius)


def _asked(room: Room, rows: int, few: int, draw: np.random.Generator) -> Places:
    """A few rows that may be chosen, drawn at random."""
    if few < rows:
        some = np.unique(draw.integers(0, rows, few))
        some = some[room.may(some)]
        if len(some):
            return some
    every = np.arange(rows)
    every = every[room.may(every)]
    return np.sort(every[draw.permutation(len(every))[:few]])


def _by_cluster(field: _Field, k: int, near: Numbers, seed: int) -> tuple[list[int], tuple[float, ...]]:
    """The rows as they were drawn, in equal parts for clusters, within each stratum that has a quota.

    Of what is kept, only copies are known: they come last.
    """
    room = field.allowed.split(clustered(field.rows, min(256, max(2, round(k**0.5 * 2))), seed=seed).of_row).room()
    found: list[int] = []
    while len(found) < min(k, len(field.rows)):
        before = len(found)
        for at in np.argsort(near > 1 - SAME / 2, kind="stable").tolist():
            if len(found) < k and room.has(at):
                room.take(at)
                found.append(at)
        if len(found) == before:
            break
    return found, ()


_METHODS: Final[Mapping[Method, Callable[[_Field, int, Numbers, int], tuple[list[int], tuple[float, ...]]]]] = {
    "k_center": _k_center,
    "facility": _facility,
    "clusters": _by_cluster,
}


def _drawing_order(tickets: npt.NDArray[np.uint64], weights: Numbers) -> Places:
    """Heavier rows tend to come sooner (Efraimidis & Spirakis 2006); with equal weights it is the order of the lots."""
    uniform = (tickets.astype(np.float64) + 1) / 2.0**64
    with np.errstate(divide="ignore"):
        late = np.where(weights > 0, -np.log(np.minimum(uniform, 1)) / np.maximum(weights, 1e-30), np.inf)
    return np.lexsort((tickets, late))


def _nearest(rows: Vectors, kept: npt.NDArray[np.floating] | None) -> Numbers:
    """The highest similarity of each row to what is kept; -1, as far as can be, when nothing is."""
    near = np.full(len(rows), -1, np.float32)
    if kept is None or not len(kept):
        return near
    if kept.ndim != 2 or kept.shape[1] != rows.shape[1]:
        raise ValueError(
            f"kept rows have shape {kept.shape}, the pool's have {rows.shape[1]} numbers: other embedders?"
        )
    known = checked(kept, "kept row")
    known = known[np.argsort(row_lots(known, 0), kind="stable")]
    for part in blocks(known, 1_024):
        np.maximum(near, (rows @ part.T).max(axis=1), out=near)
    return near


def _inliers(rows: Vectors, trim: float, k: int) -> Places:
    """The rows without the share that is farthest from its fifth-nearest witness; never fewer than are wanted."""
    witnesses = rows[:WITNESSES]
    fifth = min(6, len(witnesses))
    like = [np.partition(part @ witnesses.T, -fifth, axis=1)[:, -fifth] for part in blocks(rows, 1_024)]
    left = max(min(k, len(rows)), len(rows) - round(trim * len(rows)))
    return np.sort(np.argsort(-np.concatenate(like), kind="stable")[:left])


def _distance(similarity: Numbers) -> Numbers:
    squared = 2 - 2 * similarity
    return np.sqrt(np.where(squared < SAME, 0, squared), dtype=np.float32)


def _remarks(found: Sequence[int], field: _Field, k: int) -> list[str]:
    repeats = len(found) - len(np.unique(row_lots(field.rows[found], 0)))
    told = [f"{repeats} of the chosen are equal to another: the pool has no more that differ"] if repeats else []
    if len(found) < k:
        told.append(f"{k} were wanted and {len(found)} could be chosen of a pool of {len(field.rows)}")
    return told


def _check(
    vectors: npt.NDArray[np.floating],
    k: int,
    strata: Sequence[str] | None,
    weights: Sequence[float] | npt.NDArray[np.floating] | None,
    ids: Sequence[str] | None,
    pool: int | None,
    trim: float,
) -> None:
    for name, column in (("strata", strata), ("weights", weights), ("ids", ids)):
        if column is not None and len(column) != len(vectors):
            raise ValueError(f"{len(column)} {name} for {len(vectors)} rows; give one for each")
    if k < 0:
        raise ValueError(f"k is {k}; it must be 0 or more")
    if not 0 <= trim <= 0.5:
        raise ValueError(f"trim is {trim}; it must be from 0 to 0.5")
    if pool is not None and pool < k:
        raise ValueError(f"pool is {pool}, fewer than the {k} wanted; leave it out or make it larger")
    if weights is not None:
        heavy = np.asarray(weights, np.float64)
        bad = np.flatnonzero(~np.isfinite(heavy) | (heavy < 0))
        if len(bad):
            raise ValueError(f"weight {int(bad[0])} is {heavy[bad[0]]}; weights must be numbers of 0 or more")
