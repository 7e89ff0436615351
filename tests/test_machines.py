"""Random orders of what can happen to shards and to claims, crashes at every step of the way included."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from flow_samples import RUN, asker_of, cap, fixed_clock, journal_in, prompt, saying, violations
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from simulation.clock import VirtualLoop

from corpusgen.budget.amounts import Amounts
from corpusgen.budget.ledger import Intent, Ledger, Reservation, claim_on
from corpusgen.corpus import Corpus
from corpusgen.errors import BudgetExhausted, CorpusgenError, TeacherFault
from corpusgen.fanout.stream import answers
from corpusgen.journal import Journal, Transaction
from corpusgen.records import Message, Request, Usage
from corpusgen.stages import committing
from corpusgen.stages.committing import commit_records, committed_shards
from corpusgen.stages.verifying import sweep, verify
from corpusgen.store.answers import Answer, known_answers, store_answer, store_card
from corpusgen.store.manifest import ShardEntry, read_manifest
from corpusgen.store.shards import read_columns

IN_MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None

# --- shards ----------------------------------------------------------------------------------------------------------


class _Killed(BaseException):
    """The process is no more; what it would still have done does not count."""


@contextmanager
def killed_before(step: int, died: Callable[[], None]) -> Iterator[None]:
    """Inside, the process dies before its so-manieth step that leaves something on the disk."""
    left = step

    def counted(act: Callable[..., Any]) -> Callable[..., Any]:
        def counting(*given: Any, **named: Any) -> Any:
            nonlocal left
            if left == 0:
                died()
                raise _Killed
            left -= 1
            return act(*given, **named)

        return counting

    places = [(os, "fsync"), (os, "replace"), (Journal, "_commit")]
    sound = [getattr(where, name) for where, name in places]
    for (where, name), act in zip(places, sound, strict=True):
        setattr(where, name, counted(act))
    try:
        yield
    finally:
        for (where, name), act in zip(places, sound, strict=True):
            setattr(where, name, act)


NUMBERS = st.lists(st.integers(0, 15), min_size=1, max_size=4, unique=True)


class ShardMachine(RuleBasedStateMachine):
    """Records come and are committed, and the process dies anywhere between a file and the journal."""

    def __init__(self) -> None:
        super().__init__()
        self.home = tempfile.TemporaryDirectory(dir=IN_MEMORY)
        self.number = 0
        self.asked: set[str] = set()
        self.looked_at: dict[object, list[str]] = {}
        self.loop = VirtualLoop()
        self.rows_per_shard, committing.ROWS_PER_SHARD = committing.ROWS_PER_SHARD, 4
        self.open()
        self.asker = asker_of(self.corpus, saying())
        self.corpus.journal.run_now(self.begin)

    @property
    def folder(self) -> Path:
        return Path(self.home.name) / str(self.number)

    def begin(self, transaction: Transaction) -> None:
        store_card(transaction, self.asker.card)
        transaction.execute(
            "insert into runs(run_id, task, spec_digest, spec, facts, status, started_us)"
            " values('r1', 'words', 's', '{}', ?, 'open', 0)",
            (self.asker.facts.to_json(),),
        )

    def open(self) -> None:
        self.folder.mkdir(exist_ok=True)
        journal = Journal(self.folder / "journal.sqlite", clock_us=lambda: 0, later=self.loop.call_soon)
        self.corpus = Corpus(
            folder=self.folder, journal=journal, clock=fixed_clock, actor="tester", new_run_id=lambda: "r1"
        )

    def teardown(self) -> None:
        committing.ROWS_PER_SHARD = self.rows_per_shard
        self.corpus.close()
        self.loop.close()
        self.home.cleanup()

    @rule(at=NUMBERS)
    def answer(self, at: list[int]) -> None:
        self.ask(at)

    def ask(self, at: list[int]) -> None:
        async def ask() -> None:
            async with answers(asker_of(self.corpus, saying()), wanted) as records:
                self.asked |= {record.record_id async for record in records}

        wanted = [prompt(f"word {number}", number) for number in at]
        self.loop.run_until_complete(ask())

    @rule()
    def commit(self) -> None:
        self.loop.run_until_complete(commit_records(self.corpus, self.asker.teacher))
        assert verify(self.corpus) == []
        found = [name for entry in read_manifest(self.folder).shards for name in self.ids(entry)]
        assert sorted(found) == sorted(self.asked)

    @rule(at=NUMBERS, step=st.integers(0, 11))
    def die_while_committing(self, at: list[int], step: int) -> None:
        self.ask(at)
        try:
            with killed_before(step, self.keep_what_is_on_the_disk):
                self.loop.run_until_complete(commit_records(self.corpus, self.asker.teacher))
        except _Killed:
            self.corpus.close()
            self.number += 1
            self.open()

    def keep_what_is_on_the_disk(self) -> None:
        shutil.copytree(self.folder, Path(self.home.name) / str(self.number + 1))

    @rule()
    def sweep(self) -> None:
        sweep(self.corpus)

    @rule()
    def lose_the_manifest(self) -> None:
        (self.folder / "MANIFEST.json").unlink(missing_ok=True)

    @invariant()
    def every_record_is_in_one_sound_shard_or_waits(self) -> None:
        found = [name for entry in committed_shards(self.corpus) for name in self.ids(entry)]
        waiting = self.corpus.journal.query("select lower(hex(record_id)) from records where shard is null")
        assert sorted([*found, *(name for (name,) in waiting)]) == sorted(self.asked)

    def ids(self, entry: ShardEntry) -> list[str]:
        """Its records, after it was found to be sound; looked at again when the file has changed."""
        path = self.folder / entry.path
        state = path.stat()
        looked_at = (entry, state.st_size, state.st_mtime_ns)
        if looked_at not in self.looked_at:
            assert hashlib.sha256(path.read_bytes()).hexdigest() == entry.sha256
            self.looked_at[looked_at] = read_columns([path], ["record_id"])["record_id"].to_pylist()
        return self.looked_at[looked_at]

    @invariant()
    def the_manifest_lists_only_what_is_committed(self) -> None:
        if (self.folder / "MANIFEST.json").exists():
            assert set(read_manifest(self.folder).shards) <= set(committed_shards(self.corpus))


ShardMachine.TestCase.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
TestShardMachine = ShardMachine.TestCase


# --- claims ----------------------------------------------------------------------------------------------------------


class _Claimed(CorpusgenError):
    """Somebody asks this now."""


class _Answered(CorpusgenError):
    """The answer is there."""


@dataclass(kw_only=True)
class Process:
    """One process on the corpus, with what it asks now."""

    journal: Journal
    ledger: Ledger
    asking: dict[int, Reservation] = field(default_factory=dict)


def question(number: int) -> Request:
    return Request(teacher="t", model="m", api="chat", messages=(Message(role="user", content=str(number)),))


def intent(number: int) -> Intent:
    return Intent(
        run_id="r1",
        request_key=question(number).key,
        teacher="t",
        role="r",
        attempt=1,
        worst=WORST,
        scopes=(RUN,),
        price_version="v",
    )


def mark_as_dead(transaction: Transaction, owner_id: int) -> None:
    transaction.execute("update owners set start_ticks = -2 where owner_id = ?", (owner_id,))


def answer_to(request: Request) -> Answer:
    return Answer(
        request_key=request.key,
        card_id="c",
        usage=Usage(input_tokens=1, output_tokens=1),
        cost_microusd=1,
        price_version="v",
        provider_request_id=None,
        sent_us=0,
        received_us=0,
        compute_us=None,
        body=b"{}",
    )


WORST = Amounts(microusd=3, tokens=3, requests=1)
USED = Amounts(microusd=1, tokens=2, requests=1)
PROCESSES = 3
QUESTIONS = 4
CAP = 20
"""Requests: enough for a while, so that both sides of the cap are seen."""


class ClaimMachine(RuleBasedStateMachine):
    """Processes ask the same few questions, and die while they ask."""

    def __init__(self) -> None:
        super().__init__()
        self.home = tempfile.TemporaryDirectory(dir=IN_MEMORY)
        self.loop = asyncio.new_event_loop()
        self.processes = [self.born() for _ in range(PROCESSES)]
        self.answered: set[int] = set()
        self.left: set[int] = set()
        """Questions that dead processes asked, before anybody has tidied up."""
        self.loop.run_until_complete(self.processes[0].ledger.set_caps([cap(CAP)]))

    def born(self) -> Process:
        path = Path(self.home.name) / "journal.sqlite"
        journal = Journal(path, clock_us=lambda: 0, later=self.loop.call_soon)
        return Process(journal=journal, ledger=Ledger(journal))

    def teardown(self) -> None:
        for process in self.processes:
            process.journal.close()
        self.loop.close()
        self.home.cleanup()

    def claimed(self) -> set[int]:
        return self.left.union(*(process.asking for process in self.processes))

    @rule(who=st.integers(0, PROCESSES - 1), number=st.integers(0, QUESTIONS - 1))
    def ask(self, who: int, number: int) -> None:
        process, key = self.processes[who], question(number).key

        def unless(transaction: Transaction) -> None:
            if known_answers(transaction.connection, [key]):
                raise _Answered
            if claim_on(transaction.connection, key) is not None:
                raise _Claimed

        try:
            if self.room() > 0 or number in self.answered | self.claimed():
                process.asking[number] = self.loop.run_until_complete(
                    process.ledger.reserve(intent(number), unless=unless)
                )
        except _Answered:
            assert number in self.answered
        except _Claimed:
            assert number in self.claimed()
        except BudgetExhausted:
            raise AssertionError("there was room") from None
        else:
            assert number not in self.answered

    def room(self) -> int:
        """How many requests still fit."""
        (used,) = self.processes[0].journal.query(
            "select coalesce(sum(settled + promised + unconfirmed), 0) from balances where unit = 'requests'"
        )
        return CAP - int(used[0])

    @rule(who=st.integers(0, PROCESSES - 1), number=st.integers(0, QUESTIONS - 1))
    def settle(self, who: int, number: int) -> None:
        process = self.processes[who]
        reservation, request = process.asking.pop(number, None), question(number)
        if reservation is None:
            return

        def operation(transaction: Transaction) -> None:
            process.ledger.settle(transaction, reservation, USED)
            store_answer(transaction, request, answer_to(request), reservation.call_id)

        process.journal.run_now(operation)
        self.answered.add(number)

    @rule(who=st.integers(0, PROCESSES - 1), number=st.integers(0, QUESTIONS - 1))
    def fail(self, who: int, number: int) -> None:
        process = self.processes[who]
        if (reservation := process.asking.pop(number, None)) is not None:
            process.journal.run_now(
                lambda transaction: process.ledger.failed(transaction, reservation, TeacherFault("cut"))
            )

    @rule(who=st.integers(0, PROCESSES - 1))
    def die(self, who: int) -> None:
        process = self.processes[who]
        process.journal.run_now(lambda transaction: mark_as_dead(transaction, process.journal.owner_id))
        process.journal.close()
        self.left |= process.asking.keys()
        self.processes[who] = self.born()

    @precondition(lambda self: self.left)
    @rule(who=st.integers(0, PROCESSES - 1))
    def take_over(self, who: int) -> None:
        assert self.loop.run_until_complete(self.processes[who].ledger.recover()) == len(self.left)
        self.left.clear()

    @invariant()
    def one_owner_for_each_claim_and_it_is_the_right_one(self) -> None:
        rows = self.processes[0].journal.query("select request_key, owner_id from claims")
        owned = {(question(at).key, each.journal.owner_id) for each in self.processes for at in each.asking}
        assert len(rows) == len({key for key, _ in rows}) == len(self.claimed())
        assert owned <= set(rows)

    @invariant()
    def whose_claim_is_left_is_known_to_be_dead(self) -> None:
        for number in range(QUESTIONS):
            claim = claim_on(self.processes[0].journal.reader, question(number).key)
            assert (claim is not None) == (number in self.claimed())
            assert claim is None or claim.alive == (number not in self.left)

    @invariant()
    def nothing_is_paid_twice_and_the_books_add_up(self) -> None:
        journal = self.processes[0].journal
        paid = journal.query("select request_key, count(*) from calls where state = 'settled' group by 1")
        assert {key for key, _ in paid} == {question(number).key for number in self.answered}
        assert all(count == 1 for _, count in paid)
        assert violations(journal) == []


ClaimMachine.TestCase.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)
TestClaimMachine = ClaimMachine.TestCase


async def test_nobody_waits_for_a_promise_of_a_process_that_died(tmp_path: Path) -> None:
    with journal_in(tmp_path) as journal:
        await Ledger(journal).set_caps([cap(1)])
        with journal_in(tmp_path) as another:
            await Ledger(another).reserve(intent(1))
            another.run_now(lambda transaction: mark_as_dead(transaction, another.owner_id))
        with pytest.raises(BudgetExhausted, match="0 settled, 1 unconfirmed"):
            await Ledger(journal).reserve(intent(2))
