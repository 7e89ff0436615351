"""The recording gateway in front of the mock teacher: every call is a record, paid for once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from gateway_samples import Gateway, anthropic_offer, chat, gateway, gateway_with_mock, offer, write_config
from openai import APIStatusError, AsyncStream

from corpusgen.corpus import Corpus
from corpusgen.mock.server import Options, mock_teacher
from corpusgen.serve.bus import Bus
from corpusgen.serve.callers import LOCAL, Caller
from corpusgen.serve.config import load_config
from corpusgen.serve.desk import Desk, Wanted
from corpusgen.serve.gateway import wanted_of
from corpusgen.serve.meter import Meter
from corpusgen.serve.refusals import Contradicted, Stopping
from corpusgen.serve.tokens import Wish, create
from corpusgen.serve.wires.calls import read_call
from corpusgen.stages.erasure.erasing import erase
from corpusgen.stages.erasure.reaching import Selector
from corpusgen.stages.verifying import verify


async def refused(gate: Gateway, body: dict[str, Any], **headers: str) -> tuple[int, Any, Any]:
    """Status, body and headers of a chat that is not answered."""
    async with gate.http.post("/v1/chat/completions", json=body, headers=headers) as response:
        return response.status, await response.json(), response.headers


async def test_a_chat_is_answered_in_the_teachers_own_bytes_and_becomes_a_record(tmp_path: Path) -> None:
    async with gateway_with_mock(tmp_path) as gate:
        answer = await gate.openai.chat.completions.with_raw_response.create(**chat("What is a stilt?"))
        assert answer.parse().choices[0].message.content
        (record, item), *more = gate.rows("select lower(hex(record_id)), item from records")
        assert not more
        assert answer.headers["x-corpusgen-record"] == record
        assert answer.headers["x-corpusgen-cache"] == "miss"
        assert float(answer.headers["x-corpusgen-cost-usd"]) * 1e6 == gate.bill["billed_microusd"]
        assert orjson.loads(item)["caller"] == {"user": "local", "token": "local", "wire": "chat", "run": ""}


async def test_the_same_call_again_costs_nothing_and_is_counted_as_a_hit(tmp_path: Path) -> None:
    async with gateway_with_mock(tmp_path) as gate:
        first = await gate.openai.chat.completions.with_raw_response.create(**chat("Once?"))
        again = await gate.openai.chat.completions.with_raw_response.create(**chat("Once?"))
        assert again.content == first.content
        assert again.headers["x-corpusgen-cache"] == "hit"
        assert again.headers["x-corpusgen-saved-usd"] == first.headers["x-corpusgen-cost-usd"]
        assert gate.bill["requests"] == 1
    with Corpus.open(tmp_path / "corpus") as corpus:
        assert corpus.journal.query("select hits from hits") == [(1,)]
        assert corpus.journal.query("select count(*) from records") == [(1,)]


async def test_identical_calls_at_the_same_time_are_one_call_to_the_teacher(tmp_path: Path) -> None:
    async with gateway_with_mock(tmp_path, Options(latency_s=0.2)) as gate:
        asked = [gate.openai.chat.completions.with_raw_response.create(**chat("All at once")) for _ in range(20)]
        answers = await asyncio.gather(*asked)
        assert gate.bill["requests"] == 1
        assert sorted(answer.headers["x-corpusgen-cache"] for answer in answers) == ["hit"] * 19 + ["miss"]
        assert len({answer.content for answer in answers}) == 1


async def test_a_service_that_is_started_again_goes_on_in_the_same_run_and_asks_nothing_twice(tmp_path: Path) -> None:
    async with mock_teacher(Options()) as mock:
        for _ in range(2):
            async with gateway(tmp_path, mock) as gate:
                await gate.openai.chat.completions.create(**chat("Again and again"))
        assert mock.bill.to_json()["requests"] == 1
    with Corpus.open(tmp_path / "corpus") as corpus:
        assert corpus.journal.query("select count(*) from runs") == [(1,)]


async def test_another_run_label_task_or_use_is_another_run_of_the_same_records(tmp_path: Path) -> None:
    async with gateway_with_mock(tmp_path) as gate:
        for headers in ({}, {"x-corpusgen-run": "tuesday"}, {"x-corpusgen-task": "birds"}):
            await gate.openai.chat.completions.create(**chat("Which bird?"), extra_headers=headers)
        assert gate.rows("select count(*), count(distinct task) from runs") == [(3, 2)]
        assert gate.rows("select count(*) from records") == [(1,)]
        assert gate.rows("select count(*) from reuses") == [(2,)]
        assert gate.bill["requests"] == 1


@pytest.mark.parametrize("wire", ["chat", "completion", "messages", "responses"])
async def test_every_wire_is_answered_streamed_and_whole_from_one_recorded_call(
    tmp_path: Path, wire: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOCK_KEY", "for-the-mock")
    async with mock_teacher(Options()) as mock, gateway(tmp_path, mock, offer(mock), anthropic_offer(mock)) as gate:
        streamed = await _text(gate, wire, stream=True)
        again = await _text(gate, wire, stream=True)
        whole = await _text(gate, wire, stream=False)
        assert streamed == again == whole != ""
        assert gate.bill["requests"] == 1
        assert gate.rows("select count(*) from records") == [(1,)]


async def _text(gate: Gateway, wire: str, *, stream: bool) -> str:
    if wire == "messages":
        turns: list[Any] = [{"role": "user", "content": "Tell"}]
        async with gate.anthropic.messages.stream(model="claude", max_tokens=30, messages=turns) as events:
            if stream:
                return "".join([text async for text in events.text_stream])
            message = await gate.anthropic.messages.create(model="claude", max_tokens=30, messages=turns)
            return "".join(part.text for part in message.content if part.type == "text")
    if wire == "responses":
        if not stream:
            return (await gate.openai.responses.create(model="mock-teacher", input="Tell")).output_text
        async with gate.openai.responses.stream(model="mock-teacher", input="Tell") as parts:
            return (await parts.get_final_response()).output_text
    if wire == "completion":
        told = await gate.openai.completions.create(model="mock-teacher", prompt="Tell", max_tokens=9, stream=stream)
        if not isinstance(told, AsyncStream):
            return told.choices[0].text
        return "".join([part.choices[0].text async for part in told if part.choices])
    said = await gate.openai.chat.completions.create(**chat("Tell"), stream=stream)
    if not isinstance(said, AsyncStream):
        return str(said.choices[0].message.content)
    return "".join([part.choices[0].delta.content or "" async for part in said if part.choices])


async def test_a_stream_tells_its_usage_only_to_who_asked_for_it(tmp_path: Path) -> None:
    async with gateway_with_mock(tmp_path) as gate:
        for text in ("first", "first"):  # passed on as it comes, and replayed
            parts = [part async for part in await gate.openai.chat.completions.create(**chat(text), stream=True)]
            assert all(part.usage is None for part in parts)
        for text in ("second", "second"):
            wanted = chat(text, stream=True, stream_options={"include_usage": True})
            parts = [part async for part in await gate.openai.chat.completions.create(**wanted)]
            assert parts[-1].usage is not None


async def test_a_client_that_leaves_a_stream_does_not_stop_it_from_being_recorded(tmp_path: Path) -> None:
    async with gateway_with_mock(tmp_path, Options(latency_s=0.3)) as gate:
        response = await gate.http.post("/v1/chat/completions", json=chat("Leaving", stream=True))
        response.close()
    with Corpus.open(tmp_path / "corpus") as corpus:  # closing the service waits for what is under way
        assert corpus.journal.query("select state, count(*) from calls group by 1") == [("settled", 1)]
        assert corpus.journal.query("select count(*) from records where shard is not null") == [(1,)]


async def test_probes_are_answered_without_asking(tmp_path: Path) -> None:
    async with gateway_with_mock(tmp_path) as gate:
        answer = await gate.openai.chat.completions.create(model="mock-teacher", messages=[])
        assert answer.choices[0].message.content == ""
        assert gate.bill["requests"] == 0


async def test_probes_are_answered_as_a_stream_where_one_is_asked_for(tmp_path: Path) -> None:
    async with gateway_with_mock(tmp_path) as gate:
        stream = await gate.openai.chat.completions.create(model="mock-teacher", messages=[], stream=True)
        assert isinstance(stream, AsyncStream)
        assert [chunk.choices[0].finish_reason async for chunk in stream][-1] == "stop"
        async with gate.http.post("/v1/chat/completions", json=chat("", stream=True)) as response:
            assert response.content_type == "text/event-stream"
            assert (await response.text()).endswith("data: [DONE]\n\n")
        assert gate.bill["requests"] == 0


async def test_several_answers_of_one_call_are_a_record_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOCK_KEY", "for-the-mock")
    async with mock_teacher(Options()) as mock:
        several = offer(mock, name="openai/gpt-4.1", key_env="MOCK_KEY")
        async with gateway(tmp_path, mock, several) as gate:
            body = chat("Three of them", n=3) | {"model": "gpt-4.1"}
            answer = await gate.openai.chat.completions.with_raw_response.create(**body)
            again = await gate.openai.chat.completions.with_raw_response.create(**body)
            assert len(answer.parse().choices) == len(answer.headers["x-corpusgen-record"].split(",")) == 3
            assert again.headers["x-corpusgen-record"] == answer.headers["x-corpusgen-record"]
            assert gate.rows("select count(*), count(distinct ordinal) from records") == [(3, 3)]
            assert gate.bill["requests"] == 1


async def test_a_policy_refusal_says_rule_and_clause_and_sends_nothing(tmp_path: Path) -> None:
    log = tmp_path / "mock.log"
    source = {"id": "calls", "title": "Calls", "licence": "CC-BY-ND-4.0"}
    async with gateway_with_mock(tmp_path, Options(log=log), sources=[source]) as gate:
        status, body, headers = await refused(gate, chat("May I?"))
        assert status == 403
        assert headers["x-should-retry"] == "false"
        assert "R12" in body["error"]["message"]
        assert str(tmp_path) not in body["error"]["message"]
        assert body["error"]["code"] == "policy_refused"
        turns: list[Any] = [{"role": "user", "content": "May I?"}]
        with pytest.raises(Exception, match="permission_error"):
            await gate.anthropic.messages.create(model="mock-teacher", max_tokens=5, messages=turns)
    assert not log.exists() or not log.read_text()


async def test_a_secret_is_refused_by_its_kind_and_never_repeated(tmp_path: Path) -> None:
    secret = "sk-ant-api03-" + "Ab3" * 31 + "AA"
    async with gateway_with_mock(tmp_path) as gate:
        status, body, _ = await refused(gate, chat(f"my key is {secret}"))
        assert status == 400
        assert body["error"]["code"] == "withheld"
        assert secret not in json.dumps(body)
        assert gate.bill["requests"] == 0


async def test_a_failing_teacher_is_a_bad_gateway_a_drop_and_not_retried_by_clients(tmp_path: Path) -> None:
    async with gateway_with_mock(tmp_path, limits={"attempts": 1}) as gate:
        status, _, headers = await refused(gate, chat("fault:500"))
        assert (status, headers["x-should-retry"]) == (502, "false")
        assert gate.rows("select reason from drops") == [("TeacherFault",)]


async def test_what_fails_after_the_first_event_ends_with_the_vendors_error_event(tmp_path: Path) -> None:
    async with (
        _breaking_off() as url,
        mock_teacher(Options()) as mock,
        gateway(tmp_path, mock, offer(mock, base_url=url)) as gate,
        gate.http.post("/v1/chat/completions", json=chat("Half", stream=True)) as response,
    ):
        told = (await response.text()).strip().split("\n\n")
        assert response.status == 200
        assert "Half an" in told[0]
        assert orjson.loads(told[-1].removeprefix("data: "))["error"]["code"] == "upstream_failed"
        assert gate.rows("select state from calls") == [("unknown",)]


@asynccontextmanager
async def _breaking_off() -> AsyncIterator[str]:
    """A teacher that begins to stream and closes the connection."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        piece = {"index": 0, "delta": {"content": "Half an"}, "finish_reason": None}
        told = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "mock-teacher", "choices": [piece]}
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
        writer.write(b"data: " + orjson.dumps(told) + b"\n\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"


async def test_headers_that_contradict_are_refused(tmp_path: Path) -> None:
    async with gateway_with_mock(tmp_path) as gate:
        for name, value in (("run", "No Spaces"), ("use", "everything"), ("sample", "-1"), ("task", "../up")):
            status, body, _ = await refused(gate, chat("x"), **{f"x-corpusgen-{name}": value})
            assert (status, body["error"]["param"]) == (400, f"x-corpusgen-{name}")


@pytest.mark.parametrize("user", ["ann@2026-11-22", "ann@2026-11", "@x", "a b"])
async def test_nobody_is_called_like_a_month_or_a_day_of_somebody(tmp_path: Path, user: str) -> None:
    async with gateway_with_mock(tmp_path) as gate:
        status, body, _ = await refused(gate, chat("x"), **{"x-corpusgen-user": user})
        assert (status, body["error"]["param"]) == (400, "x-corpusgen-user")
        assert (await refused(gate, chat("x"), **{"x-corpusgen-user": "ann@example.org"}))[0] == 200
        assert gate.rows("select distinct scope from balances where scope glob 'user:*@2026*'") == []


async def test_counting_tokens_leaves_nothing_behind_and_counts_as_a_call(tmp_path: Path) -> None:
    body = {"model": "mock-teacher", "messages": [{"role": "user", "content": "How many?"}]}
    async with gateway_with_mock(tmp_path, limits={"per_token_per_minute": 3}) as gate:

        async def counted(at: int) -> int:
            headers = {"x-corpusgen-run": f"label-{at}"}
            async with gate.http.post("/v1/messages/count_tokens", json=body, headers=headers) as response:
                return response.status

        assert [await counted(at) for at in range(4)] == [200, 200, 200, 429]
        left = [gate.rows(f"select count(*) from {table}") for table in ("runs", "decisions")]
        assert left == [[(0,)], [(0,)]]
        assert not (tmp_path / "corpus" / "service").exists()


async def test_run_labels_of_a_day_are_so_many(tmp_path: Path) -> None:
    async with gateway_with_mock(tmp_path, limits={"labels_per_token_per_day": 2}) as gate:

        async def labelled(label: str) -> tuple[int, Any, Any]:
            return await refused(gate, chat(f"of {label}"), **{"x-corpusgen-run": label})

        assert [(await labelled(label))[0] for label in ("a", "b", "c", "a")] == [200, 200, 429, 200]
        status, body, headers = await labelled("d")
        assert "limits.labels_per_token_per_day" in body["error"]["message"]
        assert (status, headers["x-should-retry"]) == (429, "false") or int(headers["Retry-After"]) <= 60
        assert gate.rows("select count(*) from runs") == [(2,)]


async def test_calls_a_minute_are_counted_and_told(tmp_path: Path) -> None:
    async with gateway_with_mock(tmp_path, limits={"per_token_per_minute": 2}) as gate:
        answer = await gate.openai.chat.completions.with_raw_response.create(**chat("one"))
        assert answer.headers.get("x-ratelimit-limit-requests") == "2"
        assert answer.headers.get("x-ratelimit-remaining-requests") == "1"
        await gate.openai.chat.completions.create(**chat("two"))
        status, _, headers = await refused(gate, chat("three"))
        assert status == 429
        assert 0 < int(headers["Retry-After"]) <= 60


async def test_an_unknown_model_names_those_there_are_in_each_vendors_words(tmp_path: Path) -> None:
    async with gateway_with_mock(tmp_path) as gate:
        with pytest.raises(APIStatusError, match="endpoint/mock-teacher") as caught:
            await gate.openai.chat.completions.create(model="gpt-9", messages=[{"role": "user", "content": "Hi"}])
        assert caught.value.status_code == 404
        assert [model.id async for model in gate.openai.models.list()] == ["endpoint/mock-teacher"]
        assert [model.id async for model in gate.anthropic.models.list()] == ["endpoint/mock-teacher"]
        assert (await gate.openai.models.retrieve("endpoint/mock-teacher")).object == "model"


async def test_counted_tokens_bound_what_is_billed(tmp_path: Path) -> None:
    async with gateway_with_mock(tmp_path) as gate:
        turns: list[Any] = [{"role": "user", "content": "How many tokens?"}]
        counted = await gate.anthropic.messages.count_tokens(model="mock-teacher", messages=turns)
        message = await gate.anthropic.messages.create(model="mock-teacher", max_tokens=5, messages=turns)
        assert counted.input_tokens >= message.usage.input_tokens
        assert gate.bill["requests"] == 1


async def test_embeddings_are_paid_for_once_and_are_no_records(tmp_path: Path) -> None:
    async with gateway_with_mock(tmp_path) as gate:
        texts = ["a stilt", "an avocet"]
        first = await gate.openai.embeddings.create(model="mock-teacher", input=texts)
        again = await gate.openai.embeddings.create(model="mock-teacher", input=texts)
        assert len(first.data) == 2
        assert first.data[0].embedding == again.data[0].embedding
        assert gate.bill["requests"] == 1
        assert gate.rows("select microusd from calls") == [(gate.bill["billed_microusd"],)]
        assert gate.rows("select count(*) from records") == [(0,)]


async def test_embeddings_say_beside_them_what_a_chat_says(tmp_path: Path) -> None:
    async with gateway_with_mock(tmp_path, limits={"per_token_per_minute": 9}) as gate:
        told = []
        for _ in range(2):
            body = {"model": "mock-teacher", "input": "a stilt", "user": "u"}
            async with gate.http.post("/v1/embeddings", json=body) as response:
                told.append(response.headers)
        first, again = told
        assert [one["x-ratelimit-remaining-requests"] for one in told] == ["8", "7"]
        assert first["x-corpusgen-upstream-request-id"] == again["x-corpusgen-upstream-request-id"]
        assert float(first["x-corpusgen-cost-usd"]) * 1e6 == pytest.approx(gate.bill["billed_microusd"])
        assert "x-corpusgen-saved-usd" not in first
        assert (again["x-corpusgen-cost-usd"], again["x-corpusgen-saved-usd"]) == ("0", first["x-corpusgen-cost-usd"])
        assert (first["x-corpusgen-ignored"], "x-corpusgen-record" in first) == ("user", False)


async def test_who_joins_anothers_stream_is_not_told_that_it_was_asked_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("corpusgen.serve.gateway.KEEP_ALIVE_S", 0.05)
    async with gateway_with_mock(tmp_path, Options(latency_s=0.5)) as gate:
        await gate.openai.chat.completions.create(**chat("The room is open now"))

        async def cache(user: str) -> str | None:
            async with gate.http.post("/v1/chat/completions", json=chat("Slow", stream=True, user=user)) as response:
                assert "[DONE]" in await response.text()
                return response.headers.get("x-corpusgen-cache")

        assert list(await asyncio.gather(cache("a"), cache("b"))) == [None, None]
        assert (await cache("c"), gate.bill["requests"]) == ("hit", 2)


async def test_a_stream_that_is_heard_at_once_is_told_to_be_new(tmp_path: Path) -> None:
    async with (
        gateway_with_mock(tmp_path) as gate,
        gate.http.post("/v1/chat/completions", json=chat("Fast", stream=True)) as response,
    ):
        assert response.headers["x-corpusgen-cache"] == "miss"


async def test_what_a_translation_leaves_out_is_named_beside_the_answer(tmp_path: Path) -> None:
    async with gateway_with_mock(tmp_path) as gate:
        turns = [{"role": "user", "content": "Think?"}]
        body = {"model": "mock-teacher", "max_tokens": 5, "thinking": {"type": "disabled"}, "messages": turns}
        for _ in range(2):
            headers = {"anthropic-beta": "interleaved-thinking-2025-05-14"}
            async with gate.http.post("/v1/messages", json=body, headers=headers) as response:
                assert response.headers["x-corpusgen-ignored"] == "anthropic-beta,thinking"
        async with gate.http.post("/v1/messages", json=body) as response:
            assert response.headers["x-corpusgen-ignored"] == "thinking"


async def test_what_was_erased_is_neither_given_nor_asked_again(tmp_path: Path) -> None:
    async with mock_teacher(Options()) as mock:
        async with gateway(tmp_path, mock) as gate:
            answer = await gate.openai.chat.completions.with_raw_response.create(**chat("Forget me"))
        with Corpus.open(tmp_path / "corpus", erasing=True) as corpus:
            erase(corpus, Selector(kind="record", values=(answer.headers["x-corpusgen-record"],)), by="test")
        async with gateway(tmp_path, mock) as gate:
            status, body, _ = await refused(gate, chat("Forget me"))
            assert (status, body["error"]["code"]) == (403, "erased")
            assert (await refused(gate, chat("Not me")))[0] == 200
        assert mock.bill.to_json()["requests"] == 2


async def test_what_was_erased_is_forgotten_at_once(tmp_path: Path) -> None:
    async with gateway_with_mock(tmp_path) as gate:
        await gate.openai.chat.completions.create(**chat("Forget me"))
        assert gate.service.desk._memory.size
        with Corpus.open(tmp_path / "corpus") as other:
            other.journal.run_now(
                lambda transaction: transaction.execute(
                    "insert into erasures(erasure, envelope, erased_us) values('{}', 'x', 1)"
                ).close()
            )
        assert gate.service.desk._forgotten()
        assert not gate.service.desk._memory.size


async def test_closing_waits_for_what_is_under_way_and_makes_shards(tmp_path: Path) -> None:
    async with mock_teacher(Options(latency_s=0.5)) as mock:
        config = load_config(write_config(tmp_path, offer(mock)))
        with Corpus.open(tmp_path / "corpus") as corpus:
            desk = await Desk.open(corpus, config, meter=Meter(), bus=Bus())
            use = config.spec.intended_use.model_dump(mode="json")
            call = read_call("chat", chat("Not lost"))
            asked = asyncio.create_task(desk.ask(call, LOCAL, Wanted(task="traffic", use=use, user="ann")))
            while not corpus.journal.query("select 1 from calls"):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            await desk.aclose()
            assert (await asked).record_ids
            assert corpus.journal.query("select count(*) from records where shard is not null") == [(1,)]
            assert corpus.journal.query("select status from runs") == [("complete",)]


async def test_what_outlasts_the_grace_is_booked_as_unknown(tmp_path: Path) -> None:
    async with mock_teacher(Options(latency_s=30)) as mock:
        config = load_config(write_config(tmp_path, offer(mock)))
        with Corpus.open(tmp_path / "corpus") as corpus:
            desk = await Desk.open(corpus, config, meter=Meter(), bus=Bus())
            use = config.spec.intended_use.model_dump(mode="json")
            call = read_call("chat", chat("Too slow"))
            asked = asyncio.create_task(desk.ask(call, LOCAL, Wanted(task="traffic", use=use, user="ann")))
            while not corpus.journal.query("select 1 from calls"):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)
            await desk.aclose(grace_s=0)
            with pytest.raises(Stopping):
                await asked
            assert corpus.journal.query("select state from calls") == [("unknown",)]


