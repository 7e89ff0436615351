"""What it takes to seal a dataset: complete provenance, one Merkle root over its records, and a manifest.

The tree has the shape of RFC 9162, so one record can later be proved to be in it with a handful of hashes; the
ledger's event of the sealing has the root and the manifest's digest, and is signed with the ledger. A root shows that
nothing was edited since it was noted down elsewhere; it says nothing about whether the records were true when they were
written.
"""

from __future__ import annotations

import hashlib
import hmac
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from datetime import UTC, datetime
from itertools import islice

from corpusgen.provenance.merkle import MerkleTree
from corpusgen.records import Json, Message, canonical_json

MANIFEST_SCHEMA = "corpusgen.manifest/1"

REQUIRED: dict[str, str] = {
    "record_id": "id",
    "request_key": "request",
    "request_keys": "request",
    "teacher": "teacher",
    "route": "teacher's route",
    "terms_set_id": "terms set",
    "licence_expression": "licence",
    "source_ids": "source",
    "prompt_digest": "prompt digest",
    "spec_digest": "spec digest",
}
"""Columns that a sealed record must fill, and what a reader calls them."""

_COUNTED = {
    "teacher": "teacher",
    "terms": "terms_set_id",
    "licence": "licence_expression",
    "split": "dataset_split",
    "kind": "kind",
}
# SPDX's words for "nobody said" are no licence.
_NO_LICENCE = ("NOASSERTION", "NONE")

_AS_IT_IS = frozenset({str, int, bool, type(None)})

Row = Mapping[str, object]


@dataclass(frozen=True, kw_only=True)
class SealProblem:
    """One record that cannot be sealed, and what it lacks."""

    record_id: str
    column: str
    message: str

    def __str__(self) -> str:
        return f"record {self.record_id}: {self.message}"


@dataclass(frozen=True, kw_only=True)
class DatasetFile:
    """One file of a dataset, by its path inside it."""

    path: str
    rows: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Survey:
    """Everything a manifest says about the records themselves, from one pass over them."""

    rows: int
    merkle_root: str
    counts: Mapping[str, Mapping[str, int]]
    problems: tuple[SealProblem, ...]
    salted: bool = False


def incomplete(records: Iterable[Row], *, limit: int = 100) -> list[SealProblem]:
    """What stops these records from being sealed, at most ``limit`` problems; empty means ready."""
    return list(islice((problem for record in records for problem in _problems(record)), limit))


def content_commitment(record: Row, nonce: bytes = b"") -> str:
    """A hash of every filled column of a record, as read back from its file.

    With a nonce kept beside the record, the commitment tells nothing once both are erased; without one, a guessable
    record can be recognised. Empty columns are left out, so that a later column does not change earlier commitments.
    """
    return hmac.new(nonce, canonical_content(record), hashlib.sha256).hexdigest()


def canonical_content(record: Row) -> bytes:
    """What a record says, as the bytes that its commitment is made of."""
    return canonical_json({name: _plain(value) for name, value in record.items() if value is not None})


def record_nonce(secret: bytes | None, record_id: str) -> bytes:
    """A record's own nonce, from the secret of its dataset; none in datasets that were sealed without one."""
    return b"" if secret is None else hmac.digest(secret, record_id.encode(), "sha256")


def record_leaf(record: Row, nonce: bytes = b"") -> bytes:
    """The leaf that stands for a record: its id and the commitment to its content."""
    return canonical_json({"record_id": record["record_id"], "commitment": content_commitment(record, nonce)})


def leaves(records: Iterable[Row], secret: bytes | None = None) -> Iterator[bytes]:
    """The leaf of each record, salted with a nonce of its own where there is a secret."""
    return (record_leaf(record, record_nonce(secret, str(record.get("record_id")))) for record in records)


