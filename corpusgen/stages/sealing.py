"""Sealing: a dataset version nobody can change unnoticed, in a folder any reader can open."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import orjson
import pyarrow.compute as pc

from corpusgen.corpus import Corpus
from corpusgen.errors import CorpusDamaged, SealRefused, UsageError
from corpusgen.export.card import CardDuty, CardFacts, CardSource, CardSpend, CardSplit, CardTeacher, CardTerms, card
from corpusgen.export.completeness import complete_card
from corpusgen.journal import Transaction
from corpusgen.provenance.events import note_event
from corpusgen.provenance.policy import Decision, Duty
from corpusgen.provenance.seal import DatasetFile, Survey, manifest, manifest_digest, sealed_facts, survey
from corpusgen.records import SCHEMA_VERSION, Json, Record, canonical_json
from corpusgen.spec import Source
from corpusgen.stages.committing import one_at_a_time
from corpusgen.stages.erasure.erasures import refuse_revoked
from corpusgen.stages.imports.importing import imported_sources
from corpusgen.stages.judges import Judges, check_judges
from corpusgen.stages.lineage.attesting import attest
from corpusgen.stages.parents import descent
from corpusgen.stages.parting import BUCKETS, bucket_of, buckets_of, by_bucket, gone_if_refused, parted, take_back
from corpusgen.stages.runs import OF_RUN
from corpusgen.stages.selecting import Selection, find_selection, split_of
from corpusgen.stages.task import Task, connect
from corpusgen.stages.terms.deciding import decisions_for, refusal, with_terms_of
from corpusgen.stages.terms.quarantine import refuse_put_aside
from corpusgen.stages.terms.rejudging import (
    Touch,
    check_mix,
    judged_today,
    parents_of,
    stored_cards,
    touches_of_choice,
    touches_of_rows,
)
from corpusgen.store.answers import Card
from corpusgen.store.durable import publish, write_file
from corpusgen.store.shards import read_columns, read_records, verify_shard
from corpusgen.teachers.imported import ROUTE, SCHEME

_LIMITATIONS = {
    "label": "Answers are a model's, not a person's; they are wrong as often as the run's report says.",
    "response": "Answers are a model's, not a person's; nobody has checked what they say.",
}
README: Final = "README.md"
"""The card of a dataset, in its folder."""
_FILE_OF_PART = r"(-\d+-of-\d+)?\.parquet"
_JUDGED = "A judge has scored answers; rows with a verdict judge carry its score and the id of its judgement."


@dataclass(frozen=True, kw_only=True)
class Sealed:
    """A sealed dataset: its folder, its files and its manifest."""

    name: str
    version: str
    folder: Path
    rows: int
    manifest: dict[str, Json]
    manifest_sha256: str

    @property
    def files(self) -> list[Path]:
        """The Parquet files: one for each split, or for each bucket of licences in it where those differ."""
        return [self.folder / one["path"] for one in self.manifest["files"]]

    def of_split(self, split: str = "train") -> list[Path]:
        """The Parquet files of a split. Raises UsageError naming the splits there are."""
        found = [path for path in self.files if split_of(path.name) == split]
        if not found:
            there = ", ".join(dict.fromkeys(split_of(one.name) for one in self.files))
            raise UsageError(f"{self.label} has no split {split!r}; there are: {there}")
        return found

    def file(self, split: str = "train") -> Path:
        """The one Parquet file of a split. Raises UsageError where there is none, or more than one."""
        found = self.of_split(split)
        if len(found) > 1:
            names = ", ".join(path.name for path in found)
            raise UsageError(f"{self.label}: split {split!r} lies in {len(found)} files by licence: {names}")
        return found[0]

    @property
    def label(self) -> str:
        """``name-version``."""
        return f"{self.name}-{self.version}"


def seal(corpus: Corpus, task: Task, selection: Selection, *decisions: Decision) -> Sealed:
    """Check a selected version, write its card, and publish its folder. Sealing a sealed version checks it again.

    Raises SealRefused when a record's provenance is incomplete, PolicyRefused when today's terms do not allow training,
    CorpusDamaged when the selected file is not what was selected.
    """
    for decision in decisions:
        if decision.outcome != "allow":
            raise refusal(corpus, task, decision)
    with one_at_a_time(corpus.folder / ".datasets.lock"):
        return _seal(corpus, with_terms_of(corpus, task), find_selection(corpus, selection.label), decisions)


def seal_by_todays_terms(corpus: Corpus, task: Task, dataset: str) -> Sealed:
    """Seal a selected version, by its label or the newest of a name, deciding now about each teacher of its task."""
    on = corpus.clock().date()
    views = task.of_each_teacher if task.judging is None else (*task.of_each_teacher, task.judging)
    cards = [connect(view, corpus.clock, sending=False).card for view in views]
    decisions = [one for view, card in zip(views, cards, strict=True) for one in decisions_for(corpus, view, card, on)]
    return seal(corpus, task, find_selection(corpus, dataset), *decisions)


def _seal(corpus: Corpus, task: Task, selection: Selection, decisions: Sequence[Decision]) -> Sealed:
    refuse_revoked(corpus, selection.label)
    final = corpus.folder / "datasets" / selection.label
    if selection.status != "sealed" and final.exists():
        take_back(final, selection.folder)  # a process that was killed had published it, but not noted it
    _check_files(selection)
    if selection.status == "sealed":
        found = sealed_dataset(corpus, selection.label)
        attest(corpus)  # a process that was killed may have noted the sealing, and not signed it
        return found
    refuse_put_aside(corpus, task, selection.label, selection.paths)
    judges, secret = Judges(corpus), corpus.new_secret()
    records = (record_row(record) for record in judges.watching(read_records(selection.paths)))
    surveyed = survey(records, secret=secret)
    if surveyed.problems:
        shown = "\n".join(map(str, surveyed.problems[:10]))
        raise SealRefused(f"{selection.label} cannot be sealed, provenance is incomplete:\n{shown}")
    rights = _rights(corpus, task, selection, judges, decisions)
    of_the_same_rights(selection.label, surveyed.counts, *rights.wrote)
    check_judges(selection.label, judges, rights.judged)
    laid_out = parted(selection, buckets_of(rights.wrote, rights.judged))
    with gone_if_refused(laid_out, selection):
        if laid_out is not selection:
            surveyed = survey((record_row(record) for record in read_records(laid_out.paths)), secret=secret)
        for files in by_bucket(laid_out):
            check_mix(corpus, task, selection.label, _teachers_in(files))
        configs = licences_by_bucket(laid_out, rights.judged)
        facts = card_facts(corpus, task, laid_out, surveyed, judges, rights.every, configs)
        _check_complete(task, facts)
        readme = card(facts).encode()
        sealed = _manifest(corpus, task, laid_out, surveyed, judges, rights, facts)
        sealed |= {"readme_sha256": hashlib.sha256(readme).hexdigest()}
        write_file(laid_out.folder / README, readme)
        write_file(seal_file(corpus, selection.label), canonical_json(sealed) + b"\n")
        publish(laid_out.folder, final)
    corpus.journal.run_now(lambda transaction: _note(transaction, laid_out, sealed, secret))
    if laid_out is not selection:
        shutil.rmtree(selection.folder)
    attest(corpus)
    return Sealed(
        name=selection.name,
        version=selection.version,
        folder=final,
        rows=surveyed.rows,
        manifest=sealed,
        manifest_sha256=manifest_digest(sealed),
    )


@dataclass(frozen=True, kw_only=True)
class _Rights:
    """What the terms say of everybody who did something for a dataset."""

    touched: tuple[Touch, ...]
    wrote: tuple[Decision, ...]
    judged: tuple[Decision, ...]

    @property
    def every(self) -> tuple[Decision, ...]:
        return (*self.wrote, *self.judged)


def _rights(corpus: Corpus, task: Task, selection: Selection, judges: Judges, decisions: Sequence[Decision]) -> _Rights:
    """The given decisions that are about the rows; of answers under other terms than today's, what those say today.

    Raises PolicyRefused where they do not allow it.
    """
    judge = None if task.judging is None else task.judging.teacher.name
    judging = [one for one in decisions if one.teacher.name == judge and one.role in ("judge", "filter")]
    touched = touches_of_rows(corpus, task, selection.paths, judges)
    if not judges.cards and "judged too low" in selection.funnel:  # whom it dropped, no row tells of
        touched = (*touched, *(Touch.of_decision(one) for one in judging))
    if selection.calibration is not None:
        touched = (*touched, *touches_of_choice(corpus, selection.name, selection.calibration))
    given = {(one.teacher.name, one.terms_set_id, one.role): one for one in decisions}
    named = {one.name for one in task.spec.teachers} | {judge}
    kept = (one for one in touched if one.above or one.chose or one.teacher.route == "imported")
    about = [*kept, *(one for one in touched if one.teacher.name in named)]
    found = {
        touch: given.get((touch.teacher.name, touch.terms_set_id, touch.role)) or one
        for touch, one in judged_today(corpus, task, about).items()
    }
    for decision in found.values():
        if decision.outcome != "allow":
            raise refusal(corpus, task, decision)
    # Who wrote what rows were made from binds them as a judge does: no row is freer than what it descends from.
    # So does who wrote no row and chose how labels are read.
    wrote = [one for touch, one in found.items() if touch.wrote]
    judged = [one for touch, one in found.items() if not touch.wrote and not (touch.chose and one in wrote)]
    return _Rights(touched=touched, wrote=tuple(dict.fromkeys(wrote)), judged=tuple(dict.fromkeys(judged)))


def _check_complete(task: Task, facts: CardFacts) -> None:
    """Raise SealRefused that names each thing the dataset does not tell of itself, and where to write it."""
    if gaps := complete_card(facts):
        lines = [f"{_place(task, gap.field)}{gap}" for gap in gaps]
        raise SealRefused(f"{facts.name}-{facts.version} lacks what must be told:\n" + "\n".join(lines))


def _place(task: Task, field: str) -> str:
    """The line of the spec that a gap is about, where there is one."""
    names = [source.id for source in task.spec.sources]
    what, _, name = field.partition(".")
    return f"{task.located.where(what, names.index(name))}: " if what == "sources" and name in names else ""


def _check_files(selection: Selection) -> None:
    for path, file in zip(selection.paths, selection.files.values(), strict=True):
        if (problem := verify_shard(path, file)) is not None:
            raise CorpusDamaged(problem)


def _check_sealed_files(selection: Selection, sealed: Mapping[str, Json]) -> None:
    """Raise CorpusDamaged unless the journal's list of files is the one in the seal, which alone is signed."""
    listed = {one["path"]: (one["rows"], one["sha256"]) for one in sealed["files"]}
    there = {one.name: (one.rows, one.sha256) for one in selection.files.values()}
    for name in sorted(listed.keys() | there.keys()):
        if listed.get(name) != there.get(name):
            raise CorpusDamaged(f"{selection.label}: the journal tells of another {name} than the one that was sealed")
    for part, file in selection.files.items():
        if not re.fullmatch(re.escape(part) + _FILE_OF_PART, file.name):
            raise CorpusDamaged(f"{selection.label}: {file.name} stands in the journal as {part!r}, which it is not")


