"""Datasets and students."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any, Final

import orjson
from aiohttp import web

from corpusgen.corpus import Corpus, moment
from corpusgen.errors import UsageError
from corpusgen.records import Json
from corpusgen.serve.api.models import (
    DatasetsTold,
    DatasetTold,
    DatasetWanted,
    DatasetWhole,
    ServingsTold,
    ServingTold,
    StudentsTold,
    StudentTold,
)
from corpusgen.serve.api.saying import aside, said
from corpusgen.serve.callers import Caller
from corpusgen.serve.reading import body_of
from corpusgen.serve.routes import Operation, caller_of
from corpusgen.serve.service import service_of
from corpusgen.serve.slowly import READING
from corpusgen.serve.statuses import NoSuch
from corpusgen.serve.submitted import Rules, Wanted, looked_at
from corpusgen.stages.release.evaluations import evaluation_of
from corpusgen.stages.task import Task

_DATASETS: Final = (
    "select name, version, status, manifest, sealed_us from datasets order by name, cast(version as integer) desc"
)


def datasets(corpus: Corpus) -> list[DatasetTold]:
    """Every version of every dataset, the newest of each first."""
    return [DatasetTold(**_told(row)) for row in corpus.journal.query(_DATASETS)]


def dataset(corpus: Corpus, named: str) -> DatasetWhole:
    """A version by its label, or the newest of a name. Raises NoSuch."""
    for row in corpus.journal.query(_DATASETS):
        if named in (f"{row[0]}-{row[1]}", row[0]):
            fields = orjson.loads(row[3])
            return DatasetWhole(**_told(row), funnel=fields["funnel"], files=_files(fields))
    raise NoSuch(f"no dataset {named!r:.120}; GET /api/v1/datasets lists them")


def _files(fields: dict[str, Json]) -> dict[str, Json]:
    found: dict[str, Json] = fields["files"] if "files" in fields else {"train": fields["file"]}
    return found


def _told(row: tuple[Any, ...]) -> dict[str, Json]:
    name, version, status, manifest, made_us = row
    fields = orjson.loads(manifest)
    seal = fields.get("seal")
    splits = {split: file["rows"] for split, file in _files(fields).items()}
    licence = [] if seal is None else sorted(seal["counts"]["licence"])
    return {
        "dataset": f"{name}-{version}",
        "name": name,
        "version": version,
        "status": status,
        "rows": sum(splits.values()),
        "splits": splits,
        "licence": licence,
        "made": moment(made_us),
        "manifest_sha256": None if seal is None else _digest(seal),
    }


def _digest(seal: dict[str, Json]) -> str:
    from corpusgen.provenance.seal import manifest_digest

    return manifest_digest(seal)


_STUDENTS: Final = "select student_id, run_id, dataset, facts, trained_us from students"


def students(corpus: Corpus) -> list[StudentTold]:
    """Every student, the newest first."""
    return [_student(corpus, row) for row in corpus.journal.query(f"{_STUDENTS} order by trained_us desc")]


def student(corpus: Corpus, named: str) -> StudentTold:
    """One student by its id. Raises NoSuch."""
    rows = corpus.journal.query(f"{_STUDENTS} where student_id = ?", (named,))
    if not rows:
        raise NoSuch(f"no student {named!r:.120}; GET /api/v1/students lists them")
    return _student(corpus, rows[0])


def _student(corpus: Corpus, row: tuple[Any, ...]) -> StudentTold:
    student_id, run_id, dataset, facts, trained_us = row
    return StudentTold(
        student_id=student_id,
        run_id=run_id,
        dataset=dataset,
        trained=moment(trained_us),
        facts=orjson.loads(facts),
        evaluation=evaluation_of(corpus, student_id),
    )


def make_version(corpus: Corpus, rules: Rules, wish: DatasetWanted, caller: Caller) -> DatasetWhole:
    """Choose which records of a task make a new version of its dataset, and seal it where that is asked for."""
    with ExitStack() as stack:
        named = wish.task is not None or wish.spec is not None
        if wish.seal and not named:
            raise UsageError("task: name the spec the records are of; a dataset is sealed under its terms and sources")
        wanted = Wanted(task=wish.task, spec=wish.spec, files=wish.files)
        task = stack.enter_context(looked_at(rules, wanted, caller)).task if named else None
        label = _selected(corpus, wish, task)
        if wish.seal and task is not None:
            from corpusgen.stages.sealing import seal_by_todays_terms

            seal_by_todays_terms(corpus, task, label)
        return dataset(corpus, label)


def _selected(corpus: Corpus, wish: DatasetWanted, task: Task | None) -> str:
    from corpusgen.stages.selecting import Filters, check_curated, latest_calibration, select

    filters = Filters(
        run_id=wish.run_id,
        split=wish.split,
        min_confidence=wish.min_confidence,
        keep_truncated=wish.keep_truncated,
        limit=wish.limit,
    )
    check_curated(corpus, wish.dataset, named=task is not None or wish.uncurated)
    calibration = latest_calibration(corpus, wish.dataset)
    judged_by = None if wish.uncurated else task
    return select(corpus, wish.dataset, filters=filters, calibration=calibration, task=judged_by).label


async def make_dataset(request: web.Request) -> web.Response:
    """A new version of a dataset."""
    wish, service = await body_of(request, DatasetWanted), service_of(request)
    made = await READING(caller_of(request), make_version, service.corpus, service.runs.rules, wish, caller_of(request))
    return said(made, status=201)


async def list_datasets(request: web.Request) -> web.Response:
    """Every dataset version."""
    return said(DatasetsTold(datasets=await aside(datasets, service_of(request).corpus)))


async def show_dataset(request: web.Request) -> web.Response:
    """One version with its funnel and files."""
    return said(await aside(dataset, service_of(request).corpus, request.match_info["dataset"]))


async def list_students(request: web.Request) -> web.Response:
    """Every student."""
    return said(StudentsTold(students=await aside(students, service_of(request).corpus)))


async def show_student(request: web.Request) -> web.Response:
    """One student."""
    return said(await aside(student, service_of(request).corpus, request.match_info["student"]))


async def list_serving(request: web.Request) -> web.Response:
    """Every student that answers here, with its counters."""
    found = await service_of(request).desk.serving(caller_of(request))
    return said(ServingsTold(serving=[ServingTold(**one) for one in found]))


OPERATIONS: Final = (
    Operation(
        method="POST",
        path="/api/v1/datasets",
        handler=make_dataset,
        scope="ask",
        summary="Select records of a task as a new version of its dataset, and seal it",
        body=DatasetWanted,
        answer=DatasetWhole,
        status=201,
        most_bytes=16 << 20,
        tag="datasets",
    ),
    Operation(
        method="GET",
        path="/api/v1/datasets",
        handler=list_datasets,
        scope="read",
        summary="Datasets with versions, rows, licence, and whether they are sealed",
        answer=DatasetsTold,
        tag="datasets",
    ),
    Operation(
        method="GET",
        path="/api/v1/datasets/{dataset}",
        handler=show_dataset,
        scope="read",
        summary="One dataset version, or the newest of a name, with funnel and files",
        answer=DatasetWhole,
        tag="datasets",
    ),
    Operation(
        method="GET",
        path="/api/v1/students",
        handler=list_students,
        scope="read",
        summary="Students with what they learned from and how good they were on gold",
        answer=StudentsTold,
        tag="students",
    ),
    Operation(
        method="GET",
        path="/api/v1/students/{student}",
        handler=show_student,
        scope="read",
        summary="One student",
        answer=StudentTold,
        tag="students",
    ),
    Operation(
        method="GET",
        path="/api/v1/serving",
        handler=list_serving,
        scope="read",
        summary="Students that answer here as student/NAME: what they have answered and left, drift, anomalies",
        answer=ServingsTold,
        tag="students",
    ),
)
