"""The one durable file of a corpus: money, answers and what became of them.

SQLite in WAL mode with ``synchronous=FULL``: what ``run`` returned survives kill -9 and power loss. One writer thread
per process takes every operation that waits, applies them in one transaction and syncs once (group commit), so that
hundreds of concurrent reservations cost one fsync. Operations compose: what belongs together goes into one operation.
"""

from __future__ import annotations

import asyncio
import os
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import apsw

from corpusgen.errors import CorpusDamaged, CorpusgenError, CorpusTooNew, CorpusUnwritable, StoreError

JOURNAL_VERSION = 1
BATCH = 4096
BUSY_MS = 60_000
WAL_BUG_FIXED = (3, 51, 3)
"""Before this SQLite, several writing processes could lose committed transactions when the WAL was reset."""

T = TypeVar("T")

_SCHEMA = """
create table meta(name text primary key, value text not null) without rowid;
create table owners(
    owner_id integer primary key, pid integer not null, boot_id text not null, start_ticks integer not null);
create table runs(
    run_id text primary key, task text not null, spec_digest text not null, spec text not null,
    facts text not null default '{}', status text not null, started_us integer not null, ended_us integer);
create index runs_by_spec on runs(spec_digest);
create table caps(
    scope text not null, unit text not null, cap integer not null, origin text not null, set_us integer not null,
    primary key(scope, unit)) without rowid;
create table balances(
    scope text not null, unit text not null,
    settled integer not null, promised integer not null, unconfirmed integer not null,
    primary key(scope, unit),
    check(settled >= 0 and promised >= 0 and unconfirmed >= 0)) without rowid;
create table calls(
    call_id integer primary key, run_id text not null, request_key blob not null, teacher text not null,
    role text not null, attempt integer not null, scopes text not null, owner_id integer not null,
    state text not null check(state in ('promised', 'settled', 'unknown', 'released', 'overrun')),
    reserved_microusd integer not null, reserved_tokens integer not null, reserved_requests integer not null,
    microusd integer, tokens integer, requests integer,
    price_version text not null, error text, provider_request_id text,
    reserved_us integer not null, closed_us integer);
create index calls_open on calls(owner_id) where state = 'promised';
create table requests(request_key blob primary key, body blob not null);
create table cards(card_id text primary key, card text not null) without rowid;
create table answers(
    request_key blob primary key, call_id integer not null, card_id text not null,
    input_tokens integer not null, cached_input_tokens integer not null, output_tokens integer not null,
    reasoning_tokens integer, cost_microusd integer not null, price_version text not null,
    provider_request_id text, sent_us integer not null, received_us integer not null, compute_us integer,
    body blob not null);
create table records(
    record_id blob primary key, run_id text not null, dataset text not null, split text not null,
    ordinal integer not null, item_id text not null, request_key blob not null, first_key blob not null,
    from_cache integer not null, item text not null, shard text);
create index records_waiting on records(dataset, split, ordinal) where shard is null;
create index records_of_run on records(run_id, split, ordinal);
create table drops(
    run_id text not null, stage text not null, item_id text not null, reason text not null, detail text,
    score real, threshold real, repeat_of text, primary key(run_id, stage, item_id)) without rowid;
create table decisions(
    decision_id integer primary key, run_id text not null, stage text not null, subject text not null,
    outcome text not null, decision text not null, decided_us integer not null);
create table shards(
    name text primary key, dataset text not null, split text not null, rows integer not null, sha256 text not null,
    size_bytes integer not null, schema_version integer not null, writer text not null, committed_us integer not null
) without rowid;
create table datasets(
    name text not null, version text not null, status text not null, manifest text not null,
    sealed_us integer not null, primary key(name, version)) without rowid;
create table students(
    student_id text primary key, run_id text not null, dataset text not null, facts text not null,
    trained_us integer not null) without rowid;
"""


