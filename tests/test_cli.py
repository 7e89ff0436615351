from __future__ import annotations

import io
import json
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from command import Ran, corpusgen
from task_samples import write_label_task, write_text_task

from corpusgen.cli.main import COMMANDS

PROMISED = frozenset(
    {
        "requests",
        "labels",
        "teacher_accuracy",
        "student_accuracy",
        "agreement",
        "retention",
        "retention_low",
        "retention_high",
        "gold_items",
        "teacher_cpu_ms",
        "student_cpu_ms",
        "student_cpu_ms_batch1",
        "cost_ratio",
        "wall_s",
        "spent_microusd",
        "tokens",
        "report",
    }
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Ran]:
    """A label task that was distilled: its spec, its corpus and what the command printed."""
    folder = tmp_path_factory.mktemp("finished")
    spec = write_label_task(folder)
    return spec, folder / "corpus", corpusgen("distill", spec, "--corpus", folder / "corpus", "--json")


# --- starting --------------------------------------------------------------------------------------------------------


def test_init_asks_what_the_student_is_for_and_the_task_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = "Sort: letters\nquestion, praise {x}\nhosted\nunknown\ny\nLicenseRef-Own\n"
    monkeypatch.setattr(sys, "stdin", io.StringIO(answers))
    ran = corpusgen("init", tmp_path / "2026", "--json")
    assert ran.code == 0, ran.stderr
    assert ran.object["folder"] == str(tmp_path / "2026")
    assert "Who gets the student" in ran.stderr
    written = (tmp_path / "2026" / "task.yaml").read_text()
    assert "student_distribution: hosted" in written
    assert 'student_competes: "unknown"' in written
    assert "commercial: true" in written
    assert 'licence: "LicenseRef-Own"' in written
    assert corpusgen("plan", tmp_path / "2026" / "task.yaml").code == 0


def test_init_calls_no_foreign_teacher_free(tmp_path: Path) -> None:
    assert corpusgen("init", tmp_path, "--labels", "a,b", *INIT, "--teacher", "endpoint/m").code == 0
    assert "\n    free: true" not in (tmp_path / "task.yaml").read_text()


@pytest.mark.parametrize(
    ("teacher", "written"),
    [
        ("anthropic/claude-haiku-4-5", "{max_tokens: 16}"),
        ("openai/gpt-4.1", "{max_tokens: 16, temperature: 0, top_logprobs: 20}"),
        ("endpoint/m", "{max_tokens: 16, temperature: 0, top_logprobs: 20}"),
    ],
)
def test_init_asks_a_teacher_what_it_can_answer(tmp_path: Path, teacher: str, written: str) -> None:
    assert corpusgen("init", tmp_path / "t", "--labels", "a,b", *INIT, "--teacher", teacher).code == 0
    assert f"parameters: {written}" in (tmp_path / "t" / "task.yaml").read_text()
    assert corpusgen("plan", tmp_path / "t" / "task.yaml").code in ((4,) if "/m" not in teacher else (2,))


def test_everything_a_teacher_cannot_do_is_said_at_once_each_at_its_line(tmp_path: Path) -> None:
    corpusgen("init", tmp_path / "t", "--labels", "a,b", *INIT, "--teacher", "anthropic/claude-haiku-4-5")
    spec = tmp_path / "t" / "task.yaml"
    spec.write_text(
        spec.read_text().replace(
            "{max_tokens: 16}", "\n      max_tokens: 16\n      temperature: 1\n      top_logprobs: 5"
        )
    )
    ran = corpusgen("plan", spec)
    assert ran.code == 2
    line = next(at for at, text in enumerate(spec.read_text().splitlines(), 1) if "temperature" in text)
    assert f"task.yaml:{line}: anthropic/claude-haiku-4-5 does not take parameters.temperature" in ran.stderr
    assert f"task.yaml:{line + 1}: anthropic/claude-haiku-4-5 gives no log-probabilities" in ran.stderr


