"""Chat completions as clients write them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from corpusgen.records import Json, Message
from corpusgen.serve.wires.asked import (
    MOST_TOKENS,
    TEXT_ONLY,
    Check,
    Known,
    bad,
    biases,
    choice,
    each,
    either,
    flag,
    found,
    joined,
    known_only,
    listing,
    mapping,
    no_text,
    number,
    said,
    stops,
    text,
    tool_list,
    tool_name,
    turn,
    whole,
    word,
)

SERVERS_OWN: Final[Mapping[str, Check]] = {
    "add_generation_prompt": flag,
    "add_special_tokens": flag,
    "allowed_token_ids": each(whole(0, 2**31), 20_000),
    "bad_words": each(text(1000), 1000),
    "cache_prompt": flag,
    "chat_template_kwargs": mapping,
    "continue_final_message": flag,
    "dry_allowed_length": whole(0, 2**31),
    "dry_base": number(0, 100),
    "dry_multiplier": number(0, 100),
    "dynatemp_exponent": number(0, 100),
    "dynatemp_range": number(0, 100),
    "enable_thinking": flag,
    "grammar": text(1_000_000),
    "guided_choice": each(text(10_000), 10_000),
    "guided_grammar": text(1_000_000),
    "guided_json": either(str, text(1_000_000), mapping),
    "guided_regex": text(100_000),
    "ignore_eos": flag,
    "include_reasoning": flag,
    "include_stop_str_in_output": flag,
    "length_penalty": number(-100, 100),
    "min_p": number(0, 1),
    "min_tokens": whole(0, MOST_TOKENS),
    "mirostat": whole(0, 2),
    "mirostat_eta": number(0, 100),
    "mirostat_tau": number(0, 100),
    "reasoning": mapping,
    "reasoning_format": word,
    "repeat_last_n": whole(-1, 2**31),
    "repeat_penalty": number(0, 100),
    "repetition_penalty": number(0, 100),
    "skip_special_tokens": flag,
    "spaces_between_special_tokens": flag,
    "stop_token_ids": each(whole(0, 2**31), 1000),
    "structured_outputs": mapping,
    "thinking": mapping,
    "thinking_budget": whole(0, MOST_TOKENS),
    "top_a": number(0, 1),
    "top_k": whole(-1, 2**31),
    "typical_p": number(0, 1),
    "xtc_probability": number(0, 1),
    "xtc_threshold": number(0, 1),
}
"""What vLLM, llama.cpp, SGLang, OpenRouter and others take besides; the teacher's table says who takes which."""

