"""Questions in SQL over a corpus."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from corpusgen.corpus import Corpus
from corpusgen.provenance.lineage import SCHEMAS, VIEWS
from corpusgen.stages.tables import journal_tables
from corpusgen.store.manifest import read_manifest
from corpusgen.store.query import FiledSchema, QueryLimits, QueryResult, run_query

LEGAL: Final = frozenset(
    {"decisions", "decision_reasons", "decision_waivers", "waivers", "agreements", "terms_reviews"}
)
"""Tables that are for who may read about rights, here and in the lineage, and with them the views made of these."""


def ask_sql(corpus: Corpus, sql: str, limits: QueryLimits, *, legal: bool = True) -> QueryResult:
    """The answer to one question. Raises QueryError for what is wrong, refused, too long or too large.

    Without ``legal`` the tables about decisions and waivers are not there.
    """
    manifest = read_manifest(corpus.folder)
    hidden = frozenset() if legal else LEGAL
    return run_query(
        sql,
        shard_paths=manifest.paths(corpus.folder),
        tables={name: table for name, table in journal_tables(corpus).items() if name not in hidden},
        filed=lineage_schema(corpus, hidden),
        limits=limits,
    )


def lineage_schema(corpus: Corpus, hidden: frozenset[str] = frozenset()) -> FiledSchema:
    """The lineage as a schema for questions, without some of it; it is traced when a question is put to it."""

    def files() -> dict[str, Path]:
        from corpusgen.stages.lineage.tracing import lineage_files  # which few questions are about

        return lineage_files(corpus)

    tables = {name: schema for name, schema in SCHEMAS.items() if name not in hidden}
    return FiledSchema(name="lineage", tables=tables, views=_views_without(hidden), files=files)


def _views_without(hidden: frozenset[str]) -> dict[str, str]:
    """The views that are made of nothing hidden, not even through another view."""
    found, gone = dict(VIEWS), set(hidden)
    while lost := {name for name, text in found.items() if gone & set(re.findall(r"\w+", text))}:
        gone |= lost
        found = {name: text for name, text in found.items() if name not in lost}
    return found