def of_the_same_rights(label: str, counts: Mapping[str, Mapping[str, int]], *decisions: Decision) -> None:
    """Raise SealRefused unless every record has a teacher, terms and a licence that a decision is about.

    A decision is made about a spec, and records are not always made by the spec somebody names.
    """
    judged = {
        "teacher": [one.teacher.name for one in decisions],
        "terms": [one.terms_set_id for one in decisions],
        "licence": [one.licence_expression for one in decisions],
    }
    for what, allowed in judged.items():
        others = sorted(counts[what].keys() - set(allowed))
        if others:
            stands_for = " and ".join(map(repr, dict.fromkeys(allowed)))
            raise SealRefused(
                f"{label}: the spec stands for {what} {stands_for}, but {counts[what][others[0]]} records have"
                f" {others[0]!r}; name the spec they were made with, or select one run with --run"
            )


def sealed_dataset(corpus: Corpus, dataset: str) -> Sealed:
    """A dataset that is sealed and unaltered. Raises SealRefused or CorpusDamaged otherwise."""
    selection = find_selection(corpus, dataset)
    refuse_revoked(corpus, selection.label)
    if selection.status != "sealed":
        raise SealRefused(
            f"{selection.label} is {selection.status}; seal it first: corpusgen seal {selection.label} --spec task.yaml"
        )
    _check_files(selection)
    text = corpus.journal.query(
        "select manifest from datasets where name = ? and version = ?", (selection.name, selection.version)
    )[0][0]
    sealed = orjson.loads(text)["seal"]
    _check_sealed_files(selection, sealed)
    return Sealed(
        name=selection.name,
        version=selection.version,
        folder=selection.folder,
        rows=selection.rows,
        manifest=sealed,
        manifest_sha256=manifest_digest(sealed),
    )


