"""The one durable file of a corpus: money, answers and what became of them.

SQLite in WAL mode with ``synchronous=FULL``: what ``run`` returned survives kill -9 and power loss. One writer thread
per process takes every operation that waits, applies them in one transaction and syncs once (group commit), so that
hundreds of concurrent reservations cost one fsync. Operations compose: what belongs together goes into one operation.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import queue
import secrets
import struct
import threading
import time
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import chain
from pathlib import Path
from typing import Any, Generic, TypeGuard, TypeVar

import apsw

from corpusgen.errors import CorpusDamaged, CorpusgenError, CorpusTooNew, CorpusUnwritable, StoreError
from corpusgen.frozen import quickly_made
from corpusgen.journal_tables import JOURNAL_VERSION, SCHEMA, UPGRADES
from corpusgen.reading import Unwritable, may_write

BATCH = 4096
ROWS_PER_STATEMENT = 64
STATEMENTS_KEPT = 200
"""How many statements SQLite need not read again, among them those of all numbers of rows in ``portions``."""
SEVERAL = 6
"""So many operations at once, and more are waited for before the next commit: each commit has its price."""
ENOUGH = 64
GATHER_S = 0.006
BUSY_MS = 60_000
PATIENCE = 10
"""How many times so long a commit waits for another process before what it holds is given up."""
WAL_BUG_FIXED = (3, 51, 3)
"""Before this SQLite, several writing processes could lose committed transactions when the WAL was reset."""

PAGES_PER_CHECKPOINT = 4_000
"""SQLite's own 1 000 are a few dozen commits, and a page that is written by each is copied at every checkpoint."""

_PRAGMAS = (
    "journal_mode=wal",
    "synchronous=full",
    "foreign_keys=on",
    "temp_store=memory",
    "cache_size=-1000",  # kilobytes, of each connection; what is not there is in the system's own cache
    f"wal_autocheckpoint={PAGES_PER_CHECKPOINT}",
)

_log = logging.getLogger("corpusgen.journal")

T = TypeVar("T")


