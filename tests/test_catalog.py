from __future__ import annotations

import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from record_samples import sample_records

from corpusgen.errors import CorpusDamaged, StoreError
from corpusgen.store.catalog import CATALOG_NAME, build_catalog, open_catalog
from corpusgen.store.manifest import Manifest, write_manifest
from corpusgen.store.shards import SCHEMA, manifest_entry, write_shard

RUNS = pa.table({"run_id": ["run-1"], "started_time": pa.array([0], pa.timestamp("us", "UTC"))})


def test_records_are_the_committed_shards_and_no_other_file(tmp_path: Path) -> None:
    manifest = _corpus(tmp_path, "a.parquet", "b.parquet")
    write_shard(tmp_path / "shards" / "demo", "orphan.parquet", sample_records(100))
    build_catalog(tmp_path, manifest)
    assert _ask(tmp_path, "select count(*), sum(cost_microusd) from records") == [(10, 170)]


def test_a_corpus_without_shards_has_records_with_all_columns(tmp_path: Path) -> None:
    build_catalog(tmp_path, Manifest())
    assert _ask(tmp_path, "select count(*) from records") == [(0,)]
    assert [name for (name,) in _ask(tmp_path, "select column_name from (describe records)")] == SCHEMA.names


def test_types_are_the_same_with_and_without_shards(tmp_path: Path) -> None:
    build_catalog(tmp_path / "empty", Manifest())
    build_catalog(tmp_path / "full", _corpus(tmp_path / "full", "a.parquet"))
    types = "select column_name, column_type from (describe records)"
    assert _ask(tmp_path / "empty", types) == _ask(tmp_path / "full", types)


def test_times_are_utc_without_a_zone(tmp_path: Path) -> None:
    build_catalog(tmp_path, _corpus(tmp_path, "a.parquet"), {"runs": RUNS})
    assert _ask(tmp_path, "select max(sent_time) from records") == [(datetime(2026, 1, 2, 3, 4, 5, 678901),)]
    assert _ask(tmp_path, "select started_time from runs") == [(datetime(1970, 1, 1),)]


def test_small_tables_and_the_list_of_shards_can_be_asked(tmp_path: Path) -> None:
    build_catalog(tmp_path, _corpus(tmp_path, "a.parquet"), {"runs": RUNS})
    assert _ask(tmp_path, "select run_id, count(*) from records natural join runs group by 1") == [("run-1", 5)]
    assert _ask(tmp_path, "select dataset, name, rows from shards") == [("demo", "a.parquet", 5)]


def test_it_is_made_anew_over_a_damaged_one(tmp_path: Path) -> None:
    manifest = _corpus(tmp_path, "a.parquet")
    (tmp_path / CATALOG_NAME).write_bytes(b"not a database" * 100)
    with pytest.raises(CorpusDamaged, match="delete it"), open_catalog(tmp_path):
        pass
    build_catalog(tmp_path, manifest)
    assert _ask(tmp_path, "select count(*) from records") == [(5,)]


def test_nothing_but_the_catalogue_is_left_in_the_folder(tmp_path: Path) -> None:
    build_catalog(tmp_path, Manifest(), {"runs": RUNS})
    assert os.listdir(tmp_path) == [CATALOG_NAME]


def test_a_column_called_at_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="name it for what happened"):
        build_catalog(tmp_path, Manifest(), {"runs": pa.table({"at": [1]})})
    assert os.listdir(tmp_path) == []


def test_a_missing_catalogue_is_said_plainly(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no catalogue yet"), open_catalog(tmp_path):
        pass


def test_a_catalogue_open_elsewhere_can_still_be_replaced(tmp_path: Path) -> None:
    build_catalog(tmp_path, Manifest())
    with open_catalog(tmp_path) as reader:
        build_catalog(tmp_path, _corpus(tmp_path, "a.parquet"))
        assert reader.execute("select count(*) from records").fetchall() == [(0,)]
    assert _ask(tmp_path, "select count(*) from records") == [(5,)]


def test_a_writer_elsewhere_is_named_as_the_reason(tmp_path: Path) -> None:
    build_catalog(tmp_path, Manifest())
    holder = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('open', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", holder, str(tmp_path / CATALOG_NAME)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        child.stdout.readline()
        with pytest.raises(StoreError, match="another process"), open_catalog(tmp_path):
            pass
        child.communicate()


def test_a_corpus_path_with_a_quote_works(tmp_path: Path) -> None:
    corpus = tmp_path / "it's"
    build_catalog(corpus, _corpus(corpus, "a.parquet"))
    assert _ask(corpus, "select count(*) from records") == [(5,)]


def test_the_catalogue_is_read_only(tmp_path: Path) -> None:
    build_catalog(tmp_path, Manifest())
    with open_catalog(tmp_path) as connection, pytest.raises(duckdb.InvalidInputException):
        connection.execute("drop view records")


def _corpus(corpus: Path, *names: str) -> Manifest:
    files = [write_shard(corpus / "shards" / "demo", name, sample_records(5)) for name in names]
    return write_manifest(corpus, [manifest_entry(file, dataset="demo", split="train") for file in files])


def _ask(corpus: Path, sql: str) -> list[tuple[object, ...]]:
    with open_catalog(corpus) as connection:
        return connection.execute(sql).fetchall()
