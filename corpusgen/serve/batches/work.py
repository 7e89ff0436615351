"""Works on the batches of callers: each goes from line to line until all of them are answered or have failed.

Every step is durable before the next: the batch with its lines, each answer with its settlement, what became of each
line. A service that is started again, after a stop or a crash, goes on with what is not finished; nothing is paid
twice, as the answers are in the journal and what was handed over is looked for at its teacher.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from typing import Final, Literal, Self

import orjson

from corpusgen.batching.life import Patience
from corpusgen.corpus import Corpus, microseconds
from corpusgen.errors import CorpusgenError, Interrupted, StoreError, TeacherError
from corpusgen.fanout.notes import note_drop
from corpusgen.journal import Journal
from corpusgen.prompting.prompts import Prompt
from corpusgen.records import Json, Request
from corpusgen.serve.batches.lane import Handing, Parcel, Way, all_of, takes_batches
from corpusgen.serve.batches.lines import body_of, call_of, endpoint_of, read_lines, told_line
from corpusgen.serve.batches.rows import (
    LIFE_US,
    Batch,
    Line,
    body_of_file,
    change,
    counts,
    ended,
    find_batch,
    find_line,
    finish,
    finish_line,
    lines_from,
    new_id,
    paid_in,
    purge,
    unfinished,
    validated,
    waiting,
)
from corpusgen.serve.callers import Caller
from corpusgen.serve.config import STUDENT
from corpusgen.serve.desk import Desk, Given, Wanted, prompt_of
from corpusgen.serve.refusals import Busy, Stopping, refusal
from corpusgen.serve.rooms import Room
from corpusgen.serve.routes import Shape
from corpusgen.serve.statuses import Hidden
from corpusgen.serve.wires.calls import Call
from corpusgen.store.answers import known_answers

AT_ONCE: Final = 16
"""Lines of one batch under way at once."""
WINDOW: Final = 64
BEAT_S: Final = 1.0
PURGE_S: Final = 3_600.0
RETRY_S: Final = 30.0
"""How long work on a batch rests that something of ours was in the way of, such as a full disk."""
MOST_REST_S: Final = 5.0
GRACE_US: Final = 3_600_000_000
"""What was handed over has its own day at its teacher, which began a little later."""

_log = logging.getLogger("corpusgen.serve")
_DONE: Final[Mapping[str | None, Literal["completed", "cancelled", "expired"]]] = {
    None: "completed",
    "cancelled": "cancelled",
    "expired": "expired",
}


class _Undone(Exception):
    """A line is not asked any more."""


@dataclass(kw_only=True)
class Job:
    """A batch that is being worked on."""

    batch: Batch
    ends_as: Literal["cancelled", "expired"] | None = None
    """What becomes of lines without an answer; None: they are asked."""
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    """Set: nothing more is asked for it."""
    task: asyncio.Task[None] | None = None
    counted: set[bytes] = field(default_factory=set)
    """Requests whose price was counted; a line that asks the same again costs nothing."""

    def end(self, how: Literal["cancelled", "expired"]) -> None:
        """Ask no more for it; what was answered is kept."""
        if self.ends_as is None:
            self.ends_as = how
            self.stop.set()

    @property
    def caller(self) -> Caller:
        """In whose name it asks, as long as that may be."""
        return Caller(token_id=self.batch.token_id, user=self.batch.user, scopes=frozenset({"ask"}))

    @property
    def wanted(self) -> Wanted:
        """What was said of all its calls."""
        return Wanted(**self.batch.facts["wanted"])

    @property
    def shape(self) -> Shape:
        """In whose words its errors are told."""
        return "anthropic" if self.batch.wire == "messages" else "openai"


@dataclass(kw_only=True)
class BatchWork:
    """All the batches of a service that are under way."""

    desk: Desk
    patience: Patience = field(default_factory=Patience)
    halt: asyncio.Event = field(default_factory=asyncio.Event)
    """Set: the service is being stopped."""
    _jobs: dict[str, Job] = field(default_factory=dict)
    _shares: dict[int, asyncio.Semaphore] = field(default_factory=dict)
    _beat: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, desk: Desk, *, patience: Patience | None = None) -> Self:
        """Go on with the batches that are not finished."""
        work = cls(desk=desk, patience=patience or Patience())
        for batch in unfinished(work.journal):
            work.begin(batch)
        work._beat = asyncio.create_task(work._beating(), name="batches")
        return work

    @property
    def corpus(self) -> Corpus:
        """Where everything is kept."""
        return self.desk.corpus

    @property
    def journal(self) -> Journal:
        """Where every step is written down."""
        return self.desk.corpus.journal

    def begin(self, batch: Batch) -> None:
        """Work on a batch that stands in the journal."""
        job = Job(batch=batch)
        if batch.state == "cancelling":
            job.end("cancelled")
        self._jobs[batch.id] = job
        job.task = asyncio.create_task(self._run(job), name=f"batch {batch.id}")
        job.task.add_done_callback(lambda task: self._over(job, task))

    async def cancel(self, batch_id: str) -> bool:
        """End a batch: what is answered by then is kept. False for one that has ended."""
        facts = {"cancelling_us": microseconds(self.corpus.clock())}
        asked = await self.journal.run(change(batch_id, ("validating", "in_progress"), "cancelling", facts))
        if (job := self._jobs.get(batch_id)) is not None and asked:
            job.end("cancelled")
        return asked

    async def close(self, *, grace_s: float = 30.0) -> None:
        """Begin nothing more and wait for what is under way; the next start of the service goes on."""
        self.halt.set()
        tasks = [job.task for job in self._jobs.values() if job.task is not None]
        for job in list(self._jobs.values()):
            job.stop.set()
        if self._beat is not None:
            self._beat.cancel()
            tasks.append(self._beat)
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=grace_s)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)

    def _over(self, job: Job, task: asyncio.Task[None]) -> None:
        self._jobs.pop(job.batch.id, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("batch %s broke off; it goes on when the service is started again", job.batch.id, exc_info=error)

    async def _beating(self) -> None:
        purged = None
        loop = asyncio.get_running_loop()
        while True:
            with suppress(CorpusgenError):  # a full disk stops who asks, and says so there
                if purged is None or loop.time() - purged >= PURGE_S:
                    purged = loop.time()
                    await self.journal.run(purge)
                for job in list(self._jobs.values()):
                    self._look_at(job)
            await asyncio.sleep(BEAT_S)

    def _look_at(self, job: Job) -> None:
        """End what is overdue, or is asked in the name of a token that has expired or was taken back."""
        now_us = microseconds(self.corpus.clock())
        age_us = now_us - job.batch.made_us
        if age_us >= LIFE_US and (age_us >= LIFE_US + GRACE_US or not self._handing(job).is_out):
            job.end("expired")
        sql = "select 1 from tokens where token_id = ? and (revoked_us is not null or expires_us <= ?)"
        if self.journal.query(sql, (job.batch.token_id, now_us)):
            job.end("cancelled")

    # --- one batch ----------------------------------------------------------------------------------------------------

    async def _run(self, job: Job) -> None:
        while not self.halt.is_set():
            try:
                await self._work(job)
            except (Interrupted, Stopping):
                return
            except CorpusgenError as error:
                _log.warning("batch %s waits: %s", job.batch.id, error)
                await self._rest(RETRY_S)
            else:
                return

    async def _work(self, job: Job) -> None:
        if job.batch.state == "validating" and not await self._validated(job):
            return
        parcels = await self._parcels(job)
        ways = await self._handing(job).hand_over(parcels) if parcels else {}
        todo = iter(waiting(self.journal, job.batch.id))
        await all_of(self._answer(job, todo, ways) for _ in range(AT_ONCE))
        if self.halt.is_set():
            raise Interrupted("the service is being stopped")
        await self._finish(job)

    async def _validated(self, job: Job) -> bool:
        batch = job.batch
        content = body_of_file(self.journal, batch.facts["input_file_id"])
        most = self.desk.config.spec.limits.batch_lines
        lines, errors = await asyncio.to_thread(read_lines, content, endpoint_of(batch.wire), most)
        now = {"began_us": microseconds(self.corpus.clock())}
        if errors:
            facts: dict[str, Json] = {"errors": errors}
            await self.journal.run(change(batch.id, ("validating",), "failed", facts))
        else:
            await self.journal.run(validated(batch.id, lines, now))
        job.batch = find_batch(self.journal, batch.id) or batch
        self._tell(job)
        return job.batch.state in ("in_progress", "cancelling")

    async def _finish(self, job: Job) -> None:
        batch, messages = job.batch, job.batch.wire == "messages"
        await self.journal.run(change(batch.id, ("in_progress",), "finalizing", {}))
        names = (None, None) if messages else (new_id("file-"), new_id("file-"))
        await self.journal.run(finish(batch, _DONE[job.ends_as], *names))
        job.batch = find_batch(self.journal, batch.id) or batch
        self._tell(job)

    def _tell(self, job: Job) -> None:
        batch = job.batch
        told = {"batch": batch.id, "user": batch.user, "state": batch.state}
        self.desk.bus.tell("batch", told | {"lines": dict(counts(self.journal, batch))})

    # --- in batches ---------------------------------------------------------------------------------------------------

    def _handing(self, job: Job) -> Handing:
        return Handing(
            corpus=self.corpus,
            tag=job.batch.tag,
            open_room=lambda at: self.desk.room(at, job.wanted),
            asker_in=lambda room: self.desk.asker_of(room, job.caller, job.wanted),
            request_in=lambda room, n: self._request_in(job, room, n),
            stop=job.stop,
            halt=self.halt,
            patience=self.patience,
        )

    def _request_in(self, job: Job, room: Room, n: int) -> Request | None:
        """What a line asks in a room; None where it cannot be asked any more, which is told in its turn."""
        try:
            return self.desk.request_for(room, call_of(job.batch, find_line(self.journal, job.batch.id, n)), job.wanted)
        except StoreError:
            raise
        except CorpusgenError:
            return None

    async def _parcels(self, job: Job) -> dict[int, Parcel]:
        """What is to be asked in batches, by teacher; there may be nothing left of it to ask."""
        parcels: dict[int, Parcel] = {}
        after = -1
        if job.ends_as is not None and not self._handing(job).is_out:
            return parcels
        while lines := lines_from(self.journal, job.batch.id, after, WINDOW, ("waiting",)):
            for line in lines:
                await self._sort(job, line, parcels)
            after = lines[-1].n
            await asyncio.sleep(0)  # others are waiting, too
        return parcels

    async def _sort(self, job: Job, line: Line, parcels: dict[int, Parcel]) -> None:
        """Put a line where it belongs, if it is to be asked in a batch; what is wrong with it is told in its turn."""
        try:
            call = call_of(job.batch, line)
            if not call.probe and not call.model.startswith(STUDENT):
                await self._put(job, line.n, call, parcels)
        except (Busy, Stopping, Interrupted, StoreError):
            raise
        except CorpusgenError:
            return

    async def _put(self, job: Job, n: int, call: Call, parcels: dict[int, Parcel]) -> None:
        at, wanted = self.desk.seat_of(call.model), job.wanted
        room = await self.desk.room(at, wanted)
        request = self.desk.request_for(room, call, wanted)
        if takes_batches(room, request):
            parcel = parcels.setdefault(at, Parcel())
            if request.key not in known_answers(self.journal.reader, [request.key]):
                parcel.put(n, prompt_of(room, request, wanted, 0))

    # --- line by line -------------------------------------------------------------------------------------------------

    async def _answer(self, job: Job, todo: Iterator[int], ways: Mapping[int, Way]) -> None:
        """Answer one line after the other, as many as come to this hand."""
        for n in todo:
            if self.halt.is_set():
                return
            line = find_line(self.journal, job.batch.id, n)
            found = await self._became(job, line, ways)
            size = len(told_line(job.batch, found, body_of(self.journal, found)))
            await self.journal.run(finish_line(job.batch.id, found, size))

    async def _became(self, job: Job, line: Line, ways: Mapping[int, Way]) -> Line:
        while True:
            try:
                return await self._asked(job, line, call_of(job.batch, line), ways)
            except _Undone:
                return ended(line, job.ends_as or "cancelled")
            except Busy as error:
                await self._rest(min(MOST_REST_S, error.retry_after_s))
                if self.halt.is_set():
                    raise Interrupted("the service is being stopped") from error
            except (Stopping, Interrupted, StoreError):
                raise
            except CorpusgenError as error:
                return ended(line, "failed", _told(job.shape, error, self.desk.hidden_from(job.caller)))

    async def _asked(self, job: Job, line: Line, call: Call, ways: Mapping[int, Way]) -> Line:
        from corpusgen.serve.wires.rendering import probe_answer, rendered

        if call.probe:
            return ended(line, "answered", {"cache": "probe"}, result=probe_answer(call))
        if call.model.startswith(STUDENT):
            if job.ends_as is not None:
                raise _Undone
            self.desk.admit(job.caller)
            given, key = await self.desk.ask(call, job.caller, job.wanted), None
        else:
            given, key = await self.desk.working(self._of_teacher(job, call, ways))
        if given.api == call.wire and key is not None:
            return ended(line, "answered", _said(given), key=key)
        name = given.record_ids[0] if given.record_ids else given.teacher
        result = rendered(call, given.completions, api=given.api, body=given.body, created=given.created, name=name)
        return ended(line, "answered", _said(given), key=key or self._key_of(given), result=result)

    def _key_of(self, given: Given) -> bytes | None:
        """The request of an answer that came by way of a student; None where the student gave it."""
        if not given.record_ids:
            return None
        sql = "select request_key from records where record_id = ?"
        rows = self.journal.query(sql, (bytes.fromhex(given.record_ids[0]),))
        return rows[0][0] if rows else None

    async def _of_teacher(self, job: Job, call: Call, ways: Mapping[int, Way]) -> tuple[Given, bytes]:
        desk, wanted = self.desk, job.wanted
        at = desk.seat_of(call.model)
        room = await desk.room(at, wanted)
        with room:
            request = desk.request_for(room, call, wanted)
            key = request.key
            known = key in known_answers(self.journal.reader, [key])
            if not known and job.ends_as is not None:
                raise _Undone
            if not known and at in ways and takes_batches(room, request):
                raise await self._dropped(job, room, prompt_of(room, request, wanted, 0), ways[at])
            if not known:
                desk.admit(job.caller)
            paid = known and key not in job.counted and self._is_new(job, room, request)
            job.counted.add(key)
            async with nullcontext() if known else self._share(room):
                return await desk.answered(room, request, call, job.caller, wanted, handed_over=paid), key

    def _share(self, room: Room) -> asyncio.Semaphore:
        """Half of the places at a teacher: who calls by himself is not to wait for batches."""
        found = self._shares.get(room.key.at)
        if found is None:
            found = self._shares[room.key.at] = asyncio.Semaphore(max(1, room.asker.in_flight // 2))
        return found

    async def _dropped(self, job: Job, room: Room, prompt: Prompt, way: Way) -> CorpusgenError:
        """Why a call that was handed over has no answer, noted as it is of any other."""
        error = way.why(prompt.record_id)
        if isinstance(error, TeacherError):
            await note_drop(self.desk.asker_of(room, job.caller, job.wanted), prompt, error)
        return error

    def _is_new(self, job: Job, room: Room, request: Request) -> bool:
        """Whether a known answer came in a batch that was handed over for this one, and is no record yet."""
        name = prompt_of(room, request, job.wanted, 0).record_id
        there = self.journal.query("select 1 from records where record_id = ?", (bytes.fromhex(name),))
        return not there and paid_in(self.journal, request.key, job.batch.tag)

    async def _rest(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.halt.wait()


def _said(given: Given) -> dict[str, Json]:
    told: dict[str, Json] = {
        "records": list(given.record_ids),
        "cache": given.cache if given.student is None else "student",
        "cost_microusd": given.cost_microusd,
        "teacher": given.teacher,
    }
    return told | ({"request_id": given.request_id} if given.request_id else {})


def _told(shape: Shape, error: CorpusgenError, hidden: Hidden) -> dict[str, Json]:
    """An error as a call by itself would have been told of it."""
    response = refusal(shape, error, hidden)
    assert isinstance(response.body, bytes)
    return {"status": response.status, "body": orjson.loads(response.body)}
