"""A SQLite file for somebody who may not write to it: on a read-only disk, or in somebody else's folder."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import quote

import apsw

_FLAGS = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI


def may_write(path: Path) -> bool:
    """Whether this process may write to a file or make it; for a folder, whether it may make files in it."""
    if path.is_dir():
        return os.access(path, os.W_OK | os.X_OK)
    return os.access(path, os.W_OK) if path.exists() else may_write(path.parent)


@dataclass(frozen=True, kw_only=True)
class Unwritable:
    """A journal as it was when it was found: the ways to read it depend on what lies beside it."""

    path: Path
    stamp: tuple[tuple[int, int, int] | None, ...]

    @classmethod
    def found(cls, path: Path) -> Self:
        """The journal at ``path``."""
        return cls(path=path, stamp=_stamp(path))

    def connect(self) -> apsw.Connection:
        """A connection that writes nothing, not even beside the file."""
        wal = _beside(self.path, "-wal")
        if not wal.exists() or not wal.stat().st_size:
            return self._opened("immutable=1")
        if _beside(self.path, "-shm").exists():
            return self._opened("mode=ro")  # it may be in use: what the writers commit is seen
        # Left by a crash and copied without its index: SQLite keeps one in memory if it need share it with nobody.
        connection = self._opened("vfs=unix-none")
        connection.execute("pragma locking_mode=exclusive")
        return connection

    def changed(self) -> bool:
        """Whether somebody else has written to it since; what a connection reads may be torn then."""
        return self.stamp[1] is None and _stamp(self.path) != self.stamp

    def _opened(self, how: str) -> apsw.Connection:
        return apsw.Connection(f"file:{quote(str(self.path.absolute()))}?{how}", flags=_FLAGS)


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)


def _stamp(path: Path) -> tuple[tuple[int, int, int] | None, ...]:
    return _identity(path), _identity(_beside(path, "-shm"))


def _identity(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
