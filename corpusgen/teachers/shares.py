"""Processes that ask one teacher under one limit divide it among themselves, about once a second.

Each keeps one note in the journal: how fast it asks, and whether it would ask faster. Who does not want more keeps what
it uses; the rest is divided evenly among those who do. Who comes new asks for nothing until everybody else has renewed
their note and so made room; the share of who dies is free, and that of who hangs when its note has not changed for a
while. No clock is compared with another process's: one that is set back or forward changes nothing.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from corpusgen.errors import StoreError
from corpusgen.journal import Journal, Transaction, owner_alive
from corpusgen.teachers.pacing import Pacer

RENEWED_S: Final = 1.0
WAITING_S: Final = 0.2
"""The same for somebody to whom nothing belongs yet."""
STALE_S: Final = 5.0
"""A note that has not been renewed for so long is of a process that hangs; of one that is dead it counts no more."""
RENEWALS: Final = 5
"""Renewals that may fail one after the other, with a journal that is busy; the last share is kept meanwhile."""
ROOM: Final = 1.2
"""How much faster than now somebody may become who does not want more, before the next note."""
LEAST: Final = 0.05
"""Of an even share: with less a process could not even find out that it wants more."""
_PREFIX: Final = "pace:"
_NOBODY: Final[Mapping[str, int]] = {}


@dataclass(frozen=True, kw_only=True)
class Note:
    """What one process says of its asking; rates are parts of the whole limit."""

    member: str
    used: float
    wanting: bool
    round: int
    """How often it has been renewed."""
    told: float | None = None
    """The limit it goes by, in requests a second."""
    found: float | None = None
    """The limit as it has found it out, where nobody tells it."""


def share_of(member: str, notes: Iterable[Note], awaited: Mapping[str, int] = _NOBODY) -> float:
    """The part of a limit that belongs to one of those who left a note; nothing while somebody must still make room.

    ``awaited`` are those whom it found when it came, with their rounds at that moment.
    """
    everybody = list(notes)
    if any(note.round == awaited.get(note.member) for note in everybody):
        return 0.0
    return _divided(everybody)[member]


def _divided(notes: list[Note]) -> dict[str, float]:
    even = 1 / len(notes)
    content = {note.member: max(note.used * ROOM, even * LEAST) for note in notes if not note.wanting}
    content = {member: part for member, part in content.items() if part < even}
    hungry = [note.member for note in notes if note.member not in content]
    left = 1 - sum(content.values())
    return content | {member: left / len(hungry) for member in hungry} if hungry else dict.fromkeys(content, even)


@dataclass(kw_only=True)
class Membership:
    """One pacer's place among those who ask the same teacher."""

    journal: Journal
    pacer: Pacer
    lane: str
    """Who is asked: endpoint and model."""
    member: str = field(default_factory=lambda: uuid.uuid4().hex)
    rounds: int = 0
    awaited: dict[str, int] = field(default_factory=dict)
    """Whom it found when it came, with their rounds at that moment."""
    seen: dict[str, tuple[int, float]] = field(default_factory=dict)
    """The latest round of each of the others, and when it was first seen here."""
    _sent: int = 0
    _renewed_at: float = 0.0

    async def renew(self) -> None:
        """Leave a note, read the others' and take what is ours."""
        told, found = self.pacer.rates.told.get("requests"), self.pacer.rates.found
        now = asyncio.get_running_loop().time()
        passed, self._renewed_at = max(now - self._renewed_at, 0.1), now
        sent = self.pacer.sent
        limit = told or found
        used = (sent - self._sent) / passed / limit if limit else 0.0
        self._sent = sent
        note = {"used": min(used, 1.0), "wanting": self.pacer.busy, "told": told, "found": found}
        notes = await self.journal.run(lambda transaction: self._exchange(transaction, note, now))
        if not self.rounds:
            self.awaited = {other.member: other.round for other in notes if other.member != self.member}
        self.rounds += 1
        self._learn(notes)
        self.pacer.share(share_of(self.member, notes, self.awaited))

    def _learn(self, notes: list[Note]) -> None:
        found = [note.found for note in notes if note.found and note.member != self.member]
        if found:
            self.pacer.tell_found(max(found))
        known = [note.told for note in notes if note.told]
        if known and "requests" not in self.pacer.rates.told:
            self.pacer.tell_requests(min(known))

    def _exchange(self, transaction: Transaction, said: dict[str, Any], now: float) -> list[Note]:
        said = {**said, "owner": self.journal.owner_id, "round": self.rounds + 1}
        sql = "insert into meta(name, value) values(?, ?) on conflict do update set value = excluded.value"
        transaction.execute(sql, (self._name, orjson.dumps(said).decode()))
        return self._living(transaction, now)

    def _living(self, transaction: Transaction, now: float) -> list[Note]:
        start = f"{_PREFIX}{self.lane}\n"
        rows = transaction.rows("select name, value from meta where name >= ? and name < ?", (start, start + "~"))
        owners = {row[0]: row[1:] for row in transaction.rows(_OWNERS, (start, start + "~"))}
        notes = []
        for name, value in rows:
            said = orjson.loads(value)
            note = _note(name.removeprefix(start), said)
            if name == self._name or self._counts(note, owners.get(said["owner"]), now):
                notes.append(note)
            else:
                transaction.execute("delete from meta where name = ?", (name,))
        return notes

    def _counts(self, note: Note, owner: tuple[Any, ...] | None, now: float) -> bool:
        if owner is None or not owner_alive(int(owner[0]), str(owner[1]), int(owner[2])):
            return False
        known = self.seen.get(note.member)
        if known is None or known[0] != note.round:
            known = self.seen[note.member] = (note.round, now)
        return now - known[1] < STALE_S

    async def leave(self) -> None:
        """Free the share."""
        sql = "delete from meta where name = ?"
        await self.journal.run(lambda transaction: transaction.execute(sql, (self._name,)).close())

    @property
    def _name(self) -> str:
        return f"{_PREFIX}{self.lane}\n{self.member}"


