"""Opening a run: may we ask, whom, under which caps, and where did we leave off?"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import cache
from itertools import chain
from typing import TYPE_CHECKING, Final, Literal

from corpusgen.assemble import RunFacts
from corpusgen.budget.ledger import Cap, Ledger
from corpusgen.budget.prices import Rate
from corpusgen.corpus import Corpus
from corpusgen.elsewhere import Elsewhere, Source, Sources
from corpusgen.errors import LocatedError, UsageError
from corpusgen.fanout.asker import Asker
from corpusgen.fields import Unit
from corpusgen.journal import Transaction, owner_alive
from corpusgen.provenance.events import note_event
from corpusgen.provenance.policy import Decision
from corpusgen.stages.lanes import lane_of
from corpusgen.stages.parents import check_parents
from corpusgen.stages.runs import Member, Run, caps_of, judge_run_id
from corpusgen.stages.task import Task, connect, followers, price_of, request_for, role_of
from corpusgen.stages.terms.ancestry import decisions_above
from corpusgen.stages.terms.deciding import decision_for, decisions_for, note_decisions, registry_of, with_terms_of
from corpusgen.stages.terms.gating import gate
from corpusgen.stages.terms.permitting import Permit, Stamp, day_of, state_of
from corpusgen.store.answers import Card, store_card
from corpusgen.store.shared_cache import SharedCache, open_shared_cache
from corpusgen.teachers.labels import check_first_tokens
from corpusgen.teachers.limits import Limit
from corpusgen.teachers.pacing import Pacer
from corpusgen.teachers.shares import shared_pace
from corpusgen.teachers.teacher import Teacher, TeacherCard

if TYPE_CHECKING:  # a run that works by itself does without an HTTP client
    from corpusgen.stages.at_service.running import AtService
    from corpusgen.stages.at_service.wire import Address

BEAT_S = 1.0
"""How often the time that passed is booked; sooner when a cap on it is nearly used up."""
SHORTEST_BEAT_S = 0.02


@asynccontextmanager
async def open_run(
    task: Task,
    corpus: Corpus,
    *,
    caps: Mapping[Unit, int] | None = None,
    on_failure: Literal["raise", "drop"] = "raise",
    scopes: tuple[str, ...] = (),
    timed: bool = True,
    service: Address | None = None,
) -> AsyncIterator[Run]:
    """A run of a task, new or taken up where it stopped.

    ``caps`` replace those of the spec, unit by unit; ``scopes`` are more places that its calls count for. Without
    ``timed`` the time that passes is not booked on it: whoever keeps it open while nobody asks books what is worked.
    With a ``service`` each call is paid out of what that lends, besides the caps here, and answers are shared with it.
    Raises PolicyRefused, PriceUnknown, UnsupportedParameter or UnknownTeacher before anything is sent.
    """
    today, task = corpus.clock().date(), with_terms_of(corpus, task)
    check_parents(corpus, task)
    views = task.of_each_teacher if task.judging is None else (*task.of_each_teacher, task.judging)
    rates = [price_of(view, today) for view in views]
    binding = caps_of(task, caps or {})
    for view, rate in zip(views, rates, strict=True):
        _check_capped(view, corpus, rate, binding, scopes)
    async with AsyncExitStack() as stack:
        # What a free teacher says costs only time, and its processor time is to be measured where it is asked.
        shared = None if all(rate.free for rate in rates) else open_shared_cache(os.environ)
        if shared is not None:
            stack.push_async_callback(shared.aclose)
        teachers = [await _connected(stack, view, corpus) for view in views]
        _check_unlike(views, teachers)
        decided = _Decided.of(corpus, task, views, teachers)
        run_id, facts = await _run_row(task, corpus, decided.first[: len(task.spec.teachers)])
        lent = None if service is None else await _at_service(stack, service, corpus, task)
        ledger = Ledger(corpus.journal) if lent is None else lent.ledger
        await ledger.recover()
        await ledger.replace_caps(f"run:{run_id}", (replace(cap, scope=f"run:{run_id}") for cap in binding))
        opened = _Opened(
            corpus=corpus,
            ledger=ledger,
            shared=shared,
            on_failure=on_failure,
            permit=await decided.permit(run_id),
            scopes=scopes,
            service=lent,
        )
        members, judging = await _everybody(opened, task, teachers, decided, facts)
        every = [*members, *([judging] if judging else [])]
        if timed:
            booked = tuple(dict.fromkeys(scope for member in every for scope in member.asker.scopes))
            await stack.enter_async_context(_time_booked(ledger, corpus, run_id, booked))
        for name, pacer in {_pace_name(member.asker): member.asker.pacer for member in every}.items():
            await stack.enter_async_context(shared_pace(corpus.journal, pacer, name))
        asker = _together(members)
        lane = lane_of(task, corpus, asker)
        stack.push_async_callback(lane.aclose)
        if lent is not None:
            lane = replace(lane, batcher=None)  # a batch would be handed over whole, paid out of no lease
        yield Run(
            task=task, corpus=corpus, run_id=run_id, members=tuple(members), asker=asker, lane=lane, judge=judging
        )


@dataclass(frozen=True, kw_only=True)
class _Decided:
    """What the terms say of each teacher of a run, before it begins."""

    corpus: Corpus
    task: Task
    views: Sequence[Task]
    teachers: Sequence[Teacher]
    state: Stamp
    of_each: Sequence[tuple[Decision, ...]]
    """For each teacher a decision about each of its roles."""

    @classmethod
    def of(cls, corpus: Corpus, task: Task, views: Sequence[Task], teachers: Sequence[Teacher]) -> _Decided:
        state = state_of(corpus, task)
        pairs = zip(views, teachers, strict=True)
        of_each = [tuple(decisions_for(corpus, view, teacher.card, day_of(state))) for view, teacher in pairs]
        return cls(corpus=corpus, task=task, views=views, teachers=teachers, state=state, of_each=of_each)

    @property
    def first(self) -> list[Decision]:
        """About the first role of each."""
        return [of_each_role[0] for of_each_role in self.of_each]

    async def permit(self, run_id: str) -> Permit:
        """The right to ask all of them. Raises PolicyRefused."""
        above = await asyncio.to_thread(decisions_above, self.corpus, self.task)
        granted = [*chain.from_iterable(self.of_each), *above]
        await gate(self.corpus, run_id, self.task, granted)
        cards = [teacher.card for teacher in self.teachers]
        return Permit(
            corpus=self.corpus,
            task=self.task,
            run_id=run_id,
            decide=lambda: _decide_all(self.corpus, self.task, self.views, cards),
            granted=granted,
            state=self.state,
        )


async def _everybody(
    opened: _Opened, task: Task, teachers: Sequence[Teacher], decided: _Decided, facts: RunFacts
) -> tuple[list[Member], Member | None]:
    """The teachers of a run, and its judge where it has one, who comes last among those that are connected."""
    members = [
        Member(task=view, decision=decision, asker=await _asker(opened, view, teacher, decision, facts))
        for view, teacher, decision in zip(task.of_each_teacher, teachers, decided.first, strict=False)
    ]
    if task.judging is None:
        return members, None
    return members, await _judge(opened, task.judging, teachers[-1], decided.first[-1], members)


async def _at_service(stack: AsyncExitStack, service: Address, corpus: Corpus, task: Task) -> AtService:
    from corpusgen.stages.at_service.running import (  # with a client that others do without
        at_service,
        check_live,
        label_of,
    )

    check_live(task)
    return await stack.enter_async_context(at_service(service, corpus, label_of(task)))


def _decide_all(
    corpus: Corpus, task: Task, views: Sequence[Task], cards: Sequence[TeacherCard]
) -> tuple[Decision, ...]:
    """What the terms say now of each teacher in each role, and of what the sources came from."""
    today = corpus.clock().date()
    decided = (decisions_for(corpus, view, card, today) for view, card in zip(views, cards, strict=True))
    return (*chain.from_iterable(decided), *decisions_above(corpus, with_terms_of(corpus, task)))


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


def _lasting(task: Task, corpus: Corpus) -> tuple[str, ...]:
    """The scopes beside the run's own that a teacher's calls count for."""
    return "corpus", f"teacher:{task.teacher.name}", f"user:{corpus.actor}"


def _check_capped(task: Task, corpus: Corpus, rate: Rate, binding: Sequence[Cap], scopes: tuple[str, ...]) -> None:
    """Nothing that costs money is asked without a cap in dollars."""
    lasting = (*_lasting(task, corpus), *scopes)
    capped = any(cap.unit == "microusd" for cap in binding) or _money_capped(corpus, lasting)
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
    permit: Permit
    scopes: tuple[str, ...]
    """Where calls count beside the usual places."""
    service: AtService | None = None


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
        scopes=(f"run:{facts.run_id}", *_lasting(task, corpus), *opened.scopes),
        timeout_s=task.teacher.timeout_s,
        compute_us=round(task.teacher.timeout_s * 1_000_000) if teacher.card.route == "self_hosted" else 0,
        in_flight=in_flight,
        on_failure=opened.on_failure,
        elsewhere=_elsewhere(task, opened, teacher, decision, None if rate.free else opened.shared, facts.run_id),
        rate_on=rate_on,
        pacer=pacer_of(task),
        after=followers(task.spec, task.at),
        role=role_of(task.spec, task.at),
        request_for=lambda item, sample: request_for(task, teacher.card, item, sample),
        at_once=asyncio.Semaphore(in_flight),
        blocked=task.blocked,
        permit=opened.permit,
        put_aside=_put_aside(task, opened, card),
        barred=_barred(task, opened, teacher),
    )


def _put_aside(task: Task, opened: _Opened, card: Card) -> Callable[[str], str | None]:
    """Why answers by a model are put aside, by the terms and the day on which they come."""

    @cache
    def strange_at(served: str, now: Stamp) -> str | None:
        from corpusgen.stages.terms.quarantine import strange  # which an answered run has no use for

        try:
            registry = registry_of(opened.corpus, task)
        except LocatedError:  # half saved, perhaps; an answer that was paid for is kept, and the permit ends the run
            registry = task.registry
        return strange(registry, card, served, day_of(now))

    return lambda served: strange_at(served, opened.permit.now)


def _barred(task: Task, opened: _Opened, teacher: Teacher) -> Callable[[Card], str | None]:
    """Why answers that were given under other terms may not be used for this task, by the terms of the moment (R14)."""

    @cache
    def barred_at(card: Card, now: Stamp) -> str | None:
        from corpusgen.provenance.explaining import explain
        from corpusgen.stages.terms.quarantine import forbidden  # which few runs have a use for

        found = decision_for(opened.corpus, task, teacher.card, day_of(now), original_terms=card.terms_ids)
        if forbidden(found) is None:
            return None
        return f"{_R14} ({', '.join(card.terms_ids) or 'none'}): {explain(found)}"

    return lambda card: barred_at(card, opened.permit.now)


_R14: Final = (
    "this was answered before, and the terms of that time decide about its answer (R14); it is not asked anew, but"
    " another sample of it may be. Those terms"
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
    task: Task, opened: _Opened, teacher: Teacher, decision: Decision, shared: SharedCache | None, run_id: str
) -> Elsewhere | None:
    """What other corpora were answered, if today's policy allows its terms and they ask for no more than this run's."""
    corpus, promised = opened.corpus, {(duty.kind, duty.applies_to) for duty in decision.duties}

    @cache
    def judged_at(origin: Card, now: Stamp) -> Decision:
        return decision_for(corpus, task, teacher.card, day_of(now), original_terms=origin.terms_ids)

    def judged(origin: Card) -> Decision:
        return judged_at(origin, opened.permit.now)

    def usable(origin: Card) -> bool:
        found = judged(origin)
        same = (found.terms_set_id, found.licence_expression) == (origin.terms_set_id, decision.licence_expression)
        asked = {(duty.kind, duty.applies_to) for duty in found.duties}
        return found.outcome == "allow" and same and asked <= promised

    def note(transaction: Transaction, origins: Collection[Card]) -> None:
        decisions = [judged(origin) for origin in origins]
        note_decisions(transaction, run_id, "request", decisions, only_changes=True)

    at = opened.service
    sources: list[Source] = [] if at is None else [at.answers]
    sources += [] if shared is None else [shared]
    if not sources:
        return None
    return Elsewhere(
        cache=sources[0] if len(sources) == 1 else Sources(each=sources),
        usable=usable,
        journal=corpus.journal,
        teacher=teacher,
        note=note,
        claims=None if at is None else at.claims,
    )


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
    else:
        planned = {"run_id": facts.run_id, "task": task.spec.name, "spec_digest": task.identity}
        note_event(transaction, "run_planned", planned)
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


async def judge_answers_by_terms(run: Run) -> None:
    """Ask today's policy about what came back: by which models (R13), and what is known from other terms (R14).

    What is denied is counted, and what is decided is written down where it is new.
    """
    decisions: list[Decision] = []
    for member in run.everybody:
        decisions += _of_models(run, member)
        for card, records in _under_other_terms(run, member):
            on, terms = run.corpus.clock().date(), card.terms_ids
            from corpusgen.stages.terms.quarantine import forbidden

            found = decision_for(run.corpus, member.task, member.asker.teacher.card, on, original_terms=terms)
            decisions.append(found)
            if (why := forbidden(found)) is not None:
                member.asker.counts.quarantined[why] += records
    if decisions:
        await run.corpus.journal.run(
            lambda transaction: note_decisions(transaction, run.run_id, "request", decisions, only_changes=True)
        )


def _of_models(run: Run, member: Member) -> Iterator[Decision]:
    """A decision about each model that answered under another name than was asked for."""
    card, on, named = member.asker.card, run.corpus.clock().date(), member.asker.teacher.card.name
    for teacher, served in member.asker.counts.models:
        if teacher == named:
            from corpusgen.stages.terms.quarantine import about_model

            yield about_model(registry_of(run.corpus, run.task), member.decision, card, served, on)


def _under_other_terms(run: Run, member: Member) -> list[tuple[Card, int]]:
    """Cards of this very teacher with other terms, and how many records of the run were answered under each."""
    mine, query = member.asker.card, run.corpus.journal.query
    every = [Card.from_json(row[0]) for row in query("select card from cards")]
    others = [
        card
        for card in every
        if (card.identity, card.model) == (mine.identity, mine.model) and card.terms_set_id != mine.terms_set_id
    ]
    if not others:
        return []
    run_id = member.asker.facts.run_id
    counts = dict(
        query(
            "select a.card_id, count(*) from records r join answers a using (request_key) where r.run_id = :run"
            " or r.record_id in (select record_id from reuses where run_id = :run) group by 1",
            {"run": run_id},
        )
    )
    return [(card, counts[card.card_id]) for card in others if card.card_id in counts]


async def end_run(run: Run, status: Literal["complete", "stopped"]) -> None:
    """Note how a run ended; one that another process is still asking for has not stopped."""

    def operation(transaction: Transaction) -> None:
        if status == "stopped" and _others_are_asking(transaction, run):
            return
        transaction.execute(
            "update runs set status = ?, ended_us = ? where run_id in (?, ?)",
            (status, transaction.now_us, run.run_ids[0], run.run_ids[-1]),
        )

    await run.corpus.journal.run(operation)


def _others_are_asking(transaction: Transaction, run: Run) -> bool:
    rows = transaction.rows(
        "select pid, boot_id, start_ticks from owners where owner_id != ? and owner_id in"
        " (select owner_id from calls where state = 'promised' and run_id in (?, ?))",
        (run.corpus.journal.owner_id, run.run_ids[0], run.run_ids[-1]),
    )
    return any(owner_alive(*row) for row in rows)
