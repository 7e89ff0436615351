"""Erasing: a source, a record or a person's name is taken out of everything below a corpus, and a report is signed.

Each step may be the last before the process is killed, and doing all of it again ends the same. Up to the cut (one
transaction of the journal) nothing is gone but entries of the shared cache, which is an accelerator; the selector
stands in the journal, where all that it names stands as well. After the cut the journal says what each file must be,
and whatever differs is made so again. Last comes the rewriting of the journal's file, without which deleted rows
would lie in its free pages, and the signed report.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

import orjson
import pyarrow.parquet as pq

from corpusgen.budget.ledger import recover_dead_owners
from corpusgen.corpus import Corpus, moment
from corpusgen.errors import CorpusDamaged, CorpusgenError, StoreError, UsageError
from corpusgen.journal import Transaction, working
from corpusgen.provenance.signing import signing_key
from corpusgen.records import Json, Record, canonical_json
from corpusgen.stages.committing import committed_shards, export_manifest, one_at_a_time
from corpusgen.stages.erasure.cutting import Changes, cut, cut_value, words_cut
from corpusgen.stages.erasure.erased_uses import touched_counts
from corpusgen.stages.erasure.erasures import erasures, told_revoked, unfinished
from corpusgen.stages.erasure.reaching import TEMPORARY, Reach, Selector, reach, stays, tally
from corpusgen.stages.judges import judgement_in
from corpusgen.stages.lineage.attesting import attest, signed
from corpusgen.stages.selecting import Selection, find_selection, selections
from corpusgen.stages.terms.signed_rows import TYPES
from corpusgen.stages.verifying import sweep
from corpusgen.store.answers import known_records
from corpusgen.store.durable import make_folder, publish, sync_folder, unwritable, write_file
from corpusgen.store.manifest import ShardEntry
from corpusgen.store.shards import ShardFile, read_columns, read_records, verify_shard, write_shard
from corpusgen.store.shared_cache import open_shared_cache

FOLDER: Final = "erasures"
HIDDEN: Final = "erasing-"
"""Before the name of a file that is to take another's place."""
_HEX: Final = re.compile(r"[0-9a-f]{64}")

Told = Callable[[str], None]
"""Hears of every step when it is done."""


def _nobody(step: str) -> None:
    """Nobody listens."""


def foresee(corpus: Corpus, selector: Selector) -> dict[str, Json]:
    """What an erasure would take. Changes nothing."""
    found = reach(corpus, selector)
    return _figures(corpus, found) | {"dry_run": True, "by_task": tally(found), "files": found.files}


def erase(
    corpus: Corpus,
    selector: Selector | None,
    *,
    by: str,
    reason: str = "",
    environ: Mapping[str, str] = os.environ,
    told: Told = _nobody,
) -> dict[str, Json]:
    """Take something out of the corpus; gives back the report, which is signed and kept.

    What an earlier erasure was killed in is brought to its end first; without a selector nothing else is done. Raises
    StoreError while another process works on the corpus, UsageError where the reason repeats what is to be erased.
    """
    signing_key(environ)  # whoever cannot sign the report begins no erasure
    _refuse_company(corpus)
    _check_words(selector, by, reason)
    corpus.journal.run_now(recover_dead_owners)
    with one_at_a_time(corpus.folder / ".erasing.lock"):
        finished = _finish(corpus, environ, told)
        if selector is None:
            if finished is None:
                raise UsageError("no erasure is unfinished here; give --source, --record or --subject")
            return finished
        newest = _newest_owner(corpus)
        found = reach(corpus, selector)
        if found.is_empty:
            return finished or _figures(corpus, found) | {"erasure_id": None}
        number = _begin(corpus, found.selector, by, reason)
        told("begun")
        return _carry_out(corpus, found, number, newest, environ, told)


def _refuse_company(corpus: Corpus) -> None:
    journal = corpus.journal
    if others := working(journal.reader, journal.path, but=journal.owner_id):
        named = ", ".join(map(str, dict.fromkeys(others)))
        raise StoreError(f"{corpus.folder}: process {named} works on it; let it end or stop it, then erase")


def _check_words(selector: Selector | None, by: str, reason: str) -> None:
    """Nothing that stays may say what is to go."""
    subject = None if selector is None else selector.subject
    if selector is None or subject is None:
        return
    for option, text in (("--reason", reason), ("--by", by)):
        if subject.is_in(text):
            raise UsageError(f"{option} repeats what is to be erased, and it stays in the report; say it otherwise")


