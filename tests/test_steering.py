"""Asking in rounds until the next is not worth it: the same rounds however often it is interrupted."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import orjson
import pytest
from flow_samples import open_corpus, states, violations
from task_samples import write_label_task, write_text_task

from corpusgen.corpus import Corpus
from corpusgen.curation.stopping import Point, expected_gain
from corpusgen.errors import SpecError
from corpusgen.fields import Unit
from corpusgen.pipeline import Distillation, distill, run_task
from corpusgen.records import Json
from corpusgen.stages.asking import Asked, ask_for_labels
from corpusgen.stages.loading import load_task
from corpusgen.stages.opening import open_run
from corpusgen.stages.report.material import funnel

CHILD = Path(__file__).parent / "steering_child.py"
ACTIVE = "active: {first: 10, round: 10, most: 50, stop: null}"


def write_active_task(folder: Path, active: str = ACTIVE, *, pool: int = 120, latency_s: float = 0.0) -> Path:
    """A label task that asks in rounds, and says nothing of it under asking."""
    spec = write_label_task(folder, pool=pool, latency_s=latency_s, more=f"curate:\n  {active}\n")
    return edited(spec, ("asking: {limit: 30, first_round: 10, round: 10}", "asking: {samples: 1}"))


def edited(spec: Path, *changes: tuple[str, str]) -> Path:
    text = spec.read_text("utf-8")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    spec.write_text(text, "utf-8")
    return spec


@pytest.fixture
def corpus(tmp_path: Path) -> Iterator[Corpus]:
    with open_corpus(tmp_path / "corpus") as opened:
        yield opened


def asked_for(spec: Path, corpus: Corpus, caps: dict[Unit, int] | None = None, later: int = 0) -> Asked:
    async def ask() -> Asked:
        async with open_run(load_task(spec), corpus, caps=caps, on_failure="drop") as run:
            return await ask_for_labels(run, later=later)

    return asyncio.run(ask())


def decisions(corpus: Corpus) -> list[dict[str, Json]]:
    """What was decided before each round, in order."""
    rows = corpus.journal.query("select subject, outcome, decision from decisions where stage = 'asking'")
    return [{"subject": subject, "outcome": outcome} | orjson.loads(text) for subject, outcome, text in rows]


def rounds_of(corpus: Corpus) -> list[list[str]]:
    return [one["items"] for one in decisions(corpus) if one["outcome"] == "ask"]


def test_every_round_is_written_down_with_what_it_was_decided_by(tmp_path: Path, corpus: Corpus) -> None:
    found = asked_for(write_active_task(tmp_path), corpus)
    told = decisions(corpus)
    assert [one["subject"] for one in told] == [f"round {number}" for number in range(1, 7)]
    assert [one["outcome"] for one in told] == ["ask"] * 5 + ["end"]
    assert [len(one["items"]) for one in told] == [10, 10, 10, 10, 10, 0]
    assert [one["labels"] for one in told] == [0, 10, 20, 30, 40, 50]
    figures = (told[3]["measured"]["items"], told[3]["expected"]["block"], told[3]["cost"]["requests"])
    assert figures == (12, 10, 10)
    assert found.ended == told[-1]["reason"] == "50 labels are the most that the spec wants"


def test_no_item_is_asked_about_twice(tmp_path: Path, corpus: Corpus) -> None:
    asked_for(write_active_task(tmp_path), corpus)
    every = [item for one in rounds_of(corpus) for item in one]
    assert len(set(every)) == len(every) == 50


def test_the_first_round_is_the_random_sample_of_the_same_seed_without_steering(tmp_path: Path) -> None:
    with open_corpus(tmp_path / "one") as one, open_corpus(tmp_path / "two") as two:
        asked_for(write_active_task(tmp_path / "a"), one)
        at_random = asked_for(write_label_task(tmp_path / "b", pool=120), two)
        assert rounds_of(one)[0] == [item.item.item_id for item in at_random.train[:10]]


def test_asking_again_sends_nothing_and_decides_nothing(tmp_path: Path, corpus: Corpus) -> None:
    spec = write_active_task(tmp_path)
    first = asked_for(spec, corpus)
    told, calls = decisions(corpus), corpus.journal.query("select count(*) from calls where role <> 'train'")
    second = asked_for(spec, corpus)
    assert corpus.journal.query("select count(*) from calls where role <> 'train'") == calls
    assert decisions(corpus) == told
    assert [item.record_id for item in second.train] == [item.record_id for item in first.train]


def test_what_was_decided_is_asked_though_today_it_would_be_decided_otherwise(tmp_path: Path, corpus: Corpus) -> None:
    spec = write_active_task(tmp_path)
    asked_for(spec, corpus)
    other = ["t1", "t3", "t5"]
    changed = json.dumps({**decisions(corpus)[2], "items": other})

    def change(transaction: object) -> None:
        transaction.execute("delete from decisions where stage = 'asking' and subject > 'round 3'")  # type: ignore[attr-defined]
        sql = "update decisions set decision = ? where stage = 'asking' and subject = 'round 3'"
        fields = {name: value for name, value in json.loads(changed).items() if name not in ("subject", "outcome")}
        transaction.execute(sql, (json.dumps(fields),))  # type: ignore[attr-defined]

    corpus.journal.run_now(change)
    found = asked_for(spec, corpus)
    assert [item.item.item_id for item in found.train[20:23]] == other


def test_the_order_of_the_pools_rows_decides_nothing(tmp_path: Path) -> None:
    spec = write_active_task(tmp_path)
    with open_corpus(tmp_path / "one") as one:
        asked_for(spec, one)
        rows = (tmp_path / "pool.jsonl").read_text().splitlines()
        random.Random(3).shuffle(rows)
        (tmp_path / "pool.jsonl").write_text("\n".join(rows) + "\n")
        with open_corpus(tmp_path / "two") as two:
            asked_for(spec, two)
            assert rounds_of(two) == rounds_of(one)


@pytest.mark.parametrize("by", ["[uncertainty]", "[diversity]"])
def test_a_round_can_be_chosen_by_one_ground_alone(tmp_path: Path, corpus: Corpus, by: str) -> None:
    found = asked_for(write_active_task(tmp_path, f"active: {{first: 10, round: 10, most: 30, by: {by}}}"), corpus)
    assert [one.chosen_by for one in found.rounds] == ["random", by.strip("[]"), by.strip("[]")]


def test_it_stops_where_the_next_round_would_gain_too_little(tmp_path: Path, corpus: Corpus) -> None:
    active = "active: {first: 10, round: 10, most: 100, stop: {below: 0.2, patience: 2}}"
    spec = write_active_task(tmp_path, active)
    found = asked_for(spec, corpus)
    assert [one.labels for one in found.rounds] == [10, 20, 30, 40]
    assert found.ended is not None
    assert "points of agreement, less than 20, for 2 rounds in a row" in found.ended
    assert decisions(corpus)[-1]["outcome"] == "stop"
    assert asked_for(spec, corpus).ended == found.ended


def test_it_ends_when_everything_was_asked(tmp_path: Path, corpus: Corpus) -> None:
    found = asked_for(write_active_task(tmp_path, pool=25), corpus)
    assert found.ended == "the whole pool was asked about"
    assert len(found.train) == 25


def test_it_ends_where_the_budget_does_not_buy_another_round_and_what_comes_after(
    tmp_path: Path, corpus: Corpus
) -> None:
    spec = write_active_task(tmp_path)
    found = asked_for(spec, corpus, caps={"requests": 12 + 45}, later=10)
    assert [one.labels for one in found.rounds] == [10, 20, 30]
    assert found.ended is not None
    assert "requests of run:" in found.ended
    assert asked_for(spec, corpus, caps={"requests": 12 + 45}, later=0).ended == found.ended
    more = asked_for(spec, corpus, caps={"requests": 1000}, later=10)
    assert [one.labels for one in more.rounds] == [10, 20, 30, 40, 50]


def test_without_validation_students_are_judged_on_the_random_sample(tmp_path: Path, corpus: Corpus) -> None:
    spec = write_active_task(tmp_path)
    edited(spec, ("  validation: {path: validation.jsonl, source: ours, gold: label}\n", ""))
    asked_for(spec, corpus)
    assert {one["measured"]["items"] for one in decisions(corpus)[1:]} == {10}


@pytest.mark.parametrize(
    ("asking", "what"),
    [
        ("order: random", "asking.order: is random here, and curate.active asks in rounds; remove one"),
        ("limit: 70", "asking.limit: is 70 here, and curate.active says most: 50; remove one"),
        ("first_round: 11", "asking.first_round: is 11 here, and curate.active says first: 10; remove one"),
        ("round: 9", "asking.round: is 9 here, and curate.active says round: 10; remove one"),
        ("seed: 4", "asking.seed: is 4 here, and curate.active says seed: 1; remove one"),
    ],
)
def test_what_asking_says_otherwise_is_refused_at_its_line(tmp_path: Path, asking: str, what: str) -> None:
    spec = edited(write_active_task(tmp_path), ("asking: {samples: 1}", f"asking: {{{asking}}}"))
    line = next(number for number, text in enumerate(spec.read_text().splitlines(), 1) if asking in text)
    with pytest.raises(SpecError) as refused:
        load_task(spec)
    assert f"task.yaml:{line}: {what}" in str(refused.value).replace(": asking: ", ": asking.")


def test_what_asking_says_alike_is_taken(tmp_path: Path) -> None:
    spec = edited(
        write_active_task(tmp_path), ("{samples: 1}", "{order: margin, limit: 50, first_round: 10, round: 10}")
    )
    assert load_task(spec).spec.questions.limit == 50


async def start(task: Path, folder: Path) -> Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, str(CHILD), str(task), str(folder), stdout=PIPE, stderr=PIPE
    )


async def kill_in_round(task: Path, folder: Path, number: int, later_s: float) -> None:
    """A process that is killed so long after that round began."""
    child = await start(task, folder)
    assert child.stdout is not None
    while line := (await child.stdout.readline()).decode():
        if line.startswith(f"round {number} "):
            break
    await asyncio.sleep(later_s)
    child.send_signal(signal.SIGKILL)
    await child.communicate()


async def test_after_kills_in_the_middle_of_rounds_the_same_rounds_were_asked(tmp_path: Path) -> None:
    task = write_active_task(tmp_path, latency_s=0.01)
    undisturbed = await start(task, tmp_path / "undisturbed")
    assert (await undisturbed.communicate(), undisturbed.returncode)[1] == 0
    for number, later_s in ((1, 0.02), (2, 0.01), (3, 0.0), (3, 0.02), (5, 0.01)):
        await kill_in_round(task, tmp_path / "killed", number, later_s)
    last = await start(task, tmp_path / "killed")
    assert (await last.communicate(), last.returncode)[1] == 0
    with open_corpus(tmp_path / "undisturbed") as one, open_corpus(tmp_path / "killed") as two:
        assert rounds_of(two) == rounds_of(one)
        paid = "select count(*), count(distinct request_key) from calls where state = 'settled' and role <> 'train'"
        assert two.journal.query(paid) == one.journal.query(paid) == [(62, 62)]
        assert states(two.journal)["promised"] == 0
        assert not violations(two.journal)


def test_two_ends_of_one_run_ask_the_same(tmp_path: Path, corpus: Corpus) -> None:
    spec = write_active_task(tmp_path)

    async def both() -> None:
        with open_corpus(tmp_path / "corpus") as other:
            await asyncio.gather(
                run_task(load_task(spec), corpus, opened=[]), run_task(load_task(spec), other, opened=[])
            )

    asyncio.run(both())
    assert [len(one) for one in rounds_of(corpus)] == [10] * 5
    paid = corpus.journal.query("select count(distinct request_key) from calls where role <> 'train'")
    assert paid == [(62,)]


def test_the_report_tells_every_round_and_why_it_ended(tmp_path: Path, corpus: Corpus) -> None:
    job = Distillation(task=load_task(write_active_task(tmp_path)), corpus=corpus)
    page = Path(str(asyncio.run(distill(job))["report"])).read_text("utf-8")
    assert "It ended because 50 labels are the most that the spec wants." in page
    assert "Next to gain: points of agreement expected of the next round" in page
    assert page.count("uncertainty and diversity") == 4


def test_the_curve_is_told_without_gold_too(tmp_path: Path, corpus: Corpus) -> None:
    spec = write_active_task(tmp_path)
    edited(spec, ("  gold: {path: gold.jsonl, source: ours, gold: label}\n", ""))
    page = Path(str(asyncio.run(distill(Distillation(task=load_task(spec), corpus=corpus)))["report"])).read_text(
        "utf-8"
    )
    assert "How it learned" in page


@pytest.mark.parametrize(
    ("active", "field", "what"),
    [
        ("by: [uncertainty, uncertainty]", "curate.active.by", "names the same ground twice; remove one"),
        ("by: []", "curate.active.by", "at least 1"),
        ("by: [doubt]", "curate.active.by.0", "must be one of 'uncertainty', 'diversity'"),
        ("spread: 0.5", "curate.active.spread", "must be 1.0 or more"),
        ("stop: {below: 2}", "curate.active.stop.below", "must be 1.0 or less"),
        ("stop: {patience: 0}", "curate.active.stop.patience", "must be 1 or more"),
    ],
)
def test_settings_out_of_range_are_refused_at_their_line(tmp_path: Path, active: str, field: str, what: str) -> None:
    with pytest.raises(SpecError) as refused:
        load_task(write_active_task(tmp_path, f"active: {{{active}}}"))
    assert [problem.field for problem in refused.value.problems] == [field]
    assert what in str(refused.value)


def test_free_text_is_refused_at_its_line(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"task.yaml:\d+: curate.active: asks for labels in rounds"):
        load_task(write_text_task(tmp_path, more="curate: {active: {}}\n"))


def test_one_item_is_enough_to_get_to_the_end(tmp_path: Path, corpus: Corpus) -> None:
    assert asked_for(write_active_task(tmp_path, pool=1), corpus).ended == "the whole pool was asked about"


def test_what_was_expected_can_be_computed_again_from_what_was_written_down(tmp_path: Path, corpus: Corpus) -> None:
    asked_for(write_active_task(tmp_path), corpus)
    told = decisions(corpus)[1:]
    points = [Point(**one["measured"]) for one in told]
    for count, one in enumerate(told, 1):
        found = expected_gain(points[:count], 10)
        assert (asdict(found) if found else None) == one["expected"]


def test_the_funnel_counts_what_was_asked_and_not_what_might_have_been(tmp_path: Path, corpus: Corpus) -> None:
    active = "active: {first: 10, round: 10, most: 100, stop: {below: 0.2, patience: 2}}"
    job = Distillation(task=load_task(write_active_task(tmp_path, active)), corpus=corpus)
    asyncio.run(distill(job))
    steps = {step.name: step.left for step in funnel(job.outcome())}
    assert steps["asked about"] == steps["answered"] == 40