INIT = (
    "--description",
    "x",
    "--distribution",
    "internal",
    "--competes",
    "no",
    "--not-commercial",
    "--licence",
    "CC0-1.0",
)


def test_init_overwrites_nothing(tmp_path: Path) -> None:
    assert corpusgen("init", tmp_path, "--labels", "a,b", *INIT).code == 0
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    ran = corpusgen("init", tmp_path, "--labels", "c,d", *INIT)
    assert ran.code == 2
    assert "already holds task.yaml" in ran.stderr
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--labels", "one", "at least two"),
        ("--labels", "New York,New Jersey", "begins with the same word"),
        ("--teacher", "x y", "teachers.0.name: must look like"),
    ],
)
def test_init_writes_nothing_that_would_not_load(tmp_path: Path, option: str, value: str, said: str) -> None:
    labels = () if option == "--labels" else ("--labels", "a,b")
    ran = corpusgen("init", tmp_path / "new", *INIT, *labels, option, value)
    assert ran.code == 2
    assert said in ran.stderr
    assert not (tmp_path / "new").exists()


def test_init_without_anybody_to_ask_names_the_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    ran = corpusgen("init", tmp_path / "new", "--json")
    assert ran.code == 2
    assert ran.object["message"] == "--description is needed, and there is nobody to ask"


def test_the_schema_is_json_schema_and_knows_every_field() -> None:
    schema = corpusgen("schema").object
    assert corpusgen("schema", "--json").object == schema
    assert corpusgen("schema", "--json").stdout.count("\n") == 1
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert {"name", "intended_use", "teachers", "budget"} <= set(schema["properties"])
    dollars = schema["$defs"]["Budget"]["properties"]["usd"]["anyOf"]
    assert "number" in {one["type"] for one in dollars}, "editors must not mark usd: 2.50 as wrong"
    assert schema["additionalProperties"] is False


# --- looking ahead ---------------------------------------------------------------------------------------------------


def test_plan_counts_and_makes_nothing(tmp_path: Path) -> None:
    spec = write_label_task(tmp_path)
    found = corpusgen("plan", spec, "--corpus", tmp_path / "corpus", "--json").object
    assert (found["requests"], found["to_send"], found["known"]) == (62, 62, 0)
    assert found["policy"] == "allow"
    assert found["microusd"] == {"low": 0, "likely": 0, "high": 0}
    assert not (tmp_path / "corpus").exists()


def test_plan_for_people_tells_the_same(tmp_path: Path) -> None:
    told = corpusgen("plan", write_text_task(tmp_path), "--budget", "usd=2,tokens=1e6").stdout
    assert "scripted/test: allow" in told
    assert "12 to send; 0 of 12 are answered already" in told


def with_unknown_provider(folder: Path) -> Path:
    spec = write_label_task(folder)
    endpoint = 'endpoint/m\n    base_url: "http://127.0.0.1:9/v1"\n    provider: nobody'
    spec.write_text(spec.read_text().replace("scripted/test\n    script: answers.yaml", endpoint))
    return spec


@pytest.mark.parametrize("command", ["plan", "run", "distill"])
def test_a_teacher_without_terms_is_refused_and_the_message_says_how_to_add_them(tmp_path: Path, command: str) -> None:
    spec = with_unknown_provider(tmp_path)
    ran = corpusgen(command, spec, "--corpus", tmp_path / "corpus", "--json")
    assert ran.code == 4
    assert ran.object["error"] == "PolicyRefused"
    assert f"{spec}:18" in ran.object["message"]
    assert "terms_files" in ran.object["message"]


# --- the main job ----------------------------------------------------------------------------------------------------


def test_distill_ends_with_everything_the_main_job_promises(finished: tuple[Path, Path, Ran]) -> None:
    _, _, ran = finished
    assert ran.code == 0, ran.stderr
    found = ran.object
    assert set(found) >= PROMISED
    assert (found["labels"], found["gold_items"], found["requests"]) == (30, 20, 62)
    assert found["retention_low"] <= found["retention"] <= found["retention_high"]
    assert Path(found["report"]).read_text("utf-8").lstrip().lower().startswith("<!doctype html>")
    assert "[0:0" in ran.stderr, "progress is on stderr"


