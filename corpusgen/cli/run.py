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
    spec_argument,
    tell_error,
)

if TYPE_CHECKING:
    from corpusgen.stages.opening import Run
    from corpusgen.stages.planning import Plan


@click.command()
@spec_argument
@corpus_option
@budget_option
@json_option
def plan(spec: Path, corpus_folder: Path, budget: str | None, as_json: bool) -> None:
    """Say what a run would ask, cost and take, and whether the terms allow it. Sends nothing."""
    from corpusgen.stages.opening import refusal
    from corpusgen.stages.planning import plan as make_plan
    from corpusgen.stages.task import load_task

    caps = parse_budget(budget)
    task = load_task(spec)
    with existing_or_empty(corpus_folder) as corpus:
        made = asyncio.run(make_plan(task, corpus, caps=caps))
    if not as_json:
        click.echo(_told(made))
    if made.decision.outcome != "allow":
        refused = refusal(task, made.decision)
        plan_too = made.to_json() if as_json else None
        tell_error(type(refused).__name__, str(refused), refused.exit_code, as_json=as_json, more=plan_too)
        raise click.exceptions.Exit(refused.exit_code)
    if as_json:
        emit(made.to_json())


def _told(made: Plan) -> str:
    figures = made.to_json()
    tokens, dollars, wall = figures["tokens"], figures["microusd"], figures["wall_s"]
    most = figures["requests_range"]["high"]
    seconds = f"{wall['low']} to {wall['high']} s, likely {wall['likely']} s" if wall else None
    lines = [
        (
            "teacher",
            f"{made.teacher}: {made.decision.outcome} under {', '.join(made.decision.terms_ids) or 'no terms'}",
        ),
        ("requests", f"{made.to_send:,} to send; {figures['known']:,} of {figures['requests']:,} are answered already"),
        *([("", f"up to {most:,} with questions asked again")] if most > made.to_send else []),
        ("tokens", f"{tokens['low']:,} to {tokens['high']:,}, likely {tokens['likely']:,}"),
        ("money", f"{money(dollars['low'])} to {money(dollars['high'])}, likely {money(dollars['likely'])}"),
        ("time", seconds or "not known before this teacher's first answers"),
        *(
            (split.split, f"{split.read:,} read, {split.unique:,} unique, {split.asked:,} to be asked")
            for split in made.splits
            if split.read
        ),
        *(("duty", duty) for duty in figures["duties"]),
    ]
    return "\n".join(f"{name:<9} {said}" for name, said in lines)


@click.command()
@spec_argument
@corpus_option
@budget_option
@click.option("--quiet", "-q", is_flag=True, help="No progress on stderr.")
@json_option
def run(spec: Path, corpus_folder: Path, budget: str | None, quiet: bool, as_json: bool) -> None:
    """Ask for everything that is not answered yet; takes up by itself where it stopped."""
    from corpusgen.cli.board import Board, work
    from corpusgen.pipeline import run_task
    from corpusgen.stages.task import load_task

    caps = parse_budget(budget)
    task = load_task(spec)
    opened_runs: list[Run] = []
    board = Board(current=lambda: opened_runs[0] if opened_runs else None)
    with opened(corpus_folder) as corpus:
        found = work(
            board, lambda: run_task(task, corpus, caps=caps, watch=board.watch, opened=opened_runs), quiet=quiet
        )
    if as_json:
        emit(found)
    else:
        click.echo(f"{found['records']} records, {found['requests']} requests sent, {found['known']} answers known")
