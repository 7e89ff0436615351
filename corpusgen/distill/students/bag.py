"""A bag of hashed n-grams and one linear map: the student that answers in microseconds.

Three things shape it: how rare each n-gram is in the unlabelled pool, in which directions the pool's texts vary
(latent semantic analysis), and the teacher's answers. All three are linear in the n-gram counts, up to one number per
text, so that they fold into a single table: a weight for every bucket and class, and what the bucket adds to the
text's length. Answering is then adding up table rows.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from scipy.optimize import minimize
from scipy.special import log_softmax

from corpusgen.distill.losses import Loss, loss_and_gradient
from corpusgen.distill.ngrams import bucket_count, count_ngrams, hash_ngrams, in_blocks

Floats: TypeAlias = npt.NDArray[np.float64]
Singles: TypeAlias = npt.NDArray[np.float32]

FORMAT = "corpusgen-bag-1"
LANDMARKS = 3000
HALF_SOFT = Loss(hard=0.5, soft=0.5)


@dataclass(frozen=True, kw_only=True)
class SpaceSettings:
    """How texts become points. ``word_weight`` and ``direction_weight`` are against 1 for bytes and for n-grams."""

    bits: int = 18
    least_texts: int = 4
    word_weight: float = 2.0
    directions: int = 200
    direction_weight: float = 0.5
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """What the linear map is fitted for, and how strongly it is held back."""

    loss: Loss = HALF_SOFT
    penalty: float = 1e-5
    iterations: int = 300


@dataclass(frozen=True, kw_only=True, eq=False)
class TextSpace:
    """What unlabelled text teaches: a weight for every bucket, and directions over the word buckets in ``columns``."""

    settings: SpaceSettings
    weights: Singles
    columns: npt.NDArray[np.int64]
    directions: Singles


@dataclass(frozen=True, kw_only=True, eq=False)
class Design:
    """Labelled texts in coordinates (n x r) along which a map over them is fitted.

    The coordinates are those of the texts' own span, which loses nothing; beyond so many texts, of the span of some of
    them. ``points`` and ``projections`` are those landmarks, ``axes`` (landmarks x r) turns a map back.
    """

    space: TextSpace
    points: sp.csr_matrix
    projections: Singles
    axes: Floats
    coordinates: Floats


@dataclass(frozen=True, kw_only=True, eq=False)
class BagStudent:
    """The folded table (buckets + 1, classes + 1) and a bias per class; the last column is what counts for length."""

    labels: tuple[str, ...]
    bits: int
    table: Singles
    bias: Floats

    def log_probabilities(self, texts: Sequence[str]) -> Floats:
        """Log-probability of every label for every text (n x k)."""
        blocks = [self._scores(block) for block in in_blocks(texts)]
        return np.concatenate(blocks) if blocks else np.zeros((0, len(self.labels)))

    def at_temperature(self, temperature: float) -> BagStudent:
        """The same answers with flatter (above 1) or sharper (below 1) probabilities."""
        table = self.table.copy()
        table[:, :-1] /= temperature
        return replace(self, table=table, bias=self.bias / temperature)

    def save(self, folder: Path) -> None:
        """Write ``student.safetensors`` and ``student.json``."""
        folder.mkdir(parents=True, exist_ok=True)
        save_file({"table": self.table, "bias": self.bias}, folder / "student.safetensors")
        about = {"format": FORMAT, "labels": self.labels, "bits": self.bits}
        (folder / "student.json").write_text(json.dumps(about, indent=2) + "\n", "utf-8")

    @classmethod
    def load(cls, folder: Path) -> BagStudent:
        """Read what ``save`` wrote. Raises OSError, or ValueError when the folder holds something else."""
        about = json.loads((folder / "student.json").read_text("utf-8"))
        if about.get("format") != FORMAT:
            raise ValueError(f"{folder / 'student.json'}: format is {about.get('format')!r}, this reads {FORMAT!r}")
        arrays = _load_arrays(folder / "student.safetensors", len(about["labels"]), about["bits"])
        return cls(labels=tuple(about["labels"]), bits=about["bits"], table=arrays["table"], bias=arrays["bias"])

    def _scores(self, texts: Sequence[str]) -> Floats:
        found = hash_ngrams(texts, self.bits)
        rows = self.table.take(found.bytes_at[0], axis=0)
        for buckets in found.bytes_at[1:]:
            rows += self.table.take(buckets, axis=0)
        rows[found.word_at] += self.table.take(found.words, axis=0) + self.table.take(found.pairs, axis=0)
        sums = np.add.reduceat(rows, found.starts, axis=0)
        lengths = np.sqrt(np.maximum(sums[:, -1:], np.finfo(np.float32).tiny))
        scores: Floats = log_softmax(sums[:, :-1] / lengths + self.bias, axis=1)
        return scores


def learn_space(texts: Sequence[str], settings: SpaceSettings = SpaceSettings()) -> TextSpace:
    """What the unlabelled pool says about n-grams: how rare they are, and which go together."""
    counts = count_ngrams(texts, settings.bits)
    occurs_in = counts.getnnz(axis=0)
    rarity = np.log(max(len(texts), 1) / np.maximum(occurs_in, 1)) + 1.0
    rarity[1 << settings.bits :] *= settings.word_weight
    # A pool of a few texts has no n-gram that is in several of them; it may then keep the rarer ones.
    least = min(settings.least_texts, 1 + len(texts) // 100)
    weights = np.where(occurs_in >= least, rarity, 0.0).astype(np.float32)
    columns = np.flatnonzero(weights[1 << settings.bits :]) + (1 << settings.bits)
    # Directions are sought among words only: bytes repeat what words say, and cost four times as much.
    return TextSpace(
        settings=settings,
        weights=weights,
        columns=columns,
        directions=_directions(_scaled(counts, weights)[:, columns], settings),
    )


def points_of(space: TextSpace, texts: Sequence[str]) -> Singles:
    """Texts as unit rows along the pool's directions (n x d + 1); those without a word it knows share the last one."""
    blocks = [_scaled(count_ngrams(block, space.settings.bits), space.weights) for block in in_blocks(texts)]
    rows = [np.asarray(points[:, space.columns] @ space.directions) for points in blocks]
    along = np.concatenate(rows) if rows else np.zeros((0, space.directions.shape[1]), np.float32)
    lengths = np.linalg.norm(along, axis=1, keepdims=True)
    nowhere = lengths < 1e-6
    return np.hstack([np.where(nowhere, 0.0, along / np.where(nowhere, 1.0, lengths)), nowhere]).astype(np.float32)


