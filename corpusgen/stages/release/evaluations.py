"""Evaluations: how good a student was on gold items, kept for whoever releases it."""

from __future__ import annotations

import orjson

from corpusgen.corpus import Corpus
from corpusgen.records import Json, canonical_json

_LASTING = (
    "gold_items",
    "teacher_accuracy",
    "student_accuracy",
    "agreement",
    "retention",
    "retention_low",
    "retention_high",
    "teacher_macro_f1",
    "student_macro_f1",
    "calibration",
)
"""Figures that are the same whenever they are measured; processor time is not."""


def _named(student_id: str) -> str:
    return f"evaluation:{student_id}"


def keep_evaluation(corpus: Corpus, student_id: str, figures: dict[str, Json]) -> None:
    """Keep the figures of a student's evaluation; what is there already is not written again."""
    kept = {name: figures[name] for name in _LASTING if figures.get(name) is not None}
    if kept == evaluation_of(corpus, student_id):
        return
    row = (_named(student_id), canonical_json(kept).decode())
    corpus.journal.run_now(lambda transaction: transaction.execute("insert or replace into meta values(?, ?)", row))


def evaluation_of(corpus: Corpus, student_id: str) -> dict[str, Json]:
    """The figures of a student's last evaluation; none where it was not evaluated."""
    rows = corpus.journal.query("select value from meta where name = ?", (_named(student_id),))
    return dict(orjson.loads(rows[0][0])) if rows else {}
