"""Splits that share nothing: whatever belongs together, by source or by wording, goes into one of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import xxhash


@dataclass(kw_only=True)
class Groups:
    """Which texts belong together: those of one source item, those that were linked, and whatever follows from that.

    A text that was never linked takes no memory; each link takes one entry of a union-find forest (Tarjan 1975).
    """

    _above: dict[int, int] = field(default_factory=dict)

    def link(self, one: str, other: str) -> None:
        """Have two names in one group from now on, with everything in the groups of both."""
        roots = {self._root(_mark(one)), self._root(_mark(other))}
        if len(roots) == 2:
            # The smaller mark stays, so that the group has one name in whatever order the links came.
            self._above[max(roots)] = min(roots)

    def of(self, name: str) -> int:
        """The group of a name, the same for the same links in any order."""
        return self._root(_mark(name))

    def _root(self, mark: int) -> int:
        root = mark
        while (above := self._above.get(root)) is not None:
            root = above
        while mark != root:  # whoever was passed points at the top from now on
            self._above[mark], mark = root, self._above[mark]
        return root


def split_of(group: int, shares: Mapping[str, float], seed: int) -> str:
    """The split a group falls to, by its share: the same whatever else is in the dataset."""
    left = xxhash.xxh3_64_intdigest(group.to_bytes(8), seed=seed) / 2**64 * sum(shares.values())
    for name, share in shares.items():
        left -= share
        if left < 0:
            return name
    return max(shares, key=lambda name: shares[name])  # what rounding left over


def _mark(name: str) -> int:
    return xxhash.xxh3_64_intdigest(name.encode("utf-8", "surrogatepass"))
