"""Runs that are submitted to a service: by name or with their files, once, to their end, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from time import monotonic, sleep
from typing import Any
from urllib.request import Request, urlopen

import pytest
from serve_samples import OPENAI, USE, mock_child, new_token, served, served_by_child
from task_samples import write_label_task, write_text_task

from corpusgen.corpus import Corpus, utc_now
from corpusgen.errors import CorpusgenError
from corpusgen.serve import runs as runs_module
from corpusgen.serve.bus import Bus
from corpusgen.serve.callers import LOCAL, Caller
from corpusgen.serve.runs import OVER, Runs, SubmittedRun
from corpusgen.serve.statuses import Refused
from corpusgen.serve.submitted import Wanted
from corpusgen.serve.tokens import revoke
from corpusgen.stages.verifying import verify

PROMPT = """---
name: words
licence: Apache-2.0
api: chat
inputs: [word]
---
user:
Say something about {word}.
"""


def inline(*, items: int = 6, **changes: Any) -> dict[str, Any]:
    """A spec that asks the service's mock, with its files."""
    spec = {
        "name": "words",
        "prompt": "prompt.md",
        "input": "word",
        "kind": "response",
        "intended_use": {"student_distribution": "internal", "student_competes": "no", "commercial": False},
        "sources": [{"id": "words", "title": "Words", "licence": "CC0-1.0"}],
        "seeds": {"train": {"path": "words.jsonl", "source": "words"}},
        "asking": {"order": "file"},
        "teachers": [{"model": OPENAI}],
    } | changes
    words = "".join(json.dumps({"id": f"w{at}", "word": f"word {at}"}) + "\n" for at in range(items))
    return {"spec": spec, "files": {"prompt.md": PROMPT, "words.jsonl": words}}


async def over(runs: Runs, named: str) -> SubmittedRun:
    """A run once it has ended."""
    async with asyncio.timeout(60):
        while (run := runs.find(named)).state not in OVER:  # noqa: ASYNC110 - nobody tells a test
            await asyncio.sleep(0.02)
    return run


@pytest.fixture
def corpus(tmp_path: Path) -> Iterator[Corpus]:
    with Corpus.open(tmp_path / "corpus") as opened:
        yield opened


@contextmanager
def refused(status: int, *words: str) -> Iterator[None]:
    with pytest.raises(CorpusgenError) as caught:
        yield
    from corpusgen.serve.statuses import as_refused

    assert as_refused(caught.value).status == status, caught.value
    assert all(word in str(caught.value) for word in words), caught.value


async def test_a_task_of_the_folder_runs_to_its_end(corpus: Corpus, tmp_path: Path) -> None:
    write_text_task(tmp_path / "tasks" / "sentences")
    runs = await Runs.open(corpus, tasks=tmp_path / "tasks")
    made = await runs.submit(Wanted(task="sentences/task.yaml"), LOCAL, {})
    run = await over(runs, made.id)
    assert (run.state, run.result and run.result["records"]) == ("complete", 12)
    assert runs.watch(made.id)["progress"]["requests"] == 12
    await runs.close()


async def test_what_a_run_spends_is_booked_on_the_service_and_its_token_too(corpus: Corpus, tmp_path: Path) -> None:
    write_text_task(tmp_path / "tasks" / "sentences")
    runs = await Runs.open(corpus, tasks=tmp_path / "tasks")
    caller = Caller(token_id="t1", user="ann", scopes=frozenset({"ask"}))
    await over(runs, (await runs.submit(Wanted(task="sentences/task.yaml"), caller, {})).id)
    ((scopes,),) = corpus.journal.query("select distinct scopes from calls")
    assert {"service", "token:t1", "user:ann", "corpus"} <= set(scopes.split("\n"))
    await runs.close()


@pytest.mark.parametrize(
    "name",
    ["../t.yaml", "/etc/passwd", "sentences/../../t.yaml", "sentences\\task.yaml", "", ".", "link/task.yaml", "a\0b"],
)
async def test_a_path_out_of_the_tasks_folder_names_nothing(corpus: Corpus, tmp_path: Path, name: str) -> None:
    write_text_task(tmp_path / "tasks" / "sentences")
    write_text_task(tmp_path / "outside")
    (tmp_path / "tasks" / "link").symlink_to(tmp_path / "outside")
    (tmp_path / "t.yaml").write_text("name: t\n")
    runs = await Runs.open(corpus, tasks=tmp_path / "tasks")
    with refused(404, "no spec"):
        await runs.submit(Wanted(task=name), LOCAL, {})
    assert "link/task.yaml" not in [one["task"] for one in runs.tasks()]
    await runs.close()


