"""One world: some processes on one corpus, a provider, a budget, and a seed that decides what befalls them."""

from __future__ import annotations

import asyncio
import gc
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from flow_samples import cap, prompt

from corpusgen.assemble import RunFacts
from corpusgen.budget.amounts import UNITS
from corpusgen.budget.ledger import Cap, Ledger, accept_overrun, balances
from corpusgen.corpus import Corpus, microseconds
from corpusgen.errors import BudgetExhausted, Interrupted, TeacherError
from corpusgen.fanout.asker import Asker
from corpusgen.fanout.stream import answers
from corpusgen.fields import Per
from corpusgen.journal import Journal, Transaction
from corpusgen.prompting.prompts import Prompt
from corpusgen.records import Request
from corpusgen.stages.committing import commit_records
from corpusgen.store.answers import Card, store_card
from corpusgen.store.manifest import read_manifest
from corpusgen.store.shards import read_records
from corpusgen.teachers.endpoint import tokens_bound
from simulation.clock import NeverEnds, VirtualLoop
from simulation.provider import CARD, RATE, Provider, Sent, Simulated
from simulation.watch import Watch

STARTS = (datetime(2026, 1, 1, 12, tzinfo=UTC), datetime(2026, 1, 31, 23, 59, 55, tzinfo=UTC))
PERIODS: tuple[Per, ...] = ("total", "total", "day", "month")
IN_MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
ROUNDS = 40
CALM_ROUND = 4
"""From this round on nobody kills, cancels or leaves any more."""
QUIET_ROUND = 8
"""From this round on the provider behaves, too."""
SCOPES = ("run:r1", "corpus", "teacher:simulated", "user:sim")

FACTS = RunFacts(
    run_id="r1",
    task="words",
    kind="response",
    spec_digest="s",
    prompt_digest="p",
    licence_expression="CC0-1.0",
    label_names=None,
    first_tokens=None,
)

ANSWER_CARD = Card(
    teacher=CARD.name,
    provider=CARD.provider,
    model=CARD.model,
    route=CARD.route,
    host=CARD.host,
    identity=CARD.identity,
    revision="",
    terms_set_id="t",
    terms_ids=("t",),
    outputs_train="allowed",
)


@dataclass(frozen=True, kw_only=True)
class Report:
    """What became of a world."""

    seed: int
    calls: int
    steps: int
    processes: int
    kills: int
    records: int
    violations: tuple[str, ...]
    trace: tuple[str, ...]
    """Everything that happened: the same seed gives the same."""


End = Literal["none", "leave", "cancel", "stop", "kill_at", "kill_after"]
ENDS: tuple[End, ...] = ("none", "leave", "cancel", "stop", "kill_at", "kill_at", "kill_after", "kill_after")


@dataclass(frozen=True, kw_only=True)
class Life:
    """What a process will do, and what will befall it."""

    name: str
    starts_s: float
    in_flight: int
    attempts: int
    on_failure: Literal["raise", "drop"]
    slowness_s: float
    end: End
    when: float
    """Virtual seconds, records read, or steps of the journal, as the end needs."""
    shuffled: int | None


