"""The API of a service: money, leases, answers, datasets, records, rights, questions, files and events."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import shutil
import tarfile
import tempfile
import threading
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from serve_samples import CHAT, Answer, Served, new_token, served
from task_samples import write_label_task
from test_serve_runs import inline, over

from corpusgen.corpus import Corpus, utc_now
from corpusgen.pipeline import Distillation, distill
from corpusgen.records import Message, Request
from corpusgen.serve import claims
from corpusgen.serve.api.events import MOST_STREAMS
from corpusgen.serve.callers import LOCAL, Caller
from corpusgen.serve.slowly import Slowly
from corpusgen.serve.statuses import Refused
from corpusgen.stages.loading import load_task
from corpusgen.stages.reconciling import accept, unconfirmed
from corpusgen.stages.verifying import verify

TEACHER = "endpoint/mock-model"


@pytest.fixture
async def one(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path) as service:
        yield service


@pytest.fixture(scope="module")
def distilled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a task and a corpus that was distilled from it: a sealed dataset, a student, records."""
    folder = tmp_path_factory.mktemp("distilled")
    spec = write_label_task(folder / "tasks" / "kinds")
    with Corpus.open(folder / "corpus") as corpus:
        asyncio.run(distill(Distillation(task=load_task(spec), corpus=corpus), report=folder / "report.html"))
    return folder


@pytest.fixture
async def made(distilled: Path, tmp_path: Path) -> AsyncIterator[Served]:
    """A service over a corpus with everything in it."""
    shutil.copytree(distilled, tmp_path, dirs_exist_ok=True)
    async with served(tmp_path, tasks=tmp_path / "tasks") as service:
        yield service


def sound(one: Served) -> bool:
    """Whether the books add up."""
    return not [found for found in verify(one.corpus) if found.check in ("ledger", "balances")]


# --- Who may do what --------------------------------------------------------------------------------------------------

BY_SCOPE = {
    "read": ("GET", "/api/v1/budgets"),
    "lend": ("GET", "/api/v1/leases"),
    "legal": ("GET", "/api/v1/audit"),
    "admin": ("GET", "/api/v1/tokens"),
}


@pytest.mark.parametrize("scope", BY_SCOPE)
async def test_a_token_does_what_its_scopes_cover_and_nothing_else(one: Served, scope: str) -> None:
    token = one.token(scope)
    for needed, (method, path) in BY_SCOPE.items():
        got = await one.send(method, path, headers={"Authorization": f"Bearer {token}"})
        assert got.status == (200 if scope in (needed, "admin") else 403), (scope, needed, got.text)
    assert (await one.get("/api/v1/budgets")).status == 401


async def test_the_description_of_the_api_needs_no_token(one: Served) -> None:
    one.token("read")
    assert (await one.get("/api/v1/openapi.json")).json["openapi"] == "3.1.0"


# --- Money ------------------------------------------------------------------------------------------------------------


async def test_a_budget_set_by_the_api_binds_and_stands_in_the_ledger_of_events(one: Served) -> None:
    admin = one.token("admin", user="root")
    wish = {"scope": "user:ann", "per": "day", "caps": {"microusd": 5_000_000, "requests": 3}}
    got = await one.send("PUT", "/api/v1/budgets", json=wish, headers={"Authorization": f"Bearer {admin}"})
    assert {(cap["unit"], cap["cap"], cap["per"]) for cap in got.json["balances"]} == {
        ("microusd", 5_000_000, "day"),
        ("requests", 3, "day"),
    }
    ((text,),) = one.corpus.journal.query(
        "select payload from events where kind = 'administered' and payload like '%budget_set%'"
    )
    noted = json.loads(text)
    assert (noted["by"], noted["scope"], noted["before"]) == ("root", "user:ann", {})
    assert noted["after"] == {"microusd": 5_000_000, "requests": 3}


@pytest.mark.parametrize("scope", ["corpus@2026-01-01", "planet:earth", "teacher:", "run:nobody", "user:a\nb", ""])
async def test_a_scope_that_cannot_be_gets_no_cap(one: Served, scope: str) -> None:
    got = await one.send("PUT", "/api/v1/budgets", json={"scope": scope, "caps": {"requests": 1}})
    assert got.status == 400, got.text


# --- Leases -----------------------------------------------------------------------------------------------------------


async def lease(one: Served, token: str | None = None, **changes: Any) -> Answer:
    wish = {"teacher": TEACHER, "amounts": {"microusd": 1_000_000, "requests": 10}, "seconds": 60} | changes
    return await one.post("/api/v1/leases", wish, token=token)


