"""Figures that change while one looks: calls under way, money, tokens, what the cache saved, what went wrong."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from corpusgen.budget.ledger import balances
from corpusgen.corpus import Corpus, microseconds
from corpusgen.serve.console.charts import Burn

RECENT_US: Final = 60_000_000
"""What a rate is a mean of."""
DAY_US: Final = 86_400_000_000
_BUCKETS: Final = 120
_MOST_ERRORS: Final = 8

Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Now:
    """What is going on."""

    settled: int
    promised: int
    unconfirmed: int
    """Micro-dollars of the whole corpus, never added up: each is something else."""
    tokens: int
    in_flight: int
    answered: int
    """Calls that ended within the last minute."""
    per_s: float
    failed: int
    hits: int
    saved: int
    records: int
    waiting: int
    burn: Burn
    balances: Sequence[Row]
    errors: Sequence[Row]
    runs: Sequence[Row]
    teachers: Sequence[Row]


def look(corpus: Corpus) -> Now:
    """The state of a corpus at this moment; what it costs does not grow with how much was ever asked."""
    query, now = corpus.journal.query, microseconds(corpus.clock())
    since = first_call_since(corpus, now - 10 * RECENT_US)
    ended = query(
        "select count(*), coalesce(sum(state in ('unknown', 'released') or error is not null), 0) from calls"
        " where call_id >= ? and closed_us >= ?",
        (since, now - RECENT_US),
    )[0]
    whole = {one.unit: one for one in balances(corpus.journal, ["corpus"])}
    money, tokens = whole.get("microusd"), whole.get("tokens")
    hits = query("select coalesce(sum(hits), 0), coalesce(sum(saved_microusd), 0) from hits")[0]
    return Now(
        settled=money.settled if money else 0,
        promised=money.promised if money else 0,
        unconfirmed=money.unconfirmed if money else 0,
        tokens=tokens.settled if tokens else 0,
        in_flight=query("select count(*) from calls where state = 'promised'")[0][0],
        answered=ended[0],
        per_s=ended[0] / (RECENT_US / 1e6),
        failed=ended[1],
        hits=hits[0],
        saved=hits[1],
        records=query("select coalesce(sum(rows), 0) from shards")[0][0],
        waiting=query("select count(*) from records where shard is null")[0][0],
        burn=burn(corpus, now),
        balances=capped(corpus),
        errors=_errors(corpus, first_call_since(corpus, now - DAY_US), now - DAY_US),
        runs=_runs(corpus),
        teachers=_under_way(corpus),
    )


def first_call_since(corpus: Corpus, since_us: int) -> int:
    """The first call that was reserved at a time or after it; numbers of calls grow with time, so by halves."""
    query = corpus.journal.query
    low, high = query("select coalesce(min(call_id), 0), coalesce(max(call_id), -1) + 1 from calls")[0]
    while low < high:
        middle = (low + high) // 2
        row = query("select reserved_us from calls where call_id >= ? order by call_id limit 1", (middle,))
        if row and row[0][0] < since_us:
            low = middle + 1
        else:
            high = middle
    return int(low)


def capped(corpus: Corpus, scope: str = "") -> list[dict[str, Any]]:
    """Balances with a cap, as ``budget show`` tells them; with ``scope`` those of one."""
    from corpusgen.stages.looking import budget_status

    found = budget_status(corpus)["balances"]
    return [one for one in found if one["cap"] is not None and scope in ("", one["scope"].partition("@")[0])]


class _Kept:
    """The last answer to a question that is asked every second and costs something."""

    def __init__(self) -> None:
        self.until = 0.0
        self.key: object = None
        self.value: Any = None


_kept: Final = _Kept()


def burn(corpus: Corpus, now_us: int) -> Burn:
    """What was spent in the last day, in steps, against the tightest cap on all of the corpus."""
    key = (corpus.folder, corpus.journal.query("select coalesce(max(call_id), 0) from calls")[0][0])
    if _kept.key == key and time.monotonic() < _kept.until:
        kept: Burn = _kept.value
        return kept
    began = time.monotonic()
    made = _burn(corpus, now_us)
    # Over a day of many calls it is drawn less often: a twentieth of the time at most goes into it.
    _kept.key, _kept.value, _kept.until = key, made, time.monotonic() + 20 * (time.monotonic() - began)
    return made


def _burn(corpus: Corpus, now_us: int) -> Burn:
    query, start = corpus.journal.query, now_us - DAY_US
    first = first_call_since(corpus, start)
    began = query("select min(reserved_us) from calls where call_id >= ?", (first,))[0][0]
    if began is None:
        return Burn(points=(), until_us=now_us, cap=None, scope="corpus")
    width = max(1, (now_us - began) // _BUCKETS)
    rows = query(
        "select (closed_us - ?) / ?, sum(coalesce(microusd, 0)) from calls"
        " where call_id >= ? and closed_us is not null and state <> 'released' group by 1 order by 1",
        (began, width, first),
    )
    caps = [one for one in balances(corpus.journal, ["corpus", "service"]) if one.unit == "microusd"]
    tight = min((one for one in caps if one.cap is not None and one.per == "total"), default=None, key=lambda one: (
        (one.cap or 0) - one.settled - one.unconfirmed))  # fmt: skip
    whole = tight or next((one for one in caps if one.scope == "corpus"), None)
    used = whole.settled + whole.unconfirmed if whole else 0
    spent = used - sum(row[1] for row in rows)
    points = [(int(began), max(0, spent))]
    for bucket, microusd in rows:
        spent += microusd
        points.append((int(began + (bucket + 1) * width), max(0, spent)))
    return Burn(
        points=points, until_us=now_us, cap=tight.cap if tight else None, scope=tight.scope if tight else "corpus"
    )


def _errors(corpus: Corpus, first: int, since_us: int) -> list[Row]:
    rows = corpus.journal.query(
        "select teacher, coalesce(error, state), count(*), max(closed_us) from calls where call_id >= ?"
        " and (error is not null or state in ('unknown', 'released', 'overrun')) and closed_us >= ?"
        " group by 1, 2 order by 4 desc limit ?",
        (first, since_us, _MOST_ERRORS),
    )
    return [{"teacher": row[0], "error": row[1], "calls": row[2], "last": row[3]} for row in rows]


def _runs(corpus: Corpus) -> list[Row]:
    rows = corpus.journal.query(
        "select run_id, task, status, started_us from runs where status not in ('complete', 'partial', 'failed')"
        " order by started_us desc limit 20"
    )
    return [{"run_id": row[0], "task": row[1], "status": row[2], "started": row[3]} for row in rows]


def _under_way(corpus: Corpus) -> list[Row]:
    rows = corpus.journal.query(
        "select teacher, count(*), sum(reserved_microusd), min(reserved_us) from calls where state = 'promised'"
        " group by 1 order by 2 desc"
    )
    return [{"teacher": row[0], "calls": row[1], "promised": row[2], "oldest": row[3]} for row in rows]
