"""Opening a run: may we ask, whom, under which caps, and where did we leave off?"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import date
from functools import cache
from typing import Literal

from corpusgen.assemble import RunFacts
from corpusgen.budget.ledger import Cap, Ledger, unit_name
from corpusgen.corpus import Corpus
from corpusgen.elsewhere import Elsewhere
from corpusgen.errors import PolicyRefused, UsageError
from corpusgen.fanout import Asker
from corpusgen.journal import Transaction
from corpusgen.provenance.policy import Decision, IntendedUse, Role, SourceUse, decide, explain, suggest_allowed
from corpusgen.provenance.terms import TeacherRoute
from corpusgen.records import canonical_json
from corpusgen.spec import Unit
from corpusgen.stages.task import Task, connect, price_of
from corpusgen.store.answers import Card, store_card
from corpusgen.store.shared_cache import SharedCache, open_shared_cache
from corpusgen.teachers.labels import check_first_tokens
from corpusgen.teachers.teacher import Teacher, TeacherCard

BEAT_S = 1.0
"""How often the time that passed is booked; sooner when a cap on it is nearly used up."""
SHORTEST_BEAT_S = 0.02


@dataclass(frozen=True, kw_only=True)
class Run:
    """An open run: the task, the corpus, the decision that allows it, and the asker that does the work."""

    task: Task
    corpus: Corpus
    run_id: str
    decision: Decision
    asker: Asker


@asynccontextmanager
async def open_run(
    task: Task,
    corpus: Corpus,
    *,
    caps: Mapping[Unit, int] | None = None,
    on_failure: Literal["raise", "drop"] = "raise",
) -> AsyncIterator[Run]:
    """A run of a task, new or taken up where it stopped.

    ``caps`` replace those of the spec, unit by unit. Raises PolicyRefused, PriceUnknown, UnsupportedParameter or
    UnknownTeacher before anything is sent.
    """
    rate_on = cache(lambda day: price_of(task, day))
    rate = rate_on(corpus.clock().date())
    binding = caps_of(task, caps or {})
    lasting = ("corpus", f"teacher:{task.teacher.name}", f"user:{corpus.actor}")
    if not rate.free and not any(cap.unit == "microusd" for cap in binding) and not _money_capped(corpus, lasting):
        raise task.located.error(f"{task.teacher.name} costs money; set a cap, such as budget: {{usd: 5}}", "budget")
    # What a free teacher says costs only time, and its processor time is to be measured where it is asked.
    shared = None if rate.free else open_shared_cache(os.environ)
    teacher = connect(task, corpus.clock)
    try:
        decision = judge(task, teacher.card, corpus.clock().date())
        run_id, facts = await _run_row(task, corpus, decision)
        scopes = (f"run:{run_id}", *lasting)
        ledger = Ledger(corpus.journal)
        await ledger.recover()
        await ledger.replace_caps(scopes[0], (replace(cap, scope=scopes[0]) for cap in binding))
        await _gate(corpus, run_id, decision, task)
        card = card_of(teacher.card, decision)
        await corpus.journal.run(lambda transaction: store_card(transaction, card))
        asker = Asker(
            corpus=corpus,
            ledger=ledger,
            teacher=teacher,
            rate=rate,
            card=card,
            facts=await _with_first_tokens(task, corpus, teacher, facts),
            scopes=scopes,
            timeout_s=task.teacher.timeout_s,
            compute_us=round(task.teacher.timeout_s * 1_000_000) if teacher.card.route == "self_hosted" else 0,
            in_flight=task.teacher.in_flight or teacher.card.in_flight,
            on_failure=on_failure,
            elsewhere=_elsewhere(task, corpus, teacher, decision, shared),
            rate_on=rate_on,
        )
        async with _time_booked(ledger, corpus, run_id, scopes):
            yield Run(task=task, corpus=corpus, run_id=run_id, decision=decision, asker=asker)
    finally:
        await teacher.aclose()
        if shared is not None:
            await shared.aclose()


def _money_capped(corpus: Corpus, scopes: tuple[str, ...]) -> bool:
    """Whether somebody has set a cap in dollars that binds every run of these."""
    rows = corpus.journal.query("select scope from caps where unit = 'microusd'")
    return any(row[0] in scopes for row in rows)


@asynccontextmanager
async def _time_booked(ledger: Ledger, corpus: Corpus, run_id: str, scopes: tuple[str, ...]) -> AsyncIterator[None]:
    """While it is open, the time that passes is booked on the run."""
    booking = asyncio.create_task(_book_time(ledger, corpus, run_id, scopes))
    try:
        yield
    finally:
        booking.cancel()
        await asyncio.wait([booking])
        if not booking.cancelled():
            booking.result()  # what ended it early


async def _book_time(ledger: Ledger, corpus: Corpus, run_id: str, scopes: tuple[str, ...]) -> None:
    now = asyncio.get_running_loop().time
    booked_until, span, left = now(), None, None

    async def book() -> None:
        nonlocal booked_until, span, left
        passed, booked_until = round((now() - booked_until) * 1_000_000), now()
        span, left = await corpus.journal.run(
            lambda transaction: ledger.time_passed(transaction, run_id, scopes, passed, span)
        )

    try:
        while True:
            await book()
            await asyncio.sleep(BEAT_S if left is None else min(BEAT_S, max(left / 1_000_000, SHORTEST_BEAT_S)))
    finally:
        await book()


def _elsewhere(
    task: Task, corpus: Corpus, teacher: Teacher, decision: Decision, shared: SharedCache | None
) -> Elsewhere | None:
    """What other corpora were answered, if today's policy allows its terms and they ask for no more than this run's."""
    promised = {(duty.kind, duty.applies_to) for duty in decision.duties}

    @cache
    def usable(origin: Card) -> bool:
        judged = judge(task, teacher.card, decision.decided_on, original_terms=origin.terms_ids)
        same = (judged.terms_set_id, judged.licence_expression) == (origin.terms_set_id, decision.licence_expression)
        asked = {(duty.kind, duty.applies_to) for duty in judged.duties}
        return judged.outcome == "allow" and same and asked <= promised

    return None if shared is None else Elsewhere(cache=shared, usable=usable, journal=corpus.journal, teacher=teacher)


def judge(task: Task, card: TeacherCard, on: date, *, original_terms: tuple[str, ...] | None = None) -> Decision:
    """What today's terms say of asking this teacher for this student, or of answers it gave under these."""
    route = TeacherRoute(
        name=card.name,
        provider=card.provider,
        model=card.model,
        route=card.route,
        host=card.host,
        weights_sha256=card.weights_sha256,
        pinned_terms=task.teacher.terms,
    )
    role: Role = "logprobs" if task.spec.kind == "label" else "response"
    return decide(
        task.registry, route, _use(task), on=on, role=role, sources=_sources(task), original_terms=original_terms
    )


