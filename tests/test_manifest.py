from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpusgen.errors import CorpusDamaged, CorpusTooNew, CorpusUnwritable
from corpusgen.store.manifest import (
    MANIFEST_NAME,
    Manifest,
    ShardEntry,
    encode,
    manifest_of,
    read_manifest,
    write_manifest,
)

ENTRY = ShardEntry(
    dataset="word-domain",
    split="train",
    name="train-00000.parquet",
    rows=3,
    sha256="ab" * 32,
    size_bytes=1234,
    schema_version=1,
    writer_version=1,
)


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    written = write_manifest(tmp_path, [ENTRY, replace(ENTRY, name="train-00001.parquet", rows=4)])
    assert read_manifest(tmp_path) == written
    assert written.rows == 7


def test_a_new_corpus_has_an_empty_manifest(tmp_path: Path) -> None:
    assert read_manifest(tmp_path) == Manifest()


def test_the_order_of_commits_does_not_change_the_bytes(tmp_path: Path) -> None:
    other = replace(ENTRY, name="train-00001.parquet")
    write_manifest(tmp_path / "a", [ENTRY, other])
    write_manifest(tmp_path / "b", [other, ENTRY])
    assert (tmp_path / "a" / MANIFEST_NAME).read_bytes() == (tmp_path / "b" / MANIFEST_NAME).read_bytes()


def test_paths_can_be_narrowed_to_a_dataset_and_a_split(tmp_path: Path) -> None:
    gold = replace(ENTRY, split="gold", name="gold-00000.parquet")
    other = replace(ENTRY, dataset="word-example")
    manifest = write_manifest(tmp_path, [ENTRY, gold, other])
    assert len(manifest.paths(tmp_path)) == 3
    assert manifest.paths(tmp_path, dataset="word-domain", split="gold") == [tmp_path / gold.path]


def test_a_newer_manifest_is_refused_with_both_versions(tmp_path: Path) -> None:
    write_manifest(tmp_path, [ENTRY])
    _edit(tmp_path, manifest_version=7)
    with pytest.raises(CorpusTooNew, match="version 7 found, this corpusgen supports up to 1"):
        read_manifest(tmp_path)


def test_a_shard_of_a_newer_schema_is_refused(tmp_path: Path) -> None:
    write_manifest(tmp_path, [replace(ENTRY, schema_version=9)])
    with pytest.raises(CorpusTooNew, match="schema version 9 found"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"{}",
        b'{"manifest_version": 1, "rows": 0}',
        b'{"manifest_version": "1", "shards": []}',
    ],
)
def test_a_damaged_manifest_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / MANIFEST_NAME).write_bytes(content)
    with pytest.raises(CorpusDamaged, match=MANIFEST_NAME):
        read_manifest(tmp_path)


@given(st.binary(max_size=40), st.integers(0, 200))
def test_no_damage_reads_as_something_else_than_an_error(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes, position: int
) -> None:
    folder = tmp_path_factory.mktemp("corpus")
    written = write_manifest(folder, [ENTRY])
    content = (folder / MANIFEST_NAME).read_bytes()
    (folder / MANIFEST_NAME).write_bytes(content[:position] + noise + content[position:])
    with suppress(CorpusDamaged, CorpusTooNew):
        assert read_manifest(folder).rows == written.rows


@pytest.mark.parametrize("name", ["../../etc/passwd", "", "..", "a/b.parquet", "a\0b"])
def test_a_manifest_cannot_point_outside_of_the_corpus(tmp_path: Path, name: str) -> None:
    write_manifest(tmp_path, [replace(ENTRY, name=name)])
    with pytest.raises(CorpusDamaged, match="outside"):
        read_manifest(tmp_path)


def test_a_row_count_that_does_not_add_up_is_damage(tmp_path: Path) -> None:
    write_manifest(tmp_path, [ENTRY])
    _edit(tmp_path, rows=4)
    with pytest.raises(CorpusDamaged, match="says 4 rows, its shards add up to 3"):
        read_manifest(tmp_path)


def test_a_folder_that_cannot_be_written_leaves_the_old_manifest(tmp_path: Path) -> None:
    write_manifest(tmp_path, [ENTRY])
    blocker = tmp_path / f".{MANIFEST_NAME}.tmp"
    blocker.mkdir()
    with pytest.raises(CorpusUnwritable, match=MANIFEST_NAME):
        write_manifest(tmp_path, [])
    assert read_manifest(tmp_path).shards == (ENTRY,)


def test_no_temporary_file_is_left(tmp_path: Path) -> None:
    write_manifest(tmp_path, [ENTRY])
    assert os.listdir(tmp_path) == [MANIFEST_NAME]


def test_there_is_one_way_to_write_a_manifest(tmp_path: Path) -> None:
    other = replace(ENTRY, name="train-00001.parquet")
    assert write_manifest(tmp_path, [other, ENTRY]) == manifest_of([ENTRY, other])
    assert encode(manifest_of([ENTRY, other])) == (tmp_path / MANIFEST_NAME).read_bytes()


def _edit(corpus: Path, **changes: object) -> None:
    path = corpus / MANIFEST_NAME
    path.write_bytes(orjson.dumps(orjson.loads(path.read_bytes()) | changes))
