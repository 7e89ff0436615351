"""Importing: rows from outside become records, with the licence they came under, and nobody was paid for them.

``imported_rights`` and ``imported_sources`` are for whoever seals, trains on or describes a dataset that holds such
records. They stand beside the decisions and sources of the spec: a decision's teacher is the name that the records
have in ``teacher``, its terms set and licence are those in the records, and it is judged by today's policy.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import Final

import orjson

from corpusgen.assemble import RunFacts
from corpusgen.corpus import Corpus, microseconds
from corpusgen.errors import UsageError
from corpusgen.journal import Transaction
from corpusgen.provenance.decisions import Decision, SourceUse, Waiver
from corpusgen.provenance.events import note_event
from corpusgen.provenance.licences import source_bucket
from corpusgen.provenance.policy import decide
from corpusgen.provenance.terms import Registry, TeacherRoute
from corpusgen.records import Json, Request, canonical_json, digest
from corpusgen.spec import Source
from corpusgen.stages.cataloguing import refresh_catalog
from corpusgen.stages.committing import ROWS_PER_SHARD, commit_records
from corpusgen.stages.erasure.erasures import Tombstones, dropping, of_sample
from corpusgen.stages.erasure.erasures import mark as mark_of_name
from corpusgen.stages.imports.admitting import RUN, Looked, nameless, read_as, state_of, told_rows
from corpusgen.stages.imports.ours import content_mark, contents_of
from corpusgen.stages.imports.outside import BadRow, OutsideRow, describe, file_error
from corpusgen.stages.lineage.attesting import attest
from corpusgen.stages.task import Task
from corpusgen.stages.terms.deciding import name_of, rights_of, use_of
from corpusgen.store.answers import Answer, Card, RecordRow, store_answer, store_card, store_record
from corpusgen.store.manifest import read_manifest
from corpusgen.store.shared_cache import NO_CALL
from corpusgen.teachers.imported import NOTHING, PROVIDER, ROUTE, SCHEME, row_body, row_request

STAGE: Final = "import"
_PRICE: Final = "imported"
_ROWS_AT_ONCE: Final = 256
_HEAVIEST: Final = 32_000_000
"""Characters that are held at once, roughly."""


@dataclass(frozen=True, kw_only=True)
class Imported:
    """What an import brought."""

    looked: Looked
    added: int
    """Records that were not there before."""
    erased: int
    """Rows that stay out, because they were erased from this corpus."""

    def to_json(self) -> dict[str, Json]:
        """For machines."""
        return self.looked.to_json() | {"added": self.added, "erased": self.erased}


# --- Taking in -------------------------------------------------------------------------------------------------------


async def import_files(corpus: Corpus, looked: Sequence[Looked], *, cleaned: bool = False) -> list[Imported]:
    """Records of every sound row, in shards when it returns; a file that was imported before adds what is missing.

    Each ten thousand rows are one transaction, so what a killed import left is completed by the next. ``cleaned``: the
    files hold nothing of what was erased from their source, says whoever imports them. Raises UsageError where nobody
    knows that, and where a file was imported with other rights.
    """
    looked = [_after_erasures(corpus, one, cleaned=cleaned) for one in looked]
    for one in looked:
        _check_same(corpus, one)
    made = [await _take_in(corpus, one) for one in looked]
    await commit_records(corpus)
    await asyncio.to_thread(refresh_catalog, corpus, read_manifest(corpus.folder))
    await asyncio.to_thread(attest, corpus)
    return made


def _check_same(corpus: Corpus, looked: Looked) -> None:
    """Raise UsageError where this file was imported as another source, or with other rights: records keep theirs."""
    now = {**_source_json(looked), "notice": looked.outside.notice}
    for known in _facts(corpus):
        before = {**known["source"], "notice": known["notice"]}
        if _is_import(known, looked) and before != now:
            differ = ", ".join(name for name in now if before.get(name) != now[name])
            raise UsageError(
                f"{looked.outside.file}: was imported on {known['imported_time'][:10]} with another {differ}; records"
                f" keep the rights they came with. Erase them (corpusgen erase --source {known['source']['id']}) and"
                " import the file with a new --source-id, or say of it what was said then"
            )


def _is_import(facts: Mapping[str, Json], looked: Looked) -> bool:
    """Whether a file is an import that there is: it is known by its bytes, or its rows were looked at."""
    return facts["import_id"] == looked.import_id or read_as(facts) == read_as(looked.to_json())


def _after_erasures(corpus: Corpus, looked: Looked, *, cleaned: bool) -> Looked:
    """The file as the import that it was, where an erasure has taken rows of that one, and its digest.

    Nothing is kept that a row without an id could be known by, so whatever else may hold such a row is refused.
    """
    source, tombstones = looked.outside.source.id, Tombstones.of(corpus.journal)
    if not tombstones or tombstones.mark_of(source) or any(_is_import(one, looked) for one in _facts(corpus)):
        return looked
    touched = [one for one in _facts(corpus) if one["source"]["id"] == source and one.get("touched")]
    for one in () if cleaned else touched:
        if read_as(one)[1:] == read_as(looked.to_json())[1:] and _has_its_rows(corpus, looked, one):
            return replace(looked, import_id=one["import_id"])
    if not cleaned and any(one["touched"]["unnamed"] for one in touched) and _has_unnamed(looked):
        raise UsageError(
            f"{looked.outside.file}: rows without an id were erased from source {source!r}, nothing is kept that they"
            " could be known by, and this is not the file that they stood in; nothing was imported. Take them out of"
            " the file and say --cleaned, or give its rows ids (--columns id=…) and a --source-id of its own"
        )
    return looked


def _has_its_rows(corpus: Corpus, looked: Looked, facts: Mapping[str, Json]) -> bool:
    """Whether a file has as many rows as an import had, and each that is left in its place."""
    left = dict(contents_of(corpus, facts["run_id"]))
    if not left or looked.rows + looked.bad != facts["touched"]["rows"]:
        return False
    for row in told_rows(looked.outside, looked.columns, looked.labels):
        if (mark := left.pop(row.number, None)) is not None and (isinstance(row, BadRow) or mark != _content(row)):
            return False
    return not left


def _content(row: OutsideRow) -> int:
    return content_mark(((turn.role, turn.content) for turn in row.messages), row.text)


def _has_unnamed(looked: Looked) -> bool:
    rows = told_rows(looked.outside, looked.columns, looked.labels)
    return any(isinstance(row, OutsideRow) and row.name is None for row in rows)


def _facts(corpus: Corpus) -> list[dict[str, Json]]:
    rows = corpus.journal.query("select facts from imports order by imported_us, import_id")
    return [orjson.loads(row[0]) for row in rows]


def _source_json(looked: Looked) -> dict[str, Json]:
    """The source as it is kept; the text of its notice stands beside it, as the file may go."""
    found: dict[str, Json] = looked.outside.source.model_dump(mode="json", exclude={"notice"})
    return found


async def _take_in(corpus: Corpus, looked: Looked) -> Imported:
    facts = await corpus.journal.run(partial(_begin, corpus=corpus, looked=looked))
    looked = replace(looked, import_id=facts["import_id"])
    card, added, erased = card_of_import(looked), 0, 0
    portions = _portions(looked)
    while (rows := await asyncio.to_thread(next, portions, None)) is not None:
        _check_unchanged(looked)
        # All rows of a portion are in hand: the operation may be applied twice, if a neighbour of it breaks.
        write = partial(_write, looked=looked, rows=rows, card=card, at_us=facts["imported_us"])
        more, gone = await corpus.journal.run(write)
        added, erased = added + more, erased + gone
    await corpus.journal.run(partial(_finish, looked=looked, added=added))
    return Imported(looked=looked, added=added, erased=erased)


def _portions(looked: Looked) -> Iterator[list[OutsideRow | BadRow]]:
    """The rows of a file, as many at once as go into one shard, or weigh as much as may be held in memory."""
    portion, weight, shard = list[OutsideRow | BadRow](), 0, 0
    for row in told_rows(looked.outside, looked.columns, looked.labels):
        if portion and ((row.number - 1) // ROWS_PER_SHARD != shard or weight > _HEAVIEST):
            yield portion
            portion, weight = [], 0
        shard = (row.number - 1) // ROWS_PER_SHARD
        weight += len(row.text) + sum(len(turn.content) for turn in row.messages) if isinstance(row, OutsideRow) else 0
        portion.append(row)
    if portion:
        yield portion


def _check_unchanged(looked: Looked) -> None:
    if state_of(looked.outside.file) != looked.state:
        raise file_error(looked.outside.file, "was changed while it was imported; import it again")


def card_of_import(looked: Looked) -> Card:
    """Who an import's records name in a teacher's place."""
    return Card(
        teacher=f"{SCHEME}{looked.short}",
        provider=PROVIDER,
        model=looked.short,
        route=ROUTE,
        host="",
        identity=looked.identity,
        revision="",
        terms_set_id=looked.rights.terms_set_id,
        terms_ids=looked.rights.terms_ids,
        outputs_train=looked.rights.outputs_train,
    )


def _facts_now(looked: Looked) -> dict[str, Json]:
    """What is known of an import before it has begun."""
    return looked.to_json() | {
        "source": _source_json(looked),
        "notice": looked.outside.notice,
        "file": looked.outside.file.name,
        "size_bytes": looked.state[1],
        "terms_ids": list(looked.rights.terms_ids),
        "outputs_train": looked.rights.outputs_train,
        "rows": 0,
        "skipped": 0,
    }


def _begin(transaction: Transaction, corpus: Corpus, looked: Looked) -> dict[str, Json]:
    """Note the import and its run, unless they are there; gives back what is known of the import."""
    rows = transaction.rows("select facts from imports where dataset = ?", (looked.outside.dataset,))
    if known := next((one for one in (orjson.loads(row[0]) for row in rows) if _is_import(one, looked)), None):
        looked = replace(looked, import_id=known["import_id"])
    now = corpus.clock()
    facts = _facts_now(looked) | {
        "imported_time": now.isoformat(),
        "imported_us": microseconds(now),
        "by": corpus.actor,
    }
    sql = "insert into imports(import_id, dataset, facts, imported_us) values(?, ?, ?, ?) on conflict do nothing"
    written = canonical_json(facts).decode()
    transaction.execute(sql, (looked.import_id, looked.outside.dataset, written, transaction.now_us))
    store_card(transaction, card_of_import(looked))
    transaction.execute(
        "insert into runs(run_id, task, spec_digest, spec, facts, status, started_us) values(?, ?, ?, ?, ?, 'open', ?)"
        " on conflict do update set status = 'open'",
        (
            f"{RUN}{looked.short}",
            looked.outside.dataset,
            looked.import_id,
            _spec(looked),
            _run_facts(looked).to_json(),
            transaction.now_us,
        ),
    )
    kept = transaction.rows("select facts from imports where import_id = ?", (looked.import_id,))
    found: dict[str, Json] = orjson.loads(kept[0][0])
    return found


def _spec(looked: Looked) -> str:
    """What stands in the place of a spec: no teacher is asked, and nobody says what the student is for."""
    return canonical_json(
        {
            "name": looked.outside.dataset,
            "kind": "label" if looked.columns.labelled else "response",
            "import": looked.import_id,
            "sources": [_source_json(looked)],
            "teachers": [],
        }
    ).decode()


def _run_facts(looked: Looked) -> RunFacts:
    return RunFacts(
        run_id=f"{RUN}{looked.short}",
        task=looked.outside.dataset,
        kind="label" if looked.columns.labelled else "response",
        spec_digest=looked.import_id,
        prompt_digest=digest(dict(looked.columns.of)),
        licence_expression=looked.rights.licence_expression,
        label_names=looked.labels or None,
        first_tokens=None,
    )


def _write(
    transaction: Transaction, looked: Looked, rows: Sequence[OutsideRow | BadRow], card: Card, at_us: int
) -> tuple[int, int]:
    """Add what is missing of these rows; how many records that is, and how many rows stay out as erased."""
    added = gone = 0
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        more, out = _write_some(transaction, looked, rows[start : start + _ROWS_AT_ONCE], card, at_us)
        added, gone = added + more, gone + out
    return added, gone


def _write_some(
    transaction: Transaction, looked: Looked, rows: Sequence[OutsideRow | BadRow], card: Card, at_us: int
) -> tuple[int, int]:
    sound, tombstones = dict(_named(looked, rows)), Tombstones.read(transaction.rows)
    known = _known(transaction, sound)
    erased = {
        name: mark for name, (row, _) in sound.items() if tombstones and (mark := _erased(tombstones, looked, row))
    }
    for name, (row, request) in sound.items():
        if name not in known and name not in erased:
            store_answer(transaction, request, _answer(row, request.key, card, at_us), NO_CALL)
            store_record(transaction, _record_row(looked, row, name, request.key))
    _note_bad(transaction, looked, rows)
    dropping(f"{RUN}{looked.short}", {(looked.outside.split, mark) for mark in erased.values()})(transaction)
    return len(sound.keys() - known - erased.keys()), len(erased)


def _erased(tombstones: Tombstones, looked: Looked, row: OutsideRow) -> bytes | None:
    """The tombstone over a row: its item was erased, or its record."""
    name = f"{looked.outside.source.id}#{row_name(looked, row)}"
    alone = mark_of_name(tombstones.salt, of_sample(looked.outside.dataset, name, 0))
    return tombstones.mark_of(name) or (alone if alone in tombstones.marks else None)


def _named(looked: Looked, rows: Iterable[OutsideRow | BadRow]) -> Iterator[tuple[bytes, tuple[OutsideRow, Request]]]:
    """The sound rows by the ids of their records, with their requests."""
    split = looked.outside.split.encode()
    for row in rows:
        if isinstance(row, OutsideRow):
            request = row_request(looked.identity, looked.short, row.messages, row.number)
            yield hashlib.sha256(split + request.key).digest(), (row, request)


def _known(transaction: Transaction, names: Iterable[bytes]) -> set[bytes]:
    wanted = tuple(names)
    marks = ",".join("?" * len(wanted))
    rows = transaction.rows(f"select record_id from records where record_id in ({marks})", wanted)  # noqa: S608 - own
    return {row[0] for row in rows}


def _answer(row: OutsideRow, request_key: bytes, card: Card, at_us: int) -> Answer:
    return Answer(
        request_key=request_key,
        card_id=card.card_id,
        usage=NOTHING,
        cost_microusd=0,
        price_version=_PRICE,
        provider_request_id=None,
        sent_us=at_us,
        received_us=at_us,
        compute_us=None,
        body=row_body(row.text, row.reasoning),
    )


def _record_row(looked: Looked, row: OutsideRow, name: bytes, request_key: bytes) -> RecordRow:
    item_id = row_name(looked, row)
    return RecordRow(
        record_id=name.hex(),
        run_id=f"{RUN}{looked.short}",
        dataset=looked.outside.dataset,
        split=looked.outside.split,
        ordinal=row.number - 1,
        item_id=item_id,
        request_key=request_key,
        first_key=request_key,
        from_cache=False,
        item={
            "input": row.input,
            "source_ids": [f"{looked.outside.source.id}#{item_id}"],
            "sample_index": 0,
            "role": None,  # nobody was asked, so no teacher has a part in it
        },
    )


def row_name(looked: Looked, row: OutsideRow | BadRow) -> str:
    """What a row is called: by its id, else by its place, with the import's id as there may be other files."""
    named = row.name if isinstance(row, OutsideRow) else None
    return f"{nameless(looked.import_id)}{row.number}" if named is None else named


