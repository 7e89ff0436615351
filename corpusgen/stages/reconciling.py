"""Reconciling: what became of the calls whose outcome nobody knew, by the provider's own figures or a person's word."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import orjson

from corpusgen.budget.amounts import Amounts, money
from corpusgen.budget.ledger import accept_overrun, set_right, stop_teacher
from corpusgen.corpus import Corpus
from corpusgen.errors import UsageError
from corpusgen.journal import Transaction
from corpusgen.provenance.events import note_event
from corpusgen.records import Json, digest
from corpusgen.stages.lineage.attesting import attest
from corpusgen.store.usage_export import Billed, UsageExport

Period = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Call:
    """A call as far as an export can tell of it."""

    call_id: int
    request_key: bytes
    request_id: str | None
    custom_id: str | None
    """Our name for it, where it was asked in a batch."""
    teacher: str
    state: str
    reserved: Amounts
    microusd: int
    reserved_us: int
    closed_us: int

    @property
    def booked(self) -> int:
        """What counts against the caps."""
        return self.reserved.microusd if self.state == "unknown" else self.microusd


@dataclass(frozen=True, kw_only=True)
class Change:
    """What one call turns into."""

    call: Call
    state: Literal["settled", "released"]
    used: Amounts
    request_id: str | None = None


@dataclass(frozen=True, kw_only=True)
class Reconciled:
    """What was done, and what could not be."""

    confirmed: tuple[Change, ...]
    freed: tuple[Change, ...]
    kept: int
    """Calls that stay unconfirmed."""
    unmatched: int
    """Lines of the export that are of no call here."""
    billed_microusd: int
    higher: tuple[Call, ...]
    """Calls that were settled below what the export bills for them."""
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Json]:
        """Figures for machines; money in micro-dollars."""
        return {
            "confirmed": [_told(change) for change in self.confirmed],
            "freed": [_told(change) for change in self.freed],
            "confirmed_microusd": sum(change.used.microusd for change in self.confirmed),
            "freed_microusd": sum(change.call.reserved.microusd - change.used.microusd for change in self._all),
            "still_unconfirmed": self.kept,
            "lines_of_no_call": self.unmatched,
            "billed_microusd": self.billed_microusd,
            "billed_above_settled": [call.call_id for call in self.higher],
            "notes": list(self.notes),
        }

    @property
    def _all(self) -> tuple[Change, ...]:
        return self.confirmed + self.freed


def _told(change: Change) -> dict[str, Json]:
    return {"call_id": change.call.call_id, "microusd": change.used.microusd, "before": change.call.reserved.microusd}


def reconcile(
    corpus: Corpus, export: UsageExport, *, provider: str | None = None, covers: Period | None = None, by: str = ""
) -> Reconciled:
    """Confirm at its figure what a provider billed, and free what it did not, of the calls nobody knew the outcome of.

    Freed is only what was asked within the time that the export covers, what no line left over could be of, and not so
    much that the books would fall below the export's whole bill.
    """
    calls = [call for call in _calls(corpus, provider) if call.state != "promised"]
    matched, left_over = _matched(calls, export.lines)
    confirmed = [_confirmed(call, line) for call, line in matched if call.state == "unknown"]
    higher = tuple(call for call, line in matched if call.state != "unknown" and line.microusd > call.booked)
    period = covers or export.period_us
    freed = _freed(calls, confirmed, matched, left_over, export, period)
    _write(corpus, [*confirmed, *freed], by or corpus.actor, f"usage export {export.name}", export.sha256)
    _stop(
        corpus, [call for call, line in matched if call.state == "settled" and line.microusd > call.reserved.microusd]
    )
    unknown = sum(call.state == "unknown" for call in calls)
    return Reconciled(
        confirmed=tuple(confirmed),
        freed=tuple(freed),
        kept=unknown - len(confirmed) - len(freed),
        unmatched=len(left_over),
        billed_microusd=export.microusd,
        higher=higher,
        notes=(*_notes(period, higher, left_over), *_stopped(corpus, [call.call_id for call, _ in matched])),
    )


def accept(
    corpus: Corpus, call_ids: Sequence[int] | None, *, by: str, reason: str, unbilled: bool = False
) -> Reconciled:
    """Settle unconfirmed calls on a person's word: at their worst case, or as unbilled. None stands for all of them.

    A call above its bound may be among them: what it is booked at stays, and its teacher may be asked again.
    """
    if not by.strip() or not reason.strip():
        raise UsageError("--accept needs --by NAME and --reason TEXT: whose word it is, and on what ground")
    unknown = {call.call_id: call for call in _calls(corpus, None) if call.state == "unknown"}
    over = {} if call_ids is None or unbilled else _overruns(corpus, call_ids)
    wanted = list(unknown) if call_ids is None else [at for at in dict.fromkeys(call_ids) if at not in over]
    if missing := [call_id for call_id in wanted if call_id not in unknown]:
        raise UsageError(f"--accept: {', '.join(map(str, missing))} are not unconfirmed calls of {corpus.folder}")
    changes = [_unbilled(unknown[at]) if unbilled else _worst(unknown[at]) for at in wanted]
    _write(corpus, changes, by.strip(), reason.strip(), None)
    _accept_overruns(corpus, list(over), by.strip(), reason.strip())
    return Reconciled(
        confirmed=() if unbilled else tuple(changes),
        freed=tuple(changes) if unbilled else (),
        kept=len(unknown) - len(changes),
        unmatched=0,
        billed_microusd=0,
        higher=(),
        notes=tuple(
            f"call {call_id} stays booked as it is, and {over[call_id]} may be asked again" for call_id in over
        ),
    )


def _overruns(corpus: Corpus, call_ids: Sequence[int]) -> dict[int, str]:
    """Those of some calls that went above their bound, and whom they were to."""
    rows = corpus.journal.query(
        "select call_id, teacher from calls where state = 'overrun'"
        " or exists (select 1 from meta where name = 'overrun of ' || teacher and value = call_id) order by call_id"
    )
    return {call_id: teacher for call_id, teacher in rows if call_id in set(call_ids)}


def _accept_overruns(corpus: Corpus, call_ids: Sequence[int], by: str, reason: str) -> None:
    def operation(transaction: Transaction) -> None:
        for call_id in call_ids:
            accept_overrun(transaction, call_id)
            transaction.execute(
                "insert into reconciliations(call_id, before, after, microusd_before, microusd, tokens, by, reason,"
                " reconciled_us) select call_id, state, state, microusd, microusd, tokens, ?, ?, ? from calls"
                " where call_id = ?",
                (by, reason, transaction.now_us, call_id),
            )

    if call_ids:
        corpus.journal.run_now(operation)


def _stop(corpus: Corpus, calls: Sequence[Call]) -> None:
    """Let nothing more be asked of whose answered calls were billed above their bound, unless somebody accepted it."""

    def operation(transaction: Transaction) -> None:
        for call in calls:
            sql = "select exists(select 1 from reconciliations where call_id = ?)"
            if not transaction.rows(sql, (call.call_id,))[0][0]:
                stop_teacher(transaction, call.call_id)

    if calls:
        corpus.journal.run_now(operation)


def _calls(corpus: Corpus, provider: str | None) -> list[Call]:
    names = _teachers(corpus, provider)
    rows = corpus.journal.query(
        "select call_id, request_key, provider_request_id, state, reserved_microusd, reserved_tokens,"
        " reserved_requests, reserved_compute_us, coalesce(microusd, 0), reserved_us, coalesce(closed_us, reserved_us),"
        " teacher, batch_id || '-' || batch_line from calls order by call_id"
    )
    return [
        Call(
            call_id=row[0],
            request_key=row[1],
            request_id=row[2],
            custom_id=row[12],
            teacher=row[11],
            state=row[3],
            reserved=Amounts(microusd=row[4], tokens=row[5], requests=row[6], compute_us=row[7]),
            microusd=row[8],
            reserved_us=row[9],
            closed_us=row[10],
        )
        for row in rows
        if names is None or row[11] in names
    ]


def _teachers(corpus: Corpus, provider: str | None) -> set[str] | None:
    """The teachers of a provider. An export of one must not free what was asked of another."""
    of: dict[str, set[str]] = defaultdict(set)
    for (text,) in corpus.journal.query("select card from cards"):
        card = orjson.loads(text)
        of[card["provider"]].add(card["teacher"])
    known = ", ".join(sorted(of)) or "none"
    if provider is not None:
        if provider not in of:
            raise UsageError(f"--provider: nobody called {provider!r} was asked here; there are: {known}")
        return of[provider]
    asked = {row[0] for row in corpus.journal.query("select distinct teacher from calls where state = 'unknown'")}
    if sum(bool(teachers & asked) for teachers in of.values()) > 1:
        raise UsageError(f"several providers were asked here; say with --provider whose export it is: {known}")
    return None


def _matched(calls: Iterable[Call], lines: Iterable[Billed]) -> tuple[list[tuple[Call, Billed]], list[Billed]]:
    """Lines with the call each is of, by the provider's name for the request or by our key; and the lines left over."""
    free = {call.call_id: call for call in calls}
    by_name, by_key = defaultdict[str | None, list[Call]](list), defaultdict[bytes | None, list[Call]](list)
    by_custom_id = {call.custom_id: call for call in free.values() if call.custom_id is not None}
    for call in sorted(free.values(), key=lambda call: call.state == "unknown"):  # a line is of the answer first
        by_name[call.request_id].append(call)
        by_key[call.request_key].append(call)
    matched, left_over = list[tuple[Call, Billed]](), list[Billed]()
    for line in lines:
        named = by_name[line.request_id] if line.request_id is not None else []
        keyed = by_key[line.request_key] if line.request_key is not None else []
        in_batch = [by_custom_id[line.custom_id]] if line.custom_id in by_custom_id else []
        found = next((call for call in [*named, *in_batch, *keyed] if call.call_id in free), None)
        if found is None:
            left_over.append(line)
        else:
            del free[found.call_id]
            matched.append((found, line))
    return matched, left_over


