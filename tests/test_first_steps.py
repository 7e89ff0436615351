"""What somebody meets who uses it for the first time."""

from __future__ import annotations

import asyncio
import re
import signal
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import orjson
import pytest
import yaml
from command import corpusgen
from flow_samples import open_corpus, write_task

from corpusgen.cli.board import work
from corpusgen.errors import Interrupted
from corpusgen.mock.question import tokens_in
from corpusgen.mock.server import mock_teacher
from corpusgen.prompting.seeds import _csv
from corpusgen.stages.watching import Board
from corpusgen.standing import is_another_model
from corpusgen.tokens import count_tokens

DOCS = Path(__file__).parent.parent / "docs"


def mocked(folder: Path, base_url: str, **fields: object) -> Path:
    """A task with the teacher that the guide shows."""
    guide = (DOCS / "mock-teacher.md").read_text()
    shown = yaml.safe_load(re.findall(r"```yaml\n(.*?)```", guide, re.DOTALL)[0])["teachers"][0]
    teacher = shown | {"base_url": base_url, "script": None, "free": False} | fields
    return write_task(folder, items=3, teacher=teacher, budget={"usd": "1"})


async def test_the_spec_of_the_guide_is_planned_and_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOCK_KEY", "any")
    async with mock_teacher() as mock:
        spec, here = mocked(tmp_path, mock.base_url), ("--corpus", str(tmp_path / "corpus"))
        for command in ("plan", "run"):
            told = (command, str(spec), *here, "--json")
            ran = await asyncio.create_subprocess_exec(sys.executable, "-m", "corpusgen", *told, stdout=PIPE)
            out, _ = await ran.communicate()
            assert ran.returncode == 0, out
    found = orjson.loads(out)
    assert (found["records"], found["other_models"]) == (3, {})


def test_status_says_why_items_were_dropped(tmp_path: Path) -> None:
    with open_corpus(tmp_path / "corpus") as corpus:
        insert = (
            "insert into drops(run_id, stage, item_id, reason, detail) values('r', 'ask:train', ?, 'RequestRefused', ?)"
        )
        asyncio.run(corpus.journal.run(lambda at: at.execute(insert, ("a", "prompt is too long")).close()))
    assert "prompt is too long" in corpusgen("status", "--corpus", tmp_path / "corpus").stdout


def test_a_cap_on_a_teacher_nobody_used_and_a_new_corpus_are_told(tmp_path: Path) -> None:
    ran = corpusgen("budget", "set", "teacher:opnai/x", "usd=1", "--corpus", tmp_path / "typo")
    assert "made a new corpus in" in ran.stderr
    assert "nothing here has used 'opnai/x' yet" in ran.stderr


def test_an_export_into_no_folder_names_the_file(tmp_path: Path) -> None:
    open_corpus(tmp_path).close()
    ran = corpusgen("budget", "export", "/nonexistent/x.csv", "--corpus", tmp_path)
    assert ran.code == 2
    assert "/nonexistent/x.csv" in ran.stderr


def test_an_empty_usage_export_says_which_columns_are_needed(tmp_path: Path) -> None:
    open_corpus(tmp_path / "corpus").close()
    (tmp_path / "usage.csv").write_text("id,cost\n")
    ran = corpusgen("reconcile", tmp_path / "usage.csv", "--corpus", tmp_path / "corpus")
    assert ran.code == 2
    assert "nothing was found in it" in ran.stderr
    assert "request_id" in ran.stderr


def test_a_long_text_in_a_csv_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "seeds.csv").write_text("id,text\na," + "x" * 200_000 + "\n")
    assert len(next(_csv(tmp_path / "seeds.csv", ["id", "text"])).values["text"]) == 200_000


def test_the_double_counts_as_the_model_it_plays_does() -> None:
    text = "internationalisation " * 500
    assert tokens_in([text], "gpt-4o-mini") == count_tokens(text, "o200k_base") + tokens_in([""])
    assert tokens_in([text], "mock") == len(text) // 4 + tokens_in([""])


@pytest.mark.parametrize(
    ("served", "another"), [("gpt-4o-2024-08-06", False), ("openai/gpt-4o", False), ("llama-3", True)]
)
def test_an_answer_of_another_model_is_told_from_a_dated_version(served: str, another: bool) -> None:
    assert is_another_model("gpt-4o", served) is another


def test_a_closed_terminal_stops_a_run_in_an_orderly_way() -> None:
    async def job() -> None:
        signal.raise_signal(signal.SIGHUP)
        await asyncio.sleep(30)

    with pytest.raises(Interrupted):
        work(Board(current=lambda: None), job, quiet=True)
