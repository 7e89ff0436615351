"""``service.yaml``: whom the service may ask, for what use, and what it may cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import orjson
from pydantic import Field, ValidationError, model_validator

from corpusgen.curate_fields import Curate
from corpusgen.errors import Problem, SpecError, UsageError
from corpusgen.fields import NAME, Misplaced, Part, Place, Several, Unit
from corpusgen.records import Json
from corpusgen.spec import Agreement, Budget, IntendedUse, Organisation, Source, problems, read_yaml
from corpusgen.teacher_fields import TeacherSpec

FILE_NAME: Final = "service.yaml"
ALIAS: Final = r"^[A-Za-z0-9][A-Za-z0-9._:@/-]{0,127}$"
STUDENT: Final = "student/"
"""What the names of students begin with, for clients."""
CALLS: Final[Mapping[str, Json]] = {
    "id": "calls",
    "title": "What callers of the service sent",
    "licence": "LicenseRef-caller",
    "acquisition": "user_data",
}
"""The source of what callers send, where the file names none."""


class Offer(TeacherSpec):
    """A teacher, and the name clients ask it by."""

    model: str | None = Field(None, pattern=ALIAS, description="What clients write as model; else the teacher's name")


class StudentOffer(Part):
    """A trained student that answers under ``student/NAME``."""

    name: str = Field(pattern=NAME)
    student: str = Field(min_length=1, description="Id of a student of this corpus, or the path of its folder")
    teacher: str | None = Field(None, description="Model that is asked where the student is not sure enough")
    threshold: Annotated[float, Field(ge=0, le=1)] | None = Field(
        None, description="How sure the student must be; without it, as it was calibrated"
    )


class Limits(Part):
    """How much is done at once."""

    in_flight: Several = Field(4_096, description="Calls under way at once; more are told to come back")
    open_streams: Several = Field(2_000, description="Streamed answers at once")
    body_bytes: Several = Field(4 << 20, description="The largest request")
    per_token_per_minute: Several | None = Field(None, description="Calls a minute by one token")
    labels_per_token_per_day: Several = Field(
        1_000, description="Different run labels, tasks and uses by one token in a day; each is a run and a folder"
    )
    max_tokens: Several | None = Field(None, description="The most a call may ask for; else what the teacher gives")
    rooms: Several = Field(64, description="Runs kept open at once: one for each teacher, task, use and run label")
    idle_s: Several = Field(600, description="Seconds after which a run that nobody asks is closed")
    wait_s: Annotated[float, Field(gt=0, le=3_600)] = Field(
        60.0, description="Seconds a call may wait to be sent, for a teacher's rate limit or for money under way"
    )
    attempts: Annotated[int, Field(ge=1, le=20)] = Field(
        3, description="Tries of a call whose failure may pass; each may be on the bill"
    )
    file_bytes: Several = Field(64 << 20, description="The largest file of a batch, or batch that is sent as it is")
    files_bytes: Several = Field(1 << 30, description="Files of one user, all together")
    batch_lines: Several = Field(50_000, description="Calls in one batch")
    batches: Several = Field(16, description="Batches of one token under way at once")


class ServiceSpec(Part):
    """What a service offers."""

    task: str = Field("traffic", pattern=NAME, description="The task that calls are recorded under")
    intended_use: IntendedUse
    sources: tuple[Source, ...] = Field(
        (), description="Where what is sent comes from, first what callers write themselves; one is made up if none"
    )
    organisation: Organisation = Organisation()
    agreements: tuple[Agreement, ...] = ()
    terms_files: tuple[str, ...] = Field((), description="More terms documents, relative to this file")
    egress: Annotated[str, Field(pattern="^(any|none)$")] = Field(
        "any", description="none: nothing leaves this machine, whatever a teacher is"
    )
    teachers: tuple[Offer, ...] = Field(min_length=1, max_length=256)
    students: tuple[StudentOffer, ...] = ()
    budget: Budget = Field(
        Budget(), description="Caps of everything the service asks, until an administrator sets others"
    )
    limits: Limits = Limits()
    curate: Curate = Field(Curate(), description="pii: what of personal data is never sent")

    @model_validator(mode="after")
    def _whole(self) -> ServiceSpec:
        mistakes = [*self._called_twice(), *self._strangers(), *self._misplaced()]
        if mistakes:
            raise Misplaced(*mistakes)
        return self

    def _called_twice(self) -> Iterator[tuple[Place, str]]:
        times = Counter(alias_of(one) for one in self.teachers)
        for at, one in enumerate(self.teachers):
            if times[alias_of(one)] > 1:
                field = "model" if one.model else "name"
                yield (
                    ("teachers", at, field),
                    f"{alias_of(one)!r} names {times[alias_of(one)]} teachers; write model: another",
                )
            elif alias_of(one).startswith(STUDENT):
                yield ("teachers", at, "model"), f"names that begin with {STUDENT} are for students; write another"
        names = Counter(one.name for one in self.students)
        for at, student in enumerate(self.students):
            if names[student.name] > 1:
                yield (
                    ("students", at, "name"),
                    f"{student.name!r} names {names[student.name]} students; rename all but one",
                )

    def _strangers(self) -> Iterator[tuple[Place, str]]:
        known = by_name(self.teachers)
        for at, one in enumerate(self.students):
            if one.teacher is not None and one.teacher not in known:
                yield (
                    ("students", at, "teacher"),
                    f"{one.teacher!r} is not among the models: {', '.join(sorted(known))}",
                )

    def _misplaced(self) -> Iterator[tuple[Place, str]]:
        for at, one in enumerate(self.teachers):
            if one.weight is not None:
                yield ("teachers", at, "weight"), "clients choose who is asked; remove it"
        for name in sorted(self.curate.model_fields_set - {"pii"}):
            yield ("curate", name), "is for tasks; of curate, a service takes pii"


def alias_of(offer: Offer) -> str:
    """The name clients ask a teacher by."""
    return offer.model or offer.name


def by_name(offers: tuple[Offer, ...]) -> dict[str, int]:
    """Every name that a teacher answers to, and which it is: its alias, and its model's name where only one has it."""
    bare = Counter(one.name.partition("/")[2] for one in offers)
    found = {name: at for at, one in enumerate(offers) if bare[name := one.name.partition("/")[2]] == 1}
    return (
        found
        | {one.name: at for at, one in enumerate(offers) if one.model is None}
        | {alias_of(one): at for at, one in enumerate(offers)}
    )


