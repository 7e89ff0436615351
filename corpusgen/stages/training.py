"""Training: a student that has seen a sealed dataset and unlabelled text, and nothing else."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import orjson

from corpusgen.corpus import Corpus
from corpusgen.distill.selection import LossKind, Selection, choose_settings, ways_to_fit
from corpusgen.distill.students.bag import BagStudent, TextSpace, design, fit, settings_json
from corpusgen.errors import UsageError
from corpusgen.evaluate.calibration import Calibration
from corpusgen.fields import Unit
from corpusgen.journal import Transaction
from corpusgen.provenance.events import note_event
from corpusgen.provenance.policy import Decision
from corpusgen.records import Json, digest
from corpusgen.stages.committing import one_at_a_time
from corpusgen.stages.erasure.erasures import refuse_to_retire, refuse_unless_sealed
from corpusgen.stages.lineage.attesting import attest, file_digests
from corpusgen.stages.pool import unique_pool
from corpusgen.stages.sealing import Sealed, card_source, notice_of, of_the_same_rights, sealed_dataset, source_json
from corpusgen.stages.sieving import Notes
from corpusgen.stages.studying import learn_pool, studying, timed, worst_study_us
from corpusgen.stages.task import Task
from corpusgen.stages.terms.deciding import decision_for, refusal
from corpusgen.stages.terms.rejudging import (
    Subject,
    check,
    check_sources,
    gate,
    judged_base,
    judged_today,
    note,
    touches_of,
)
from corpusgen.store.durable import write_file
from corpusgen.store.shards import read_columns
from corpusgen.teachers.registry import open_teacher

Floats: TypeAlias = npt.NDArray[np.float64]

FEWEST_TO_COMPARE = 12
"""Items from which ways of fitting are compared on held-out ones."""
FOLDS = 3


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A student with where it lies and how it came to be."""

    student_id: str
    student: BagStudent
    folder: Path
    facts: dict[str, Json]

    @property
    def calibration(self) -> Calibration | None:
        """How the labels it learned were calibrated."""
        found = self.facts["calibration"]
        return found and Calibration.from_json(found)


def train(corpus: Corpus, task: Task, sealed: Sealed, decision: Decision, space: TextSpace, run_id: str) -> Trained:
    """The student of a sealed dataset; the way of fitting is chosen on teacher-labelled held-out items.

    The same dataset, spec and pool make the same student, which is then found and not trained again.
    Raises PolicyRefused when today's terms do not allow training on it, and BudgetExhausted when a cap on processor
    time or on time leaves too little for it; the corpus keeps everything there is.
    """
    refuse_unless_sealed(corpus, sealed.label, sealed.manifest_sha256)
    if decision.outcome != "allow":
        raise refusal(corpus, task, decision)
    _ask_again(corpus, task, sealed, run_id)
    settings = task.spec.student
    # What is None is left out: a field that a later corpusgen adds makes no other student.
    student_id = digest([sealed.manifest_sha256, settings.model_dump(exclude_none=True), _space_digest(space)])[:16]
    folder = corpus.folder / "students" / student_id
    with one_at_a_time(corpus.folder / ".students.lock"):
        if not (folder / "facts.json").exists():
            _learn(corpus, task, sealed, decision, space, folder, run_id)
        trained = load_student(folder)
        files = file_digests(folder)
        # Once more where a process was killed between the folder and the note.
        corpus.journal.run_now(lambda transaction: _note(transaction, student_id, run_id, sealed, trained.facts, files))
    return trained


