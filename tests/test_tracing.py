"""The lineage of real corpora says what was done, whoever did it in whichever role."""

from __future__ import annotations

import asyncio
import hashlib
import signal
from collections.abc import Callable
from datetime import date
from functools import cache
from pathlib import Path

import orjson
import pyarrow.parquet as pq
import pytest
from batch_samples import start as start_batch
from batch_samples import write_batch_task
from command import corpusgen
from flow_samples import Server, write_task
from several_samples import failing, saying, write_several
from teacher_samples import server
from test_resume import finish, start, teaching
from test_sharing import run as run_sharing
from tracing_samples import distilled, done, judged, lineage_of, passed_on, rows

from corpusgen.corpus import Corpus
from corpusgen.errors import StoreError
from corpusgen.mock.server import Options, mock_teacher
from corpusgen.provenance.lineage import TABLES
from corpusgen.provenance.questions import Question, questions
from corpusgen.stages.lineage import traced_records
from corpusgen.stages.lineage.auditing import audit_corpus
from corpusgen.stages.lineage.tracing import FOLDER, lineage_files, trace
from corpusgen.store.catalog import open_catalog

ROLES = """
select records.kind, teacher_id, role, count(*) from record_requests join records using (record_no)
join requests using (request_no) join teachers using (teacher_no) group by all order by all
"""


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Corpora by name, each made when it is first asked for."""
    makers = {"judged": judged, "passed on": passed_on, "distilled": distilled}
    return cache(lambda name: makers[name](tmp_path_factory.mktemp(name.replace(" ", "-"))))


Corpora = Callable[[str], Path]


@pytest.mark.parametrize("name", ["judged", "passed on", "distilled"])
def test_every_table_is_there_with_the_columns_of_its_schema(corpora: Corpora, name: str) -> None:
    with Corpus.open(corpora(name)) as corpus:
        files = lineage_files(corpus)
    assert {name: pq.read_schema(path) for name, path in files.items()} == {
        name: table.schema for name, table in TABLES.items()
    }
    for name, path in files.items():
        table = pq.read_table(path)
        empty = [field.name for field in TABLES[name].schema if not field.nullable and table[field.name].null_count]
        assert not empty, f"{name}: {empty}"


OF_ANSWERS = [("response", "scripted/judge", "filter", 11), ("response", "scripted/judge", "judge", 11)]
TOUCHED = [
    ("judgement", "scripted/judge", "filter", 11),
    ("judgement", "scripted/judge", "judge", 11),
    *OF_ANSWERS,
    ("response", "scripted/test", "response", 12),
]
"""A judge's word counts as used wherever it was: in its own judgements, and in the answers they are about."""


def test_an_answer_that_was_judged_was_touched_by_its_judge(corpora: Corpora) -> None:
    assert rows(corpora("judged"), ROLES) == TOUCHED


def test_a_role_that_is_left_out_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = judged(tmp_path)
    forgetful = dict(traced_records._OUT)
    forgetful["record_requests"] = forgetful["record_requests"].replace("kind = 'judgement'", "kind = 'nothing'")
    monkeypatch.setattr(traced_records, "_OUT", forgetful)
    assert rows(corpus, ROLES) == [row for row in TOUCHED if row not in OF_ANSWERS]


def test_a_judgement_is_made_from_the_answer_it_is_about(corpora: Corpora) -> None:
    found = rows(
        corpora("judged"),
        "select how, j.kind as made, r.kind, count(*) from record_parents p join records j using (record_no)"
        " join records r on r.record_no = p.parent_no group by all",
    )
    assert found == [("judged", "judgement", "response", 11)]


def test_a_dataset_has_the_records_of_its_files_in_their_splits(corpora: Corpora) -> None:
    folder = corpora("judged")
    found = rows(folder, "select split, record from dataset_records join v_record using (record_no)")
    files = (folder / "datasets" / "sentences-1").glob("*.parquet")
    there = [(path.name.partition("-")[0], pq.read_table(path)["record_id"].to_pylist()) for path in files]
    assert sorted(found) == sorted((split, name) for split, names in there for name in names)
    assert {split for split, _ in found} == {"train", "test"}
    assert rows(folder, "select name, version, status, effective_licence from datasets") == [
        ("sentences", "1", "sealed", "CC0-1.0")
    ]