async def test_a_gateways_corpus_verifies(tmp_path: Path) -> None:
    async with gateway_with_mock(tmp_path) as gate:
        for text in ("one", "two", "three"):
            await gate.openai.chat.completions.create(**chat(text))
        await gate.openai.embeddings.create(model="mock-teacher", input="a stilt")
    with Corpus.open(tmp_path / "corpus") as corpus:
        assert verify(corpus) == []


async def test_a_teachers_own_limit_is_told_to_everybody(tmp_path: Path) -> None:
    async with mock_teacher(Options()) as mock:
        told = offer(mock, rate={"requests_per_minute": 600})
        async with gateway(tmp_path, mock, told) as gate:
            await gate.openai.chat.completions.create(**chat("one"))
            answer = await gate.openai.chat.completions.with_raw_response.create(**chat("two"))
            assert answer.headers["x-ratelimit-limit-requests"] == "600"
            assert answer.headers["x-ratelimit-remaining-requests"] == "598"


async def test_personal_data_is_masked_or_kept_back_as_the_file_says(tmp_path: Path) -> None:
    log = tmp_path / "mock.log"
    pii = {"kinds": {"email": "mask", "iban": "block"}}
    async with gateway_with_mock(tmp_path, Options(log=log), curate={"pii": pii}) as gate:
        await gate.openai.chat.completions.create(**chat("Write to jane.doe@example.org please"))
        status, body, _ = await refused(gate, chat("Pay to DE89 3704 0044 0532 0130 00"))
        assert (status, body["error"]["code"]) == (400, "withheld")
    assert "jane.doe" not in log.read_text()
    assert "DE89" not in log.read_text()