def balance(one: Served, scope: str, unit: str = "microusd") -> tuple[int, int, int]:
    rows = one.corpus.journal.query(
        "select settled, promised, unconfirmed from balances where scope = ? and unit = ?", (scope, unit)
    )
    return tuple(rows[0]) if rows else (0, 0, 0)


async def test_a_lease_is_promised_in_every_scope_and_returned_as_what_was_used(one: Served) -> None:
    got = await lease(one, run="r1")
    assert got.status == 201, got.text
    scopes = ["run:local/r1", "corpus", f"teacher:{TEACHER}", "service", "user:local", "token:local"]
    assert got.json["scopes"] == scopes
    assert [balance(one, scope) for scope in scopes] == [(0, 1_000_000, 0)] * 6
    calls = [
        {"request_key": "ab" * 32, "state": "settled", "microusd": 300_000, "requests": 1},
        {"request_key": "cd" * 32, "state": "unknown", "microusd": 100_000, "requests": 1},
    ]
    back = await one.post(f"/api/v1/leases/{got.json['lease']}/return", {"calls": calls})
    assert back.json["freed"] == {"microusd": 600_000, "tokens": 0, "requests": 8, "compute_us": 0}
    assert [balance(one, scope) for scope in scopes] == [(300_000, 0, 100_000)] * 6
    assert sound(one)


async def test_a_lease_returned_twice_is_booked_once(one: Served) -> None:
    named = (await lease(one)).json["lease"]
    totals = {"totals": {"microusd": 7, "requests": 2}}
    first, second = [await one.post(f"/api/v1/leases/{named}/return", totals) for _ in range(2)]
    assert (first.status, first.json) == (200, second.json)
    assert balance(one, "corpus") == (7, 0, 0)
    assert sound(one)


async def test_what_is_reported_beyond_what_was_lent_is_booked_on_the_token_alone(one: Served) -> None:
    got = await lease(one, amounts={"microusd": 10})
    back = await one.post(f"/api/v1/leases/{got.json['lease']}/return", {"totals": {"microusd": 25, "requests": 1}})
    assert (back.status, back.json["settled"]["microusd"], back.json["overrun"]["microusd"]) == (200, 25, 15)
    assert [balance(one, scope) for scope in got.json["scopes"]] == [(10, 0, 0)] * 4 + [(25, 0, 0)]
    assert one.corpus.journal.query("select state, microusd, scopes from calls where state = 'overrun'") == [
        ("overrun", 15, "token:local")
    ]
    assert (await one.post("/v1/chat/completions", CHAT)).status == 200
    (listed,) = unconfirmed(one.corpus)
    assert (listed["microusd"], "beyond what was lent" in listed["error"]) == (15, True)
    accept(one.corpus, [listed["call_id"]], by="root", reason="the machine showed its bill")
    assert unconfirmed(one.corpus) == []
    assert sound(one)


async def test_a_late_report_beyond_what_was_lent_is_booked_on_the_token_alone_too(tmp_path: Path) -> None:
    late = timedelta(0)
    async with served(tmp_path, corpus={"clock": lambda: utc_now() + late}) as one:
        named = (await lease(one, seconds=1, amounts={"microusd": 10})).json["lease"]
        late = timedelta(minutes=1)
        await lease(one, amounts={"requests": 1})
        calls = [{"request_key": key * 32, "state": "settled", "microusd": 8} for key in ("ab", "cd")]
        await one.post(f"/api/v1/leases/{named}/return", {"calls": calls})
        assert (balance(one, "corpus"), balance(one, "token:local")) == ((10, 0, 0), (16, 0, 0))
        assert sound(one)


@pytest.mark.parametrize("unit", ["microusd", "tokens"])
async def test_figures_that_cannot_be_are_refused(one: Served, unit: str) -> None:
    named = (await lease(one)).json["lease"]
    absurd = {"totals": {unit: 10**12 + 1}}
    together = {"calls": [{"request_key": "ab" * 32, "state": "settled", unit: 6 * 10**11}] * 2}
    for body in (absurd, together):
        assert (await one.post(f"/api/v1/leases/{named}/return", body)).status == 400
    assert balance(one, "corpus")[0] == 0


@pytest.mark.parametrize("teacher", ["nobody/here", f"{TEACHER}@2026-11-22"])
async def test_a_lease_is_for_a_teacher_of_the_service(one: Served, teacher: str) -> None:
    got = await lease(one, teacher=teacher)
    assert (got.status, TEACHER in got.text) == (404, True), got.text
    assert one.corpus.journal.query("select count(*) from leases") == [(0,)]


