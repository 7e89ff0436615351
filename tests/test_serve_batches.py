"""Batches of calls through the service, by the vendors' own clients: recorded, half price, restart-safe."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import anthropic
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from serve_samples import ANTHROPIC, OPENAI, USE, Answer, Child, Served, mock_child, served, served_by_child

from corpusgen.corpus import Corpus
from corpusgen.evaluate.report.wording import dollars
from corpusgen.mock.server import Options, mock_teacher
from corpusgen.serve.batches.file_form import file_name, form_in
from corpusgen.serve.batches.lines import read_lines
from corpusgen.serve.batches.work import AT_ONCE
from corpusgen.serve.statuses import Refused
from corpusgen.stages.erasure.erasing import erase
from corpusgen.stages.erasure.reaching import Selector
from corpusgen.stages.verifying import verify

LIVE, SEVERAL = "one-by-one", "several"
"""A teacher that takes no batches, and one that gives several answers to a call, which batches do not."""
CHATS: Final = "/v1/chat/completions"
QUICK: dict[str, Any] = {"batch_delay_s": 0.3}
ENDED = ("completed", "failed", "expired", "cancelled")


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mock takes any key as Anthropic's; a client of the vendor needs one."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-for-the-mock-0123456789")


def config_for(base_url: str, *, budget: str = "{usd: 5}", more: str = "") -> str:
    """A service.yaml that asks the mock: as OpenAI, as Anthropic, and as somebody who takes no batches."""
    half = 'tiers: {batch: {input_usd_per_mtok: "0.5", output_usd_per_mtok: "2"}}'
    price = f'{{input_usd_per_mtok: "1", output_usd_per_mtok: "4", source: mock teacher, {half}}}'
    own = f"base_url: {base_url}, provider: corpusgen, route: mock, price: {price}, parameters: {{max_tokens: 64}}"
    alone = f"base_url: {base_url}, provider: qwen, route: self_hosted, free: true, parameters: {{max_tokens: 64}}"
    return f"""\
{USE}
budget: {budget}
teachers:
  - {{name: endpoint/mock-model, model: {OPENAI}, {own}}}
  - {{name: anthropic/claude-mock, model: {ANTHROPIC}, {own}}}
  - {{name: openai/gpt-4.1, model: {SEVERAL}, key_env: ANTHROPIC_API_KEY, {own}}}
  - {{name: endpoint/Qwen/Qwen3-8B, model: {LIVE}, in_flight: 8, {alone}}}
{more}"""


@asynccontextmanager
async def batched(folder: Path, *, config: Callable[[str], str] = config_for, **options: Any) -> AsyncIterator[Served]:
    """A service of these teachers in front of a mock of its own."""
    about = {name: options.pop(name) for name in ("mock", "corpus") if name in options}
    async with AsyncExitStack() as stack:
        mock = about.pop("mock", None) or await stack.enter_async_context(mock_teacher(Options(**QUICK | options)))
        yield await stack.enter_async_context(served(folder, mock=mock, config=config(mock.base_url), **about))


def chat(text: str, model: str = OPENAI, **fields: Any) -> dict[str, Any]:
    """The body of a line."""
    return {"model": model, "max_tokens": 16, "messages": [{"role": "user", "content": text}], **fields}


def lines_of(bodies: Sequence[Mapping[str, Any]], url: str = CHATS) -> bytes:
    """A file of calls."""
    rows = [{"custom_id": f"c{at}", "method": "POST", "url": url, "body": body} for at, body in enumerate(bodies)]
    return b"\n".join(json.dumps(row).encode() for row in rows)


def questions(count: int, model: str = OPENAI, about: str = "question") -> list[dict[str, Any]]:
    """The bodies of so many lines."""
    return [chat(f"{about} {at}", model) for at in range(count)]


def an_openai(one: Served | Child, token: str = "any") -> openai.AsyncOpenAI:
    """The vendor's own client."""
    return openai.AsyncOpenAI(base_url=f"{one.url}/v1", api_key=token, max_retries=0)


def an_anthropic(one: Served, token: str = "any") -> anthropic.AsyncAnthropic:
    """The vendor's own client."""
    return anthropic.AsyncAnthropic(base_url=one.url, api_key=token, max_retries=0)


async def sent(client: openai.AsyncOpenAI, content: bytes, url: Any = CHATS, **headers: str) -> Any:
    """A batch of a file's calls, as it begins."""
    file = await client.files.create(file=("calls.jsonl", content), purpose="batch")
    return await client.batches.create(
        input_file_id=file.id, endpoint=url, completion_window="24h", extra_headers=headers
    )


async def over(client: openai.AsyncOpenAI, batch: Any) -> Any:
    """The batch when it has ended."""
    while batch.status not in ENDED:
        await asyncio.sleep(0.05)
        batch = await client.batches.retrieve(batch.id)
    return batch