def design(space: TextSpace, texts: Sequence[str], *, landmarks: int = LANDMARKS) -> Design:
    """The texts in coordinates, ready to be fitted any number of times."""
    points = _scaled(count_ngrams(texts, space.settings.bits), space.weights)
    projections = np.asarray(points[:, space.columns] @ space.directions)
    chosen = np.unique(np.linspace(0, len(texts) - 1, min(len(texts), landmarks)).astype(np.int64))
    spanning, spanning_projections = points[chosen], projections[chosen]
    inner = (points @ spanning.T).toarray().astype(np.float64)
    inner += projections.astype(np.float64) @ spanning_projections.T
    values, vectors = np.linalg.eigh(inner[chosen])
    kept = values > max(float(values.max(initial=0.0)) * 1e-9, 1e-12)
    axes = vectors[:, kept] / np.sqrt(values[kept])
    coordinates = inner @ axes
    # The penalty means the same for texts of any length and number: coordinates have length 1 on average.
    size = np.sqrt(np.square(coordinates).sum() / len(texts)) if kept.any() else 1.0
    return Design(
        space=space,
        points=spanning,
        projections=spanning_projections,
        axes=axes / size,
        coordinates=coordinates / size,
    )


def fit(lesson: Design, targets: Floats, labels: Sequence[str], settings: FitSettings = FitSettings()) -> BagStudent:
    """The student that explains ``targets`` (probabilities, n x k) of the design's texts best."""
    duals, bias = _solve(lesson, targets, settings)
    return BagStudent(labels=tuple(labels), bits=lesson.space.settings.bits, table=_fold(lesson, duals), bias=bias)


