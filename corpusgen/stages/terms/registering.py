"""Terms of one's own: adding documents, reading them again, keeping their text, and asking which of them bind."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import orjson
import yaml

from corpusgen.corpus import Corpus, moment
from corpusgen.errors import UsageError
from corpusgen.journal import Transaction
from corpusgen.provenance.events import note_event
from corpusgen.provenance.terms import Registry, TeacherRoute, TermsDocument, load_registry, stale
from corpusgen.records import Json, canonical_json
from corpusgen.shipped import shipped
from corpusgen.spec import read_yaml
from corpusgen.stages.committing import one_at_a_time
from corpusgen.stages.task import Task
from corpusgen.stages.terms.deciding import registry_of
from corpusgen.stages.terms.files import REVIEW_TYPE, corpus_file, files_of, organisation_file
from corpusgen.store.durable import hidden_name, make_folder, write_file

MOST_TEXT = 50_000_000
"""Bytes of a document's text; a contract has a few hundred thousand."""
_MAPPINGS = ("regions",)
"""Parts of a terms file that are mappings; the others are lists, or words."""


# --- Adding ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Added:
    """Where terms were added, and what is new there."""

    file: Path
    documents: tuple[str, ...]
    licences: tuple[str, ...]
    others: tuple[str, ...]
    """Names of other parts with something new in them."""


def add_terms(corpus: Corpus | None, file: Path, *, organisation: bool = False) -> Added:
    """Merge a terms file into the corpus's, or the organisation's. What is there word for word already stays.

    Raises LocatedError with every mistake, each with its line; nothing is changed then.
    """
    target = _organisations() if organisation else corpus_file(_needed(corpus))
    make_folder(target.parent)
    with one_at_a_time(target.with_name(f".{target.name}.lock")):
        return _add(corpus, file, target, organisation=organisation)


def _add(corpus: Corpus | None, file: Path, target: Path, *, organisation: bool) -> Added:
    there, given = _mapping(target) if target.exists() else {}, _mapping(file)
    fresh = {name: _without(value, there.get(name)) for name, value in given.items()}
    _check_given(corpus, file, target, organisation=organisation, unchanged=fresh == given)
    merged = _merged(there, fresh)
    if merged != there:
        _publish(corpus, target, merged, organisation=organisation)
    made = Added(
        file=target,
        documents=_names(fresh, "documents", "id"),
        licences=_names(fresh, "data_licences", "spdx"),
        others=tuple(name for name, value in fresh.items() if value and name not in ("documents", "data_licences")),
    )
    if corpus is not None and merged != there:
        sha256 = hashlib.sha256(target.read_bytes()).hexdigest()
        told: dict[str, Json] = {"documents": list(made.documents), "licences": list(made.licences)}
        where: dict[str, Json] = {"organisation": organisation, "file_sha256": sha256}
        corpus.journal.run_now(lambda transaction: note_event(transaction, "terms_added", told | where))
    return made


def _organisations() -> Path:
    file = organisation_file()
    if file is None:
        raise UsageError("CORPUSGEN_TERMS is off; let it name the file to add to")
    return file


def _needed(corpus: Corpus | None) -> Corpus:
    if corpus is None:
        raise UsageError("there is no corpus here; name one with --corpus, or write --organisation")
    return corpus


def _check_given(corpus: Corpus | None, file: Path, target: Path, *, organisation: bool, unchanged: bool) -> None:
    """Raise LocatedError for what is wrong in the file itself, so that its own lines are named.

    Where a part of it is in the target already it would stand twice, and only the merged file is looked at.
    """
    if unchanged:
        load_registry(shipped("data/terms.yaml"), *_in_order(corpus, target, organisation=organisation), file)
    else:
        load_registry(shipped("data/terms.yaml"), *_others(corpus, target), file)


def _in_order(corpus: Corpus | None, target: Path, *, organisation: bool) -> tuple[Path, ...]:
    every = tuple(path for path in files_of(corpus) if path.exists() or path != target)
    if not organisation:
        return every
    return tuple(path for path in every if path == target)  # what one corpus adds comes after


def _others(corpus: Corpus | None, target: Path) -> tuple[Path, ...]:
    return tuple(path for path in files_of(corpus) if path != target)


def _publish(corpus: Corpus | None, target: Path, merged: dict[str, Json], *, organisation: bool) -> None:
    """Write the merged file in the target's place, once it has been found sound where it will stand."""
    written = yaml.safe_dump(merged, sort_keys=False, allow_unicode=True, width=100).encode()
    trial = hidden_name(target)
    write_file(trial, written)
    try:
        every = [trial if path == target else path for path in files_of(corpus)]
        if trial not in every:
            every.insert(0 if organisation else len(every), trial)
        load_registry(shipped("data/terms.yaml"), *every)
    finally:
        trial.unlink()
    write_file(target, written)


