"""``corpusgen reconcile``: what became of the calls whose outcome nobody knew."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from corpusgen.cli.options import corpus_option, counted, emit, existing, json_option, money
from corpusgen.errors import UsageError

if TYPE_CHECKING:
    from corpusgen.corpus import Corpus
    from corpusgen.stages.reconciling import Reconciled


@click.command()
@click.argument("export", required=False, type=click.Path(path_type=Path, dir_okay=False))
@click.option("--provider", metavar="NAME", help="Whose export it is, where several were asked.")
@click.option(
    "--covers", metavar="FROM/TO", help="Days (UTC) the export covers, such as 2026-11-01/2026-11-30; else its times."
)
@click.option(
    "--accept",
    "accepted",
    metavar="CALL_IDS",
    help="Calls to settle on a person's word: 12,15,16; of one above its bound, to ask its teacher again.",
)
@click.option("--all", "every", is_flag=True, help="As --accept, for every unconfirmed call.")
@click.option(
    "--unbilled", is_flag=True, help="With --accept: they were not billed. Else they count at the worst case."
)
@click.option("--by", default="", metavar="NAME", help="With --accept: whose word it is.")
@click.option("--reason", default="", metavar="TEXT", help="With --accept: on what ground.")
@corpus_option
@json_option
def reconcile(
    export: Path | None,
    provider: str | None,
    covers: str | None,
    accepted: str | None,
    every: bool,
    unbilled: bool,
    by: str,
    reason: str,
    corpus_folder: Path,
    as_json: bool,
) -> None:
    """Settle calls whose outcome is unknown, by a provider's usage export (CSV, JSON, JSON Lines) or a person's word.

    An export needs a column that names the request (request_id, id, ... or request_key) and one with the cost in
    dollars (cost_usd, amount, ... or cost_microusd); tokens and a time are used where they are. What it bills is
    confirmed at its figure, what it does not bill is freed. Without EXPORT and --accept: lists the calls. Every change
    is a row in the corpus with its source; doing it twice changes nothing more.
    """
    word = every or accepted is not None
    if word and export is not None:
        raise UsageError("EXPORT and --accept exclude each other: use one after the other")
    if unbilled and not word:
        raise UsageError("--unbilled goes with --accept or --all")
    with existing(corpus_folder, reading=export is None and not word) as corpus:
        if export is None and not word:
            _list(corpus, as_json=as_json)
            return
        if export is not None:
            from corpusgen.stages.reconciling import reconcile as by_export
            from corpusgen.store.usage_export import NOTHING_FOUND, read_export

            period, told = None if covers is None else _period(covers), read_export(export)
            if period is None and not told.lines:
                raise UsageError(
                    f"{export}: {NOTHING_FOUND}. If nothing was billed, say of which days: --covers FROM/TO"
                )
            found = by_export(corpus, told, provider=provider, covers=period)
        else:
            from corpusgen.stages.reconciling import accept

            found = accept(corpus, None if every else _ids(accepted or ""), by=by, reason=reason, unbilled=unbilled)
    _tell(found, as_json=as_json)


def _tell(found: Reconciled, *, as_json: bool) -> None:
    figures = found.to_json()
    if as_json:
        emit(figures)
        return
    click.echo(f"confirmed {counted(len(found.confirmed), 'call')} at {money(figures['confirmed_microusd'])}")
    freed = f"{counted(len(found.freed), 'call')} {'was' if len(found.freed) == 1 else 'were'} not billed"
    click.echo(f"freed {money(figures['freed_microusd'])}; {freed}")
    click.echo(f"{counted(found.kept, 'call')} still unconfirmed")
    for note in found.notes:
        click.echo(f"note: {note}", err=True)


def _list(corpus: Corpus, *, as_json: bool) -> None:
    from corpusgen.stages.reconciling import unconfirmed

    calls = unconfirmed(corpus)
    if as_json:
        emit({"unconfirmed": calls})
        return
    for call in calls:
        click.echo(f"{call['call_id']:>6} {call['teacher']} {money(call['microusd'])} {call['error'] or ''}")
    click.echo(f"{counted(len(calls), 'call')} unconfirmed")


def _ids(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise UsageError(f"--accept: {text!r} is not a list of call ids such as 12,15,16") from error


def _period(text: str) -> tuple[int, int]:
    """The first and the last microsecond of the days between two dates."""
    try:
        first, last = (datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=UTC) for day in text.split("/"))
    except ValueError as error:
        raise UsageError(f"--covers: {text!r} is not FROM/TO, such as 2026-11-01/2026-11-30") from error
    if last < first:
        raise UsageError(f"--covers: {text!r} ends before it begins")
    return round(first.timestamp()) * 10**6, round((last + timedelta(days=1)).timestamp()) * 10**6 - 1