def survey(records: Iterable[Row], *, problem_limit: int = 100, secret: bytes | None = None) -> Survey:
    """Root, counts and problems of all records in one pass; the order of records is part of the root.

    With a secret, leaves are salted: whoever has the leaves cannot find out by guessing what a record said.
    """
    tree, problems = MerkleTree(), list[SealProblem]()
    counts: dict[str, Counter[str]] = {name: Counter() for name in _COUNTED}
    for record in records:
        tree.add(record_leaf(record, record_nonce(secret, str(record.get("record_id")))))
        for name, column in _COUNTED.items():
            counts[name][str(record.get(column))] += 1
        if len(problems) < problem_limit:
            problems += _problems(record)
    return Survey(
        rows=tree.size,
        merkle_root=tree.root,
        counts={name: dict(sorted(counter.items())) for name, counter in counts.items()},
        problems=tuple(problems[:problem_limit]),
        salted=secret is not None,
    )


def manifest(
    *,
    name: str,
    version: str,
    files: Sequence[DatasetFile],
    surveyed: Survey,
    duties: Iterable[object],
    terms: Mapping[str, Sequence[str]],
    registry_digest: str,
    policy_digest: str,
    created_time: datetime,
    record_schema_version: int,
) -> dict[str, Json]:
    """A sealed dataset as one JSON object.

    ``terms`` spells out each terms set id. Signatures go beside a manifest, not into it.
    """
    return {
        "schema": MANIFEST_SCHEMA,
        "name": name,
        "version": version,
        "created_time": created_time.astimezone(UTC).isoformat(),
        "record_schema_version": record_schema_version,
        "rows": surveyed.rows,
        "files": [_plain(file) for file in sorted(files, key=lambda file: file.path)],
        "merkle": {"root": surveyed.merkle_root, "size": surveyed.rows, "shape": "rfc9162", "hash": "sha256"}
        | ({"leaves": "salted"} if surveyed.salted else {}),
        "counts": {counted: dict(values) for counted, values in surveyed.counts.items()},
        "terms": {terms_set: sorted(ids) for terms_set, ids in sorted(terms.items())},
        "duties": sorted((_plain(duty) for duty in duties), key=canonical_json),
        "registry_digest": registry_digest,
        "policy_digest": policy_digest,
    }


def manifest_digest(sealed: Mapping[str, Json]) -> str:
    """sha256 of a manifest's canonical JSON: what the ledger has of it."""
    return hashlib.sha256(canonical_json(dict(sealed))).hexdigest()


def sealed_facts(sealed: Mapping[str, Json]) -> dict[str, Json]:
    """What the event of a sealing says of its manifest."""
    return {
        "dataset": f"{sealed['name']}-{sealed['version']}",
        "rows": sealed["rows"],
        "merkle_root": sealed["merkle"]["root"],
        "manifest_sha256": manifest_digest(sealed),
    }


def _problems(record: Row) -> Iterator[SealProblem]:
    name = str(record["record_id"]) if _filled(record.get("record_id")) else "without an id"
    for column, what in REQUIRED.items():
        if not _filled(record.get(column)):
            yield SealProblem(record_id=name, column=column, message=f"has no {what} (column {column})")
    if str(record.get("licence_expression")) in _NO_LICENCE:
        message = f"has no licence (licence_expression is {record['licence_expression']})"
        yield SealProblem(record_id=name, column="licence_expression", message=message)


def _filled(value: object) -> bool:
    if isinstance(value, str):
        return bool(value.strip())
    if isinstance(value, list | tuple):
        return bool(value) and all(_filled(item) for item in value)
    return value is not None


def _plain(value: object) -> Json:
    """A column's value as JSON knows it, the same whether it came from a Record or from a file."""
    if type(value) in _AS_IT_IS:  # most of them are, and what follows takes ten times as long
        return value
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)  # JSON would make it null, as if the teacher had given nothing
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if isinstance(value, Message):  # the column is of roles and texts alone
        return {"role": value.role, "content": value.content}
    if is_dataclass(value) and not isinstance(value, type):
        return {part.name: _plain(getattr(value, part.name)) for part in fields(value)}
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
