"""What is dropped from a pool is decided once, and the same whenever it is decided."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
from flow_samples import open_corpus
from test_curation_flow import written

from corpusgen.corpus import Corpus
from corpusgen.errors import Interrupted
from corpusgen.stages.loading import load_task
from corpusgen.stages.sieving import PORTION, Notes, Sieved, sieved
from corpusgen.stages.task import Task

COPIES = 4
RUN = "r" * 16


def pool() -> list[str]:
    """Texts of which some are copies of earlier ones, near and far."""
    texts = [f"Describe the {n}. lamp on the quay, the one that {word} when the boats come in." for n in range(90)
             for word in ("hums", "flickers", "goes out")]  # fmt: skip
    return [*texts, *(f"Please {text.lower()}" for text in texts[::7]), "A last word on lamps."]


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    folder = tmp_path_factory.mktemp("task")
    return load_task(written(folder, pool(), "  near: {}\n  quality: {length: {min_words: 3, sides: [prompt]}}\n"))


def decided(found: Iterator[Sieved]) -> list[tuple[str, object]]:
    return [(one.seed.item_id, one.findings) for one in found]


def everything(task: Task, corpus: Corpus, run_id: str | None = RUN) -> list[tuple[str, object]]:
    return decided(sieved(task, task.prompter.seeds("train"), Notes(journal=corpus.journal, run_id=run_id)))


@pytest.mark.parametrize(("first", "second"), [(0, 1), (5, 129), (128, 300), (270, 309)])
def test_a_start_that_ended_early_decides_nothing_otherwise(
    first: int, second: int, task: Task, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with open_corpus(tmp_path_factory.mktemp("whole")) as corpus:
        whole = everything(task, corpus)
    with open_corpus(tmp_path_factory.mktemp("broken")) as corpus:
        for stop in (first, second):  # each ends between two items, as a kill does
            notes = Notes(journal=corpus.journal, run_id=RUN)
            list(islice(sieved(task, task.prompter.seeds("train"), notes), stop))
        assert everything(task, corpus) == whole
        rows = corpus.journal.query("select count(*), count(digest) from sieved")
        assert rows == [(len(whole), sum(not findings for _, findings in whole))]


def test_a_second_start_compares_nothing(task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_corpus(tmp_path) as corpus:
        whole = everything(task, corpus)
        assert sum(bool(findings) for _, findings in whole) == len(pool()[:270:7])
        monkeypatch.setattr("corpusgen.stages.repeats.Kept.add", None)
        assert everything(task, corpus) == whole
        assert everything(task, corpus, run_id="another") == whole
        assert corpus.journal.query("select count(*) from drops group by run_id") == [(39,), (39,)]


def test_who_asks_to_stop_waits_for_one_portion_and_loses_none(task: Task, tmp_path: Path) -> None:
    asked = iter([False, True])
    with open_corpus(tmp_path) as corpus:
        notes = Notes(journal=corpus.journal, run_id=RUN, stopping=lambda: next(asked))
        with pytest.raises(Interrupted):
            list(sieved(task, task.prompter.seeds("train"), notes))
        assert corpus.journal.query("select count(*) from sieved") == [(PORTION,)]


def test_looking_writes_nothing(task: Task, tmp_path: Path) -> None:
    with open_corpus(tmp_path) as corpus:
        everything(task, corpus, run_id=None)
        assert corpus.journal.query("select count(*) from sieved") == [(0,)]
