from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from record_samples import sample_record, sorted_records

from corpusgen.errors import CorpusDamaged, CorpusUnwritable, QueryError
from corpusgen.records import Record
from corpusgen.store.query import QueryLimits, QueryResult, run_query
from corpusgen.store.shards import SCHEMA, records_of, write_shard
from corpusgen.store.tabulate import Format, tabulate, write_parquet

ROOT = Path(__file__).parent.parent
T = TypeVar("T")


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    labels = ["animal", "plant", "plant"]
    records = [sample_record(record_id=f"r{i}", label=label, cost_microusd=i) for i, label in enumerate(labels)]
    write_shard(folder, "a.parquet", records)
    return folder / "a.parquet"


# What is asked, and what comes back


def test_records_can_be_counted_by_label(shard: Path) -> None:
    sql = "select label, count(*), avg(cost_microusd) from records group by label order by label"
    found = run_query(sql, shard_paths=[shard])
    assert found.rows == [("animal", 1, 0.0), ("plant", 2, 1.5)]
    assert found.columns == ("label", "count_star()", "avg(cost_microusd)")
    assert found.types == ("VARCHAR", "BIGINT", "DOUBLE")


@settings(max_examples=15, deadline=None)
@given(sorted_records(max_size=4))
def test_every_value_of_every_column_comes_through(
    tmp_path_factory: pytest.TempPathFactory, written: list[Record]
) -> None:
    folder = tmp_path_factory.mktemp("shards")
    write_shard(folder, "a.parquet", written)
    found = run_query("from records order by record_id", shard_paths=[folder / "a.parquet"])
    rows = found.table.cast(SCHEMA).combine_chunks().to_batches()
    assert [record for batch in rows for record in records_of(batch)] == written


def test_a_corpus_without_shards_has_records_with_all_columns() -> None:
    found = run_query("from records", shard_paths=[])
    assert (found.columns, found.rows) == (tuple(SCHEMA.names), [])


@pytest.mark.parametrize(
    ("sql", "rows"),
    [
        ("select count(*) from records", [(3,)]),
        ("select 'x' from records limit 1", [("x",)]),
        ("select r.label from records r where r.cost_microusd > 1", [("plant",)]),
        ("select (r).label from records r order by cost_microusd limit 1", [("animal",)]),
        ("select records.label from records natural join labels order by cost_microusd", [("animal",)]),
        ("select max(columns('^cost_')) from records", [(2,)]),
        ("with known as (from records) select count(label) from known", [(3,)]),
        ("select count(*) from (select * exclude (response) from records)", [(3,)]),
        ("pivot (select label from records) on label using count(*)", [(1, 2)]),
        ("select column_name from (describe records) limit 1", [("record_id",)]),
        ("/* a * comment */ select 2 * 3 -- *", [(6,)]),
        ("select count(*);", [(1,)]),
    ],
)
def test_only_columns_a_statement_needs_are_loaded_and_none_is_missed(
    shard: Path, sql: str, rows: list[tuple[object, ...]]
) -> None:
    labels = pa.table({"label": ["animal"]})
    assert run_query(sql, shard_paths=[shard], tables={"labels": labels}).rows == rows


def test_a_row_as_a_value_has_all_its_columns(shard: Path) -> None:
    (value,) = run_query("select r from records r order by record_id limit 1", shard_paths=[shard]).rows[0]
    assert (value["label"], value["messages"][0]["role"]) == ("animal", "user")


def test_small_tables_stand_beside_records(shard: Path) -> None:
    runs = pa.table({"run_id": ["run-1"], "started_time": pa.array([0], pa.timestamp("us", "UTC"))})
    sql = "select started_time, count(*) from records natural join runs group by 1"
    assert run_query(sql, shard_paths=[shard], tables={"runs": runs}).rows == [(datetime(1970, 1, 1), 3)]


