"""What an erasure reaches: the records it is about, what was made from them, and wherever either is kept."""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import apsw
import orjson
import zstandard

from corpusgen.corpus import Corpus, moment
from corpusgen.curation.occurrence import Occurrence
from corpusgen.errors import CorpusDamaged, UsageError
from corpusgen.journal import storage_errors
from corpusgen.prompting.prompts import SPLITS
from corpusgen.records import Json
from corpusgen.stages.erasure.beside import LONG_ENOUGH, Needles, NotLookedInto, holds, ours
from corpusgen.stages.erasure.erasures import Tombstones
from corpusgen.stages.erasure.seeded import EXAMPLES, seeded
from corpusgen.stages.judges import judgement_in
from corpusgen.stages.runs import JUDGES
from corpusgen.stages.selecting import Selection, selections
from corpusgen.store.answers import Card, expander
from corpusgen.store.shards import read_records

Kind = Literal["source", "record", "subject"]
NOTHING: Final = zstandard.ZstdCompressor(level=1).compress(b"")
"""What stands for an answer of which only the cost is kept."""
MOST_TEXTS: Final = 20_000
"""Records up to which files of others are looked through for their texts; beyond, for their ids, which exports have."""
_HEX: Final = re.compile(r"[0-9a-f]{64}")
_PREFIX: Final = re.compile(r"[0-9a-f]{8,64}")


@dataclass(frozen=True, kw_only=True)
class Selector:
    """What is to be erased: a source or one item of it, records, or everything that holds a text."""

    kind: Kind
    values: tuple[str, ...]

    def to_json(self) -> dict[str, Json]:
        """For the journal, until it has been cut out of it."""
        return {"kind": self.kind, "values": list(self.values)}

    @property
    def subject(self) -> Occurrence | None:
        """The text that is looked for, if one is."""
        return Occurrence.of(self.values[0]) if self.kind == "subject" else None

    def is_of_source(self, name: str) -> bool:
        """Whether an item, ``source#id``, is of the source that is to be erased."""
        return self.kind == "source" and (name == self.values[0] or name.startswith(f"{self.values[0]}#"))


@dataclass(frozen=True, kw_only=True)
class Doomed:
    """A record that is to be erased, as far as others are found by it."""

    run_id: str
    dataset: str
    split: str
    item_id: str
    name: str
    """Source and item, ``source#id``."""
    sample: int
    input: str
    shard: str | None


@dataclass(kw_only=True)
class Reach:
    """Everything that an erasure is about."""

    selector: Selector
    records: dict[bytes, Doomed] = field(default_factory=dict)
    keys: set[bytes] = field(default_factory=set)
    """Requests whose question or answer goes."""
    failed: set[bytes] = field(default_factory=set)
    """Requests of which nothing is kept but what their calls came to; their keys are digests of their texts."""
    called: set[bytes] = field(default_factory=set)
    """Those that callers of the service asked, which nobody asks again: the same record would come back."""
    unanswered: set[bytes] = field(default_factory=set)
    """Those of them that were surely about it."""
    answers: int = 0
    texts: int = 0
    """Rows of other tables in which the text was found."""
    asked_names: set[str] = field(default_factory=set)
    """Items of which at least one record goes, ``source#id``."""
    names_left: set[str] = field(default_factory=set)
    """Those of them of which another record stays."""
    repeats: set[str] = field(default_factory=set)
    """Items that were dropped for saying, or nearly saying, what an erased one says, and those dropped for these."""
    buried: set[str] = field(default_factory=set)
    """Items and worked examples that hold the text as well, ``source#id``, and are not asked about again."""
    runs: set[str] = field(default_factory=set)
    shards: list[str] = field(default_factory=list)
    datasets: list[Selection] = field(default_factory=list)
    rows: dict[str, int] = field(default_factory=dict)
    """Rows that go from each of them."""
    students: list[str] = field(default_factory=list)
    released: list[str] = field(default_factory=list)
    exports: list[dict[str, Json]] = field(default_factory=list)
    """Copies of the datasets that have gone out, as far as the ledger tells."""
    files: list[str] = field(default_factory=list)
    """Files below the corpus that hold it and are nobody's to keep, from the corpus folder."""
    kept: list[dict[str, Json]] = field(default_factory=list)
    """Where it stands and is told, not erased: a spec says what a run was, and cannot be another one."""
    provider_copies: list[dict[str, Json]] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        """Whether nothing of it is here."""
        return not (self.records or self.keys or self.texts or self.files or self.repeats or self.buried)

    def holds(self, record_id: str) -> bool:
        """Whether a record is among them."""
        return bytes.fromhex(record_id) in self.records


