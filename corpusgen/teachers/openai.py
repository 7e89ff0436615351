"""OpenAI: ``openai/<model>``, asked by Chat Completions or, with ``api: responses``, by Responses.

Responses show a summary of the reasoning and keep it encrypted; Chat Completions leave it out. Both are sent without
storage. ``max_tokens`` bounds reasoning and answer together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from corpusgen.errors import UnsupportedParameter
from corpusgen.teacher_fields import TeacherSpec
from corpusgen.teachers.endpoint import Endpoint, capabilities_of, connected, fact_of, model_of, offer_of, row_of
from corpusgen.teachers.table import ModelFact
from corpusgen.teachers.teacher import Capabilities, Offer
from corpusgen.teachers.transport import Clock

_BOTH: Final = (
    *("max_tokens", "metadata", "moderation", "parallel_tool_calls", "prompt_cache_key", "prompt_cache_options"),
    *("prompt_cache_retention", "reasoning_effort", "safety_identifier", "service_tier", "temperature", "tool_choice"),
    *("top_logprobs", "top_p", "user"),
)
CHAT_PARAMETERS: Final = frozenset(
    {
        *(*_BOTH, "frequency_penalty", "logit_bias", "prediction", "presence_penalty", "response_format", "seed"),
        *("stop", "verbosity", "web_search_options"),
    }
)
"""What Chat Completions take, of what makes sense here."""
RESPONSES_PARAMETERS: Final = frozenset(
    {*_BOTH, "access_programs", "include", "instructions", "max_tool_calls", "reasoning", "text", "truncation"}
)
"""What Responses take, of what makes sense here."""

_NOT_IN_RESPONSES: Final = {
    "seed": "Responses take none; remove it, or write api: chat",
    "stop": "Responses take none; remove it, or write api: chat",
    "response_format": "write parameters.text.format, or api: chat",
    "verbosity": "write parameters.text: {verbosity: …}",
    "logit_bias": "Responses take none; remove it, or write api: chat",
    "presence_penalty": "Responses take none; remove it, or write api: chat",
    "frequency_penalty": "Responses take none; remove it, or write api: chat",
    "store": "nothing is stored with the provider",
    "background": "answers are waited for",
}
_NOT_IN_CHAT: Final = {
    "reasoning": "write parameters.reasoning_effort, or api: responses",
    "store": "nothing is stored with the provider",
    "max_completion_tokens": "write max_tokens; it is sent under the name the model takes",
    "modalities": "answers are text",
    "audio": "answers are text",
}


def connect(spec: TeacherSpec, *, folder: Path, clock: Clock) -> Endpoint:
    """The model a spec names; nothing is sent yet. Raises UsageError naming the field to change."""
    row = row_of(spec)
    assert row is not None  # the shipped table has it, which a test sees to
    fact = fact_of(row, model_of(spec))
    api = spec.api or "chat"
    _check_api(spec, api, fact)
    known = capabilities_of(row, fact)
    return connected(spec, clock, row=row, fact=fact, capabilities=_for_api(known, api), chat_api=api)


def offers() -> tuple[Offer, ...]:
    """What ``teachers list`` says of this kind."""
    row = row_of(TeacherSpec(name="openai/MODEL", parameters={"max_tokens": 1}))
    return () if row is None else (offer_of(row),)


def _check_api(spec: TeacherSpec, api: str, fact: ModelFact | None) -> None:
    if fact is not None and fact.api and api not in fact.api:
        only = " or ".join(fact.api)
        raise UnsupportedParameter(f"api: {spec.name} is not served by {api}; write api: {only}")


def _for_api(known: Capabilities, api: str) -> Capabilities:
    if api == "responses":
        refused: Mapping[str, str] = {**known.refused, **_NOT_IN_RESPONSES}
        return replace(known, parameters=RESPONSES_PARAMETERS, refused=refused, choices=1, seed=False)
    known = replace(known, parameters=CHAT_PARAMETERS, refused={**known.refused, **_NOT_IN_CHAT})
    return known if known.trace is None else replace(known, trace="omitted")
