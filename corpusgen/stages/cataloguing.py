"""The catalog: a DuckDB file with views over the shards, for tools that open one. Never the only copy of anything."""

from __future__ import annotations

import os

from corpusgen.corpus import Corpus
from corpusgen.errors import CorpusDamaged, StoreError
from corpusgen.stages.committing import one_at_a_time
from corpusgen.store.manifest import MANIFEST_NAME, Manifest

CATALOG_NAME = "catalog.duckdb"


def refresh_catalog(corpus: Corpus, manifest: Manifest) -> None:
    """Build the catalog again when other shards are committed than those it was built of, or when it is gone."""
    catalog, listed = corpus.folder / CATALOG_NAME, corpus.folder / MANIFEST_NAME
    with one_at_a_time(corpus.folder / ".catalog.lock"):
        made_of = listed.stat().st_mtime_ns
        if catalog.exists() and catalog.stat().st_mtime_ns == made_of:
            return
        from corpusgen.stages.looking import journal_tables
        from corpusgen.store.catalog import build_catalog

        build_catalog(corpus.folder, manifest, journal_tables(corpus))
        # It bears the manifest's time, not its own: a clock that jumps back makes no old catalog look new.
        os.utime(catalog, ns=(made_of, made_of))


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
