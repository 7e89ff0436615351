"""Opening a run: may we ask, whom, under which caps, and where did we leave off?"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import date
from functools import cache
from typing import Literal

from corpusgen.assemble import RunFacts
from corpusgen.budget.amounts import unit_name
from corpusgen.budget.ledger import Cap, Ledger
from corpusgen.budget.prices import Rate
from corpusgen.corpus import Corpus
from corpusgen.elsewhere import Elsewhere
from corpusgen.errors import PolicyRefused, UsageError
from corpusgen.fanout import Asker
from corpusgen.fields import Unit
from corpusgen.journal import Transaction
from corpusgen.prompting.prompts import Requester
from corpusgen.provenance.policy import Decision, IntendedUse, Role, SourceUse, decide, explain, suggest_allowed
from corpusgen.provenance.terms import TeacherRoute
from corpusgen.records import canonical_json
from corpusgen.stages.lanes import Lane, lane_of
from corpusgen.stages.task import Task, connect, followers, price_of, request_for, requester, role_of
from corpusgen.store.answers import Card, store_card
from corpusgen.store.shared_cache import SharedCache, open_shared_cache
from corpusgen.teachers.labels import check_first_tokens
from corpusgen.teachers.limits import Limit
from corpusgen.teachers.pacing import Pacer
from corpusgen.teachers.shares import shared_pace
from corpusgen.teachers.teacher import Teacher, TeacherCard

BEAT_S = 1.0
"""How often the time that passed is booked; sooner when a cap on it is nearly used up."""
SHORTEST_BEAT_S = 0.02
JUDGES = "-judge-"
"""Between the name of a run and what tells the prompt and the teacher of its judge."""
OF_RUN = f"(run_id = ?1 or run_id glob ?1 || '{JUDGES}*')"
"""What belongs to a run in SQL, its judge's share among it."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """An open run: the task, the corpus, the decision that allows it, and the asker that does the work."""

    task: Task
    corpus: Corpus
    run_id: str
    members: tuple[Member, ...]
    """The teachers, in the spec's order."""
    asker: Asker
    lane: Lane
    judge: Member | None = None
    """Who scores the answers, where somebody does."""

    @property
    def everybody(self) -> tuple[Member, ...]:
        """The teachers, and the judge after them."""
        return self.members if self.judge is None else (*self.members, self.judge)

    @property
    def sent(self) -> int:
        """Requests sent in this start."""
        return self.asker.counts.sent + (self.judge.asker.counts.sent if self.judge else 0)

    @property
    def run_ids(self) -> tuple[str, ...]:
        """The run, and that of its judge, whose records tell another prompt and another spec."""
        return (self.run_id,) if self.judge is None else (self.run_id, self.judge.asker.facts.run_id)

    @property
    def decision(self) -> Decision:
        """What the terms say of the first teacher."""
        return self.members[0].decision

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """What the terms say of each teacher, the judge among them."""
        return tuple(member.decision for member in self.everybody)

    @property
    def requester(self) -> Requester:
        """Makes the request for the n-th sample of an item, to whom it falls first."""
        return requester(self.task, [teacher.card for teacher in self.teachers])

    @property
    def teachers(self) -> tuple[Teacher, ...]:
        """Who is asked, in the spec's order."""
        return tuple(member.asker.teacher for member in self.members)

    @property
    def readers(self) -> tuple[Teacher, ...]:
        """Who reads the replies: the teachers, and the judge its own."""
        return tuple(member.asker.teacher for member in self.everybody)


