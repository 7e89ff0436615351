"""Looks after batches under way: finds those nobody knows of, waits, and keeps what they bring."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Final

from corpusgen.assemble import request_of
from corpusgen.batching.life import (
    Batcher,
    OpenBatch,
    Waiting,
    close_batch,
    free_calls,
    heed_stop,
    note_missed,
    note_state,
    note_submitted,
    open_batches_of,
    promised_calls,
    rest,
)
from corpusgen.budget.amounts import Amounts
from corpusgen.budget.ledger import claims_on, set_right
from corpusgen.corpus import microseconds, moment
from corpusgen.errors import InvalidAnswer, RequestRefused, TeacherError, TeacherFault, TeacherTimeout, UsageOverrun
from corpusgen.fanout.calling import book_answer, count_served
from corpusgen.journal import Operation, Transaction
from corpusgen.records import Reply, Request
from corpusgen.store.answers import Answer, known_answers, store_answer, stored_requests
from corpusgen.teachers.batches import BatchResult, BatchState, refusal

AT_ONCE: Final = 200
"""Results that are settled and stored together, each for itself."""


_GONE: Final = frozenset({404, 410})
_NOT_TO_BE_ENDED: Final = frozenset({400, 409, *_GONE})


@dataclass(kw_only=True)
class Watch:
    """Looks after the batches under way until they have ended."""

    batcher: Batcher
    errors: dict[bytes, TeacherError] = field(default_factory=dict)
    """How a request fared last, by key, unless it was answered."""
    failed: Counter[bytes] = field(default_factory=Counter)
    in_a_row: int = 0

    def open(self) -> list[OpenBatch]:
        """The batches under way at this teacher."""
        return open_batches_of(self.batcher.journal, self.batcher.asker.teacher.card.identity)

    def own(self) -> list[OpenBatch]:
        """Those that this run handed over, and that are for this batcher to see to."""
        batcher, run_id = self.batcher, self.batcher.asker.facts.run_id
        return [batch for batch in self.open() if batch.run_id == run_id and batcher.mine(batch.batch_id)]

    def claiming(self, keys: Sequence[bytes]) -> list[OpenBatch]:
        """The batches in which some of these requests are asked."""
        names = set(claims_on(self.batcher.journal.reader, keys).values())
        return [batch for batch in self.open() if batch.batch_id in names]

    async def one_more(self, batches: Sequence[OpenBatch]) -> None:
        """Wait until one of these batches has ended and is collected, or turns out never to have been."""
        told = ""
        while True:
            for batch in batches:
                done, word = await self.look(batch)
                if done:
                    return
                told = word
            age_s = min(self._age_s(batch) for batch in batches)
            pause = self.batcher.patience.pause(age_s)
            self._tell(batches, told, pause)
            heed_stop(self.batcher)
            await rest(self.batcher, pause)
            names = {batch.batch_id for batch in batches}
            batches = [batch for batch in self.open() if batch.batch_id in names]
            if len(batches) < len(names):
                return  # another process has seen to it

    def _age_s(self, batch: OpenBatch) -> float:
        since = batch.submitted_us or batch.missed_us or batch.intended_us
        return (microseconds(self.batcher.corpus.clock()) - since) / 1e6

    def _tell(self, batches: Sequence[OpenBatch], word: str, pause: float) -> None:
        lines = sum(batch.lines for batch in batches)
        many = f"{len(batches)} batches" if len(batches) > 1 else f"batch {batches[0].provider_id or '(looked for)'}"
        self.batcher.notice.text = (
            f"{many} of {lines:,} requests: {word}; next look in {pause:.0f} s;"
            " Ctrl-C leaves it running at the provider, the same command collects it"
        )

    async def look(self, batch: OpenBatch) -> tuple[bool, str]:
        """Whether a batch is done with now, and a word on it."""
        try:
            if batch.state == "intended":
                found = await self._search(batch)
            else:
                found = await self._poll(batch)
        except TeacherError as error:
            if not self.bears(error):
                raise _explained(error, batch) from error
            return False, f"no word of it ({error})"
        self.in_a_row = 0
        return found

    def bears(self, error: TeacherError) -> bool:
        """Whether to go on after a failure."""
        self.in_a_row += 1
        return error.transient and self.in_a_row <= self.batcher.patience.failures

    async def _poll(self, batch: OpenBatch) -> tuple[bool, str]:
        assert batch.provider_id is not None
        state = await self.batcher.service.batches.poll(batch.provider_id)
        await self.batcher.journal.run(note_state(batch.batch_id, state))
        if state.stage == "working":
            return False, f"{state.word}, {state.answered:,} answered"
        await self.collect(batch, state)
        if state.stage == "failed":
            raise RequestRefused(
                f"batch {batch.provider_id} was refused as a whole: {state.why or state.word}. Nothing of it is owed;"
                " mend what it names (a limit on queued tokens wants a smaller asking.batch_size) and run again"
            )
        return True, state.word

    async def _search(self, batch: OpenBatch) -> tuple[bool, str]:
        """Find out whether a batch was handed over whose process did not live to tell."""
        if batch.missed_us is None and not batch.abandoned:
            return False, "being handed over"
        batcher, since = self.batcher, moment(batch.intended_us)
        await batcher.journal.run(note_missed(batch.batch_id))
        asked_us = microseconds(batcher.corpus.clock())
        found = await batcher.service.batches.find(batch.batch_id, batch.lines, since, self._known())
        if found.found:
            await batcher.journal.run(note_submitted(batch.batch_id, found.found[0]))
            batcher.passed("adopted")
            return True, "found"
        waited_s = (asked_us - (batch.missed_us or asked_us)) / 1e6
        if found.perhaps or waited_s < batcher.patience.grace_s:
            return False, "looked for at the provider"
        await batcher.journal.run(free_calls(batcher, batch.batch_id, "the provider does not know the batch"))
        batcher.asker.ledger.freed()
        batcher.passed("freed")
        return True, "not there"

    def _known(self) -> frozenset[str]:
        """The provider's names of batches that are known to be others."""
        rows = self.batcher.journal.query("select provider_batch_id from batches where provider_batch_id is not null")
        return frozenset(row[0] for row in rows)

    async def cancel(self, batch: OpenBatch) -> None:
        """Ask the provider to end a batch; what has ended already, or is not there, shows when it is looked at."""
        assert batch.provider_id is not None
        try:
            await self.batcher.service.batches.cancel(batch.provider_id)
        except TeacherError as error:
            if error.status not in _NOT_TO_BE_ENDED:
                raise

    async def end(self, batch: OpenBatch) -> None:
        """Collect a batch if it has ended; the calls of one that is not there any more are booked as unknown."""
        try:
            await self.look(batch)
        except RequestRefused as error:
            if error.status in _GONE:
                gone = close_batch(self.batcher, batch, "the provider knows no such batch", owed=True)
                await self.batcher.journal.run(gone)
                self.batcher.asker.ledger.freed()
            elif error.status is not None:
                raise

    # --- collecting --------------------------------------------------------------------------------------------------

    async def collect(self, batch: OpenBatch, state: BatchState) -> None:
        """Keep everything a batch brought, then close what it did not."""
        batcher = self.batcher
        waiting = promised_calls(batcher.journal.query, batch.batch_id)
        keys = {call.key for call in waiting.values()}
        keeper = _Keeper(watch=self, batch=batch, waiting=waiting)
        if state.stage == "ended":
            await self._read_results(keeper, state)
        # Of a batch that was cut short, what was not completed is not charged for, if the provider says so; whether all
        # that was completed has come, its own count tells.
        unbilled = state.cut_short in batcher.service.unbilled and keeper.answered >= state.answered
        owed = state.stage == "ended" and not unbilled
        await batcher.journal.run(close_batch(batcher, batch, _why_missing(state), owed=owed))
        batcher.asker.ledger.freed()
        batcher.passed("ended")
        for key in keys - known_answers(batcher.journal.reader, list(keys)):
            self.failed[key] += 1
            self.errors.setdefault(key, TeacherFault(_why_missing(state)))
        if keeper.overrun is not None:
            raise keeper.overrun

    async def _read_results(self, keeper: _Keeper, state: BatchState) -> None:
        batch = keeper.batch
        assert batch.provider_id is not None
        async with aclosing(self.batcher.service.batches.results(batch.provider_id)) as results:  # type: ignore[type-var] # an async generator
            async for result in results:
                await keeper.take(result)
        await keeper.flush()
        if keeper.answered < min(state.answered, batch.lines) and self.in_a_row < self.batcher.patience.failures:
            # Perhaps cut off on the way: what is missing was paid for, so it is fetched again before it is given up.
            raise TeacherFault(f"{keeper.answered} of {state.answered} answers came")