async def test_a_headers_use_is_decided_by_its_own_terms(tmp_path: Path) -> None:
    async with gateway_with_mock(tmp_path) as gate:
        status, body, _ = await refused(gate, chat("To be released?"), **{"x-corpusgen-use": "weights_released"})
        assert (status, body["error"]["code"]) == (403, "policy_refused")
        assert (await refused(gate, chat("To be released?")))[0] == 200


async def test_rooms_that_nobody_uses_are_closed_and_opened_again(tmp_path: Path) -> None:
    async with gateway_with_mock(tmp_path, limits={"idle_s": 1, "rooms": 1}) as gate:
        for label in ("one", "two", "one"):
            await gate.openai.chat.completions.create(**chat(label), extra_headers={"x-corpusgen-run": label})
        assert len(gate.service.desk.rooms.open) == 1
        assert gate.rows("select count(*) from runs") == [(2,)]


async def test_what_another_corpus_has_paid_for_is_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORPUSGEN_CACHE", str(tmp_path / "shared"))
    async with mock_teacher(Options()) as mock:
        caches = []
        for name in ("one", "two"):
            async with gateway(tmp_path / name, mock) as gate:
                answer = await gate.openai.chat.completions.with_raw_response.create(**chat("Share me"))
                caches.append(answer.headers["x-corpusgen-cache"])
                assert gate.rows("select count(*) from records") == [(1,)]
        assert caches == ["miss", "shared"]
        assert mock.bill.to_json()["requests"] == 1


