"""``corpusgen erase``: take a source, a record or a text out of a corpus."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from corpusgen.cli.options import corpus_option, counted, emit, existing, harmless, json_option
from corpusgen.errors import UsageError

if TYPE_CHECKING:
    from corpusgen.stages.erasure.reaching import Selector


@click.command()
@click.option("--source", metavar="ID", help="Everything made from a source; ID#ITEM for one item of it.")
@click.option("--record", "records", metavar="ID", multiple=True, help="A record, and what was made from it.")
@click.option("--subject", metavar="TEXT", help="Everything in which a text occurs, such as a name or an address.")
@click.option("--dry-run", is_flag=True, help="Only tell what would go.")
@click.option("--by", metavar="NAME", help="Who erases; the user if left out.")
@click.option("--reason", metavar="TEXT", default="", help="Why; it stays in the report.")
@corpus_option
@json_option
def erase(
    source: str | None,
    records: tuple[str, ...],
    subject: str | None,
    dry_run: bool,
    by: str | None,
    reason: str,
    corpus_folder: Path,
    as_json: bool,
) -> None:
    """Take a source, records or a text out of shards, journal, datasets, reports and caches; keep a signed report.

    What was made from it goes too, datasets that held it are revoked, and students that learned from it are named.
    After a crash the same command, or one without --source, --record and --subject, brings it to its end.
    """
    selector = _selector(source, records, subject)
    if dry_run and selector is None:
        raise UsageError("--dry-run tells what one of --source, --record and --subject would take; give one")
    with existing(corpus_folder, reading=dry_run, erasing=not dry_run) as corpus:
        from corpusgen.stages.erasure.erasing import erase as take_out
        from corpusgen.stages.erasure.erasing import foresee

        if dry_run:
            assert selector is not None
            found = foresee(corpus, selector)
        else:
            found = take_out(corpus, selector, by=by or corpus.actor, reason=reason)
    if as_json:
        emit(found)
        return
    for line in _lines(found, dry_run=dry_run):
        click.echo(harmless(line))


def _selector(source: str | None, records: tuple[str, ...], subject: str | None) -> Selector | None:
    from corpusgen.stages.erasure.reaching import Selector

    given = [name for name, value in (("--source", source), ("--record", records), ("--subject", subject)) if value]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} exclude each other: erase one after the other")
    if source is not None:
        return Selector(kind="source", values=(source,))
    if records:
        return Selector(kind="record", values=tuple(name.lower() for name in records))
    return None if subject is None else Selector(kind="subject", values=(subject,))


def _lines(found: Mapping[str, Any], *, dry_run: bool) -> Iterator[str]:
    if not dry_run and found["erasure_id"] is None:
        yield "nothing of it is here"
        return
    number = found.get("erasure_id")
    yield "would be erased:" if dry_run else f"erasure {number}, signed: erasures/{number}.json"
    what = (counted(found["records"], "record"), counted(found["requests"], "request"), counted(found["texts"], "note"))
    yield f"  {', '.join(what)} in {counted(len(found['shards']), 'shard')}"
    for name in found["datasets"]:
        yield f"  dataset {name}: {'would be ' if dry_run else ''}revoked"
    for name in found["students"]:
        yield f"  student {name}: has learned from it; must be retrained or retired"
    for name in found["released"]:
        yield f"  release {name}: has gone out; withdraw it"
    for one in found["provider_copies"]:
        days = "for how long is not known" if one["retention_days"] is None else f"for {one['retention_days']} days"
        sent = f"{counted(one['requests'], 'request')} from {one['first_sent'][:10]} to {one['last_sent'][:10]}"
        yield f"  {one['teacher']} at {one['host'] or 'this machine'} was sent {sent}, kept {days}; {one['note']}"
    for one in found["exports"]:
        yield f"  {one['dataset']} was exported to {one['to']} on {one['exported_time'][:10]}: delete that copy"
    for one in found["kept"]:
        yield f"  left in {one['where']} of {one['of']}: {one['why']}"
    if found["other_files"]:
        yield f"  {counted(found['other_files'], 'other file')} {'would be ' if dry_run else ''}removed"
    if not dry_run and found["shared_cache"]["note"]:
        yield f"  {found['shared_cache']['note']}"
    yield "out of reach: " + "; ".join(found["cannot_reach"])
