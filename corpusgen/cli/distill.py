"""``corpusgen distill``: the main job."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from corpusgen.cli.options import (
    budget_option,
    corpus_option,
    emit,
    json_option,
    money,
    opened,
    parse_budget,
    plan_told,
    service_at,
    service_option,
    spec_argument,
    tell_other_models,
    tell_put_aside,
)
from corpusgen.errors import PartialFailure


@click.command()
@spec_argument
@corpus_option
@budget_option
@service_option
@click.option("--report", type=click.Path(path_type=Path, dir_okay=False), help="Write the report here.")
@click.option("--quiet", "-q", is_flag=True, help="No progress on stderr.")
@json_option
def distill(
    spec: Path,
    corpus_folder: Path,
    budget: str | None,
    service: str | None,
    report: Path | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Plan, run, select, seal, train, evaluate and report, taking up whatever is there already."""
    from corpusgen.cli.board import work
    from corpusgen.pipeline import Distillation
    from corpusgen.pipeline import distill as the_job
    from corpusgen.stages.loading import load_task
    from corpusgen.stages.watching import Board

    caps, lender = parse_budget(budget), service_at(service)
    task = load_task(spec)
    with opened(corpus_folder) as corpus:
        job = Distillation(task=task, corpus=corpus)
        board = Board(current=lambda: job.run)
        found = work(
            board, lambda: the_job(job, caps=caps, watch=board.watch, report=report, service=lender), quiet=quiet
        )
    tell_other_models(found["other_models"])
    tell_put_aside(found["put_aside"])
    if as_json:
        emit(found)
    else:
        click.echo(_told(found))
    if found["drops"]:
        raise click.exceptions.Exit(PartialFailure.exit_code)


def _told(found: dict[str, object]) -> str:
    lines = [f"{found['task']}: {found['requests']} requests sent, {found['known']} answers known"]
    if found["elsewhere"]:
        lines[0] += f", {found['elsewhere']} from other corpora"
    if "retention" not in found:
        if found["student"]:
            lines.append("  student   trained, but there is no gold file to say how good it is; add seeds.gold")
    elif not found["teacher_accuracy"]:
        lines.append(f"  teacher   never right on {found['gold_items']} gold items, so there is nothing to keep")
    else:
        lines += [
            f"  teacher   {found['teacher_accuracy']:.3f} right on {found['gold_items']} gold items",
            f"  student   {found['student_accuracy']:.3f}, trained on {found['labels']} labels",
            (
                f"  keeps     {found['retention']:.1%} of the teacher"
                f" (95 % interval {found['retention_low']:.1%} to {found['retention_high']:.1%})"
            ),
        ]
    if found.get("cost_ratio"):
        lines.append(
            f"  cost      {found['student_cpu_ms']:.4f} ms an item against {found['teacher_cpu_ms']:.0f} ms:"
            f" {found['cost_ratio']:,.0f} times cheaper"
        )
    lines += _payback(found)
    spent = found["spent_microusd"]
    assert isinstance(spent, int)
    lines.append(f"  spent     {money(spent)}, {found['tokens']:,} tokens, in {found['wall_s']:.0f} s")
    if found["compute_s"]:
        lines.append(
            f"  compute   {found['compute_s']:,.1f} s of your own processor{_worth(found['compute_microusd'])}"
        )
    plan, drops = found["plan"], found["drops"]
    assert isinstance(plan, dict)
    lines += plan_told(plan)
    if drops:
        assert isinstance(drops, dict)
        why = ", ".join(f"{items} {reason}" for reason, items in drops.items())
        lines.append(f"  missing   answers to {sum(drops.values())} items: {why}; the same command asks for them again")
    lines.append(f"  dataset   {found['dataset']}")
    lines.append(f"  report    {found['report']}")
    return "\n".join(lines)


def _worth(microusd: object) -> str:
    return f", worth {money(microusd)}, which nobody bills" if isinstance(microusd, int) else ""


def _payback(found: dict[str, object]) -> Iterator[str]:
    """What an answer of each costs, and when the student has paid off."""
    even = found.get("break_even_requests")
    teacher, student = found.get("teacher_microusd_per_item"), found.get("student_microusd_per_item")
    if isinstance(teacher, float) and isinstance(student, float):
        a_thousand = f"{money(round(1000 * student))} a thousand items against {money(round(1000 * teacher))}"
        when = f"after {even:,} items" if isinstance(even, int) else "never"
        yield f"  pays off  {when}: {a_thousand}"
