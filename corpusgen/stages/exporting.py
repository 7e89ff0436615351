"""Documents about a sealed dataset for other tools and for lawyers, from its manifest, its rows and its spec."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from corpusgen.corpus import Corpus, moment
from corpusgen.errors import CorpusUnwritable, SealRefused, UsageError
from corpusgen.export.card import CardDuty, CardFacts, CardTeacher, card, unfilled
from corpusgen.export.completeness import complete, licences_in
from corpusgen.export.croissant import croissant
from corpusgen.export.facts import Column, ColumnKind, DataFile, DatasetFacts, Document, PersonalData, Purpose
from corpusgen.export.notice import notice
from corpusgen.export.sheets import ab2013, eu_2_5, nist_600_1
from corpusgen.export.spdx import spdx
from corpusgen.provenance.events import note_event
from corpusgen.provenance.seal import Survey
from corpusgen.records import Json
from corpusgen.spec import Agreement, IntendedUse, Source, TaskSpec
from corpusgen.stages.imports.admitting import RUN
from corpusgen.stages.judges import Judges
from corpusgen.stages.parting import bucket_of
from corpusgen.stages.release.released import noted_releases
from corpusgen.stages.sealing import Sealed, card_facts, sealed_dataset
from corpusgen.stages.selecting import Selection, find_selection, split_of
from corpusgen.stages.task import Task
from corpusgen.stages.terms.deciding import with_terms_of
from corpusgen.stages.terms.rejudging import Subject, check_sources, gate, stored_tasks, touches_of
from corpusgen.store.durable import make_folder, write_file
from corpusgen.store.shards import read_columns, read_records


def dataset_card(facts: DatasetFacts) -> Document:
    """The dataset's card, as it lies in its folder, with what the spec says of its sources today."""
    return Document(text=card(facts.card), not_filled=unfilled(facts.card))


DOCUMENTS: Final[Mapping[str, Callable[[DatasetFacts], Document]]] = {
    "card": dataset_card,
    "croissant": croissant,
    "spdx": spdx,
    "eu-2.5": eu_2_5,
    "ab2013": ab2013,
    "nist-600-1": nist_600_1,
    "notice": notice,
}
"""What can be written about a dataset, by the name that --to takes."""

_JUDGE: Final = " (judge)"
"""What a card puts behind the name of a teacher that judged."""
_REACHED: Final = ("teacher", "route", "host")
_COLUMNS: Final = (*_REACHED, "output_tokens", "pii_kinds", "sent_time", "received_time", "run_id")


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A document that was written, and what it could not say."""

    path: Path
    not_filled: tuple[str, ...]


def export_document(corpus: Corpus, task: Task, dataset: str, kind: str, out: Path) -> Exported:
    """Write one of DOCUMENTS about a sealed dataset, whole or not at all.

    Raises SealRefused where the dataset is not sealed or lacks what must be told, UsageError where the spec is not the
    one its records were made with.
    """
    facts = dataset_facts(corpus, task, dataset)
    if missing := complete(facts):
        raise SealRefused(f"{facts.label} lacks what must be told:\n" + "\n".join(map(str, missing)))
    made = DOCUMENTS[kind](facts)
    make_folder(out.parent)
    write_file(out, made.text.encode())
    return Exported(path=out, not_filled=made.not_filled)


def rows_to_export(corpus: Corpus, dataset: str, split: str, task: Task | None = None) -> tuple[Sealed, list[Path]]:
    """A sealed dataset and the files of one split, if today's policy allows that they go out as rows.

    The intended use is that of ``task``, else the one that the runs of the records were made for. Raises PolicyRefused
    with rule and clause, UsageError where the task is not the one the records are of, or where its terms are not known.
    """
    sealed = sealed_dataset(corpus, dataset)
    paths, run_ids = sealed.of_split(split), runs_of(sealed)
    if task is not None:
        check_sources(corpus, sealed.label, sealed.manifest, task)
    tasks = (
        [with_terms_of(corpus, task)]
        if task is not None
        else stored_tasks(corpus, sealed.label, run_ids, sealed.manifest)
    )
    touches = touches_of(corpus, tasks[0], sealed.manifest, sealed.files)
    run_id = next(iter(run_ids), "")
    gate(
        corpus,
        Subject(stage="export", name=sealed.label, kind="dataset", run_id=run_id, doing="exported"),
        tasks,
        touches,
        sealed.manifest.get("sources", ()),
    )
    return sealed, paths


def runs_of(sealed: Sealed) -> list[str]:
    """The runs whose records a sealed dataset holds."""
    if "runs" in sealed.manifest:
        return list(sealed.manifest["runs"])
    return sorted(set(read_columns(sealed.files, ["run_id"])["run_id"].to_pylist()))


def note_export(
    corpus: Corpus, sealed: Sealed, kind: str, split: str, path: Path, rows: int, *, by: str | None = None
) -> None:
    """Write into the ledger that rows went out, so that whoever erases one of them knows of the copy.

    ``by`` is who had them, through a service.
    """
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    told: dict[str, Json] = {"dataset": sealed.label, "manifest_sha256": sealed.manifest_sha256}
    told |= {"to": kind, "split": split, "rows": rows, "sha256": sha256} | ({} if by is None else {"by": by})
    with suppress(CorpusUnwritable):  # a corpus on a read-only disk has no place for it
        corpus.journal.run_now(lambda transaction: note_event(transaction, "dataset_exported", told))


def dataset_facts(corpus: Corpus, task: Task, dataset: str) -> DatasetFacts:
    """Everything that is known of a sealed dataset. Rights are those of the day it was sealed, not today's."""
    sealed, selection = sealed_dataset(corpus, dataset), find_selection(corpus, dataset)
    rows = read_columns(sealed.files, _COLUMNS)
    _check_spec(corpus, task, sealed, rows)
    judges = _judges(corpus, sealed)
    told = _card(corpus, task, selection, sealed, judges)
    told = replace(told, teachers=tuple(_teachers(told, rows)))
    manifest = sealed.manifest
    use = task.spec.intended_use
    return DatasetFacts(
        card=told,
        judges=frozenset(f"{judge.teacher}{_JUDGE}" for judge in judges.cards),
        files=tuple(
            DataFile(
                path=file.name,
                split=split_of(part),
                rows=file.rows,
                size_bytes=file.size_bytes,
                sha256=file.sha256,
                bucket=bucket_of(part) or "",
            )
            for part, file in selection.files.items()
        ),
        columns=tuple(map(_column, pq.read_schema(sealed.files[0]))),
        purpose=Purpose(
            student_distribution=use.student_distribution,
            student_competes=use.student_competes,
            commercial=use.commercial,
        ),
        personal_data=_personal_data(rows),
        output_tokens=_tokens(rows),
        asked_from=_moment(pc.min(rows["sent_time"]).as_py()),
        asked_until=_moment(pc.max(rows["received_time"]).as_py()),
        funnel=dict(manifest["funnel"]),
        manifest_sha256=sealed.manifest_sha256,
        registry_digest=manifest["registry_digest"],
        policy_digest=manifest["policy_digest"],
        licences=dict(manifest["counts"]["licence"]),
        made_with=f"corpusgen {version('corpusgen-distill')}",
        notes=tuple(_notes(sealed, judges)),
        agreements=tuple(map(_agreement, task.spec.agreements)),
        first_used=_first_used(corpus, sealed),
        released=tuple(_released(corpus, sealed)),
    )