def test_the_same_command_again_sends_nothing(finished: tuple[Path, Path, Ran]) -> None:
    spec, corpus, first = finished
    again = corpusgen("distill", spec, "--corpus", corpus, "--json", "-q")
    assert again.object["requests"] == 0
    assert again.object["student"] == first.object["student"]
    assert again.stderr == ""


def test_status_keeps_three_figures_of_money_apart(finished: tuple[Path, Path, Ran]) -> None:
    _, corpus, _ = finished
    found = corpusgen("status", "--corpus", corpus, "--json").object
    assert found["records"] == 62
    tokens = next(one for one in found["balances"] if one["unit"] == "tokens" and one["scope"] == "corpus")
    assert tokens["settled"] > 0
    assert (tokens["promised"], tokens["unconfirmed"]) == (0, 0)
    told = corpusgen("status", "--corpus", corpus).stdout
    assert "settled" in told
    assert "microusd" not in told


QUESTION = "select label, count(*), avg(cost_microusd) from records group by label order by label"


def test_a_question_in_sql_is_answered_in_every_format(finished: tuple[Path, Path, Ran], tmp_path: Path) -> None:
    _, corpus, _ = finished
    ask = ("query", QUESTION, "--corpus", corpus)
    assert [row["label"] for row in corpusgen(*ask, "--json").object["rows"]] == ["animal", "plant"]
    assert [row["label"] for row in json.loads(corpusgen(*ask, "--format", "json").stdout)] == ["animal", "plant"]
    assert len(corpusgen(*ask, "--format", "jsonl").stdout.splitlines()) == 2
    assert corpusgen(*ask, "--format", "csv").stdout.startswith("label,")
    assert "animal" in corpusgen(*ask).stdout
    assert corpusgen(*ask, "--format", "parquet", "--out", tmp_path / "out.parquet").code == 0
    assert (tmp_path / "out.parquet").read_bytes()[:4] == b"PAR1"
    assert corpusgen(*ask, "--format", "parquet").code == 2
    assert corpusgen(*ask, "--out", tmp_path / "no" / "such" / "folder").code == 6


HOSTILE = [
    "drop table records",
    "copy (select 1) to '{corpus}/MANIFEST.json'",
    "attach '{corpus}/journal.sqlite' as j",
    "select * from read_text('/etc/passwd')",
    "update records set label = 'x'",
]


@pytest.mark.parametrize("sql", HOSTILE)
def test_no_statement_harms_the_corpus(finished: tuple[Path, Path, Ran], sql: str) -> None:
    _, corpus, _ = finished
    before = {path: path.read_bytes() for path in corpus.rglob("*.parquet")} | {
        0: (corpus / "MANIFEST.json").read_bytes()
    }
    ran = corpusgen("query", sql.format(corpus=corpus), "--corpus", corpus, "--json")
    assert ran.code == 2
    assert ran.object["error"] == "QueryError"
    after = {path: path.read_bytes() for path in corpus.rglob("*.parquet")} | {
        0: (corpus / "MANIFEST.json").read_bytes()
    }
    assert after == before


def contents(corpus: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in [corpus / "MANIFEST.json", *corpus.rglob("*.parquet")]}


def test_a_dataset_goes_from_selection_to_student_step_by_step(
    finished: tuple[Path, Path, Ran], tmp_path: Path
) -> None:
    spec, corpus, _ = finished
    here = ("--corpus", corpus, "--json")
    selected = corpusgen("select", "kinds", "--min-confidence", "0.6", "--limit", "20", *here).object
    assert (selected["rows"], selected["status"]) == (20, "selected")
    label = selected["dataset"]
    unsealed = corpusgen("export", label, tmp_path / "chat.jsonl", "--to", "chat", *here)
    assert (unsealed.code, unsealed.object["error"]) == (6, "SealRefused")
    sealed = corpusgen("seal", label, "--spec", spec, *here).object
    assert sealed["rows"] == 20
    assert corpusgen("export", label, tmp_path / "chat.jsonl", "--to", "chat", *here).object["rows"] == 20
    trained = corpusgen("train", label, "--spec", spec, *here).object
    judged = corpusgen("evaluate", spec, "--student", trained["student"], *here).object
    assert judged["gold_items"] == 20
    assert judged["requests"] == 0