SAMPLING: Final[Mapping[str, Check]] = {
    "frequency_penalty": number(-2, 2),
    "logit_bias": biases,
    "max_tokens": whole(1, MOST_TOKENS),
    "n": whole(1, 128),
    "presence_penalty": number(-2, 2),
    "seed": whole(-(2**63), 2**63 - 1),
    "stop": stops,
    "temperature": number(0, 100),
    "top_p": number(0, 1),
}
LEFT_OUT: Final = frozenset(
    {
        *("metadata", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention", "safety_identifier"),
        *("store", "usage", "user"),
    }
)
"""Who asks for whom, what is kept at the provider or in its prompt cache: nothing of it changes an answer."""

_OLD_FUNCTIONS: Final = "is the form before tools; write tools and tool_choice, which every teacher reads"


def _function_named(given: Mapping[str, Json], field: str) -> str:
    return tool_name(mapping(given.get("function"), f"{field}.function"), f"{field}.function")


CHAT: Final = Known(
    read=frozenset(
        {
            *("model", "messages", "stream", "stream_options", "tools", "logprobs", "top_logprobs", "modalities"),
            *("response_format", "max_completion_tokens"),
        }
    ),
    passed={
        **SERVERS_OWN,
        **SAMPLING,
        "parallel_tool_calls": flag,
        "prediction": mapping,
        "reasoning_effort": word,
        "service_tier": word,
        "tool_choice": choice(_function_named),
        "verbosity": word,
    },
    ignored=LEFT_OUT,
    refused={
        "audio": f"{TEXT_ONLY}; leave audio out",
        "functions": _OLD_FUNCTIONS,
        "function_call": _OLD_FUNCTIONS,
        "moderation": "answers are moderated where the service is configured to; leave it out",
        "provider": "who answers, and under which terms, is chosen in the service's configuration; leave it out",
        "web_search_options": "a search brings fees and input that tokens do not bound; put what is to be known into"
        " the messages",
    },
)

_ALWAYS: Final = frozenset({"role", "content", "name"})
_FIELDS: Final[Mapping[str, frozenset[str]]] = {
    "system": _ALWAYS,
    "developer": _ALWAYS,
    "user": _ALWAYS,
    "assistant": _ALWAYS
    | {"tool_calls", "refusal", "reasoning_content", "reasoning", "reasoning_details", "thinking_blocks", "prefix"},
    "tool": _ALWAYS | {"tool_call_id"},
}
_OUTPUT_ONLY: Final = frozenset({"annotations", "provider_specific_fields"})
"""What SDKs hand back with an earlier answer, and no vendor reads."""
_ANSWER_NAME: Final = "answer"
"""What the wire calls the schema of a spec; only one of that name is the same request."""


def read_chat(body: Mapping[str, Json], given: dict[str, Json]) -> tuple[tuple[Message, ...], Json, Json]:
    """The turns, the tools and the schema; what else is asked is put into ``given``. Raises BadCall."""
    _read_limit(body, given)
    _read_logprobs(body, given)
    _check_modalities(body.get("modalities"))
    schema = _read_form(body.get("response_format"), given)
    turns = listing(body.get("messages"), "messages")
    messages = tuple(_turn(item, f"messages[{at}]") for at, item in enumerate(turns))
    return messages, tool_list(body.get("tools"), "tools", _check_tool), schema


def _read_limit(body: Mapping[str, Json], given: dict[str, Json]) -> None:
    newer = body.get("max_completion_tokens")
    if newer is None:
        return
    limit = whole(1, MOST_TOKENS)(newer, "max_completion_tokens")
    if given.setdefault("max_tokens", limit) != limit:
        raise bad("max_tokens", f"is {given['max_tokens']:,} and max_completion_tokens {limit:,}; write one of them")


def _read_logprobs(body: Mapping[str, Json], given: dict[str, Json]) -> None:
    wanted, most = body.get("logprobs"), body.get("top_logprobs")
    if wanted is not None:
        flag(wanted, "logprobs")
    if most is not None:
        most = whole(0, 1000)(most, "top_logprobs")
        if not wanted and most:
            raise bad("top_logprobs", "needs logprobs to be true")
    if wanted:
        given["top_logprobs"] = most or 0


def _check_modalities(value: Json) -> None:
    if value is not None and value != ["text"]:
        raise bad("modalities", f'{TEXT_ONLY}; write ["text"], found {found(value)}')


def _read_form(value: Json, given: dict[str, Json]) -> Json:
    """The schema, where its request is one that a spec would send; any other form stays a parameter."""
    if value is None:
        return None
    form = mapping(value, "response_format")
    match form.get("type"):
        case "text":
            return None
        case "json_object" | "grammar":
            given["response_format"] = form
            return None
        case "json_schema":
            return _read_schema(form, given)
    kind = found(form.get("type"))
    raise bad("response_format.type", f"text, json_object or json_schema is needed, found {kind}")


def _read_schema(form: dict[str, Any], given: dict[str, Json]) -> Json:
    wanted = mapping(form.get("json_schema"), "response_format.json_schema")
    schema = wanted.get("schema")
    if schema is not None:
        mapping(schema, "response_format.json_schema.schema")
    if schema and wanted == {"name": _ANSWER_NAME, "strict": True, "schema": schema}:
        return schema
    given["response_format"] = form
    return None


def _check_tool(tool: dict[str, Any], field: str) -> None:
    kind = tool.get("type")
    if kind not in ("function", "custom"):
        raise bad(
            f"{field}.type", f"function or custom is needed, found {found(kind)}; what a provider runs itself has fees"
        )
    inner = mapping(tool.get(kind), f"{field}.{kind}")
    tool_name(inner, f"{field}.{kind}")
    if inner.get("parameters") is not None:
        mapping(inner["parameters"], f"{field}.{kind}.parameters")


# --- turns -----------------------------------------------------------------------------------------------------------


def _turn(value: Json, field: str) -> Message:
    given = mapping(value, field)
    role = given.get("role")
    if role == "function" or given.get("function_call") is not None:
        raise bad(f"{field}.function_call", _OLD_FUNCTIONS)
    if not isinstance(role, str) or role not in _FIELDS:
        raise bad(f"{field}.role", f"{', '.join(_FIELDS)} is needed, found {found(role)}")
    if given.get("audio") is not None:
        raise bad(f"{field}.audio", f"{TEXT_ONLY}; leave audio out")
    known_only(given, _FIELDS[role] | _OUTPUT_ONLY | {"audio", "function_call"}, field)
    content, plain = _content(given, role, field)
    if role == "tool":
        said(given, "tool_call_id", field)
    if given.get("tool_calls"):
        _check_calls(given["tool_calls"], f"{field}.tool_calls")
    if given.get("name") is not None:
        said(given, "name", field)
    told = {name: item for name, item in given.items() if item not in (None, []) and name in _FIELDS[role]}
    if plain and not told.keys() - {"role", "content"}:
        return turn(role, content, None)
    return turn(role, content, {"content": given.get("content") or None, **told})


def _content(given: Mapping[str, Json], role: str, field: str) -> tuple[str, bool]:
    """The text of a turn, and whether it is all that its content says."""
    content = given.get("content")
    if isinstance(content, str):
        return content, True
    if not content and role == "assistant" and (given.get("tool_calls") or given.get("refusal")):
        return given.get("refusal") or "", False
    if not isinstance(content, list) or not content:
        raise bad(f"{field}.content", f"text or a list of text parts is needed, found {found(content)}")
    texts = [
        _part(part, role, f"{field}.content[{at}]") for at, part in enumerate(listing(content, f"{field}.content"))
    ]
    return joined(texts), len(texts) == 1 and content[0].keys() == {"type", "text"} and content[0]["type"] == "text"


def _part(value: Json, role: str, field: str) -> str:
    part = mapping(value, field)
    match part.get("type"):
        case "text":
            known_only(part, frozenset({"type", "text", "cache_control", "prompt_cache_breakpoint"}), field)
            return said(part, "text", field)
        case "refusal" if role == "assistant":
            return said(part, "refusal", field)
        case "thinking" if role == "assistant":
            return ""
    raise no_text(part, field)


def _check_calls(value: Json, field: str) -> None:
    for at, item in enumerate(listing(value, field, 1000)):
        place = f"{field}[{at}]"
        call = mapping(item, place)
        said(call, "id", place)
        match call.get("type", "function"):
            case "function":
                _check_function(mapping(call.get("function"), f"{place}.function"), f"{place}.function")
            case "custom":
                said(mapping(call.get("custom"), f"{place}.custom"), "input", f"{place}.custom")
            case kind:
                raise bad(f"{place}.type", f"function or custom is needed, found {found(kind)}")


def _check_function(function: dict[str, Any], field: str) -> None:
    tool_name(function, field)
    said(function, "arguments", field)
