"""``corpusgen plan`` and ``corpusgen run``."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import click

from corpusgen.cli.options import (
    budget_option,
    corpus_option,
    emit,
    existing_or_empty,
    json_option,
    money,
    opened,
    parse_budget,
    plan_told,
    service_at,
    service_option,
    spec_argument,
    tell_error,
    tell_other_models,
    tell_put_aside,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from corpusgen.corpus import Corpus
    from corpusgen.fields import Unit
    from corpusgen.records import Json
    from corpusgen.stages.at_service.wire import Address
    from corpusgen.stages.planning import Plan, SplitPlan, TeacherPlan
    from corpusgen.stages.runs import Run
    from corpusgen.stages.task import Task


@click.command()
@spec_argument
@corpus_option
@budget_option
@service_option
@json_option
def plan(spec: Path, corpus_folder: Path, budget: str | None, service: str | None, as_json: bool) -> None:
    """Say what a run would ask, cost and take, and whether the terms allow it. Sends nothing."""
    from corpusgen.stages.loading import load_task
    from corpusgen.stages.planning import plan as make_plan
    from corpusgen.stages.terms.deciding import refusal

    caps, lender = parse_budget(budget), service_at(service)
    task = load_task(spec)
    with existing_or_empty(corpus_folder) as corpus:
        made = asyncio.run(make_plan(task, corpus, caps=caps, service=lender))
    if not as_json:
        click.echo(_told(made))
    if made.decision.outcome != "allow":
        with existing_or_empty(corpus_folder) as corpus:
            every = [one for part in made.teachers for one in part.decisions]
            refused = refusal(corpus, task, made.decision, every)
        plan_too = made.to_json() if as_json else None
        tell_error(type(refused).__name__, str(refused), refused.exit_code, as_json=as_json, more=plan_too)
        raise click.exceptions.Exit(refused.exit_code)
    if as_json:
        emit(made.to_json())


def _told(made: Plan) -> str:
    figures = made.to_json()
    tokens, dollars = figures["tokens"], figures["microusd"]
    most = figures["requests_range"]["high"]
    lines = [
        (
            "teacher",
            f"{made.teacher}: {_verdict(made)} under {', '.join(made.decision.terms_ids) or 'no terms'}",
        ),
        ("requests", f"{_to_send(made)}; {figures['known']:,} of {figures['requests']:,} are answered already"),
        *([("", f"up to {most:,} with questions asked again")] if most > made.requests.low else []),
        ("tokens", f"{tokens['low']:,} to {tokens['high']:,}, likely {tokens['likely']:,}"),
        ("money", f"{money(dollars['low'])} to {money(dollars['high'])}, likely {money(dollars['likely'])}"),
        ("time", _seconds(figures["wall_s"])),
        *([("lane", _lane(made))] if made.lane == "batch" else []),
        *([("limits", limits)] if (limits := _limits(made)) else []),
        *([("compute", compute)] if (compute := _compute(made)) else []),
        *(
            (
                split.split,
                f"{split.read:,} read,{_dropped(split)} {split.unique:,} unique, {split.asked:,} to be asked",
            )
            for split in made.splits
            if split.read
        ),
        *(_teacher(one) for one in made.teachers if len(made.teachers) > 1),
        *_rights(made),
        *(("duty", duty) for duty in figures["duties"]),
    ]
    return "\n".join(f"{name:<9} {said}" for name, said in lines)


def _verdict(made: Plan) -> str:
    """What the terms say; of several teachers, about whom."""
    outcome, named = made.decision.outcome, made.decision.teacher.name
    return outcome if outcome == "allow" or made.teacher == named else f"{outcome}, for {named},"


def _dropped(split: SplitPlan) -> str:
    """What ``curate`` drops, with a space before and a comma behind."""
    by_check = ", ".join(f"{count:,} {check}" for check, count in sorted(split.dropped.items()))
    return f" {sum(split.dropped.values()):,} dropped ({by_check})," if by_check else ""


def _to_send(made: Plan) -> str:
    """Calls, and how many answers they ask for where that is more."""
    calls, answers = int(made.requests.low), made.to_send
    return f"{answers:,} to send" if calls >= answers else f"{calls:,} to send, for {answers:,} answers"


def _teacher(one: TeacherPlan) -> tuple[str, str]:
    """One of several teachers: its part of it all, and what the terms say of it."""
    figures = one.to_json()
    requests, tokens, dollars = figures["requests_range"], figures["tokens"], figures["microusd"]
    share = f"up to {one.to_send:,} answers" if one.role in ("fallback", "judge") else f"{one.to_send:,} answers"
    told = (
        f"{one.name}: {share}, {requests['low']:,} to {requests['high']:,} requests, likely {requests['likely']:,};"
        f" {tokens['low']:,} to {tokens['high']:,} tokens; {money(dollars['low'])} to {money(dollars['high'])}, likely"
        f" {money(dollars['likely'])}; {_seconds(figures['wall_s'])}; {one.decision.outcome}"
    )
    return one.role, told


def _rights(made: Plan) -> Iterator[tuple[str, str]]:
    """What the terms say of each teacher in each role, where that is more than one word; and what a refusal saves."""
    every = [(part, one) for part in made.teachers for one in part.decisions]
    if len(every) == 1 and every[0][1].outcome == "allow":
        return
    for part, one in every:
        rules = sorted({reason.rule for reason in one.reasons if reason.outcome != "allow"})
        yield "rights", f"{part.name} as {one.role}: {one.outcome}" + (f" ({', '.join(rules)})" if rules else "")
    for part in made.teachers:
        if part.decision.outcome != "allow":
            yield "refused", f"asking {part.name} would have cost {money(round(part.microusd.likely))}; nothing is sent"


def _seconds(range_: dict[str, int] | None) -> str:
    if range_ is None:
        return "not known before this teacher's first answers"
    return f"{range_['low']:,} to {range_['high']:,} s, likely {range_['likely']:,} s"


def _lane(made: Plan) -> str:
    price = "at the price of batches" if made.batch_priced else "no price of batches is known, the usual one is assumed"
    return f"in batches, {price}; the provider takes up to a day for each"


def _limits(made: Plan) -> str | None:
    """The limits, and whether they or the answers decide how long it takes."""
    limits = made.limits.model_dump(exclude_none=True)
    if not limits or not made.to_send or made.lane != "live":
        return None
    told = ", ".join(f"{value:,g} {name.replace('_', ' ')}" for name, value in limits.items())
    ground = "how long answers take" if made.slowest == "latency" else made.slowest.replace("_", " ")
    return f"{told}; {made.in_flight} calls at once; likely decided by {ground}"


def _compute(made: Plan) -> str | None:
    """Processor time of one's own, and what it is worth."""
    if made.compute_s is not None and not made.compute_s.high:
        return None
    told = _seconds(None if made.compute_s is None else made.compute_s.to_json())
    if made.compute_microusd is None:
        return told
    low, high = (money(round(figure)) for figure in (made.compute_microusd.low, made.compute_microusd.high))
    return f"{told}; worth {low} to {high}, which nobody bills"


