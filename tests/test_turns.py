"""Turns that say more than text: they go word for word, count in full, and are refused where they cannot be said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from conversation_samples import CHAT, MESSAGES, RESPONSES, SAID, TOOLS, asked, conversations, given_turn
from hypothesis import given, settings
from teacher_samples import TickingClock, spec

from corpusgen.assemble import request_of
from corpusgen.errors import RequestRefused, UnsupportedParameter
from corpusgen.records import Api, Message, canonical_json
from corpusgen.teachers.endpoint import Endpoint
from corpusgen.teachers.reading import body_of
from corpusgen.teachers.registry import check_fits, check_size, open_teacher
from corpusgen.teachers.scripted import ScriptedAnswer, scripted
from corpusgen.teachers.structured import told
from corpusgen.teachers.turns import said_plainly

APIS: list[Api] = ["chat", "messages", "responses"]


def sent(request: Any) -> dict[str, Any]:
    body: dict[str, Any] = orjson.loads(body_of(request))
    return body


def test_a_chat_goes_word_for_word() -> None:
    assert sent(asked("chat"))["messages"] == CHAT


def test_items_of_responses_go_word_for_word_also_without_a_role() -> None:
    assert sent(asked("responses"))["input"] == RESPONSES


def test_blocks_of_messages_go_word_for_word_and_the_system_blocks_to_the_top() -> None:
    body = sent(asked("messages"))
    assert body["system"] == MESSAGES[0]["content"]
    assert body["messages"] == MESSAGES[1:]


def test_plain_and_given_system_text_become_blocks_in_their_order() -> None:
    plain = Message(role="system", content="Answer in German.")
    body = sent(asked("messages", plain, *(given_turn(turn) for turn in MESSAGES)))
    assert body["system"] == [{"type": "text", "text": "Answer in German."}, *MESSAGES[0]["content"]]


def test_plain_system_texts_are_one_text_as_ever() -> None:
    system = (Message(role="system", content="one"), Message(role="system", content="two"))
    assert sent(asked("messages", *system, Message(role="user", content="hi")))["system"] == "one\n\ntwo"


@pytest.mark.parametrize("role", ["tool", "developer"])
def test_messages_refuse_roles_they_do_not_know_and_name_the_turn(role: Any) -> None:
    with pytest.raises(RequestRefused, match=f"turn 2 is of role '{role}'"):
        body_of(asked("messages", Message(role="user", content="hi"), Message(role=role, content="ho")))


@pytest.mark.parametrize("api", APIS)
def test_tools_in_the_words_of_their_wire_format_go_word_for_word(api: Api) -> None:
    assert sent(asked(api, tools=TOOLS[api]))["tools"] == TOOLS[api]


def test_a_tool_choice_in_the_words_of_its_wire_format_goes_word_for_word() -> None:
    choices: dict[Api, Any] = {
        "chat": {"type": "function", "function": {"name": "weather"}},
        "messages": {"type": "tool", "name": "weather", "disable_parallel_tool_use": True},
        "responses": {"type": "function", "name": "weather"},
    }
    for api, choice in choices.items():
        parameters = {"max_tokens": 9, "tool_choice": choice}
        assert sent(asked(api, tools=TOOLS[api], parameters=parameters))["tool_choice"] == choice


@settings(max_examples=150, deadline=None)
@given(conversations())
def test_any_conversation_is_stored_and_sent_again_as_the_same_request(request: Any) -> None:
    again = request_of(orjson.loads(canonical_json(orjson.loads(request.body))))
    assert (again, again.key) == (request, request.key)
    assert body_of(again) == body_of(request)


def test_what_was_given_is_part_of_the_request_key() -> None:
    plain = asked("chat", Message(role="user", content="hi"))
    named = asked("chat", given_turn({"role": "user", "content": "hi", "name": "ada"}, "hi"))
    other = asked("chat", given_turn({"role": "user", "content": "hi", "name": "bob"}, "hi"))
    assert len({plain.key, named.key, other.key}) == 3


IMAGE = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
RESULT = {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "image", "source": {}}]}


@pytest.mark.parametrize(
    ("api", "turn", "told"),
    [
        ("chat", {"role": "user", "content": [IMAGE]}, "turn 1 .user. holds a part of type image_url"),
        ("chat", {"role": "user", "content": {"a": 1}}, "holds a part of type dict"),
        ("chat", {"role": "assistant", "content": "x", "audio": {"id": "a"}}, "holds audio"),
        ("messages", {"role": "user", "content": [RESULT]}, "holds a part of type image"),
        ("messages", {"role": "user", "content": ["x"]}, "holds a part of type str"),
        ("messages", {"role": "user", "content": [{"type": "document"}]}, "holds a part of type document"),
        ("responses", {"role": "user", "content": [{"type": "input_file"}]}, "holds a part of type input_file"),
        ("responses", {"type": "item_reference", "id": "x"}, "is an item of type 'item_reference'"),
    ],
)
def test_what_no_count_of_tokens_bounds_is_refused(api: Api, turn: dict[str, Any], told: str) -> None:
    with pytest.raises(RequestRefused, match=told):
        body_of(asked(api, given_turn(turn, role=turn.get("role", "user"))))


@pytest.mark.parametrize(("given", "why"), [("{", "no JSON"), ("[]", "given as list"), ('"x"', "given as str")])
def test_what_is_no_turn_is_refused(given: str, why: str) -> None:
    with pytest.raises(RequestRefused, match=f"turn 1 .user. was {why}|turn 1 .user. was given as what is {why}"):
        body_of(asked("chat", Message(role="user", content="", given=given)))


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("name", ["endpoint/m", "openai/gpt-4.1", "openai/o3"])
def test_the_bound_of_input_tokens_counts_all_that_was_given(api: Api, name: str) -> None:
    teacher = open_teacher(
        spec(name, base_url="http://127.0.0.1:1/v1"), folder=Path(), clock=TickingClock(), sending=False
    )
    bare = teacher.input_tokens_bound(asked(api, *[Message(role="user", content="")] * len(SAID[api])))
    one = teacher.input_tokens_bound(asked(api))
    turns = [given_turn(turn) for turn in SAID[api]]
    longer = given_turn({**SAID[api][-1], "note": "word " * 1000}, role="user")
    assert one > bare
    assert teacher.input_tokens_bound(asked(api, *turns[:-1], longer)) >= one + 1000


def limited(**limits: Any) -> Endpoint:
    teacher = open_teacher(spec(base_url="http://127.0.0.1:1/v1"), folder=Path(), clock=TickingClock())
    assert isinstance(teacher, Endpoint)
    return replace(teacher, card=replace(teacher.card, capabilities=replace(teacher.card.capabilities, **limits)))


def test_what_was_given_counts_for_the_largest_request() -> None:
    teacher = limited(max_body_bytes=1000)
    check_size(teacher, asked("chat"))
    with pytest.raises(UnsupportedParameter, match="at most 1,000 bytes"):
        check_size(teacher, asked("chat", given_turn({"role": "user", "content": "hi", "name": "a" * 1000})))


def test_a_conversation_that_surely_exceeds_the_context_is_refused() -> None:
    teacher = limited(context_tokens=100)
    check_fits(teacher, asked("chat", given_turn(CHAT[3], "rain")))
    with pytest.raises(UnsupportedParameter, match="context window of 100 tokens"):
        check_fits(teacher, asked("chat", given_turn({**CHAT[3], "content": "rain " * 400}, "rain " * 400)))


def test_a_completion_takes_parts_of_text_and_refuses_more() -> None:
    parts = given_turn(
        {"role": "user", "content": [{"type": "text", "text": "Once"}, {"type": "text", "text": " upon"}]}
    )
    assert sent(asked("completion", parts))["prompt"] == "Once upon"
    with pytest.raises(RequestRefused, match=r"turn 1 \(user\) holds name, which a completion cannot be told"):
        body_of(asked("completion", given_turn({"role": "user", "content": "hi", "name": "ada"})))


@pytest.mark.parametrize("turn", [CHAT[1], CHAT[2], CHAT[3]])
def test_who_knows_only_text_refuses_a_turn_that_says_more(turn: dict[str, Any]) -> None:
    first = Message(role="user", content="hi")
    with pytest.raises(RequestRefused, match=r"turn 2 .* which embedded/x cannot be told; ask another"):
        said_plainly(asked("chat", first, given_turn(turn)), "embedded/x")


def test_who_knows_only_text_is_told_parts_of_text_as_one() -> None:
    plain = said_plainly(asked("chat", given_turn(CHAT[0])), "embedded/x")
    assert plain.messages == (Message(role="developer", content="Be brief."),)


async def test_a_script_answers_a_conversation_with_tools_by_its_text() -> None:
    teacher = scripted(lambda asked: ScriptedAnswer(text=asked.messages[-1].content), clock=TickingClock())
    turns = [given_turn(turn, "rain" if turn["role"] == "tool" else "") for turn in CHAT]
    request = asked("chat", *turns)
    answer = teacher.read(request, await teacher.ask(request, timeout_s=1))
    assert answer.text == "rain"
    assert answer.usage.input_tokens <= teacher.input_tokens_bound(request)


def test_a_schema_is_told_in_a_turn_of_its_own_where_the_last_says_more_than_text() -> None:
    messages = asked("chat").messages
    assert told(messages, {"type": "object"})[:-1] == messages
    assert told(messages, {"type": "object"})[-1].role == "user"
