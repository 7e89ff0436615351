"""The catalog: a DuckDB file with views over the shards, for tools that open one. Never the only copy of anything."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from corpusgen.corpus import Corpus
from corpusgen.errors import CorpusDamaged, StoreError
from corpusgen.stages.committing import one_at_a_time
from corpusgen.store.manifest import MANIFEST_NAME, Manifest, read_manifest

CATALOG_NAME = "catalog.duckdb"
LINEAGE = "lineage"
"""The folder with the lineage, and the schema of the views over it."""


def refresh_catalog(corpus: Corpus, manifest: Manifest) -> None:
    """Build the catalog again when other shards are committed than those it was built of, or when it is gone."""
    catalog, listed = corpus.folder / CATALOG_NAME, corpus.folder / MANIFEST_NAME
    with one_at_a_time(corpus.folder / ".catalog.lock"):
        made_of = listed.stat().st_mtime_ns
        if catalog.exists() and catalog.stat().st_mtime_ns == made_of:
            return
        from corpusgen.stages.tables import journal_tables
        from corpusgen.store.catalog import build_catalog

        build_catalog(corpus.folder, manifest, journal_tables(corpus), _lineage_views(corpus.folder / LINEAGE))
        # It bears the manifest's time, not its own: a clock that jumps back makes no old catalog look new.
        os.utime(catalog, ns=(made_of, made_of))


def show_lineage(corpus: Corpus) -> None:
    """Let the catalog show the lineage, where there is a catalog and nobody has it open."""
    catalog = corpus.folder / CATALOG_NAME
    with one_at_a_time(corpus.folder / ".catalog.lock"):
        if not catalog.exists():
            return
        from corpusgen.store.catalog import add_lineage

        made_of = catalog.stat().st_mtime_ns
        with suppress(StoreError):  # who opens it next sees them, once it has been built again
            add_lineage(corpus.folder, _lineage_views(corpus.folder / LINEAGE))
        os.utime(catalog, ns=(made_of, made_of))


def _lineage_views(folder: Path) -> dict[str, str]:
    """What the views over the lineage are selected with; none where there is no lineage."""
    if not folder.is_dir():
        return {}
    from corpusgen.provenance.lineage import TABLES, VIEWS
    from corpusgen.stages.lineage.reading import quoted

    tables = {name: f"from read_parquet({quoted(folder / f'{name}.parquet')})" for name in TABLES}
    return {**tables, **VIEWS}


@contextmanager
def same_shards(corpus: Corpus) -> Iterator[None]:
    """A manifest that is written again inside, with the same shards, leaves a catalog that was made of them current."""
    catalog, listed = corpus.folder / CATALOG_NAME, corpus.folder / MANIFEST_NAME
    with one_at_a_time(corpus.folder / ".catalog.lock"):
        before = _current(corpus)
        yield
        if before is not None and before.shards == read_manifest(corpus.folder).shards:
            made_of = listed.stat().st_mtime_ns
            os.utime(catalog, ns=(made_of, made_of))


def _current(corpus: Corpus) -> Manifest | None:
    """What the catalog was made of, if that is the manifest there is."""
    catalog, listed = corpus.folder / CATALOG_NAME, corpus.folder / MANIFEST_NAME
    if not (catalog.exists() and listed.exists() and catalog.stat().st_mtime_ns == listed.stat().st_mtime_ns):
        return None
    try:
        return read_manifest(corpus.folder)
    except StoreError:  # damaged, and written again
        return None


def catalog_problem(corpus: Corpus) -> str | None:
    """What is wrong with the catalog, in one sentence; None as well when there is none, which is no loss."""
    if not (corpus.folder / CATALOG_NAME).exists():
        return None
    from corpusgen.store.catalog import read_through

    try:
        read_through(corpus.folder)
    except CorpusDamaged as error:
        return str(error)
    except StoreError:  # somebody is using it
        return None
    return None
