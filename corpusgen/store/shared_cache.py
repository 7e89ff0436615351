"""Answers shared by every corpus of one user: what was paid for once need not be asked again.

Only an accelerator: it may be deleted at any time, and each corpus keeps its own copy of what it uses. ``diskcache``
holds the entries, hardened, because by itself it unpickles what it reads, follows paths out of its folder and evicts.
An entry that is not exactly what was written is a miss with a warning.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
import os
import re
import sqlite3
import stat
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import diskcache
import zstandard
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from corpusgen.errors import StoreError, UsageError
from corpusgen.records import Usage, canonical_json
from corpusgen.store.answers import Answer, Card

FOLDER: Final = "answers-1"
"""The folder of this format, so that another format finds an empty one."""
VERSION: Final = b"\x01"
NO_CALL: Final = 0
"""The call id under which a corpus keeps an answer that another one paid for."""
MOST_BODY: Final = 16 * 1024 * 1024
"""Longer answers are not shared."""
MOST_WAITING: Final = 4096
"""Entries that may wait to be written; while a slow disk is behind, more are not shared."""

_MOST_STORED: Final = 2 * MOST_BODY
_MOST_EXPANDED: Final = 4 * MOST_BODY
_IN_DATABASE: Final = 64 * 1024
"""Shorter values lie in the database itself, where a transaction covers them."""
_BATCH: Final = 512
_BUSY_S: Final = 10
_HEAD: Final = len(VERSION) + 32
_KEY: Final = re.compile(r"[0-9a-f]{64}")
_FILE: Final = re.compile(r"[0-9a-f]{2}/[0-9a-f]{2}/[0-9a-f]+\.val")
_RAW, _BINARY = 1, 2
"""diskcache's modes for bytes in the database and in a file; the others are text and pickle."""

