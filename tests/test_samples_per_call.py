"""Several answers to one call: each becomes a record of its own, and their costs add up to what the call cost."""

from __future__ import annotations

import asyncio
import random
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections import Counter
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from choice_samples import MAX_TOKENS, PRICE, Repeating, exact_teacher, records, run, write_choices
from command import corpusgen
from flow_samples import open_corpus, violations
from hypothesis import given, settings
from hypothesis import strategies as st
from several_samples import SCHEMA
from teacher_samples import server
from test_processes import CHILD
from test_resume import finish, shards, start

from corpusgen.budget.ledger import balances
from corpusgen.corpus import utc_now
from corpusgen.errors import PartialFailure, SpecError, UnsupportedParameter
from corpusgen.journal import Journal
from corpusgen.mock.plan import FaultPlan
from corpusgen.mock.server import MockTeacher
from corpusgen.pipeline import generate
from corpusgen.prompting.prompts import prompts
from corpusgen.stages.loading import load_task
from corpusgen.stages.planning import plan
from corpusgen.stages.repairing import repair
from corpusgen.stages.task import connect, request_for
from corpusgen.stages.verifying import verify

DROPS = "select item_id, stage, reason from drops where stage glob 'ask:*' order by 1, 2"


async def asked(
    folder: Path, mock: MockTeacher, words: list[str], *, samples: int, per_call: int, **changes: Any
) -> list[tuple[str, str, str]]:
    """Run a task to its end; gives back what it dropped."""
    path = write_choices(folder, mock.base_url, words, samples=samples, per_call=per_call, **changes)
    with suppress(PartialFailure):
        await run(path, folder / "corpus")
    with open_corpus(folder / "corpus") as corpus:
        return corpus.journal.query(DROPS)


def dropped(rows: list[tuple[str, str, str]]) -> Counter[tuple[str, int]]:
    """Item and sample of every drop."""
    return Counter((item, int(stage.partition("#")[2] or 0)) for item, stage, _ in rows)


def had(folder: Path) -> Counter[tuple[str, int]]:
    """Item and sample of every record."""
    return Counter((record.source_ids[0].partition("#")[2], record.sample_index) for record in records(folder))


# --- who asks for what ------------------------------------------------------------------------------------------------


async def test_so_many_answers_are_asked_for_in_one_call_and_the_last_call_asks_for_the_rest(tmp_path: Path) -> None:
    async with exact_teacher() as mock:
        assert await asked(tmp_path, mock, ["one", "two"], samples=5, per_call=2) == []
        assert mock.bill.requests == 6
        found = records(tmp_path / "corpus")
        assert [record.sample_index for record in found] == [0, 1, 2, 3, 4] * 2
        assert len({record.record_id for record in found}) == 10
        assert len({record.request_key for record in found}) == 6
        assert sum(record.cost_microusd for record in found) == mock.bill.microusd
        assert sum(record.input_tokens + record.output_tokens for record in found) == mock.bill.tokens
    with open_corpus(tmp_path / "corpus") as corpus:
        assert verify(corpus) == []
        assert violations(corpus.journal) == []


async def test_one_call_is_one_request_reserved_with_its_input_once_and_every_answer_at_its_longest(
    tmp_path: Path,
) -> None:
    async with exact_teacher() as mock:
        await asked(tmp_path / "one", mock, ["word"], samples=1, per_call=1)
        await asked(tmp_path / "four", mock, ["word"], samples=4, per_call=4)
    reserved = [worst(tmp_path / name / "corpus") for name in ("one", "four")]
    assert reserved[1] - reserved[0] == 3 * MAX_TOKENS


def worst(folder: Path) -> int:
    with open_corpus(folder) as corpus:
        (row,) = corpus.journal.query("select reserved_tokens from calls")
        return int(row[0])


def test_without_several_to_a_call_keys_and_names_are_what_they_were(tmp_path: Path) -> None:
    task = load_task(write_choices(tmp_path, "http://127.0.0.1:9/v1", ["word"], samples=4, per_call=1))
    assert "samples_per_call" not in task.spec.model_dump_json(exclude_defaults=True)
    card = connect(task, utc_now, sending=False).card
    asker = lambda item, sample: request_for(task, card, item, sample)  # noqa: E731
    alone, three = (
        list(prompts(task.prompter.items("train"), asker, samples=4, per_call=per_call)) for per_call in (1, 3)
    )
    assert [prompt.ordinal for prompt in alone] == [0, 1, 2, 3]
    assert all("n" not in prompt.request.parameters for prompt in alone)
    assert all(prompt.record_ids == (prompt.record_id,) for prompt in alone)
    assert [(prompt.ordinal, prompt.count) for prompt in three] == [(0, 3), (3, 1)]
    assert three[1].request.key == alone[3].request.key
    assert three[1].record_id == alone[3].record_id
    assert len({name for prompt in (*alone, *three) for name in prompt.record_ids}) == 7