async def test_a_run_elsewhere_is_never_one_of_this_corpus_nor_of_another_user(one: Served) -> None:
    ann, eve = (one.token("ask", "lend", name=name, user=name) for name in ("ann", "eve"))
    assert (await one.post("/v1/chat/completions", CHAT, token=ann)).status == 200
    ((run_id,),) = one.corpus.journal.query("select run_id from runs")
    got = await lease(one, eve, run=run_id, run_caps={"requests": 2}, amounts={"requests": 1})
    assert got.json["run"] == f"eve/{run_id}"
    told = "lease by eve with tok-"
    caps = one.corpus.journal.query("select scope, substr(origin, 1, 22) from caps where scope like 'run:%'")
    assert caps == [(f"run:eve/{run_id}", told)]
    assert [scope for scope in (await lease(one, ann, run="x")).json["scopes"] if "run:" in scope] == ["run:ann/x"]


async def test_a_token_that_may_ask_is_not_believed_in_what_it_reports(one: Served) -> None:
    token = one.token("ask", "read", "legal")
    for path in ("leases", "leases/1/return", "answers", "answers/find", "claims", "claims/release"):
        got = await one.post(f"/api/v1/{path}", {"nonsense": True}, token=token)
        assert (got.status, "lend" in got.text) == (403, True), got.text


async def test_a_lease_above_what_is_left_is_refused_with_the_figures(one: Served) -> None:
    got = await lease(one, amounts={"microusd": 6_000_000})
    assert (got.status, got.json["error"]["type"]) == (402, "BudgetExhausted")
    assert "5.000000 usd" in got.json["error"]["message"]


async def test_a_lease_that_promises_stand_in_the_way_of_may_be_asked_for_again(one: Served) -> None:
    assert (await lease(one, amounts={"microusd": 4_000_000})).status == 201
    got = await lease(one, amounts={"microusd": 4_000_000})
    assert (got.status, got.header("Retry-After")) == (429, "1")


async def test_a_lease_nobody_reported_on_is_unconfirmed_whole_and_a_late_report_puts_it_right(
    tmp_path: Path,
) -> None:
    late = timedelta(0)
    async with served(tmp_path, corpus={"clock": lambda: utc_now() + late}) as one:
        named = (await lease(one, seconds=1)).json["lease"]
        late = timedelta(minutes=1)
        assert (await lease(one, amounts={"requests": 1})).status == 201
        assert balance(one, "corpus") == (0, 0, 1_000_000)
        states = {found["lease"]: found["state"] for found in (await one.get("/api/v1/leases")).json["leases"]}
        assert states[named] == "overdue"
        ((error,),) = one.corpus.journal.query("select error from calls where state = 'unknown'")
        assert "nobody had said" in error
        assert (await one.post(f"/api/v1/leases/{named}/renew", {"seconds": 60})).status == 409
        await one.post(f"/api/v1/leases/{named}/return", {"totals": {"microusd": 5, "requests": 1}})
        assert balance(one, "corpus") == (5, 0, 0)
        assert sound(one)


async def test_a_lease_lives_longer_than_the_process_that_granted_it(tmp_path: Path) -> None:
    async with served(tmp_path) as one:
        named = (await lease(one)).json["lease"]
        one.corpus.journal.run_now(lambda transaction: transaction.execute("update owners set start_ticks = -2"))
    async with served(tmp_path) as again:
        await over(again.service.runs, (await again.post("/api/v1/runs", inline(items=1))).json["run"]["id"])
        assert balance(again, "corpus")[1] == 1_000_000
        assert (await again.post(f"/api/v1/leases/{named}/renew", {"seconds": 90})).status == 200
        back = await again.post(f"/api/v1/leases/{named}/return", {"totals": {"microusd": 3}})
        assert back.json["settled"]["microusd"] == 3
        assert sound(again)


async def test_a_lease_is_nobody_elses(one: Served) -> None:
    ann, bob = one.token("lend", name="ann", user="ann"), one.token("lend", name="bob", user="bob")
    named = (await lease(one, ann)).json["lease"]
    for path, body in (("return", {}), ("renew", {"seconds": 5})):
        assert (await one.post(f"/api/v1/leases/{named}/{path}", body, token=bob)).status == 404
    assert (await one.get("/api/v1/leases", token=bob)).json == {"leases": []}
    assert (await lease(one, bob, scopes=["user:ann"])).status == 403


