"""The column ``conversation``: what was sent, where the messages do not say all of it, and nothing personal in it."""

from __future__ import annotations

from typing import Any, Literal

import orjson
import pytest
from conversation_samples import CHAT, MESSAGES, SAID, TOOLS, asked, conversations, given_turn
from hypothesis import given, settings

from corpusgen.assemble import RunFacts, record_of
from corpusgen.records import Api, Completion, Message, Record, Request, Usage
from corpusgen.screen import tagged, withheld
from corpusgen.store.answers import Answer, Card, RecordRow
from corpusgen.store.shards import read_records, write_shard

CANARY = "sk-proj-" + "Ab3dEf6hIj9k" * 4
USAGE = Usage(input_tokens=3, output_tokens=1)
CARD = Card(
    teacher="scripted/test",
    provider="corpusgen",
    model="m",
    route="mock",
    host="",
    identity="t",
    revision="",
    terms_set_id="none",
    terms_ids=(),
    outputs_train="yes",
)


def record(
    request: Request, *, personal: Literal["tag", "mask"] | None = None, text: str = "rain", **item: Any
) -> Record:
    """The record of an answer to a request."""
    facts = RunFacts(
        run_id="run",
        task="traffic",
        kind="response",
        spec_digest="0" * 64,
        prompt_digest="0" * 64,
        licence_expression="CC0-1.0",
        label_names=None,
        first_tokens=None,
        personal=personal,
    )
    row = RecordRow(
        record_id="ab" * 32,
        run_id="run",
        dataset="traffic",
        split="train",
        ordinal=0,
        item_id="i",
        request_key=request.key,
        first_key=request.key,
        from_cache=False,
        item={"input": "How is it in Ulm?", "source_ids": ["calls"], "sample_index": 0, **item},
    )
    answer = Answer(
        request_key=request.key,
        card_id="c",
        usage=USAGE,
        cost_microusd=5,
        price_version="p",
        provider_request_id=None,
        sent_us=1,
        received_us=2,
        compute_us=None,
        body=b"{}",
    )
    completion = Completion(text=text, finish_reason="stop", usage=USAGE)
    return record_of(facts, CARD, row, answer, request, completion, None)


def told(made: Record) -> Any:
    return orjson.loads(made.conversation or "null")


def test_a_question_of_plain_text_has_no_conversation_and_its_messages_as_ever() -> None:
    made = record(asked("chat", Message(role="user", content="hi")))
    assert (made.conversation, made.messages) == (None, (Message(role="user", content="hi"),))


@pytest.mark.parametrize("api", sorted(SAID))
def test_a_conversation_is_kept_as_it_was_sent_with_the_tools_that_were_offered(api: Api) -> None:
    made = record(asked(api, tools=TOOLS[api]))
    assert told(made) == {"api": api, "messages": SAID[api], "tools": TOOLS[api]}
    assert orjson.dumps(told(made), option=orjson.OPT_SORT_KEYS).decode() == made.conversation
    assert [turn.given for turn in made.messages] == [None] * len(SAID[api])


def test_offered_tools_alone_make_a_conversation_and_without_them_none_are_named() -> None:
    plain = Message(role="user", content="hi")
    made = record(asked("chat", plain, tools=TOOLS["chat"]))
    assert told(made)["messages"] == [{"role": "user", "content": "hi"}]
    assert "tools" not in told(record(asked("chat")))


def test_a_second_turn_that_asked_for_a_repair_is_not_part_of_the_conversation() -> None:
    assert told(record(asked("chat"), turns=2))["messages"] == CHAT[:2]


@settings(max_examples=60, deadline=None)
@given(conversations())
def test_any_record_of_a_conversation_comes_back_from_its_shard(
    tmp_path_factory: pytest.TempPathFactory, request_: Request
) -> None:
    folder, made = tmp_path_factory.mktemp("shard"), record(request_)
    write_shard(folder, "a.parquet", [made])
    (read,) = read_records([folder / "a.parquet"])
    assert (read.conversation, read.messages) == (made.conversation, made.messages)


# --- what does not leave, and what is not stored ----------------------------------------------------------------------