# --- what servers do with n -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "calls"), [("fewer-choices*1", 2), ("broken-choice*1", 2), ("more-choices", 1)])
async def test_what_a_call_leaves_out_is_asked_for_by_one_further_call(kind: str, calls: int, tmp_path: Path) -> None:
    async with exact_teacher() as mock:
        assert await asked(tmp_path, mock, [f"fault:{kind}"], samples=4, per_call=4) == []
        assert mock.bill.requests == calls
        assert sum(record.cost_microusd for record in records(tmp_path / "corpus")) == mock.bill.microusd
    assert had(tmp_path / "corpus") == {("w0", at): 1 for at in range(4)}


async def test_a_server_that_ignores_n_is_asked_twice_and_what_is_missing_then_is_listed_and_not_asked_for_again(
    tmp_path: Path,
) -> None:
    async with exact_teacher() as mock:
        for _ in range(2):
            lost = await asked(tmp_path, mock, ["fault:one-choice"], samples=4, per_call=4)
            assert lost == [("w0", "ask:train#2", "AnswersMissing"), ("w0", "ask:train#3", "AnswersMissing")]
        assert mock.bill.requests == 2
    assert had(tmp_path / "corpus") == {("w0", 0): 1, ("w0", 1): 1}
    told = corpusgen("status", "--corpus", tmp_path / "corpus").stdout
    assert "dropped 2 at ask:train: AnswersMissing" in told
    assert "samples_per_call: 1" in told
    assert "of words: complete, 2 without an answer, started" in told


async def test_answers_beyond_those_asked_for_are_told(tmp_path: Path) -> None:
    async with exact_teacher() as mock:
        await asked(tmp_path, mock, ["fault:more-choices"], samples=3, per_call=3)
    assert "gave 4 answers where 3 were asked for" in corpusgen("status", "--corpus", tmp_path / "corpus").stdout


@pytest.mark.parametrize(("kind", "seen"), [("empty-choice", ""), ("cut-choice", "length")])
async def test_one_bad_answer_is_a_record_of_its_own_and_its_neighbours_are_good(
    kind: str, seen: str, tmp_path: Path
) -> None:
    async with exact_teacher() as mock:
        await asked(tmp_path, mock, [f"fault:{kind}"], samples=3, per_call=3)
        assert mock.bill.requests == 1
    *good, bad = records(tmp_path / "corpus")
    assert seen in (bad.response, bad.finish_reason)
    assert all(record.response and record.finish_reason == "stop" for record in good)


async def test_a_call_that_fails_lists_each_of_its_answers_and_another_run_takes_them_back(tmp_path: Path) -> None:
    async with exact_teacher() as mock:
        lost = await asked(tmp_path, mock, ["fault:400*1", "fine"], samples=4, per_call=3)
        assert dropped(lost) == {("w0", 0): 1, ("w0", 1): 1, ("w0", 2): 1, ("w0", 3): 1}
        assert await asked(tmp_path, mock, ["fault:400*1", "fine"], samples=4, per_call=3) == []
    assert had(tmp_path / "corpus") == {(item, at): 1 for item in ("w0", "w1") for at in range(4)}


# --- schemas ----------------------------------------------------------------------------------------------------------


async def test_an_answer_that_does_not_fit_its_schema_is_mended_alone(tmp_path: Path) -> None:
    async with exact_teacher() as mock:
        await asked(tmp_path, mock, ["fault:empty-choice"], samples=3, per_call=3, answer_schema=SCHEMA)
        assert mock.bill.requests == 2
        found = records(tmp_path / "corpus")
        assert sum(record.cost_microusd for record in found) == mock.bill.microusd
    assert [len(record.request_keys) for record in found] == [1, 1, 2]
    assert all(record.structured is not None for record in found)
    assert {len(record.messages) for record in found} == {1}
    with open_corpus(tmp_path / "corpus") as corpus:
        assert verify(corpus) == []


# --- properties -------------------------------------------------------------------------------------------------------

FAULTS = ("fine", *(f"fault:{kind}" for kind in ("one-choice", "fewer-choices", "broken-choice", "more-choices")))
FAULTS += ("fault:empty-choice", "fault:one-choice*1", "fault:fewer-choices*1", "fault:413", "fault:413*1")


