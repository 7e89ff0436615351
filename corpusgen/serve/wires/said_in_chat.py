"""What is asked, said in chat completions: halfway between any two wire formats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from corpusgen.records import Json, Message
from corpusgen.serve.wires.asked import bad, found, joined, turn


@dataclass(frozen=True, kw_only=True)
class Said:
    """What is asked, in the words of one wire format."""

    messages: tuple[Message, ...]
    parameters: Mapping[str, Json]
    tools: Json
    schema: Json


@dataclass(frozen=True, kw_only=True)
class Chat:
    """What is asked, as a chat completion would ask it."""

    turns: Sequence[dict[str, Any]]
    places: Sequence[str]
    """Where each turn stands in what the client sent."""
    parameters: dict[str, Json]
    tools: Json
    schema: Json


def turn_of(message: Message) -> dict[str, Any]:
    """A turn as its wire format writes it."""
    if message.given is None:
        return {"role": message.role, "content": message.content}
    given: dict[str, Any] = orjson.loads(message.given)
    return given


def message_of(said: dict[str, Any]) -> Message:
    """A turn of a chat, with the whole of it where it says more than its text."""
    content = said.get("content")
    plain = isinstance(content, str) and said.keys() == {"role", "content"}
    return turn(said["role"], text_of(content), None if plain else said)


def text_of(content: Json) -> str:
    """The text of a turn of a chat."""
    if isinstance(content, str):
        return content
    return joined([part.get("text") or part.get("refusal") or "" for part in content or ()])


def shortest(parts: Sequence[Json]) -> Json:
    """The content of a turn: its text where there is one part of it, else the parts."""
    return parts[0]["text"] if len(parts) == 1 and parts[0].keys() == {"type", "text"} else list(parts)


def said_in_chat(chat: Chat) -> Said:
    """A chat for a teacher that is asked in chat completions."""
    messages = tuple(map(message_of, chat.turns))
    return Said(messages=messages, parameters=chat.parameters, tools=chat.tools, schema=chat.schema)


def check_one_answer(parameters: Mapping[str, Json]) -> None:
    """Raise BadCall where several answers are asked of a wire format that gives one a call."""
    if "n" in parameters:
        raise bad("n", f"this teacher gives one answer a call, found {parameters['n']}; send a call for each")


def choice_of_chat(choice: Json) -> Json:
    """Which tool is to be called, where other wire formats can say it. Raises BadCall."""
    if isinstance(choice, dict) and not isinstance(choice.get("function"), dict):
        raise bad("tool_choice", f"this teacher takes none, auto, required or one function, found {found(choice)}")
    return choice


def only_functions(tools: Json) -> Json:
    """The tools of a chat, where they are all functions. Raises BadCall."""
    for at, tool in enumerate(tools or ()):
        if tool.get("type") != "function":
            raise bad(f"tools[{at}].type", f"this teacher calls functions only, found {found(tool.get('type'))}")
    return tools