async def rows_in(client: openai.AsyncOpenAI, file_id: str | None) -> dict[str, Any]:
    """The lines of a file of results, by their custom id; none where there is no file."""
    if file_id is None:
        return {}
    text = (await client.files.content(file_id)).text
    rows = [json.loads(line) for line in text.splitlines()]
    return {row["custom_id"]: row for row in rows}


async def asked(client: openai.AsyncOpenAI, content: bytes, **headers: str) -> tuple[Any, dict[str, Any]]:
    """A batch that has ended, and every line of its results."""
    batch = await over(client, await sent(client, content, **headers))
    return batch, await rows_in(client, batch.output_file_id) | await rows_in(client, batch.error_file_id)


def sound(one: Served) -> bool:
    """Whether the books add up and nothing is owed."""
    open_calls = one.corpus.journal.query("select count(*) from calls where state in ('promised', 'unknown')")
    return open_calls == [(0,)] and not [found for found in verify(one.corpus) if found.check in ("ledger", "balances")]


# --- the vendors' own clients -----------------------------------------------------------------------------------------


async def test_openais_async_client_has_a_file_answered_at_half_the_price_and_every_line_is_a_record(
    tmp_path: Path,
) -> None:
    async with batched(tmp_path) as one, an_openai(one) as client:
        batch, rows = await asked(client, lines_of(questions(7)))
        assert (batch.status, batch.request_counts.completed, batch.request_counts.failed) == ("completed", 7, 0)
        assert batch.error_file_id is None
        for at in range(7):
            response = rows[f"c{at}"]["response"]
            assert (response["status_code"], response["body"]["object"]) == (200, "chat.completion")
        assert set(one.bill["by_kind"]) == {"batch"}
        (batches,) = one.bill["batches"].values()
        assert batches["requests"] == 7
        ((settled, records),) = one.corpus.journal.query(
            "select (select settled from balances where scope = 'service' and unit = 'microusd'),"
            " (select count(*) from records)"
        )
        whole = batch.usage.input_tokens + 4 * batch.usage.output_tokens
        assert one.bill["billed_microusd"] == -(-whole // 2)
        assert 0 <= settled - one.bill["billed_microusd"] <= 7  # each answer is rounded up
        assert records == 7
        caller = json.loads(one.corpus.journal.query("select item from records limit 1")[0][0])["caller"]
        assert caller == {"user": "local", "token": "local", "wire": "chat", "run": ""}
        assert sound(one)


async def test_openais_sync_client_uploads_lists_reads_and_deletes(tmp_path: Path) -> None:
    def work(url: str) -> None:
        with openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0) as client:
            content = lines_of(questions(3))
            file = client.files.create(file=("../../etc/calls.jsonl", content), purpose="batch")
            assert (file.filename, file.bytes) == ("calls.jsonl", len(content))
            assert client.files.content(file.id).content == content
            made = client.batches.create(
                input_file_id=file.id, endpoint=CHATS, completion_window="24h", metadata={"who": "me"}
            )
            assert made.status in ("validating", "in_progress")
            while (batch := client.batches.retrieve(made.id)).status not in ENDED:
                time.sleep(0.05)
            assert (batch.status, batch.metadata) == ("completed", {"who": "me"})
            assert [one.id for one in client.batches.list(limit=1)] == [batch.id]
            assert batch.output_file_id is not None
            assert len(client.files.content(batch.output_file_id).text.splitlines()) == 3
            assert {one.id for one in client.files.list()} == {file.id, batch.output_file_id}
            assert [one.id for one in client.files.list(purpose="batch_output")] == [batch.output_file_id]
            assert client.files.delete(file.id).deleted
            with pytest.raises(openai.NotFoundError):
                client.files.retrieve(file.id)
            with pytest.raises(openai.ConflictError):
                client.batches.cancel(batch.id)

    async with batched(tmp_path) as one:
        await asyncio.to_thread(work, one.url)


async def test_anthropics_async_client_gets_results_of_both_teachers_in_its_own_words(tmp_path: Path) -> None:
    async with batched(tmp_path) as one, an_anthropic(one) as client:
        params = [chat("a", ANTHROPIC), chat("b", ANTHROPIC), chat("a", OPENAI), chat("x", ANTHROPIC, oddity=1)]
        requests: Any = [{"custom_id": f"c{at}", "params": one} for at, one in enumerate(params)]
        batch = await client.messages.batches.create(requests=requests)
        assert (batch.processing_status, batch.request_counts.processing) == ("in_progress", 4)
        while batch.processing_status != "ended":
            await asyncio.sleep(0.05)
            batch = await client.messages.batches.retrieve(batch.id)
        assert (batch.request_counts.succeeded, batch.request_counts.errored) == (3, 1)
        found = {row.custom_id: row.result async for row in await client.messages.batches.results(batch.id)}
        for name in ("c0", "c1", "c2"):
            result = found[name]
            assert result.type == "succeeded"
            assert result.message.content[0].type == "text"
        assert found["c3"].type == "errored"
        assert found["c3"].error.error.type == "invalid_request_error"
        assert set(one.bill["by_kind"]) == {"batch"}
        assert one.bill["requests"] == 3
        assert sound(one)


