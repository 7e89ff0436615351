"""What the stages owe each other: rights follow records, odd teachers and tiny jobs are seen through to the end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from task_samples import write_label_task

from corpusgen.corpus import Corpus
from corpusgen.errors import SealRefused, SpecError, UsageError
from corpusgen.pipeline import Distillation, distill, evaluate_student, generate, run_task
from corpusgen.records import Json
from corpusgen.stages.loading import load_task
from corpusgen.stages.sealing import seal
from corpusgen.stages.selecting import Filters, select
from corpusgen.stages.task import connect
from corpusgen.stages.terms.deciding import decision_for
from corpusgen.stages.training import find_student
from corpusgen.store.shards import read_columns


@pytest.fixture
def corpus(tmp_path: Path) -> Iterator[Corpus]:
    with Corpus.open(tmp_path / "corpus") as opened:
        yield opened


def edited(spec: Path, *changes: tuple[str, str]) -> Path:
    """The spec with some of its text replaced."""
    text = spec.read_text("utf-8")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    spec.write_text(text, "utf-8")
    return spec


def distilled(spec: Path, corpus: Corpus) -> tuple[Distillation, dict[str, Json]]:
    job = Distillation(task=load_task(spec), corpus=corpus)
    return job, asyncio.run(distill(job))


def statuses(corpus: Corpus) -> list[str]:
    return [row[0] for row in corpus.journal.query("select status from runs order by started_us")]


@pytest.mark.parametrize(
    ("change", "what"),
    [(("licence: CC0-1.0", "licence: MIT"), "licence"), (("name: scripted/test", "name: scripted/other"), "teacher")],
)
def test_records_are_not_sealed_under_the_rights_of_another_spec(
    tmp_path: Path, corpus: Corpus, change: tuple[str, str], what: str
) -> None:
    asyncio.run(run_task(load_task(write_label_task(tmp_path / "a")), corpus, opened=[]))
    other = load_task(edited(write_label_task(tmp_path / "b"), change))
    chosen = select(corpus, "kinds", filters=Filters())
    decision = decision_for(corpus, other, connect(other, corpus.clock).card, corpus.clock().date())
    with pytest.raises(SealRefused, match=what):
        seal(corpus, other, chosen, decision)


def test_records_with_different_labels_make_no_dataset(tmp_path: Path, corpus: Corpus) -> None:
    asyncio.run(run_task(load_task(write_label_task(tmp_path / "a")), corpus, opened=[]))
    other = write_label_task(tmp_path / "b", labels=("beast", "plant"), pool=48, limit=48)
    edited(other, ("max_tokens: 1", "max_tokens: 2"))
    asyncio.run(run_task(load_task(other), corpus, opened=[]))
    with pytest.raises(UsageError, match="--run"):
        select(corpus, "kinds", filters=Filters())


def test_a_teacher_without_log_probabilities_teaches_by_what_it_writes(tmp_path: Path, corpus: Corpus) -> None:
    spec = write_label_task(tmp_path)
    answers = spec.with_name("answers.yaml")
    lines = [
        line.replace('"label_logprobs": {"animal": -0.2', '"text": " animal", "reasoning": null}#')
        for line in answers.read_text().splitlines()
    ]
    lines = [
        line.replace('"label_logprobs": {"animal": -2.5', '"text": " plant", "reasoning": null}#') for line in lines
    ]
    answers.write_text("\n".join(line.split("#")[0] for line in lines) + "\n")
    job, found = distilled(edited(spec, (", top_logprobs: 5", "")), corpus)
    assert found["teacher_accuracy"] == 1.0
    assert job.sealed is not None
    columns = read_columns(job.sealed.files, ["calibrated_label", "label_logprobs"]).to_pydict()
    assert set(columns["calibrated_label"]) == {"animal", "plant"}
    assert set(map(str, columns["label_logprobs"])) == {"None"}


@pytest.mark.parametrize("order", ["margin", "file", "random"])
def test_one_item_is_enough_to_get_to_the_end(tmp_path: Path, corpus: Corpus, order: str) -> None:
    spec = edited(write_label_task(tmp_path, limit=1), ("first_round: 10", f"order: {order}, first_round: 10"))
    _, found = distilled(spec, corpus)
    assert found["labels"] == 1
    assert statuses(corpus) == ["complete"]


def test_confidence_is_known_without_validation(tmp_path: Path, corpus: Corpus) -> None:
    spec = edited(
        write_label_task(tmp_path), ("  validation: {path: validation.jsonl, source: ours, gold: label}\n", "")
    )
    asyncio.run(run_task(load_task(spec), corpus, opened=[]))
    with pytest.raises(UsageError, match="below min_confidence"):
        select(corpus, "kinds", filters=Filters(min_confidence=0.999))
    chosen = select(corpus, "kinds", filters=Filters(min_confidence=0.8))
    assert chosen.funnel["kept"] == 30


def test_evaluating_without_gold_sends_nothing(tmp_path: Path, corpus: Corpus) -> None:
    spec = write_label_task(tmp_path)
    distilled(spec, corpus)
    calls = corpus.journal.query("select count(*) from calls")
    task = load_task(
        edited(spec, ("  gold: {path: gold.jsonl, source: ours, gold: label}\n", ""), ("limit: 30", "limit: 31"))
    )
    with pytest.raises(SpecError, match="gold"):
        asyncio.run(evaluate_student(task, corpus, find_student(corpus, None), opened=[]))
    assert corpus.journal.query("select count(*) from calls") == calls


def test_a_run_ends_complete_or_stopped(tmp_path: Path, corpus: Corpus) -> None:
    task = load_task(write_label_task(tmp_path))

    async def read_all() -> int:
        async with generate(task, corpus) as records:
            return len([record async for record in records])

    async def break_off() -> None:
        async with generate(task, corpus) as records:
            async for _ in records:
                raise LookupError

    with pytest.raises(LookupError):
        asyncio.run(break_off())
    assert statuses(corpus) == ["stopped"]
    assert asyncio.run(read_all()) == 30
    assert statuses(corpus) == ["complete"]
