"""A task: its spec, its prompt and the terms that may apply to it, and what asking its teachers takes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date
from hashlib import sha256

from corpusgen.budget.prices import Rate, rate_of
from corpusgen.corpus import Clock
from corpusgen.errors import LocatedError, PriceUnknown, UnsupportedParameter, UsageError
from corpusgen.prompting.prompts import Item, Prompter, Requester
from corpusgen.provenance.terms import Registry
from corpusgen.records import Json, Request, TeacherRole, canonical_json, digest
from corpusgen.spec import Located, TaskSpec
from corpusgen.teacher_fields import TeacherSpec
from corpusgen.teachers.batches import Batches
from corpusgen.teachers.registry import check_fits, check_parameters, check_size, open_teacher, resolved
from corpusgen.teachers.structured import told
from corpusgen.teachers.teacher import Teacher, TeacherCard


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a spec file says, with everything it names read."""

    located: Located
    prompter: Prompter
    registry: Registry
    schema: Json = None
    """What answers are held to."""
    at: int = 0
    """Which of the spec's teachers this is seen from."""
    blocked: frozenset[str] = frozenset()
    """Kinds of personal data that are never sent."""
    judging: Task | None = None
    """The task of scoring this one's answers, its teacher the judge; None where nobody is asked to."""
    judges: bool = False
    """Whether it is such a task."""
    filters: bool = False
    """Whether its scores decide which answers are kept."""

    @property
    def spec(self) -> TaskSpec:
        """The spec itself."""
        return self.located.spec

    @property
    def teacher(self) -> TeacherSpec:
        """The teacher that is asked, seen from one of several."""
        return self.located.spec.teachers[self.at]

    @property
    def of_each_teacher(self) -> tuple[Task, ...]:
        """The same task as each of its teachers sees it, in the order of the spec."""
        return tuple(replace(self, at=at) for at in range(len(self.spec.teachers)))

    @property
    def identity(self) -> str:
        """sha256 of spec, prompt and examples: under this name a run goes on."""
        of_file = [self.schema] if self.spec.answer_schema_file is not None else []
        return digest([self.spec.identity, self.prompter.file.digest, self.prompter.examples, *of_file])


def price_of(task: Task, on: date, *, batch: bool = False) -> Rate:
    """The price of a task's teacher on a day. Raises PriceUnknown with the line of the spec to change."""
    try:
        return rate_of(resolved(task.teacher), on=on, batch=batch)
    except PriceUnknown as error:
        raise PriceUnknown(f"{task.located.where('teachers', task.at)}: {error}") from error


def connect(task: Task, clock: Clock, *, sending: bool = True) -> Teacher:
    """The teacher a task asks, its spec's parameters checked; nothing is sent or started yet.

    Without ``sending`` its key need not be there. Raises UnknownTeacher, UnsupportedParameter or UsageError with the
    line of the spec to change.
    """
    with _at_its_line(task):
        teacher = open_teacher(task.teacher, folder=task.located.file.parent, clock=clock, sending=sending)
        tools = task.spec.tools or None
        check_parameters(teacher.card, task.teacher.parameters, task.prompter.file.api, tools=tools)
    _check_choices(task, teacher.card)
    return teacher


def _check_choices(task: Task, card: TeacherCard) -> None:
    """Raise UnsupportedParameter where one call is to bring more answers than the teacher gives to one."""
    wanted, most = task.spec.asking.samples_per_call, card.capabilities.choices
    if wanted <= most or role_of(task.spec, task.at) == "fallback":  # which is asked for one answer after the other
        return
    gives = "is not known to give several answers to one call" if most == 1 else f"gives at most {most} answers a call"
    known = f" (known on {card.capabilities.as_of})" if card.capabilities.as_of else ""
    raise UnsupportedParameter(
        f"{task.located.where('asking', 'samples_per_call')}: {card.name} {gives}, and asking.samples_per_call is"
        f" {wanted}; write {most}{', which asks for each by itself' if most == 1 else ''}{known}"
    )


def check_length(task: Task, teacher: Teacher, request: Request) -> None:
    """Raise UnsupportedParameter, with the line of the spec, for a prompt that no answer fits behind any more."""
    with _at_its_line(task):
        check_fits(teacher, request)