@dataclass(frozen=True, kw_only=True)
class Member:
    """One teacher of a run: the task as this teacher sees it, what the terms say of it, and who asks it."""

    task: Task
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
    today = corpus.clock().date()
    views = task.of_each_teacher if task.judging is None else (*task.of_each_teacher, task.judging)
    rates = [price_of(view, today) for view in views]
    binding = caps_of(task, caps or {})
    for view, rate in zip(views, rates, strict=True):
        _check_capped(view, corpus, rate, binding)
    async with AsyncExitStack() as stack:
        # What a free teacher says costs only time, and its processor time is to be measured where it is asked.
        shared = None if all(rate.free for rate in rates) else open_shared_cache(os.environ)
        if shared is not None:
            stack.push_async_callback(shared.aclose)
        teachers = [await _connected(stack, view, corpus) for view in views]
        _check_unlike(views, teachers)
        decisions = [judge(view, teacher.card, today) for view, teacher in zip(views, teachers, strict=True)]
        run_id, facts = await _run_row(task, corpus, decisions[: len(task.spec.teachers)])
        ledger = Ledger(corpus.journal)
        await ledger.recover()
        await ledger.replace_caps(f"run:{run_id}", (replace(cap, scope=f"run:{run_id}") for cap in binding))
        await _gate(corpus, run_id, decisions, views)
        opened = _Opened(corpus=corpus, ledger=ledger, shared=shared, on_failure=on_failure)
        members = [
            Member(task=view, decision=decision, asker=await _asker(opened, view, teacher, decision, facts))
            for view, teacher, decision in zip(task.of_each_teacher, teachers, decisions, strict=False)
        ]
        asker = _together(members)
        judging = None
        if task.judging is not None:
            judging = await _judge(opened, task.judging, teachers[-1], decisions[-1], members)
        every = [*members, *([judging] if judging else [])]
        scopes = tuple(dict.fromkeys(scope for member in every for scope in member.asker.scopes))
        await stack.enter_async_context(_time_booked(ledger, corpus, run_id, scopes))
        for name, pacer in {_pace_name(member.asker): member.asker.pacer for member in every}.items():
            await stack.enter_async_context(shared_pace(corpus.journal, pacer, name))
        lane = lane_of(task, corpus, asker)
        stack.push_async_callback(lane.aclose)
        yield Run(
            task=task, corpus=corpus, run_id=run_id, members=tuple(members), asker=asker, lane=lane, judge=judging
        )


def _pace_name(asker: Asker) -> str:
    card = asker.teacher.card
    return f"{card.identity} {card.model}"


async def _judge(
    opened: _Opened, judging: Task, teacher: Teacher, decision: Decision, members: Sequence[Member]
) -> Member:
    """Who scores a run's answers: under the run's caps, but with a row of its own, as its prompt and spec are others.

    A judge that is one of the teachers keeps to that one's pace.
    """
    first = members[0].asker
    run_id, facts = first.facts.run_id, judge_facts(judging, decision, first.facts.run_id)
    await opened.corpus.journal.run(lambda transaction: _write_run(transaction, judging, facts))
    asker = await _asker(opened, judging, teacher, decision, facts)
    same = [member.asker.pacer for member in members if _pace_name(member.asker) == _pace_name(asker)]
    asker = replace(
        asker,
        scopes=(f"run:{run_id}", *asker.scopes),
        role="judge",
        stopping=first.stopping,
        pacer=same[0] if same else asker.pacer,
        wants_known=False,
    )
    return Member(task=judging, decision=decision, asker=asker)


def judge_facts(judging: Task, decision: Decision, run_id: str) -> RunFacts:
    """What is the same for every judgement about the answers of a run."""
    named = judge_run_id(run_id, judging)
    return replace(_facts(judging, [decision], named), kind="judgement")


def judge_run_id(run_id: str, judging: Task) -> str:
    """The name of the row of a run's judging; another prompt, scale or judge has another."""
    return f"{run_id}{JUDGES}{judging.identity[:8]}"


def _lasting(task: Task, corpus: Corpus) -> tuple[str, ...]:
    """The scopes beside the run's own that a teacher's calls count for."""
    return "corpus", f"teacher:{task.teacher.name}", f"user:{corpus.actor}"


