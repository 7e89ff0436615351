"""Rooms: an open run for each teacher, task, intended use and run label that somebody asks for.

A room's run is an ordinary one: its task is written to ``service/<digest>/`` of the corpus, with a seed file that
holds a placeholder, and opened like any other, so that policy, budget, reports, seals and audits know it. The same
configuration finds the same folder, and so the same run, after a restart. Time is booked on it only while a call is
under way: a service that waits uses up no cap on time.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Self
from weakref import WeakValueDictionary

import orjson
import yaml

from corpusgen.corpus import Corpus
from corpusgen.errors import StoreError
from corpusgen.fanout.asker import Asker
from corpusgen.records import Json, canonical_json, digest
from corpusgen.serve.callers import Caller
from corpusgen.serve.config import CALLS, Configured, alias_of
from corpusgen.serve.refusals import Busy, Stopping
from corpusgen.stages.erasure.erasures import Tombstones
from corpusgen.stages.loading import load_task
from corpusgen.stages.opening import end_run, judge_answers_by_terms, open_run
from corpusgen.stages.runs import Run
from corpusgen.stages.task import Task
from corpusgen.store.durable import make_folder, unwritable, write_file

FOLDER: Final = "service"
"""Where the tasks of rooms are written."""
SCOPE: Final = "service"
"""What everything is booked in that a service asks."""
REMEMBERED_S: Final = 5.0
"""How long a room that could not be opened stays so: opening decides, and writes down what was decided."""

_PROMPT: Final = """\
---
name: calls
description: What callers of the service write, passed on as it is.
licence: NOASSERTION
inputs: [text, messages]
---
messages:
"""
_SEED: Final = """\
{"id": "placeholder", "text": "-", "messages": [{"role": "user", "content": "-"}]}
"""
"""A seed file holds a row at least; what is really asked comes from callers. Nobody's words are in this one."""


@dataclass(frozen=True, kw_only=True)
class RoomKey:
    """What makes a room another one."""

    at: int
    """Which of the configured teachers."""
    task: str
    use: str
    """The intended use, as canonical JSON."""
    run: str
    """The callers' own label; empty for none."""


@dataclass(kw_only=True)
class Room:
    """An open run, and who asks in it."""

    key: RoomKey
    run: Run
    tombstones: Tombstones
    active: int = 0
    """Calls under way."""
    used_at: float = 0.0
    worked_s: float = 0.0
    """Time with a call under way that is not booked yet."""
    span: int | None = None
    stale: bool = False
    """Whether it was opened under terms that hold no more; the next call opens another."""
    closed: bool = False
    """Whether it is to be closed as soon as nothing is under way."""
    _since: float = 0.0
    _askers: dict[tuple[str, ...], Asker] = field(default_factory=dict)

    @property
    def asker(self) -> Asker:
        """Who asks for nobody in particular."""
        return self.run.asker

    @property
    def source(self) -> str:
        """The source that callers' words are of."""
        return self.run.task.spec.seeds.train.source

    def asker_for(self, caller: Caller, user: str, attempts: int) -> Asker:
        """Who asks for a caller: what he spends is booked for him as well."""
        scopes = (f"user:{user}", f"token:{caller.token_id}")
        found = self._askers.get(scopes)
        if found is None:
            own = [scope for scope in self.asker.scopes if not scope.startswith("user:")]
            found = replace(self.asker, scopes=tuple(dict.fromkeys((*own, *scopes))), attempts=attempts)
            if len(self._askers) >= _MOST_ASKERS:
                self._askers.clear()
            self._askers[scopes] = found
        return found

    def __enter__(self) -> Self:
        """Inside, a call is under way, and the time is the run's."""
        if self.active == 0:
            self._since = time.monotonic()
        self.active += 1
        return self

    def __exit__(self, *_: object) -> None:
        self.active -= 1
        self.used_at = time.monotonic()
        if self.active == 0:
            self.worked_s += self.used_at - self._since

    def worked_us(self) -> int:
        """Microseconds in which at least one call was under way, since this was asked last."""
        if self.active:
            now = time.monotonic()
            self.worked_s, self._since = self.worked_s + now - self._since, now
        worked, self.worked_s = self.worked_s, 0.0
        return round(worked * 1_000_000)


_MOST_ASKERS: Final = 1_000


