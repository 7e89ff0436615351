"""Looking at a corpus: its state in figures, and questions in SQL."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pyarrow as pa

from corpusgen.budget.amounts import unit_name
from corpusgen.budget.compute import worth_by_scope
from corpusgen.budget.leases import leased
from corpusgen.budget.ledger import balances
from corpusgen.corpus import Corpus, moment
from corpusgen.provenance.lineage import SCHEMAS, VIEWS
from corpusgen.records import Json
from corpusgen.stages.erasures import erasures
from corpusgen.stages.served import served_models
from corpusgen.store.manifest import read_manifest
from corpusgen.store.query import FiledSchema, QueryLimits, QueryResult, run_query

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


STAGE: Final = "iif(instr(stage, '#'), substr(stage, 1, instr(stage, '#') - 1), stage)"
"""The stage of a drop without the number of the sample."""


def ask_sql(corpus: Corpus, sql: str, limits: QueryLimits) -> QueryResult:
    """The answer to one question. Raises QueryError for what is wrong, refused, too long or too large."""
    manifest = read_manifest(corpus.folder)
    return run_query(
        sql,
        shard_paths=manifest.paths(corpus.folder),
        tables=journal_tables(corpus),
        filed=lineage_schema(corpus),
        limits=limits,
    )


def lineage_schema(corpus: Corpus) -> FiledSchema:
    """The lineage as a schema for questions; it is traced when a question is put to it."""

    def files() -> dict[str, Path]:
        from corpusgen.stages.tracing import lineage_files

        return lineage_files(corpus)

    return FiledSchema(name="lineage", tables=SCHEMAS, views=VIEWS, files=files)


def journal_tables(corpus: Corpus) -> dict[str, pa.Table]:
    """The journal's tables in Arrow."""
    return {name: _table(corpus, *source) for name, source in TABLES.items()}


def _table(corpus: Corpus, sql: str, columns: list[tuple[str, pa.DataType]]) -> pa.Table:
    rows = corpus.journal.query(sql)
    arrays = [pa.array([_read(row[at], kind) for row in rows], kind) for at, (_, kind) in enumerate(columns)]
    return pa.table(arrays, schema=pa.schema(columns))


def _read(value: Json, kind: pa.DataType) -> Json:
    return bool(value) if kind == pa.bool_() else value  # SQLite has no truth values


def corpus_status(corpus: Corpus) -> dict[str, Json]:
    """Everything ``corpusgen status`` says; money in micro-dollars."""
    journal = corpus.journal
    return {
        "corpus": str(corpus.folder),
        "records": journal.query("select count(*) from records")[0][0],
        "shards": journal.query("select count(*) from shards")[0][0],
        "in_flight": journal.query("select count(*) from calls where state = 'promised'")[0][0],
        "balances": list(_balances(corpus)),
        "runs": [
            {
                "run_id": row[0],
                "task": row[1],
                "status": row[2],
                "started": moment(row[3]).isoformat(timespec="seconds"),
                "unanswered": row[4],
            }
            for row in journal.query(
                "select run_id, task, status, started_us, (select count(*) from drops d"
                " where d.run_id = runs.run_id and stage glob 'ask:*') from runs order by started_us"
            )
        ],
        "batches": list(_batches(corpus)),
        "teachers": list(_teachers(corpus)),
        "models": _models(corpus),
        "drops": [
            {"stage": row[0], "reason": row[1], "items": row[2], "details": _details(corpus, row[0], row[1])}
            for row in journal.query(
                f"select {STAGE}, reason, count(*) from drops group by 1, 2 order by 3 desc"  # noqa: S608 - own text
            )
        ],
        "datasets": [
            {"dataset": f"{row[0]}-{row[1]}", "status": row[2], "rows": rows_of(row[3])}
            for row in journal.query("select name, version, status, manifest from datasets order by sealed_us")
        ],
        "students": [
            {"student_id": row[0], "dataset": row[1]}
            for row in journal.query("select student_id, dataset from students order by trained_us")
        ],
        "erasures": [
            {
                "erasure_id": one["erasure_id"],
                "selector": one["selector"],
                "erased": str(one["erased_time"])[:19],
                "by": one["by"],
                "unfinished": "unfinished" in one,
                "records": one.get("records"),
                "revoked": one["datasets"],
                "retrain": one["students"],
            }
            for one in erasures(corpus)
        ],
    }


