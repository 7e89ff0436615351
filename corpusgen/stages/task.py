"""A task, read and checked: its spec, its prompt and the terms that may apply to it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path

from corpusgen.budget.prices import Rate, rate_of
from corpusgen.corpus import Clock
from corpusgen.errors import LocatedError, PriceUnknown, UnsupportedParameter, UsageError
from corpusgen.prompting.prompts import Item, Prompter
from corpusgen.provenance.terms import Registry, load_registry
from corpusgen.records import Request, digest
from corpusgen.shipped import here_or_shipped, shipped
from corpusgen.spec import Located, TaskSpec, TeacherSpec, load_spec
from corpusgen.teachers.registry import check_parameters, open_teacher
from corpusgen.teachers.teacher import Teacher, TeacherCard


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a spec file says, with everything it names read."""

    located: Located
    prompter: Prompter
    registry: Registry

    @property
    def spec(self) -> TaskSpec:
        """The spec itself."""
        return self.located.spec

    @property
    def teacher(self) -> TeacherSpec:
        """The teacher that is asked."""
        return self.located.spec.teachers[0]

    @property
    def identity(self) -> str:
        """sha256 of spec, prompt and examples: under this name a run goes on."""
        return digest([self.spec.identity, self.prompter.file.digest, self.prompter.examples])


def load_task(path: Path) -> Task:
    """The task in a spec file, every file it names read once. Raises SpecError, PromptError or SeedError."""
    located = load_spec(here_or_shipped(path))
    _check_notices(located)
    extra = [located.resolve(name) for name in located.spec.terms_files]
    prompter = Prompter.of(located)
    prompter.check_seeds()
    return Task(located=located, prompter=prompter, registry=load_registry(shipped("data/terms.yaml"), *extra))


def _check_notices(located: Located) -> None:
    """Licence texts go into the sealed dataset; a missing one is better found before the answers are paid for."""
    for at, source in enumerate(located.spec.sources):
        try:
            source.notice and located.resolve(source.notice).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "is not UTF-8 text"
            raise located.error(f"{source.notice!r} cannot be read: {why}", "sources", at, "notice") from error


def price_of(task: Task, on: date) -> Rate:
    """The price of a task's teacher on a day. Raises PriceUnknown with the line of the spec to change."""
    try:
        return rate_of(task.teacher, on=on)
    except PriceUnknown as error:
        raise PriceUnknown(f"{task.located.where('teachers', 0)}: {error}") from error


def connect(task: Task, clock: Clock) -> Teacher:
    """The teacher a task asks, its spec's parameters checked; nothing is sent or started yet.

    Raises UnknownTeacher, UnsupportedParameter or UsageError with the line of the spec to change.
    """
    try:
        teacher = open_teacher(task.teacher, folder=task.located.file.parent, clock=clock)
        check_parameters(teacher.card, task.teacher.parameters, task.prompter.file.api)
    except LocatedError:
        raise
    except UsageError as error:
        field = str(error).partition(":")[0]
        place = field if field in TeacherSpec.model_fields else "name"
        if isinstance(error, UnsupportedParameter):
            place = "parameters"
        raise type(error)(f"{task.located.where('teachers', 0, place)}: {error}") from error
    return teacher


def request_for(task: Task, card: TeacherCard, item: Item, sample: int) -> Request:
    """The request that asks a teacher about an item."""
    return Request(
        teacher=card.identity,
        model=card.model,
        api=task.prompter.file.api,
        messages=item.messages,
        parameters=task.teacher.parameters,
        sample_index=sample,
    )
