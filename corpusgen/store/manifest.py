"""MANIFEST.json: the committed shards of a corpus, for everybody who reads it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import orjson

from corpusgen.errors import CorpusDamaged, CorpusTooNew
from corpusgen.records import SCHEMA_VERSION
from corpusgen.store.durable import make_folder, write_file

MANIFEST_NAME = "MANIFEST.json"
"""The manifest's name in the corpus folder."""

MANIFEST_VERSION = 1
"""Version of the manifest's own shape."""


@dataclass(frozen=True, kw_only=True)
class ShardEntry:
    """One committed shard: where it belongs and what its file must be."""

    dataset: str
    split: str
    name: str
    rows: int
    sha256: str
    size_bytes: int
    schema_version: int
    writer_version: int

    @property
    def path(self) -> str:
        """Where the shard lies, from the corpus folder."""
        return f"shards/{self.dataset}/{self.name}"


@dataclass(frozen=True, kw_only=True)
class LedgerHead:
    """How far the ledger of events was signed last, and its root there."""

    size: int
    root: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The committed shards of a corpus, in a fixed order, and how far its ledger is signed."""

    shards: tuple[ShardEntry, ...] = ()
    ledger: LedgerHead | None = None

    @property
    def rows(self) -> int:
        """How many records are committed."""
        return sum(shard.rows for shard in self.shards)

    def paths(self, corpus: Path, *, dataset: str | None = None, split: str | None = None) -> list[Path]:
        """The shard files, all or those of one dataset or split."""
        return [
            corpus / shard.path
            for shard in self.shards
            if dataset in (None, shard.dataset) and split in (None, shard.split)
        ]


def write_manifest(corpus: Path, shards: Iterable[ShardEntry], ledger: LedgerHead | None = None) -> Manifest:
    """The manifest of exactly these shards, durable on return; the one before stays until then."""
    manifest = manifest_of(shards, ledger)
    make_folder(corpus)
    path, content = corpus / MANIFEST_NAME, encode(manifest)
    if not path.exists() or path.read_bytes() != content:
        write_file(path, content)
    return manifest


def manifest_of(shards: Iterable[ShardEntry], ledger: LedgerHead | None = None) -> Manifest:
    """These shards in the order in which a manifest lists them."""
    return Manifest(shards=tuple(sorted(shards, key=lambda shard: (shard.dataset, shard.name))), ledger=ledger)


def read_manifest(corpus: Path) -> Manifest:
    """What is committed; an empty manifest when nothing has been committed yet."""
    path = corpus / MANIFEST_NAME
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return Manifest()
    except OSError as error:
        raise CorpusDamaged(f"{path}: cannot be read: {error.strerror or error}") from error
    return _decode(path, content)


def encode(manifest: Manifest) -> bytes:
    """The one content that a manifest's file may have."""
    document = {
        "manifest_version": MANIFEST_VERSION,
        "rows": manifest.rows,
        "shards": [asdict(shard) for shard in manifest.shards],
        **({"ledger": asdict(manifest.ledger)} if manifest.ledger else {}),
    }
    return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def _decode(path: Path, content: bytes) -> Manifest:
    try:
        document = orjson.loads(content)
        _refuse_newer(path, "manifest", document["manifest_version"], MANIFEST_VERSION)
        head = document.get("ledger")
        ledger = None if head is None else LedgerHead(size=head["size"], root=head["root"])
        manifest = Manifest(shards=tuple(_entry(path, item) for item in document["shards"]), ledger=ledger)
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise _not_ours(path, f"it is not a manifest ({type(error).__name__}: {error})") from error
    if document.get("rows") != manifest.rows:
        raise _not_ours(path, f"it says {document.get('rows')!r} rows, its shards add up to {manifest.rows}")
    return manifest


def _entry(path: Path, item: dict[str, Any]) -> ShardEntry:
    _refuse_newer(path, "schema", item["schema_version"], SCHEMA_VERSION)
    wrong = [field.name for field in fields(ShardEntry) if type(item[field.name]).__name__ != field.type]
    if wrong:
        raise TypeError(f"wrong type of {', '.join(wrong)}")
    entry = ShardEntry(**{field.name: item[field.name] for field in fields(ShardEntry)})
    if not _stays_inside(entry):
        raise _not_ours(path, f"shard {entry.path!r} lies outside of the corpus")
    return entry


def _stays_inside(entry: ShardEntry) -> bool:
    return not any(part in ("", ".", "..") or set(part) & set("/\\\0") for part in (entry.dataset, entry.name))


def _refuse_newer(path: Path, what: str, found: int, supported: int) -> None:
    if found > supported:
        raise CorpusTooNew(
            f"{path}: {what} version {found} found, this corpusgen supports up to {supported}; install a newer one"
        )


def _not_ours(path: Path, reason: str) -> CorpusDamaged:
    return CorpusDamaged(f"{path}: {reason}; delete it and run again: it is written anew from the journal")
