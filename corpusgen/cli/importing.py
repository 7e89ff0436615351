"""``corpusgen import``: rows from outside as records, with the licence they came under."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from corpusgen.cli.options import corpus_option, counted, emit, is_there, json_option, opened
from corpusgen.errors import UsageError

if TYPE_CHECKING:
    from corpusgen.corpus import Corpus
    from corpusgen.spec import Source
    from corpusgen.stages.imports.admitting import Looked, Outside
    from corpusgen.stages.imports.importing import Imported

ACQUISITIONS = ("own", "licensed", "public_dataset", "crawl", "user_data", "synthetic")
COPYRIGHT = ("copyright", "public_domain", "mixed", "unknown")


@click.command("import")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--dataset", required=True, metavar="NAME", help="The dataset its records are of; a task's name mixes them."
)
@click.option("--licence", required=True, metavar="SPDX", help="Its licence, such as CC-BY-4.0 or LicenseRef-Own.")
@click.option("--source-id", required=True, metavar="ID", help="What records call the source.")
@click.option("--title", required=True, help="What people call the source.")
@click.option("--generated-by", multiple=True, metavar="TERMS_ID", help="Terms of a model that wrote it. Repeatable.")
@click.option("--locator", metavar="URL", help="Where it is found.")
@click.option("--rightsholder", metavar="NAME", help="Who owns the rights.")
@click.option("--acquisition", type=click.Choice(ACQUISITIONS), help="How you came by it.")
@click.option("--acquired", metavar="DATE", help="The day you did, such as 2026-11-01.")
@click.option("--copyright-status", type=click.Choice(COPYRIGHT), help="Whether it is under copyright.")
@click.option("--personal-data", multiple=True, metavar="CLASS", help="A class of personal data in it. Repeatable.")
@click.option("--lawful-basis", metavar="TEXT", help="Why its personal data may be processed, such as consent.")
@click.option("--processing-region", multiple=True, metavar="REGION", help="It may be sent only there. Repeatable.")
@click.option("--notice", type=click.Path(path_type=Path, dir_okay=False), help="File whose text goes with every copy.")
@click.option(
    "--columns",
    metavar="input=question,response=answer",
    help="Which column is what: input, response, label, messages, reasoning, system, id. Else by their usual names.",
)
@click.option("--labels", metavar="animal,plant", help="What labels may be; else those of the dataset or of the file.")
@click.option("--split", type=click.Choice(["train", "validation", "gold"]), default="train", show_default=True)
@click.option("--limit", type=click.IntRange(min=1), help="Only the first so many rows of each file.")
@click.option("--skip-bad", is_flag=True, help="Leave bad rows out, each noted with its reason.")
@click.option("--cleaned", is_flag=True, help="Nothing is in it of what was erased from its source.")
@click.option("--dry-run", is_flag=True, help="Look through everything and write nothing.")
@corpus_option
@json_option
def import_(
    files: tuple[Path, ...],
    skip_bad: bool,
    cleaned: bool,
    dry_run: bool,
    corpus_folder: Path,
    as_json: bool,
    **said: Any,
) -> None:
    """Bring rows of Parquet, CSV or JSON Lines files in as records, with the licence they came under.

    Rows are a question and its answer (prompt and completion, input and response, ...), a text and its label, or a
    conversation (messages). Nobody is asked and nothing is paid. Nothing is imported unless every row of every file is
    sound, or --skip-bad; the same file again adds nothing.
    """
    from corpusgen.stages.imports.admitting import look_through

    wanted = _wanted(files, said)
    with _looking(corpus_folder) as corpus:
        looked = look_through(corpus, wanted, skip_bad=skip_bad)
    if dry_run:
        _tell([one.to_json() for one in looked], as_json=as_json, dry_run=True)
    else:
        with opened(corpus_folder) as corpus:
            made = asyncio.run(_taken_in(corpus, looked, cleaned=cleaned))
        _tell([one.to_json() for one in made], as_json=as_json, dry_run=False)
    _warn(looked)


def _looking(folder: Path) -> AbstractContextManager[Corpus | None]:
    """The corpus, if there is one: looking makes none."""
    return opened(folder, reading=True) if is_there(folder) else nullcontext()


async def _taken_in(corpus: Corpus, looked: Sequence[Looked], *, cleaned: bool) -> list[Imported]:
    from corpusgen.stages.imports.importing import import_files

    return await import_files(corpus, looked, cleaned=cleaned)


def _wanted(files: Sequence[Path], said: dict[str, Any]) -> list[Outside]:
    from corpusgen.fields import NAME
    from corpusgen.stages.imports.admitting import Outside
    from corpusgen.stages.imports.outside import parse_columns

    if not re.fullmatch(NAME, said["dataset"]):
        raise UsageError(f"--dataset: {said['dataset']!r} is no name: lower-case letters, digits, - and _")
    columns = None if said["columns"] is None else parse_columns(said["columns"])
    labels = tuple(name.strip() for name in (said["labels"] or "").split(",") if name.strip())
    source, notice = _source(said), _notice(said["notice"])
    return [
        Outside(
            file=file,
            dataset=said["dataset"],
            source=source,
            columns=columns,
            split=said["split"],
            labels=labels,
            limit=said["limit"],
            notice=notice,
        )
        for file in files
    ]


def _source(said: dict[str, Any]) -> Source:
    from pydantic import ValidationError

    from corpusgen.spec import Source

    try:
        return Source(
            id=said["source_id"],
            title=said["title"].strip(),
            licence=said["licence"].strip(),
            locator=said["locator"],
            generated_by=tuple(dict.fromkeys(said["generated_by"])),
            rightsholder=said["rightsholder"],
            acquisition=said["acquisition"],
            acquired=_day(said["acquired"]),
            copyright_status=said["copyright_status"],
            personal_data=tuple(dict.fromkeys(said["personal_data"])),
            lawful_basis=said["lawful_basis"],
            processing_regions=tuple(dict.fromkeys(said["processing_region"])),
        )
    except ValidationError as error:
        found = error.errors()[0]
        field = str(found["loc"][0]) if found["loc"] else ""
        if field == "id":
            how = "write lower-case letters, digits, _ . and -, at most 64, such as reviews-2026"
            raise UsageError(f"--source-id: {found['input']!r:.80} is no id: {how}") from error
        option = f"--{field.replace('_', '-')}"
        raise UsageError(f"{option}: {found['input']!r:.80}: {found['msg']}") from error


def _day(text: str | None) -> date | None:
    try:
        return None if text is None else datetime.strptime(text, "%Y-%m-%d").date()
    except ValueError as error:
        raise UsageError(f"--acquired: {text!r} is no day such as 2026-11-01") from error


def _notice(path: Path | None) -> str | None:
    if path is not None and path.exists() and not path.is_file():
        raise UsageError(f"--notice: {str(path)!r} is no regular file")
    try:
        return None if path is None else path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "is not UTF-8 text"
        raise UsageError(f"--notice: {str(path)!r} cannot be read: {why}") from error


def _tell(found: Sequence[dict[str, Any]], *, as_json: bool, dry_run: bool) -> None:
    if as_json:
        emit({"dry_run": dry_run, "imports": list(found)})
        return
    for one in found:
        columns = ", ".join(f"{field}={column}" for field, column in one["columns"].items())
        if dry_run:
            click.echo(
                f"{one['file']}: {counted(one['rows'], 'row')} would be imported into {one['dataset']} ({columns})"
            )
        else:
            click.echo(f"{one['file']}: {counted(one['added'], 'new record')} of {one['dataset']} ({columns})")
            if there := one["rows"] - one["added"] - one["erased"]:
                click.echo(f"  {counted(there, 'row')} had been imported before")
        if one.get("erased"):
            click.echo(f"  {counted(one['erased'], 'row')} had been erased here, and stay out")
        if one["skipped"]:
            click.echo(f"  {counted(one['skipped'], 'bad row')} left out; corpusgen status says why")
        click.echo(f"  under {one['licence_expression']}; teacher {one['teacher']}, run {one['run_id']}")


def _warn(looked: Sequence[Looked]) -> None:
    """What a licence may not be used for is found out when a dataset is sealed; better to hear of it now."""
    for one in dict.fromkeys(one.rights for one in looked):
        if one.outputs_train in ("unclear", "prohibited"):
            told = "does not say that its text may train a model; a dataset with it will not be sealed"
            click.echo(f"warning: {one.licence_expression} {told}", err=True)
