"""Selecting: which records make a dataset version, and why the others do not."""

from __future__ import annotations

import heapq
import math
import re
import shutil
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import orjson

from corpusgen.corpus import Corpus
from corpusgen.curate_fields import Diverse
from corpusgen.curation.finding import Finding
from corpusgen.errors import UsageError
from corpusgen.evaluate.calibration import Calibration
from corpusgen.journal import Transaction
from corpusgen.records import Json, Record, Verdict, digest
from corpusgen.screen import tagged
from corpusgen.stages.checks import answer_checks
from corpusgen.stages.choosing import ALL, STEPS, Choice, Chooser, Plan, item_of
from corpusgen.stages.committing import one_at_a_time
from corpusgen.stages.embedding import embedder_of
from corpusgen.stages.task import Task
from corpusgen.stages.terms.quarantine import Quarantine
from corpusgen.store.manifest import read_manifest
from corpusgen.store.shards import ShardFile, read_records, write_shard

if TYPE_CHECKING:  # few tasks have a judge
    from corpusgen.stages.judgements import Judgements


ASKED: Final = "run_id not glob 'import-*'"
"""What tells a run from an import in SQL; imports ask for nothing and drop nothing from a pool."""


def data_file(split: str) -> str:
    """The name of a split's file; readers of dataset folders take the split from it."""
    return f"{split}-00000-of-00001.parquet"


def split_of(part: str) -> str:
    """The split that a file, or a part of a version, is of; of unlike licences, a part names its bucket behind it."""
    return part.partition("-")[0]


@dataclass(frozen=True, kw_only=True)
class Filters:
    """What a record must be to be selected, and how the selected ones are divided."""

    run_id: str | None = None
    split: str = "train"
    min_confidence: float = 0.0
    keep_truncated: bool = False
    limit: int | None = None
    diverse: int | None = None
    """So many of what passes, chosen to cover it all."""
    strata: Literal["label", "teacher", "source"] | None = None
    """What ``quotas`` are for, where so many are chosen."""
    quotas: Mapping[str, float] = field(default_factory=dict)
    """Shares below 1, or numbers, for values of ``strata``; the others share the rest."""
    splits: Mapping[str, float] = field(default_factory=lambda: ALL)
    """Shares of the splits; what belongs together goes into one of them."""
    seed: int = 1
    curated: str | None = None
    """What the spec's curation of answers was, as a digest; None where there was none."""

    def to_json(self) -> dict[str, Json]:
        """The filters as a dataset's row keeps them; those added later stand there only where they were used."""
        every = {name: getattr(self, name) for name in self.__dataclass_fields__}
        later = {"diverse": None, "strata": None, "quotas": {}, "splits": ALL, "seed": 1, "curated": None}
        return {name: value for name, value in every.items() if name not in later or value != later[name]}


@dataclass(frozen=True, kw_only=True)
class Selection:
    """A dataset version before it is sealed: its rows lie in a hidden folder, its funnel is known."""

    name: str
    version: str
    status: str
    folder: Path
    files: Mapping[str, ShardFile]
    """The file of each split, such as ``train``; once sealed, of each bucket in it (``train-permissive``) where
    licences differ."""
    filters: Filters
    calibration: Calibration | None
    funnel: dict[str, int]
    """Records by what became of them: all of them are ``read``, those in the dataset ``kept``."""
    steps: dict[str, dict[str, int]]
    """Records by the step that took them (``choosing.STEPS``), and by its reasons."""
    content_digest: str
    remarks: tuple[str, ...] = ()
    """What could not be as asked when it was made, such as a quota."""

    @property
    def label(self) -> str:
        """``name-version``."""
        return f"{self.name}-{self.version}"

    @property
    def rows(self) -> int:
        """Records in all splits together."""
        return sum(file.rows for file in self.files.values())

    @property
    def splits(self) -> dict[str, int]:
        """Records of each split."""
        rows: dict[str, int] = {}
        for part, file in self.files.items():
            rows[split_of(part)] = rows.get(split_of(part), 0) + file.rows
        return rows

    @property
    def paths(self) -> list[Path]:
        """The files, in the order of the splits."""
        return [self.folder / file.name for file in self.files.values()]

    @property
    def funnel_steps(self) -> list[tuple[str, int]]:
        """How many were left after each step, from what was generated to what was chosen."""
        left = [("generated", self.funnel.get("read", 0))]
        for step in STEPS:
            left.append(
                (
                    f"after {step}" if step != "not chosen" else "chosen",
                    left[-1][1] - sum(self.steps.get(step, {}).values()),
                )
            )
        return left