async def test_anthropics_sync_client_cancels_lists_and_deletes(tmp_path: Path) -> None:
    def work(url: str) -> None:
        with anthropic.Anthropic(base_url=url, api_key="any", max_retries=0) as client:
            params: Any = chat("slow", ANTHROPIC)
            made = client.messages.batches.create(requests=[{"custom_id": "c0", "params": params}])
            with pytest.raises(anthropic.ConflictError):
                client.messages.batches.delete(made.id)
            assert client.messages.batches.cancel(made.id).processing_status == "canceling"
            while (batch := client.messages.batches.retrieve(made.id)).processing_status != "ended":
                time.sleep(0.05)
            assert batch.request_counts.canceled == 1
            (row,) = client.messages.batches.results(made.id)
            assert row.result.type == "canceled"
            assert [one.id for one in client.messages.batches.list()] == [made.id]
            assert client.messages.batches.delete(made.id).id == made.id
            assert list(client.messages.batches.list()) == []

    async with batched(tmp_path, batch_delay_s=2.0) as one:
        await asyncio.to_thread(work, one.url)
        assert one.bill["billed_microusd"] == 0
        assert sound(one)


async def test_the_console_lists_a_users_batches_and_to_an_administrator_everybodys(tmp_path: Path) -> None:
    async def shown(one: Served, query: str = "", **wish: Any) -> str:
        secret = one.token(*wish.pop("scopes", ("read",)), **wish)
        one.service.tokens.look_again()
        got = await one.send("POST", "/console/login", data={"token": secret})
        cookie = str(got.header("Set-Cookie")).partition(";")[0]
        page = await one.send("GET", f"/console/batches{query}", headers={"Cookie": cookie})
        assert page.status == 200
        return re.sub(r"<[^>]*>", " ", page.text)

    async with batched(tmp_path) as one:
        ann = one.token("ask")
        async with an_openai(one, ann) as client:
            good, rows = await asked(client, lines_of([*questions(3), chat("x", oddity=1)]))
            spoilt, _ = await asked(client, b'{"custom_id": "<b>", "method": "GET"}')
        one.token("ask", user="bob", name="bob's")
        cost = sum(row["corpusgen"]["cost_microusd"] for row in rows.values() if row["response"]["status_code"] == 200)
        assert cost > 0
        anns = await shown(one, name="ann's browser")
        assert "3 of 4 answered, 1 failed" in anns
        assert dollars(cost) in anns
        assert "none asked: " in anns
        assert "None yet" in await shown(one, user="bob", name="bob's browser")
        everybodys = await shown(one, scopes=("admin",), user="root", name="root's")
        assert all(name in everybodys for name in (good.id, spoilt.id, "  ann  "))
        assert good.id in (older := await shown(one, f"?before={spoilt.id}", name="another browser"))
        assert spoilt.id not in older


async def test_what_became_of_lines_is_told_when_they_are_kept_no_more(tmp_path: Path) -> None:
    async with batched(tmp_path) as one, an_openai(one) as client:
        batch, _ = await asked(client, lines_of(questions(2)))
        await one.corpus.journal.run(lambda transaction: transaction.execute("delete from service_lines").close())
        counted = (await client.batches.retrieve(batch.id)).request_counts
        assert counted is not None
        assert (counted.total, counted.completed) == (2, 2)


@pytest.mark.parametrize(
    ("url", "body", "kind"),
    [
        ("/v1/responses", {"model": OPENAI, "input": "hello", "max_output_tokens": 16}, "response"),
        ("/v1/completions", {"model": OPENAI, "prompt": "hello", "max_tokens": 16}, "text_completion"),
    ],
)
async def test_lines_may_ask_in_any_wire(tmp_path: Path, url: str, body: dict[str, Any], kind: str) -> None:
    async with batched(tmp_path) as one, an_openai(one) as client:
        batch = await over(client, await sent(client, lines_of([body], url), url))
        rows = await rows_in(client, batch.output_file_id)
        assert rows["c0"]["response"]["body"]["object"] == kind
        assert one.corpus.journal.query("select count(*) from records") == [(1,)]


# --- lines ------------------------------------------------------------------------------------------------------------


