"""Completions as clients write them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from corpusgen.records import Json, Message
from corpusgen.serve.wires.asked import Known, bad, found, text, whole
from corpusgen.serve.wires.chat_call import LEFT_OUT, SAMPLING, SERVERS_OWN

COMPLETION: Final = Known(
    read=frozenset({"model", "prompt", "stream", "stream_options", "best_of"}),
    passed={**SERVERS_OWN, **SAMPLING, "logprobs": whole(0, 1000), "suffix": text(1_000_000)},
    ignored=LEFT_OUT,
    refused={"echo": "the prompt is already known; leave it out"},
    names={"logprobs": "top_logprobs"},
)


def read_completion(body: Mapping[str, Json], given: dict[str, Json]) -> tuple[tuple[Message, ...], Json, Json]:
    """The text to go on with, as one user turn. Raises BadCall."""
    if body.get("best_of") not in (None, 1):
        raise bad(
            "best_of", "each of them is billed and all but the best are thrown away; write n, and choose among them"
        )
    return (Message(role="user", content=_prompt(body.get("prompt"))),), None, None


def _prompt(value: Json) -> str:
    prompt = value[0] if isinstance(value, list) and len(value) == 1 else value
    if isinstance(prompt, str):
        return prompt
    if isinstance(prompt, list) and prompt and all(isinstance(item, str) for item in prompt):
        raise bad("prompt", f"one text a call is taken, found {len(prompt):,}; send a call for each")
    if isinstance(prompt, list) and prompt:
        raise bad("prompt", "token ids are not taken, for nobody could read them in a record; send the text")
    raise bad("prompt", f"a text is needed, found {found(value)}")