def record_row(record: Record) -> dict[str, Any]:
    """A record's columns by name."""
    return {name: getattr(record, name) for name in record.__dataclass_fields__}


def _duties(decisions: Sequence[Decision]) -> tuple[Duty, ...]:
    return tuple(dict.fromkeys(duty for one in decisions for duty in one.duties))


def licence_of(decisions: Sequence[Decision]) -> str:
    """What holds for all rows together, whichever teacher a row is of."""
    return _together([one.licence_expression for one in decisions])


def _together(expressions: Sequence[str]) -> str:
    every = list(dict.fromkeys(expressions))
    return every[0] if len(every) == 1 else " AND ".join(f"({one})" if " " in one else one for one in every)


def _manifest(
    corpus: Corpus,
    task: Task,
    selection: Selection,
    surveyed: Survey,
    judges: Judges,
    rights: _Rights,
    facts: CardFacts,
) -> dict[str, Json]:
    cards, decisions = stored_cards(corpus), rights.every
    sets = surveyed.counts["terms"].keys() | {card.terms_set_id for card in judges.cards}
    sets |= {touch.terms_set_id for touch in rights.touched if touch.chose}
    fields = manifest(
        name=selection.name,
        version=selection.version,
        files=[DatasetFile(path=one.name, rows=one.rows, sha256=one.sha256) for one in selection.files.values()],
        surveyed=surveyed,
        duties=_duties(decisions),
        terms={card.terms_set_id: card.terms_ids for card in cards if card.terms_set_id in sets},
        registry_digest=decisions[0].registry_digest,
        policy_digest=decisions[0].policy_digest,
        created_time=corpus.clock(),
        record_schema_version=SCHEMA_VERSION,
    )
    calibration = selection.calibration
    return fields | {
        "filters": selection.filters.to_json(),
        "funnel": selection.funnel,
        "calibration": None if calibration is None else calibration.to_json(),
        **({"judges": judges.to_json()} if judges.cards else {}),
        "touched": [touch.to_json() for touch in rights.touched],
        "sources": [source_json(source) for source in facts.sources],
        "intended_use": task.spec.intended_use.model_dump(mode="json"),
        "runs": sorted(set(read_columns(selection.paths, ["run_id"])["run_id"].to_pylist())),
        **({"configs": dict(facts.configs)} if facts.configs else {}),
    }