def settings_json(space: SpaceSettings, fitted: FitSettings) -> dict[str, Any]:
    """Both settings as plain values, for a report or a digest."""
    return {"space": asdict(space), "fit": asdict(fitted)}


def _load_arrays(file: Path, classes: int, bits: int) -> dict[str, npt.NDArray[Any]]:
    try:
        arrays = load_file(file)
    except SafetensorError as error:
        raise ValueError(f"{file}: {error}") from error
    found = {name: (array.shape, array.dtype) for name, array in arrays.items()}
    wanted = {
        "table": ((bucket_count(bits) + 1, classes + 1), np.dtype(np.float32)),
        "bias": ((classes,), np.dtype(np.float64)),
    }
    if found != wanted:
        raise ValueError(f"{file}: holds {found}, a student of {classes} labels and {bits} bits has {wanted}")
    return arrays


def _scaled(counts: sp.csr_matrix, weights: Singles) -> sp.csr_matrix:
    lengths = np.sqrt(np.maximum(counts @ np.square(weights), np.finfo(np.float32).tiny))
    return (sp.diags_array(1.0 / lengths) @ counts @ sp.diags_array(weights)).tocsr().astype(np.float32)


def _directions(points: sp.csr_matrix, settings: SpaceSettings) -> Singles:
    from sklearn.utils.extmath import randomized_svd  # loads for most of a second, and only learning a space needs it

    wanted = min(settings.directions, min(points.shape) - 1)
    if wanted < 1 or settings.direction_weight == 0:
        return np.zeros((points.shape[1], 0), np.float32)
    _, strengths, axes = randomized_svd(points, wanted, n_iter=3, random_state=settings.seed)
    # Every direction counts the same, as far as the first one is strong: rare topics live in the weak ones.
    scale = settings.direction_weight * strengths[0] / np.maximum(strengths, strengths[0] * 1e-6)
    return np.ascontiguousarray((axes * scale[:, None]).T, np.float32)


def _solve(lesson: Design, targets: Floats, settings: FitSettings) -> tuple[Floats, Floats]:
    # The best map is a sum of the points themselves, so the search runs in their span: n unknowns per class instead
    # of one per bucket, and the answer is the same.
    classes, basis = targets.shape[1], lesson.coordinates

    def objective(flat: Floats) -> tuple[float, Floats]:
        weights, bias = flat[:-classes].reshape(-1, classes), flat[-classes:]
        value, gradient = loss_and_gradient(settings.loss, basis @ weights + bias, targets)
        held = value + settings.penalty / 2 * float(np.sum(weights**2))
        slope = basis.T @ gradient + settings.penalty * weights
        return held, np.concatenate([slope.ravel(), gradient.sum(axis=0)])

    start = np.zeros((basis.shape[1] + 1) * classes)
    options = {"maxiter": settings.iterations, "ftol": 1e-7, "gtol": 1e-4}
    found = minimize(objective, start, jac=True, method="L-BFGS-B", options=options).x
    return lesson.axes @ found[:-classes].reshape(-1, classes), found[-classes:]


def _fold(lesson: Design, duals: Floats) -> Singles:
    space = lesson.space
    table = np.zeros((bucket_count(space.settings.bits) + 1, duals.shape[1] + 1), np.float32)
    table[:-1, :-1] = lesson.points.T @ duals
    table[space.columns, :-1] += space.directions @ (lesson.projections.T @ duals).astype(np.float32)
    table[:-1, :-1] *= space.weights[:, None]
    table[:-1, -1] = np.square(space.weights)
    return table
