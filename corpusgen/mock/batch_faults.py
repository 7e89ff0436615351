"""Faults that happen to a whole batch; its lines may meet the others."""

from __future__ import annotations

from typing import Final

from corpusgen.mock.kinds import Exchange, Kind


async def _lost(exchange: Exchange) -> None:
    exchange.close()


def _kind(name: str, what: str) -> Kind:
    # The batch's own code looks at the name: what happens takes longer than one exchange.
    return Kind(name=name, what=what, billed=True, act=_lost, place="batch")


LOST: Final = "batch-lost"
INVALID: Final = "batch-invalid"
EXPIRES: Final = "batch-expires"
SLOW: Final = "batch-slow"
CUT: Final = "batch-results-cut"
RESET: Final = "batch-results-reset"
SHORT: Final = "batch-line-missing"
TWICE: Final = "batch-line-twice"
STRAY: Final = "batch-line-stray"
LATE: Final = "batch-listed-late"

BATCHES: Final = (
    _kind(LOST, "a batch accepted and worked on, though its submission is never answered"),
    _kind(INVALID, "a batch that fails its validation"),
    _kind(EXPIRES, "a batch that expires when half of it is done"),
    _kind(SLOW, "a batch that takes twenty times as long"),
    _kind(CUT, "results that end in the middle of a line, with a length that fits"),
    _kind(RESET, "results whose connection is closed half way"),
    _kind(SHORT, "results in which one line is missing"),
    _kind(TWICE, "results in which one line stands twice"),
    _kind(STRAY, "results with a line that nobody asked for"),
    _kind(LATE, "a batch that is in no list before half of its time is over"),
)
