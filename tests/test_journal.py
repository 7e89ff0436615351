"""What the journal promises: what was acknowledged stays, and one failure never costs its neighbours."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import apsw
import pytest
from flow_samples import journal_in, violations
from without_permission import held_to_permissions, nobody_may_write

from corpusgen import journal as journal_module
from corpusgen.budget.amounts import Amounts
from corpusgen.budget.ledger import Intent, Ledger
from corpusgen.errors import CorpusDamaged, CorpusTooNew, CorpusUnwritable, StoreError, UsageError
from corpusgen.journal import Journal, Operation, Transaction, owner_alive, portions
from corpusgen.journal_tables import JOURNAL_VERSION, UPGRADES

PYTHON = [sys.executable, "-W", "error", "-c"]


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with journal_in(tmp_path) as opened:
        yield opened


def note(name: str, error: Exception | None = None) -> Operation[str]:
    """Writes a row, then fails if told to."""

    def operation(transaction: Transaction) -> str:
        transaction.execute("insert into meta values(?, 'x')", (name,))
        if error is not None:
            raise error
        return name

    return operation


def refuse(error: Exception) -> Operation[str]:
    def operation(_: Transaction) -> str:
        raise error

    return operation


def notes(journal: Journal) -> set[str]:
    return {row[0] for row in journal.query("select name from meta where value = 'x'")}


async def together(journal: Journal, *operations: Operation[str]) -> list[str | BaseException]:
    """The outcomes of operations that ride in one transaction: the first keeps the writer busy until all wait."""
    gate = threading.Event()
    first = journal.start(lambda _: gate.wait(10))
    waiting = [journal.start(operation) for operation in operations]
    gate.set()
    await first
    return await asyncio.gather(*waiting, return_exceptions=True)


# --- group commit ----------------------------------------------------------------------------------------------------


async def test_operations_that_wait_are_committed_together(journal: Journal) -> None:
    def begin(transaction: Transaction) -> str:
        return str(id(transaction))

    assert len(set(await together(journal, begin, begin, begin))) == 1


@pytest.mark.parametrize(
    "failing",
    [
        refuse(UsageError("no")),
        refuse(ValueError("a bug")),
        note("half", UsageError("after writing")),
        note("half", ValueError("a bug after writing")),
    ],
    ids=["refusal", "bug", "refusal after writing", "bug after writing"],
)
async def test_a_failing_operation_keeps_its_neighbours(journal: Journal, failing: Operation[str]) -> None:
    outcomes = await together(journal, note("a"), failing, note("b"))
    assert (outcomes[0], outcomes[2]) == ("a", "b")
    assert isinstance(outcomes[1], UsageError | ValueError)
    assert notes(journal) == {"a", "b"}  # nothing of the failing one


async def test_a_broken_constraint_keeps_the_neighbours(journal: Journal) -> None:
    outcomes = await together(journal, note("a"), note("a"), note("b"))
    assert isinstance(outcomes[1], apsw.ConstraintError)
    assert notes(journal) == {"a", "b"}


async def test_what_an_operation_gives_back_arrives(journal: Journal) -> None:
    assert await journal.run(note("a")) == "a"
    assert journal.run_now(note("b")) == "b"


async def test_a_cancelled_caller_leaves_when_its_operation_is_done(journal: Journal) -> None:
    gate = threading.Event()
    journal.start(lambda _: gate.wait(10))
    task = asyncio.create_task(journal.run(note("a")))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0.01)
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert notes(journal) == {"a"}


def test_a_loop_that_ended_does_not_hurt_the_others(journal: Journal) -> None:
    gate = threading.Event()

    async def leave_early() -> None:
        journal.start(lambda _: gate.wait(10))
        journal.start(note("abandoned"))

    asyncio.run(leave_early())
    gate.set()
    journal.run_now(note("later"))
    assert notes(journal) == {"abandoned", "later"}


def test_every_thread_reads_through_a_connection_of_its_own(journal: Journal) -> None:
    journal.run_now(note("a"))
    found: list[set[str]] = []
    threads = [threading.Thread(target=lambda: found.extend(notes(journal) for _ in range(50))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [{"a"}] * 200


# --- closing ---------------------------------------------------------------------------------------------------------


def test_closing_commits_what_waits(tmp_path: Path) -> None:
    async def submit(journal: Journal) -> None:
        for at in range(500):
            journal.start(note(f"n{at}"))

    with journal_in(tmp_path) as journal:
        asyncio.run(submit(journal))
    with journal_in(tmp_path) as journal:
        assert len(notes(journal)) == 500


def test_closing_twice_does_no_harm(journal: Journal) -> None:
    journal.close()
    journal.close()


def test_a_closed_journal_says_so(journal: Journal) -> None:
    journal.close()
    with pytest.raises(StoreError, match="is closed"):
        journal.run_now(note("late"))
    with pytest.raises(StoreError, match="is closed"):
        journal.query("select 1")


# --- kill -9 ---------------------------------------------------------------------------------------------------------

_ACKNOWLEDGE = """
import sys
from pathlib import Path
from corpusgen.journal import Journal
journal = Journal(Path(sys.argv[1]), clock_us=lambda: 0)
for n in range(10**9):
    journal.run_now(lambda t: t.execute("insert into meta values(?, 'x')", (f"n{n}",)))
    print(n, flush=True)
