"""The ledger of events: what happened in a corpus, in order, each with a salted commitment to what it says.

A leaf of the ledger's Merkle tree is an event's place, kind and time with a commitment, HMAC-SHA256 of its canonical
payload under a random nonce. When something is erased, payload and nonce are destroyed and the leaf stays, so the tree
still holds and nobody can find out by guessing what the event said.

``verify`` holds some events against what there is, by these fields of their payloads:

- ``shard_committed``: shard (``dataset/file``), rows, sha256. The last one about a shard counts, so whoever writes a
  shard anew notes it anew.
- ``dataset_sealed``: dataset (its label), rows, merkle_root, manifest_sha256. ``dataset_revoked``: dataset.
- ``student_trained``: student_id, files (path in its folder to sha256).
- ``key_added``: key_id, public (hex).
- ``administered``: act (such as ``token_created``), by (who), and what it was about; verify does not read it.
- ``erased``: events (numbers of those whose payload and nonce were destroyed), shards_removed (names of shards that are
  no more), students_removed (their ids). Each may be left out where there is none.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Mapping
from typing import Literal, TypeAlias

from corpusgen.journal import Transaction
from corpusgen.records import Json, canonical_json

EventKind: TypeAlias = Literal[
    "run_planned",
    "decided",
    "shard_committed",
    "dataset_selected",
    "dataset_sealed",
    "dataset_revoked",
    "dataset_exported",
    "student_trained",
    "released",
    "withdrawn",
    "imported",
    "erased",
    "waiver_granted",
    "waiver_ended",
    "terms_added",
    "terms_reviewed",
    "terms_snapshot",
    "reconciled",
    "key_added",
    "administered",
]
NONCE_BYTES = 32
CHECKPOINT_TYPE = "application/vnd.corpusgen.checkpoint+json"
"""What a signed root of the ledger is signed as."""


def note_event(transaction: Transaction, kind: EventKind, payload: Mapping[str, Json]) -> None:
    """Put an event at the end of the ledger, in the transaction of what it tells of.

    ``payload`` is kept whole until an erasure that it is about; put no text of records into it.
    """
    nonce, body = os.urandom(NONCE_BYTES), canonical_json(dict(payload))
    transaction.execute(
        "insert into events(kind, occurred_us, commitment, nonce, payload) values(?, ?, ?, ?, ?)",
        (kind, transaction.now_us, commitment(body, nonce), nonce, body.decode()),
    )


def commitment(body: bytes, nonce: bytes) -> bytes:
    """What stands for a canonical payload in the ledger: HMAC-SHA256 (RFC 2104) under its nonce, 32 bytes."""
    return hmac.digest(nonce, body, hashlib.sha256)


def event_leaf(seq: int, kind: str, occurred_us: int, committed: bytes) -> bytes:
    """The leaf that stands for an event in the tree."""
    return canonical_json({"seq": seq, "kind": kind, "occurred_us": occurred_us, "commitment": committed.hex()})
