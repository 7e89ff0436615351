"""Vectors of the words a text is made of: no model, no download; texts are near that share rare words.

Hashed words and pairs of words, weighted by how rare they are, brought to few numbers by an SVD that is learnt from a
bounded sample. Where a script writes no spaces, runs of two and three characters stand for words. Such vectors see
wording, not meaning: *same template, other name* lies closer than a paraphrase.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.utils.extmath import randomized_svd
from threadpoolctl import threadpool_limits

from corpusgen.curation.embed import AT_ONCE, Vectors, readable
from corpusgen.curation.lots import drawn

Sparse: TypeAlias = "csr_matrix[np.float32]"

SAMPLE: Final = 20_000
"""Texts at most from which the directions are learnt."""
LEARN: Final = 2_000
"""Characters of each from which they are learnt, so that learning from long texts takes seconds."""
FEATURES: Final = 2**14
DIM: Final = 192
"""Directions learnt; the rows have one number more, for texts that share nothing with the sample."""

_WORD = re.compile(r"\w+")
_SPACELESS = re.compile(
    r"[\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]+"
)
"""Thai, Lao, Tibetan, Burmese, Khmer, Japanese and Chinese: scripts that write no spaces between words."""


def words(text: str) -> Iterator[str]:
    """The words of a text, lower case; two and three characters at a time where a script writes no spaces."""
    for word in _WORD.findall(text.lower()):
        if word.isascii() or not _SPACELESS.search(word):
            yield word
            continue
        for run in _SPACELESS.findall(word):
            yield from (run[at : at + size] for size in (2, 3) for at in range(max(1, len(run) - size + 1)))
        yield from filter(None, _SPACELESS.split(word))


def terms(text: str) -> list[str]:
    """Words and pairs of neighbouring words."""
    found = list(words(readable(text)))
    return found + [f"{one} {two}" for one, two in pairwise(found)]


@dataclass(frozen=True, kw_only=True, eq=False)
class Lexical:
    """What ``learnt`` has learnt: how rare each term is, and the directions in which texts of the sample differ."""

    digest: str
    rarity: npt.NDArray[np.float32]
    directions: npt.NDArray[np.float32]

    name: str = "hashed words"
    measures: Literal["wording", "meaning"] = "wording"

    @property
    def dim(self) -> int:
        """Directions, and one for texts that have none of them."""
        return len(self.directions) + 1

    def embed(self, texts: Sequence[str]) -> Vectors:
        rows = np.zeros((len(texts), self.dim), np.float32)
        for start in range(0, len(texts), AT_ONCE):
            found = _weighted(_counts(texts[start : start + AT_ONCE]), self.rarity) @ self.directions.T
            lengths = np.linalg.norm(found, axis=1, keepdims=True)
            block = rows[start : start + AT_ONCE]
            # A text without a word of the sample is like no other text but those that have none either.
            block[:, -1] = lengths[:, 0] < 1e-6
            block[:, :-1] = np.where(lengths < 1e-6, 0, found / np.maximum(lengths, 1e-6))
        return rows


def learnt(texts: Iterable[str], *, seed: int = 1, dim: int = DIM, sample: int = SAMPLE) -> Lexical:
    """An embedder for texts like these; they may be a stream, of which a bounded sample is held.

    The sample goes by the texts, not by their order, and one text counts once. ValueError if there is none.
    """
    if dim < 1 or sample < 1:
        raise ValueError(f"dim is {dim} and sample {sample}; both must be at least 1")
    chosen = drawn((text[:LEARN] for text in texts), sample, seed)
    if not chosen:
        raise ValueError("no text to learn vectors from; the pool is empty")
    counts = _counts(chosen)
    rarity = _rarity(counts)
    # One thread: sums in another order differ in their last bits, and the number of processors decides the order.
    with threadpool_limits(limits=1):
        wanted = min(dim, len(chosen))
        _, _, directions = randomized_svd(_weighted(counts, rarity), wanted, random_state=seed % 2**32, n_iter=4)
    return Lexical(digest=_digest(chosen, seed, dim), rarity=rarity, directions=np.asarray(directions, np.float32))


def _counts(texts: Sequence[str]) -> Sparse:
    hashing = HashingVectorizer(analyzer=terms, n_features=FEATURES, norm=None, alternate_sign=False, dtype=np.float32)
    return hashing.transform(texts)


def _rarity(counts: Sparse) -> npt.NDArray[np.float32]:
    texts_with = np.bincount(counts.indices, minlength=FEATURES)
    rarity: npt.NDArray[np.float32] = np.log((1 + counts.shape[0]) / (1 + texts_with)).astype(np.float32) + 1
    return rarity


def _weighted(counts: Sparse, rarity: npt.NDArray[np.float32]) -> Sparse:
    """Rows of length 1 in which a repeated term counts a little more and a rare one much more."""
    weights = (1 + np.log(counts.data)) * rarity[counts.indices]
    row_of = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
    lengths = np.sqrt(np.bincount(row_of, weights.astype(np.float64) ** 2, minlength=counts.shape[0]))
    data = (weights / lengths[row_of]).astype(np.float32)
    return csr_matrix((data, counts.indices, counts.indptr), shape=counts.shape)


def _digest(chosen: Sequence[str], seed: int, dim: int) -> str:
    """Of what the directions are learnt from; their own last bits depend on the processor."""
    told = hashlib.sha256(f"lexical 1/{seed}/{dim}/{FEATURES}/{len(chosen)}".encode())
    for text in chosen:
        told.update(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())
    return f"lexical-{told.hexdigest()[:32]}"
