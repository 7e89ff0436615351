"""Verifying: is everything in a corpus still what was committed? And sweeping up what never was."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import orjson

from corpusgen.budget.amounts import UNITS
from corpusgen.corpus import Corpus
from corpusgen.errors import CorpusDamaged, StoreError
from corpusgen.fanout.calling import UNCOUNTED
from corpusgen.journal import storage_errors
from corpusgen.provenance.seal import survey
from corpusgen.records import canonical_json
from corpusgen.stages.cataloguing import CATALOG_NAME, catalog_problem
from corpusgen.stages.committing import committed_shards, signed_head
from corpusgen.stages.erasure.erasures import erasures, revocation, unfinished
from corpusgen.stages.finding import Finding
from corpusgen.stages.lineage.ledger_checks import LedgerChecked, ledger_checked
from corpusgen.stages.sealing import README, Sealed, dataset_secret, record_row, seal_file, sealed_dataset
from corpusgen.stages.selecting import Selection, selections
from corpusgen.stages.terms.rights_checks import rights_findings
from corpusgen.store.answers import expander
from corpusgen.store.manifest import MANIFEST_NAME, LedgerHead, ShardEntry, encode, manifest_of, read_manifest
from corpusgen.store.shards import read_columns, read_records, verify_shard
from corpusgen.store.shared_cache import NO_CALL

Check = Callable[[Corpus], Iterator[Finding]]


def verify(corpus: Corpus, kept: Iterable[tuple[str, str]] = ()) -> list[Finding]:
    """Everything wrong with a corpus; an empty list means that it is sound.

    The journal is the truth: its own integrity, money per answer against the ledger and back, balances against calls,
    request keys against requests, shards and their costs against answers, the manifest to the byte, the catalog,
    sealed datasets with their roots, and the ledger of events: what each says, their order, signatures and roots, and
    whether it goes on from checkpoints that were ``kept`` elsewhere (what to call each, and its envelope).
    """
    return list(verified(corpus, kept).findings)


def verified(
    corpus: Corpus, kept: Iterable[tuple[str, str]] = (), only: Mapping[str, bytes] | None = None
) -> LedgerChecked:
    """The same with how far the ledger is signed; ``only`` is the one key that counts, by its id."""
    found = [finding for check in CHECKS for finding in check(corpus)]
    checked = ledger_checked(corpus, kept, only)
    return replace(checked, findings=(*found, *checked.findings))


def _integrity(corpus: Corpus) -> Iterator[Finding]:
    for (message,) in corpus.journal.query("pragma integrity_check"):
        if message != "ok":
            yield Finding(check="journal", subject="journal.sqlite", message=str(message))


def _answers_settled(corpus: Corpus) -> Iterator[Finding]:
    rows = corpus.journal.query(
        "select lower(hex(a.request_key)), a.cost_microusd, c.state, c.microusd from answers a"
        " left join calls c using (call_id)"
        " where a.call_id != ? and (c.call_id is null"
        # Nobody counted what it used: its cost is an assumption, which reconciling may have put right since.
        " or not (c.state = 'unknown' and c.error is ? and a.cost_microusd <= c.reserved_microusd"
        " or exists (select 1 from reconciliations r where r.call_id = c.call_id)"
        " or c.state in ('settled', 'overrun') and c.microusd = a.cost_microusd))",
        (NO_CALL, UNCOUNTED),
    )
    for key, cost, state, booked in rows:
        message = f"the answer cost {cost} micro-dollars, its call is {state} with {booked}"
        yield Finding(check="ledger", subject=key, message=message)


def _settled_answered(corpus: Corpus) -> Iterator[Finding]:
    """What a run has paid for is kept; only people, leases and one's own machines settle without an answer."""
    rows = corpus.journal.query(
        "select call_id, teacher, microusd from calls c where state in ('settled', 'overrun') and role like '%:%'"
        " and run_id in (select run_id from runs) and owner_id not in (select owner_id from leases)"
        " and not exists (select 1 from reconciliations r where r.call_id = c.call_id)"
        " and not exists (select 1 from answers a where a.request_key = c.request_key)"
    )
    for call_id, teacher, microusd in rows:
        message = f"{teacher} was paid {microusd} micro-dollars, and its answer is not there"
        yield Finding(check="ledger", subject=f"call {call_id}", message=message)