def reach(corpus: Corpus, selector: Selector) -> Reach:
    """Everything that an erasure would take. Reads, and changes nothing.

    Raises UsageError for a record that is not here, CorpusDamaged where a dataset cannot be read.
    """
    found = Reach(selector=selector)
    _check(corpus, selector)
    closing = _Closing(corpus=corpus, found=found)
    closing.close()
    hits: list[Found] = []
    if selector.subject is not None:
        with storage_errors(corpus.journal.path):
            hits = list(hits_in(corpus.journal.reader, selector.subject))
        found.texts = len(hits)
        found.kept += _told_in_tables(corpus, selector.subject)
    _find_runs(corpus, found, hits)
    _find_unlinked(corpus, found, _quoted(corpus, hits))
    _find_called(corpus, found)
    if selector.kind == "source":
        found.texts = _notes_of_source(corpus, selector)
    if selector.subject is not None:
        _find_seeded(corpus, found, selector.subject, closing.shown)
    _find_repeats(corpus, found)
    _leave_buried(corpus, found)
    found.shards = sorted({one.shard for one in found.records.values() if one.shard is not None})
    _find_datasets(corpus, found)
    _find_students(corpus, found)
    found.exports = list(_exports(corpus, {one.label for one in found.datasets}))
    found.provider_copies = list(_provider_copies(corpus, found))
    found.files = sorted(_files_that_hold(corpus, found))
    return found


def _check(corpus: Corpus, selector: Selector) -> None:
    for value in selector.values:
        if not value.strip():
            raise UsageError(f"--{selector.kind} is empty; say what is to be erased")
        if selector.kind == "record" and not _PREFIX.fullmatch(value):
            raise UsageError(f"--record {value!r} is no record id; write its 64 hexadecimal digits, or at least 8")


# --- records ----------------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class _Closing:
    """Finds the records, then those made from them or asked together with them, until there are no more."""

    corpus: Corpus
    found: Reach
    hit: set[bytes] = field(default_factory=set)
    """Requests in whose question or answer the text occurs."""
    asked: set[bytes] = field(default_factory=set)
    """Those of them in whose question it does."""
    shown: set[str] = field(default_factory=set)
    """Worked examples that every one of their questions holds the text with, and not every item by itself."""

    def close(self) -> None:
        subject = self.found.selector.subject
        if subject is not None:
            self.asked = set(_asked_requests(self.corpus, subject))
            self.hit = self.asked | set(_answered_requests(self.corpus, subject))
            self.found.keys |= self.hit
            self.shown = set(self._find_shown(subject))
        self._add(self._is_root)
        if self.found.selector.kind == "record":
            self._check_found()
        while self._add(self._follows):
            pass

    def _add(self, wanted: Callable[[_Row], bool]) -> int:
        before = len(self.found.records)
        for row in _rows(self.corpus):
            if row.record_id not in self.found.records and wanted(row):
                self.found.records[row.record_id] = row.doomed()
                self.found.keys.update(row.keys)
        return len(self.found.records) - before

    def _is_root(self, row: _Row) -> bool:
        selector = self.found.selector
        if selector.kind == "source":
            return any(map(selector.is_of_source, row.source_ids))
        if selector.kind == "record":
            return any(row.record_id.hex().startswith(value) for value in selector.values)
        assert selector.subject is not None
        if not self.hit.isdisjoint(row.keys):
            return True
        return any(map(selector.subject.is_in, (row.item_id, row.written)))

    def _find_shown(self, subject: Occurrence) -> Iterator[str]:
        """An example stands in every question of its run, so that a text which does not is no example's."""
        by_itself: dict[tuple[str, ...], bool] = {}
        without = set[tuple[str, ...]]()
        for row in _rows(self.corpus) if self.asked else ():
            place = (row.run_id, *row.source_ids[1:])
            if JUDGES in row.run_id or place in without or len(place) == 1:
                continue
            if row.keys[1] not in self.asked:
                without.add(place)
            else:
                by_itself[place] = by_itself.get(place, True) and any(
                    map(subject.is_in, (row.item_id, row.item["input"]))
                )
        for (_, *examples), alone in by_itself.items():
            if not alone and (_, *examples) not in without:
                yield from examples

    def _follows(self, row: _Row) -> bool:
        # One reply may hold the answers of several records, and one question be asked for several: the same text.
        if not self.found.keys.isdisjoint(row.keys):
            return True
        return any(parent in self.found.records for parent in row.parents)

    def _check_found(self) -> None:
        for value in self.found.selector.values:
            matches = [name for name in self.found.records if name.hex().startswith(value)]
            if len(matches) != 1:
                many = "no record" if not matches else f"{len(matches)} records"
                raise UsageError(f"--record {value}: {many} of that id; write all 64 digits of one that is here")
        self.found.selector = Selector(kind="record", values=tuple(name.hex() for name in self.found.records))


