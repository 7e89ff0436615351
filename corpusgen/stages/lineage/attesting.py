"""Attesting: what a corpus says about itself, signed, and a signed root of its ledger."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from corpusgen.corpus import Corpus, microseconds
from corpusgen.errors import CorpusDamaged, StoreError, UsageError
from corpusgen.journal import Transaction, storage_errors
from corpusgen.provenance.events import CHECKPOINT_TYPE, EventKind, event_leaf, note_event
from corpusgen.records import Json, canonical_json
from corpusgen.stages.cataloguing import same_shards
from corpusgen.stages.committing import export_manifest, one_at_a_time, signed_head
from corpusgen.stages.lineage.public_keys import KEYS_FOLDER
from corpusgen.store.durable import make_folder, write_file
from corpusgen.store.manifest import read_manifest

if TYPE_CHECKING:  # what signs nothing does without cryptography, and without trees and seals
    from corpusgen.provenance.merkle import MerkleTree
    from corpusgen.provenance.signing import Signer


_log = logging.getLogger("corpusgen.ledger")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The ledger's root after so many events, signed."""

    corpus_id: str
    size: int
    root: str
    signed_time: datetime
    key_id: str
    envelope: str


def signed(corpus: Corpus, payload_type: str, value: Json) -> str:
    """An envelope (DSSE, as JSON) around a value, signed with the user's key, which is published in ``keys/``.

    Call it before the transaction that keeps the envelope. Raises UsageError where the key cannot be used.
    """
    return _publishing_key(corpus).sign(payload_type, canonical_json(value))


def attest(corpus: Corpus) -> Checkpoint | None:
    """Sign the root of the ledger when it has events that no checkpoint covers; None where there is nothing new.

    What was done before counts, signed or not: where the key cannot be used or the ledger cannot be read, that is said
    in the log, and the next checkpoint covers it.
    """
    try:
        if _is_behind(corpus):
            return checkpoint(corpus)
        _mend_manifest(corpus)
        return None
    except (UsageError, StoreError) as error:
        _log.warning("the ledger was not signed (%s); corpusgen checkpoint signs it", error)
        return None


def checkpoint(corpus: Corpus) -> Checkpoint:
    """Sign the ledger's root as it is now, unless the last checkpoint is of just that. Raises UsageError without key.

    The first checkpoint of a corpus that is older than its ledger takes what is there into it.
    """
    latest = latest_checkpoint(corpus)
    if latest is not None and not _is_behind(corpus):
        _mend_manifest(corpus)
        return latest
    signer = _publishing_key(corpus)
    adopted = [] if latest is not None else list(_from_before(corpus))
    corpus.journal.run_now(lambda transaction: _prepare(transaction, signer, adopted, latest))
    tree, now = _tree(corpus), corpus.clock()
    value: Json = {
        "corpus_id": corpus_id(corpus),
        "root": tree.root,
        "signed_time": now.isoformat(),
        "size": tree.size,
    }
    envelope = signer.sign(CHECKPOINT_TYPE, canonical_json(value))
    row = (tree.size, bytes.fromhex(tree.root), tree.peaks, envelope, microseconds(now))
    corpus.journal.run_now(lambda transaction: transaction.add("checkpoints", row))
    with one_at_a_time(corpus.folder / ".commit.lock"), same_shards(corpus):
        export_manifest(corpus)
    return _checkpoint_of(envelope)


def _mend_manifest(corpus: Corpus) -> None:
    """Give MANIFEST.json the last checkpoint, where a process was killed between signing it and telling of it."""
    head = signed_head(corpus)
    try:
        told = read_manifest(corpus.folder).ledger
    except StoreError:
        return  # it is gone or damaged otherwise, which corpusgen verify names
    if told != head:
        with one_at_a_time(corpus.folder / ".commit.lock"), same_shards(corpus):
            export_manifest(corpus)


def latest_checkpoint(corpus: Corpus) -> Checkpoint | None:
    """The last one that was signed; nobody has looked at its signature here."""
    rows = corpus.journal.query("select envelope from checkpoints order by size desc limit 1")
    return _checkpoint_of(rows[0][0]) if rows else None


def _checkpoint_of(envelope: str) -> Checkpoint:
    from corpusgen.provenance.signing import contents

    key_id, payload = contents(envelope)
    try:
        said = orjson.loads(payload)
        return Checkpoint(
            corpus_id=str(said["corpus_id"]),
            size=int(said["size"]),
            root=str(said["root"]),
            signed_time=datetime.fromisoformat(said["signed_time"]),
            key_id=key_id,
            envelope=envelope,
        )
    except (ValueError, KeyError, TypeError) as error:
        raise CorpusDamaged(f"a checkpoint does not say what it must ({type(error).__name__}: {error})") from error