def test_each_decision_has_its_role_and_a_row_for_each_reason(corpora: Corpora) -> None:
    found = rows(
        corpora("judged"),
        "select distinct d.subject, d.role, r.rule, r.terms_id, r.outcome from decisions d"
        " join decision_reasons r using (decision_no) where stage = 'plan' and r.terms_id like 'corpusgen%'"
        " order by all",
    )
    assert found == [
        ("scripted/judge", "filter", "R09", "corpusgen-scripted", "allow"),
        ("scripted/judge", "judge", "R09", "corpusgen-scripted", "allow"),
        ("scripted/test", "response", "R09", "corpusgen-scripted", "allow"),
    ]


def test_what_was_refused_on_the_way_to_a_record_is_one_of_its_requests(corpora: Corpora) -> None:
    found = rows(
        corpora("passed on"),
        "select r.record_no, teacher_id, role, q.model_served, q.state, q.cost_microusd > 0 from record_requests"
        " join requests q using (request_no) join teachers using (teacher_no) join records r using (record_no)"
        " where r.record_no in (select record_no from record_requests group by 1 having count(*) > 1) order by 2",
    )
    assert [row[1:] for row in found] == [
        ("scripted/first", "response", "first", "answered", True),
        ("scripted/second", "response", "second", "answered", True),
    ]
    (money,) = rows(corpora("passed on"), "select sum(cost_microusd), count(*) from requests")
    with Corpus.open(corpora("passed on")) as corpus:
        assert corpus.journal.query("select sum(microusd), count(*) from calls") == [money]


def test_a_request_that_never_left_is_none(tmp_path: Path) -> None:
    spec = write_several(tmp_path, {"away": failing("not_sent"), "here": saying("well")}, items=3)
    done("run", spec, "--corpus", tmp_path / "corpus", "-q")
    asked = "select teacher_id, state, count(*) from requests join teachers using (teacher_no) group by all"
    found = rows(tmp_path / "corpus", asked)
    assert found == [("scripted/here", "answered", 3)]


def test_a_student_took_the_dataset_for_training_and_calibration_and_neither_holds_gold(corpora: Corpora) -> None:
    folder = corpora("distilled")
    used = rows(folder, "select dataset, role from student_datasets join v_dataset using (dataset_no) order by role")
    assert [role for _, role in used] == ["calibration", "train"]
    assert used[1] == ("kinds-1", "train")
    assert used[0][0].startswith("kinds-validation-")
    asked = "select role, count(*) from record_requests join records using (record_no) group by all"
    assert {role for role, _ in rows(folder, asked)} == {"logprobs"}
    counted = "select status, split, count(*) from dataset_records join datasets using (dataset_no) group by all"
    inside = rows(folder, counted)
    assert sorted(inside) == [("sealed", "train", 30), ("validation", "validation", 12)]
    assert rows(folder, "select count(*) from records") == [(62,)]


def test_a_judge_that_dropped_something_selected_what_is_left(tmp_path: Path) -> None:
    corpus = judged(tmp_path)
    with Corpus.open(corpus) as opened:
        facts = '{"calibration": null, "intended_use": {}}'
        sql = "insert into students select 's1', run_id, 'sentences-1', ?, 1 from runs where task = 'sentences'"
        opened.journal.run_now(lambda transaction: transaction.execute(sql, (facts,)).close())
    found = rows(corpus, "select role from student_datasets order by role")
    assert found == [("selection",), ("train",)]


async def test_an_answer_of_another_corpus_is_a_replay_under_the_terms_of_its_origin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CORPUSGEN_CACHE", str(tmp_path / "cache"))
    async with server(Server().answer) as url:
        await run_sharing(tmp_path / "a", url, items=4)
        await run_sharing(tmp_path / "b", url, items=6)
    sql = "select from_cache, origin_request_no is null, origin_terms_set_no = terms_set_no, origin_sent_time is not"
    sql += " null, cost_microusd > 0, state, count(*) from requests group by all order by 1"
    assert rows(tmp_path / "a" / "corpus", sql) == [(False, True, None, False, True, "answered", 4)]
    assert rows(tmp_path / "b" / "corpus", sql) == [
        (False, True, None, False, True, "answered", 2),
        (True, True, True, True, False, "answered", 4),
    ]
    replayed = "select record from v_record join record_requests using (record_no) join requests using (request_no)"
    ((record,), *_) = rows(tmp_path / "b" / "corpus", f"{replayed} where from_cache order by 1")
    told = corpusgen("why", record, "--corpus", tmp_path / "b" / "corpus").stdout
    assert "R14 judged by the original request's terms" in told
    assert "answered from another corpus of 20" in told