async def test_a_spec_with_its_files_asks_the_services_teacher(tmp_path: Path) -> None:
    async with served(tmp_path) as one:
        got = await one.post("/api/v1/runs", inline())
        assert got.status == 200, got.text
        run = await over(one.service.runs, got.json["run"]["id"])
        assert (run.state, run.reason) == ("complete", None)
        assert one.mock.bill.to_json()["requests"] == 6


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"teachers": [{"model": OPENAI, "base_url": "http://10.0.0.1/v1"}]}, "teachers.0.base_url"),
        ({"teachers": [{"model": OPENAI, "key_env": "HOME"}]}, "teachers.0.key_env"),
        ({"teachers": [{"name": "endpoint/elsewhere"}]}, "no teacher of this service"),
        ({"teachers": [{"model": OPENAI, "parameters": {"mcp_servers": ["http://x"]}}]}, "may not be set"),
        ({"teachers": [{"model": OPENAI, "parameters": {"max_tokens": 65}}]}, "at most 64"),
        ({"teachers": [{"model": OPENAI, "free": True}]}, "teachers.0.free"),
        ({"prompt": "/etc/passwd"}, "neither one of files"),
        ({"prompt": "../../journal.sqlite"}, "neither one of files"),
        ({"sources": [{"id": "words", "title": "W", "licence": "CC0-1.0", "notice": "/etc/hostname"}]}, "notice"),
        ({"terms_files": ["words.jsonl"]}, "service's to say"),
        ({"agreements": [{"id": "a", "host": "x"}]}, "service's to say"),
        ({"tools": [{"type": "mcp", "server_url": "http://10.0.0.1"}]}, "only functions"),
        ({"curate": {"judge": {"teacher": {"name": "x/y", "base_url": "http://x"}, "prompt": "prompt.md"}}}, "judge"),
        ({"nonsense": 1}, "no such field"),
    ],
)
async def test_a_submitted_spec_chooses_no_address_price_file_or_terms(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    async with served(tmp_path) as one:
        got = await one.post("/api/v1/runs", inline(**changes))
        assert (got.status, words in got.text) == (400, True), got.text
        assert not one.service.runs.list()
        assert one.mock.bill.to_json()["requests"] == 0


async def test_nothing_is_kept_of_a_spec_that_cannot_be_run(tmp_path: Path) -> None:
    async with served(tmp_path) as one:
        body = inline()
        got = await one.post("/api/v1/runs", {**body, "files": {**body["files"], "prompt.md": "no head"}})
        assert got.status == 400, got.text
        assert not list((one.corpus.folder / "service" / "specs").iterdir())


@pytest.mark.parametrize("name", ["../x", "a/b", ".hidden", "task.yaml", "", "a\nb"])
async def test_a_file_of_a_spec_has_a_plain_name(tmp_path: Path, name: str) -> None:
    async with served(tmp_path) as one:
        body = inline()
        got = await one.post("/api/v1/runs", {**body, "files": {**body["files"], name: "x"}})
        assert (got.status, "plain name" in got.text) == (400, True), got.text


async def test_a_plan_says_price_and_policy_and_sends_nothing(tmp_path: Path) -> None:
    async with served(tmp_path) as one:
        got = (await one.post("/api/v1/runs", {**inline(), "dry_run": True})).json
        assert got["run"] is None
        assert (got["plan"]["policy"], got["plan"]["to_send"]) == ("allow", 6)
        assert got["plan"]["microusd"]["high"] >= got["plan"]["microusd"]["low"] > 0
        assert one.mock.bill.to_json()["requests"] == 0
        assert not (one.corpus.folder / "service").exists()


async def test_the_same_task_with_another_description_goes_on_as_the_same_run(tmp_path: Path) -> None:
    async with served(tmp_path) as one:
        found = set()
        for told in ("one", "another"):
            got = await one.post("/api/v1/runs", inline(description=told))
            found.add((await over(one.service.runs, got.json["run"]["id"])).run_id)
        assert len(found) == 1


async def test_a_budget_that_is_used_up_is_a_state_with_its_figures(tmp_path: Path) -> None:
    async with served(tmp_path) as one:
        got = await one.post("/api/v1/runs", {**inline(), "budget": {"requests": 2}})
        run = await over(one.service.runs, got.json["run"]["id"])
        assert (run.state, run.error) == ("exhausted", "BudgetExhausted")
        assert "cap of 2 requests" in (run.reason or "")
        assert one.mock.bill.to_json()["requests"] <= 2


async def test_what_was_answered_before_costs_nothing_and_the_saving_is_told(tmp_path: Path) -> None:
    async with served(tmp_path) as one:
        for _ in range(2):
            got = await one.post("/api/v1/runs", inline())
            run = await over(one.service.runs, got.json["run"]["id"])
        assert (run.result or {})["known"] == 6
        assert (
            one.service.runs.watch(run.id)["progress"]["saved_microusd"] == one.mock.bill.to_json()["billed_microusd"]
        )
        assert one.mock.bill.to_json()["requests"] == 6


async def test_cancelling_lets_calls_in_flight_end_and_keeps_them(tmp_path: Path) -> None:
    async with served(tmp_path, latency_s=0.05) as one:
        got = await one.post("/api/v1/runs", inline(items=400))
        named = got.json["run"]["id"]
        while not one.service.runs.watch(named)["progress"]["done"]:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        assert (await one.post(f"/api/v1/runs/{named}/cancel", {})).status == 200
        run = await over(one.service.runs, named)
        assert (run.state, run.reason) == ("cancelled", "cancelled by local")
        (left,) = one.corpus.journal.query("select count(*) from calls where state = 'promised'")[0]
        (answers,) = one.corpus.journal.query("select count(*) from answers")[0]
        assert (left, answers) == (0, one.mock.bill.to_json()["requests"])
        assert (await one.post(f"/api/v1/runs/{named}/cancel", {})).status == 409


async def test_only_who_submitted_a_run_or_an_administrator_cancels_it(corpus: Corpus, tmp_path: Path) -> None:
    write_text_task(tmp_path / "tasks" / "sentences")
    runs = await Runs.open(corpus, tasks=tmp_path / "tasks", at_once=0)
    ann, bob = (Caller(token_id=name, user=name, scopes=frozenset({"ask"})) for name in ("ann", "bob"))
    made = await runs.submit(Wanted(task="sentences/task.yaml"), ann, {})
    with refused(403, "ann"):
        await runs.cancel(made.id, bob)
    assert (await runs.cancel(made.id, ann)).state == "cancelled"
    await runs.close()


async def test_a_token_bound_to_a_task_or_a_use_submits_no_other(corpus: Corpus, tmp_path: Path) -> None:
    write_text_task(tmp_path / "tasks" / "sentences")
    runs = await Runs.open(corpus, tasks=tmp_path / "tasks")
    for bound in ({"task": "other"}, {"intended_use": {"student_distribution": "hosted"}}):
        with refused(403, "bound to"):
            caller = Caller(token_id="t", user="ann", scopes=frozenset({"ask"}), **bound)
            await runs.submit(Wanted(task="sentences/task.yaml"), caller, {})
    await runs.close()


@pytest.mark.parametrize("how", ["was revoked", "is over"])
async def test_a_run_ends_with_its_token_before_it_begins(tmp_path: Path, how: str) -> None:
    late = timedelta(0)
    async with served(tmp_path, corpus={"clock": lambda: utc_now() + late}, at_once=0) as one:
        token, secret = new_token(one.corpus, "ask", "read", name="gone", days=1)
        named = (await one.post("/api/v1/runs", inline(), token=secret)).json["run"]["id"]
        if how == "is over":
            late = timedelta(days=2)
        else:
            revoke(one.corpus, token.token_id, by="root")
        one.service.runs.at_once = 1
        run = await over(one.service.runs, named)
        assert (run.state, run.reason) == ("cancelled", f"its token 'gone' {how}")
        assert one.bill["requests"] == 0


async def test_a_run_whose_token_is_revoked_while_it_opens_sends_nothing(tmp_path: Path) -> None:
    async with served(tmp_path) as one:
        admin, secret = one.token("admin"), one.token("ask", "read", name="gone")
        named = (await one.post("/api/v1/runs", inline(items=20), token=secret)).json["run"]["id"]
        await one.send("DELETE", "/api/v1/tokens/gone", headers={"Authorization": f"Bearer {admin}"})
        assert (await over(one.service.runs, named)).state == "cancelled"
        assert one.bill["requests"] == 0


async def test_a_run_that_goes_on_ends_with_its_token_and_keeps_what_was_in_flight(tmp_path: Path) -> None:
    async with served(tmp_path, latency_s=0.2) as one:
        token, secret = new_token(one.corpus, "ask", "read", name="gone")
        named = (await one.post("/api/v1/runs", inline(items=400), token=secret)).json["run"]["id"]
        while not one.bill["requests"]:  # noqa: ASYNC110 - nobody tells a test
            await asyncio.sleep(0.02)
        revoke(one.corpus, token.token_id, by="root")
        run = await over(one.service.runs, named)
        assert (run.state, run.reason) == ("cancelled", "its token 'gone' was revoked")
        assert 0 < one.bill["requests"] < 400
        assert one.corpus.journal.query("select count(*) from records") == [(one.bill["requests"],)]
        assert not [found for found in verify(one.corpus) if found.check in ("ledger", "balances")]


async def test_a_submission_that_is_refused_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with served(tmp_path, at_once=0) as one:
        kept = one.service.runs.rules.kept
        assert (await one.post("/api/v1/runs", inline(items=1))).status == 200
        monkeypatch.setattr(runs_module, "MOST_WAITING", 1)
        assert (await one.post("/api/v1/runs", inline(items=2))).status == 429
        monkeypatch.setattr(runs_module, "_check_room", refuses_the_second_time())
        assert (await one.post("/api/v1/runs", inline(items=3))).status == 429
        assert len(list(kept.iterdir())) == 1


def refuses_the_second_time() -> Callable[[int], None]:
    times = iter(range(9))

    def check(waiting: int) -> None:
        if next(times):
            raise Refused(429, f"{waiting} are waiting")

    return check


async def test_specs_of_runs_that_are_long_over_are_let_go(tmp_path: Path) -> None:
    late = timedelta(0)
    async with served(tmp_path, corpus={"clock": lambda: utc_now() + late}) as one:
        runs = one.service.runs
        first = await over(runs, (await one.post("/api/v1/runs", inline(items=1))).json["run"]["id"])
        runs.at_once = 0
        runs._prune()
        assert [kept.name for kept in runs.rules.kept.iterdir()] == [first.source["spec"]]
        late = timedelta(days=31)
        named = (await one.post("/api/v1/runs", inline(items=2))).json["run"]["id"]
        runs._prune()
        assert [kept.name for kept in runs.rules.kept.iterdir()] == [runs.find(named).source["spec"]]


@pytest.mark.parametrize("dry_run", [True, False])
@pytest.mark.parametrize(
    "files", [{"words.jsonl": "nonsense"}, {"prompt.md": "x"}, {"words.jsonl": ""}], ids=["seeds", "prompt", "empty"]
)
async def test_mistakes_are_told_of_files_as_they_were_sent(
    tmp_path: Path, dry_run: bool, files: dict[str, str]
) -> None:
    async with served(tmp_path, at_once=0) as one:
        sent = inline()
        got = await one.post("/api/v1/runs", {**sent, "files": sent["files"] | files, "dry_run": dry_run})
        assert not any(part in got.text for part in ("corpusgen-spec-", "/specs/", str(tmp_path))), got.text
        assert got.status == 200 or next(iter(files)) in got.text, got.text


async def test_a_file_that_changed_since_ends_the_run_with_that_reason(corpus: Corpus, tmp_path: Path) -> None:
    spec = write_text_task(tmp_path / "tasks" / "sentences")
    waiting = await Runs.open(corpus, tasks=tmp_path / "tasks", at_once=0)
    made = await waiting.submit(Wanted(task="sentences/task.yaml"), LOCAL, {})
    await waiting.close()
    (spec.parent / "prompt.md").write_text((spec.parent / "prompt.md").read_text() + "More.\n")
    runs = await Runs.open(corpus, tasks=tmp_path / "tasks")
    run = await over(runs, made.id)
    assert run.state == "failed"
    assert "prompt.md changed" in (run.reason or "")
    await runs.close()


async def test_a_run_that_was_stopped_with_the_service_goes_on_at_the_next_start(
    corpus: Corpus, tmp_path: Path
) -> None:
    write_label_task(tmp_path / "tasks" / "kinds", latency_s=0.02)
    runs = await Runs.open(corpus, tasks=tmp_path / "tasks")
    made = await runs.submit(Wanted(task="kinds/task.yaml"), LOCAL, {})
    while not runs.watch(made.id)["progress"]["done"]:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    await runs.close()
    assert runs.find(made.id).state == "waiting"
    again = await Runs.open(corpus, tasks=tmp_path / "tasks")
    assert (await over(again, made.id)).state == "complete"
    await again.close()
    assert not [one for one in verify(corpus) if one.check in ("ledger", "balances")]


async def test_two_services_over_one_corpus_run_each_run_once(corpus: Corpus, tmp_path: Path) -> None:
    for name in ("one", "two", "three"):
        write_text_task(tmp_path / "tasks" / name, name=name)
    with Corpus.open(tmp_path / "corpus") as other:
        both = [await Runs.open(each, tasks=tmp_path / "tasks", at_once=2) for each in (corpus, other)]
        ids = [
            (await both[0].submit(Wanted(task=f"{name}/task.yaml"), LOCAL, {})).id
            for name in ("one", "two", "three", "one")
        ]
        assert [(await over(both[1], named)).state for named in ids] == ["complete"] * 4
        for runs in both:
            await runs.close()
    assert corpus.journal.query("select count(*), count(distinct request_key) from calls") == [(12, 12)]


async def test_who_watches_hears_of_runs_that_another_service_works_on(corpus: Corpus, tmp_path: Path) -> None:
    write_text_task(tmp_path / "tasks" / "sentences")
    with Corpus.open(tmp_path / "corpus") as other:
        bus = Bus()
        watching = await Runs.open(other, tasks=tmp_path / "tasks", bus=bus, at_once=0)
        heard = bus.listen(bus.last)
        working = await Runs.open(corpus, tasks=tmp_path / "tasks")
        made = await working.submit(Wanted(task="sentences/task.yaml"), LOCAL, {})
        async with asyncio.timeout(30):
            async for event in heard:
                if event.kind == "run" and event.payload["state"] in OVER:
                    break
        assert (event.payload["id"], event.payload["progress"]["done"]) == (made.id, 12)
        for runs in (working, watching):
            await runs.close()


def _asked(url: str, body: Any = None) -> Any:
    request = Request(url, data=None if body is None else json.dumps(body).encode())
    request.add_header("Content-Type", "application/json")
    with urlopen(request, timeout=30) as got:
        return json.loads(got.read())


def _until(found: Any, *, seconds: float = 60.0) -> Any:
    ends = monotonic() + seconds
    while monotonic() < ends:
        if value := found():
            return value
        sleep(0.05)
    raise AssertionError("it never came")


def test_a_run_goes_on_after_kill_9_and_pays_for_no_answer_twice(tmp_path: Path) -> None:
    with mock_child("--latency-ms", "50") as mock:
        config = tmp_path / "service.yaml"
        config.write_text(
            f"{USE}\nbudget: {{usd: 5}}\nteachers:\n  - name: endpoint/mock-model\n    model: {OPENAI}\n"
            f"    base_url: {mock['base_url']}\n    provider: corpusgen\n    route: mock\n    in_flight: 8\n"
            '    price: {input_usd_per_mtok: "1", output_usd_per_mtok: "4", source: mock}\n'
            "    parameters: {max_tokens: 16}\n"
        )
        with served_by_child(tmp_path / "corpus", config=config) as child:
            made = _asked(f"{child.url}/api/v1/runs", inline(items=200))["run"]["id"]
            _until(lambda: _asked(f"{child.url}/api/v1/runs/{made}")["progress"]["done"] > 20)
            os.kill(child.process.pid, signal.SIGKILL)
            child.process.wait()
        with served_by_child(tmp_path / "corpus", config=config) as child:
            run = _until(lambda: (one := _asked(f"{child.url}/api/v1/runs/{made}"))["state"] in OVER and one)
            child.end()
        assert run["state"] == "complete", run
        with Corpus.open(tmp_path / "corpus") as corpus:
            found = corpus.journal.query("select state, count(*) from calls group by 1")
            answers, records = (
                corpus.journal.query(f"select count(*) from {name}")[0][0] for name in ("answers", "records")
            )
            assert (answers, records) == (200, 200)
            assert dict(found).get("unknown", 0) <= 8
            assert not [one for one in verify(corpus) if one.check in ("ledger", "balances")]