HIDING: list[tuple[Api, dict[str, Any]]] = [
    ("chat", {"role": "tool", "tool_call_id": "c", "content": f"key: {CANARY}"}),
    ("chat", {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": f'{{"k":"{CANARY}"}}'}}]}),
    ("chat", {"role": "user", "content": "hi", "name": CANARY}),
    ("messages", {"role": "user", "content": [{"type": "tool_result", "content": [{"type": "text", "text": CANARY}]}]}),
    ("messages", {"role": "assistant", "content": [{"type": "tool_use", "input": {"deep": [{CANARY: 1}]}}]}),
    ("messages", {"role": "assistant", "content": [{"type": "tool_use", "input": {"password": "hunter22!"}}]}),
    ("responses", {"type": "function_call_output", "call_id": "c", "output": CANARY}),
]


@pytest.mark.parametrize(("api", "turn"), HIDING)
def test_a_secret_anywhere_in_a_turn_is_withheld_and_never_repeated(api: Api, turn: dict[str, Any]) -> None:
    found = withheld(asked(api, given_turn(turn)))
    assert found is not None
    assert "holds a secret" in str(found)
    assert CANARY not in str(found)


def test_a_secret_among_the_tools_is_withheld() -> None:
    tools = [{"name": "f", "description": f"use {CANARY}", "input_schema": {"type": "object"}}]
    assert "tools holds a secret" in str(withheld(asked("messages", Message(role="user", content="hi"), tools=tools)))


@pytest.mark.parametrize("api", sorted(SAID))
def test_an_ordinary_conversation_is_sent(api: Api) -> None:
    assert withheld(asked(api, tools=TOOLS[api]), blocked=("email", "phone", "credit_card")) is None


def test_what_only_the_teacher_can_read_is_not_looked_into() -> None:
    signed = [
        {"type": "thinking", "thinking": "hm", "signature": CANARY},
        {"type": "redacted_thinking", "data": CANARY},
    ]
    assert withheld(asked("messages", given_turn({"role": "assistant", "content": signed}))) is None
    sealed = {"type": "reasoning", "summary": [], "encrypted_content": CANARY}
    assert withheld(asked("responses", given_turn(sealed))) is None


def test_what_is_no_turn_is_left_to_who_would_send_it() -> None:
    assert withheld(asked("chat", Message(role="user", content="", given="{"))) is None


CARD_NUMBER = 4111111111111111


def test_a_blocked_kind_is_withheld_also_as_a_number() -> None:
    turn = given_turn({"role": "assistant", "content": [{"type": "tool_use", "input": {"card": CARD_NUMBER}}]})
    assert withheld(asked("messages", turn)) is None
    assert "personal data" in str(withheld(asked("messages", turn), blocked=("credit_card",)))


ADA, BOB = "ada@example.org", "bob@example.org"


def personal() -> Request:
    """A conversation that names two people in every place there is."""
    call = {
        "id": "c",
        "type": "function",
        "function": {"name": "mail", "arguments": f'{{"to":"\\n{BOB}","cc":["{ADA}"]}}'},
    }
    turns = [
        given_turn({"role": "user", "content": [{"type": "text", "text": f"I am {ADA}"}]}, f"I am {ADA}"),
        given_turn({"role": "assistant", "content": None, "tool_calls": [call]}),
        given_turn({"role": "tool", "tool_call_id": "c", "content": f"sent to {BOB}"}, f"sent to {BOB}"),
    ]
    return asked("chat", *turns)


def test_masks_hide_one_value_under_one_number_wherever_it_stands() -> None:
    made = record(personal(), personal="mask", text=f"{BOB} has it, {ADA}", input=f"I am {ADA}")
    assert (made.input, made.pii_kinds) == ("I am [EMAIL_1]", ("email",))
    assert made.response == "[EMAIL_2] has it, [EMAIL_1]"
    assert [turn.content for turn in made.messages] == ["I am [EMAIL_1]", "", "sent to [EMAIL_2]"]
    said = told(made)["messages"]
    assert orjson.loads(said[1]["tool_calls"][0]["function"]["arguments"]) == {"to": "\n[EMAIL_2]", "cc": ["[EMAIL_1]"]}
    assert said[2] == {"role": "tool", "tool_call_id": "c", "content": "sent to [EMAIL_2]"}
    assert "example.org" not in repr(made)


def test_tags_name_the_kinds_and_change_nothing_else() -> None:
    made = record(personal(), personal="tag")
    assert made.pii_kinds == ("email",)
    assert made.conversation == record(personal()).conversation


def test_a_record_that_is_masked_already_stays_as_it_is() -> None:
    made = record(personal(), personal="mask", text=f"{BOB} has it", input=f"I am {ADA}")
    assert tagged(made, mask=True) == made


def test_masks_leave_what_is_signed_and_plain_conversations_as_they_are() -> None:
    made = record(asked("messages", tools=TOOLS["messages"]), personal="mask")
    assert told(made)["messages"] == MESSAGES
    plain = record(asked("chat", Message(role="user", content="hi"), tools=TOOLS["chat"]), personal="mask")
    assert told(plain)["tools"] == TOOLS["chat"]


def test_a_number_that_is_personal_is_masked_too() -> None:
    turn = given_turn({"role": "assistant", "content": [{"type": "tool_use", "input": {"card": CARD_NUMBER}}]})
    made = record(asked("messages", turn), personal="mask")
    assert told(made)["messages"][0]["content"][0]["input"] == {"card": "[CREDIT_CARD_1]"}
