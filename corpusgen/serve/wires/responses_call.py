"""OpenAI's Responses as clients write them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from corpusgen.records import Json, Message
from corpusgen.serve.wires.asked import (
    MOST_TOKENS,
    Known,
    bad,
    choice,
    each,
    flag,
    found,
    joined,
    known_only,
    listing,
    mapping,
    no_text,
    number,
    said,
    tool_list,
    tool_name,
    turn,
    whole,
    word,
)
from corpusgen.serve.wires.chat_call import LEFT_OUT

_STATE: Final = "nothing is stored at the provider; send the whole input, with the items of earlier answers"
_LOGPROBS: Final = "message.output_text.logprobs"

RESPONSES: Final = Known(
    read=frozenset({"model", "input", "instructions", "stream", "stream_options", "tools", "text", "reasoning"})
    | {"include"},
    passed={
        "access_programs": mapping,
        "max_output_tokens": whole(1, MOST_TOKENS),
        "max_tool_calls": whole(1, 1000),
        "parallel_tool_calls": flag,
        "service_tier": word,
        "temperature": number(0, 100),
        "tool_choice": choice(tool_name),
        "top_logprobs": whole(0, 1000),
        "top_p": number(0, 1),
        "truncation": word,
    },
    ignored=LEFT_OUT,
    refused={
        "background": "answers are waited for; leave it out",
        "background_options": "answers are waited for; leave it out",
        "context_management": "would change the turns behind the record's back; send what is to be read",
        "conversation": _STATE,
        "image": "corpusgen asks for text; leave image out",
        "moderation": "answers are moderated where the service is configured to; leave it out",
        "previous_response_id": _STATE,
        "prompt": "is stored at the provider, where nobody here can read it; send its text as input",
    },
    names={"max_output_tokens": "max_tokens"},
)

_ROLES: Final = ("user", "assistant", "system", "developer")
_BOOKKEEPING: Final = frozenset({"id", "status", "type"})
"""Of a message: what changes no answer where nothing is stored."""


def read_responses(body: Mapping[str, Json], given: dict[str, Json]) -> tuple[tuple[Message, ...], Json, Json]:
    """The turns, the tools and the schema; what else is asked is put into ``given``. Raises BadCall."""
    schema = _read_text(body.get("text"), given)
    _read_reasoning(body.get("reasoning"), given)
    _read_include(body.get("include"), given)
    messages = (*_instructions(body.get("instructions")), *_input(body.get("input")))
    return messages, tool_list(body.get("tools"), "tools", _check_tool), schema


def _read_text(value: Json, given: dict[str, Json]) -> Json:
    """The schema, where its request is one that a spec would send; any other form stays a parameter."""
    config = {} if value is None else mapping(value, "text")
    known_only(config, frozenset({"format", "verbosity"}), "text")
    kept = {name: item for name, item in config.items() if item is not None}
    form = mapping(kept.get("format", {}), "text.format")
    kind = form.get("type", "text")
    if kind not in ("text", "json_object", "json_schema"):
        raise bad("text.format.type", f"text, json_object or json_schema is needed, found {found(kind)}")
    schema = mapping(form.get("schema"), "text.format.schema") if kind == "json_schema" else None
    plain = {"type": "json_schema", "name": "answer", "strict": True, "schema": schema}
    if kind == "text" or (schema and form == plain):
        kept.pop("format", None)
    else:
        schema = None
    if "verbosity" in kept:
        word(kept["verbosity"], "text.verbosity")
    if kept:
        given["text"] = kept
    return schema


def _read_reasoning(value: Json, given: dict[str, Json]) -> None:
    if value is None:
        return
    kept = {name: item for name, item in mapping(value, "reasoning").items() if item is not None}
    known_only(kept, frozenset({"context", "effort", "generate_summary", "mode", "summary"}), "reasoning")
    for name, item in kept.items():
        word(item, f"reasoning.{name}")
    if "effort" in kept:
        given["reasoning_effort"] = kept.pop("effort")
    if kept:
        given["reasoning"] = kept


def _read_include(value: Json, given: dict[str, Json]) -> None:
    wanted = [] if value is None else each(word, 16)(value, "include")
    if _LOGPROBS in wanted:
        given.setdefault("top_logprobs", 0)
    others = sorted(set(wanted) - {_LOGPROBS})
    if others:
        given["include"] = others


def _check_tool(tool: dict[str, Any], field: str) -> None:
    kind = tool.get("type")
    if kind not in ("function", "custom"):
        raise bad(
            f"{field}.type", f"function or custom is needed, found {found(kind)}; what a provider runs itself has fees"
        )
    tool_name(tool, field)
    if tool.get("parameters") is not None:
        mapping(tool["parameters"], f"{field}.parameters")


# --- turns -----------------------------------------------------------------------------------------------------------


def _instructions(value: Json) -> tuple[Message, ...]:
    """A turn before all others, which they are to the model as well: so a record's messages hold all that was said."""
    if value is None or value == "":
        return ()
    if not isinstance(value, str):
        raise bad("instructions", f"text is needed, found {found(value)}; put other items into input")
    return (Message(role="system", content=value),)


