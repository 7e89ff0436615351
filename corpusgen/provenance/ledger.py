"""Checking a ledger of events: commitments, order, signatures, and every signed root against the events before it.

A ledger that passes was not edited since its checkpoints were signed, by anybody without the key. It says nothing
about whether the events were true, and whoever has the key can write another one from the start: that is seen only by
those who kept an earlier checkpoint elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import orjson

from corpusgen.errors import CorpusDamaged
from corpusgen.provenance.events import CHECKPOINT_TYPE, commitment, event_leaf
from corpusgen.provenance.merkle import MerkleTree, leaf_hash
from corpusgen.provenance.signing import key_id_of, open_envelope
from corpusgen.records import Json, canonical_json

EVENTS_SCHEMA = "corpusgen.events/1"
_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """One event; ``nonce`` and ``payload`` are None where they were erased, or are not shown."""

    seq: int
    kind: str
    occurred_us: int
    commitment: bytes
    nonce: bytes | None = None
    payload: str | None = None

    @property
    def leaf(self) -> bytes:
        """What stands for it in the tree."""
        return event_leaf(self.seq, self.kind, self.occurred_us, self.commitment)


@dataclass(frozen=True, kw_only=True)
class LedgerProblem:
    """Something in a ledger that is not as it was signed."""

    subject: str
    message: str


@dataclass(frozen=True, kw_only=True)
class SignedRoot:
    """What a checkpoint says, after its signature was found to fit."""

    name: str
    """What to call it: ``checkpoint of 12 events``, or where it was kept."""
    corpus_id: str
    size: int
    root: str
    key_id: str
    signed_time: str


def opened_root(name: str, envelope: str, keys: Mapping[str, bytes]) -> SignedRoot:
    """A checkpoint's own words. Raises CorpusDamaged where it was forged, changed or signed with an unknown key."""
    payload_type, payload = open_envelope(envelope, keys)
    if payload_type != CHECKPOINT_TYPE:
        raise CorpusDamaged(f"is signed as {payload_type}, not as a checkpoint")
    try:
        said = orjson.loads(payload)
        texts = {name: _exactly(said[name], str) for name in ("corpus_id", "root", "signed_time")}
        size = _exactly(said["size"], int)
    except (ValueError, KeyError, TypeError) as error:
        raise CorpusDamaged(f"does not say what a checkpoint must ({type(error).__name__}: {error})") from error
    key_id = orjson.loads(envelope)["signatures"][0]["keyid"]
    return SignedRoot(name=name, size=size, key_id=key_id, **texts)


def _exactly(value: object, kind: type[_T]) -> _T:
    """A value of just this type; true is no number."""
    if type(value) is not kind:
        raise TypeError(f"{type(value).__name__} in place of {kind.__name__}")
    return value


def opened_roots(
    checkpoints: Iterable[tuple[str, str]], keys: Mapping[str, bytes], problems: list[LedgerProblem]
) -> list[SignedRoot]:
    """The checkpoints (name and envelope) whose signatures fit; what is wrong with the others goes to ``problems``."""
    opened = []
    for name, envelope in checkpoints:
        try:
            opened.append(opened_root(name, envelope, keys))
        except CorpusDamaged as error:
            problems.append(LedgerProblem(subject=name, message=str(error)))
    return opened


@dataclass(frozen=True, kw_only=True)
class Followed:
    """What came of following a ledger from its first event to its last."""

    problems: tuple[LedgerProblem, ...]
    """Gaps, disorder, and signed roots that the events do not lead to."""
    met: tuple[SignedRoot, ...]
    """The signed roots that the events lead to, the shortest first."""
    events: int
    root: str
    """The root of all of them."""

    def covered(self, key_id: str | None = None) -> Covered:
        """By whom and up to where it is signed; by one key alone where that is named."""
        counting = [root for root in self.met if key_id in (None, root.key_id)]
        last = counting[-1] if counting else None
        return Covered(
            keys=tuple(dict.fromkeys(root.key_id for root in counting)),
            events=last.size if last else 0,
            last_time=last.signed_time if last else None,
            unsigned=self.events - (last.size if last else 0),
        )


@dataclass(frozen=True, kw_only=True)
class Covered:
    """By whose keys a ledger is signed, and up to where."""

    keys: tuple[str, ...]
    events: int
    last_time: str | None
    unsigned: int
    """Events after that, which anybody who can write here may have put there."""

    def __str__(self) -> str:
        if not self.keys:
            return f"signed by nobody: {self.unsigned} unsigned"
        return (
            f"signed by {' and '.join(self.keys)}, {self.events} events, last on {self.last_time},"
            f" {self.unsigned} unsigned"
        )

    def to_json(self) -> dict[str, Json]:
        """The same for programs."""
        last = {"events": self.events, "last_time": self.last_time, "unsigned": self.unsigned}
        return {"keys": list(self.keys), **last}


