"""A call as the request that a teacher is asked: as it is where both speak one wire format, else said in the other.

Between two formats everything goes by way of chat completions. What carries no meaning for an answer is left out on the
way, and told by ``left_out`` (marks for prompt caches, thoughts that only their own provider can read); what carries
some and cannot be said raises BadCall naming its field.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from corpusgen.records import Api, Json, Request
from corpusgen.serve.wires.asked import bad, clean
from corpusgen.serve.wires.calls import Call, Wire
from corpusgen.serve.wires.from_messages import chat_of_messages
from corpusgen.serve.wires.from_responses import chat_of_responses
from corpusgen.serve.wires.said_in_chat import Chat, Said, said_in_chat, turn_of
from corpusgen.serve.wires.to_messages import messages_of_chat
from corpusgen.serve.wires.to_responses import responses_of_chat
from corpusgen.teachers.json_schema import fault_of_schema
from corpusgen.teachers.teacher import TeacherCard


def request_of_call(
    call: Call,
    *,
    api: Api,
    card: TeacherCard,
    defaults: Mapping[str, Json],
    sample: int,
    most: int | None = None,
) -> Request:
    """The request that asks a teacher what a client asks, in the teacher's wire format. Raises BadCall.

    ``defaults`` are the teacher's parameters in the configuration, for what the client left open. Their ``max_tokens``
    is also the most a client may ask for, unless ``most`` says otherwise.
    """
    said = in_wire(call, api)
    _check_schema(call.wire, said.schema)
    parameters = {**defaults, **said.parameters}
    _check_limit(call.wire, parameters, defaults.get("max_tokens") if most is None else most)
    return Request(
        teacher=card.identity,
        model=card.model,
        api=api,
        messages=said.messages,
        parameters=parameters,
        schema=said.schema,
        tools=said.tools,
        sample_index=sample,
    )


def in_wire(call: Call, api: Api) -> Said:
    """What a call asks, in the words of a wire format. Raises BadCall for what cannot be said in it."""
    if api == call.wire:
        return Said(messages=call.messages, parameters=call.parameters, tools=call.tools, schema=call.schema)
    if call.wire == "completion":
        raise bad("model", "this teacher answers turns and does not go on with a text; ask it by /v1/chat/completions")
    if api == "completion":
        raise bad("model", "this teacher goes on with a text and knows no turns; ask it by /v1/completions")
    return _TO[api](_CHAT_OF[call.wire](call))


def chat_of_chat(call: Call) -> Chat:
    """A chat as it is."""
    return Chat(
        turns=[turn_of(message) for message in call.messages],
        places=[f"messages[{at}]" for at in range(len(call.messages))],
        parameters=dict(call.parameters),
        tools=call.tools,
        schema=call.schema,
    )


_CHAT_OF: Final[Mapping[Wire, Callable[[Call], Chat]]] = {
    "chat": chat_of_chat,
    "messages": chat_of_messages,
    "responses": chat_of_responses,
}
_TO: Final[Mapping[Api, Callable[[Chat], Said]]] = {
    "chat": said_in_chat,
    "messages": messages_of_chat,
    "responses": responses_of_chat,
}
_LIMITS: Final[Mapping[Wire, str]] = {"responses": "max_output_tokens"}
"""What a client calls the longest answer, where that is not ``max_tokens``."""


_SCHEMAS: Final[Mapping[Wire, str]] = {"responses": "text.format.schema", "messages": "output_config.format.schema"}
"""Where a client says to what answers are held, where that is not as in a chat."""


def _check_schema(wire: Wire, schema: Json) -> None:
    """Answers are held to it here too, so it must be sound, whatever the teacher would say to it."""
    if schema is not None and (fault := fault_of_schema(schema)) is not None:
        place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in fault.place)
        field = f"{_SCHEMAS.get(wire, 'response_format.json_schema.schema')}{clean(place)}"
        raise bad(field, str(fault))


def _check_limit(wire: Wire, parameters: Mapping[str, Json], most: Json) -> None:
    asked, name = parameters.get("max_tokens"), _LIMITS.get(wire, "max_tokens")
    if asked is None:
        raise bad(name, "is needed: it bounds what an answer may cost, and this teacher's configuration names none")
    if most is not None and asked > most:
        raise bad(name, f"is at most {most:,} for this teacher, found {asked:,}; lower it, or have the limit raised")
