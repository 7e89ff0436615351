"""Texts with one known thing each, and prose without any."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq

HERE = Path(__file__).parent
MADE = HERE / "data" / "pii"
POOL = HERE.parent / "data" / "word-domain" / "pool.parquet"


def positives() -> list[tuple[str, str]]:
    """The kind that must be found, and the text."""
    rows = [json.loads(line) for line in (MADE / "positives.jsonl").read_text(encoding="utf-8").splitlines()]
    return [(row["kind"], "".join(row["parts"])) for row in rows]


def technical() -> list[str]:
    """Technical lines full of numbers that are nobody's."""
    return (MADE / "technical.txt").read_text(encoding="utf-8").splitlines()


def glosses() -> list[str]:
    """Definitions of a dictionary."""
    return [str(text) for text in pq.read_table(POOL)["definition"].to_pylist()]
