"""What docs/rights.md shows can be typed: its commands exist with those options, its examples are what specs take."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest
import yaml

from corpusgen.cli.main import corpusgen
from corpusgen.provenance.documents import TermsFile
from corpusgen.spec import TaskSpec

DOCS = Path(__file__).parents[1] / "docs" / "rights.md"
COMMANDS = [
    command
    for block in re.findall(r"```console\n(.*?)```", DOCS.read_text("utf-8"), re.DOTALL)
    for command in block.replace("\\\n", " ").splitlines()
]
EXAMPLES = re.findall(r"```yaml\n(.*?)```", DOCS.read_text("utf-8"), re.DOTALL)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_page_can_be_parsed(command: str) -> None:
    words = shlex.split(command)[1:]
    found: click.Command = corpusgen
    context = click.Context(found)
    while isinstance(found, click.Group):
        name = words.pop(0)
        below = found.get_command(context, name)
        assert below is not None, name
        found = below
    found.make_context(found.name, words)


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_of_the_page_is_part_of_a_spec_or_of_a_terms_file(example: str) -> None:
    named = yaml.safe_load(example).keys()
    assert named <= TaskSpec.model_fields.keys() or named <= TermsFile.model_fields.keys()