@dataclass(kw_only=True)
class _Reader:
    """Reads what may be selected: of the right run, with labels of one kind, calibrated."""

    calibration: Calibration | None
    wanted: Callable[[str], bool]
    judgements: Judgements | None = None
    personal: Literal["tag", "mask"] | None = None
    read: int = 0
    label_names: tuple[str, ...] | None = None

    def records(self, records: Iterable[Record]) -> Iterator[Record]:
        self.read = 0
        for record in records:
            if self.wanted(record.record_id):
                self.read += 1
                self._check_labels(record)
                known = record if self.judgements is None else self.judgements.on(record)
                if self.personal is not None:
                    known = tagged(known, mask=self.personal == "mask")
                yield with_calibration(known, self.calibration)

    def _check_labels(self, record: Record) -> None:
        if self.read == 1:
            self.label_names = record.label_names
        if record.label_names != self.label_names:
            both = " and ".join(", ".join(names or ("none",)) for names in (self.label_names, record.label_names))
            raise UsageError(f"records of {record.task!r} have different labels ({both}); choose one run with --run")


def useless(record: Record, filters: Filters) -> str | None:
    """Why a record is of no use in a dataset; None if it is."""
    if record.kind == "judgement":
        return "a judgement, no answer"
    if record.truncated and record.kind != "label" and not filters.keep_truncated:
        return "truncated"
    if record.kind == "label" and record.calibrated_label is None:
        return "no label"
    if record.finish_reason in ("content_filter", "refusal"):
        return record.finish_reason
    if record.kind != "label" and not (record.response.strip() or record.tool_calls):
        return "empty"
    if failed := [verdict.check for verdict in record.verdicts if not verdict.kept]:
        return f"failed {failed[0]}"
    return "below min_confidence" if confidence(record) < filters.min_confidence else None


def _selected(record: Record) -> Record:
    score = confidence(record) if record.kind == "label" else None
    return replace(record, verdicts=(*record.verdicts, Verdict(check="select", kept=True, score=score, reason=None)))


def select(
    corpus: Corpus,
    name: str,
    *,
    filters: Filters,
    calibration: Calibration | None = None,
    record_ids: Container[str] | None = None,
    task: Task | None = None,
) -> Selection:
    """A new version of a dataset from the committed records of a task; the same choice twice is one version.

    With ``task``, its spec's curation of answers decides too. Raises UsageError when nothing is left.
    """
    paths = read_manifest(corpus.folder).paths(corpus.folder, dataset=name, split=filters.split)
    found, elsewhere = reused(corpus, name, filters.split)
    if not paths and not elsewhere:
        raise UsageError(f"no committed {filters.split} records of {name!r} in {corpus.folder}; run a task first")
    checks = None if task is None else answer_checks(task)
    judgements = None if task is None or task.judging is None else judgements_on(corpus, task, filters.split)
    personal = task.spec.curate.pii.stored if task is not None and task.spec.curate.pii is not None else None
    curated = [one for one in (None if checks is None else checks.identity, personal) if one is not None]
    filters = replace(filters, curated=digest(curated) if curated else None)
    wanted, dropped = _wanted(corpus, filters, record_ids), _dropped(corpus, name, filters.split)
    reader = _Reader(calibration=calibration, wanted=wanted, judgements=judgements, personal=personal)

    quarantine = Quarantine(corpus=corpus, task=task)

    def base(record: Record) -> str | Finding | None:
        if (aside := quarantine.finding(record)) is not None:
            return aside
        item = item_of(record).partition("#")[2]
        asked = record.route != "imported"  # what came from outside was never in a pool
        return "dropped from the pool" if asked and item in dropped else useless(record, filters)

    choice = Choice(plan=_plan(filters), base=base, checks=checks)
    remarks: list[str] = []

    def others() -> Iterator[Iterator[Record]]:
        return ((record for record in read_records([path]) if record.record_id in found) for path in elsewhere)

    def by_id() -> Iterator[Record]:
        in_each = (read_records([path]) for path in paths)
        return reader.records(heapq.merge(*in_each, *others(), key=attrgetter("record_id")))

    if choice.needs_all:
        # As they were asked about, so that of equal ones the first is kept.
        choosing = chooser_of(task, filters, remarks)
        choice.decide(lambda: reader.records(chain(read_records(paths), *others())), choosing)
    hidden = corpus.folder / "datasets" / f".{name}-selected"
    with one_at_a_time(corpus.folder / ".datasets.lock"):
        shutil.rmtree(hidden, ignore_errors=True)
        files = {
            split: write_shard(
                hidden,
                data_file(split),
                map(_selected, choice.stream(by_id(), split)),
                metadata=calibration_metadata(calibration),
            )
            for split in filters.splits
        }
        choice.counts["read"] = reader.read
        if not any(file.rows for file in files.values()):
            shutil.rmtree(hidden)
            raise UsageError(f"no record of {name!r} passes: {_told(choice.counts)}; loosen the filters")
        made = _number(corpus, name, hidden, files, filters, calibration, choice)
    return replace(made, remarks=(*remarks, *_empty(files)))


