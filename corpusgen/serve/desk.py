"""The desk: has a teacher or a student asked for a caller, once, and remembers what was said.

A call is an ordinary question of an ordinary run (see ``rooms``), so that caps, terms, provenance, seals and releases
hold for it as for any other. The work on a call goes on when its client leaves: what was sent is paid for.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from tempfile import gettempdir
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypeVar

from corpusgen.budget.ledger import Ledger
from corpusgen.corpus import Corpus, microseconds
from corpusgen.errors import (
    AnswerBarred,
    BudgetExhausted,
    CorpusgenError,
    NotSent,
    PolicyRefused,
    UnknownTeacher,
    UnsupportedParameter,
)
from corpusgen.fanout.asker import Asker, Hold
from corpusgen.fanout.asking_one import Said, ask_one
from corpusgen.garbage import large_blocks_given_back, seldom_collected
from corpusgen.journal import Transaction
from corpusgen.prompting.prompts import Item, Prompt
from corpusgen.provenance.policy import Decision
from corpusgen.records import Api, Completion, Json, Request
from corpusgen.serve.bus import Bus
from corpusgen.serve.callers import Caller
from corpusgen.serve.config import STUDENT, Configured, Offer, alias_of, by_name
from corpusgen.serve.memory import Memory, Remembered
from corpusgen.serve.meter import Meter
from corpusgen.serve.money import check_priced, figures_of, is_capped, no_cap, put_caps
from corpusgen.serve.refusals import Busy, Erased, Stopping
from corpusgen.serve.rooms import SCOPE, Room, RoomKey, Rooms, use_text
from corpusgen.serve.spans import Spans
from corpusgen.serve.statuses import Hidden
from corpusgen.serve.wires.calls import Call
from corpusgen.stages.cataloguing import refresh_catalog
from corpusgen.stages.committing import commit_records
from corpusgen.stages.erasure.erasures import Tombstones
from corpusgen.stages.lineage.attesting import attest
from corpusgen.store.answers import known_answers
from corpusgen.store.manifest import Manifest
from corpusgen.teachers.registry import check_fits, check_parameters, check_size
from corpusgen.teachers.teacher import Teacher

if TYPE_CHECKING:  # students bring libraries that a service without any does without
    from corpusgen.serve.students import Students

T = TypeVar("T")
Heard = Callable[[bytes], None]
Begun = Callable[[tuple[str, ...], str], None]
"""Told, before anything is heard, of the records that an answer is to become and of who is asked."""
BEAT_S: Final = 1.0
COMMIT_S: Final = 300.0
"""How often what waits becomes shards, where anything waits."""
MINUTE_S: Final = 60.0
DAY_S: Final = 86_400
AWAY_S: Final = 0.25
GRACE_S: Final = 5.0
"""What is under way has had its time when this begins: clients were waited for before."""

_log = logging.getLogger("corpusgen.serve")
_ANYWHERE: Final = tuple({folder for folder in (gettempdir(), str(Path.home())) if folder.count("/") and folder != "/"})
"""Folders in which what is said to lie is a matter of this machine."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What headers, a token or the configuration say of a call beside its body."""

    task: str
    use: Json
    run: str = ""
    user: str
    sample: int = 0


@dataclass(frozen=True, kw_only=True)
class Given:
    """An answer to a call, and what is to be said of it."""

    body: bytes
    """As it came from the teacher, in the words of ``api``."""
    completions: tuple[Completion, ...]
    record_ids: tuple[str, ...]
    api: Api
    teacher: str
    served: str | None
    known: bool
    shared: bool = False
    """Whether it came from another corpus just now."""
    cost_microusd: int
    saved_microusd: int
    decision: Decision | None
    request_id: str | None
    created: int
    """When it was answered, in seconds since 1970."""
    room: Room | None = None
    """None: a student answered."""
    student: str | None = None
    abstained: bool = False
    """Whether a student was asked first and left it to the teacher."""

    @property
    def cache(self) -> str:
        """Whether it was known: ``hit``, ``miss`` or ``shared``."""
        return "shared" if self.shared else "hit" if self.known else "miss"


