"""How many items each value of a column may have, and who is still allowed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

Places = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Allowance:
    """For each row the group it counts for, and for each group how many items it may have."""

    groups: Places
    most: Places
    wanted: int
    remarks: tuple[str, ...] = ()

    def of(self, places: Places) -> Allowance:
        """The allowance of some of the rows."""
        return replace(self, groups=self.groups[places])

    def pooled(self, order: Places, size: int) -> Places:
        """The first rows in that order, so many; each group has as much of the pool as it has of the quota."""
        if len(order) <= size:
            return order
        if len(self.most) == 1:
            return order[:size]
        parts = [
            order[self.groups[order] == group][: -(-size * int(most) // self.wanted)]
            for group, most in enumerate(self.most.tolist())
        ]
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        ranks = rank[np.concatenate(parts)]
        others = np.setdiff1d(rank, ranks)[: max(0, size - len(ranks))]
        drawn: Places = order[np.sort(np.concatenate([ranks, others]))]
        return drawn

    def split(self, clusters: Places) -> Allowance:
        """Each group's items in equal parts for its clusters; what a small cluster leaves goes to the larger ones."""
        pairs, groups = np.unique(self.groups * (int(clusters.max(initial=0)) + 1) + clusters, return_inverse=True)
        sizes = np.bincount(groups, minlength=len(pairs))
        of_group = pairs // (int(clusters.max(initial=0)) + 1)
        most = np.zeros(len(pairs), np.int64)
        for group, allowed in enumerate(self.most.tolist()):
            mine = np.flatnonzero(of_group == group)
            most[mine] = level(sizes[mine], allowed)
        return replace(self, groups=groups.astype(np.int64), most=most)

    def room(self) -> Room:
        """A fresh count of who has had how much."""
        return Room(self)


class Room:
    """Who may still be chosen. When no group with room has a row left, all groups are opened."""

    def __init__(self, allowed: Allowance) -> None:
        self._groups = allowed.groups
        self._left = allowed.most.copy()
        self._rows_left = np.bincount(allowed.groups, minlength=len(self._left))
        self._shut = np.zeros(len(allowed.groups), np.bool_)
        self._taken = np.zeros(len(allowed.groups), np.bool_)
        for group in np.flatnonzero(self._left == 0).tolist():
            self._shut[self._groups == group] = True
        self._open_if_none()

    def open(self, score: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """The score, without that of rows that may not be chosen (minus infinity)."""
        return np.where(self._shut, np.float32(-np.inf), score)

    def may(self, rows: Places) -> npt.NDArray[np.bool_]:
        """Which of the rows may be chosen."""
        return np.logical_not(self._shut[rows])

    def has(self, row: int) -> bool:
        """Whether a row may be chosen."""
        return not self._shut[row]

    def take(self, row: int) -> None:
        """The row has been chosen."""
        group = self._groups[row]
        self._shut[row] = self._taken[row] = True
        self._left[group] -= 1
        self._rows_left[group] -= 1
        if self._left[group] == 0:
            self._shut[self._groups == group] = True
        if self._left[group] <= 0 or self._rows_left[group] == 0:
            self._open_if_none()

    def _open_if_none(self) -> None:
        if not ((self._left > 0) & (self._rows_left > 0)).any():
            self._shut = self._taken.copy()


def allowance(k: int, rows: int, strata: Sequence[str] | None, quotas: Mapping[str, float] | None) -> Allowance:
    """What each value may have of ``k``. Raises ValueError if quotas ask for more than there is to give."""
    if not quotas:
        return Allowance(groups=np.zeros(rows, np.int64), most=np.array([k], np.int64), wanted=k)
    if strata is None:
        raise ValueError(f"quotas for {', '.join(map(repr, quotas))} need strata: the value of each row")
    wanted = counts(k, quotas)
    number = {value: at for at, value in enumerate(wanted)}
    groups = np.fromiter((number.get(value, len(number)) for value in strata), np.int64, rows)
    most = np.array([*wanted.values(), k - sum(wanted.values())], np.int64)
    there = np.bincount(groups, minlength=len(most))
    named = [*map(repr, number), "every other value together"]
    short = [
        f"{name} was to have {most[at]} and the pool has {there[at]}: the rest went to others"
        for at, name in enumerate(named)
        if there[at] < most[at]
    ]
    return Allowance(groups=groups, most=most, wanted=k, remarks=tuple(short))


def counts(k: int, quotas: Mapping[str, float]) -> dict[str, int]:
    """Items for each value: below 1 a share of ``k``, else a number. Largest remainders make shares come out even."""
    for value, quota in quotas.items():
        if not quota > 0 or quota == float("inf") or (quota >= 1 and quota != int(quota)):
            raise ValueError(
                f"quota of {value!r} is {quota}; it must be a share above 0 and below 1, or a whole number"
            )
    exact = {value: k * quota if quota < 1 else float(quota) for value, quota in quotas.items()}
    if sum(exact.values()) > k * (1 + 1e-9):
        raise ValueError(f"quotas add up to {sum(exact.values()):g} of {k} items; lower them")
    given = {value: int(amount + 1e-9) for value, amount in exact.items()}
    spare = round(sum(exact.values())) - sum(given.values())
    for value in sorted(exact, key=lambda value: (given[value] - exact[value], value))[:spare]:
        given[value] += 1
    return given


def level(sizes: Places, total: int) -> Places:
    """As equal as can be: nobody more than its size, all together ``total`` (or all there is)."""
    given = np.zeros(len(sizes), np.int64)
    left = min(total, int(sizes.sum()))
    for rank, at in enumerate(np.argsort(sizes, kind="stable").tolist()):
        given[at] = min(int(sizes[at]), left // (len(sizes) - rank))
        left -= int(given[at])
    return given