@dataclass(kw_only=True)
class _Held:
    """A room on its way, open, or closing."""

    ready: asyncio.Future[Room]
    closing: asyncio.Event = field(default_factory=asyncio.Event)
    keeper: asyncio.Task[None] | None = None
    failed_at: float = 0.0

    def kept(self, keeper: asyncio.Task[None]) -> None:
        """Tell whoever waits of what nobody expected to go wrong."""
        if self.ready.done():
            return
        error = None if keeper.cancelled() else keeper.exception()
        # What the disk would not take may be taken in a moment; a decision stays one.
        self.failed_at = -REMEMBERED_S if isinstance(error, StoreError) else time.monotonic()
        self.ready.set_exception(error or Stopping("the service is being stopped"))
        self.ready.exception()


@dataclass(kw_only=True)
class Rooms:
    """The rooms of a service: opened when somebody comes, closed when nobody has come for long."""

    corpus: Corpus
    config: Configured
    told: Callable[[Room], object] = lambda room: None
    """Told of each room that was opened."""
    _held: dict[RoomKey, _Held] = field(default_factory=dict)
    _leaving: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def open(self) -> list[Room]:
        """The rooms that are open."""
        ready = (one.ready for one in self._held.values())
        return [one.result() for one in ready if one.done() and not one.cancelled() and one.exception() is None]

    def there(self, key: RoomKey) -> Room | None:
        """The room, if it is open and its terms hold as far as is known."""
        held = self._held.get(key)
        if held is None or not held.ready.done() or held.ready.exception() is not None:
            return None
        room = held.ready.result()
        return None if room.stale else room

    async def room(self, key: RoomKey) -> Room:
        """The room, opened if it is not. Raises what its task or its terms speak against, and Busy."""
        if (room := self.there(key)) is not None:
            return room
        held = self._held.get(key)
        if held is None or self._is_over(held):
            self._close(key)
            self._make_way()
            held = _Held(ready=asyncio.get_running_loop().create_future())
            held.keeper = asyncio.create_task(self._keep(key, held), name=f"room {key.task} {key.run}")
            held.keeper.add_done_callback(held.kept)
            self._held[key] = held
        room = await asyncio.shield(held.ready)
        return await self.room(key) if room.closed else room  # closed for another's sake before anybody came in

    def close_idle(self) -> None:
        """Close what nobody has used for long."""
        before = time.monotonic() - self.config.spec.limits.idle_s
        for room in self.open:
            if not room.active and (room.stale or room.used_at < before):
                self._close(room.key)

    async def aclose(self) -> None:
        """Close all of them; nothing may be under way."""
        for key in list(self._held):
            self._close(key)
        while self._leaving:
            await asyncio.wait(self._leaving)

    def _is_over(self, held: _Held) -> bool:
        if not held.ready.done():
            return False
        if held.ready.exception() is not None:
            return time.monotonic() - held.failed_at > REMEMBERED_S
        return held.ready.result().stale

    def _make_way(self) -> None:
        if len(self._held) < self.config.spec.limits.rooms:
            return
        idle = sorted((room for room in self.open if not room.active), key=lambda room: room.used_at)
        failed = [key for key, held in self._held.items() if held.failed_at]
        if not idle and not failed:
            raise Busy(
                f"{len(self._held)} runs are open and busy, and limits.rooms is {self.config.spec.limits.rooms}; come"
                " back later, or use fewer tasks, uses and run labels at once"
            )
        for key in failed or [idle[0].key]:
            self._close(key)

    def _close(self, key: RoomKey) -> None:
        held = self._held.pop(key, None)
        if held is not None and held.keeper is not None:
            if held.ready.done() and held.ready.exception() is None:
                held.ready.result().closed = True
            held.closing.set()
            self._leaving.add(held.keeper)
            held.keeper.add_done_callback(self._leaving.discard)

    async def _keep(self, key: RoomKey, held: _Held) -> None:
        """Hold a run open in a task of its own, until it is to be closed and nothing is under way in it."""
        task = await asyncio.to_thread(task_of, self.corpus, self.config, key)
        async with open_run(task, self.corpus, on_failure="drop", scopes=(SCOPE,), timed=False) as run:
            room = Room(key=key, run=run, tombstones=Tombstones.of(self.corpus.journal), used_at=time.monotonic())
            self.told(room)
            held.ready.set_result(room)
            await held.closing.wait()
            while room.active:  # noqa: ASYNC110 - seldom, and for a moment
                await asyncio.sleep(0.05)
            await judge_answers_by_terms(run)
            if all(other.run.run_id != run.run_id for other in self.open):  # it may have been opened again meanwhile
                await end_run(run, "complete")


