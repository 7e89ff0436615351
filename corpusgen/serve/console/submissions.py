"""Runs that were submitted to the service, as its pages tell of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from corpusgen.corpus import Corpus

_SUBMITTED: Final = (
    "select service_run_id, task, state, run_id, submitted_us, began_us, ended_us,"
    " json_extract(facts, '$.user') from service_runs"
)
_NAMES: Final = ("id", "task", "state", "run_id", "submitted", "began", "ended", "user")


def under_way(corpus: Corpus) -> list[Mapping[str, Any]]:
    """Those that wait or run, the first of them first."""
    rows = corpus.journal.query(f"{_SUBMITTED} where state in ('waiting', 'running') order by submitted_us limit 20")
    return [dict(zip(_NAMES, row, strict=True)) for row in rows]


def of_run(corpus: Corpus, run_id: str) -> Mapping[str, Any] | None:
    """The latest submission that came to be a run."""
    rows = corpus.journal.query(f"{_SUBMITTED} where run_id = ? order by submitted_us desc limit 1", (run_id,))
    return dict(zip(_NAMES, rows[0], strict=True)) if rows else None