@dataclass(frozen=True, kw_only=True)
class Offered:
    """A model that clients may name."""

    name: str
    kind: str
    """``teacher`` or ``student``."""
    teacher: str
    provider: str | None
    price: Mapping[str, Json] | None
    outcome: str | None
    """What the terms said when it was asked last: allow, deny; None where it was not asked yet."""


@dataclass(frozen=True, kw_only=True)
class Ears:
    """Who hears of an answer while it comes."""

    heard: Heard | None = None
    begun: Begun | None = None

    def of(self, asker: Asker) -> Asker:
        """The asker, its teacher listened to."""
        if self.heard is None:
            return asker
        from corpusgen.teachers.listening import Listening

        return replace(asker, teacher=Listening(asker.teacher, self.heard))

    def begins(self, record_ids: tuple[str, ...], teacher: str) -> None:
        """Tell what is asked now."""
        if self.begun is not None:
            self.begun(record_ids, teacher)


NOBODY: Final = Ears()
"""Nobody hears of an answer before it is whole."""


@dataclass(kw_only=True)
class Desk:
    """Everything that has to do with having callers' questions answered."""

    corpus: Corpus
    config: Configured
    meter: Meter
    bus: Bus
    ledger: Ledger
    rooms: Rooms
    students: Students | None = None
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    in_flight: int = 0
    streams: int = 0
    spans: Spans = field(default_factory=Spans)
    _memory: Memory = field(default_factory=Memory)
    _work: set[asyncio.Task[Any]] = field(default_factory=set)
    _seats: dict[int, asyncio.Semaphore] = field(default_factory=dict)
    _hits: dict[tuple[str, str, int], list[int]] = field(default_factory=dict)
    _asked: dict[str, deque[float]] = field(default_factory=dict)
    _ordinals: dict[str, int] = field(default_factory=dict)
    _counters: dict[int, Teacher] = field(default_factory=dict)
    _labels: dict[str, set[tuple[str, str, str]]] = field(default_factory=dict)
    _labels_of: int = -1
    """The day that the labels are of, in days since 1970."""
    _stamp: tuple[object, ...] = ()
    _version: int = -1
    _beat: asyncio.Task[None] | None = None
    _committing: asyncio.Lock = field(default_factory=asyncio.Lock)
    _new_records: int = 0
    _open: ExitStack = field(default_factory=ExitStack)

    @classmethod
    async def open(cls, corpus: Corpus, config: Configured, *, meter: Meter, bus: Bus) -> Self:
        """The desk of a service over a corpus; nothing is sent, and no run is opened, before somebody asks."""
        desk = cls(
            corpus=corpus,
            config=config,
            meter=meter,
            bus=bus,
            ledger=Ledger(corpus.journal),
            rooms=Rooms(corpus=corpus, config=config),
        )
        large_blocks_given_back()
        desk._open.enter_context(seldom_collected())
        desk.rooms.told = desk._tell_room
        await desk.ledger.recover()
        await corpus.journal.run(lambda transaction: put_caps(transaction, config))
        check_priced(corpus, config)
        if config.spec.students:
            from corpusgen.serve.students import Students

            desk.students = await Students.open(corpus, config, meter=meter)
        desk._forgotten()
        desk._beat = asyncio.create_task(desk._beating(), name="desk")
        return desk

    # --- what there is ------------------------------------------------------------------------------------------------

    def models(self) -> list[Offered]:
        """What clients may write as model."""
        found = [self._offered(at, offer) for at, offer in enumerate(self.config.spec.teachers)]
        for one in self.config.spec.students:
            told = one.teacher or ""
            found.append(
                Offered(name=STUDENT + one.name, kind="student", teacher=told, provider=None, price=None, outcome=None)
            )
        return found

    def _offered(self, at: int, offer: Offer) -> Offered:
        rooms = [room for room in self.rooms.open if room.key.at == at]
        price = self.config.fields["teachers"][at].get("price")
        return Offered(
            name=alias_of(offer),
            kind="teacher",
            teacher=offer.name,
            provider=rooms[0].asker.teacher.card.provider if rooms else offer.provider,
            price={"free": True} if offer.free else price,
            outcome=rooms[0].run.decision.outcome if rooms else None,
        )

    def hidden_from(self, caller: Caller | None) -> Hidden:
        """What errors do not tell a caller: folders of this machine, and addresses to whoever does not run it."""
        folders = str(self.corpus.folder), str(self.config.file.parent)
        if caller is not None and caller.may("admin"):
            return Hidden(folders=folders)
        offers = ((alias_of(one), one.base_url.rstrip("/")) for one in self.config.spec.teachers if one.base_url)
        names = {address: f"the teacher {alias!r}" for alias, address in offers}
        return Hidden(folders=(*folders, *_ANYWHERE), names=names, addresses=True)

    @cached_property
    def _by_name(self) -> dict[str, int]:
        return by_name(self.config.spec.teachers)

    def seat_of(self, model: str) -> int:
        """Which of the configured teachers a client's model is. Raises UnknownTeacher naming those there are."""
        at = self._by_name.get(model)
        if at is None:
            names = ", ".join(one.name for one in self.models())
            raise UnknownTeacher(f"no model {model[:100]!r} here; there are: {names}")
        return at

    # --- asking -------------------------------------------------------------------------------------------------------

    async def ask(
        self,
        call: Call,
        caller: Caller,
        wanted: Wanted,
        heard: Heard | None = None,
        *,
        begun: Begun | None = None,
    ) -> Given:
        """The answer to a call: known, under way, or bought now under every cap and today's terms.

        ``heard`` is told the events of an answer that is streamed, as they come, and ``begun`` what they will be.
        Raises what stands against it. Who leaves meanwhile leaves the work to go on: what was sent is recorded and
        settled.
        """
        ears = Ears(heard=heard, begun=begun)
        return await self.working(self._asked_for(call, caller, wanted, ears))

    async def working(self, work: Coroutine[Any, Any, T]) -> T:
        """What comes of some work, which goes on when who waits for it leaves; ``aclose`` waits for it."""
        if self.stopping.is_set():
            work.close()
            raise Stopping("the service is being stopped; ask again in a moment")
        if self.in_flight >= self.config.spec.limits.in_flight:
            work.close()
            raise Busy(f"{self.in_flight} calls are under way, and limits.in_flight is no more; come back")
        self.in_flight += 1
        task = asyncio.create_task(work)
        self._work.add(task)
        task.add_done_callback(self._worked)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():  # by aclose, and not whoever waits
                raise Stopping("the service was stopped while this was asked; ask again in a moment") from None
            raise

    def _worked(self, task: asyncio.Task[Any]) -> None:
        self.in_flight -= 1
        self._work.discard(task)
        if not task.cancelled():
            task.exception()  # told to whoever waited; nobody need have

    async def _asked_for(self, call: Call, caller: Caller, wanted: Wanted, ears: Ears) -> Given:
        if call.model.startswith(STUDENT):
            return await self._asked_of_student(call, caller, wanted, ears)
        return await self._asked_of_teacher(self.seat_of(call.model), call, caller, wanted, ears)

    async def _asked_of_student(self, call: Call, caller: Caller, wanted: Wanted, ears: Ears) -> Given:
        name = call.model.removeprefix(STUDENT)
        told = next((one for one in self.config.spec.students if one.name == name), None)
        if told is None or self.students is None:
            raise UnknownTeacher(
                f"no student {name[:100]!r} here; there are: {', '.join(self.student_names) or 'none'}"
            )
        said = await self.students.answer(name, call)
        if said is not None:
            return given_of_student(name, said, call, microseconds(self.corpus.clock()))
        if told.teacher is None:
            raise UnsupportedParameter(f"{call.model} is not sure of this, and no teacher is named to ask instead")
        given = await self._asked_of_teacher(self.seat_of(told.teacher), call, caller, wanted, ears)
        return replace(given, abstained=True)

    @property
    def student_names(self) -> list[str]:
        """The students that answer here."""
        return [STUDENT + one.name for one in self.config.spec.students]

    async def serving(self, caller: Caller) -> list[dict[str, Json]]:
        """What each of them has done since the service began, and how far it has drifted, as ``caller`` is told it."""
        if self.students is None:
            return []
        await self.students.look_again()
        hidden = self.hidden_from(caller)
        return [one | {"refused": one["refused"] and hidden.out_of(one["refused"])} for one in self.students.state()]

    async def _asked_of_teacher(self, at: int, call: Call, caller: Caller, wanted: Wanted, ears: Ears) -> Given:
        room = await self.room(at, wanted)
        with room:
            request = self.request_for(room, call, wanted)
            return await self.answered(room, request, call, caller, wanted, ears)

    async def answered(
        self,
        room: Room,
        request: Request,
        call: Call,
        caller: Caller,
        wanted: Wanted,
        ears: Ears = NOBODY,
        *,
        handed_over: bool = False,
    ) -> Given:
        """The answer to what is asked in a room, which must be held open meanwhile.

        ``handed_over``: it came in a batch of this caller's, and counts as bought now, though it is known.
        """
        asker = self.asker_of(room, caller, wanted)
        try:
            said = await self._said(room, ears.of(asker), call, caller, wanted, request, ears)
        except BudgetExhausted as error:
            error.figures = figures_of(asker, request)
            raise
        except AnswerBarred:  # the room's own terms hold: it is that answer which came under others
            raise
        except PolicyRefused:
            room.stale = True
            raise
        return self._given(room, replace(said, bought=True) if handed_over else said, request, caller, wanted)

    async def room(self, at: int, wanted: Wanted) -> Room:
        """The open run that a call belongs to, its terms looked at."""
        key = RoomKey(at=at, task=wanted.task, use=use_text(wanted.use), run=wanted.run)
        room = self.rooms.there(key) or await self.rooms.room(key)
        permit = room.asker.permit
        if permit is not None and permit.due:
            try:
                await permit.renew()
            except PolicyRefused:  # under other terms it is another opening, which decides and says why not
                room.stale = True
            if room.stale or room.closed:
                room = await self.rooms.room(key)
        return room

    def request_for(self, room: Room, call: Call, wanted: Wanted) -> Request:
        """What is asked of the room's teacher. Raises BadCall or UnsupportedParameter for what it cannot do."""
        from corpusgen.serve.wires.translating import request_of_call

        teacher, spec = room.asker.teacher, room.run.task.teacher
        card = teacher.card
        api = card.chat_api if call.wire != "completion" else "completion"
        most = self.config.spec.limits.max_tokens
        request = request_of_call(call, api=api, card=card, defaults=spec.parameters, sample=wanted.sample, most=most)
        request = self.fit_to_send(room, request, wanted)
        _check(teacher, request)
        return request

    def fit_to_send(self, room: Room, request: Request, wanted: Wanted) -> Request:
        """The request with what the configuration wants masked. Raises Withheld, and Erased for what was erased."""
        if (treat := room.run.task.prompter.treat) is not None:
            from corpusgen.serve.wires.masking import masked_request

            request = masked_request(request, treat)
        if room.tombstones and room.tombstones.over(room.run.task.spec.name, prompt_of(room, request, wanted, 0)):
            raise Erased("this was answered and erased; what was erased is not asked again")
        return request

    def tokens_bound(self, call: Call, wanted: Wanted) -> int:
        """How many tokens a call takes at most; no run is opened for it. Raises as ``request_for``."""
        from corpusgen.serve.wires.translating import request_of_call

        at, limits = self.seat_of(call.model), self.config.spec.limits
        room = self.rooms.there(RoomKey(at=at, task=wanted.task, use=use_text(wanted.use), run=wanted.run))
        if room is not None:
            return room.asker.teacher.input_tokens_bound(self.request_for(room, call, wanted))
        teacher, defaults = self._counting(at), self.config.spec.teachers[at].parameters
        card = teacher.card
        asked = request_of_call(
            call, api=card.chat_api, card=card, defaults=defaults, sample=wanted.sample, most=limits.max_tokens
        )
        _check(teacher, asked)
        return teacher.input_tokens_bound(asked)

    def _counting(self, at: int) -> Teacher:
        """A teacher that is never asked anything."""
        found = self._counters.get(at)
        if found is None:
            from corpusgen.teachers.registry import open_teacher

            offer, home = self.config.spec.teachers[at], self.config.file.parent
            found = open_teacher(offer, folder=home, clock=self.corpus.clock, sending=False)
            self._counters[at] = found
        return found

    def asker_of(self, room: Room, caller: Caller, wanted: Wanted) -> Asker:
        """Who asks in a room for a caller."""
        return room.asker_for(caller, wanted.user, self.config.spec.limits.attempts)

    async def _said(
        self, room: Room, asker: Asker, call: Call, caller: Caller, wanted: Wanted, request: Request, ears: Ears
    ) -> Said:
        prompt = prompt_of(room, request, wanted, self._next_ordinal(room, request))
        told = {"user": wanted.user, "token": caller.token_id, "wire": call.wire, "run": wanted.run}
        name = asker.teacher.card.name
        ears.begins(prompt.record_ids, name)

        async def ask(asker: Asker) -> Said:
            with self.spans.of_call(request, asker.teacher.card) as heard:
                said = await ask_one(asker, prompt, told={"caller": told})
                heard(said.completions[0])
                return said

        self.meter.add("corpusgen_upstream_in_flight", 1, name)
        try:
            said = await self.seated(room, asker, request, ask)
        except CorpusgenError as error:
            self.meter.add("corpusgen_upstream_calls_total", 1, name, type(error).__name__)
            raise
        finally:
            self.meter.add("corpusgen_upstream_in_flight", -1, name)
        if said.bought:
            self.meter.add("corpusgen_upstream_calls_total", 1, name, "answered")
        return said

    async def seated(self, room: Room, asker: Asker, request: Request, ask: Callable[[Asker], Awaitable[Said]]) -> Said:
        """What is asked in one of the teacher's seats; what is known by then takes none. Raises Busy, BudgetExhausted.

        How long a call may wait to be sent is for the wait for a seat and for whatever comes after it, together.
        """
        seat = self.seat(room)

        async def ask_in_seat(asker: Asker) -> Said:
            if await self._came(request, look=seat.locked()):
                return await ask(asker)
            async with seat:
                if not is_capped(asker) and not self._is_known(request):
                    raise no_cap(asker)
                return await ask(asker)

        try:
            said = await self.in_time(asker, ask_in_seat)
        except Busy:
            if not self._is_known(request):
                raise
            said = await ask(asker)
        if said.bought and room.run.task.teacher.rate.requests_per_minute is not None:
            self._of_this_minute(_of_teacher(room.key.at)).append(time.monotonic())
        return said

    async def _came(self, request: Request, *, look: bool) -> bool:
        """Whether something is known without asking, once somebody else who asks it has his answer."""
        flights = self.corpus.flights
        while (flight := flights.get(request.key)) is not None:
            look = True
            await asyncio.wait([flight])
        return look and self._is_known(request)

    def _is_known(self, request: Request) -> bool:
        return bool(known_answers(self.corpus.journal.reader, [request.key]))

    async def in_time(self, asker: Asker, ask: Callable[[Asker], Awaitable[Said]]) -> Said:
        """What is asked, where it is sent before it has waited too long. Raises Busy where it is not.

        What was sent is waited for, however long it takes. A teacher that is known to be away for longer is not waited
        for, but what is known of it already is still told.
        """
        hold, task, wait_s = Hold(), asyncio.current_task(), self.config.spec.limits.wait_s
        assert task is not None
        patience_s = wait_s if asker.pacer.paused_s <= wait_s else AWAY_S
        alarm = asyncio.get_running_loop().call_later(patience_s, hold.end, [task])
        try:
            return await ask(replace(asker, hold=hold))
        except (asyncio.CancelledError, NotSent) as error:
            ended = hold.ended and not self.stopping.is_set()
            if not ended or (isinstance(error, asyncio.CancelledError) and task.uncancel()):
                raise
            raise Busy(
                f"{asker.teacher.card.name} was not asked in time: as many calls as it takes at once (in_flight), its"
                " rate limit, or money that calls under way may need, is in the way",
                retry_after_s=max(1.0, asker.pacer.paused_s),
            ) from None
        finally:
            alarm.cancel()

    def seat(self, room: Room) -> asyncio.Semaphore:
        """One place for each call that a teacher works on at once, whatever the room."""
        found = self._seats.get(room.key.at)
        if found is None:
            found = self._seats[room.key.at] = asyncio.Semaphore(room.asker.in_flight)
        return found

    def _next_ordinal(self, room: Room, request: Request) -> int:
        """The next place in a dataset; those of answers that turn out to be known stay empty."""
        name = room.run.task.spec.name
        if name not in self._ordinals:
            sql = "select coalesce(max(ordinal), -1) + 1 from records where dataset = ? and split = 'train'"
            self._ordinals[name] = self.corpus.journal.query(sql, (name,))[0][0]
        found = self._ordinals[name]
        self._ordinals[name] = found + int(request.parameters.get("n", 1))
        return found

    def _given(self, room: Room, said: Said, request: Request, caller: Caller, wanted: Wanted) -> Given:
        cost, known = said.answer.cost_microusd, not said.bought
        if known:
            self.count_hit(said.record_ids[0], wanted.user, cost, shared=said.adopted)
        else:
            self._count_answer(room, said, wanted)
        return Given(
            body=said.answer.body,
            completions=said.completions,
            record_ids=said.record_ids,
            api=request.api,
            teacher=room.asker.teacher.card.name,
            served=said.completions[0].model_served,
            known=known,
            shared=said.adopted,
            cost_microusd=0 if known else cost,
            saved_microusd=cost if known else 0,
            decision=room.run.decision,
            request_id=said.answer.provider_request_id,
            created=said.answer.received_us // 1_000_000,
            room=room,
        )

    def _count_answer(self, room: Room, said: Said, wanted: Wanted) -> None:
        answer, name = said.answer, room.asker.teacher.card.name
        self._new_records += len(said.record_ids)
        self.meter.add("corpusgen_answers_total", 1, "miss")
        self.meter.add("corpusgen_cost_microusd_total", answer.cost_microusd, name)
        self.meter.add("corpusgen_tokens_total", answer.usage.input_tokens, name, "input")
        self.meter.add("corpusgen_tokens_total", answer.usage.output_tokens, name, "output")
        self.meter.observe("corpusgen_upstream_seconds", (answer.received_us - answer.sent_us) / 1e6, name)
        self.bus.tell(
            "answered",
            {
                "records": list(said.record_ids),
                "run_id": room.run.run_id,
                "teacher": name,
                "user": wanted.user,
                "cost_microusd": answer.cost_microusd,
                "tokens": answer.usage.total_tokens,
            },
        )

    def _tell_room(self, room: Room) -> None:
        told = {"run_id": room.run.run_id, "task": room.key.task, "run": room.key.run}
        self.bus.tell("room_opened", told | {"teacher": room.asker.teacher.card.name})

    # --- what was said before -----------------------------------------------------------------------------------------

    def remember(self, mark: bytes, found: Remembered) -> None:
        """Keep an answer at hand for the very same call."""
        permit = found.room.asker.permit
        self._memory.keep(mark, replace(found, judged_at=None if permit is None else permit.now))

    def remembered(self, mark: bytes, user: str) -> Remembered | None:
        """An answer for the very same call, if today's terms let it be given and nothing was erased since.

        Raises Stopping.
        """
        found = self._memory.get(mark)
        if found is None or self._forgotten():
            return None
        permit = found.room.asker.permit
        if found.room.stale or (permit is not None and (permit.due or permit.now is not found.judged_at)):
            return None
        if self.stopping.is_set():
            raise Stopping("the service is being stopped; ask again in a moment")
        found.room.used_at = time.monotonic()
        self.count_hit(found.record_id, user, found.saved_microusd)
        return found

    def _forgotten(self) -> bool:
        """Whether something was erased since this was asked last; then nothing is remembered any more."""
        version = self.corpus.journal.reader.pragma("data_version")
        if version == self._version:
            return False
        self._version = int(version or 0)
        stamp = self.corpus.journal.query(_STAMP)[0]
        if stamp == self._stamp:
            return False
        self._stamp = stamp
        self._memory.clear()
        for room in self.rooms.open:
            room.tombstones = Tombstones.of(self.corpus.journal)
        return True

    def count_hit(self, record_id: str, user: str, saved_microusd: int, *, shared: bool = False) -> None:
        """Count an answer that was given again."""
        self.meter.add("corpusgen_answers_total", 1, "shared" if shared else "hit")
        self.meter.add("corpusgen_saved_microusd_total", saved_microusd)
        if not record_id:  # of what is no record, only the service counts
            return
        day = int(self.corpus.clock().timestamp()) // 86_400
        tally = self._hits.setdefault((record_id, user, day), [0, 0])
        tally[0] += 1
        tally[1] += saved_microusd

    # --- limits of callers --------------------------------------------------------------------------------------------

    def admit(self, caller: Caller) -> None:
        """Let a call of a caller in. Raises Busy where its token has had its calls of this minute."""
        most = self.config.spec.limits.per_token_per_minute
        if most is None:
            return
        asked = self._of_this_minute(caller.token_id)
        if len(asked) >= most:
            wait_s = asked[0] + MINUTE_S - time.monotonic()
            raise Busy(
                f"{most} calls a minute are allowed (limits.per_token_per_minute); come back", retry_after_s=wait_s
            )
        asked.append(time.monotonic())

    def check_label(self, caller: Caller, wanted: Wanted) -> None:
        """Count what makes a run of its own. Raises Busy where a token has named as many as it may today."""
        now = int(self.corpus.clock().timestamp())
        if now // DAY_S != self._labels_of:
            self._labels_of = now // DAY_S
            self._labels.clear()
        found, most = self._labels.setdefault(caller.token_id, set()), self.config.spec.limits.labels_per_token_per_day
        label = (wanted.task, use_text(wanted.use), wanted.run)
        if label in found:
            return
        if len(found) >= most:
            raise Busy(
                f"{most:,} different run labels, tasks and uses are one token's of a day"
                " (limits.labels_per_token_per_day), as each is a run of its own; use those again, or come back"
                " tomorrow",
                retry_after_s=DAY_S - now % DAY_S,
            )
        found.add(label)

    def limits_of(self, caller: Caller, at: int | None = None) -> tuple[int, int, float] | None:
        """Calls a minute that a caller may make, how many are left, and seconds until one more is free; None: any.

        The tighter of its token's limit and of that of a teacher, whose calls are everybody's.
        """
        mine, theirs = self.config.spec.limits.per_token_per_minute, None
        if at is not None:
            theirs = self.config.spec.teachers[at].rate.requests_per_minute
        found = []
        for most, name in ((mine, caller.token_id), (theirs, _of_teacher(at))):
            if most is not None:
                asked = self._of_this_minute(name)
                reset_s = asked[0] + MINUTE_S - time.monotonic() if asked else 0.0
                found.append((most, max(0, most - len(asked)), max(0.0, reset_s)))
        return min(found, key=lambda one: one[1], default=None)

    def _of_this_minute(self, name: str) -> deque[float]:
        """When calls were made, by a token or to a teacher, in the last minute."""
        asked, since = self._asked.setdefault(name, deque()), time.monotonic() - MINUTE_S
        while asked and asked[0] <= since:
            asked.popleft()
        return asked

    def later(self, seconds: float) -> str:
        """The time in so many seconds, as RFC 3339."""
        return f"{self.corpus.clock() + timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%SZ}"

    # --- beat, commit, end --------------------------------------------------------------------------------------------

    async def commit(self) -> Manifest:
        """Make shards of every record that waits, and list them."""
        async with self._committing:
            self._new_records = 0
            teachers = [room.asker.teacher for room in self.rooms.open]
            return await commit_records(self.corpus, *teachers)

    async def idle(self) -> None:
        """Wait until nothing is under way, for callers who have left neither."""
        while self._work:
            await asyncio.wait(self._work)

    async def aclose(self, *, grace_s: float = GRACE_S) -> None:
        """Begin nothing more, wait for what is under way, write everything down and make shards of it.

        What takes longer than the grace is broken off and booked as unknown.
        """
        self.stopping.set()
        if self._work:
            await asyncio.wait(self._work, timeout=grace_s)
        for task in list(self._work):
            task.cancel()
        if self._work:
            await asyncio.wait(self._work)
        if self._beat is not None:
            self._beat.cancel()
            await asyncio.wait([self._beat])
        await self._note()
        manifest = await self.commit()
        await self.rooms.aclose()
        await asyncio.to_thread(refresh_catalog, self.corpus, manifest)
        await asyncio.to_thread(attest, self.corpus)
        for teacher in self._counters.values():
            await teacher.aclose()
        self._open.close()

    async def _beating(self) -> None:
        committed = time.monotonic()
        while True:
            await asyncio.sleep(BEAT_S)
            await self._note()
            self._forgotten()
            self.rooms.close_idle()
            now = time.monotonic()
            if self._new_records and now - committed >= COMMIT_S:
                committed = now
                await self._committed()

    async def _committed(self) -> None:
        try:
            await self.commit()
        except CorpusgenError as error:  # answers are in the journal; the next commit takes them along
            _log.warning("records wait: %s", error)

    async def _note(self) -> None:
        """Write down hits and the time that was worked since the last time."""
        hits, self._hits = self._hits, {}
        worked = [(room, spent) for room in self.rooms.open if (spent := room.worked_us())]
        self.meter.set("corpusgen_streams_open", self.streams)
        if not hits and not worked:
            return
        rows = [(bytes.fromhex(record), user, day, *tally) for (record, user, day), tally in hits.items()]

        def operation(transaction: Transaction) -> None:
            if rows:
                transaction.connection.executemany(_COUNT_HITS, rows)
            for room, spent in worked:
                scopes = (f"run:{room.run.run_id}", "corpus", f"teacher:{room.asker.teacher.card.name}", SCOPE)
                room.span, _ = self.ledger.time_passed(transaction, room.run.run_id, scopes, spent, room.span)

        with suppress(CorpusgenError):  # a full disk stops who asks, and says so there
            await self.corpus.journal.run(operation)


