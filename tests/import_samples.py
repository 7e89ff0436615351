"""Files from outside for tests, and the commands that bring them in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from command import Ran, corpusgen

from corpusgen.records import Record
from corpusgen.store.manifest import read_manifest
from corpusgen.store.shards import read_records

ROWS: Sequence[Mapping[str, Any]] = [
    {"prompt": "What is a word?", "completion": "A unit of language."},
    {"prompt": "Say =1+1, please", "completion": '=HYPERLINK("http://x")'},
    {"prompt": "What is a word?", "completion": "Something said, with\na line break"},
]


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]] = ROWS) -> Path:
    path.write_bytes(b"\n".join(map(orjson.dumps, rows)) + b"\n")
    return path


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]] = ROWS) -> Path:
    import csv

    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_parquet(path: Path, rows: Sequence[Mapping[str, Any]] = ROWS) -> Path:
    pq.write_table(pa.Table.from_pylist([dict(row) for row in rows]), path)
    return path


WRITERS = {"jsonl": write_jsonl, "csv": write_csv, "parquet": write_parquet}


def bring_in(corpus: Path, *files: Path, licence: str = "CC-BY-4.0", **options: Any) -> Ran:
    """``corpusgen import`` of some files; an option that is True stands alone, a list is given several times."""
    said = {"dataset": "words", "source_id": "outside", "title": "The outside world", **options}
    flags: list[str] = []
    for name, value in said.items():
        option = f"--{name.replace('_', '-')}"
        for one in value if isinstance(value, list) else [value]:
            flags += [option] if one is True else [option, str(one)]
    return corpusgen("import", *files, "--licence", licence, *flags, "--corpus", corpus, "--json")


def records_of(corpus: Path, dataset: str = "words", split: str = "train") -> list[Record]:
    """The committed records of a dataset, in the order of their rows."""
    paths = read_manifest(corpus).paths(corpus, dataset=dataset, split=split)
    return list(read_records(paths))
