"""The cut: everything that an erasure takes out of the journal, in one transaction."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Final

import orjson

from corpusgen.corpus import Corpus, moment
from corpusgen.curation.occurrence import Occurrence, folded
from corpusgen.errors import StoreError
from corpusgen.fanout.calling import UNCOUNTED
from corpusgen.journal import Transaction, working
from corpusgen.provenance.events import note_event
from corpusgen.provenance.seal import manifest_digest
from corpusgen.records import Json
from corpusgen.stages.erasure.erasures import SALT, mark, of_request, of_sample
from corpusgen.stages.erasure.reaching import (
    NOTHING,
    TEXTS,
    WORDS,
    Reach,
    Selector,
    hits_in,
    split_of_note,
    splits_of_source,
)
from corpusgen.stages.imports.admitting import nameless
from corpusgen.stages.selecting import Selection
from corpusgen.store.shards import ShardFile
from corpusgen.store.shared_cache import NO_CALL

CUT: Final = "(erased)"
_HEX: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(kw_only=True)
class Changes:
    """What the files of shards and datasets will be."""

    shards: dict[str, ShardFile | None] = field(default_factory=dict)
    """By the journal's name; None for one of which no row is left."""
    datasets: dict[str, tuple[Selection, dict[str, ShardFile]]] = field(default_factory=dict)
    erasures: dict[int, tuple[dict[str, Json], str]] = field(default_factory=dict)
    """Reports of earlier erasures in whose words it stood, without them, and signed anew."""


def cut(
    transaction: Transaction,
    *,
    corpus: Corpus,
    found: Reach,
    changes: Changes,
    number: int,
    report: dict[str, Json],
    newest: int,
) -> None:
    """Everything in the journal, at once."""
    _refuse_others(transaction, corpus, newest)
    connection = transaction.connection
    connection.execute("pragma secure_delete=on").fetchall()
    with _Named(transaction, found):
        noted = _cut_texts(transaction, found)
        _cut_requests(transaction)
        _cut_records(transaction, found)
        _cut_notes(transaction, corpus, found)
        _cut_steps(transaction, found)
        digests = _cut_imports(transaction, found, noted)
    events = _cut_events(transaction, found, changes, digests)
    _bury(transaction, found, number)
    _replace_shards(transaction, changes)
    _cut_words(transaction, found, changes)
    begun = orjson.loads(transaction.rows("select erasure from erasures where erasure_id = ?", (number,))[0][0])
    now = moment(transaction.now_us).isoformat()
    done = {name: begun[name] for name in ("erasure_id", "selector", "by", "reason")} | report
    done |= {"subject_commitment": _commitment(found.selector), "erased_time": now}
    for label, (selection, files) in changes.datasets.items():
        _revoke(transaction, selection, files, done, found.rows[label])
    note_event(transaction, "erased", done | events)
    done["unfinished"] = {"stage": "cut", "files": found.files}
    transaction.execute(
        "update erasures set erasure = ?, erased_us = ? where erasure_id = ?",
        (orjson.dumps(done).decode(), transaction.now_us, number),
    )


def _refuse_others(transaction: Transaction, corpus: Corpus, newest: int) -> None:
    path, owner = corpus.journal.path, corpus.journal.owner_id
    others = working(transaction.writer, path, but=owner)
    came = transaction.rows("select coalesce(max(owner_id), 0) from owners")[0][0] > newest
    if others or came:
        who = f"process {others[0]} works" if others else "another process has worked"
        raise StoreError(f"{corpus.folder}: {who} on it meanwhile; nothing was cut; let it end, then erase again")


class _Named:
    """Inside, the journal has a table of the records that go, and one of the requests with their new keys."""

    def __init__(self, transaction: Transaction, found: Reach) -> None:
        self.connection, self.found = transaction.connection, found

    def __enter__(self) -> None:
        self.connection.execute(
            "create temp table going(record_id blob primary key);"
            "create temp table rekeyed(before blob primary key, after blob not null, answered integer not null);"
        )
        self.connection.executemany("insert into going values(?)", ((name,) for name in self.found.records))
        rows = [(key, secrets.token_bytes(32), 1) for key in sorted(self.found.keys)]
        rows += [(key, secrets.token_bytes(32), 0) for key in sorted(self.found.failed)]
        self.connection.executemany("insert into rekeyed values(?, ?, ?)", rows)

    def __exit__(self, *_: object) -> None:
        self.connection.execute("drop table temp.going; drop table temp.rekeyed")


def _cut_requests(transaction: Transaction) -> None:
    """Calls keep their money, and nothing that leads to what was asked; answers are emptied, so that sums still add up.

    The key of a request is a digest of a text that can be guessed, so calls and answers get a random one, the same in
    both. The provider's name of a call stays only where its bill is open.
    """
    for sql in _REQUESTS.replace("MINE", _MINE).replace("AFTER", _AFTER).split(";"):
        transaction.execute(sql, {"uncounted": UNCOUNTED, "no_call": NO_CALL, "nothing": NOTHING})


