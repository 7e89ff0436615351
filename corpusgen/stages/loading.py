"""Loading: a spec file becomes a task, every file it names read and checked, before anybody is asked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import orjson

from corpusgen.fields import Place
from corpusgen.prompting.prompts import Prompter
from corpusgen.records import Json, canonical_json
from corpusgen.shipped import here_or_shipped
from corpusgen.spec import Located, load_spec
from corpusgen.stages.task import Task
from corpusgen.stages.terms.files import files_of, read_registry
from corpusgen.teachers.json_schema import UnsoundSchema, check_schema


def load_task(path: Path) -> Task:
    """The task in a spec file, every file it names read once. Raises SpecError, PromptError or SeedError."""
    return task_of(load_spec(here_or_shipped(path)))


def task_of(located: Located) -> Task:
    """The task of a spec that was read already; errors as those of ``load_task``."""
    _check_notices(located)
    extra = [located.resolve(name) for name in located.spec.terms_files]
    prompter = Prompter.of(located)
    schema = _schema(located, prompter)
    _check_no_secret(located, schema)
    strata = located.spec.curate.diverse and located.spec.curate.diverse.strata
    prompter = replace(prompter, extra_columns=(strata,) if strata else ())
    prompter.check_seeds()
    registry = read_registry(files_of(None, *extra))
    task = Task(located=located, prompter=prompter, registry=registry, schema=schema)
    return _curated(task) if located.spec.curate.model_fields_set else task


def _check_no_secret(located: Located, schema: Json) -> None:
    """What goes along with every request is looked through once; messages are, before each is sent."""
    from corpusgen.curation.pii import secret_in

    spec = located.spec
    sent: list[tuple[Place, Json]] = [(("answer_schema",), schema), (("tools",), list(spec.tools))]
    sent += [(("teachers", at, "parameters"), teacher.parameters) for at, teacher in enumerate(spec.teachers)]
    if spec.curate.judge is not None:
        sent.append((("curate", "judge", "teacher", "parameters"), spec.curate.judge.teacher.parameters))
    for place, value in sent:
        if value and (found := secret_in(canonical_json(value).decode())) is not None:
            raise located.error(f"{found.reason} ({found.detail}); it is never sent, take it out", *place)


def _curated(task: Task) -> Task:
    """The task with its curation checked, and with what masks personal data. Raises SpecError or EvalFileError."""
    from corpusgen.stages.checks import blocked_kinds, check_curation, masking  # which need libraries few tasks need

    check_curation(task)
    task = replace(task, prompter=replace(task.prompter, treat=masking(task)), blocked=blocked_kinds(task))
    if task.spec.curate.judge is None:
        return task
    from corpusgen.stages.judgements import judging_of  # with Arrow, which tasks without a judge do without

    return replace(task, judging=judging_of(task))


def _schema(located: Located, prompter: Prompter) -> Json:
    """The schema of answers, sound; None where there is none."""
    spec = located.spec
    field = "answer_schema" if spec.answer_schema_file is None else "answer_schema_file"
    schema = spec.answer_schema if spec.answer_schema_file is None else _schema_file(located)
    if schema is None:
        return None
    if prompter.file.api != "chat":
        raise located.error(
            f"needs a chat, and {prompter.file.file} is api: {prompter.file.api}; write api: chat", field
        )
    try:
        check_schema(schema)
    except UnsoundSchema as error:
        inside = f" at {'.'.join(map(str, error.place))}" if field == "answer_schema_file" and error.place else ""
        raise located.error(f"is no JSON schema{inside}: {error}", field, *error.place) from error
    return schema


def _schema_file(located: Located) -> Json:
    path = located.resolve(located.spec.answer_schema_file or "")
    try:
        return orjson.loads(path.read_bytes())
    except OSError as error:
        raise located.error(f"{str(path)!r} cannot be read: {error.strerror}", "answer_schema_file") from error
    except orjson.JSONDecodeError as error:
        raise located.error(f"{str(path)!r} is not JSON: {error}", "answer_schema_file") from error


def _check_notices(located: Located) -> None:
    """Licence texts go into the sealed dataset; a missing one is better found before the answers are paid for."""
    for at, source in enumerate(located.spec.sources):
        try:
            source.notice and located.resolve(source.notice).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "is not UTF-8 text"
            raise located.error(f"{source.notice!r} cannot be read: {why}", "sources", at, "notice") from error
