"""Whole answers of every wire format that a stream has to carry unharmed."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from random import Random
from typing import Any, Final

WORDS: Final = "Ein Schwan, 天鹅 🦢, and —\n\n\tthe    lake; "


def position(token: str, *others: str) -> dict[str, Any]:
    ranked = [{"token": one, "logprob": -0.5, "bytes": list(one.encode())} for one in (token, *others)]
    return {**ranked[0], "top_logprobs": ranked}


def chat(*messages: dict[str, Any], **fields: Any) -> dict[str, Any]:
    choices = [
        {"index": at, "message": {"role": "assistant", **message}, "logprobs": None, "finish_reason": "stop"}
        for at, message in enumerate(messages)
    ]
    usage = {"prompt_tokens": 3, "completion_tokens": 9, "total_tokens": 12}
    whole = {"id": "chatcmpl-1", "object": "chat.completion", "created": 5, "model": "m-1", "choices": choices}
    return {**whole, "usage": usage, "system_fingerprint": "fp_1", "service_tier": "default", **fields}


def call(at: int, name: str, arguments: str) -> dict[str, Any]:
    return {"id": f"call_{at}", "type": "function", "function": {"name": name, "arguments": arguments}}


def with_logprobs(body: dict[str, Any], logprobs: dict[str, Any]) -> dict[str, Any]:
    return {**body, "choices": [{**choice, "logprobs": logprobs} for choice in body["choices"]]}


CALLS: Final = [call(0, "look", '{"at": "the lake"}'), call(1, "rest", "{}"), call(2, "look", '{"at": "Ä \\"x\\""}')]
ANSWER: Final = {"content": WORDS * 3, "refusal": None}
TOKENS: Final = ["The", " swan", " sw", "ims", ".", "\n"]

CHATS: Final[dict[str, dict[str, Any]]] = {
    "text": chat(ANSWER),
    "no text": chat({"content": "", "refusal": None}),
    "several": chat(ANSWER, {"content": "another", "refusal": None}, {"content": "a third one", "refusal": None}),
    "calls": chat({"content": None, "refusal": None, "tool_calls": CALLS}),
    "text and calls": chat({**ANSWER, "tool_calls": CALLS[:1]}),
    "refusal": chat({"content": None, "refusal": "I would rather not say, all things considered."}),
    "logprobs": with_logprobs(
        chat({"content": "".join(TOKENS), "refusal": None}),
        {"content": [position(token, "x") for token in TOKENS], "refusal": None},
    ),
    "bytes of half a character": with_logprobs(
        chat({"content": "a 🦢", "refusal": None}),
        {"content": [position("a"), position(" \\xf0\\x9f"), position("\\xa6\\xa2")], "refusal": None},
    ),
    "uncounted": {name: value for name, value in chat(ANSWER).items() if name != "usage"},
}
"""Answers of chat completions as OpenAI writes them."""

THOUGHTS: Final = [
    {"type": "reasoning.text", "text": "first this, then that", "signature": "c2ln", "index": 0, "format": "x"},
    {"type": "reasoning.encrypted", "data": "aGlkZGVu", "id": "r1", "index": 1},
]
PARTS: Final = [
    {"type": "thinking", "thinking": [{"type": "text", "text": "hm, a swan"}]},
    {"type": "text", "text": WORDS},
]
OTHER_CHATS: Final[dict[str, dict[str, Any]]] = {
    "reasoning": chat({**ANSWER, "reasoning_content": WORDS * 2}),
    "other reasoning": chat({**ANSWER, "reasoning": WORDS, "reasoning_details": THOUGHTS}),
    "thinking blocks": chat(
        {**ANSWER, "thinking_blocks": [{"type": "thinking", "thinking": WORDS, "signature": "c2ln"}]}
    ),
    "parts": chat({"content": PARTS}),
    "extras": chat(ANSWER, provider="Somebody", citations=["https://example.org"], timings={"n": 3}),
    "custom calls": chat(
        {"content": None, "tool_calls": [{"id": "c1", "type": "custom", "custom": {"name": "run", "input": "1 + 1"}}]}
    ),
}
"""Answers of chat completions as others write them."""


def text(*texts: str, **fields: Any) -> dict[str, Any]:
    choices = [{"index": at, "text": one, "logprobs": None, "finish_reason": "length"} for at, one in enumerate(texts)]
    usage = {"prompt_tokens": 3, "completion_tokens": 9, "total_tokens": 12}
    whole = {"id": "cmpl-1", "object": "text_completion", "created": 5, "model": "m-1", "choices": choices}
    return {**whole, "usage": usage, **fields}


LEGACY: Final = {
    "tokens": TOKENS,
    "token_logprobs": [None, -0.5, -0.25, -1.0, -2.0, -3.0],
    "top_logprobs": [{token: -0.5} for token in TOKENS],
    "text_offset": [3, 6, 11, 14, 17, 18],
}
TEXTS: Final[dict[str, dict[str, Any]]] = {
    "text": text(WORDS * 3),
    "several": text("one", "two", ""),
    "logprobs": with_logprobs(text("".join(TOKENS)), LEGACY),
    "logprobs as in chat": with_logprobs(text("".join(TOKENS)), {"content": [position(token) for token in TOKENS]}),
    "other tokens": with_logprobs(text("something else"), LEGACY),
}


def message(*blocks: dict[str, Any], **fields: Any) -> dict[str, Any]:
    usage = {
        "input_tokens": 3,
        "cache_creation_input_tokens": 1,
        "cache_read_input_tokens": 2,
        "cache_creation": {"ephemeral_5m_input_tokens": 1, "ephemeral_1h_input_tokens": 0},
        "output_tokens": 9,
        "output_tokens_details": {"thinking_tokens": 4},
        "service_tier": "standard",
    }
    whole = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m-1", "content": list(blocks)}
    ending = {"stop_reason": "end_turn", "stop_sequence": None, "stop_details": None}
    return {**whole, **ending, "usage": usage, **fields}


SAID: Final = {"type": "text", "text": WORDS * 2, "citations": None}
CITED: Final = {
    "type": "char_location",
    "cited_text": "a swan",
    "document_index": 0,
    "document_title": None,
    "start_char_index": 0,
    "end_char_index": 6,
    "file_id": None,
}
THINKING: Final = {"type": "thinking", "thinking": WORDS, "signature": "c2ln"}
USED: Final = {
    "type": "tool_use",
    "id": "toolu_1",
    "name": "look",
    "input": {"at": "the lake", "deep": [1, {"a": None}]},
}
MESSAGES: Final[dict[str, dict[str, Any]]] = {
    "text": message(SAID),
    "no text": message({**SAID, "text": ""}),
    "nothing": message(stop_reason="max_tokens"),
    "thinking": message(THINKING, {"type": "redacted_thinking", "data": "aGlkZGVu"}, SAID),
    "silent thinking": message({**THINKING, "thinking": ""}, SAID),
    "calls": message(SAID, USED, {**USED, "id": "toolu_2", "input": {}}, stop_reason="tool_use"),
    "citations": message({**SAID, "citations": [CITED, {**CITED, "document_index": 1}]}, SAID),
    "stop sequence": message(SAID, stop_reason="stop_sequence", stop_sequence="\n\n"),
    "refusal": message(
        SAID, stop_reason="refusal", stop_details={"type": "refusal", "category": "bio", "explanation": "no"}
    ),
}


def response(*items: dict[str, Any], **fields: Any) -> dict[str, Any]:
    usage = {
        "input_tokens": 3,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": 9,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": 12,
    }
    whole = {"id": "resp_1", "object": "response", "created_at": 5, "status": "completed", "model": "m-1"}
    whole |= {"error": None, "incomplete_details": None, "parallel_tool_calls": True, "tool_choice": "auto"}
    return {**whole, "tools": [], "output": list(items), "usage": usage, **fields}


def spoken(*parts: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": list(parts),
        **fields,
    }


def output_text(words: str = WORDS * 2, **fields: Any) -> dict[str, Any]:
    return {"type": "output_text", "text": words, "annotations": [], "logprobs": [], **fields}


NOTE: Final = {"type": "url_citation", "url": "https://example.org", "title": "x", "start_index": 0, "end_index": 3}
REASONED: Final = {
    "id": "rs_1",
    "type": "reasoning",
    "summary": [{"type": "summary_text", "text": WORDS}, {"type": "summary_text", "text": "and so on"}],
    "encrypted_content": "aGlkZGVu",
}
CALLED: Final = {
    "id": "fc_1",
    "type": "function_call",
    "status": "completed",
    "call_id": "call_1",
    "name": "look",
    "arguments": '{"at": "the lake"}',
}
RESPONSES: Final[dict[str, dict[str, Any]]] = {
    "text": response(spoken(output_text())),
    "logprobs": response(
        spoken(output_text("".join(TOKENS), logprobs=[position(token, "x") for token in TOKENS])),
    ),
    "notes": response(spoken(output_text(annotations=[NOTE]))),
    "reasoning": response(REASONED, spoken(output_text())),
    "raw reasoning": response({**REASONED, "content": [{"type": "reasoning_text", "text": WORDS}]}),
    "calls": response(CALLED, {**CALLED, "id": "fc_2", "call_id": "call_2", "arguments": "{}"}),
    "custom call": response(
        {"id": "c_1", "type": "custom_tool_call", "call_id": "call_1", "name": "run", "input": "1 + 1"}
    ),
    "refusal": response(spoken({"type": "refusal", "refusal": "I would rather not say."})),
    "two messages": response(
        spoken(output_text("on my way"), id="msg_0", phase="commentary"), spoken(output_text(), output_text("more"))
    ),
    "nothing": response(),
}
CUT: Final = response(
    spoken(output_text(), status="incomplete"),
    status="incomplete",
    incomplete_details={"reason": "max_output_tokens"},
)

ANSWERS: Final[list[tuple[Any, str, dict[str, Any]]]] = [
    *(("chat", name, body) for name, body in (CHATS | OTHER_CHATS).items()),
    *(("completion", name, body) for name, body in TEXTS.items()),
    *(("messages", name, body) for name, body in MESSAGES.items()),
    *(("responses", name, body) for name, body in (RESPONSES | {"cut": CUT}).items()),
]


JUNK: Final[list[Any]] = [
    *(None, 0, -1, 1.5, True, "", "x", "[DONE]", 2**63),
    *([], [1], ["x"], [None], [[]], [{}]),
    *({}, {"a": 1}, {"type": "text"}, {"index": 0}),
]


def _paths(value: Any, here: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if here:
        yield here
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in entries:
        yield from _paths(inner, (*here, name))


def spoilt(value: Any, chance: Random) -> Any:
    """A copy in which something is left out, or is something else."""
    value = deepcopy(value)
    *before, last = chance.choice(list(_paths(value)))
    place = value
    for name in before:
        place = place[name]
    if isinstance(place, dict) and chance.random() < 0.2:
        del place[last]
    else:
        place[last] = deepcopy(chance.choice(JUNK))
    return value
