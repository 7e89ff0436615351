"""The ledger as a file for the books, and whether such a file still says what the journal says."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from itertools import chain, groupby
from pathlib import Path
from typing import Any, Final

from corpusgen.budget.amounts import UNITS, unit_name
from corpusgen.corpus import Corpus, moment
from corpusgen.errors import CorpusDamaged
from corpusgen.journal import storage_errors
from corpusgen.stages.finding import Finding
from corpusgen.store.ledger_file import Cell, Numbered, Row, check_digest, read_ledger, text_of, write_ledger

ENTRIES: Final = ("export", "call", "time", "lease", "balance", "cap")
"""Kinds of rows, in their order in a file."""

_BETWEEN: Final = " | "
_SUMMED: Final = (
    *(f"{kind}_{unit_name(unit)}" for kind in ("settled", "promised", "unconfirmed") for unit in UNITS),
    "settled_wall_s",
)


@dataclass(frozen=True, kw_only=True)
class LedgerExported:
    """What was written."""

    path: Path
    sha256: str
    rows: Mapping[str, int]


def export_ledger(corpus: Corpus, path: Path) -> LedgerExported:
    """Every call, balance and cap in a file whose name says its form (.csv, .jsonl, .parquet), as of one moment."""
    rows = Counter[str]()

    def counted() -> Iterator[Row]:
        for row in _rows(corpus):
            rows[str(row["entry"])] += 1
            yield row

    reader = corpus.journal.reader
    with storage_errors(corpus.journal.path), reader:  # one snapshot, so that the sums are of the calls beside them
        digest = write_ledger(path, counted())
    return LedgerExported(path=path, sha256=digest, rows=dict(rows))


def _rows(corpus: Corpus) -> Iterator[Row]:
    reads = (_export, _calls, _times, _leases, _balances, _caps)
    for entry, read in zip(ENTRIES, reads, strict=True):
        for row in read(corpus):
            yield {"entry": entry, **row}


def _export(corpus: Corpus) -> Iterator[dict[str, Cell]]:
    """When this was exported, from which corpus, and what was the last of each kind then."""
    tables = {"call": "calls", "time": "spans", "lease": "leases"}
    ids = {"call": "call_id", "time": "span_id", "lease": "lease_id"}
    last = {name: _one(corpus, f"select coalesce(max({ids[name]}), 0) from {tables[name]}") for name in tables}  # noqa: S608
    made = int(str(_one(corpus, "select value from meta where name = 'created_us'") or 0))
    yield {
        "began": _time(round(corpus.clock().timestamp() * 1_000_000)),
        "scopes": _BETWEEN.join(f"{name} {number}" for name, number in last.items()),
        "origin": f"corpus made {_time(made)}",
    }


def _one(corpus: Corpus, sql: str) -> Any:
    return corpus.journal.reader.execute(sql).get


_CALLS = (
    "select c.call_id, reserved_us, closed_us, run_id, teacher, role, attempt, state, scopes, reserved_microusd,"
    " reserved_tokens, reserved_requests, reserved_compute_us, c.microusd, c.tokens, c.requests, compute_us,"
    " price_version, lower(hex(request_key)), provider_request_id, error, reconciled_us, by, reason, source_sha256"
    " from calls c left join reconciliations r on reconciliation_id ="
    " (select max(reconciliation_id) from reconciliations where call_id = c.call_id) order by c.call_id"
)


def _calls(corpus: Corpus) -> Iterator[dict[str, Cell]]:
    rows: Iterator[tuple[Any, ...]] = iter(corpus.journal.reader.execute(_CALLS))
    for row in rows:
        reserved, state, scopes = row[9:13], row[7], row[8].split("\n")
        yield {
            "id": row[0],
            "began": _time(row[1]),
            "closed": _time(row[2]),
            "run_id": row[3],
            "teacher": _text(row[4]),
            "user": next((_text(scope[5:]) for scope in scopes if scope.startswith("user:")), None),
            "role": row[5],
            "attempt": row[6],
            "state": state,
            "scopes": _told(scopes),
            **_amounts("reserved", reserved),
            **_amounts("settled", row[13:17]),
            **_amounts("promised", reserved if state == "promised" else ()),
            **_amounts("unconfirmed", reserved if state == "unknown" else ()),
            "price_version": row[17],
            "request_key": row[18],
            "provider_request_id": _text(row[19]),
            "error": _text(row[20]),
            "reconciled": _time(row[21]),
            "reconciled_by": _text(row[22]),
            "reconciled_reason": _text(row[23]),
            "reconciled_source": row[24],
        }


def _times(corpus: Corpus) -> Iterator[dict[str, Cell]]:
    sql = "select span_id, began_us, run_id, scopes, wall_us from spans order by span_id"
    rows: Iterator[tuple[Any, ...]] = iter(corpus.journal.reader.execute(sql))
    for span_id, began, run_id, scopes, wall in rows:
        told = _told(scopes.split("\n"))
        yield {
            "id": span_id,
            "began": _time(began),
            "run_id": run_id,
            "scopes": told,
            "settled_wall_s": _millionths(wall),
        }


def _leases(corpus: Corpus) -> Iterator[dict[str, Cell]]:
    sql = f"select lease_id, granted_us, ended_us, scopes, {', '.join(UNITS)} from leases order by lease_id"  # noqa: S608
    rows: Iterator[tuple[Any, ...]] = iter(corpus.journal.reader.execute(sql))
    for lease_id, granted, ended, scopes, *left in rows:
        yield {
            "id": lease_id,
            "began": _time(granted),
            "closed": _time(ended),
            "state": "open" if ended is None else "over",
            "scopes": _told(scopes.split("\n")),
            **_amounts("promised", left if ended is None else ()),
        }


def _balances(corpus: Corpus) -> Iterator[dict[str, Cell]]:
    sql = "select scope, unit, settled, promised, unconfirmed from balances order by scope, unit"
    rows: Iterator[tuple[Any, ...]] = iter(corpus.journal.reader.execute(sql))
    for scope, units in groupby(rows, key=lambda row: row[0]):
        figures = {name: _cell(name, 0) for name in _SUMMED}
        for _, unit, *three in units:
            for kind, value in zip(("settled", "promised", "unconfirmed"), three, strict=True):
                name = f"{kind}_{unit_name(unit)}"
                if name in figures:
                    figures[name] = _cell(name, value)
        yield {"scopes": _told([scope]), **figures}


def _caps(corpus: Corpus) -> Iterator[dict[str, Cell]]:
    rows: Iterator[tuple[Any, ...]] = iter(
        corpus.journal.reader.execute("select scope, per, unit, cap, origin, set_us from caps")
    )
    for scope, per, unit, cap, origin, set_us in sorted(rows, key=lambda row: (row[0], row[1], unit_name(row[2]))):
        counted = unit in ("tokens", "requests")
        yield {
            "began": _time(set_us),
            "scopes": _told([scope]),
            "per": per,
            "unit": unit_name(unit),
            "cap": _millionths(cap * 1_000_000 if counted else cap),
            "origin": _text(origin),
        }


def _amounts(kind: str, values: Any) -> dict[str, Cell]:
    names = [f"{kind}_{unit_name(unit)}" for unit in UNITS]
    return {name: _cell(name, value or 0) for name, value in zip(names, values or (0,) * len(UNITS), strict=True)}


def _cell(name: str, value: int) -> Cell:
    return _millionths(value) if name.endswith(("_usd", "_s")) else value


def _millionths(value: int) -> Decimal:
    return Decimal(value).scaleb(-6)


def _told(scopes: list[str]) -> str:
    return _BETWEEN.join((_text(scope) or "").replace("|", "¦") for scope in scopes)


def _text(text: str | None) -> str | None:
    """Text on one line, without what steers a terminal or a table."""
    return text and "".join(char if char.isprintable() else " " for char in text)


def _time(us: int | None) -> str | None:
    return None if us is None else moment(us).isoformat(timespec="microseconds").replace("+00:00", "Z")


# --- checking --------------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class LedgerCheck:
    """What is wrong with an exported ledger, and what has gone on since it was exported."""

    findings: list[Finding] = field(default_factory=list)
    since: Counter[str] = field(default_factory=Counter)
    rows: int = 0

    @property
    def notes(self) -> list[str]:
        """What has gone on since, in words."""
        return [f"{what}: {number}" for what, number in sorted(self.since.items())]


def check_ledger(corpus: Corpus, path: Path) -> LedgerCheck:
    """Every difference between an exported ledger and the journal, with its line; what came later is no difference."""
    found = LedgerCheck()
    if problem := check_digest(path):
        found.findings.append(Finding(check="export", subject=path.name, message=problem))
    checker = _Checker(path=path, found=found)
    try:
        reader = corpus.journal.reader
        with storage_errors(corpus.journal.path), reader:
            checker.compare(read_ledger(path), (text_of(row, path) for row in _rows(corpus)))
    except CorpusDamaged as error:
        found.findings.append(Finding(check="export", subject=path.name, message=str(error)))
    except OSError:
        pass  # said already: it has no digest either
    return found


_Key = tuple[int, int, str]


def _key(row: Mapping[str, str]) -> _Key:
    """Where a row stands in a file."""
    entry = ENTRIES.index(row["entry"])
    named = f"{row['scopes']}\n{row['per']}\n{row['unit']}" if row["entry"] in ("balance", "cap") else ""
    return entry, int(row["id"] or 0), named


@dataclass(kw_only=True)
class _Checker:
    path: Path
    found: LedgerCheck
    last: dict[str, int] = field(default_factory=dict)
    sums: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    told: set[str] = field(default_factory=set)

    def compare(self, theirs: Iterator[Numbered], ours: Iterator[Mapping[str, str]]) -> None:
        """Walk through both, which are in the same order."""
        mine = chain(ours, [None])
        row = next(mine)
        before: _Key = (-1, 0, "")
        for number, line in theirs:
            self.found.rows += 1
            try:
                key = _key(line)
                self._add(number, line)
            except (ValueError, InvalidOperation):
                self.say(number, "is not a row of a ledger")
                continue
            if key <= before:
                self.say(number, f"{_name(line)} stands twice or out of order")
                continue
            before = key
            while row is not None and _key(row) < key:
                self._missing(row)
                row = next(mine)
            if row is not None and _key(row) == key:
                self._same(number, line, row)
                row = next(mine)
            else:
                self._surplus(number, line)
        while row is not None:
            self._missing(row)
            row = next(mine)
        for scope in sorted(self.sums.keys() - self.told):
            self.say(None, f"has no balance of {scope}")

    def say(self, number: int | None, words: str) -> None:
        where = "" if number is None else f"{'row' if self.path.suffix == '.parquet' else 'line'} {number}: "
        self.found.findings.append(Finding(check="export", subject=self.path.name, message=f"{where}{words}"))

    def _add(self, number: int, line: Mapping[str, str]) -> None:
        if line["entry"] in ("call", "time", "lease"):
            for scope in line["scopes"].split(_BETWEEN):
                for name in _SUMMED:
                    if value := line[name]:
                        self.sums[scope][name] += _millions(value)
        if line["entry"] == "balance":
            self._balance(number, line)

    def _balance(self, number: int, line: Mapping[str, str]) -> None:
        scope = line["scopes"]
        sums = self.sums[scope]
        self.told.add(scope)
        wrong = [
            f"{name} is {line[name]}, its rows add up to {_millionths(sums[name]).normalize():f}"
            for name in _SUMMED
            if _millions(line[name]) != sums[name]
        ]
        if wrong:
            self.say(number, f"balance of {scope}: {'; '.join(wrong)}")

    def _missing(self, row: Mapping[str, str]) -> None:
        entry = row["entry"]
        if entry in self.last and int(row["id"]) > self.last[entry]:
            self.found.since[_LATER[entry]] += 1
        elif entry in self.last:
            self.say(None, f"has no {_name(row)}, which the journal has")
        elif entry == "cap":
            self.found.since[_CHANGED["cap"]] += 1
        elif entry == "export":
            self.say(None, "has no first row that says when it was exported")

    def _surplus(self, number: int, line: Mapping[str, str]) -> None:
        if line["entry"] == "cap":
            self.found.since[_CHANGED["cap"]] += 1
        elif line["entry"] != "balance":  # which is compared with its rows
            self.say(number, f"{_name(line)} is not in the journal")

    def _same(self, number: int, line: Mapping[str, str], ours: Mapping[str, str]) -> None:
        entry = line["entry"]
        if entry == "export":
            self._of_this_corpus(number, line, ours)
            return
        if entry == "balance":
            return
        differ = [name for name in ours if line[name] != ours[name]]
        if not differ:
            return
        if _went_on(line, ours, differ):
            self.found.since[_CHANGED[entry]] += 1
            return
        words = "; ".join(f"{name} is {line[name]!r}, the journal says {ours[name]!r}" for name in differ[:4])
        self.say(number, f"{_name(line)}: {words}")

    def _of_this_corpus(self, number: int, line: Mapping[str, str], ours: Mapping[str, str]) -> None:
        if line["origin"] != ours["origin"]:
            self.say(number, f"is of another corpus: {line['origin']!r}, this one is {ours['origin']!r}")
        parts = (part.partition(" ") for part in line["scopes"].split(_BETWEEN))
        self.last = {name: int(last) for name, _, last in parts if last.isdecimal()}


_LATER: Final = {"call": "calls since", "time": "stretches of time since", "lease": "leases since"}
_CHANGED: Final = {
    "call": "calls closed, reconciled or counted in another period since",
    "time": "stretches of time grown since",
    "lease": "leases drawn from or ended since",
    "cap": "caps set, changed or taken away since",
}


def _name(row: Mapping[str, str]) -> str:
    if row["entry"] in ("balance", "cap"):
        return f"{row['entry']} of {row['scopes']}"
    return f"{row['entry']} {row['id']}".strip()


def _millions(value: str) -> int:
    return int(Decimal(value or 0).scaleb(6))


def _went_on(line: Mapping[str, str], ours: Mapping[str, str], differ: list[str]) -> bool:
    """Whether what the journal says now can have come of what the file says."""
    allowed: Callable[[str], bool] = _MAY_CHANGE[line["entry"]](line, ours)
    return all(allowed(name) or (name == "scopes" and _grown(line, ours)) for name in differ)


def _grown(line: Mapping[str, str], ours: Mapping[str, str]) -> bool:
    return ours["scopes"].startswith(f"{line['scopes']}{_BETWEEN}")  # a period has got its first cap


def _of_call(line: Mapping[str, str], ours: Mapping[str, str]) -> Callable[[str], bool]:
    closed = line["state"] == "promised" and ours["state"] != "promised"
    reconciled = line["state"] == "unknown" and not line["reconciled"] and bool(ours["reconciled"])
    outcome = ("state", "provider_request_id")
    open_ones = ("closed", "error", "promised_") if closed else ()
    names = (*outcome, "settled_", "unconfirmed_", "reconciled", *open_ones) if closed or reconciled else ()
    return lambda name: name.startswith(names)


def _of_time(line: Mapping[str, str], ours: Mapping[str, str]) -> Callable[[str], bool]:
    longer = _millions(ours["settled_wall_s"]) > _millions(line["settled_wall_s"])
    return lambda name: longer and name == "settled_wall_s"


def _of_lease(line: Mapping[str, str], ours: Mapping[str, str]) -> Callable[[str], bool]:
    less = all(_millions(ours[name]) <= _millions(line[name]) for name in ours if name.startswith("promised_"))
    return lambda name: less and line["state"] == "open" and name.startswith(("promised_", "state", "closed"))


def _of_cap(line: Mapping[str, str], ours: Mapping[str, str]) -> Callable[[str], bool]:
    later = line["began"] != ours["began"]
    return lambda name: later and name in ("began", "cap", "origin")


_MAY_CHANGE: Final = {"call": _of_call, "time": _of_time, "lease": _of_lease, "cap": _of_cap}
