"""A chat said in Responses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from corpusgen.records import Json, Message
from corpusgen.serve.wires.asked import bad, turn
from corpusgen.serve.wires.said_in_chat import Chat, Said, check_one_answer, choice_of_chat, only_functions, text_of


def responses_of_chat(chat: Chat) -> Said:
    """What Responses ask with. Raises BadCall for what they cannot say."""
    placed = zip(chat.turns, chat.places, strict=True)
    return Said(
        messages=tuple(message for given, place in placed for message in _items(given, place)),
        parameters=_parameters(chat.parameters),
        tools=_tools(chat.tools),
        schema=chat.schema,
    )


def _tools(tools: Json) -> Json:
    """Functions, held to their schemas only where that was asked for: Responses do it where nothing is said."""
    functions = only_functions(tools)
    if functions is None:
        return None
    return [{**tool, "function": {"strict": False, **tool["function"]}} for tool in functions]


def _items(given: Mapping[str, Json], place: str) -> Iterator[Message]:
    role, content = given["role"], given.get("content")
    if given.get("prefix"):
        raise bad(f"{place}.prefix", "this teacher does not go on with a turn that was begun; leave it out")
    if given.get("name") is not None:
        raise bad(f"{place}.name", "this teacher's turns have no names; put it into the text")
    if role == "tool":
        output = content if isinstance(content, str) else _parts(content, "input_text")
        told = {"type": "function_call_output", "call_id": given["tool_call_id"], "output": output}
        yield turn("tool", text_of(content), told)
        return
    calls = given.get("tool_calls") or ()
    content = content or given.get("refusal") or ""
    if content or not calls:
        yield _spoken(role, content)
    for at, call in enumerate(calls):
        yield _call(call, f"{place}.tool_calls[{at}]")


def _spoken(role: str, content: Json) -> Message:
    if isinstance(content, str):
        return turn(role, content, None)
    kind = "output_text" if role == "assistant" else "input_text"
    return turn(role, text_of(content), {"role": role, "content": _parts(content, kind)})


def _parts(content: Json, kind: str) -> Json:
    return [{"type": kind, "text": text_of([part])} for part in content]


def _call(call: Mapping[str, Json], place: str) -> Message:
    function = call.get("function")
    if not isinstance(function, dict):
        raise bad(f"{place}.type", "this teacher calls functions only")
    told = {"name": function["name"], "arguments": function["arguments"]}
    return turn("assistant", "", {"type": "function_call", "call_id": call["id"], **told})


def _parameters(given: Mapping[str, Json]) -> dict[str, Json]:
    """What Responses do not know stays, for the teacher's own table to refuse."""
    check_one_answer(given)
    said = {name: value for name, value in given.items() if name not in ("response_format", "verbosity")}
    text: dict[str, Json] = {}
    if "verbosity" in given:
        text["verbosity"] = given["verbosity"]
    if "response_format" in given:
        text["format"] = _form(given["response_format"])
    if "tool_choice" in given:
        choice_of_chat(given["tool_choice"])
    return {**said, "text": text} if text else said


def _form(form: Mapping[str, Json]) -> Json:
    if form["type"] != "json_schema":
        return form
    return {"type": "json_schema", **form["json_schema"]}
