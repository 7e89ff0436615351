"""``corpusgen verify`` and ``gc``."""

from __future__ import annotations

from pathlib import Path

import click

from corpusgen.cli.options import corpus_option, emit, existing, json_option, tell_error
from corpusgen.errors import CorpusDamaged


@click.command()
@corpus_option
@json_option
def verify(corpus_folder: Path, as_json: bool) -> None:
    """Check everything against the journal: money, requests, shards, manifest, sealed datasets. Changes nothing."""
    with existing(corpus_folder) as corpus:
        from corpusgen.stages.verifying import orphans
        from corpusgen.stages.verifying import verify as check

        findings = check(corpus)
        left = [str(path) for path in orphans(corpus)]
    shown = [{"check": one.check, "subject": one.subject, "message": one.message} for one in findings]
    told = {"sound": not findings, "findings": shown, "orphans": left}
    if not as_json:
        for one in findings:
            click.echo(f"{one.check:<10} {one.subject}: {one.message}")
        click.echo("sound" if not findings else f"{len(findings)} findings")
        if left:
            click.echo(f"{len(left)} files no commit knows; corpusgen gc removes them")
    if findings:
        message = f"{corpus_folder}: {len(findings)} things are not as they were committed"
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
    with existing(corpus_folder) as corpus:
        from corpusgen.stages.verifying import orphans, sweep

        found = orphans(corpus) if dry_run else sweep(corpus)
    if as_json:
        emit({"removed": not dry_run, "files": [str(path) for path in found]})
    else:
        for path in found:
            click.echo(f"{'would remove' if dry_run else 'removed'} {path}")
        click.echo(f"{len(found)} files")