def test_a_second_task_that_asks_the_same_names_the_request_it_was_answered_by(tmp_path: Path) -> None:
    for name in ("one", "two"):
        done("run", write_task(tmp_path / "task", items=3, name=name), "--corpus", tmp_path / "corpus", "-q")
    found = rows(
        tmp_path / "corpus",
        "select runs.task, r.from_cache, origin_runs.task as origin, count(*) from requests r join runs using (run_no)"
        " left join requests origin on origin.request_no = r.origin_request_no"
        " left join runs origin_runs on origin_runs.run_no = origin.run_no group by all order by 1",
    )
    assert found == [("one", False, None, 3), ("two", True, "one", 3)]


def test_sources_stand_with_all_that_is_told_of_them_and_their_classes_with_the_requests(tmp_path: Path) -> None:
    source = {
        "id": "words",
        "title": "Words",
        "licence": "CC-BY-4.0",
        "rightsholder": "Jo Bloggs",
        "acquisition": "licensed",
        "acquired": "2026-01-02",
        "copyright_status": "copyright",
        "personal_data": ["health", "contact"],
        "lawful_basis": "consent",
    }
    use = {"student_distribution": "internal", "student_competes": "no", "commercial": False}
    use["accepted_duties"] = ["attribution"]
    spec = write_task(tmp_path, items=3, sources=[source], intended_use=use)
    done("run", spec, "--corpus", tmp_path / "corpus", "-q")
    found = rows(tmp_path / "corpus", "select rightsholder, acquired, personal_data, lawful_basis from sources")
    assert found == [("Jo Bloggs", date(2026, 1, 2), ["contact", "health"], "consent")]
    assert rows(tmp_path / "corpus", "select distinct personal_data from requests") == [("contact,health",)]
    assert ("Jo Bloggs", "organisation") in rows(tmp_path / "corpus", "select name, kind from agents")
    assert rows(tmp_path / "corpus", "select distinct role from record_sources") == [("seed",)]


NAMES = {
    "provider": "select 'corpusgen'",
    "dataset": "select dataset from v_dataset",
    "student": "select student_id from students",
    "source": "select source_id from sources",
    "rightsholder": "select rightsholder from sources",
    "record": "select record from v_record order by 1",
}
"""What every parameter that a question needs may be in a corpus."""


def needed(question: Question) -> dict[str, str]:
    return {one.name: one.type for one in question.parameters if one.required}


ASKED = [
    (name, number)
    for number, question in sorted(questions().items())
    for name in ("judged", "distilled")
    if name == "distilled" or "student" not in needed(question).values()
]


@pytest.mark.parametrize(("name", "number"), ASKED)
def test_every_question_is_answered_from_a_real_corpus(corpora: Corpora, name: str, number: str) -> None:
    question, folder = questions()[number], corpora(name)
    given = {parameter: str(rows(folder, NAMES[kind])[0][0]) for parameter, kind in needed(question).items()}
    with Corpus.open(folder) as corpus:
        answer = audit_corpus(corpus, question, given, on=date(2026, 11, 22))
    assert answer.result.columns
    assert not answer.violated


def test_questions_about_a_judge_find_it(corpora: Corpora) -> None:
    with Corpus.open(corpora("judged")) as corpus:
        answer = audit_corpus(corpus, questions()["q12"], {"dataset": "sentences-1"}, on=date(2026, 11, 22))
        written = {row[answer.result.columns.index("teacher")] for row in answer.rows}
    assert written == {"scripted/test"}
    with lineage_of(corpora("judged")) as lineage:
        touched = lineage.rows("select distinct role from v_use join dataset_records using (record_no) order by role")
    assert [row["role"] for row in touched] == ["filter", "judge", "response"]