def _finish(corpus: Corpus, environ: Mapping[str, str], told: Told) -> dict[str, Json] | None:
    """Bring the erasure that was begun to its end; its report."""
    before = unfinished(corpus)
    if before is None:
        return None
    number = before["erasure_id"]
    if before["unfinished"]["stage"] != "begun":
        return _clean_up(corpus, number, told)
    kind, values = (before["unfinished"]["selector"][name] for name in ("kind", "values"))
    newest = _newest_owner(corpus)
    found = reach(corpus, Selector(kind=kind, values=tuple(values)))
    return _carry_out(corpus, found, number, newest, environ, told)


def _carry_out(
    corpus: Corpus, found: Reach, number: int, newest: int, environ: Mapping[str, str], told: Told
) -> dict[str, Json]:
    try:
        _refuse_claimed(corpus, found)
        cache = _purge_cache(found, environ)
        told("shared cache")
        changes = _write_files(corpus, found, told)
        changes.erasures |= _without_words(corpus, found)
        report = _figures(corpus, found) | {"shared_cache": cache, "by_task": tally(found)}
        report["touched_counts"] = cut_value(touched_counts(corpus, found), found.selector.subject)
        corpus.journal.run_now(
            partial(cut, corpus=corpus, found=found, changes=changes, number=number, report=report, newest=newest)
        )
    except CorpusgenError:
        _give_up(corpus, number)
        raise
    told("cut")
    return _clean_up(corpus, number, told)


def _give_up(corpus: Corpus, number: int) -> None:
    """Nothing is cut: the corpus is as it was, so that what is in the way can be mended."""
    corpus.journal.run_now(
        lambda transaction: transaction.execute("delete from erasures where erasure_id = ?", (number,)).close()
    )
    for path in corpus.folder.rglob(f"{HIDDEN}*.parquet"):
        path.unlink(missing_ok=True)


def _newest_owner(corpus: Corpus) -> int:
    """Whoever opens the journal from now on has a higher number."""
    return int(corpus.journal.query("select coalesce(max(owner_id), 0) from owners")[0][0])


def _refuse_claimed(corpus: Corpus, found: Reach) -> None:
    for key, batch_id in corpus.journal.query("select request_key, batch_id from calls where state = 'promised'"):
        if key in found.keys or key in found.failed:
            where = f"in batch {batch_id}" if batch_id else "by somebody"
            raise StoreError(
                f"{corpus.folder}: part of it is being asked {where}; let that end (corpusgen run SPEC"
                " --cancel-batches), then erase"
            )


# --- the plan and the report ------------------------------------------------------------------------------------------


def _figures(corpus: Corpus, found: Reach) -> dict[str, Json]:
    """What is touched, without anything that the erased could be guessed from."""
    subject = found.selector.subject
    return {
        "selector": found.selector.kind,
        "source_id": found.selector.values[0].partition("#")[0] if found.selector.kind == "source" else None,
        "records": len(found.records),
        "requests": len(found.keys),
        "answers": found.answers,
        "failed_calls": len(found.failed),
        "texts": found.texts,
        "shards": found.shards,
        "datasets": [one.label for one in found.datasets],
        "students": sorted(found.students),
        "released": sorted(found.released),
        "provider_copies": cut_value(found.provider_copies, subject),
        "exports": found.exports,
        "other_files": len(found.files),
        "kept": cut_value(found.kept, subject),
        "cannot_reach": [
            "what students have learned: retrain or retire those named",
            "what providers keep: ask them",
            "exports and copies outside of this folder, backups, and seed files",
            "blocks that a file system or a disk has put aside without telling",
        ],
    }


def _begin(corpus: Corpus, selector: Selector, by: str, reason: str) -> int:
    """Note what is to be erased, until it is; everything that it names still stands beside it."""

    def operation(transaction: Transaction) -> int:
        number = int(transaction.rows("select coalesce(max(erasure_id), 0) + 1 from erasures")[0][0])
        fields: dict[str, Json] = {
            "erasure_id": number,
            "selector": selector.kind,
            "by": by,
            "reason": reason,
            "erased_time": moment(transaction.now_us).isoformat(),
            "datasets": [],
            "students": [],
            "unfinished": {"stage": "begun", "selector": selector.to_json()},
        }
        transaction.execute(
            "insert into erasures values(?, ?, '', ?)", (number, orjson.dumps(fields).decode(), transaction.now_us)
        )
        return number

    return corpus.journal.run_now(operation)


# --- the shared cache -------------------------------------------------------------------------------------------------


def _purge_cache(found: Reach, environ: Mapping[str, str]) -> dict[str, Json]:
    """Before the cut: afterwards nobody knows the keys any more."""
    cache = open_shared_cache(environ)
    if cache is None:
        return {"entries": None, "note": "CORPUSGEN_CACHE is off or cannot be used: no shared cache was looked at"}
    subject = found.selector.subject
    try:
        holds = None if subject is None else subject.is_in_bytes
        return {"entries": cache.purge(found.keys | found.failed, holds), "note": ""}
    finally:
        cache.close()


