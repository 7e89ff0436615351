from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lineage_answers import ANSWERS, Facts
from lineage_fixture import LATE, NO_DOCUMENTS, NO_REQUEST, NO_SOURCE, TODAY, write, write_empty

from corpusgen.errors import CorpusDamaged, UsageError
from corpusgen.provenance.lineage import VIEWS
from corpusgen.provenance.questions import questions, read_question
from corpusgen.stages.lineage.auditing import Answer, audit, written
from corpusgen.stages.lineage.reading import opened

RECORDS = 20_000
ASKED: dict[str, list[dict[str, Any]]] = {
    "q01": [{"provider": "cobalt"}, {"provider": "acme", "terms": "acme-api-2025"}, {"provider": "own"}],
    "q02": [{"student": "mixed"}, {"student": "clean"}, {"student": "old"}],
    "q03": [{"dataset": "beta-1", "student": "mixed"}],
    "q04": [{"dataset": "alpha-1"}],
    "q05": [{}, {"provider": "acme"}, {"since": "2026-03-10", "until": "2026-04-10"}],
    "q06": [{"source": "source-007"}, {"source": "source-013"}],
    "q07": [{"record": "acme, replayed"}, {"record": "judged, with a parent"}],
    "q08": [{}, {"days": "30"}],
    "q09": [{}],
    "q10": [{}, {"since": "2026-01-03"}],
    "q11": [{}, {"teacher": "acme/model"}, {"teacher": "own/model"}],
    "q12": [{"dataset": "beta-1"}, {"dataset": "gamma-1"}],
    "q13": [{"student": "mixed"}, {"student": "old"}],
    "q14": [{}, {"dataset": "alpha-1"}],
    "q15": [{"dataset": "beta-1"}, {"dataset": "alpha-1"}],
    "q16": [{"student": "mixed"}],
    "q17": [{"provider": "own"}, {"provider": "dorado"}, {"provider": "cobalt"}],
    "q18": [{}, {"teacher": "acme/model"}, {"teacher": "cobalt/model"}],
    "q19": [{"rightsholder": "holder-01"}, {"rightsholder": "holder-13"}],
    "q20": [{}, {"checkpoint": "8"}, {"checkpoint": "9"}],
}
CASES = [(number, given) for number, several in ASKED.items() for given in several]
NAMES = ["-".join([number, *given.values()]) for number, given in CASES]


