"""A corpus: one folder with a journal, shards, and what is made from them."""

from __future__ import annotations

import asyncio
import getpass
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from corpusgen.errors import CorpusUnwritable
from corpusgen.journal import Journal

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """The time, in UTC."""
    return datetime.now(UTC)


def microseconds(moment: datetime) -> int:
    """Microseconds since 1970, UTC."""
    return round(moment.timestamp() * 1_000_000)


def moment(microseconds_: int) -> datetime:
    """The UTC time of microseconds since 1970."""
    return datetime.fromtimestamp(microseconds_ / 1_000_000, UTC)


@dataclass(kw_only=True)
class Corpus:
    """An open corpus. Use as a context manager, or close it."""

    folder: Path
    journal: Journal
    clock: Clock
    actor: str
    new_run_id: Callable[[], str]
    flights: dict[bytes, asyncio.Future[None]] = field(default_factory=dict)
    """Requests under way in this process, so that the same one is sent once."""
    unanswered: set[bytes] = field(default_factory=set)
    """Requests that had no answer when somebody looked, shortly before they are asked."""

    @classmethod
    def open(
        cls, folder: Path, *, clock: Clock = utc_now, new_run_id: Callable[[], str] | None = None, actor: str = ""
    ) -> Corpus:
        """The corpus in a folder, made if there is none.

        Raises CorpusTooNew, CorpusDamaged or CorpusUnwritable; ``clock`` and ``new_run_id`` are for repeatable runs.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CorpusUnwritable(
                f"{folder}: cannot be made ({error.strerror}); name another with --corpus"
            ) from error
        journal = Journal(folder / "journal.sqlite", clock_us=lambda: microseconds(clock()))
        return cls(
            folder=folder.resolve(),
            journal=journal,
            clock=clock,
            actor=actor or _user(),
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


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid-{os.getuid()}"