"""


def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    child = subprocess.Popen([*PYTHON, _ACKNOWLEDGE, path], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    for _ in range(30):
        child.stdout.readline()
    child.kill()
    acknowledged = 30 + len(child.stdout.read().splitlines())
    child.wait()
    child.stdout.close()
    with journal_in(tmp_path) as journal:
        assert notes(journal) >= {f"n{at}" for at in range(acknowledged)}
        assert journal.query("pragma integrity_check") == [("ok",)]


# --- files that are not what they should be --------------------------------------------------------------------------


def test_a_newer_journal_is_refused_and_left_alone(tmp_path: Path) -> None:
    with journal_in(tmp_path) as journal:
        journal.run_now(lambda transaction: transaction.execute(f"pragma user_version={JOURNAL_VERSION + 1}") and None)
    before = (tmp_path / "journal.sqlite").read_bytes()
    with pytest.raises(CorpusTooNew, match="upgrade corpusgen"), journal_in(tmp_path):
        pass
    assert (tmp_path / "journal.sqlite").read_bytes() == before


def test_a_journal_of_version_1_goes_on_where_it_was(tmp_path: Path) -> None:
    old = apsw.Connection(str(tmp_path / "journal.sqlite"))
    old.execute(VERSION_1)
    old.close()
    with journal_in(tmp_path) as journal:
        assert int(journal.reader.pragma("user_version") or 0) == JOURNAL_VERSION
        assert journal.query("select scope, unit, per, cap, origin from caps") == [
            ("corpus", "microusd", "total", 50, "o")
        ]
        assert journal.query("select request_key, reserved_compute_us, compute_us from calls") == [(b"k", 0, None)]
        assert journal.query("select request_key, call_id from claims") == [(b"k", 1)]
        assert asyncio.run(Ledger(journal).recover()) == 1
        assert not violations(journal)


def test_a_new_journal_and_one_brought_up_from_version_1_have_the_same_columns(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    old = apsw.Connection(str(tmp_path / "journal.sqlite"))
    old.execute(VERSION_1)
    old.close()
    every = (
        'select s.type, s.name, c.name, c.type, c.pk, c."notnull", c.dflt_value from sqlite_schema s'
        " left join pragma_table_info(s.name) c order by 1, 2, c.cid"
    )
    with journal_in(tmp_path) as brought_up, journal_in(tmp_path / "new") as new:
        assert brought_up.query(every) == new.query(every)


def test_a_journal_of_version_2_takes_batches(tmp_path: Path) -> None:
    old = apsw.Connection(str(tmp_path / "journal.sqlite"))
    old.execute(VERSION_1 + UPGRADES[1] + "pragma user_version=2;")
    old.close()
    with journal_in(tmp_path) as journal:
        assert int(journal.reader.pragma("user_version") or 0) == JOURNAL_VERSION
        assert journal.query("select request_key, batch_id, batch_line from calls") == [(b"k", None, None)]
        assert journal.query("select request_key, batch_id from claims") == [(b"k", None)]
        assert journal.query("select count(*) from batches") == [(0,)]
        assert not violations(journal)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "journal.sqlite").write_bytes(b"not a database, whatever its name says" * 100)
    with pytest.raises(CorpusDamaged, match="not a sound journal"), journal_in(tmp_path):
        pass


def test_somebody_elses_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    foreign = apsw.Connection(str(tmp_path / "journal.sqlite"))
    foreign.execute("create table theirs(x)")
    foreign.close()
    with pytest.raises(CorpusDamaged, match="somebody else's"), journal_in(tmp_path):
        pass


def test_a_path_that_cannot_be_opened_is_unwritable(tmp_path: Path) -> None:
    (tmp_path / "journal.sqlite").mkdir()
    with pytest.raises(CorpusUnwritable, match="cannot be written"), journal_in(tmp_path):
        pass


_FULL = """
import resource, sys
from pathlib import Path
from corpusgen.errors import CorpusUnwritable
from corpusgen.journal import Journal
journal = Journal(Path(sys.argv[1]), clock_us=lambda: 0)
journal.run_now(lambda t: t.execute("insert into meta values('before', 'x')") and None)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    for n in range(1000):
        journal.run_now(lambda t: t.execute("insert into meta values(?, hex(zeroblob(4000)))", (f"n{n}",)) and None)
