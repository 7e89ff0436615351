"""Erasing beside our own files: what others put below a corpus, and files whose rows came in by import."""

from __future__ import annotations

import gzip
import html
import shutil
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest
from command import corpusgen
from erasure_samples import places
from flow_samples import write_task
from import_samples import bring_in, records_of, write_csv, write_jsonl

from corpusgen.corpus import Corpus
from corpusgen.stages.verifying import verify

LONG = 'the "old" house of Zebulon & sons | by the river'
SHORT = "Jon Doe"
WORDS = (LONG, SHORT, "barn")
ROWS = [
    {"input": "Who is Zebulon Quackenbush?", "response": "He lives in a barn."},
    {"input": "What is a mill?", "response": "A house that grinds."},
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("beside")
    task = write_task(root / "task", items=3)
    write_jsonl(root / "task" / "words.jsonl", [{"id": f"w{at}", "word": word} for at, word in enumerate(WORDS)])
    ran = corpusgen("run", task, "--corpus", root / "corpus", "-q")
    assert ran.code == 0, ran.stderr
    return root / "corpus"


@pytest.fixture
def corpus(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "corpus")
    return tmp_path / "corpus"


def erased(corpus: Path, *selector: str) -> dict[str, object]:
    ran = corpusgen("erase", *selector, "--by", "me", "--corpus", corpus, "--json")
    assert ran.code == 0, ran.stderr
    return ran.object


CONTAINERS: dict[str, Callable[[Path, str], object]] = {
    "a.csv": lambda path, text: write_csv(path, [{"a": "x", "b": text}]),
    "a.jsonl": lambda path, text: write_jsonl(path, [{"a": {"b": text}}]),
    "a.html": lambda path, text: path.write_text(f"<td>{html.escape(text)}</td>"),
    "a.jsonl.gz": lambda path, text: path.write_bytes(gzip.compress(orjson.dumps({"a": text}))),
}


@pytest.mark.parametrize("text", [LONG, SHORT])
@pytest.mark.parametrize("name", CONTAINERS)
def test_files_of_others_are_found_however_they_write_it(name: str, text: str, corpus: Path) -> None:
    for folder in ("exports", "datasets", "shards", "students"):
        (corpus / folder / "of-others").mkdir(parents=True)
        CONTAINERS[name](corpus / folder / "of-others" / name, text)
    CONTAINERS[name](corpus / "exports" / f"other-{name}", f"{text}r" if text == SHORT else "the house")
    erased(corpus, "--source", f"words#w{WORDS.index(text)}")
    assert list(corpus.rglob(f"of-others/{name}")) == []
    assert (corpus / "exports" / f"other-{name}").exists()


def test_a_backup_of_the_journal_is_looked_into_and_what_cannot_be_is_told(corpus: Path) -> None:
    shutil.copy(corpus / "journal.sqlite", corpus / "journal.sqlite.bak")
    (corpus / "exports").mkdir()
    (corpus / "exports" / "all.zip").write_bytes(b"PK\x03\x04 and so on")
    report = erased(corpus, "--subject", "Zebulon & sons")
    assert not (corpus / "journal.sqlite.bak").exists()
    assert "ZIP" in str(report["kept"])
    assert places(corpus, "Zebulon & sons") == []


def test_a_backup_without_it_stays(corpus: Path) -> None:
    (corpus / "other").mkdir()
    with Corpus.open(corpus / "other"):
        pass
    shutil.move(corpus / "other" / "journal.sqlite", corpus / "journal.sqlite.bak")
    shutil.rmtree(corpus / "other")
    erased(corpus, "--subject", "Zebulon & sons")
    assert (corpus / "journal.sqlite.bak").exists()


def test_no_digest_of_an_imported_file_is_left(tmp_path: Path) -> None:
    import hashlib

    file, corpus = write_jsonl(tmp_path / "rows.jsonl", ROWS), tmp_path / "corpus"
    assert bring_in(corpus, file).code == 0
    erased(corpus, "--subject", "Zebulon Quackenbush")
    (again,) = bring_in(tmp_path / "guessed", file).object["imports"]
    for digest in (hashlib.sha256(file.read_bytes()).hexdigest(), again["import_id"], again["import_id"][:12]):
        assert places(corpus, digest) == []
    with Corpus.open(corpus, reading=True) as opened:
        assert verify(opened) == []


def test_the_same_file_again_adds_nothing_before_and_after_an_erasure(tmp_path: Path) -> None:
    file, corpus = write_jsonl(tmp_path / "rows.jsonl", ROWS), tmp_path / "corpus"
    told = [bring_in(corpus, file).object["imports"][0] for _ in range(2)]
    assert (told[0]["import_id"], told[1]["added"]) == (told[1]["import_id"], 0)
    erased(corpus, "--subject", "Zebulon Quackenbush")
    (again,) = bring_in(corpus, file).object["imports"]
    assert (again["added"], again["erased"], len(records_of(corpus))) == (0, 1, 1)


def test_an_erased_row_without_an_id_does_not_come_back_when_its_file_grows(tmp_path: Path) -> None:
    file, corpus = write_jsonl(tmp_path / "rows.jsonl", ROWS), tmp_path / "corpus"
    bring_in(corpus, file)
    erased(corpus, "--subject", "Zebulon Quackenbush")
    write_jsonl(file, [*ROWS, {"input": "What is a ship?", "response": "A house at sea."}])
    ran = bring_in(corpus, file)
    assert (ran.code, "--cleaned" in ran.stderr, places(corpus, "Zebulon")) == (2, True, [])
    write_jsonl(file, [{"input": "What is a ship?", "response": "A house at sea."}])
    (more,) = bring_in(corpus, file, cleaned=True).object["imports"]
    assert (more["added"], places(corpus, "Zebulon")) == (1, [])
