"""The journal's tables in Arrow, as questions in SQL and the catalog see them."""

from __future__ import annotations

import pyarrow as pa

from corpusgen.corpus import Corpus
from corpusgen.records import Json

_TEXT, _INT, _TIME = pa.string(), pa.int64(), pa.timestamp("us", "UTC")

TABLES: dict[str, tuple[str, list[tuple[str, pa.DataType]]]] = {
    "runs": (
        "select run_id, task, spec_digest, status, started_us, ended_us from runs",
        [
            ("run_id", _TEXT),
            ("task", _TEXT),
            ("spec_digest", _TEXT),
            ("status", _TEXT),
            ("started_time", _TIME),
            ("ended_time", _TIME),
        ],
    ),
    "calls": (
        (
            "select call_id, run_id, lower(hex(request_key)), teacher, role, attempt, state, reserved_microusd,"
            " reserved_tokens, reserved_compute_us, microusd, tokens, compute_us, price_version, error,"
            " provider_request_id, reserved_us, closed_us, batch_id from calls"
        ),
        [
            ("call_id", _INT),
            ("run_id", _TEXT),
            ("request_key", _TEXT),
            ("teacher", _TEXT),
            ("role", _TEXT),
            ("attempt", _INT),
            ("state", _TEXT),
            ("reserved_microusd", _INT),
            ("reserved_tokens", _INT),
            ("reserved_compute_us", _INT),
            ("microusd", _INT),
            ("tokens", _INT),
            ("compute_us", _INT),
            ("price_version", _TEXT),
            ("error", _TEXT),
            ("provider_request_id", _TEXT),
            ("reserved_time", _TIME),
            ("closed_time", _TIME),
            ("batch_id", _TEXT),
        ],
    ),
    "balances": (
        (
            "select b.scope, b.unit, b.settled, b.promised, b.unconfirmed, c.cap, c.origin, c.per"
            " from balances b left join caps c on c.unit = b.unit"
            " and substr(b.scope, 1, length(c.scope)) = c.scope and substr(b.scope, length(c.scope) + 1) glob"
            " case c.per when 'total' then '' when 'day' then '@????-??-??' else '@????-??' end"
        ),
        [
            ("scope", _TEXT),
            ("unit", _TEXT),
            ("settled", _INT),
            ("promised", _INT),
            ("unconfirmed", _INT),
            ("cap", _INT),
            ("origin", _TEXT),
            ("per", _TEXT),
        ],
    ),
    "reconciliations": (
        (
            "select call_id, before, after, microusd_before, microusd, tokens, by, reason, source_sha256,"
            " reconciled_us from reconciliations"
        ),
        [
            ("call_id", _INT),
            ("before", _TEXT),
            ("after", _TEXT),
            ("microusd_before", _INT),
            ("microusd", _INT),
            ("tokens", _INT),
            ("by", _TEXT),
            ("reason", _TEXT),
            ("source_sha256", _TEXT),
            ("reconciled_time", _TIME),
        ],
    ),
    "batches": (
        (
            "select batch_id, run_id, teacher, state, provider_batch_id, lines, said, intended_us, submitted_us,"
            " closed_us from batches"
        ),
        [
            ("batch_id", _TEXT),
            ("run_id", _TEXT),
            ("teacher", _TEXT),
            ("state", _TEXT),
            ("provider_batch_id", _TEXT),
            ("requests", _INT),
            ("said", _TEXT),
            ("intended_time", _TIME),
            ("submitted_time", _TIME),
            ("closed_time", _TIME),
        ],
    ),
    "drops": (
        "select run_id, stage, item_id, reason, detail, score, threshold, repeat_of from drops",
        [
            ("run_id", _TEXT),
            ("stage", _TEXT),
            ("item_id", _TEXT),
            ("reason", _TEXT),
            ("detail", _TEXT),
            ("score", pa.float64()),
            ("threshold", pa.float64()),
            ("repeat_of", _TEXT),
        ],
    ),
    "remarks": (
        "select run_id, stage, item_id, reason, detail, score, threshold, other from remarks",
        [
            ("run_id", _TEXT),
            ("stage", _TEXT),
            ("item_id", _TEXT),
            ("reason", _TEXT),
            ("detail", _TEXT),
            ("score", pa.float64()),
            ("threshold", pa.float64()),
            ("other", _TEXT),
        ],
    ),
    "findings": (
        (
            "select dataset || '-' || version, lower(hex(record_id)), stage, reason, kept, metric, score, threshold,"
            " other, detail from findings"
        ),
        [
            ("dataset", _TEXT),
            ("record_id", _TEXT),
            ("stage", _TEXT),
            ("reason", _TEXT),
            ("kept", pa.bool_()),
            ("metric", _TEXT),
            ("score", pa.float64()),
            ("threshold", pa.float64()),
            ("other", _TEXT),
            ("detail", _TEXT),
        ],
    ),
    "decisions": (
        "select decision_id, run_id, stage, subject, outcome, decision, decided_us from decisions",
        [
            ("decision_id", _INT),
            ("run_id", _TEXT),
            ("stage", _TEXT),
            ("subject", _TEXT),
            ("outcome", _TEXT),
            ("decision", _TEXT),
            ("decided_time", _TIME),
        ],
    ),
    "shards": (
        "select name, dataset, split, rows, sha256, size_bytes, committed_us from shards",
        [
            ("name", _TEXT),
            ("dataset", _TEXT),
            ("split", _TEXT),
            ("rows", _INT),
            ("sha256", _TEXT),
            ("size_bytes", _INT),
            ("committed_time", _TIME),
        ],
    ),
    "datasets": (
        "select name, version, status, manifest, sealed_us from datasets",
        [("name", _TEXT), ("version", _TEXT), ("status", _TEXT), ("manifest", _TEXT), ("sealed_time", _TIME)],
    ),
    "students": (
        "select student_id, run_id, dataset, facts, trained_us from students",
        [("student_id", _TEXT), ("run_id", _TEXT), ("dataset", _TEXT), ("facts", _TEXT), ("trained_time", _TIME)],
    ),
}
"""The journal's tables as questions see them: our SQL, and the columns it gives."""


def journal_tables(corpus: Corpus) -> dict[str, pa.Table]:
    """The journal's tables in Arrow."""
    return {name: _table(corpus, *source) for name, source in TABLES.items()}


def _table(corpus: Corpus, sql: str, columns: list[tuple[str, pa.DataType]]) -> pa.Table:
    rows = corpus.journal.query(sql)
    arrays = [pa.array([_read(row[at], kind) for row in rows], kind) for at, (_, kind) in enumerate(columns)]
    return pa.table(arrays, schema=pa.schema(columns))


def _read(value: Json, kind: pa.DataType) -> Json:
    return bool(value) if kind == pa.bool_() else value  # SQLite has no truth values
