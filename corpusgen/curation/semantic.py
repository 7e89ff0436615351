"""Texts that may mean the same: each is compared with all before it, and what lies close is remarked upon.

A remark never drops anything: of two prompts that differ in a name, a transformer's vectors say much the same as of a
prompt and its paraphrase. Vectors of ``wording`` find texts that share their rare words, and hardly a paraphrase.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from corpusgen.curation.embed import Embedder, Vectors, checked
from corpusgen.curation.finding import Finding

MOST: Final = 100_000
"""Rows that are remembered: 150 MB of 384 numbers each."""
TILE: Final = 4_096
AT_ONCE: Final = 512

_REASONS: Final = {
    "meaning": "may mean the same as an earlier text",
    "wording": "shares its rarer words with an earlier text",
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """``flag``: least cosine similarity that is remarked upon, above 0 to 1, default .85.

    ``most``: texts that are remembered to compare later ones with, at least 1, default 100 000. Texts beyond are still
    compared with those; ``Lookalikes.forgotten`` counts them.
    """

    flag: float = 0.85
    most: int = MOST

    def __post_init__(self) -> None:
        if not 0 < self.flag <= 1:
            raise ValueError(f"flag is {self.flag}; it must be above 0 and at most 1")
        if self.most < 1:
            raise ValueError(f"most is {self.most}; it must be at least 1")


class Lookalikes:
    """The texts seen so far, as vectors; gives back what a new one comes close to."""

    def __init__(self, embedder: Embedder, settings: Settings | None = None) -> None:
        self._embedder = embedder
        self._settings = settings or Settings()
        self._rows = np.empty((0, embedder.dim), np.float32)
        self._names: list[str] = []
        self.forgotten = 0

    def look(self, ids: Sequence[str], texts: Sequence[str]) -> list[Finding | None]:
        """For each text a remark, if an earlier one, in this call or before, lies close; the closest is named."""
        return self.compare(ids, self._embedder.embed(texts))

    def compare(self, ids: Sequence[str], vectors: npt.NDArray[np.floating]) -> list[Finding | None]:
        """The same for vectors that are there already."""
        if len(ids) != len(vectors):
            raise ValueError(f"{len(ids)} ids for {len(vectors)} rows; give one for each")
        rows = checked(vectors, names=ids)
        found: list[Finding | None] = []
        for start in range(0, len(rows), AT_ONCE):
            found += self._block(ids[start : start + AT_ONCE], rows[start : start + AT_ONCE])
        return found

    def _block(self, ids: Sequence[str], rows: Vectors) -> list[Finding | None]:
        like, other = self._closest(rows)
        # Among themselves, only the earlier of two counts.
        own = np.tril(rows @ rows.T, -1)
        own[np.triu_indices(len(rows))] = -2
        own[:, max(0, self._settings.most - len(self._names)) :] = -2
        nearest = np.argmax(own, axis=1)
        found = []
        for at, name in enumerate(ids):
            best, whose = float(like[at]), self._names[other[at]] if self._names else ""
            if own[at, nearest[at]] > best:
                best, whose = float(own[at, nearest[at]]), ids[nearest[at]]
            found.append(self._remark(best, whose) if best >= self._settings.flag and whose != name else None)
        self._remember(ids, rows)
        return found

    def _closest(self, rows: Vectors) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        like, other = np.full(len(rows), -2, np.float32), np.zeros(len(rows), np.int64)
        for start in range(0, len(self._names), TILE):
            tile = rows @ self._rows[start : min(start + TILE, len(self._names))].T
            best = np.argmax(tile, axis=1)
            closer = tile[np.arange(len(rows)), best] > like
            like[closer] = tile[np.arange(len(rows)), best][closer]
            other[closer] = best[closer] + start
        return like, other

    def _remark(self, score: float, other: str) -> Finding:
        return Finding(
            check="semantic",
            kept=True,
            reason=_REASONS[self._embedder.measures],
            metric=f"cosine of {self._embedder.name} vectors",
            score=round(min(score, 1.0), 4),
            threshold=self._settings.flag,
            other=other,
        )

    def _remember(self, ids: Sequence[str], rows: Vectors) -> None:
        free = self._settings.most - len(self._names)
        self.forgotten += max(0, len(ids) - free)
        ids, rows = ids[:free], rows[:free]
        end = len(self._names) + len(ids)
        if end > len(self._rows):
            grown = np.empty((min(self._settings.most, max(end, 2 * len(self._rows))), self._embedder.dim), np.float32)
            grown[: len(self._names)] = self._rows[: len(self._names)]
            self._rows = grown
        self._rows[len(self._names) : end] = rows
        self._names += ids


def remarks(
    items: Iterable[tuple[str, str]], embedder: Embedder, settings: Settings | None = None
) -> Iterator[tuple[str, Finding]]:
    """The remarks on a stream of (id, text): which item, and what was found. Items without one are passed over."""
    seen = Lookalikes(embedder, settings)
    block: list[tuple[str, str]] = []
    for item in items:
        block.append(item)
        if len(block) == AT_ONCE:
            yield from _of(seen, block)
            block = []
    yield from _of(seen, block)


def _of(seen: Lookalikes, block: Sequence[tuple[str, str]]) -> Iterator[tuple[str, Finding]]:
    ids = [name for name, _ in block]
    for name, finding in zip(ids, seen.look(ids, [text for _, text in block]), strict=True):
        if finding is not None:
            yield name, finding
