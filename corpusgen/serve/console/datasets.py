"""Datasets: their versions, what each holds, and taking one away."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import orjson
from aiohttp import web

from corpusgen.corpus import Corpus
from corpusgen.evaluate.report.facts import FunnelStep, Loss
from corpusgen.serve.callers import Caller
from corpusgen.serve.console.aside import aside, slowly
from corpusgen.serve.console.auditing import attachment
from corpusgen.serve.console.charts import funnel
from corpusgen.serve.console.forms import fields_of
from corpusgen.serve.console.pages import page
from corpusgen.serve.routes import caller_of
from corpusgen.serve.service import service_of
from corpusgen.serve.statuses import NoSuch, Refused
from corpusgen.serve.submitted import Rules, Wanted, read_wanted
from corpusgen.stages.looking import rows_of

_LABEL: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}-[0-9]{1,9}")
_ENDINGS: Final = {"croissant": "json", "spdx": "json"}
_TYPES: Final = {"jsonl": "application/jsonl", "json": "application/json", "md": "text/markdown"}


async def datasets(request: web.Request) -> web.StreamResponse:
    """Every version of every dataset."""
    return page(request, "datasets.html", datasets=await aside(_all, service_of(request).corpus))


def _all(corpus: Corpus) -> list[Mapping[str, Any]]:
    rows = corpus.journal.query(
        "select name, version, status, manifest, sealed_us from datasets order by sealed_us desc limit 500"
    )
    return [
        {"label": f"{row[0]}-{row[1]}", "status": row[2], "rows": rows_of(row[3]), "made": row[4],
         "licence": _counted(orjson.loads(row[3]), "licence")}
        for row in rows
    ]  # fmt: skip


def _counted(manifest: Mapping[str, Any], what: str) -> Mapping[str, int]:
    found = (manifest.get("seal") or {}).get("counts") or {}
    return dict(found.get(what) or {})


async def dataset(request: web.Request) -> web.StreamResponse:
    """One version."""
    service, label = service_of(request), _label(request)
    rows = service.corpus.journal.query(
        "select name, status, manifest, sealed_us from datasets where name || '-' || version = ?", (label,)
    )
    if not rows:
        raise NoSuch("there is no such dataset")
    name, status, text, made = rows[0]
    manifest = orjson.loads(text)
    seal = manifest.get("seal") or {}
    tasks = [one for one in await aside(service.runs.tasks) if one["name"] == name]
    return page(
        request,
        "dataset.html",
        label=label,
        state=status,
        made=made,
        rows=rows_of(text),
        files=manifest.get("files") or {"train": manifest.get("file")},
        seal=seal,
        counts={what: _counted(manifest, what) for what in ("teacher", "licence", "split", "kind")},
        filters={
            key: value for key, value in (manifest.get("filters") or {}).items() if value not in (None, "", False)
        },
        funnel=funnel(_steps(manifest.get("funnel") or {})),
        documents=await aside(_documents),
        tasks=tasks,
    )


def _documents() -> list[str]:
    from corpusgen.stages.exporting import DOCUMENTS  # with what reads and writes rows

    return list(DOCUMENTS)


def _label(request: web.Request) -> str:
    label = request.match_info["dataset"]
    if not _LABEL.fullmatch(label):
        raise NoSuch("there is no such dataset")
    return label


def _steps(told: Mapping[str, int]) -> list[FunnelStep]:
    """The funnel of a version: what was read, what was left out for which reason, what was kept."""
    read, kept = told.get("read", 0), told.get("kept", 0)
    losses = tuple(
        Loss(reason=why, count=count) for why, count in told.items() if why not in ("read", "kept") and count
    )
    return [FunnelStep(name="read", left=read), FunnelStep(name="kept", left=kept, losses=losses)]


async def export(request: web.Request) -> web.StreamResponse:
    """A dataset or a document about it, as a file; the ledger notes that rows went out."""
    fields, label = await fields_of(request), _label(request)
    service, caller = service_of(request), caller_of(request)
    kind, split = fields.get("kind", ""), fields.get("split", "") or "train"
    if kind == "chat":
        body, ending = await slowly(request, _chat, service.corpus, label, split, caller.user), "jsonl"
        return attachment(body, f"{label}-{split}.jsonl", _TYPES[ending])
    documents = await aside(_documents)
    if kind not in documents:
        raise Refused(400, f"a dataset is exported as chat, {', '.join(documents)}")
    rules = service.runs.rules
    body = await slowly(request, _document, service.corpus, rules, caller, label, kind, fields.get("task", ""))
    ending = _ENDINGS.get(kind, "md")
    return attachment(body, f"{label}-{kind}.{ending}", _TYPES[ending])


def _chat(corpus: Corpus, label: str, split: str, by: str) -> bytes:
    from corpusgen.export.chat import export_chat
    from corpusgen.stages.exporting import note_export, rows_to_export

    sealed, paths = rows_to_export(corpus, label, split)
    with TemporaryDirectory() as folder:
        made = export_chat(paths, Path(folder) / "rows.jsonl")
        note_export(corpus, sealed, "chat", split, made.path, made.rows, by=by)
        return made.path.read_bytes()


def _document(corpus: Corpus, rules: Rules, caller: Caller, label: str, kind: str, named: str) -> bytes:
    from corpusgen.stages.exporting import export_document

    task = read_wanted(rules, Wanted(task=named), caller).task
    with TemporaryDirectory() as folder:
        return export_document(corpus, task, label, kind, Path(folder) / "document").path.read_bytes()