_SETTINGS: Final[dict[str, Any]] = diskcache.DEFAULT_SETTINGS | {
    "eviction_policy": "none",
    "size_limit": 2**62,
    "cull_limit": 0,
    "statistics": 0,
    "tag_index": 0,
    "disk_min_file_size": _IN_DATABASE,
    # A database that somebody cuts short would end the process if it were mapped into memory.
    "sqlite_mmap_size": 0,
    "sqlite_trusted_schema": 0,
    "sqlite_secure_delete": 1,
}
_NETWORK: Final = frozenset(
    {"nfs", "nfs4", "cifs", "smb2", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre", "gpfs", "beegfs"}
    | {"orangefs", "davfs", "fuse.sshfs", "fuse.s3fs", "fuse.rclone", "fuse.gcsfuse", "fuse.glusterfs", "fuse.juicefs"}
)

_log = logging.getLogger("corpusgen.cache")


@dataclass(frozen=True, kw_only=True)
class Shared:
    """An answer with what it cost whoever paid for it, and the card that names its terms."""

    answer: Answer
    card: Card


class Distrusted(OSError):
    """A row or file that corpusgen did not write; diskcache takes it for a miss."""


class SafeDisk(diskcache.Disk):  # type: ignore[misc] # diskcache has no types
    """Names are digests, values are bytes; nothing is unpickled and nothing outside the folder is touched."""

    def put(self, key: object) -> tuple[str, bool]:
        """The name as the database keeps it."""
        if type(key) is not str or not _KEY.fullmatch(key):
            raise TypeError(f"a key is 64 hexadecimal digits, found {key!r:.80}")
        return key, True

    def get(self, key: object, raw: object) -> str:
        """The name that the database kept."""
        if type(key) is not str or not raw or not _KEY.fullmatch(key):
            raise Distrusted("a key that is not ours")
        return key

    def store(self, value: object, read: bool, key: object = diskcache.core.UNKNOWN) -> tuple[int, int, Any, Any]:
        """Bytes as the database or a file keeps them."""
        if type(value) is not bytes or read:
            raise TypeError(f"a value is bytes, found {type(value).__name__}")
        size, mode, filename, kept = super().store(value, False, key=key)
        return size, mode, filename, kept

    def fetch(self, mode: object, filename: object, value: object, read: bool) -> bytes:
        """The bytes of a row. Raises Distrusted for any other kind of row."""
        if read or mode not in (_RAW, _BINARY):
            raise Distrusted(f"its mode is {mode!r:.20}, which is not bytes")
        if mode == _BINARY:
            return _read_file(self._inside(filename))
        if type(value) is not bytes:
            raise Distrusted(f"its value is {type(value).__name__}, not bytes")
        return value

    def remove(self, file_path: object) -> None:
        """Delete a value's file; a path that is not one of ours is left alone."""
        try:
            inside = self._inside(file_path)
        except Distrusted as error:
            _log.warning("shared cache: a file was not removed: %s", error)
        else:
            super().remove(inside)

    def _inside(self, filename: object) -> str:
        if type(filename) is not str or not _FILE.fullmatch(filename):
            raise Distrusted(f"its file name {filename!r:.80} is not one of ours")
        folder = os.path.realpath(self._directory)
        path = os.path.join(folder, filename)
        if os.path.realpath(path) != path:
            raise Distrusted(f"its file {filename} lies behind a link")
        return path


def _read_file(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode) or facts.st_size > _MOST_STORED:
            raise Distrusted("its file is too large or not a file")
        return file.read()


# --- the cache --------------------------------------------------------------------------------------------------------


class SharedCache:
    """An open shared cache. Everything is done in one thread of its own; nothing here ever raises for a bad entry."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="shared-cache")
        self._lock = threading.Lock()
        self._waiting: deque[Shared] = deque()
        self._scheduled = False
        self._open: Any = None
        self._broken = False
        self._closed = False

    @classmethod
    def open(cls, folder: Path) -> SharedCache:
        """The cache in a folder, which is made for its owner alone; the database is opened when first used.

        Raises StoreError where a shared cache would not be safe: somebody else's folder, one that anybody may rename,
        a network file system.
        """
        return cls(prepare_folder(folder))

    async def get_many(self, keys: Iterable[bytes]) -> dict[bytes, Shared]:
        """The entries there are, by request key."""
        found: dict[bytes, Shared] = await self._in_thread(self._read, list(keys))
        return found

    async def put_many(self, entries: Iterable[Shared]) -> None:
        """Keep entries, in one transaction, and wait until they are written."""
        await self._in_thread(self._write, list(entries))

    def purge(self, keys: Iterable[bytes], holds: Callable[[bytes], bool] | None = None) -> int:
        """Delete entries, and those whose answer ``holds`` knows, so that no page, log or file of the cache has them.

        Gives back how many there were. Raises StoreError where that cannot be done, as while another process uses it.
        """
        return self._thread.submit(self._purge, [key.hex() for key in keys], holds).result()

    def keep(self, answer: Answer, card: Card) -> None:
        """Keep an answer soon; returns at once, whatever the disk is doing."""
        with self._lock:
            if self._closed or len(self._waiting) >= MOST_WAITING:
                return
            self._waiting.append(Shared(answer=answer, card=card))
            if not self._scheduled:
                self._scheduled = True
                self._thread.submit(self._flush)

    async def aclose(self) -> None:
        """Write what waits and let go of the files."""
        await self._in_thread(self._close)
        self._thread.shutdown(wait=False)

    def close(self) -> None:
        """As ``aclose``, for callers without an event loop."""
        self._thread.submit(self._close).result()
        self._thread.shutdown()

    async def _in_thread(self, work: Any, *arguments: Any) -> Any:
        future: Future[Any] = self._thread.submit(work, *arguments)
        return await asyncio.wrap_future(future)

    # Everything below runs in the one thread.

    def _read(self, keys: list[bytes]) -> dict[bytes, Shared]:
        found: dict[bytes, Shared] = {}
        try:
            cache = self._cache()
            for key in keys if cache is not None else ():
                shared = self._entry(cache, key)
                if shared is not None:
                    found[key] = shared
        except (sqlite3.Error, diskcache.Timeout, OSError) as error:
            self._fail(error)
        return found

    def _entry(self, cache: Any, key: bytes) -> Shared | None:
        name = key.hex()
        try:
            value = cache.get(name)
            return None if value is None else unpack(key, value)
        except (Damaged, sqlite3.DataError) as error:
            _log.warning("shared cache: entry %s is ignored: %s", name[:12], error)
            return None

    def _write(self, entries: Sequence[Shared]) -> None:
        packed = [(entry.answer.request_key.hex(), pack(entry)) for entry in entries if _may_be_shared(entry)]
        try:
            cache = self._cache()
            if cache is not None and packed:
                with cache.transact():
                    for name, value in packed:
                        cache.set(name, value)
        except diskcache.Timeout:
            _log.warning("shared cache: busy for %s s, %s answers are not shared", _BUSY_S, len(packed))
        except (sqlite3.Error, OSError) as error:
            self._fail(error)

    def _delete(self, names: list[str]) -> int:
        self._flush()  # what waits to be written would come back
        try:
            cache = self._cache()
            if cache is None:
                raise StoreError(f"{self.folder} cannot be opened; delete the folder")
            with cache.transact():
                return sum(bool(cache.delete(name)) for name in names)
        except (sqlite3.Error, diskcache.Timeout) as error:
            raise StoreError(f"entries of {self.folder} could not be deleted ({error}); delete the folder") from error

    def _purge(self, names: list[str], holds: Callable[[bytes], bool] | None) -> int:
        gone = self._delete(names)
        cache = self._cache()
        try:
            if holds is not None:
                gone += self._delete([name for name in list(cache) if self._is_to_go(cache, name, holds)])
            kept = {row[0] for row in cache._con.execute("select filename from Cache where filename is not null")}
            for path in self.folder.rglob("*.val"):
                if path.relative_to(self.folder).as_posix() not in kept:  # a process that was killed left it
                    path.unlink(missing_ok=True)
            cache._con.execute("vacuum")
            (busy, *_) = cache._con.execute("pragma wal_checkpoint(truncate)").fetchone()
        except (sqlite3.Error, diskcache.Timeout, OSError) as error:
            raise StoreError(f"{self.folder} could not be cleaned ({error}); try again, or delete it") from error
        if busy:
            raise StoreError(f"{self.folder}: another process reads it; let it end, then try again")
        return gone

    def _is_to_go(self, cache: Any, name: str, holds: Callable[[bytes], bool]) -> bool:
        try:
            value = cache.get(name)
            return value is not None and holds(unpack(bytes.fromhex(name), value).answer.body)
        except (Damaged, sqlite3.DataError):
            return True  # nobody can tell what is in it, and nobody can use it

    def _flush(self) -> None:
        while True:
            with self._lock:
                batch = [self._waiting.popleft() for _ in range(min(_BATCH, len(self._waiting)))]
                self._scheduled = bool(batch)
            if not batch:
                return
            self._write(batch)

    def _cache(self) -> Any:
        if self._open is None and not self._broken:
            _check_settings(self.folder / diskcache.core.DBNAME)
            self._open = diskcache.Cache(str(self.folder), timeout=_BUSY_S, disk=_LoudDisk, **_SETTINGS)
            # A row longer than any of ours is refused by SQLite before it fills the memory.
            self._open._con.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MOST_STORED)
        return None if self._broken else self._open

    def _fail(self, error: Exception) -> None:
        """Go on without: a cache that cannot be read or written is none."""
        self._broken = True
        _log.warning("shared cache %s is not used any more (%s); it may be deleted", self.folder, error)

    def _close(self) -> None:
        with self._lock:
            self._closed = True
        self._flush()
        if self._open is not None:
            self._open.close()


def _check_settings(database: Path) -> None:
    """Raise DatabaseError for settings that are not ours: diskcache makes attributes and pragmas of what it finds."""
    if not database.exists():
        return
    connection = sqlite3.connect(database, timeout=_BUSY_S)
    try:
        found = dict(connection.execute("select key, value from Settings"))
    except sqlite3.OperationalError:
        return  # another process is making it, or nothing is in it
    finally:
        connection.close()
    foreign = found.keys() - _SETTINGS.keys() - diskcache.core.METADATA.keys()
    changed = [name for name in found if name.startswith("sqlite_") and found[name] != _SETTINGS.get(name)]
    if foreign or changed:
        raise sqlite3.DatabaseError(f"its settings were changed: {', '.join(sorted({*foreign, *changed}))}")


class _LoudDisk(SafeDisk):
    """A disk that says why a row that is there is a miss; diskcache by itself says nothing."""

    def fetch(self, mode: object, filename: object, value: object, read: bool) -> bytes:
        try:
            return super().fetch(mode, filename, value, read)
        except OSError as error:
            _log.warning("shared cache: an entry is ignored: %s", error)
            raise


def open_shared_cache(environ: Mapping[str, str]) -> SharedCache | None:
    """The cache that ``CORPUSGEN_CACHE`` names, else the user's own; None for ``off`` or where it would not be safe.

    Raises UsageError if the folder was named and will not do.
    """
    named = environ.get("CORPUSGEN_CACHE")
    if named == "off":
        return None
    try:
        return SharedCache.open(_place(named) / FOLDER)
    except StoreError as error:
        if named:
            raise UsageError(f"CORPUSGEN_CACHE: {error}; name another folder, or write off") from error
        _log.warning("no shared cache: %s", error)
        return None


def _place(named: str | None) -> Path:
    if named:
        return Path(named).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("corpusgen")


# --- entries ----------------------------------------------------------------------------------------------------------


class Damaged(ValueError):
    """A value that is not what was written under this key."""


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    key: str
    body: str | None = None
    body_base64: str | None = None
    card: Card
    usage: Usage
    cost_microusd: Annotated[int, Field(ge=0)]
    price_version: str
    provider_request_id: str | None
    sent_us: int
    received_us: int
    compute_us: int | None


_FIELDS: Final = ("cost_microusd", "price_version", "provider_request_id", "sent_us", "received_us", "compute_us")


def pack(shared: Shared) -> bytes:
    """An entry as bytes: version, sha256 of key and content, and the compressed canonical JSON."""
    answer = shared.answer
    fields = {name: getattr(answer, name) for name in _FIELDS}
    fields |= {"key": answer.request_key.hex(), "card": _plain(shared.card), "usage": _plain(answer.usage)}
    content = zstandard.ZstdCompressor(level=3).compress(canonical_json(fields | _body(answer.body)))
    return VERSION + _digest(answer.request_key, content) + content


def unpack(key: bytes, value: bytes) -> Shared:
    """The entry in bytes. Raises Damaged unless they are what was written under this key."""
    version, found, content = value[: len(VERSION)], value[len(VERSION) : _HEAD], value[_HEAD:]
    if version != VERSION:
        raise Damaged(f"its version is {version.hex() or 'missing'}, expected {VERSION.hex()}")
    if found != _digest(key, content):
        raise Damaged("its content is not what was written")
    try:
        entry = _Entry.model_validate_json(_expand(content))
        body = base64.b64decode(entry.body_base64, validate=True) if entry.body is None else entry.body.encode()  # type: ignore[arg-type] # None raises TypeError
    except (ValidationError, zstandard.ZstdError, TypeError, ValueError) as error:
        raise Damaged(f"its content cannot be read: {str(error).splitlines()[0]}") from error
    if entry.key != key.hex():
        raise Damaged("it belongs to another request")
    fields = {name: getattr(entry, name) for name in _FIELDS}
    answer = Answer(request_key=key, card_id=entry.card.card_id, usage=entry.usage, body=body, **fields)
    return Shared(answer=answer, card=entry.card)


def _digest(key: bytes, content: bytes) -> bytes:
    return hashlib.sha256(VERSION + key + content).digest()


def _expand(content: bytes) -> bytes:
    # The size a frame announces is allocated at once, so it is looked at first.
    size = zstandard.frame_content_size(content)
    if not 0 <= size <= _MOST_EXPANDED:
        raise ValueError(f"it would be {size} bytes long")
    return zstandard.ZstdDecompressor().decompress(content)


def _body(body: bytes) -> dict[str, str]:
    try:
        return {"body": body.decode()}
    except UnicodeDecodeError:
        return {"body_base64": base64.b64encode(body).decode()}


def _plain(noun: Card | Usage) -> dict[str, Any]:
    return {name: getattr(noun, name) for name in noun.__dataclass_fields__}


def _may_be_shared(entry: Shared) -> bool:
    return len(entry.answer.body) <= MOST_BODY


# --- the folder -------------------------------------------------------------------------------------------------------


def prepare_folder(folder: Path, *, mounts: Path = Path("/proc/self/mountinfo")) -> Path:
    """The real path of a folder that only its owner may enter. Raises StoreError where that cannot be had."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        real = folder.resolve(strict=True)
        if os.path.expandvars(real) != str(real):  # diskcache would expand it
            raise StoreError(f"{real} holds a variable's name")
        _check_owner(real)
        _check_parents(real)
        kind = file_system(real, mounts)
    except OSError as error:
        raise StoreError(f"{folder} cannot be used: {error.strerror or error}") from error
    if kind in _NETWORK:
        raise StoreError(f"{real} is on a network file system ({kind}), where locks are not to be trusted")
    return real


def _check_owner(folder: Path) -> None:
    facts = folder.stat()
    if facts.st_uid != os.geteuid():
        raise StoreError(f"{folder} belongs to user {facts.st_uid}, not to you")
    if stat.S_IMODE(facts.st_mode) != 0o700:
        folder.chmod(0o700)
    database = folder / diskcache.core.DBNAME
    if database.is_symlink():
        raise StoreError(f"{database} is a link")


def _check_parents(folder: Path) -> None:
    for level, parent in enumerate(folder.parents):
        mode = parent.stat().st_mode
        # In a sticky folder such as /tmp nobody can rename what is mine, but anybody can be there first.
        if mode & stat.S_IWOTH and (level == 0 or not mode & stat.S_ISVTX):
            raise StoreError(f"{parent} can be written by anybody")


def file_system(folder: Path, mounts: Path) -> str | None:
    """The kind of file system a folder lies on, or None where the system does not tell."""
    try:
        lines = mounts.read_text().splitlines()
    except OSError:
        return None
    found = [(point, kind) for point, kind in map(_mount, lines) if folder.is_relative_to(point)]
    # Of two mounts on one point the later one is seen.
    return max(enumerate(found), key=lambda one: (len(one[1][0].parts), one[0]), default=(0, (Path(), None)))[1][1]


def _mount(line: str) -> tuple[Path, str | None]:
    fields, _, rest = line.partition(" - ")
    point = fields.split(" ")[4].encode().decode("unicode_escape")  # a space is written \040
    return Path(point), rest.partition(" ")[0] or None