def test_a_student_labels_texts_one_object_a_line(finished: tuple[Path, Path, Ran], tmp_path: Path) -> None:
    _, corpus, _ = finished
    texts = tmp_path / "texts.txt"
    texts.write_text("a cat by the river\na fern in a painting\n", "utf-8")
    ran = corpusgen("predict", "--file", texts, "--corpus", corpus, "--json")
    assert [json.loads(line)["label"] for line in ran.stdout.splitlines()] == ["animal", "plant"]
    assert corpusgen("predict", "an oak", "--corpus", corpus).stdout.startswith("plant\t")


def test_texts_in_another_encoding_are_named(finished: tuple[Path, Path, Ran], tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_bytes("café".encode("latin-1"))
    ran = corpusgen("predict", "--file", tmp_path / "texts.txt", "--corpus", finished[1], "--json")
    assert (ran.code, ran.object["message"]) == (2, "--file: is not UTF-8 text; save it as UTF-8")


def test_teachers_are_listed_and_checked(finished: tuple[Path, Path, Ran]) -> None:
    spec, _, _ = finished
    offered = {one["name"]: one for one in corpusgen("teachers", "list", "--json").object["teachers"]}
    assert offered["embedded/smollm2-135m"]["free"] is True
    assert "scripted/NAME" in corpusgen("teachers", "list").stdout
    assert corpusgen("teachers", "check", spec, "--json").object["policy"] == "allow"
    assert "policy" in corpusgen("teachers", "check", spec).stdout


def test_free_text_goes_the_whole_way_and_truncated_answers_are_left_out(tmp_path: Path) -> None:
    spec, here = write_text_task(tmp_path), ("--corpus", tmp_path / "corpus", "--json")
    found = corpusgen("distill", spec, *here).object
    assert (found["requests"], found["records"]) == (12, 11)
    counted = "count(*) filter (truncated) as cut, min(len(token_logprobs)) as least, max(topk_len[1]) as top"
    sql = f"select {counted} from records"
    assert corpusgen("query", sql, *here).object["rows"] == [{"cut": 1, "least": 5, "top": 1}]
    refused = corpusgen("train", "sentences", "--spec", spec, *here)
    assert (refused.code, refused.object["error"]) == (2, "UsageError")
    assert "labels" in refused.object["message"]
    assert corpusgen("evaluate", spec, *here).code == 2
    kept = corpusgen("select", "sentences", "--keep-truncated", *here).object
    assert kept["rows"] == 12


# --- how commands end ------------------------------------------------------------------------------------------------


WRONG_USAGE = [("run",), ("query",), ("plan", "x", "--budget"), ("nonsense",), ("plan", "--nonsense", "x")]


@pytest.mark.parametrize("arguments", WRONG_USAGE)
def test_wrong_usage_is_one_json_object_too(arguments: tuple[str, ...]) -> None:
    ran = corpusgen(*arguments, "--json")
    assert ran.code == 2
    assert ran.object["exit_code"] == 2


@pytest.mark.parametrize("budget", ["", "dollars=5", "usd", "usd=", "tokens=-1", "usd=nan", "usd=1e999", "usd=1,usd=2"])
def test_a_budget_that_cannot_be_read_is_refused(tmp_path: Path, budget: str) -> None:
    ran = corpusgen("plan", write_label_task(tmp_path), "--budget", budget)
    assert ran.code == 2
    assert "--budget" in ran.stderr


@pytest.mark.parametrize("command", [("status",), ("query", "select 1"), ("predict", "x"), ("select", "kinds")])
def test_reading_a_corpus_that_is_not_there_makes_none(tmp_path: Path, command: tuple[str, ...]) -> None:
    ran = corpusgen(*command, "--corpus", tmp_path / "corpus", "--json")
    assert (ran.code, ran.object["error"]) == (2, "UsageError")
    assert not (tmp_path / "corpus").exists()


def test_a_spent_budget_keeps_what_was_paid_for_and_more_goes_on(tmp_path: Path) -> None:
    spec, corpus = write_label_task(tmp_path), tmp_path / "corpus"
    stopped = corpusgen("run", spec, "--corpus", corpus, "--budget", "requests=20", "--json", "-q")
    assert (stopped.code, stopped.object["error"]) == (3, "BudgetExhausted")
    assert "--budget requests: the cap of 20" in stopped.object["message"]
    assert corpusgen("status", "--corpus", corpus, "--json").object["records"] == 20
    assert corpusgen("run", spec, "--corpus", corpus, "--json", "-q").object["requests"] == 22


def test_items_without_an_answer_end_with_their_own_code(tmp_path: Path) -> None:
    spec = write_label_task(tmp_path)
    script = tmp_path / "answers.yaml"
    kept = [line for line in script.read_text().splitlines(keepends=True) if "fern" not in line]
    script.write_text("".join(kept) + '  - {contains: fern, error: {kind: refused, message: "\\e[31mno"}}\n')
    ran = corpusgen("run", spec, "--corpus", tmp_path / "corpus", "--json", "-q")
    assert (ran.code, ran.object["error"]) == (5, "PartialFailure")
    assert "have no answer" in ran.object["message"]


def test_a_corpus_of_a_newer_corpusgen_is_left_alone(tmp_path: Path) -> None:
    spec, corpus = write_label_task(tmp_path), tmp_path / "corpus"
    corpusgen("run", spec, "--corpus", corpus, "-q")
    with closing(sqlite3.connect(corpus / "journal.sqlite")) as journal, journal:
        journal.execute("pragma user_version = 999")
        journal.execute("update meta set value = '999' where name like '%version%'")
    before = (corpus / "journal.sqlite").read_bytes()
    for command in (("run", spec), ("plan", spec), ("status",)):
        ran = corpusgen(*command, "--corpus", corpus, "--json")
        assert (ran.code, ran.object["error"]) == (6, "CorpusTooNew")
    assert (corpus / "journal.sqlite").read_bytes() == before


# --- processes -------------------------------------------------------------------------------------------------------


def start(*arguments: str | Path, **options: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "corpusgen", *map(str, arguments)]
    return subprocess.Popen(command, stdout=-1, stderr=-1, text=True, **options)  # type: ignore[call-overload,no-any-return]


def wait_for(corpus: Path, rows: str, least: int) -> None:
    """Until the journal of a corpus that is being worked on has so many rows of a table."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            with closing(sqlite3.connect(f"file:{corpus}/journal.sqlite?mode=ro", uri=True)) as journal:
                if journal.execute(f"select count(*) from {rows}").fetchone()[0] >= least:
                    return
        except sqlite3.OperationalError:
            pass
        time.sleep(0.05)
    raise AssertionError(f"no {least} {rows} in {corpus}")


def test_ctrl_c_keeps_what_was_answered_and_the_same_command_goes_on(tmp_path: Path) -> None:
    spec, corpus = write_label_task(tmp_path, latency_s=0.2), tmp_path / "corpus"
    spec.write_text(spec.read_text().replace("free: true", "free: true\n    in_flight: 2"))
    process = start("run", spec, "--corpus", corpus, "--json")
    wait_for(corpus, "records", 4)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert json.loads(out)["error"] == "Interrupted"
    assert "Ctrl-C again cuts them off" in err
    found = corpusgen("status", "--corpus", corpus, "--json").object
    assert found["in_flight"] == 0
    kept = found["records"]
    assert 4 <= kept < 42
    again = corpusgen("run", spec, "--corpus", corpus, "--json", "-q").object
    assert (again["requests"], again["known"]) == (42 - kept, kept)


def test_a_second_ctrl_c_cuts_calls_off_and_they_count_in_full(tmp_path: Path) -> None:
    spec, corpus = write_label_task(tmp_path, latency_s=3.0), tmp_path / "corpus"
    process = start("run", spec, "--corpus", corpus, "--json")
    wait_for(corpus, "calls", 22)  # validation is answered, the first round is asked
    assert process.stderr is not None
    process.send_signal(signal.SIGINT)
    while "Ctrl-C again" not in (line := process.stderr.readline()):
        assert line, "it ended by itself"
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "count in full until they are reconciled" in json.loads(out)["message"]
    requests = next(one for one in balances(corpus) if one["unit"] == "requests" and one["scope"] == "corpus")
    assert (requests["settled"] + requests["unconfirmed"], requests["promised"]) == (22, 0)
    assert requests["unconfirmed"] > 0


def balances(corpus: Path) -> list[dict[str, Any]]:
    found = corpusgen("status", "--corpus", corpus, "--json").object["balances"]
    assert isinstance(found, list)
    return found


def test_two_processes_on_one_corpus_make_one_dataset_and_one_student(tmp_path: Path) -> None:
    spec, corpus = write_label_task(tmp_path, latency_s=0.05), tmp_path / "corpus"
    both = [start("distill", spec, "--corpus", corpus, "-q", "--json") for _ in range(2)]
    ended = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], ended
    made = [json.loads(out) for out, _ in ended]
    assert made[0]["dataset"] == made[1]["dataset"]
    assert made[0]["student"] == made[1]["student"]
    found = corpusgen("status", "--corpus", corpus, "--json").object
    assert (found["records"], len(found["datasets"]), len(found["students"])) == (62, 1, 1)
    rows = corpusgen("query", "select count(distinct record_id) as n from records", "--corpus", corpus, "--json").object
    assert rows["rows"] == [{"n": 62}]


@pytest.mark.parametrize("room", [4_096, 200_000])
def test_a_full_disk_is_named_and_the_same_command_goes_on(tmp_path: Path, room: int) -> None:
    spec, corpus = write_label_task(tmp_path), tmp_path / "corpus"

    def small_disk() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))

    process = start("run", spec, "--corpus", corpus, "-q", "--json", preexec_fn=small_disk)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 6, err
    assert json.loads(out)["error"] == "CorpusUnwritable"
    assert "Traceback" not in err
    assert corpusgen("run", spec, "--corpus", corpus, "-q", "--json").code == 0
    assert corpusgen("status", "--corpus", corpus, "--json").object["records"] == 42


def test_output_is_plain_without_a_terminal_and_help_names_every_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "corpusgen", "--help"],
        capture_output=True,
        text=True,
        env={**os.environ, "NO_COLOR": "1"},
    )
    assert "\x1b" not in done.stdout
    assert all(f"  {name}" in done.stdout for name in COMMANDS)
    assert "130 interrupted" in " ".join(done.stdout.split())


def test_a_reader_that_leaves_early_is_no_error() -> None:
    process = subprocess.run(
        f"{sys.executable} -m corpusgen schema | head -1", shell=True, capture_output=True, text=True
    )
    assert process.stdout == "{\n"
    assert process.stderr == ""


def test_labels_may_be_any_words_in_any_script(tmp_path: Path) -> None:
    spec = write_label_task(tmp_path, labels=("Großes Tier", "植物 🌿"))
    found = corpusgen("distill", spec, "--corpus", tmp_path / "corpus", "--json", "-q").object
    assert found["teacher_accuracy"] == 1.0
    labelled = corpusgen("predict", "a cat by the river", "--corpus", tmp_path / "corpus", "--json").object
    assert labelled["label"] == "Großes Tier"