except CorpusUnwritable as error:
    print(error)
"""


def test_a_full_disk_is_said_and_what_was_committed_is_intact(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    child = subprocess.run([*PYTHON, _FULL, path], capture_output=True, text=True, timeout=60)
    assert "cannot be written" in child.stdout, child.stderr
    with journal_in(tmp_path) as journal:
        assert notes(journal) == {"before"}
        assert journal.query("pragma integrity_check") == [("ok",)]


def test_a_read_only_folder_is_unwritable(tmp_path: Path) -> None:
    with nobody_may_write(tmp_path):
        ran = held_to_permissions("budget", "set", "corpus", "usd=1", "--corpus", tmp_path, "--json")
    assert ran.object["error"] == "CorpusUnwritable"


_OPEN = """
import sys
from pathlib import Path
from corpusgen.journal import Journal
Journal(Path(sys.argv[1]), clock_us=lambda: 0).close()
"""


def test_processes_that_start_at_once_make_one_journal(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    children = [subprocess.Popen([*PYTHON, _OPEN, path], stderr=subprocess.PIPE, text=True) for _ in range(4)]
    errors = [child.communicate(timeout=60)[1] for child in children]
    assert [child.returncode for child in children] == [0] * 4, errors
    with journal_in(tmp_path) as journal:
        assert journal.query("select count(*) from owners") == [(5,)]


# --- who is alive ----------------------------------------------------------------------------------------------------

_PROMISE = """
import asyncio, sys, time
from pathlib import Path
from corpusgen.budget.ledger import Amounts, Intent, Ledger
from corpusgen.journal import Journal
journal = Journal(Path(sys.argv[1]), clock_us=lambda: 0)
intent = Intent(run_id="r", request_key=b"k", teacher="t", role="response", attempt=1,
                worst=Amounts(tokens=7, requests=1), scopes=("corpus",), price_version="v")
asyncio.run(Ledger(journal).reserve(intent))
print("promised", flush=True)
time.sleep(60)
"""


def promised_tokens(journal: Journal) -> tuple[int, int]:
    rows = journal.query("select promised, unconfirmed from balances where unit = 'tokens'")
    return rows[0][0], rows[0][1]


async def test_promises_of_the_dead_become_unknown_and_those_of_the_living_do_not(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    child = subprocess.Popen([*PYTHON, _PROMISE, path], stdout=subprocess.PIPE, text=True)  # noqa: ASYNC220 - it waits
    assert child.stdout is not None
    child.stdout.readline()
    with journal_in(tmp_path) as journal:
        assert (await Ledger(journal).recover(), promised_tokens(journal)) == (0, (7, 0))
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        assert (await Ledger(journal).recover(), promised_tokens(journal)) == (1, (0, 7))
        assert await Ledger(journal).recover() == 0


async def test_a_reused_pid_is_not_taken_for_the_living(journal: Journal) -> None:
    intent = Intent(
        run_id="r",
        request_key=b"k",
        teacher="t",
        role="response",
        attempt=1,
        worst=Amounts(tokens=7),
        scopes=("corpus",),
        price_version="v",
    )
    await Ledger(journal).reserve(intent)
    journal.run_now(lambda transaction: transaction.execute("update owners set start_ticks = start_ticks - 1") and None)
    assert await Ledger(journal).recover() == 1


VERSION_1 = """
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
insert into owners values(1, 0, 'another boot', 0);
insert into caps values('corpus', 'microusd', 50, 'o', 0);
insert into balances values('corpus', 'microusd', 0, 7, 0);
insert into balances values('corpus', 'tokens', 0, 3, 0);
insert into balances values('corpus', 'requests', 0, 1, 0);
insert into calls(run_id, request_key, teacher, role, attempt, scopes, owner_id, state, reserved_microusd,
    reserved_tokens, reserved_requests, price_version, reserved_us)
    values('r1', x'6b', 't', 'r', 1, 'corpus', 1, 'promised', 7, 3, 1, 'v', 0);