def _input(value: Json) -> tuple[Message, ...]:
    if isinstance(value, str):
        return (Message(role="user", content=value),)
    return tuple(_item(item, f"input[{at}]") for at, item in enumerate(listing(value, "input")))


def _item(value: Json, field: str) -> Message:
    item = mapping(value, field)
    match item.get("type", "message"):
        case "message":
            return _message(item, field)
        case "function_call":
            said(item, "call_id", field)
            tool_name(item, field)
            said(item, "arguments", field)
            return turn("assistant", "", _told(item))
        case "custom_tool_call":
            said(item, "call_id", field)
            said(item, "input", field)
            return turn("assistant", "", _told(item))
        case "function_call_output" | "custom_tool_call_output":
            said(item, "call_id", field)
            return turn("tool", _output(item.get("output"), f"{field}.output"), _told(item))
        case "reasoning":
            for at, part in enumerate(listing(item.get("summary"), f"{field}.summary")):
                said(mapping(part, f"{field}.summary[{at}]"), "text", f"{field}.summary[{at}]")
            return turn("assistant", "", _told(item))
        case "item_reference":
            raise bad(f"{field}.id", _STATE)
    raise no_text(item, field)


def _told(item: Mapping[str, Json]) -> dict[str, Json]:
    return {name: value for name, value in item.items() if value is not None}


def _message(item: Mapping[str, Json], field: str) -> Message:
    role = item.get("role")
    if role not in _ROLES:
        raise bad(f"{field}.role", f"{', '.join(_ROLES)} is needed, found {found(role)}")
    known_only(item, _BOOKKEEPING | {"role", "content", "phase"}, field)
    text, plain = _content(item.get("content"), role, f"{field}.content")
    if plain and item.get("phase") is None:
        return turn(role, text, None)
    return turn(role, text, _told(item))


def _content(content: Json, role: str, field: str) -> tuple[str, bool]:
    """The text of a turn, and whether it is all that its content says."""
    if isinstance(content, str):
        return content, True
    if not isinstance(content, list) or not content:
        raise bad(field, f"text or a list of text parts is needed, found {found(content)}")
    parts = [mapping(part, f"{field}[{at}]") for at, part in enumerate(listing(content, field))]
    texts = [_part(part, role, f"{field}[{at}]") for at, part in enumerate(parts)]
    return joined(texts), len(parts) == 1 and _is_plain(parts[0])


def _is_plain(part: Mapping[str, Json]) -> bool:
    """Annotations and log-probabilities of an earlier answer are handed back by SDKs, and read by nobody."""
    kept = {name for name, value in part.items() if value not in (None, [])} - {"logprobs"}
    return part.get("type") in ("input_text", "output_text") and not kept - {"type", "text"}


def _part(part: dict[str, Any], role: str, field: str) -> str:
    match part.get("type"):
        case "input_text" | "output_text":
            return said(part, "text", field)
        case "refusal" if role == "assistant":
            return said(part, "refusal", field)
    raise no_text(part, field)


def _output(value: Json, field: str) -> str:
    if isinstance(value, str):
        return value
    parts = [mapping(part, f"{field}[{at}]") for at, part in enumerate(listing(value, field))]
    return joined([_part(part, "tool", f"{field}[{at}]") for at, part in enumerate(parts)])