def _answers_readable(corpus: Corpus) -> Iterator[Finding]:
    expand = expander()
    for key, call_id, body in _each(corpus, "select request_key, call_id, body from answers"):
        assert isinstance(key, bytes)
        assert isinstance(body, bytes)
        try:
            expand(body)
        except CorpusDamaged as error:
            yield Finding(check="answers", subject=key.hex(), message=f"of call {call_id}: {error}")


def _records_answered(corpus: Corpus) -> Iterator[Finding]:
    rows = corpus.journal.query(
        "select lower(hex(record_id)) from records r"
        " where not exists (select 1 from answers a where a.request_key = r.request_key)"
        " or not exists (select 1 from requests q where q.request_key = r.request_key)"
    )
    for (record_id,) in rows:
        yield Finding(check="records", subject=record_id, message="its question or its answer is not in the journal")


def _balances(corpus: Corpus) -> Iterator[Finding]:
    totals: dict[tuple[str, str], list[int]] = {}
    columns = ", ".join(f"reserved_{unit}, coalesce({unit}, 0)" for unit in UNITS)
    for state, scopes, *figures in corpus.journal.query(f"select state, scopes, {columns} from calls"):  # noqa: S608
        for scope in scopes.split("\n"):
            for at, unit in enumerate(UNITS):
                total = totals.setdefault((scope, unit), [0, 0, 0])
                reserved, used = figures[2 * at : 2 * at + 2]
                total[0] += used  # a refused call costs nothing, but counts as a request
                total[1] += reserved if state == "promised" else 0
                total[2] += reserved if state == "unknown" else 0
    for scopes, *left in corpus.journal.query(
        f"select scopes, {', '.join(UNITS)} from leases where ended_us is null"  # noqa: S608 - own text
    ):
        for scope in scopes.split("\n"):
            for unit, amount in zip(UNITS, left, strict=True):
                totals.setdefault((scope, unit), [0, 0, 0])[1] += amount
    for scopes, wall_us in corpus.journal.query("select scopes, wall_us from spans"):
        for scope in scopes.split("\n"):
            totals.setdefault((scope, "wall_us"), [0, 0, 0])[0] += wall_us
    booked = corpus.journal.query("select scope, unit, settled, promised, unconfirmed from balances")
    found = {(scope, unit): list(figures) for scope, unit, *figures in booked}
    for name in sorted(totals.keys() | found.keys()):
        expected, actual = totals.get(name, [0, 0, 0]), found.get(name, [0, 0, 0])
        if expected != actual:
            message = f"settled, promised, unconfirmed are {actual}, the calls add up to {expected}"
            yield Finding(check="balances", subject=" ".join(name), message=message)


def _batches(corpus: Corpus) -> Iterator[Finding]:
    """Calls in batches are promised as long as their batch is under way, and no longer."""
    rows = corpus.journal.query(
        "select c.batch_id, b.state, count(*) from calls c left join batches b using (batch_id)"
        " where c.batch_id is not null and c.state = 'promised'"
        " and (b.state is null or b.state not in ('intended', 'submitted')) group by 1, 2"
    )
    for name, state, count in rows:
        message = f"is {state or 'not there'}, and {count} of its calls are still promised"
        yield Finding(check="batches", subject=name, message=message)


def _request_keys(corpus: Corpus) -> Iterator[Finding]:
    expand = expander()
    for key, body in _each(corpus, "select request_key, body from requests"):
        assert isinstance(key, bytes)
        assert isinstance(body, bytes)
        if _digest(expand, body) != key:
            yield Finding(check="requests", subject=key.hex(), message="the request does not match its key")


def _each(corpus: Corpus, sql: str) -> Iterator[tuple[object, ...]]:
    """Row by row: bodies are large."""
    with storage_errors(corpus.journal.path):
        yield from corpus.journal.reader.execute(sql)


def _digest(expand: Callable[[bytes], bytes], body: bytes) -> bytes | None:
    try:
        return hashlib.sha256(expand(body)).digest()
    except CorpusDamaged:
        return None


