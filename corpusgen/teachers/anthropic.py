"""Anthropic: ``anthropic/<model>``, asked by Messages under a pinned API version, which the record's provenance names.

No log-probabilities, and since API version 2026-10-21 no temperature, top_p or top_k: diversity comes from prompts.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

from corpusgen.teacher_fields import TeacherSpec
from corpusgen.teachers.endpoint import Endpoint, capabilities_of, connected, fact_of, model_of, offer_of, row_of
from corpusgen.teachers.table import EndpointRow, ModelFact
from corpusgen.teachers.teacher import Capabilities, Offer
from corpusgen.teachers.transport import Clock

PARAMETERS: Final = frozenset(
    {
        *("max_tokens", "cache_control", "inference_geo", "metadata", "output_config", "reasoning_effort"),
        *("service_tier", "speed", "stop", "stop_sequences", "thinking", "tool_choice"),
    }
)
"""What Messages take, of what makes sense here; ``stop`` and ``reasoning_effort`` are sent under Anthropic's names."""
SAMPLING: Final = frozenset({"temperature", "top_p", "top_k"})
WITH_SAMPLING: Final = frozenset({"2023-06-01", "bedrock-2023-05-31", "vertex-2023-10-16"})
"""API versions before the one that took them away, here and in the clouds; older models still listen to them."""


def connect(spec: TeacherSpec, *, folder: Path, clock: Clock) -> Endpoint:
    """The model a spec names; nothing is sent yet. Raises UsageError naming the field to change."""
    row = row_of(spec)
    assert row is not None  # the shipped table has it, which a test sees to
    fact = fact_of(row, model_of(spec))
    known = capabilities_under(row, fact, spec.api_version or row.api_version or "")
    return connected(spec, clock, row=row, fact=fact, capabilities=known, chat_api="messages")


def capabilities_under(row: EndpointRow, fact: ModelFact | None, version: str) -> Capabilities:
    """What Messages can be asked for under an API version."""
    known = replace(capabilities_of(row, fact), api_version=version)
    if version not in WITH_SAMPLING:
        return replace(known, parameters=PARAMETERS)
    of_model = fact.refused if fact else {}
    refused = {name: why for name, why in known.refused.items() if name not in SAMPLING or name in of_model}
    return replace(known, refused=refused, parameters=PARAMETERS | SAMPLING)


def offers() -> tuple[Offer, ...]:
    """What ``teachers list`` says of this kind."""
    row = row_of(TeacherSpec(name="anthropic/MODEL", parameters={"max_tokens": 1}))
    return () if row is None else (offer_of(row),)