def refusal(task: Task, decision: Decision) -> PolicyRefused:
    """The refusal in words, with teachers that would pass."""
    others = suggest_allowed(task.registry, _use(task), on=decision.decided_on, sources=_sources(task))
    return PolicyRefused(f"{task.located.where('teachers', 0, 'name')}: {explain(decision, others)}")


def _use(task: Task) -> IntendedUse:
    use = task.spec.intended_use
    return IntendedUse(
        student_distribution=use.student_distribution,
        student_competes=use.student_competes,
        commercial=use.commercial,
        accepted_duties=use.accepted_duties,
    )


def _sources(task: Task) -> list[SourceUse]:
    return [SourceUse(source_id=source.id, licence=source.licence) for source in task.spec.sources]


async def _gate(corpus: Corpus, run_id: str, decision: Decision, task: Task) -> None:
    row = (run_id, decision.teacher.name, decision.outcome, decision_json(decision))

    def operation(transaction: Transaction) -> None:
        transaction.execute(
            "insert into decisions(run_id, stage, subject, outcome, decision, decided_us)"
            " values(?, 'plan', ?, ?, ?, ?)",
            (*row, transaction.now_us),
        )

    await corpus.journal.run(operation)
    if decision.outcome != "allow":
        raise refusal(task, decision)


