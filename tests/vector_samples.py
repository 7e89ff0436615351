"""Pools of made-up vectors: many clusters, a few of them large."""

from __future__ import annotations

import numpy as np

from corpusgen.curation.embed import Vectors


def clustered_pool(rows: int, dim: int = 32, clusters: int = 40, noise: float = 0.6, seed: int = 0) -> Vectors:
    """Unit rows in clusters of Zipf sizes."""
    draw = np.random.default_rng(seed)
    centres = draw.normal(size=(clusters, dim)).astype(np.float32)
    odds = 1 / np.arange(1, clusters + 1)
    found = centres[draw.choice(clusters, size=rows, p=odds / odds.sum())]
    found = found + draw.normal(scale=noise, size=(rows, dim)).astype(np.float32)
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True), np.float32)