def licences_by_bucket(selection: Selection, judged: Sequence[Decision]) -> dict[str, str]:
    """The licence of the rows of each bucket, where they lie in files of their own."""
    licences: dict[str, dict[str, None]] = {}
    for part, path in zip(selection.files, selection.paths, strict=True):
        if (bucket := bucket_of(part)) is not None:
            found = pc.unique(read_columns([path], ["licence_expression"])["licence_expression"])
            licences.setdefault(bucket, {}).update(dict.fromkeys(found.to_pylist()))
    of_judges = [one.licence_expression for one in judged]
    return {name: _together([*licences[name], *of_judges]) for name in BUCKETS if name in licences}


def source_json(source: CardSource) -> dict[str, Json]:
    """A source as a manifest tells of it, with the text that must go along with every copy."""
    told = asdict(source) | {"acquired": source.acquired and source.acquired.isoformat()}
    return {name: value for name, value in told.items() if value not in (None, ())}


def _note(transaction: Transaction, selection: Selection, sealed: dict[str, Json], secret: bytes) -> None:
    row = transaction.execute(
        "select manifest from datasets where name = ? and version = ?", (selection.name, selection.version)
    ).fetchone()
    assert row is not None
    files = {part: asdict(file) for part, file in selection.files.items()}
    fields = orjson.loads(row[0]) | {"files": files, "seal": sealed}
    transaction.execute(
        "update datasets set status = 'sealed', manifest = ?, sealed_us = ? where name = ? and version = ?",
        (orjson.dumps(fields).decode(), transaction.now_us, selection.name, selection.version),
    )
    transaction.execute("insert into dataset_secrets values(?, ?, ?)", (selection.name, selection.version, secret))
    note_event(transaction, "dataset_sealed", sealed_facts(sealed))


