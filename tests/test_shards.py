from __future__ import annotations

import hashlib
import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from record_samples import sample_record, sample_records, sorted_records

from corpusgen.errors import CorpusDamaged, CorpusTooNew, CorpusUnwritable, StoreError
from corpusgen.records import SCHEMA_VERSION, Record
from corpusgen.store.shards import (
    SCHEMA,
    ShardFile,
    manifest_entry,
    read_batches,
    read_columns,
    read_records,
    verify_shard,
    write_shard,
)

TESTS = Path(__file__).parent


def test_the_columns_are_the_fields_of_a_record() -> None:
    assert SCHEMA.names == [field.name for field in fields(Record)]


def test_no_column_is_a_map_that_readers_reject() -> None:
    assert not [field.name for field in SCHEMA if pa.types.is_map(field.type)]


@settings(max_examples=60)
@given(sorted_records())
def test_what_was_written_is_read_back(tmp_path_factory: pytest.TempPathFactory, written: list[Record]) -> None:
    folder = tmp_path_factory.mktemp("shards")
    shard = write_shard(folder, "a.parquet", written)
    assert list(read_records([folder / "a.parquet"])) == written
    assert shard.rows == len(written)
    assert verify_shard(folder / "a.parquet", shard) is None


def test_what_the_teacher_does_not_give_is_null_and_an_empty_list_stays_empty(tmp_path: Path) -> None:
    write_shard(tmp_path, "a.parquet", [sample_record(topk_logprobs=None, token_logprobs=(), label_logprobs=(None,))])
    table = read_columns([tmp_path / "a.parquet"], ["topk_logprobs", "token_logprobs", "label_logprobs"])
    assert table.to_pylist() == [{"topk_logprobs": None, "token_logprobs": [], "label_logprobs": [None]}]


def test_the_same_records_give_the_same_bytes(tmp_path: Path) -> None:
    first = write_shard(tmp_path / "a", "a.parquet", sample_records(700))
    second = write_shard(tmp_path / "b", "a.parquet", iter(sample_records(700)))
    assert first == second
    assert (tmp_path / "a" / "a.parquet").read_bytes() == (tmp_path / "b" / "a.parquet").read_bytes()


def test_a_shard_knows_its_digest_and_size(tmp_path: Path) -> None:
    shard = write_shard(tmp_path, "a.parquet", sample_records(3))
    assert shard.size_bytes == (tmp_path / "a.parquet").stat().st_size
    assert verify_shard(tmp_path / "a.parquet", shard) is None


def test_a_long_shard_is_on_disk_before_its_last_record_is_there(tmp_path: Path) -> None:
    written: list[int] = []

    def slow() -> Iterator[Record]:
        yield from sample_records(8192)
        yield sample_record(record_id="s")
        written.append((tmp_path / ".a.parquet.tmp").stat().st_size)

    write_shard(tmp_path, "a.parquet", slow())
    metadata = pq.read_metadata(tmp_path / "a.parquet")
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [8192, 1]
    assert written[0] > 5_000


def test_long_records_make_short_row_groups(tmp_path: Path) -> None:
    write_shard(tmp_path, "a.parquet", sample_records(30, response="x" * 1_000_000))
    metadata = pq.read_metadata(tmp_path / "a.parquet")
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [9, 9, 9, 3]


def test_batches_of_several_shards_keep_their_order(tmp_path: Path) -> None:
    paths = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    for path in paths:
        write_shard(tmp_path, path.name, sample_records(5))
    batches = list(read_batches(paths, ["sample_index"], rows=2))
    assert [row for batch in batches for row in batch.column(0).to_pylist()] == [0, 1, 2, 3, 4] * 2


def test_columns_come_in_the_order_asked_for(tmp_path: Path) -> None:
    write_shard(tmp_path, "a.parquet", sample_records(1))
    assert read_columns([tmp_path / "a.parquet"], ["response", "label"]).column_names == ["response", "label"]


def test_shards_are_read_through_any_arrow_filesystem(tmp_path: Path) -> None:
    write_shard(tmp_path, "a.parquet", sample_records(2))
    elsewhere = pyarrow.fs.SubTreeFileSystem(str(tmp_path), pyarrow.fs.LocalFileSystem())
    assert read_columns([Path("a.parquet")], ["label"], filesystem=elsewhere).num_rows == 2


def test_no_shards_have_no_rows_but_all_columns() -> None:
    assert read_columns([], SCHEMA.names).schema == SCHEMA


