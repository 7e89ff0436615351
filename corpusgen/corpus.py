"""A corpus: one folder with a journal, shards, and what is made from them."""

from __future__ import annotations

import asyncio
import getpass
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from corpusgen.errors import CorpusDamaged, CorpusUnwritable, StoreError
from corpusgen.journal import Journal, is_of_storage, storage_errors
from corpusgen.reading import may_write

Clock = Callable[[], datetime]


utc_now: Final[Clock] = partial(datetime.now, UTC)
"""The time, in UTC."""


def microseconds(moment: datetime) -> int:
    """Microseconds since 1970, UTC."""
    return round(moment.timestamp() * 1_000_000)


def moment(microseconds_: int) -> datetime:
    """The UTC time of microseconds since 1970."""
    return datetime.fromtimestamp(microseconds_ / 1_000_000, UTC)


def fresh_secret() -> bytes:
    """32 random bytes."""
    return os.urandom(32)


@dataclass(kw_only=True)
class Corpus:
    """An open corpus. Use as a context manager, or close it."""

    folder: Path
    journal: Journal
    clock: Clock
    actor: str
    new_run_id: Callable[[], str]
    new_secret: Callable[[], bytes] = fresh_secret
    """32 bytes that nobody can guess, for what a sealed dataset's leaves are salted with."""
    flights: dict[bytes, asyncio.Future[None]] = field(default_factory=dict)
    """Requests under way in this process, so that the same one is sent once."""
    unanswered: set[bytes] = field(default_factory=set)
    """Requests that had no answer when somebody looked, shortly before they are asked."""
    fresh: object = None
    """Records of this process that are in no shard yet (``store.fresh``)."""

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        clock: Clock = utc_now,
        new_run_id: Callable[[], str] | None = None,
        new_secret: Callable[[], bytes] = fresh_secret,
        actor: str = "",
        reading: bool = False,
        erasing: bool = False,
    ) -> Corpus:
        """The corpus in a folder, made if there is none. With ``reading`` one that may not be written can be looked at.

        One with an unfinished erasure opens only for that and for ``erasing``: its files may still have what its
        journal has no more. Raises CorpusTooNew, CorpusDamaged, CorpusUnwritable or StoreError; ``clock``,
        ``new_run_id`` and ``new_secret`` are for repeatable runs.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CorpusUnwritable(
                f"{folder}: cannot be made ({error.strerror}); name another with --corpus"
            ) from error
        path = folder / "journal.sqlite"
        _refuse_beheaded(path)
        _refuse_cut(path)
        if not reading:
            _refuse_unwritable(folder)
        journal = Journal(path, clock_us=lambda: microseconds(clock()), reading=reading)
        if not reading and not erasing:
            _refuse_unfinished(folder, journal)
        return cls(
            folder=folder.resolve(),
            journal=journal,
            clock=clock,
            actor=actor or _user(),
            new_secret=new_secret,
            new_run_id=new_run_id or (lambda: f"{clock():%Y%m%dT%H%M%SZ}-{os.urandom(4).hex()}"),
        )

    def shard_folder(self, dataset: str) -> Path:
        """Where a dataset's shards lie."""
        return self.folder / "shards" / dataset

    def close(self) -> None:
        """Commit what waits and let go of the files."""
        self.journal.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        if is_of_storage(error):  # met by somebody who reads row by row
            with storage_errors(self.journal.path):
                raise error


_MADE_LATER = ("MANIFEST.json", "shards", "datasets", "students")
"""What only a corpus with a journal has."""


LEAST_PAGE = 512
"""SQLite takes a file that is smaller for a new one."""


def _refuse_cut(journal: Path) -> None:
    """A journal whose end is missing where SQLite would not notice: it fills a last page up with noughts."""
    wal = journal.with_name(f"{journal.name}-wal")
    if not journal.is_file() or journal.stat().st_size < LEAST_PAGE or (wal.exists() and wal.stat().st_size):
        return
    with journal.open("rb") as file:
        header = file.read(18)
    page = int.from_bytes(header[16:18], "big")
    size = journal.stat().st_size
    if header.startswith(b"SQLite format 3\0") and size % (65_536 if page == 1 else page or 1):
        raise CorpusDamaged(f"{journal}: is cut off after {size:,} bytes; restore it from a backup")


def _refuse_beheaded(journal: Path) -> None:
    """A new journal beside old records would have forgotten what they cost, and their caps."""
    if journal.exists() and journal.stat().st_size >= LEAST_PAGE:
        return
    found = [name for name in _MADE_LATER if (journal.parent / name).exists()]
    if found:
        state = "is empty" if journal.exists() else "is gone"
        raise CorpusDamaged(
            f"{journal}: {state}, but {' and '.join(found)} are there; restore the journal from a backup, or name"
            " another folder with --corpus"
        )


def _refuse_unfinished(folder: Path, journal: Journal) -> None:
    found = journal.query("select erasure_id from erasures where envelope = '' limit 1")
    if found:
        journal.close()
        raise StoreError(
            f"{folder}: erasure {found[0][0]} is unfinished, and what it is to take out may still be here; bring it to"
            " its end first: corpusgen erase"
        )


def _refuse_unwritable(folder: Path) -> None:
    """Before anything is spent: what is bought must find its place."""
    shards = folder / "shards"
    for place in (folder, folder / "journal.sqlite", shards, *shards.glob("*/")):
        if place.exists() and not may_write(place):
            raise CorpusUnwritable(
                f"{place}: may not be written (a read-only disk, or no permission); nothing was sent; make it writable"
                " or name another corpus with --corpus"
            )


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid-{os.getuid()}"