def test_the_lineage_is_written_once_for_each_state_and_deleting_it_loses_nothing(tmp_path: Path) -> None:
    corpus = passed_on(tmp_path)
    with Corpus.open(corpus) as opened:
        folder = trace(opened)
        before = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()}
        trace(opened)
        assert {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()} == before
        for path in folder.iterdir():
            path.unlink()
        trace(opened)
        after = {path.name: path.read_bytes() for path in folder.iterdir()}
        assert after == {name: content for name, (_, content) in before.items()}
    assert not [path for path in corpus.iterdir() if path.name.startswith(f".{FOLDER}") and path.is_dir()]
    done("select", "words", "--corpus", corpus)
    assert rows(corpus, "select name from datasets") == [("words",)]


def test_the_catalog_shows_the_lineage_in_a_schema_of_its_own(tmp_path: Path) -> None:
    corpus = passed_on(tmp_path)
    with Corpus.open(corpus) as opened:
        trace(opened)
    with open_catalog(corpus) as catalog:
        assert catalog.execute("select count(*) from lineage.v_touch").fetchall() == [(7,)]
        assert catalog.execute("select count(*) from records").fetchall() == [(6,)]


RECORDS = "select record, kind, task, licence, shard, input_tokens from v_record join runs using (run_no) order by 1"
REQUESTS = """
select record, lower(hex(request_key)), role, teacher_id, state, from_cache from record_requests
join v_record using (record_no) join requests using (request_no) join teachers using (teacher_no) order by all
"""
SOURCES = """
select record, source_id, role from record_sources join v_record using (record_no) join sources using (source_no)
order by all
"""
NAMED = (RECORDS, REQUESTS, SOURCES)
"""What does not depend on when something happened, or on how often it was tried."""


async def test_after_a_kill_the_lineage_is_that_of_an_undisturbed_run(tmp_path: Path) -> None:
    async with teaching(tmp_path, items=80, latency_s=0.03) as (teacher, task):
        await finish(task, tmp_path / "undisturbed")
        teacher.asked.clear()
        child = await start(task, tmp_path / "killed")
        while not teacher.asked and child.returncode is None:  # noqa: ASYNC110 - nobody tells of the first question
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.05)
        child.send_signal(signal.SIGKILL)
        await child.communicate()
        assert teacher.answered.total() > 0
        await finish(task, tmp_path / "killed")
    for sql in NAMED:
        assert rows(tmp_path / "killed", sql) == rows(tmp_path / "undisturbed", sql)
    assert rows(tmp_path / "killed", "select count(*) from records") == [(80,)]