async def test_a_teacher_that_takes_no_batches_is_asked_line_by_line(tmp_path: Path) -> None:
    async with batched(tmp_path) as one, an_openai(one) as client:
        mixed = [*questions(20, LIVE), *questions(2), chat("two of them", SEVERAL, n=2), chat("", OPENAI)]
        batch, rows = await asked(client, lines_of(mixed))
        assert (batch.status, batch.request_counts.completed) == ("completed", 24)
        assert len(rows["c22"]["response"]["body"]["choices"]) == 2
        assert rows["c23"]["corpusgen"]["cache"] == "probe"
        assert {kind: count["requests"] for kind, count in one.bill["by_kind"].items()} == {"answer": 21, "batch": 2}
        assert one.corpus.journal.query("select count(*) from records") == [(24,)]


async def test_the_same_file_again_costs_nothing_and_is_complete_at_once(tmp_path: Path) -> None:
    async with batched(tmp_path) as one, an_openai(one) as client:
        content = lines_of([*questions(4), *questions(4, LIVE), chat("question 0")])
        _, first = await asked(client, content)
        bill = one.bill
        batch, again = await asked(client, content)
        assert batch.request_counts.completed == 9
        assert one.bill == bill
        assert {name: row["response"]["body"] for name, row in again.items()} == {
            name: row["response"]["body"] for name, row in first.items()
        }
        assert [row["corpusgen"]["cache"] for row in first.values()].count("miss") == 8
        assert {row["corpusgen"]["cache"] for row in again.values()} == {"hit"}
        assert one.corpus.journal.query("select count(*) from batches") == [(1,)]
        assert one.corpus.journal.query("select count(*) from records") == [(8,)]


async def test_a_file_with_lines_that_are_none_fails_as_a_whole_and_names_them(tmp_path: Path) -> None:
    async with batched(tmp_path) as one, an_openai(one) as client:
        good = json.loads(lines_of(questions(1)))
        bad = [good, good, {**good, "custom_id": "u", "url": "/v1/embeddings"}, {**good, "custom_id": "b", "body": 3}]
        content = b"\n".join([*(json.dumps(row).encode() for row in bad), b"{not json", b'{"custom_id": ""}'])
        batch = await over(client, await sent(client, content))
        assert batch.status == "failed"
        found = [(error.line, error.code) for error in batch.errors.data]
        assert found == [
            (2, "duplicate_custom_id"),
            (3, "mismatched_endpoint"),
            (4, "missing_required_parameter"),
            (5, "invalid_json_line"),
            (6, "missing_required_parameter"),
        ]
        assert (batch.output_file_id, one.bill["requests"]) == (None, 0)


async def test_lines_that_cannot_be_asked_are_error_lines_and_their_neighbours_are_answered(tmp_path: Path) -> None:
    secret = "sk-proj-" + "aB3dE5gH" * 6
    bodies = [
        *questions(2),
        chat("odd", oddity=1),
        chat("unknown", "nobody"),
        chat("streamed", stream=True),
        chat(f"my key is {secret}"),
        chat("long", max_tokens=100_000),
    ]
    async with batched(tmp_path) as one, an_openai(one) as client:
        batch, rows = await asked(client, lines_of(bodies))
        assert (batch.status, batch.request_counts.completed, batch.request_counts.failed) == ("completed", 2, 5)
        statuses = {name: row["response"]["status_code"] for name, row in rows.items()}
        assert statuses == {"c0": 200, "c1": 200, "c2": 400, "c3": 404, "c4": 400, "c5": 400, "c6": 400}
        assert rows["c5"]["response"]["body"]["error"]["code"] == "withheld"
        assert secret not in json.dumps(rows)
        assert one.bill["requests"] == 2


async def test_what_the_teacher_refuses_in_its_batch_is_an_error_line_and_a_drop(tmp_path: Path) -> None:
    async with batched(tmp_path) as one, an_openai(one) as client:
        _, rows = await asked(client, lines_of([chat("fine"), chat("fault:400 no")]))
        assert rows["c0"]["response"]["status_code"] == 200
        assert rows["c1"]["response"]["body"]["error"]["code"] == "refused_upstream"
        assert one.corpus.journal.query("select reason from drops") == [("RequestRefused",)]


async def test_a_policy_refusal_is_an_error_line_with_its_rule(tmp_path: Path) -> None:
    async with batched(tmp_path) as one, an_openai(one) as client:
        batch, rows = await asked(client, lines_of(questions(2)), **{"x-corpusgen-use": "weights_released"})
        assert (batch.status, batch.request_counts.failed) == ("completed", 2)
        error = rows["c0"]["response"]["body"]["error"]
        assert (rows["c0"]["response"]["status_code"], error["code"]) == (403, "policy_refused")
        assert "deny R" in error["message"]
        assert str(tmp_path) not in json.dumps(rows)
        assert one.bill["requests"] == 0