def rows_of(manifest: str) -> int:
    """Rows of a dataset version in all its splits; before there were splits, a version had one file."""
    fields = json.loads(manifest)
    return sum(file["rows"] for file in (fields["files"].values() if "files" in fields else [fields["file"]]))


def teachers_seen(corpus: Corpus) -> list[str]:
    """The names of the teachers that calls were booked for here."""
    return [row[0] for row in corpus.journal.query("select distinct teacher from calls order by 1")]


def _details(corpus: Corpus, stage: str, reason: str) -> list[str]:
    """The first few different details of a reason."""
    sql = f"select detail from drops where {STAGE} = ? and reason = ? and detail != '' group by 1 order by min(item_id)"  # noqa: S608
    return [row[0] for row in corpus.journal.query(f"{sql} limit 3", (stage, reason))]


def _teachers(corpus: Corpus) -> Iterator[dict[str, Json]]:
    """What each teacher was asked and answered in each role, and what that came to."""
    rows = corpus.journal.query(
        "select c.teacher, case when c.role like '%:fallback:%' then 'fallback'"
        " when c.role like '%:mixture:%' then 'mixture' when c.role like '%:judge:%' then 'judge'"
        " else 'primary' end, count(*), count(a.call_id),"
        " coalesce(sum(c.microusd), 0), coalesce(sum(c.tokens), 0)"
        " from calls c left join answers a using (call_id) where c.role like '%:%' group by 1, 2 order by 1, 2"
    )
    for teacher, role, calls, answers, microusd, tokens in rows:
        yield {
            "teacher": teacher,
            "role": role,
            "calls": calls,
            "answers": answers,
            "microusd": microusd,
            "tokens": tokens,
        }


def _models(corpus: Corpus) -> list[dict[str, Json]] | None:
    """Who really answered how many records; None where a shard cannot be read."""
    found = served_models(corpus)
    if found is None:
        return None
    return [
        {
            "teacher": one.teacher,
            "asked": one.asked,
            "served": one.served,
            "records": one.records,
            "another": one.another,
            "aside": one.aside,
        }
        for one in found
    ]


def _batches(corpus: Corpus) -> Iterator[dict[str, Json]]:
    """The batches under way, oldest first: what the provider said last, and what is promised for them."""
    rows = corpus.journal.query(
        "select b.batch_id, b.provider_batch_id, b.teacher, b.run_id, b.state, b.lines, b.said, b.intended_us,"
        " coalesce(sum(c.reserved_microusd), 0) from batches b left join calls c"
        " on c.batch_id = b.batch_id and c.state = 'promised' where b.state in ('intended', 'submitted')"
        " group by b.batch_id order by b.intended_us, b.batch_id"
    )
    for name, provider_id, teacher, run_id, state, lines, said, since, promised in rows:
        told = json.loads(said)
        yield {
            "batch_id": name,
            "provider_batch_id": provider_id,
            "teacher": teacher,
            "run_id": run_id,
            "state": state,
            "provider_state": told.get("word"),
            "requests": lines,
            "answered": told.get("answered", 0),
            "promised_microusd": promised,
            "since": moment(since).isoformat(timespec="seconds"),
        }


def budget_status(corpus: Corpus) -> dict[str, Json]:
    """Everything ``corpusgen budget show`` says; money in micro-dollars, times in microseconds."""
    return {
        "corpus": str(corpus.folder),
        "caps_live_in": str(corpus.journal.path),
        "balances": [
            one | {"left": None if one["cap"] is None else max(0, one["cap"] - _gone(one))} for one in _balances(corpus)
        ],
    }


def _gone(one: dict[str, Json]) -> int:
    return int(one["settled"] + one["promised"] + one["unconfirmed"])


def _balances(corpus: Corpus) -> Iterator[dict[str, Json]]:
    held, worth = leased(corpus.journal), worth_by_scope(corpus.journal)
    for one in balances(corpus.journal):
        if one.per != "total" and one.cap is None:
            continue  # a day or month that is over
        yield {
            "scope": one.scope,
            "unit": unit_name(one.unit),
            "settled": one.settled,
            "promised": one.promised,
            "unconfirmed": one.unconfirmed,
            "leased": held.get((one.scope, one.unit), 0),
            "worth_microusd": worth.get(one.scope) if one.unit == "compute_us" else None,
            "cap": one.cap,
            "origin": one.origin,
            "per": one.per,
        }