@settings(max_examples=15, deadline=None)
@given(st.data(), st.integers(1, 7), st.lists(st.sampled_from(FAULTS), min_size=1, max_size=3))
async def test_every_sample_is_a_record_or_a_drop_and_records_cost_what_the_teacher_billed(
    data: st.DataObject, samples: int, faults: list[str]
) -> None:
    per_call = data.draw(st.integers(1, samples))
    schema = data.draw(st.sampled_from([None, SCHEMA]))
    words = [f"word {at} {fault}" for at, fault in enumerate(faults)]
    changes = {} if schema is None else {"answer_schema": schema}
    with TemporaryDirectory() as there:
        folder = Path(there)
        async with exact_teacher() as mock:
            lost = await asked(folder, mock, words, samples=samples, per_call=per_call, **changes)
            every = Counter({(f"w{at}", sample): 1 for at in range(len(words)) for sample in range(samples)})
            assert had(folder / "corpus") + dropped(lost) == every
            found = records(folder / "corpus")
            assert sum(record.cost_microusd for record in found) == mock.bill.microusd
            assert sum(record.input_tokens + record.output_tokens for record in found) <= mock.bill.tokens
            asked_before = mock.bill.requests
            again = await asked(folder, mock, words, samples=samples, per_call=per_call, **changes)
            assert len(again) <= len(lost)
            if not any("413" in fault for fault in faults):
                assert (mock.bill.requests, again) == (asked_before, lost)
            assert sum(record.cost_microusd for record in records(folder / "corpus")) == mock.bill.microusd
        with open_corpus(folder / "corpus") as corpus:
            assert settled(corpus.journal) == mock.bill.microusd
            assert verify(corpus) == []


def settled(journal: Journal) -> int:
    return next((one.settled for one in balances(journal, ["run:r1"]) if one.unit == "microusd"), 0)


# --- going on, sharing, planning --------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_after_kills_the_shards_are_those_of_an_undisturbed_run(tmp_path: Path) -> None:
    moments, kinds = random.Random(7), ("fine", "fault:fewer-choices", "fault:broken-choice", "fault:empty-choice")
    words = [f"{at} {kinds[at % 4]}" for at in range(60)]
    teacher = Repeating()
    async with server(teacher.answer) as url:
        task = write_choices(tmp_path, url, words, samples=5, per_call=3, answer_schema=SCHEMA)
        assert await finish(task, tmp_path / "undisturbed") == (0, "started\n300\n")
        calls = teacher.asked
        for _ in range(6):
            await kill(await start(task, tmp_path / "killed"), moments.uniform(0, 0.15))
        assert await finish(task, tmp_path / "killed") == (0, "started\n300\n")
        assert calls <= teacher.asked - calls <= calls + 6 * 4
    assert shards(tmp_path / "killed") == shards(tmp_path / "undisturbed")
    with open_corpus(tmp_path / "killed") as corpus:
        assert verify(corpus) == []
        assert violations(corpus.journal) == []


async def kill(child: Process, after_s: float) -> None:
    assert child.stdout is not None
    await child.stdout.readline()
    await asyncio.sleep(after_s)
    child.send_signal(signal.SIGKILL)
    await child.communicate()


async def test_processes_that_ask_the_same_ask_each_call_once(tmp_path: Path) -> None:
    teacher = Repeating()
    async with server(teacher.answer) as url:
        words = [f"{at} {('fine', 'fault:fewer-choices')[at % 2]}" for at in range(10)]
        task = write_choices(tmp_path, url, words, samples=4, per_call=4)
        child = await asyncio.create_subprocess_exec(
            sys.executable, str(CHILD), str(task), str(tmp_path / "corpus"), "3", "3", "1", stdout=PIPE, stderr=PIPE
        )
        out, err = await child.communicate()
    assert child.returncode == 0, err.decode()
    assert (Counter(out.decode().split())["record"], teacher.asked) == (9 * 10, 15)
    with open_corpus(tmp_path / "corpus") as corpus:
        assert corpus.journal.query("select count(*) from records")[0][0] == 40
        assert violations(corpus.journal) == []


