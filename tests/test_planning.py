"""A plan says what a run will come to, and what it says holds."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import yaml
from command import corpusgen
from fault_samples import MAX_TOKENS, HurriedPacer, options, write_mock_task
from flow_samples import FREE, fixed_clock, no_sleep, open_corpus, prompt, saying, write_task

from corpusgen.budget.amounts import CAPPED, Amounts
from corpusgen.budget.ledger import balances
from corpusgen.corpus import Corpus
from corpusgen.errors import SpecError
from corpusgen.fanout.stream import answers
from corpusgen.mock.plan import FaultPlan
from corpusgen.mock.server import MockTeacher, mock_teacher
from corpusgen.prompting.prompts import prompts
from corpusgen.spec import Budget
from corpusgen.stages.estimating import Estimate, Estimator, Learned, PerRequest
from corpusgen.stages.loading import load_task
from corpusgen.stages.opening import open_run
from corpusgen.stages.planning import SAMPLE, Plan, _Sample, plan
from corpusgen.stages.report.hindsight import plan_json, plan_lines
from corpusgen.stages.task import Task, request_for
from corpusgen.teacher_fields import TeacherSpec
from corpusgen.teachers.billing import NOTHING_KNOWN
from corpusgen.teachers.endpoint import Endpoint
from corpusgen.teachers.scripted import scripted

SEEDS = 12
FIGURES = ("requests", "tokens", "microusd", "bill")
WORDS = ["river", "stone", "mill", "bird", "bread", "a", "the", "of", "and", "under", "before", "slowly", "seven"]


@dataclass(kw_only=True)
class Day:
    """A task of some seed, the mock teacher's mood on that day, and what plans said of it."""

    seed: int
    folder: Path
    mock: MockTeacher
    choose: random.Random
    held: list[tuple[str, bool]] = field(default_factory=list)

    def task(self, items: int, words: list[str]) -> Task:
        path = write_mock_task(self.folder, self.mock.base_url, words, usd="1000", in_flight=16)
        spec = yaml.safe_load(path.read_text())
        spec["asking"]["limit"] = items
        path.write_text(yaml.safe_dump(spec))
        return load_task(path)

    async def ask(self, task: Task, corpus: Corpus, made: Plan) -> None:
        """Run the task and note which figures of its plan held."""
        before = self.actual(corpus)
        await run(task, corpus)
        after = self.actual(corpus)
        ranges = (made.requests, made.tokens, made.microusd, made.microusd)
        for name, expected in zip(FIGURES, ranges, strict=True):
            self.held.append((name, inside(expected, after[name] - before[name])))

    def actual(self, corpus: Corpus) -> dict[str, int]:
        found = {balance.unit: balance for balance in balances(corpus.journal, ["corpus"])}
        bill = self.mock.bill
        settled = {unit: found[unit].settled if unit in found else 0 for unit in ("tokens", "microusd")}
        return {"requests": bill.requests, "bill": bill.microusd} | {str(unit): n for unit, n in settled.items()}


def inside(estimate: Estimate, actual: float) -> bool:
    return estimate.low <= actual <= estimate.high


async def run(task: Task, corpus: Corpus) -> None:
    async with open_run(task, corpus, on_failure="drop") as opened:
        asker = replace(opened.asker, sleep=no_sleep, pacer=HurriedPacer())
        assert isinstance(asker.teacher, Endpoint)
        asker.teacher.transport.billing = NOTHING_KNOWN
        card, items = asker.teacher.card, list(task.prompter.items("train"))[: task.spec.asking.limit]
        wanted = prompts(iter(items), lambda item, n: request_for(task, card, item, n), samples=1)
        async with answers(asker, wanted) as records:
            assert len([record async for record in records]) > 0


async def one_day(folder: Path, seed: int) -> list[tuple[str, bool]]:
    """A plan with nothing known, its run, a plan that has learnt from it, and the rest of the run."""
    choose = random.Random(seed)
    share = choose.choice([0.0, 0.02, 0.1]) / 3
    moods = FaultPlan(seed=seed, shares={"500": share, "500-billed": share, "reset-in-body": share}, markers=False)
    async with mock_teacher(options(plan=moods)) as mock:
        day = Day(seed=seed, folder=folder, mock=mock, choose=choose)
        longest = choose.choice([5, 40, 200])
        words = [f"{at} {' '.join(choose.choices(WORDS, k=choose.randint(1, longest)))}" for at in range(120)]
        with open_corpus(folder / "corpus") as corpus:
            for items in (choose.randint(20, 60), 120):
                task = day.task(items, words)
                await day.ask(task, corpus, await plan(task, corpus))
    return day.held


