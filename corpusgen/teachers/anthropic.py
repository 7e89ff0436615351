"""Anthropic: ``anthropic/<model>``, asked by Messages under a pinned API version, which the record's provenance names.

No log-probabilities, and since API version 2026-10-21 no temperature, top_p or top_k: diversity comes from prompts.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

from corpusgen.spec import TeacherSpec
from corpusgen.teachers.endpoint import Endpoint, capabilities_of, connected, fact_of, model_of, offer_of, row_of
from corpusgen.teachers.teacher import Offer
from corpusgen.teachers.transport import Clock

PARAMETERS: Final = frozenset(
    {
        *("max_tokens", "cache_control", "inference_geo", "metadata", "output_config", "reasoning_effort"),
        *("service_tier", "speed", "stop", "stop_sequences", "thinking", "tool_choice"),
    }
)
"""What Messages take, of what makes sense here; ``stop`` and ``reasoning_effort`` are sent under Anthropic's names."""
SAMPLING: Final = frozenset({"temperature", "top_p", "top_k"})
LAST_WITH_SAMPLING: Final = "2023-06-01"
"""The API version before the one that took them away; its older models still listen to them."""


def connect(spec: TeacherSpec, *, folder: Path, clock: Clock) -> Endpoint:
    """The model a spec names; nothing is sent yet. Raises UsageError naming the field to change."""
    row = row_of(spec)
    assert row is not None  # the shipped table has it, which a test sees to
    fact = fact_of(row, model_of(spec))
    known = capabilities_of(row, fact)
    version = spec.api_version or row.api_version or ""
    if version == LAST_WITH_SAMPLING:
        of_model = fact.refused if fact else {}
        refused = {name: why for name, why in known.refused.items() if name not in SAMPLING or name in of_model}
        known = replace(known, refused=refused, parameters=PARAMETERS | SAMPLING)
    else:
        known = replace(known, parameters=PARAMETERS)
    known = replace(known, api_version=version)
    return connected(spec, clock, row=row, fact=fact, capabilities=known, chat_api="messages")


def offers() -> tuple[Offer, ...]:
    """What ``teachers list`` says of this kind."""
    row = row_of(TeacherSpec(name="anthropic/MODEL", parameters={"max_tokens": 1}))
    return () if row is None else (offer_of(row),)