def task_of(corpus: Corpus, config: Configured, key: RoomKey) -> Task:
    """The task of a room, written to the corpus where it is not there already."""
    fields = _fields(config, key)
    folder = corpus.folder / FOLDER / digest(_of_the_question(fields))[:16]
    seeds = fields["seeds"]["train"]["path"]
    make_folder(folder)
    with _alone_in(folder):
        for name, text in (("prompt.md", _PROMPT), (seeds, _SEED), ("task.yaml", _written(fields))):
            path = folder / name
            if not path.exists() or path.read_text("utf-8") != text:
                write_file(path, text.encode(), writer=f"{os.getpid()}-{threading.get_ident()}")
        return load_task(folder / "task.yaml")


_locks: WeakValueDictionary[Path, threading.Lock] = WeakValueDictionary()
_locking: Final = threading.Lock()


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Inside, nobody else writes the task in a folder or reads it: no other room, and no other service."""
    with _locking:
        lock = _locks.setdefault(folder.resolve(), threading.Lock())
    with lock:
        with unwritable(folder):
            descriptor = os.open(folder, os.O_RDONLY)
        try:
            with suppress(OSError):  # not every file system has locks; names of their own keep files whole anyway
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _of_the_question(fields: Mapping[str, Json]) -> Json:
    """What of a room's task makes it another: not its price, its caps, its speed."""
    left_out = ("organisation", "agreements", "egress", "curate")
    kept = {name: value for name, value in fields.items() if name not in left_out}
    return {**kept, "teachers": [_asked_with(fields["teachers"][0])]}


def _asked_with(teacher: Mapping[str, Json]) -> dict[str, Json]:
    return {name: value for name, value in teacher.items() if name not in _OF_NO_QUESTION}


def _seeds_of(config: Configured, key: RoomKey) -> str:
    """The name of a room's seed file, which makes its run another.

    Runs have labels or none, and no label is the name of having none. Of several aliases that ask the very same, each
    but the first has runs of its own too: their figures may differ, and one run has one set of them.
    """
    teachers = [{name: value for name, value in one.items() if name != "model"} for one in config.fields["teachers"]]
    asked = [_asked_with(one) for one in teachers]
    first = asked.index(asked[key.at])
    name = f"label-{key.run}" if key.run else "calls"
    if teachers[first] == teachers[key.at]:
        return f"{name}.jsonl"
    return f"{name}@{digest(alias_of(config.spec.teachers[key.at]))[:12]}.jsonl"


_OF_NO_QUESTION: Final = (
    "in_flight",
    "rate",
    "timeout_s",
    "price",
    "free",
    "unbilled",
    "transport",
    "region",
    "unpaid",
)


def _fields(config: Configured, key: RoomKey) -> dict[str, Json]:
    told, home = config.fields, config.file.parent
    teacher = {name: value for name, value in told["teachers"][key.at].items() if name != "model"}
    if teacher.get("script"):
        teacher["script"] = str((home / teacher["script"]).resolve())
    sources = [_resolved(home, source) for source in told.get("sources") or [dict(CALLS)]]
    fields: dict[str, Any] = {
        "name": key.task,
        "description": "Calls of clients of the service, as they came.",
        "prompt": "prompt.md",
        "input": "text",
        "kind": "response",
        "intended_use": orjson.loads(key.use),
        "sources": sources,
        "seeds": {"train": {"path": _seeds_of(config, key), "source": sources[0]["id"]}},
        "asking": {"order": "file"},
        "teachers": [teacher],
    }
    if told.get("terms_files"):
        fields["terms_files"] = [str((home / name).resolve()) for name in told["terms_files"]]
    return fields | {name: told[name] for name in ("organisation", "agreements", "egress", "curate") if told.get(name)}


def _resolved(home: Path, source: Mapping[str, Json]) -> dict[str, Json]:
    notice = {"notice": str((home / source["notice"]).resolve())} if source.get("notice") else {}
    return {**source, **notice}


def _written(fields: Mapping[str, Json]) -> str:
    about = "# Written by corpusgen serve, and again when service.yaml changes.\n"
    return about + yaml.safe_dump(dict(fields), sort_keys=False, allow_unicode=True, width=110)


def use_text(use: Json) -> str:
    """An intended use as rooms are told apart by it."""
    return canonical_json(use).decode()
