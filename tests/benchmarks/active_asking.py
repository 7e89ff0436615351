"""Labels that asking in rounds takes for what 3 000 random ones teach: ``python tests/benchmarks/active_asking.py``.

The pool is 12 000 definitions of word-domain, drawn by lot. The embedded teacher has answered 4 250 of them
(``pool-teacher.parquet``), so that no teacher is asked here: those may be asked about, and students learn what it
said, its mistakes included. Accuracy is counted against the true labels of 8 000 other definitions, which no student
has seen, not even without labels. ``--full`` compares the ways of choosing, with the teacher's labels and with the
true ones, of which there are 12 000; ``--json`` prints one object.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from corpusgen.curation.active import Candidates, Ground, choose_round, first_round
from corpusgen.distill.selection import ways_to_fit
from corpusgen.distill.students.bag import BagStudent, TextSpace, design, fit, learn_space, points_of

FOLDER = Path(__file__).parents[2] / "data" / "word-domain"
POOL, JUDGED = 12_000, 8_000
RANDOM = 3_000
FIRST, ROUND = 400, 275
SEEDS = (1, 2, 3, 4, 5)
T_95 = {3: 4.303, 5: 2.776, 10: 2.262}
"""Student's t for so many seeds."""
BOTH: tuple[Ground, ...] = ("uncertainty", "diversity")

Choose = Callable[[Candidates, int, int, np.ndarray], list[int]]
"""Positions of a round's items, given the candidates, how many, a seed, and the points asked about so far."""


@dataclass(frozen=True, kw_only=True)
class Definitions:
    """Definitions in an order drawn by lot: the first may be asked about, the last are judged on."""

    ids: Sequence[str]
    texts: Sequence[str]
    answers: np.ndarray
    """What is said of those that may be asked about."""
    truth: np.ndarray
    names: Sequence[str]

    @property
    def askable(self) -> Sequence[str]:
        return self.ids[: len(self.answers)]

    @cached_property
    def space(self) -> TextSpace:
        return learn_space(sorted(self.texts[:POOL]))

    @cached_property
    def points(self) -> np.ndarray:
        return points_of(self.space, self.texts[: len(self.answers)])

    def taught(self, asked: Sequence[int]) -> BagStudent:
        """The student that a run makes of these labels between its rounds."""
        lesson = design(self.space, [self.texts[at] for at in asked])
        return fit(lesson, np.eye(len(self.names))[self.answers[list(asked)]], self.names, ways_to_fit("hard")[1])

    def accuracy(self, student: BagStudent) -> float:
        """Share of what was held out that it gets right."""
        scores = student.log_probabilities(self.texts[-JUDGED:])
        return float(np.mean(scores.argmax(axis=1) == self.truth[-JUDGED:]))


def definitions(*, gold: bool = False) -> Definitions:
    """The definitions with what the teacher said of some, or with the true label of each that may be asked about."""
    pool = pq.read_table(FOLDER / "pool.parquet").to_pydict()
    truth = pq.read_table(FOLDER / "pool-labels.parquet").column("label").to_pylist()
    teacher = pq.read_table(FOLDER / "pool-teacher.parquet").to_pydict()
    said = dict(zip(teacher["row"], teacher["label"], strict=True))
    names = sorted(set(truth))
    # The order in which the teacher was asked, so that what it was asked about is what comes first.
    order = first_round(pool["id"], count=POOL + JUDGED, seed=1)
    answers = [truth[at] for at in order[:POOL]] if gold else [said[at] for at in order[: len(said)]]
    return Definitions(
        ids=[pool["id"][at] for at in order],
        texts=[pool["definition"][at] for at in order],
        answers=np.array([names.index(label) for label in answers]),
        truth=np.array([names.index(truth[at]) for at in order]),
        names=names,
    )


def by(*grounds: Ground) -> Choose:
    """As ``curate.active`` chooses."""

    def choose(candidates: Candidates, count: int, seed: int, asked: np.ndarray) -> list[int]:
        return choose_round(candidates, by=grounds, count=count, seed=seed, asked=asked)

    return choose


def by_entropy(candidates: Candidates, count: int, seed: int, asked: np.ndarray) -> list[int]:
    scores = candidates.log_probabilities
    return [int(at) for at in np.argsort((np.exp(scores) * scores).sum(axis=1), kind="stable")[:count]]


