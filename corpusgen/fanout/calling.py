"""One call to a teacher: reserve, pace, ask, read, and settle and store in one transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from corpusgen.assemble import part_of, read_labels
from corpusgen.budget.amounts import Amounts
from corpusgen.budget.ledger import Intent, Reservation, claim_on, unheard_of
from corpusgen.budget.prices import Rate
from corpusgen.corpus import microseconds
from corpusgen.errors import CorpusgenError, InvalidAnswer, RequestRefused, TeacherError, UsageOverrun
from corpusgen.fanout.asker import Asker, Ended, Permit
from corpusgen.frozen import quickly_made
from corpusgen.journal import Transaction
from corpusgen.prompting.prompts import Prompt
from corpusgen.records import Completion, Reply, Request
from corpusgen.standing import is_another_model
from corpusgen.store.answers import Answer, RecordRow, store_answer, store_record
from corpusgen.teachers.labels import LabelReading
from corpusgen.teachers.rates import Ticket
from corpusgen.teachers.reading import most_output

UNCOUNTED = "answered, and nobody counted its tokens"
CLAIM_POLL_S = 0.07
"""How often who waits for another process's answer looks for it."""


class AnsweredMeanwhile(CorpusgenError):
    """Somebody else got the answer in the meantime."""


class _Claimed(CorpusgenError):
    """Another process is asking this very thing."""


@quickly_made
@dataclass(frozen=True, kw_only=True)
class Got:
    """An answer, new or known."""

    request: Request
    answer: Answer
    completion: Completion
    reading: LabelReading | None
    used: Amounts | None
    """What it cost now; None for an answer that was known."""
    choices: tuple[Completion, ...] = ()
    """Every answer that can be read, where several were asked for; ``completion`` is one of them."""
    share: tuple[int, int] | None = None
    """Where several were asked for: which part of how many of the call's cost this one bears."""

    @property
    def cost_microusd(self) -> int:
        """What it costs, of the answers of one call its own part."""
        cost = self.answer.cost_microusd
        return cost if self.share is None else part_of(cost, *self.share)


Finish = Callable[[Got], tuple[RecordRow, ...]]
"""The records an answer completes; none while the item needs another answer."""


def read_reply(asker: Asker, request: Request, reply: Reply) -> tuple[Completion, tuple[Completion, ...]]:
    """The (first) answer in a reply, and all of them where several were asked for."""
    if "n" not in request.parameters:
        return asker.teacher.read(request, reply), ()
    choices = asker.teacher.read_choices(request, reply)
    return choices[0], choices


async def try_once(
    asker: Asker, prompt: Prompt, request: Request, finish: Finish, attempt: int
) -> tuple[Got, tuple[RecordRow, ...]]:
    """One try, reserved for itself."""
    if asker.hold.ended:
        raise Ended
    asker, reservation, ticket = await _reserve(asker, prompt, request, attempt)
    if asker.permit is not None and asker.permit.due:
        await _renew(asker, asker.permit, reservation, ticket)
    with asker.hold:
        return await _ask(asker, reservation, ticket, request, finish)


async def _renew(asker: Asker, permit: Permit, reservation: Reservation, ticket: Ticket) -> None:
    """Have it decided again whether this may be sent, after all waiting, and give back what it held if not."""
    try:
        await permit.renew()
    except BaseException as error:
        asker.pacer.unused(ticket)
        reason = f"not sent: {type(error).__name__}"
        await asker.corpus.journal.run(lambda transaction: asker.ledger.release(transaction, reservation, reason))
        asker.ledger.freed()
        raise


async def _reserve(asker: Asker, prompt: Prompt, request: Request, attempt: int) -> tuple[Asker, Reservation, Ticket]:
    """The right to ask this now, which nobody else has; and the asker at the rate it was promised at."""
    most = asker.teacher.input_tokens_bound(request), most_output(request)
    while True:
        ticket = await _turn(asker, most)
        today = asker if asker.rate_on is None else _at_rate(asker, asker.rate_on(asker.corpus.clock().date()))
        try:
            intent = _intent(today, prompt, request, most, attempt)
            given = await asker.ledger.reserve(intent, unless=lambda given: _refuse_needless(given, request.key))
        except BaseException as error:
            asker.pacer.unused(ticket)
            if not isinstance(error, _Claimed):
                raise
        else:
            if asker.pacer.lapsed(ticket):
                asker.pacer.unused(ticket)
                ticket = await _another_turn(asker, most, given)
            return today, given, ticket
        await _unclaimed(asker, request.key)


