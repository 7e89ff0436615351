"""Runs of tasks that were submitted: each in the journal, so that it goes on after a restart, and never twice at once.

A row is claimed by writing one's number of owner into it; who finds a running row whose owner is dead takes it over.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Final, Literal, Protocol, Self, TypeAlias, cast, get_args

import orjson

from corpusgen.budget.amounts import unit_name
from corpusgen.budget.ledger import balances
from corpusgen.budget.lending import OVERDUE, book_overdue
from corpusgen.corpus import Corpus, microseconds, moment
from corpusgen.errors import BudgetExhausted, CorpusgenError, Interrupted, PartialFailure, PolicyRefused
from corpusgen.fields import Unit
from corpusgen.journal import Transaction, owner_alive
from corpusgen.records import Json
from corpusgen.serve.callers import Caller
from corpusgen.serve.config import Configured
from corpusgen.serve.slowly import PLANNING
from corpusgen.serve.statuses import NoSuch, Refused
from corpusgen.serve.submitted import (
    Held,
    Rules,
    Wanted,
    let_go,
    looked_at,
    prune,
    read_again,
    read_wanted,
    rules_for,
    tasks_in,
)
from corpusgen.stages.runs import OF_RUN, Run
from corpusgen.stages.task import Task
from corpusgen.stages.watching import Board

State: TypeAlias = Literal["waiting", "running", "complete", "partial", "exhausted", "refused", "failed", "cancelled"]
"""``exhausted``: a budget ended it; ``refused``: the terms did; ``partial``: some items have no answer."""
OVER: Final[frozenset[str]] = frozenset(get_args(State)) - {"waiting", "running"}
LOOK_S: Final = 1.0
"""How often it is looked for runs that others submitted, cancelled, or left behind."""
SAVED_S: Final = 5.0
"""How long what was saved is not added up again."""
TELL_S: Final = 0.5
"""How often whoever watches is told how far a run is."""
LATELY_US: Final = 60_000_000
"""For so long it is remembered that everybody was told of the end of a run."""
PRUNE_S: Final = 3600.0
"""How often it is looked for submitted specs that nobody needs any more."""
KEPT_US: Final = 30 * 86_400_000_000
"""For so long after its end what was sent along with a run is kept."""
FRESH_S: Final = 3600.0
"""What was written so lately may be of a run that is just being submitted."""
MOST_WAITING: Final = 1_000
"""Runs that may wait; one more is refused."""

_log = logging.getLogger("corpusgen.serve.runs")


class _Opened(list[Run]):
    """The run of the corpus, once it is open; one that was ended before that sends nothing."""

    def __init__(self, ended: Callable[[], bool]) -> None:
        super().__init__()
        self._ended = ended

    def append(self, run: Run) -> None:
        """It is open now, and about to ask."""
        super().append(run)
        if self._ended():
            run.asker.stopping.set()


class Teller(Protocol):
    """Whoever passes on what happens."""

    def tell(self, kind: str, payload: Mapping[str, Json]) -> object:
        """Something happened."""
        ...


@dataclass(frozen=True, kw_only=True)
class SubmittedRun:
    """One submitted run, as the journal has it."""

    id: str
    task: str
    state: State
    run_id: str | None
    """The run of the corpus that it is, once it has begun."""
    source: Mapping[str, Json]
    user: str
    token_id: str
    budget: Mapping[str, int]
    submitted_us: int
    began_us: int | None
    ended_us: int | None
    cancelled_us: int | None
    reason: str | None
    """Why it ended as it did, where not everything was answered."""
    error: str | None
    """The kind of error behind that."""
    result: Mapping[str, Json] | None
    spec: str
    facts: Mapping[str, Json]


@dataclass(frozen=True, kw_only=True)
class _Work:
    """A run that this process works on."""

    board: Board
    opened: list[Run]
    job: asyncio.Task[None]


@dataclass(kw_only=True)
class Runs:
    """The submitted runs of one corpus; several services over it share them."""

    corpus: Corpus
    rules: Rules
    bus: Teller | None = None
    at_once: int = 1
    """How many this process works on at once."""
    _working: dict[str, _Work] = field(default_factory=dict)
    _woken: asyncio.Event = field(default_factory=asyncio.Event)
    _keeper: asyncio.Task[None] | None = None
    _saved: dict[str, tuple[float, int]] = field(default_factory=dict)
    """What was saved by each run, and when that was added up."""
    _others: dict[str, State] = field(default_factory=dict)
    """Runs that are not over and that this process does not work on."""
    _ended: set[str] = field(default_factory=set)
    """Runs that were over lately, of which everybody was told."""
    _heard: int = 0
    """The last event of the ledger that was passed on."""
    _closing: bool = False
    _pruned: float = -PRUNE_S

    @classmethod
    async def open(
        cls,
        corpus: Corpus,
        *,
        tasks: Path | None = None,
        config: Configured | None = None,
        bus: Teller | None = None,
        at_once: int = 1,
    ) -> Self:
        """The runs of a corpus; those that were waiting or left behind go on by themselves.

        ``tasks`` is the folder whose specs may be submitted by name; of ``config`` are the teachers that submitted
        specs may name, and what they may not say themselves.
        """
        made = cls(corpus=corpus, rules=rules_for(corpus.folder, tasks, config), bus=bus, at_once=at_once)
        made._heard = corpus.journal.query("select coalesce(max(seq), 0) from events")[0][0]
        made._ended = made._ended_lately()
        made._keeper = asyncio.create_task(made._keep(), name="runs")
        made._keeper.add_done_callback(_log_what_broke)
        return made

    def look_again(self) -> None:
        """Look now for what others did: a token that was revoked ends its runs."""
        self._woken.set()

    def stop(self) -> None:
        """Begin nothing more, and send nothing more; calls in flight go on to their end."""
        self._closing = True
        for work in self._working.values():
            _stop(work)

    async def close(self, *, grace_s: float = 30.0) -> None:
        """Let calls under way end and be stored; what is not finished goes on at the next start."""
        self.stop()
        jobs = [work.job for work in self._working.values()]
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
        if jobs:
            await asyncio.wait(jobs, timeout=grace_s)
        for job in jobs:
            job.cancel()
        if jobs:
            await asyncio.wait(jobs)

    # --- what may be asked of it --------------------------------------------------------------------------------------

    def tasks(self) -> Sequence[dict[str, Json]]:
        """The tasks that may be submitted by name."""
        return tuple(_told_tasks(self.rules))

    async def plan(self, wanted: Wanted, caller: Caller, caps: Mapping[Unit, int]) -> dict[str, Json]:
        """What a run would ask and cost, and what the terms say of each teacher. Sends nothing."""
        corpus = replace(self.corpus, actor=caller.user)
        return await PLANNING(caller, _looked_ahead, self.rules, wanted, caller, corpus, caps)

    async def submit(self, wanted: Wanted, caller: Caller, caps: Mapping[Unit, int]) -> SubmittedRun:
        """Have a task run: as soon as there is room, and to its end, whatever happens to this process."""
        if self._closing:
            raise Refused(503, "the service is stopping; submit it again when it is back")
        _check_room(self.corpus.journal.query(_WAITING)[0][0])  # before anything of it is kept
        held = await asyncio.to_thread(read_wanted, self.rules, wanted, caller)
        now = self.corpus.clock()
        named = f"{now:%Y%m%dT%H%M%SZ}-{os.urandom(6).hex()}"
        facts = {
            "source": dict(held.source),
            "files": dict(held.files),
            "identity": held.task.identity,
            "user": caller.user,
            "token_id": caller.token_id,
            "scopes": list(caller.budget_scopes),
            "budget": dict(caps),
        }
        row = (named, held.task.spec.name, held.text, orjson.dumps(facts).decode())
        try:
            await self.corpus.journal.run(partial(_insert, row=row))
        except CorpusgenError:
            await asyncio.to_thread(self._let_go, held)
            raise
        self._woken.set()
        made = self.find(named)
        self._tell(made)
        return made

    def _let_go(self, held: Held) -> None:
        """Keep nothing of a spec that no run is of."""
        if not self.corpus.journal.query(_OF_SPEC, (held.source.get("spec"),)):
            let_go(self.rules, held.source)

    def find(self, named: str) -> SubmittedRun:
        """One run. Raises NoSuch."""
        rows = self.corpus.journal.query(f"{_SELECT} where service_run_id = ?", (named,))
        if not rows:
            raise NoSuch(f"no run {named!r:.80} was submitted here; GET /api/v1/runs lists them")
        return _read(rows[0])

    def list(self, *, limit: int = 100, before: str | None = None) -> Sequence[SubmittedRun]:
        """Submitted runs, the newest first; ``before`` is the id of the last one that is known already."""
        bound = (2**62, "") if before is None else (self.find(before).submitted_us, before)
        rows = self.corpus.journal.query(
            f"{_SELECT} where (submitted_us, service_run_id) < (?, ?) order by submitted_us desc, service_run_id desc"
            " limit ?",
            (*bound, limit),
        )
        return [_read(row) for row in rows]

    def watch(self, named: str) -> dict[str, Json]:
        """Everything there is to tell of a run at this moment."""
        run = self.find(named)
        return told(run) | {"progress": self.progress(run)}

    def progress(self, run: SubmittedRun) -> dict[str, Json]:
        """How far a run is; of one that another process works on, as far as the journal tells."""
        work = self._working.get(run.id)
        found = _from_journal(self.corpus, run) | {"saved_microusd": self._saved_by(run)}
        if work is None:
            return found
        live = work.board.snapshot()
        return found | {
            "stage": live.stage,
            "done": live.done,
            "total": live.total,
            "in_flight": live.in_flight,
            "known": live.from_cache,
            "rate_per_s": round(live.rate_per_s, 3),
            "eta_s": None if live.seconds_left is None else round(live.seconds_left, 1),
            "requests": live.requests,
            "note": live.note,
        }

    def _saved_by(self, run: SubmittedRun) -> int:
        """What answers that were there before a run began have cost; added up now and then, for there may be many."""
        now = time.monotonic()
        at, saved = self._saved.get(run.id, (-SAVED_S, 0))
        if run.run_id is None or run.began_us is None or now - at < SAVED_S:
            return saved
        saved = int(self.corpus.journal.query(_SAVED, (run.run_id, run.began_us))[0][0])
        if run.state not in OVER:
            self._saved[run.id] = (now, saved)
        return saved

    async def cancel(self, named: str, caller: Caller) -> SubmittedRun:
        """End a run: nothing new is sent, calls in flight are waited for and kept. Raises Refused where it is over."""
        run = self.find(named)
        if run.user != caller.user and not caller.may("admin"):
            raise Refused(403, f"run {named} is of {run.user}; whoever submitted it or an administrator cancels it")
        await self.corpus.journal.run(partial(_cancel, named=named, why=f"cancelled by {caller.user}"))
        if (work := self._working.get(named)) is not None:
            _stop(work)
        self._woken.set()
        after = self.find(named)
        self._tell(after)
        return after

    # --- the work -----------------------------------------------------------------------------------------------------

    async def _keep(self) -> None:
        """Take what waits, as long as there is room, and heed what others cancelled."""
        while True:
            self._woken.clear()
            try:
                await self._take_what_waits()
                await self._look_after()
            except CorpusgenError as error:  # a busy or full disk: it is looked again in a moment
                _log.warning("submitted runs: %s", error)
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._woken.wait()

    async def _take_what_waits(self) -> None:
        await self._end_of_worthless_tokens()
        for named in self._cancelled_elsewhere():
            _stop(self._working[named])
        while len(self._working) < self.at_once and not self._closing:
            journal, working = self.corpus.journal, frozenset(self._working)
            if {row[0] for row in journal.query(_NOT_OVER)} <= working:
                return
            claim = partial(_claim, owner_id=journal.owner_id, working=working)
            claimed = await journal.run(claim, regret=lambda named: partial(_put_back, named=named))
            if claimed is None:
                return
            self._begin(self.find(claimed))

    async def _end_of_worthless_tokens(self) -> None:
        """End what was submitted with a token that is revoked or over since; calls in flight go on to their end."""
        now_us = microseconds(self.corpus.clock())
        for named, token, revoked in self.corpus.journal.query(_OF_WORTHLESS_TOKENS, (now_us,)):
            why = f"its token {token!r} was revoked" if revoked else f"its token {token!r} is over"
            with suppress(Refused):  # it has ended by itself meanwhile
                await self.corpus.journal.run(partial(_cancel, named=named, why=why))
                self._tell(self.find(named))

    async def _look_after(self) -> None:
        """Book leases that nobody reported on, and pass on what was written into the ledger of events."""
        journal = self.corpus.journal
        if (now := time.monotonic()) - self._pruned >= PRUNE_S:
            self._pruned = now
            await asyncio.to_thread(self._prune)
        if journal.query(OVERDUE, (journal.clock_us(),)):
            await journal.run(partial(book_overdue, owner_id=journal.owner_id))
        self._tell_of_others()
        news = journal.query("select seq, kind from events where seq > ? order by seq limit 1000", (self._heard,))
        for seq, kind in news:
            self._heard = seq
            if self.bus is not None:
                self.bus.tell("ledger", {"seq": seq, "kind": kind})

    def _prune(self) -> None:
        """Let go of the specs of runs that are long over; the journal keeps their text."""
        since = microseconds(self.corpus.clock()) - KEPT_US
        needed = {row[0] for row in self.corpus.journal.query(_SPECS_NEEDED, (since,))}
        prune(self.rules, needed, before_s=self.corpus.clock().timestamp() - FRESH_S)

    def _tell_of_others(self) -> None:
        """Pass on how far runs are that other processes work on, and that they are over."""
        rows = self.corpus.journal.query(_NOT_OVER)
        found: dict[str, State] = {named: state for named, state in rows if named not in self._working}
        changed = {named for named, state in found.items() if state == "running" or self._others.get(named) != state}
        ended = self._ended_lately()
        for named in sorted(changed | (ended - self._ended)):
            self._tell(self.find(named))
        self._others, self._ended = found, ended

    def _ended_lately(self) -> set[str]:
        since = self.corpus.journal.clock_us() - LATELY_US
        return {row[0] for row in self.corpus.journal.query(_ENDED, (since,))}

    def _cancelled_elsewhere(self) -> Sequence[str]:
        return [name for name, work in self._working.items() if self.find(name).cancelled_us and not _stopped(work)]

    def _begin(self, run: SubmittedRun) -> None:
        opened = _Opened(lambda: self._closing or self.find(run.id).cancelled_us is not None)
        board = Board(current=lambda: opened[0] if opened else None)
        job = asyncio.create_task(self._work(run, board, opened), name=f"run {run.id}")
        self._working[run.id] = _Work(board=board, opened=opened, job=job)
        self._tell(run)

    async def _work(self, run: SubmittedRun, board: Board, opened: _Opened) -> None:
        asking = asyncio.create_task(self._ask(run, board, opened))
        try:
            await self._follow(run, asking, opened)
            await self._end(run.id, asking, opened)
        finally:
            self._saved.pop(run.id, None)
            del self._working[run.id]  # only now: what is not worked on is taken up by whoever looks next
            self._woken.set()

    async def _follow(self, run: SubmittedRun, asking: asyncio.Task[dict[str, Json]], opened: _Opened) -> None:
        """Tell how far a run is until it ends, or until the service has waited long enough."""
        noted = False
        try:
            while not asking.done():
                await asyncio.wait([asking], timeout=TELL_S)
                if opened and not noted:
                    await self.corpus.journal.run(partial(_note_run, named=run.id, run_id=opened[0].run_id))
                    noted = True
                    if self._closing or self.find(run.id).cancelled_us:
                        opened[0].asker.stopping.set()
                await asyncio.to_thread(self.watch, run.id)  # adds up what is dear, beside the loop
                self._tell(self.find(run.id))
        except asyncio.CancelledError:
            asking.cancel()
            await asyncio.wait([asking])

    async def _ask(self, run: SubmittedRun, board: Board, opened: _Opened) -> dict[str, Json]:
        # It brings libraries that a service without runs does without.
        await asyncio.to_thread(import_module, "corpusgen.pipeline")
        from corpusgen.pipeline import run_task

        held: Held = await asyncio.to_thread(read_again, self.rules, run.source, dict(run.facts.get("files") or {}))
        corpus = replace(self.corpus, actor=run.user)
        return await run_task(
            held.task,
            corpus,
            caps=_units(run.budget),
            watch=board.watch,
            opened=opened,
            scopes=tuple(run.facts.get("scopes") or ()),
        )

    async def _end(self, named: str, asking: asyncio.Task[dict[str, Json]], opened: Sequence[Run]) -> None:
        """Write down what became of a run; one that was stopped with the service waits for the next."""
        error = None if asking.cancelled() else asking.exception()
        run_id = opened[0].run_id if opened else None
        before = self.find(named)
        if asking.cancelled() or (isinstance(error, Interrupted) and before.cancelled_us is None):
            await self.corpus.journal.run(partial(_put_back, named=named))
        else:
            state, facts = _became(error, None if error else asking.result())
            await self.corpus.journal.run(partial(_finish, named=named, state=state, facts=facts, run_id=run_id))
        if error is not None and not isinstance(error, CorpusgenError):
            _log.error("run %s failed", named, exc_info=error)
        self._ended.add(named)
        self._tell(self.find(named))

    def _tell(self, run: SubmittedRun) -> None:
        if self.bus is not None:
            self.bus.tell("run", told(run) | {"progress": self.progress(run)})


def told(run: SubmittedRun) -> dict[str, Json]:
    """A run for machines, without how far it is."""
    return {
        "id": run.id,
        "task": run.task,
        "state": run.state,
        "run_id": run.run_id,
        "source": dict(run.source),
        "user": run.user,
        "budget": {unit_name(unit): cap for unit, cap in _units(run.budget).items()},
        "submitted": _time(run.submitted_us),
        "began": _time(run.began_us),
        "ended": _time(run.ended_us),
        "cancelling": run.cancelled_us is not None and run.state not in OVER,
        "reason": run.reason,
        "error": run.error,
        "result": None if run.result is None else dict(run.result),
    }


def _units(budget: Mapping[str, int]) -> dict[Unit, int]:
    return cast("dict[Unit, int]", dict(budget))  # written from caps by unit


def _time(at_us: int | None) -> str | None:
    return None if at_us is None else moment(at_us).isoformat(timespec="milliseconds")


def _told_tasks(rules: Rules) -> Iterator[dict[str, Json]]:
    from corpusgen.spec import load_spec

    for name, path in tasks_in(rules):
        try:
            spec = load_spec(path).spec
        except CorpusgenError as error:
            yield {"task": name, "name": None, "kind": None, "description": None, "teachers": [], "problem": str(error)}
            continue
        yield {
            "task": name,
            "name": spec.name,
            "kind": spec.kind,
            "description": spec.description,
            "teachers": [teacher.name for teacher in spec.teachers],
            "problem": None,
        }


def _looked_ahead(
    rules: Rules, wanted: Wanted, caller: Caller, corpus: Corpus, caps: Mapping[Unit, int]
) -> dict[str, Json]:
    with looked_at(rules, wanted, caller) as held:
        return _planned(held.task, corpus, caps)


def _planned(task: Task, corpus: Corpus, caps: Mapping[Unit, int]) -> dict[str, Json]:
    from corpusgen.stages.planning import plan
    from corpusgen.stages.terms.deciding import refusal

    made = asyncio.run(plan(task, corpus, caps=caps))
    refused = None
    if made.decision.outcome != "allow":
        every = [one for part in made.teachers for one in part.decisions]
        refused = str(refusal(corpus, task, made.decision, every))
    return {"task": task.spec.name, "refusal": refused, **made.to_json()}


# --- How far it is ----------------------------------------------------------------------------------------------------


def _from_journal(corpus: Corpus, run: SubmittedRun) -> dict[str, Json]:
    """What the journal tells of a run that somebody works on, or nobody."""
    query, run_id = corpus.journal.query, run.run_id
    used = {} if run_id is None else {one.unit: one for one in balances(corpus.journal, [f"run:{run_id}"])}
    money, tokens, requests = used.get("microusd"), used.get("tokens"), used.get("requests")
    records = 0 if run_id is None else query(_DONE, (run_id,))[0][0]
    drops = [] if run_id is None else query(_DROPS, (run_id,))
    flying = 0 if run_id is None else query(_FLYING, (run_id,))[0][0]
    return {
        "stage": None,
        "done": records,
        "total": None,
        "in_flight": flying,
        "known": None,
        "rate_per_s": 0.0,
        "eta_s": None,
        "requests": requests.settled if requests else 0,
        "settled_microusd": money.settled if money else 0,
        "promised_microusd": money.promised if money else 0,
        "unconfirmed_microusd": money.unconfirmed if money else 0,
        "cap_microusd": money.cap if money else None,
        "tokens": tokens.settled if tokens else 0,
        "tokens_cap": tokens.cap if tokens else None,
        "drops": [{"stage": row[0], "reason": row[1], "items": row[2], "example": row[3]} for row in drops],
        "note": "",
    }


_SAVED: Final = (
    "select coalesce(sum(cost_microusd), 0) from answers where received_us < ?2 and request_key in"
    " (select request_key from records where run_id = ?1"
    " union select request_key from reuses join records using (record_id) where reuses.run_id = ?1)"
)
_DONE: Final = (
    "select (select count(*) from records where run_id = ?1) + (select count(*) from reuses where run_id = ?1)"
)
_DROPS: Final = (
    f"select stage, reason, count(*), min(detail) from drops where {OF_RUN} group by 1, 2 order by 3 desc limit 50"  # noqa: S608
)
_FLYING: Final = f"select count(*) from calls where state = 'promised' and {OF_RUN}"  # noqa: S608 - own text


# --- In the journal ---------------------------------------------------------------------------------------------------

_NOT_OVER: Final = "select service_run_id, state from service_runs where state in ('waiting', 'running')"
_ENDED: Final = "select service_run_id from service_runs where ended_us > ? and state not in ('waiting', 'running')"
_COLUMNS: Final = "service_run_id, task, state, run_id, spec, facts, submitted_us, began_us, ended_us, cancelled_us"
_SELECT: Final = f"select {_COLUMNS} from service_runs"  # noqa: S608 - own names


def _read(row: tuple[Any, ...]) -> SubmittedRun:
    named, task, state, run_id, spec, text, submitted, began, ended, cancelled = row
    facts = orjson.loads(text)
    return SubmittedRun(
        id=named,
        task=task,
        state=state,
        run_id=run_id,
        source=facts["source"],
        user=facts["user"],
        token_id=facts["token_id"],
        budget=facts["budget"],
        submitted_us=submitted,
        began_us=began,
        ended_us=ended,
        cancelled_us=cancelled,
        reason=facts.get("reason"),
        error=facts.get("error"),
        result=facts.get("result"),
        spec=spec,
        facts=facts,
    )


_WAITING: Final = "select count(*) from service_runs where state = 'waiting'"
_OF_SPEC: Final = "select 1 from service_runs where json_extract(facts, '$.source.spec') = ? limit 1"
_SPECS_NEEDED: Final = (
    "select distinct json_extract(facts, '$.source.spec') from service_runs"
    " where state in ('waiting', 'running') or ended_us > ?"
)
_OF_WORTHLESS_TOKENS: Final = (
    "select service_run_id, name, revoked_us is not null from service_runs"
    " join tokens on token_id = json_extract(service_runs.facts, '$.token_id')"
    " where state in ('waiting', 'running') and cancelled_us is null and (revoked_us is not null or expires_us <= ?)"
)


def _check_room(waiting: int) -> None:
    if waiting >= MOST_WAITING:
        raise Refused(
            429, f"{waiting:,} runs are waiting already; submit it when some are done", headers={"Retry-After": "60"}
        )


def _insert(transaction: Transaction, row: tuple[str, str, str, str]) -> None:
    _check_room(transaction.rows(_WAITING)[0][0])
    transaction.execute(
        "insert into service_runs(service_run_id, task, spec, facts, state, submitted_us)"
        " values(?, ?, ?, ?, 'waiting', ?)",
        (*row, transaction.now_us),
    )


def _claim(transaction: Transaction, owner_id: int, working: Container[str]) -> str | None:
    """Take the oldest run that nobody works on, unless the same task runs already; gives back its id."""
    rows = transaction.rows(
        "select service_run_id, json_extract(facts, '$.identity'), state, owner_id, pid, boot_id, start_ticks"
        " from service_runs left join owners using (owner_id) where state in ('waiting', 'running')"
        " order by submitted_us, service_run_id"
    )
    alive = [row for row in rows if row[2] == "running" and _is_worked_on(row[0], row[3:], owner_id, working)]
    taken, busy = {row[0] for row in alive}, {row[1] for row in alive}
    for named, identity, *_ in rows:
        if named not in taken and identity not in busy:
            transaction.execute(
                "update service_runs set state = 'running', owner_id = ?, began_us = coalesce(began_us, ?)"
                " where service_run_id = ?",
                (owner_id, transaction.now_us, named),
            )
            return str(named)
    return None


def _is_worked_on(named: str, owner: Sequence[Any], owner_id: int, working: Container[str]) -> bool:
    its_owner, pid, boot_id, start_ticks = owner
    if its_owner == owner_id:
        return named in working
    return pid is not None and owner_alive(pid, boot_id, start_ticks)


def _note_run(transaction: Transaction, named: str, run_id: str) -> None:
    transaction.execute("update service_runs set run_id = ? where service_run_id = ?", (run_id, named))


def _put_back(transaction: Transaction, named: str | None) -> None:
    transaction.execute("update service_runs set state = 'waiting', owner_id = null where service_run_id = ?", (named,))


def _cancel(transaction: Transaction, named: str, why: str) -> None:
    state, pid, *process = transaction.rows(
        "select state, pid, boot_id, start_ticks from service_runs left join owners using (owner_id)"
        " where service_run_id = ?",
        (named,),
    )[0]
    if state in OVER:
        raise Refused(409, f"run {named} is over: {state}")
    left = state == "waiting" or pid is None or not owner_alive(pid, *process)
    ended = ", state = 'cancelled', ended_us = :now, owner_id = null" if left else ""
    transaction.execute(
        f"update service_runs set cancelled_us = coalesce(cancelled_us, :now){ended},"  # noqa: S608 - own text
        " facts = json_set(facts, '$.reason', :why) where service_run_id = :named",
        {"now": transaction.now_us, "named": named, "why": why},
    )


def _finish(transaction: Transaction, named: str, state: State, facts: Mapping[str, Json], run_id: str | None) -> None:
    (text,) = transaction.rows("select facts from service_runs where service_run_id = ?", (named,))[0]
    after = {**orjson.loads(text), **facts}
    transaction.execute(
        "update service_runs set state = ?, ended_us = ?, owner_id = null, run_id = coalesce(?, run_id), facts = ?"
        " where service_run_id = ?",
        (state, transaction.now_us, run_id, orjson.dumps(after).decode(), named),
    )


_STATES: Final[tuple[tuple[type[CorpusgenError], State], ...]] = (
    (PartialFailure, "partial"),
    (BudgetExhausted, "exhausted"),
    (PolicyRefused, "refused"),
    (Interrupted, "cancelled"),
)


def _became(error: BaseException | None, result: Mapping[str, Json] | None) -> tuple[State, dict[str, Json]]:
    if error is None:
        return "complete", {"result": result, "reason": None}
    state: State = next((state for kind, state in _STATES if isinstance(error, kind)), "failed")
    if isinstance(error, Interrupted):
        return state, {}  # who cancelled it is written there already
    known = isinstance(error, CorpusgenError)
    reason = str(error) if known else "an error of corpusgen itself; the service's log has it"
    return state, {"reason": reason, "error": type(error).__name__}


def _log_what_broke(keeper: asyncio.Task[None]) -> None:
    if not keeper.cancelled() and (error := keeper.exception()) is not None:
        _log.critical("submitted runs are not taken up any more", exc_info=error)


def _stop(work: _Work) -> None:
    for run in work.opened:
        run.asker.stopping.set()


def _stopped(work: _Work) -> bool:
    return any(run.asker.stopping.is_set() for run in work.opened)
