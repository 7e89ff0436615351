"""Which documents real model ids resolve to: a table that a change of any glob must agree with."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import NamedTuple

import pytest
from terms_samples import TODAY, shipped_registry, teacher

from corpusgen.provenance.terms import Route


class Row(NamedTuple):
    route: Route
    host: str
    model: str
    documents: str
    gaps: str


with (Path(__file__).parent / "data" / "terms_of_models.csv").open(encoding="utf-8", newline="") as file:
    TABLE = [Row(**row) for row in csv.DictReader(file)]  # type: ignore[arg-type] # its columns are Row's fields


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.route}-{row.host}-{row.model}")
def test_a_real_model_id_is_under_exactly_these_documents(row: Row) -> None:
    provider = "corpusgen" if row.route == "mock" else "anybody"
    match = shipped_registry().matching(teacher(row.model, row.route, host=row.host, provider=provider), TODAY)
    assert " ".join(found.id for found in match.documents) == row.documents
    assert ",".join(gap.about for gap in match.gaps) == row.gaps


def test_the_table_is_large_and_has_near_misses() -> None:
    assert len({(row.route, row.host, row.model) for row in TABLE}) == len(TABLE) >= 60
    assert sum(row.gaps == "model" for row in TABLE) >= 20


def test_every_shipped_document_in_force_is_the_answer_for_some_id() -> None:
    named = {name for row in TABLE for name in row.documents.split()}
    assert {found.id for found in shipped_registry().documents if found.in_force(TODAY)} == named