@pytest.mark.slow
def test_what_a_plan_says_holds(tmp_path: Path) -> None:
    every = [held for seed in range(SEEDS) for held in asyncio.run(one_day(tmp_path / str(seed), seed))]
    missed = [name for name, holds in every if not holds]
    assert len(every) == SEEDS * 2 * len(FIGURES)
    assert len(missed) <= 0.05 * len(every), Counter(missed)


async def planned(folder: Path, mock: MockTeacher, words: list[str]) -> Plan:
    task = load_task(write_mock_task(folder, mock.base_url, words))
    with open_corpus(folder / "corpus") as corpus:
        return await plan(task, corpus)


async def test_high_is_the_worst_case_of_every_request(tmp_path: Path) -> None:
    words = ["one", "another word", "a third one, longer than the others"]
    async with mock_teacher(options()) as mock:
        made = await planned(tmp_path, mock, words)
        task = load_task(tmp_path / "task.yaml")
        with open_corpus(tmp_path / "corpus") as corpus:
            await run(task, corpus)
            rows = corpus.journal.query("select sum(reserved_microusd), sum(reserved_tokens) from calls")
    reserved = Amounts(microusd=rows[0][0], tokens=rows[0][1])
    assert reserved.microusd <= made.microusd.high
    assert reserved.tokens <= made.tokens.high
    assert made.tokens.low <= made.tokens.likely <= made.tokens.high
    assert made.requests.figures == (3.0, 3.0, 4.0)


async def test_an_exact_count_narrows_the_range(tmp_path: Path) -> None:
    words = [f"word {at} " + "quiet river " * 20 for at in range(10)]
    async with mock_teacher(options()) as mock:
        path = write_mock_task(tmp_path / "bytes", mock.base_url, words)
        spec = yaml.safe_load(path.read_text())
        spec["teachers"][0] |= {"name": "endpoint/gpt-4o", "provider": "openai"}
        (path.parent / "exact.yaml").write_text(yaml.safe_dump(spec))
        with open_corpus(tmp_path / "corpus") as corpus:
            of_bytes = await plan(load_task(path), corpus)
            exact = await plan(load_task(path.parent / "exact.yaml"), corpus)
    assert exact.tokens.high < of_bytes.tokens.high / 2
    assert exact.tokens.high / exact.tokens.low < of_bytes.tokens.high / of_bytes.tokens.low
    assert exact.microusd.low > 0


async def test_the_next_plan_has_learnt(tmp_path: Path) -> None:
    words = [f"word {at}" for at in range(60)]
    async with mock_teacher(options()) as mock:
        day = Day(seed=1, folder=tmp_path, mock=mock, choose=random.Random(1))
        with open_corpus(tmp_path / "corpus") as corpus:
            first = day.task(40, words)
            unknown = await plan(first, corpus)
            await run(first, corpus)
            told = await plan(day.task(60, words), corpus)
    assert unknown.wall_s is None
    assert told.wall_s is not None
    assert (told.to_send, told.splits[0].known) == (20, 40)
    assert told.microusd.high / told.microusd.low < unknown.microusd.high / unknown.microusd.low / 2


async def test_a_plan_of_what_is_answered_comes_to_nothing(tmp_path: Path) -> None:
    async with mock_teacher(options()) as mock:
        task = load_task(write_mock_task(tmp_path, mock.base_url, ["a", "b"]))
        with open_corpus(tmp_path / "corpus") as corpus:
            await run(task, corpus)
            made = await plan(task, corpus)
    nothing = (0.0, 0.0, 0.0)
    assert made.wall_s is not None
    figures = [made.requests.figures, made.tokens.figures, made.microusd.figures, made.wall_s.figures]
    assert figures == [nothing] * 4


async def test_what_the_shared_cache_holds_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORPUSGEN_CACHE", str(tmp_path / "cache"))
    words = [f"word {at}" for at in range(10)]
    async with mock_teacher(options()) as mock:
        task = load_task(write_mock_task(tmp_path, mock.base_url, words))
        with open_corpus(tmp_path / "first") as corpus:
            await run(task, corpus)
        with open_corpus(tmp_path / "second") as corpus:
            made = await plan(task, corpus)
        assert mock.bill.requests == 10
    assert (made.to_send, made.splits[0].shared, made.splits[0].known) == (0, 10, 0)
    assert made.to_json()["shared"] == 10


