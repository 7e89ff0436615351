"""``corpusgen select``, ``seal`` and ``export``: from records to a dataset others can use."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from corpusgen.cli.options import corpus_option, emit, existing, harmless, json_option
from corpusgen.errors import UsageError

if TYPE_CHECKING:  # numbers and files are read where something is selected
    from corpusgen.stages.selecting import Selection

SHOWN = 20
"""Changes that are listed for a reader; machines get all."""
DOCUMENTS = ("card", "croissant", "spdx", "eu-2.5", "ab2013", "nist-600-1", "notice")
"""What export can write about a dataset; ``stages/exporting.py`` says how."""


@click.command()
@click.argument("dataset")
@corpus_option
@click.option("--run", "run_id", help="Only records of this run.")
@click.option("--split", default="train", show_default=True, help="Only records of this split.")
@click.option("--min-confidence", type=click.FloatRange(0, 1), default=0.0, help="Least probability of a label.")
@click.option("--keep-truncated", is_flag=True, help="Keep answers that ran into max_tokens.")
@click.option("--limit", type=click.IntRange(min=1), help="At most so many records.")
@click.option("--diverse", type=click.IntRange(min=1), help="So many of what passes, chosen to cover all of it.")
@click.option(
    "--strata", type=click.Choice(["label", "teacher", "source"]), help="With --diverse: what --quotas are for."
)
@click.option("--quotas", metavar="animal=0.5,plant=200", help="Shares or numbers for values of --strata.")
@click.option("--splits", metavar="train=0.9,test=0.1", help="Shares of the splits; what belongs together stays so.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=1, show_default=True, help="Of --diverse, --splits.")
@click.option(
    "--spec",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Task spec whose curate: section judges the answers.",
)
@click.option("--uncurated", is_flag=True, help="Leave the curate: section of the records' spec out.")
@json_option
def select(
    dataset: str,
    corpus_folder: Path,
    run_id: str | None,
    split: str,
    min_confidence: float,
    keep_truncated: bool,
    limit: int | None,
    diverse: int | None,
    strata: Literal["label", "teacher", "source"] | None,
    quotas: str | None,
    splits: str | None,
    seed: int,
    spec: Path | None,
    uncurated: bool,
    as_json: bool,
) -> None:
    """Choose which records of a task make a new version of its dataset, and say why others do not."""
    with existing(corpus_folder) as corpus:
        if ((strata is not None or quotas is not None) and diverse is None) or (quotas is not None and strata is None):
            raise UsageError(
                "--strata and --quotas say how --diverse chooses; give --diverse N, and --strata with --quotas"
            )
        from corpusgen.stages.loading import load_task
        from corpusgen.stages.selecting import Filters, check_curated, latest_calibration, parse_shares, parse_splits
        from corpusgen.stages.selecting import select as make_selection

        filters = Filters(
            run_id=run_id,
            split=split,
            min_confidence=min_confidence,
            keep_truncated=keep_truncated,
            limit=limit,
            diverse=diverse,
            strata=strata,
            quotas=parse_shares(quotas, "--quotas"),
            splits=parse_splits(splits),
            seed=seed,
        )
        task = None if spec is None or uncurated else load_task(spec)
        check_curated(corpus, dataset, named=spec is not None or uncurated)
        calibration = latest_calibration(corpus, dataset)
        made = make_selection(corpus, dataset, filters=filters, calibration=calibration, task=task)
    for remark in made.remarks:
        click.echo(f"warning: {remark}", err=True)
    if as_json:
        emit(
            {
                "dataset": made.label,
                "status": made.status,
                "rows": made.rows,
                "splits": made.splits,
                "steps": dict(made.funnel_steps),
                "funnel": made.funnel,
                "warnings": list(made.remarks),
            }
        )
    else:
        click.echo(_told(made))


def _told(made: Selection) -> str:
    lines = [f"{made.label}: {made.rows} rows ({made.status})"]
    if len(made.splits) > 1:
        lines.append("  " + ", ".join(f"{name} {rows}" for name, rows in made.splits.items()))
    lines.append("  " + " → ".join(f"{name} {left}" for name, left in made.funnel_steps))
    return "\n".join([*lines, *(f"  {reason:<40} {items}" for reason, items in made.funnel.items())])


@click.command()
@click.argument("before")
@click.argument("after")
@corpus_option
@json_option
def diff(before: str, after: str, corpus_folder: Path, as_json: bool) -> None:
    """Say what dataset version AFTER has and BEFORE has not, the other way round, and why."""
    with existing(corpus_folder, reading=True) as corpus:
        from corpusgen.stages.comparing import difference

        found = difference(corpus, before, after)
    if as_json:
        emit(found.to_json())
        return
    click.echo(f"{found.before} → {found.after}: {found.rows[0]} → {found.rows[1]} rows, {found.kept} the same")
    for name, told in found.revoked.items():
        click.echo(f"  {name} {harmless(told)}; it must not be used any more")
    for kind, tally in found.tallies.items():
        for name, (was, now) in tally.items():
            if was != now:
                click.echo(f"  {kind} {name:<20} {was} → {now}")
    for change in found.changes[:SHOWN]:
        moved = " → ".join(part for part in (change.before, change.after) if part)
        without = {"added": found.before, "removed": found.after}.get(change.what)
        why = f"  (not in {without} for {change.why})" if change.why else ""
        click.echo(f"  {change.what:<10} {change.item}  {moved}{why}")
    if len(found.changes) > SHOWN:
        click.echo(f"  … {len(found.changes) - SHOWN} more; --json lists them all")


@click.command()
@click.argument("dataset")
@click.option(
    "--spec", type=click.Path(path_type=Path, dir_okay=False), required=True, help="The task spec the records are of."
)
@corpus_option
@json_option
def seal(dataset: str, spec: Path, corpus_folder: Path, as_json: bool) -> None:
    """Seal a selected version: check its provenance and today's terms, and lay out a folder any reader can open."""
    from corpusgen.stages.loading import load_task
    from corpusgen.stages.sealing import seal_by_todays_terms

    task = load_task(spec)
    with existing(corpus_folder) as corpus:
        made = seal_by_todays_terms(corpus, task, dataset)
    if as_json:
        emit(
            {
                "dataset": made.label,
                "folder": str(made.folder),
                "rows": made.rows,
                "manifest_sha256": made.manifest_sha256,
            }
        )
    else:
        click.echo(f"{made.folder}: {made.rows} rows, sealed as {made.manifest_sha256}")