pragma user_version=1;
"""
"""What the first version of the journal was, with one call under way."""


# --- who is alive ----------------------------------------------------------------------------------------------------

OTHER = "pid:[1]"
HOLDING = """
import sys, time
from pathlib import Path
from corpusgen.journal import Journal
journal = Journal(Path(sys.argv[1]), clock_us=lambda: 0)
print(journal.owner_id, flush=True)
time.sleep(60)
"""


def owner(journal: Journal, owner_id: int) -> tuple[int, str, int]:
    (row,) = journal.query("select pid, boot_id, start_ticks from owners where owner_id = ?", (owner_id,))
    return row[0], str(row[1]), row[2]


def elsewhere(found: tuple[int, str, int]) -> tuple[int, str, int]:
    """The same owner as one that runs in another container."""
    boot, _, token = found[1].split(" ")
    return found[0], f"{boot} {OTHER} {token}", found[2]


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="no containers here")
def test_a_process_of_another_container_is_alive_until_it_is_killed(journal: Journal) -> None:
    with subprocess.Popen([*PYTHON, HOLDING, str(journal.path)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        found = owner(journal, int(other.stdout.readline()))
        assert owner_alive(*found)
        assert owner_alive(*elsewhere(found))
        other.kill()
        other.wait()
        assert not owner_alive(*found)
        assert not owner_alive(*elsewhere(found))


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="no containers here")
def test_who_has_closed_the_journal_is_not_seen_alive_from_another_container(tmp_path: Path, journal: Journal) -> None:
    with journal_in(tmp_path) as second:
        found = elsewhere(owner(journal, second.owner_id))
        assert owner_alive(*found)
    assert not owner_alive(*found)


def test_where_nothing_tells_when_a_process_began_a_dead_one_is_still_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "_PROC", tmp_path / "none")
    with (
        journal_in(tmp_path) as opened,
        subprocess.Popen([*PYTHON, HOLDING, str(opened.path)], stdout=subprocess.PIPE, text=True) as other,
    ):
        assert other.stdout is not None
        other.stdout.readline()
        assert owner_alive(*owner(opened, opened.owner_id))
        assert owner_alive(other.pid, "unknown", 0)
        other.kill()
        other.wait()
        assert not owner_alive(other.pid, "unknown", 0)


# --- rows and patience -----------------------------------------------------------------------------------------------


def test_a_row_that_lacks_something_is_an_error_and_one_that_is_there_is_not(journal: Journal) -> None:
    for _ in range(2):
        journal.run_now(lambda transaction: transaction.add("requests", (b"k", b"x")))
    with pytest.raises(apsw.ConstraintError, match="NOT NULL"):
        journal.run_now(lambda transaction: transaction.add("requests", (b"other", None)))
    assert journal.query("select count(*) from requests") == [(1,)]


async def test_of_rows_written_in_one_statement_only_those_of_the_failing_operation_are_lost(journal: Journal) -> None:
    def add(*bodies: bytes | None) -> Operation[str]:
        def operation(transaction: Transaction) -> str:
            for at, body in enumerate(bodies):
                transaction.add("requests", (b"%d of %d" % (at, len(bodies)), body))
            return "added"

        return operation

    outcomes = await together(journal, add(b"x"), add(b"x", None, b"x"), add(b"x", b"x"))
    assert isinstance(outcomes[1], apsw.ConstraintError)
    assert journal.query("select count(*) from requests") == [(3,)]


def test_rows_are_divided_into_statements_of_few_different_sizes() -> None:
    sizes = set[int]()
    for count in range(300):
        divided = [list(some) for some in portions(range(count))]
        assert list(chain.from_iterable(divided)) == list(range(count))
        sizes.update(map(len, divided))
    assert sizes == {1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64}


async def test_what_waits_to_be_kept_outlasts_another_process_that_writes_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(journal_module, "BUSY_MS", 10)
    monkeypatch.setattr(journal_module, "PATIENCE", 10_000)
    with journal_in(tmp_path) as opened:
        other = apsw.Connection(str(opened.path))
        other.execute("begin immediate")
        pending = opened.start(note("paid"))
        while "another process is writing" not in caplog.text:  # noqa: ASYNC110 - a log has no event
            await asyncio.sleep(0.005)
        other.execute("rollback")
        assert await pending == "paid"
        other.close()


async def test_who_is_in_the_way_for_too_long_fails_what_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "BUSY_MS", 5)
    monkeypatch.setattr(journal_module, "PATIENCE", 2)
    with journal_in(tmp_path) as opened:
        other = apsw.Connection(str(opened.path))
        other.execute("begin immediate")
        with pytest.raises(StoreError, match="another process has been writing"):
            await opened.run(note("late"))
        other.execute("rollback")
        other.close()