async def test_after_a_budget_stop_more_budget_gives_the_records_of_an_undisturbed_run(tmp_path: Path) -> None:
    teacher = Repeating()
    async with server(teacher.answer) as url:
        words = [f"{at} {('fine', 'fault:fewer-choices')[at % 2]}" for at in range(20)]
        task = write_choices(tmp_path, url, words, samples=3, per_call=3)
        await finish(task, tmp_path / "undisturbed")
        assert (await finish(task, tmp_path / "stopped", 1_000))[0] == 3
        assert 0 < len(records(tmp_path / "stopped")) < 60
        assert (await finish(task, tmp_path / "stopped", 1_000_000))[0] == 0
    assert records(tmp_path / "stopped") == records(tmp_path / "undisturbed")


async def test_a_reader_that_leaves_stops_the_asking_and_loses_nothing(tmp_path: Path) -> None:
    async with exact_teacher(latency_s=0.01) as mock:
        task = load_task(write_choices(tmp_path, mock.base_url, list("abcdefghij"), samples=4, per_call=2))
        with open_corpus(tmp_path / "corpus") as corpus:
            async with generate(task, corpus) as stream:
                first = [await anext(stream) for _ in range(3)]
            kept = corpus.journal.query("select count(*) from records")[0][0]
            assert 2 * mock.bill.requests == kept < 40
            async with generate(task, corpus) as stream:
                every = [record async for record in stream]
    assert len({record.record_id for record in every}) == 40
    assert {record.record_id for record in first} <= {record.record_id for record in every}
    assert mock.bill.requests == 20


async def test_a_lost_shard_is_written_again_with_the_same_bytes(tmp_path: Path) -> None:
    async with exact_teacher() as mock:
        await asked(tmp_path, mock, ["one", "fault:broken-choice*1"], samples=4, per_call=4)
    (shard,) = (tmp_path / "corpus").glob("shards/*/*.parquet")
    before = shard.read_bytes()
    shard.unlink()
    with open_corpus(tmp_path / "corpus") as corpus:
        assert [one.repaired for one in repair(corpus) if one.path.endswith(".parquet")] == [True]
    assert shard.read_bytes() == before


async def test_another_corpus_takes_all_answers_of_a_call_from_the_shared_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CORPUSGEN_CACHE", str(tmp_path / "cache"))
    async with exact_teacher() as mock:
        for name in ("one", "two"):
            await asked(tmp_path / name, mock, ["fault:fewer-choices*1"], samples=4, per_call=4)
        assert mock.bill.requests == 2
        bill = mock.bill.microusd
    first, second = (records(tmp_path / name / "corpus") for name in ("one", "two"))
    assert [record.response for record in first] == [record.response for record in second]
    assert {record.cost_microusd for record in second} == {0}
    assert sum(record.origin_cost_microusd or 0 for record in second) == bill


async def test_the_plan_counts_calls_and_keeps_within_its_figures(tmp_path: Path) -> None:
    async with exact_teacher() as mock:
        path = write_choices(tmp_path, mock.base_url, ["one", "two", "three"], samples=5, per_call=2)
        with open_corpus(tmp_path / "corpus") as corpus:
            planned = await plan(load_task(path), corpus)
            assert (planned.to_send, planned.requests.low) == (15, 9)
            await run(path, tmp_path / "corpus2")
        assert mock.bill.requests == 9
        assert planned.microusd.low <= mock.bill.microusd <= planned.microusd.high
        with open_corpus(tmp_path / "corpus2") as corpus:
            done = await plan(load_task(path), corpus)
    assert (done.to_send, done.requests.high) == (0, 0)


def test_the_plan_tells_calls_and_answers_apart(tmp_path: Path) -> None:
    path = write_choices(tmp_path, "http://127.0.0.1:9/v1", ["one", "two", "three"], samples=5, per_call=2)
    told = corpusgen("plan", path, "--corpus", tmp_path / "corpus").stdout
    assert "9 to send, for 15 answers; 0 of 15 are answered already" in told


# --- several teachers -------------------------------------------------------------------------------------------------


def another(mock: MockTeacher, **fields: Any) -> dict[str, Any]:
    """A second teacher, who gives one answer to a call."""
    named = {"name": "endpoint/other", "base_url": mock.base_url, "provider": "corpusgen", "route": "mock"}
    return {**named, "price": dict(PRICE), "parameters": {"max_tokens": MAX_TOKENS}, "in_flight": 2, **fields}


