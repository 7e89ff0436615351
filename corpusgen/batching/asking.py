"""Hands requests over in batches and asks again for what they did not bring."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from corpusgen.batching.collecting import Watch
from corpusgen.batching.life import Batcher, free_calls, heed_stop, note_missed, note_submitted, rest
from corpusgen.budget.ledger import Intent, MustWait, claims_on, note_call, promise, refuse_stopped
from corpusgen.errors import BudgetExhausted, InvalidAnswer, PolicyRefused, TeacherError
from corpusgen.fanout.obtaining import MOST_UNREADABLE
from corpusgen.journal import Operation, Transaction
from corpusgen.prompting.prompts import Prompt
from corpusgen.records import Request
from corpusgen.screen import withheld
from corpusgen.store.answers import known_answers, store_request

CHUNK: Final = 256

Lacking = Callable[[Sequence[Prompt]], Iterable[tuple[Prompt, Request]]]
"""Those of some prompts that lack an answer, each with the request that is to be asked next."""


async def ask_in_batches(batcher: Batcher, prompts: Sequence[Prompt], lacking: Lacking) -> dict[str, TeacherError]:
    """Get every prompt's answers into the journal; gives back why those without one have none, by record id.

    Raises Interrupted when asked to stop; and BudgetExhausted when nothing more fits under a cap, or PolicyRefused when
    the terms allow no more, once all that was handed over is collected.
    """
    asking = _Asking(batcher=batcher, lacking=lacking, left=list(prompts))
    await _adopt(batcher, lacking(prompts))
    try:
        while await asking.step():
            pass
    finally:
        batcher.notice.text = ""
    return asking.failures


async def collect_batches(batcher: Batcher, keys: Iterable[bytes]) -> None:
    """Wait for the batches in which these requests are asked, and keep what they bring."""
    wanted = list(keys)
    watch = Watch(batcher=batcher)
    try:
        while batches := watch.claiming(wanted):
            await watch.one_more(batches)
    finally:
        batcher.notice.text = ""


async def glance(batcher: Batcher) -> None:
    """Collect those of the run's batches that have ended, without waiting for the others."""
    watch = Watch(batcher=batcher)
    for batch in watch.own():
        await watch.look(batch)


async def cancel_batches(batcher: Batcher) -> int:
    """End every batch of this run at the provider, keep what is answered by then; gives back how many there were."""
    watch = Watch(batcher=batcher)
    asked, waited_s = set[str](), 0.0
    while batches := watch.own():
        for batch in batches:
            if batch.provider_id is not None and batch.batch_id not in asked:
                await watch.cancel(batch)
                asked.add(batch.batch_id)
            await watch.end(batch)
        heed_stop(batcher)
        pause = batcher.patience.pause(waited_s)
        batcher.notice.text = f"{len(batches)} batches are being ended, which may take minutes"
        await rest(batcher, pause)
        waited_s += pause
    return len(asked)


