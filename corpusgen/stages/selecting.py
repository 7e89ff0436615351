"""Selecting: which records make a dataset version, and why the others do not."""

from __future__ import annotations

import heapq
import math
import shutil
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from operator import attrgetter
from pathlib import Path

import orjson

from corpusgen.corpus import Corpus
from corpusgen.errors import UsageError
from corpusgen.evaluate.calibration import Calibration
from corpusgen.journal import Transaction
from corpusgen.records import Json, Record, Verdict, digest
from corpusgen.stages.committing import one_at_a_time
from corpusgen.store.manifest import read_manifest
from corpusgen.store.shards import ShardFile, read_records, write_shard

DATA_FILE = "train-00000-of-00001.parquet"
"""Readers of dataset folders take the split from this name."""


@dataclass(frozen=True, kw_only=True)
class Filters:
    """What a record must be to be selected."""

    run_id: str | None = None
    split: str = "train"
    min_confidence: float = 0.0
    keep_truncated: bool = False
    limit: int | None = None

    def to_json(self) -> dict[str, Json]:
        """The filters as a dataset's row keeps them."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


@dataclass(frozen=True, kw_only=True)
class Selection:
    """A dataset version before it is sealed: its rows lie in a hidden folder, its funnel is known."""

    name: str
    version: str
    status: str
    folder: Path
    file: ShardFile
    filters: Filters
    calibration: Calibration | None
    funnel: dict[str, int]
    content_digest: str

    @property
    def label(self) -> str:
        """``name-version``."""
        return f"{self.name}-{self.version}"


@dataclass(kw_only=True)
class _Funnel:
    """Counts what was kept, and what was not with its reason."""

    filters: Filters
    calibration: Calibration | None
    wanted: Callable[[str], bool]
    counts: Counter[str] = field(default_factory=Counter)
    label_names: tuple[str, ...] | None = None

    def kept(self, records: Iterable[Record]) -> Iterator[Record]:
        for record in records:
            if not self.wanted(record.record_id):
                continue
            self.counts["read"] += 1
            self._check_labels(record)
            chosen = with_calibration(record, self.calibration)
            reason = self._refusal(chosen)
            self.counts[reason or "kept"] += 1
            if reason is None:
                yield replace(chosen, verdicts=(*chosen.verdicts, self._verdict(chosen)))

    def _check_labels(self, record: Record) -> None:
        if self.counts["read"] == 1:
            self.label_names = record.label_names
        if record.label_names != self.label_names:
            both = " and ".join(", ".join(names or ("none",)) for names in (self.label_names, record.label_names))
            raise UsageError(f"records of {record.task!r} have different labels ({both}); choose one run with --run")

    def _refusal(self, record: Record) -> str | None:
        if record.truncated and record.kind != "label" and not self.filters.keep_truncated:
            return "truncated"
        if record.kind == "label" and record.calibrated_label is None:
            return "no label"
        if record.finish_reason in ("content_filter", "refusal"):
            return record.finish_reason
        if record.kind != "label" and not (record.response.strip() or record.tool_calls):
            return "empty"
        if failed := [verdict.check for verdict in record.verdicts if not verdict.kept]:
            return f"failed {failed[0]}"
        if confidence(record) < self.filters.min_confidence:
            return "below min_confidence"
        if self.filters.limit is not None and self.counts["kept"] >= self.filters.limit:
            return "beyond limit"
        return None

    def _verdict(self, record: Record) -> Verdict:
        score = confidence(record) if record.kind == "label" else None
        return Verdict(check="select", kept=True, score=score, reason=None)


def select(
    corpus: Corpus,
    name: str,
    *,
    filters: Filters,
    calibration: Calibration | None = None,
    record_ids: Container[str] | None = None,
) -> Selection:
    """A new version of a dataset from the committed records of a task; the same choice twice is one version.

    Raises UsageError when nothing is left.
    """
    paths = read_manifest(corpus.folder).paths(corpus.folder, dataset=name, split=filters.split)
    reused, elsewhere = _reused(corpus, name, filters.split)
    if not paths and not elsewhere:
        raise UsageError(f"no committed {filters.split} records of {name!r} in {corpus.folder}; run a task first")
    wanted = _wanted(corpus, filters, record_ids)
    funnel = _Funnel(filters=filters, calibration=calibration, wanted=wanted)
    others = ((record for record in read_records([path]) if record.record_id in reused) for path in elsewhere)
    by_id = heapq.merge(*(read_records([path]) for path in paths), *others, key=attrgetter("record_id"))
    hidden = corpus.folder / "datasets" / f".{name}-selected"
    with one_at_a_time(corpus.folder / ".datasets.lock"):
        file = write_shard(hidden, DATA_FILE, funnel.kept(by_id), metadata=_metadata(calibration))
        if not file.rows:
            raise UsageError(f"no record of {name!r} passes: {_told(funnel.counts)}; loosen the filters")
        return _number(corpus, name, hidden, file, funnel)


def _reused(corpus: Corpus, name: str, split: str) -> tuple[frozenset[str], list[Path]]:
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


def _metadata(calibration: Calibration | None) -> dict[str, str]:
    if calibration is None:
        return {}
    return {"corpusgen.calibration": orjson.dumps(calibration.to_json()).decode()}


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


def _number(corpus: Corpus, name: str, hidden: Path, file: ShardFile, funnel: _Funnel) -> Selection:
    content = digest([file.sha256, funnel.filters.to_json()])
    for selection in selections(corpus, name):
        if selection.content_digest == content:
            shutil.rmtree(hidden)
            return selection
    version = str(len(selections(corpus, name)) + 1)
    selection = Selection(
        name=name,
        version=version,
        status="selected",
        folder=hidden.with_name(f".{name}-{version}"),
        file=file,
        filters=funnel.filters,
        calibration=funnel.calibration,
        funnel=dict(funnel.counts),
        content_digest=content,
    )
    if selection.folder.exists():
        (hidden / DATA_FILE).replace(selection.folder / DATA_FILE)
    else:
        hidden.rename(selection.folder)
    corpus.journal.run_now(lambda transaction: _write(transaction, selection))
    return selection


def _write(transaction: Transaction, selection: Selection) -> None:
    transaction.execute(
        "insert or replace into datasets values(?, ?, 'selected', ?, ?)",
        (selection.name, selection.version, orjson.dumps(_to_json(selection)).decode(), transaction.now_us),
    )


def _to_json(selection: Selection) -> dict[str, Json]:
    calibration = selection.calibration
    return {
        "file": {name: getattr(selection.file, name) for name in ("name", "rows", "sha256", "size_bytes")},
        "filters": selection.filters.to_json(),
        "calibration": None if calibration is None else calibration.to_json(),
        "funnel": selection.funnel,
        "content_digest": selection.content_digest,
    }


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
    hidden = "" if status == "sealed" else "."
    return Selection(
        name=name,
        version=version,
        status=status,
        folder=corpus.folder / "datasets" / f"{hidden}{name}-{version}",
        file=ShardFile(**fields["file"]),
        filters=Filters(**fields["filters"]),
        calibration=calibration and Calibration.from_json(calibration),
        funnel=fields["funnel"],
        content_digest=fields["content_digest"],
    )


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
