"""Files that are whole or not there: written under a hidden name, synced, renamed, and the folder synced."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from corpusgen.errors import CorpusUnwritable


def hidden_name(path: Path, writer: str = "") -> Path:
    """Where ``path`` is written before it is whole; readers never look at names with a leading dot.

    ``writer`` is for files that several may write at once: each then has a name of its own.
    """
    return path.with_name(f".{path.name}.{writer}.tmp" if writer else f".{path.name}.tmp")


def write_file(path: Path, content: bytes, *, writer: str = "") -> None:
    """The file at ``path`` holds exactly ``content``, even if the machine stops half-way: old or new, never both."""
    hidden = hidden_name(path, writer)
    with unwritable(path):
        try:
            with open(hidden, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            publish(hidden, path)
        finally:
            hidden.unlink(missing_ok=True)


def publish(hidden: Path, path: Path) -> None:
    """Give a synced hidden file its visible name, durably."""
    os.replace(hidden, path)
    sync_folder(path.parent)


def make_folder(folder: Path) -> None:
    """The folder exists, and so do its parents, durably."""
    with unwritable(folder):
        missing = [level for level in (folder, *folder.parents) if not level.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        for level in missing:
            sync_folder(level.parent)


def sync_folder(folder: Path) -> None:
    """The names in ``folder`` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def unwritable(path: Path) -> Iterator[None]:
    """Disk errors inside become CorpusUnwritable that names ``path`` and what to do."""
    try:
        yield
    except OSError as error:
        raise CorpusUnwritable(f"cannot write {str(path)!r}: {error.strerror or error}; {_advice(error)}") from error


def _advice(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "free some space and run again; everything committed before is intact"
    return "make the corpus folder writable or name another with --corpus"