def _plan(filters: Filters) -> Plan:
    return Plan(
        limit=filters.limit,
        diverse=filters.diverse,
        splits=filters.splits,
        seed=filters.seed,
        stratum_of=_STRATUM[filters.strata],
    )


def _empty(files: Mapping[str, ShardFile]) -> Iterator[str]:
    for split, file in files.items():
        if not file.rows:
            yield f"split {split} is empty: too few are left, or they belong together"


def judgements_on(corpus: Corpus, task: Task, split: str) -> Judgements:
    """What the judge of a task has said of its answers."""
    from corpusgen.stages.judgements import Judgements

    assert task.judging is not None
    name = task.judging.spec.name
    paths = read_manifest(corpus.folder).paths(corpus.folder, dataset=name, split=split)
    aside = Quarantine(corpus=corpus, task=task.judging)
    return Judgements.read(task, [*paths, *reused(corpus, name, split)[1]], corpus.clock, aside)


def _dropped(corpus: Corpus, name: str, split: str) -> frozenset[str]:
    """Items that the task's last run dropped from its pool; some may have been asked about before that."""
    if split != "train":
        return frozenset()
    rows = corpus.journal.query(
        "select substr(item_id, 7) from drops where item_id glob 'train:*' and run_id ="  # noqa: S608 - own text
        f" (select run_id from runs where task = ? and {ASKED} order by started_us desc, run_id limit 1)",
        (name,),
    )
    return frozenset(str(row[0]) for row in rows)


def chooser_of(task: Task | None, filters: Filters, remarks: list[str]) -> Chooser:
    """Chooses so many texts that cover all of them, as the spec says, or by k-center over hashed words.

    What could not be as asked is added to ``remarks``.
    """
    part = (None if task is None else task.spec.curate.diverse) or Diverse()

    def choose(names: Sequence[str], texts: Sequence[str], strata: Sequence[str], count: int) -> Sequence[int]:
        from corpusgen.curation.diverse import choose as choose_diverse

        vectors = embedder_of(part.embedding, texts, seed=filters.seed).embed(texts)
        chosen = choose_diverse(
            vectors,
            count,
            seed=filters.seed,
            ids=names,
            method=part.method,
            trim=part.outliers,
            strata=strata if filters.strata else None,
            quotas=filters.quotas or None,
        )
        remarks.extend(chosen.remarks)
        return chosen.positions

    return choose


_STRATUM: Final[dict[str | None, Callable[[Record], str]]] = {
    None: lambda record: "",
    "label": lambda record: record.calibrated_label or record.label or "",
    "teacher": lambda record: record.teacher,
    "source": lambda record: item_of(record).partition("#")[0],
}


def parse_shares(text: str | None, option: str) -> Mapping[str, float]:
    """Numbers by name from ``animal=0.5,plant=200``. Raises UsageError that names the part and what to write."""
    shares: dict[str, float] = {}
    for part in [] if text is None else text.split(","):
        name, _, share = (word.strip() for word in part.partition("="))
        try:
            value = float(share)
        except ValueError:
            value = math.nan
        if not name or not 0 < value <= 1e9 or name in shares:
            raise UsageError(f"{option}: {part!r} is no part of a new value; write animal=0.5,plant=200")
        shares[name] = value
    return shares


