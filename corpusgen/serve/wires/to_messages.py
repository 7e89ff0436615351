"""A chat said in Messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson

from corpusgen.records import Json, Message
from corpusgen.serve.wires.asked import bad, found, turn
from corpusgen.serve.wires.said_in_chat import Chat, Said, check_one_answer, choice_of_chat, only_functions, text_of

_CHOICES: Final = {"auto": "auto", "none": "none", "required": "any"}
_SIGNED: Final = {"thinking": "signature", "redacted_thinking": "data"}
_TRANSLATED: Final = frozenset({"response_format", "parallel_tool_calls", "tool_choice"})


def messages_of_chat(chat: Chat) -> Said:
    """What Messages ask with. Raises BadCall for what they cannot say."""
    parameters, schema = _parameters(chat.parameters)
    return Said(
        messages=_turns(chat),
        parameters=parameters,
        tools=only_functions(chat.tools),
        schema=chat.schema if schema is None else schema,
    )


def _turns(chat: Chat) -> tuple[Message, ...]:
    said: list[Message] = []
    results: list[Json] = []
    begun = False
    for given, place in zip(chat.turns, chat.places, strict=True):
        if given.get("name") is not None:
            raise bad(f"{place}.name", "this teacher's turns have no names; put it into the text")
        if given["role"] == "tool":
            results.append(_result(given))
            continue
        said += _answered(results)
        results = []
        begun = begun or bool(said and said[-1].role != "system")
        said.append(_turn(given, place, at_the_front=not begun))
    return (*said, *_answered(results))


def _answered(results: list[Json]) -> list[Message]:
    """The results of one turn's calls, which are one turn of the user's."""
    if not results:
        return []
    text = "\n".join(told for block in results if (told := text_of(block["content"])))
    return [turn("user", text, {"role": "user", "content": results})]


def _result(given: Mapping[str, Json]) -> Json:
    return {"type": "tool_result", "tool_use_id": given["tool_call_id"], "content": _content(given["content"])}


def _turn(given: Mapping[str, Json], place: str, *, at_the_front: bool) -> Message:
    role, content = given["role"], given.get("content")
    if role == "assistant":
        return _assistant(given, place)
    if role in ("system", "developer"):
        if not at_the_front:
            raise bad(
                f"{place}.role", "this teacher takes system text before the first turn only; move it to the front"
            )
        role = "system"
    return _spoken(role, _content(content))


def _spoken(role: str, content: Json) -> Message:
    plain = isinstance(content, str)
    return turn(role, text_of(content), None if plain else {"role": role, "content": content})


def _content(content: Json) -> Json:
    return content if isinstance(content, str) else _blocks(content)


def _blocks(parts: Json) -> list[Json]:
    """Parts of text as blocks; Messages take no empty one."""
    return [_block(part) for part in parts if part.get("text") or part.get("refusal")]


def _block(part: Mapping[str, Json]) -> Json:
    block = {"type": "text", "text": part.get("text") or part.get("refusal")}
    marked = part.get("cache_control")
    return block if marked is None else {**block, "cache_control": marked}


def _assistant(given: Mapping[str, Json], place: str) -> Message:
    content = given.get("content") or given.get("refusal") or ""
    thoughts = [part for part in given.get("thinking_blocks") or () if is_signed(part)]
    calls = [_call(call, f"{place}.tool_calls[{at}]") for at, call in enumerate(given.get("tool_calls") or ())]
    if not thoughts and not calls:
        return _spoken("assistant", _content(content))
    texts = _blocks([{"text": content}] if isinstance(content, str) else content)
    return turn("assistant", text_of(content), {"role": "assistant", "content": [*thoughts, *texts, *calls]})


def is_signed(part: Json) -> bool:
    """Whether it is thinking that its provider can read again."""
    return isinstance(part, dict) and isinstance(part.get(_SIGNED.get(str(part.get("type")), "")), str)


def _call(call: Mapping[str, Json], place: str) -> Json:
    function = call.get("function")
    if not isinstance(function, dict):
        raise bad(f"{place}.type", "this teacher calls functions only")
    field = f"{place}.function.arguments"
    return {"type": "tool_use", "id": call["id"], "name": function["name"], "input": _input(function, field)}


def _input(function: Mapping[str, Json], field: str) -> dict[str, Any]:
    try:
        given = orjson.loads(function["arguments"] or "{}")
    except orjson.JSONDecodeError:
        given = None
    if not isinstance(given, dict):
        raise bad(field, f"this teacher takes arguments as a JSON object, found {found(function['arguments'])}")
    return given


# --- parameters ------------------------------------------------------------------------------------------------------


def _parameters(given: Mapping[str, Json]) -> tuple[dict[str, Json], Json]:
    """The parameters and the schema. What Messages do not know stays, for the teacher's own table to refuse."""
    check_one_answer(given)
    said = {name: value for name, value in given.items() if name not in _TRANSLATED}
    if said.get("temperature", 0) > 1:
        raise bad("temperature", f"this teacher takes 0 to 1, found {said['temperature']}")
    if said.get("reasoning_effort") == "none":
        del said["reasoning_effort"]
        said["thinking"] = {"type": "disabled"}
    if "service_tier" in said:
        said["service_tier"] = _tier(said["service_tier"])
    if choice := _choice(given):
        said["tool_choice"] = choice
    return said, _schema(given.get("response_format"))


def _tier(tier: Json) -> Json:
    if tier not in ("default", "standard_only"):
        raise bad("service_tier", f"this teacher has auto and default, found {found(tier)}")
    return "standard_only"


def _choice(given: Mapping[str, Json]) -> Json:
    """As a chat says it, which is what a spec would say; in Anthropic's words where only they can say it."""
    choice = choice_of_chat(given.get("tool_choice"))
    if given.get("parallel_tool_calls") is not False:
        return choice
    if isinstance(choice, dict):
        return {"type": "tool", "name": choice["function"].get("name"), "disable_parallel_tool_use": True}
    if choice == "none":
        return choice
    return {"type": _CHOICES.get(choice or "auto", choice), "disable_parallel_tool_use": True}


def _schema(form: Json) -> Json:
    if form is None:
        return None
    if form.get("type") != "json_schema":
        raise bad("response_format", "this teacher keeps to a schema, not to JSON of any kind; write type: json_schema")
    wanted = form["json_schema"]
    if wanted.get("strict") is False:
        raise bad(
            "response_format.json_schema.strict",
            "this teacher holds every answer to the schema it is given; write true, or tell the form in the messages",
        )
    schema = wanted.get("schema") or {"type": "object"}
    described = wanted.get("description")
    return {"description": described, **schema} if described is not None else schema
