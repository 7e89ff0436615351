"""``corpusgen budget show``, ``set``, ``reset-clock`` and ``export``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from corpusgen.cli.look import balance_line
from corpusgen.cli.options import corpus_option, counted, emit, existing, is_there, json_option, opened, parse_caps
from corpusgen.errors import UsageError

if TYPE_CHECKING:
    from corpusgen.fields import Per


@click.group()
def budget() -> None:
    """Caps on a corpus, a teacher, a user or a run, and what has been used of them.

    Caps live in the corpus, in its journal: another corpus has caps of its own, and every process that works on this
    one is held to these.
    """


@budget.command()
@corpus_option
@json_option
def show(corpus_folder: Path, as_json: bool) -> None:
    """Every scope with what is settled, promised and unconfirmed, and its caps."""
    with existing(corpus_folder, reading=True) as corpus:
        from corpusgen.stages.looking import budget_status

        found = budget_status(corpus)
    if as_json:
        emit(found)
        return
    click.echo(f"caps live in the corpus: {found['caps_live_in']}")
    for one in found["balances"]:
        click.echo(balance_line(one))


@budget.command(name="set")
@click.argument("scope")
@click.argument("caps", metavar="UNIT=VALUE[,UNIT=VALUE]")
@click.option(
    "--per",
    type=click.Choice(["total", "day", "month"]),
    default="total",
    show_default=True,
    help="What the caps hold for; days and months are those of UTC.",
)
@corpus_option
@json_option
def set_(scope: str, caps: str, per: Per, corpus_folder: Path, as_json: bool) -> None:
    """Set caps: SCOPE is corpus, service, teacher:NAME, user:NAME, token:ID or run:ID; units are usd, tokens, requests,
    compute_s, wall_s.

    UNIT=none takes a cap away. A cap below what is used already is allowed: nothing more is sent then.
    """
    wanted, made = parse_caps(caps, "caps", none=True), not is_there(corpus_folder)
    with opened(corpus_folder) as corpus:
        from corpusgen.stages.budgeting import set_budget
        from corpusgen.stages.looking import budget_status, teachers_seen

        done = set_budget(corpus, scope, wanted, per=per)
        found = budget_status(corpus)
        seen = teachers_seen(corpus)
    bound = [one for one in found["balances"] if one["scope"].partition("@")[0] == scope or one["scope"] == scope]
    if made:
        click.echo(f"note: made a new corpus in {str(corpus_folder)!r}", err=True)
    kind, _, name = scope.partition(":")
    if kind == "teacher" and name not in seen:
        known = f"; seen: {', '.join(seen)}" if seen else ""
        click.echo(f"note: nothing here has used {name!r} yet{known}", err=True)
    for warning in done.warnings:
        click.echo(f"warning: {warning}", err=True)
    if as_json:
        emit(found | {"balances": bound, "warnings": list(done.warnings)})
        return
    for one in bound:
        click.echo(balance_line(one))


@budget.command(name="reset-clock")
@click.option("--by", default="", metavar="NAME", help="Whose word it is.")
@click.option("--reason", default="", metavar="TEXT", help="On what ground.")
@corpus_option
@json_option
def reset_clock(by: str, reason: str, corpus_folder: Path, as_json: bool) -> None:
    """Let caps per day and month go by the clock again, after calls that were made while it was ahead.

    Those calls stay booked in the days they were made in; who took the time back, and why, is a row in the corpus.
    """
    with existing(corpus_folder) as corpus:
        from corpusgen.stages.budgeting import reset_to_clock

        done = reset_to_clock(corpus, by=by, reason=reason)
    if as_json:
        emit({"reset": None if done is None else asdict(done)})
        return
    ahead = "" if done is None else f" again; call {done.call_id} was ahead of it"
    click.echo(f"the ledger goes by the clock{ahead}")


@budget.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@corpus_option
@json_option
def export(file: Path, corpus_folder: Path, as_json: bool) -> None:
    """Write the ledger to FILE for the books: every call, every balance and every cap; .csv, .jsonl or .parquet.

    FILE.sha256 beside it is what sha256sum -c reads. corpusgen verify --ledger FILE finds any change, and says in which
    line the file and the corpus disagree.
    """
    if not file.absolute().parent.is_dir():
        raise UsageError(
            f"FILE: {str(file)!r} cannot be written: there is no folder {str(file.parent)!r}; make it first"
        )
    with existing(corpus_folder, reading=True) as corpus:
        from corpusgen.stages.ledger_export import export_ledger

        made = export_ledger(corpus, file)
    if as_json:
        emit({"file": str(made.path), "sha256": made.sha256, "rows": dict(made.rows)})
        return
    rows = ", ".join(counted(number, entry) for entry, number in made.rows.items() if entry not in ("export", "time"))
    click.echo(f"{made.path}: {rows}; sha256 in {made.path.name}.sha256")