def _agreement(one: Agreement) -> str:
    classes = ", ".join(one.classes) or "all personal data"
    regions = f" in {', '.join(one.regions)}" if one.regions else ""
    ends = f", until {one.valid_until}" if one.valid_until else ""
    return f"{one.id} ({one.kind}) with {one.host} on {classes}{regions}{ends}"


def _first_used(corpus: Corpus, sealed: Sealed) -> date | None:
    rows = corpus.journal.query(
        "select min(trained_us) from students where dataset = ? and json_extract(facts, '$.made_elsewhere') is null",
        (sealed.label,),
    )
    return None if rows[0][0] is None else moment(rows[0][0]).date()


def _released(corpus: Corpus, sealed: Sealed) -> Iterator[str]:
    """Releases of students that learned from a dataset, in words."""
    for said in (one.to_json() for one in noted_releases(corpus)):
        if sealed.manifest_sha256 in {one["manifest_sha256"] for one in said["datasets"]}:
            gone = said.get("withdrawn")
            over = f", withdrawn on {gone['withdrawn_time'][:10]}" if gone else ""
            day = said["released_time"][:10]
            yield f"{said['name']} ({said['release_id']}) on {day}, approved by {said['approver']}{over}"


def _check_spec(corpus: Corpus, task: Task, sealed: Sealed, rows: pa.Table) -> None:
    """Raise UsageError unless the spec says what the runs of the records said of sources and use."""
    if task.spec.name != sealed.name:
        raise UsageError(f"{sealed.label} is of task {sealed.name!r}, and --spec is of task {task.spec.name!r}")
    for run_id in pc.unique(rows["run_id"]).to_pylist():
        if run_id.startswith(RUN):  # an import has no spec
            continue
        for (text,) in corpus.journal.query("select spec from runs where run_id = ?", (run_id,)):
            if differing := _differing({**orjson.loads(text), **_declared(sealed)}, task.spec):
                raise UsageError(
                    f"{sealed.label}: run {run_id} was made with other {' and '.join(differing)} than"
                    f" {task.located.file} says; name the spec as it was then"
                )


def _declared(sealed: Sealed) -> dict[str, Json]:
    """The intended use that a dataset was sealed for; nothing of one that an earlier version sealed."""
    found = sealed.manifest.get("intended_use")
    return {} if found is None else {"intended_use": found}


def _differing(stored: Mapping[str, Json], spec: TaskSpec) -> list[str]:
    """Fields that a document takes from the spec, and a sealed dataset does not carry itself."""
    told = {
        "kind": stored["kind"],
        "intended_use": IntendedUse.model_validate_json(orjson.dumps(stored["intended_use"])),
        "sources": _bound(Source.model_validate_json(orjson.dumps(source)) for source in stored["sources"]),
    }
    says = {"kind": spec.kind, "intended_use": spec.intended_use, "sources": _bound(spec.sources)}
    return [field for field, value in told.items() if says[field] != value]


