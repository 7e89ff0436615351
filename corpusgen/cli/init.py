"""``corpusgen init`` and ``corpusgen schema``: starting a task."""

from __future__ import annotations

import re
import sys
from contextlib import redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click

from corpusgen.cli.options import emit, json_option
from corpusgen.errors import LocatedError, UsageError

SPEC = """\
# yaml-language-server: $schema=task.schema.json
name: {name}
version: 1
description: {description}
prompt: prompt.md
input: text
kind: label
labels:
  names: [{labels}]

# What the student is for; the terms of teachers and sources are judged by it.
intended_use:
  student_distribution: {distribution}
  student_competes: "{competes}"
  commercial: {commercial}

sources:
  - id: my-texts
    title: My own texts
    licence: {licence}

seeds:
  train: {{path: seeds.jsonl, source: my-texts}}
examples: {{path: examples.jsonl, source: my-texts, gold: label}}

teachers:
  - name: {teacher}
{asked}

budget: {{tokens: 1000000}}

asking: {{limit: 1000, order: margin, first_round: 200, round: 200}}

# What is worth asking and keeping. Each part is optional; what is dropped has its row: corpusgen query "from drops"
curate:
  near: {{}}   # of texts that say almost the same, the first is asked about; another number or name is another text
  # decontaminate: {{files: [{{path: exam.jsonl}}]}}   # keeps out what the student will be tested on
  # pii: {{kinds: {{email: mask, phone: mask}}}}   # personal data; keys and passwords are never sent anyway
  # injection: {{action: report}}   # remarks on texts that try to command the teacher
  # quality: {{length: {{min_words: 3, sides: [prompt]}}, language: {{allowed: [en], sides: [prompt]}}}}
  # active: {{first: 200, round: 200, most: 1000}}   # asks in rounds until more labels would not help
"""

LOCAL = """\
    parameters: {max_tokens: 1, temperature: 0, top_logprobs: 100}
    free: true"""
"""A model inside this machine costs no money, and shows as many runners-up as it is asked for."""

REMOTE = """\
    parameters: %s
    # base_url: https://host.example/v1   # where the server is not the provider's own
    # free: true                          # if it costs no money; without it a price is looked up, or write price:"""

PROMPT = """\
---
name: {name}
version: 1
description: {description}
licence: CC0-1.0
api: completion
inputs: [text]
example: "Text: {{text}}\\nKind: {{label}}\\n\\n"
---
user:
{{examples}}Text: {{text}}
Kind:
"""
"""A small model goes on with a pattern better than it follows an instruction."""

CHAT_PROMPT = """\
---
name: {name}
version: 1
description: {description}
licence: CC0-1.0
api: chat
inputs: [text]
example: "Text: {{text}}\\nKind: {{label}}\\n\\n"
---
system:
Say of which kind a text is. Answer with one of these and nothing else: {kinds}.
user:
{{examples}}Text: {{text}}
Kind:
"""

SEEDS = """\
{"id": "1", "text": "the first text to label"}
{"id": "2", "text": "another text to label"}
"""