@click.command()
@spec_argument
@corpus_option
@budget_option
@click.option("--plan", "plan_first", is_flag=True, help="Plan first, and say afterwards how wrong the plan was.")
@service_option
@click.option("--cancel-batches", is_flag=True, help="Ask nothing: end this task's batches, keep what they answered.")
@click.option("--quiet", "-q", is_flag=True, help="No progress on stderr.")
@json_option
def run(
    spec: Path,
    corpus_folder: Path,
    budget: str | None,
    plan_first: bool,
    service: str | None,
    cancel_batches: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Ask for everything that is not answered yet; takes up by itself where it stopped."""
    from corpusgen.cli.board import work
    from corpusgen.pipeline import end_batches, run_task
    from corpusgen.stages.loading import load_task
    from corpusgen.stages.watching import Board

    caps, lender = parse_budget(budget), service_at(service)
    task = load_task(spec)
    opened_runs: list[Run] = []
    board = Board(current=lambda: opened_runs[0] if opened_runs else None)
    if cancel_batches:
        with opened(corpus_folder) as corpus:
            ended = work(board, lambda: end_batches(task, corpus, caps=caps, opened=opened_runs), quiet=quiet)
        emit(ended) if as_json else click.echo(f"{ended['batches']} batches ended; what they answered is kept")
        return
    with opened(corpus_folder) as corpus:
        made = _planned(task, corpus, caps, lender) if plan_first else None
        found = work(
            board,
            lambda: run_task(task, corpus, caps=caps, watch=board.watch, opened=opened_runs, service=lender),
            quiet=quiet,
        )
        came_to = _came_to(made, corpus, opened_runs[0].run_id) if made else {}
    tell_other_models(found["other_models"])
    tell_put_aside(found["put_aside"])
    if as_json:
        emit(found | ({"plan": came_to} if made else {}))
    else:
        shared = f", {found['elsewhere']} from other corpora" if found["elsewhere"] else ""
        sent = f"{found['records']} records, {found['requests']} requests sent, {found['known']} answers known"
        judged = f", {found['judged']} judged" if "judged" in found else ""
        judged += f" ({found['unscored']} without a score)" if found.get("unscored") else ""
        click.echo(f"{sent}{shared}{judged}")
        for line in plan_told(came_to):
            click.echo(line)


def _planned(task: Task, corpus: Corpus, caps: Mapping[Unit, int], service: Address | None) -> Plan:
    from corpusgen.stages.planning import plan as make_plan

    return asyncio.run(make_plan(task, corpus, caps=caps, service=service))


def _came_to(made: Plan, corpus: Corpus, run_id: str) -> dict[str, Json]:
    from corpusgen.stages.report.hindsight import plan_json, plan_lines

    return plan_json(plan_lines(made, corpus, run_id))
