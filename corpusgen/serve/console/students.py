"""Students: what was trained, on what, how good it is, and its report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson
from aiohttp import web

from corpusgen.corpus import Corpus
from corpusgen.serve.console.aside import aside
from corpusgen.serve.console.pages import page
from corpusgen.serve.console.runs import report_of
from corpusgen.serve.routes import caller_of
from corpusgen.serve.service import service_of
from corpusgen.serve.statuses import NoSuch
from corpusgen.stages.release.evaluations import evaluation_of

_COLUMNS: Final = "student_id, run_id, dataset, facts, trained_us"


async def students(request: web.Request) -> web.StreamResponse:
    """All of them, the newest first."""
    return page(request, "students.html", students=await aside(_all, service_of(request).corpus))


def _all(corpus: Corpus) -> list[Mapping[str, Any]]:
    rows = corpus.journal.query(f"select {_COLUMNS} from students order by trained_us desc limit 500")  # noqa: S608 - own names
    return [_student(corpus, row) for row in rows]


def _student(corpus: Corpus, row: tuple[Any, ...]) -> Mapping[str, Any]:
    student_id, run_id, dataset, facts, trained = row
    return {
        "student_id": student_id,
        "run_id": run_id,
        "dataset": dataset,
        "trained": trained,
        "facts": orjson.loads(facts),
        "evaluation": evaluation_of(corpus, student_id),
        "report": report_of(corpus, run_id) is not None,
    }


async def student(request: web.Request) -> web.StreamResponse:
    """One of them."""
    corpus, named = service_of(request).corpus, request.match_info["student"]
    rows = corpus.journal.query(f"select {_COLUMNS} from students where student_id = ?", (named,))  # noqa: S608 - own names
    if not rows:
        raise NoSuch("there is no such student")
    releases = await aside(_releases, corpus, named)
    every = await service_of(request).desk.serving(caller_of(request))
    serving = [one for one in every if one["student_id"] == named]
    return page(request, "student.html", student=_student(corpus, rows[0]), releases=releases, serving=serving)


def _releases(corpus: Corpus, student_id: str) -> list[Mapping[str, Any]]:
    from corpusgen.stages.release.released import noted_releases

    told = (one.to_json() for one in noted_releases(corpus))
    return [one for one in told if one.get("student_id") == student_id]
