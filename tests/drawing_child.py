"""A process that draws calls from leases until the budget is used up: ``drawing_child.py FOLDER SEED DRAWERS``.

Some calls settle below their promise, some are released, some stay unknown; now and then a lease is given back with
calls still open. Prints how many calls were sent.
"""

from __future__ import annotations

import asyncio
import random
import sys
from functools import partial
from pathlib import Path

from flow_samples import RUN

from corpusgen.budget.amounts import Amounts
from corpusgen.budget.leases import Borrower, Leases
from corpusgen.budget.ledger import Intent, Ledger, Reservation
from corpusgen.corpus import Corpus
from corpusgen.errors import BudgetExhausted
from corpusgen.journal import Transaction

WORST = Amounts(microusd=20_000, tokens=100, requests=1)
SCOPES = (RUN, "corpus", "teacher:t", "user:u")


def intent(key: int) -> Intent:
    return Intent(
        run_id="r1",
        request_key=key.to_bytes(8, "big"),
        teacher="t",
        role="response",
        attempt=1,
        worst=WORST,
        scopes=SCOPES,
        price_version="v",
    )


def close(ledger: Ledger, call: Reservation, choose: random.Random, transaction: Transaction) -> None:
    fate = choose.random()
    if fate < 0.7:
        used = Amounts(microusd=choose.randint(0, 20_000), tokens=choose.randint(0, 100), requests=1)
        ledger.settle(transaction, call, used)
    elif fate < 0.85:
        ledger.unknown(transaction, call, "cut")
    else:
        ledger.release(transaction, call, "refused")


async def draw(corpus: Corpus, seed: int, drawers: int) -> int:
    choose, ledger = random.Random(seed), Ledger(corpus.journal)
    share = Amounts(microusd=200_000, tokens=1_000, requests=10)
    borrower = Borrower(lender=Leases(journal=corpus.journal), share=share, seconds=5)
    sent = 0

    async def one() -> None:
        nonlocal sent
        while True:
            try:
                call = await borrower.reserve(intent(choose.getrandbits(60)))
            except BudgetExhausted:
                return
            sent += 1
            await asyncio.sleep(choose.random() / 500)
            await corpus.journal.run(partial(close, ledger, call, choose))
            if choose.random() < 0.05:
                await borrower.aclose()

    await asyncio.gather(*(one() for _ in range(drawers)))
    await borrower.aclose()
    return sent


if __name__ == "__main__":
    with Corpus.open(Path(sys.argv[1]), new_run_id=lambda: "r1", actor="u") as opened:
        sys.stdout.write(str(asyncio.run(draw(opened, int(sys.argv[2]), int(sys.argv[3])))))