def _check_capped(task: Task, corpus: Corpus, rate: Rate, binding: Sequence[Cap]) -> None:
    """Nothing that costs money is asked without a cap in dollars."""
    capped = any(cap.unit == "microusd" for cap in binding) or _money_capped(corpus, _lasting(task, corpus))
    if not rate.free and not capped:
        raise task.located.error(f"{task.teacher.name} costs money; set a cap, such as budget: {{usd: 5}}", "budget")


async def _connected(stack: AsyncExitStack, task: Task, corpus: Corpus) -> Teacher:
    teacher = connect(task, corpus.clock)
    stack.push_async_callback(teacher.aclose)
    return teacher


def _check_unlike(views: Sequence[Task], teachers: Sequence[Teacher]) -> None:
    """Two of one model at one address would be one and the same to whoever reads the records."""
    seen: dict[tuple[str, str], str] = {}
    for view, teacher in zip(views, teachers, strict=True):
        if view.judges:
            continue
        key = (teacher.card.identity, teacher.card.model)
        if (other := seen.setdefault(key, teacher.card.name)) != teacher.card.name:
            message = f"is the same model at the same address as {other}; remove one"
            raise view.located.error(message, "teachers", view.at, "name")


@dataclass(frozen=True, kw_only=True)
class _Opened:
    """What every teacher of a run shares."""

    corpus: Corpus
    ledger: Ledger
    shared: SharedCache | None
    on_failure: Literal["raise", "drop"]


async def _asker(opened: _Opened, task: Task, teacher: Teacher, decision: Decision, facts: RunFacts) -> Asker:
    """Who asks one teacher: at its rate, at its pace, under its caps and terms."""
    corpus, card = opened.corpus, card_of(teacher.card, decision)
    await corpus.journal.run(lambda transaction: store_card(transaction, card))
    rate_on = cache(lambda day: price_of(task, day))
    rate = rate_on(corpus.clock().date())
    in_flight = task.teacher.in_flight or teacher.card.in_flight
    return Asker(
        corpus=corpus,
        ledger=opened.ledger,
        teacher=teacher,
        rate=rate,
        card=card,
        facts=await _with_first_tokens(task, corpus, teacher, facts),
        scopes=(f"run:{facts.run_id}", *_lasting(task, corpus)),
        timeout_s=task.teacher.timeout_s,
        compute_us=round(task.teacher.timeout_s * 1_000_000) if teacher.card.route == "self_hosted" else 0,
        in_flight=in_flight,
        on_failure=opened.on_failure,
        elsewhere=_elsewhere(task, corpus, teacher, decision, None if rate.free else opened.shared),
        rate_on=rate_on,
        pacer=pacer_of(task),
        after=followers(task.spec, task.at),
        role=role_of(task.spec, task.at),
        request_for=lambda item, sample: request_for(task, teacher.card, item, sample),
        at_once=asyncio.Semaphore(in_flight),
        blocked=task.blocked,
    )


def _together(members: Sequence[Member]) -> Asker:
    """One asker of all: a single teacher's own, or the first of several with the others at its side."""
    first = members[0].asker
    if len(members) == 1:
        return first
    panel = tuple(
        replace(member.asker, counts=first.counts, stopping=first.stopping, hold=first.hold) for member in members
    )
    shares = sum(one.in_flight for one in panel if one.role != "fallback")
    return replace(first, panel=panel, in_flight=max(shares, *(one.in_flight for one in panel)))


def pacer_of(task: Task) -> Pacer:
    """A pacer that knows the limits a spec names, and finds out what a server that names none will take."""
    rate = task.teacher.rate
    requests = [rate.requests_per_second, rate.requests_per_minute and rate.requests_per_minute / 60]
    per_s = {
        "requests": min((each for each in requests if each), default=0.0),  # the stricter, where both are named
        "tokens": (rate.tokens_per_minute or 0) / 60,
    }
    limits = [Limit(unit="requests", per_s=per_s["requests"]), Limit(unit="tokens", per_s=per_s["tokens"])]
    here = task.teacher.name.partition("/")[0] in ("embedded", "scripted")
    return Pacer([limit for limit in limits if limit.per_s], unknown=not here)


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
    role: Role = "judge" if task.judges else "logprobs" if task.spec.kind == "label" else "response"
    return decide(
        task.registry, route, _use(task), on=on, role=role, sources=_sources(task), original_terms=original_terms
    )


