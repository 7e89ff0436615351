"""Claims of other machines on requests they are about to ask, in the journal, so that services share them.

A claim is a courtesy between borrowers: whoever comes second waits or asks for the answer. It ends by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from corpusgen.journal import Transaction

_PREFIX = "claim:"


@dataclass(frozen=True, kw_only=True)
class Claims:
    """What became of some keys."""

    claimed: list[str]
    busy: list[str]
    answered: list[str]


def claim(transaction: Transaction, keys: Sequence[str], whose: str, lasting_us: int) -> Claims:
    """Claim requests, unless they have an answer, are asked here, or are somebody else's; one's own are renewed."""
    found = Claims(claimed=[], busy=[], answered=[])
    until_us = transaction.now_us + lasting_us
    transaction.execute(
        "delete from meta where name >= 'claim:' and name < 'claim;' and cast(value as integer) <= ?",
        (transaction.now_us,),
    )
    for key in dict.fromkeys(keys):
        kind = _standing(transaction, key, whose)
        getattr(found, kind).append(key)
        if kind == "claimed":
            transaction.execute(
                "insert or replace into meta(name, value) values(?, ?)", (_PREFIX + key, f"{until_us} {whose}")
            )
    return found


def _standing(transaction: Transaction, key: str, whose: str) -> str:
    raw = bytes.fromhex(key)
    if transaction.rows("select 1 from answers where request_key = ?", (raw,)):
        return "answered"
    if transaction.rows("select 1 from claims where request_key = ?", (raw,)):
        return "busy"
    rows = transaction.rows("select value from meta where name = ?", (_PREFIX + key,))
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