async def test_a_label_outside_the_runners_up_may_be_asked_for_twice(tmp_path: Path) -> None:
    path = write_task(tmp_path, items=10)
    spec = yaml.safe_load(path.read_text()) | {"kind": "label", "labels": {"names": ["yes", "no"]}}
    spec["teachers"][0]["parameters"] = {"max_tokens": 1, "top_logprobs": 5}
    path.write_text(yaml.safe_dump(spec))
    with open_corpus(tmp_path / "corpus") as corpus:
        made = await plan(load_task(path), corpus)
    assert made.requests.low == 10
    assert made.requests.high >= 20


LIMITS = [
    ({"requests_per_minute": 30}, (0, 40), "requests_per_minute"),
    ({"requests_per_second": 0.5}, (39, 40), "requests_per_second"),
    ({"requests_per_minute": 6_000, "tokens_per_minute": 40}, (0, 0), "tokens_per_minute"),
    ({"requests_per_minute": 1e6}, (0, 0), "latency"),
]


@pytest.mark.parametrize(("limits", "least", "slowest"), LIMITS)
async def test_known_limits_decide_how_long_it_takes(
    tmp_path: Path, limits: dict[str, float], least: tuple[int, int], slowest: str
) -> None:
    task = write_task(tmp_path, items=20, teacher={"rate": limits})
    with open_corpus(tmp_path / "corpus") as corpus:
        made = await plan(load_task(task), corpus)
    assert made.wall_s is not None
    assert made.slowest == slowest
    assert made.wall_s.low >= least[0]
    assert made.wall_s.likely >= least[1]
    assert made.wall_s.low <= made.wall_s.likely <= made.wall_s.high
    assert made.to_json()["limits"] == limits


async def test_limits_bind_what_was_learnt_of_latency(tmp_path: Path) -> None:
    words = [f"word {at}" for at in range(60)]
    async with mock_teacher(options()) as mock:
        path = write_mock_task(tmp_path, mock.base_url, words[:20])
        with open_corpus(tmp_path / "corpus") as corpus:
            await run(load_task(path), corpus)
            spec = yaml.safe_load(write_mock_task(tmp_path, mock.base_url, words).read_text())
            spec["teachers"][0]["rate"] = {"requests_per_minute": 60}
            path.write_text(yaml.safe_dump(spec))
            made = await plan(load_task(path), corpus)
    assert made.wall_s is not None
    assert (made.slowest, made.splits[0].known) == ("requests_per_minute", 20)
    assert 40 <= made.wall_s.likely <= made.wall_s.high <= 40 * 2.5


def test_what_the_page_on_budgets_shows_is_a_spec() -> None:
    page = (Path(__file__).parent.parent / "docs" / "budgets.md").read_text()
    budget, teacher = (page.partition(f"```yaml {kind}\n")[2].partition("```")[0] for kind in ("budget", "teacher"))
    assert set(Budget.model_validate(yaml.safe_load(budget)).caps()) == set(CAPPED)
    assert TeacherSpec.model_validate(yaml.safe_load(teacher)).rate.tokens_per_minute == 200_000


def test_limits_are_no_part_of_what_is_asked(tmp_path: Path) -> None:
    fast = load_task(write_task(tmp_path / "fast", items=2))
    slow = load_task(write_task(tmp_path / "slow", items=2, teacher={"rate": {"requests_per_minute": 1}}))
    worth = load_task(write_task(tmp_path / "worth", items=2, budget={"compute_usd_per_hour": 0.1}))
    assert fast.identity == slow.identity == worth.identity


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"requests_per_minute": 0}, "teachers.0.rate.requests_per_minute: must be 1 or more, found 0"),
        ({"requests_per_second": -1}, "teachers.0.rate.requests_per_second: must be more than 0"),
        ({"tokens_per_minute": 1.5}, "must be a whole number, found 1.5"),
        ({"rpm": 500}, "no such field"),
    ],
)
def test_limits_that_cannot_be_are_refused(tmp_path: Path, wrong: dict[str, float], told: str) -> None:
    with pytest.raises(SpecError, match=re.escape(told)):
        load_task(write_task(tmp_path, items=2, teacher={"rate": wrong}))