@dataclass(frozen=True, kw_only=True)
class Configured:
    """A service's spec with the file it came from, so that paths resolve and messages point at lines."""

    spec: ServiceSpec
    file: Path
    lines: Mapping[Place, int]
    fields: Mapping[str, Json]
    """The file's own words, which a run's spec repeats: amounts are not yet counted in micro-dollars there."""

    def where(self, *field: str | int) -> str:
        """``file:line`` of a field, for messages."""
        return f"{self.file}:{self.line(*field)}"

    def line(self, *field: str | int) -> int:
        """The line a field stands on, or the nearest enclosing one."""
        ends = (field[:end] for end in range(len(field), -1, -1))
        return next((self.lines[place] for place in ends if place in self.lines), 1)

    def error(self, message: str, *field: str | int) -> SpecError:
        """An error that points at a field of the file."""
        name = ".".join(map(str, field))
        return SpecError(Problem(file=self.file, line=self.line(*field), field=name, message=message))


def load_config(path: Path) -> Configured:
    """The service in a file. Raises SpecError with every problem found, each with its line."""
    value, lines = read_yaml(path)
    if not isinstance(value, dict):
        raise SpecError(Problem(file=path, line=1, field="", message="a service is a mapping of fields"))
    return _configured(path.resolve(), value, lines)


def _configured(path: Path, value: dict[str, Json], lines: Mapping[Place, int]) -> Configured:
    try:
        spec = ServiceSpec.model_validate_json(orjson.dumps(value))
    except ValidationError as error:
        raise SpecError(*problems(path, dict(lines), error, ServiceSpec)) from error
    return Configured(spec=spec, file=path, lines=lines, fields=value)


def config_of(path: Path | None, folder: Path) -> Configured:
    """The service in a named file, else in ``service.yaml`` of a folder, else the teacher that runs in this process.

    Raises UsageError saying how to begin where there is neither.
    """
    if path is not None:
        return load_config(path)
    if (folder / FILE_NAME).exists():
        return load_config(folder / FILE_NAME)
    return _built_in(folder / FILE_NAME)


