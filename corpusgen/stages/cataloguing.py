"""The catalog: a DuckDB file with views over the shards, for tools that open one. Never the only copy of anything."""

from __future__ import annotations

from corpusgen.corpus import Corpus
from corpusgen.stages.committing import one_at_a_time
from corpusgen.store.manifest import Manifest


def refresh_catalog(corpus: Corpus, manifest: Manifest) -> None:
    """Build the catalog again when shards were committed since it was built, or when it is gone."""
    catalog, listed = corpus.folder / "catalog.duckdb", corpus.folder / "MANIFEST.json"
    with one_at_a_time(corpus.folder / ".catalog.lock"):
        if catalog.exists() and catalog.stat().st_mtime_ns >= listed.stat().st_mtime_ns:
            return
        from corpusgen.stages.looking import journal_tables
        from corpusgen.store.catalog import build_catalog

        build_catalog(corpus.folder, manifest, journal_tables(corpus))