def curve(pool: Definitions, choose: Choose, seed: int, enough: float) -> Iterator[tuple[int, float]]:
    """Labels and accuracy of round after round, until the accuracy is reached or as many labels as random ones took."""
    asked = first_round(pool.askable, count=FIRST, seed=seed)
    while True:
        student = pool.taught(asked)
        accuracy = pool.accuracy(student)
        yield len(asked), accuracy
        if len(asked) >= RANDOM or accuracy >= enough:
            return
        asked += one_round(pool, student, asked, choose, min(ROUND, RANDOM - len(asked)), seed)


def one_round(
    pool: Definitions, student: BagStudent, asked: Sequence[int], choose: Choose, count: int, seed: int
) -> list[int]:
    """What is asked next: everything else is looked at by the student, and some of it chosen."""
    rest = np.setdiff1d(np.arange(len(pool.answers)), asked)
    candidates = Candidates(
        ids=[pool.ids[at] for at in rest],
        log_probabilities=student.log_probabilities([pool.texts[at] for at in rest]),
        points=pool.points[rest],
    )
    return [int(rest[at]) for at in choose(candidates, count, seed, pool.points[list(asked)])]


def labels_for(points: Sequence[tuple[int, float]], wanted: float) -> float:
    """Where a curve reaches an accuracy, read between its points; where it never does, all that random labels took."""
    for (before, low), (after, high) in pairwise(points):
        if high >= wanted:
            return before + (after - before) * max(0.0, (wanted - low) / max(high - low, 1e-9))
    return float(RANDOM)


def share(pool: Definitions, choose: Choose, seeds: Sequence[int], wanted: Sequence[float]) -> dict[str, float]:
    """The labels it took, as a share of the random ones: mean over seeds, and its 95 % interval."""
    shares = [
        labels_for(list(curve(pool, choose, seed, enough)), enough) / RANDOM
        for seed, enough in zip(seeds, wanted, strict=True)
    ]
    mean, half = statistics.mean(shares), T_95[len(seeds)] * statistics.stdev(shares) / len(seeds) ** 0.5
    return {"share": mean, "low": mean - half, "high": mean + half}


def active_figures(seeds: Sequence[int] = SEEDS) -> dict[str, float]:
    """The figures of asking by uncertainty and diversity, for ``tests/benchmarks/curation.py``."""
    pool = definitions()
    wanted = random_accuracies(pool, seeds)
    found = share(pool, by(*BOTH), seeds, wanted)
    return {
        "active_share": round(found["share"], 3),
        "active_share_low": round(found["low"], 3),
        "active_share_high": round(found["high"], 3),
        "active_random_accuracy": round(statistics.mean(wanted), 4),
        "active_choose_cpu_s": round(choose_cpu_s(definitions(gold=True)), 2),
    }


def choose_cpu_s(pool: Definitions) -> float:
    """Processor seconds of choosing a round among 12 000, the student's look at them included; median of three."""
    asked = first_round(pool.askable, count=FIRST, seed=1)
    student, took = pool.taught(asked), []
    assert len(pool.points) == POOL  # where they lie is found once a run
    for seed in range(3):
        began = time.process_time()
        one_round(pool, student, asked, by(*BOTH), ROUND, seed)
        took.append(time.process_time() - began)
    return statistics.median(took)


def random_accuracies(pool: Definitions, seeds: Sequence[int]) -> list[float]:
    """What the random labels of each seed teach."""
    return [pool.accuracy(pool.taught(first_round(pool.askable, count=RANDOM, seed=seed))) for seed in seeds]


def compared(seeds: Sequence[int], *, gold: bool) -> dict[str, dict[str, float]]:
    """Every way of choosing, measured alike."""
    pool = definitions(gold=gold)
    wanted = random_accuracies(pool, seeds)
    ways = {
        "uncertainty": by("uncertainty"),
        "entropy": by_entropy,
        "uncertainty and diversity": by(*BOTH),
    }
    return {name: share(pool, choose, seeds, wanted) for name, choose in ways.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--full", action="store_true")
    chosen = parser.parse_args()
    if chosen.full:
        for gold in (False, True):
            print("true labels" if gold else "the teacher's labels")
            for name, found in compared(SEEDS, gold=gold).items():
                print(f"  {name:<28} {found['share']:.3f} ({found['low']:.3f} to {found['high']:.3f})", flush=True)
        return
    figures = active_figures()
    if chosen.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:<24} {value:>10}")


if __name__ == "__main__":
    main()