@dataclass(kw_only=True)
class Transaction:
    """What an operation may use: the connection, the time, and things to do once before the commit."""

    connection: apsw.Connection
    now_us: int
    shared: dict[object, Any] = field(default_factory=dict)
    before_commit: list[Callable[[], None]] = field(default_factory=list)

    def execute(self, sql: str, values: tuple[Any, ...] | dict[str, Any] = ()) -> apsw.Cursor:
        """Run one statement."""
        return self.connection.execute(sql, values)

    def rows(self, sql: str, values: tuple[Any, ...] | dict[str, Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of one statement."""
        return list(self.connection.execute(sql, values))


Operation = Callable[[Transaction], T]


@dataclass(kw_only=True)
class _Job(Generic[T]):
    operation: Operation[T]
    future: Future[T]
    result: T | None = None
    error: BaseException | None = None


class Journal:
    """The durable state of one corpus, shared by coroutines, threads and processes."""

    def __init__(self, path: Path, *, clock_us: Callable[[], int]) -> None:
        self.path = path
        self.clock_us = clock_us
        self._jobs: queue.SimpleQueue[_Job[Any] | None] = queue.SimpleQueue()
        with storage_errors(path):
            self._writer = _connect(path)
            _migrate(self._writer, path, clock_us())
            self.reader = _connect(path)
        self.owner_id = -1
        self._thread = threading.Thread(target=self._work, name="journal", daemon=True)
        self._thread.start()
        self.owner_id = self.run_now(_register_owner)

    async def run(self, operation: Operation[T]) -> T:
        """Apply an operation durably and give back its result.

        The operation runs in the writer thread. If it raises a CorpusgenError it must not have written anything; its
        neighbours in the same transaction are kept. A caller that is cancelled leaves the operation to complete.
        """
        return await asyncio.shield(asyncio.wrap_future(self.submit(operation)))

    def run_now(self, operation: Operation[T]) -> T:
        """As ``run``, for code outside an event loop."""
        return self.submit(operation).result()

    def submit(self, operation: Operation[T]) -> Future[T]:
        """Hand an operation to the writer thread."""
        if not self._thread.is_alive():
            raise StoreError(f"{self.path}: the journal is closed")
        job = _Job(operation=operation, future=Future[T]())
        self._jobs.put(job)
        return job.future

    def close(self) -> None:
        """Commit what waits and let go of the file."""
        if self._thread.is_alive():
            self._jobs.put(None)
            self._thread.join()
        self.reader.close()
        self._writer.close()

    def query(self, sql: str, values: tuple[Any, ...] | dict[str, Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of a reading statement, as of the last commit."""
        with storage_errors(self.path):
            return list(self.reader.execute(sql, values))

    @contextmanager
    def another_reader(self) -> Iterator[apsw.Connection]:
        """A connection of one's own, for reading in another thread."""
        with storage_errors(self.path):
            connection = _connect(self.path)
            try:
                yield connection
            finally:
                connection.close()

    # --- the writer thread -------------------------------------------------------------------------------------------

    def _work(self) -> None:
        while (first := self._jobs.get()) is not None:
            batch, last = [first], False
            while len(batch) < BATCH and not last:
                try:
                    job = self._jobs.get_nowait()
                except queue.Empty:
                    break
                last = job is None
                if job is not None:
                    batch.append(job)
            self._commit(batch)
            _deliver(batch)
            if last:
                return

    def _commit(self, batch: list[_Job[Any]]) -> None:
        try:
            self._apply(batch)
        except BaseException as error:  # noqa: BLE001 - one job's failure must not lose its neighbours
            if len(batch) == 1:
                batch[0].error = _foreign(error, self.path)
                return
            for job in batch:
                job.error = None
                self._commit([job])

    def _apply(self, batch: list[_Job[Any]]) -> None:
        transaction = Transaction(connection=self._writer, now_us=self.clock_us())
        self._writer.execute("begin immediate")
        try:
            for job in batch:
                self._apply_one(job, transaction)
            for act in transaction.before_commit:
                act()
            self._writer.execute("commit")
        except BaseException:
            if self._writer.in_transaction:
                self._writer.execute("rollback")
            raise

    def _apply_one(self, job: _Job[Any], transaction: Transaction) -> None:
        before = self._writer.total_changes()
        try:
            job.result = job.operation(transaction)
        except CorpusgenError as error:
            if self._writer.total_changes() != before:
                raise
            job.error = error


def _deliver(batch: list[_Job[Any]]) -> None:
    for job in batch:
        if not job.future.set_running_or_notify_cancel():
            continue
        if job.error is not None:
            job.future.set_exception(job.error)
        else:
            job.future.set_result(job.result)


def _connect(path: Path) -> apsw.Connection:
    connection = apsw.Connection(str(path))
    connection.set_busy_timeout(BUSY_MS)
    for pragma in ("journal_mode=wal", "synchronous=full", "foreign_keys=on", "temp_store=memory"):
        connection.execute(f"pragma {pragma}")
    return connection


def _migrate(connection: apsw.Connection, path: Path, now_us: int) -> None:
    version = tuple(int(part) for part in apsw.sqlite_lib_version().split("."))
    if version < WAL_BUG_FIXED:
        raise StoreError(f"SQLite {apsw.sqlite_lib_version()} can lose commits of several processes; upgrade apsw")
    with connection:
        found = int(connection.execute("pragma user_version").get or 0)
        if found > JOURNAL_VERSION:
            raise CorpusTooNew(
                f"{path}: written by a newer corpusgen (journal version {found}, this one knows {JOURNAL_VERSION}); "
                "upgrade corpusgen or name another folder with --corpus"
            )
        if found == 0:
            connection.execute(_SCHEMA)
            connection.execute(f"pragma user_version={JOURNAL_VERSION}")
            connection.execute("insert into meta values('created_us', ?)", (str(now_us),))


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """SQLite's errors as ours, with the file they met."""
    try:
        yield
    except (apsw.Error, OSError) as error:
        raise _foreign(error, path) from error


def _foreign(error: BaseException, path: Path) -> BaseException:
    if isinstance(error, apsw.FullError | apsw.ReadOnlyError | apsw.CantOpenError | apsw.IOError | OSError):
        return CorpusUnwritable(f"{path}: cannot be written ({error}); free space or change permissions, then go on")
    if isinstance(error, apsw.CorruptError | apsw.NotADBError):
        return CorpusDamaged(f"{path}: is not a sound journal ({error}); restore it from a backup")
    if isinstance(error, apsw.BusyError):
        return StoreError(f"{path}: another process has been writing for {BUSY_MS // 1000} s; try again")
    return error


# --- who is writing --------------------------------------------------------------------------------------------------


def _register_owner(transaction: Transaction) -> int:
    pid = os.getpid()
    transaction.execute(
        "insert into owners(pid, boot_id, start_ticks) values(?, ?, ?)", (pid, _boot_id(), _start_ticks(pid))
    )
    return int(transaction.connection.last_insert_rowid())


def owner_alive(pid: int, boot_id: str, start_ticks: int) -> bool:
    """Whether the process that registered is still the one that runs; pids are reused, start times are not."""
    return boot_id == _boot_id() and _start_ticks(pid) == start_ticks


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return "unknown"


def _start_ticks(pid: int) -> int:
    """Start time of a process since boot, or -1 where it does not run (a zombie does not)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return -1
    return -1 if fields[0] in "ZX" else int(fields[19])