def test_times_are_utc_whatever_the_zone_of_the_machine(shard: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    sql = "select max(sent_time), max(sent_time)::varchar, max(sent_time::timestamptz)::varchar from records"
    (row,) = run_query(sql, shard_paths=[shard]).rows
    assert row == (datetime(2026, 1, 2, 3, 4, 5, 678901), "2026-01-02 03:04:05.678901", "2026-01-02 03:04:05.678901+00")


def test_too_many_rows_are_cut_and_it_says_so(shard: Path) -> None:
    found = run_query("select * from range(5000)", shard_paths=[shard], limits=QueryLimits(rows=2500))
    assert (found.table.num_rows, found.truncated) == (2500, True)
    exact = run_query("select * from range(2500)", shard_paths=[shard], limits=QueryLimits(rows=2500))
    assert (exact.table.num_rows, exact.truncated) == (2500, False)


def test_too_many_bytes_are_cut_and_it_says_so() -> None:
    found = run_query("select repeat('x', 100000) from range(100)", shard_paths=[], limits=QueryLimits(bytes=1_000_000))
    assert found.truncated
    assert 0 < found.table.nbytes <= 1_000_000


# What goes wrong, in words that help


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("select lable from records", r'"lable" not found[\s\S]*Candidate bindings: "label"'),
        ("select * from recrods", r"recrods does not exist!\nTables here: budgets, records\."),
        ("selec 1", 'syntax error at or near "selec"'),
        ("select foo(1)", "foo does not exist"),
        ("", "one statement at a time; found 0"),
        ("-- nothing", "one statement at a time; found 0"),
        ("select 1; select 2", "one statement at a time; found 2"),
        ("select 'a'::int", "Conversion Error"),
        ("x" * 20_001, "20001 bytes, at most 20000"),
        ("select '\0'", "not text"),
        ("select '\ud800'", "not text"),
    ],
)
def test_a_wrong_statement_is_answered_with_what_to_change(shard: Path, sql: str, message: str) -> None:
    with pytest.raises(QueryError, match=message):
        run_query(sql, shard_paths=[shard], tables={"budgets": pa.table({"scope": ["run"]})})


def test_a_damaged_shard_is_named_not_counted(shard: Path, tmp_path: Path) -> None:
    content = bytearray(shard.read_bytes())
    group = pq.read_metadata(shard).row_group(0)
    column = next(group.column(i) for i in range(group.num_columns) if group.column(i).path_in_schema == "label")
    content[column.dictionary_page_offset + column.total_compressed_size - 5] ^= 1
    (tmp_path / "bad.parquet").write_bytes(content)
    with pytest.raises(CorpusDamaged, match=r"bad\.parquet"):
        run_query("select label from records", shard_paths=[shard, tmp_path / "bad.parquet"])
    with pytest.raises(CorpusDamaged, match=r"gone\.parquet"):
        run_query("select label from records", shard_paths=[tmp_path / "gone.parquet"])


@pytest.mark.parametrize("name", ["records", "Runs", "a b", 'x"; drop table records', ""])
def test_a_table_has_a_plain_name(name: str) -> None:
    with pytest.raises(ValueError, match="not a name for a table"):
        run_query("select 1", shard_paths=[], tables={name: pa.table({"x": [1]})})


# What must never happen

HOSTILE = [
    "copy records to '{shard}'",
    "copy (select 666) to '{shard}' (use_tmp_file false)",
    "with x as (copy (select 666) to '{shard}' (use_tmp_file false)) select 1",
    "explain analyze copy (select 666) to '{shard}' (use_tmp_file false)",
    "explain analyze with x as (copy (select 666) to '{shard}' (use_tmp_file false)) select 1",
    "prepare p as copy (select 666) to '{shard}' (use_tmp_file false)",
    "execute p",
    "select 1; copy (select 666) to '{shard}' (use_tmp_file false)",
    "attach '{folder}/new.duckdb' as other",
    "attach '{shard}' as other (read_only)",
    "export database '{folder}/out'",
    "import database '{folder}/out'",
    "install httpfs",
    "load httpfs",
    "force install httpfs from 'http://127.0.0.1:9'",
    "select * from read_blob('{shard}')",
    "select * from read_text('/etc/passwd')",
    "select * from read_csv('/etc/passwd')",
    "select * from read_parquet('{shard}')",
    "select * from parquet_metadata('{shard}')",
    "select * from glob('{folder}/*')",
    "select * from '{shard}'",
    "from '/etc/passwd'",
    "select * from sniff_csv('/etc/passwd')",
    "from os",
    "set enable_external_access = true",
    "reset lock_configuration",
    "pragma enable_logging",
    "call enable_logging()",
    "set temp_directory = '{folder}'",
    "create table mine as select 1",
    "drop view records",
    "insert into records select * from records",
    "create secret s (type s3, key_id 'a', secret 'b')",
    "create persistent secret s (type s3, key_id 'a', secret 'b')",
    "checkpoint",
    "vacuum",
    "connect 'x'",
    "use memory",
    "begin",
    "select * from query('copy (select 666) to ''{shard}''')",
    "select * from query_table('{shard}')",
    "select * from postgres_scan('', '', '')",
    "select * from 'http://127.0.0.1:9/x.parquet'",
    "select pg_read_file('/etc/passwd')",
    "select getenv('HOME')",
    "describe '{shard}'",
    "summarize from '{shard}'",
    "pivot '{shard}' on label",
    "with recursive t as (select * from '{shard}') select * from t",
    "select write_blob('{folder}/x', 'y')",
]


