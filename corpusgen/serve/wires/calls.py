"""A client's call as the service understands it, whichever of four wire formats it came in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from corpusgen.records import Json, Message
from corpusgen.serve.wires.asked import BadCall, Known, check_json, clean, flag, mapping, model_of, parameters_of
from corpusgen.serve.wires.chat_call import CHAT, read_chat
from corpusgen.serve.wires.completion_call import COMPLETION, read_completion
from corpusgen.serve.wires.messages_call import MESSAGES, read_messages
from corpusgen.serve.wires.responses_call import RESPONSES, read_responses

__all__ = ["BadCall", "Call", "Wire", "read_call"]

Wire: TypeAlias = Literal["chat", "responses", "completion", "messages"]
"""The wire format a client speaks; the same words as ``records.Api``."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """What a client asks, checked; nothing has been decided, reserved or sent."""

    wire: Wire
    model: str
    """As the client wrote it."""
    messages: tuple[Message, ...]
    """Turns that are text and nothing else have no ``given``, so that they are the turns a spec's run would send."""
    parameters: Mapping[str, Json]
    """What the client set, under the names a spec would use: max_tokens, top_logprobs, stop, reasoning_effort."""
    tools: Json
    """As the client wrote them, or None."""
    schema: Json
    """Only where the request is one that a spec with this schema would send."""
    stream: bool
    stream_usage: bool
    """Whether a streamed chat or completion is to end with its usage."""
    ignored: tuple[str, ...]
    """What was accepted and left out, because no answer depends on it."""
    apart: int = 0
    """How many of the first turns stand beside the others in what the client sent: instructions, a system text."""
    probe: bool
    """Nothing is asked: clients send such calls to see rate limits. Answered without asking and without a bill."""


_Read: TypeAlias = Callable[[Mapping[str, Json], dict[str, Json]], tuple[tuple[Message, ...], Json, Json]]
KNOWN: Final[Mapping[Wire, tuple[Known, _Read]]] = {
    "chat": (CHAT, read_chat),
    "responses": (RESPONSES, read_responses),
    "completion": (COMPLETION, read_completion),
    "messages": (MESSAGES, read_messages),
}
"""What is known of each wire format's parameters, and who reads the rest."""
_DEFAULTS: Final[Mapping[str, Json]] = {"n": 1, "service_tier": "auto", "truncation": "disabled"}
"""What some clients write out although it is what happens anyway; left out, so that it makes no other request."""
_APART: Final[Mapping[Wire, str]] = {"responses": "instructions", "messages": "system"}
"""Where a turn stands that comes before all others."""
_STREAM_OPTIONS: Final = frozenset({"include_usage", "include_obfuscation"})


def read_call(wire: Wire, body: dict[str, Json]) -> Call:
    """The call in the body of a request. Raises BadCall naming the field, and nothing else."""
    if not isinstance(body, dict):
        raise BadCall(f"the body must be an object, found {type(body).__name__}")
    check_json(body)
    known, read = KNOWN[wire]
    given, ignored = parameters_of(body, known)
    model = model_of(body)
    messages, tools, schema = read(body, given)
    return Call(
        wire=wire,
        model=model,
        messages=messages,
        parameters={name: value for name, value in given.items() if name not in _DEFAULTS or value != _DEFAULTS[name]},
        tools=tools,
        schema=schema,
        stream=body.get("stream") is not None and bool(flag(body["stream"], "stream")),
        stream_usage=_stream_usage(body.get("stream_options")),
        ignored=ignored,
        apart=int(bool(body.get(_APART[wire]))) if wire in _APART else 0,
        probe=_is_probe(wire, messages),
    )


def _stream_usage(value: Json) -> bool:
    if value is None:
        return False
    options = mapping(value, "stream_options")
    for name in options:
        if name not in _STREAM_OPTIONS:
            raise BadCall(f"stream_options.{clean(name)}: unknown; leave it out", field=f"stream_options.{clean(name)}")
    wanted = options.get("include_usage")
    return wanted is not None and bool(flag(wanted, "stream_options.include_usage"))


def _is_probe(wire: Wire, messages: tuple[Message, ...]) -> bool:
    """Whether nobody is asked anything: no turns, or a single empty one of the user's."""
    # What stands apart from the turns in these two is no turn.
    turns = [one for one in messages if wire in ("chat", "completion") or one.role != "system"]
    if len(turns) != 1:
        return not turns
    return turns[0].role == "user" and turns[0].given is None and not turns[0].content.strip()