# --- money ------------------------------------------------------------------------------------------------------------


async def test_the_budget_of_a_token_holds_and_error_lines_tell_the_figures(tmp_path: Path) -> None:
    async with batched(tmp_path) as one:
        token = one.token("ask", caps={"microusd": 120})
        async with an_openai(one, token) as client:
            batch, rows = await asked(client, lines_of(questions(12)))
            counted = batch.request_counts
            assert counted.completed + counted.failed == 12
            assert counted.completed > 0
            assert counted.failed > 0
            refused = [row["response"] for row in rows.values() if row["response"]["status_code"] != 200]
            assert {one["status_code"] for one in refused} == {402}
            figures = refused[0]["body"]["error"]["corpusgen"]["budget"]
            assert (figures["unit"], figures["cap"]) == ("microusd", 120)
            assert one.bill["billed_microusd"] <= 120
            assert sound(one)


# --- whose they are ---------------------------------------------------------------------------------------------------


async def test_files_and_batches_of_others_are_not_there(tmp_path: Path) -> None:
    async with batched(tmp_path) as one:
        ann, bob, root = one.token("ask"), one.token("ask", user="bob", name="bob's"), one.token("admin", user="root")
        async with an_openai(one, ann) as client:
            batch, _ = await asked(client, lines_of(questions(1)))
            made = await one.post("/v1/messages/batches", {"requests": [_request("c0")]}, token=ann)
        names = [f"/v1/files/{batch.input_file_id}", f"/v1/files/{batch.output_file_id}/content"]
        names += [f"/v1/batches/{batch.id}", f"/v1/messages/batches/{made.json['id']}"]
        for path in names:
            statuses = [(await one.get(path, token=token)).status for token in (ann, bob, root)]
            assert statuses == [200, 404, 200], path
        for path in ("/v1/files", "/v1/batches", "/v1/messages/batches"):
            assert (await one.get(path, token=bob)).json["data"] == []
            assert len((await one.get(path, token=root)).json["data"]) > 0
        bobs = await one.post("/v1/batches", _wish(batch.input_file_id), token=bob)
        assert (bobs.status, bobs.json["error"]["param"]) == (400, "input_file_id")
        assert (await one.post(f"/v1/batches/{batch.id}/cancel", None, token=bob)).status == 404
        assert (await one.send("DELETE", names[0], headers={"Authorization": f"Bearer {bob}"})).status == 404
        # One vendor's names are not the other's.
        assert (await one.get(f"/v1/batches/{made.json['id']}", token=ann)).status == 404


def _wish(file_id: str) -> dict[str, Any]:
    return {"input_file_id": file_id, "endpoint": CHATS, "completion_window": "24h"}


def _request(name: str, text: str = "hello") -> Any:
    return {"custom_id": name, "params": chat(text, ANTHROPIC)}


async def test_a_token_that_is_over_ends_its_batches(tmp_path: Path) -> None:
    async with batched(tmp_path, batch_delay_s=8.0) as one:
        token, root = one.token("ask"), one.token("admin", user="root")
        async with an_openai(one, token) as client:
            batch = await sent(client, lines_of(questions(2)))
        async with an_openai(one, root) as client:
            sql = "update tokens set expires_us = 1 where token_id = (select token_id from service_batches)"
            await one.corpus.journal.run(lambda transaction: transaction.execute(sql).close())
            assert (await over(client, batch)).status == "cancelled"


async def test_lines_that_are_asked_one_by_one_count_as_calls_of_their_minute(tmp_path: Path) -> None:
    more = "limits: {per_token_per_minute: 5}"
    async with batched(tmp_path, config=lambda url: config_for(url, more=more)) as one:
        token, root = one.token("ask"), one.token("admin", user="root")
        async with an_openai(one, token) as client:
            batch = await sent(client, lines_of(questions(9, LIVE)))  # a file and a batch are calls, too
        async with an_openai(one, root) as client:
            while one.bill["requests"] < 3:  # noqa: ASYNC110 - the mock tells nobody
                await asyncio.sleep(0.05)
            await client.batches.cancel(batch.id)
            assert (await over(client, batch)).request_counts.completed == 3
        assert one.bill["requests"] == 3


async def test_files_that_come_at_once_do_not_share_the_room(tmp_path: Path) -> None:
    more = "limits: {files_bytes: 2500}"
    async with batched(tmp_path, config=lambda url: config_for(url, more=more)) as one, an_openai(one) as client:

        async def kept() -> bool:
            try:
                await client.files.create(file=("x", b"x" * 1_000), purpose="batch")
            except openai.PermissionDeniedError:
                return False
            return True

        assert sorted(await asyncio.gather(*(kept() for _ in range(6)))) == [False] * 4 + [True] * 2