@pytest.mark.parametrize(
    ("kind", "calls", "taken"),
    [
        ("refused-choice", (1, 1), {3}),
        ("one-choice", (2, 2), {2, 3}),
        ("413", (1, 4), {0, 1, 2, 3}),
        ("usage-huge", (1, 0), set()),
    ],
)
async def test_what_one_teacher_refuses_or_leaves_out_is_asked_of_the_next_each_by_itself(
    kind: str, calls: tuple[int, int], taken: set[int], tmp_path: Path
) -> None:
    async with exact_teacher() as first, exact_teacher(plan=FaultPlan(markers=False)) as second:
        lost = await asked(tmp_path, first, [f"fault:{kind}"], samples=4, per_call=4, others=[another(second)])
        assert lost == []
        assert (first.bill.requests, second.bill.requests) == calls
        found = records(tmp_path / "corpus")
        assert [record.sample_index for record in found] == [0, 1, 2, 3]
        assert {record.sample_index for record in found if record.teacher_role == "fallback"} == taken
        assert len({record.record_id for record in found}) == 4
        assert sum(record.cost_microusd for record in found) == first.bill.microusd + second.bill.microusd
        assert await asked(tmp_path, first, [f"fault:{kind}"], samples=4, per_call=4, others=[another(second)]) == []
        assert (first.bill.requests, second.bill.requests) == calls
    with open_corpus(tmp_path / "corpus") as corpus:
        assert verify(corpus) == []


async def test_a_teacher_that_is_away_leaves_every_answer_to_the_next(tmp_path: Path) -> None:
    async with exact_teacher() as gone, exact_teacher() as second:
        url = gone.bad_addresses["connection-refused"]
        path = write_choices(tmp_path, url, list("abcde"), samples=3, per_call=2, others=[another(second)])
        await run(path, tmp_path / "corpus")
    assert had(tmp_path / "corpus") == {(f"w{item}", at): 1 for item in range(5) for at in range(3)}
    assert {record.teacher for record in records(tmp_path / "corpus")} == {"endpoint/other"}


async def test_of_a_mixture_each_call_falls_to_one_teacher(tmp_path: Path) -> None:
    async with exact_teacher() as first, exact_teacher() as second:
        others = [another(second, name="sglang/n", weight=1)]
        path = write_choices(
            tmp_path, first.base_url, list("abcdefgh"), samples=3, per_call=1, teacher={"weight": 1}, others=others
        )
        await run(path, tmp_path / "corpus")
        assert sum(mock.bill.requests for mock in (first, second)) == 24
    path = write_choices(
        tmp_path / "n", "http://127.0.0.1:9/v1", ["a"], samples=4, per_call=3, teacher={"weight": 1}, others=others
    )
    with pytest.raises(UnsupportedParameter, match="sglang/n is not known to give several answers"):
        [connect(view, utc_now, sending=False) for view in load_task(path).of_each_teacher]


# --- what is refused --------------------------------------------------------------------------------------------------

CONTRADICTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "labels": ({"kind": "label", "labels": {"names": ["a", "b"]}}, "is for kind: response"),
    "more than samples": ({"asking": {"samples": 2, "samples_per_call": 3}}, "at most asking.samples, which is 2"),
    "in batches": ({"asking": {"lane": "batch"}}, "lines of a batch ask for one answer each"),
}


@pytest.mark.parametrize(("changes", "said"), CONTRADICTIONS.values(), ids=list(CONTRADICTIONS))
def test_what_cannot_be_is_refused_at_its_line(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    path = write_choices(tmp_path, "http://127.0.0.1:9/v1", ["word"], samples=4, per_call=3, **changes)
    with pytest.raises(SpecError) as refused:
        load_task(path)
    at_line(path, str(refused.value), said)


@pytest.mark.parametrize(
    ("name", "per_call", "said"),
    [
        ("anthropic/claude-haiku-4-5", 2, "is not known to give several answers to one call"),
        ("openai/gpt-4.1", 64, None),
        ("vllm/m", 64, None),
        ("deepseek/deepseek-chat", 3, "write 1, which asks for each by itself"),
    ],
)
def test_a_teacher_that_gives_one_answer_a_call_is_refused_at_plan_with_the_line(
    name: str, per_call: int, said: str | None, tmp_path: Path
) -> None:
    teacher = {"name": name, "base_url": None, "provider": None, "route": None, "price": None}
    path = write_choices(tmp_path, "http://127.0.0.1:9/v1", ["word"], samples=64, per_call=per_call, teacher=teacher)
    task = load_task(path)
    if said is None:
        connect(task, utc_now, sending=False)
        return
    with pytest.raises(UnsupportedParameter) as refused:
        connect(task, utc_now, sending=False)
    at_line(path, str(refused.value), said)


def at_line(path: Path, told: str, said: str) -> None:
    assert said in told
    line = int(told.partition("task.yaml:")[2].partition(":")[0])
    assert "samples_per_call" in path.read_text().splitlines()[line - 1]
