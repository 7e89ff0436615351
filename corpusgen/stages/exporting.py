"""Documents about a sealed dataset for other tools and for lawyers, from its manifest, its rows and its spec."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from corpusgen.corpus import Corpus
from corpusgen.errors import SealRefused, UsageError
from corpusgen.export.card import CardDuty, CardFacts, CardTeacher
from corpusgen.export.completeness import complete, licences_in
from corpusgen.export.croissant import croissant
from corpusgen.export.facts import Column, ColumnKind, DataFile, DatasetFacts, Document, PersonalData, Purpose
from corpusgen.export.notice import notice
from corpusgen.export.sheets import ab2013, eu_2_5, nist_600_1
from corpusgen.export.spdx import spdx
from corpusgen.provenance.seal import Survey
from corpusgen.records import Json
from corpusgen.spec import IntendedUse, Source, TaskSpec
from corpusgen.stages.judges import Judges
from corpusgen.stages.sealing import Sealed, card_facts, sealed_dataset
from corpusgen.stages.selecting import Selection, find_selection
from corpusgen.stages.task import Task
from corpusgen.store.durable import make_folder, write_file
from corpusgen.store.shards import read_columns, read_records

DOCUMENTS: Final[Mapping[str, Callable[[DatasetFacts], Document]]] = {
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


def dataset_facts(corpus: Corpus, task: Task, dataset: str) -> DatasetFacts:
    """Everything that is known of a sealed dataset. Rights are those of the day it was sealed, not today's."""
    sealed, selection = sealed_dataset(corpus, dataset), find_selection(corpus, dataset)
    rows = read_columns(sealed.files, _COLUMNS)
    _check_spec(corpus, task, sealed, rows)
    judges = _judges(corpus, sealed)
    card = _card(corpus, task, selection, sealed, judges)
    card = replace(card, teachers=tuple(_teachers(card, rows)))
    manifest = sealed.manifest
    use = task.spec.intended_use
    return DatasetFacts(
        card=card,
        judges=frozenset(f"{judge.teacher}{_JUDGE}" for judge in judges.cards),
        files=tuple(
            DataFile(path=file.name, split=split, rows=file.rows, size_bytes=file.size_bytes, sha256=file.sha256)
            for split, file in selection.files.items()
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
    )


def _check_spec(corpus: Corpus, task: Task, sealed: Sealed, rows: pa.Table) -> None:
    """Raise UsageError unless the spec says what the runs of the records said of sources and use."""
    if task.spec.name != sealed.name:
        raise UsageError(f"{sealed.label} is of task {sealed.name!r}, and --spec is of task {task.spec.name!r}")
    for run_id in pc.unique(rows["run_id"]).to_pylist():
        for (text,) in corpus.journal.query("select spec from runs where run_id = ?", (run_id,)):
            if differing := _differing(orjson.loads(text), task.spec):
                raise UsageError(
                    f"{sealed.label}: run {run_id} was made with other {' and '.join(differing)} than"
                    f" {task.located.file} says; name the spec as it was then"
                )


def _differing(stored: Mapping[str, Json], spec: TaskSpec) -> list[str]:
    """Fields that a document takes from the spec, and a sealed dataset does not carry itself."""
    told = {
        "kind": stored["kind"],
        "intended_use": IntendedUse.model_validate_json(orjson.dumps(stored["intended_use"])),
        "sources": tuple(Source.model_validate_json(orjson.dumps(source)) for source in stored["sources"]),
    }
    return [field for field, value in told.items() if getattr(spec, field) != value]


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
    made = card_facts(corpus, task, selection, surveyed, judges, ())
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