@dataclass(kw_only=True)
class World:
    """Everything there is, made from a seed."""

    seed: int
    folder: Path
    dice: random.Random = field(init=False)
    loop: VirtualLoop = field(init=False)
    began: datetime = field(init=False)
    watch: Watch = field(init=False)
    provider: Provider = field(init=False)
    prompts: list[Prompt] = field(init=False)
    caps: list[Cap] = field(init=False)
    timeout_s: float = field(init=False)
    running: dict[str, asyncio.Future[None]] = field(default_factory=dict)
    journals: dict[str, Journal] = field(default_factory=dict)
    budget_ended: bool = False
    processes: int = 0
    kills: int = 0
    written: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.dice = dice = random.Random(self.seed)
        random.seed(self.seed)  # the product's own jitter
        self.began = dice.choice(STARTS)
        self.loop = VirtualLoop()
        self.loop.set_exception_handler(self._escaped)
        Journal(self.path, clock_us=self.clock_us, later=self.loop.call_soon).close()
        self.watch = Watch(path=self.path)
        self.timeout_s = dice.choice([2.0, 8.0, 30.0])
        self.provider = Provider(
            dice=random.Random(dice.getrandbits(64)),
            fault_share=dice.choice([0.0, 0.1, 0.3, 0.6]),
            absurd_share=dice.choice([0.0] * 5 + [0.02]),
            latency_s=dice.choice([0.05, 0.5, 3.0]),
            charged=self._charged,
            received=self._received,
            ended=self.watch.ended,
            context=copy_context(),
        )
        count = dice.choice([dice.randint(3, 24), dice.randint(3, 60)])
        distinct = dice.choice([count, count, max(1, count // 3)])
        self.prompts = [prompt(f"word {self.seed} {at % distinct}", at, max_tokens=8) for at in range(count)]
        self.caps = self._some_caps(distinct)

    @property
    def path(self) -> Path:
        return self.folder / "journal.sqlite"

    def clock(self) -> datetime:
        return self.began + timedelta(seconds=self.loop.time())

    def clock_us(self) -> int:
        return microseconds(self.clock())

    def _some_caps(self, distinct: int) -> list[Cap]:
        """No cap, caps that leave room for every mishap, or caps that bind."""
        kind = self.dice.choice(["none", "wide", "tight", "tight"])
        if kind == "none":
            return []
        worst = max((RATE.worst(_bound(one), 8) for one in self.prompts), key=lambda worst: worst.microusd)
        share = 1000.0 if kind == "wide" else self.dice.uniform(0.2, 1.5)
        units = self.dice.sample(UNITS[:3], self.dice.randint(1, 2))
        caps = [cap(max(1, round(worst.of(unit) * distinct * share)), unit, self.dice.choice(SCOPES)) for unit in units]
        return [replace(one, per=self.dice.choice(PERIODS)) for one in caps]

    # --- what the parts report ---------------------------------------------------------------------------------------

    def _received(self, process: str, request: Request) -> Sent:
        sent = self.watch.received(process, request)
        self._note(f"sent {process} {sent.call_id}")
        return sent

    def _charged(self, sent: Sent) -> None:
        self._note(f"charged {sent.call_id} {sent.kind} {sent.micro_micro_usd}")
        self.watch.charged(sent)

    def _note(self, what: str) -> None:
        self.written.append(f"{self.loop.time():.6f} {what}")
        self.loop.progress_s = self.loop.time()

    def _escaped(self, _: asyncio.AbstractEventLoop, found: dict[str, Any]) -> None:
        """What asyncio would log. A process that was killed leaves outcomes behind that nobody asks for."""
        if not (self.kills and "never retrieved" in found["message"]):
            self.watch.say(f"escaped: {found['message']} {found.get('exception')!r}")

    # --- its course --------------------------------------------------------------------------------------------------

    def run(self) -> Report:
        """From the first process to the last check."""
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_until_complete(self._course())
        except NeverEnds as error:
            self.watch.say(f"never ends: {error}")
        except Exception as error:  # noqa: BLE001 - whatever broke, the seed is worth knowing
            self.watch.say(f"broke: {type(error).__name__}: {error}")
        finally:
            self.loop.bury()
            asyncio.set_event_loop(None)
            self.loop.close()
            self.watch.connection.close()
        return Report(
            seed=self.seed,
            calls=len(self.provider.sent),
            steps=self.watch.steps,
            processes=self.processes,
            kills=self.kills,
            records=len(self.watch.answered_at),
            violations=tuple(self.watch.found),
            trace=tuple(self.written),
        )

    async def _course(self) -> None:
        for number in range(ROUNDS):
            if number == QUIET_ROUND:
                self.provider.fault_share = self.provider.absurd_share = 0.0
            for life in self._lives(number):
                self._begin(life)
            await self._all_ended()
            if number >= CALM_ROUND and (self.budget_ended or not self._missing()):
                break
        await self._last_look()

    def _missing(self) -> list[Prompt]:
        known = {name for (name,) in self.watch.connection.execute("select record_id from records")}
        return [one for one in self.prompts if bytes.fromhex(one.record_id) not in known]

    def _lives(self, number: int) -> Iterator[Life]:
        dice = self.dice
        calm = number >= CALM_ROUND
        self.budget_ended = False
        if not calm and number and not self._missing() and dice.random() < 0.5:
            return  # everything is there; now and then it is run again all the same
        for at in range(1 if calm else dice.randint(1, 3)):
            end = dice.choice(ENDS)
            limits = {"leave": dice.randint(0, 8), "kill_after": dice.randint(4, 60)}
            yield Life(
                name=f"p{number}.{at}",
                starts_s=dice.choice([0.0, 0.0, dice.uniform(0, 5)]),
                in_flight=dice.randint(1, 6),
                attempts=dice.randint(1, 4),
                on_failure=dice.choice(["raise", "drop"]),
                slowness_s=dice.choice([0.0, 0.0, 0.1, 4.0]),
                end="none" if calm else end,
                when=limits.get(end, dice.expovariate(1 / (4 * self.provider.latency_s + 0.1))),
                shuffled=dice.getrandbits(32) if dice.random() < 0.5 else None,
            )

    def _begin(self, life: Life) -> None:
        self.processes += 1
        ended = self.running[life.name] = self.loop.create_future()
        task = self.loop.start(life.name, self._live(life))
        task.add_done_callback(lambda task: self._ended(life, task), context=copy_context())
        if life.end == "kill_at":
            self.loop.call_later(life.starts_s + life.when, self._kill, life.name)
        if life.end == "cancel":
            self.loop.call_later(life.starts_s + life.when, task.cancel)
        assert not ended.done()

    async def _all_ended(self) -> None:
        while waiting := [ended for ended in self.running.values() if not ended.done()]:
            await waiting[0]

    def _ended(self, life: Life, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, BudgetExhausted | TeacherError | Interrupted):
            self.watch.say(f"unexpected {type(error).__name__}: {error}")
        self.budget_ended = self.budget_ended or isinstance(error, BudgetExhausted)
        self._note(f"ended {life.name} {type(error).__name__}")
        if left := self.loop.left_by(life.name):
            self.watch.say(f"left running: {left} tasks of {life.name}, which has ended")
        if isinstance(error, BudgetExhausted) and all(one.per == "total" for one in self.caps):
            self._check_refusal(error)
        self._gone(life.name)

    def _gone(self, name: str) -> None:
        """A process is no more; the system knows, its journal does not."""
        journal = self.journals.pop(name, None)
        if journal is not None:
            journal.close()
            self.watch.look()
            self.watch.connection.execute("update owners set start_ticks = -2 where owner_id = ?", (journal.owner_id,))
        if not self.running[name].done():
            self.running[name].set_result(None)

    def _kill(self, name: str) -> None:
        if self.running[name].done():
            return
        self.kills += 1
        self._note(f"killed {name}")
        self.loop.kill(name)
        journal = self.journals.get(name)
        if journal is not None:
            while journal._jobs.qsize():  # what waits to be committed dies with it
                journal._jobs.get_nowait()
        self.watch.owners.pop(name, None)
        for sent in self.provider.sent:
            if sent.process == name and sent.open:
                self.watch.ended(sent)
        self._gone(name)

    # --- one process -------------------------------------------------------------------------------------------------

    def _open(self, name: str, steps: int | None = None) -> Corpus:
        later = _Later(world=self, name=name, steps=steps)
        journal = self.journals[name] = Journal(self.path, clock_us=self.clock_us, later=later)
        self.watch.owners[name] = journal.owner_id
        return Corpus(folder=self.folder, journal=journal, clock=self.clock, actor="sim", new_run_id=lambda: "r1")

    async def _live(self, life: Life) -> None:
        await asyncio.sleep(life.starts_s)
        corpus = self._open(life.name, int(life.when) if life.end == "kill_after" else None)
        asker = await self._asker(corpus, life)
        if life.end == "stop":
            self.loop.call_later(life.when, asker.stopping.set)
        wanted = list(self.prompts)
        if life.shuffled is not None:
            random.Random(life.shuffled).shuffle(wanted)
        taken = 0
        async with answers(asker, wanted) as records:
            async for _ in records:
                taken += 1
                if life.end == "leave" and taken >= life.when:
                    break
                await asyncio.sleep(life.slowness_s)

    async def _asker(self, corpus: Corpus, life: Life) -> Asker:
        ledger = Ledger(corpus.journal)
        await ledger.recover()
        await corpus.journal.run(_allow_again)
        for scope in SCOPES:
            await ledger.replace_caps(scope, [one for one in self.caps if one.scope == scope and one.per == "total"])
        await ledger.set_caps(one for one in self.caps if one.per != "total")
        await corpus.journal.run(_write_run)
        return Asker(
            corpus=corpus,
            ledger=ledger,
            teacher=Simulated(process=life.name, provider=self.provider, clock=self.clock),
            rate=RATE,
            card=ANSWER_CARD,
            facts=FACTS,
            scopes=SCOPES,
            timeout_s=self.timeout_s,
            in_flight=life.in_flight,
            attempts=life.attempts,
            on_failure=life.on_failure,
        )

    # --- the end -----------------------------------------------------------------------------------------------------

    def _check_refusal(self, error: BudgetExhausted) -> None:
        """A refusal is right if the dearest call really has no room."""
        rates = [RATE.worst(_bound(one), 8) for one in self.prompts]
        with_room = True
        for balance in balances(self.journals_any()):
            if balance.cap is not None:
                need = max(worst.of(balance.unit) for worst in rates)
                with_room &= balance.settled + balance.unconfirmed + need <= balance.cap
        if with_room:
            self.watch.say(f"refused though there is room: {error}")

    def journals_any(self) -> Journal:
        """A journal that is open."""
        return next(iter(self.journals.values()))

    async def _last_look(self) -> None:
        with self._open("last") as corpus:
            await Ledger(corpus.journal).recover()
            self.watch.check_end(corpus, self.provider)
            if (missing := self._missing()) and not self.budget_ended:
                self.watch.say(f"lost: {len(missing)} prompts have no record though no cap binds")
            await commit_records(corpus, Simulated(process="last", provider=self.provider, clock=self.clock))
            self.watch.check_files(corpus)
            records = read_records(read_manifest(corpus.folder).paths(corpus.folder))
            self.watch.check_records(records, self.prompts, self.provider)


def _bound(one: Prompt) -> int:
    return tokens_bound(CARD, one.request)


def _allow_again(transaction: Transaction) -> None:
    """What a person does about a teacher that billed beyond its bound, before somebody sets out anew."""
    for (call_id,) in transaction.rows("select call_id from calls where state = 'overrun'"):
        accept_overrun(transaction, call_id)


def _write_run(transaction: Transaction) -> None:
    store_card(transaction, ANSWER_CARD)
    transaction.execute(
        "insert or ignore into runs(run_id, task, spec_digest, spec, facts, status, started_us)"
        " values('r1', 'words', 's', '{}', ?, 'open', ?)",
        (FACTS.to_json(), transaction.now_us),
    )


@dataclass(kw_only=True)
class _Later:
    """When a process gets to its commits and its news: a moment from now, one after the other."""

    world: World
    name: str
    steps: int | None
    """After so many of them it is killed."""
    last: float = 0.0

    def __call__(self, act: Callable[[], None]) -> None:
        loop, dice = self.world.loop, self.world.dice
        takes_s = dice.choice([1e-5, 0.004 * dice.random()])
        self.last = max(self.last + 1e-6, loop.time() + takes_s)
        loop.call_at(self.last, self._do, act)

    def _do(self, act: Callable[[], None]) -> None:
        act()
        self.world.watch.look()
        if self.steps is not None:
            self.steps -= 1
            if self.steps == 0:
                self.world._kill(self.name)


def run_world(seed: int) -> Report:
    """One world in a folder of its own, without a trace left behind."""
    folder = Path(tempfile.mkdtemp(prefix="world", dir=IN_MEMORY))
    collecting, chance = gc.isenabled(), random.getstate()
    gc.disable()  # what it finalises, and when, depends on more than the seed
    try:
        return World(seed=seed, folder=folder).run()
    finally:
        random.setstate(chance)
        if collecting:
            gc.enable()
        shutil.rmtree(folder, ignore_errors=True)