@dataclass(kw_only=True)
class Transaction:
    """What an operation may use: the connection, the time, and things to do once before the commit."""

    writer: apsw.Connection
    now_us: int
    shared: dict[object, Any] = field(default_factory=dict)
    before_commit: list[Callable[[], None]] = field(default_factory=list)
    before_reading: list[Callable[[], None]] = field(default_factory=list)
    """What writes down the changes that were counted by ``defer``."""
    about: tuple[bytes, ...] = ()
    """The requests that operations of this transaction are known to be about."""
    unheard_of: set[bytes] | None = None
    """Those of them that were looked up, have neither answer nor open call, and have had nothing done to them since."""
    _waiting: defaultdict[str, list[tuple[Any, ...]]] = field(default_factory=lambda: defaultdict(list))
    turned_away: int = 0
    """How many rows that were added have not become rows, as there is one with their key."""
    _added: int = 0
    _written_late: int = 0

    @property
    def connection(self) -> apsw.Connection:
        """The connection itself, which sees everything the transaction has done."""
        self._forget()
        self.write_waiting()
        return self.writer

    @property
    def changes(self) -> int:
        """How many rows the operations of this transaction have changed so far."""
        return self.writer.total_changes() - self._written_late + self._added

    def execute(self, sql: str, values: tuple[Any, ...] | dict[str, Any] = ()) -> apsw.Cursor:
        """Run one statement."""
        if not sql.startswith("select"):
            self._forget()
        self.write_waiting()
        return self.writer.execute(sql, values)

    def _forget(self) -> None:
        # Whatever it is that is about to be done, it may be about any request.
        if self.unheard_of:
            self.unheard_of.clear()

    def rows(self, sql: str, values: tuple[Any, ...] | dict[str, Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of one statement."""
        return list(self.execute(sql, values))

    def add(self, table: str, row: tuple[Any, ...]) -> None:
        """Put a row into a table, unless there is one with its key.

        ``table`` may name the columns of the row, as ``table(column, …)`` does in SQL; the others get their defaults.
        Such rows are written together, many to a statement, before the next statement of another kind and before the
        commit: each statement costs a change of threads, which is most of what one row costs.
        """
        self._waiting[table].append(row)
        self._added += 1

    def defer(self) -> None:
        """Count a change that somebody in ``before_reading`` will write down."""
        self._added += 1

    def write_waiting(self) -> None:
        """Write what was added and deferred so far."""
        while self._waiting:
            table, rows = self._waiting.popitem()
            for some in portions(rows):
                before = self._written_late
                self.write_late(_insert(table, len(rows[0]), len(some)), tuple(chain.from_iterable(some)))
                if table != "requests":  # the same request is the same row, whoever adds it
                    self.turned_away += len(some) - (self._written_late - before)
        for act in self.before_reading:
            act()

    def write_late(self, sql: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        """Write down what was counted when it was added or deferred."""
        before = self.writer.total_changes()
        found = list(self.writer.execute(sql, values))
        self._written_late += self.writer.total_changes() - before
        return found


def portions(rows: Sequence[T]) -> Iterator[Sequence[T]]:
    """Rows in as many as go into one statement, of few different numbers: SQLite reads each statement only once."""
    start = 0
    while start < len(rows):
        left = len(rows) - start
        power = 1 << left.bit_length() - 1
        larger = power + power // 2
        count = min(ROWS_PER_STATEMENT, larger if left >= larger else power)
        yield rows[start : start + count]
        start += count


_ONCE = frozenset({"calls"})
"""Tables in which a key that is taken is an error."""


@cache
def marks(columns: int, rows: int) -> str:
    """Places for so many rows in a statement."""
    row = f"({', '.join('?' * columns)})"
    return ", ".join([row] * rows)


@cache
def _insert(table: str, columns: int, rows: int) -> str:
    # Not "or ignore", which would lose a row that lacks something as silently as one that is there already. With "or
    # fail" SQLite keeps no copies of pages to undo this statement alone: an error here undoes the whole transaction.
    unless_there = "" if table.partition("(")[0] in _ONCE else " on conflict do nothing"
    return f"insert or fail into {table} values {marks(columns, rows)}{unless_there}"  # noqa: S608 - own names


Operation = Callable[[Transaction], T]


@quickly_made
@dataclass(frozen=True, kw_only=True)
class About(Generic[T]):
    """An operation that tells which request it is about, so that it is looked up together with its neighbours'."""

    request_key: bytes
    apply: Operation[T]

    def __call__(self, transaction: Transaction) -> T:
        return self.apply(transaction)


Later = Callable[[Callable[[], None]], object]
"""Sees to it that something is done soon, in the thread that asks for it; an event loop's ``call_soon`` is one."""


@dataclass(slots=True)
class _Job(Generic[T]):
    operation: Operation[T]
    future: Future[T] | asyncio.Future[T]
    loop: asyncio.AbstractEventLoop | None = None
    """Where the future lives; None for one that any thread may wait for."""
    result: T | None = None
    error: BaseException | None = None

    def deliver(self) -> None:
        """Tell whoever still waits."""
        if self.future.done():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)  # type: ignore[arg-type] # an operation that ran has its result


class Journal:
    """The durable state of one corpus, shared by coroutines, threads and processes.

    With ``later`` there is no writer thread: what waits is committed together when ``later`` comes to it, so that
    whoever decides on the order of things (a simulation) decides on the order of commits too. ``reading`` opens a
    journal that this process may not write to, too; every operation is refused then.
    """

    def __init__(
        self, path: Path, *, clock_us: Callable[[], int], later: Later | None = None, reading: bool = False
    ) -> None:
        self.path = path
        self.clock_us = clock_us
        self.owner_id = -1
        self.turned_away = 0
        """How many answers, records and the like that were added here were there already, by somebody else's hand."""
        self._jobs: queue.SimpleQueue[_Job[Any] | None] = queue.SimpleQueue()
        self._living: Callable[[], object] | None = None
        self._closed = False
        self._closing = threading.Lock()
        self._opened: list[apsw.Connection] = []
        self._of_thread = threading.local()
        self._later = later
        self._unwritable = Unwritable.found(path) if reading and not _writable(path) else None
        self._thread = threading.Thread(target=self._work, name="journal", daemon=True)
        try:
            if self._unwritable is not None:
                _refuse_older(self.reader, path)
                return
            with storage_errors(path):
                self._writer = self._connect()
                _migrate(self._writer, path, clock_us())
                token, held = _held_lock(path)
                self._living = weakref.finalize(self, os.close, held)
            if later is None:
                self._thread.start()
            self.owner_id = self.run_now(partial(_register_owner, token=token))
        except BaseException:
            self.close()
            raise

    async def run(self, operation: Operation[T], *, regret: Callable[[T], Operation[object]] | None = None) -> T:
        """Apply an operation durably and give back its result.

        The operation runs in the writer thread. If it raises a CorpusgenError it must not have written anything; its
        neighbours in the same transaction are kept. A caller that is cancelled goes when the operation is done, and
        when what ``regret`` makes of a result that nobody takes is done too.
        """
        job, future = self._started(operation)
        try:
            return await future
        except asyncio.CancelledError:
            if regret is None:
                await self.start(_nothing)  # first come, first served: when this is done, so is the operation
            else:
                with suppress(CorpusgenError):  # refused: there is nothing to undo
                    await self.start(partial(_undo, job, regret))
            raise

    def start(self, operation: Operation[T]) -> asyncio.Future[T]:
        """As ``run``, for a caller that waits later."""
        return self._started(operation)[1]

    def _started(self, operation: Operation[T]) -> tuple[_Job[T], asyncio.Future[T]]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        job = _Job(operation, future, loop)
        self._put(job)
        if self._later is not None:
            self._later(self._take_turn)
        return job, future

    def run_now(self, operation: Operation[T]) -> T:
        """As ``run``, for code outside an event loop."""
        future = Future[T]()
        self._put(_Job(operation, future))
        if self._later is not None:
            _deliver_here(self._commit_waiting())
        return future.result()

    def close(self) -> None:
        """Commit what waits and let go of the file."""
        with self._closing:
            if not self._closed:
                self._closed = True
                self._jobs.put(None)
        if self._later is not None:
            _deliver_here(self._commit_waiting())
        if self._thread.is_alive():
            self._thread.join()
        if self.owner_id >= 0 and self._opened:
            with suppress(apsw.Error):  # closing must work on a full disk too
                _disown(self._writer, self.owner_id)
        if self._living is not None:
            self._living()
        while self._opened:
            self._opened.pop().close()

    def scrub(self) -> None:
        """Write the file anew, so that nothing which was deleted is left in a free page or in the write-ahead log.

        Raises StoreError where another process holds on to what was there before.
        """
        with storage_errors(self.path):
            connection = self._connect()
            _set(connection, "secure_delete=on")
            _checkpoint(connection, self.path)
            connection.execute("vacuum")
            _checkpoint(connection, self.path)

    @property
    def reader(self) -> apsw.Connection:
        """A connection of the calling thread, for reading; each statement sees the last commit."""
        found: apsw.Connection | None = getattr(self._of_thread, "reader", None)
        if found is None:
            with storage_errors(self.path):
                found = self._of_thread.reader = self._connect()
        return found

    def query(self, sql: str, values: tuple[Any, ...] | dict[str, Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of a reading statement, as of the last commit."""
        with storage_errors(self.path):
            found = list(self.reader.execute(sql, values))
        if self._unwritable is not None and self._unwritable.changed():
            raise StoreError(f"{self.path}: somebody has written to it while it was read; ask again")
        return found

    def _connect(self) -> apsw.Connection:
        # In one step with the flag, so that no connection is opened behind the back of ``close``.
        with self._closing:
            self._refuse_closed()
            if self._unwritable is None:
                connection = apsw.Connection(str(self.path), statementcachesize=STATEMENTS_KEPT)
            else:
                connection = self._unwritable.connect()
            self._opened.append(connection)
        if self._unwritable is not None:
            return connection
        connection.set_busy_timeout(BUSY_MS)
        for pragma in _PRAGMAS:
            _set(connection, pragma)
        return connection

    def _put(self, job: _Job[Any]) -> None:
        with self._closing:
            self._refuse_closed()
            if self._unwritable is not None:
                raise CorpusUnwritable(f"{self.path}: {_NO_PERMISSION}")
            self._jobs.put(job)

    def _refuse_closed(self) -> None:
        if self._closed:
            raise StoreError(f"{self.path}: the journal is closed; open the corpus again")

    # --- without a writer thread -------------------------------------------------------------------------------------

    def _take_turn(self) -> None:
        """Commit what waits; that it is durable and that somebody knows it are two steps, as they are with a thread."""
        assert self._later is not None
        if batch := self._commit_waiting():
            self._later(partial(_deliver_here, batch))

    def _commit_waiting(self) -> list[_Job[Any]]:
        waiting = [self._jobs.get_nowait() for _ in range(self._jobs.qsize())]
        batch = [job for job in waiting if job is not None]
        if batch:
            self._commit(batch)
        return batch

    # --- the writer thread -------------------------------------------------------------------------------------------

    def _work(self) -> None:
        several = False
        while batch := self._next_batch(several):
            several = len(batch) >= SEVERAL  # also after a wait: one that brings nothing is the last
            self._commit(batch)
            _deliver(batch)

    def _next_batch(self, several: bool) -> list[_Job[Any]]:
        """Everything that waits, or nothing when the journal is closed; of several, what comes in a moment too."""
        batch: list[_Job[Any]] = []
        if not self._take(self._jobs.get(), batch):
            return batch
        if several and len(batch) < ENOUGH and not self._closed:
            time.sleep(GATHER_S)
            with suppress(queue.Empty):
                self._take(self._jobs.get_nowait(), batch)
        return batch

    def _take(self, job: _Job[Any] | None, batch: list[_Job[Any]]) -> bool:
        """Put a job and those behind it into a batch; False where the journal is closed."""
        while job is not None:
            batch.append(job)
            if len(batch) == BATCH:
                return True
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return True
        if batch:
            self._jobs.put(None)  # met again after this batch
        return False

    def _commit(self, batch: list[_Job[Any]]) -> None:
        try:
            self._begin()
            _version(self._writer, self.path)  # a newer corpusgen may have brought the journal up in the meantime
        except (apsw.Error, CorpusTooNew) as error:
            if self._writer.in_transaction:
                self._writer.execute("rollback")
            _fail(batch, _foreign(error, self.path))
            return
        try:
            self._apply(batch)
        except BaseException as error:  # noqa: BLE001 - one job's failure must not lose its neighbours
            if self._writer.in_transaction:
                self._writer.execute("rollback")
            if len(batch) == 1:
                _fail(batch, _foreign(error, self.path))
                return
            middle = len(batch) // 2  # by halves, so that one failure among thousands costs few commits
            for half in (batch[:middle], batch[middle:]):
                _fail(half, None)
                self._commit(half)

    def _begin(self) -> None:
        # What waits may be answers that were paid for: whoever is in the way is waited for as long as is sensible.
        for turn in range(1, PATIENCE if self._later is None else 1):
            with suppress(apsw.BusyError):
                self._writer.execute("begin immediate")
                return
            _log.warning("%s: another process is writing; waiting for the %d. time", self.path, turn)
        self._writer.execute("begin immediate")

    def _apply(self, batch: list[_Job[Any]]) -> None:
        about = tuple(job.operation.request_key for job in batch if isinstance(job.operation, About))
        transaction = Transaction(writer=self._writer, now_us=self.clock_us(), about=about)
        for job in batch:
            _apply_one(job, transaction)
        for act in transaction.before_commit:
            act()
        transaction.write_waiting()
        self._writer.execute("commit")
        self.turned_away += transaction.turned_away


def _apply_one(job: _Job[Any], transaction: Transaction) -> None:
    before = transaction.changes
    try:
        job.result = job.operation(transaction)
    except CorpusgenError as error:
        if transaction.changes != before:
            raise
        job.error = error


def _nothing(_: Transaction) -> None:
    """An operation to wait for."""


def _undo(job: _Job[T], regret: Callable[[T], Operation[object]], transaction: Transaction) -> None:
    if job.error is None:
        regret(job.result)(transaction)  # type: ignore[arg-type] # an operation that ran has its result


def _fail(batch: list[_Job[Any]], error: BaseException | None) -> None:
    for job in batch:
        job.error = error


def _deliver(batch: list[_Job[Any]]) -> None:
    """Hand out the outcomes, waking each event loop once."""
    of_loop: dict[asyncio.AbstractEventLoop | None, list[_Job[Any]]] = {}
    for job in batch:
        of_loop.setdefault(job.loop, []).append(job)
    for loop, jobs in of_loop.items():
        if loop is None:
            _deliver_here(jobs)
        else:
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(_deliver_here, jobs)


def _deliver_here(jobs: list[_Job[Any]]) -> None:
    for job in jobs:
        job.deliver()


def _set(connection: apsw.Connection, pragma: str) -> None:
    # Many processes that make one corpus at once meet at the switch to WAL, where SQLite does not wait by itself.
    for _ in range(200):
        with suppress(apsw.BusyError):
            connection.execute(f"pragma {pragma}")
            return
        time.sleep(0.05)
    connection.execute(f"pragma {pragma}")


def _checkpoint(connection: apsw.Connection, path: Path) -> None:
    """Bring the whole write-ahead log into the file, and cut it to nothing."""
    for _ in range(200):
        ((busy, *_),) = connection.execute("pragma wal_checkpoint(truncate)").fetchall()
        if not busy:
            return
        time.sleep(0.05)
    raise StoreError(f"{path}: another process reads what was there before; let it end, then do this again")


def _migrate(connection: apsw.Connection, path: Path, now_us: int) -> None:
    version = tuple(int(part) for part in apsw.sqlite_lib_version().split("."))
    if version < WAL_BUG_FIXED:
        raise StoreError(f"SQLite {apsw.sqlite_lib_version()} can lose commits of several processes; upgrade apsw")
    if _version(connection, path) == JOURNAL_VERSION:
        return
    connection.execute("begin immediate")  # of several processes that start at once, one makes the tables
    try:
        found = _version(connection, path)
        if found == 0:
            _create(connection, path, now_us)
        elif found < JOURNAL_VERSION:  # or another process was quicker, and is at work already
            _refuse_busy(connection, path, found)
        for step in range(found or JOURNAL_VERSION, JOURNAL_VERSION):
            connection.execute(UPGRADES[step])
        connection.execute(f"pragma user_version={JOURNAL_VERSION}")
        connection.execute("commit")
    except BaseException:
        if connection.in_transaction:
            connection.execute("rollback")
        raise


def _version(connection: apsw.Connection, path: Path) -> int:
    found = int(str(connection.execute("pragma user_version").get))  # asked at each commit, so read only once by SQLite
    if found > JOURNAL_VERSION:
        raise CorpusTooNew(
            f"{path}: written by a newer corpusgen (journal version {found}, this one knows {JOURNAL_VERSION}); "
            "upgrade corpusgen or name another folder with --corpus"
        )
    return found


def _refuse_older(connection: apsw.Connection, path: Path) -> None:
    with storage_errors(path):
        found = _version(connection, path)
    if found < JOURNAL_VERSION:
        raise CorpusUnwritable(
            f"{path}: journal version {found} must be brought up to {JOURNAL_VERSION} before it can be read, and it may"
            " not be written here; open it once where it may, such as with corpusgen status"
        )


def _refuse_busy(connection: apsw.Connection, path: Path, found: int) -> None:
    """What an older process has under way it could no longer settle, and its answers would be lost."""
    rows = connection.execute(
        "select pid, boot_id, start_ticks from owners where owner_id in"
        " (select owner_id from calls where state = 'promised')"
    )
    for pid, boot_id, start_ticks in [(int(str(row[0])), str(row[1]), int(str(row[2]))) for row in rows]:
        if owner_alive(pid, boot_id, start_ticks):
            raise StoreError(
                f"{path}: process {pid} has calls under way with an older corpusgen (journal version {found}); let it"
                " end or stop it, then try again"
            )


def _create(connection: apsw.Connection, path: Path, now_us: int) -> None:
    if connection.execute("select count(*) from sqlite_schema").get:
        raise CorpusDamaged(f"{path}: is somebody else's database; move it away or name another folder with --corpus")
    for tables in SCHEMA:
        connection.execute(tables)
    connection.execute("insert into meta values('created_us', ?)", (str(now_us),))


_NO_PERMISSION = "may not be written here (a read-only disk, or no permission); copy the corpus, or ask its owner"


def _writable(path: Path) -> bool:
    return may_write(path.parent) and may_write(path)


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """SQLite's errors as ours, with the file they met."""
    try:
        yield
    except (apsw.Error, OSError) as error:
        mapped = _foreign(error, path)
        if mapped is error:
            raise
        raise mapped from error


def is_of_storage(error: BaseException | None) -> TypeGuard[apsw.Error]:
    """Whether it is an error of SQLite's that nobody has put in our words yet."""
    return isinstance(error, apsw.Error)


def _foreign(error: BaseException, path: Path) -> BaseException:
    if isinstance(error, apsw.FullError | apsw.ReadOnlyError | apsw.CantOpenError | apsw.IOError | OSError):
        return CorpusUnwritable(f"{path}: cannot be written ({error}); free space or change permissions, then go on")
    if isinstance(error, apsw.CorruptError | apsw.NotADBError):
        return CorpusDamaged(f"{path}: is not a sound journal ({error}); restore it from a backup")
    if isinstance(error, apsw.BusyError):
        return StoreError(f"{path}: another process has been writing for {BUSY_MS // 1000} s and more; try again")
    return error


# --- who is writing --------------------------------------------------------------------------------------------------


def _register_owner(transaction: Transaction, token: int) -> int:
    pid = os.getpid()
    transaction.execute(
        "insert into owners(pid, boot_id, start_ticks) values(?, ?, ?)",
        (pid, f"{_boot_id()} {_namespace()} {token}", _start_ticks(pid)),
    )
    return int(transaction.connection.last_insert_rowid())


GONE = -2
"""Start time of an owner that has closed the journal: no process has it."""


def _disown(connection: apsw.Connection, owner_id: int) -> None:
    """Let others take over what is still promised: the process may live on, but will not close it any more."""
    connection.execute(
        "update owners set start_ticks = ? where owner_id = ?"
        " and exists(select 1 from calls where owner_id = ? and state = 'promised')",
        (GONE, owner_id, owner_id),
    )


def owner_alive(pid: int, boot_id: str, start_ticks: int) -> bool:
    """Whether the process that registered is still the one that runs; pids are reused, start times are not."""
    boot, _, rest = boot_id.partition(" ")
    namespace, _, token = rest.partition(" ")
    if start_ticks == GONE:
        return False
    if boot == _boot_id() and namespace in ("", _namespace()):
        return _start_ticks(pid) == start_ticks
    # Seen from another container, numbers of processes say nothing; what a process holds locked does.
    return token.isdecimal() and any(_is_held(path, int(token)) for path in _LOCKS)


def working(connection: apsw.Connection, path: Path, *, but: int) -> list[int]:
    """The processes that have this journal open, ``but`` for one owner of it: by number, this one's among them."""
    rows = connection.execute("select owner_id, pid, boot_id, start_ticks from owners").fetchall()
    tokens = {int(str(owner)): str(boot_id).rpartition(" ")[2] for owner, _, boot_id, _ in rows}
    lock = path.with_name(".owners.lock")
    # Where locks work, they tell better than numbers of processes: one may live on and have closed the journal.
    locks = tokens.get(but, "").isdecimal() and _is_held(lock, int(tokens[but]))
    found = []
    for owner, pid, boot_id, start_ticks in rows:
        if owner != but:
            token = tokens[int(str(owner))]
            held = token.isdecimal() and _is_held(lock, int(token))
            if held or (not locks and owner_alive(int(str(pid)), str(boot_id), int(str(start_ticks)))):
                found.append(int(str(pid)))
    return found


_PROC = Path("/proc")
_LOCKS: set[Path] = set()
"""The lock files of the journals that this process has opened."""
_CAN_LOCK = hasattr(fcntl, "F_OFD_SETLK")  # Linux; elsewhere there are no containers that share a kernel


def _held_lock(path: Path) -> tuple[int, int]:
    """A byte of the file beside a journal that stays locked while this process lives, and the file to close then."""
    beside, token = path.with_name(".owners.lock"), secrets.randbits(62)
    file = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    if _CAN_LOCK:
        with suppress(OSError):  # a file system without locks: then only this container's processes know each other
            fcntl.fcntl(file, fcntl.F_OFD_SETLK, _byte(fcntl.F_WRLCK, token))
    _LOCKS.add(beside)
    return token, file


def _is_held(path: Path, token: int) -> bool:
    if not _CAN_LOCK:
        return False
    try:
        with path.open("rb+") as file:
            found = fcntl.fcntl(file, fcntl.F_OFD_GETLK, _byte(fcntl.F_WRLCK, token))
    except OSError:
        return False
    return bool(struct.unpack_from("h", found)[0] != fcntl.F_UNLCK)


def _byte(kind: int, at: int) -> bytes:
    """A ``struct flock`` of one byte."""
    return struct.pack("hhqqi4x", kind, os.SEEK_SET, at, 1, 0)


def _boot_id() -> str:
    try:
        return (_PROC / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return "unknown"


@cache
def _namespace() -> str:
    """Which processes this one sees: a container sees only its own."""
    try:
        return os.readlink(_PROC / "self/ns/pid")
    except OSError:
        return "pid:unknown"


def _start_ticks(pid: int) -> int:
    """Start time of a process since boot, or -1 where it does not run (a zombie does not); 0 where nobody tells it."""
    try:
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0 if not _PROC.is_dir() and _runs(pid) else -1
    return -1 if fields[0] in "ZX" else int(fields[19])


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