@pytest.fixture(scope="module")
def lineage(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write(RECORDS, tmp_path_factory.mktemp("lineage"))


@pytest.fixture(scope="module")
def facts(lineage: dict[str, Path]) -> Facts:
    return Facts({name: pq.read_table(path) for name, path in lineage.items()})


def ask(lineage: Mapping[str, Path], number: str, given: Mapping[str, str], **more: Any) -> Answer:
    return audit(lineage, questions()[number], given, on=TODAY, **more)


def filled(given: Mapping[str, str], facts: Facts) -> dict[str, str]:
    """What is asked, a record that is only described by its id."""
    if "record" not in given:
        return dict(given)
    fits = replayed if given["record"] == "acme, replayed" else judged_with_a_parent
    return {"record": next(row["record_id"].hex() for row in facts.rows("records") if fits(facts, row["record_no"]))}


def replayed(facts: Facts, number: int) -> bool:
    requests = [facts.requests[row["request_no"]] for row in facts.asked.get(number, ())]
    return any(one["from_cache"] and one["origin_terms_set_no"] != one["terms_set_no"] for one in requests)


def judged_with_a_parent(facts: Facts, number: int) -> bool:
    return number in facts.parents and any(row["role"] == "judge" for row in facts.asked.get(number, ()))


def expected(number: str, given: Mapping[str, str], facts: Facts) -> Counter[tuple[Any, ...]]:
    plain: dict[str, Any] = dict(given) | ({"on": TODAY} if number == "q09" else {})
    if "days" in plain:
        plain["days"] = int(plain["days"])
    return Counter(ANSWERS[number](facts, **plain))


def answered(number: str, answer: Answer) -> Counter[tuple[Any, ...]]:
    if number == "q13":  # the items' names are the law's
        return Counter((row[0], row[2]) for row in answer.rows)
    return Counter(answer.rows)


# --- what was planted is found ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "given"), CASES, ids=NAMES)
def test_a_question_gives_the_planted_answer(
    number: str, given: dict[str, str], lineage: dict[str, Path], facts: Facts
) -> None:
    given = filled(given, facts)
    assert answered(number, ask(lineage, number, given)) == expected(number, given, facts)


def test_every_question_is_asked_and_has_something_to_find(lineage: dict[str, Path], facts: Facts) -> None:
    assert list(ASKED) == list(questions()) == [f"q{number:02d}" for number in range(1, 21)]
    for number, several in ASKED.items():
        assert ask(lineage, number, filled(several[0], facts)).rows, number


def test_the_counts_that_were_planted_by_hand_come_out(lineage: dict[str, Path]) -> None:
    lacks = Counter(row[1] for row in ask(lineage, "q15", {"dataset": "beta-1"}).rows)
    assert lacks == {"request": NO_REQUEST, "source": NO_SOURCE, "terms or teacher": NO_DOCUMENTS}
    outdated = {row[1:3]: row[3] for row in ask(lineage, "q08", {}).rows}
    assert outdated["acme-api-2025", "superseded"] == LATE


def test_a_clean_student_passes_and_a_mixed_one_does_not(lineage: dict[str, Path]) -> None:
    clean, mixed = (ask(lineage, "q02", {"student": name}) for name in ("clean", "mixed"))
    assert (clean.rows, clean.violated, clean.verdict) == ([], False, "0 rows: none")
    assert mixed.violated
    assert {row[2] for row in mixed.rows} == {"response", "judge", "filter"}


def test_a_cycle_of_parents_ends(tmp_path: Path) -> None:
    paths = write(2_000, tmp_path)
    table = pq.read_table(paths["record_parents"])
    rows = [{"record_no": 1, "parent_no": 2, "how": "seed"}, {"record_no": 2, "parent_no": 1, "how": "seed"}]
    pq.write_table(pa.concat_tables([table, pa.Table.from_pylist(rows, table.schema)]), paths["record_parents"])
    assert ask(paths, "q02", {"student": "mixed"}).rows


def test_the_views_hold_what_follows_from_the_tables(tmp_path: Path) -> None:
    paths = write(2_000, tmp_path)
    planted = Facts({name: pq.read_table(path) for name, path in paths.items()})
    records = [row["record_no"] for row in planted.rows("records")]
    touched = Counter(
        (record, by_parent, role, request["request_no"], name)
        for record in records
        for by_parent, role, request in planted.uses(record)
        for name in planted.governing(request)
    )
    held = {(record, source) for record in records for source in planted.held(record)}
    with opened(paths) as connection:
        touch = "select record_no, ancestor_no <> record_no, role, request_no, terms_id from v_touch"
        assert Counter(connection.sql(touch).fetchall()) == touched
        assert set(connection.sql("select record_no, source_no from v_source").fetchall()) == held


def test_the_tables_are_narrow(tmp_path: Path) -> None:
    paths = write(RECORDS, tmp_path)
    large = ("requests", "records", "record_requests", "record_sources", "record_parents", "dataset_records")
    assert sum(paths[name].stat().st_size for name in large) < 200 * RECORDS


# --- what breaks the answer is noticed -------------------------------------------------------------------------------

NO_CLOSURE = "select record_no, record_no as ancestor_no from records"
MUTATIONS = {
    "roles": ("v_use", "join record_requests made on", "join (from record_requests where role = 'response') made on"),
    "parents": ("v_closure", VIEWS["v_closure"], NO_CLOSURE),
    "one generation": (
        "v_closure",
        VIEWS["v_closure"],
        f"{NO_CLOSURE} union all select record_no, parent_no from record_parents",
    ),
    "origins of cached answers": ("v_requests", "coalesce(origin_terms_set_no, terms_set_no)", "terms_set_no"),
}
NOTICED = {
    "roles": {"q01", "q02", "q03", "q04", "q17"},
    "parents": {"q01", "q02", "q04", "q06", "q07", "q12", "q14", "q17", "q19"},
    "one generation": {"q01", "q02", "q04", "q06", "q12", "q14", "q17", "q19"},
    "origins of cached answers": {"q01", "q07"},
}


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_view_that_leaves_something_out_is_noticed(mutation: str, lineage: dict[str, Path], facts: Facts) -> None:
    view, text, instead = MUTATIONS[mutation]
    assert text in VIEWS[view]
    changed = {**VIEWS, view: VIEWS[view].replace(text, instead)}
    wrong = set()
    for number, given in CASES:
        if number not in wrong:
            asked = filled(given, facts)
            found = answered(number, ask(lineage, number, asked, views=changed))
            wrong |= {number} if found != expected(number, asked, facts) else set()
    assert wrong == NOTICED[mutation]


# --- what is asked ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", questions())
def test_a_lineage_without_rows_or_files_answers_or_says_that_nothing_is_known(number: str, tmp_path: Path) -> None:
    question = questions()[number]
    for lineage in (write_empty(tmp_path), {}):
        given = {one.name: "nothing" for one in question.parameters if one.required}
        if not given:
            assert len(ask(lineage, number, {}).rows) == 0
            continue
        with pytest.raises(UsageError, match=r"nothing|hex digits"):
            ask(lineage, number, given)


@pytest.mark.parametrize("number", [number for number, question in questions().items() if question.parameters])
def test_sql_runs_without_rows_whatever_it_is_asked_of(number: str, tmp_path: Path) -> None:
    values: dict[str, Any] = {"date": TODAY, "days": 3, "count": 3}
    question = questions()[number]
    bound = {one.name: values.get(one.type, "ab" * 32) for one in question.parameters if one.name in question.bound}
    with opened(write_empty(tmp_path)) as connection:
        assert len(connection.sql(question.sql, params=bound).fetchall()) <= 12


HOSTILE = ["' or 1=1 --", "'; drop table records; --", "$provider", "\0", "cobalt\n", "COBALT'", "../../etc", "💥", ""]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_only_a_name_nobody_has(text: str, lineage: dict[str, Path]) -> None:
    for number, name in (("q01", "provider"), ("q03", "dataset"), ("q07", "record"), ("q08", "days"), ("q05", "since")):
        with pytest.raises(UsageError, match=f"--{name}"):
            ask(lineage, number, {name: text})


def renamed(paths: dict[str, Path], table: str, column: str, old: str, new: str) -> dict[str, Path]:
    """The lineage with another name in it."""
    rows = pq.read_table(paths[table])
    at = rows.schema.get_field_index(column)
    values = [new if value == old else value for value in rows.column(column).to_pylist()]
    pq.write_table(rows.set_column(at, rows.schema.field(at), [values]), paths[table])
    return paths


def test_a_name_with_quotes_is_asked_for_as_it_is(tmp_path: Path) -> None:
    name = 'it\'s; drop table "x" --'
    paths = renamed(write(2_000, tmp_path), "teachers", "provider", "cobalt", name)
    assert ask(paths, "q01", {"provider": name}).rows


@pytest.mark.parametrize("name", ["=1+1|<b>x</b>", "@SUM(A1)\\|x", "-2+3|![a](http://x)", "\t=1|`x`"])
def test_a_name_is_no_formula_in_csv_and_no_markup_in_markdown(name: str, tmp_path: Path) -> None:
    answer = ask(renamed(write(2_000, tmp_path), "sources", "source_id", "source-000", name), "q14", {})
    cells = [row[0] for row in csv.reader(io.StringIO(written(answer, "csv"))) if name in row[0]]
    assert cells == [f"'{name}"]
    (line,) = [line for line in written(answer, "markdown").splitlines() if "CC-BY-SA-4.0" in line]
    assert line.count("|") == len(answer.result.columns) + 1
    assert not {"<", "[", "`", "\\"} & set(line)


def test_the_largest_numbers_and_the_first_and_last_days_are_answered(lineage: dict[str, Path]) -> None:
    for given in ({"days": "99999"}, {"days": "0"}):
        assert ask(lineage, "q08", given).parameters["days"] == int(given["days"])
        assert ask(lineage, "q09", {**given, "on": "9999-12-31"}).rows
        assert not ask(lineage, "q09", {"days": "0", "on": "0001-01-01"}).rows
    assert len(ask(lineage, "q06", {"source": "source-007", "list": "999999999999"}).rows) > 20
    assert not ask(lineage, "q20", {"checkpoint": "999999999999"}).rows
    assert not ask(lineage, "q10", {"since": "9999-12-31"}).rows


def test_an_unknown_name_is_answered_with_the_nearest(lineage: dict[str, Path]) -> None:
    with pytest.raises(UsageError, match="no provider here is called 'colbat'; the nearest are 'cobalt'"):
        ask(lineage, "q01", {"provider": "colbat"})
    with pytest.raises(UsageError, match="'beta-1'"):
        ask(lineage, "q04", {"dataset": "beta"})
    with pytest.raises(UsageError, match="give --student"):
        ask(lineage, "q02", {})
    with pytest.raises(UsageError, match="q02 is not asked of --dataset; it takes --student"):
        ask(lineage, "q02", {"dataset": "beta-1"})


def test_a_record_is_found_by_the_beginning_of_its_id(lineage: dict[str, Path], facts: Facts) -> None:
    record = facts.rows("records")[123]["record_id"].hex()
    assert ask(lineage, "q07", {"record": record[:16].upper()}).parameters == {"record": record}
    with pytest.raises(UsageError, match="beginning of several ids"):
        ask(lineage, "q07", {"record": record[0]})
    with pytest.raises(UsageError, match="no record here"):
        ask(lineage, "q07", {"record": "0" * 60})


def test_lineage_is_read_from_a_folder_of_any_name(tmp_path: Path) -> None:
    for name in ("it's [1] *here?", "it's [1] xhere?"):
        (tmp_path / name).mkdir()
    lineage = write_empty(tmp_path / "it's [1] xhere?")
    assert ask(lineage, "q05", {}).rows == []
    full = write(2_000, tmp_path / "it's [1] *here?")
    assert ask(lineage, "q05", {}).rows == []
    assert ask(full, "q05", {}).rows


def test_lineage_that_cannot_be_read_is_damage_not_an_answer(tmp_path: Path) -> None:
    lineage = write_empty(tmp_path)
    lineage["requests"].write_bytes(b"PAR1 no more")
    with pytest.raises(CorpusDamaged, match="made anew when lineage/ is deleted"):
        ask(lineage, "q05", {})


def test_a_changed_byte_of_the_lineage_is_damage_not_an_answer(tmp_path: Path) -> None:
    lineage = write(2_000, tmp_path)
    whole = lineage["teachers"].read_bytes()
    lineage["teachers"].write_bytes(whole[:40] + bytes([whole[40] ^ 1]) + whole[41:])
    with pytest.raises(CorpusDamaged):
        ask(lineage, "q01", {"provider": "cobalt"})


# --- what is told ----------------------------------------------------------------------------------------------------


def test_text_that_nobody_kept_is_said(lineage: dict[str, Path], facts: Facts) -> None:
    answer = ask(lineage, "q07", filled({"record": "judged, with a parent"}, facts))
    assert any(note.startswith("terms text not held for") for note in answer.notes)


def test_what_erases_is_named_and_not_done(lineage: dict[str, Path]) -> None:
    before = {name: path.read_bytes() for name, path in lineage.items()}
    answer = ask(lineage, "q06", {"source": "source-007"})
    assert any("corpusgen erase --source" in note for note in answer.notes)
    assert before == {name: path.read_bytes() for name, path in lineage.items()}


def test_an_answer_is_written_with_what_was_asked_and_the_notice(lineage: dict[str, Path]) -> None:
    answer = ask(lineage, "q01", {"provider": "cobalt"})
    for kind in ("table", "markdown"):
        text = written(answer, kind)
        assert all(
            part in text for part in (answer.question.title, "provider: cobalt", "Mixed One", "Not legal advice")
        )
    assert written(answer, "csv").startswith("release,name,student")
    assert {row["student"] for row in answer.to_json()["rows"]} == {"mixed", "old"}
    assert answer.to_json()["passes"] is None


def test_every_parameter_of_a_question_is_bound_in_its_sql() -> None:
    for question in questions().values():
        beside = {"kept", "record"} if question.reads_ledger else set()
        assert {one.name for one in question.parameters} == {*question.bound, *beside}
        assert set(re.findall(r"\$(\w+)", question.sql)) == set(question.bound)


def test_a_file_whose_head_lacks_something_is_refused() -> None:
    with pytest.raises(ValueError, match="q99: the head of the file lacks answer, cannot tell"):
        read_question("q99", "x", "-- title: What?\nselect 1")
    head = "-- title: What?\n-- answer: That.\n-- cannot tell: Much.\n-- parameter: x blob required\nselect 1"
    with pytest.raises(ValueError, match="not a parameter"):
        read_question("q99", "x", head)