_REQUESTS: Final = """
delete from service_files where file_id in (
    select json_extract(facts, '$.input_file_id') from service_batches
    where service_batch_id in (select service_batch_id from service_lines where MINE));
update service_lines set request_key = null, result = null, told = null where MINE;
delete from unreadable where call_id in (select call_id from calls where MINE);
update batches set said = json_remove(said, '$.why') where batch_id in (select batch_id from calls where MINE);
update calls set error = substr(error, 1, instr(error, ':') - 1)
    where MINE and instr(error, ':') and error != :uncounted;
update calls set provider_request_id = null
    where request_key in (select before from rekeyed where answered) and state != 'unknown';
delete from requests where MINE;
delete from answers where MINE and call_id = :no_call and request_key not in (select request_key from calls);
update calls set request_key = AFTER where MINE;
update answers set request_key = AFTER, body = :nothing, provider_request_id = null where MINE
"""
_MINE: Final = "request_key in (select before from rekeyed)"
_AFTER: Final = "(select after from rekeyed where before = request_key)"


def _cut_records(transaction: Transaction, found: Reach) -> None:
    for table in ("records", "reuses", "findings", "hits"):
        transaction.execute(f"delete from {table} where record_id in (select record_id from going)")  # noqa: S608
    names = {name.hex() for name in found.records} | {f"{one.split}:{one.item_id}" for one in found.records.values()}
    rows = transaction.rows(
        "select dataset, version, record_id, stage, reason, other, detail from findings"
        " where other is not null or detail is not null"
    )
    for *key, other, detail in rows:
        if other in names or not names.isdisjoint(_HEX.findall(detail or "")):
            transaction.execute(
                "update findings set other = null, detail = null where dataset = ? and version = ? and record_id = ?"
                " and stage = ? and reason = ?",
                tuple(key),
            )


def _cut_notes(transaction: Transaction, corpus: Corpus, found: Reach) -> None:
    """Drops and remarks about items that go; what a pool was sieved by has digests of texts, and is made anew."""
    transaction.execute("delete from sieved")
    items = _items(transaction, found)
    whole = _whole_splits(transaction, found)
    for table, other in (("drops", "repeat_of"), ("remarks", "other")):
        key = "run_id, stage, item_id" + (", reason" if table == "remarks" else "")
        for row in transaction.rows(f"select {key}, {other} from {table}"):  # noqa: S608 - own names
            run_id, stage, item_id, other_id = row[0], row[1], row[2], row[-1]
            named = {item_id, item_id.partition(":")[2], other_id or ""}
            split = split_of_note(stage, item_id)
            if not items.get(run_id, set()).isdisjoint(named) or split in whole.get(run_id, ()):
                where = " and ".join(f"{name.strip()} = ?" for name in key.split(","))
                transaction.execute(f"delete from {table} where {where}", row[:-1])  # noqa: S608


def _items(transaction: Transaction, found: Reach) -> dict[str, set[str]]:
    """Names by which a run's notes call items that go; another run may have failed at the same ones."""
    items: dict[str, set[str]] = {run_id: set() for run_id in found.runs}
    for run_id, spec in transaction.rows("select run_id, spec from runs"):
        if run_id in items:
            items[run_id] = set(_names_in_notes(found.asked_names, orjson.loads(spec).get("seeds") or {}))
    for one in found.records.values():
        names = {one.item_id, f"{one.split}:{one.item_id}"}
        items.setdefault(one.run_id, set()).update(names)
    records = {name.hex() for name in found.records}
    repeats = {name.partition("#")[2] for name in found.repeats}
    for run_id in items:
        items[run_id] |= records | repeats | {f"train:{name}" for name in repeats}
    return items


def _names_in_notes(names: Iterable[str], seeds: Mapping[str, Json]) -> Iterator[str]:
    splits = [(split, of["source"]) for split, of in seeds.items() if of]
    for name in names:
        source, _, item = name.partition("#")
        for split in (split for split, of in splits if of == source):
            yield from (item, f"{split}:{item}")


def _whole_splits(transaction: Transaction, found: Reach) -> dict[str, set[str]]:
    if found.selector.kind != "source":
        return {}
    rows = transaction.rows("select run_id, spec from runs")
    return {run_id: splits_of_source(orjson.loads(spec), found.selector) for run_id, spec in rows}


def _cut_steps(transaction: Transaction, found: Reach) -> None:
    """Rounds of asking list the items they chose."""
    names = {(one.run_id, one.item_id) for one in found.records.values()}
    for number, run_id, text in transaction.rows("select decision_id, run_id, decision from decisions"):
        if run_id not in found.runs or '"items"' not in text:
            continue
        fields = orjson.loads(text)
        if isinstance(fields.get("items"), list):
            fields["items"] = [CUT if (run_id, name) in names else name for name in fields["items"]]
            transaction.execute(
                "update decisions set decision = ? where decision_id = ?", (orjson.dumps(fields).decode(), number)
            )