def seal_file(corpus: Corpus, label: str) -> Path:
    """Where the manifest of a sealed dataset lies, beside its folder."""
    return corpus.folder / "datasets" / f"{label}.seal.json"


def dataset_secret(corpus: Corpus, selection: Selection) -> bytes | None:
    """What the leaves of a sealed dataset are salted with; None for those that were sealed without."""
    rows = corpus.journal.query(
        "select secret from dataset_secrets where name = ? and version = ?", (selection.name, selection.version)
    )
    return rows[0][0] if rows else None


def card_facts(
    corpus: Corpus,
    task: Task,
    selection: Selection,
    surveyed: Survey,
    judges: Judges,
    decisions: Sequence[Decision],
    configs: Mapping[str, str],
) -> CardFacts:
    """What the dataset's card says; ``configs`` are the licences of buckets, where rows lie parted."""
    spec = task.spec
    return CardFacts(
        name=selection.name,
        version=selection.version,
        licence_expression=licence_of(decisions),
        created_time=corpus.clock(),
        rows=surveyed.rows,
        columns_version=SCHEMA_VERSION,
        splits=tuple(
            CardSplit(name=split_of(part), pattern=f"{part}-*.parquet", rows=file.rows, config=_config(part, configs))
            for part, file in selection.files.items()
        ),
        configs=configs,
        teachers=(*_card_teachers(corpus, task, surveyed), *_card_judges(task, judges)),
        sources=tuple(_card_sources(corpus, task, selection)),
        duties=tuple(
            CardDuty(kind=duty.kind, applies_to=duty.applies_to, text=duty.text, terms_id=duty.terms_id)
            for duty in _duties(decisions)
        ),
        description=spec.description,
        task_categories=("text-classification",) if spec.kind == "label" else ("text-generation",),
        spend=_card_spend(corpus, selection),
        labels=_labels(selection) if spec.kind == "label" else {},
        imported=sum(rows for name, rows in surveyed.counts["teacher"].items() if name.startswith(SCHEME)),
        how_made=(
            *_how_rows_came(surveyed),
            "Exact repeats, and texts that also stand in validation or gold, were dropped before anything was asked.",
            *([f"Labels are calibrated ({selection.calibration.kind})."] if selection.calibration else []),
            *([_JUDGED] if judges.cards else []),
        ),
        limitations=(_LIMITATIONS[spec.kind],),
        merkle_root=surveyed.merkle_root,
        spec_digest=task.identity,
        prompt_digest=task.prompter.file.digest,
    )


def _how_rows_came(surveyed: Survey) -> Iterator[str]:
    imported = sum(rows for name, rows in surveyed.counts["teacher"].items() if name.startswith(SCHEME))
    if imported < surveyed.rows:
        yield "Every row is one answer of the teacher named in it, asked with the prompt whose digest it carries."
    if imported:
        told = "Of those that name an import in a teacher's place" if imported < surveyed.rows else "Of all rows"
        yield f"{told} ({imported:,}), nobody was asked: they came from outside as they are, from the source they name."


def _card_teachers(corpus: Corpus, task: Task, surveyed: Survey) -> Iterator[CardTeacher]:
    # A teacher has a card for each version of its terms or runtime; the dataset's reader wants one row of each.
    for card_ in {(one.teacher, one.route, one.host, one.terms_ids): one for one in stored_cards(corpus)}.values():
        records = 0 if card_.route == ROUTE else surveyed.counts["teacher"].get(card_.teacher, 0)
        if records and card_.terms_set_id in surveyed.counts["terms"]:
            yield _card_teacher(task, card_, card_.teacher, records)


def _card_judges(task: Task, judges: Judges) -> Iterator[CardTeacher]:
    for card_, records in judges.cards.items():
        yield _card_teacher(task, card_, f"{card_.teacher} (judge)", records)


