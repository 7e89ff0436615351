"""Texts as vectors, by the embedding that a spec names."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:  # numpy and what lies behind it are read where vectors are wanted
    from corpusgen.curation.embed import Embedder

Embedding = Literal["hashing", "minilm"]


def embedder_of(kind: Embedding, texts: Iterable[str], *, seed: int) -> Embedder:
    """What makes vectors of texts like these. Raises UsageError where ``minilm`` is not installed."""
    if kind == "minilm":
        from corpusgen.curation.minilm import opened

        return opened()
    from corpusgen.curation.lexical import learnt

    return learnt(texts, seed=seed)
