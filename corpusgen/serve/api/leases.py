"""Leases, answers and claims for other machines: one budget and one store of answers for all of them.

The service asks nothing for a borrower. It lends a share of the budget, is told what was used, and passes answers on;
what a borrower says of money is booked, never less than was lent where it says nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final

from aiohttp import web

from corpusgen.budget.amounts import UNITS, Amounts, period_of
from corpusgen.budget.leases import LeaseEnded
from corpusgen.budget.lending import Lent, Reported, Wish, book_overdue, give_back, lend, lent_out, renew, totals
from corpusgen.corpus import Corpus, moment
from corpusgen.errors import UnknownTeacher, UsageOverrun
from corpusgen.fields import MOST
from corpusgen.journal import Transaction
from corpusgen.serve.answers import Cards, find_answers, offer_answers
from corpusgen.serve.api.models import (
    MOST_REPORTED,
    AmountsTold,
    AmountsWanted,
    AnswersOffered,
    AnswersTold,
    AnswersWanted,
    CallReport,
    ClaimsReleased,
    ClaimsTold,
    ClaimsWanted,
    LeaseRenewal,
    LeaseReturn,
    LeaseReturned,
    LeasesTold,
    LeaseTold,
    LeaseWanted,
    OffersTold,
)
from corpusgen.serve.api.saying import aside, said
from corpusgen.serve.callers import Caller
from corpusgen.serve.claims import claim, release
from corpusgen.serve.reading import body_of
from corpusgen.serve.routes import Operation, caller_of
from corpusgen.serve.service import Service, service_of
from corpusgen.serve.statuses import NoSuch, Refused

MOST_ANSWERS: Final = 32 << 20
"""Bytes of one offer of answers."""


def scopes_for(caller: Caller, wish: LeaseWanted) -> tuple[str, ...]:
    """Where a lease is booked: everywhere that a call of this caller would be. Raises Refused for other scopes."""
    run = () if wish.run is None else (f"run:{run_of(caller, wish.run)}",)
    booked = (*run, "corpus", f"teacher:{wish.teacher}", *caller.budget_scopes)
    for scope in booked:
        if period_of(scope)[1] != "total":  # it would be booked in the row that counts somebody's day
            raise Refused(400, f"{scope!r:.120} ends like the name of a day or a month; no lease is booked there")
    if others := [scope for scope in wish.scopes if scope not in booked]:
        raise Refused(403, f"scopes: {others[0]!r:.120} is none of this token's; it books on {', '.join(booked)}")
    return tuple(dict.fromkeys(booked))


def run_of(caller: Caller, label: str) -> str:
    """What a run elsewhere is called here: never as a run of this corpus, nor as one of another user."""
    return f"{caller.user}/{label}"


def _check_teacher(service: Service, teacher: str) -> None:
    names = {offer.name for offer in service.desk.config.spec.teachers}
    if teacher not in names:
        known = ", ".join(sorted(names))
        raise UnknownTeacher(f"teacher: {teacher!r:.120} is no teacher of this service; there are: {known}")


async def grant(request: web.Request) -> web.Response:
    """A lease."""
    wish, service, caller = await body_of(request, LeaseWanted), service_of(request), caller_of(request)
    amounts = _amounts(wish.amounts)
    _check_teacher(service, wish.teacher)
    if not any(amounts.each):
        raise Refused(400, "amounts: name at least one amount above 0")
    wanted = Wish(
        token_id=caller.token_id,
        teacher=wish.teacher,
        run=None if wish.run is None else run_of(caller, wish.run),
        scopes=scopes_for(caller, wish),
        amounts=amounts,
        seconds=wish.seconds,
        run_caps={} if wish.run_caps is None else wish.run_caps.by_unit(),
        by=caller.user,
    )
    try:
        made = await service.corpus.journal.run(partial(_lend, wish=wanted, owner_id=service.corpus.journal.owner_id))
    except UsageOverrun as error:
        raise Refused(402, str(error), kind="UsageOverrun") from error
    if made is None:
        raise Refused(
            429, "promises under way may still free enough; ask again in a moment", headers={"Retry-After": "1"}
        )
    service.bus.tell("lease", {"lease": made.lease_id, "user": caller.user, "teacher": wish.teacher, "state": "open"})
    return said(_told(made), status=201)


def _lend(transaction: Transaction, wish: Wish, owner_id: int) -> Lent | None:
    book_overdue(transaction, owner_id)
    return lend(transaction, wish, owner_id)


def _amounts(wish: AmountsWanted | CallReport) -> Amounts:
    return Amounts(microusd=wish.microusd, tokens=wish.tokens, requests=wish.requests, compute_us=wish.compute_us)


def _amounts_told(amounts: Amounts) -> AmountsTold:
    return AmountsTold(
        microusd=amounts.microusd, tokens=amounts.tokens, requests=amounts.requests, compute_us=amounts.compute_us
    )


def _told(lent: Lent) -> LeaseTold:
    return LeaseTold(
        lease=lent.lease_id,
        teacher=lent.teacher,
        run=lent.run,
        scopes=list(lent.scopes),
        granted=_amounts_told(lent.granted),
        left=_amounts_told(lent.left),
        expires=moment(lent.expires_us),
        state=lent.state,
    )


async def list_leases(request: web.Request) -> web.Response:
    """The caller's leases; an administrator sees everybody's."""
    caller = caller_of(request)
    whose = None if caller.may("admin") else caller.token_id
    found = await aside(lent_out, service_of(request).corpus.journal, whose)
    return said(LeasesTold(leases=[_told(one) for one in found]))


def _own(corpus: Corpus, request: web.Request) -> Lent:
    """The lease that a path names, if it is the caller's. Raises NoSuch for somebody else's too."""
    word, caller = request.match_info["lease"], caller_of(request)
    number = int(word) if word.isascii() and word.isdigit() and len(word) < 19 else -1
    found = lent_out(corpus.journal, None if caller.may("admin") else caller.token_id, number)
    if not found:
        raise NoSuch(f"no lease {word!r:.40} of this token")
    return found[0]


async def renew_lease(request: web.Request) -> web.Response:
    """The same lease for longer."""
    wish, corpus = await body_of(request, LeaseRenewal), service_of(request).corpus
    lent = _own(corpus, request)
    try:
        await corpus.journal.run(partial(renew, lease_id=lent.lease_id, seconds=wish.seconds))
    except LeaseEnded as error:
        raise Refused(409, str(error)) from error
    return said(_told(_own(corpus, request)))


async def return_lease(request: web.Request) -> web.Response:
    """What was used of a lease is booked, the rest is free."""
    wish, service = await body_of(request, LeaseReturn), service_of(request)
    lent = _own(service.corpus, request)
    if wish.calls and wish.totals is not None:
        raise Refused(400, "totals: give calls or totals, not both")
    reports = [_reported(one) for one in wish.calls]
    if wish.totals is not None and any(_amounts(wish.totals).each):
        reports = [totals(lent.lease_id, _amounts(wish.totals))]
    _check_sums(reports)
    owner_id = service.corpus.journal.owner_id
    done = await service.corpus.journal.run(
        partial(give_back, lease_id=lent.lease_id, reports=reports, owner_id=owner_id)
    )
    over = any(done.overrun.each)
    told = {"lease": lent.lease_id, "user": caller_of(request).user, "state": "returned"}
    service.bus.tell("lease", told | ({"overrun": True} if over else {}))
    return said(
        LeaseReturned(
            lease=lent.lease_id,
            settled=_amounts_told(done.settled),
            unconfirmed=_amounts_told(done.unconfirmed),
            freed=_amounts_told(done.freed),
            overrun=_amounts_told(done.overrun),
            calls=list(done.call_ids),
        )
    )


def _check_sums(reports: Sequence[Reported]) -> None:
    for unit in UNITS:
        most = MOST if unit == "compute_us" else MOST_REPORTED
        if (total := sum(one.used.of(unit) for one in reports)) > most:
            raise Refused(400, f"calls: {total:,} {unit} under one lease is more than can be; send what was used")


def _reported(one: CallReport) -> Reported:
    return Reported(
        request_key=bytes.fromhex(one.request_key),
        state=one.state,
        used=_amounts(one),
        price_version=one.price_version,
        provider_request_id=one.provider_request_id,
    )


# --- Answers ---------------------------------------------------------------------------------------------------------


async def find(request: web.Request) -> web.Response:
    """Answers that are known here; whoever asks judges by its own policy whether it may use them."""
    wish = await body_of(request, AnswersWanted)
    found, left_off = await aside(find_answers, service_of(request).corpus, wish.keys)
    return said(AnswersTold(answers=found, left_off=left_off))


async def offer(request: web.Request) -> web.Response:
    """Answers that a borrower paid for, so that nobody pays for them again."""
    wish, service, caller = await body_of(request, AnswersOffered), service_of(request), caller_of(request)
    cards = Cards(corpus=service.corpus, config=service.desk.config)
    try:
        done = await aside(offer_answers, cards, wish.answers, caller)
    finally:
        await cards.aclose()
    return said(OffersTold(answers=done))


# --- Claims ----------------------------------------------------------------------------------------------------------


async def make_claims(request: web.Request) -> web.Response:
    """Say what is about to be asked, and hear what others ask already."""
    wish, service = await body_of(request, ClaimsWanted), service_of(request)
    done = await service.corpus.journal.run(
        partial(claim, keys=wish.keys, whose=_whose(request, wish), lasting_us=round(wish.seconds * 1e6))
    )
    return said(ClaimsTold(claimed=done.claimed, busy=done.busy, answered=done.answered))


async def release_claims(request: web.Request) -> web.Response:
    """Let others ask these again."""
    wish, service = await body_of(request, ClaimsReleased), service_of(request)
    gone = await service.corpus.journal.run(partial(release, keys=wish.keys, whose=_whose(request, wish)))
    return said(ClaimsTold(claimed=[], busy=[], answered=gone))


def _whose(request: web.Request, wish: ClaimsWanted | ClaimsReleased) -> str:
    """The token, and which of its processes."""
    return f"{caller_of(request).token_id} {wish.holder}".rstrip()


OPERATIONS: Final = (
    Operation(
        method="GET",
        path="/api/v1/leases",
        handler=list_leases,
        scope="lend",
        summary="The caller's leases; an administrator sees everybody's",
        answer=LeasesTold,
        tag="machines",
    ),
    Operation(
        method="POST",
        path="/api/v1/leases",
        handler=grant,
        scope="lend",
        summary="Borrow a share of the budget for calls that are made elsewhere",
        body=LeaseWanted,
        answer=LeaseTold,
        status=201,
        tag="machines",
    ),
    Operation(
        method="POST",
        path="/api/v1/leases/{lease}/renew",
        handler=renew_lease,
        scope="lend",
        summary="Keep a lease for longer, at most to the end of its day (UTC)",
        body=LeaseRenewal,
        answer=LeaseTold,
        tag="machines",
    ),
    Operation(
        method="POST",
        path="/api/v1/leases/{lease}/return",
        handler=return_lease,
        scope="lend",
        summary="Return a lease with what was really used of it",
        body=LeaseReturn,
        answer=LeaseReturned,
        most_bytes=8 << 20,
        tag="machines",
    ),
    Operation(
        method="POST",
        path="/api/v1/answers/find",
        handler=find,
        scope="lend",
        summary="Answers that are known here, by the keys of their requests",
        body=AnswersWanted,
        answer=AnswersTold,
        tag="machines",
    ),
    Operation(
        method="POST",
        path="/api/v1/answers",
        handler=offer,
        scope="lend",
        summary="Hand over answers to calls that were reported under a lease",
        body=AnswersOffered,
        answer=OffersTold,
        most_bytes=MOST_ANSWERS,
        tag="machines",
    ),
    Operation(
        method="POST",
        path="/api/v1/claims",
        handler=make_claims,
        scope="lend",
        summary="Claim requests that are about to be asked, so that no other machine asks them",
        body=ClaimsWanted,
        answer=ClaimsTold,
        tag="machines",
    ),
    Operation(
        method="POST",
        path="/api/v1/claims/release",
        handler=release_claims,
        scope="lend",
        summary="Let go of claims",
        body=ClaimsReleased,
        answer=ClaimsTold,
        tag="machines",
    ),
)
