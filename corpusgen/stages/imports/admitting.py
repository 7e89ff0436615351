"""Admitting: may this file from outside come in, and is every row of it a record? Nothing is written."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import orjson

from corpusgen.assemble import RunFacts
from corpusgen.corpus import Corpus, fresh_secret
from corpusgen.errors import OutsideFileError, PolicyRefused, Problem, UsageError
from corpusgen.provenance.decisions import SourceUse
from corpusgen.provenance.licences import effective_licence, licence_named, read_expression
from corpusgen.provenance.terms import STRICTNESS, DataLicence, Registry
from corpusgen.records import Json, Split, digest
from corpusgen.spec import Source
from corpusgen.stages.imports.ours import Watch, marks_of_imports
from corpusgen.stages.imports.outside import (
    BadRow,
    Columns,
    OutsideRow,
    check_regular,
    columns_of,
    describe,
    file_error,
    rows_of,
)
from corpusgen.stages.terms.deciding import rights_of
from corpusgen.teachers.imported import SCHEME

RUN: Final = "import-"
"""What the names of the rows in ``runs`` begin with that stand for imports; they asked for nothing."""
SHOWN: Final = 100
"""Bad rows that are told one by one."""
MOST_LABELS: Final = 1_000


# --- What is said of a file ------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Outside:
    """A file from outside, and what a person says of it."""

    file: Path
    dataset: str
    source: Source
    columns: Columns | None = None
    """None: its columns say by their names what they are."""
    split: Split = "train"
    labels: tuple[str, ...] = ()
    """What answers may be, where they are labels; else those of the dataset, else those that are found."""
    limit: int | None = None
    notice: str | None = None
    """Text that must go along with every copy."""


@dataclass(frozen=True, kw_only=True)
class Rights:
    """What the licence of a source, and of the models that wrote it, come to."""

    terms_ids: tuple[str, ...]
    licence_expression: str
    outputs_train: str

    @property
    def terms_set_id(self) -> str:
        """sha256 of the sorted ids, as for the terms of a teacher."""
        return _set_of(self.terms_ids)


def _set_of(terms_ids: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(sorted(terms_ids)).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Looked:
    """A file that was read to its end: what it would be as an import."""

    import_id: str
    """Names the import; no digest of the file, which could be guessed from one after it was erased."""
    outside: Outside
    columns: Columns
    rights: Rights
    sha256: str
    state: tuple[int, int]
    """Time and size of the file that was read; another state is another file."""
    labels: tuple[str, ...]
    rows: int
    bad: int
    problems: tuple[Problem, ...]
    """The first of the bad rows."""

    @property
    def short(self) -> str:
        """As much of the id as names of runs and teachers carry."""
        return self.import_id[:16]

    @property
    def identity(self) -> str:
        """What stands in request keys in place of a teacher's identity."""
        return f"import:sha256:{self.import_id}"

    def to_json(self) -> dict[str, Json]:
        """For machines."""
        return {
            "import_id": self.import_id,
            "file": str(self.outside.file),
            "dataset": self.outside.dataset,
            "teacher": f"{SCHEME}{self.short}",
            "run_id": f"{RUN}{self.short}",
            "kind": "label" if self.columns.labelled else "response",
            "columns": dict(self.columns.of),
            "labels": list(self.labels),
            "split": self.outside.split,
            "sha256": self.sha256,
            "licence_expression": self.rights.licence_expression,
            "terms_set_id": self.rights.terms_set_id,
            "rows": self.rows,
            "skipped": self.bad,
        }


# --- Looking: nothing is written -------------------------------------------------------------------------------------


def look_through(corpus: Corpus | None, wanted: Sequence[Outside], *, skip_bad: bool = False) -> list[Looked]:
    """Files read to their ends, and their rights; the corpus is looked at, where there is one.

    Raises PolicyRefused for a licence that is not known, OutsideFileError with every bad row unless they are skipped,
    UsageError where a file does not go together with what the corpus holds, or with the others.
    """
    registry = rights_of(corpus, None).registry
    rights = [rights_in(registry, outside.source) for outside in wanted]
    states = [(state_of(outside.file), _sha256(outside.file)) for outside in wanted]
    columns = [outside.columns or columns_of(outside.file) for outside in wanted]
    labels = _labels(corpus, wanted, columns)
    fresh = fresh_secret if corpus is None else corpus.new_secret
    looked = [
        _before_reading(fresh, outside, of, right, state, labels if of.labelled else ())
        for outside, of, right, state in zip(wanted, columns, rights, states, strict=True)
    ]
    watches = [_watch(corpus, one) for one in looked]
    looked = [_counted(one, watch) for one, watch in zip(looked, watches, strict=True)]
    if refused := [one for one in looked if one.bad and not (skip_bad and one.rows)]:
        raise _all_bad(refused)
    _check_together(corpus, looked)
    for watch in watches:
        watch.refuse()
    return looked