_STAMP: Final = (
    "select (select count(*) from erasures), (select max(erasure_id) from erasures), (select count(*) from erased)"
)
_COUNT_HITS: Final = (
    "insert into hits(record_id, caller, day, hits, saved_microusd) values(?, ?, ?, ?, ?)"
    " on conflict do update set hits = hits + excluded.hits, saved_microusd = saved_microusd + excluded.saved_microusd"
)


def _of_teacher(at: int | None) -> str:
    return f"teacher {at}"  # no token is called so


def prompt_of(room: Room, request: Request, wanted: Wanted, ordinal: int) -> Prompt:
    """A call as a question of its run; its item is named by who asked and what."""
    name = f"{wanted.user}/{request.key.hex()[:16]}"
    item = Item(
        item_id=name,
        split="train",
        input=_input(request),
        messages=request.messages,
        source_ids=(f"{room.source}#{name}",),
        gold=None,
    )
    return Prompt(item=item, request=request, ordinal=ordinal)


def _input(request: Request) -> str:
    """What a student would read: the last turn of the user's."""
    of_user = (message.content for message in reversed(request.messages) if message.role == "user")
    return next(of_user, request.messages[-1].content if request.messages else "")


def _check(teacher: Teacher, request: Request) -> None:
    card, parameters = teacher.card, dict(request.parameters)
    choices = parameters.pop("n", 1)
    if isinstance(choices, int) and choices > card.capabilities.choices:
        raise UnsupportedParameter(f"n: {card.name} gives at most {card.capabilities.choices} answers to a call")
    api: Literal["chat", "completion"] = "completion" if request.api == "completion" else "chat"
    check_parameters(card, parameters, api, schema=request.schema, tools=request.tools)
    if card.capabilities.context_tokens is not None:
        check_fits(teacher, request)
    check_size(teacher, request)


def given_of_student(name: str, said: Any, call: Call, now_us: int) -> Given:
    """What a student said, as an answer."""
    return Given(
        body=said.body,
        completions=(said.completion,),
        record_ids=(),
        api=call.wire,
        teacher=STUDENT + name,
        served=STUDENT + name,
        known=False,
        cost_microusd=0,
        saved_microusd=0,
        decision=None,
        request_id=None,
        created=now_us // 1_000_000,
        student=name,
    )