@dataclass(kw_only=True)
class _Asking:
    """The prompts of one round of asking, and how each fares."""

    batcher: Batcher
    lacking: Lacking
    left: list[Prompt]
    failures: dict[str, TeacherError] = field(default_factory=dict)
    full: BudgetExhausted | PolicyRefused | MustWait | None = None
    """Why no more could be handed over; what is collected may make room."""
    screened: set[bytes] = field(default_factory=set)
    waits: int = 0
    """How often in a row there was nothing to do but to wait for others."""
    watch: Watch = field(init=False)

    def __post_init__(self) -> None:
        self.watch = Watch(batcher=self.batcher)

    async def step(self) -> bool:
        """Hand over what can be, then wait until a batch has ended; False when nothing is left to do."""
        wanted = self._wanted()
        heed_stop(self.batcher)
        if not wanted:
            return await self._collect_what_is_left()
        await self._hand_over(wanted)
        keys = list(wanted)
        wanted.clear()  # hours may pass, and requests are large
        batches = self.watch.claiming(keys)
        if batches:
            await self.watch.one_more(batches)
            self.full, self.waits = None, 0
        elif isinstance(self.full, BudgetExhausted | PolicyRefused):
            raise self.full
        else:  # a call by itself is asking for it, or has promised what is left of a cap
            await self._wait_for_others()
        return True

    async def _collect_what_is_left(self) -> bool:
        """Batches of this run whose answers came from elsewhere meanwhile are paid for too."""
        if not (batches := self.watch.own()):
            return False
        await self.watch.one_more(batches)
        return True

    def _wanted(self) -> dict[bytes, tuple[Prompt, Request]]:
        """What is still to be asked, by key; prompts that need nothing more are let go."""
        wanted: dict[bytes, tuple[Prompt, Request]] = {}
        still = []
        for prompt, request in self.lacking(self.left):
            if not self._given_up(prompt, request.key) and self._may_leave(prompt, request):
                still.append(prompt)
                wanted.setdefault(request.key, (prompt, request))
        self.left = still
        return wanted

    def _may_leave(self, prompt: Prompt, request: Request) -> bool:
        if request.key not in self.screened:
            if (reason := withheld(request, self.batcher.asker.blocked)) is not None:
                self.failures[prompt.record_id] = reason
                return False
            self.screened.add(request.key)
        return True

    def _given_up(self, prompt: Prompt, key: bytes) -> bool:
        error = self.watch.errors.get(key)
        most = self.batcher.asker.attempts
        if isinstance(error, InvalidAnswer):
            most = min(most, MOST_UNREADABLE)
        if error is None or (error.transient and self.watch.failed[key] < most):
            return False
        self.failures[prompt.record_id] = error
        return True

    async def _hand_over(self, wanted: Mapping[bytes, tuple[Prompt, Request]]) -> None:
        claimed = claims_on(self.batcher.journal.reader, list(wanted))
        lines = (line for key, line in self._lines(wanted) if key not in claimed)
        for chosen in _parcels(lines, self.batcher):
            if self.full is not None:
                return
            try:
                await self._one_batch(chosen)
            except (MustWait, BudgetExhausted, PolicyRefused) as error:
                self.full = error
            except TeacherError as error:
                if not self.watch.bears(error):
                    raise
                self.full = MustWait()  # perhaps when another batch has ended

    def _lines(self, wanted: Mapping[bytes, tuple[Prompt, Request]]) -> Iterator[tuple[bytes, _Line]]:
        asker, today = self.batcher.asker, self.batcher.rate_on(self.batcher.corpus.clock().date())
        for key, (prompt, request) in wanted.items():
            bound = asker.teacher.input_tokens_bound(request)
            intent = Intent(
                run_id=asker.facts.run_id,
                request_key=key,
                teacher=asker.teacher.card.name,
                role=f"{asker.facts.kind}:{prompt.item.split}",
                attempt=self.watch.failed[key] + 1,
                worst=today.worst(bound, int(request.parameters["max_tokens"])),
                scopes=asker.scopes,
                price_version=today.version,
            )
            yield key, _Line(request=request, intent=intent)

    async def _one_batch(self, chosen: Sequence[_Line]) -> None:
        batcher, name = self.batcher, self.batcher.new_name()
        permit = batcher.asker.permit
        if permit is not None and permit.due:
            await permit.renew()
        kept = await batcher.journal.run(_intend(batcher, name, chosen))
        if not kept:
            return  # others have answered or claimed all of it since
        batcher.passed("intended")
        if len(kept) < len(chosen):
            self.full = MustWait()
        lines = [batcher.service.batches.line(f"{name}-{at}", chosen[at].request) for at in kept]
        await _submit(batcher, name, lines)

    async def _wait_for_others(self) -> None:
        self.full = None
        await self.batcher.asker.ledger.recover()
        patience, times = self.batcher.patience, self.watch.in_a_row + self.waits
        self.waits += 1
        await rest(self.batcher, min(patience.longest_s, patience.shortest_s * 2 ** min(times, 16)))