def _mapping(file: Path) -> dict[str, Json]:
    value, _ = read_yaml(file)
    if not isinstance(value, dict):
        raise UsageError(f"{file}: a terms file is a mapping with `documents`")
    return value


def _without(value: Json, there: Json) -> Json:
    """What of a part is not there already."""
    if isinstance(value, list) and isinstance(there, list):
        return [one for one in value if one not in there]
    return value


def _merged(there: dict[str, Json], fresh: dict[str, Json]) -> dict[str, Json]:
    merged = dict(there)
    for name, value in fresh.items():
        if isinstance(value, list):
            merged[name] = [*(there.get(name) or []), *value]
        elif name in _MAPPINGS and isinstance(value, dict):
            merged[name] = {**(there.get(name) or {}), **value}
        else:
            merged[name] = value
    return {name: value for name, value in merged.items() if value not in ([], None)}


def _names(fresh: dict[str, Json], part: str, field: str) -> tuple[str, ...]:
    return tuple(str(one[field]) for one in fresh.get(part) or () if isinstance(one, dict) and field in one)


def documents_of(file: Path) -> tuple[str, ...]:
    """Ids of the documents in a terms file."""
    return _names(_mapping(file), "documents", "id")


def lint(corpus: Corpus | None, file: Path | None) -> Registry:
    """The registry with a file checked in its place behind all others. Raises LocatedError with every mistake."""
    files = files_of(corpus)
    if file is None or file.resolve() in {path.resolve() for path in files}:
        return load_registry(shipped("data/terms.yaml"), *files)
    if file.resolve() == shipped("data/terms.yaml").resolve():
        return load_registry(file)
    if not file.exists():
        raise UsageError(f"{str(file)!r} is not there; name a terms file")
    return load_registry(shipped("data/terms.yaml"), *files, file)


# --- Reading again ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Reviewed:
    """A reading that was signed and kept."""

    review: dict[str, Json]
    changed_from: str | None
    """The digest of the text that was known before, where another one was found."""
    refreshes: bool
    """Whether it counts: a text that is held is what binds, and reading another one says nothing of it."""


def review(
    corpus: Corpus,
    terms_id: str,
    *,
    by: str,
    on: date | None = None,
    text: Path | None = None,
    remark: str = "",
    task: Task | None = None,
) -> Reviewed:
    """Sign and keep that somebody has read a document again. Raises UsageError where that cannot be.

    ``task`` is one whose own terms files count too.
    """
    from corpusgen.stages.lineage.attesting import signed

    document = _document(registry_of(corpus, task), terms_id)
    today = corpus.clock().date()
    if not by.strip():
        raise UsageError("--by is empty; say who has read it")
    if (on or today) > today:
        raise UsageError(f"--on {on} is yet to come, and today is {today}; name the day on which it was read")
    found = None if text is None else hashlib.sha256(_text(text, "--text")).hexdigest()
    value: dict[str, Json] = {
        "terms_id": document.id,
        "reviewed": (on or today).isoformat(),
        "by": by,
        "found_text_sha256": found,
        "remark": remark,
    }
    envelope, before = signed(corpus, REVIEW_TYPE, value), _digest_before(corpus, document)

    def operation(transaction: Transaction) -> None:
        transaction.execute(
            "insert into reviews(terms_id, review, envelope, reviewed_us) values(?, ?, ?, ?)",
            (document.id, canonical_json(value).decode(), envelope, transaction.now_us),
        )
        note_event(transaction, "terms_reviewed", value)

    corpus.journal.run_now(operation)
    return Reviewed(
        review=value,
        changed_from=before if found is not None and before not in (None, found) else None,
        refreshes=found is None or document.text_sha256 in (None, found),
    )


@dataclass(frozen=True, kw_only=True)
class Kept:
    """The text of a document that is held now."""

    terms_id: str
    sha256: str
    size_bytes: int
    changed_from: str | None
    """The digest of the text that was known before, where it is another."""


def snapshot(corpus: Corpus, terms_id: str, file: Path, task: Task | None = None) -> Kept:
    """Keep the text of a document, so that audits can show what was in force. The same text twice is kept once."""
    document = _document(registry_of(corpus, task), terms_id)
    text = _text(file, "FILE")
    sha256 = hashlib.sha256(text).hexdigest()

    def operation(transaction: Transaction) -> None:
        row = (document.id, sha256, len(text), text, transaction.now_us)
        transaction.execute(
            "insert into snapshots(terms_id, sha256, size_bytes, text, taken_us) values(?, ?, ?, ?, ?)"
            " on conflict do update set taken_us = excluded.taken_us, text = excluded.text",
            row,
        )
        told: dict[str, Json] = {"terms_id": document.id, "sha256": sha256, "size_bytes": len(text)}
        note_event(transaction, "terms_snapshot", told)

    before = _digest_before(corpus, document)
    if document.text_sha256 != sha256 or not _is_held(corpus, document.id, sha256):
        corpus.journal.run_now(operation)
    return Kept(
        terms_id=document.id,
        sha256=sha256,
        size_bytes=len(text),
        changed_from=before if before not in (None, sha256) else None,
    )