def _watch(corpus: Corpus | None, looked: Looked) -> Watch:
    """Who looks whether rows of a file are records, or came in before under another licence."""
    return Watch(
        file=looked.outside.file,
        corpus=corpus,
        licence_expression=looked.rights.licence_expression,
        terms_sets=frozenset({looked.rights.terms_set_id, _set_of(looked.outside.source.generated_by)}),
        earlier={} if corpus is None else marks_of_imports(corpus, _unlike(corpus, looked)),
    )


def _unlike(corpus: Corpus, looked: Looked) -> list[dict[str, Json]]:
    """The imports into the same dataset that had other rights; not of this very file, which is told of by itself."""
    rows = corpus.journal.query(
        "select facts from imports where dataset = ? order by imported_us", (looked.outside.dataset,)
    )
    every = [orjson.loads(row[0]) for row in rows]
    now = (looked.rights.licence_expression, looked.rights.terms_set_id)
    other = [one for one in every if (one["licence_expression"], one["terms_set_id"]) != now]
    return [one for one in other if read_as(one) != read_as(looked.to_json())]


def read_as(facts: Mapping[str, Json]) -> list[Json]:
    """What makes two imports one and the same rows; of one that an erasure has touched, the digest is gone."""
    return [facts[name] for name in ("sha256", "dataset", "split", "columns", "labels")]


def nameless(import_id: str) -> str:
    """What the names of an import's rows begin with that have no id."""
    return f"{import_id[:12]}-"


def _labels(corpus: Corpus | None, wanted: Sequence[Outside], columns: Sequence[Columns]) -> tuple[str, ...]:
    """What labels may be: as said, else as in the dataset, else whatever there is."""
    named = wanted[0].labels or _labels_of_dataset(corpus, wanted[0].dataset)
    if named:
        return named
    found: set[str] = set()
    for outside, of in zip(wanted, columns, strict=True):
        found |= _labels_found(outside.file, of) if of.labelled else set()
    return tuple(sorted(found))


def rights_in(registry: Registry, source: Source) -> Rights:
    """The rights in a source. Raises PolicyRefused that lists what is known and says how to add one."""
    expression = read_expression(source.licence)
    if expression.choices:
        told = f"{source.licence!r} is a choice; write the licence you take"
        raise PolicyRefused(f"--licence: {told}. Nothing was imported")
    licences = [licence_named(registry, name) for name in expression.parts]
    for name, one in zip(expression.parts, licences, strict=True):
        if one is None or _said_nothing(one):
            raise PolicyRefused(_unknown_licence(registry, name))
    if strange := [name for name in source.generated_by if name not in registry.by_id]:
        raise PolicyRefused(_unknown_terms(registry, strange[0]))
    known = [one for one in licences if one is not None]
    writers = [registry.by_id[name] for name in source.generated_by]
    use = SourceUse(source_id=source.id, licence=source.licence)
    return Rights(
        terms_ids=tuple(sorted({*(one.spdx for one in known), *source.generated_by})),
        licence_expression=effective_licence(registry, writers, (use,)).expression,
        outputs_train=max((one.train for one in known), key=STRICTNESS.__getitem__),
    )


def _said_nothing(licence: DataLicence) -> bool:
    return licence.spdx in ("NOASSERTION", "NONE")


def _unknown_licence(registry: Registry, name: str) -> str:
    known = ", ".join(
        sorted((one.spdx for one in registry.data_licences if one.spdx != "NOASSERTION"), key=str.casefold)
    )
    return (
        f"--licence: {name!r} is no licence that is known here, so nobody can say what its text may be used for (R12);"
        f" nothing was imported. Known are: {known}. Where another holds, read it and write what it allows under"
        " data_licences in a terms file (corpusgen terms add FILE), such as:\n"
        "data_licences:\n"
        "  - {spdx: LicenseRef-Contract-7, train: allowed, redistribute_derived: unclear, attribution: true}\n"
        "A text that is your own is LicenseRef-Own. Not legal advice."
    )


def _unknown_terms(registry: Registry, name: str) -> str:
    from difflib import get_close_matches

    close = get_close_matches(name, registry.by_id, n=3)
    meant = f" (did you mean {' or '.join(close)}?)" if close else ""
    return (
        f"--generated-by: no terms document has the id {name!r}{meant}; nothing was imported. corpusgen terms list"
        " shows them; corpusgen terms add FILE adds one"
    )


def state_of(path: Path) -> tuple[int, int]:
    """Time and size of a file. Raises OutsideFileError where it cannot be looked at, or is none."""
    check_regular(path)
    try:
        found = path.stat()
    except OSError as error:
        raise file_error(path, f"cannot be read: {error.strerror}") from error
    return found.st_mtime_ns, found.st_size


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise file_error(path, f"cannot be read: {error.strerror}") from error