def followed(events: Iterable[Event], roots: Sequence[SignedRoot], corpus_id: str) -> Followed:
    """A ledger held against every signed root, from its first event to its last."""
    waiting, problems = sorted(roots, key=lambda root: root.size), list[LedgerProblem]()
    for root in waiting:
        if root.corpus_id != corpus_id:
            message = f"is of corpus {root.corpus_id}, this is {corpus_id or 'one without a name'}"
            problems.append(LedgerProblem(subject=root.name, message=message))
    walk = _Walk(waiting=list(waiting))
    for event in events:
        problems += walk.step(event)
    problems += walk.end()
    met = tuple(root for root in walk.met if root.corpus_id == corpus_id)
    return Followed(problems=tuple(problems), met=met, events=walk.tree.size, root=walk.tree.root)


@dataclass
class _Walk:
    """The way along the events, with the signed roots that lie ahead."""

    waiting: list[SignedRoot]
    tree: MerkleTree = field(default_factory=MerkleTree)
    agreed: int = 0
    """Up to where a signed root has been met and was right."""
    met: list[SignedRoot] = field(default_factory=list)
    broken: bool = False
    last_us: int = 0
    back: list[int] = field(default_factory=list)
    """Events since then that are dated before the one before them."""

    def step(self, event: Event) -> Iterator[LedgerProblem]:
        if event.seq != self.tree.size + 1:
            yield LedgerProblem(subject=f"event {self.tree.size + 1}", message=_out_of_order(self.tree.size, event.seq))
            self.broken = True
        self.tree.add(event.leaf)
        if event.occurred_us < self.last_us:
            self.back.append(event.seq)
        self.last_us = event.occurred_us
        while self.waiting and self.waiting[0].size <= self.tree.size:
            yield from self._meet(self.waiting.pop(0))

    def _meet(self, root: SignedRoot) -> Iterator[LedgerProblem]:
        if root.size == self.tree.size and root.root == self.tree.root:
            self.agreed, self.back = root.size, []
            self.met.append(root)
        elif not self.broken:  # after one that does not fit, no later one can
            self.broken = True
            message = f"events {self.agreed + 1} to {root.size} are not those that were signed, or not in their order"
            hint = f": event {self.back[0]} is dated before the one before it" if self.back else ""
            yield LedgerProblem(subject=root.name, message=message + hint)

    def end(self) -> Iterator[LedgerProblem]:
        for root in self.waiting:
            message = f"{root.size} events were signed, and there are only {self.tree.size}: the ledger was cut"
            yield LedgerProblem(subject=root.name, message=message)


def _out_of_order(before: int, found: int) -> str:
    if found <= before:
        return f"number {found} stands in its place: the ledger is out of order"
    return f"is missing; the next one is {found}"


def commitment_problem(event: Event, *, erased: bool) -> str | None:
    """What is wrong with what an event says; ``erased`` says whether a later event tells that it was destroyed."""
    if event.payload is None and event.nonce is None:
        return None if erased else "what it says is gone, and no erasure tells of that"
    if event.payload is None or event.nonce is None:
        gone = "payload" if event.payload is None else "nonce"
        return f"its {gone} is gone and the rest is not: nobody can say whether it was changed"
    if commitment(event.payload.encode(), event.nonce) != event.commitment:
        return f"what it says ({event.kind}) is not what was noted down: it was changed"
    return None


# --- a ledger in a file of its own -----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class EventsFile:
    """The leaves of a ledger, its checkpoints and the keys to check them with: nothing of what the events say."""

    corpus_id: str
    size: int
    root: str
    keys: Mapping[str, bytes]
    events: tuple[Event, ...]
    checkpoints: tuple[str, ...]

    @property
    def named(self) -> list[tuple[str, str]]:
        """The checkpoints with what to call them."""
        return [(f"checkpoint {number}", envelope) for number, envelope in enumerate(self.checkpoints, start=1)]


def event_lines(
    corpus_id: str, keys: Mapping[str, bytes], events: Iterable[Event], checkpoints: Iterable[str]
) -> Iterator[bytes]:
    """A ledger as JSON Lines: events with their leaf hashes, then checkpoints, then what there should be."""
    tree = MerkleTree()
    yield _line({"schema": EVENTS_SCHEMA, "corpus_id": corpus_id})
    for event in events:
        tree.add(event.leaf)
        yield _event_line(event)
    for envelope in checkpoints:
        yield _line({"checkpoint": orjson.loads(envelope)})
    published: Json = {key_id: public.hex() for key_id, public in keys.items()}
    yield _line({"keys": published, "root": tree.root, "size": tree.size})


def _event_line(event: Event) -> bytes:
    return _line(
        {
            "seq": event.seq,
            "kind": event.kind,
            "occurred_us": event.occurred_us,
            "commitment": event.commitment.hex(),
            "leaf": leaf_hash(event.leaf).hex(),
        }
    )


def _line(value: Json) -> bytes:
    return canonical_json(value) + b"\n"


