"""Caps that a person sets on a corpus, a service, a teacher, a user, a token or a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Final

import orjson

from corpusgen.budget.amounts import in_period, period_of, shown, unit_name
from corpusgen.budget.ledger import Cap, ClockReset, balances, remove_caps, reset_clock, set_caps
from corpusgen.corpus import Corpus, microseconds
from corpusgen.errors import UsageError
from corpusgen.fields import Per, Unit
from corpusgen.journal import Transaction
from corpusgen.provenance.events import note_event

KINDS = ("corpus", "service", "teacher:NAME", "user:NAME", "token:ID", "run:ID")
_WHOLE = ("corpus", "service")
_OF_FILE: Final = "caps of file: "
"""Under which name the journal keeps the caps that a service's file sets for a scope, whatever is in force."""


@dataclass(frozen=True, kw_only=True)
class CapsSet:
    """What was set, and what its setter should know."""

    scope: str
    per: Per
    warnings: tuple[str, ...]


def set_budget(
    corpus: Corpus, scope: str, caps: Mapping[Unit, int | None], *, per: Per = "total", by: str | None = None
) -> CapsSet:
    """Put caps in force for a scope; None takes one away. Raises UsageError for a scope that cannot be.

    Where a service's file has a cap, that is in force again in the same moment.
    ``by`` is who does it through a service; that is noted in the ledger of events, with what was there before.
    """
    _check_scope(corpus, scope)
    origin = f"budget set by {by or corpus.actor}"
    wanted = [
        Cap(scope=scope, unit=unit, cap=cap, origin=origin, per=per) for unit, cap in caps.items() if cap is not None
    ]

    again: list[Cap] = []

    def operation(transaction: Transaction) -> None:
        again.clear()
        before = _in_force(transaction, scope, per)
        remove_caps(transaction, scope, caps, per)
        again.extend(_of_file(transaction, scope, per, [unit for unit, cap in caps.items() if cap is None]))
        set_caps(transaction, [*wanted, *again])
        if by is not None:
            told = {"scope": scope, "per": per, "before": before, "after": _in_force(transaction, scope, per)}
            note_event(transaction, "administered", {"act": "budget_set", "by": by, **told})

    corpus.journal.run_now(operation)
    told = [
        f"{unit_name(cap.unit)}: {shown(cap.cap, cap.unit)} hold again, as {cap.origin.rpartition(': ')[0]} says"
        for cap in again
    ]
    return CapsSet(scope=scope, per=per, warnings=(*told, *_warnings(corpus, scope, [*wanted, *again], per)))


def keep_caps_of_file(transaction: Transaction, scope: str, caps: Iterable[Cap]) -> None:
    """Keep what a service's file says of a scope, for when nobody else has set anything any more."""
    kept = orjson.dumps([asdict(cap) for cap in caps]).decode()
    transaction.execute("insert or replace into meta(name, value) values(?, ?)", (_OF_FILE + scope, kept))


def _of_file(transaction: Transaction, scope: str, per: Per, units: Iterable[Unit]) -> list[Cap]:
    rows = transaction.rows("select value from meta where name = ?", (_OF_FILE + scope,))
    caps = [Cap(**one) for one in orjson.loads(rows[0][0])] if rows else []
    return [cap for cap in caps if cap.per == per and cap.unit in units]


def _in_force(transaction: Transaction, scope: str, per: Per) -> dict[str, int]:
    rows = transaction.rows("select unit, cap from caps where scope = ? and per = ? order by unit", (scope, per))
    return {str(unit): int(cap) for unit, cap in rows}


def _check_scope(corpus: Corpus, scope: str) -> None:
    kind, _, name = scope.partition(":")
    fits = scope in _WHOLE if kind in _WHOLE else kind in ("teacher", "user", "token", "run") and bool(name)
    if not fits or not scope.isprintable() or period_of(scope)[1] != "total":
        raise UsageError(f"SCOPE: {scope!r} is not one of {', '.join(KINDS)}")
    if kind == "run" and not corpus.journal.query("select 1 from runs where run_id = ?", (name,)):
        known = ", ".join(f"run:{row[0]}" for row in corpus.journal.query("select run_id from runs order by run_id"))
        raise UsageError(f"SCOPE: no run {name!r} in {corpus.folder}; there are: {known or 'none'}")


def _warnings(corpus: Corpus, scope: str, caps: list[Cap], per: Per) -> list[str]:
    name = in_period(scope, per, microseconds(corpus.clock()))
    used = {at.unit: at.settled + at.unconfirmed for at in balances(corpus.journal, [name])}
    found = [
        f"{unit_name(cap.unit)}: {shown(used.get(cap.unit, 0), cap.unit)} are used already, the cap is now"
        f" {shown(cap.cap, cap.unit)}; nothing more will be sent for {scope}"
        for cap in caps
        if used.get(cap.unit, 0) >= cap.cap
    ]
    if caps and per == "total" and scope.startswith("run:"):
        found.append("this run's next start puts the caps of its spec or of --budget back in force")
    return found


def reset_to_clock(corpus: Corpus, *, by: str, reason: str) -> ClockReset | None:
    """Let days and months go by the clock again, on a person's word; None where they do."""
    if not by.strip() or not reason.strip():
        raise UsageError("reset-clock needs --by NAME and --reason TEXT: whose word it is, and on what ground")
    return corpus.journal.run_now(lambda transaction: reset_clock(transaction, by=by.strip(), reason=reason.strip()))
