"""What lies beside our own files below a corpus: copies, exports, backups; which of them hold what is to be erased."""

from __future__ import annotations

import bz2
import gzip
import html
import lzma
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import apsw
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from corpusgen.corpus import Corpus
from corpusgen.curation.occurrence import SHORTEST, Occurrence, folded, readings, unescaped
from corpusgen.records import Json
from corpusgen.stages.selecting import selections

LONG_ENOUGH: Final = 16
"""Characters from which a text that stands in another was surely copied from here; a label is none."""
MOST_BYTES: Final = 256 << 20
"""As much of a file, once it is unpacked, as is looked into; of a larger one a person is told."""
_HEX: Final = re.compile(r"[0-9a-f]{64}")
_NAMED: Final = re.compile(
    r"journal\.sqlite(-wal|-shm)?|MANIFEST\.json|keys/[0-9a-f]+\.pub|erasures/[0-9]+\.json|\.[a-z]+\.lock"
    r"|(shards|datasets)/.+/erasing-[^/]+\.parquet"
)
"""Files of ours by their names; those of shards, datasets and students are named by the journal."""
_QUOTED: Final = re.compile(r'"((?:[^"\\]|\\.|"")*)"')
_BETWEEN: Final = re.compile(r"[,;|│\t\n]| {2,}|<[^<>]*>")
_PACKED: Final[Mapping[bytes, Callable[[Any], Any]]] = {
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\x00": lzma.LZMAFile,
    b"\x28\xb5\x2f\xfd": lambda file: zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True),
}
_CLOSED: Final[Mapping[bytes, str]] = {
    b"PK\x03\x04": "it is a ZIP archive",
    b"7z\xbc\xaf\x27\x1c": "it is a 7z archive",
    b"\x37\x7f\x06\x82": "it is a log of SQLite",
    b"\x37\x7f\x06\x83": "it is a log of SQLite",
}
_SQLITE: Final = b"SQLite format 3\x00"


class NotLookedInto(Exception):
    """Why nobody knows what is in a file."""


def ours(corpus: Corpus) -> Callable[[Path], bool]:
    """Whether a file, by its path from the corpus folder, is one that the journal or a manifest names."""
    named = {f"shards/{row[0]}" for row in corpus.journal.query("select name from shards")}
    for one in selections(corpus):
        files = (*one.paths, one.folder / "README.md")
        named |= {path.relative_to(corpus.folder).as_posix() for path in files}
        named.add(f"datasets/{one.label}.seal.json")
    named |= set(_files_of_students(corpus))
    return lambda relative: relative.as_posix() in named or _NAMED.fullmatch(relative.as_posix()) is not None


def _files_of_students(corpus: Corpus) -> Iterator[str]:
    listed: dict[str, list[str]] = {}
    for (text,) in corpus.journal.query("select payload from events where kind = 'student_trained' and payload <> ''"):
        told = orjson.loads(text)
        listed[told["student_id"]] = list(told.get("files") or ())
    for (student_id,) in corpus.journal.query("select student_id from students"):
        files = listed.get(student_id, _FILES_OF_STUDENT)
        yield from (f"students/{student_id}/{name}" for name in files)


_FILES_OF_STUDENT: Final = ("facts.json", "student.json", "student.safetensors")


# --- what is looked for -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Needles:
    """What tells that a file holds what is to be erased."""

    texts: frozenset[str]
    """Texts of the records; the short ones count where they are the whole of a cell."""
    names: frozenset[str]
    """Ids of the records, and digests of the datasets that hold them."""
    keys: frozenset[bytes]
    """Ids of records and requests, as a copy of the journal has them."""
    subject: Occurrence | None

    @cached_property
    def _long(self) -> tuple[str, ...]:
        return tuple(sorted(one for one in map(folded, self.texts) if len(one) >= LONG_ENOUGH))

    @cached_property
    def _short(self) -> frozenset[str]:
        found = {one for one in map(folded, self.texts) if SHORTEST <= len(one) < LONG_ENOUGH}
        return frozenset(one for one in found if any(map(str.isalpha, one)))

    def are_in(self, text: str) -> bool:
        """Whether one of them stands in a text."""
        if not self.names.isdisjoint(_HEX.findall(text)):
            return True
        wanted = self._long if self.subject is None else (self.subject.folded, *self._long)
        return bool(wanted) and any(one in plain for plain in map(folded, readings(text)) for one in wanted)

    def are_cells_of(self, text: str) -> bool:
        """Whether a short one is the whole of a cell in CSV, JSON, HTML or a table for people."""
        return bool(self._short) and any(folded(cell) in self._short for cell in _cells(text))

    def are_in_value(self, value: Json) -> bool:
        """Whether one of them stands in a value that came from JSON, Parquet or a database."""
        if isinstance(value, str):
            return folded(value) in self._short or self.are_in(value)
        if isinstance(value, Mapping):
            return any(map(self.are_in_value, (*value, *value.values())))
        if isinstance(value, bytes):
            return value in self.keys or self.are_in(_expanded(value).decode("utf-8", "replace"))
        return isinstance(value, list | tuple) and any(map(self.are_in_value, value))