def check_sizes(task: Task, teacher: Teacher, item: Item, request: Request, batches: Batches | None) -> None:
    """Raise UnsupportedParameter, with seeds and item, for a request of more bytes than is taken, or fits a batch."""
    place = f"{task.located.where('seeds', item.split)}: item {item.item_id!r}"
    try:
        check_size(teacher, request)
    except UnsupportedParameter as error:
        raise UnsupportedParameter(f"{place}: {error}") from error
    if batches is None or len(request.body) * 4 <= batches.limits.size_bytes:
        return
    size, most = len(batches.line("", request)), batches.limits.size_bytes
    if size > most:
        raise UnsupportedParameter(
            f"{place}: a batch of {teacher.card.name} holds at most {most:,} bytes, and this request alone has"
            f" {size:,}; shorten what goes in, or remove asking.lane"
        )


@contextmanager
def _at_its_line(task: Task) -> Iterator[None]:
    """What is wrong with the teacher is said with the line of the spec to change."""
    try:
        yield
    except LocatedError:
        raise
    except UnsupportedParameter as error:
        found = error.complaints or [(_field(error), str(error))]
        lines = [f"{task.located.where('teachers', task.at, *field)}: {message}" for field, message in found]
        raise UnsupportedParameter("\n".join(lines)) from error
    except UsageError as error:
        raise type(error)(f"{task.located.where('teachers', task.at, *_field(error))}: {error}") from error


def _field(error: UsageError) -> tuple[str, ...]:
    """The field of the teacher that an error speaks of."""
    begins = str(error).partition(":")[0]
    if begins in TeacherSpec.model_fields:
        return (begins,)
    named = re.search(r"parameters\.(\w+)", str(error)) or re.search(r"takes no parameter '(\w+)'", str(error))
    if not isinstance(error, UnsupportedParameter):
        return ("name",)
    return ("parameters", named[1]) if named else ("parameters",)


def request_for(task: Task, card: TeacherCard, item: Item, sample: int) -> Request:
    """The request that asks a teacher about an item; a schema its server cannot hold it to stands in the prompt."""
    return requester_of(task, card)(item, sample)


def requester_of(task: Task, card: TeacherCard) -> Requester:
    """Makes the requests of ``request_for``; what all of them have in common is looked up once."""
    held = task.schema is None or card.capabilities.json_schema == "json_schema"
    teacher, model, parameters, schema = card.identity, card.model, task.teacher.parameters, task.schema
    api = card.chat_api if task.prompter.file.api == "chat" else "completion"
    tools = list(task.spec.tools) or None

    def of(item: Item, sample: int) -> Request:
        return Request(
            teacher=teacher,
            model=model,
            api=api,
            messages=item.messages if held else told(item.messages, schema),
            parameters=parameters,
            schema=schema,
            tools=tools,
            sample_index=sample,
        )

    return of


def requester(task: Task, cards: Sequence[TeacherCard]) -> Requester:
    """Makes the request for the n-th sample of an item, to whom of the task's teachers it falls."""
    each = [requester_of(view, card) for view, card in zip(task.of_each_teacher, cards, strict=True)]
    if len(each) == 1:
        return each[0]

    def of(item: Item, sample: int) -> Request:
        return each[first_asked(task.spec, item.item_id, sample)](item, sample)

    return of


def first_asked(spec: TaskSpec, item_id: str, sample: int) -> int:
    """Which teacher an item's sample falls to: the first, or by weight, whatever the order of the items."""
    weights = [teacher.weight or 0.0 for teacher in spec.teachers]
    if not any(weights):
        return 0
    written = canonical_json([item_id, sample, spec.asking.seed])
    left = int.from_bytes(sha256(written).digest()[:8]) / 2**64 * sum(weights)
    for at, weight in enumerate(weights):
        left -= weight
        if left < 0:
            return at
    return max(at for at, weight in enumerate(weights) if weight)  # what rounding left over


def followers(spec: TaskSpec, at: int) -> tuple[int, ...]:
    """Who is asked after a teacher that would or could not answer: with weights those of weight 0, else the later."""
    weighed = any(teacher.weight is not None for teacher in spec.teachers)
    later = range(len(spec.teachers)) if weighed else range(at + 1, len(spec.teachers))
    return tuple(other for other in later if other != at and not (weighed and spec.teachers[other].weight))


def role_of(spec: TaskSpec, at: int) -> TeacherRole:
    """Why a teacher of a spec is asked, when it is."""
    weight = spec.teachers[at].weight
    if weight is None:
        return "primary" if at == 0 else "fallback"
    return "mixture" if weight else "fallback"
