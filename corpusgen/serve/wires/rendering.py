"""Answers as a client reads them: the teacher's own bytes where both speak one wire format, else written anew.

What is written anew follows from the completions, the call and the name of the answer alone, so that a replay has the
same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import orjson

from corpusgen.records import Api, Completion, Json, Usage
from corpusgen.serve.wires.calls import Call, Wire
from corpusgen.serve.wires.render_chat import chat_answer, completion_answer
from corpusgen.serve.wires.render_messages import messages_answer
from corpusgen.serve.wires.render_responses import responses_answer

_NOTHING: Final = Completion(text="", finish_reason="stop", usage=Usage(input_tokens=0, output_tokens=0))

_WRITERS: Final[Mapping[Wire, Callable[[Call, Sequence[Completion], int, str], dict[str, Json]]]] = {
    "chat": chat_answer,
    "completion": completion_answer,
    "messages": messages_answer,
    "responses": responses_answer,
}


def rendered(call: Call, completions: Sequence[Completion], *, api: Api, body: bytes, created: int, name: str) -> bytes:
    """The answer in the client's wire format, as JSON.

    ``body`` is what the teacher said in the format ``api``, ``created`` when, in seconds; ``name``, such as the id of
    the record, is what ids are made of.
    """
    return body if call.wire == api else written(call, completions, created=created, name=name)


def written(call: Call, completions: Sequence[Completion], *, created: int, name: str) -> bytes:
    """The answer written anew, as for one that came over no wire, such as a student's."""
    return orjson.dumps(_WRITERS[call.wire](call, completions, created, name))


def probe_answer(call: Call) -> bytes:
    """What is said to a call that asks nothing: nothing, for nothing."""
    return written(call, [_NOTHING], created=0, name="nothing-was-asked")