def _ask_again(corpus: Corpus, task: Task, sealed: Sealed, run_id: str) -> None:
    """Raise PolicyRefused unless today's terms allow training on all that was touched, and on the student's base."""
    touches = touches_of(corpus, task, sealed.manifest, sealed.files)
    subject = Subject(stage="train", name=sealed.label, kind="dataset", run_id=run_id, doing="trained on")
    if "sources" in sealed.manifest:
        check_sources(corpus, sealed.label, sealed.manifest, task)
    gate(corpus, subject, [task], touches, sealed.manifest.get("sources", ()))
    if "sources" not in sealed.manifest:  # of an earlier version: the licences of rows tell of their sources
        found = judged_today(corpus, task, touches).items()
        answered = [one for touch, one in found if touch.wrote]
        of_the_same_rights(sealed.label, sealed.manifest["counts"], *answered)
    if (base := task.spec.student.base) is not None:
        begun = replace(subject, name=base.model, kind="base", doing="made into a student")
        judged = judged_base(corpus, task, base)
        note(corpus, begun, [judged])
        check(begun, [judged])


def _learn(
    corpus: Corpus, task: Task, sealed: Sealed, decision: Decision, space: TextSpace, folder: Path, run_id: str
) -> None:
    settings = task.spec.student
    texts, targets, labels = lessons(sealed)
    worst_us = worst_study_us(texts, len(labels), ways=len(ways_to_fit(settings.loss)), folds=FOLDS)
    with studying(corpus, task, run_id, folder.name, worst_us):
        selection = _choose(space, texts, targets, settings.loss, settings.seed)
        began = time.process_time()
        student = fit(design(space, texts), targets, labels, selection.chosen)
    facts = _facts(task, sealed, decision, space, selection) | {
        "student_id": folder.name,
        "rows": len(texts),
        "train_cpu_s": round(time.process_time() - began, 3),
        "trained_time": corpus.clock().isoformat(),
    }
    _save(student, folder, facts)


def lessons(sealed: Sealed) -> tuple[list[str], Floats, tuple[str, ...]]:
    """Texts, label probabilities (n x k) and label names of a sealed dataset. Raises UsageError without labels."""
    columns = ("input", "label_names", "calibrated_label", "calibrated_logprobs")
    table = read_columns(sealed.of_split(), columns).to_pydict()
    if not table["label_names"]:
        raise UsageError(f"{sealed.label}: the train split is empty; give it a larger share, or another --seed")
    names = tuple(table["label_names"][0] or ())
    if not names:
        raise UsageError(f"{sealed.label} has no labels; the bag student learns labels only")
    pairs = zip(table["calibrated_label"], table["calibrated_logprobs"], strict=True)
    return table["input"], np.array([_target(names, *pair) for pair in pairs], np.float64), names


def _target(names: Sequence[str], label: str, logprobs: Sequence[float] | None) -> Sequence[float]:
    if logprobs is None:
        return [float(name == label) for name in names]
    return np.nan_to_num(np.exp(np.array(logprobs, np.float64))).tolist()  # type: ignore[no-any-return]


def _choose(space: TextSpace, texts: Sequence[str], targets: Floats, loss: LossKind, seed: int) -> Selection:
    ways = ways_to_fit(loss)
    if len(texts) < FEWEST_TO_COMPARE:  # too few to hold any out: the first way, untried
        return Selection(chosen=ways[0], trials=(), folds=0, items=len(texts))
    return choose_settings(space, texts, targets, ways, folds=FOLDS, seed=seed)


def _space_digest(space: TextSpace) -> str:
    from hashlib import sha256

    return sha256(space.weights.tobytes() + space.columns.tobytes()).hexdigest()


def _facts(task: Task, sealed: Sealed, decision: Decision, space: TextSpace, selection: Selection) -> dict[str, Json]:
    return {
        "task": task.spec.name,
        "dataset": sealed.label,
        "manifest_sha256": sealed.manifest_sha256,
        "sources_of_unlabelled_text": [task.spec.seeds.train.source],
        "sources": [source_json(card_source(one, None, notice_of(task, one))) for one in task.spec.sources],
        "calibration": sealed.manifest["calibration"],
        "terms": sealed.manifest["terms"],
        "licence_expression": decision.licence_expression,
        "duties": sealed.manifest["duties"],
        "registry_digest": decision.registry_digest,
        "policy_digest": decision.policy_digest,
        "intended_use": task.spec.intended_use.model_dump(mode="json"),
        "settings": settings_json(space.settings, selection.chosen),
        "trials": [
            {"loss": str(trial.settings.loss), "penalty": trial.settings.penalty, "agreement": trial.agreement}
            for trial in selection.trials
        ],
        "spec_digest": task.identity,
    }


