from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import lineage_fixture
import pyarrow as pa
import pytest
from command import Ran, corpusgen
from record_samples import sample_record
from task_samples import write_label_task

from corpusgen.errors import CorpusDamaged, QueryError
from corpusgen.provenance.lineage import SCHEMAS, VIEWS
from corpusgen.provenance.questions import questions
from corpusgen.stages.lineage.guide import guide
from corpusgen.stages.lineage.guide_words import EXAMPLES
from corpusgen.stages.lineage.reading import opened
from corpusgen.stages.tables import TABLES
from corpusgen.store.query import FiledSchema, QueryLimits, QueryResult, run_query
from corpusgen.store.shards import write_shard
from corpusgen.store.tabulate import tabulate

FORMULAS = ('=HYPERLINK("http://x")', "+1+cmd|' /C calc'!A0", "-2+3", "@SUM(1)", "\tx", "\r=1", "＝1")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A label task that was distilled; whoever owns its source is called like a formula."""
    folder = tmp_path_factory.mktemp("asked")
    spec = write_label_task(folder)
    spec.write_text(spec.read_text().replace("{id: ours, ", f"{{id: ours, rightsholder: '{FORMULAS[0]}', ", 1))
    ran = corpusgen("distill", spec, "--corpus", folder / "corpus", "-q")
    assert ran.code == 0, ran.stderr
    return folder / "corpus"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return lineage_fixture.write(2000, tmp_path_factory.mktemp("lineage"))


def asked(files: Mapping[str, Path], sql: str, **limits: Any) -> QueryResult:
    filed = FiledSchema(name="lineage", tables=SCHEMAS, views=VIEWS, files=lambda: files)
    return run_query(sql, shard_paths=[], tables=TODAY, filed=filed, limits=QueryLimits(**limits))


TESTED, TRAINED = (sum(n % 20 != 0 and (n % 10 == 0) is tested for n in range(2000)) for tested in (True, False))
TODAY = {"runs": pa.table({"run_id": ["today"]}), "batches": pa.table({"requests": [7]})}


def rows(corpus: Path, sql: str) -> list[dict[str, Any]]:
    ran = corpusgen("query", sql, "--corpus", corpus, "--json")
    assert ran.code == 0, ran.stderr
    found: list[dict[str, Any]] = ran.object["rows"]
    return found


# Lineage beside records


def test_the_lineage_is_asked_like_records_and_joined_with_them(corpus: Path) -> None:
    sql = "select terms_id, count(distinct record_no) as n from v_touch group by 1"
    assert rows(corpus, sql) == [{"terms_id": "corpusgen-scripted", "n": len(rows(corpus, "from records"))}]
    sql = "select count(*) as n from v_record join main.records on record = main.records.record_id where response <> ''"
    assert rows(corpus, sql) == rows(corpus, "select count(*) as n from records where response <> ''")


@pytest.mark.parametrize(
    ("sql", "found"),
    [
        ("select run_id from runs", [("today",)]),
        ("select count(*) from lineage.runs", [(4,)]),
        ("select count(run_id) from lineage.runs", [(4,)]),
        ("select count(*) from records", [(0,)]),
        ("select count(*) from lineage.records", [(2000,)]),
        ("select count(*) from LINEAGE.Records", [(2000,)]),
        ('select count(*) from "lineage"."records"', [(2000,)]),
        ("select count(*) from batches, lineage.records", [(2000,)]),
        ("select count(distinct record_no) from batches, v_closure", [(2000,)]),
        ("select count(*) from (describe lineage.records)", [(10,)]),
        ("select count(*) from query_table('terms')", [(9,)]),
        ("select r.source_id from sources r where source_no = 7", [("source-007",)]),
        ("select (s).source_id from sources s where source_no = 7", [("source-007",)]),
        ("pivot (select split from dataset_records) on split using count(*)", [(TESTED, TRAINED)]),
        ("select count(*) from (pivot v_touch on role using count(*)) where record_no < 0", [(0,)]),
        ("pivot (select split from query_table('dataset_' || 'records')) on split using count(*)", [(TESTED, TRAINED)]),
        ("with terms as (select 1 as x) select x from terms", [(1,)]),
    ],
)
def test_names_of_today_stay_and_the_lineage_s_are_found(
    files: dict[str, Path], sql: str, found: list[tuple[object, ...]]
) -> None:
    assert asked(files, sql).rows == found


@pytest.mark.parametrize("name", [*SCHEMAS, *VIEWS])
def test_every_table_and_view_says_the_same_as_its_file(files: dict[str, Path], name: str) -> None:
    with opened(files) as connection:
        (expected,) = connection.execute(
            f"select (count(*), hash(list(t order by t)))::varchar from {name} t"
        ).fetchall()
    assert asked(files, f"select (count(*), hash(list(t order by t)))::varchar from lineage.{name} t").rows == [
        expected
    ]


KNOWN = {
    "provider": "acme",
    "dataset": "beta-1",
    "student": "mixed",
    "source": "source-007",
    "rightsholder": "holder-07",
    "record": lineage_fixture.hashed(1).hex(),
    "on": "2026-08-01",
    "until": "2026-12-31",
    "since": "2026-01-01",
    "days": "90",
    "list": "5",
}


@pytest.mark.parametrize("number", questions())
def test_the_lawyers_questions_are_answered_alike_with_only_the_columns_they_need(
    files: dict[str, Path], number: str
) -> None:
    def literal(found: re.Match[str]) -> str:
        return f"'{KNOWN[found[1]]}'" if found[1] in KNOWN else "null"

    sql = re.sub(r"\$(\w+)", literal, questions()[number].sql)
    with opened(files) as connection:
        expected = connection.sql(sql).fetchall()
    of_the_lineage = re.sub(r"\b(from|join) (records|runs)\b", r"\1 lineage.\2", sql)
    assert sorted(map(repr, asked(files, of_the_lineage).rows)) == sorted(map(repr, expected))


@pytest.mark.parametrize(
    "sql",
    [
        "select count(*) from records",
        "select requests from batches",
        "select 'the terms' as terms, sources.x from (select 1 as x) sources",
        "select 1 -- from nothing but requests",
    ],
)
def test_a_statement_without_a_lineage_table_does_not_trace_it(sql: str) -> None:
    def files() -> Mapping[str, Path]:
        raise AssertionError("the lineage was traced")

    filed = FiledSchema(name="lineage", tables=SCHEMAS, views=VIEWS, files=files)
    assert run_query(sql, shard_paths=[], tables=TODAY, filed=filed).table.num_rows == 1


def test_a_plain_question_leaves_no_lineage_in_the_corpus_and_one_of_it_does(tmp_path: Path) -> None:
    spec = write_label_task(tmp_path)
    assert corpusgen("run", spec, "--corpus", tmp_path / "corpus", "-q").code == 0
    rows(tmp_path / "corpus", "select count(*) from records")
    assert not (tmp_path / "corpus" / "lineage").exists()
    rows(tmp_path / "corpus", "select count(*) from terms")
    assert (tmp_path / "corpus" / "lineage").is_dir()


def test_only_what_is_asked_of_the_lineage_is_read(files: dict[str, Path], tmp_path: Path) -> None:
    some = {**files, "requests": tmp_path / "gone.parquet"}
    assert asked(some, "select count(*) from lineage.records").rows == [(2000,)]
    with pytest.raises(CorpusDamaged, match=r"gone\.parquet"):
        asked(some, "select count(*) from lineage.requests")


def test_a_damaged_lineage_says_that_it_is_made_anew(files: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "lineage"
    folder.mkdir()
    (folder / "terms.parquet").write_bytes(files["terms"].read_bytes()[:-9])
    with pytest.raises(CorpusDamaged, match="the folder lineage is made anew when it is deleted"):
        asked({**files, "terms": folder / "terms.parquet"}, "from terms")


def test_a_wrong_name_is_answered_with_all_there_are(files: dict[str, Path]) -> None:
    with pytest.raises(
        QueryError, match=r"Tables here: batches, records, runs\.\nIn the schema lineage: agents, .*v_touch"
    ):
        asked(files, "from lineage.termss")


def test_a_name_of_both_that_lacks_a_column_says_whose_it_is(files: dict[str, Path]) -> None:
    with pytest.raises(
        QueryError, match=r"records, runs is none of the lineage's; those are lineage\.records, lineage\.runs"
    ):
        asked(files, "select record_no, run_no from records join runs using (run_no)")


# The guide


def test_the_guide_tells_of_every_table_with_the_columns_and_types_it_really_has(corpus: Path) -> None:
    assert {one.name for one in guide() if one.schema == "main"} == {"records", *TABLES}
    assert {one.name.removeprefix("lineage.") for one in guide() if one.schema == "lineage"} == {*SCHEMAS, *VIEWS}
    sql = (
        "select table_schema, table_name, column_name, data_type from information_schema.columns"
        " where not exists (from lineage.terms where terms_id = '') order by ordinal_position"
    )
    real: dict[str, list[list[str]]] = {}
    for row in rows(corpus, sql):
        real.setdefault(f"{row['table_schema']}.{row['table_name']}", []).append([row["column_name"], row["data_type"]])
    for one in guide():
        name = f"{one.schema}.{one.name.rpartition('.')[2]}"
        assert [[column.name, column.type] for column in one.columns] == real[name], name


def test_every_table_and_column_of_the_guide_says_what_it_means() -> None:
    for one in guide():
        assert len(one.meaning.split()) > 3, one.name
        assert one.prov, one.name
        assert [column.name for column in one.columns if not column.meaning.strip()] == [], one.name


@pytest.mark.parametrize(("question", "sql"), EXAMPLES)
def test_the_examples_of_the_guide_are_answered(corpus: Path, question: str, sql: str) -> None:
    assert question.endswith("?")
    assert rows(corpus, sql), sql


def test_there_are_six_examples_and_the_document_shows_each() -> None:
    assert len(EXAMPLES) == 6
    told = (Path(__file__).parent.parent / "docs" / "query.md").read_text("utf-8")
    assert [sql for _, sql in EXAMPLES if sql not in told] == []


def test_the_guide_of_one_table_is_printed_and_a_wrong_name_gets_the_nearest() -> None:
    printed = corpusgen("query", "--schema", "v_touch").stdout
    assert "v_touch  (view; wasGeneratedBy in PROV)" in printed
    assert "names a version of a terms document" in printed
    both = corpusgen("query", "--schema", "decisions", "--json").object
    assert [one["name"] for one in both["tables"]] == ["decisions", "lineage.decisions"]
    wrong = corpusgen("query", "--schema", "waverers")
    assert (wrong.code, "the nearest are waivers" in wrong.stderr) == (2, True)


def test_the_whole_guide_needs_no_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    told = corpusgen("query", "--schema").stdout
    assert all(f"\n{name}  (" in f"\n{told}" for name in ("records", "lineage.records", "v_touch", "balances"))
    assert "Not legal advice" in told
    found = corpusgen("query", "--schema", "--json").object
    assert (len(found["tables"]), len(found["examples"])) == (len(guide()), 6)


@pytest.mark.parametrize("arguments", [("query",), ("query", "select 1", "--schema")])
def test_a_question_is_asked_or_the_guide_is_read(arguments: tuple[str, ...]) -> None:
    assert corpusgen(*arguments).code == 2


# Cells that a spreadsheet would run


def cells(ran: Ran) -> list[list[str]]:
    assert ran.code == 0, ran.stderr
    return list(csv.reader(io.StringIO(ran.stdout, newline="")))


def test_a_formula_in_a_record_is_quoted_in_csv_and_nowhere_else(tmp_path: Path) -> None:
    records = [sample_record(record_id=f"r{n}", response=text, cost_microusd=n) for n, text in enumerate(FORMULAS)]
    write_shard(tmp_path, "a.parquet", records)
    found = run_query("select response from records order by record_id", shard_paths=[tmp_path / "a.parquet"])
    written = list(csv.reader(io.StringIO(tabulate(found, "csv"), newline="")))[1:]
    assert written == [[f"'{text}"] for text in FORMULAS]
    assert [json.loads(line)["response"] for line in tabulate(found, "jsonl").splitlines()] == list(FORMULAS)


def test_a_formula_in_an_answer_is_quoted_by_query(corpus: Path) -> None:
    words = ", ".join(f"({n}, '{text}')".replace("' /C calc'", "'' /C calc''") for n, text in enumerate(FORMULAS))
    ask = f"select n, t as \"=t\", -1.5 as less, '+4.2e1' as number from (values {words}) v(n, t) order by n"
    header, *lines = cells(corpusgen("query", ask, "--corpus", corpus, "--format", "csv"))
    assert header == ["n", "'=t", "less", "number"]
    assert lines == [[str(n), f"'{text}", "-1.5", "+4.2e1"] for n, text in enumerate(FORMULAS)]


def test_a_formula_in_the_lineage_is_quoted_by_query_and_by_audit(corpus: Path, tmp_path: Path) -> None:
    here = ("--corpus", corpus, "--format", "csv")
    ran = corpusgen("query", "select rightsholder from sources where rightsholder like '=%'", *here)
    assert cells(ran)[1] == [f"'{FORMULAS[0]}"]
    letter = tmp_path / "letter.txt"
    letter.write_text("yes")
    waive = ("--terms", "openai-services-agreement-2026-01-01", "--reason", "r", "--evidence", letter)
    until = (date.today() + timedelta(days=9)).isoformat()
    ran = corpusgen("policy", "waive", *waive, "--by", FORMULAS[3], "--until", until, "--corpus", corpus)
    assert ran.code == 0, ran.stderr
    assert [line[1] for line in cells(corpusgen("audit", "expiring-waivers", *here))] == [
        "granted_by",
        f"'{FORMULAS[3]}",
    ]
    written = tmp_path / "out.csv"
    assert corpusgen("audit", "expiring-waivers", *here, "--out", written).code == 0
    assert f"'{FORMULAS[3]}" in written.read_text()
