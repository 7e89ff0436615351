"""``corpusgen audit``: the lawyers' questions, one command each, made from the heads of their SQL files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from corpusgen.cli.options import corpus_option, counted, emit, existing, harmless, json_option, money
from corpusgen.errors import PolicyRefused, UsageError
from corpusgen.provenance.questions import NOTICE, Parameter, Question, find_question, questions

if TYPE_CHECKING:
    from corpusgen.stages.lineage.auditing import Answer
    from corpusgen.stages.lineage.without import Without

_FORMATS = ("table", "json", "csv", "markdown")


class _Questions(click.Group):
    """The commands below, and one for each question by its number and by its name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*super().list_commands(ctx), *(question.name for question in questions().values())]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if (question := find_question(cmd_name)) is not None:
            return _command(question, cmd_name)
        if (command := super().get_command(ctx, cmd_name)) is not None:
            return command
        from difflib import get_close_matches

        near = get_close_matches(cmd_name, [*questions(), *self.list_commands(ctx)], n=3, cutoff=0.4)
        hint = f"the nearest are {', '.join(near)}" if near else "corpusgen audit list names them all"
        raise UsageError(f"no question is called {cmd_name!r}; {hint}")


@click.group(cls=_Questions, context_settings={"help_option_names": ["-h", "--help"]})
def audit() -> None:
    """Ask a corpus what a lawyer would ask: by number (q01) or by name (released-students).

    Every answer comes from the lineage of the corpus, by SQL that audit sql NAME prints. Not legal advice.
    """


@audit.command("list")
@json_option
def list_questions(as_json: bool) -> None:
    """Name all questions and what each is asked of."""
    if as_json:
        emit({"questions": [_described(question) for question in questions().values()], "notice": NOTICE})
        return
    for question in questions().values():
        options = " ".join(_usage(parameter) for parameter in question.parameters)
        click.echo(f"{question.number}  {question.name:<24} {question.title}")
        click.echo(f"     corpusgen audit {question.name} {options}".rstrip())
    click.echo(NOTICE)


@audit.command("sql")
@click.argument("name")
@json_option
def print_sql(name: str, as_json: bool) -> None:
    """Print the SQL behind a question, with what its head says of it."""
    question = find_question(name)
    if question is None:
        raise UsageError(f"no question is called {name!r}; corpusgen audit list names them all")
    if as_json:
        emit({**_described(question), "sql": question.sql})
    else:
        click.echo(question.sql, nl=False)


@audit.command("without")
@click.argument("provider")
@click.option("--teacher", help="A teacher whose price is looked up too, whatever the spec names.")
@corpus_option
@json_option
def without_provider(provider: str, teacher: str | None, corpus_folder: Path, as_json: bool) -> None:
    """Say what would be lost if PROVIDER's terms or service went away, and what asking elsewhere would cost.

    PROVIDER is a provider (openai), a host, or a teacher (openai/gpt-5.2).
    """
    with existing(corpus_folder, reading=True) as corpus:
        from corpusgen.stages.lineage.without import without

        found = without(corpus, provider, teacher=teacher)
    if as_json:
        emit(found.to_json())
    else:
        _tell_without(found)


def _tell_without(found: Without) -> None:
    lost, left = found.lost, found.remaining
    click.echo(f"without {harmless(found.name)} ({', '.join(map(harmless, found.teachers))}):")
    click.echo(f"  lost       {counted(lost.records, 'record')}, {counted(lost.output_tokens, 'output token')}")
    click.echo(f"  remaining  {counted(left.records, 'record')}, {counted(left.output_tokens, 'output token')}")
    for role, amount in found.roles.items():
        click.echo(f"  as {role}: {counted(amount.records, 'record')}")
    for one in found.touched:
        split = f" ({one.split})" if one.split else ""
        told = f"{one.touched:,} of {counted(one.records, 'record')}"
        click.echo(f"  {one.kind} {harmless(one.name)}{split}, {one.status}: {told} touched")
    for other in found.elsewhere:
        price = "price unknown" if other.microusd is None else money(other.microusd)
        asked = f"{counted(other.records, 'record')} of {harmless(other.task)}"
        click.echo(f"  elsewhere  {harmless(other.teacher)} for {asked}: {price}, {other.outcome}. {other.remark}")
    click.echo(NOTICE)