def _shards(corpus: Corpus) -> Iterator[Finding]:
    for entry in committed_shards(corpus):
        path = corpus.folder / entry.path
        problem = verify_shard(path, entry)
        if problem is not None:
            yield Finding(check="shards", subject=entry.path, message=problem)
        else:
            yield from _rows(corpus, entry, path)


def _rows(corpus: Corpus, entry: ShardEntry, path: Path) -> Iterator[Finding]:
    """Ids and costs of a sound shard against the journal."""
    known = dict(
        corpus.journal.query(
            "select lower(hex(r.record_id)), iif(r.from_cache, 0, (a.cost_microusd"
            # Of a call that gave several answers, each record bears its part.
            " + coalesce(json_extract(r.item, '$.share[1]') - 1 - json_extract(r.item, '$.share[0]'), 0))"
            " / coalesce(json_extract(r.item, '$.share[1]'), 1)"
            " + coalesce(json_extract(r.item, '$.first_cost_microusd'), 0))"
            " from records r join answers a using (request_key) where r.shard = ?",
            (f"{entry.dataset}/{entry.name}",),
        )
    )
    table = read_columns([path], ["record_id", "cost_microusd"]).to_pydict()
    found = dict(zip(table["record_id"], table["cost_microusd"], strict=True))
    for record_id in sorted(known.keys() ^ found.keys()):
        where = "the journal" if record_id in known else "the shard"
        yield Finding(check="records", subject=record_id, message=f"is only in {where} ({entry.path})")
    for record_id in sorted(known.keys() & found.keys()):
        if known[record_id] != found[record_id]:
            message = f"costs {found[record_id]} in {entry.path}, the ledger says {known[record_id]}"
            yield Finding(check="records", subject=record_id, message=message)


def _manifest(corpus: Corpus) -> Iterator[Finding]:
    problem = manifest_problem(corpus)
    if problem is not None:
        yield Finding(check="manifest", subject=MANIFEST_NAME, message=problem)


def manifest_problem(corpus: Corpus) -> str | None:
    """What is wrong with MANIFEST.json, in one sentence, or None: it has no byte that the journal does not give it."""
    committed = committed_shards(corpus)
    try:
        content = (corpus.folder / MANIFEST_NAME).read_bytes()
    except OSError as error:
        return f"cannot be read: {error.strerror}" if committed else None
    if content == encode(manifest_of(committed, signed_head(corpus))):
        return None
    try:
        found = read_manifest(corpus.folder)
    except StoreError as error:
        return str(error)
    if found.ledger != (head := signed_head(corpus)):
        return f"says of the ledger {_told(found.ledger)}, the journal's last checkpoint is {_told(head)}"
    differ = sorted({entry.path for entry in set(found.shards) ^ set(committed)})
    return f"differs from what the journal committed: {', '.join(differ[:5]) or 'in how it is written'}"


def _told(head: LedgerHead | None) -> str:
    return f"{head.size} events with root {head.root}" if head else "nothing"


def _catalog(corpus: Corpus) -> Iterator[Finding]:
    problem = catalog_problem(corpus)
    if problem is not None:
        yield Finding(check="catalog", subject=CATALOG_NAME, message=problem)


def _sealed(corpus: Corpus) -> Iterator[Finding]:
    for selection in selections(corpus):
        if selection.status == "sealed":
            yield from _sealed_one(corpus, selection)


def _sealed_one(corpus: Corpus, selection: Selection) -> Iterator[Finding]:
    try:
        sealed = sealed_dataset(corpus, selection.label)
        secret = dataset_secret(corpus, selection)
        if secret is None and sealed.manifest["merkle"].get("leaves") == "salted":
            raise CorpusDamaged("the secret that its leaves are salted with is gone: nobody can say what was sealed")
        rows = (record_row(record) for record in read_records(selection.paths))
        root = survey(rows, secret=secret).merkle_root
    except (CorpusDamaged, StoreError) as error:
        yield Finding(check="datasets", subject=selection.label, message=str(error))
        return
    if root != sealed.manifest["merkle"]["root"]:
        yield Finding(check="datasets", subject=selection.label, message=f"Merkle root is {root}, sealed was another")
    if (problem := seal_problem(corpus, sealed)) is not None:
        yield Finding(check="datasets", subject=selection.label, message=problem)
    for problem in folder_problems(sealed):
        yield Finding(check="datasets", subject=selection.label, message=problem)