@dataclass(frozen=True, kw_only=True)
class _Line:
    """One request that may go into a batch."""

    request: Request
    intent: Intent


def _parcels(lines: Iterable[_Line], batcher: Batcher) -> Iterator[list[_Line]]:
    """Lines in groups that one batch may hold."""
    limits = batcher.service.batches.limits
    most, room = min(limits.lines, batcher.size or limits.lines), limits.size_bytes
    parcel: list[_Line] = []
    size = 0
    for line in lines:
        # What the line adds around the request is the same for all; a kilobyte is more than that.
        needed = len(batcher.service.batches.line("", line.request)) + 1024
        if parcel and (len(parcel) == most or size + needed > room):
            yield parcel
            parcel, size = [], 0
        parcel.append(line)
        size += needed
    if parcel:
        yield parcel


# --- intent and handing over -----------------------------------------------------------------------------------------


def _intend(batcher: Batcher, name: str, chosen: Sequence[_Line]) -> Operation[list[int]]:
    """Promise as much of a batch as fits under the caps; gives back which lines, by their place.

    Raises MustWait or BudgetExhausted if not even the first of them does.
    """
    asker, owner = batcher.asker, batcher.journal.owner_id

    def operation(transaction: Transaction) -> list[int]:
        keys = [line.request.key for line in chosen]
        # In the transaction that promises: of several processes that find neither, one comes first.
        taken = known_answers(transaction.connection, keys) | claims_on(transaction.connection, keys).keys()
        kept: list[int] = []
        for at, line in enumerate(chosen):
            if line.request.key in taken:
                continue
            if not kept:
                refuse_stopped(transaction, line.intent.teacher)
            try:
                scopes = promise(transaction, line.intent.scopes, line.intent.worst)
            except (MustWait, BudgetExhausted):
                if not kept:
                    raise
                break
            call = note_call(transaction, line.intent, scopes, owner)
            transaction.execute(
                "update calls set batch_id = ?, batch_line = ? where call_id = ?", (name, at, call.call_id)
            )
            store_request(transaction, line.request)
            kept.append(at)
        if kept:
            card = asker.teacher.card
            row = (name, asker.facts.run_id, card.name, card.identity, asker.card.card_id, owner, len(kept))
            transaction.execute(
                "insert into batches(batch_id, run_id, teacher, identity, card_id, owner_id, lines, state, intended_us)"
                " values(?, ?, ?, ?, ?, ?, ?, 'intended', ?)",
                (*row, transaction.now_us),
            )
        return kept

    return operation


async def _submit(batcher: Batcher, name: str, lines: Sequence[bytes]) -> None:
    """Hand a batch over, once. What is not known to have failed is looked for, not repeated."""
    batcher.notice.text = f"handing over {len(lines):,} requests"
    try:
        provider_id = await batcher.service.batches.submit(name, lines)
    except TeacherError as error:
        if not error.billable:
            await batcher.journal.run(free_calls(batcher, name, f"{type(error).__name__}: {error}"))
            batcher.asker.ledger.freed()
            raise
        await batcher.journal.run(note_missed(name))
        return
    except BaseException:
        await batcher.journal.run(note_missed(name))
        raise
    batcher.passed("handed over")
    await batcher.journal.run(note_submitted(name, provider_id))
    batcher.asker.counts.sent += len(lines)
    batcher.passed("submitted")


async def _adopt(batcher: Batcher, lacking: Iterable[tuple[Prompt, Request]]) -> None:
    """Take what other corpora were answered."""
    elsewhere = batcher.asker.elsewhere
    wanted = {request.key: request for _, request in lacking} if elsewhere is not None else {}
    keys = list(wanted)
    for start in range(0, len(keys), CHUNK):
        assert elsewhere is not None
        await elsewhere.adopt({key: wanted[key] for key in keys[start : start + CHUNK]})
