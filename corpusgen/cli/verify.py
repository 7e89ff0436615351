"""``corpusgen verify`` and ``gc``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from corpusgen.cli.options import corpus_option, counted, emit, existing, harmless, json_option, tell_error
from corpusgen.errors import CorpusDamaged, UsageError

if TYPE_CHECKING:
    from corpusgen.stages.finding import Finding
    from corpusgen.stages.lineage.ledger_checks import LedgerChecked


@click.command()
@corpus_option
@click.option(
    "--repair", is_flag=True, help="Write damaged shards, MANIFEST.json and catalog again; keep the old files aside."
)
@click.option(
    "--ledger",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Check a file of corpusgen budget export instead.",
)
@click.option(
    "--events",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Check a file of corpusgen checkpoint --export instead; no corpus is needed.",
)
@click.option(
    "--checkpoint",
    "earlier",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A checkpoint that was kept elsewhere: the ledger must go on from it.",
)
@click.option(
    "--key",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The public key that you were told by another way: only what it signed counts as signed.",
)
@json_option
def verify(
    corpus_folder: Path,
    repair: bool,
    ledger: Path | None,
    events: Path | None,
    earlier: Path | None,
    key: Path | None,
    as_json: bool,
) -> None:
    """Check everything against the journal: money, requests, shards, manifest, sealed datasets, the signed ledger.

    Changes nothing without --repair. That writes again, from the stored replies, what is lost or damaged, if it comes
    out with the bytes that were committed; the damaged files go to the folder damaged/ in the corpus.
    """
    if repair and ledger is not None:
        raise UsageError("--repair and --ledger exclude each other: use one after the other")
    if events is not None and (repair or ledger is not None):
        raise UsageError("--events checks a file alone: use it without --repair and --ledger")
    if ledger is not None and (earlier is not None or key is not None):
        raise UsageError(
            "--checkpoint and --key are about the ledger of events, --ledger about the books: use one after the other"
        )
    if ledger is not None:
        _verify_ledger(corpus_folder, ledger, as_json=as_json)
        return
    if events is not None:
        _verify_events(events, earlier, key, as_json=as_json)
        return
    with existing(corpus_folder, reading=not repair) as corpus:
        from corpusgen.stages.lineage.ledger_checks import kept_checkpoint, key_of
        from corpusgen.stages.verifying import orphans, verified

        repaired: list[dict[str, Any]] = []
        if repair:
            from corpusgen.stages.repairing import repair as mend

            repaired = [one.to_json() for one in mend(corpus)]
        known = [] if earlier is None else [kept_checkpoint(earlier)]
        checked = verified(corpus, known, None if key is None else key_of(key))
        left = [str(path) for path in orphans(corpus)]
    more: dict[str, Any] = {"orphans": left} | ({"repaired": repaired} if repair else {})
    if not as_json:
        for one in repaired:
            kept = f"; the old file is {one['kept_aside']}" if one["kept_aside"] else ""
            click.echo(f"{'repaired' if one['repaired'] else 'not repaired'} {one['path']}: {one['message']}{kept}")
        if left:
            click.echo(f"{counted(len(left), 'file')} no commit knows; corpusgen gc removes them")
    more |= _signed(checked, as_json=as_json)
    _tell(f"{corpus_folder}: {_unlike(checked.findings)} committed", checked.findings, more, as_json=as_json)


def _verify_ledger(corpus_folder: Path, ledger: Path, *, as_json: bool) -> None:
    with existing(corpus_folder, reading=True) as corpus:
        from corpusgen.stages.ledger_export import check_ledger

        checked = check_ledger(corpus, ledger)
    if not as_json:
        for note in checked.notes:
            click.echo(f"note: {note}", err=True)
    more = {"rows": checked.rows, "notes": checked.notes}
    _tell(f"{ledger}: {_unlike(checked.findings)} exported", checked.findings, more, as_json=as_json)


def _verify_events(events: Path, earlier: Path | None, key: Path | None, *, as_json: bool) -> None:
    from corpusgen.stages.lineage.ledger_checks import events_checked, key_of

    checked = events_checked(events, earlier, None if key is None else key_of(key))
    more = {"events": str(events)} | _signed(checked, as_json=as_json)
    _tell(f"{events}: {_unlike(checked.findings)} signed", checked.findings, more, as_json=as_json)


def _signed(checked: LedgerChecked, *, as_json: bool) -> dict[str, Any]:
    """By whom and up to where the ledger is signed: always told, since "sound" does not say it."""
    if not as_json:
        click.echo(harmless(str(checked.covered)))
        for note in checked.notes:
            click.echo(harmless(f"note: {note}"), err=True)
    return {"signed": checked.covered.to_json(), "notes": list(checked.notes)}


def _unlike(findings: Sequence[Finding]) -> str:
    return "1 thing is not as it was" if len(findings) == 1 else f"{len(findings):,} things are not as they were"


def _tell(message: str, findings: Sequence[Finding], more: dict[str, Any], *, as_json: bool) -> None:
    """Print what was found, and end with the exit code for it."""
    shown = [{"check": one.check, "subject": one.subject, "message": one.message} for one in findings]
    told = {"sound": not findings, "findings": shown, **more}
    if not as_json:
        for one in findings:
            click.echo(harmless(f"{one.check:<10} {one.subject}: {one.message}"))
        click.echo("sound" if not findings else counted(len(findings), "finding"))
    if findings:
        tell_error(CorpusDamaged.__name__, message, CorpusDamaged.exit_code, as_json=as_json, more=told)
        raise click.exceptions.Exit(CorpusDamaged.exit_code)
    if as_json:
        emit(told)


@click.command()
@corpus_option
@click.option("--dry-run", is_flag=True, help="Only list.")
@json_option
def gc(corpus_folder: Path, dry_run: bool, as_json: bool) -> None:
    """Remove files that no commit knows: left by a crash, or superseded. Not while a run is under way."""
    with existing(corpus_folder, reading=dry_run) as corpus:
        from corpusgen.stages.verifying import orphans, sweep

        found = orphans(corpus) if dry_run else sweep(corpus)
    if as_json:
        emit({"removed": not dry_run, "files": [str(path) for path in found]})
    else:
        for path in found:
            click.echo(f"{'would remove' if dry_run else 'removed'} {path}")
        click.echo(counted(len(found), "file"))
