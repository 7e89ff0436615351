"""OpenAI's Responses: ``POST /v1/responses``."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from corpusgen.mock.dialect import CREATED, Count, Dialect, Reply, Shape, event
from corpusgen.mock.openai_chat import pieces, refuse_while_thinking
from corpusgen.mock.openai_errors import openai_error
from corpusgen.mock.prompt_cache import automatic_prefixes
from corpusgen.mock.question import (
    ANY_OBJECT,
    DEFAULT_MAX_TOKENS,
    Asked,
    Headers,
    NotARequest,
    Question,
    Tool,
    chosen_tool,
    key_of,
    listed,
    mapping,
    parse,
    text_of_parts,
    thinking_tokens,
    tokens_in,
    tokens_of,
    whole,
)
from corpusgen.mock.saying import Answer, Said, spelt_logprobs
from corpusgen.records import Json, Usage

_TEXT_PARTS: Final = frozenset({"input_text", "output_text", "text"})
_MOST_RUNNERS_UP: Final = 20
_LOGPROBS: Final = "message.output_text.logprobs"
_ENCRYPTED: Final = "reasoning.encrypted_content"
_STATEFUL: Final = ("previous_response_id", "conversation", "prompt", "background")


# --- the question ----------------------------------------------------------------------------------------------------


def _read(body: bytes, headers: Headers) -> Question:
    asked = parse(body)
    _refuse_state(asked)
    texts, model = _texts(asked), str(asked.get("model", "mock"))
    thoughts = thinking_tokens(mapping(asked.get("reasoning"), "reasoning").get("effort"), "reasoning.effort")
    if thoughts:
        refuse_while_thinking(asked)
    wanted = mapping(asked.get("text"), "text").get("format")
    input_tokens = tokens_in(texts, model) + tokens_of(asked.get("tools")) + tokens_of(wanted)
    return Question(
        key=key_of(asked),
        api="responses",
        model=model,
        text=texts[-1],
        input_tokens=input_tokens,
        max_tokens=whole(asked, "max_output_tokens", DEFAULT_MAX_TOKENS),
        top_logprobs=_top_logprobs(asked),
        schema=_schema(mapping(wanted, "text.format")),
        tool=_tool(asked),
        thoughts=thoughts,
        stream=asked.get("stream") is True,
        half_price=asked.get("service_tier") == "flex",
        prefixes=automatic_prefixes(texts, input_tokens),
        asked=asked,
    )


def _refuse_state(asked: Asked) -> None:
    for name in _STATEFUL:
        if asked.get(name):
            raise NotARequest(f"{name}: this server keeps no conversations; send the whole input with store: false")


def _texts(asked: Asked) -> list[str]:
    given = asked.get("input")
    items = [given] if isinstance(given, str) and given else listed(given, "input")
    if not items:
        raise NotARequest("input: a text or a list of at least one item is needed")
    instructions = asked.get("instructions")
    first = [instructions] if isinstance(instructions, str) else []
    return [*first, *map(_item, items)]


def _item(item: Json) -> str:
    if isinstance(item, str):
        return item
    match mapping(item, "input").get("type", "message"):
        case "message":
            content = item.get("content")
            parts = [] if isinstance(content, str) else listed(content, "input")
            return content if isinstance(content, str) else text_of_parts(parts, _TEXT_PARTS, "input")
        case "function_call":
            return str(item.get("arguments"))
        case "function_call_output":
            return str(item.get("output"))
        case "reasoning":
            parts = [mapping(part, "summary") for part in listed(item.get("summary"), "summary")]
            return "".join([str(part.get("text")) for part in parts])
    raise NotARequest(f"input: this server reads text only, found an item of type {item.get('type')!r}")


def _top_logprobs(asked: Asked) -> int | None:
    if _LOGPROBS not in listed(asked.get("include"), "include"):
        return None
    return whole(asked, "top_logprobs", 0, least=0, most=_MOST_RUNNERS_UP)


def _schema(wanted: Asked) -> Json:
    match wanted.get("type"):
        case None | "text":
            return None
        case "json_object":
            return ANY_OBJECT
        case "json_schema":
            return wanted.get("schema") or ANY_OBJECT
    raise NotARequest(f"text.format: 'text', 'json_object' or 'json_schema' is needed, found {wanted.get('type')!r}")


def _tool(asked: Asked) -> Tool | None:
    functions = [mapping(tool, "tools") for tool in listed(asked.get("tools"), "tools")]
    if any(function.get("type") != "function" for function in functions):
        raise NotARequest("tools: this server calls functions only")
    tools = {str(function.get("name")): function.get("parameters") or ANY_OBJECT for function in functions}
    choice, given = asked.get("tool_choice"), asked.get("input")
    if choice == "none":
        return None
    last = given[-1] if isinstance(given, list) else None
    return chosen_tool(
        tools,
        str(choice.get("name")) if isinstance(choice, dict) else None,
        forced=choice == "required",
        answered=isinstance(last, dict) and last.get("type") == "function_call_output",
    )


# --- the answer ------------------------------------------------------------------------------------------------------


def _reply(question: Question, answer: Answer, labels: Sequence[str]) -> Reply:
    said, asked = answer.choices[0], question.asked
    cut = said.finish_reason == "length"
    return {
        "id": f"resp_mock{question.key[:24]}",
        "object": "response",
        "created_at": CREATED,
        "completed_at": None if cut else CREATED,
        "status": "incomplete" if cut else "completed",
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "instructions": asked.get("instructions"),
        "max_output_tokens": asked.get("max_output_tokens"),
        "metadata": asked.get("metadata") or {},
        "model": question.model,
        "output": _output(question, said, labels),
        "parallel_tool_calls": asked.get("parallel_tool_calls", True),
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None, **mapping(asked.get("reasoning"), "reasoning")},
        "service_tier": answer.tier or ("flex" if question.half_price else "default"),
        "store": asked.get("store", True),
        "temperature": asked.get("temperature", 1.0),
        "text": {"format": {"type": "text"}, **mapping(asked.get("text"), "text")},
        "tool_choice": asked.get("tool_choice", "auto"),
        "tools": [{"strict": True, **tool} for tool in asked.get("tools") or ()],
        "top_logprobs": asked.get("top_logprobs", 0),
        "top_p": asked.get("top_p", 1.0),
        "truncation": asked.get("truncation", "disabled"),
        "usage": _usage(answer.usage),
        "user": asked.get("user"),
    }


def _output(question: Question, said: Said, labels: Sequence[str]) -> list[Json]:
    thought = [_reasoning(question, said)] if question.thoughts else []
    status = "incomplete" if said.finish_reason == "length" else "completed"
    if said.calls is not None:
        return [*thought, _call(question, said, status)]
    if question.thoughts and not said.tokens:
        return thought  # everything went into thinking
    return [*thought, _message(question, said, status, labels)]


def _reasoning(question: Question, said: Said) -> dict[str, Json]:
    wants = mapping(question.asked.get("reasoning"), "reasoning")
    told = wants.get("summary") or wants.get("generate_summary")
    item: dict[str, Json] = {
        "id": f"rs_mock{question.key[:24]}",
        "type": "reasoning",
        "summary": [{"type": "summary_text", "text": said.thinking.strip()}] if told else [],
    }
    if _ENCRYPTED in listed(question.asked.get("include"), "include"):
        item["encrypted_content"] = base64.b64encode(f"mock:{question.key}:{said.thinking}".encode()).decode()
    return item


def _call(question: Question, said: Said, status: str) -> dict[str, Json]:
    return {
        "id": f"fc_mock{question.key[:24]}",
        "type": "function_call",
        "status": status,
        "call_id": f"call_mock{question.key[:24]}",
        "name": said.calls,
        "arguments": said.text,
    }


def _message(question: Question, said: Said, status: str, labels: Sequence[str]) -> dict[str, Json]:
    logprobs = [] if question.top_logprobs is None else spelt_logprobs(said, question, labels)
    return {
        "id": f"msg_mock{question.key[:24]}",
        "type": "message",
        "role": "assistant",
        "status": status,
        "content": [{"type": "output_text", "text": said.text, "annotations": [], "logprobs": logprobs}],
    }


def _usage(usage: Usage) -> dict[str, Json]:
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_input_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens or 0},
        "total_tokens": usage.total_tokens,
    }


# --- the answer as events --------------------------------------------------------------------------------------------

_Event = tuple[str, dict[str, Json]]


def _events(question: Question, reply: Reply) -> Iterator[bytes]:
    for number, (name, data) in enumerate(_happenings(reply)):
        yield event({"type": name, "sequence_number": number, **data}, name)


def _happenings(reply: Reply) -> Iterator[_Event]:
    begun = {**reply, "status": "in_progress", "output": [], "usage": None, "completed_at": None}
    yield "response.created", {"response": {**begun, "incomplete_details": None}}
    yield "response.in_progress", {"response": {**begun, "incomplete_details": None}}
    for index, item in enumerate(reply["output"]):
        yield "response.output_item.added", {"output_index": index, "item": _begun(item)}
        yield from _TOLD[item["type"]](item, {"output_index": index, "item_id": item["id"]})
        yield "response.output_item.done", {"output_index": index, "item": item}
    ending = "response.incomplete" if reply["status"] == "incomplete" else "response.completed"
    yield ending, {"response": reply}


def _begun(item: dict[str, Any]) -> dict[str, Json]:
    match item["type"]:
        case "message":
            return {**item, "content": [], "status": "in_progress"}
        case "function_call":
            return {**item, "arguments": "", "status": "in_progress"}
    return {**item, "summary": []}


def _told_message(item: dict[str, Any], where: dict[str, Json]) -> Iterator[_Event]:
    for at, part in enumerate(item["content"]):
        here = {**where, "content_index": at}
        yield "response.content_part.added", {**here, "part": _empty(part)}
        yield from (_told_refusal if part["type"] == "refusal" else _told_text)(part, here)
        yield "response.content_part.done", {**here, "part": part}


def _empty(part: dict[str, Any]) -> dict[str, Json]:
    return {**part, "refusal": ""} if part["type"] == "refusal" else {**part, "text": "", "logprobs": []}


def _told_text(part: dict[str, Any], here: dict[str, Json]) -> Iterator[_Event]:
    logprobs = part.get("logprobs") or []
    spelt = [(position["token"], [position]) for position in logprobs]
    portions = spelt or [(piece, []) for piece in pieces(part["text"])]
    for piece, positions in portions:
        yield "response.output_text.delta", {**here, "delta": piece, "logprobs": positions}
    yield "response.output_text.done", {**here, "text": part["text"], "logprobs": logprobs}


def _told_refusal(part: dict[str, Any], here: dict[str, Json]) -> Iterator[_Event]:
    yield "response.refusal.delta", {**here, "delta": part["refusal"]}
    yield "response.refusal.done", {**here, "refusal": part["refusal"]}


def _told_call(item: dict[str, Any], where: dict[str, Json]) -> Iterator[_Event]:
    for piece in pieces(item["arguments"]):
        yield "response.function_call_arguments.delta", {**where, "delta": piece}
    yield "response.function_call_arguments.done", {**where, "arguments": item["arguments"], "name": item["name"]}


def _told_reasoning(item: dict[str, Any], where: dict[str, Json]) -> Iterator[_Event]:
    for at, part in enumerate(item["summary"]):
        here = {**where, "summary_index": at}
        yield "response.reasoning_summary_part.added", {**here, "part": {**part, "text": ""}}
        for piece in pieces(part["text"]):
            yield "response.reasoning_summary_text.delta", {**here, "delta": piece}
        yield "response.reasoning_summary_text.done", {**here, "text": part["text"]}
        yield "response.reasoning_summary_part.done", {**here, "part": part}


_TOLD: Final[dict[str, Callable[[dict[str, Any], dict[str, Json]], Iterator[_Event]]]] = {
    "message": _told_message,
    "function_call": _told_call,
    "reasoning": _told_reasoning,
}


# --- where it can be spoilt ------------------------------------------------------------------------------------------


def _said(reply: Reply, text: Json, reason: str, refusal: Json) -> Reply:
    part = {"type": "refusal", "refusal": refusal} if refusal else _text_part(text)
    ending = {"stop": None, "length": "max_output_tokens"}.get(reason, reason)
    changed = {
        "status": "completed" if ending is None else "incomplete",
        "incomplete_details": None if ending is None else {"reason": ending},
    }
    return {**reply, **changed, "output": [*reply["output"][:-1], {**_last(reply), "content": [part]}]}


def _text_part(text: Json) -> dict[str, Json]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _last(reply: Reply) -> dict[str, Json]:
    """The message of a reply, or one in place of what it says instead."""
    last: dict[str, Json] = reply["output"][-1]
    instead = {"id": "msg_mock", "type": "message", "role": "assistant", "status": "completed"}
    return last if last["type"] == "message" else instead


def _finished(reply: Reply, reason: Json) -> Reply:
    if reason == "length":
        return {**reply, "status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
    return {**reply, "status": reason}


def _silent(reply: Reply) -> Reply:
    return {**reply, "output": []}


def _logprob(reply: Reply, value: Json) -> Reply:
    entry = {"token": "x", "bytes": [120], "logprob": value}
    part = {**_text_part("x"), "logprobs": [{**entry, "top_logprobs": [entry]}]}
    return {**reply, "output": [*reply["output"][:-1], {**_last(reply), "content": [part]}]}


_COUNTS: Final = Count(
    input="input_tokens", output="output_tokens", total="total_tokens", cached_in="input_tokens_details"
)

RESPONSES: Final = Dialect(
    api="responses",
    path="/v1/responses",
    vendor="openai",
    request_id="x-request-id",
    read=_read,
    reply=_reply,
    events=_events,
    error=openai_error,
    shape=Shape(counts=_COUNTS, said=_said, finished=_finished, silent=_silent, logprob=_logprob),
)
