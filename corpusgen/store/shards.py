"""Parquet shards: the records of a corpus, written once, checked whenever they are read.

A shard is sorted by ``record_id``, compressed with zstd and carries a checksum on every page. It appears under its
name only when it is whole, and the same records give the same bytes.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate, chain
from operator import attrgetter, itemgetter
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

# Arrow's own pool keeps 25 MB of what it was given, which is more than a whole row group; read when Arrow is loaded.
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")

import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq

from corpusgen.errors import CorpusDamaged, CorpusTooNew, StoreError
from corpusgen.records import SCHEMA_VERSION, Message, Record, Verdict
from corpusgen.store.durable import hidden_name, make_folder, publish, unwritable
from corpusgen.store.manifest import ShardEntry

WRITER_VERSION = 1
"""Version of the way shards are written; part of what makes bytes repeatable."""

SORT_KEY = "record_id"
"""The column a shard is sorted by; unique within a shard."""

_TEXT = pa.string()
_TEXTS = pa.list_(pa.string())
_BYTES = pa.list_(pa.binary())
_FLOATS = pa.list_(pa.float32())
_HALVES = pa.list_(pa.float16())
_IDS = pa.list_(pa.int32())
_TIME = pa.timestamp("us", "UTC")
_MESSAGES = pa.list_(pa.struct([("role", _TEXT), ("content", _TEXT)]))
_VERDICTS = pa.list_(pa.struct([("check", _TEXT), ("kept", pa.bool_()), ("score", pa.float64()), ("reason", _TEXT)]))

SCHEMA = pa.schema(
    [
        ("record_id", _TEXT),
        ("task", _TEXT),
        ("dataset_split", _TEXT),
        ("kind", _TEXT),
        ("sample_index", pa.int32()),
        ("parent_ids", _TEXTS),
        ("input", _TEXT),
        ("messages", _MESSAGES),
        ("response", _TEXT),
        ("reasoning", _TEXT),
        ("trace_kind", _TEXT),
        ("finish_reason", _TEXT),
        ("truncated", pa.bool_()),
        ("label", _TEXT),
        ("label_names", _TEXTS),
        ("label_logprobs", _FLOATS),
        ("token_bytes", _BYTES),
        ("token_ids", _IDS),
        ("token_logprobs", _FLOATS),
        ("topk_bytes", _BYTES),
        ("topk_ids", _IDS),
        ("topk_logprobs", _HALVES),
        ("topk_len", pa.list_(pa.uint16())),
        ("logprob_kind", _TEXT),
        ("tokenizer", _TEXT),
        ("tool_calls", _TEXT),
        ("input_tokens", pa.int32()),
        ("cached_input_tokens", pa.int32()),
        ("output_tokens", pa.int32()),
        ("reasoning_tokens", pa.int32()),
        ("cost_microusd", pa.int64()),
        ("origin_cost_microusd", pa.int64()),
        ("price_version", _TEXT),
        ("teacher", _TEXT),
        ("provider", _TEXT),
        ("model_requested", _TEXT),
        ("model_served", _TEXT),
        ("route", _TEXT),
        ("host", _TEXT),
        ("request_key", _TEXT),
        ("request_keys", _TEXTS),
        ("provider_request_id", _TEXT),
        ("terms_set_id", _TEXT),
        ("licence_expression", _TEXT),
        ("outputs_train", _TEXT),
        ("source_ids", _TEXTS),
        ("prompt_digest", _TEXT),
        ("spec_digest", _TEXT),
        ("run_id", _TEXT),
        ("from_cache", pa.bool_()),
        ("sent_time", _TIME),
        ("received_time", _TIME),
        ("latency_ms", pa.float64()),
        ("pii_kinds", _TEXTS),
        ("verdicts", _VERDICTS),
        ("calibrated_label", _TEXT),
        ("calibrated_logprobs", _FLOATS),
        ("structured", _TEXT),
        ("teacher_role", _TEXT),
        ("conversation", _TEXT),
        ("schema_version", pa.int32()),
    ]
)
"""The columns of a shard: the fields of Record, in their order, under their names."""

EXACT = frozenset(
    field.name
    for field in SCHEMA
    if field.type in (_TEXT, _TEXTS) or pa.types.is_integer(field.type) or pa.types.is_boolean(field.type)
)
"""The columns in which values that are equal are the same: not those of fractions, which have 0.0 and -0.0."""
_SINCE = {"structured": 2, "teacher_role": 2, "conversation": 3}
"""The schema versions in which columns came that were not there from the beginning."""
_VERSION_KEY = "corpusgen.schema_version"
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,127}\.parquet")
ROWS_PER_BATCH = 256
UNFIT = (pa.ArrowException, OverflowError, UnicodeError)
_ROWS_PER_GROUP = 8192
_BYTES_PER_GROUP = 8 << 20
_ROWS_PER_READ = 4096
# Values that hardly repeat: trying a dictionary on them costs time and saves nothing.
_UNREPEATED = {
    "record_id",
    "input",
    "messages.list.element.content",
    "response",
    "reasoning",
    "label_logprobs.list.element",
    "token_logprobs.list.element",
    "calibrated_logprobs.list.element",
    "topk_logprobs.list.element",
    "request_key",
    "request_keys.list.element",
    "provider_request_id",
    "sent_time",
    "received_time",
    "latency_ms",
    "structured",
    "conversation",
}


@dataclass(frozen=True, kw_only=True)
class ShardFile:
    """A shard that is on disk: what the journal and the manifest remember of it."""

    name: str
    rows: int
    sha256: str
    size_bytes: int


def write_shard(
    folder: Path,
    name: str,
    records: Iterable[Record],
    *,
    metadata: Mapping[str, str] | None = None,
    version: int = SCHEMA_VERSION,
) -> ShardFile:
    """The shard ``folder/name``, whole and durable; or nothing at all and CorpusUnwritable.

    ``records`` come sorted by ``record_id``, each once, and are held a few hundred at a time. An error of theirs
    passes through as itself. Writing a name again replaces the file. An older ``version`` gives the bytes it gave then.
    """
    columns = _columns_of(version)
    # Records become columns in small batches: columns are far smaller than objects.
    alike: Alike = {}
    made = (sized(_fitting(chunk, columns, alike)) for chunk in _chunks(_increasing(_of_version(records, version))))
    return _write(folder, name, made, columns.with_metadata({**(metadata or {}), _VERSION_KEY: str(version)}))


def write_batches(folder: Path, name: str, batches: Iterable[Sized]) -> ShardFile:
    """The same of records that are columns already, as ``to_batch`` makes them and so many at once."""
    return _write(folder, name, batches, SCHEMA.with_metadata({_VERSION_KEY: str(SCHEMA_VERSION)}))


def _write(folder: Path, name: str, batches: Iterable[Sized], schema: pa.Schema) -> ShardFile:
    if not _NAME.fullmatch(name):
        raise ValueError(f"a shard's name is lower-case letters, digits, '_', '.', '-' and ends in .parquet: {name!r}")
    path = folder / name
    make_folder(folder)
    hidden = hidden_name(path)
    try:
        with unwritable(path):
            file = open(hidden, "wb")  # noqa: SIM115 - closed by the with below, outside of this error mapping
        with _closed_after(file, path):
            sink = _Sink(file, path)
            rows = _write_rows(sink, iter(batches), schema)
            sink.sync()
        with unwritable(path):
            publish(hidden, path)
    finally:
        with unwritable(path):
            hidden.unlink(missing_ok=True)
    return ShardFile(name=name, rows=rows, sha256=sink.sha256, size_bytes=sink.size_bytes)


@contextmanager
def _closed_after(file: BinaryIO, path: Path) -> Iterator[None]:
    try:
        yield
    finally:
        with unwritable(path):  # closing writes what is left, and fails once more on a full disk
            file.close()


def read_columns(
    paths: Iterable[Path], columns: Sequence[str], *, filesystem: pyarrow.fs.FileSystem | None = None
) -> pa.Table:
    """The named columns of all rows of the given shards, in the order of the shards."""
    schema = pa.schema([SCHEMA.field(name) for name in columns])
    return pa.Table.from_batches(read_batches(paths, columns, filesystem=filesystem), schema=schema)


def read_batches(
    paths: Iterable[Path],
    columns: Sequence[str],
    *,
    rows: int = _ROWS_PER_READ,
    filesystem: pyarrow.fs.FileSystem | None = None,
) -> Iterator[pa.RecordBatch]:
    """The named columns, a few thousand rows at a time; every page's checksum is verified on the way."""
    schema = pa.schema([SCHEMA.field(name) for name in columns])
    for path in paths:
        with _damaged(path), _opened(path, filesystem) as file:
            for batch in file.iter_batches(rows, columns=list(columns), use_threads=False):
                yield _with_columns(batch, schema)


