"""Repairing: what is lost or damaged is written again from the journal, with the bytes that were committed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from corpusgen.corpus import Corpus
from corpusgen.errors import CorpusDamaged, CorpusgenError, TeacherError, UsageError
from corpusgen.journal import storage_errors
from corpusgen.records import Json
from corpusgen.stages.cataloguing import CATALOG_NAME, catalog_problem, refresh_catalog
from corpusgen.stages.committing import assembled, committed_shards, export_manifest, one_at_a_time
from corpusgen.stages.rereading import reader_of
from corpusgen.stages.verifying import manifest_problem
from corpusgen.store.answers import Card
from corpusgen.store.durable import make_folder, publish, sync_folder, unwritable
from corpusgen.store.manifest import MANIFEST_NAME, ShardEntry, read_manifest
from corpusgen.store.shards import verify_shard, write_shard
from corpusgen.teachers.teacher import Teacher

ASIDE = "damaged"
"""The folder of a corpus in which files are kept that others have taken the place of."""


@dataclass(frozen=True, kw_only=True)
class Repair:
    """One file that was not what it should be, and what became of it."""

    path: str
    repaired: bool
    message: str
    kept_aside: str | None = None

    def to_json(self) -> dict[str, Json]:
        """For machines."""
        return asdict(self)


def repair(corpus: Corpus) -> list[Repair]:
    """Write every lost or damaged shard, MANIFEST.json and catalog again; nothing is deleted, and nothing is sent.

    A shard takes its place only with the bytes that were committed. What cannot be written again is said.
    """
    with one_at_a_time(corpus.folder / ".commit.lock"):
        shards = list(_shards(corpus))
        manifest = list(_manifest(corpus))
    return [*shards, *manifest, *_catalog(corpus)]


def _shards(corpus: Corpus) -> Iterator[Repair]:
    teacher_of = reader_of(corpus)
    for entry in committed_shards(corpus):
        problem = verify_shard(corpus.folder / entry.path, entry)
        if problem is not None:
            yield _shard(corpus, entry, problem, teacher_of)


def _shard(corpus: Corpus, entry: ShardEntry, problem: str, teacher_of: Callable[[Card], Teacher]) -> Repair:
    path = corpus.folder / entry.path
    again = path.parent / f"again-{entry.name}"
    try:
        reader = corpus.journal.reader
        with storage_errors(corpus.journal.path), reader:
            records = assembled(reader, teacher_of, "r.shard = ?", (f"{entry.dataset}/{entry.name}",))
            made = write_shard(path.parent, again.name, records, version=entry.schema_version)
        if (made.sha256, made.rows) != (entry.sha256, entry.rows):
            told = f"{made.rows} rows with sha256 {made.sha256}, committed were {entry.rows} {entry.sha256}"
            raise CorpusDamaged(f"the journal's replies give {told}; restore the shard from a backup")
        kept = _put_aside(corpus, path)
        with unwritable(path):
            publish(again, path)
    except (CorpusDamaged, TeacherError, UsageError) as error:
        return Repair(path=entry.path, repaired=False, message=str(error))
    finally:
        again.unlink(missing_ok=True)
    return Repair(path=entry.path, repaired=True, message=f"{problem}; written again", kept_aside=kept)


def _manifest(corpus: Corpus) -> Iterator[Repair]:
    problem = manifest_problem(corpus)
    if problem is not None:
        kept = _put_aside(corpus, corpus.folder / MANIFEST_NAME)
        export_manifest(corpus)
        yield Repair(path=MANIFEST_NAME, repaired=True, message=f"{problem}; written again", kept_aside=kept)


def _catalog(corpus: Corpus) -> Iterator[Repair]:
    problem = catalog_problem(corpus)
    if problem is None:
        return
    kept = _put_aside(corpus, corpus.folder / CATALOG_NAME)
    try:
        refresh_catalog(corpus, read_manifest(corpus.folder))
    except CorpusgenError as error:
        yield Repair(path=CATALOG_NAME, repaired=False, message=str(error), kept_aside=kept)
    else:
        yield Repair(path=CATALOG_NAME, repaired=True, message=f"{problem}; made again", kept_aside=kept)


def _put_aside(corpus: Corpus, path: Path) -> str | None:
    """Move a file to where damaged ones are kept; None when there is no file."""
    if not path.exists():
        return None
    folder = corpus.folder / ASIDE
    make_folder(folder)
    name = "-".join(path.relative_to(corpus.folder).parts)
    free = next(at for number in range(1, 10_000) if not (at := folder / f"{name}.damaged-{number}").exists())
    with unwritable(free):
        os.replace(path, free)
        sync_folder(folder)
    return str(free.relative_to(corpus.folder))
