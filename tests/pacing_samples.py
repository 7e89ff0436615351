"""Servers with rate limits and clients that keep to them, in a world where time is a number."""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from corpusgen.teachers.limits import Limit
from corpusgen.teachers.rates import Rates, Ticket
from corpusgen.teachers.shares import Note, share_of


class Limiter(Protocol):
    """Decides whether a request that arrives now is taken."""

    def takes(self, now: float) -> bool: ...

    def done(self, now: float) -> None: ...


@dataclass(kw_only=True)
class TokenBucket:
    """So many a second, and so many at once before that counts."""

    per_s: float
    burst: float
    left: float = field(init=False)
    seen: float = 0.0

    def __post_init__(self) -> None:
        self.left = self.burst

    def takes(self, now: float) -> bool:
        self.left = min(self.burst, self.left + (now - self.seen) * self.per_s)
        self.seen = now
        taken = self.left >= 1
        self.left -= taken
        return taken

    def done(self, now: float) -> None:
        """Nothing to do."""


@dataclass(kw_only=True)
class SlidingWindow:
    """So many in any stretch of so many seconds."""

    most: int
    window_s: float
    taken: deque[float] = field(default_factory=deque)

    def takes(self, now: float) -> bool:
        while self.taken and self.taken[0] <= now - self.window_s:
            self.taken.popleft()
        if len(self.taken) >= self.most:
            return False
        self.taken.append(now)
        return True

    def done(self, now: float) -> None:
        """Nothing to do."""


@dataclass(kw_only=True)
class AtOnce:
    """So many at the same time."""

    most: int
    running: int = 0

    def takes(self, now: float) -> bool:
        taken = self.running < self.most
        self.running += taken
        return taken

    def done(self, now: float) -> None:
        self.running -= 1


@dataclass(kw_only=True)
class Unlimited:
    """Takes everything."""

    def takes(self, now: float) -> bool:
        return True

    def done(self, now: float) -> None:
        """Nothing to do."""


@dataclass(kw_only=True)
class Server:
    """A limiter behind a wire, with a mood: ``noise`` is the share of requests it refuses for no reason."""

    limiter: Limiter
    latency_s: float = 0.05
    jitter: float = 0.1
    refusal_s: float = 0.05
    """A refusal takes no longer: nothing is written for it."""
    noise: float = 0.0
    retry_after: Callable[[], float | None] = lambda: None
    seed: int = 0
    draw: random.Random = field(init=False)
    taken_at: list[float] = field(default_factory=list)
    refused_at: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.draw = random.Random(self.seed)

    def hears(self, now: float) -> bool:
        """Whether the request that arrives now will be answered."""
        taken = self.limiter.takes(now)
        if taken and self.noise and self.draw.random() < self.noise:
            self.limiter.done(now)
            taken = False
        (self.taken_at if taken else self.refused_at).append(now)
        return taken

    def delay(self) -> float:
        """How long an answer takes."""
        return self.latency_s * (1 + self.jitter * (2 * self.draw.random() - 1))


@dataclass(kw_only=True)
class Client:
    """A number of workers, each with a prompt at a time, behind one pacer."""

    rates: Rates
    prompts: int
    workers: int
    waiting: int = 0
    answered: int = 0
    tried: int = 0
    sent_at: list[float] = field(default_factory=list)
    alarm: float = 0.0