def read_records(paths: Iterable[Path], *, filesystem: pyarrow.fs.FileSystem | None = None) -> Iterator[Record]:
    """The records of the given shards, as they were written (log-probabilities rounded to their columns' width)."""
    for batch in read_batches(paths, SCHEMA.names, rows=ROWS_PER_BATCH, filesystem=filesystem):
        yield from records_of(batch)


def manifest_entry(file: ShardFile, *, dataset: str, split: str) -> ShardEntry:
    """The manifest's line for a shard that was just written."""
    return ShardEntry(
        dataset=dataset,
        split=split,
        name=file.name,
        rows=file.rows,
        sha256=file.sha256,
        size_bytes=file.size_bytes,
        schema_version=SCHEMA_VERSION,
        writer_version=WRITER_VERSION,
    )


def verify_shard(path: Path, expected: ShardFile | ShardEntry) -> str | None:
    """What is wrong with a shard, in one sentence, or None: size, digest, page checksums, rows, order of keys."""
    try:
        size, sha256 = _size_and_digest(path)
        if (size, sha256) != (expected.size_bytes, expected.sha256):
            return f"{path}: {size} bytes with sha256 {sha256}, committed were {expected.size_bytes} {expected.sha256}"
        return _content_problem(path, expected.rows)
    except (CorpusDamaged, CorpusTooNew) as error:
        return str(error)