@dataclass(frozen=True, kw_only=True)
class _Row:
    record_id: bytes
    run_id: str
    dataset: str
    split: str
    item_id: str
    keys: tuple[bytes, ...]
    written: str
    item: Mapping[str, Json]
    shard: str | None

    @property
    def source_ids(self) -> list[str]:
        return list(self.item["source_ids"])

    @property
    def parents(self) -> Iterator[bytes]:
        """What it was made from: a judgement's item is the record it is about."""
        for name in (self.item_id, *self.item.get("parent_ids", ())):
            if _HEX.fullmatch(name):
                yield bytes.fromhex(name)

    def doomed(self) -> Doomed:
        return Doomed(
            run_id=self.run_id,
            dataset=self.dataset,
            split=self.split,
            item_id=self.item_id,
            name=self.source_ids[0] if self.source_ids else "",
            sample=self.item["sample_index"],
            input=self.item["input"],
            shard=self.shard,
        )


def _rows(corpus: Corpus) -> Iterator[_Row]:
    sql = "select record_id, run_id, dataset, split, item_id, request_key, first_key, item, shard from records"
    for row in _each(corpus, sql):
        item = orjson.loads(row[7])
        between = tuple(map(bytes.fromhex, item.get("between", ())))
        yield _Row(
            record_id=row[0],
            run_id=row[1],
            dataset=row[2],
            split=row[3],
            item_id=row[4],
            keys=(row[5], row[6], *between),
            written=row[7],
            item=item,
            shard=row[8],
        )