def _freed(
    calls: list[Call],
    confirmed: list[Change],
    matched: list[tuple[Call, Billed]],
    left_over: list[Billed],
    export: UsageExport,
    period: Period | None,
) -> list[Change]:
    if period is None:
        return []
    told = {call.call_id for call, _ in matched}
    within = [call for call in calls if period[0] <= call.reserved_us and call.closed_us <= period[1]]
    figures = {change.call.call_id: change.used.microusd for change in confirmed}
    books = sum(figures.get(call.call_id, call.booked) for call in within)
    outside = {call.call_id for call, _ in matched} - {call.call_id for call in within}
    bill = export.microusd - sum(line.microusd for call, line in matched if call.call_id in outside)
    found = []
    for call in within:
        if call.state != "unknown" or call.call_id in told or any(_may_be(line, call) for line in left_over):
            continue
        if books - call.booked < bill:
            break
        books -= call.booked
        found.append(_unbilled(call))
    return found


def _may_be(line: Billed, call: Call) -> bool:
    """Whether a line that is of no call we can name might be of this one."""
    if line.microusd == 0 or (line.request_id is not None and call.request_id is not None):
        return False
    if line.request_key is not None and line.request_key != call.request_key:
        return False
    if line.custom_id is not None and line.custom_id != call.custom_id:
        return False
    return line.time_us is None or call.reserved_us - SLACK_US <= line.time_us <= call.closed_us + SLACK_US