Alike: TypeAlias = dict[str, tuple[Any, pa.Array]]
"""The columns of the latest batch that hold one value from top to bottom, as most do: they are not made again."""


def to_batch(records: Sequence[Record], schema: pa.Schema = SCHEMA, alike: Alike | None = None) -> pa.RecordBatch:
    """Records as Arrow columns."""
    return batch_of_rows(list(map(itemgetter(*schema.names), map(vars, records))), schema, alike)


Row: TypeAlias = tuple[Any, ...]
"""Values of a record in the order of the columns: a third of the memory that a record takes, or less."""


def batch_of_rows(rows: Sequence[Row], schema: pa.Schema = SCHEMA, alike: Alike | None = None) -> pa.RecordBatch:
    """The values of records as Arrow columns."""
    columns = zip(*rows, strict=True) if rows else ((),) * len(schema)
    made = partial(_alike, alike) if alike is not None and rows else _column_of
    arrays = [made(values, field) for values, field in zip(columns, schema, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _column_of(values: Sequence[Any], field: pa.Field) -> pa.Array:
    return _column(values, field.type)


def _alike(alike: Alike, values: Sequence[Any], field: pa.Field) -> pa.Array:
    first = values[0]
    if not (first is None or first == () or field.name in EXACT) or values.count(first) != len(values):
        alike.pop(field.name, None)
        return _column(values, field.type)
    known = alike.get(field.name)
    if known is None or known[0] != first or len(known[1]) != len(values):
        known = alike[field.name] = (first, _column(values, field.type))
    return known[1]


@dataclass(frozen=True, kw_only=True)
class Sized:
    """Some or all columns of a shard."""

    batch: pa.RecordBatch
    size: int
    """Their bytes, which say where a row group ends."""


def sized(batch: pa.RecordBatch) -> Sized:
    """Columns with their size."""
    return Sized(batch=batch, size=sum(map(_size_of, batch.columns)))


def side_by_side(one: Sized, other: Sized) -> Sized:
    """All columns of a shard, of which each of two batches has some."""
    columns = dict(chain.from_iterable(zip(part.schema.names, part, strict=True) for part in (one.batch, other.batch)))
    batch = pa.RecordBatch.from_arrays([columns[name] for name in SCHEMA.names], schema=SCHEMA)
    return Sized(batch=batch, size=one.size + other.size)


def records_of(batch: pa.RecordBatch) -> list[Record]:
    """Arrow columns (all of them) as records."""
    columns = [_values(batch.column(field.name), field.type) for field in SCHEMA]
    return [Record(**dict(zip(SCHEMA.names, row, strict=True))) for row in zip(*columns, strict=True)]


def _columns_of(version: int) -> pa.Schema:
    return pa.schema([field for field in SCHEMA if _SINCE.get(field.name, 1) <= version])


def _of_version(records: Iterable[Record], version: int) -> Iterable[Record]:
    if version == SCHEMA_VERSION:
        return records
    later: dict[str, Any] = {name: None for name, since in _SINCE.items() if since > version}
    return (replace(record, schema_version=version, **later) for record in records)


def _write_rows(sink: _Sink, batches: Iterator[Sized], schema: pa.Schema) -> int:
    rows = 0
    with pq.ParquetWriter(
        sink,
        schema,
        compression="zstd",
        use_dictionary=_repeating(schema),
        # Nobody looks rows up by a token or a long text: statistics on them only fill the footer.
        write_statistics=[field.name for field in schema if not pa.types.is_list(field.type)],
        write_page_checksum=True,
        sorting_columns=[pq.SortingColumn(schema.get_field_index(SORT_KEY))],
    ) as writer:
        for group in _row_groups(batches):
            pa.default_memory_pool().release_unused()  # what making the columns took
            writer.write_table(group.replace_schema_metadata(schema.metadata), row_group_size=group.num_rows)
            rows += group.num_rows
            del group  # or it would be there beside the next one
            pa.default_memory_pool().release_unused()
    return rows


def _row_groups(made: Iterator[Sized]) -> Iterator[pa.Table]:
    while batches := list(_fill_group(made)):
        groups = [pa.Table.from_batches(batches)]
        batches.clear()  # or they would be there until the next ones are
        yield groups.pop()


def _fitting(records: Sequence[Record], columns: pa.Schema, alike: Alike | None = None) -> pa.RecordBatch:
    try:
        return to_batch(records, columns, alike)
    except UNFIT as error:
        # Of a batch of one, this is the record; else it is looked for.
        for record in records if len(records) > 1 else ():
            _fitting([record], columns)
        name = records[0].record_id
        raise StoreError(f"record {name} does not fit the columns of a shard: {error}; report this") from error


def _fill_group(made: Iterator[Sized]) -> Iterator[pa.RecordBatch]:
    rows = size = 0
    while rows < _ROWS_PER_GROUP and size < _BYTES_PER_GROUP and (next_ones := next(made, None)):
        rows, size = rows + next_ones.batch.num_rows, size + next_ones.size
        yield next_ones.batch


def _size_of(column: pa.Array) -> int:
    """The bytes of a column; whether nulls that are not there have a bitmap depends on how it was made."""
    return int(column.nbytes) - _bitmaps(column)


def _bitmaps(column: pa.Array) -> int:
    needless = column.null_count == 0 and column.buffers()[0] is not None
    return ((len(column) + 7) // 8 if needless else 0) + sum(_bitmaps(child) for child in _children(column))


def _children(column: pa.Array) -> list[pa.Array]:
    if pa.types.is_list(column.type):
        return [column.values]
    return [column.field(at) for at in range(column.type.num_fields)] if pa.types.is_struct(column.type) else []


def _chunks(records: Iterable[Record]) -> Iterator[list[Record]]:
    chunk: list[Record] = []
    weight = 0
    for record in records:
        chunk.append(record)
        weight += weight_of(record)
        if len(chunk) == ROWS_PER_BATCH or weight > _BYTES_PER_GROUP:
            yield chunk
            chunk, weight = [], 0
    if chunk:
        yield chunk


def weight_of(record: Record) -> int:
    """Roughly the bytes of a record's longest parts; a runner-up is an object or two."""
    less_often = len(record.reasoning or "") + len(record.conversation or "") + 100 * len(record.topk_bytes or ())
    return len(record.input) + len(record.response) + less_often


def _increasing(records: Iterable[Record]) -> Iterator[Record]:
    previous = ""
    for record in records:
        if record.record_id <= previous:
            raise ValueError(f"records of a shard are sorted and unique: {record.record_id!r} follows {previous!r}")
        previous = record.record_id
        yield record


def _repeating(schema: pa.Schema) -> list[str]:
    leaves = chain.from_iterable(_leaves(field.name, field.type) for field in schema)
    return [leaf for leaf in leaves if leaf not in _UNREPEATED]


def _leaves(path: str, kind: pa.DataType) -> list[str]:
    if pa.types.is_list(kind):
        return _leaves(f"{path}.list.element", kind.value_type)
    if pa.types.is_struct(kind):
        return [leaf for field in kind for leaf in _leaves(f"{path}.{field.name}", field.type)]
    return [path]


def _column(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    if pa.types.is_list(kind) and pa.types.is_struct(kind.value_type):
        return _structs(values, kind)
    if kind in (_FLOATS, _HALVES) and any(values):
        # Python floats are doubles: taking them as such and narrowing in Arrow is the fastest way.
        return pa.array(values, pa.list_(pa.float64())).cast(kind)
    return pa.array(values, kind)


def _structs(values: Sequence[Sequence[Any]], kind: pa.ListType) -> pa.Array:
    items = list(chain.from_iterable(values))
    fields = list(kind.value_type)
    members = [pa.array(list(map(attrgetter(field.name), items)), field.type) for field in fields]
    offsets = pa.array(accumulate(map(len, values), initial=0), pa.int32())
    return pa.ListArray.from_arrays(offsets, pa.StructArray.from_arrays(members, fields=fields), type=kind)


def _values(column: pa.Array, kind: pa.DataType) -> list[Any]:
    values: list[Any] = column.to_pylist()
    if kind == _MESSAGES:
        return [tuple(Message(**item) for item in items) for items in values]
    if kind == _VERDICTS:
        return [tuple(Verdict(**item) for item in items) for items in values]
    if pa.types.is_list(kind):
        return [None if items is None else tuple(items) for items in values]
    return values


def _content_problem(path: Path, expected_rows: int) -> str | None:
    import pyarrow.compute as pc  # eight megabytes that writing does without

    rows, last = 0, ""
    for batch in read_batches([path], SCHEMA.names):
        keys = batch.column(SORT_KEY)
        if keys[0].as_py() <= last or not pc.all(pc.greater(keys[1:], keys[:-1]), min_count=0).as_py():
            return f"{path}: {SORT_KEY} is not sorted and unique near row {rows}"
        rows, last = rows + len(keys), keys[-1].as_py()
    return None if rows == expected_rows else f"{path}: {rows} rows, committed were {expected_rows}"


def _size_and_digest(path: Path) -> tuple[int, str]:
    with _damaged(path), open(path, "rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return file.tell(), sha256


@contextmanager
def _opened(path: Path, filesystem: pyarrow.fs.FileSystem | None) -> Iterator[pq.ParquetFile]:
    source = (filesystem or pyarrow.fs.LocalFileSystem()).open_input_file(str(path))
    # Without pre-buffering only the row group being read is in memory.
    with source, pq.ParquetFile(source, page_checksum_verification=True, pre_buffer=False) as file:
        _refuse_newer(path, file.schema_arrow.metadata or {})
        yield file


def _refuse_newer(path: Path, metadata: Mapping[bytes, bytes]) -> None:
    found = int(metadata.get(_VERSION_KEY.encode(), b"1"))
    if found > SCHEMA_VERSION:
        raise CorpusTooNew(
            f"{path}: schema version {found} found, this corpusgen supports up to {SCHEMA_VERSION}; install a newer one"
        )


def _with_columns(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    # A shard of an older schema lacks the newest columns: its teacher gave no such thing.
    arrays = [_present_or_null(batch, field) for field in schema]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _present_or_null(batch: pa.RecordBatch, field: pa.Field) -> pa.Array:
    if field.name not in batch.schema.names:
        return pa.nulls(batch.num_rows, field.type)
    return batch.column(field.name)


@contextmanager
def _damaged(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise CorpusDamaged(f"{path}: the manifest names this shard, but there is no such file") from error
    except (OSError, EOFError, ValueError, pa.ArrowException) as error:
        raise CorpusDamaged(f"{path}: not the shard that was written: {error}; run `corpusgen verify`") from error


class _Sink:
    """A file that knows its digest and length, and whose disk errors are already ours."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file = file
        self._path = path
        self._digest = hashlib.sha256()
        self._broken = False
        self.size_bytes = 0
        self.closed = False

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def write(self, content: bytes) -> int:
        if not self._broken:
            self._put(content)
        self._digest.update(content)
        self.size_bytes += len(content)
        return len(content)

    def _put(self, content: bytes) -> None:
        # Once a write has failed the file is lost, but the Parquet writer still wants to end it: let it.
        self._broken = True
        with unwritable(self._path):
            self._file.write(content)
        self._broken = False

    def tell(self) -> int:
        return self.size_bytes

    def flush(self) -> None:
        """Nothing: one sync at the end is enough."""

    def close(self) -> None:
        """Nothing: the file is closed by who opened it, after the sync."""

    def sync(self) -> None:
        with unwritable(self._path):
            self._file.flush()
            os.fsync(self._file.fileno())
