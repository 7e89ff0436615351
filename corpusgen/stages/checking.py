"""Checking a teacher before a run: what it is and can do, what the terms say, and, if wanted, whether it does so."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from corpusgen.budget.prices import Rate, rate_of
from corpusgen.corpus import Corpus, utc_now
from corpusgen.errors import PriceUnknown, UnsupportedParameter, UsageError
from corpusgen.fields import Unit
from corpusgen.provenance.policy import explain
from corpusgen.records import Json
from corpusgen.stages.probing import UNPRICED, Probe, Prober
from corpusgen.stages.task import Task, connect, price_of
from corpusgen.stages.terms.deciding import decisions_for, refusal, strictest
from corpusgen.teacher_fields import TeacherSpec
from corpusgen.teachers.registry import check_parameters, describe, known_teachers, open_teacher, resolved
from corpusgen.teachers.teacher import Teacher, TeacherCard


def check_teacher(task: Task, corpus: Corpus | None = None) -> dict[str, Json]:
    """What a spec's teacher is, can do and may be used for. Sends nothing.

    Raises UnknownTeacher, or UnsupportedParameter for what the spec asks and the teacher cannot do.
    """
    card = connect(task, utc_now, sending=False).card
    decision = strictest(decisions_for(corpus, task, card, utc_now().date()))
    return {
        **_known(card),
        "in_flight": task.teacher.in_flight or card.in_flight,
        "policy": decision.outcome,
        "explanation": explain(decision),
    }


def check_named(spec: TeacherSpec) -> dict[str, Json]:
    """What a teacher is and can do, without a task and so without a use the terms could judge. Sends nothing."""
    card = open_teacher(spec, folder=Path(), clock=utc_now, sending=False).card
    return {**_known(card), "in_flight": card.in_flight, "terms": UNJUDGED}


UNJUDGED: Final = "terms were not judged: no task"
"""What is said of the terms where nobody has said what the answers are for."""
_LABEL_PARAMETERS: Final[tuple[dict[str, Json], ...]] = (
    {"max_tokens": 16, "temperature": 0, "top_logprobs": 20},
    {"max_tokens": 16, "temperature": 0, "top_logprobs": 5},
    {"max_tokens": 16, "temperature": 0},
    {"max_tokens": 16},
)
"""Ways to ask for a label, the one that tells most first."""


def label_parameters(name: str) -> dict[str, Json]:
    """What to send a teacher along with a question for a label, of what it takes; a guess where it is not known."""
    try:
        card = open_teacher(name, sending=False).card
    except UsageError:  # an endpoint without its address yet, or nobody: the plan says so
        return _LABEL_PARAMETERS[0]
    return next((one for one in _LABEL_PARAMETERS if _takes(card, one)), _LABEL_PARAMETERS[-1])


def _takes(card: TeacherCard, parameters: Mapping[str, Json]) -> bool:
    try:
        check_parameters(card, parameters)
    except UnsupportedParameter:
        return False
    return True


async def probe_task(task: Task, corpus: Corpus | None, *, agreed: bool, caps: Mapping[Unit, int]) -> Probe:
    """What a spec's teacher does when it is asked. Raises PolicyRefused where it may not be, UsageError for a price."""
    teacher = connect(task, utc_now)
    decision = strictest(decisions_for(corpus, task, teacher.card, utc_now().date()))
    if decision.outcome != "allow":
        await teacher.aclose()
        raise refusal(corpus, task, decision)
    rate = price_of(task, utc_now().date())
    parameters = dict(task.teacher.parameters)
    return await _probed(teacher, rate, parameters, corpus, agreed=agreed, caps=caps)


async def probe_named(spec: TeacherSpec, corpus: Corpus | None, *, agreed: bool, caps: Mapping[Unit, int]) -> Probe:
    """What a teacher does when it is asked a few harmless questions."""
    rate = _rate(spec, agreed=agreed, caps=caps)
    teacher = open_teacher(spec, folder=Path(), clock=utc_now)
    return await _probed(teacher, rate, {}, corpus, agreed=agreed, caps=caps)


def priced(spec: TeacherSpec) -> TeacherSpec:
    """The spec as prices are looked up by; a server of one's own sends no bill, a proxy on this machine may."""
    known, scheme = resolved(spec), spec.name.partition("/")[0]
    offers = [one for one in known_teachers() if one.free or one.route == "self_hosted"]
    own = {offer.name.partition("/")[0] for offer in offers}
    mine = spec.route in ("self_hosted", "mock") or scheme in own
    return known.model_copy(update={"free": True}) if mine and known.price is None else known


def _rate(spec: TeacherSpec, *, agreed: bool, caps: Mapping[Unit, int]) -> Rate:
    try:
        return rate_of(priced(spec), on=utc_now().date())
    except PriceUnknown as error:
        if "microusd" in caps:
            raise UsageError(
                f"--budget: no price of {spec.name} is known here, so usd cannot be kept to; {error}"
            ) from error
        if not agreed:
            raise UsageError(
                f"no price of {spec.name} is known here, and --live may cost money: add --yes to ask all the same;"
                " a spec can say price: or free: true"
            ) from error
        return UNPRICED


async def _probed(
    teacher: Teacher,
    rate: Rate,
    parameters: dict[str, Json],
    corpus: Corpus | None,
    *,
    agreed: bool,
    caps: Mapping[Unit, int],
) -> Probe:
    prober = Prober(teacher=teacher, rate=rate, parameters=parameters, corpus=corpus)
    try:
        _check_agreed(prober, agreed=agreed, caps=caps)
        return await prober.probe()
    finally:
        await teacher.aclose()


def _check_agreed(prober: Prober, *, agreed: bool, caps: Mapping[Unit, int]) -> None:
    """Nothing that costs money is sent unless somebody has said how much it may be, or that it may."""
    worst = prober.worst()
    bill = f"{worst.requests} calls, at most {worst.tokens:,} tokens and ${worst.microusd / 1e6:.6f}"
    for unit, amount in (("microusd", worst.microusd), ("tokens", worst.tokens), ("requests", worst.requests)):
        cap = caps.get(unit)  # type: ignore[call-overload] # three of the units there are
        if cap is not None and amount > cap:
            raise UsageError(f"--budget: {prober.teacher.card.name} would be asked {bill}, which is above it")
    bounded = "microusd" in caps and prober.corpus is not None
    if not (prober.rate.free or agreed or bounded):
        where = "" if prober.corpus is not None else "; there is no corpus here whose books would show it"
        raise UsageError(
            f"--live asks {prober.teacher.card.name} {bill}{where}: add --yes to agree, or --budget usd=… in a corpus"
        )


def _known(card: TeacherCard) -> dict[str, Json]:
    key = card.key_env
    return {
        "teacher": card.name,
        "identity": card.identity,
        "provider": card.provider,
        "route": card.route,
        "host": card.host,
        "key": "none" if key is None else f"{key} ({'set' if os.environ.get(key, '').strip() else 'not set'})",
        **describe(card.capabilities),
    }
