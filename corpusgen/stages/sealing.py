"""Sealing: a dataset version nobody can change unnoticed, in a folder any reader can open."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from corpusgen.corpus import Corpus
from corpusgen.errors import CorpusDamaged, SealRefused, UsageError
from corpusgen.export.card import CardDuty, CardFacts, CardSource, CardSpend, CardSplit, CardTeacher, CardTerms, card
from corpusgen.journal import Transaction
from corpusgen.provenance.policy import Decision, Duty
from corpusgen.provenance.seal import DatasetFile, Survey, manifest, manifest_digest, survey
from corpusgen.records import SCHEMA_VERSION, Json, Record, canonical_json
from corpusgen.stages.committing import one_at_a_time
from corpusgen.stages.judges import Judges, check_judges
from corpusgen.stages.opening import OF_RUN, refusal
from corpusgen.stages.selecting import Selection, data_file, find_selection
from corpusgen.stages.task import Task
from corpusgen.store.answers import Card
from corpusgen.store.durable import publish, write_file
from corpusgen.store.shards import ShardFile, read_columns, read_records, verify_shard

_LIMITATIONS = {
    "label": "Answers are a model's, not a person's; they are wrong as often as the run's report says.",
    "response": "Answers are a model's, not a person's; nobody has checked what they say.",
}
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
        """The Parquet files, one for each split."""
        return [self.folder / one["path"] for one in self.manifest["files"]]

    def file(self, split: str = "train") -> Path:
        """The Parquet file of a split. Raises UsageError naming the splits there are."""
        path = self.folder / data_file(split)
        if path not in self.files:
            there = ", ".join(one.name.partition("-")[0] for one in self.files)
            raise UsageError(f"{self.label} has no split {split!r}; there are: {there}")
        return path

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
            raise refusal(task, decision)
    with one_at_a_time(corpus.folder / ".datasets.lock"):
        return _seal(corpus, task, find_selection(corpus, selection.label), decisions)


def _seal(corpus: Corpus, task: Task, selection: Selection, decisions: Sequence[Decision]) -> Sealed:
    final = corpus.folder / "datasets" / selection.label
    if selection.status != "sealed" and final.exists():
        final.rename(selection.folder)  # a process that was killed had published it, but not noted it
    _check_files(selection)
    if selection.status == "sealed":
        return sealed_dataset(corpus, selection.label)
    judges = Judges(corpus)
    surveyed = survey(record_row(record) for record in judges.watching(read_records(selection.paths)))
    if surveyed.problems:
        shown = "\n".join(map(str, surveyed.problems[:10]))
        raise SealRefused(f"{selection.label} cannot be sealed, provenance is incomplete:\n{shown}")
    of_the_same_rights(selection.label, surveyed.counts, *(one for one in decisions if one.role != "judge"))
    check_judges(selection.label, judges, decisions)
    answered = [one for one in decisions if one.role != "judge" and surveyed.counts["teacher"].get(one.teacher.name)]
    judged = bool(judges.cards) or "judged too low" in selection.funnel
    answered += [one for one in decisions if one.role == "judge" and judged]
    sealed = _manifest(corpus, selection, surveyed, judges, answered)
    facts = card_facts(corpus, task, selection, surveyed, judges, answered)
    write_file(selection.folder / "README.md", card(facts).encode())
    write_file(corpus.folder / "datasets" / f"{selection.label}.seal.json", canonical_json(sealed) + b"\n")
    publish(selection.folder, final)
    corpus.journal.run_now(lambda transaction: _note(transaction, selection, sealed))
    return Sealed(
        name=selection.name,
        version=selection.version,
        folder=final,
        rows=surveyed.rows,
        manifest=sealed,
        manifest_sha256=manifest_digest(sealed),
    )


def _check_files(selection: Selection) -> None:
    for path, file in zip(selection.paths, selection.files.values(), strict=True):
        if (problem := verify_shard(path, file)) is not None:
            raise CorpusDamaged(problem)


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
    if selection.status != "sealed":
        raise SealRefused(
            f"{selection.label} is {selection.status}; seal it first: corpusgen seal {selection.label} --spec task.yaml"
        )
    _check_files(selection)
    text = corpus.journal.query(
        "select manifest from datasets where name = ? and version = ?", (selection.name, selection.version)
    )[0][0]
    sealed = orjson.loads(text)["seal"]
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
    every = list(dict.fromkeys(one.licence_expression for one in decisions))
    return every[0] if len(every) == 1 else " AND ".join(f"({one})" if " " in one else one for one in every)


def _manifest(
    corpus: Corpus, selection: Selection, surveyed: Survey, judges: Judges, decisions: Sequence[Decision]
) -> dict[str, Json]:
    cards = _cards(corpus)
    sets = surveyed.counts["terms"].keys() | {card.terms_set_id for card in judges.cards}
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
    }


def _note(transaction: Transaction, selection: Selection, sealed: dict[str, Json]) -> None:
    row = transaction.execute(
        "select manifest from datasets where name = ? and version = ?", (selection.name, selection.version)
    ).fetchone()
    assert row is not None
    fields = orjson.loads(row[0]) | {"seal": sealed}
    transaction.execute(
        "update datasets set status = 'sealed', manifest = ?, sealed_us = ? where name = ? and version = ?",
        (orjson.dumps(fields).decode(), transaction.now_us, selection.name, selection.version),
    )


def _cards(corpus: Corpus) -> list[Card]:
    return [Card.from_json(row[0]) for row in corpus.journal.query("select card from cards")]


def card_facts(
    corpus: Corpus,
    task: Task,
    selection: Selection,
    surveyed: Survey,
    judges: Judges,
    decisions: Sequence[Decision],
) -> CardFacts:
    """What the dataset's card says."""
    spec = task.spec
    return CardFacts(
        name=selection.name,
        version=selection.version,
        licence_expression=licence_of(decisions),
        created_time=corpus.clock(),
        rows=surveyed.rows,
        columns_version=SCHEMA_VERSION,
        splits=tuple(
            CardSplit(name=split, pattern=f"{split}-*.parquet", rows=file.rows)
            for split, file in selection.files.items()
        ),
        teachers=(*_card_teachers(corpus, task, surveyed), *_card_judges(task, judges)),
        sources=tuple(_card_sources(task, selection)),
        duties=tuple(
            CardDuty(kind=duty.kind, applies_to=duty.applies_to, text=duty.text, terms_id=duty.terms_id)
            for duty in _duties(decisions)
        ),
        description=spec.description,
        task_categories=("text-classification",) if spec.kind == "label" else ("text-generation",),
        spend=_card_spend(corpus, selection),
        labels={split: _labels(selection, file) for split, file in selection.files.items()}
        if spec.kind == "label"
        else {},
        how_made=(
            "Every row is one answer of the teacher named in it, asked with the prompt whose digest it carries.",
            "Exact repeats, and texts that also stand in validation or gold, were dropped before anything was asked.",
            *([f"Labels are calibrated ({selection.calibration.kind})."] if selection.calibration else []),
            *([_JUDGED] if judges.cards else []),
        ),
        limitations=(_LIMITATIONS[spec.kind],),
        merkle_root=surveyed.merkle_root,
        spec_digest=task.identity,
        prompt_digest=task.prompter.file.digest,
    )


