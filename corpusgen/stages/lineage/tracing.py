"""Tracing: what the journal and the shards know of where every record comes from, as tables a lawyer's question reads.

The tables lie in ``lineage/`` beside the shards, in the shape of ``provenance/lineage.py``. They hold nothing of their
own: they are written anew whenever the corpus has changed since, all of them or none, and deleting them loses nothing.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from corpusgen.corpus import Corpus
from corpusgen.provenance.lineage import TABLES, writer_options
from corpusgen.reading import may_write
from corpusgen.records import Json, digest
from corpusgen.stages.cataloguing import LINEAGE, show_lineage
from corpusgen.stages.committing import committed_shards, one_at_a_time
from corpusgen.stages.lineage.reading import NOTE
from corpusgen.stages.lineage.traced_facts import Facts
from corpusgen.stages.lineage.traced_records import LARGE, joined, select_large
from corpusgen.stages.terms.deciding import registry_of
from corpusgen.store.durable import sync_folder, unwritable, write_file
from corpusgen.store.manifest import manifest_of

FOLDER: Final = LINEAGE
"""The folder of a corpus with its lineage; it holds nothing of its own and may be deleted at any time."""
VERSION: Final = 2
"""Raise with every change of what the tables say of the same corpus."""

_STATE: Final = (
    "select max(call_id) from calls",
    "select count(*) from calls where state = 'promised'",
    "select max(rowid) from answers",
    "select max(reconciliation_id) from reconciliations",
    "select count(*), count(distinct run_id) from reuses",
    "select run_id, spec, facts, status, ended_us from runs order by run_id",
    "select card_id from cards order by card_id",
    "select max(decision_id) from decisions",
    "select name, version, status, sealed_us, manifest from datasets order by name, version",
    "select student_id, trained_us from students order by student_id",
    "select max(seq), sum(nonce is null) from events",
    "select max(size) from checkpoints",
    "select waiver_id, waiver, ended_us from waivers order by waiver_id",
    "select max(review_id) from reviews",
    "select terms_id, sha256, text is not null from snapshots order by terms_id, sha256",
    "select import_id from imports order by import_id",
    "select release_id, withdrawn_us from releases order by release_id",
    "select max(erasure_id) from erasures",
    "select count(*) from erased",
    "select name, sha256 from shards order by name",
    "select count(*) from findings",
    "select name, value from meta where name like 'terms:%' order by name",
)
"""What tells one state of a journal from another, each cheap to ask."""


def trace(corpus: Corpus) -> Path:
    """The folder with the lineage of a corpus as Parquet, written anew where the corpus has changed since.

    Where the corpus may not be written, it is written to a folder of this process's own. Raises CorpusDamaged where a
    shard or a dataset cannot be read.
    """
    here = corpus.folder / FOLDER
    folder = here if may_write(corpus.folder) else _elsewhere(corpus)
    with one_at_a_time(folder.with_name(f".{FOLDER}.lock")), _as_of_one_moment(corpus):
        state = _state(corpus)
        if _noted(here) == state:
            return here
        if _noted(folder) != state:
            _write(corpus, folder, state)
            if folder == here:
                show_lineage(corpus)
    return folder


def lineage_files(corpus: Corpus) -> dict[str, Path]:
    """The lineage's tables by name, up to date."""
    folder = trace(corpus)
    return {name: folder / f"{name}.parquet" for name in TABLES}


_OWN: Final[dict[Path, Path]] = {}
"""Folders of this process for corpora that it may not write to."""


def _elsewhere(corpus: Corpus) -> Path:
    if corpus.folder not in _OWN:
        own = tempfile.mkdtemp(prefix="corpusgen-lineage-")
        atexit.register(shutil.rmtree, own, ignore_errors=True)
        _OWN[corpus.folder] = Path(own) / FOLDER
    return _OWN[corpus.folder]


@contextmanager
def _as_of_one_moment(corpus: Corpus) -> Iterator[None]:
    """Every question to the journal is answered as of the first, while others write on."""
    reader = corpus.journal.reader
    reader.execute("begin")
    try:
        yield
    finally:
        reader.execute("rollback")


def _state(corpus: Corpus) -> str:
    found: list[Json] = [VERSION, digest({name: str(table.schema) for name, table in TABLES.items()})]
    found.append(registry_of(corpus, None).digest)
    return digest([*found, *(corpus.journal.query(sql) for sql in _STATE)])


def _noted(folder: Path) -> str | None:
    try:
        told = orjson.loads((folder / NOTE).read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return None
    there = all((folder / f"{name}.parquet").is_file() for name in TABLES)
    return str(told.get("state")) if there and isinstance(told, dict) else None


def _write(corpus: Corpus, folder: Path, state: str) -> None:
    hidden, old = folder.with_name(f".{FOLDER}.tmp"), folder.with_name(f".{FOLDER}.old")
    for left in (hidden, old):
        shutil.rmtree(left, ignore_errors=True)
    with unwritable(hidden):
        (hidden / "work").mkdir(parents=True)
    try:
        _write_tables(corpus, hidden)
        write_file(hidden / NOTE, orjson.dumps({"state": state}))
        with unwritable(folder):
            if folder.exists():
                folder.rename(old)
            hidden.rename(folder)
            sync_folder(folder.parent)
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _write_tables(corpus: Corpus, folder: Path) -> None:
    facts, manifest = Facts.of(corpus), manifest_of(committed_shards(corpus))
    with joined(corpus, facts, manifest, folder / "work") as connection:
        for name in TABLES:
            batches = select_large(connection, corpus, name) if name in LARGE else _small(name, getattr(facts, name))
            _write_table(folder, name, batches)
    shutil.rmtree(folder / "work")


def _small(name: str, rows: Sequence[Mapping[str, Json]]) -> Iterator[pa.RecordBatch]:
    schema = TABLES[name].schema
    yield from pa.Table.from_pylist(list(rows), schema=schema).to_batches()


def _write_table(folder: Path, name: str, batches: Any) -> None:
    schema, path = TABLES[name].schema, folder / f"{name}.parquet"
    with unwritable(path), pq.ParquetWriter(path, schema, **writer_options(name)) as writer:
        for batch in batches:
            writer.write_batch(_fitting(batch, schema))


def _fitting(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """A batch with the types of the schema; what it cannot hold is an error, never a gap."""
    arrays = [batch.column(field.name).cast(field.type) for field in schema]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
