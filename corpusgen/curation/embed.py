"""Texts as directions: the closer two are, the more alike the texts. One file for each way: ``lexical``, ``minilm``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import xxhash

Vectors: TypeAlias = npt.NDArray[np.float32]
"""One row a text, of length 1."""

READ: Final = 8_000
"""Characters of a text that are looked at; what follows makes no difference."""
AT_ONCE: Final = 1_024
"""Texts that are looked up and embedded together."""


class Embedder(Protocol):
    """Makes vectors of texts. Every text has a row of length 1, whatever is in it; equal texts have equal rows."""

    @property
    def name(self) -> str:
        """What a reader calls it, such as ``MiniLM int8``."""

    @property
    def digest(self) -> str:
        """What vectors depend on besides the text: two embedders with one digest give the same rows."""

    @property
    def dim(self) -> int:
        """Numbers in a row."""

    @property
    def measures(self) -> Literal["wording", "meaning"]:
        """What two near rows have in common; vectors of ``wording`` find no paraphrases."""

    def embed(self, texts: Sequence[str]) -> Vectors:
        """One row for each text."""


class VectorMemory(Protocol):
    """Where vectors are kept between runs: little-endian float32 by key. A loss costs time only."""

    def known(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        """The rows that are there."""

    def keep(self, rows: Mapping[str, bytes]) -> None:
        """Remember rows."""


@dataclass(frozen=True, kw_only=True)
class Remembering:
    """An embedder that computes each text once: what its memory knows is not computed again."""

    embedder: Embedder
    memory: VectorMemory

    @property
    def name(self) -> str:
        return self.embedder.name

    @property
    def digest(self) -> str:
        return self.embedder.digest

    @property
    def dim(self) -> int:
        return self.embedder.dim

    @property
    def measures(self) -> Literal["wording", "meaning"]:
        return self.embedder.measures

    def embed(self, texts: Sequence[str]) -> Vectors:
        rows = np.empty((len(texts), self.dim), np.float32)
        for start in range(0, len(texts), AT_ONCE):
            rows[start : start + AT_ONCE] = self._block(texts[start : start + AT_ONCE])
        return rows

    def _block(self, texts: Sequence[str]) -> Vectors:
        keys = [key(self.embedder, text) for text in texts]
        found = {name: row for name, row in self.memory.known(keys).items() if len(row) == 4 * self.dim}
        missing = {name: text for name, text in zip(keys, texts, strict=True) if name not in found}
        if missing:
            made = self.embedder.embed(list(missing.values())).astype("<f4", copy=False)
            new = {name: row.tobytes() for name, row in zip(missing, made, strict=True)}
            self.memory.keep(new)
            found.update(new)
        return np.frombuffer(b"".join(found[name] for name in keys), "<f4").reshape(len(keys), self.dim)


def key(embedder: Embedder, text: str) -> str:
    """The name under which a text's vector is kept: the text as it is, and whatever else the vector depends on."""
    return f"{embedder.digest}:{xxhash.xxh3_128_hexdigest(text.encode('utf-8', 'surrogatepass'))}"


def readable(text: str) -> str:
    """The part of a text that is looked at, with characters that are none (lone surrogates) made visible ones."""
    start = text[:READ]
    return start if start.isascii() else start.encode("utf-8", "replace").decode()


def checked(rows: npt.NDArray[np.floating], what: str = "row", names: Sequence[str] | None = None) -> Vectors:
    """The rows, each scaled to length 1. ValueError names the first that is not a direction: NaN, infinite or zero."""
    if rows.ndim != 2:
        raise ValueError(f"{what}s must be a matrix of texts by numbers, not of shape {rows.shape}")
    lengths = np.concatenate([_lengths(part) for part in blocks(rows)] or [np.empty(0)])
    bad = np.flatnonzero(~np.isfinite(lengths) | (lengths == 0))
    if len(bad):
        at = int(bad[0])
        called = f" ({names[at]})" if names is not None else ""
        wrong = "is all zeros" if lengths[at] == 0 else "has a number that is NaN or infinite"
        raise ValueError(f"{what} {at}{called} {wrong}; {len(bad)} of {len(rows)} are no direction; embed them again")
    if np.allclose(lengths, 1, atol=1e-5):
        return np.asarray(rows, np.float32)
    scaled = (part / size[:, None] for part, size in zip(blocks(rows), blocks(lengths), strict=True))
    return np.concatenate([np.asarray(part, np.float32) for part in scaled])


def blocks(rows: npt.NDArray[np.floating], size: int = 8_192) -> Iterator[npt.NDArray[np.floating]]:
    """A matrix in pieces, so that what is computed of it stays small."""
    return (rows[start : start + size] for start in range(0, len(rows), size))


def _lengths(rows: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    wide = rows.astype(np.float64)
    lengths: npt.NDArray[np.float64] = np.sqrt(np.einsum("ij,ij->i", wide, wide))
    return lengths