def _card_teacher(task: Task, card_: Card, name: str, records: int) -> CardTeacher:
    documents = task.registry.by_id
    terms = [documents[name] for name in card_.terms_ids if name in documents]
    return CardTeacher(
        name=name,
        provider=card_.provider,
        model=card_.model,
        route=card_.route,
        host=card_.host,
        records=records,
        terms=tuple(CardTerms(terms_id=one.id, title=one.title, version=one.version, spdx=one.spdx) for one in terms),
        outputs_train=card_.outputs_train,
    )


def _card_sources(corpus: Corpus, task: Task, selection: Selection) -> Iterator[CardSource]:
    table = read_columns(selection.paths, ["source_ids"])
    records: Counter[str] = Counter()
    for names in table["source_ids"].to_pylist():
        records.update({name.partition("#")[0] for name in names})
    for source in task.spec.sources:
        yield card_source(source, records[source.id], notice_of(task, source))
    named = {source.id for source in task.spec.sources}
    above = descent(corpus, parents_of(selection.paths))
    imports = [*_teachers_in(selection.paths), *(card.teacher for card, _ in above.writers)]
    for one in imported_sources(corpus, imports):
        if one.source.id not in named:
            named.add(one.source.id)
            yield card_source(one.source, records[one.source.id], one.notice)
    for source in above.sources:
        if source.id not in named:
            named.add(source.id)
            yield card_source(source, None, None)
    if lost := sorted(records.keys() - named):
        raise SealRefused(
            f"{selection.label}: {records[lost[0]]} rows are of source {lost[0]!r}, which {task.located.file} does not"
            " name; write it under sources, or name the spec its records were made with"
        )


def _teachers_in(paths: Sequence[Path]) -> list[str]:
    found: list[str] = pc.unique(read_columns(paths, ["teacher"])["teacher"]).to_pylist()
    return found


def notice_of(task: Task, source: Source) -> str | None:
    """The notice of a source of a task, word for word."""
    return task.located.resolve(source.notice).read_text("utf-8") if source.notice else None


def card_source(source: Source, records: int | None, notice: str | None) -> CardSource:
    """A source as a card tells of it."""
    alike = ("title", "licence", "locator", "generated_by", "rightsholder", "acquisition", "acquired")
    more = ("copyright_status", "personal_data", "lawful_basis", "processing_regions")
    told = {name: getattr(source, name) for name in (*alike, *more)}
    return CardSource(source_id=source.id, records=records, notice=notice, **told)


def _config(part: str, configs: Mapping[str, str]) -> str:
    """The configuration of a part; of parted rows, a split that holds none is in none."""
    return (bucket_of(part) or "") if configs else "default"


def _labels(selection: Selection) -> dict[str, dict[str, int]]:
    """Records per label, by split."""
    counts: dict[str, Counter[str]] = {}
    for part, path in zip(selection.files, selection.paths, strict=True):
        column = read_columns([path], ["calibrated_label"])["calibrated_label"]
        counts.setdefault(split_of(part), Counter()).update(map(str, column.to_pylist()))
    return {split: dict(sorted(found.items())) for split, found in counts.items()}


def _card_spend(corpus: Corpus, selection: Selection) -> CardSpend:
    columns = ["input_tokens", "output_tokens", "run_id"]
    table = read_columns(selection.paths, columns).to_pydict()
    totals = [_run_spend(corpus, run_id) for run_id in sorted(set(table["run_id"]))]
    settled, promised, unconfirmed, requests = (sum(figures) for figures in zip(*totals, strict=True))
    return CardSpend(
        settled_microusd=settled,
        promised_microusd=promised,
        unconfirmed_microusd=unconfirmed,
        requests=requests,
        input_tokens=sum(table["input_tokens"]),
        output_tokens=sum(table["output_tokens"]),
    )


def _run_spend(corpus: Corpus, run_id: str) -> tuple[int, int, int, int]:
    row = corpus.journal.query(
        "select coalesce(sum(microusd), 0), coalesce(sum(iif(state = 'promised', reserved_microusd, 0)), 0),"  # noqa: S608
        " coalesce(sum(iif(state = 'unknown', reserved_microusd, 0)), 0), coalesce(sum(role != 'train'), 0) from calls"
        f" where {OF_RUN}",
        (run_id,),
    )[0]
    return row[0], row[1], row[2], row[3]
