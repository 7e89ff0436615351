"""What servers call things, and what they say beyond OpenAI's wire format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from teacher_samples import TickingClock, chat_reply, claude, ranked, reply, response, spec

from corpusgen.budget.rate import Rate
from corpusgen.errors import InvalidAnswer, RequestRefused, UnsupportedParameter, UsageError
from corpusgen.records import Api, Completion, Message, Reply, Request, Usage
from corpusgen.teachers import endpoint
from corpusgen.teachers.billing import load_rows, shipped_rows
from corpusgen.teachers.endpoint import Endpoint
from corpusgen.teachers.messages_wire import messages_body, read_message
from corpusgen.teachers.reading import read_choices
from corpusgen.teachers.registry import check_parameters, open_teacher
from corpusgen.teachers.responses_wire import read_response

RATE = Rate(input_per_mtok=1_000_000, output_per_mtok=2_000_000, version="test")


def teacher(name: str, **fields: Any) -> Endpoint:
    found = open_teacher(spec(name, **fields), folder=Path(), clock=TickingClock(), sending=False)
    assert isinstance(found, Endpoint)
    return found


def asked(name: str, *, schema: Any = None, tools: Any = None, **parameters: Any) -> tuple[str, dict[str, Any]]:
    asking = teacher(name)
    turn = (Message(role="user", content="a"),)
    request = Request(
        teacher="t",
        model=asking.card.model,
        api=asking.card.chat_api,
        messages=turn,
        parameters={"max_tokens": 9, **parameters},
        schema=schema,
        tools=tools,
    )
    path, body = asking.wire(request)
    return path, orjson.loads(body)


def told(name: str, body: Any, api: Api = "chat", **parameters: Any) -> tuple[Completion, ...]:
    turn = (Message(role="user", content="a"),)
    request = Request(teacher="t", model="m", api=api, messages=turn, parameters={"max_tokens": 9, **parameters})
    clock = TickingClock()
    got = Reply(body=orjson.dumps(body), request_id=None, sent_time=clock(), received_time=clock())
    return teacher(name).read_choices(request, got)


# --- what is sent ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "spelt"),
    [("openai/m", "max_completion_tokens"), ("groq/m", "max_completion_tokens"), ("vllm/m", "max_tokens")],
)
def test_the_limit_goes_by_the_servers_own_name(name: str, spelt: str) -> None:
    _, body = asked(name)
    assert {field for field in body if field.startswith("max")} == {spelt}
    assert body[spelt] == 9


def test_mistral_calls_a_seed_by_another_name() -> None:
    _, body = asked("mistral/m", seed=7)
    assert (body["random_seed"], "seed" in body) == (7, False)


def test_together_wants_the_number_of_runners_up_as_logprobs() -> None:
    _, body = asked("together/m", top_logprobs=5)
    assert (body["logprobs"], "top_logprobs" in body) == (5, False)


@pytest.mark.parametrize(
    ("name", "form"), [("deepseek/m", {"type": "json_object"}), ("tgi/m", "json_schema"), ("litellm/m", "json_schema")]
)
def test_a_schema_goes_as_far_as_the_server_keeps_to_it(name: str, form: Any) -> None:
    fields = {"base_url": "https://proxy.example/v1"} if name.startswith("litellm") else {}
    asking = teacher(name, **fields)
    request = Request(
        teacher="t", model="m", api="chat", messages=(), parameters={"max_tokens": 1}, schema={"type": "object"}
    )
    body = orjson.loads(asking.wire(request)[1])
    found = body["response_format"]
    assert found == form if isinstance(form, dict) else found["type"] == form


@pytest.mark.parametrize(
    ("base_url", "version", "path"),
    [
        ("https://r.openai.azure.com/openai/v1", None, "/chat/completions"),
        ("https://r.openai.azure.com/openai/v1", "preview", "/chat/completions?api-version=preview"),
        (
            "https://r.openai.azure.com/openai",
            "2024-10-21",
            "/deployments/gpt-4.1/chat/completions?api-version=2024-10-21",
        ),
    ],
)
def test_azure_is_asked_at_its_old_and_its_new_address(base_url: str, version: str | None, path: str) -> None:
    asking = teacher("azure/gpt-4.1", base_url=base_url, api_version=version)
    request = Request(teacher="t", model="gpt-4.1", api="chat", messages=(), parameters={"max_tokens": 1})
    assert asking.wire(request)[0] == path
    assert (asking.transport.key_header, asking.card.provider, asking.card.route) == ("api-key", "microsoft", "cloud")
    assert asking.card.capabilities.context_tokens == 1_000_000  # as OpenAI's own


def test_a_row_is_found_by_the_host_too() -> None:
    found = teacher("endpoint/m", base_url="https://api.groq.com/openai/v1").card
    assert (found.provider, found.route, found.capabilities.top_logprobs) == ("groq", "aggregator", 0)


def test_a_models_maker_says_nothing_of_the_server_it_runs_on() -> None:
    found = teacher("endpoint/gpt-oss-20b", base_url="https://my.example/v1", provider="openai").card
    check_parameters(found, {"max_tokens": 1, "temperature": 1, "min_p": 0.1, "top_logprobs": 5})
    assert found.provider == "openai"


def test_a_server_without_an_address_asks_for_one() -> None:
    with pytest.raises(UsageError, match="base_url: LiteLLM proxy needs its address"):
        teacher("litellm/m")


def test_an_api_that_a_server_is_not_known_to_serve_is_refused() -> None:
    with pytest.raises(UnsupportedParameter, match="api: Mistral is not known to serve responses"):
        teacher("mistral/m", api="responses")


def test_a_system_text_among_the_turns_cannot_be_said_to_claude() -> None:
    turns = (Message(role="user", content="a"), Message(role="system", content="b"))
    with pytest.raises(RequestRefused, match="before the first turn only"):
        messages_body(Request(teacher="t", model="m", api="messages", messages=turns))


def test_several_system_texts_are_one() -> None:
    turns = (*(Message(role="system", content=text) for text in "ab"), Message(role="user", content="c"))
    body = orjson.loads(messages_body(Request(teacher="t", model="m", api="messages", messages=turns)))
    assert (body["system"], len(body["messages"])) == ("a\n\nb", 1)


# --- what comes back -------------------------------------------------------------------------------------------------


def test_openrouter_says_what_it_charged_and_who_answered() -> None:
    body = chat_reply(provider="DeepInfra", usage={"prompt_tokens": 3, "completion_tokens": 1, "cost": 0.0000123})
    (read,) = told("openrouter/m", body)
    assert (read.upstream, read.usage.billed_microusd) == ("DeepInfra", 13)
    assert RATE.used(read.usage).microusd == 13


@pytest.mark.parametrize("cost", [-1, "1", None, True, 1e300])
def test_a_cost_that_is_none_is_not_believed(cost: Any) -> None:
    (read,) = told("openrouter/m", chat_reply(usage={"prompt_tokens": 3, "completion_tokens": 1, "cost": cost}))
    assert read.usage.billed_microusd is None


def test_a_cost_is_not_taken_from_somebody_whose_word_it_is_not() -> None:
    (read,) = told("vllm/m", chat_reply(usage={"prompt_tokens": 3, "completion_tokens": 1, "cost": 0}))
    assert (read.usage.billed_microusd, RATE.used(read.usage).microusd) == (None, 5)


def test_reasoning_in_parts_is_kept_with_its_signatures() -> None:
    parts = [
        {"type": "reasoning.text", "text": "well", "signature": "abc"},
        {"type": "reasoning.encrypted", "data": "x"},
    ]
    (read,) = told("openrouter/m", chat_reply({"reasoning": "well", "reasoning_details": parts}))
    assert (read.reasoning, read.trace_kind, orjson.loads(read.reasoning_parts or "")) == ("well", "raw", parts)


def test_claudes_thinking_through_a_proxy_is_a_summary() -> None:
    parts = [{"type": "thinking", "thinking": "well", "signature": "abc"}]
    body = chat_reply({"reasoning_content": "well", "thinking_blocks": parts})
    clock = TickingClock()
    request = Request(teacher="t", model="m", api="chat", messages=(), parameters={"max_tokens": 9})
    got = Reply(body=orjson.dumps(body), request_id=None, sent_time=clock(), received_time=clock())
    (read,) = teacher("litellm/m", base_url="https://proxy.example/v1").read_choices(request, got)
    assert (read.trace_kind, orjson.loads(read.reasoning_parts or "")) == ("summary", parts)


def test_mistrals_parts_are_told_apart() -> None:
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": "well"}]}
    (read,) = told("mistral/m", chat_reply({"content": [thought, {"type": "text", "text": "animal"}]}))
    assert (read.text, read.reasoning, read.trace_kind) == ("animal", "well", "raw")


def test_of_several_answers_those_that_can_be_read_are_kept() -> None:
    good = {"finish_reason": "stop", "message": {"content": "a"}}
    body = reply(choices=[good, {"finish_reason": "stop", "message": 7}, {**good, "message": {"content": "c"}}])
    read = told("vllm/m", body, n=3)
    assert [(one.text, one.choice_index) for one in read] == [("a", 0), ("c", 2)]


def test_no_answer_of_several_is_no_answer() -> None:
    with pytest.raises(InvalidAnswer, match="message"):
        told("vllm/m", reply(choices=[{"finish_reason": "stop"}] * 2), n=2)


def test_of_more_answers_than_the_several_that_were_asked_for_the_first_are_kept_and_the_rest_is_told() -> None:
    choice = {"finish_reason": "stop", "message": {"content": "a"}}
    read = told("vllm/m", reply(choices=[choice] * 3), n=2)
    assert [(one.choice_index, one.surplus) for one in read] == [(0, 1), (1, 1)]


def test_without_a_count_several_answers_are_booked_at_the_most_all_can_have() -> None:
    choice = {"finish_reason": "stop", "message": {"content": "a"}}
    read = told("vllm/m", reply(choices=[choice] * 2, usage=None), n=2)
    assert [one.usage.output_tokens for one in read] == [18, 18]
    assert RATE.used(read[0].usage).microusd == RATE.worst(read[0].usage.input_tokens, 18).microusd


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (response(status="failed", error={"code": "server_error", "message": "no"}), "HTTP 200 with an error"),
        (response(status="queued"), "status completed"),
        (response(output=7), "a list as output"),
    ],
)
def test_a_response_that_is_none_says_what_was_found(body: Any, said: str) -> None:
    with pytest.raises(InvalidAnswer, match=said):
        read_response(orjson.dumps(body))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (claude(content=7), "a list as content"),
        (claude({"type": "tool_use", "id": "x", "name": "f", "input": "text"}, stop_reason="tool_use"), "input"),
    ],
)
def test_a_message_that_is_none_says_what_was_found(body: Any, said: str) -> None:
    with pytest.raises(InvalidAnswer, match=said):
        read_message(orjson.dumps(body))


@pytest.mark.parametrize("reason", ["compaction", None, 7])
def test_a_message_that_ended_for_an_unknown_reason_is_kept(reason: Any) -> None:
    read = read_message(orjson.dumps(claude({"type": "text", "text": "animal"}, stop_reason=reason)))
    assert (read.text, read.finish_reason) == ("animal", "other")


def test_a_response_that_is_incomplete_for_an_unknown_reason_is_kept() -> None:
    body = response("animal", status="incomplete", incomplete_details={"reason": "bored"})
    assert (read_response(orjson.dumps(body)).text, read_response(orjson.dumps(body)).finish_reason) == (
        "animal",
        "other",
    )


def test_an_answer_without_words_is_an_empty_answer() -> None:
    assert read_response(orjson.dumps(response(output=[]))).text == ""
    assert read_message(orjson.dumps(claude({"type": "text", "text": ""}))).text == ""


@pytest.mark.parametrize(
    "body",
    [
        response(usage={"input_tokens": 1, "output_tokens": -1}),
        response(usage={"input_tokens": 1, "output_tokens": 1, "input_tokens_details": {"cached_tokens": 2}}),
    ],
)
def test_impossible_figures_of_a_response_are_no_count(body: Any) -> None:
    assert not read_response(orjson.dumps(body)).usage.counted


@pytest.mark.parametrize(
    "usage",
    [
        {"input_tokens": 1.5, "output_tokens": 1},
        {"input_tokens": 1, "output_tokens": 1, "output_tokens_details": {"thinking_tokens": 2}},
    ],
)
def test_impossible_figures_of_a_message_are_no_count(usage: Any) -> None:
    assert not read_message(orjson.dumps(claude(usage=usage))).usage.counted


def test_a_block_of_an_unknown_kind_is_passed_over() -> None:
    read = read_message(orjson.dumps(claude({"type": "hologram", "data": 1}, {"type": "text", "text": "animal"})))
    assert read.text == "animal"


def test_notes_on_the_way_are_not_the_answer() -> None:
    body = response("animal")
    note = {**body["output"][0], "phase": "commentary", "content": [{"type": "output_text", "text": "Looking…"}]}
    assert read_response(orjson.dumps({**body, "output": [note, *body["output"]]})).text == "animal"
    assert read_response(orjson.dumps({**body, "output": [note]})).text == "Looking…"


def test_what_is_answered_faster_is_priced_as_such() -> None:
    usage = {"input_tokens": 3, "output_tokens": 1, "service_tier": "standard", "speed": "fast"}
    assert read_message(orjson.dumps(claude(usage=usage))).usage.service_tier == "speed=fast"


def test_an_answer_is_read_from_an_archive_by_its_request_alone() -> None:
    clock = TickingClock()
    bodies: dict[Api, Any] = {
        "chat": chat_reply(),
        "completion": reply(),
        "responses": response(),
        "messages": claude(),
    }
    for api, body in bodies.items():
        request = Request(teacher="t", model="m", api=api, messages=(), parameters={"max_tokens": 9})
        got = Reply(body=orjson.dumps(body), request_id="r", sent_time=clock(), received_time=clock())
        (read,) = read_choices(request, got)
        assert (read.text.strip(), read.provider_request_id) == ("animal", "r")


def test_a_fenced_answer_is_json_too_and_one_that_does_not_fit_is_none() -> None:
    schema = {"type": "object", "required": ["a"], "properties": {"a": {"type": "integer"}}}
    clock = TickingClock()
    request = Request(teacher="t", model="m", api="chat", messages=(), parameters={"max_tokens": 9}, schema=schema)
    found = []
    for text in ('{"a": 1}', '```json\n{"a": 1}\n```', '{"a": "x"}', "no"):
        body = orjson.dumps(chat_reply({"content": text}))
        got = Reply(body=body, request_id=None, sent_time=clock(), received_time=clock())
        found.append(read_choices(request, got)[0].structured)
    assert found == ['{"a":1}', '{"a":1}', None, None]


WORDS = ["choices", "content", "usage", "output", "type", "text", "thinking", "reasoning", "status", "stop_reason"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.sampled_from(WORDS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=4),
    max_leaves=12,
)


@given(JSON, st.sampled_from([*WORDS, "error", "model", "incomplete_details", "stop_details", "service_tier"]))
def test_whatever_is_said_is_an_answer_or_an_invalid_answer(value: Any, field: str) -> None:
    bodies = [value, response(**{field: value}), claude(**{field: value}), response(output=[value, {"type": value}])]
    blocks = [claude({"type": "thinking", field: value}), claude({"type": "tool_use", field: value})]
    for body in (*bodies, *blocks):
        for read in (read_response, read_message):
            try:
                read(orjson.dumps(body))
            except InvalidAnswer:
                continue


# --- the table -------------------------------------------------------------------------------------------------------


def test_every_row_says_where_it_is_written_and_when() -> None:
    rows = shipped_rows()
    assert len({row.name for row in rows}) == len(rows) >= 16
    assert {"openai", "anthropic"} <= {row.name for row in rows}
    for fact in (*rows, *(fact for row in rows for fact in row.models)):
        assert fact.source
        assert fact.as_of >= "2026-01-01"


def test_a_mistake_in_the_table_is_named_with_its_line(tmp_path: Path) -> None:
    table = tmp_path / "endpoints.yaml"
    row = "  - {name: x, title: X, source: here, as_of: 2026-01-01, confidence: high, chioces: 2}"
    table.write_text(f"schema: corpusgen.endpoints/1\nbilling: []\nendpoints:\n{row}\n")
    with pytest.raises(UsageError, match=r"endpoints\.yaml:4: .*chioces"):
        load_rows(table)


@pytest.mark.parametrize("model", ["gpt-5.4-mini", "gpt-5.4-mini-2026-03-17", "openai/gpt-5.4-mini"])
def test_facts_of_a_model_are_found_under_each_of_its_names(model: str) -> None:
    row = next(row for row in shipped_rows() if row.name == "openai")
    fact = row.of(model)
    assert fact is not None
    assert fact.context_tokens == 400_000


def test_parameters_of_openai_are_those_of_its_sdk() -> None:
    from openai.types.chat.completion_create_params import CompletionCreateParamsBase
    from openai.types.responses.response_create_params import ResponseCreateParamsBase

    from corpusgen.teachers.openai import CHAT_PARAMETERS, RESPONSES_PARAMETERS

    ours = {"max_tokens", "reasoning_effort"}  # sent under another name
    assert CHAT_PARAMETERS - ours <= CompletionCreateParamsBase.__annotations__.keys()
    assert RESPONSES_PARAMETERS - ours <= ResponseCreateParamsBase.__annotations__.keys()


def test_parameters_of_anthropic_are_those_of_its_sdk() -> None:
    from anthropic.types.message_create_params import MessageCreateParamsBase

    from corpusgen.teachers.anthropic import PARAMETERS, SAMPLING

    known = MessageCreateParamsBase.__annotations__.keys()
    assert PARAMETERS - {"stop", "reasoning_effort"} <= known
    assert not SAMPLING & known


def test_uncounted_usage_costs_the_worst_case_and_a_known_tier_above_it_more() -> None:
    usage = Usage(input_tokens=10, output_tokens=5, counted=False)
    assert RATE.used(usage) == RATE.worst(10, 5)


def test_log_probabilities_of_a_token_without_bytes_are_those_of_its_text() -> None:
    body = chat_reply()
    body["choices"][0]["logprobs"] = ranked(("an", -0.5))
    (read,) = told("vllm/m", body)
    assert read.logprobs is not None
    assert read.logprobs.token_bytes == (b"an",)


# --- what would pass a bound ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("max_completion_tokens", "write max_tokens"),
        ("max_new_tokens", "write max_tokens"),
        ("n_predict", "write max_tokens"),
        ("use_beam_search", "write asking.samples"),
        ("best_of", "write asking.samples"),
        ("models", "write teachers"),
        ("plugins", "fees"),
        ("enable_search", "fees"),
        ("tools", "beside teachers"),
    ],
)
@pytest.mark.parametrize("who", ["openrouter/m", "vllm/m", "openai/gpt-4.1"])
def test_what_bounds_or_multiplies_an_answer_has_one_name(who: str, name: str, instead: str) -> None:
    with pytest.raises(UnsupportedParameter, match=instead):
        check_parameters(teacher(who).card, {"max_tokens": 1, name: 9})


@pytest.mark.parametrize(("upstream", "bill"), [(0.0031, 3250), (None, None), ("much", None)])
def test_a_key_of_ones_own_behind_openrouter_is_paid_for_too(upstream: Any, bill: int | None) -> None:
    usage = {"prompt_tokens": 40, "completion_tokens": 90, "cost": 0.00015, "is_byok": True}
    details = {"cost_details": {"upstream_inference_cost": upstream}}
    (read,) = told("openrouter/m", chat_reply(usage={**usage, **details}))
    assert read.usage.billed_microusd == bill


@pytest.mark.parametrize("usage", [{"cost": 0}, {"cost": 0, "prompt_tokens": 3, "completion_tokens": 0}])
def test_a_bill_without_counts_is_not_believed(usage: Any) -> None:
    (read,) = told("openrouter/m", chat_reply(usage=usage))
    assert (read.usage.billed_microusd, read.usage.output_tokens, read.usage.counted) == (None, 9, False)


@pytest.mark.parametrize(
    "message",
    [
        {"tool_calls": [{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
        {"reasoning_content": "long"},
        {"refusal": "no"},
    ],
)
def test_whatever_was_written_was_paid_for(message: Any) -> None:
    body = chat_reply({"content": None, **message}, usage={"prompt_tokens": 3, "completion_tokens": 0})
    (read,) = told("vllm/m", body)
    assert (read.usage.output_tokens, read.usage.counted) == (9, False)


def test_the_version_that_is_asked_for_is_part_of_the_question() -> None:
    new, old = teacher("anthropic/m"), teacher("anthropic/m", api_version="2023-06-01")
    assert (new.card.identity, old.card.identity) == (
        "anthropic@https://api.anthropic.com api-version 2026-10-21",
        "anthropic@https://api.anthropic.com api-version 2023-06-01",
    )
    assert teacher("groq/m").card.identity == "groq@https://api.groq.com"


def test_what_is_sent_with_every_request_is_part_of_the_question(monkeypatch: pytest.MonkeyPatch) -> None:
    row = endpoint.row_of(spec("groq/m"))
    assert row is not None
    saying = row.model_copy(update={"body": {"store": False}})
    monkeypatch.setattr(endpoint, "row_of", lambda _: saying)
    assert teacher("groq/m").card.identity == 'groq@https://api.groq.com {"store":false}'
