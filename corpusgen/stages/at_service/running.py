"""A run here against the budget and the answers of a service elsewhere (``corpusgen run --service URL``).

Corpus, teachers and their keys are this machine's; the money is the service's, and so are the answers of everybody
who works with it. What is owed to the service (accounts of leases, answers to be passed on) stands in the journal
until it is done, so a run that was killed makes good for it when it starts again.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

from corpusgen.budget.leases import Borrower
from corpusgen.budget.ledger import Ledger
from corpusgen.corpus import Corpus
from corpusgen.elsewhere import Claims, Source
from corpusgen.errors import CorpusgenError, ServiceUnavailable, UsageError
from corpusgen.journal import Transaction, owner_alive
from corpusgen.stages.at_service.answers import ServiceAnswers, ServiceClaims, offer
from corpusgen.stages.at_service.money import AGE_S, BorrowingLedger, ServiceLender, Share
from corpusgen.stages.at_service.wire import Address, Gone, Later, Wire, pause
from corpusgen.stages.task import Task

TICK_S: Final = 0.5
"""How often leases and claims are looked after; leases sooner, when a call of theirs is closed."""
SHORTEST_S: Final = 0.05
END_S: Final = 15.0
"""How long the end of a run tries to give account; what is left is done when a run of this corpus starts again."""

_log = logging.getLogger("corpusgen.service")


@asynccontextmanager
async def answers_at(address: Address) -> AsyncIterator[Source]:
    """The answers of a service, to be looked up and no more."""
    wire = Wire(address=address)
    try:
        yield ServiceAnswers(wire=wire)
    finally:
        await wire.aclose()


@dataclass(frozen=True, kw_only=True)
class AtService:
    """What an open run uses of a service."""

    ledger: Ledger
    answers: Source
    claims: Claims


def check_live(task: Task) -> None:
    """Raise SpecError for a task that is to be asked in batches: they are handed over whole, and outlive any lease."""
    if task.spec.asking.lane == "batch":
        message = "batches are not paid out of what a service lends; write live, or run without --service"
        raise task.located.error(message, "asking", "lane")


def label_of(task: Task) -> str:
    """What every run of this task is called at a service, on whatever machine."""
    name = re.sub(r"[^A-Za-z0-9._-]", "-", task.spec.name)[:100].lstrip("._-") or "run"
    return f"{name}-{task.identity[:12]}"


@asynccontextmanager
async def at_service(address: Address, corpus: Corpus, label: str) -> AsyncIterator[AtService]:
    """A service, asked whether it is there and takes the token; what is owed to it since a crash is made good for.

    Raises ServiceUnavailable or UsageError before anything is sent to a teacher.
    """
    wire, waking = Wire(address=address), asyncio.Event()
    lender = ServiceLender(wire=wire, journal=corpus.journal, ledger=Ledger(corpus.journal), label=label, waking=waking)
    borrower = Borrower(lender=lender, calls=address.calls, seconds=address.lease_s)
    claims = ServiceClaims(wire=wire, corpus=corpus, holder=await _holder(corpus))
    books = _Books(corpus=corpus, lender=lender, claims=claims)
    try:
        await wire.ask("GET", "/api/v1/leases")
        await lender.ledger.recover()
        await books.make_good()
        keeping = asyncio.create_task(books.keep())
        try:
            ledger = BorrowingLedger(lender, borrower)
            yield AtService(ledger=ledger, answers=ServiceAnswers(wire=wire), claims=claims)
        finally:
            keeping.cancel()
            await asyncio.wait([keeping])
            await borrower.aclose()
            await lender.settled()
            await books.close()
            if not keeping.cancelled():
                keeping.result()  # what ended it early
    finally:
        await claims.aclose()
        await wire.aclose()


async def _holder(corpus: Corpus) -> str:
    """What tells this corpus from others that come with the same token; its next start goes on with its claims."""
    made = os.urandom(16).hex()

    def operation(transaction: Transaction) -> str:
        transaction.execute("insert into meta values(?, ?) on conflict do nothing", (_HOLDER, made))
        return str(transaction.rows("select value from meta where name = ?", (_HOLDER,))[0][0])

    return await corpus.journal.run(operation)


_HOLDER: Final = "name at services"


@dataclass(kw_only=True)
class _Books:
    """Looks after what was borrowed and claimed while a run goes on, and accounts for it."""

    corpus: Corpus
    lender: ServiceLender
    claims: ServiceClaims
    _unoffered: set[int] = field(default_factory=set)
    """Leases that are accounted for, whose answers the service does not have yet."""
    _rests_until_s: float = 0.0
    _tended_s: float = 0.0

    async def keep(self) -> None:
        """Do what is due, again and again."""
        while True:
            await pause(self.lender.waking, TICK_S)
            if time.monotonic() >= self._rests_until_s:
                await self._tend()
            await asyncio.sleep(SHORTEST_S)

    async def _tend(self) -> None:
        try:
            for share in list(self.lender.shares.values()):
                await self._look_after(share)
            if time.monotonic() - self._tended_s >= TICK_S:
                await self.claims.tend()
                await self._offer_left()
                self._tended_s = time.monotonic()
        except (ServiceUnavailable, Later, Gone) as error:
            self._rest(error, 1.0)
        except UsageError as error:  # of the token: whoever borrows next is told
            self._rest(error, 5.0)

    def _rest(self, error: CorpusgenError, seconds: float) -> None:
        self._rests_until_s = time.monotonic() + seconds
        _log.warning("leases could not be looked after: %s", error)

    async def _look_after(self, share: Share) -> None:
        now_s, lasting_s = time.monotonic(), self.lender.wire.address.lease_s
        share.ended = share.ended or now_s - share.borrowed_s >= AGE_S
        if not share.over(now_s) or self.lender.in_use(share):
            if share.until_s - now_s < lasting_s / 2 and not share.lapsed:
                await self.lender.prolong(share, lasting_s)
            return
        await self._account(share)

    async def _account(self, share: Share) -> None:
        known = await self.lender.account(share.borrowed_id, share.lease_id)
        del self.lender.shares[share.lease_id]
        if known:
            self._unoffered.add(share.borrowed_id)
            await self._offer_left()

    async def _offer_left(self) -> None:
        for borrowed_id in sorted(self._unoffered):
            await self.claims.let_go(await offer(self.lender.wire, self.corpus.journal, borrowed_id))
            self._unoffered.discard(borrowed_id)

    async def make_good(self) -> None:
        """Account for what processes have borrowed for this corpus that did not live to do it."""
        for borrowed_id, lease_id, reported_us, *owner in self.corpus.journal.query(_OWED, (self.lender.wire.url,)):
            if (owner[0] is not None and owner_alive(*owner)) or self.lender.is_open(borrowed_id):
                continue
            if reported_us is not None or await self.lender.account(borrowed_id, lease_id):
                self._unoffered.add(borrowed_id)
        await self._offer_left()

    async def close(self) -> None:
        """Account for everything that is left, for a while."""
        until_s = time.monotonic() + END_S
        error: CorpusgenError | None = None
        while self.lender.shares and time.monotonic() < until_s:
            error = None
            for share in list(self.lender.shares.values()):
                if not self.lender.in_use(share):
                    error = await self._closed(share) or error
            if isinstance(error, UsageError):
                break
            if self.lender.shares:
                await asyncio.sleep(0.2)
        if self.lender.shares or error is not None:
            told = f": {error}" if error is not None else ""
            _log.warning(
                "what was used of %s leases is not reported%s; the same command does it when it starts again",
                len(self.lender.shares),
                told,
            )
        with suppress(CorpusgenError):
            await self._offer_left()
        # Whoever opens this corpus next sees to what is left, be it this process.
        mine = (NOBODY, self.corpus.journal.owner_id)
        await self.corpus.journal.run(lambda transaction: transaction.execute(_DISOWN, mine).close())

    async def _closed(self, share: Share) -> CorpusgenError | None:
        try:
            await self._account(share)
        except (ServiceUnavailable, Later, Gone, UsageError) as error:
            return error
        return None


NOBODY: Final = 0
_DISOWN: Final = "update borrowed set owner_id = ? where owner_id = ? and (reported_us is null or offered_us is null)"
_OWED: Final = (
    "select borrowed_id, lease_id, reported_us, pid, boot_id, start_ticks from borrowed"
    " left join owners using (owner_id) where service = ?"
    " and (reported_us is null or offered_us is null) order by borrowed_id"
)
