"""From the journal to Parquet: answers become shards that anybody can read."""

from __future__ import annotations

import asyncio
import fcntl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

import apsw

from corpusgen.assemble import RunFacts, record_of_stored
from corpusgen.corpus import Corpus
from corpusgen.garbage import seldom_collected
from corpusgen.journal import Transaction, storage_errors
from corpusgen.provenance.events import note_event
from corpusgen.records import SCHEMA_VERSION, Record
from corpusgen.stages.rereading import reader_of
from corpusgen.store.answers import PER_SHARD, Card, stored_records
from corpusgen.store.durable import unwritable
from corpusgen.store.manifest import LedgerHead, Manifest, ShardEntry, write_manifest
from corpusgen.teachers.teacher import Teacher

if TYPE_CHECKING:  # an answered run writes no shard, and is over before Arrow could be read
    from corpusgen.store.fresh import Block
    from corpusgen.store.shards import ShardFile

ROWS_PER_SHARD = PER_SHARD
"""Records of one shard: those whose place in the run falls into the same ten thousand."""


async def commit_records(corpus: Corpus, *teachers: Teacher) -> Manifest:
    """Write every record that waits in the journal to a shard, and list all shards in the manifest.

    A shard exists once the journal says so: its file is whole and synced before that, and a file the journal does not
    know is an orphan. The manifest is written from the journal, so a crash in between is mended by the next call. Each
    teacher reads its own replies; those of teachers that are not among them are read as the runs' specs say.
    """
    return await asyncio.to_thread(_commit_records, corpus, teachers)


def _commit_records(corpus: Corpus, teachers: Sequence[Teacher]) -> Manifest:
    with one_at_a_time(corpus.folder / ".commit.lock"), seldom_collected():
        for dataset, split, block in _waiting(corpus):
            _commit_block(corpus, teachers, dataset, split, block)
        return export_manifest(corpus)


@contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Held by one process at a time; the system lets go of it when the process ends, however it ends."""
    with unwritable(path), path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def export_manifest(corpus: Corpus) -> Manifest:
    """MANIFEST.json as the journal has it."""
    return write_manifest(corpus.folder, committed_shards(corpus), signed_head(corpus))


def signed_head(corpus: Corpus) -> LedgerHead | None:
    """What the last checkpoint says of the ledger; None before the first."""
    rows = corpus.journal.query("select size, lower(hex(root)) from checkpoints order by size desc limit 1")
    return LedgerHead(size=rows[0][0], root=rows[0][1]) if rows else None


def _waiting(corpus: Corpus) -> list[tuple[str, str, int]]:
    # Sorted here: asked to, SQLite would sort every row that waits, in memory, before it looks which are the same.
    rows = corpus.journal.query(
        "select distinct dataset, split, ordinal / ? from records where shard is null", (ROWS_PER_SHARD,)
    )
    return sorted((row[0], row[1], row[2]) for row in rows)


def committed_shards(corpus: Corpus) -> list[ShardEntry]:
    """The shards the journal knows."""
    names = ("dataset", "split", "name", "rows", "sha256", "size_bytes", "schema_version", "writer_version")
    rows = corpus.journal.query(
        "select dataset, split, substr(name, length(dataset) + 2), rows, sha256, size_bytes, schema_version, writer"
        " from shards order by name"
    )
    return [ShardEntry(**dict(zip(names, (*row[:7], int(row[7])), strict=True))) for row in rows]


def _commit_block(corpus: Corpus, teachers: Sequence[Teacher], dataset: str, split: str, block: int) -> None:
    from corpusgen.store.shards import write_shard

    first = block * ROWS_PER_SHARD
    where = "r.dataset = ? and r.split = ? and r.shard is null and r.ordinal between ? and ?"
    values = (dataset, split, first, first + ROWS_PER_SHARD - 1)
    reader = corpus.journal.reader
    with storage_errors(corpus.journal.path), reader:  # one snapshot for the rows and their number
        number = _next_number(reader, dataset, split)
        name = f"{split}-{number:05d}.parquet"
        file = _written_from_memory(corpus, (dataset, split, block), name, where, values) or write_shard(
            corpus.shard_folder(dataset), name, assembled(reader, reader_of(corpus, teachers), where, values)
        )
        last = reader.execute(f"select max(rowid) from records r where {where}", values).get  # noqa: S608 - own text
    corpus.journal.run_now(lambda transaction: _note(transaction, dataset, split, file, where, values, int(str(last))))


def _written_from_memory(
    corpus: Corpus, block: Block, name: str, where: str, values: tuple[object, ...]
) -> ShardFile | None:
    """The shard of what this process still has as columns; None unless that is just what the journal has."""
    from corpusgen.store.fresh import NotTheSame, fresh_of
    from corpusgen.store.shards import write_batches

    reader = corpus.journal.reader
    ids = reader.execute(f"select record_id from records r where {where} order by 1", values)  # noqa: S608 - own text
    names = [cast("bytes", row[0]) for row in ids]
    window = fresh_of(corpus).take(block, len(names))
    runs = reader.execute(f"select distinct run_id from records r where {where}", values)  # noqa: S608 - own text
    if window is None or window.facts != {str(run): _facts(reader, str(run)) for (run,) in runs.fetchall()}:
        return None
    try:
        return write_batches(corpus.shard_folder(block[0]), name, window.batches(names))
    except NotTheSame:
        return None


def _facts(reader: apsw.Connection, run_id: str) -> RunFacts:
    return RunFacts.from_json(str(reader.execute("select facts from runs where run_id = ?", (run_id,)).get))


def _next_number(reader: apsw.Connection, dataset: str, split: str) -> int:
    # Not how many there are: an erasure may have left nothing of one, and its successors keep their names.
    last = "max(cast(replace(substr(name, length(dataset) + length(split) + 3), '.parquet', '') as integer))"
    sql = f"select coalesce({last}, -1) + 1 from shards where dataset = ? and split = ?"  # noqa: S608 - own text
    return int(str(reader.execute(sql, (dataset, split)).get))


def assembled(
    reader: apsw.Connection, teacher_of: Callable[[Card], Teacher], where: str, values: tuple[object, ...]
) -> Iterator[Record]:
    """Records made of what the journal keeps, sorted by record id; ``teacher_of`` reads the replies."""
    facts: dict[str, RunFacts] = {}
    cards: dict[str, Card] = {}
    for stored in stored_records(reader, where, values):
        run_id, card_id = stored.row.run_id, stored.answer.card_id
        if run_id not in facts:
            facts[run_id] = _facts(reader, run_id)
        if card_id not in cards:
            cards[card_id] = Card.from_json(
                str(reader.execute("select card from cards where card_id = ?", (card_id,)).get)
            )
        yield record_of_stored(facts[run_id], cards[card_id], stored, teacher_of(cards[card_id]))


def _note(
    transaction: Transaction,
    dataset: str,
    split: str,
    file: ShardFile,
    where: str,
    values: tuple[object, ...],
    last: int,
) -> None:
    from corpusgen.store.shards import WRITER_VERSION

    name = f"{dataset}/{file.name}"
    transaction.execute(
        "insert into shards values(?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            name,
            dataset,
            split,
            file.rows,
            file.sha256,
            file.size_bytes,
            SCHEMA_VERSION,
            str(WRITER_VERSION),
            transaction.now_us,
        ),
    )
    note_event(transaction, "shard_committed", {"shard": name, "rows": file.rows, "sha256": file.sha256})
    # Rows another process added while the shard was written wait for the next one.
    transaction.execute(f"update records as r set shard = ? where {where} and rowid <= ?", (name, *values, last))  # noqa: S608
