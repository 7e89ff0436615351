"""Two dataset versions side by side: what one has and the other has not, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from corpusgen.corpus import Corpus
from corpusgen.records import Json
from corpusgen.stages.erasure.erasures import revoked_versions
from corpusgen.stages.selecting import Selection, find_selection, split_of
from corpusgen.store.shards import read_batches

_COLUMNS = ("record_id", "calibrated_label", "teacher", "input", "source_ids")


class _Row(NamedTuple):
    split: str
    label: str | None
    teacher: str
    input: str
    item: str


@dataclass(frozen=True, kw_only=True)
class Change:
    """A record that one version has and the other has not, or that both have in different places."""

    record_id: str
    item: str
    what: str
    """``added``, ``removed``, ``moved`` to another split, ``relabelled``."""
    before: str | None
    after: str | None
    why: str | None
    """Why the version without it has it not, where that is known."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """What became of a dataset from one version to another."""

    before: str
    after: str
    rows: tuple[int, int]
    kept: int
    """Records in both, in the same split and with the same label."""
    changes: tuple[Change, ...]
    tallies: dict[str, dict[str, tuple[int, int]]]
    """Rows of both versions by split, label and teacher."""
    revoked: dict[str, str]
    """Who revoked either of them, when and why: what was erased is in neither, and stands here as nothing."""

    def to_json(self) -> dict[str, Json]:
        """The difference for machines."""
        return {
            "before": self.before,
            "after": self.after,
            "rows": list(self.rows),
            "kept": self.kept,
            "revoked": self.revoked,
            "changes": dict(Counter(change.what for change in self.changes)),
            "tallies": {
                kind: {name: list(pair) for name, pair in found.items()} for kind, found in self.tallies.items()
            },
            "records": [
                {name: getattr(change, name) for name in Change.__dataclass_fields__} for change in self.changes
            ],
        }


def difference(corpus: Corpus, before: str, after: str) -> Difference:
    """What the second version has and the first has not, and the other way round. Raises UsageError for no such one."""
    versions = find_selection(corpus, before), find_selection(corpus, after)
    old, new = (dict(_rows(version)) for version in versions)
    changes = tuple(_changes(corpus, versions, old, new))
    revoked = revoked_versions(corpus)
    return Difference(
        before=versions[0].label,
        after=versions[1].label,
        rows=(len(old), len(new)),
        kept=len(old.keys() & new.keys()) - sum(change.what in ("moved", "relabelled") for change in changes),
        changes=changes,
        tallies={
            "split": _tally(old, new, "split"),
            "label": _tally(old, new, "label"),
            "teacher": _tally(old, new, "teacher"),
        },
        revoked={one.label: revoked[one.label] for one in versions if one.label in revoked},
    )


def _rows(version: Selection) -> Iterator[tuple[str, _Row]]:
    for split, path in zip(version.files, version.paths, strict=True):
        for batch in read_batches([path], _COLUMNS):
            for name, label, teacher, text, sources in zip(*batch.to_pydict().values(), strict=True):
                yield name, _Row(split_of(split), label, teacher, text, sources[0] if sources else name)


def _changes(
    corpus: Corpus, versions: tuple[Selection, Selection], old: dict[str, _Row], new: dict[str, _Row]
) -> Iterator[Change]:
    why = tuple(_reasons(corpus, version) for version in versions)
    for name in sorted(old.keys() | new.keys()):
        was, now = old.get(name), new.get(name)
        if was is None:
            assert now is not None
            yield _change(name, now, "added", None, now.split, why[0].get(name))
        elif now is None:
            yield _change(name, was, "removed", was.split, None, why[1].get(name))
        elif was.split != now.split:
            yield _change(name, now, "moved", was.split, now.split, None)
        elif was.label != now.label:
            yield _change(name, now, "relabelled", was.label, now.label, None)


def _change(name: str, row: _Row, what: str, before: str | None, after: str | None, why: str | None) -> Change:
    return Change(record_id=name, item=row.item, what=what, before=before, after=after, why=why)


def _reasons(corpus: Corpus, version: Selection) -> dict[str, str]:
    """Why each record that a version left out was left out."""
    rows = corpus.journal.query(
        "select lower(hex(record_id)), stage, reason, other from findings"
        " where dataset = ? and version = ? and not kept",
        (version.name, version.version),
    )
    return {name: f"{stage}: {reason}" + (f" ({other})" if other else "") for name, stage, reason, other in rows}


def _tally(old: dict[str, _Row], new: dict[str, _Row], column: str) -> dict[str, tuple[int, int]]:
    counts = [Counter(str(getattr(row, column)) for row in rows.values()) for rows in (old, new)]
    names = sorted(counts[0].keys() | counts[1].keys())
    return {} if names == ["None"] else {name: (counts[0][name], counts[1][name]) for name in names}
