"""``corpusgen why``: the story of one record."""

from __future__ import annotations

from pathlib import Path
from textwrap import shorten
from typing import Final

import click

from corpusgen.cli.options import corpus_option, emit, existing, harmless, json_option

LONGEST: Final = 400
"""Letters of a text that are shown; --json has all of it."""


@click.command()
@click.argument("record")
@corpus_option
@json_option
def why(record: str, corpus_folder: Path, as_json: bool) -> None:
    """Tell where one record comes from and where it went.

    RECORD is its id, or the beginning of it. Source and licence, run, decision and terms, each request with route,
    host, model and cost, checks, parents and children, datasets, students, releases. --json has it in PROV's words
    too.
    """
    with existing(corpus_folder, reading=True) as corpus:
        from corpusgen.stages.lineage.story import NOTICE, chapters, story

        told = story(corpus, record)
    if as_json:
        emit(told.to_json())
        return
    one = told.record
    click.echo(f"record {one['record_id']} ({one['kind']} of {one['task']}, split {one['split']})")
    for name in ("input", "response", "label"):
        if (text := told.text[name]) is not None:
            click.echo(f"  {name:<9} {shorten(harmless(text), LONGEST, placeholder=' …')}")
    for about, line in chapters(told):
        click.echo(f"  {about:<9} {shorten(harmless(line), 4 * LONGEST, placeholder=' …')}")
    click.echo(NOTICE)
