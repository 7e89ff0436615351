"""Checking a teacher before a run: capabilities, parameters, terms."""

from __future__ import annotations

from corpusgen.corpus import utc_now
from corpusgen.provenance.policy import explain
from corpusgen.records import Json
from corpusgen.stages.opening import judge
from corpusgen.stages.task import Task, connect


def check_teacher(task: Task) -> dict[str, Json]:
    """What a spec's teacher is, can do and may be used for. Sends nothing.

    Raises UnknownTeacher, or UnsupportedParameter for what the spec asks and the teacher cannot do.
    """
    card = connect(task, utc_now).card
    decision = judge(task, card, utc_now().date())
    can = card.capabilities
    return {
        "teacher": card.name,
        "identity": card.identity,
        "route": card.route,
        "host": card.host,
        "apis": ", ".join(sorted(can.apis)),
        "top_logprobs": can.top_logprobs,
        "context_tokens": can.context_tokens,
        "in_flight": task.teacher.in_flight or card.in_flight,
        "policy": decision.outcome,
        "explanation": explain(decision),
    }