# --- files, before the cut --------------------------------------------------------------------------------------------


def _write_files(corpus: Corpus, found: Reach, told: Told) -> Changes:
    """Every shard and dataset without the rows, beside the one there is; they take its place after the cut."""
    changes, touched = Changes(), set(found.shards)
    for entry in committed_shards(corpus):
        name = f"{entry.dataset}/{entry.name}"
        if name in touched:
            path = corpus.folder / entry.path
            if (problem := verify_shard(path, entry)) is not None:
                raise CorpusDamaged(f"{problem}; mend it first: corpusgen verify --repair")
            changes.shards[name] = _written(path, lambda one: not found.holds(one.record_id), entry.schema_version)
            told(f"{name} written")
    for selection in found.datasets:
        keep = partial(stays, gone=found.holds)
        files = {}
        for part, file in selection.files.items():
            path = selection.folder / file.name
            files[part] = replace(_written(path, keep, None) or _empty(path), name=file.name)
        changes.datasets[selection.label] = (selection, files)
        told(f"{selection.label} written")
    return changes


def _written(path: Path, keep: Callable[[Record], bool], version: int | None) -> ShardFile | None:
    """The rows of a file that are kept, under a hidden name; None, and no file, where no row is."""
    hidden = path.with_name(f"{HIDDEN}{path.name}")
    made = _again(path, hidden, filter(keep, read_records([path])), version)
    if made.rows:
        return replace(made, name=path.name)
    hidden.unlink()
    return None


def _without_words(corpus: Corpus, found: Reach) -> dict[int, tuple[dict[str, Json], str]]:
    """Reports of earlier erasures whose words hold it, without these, and signed anew."""
    subject = found.selector.subject
    if subject is None:
        return {}
    pairs = ((one, words_cut(one, subject)) for one in erasures(corpus))
    changed = (fields for one, fields in pairs if fields != one)
    return {int(fields["erasure_id"]): (fields, signed(corpus, TYPES["erasure"], fields)) for fields in changed}


def _empty(path: Path) -> ShardFile:
    return _again(path, path.with_name(f"{HIDDEN}{path.name}"), iter(()), None)


def _again(path: Path, out: Path, records: Iterator[Record], version: int | None) -> ShardFile:
    """A file of these records as the one at ``path`` was written."""
    known = pq.read_schema(path).metadata or {}
    told = {name.decode(): text.decode() for name, text in known.items() if name.startswith(b"corpusgen.")}
    written = int(told.pop("corpusgen.schema_version"))
    return write_shard(out.parent, out.name, records, metadata=told, version=version or written)


# --- after the cut ----------------------------------------------------------------------------------------------------


def _clean_up(corpus: Corpus, number: int, told: Told) -> dict[str, Json]:
    """Make everything beside the journal what the journal says; each step may be done again."""
    report = _row(corpus, number)
    with one_at_a_time(corpus.folder / ".commit.lock"):
        for entry in committed_shards(corpus):
            if (
                f"{entry.dataset}/{entry.name}" in report["shards"]
                or (corpus.folder / entry.path).with_name(f"{HIDDEN}{entry.name}").exists()
            ):
                _settle_shard(corpus, entry)
                told(f"{entry.name} in place")
        export_manifest(corpus)
    told("manifest")
    with one_at_a_time(corpus.folder / ".datasets.lock"):
        for label in report["datasets"]:
            _settle_dataset(corpus, find_selection(corpus, label), told)
        for selection in selections(corpus):
            if selection.status == "revoked":
                _settle_notice(corpus, selection)
    _settle_reports(corpus, number)
    _purge_files(corpus, report["unfinished"].get("files", ()), told)
    _save(corpus, number, report | {"unfinished": {"stage": "scrub"}}, "")
    corpus.journal.scrub()
    told("scrubbed")
    attest(corpus)
    told("attested")
    done = {name: value for name, value in report.items() if name != "unfinished"}
    envelope = signed(corpus, TYPES["erasure"], done)
    _write_report(corpus, number, done, envelope)
    told("report written")
    _save(corpus, number, done, envelope)
    told("done")
    return done


def _write_report(corpus: Corpus, number: int, report: Mapping[str, Json], envelope: str) -> None:
    path = corpus.folder / FOLDER / f"{number}.json"
    make_folder(path.parent)
    write_file(path, orjson.dumps({"report": report, "envelope": orjson.loads(envelope)}, option=orjson.OPT_INDENT_2))