class _Question(click.Option):
    """Asks on stderr: stdout is for the answer of the command."""

    def prompt_for_value(self, ctx: click.Context) -> Any:
        try:
            with redirect_stdout(sys.stderr):
                return super().prompt_for_value(ctx)
        except click.Abort:
            if sys.stdin.isatty():
                raise
            raise click.UsageError(f"{self.opts[0]} is needed, and there is nobody to ask") from None


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--description", cls=_Question, prompt="What shall the student do, in one sentence")
@click.option(
    "--labels", cls=_Question, prompt="Labels, separated by commas", help="Such as: question,complaint,praise"
)
@click.option(
    "--distribution",
    cls=_Question,
    type=click.Choice(["internal", "hosted", "weights_released"]),
    prompt="Who gets the student: your own staff (internal), users of a service (hosted), anyone (weights_released)",
)
@click.option(
    "--competes",
    cls=_Question,
    type=click.Choice(["yes", "no", "unknown"]),
    prompt="Does it compete with a teacher's provider (unknown counts as yes)",
)
@click.option(
    "--commercial/--not-commercial", cls=_Question, prompt="Is it used to earn money", default=None, type=bool
)
@click.option(
    "--licence",
    cls=_Question,
    prompt="Licence of your texts, as SPDX spells it (such as CC-BY-4.0; LicenseRef-Own if all rights are yours)",
)
@click.option("--teacher", default="embedded/smollm2-135m", show_default=True)
@json_option
def init(
    folder: Path,
    description: str,
    labels: str,
    distribution: str,
    competes: str,
    commercial: bool,
    licence: str,
    teacher: str,
    as_json: bool,
) -> None:
    """Write a task to start from: spec, prompt, seeds and worked examples. Overwrites nothing."""
    name = re.sub(r"[^a-z0-9_-]+", "-", folder.resolve().name.lower()).strip("-_") or "task"
    names = [label.strip() for label in labels.split(",") if label.strip()]
    if len(names) < 2:
        raise UsageError(f"--labels: at least two are needed, found {labels!r}")
    local = teacher.startswith("embedded/")
    fields = {
        "name": _quoted(name),
        "description": _quoted(description),
        "labels": ", ".join(map(_quoted, names)),
        "distribution": distribution,
        "competes": competes,
        "commercial": str(commercial).lower(),
        "licence": _quoted(licence),
        "teacher": _quoted(teacher),
        "kinds": ", ".join(names),
        "asked": LOCAL if local else REMOTE % _parameters(teacher),
    }
    texts = {
        "task.yaml": SPEC.format(**fields),
        "prompt.md": (PROMPT if local else CHAT_PROMPT).format(**fields),
        "seeds.jsonl": SEEDS,
        "examples.jsonl": _examples(names),
        "task.schema.json": _schema_text(),
    }
    _try_out(texts)
    _write(folder, texts)
    if as_json:
        emit({"folder": str(folder), "files": list(texts)})
    else:
        click.echo(f"wrote {', '.join(texts)} to {folder}; put your texts into seeds.jsonl, then:")
        click.echo(f"  corpusgen plan {folder / 'task.yaml'}")


def _parameters(teacher: str) -> str:
    from corpusgen.stages.checking import label_parameters

    return "{" + ", ".join(f"{name}: {value}" for name, value in label_parameters(teacher).items()) + "}"


def _quoted(text: str) -> str:
    import orjson

    return orjson.dumps(text).decode()


def _examples(names: list[str]) -> str:
    import orjson

    rows = [{"id": f"example-{label}", "text": f"a text that is {label}", "label": label} for label in names]
    return "".join(orjson.dumps(row).decode() + "\n" for row in rows)


def _try_out(texts: dict[str, str]) -> None:
    """Load the task from a folder that goes away again, so that nothing wrong is ever left in the user's."""
    from corpusgen.stages.loading import load_task

    with TemporaryDirectory() as elsewhere:
        _write(Path(elsewhere), texts)
        try:
            load_task(Path(elsewhere) / "task.yaml")
        except LocatedError as error:
            wrong = "; ".join(f"{problem.field}: {problem.message}" for problem in error.problems)
            raise UsageError(f"the answers do not make a task: {wrong}") from error


def _write(folder: Path, texts: dict[str, str]) -> None:
    there = [name for name in texts if (folder / name).exists()]
    if there:
        raise UsageError(f"{folder} already holds {', '.join(there)}; name another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (folder / name).write_text(text, "utf-8")
    except OSError as error:
        raise UsageError(f"{folder}: cannot be written ({error.strerror})") from error


@click.command()
@click.option("--json", "as_json", is_flag=True, help="On one line, for programs; without it, indented for people.")
def schema(as_json: bool) -> None:
    """Print the JSON Schema of task specs, for editors that complete and check YAML."""
    if as_json:
        emit(_schema())
    else:
        click.echo(_schema_text(), nl=False)


def _schema() -> dict[str, object]:
    from corpusgen.spec import TaskSpec

    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **TaskSpec.model_json_schema()}


def _schema_text() -> str:
    import orjson

    return orjson.dumps(_schema(), option=orjson.OPT_INDENT_2).decode() + "\n"