@pytest.mark.parametrize("ids", [["b", "a"], ["a", "a"]])
def test_unsorted_or_repeated_records_are_refused(tmp_path: Path, ids: list[str]) -> None:
    with pytest.raises(ValueError, match="sorted and unique"):
        write_shard(tmp_path, "a.parquet", [sample_record(record_id=name) for name in ids])
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["../a.parquet", "a", ".a.parquet", "a/b.parquet", "A.parquet", "", "a.parquet\n"])
def test_a_shard_cannot_be_written_outside_of_its_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="shard's name"):
        write_shard(tmp_path, name, [])


def test_an_error_of_the_records_passes_as_itself_and_leaves_nothing(tmp_path: Path) -> None:
    def failing() -> Iterator[Record]:
        yield from sample_records(300)
        raise ConnectionResetError("teacher went away")

    with pytest.raises(ConnectionResetError, match="teacher went away"):
        write_shard(tmp_path, "a.parquet", failing())
    assert os.listdir(tmp_path) == []


def test_a_full_disk_leaves_nothing_and_says_so(tmp_path: Path) -> None:
    done = _run_child(tmp_path, "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))")
    assert done.returncode == 0, done.stderr
    assert re.search(r"CorpusUnwritable .*a\.parquet.*free some space", done.stdout)
    assert not done.stderr
    assert os.listdir(tmp_path) == []


def test_a_folder_that_cannot_be_made_is_unwritable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CorpusUnwritable, match="--corpus"):
        write_shard(tmp_path / "file" / "shards", "a.parquet", sample_records(1))


@pytest.mark.parametrize("after_bytes", [1, 100_000, 400_000])
def test_a_killed_writer_leaves_no_visible_shard(tmp_path: Path, after_bytes: int) -> None:
    child = subprocess.Popen([sys.executable, "-c", _CHILD], env=_environment(tmp_path, ""))
    hidden = tmp_path / ".a.parquet.tmp"
    while child.poll() is None and (not hidden.exists() or hidden.stat().st_size < after_bytes):
        pass
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert not list(tmp_path.glob("*.parquet"))
    assert verify_shard(tmp_path / "a.parquet", write_shard(tmp_path, "a.parquet", sample_records(5))) is None
    assert os.listdir(tmp_path) == ["a.parquet"]