@pytest.mark.parametrize("sql", HOSTILE)
def test_a_hostile_statement_is_refused_and_no_file_changes(shard: Path, sql: str) -> None:
    before = _digests(shard.parent)
    with pytest.raises(QueryError):
        run_query(sql.format(shard=shard, folder=shard.parent), shard_paths=[shard])
    assert _digests(shard.parent) == before


@pytest.mark.parametrize(
    "sql",
    [
        "select length(rpad('x', 2000000000, 'y'))",
        "select length(lpad('x', 2000000000, 'y'))",
        "select count(*) from range(1000000000000) a",
        "with recursive t as (select 1 as x union all select x + 1 from t) select max(x) from t",
        "select max(a.range * b.range) from range(10000000) a, range(10000000) b",
    ],
)
def test_a_statement_that_never_ends_is_stopped(sql: str) -> None:
    with pytest.raises(QueryError, match=r"stopped after 0\.7 s"):
        run_query(sql, shard_paths=[], limits=QueryLimits(seconds=0.7))


@pytest.mark.parametrize(
    "sql",
    [
        "select list(range) from range(1000000000)",
        "select string_agg(range::varchar, ',') from range(1000000000)",
        "select printf('%2000000000d', 1)",
        "select list(a) from (select repeat('x', 100000) || range as a from range(100000))",
    ],
)
def test_a_statement_that_wants_all_memory_is_stopped(sql: str) -> None:
    with pytest.raises(QueryError, match=r"more than 700 MB|stopped after"):
        run_query(sql, shard_paths=[], limits=QueryLimits(seconds=10, memory_mb=700))


def test_too_little_memory_to_start_is_said_so() -> None:
    with pytest.raises(QueryError, match="more than 40 MB"):
        run_query("select 1", shard_paths=[], limits=QueryLimits(memory_mb=40))


@pytest.mark.parametrize("sql", ["(" * 9_000 + "1" + ")" * 9_000, "select " + "1 or " * 3_900 + "1", "[" * 19_000])
def test_a_deeply_nested_statement_ends_in_an_error_or_an_answer(sql: str) -> None:
    with suppress(QueryError):
        run_query(sql, shard_paths=[], limits=QueryLimits(seconds=10))


def test_a_hundred_thousand_parentheses_are_too_long() -> None:
    with pytest.raises(QueryError, match="at most 20000"):
        run_query("select " + "(" * 100_000 + "1" + ")" * 100_000, shard_paths=[])


def test_the_child_sees_no_key(monkeypatch: pytest.MonkeyPatch, shard: Path) -> None:
    from corpusgen.store import query

    monkeypatch.setenv("OPENAI_API_KEY", "sk-CANARY")
    assert "sk-CANARY" not in query._environment().values()


def test_settings_that_are_read_show_the_locks(shard: Path) -> None:
    names = "'enable_external_access', 'lock_configuration', 'autoinstall_known_extensions', 'temp_directory'"
    sql = f"select value from duckdb_settings() where name in ({names}) order by name"
    assert run_query(sql, shard_paths=[shard]).rows == [("false",), ("false",), ("true",), ("",)]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the alarm ends the child a little later")