async def test_caps_of_a_run_elsewhere_are_put_in_force_by_its_first_lease(one: Served) -> None:
    got = await lease(one, run="far", run_caps={"requests": 12})
    assert got.status == 201
    more = await lease(one, run="far", run_caps={"requests": 1_000_000}, amounts={"requests": 100})
    assert (more.status, "cap of 12 requests for run:local/far" in more.text) == (402, True), more.text


# --- Answers of other machines ----------------------------------------------------------------------------------------


def a_request(one: Served) -> Request:
    return Request(
        teacher=f"corpusgen@{one.mock.base_url.removesuffix('/v1')}",
        model="mock-model",
        api="chat",
        messages=(Message(role="user", content="hello"),),
        parameters={"max_tokens": 8},
    )


def an_answer(about: Request, **changes: Any) -> dict[str, Any]:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hi"}}
    usage = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}
    body = {"id": "x", "object": "chat.completion", "model": "mock-model", "choices": [choice], "usage": usage}
    return {
        "request_key": about.key.hex(),
        "request": json.loads(about.body),
        "card": {
            "teacher": TEACHER,
            "provider": "corpusgen",
            "model": "mock-model",
            "route": "mock",
            "host": "127.0.0.1",
            "identity": about.teacher,
            "revision": "",
            "terms_set_id": "t",
            "terms_ids": ["corpusgen-scripted"],
            "outputs_train": "granted",
        },
        "input_tokens": 3,
        "output_tokens": 1,
        "cost_microusd": 9,
        "price_version": "mock",
        "sent": "2026-01-01T00:00:00Z",
        "received": "2026-01-01T00:00:01Z",
        "body": base64.b64encode(json.dumps(body).encode()).decode(),
    } | changes


async def report(one: Served, request: Request, token: str | None = None) -> None:
    named = (await lease(one, token)).json["lease"]
    call = {"request_key": request.key.hex(), "state": "settled", "microusd": 9, "tokens": 4}
    await one.post(f"/api/v1/leases/{named}/return", {"calls": [call]}, token=token)


async def test_an_answer_of_one_machine_is_found_by_the_next(one: Served) -> None:
    request = a_request(one)
    await report(one, request)
    got = await one.post("/api/v1/answers", {"answers": [an_answer(request)]})
    assert got.json["answers"] == [{"request_key": request.key.hex(), "kept": True, "why": ""}], got.text
    found = (await one.post("/api/v1/answers/find", {"keys": [request.key.hex(), "00" * 32]})).json
    (answer,) = found["answers"]
    assert (answer["card"]["teacher"], answer["cost_microusd"]) == (TEACHER, 9)
    assert json.loads(base64.b64decode(answer["body"]))["choices"][0]["message"]["content"] == "hi"
    assert (answer["card"]["terms_ids"], answer["card"]["outputs_train"]) == (["corpusgen-scripted"], "allowed")
    ((noted,),) = one.corpus.journal.query("select payload from events where kind = 'administered'")
    assert json.loads(noted) == {"act": "answers_taken", "by": "local", "token": "local", "calls": [1]}
    assert sound(one)


async def test_under_which_terms_an_offered_answer_was_given_is_the_services_to_say(one: Served) -> None:
    request = a_request(one)
    await report(one, request)
    offered = an_answer(request)
    offered["card"] |= {"terms_set_id": "mine", "terms_ids": ["mine"], "outputs_train": "granted-by-me"}
    assert (await one.post("/api/v1/answers", {"answers": [offered]})).json["answers"][0]["kept"]
    ((card,),) = one.corpus.journal.query("select card from answers join cards using (card_id)")
    assert "mine" not in card


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"request_key": "11" * 32}, "no call for it"),
        ({"request": {"teacher": "x"}}, "is not its key"),
        ({"body": "!!"}, "base64"),
        ({"body": base64.b64encode(b"{}").decode()}, "no answer that can be read"),
        ({"received": "2025-01-01T00:00:00Z"}, "before it was sent"),
        ({"cost_microusd": 1}, "reported for"),
        ({"card": {"identity": "openai@https://api.openai.com"}}, "no teacher of this service"),
        ({"card": {"teacher": "openai/gpt-4.1"}}, "reported for"),
        ({"card": {"host": "elsewhere"}}, "no teacher of this service"),
    ],
)
async def test_an_offered_answer_that_does_not_hold_is_not_kept(one: Served, changes: dict[str, Any], why: str) -> None:
    request = a_request(one)
    await report(one, request)
    offered = an_answer(request)
    offered |= {name: offered[name] | value if name == "card" else value for name, value in changes.items()}
    got = await one.post("/api/v1/answers", {"answers": [offered]})
    (told,) = got.json["answers"]
    assert (told["kept"], why in told["why"]) == (False, True), got.text
    assert one.corpus.journal.query("select count(*) from answers") == [(0,)]