def _cut_imports(transaction: Transaction, found: Reach, noted: set[str]) -> set[str]:
    """What could tell that a guessed file was the one: its digest and size. Gives back the digests, which events have.

    The id of an import follows from nothing. How many rows there were, and whether some that went had no id, is kept:
    by that the same file is known again, and any other of the source is asked about.
    """
    touched: dict[str, list[str]] = {run_id: [] for run_id in noted}
    for one in found.records.values():
        touched.setdefault(one.run_id, []).append(one.item_id)
    digests = set[str]()
    for name, text in transaction.rows("select import_id, facts from imports"):
        facts = orjson.loads(text)
        gone = touched.get(facts["run_id"])
        if gone is None and not found.selector.is_of_source(facts["source"]["id"]):
            continue
        digests |= {facts["sha256"]} - {""}
        known = facts.get("touched") or {"rows": facts["rows"] + facts["skipped"], "unnamed": 0}
        unnamed = sum(one.startswith(nameless(name)) for one in gone or ())
        facts |= {"sha256": "", "size_bytes": None, "touched": known | {"unnamed": known["unnamed"] + unnamed}}
        transaction.execute("update imports set facts = ? where import_id = ?", (orjson.dumps(facts).decode(), name))
    return digests


def _cut_texts(transaction: Transaction, found: Reach) -> set[str]:
    """Wherever else the text itself was found: a row whose name holds it goes, of the others the column.

    Gives back the runs of whose items it was noted.
    """
    noted = set[str]()
    subject = found.selector.subject
    if subject is None:
        return noted
    for one in [one for one in hits_in(transaction.writer, subject) if one.table != "events"]:
        key = TEXTS[one.table][0]
        where = " and ".join(f"{name} = ?" for name in key)
        if set(key) & one.values.keys():
            transaction.execute(f"delete from {one.table} where {where}", one.key)  # noqa: S608 - own names
        else:
            for name, text in one.values.items():
                new = _cut_out(one.table, name, text, subject)
                transaction.execute(f"update {one.table} set {name} = ? where {where}", (new, *one.key))  # noqa: S608
        if one.table in ("drops", "remarks"):
            noted.add(one.key[0])
    return noted


def _cut_out(table: str, column: str, text: str, subject: Occurrence) -> str | None:
    if column in ("said", "decision"):
        return orjson.dumps(cut_value(orjson.loads(text), subject)).decode()
    if table == "calls":
        return text.partition(":")[0] if not subject.is_in(text.partition(":")[0]) else CUT
    return CUT if table == "reconciliations" else None


def words_cut(fields: Mapping[str, Json], subject: Occurrence) -> dict[str, Json]:
    """A report, or what is told of a revocation, without the words of a person in which it stands."""
    return {**fields, **{name: without(subject, fields[name]) for name in WORDS if fields.get(name)}}


def _cut_words(transaction: Transaction, found: Reach, changes: Changes) -> None:
    """Who asked for an earlier erasure and why, where these words hold it."""
    for number, (fields, envelope) in changes.erasures.items():
        transaction.execute(
            "update erasures set erasure = ?, envelope = ? where erasure_id = ?",
            (orjson.dumps(fields).decode(), envelope, number),
        )
    subject = found.selector.subject
    if subject is None:
        return
    revoked = "select name, version, manifest from datasets where status = 'revoked'"
    for name, version, text in transaction.rows(revoked):
        fields = orjson.loads(text)
        told = words_cut(fields.get("revoked") or {}, subject)
        if told != fields.get("revoked"):
            sql = "update datasets set manifest = ? where name = ? and version = ?"
            transaction.execute(sql, (orjson.dumps(fields | {"revoked": told}).decode(), name, version))


def cut_value(value: Json, subject: Occurrence | None) -> Json:
    """A value from JSON in which whatever text holds what is erased is replaced."""
    if isinstance(value, str):
        return without(subject, value)
    if isinstance(value, dict):
        return {without(subject, name): cut_value(one, subject) for name, one in value.items()}
    return [cut_value(one, subject) for one in value] if isinstance(value, list) else value


