"""Who really answered: the models that servers named, counted over the records in shards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa

from corpusgen.corpus import Corpus
from corpusgen.errors import StoreError
from corpusgen.standing import is_another_model
from corpusgen.store.manifest import read_manifest
from corpusgen.store.shards import read_batches

_COLUMNS: Final = ["teacher", "model_requested", "model_served"]
_ROWS_AT_ONCE: Final = 65_536


@dataclass(frozen=True, kw_only=True)
class Served:
    """Records of one teacher that one model answered."""

    teacher: str
    asked: str
    served: str | None
    """None where the server names no model."""
    records: int

    @property
    def another(self) -> bool:
        """Whether it is neither the model that was asked nor a dated version of it."""
        return self.served is not None and is_another_model(self.asked, self.served)


def served_models(corpus: Corpus, task: str | None = None) -> tuple[Served, ...] | None:
    """Who answered the committed records, of one task or of all. None where a shard cannot be read: verify says why."""
    try:
        shards = read_manifest(corpus.folder).shards
        found = _counted(corpus.folder / one.path for one in shards if task in (None, one.dataset))
    except StoreError:
        return None
    ordered = sorted(found.items(), key=lambda entry: tuple(name or "" for name in entry[0]))
    return tuple(
        Served(teacher=teacher, asked=asked, served=served, records=records)
        for (teacher, asked, served), records in ordered
    )


def _counted(paths: Iterable[Path]) -> Counter[tuple[str, str, str | None]]:
    found: Counter[tuple[str, str, str | None]] = Counter()
    for batch in read_batches(paths, _COLUMNS, rows=_ROWS_AT_ONCE):
        alike = pa.Table.from_batches([batch]).group_by(_COLUMNS).aggregate([([], "count_all")])
        for row in alike.to_pylist():
            found[row["teacher"], row["model_requested"], row["model_served"]] += row["count_all"]
    return found