def corpus_id(corpus: Corpus) -> str:
    """The name that a corpus has in its checkpoints; empty before the first."""
    rows = corpus.journal.query("select value from meta where name = 'corpus_id'")
    return str(rows[0][0]) if rows else ""


def _is_behind(corpus: Corpus) -> bool:
    (row,) = corpus.journal.query(
        "select (select coalesce(max(seq), 0) from events) > (select coalesce(max(size), 0) from checkpoints)"
    )
    return bool(row[0])


def _publishing_key(corpus: Corpus) -> Signer:
    from corpusgen.provenance.signing import signing_key

    signer = signing_key(os.environ)
    path = corpus.folder / KEYS_FOLDER / f"{signer.key_id}.pub"
    if not path.exists():
        make_folder(path.parent)
        with one_at_a_time(corpus.folder / ".keys.lock"):  # two that write it at once would meet at its hidden name
            write_file(path, signer.public_pem)
    return signer


def _prepare(
    transaction: Transaction,
    signer: Signer,
    adopted: list[tuple[EventKind, dict[str, Json]]],
    latest: Checkpoint | None,
) -> None:
    """What must be in the ledger before a key signs it: the key, and in a first checkpoint what is older than it."""
    transaction.execute("insert into meta values('corpus_id', lower(hex(randomblob(16)))) on conflict do nothing")
    for kind, payload in adopted:
        note_event(transaction, kind, payload)
    key = "select 1 from events where kind = 'key_added' and json_extract(payload, '$.key_id') = ?"
    if (latest is None or latest.key_id != signer.key_id) and not transaction.rows(key, (signer.key_id,)):
        note_event(transaction, "key_added", {"key_id": signer.key_id, "public": signer.public_raw.hex()})


def _from_before(corpus: Corpus) -> Iterator[tuple[EventKind, dict[str, Json]]]:
    """Events for the shards, sealed datasets and students that no event tells of."""
    from corpusgen.provenance.seal import sealed_facts

    query = corpus.journal.query
    unknown = "not in (select coalesce(json_extract(payload, '$.{}'), '') from events where kind = '{}')"
    for name, rows, sha256 in query(
        f"select name, rows, sha256 from shards where name {unknown.format('shard', 'shard_committed')}"  # noqa: S608
    ):
        yield "shard_committed", {"shard": name, "rows": rows, "sha256": sha256, "adopted": True}
    for (manifest,) in query(
        "select manifest from datasets where status = 'sealed'"  # noqa: S608 - own text
        f" and name || '-' || version {unknown.format('dataset', 'dataset_sealed')}"
    ):
        yield "dataset_sealed", sealed_facts(orjson.loads(manifest)["seal"]) | {"adopted": True}
    for student_id, dataset in query(
        f"select student_id, dataset from students where student_id {unknown.format('student_id', 'student_trained')}"  # noqa: S608
    ):
        files = file_digests(corpus.folder / "students" / student_id)
        yield "student_trained", {"student_id": student_id, "dataset": dataset, "files": files, "adopted": True}


def file_digests(folder: Path) -> dict[str, Json]:
    """The sha256 of every file in a folder, by its path there."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _tree(corpus: Corpus) -> MerkleTree:
    """The tree over all events, from where the last checkpoint left it."""
    tree = _resumed(corpus)
    sql = "select seq, kind, occurred_us, commitment from events where seq > ? order by seq"
    with storage_errors(corpus.journal.path):
        for seq, kind, occurred_us, committed in corpus.journal.reader.execute(sql, (tree.size,)):
            if seq != tree.size + 1:
                raise CorpusDamaged(f"the ledger lacks event {tree.size + 1}; see corpusgen verify")
            assert isinstance(committed, bytes)
            tree.add(event_leaf(int(str(seq)), str(kind), int(str(occurred_us)), committed))
    return tree


def _resumed(corpus: Corpus) -> MerkleTree:
    from corpusgen.provenance.merkle import MerkleTree

    rows = corpus.journal.query("select size, root, peaks from checkpoints order by size desc limit 1")
    if not rows:
        return MerkleTree()
    size, root, peaks = rows[0]
    try:
        tree = MerkleTree.resumed(size, peaks)
    except ValueError as error:
        raise CorpusDamaged(f"the last checkpoint is damaged ({error}); see corpusgen verify") from error
    if tree.root != root.hex():
        raise CorpusDamaged("the last checkpoint is damaged (its peaks have another root); see corpusgen verify")
    return tree
