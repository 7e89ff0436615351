"""Conversations with tools in each wire format, word for word as clients send them, and a strategy for strange ones."""

from __future__ import annotations

from typing import Any, Final

import orjson
from hypothesis import strategies as st

from corpusgen.records import Api, Message, Request

CHAT_CALL: Final = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Ulm"}'}}
CHAT: Final[list[dict[str, Any]]] = [
    {"role": "developer", "content": [{"type": "text", "text": "Be brief."}]},
    {"role": "user", "content": "How is it in Ulm?", "name": "ada"},
    {"role": "assistant", "content": None, "tool_calls": [CHAT_CALL], "reasoning_content": "I look it up."},
    {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
]
MESSAGES: Final[list[dict[str, Any]]] = [
    {"role": "system", "content": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]},
    {"role": "user", "content": [{"type": "text", "text": "How is it in Ulm?"}]},
    {
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": "I look it up.", "signature": "c2lnbmVk"},
            {"type": "redacted_thinking", "data": "aGlkZGVu"},
            {"type": "text", "text": "A moment."},
            {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Ulm"}},
        ],
    },
    {
        "role": "user",
        "content": [
            {"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": "rain"}]},
            {"type": "text", "text": "And tomorrow?"},
        ],
    },
]
RESPONSES: Final[list[dict[str, Any]]] = [
    {"role": "developer", "content": "Be brief."},
    {"role": "user", "content": [{"type": "input_text", "text": "How is it in Ulm?"}]},
    {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "aGlkZGVu"},
    {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": '{"city":"Ulm"}'},
    {"type": "function_call_output", "call_id": "call_1", "output": "rain"},
]
SAID: Final[dict[Api, list[dict[str, Any]]]] = {"chat": CHAT, "messages": MESSAGES, "responses": RESPONSES}

_PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS: Final[dict[Api, list[dict[str, Any]]]] = {
    "chat": [{"type": "function", "function": {"name": "weather", "description": "d", "parameters": _PARAMETERS}}],
    "messages": [{"name": "weather", "description": "d", "input_schema": _PARAMETERS}],
    "responses": [{"type": "function", "name": "weather", "description": "d", "parameters": _PARAMETERS}],
}


def given_turn(turn: dict[str, Any], text: str = "", role: Any = None) -> Message:
    """A turn that says more than text."""
    return Message(role=role or turn.get("role", "assistant"), content=text, given=orjson.dumps(turn).decode())


def asked(api: Api, *messages: Message, tools: Any = None, **fields: Any) -> Request:
    """A request of these turns; without any, the conversation above."""
    turns = messages or tuple(given_turn(turn) for turn in SAID[api])
    said = {"teacher": "t@http://localhost", "model": "m", "parameters": {"max_tokens": 9}, "tools": tools, **fields}
    return Request(api=api, messages=turns, **said)


_floats = st.floats(allow_nan=False, allow_infinity=False)
_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | _floats | st.text(),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(), inside, max_size=3),
    max_leaves=6,
)
_objects = st.dictionaries(st.text(), _json, max_size=3)


def _called_in_chat(name: str, told: Any) -> Any:
    function = {"name": "f", "arguments": orjson.dumps(told).decode()}
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": name, "type": "function", "function": function}],
    }


def _called_in_messages(name: str, told: Any) -> Any:
    return {"role": "assistant", "content": [{"type": "tool_use", "id": name, "name": "f", "input": told}]}


def _called_in_responses(name: str, told: Any) -> Any:
    return {"type": "function_call", "call_id": name, "name": "f", "arguments": orjson.dumps(told).decode()}


def _result_in_messages(name: str, text: str) -> Any:
    return {"role": "user", "content": [{"type": "tool_result", "tool_use_id": name, "content": text}]}


def _result_in_chat(name: str, text: str) -> Any:
    return {"role": "tool", "tool_call_id": name, "content": [{"type": "text", "text": text}]}


def _result_in_responses(name: str, text: str) -> Any:
    return {"type": "function_call_output", "call_id": name, "output": text}


_CALLED = {"chat": _called_in_chat, "messages": _called_in_messages, "responses": _called_in_responses}
_RESULT = {"chat": _result_in_chat, "messages": _result_in_messages, "responses": _result_in_responses}


def conversations() -> st.SearchStrategy[Request]:
    """Any conversation that a wire format takes, plain turns among the others."""
    return st.sampled_from(sorted(_CALLED)).flatmap(_of_api)


def _of_api(api: Any) -> st.SearchStrategy[Request]:
    plain = st.builds(Message, role=st.sampled_from(["user", "assistant"]), content=st.text())
    strange = st.builds(_CALLED[api], st.text(), _objects) | st.builds(_RESULT[api], st.text(), st.text())
    turns = st.lists(plain | st.builds(given_turn, strange, st.text()), min_size=1, max_size=5)
    return turns.map(lambda some: asked(api, *some))
