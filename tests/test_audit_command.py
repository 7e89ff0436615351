from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from command import Ran, corpusgen
from task_samples import write_label_task

from corpusgen.corpus import Corpus
from corpusgen.provenance.questions import questions

HOLDER = '=HYPERLINK("http://x")|<img src=x>'
ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A label task that was distilled, its source by somebody whose name is a formula and markup."""
    folder = tmp_path_factory.mktemp("audited")
    spec = write_label_task(folder)
    text, plain = spec.read_text(), "{id: ours, "
    assert plain in text
    spec.write_text(text.replace(plain, f"{plain}rightsholder: '{HOLDER}', ", 1))
    ran = corpusgen("distill", spec, "--corpus", folder / "corpus")
    assert ran.code == 0, ran.stderr
    return folder / "corpus"


def asked(corpus: Path, *arguments: str) -> Ran:
    return corpusgen("audit", *arguments, "--corpus", corpus)


def student(corpus: Path) -> str:
    return str(corpusgen("status", "--corpus", corpus, "--json").object["students"][0]["student_id"])


def record_of(corpus: Path) -> str:
    """A record of the sealed dataset."""
    path = next((corpus / "datasets/kinds-1").rglob("*.parquet"))
    return str(pq.read_table(path, columns=["record_id"])["record_id"][0].as_py())


def test_every_question_is_answered_by_a_corpus_that_was_really_made(corpus: Path) -> None:
    known = {"provider": "corpusgen", "dataset": "kinds-1", "source": "ours", "rightsholder": HOLDER}
    known |= {"student": student(corpus), "record": record_of(corpus)}
    for number, question in questions().items():
        needed = [one for one in question.parameters if one.required]
        options = [word for one in needed for word in (f"--{one.name}", known[one.type])]
        ran = asked(corpus, number, *options, "--json")
        assert ran.code == 0, (number, ran.stderr)
        assert ran.object["notice"].startswith("Not legal advice")


def test_the_teacher_and_the_source_of_the_dataset_are_told(corpus: Path) -> None:
    rows = asked(corpus, "generating-models", "--dataset", "kinds-1", "--json").object["rows"]
    assert [(row["teacher"], row["records"], row["share_of_records"]) for row in rows] == [("scripted/test", 30, 1.0)]
    (item,) = asked(corpus, "q06", "--source", "ours", "--list", "0", "--json").object["rows"][-1:]
    assert (item["what"], item["name"]) == ("student", student(corpus))


def test_that_nothing_comes_from_a_provider_is_an_answer(corpus: Path) -> None:
    ran = asked(corpus, "q01", "--provider", "openai", "--json")
    assert (ran.code, ran.object["rows"]) == (0, [])
    assert "0 rows: none known here" in ran.object["notes"]


def test_a_dataset_with_complete_provenance_passes_its_check(corpus: Path) -> None:
    ran = asked(corpus, "incomplete-provenance", "--dataset", "kinds-1", "--check")
    assert ran.code == 0
    assert "0 rows: none" in ran.stdout


def test_a_violation_ends_with_4_only_where_it_is_checked(corpus: Path, tmp_path: Path) -> None:
    broken = tmp_path / "corpus"
    subprocess.run(["cp", "-r", str(corpus), str(broken)], check=True)
    with Corpus.open(broken) as opened:
        opened.journal.run_now(
            lambda transaction: transaction.execute("update events set kind = 'released' where seq = 1")
        )
    assert asked(broken, "ledger-since").code == 0
    ran = asked(broken, "ledger-since", "--check")
    assert ran.code == 4
    assert "does not hold" in ran.stdout


def test_a_checkpoint_kept_elsewhere_must_fit_and_a_record_is_proved(corpus: Path, tmp_path: Path) -> None:
    kept, forged = tmp_path / "kept.json", tmp_path / "forged.json"
    envelope = corpusgen("checkpoint", "--corpus", corpus, "--json").object["envelope"]
    kept.write_text(envelope)
    record = record_of(corpus)
    ran = asked(corpus, "q20", "--kept", str(kept), "--record", record[:20], "--check", "--json")
    assert (ran.code, ran.object["problems"], ran.object["passes"]) == (0, [], True)
    assert any(f"record {record} is in kinds-1" in note for note in ran.object["notes"])
    signature = json.loads(envelope)
    signature["signatures"][0]["sig"] = "A" * len(signature["signatures"][0]["sig"])
    forged.write_text(json.dumps(signature))
    assert asked(corpus, "q20", "--kept", str(forged), "--check").code == 4
    assert asked(corpus, "q20", "--kept", str(tmp_path / "none.json")).code == 2


def test_a_question_is_found_by_number_and_by_name(corpus: Path) -> None:
    by_number, by_name = (asked(corpus, name, "--dataset", "kinds-1", "--json") for name in ("q04", "licences"))
    assert by_number.object["rows"] == by_name.object["rows"] != []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("relesed-students",), "the nearest are released-students"),
        (("q04", "--dataset", "kinds"), "the nearest are 'kinds-1'"),
        (("q04",), "give --dataset"),
        (("q07", "--record", "zz"), "up to 64 hex digits"),
        (("q05", "--since", "yesterday"), "write it like 2026-01-31"),
        (("q01", "--provider", "' or 1=1 --"), "no provider here is called"),
        (("sql", "q99"), "corpusgen audit list"),
        (("q04", "--dataset", "kinds-1", "--json", "--format", "csv"), "--json prints one object"),
    ],
)
def test_a_wrong_question_is_a_usage_error_that_says_what_to_change(
    arguments: tuple[str, ...], told: str, corpus: Path
) -> None:
    ran = corpusgen("audit", *arguments) if arguments[0] == "sql" else asked(corpus, *arguments)
    assert ran.code == 2
    assert told in ran.stderr or told in ran.stdout


def test_cells_that_look_like_formulas_are_quoted_in_csv_and_markup_is_text_in_markdown(corpus: Path) -> None:
    ran = asked(corpus, "q13", "--student", student(corpus), "--format", "csv")
    assert next(csv.reader(io.StringIO(ran.stdout))) == ["item", "asked", "value"]
    assert "Not legal advice" in ran.stderr
    takedown = asked(corpus, "takedown", "--rightsholder", HOLDER, "--format", "markdown").stdout
    assert "| ours |" in takedown
    assert "<img" not in takedown
    assert "&#60;img src=x&#62;" in takedown


def test_an_answer_goes_to_a_file(corpus: Path, tmp_path: Path) -> None:
    ran = asked(corpus, "licences", "--dataset", "kinds-1", "--format", "markdown", "--out", str(tmp_path / "a.md"))
    assert (ran.code, ran.stdout) == (0, "")
    assert "Not legal advice" in (tmp_path / "a.md").read_text()
    ran = asked(corpus, "licences", "--dataset", "kinds-1", "--format", "json", "--out", str(tmp_path / "a.json"))
    assert json.loads((tmp_path / "a.json").read_text())[0]["comes_from"] == "source"


def test_the_list_names_all_and_the_sql_is_shown() -> None:
    listed = corpusgen("audit", "list").stdout
    assert all(question.name in listed and question.number in listed for question in questions().values())
    assert [one["number"] for one in corpusgen("audit", "list", "--json").object["questions"]] == list(questions())
    assert corpusgen("audit", "sql", "replays").stdout == questions()["q11"].sql
    assert corpusgen("audit", "sql", "replays", "--json").object["sql"] == questions()["q11"].sql
    assert "--provider PROVIDER" in corpusgen("audit", "q01", "--help").stdout


def test_listing_reads_no_library_for_numbers_or_files() -> None:
    asking = "from corpusgen.cli.main import corpusgen; corpusgen.main(['audit', 'list'], 'c', standalone_mode=False)"
    code = f"import sys; {asking}; print('LOADED', *sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"duckdb", "pyarrow", "numpy", "cryptography"} & set(done.stdout.rpartition("LOADED")[2].split())


def test_what_would_be_lost_without_a_provider_is_told(corpus: Path) -> None:
    ran = asked(corpus, "without", "corpusgen")
    assert ran.code == 0, ran.stderr
    assert "lost" in ran.stdout
    assert "Not legal advice" in ran.stdout
    assert asked(corpus, "without", "corpusgen", "--json").object["lost"]["records"] > 0


def test_the_page_tells_every_question_as_its_file_does() -> None:
    page = " ".join((ROOT / "docs/audit.md").read_text().split())
    for question in questions().values():
        assert f"### {question.number.upper()} {question.title}" in page
        assert question.answer in page
        assert f"**Cannot tell:** {question.cannot_tell}" in page
        assert f"corpusgen audit {question.name}" in page
        assert all(f"- `--{one.name}`: " in page for one in question.parameters)


@pytest.mark.slow
def test_a_wheel_carries_every_question(tmp_path: Path) -> None:
    hatchling = pytest.importorskip("hatchling.builders.wheel")
    (path,) = hatchling.WheelBuilder(str(ROOT)).build(directory=str(tmp_path))
    names = {Path(name).name for name in zipfile.ZipFile(path).namelist() if "provenance/audit/" in name}
    assert {name[:3] for name in names if name.endswith(".sql")} == set(questions())
