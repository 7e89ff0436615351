"""Processes that ask one teacher under one limit divide it among themselves, about once a second.

Each keeps one note in the journal: how fast it asks, and whether it would ask faster. Who does not want more keeps what
it uses; the rest is divided evenly among those who do. Who comes new asks for nothing until everybody else has had the
time to make room, and the share of who dies is free when its note has grown old.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from corpusgen.journal import Journal, Transaction, owner_alive
from corpusgen.teachers.pacing import Pacer

RENEWED_S: Final = 1.0
WAITING_S: Final = 0.2
"""The same for somebody to whom nothing belongs yet."""
STALE_S: Final = 5.0
"""A note that has not been renewed for so long is of a process that hangs; of one that is dead it counts no more."""
ROOM: Final = 1.2
"""How much faster than now somebody may become who does not want more, before the next note."""
LEAST: Final = 0.05
"""Of an even share: with less a process could not even find out that it wants more."""
_PREFIX: Final = "pace:"


@dataclass(frozen=True, kw_only=True)
class Note:
    """What one process says of its asking; rates are parts of the whole limit."""

    member: str
    used: float
    wanting: bool
    renewed_us: int
    joined_us: int
    told: float | None = None
    """The limit it goes by, in requests a second."""


def share_of(member: str, notes: Iterable[Note]) -> float:
    """The part of a limit that belongs to one of those who left a note; nothing while somebody must still make room."""
    everybody = list(notes)
    mine = next(note for note in everybody if note.member == member)
    if any(note.renewed_us <= mine.joined_us for note in everybody if note is not mine and _older(note, mine)):
        return 0.0
    return _divided(everybody)[member]


def _older(note: Note, mine: Note) -> bool:
    return (note.joined_us, note.member) < (mine.joined_us, mine.member)


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
    joined_us: int = 0
    _sent: int = 0
    _renewed_at: float = 0.0

    async def renew(self) -> None:
        """Leave a note, read the others' and take what is ours."""
        told = self.pacer.rates.told.get("requests")
        now = asyncio.get_running_loop().time()
        passed, self._renewed_at = max(now - self._renewed_at, 0.1), now
        sent = self.pacer.sent
        used = (sent - self._sent) / passed / told if told else 0.0
        self._sent = sent
        note = {"used": min(used, 1.0), "wanting": self.pacer.busy, "told": told}
        notes = await self.journal.run(lambda transaction: self._exchange(transaction, note))
        self._learn(notes)
        self.pacer.share(share_of(self.member, notes))

    def _learn(self, notes: list[Note]) -> None:
        known = [note.told for note in notes if note.told]
        if known and "requests" not in self.pacer.rates.told:
            self.pacer.tell_requests(min(known))

    def _exchange(self, transaction: Transaction, said: dict[str, Any]) -> list[Note]:
        self.joined_us = self.joined_us or transaction.now_us
        said |= {"owner": self.journal.owner_id, "joined_us": self.joined_us, "renewed_us": transaction.now_us}
        sql = "insert into meta(name, value) values(?, ?) on conflict do update set value = excluded.value"
        transaction.execute(sql, (self._name, orjson.dumps(said).decode()))
        return self._living(transaction)

    def _living(self, transaction: Transaction) -> list[Note]:
        start = f"{_PREFIX}{self.lane}\n"
        rows = transaction.rows("select name, value from meta where name >= ? and name < ?", (start, start + "~"))
        owners = {row[0]: row[1:] for row in transaction.rows(_OWNERS, (start, start + "~"))}
        notes = []
        for name, value in rows:
            said = orjson.loads(value)
            if name == self._name or self._counts(transaction, said, owners.get(said["owner"])):
                notes.append(_note(name.removeprefix(start), said))
            else:
                transaction.execute("delete from meta where name = ?", (name,))
        return notes

    def _counts(self, transaction: Transaction, said: dict[str, Any], owner: tuple[Any, ...] | None) -> bool:
        fresh = transaction.now_us - said["renewed_us"] < STALE_S * 1_000_000
        return fresh and owner is not None and owner_alive(int(owner[0]), str(owner[1]), int(owner[2]))

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
    fields = ("used", "wanting", "renewed_us", "joined_us", "told")
    return Note(member=member, **{name: said[name] for name in fields})


@asynccontextmanager
async def shared_pace(journal: Journal, pacer: Pacer, lane: str) -> AsyncIterator[None]:
    """While it is open, a pacer keeps to its share of what its teacher allows."""
    membership = Membership(journal=journal, pacer=pacer, lane=lane)
    await membership.renew()
    renewing = asyncio.create_task(_renew(membership))
    try:
        yield
    finally:
        renewing.cancel()
        await asyncio.wait([renewing])
        await membership.leave()
        if not renewing.cancelled():
            renewing.result()  # what ended it early


async def _renew(membership: Membership) -> None:
    while True:
        await asyncio.sleep(RENEWED_S if membership.pacer.rates.share else WAITING_S)
        await membership.renew()
