"""How varied a set of texts is, in figures: of their vectors, and of their words. Every figure has bounded work."""

from __future__ import annotations

import gzip
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from corpusgen.curation.embed import Vectors, blocks, readable
from corpusgen.curation.lexical import words

VENDI_ROWS: Final = 2_000
"""Rows at most whose Vendi score is taken; of two sets, compare scores of equally many."""
TEXTS: Final = 5_000
"""Texts at most whose words are counted."""
REPEATED: Final = 4
"""Words in a row that count as repeating oneself when another text has them too."""


@dataclass(frozen=True, kw_only=True)
class Wording:
    """How far texts repeat each other's words. None where there are too few words to say."""

    distinct: float | None
    """Different pairs of neighbouring words over all such pairs; 1 when none comes twice."""
    compression: float | None
    """Bytes over bytes after gzip; the higher, the more alike the texts."""
    self_repetition: float | None
    """Share of texts that have four words in a row from another of them."""


def vendi(rows: Vectors) -> float:
    """How many different texts these are worth: 1 if all are equal, their number if all differ, 0 of none.

    The exponential of the entropy of their similarities' eigenvalues (Friedman & Dieng 2023), taken of the smaller of
    two matrices that have the same ones, and never of more than ``VENDI_ROWS`` rows.
    """
    few = rows[:VENDI_ROWS].astype(np.float64)
    if not len(few):
        return 0.0
    gram = few @ few.T if len(few) < few.shape[1] else few.T @ few
    shares = np.linalg.eigvalsh(gram / len(few))
    shares = shares[shares > 1e-12]
    return float(np.exp(-(shares * np.log(shares)).sum()))


def mean_nearest(rows: Vectors) -> float:
    """How far a text is from its nearest, on average (0 equal, 2 opposite); not a number of fewer than two."""
    few = rows[:VENDI_ROWS]
    if len(few) < 2:
        return math.nan
    like = few @ few.T
    np.fill_diagonal(like, -2)
    return float(np.sqrt(np.maximum(0, 2 - 2 * like.max(axis=1))).mean())


def radius(rows: Vectors, centres: Vectors) -> float:
    """How far the farthest row is from the centre nearest to it (0 equal, 2 opposite)."""
    if not len(rows) or not len(centres):
        return math.nan
    least = min(float(_closest(part, centres).min()) for part in blocks(rows, 2_048))
    return math.sqrt(max(0.0, 2 - 2 * least))


def _closest(rows: Vectors, centres: Vectors) -> npt.NDArray[np.float32]:
    best = np.full(len(rows), -2, np.float32)
    for some in blocks(centres, 2_048):
        np.maximum(best, (rows @ some.T).max(axis=1), out=best)
    return best


def wording(texts: Sequence[str]) -> Wording:
    """What the texts' words say of their variety."""
    told = [readable(text) for text in texts[:TEXTS]]
    split = [list(words(text)) for text in told]
    pairs = Counter(pair for one in split for pair in pairwise(one))
    raw = "\n".join(told).encode()
    return Wording(
        distinct=len(pairs) / pairs.total() if pairs else None,
        compression=len(raw) / len(gzip.compress(raw, 6, mtime=0)) if len(told) > 1 and raw.strip() else None,
        self_repetition=_self_repetition(split),
    )


def _self_repetition(split: Sequence[Sequence[str]]) -> float | None:
    runs = [{tuple(one[at : at + REPEATED]) for at in range(len(one) - REPEATED + 1)} for one in split]
    in_texts = Counter(run for text in runs for run in text)
    long = [text for text in runs if text]
    return sum(any(in_texts[run] > 1 for run in text) for text in long) / len(long) if len(long) > 1 else None