def refusal(task: Task, decision: Decision) -> PolicyRefused:
    """The refusal in words, with teachers that would pass."""
    others = suggest_allowed(task.registry, _use(task), on=decision.decided_on, sources=_sources(task))
    task = task.judging if decision.role == "judge" and task.judging is not None else task
    names = [teacher.name for teacher in task.spec.teachers]
    at = names.index(decision.teacher.name) if decision.teacher.name in names else task.at
    return PolicyRefused(f"{task.located.where('teachers', at, 'name')}: {explain(decision, others)}")


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


async def _gate(corpus: Corpus, run_id: str, decisions: Sequence[Decision], views: Sequence[Task]) -> None:
    """Note what the terms say of each teacher. Raises PolicyRefused for the first that may not be asked."""
    rows = [(run_id, one.teacher.name, one.outcome, decision_json(one)) for one in decisions]

    def operation(transaction: Transaction) -> None:
        for row in rows:
            transaction.execute(
                "insert into decisions(run_id, stage, subject, outcome, decision, decided_us)"
                " values(?, 'plan', ?, ?, ?, ?)",
                (*row, transaction.now_us),
            )

    await corpus.journal.run(operation)
    for view, decision in zip(views, decisions, strict=True):
        if decision.outcome != "allow":
            raise refusal(view, decision)


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


async def _run_row(task: Task, corpus: Corpus, decisions: Sequence[Decision]) -> tuple[str, RunFacts]:
    """The run of this very task in this corpus, started now if there is none."""
    run_id = corpus.new_run_id()
    facts = await corpus.journal.run(lambda transaction: _take_up(transaction, task, decisions, run_id))
    return facts.run_id, facts


def _take_up(transaction: Transaction, task: Task, decisions: Sequence[Decision], new_run_id: str) -> RunFacts:
    # Looked up and written in one transaction: two processes that start at once must share one run and its caps.
    rows = transaction.rows(
        "select run_id, facts from runs where spec_digest = ? order by started_us limit 1", (task.identity,)
    )
    facts = _facts(task, decisions, rows[0][0] if rows else new_run_id)
    if rows:  # what its records are made by stays, so that they can be made again
        earlier = RunFacts.from_json(rows[0][1])
        facts = replace(facts, first_tokens=earlier.first_tokens, personal=earlier.personal)
    _write_run(transaction, task, facts)
    return facts


def _facts(task: Task, decisions: Sequence[Decision], run_id: str) -> RunFacts:
    spec = task.spec
    return RunFacts(
        run_id=run_id,
        task=spec.name,
        kind="label" if spec.kind == "label" else "response",
        spec_digest=task.identity,
        prompt_digest=task.prompter.file.digest,
        licence_expression=decisions[0].licence_expression,
        licences={one.teacher.name: one.licence_expression for one in decisions[1:]},
        label_names=spec.labels.names if spec.labels else None,
        first_tokens=None,
        personal=spec.curate.pii.stored if spec.curate.pii else None,
    )


def _write_run(transaction: Transaction, task: Task, facts: RunFacts) -> None:
    transaction.execute(
        "insert into runs(run_id, task, spec_digest, spec, facts, status, started_us) values(?, ?, ?, ?, ?, 'open', ?)"
        " on conflict do update set status = 'open', spec = excluded.spec, facts = excluded.facts",
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
            "update runs set status = ?, ended_us = ? where run_id in (?, ?)",
            (status, transaction.now_us, run.run_ids[0], run.run_ids[-1]),
        )

    await run.corpus.journal.run(operation)