async def test_a_stream_that_is_long_in_coming_is_kept_open_with_comments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("corpusgen.serve.gateway.KEEP_ALIVE_S", 0.05)
    async with gateway_with_mock(tmp_path, Options(latency_s=0.5)) as gate:
        async with gate.http.post("/v1/chat/completions", json=chat("Slow", stream=True)) as response:
            told = await response.text()
        assert told.startswith(": keep-alive\n\n")
        assert told.endswith("data: [DONE]\n\n")


async def test_a_teacher_that_says_to_slow_down_for_long_is_a_429_that_says_when(tmp_path: Path) -> None:
    async with gateway_with_mock(tmp_path, limits={"wait_s": 0.5}) as gate:
        await gate.openai.chat.completions.create(**chat("Known"))
        status, body, headers = await refused(gate, chat("fault:429-long"))
        assert (status, body["error"]["code"]) == (429, "rate_limit_exceeded")
        assert int(headers["Retry-After"]) > 60
        assert headers["x-should-retry"] == "false"
        assert (await refused(gate, chat("Another")))[0] == 429
        assert (await refused(gate, chat("Known")))[0] == 200
        assert (await refused(gate, chat("Known", temperature=0.5)))[0] == 429


async def test_an_account_that_is_refused_is_no_fault_of_the_client(tmp_path: Path) -> None:
    async with gateway_with_mock(tmp_path) as gate:
        status, body, _ = await refused(gate, chat("fault:401"))
        assert (status, body["error"]["code"]) == (502, "upstream_account")


