"""Looking at a corpus: its state in figures."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Final

from corpusgen.budget.amounts import unit_name
from corpusgen.budget.compute import worth_by_scope
from corpusgen.budget.leases import leased
from corpusgen.budget.ledger import balances
from corpusgen.corpus import Corpus, moment
from corpusgen.records import Json
from corpusgen.stages.erasure.erasures import erasures
from corpusgen.stages.served import served_models

STAGE: Final = "iif(instr(stage, '#'), substr(stage, 1, instr(stage, '#') - 1), stage)"
"""The stage of a drop without the number of the sample."""


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