def parse_splits(text: str | None) -> Mapping[str, float]:
    """Shares by split from ``train=0.9,test=0.1``. Raises UsageError that names the part and what to write."""
    if text is None:
        return ALL
    shares: dict[str, float] = {}
    for part in text.split(","):
        name, _, share = (word.strip() for word in part.partition("="))
        try:
            value = float(share)
        except ValueError:
            value = math.nan
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,30}", name) or not 0 < value <= 1e6 or name in shares:
            raise UsageError(
                f"--splits: {part!r} is no share of a new split; write train=0.9,validation=0.05,test=0.05"
            )
        shares[name] = value
    total = sum(shares.values())
    # In one order and to one scale: train=8,test=2 is what test=0.2,train=0.8 is.
    return {name: shares[name] / total for name in sorted(shares, key=lambda name: (name != "train", name))}


def check_curated(corpus: Corpus, name: str, *, named: bool) -> None:
    """Raise UsageError where records were asked for with a ``curate`` section and nobody says what to do with it."""
    rows = corpus.journal.query(
        f"select spec from runs where task = ? and {ASKED} order by started_us desc limit 1",  # noqa: S608 - own text
        (name,),
    )
    if rows and not named and any((orjson.loads(rows[0][0]).get("curate") or {}).values()):
        raise UsageError(
            f"{name!r} was asked for with a curate: section, which judges answers too; name the spec with --spec,"
            " or write --uncurated"
        )


def reused(corpus: Corpus, name: str, split: str) -> tuple[frozenset[str], list[Path]]:
    """Records that runs of this task found under another task's name, and the shards they are in."""
    rows = corpus.journal.query(
        "select lower(hex(r.record_id)), shard from reuses u join runs using (run_id) join records r using (record_id)"
        " where runs.task = ? and r.dataset != ? and r.split = ? and shard is not null",
        (name, name, split),
    )
    shards = sorted({shard for _, shard in rows})
    return frozenset(record_id for record_id, _ in rows), [corpus.folder / "shards" / shard for shard in shards]