@pytest.mark.parametrize(
    "name", ["name*" + "5" * 5_000, "name*0", "name*", "filename*0*", "filename*0=a; filename*", "*", " filename * "]
)
def test_parameters_in_pieces_and_character_sets_are_refused(name: str) -> None:
    form = f'--b\r\nContent-Disposition: form-data; name="file"; {name}=x\r\n\r\nx\r\n--b--\r\n'
    with pytest.raises(Refused, match="not taken"):
        form_in("multipart/form-data; boundary=b", form.encode())
    with pytest.raises(Refused, match="not taken"):
        form_in(f"multipart/form-data; boundary=b; {name}=x", b"--b--\r\n")


def test_a_name_in_utf8_is_taken_as_the_only_one_of_these() -> None:
    head = b"--b\r\nContent-Disposition: form-data; name=\"file\"; filename*=utf-8''%C5%BElu%C5%A5.jsonl\r\n\r\n"
    assert form_in("multipart/form-data; boundary=b", head + b"x\r\n--b--\r\n")["file"].filename == "žluť.jsonl"


async def test_a_token_that_is_taken_back_ends_its_batches(tmp_path: Path) -> None:
    from corpusgen.serve.tokens import revoke

    async with batched(tmp_path, batch_delay_s=8.0) as one:
        token, root = one.token("ask"), one.token("admin", user="root")
        async with an_openai(one, token) as client:
            batch = await sent(client, lines_of(questions(2)))
        async with an_openai(one, root) as client:
            ((token_id,),) = one.corpus.journal.query("select token_id from service_batches")
            revoke(one.corpus, token_id, by="a test")
            assert (await over(client, batch)).status == "cancelled"


# --- limits -----------------------------------------------------------------------------------------------------------


async def test_batches_files_and_lines_have_limits(tmp_path: Path) -> None:
    more = "limits: {batches: 1, file_bytes: 2000, files_bytes: 2500, batch_lines: 3}"
    async with batched(tmp_path, config=lambda url: config_for(url, more=more), batch_delay_s=8.0) as one:
        async with an_openai(one) as client:
            with pytest.raises(openai.APIStatusError) as large:
                await client.files.create(file=("x", b"x" * 2_001), purpose="batch")
            assert large.value.status_code == 413
            batch = await sent(client, lines_of(questions(2)))
            with pytest.raises(openai.RateLimitError):
                await sent(client, lines_of(questions(2, LIVE)))
            await client.batches.cancel(batch.id)
            await over(client, batch)
            with pytest.raises(openai.PermissionDeniedError):
                await client.files.create(file=("x", b"x" * 1_990), purpose="batch")
            failed = await over(client, await sent(client, lines_of(questions(4, LIVE))))
            assert failed.errors.data[0].code == "too_many_lines"
        many = [_request(f"c{at}") for at in range(4)]
        assert (await one.post("/v1/messages/batches", {"requests": many})).status == 400


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"endpoint": "/v1/embeddings"}, "endpoint"),
        ({"completion_window": "1h"}, "completion_window"),
        ({"input_file_id": "../../etc/passwd"}, "input_file_id"),
        ({"input_file_id": 7}, "input_file_id"),
        ({"metadata": {"a": 1}}, "metadata"),
        ({"webhook": "http://169.254.169.254/"}, "webhook"),
    ],
)
async def test_a_batch_that_cannot_be_is_refused_with_the_field(
    tmp_path: Path, changes: dict[str, Any], field: str
) -> None:
    async with batched(tmp_path) as one, an_openai(one) as client:
        file = await client.files.create(file=("x", lines_of(questions(1))), purpose="batch")
        got = await one.post("/v1/batches", _wish(file.id) | changes)
        assert (got.status, got.json["error"]["param"]) == (400, field)


@pytest.mark.parametrize(
    "requests",
    [None, [], {}, [1], [{"custom_id": "a"}], [{**_request("a b")}], [_request("a"), _request("a")]],
)
async def test_a_batch_of_messages_that_cannot_be_is_refused(tmp_path: Path, requests: Any) -> None:
    async with batched(tmp_path) as one:
        got = await one.post("/v1/messages/batches", {"requests": requests})
        assert (got.status, got.json["type"], got.json["error"]["type"]) == (400, "error", "invalid_request_error")
        assert one.corpus.journal.query("select count(*) from service_batches") == [(0,)]