def _built_in(path: Path) -> Configured:
    from corpusgen.teachers.embedded import MODELS, find_weights, runtime_installed

    name = next(iter(MODELS))
    if not runtime_installed() or find_weights(MODELS[name]) is None:
        raise UsageError(
            f"there is no {path}, and no teacher is installed that needs none; write one with corpusgen serve --init"
            f" and name a teacher there, or install one: corpusgen teachers install {name}"
        )
    teacher = {"name": f"embedded/{name}", "free": True, "parameters": {"max_tokens": 256}}
    return _configured(path, {**_BUILT_IN, "teachers": [teacher]}, {})


_BUILT_IN: Final[Mapping[str, Json]] = {
    "intended_use": {"student_distribution": "internal", "student_competes": "unknown", "commercial": False}
}

EXAMPLE: Final = """\
# What `corpusgen serve` offers, and what it may cost. Every field: docs/gateway.md
task: traffic                       # calls are recorded under this name
intended_use:                       # the terms of teachers are judged by it
  student_distribution: internal    # internal, hosted, weights_released
  student_competes: "no"            # unknown counts as yes
  commercial: false
budget:
  usd: 5                            # everything together; 0 sends nothing
teachers:
  # In this process, no key, no money; install it: corpusgen teachers install smollm2-135m
  - name: embedded/smollm2-135m
    free: true
    parameters: {max_tokens: 256}
  # A provider; its key stands in the environment variable of its name, here OPENAI_API_KEY:
  # - name: openai/gpt-4.1-mini
  #   model: gpt-4.1-mini           # what clients write
  #   parameters: {max_tokens: 1024}
  # Any OpenAI-compatible server:
  # - name: endpoint/my-model
  #   base_url: http://127.0.0.1:8000/v1
  #   provider: us
  #   route: self_hosted
  #   free: true
  #   parameters: {max_tokens: 1024}
# students:
#   - {name: words, student: 3f2a…, teacher: gpt-4.1-mini}
# limits: {in_flight: 512, per_token_per_minute: 600, max_tokens: 4096}
"""
"""What ``corpusgen serve --init`` writes."""


def begun(teachers: Sequence[str], mock: str | None, caps: Mapping[Unit, int]) -> str:
    """A service.yaml that offers these teachers, and the mock teacher at an address, under these caps."""
    if not teachers and mock is None and not caps:
        return EXAMPLE
    lines = EXAMPLE.splitlines(keepends=True)
    budget, offers, rest = (lines.index(f"{name}:\n") for name in ("budget", "teachers", "# students"))
    figures = [f"  {_WRITTEN[unit](cap)}\n" for unit, cap in caps.items()] or lines[budget + 1 : offers]
    offered = [_OFFER.format(name=name, model=name.partition("/")[2]) for name in teachers]
    offered += [] if mock is None else [_MOCK.format(base_url=mock)]
    made = [*lines[: budget + 1], *figures, "teachers:\n", *(offered or lines[offers + 1 : rest]), *lines[rest:]]
    return "".join(made)


_WRITTEN: Final[Mapping[Unit, Callable[[int], str]]] = {
    "microusd": lambda cap: f"usd: {cap / 1_000_000:.6f}".rstrip("0").rstrip("."),
    "tokens": lambda cap: f"tokens: {cap}",
    "requests": lambda cap: f"requests: {cap}",
    "compute_us": lambda cap: f"compute_s: {cap / 1_000_000:g}",
    "wall_us": lambda cap: f"wall_s: {cap / 1_000_000:g}",
}
_OFFER: Final = """\
  - name: {name}
    model: {model}
    parameters: {{max_tokens: 1024}}
"""
_MOCK: Final = """\
  - name: endpoint/mock-teacher       # corpusgen mock-teacher, which stands in for OpenAI and Anthropic
    model: mock-teacher
    base_url: {base_url}
    provider: corpusgen
    route: mock
    price: {{input_usd_per_mtok: "1", output_usd_per_mtok: "4", source: what it charges unless told otherwise}}
    parameters: {{max_tokens: 1024}}
"""
