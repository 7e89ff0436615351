"""Budgets, and the corpus in figures."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from corpusgen.budget.leases import leased
from corpusgen.budget.ledger import Balance, balances
from corpusgen.corpus import Corpus
from corpusgen.serve.api.models import BalanceTold, BudgetsTold, BudgetWanted, StatusTold
from corpusgen.serve.api.saying import aside, said
from corpusgen.serve.reading import body_of
from corpusgen.serve.routes import Operation, caller_of
from corpusgen.serve.service import service_of
from corpusgen.stages.budgeting import set_budget
from corpusgen.stages.looking import corpus_status


def budgets(corpus: Corpus, scope: str | None = None) -> list[BalanceTold]:
    """Every balance with its cap, or those of one scope and its days and months."""
    held = leased(corpus.journal)
    every = (one for one in balances(corpus.journal) if one.per == "total" or one.cap is not None)
    wanted = (one for one in every if scope is None or one.scope.partition("@")[0] == scope or one.scope == scope)
    return [_told(one, held.get((one.scope, one.unit), 0)) for one in wanted]


def _told(one: Balance, lent: int) -> BalanceTold:
    used = one.settled + one.promised + one.unconfirmed
    return BalanceTold(
        scope=one.scope,
        unit=one.unit,
        per=one.per,
        settled=one.settled,
        promised=one.promised,
        unconfirmed=one.unconfirmed,
        leased=lent,
        cap=one.cap,
        left=None if one.cap is None else max(0, one.cap - used),
        origin=one.origin,
    )


async def show_budgets(request: web.Request) -> web.Response:
    """Every scope with what is settled, promised and unconfirmed, and its caps."""
    return said(BudgetsTold(balances=await aside(budgets, service_of(request).corpus)))


async def put_budget(request: web.Request) -> web.Response:
    """Set caps; who did, and what there was before, is in the ledger of events."""
    wish, corpus = await body_of(request, BudgetWanted), service_of(request).corpus
    done = await aside(set_budget, corpus, wish.scope, wish.caps, per=wish.per, by=caller_of(request).user)
    service_of(request).bus.tell("budget", {"scope": wish.scope, "per": wish.per, "by": caller_of(request).user})
    return said(BudgetsTold(balances=await aside(budgets, corpus, wish.scope), warnings=list(done.warnings)))


async def show_status(request: web.Request) -> web.Response:
    """What ``corpusgen status`` says."""
    found = await aside(corpus_status, service_of(request).corpus)
    return said(StatusTold(**{name: value for name, value in found.items() if name != "corpus"}))


OPERATIONS: Final = (
    Operation(
        method="GET",
        path="/api/v1/budgets",
        handler=show_budgets,
        scope="read",
        summary="Balances and caps of every scope",
        answer=BudgetsTold,
        tag="money",
    ),
    Operation(
        method="PUT",
        path="/api/v1/budgets",
        handler=put_budget,
        scope="admin",
        summary="Set or take away caps of a scope",
        body=BudgetWanted,
        answer=BudgetsTold,
        tag="money",
    ),
    Operation(
        method="GET",
        path="/api/v1/status",
        handler=show_status,
        scope="read",
        summary="The corpus in figures: money, runs, drops, datasets, students",
        answer=StatusTold,
        tag="corpus",
    ),
)