async def upload(one: Served, body: bytes, content_type: str) -> Answer:
    """Something sent as a file."""
    return await one.send("POST", "/v1/files", data=body, headers={"Content-Type": content_type})


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b"{}", "application/json", 415),
        (b"", "multipart/form-data; boundary=b", 400),
        (b"--b--\r\n", "multipart/form-data; boundary=b", 400),
        (b"--b\r\n\r\n--b--", "multipart/form-data", 400),
        (b"--b\r\n\r\nx\r\n--b--", "multipart/form-data; boundary=b", 400),
        (b'--b\r\ncontent-disposition: form-data; name="file"\r\n\r\nx', "multipart/form-data; boundary=b", 400),
        (b"--b\r\n" + b"x: y\r\n" * 10_000 + b"\r\n--b--", "multipart/form-data; boundary=b", 400),
    ],
)
async def test_what_is_no_form_with_a_file_is_refused(
    tmp_path: Path, body: bytes, content_type: str, status: int
) -> None:
    async with batched(tmp_path) as one:
        assert (await upload(one, body, content_type)).status == status


@given(st.binary(max_size=300), st.text(max_size=40))
def test_a_form_is_read_or_refused_whatever_comes(body: bytes, name: str) -> None:
    whole = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n' + body + b"\r\n--b--\r\n"
    for sent_body in (body, b"--b\r\n" + body, whole):
        try:
            parts = form_in("multipart/form-data; boundary=b", sent_body)
        except Refused:
            continue
        assert all(isinstance(part.content, bytes) for part in parts.values())
    if b"\r\n--b" not in body:
        assert form_in("multipart/form-data; boundary=b", whole)["file"].content == body
    shown = file_name(name) or ""
    assert "/" not in shown
    assert "\\" not in shown
    assert shown.isprintable()


@given(st.lists(st.binary(max_size=60), max_size=6))
def test_a_file_is_read_or_refused_whatever_stands_in_it(rows: list[bytes]) -> None:
    lines, errors = read_lines(b"\n".join(rows), CHATS, 5)
    assert lines or errors


async def test_lists_are_told_in_pages(tmp_path: Path) -> None:
    async with batched(tmp_path) as one, an_openai(one) as client, an_anthropic(one) as other:
        files = [(await client.files.create(file=(f"f{at}", b"x"), purpose="batch")).id for at in range(5)]
        assert [found.id async for found in client.files.list(limit=2)] == files[::-1]
        assert [found.id async for found in client.files.list(limit=2, order="asc")] == files
        names = [(await other.messages.batches.create(requests=[_request("c")])).id for _ in range(3)]
        assert [found.id async for found in other.messages.batches.list(limit=1)] == names[::-1]
        before = await other.messages.batches.list(before_id=names[0], limit=1)
        assert [found.id for found in before.data] == [names[1]]


# --- the end of batches -----------------------------------------------------------------------------------------------


async def test_what_was_answered_before_a_batch_is_cancelled_is_kept_and_shown(tmp_path: Path) -> None:
    async with batched(tmp_path, latency_s=0.15) as one, an_openai(one) as client:
        batch = await sent(client, lines_of(questions(120, LIVE)))
        while batch.status in ("validating", "in_progress") and not batch.request_counts.completed:
            await asyncio.sleep(0.02)
            batch = await client.batches.retrieve(batch.id)
        assert (await client.batches.cancel(batch.id)).status == "cancelling"
        batch = await over(client, batch)
        done = batch.request_counts.completed
        assert batch.status == "cancelled"
        assert 0 < done < 120
        assert len(await rows_in(client, batch.output_file_id)) == done == one.bill["requests"]
        codes = {row["error"]["code"] for row in (await rows_in(client, batch.error_file_id)).values()}
        assert codes == {"batch_cancelled"}


async def test_a_cancelled_batch_is_ended_at_its_teacher_and_its_neighbour_is_not(tmp_path: Path) -> None:
    async with batched(tmp_path, batch_delay_s=4.0) as one, an_openai(one) as client:
        first = await sent(client, lines_of(questions(3)))
        second = await sent(client, lines_of(questions(3, about="another")))
        await _until(one.corpus.folder, "select count(*) = 2 from batches where state = 'submitted'")
        await client.batches.cancel(first.id)
        first, second = await over(client, first), await over(client, second)
        assert (first.status, second.status) == ("cancelled", "completed")
        assert second.request_counts.completed == 3
        assert sound(one)


async def test_a_batch_that_takes_longer_than_a_day_expires(tmp_path: Path) -> None:
    passed = timedelta()

    def clock() -> datetime:
        return datetime.now(UTC) + passed

    async with batched(tmp_path, batch_delay_s=8.0, corpus={"clock": clock}) as one, an_openai(one) as client:
        batch = await sent(client, lines_of(questions(2)))
        await _until(one.corpus.folder, "select count(*) from batches where state = 'submitted'")
        passed = timedelta(hours=26)
        batch = await over(client, batch)
        rows = await rows_in(client, batch.error_file_id)
        assert (batch.status, {row["error"]["code"] for row in rows.values()}) == ("expired", {"batch_expired"})
        assert sound(one)