def _cut_events(transaction: Transaction, found: Reach, changes: Changes, digests: set[str]) -> dict[str, list[Json]]:
    """Events that name what goes, or a digest of what held it: payload and nonce are destroyed, the leaf stays.

    Gives back which they are, for the event that tells of it, and the shards that are no more.
    """
    subject = found.selector.subject
    gone = digests | {name.hex() for name in found.records} | {key.hex() for key in found.keys | found.failed}
    gone |= {row[1] for row in transaction.rows("select name, sha256 from shards") if row[0] in changes.shards}
    gone |= {file.sha256 for selection, _ in changes.datasets.values() for file in selection.files.values()}
    told: dict[str, list[Json]] = {
        "events": [],
        "shards_removed": [name for name, file in changes.shards.items() if file is None],
    }
    for seq, kind, payload in transaction.rows("select seq, kind, payload from events where payload is not null"):
        # The digest of an export is one of what was in it; the report says that there was one.
        out = kind == "dataset_exported" and orjson.loads(payload).get("dataset") in changes.datasets
        if out or not gone.isdisjoint(_HEX.findall(payload)) or (subject is not None and subject.is_in(payload)):
            transaction.execute("update events set payload = null, nonce = null where seq = ?", (seq,))
            told["events"].append(seq)
            if kind == "erased":  # what it told of is told here from now on
                for name in told:
                    told[name] += orjson.loads(payload).get(name) or []
    return told


def _bury(transaction: Transaction, found: Reach, number: int) -> None:
    """Tombstones over names, so that a run does not ask again what a seed file still names."""
    transaction.execute("insert into meta values(?, ?) on conflict do nothing", (SALT, secrets.token_hex(32)))
    salt = bytes.fromhex(transaction.rows("select value from meta where name = ?", (SALT,))[0][0])
    for name in _buried(found):
        transaction.execute("insert into erased values(?, ?) on conflict do nothing", (mark(salt, name), number))


def _buried(found: Reach) -> Iterator[str]:
    yield from found.repeats | found.buried
    yield from map(of_request, found.called)
    if found.selector.kind == "source":
        yield found.selector.values[0]
        return
    yield from found.asked_names - found.names_left
    for one in found.records.values():
        if one.name in found.names_left:
            yield of_sample(one.dataset, one.name, one.sample)


def _replace_shards(transaction: Transaction, changes: Changes) -> None:
    for name, file in changes.shards.items():
        if file is None:
            transaction.execute("delete from shards where name = ?", (name,))
            continue
        transaction.execute(
            "update shards set rows = ?, sha256 = ?, size_bytes = ?, committed_us = ? where name = ?",
            (file.rows, file.sha256, file.size_bytes, transaction.now_us, name),
        )
        note_event(transaction, "shard_committed", {"shard": name, "rows": file.rows, "sha256": file.sha256})


def _revoke(
    transaction: Transaction,
    selection: Selection,
    files: Mapping[str, ShardFile],
    done: Mapping[str, Json],
    gone: int,
) -> None:
    where = (selection.name, selection.version)
    row = transaction.rows("select manifest from datasets where name = ? and version = ?", where)[0]
    fields = orjson.loads(row[0])
    sealed = fields.get("seal")
    revoked = {
        "erasure_id": done["erasure_id"],
        "revoked_time": done["erased_time"],
        "by": done["by"],
        "reason": done["reason"],
        "rows_erased": gone,
        "manifest_sha256": None if sealed is None else _digest_before(fields, sealed),
    }
    fields |= {"files": {part: asdict(file) for part, file in files.items()}, "revoked": revoked}
    fields["content_digest"] = secrets.token_hex(32)  # the one before is a digest of what held the rows
    fields.pop("file", None)
    if sealed is not None:
        listed = [{"path": one.name, "rows": one.rows, "sha256": one.sha256} for one in files.values()]
        kept = {name: value for name, value in sealed.items() if name != "merkle"}
        fields["seal"] = kept | {"files": listed, "rows": sum(one.rows for one in files.values())}
    transaction.execute(
        "update datasets set status = 'revoked', manifest = ? where name = ? and version = ?",
        (orjson.dumps(fields).decode(), *where),
    )
    transaction.execute("delete from dataset_secrets where name = ? and version = ?", where)
    note_event(
        transaction,
        "dataset_revoked",
        {"dataset": selection.label, "manifest_sha256": revoked["manifest_sha256"], "erasure_id": done["erasure_id"]},
    )


def _digest_before(fields: Mapping[str, Json], sealed: Mapping[str, Json]) -> str:
    """The digest of the manifest that was sealed, be it revoked for the second time."""
    earlier = fields.get("revoked") or {}
    return str(earlier.get("manifest_sha256") or manifest_digest(sealed))


def without(subject: Occurrence | None, text: str) -> str:
    """A text, unless what is erased stands in it."""
    return CUT if subject is not None and subject.is_in(text) else text


def _commitment(selector: Selector) -> str:
    """Stands for what was erased; nobody has the nonce, so nobody can try guesses."""
    text = "\n".join(folded(value) if selector.kind == "subject" else value for value in selector.values)
    return hmac.digest(secrets.token_bytes(32), text.encode("utf-8", "surrogatepass"), hashlib.sha256).hex()