def _save(student: BagStudent, folder: Path, facts: dict[str, Json]) -> None:
    unfinished = folder.with_name(f".{folder.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    student.save(unfinished)
    write_file(unfinished / "facts.json", orjson.dumps(facts, option=orjson.OPT_INDENT_2) + b"\n")
    unfinished.rename(folder)


def _note(
    transaction: Transaction,
    student_id: str,
    run_id: str,
    sealed: Sealed,
    facts: dict[str, Json],
    files: dict[str, Json],
) -> None:
    if transaction.rows("select 1 from students where student_id = ?", (student_id,)):
        return
    transaction.execute(
        "insert into students values(?, ?, ?, ?, ?)",
        (student_id, run_id, sealed.label, orjson.dumps(facts).decode(), transaction.now_us),
    )
    trained = {"student_id": student_id, "dataset": sealed.label, "manifest_sha256": sealed.manifest_sha256}
    note_event(transaction, "student_trained", trained | {"files": files})


def load_student(folder: Path) -> Trained:
    """A student that was trained before. Raises UsageError when there is none."""
    try:
        facts = orjson.loads((folder / "facts.json").read_bytes())
        student = BagStudent.load(folder)
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(f"{folder}: no student here that this corpusgen can read ({error})") from error
    return Trained(student_id=folder.name, student=student, folder=folder, facts=facts)


def find_student(corpus: Corpus, name: str | None) -> Trained:
    """The student of that id, or the newest one. Raises UsageError listing what there is."""
    rows = corpus.journal.query(
        "select student_id from students where json_extract(facts, '$.made_elsewhere') is null order by trained_us"
    )
    known = [row[0] for row in rows]
    chosen = [student_id for student_id in known if name is None or student_id.startswith(name)]
    if not chosen:
        raise UsageError(f"no student {name or ''!r} in {corpus.folder}; there are: {', '.join(known) or 'none yet'}")
    refuse_to_retire(corpus, chosen[-1])
    return load_student(corpus.folder / "students" / chosen[-1])


def train_sealed(corpus: Corpus, task: Task, dataset: str, *, caps: Mapping[Unit, int] | None = None) -> Trained:
    """The student of a sealed dataset, with what the spec's pool teaches about n-grams.

    Under the caps of the task's run, ``caps`` in place of the spec's, unit by unit; the time it takes is the run's.
    """
    sealed = sealed_dataset(corpus, dataset)
    card = open_teacher(task.teacher, folder=task.located.file.parent, clock=corpus.clock).card
    decision = decision_for(corpus, task, card, corpus.clock().date())
    runs = corpus.journal.query("select run_id from runs where spec_digest = ?", (task.identity,))
    run_id = str(runs[0][0]) if runs else ""
    with timed(corpus, task, run_id, caps or {}):
        pool = unique_pool(task, Notes(journal=corpus.journal))
        space = learn_pool(corpus, task, run_id, [item.input for item in pool.items])
        trained = train(corpus, task, sealed, decision, space, run_id)
    attest(corpus)
    return trained


def predictions(trained: Trained, texts: Sequence[str]) -> list[dict[str, Json]]:
    """Label and confidence of every text; an empty text has neither."""
    scores = trained.student.log_probabilities(texts)
    labels = trained.student.labels
    return [
        {"text": text, "label": labels[int(row.argmax())], "confidence": round(float(np.exp(row.max())), 6)}
        for text, row in zip(texts, scores, strict=True)
    ]
