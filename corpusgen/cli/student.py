"""``corpusgen train``, ``evaluate`` and ``predict``."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import click

from corpusgen.cli.options import (
    budget_option,
    corpus_option,
    emit,
    existing,
    harmless,
    json_option,
    parse_budget,
    spec_argument,
)
from corpusgen.errors import UsageError


@click.command()
@click.argument("dataset")
@click.option(
    "--spec", type=click.Path(path_type=Path, dir_okay=False), required=True, help="The task spec the dataset is of."
)
@corpus_option
@budget_option
@json_option
def train(dataset: str, spec: Path, corpus_folder: Path, budget: str | None, as_json: bool) -> None:
    """Train the student of a sealed dataset; the policy is asked again, and caps on compute_s and wall_s bind."""
    from corpusgen.stages.loading import load_task
    from corpusgen.stages.training import train_sealed

    caps = parse_budget(budget)
    task = load_task(spec)
    with existing(corpus_folder) as corpus:
        made = train_sealed(corpus, task, dataset, caps=caps)
    if as_json:
        emit({"student": made.student_id, "folder": str(made.folder), **made.facts})
    else:
        click.echo(f"student {made.student_id} in {made.folder}, trained on {made.facts['rows']} rows")


@click.command()
@spec_argument
@click.option("--student", help="Id of a student; the newest if left out.")
@corpus_option
@budget_option
@click.option("--quiet", "-q", is_flag=True, help="No progress on stderr.")
@json_option
def evaluate(
    spec: Path, student: str | None, corpus_folder: Path, budget: str | None, quiet: bool, as_json: bool
) -> None:
    """Compare a student with its teacher on the spec's gold items; asks the teacher what it has not been asked yet."""
    from corpusgen.cli.board import work
    from corpusgen.pipeline import evaluate_student
    from corpusgen.stages.loading import load_task
    from corpusgen.stages.runs import Run
    from corpusgen.stages.training import find_student
    from corpusgen.stages.watching import Board

    caps = parse_budget(budget)
    task = load_task(spec)
    runs: list[Run] = []
    board = Board(current=lambda: runs[0] if runs else None)
    with existing(corpus_folder) as corpus:
        trained = find_student(corpus, student)
        found = work(
            board,
            lambda: evaluate_student(task, corpus, trained, caps=caps, watch=board.watch, opened=runs),
            quiet=quiet,
        )
    if as_json:
        emit(found)
    else:
        for name, value in found.items():
            click.echo(f"{name:<22} {value}")


@click.command()
@click.argument("text", nargs=-1)
@click.option("--student", help="Id of a student; the newest if left out.")
@click.option("--file", "source", type=click.File("r", "utf-8"), help="One text a line; - is standard input.")
@corpus_option
@click.option("--json", "as_json", is_flag=True, help="JSON Lines on stdout: one object for each text.")
def predict(
    text: tuple[str, ...], student: str | None, source: Iterable[str] | None, corpus_folder: Path, as_json: bool
) -> None:
    """Label texts with a student. No teacher is asked, nothing is spent."""
    with existing(corpus_folder, reading=True) as corpus:
        from corpusgen.stages.training import find_student, predictions

        if not text and source is None:
            raise click.UsageError("give texts as arguments, or --file")
        trained = find_student(corpus, student)
        lines = _lines(source) if source else iter(())
        for batch in _batches([*text], lines):
            for one in predictions(trained, batch):
                if as_json:
                    emit(one)
                else:
                    shown = " ".join(harmless(one["text"]).split())
                    sys.stdout.write(f"{one['label']}\t{one['confidence']:.3f}\t{shown}\n")


def _lines(source: Iterable[str]) -> Iterator[str]:
    try:
        yield from (line.rstrip("\r\n") for line in source)
    except UnicodeDecodeError as error:
        raise UsageError("--file: is not UTF-8 text; save it as UTF-8") from error


def _batches(given: list[str], lines: Iterator[str]) -> Iterator[list[str]]:
    if given:
        yield given
    while batch := list(islice(lines, 1024)):
        yield batch
