"""Who really answered: the models that servers named, counted over the records in shards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from corpusgen.corpus import Corpus
from corpusgen.errors import StoreError
from corpusgen.stages.terms.quarantine import Quarantine
from corpusgen.standing import is_another_model
from corpusgen.store.manifest import read_manifest

_COLUMNS: Final = ["teacher", "model_requested", "model_served"]
_ROWS_AT_ONCE: Final = 65_536
_Key: TypeAlias = tuple[str, str, str | None]


@dataclass(frozen=True, kw_only=True)
class Served:
    """Records of one teacher that one model answered."""

    teacher: str
    asked: str
    served: str | None
    """None where the server names no model."""
    records: int
    aside: int = 0
    """Those of them that go into no dataset, because the terms of this model were not checked."""

    @property
    def another(self) -> bool:
        """Whether it is neither the model that was asked nor a dated version of it."""
        return self.served is not None and is_another_model(self.asked, self.served)


def served_models(corpus: Corpus, task: str | None = None) -> tuple[Served, ...] | None:
    """Who answered the committed records, of one task or of all. None where a shard cannot be read: verify says why."""
    try:
        shards = read_manifest(corpus.folder).shards
        found, aside = _counted((corpus.folder / one.path for one in shards if task in (None, one.dataset)), corpus)
    except StoreError:
        return None
    ordered = sorted(found.items(), key=lambda entry: tuple(name or "" for name in entry[0]))
    return tuple(
        Served(teacher=key[0], asked=key[1], served=key[2], records=records, aside=aside[key])
        for key, records in ordered
    )


def _counted(paths: Iterable[Path], corpus: Corpus) -> tuple[Counter[_Key], Counter[_Key]]:
    """How many records there are of each teacher and model, and how many of them are put aside."""
    import pyarrow as pa

    from corpusgen.store.shards import read_batches

    found: Counter[_Key] = Counter()
    aside: Counter[_Key] = Counter()
    quarantine = Quarantine(corpus=corpus)
    for batch in read_batches(paths, [*_COLUMNS, "terms_set_id", "sent_time"], rows=_ROWS_AT_ONCE):
        grouped = pa.Table.from_batches([batch]).group_by([*_COLUMNS, "terms_set_id"])
        for row in grouped.aggregate([([], "count_all"), ("sent_time", "min")]).to_pylist():
            key: _Key = (row["teacher"], row["model_requested"], row["model_served"])
            found[key] += row["count_all"]
            if quarantine.why(key[0], row["terms_set_id"], key[1], key[2], row["sent_time_min"].date()) is not None:
                aside[key] += row["count_all"]
    return found, aside
