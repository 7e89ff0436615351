"""The command line: names and options are here and in the files beside it, the work is elsewhere."""

from __future__ import annotations

import sys
from importlib import import_module

import click

from corpusgen.errors import CorpusgenError

COMMANDS = {
    "distill": "distill",
    "evaluate": "student",
    "export": "dataset",
    "init": "init",
    "plan": "run",
    "predict": "student",
    "query": "look",
    "run": "run",
    "schema": "init",
    "seal": "dataset",
    "select": "dataset",
    "status": "look",
    "teachers": "teachers",
    "train": "student",
}


class _Commands(click.Group):
    """Loads the file of a command when the command is used; those files import nothing heavy themselves."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"corpusgen.cli.{COMMANDS[cmd_name]}")
        command = getattr(module, cmd_name)
        assert isinstance(command, click.Command)
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="corpusgen-distill", prog_name="corpusgen")
def corpusgen() -> None:
    """Ask teachers under a budget, keep every answer with its licence, distil a student from them.

    Exit codes: 0 done, 1 other error, 2 wrong usage (spec, prompt, seeds, options), 3 budget exhausted,
    4 refused by the terms, 5 some prompts have no answer, 6 the corpus on disk, 130 interrupted.
    """


def main() -> None:
    """Run a command; errors go to stderr in words, with an exit code that says what kind they are."""
    try:
        corpusgen.main(standalone_mode=False)
    except CorpusgenError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("error: interrupted", err=True)
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)
