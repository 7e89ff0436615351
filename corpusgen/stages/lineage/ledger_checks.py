"""The ledger of events in a corpus: is it what was signed, and is there what it tells of?"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from corpusgen.corpus import Corpus
from corpusgen.errors import CorpusDamaged, UsageError
from corpusgen.journal import storage_errors
from corpusgen.provenance.ledger import (
    Covered,
    Event,
    LedgerProblem,
    SignedRoot,
    commitment_problem,
    event_lines,
    file_checked,
    followed,
    opened_roots,
    read_events,
    signing_notes,
    unsigned_by,
)
from corpusgen.provenance.merkle import MerkleTree
from corpusgen.provenance.seal import manifest_digest
from corpusgen.provenance.signing import key_id_of, read_public
from corpusgen.records import Json
from corpusgen.stages.erasure.erasures import unfinished
from corpusgen.stages.finding import Finding
from corpusgen.stages.lineage.attesting import corpus_id, file_digests
from corpusgen.stages.lineage.public_keys import KEYS_FOLDER, published_keys
from corpusgen.stages.terms.signed_rows import Told, row_findings
from corpusgen.store.durable import write_file


@dataclass(kw_only=True)
class _Said:
    """What the events say, as far as it can be held against what there is; the last word about a thing counts."""

    shards: dict[str, tuple[int, Mapping[str, Json]]] = field(default_factory=dict)
    datasets: dict[str, tuple[int, Mapping[str, Json]]] = field(default_factory=dict)
    students: dict[str, tuple[int, Mapping[str, Json]]] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    erased: set[int] = field(default_factory=set)
    gone: set[str] = field(default_factory=set)
    """Datasets that were revoked, and students that were removed."""

    def followed_by(self, tail: _Said, covered: int) -> _Said:
        """With what unsigned events say where no signed one does: those excuse nothing and overrule nobody."""
        fresh = {
            name: {one: told for one, told in getattr(tail, name).items() if one not in self.gone} | getattr(self, name)
            for name in ("shards", "datasets", "students", "keys")
        }
        erased = self.erased | {seq for seq in tail.erased if seq > covered}
        return _Said(**fresh, erased=erased, gone=self.gone)

    def hear(self, event: Event) -> None:
        """Take in an event; one that is not what was noted down is told elsewhere."""
        if (listen := _LISTEN.get(event.kind)) is None or event.payload is None:
            return
        try:
            listen(self, event.seq, orjson.loads(event.payload))
        except (ValueError, KeyError, TypeError, AttributeError):
            return


def _hear_erased(said: _Said, _: int, payload: Mapping[str, Json]) -> None:
    said.erased.update(payload.get("events") or ())
    for name in payload.get("shards_removed") or ():
        said.shards.pop(name, None)
    for name in payload.get("students_removed") or ():
        said.students.pop(name, None)
        said.gone.add(name)


def _hear_shard(said: _Said, seq: int, payload: Mapping[str, Json]) -> None:
    said.shards[payload["shard"]] = seq, payload


def _hear_sealed(said: _Said, seq: int, payload: Mapping[str, Json]) -> None:
    said.datasets[payload["dataset"]] = seq, payload


def _hear_revoked(said: _Said, _: int, payload: Mapping[str, Json]) -> None:
    said.datasets.pop(payload["dataset"], None)
    said.gone.add(payload["dataset"])


def _hear_student(said: _Said, seq: int, payload: Mapping[str, Json]) -> None:
    said.students[payload["student_id"]] = seq, payload


def _hear_key(said: _Said, _: int, payload: Mapping[str, Json]) -> None:
    said.keys[payload["key_id"]] = payload["public"]


_LISTEN: dict[str, Callable[[_Said, int, Mapping[str, Json]], None]] = {
    "erased": _hear_erased,
    "shard_committed": _hear_shard,
    "dataset_sealed": _hear_sealed,
    "dataset_revoked": _hear_revoked,
    "student_trained": _hear_student,
    "key_added": _hear_key,
}


@dataclass(frozen=True, kw_only=True)
class LedgerChecked:
    """Everything wrong with a corpus's ledger, and how far it is signed."""

    findings: tuple[Finding, ...]
    covered: Covered
    notes: tuple[str, ...] = ()
    """What a reader must know though nothing is wrong."""


def ledger_findings(corpus: Corpus, kept: Iterable[tuple[str, str]] = ()) -> Iterator[Finding]:
    """Everything wrong with a corpus's ledger; ``kept`` are checkpoints (name, envelope) from elsewhere."""
    return iter(ledger_checked(corpus, kept).findings)