def _turn(asker: Asker, most: tuple[int, int]) -> Awaitable[Ticket]:
    """A moment to send so many tokens at most, of input and of output."""
    return asker.pacer.turn(*most) if asker.pacer.weighs else asker.pacer.turn()


async def _another_turn(asker: Asker, most: tuple[int, int], reservation: Reservation) -> Ticket:
    """A new moment to send, after a long wait for money; who waited with it would leave as one wave."""
    try:
        return await _turn(asker, most)
    except BaseException:
        reason = "not sent: its turn did not come"
        await asker.corpus.journal.run(lambda transaction: asker.ledger.release(transaction, reservation, reason))
        asker.ledger.freed()
        raise


async def _unclaimed(asker: Asker, key: bytes) -> None:
    """Wait until no other process asks for this; what a dead one was asking for becomes unknown first."""
    journal = asker.corpus.journal
    while (claim := claim_on(journal.reader, key)) is not None:
        # One of ours is our own flight, the one that waits here, so nobody will close it.
        if claim.batch_id is not None:
            raise RequestRefused(
                f"it is being asked in batch {claim.batch_id}, which another process handed over meanwhile;"
                " run again to wait for that batch and collect it"
            )
        if claim.owner_id == journal.owner_id:
            await asker.ledger.abandon(claim)
        elif not claim.alive:
            await asker.ledger.recover()
        else:
            await asyncio.sleep(CLAIM_POLL_S)


def _at_rate(asker: Asker, rate: Rate) -> Asker:
    """A call is promised and settled at the price of the day on which it is sent."""
    return asker if rate is asker.rate else replace(asker, rate=rate)


def _refuse_needless(transaction: Transaction, key: bytes) -> None:
    # In the transaction that reserves: of several processes that find neither, one comes first.
    if unheard_of(transaction, key):
        return
    (answered, claimed) = transaction.rows(_NEEDLESS, (key, key))[0]
    if answered:
        raise AnsweredMeanwhile
    if claimed:
        raise _Claimed


_NEEDLESS = (
    "select exists(select 1 from answers where request_key = ?), exists(select 1 from claims where request_key = ?)"
)


def _intent(asker: Asker, prompt: Prompt, request: Request, most: tuple[int, int], attempt: int) -> Intent:
    worst = asker.rate.worst(*most)
    if asker.compute_us:
        worst = replace(worst, compute_us=asker.compute_us)
    return Intent(
        run_id=asker.facts.run_id,
        request_key=request.key,
        teacher=asker.teacher.card.name,
        role=f"{asker.facts.kind}:{prompt.item.split}" if asker.role == "primary" else _role(asker, prompt),
        attempt=attempt,
        worst=worst,
        scopes=asker.scopes,
        price_version=asker.rate.version,
    )


def _role(asker: Asker, prompt: Prompt) -> str:
    return f"{asker.facts.kind}:{asker.role}:{prompt.item.split}"


def _computed(most_us: int, reply: Reply) -> int:
    """Processor time of ours that an answer took; where nobody measured it, at most the time until it came."""
    if reply.compute_us is not None:
        return reply.compute_us
    return max(0, min(most_us, microseconds(reply.received_time) - microseconds(reply.sent_time)))


async def _ask(
    asker: Asker, reservation: Reservation, ticket: Ticket, request: Request, finish: Finish
) -> tuple[Got, tuple[RecordRow, ...]]:
    asker.counts.in_flight += 1
    asker.counts.sent += 1
    reply = None
    try:
        while (early_s := asker.pacer.early_s(ticket)) > 0:  # noqa: ASYNC110 - a moment, and no event
            await asyncio.sleep(early_s)
        reply = await asker.teacher.ask(request, timeout_s=asker.timeout_s)
        got = _read(asker, request, reply)
        rows = finish(got)
    except TeacherError as error:
        error.request_id = error.request_id or (reply.request_id if reply else None)
        if isinstance(error, InvalidAnswer) and reply is not None:
            error.body = reply.body
        asker.pacer.failed(ticket, error)
        await _close_failed(asker, reservation, error)
        raise
    except BaseException as error:
        asker.pacer.unused(ticket)
        reason = f"{type(error).__name__} while asking"
        await asker.corpus.journal.run(lambda transaction: asker.ledger.unknown(transaction, reservation, reason))
        raise
    finally:
        asker.counts.in_flight -= 1
    asker.pacer.answered(ticket, reply, got.completion.usage)
    await _keep(asker, reservation, got, rows)
    return got, rows