_OWNERS: Final = (
    "select owner_id, pid, boot_id, start_ticks from owners where owner_id in"
    " (select json_extract(value, '$.owner') from meta where name >= ? and name < ?)"
)


def _note(member: str, said: dict[str, Any]) -> Note:
    fields: dict[str, Any] = {name: said.get(name) for name in ("used", "wanting", "told", "found")}
    return Note(member=member, round=said.get("round", 0), **fields)


@asynccontextmanager
async def shared_pace(journal: Journal, pacer: Pacer, lane: str) -> AsyncIterator[None]:
    """While it is open, a pacer keeps to its share of what its teacher allows."""
    membership = Membership(journal=journal, pacer=pacer, lane=lane)
    await membership.renew()
    renewing = asyncio.create_task(_renew(membership))
    renewing.add_done_callback(lambda task: _tell_end(task, pacer))
    try:
        yield
    finally:
        renewing.cancel()
        await asyncio.wait([renewing])
        with suppress(StoreError):  # who is gone has no share, with a note or without
            await membership.leave()
        if not renewing.cancelled():
            renewing.result()  # what ended it early


async def _renew(membership: Membership) -> None:
    failures = 0
    while True:
        await asyncio.sleep(RENEWED_S if membership.pacer.rates.share else WAITING_S)
        try:
            await membership.renew()
        except StoreError:
            failures += 1
            if failures >= RENEWALS:
                raise
        else:
            failures = 0


def _tell_end(renewing: asyncio.Task[None], pacer: Pacer) -> None:
    """Without renewals nobody who waits for a share would ever be let through."""
    if not renewing.cancelled() and (error := renewing.exception()) is not None:
        pacer.fail(error)
