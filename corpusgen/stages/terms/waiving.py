"""Waivers: somebody entitled to accepts what the terms leave open, for a time and with something to show for it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import orjson

from corpusgen.corpus import Corpus, moment
from corpusgen.errors import UsageError
from corpusgen.journal import Transaction
from corpusgen.provenance.events import note_event
from corpusgen.provenance.policy import RULES, Waiver, waiver_problems
from corpusgen.provenance.terms import Registry
from corpusgen.records import Json, canonical_json, digest
from corpusgen.stages.task import Task
from corpusgen.stages.terms.deciding import registry_of, waiver_of


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What somebody wants to waive."""

    terms_ids: tuple[str, ...]
    rules: tuple[str, ...]
    task: str | None
    """A glob over names of tasks; None: any."""
    teacher: str | None
    """A glob over names of teachers; None: any."""
    by: str
    reason: str
    evidence: Path
    until: date


@dataclass(frozen=True, kw_only=True)
class Granted:
    """A waiver of this corpus, and what hangs on it."""

    waiver: Waiver
    ended: str | None
    """When somebody took it back."""
    hangs: tuple[dict[str, Json], ...]
    """Decisions that it lifted something in, the last of each run, stage and subject."""

    def in_force(self, on: date) -> bool:
        """Whether it counts on a day."""
        return self.ended is None and on <= self.waiver.expires

    def to_json(self, on: date) -> dict[str, Json]:
        """The waiver for machines."""
        return waiver_json(self.waiver) | {
            "in_force": self.in_force(on),
            "days_left": (self.waiver.expires - on).days,
            "ended": self.ended,
            "hangs": list(self.hangs),
        }


def grant(corpus: Corpus, asked: Asked, task: Task | None = None, *, by: str | None = None) -> Waiver:
    """Keep a waiver. Raises UsageError with everything that speaks against it; nothing is kept then.

    ``task`` is one whose own terms files count too. ``by`` is who keeps it through a service, in whosever name.
    """
    registry = registry_of(corpus, task)
    waiver = _waiver(asked, registry, corpus.clock().date())
    problems = [*_mistakes(asked), *waiver_problems(registry, waiver, waiver.granted)]
    if problems:
        raise UsageError("this cannot be waived:\n" + "\n".join(f"  {problem}" for problem in problems))
    corpus.journal.run_now(lambda transaction: _keep(transaction, waiver, by))
    return waiver


def _mistakes(asked: Asked) -> Iterator[str]:
    for rule in asked.rules:
        if rule not in RULES:
            yield f"--rule {rule}: there is no such rule; there are {', '.join(RULES)}"
    for option, value in (("--by", asked.by), ("--reason", asked.reason)):
        if not value.strip():
            yield f"{option} is empty; say who answers for it and why"
    for option, glob in (("--task", asked.task), ("--teacher", asked.teacher)):
        if glob is not None and not glob.strip():
            yield f"{option} is empty; name one, or leave the option out for any"


def _waiver(asked: Asked, registry: Registry, on: date) -> Waiver:
    versions = ((name, registry.version_of(name)) for name in sorted(set(asked.terms_ids)))
    fields: dict[str, Any] = {
        "terms_ids": tuple(dict.fromkeys(asked.terms_ids)),
        "rules": tuple(dict.fromkeys(asked.rules)),
        "task": asked.task or "",
        "teacher": asked.teacher or "",
        "granted_by": asked.by,
        "reason": asked.reason,
        "evidence_sha256": file_sha256(asked.evidence, "--evidence"),
        "granted": on,
        "expires": asked.until,
        "versions": tuple((name, version) for name, version in versions if version is not None),
    }
    told = {name: str(value) if isinstance(value, date) else value for name, value in fields.items()}
    return Waiver(waiver_id=f"w-{digest(told)[:12]}", **fields)


def file_sha256(path: Path, option: str) -> str:
    """The digest of a file that somebody shows. Raises UsageError that names the option."""
    try:
        if not path.is_file() and path.exists():  # nobody could show a device or a pipe again
            raise UsageError(f"{option}: {str(path)!r} is no file; name the file to keep")
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
            empty = file.tell() == 0
    except OSError as error:
        raise UsageError(f"{option}: {str(path)!r} cannot be read: {error.strerror}; name the file to keep") from error
    if empty:
        raise UsageError(f"{option}: {str(path)!r} is empty, and shows nothing; name the file that shows it")
    return found