async def _close_failed(asker: Asker, reservation: Reservation, error: TeacherError) -> None:
    await asker.corpus.journal.run(lambda transaction: asker.ledger.failed(transaction, reservation, error))
    asker.ledger.freed()


def _read(asker: Asker, request: Request, reply: Reply) -> Got:
    completion, choices = read_reply(asker, request, reply)
    usage, served = completion.usage, completion.model_served
    used = asker.rate.used(usage)
    if asker.compute_us:
        used = replace(used, compute_us=_computed(asker.compute_us, reply))
    answer = Answer(
        request_key=request.key,
        card_id=asker.card.card_id,
        usage=usage,
        cost_microusd=used.microusd,
        price_version=asker.rate.version,
        provider_request_id=completion.provider_request_id or reply.request_id,
        sent_us=microseconds(reply.sent_time),
        received_us=microseconds(reply.received_time),
        compute_us=reply.compute_us,
        body=reply.body,
    )
    reading = read_labels(asker.facts, completion)
    if served:
        count_served(asker, request.model, served)
    return Got(request=request, answer=answer, completion=completion, reading=reading, used=used, choices=choices)


def count_served(asker: Asker, asked: str, served: str) -> None:
    """Count an answer by another model, and whether its terms are among those that were checked."""
    if served == asked:
        return
    asker.counts.models[asker.teacher.card.name, served] += 1
    if is_another_model(asked, served):
        asker.counts.other_models[served] += 1
    if (why := asker.put_aside(served)) is not None:
        asker.counts.quarantined[why] += 1


def book_answer(
    asker: Asker, transaction: Transaction, reservation: Reservation, answer: Answer, used: Amounts
) -> None:
    """Settle a call by its answer; where nobody counted, its worst case stays unconfirmed until it is reconciled."""
    name = answer.provider_request_id
    if answer.usage.counted or asker.rate.free or used.exceeds(reservation.worst):
        asker.ledger.settle(transaction, reservation, used, request_id=name)
    else:
        asker.ledger.unknown(transaction, reservation, UNCOUNTED, request_id=name)


async def _keep(asker: Asker, reservation: Reservation, got: Got, rows: Sequence[RecordRow]) -> None:
    """Settle and store in one transaction: paid for and kept, or neither."""
    used = got.used
    assert used is not None

    def operation(transaction: Transaction) -> None:
        book_answer(asker, transaction, reservation, got.answer, used)
        store_answer(transaction, got.request, got.answer, reservation.call_id)
        for row in rows:
            store_record(transaction, row)

    try:
        await asker.corpus.journal.run(operation)
    except Exception as error:  # whatever it was: this answer was sent for, and may be on the bill
        await _lost(asker, reservation, error)
        raise
    asker.ledger.freed()
    if asker.elsewhere is not None:
        asker.elsewhere.offer(got.answer, asker.card)
    if used.exceeds(reservation.worst):
        raise UsageOverrun(
            f"{asker.card.teacher} reported {got.completion.usage.total_tokens} tokens where at most"
            f" {reservation.worst.tokens} were possible; all are booked, and no more is asked of it"
        )


async def _lost(asker: Asker, reservation: Reservation, error: Exception) -> None:
    """Book a call as unknown whose answer came and could not be kept; a disk that is full leaves it promised."""
    reason = f"{type(error).__name__}: its answer came and could not be kept"
    with suppress(CorpusgenError):  # what is promised becomes unknown when it is asked for again, or at the next start
        await asker.corpus.journal.run(lambda transaction: asker.ledger.unknown(transaction, reservation, reason))
    asker.ledger.freed()