async def test_nobody_offers_an_answer_to_a_call_that_was_not_reported_under_its_token(one: Served) -> None:
    ann, bob = one.token("lend", name="ann", user="ann"), one.token("lend", name="bob", user="bob")
    request = a_request(one)
    await report(one, request, ann)
    got = await one.post("/api/v1/answers", {"answers": [an_answer(request)]}, token=bob)
    assert "of this token" in got.json["answers"][0]["why"]


async def test_of_two_machines_one_asks(one: Served) -> None:
    ann, bob = one.token("lend", name="ann", user="ann"), one.token("lend", name="bob", user="bob")
    keys = {"keys": ["ab" * 32, "cd" * 32]}
    assert (await one.post("/api/v1/claims", keys, token=ann)).json["claimed"] == keys["keys"]
    assert (await one.post("/api/v1/claims", keys, token=bob)).json["busy"] == keys["keys"]
    await one.post("/api/v1/claims/release", {"keys": keys["keys"][:1]}, token=ann)
    assert (await one.post("/api/v1/claims", keys, token=bob)).json == {
        "claimed": keys["keys"][:1],
        "busy": keys["keys"][1:],
        "answered": [],
    }


async def test_a_token_claims_only_so_many_requests(one: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "MOST", 3)
    ann, bob = one.token("lend", name="ann", user="ann"), one.token("lend", name="bob", user="bob")

    async def claim(token: str, *keys: str) -> Answer:
        return await one.post("/api/v1/claims", {"keys": [key * 32 for key in keys], "holder": "ab"}, token=token)

    assert (await claim(ann, "aa", "bb")).status == 200
    assert (await claim(ann, "bb", "cc")).status == 200
    refused = await claim(ann, "dd")
    assert (refused.status, refused.header("Retry-After")) == (429, "5")
    assert (await claim(bob, "dd")).json["claimed"] == ["dd" * 32]


# --- Datasets, records, students --------------------------------------------------------------------------------------


async def test_a_dataset_a_student_and_a_record_tell_where_they_come_from(made: Served) -> None:
    (dataset,) = (await made.get("/api/v1/datasets")).json["datasets"]
    assert (dataset["name"], dataset["status"], dataset["licence"]) == ("kinds", "sealed", ["CC0-1.0"])
    assert (await made.get(f"/api/v1/datasets/{dataset['dataset']}")).json["rows"] == dataset["rows"] == 30
    (student,) = (await made.get("/api/v1/students")).json["students"]
    assert student["dataset"] == dataset["dataset"]
    assert (await made.get(f"/api/v1/students/{student['student_id']}")).json["evaluation"]["gold_items"] == 20
    rows = (await made.post("/api/v1/query", {"sql": "select record_id from records limit 1"})).json["rows"]
    record = rows[0]["record_id"]
    why = await made.get(f"/api/v1/records/{record}/why")
    assert why.status == 200, why.text
    assert why.json["requests"][0]["teacher"] == "scripted/test"
    assert (await made.get(f"/api/v1/records/{record}")).json["record"]["record_id"] == record


async def test_a_dataset_is_selected_and_sealed(made: Served) -> None:
    wish = {"dataset": "kinds", "task": "kinds/task.yaml", "limit": 5, "seal": True}
    got = await made.post("/api/v1/datasets", wish)
    assert got.status == 201, got.text
    assert (got.json["rows"], got.json["status"], got.json["licence"]) == (5, "sealed", ["CC0-1.0"])
    assert (await made.post("/api/v1/datasets", {"dataset": "kinds", "seal": True})).status == 400
    assert (await made.post("/api/v1/datasets", {"dataset": "nothing"})).status in (400, 409)


@pytest.mark.parametrize("path", ["records/xyz", "datasets/none", "students/none", "runs/none", "terms/n"])
async def test_what_is_not_there_is_not_found(made: Served, path: str) -> None:
    got = await made.get(f"/api/v1/{path}")
    assert (got.status, got.json["error"]["type"]) == (404, "NotFound"), got.text


