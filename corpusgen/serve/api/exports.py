"""Exports: a sealed dataset as rows, as its folder, or as a document about it, streamed and nothing left behind."""

from __future__ import annotations

import os
import shutil
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, BinaryIO, Final

from aiohttp import web

from corpusgen.corpus import Corpus
from corpusgen.errors import UsageError
from corpusgen.serve.api.models import ExportWanted
from corpusgen.serve.api.saying import aside
from corpusgen.serve.callers import Caller
from corpusgen.serve.reading import body_of
from corpusgen.serve.routes import Operation, caller_of
from corpusgen.serve.service import service_of
from corpusgen.serve.slowly import READING
from corpusgen.serve.submitted import Rules, Wanted, read_wanted
from corpusgen.stages.task import Task

if TYPE_CHECKING:
    from corpusgen.stages.sealing import Sealed

PIECE: Final = 1 << 18
_TYPES: Final = {
    ".jsonl": "application/jsonl",
    ".parquet": "application/vnd.apache.parquet",
    ".json": "application/json",
    ".md": "text/markdown",
    ".txt": "text/plain",
    ".tar": "application/x-tar",
}
_ENDINGS: Final = {"croissant": ".json", "spdx": ".json"}
"""Documents that are JSON; the others are Markdown."""


async def export(request: web.Request) -> web.StreamResponse:
    """A file made of a sealed dataset."""
    wish, service, caller = await body_of(request, ExportWanted), service_of(request), caller_of(request)
    if wish.to not in ("chat", "dataset") and wish.task is None:
        raise UsageError(f"task: {wish.to} is about the whole dataset; name the spec it was made with")
    folder = Path(await aside(mkdtemp, prefix="corpusgen-export-"))
    try:
        made = await READING(caller, _made, service.corpus, service.runs.rules, wish, caller, folder)
        with made.open("rb") as file:
            # Unlinked while it is open: whatever happens to this process, nothing is left of it.
            shutil.rmtree(folder, ignore_errors=True)
            return await _sent(request, file, made)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _made(corpus: Corpus, rules: Rules, wish: ExportWanted, caller: Caller, folder: Path) -> Path:
    task = None if wish.task is None else read_wanted(rules, Wanted(task=wish.task), caller).task
    if wish.to == "dataset":
        return _folder_of(corpus, wish, folder, task, caller.user)
    if wish.to == "chat":
        return _rows_of(corpus, wish, folder, task, caller.user)
    from corpusgen.stages.exporting import export_document

    assert task is not None
    out = folder / f"{wish.dataset}.{wish.to}{_ENDINGS.get(wish.to, '.md')}".replace(os.sep, "_")
    return export_document(corpus, task, wish.dataset, wish.to, out).path


def _rows_of(corpus: Corpus, wish: ExportWanted, folder: Path, task: Task | None, by: str) -> Path:
    from corpusgen.export.chat import export_chat
    from corpusgen.stages.exporting import note_export, rows_to_export

    sealed, paths = rows_to_export(corpus, wish.dataset, wish.split, task)
    made = export_chat(paths, folder / f"{sealed.label}-{wish.split}.{wish.format}")
    note_export(corpus, sealed, "chat", wish.split, made.path, made.rows, by=by)
    return made.path


def _folder_of(corpus: Corpus, wish: ExportWanted, folder: Path, task: Task | None, by: str) -> Path:
    """The dataset's folder as a tar, if the rows may go out."""
    from corpusgen.stages.exporting import note_export, rows_to_export
    from corpusgen.stages.sealing import sealed_dataset

    found = sealed_dataset(corpus, wish.dataset)
    sealed, _ = rows_to_export(corpus, wish.dataset, _a_split(found), task)
    out = folder / f"{sealed.label}.tar"
    with tarfile.open(out, "w") as tar:
        tar.add(sealed.folder, arcname=sealed.label, filter=_plain)
    note_export(corpus, sealed, "tar", "all", out, sealed.rows, by=by)
    return out


def _a_split(sealed: Sealed) -> str:
    from corpusgen.stages.selecting import split_of

    return split_of(sealed.files[0].name)


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Without whose files they are on this machine."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


async def _sent(request: web.Request, file: BinaryIO, made: Path) -> web.StreamResponse:
    size = os.fstat(file.fileno()).st_size
    headers = {
        "Content-Type": _TYPES.get(made.suffix, "application/octet-stream"),
        "Content-Length": str(size),
        "Content-Disposition": f'attachment; filename="{made.name}"',
    }
    response = web.StreamResponse(headers=headers)
    await response.prepare(request)
    async for piece in _pieces(file):
        await response.write(piece)
    await response.write_eof()
    return response


async def _pieces(file: BinaryIO) -> AsyncIterator[bytes]:
    while piece := await aside(file.read, PIECE):
        yield piece


OPERATIONS: Final = (
    Operation(
        method="POST",
        path="/api/v1/exports",
        handler=export,
        scope="read",
        summary="A sealed dataset as rows for trainers, as a tar of its folder, or as a document about it",
        body=ExportWanted,
        content_type="application/octet-stream",
        tag="datasets",
    ),
)