def _before_reading(
    fresh: Callable[[], bytes],
    outside: Outside,
    columns: Columns,
    rights: Rights,
    state: tuple[tuple[int, int], str],
    labels: tuple[str, ...],
) -> Looked:
    return Looked(
        import_id=digest([state[1], outside.dataset, outside.split, outside.source.id, fresh().hex()]),
        outside=outside,
        columns=columns,
        rights=rights,
        sha256=state[1],
        state=state[0],
        labels=labels,
        rows=0,
        bad=0,
        problems=(),
    )


def _counted(looked: Looked, watch: Watch) -> Looked:
    rows, bad, problems = 0, 0, list[Problem]()
    for row in told_rows(looked.outside, looked.columns, looked.labels):
        if isinstance(row, OutsideRow):
            rows += 1
            watch.look(row)
            continue
        bad += 1
        if bad <= SHOWN:
            problems.append(describe(looked.outside.file, row))
    return replace(looked, rows=rows, bad=bad, problems=tuple(problems))


def told_rows(outside: Outside, columns: Columns, labels: tuple[str, ...]) -> Iterator[OutsideRow | BadRow]:
    """The rows, those among the bad ones whose label is none."""
    allowed = {name.casefold() for name in labels}
    for row in rows_of(outside.file, columns, outside.limit):
        if allowed and isinstance(row, OutsideRow) and row.text.strip().casefold() not in allowed:
            told = f"holds {row.text!r:.60}, which is none of the labels: {', '.join(labels[:20])}"
            yield BadRow(number=row.number, line=None, field=columns.of["label"], message=f"(row {row.number}) {told}")
        else:
            yield row


def _labels_found(path: Path, columns: Columns) -> set[str]:
    # Of the whole file, whatever the limit: what a label may be must not change when more is imported.
    found: set[str] = set()
    for row in rows_of(path, columns):
        if isinstance(row, OutsideRow):
            found.add(row.text.strip())
        if len(found) > MOST_LABELS:
            raise file_error(
                path, f"has more than {MOST_LABELS:,} labels; is {columns.of['label']!r} the right column?"
            )
    return found


def _labels_of_dataset(corpus: Corpus | None, dataset: str) -> tuple[str, ...]:
    return next((facts.label_names for facts in _facts_of(corpus, dataset) if facts.label_names), ())


def _facts_of(corpus: Corpus | None, dataset: str) -> Iterator[RunFacts]:
    """What the runs say whose records a dataset has."""
    if corpus is None:
        return
    rows = corpus.journal.query(
        "select facts from runs where task = ? and exists(select 1 from records r where r.run_id = runs.run_id)"
        " order by started_us, run_id",
        (dataset,),
    )
    yield from (RunFacts.from_json(row[0]) for row in rows)


def _all_bad(refused: Sequence[Looked]) -> OutsideFileError:
    told = list[Problem]()
    for one in refused:
        told += one.problems
        rest = f"{one.bad - len(one.problems):,} more rows are bad. " if one.bad > len(one.problems) else ""
        mend = "mend the file, or leave bad rows out with --skip-bad" if one.rows else "no row is sound; mend the file"
        told.append(Problem(file=one.outside.file, line=None, field="", message=f"{rest}Nothing was imported; {mend}"))
    return OutsideFileError(*told)


def _check_together(corpus: Corpus | None, looked: Sequence[Looked]) -> None:
    """Raise UsageError where the dataset is of another kind, or the source is known under another licence."""
    there = [facts.label_names or () for facts in _facts_of(corpus, looked[0].outside.dataset)]
    for one in looked:
        other = next((names for names in (*there, looked[0].labels) if names != one.labels), None)
        if other is not None:
            both = [f"labels ({', '.join(names)})" if names else "no labels" for names in (other, one.labels)]
            raise UsageError(
                f"{one.outside.file}: records of {one.outside.dataset!r} have {both[0]}, and this file has {both[1]};"
                " import it as another --dataset, or say what its labels are with --labels"
            )
    source = looked[0].outside.source
    for known in () if corpus is None else sources_in(corpus):
        if known.id == source.id and known.licence != source.licence:
            raise UsageError(
                f"--source-id: {known.id!r} is a source under {known.licence} in this corpus, and --licence says"
                f" {source.licence}; give this one an id of its own"
            )


def sources_in(corpus: Corpus) -> Iterator[Source]:
    """Every source that a run or an import of this corpus names; the same one as often as it is named."""
    for (text,) in corpus.journal.query("select spec from runs order by started_us, run_id"):
        yield from (Source.model_validate_json(orjson.dumps(source)) for source in orjson.loads(text)["sources"])
