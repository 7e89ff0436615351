"""Runs: the list, one of them while it goes on and afterwards, and what its questions cover of their pool."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import web

from corpusgen.corpus import Corpus
from corpusgen.errors import CorpusgenError
from corpusgen.evaluate.report.facts import FunnelStep, Loss
from corpusgen.serve.console.aside import aside, slowly
from corpusgen.serve.console.charts import budget_bars, coverage_map, funnel
from corpusgen.serve.console.forms import fields_of, see
from corpusgen.serve.console.overview import fragment
from corpusgen.serve.console.pages import HEADERS, page
from corpusgen.serve.console.submissions import of_run, under_way
from corpusgen.serve.reading import parameters_of
from corpusgen.serve.routes import caller_of
from corpusgen.serve.runs import OVER, SubmittedRun
from corpusgen.serve.service import Service, service_of
from corpusgen.serve.statuses import NoSuch
from corpusgen.serve.submitted import Rules, tasks_in
from corpusgen.stages.loading import load_task
from corpusgen.stages.looking import STAGE, budget_status
from corpusgen.stages.task import Task

MOST: Final = 50
_RUN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._#:-]{0,199}")
_COLUMNS: Final = "run_id, task, status, started_us, ended_us, spec_digest"
_REPORT: Final = {
    **HEADERS,
    # A page of its own: it has its style inside, and nothing in it may run, load or lead a form anywhere.
    "Content-Security-Policy": "sandbox allow-same-origin; default-src 'none'; style-src 'unsafe-inline';"
    " img-src data:",
}
_ANSWERS: Final = (
    "(select count(*) from records where records.run_id = runs.run_id)"
    " + (select count(*) from reuses where reuses.run_id = runs.run_id)"
)
"""Answers of a run, those among them that another run had already."""
_MOST_DROPS: Final = 100


async def runs(request: web.Request) -> web.StreamResponse:
    """Every run, the newest first, after those that wait."""
    service, asked = service_of(request), parameters_of(request)
    found = await aside(_listed, service.corpus, asked.get("before", ""))
    return page(request, "runs.html", first="before" not in asked, submitted=under_way(service.corpus), **found)


def _listed(corpus: Corpus, before: str) -> dict[str, Any]:
    rows = corpus.journal.query(
        f"select {_COLUMNS}, (select settled from balances where scope = 'run:' || run_id and unit = 'microusd'),"  # noqa: S608
        f" {_ANSWERS} from runs"
        " where ? = '' or (started_us, run_id) < (select started_us, run_id from runs where run_id = ?)"
        " order by started_us desc, run_id desc limit ?",
        (before, before, MOST + 1),
    )
    names = ("run_id", "task", "status", "started", "ended", "spec_digest", "microusd", "records")
    found = [dict(zip(names, row, strict=True)) for row in rows[:MOST]]
    return {"runs": found, "further": found[-1]["run_id"] if len(rows) > MOST else ""}


# --- One run ---------------------------------------------------------------------------------------------------------


async def run(request: web.Request) -> web.StreamResponse:
    """A run, by its own name or by that of its submission."""
    return page(request, "run.html", **await aside(_whole, service_of(request), _named(request)))


async def live(request: web.Request) -> web.StreamResponse:
    """The part of it that changes."""
    return fragment(request, "run_live.html", **await aside(_state, service_of(request), _named(request)))


def _named(request: web.Request) -> str:
    named = request.match_info["run"]
    if not _RUN.fullmatch(named):
        raise NoSuch("there is no such run")
    return named


def _state(service: Service, named: str) -> dict[str, Any]:
    """What may change while it runs."""
    submitted, row = _found(service, named)
    run_id = row["run_id"] if row else ""
    drops = _drops(service.corpus, run_id) if run_id else []
    every = [
        one for one in budget_status(service.corpus)["balances"] if one["scope"].partition("@")[0] == f"run:{run_id}"
    ]
    over = (submitted is None or submitted.state in OVER) and (row is None or row["status"] != "open")
    return {
        "named": named,
        "run": row,
        "submitted": submitted,
        "progress": _progress(service, submitted),
        "balances": [one for one in every if any(one[kind] for kind in ("settled", "promised", "unconfirmed", "cap"))],
        "bars": budget_bars(every, "run-caps"),
        "drops": drops,
        "over": over,
    }


def _found(service: Service, named: str) -> tuple[SubmittedRun | None, Mapping[str, Any] | None]:
    """The submission and the run it has come to be; either may be missing."""
    rows = service.corpus.journal.query("select 1 from service_runs where service_run_id = ?", (named,))
    submitted = service.runs.find(named) if rows else None
    run_id = (submitted.run_id or "") if submitted else named
    found = service.corpus.journal.query(
        f"select {_COLUMNS}, {_ANSWERS} from runs"  # noqa: S608
        " where run_id = ?",
        (run_id,),
    )
    if submitted is None and not found:
        raise NoSuch("there is no such run")
    if submitted is None and (known := of_run(service.corpus, named)) is not None:
        submitted = service.runs.find(known["id"])
    names = ("run_id", "task", "status", "started", "ended", "spec_digest", "records")
    return submitted, dict(zip(names, found[0], strict=True)) if found else None


def _progress(service: Service, submitted: SubmittedRun | None) -> Mapping[str, Any]:
    if submitted is None or submitted.state in OVER:
        return {}
    return service.runs.progress(submitted)


def _drops(corpus: Corpus, run_id: str) -> list[Mapping[str, Any]]:
    rows = corpus.journal.query(
        f"select {STAGE}, reason, count(*), min(coalesce(nullif(detail, ''), repeat_of)) from drops where run_id = ?"  # noqa: S608
        " group by 1, 2 order by 3 desc limit ?",
        (run_id, _MOST_DROPS),
    )
    return [{"stage": row[0], "reason": row[1], "items": row[2], "example": row[3]} for row in rows]


def _whole(service: Service, named: str) -> dict[str, Any]:
    found = _state(service, named)
    row = found["run"]
    run_id = row["run_id"] if row else ""
    query = service.corpus.journal.query
    return found | {
        "funnel": funnel(_pool_steps(service.corpus, run_id)) if row else "",
        "decisions": _decisions(service.corpus, run_id),
        "splits": query("select split, count(*) from records where run_id = ? group by 1 order by 1", (run_id,)),
        "report": report_of(service.corpus, run_id) is not None,
        "mapped": bool(row)
        and bool(query("select 1 from records where run_id = ? and split = 'train' limit 1", (run_id,))),
        "students": query("select student_id, dataset from students where run_id = ?", (run_id,)),
    }


def _pool_steps(corpus: Corpus, run_id: str) -> list[FunnelStep]:
    """The funnel of what was asked for training; what is held out for testing was never in it."""
    rows = corpus.journal.query(
        f"select {STAGE}, reason, count(*) from drops where run_id = ? and item_id glob 'train:*' group by 1, 2",  # noqa: S608
        (run_id,),
    )
    answered = corpus.journal.query(
        "select (select count(*) from records where run_id = :run and split = 'train') + (select count(*) from reuses u"
        " join records using (record_id) where u.run_id = :run and split = 'train')",
        {"run": run_id},
    )[0][0]
    return steps([{"stage": row[0], "reason": row[1], "items": row[2]} for row in rows], answered)


def steps(drops: Sequence[Mapping[str, Any]], records: int) -> list[FunnelStep]:
    """What each stage of a run left, worked out from what it dropped and what was answered."""
    by_stage: dict[str, list[Loss]] = {}
    for one in drops:
        # What had no answer, and what was dropped before anybody was asked: two steps whatever their stages are called.
        late = str(one["stage"]).partition(":")[0] == "ask"
        by_stage.setdefault("ask" if late else "pool", []).append(Loss(reason=str(one["reason"]), count=one["items"]))
    answered = FunnelStep(name="answered", left=records, losses=tuple(by_stage.get("ask", ())))
    asked = records + sum(loss.count for loss in answered.losses)
    checked = FunnelStep(name="worth asking", left=asked, losses=tuple(by_stage.get("pool", ())))
    met = FunnelStep(name="met in the pool", left=asked + sum(loss.count for loss in checked.losses))
    return [met, checked, answered] if drops else []


def _decisions(corpus: Corpus, run_id: str) -> list[Mapping[str, Any]]:
    rows = corpus.journal.query(
        "select decision_id, stage, subject, outcome, json_extract(decision, '$.role'), decided_us from decisions"
        " where run_id = ? order by decision_id desc limit 20",
        (run_id,),
    )
    names = ("decision_id", "stage", "subject", "outcome", "role", "decided")
    return [dict(zip(names, row, strict=True)) for row in rows]


async def cancel(request: web.Request) -> web.StreamResponse:
    """End a submitted run; what is in flight is waited for."""
    await fields_of(request)
    done = await service_of(request).runs.cancel(_named(request), caller_of(request))
    return see(f"/console/runs/{done.id}")


# --- The report and the map ------------------------------------------------------------------------------------------


def report_of(corpus: Corpus, run_id: str) -> bytes | None:
    """The report that was written at a run's end, if there is one."""
    known = corpus.journal.query("select 1 from runs where run_id = ?", (run_id,))
    path = corpus.folder / "reports" / run_id / "report.html"
    return path.read_bytes() if known and path.is_file() and not path.is_symlink() else None


