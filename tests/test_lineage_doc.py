"""docs/lineage.md names the tables that there are."""

from __future__ import annotations

import re
from pathlib import Path

from corpusgen.provenance.lineage import TABLES, VIEWS

DOC = Path(__file__).parents[1] / "docs" / "lineage.md"
ROW = re.compile(r"\| `(\w+)` \| ([a-z]+) \| (.+) \| (`.+) \|")


def test_the_documents_tables_are_those_of_the_schema() -> None:
    told = {
        match[1]: match.groups()[1:] for line in DOC.read_text("utf-8").splitlines() if (match := ROW.fullmatch(line))
    }
    assert told == {
        table.name: (
            table.prov,
            table.meaning,
            ", ".join(f"`{column.name}`" + ("?" if column.optional else "") for column in table.columns),
        )
        for table in TABLES.values()
    }


def test_the_document_names_every_view() -> None:
    text = DOC.read_text("utf-8")
    assert [name for name in VIEWS if f"`{name}`" not in text] == []