def _settle_reports(corpus: Corpus, but: int) -> None:
    """Earlier reports as the journal has them."""
    rows = corpus.journal.query("select erasure_id, erasure, envelope from erasures where erasure_id != ?", (but,))
    for number, text, envelope in rows:
        if envelope:
            _write_report(corpus, number, orjson.loads(text), envelope)


def _row(corpus: Corpus, number: int) -> dict[str, Json]:
    found: dict[str, Json] = orjson.loads(
        corpus.journal.query("select erasure from erasures where erasure_id = ?", (number,))[0][0]
    )
    return found


def _save(corpus: Corpus, number: int, fields: Mapping[str, Json], envelope: str) -> None:
    values = (orjson.dumps(dict(fields)).decode(), envelope, number)
    sql = "update erasures set erasure = ?, envelope = ? where erasure_id = ?"
    corpus.journal.run_now(lambda transaction: transaction.execute(sql, values).close())


def _settle_shard(corpus: Corpus, entry: ShardEntry) -> None:
    rows = corpus.journal.query(
        "select lower(hex(record_id)) from records where shard = ?", (f"{entry.dataset}/{entry.name}",)
    )
    known = {row[0] for row in rows}
    _settle(corpus.folder / entry.path, entry, lambda one: one.record_id in known, entry.schema_version)


def _settle_dataset(corpus: Corpus, selection: Selection, told: Told) -> None:
    for file in selection.files.values():
        path = selection.folder / file.name
        _settle(path, file, partial(stays, gone=_gone(corpus, path)), None)
        told(f"{path.name} of {selection.label} in place")


def _settle_notice(corpus: Corpus, selection: Selection) -> None:
    """What the folder of a revoked dataset says of it."""
    fields = orjson.loads(
        corpus.journal.query(
            "select manifest from datasets where name = ? and version = ?", (selection.name, selection.version)
        )[0][0]
    )
    revoked = fields["revoked"]
    notice = f"# {selection.label} {told_revoked(revoked)}\n\nIt must not be used any more.\n"
    write_file(selection.folder / "README.md", notice.encode())
    if "seal" in fields:
        sealed = fields["seal"] | {"revoked": revoked}
        write_file(corpus.folder / "datasets" / f"{selection.label}.seal.json", canonical_json(sealed) + b"\n")


def _gone(corpus: Corpus, path: Path) -> Callable[[str], bool]:
    """Whether a record is in the journal no longer, for everything that a dataset's file names."""
    table = read_columns([path], ["record_id", "parent_ids"]).to_pydict()
    named = {*table["record_id"], *(name for names in table["parent_ids"] for name in names if _HEX.fullmatch(name))}
    for record in read_records([path]):
        named.update(filter(None, map(judgement_in, record.verdicts)))
    known = known_records(corpus.journal.reader, named)
    return lambda name: name not in known


def _settle(path: Path, expected: ShardFile | ShardEntry, keep: Callable[[Record], bool], version: int | None) -> None:
    """The file at ``path`` is what the journal says: it is already, or a hidden one is, or it is made so."""
    hidden = path.with_name(f"{HIDDEN}{path.name}")
    with unwritable(path):
        if verify_shard(path, expected) is None:
            hidden.unlink(missing_ok=True)
            return
        if not hidden.exists() or verify_shard(hidden, expected) is not None:
            _again(path, hidden, filter(keep, read_records([path])), version)
        if (problem := verify_shard(hidden, expected)) is not None:
            raise CorpusDamaged(f"{problem}; restore the corpus from a backup, and erase again")
        publish(hidden, path)


def _purge_files(corpus: Corpus, listed: Iterable[str], told: Told) -> None:
    """Remove what is nobody's to keep: copies, reports, what is half written or made anew, the catalog."""
    for path in (*(corpus.folder / name for name in listed), *_always(corpus)):
        with unwritable(path):
            path.unlink(missing_ok=True)
            if path.parent.is_dir():
                sync_folder(path.parent)
    _refuse_company(corpus)  # what another process is writing belongs to no commit yet
    sweep(corpus)
    for folder in sorted((one for one in corpus.folder.rglob("*") if one.is_dir()), reverse=True):
        if folder.relative_to(corpus.folder).parts[0] in (*TEMPORARY, "reports", "shards"):
            with suppress(OSError):  # something is in it
                folder.rmdir()
    told("files removed")


def _always(corpus: Corpus) -> Iterator[Path]:
    """Copies, and files that are made anew, whatever the plan saw of them."""
    yield from corpus.folder.glob("catalog.duckdb*")
    yield from corpus.folder.glob(".catalog.duckdb*tmp*")
    yield from (path for path in corpus.folder.rglob(".*.tmp") if path.is_file())
    for name in TEMPORARY:
        yield from (path for path in (corpus.folder / name).rglob("*") if path.is_file() or path.is_symlink())
