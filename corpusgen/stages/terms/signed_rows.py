"""Rows that were signed (reviews, releases, erasures) against their envelopes, the events about them, and folders."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson

from corpusgen.corpus import Corpus
from corpusgen.errors import CorpusDamaged
from corpusgen.provenance.ledger import Event
from corpusgen.provenance.signing import contents, open_envelope
from corpusgen.records import Json, canonical_json
from corpusgen.stages.finding import Finding

TYPES: Final = {
    "review": "application/vnd.corpusgen.terms-review+json",
    "release": "application/vnd.corpusgen.release+json",
    "erasure": "application/vnd.corpusgen.erasure+json",
}
"""What each kind of row is signed as."""
_BESIDE: Final = {"release.json", "release.dsse.json", "signer.pub"}
"""Files of a release that its own list does not have."""
_LISTS_OF_EVENT: Final = {"events", "shards_removed", "students_removed"}


@dataclass(frozen=True, kw_only=True)
class SignedRow:
    """A row of the journal beside what was signed about it."""

    kind: str
    name: str
    fields: dict[str, Json]
    envelope: str

    @property
    def subject(self) -> str:
        """What a finding calls it."""
        return f"{self.kind} {self.name}"

    @property
    def said(self) -> dict[str, Json]:
        """What was signed: a withdrawal came later."""
        return {name: value for name, value in self.fields.items() if (self.kind, name) != ("release", "withdrawn")}


@dataclass(kw_only=True)
class Told:
    """What the events say of releases and erasures, with the number of each."""

    released: dict[str, tuple[int, Mapping[str, Json]]] = field(default_factory=dict)
    withdrawn: dict[str, tuple[int, Mapping[str, Json]]] = field(default_factory=dict)
    erased: dict[str, tuple[int, Mapping[str, Json]]] = field(default_factory=dict)
    emptied: set[str] = field(default_factory=set)
    """Kinds of which an event has lost its words in an erasure."""

    def hear(self, event: Event) -> None:
        """Take in an event."""
        if event.kind not in ("released", "withdrawn", "erased"):
            return
        if event.payload is None:
            self.emptied.add(event.kind)
            return
        name = "erasure_id" if event.kind == "erased" else "release_id"
        try:
            payload: dict[str, Json] = orjson.loads(event.payload)
            getattr(self, event.kind)[str(payload[name])] = event.seq, payload
        except (ValueError, KeyError, TypeError):  # changed, which is told elsewhere, or not about one of ours
            return


def signed_rows(corpus: Corpus) -> list[SignedRow]:
    """Every row that is signed, finished or not."""
    found = []
    for kind, sql in (
        ("review", "select review_id, review, envelope from reviews order by 1"),
        ("release", "select release_id, release, envelope from releases order by 1"),
        ("erasure", "select erasure_id, erasure, envelope from erasures order by 1"),
    ):
        for name, text, envelope in corpus.journal.query(sql):
            found.append(SignedRow(kind=kind, name=str(name), fields=orjson.loads(text), envelope=envelope))
    return found


def row_findings(corpus: Corpus, keys: Mapping[str, bytes], signers: set[str] | None, told: Told) -> Iterator[Finding]:
    """What is wrong with rows that were signed; ``signers`` are the keys that the ledger knows, None before it does."""
    rows = [row for row in signed_rows(corpus) if "unfinished" not in row.fields]
    for row in rows:
        for message in _envelope_problems(row, keys, signers):
            yield Finding(check="signatures", subject=row.subject, message=message)
    by_kind = {kind: {row.name: row for row in rows if row.kind == kind} for kind in TYPES}
    yield from _releases(by_kind["release"], told)
    yield from _erasures(corpus, by_kind["erasure"], told)
    yield from _folders(corpus, by_kind["release"])


def _envelope_problems(row: SignedRow, keys: Mapping[str, bytes], signers: set[str] | None) -> Iterator[str]:
    try:
        payload_type, payload = open_envelope(row.envelope, keys)
        key_id, _ = contents(row.envelope)
    except CorpusDamaged as error:
        yield str(error)
        return
    if payload_type != TYPES[row.kind]:
        yield f"is signed as {payload_type}, not as what it is"
    if row.kind != "review" and payload != canonical_json(row.said):  # reviews are told with the other rights
        yield "is not what was signed: it was changed in the journal"
    if signers is not None and key_id not in signers:
        yield f"signed with key {key_id}, and no signed event in the ledger says that this key signs here"


def _releases(rows: Mapping[str, SignedRow], told: Told) -> Iterator[Finding]:
    def finding(name: str, message: str) -> Finding:
        return Finding(check="releases", subject=f"release {name}", message=message)

    for name, (seq, payload) in told.released.items():
        if name not in rows:
            yield finding(name, f"event {seq} tells of it, and it is no more: it was deleted")
        elif differ := [one for one in payload if rows[name].fields.get(one) != payload[one]]:
            yield finding(name, f"{' and '.join(sorted(differ))} are not what event {seq} says")
    for name, (seq, payload) in told.withdrawn.items():
        about = rows[name].fields.get("withdrawn") if name in rows else None
        if name in rows and about is None:
            yield finding(name, f"event {seq} says that it was withdrawn, and it is not any more")
        elif about is not None and any(payload.get(one) != about[one] for one in about):
            yield finding(name, f"was not withdrawn as event {seq} says")
    for name, row in rows.items():
        if name not in told.released and "released" not in told.emptied:
            yield finding(name, "no event in the ledger tells of it")
        if "withdrawn" in row.fields and name not in told.withdrawn and "withdrawn" not in told.emptied:
            yield finding(name, "is withdrawn, and no event in the ledger tells of that")


def _erasures(corpus: Corpus, rows: Mapping[str, SignedRow], told: Told) -> Iterator[Finding]:
    def finding(name: str, message: str) -> Finding:
        return Finding(check="erasures", subject=f"erasure {name}", message=message)

    there = {str(number) for (number,) in corpus.journal.query("select erasure_id from erasures")}
    for name, (seq, payload) in told.erased.items():
        said = {one: value for one, value in payload.items() if one not in _LISTS_OF_EVENT}
        if name not in there:
            yield finding(name, f"event {seq} tells of it, and its report is no more: it was deleted")
        elif name in rows and (differ := _differing(rows[name].fields, said)):
            yield finding(name, f"{' and '.join(differ)} are not what event {seq} says")
    for name in rows:
        if name not in told.erased and "erased" not in told.emptied:
            yield finding(name, "no event in the ledger tells of it")


def _differing(one: Mapping[str, Json], other: Mapping[str, Json]) -> list[str]:
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


def _folders(corpus: Corpus, rows: Mapping[str, SignedRow]) -> Iterator[Finding]:
    """Releases that lie in the corpus, each against its row."""
    for folder in sorted((corpus.folder / "releases").glob("[!.]*")):
        for message in _folder_problems(folder, rows):
            yield Finding(check="releases", subject=f"releases/{folder.name}", message=message)


def _folder_problems(folder: Path, rows: Mapping[str, SignedRow]) -> Iterator[str]:
    try:
        there: dict[str, Any] = orjson.loads((folder / "release.json").read_bytes())
        row = rows[str(there["release_id"])]
    except (OSError, ValueError, KeyError, TypeError):
        yield "has no release.json of a release that was made here"
        return
    if there != row.said:
        yield "release.json is not what was released"
    if _text(folder / "release.dsse.json") != row.envelope + "\n":
        yield "release.dsse.json is not what was signed"
    expected = row.fields["files"]
    for path in sorted(path for path in folder.rglob("*") if not path.is_dir() or path.is_symlink()):
        name = path.relative_to(folder).as_posix()
        if name not in expected and name not in _BESIDE:
            yield f"{name} was not released with it"
    for name, sha256 in expected.items():
        if _sha256(folder / name) != sha256:
            yield f"{name} is not what was released, or is gone"


def _text(path: Path) -> str | None:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def _sha256(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None