def _digest_before(corpus: Corpus, document: TermsDocument) -> str | None:
    """The digest of the text as it was known last: held, on file, or found by whoever read it last."""
    if document.text_sha256 is not None:
        return document.text_sha256
    rows = corpus.journal.query(
        "select json_extract(review, '$.found_text_sha256') from reviews where terms_id = ?"
        " and json_extract(review, '$.found_text_sha256') is not null order by review_id desc limit 1",
        (document.id,),
    )
    return str(rows[0][0]) if rows else None


def _is_held(corpus: Corpus, terms_id: str, sha256: str) -> bool:
    sql = "select exists(select 1 from snapshots where terms_id = ? and sha256 = ?)"
    return bool(corpus.journal.query(sql, (terms_id, sha256))[0][0])


def _text(path: Path, option: str) -> bytes:
    try:
        if path.stat().st_size > MOST_TEXT:
            raise UsageError(f"{option}: {str(path)!r} is larger than {MOST_TEXT:,} bytes; is it the right file?")
        text = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{option}: {str(path)!r} cannot be read: {error.strerror}") from error
    if not text.strip():
        raise UsageError(f"{option}: {str(path)!r} is empty; save the document's text in it")
    return text


def _document(registry: Registry, terms_id: str) -> TermsDocument:
    if terms_id in registry.by_id:
        return registry.by_id[terms_id]
    from difflib import get_close_matches

    near = get_close_matches(terms_id, registry.by_id, n=3, cutoff=0.4)
    meant = f"; did you mean {' or '.join(near)}?" if near else "; corpusgen terms list names them"
    raise UsageError(f"no terms document has the id {terms_id!r}{meant}")


# --- Looking ---------------------------------------------------------------------------------------------------------


def listed(corpus: Corpus | None, on: date, *, only_stale: bool = False) -> list[dict[str, Json]]:
    """Every document in a line, for people and machines."""
    registry = registry_of(corpus, None)
    old, held = {one.terms_id for one in stale(registry, on)}, _held(corpus)
    return [
        {
            "terms_id": one.id,
            "provider": one.provider,
            "title": one.title,
            "version": one.version,
            "kind": one.kind,
            "in_force": one.in_force(on),
            "outputs_train": one.outputs_train,
            "outputs_train_competing": one.outputs_train_competing,
            "confidence": one.confidence,
            "reviewed": one.reviewed.isoformat(),
            "stale": one.id in old,
            "text_held": one.id in held,
            "file": registry.file_of(one.id),
        }
        for one in registry.documents
        if one.id in old or not only_stale
    ]


def _held(corpus: Corpus | None) -> frozenset[str]:
    """Ids of the documents whose text a corpus keeps."""
    rows = [] if corpus is None else corpus.journal.query("select distinct terms_id from snapshots")
    return frozenset(str(row[0]) for row in rows)


def binding(corpus: Corpus | None, route: TeacherRoute, on: date) -> dict[str, Json]:
    """Which documents bind a model by a road, and what is missing."""
    match = registry_of(corpus, None).matching(route, on)
    return {
        "model": route.model,
        "route": route.route,
        "host": route.host,
        "on": on.isoformat(),
        "terms": [one.id for one in match.documents],
        "gaps": [gap.text for gap in match.gaps],
    }


def shown(corpus: Corpus | None, terms_id: str, on: date, task: Task | None = None) -> dict[str, Json]:
    """Everything that is known of one document: what it says, who read it when, and which texts of it are held."""
    registry = registry_of(corpus, task)
    document = _document(registry, terms_id)
    reviews, texts = _history(corpus, document.id)
    old = {one.terms_id for one in stale(registry, on)}
    fields = document.model_dump(mode="json")
    return fields | {
        "file": registry.file_of(document.id),
        "in_force": document.in_force(on),
        "stale": document.id in old,
        "reviews": reviews,
        "snapshots": texts,
    }


def _history(corpus: Corpus | None, terms_id: str) -> tuple[list[Json], list[Json]]:
    if corpus is None:
        return [], []
    query = corpus.journal.query
    reviews = query("select review from reviews where terms_id = ? order by review_id", (terms_id,))
    texts = query(
        "select sha256, size_bytes, taken_us from snapshots where terms_id = ? order by taken_us", (terms_id,)
    )
    told = [
        {"sha256": sha256, "size_bytes": size, "taken": moment(taken).isoformat(timespec="seconds")}
        for sha256, size, taken in texts
    ]
    return [orjson.loads(row[0]) for row in reviews], told
