"""The service's caps: those of its file, and what is said of one that is in the way of a call."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final

from corpusgen.budget.amounts import unit_name
from corpusgen.budget.ledger import Cap, balances, remove_caps, set_caps
from corpusgen.budget.prices import rate_of
from corpusgen.corpus import Corpus
from corpusgen.errors import BudgetExhausted, PriceUnknown
from corpusgen.fanout.asker import Asker
from corpusgen.journal import Transaction
from corpusgen.records import Json, Request
from corpusgen.serve.config import Configured
from corpusgen.serve.rooms import SCOPE
from corpusgen.stages.budgeting import keep_caps_of_file
from corpusgen.teachers.reading import most_output
from corpusgen.teachers.registry import resolved

_OF_FILE: Final = re.compile(r":\d+: budget\.\w+$")
"""How the origin of a cap ends that stands in a service's file."""


def put_caps(transaction: Transaction, config: Configured) -> None:
    """Put the file's caps in force, but for what somebody else has set since; they come back when that is removed."""
    there = {
        row[0]: row[1]
        for row in transaction.rows("select unit, origin from caps where scope = ? and per = 'total'", (SCOPE,))
    }
    ours = [unit for unit, origin in there.items() if _OF_FILE.search(origin)]
    if ours:
        remove_caps(transaction, SCOPE, ours)
    of_file = [
        Cap(
            scope=SCOPE,
            unit=unit,
            cap=cap,
            origin=f"{config.where('budget', unit_name(unit))}: budget.{unit_name(unit)}",
        )
        for unit, cap in config.spec.budget.caps().items()
    ]
    keep_caps_of_file(transaction, SCOPE, of_file)
    caps = [cap for cap in of_file if cap.unit not in there or cap.unit in ours]
    if caps:
        set_caps(transaction, caps)


def check_priced(corpus: Corpus, config: Configured) -> None:
    """Raise PriceUnknown or SpecError, with the line to change, for a teacher that may cost money without bound."""
    today, capped = corpus.clock().date(), {row[0] for row in corpus.journal.query(_IN_DOLLARS)}
    for at, offer in enumerate(config.spec.teachers):
        try:
            rate = rate_of(resolved(offer), on=today)
        except PriceUnknown as error:
            raise PriceUnknown(f"{config.where('teachers', at)}: {error}") from error
        if not rate.free and capped.isdisjoint((SCOPE, "corpus", f"teacher:{offer.name}")):
            raise config.error(f"{offer.name} costs money; set a cap, such as budget: {{usd: 5}}", "budget")


_IN_DOLLARS: Final = "select scope from caps where unit = 'microusd'"


def is_capped(asker: Asker) -> bool:
    """Whether a cap in dollars binds what is asked, where that costs money."""
    return asker.rate.free or any(scope in asker.scopes for (scope,) in asker.corpus.journal.query(_IN_DOLLARS))


def no_cap(asker: Asker) -> BudgetExhausted:
    """What to raise where none does any more."""
    return BudgetExhausted(
        f"{asker.teacher.card.name} costs money, and no cap in dollars is in force any more; set one, such as:"
        " corpusgen budget set service usd=5"
    )


LONGEST_ID: Final = 200
"""Of the name that a teacher's server gave a request."""


def upstream_id(request_id: str | None) -> dict[str, str]:
    """The header that names a request as the teacher's server did, where that can be said in one."""
    told = request_id and request_id.isascii() and request_id.isprintable()
    return {"x-corpusgen-upstream-request-id": request_id[:LONGEST_ID]} if told and request_id else {}


def usd(microusd: int) -> str:
    """An amount as headers say it, in dollars."""
    return f"{microusd / 1_000_000:.6f}".rstrip("0").rstrip(".") or "0"


def figures_of(asker: Asker, request: Request) -> dict[str, Json]:
    """The cap that is in the way of a call, with what was settled, promised and unconfirmed, and what it needs."""
    bound = asker.teacher.input_tokens_bound(request)
    need = replace(asker.rate.worst(bound, most_output(request)), compute_us=asker.compute_us)
    now = asker.corpus.clock()
    for one in balances(asker.corpus.journal):
        of = one.scope.partition("@")[0]
        needed = need.of(one.unit)
        if one.cap is None or of not in asker.scopes or one.settled + one.unconfirmed + needed <= one.cap:
            continue
        return {
            "scope": of,
            "per": one.per,
            "unit": one.unit,
            "cap": one.cap,
            "settled": one.settled,
            "promised": one.promised,
            "unconfirmed": one.unconfirmed,
            "needed": needed,
            "frees_in_s": _frees_in_s(one.per, now) if needed <= one.cap else None,
        }
    return {}


def _frees_in_s(per: str, now: datetime) -> int | None:
    """Seconds until a day's or a month's cap is whole again; None for one that holds for ever."""
    today = datetime(now.year, now.month, now.day, tzinfo=UTC)
    if per == "day":
        end = today + timedelta(days=1)
    elif per == "month":
        end = (today.replace(day=1) + timedelta(days=32)).replace(day=1)
    else:
        return None
    return int((end - now).total_seconds()) + 1