def _note_bad(transaction: Transaction, looked: Looked, rows: Iterable[OutsideRow | BadRow]) -> None:
    """Note what is not imported, and why; told by its place, as a bad row may have no id."""
    sql = "insert or replace into drops(run_id, stage, item_id, reason, detail) values(?, ?, ?, ?, ?)"
    file = Path(looked.outside.file.name)
    for row in rows:
        if isinstance(row, BadRow):
            named = f"{looked.outside.split}:row {row.number}"
            transaction.execute(sql, (f"{RUN}{looked.short}", STAGE, named, "bad row", str(describe(file, row))))


def _finish(transaction: Transaction, looked: Looked, added: int) -> None:
    """Note that all of it is there; an import that added nothing is no event."""
    run_id = f"{RUN}{looked.short}"
    done = transaction.rows("select status, ended_us from runs where run_id = ?", (run_id,))
    transaction.execute(
        "update runs set status = 'complete', ended_us = coalesce(ended_us, ?) where run_id = ?",
        (transaction.now_us, run_id),
    )
    if not added and done[0][1] is not None:
        return
    rows = transaction.rows("select count(*) from records where run_id = ?", (run_id,))[0][0]
    kept = transaction.rows("select facts from imports where import_id = ?", (looked.import_id,))[0][0]
    facts = orjson.loads(kept) | {"rows": rows, "skipped": looked.bad}
    transaction.execute(
        "update imports set facts = ? where import_id = ?", (canonical_json(facts).decode(), looked.import_id)
    )
    told = ("import_id", "dataset", "split", "sha256", "rows", "skipped", "terms_set_id", "licence_expression", "by")
    source = {"source_id": facts["source"]["id"], "generated_by": facts["source"]["generated_by"]}
    note_event(transaction, "imported", {name: facts[name] for name in told} | source)