def _each(corpus: Corpus, sql: str, values: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Row by row: bodies are large."""
    with storage_errors(corpus.journal.path):
        yield from corpus.journal.reader.execute(sql, values)


# --- requests ---------------------------------------------------------------------------------------------------------


def _asked_requests(corpus: Corpus, subject: Occurrence) -> Iterator[bytes]:
    """Requests in whose question the text occurs."""
    expand = expander()
    for key, body in _each(corpus, "select request_key, body from requests"):
        if subject.is_in_bytes(expand(body)):
            yield key


def _answered_requests(corpus: Corpus, subject: Occurrence) -> Iterator[bytes]:
    """Requests in whose answer the text occurs, and calls that brought it instead of an answer."""
    expand = expander()
    for key, body in _each(corpus, "select request_key, body from answers"):
        if subject.is_in_bytes(expand(body)):
            yield key
    for key, body in _each(corpus, "select request_key, body from unreadable join calls using (call_id)"):
        if subject.is_in_bytes(unreadable_text(body)):
            yield key


def unreadable_text(body: bytes) -> bytes:
    """What came instead of an answer."""
    try:
        return zlib.decompress(body)
    except zlib.error:
        return body


def _find_runs(corpus: Corpus, found: Reach, hits: Iterable[Found]) -> None:
    """The runs that made or used the records or asked about what they are of, their judges, and the items that go."""
    for one in found.records.values():
        found.runs |= {one.run_id, one.run_id.partition(JUDGES)[0]}
        if one.name:
            found.asked_names.add(one.name)
    for run_id, record_id in _each(corpus, "select run_id, record_id from reuses"):
        if record_id in found.records:
            found.runs.add(run_id)
    if found.selector.kind == "source":
        found.runs |= {run_id for run_id, splits in _splits_of_source(corpus, found.selector) if splits}
    sources = {name.partition("#")[0] for name in found.asked_names}
    specs = list(_each(corpus, _SPECS))
    found.runs |= {run_id for run_id, text in specs if sources & _sources_in(orjson.loads(text))}
    found.runs |= set(_runs_of_hits(corpus, hits))
    # A judge may have failed at an answer, and then there is no judgement that would lead to its run.
    found.runs |= {run_id for run_id, _ in specs if JUDGES in run_id and run_id.partition(JUDGES)[0] in found.runs}


def _sources_in(spec: Mapping[str, Json]) -> set[str]:
    """What the questions of a run were made from, worked examples included."""
    seeds = spec.get("seeds") or {}
    parts = [*(seeds.get(split) for split in SPLITS), spec.get("examples")]
    return {part["source"] for part in parts if part}


def _runs_of_hits(corpus: Corpus, hits: Iterable[Found]) -> Iterator[str]:
    """Runs whose failures and drops quote the text."""
    calls = set[int]()
    for hit in hits:
        if hit.table in ("drops", "remarks"):
            yield hit.key[0]
        elif hit.table == "calls":
            calls.add(hit.key[0])
    for call_id, run_id in _each(corpus, "select call_id, run_id from calls") if calls else ():
        if call_id in calls:
            yield run_id


def _splits_of_source(corpus: Corpus, selector: Selector) -> Iterator[tuple[str, set[str]]]:
    """Of which splits of which runs all questions were made from a source."""
    for run_id, text in _each(corpus, _SPECS):
        yield run_id, splits_of_source(orjson.loads(text), selector)


def splits_of_source(spec: Mapping[str, Json], selector: Selector) -> set[str]:
    """The splits whose every question was made from a source: it is their seeds', or that of the worked examples."""
    if selector.is_of_source((spec.get("examples") or {}).get("source", "")):
        return set(SPLITS)
    seeds = spec.get("seeds") or {}
    return {split for split in SPLITS if selector.is_of_source((seeds.get(split) or {}).get("source", ""))}


def _find_unlinked(corpus: Corpus, found: Reach, quoted: set[str]) -> None:
    """Requests that belong to no record: answers that completed none, and tries that failed.

    Of an answered one it is seen what was asked. Of a failed one nothing is kept but a digest of the question: it goes
    from every run that is touched, as nobody can tell what it was about.
    """
    linked: set[bytes] = set()
    for row in _rows(corpus):
        linked.update(row.keys)
        if row.record_id not in found.records:
            found.names_left |= found.asked_names.intersection(row.source_ids[:1])
            quoted.difference_update(row.source_ids[:1])
    found.buried |= quoted
    texts = [one.input for one in found.records.values() if one.input.strip()]
    whole = dict(_splits_of_source(corpus, found.selector)) if found.selector.kind == "source" else {}
    expand = expander()
    stored, answered, emptied = set[bytes](), set[bytes](), set[bytes]()
    for key, body in _each(corpus, "select request_key, body from answers"):
        (emptied if body == NOTHING else answered).add(key)  # emptied by an earlier erasure
    for key, body in _each(corpus, "select request_key, body from requests"):
        stored.add(key)
        if key not in linked and key not in found.keys and texts:
            asked = "\n".join(said for turn in orjson.loads(expand(body))["messages"] for said in turn[1:])
            if any(text in asked for text in texts):
                found.keys.add(key)
    for key, run_id, role, state in _each(corpus, "select request_key, run_id, role, state from calls"):
        if key in linked or key in found.keys or ":" not in role:
            continue
        of_source = role.rpartition(":")[2] in whole.get(run_id.partition(JUDGES)[0], ())
        if of_source and (key in stored or key in answered or state == "promised"):
            found.keys.add(key)
        elif key not in stored and key not in emptied and run_id in found.runs and state != "promised":
            found.failed.add(key)
            if of_source:
                found.unanswered.add(key)
    found.answers = len(found.keys & answered)


def _find_called(corpus: Corpus, found: Reach) -> None:
    """Requests of callers: of records that came through the service or were given there again, and embeddings."""
    given = {row[0] for row in _each(corpus, "select distinct record_id from hits")}
    for row in _rows(corpus):
        if row.record_id in found.records and ("caller" in row.item or row.record_id in given):
            found.called.update(row.keys)
    expand = expander()
    for key, body in _each(corpus, "select request_key, body from requests"):
        if key in found.keys and orjson.loads(expand(body))["api"] == "embeddings":  # which only callers ask for
            found.called.add(key)


_SPECS: Final = "select run_id, spec from runs"


def _notes_of_source(corpus: Corpus, selector: Selector) -> int:
    """Drops and remarks about items of a source, which there are also where nothing was asked about them."""
    whole = dict(_splits_of_source(corpus, selector))
    sql = "select run_id, stage, item_id from drops union all select run_id, stage, item_id from remarks"
    return sum(split_of_note(stage, item) in whole.get(run_id, ()) for run_id, stage, item in _each(corpus, sql))


def split_of_note(stage: str, item_id: str) -> str:
    """The split of what a drop or a remark is about: it stands behind its stage, or before its item."""
    for text in (stage.partition(":")[2].partition("#")[0], item_id.partition(":")[0]):
        if text in SPLITS:
            return text
    return ""


def _name_of(seeds: Mapping[str, Json], stage: str, item_id: str) -> str | None:
    """What a drop is about, ``source#id``: its split stands behind its stage, or before its item."""
    split, name = stage.partition(":")[2].partition("#")[0], item_id
    if split not in SPLITS:
        split, _, name = item_id.partition(":")
    of = seeds.get(split) if split in SPLITS else None
    return f"{of['source']}#{name}" if of else None


def _seeds_of_runs(corpus: Corpus) -> dict[str, Mapping[str, Json]]:
    return {run_id: orjson.loads(text).get("seeds") or {} for run_id, text in _each(corpus, _SPECS)}


def _quoted(corpus: Corpus, hits: Iterable[Found]) -> set[str]:
    """Items that were dropped with a text that is erased."""
    seeds = _seeds_of_runs(corpus)
    drops = (hit.key for hit in hits if hit.table == "drops")
    names = (_name_of(seeds.get(run_id, {}), stage, item_id) for run_id, stage, item_id in drops)
    return {name for name in names if name is not None}


def _find_repeats(corpus: Corpus, found: Reach) -> None:
    """Items that were dropped because they say, or nearly say, what an erased one says, and those dropped for these."""
    seeds, repeats = _seeds_of_runs(corpus), dict[str, set[str]]()
    runs: dict[str, set[str]] = {}
    sql = "select run_id, stage, item_id, repeat_of from drops where repeat_of is not null"
    for run_id, stage, item_id, repeat_of in _each(corpus, sql):
        of = seeds.get(run_id, {})
        name, first = _name_of(of, stage, item_id), _name_of(of, "", repeat_of)
        if name is not None and first is not None:
            repeats.setdefault(first, set()).add(name)
            runs.setdefault(name, set()).add(run_id)
    waiting = [*found.asked_names, *found.buried, *filter(found.selector.is_of_source, repeats)]
    while waiting:
        new = repeats.get(waiting.pop(), set()) - found.repeats - found.asked_names
        found.repeats |= new
        waiting += new
        found.runs.update(*(runs[name] for name in new))


def _find_seeded(corpus: Corpus, found: Reach, subject: Occurrence, shown: set[str]) -> None:
    """Items of seed files, and worked examples, that hold the text: nothing would keep a run from asking them."""
    others = set[str]()
    for one in seeded(corpus, subject):
        found.buried |= one.held
        others |= one.others
        if one.told is not None:
            found.kept.append(one.told)
    unknown = sorted(shown - others - found.buried)
    found.buried |= set(unknown)
    if unknown:
        why = "stood in the same questions, so they are not shown again; remove the one that holds it from its file"
        found.kept.append({"where": f"{EXAMPLES}: {', '.join(unknown)}", "of": "every question", "why": why})


def _leave_buried(corpus: Corpus, found: Reach) -> None:
    """What has a tombstone needs none again."""
    known = Tombstones.of(corpus.journal)
    for names in (found.repeats, found.buried) if known else ():
        names -= {name for name in names if known.mark_of(name) is not None}


# --- other tables -----------------------------------------------------------------------------------------------------

TEXTS: Final[Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "drops": (("run_id", "stage", "item_id"), ("item_id", "detail", "repeat_of")),
    "remarks": (("run_id", "stage", "item_id", "reason"), ("item_id", "detail", "other")),
    "findings": (("dataset", "version", "record_id", "stage", "reason"), ("detail", "other")),
    "calls": (("call_id",), ("error",)),
    "batches": (("batch_id",), ("said",)),
    "decisions": (("decision_id",), ("decision",)),
    "reconciliations": (("reconciliation_id",), ("by", "reason")),
    "events": (("seq",), ("payload",)),
}
"""Where texts of people and models end up beside answers: the key of each table, and the columns that are cut."""
WORDS: Final = ("by", "reason")
"""What a person wrote into the report of an earlier erasure."""
_TOLD: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "runs": ("run_id", ("task", "spec", "facts")),
    "balances": ("unit", ("scope",)),
    "caps": ("scope", ("origin",)),
    "datasets": ("name || '-' || version", ("manifest",)),
    "students": ("student_id", ("facts",)),
    "cards": ("card_id", ("card",)),
    "waivers": ("waiver_id", ("waiver",)),
    "reviews": ("terms_id", ("review",)),
    "snapshots": ("terms_id", ("text",)),
    "imports": ("import_id", ("facts",)),
    "releases": ("release_id", ("release",)),
    "meta": ("name", ("value",)),
    "erasures": ("erasure_id", ("erasure",)),
}
"""What says what a run, a dataset or a right was; it is named, so that a person decides."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """A row of one of TEXTS in which the text occurs, and in which of its columns."""

    table: str
    key: tuple[Any, ...]
    values: dict[str, str]


def hits_in(connection: apsw.Connection, subject: Occurrence) -> Iterator[Found]:
    """The rows of TEXTS in which a text occurs."""
    for table, (key, columns) in TEXTS.items():
        sql = f"select {', '.join((*key, *columns))} from {table}"  # noqa: S608 - own names
        for row in connection.execute(sql).fetchall():
            texts = zip(columns, row[len(key) :], strict=True)
            hits = {name: text for name, text in texts if isinstance(text, str) and subject.is_in(text)}
            if hits:
                yield Found(table=table, key=tuple(row[: len(key)]), values=hits)


def _told_in_tables(corpus: Corpus, subject: Occurrence) -> Iterator[dict[str, Json]]:
    for table, (key, columns) in _TOLD.items():
        for name, *texts in _each(corpus, f"select {key}, {', '.join(columns)} from {table}"):  # noqa: S608
            for column, text in zip(columns, texts, strict=True):
                written = text.encode() if isinstance(text, str) else text or b""
                if subject.is_in_bytes(_without_words(table, written)):
                    yield {"where": f"{table}.{column}", "of": str(name), "why": "says what it was; decide yourself"}


def _without_words(table: str, written: bytes) -> bytes:
    """What stays of it: who erased earlier, and why, is cut where it holds the text."""
    if table not in ("erasures", "datasets"):
        return written
    fields = orjson.loads(written)
    if "unfinished" in fields:  # the one that is on its way, which names what it is to erase
        return b""
    cut = fields if table == "erasures" else fields.get("revoked") or {}
    for name in WORDS:
        cut.pop(name, None)
    return orjson.dumps(fields)


# --- datasets, students, releases -------------------------------------------------------------------------------------


def _find_datasets(corpus: Corpus, found: Reach) -> None:
    for selection in selections(corpus) if found.records else ():
        gone = sum(1 for record in _records_of(selection) if not stays(record, found.holds))
        if gone:
            found.datasets.append(selection)
            found.rows[selection.label] = gone


def _records_of(selection: Selection) -> Iterator[Any]:
    try:
        yield from read_records(selection.paths)
    except CorpusDamaged as error:
        raise CorpusDamaged(
            f"{selection.label} cannot be read, so nobody knows whether what is to be erased is in it; restore its"
            f" files from a backup ({error})"
        ) from error


def stays(record: Any, gone: Callable[[str], bool]) -> bool:
    """Whether a row of a dataset stays: neither it nor a judgement it was kept by, nor what it was made from, goes."""
    if gone(record.record_id) or any(gone(name) for name in record.parent_ids if _HEX.fullmatch(name)):
        return False
    return not any(gone(name) for name in filter(None, map(judgement_in, record.verdicts)))


def _find_students(corpus: Corpus, found: Reach) -> None:
    """Students of those datasets, and those that have read the pool the records are of, be it without labels."""
    labels = {selection.label for selection in found.datasets}
    sources = {name.partition("#")[0] for name in found.asked_names}
    if found.selector.kind == "source":
        sources.add(found.selector.values[0].partition("#")[0])
    validated = _runs_validated_on(corpus, found)
    sql = "select student_id, run_id, dataset, facts from students"
    for student_id, run_id, dataset, text in corpus.journal.query(sql):
        facts = orjson.loads(text)
        read = set(facts.get("sources_of_unlabelled_text") or ())
        if dataset in labels or (read & sources) or (facts.get("calibration") and run_id in validated):
            found.students.append(student_id)
    for release_id, student_id, text in corpus.journal.query("select release_id, student_id, release from releases"):
        named = {one.get("dataset") for one in orjson.loads(text).get("datasets", ())}
        if student_id in found.students or named & labels:
            found.released.append(release_id)


def _runs_validated_on(corpus: Corpus, found: Reach) -> set[str]:
    """Runs whose labels were calibrated on answers that go: what was chosen on them stands in every label."""
    going = {name for name, one in found.records.items() if one.split == "validation"}
    reused = corpus.journal.query("select run_id, record_id from reuses") if going else ()
    return {found.records[name].run_id for name in going} | {run_id for run_id, name in reused if name in going}


def _exports(corpus: Corpus, labels: set[str]) -> Iterator[dict[str, Json]]:
    sql = "select occurred_us, payload from events where kind = 'dataset_exported' and payload is not null order by seq"
    for occurred_us, payload in corpus.journal.query(sql):
        told = orjson.loads(payload)
        if told.get("dataset") in labels:
            kept = {name: told.get(name) for name in ("dataset", "to", "split", "rows")}
            yield kept | {"exported_time": moment(occurred_us).isoformat()}


# --- what providers still have ----------------------------------------------------------------------------------------


def _provider_copies(corpus: Corpus, found: Reach) -> Iterator[dict[str, Json]]:
    """Who was sent it, how often and when; nothing is known of what became of it there."""
    cards = {card.card_id: card for card in _cards(corpus)}
    of_answer = dict(_each(corpus, "select call_id, card_id from answers"))
    by_teacher = {card.teacher: card for card in cards.values()}
    sent: dict[tuple[str, str], list[int]] = {}
    terms: dict[tuple[str, str], set[str]] = {}
    sql = "select call_id, request_key, teacher, role, state, reserved_us from calls"
    for call_id, key, teacher, role, state, reserved_us in _each(corpus, sql):
        if not (key in found.keys or key in found.unanswered) or ":" not in role or state == "promised":
            continue
        card = cards.get(of_answer.get(call_id, ""), by_teacher.get(teacher))
        place = (teacher, "" if card is None else card.host)
        sent.setdefault(place, []).append(reserved_us)
        terms.setdefault(place, set()).update(() if card is None else card.terms_ids)
    for (teacher, host), times in sorted(sent.items()):
        days, note = _retention(corpus, terms[teacher, host])
        yield {
            "teacher": teacher,
            "host": host,
            "requests": len(times),
            "first_sent": moment(min(times)).isoformat(),
            "last_sent": moment(max(times)).isoformat(),
            "retention_days": days,
            "note": f"{note}ask them to delete it",
        }


def _cards(corpus: Corpus) -> list[Card]:
    return [Card.from_json(row[0]) for row in corpus.journal.query("select card from cards")]


def _retention(corpus: Corpus, terms_ids: Iterable[str]) -> tuple[int | None, str]:
    from corpusgen.stages.terms.deciding import registry_of

    documents = registry_of(corpus, None).by_id
    known = [documents[name] for name in sorted(terms_ids) if name in documents]
    days = [one.retention_days for one in known if one.retention_days is not None]
    said = [f"{one.id}: {one.notes['data_retention']}; " for one in known if one.notes.get("data_retention")]
    return (max(days) if days else None), "".join(said)


# --- files ------------------------------------------------------------------------------------------------------------

TEMPORARY: Final = ("damaged", "lineage", "checkpoints")
"""Folders of copies and of what is made anew; everything in them goes."""
_MADE_OF_MANY: Final = ("students", "releases", "terms.yaml")
"""What is no copy of a record; if the text stands there, a person decides."""


def _files_that_hold(corpus: Corpus, found: Reach) -> Iterator[str]:
    """Reports of the runs, what is put aside or half written, and whatever else below the corpus holds it."""
    if not (found.records or found.keys or found.texts):
        return
    needles, is_ours = _needles(corpus, found), ours(corpus)
    for path in sorted(corpus.folder.rglob("*")):
        if path.is_symlink() or not path.is_file():
            continue
        relative = path.relative_to(corpus.folder)
        top = relative.parts[0]
        stale = top in TEMPORARY or top.startswith("catalog.duckdb")
        of_run = top == "reports" and bool(found.runs & {*relative.parts})
        own = is_ours(relative)
        told = top in _MADE_OF_MANY and (own or top != "students")
        if stale or of_run or (not own and not told and _looked_into(path, relative, needles, found)):
            yield str(relative)
        elif told and found.selector.subject and _looked_into(path, relative, needles, found):
            found.kept.append({"where": str(relative), "of": top, "why": "is no copy of a record; decide yourself"})


def _looked_into(path: Path, relative: Path, needles: Needles, found: Reach) -> bool:
    try:
        return holds(path, relative, needles)
    except NotLookedInto as error:
        why = f"nobody has looked into it: {error}; decide yourself"
        found.kept.append({"where": str(relative), "of": "others", "why": why})
        return False


def _needles(corpus: Corpus, found: Reach) -> Needles:
    few = len(found.records) <= MOST_TEXTS
    texts = {one.input for one in found.records.values()} if few else set[str]()
    if found.shards and few:
        paths = [corpus.folder / "shards" / name for name in found.shards]
        with suppress(CorpusDamaged):  # it is said when the shard is to be written anew
            said = {one.response for one in read_records(paths) if found.holds(one.record_id)}
            # A short answer, such as a label, is anybody's.
            texts |= {text for text in said if len(text) >= LONG_ENOUGH}
    names = {name.hex() for name in found.records}
    names |= {file.sha256 for selection in found.datasets for file in selection.files.values()}
    return Needles(
        texts=frozenset(texts),
        names=frozenset(names),
        keys=frozenset(found.records) | found.keys,
        subject=found.selector.subject,
    )


def tally(found: Reach) -> dict[str, int]:
    """Records of each task, for people."""
    return dict(sorted(Counter(one.dataset for one in found.records.values()).items()))