def read_events(path: Path) -> EventsFile:
    """A ledger's file. Raises CorpusDamaged naming the first line that no export writes like that."""
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except OSError as error:
        raise CorpusDamaged(f"{path}: cannot be read: {error.strerror or error}") from error
    head, tail, keys = dict[str, Any](), dict[str, Any](), dict[str, bytes]()
    events, checkpoints = list[Event](), list[str]()
    for number, line in enumerate(lines, start=1):
        try:
            row = _row(line)
            if number == 1:
                head = _only(row, "schema", "corpus_id")
                _exactly(head["corpus_id"], str)
            elif number == len(lines):
                tail = _only(row, "keys", "root", "size")
                keys = {key_id: _key(_exactly(public, str)) for key_id, public in _exactly(tail["keys"], dict).items()}
                _exactly(tail["root"], str), _exactly(tail["size"], int)
            elif "checkpoint" in row:
                envelope = _exactly(_only(row, "checkpoint")["checkpoint"], dict)
                checkpoints.append(canonical_json(envelope).decode())
            else:
                events.append(_event(row, line))
        except (ValueError, KeyError, TypeError) as error:  # no JSON, no numbers, no such fields
            raise CorpusDamaged(f"{path}:{number}: is not as it was exported ({error})") from error
    if not tail or head["schema"] != EVENTS_SCHEMA:
        raise CorpusDamaged(f"{path}: is no ledger that corpusgen checkpoint --export has written, or was cut")
    return EventsFile(
        corpus_id=head["corpus_id"],
        size=tail["size"],
        root=tail["root"],
        keys=keys,
        events=tuple(events),
        checkpoints=tuple(checkpoints),
    )


def _row(line: bytes) -> dict[str, Any]:
    row: dict[str, Any] = _exactly(orjson.loads(line), dict)
    if _line(row) != line:
        raise ValueError("written in another way")
    return row


def _only(row: dict[str, Any], *names: str) -> dict[str, Any]:
    if set(row) != set(names):
        raise ValueError(f"it has {', '.join(sorted(row))}, not {', '.join(sorted(names))}")
    return row


def _key(public: str) -> bytes:
    raw = bytes.fromhex(public)
    if raw.hex() != public or len(raw) != 32:
        raise ValueError("a key is 64 small hexadecimal digits")
    return raw


def _event(row: dict[str, Any], line: bytes) -> Event:
    event = Event(
        seq=_exactly(row["seq"], int),
        kind=_exactly(row["kind"], str),
        occurred_us=_exactly(row["occurred_us"], int),
        commitment=bytes.fromhex(_exactly(row["commitment"], str)),
    )
    if _event_line(event) != line:
        raise ValueError("its leaf is not that of what it says")
    return event


@dataclass(frozen=True, kw_only=True)
class FileChecked:
    """Everything wrong with a ledger's file, and how far it is signed."""

    problems: tuple[LedgerProblem, ...]
    covered: Covered
    notes: tuple[str, ...]


def file_checked(
    found: EventsFile, kept: Sequence[tuple[str, str]] = (), only: Mapping[str, bytes] | None = None
) -> FileChecked:
    """A ledger's file by itself, and against checkpoints (name and envelope) kept elsewhere.

    ``only`` is the one key that counts, by its id.
    """
    problems = [
        LedgerProblem(subject=f"key {key_id}", message=f"was swapped: the key under this name is {key_id_of(public)}")
        for key_id, public in found.keys.items()
        if key_id_of(public) != key_id
    ]
    keys = {**found.keys, **(only or {})}
    roots = opened_roots(found.named, keys, problems)
    of_kept = opened_roots(kept, keys, problems)
    walked = followed(found.events, [*roots, *of_kept], found.corpus_id)
    problems += walked.problems
    if (walked.events, walked.root) != (found.size, found.root):
        there = f"{walked.events} with {walked.root}"
        message = f"{found.size} events were exported with root {found.root}, here are {there}"
        problems.append(LedgerProblem(subject="events", message=message))
    if not found.checkpoints:
        problems.append(LedgerProblem(subject="checkpoints", message="there is none, so nothing here is signed"))
    covered = walked.covered(next(iter(only), None) if only else None)
    problems += unsigned_by(covered, only)
    return FileChecked(
        problems=tuple(problems), covered=covered, notes=tuple(signing_notes(covered, walked.met, of_kept, only))
    )


def unsigned_by(covered: Covered, only: Mapping[str, bytes] | None) -> Iterator[LedgerProblem]:
    """That the one key which counts has signed nothing here."""
    if only and not covered.keys:
        yield LedgerProblem(subject=f"key {next(iter(only))}", message="has signed no checkpoint that fits this ledger")


def signing_notes(
    covered: Covered,
    met: Iterable[SignedRoot],
    kept: Iterable[SignedRoot],
    only: Mapping[str, bytes] | None = None,
) -> Iterator[str]:
    """What a reader must know of the signatures though nothing is wrong with them."""
    if covered.unsigned:
        by = f" by key {next(iter(only))}" if only else " yet"
        told = "1 event since the last checkpoint is" if covered.unsigned == 1 else None
        yield f"{told or f'{covered.unsigned} events since the last checkpoint are'} not signed{by}"
    for root in kept:
        others = {one.key_id for one in met if one.size > root.size} - {root.key_id}
        if others:
            named = " and ".join(sorted(others))
            yield f"{root.name} is signed by key {root.key_id}, and later checkpoints here by {named}: ask whose it is"