# --- What imported records may be used for ---------------------------------------------------------------------------


def imports_in(corpus: Corpus, teachers: Iterable[str]) -> list[dict[str, Json]]:
    """The facts of those imports whose records name one of these in a teacher's place, oldest first."""
    wanted = {name for name in teachers if name.startswith(SCHEME)}
    if not wanted:
        return []
    return [facts for facts in _facts(corpus) if facts["teacher"] in wanted]


def imported_rights(
    corpus: Corpus, task: Task, counts: Mapping[str, Mapping[str, int]], on: date
) -> tuple[Decision, ...]:
    """What today's terms say of the imported records in a dataset, one decision for each import among its teachers.

    ``counts`` are those of ``provenance.seal.survey``. Each is judged by the licence of its source and by the terms its
    writers were under, for the student that the task's spec is about.
    """
    found = imports_in(corpus, counts["teacher"])
    if not found:
        return ()
    rights = rights_of(corpus, task)
    return tuple(_judged(rights.registry, rights.waivers, task, facts, on) for facts in found)


def _judged(registry: Registry, waivers: Sequence[Waiver], task: Task, facts: Mapping[str, Json], on: date) -> Decision:
    source = source_of(facts)
    # Nothing of it is sent to anybody, so where it may be sent is no question.
    about = SourceUse(source_id=source.id, licence=source.licence, generated_by=source.generated_by)
    use = replace(use_of(task), personal_data=(), egress="any")
    route = TeacherRoute(name=facts["teacher"], provider=PROVIDER, model=facts["run_id"], route=ROUTE)
    decision = decide(registry, route, use, on=on, sources=(about,), waivers=waivers, task=name_of(task))
    # The records keep what they came with; what is made of it today is in the outcome, the reasons and the duties.
    return replace(
        decision,
        terms_set_id=facts["terms_set_id"],
        terms_ids=tuple(facts["terms_ids"]),
        licence_expression=facts["licence_expression"],
        outputs_train=facts["outputs_train"],
        bucket=source_bucket(registry, (about,)),
    )


def source_of(facts: Mapping[str, Json]) -> Source:
    """The source of an import."""
    return Source.model_validate_json(orjson.dumps(facts["source"]))


@dataclass(frozen=True, kw_only=True)
class ImportedSource:
    """A source from outside, for a dataset's card."""

    source: Source
    notice: str | None
    """The text that must go along with every copy."""


def imported_sources(corpus: Corpus, teachers: Iterable[str]) -> tuple[ImportedSource, ...]:
    """The sources of those imports whose records name one of these in a teacher's place, each once."""
    found = {
        facts["source"]["id"]: ImportedSource(source=source_of(facts), notice=facts["notice"])
        for facts in imports_in(corpus, teachers)
    }
    return tuple(found.values())