def _card_teachers(corpus: Corpus, task: Task, surveyed: Survey) -> Iterator[CardTeacher]:
    # A teacher has a card for each version of its terms or runtime; the dataset's reader wants one row of each.
    for card_ in {(one.teacher, one.route, one.host, one.terms_ids): one for one in _cards(corpus)}.values():
        records = surveyed.counts["teacher"].get(card_.teacher, 0)
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


def _card_sources(task: Task, selection: Selection) -> Iterator[CardSource]:
    table = read_columns(selection.paths, ["source_ids"])
    records: Counter[str] = Counter()
    for names in table["source_ids"].to_pylist():
        records.update({name.partition("#")[0] for name in names})
    for source in task.spec.sources:
        notice = task.located.resolve(source.notice).read_text("utf-8") if source.notice else None
        yield CardSource(
            source_id=source.id,
            title=source.title,
            licence=source.licence,
            locator=source.locator,
            records=records[source.id],
            notice=notice,
        )


def _labels(selection: Selection, file: ShardFile) -> dict[str, int]:
    column = read_columns([selection.folder / file.name], ["calibrated_label"])["calibrated_label"]
    counts = Counter(column.to_pylist())
    return {str(label): count for label, count in sorted(counts.items(), key=lambda pair: str(pair[0]))}


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
