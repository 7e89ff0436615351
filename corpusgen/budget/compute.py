"""Processor time of one's own machines: booked like a call, and worth what its owner says.

What an hour is worth is a shadow price: nobody sends a bill for it, so it stands beside money and no cap in dollars
counts it. Caps on the time itself do.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from corpusgen.budget.amounts import Amounts
from corpusgen.budget.ledger import (
    POLL_S,
    Intent,
    Ledger,
    MustWait,
    Reservation,
    note_call,
    promise,
    recover_dead_owners,
)
from corpusgen.journal import Journal, Transaction

HOUR_US = 3_600_000_000


def worth(compute_us: int, microusd_per_hour: int) -> int:
    """Micro-dollars of so much processor time, rounded up."""
    return -(-compute_us * microusd_per_hour // HOUR_US)


@contextmanager
def booked(journal: Journal, intent: Intent, *, clock: Callable[[], float] = time.process_time) -> Iterator[None]:
    """Promise processor time before it is used, and settle what ``clock`` says was used, in seconds.

    Blocks while calls under way could still free enough. Raises BudgetExhausted before anything has begun. A process
    that is killed meanwhile leaves a promise that becomes unconfirmed, like any other.
    """
    reservation = _promised(journal, intent)
    began = clock()
    try:
        yield
    finally:
        used = Amounts(compute_us=round((clock() - began) * 1_000_000))
        journal.run_now(lambda transaction: Ledger(journal).settle(transaction, reservation, used))


def _promised(journal: Journal, intent: Intent) -> Reservation:
    def operation(transaction: Transaction) -> Reservation:
        scopes = promise(transaction, intent.scopes, intent.worst, sends=False)
        return note_call(transaction, intent, scopes, journal.owner_id)

    while True:
        try:
            return journal.run_now(operation)
        except MustWait:
            time.sleep(POLL_S)
            journal.run_now(recover_dead_owners)


def worth_by_scope(journal: Journal) -> dict[str, int]:
    """What the processor time booked in each scope is worth, unconfirmed time included, where its run's spec says."""
    prices = {
        run_id: hour
        for run_id, hour in journal.query(
            "select run_id, json_extract(spec, '$.budget.compute_usd_per_hour') from runs"
        )
        if hour is not None
    }
    if not prices:
        return {}
    found: dict[str, int] = {}
    rows = journal.query(
        "select run_id, scopes, sum(iif(state = 'unknown', reserved_compute_us, coalesce(compute_us, 0)))"
        " from calls group by run_id, scopes"
    )
    for run_id, scopes, used_us in rows:
        for scope in scopes.split("\n") if run_id in prices else ():
            found[scope] = found.get(scope, 0) + used_us * prices[run_id]
    return {scope: -(-total // HOUR_US) for scope, total in found.items()}