def _bound(sources: Iterable[Source]) -> list[tuple[str | None, ...]]:
    """What of sources may not be said otherwise later; whose they are and how they were come by may be found out."""
    return [(one.id, one.title, one.licence, one.locator, one.notice) for one in sources]


def _judges(corpus: Corpus, sealed: Sealed) -> Judges:
    judges = Judges(corpus)
    if "judges" in sealed.manifest:
        for _ in judges.watching(read_records(sealed.files)):
            pass
    return judges


def _card(corpus: Corpus, task: Task, selection: Selection, sealed: Sealed, judges: Judges) -> CardFacts:
    """The facts of the card with the rights that the manifest has: today's terms may be others."""
    manifest = sealed.manifest
    surveyed = Survey(rows=sealed.rows, merkle_root=manifest["merkle"]["root"], counts=manifest["counts"], problems=())
    made = card_facts(corpus, task, selection, surveyed, judges, (), manifest.get("configs", {}))
    expressions = [*manifest["counts"]["licence"]]
    known = {name for expression in expressions for name in licences_in(expression)}
    judged = {terms.spdx for one in made.teachers if one.name.endswith(_JUDGE) for terms in one.terms}
    return replace(
        made,
        licence_expression=_together([*expressions, *sorted(judged - known)]),
        created_time=datetime.fromisoformat(manifest["created_time"]),
        duties=tuple(map(_duty, manifest["duties"])),
    )


def _teachers(card: CardFacts, rows: pa.Table) -> Iterator[CardTeacher]:
    """Each teacher once by the way it was reached, with its own rows; a corpus may know it from other tasks too."""
    counted = rows.group_by(list(_REACHED)).aggregate([([], "count_all")]).to_pylist()
    wrote = {tuple(row[name] for name in _REACHED): row["count_all"] for row in counted}
    alike: dict[tuple[str, ...], list[CardTeacher]] = {}
    for one in card.teachers:
        alike.setdefault((one.name, one.route, one.host), []).append(one)
    for way, ones in alike.items():
        terms = tuple(dict.fromkeys(terms for one in ones for terms in one.terms))
        grants = " or ".join(dict.fromkeys(one.outputs_train for one in ones))
        if way in wrote or ones[0].name.endswith(_JUDGE):
            yield replace(ones[0], terms=terms, outputs_train=grants, records=wrote.get(way, ones[0].records))


def _together(expressions: Sequence[str]) -> str:
    if len(expressions) == 1:
        return expressions[0]
    return " AND ".join(f"({one})" if " OR " in one else one for one in _unequal(expressions))


def _unequal(expressions: Iterable[str]) -> list[str]:
    """The licences that all apply, each once; a choice stays whole."""
    parts = [part for one in expressions for part in ([one] if " OR " in one else one.split(" AND "))]
    return list(dict.fromkeys(part.strip() for part in parts))


def _duty(duty: Mapping[str, Json]) -> CardDuty:
    return CardDuty(**{name: duty[name] for name in ("kind", "applies_to", "text", "terms_id")})


def _personal_data(rows: pa.Table) -> PersonalData:
    kinds: Counter[str] = Counter()
    looked_at = 0
    for found in rows["pii_kinds"].to_pylist():
        looked_at += found is not None
        kinds.update(set(found or ()))
    return PersonalData(looked_at=looked_at, kinds=dict(sorted(kinds.items())))


def _tokens(rows: pa.Table) -> dict[str, int]:
    summed = rows.group_by("teacher").aggregate([("output_tokens", "sum")]).to_pydict()
    return dict(sorted(zip(summed["teacher"], summed["output_tokens_sum"], strict=True)))


def _moment(value: datetime | None) -> datetime | None:
    return None if value is None else value.astimezone(UTC)


def _notes(sealed: Sealed, judges: Judges) -> Iterable[str]:
    if sealed.manifest["funnel"].get("judged too low") and not judges.cards:
        yield "A judge dropped records, and no row that was kept names it; see the duties and terms in the manifest."


def _column(field: pa.Field) -> Column:
    kind, repeated = field.type, pa.types.is_list(field.type)
    if repeated:
        kind = kind.value_type
    parts = tuple(map(_column, kind)) if pa.types.is_struct(kind) else ()
    return Column(name=field.name, kind=_kind(kind), repeated=repeated, parts=parts)


def _kind(kind: pa.DataType) -> ColumnKind:
    told: dict[ColumnKind, Callable[[pa.DataType], bool]] = {
        "struct": pa.types.is_struct,
        "boolean": pa.types.is_boolean,
        "integer": pa.types.is_integer,
        "number": pa.types.is_floating,
        "time": pa.types.is_timestamp,
        "bytes": pa.types.is_binary,
    }
    return next((name for name, fits in told.items() if fits(kind)), "text")
