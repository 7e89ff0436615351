"""What the gateway must not send, give or bring back: the erased, the personal, the secret, and what terms forbid."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from gateway_samples import Gateway, anthropic_offer, chat, gateway, gateway_with_mock
from rights_samples import acme, write_terms
from serve_samples import CHAT, USE, new_token, served

from corpusgen.budget.ledger import Ledger
from corpusgen.corpus import Corpus
from corpusgen.errors import Withheld
from corpusgen.journal import Transaction
from corpusgen.mock.server import Options, mock_teacher
from corpusgen.prompting.prompts import Item, Prompt
from corpusgen.records import Message, Request
from corpusgen.screen import withheld
from corpusgen.serve.wires.asked import BadCall
from corpusgen.serve.wires.masking import masked_request
from corpusgen.stages.erasure.erasing import erase
from corpusgen.stages.erasure.erasures import Tombstones
from corpusgen.stages.erasure.reaching import Selector
from corpusgen.store.answers import expander, store_card

EMAIL = "jane.doe@example.org"
SECRET = "sk-proj-" + "aB3dE5fG7hI9jK1lM3nO5pQ7rS9tU1vW3xY5z" * 2
HELLO = {"role": "user", "content": "hi"}
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]


async def post(gate: Gateway, path: str, body: Any, **headers: str) -> tuple[int, Any, Any]:
    """Status, body and headers of a call."""
    async with gate.http.post(path, json=body, headers=headers) as response:
        return response.status, orjson.loads(await response.read()), response.headers


async def ask(gate: Gateway, body: Any, **headers: str) -> tuple[int, Any, Any]:
    """The same of a chat."""
    return await post(gate, "/v1/chat/completions", body, **headers)


def requests_of(gate: Gateway) -> str:
    """Everything that was asked, as it is stored."""
    expand = expander()
    return "\n".join(expand(body).decode() for (body,) in gate.rows("select body from requests"))


# --- what was erased --------------------------------------------------------------------------------------------------


async def test_what_was_erased_is_asked_again_by_nobody_else_and_in_no_other_task(tmp_path: Path) -> None:
    async with mock_teacher(Options()) as mock:
        async with gateway(tmp_path, mock) as gate:
            _, _, headers = await ask(gate, chat("Forget me"))
        with Corpus.open(tmp_path / "corpus", erasing=True) as corpus:
            erase(corpus, Selector(kind="record", values=(headers["x-corpusgen-record"],)), by="test")
        async with gateway(tmp_path, mock) as gate:
            for more in ({"x-corpusgen-user": "bob"}, {"x-corpusgen-task": "other"}, {"x-corpusgen-run": "r"}):
                status, body, _ = await ask(gate, chat("Forget me"), **more)
                assert (status, body["error"]["code"]) == (403, "erased")
            assert (await ask(gate, chat("Not me"), **{"x-corpusgen-user": "bob"}))[0] == 200
        assert mock.bill.to_json()["requests"] == 2


async def test_erased_embeddings_are_not_made_again(tmp_path: Path) -> None:
    asked = {"model": "mock-teacher", "input": ["Alice Smith lives here", "so does Bob"]}
    async with mock_teacher(Options()) as mock:
        async with gateway(tmp_path, mock) as gate:
            assert (await post(gate, "/v1/embeddings", asked))[0] == 200
        with Corpus.open(tmp_path / "corpus", erasing=True) as corpus:
            erase(corpus, Selector(kind="subject", values=("Alice Smith",)), by="test")
        async with gateway(tmp_path, mock) as gate:
            status, body, _ = await post(gate, "/v1/embeddings", asked)
            assert (status, body["error"]["code"]) == (403, "erased")
        assert mock.bill.to_json()["requests"] == 1


async def test_an_erased_request_is_no_longer_among_the_hits(tmp_path: Path) -> None:
    async with mock_teacher(Options()) as mock, gateway(tmp_path, mock) as gate:
        for _ in range(2):
            _, _, headers = await ask(gate, chat("Forget me"))
    with Corpus.open(tmp_path / "corpus", erasing=True) as corpus:
        assert corpus.journal.query("select count(*) from hits") == [(1,)]
        erase(corpus, Selector(kind="record", values=(headers["x-corpusgen-record"],)), by="test")
        assert corpus.journal.query("select count(*) from hits") == [(0,)]


async def test_a_tombstone_over_a_callers_request_holds_for_runs_of_specs_too(tmp_path: Path) -> None:
    async with mock_teacher(Options()) as mock, gateway(tmp_path, mock) as gate:
        _, _, headers = await ask(gate, chat("Forget me"))
        ((key,),) = gate.rows("select request_key from records")
        request = Request(**_fields_of(requests_of(gate)))
    assert request.key == key
    item = Item(item_id="1", split="train", input="", messages=request.messages, source_ids=("seeds#1",), gold=None)
    with Corpus.open(tmp_path / "corpus", erasing=True) as corpus:
        erase(corpus, Selector(kind="record", values=(headers["x-corpusgen-record"],)), by="test")
        tombstones = Tombstones.of(corpus.journal)
        assert tombstones.over("another", Prompt(item=item, request=request, ordinal=0)) is not None
        assert tombstones.over_request(bytes(32)) is None


def _fields_of(stored: str) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads(stored)
    turns = tuple(Message(role=role, content=text) for role, text in fields["messages"])
    return fields | {"messages": turns}


# --- personal data ----------------------------------------------------------------------------------------------------

CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": json.dumps({"to": EMAIL, "n": 1})}}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": f"sent to {EMAIL}"}
WORDS: dict[str, Any] = {
    "a part of a turn": {"messages": [{"role": "user", "content": [{"type": "text", "text": f"to {EMAIL}"}]}]},
    "arguments": {"messages": [HELLO, {"role": "assistant", "content": None, "tool_calls": [CALL]}, RESULT]},
}
FIXED: dict[str, Any] = {
    "a turn's name": {"messages": [HELLO | {"name": EMAIL}]},
    "tools": {"tools": [{"type": "function", "function": {"name": "f", "description": EMAIL}}], "messages": [HELLO]},
    "stop": {"stop": [EMAIL], "messages": [HELLO]},
    "prediction": {"prediction": {"type": "content", "content": EMAIL}, "messages": [HELLO]},
    "two parts": {
        "messages": [
            {
                "role": "user",
                "content": [{"type": "text", "text": "jane.doe@"}, {"type": "text", "text": "example.org, write"}],
            }
        ]
    },
    "an id": {"messages": [HELLO, {"role": "assistant", "content": None, "tool_calls": [CALL | {"id": EMAIL}]}]},
}


@pytest.mark.parametrize("what", WORDS)
async def test_the_words_of_agents_turns_are_masked(tmp_path: Path, what: str) -> None:
    async with gateway_with_mock(tmp_path, curate={"pii": {"kinds": {"email": "mask"}}}) as gate:
        status, _, _ = await ask(gate, chat("", tools=TOOLS) | WORDS[what])
        assert status == 200
        assert EMAIL not in requests_of(gate)
        assert "[EMAIL_1]" in requests_of(gate)
        assert "[EMAIL_2]" not in requests_of(gate)


@pytest.mark.parametrize("action", ["mask", "block"])
@pytest.mark.parametrize("what", FIXED)
async def test_personal_data_where_a_placeholder_would_break_something_is_not_sent(
    tmp_path: Path, what: str, action: str
) -> None:
    async with gateway_with_mock(tmp_path, curate={"pii": {"kinds": {"email": action}}}) as gate:
        status, body, _ = await ask(gate, chat("") | FIXED[what])
        assert (status, body["error"]["code"]) == (400, "withheld")
        assert "jane" not in json.dumps(body)
        assert gate.bill["requests"] == 0


async def test_what_is_embedded_is_masked(tmp_path: Path) -> None:
    async with gateway_with_mock(tmp_path, curate={"pii": {"kinds": {"email": "mask"}}}) as gate:
        asked = {"model": "mock-teacher", "input": ["nothing", f"mail {EMAIL}", EMAIL]}
        assert (await post(gate, "/v1/embeddings", asked))[0] == 200
        assert '["user","mail [EMAIL_1]"],["user","[EMAIL_1]"]' in requests_of(gate)


async def test_signed_thinking_with_personal_data_is_not_sent_and_results_beside_text_are_masked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOCK_KEY", "k")
    use = {"type": "tool_use", "id": "t1", "name": "f", "input": {"to": EMAIL}}
    result = {"type": "tool_result", "tool_use_id": "t1", "content": f"wrote {EMAIL}"}
    turns = [HELLO, {"role": "assistant", "content": [use]}, {"role": "user", "content": [result]}]
    body = {"model": "claude", "max_tokens": 16, "tools": [{"name": "f", "input_schema": {"type": "object"}}]}
    thought = {"type": "thinking", "thinking": f"It is {EMAIL}", "signature": "abc"}
    async with mock_teacher(Options()) as mock:
        rules = {"pii": {"kinds": {"email": "mask"}}}
        async with gateway(tmp_path, mock, anthropic_offer(mock), curate=rules) as gate:
            assert (await post(gate, "/v1/messages", body | {"messages": turns}))[0] == 200
            assert EMAIL not in requests_of(gate)
            turns[1] = {"role": "assistant", "content": [thought, use]}
            status, told, _ = await post(gate, "/v1/messages", body | {"messages": turns})
            assert (status, told["error"]["corpusgen"]["error"]) == (400, "Withheld")
            assert gate.bill["requests"] == 1


def _stars(texts: Any) -> list[str]:
    return [text.replace("x@y", "[EMAIL_1]") for text in texts]


def of_arguments(arguments: str) -> Request:
    """A call of a tool as a turn."""
    given = json.dumps({"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": arguments}}]})
    message = Message(role="assistant", content="", given=given)
    return Request(teacher="t", model="m", api="chat", messages=(message,))


def test_arguments_stay_json() -> None:
    turn = json.loads(masked_request(of_arguments('{"a":"\\nx@y"}'), _stars).messages[0].sent)
    assert json.loads(turn["tool_calls"][0]["function"]["arguments"]) == {"a": "\n[EMAIL_1]"}


def test_arguments_that_lie_too_deep_are_refused_and_overflow_nothing() -> None:
    deep = of_arguments("[" * 900 + '"\\n"' + "]" * 900)
    assert withheld(deep, ("email",)) is None
    with pytest.raises(BadCall, match="deep"):
        masked_request(deep, _stars)


def test_a_call_without_personal_data_is_sent_as_it_came() -> None:
    given = '{"role": "user",  "content": [{"type": "text", "text": "plain"}]}'
    message = Message(role="user", content="plain", given=given)
    request = Request(teacher="t", model="m", api="chat", messages=(message,), parameters={"stop": ["x"]})
    assert masked_request(request, _stars) is request
    with pytest.raises(Withheld, match="stop"):
        masked_request(Request(teacher="t", model="m", api="chat", messages=(), parameters={"stop": ["x@y"]}), _stars)


# --- secrets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "parameters",
    [
        {"stop": [SECRET]},
        {"stop_sequences": [SECRET]},
        {"suffix": f"the key is {SECRET}"},
        {"prediction": {"type": "content", "content": SECRET}},
        {"chat_template_kwargs": {SECRET: True}},
        {"response_format": {"type": "json_schema", "json_schema": {"schema": {"description": SECRET}}}},
        {"text": {"format": {"type": "json_schema", "schema": {"enum": [SECRET]}}}},
        {"max_tokens": 3, "metadata": {"password": "hunter2-Correct-Horse!"}},
    ],
    ids=lambda parameters: next(iter(parameters)),
)
def test_a_secret_in_any_parameter_is_withheld(parameters: dict[str, Any]) -> None:
    turn = Message(role="user", content="hi")
    request = Request(teacher="t", model="m", api="chat", messages=(turn,), parameters=parameters)
    found = withheld(request)
    assert found is not None
    assert SECRET not in str(found)


def test_parameters_without_text_are_not_looked_at() -> None:
    turn = Message(role="user", content="hi")
    parameters = {"max_tokens": 16, "temperature": 0.5, "logprobs": True, "seed": 4111111111111111, "stop": ["\n"]}
    request = Request(teacher="t", model="m", api="chat", messages=(turn,), parameters=parameters)
    assert withheld(request, ("credit_card",)) is None


def test_a_secret_behind_escapes_of_arguments_is_withheld() -> None:
    hidden = "".join(f"\\u{ord(char):04x}" for char in SECRET)
    call = {"type": "function", "function": {"name": "f", "arguments": f'{{"key": "{hidden}"}}'}}
    given = json.dumps({"role": "assistant", "tool_calls": [call]})
    message = Message(role="assistant", content="", given=given)
    assert withheld(Request(teacher="t", model="m", api="chat", messages=(message,))) is not None


# --- terms ------------------------------------------------------------------------------------------------------------


async def test_a_hit_is_decided_by_the_terms_that_its_answer_came_under(tmp_path: Path) -> None:
    terms = write_terms(tmp_path / "terms.yaml", {"outputs_train_competing": "prohibited"})
    async with mock_teacher(Options()) as mock:
        teacher = {name: value for name, value in acme(mock.base_url, model="acme").items() if name != "script"}
        own = {"id": "calls", "title": "t", "licence": "CC0-1.0", "acquisition": "user_data"}
        config = yaml.safe_load(USE) | {"terms_files": ["terms.yaml"], "teachers": [teacher], "sources": [own]}
        text, body = yaml.safe_dump(config), {"model": "acme", "max_tokens": 160, "messages": [HELLO]}
        async with served(tmp_path, mock=mock, config=text) as service:
            mine = service.token("ask")
            assert (await service.post("/v1/chat/completions", body, token=mine)).status == 200
        write_terms(terms, {"id": "acme-terms-2", "version": "2"})
        async with served(tmp_path, mock=mock, config=text) as service:
            _, rival = new_token(service.corpus, "ask", name="rival", intended_use={"student_competes": "yes"})
            for _ in range(2):  # from the store, and not from memory
                answer = await service.post("/v1/chat/completions", body, token=rival)
                assert (answer.status, answer.json["error"]["corpusgen"]["error"]) == (403, "AnswerBarred")
                assert "R14" in answer.text
            assert (await service.post("/v1/chat/completions", body | {"max_tokens": 161}, token=rival)).status == 200
        assert service.bill["requests"] == 2


async def test_what_is_remembered_is_judged_again_when_terms_may_have_changed(tmp_path: Path) -> None:
    today = [datetime(2026, 11, 22, 12, tzinfo=UTC)]
    async with served(tmp_path, corpus={"clock": lambda: today[0]}) as service:
        desk = service.service.desk
        await service.post("/v1/chat/completions", CHAT)
        (mark,) = desk._memory._found
        assert desk.remembered(mark, "ann") is not None
        today[0] += timedelta(days=1)
        other = CHAT | {"messages": [HELLO]}  # decides anew for the room, and not about the answer in memory
        assert (await service.post("/v1/chat/completions", other)).status == 200
        assert desk.remembered(mark, "ann") is None
        assert (await service.post("/v1/chat/completions", CHAT)).header("x-corpusgen-cache") == "hit"
        assert desk.remembered(mark, "ann") is not None


async def test_embeddings_are_given_again_only_where_their_terms_allow_it(tmp_path: Path) -> None:
    async with gateway_with_mock(tmp_path) as gate:
        asked = {"model": "mock-teacher", "input": ["a text"]}
        assert (await post(gate, "/v1/embeddings", asked))[0] == 200
        (room,) = gate.service.desk.rooms.open
        other = replace(room.asker.card, terms_set_id="other", terms_ids=("gone",))

        def under_other_terms(transaction: Transaction) -> None:
            store_card(transaction, other)
            transaction.execute("update answers set card_id = ?", (other.card_id,))

        gate.corpus.journal.run_now(under_other_terms)
        status, body, _ = await post(gate, "/v1/embeddings", asked)
        assert (status, body["error"]["code"]) == (403, "policy_refused")
        assert gate.bill["requests"] == 1


# --- what was paid for ------------------------------------------------------------------------------------------------


async def test_a_call_that_overran_its_bound_is_a_miss_with_its_cost(tmp_path: Path) -> None:
    async with gateway_with_mock(tmp_path) as gate:
        status, _, headers = await ask(gate, chat("fault:usage-huge"))
        assert (status, headers["x-corpusgen-cache"]) == (200, "miss")
        ((cost,),) = gate.rows("select microusd from calls")
        assert float(headers["x-corpusgen-cost-usd"]) * 1e6 == pytest.approx(cost)
        assert cost > 0
        assert not gate.service.desk._hits
        value = gate.service.meter.value
        assert (value("corpusgen_answers_total", "miss"), value("corpusgen_answers_total", "hit")) == (1, 0)
        assert value("corpusgen_cost_microusd_total", "endpoint/mock-teacher") == cost
        assert (await ask(gate, chat("fault:usage-huge")))[2]["x-corpusgen-cache"] == "hit"


async def test_an_answer_that_cannot_be_kept_ends_as_unknown_and_is_not_asked_for_again_by_clients(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise OverflowError("too much to book")

    async with gateway_with_mock(tmp_path) as gate:
        monkeypatch.setattr(Ledger, "settle", broken)
        status, body, headers = await ask(gate, chat("Lost?"))
        assert (status, headers["x-should-retry"]) == (500, "false")
        assert "too much" not in json.dumps(body)
        assert gate.rows("select state from calls") == [("unknown",)]
        async with gate.http.post("/v1/chat/completions", json=chat("Streamed?", stream=True)) as response:
            events = (await response.text()).strip().split("\n\n")
        assert orjson.loads(events[-1].removeprefix("data: "))["error"]["code"]
        assert "data: [DONE]" not in events
        assert gate.rows("select distinct state from calls") == [("unknown",)]


async def test_a_disk_that_is_full_when_an_answer_comes_loses_no_money(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(transaction: Transaction, *_: object) -> None:
        transaction.connection.execute("select no_such_thing")

    async with gateway_with_mock(tmp_path) as gate:
        with monkeypatch.context() as patch:
            patch.setattr("corpusgen.fanout.calling.store_answer", full)
            assert (await ask(gate, chat("Lost?")))[0] in (500, 503)
        assert gate.rows("select state from calls") == [("unknown",)]
        assert (await ask(gate, chat("Lost?")))[0] == 200