@click.command()
@click.argument("dataset")
@click.argument("out", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--to",
    "kind",
    type=click.Choice(["chat", *DOCUMENTS]),
    required=True,
    help="chat: rows as TRL reads them. The others describe the dataset, for other tools and for lawyers.",
)
@click.option("--split", show_default="train", help="With --to chat: the split that is written; one at a time.")
@click.option(
    "--spec",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The task spec; with --to chat, where it is to be judged by another intended use, or by its terms_files.",
)
@corpus_option
@json_option
def export(
    dataset: str, out: Path, kind: str, split: str | None, spec: Path | None, corpus_folder: Path, as_json: bool
) -> None:
    """Write a sealed dataset in another form, or a document about it.

    With --to chat, OUT ends in .jsonl or .parquet.
    """
    if kind == "chat":
        _export_chat(dataset, out, split or "train", spec, corpus_folder, as_json=as_json)
    elif spec is None or split is not None:
        raise UsageError(f"--to {kind} is about the whole dataset: give the --spec it was made with, and no --split")
    else:
        _export_document(dataset, out, kind, spec, corpus_folder, as_json=as_json)


def _export_chat(dataset: str, out: Path, split: str, spec: Path | None, corpus_folder: Path, *, as_json: bool) -> None:
    with existing(corpus_folder, reading=True) as corpus:
        from corpusgen.export.chat import export_chat
        from corpusgen.stages.exporting import note_export, rows_to_export
        from corpusgen.stages.loading import load_task

        # Never two splits in one file: nobody could tell them apart there, and would train on both.
        sealed, paths = rows_to_export(corpus, dataset, split, None if spec is None else load_task(spec))
        made = export_chat(paths, out)
        note_export(corpus, sealed, "chat", split, made.path, made.rows)
    if as_json:
        emit({"out": str(made.path), "kind": "chat", "split": split, "rows": made.rows, "skipped": dict(made.skipped)})
    else:
        click.echo(f"{made.path}: {made.rows} rows" + (f", left out: {dict(made.skipped)}" if made.skipped else ""))


def _export_document(dataset: str, out: Path, kind: str, spec: Path, corpus_folder: Path, *, as_json: bool) -> None:
    with existing(corpus_folder, reading=True) as corpus:
        from corpusgen.stages.exporting import export_document
        from corpusgen.stages.loading import load_task

        made = export_document(corpus, load_task(spec), dataset, kind, out)
    if as_json:
        emit({"out": str(made.path), "kind": kind, "not_filled": list(made.not_filled)})
        return
    click.echo(f"{made.path}: written; not filled, because nothing in the corpus tells:")
    for gap in made.not_filled:
        click.echo(f"  {gap}")