def _told(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{items} {reason}" for reason, items in counts.items()) or "there are none"


def _wanted(corpus: Corpus, filters: Filters, record_ids: Container[str] | None) -> Callable[[str], bool]:
    if record_ids is not None:
        return record_ids.__contains__
    if filters.run_id is None:
        return lambda record_id: True
    rows = corpus.journal.query(
        "select record_id from records where run_id = :run union select record_id from reuses where run_id = :run",
        {"run": filters.run_id},
    )
    return frozenset(row[0].hex() for row in rows).__contains__


def calibration_metadata(calibration: Calibration | None) -> dict[str, str]:
    """What the files of a version say of how its labels were calibrated."""
    if calibration is None:
        return {}
    # Whose answers it was made from is not what it is: the manifest tells.
    return {"corpusgen.calibration": orjson.dumps(replace(calibration, runs=()).to_json()).decode()}


def with_calibration(record: Record, calibration: Calibration | None) -> Record:
    """The record with its calibrated label and log-probabilities, where it has a label."""
    if record.kind != "label" or record.label_names is None:
        return record
    if record.label_logprobs is None:
        return replace(record, calibrated_label=record.label)
    import numpy as np

    # Without a choice made on validation, probabilities are those of the raw values.
    calibration = calibration or Calibration(kind="raw", vector=(0.0,) * len(record.label_names))
    raw = np.array([[math.nan if value is None else value for value in record.label_logprobs]])
    calibrated = calibration.apply(raw)[0]
    if np.isnan(calibrated).all():
        return record
    return replace(
        record,
        calibrated_label=record.label_names[int(np.nanargmax(calibrated))],
        calibrated_logprobs=tuple(calibrated.tolist()),
    )


def confidence(record: Record) -> float:
    """Probability of the label that is taught; 1 where the teacher gives no probabilities."""
    if record.calibrated_logprobs is None:
        return 1.0
    return math.exp(max(record.calibrated_logprobs))


def _number(
    corpus: Corpus,
    name: str,
    hidden: Path,
    files: Mapping[str, ShardFile],
    filters: Filters,
    calibration: Calibration | None,
    choice: Choice,
) -> Selection:
    content = digest([*(file.sha256 for file in files.values()), filters.to_json()])
    for selection in selections(corpus, name):
        if selection.content_digest == content:
            shutil.rmtree(hidden)
            return selection
    version = str(len(selections(corpus, name)) + 1)
    counts = dict(choice.counts)
    selection = Selection(
        name=name,
        version=version,
        status="selected",
        folder=hidden.with_name(f".{name}-{version}"),
        files=files,
        filters=filters,
        calibration=calibration,
        funnel={"read": counts.pop("read"), **counts},
        steps={step: dict(choice.steps[step]) for step in STEPS if step in choice.steps},
        content_digest=content,
    )
    if selection.folder.exists():
        shutil.rmtree(selection.folder)  # of a process that was killed before it was noted
    hidden.rename(selection.folder)
    corpus.journal.run_now(lambda transaction: _write(transaction, selection, choice))
    return selection


def _write(transaction: Transaction, selection: Selection, choice: Choice) -> None:
    transaction.execute(
        "insert or replace into datasets values(?, ?, 'selected', ?, ?)",
        (selection.name, selection.version, orjson.dumps(_to_json(selection)).decode(), transaction.now_us),
    )
    transaction.execute("delete from findings where dataset = ? and version = ?", (selection.name, selection.version))
    rows = ((selection.name, selection.version, *_finding_row(*noted)) for noted in choice.noted())
    transaction.connection.executemany(
        "insert into findings values(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) on conflict do nothing", rows
    )


def _finding_row(record_id: str, one: Finding) -> tuple[object, ...]:
    figures = (one.metric, one.score, one.threshold, one.other, one.detail)
    return (bytes.fromhex(record_id), one.check, one.reason, int(one.kept), *figures)


def _to_json(selection: Selection) -> dict[str, Json]:
    calibration = selection.calibration
    return {
        "files": {split: _file_json(file) for split, file in selection.files.items()},
        "filters": selection.filters.to_json(),
        "calibration": None if calibration is None else calibration.to_json(),
        "funnel": selection.funnel,
        "steps": selection.steps,
        "content_digest": selection.content_digest,
    }


def _file_json(file: ShardFile) -> dict[str, Json]:
    return {name: getattr(file, name) for name in ("name", "rows", "sha256", "size_bytes")}


def selections(corpus: Corpus, name: str | None = None) -> list[Selection]:
    """Every dataset version of a corpus, or of one dataset, oldest first."""
    # By number, not by time: a clock may jump back.
    rows = corpus.journal.query(
        "select name, version, status, manifest from datasets order by name, cast(version as integer)"
    )
    return [_read(corpus, *row) for row in rows if name in (None, row[0])]


def _read(corpus: Corpus, name: str, version: str, status: str, text: str) -> Selection:
    fields = orjson.loads(text)
    calibration = fields["calibration"]
    hidden = "" if status == "sealed" or (status == "revoked" and "seal" in fields) else "."
    return Selection(
        name=name,
        version=version,
        status=status,
        folder=corpus.folder / "datasets" / f"{hidden}{name}-{version}",
        files={split: ShardFile(**file) for split, file in _files(fields).items()},
        filters=Filters(**fields["filters"]),
        calibration=calibration and Calibration.from_json(calibration),
        funnel=fields["funnel"],
        steps=fields.get("steps", {}),
        content_digest=fields["content_digest"],
    )


def _files(fields: dict[str, Json]) -> dict[str, Json]:
    """The files of a version; before there were splits, it had one."""
    found: dict[str, Json] = fields["files"] if "files" in fields else {"train": fields["file"]}
    return found


def find_selection(corpus: Corpus, dataset: str) -> Selection:
    """The version called ``name-version``, or the newest of ``name``. Raises UsageError listing what there is."""
    found = selections(corpus)
    named = [selection for selection in found if dataset in (selection.label, selection.name)]
    if not named:
        known = ", ".join(selection.label for selection in found) or "none yet; make one with corpusgen select"
        raise UsageError(f"no dataset {dataset!r} in {corpus.folder}; there are: {known}")
    return named[-1]


def latest_calibration(corpus: Corpus, name: str) -> Calibration | None:
    """The calibration of the newest version of a dataset that has one."""
    chosen = [selection.calibration for selection in selections(corpus, name) if selection.calibration]
    return chosen[-1] if chosen else None