async def report(request: web.Request) -> web.StreamResponse:
    """A report, as it was written, in a page that can do nothing."""
    found = await slowly(request, report_of, service_of(request).corpus, _named(request))
    if found is None:
        raise NoSuch("this run has no report; corpusgen distill writes one")
    return web.Response(body=found, content_type="text/html", charset="utf-8", headers=_REPORT)


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """A run as a map of what it asked needs it."""

    task: Task
    corpus: Corpus
    run_id: str


async def cover(request: web.Request) -> web.StreamResponse:
    """The map of what was asked about, in its pool."""
    service, named = service_of(request), _named(request)
    drawn, why = await slowly(request, _map, service, named)
    return page(request, "coverage.html", named=named, drawn=drawn, why=why)


def _map(service: Service, named: str) -> tuple[Any, str]:
    _, row = _found(service, named)
    if row is None:
        return None, "The run has not begun."
    task = _task_of(service.runs.rules, str(row["spec_digest"]), str(row["task"]))
    if task is None:
        return None, "The task of this run is not in the tasks folder as it was then, so nobody knows its pool."
    from corpusgen.stages.report.mapping import coverage

    found = coverage(_Asked(task=task, corpus=service.corpus, run_id=str(row["run_id"])))
    if found is None:
        return None, "Too few items were asked about to draw a map."
    return coverage_map(found), ""


def _task_of(rules: Rules, spec_digest: str, name: str) -> Task | None:
    """The task of a run, if the tasks folder has it as it was."""
    for _, path in tasks_in(rules):
        try:
            if name in path.read_text("utf-8", "replace"):
                task = load_task(path)
                if task.identity == spec_digest:
                    return task
        except (CorpusgenError, OSError):
            continue
    return None