def estimator(task: Task, learned: Learned | None) -> Estimator:
    teacher = scripted(saying(), clock=fixed_clock)
    own = replace(teacher, card=replace(teacher.card, route="self_hosted"))
    each = PerRequest(input_bound=100.0, longest_input=100.0, most_output=8, worst_microusd=0.0)
    return Estimator(task=task, teacher=own, rate=FREE, each=each, learned=learned, in_flight=2)


def test_processor_time_of_ones_own_is_planned_once_it_is_known(tmp_path: Path) -> None:
    task = load_task(write_task(tmp_path, items=2))
    known = Learned(
        answers=50,
        calls=50,
        input_share=0.5,
        output_tokens=4.0,
        booked_over_settled=1.0,
        wider=None,
        latency_s=0.5,
        compute_s=0.2,
    )
    assert estimator(task, None).compute_s(Estimate(low=10, likely=10, high=20)) is None
    found = estimator(task, known).compute_s(Estimate(low=10, likely=10, high=20))
    assert found is not None
    assert found.low < found.likely < found.high
    assert found.likely == pytest.approx(2.0)


async def test_a_plan_of_many_holds_few_of_them(tmp_path: Path) -> None:
    task = load_task(write_task(tmp_path, items=5_000))
    with open_corpus(tmp_path / "corpus") as corpus:
        made = await plan(task, corpus)
    assert made.requests.low == 5_000
    taken = _Sample()
    for at in range(5_000):
        taken.add(prompt(f"p{at}").request)
    assert SAMPLE <= len(taken.taken) < 2 * SAMPLE


# --- afterwards ------------------------------------------------------------------------------------------------------


async def test_afterwards_the_plan_is_held_against_what_came_of_it(tmp_path: Path) -> None:
    words = [f"word {at}" for at in range(30)]
    async with mock_teacher(options()) as mock:
        day = Day(seed=1, folder=tmp_path, mock=mock, choose=random.Random(1))
        with open_corpus(tmp_path / "corpus") as corpus:
            first = day.task(20, words)
            await day.ask(first, corpus, await plan(first, corpus))
            task = day.task(30, words)
            made = await plan(task, corpus)
            await run(task, corpus)
            lines = {line.name: line for line in plan_lines(made, corpus, "r1")}
    assert lines["requests"].actual == 10  # not the twenty before
    assert lines["money"].actual > 0
    told = plan_json(tuple(lines.values()))
    assert {"requests", "tokens", "money", "time"} == told.keys()
    assert all(one["within"] for name, one in told.items() if name != "time"), told
    assert told["requests"]["off"] == 0.0


async def test_a_plan_that_sent_nothing_has_nothing_to_be_held_against(tmp_path: Path) -> None:
    async with mock_teacher(options()) as mock:
        task = load_task(write_mock_task(tmp_path, mock.base_url, ["a"]))
        with open_corpus(tmp_path / "corpus") as corpus:
            await run(task, corpus)
            assert plan_lines(await plan(task, corpus), corpus, "r1") == ()


def test_run_says_how_wrong_its_plan_was(tmp_path: Path) -> None:
    price = {"input_usd_per_mtok": 1, "output_usd_per_mtok": 2, "source": "test"}
    task = write_task(tmp_path, items=6, teacher={"free": False, "price": price}, budget={"usd": 1})
    here = ("--corpus", tmp_path / "corpus", "-q")
    assert corpusgen("run", task, *here, "--plan", "--json").object["plan"]["requests"]["actual"] == 6
    task = write_task(tmp_path, items=8, teacher={"free": False, "price": price}, budget={"usd": 1})
    told = corpusgen("run", task, *here, "--plan").stdout
    assert "planned   requests: 2, within 2 to" in told
    assert "planned   money: $0.0000" in told


def test_the_plan_for_machines_has_its_keys(tmp_path: Path) -> None:
    with open_corpus(tmp_path / "corpus") as corpus:
        made = asyncio.run(plan(load_task(write_task(tmp_path, items=3)), corpus)).to_json()
    assert (made["requests"], made["to_send"], made["requests_range"]["low"]) == (3, 3, 3)
    assert json.loads(json.dumps(made)) == made


def test_as_many_tokens_as_were_asked_for_are_the_most(tmp_path: Path) -> None:
    with open_corpus(tmp_path / "corpus") as corpus:
        made = asyncio.run(plan(load_task(write_task(tmp_path, items=1)), corpus))
    assert made.microusd.figures == (0.0, 0.0, 0.0)  # it is free
    assert made.tokens.low >= 1
    assert made.tokens.high <= 2 * (200 + MAX_TOKENS)
