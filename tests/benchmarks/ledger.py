"""How many durable reservations a second: ``python tests/benchmarks/ledger.py [--json] [--full]``.

Each reservation is committed with an fsync before it counts, under caps on run, corpus, teacher and user at once.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from corpusgen.budget.amounts import Amounts
from corpusgen.budget.leases import Borrower, Leases
from corpusgen.budget.ledger import Cap, Intent, Ledger
from corpusgen.corpus import Corpus

WAITING = 256
SCOPES = ("run:r", "corpus", "teacher:t", "user:u")
SHARE = 1_000
"""Calls that a lease covers."""


def intent(number: int) -> Intent:
    return Intent(
        run_id="r",
        request_key=number.to_bytes(32, "big"),
        teacher="t",
        role="response:train",
        attempt=1,
        worst=Amounts(microusd=10, tokens=100, requests=1),
        scopes=SCOPES,
        price_version="bench",
    )


async def reserve_many(folder: Path, count: int, waiting: int, *, leased: bool = False) -> float:
    """Reservations a second, with so many coroutines waiting; from leases, or each for itself."""
    with Corpus.open(folder) as corpus:
        ledger = Ledger(corpus.journal)
        await ledger.set_caps(Cap(scope=scope, unit="microusd", cap=10**12, origin="bench") for scope in SCOPES)
        numbers = iter(range(count))
        share = Amounts(microusd=10 * SHARE, tokens=100 * SHARE, requests=SHARE)
        reserve = Borrower(lender=Leases(journal=corpus.journal), share=share).reserve if leased else ledger.reserve

        async def worker() -> None:
            for number in numbers:
                await reserve(intent(number))

        began = time.perf_counter()
        await asyncio.gather(*(worker() for _ in range(waiting)))
        return count / (time.perf_counter() - began)


def one_process(count: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(reserve_many(Path(folder), count, WAITING))


def _child(folder: Path, count: int, leased: bool) -> None:
    asyncio.run(reserve_many(folder, count, WAITING, leased=leased))


def processes(number: int, count: int, *, leased: bool) -> float:
    """Reservations a second of several processes on one corpus together, their start-up included."""
    with tempfile.TemporaryDirectory() as folder:
        Corpus.open(Path(folder)).close()
        given = (Path(folder), count // number, leased)
        children = [multiprocessing.Process(target=_child, args=given) for _ in range(number)]
        began = time.perf_counter()
        for child in children:
            child.start()
        for child in children:
            child.join()
        return count / (time.perf_counter() - began)


def _median(repeats: int, measured: Callable[[], float]) -> int:
    return round(statistics.median(measured() for _ in range(repeats)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--full", action="store_true")
    chosen = parser.parse_args()
    count, repeats = (100_000, 5) if chosen.full else (20_000, 3)
    found = {
        "reservations_per_s": _median(repeats, lambda: one_process(count)),
        "reservations_per_s_4_processes": _median(repeats, lambda: processes(4, count, leased=False)),
        "reservations_per_s_4_processes_leased": _median(repeats, lambda: processes(4, count, leased=True)),
        "waiting": WAITING,
        "scopes": len(SCOPES),
    }
    if chosen.json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            print(f"{name:<38} {value:>12,}")


if __name__ == "__main__":
    main()