def decision_json(decision: Decision) -> str:
    """A decision as a row keeps it."""
    return canonical_json(
        {
            "role": decision.role,
            "reasons": [[reason.rule, reason.terms_id, reason.outcome, reason.text] for reason in decision.reasons],
            "duties": [[duty.kind, duty.applies_to, duty.terms_id, duty.text] for duty in decision.duties],
            "terms_set_id": decision.terms_set_id,
            "terms_ids": decision.terms_ids,
            "licence_expression": decision.licence_expression,
            "outputs_train": decision.outputs_train,
            "registry_digest": decision.registry_digest,
            "policy_digest": decision.policy_digest,
            "decided_on": decision.decided_on.isoformat(),
        }
    ).decode()


def card_of(card: TeacherCard, decision: Decision) -> Card:
    """A teacher's card together with the terms it is asked under."""
    return Card(
        teacher=card.name,
        provider=card.provider,
        model=card.model,
        route=card.route,
        host=card.host,
        identity=card.identity,
        revision=card.revision,
        terms_set_id=decision.terms_set_id,
        terms_ids=decision.terms_ids,
        outputs_train=decision.outputs_train,
    )


def caps_of(task: Task, given: Mapping[Unit, int]) -> list[Cap]:
    """The caps that bind a run: those given, else those of the spec."""
    of_spec = {
        unit: Cap(
            scope="",
            unit=unit,
            cap=cap,
            origin=f"{task.located.where('budget', unit_name(unit))}: budget.{unit_name(unit)}",
        )
        for unit, cap in task.spec.budget.caps().items()
    }
    of_caller = {
        unit: Cap(scope="", unit=unit, cap=cap, origin=f"--budget {unit_name(unit)}") for unit, cap in given.items()
    }
    return list({**of_spec, **of_caller}.values())


async def _run_row(task: Task, corpus: Corpus, decision: Decision) -> tuple[str, RunFacts]:
    """The run of this very task in this corpus, started now if there is none."""
    run_id = corpus.new_run_id()
    facts = await corpus.journal.run(lambda transaction: _take_up(transaction, task, decision, run_id))
    return facts.run_id, facts


def _take_up(transaction: Transaction, task: Task, decision: Decision, new_run_id: str) -> RunFacts:
    # Looked up and written in one transaction: two processes that start at once must share one run and its caps.
    rows = transaction.rows(
        "select run_id, facts from runs where spec_digest = ? order by started_us limit 1", (task.identity,)
    )
    spec = task.spec
    facts = RunFacts(
        run_id=rows[0][0] if rows else new_run_id,
        task=spec.name,
        kind="label" if spec.kind == "label" else "response",
        spec_digest=task.identity,
        prompt_digest=task.prompter.file.digest,
        licence_expression=decision.licence_expression,
        label_names=spec.labels.names if spec.labels else None,
        first_tokens=RunFacts.from_json(rows[0][1]).first_tokens if rows else None,
    )
    _write_run(transaction, task, facts)
    return facts


def _write_run(transaction: Transaction, task: Task, facts: RunFacts) -> None:
    transaction.execute(
        "insert into runs(run_id, task, spec_digest, spec, facts, status, started_us) values(?, ?, ?, ?, ?, 'open', ?)"
        " on conflict do update set status = 'open', facts = excluded.facts",
        (
            facts.run_id,
            task.spec.name,
            task.identity,
            task.spec.model_dump_json(),
            facts.to_json(),
            transaction.now_us,
        ),
    )


async def _with_first_tokens(task: Task, corpus: Corpus, teacher: Teacher, facts: RunFacts) -> RunFacts:
    """Facts with the tokens that tell the labels apart, looked up once per teacher and label set."""
    if facts.label_names is None or facts.first_tokens is not None or not teacher.card.capabilities.top_logprobs:
        return facts
    tokens = await teacher.first_tokens(facts.label_names)
    if tokens is None:
        return facts
    try:
        check_first_tokens(facts.label_names, tokens)
    except UsageError as error:
        raise task.located.error(str(error).removeprefix("labels.names: "), "labels", "names") from error
    known = replace(facts, first_tokens=tokens)
    await corpus.journal.run(lambda transaction: _write_run(transaction, task, known))
    return known


async def end_run(run: Run, status: Literal["complete", "stopped"]) -> None:
    """Note how a run ended."""

    def operation(transaction: Transaction) -> None:
        transaction.execute(
            "update runs set status = ?, ended_us = ? where run_id = ?", (status, transaction.now_us, run.run_id)
        )

    await run.corpus.journal.run(operation)