SLACK_US = 3_600_000_000
"""How far a provider's clock, or its way of noting a time, may be from ours."""


def _confirmed(call: Call, line: Billed) -> Change:
    worst = call.reserved
    tokens = worst.tokens if line.tokens is None else line.tokens
    used = Amounts(microusd=line.microusd, tokens=tokens, requests=worst.requests, compute_us=worst.compute_us)
    return Change(call=call, state="settled", used=used, request_id=line.request_id)


def _worst(call: Call) -> Change:
    return Change(call=call, state="settled", used=call.reserved)


def _unbilled(call: Call) -> Change:
    # It cost nothing, but a request was sent and our own processor may have worked.
    kept = Amounts(requests=call.reserved.requests, compute_us=call.reserved.compute_us)
    return Change(call=call, state="released", used=kept)


def _write(corpus: Corpus, changes: Sequence[Change], by: str, reason: str, source: str | None) -> None:
    def operation(transaction: Transaction) -> None:
        written = [change for change in changes if _write_one(transaction, change, by, reason, source)]
        if written:
            note_event(transaction, "reconciled", _event(written, by, reason, source))

    if changes:
        corpus.journal.run_now(operation)
        attest(corpus)


def _event(changes: Sequence[Change], by: str, reason: str, source: str | None) -> dict[str, Json]:
    settled = [change for change in changes if change.state == "settled"]
    return {
        "confirmed": len(settled),
        "freed": len(changes) - len(settled),
        "microusd_before": sum(change.call.reserved.microusd for change in changes),
        "microusd": sum(change.used.microusd for change in changes),
        "calls_sha256": digest([[change.call.call_id, change.state, change.used.microusd] for change in changes]),
        "by": by,
        "reason": reason,
        "source_sha256": source,
    }