async def test_what_was_erased_is_told_no_more(tmp_path: Path) -> None:
    async with mock_teacher(Options(**QUICK)) as mock:
        async with batched(tmp_path, mock=mock) as one, an_openai(one) as client:
            batch, rows = await asked(client, lines_of([chat("forget me"), chat("keep me")]))
            (record,) = rows["c0"]["corpusgen"]["records"]
        with Corpus.open(tmp_path / "corpus", erasing=True) as corpus:
            erase(corpus, Selector(kind="record", values=(record,)), by="test")
        async with batched(tmp_path, mock=mock) as one, an_openai(one) as client:
            rows = await rows_in(client, batch.output_file_id)
            assert rows["c0"]["error"]["code"] == "erased"
            assert rows["c1"]["response"]["status_code"] == 200
            with pytest.raises(openai.NotFoundError):
                await client.files.retrieve(batch.input_file_id)


# --- restarts ---------------------------------------------------------------------------------------------------------


def told_by(mock: Mapping[str, Any]) -> dict[str, Any]:
    """The bill of a mock that is a process of its own."""
    with urllib.request.urlopen(f"{mock['anthropic_base_url']}/bill") as answer:
        found: dict[str, Any] = json.load(answer)
        return found


@contextmanager
def looked_at(folder: Path) -> Any:
    """A corpus that another process works on."""
    with Corpus.open(folder, reading=True) as corpus:
        yield corpus.journal.query


def a_config(folder: Path, base_url: str) -> Path:
    """A service.yaml in a folder."""
    (folder / "service.yaml").write_text(config_for(base_url))
    return folder / "service.yaml"


async def _until(folder: Path, sql: str) -> None:
    with looked_at(folder) as query:
        for _ in range(600):
            if query(sql)[0][0]:
                return
            await asyncio.sleep(0.05)
    raise AssertionError(f"never: {sql}")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_after_a_stop_or_a_kill_a_batch_at_its_teacher_is_collected_and_paid_for_once(
    tmp_path: Path, number: signal.Signals
) -> None:
    folder = tmp_path / "corpus"
    with mock_child("--batch-delay", "4") as mock:
        config = a_config(tmp_path, mock["base_url"])
        with served_by_child(folder, config=config) as child:
            async with an_openai(child) as client:
                batch = await sent(client, lines_of(questions(30)))
                await _until(folder, "select exists(select 1 from batches where state = 'submitted')")
            child.end(number)
        with served_by_child(folder, config=config) as child:
            async with an_openai(child) as client:
                batch = await over(client, await client.batches.retrieve(batch.id))
                assert (batch.status, batch.request_counts.completed) == ("completed", 30)
                assert len(await rows_in(client, batch.output_file_id)) == 30
            assert child.end() == 0
        bill = told_by(mock)
        assert (bill["requests"], set(bill["charged"].values())) == (30, {1})
    with Corpus.open(folder) as corpus:
        assert corpus.journal.query("select count(*) from records") == [(30,)]
        assert corpus.journal.query("select count(*) from batches") == [(1,)]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_after_a_stop_or_a_kill_lines_go_on_where_they_were(tmp_path: Path, number: signal.Signals) -> None:
    folder = tmp_path / "corpus"
    with mock_child("--latency-ms", "100") as mock:
        config = a_config(tmp_path, mock["base_url"])
        with served_by_child(folder, config=config) as child:
            async with an_openai(child) as client:
                batch = await sent(client, lines_of(questions(80, LIVE)))
                await _until(folder, "select count(*) >= 10 from service_lines where state = 'answered'")
            child.end(number)
        with looked_at(folder) as query:
            ((before,),) = query("select count(*) from service_lines where state = 'answered'")
            assert 10 <= before < 80
        with served_by_child(folder, config=config) as child:
            async with an_openai(child) as client:
                batch = await over(client, await client.batches.retrieve(batch.id))
                assert batch.request_counts.completed == 80
            child.end()
        again = told_by(mock)["requests"] - 80
        assert again == 0 if number == signal.SIGTERM else again <= AT_ONCE
    with Corpus.open(folder) as corpus:
        assert corpus.journal.query("select count(*) from records") == [(80,)]


def test_names_of_files_are_never_paths() -> None:
    assert file_name("../../etc/passwd") == "passwd"
    assert file_name("C:\\secrets\\a\x00b.jsonl") == "ab.jsonl"
    assert file_name("") == "upload.jsonl"
    assert os.sep not in (file_name("/" * 9) or "")