def _keep(transaction: Transaction, waiver: Waiver, by: str | None) -> None:
    known = transaction.execute("select ended_us from waivers where waiver_id = ?", (waiver.waiver_id,)).fetchone()
    if known is not None and known[0] is None:
        return  # said twice, granted once
    transaction.execute(
        "insert or replace into waivers(waiver_id, waiver, granted_us) values(?, ?, ?)",
        (waiver.waiver_id, canonical_json(waiver_json(waiver)).decode(), transaction.now_us),
    )
    note_event(transaction, "waiver_granted", waiver_json(waiver))
    if by is not None:  # beside it: what stands in the ledger as granted is the waiver itself
        told = {"act": "waiver_granted", "by": by, "waiver_id": waiver.waiver_id, "granted_by": waiver.granted_by}
        note_event(transaction, "administered", told)


def waiver_json(waiver: Waiver) -> dict[str, Json]:
    """A waiver as the journal and machines have it."""
    fields = {name: getattr(waiver, name) for name in waiver.__dataclass_fields__}
    days = {name: fields[name].isoformat() for name in ("granted", "expires")}
    lists = {"terms_ids": list(waiver.terms_ids), "rules": list(waiver.rules)}
    return fields | days | lists | {"versions": dict(waiver.versions)}


def end_waiver(corpus: Corpus, waiver_id: str, by: str) -> Waiver:
    """Take a waiver back; decisions made under it stand, new ones go without. Raises UsageError naming those there."""
    found = [one for one in waivers(corpus) if one.waiver.waiver_id == waiver_id]
    if not found or found[0].ended is not None:
        there = ", ".join(one.waiver.waiver_id for one in waivers(corpus) if one.ended is None) or "none"
        state = "was taken back already" if found else "is not known here"
        raise UsageError(f"waiver {waiver_id!r} {state}; in force are: {there}")

    def operation(transaction: Transaction) -> None:
        transaction.execute("update waivers set ended_us = ? where waiver_id = ?", (transaction.now_us, waiver_id))
        note_event(transaction, "waiver_ended", {"waiver_id": waiver_id, "by": by})

    corpus.journal.run_now(operation)
    return found[0].waiver


def waivers(corpus: Corpus) -> tuple[Granted, ...]:
    """Every waiver of this corpus, those that end first before the others."""
    rows = corpus.journal.query("select waiver, ended_us from waivers")
    hanging = _hanging(corpus)
    found = (
        Granted(
            waiver=(one := waiver_of(text)),
            ended=None if ended is None else moment(ended).isoformat(timespec="seconds"),
            hangs=tuple(hanging.get(one.waiver_id, ())),
        )
        for text, ended in rows
    )
    return tuple(sorted(found, key=lambda one: (one.waiver.expires, one.waiver.waiver_id)))


def _hanging(corpus: Corpus) -> dict[str, list[dict[str, Json]]]:
    """By waiver, the last decision about each subject that it lifted something in, and the records of that run."""
    rows = corpus.journal.query(
        "select d.run_id, r.task, d.stage, d.subject, d.outcome, d.decision,"
        " (select count(*) from records where records.run_id = d.run_id) from decisions d left join runs r"
        " using (run_id) where json_array_length(d.decision, '$.waivers') > 0 order by d.decision_id"
    )
    last: dict[tuple[str, str, str, str], dict[str, Json]] = {}
    for run_id, task, stage, subject, outcome, text, records in rows:
        fields = orjson.loads(text)
        told = {"run_id": run_id, "task": task, "stage": stage, "subject": subject, "role": fields["role"]}
        kept = told | {"outcome": outcome, "records": records, "waivers": fields["waivers"]}
        last[run_id, stage, subject, fields["role"]] = kept
    found: dict[str, list[dict[str, Json]]] = {}
    for one in last.values():
        for waiver_id in one.pop("waivers"):
            found.setdefault(waiver_id, []).append(one)
    return found