# --- One command for each question -----------------------------------------------------------------------------------


def _command(question: Question, name: str) -> click.Command:
    options: list[click.Parameter] = [_option(parameter) for parameter in question.parameters]
    command = click.Command(name, callback=_asking(question), params=options, help=_help(question))
    checks = (_check_option,) if question.passes_when_empty or question.reads_ledger else ()
    for add in (_format_option, _out_option, *checks, corpus_option, json_option):
        add(command)
    return command


_format_option = click.option("--format", "kind", type=click.Choice(_FORMATS), default="table", show_default=True)
_out_option = click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="Write to a file, not to stdout."
)
_check_option = click.option("--check", is_flag=True, help="Exit with 4 where the answer is a violation.")


_METAVARS = {"date": "YYYY-MM-DD", "days": "N", "count": "N"}


def _option(parameter: Parameter) -> click.Option:
    told = {"required": " (needed)", "any": ""}
    default = told.get(parameter.default, f" ({parameter.default})")
    metavar = _METAVARS.get(parameter.type, parameter.type.upper())
    return click.Option(
        [f"--{parameter.name}", f"asked_{parameter.name}"], metavar=metavar, help=f"{parameter.meaning}{default}."
    )


def _help(question: Question) -> str:
    return f"{question.title}\n\n{question.answer}\n\nCannot tell: {question.cannot_tell}\n\n{NOTICE}"


def _asking(question: Question) -> Any:
    def ask(
        kind: str, out: Path | None, corpus_folder: Path, as_json: bool, check: bool = False, **asked: str | None
    ) -> None:
        if as_json and (kind != "table" or out is not None):
            raise click.UsageError("--json prints one object: leave --format and --out out, or --json")
        given = {name.removeprefix("asked_"): text for name, text in asked.items() if text is not None}
        with existing(corpus_folder, reading=True) as corpus:
            from corpusgen.stages.lineage.auditing import audit_corpus

            answer = audit_corpus(corpus, question, given, on=corpus.clock().date())
        _show(answer, kind, out, as_json=as_json)
        if check and answer.violated:
            raise PolicyRefused(f"{question.number} {question.name}: {answer.verdict}")

    return ask


def _show(answer: Answer, kind: str, out: Path | None, *, as_json: bool) -> None:
    if as_json:
        emit(answer.to_json())
        return
    from corpusgen.stages.lineage.auditing import written

    text = written(answer, kind)  # type: ignore[arg-type] # click has checked the word
    if out is None:
        sys.stdout.write(text)
    else:
        from corpusgen.store.durable import write_file

        write_file(out, text.encode())
    if kind in ("json", "csv"):  # there is no place for them in what programs read
        for line in (*answer.problems, *answer.notes, answer.notice):
            click.echo(f"note: {harmless(line)}", err=True)
    elif out is not None:
        click.echo(f"{out}: {counted(answer.result.table.num_rows, 'row')}", err=True)


def _described(question: Question) -> dict[str, Any]:
    parameters = [
        {"name": one.name, "type": one.type, "default": one.default, "meaning": one.meaning}
        for one in question.parameters
    ]
    return {
        "number": question.number,
        "name": question.name,
        "title": question.title,
        "answer": question.answer,
        "cannot_tell": question.cannot_tell,
        "parameters": parameters,
        "passes_when_empty": question.passes_when_empty,
    }


def _usage(parameter: Parameter) -> str:
    shown = f"--{parameter.name} {parameter.type.upper()}"
    return shown if parameter.required else f"[{shown}]"