def test_every_flipped_bit_is_found_by_verify(tmp_path: Path) -> None:
    shard = write_shard(tmp_path, "a.parquet", sample_records(200))
    content = (tmp_path / "a.parquet").read_bytes()
    chance = random.Random(7)
    for _ in range(200):
        damaged = bytearray(content)
        damaged[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        (tmp_path / "a.parquet").write_bytes(damaged)
        assert verify_shard(tmp_path / "a.parquet", shard) is not None


def test_a_flipped_bit_in_a_page_is_found_while_reading(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write_shard(tmp_path, "a.parquet", sample_records(200))
    content = path.read_bytes()
    column = pq.read_metadata(path).row_group(0).column(0)
    end = column.data_page_offset + column.total_compressed_size
    for position in range(end - 100, end):
        path.write_bytes(content[:position] + bytes([content[position] ^ 4]) + content[position + 1 :])
        with pytest.raises(CorpusDamaged, match=r"a\.parquet"):
            read_columns([path], ["record_id"])


@pytest.mark.parametrize("length", [0, 3, 8, 500, -1])
def test_a_shard_cut_short_is_damaged(tmp_path: Path, length: int) -> None:
    shard = write_shard(tmp_path, "a.parquet", sample_records(3))
    path = tmp_path / "a.parquet"
    path.write_bytes(path.read_bytes()[:length])
    assert "committed were" in str(verify_shard(path, shard))
    with pytest.raises(CorpusDamaged, match=r"a\.parquet"):
        list(read_records([path]))


def test_a_missing_shard_is_damage_not_an_empty_table(tmp_path: Path) -> None:
    with pytest.raises(CorpusDamaged, match="no such file"):
        read_columns([tmp_path / "a.parquet"], ["label"])
    missing = ShardFile(name="a.parquet", rows=1, sha256="", size_bytes=1)
    assert "no such file" in str(verify_shard(tmp_path / "a.parquet", missing))


def test_verify_counts_rows_and_checks_the_order_of_keys(tmp_path: Path) -> None:
    shard = write_shard(tmp_path, "a.parquet", sample_records(3))
    path = tmp_path / "a.parquet"
    assert "3 rows, committed were 4" in str(verify_shard(path, replace(shard, rows=4)))
    table = pq.read_table(path).take([0, 2, 2])
    pq.write_table(table, path)
    assert "not sorted and unique" in str(verify_shard(path, _as_found(path, rows=3)))


def test_a_shard_of_a_newer_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write_shard(tmp_path, "a.parquet", sample_records(1))
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({"corpusgen.schema_version": "9"}), path)
    with pytest.raises(CorpusTooNew, match=f"version 9 found, this corpusgen supports up to {SCHEMA_VERSION}"):
        read_columns([path], ["label"])


def test_a_column_that_an_older_shard_lacks_reads_as_null(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write_shard(tmp_path, "a.parquet", sample_records(1))
    pq.write_table(pq.read_table(path).drop_columns(["pii_kinds"]), path)
    assert read_columns([path], ["pii_kinds", "label"]).to_pylist() == [{"pii_kinds": None, "label": "animal"}]


def test_a_shard_of_the_first_schema_is_written_again_as_it_was_and_reads_with_nulls(tmp_path: Path) -> None:
    record = sample_record(structured='{"a":1}', teacher_role="fallback")
    write_shard(tmp_path, "a.parquet", [record], version=1)
    schema = pq.read_schema(tmp_path / "a.parquet")
    assert not {"structured", "teacher_role"} & set(schema.names)
    assert schema.metadata[b"corpusgen.schema_version"] == b"1"
    (read,) = read_records([tmp_path / "a.parquet"])
    assert (read.structured, read.teacher_role, read.schema_version) == (None, None, 1)


def test_a_shard_of_the_second_schema_knows_no_conversations(tmp_path: Path) -> None:
    record = sample_record(structured='{"a":1}', conversation='{"api":"chat","messages":[]}')
    plain = write_shard(tmp_path, "plain.parquet", [replace(record, conversation=None)], version=2)
    shard = write_shard(tmp_path, "a.parquet", [record], version=2)
    assert (shard.sha256, shard.size_bytes) == (plain.sha256, plain.size_bytes)
    (read,) = read_records([tmp_path / "a.parquet"])
    assert (read.structured, read.conversation, read.schema_version) == ('{"a":1}', None, 2)


def test_a_shard_can_be_verified_against_its_line_in_the_manifest(tmp_path: Path) -> None:
    entry = manifest_entry(write_shard(tmp_path, "a.parquet", sample_records(2)), dataset="demo", split="train")
    assert verify_shard(tmp_path / "a.parquet", entry) is None
    assert "committed were" in str(verify_shard(tmp_path / "a.parquet", replace(entry, sha256="00" * 32)))


def test_metadata_travels_with_the_shard(tmp_path: Path) -> None:
    write_shard(tmp_path, "a.parquet", sample_records(1), metadata={"corpusgen.run": "run-1"})
    metadata = pq.read_schema(tmp_path / "a.parquet").metadata
    assert (metadata[b"corpusgen.run"], metadata[b"corpusgen.schema_version"]) == (
        b"run-1",
        str(SCHEMA_VERSION).encode(),
    )


_CHILD = """
import os; exec(os.environ["BEFORE"])
from pathlib import Path
from record_samples import sample_record
from corpusgen.errors import CorpusUnwritable
from corpusgen.store.shards import write_shard
records = (sample_record(record_id=f"{i:08}", response=os.urandom(50).hex()) for i in range(100_000))
try:
    write_shard(Path(os.environ["FOLDER"]), "a.parquet", records)
except CorpusUnwritable as error:
    print(type(error).__name__, error)
"""


def _environment(folder: Path, before: str) -> dict[str, str]:
    path = os.pathsep.join([str(TESTS.parent), str(TESTS)])
    return {**os.environ, "PYTHONPATH": path, "FOLDER": str(folder), "BEFORE": before}


def _run_child(folder: Path, before: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", _CHILD]
    return subprocess.run(command, env=_environment(folder, before), capture_output=True, text=True, check=False)


def _as_found(path: Path, rows: int) -> ShardFile:
    content = path.read_bytes()
    return ShardFile(name=path.name, rows=rows, sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content))


def test_a_record_that_fits_no_shard_is_named(tmp_path: Path) -> None:
    fine, unfit = sample_records(2)[:2]
    with pytest.raises(StoreError, match=f"record {unfit.record_id} does not fit"):
        write_shard(tmp_path, "a.parquet", [fine, replace(unfit, token_ids=(2**31,))])
    assert not list(tmp_path.iterdir())
