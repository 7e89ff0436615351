"""All texts that repeat each other, not only what repeats a kept one: for splits that nothing may cross."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from corpusgen.curation.buckets import BANDS, Keys, band_keys
from corpusgen.curation.minhash import least_hashes
from corpusgen.curation.near import AT_ONCE, NearIndex
from corpusgen.curation.shingles import words

BACK = 16
"""Texts before it in a bucket with which a text is compared; a chain of repeats is linked all the same."""


def band_rows(texts: Sequence[str]) -> Keys:
    """The keys of the 42 bands of each text (n x 42), 168 bytes a text."""
    parts = [
        band_keys(least_hashes([words(text) for text in texts[begin : begin + AT_ONCE]]))
        for begin in range(0, len(texts), AT_ONCE)
    ]
    return np.concatenate(parts) if parts else np.empty((0, BANDS), np.uint32)


def repeating(
    keys: Keys,
    text_of: Callable[[int], str],
    *,
    linked: Callable[[int, int], bool] = lambda one, other: False,
    threshold: float = 0.64,
) -> Iterator[tuple[int, int]]:
    """Pairs of texts, by position, of which check and guard call one a repeat of the other.

    Every text is compared with those before it that share a band with it; pairs for which ``linked`` says that they are
    known to belong together are passed over.
    """
    index = NearIndex(text_of=text_of, threshold=threshold)
    seen: set[tuple[int, int]] = set()
    for band in range(keys.shape[1]):
        for one, other in _neighbours(keys[:, band]):
            if (one, other) in seen or linked(one, other):
                continue
            seen.add((one, other))
            if index.repeats(text_of(other), text_of(one)):
                yield one, other


def _neighbours(keys: npt.NDArray[np.uint32]) -> Iterator[tuple[int, int]]:
    """Positions with the same key, each with at most ``BACK`` before it."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    for back in range(1, min(BACK, len(keys) - 1) + 1):
        same = np.flatnonzero(ordered[back:] == ordered[:-back])
        if not len(same):
            return
        yield from zip(order[same].tolist(), order[same + back].tolist(), strict=True)
