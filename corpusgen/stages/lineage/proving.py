"""Proving: that one record is in a sealed dataset, for somebody who has neither the corpus nor corpusgen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import orjson

from corpusgen.corpus import Corpus
from corpusgen.errors import CorpusDamaged, UsageError
from corpusgen.provenance.ledger import Event
from corpusgen.provenance.merkle import Inclusion, inclusion
from corpusgen.provenance.seal import canonical_content, leaves, record_nonce
from corpusgen.records import Json
from corpusgen.stages.lineage.attesting import Checkpoint, checkpoint, latest_checkpoint
from corpusgen.stages.lineage.ledger_checks import events_of
from corpusgen.stages.lineage.public_keys import KEYS_FOLDER
from corpusgen.stages.sealing import Sealed, dataset_secret, record_row, sealed_dataset
from corpusgen.stages.selecting import Selection, find_selection, selections
from corpusgen.store.shards import read_batches, read_records

PROOF_SCHEMA = "corpusgen.proof/1"
LEAST_PREFIX = 8
"""So much of a record's id is enough to name it, if it is the only one."""


@dataclass(frozen=True, kw_only=True)
class Proof:
    """A proof, and how long its ways to the two roots are."""

    record_id: str
    dataset: str
    checkpoint: Checkpoint
    hashes: tuple[int, int]
    document: dict[str, Json]


def prove(corpus: Corpus, record: str, dataset: str | None = None) -> Proof:
    """That a record is in a sealed dataset, the named one or else the newest that has it.

    Raises UsageError where there is no such record, and CorpusDamaged where files are not what was sealed.
    """
    selection, record_id, index = _find(corpus, record, dataset)
    sealed = sealed_dataset(corpus, selection.label)
    row, in_dataset = _in_dataset(corpus, selection, index)
    event, signed = _sealing(corpus, sealed)
    if sealed.manifest["merkle"]["root"] != in_dataset.root:
        raise CorpusDamaged(f"{selection.label}: has the Merkle root {in_dataset.root}, sealed was another")
    in_ledger = _in_ledger(corpus, event, signed)
    nonce = record_nonce(dataset_secret(corpus, selection), record_id)
    told = {"record_id": record_id, "content": canonical_content(row).decode(), "nonce": nonce.hex()}
    document: dict[str, Json] = {
        "schema": PROOF_SCHEMA,
        "record": told | {"index": in_dataset.index, "path": list(in_dataset.path)},
        "event": _event_json(event) | {"path": list(in_ledger.path)},
        "checkpoint": orjson.loads(signed.envelope),
        "public_key": _public_key(corpus, signed.key_id),
    }
    return Proof(
        record_id=record_id,
        dataset=selection.label,
        checkpoint=signed,
        hashes=(len(in_dataset.path), len(in_ledger.path)),
        document=document,
    )


def _find(corpus: Corpus, record: str, dataset: str | None) -> tuple[Selection, str, int]:
    """The dataset, the record's whole id, and its place."""
    sealed = [one for one in reversed(selections(corpus)) if one.status == "sealed"]
    wanted = sealed if dataset is None else [find_selection(corpus, dataset)]
    for selection in wanted:
        found = list(islice(_places(selection, record), 2))
        if len(found) > 1:
            raise UsageError(f"{selection.label} has several records that begin with {record!r}; give more of the id")
        if found:
            return selection, *found[0]
    where = ", ".join(one.label for one in wanted) or "none is sealed yet"
    raise UsageError(f"no sealed dataset has a record {record!r}; looked in: {where}")


def _places(selection: Selection, record: str) -> Iterator[tuple[str, int]]:
    first = 0
    for batch in read_batches(selection.paths, ["record_id"]):
        for at, name in enumerate(batch.column(0).to_pylist()):
            if name == record or (len(record) >= LEAST_PREFIX and name.startswith(record)):
                yield name, first + at
        first += batch.num_rows


def _in_dataset(corpus: Corpus, selection: Selection, index: int) -> tuple[dict[str, Any], Inclusion]:
    kept = dict[str, Any]()

    def rows() -> Iterator[dict[str, Any]]:
        for at, record in enumerate(read_records(selection.paths)):
            row = record_row(record)
            if at == index:
                kept.update(row)
            yield row

    found = inclusion(leaves(rows(), dataset_secret(corpus, selection)), index)
    return kept, found


def _in_ledger(corpus: Corpus, event: Event, signed: Checkpoint) -> Inclusion:
    found = inclusion((one.leaf for one in islice(events_of(corpus), signed.size)), event.seq - 1)
    if found.root != signed.root:
        raise CorpusDamaged("the ledger is not the one that was signed; corpusgen verify says what is wrong")
    return found


def _sealing(corpus: Corpus, sealed: Sealed) -> tuple[Event, Checkpoint]:
    """The event that tells of a sealing, and a checkpoint after it, which is made where there is none yet."""
    event, signed = _sealing_event(corpus, sealed), latest_checkpoint(corpus)
    if event is None or signed is None or signed.size < event.seq:
        signed = checkpoint(corpus)
        event = _sealing_event(corpus, sealed)
    if event is None:
        raise CorpusDamaged(f"no event in the ledger tells that {sealed.label} was sealed as it is")
    return event, signed


def _sealing_event(corpus: Corpus, sealed: Sealed) -> Event | None:
    rows = corpus.journal.query(
        "select seq, kind, occurred_us, commitment, nonce, payload from events where kind = 'dataset_sealed'"
        " and json_extract(payload, '$.manifest_sha256') = ? order by seq desc limit 1",
        (sealed.manifest_sha256,),
    )
    names = ("seq", "kind", "occurred_us", "commitment", "nonce", "payload")
    return Event(**dict(zip(names, rows[0], strict=True))) if rows else None


def _event_json(event: Event) -> dict[str, Json]:
    assert event.nonce is not None
    return {
        "seq": event.seq,
        "kind": event.kind,
        "occurred_us": event.occurred_us,
        "content": event.payload,
        "nonce": event.nonce.hex(),
    }


def _public_key(corpus: Corpus, key_id: str) -> str:
    path = corpus.folder / KEYS_FOLDER / f"{key_id}.pub"
    try:
        return path.read_text("ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise CorpusDamaged(f"{path}: cannot be read ({error}); the proof would lack the key") from error