def _write_one(transaction: Transaction, change: Change, by: str, reason: str, source: str | None) -> bool:
    """False where somebody else was faster."""
    call_id = change.call.call_id
    if not set_right(transaction, call_id, change.state, change.used):
        return False
    transaction.execute(
        "update calls set provider_request_id = coalesce(provider_request_id, ?) where call_id = ?",
        (change.request_id, call_id),
    )
    transaction.execute(
        "insert into reconciliations(call_id, before, after, microusd_before, microusd, tokens, by, reason,"
        " source_sha256, reconciled_us) select call_id, 'unknown', state, reserved_microusd, microusd, tokens, ?, ?, ?,"
        " ? from calls where call_id = ?",
        (by, reason, source, transaction.now_us, call_id),
    )
    return True


def _notes(period: Period | None, higher: tuple[Call, ...], left_over: list[Billed]) -> Iterable[str]:
    if period is None:
        yield "nothing is freed: not every line has a time, so say with --covers FROM/TO what the export covers"
    if billed := sum(line.microusd for line in left_over):
        yield (
            f"{len(left_over)} lines bill {money(billed)} for no call that is known here by name; what they might be of"
            " stays unconfirmed"
        )
    if higher:
        yield f"{len(higher)} answers were billed above what their usage said; the books keep what the answers said"


def _stopped(corpus: Corpus, call_ids: Sequence[int]) -> Iterable[str]:
    """Who is asked nothing more, because an export bills one of these calls above its bound."""
    rows = corpus.journal.query(
        "select call_id, teacher from calls join meta on name = 'overrun of ' || teacher and value = call_id"
    )
    for call_id, teacher in rows:
        if call_id in set(call_ids):
            yield (
                f"{teacher} billed more for call {call_id} than was possible by its bound, so nothing more is asked of"
                f" it; see why, then allow it with corpusgen reconcile --accept {call_id} --by NAME --reason TEXT"
            )


def unconfirmed(corpus: Corpus) -> list[dict[str, Json]]:
    """The calls that wait to be reconciled, and what machines elsewhere reported beyond what they were lent."""
    rows = corpus.journal.query(
        "select call_id, run_id, teacher, iif(state = 'unknown', reserved_microusd, microusd), reserved_us,"
        " provider_request_id, error from calls where state = 'unknown' or (state = 'overrun' and role = 'lent'"
        " and not exists (select 1 from reconciliations where reconciliations.call_id = calls.call_id))"
        " order by call_id"
    )
    names = ("call_id", "run_id", "teacher", "microusd", "reserved_us", "provider_request_id", "error")
    return [dict(zip(names, row, strict=True)) for row in rows]