def test_what_a_record_was_made_from_is_followed_to_who_answered_it(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    done("run", write_several(tmp_path / "one", {"first": saying("a poem")}, items=2), "--corpus", corpus, "-q")
    parents = [row[0] for row in rows(corpus, "select record from v_record order by 1")]
    seeds = {"train": {"path": "poems.jsonl", "source": "words", "parent": "made_from"}}
    spec = write_several(tmp_path / "two", {"second": saying("a review")}, name="reviews", seeds=seeds)
    lines = [{"id": f"p{at}", "word": f"poem {at}", "made_from": parent} for at, parent in enumerate(parents)]
    (tmp_path / "two" / "poems.jsonl").write_bytes(b"\n".join(map(orjson.dumps, lines)))
    done("run", spec, "--corpus", corpus, "-q")
    touched = "select task, teacher_id, count(*) from v_touch join records using (record_no) join runs using (run_no)"
    assert rows(corpus, f"{touched} join teachers using (teacher_no) group by all order by all") == [
        ("reviews", "scripted/first", 2),
        ("reviews", "scripted/second", 2),
        ("words", "scripted/first", 2),
    ]
    assert rows(corpus, "select how, count(*) from record_parents group by all") == [("seed", 2)]


def test_an_erasure_leaves_nothing_of_a_record_but_says_what_it_reached(tmp_path: Path) -> None:
    corpus = passed_on(tmp_path)
    before = {row[0] for row in rows(corpus, "select record from v_record")}
    done("erase", "--source", "words#w0001", "--by", "ana", "--reason", "asked to", "--corpus", corpus)
    after = {row[0] for row in rows(corpus, "select record from v_record")}
    assert (len(before), len(after), after < before) == (6, 5, True)
    assert rows(corpus, "select selector, erased_by, reason, records from erasures") == [
        ("source", "ana", "asked to", 1)
    ]
    gone = corpusgen("why", (before - after).pop(), "--corpus", corpus)
    assert (gone.code, "nobody keeps an id" in gone.stderr) == (2, True)


def test_an_import_has_its_source_its_licence_and_nobody_was_asked(tmp_path: Path) -> None:
    file, corpus = tmp_path / "outside.jsonl", tmp_path / "corpus"
    file.write_text('{"prompt": "Name a bird.", "completion": "A wren."}\n', "utf-8")
    done("import", file, "--dataset", "birds", "--licence", "CC-BY-4.0", "--source-id", "outside",
         "--title", "Birds", "--corpus", corpus)  # fmt: skip
    found = rows(
        corpus,
        "select source_id, licence, route, from_cache, state, terms_id, kind from record_sources"
        " join sources using (source_no) join record_requests using (record_no) join requests using (request_no)"
        " join teachers using (teacher_no) join terms_sets using (terms_set_no) join terms using (terms_id)",
    )
    assert found == [("outside", "CC-BY-4.0", "imported", True, "answered", "CC-BY-4.0", "data_licence")]
    digest = hashlib.sha256(file.read_bytes()).digest()
    assert rows(corpus, "select sha256 from sources") == [(digest,)]


TERMS = """
documents:
  - id: acme-terms-1
    provider: acme
    title: Terms of Acme
    version: '1'
    kind: host_terms
    routes: [mock]
    hosts: [acme.example]
    models: ['nothing-else']
    outputs_train: allowed
    outputs_train_competing: allowed
    commercial_use: allowed
    spdx: LicenseRef-acme-terms
    source: written for the tests
    confidence: high
    reviewed: 2026-11-01
"""


def test_terms_of_a_spec_are_kept_when_no_file_has_them_any_more(tmp_path: Path) -> None:
    corpus, folder = tmp_path / "corpus", tmp_path / "task"
    teacher = {"terms": ["acme-terms-1", "corpusgen-scripted"]}
    spec = write_task(folder, items=2, teacher=teacher, terms_files=["terms.yaml"])
    (folder / "terms.yaml").write_text(TERMS, "utf-8")
    done("run", spec, "--corpus", corpus, "-q")
    done("select", "words", "--corpus", corpus)
    sql = "select title from terms_sets left join terms using (terms_id) where terms_id = 'acme-terms-1'"
    (folder / "terms.yaml").unlink()
    assert rows(corpus, sql) == [("Terms of Acme",)]


@pytest.mark.parametrize("lane", ["live", "batch"])
async def test_who_really_answered_stands_with_the_request_and_so_does_what_was_booked(
    lane: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with mock_teacher(Options(batch_delay_s=0.0)) as mock:
        words = ["one", "fault:wrong-model", "two"]
        await start_batch(tmp_path, write_batch_task(tmp_path, mock.base_url, words, lane=lane), monkeypatch)
    corpus = tmp_path / "corpus"
    served = "select model_served, state, from_cache, count(*) from requests group by all order by 1"
    assert rows(corpus, served) == [("m", "answered", False, 2), ("somebody-else-7b", "answered", False, 1)]
    with Corpus.open(corpus) as opened:
        booked = opened.journal.query("select sum(microusd) from calls")
        assert rows(corpus, "select sum(cost_microusd) from requests") == booked != [(0,)]
        answer = audit_corpus(opened, questions()["q18"], {}, on=date(2026, 11, 22))
    (other,) = [dict(zip(answer.result.columns, row, strict=True)) for row in answer.rows]
    assert (other["model_served"], other["looks_like"], other["records"]) == ("somebody-else-7b", "another model", 1)


def test_what_was_refused_stands_with_its_rule_and_what_it_would_have_cost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-nobody")
    use = {"student_distribution": "weights_released", "student_competes": "yes", "commercial": True}
    teacher = {"name": "openai/gpt-4.1", "script": None, "free": False}
    spec = write_task(tmp_path, items=3, teacher=teacher, intended_use=use, budget={"usd": 1})
    assert corpusgen("run", spec, "--corpus", tmp_path / "corpus", "-q").code == 4
    corpus = tmp_path / "corpus"
    decided = "select stage, subject, role, outcome, estimated_microusd > 0 from decisions"
    assert rows(corpus, decided) == [("plan", "openai/gpt-4.1", "response", "deny", True)]
    assert "R04" in {row[0] for row in rows(corpus, "select rule from decision_reasons where outcome = 'deny'")}
    assert rows(corpus, "select count(*) from requests") == [(0,)]


def test_a_waiver_a_review_and_a_text_stand_beside_what_they_are_about(tmp_path: Path) -> None:
    corpus, terms, letter = tmp_path / "corpus", tmp_path / "acme.yaml", tmp_path / "letter.txt"
    terms.write_text(TERMS.replace(": allowed", ": unclear"), "utf-8")
    letter.write_text("You may.", "utf-8")
    done("terms", "add", terms, "--corpus", corpus)
    done("policy", "waive", "--terms", "acme-terms-1", "--by", "ana", "--reason", "they wrote", "--evidence", letter,
         "--until", "2030-12-31", "--corpus", corpus)  # fmt: skip
    done("terms", "review", "acme-terms-1", "--by", "bob", "--on", "2026-11-20", "--corpus", corpus)
    done("terms", "snapshot", "acme-terms-1", letter, "--corpus", corpus)
    teacher = {"terms": ["acme-terms-1", "corpusgen-scripted"]}
    done("run", write_task(tmp_path / "task", items=1, teacher=teacher), "--corpus", corpus, "-q")
    lifted = "select granted_by, terms_ids, expires from decision_waivers join waivers using (waiver_id)"
    assert rows(corpus, lifted) == [("ana", ["acme-terms-1"], date(2030, 12, 31))]
    read = "select reviewed from terms_reviews where reviewed_by = 'bob'"
    assert rows(corpus, read) == [(date(2026, 11, 20),)]
    held = "select held, text_sha256 from terms_texts where terms_id = 'acme-terms-1'"
    assert rows(corpus, held) == [(True, hashlib.sha256(b"You may.").digest())]
    people = rows(corpus, "select agent_id from agents where kind = 'person' and agent_id in ('ana', 'bob') order by 1")
    assert people == [("ana",), ("bob",)]
    told = corpusgen("why", rows(corpus, "select record from v_record")[0][0], "--corpus", corpus).stdout
    assert "of ana until 2030-12-31: they wrote" in told
    assert "acme-terms-1: Terms of Acme, version 1" in told


def test_a_release_names_who_approved_it_and_the_student(tmp_path: Path) -> None:
    corpus = distilled(tmp_path)
    ((student,),) = rows(corpus, "select student_id from students")
    done("release", student, "--name", "kinds-bag", "--approver", "ana", "--corpus", corpus)
    found = rows(
        corpus, "select name, approver, student_id, withdrawn_time from releases join students using (student_no)"
    )
    assert found == [("kinds-bag", "ana", student, None)]
    inside = "select record from dataset_records join v_record using (record_no) order by 1"
    told = corpusgen("why", rows(corpus, inside)[0][0], "--corpus", corpus).stdout
    assert f"student   {student} took kinds-1 for train" in told
    assert f"of student {student}, approved by ana on" in told
    (weights,) = rows(corpus, "select weights_sha256 from students")
    file = corpus / "students" / student / "student.safetensors"
    assert weights == (hashlib.sha256(file.read_bytes()).digest(),)


def changed_while_read(corpus: Path) -> None:
    with lineage_of(corpus) as lineage:
        lineage.rows("from records")
        done("select", "words", "--corpus", corpus)
        rows(corpus, "from datasets")


def test_a_corpus_that_changes_while_it_is_read_is_not_told_half_old_and_half_new(tmp_path: Path) -> None:
    corpus = passed_on(tmp_path)
    with pytest.raises(StoreError, match="ask again"):
        changed_while_read(corpus)