def test_the_child_dies_with_its_parent() -> None:
    asking = (
        "from corpusgen.store.query import run_query; run_query('select max(a.range*b.range) from range(9000000) a, "
        "range(9000000) b', shard_paths=[])"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", asking], env=environment) as parent:
        child = _wait_for(lambda: _children(parent.pid))[0]
        _wait_for(lambda: _processor_ticks(child) > 40)
        parent.send_signal(signal.SIGKILL)
    _wait_for(lambda: not _is_running(child))


# How it is shown


def test_a_table_lines_up_and_shows_no_control_characters() -> None:
    result = _result(word=["dog\x1b[2J", "日本", None], count=[1, 20, 300])
    assert tabulate(result, "table").splitlines() == [
        "word    count",
        "──────  ─────",
        "dog[2J      1",
        "日本       20",
        "          300",
        "(3 rows)",
    ]


def test_a_long_cell_is_cut_and_a_cut_result_says_so() -> None:
    result = _result(text=["x" * 100], truncated=True)
    assert tabulate(result, "table").endswith("x…\n(first 1 row; there are more)\n")


def test_json_keeps_values_and_types() -> None:
    result = _result(
        a=[1, None],
        b=[float("nan"), 2.5],
        c=[Decimal(12345678901234567890), None],
        d=[datetime(2026, 1, 2), None],
        e=[b"caf\xc3\xa9", b"\xff"],
        f=[[{"x": 1}], []],
    )
    first, second = json.loads(tabulate(result, "json"))
    assert list(first.values()) == [1, None, 12345678901234567890, "2026-01-02T00:00:00Z", "café", [{"x": 1}]]
    assert list(second.values()) == [None, 2.5, None, None, "\\xff", []]


def test_json_lines_are_the_rows_of_json() -> None:
    result = _result(a=[1, 2])
    assert [json.loads(line) for line in tabulate(result, "jsonl").splitlines()] == json.loads(tabulate(result, "json"))


@pytest.mark.parametrize("kind", ["json", "jsonl"])
def test_a_name_that_occurs_twice_keeps_both_values(kind: Format) -> None:
    result = run_query("select 1 as a, 2 as a, 3 as a_2", shard_paths=[])
    assert '{"a": 1, "a_2": 2, "a_2_2": 3}' in tabulate(result, kind)


@pytest.mark.parametrize("kind", ["table", "json", "jsonl", "csv"])
def test_no_rows_are_still_an_answer(kind: Format) -> None:
    expected = {"table": "a\n─\n(0 rows)\n", "json": "[]\n", "jsonl": "", "csv": "a\r\n"}
    assert tabulate(_result(a=pa.array([], pa.int64())), kind) == expected[kind]


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ('=HYPERLINK("http://x","y")', '\'=HYPERLINK("http://x","y")'),
        ("@SUM(1)", "'@SUM(1)"),
        ("-2+3|cmd", "'-2+3|cmd"),
        ("\tx", "'\tx"),
        ("\rx", "'\rx"),
        ("+1", "+1"),
        ("-2.5e-3", "-2.5e-3"),
        ("plain", "plain"),
        ('{"a": 1}', '{"a": 1}'),
    ],
)
def test_csv_cells_cannot_be_formulas(text: str, written: str) -> None:
    content = tabulate(_result(cell=[text]), "csv")
    assert list(csv.reader(io.StringIO(content, newline=""))) == [["cell"], [written]]


@given(st.lists(st.text(max_size=8), min_size=1, max_size=5))
def test_csv_is_read_back_as_it_was(texts: list[str]) -> None:
    content = tabulate(_result(cell=texts, other=texts), "csv")
    rows = list(csv.reader(io.StringIO(content, newline="")))[1:]
    assert [row[0].removeprefix("'") for row in rows] == [text.removeprefix("'") for text in texts]


def test_a_result_can_be_kept_as_parquet(tmp_path: Path) -> None:
    write_parquet(_result(a=[1, 2]), tmp_path / "out.parquet")
    assert pq.read_table(tmp_path / "out.parquet").to_pydict() == {"a": [1, 2]}
    assert os.listdir(tmp_path) == ["out.parquet"]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(CorpusUnwritable, match="nowhere"):
        write_parquet(_result(a=[1]), tmp_path / "nowhere" / "out.parquet")


def _result(*, truncated: bool = False, **columns: object) -> QueryResult:
    table = pa.table(columns)
    types = tuple(str(kind) for kind in table.schema.types)
    return QueryResult(columns=tuple(table.column_names), types=types, table=table, truncated=truncated)


def _digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _processor_ticks(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11])


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def _wait_for(condition: Callable[[], T]) -> T:
    for _ in range(500):
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError("waited ten seconds in vain")
