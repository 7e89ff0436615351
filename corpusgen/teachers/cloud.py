"""What Claude in the clouds has in common: Messages at somebody else's address, signed by the anthropic SDK."""

from __future__ import annotations

import os

from corpusgen.teacher_fields import TeacherSpec
from corpusgen.teachers.anthropic import capabilities_under
from corpusgen.teachers.endpoint import Endpoint, connected, fact_of, is_at_home, offer_of, row_of
from corpusgen.teachers.sdk import Opens
from corpusgen.teachers.teacher import Offer
from corpusgen.teachers.transport import Clock


def connected_cloud(spec: TeacherSpec, clock: Clock, *, like: str, opens: Opens) -> Endpoint:
    """The teacher at a cloud; ``like`` is what Anthropic itself calls the model."""
    row = row_of(spec)
    assert row is not None  # the shipped table has it, which a test sees to
    fact = fact_of(row, like)
    known = capabilities_under(row, fact, spec.api_version or row.api_version or "")
    return connected(spec, clock, row=row, fact=fact, capabilities=known, chat_api="messages", opens=opens)


def key_at_home(spec: TeacherSpec, variable: str) -> TeacherSpec:
    """The spec with the provider's usual variable as its key, if that is set and it goes to the provider."""
    if spec.key_env is not None or not os.environ.get(variable, "").strip() or not is_at_home(spec):
        return spec
    return spec.model_copy(update={"key_env": variable})


def offers_of(name: str, *, installed: bool) -> tuple[Offer, ...]:
    """A cloud's line of ``teachers list``."""
    row = row_of(TeacherSpec(name=f"{name}/MODEL", parameters={"max_tokens": 1}))
    return () if row is None else (offer_of(row, installed=installed),)