def ledger_checked(
    corpus: Corpus, kept: Iterable[tuple[str, str]] = (), only: Mapping[str, bytes] | None = None
) -> LedgerChecked:
    """A corpus's ledger against its checkpoints and those that were kept, and what there is against its events.

    ``only`` is the one key that counts, by its id.
    """
    problems = list[LedgerProblem]()
    keys = {**published_keys(corpus, problems), **(only or {})}
    checkpoints = corpus.journal.query("select size, lower(hex(root)), peaks, envelope from checkpoints order by size")
    named = [(f"checkpoint of {size} events", envelope) for size, _, _, envelope in checkpoints]
    roots = opened_roots(named, keys, problems)
    of_kept = opened_roots(kept, keys, problems)
    problems += _booked_problems(checkpoints, roots)
    walked = followed(events_of(corpus), [*roots, *of_kept], corpus_id(corpus))
    covered = walked.covered(next(iter(only), None) if only else None)
    problems += [*walked.problems, *unsigned_by(covered, only)]
    heard = _said(corpus, covered.events)
    problems += _commitment_problems(corpus, heard.every)
    findings = [Finding(check="events", subject=one.subject, message=one.message) for one in problems]
    findings += _key_findings(corpus, keys, roots, heard)
    known = set(heard.signed.keys) if checkpoints else None
    findings += row_findings(corpus, keys, known, heard.told)
    for look in (_shard_findings, _dataset_findings, _student_findings):
        findings += look(corpus, heard.every, bool(checkpoints))
    notes = signing_notes(covered, walked.met, of_kept, only)
    return LedgerChecked(findings=tuple(findings), covered=covered, notes=tuple(notes))


def events_of(corpus: Corpus) -> Iterator[Event]:
    """All events in their order."""
    sql = "select seq, kind, occurred_us, commitment, nonce, payload from events order by seq"
    with storage_errors(corpus.journal.path):
        for row in corpus.journal.reader.execute(sql):
            values: tuple[Any, ...] = row
            seq, kind, occurred_us, committed, nonce, payload = values
            yield Event(seq=seq, kind=kind, occurred_us=occurred_us, commitment=committed, nonce=nonce, payload=payload)


@dataclass(frozen=True, kw_only=True)
class _Heard:
    """What signed events say, and what all of them do."""

    signed: _Said
    every: _Said
    told: Told


def _said(corpus: Corpus, covered: int) -> _Heard:
    signed, tail, told = _Said(), _Said(), Told()
    # While an erasure is unfinished, which is a finding itself, the event that tells of it is not signed yet.
    trusted = covered if unfinished(corpus) is None else sys.maxsize
    for event in events_of(corpus):
        (signed if event.seq <= trusted else tail).hear(event)
        told.hear(event)
    return _Heard(signed=signed, every=signed.followed_by(tail, trusted), told=told)


def _commitment_problems(corpus: Corpus, said: _Said) -> Iterator[LedgerProblem]:
    """The events, each held against its commitment."""
    for event in events_of(corpus):
        message = commitment_problem(event, erased=event.seq in said.erased)
        if message is not None:
            yield LedgerProblem(subject=f"event {event.seq}", message=message)


def _booked_problems(checkpoints: Iterable[tuple[Any, ...]], roots: Iterable[SignedRoot]) -> Iterator[LedgerProblem]:
    """What the journal has beside an envelope against what is signed in it."""
    signed = {root.name: root for root in roots}
    for size, root, peaks, _ in checkpoints:
        name = f"checkpoint of {size} events"
        said = signed.get(name)
        if said is not None and (said.size, said.root) != (size, root):
            message = f"is noted down with root {root}, signed were {said.size} events with root {said.root}"
            yield LedgerProblem(subject=name, message=message)
        if _root_of(size, peaks) != root:
            yield LedgerProblem(subject=name, message="the hashes it goes on from do not have its root")


def _root_of(size: int, peaks: bytes) -> str | None:
    try:
        return MerkleTree.resumed(size, peaks).root
    except ValueError:
        return None


def _key_findings(
    corpus: Corpus, keys: Mapping[str, bytes], roots: Iterable[SignedRoot], heard: _Heard
) -> Iterator[Finding]:
    for key_id, public in heard.every.keys.items():
        if key_id not in keys or keys[key_id].hex() != public:
            message = f"is not in {KEYS_FOLDER}/, but the ledger says that it signed here: it is gone, or was swapped"
            yield Finding(check="keys", subject=key_id, message=message)
    signed = {root.key_id for root in roots}
    for key_id in sorted(signed - heard.every.keys.keys()):
        message = "has signed a checkpoint, but no event in the ledger tells of it: it was swapped"
        yield Finding(check="keys", subject=key_id, message=message)
    known = {f"{key_id}.pub" for key_id in (*heard.every.keys, *signed)}
    for path in sorted((corpus.folder / KEYS_FOLDER).glob("*")) if signed else ():
        if path.name not in known:
            message = "no event in the ledger tells of a key in this file; take it away"
            yield Finding(check="keys", subject=f"{KEYS_FOLDER}/{path.name}", message=message)


