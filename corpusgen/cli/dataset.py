"""``corpusgen select``, ``seal`` and ``export``: from records to a dataset others can use."""

from __future__ import annotations

from pathlib import Path

import click

from corpusgen.cli.options import corpus_option, emit, existing, json_option


@click.command()
@click.argument("dataset")
@corpus_option
@click.option("--run", "run_id", help="Only records of this run.")
@click.option("--split", default="train", show_default=True, help="Only records of this split.")
@click.option("--min-confidence", type=click.FloatRange(0, 1), default=0.0, help="Least probability of a label.")
@click.option("--keep-truncated", is_flag=True, help="Keep answers that ran into max_tokens.")
@click.option("--limit", type=click.IntRange(min=1), help="At most so many records.")
@json_option
def select(
    dataset: str,
    corpus_folder: Path,
    run_id: str | None,
    split: str,
    min_confidence: float,
    keep_truncated: bool,
    limit: int | None,
    as_json: bool,
) -> None:
    """Choose which records of a task make a new version of its dataset, and say why others do not."""
    with existing(corpus_folder) as corpus:
        from corpusgen.stages.selecting import Filters, latest_calibration
        from corpusgen.stages.selecting import select as make_selection

        filters = Filters(
            run_id=run_id, split=split, min_confidence=min_confidence, keep_truncated=keep_truncated, limit=limit
        )
        made = make_selection(corpus, dataset, filters=filters, calibration=latest_calibration(corpus, dataset))
    if as_json:
        emit({"dataset": made.label, "status": made.status, "rows": made.file.rows, "funnel": made.funnel})
    else:
        click.echo(f"{made.label}: {made.file.rows} rows ({made.status})")
        for reason, items in made.funnel.items():
            click.echo(f"  {reason:<20} {items}")


@click.command()
@click.argument("dataset")
@click.option(
    "--spec", type=click.Path(path_type=Path, dir_okay=False), required=True, help="The task spec the records are of."
)
@corpus_option
@json_option
def seal(dataset: str, spec: Path, corpus_folder: Path, as_json: bool) -> None:
    """Seal a selected version: check its provenance and today's terms, and lay out a folder any reader can open."""
    from corpusgen.stages.opening import judge
    from corpusgen.stages.sealing import seal as make_seal
    from corpusgen.stages.selecting import find_selection
    from corpusgen.stages.task import connect, load_task

    task = load_task(spec)
    with existing(corpus_folder) as corpus:
        on = corpus.clock().date()
        decisions = [judge(view, connect(view, corpus.clock).card, on) for view in task.of_each_teacher]
        made = make_seal(corpus, task, find_selection(corpus, dataset), *decisions)
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
@click.option("--to", "kind", type=click.Choice(["chat"]), required=True, help="chat: what TRL reads.")
@corpus_option
@json_option
def export(dataset: str, out: Path, kind: str, corpus_folder: Path, as_json: bool) -> None:
    """Write a sealed dataset in another form: OUT ends in .jsonl or .parquet."""
    with existing(corpus_folder, reading=True) as corpus:
        from corpusgen.export.chat import export_chat
        from corpusgen.stages.sealing import sealed_dataset

        made = export_chat([sealed_dataset(corpus, dataset).file], out)
    if as_json:
        emit({"out": str(made.path), "kind": kind, "rows": made.rows, "skipped": dict(made.skipped)})
    else:
        click.echo(f"{made.path}: {made.rows} rows" + (f", left out: {dict(made.skipped)}" if made.skipped else ""))
