"""Anthropic's Messages as clients write them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from corpusgen.records import Json, Message
from corpusgen.serve.wires.asked import (
    MOST_TOKENS,
    Known,
    among,
    bad,
    each,
    found,
    joined,
    known_only,
    listing,
    mapping,
    mark,
    no_text,
    number,
    said,
    tool_list,
    tool_name,
    turn,
    whole,
    word,
)

_NOT_HERE: Final = "runs at the provider, with fees that tokens do not bound; leave it out"


def _choice(value: Json, field: str) -> Json:
    given = mapping(value, field)
    if among("auto", "any", "tool", "none")(given.get("type"), f"{field}.type") == "tool":
        tool_name(given, field)
    return given


def _thinking(value: Json, field: str) -> Json:
    given = mapping(value, field)
    among("adaptive", "enabled", "disabled", "between_tools")(given.get("type"), f"{field}.type")
    if given.get("budget_tokens") is not None:
        whole(1, MOST_TOKENS)(given["budget_tokens"], f"{field}.budget_tokens")
    return given


MESSAGES: Final = Known(
    read=frozenset({"model", "messages", "system", "stream", "tools", "output_config"}),
    passed={
        "cache_control": mapping,
        "inference_geo": word,
        "max_tokens": whole(1, MOST_TOKENS),
        "service_tier": word,
        "speed": word,
        "stop_sequences": each(mark, 16),
        "temperature": number(0, 1),
        "thinking": _thinking,
        "tool_choice": _choice,
        "top_k": whole(0, 2**31),
        "top_p": number(0, 1),
    },
    ignored=frozenset({"metadata", "diagnostics", "user_profile_id", "workspace_id", "context_management"}),
    refused={
        "container": _NOT_HERE,
        "mcp_servers": _NOT_HERE,
        "betas": "is a header here, anthropic-beta; leave it out of the body",
    },
    names={"stop_sequences": "stop"},
)

_CLEARING: Final = ("clear_thinking_", "clear_tool_uses_")
_ROLES: Final = ("user", "assistant", "system")
_OURS: Final = ("bash_", "text_editor_", "memory_")
"""Tools that Anthropic describes and the client runs."""


def read_messages(body: Mapping[str, Json], given: dict[str, Json]) -> tuple[tuple[Message, ...], Json, Json]:
    """The turns, the tools and the schema; what else is asked is put into ``given``. Raises BadCall."""
    schema = _read_output(body.get("output_config"), given)
    _check_edits(body.get("context_management"))
    turns = listing(body.get("messages"), "messages")
    messages = tuple(_turn(item, f"messages[{at}]") for at, item in enumerate(turns))
    _check_front(messages)
    return (*_system(body.get("system")), *messages), tool_list(body.get("tools"), "tools", _check_tool), schema


def _read_output(value: Json, given: dict[str, Json]) -> Json:
    """The schema; the effort becomes a parameter under its other name."""
    config = {} if value is None else mapping(value, "output_config")
    known_only(config, frozenset({"effort", "format"}), "output_config")
    if config.get("effort") is not None:
        given["reasoning_effort"] = word(config["effort"], "output_config.effort")
    form = config.get("format")
    if form is None:
        return None
    wanted = mapping(form, "output_config.format")
    if wanted.get("type") != "json_schema":
        raise bad("output_config.format.type", f"json_schema is needed, found {found(wanted.get('type'))}")
    return mapping(wanted.get("schema"), "output_config.format.schema")


def _check_edits(value: Json) -> None:
    """Raise BadCall for what would write turns anew; what only leaves old parts out is not done, and all is read."""
    if value is None:
        return
    config = mapping(value, "context_management")
    known_only(config, frozenset({"edits"}), "context_management")
    for at, item in enumerate(listing(config.get("edits") or [], "context_management.edits", 100)):
        field = f"context_management.edits[{at}]"
        kind = mapping(item, field).get("type")
        if not isinstance(kind, str) or not kind.startswith(_CLEARING):
            raise bad(
                f"{field}.type",
                f"{found(kind)} would change the turns behind the record's back; send the turns as they are to be read",
            )


def _check_tool(tool: dict[str, Any], field: str) -> None:
    kind = tool.get("type")
    tool_name(tool, field)
    if kind in (None, "custom"):
        mapping(tool.get("input_schema"), f"{field}.input_schema")
    elif not isinstance(kind, str) or not kind.startswith(_OURS):
        raise bad(f"{field}.type", f"a tool with an input_schema is needed; {found(kind)} {_NOT_HERE}")


# --- turns -----------------------------------------------------------------------------------------------------------


def _system(value: Json) -> tuple[Message, ...]:
    if value is None or value == [] or value == "":
        return ()
    text, plain = _content(value, "system", "system")
    return (turn("system", text, None if plain else {"role": "system", "content": value}),)


def _check_front(messages: tuple[Message, ...]) -> None:
    begun = False
    for at, message in enumerate(messages):
        begun = begun or message.role != "system"
        if begun and message.role == "system":
            raise bad(f"messages[{at}].role", "system text is taken before the first turn only; move it to the front")


def _turn(value: Json, field: str) -> Message:
    given = mapping(value, field)
    role = given.get("role")
    if role not in _ROLES:
        raise bad(f"{field}.role", f"user or assistant is needed, found {found(role)}")
    known_only(given, frozenset({"role", "content"}), field)
    text, plain = _content(given.get("content"), role, f"{field}.content")
    return turn(role, text, None if plain else {"role": role, "content": given["content"]})


def _content(content: Json, role: str, field: str) -> tuple[str, bool]:
    """The text of a turn, and whether it is all that its content says."""
    if isinstance(content, str):
        return content, True
    if not isinstance(content, list) or not content:
        raise bad(field, f"text or a list of blocks is needed, found {found(content)}")
    blocks = [mapping(block, f"{field}[{at}]") for at, block in enumerate(listing(content, field))]
    told = [_block(block, role, f"{field}[{at}]") for at, block in enumerate(blocks)]
    texts = [text for text, is_text in told if is_text]
    # A turn that brings nothing but results of tools reads as what they say.
    text = joined(texts) if texts else "\n".join(text for text, _ in told if text)
    return text, len(blocks) == 1 and _is_plain(blocks[0])


def _is_plain(block: Mapping[str, Json]) -> bool:
    return block.get("type") == "text" and not {name for name, value in block.items() if value} - {"type", "text"}


def _block(block: dict[str, Any], role: str, field: str) -> tuple[str, bool]:
    """What a block says, and whether that is text of the turn's own."""
    match block.get("type"), role:
        case "text", _:
            known_only(block, frozenset({"type", "text", "cache_control", "citations"}), field)
            return said(block, "text", field), True
        case "tool_result", "user":
            said(block, "tool_use_id", field)
            return _result(block.get("content"), f"{field}.content"), False
        case "tool_use", "assistant":
            said(block, "id", field)
            tool_name(block, field)
            mapping(block.get("input"), f"{field}.input")
            return "", False
        case "thinking", "assistant":
            said(block, "thinking", field)
            return "", False
        case "redacted_thinking", "assistant":
            said(block, "data", field)
            return "", False
    raise no_text(block, field)


def _result(content: Json, field: str) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    blocks = [mapping(block, f"{field}[{at}]") for at, block in enumerate(listing(content, field))]
    return joined([_block(block, "result", f"{field}[{at}]")[0] for at, block in enumerate(blocks)])