def _shard_findings(corpus: Corpus, said: _Said, signed: bool) -> Iterator[Finding]:
    rows = corpus.journal.query("select name, rows, sha256 from shards")
    there = {name: {"rows": count, "sha256": sha256} for name, count, sha256 in rows}
    yield from _compared("shards", there, said.shards, ("rows", "sha256"), signed=signed)


def _dataset_findings(corpus: Corpus, said: _Said, signed: bool) -> Iterator[Finding]:
    rows = corpus.journal.query("select name || '-' || version, manifest from datasets where status = 'sealed'")
    there = {label: {"manifest_sha256": manifest_digest(orjson.loads(text)["seal"])} for label, text in rows}
    yield from _compared("datasets", there, said.datasets, ("manifest_sha256",), signed=signed)


def _student_findings(corpus: Corpus, said: _Said, signed: bool) -> Iterator[Finding]:
    rows = corpus.journal.query("select student_id, dataset from students")
    folder = corpus.folder / "students"
    there = {name: {"dataset": dataset, "files": file_digests(_inside(folder, name))} for name, dataset in rows}
    yield from _compared("students", there, said.students, ("dataset", "files"), signed=signed)


def _inside(folder: Path, name: str) -> Path:
    return folder / Path(name).name


def _compared(
    check: str,
    there: Mapping[str, Mapping[str, Json]],
    told: Mapping[str, tuple[int, Mapping[str, Json]]],
    names: tuple[str, ...],
    *,
    signed: bool,
) -> Iterator[Finding]:
    """What there is against the last event about it; once there is a checkpoint, everything has an event."""
    for subject, (seq, payload) in told.items():
        if subject not in there:
            message = f"event {seq} tells of it, and it is no more: it was deleted"
            yield Finding(check=check, subject=subject, message=message)
        elif differ := [name for name in names if there[subject][name] != payload.get(name)]:
            message = f"{' and '.join(differ)} are not what event {seq} says"
            yield Finding(check=check, subject=subject, message=message)
    for subject in sorted(there.keys() - told.keys()) if signed else ():
        yield Finding(check=check, subject=subject, message="no event in the ledger tells of it")


def export_events(corpus: Corpus, path: Path) -> int:
    """The ledger in a file: leaves, checkpoints and keys, and nothing of what the events say. Gives back how many."""
    keys = published_keys(corpus, [])
    events = list(events_of(corpus))
    checkpoints = [row[0] for row in corpus.journal.query("select envelope from checkpoints order by size")]
    write_file(path, b"".join(event_lines(corpus_id(corpus), keys, events, checkpoints)))
    return len(events)


def events_checked(path: Path, kept: Path | None = None, only: Mapping[str, bytes] | None = None) -> LedgerChecked:
    """A file of ``export_events`` by itself, and against a checkpoint that was kept elsewhere.

    ``only`` is the one key that counts, by its id.
    """
    named = [] if kept is None else [kept_checkpoint(kept)]
    try:
        checked = file_checked(read_events(path), named, only)
    except CorpusDamaged as error:
        nobody = Covered(keys=(), events=0, last_time=None, unsigned=0)
        finding = Finding(check="events", subject=path.name, message=str(error))
        return LedgerChecked(findings=(finding,), covered=nobody)
    findings = tuple(Finding(check="events", subject=one.subject, message=one.message) for one in checked.problems)
    return LedgerChecked(findings=findings, covered=checked.covered, notes=checked.notes)


def key_of(path: Path) -> dict[str, bytes]:
    """A public key's file as the one key that counts. Raises UsageError where it is none."""
    try:
        public = read_public(str(path), path.read_bytes())
    except OSError as error:
        raise UsageError(f"--key: {path}: cannot be read ({error.strerror or error})") from error
    except CorpusDamaged as error:
        raise UsageError(f"--key: {error}; name the .pub file of a key") from error
    return {key_id_of(public): public}


def kept_checkpoint(path: Path) -> tuple[str, str]:
    """A checkpoint as somebody kept it: the envelope, or what ``corpusgen checkpoint`` printed around it."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read ({error})") from error
    for line in (text, *text.splitlines()):
        try:
            value = orjson.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict) and "envelope" in value:
            return path.name, str(value["envelope"])
        if isinstance(value, dict) and "payload" in value:
            return path.name, line.strip()
    raise UsageError(f"{path}: holds no checkpoint; keep what corpusgen checkpoint prints, or its last line")