def folder_problems(sealed: Sealed) -> Iterator[str]:
    """What lies in the folder of a sealed dataset and is not in its seal, or not as it was sealed."""
    known = {README, *(path.name for path in sealed.files)}
    for path in sorted(sealed.folder.rglob("*")):
        if (name := path.relative_to(sealed.folder).as_posix()) not in known:
            yield f"{name} lies in its folder and was not sealed with it; take it away"
    if (expected := sealed.manifest.get("readme_sha256")) is None:
        return  # sealed before a seal had it
    try:
        found = hashlib.sha256((sealed.folder / README).read_bytes()).hexdigest()
    except OSError as error:
        yield f"{README} cannot be read: {error.strerror}"
        return
    if found != expected:
        yield f"{README} is not the one that was sealed"


def seal_problem(corpus: Corpus, sealed: Sealed) -> str | None:
    """What is wrong with the manifest file of a sealed dataset, in one sentence, or None."""
    path = seal_file(corpus, sealed.label)
    try:
        content = path.read_bytes()
    except OSError as error:
        return f"its manifest {path.name} cannot be read: {error.strerror}"
    written = canonical_json(sealed.manifest) + b"\n"
    return None if content == written else f"its manifest {path.name} is not the one that was sealed"


def _erased(corpus: Corpus) -> Iterator[Finding]:
    """Erasures that have not come to their end, and datasets that were revoked, by the bytes they have since."""
    before = unfinished(corpus)
    if before is not None:
        message = "is unfinished, and what it is to take out may still be here; corpusgen erase brings it to its end"
        yield Finding(check="erasures", subject=f"erasure {before['erasure_id']}", message=message)
        return
    try:
        for selection in selections(corpus):
            if selection.status == "revoked":
                yield from _revoked(corpus, selection)
    except CorpusDamaged as error:
        yield Finding(check="erasures", subject="journal.sqlite", message=str(error))


def _revoked(corpus: Corpus, selection: Selection) -> Iterator[Finding]:
    where = (selection.name, selection.version)
    ((text,),) = corpus.journal.query("select manifest from datasets where name = ? and version = ?", where)
    known = {(one["erasure_id"], label) for one in erasures(corpus) for label in one["datasets"]}
    told = "select 1 from events where kind = 'dataset_revoked' and json_extract(payload, '$.dataset') = ?"
    number = (revocation(orjson.loads(text)) or {}).get("erasure_id")
    if (number, selection.label) not in known or not corpus.journal.query(told, (selection.label,)):
        yield Finding(check="erasures", subject=selection.label, message="is revoked, and no erasure tells why")
    if corpus.journal.query("select 1 from dataset_secrets where name = ? and version = ?", where):
        message = "is revoked, and the secret that its leaves were salted with is still there"
        yield Finding(check="erasures", subject=selection.label, message=message)
    for path, file in zip(selection.paths, selection.files.values(), strict=True):
        if (problem := verify_shard(path, file)) is not None:
            yield Finding(check="datasets", subject=selection.label, message=problem)


CHECKS: tuple[Check, ...] = (
    _integrity,
    _answers_settled,
    _settled_answered,
    _answers_readable,
    _balances,
    _batches,
    _request_keys,
    _records_answered,
    _shards,
    _manifest,
    _catalog,
    _sealed,
    _erased,
    rights_findings,
)


def orphans(corpus: Corpus) -> list[Path]:
    """Files and folders that no commit knows: left by a crash, or superseded. Safe to remove while nothing runs."""
    shards = {corpus.folder / entry.path for entry in committed_shards(corpus)}
    datasets = {selection.folder for selection in selections(corpus)}
    files = (corpus.folder / "shards").glob("*/*")
    found = [path for path in files if path not in shards]
    found += [path for path in (corpus.folder / "datasets").glob("*") if path.is_dir() and path not in datasets]
    found += [path for name in ("students", "releases") for path in (corpus.folder / name).glob(".*")]
    return sorted(found)


def sweep(corpus: Corpus) -> list[Path]:
    """Remove what no commit knows; gives back what was removed."""
    found = orphans(corpus)
    for path in found:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    return found