@asynccontextmanager
async def _saying(status: str, body: bytes, *headers: bytes) -> AsyncIterator[str]:
    """A teacher that always says the same."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        lines = [f"HTTP/1.1 {status}".encode(), b"Connection: close", b"Content-Length: %d" % len(body), *headers]
        writer.write(b"\r\n".join(lines) + b"\r\n\r\n" + body)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"


INSIDE = b'{"error": {"message": "see http://10.1.2.3:8080/internal and https://docs.example.org/x"}}'


@pytest.mark.parametrize(
    ("said", "status"), [("302 Found", 502), ("308 Permanent Redirect", 502), ("400 Bad Request", 400), ("500 No", 502)]
)
async def test_addresses_inside_are_told_only_to_who_runs_it(tmp_path: Path, said: str, status: int) -> None:
    async with (
        _saying(said, INSIDE, b"Location: http://169.254.169.254/latest") as url,
        mock_teacher(Options()) as mock,
        gateway(tmp_path, mock, offer(mock, base_url=url), limits={"attempts": 1}) as gate,
    ):
        assert url in (await refused(gate, chat("x")))[1]["error"]["message"]
        _, secret = create(gate.corpus, Wish(name="a", user="ann", scopes=("ask",), days=1), by="a test")
        got, body, _ = await refused(gate, chat("x"), Authorization=f"Bearer {secret}")
        told = body["error"]["message"]
        assert got == status
        assert not [word for word in (url, "10.1.2.3", "169.254", str(tmp_path)) if word in told]
        assert "endpoint/mock-teacher" in told


async def test_an_error_in_a_stream_is_told_without_addresses_inside(tmp_path: Path) -> None:
    piece = b'data: {"id":"1","choices":[{"index":0,"delta":{"content":"at http://10.1.2.3/ \\"error\\""}}]}\n\n'
    stream = b"Content-Type: text/event-stream"
    async with (
        _saying("200 OK", piece + b"data: " + INSIDE + b"\n\n", stream) as url,
        mock_teacher(Options()) as mock,
        gateway(tmp_path, mock, offer(mock, base_url=url), limits={"attempts": 1}) as gate,
    ):
        _, secret = create(gate.corpus, Wish(name="a", user="ann", scopes=("ask",), days=1), by="a test")
        carried = {"Authorization": f"Bearer {secret}"}
        async with gate.http.post("/v1/chat/completions", json=chat("x", stream=True), headers=carried) as response:
            told = await response.text()
    assert told.count("10.1.2.3") == 1
    assert told.startswith(piece.decode())


async def test_a_long_name_of_a_request_is_cut(tmp_path: Path) -> None:
    answer = {"choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "x"}}]}
    body = orjson.dumps(answer | {"usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}})
    told = b"Content-Type: application/json", b"x-request-id: " + b"a" * 7_000
    async with (
        _saying("200 OK", body, *told) as url,
        mock_teacher(Options()) as mock,
        gateway(tmp_path, mock, offer(mock, base_url=url)) as gate,
    ):
        status, _, headers = await refused(gate, chat("x"))
        assert (status, headers["x-corpusgen-upstream-request-id"]) == (200, "a" * 200)


async def test_official_clients_do_not_repeat_what_they_cannot_mend(tmp_path: Path) -> None:
    async with gateway_with_mock(tmp_path, budget={"usd": 0}) as gate:
        with pytest.raises(APIStatusError):
            await gate.openai.with_options(max_retries=3).chat.completions.create(**chat("No money"))
        asked = gate.service.meter.value("corpusgen_requests_total", "/v1/chat/completions", "POST", "402")
        assert asked == 1


async def test_what_a_token_is_bound_to_wins_over_headers_that_agree_and_refuses_others(tmp_path: Path) -> None:
    async with gateway_with_mock(tmp_path) as gate:
        bound = Caller(
            token_id="tok-1",
            user="ann",
            scopes=frozenset({"ask"}),
            task="birds",
            intended_use={"student_distribution": "hosted"},
        )
        wanted = wanted_of({"x-corpusgen-task": "birds"}, bound, gate.service)
        assert (wanted.task, wanted.user, wanted.use["student_distribution"]) == ("birds", "ann", "hosted")
        for name, value in (("task", "fish"), ("use", "internal"), ("user", "bob")):
            with pytest.raises(Contradicted, match=f"x-corpusgen-{name}"):
                wanted_of({f"x-corpusgen-{name}": value}, bound, gate.service)


async def test_more_runs_than_may_be_open_at_once_take_turns_or_are_told_to_come_back(tmp_path: Path) -> None:
    async with gateway_with_mock(tmp_path, Options(latency_s=0.05), limits={"rooms": 2}) as gate:

        async def one(at: int) -> int:
            return (await refused(gate, chat(f"of {at}"), **{"x-corpusgen-run": f"label-{at % 8}"}))[0]

        statuses = await asyncio.gather(*map(one, range(32)))
        assert set(statuses) <= {200, 429}
        assert 200 in statuses
        assert gate.rows("select count(*) from calls where state <> 'settled'") == [(0,)]
