"""A whole answer told again as a stream: what is known already reads as it would have if it had just been said."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

import orjson

from corpusgen.records import Api, Json
from corpusgen.teachers.chunks import END, chunks_of, event_of, few_words


def events_of(wire: Api, body: bytes, *, usage: bool = True) -> Iterator[bytes]:
    """An answer of a wire format as the events its vendor's clients read, in pieces of a few words.

    ``usage`` is whether a stream of chunks is to end with it; the others always tell it.
    """
    reply = orjson.loads(body)
    try:
        return iter(list(_in_pieces(wire, reply, usage=usage)))
    except (AttributeError, KeyError, TypeError):  # something is of another kind than it should be, and no text
        return _at_once(wire, reply)


_Said = dict[str, Json]


def _in_pieces(wire: Api, reply: Mapping[str, Any], *, usage: bool) -> Iterator[bytes]:
    if wire == "messages":
        yield from (event_of(said, said["type"]) for said in _message(reply))
    elif wire == "responses":
        yield from _numbered(_response(reply))
    else:
        yield from chunks_of(wire, reply, usage=usage)


def _numbered(named: Iterable[tuple[str, _Said]]) -> Iterator[bytes]:
    for number, (name, said) in enumerate(named):
        yield event_of({"type": name, "sequence_number": number, **said}, name)


def _at_once(wire: Api, reply: Mapping[str, Any]) -> Iterator[bytes]:
    """An answer with something odd in it: as it is, in as few events as there may be."""
    if wire == "messages":
        usage = {"usage": reply.get("usage") or {"output_tokens": 0}}
        yield event_of({"type": "message_start", "message": {**reply, **usage}}, "message_start")
        delta = {name: reply[name] for name in _ENDING if name in reply}
        yield event_of({"type": "message_delta", "delta": delta, **usage}, "message_delta")
        yield event_of({"type": "message_stop"}, "message_stop")
    elif wire == "responses":
        yield from _numbered([("response.created", {"response": reply}), (_end_of(reply), {"response": reply})])
    else:
        yield event_of(_one_chunk(wire, reply))
        yield END


def _one_chunk(wire: Api, reply: Mapping[str, Any]) -> Mapping[str, Json]:
    if wire == "completion":
        return reply
    choices = [{**choice, "delta": choice.get("message")} for choice in reply["choices"] if isinstance(choice, dict)]
    return {**reply, "object": "chat.completion.chunk", "choices": choices}


# --- Anthropic's Messages --------------------------------------------------------------------------------------------

_ENDING: Final = ("stop_reason", "stop_sequence", "stop_details", "container")
_TOLD_AT_FIRST: Final = frozenset({"cache_creation", "service_tier"})
_WITH_INPUT: Final = frozenset({"tool_use", "server_tool_use"})


def _message(reply: Mapping[str, Any]) -> Iterator[_Said]:
    counted = reply.get("usage")
    usage = counted if isinstance(counted, dict) else {"input_tokens": 0, "output_tokens": 0}
    ending = {name: reply[name] for name in _ENDING if name in reply}
    begun = {**reply, "content": [], **dict.fromkeys(ending), "usage": {**usage, "output_tokens": 0}}
    yield {"type": "message_start", "message": begun}
    for index, block in enumerate(reply.get("content") or ()):
        yield from ({**said, "index": index} for said in _block(block))
    later = {name: value for name, value in usage.items() if name not in _TOLD_AT_FIRST}
    yield {"type": "message_delta", "delta": ending, "usage": later}
    yield {"type": "message_stop"}


def _block(block: Mapping[str, Any]) -> Iterator[_Said]:
    begun, deltas = _BLOCKS.get(block["type"], _whole_block)(block)
    yield {"type": "content_block_start", "content_block": begun}
    for delta in deltas:
        yield {"type": "content_block_delta", "delta": delta}
    yield {"type": "content_block_stop"}


_Block = tuple[_Said, list[_Said]]


def _whole_block(block: Mapping[str, Any]) -> _Block:
    return dict(block), []


def _text_block(block: Mapping[str, Any]) -> _Block:
    cited = block.get("citations") or ()
    begun = {**block, "text": "", "citations": []} if cited else {**block, "text": ""}
    citations: list[_Said] = [{"type": "citations_delta", "citation": one} for one in cited]
    return begun, [*citations, *({"type": "text_delta", "text": piece} for piece in few_words(block.get("text") or ""))]


def _thinking_block(block: Mapping[str, Any]) -> _Block:
    thoughts = few_words(block.get("thinking") or "")
    deltas: list[_Said] = [{"type": "thinking_delta", "thinking": piece} for piece in thoughts]
    if block.get("signature"):
        deltas.append({"type": "signature_delta", "signature": block["signature"]})
    return {**block, "thinking": "", "signature": ""}, deltas


def _tool_block(block: Mapping[str, Any]) -> _Block:
    spelt = orjson.dumps(block.get("input")).decode() if block.get("input") else ""
    return {**block, "input": {}}, [{"type": "input_json_delta", "partial_json": piece} for piece in few_words(spelt)]


_BLOCKS: Final[Mapping[str, Callable[[Mapping[str, Any]], _Block]]] = {
    "text": _text_block,
    "thinking": _thinking_block,
    **dict.fromkeys(_WITH_INPUT, _tool_block),
}
"""Those that come in pieces."""


# --- OpenAI's Responses ----------------------------------------------------------------------------------------------

_Named = tuple[str, _Said]
_NOT_YET: Final = ("usage", "completed_at", "error", "incomplete_details")


def _response(reply: Mapping[str, Any]) -> Iterator[_Named]:
    later = dict.fromkeys(name for name in _NOT_YET if name in reply)
    begun = {**reply, "status": "in_progress", "output": [], **later}
    yield "response.created", {"response": begun}
    yield "response.in_progress", {"response": begun}
    for index, item in enumerate(reply.get("output") or ()):
        tell = _ITEMS.get(item.get("type"), _whole_item)
        yield from tell(item, {"item_id": item.get("id") or "", "output_index": index})
        yield "response.output_item.done", {"output_index": index, "item": item}
    yield _end_of(reply), {"response": reply}


def _end_of(reply: Mapping[str, Any]) -> str:
    return "response.incomplete" if reply.get("status") == "incomplete" else "response.completed"


def _added(where: _Said, item: Mapping[str, Any], **fields: Json) -> _Named:
    status = {"status": "in_progress"} if "status" in item else {}
    return "response.output_item.added", {"output_index": where["output_index"], "item": {**item, **fields, **status}}


def _whole_item(item: Mapping[str, Any], where: _Said) -> Iterator[_Named]:
    yield "response.output_item.added", {"output_index": where["output_index"], "item": item}


def _message_item(item: Mapping[str, Any], where: _Said) -> Iterator[_Named]:
    yield _added(where, item, content=[])
    yield from _parts(item, where)


def _parts(item: Mapping[str, Any], where: _Said) -> Iterator[_Named]:
    for at, part in enumerate(item.get("content") or ()):
        here = {**where, "content_index": at}
        tell, empty = _PARTS.get(part.get("type"), (_nothing_between, {}))
        yield "response.content_part.added", {**here, "part": {**part, **empty}}
        yield from tell(part, here)
        yield "response.content_part.done", {**here, "part": part}


def _nothing_between(part: Mapping[str, Any], here: _Said) -> Iterator[_Named]:
    yield from ()


def _text_part(part: Mapping[str, Any], here: _Said) -> Iterator[_Named]:
    logprobs = part.get("logprobs") or []
    for piece, told in _spelt(part["text"], logprobs):
        yield "response.output_text.delta", {**here, "delta": piece, "logprobs": told}
    for at, note in enumerate(part.get("annotations") or ()):
        yield "response.output_text.annotation.added", {**here, "annotation_index": at, "annotation": note}
    yield "response.output_text.done", {**here, "text": part["text"], "logprobs": logprobs}


def _spelt(text: str, logprobs: list[Any]) -> list[tuple[str, list[Json]]]:
    """The text in pieces: of one token each where that is what it is made of."""
    tokens = [str(position.get("token")) for position in logprobs]
    if tokens and "".join(tokens) == text:
        return [(token, [position]) for token, position in zip(tokens, logprobs, strict=True)]
    return [(piece, []) for piece in few_words(text)]


def _growing(kind: str, field: str) -> Callable[[Mapping[str, Any], _Said], Iterator[_Named]]:
    """A part that is told by deltas of one of its texts."""

    def tell(part: Mapping[str, Any], here: _Said) -> Iterator[_Named]:
        for piece in few_words(part[field]):
            yield f"{kind}.delta", {**here, "delta": piece}
        yield f"{kind}.done", {**here, field: part[field]}

    return tell


_PARTS: Final[Mapping[str, tuple[Callable[[Mapping[str, Any], _Said], Iterator[_Named]], _Said]]] = {
    "output_text": (_text_part, {"text": "", "logprobs": [], "annotations": []}),
    "refusal": (_growing("response.refusal", "refusal"), {"refusal": ""}),
    "reasoning_text": (_growing("response.reasoning_text", "text"), {"text": ""}),
}
_told_arguments: Final = _growing("response.function_call_arguments", "arguments")
_told_input: Final = _growing("response.custom_tool_call_input", "input")
_told_summary: Final = _growing("response.reasoning_summary_text", "text")


def _function_call(item: Mapping[str, Any], where: _Said) -> Iterator[_Named]:
    yield _added(where, item, arguments="")
    *deltas, (done, said) = _told_arguments(item, where)
    yield from deltas
    yield done, {**said, "name": item.get("name")}


def _custom_call(item: Mapping[str, Any], where: _Said) -> Iterator[_Named]:
    yield _added(where, item, input="")
    yield from _told_input(item, where)


def _reasoning(item: Mapping[str, Any], where: _Said) -> Iterator[_Named]:
    content: _Said = {"content": []} if item.get("content") else {}
    yield _added(where, item, summary=[], **content)
    for at, part in enumerate(item.get("summary") or ()):
        here = {**where, "summary_index": at}
        yield "response.reasoning_summary_part.added", {**here, "part": {**part, "text": ""}}
        yield from _told_summary(part, here)
        yield "response.reasoning_summary_part.done", {**here, "part": part}
    yield from _parts(item, where)


_ITEMS: Final[Mapping[str, Callable[[Mapping[str, Any], _Said], Iterator[_Named]]]] = {
    "message": _message_item,
    "function_call": _function_call,
    "custom_tool_call": _custom_call,
    "reasoning": _reasoning,
}
"""Those that come in pieces; others are there at once."""