@dataclass(kw_only=True)
class World:
    """A server and its clients, from the first request to the last answer."""

    server: Server
    clients: list[Client]
    lag: Callable[[], float] = lambda: 0.0
    """How much later than it should a client's process acts."""
    heard: float | None = None
    """The limit that the headers of every answer and every refusal name."""
    heard_at: float = float("inf")
    now: float = 0.0
    events: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    count: int = 0

    def at(self, moment: float, act: Callable[[], None]) -> None:
        self.count += 1
        heapq.heappush(self.events, (moment, self.count, act))

    def run(self, until: float = 1e4) -> World:
        for client in self.clients:
            client.waiting = min(client.workers, client.prompts)
            self.at(0.0, partial(self.release, client))
        while self.events and self.now < until:
            self.now, _, act = heapq.heappop(self.events)
            act()
        return self

    def release(self, client: Client) -> None:
        while client.waiting:
            due = client.rates.due(self.now)
            if due > self.now:
                self.wake(client, due)
                return
            self.send(client)

    def wake(self, client: Client, due: float) -> None:
        """One alarm for each client, at the next moment it knows of."""
        if due < 1e9 and not self.now < client.alarm <= due + 0.001:
            client.alarm = due + self.lag()
            self.at(client.alarm, lambda: self.release(client))

    def send(self, client: Client) -> None:
        client.waiting -= 1
        client.tried += 1
        ticket = client.rates.take(self.now)
        client.sent_at.append(self.now)
        half = self.server.delay() / 2
        self.at(self.now + 0.001, lambda: self.arrive(client, ticket, half))

    def arrive(self, client: Client, ticket: Ticket, half: float) -> None:
        taken = self.server.hears(self.now)
        back = 2 * half if taken else min(2 * half, self.server.refusal_s)
        self.at(self.now + back, lambda: self.answer(client, ticket, taken))

    def answer(self, client: Client, ticket: Ticket, taken: bool) -> None:
        if self.heard is not None:
            self.heard_at = min(self.heard_at, self.now)
            client.rates.hear([Limit(unit="requests", per_s=self.heard)], self.now)
        if taken:
            self.server.limiter.done(self.now)
            client.rates.accepted(ticket, self.now)
            client.answered += 1
            client.waiting += client.answered + self.under_way(client) < client.prompts
        else:
            client.rates.refused(ticket, self.now, self.server.retry_after())
            client.waiting += 1
        self.release(client)

    def under_way(self, client: Client) -> int:
        return client.rates.in_flight + client.waiting


@dataclass(frozen=True, kw_only=True)
class Result:
    """How a client did against the best that could be."""

    fraction: float
    refused: float
    lost: int
    wall_s: float


def pace(
    server: Server,
    *,
    prompts: int,
    ideal_s: float,
    workers: int = 256,
    told: float | None = None,
    heard: float | None = None,
    seed: int = 0,
    lag: Callable[[], float] = lambda: 0.0,
) -> Result:
    """Send so many prompts through one pacer; ``told`` is a limit from a spec, ``heard`` from the answers' headers."""
    rates = Rates(draw=random.Random(seed).random)
    if told is not None:
        rates.configure([Limit(unit="requests", per_s=told)])
    client = Client(rates=rates, prompts=prompts, workers=workers)
    world = World(server=server, clients=[client], lag=lag, heard=heard).run()
    wall = server.taken_at[-1] - min(server.taken_at[0], *server.refused_at[:1] or [server.taken_at[0]])
    return Result(
        fraction=ideal_s / wall,
        refused=len(server.refused_at) / prompts,
        lost=prompts - client.answered,
        wall_s=world.now,
    )


@dataclass(kw_only=True)
class Board:
    """Where clients leave notes for each other, as processes do in a journal."""

    world: World
    notes: dict[str, Note] = field(default_factory=dict)
    counted: dict[str, int] = field(default_factory=dict)
    awaited: dict[str, dict[str, int]] = field(default_factory=dict)

    def renew(self, client: Client, member: str) -> None:
        """Leave a note, read the others' and take what is ours; nothing more once everything is answered."""
        if client.answered >= client.prompts:
            del self.notes[member]
            return
        rates, notes = client.rates, self.notes
        self.awaited.setdefault(member, {name: note.round for name, note in notes.items()})
        sent, self.counted[member] = self.counted.get(member, 0), rates.count
        self.notes[member] = Note(
            member=member,
            used=min(1.0, (rates.count - sent) / rates.found) if rates.found else 0.0,
            wanting=client.waiting > 0,
            round=notes[member].round + 1 if member in notes else 1,
            found=rates.found,
        )
        others = [note.found for note in self.notes.values() if note.found and note.member != member]
        rates.found_elsewhere = max(others, default=rates.found_elsewhere)
        rates.claim(share_of(member, self.notes.values(), self.awaited[member]), self.world.now)
        self.world.release(client)
        self.world.at(self.world.now + (1.0 if rates.share else 0.2), lambda: self.renew(client, member))


def side_by_side(server: Server, *, prompts: int, workers: int, later_s: float) -> list[Client]:
    """Two clients that know nothing of a server's limit; the second begins so much later."""
    clients = [Client(rates=Rates(draw=random.Random(at).random), prompts=prompts, workers=workers) for at in (1, 2)]
    world = World(server=server, clients=clients[:1])
    board = Board(world=world)

    def begin() -> None:
        board.renew(clients[1], "2")
        clients[1].waiting = workers
        world.release(clients[1])

    world.at(0.0, lambda: board.renew(clients[0], "1"))
    world.at(later_s, begin)
    world.run()
    return clients