# --- Questions and files ----------------------------------------------------------------------------------------------


async def test_a_question_in_sql_is_answered_in_every_form(made: Served) -> None:
    sql = "select record_id, label from records order by 1 limit 3"
    whole = (await made.post("/api/v1/query", {"sql": sql})).json
    assert (whole["columns"], len(whole["rows"]), whole["truncated"]) == (["record_id", "label"], 3, False)
    lines = await made.post("/api/v1/query", {"sql": sql, "format": "jsonl"})
    assert [json.loads(line) for line in lines.text.splitlines()] == whole["rows"]
    table = await made.post("/api/v1/query", {"sql": sql, "format": "csv"})
    assert table.text.splitlines()[0] == "record_id,label"
    parquet = await made.post("/api/v1/query", {"sql": sql, "format": "parquet"})
    assert pq.read_table(io.BytesIO(parquet.body)).to_pylist() == whole["rows"]


@pytest.mark.parametrize(
    "sql",
    ["drop table records", "select * from read_csv('/etc/passwd')", "attach 'x'", "copy (select 1) to '/tmp/x'", "sel"],
)
async def test_sql_that_would_touch_anything_is_refused(made: Served, sql: str) -> None:
    got = await made.post("/api/v1/query", {"sql": sql})
    assert (got.status, got.json["error"]["type"]) == (400, "QueryError"), got.text


async def test_a_question_that_takes_too_long_is_stopped(made: Served) -> None:
    sql = "select count(*) from range(100000000000) a, range(1000) b where a.range + b.range = 3"
    got = await made.post("/api/v1/query", {"sql": sql, "seconds": 0.5})
    assert (got.status, "stopped after" in got.text) == (400, True), got.text