def _cells(text: str) -> Iterator[str]:
    for written in (text, html.unescape(text)) if "&" in text else (text,):
        for line in written.splitlines():
            yield from (unescaped(found.replace('""', '"')) for found in _QUOTED.findall(line))
            yield from (unescaped(cell).strip(' "') for cell in _BETWEEN.split(line))


def _expanded(value: bytes) -> bytes:
    """What a body of the journal, or of a copy of it, says."""
    with suppress(zstandard.ZstdError, zlib.error):
        if value[:4] == b"\x28\xb5\x2f\xfd":
            return zstandard.ZstdDecompressor().stream_reader(value).read(MOST_BYTES)
        if value[:1] == b"\x78":
            return zlib.decompressobj().decompress(value, MOST_BYTES)
    return value


# --- files ------------------------------------------------------------------------------------------------------------


def holds(path: Path, relative: Path, needles: Needles) -> bool:
    """Whether a file holds it. Raises NotLookedInto where that cannot be seen."""
    if needles.subject is not None and needles.subject.is_in(str(relative)):
        return True
    try:
        with path.open("rb") as file:
            head = file.read(16)
        if head.startswith(_SQLITE):
            return _in_database(path, needles)
        if head.startswith(b"PAR1"):
            table = pq.read_table(path, use_threads=False)
            return any(needles.are_in_value(column.to_pylist()) for column in table.columns)
        content = _content(path, head)
    except (OSError, EOFError, ValueError, lzma.LZMAError, zstandard.ZstdError, zlib.error, apsw.Error) as error:
        raise NotLookedInto(f"it cannot be read ({type(error).__name__})") from error
    except pa.ArrowException as error:
        raise NotLookedInto("it is no sound Parquet") from error
    text = content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8", "replace")
    return needles.are_in(text) or needles.are_cells_of(text) or any(map(needles.are_in_value, _values_in(text)))


def _content(path: Path, head: bytes) -> bytes:
    """What is in a file, once unpacked."""
    unpack = next((how for magic, how in _PACKED.items() if head.startswith(magic)), None)
    with path.open("rb") as file, file if unpack is None else unpack(file) as opened:
        content = opened.read(MOST_BYTES + 1)
    why = next((why for magic, why in _CLOSED.items() if content.startswith(magic)), None)
    if content[8:12] == b"DUCK":
        why = "it is a database of DuckDB"
    if content.startswith((_SQLITE, b"PAR1")):
        why = "it is a packed database or Parquet file"
    if len(content) > MOST_BYTES:
        why = f"more than {MOST_BYTES >> 20} MiB are in it"
    if why is not None:
        raise NotLookedInto(why)
    return content


def _in_database(path: Path, needles: Needles) -> bool:
    """Whether a table of another SQLite file, such as a backup of the journal, holds it. Leaves nothing beside it."""
    where = f"file:{quote(str(path.absolute()))}?mode=ro&immutable=1"
    database = apsw.Connection(where, flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)
    try:
        tables = database.execute("select name from sqlite_master where type = 'table'").fetchall()
        for (name,) in tables:
            quoted = str(name).replace('"', '""')
            for row in database.execute(f'select * from "{quoted}"'):  # noqa: S608 - quoted
                if needles.are_in_value(row):
                    return True
    finally:
        database.close()
    return False


def _values_in(text: str) -> Iterator[Json]:
    """The JSON of a file, whole or line by line, whose escapes hide what it says."""
    for part in (text, *text.splitlines()) if "\\" in text else ():
        with suppress(orjson.JSONDecodeError):
            yield orjson.loads(part)
