"""The command line: names and options are here and in the files beside it, the work is elsewhere."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from keyword import iskeyword

import click

from corpusgen.cli.options import tell_error
from corpusgen.errors import CorpusgenError, Interrupted

COMMANDS = {
    "audit": "audit",
    "budget": "budget",
    "checkpoint": "prove",
    "distill": "distill",
    "evaluate": "student",
    "diff": "dataset",
    "erase": "erase",
    "export": "dataset",
    "gc": "verify",
    "import": "importing",
    "init": "init",
    "mock-teacher": "mock_teacher",
    "plan": "run",
    "policy": "policy",
    "predict": "student",
    "prove": "prove",
    "query": "look",
    "reconcile": "reconcile",
    "release": "release",
    "run": "run",
    "schema": "init",
    "seal": "dataset",
    "select": "dataset",
    "serve": "serve",
    "status": "look",
    "teachers": "teachers",
    "terms": "terms",
    "tokens": "tokens",
    "traffic": "traffic",
    "train": "student",
    "verify": "verify",
    "why": "why",
}


class _Commands(click.Group):
    """Loads the file of a command when the command is used; those files import nothing heavy themselves."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"corpusgen.cli.{COMMANDS[cmd_name]}")
        name = cmd_name.replace("-", "_")
        command = getattr(module, f"{name}_" if iskeyword(name) else name)
        assert isinstance(command, click.Command)
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="corpusgen-distill", prog_name="corpusgen")
def corpusgen() -> None:
    """Ask teachers under a budget, keep every answer with its licence, distil a student from them.

    Exit codes: 0 done, 1 other error, 2 wrong usage (spec, prompt, seeds, options), 3 budget exhausted,
    4 refused by the terms, 5 some prompts have no answer, 6 the corpus on disk, 7 a service does not answer,
    130 interrupted.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; errors go to stderr in words, with an exit code that says what kind they are."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    as_json = "--json" in given[: given.index("--")] if "--" in given else "--json" in given
    try:
        sys.exit(corpusgen.main(given, standalone_mode=False))
    except CorpusgenError as error:
        tell_error(type(error).__name__, str(error), error.exit_code, as_json=as_json)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        if as_json:
            tell_error("UsageError", error.format_message(), error.exit_code, as_json=True)
        else:
            error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        tell_error(Interrupted.__name__, "interrupted", Interrupted.exit_code, as_json=as_json)
        sys.exit(Interrupted.exit_code)
    except BrokenPipeError:
        # Whoever read our output has left. Python would complain once more when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