def _explained(error: TeacherError, batch: OpenBatch) -> TeacherError:
    if error.status in _GONE and batch.provider_id:
        return RequestRefused(
            f"the provider knows no batch {batch.provider_id} ({error}); was it handed over with another key?"
            " With that key the same command collects it; --cancel-batches gives it up",
            status=error.status,
        )
    return error


def _why_missing(state: BatchState) -> str:
    if state.stage == "failed":
        return f"the batch was refused as a whole: {state.why or state.word}"
    return f"the batch is {state.word}, and its results do not speak of this request"


@dataclass(kw_only=True)
class _Keeper:
    """Settles and stores the results of one batch, some hundreds at a time."""

    watch: Watch
    batch: OpenBatch
    waiting: Mapping[str, Waiting]
    taken: dict[str, BatchResult] = field(default_factory=dict)
    answered: int = 0
    seen: set[str] = field(default_factory=set)
    overrun: UsageOverrun | None = None

    async def take(self, result: BatchResult) -> None:
        """One result; the same one again, or one of no call of ours, is passed over."""
        if result.custom_id in self.seen:
            return
        self.seen.add(result.custom_id)
        self.answered += result.outcome == "answered"
        if result.custom_id in self.waiting:
            self.taken[result.custom_id] = result
            if len(self.taken) >= AT_ONCE:
                await self.flush()

    async def flush(self) -> None:
        """Settle and store what has been taken."""
        batcher, taken = self.watch.batcher, self.taken
        self.taken = {}
        calls = {name: self.waiting[name] for name in taken}
        requests = stored_requests(batcher.journal.reader, [call.key for call in calls.values()])
        pending = [
            batcher.journal.start(self._kept(calls[name], request_of(requests[calls[name].key]), result))
            for name, result in taken.items()
        ]
        for each in pending:
            await each
            batcher.passed("kept")
        batcher.asker.ledger.freed()

    def _kept(self, call: Waiting, request: Request, result: BatchResult) -> Operation[None]:
        ledger = self.watch.batcher.asker.ledger
        try:
            if result.outcome != "answered":
                raise self._failure(result)
            answer, used = self._read(request, result)
        except TeacherError as error:
            failure = error
            self.watch.errors[call.key] = failure
            return lambda transaction: ledger.failed(transaction, call.reservation, failure)
        self.watch.errors.pop(call.key, None)
        self._check_bound(call, used)

        def operation(transaction: Transaction) -> None:
            # Unknown where another process gave this result up a moment ago.
            if not set_right(transaction, call.reservation.call_id, "settled", used):
                book_answer(self.watch.batcher.asker, transaction, call.reservation, answer, used)
            store_answer(transaction, request, answer, call.reservation.call_id)

        self._offer(answer)
        return operation

    def _offer(self, answer: Answer) -> None:
        """Let other corpora have it too, if it was asked under today's terms."""
        asker = self.watch.batcher.asker
        if asker.elsewhere is not None and self.batch.card_id == asker.card.card_id:
            asker.elsewhere.offer(answer, asker.card)

    def _read(self, request: Request, result: BatchResult) -> tuple[Answer, Amounts]:
        batcher, batch = self.watch.batcher, self.batch
        handed_over = batch.submitted_us or batch.intended_us
        reply = Reply(
            body=result.body,
            request_id=result.request_id,
            sent_time=moment(handed_over),
            received_time=batcher.corpus.clock(),
        )
        try:
            completion = batcher.asker.teacher.read(request, reply)
        except InvalidAnswer as error:
            error.body = reply.body
            raise
        if served := completion.model_served:
            count_served(batcher.asker, request.model, served)
        rate = batcher.rate_on(moment(batch.intended_us).date())
        # An answer from a batch may call its tier "default"; it is the batch's price that is charged.
        used = rate.used(replace(completion.usage, service_tier=None))
        answer = Answer(
            request_key=request.key,
            card_id=batch.card_id,
            usage=completion.usage,
            cost_microusd=used.microusd,
            price_version=rate.version,
            provider_request_id=completion.provider_request_id or reply.request_id,
            sent_us=handed_over,
            received_us=microseconds(reply.received_time),
            compute_us=None,
            body=result.body,
        )
        return answer, used

    def _check_bound(self, call: Waiting, used: Amounts) -> None:
        if used.exceeds(call.reservation.worst):
            self.overrun = UsageOverrun(
                f"{self.watch.batcher.asker.card.teacher} reported {used.tokens} tokens for a request of batch"
                f" {self.batch.provider_id} where at most {call.reservation.worst.tokens} were possible;"
                " all are booked, and no more is asked of it"
            )

    def _failure(self, result: BatchResult) -> TeacherError:
        words = f"{result.outcome} in batch {self.batch.provider_id}"
        if result.outcome == "expired":
            error: TeacherError = TeacherTimeout(f"{words}: not answered within a day")
        elif result.outcome == "canceled":
            error = TeacherFault(words)
        else:
            error = refusal(result.status or 500, result.message or words)
            billing = self.watch.batcher.service.billing
            error.billable = result.status is None or billing.may_charge(result.status)
        if result.outcome in self.watch.batcher.service.unbilled:
            error.billable = False
        error.request_id = result.request_id
        return error
