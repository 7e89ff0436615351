"""The processor time that students take to learn: promised before it begins, booked when it is over."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING

from corpusgen.budget.amounts import Amounts
from corpusgen.budget.compute import booked
from corpusgen.budget.ledger import Intent, Ledger, replace_caps
from corpusgen.corpus import Corpus
from corpusgen.fields import Unit
from corpusgen.stages.runs import caps_of
from corpusgen.stages.task import Task

if TYPE_CHECKING:  # an answered run is over before these libraries could be read
    from corpusgen.distill.students.bag import Singles, TextSpace

ROLE = "train"
OWN_MACHINE = "own machine"
START_S = 3.0
"""Reading the libraries, and everything that does not grow with the lesson."""
LANDMARKS = 3_000
"""Texts that a student is spanned by at most; more of them cost in proportion, no longer by their square."""
POOL_ROW_S, POOL_CHARACTER_S = 1e-3, 2e-5


def studying(corpus: Corpus, task: Task, run_id: str, subject: str, worst_us: int) -> AbstractContextManager[None]:
    """Books what happens inside as training, on the run, the corpus and the user. Raises BudgetExhausted before it."""
    intent = Intent(
        run_id=run_id,
        request_key=sha256(f"{ROLE}:{subject}".encode()).digest(),
        teacher=f"student/{task.spec.student.kind}",
        role=ROLE,
        attempt=1,
        worst=Amounts(compute_us=worst_us),
        scopes=_scopes(corpus, run_id),
        price_version=OWN_MACHINE,
    )
    return booked(corpus.journal, intent)


@contextmanager
def timed(corpus: Corpus, task: Task, run_id: str, caps: Mapping[Unit, int]) -> Iterator[None]:
    """Puts the caps of a task's run in force, and books the time that passes inside on it."""
    if not run_id:
        yield
        return
    ledger, scopes, journal = Ledger(corpus.journal), _scopes(corpus, run_id), corpus.journal
    bound = [replace(cap, scope=scopes[0]) for cap in caps_of(task, caps)]
    journal.run_now(lambda transaction: replace_caps(transaction, scopes[0], bound))
    began = time.monotonic()
    try:
        yield
    finally:
        passed_us = round((time.monotonic() - began) * 1_000_000)
        journal.run_now(lambda transaction: ledger.time_passed(transaction, run_id, scopes, passed_us, None))


def _scopes(corpus: Corpus, run_id: str) -> tuple[str, ...]:
    run = (f"run:{run_id}",) if run_id else ()
    return (*run, "corpus", f"user:{corpus.actor}")


def learn_pool(corpus: Corpus, task: Task, run_id: str, texts: Sequence[str]) -> TextSpace:
    """What unlabelled text teaches about n-grams, its processor time booked."""
    from corpusgen.distill.students.bag import learn_space

    # Sums in another order differ in their last digits, and what is asked next must not hang on the order of a file.
    ordered = texts if task.spec.curate.active is None else sorted(texts)
    with studying(corpus, task, run_id, "pool", _worst_pool_us(texts)):
        return learn_space(ordered)


def place_pool(corpus: Corpus, task: Task, run_id: str, space: TextSpace, texts: Sequence[str]) -> Singles:
    """Where the pool's texts lie in the student's own space (``students.bag.points_of``), processor time booked."""
    from corpusgen.distill.students.bag import points_of

    with studying(corpus, task, run_id, "places", _worst_pool_us(texts)):
        return points_of(space, texts)


def _worst_pool_us(texts: Sequence[str]) -> int:
    return round((START_S + POOL_ROW_S * len(texts) + POOL_CHARACTER_S * sum(map(len, texts))) * 1_000_000)


def worst_study_us(texts: Sequence[str], labels: int, *, ways: int = 1, folds: int = 0) -> int:
    """Processor time of choosing among so many ways and fitting the best: several times what an idle machine takes.

    A bound that holds on busy machines too, not one that stops anything: what goes beyond it is booked all the same.
    """
    rows, characters = len(texts), sum(map(len, texts))
    held_in = rows * (folds - 1) // folds if folds else 0
    choosing = folds * (_design_s(held_in, characters) + ways * _fit_s(held_in, labels))
    return round((START_S + choosing + _design_s(rows, characters) + _fit_s(rows, labels)) * 1_000_000)


def _design_s(rows: int, characters: int) -> float:
    spanning = min(rows, LANDMARKS)
    return 1e-5 * characters + 2e-6 * rows * spanning + 4e-9 * spanning**3


def _fit_s(rows: int, labels: int) -> float:
    return 0.15 + 2e-6 * rows * min(rows, LANDMARKS) * (1 + labels / 20)
