"""Claims of other machines on requests they are about to ask, in the journal, so that services share them.

A claim is a courtesy between borrowers: whoever comes second waits or asks for the answer. It ends by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from corpusgen.journal import Transaction
from corpusgen.serve.statuses import Refused

_PREFIX = "claim:"


@dataclass(frozen=True, kw_only=True)
class Claims:
    """What became of some keys."""

    claimed: list[str]
    busy: list[str]
    answered: list[str]


MOST: Final = 10_000
"""Requests that one token may have claimed at once: a machine claims what it is about to ask, and lets go of it."""


def claim(transaction: Transaction, keys: Sequence[str], whose: str, lasting_us: int) -> Claims:
    """Claim requests, unless they have an answer, are asked here, or are somebody else's; one's own are renewed.

    ``whose`` begins with the token. Raises Refused, having written nothing, where the token has claimed too many.
    """
    found = Claims(claimed=[], busy=[], answered=[])
    for key in dict.fromkeys(keys):
        getattr(found, _standing(transaction, key, whose)).append(key)
    _check_room(transaction, found.claimed, whose)
    transaction.execute(
        "delete from meta where name >= 'claim:' and name < 'claim;' and cast(value as integer) <= ?",
        (transaction.now_us,),
    )
    for key in found.claimed:
        transaction.execute(
            "insert or replace into meta(name, value) values(?, ?)",
            (_PREFIX + key, f"{transaction.now_us + lasting_us} {whose}"),
        )
    return found


def _check_room(transaction: Transaction, keys: Sequence[str], whose: str) -> None:
    token = f"{whose.partition(' ')[0]} "
    held = {row[0] for row in transaction.rows(_HELD, (token, transaction.now_us))}
    if len(held.union(_PREFIX + key for key in keys)) > MOST:
        told = f"this token has {len(held):,} requests claimed, and {MOST:,} is the most; let go of some"
        raise Refused(429, told, headers=_LATER)


_HELD: Final = (
    "select name from meta where name >= 'claim:' and name < 'claim;'"
    " and substr(value || ' ', instr(value, ' ') + 1, length(?1)) = ?1 and cast(value as integer) > ?2"
)
_LATER: Final = {"Retry-After": "5"}


def _standing(transaction: Transaction, key: str, whose: str) -> str:
    raw = bytes.fromhex(key)
    if transaction.rows("select 1 from answers where request_key = ?", (raw,)):
        return "answered"
    if transaction.rows("select 1 from claims where request_key = ?", (raw,)):
        return "busy"
    rows = transaction.rows(
        "select value from meta where name = ? and cast(value as integer) > ?", (_PREFIX + key, transaction.now_us)
    )
    return "busy" if rows and rows[0][0].partition(" ")[2] != whose else "claimed"


def release(transaction: Transaction, keys: Sequence[str], whose: str) -> list[str]:
    """Let go of one's own claims; gives back which of the keys have an answer."""
    for key in keys:
        transaction.execute(
            "delete from meta where name = ? and substr(value, instr(value, ' ') + 1) = ?", (_PREFIX + key, whose)
        )
    return [
        key
        for key in dict.fromkeys(keys)
        if transaction.rows("select 1 from answers where request_key = ?", (bytes.fromhex(key),))
    ]