async def test_of_much_long_work_at_once_some_is_told_to_come_back() -> None:
    slowly, go_on = Slowly("test", at_once=1, waiting=1), threading.Event()
    two = [asyncio.ensure_future(slowly(LOCAL, go_on.wait, 60)) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(Refused, match="come back"):
        await slowly(LOCAL, len, "third")
    go_on.set()
    assert await asyncio.gather(*two) == [True, True]
    assert await slowly(LOCAL, len, "fourth") == 6


async def test_nobody_waits_for_the_long_work_of_another_token() -> None:
    slowly, go_on = Slowly("test", at_once=3, of_one=2), threading.Event()
    eve, ann = (Caller(token_id=name, user=name, scopes=frozenset()) for name in ("eve", "ann"))
    many = [asyncio.ensure_future(slowly(eve, go_on.wait, 60)) for _ in range(10)]
    await asyncio.sleep(0)
    assert await slowly(ann, len, "mine") == 4
    with pytest.raises(Refused, match="come back"):
        await slowly(eve, len, "eleventh")
    many.pop().cancel()  # who leaves keeps the place: the thread is at work
    await asyncio.sleep(0)
    with pytest.raises(Refused, match="come back"):
        await slowly(eve, len, "eleventh")
    go_on.set()
    assert await asyncio.gather(*many) == [True] * 9


async def test_decisions_and_waivers_are_in_no_answer_for_who_may_only_read(made: Served) -> None:
    reader, lawyer = made.token("read"), made.token("read", "legal")
    for sql in (
        "select * from decisions",
        "from lineage.decisions",
        "from waivers",
        "from lineage.agreements",
    ):
        got = await made.post("/api/v1/query", {"sql": sql}, token=reader)
        assert (got.status, got.json["error"]["type"]) == (400, "QueryError"), got.text
        assert (await made.post("/api/v1/query", {"sql": sql}, token=lawyer)).status == 200, sql
    told = await made.post("/api/v1/query", {"sql": "select count(*) n from v_record"}, token=reader)
    assert told.json["rows"][0]["n"] > 0


async def test_exports_leave_nothing_behind(made: Served, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    rows = await made.post("/api/v1/exports", {"dataset": "kinds", "to": "chat"})
    assert rows.status == 200, rows.text
    assert json.loads(rows.text.splitlines()[0])["messages"][-1]["role"] == "assistant"
    card = await made.post("/api/v1/exports", {"dataset": "kinds", "to": "card", "task": "kinds/task.yaml"})
    assert (card.status, "kinds" in card.text) == (200, True), card.text
    whole = await made.post("/api/v1/exports", {"dataset": "kinds", "to": "dataset"})
    with tarfile.open(fileobj=io.BytesIO(whole.body)) as tar:
        names = tar.getnames()
    assert any(name.endswith(".parquet") for name in names)
    assert (await made.post("/api/v1/exports", {"dataset": "nothing", "to": "chat"})).status == 400
    assert not list(folder.iterdir())
    kinds = made.corpus.journal.query("select payload from events where kind = 'dataset_exported'")
    assert [json.loads(text)["by"] for (text,) in kinds] == ["local"] * 2


# --- Rights -----------------------------------------------------------------------------------------------------------


async def test_every_question_of_the_audit_is_told_and_one_is_answered(made: Served) -> None:
    told = (await made.get("/api/v1/audit")).json["questions"]
    assert len(told) == 20
    answer = await made.post("/api/v1/audit/q01", {})
    assert answer.status in (200, 400), answer.text
    easy = next(one for one in told if not any(part["default"] == "required" for part in one["parameters"]))
    got = await made.post(f"/api/v1/audit/{easy['name']}", {})
    assert (got.status, got.json["question"]) == (200, easy["number"]), got.text
    assert (await made.post(f"/api/v1/audit/{easy['name']}", {"format": "csv"})).header("Content-Type")
    assert (await made.post("/api/v1/audit/q99", {})).status == 404


async def test_a_question_names_no_file_of_this_machine(made: Served) -> None:
    got = await made.post("/api/v1/audit/q20", {"parameters": {"kept": "/etc/passwd"}})
    assert (got.status, "root:" in got.text) == (400, False), got.text


async def test_a_waiver_is_granted_in_the_callers_name_and_taken_back(one: Served) -> None:
    legal = one.token("legal", user="counsel")
    evidence = base64.b64encode(b"a letter").decode()
    until = (one.corpus.clock() + timedelta(days=30)).date().isoformat()
    terms = (await one.get("/api/v1/terms", token=legal)).json["terms"]
    told = [found["terms_id"] for found in terms]
    wish = {"terms_ids": told[:1], "reason": "agreed by letter", "evidence": evidence, "until": until}
    got = await one.post("/api/v1/waivers", wish, token=legal)
    assert got.status in (201, 400), got.text
    while got.status == 400 and told:  # not every document leaves anything open
        told.pop(0)
        got = await one.post("/api/v1/waivers", {**wish, "terms_ids": told[:1]}, token=legal)
    assert got.json["granted_by"] == "counsel"
    ((noted,),) = one.corpus.journal.query("select payload from events where payload like '%\"waiver_granted\"%'")
    assert (json.loads(noted)["by"], json.loads(noted)["act"]) == ("counsel", "waiver_granted")
    named = got.json["waiver_id"]
    gone = await one.send("DELETE", f"/api/v1/waivers/{named}", headers={"Authorization": f"Bearer {legal}"})
    assert gone.json == {"waiver_id": named, "ended": True}
    (waiver,) = (await one.get("/api/v1/waivers", token=legal)).json["waivers"]
    assert waiver["in_force"] is False


async def test_decisions_are_listed_and_a_task_is_explained(one: Served) -> None:
    await over(one.service.runs, (await one.post("/api/v1/runs", inline(items=1))).json["run"]["id"])
    (decision,) = (await one.get("/api/v1/decisions")).json["decisions"]
    assert (decision["subject"], decision["outcome"]) == (TEACHER, "allow")
    got = await one.post("/api/v1/policy/explain", inline(items=1))
    assert (got.json["outcome"], got.json["teachers"][0]["teacher"]) == ("allow", TEACHER)


# --- Tokens -----------------------------------------------------------------------------------------------------------


async def test_a_token_made_by_the_api_works_until_it_is_revoked(one: Served) -> None:
    admin = one.token("admin")
    made = await one.post("/api/v1/tokens", {"name": "notebook", "user": "ann", "scopes": ["read"]}, token=admin)
    assert made.status == 201, made.text
    secret, named = made.json["secret"], made.json["token_id"]
    assert (await one.get("/api/v1/budgets", token=secret)).status == 200
    listed = (await one.get("/api/v1/tokens", token=admin)).text
    assert named in listed
    assert secret not in listed
    gone = await one.send("DELETE", f"/api/v1/tokens/{named}", headers={"Authorization": f"Bearer {admin}"})
    assert gone.status == 200, gone.text
    assert (await one.get("/api/v1/budgets", token=secret)).status == 401


# --- Events -----------------------------------------------------------------------------------------------------------


async def events_of(one: Served, path: str, count: int, **headers: str) -> list[dict[str, str]]:
    """The first so many events of a stream, or all where it ends before."""
    found: list[dict[str, str]] = []
    async with asyncio.timeout(30), one.client.get(one.url + path, headers=headers) as got:
        assert (got.status, got.content_type) == (200, "text/event-stream")
        event: dict[str, str] = {}
        async for raw in got.content:
            name, _, value = raw.decode().rstrip("\n").partition(": ")
            if name in ("id", "event", "data"):
                event[name] = value
            elif not name and event:
                found.append(event)
                event = {}
                if len(found) == count:
                    return found
    return found


async def test_the_events_of_a_run_begin_with_how_it_stands_and_end_with_it(one: Served) -> None:
    named = (await one.post("/api/v1/runs", inline())).json["run"]["id"]
    found = await events_of(one, f"/api/v1/runs/{named}/events", 1000)
    states = [json.loads(event["data"])["state"] for event in found]
    assert states[-1] == "complete"
    assert [int(event["id"]) for event in found] == sorted(int(event["id"]) for event in found)
    over_already = await events_of(one, f"/api/v1/runs/{named}/events", 1000)
    assert [json.loads(event["data"])["state"] for event in over_already] == ["complete"]


async def test_a_reader_goes_on_where_it_left_off(one: Served) -> None:
    begun = one.service.bus.last
    for at in range(5):
        one.service.bus.tell("budget", {"scope": f"user:{at}"})
    found = await events_of(one, "/api/v1/events", 2, **{"Last-Event-ID": str(begun + 3)})
    assert [json.loads(event["data"])["scope"] for event in found] == ["user:3", "user:4"]
    assert (await one.get("/api/v1/events", Last_Event_ID="x")).status == 400


async def test_what_is_for_administrators_is_told_to_no_reader(one: Served) -> None:
    reader, begun = one.token("read"), one.service.bus.last
    one.service.bus.tell("secret", {"a": 1})
    one.service.bus.tell("budget", {"b": 2})
    headers = {"Last-Event-ID": str(begun), "Authorization": f"Bearer {reader}"}
    (event,) = await events_of(one, "/api/v1/events", 1, **headers)
    assert event["event"] == "budget"


@pytest.mark.parametrize("path", ["/api/v1/events", "/api/v1/runs/{run}/events"])
async def test_a_stream_ends_when_its_token_is_revoked(one: Served, path: str) -> None:
    one.service.runs.at_once = 0
    named = (await one.post("/api/v1/runs", inline())).json["run"]["id"]
    admin, (token, secret) = one.token("admin"), new_token(one.corpus, "read", name="spy")
    headers = {"Authorization": f"Bearer {secret}"}
    async with asyncio.timeout(30), one.client.get(one.url + path.format(run=named), headers=headers) as got:
        await got.content.readline()
        gone = await one.send(
            "DELETE", f"/api/v1/tokens/{token.token_id}", headers={"Authorization": f"Bearer {admin}"}
        )
        one.service.bus.tell("budget", {"scope": "user:later"})
        assert gone.status == 200
        assert b"user:later" not in await got.content.read()


async def test_a_stream_ends_when_its_token_is_over(tmp_path: Path) -> None:
    late = timedelta(0)
    async with served(tmp_path, corpus={"clock": lambda: utc_now() + late}) as one:
        headers = {"Authorization": f"Bearer {one.token('read', days=1)}"}
        async with asyncio.timeout(30), one.client.get(f"{one.url}/api/v1/events", headers=headers) as got:
            await got.content.readline()
            late = timedelta(days=2)
            await got.content.read()


async def test_a_token_has_only_so_many_streams(one: Served) -> None:
    open_ones = [await one.client.get(f"{one.url}/api/v1/events") for _ in range(MOST_STREAMS)]
    assert {got.status for got in open_ones} == {200}
    assert (await one.get("/api/v1/events")).status == 429
    for got in open_ones:
        got.close()
    async with asyncio.timeout(30):
        while True:  # the service hears a moment later that they are gone
            async with one.client.get(f"{one.url}/api/v1/events") as got:
                if got.status == 200:
                    return
            await asyncio.sleep(0.05)


async def test_the_gateways_calls_are_seen_in_the_figures(one: Served) -> None:
    assert (await one.post("/v1/chat/completions", CHAT)).status == 200
    balances = (await one.get("/api/v1/budgets")).json["balances"]
    spent = {found["scope"]: found["settled"] for found in balances if found["unit"] == "microusd"}
    assert spent["corpus"] == spent["service"] == spent["user:local"] > 0
