"""A task spec: what to ask, whom, for what use, and how much it may cost.

YAML 1.1's surprises are closed: a key may stand once, aliases and tags are refused, and only ``true`` and ``false`` are
booleans. Every problem of a file is reported at once, each with its line.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

import orjson
import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from corpusgen.curate_fields import Curate
from corpusgen.errors import Problem, SpecError
from corpusgen.fields import (
    NAME,
    Count,
    MicroUsd,
    Misplaced,
    Part,
    Place,
    Seconds,
    Seed,
    Several,
    Unit,
    shown,
)
from corpusgen.records import Json, digest
from corpusgen.teacher_fields import TeacherSpec

MAX_BYTES = 1_000_000
MAX_DEPTH = 20


class Budget(Part):
    """Caps of one run, over all its starts. 0 sends nothing; a cap left out does not bind."""

    usd: MicroUsd | None = Field(None, description="Dollars; kept as integer micro-dollars")
    tokens: Count | None = Field(None, description="Input and output tokens together")
    requests: Count | None = Field(None, description="Requests sent, every try counted")
    compute_s: Seconds | None = Field(
        None, description="Processor seconds of your own machines: local teachers and training"
    )
    wall_s: Seconds | None = Field(None, description="Seconds that processes work on the run, added up over them")
    compute_usd_per_hour: MicroUsd | None = Field(
        None, description="What an hour of your own processor is worth to you; shown beside usd, never counted in it"
    )

    def caps(self) -> dict[Unit, int]:
        """The caps that bind, by unit."""
        every: dict[Unit, int | None] = {
            "microusd": self.usd,
            "tokens": self.tokens,
            "requests": self.requests,
            "compute_us": self.compute_s,
            "wall_us": self.wall_s,
        }
        return {unit: cap for unit, cap in every.items() if cap is not None}


class IntendedUse(Part):
    """What the student is for; the terms of teachers and sources are judged by it."""

    student_distribution: Literal["internal", "hosted", "weights_released"] = Field(
        description="Who gets the student: your own staff, users of a service, anyone"
    )
    student_competes: Literal["yes", "no", "unknown"] = Field(
        description="Does the student compete with a teacher's provider? unknown counts as yes"
    )
    commercial: bool = Field(description="Is the student used to earn money?")
    accepted_duties: tuple[str, ...] = Field((), description="Duties you will carry out, such as attribution or naming")


class Agreement(Part):
    """What a provider has agreed to in writing about data that is sent to it."""

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")
    host: str = Field(description="The host it is about, such as api.mistral.ai")
    kind: Literal["dpa", "zero_retention", "order_form", "other"] = Field(
        "dpa", description="dpa: a data processing agreement"
    )
    classes: tuple[str, ...] = Field((), description="Classes of personal data it covers; empty: all")
    regions: tuple[str, ...] = Field((), description="Regions it holds for; empty: any")
    retention_days: Annotated[int, Field(ge=0)] | None = None
    valid_from: date | None = None
    valid_until: date | None = None
    evidence: str | None = Field(None, description="Where the signed paper is, for whoever asks")


class Organisation(Part):
    """Facts about whoever uses the student, which some licences ask for."""

    monthly_active_users: Annotated[int, Field(ge=0)] | None = None
    annual_revenue_usd: Annotated[int, Field(ge=0)] | None = None
    domiciled_in: tuple[str, ...] = Field((), description="Countries or regions, such as eu")


class Source(Part):
    """Where seed text comes from and under which licence."""

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")
    title: str
    licence: str = Field(description="SPDX identifier or LicenseRef-…")
    locator: str | None = None
    notice: str | None = Field(None, description="File whose text must go along with every copy, relative to this spec")
    generated_by: tuple[str, ...] = Field(
        (), description="Terms documents that models which wrote this text were under, where models wrote it"
    )
    rightsholder: str | None = Field(None, description="Who owns the rights, for takedown requests")
    acquisition: Literal["own", "licensed", "public_dataset", "crawl", "user_data", "synthetic"] | None = None
    acquired: date | None = Field(None, description="The day it was fetched or received")
    copyright_status: Literal["copyright", "public_domain", "mixed", "unknown"] | None = None
    personal_data: tuple[str, ...] = Field(
        (), description="Classes of personal data it holds, such as contact, health; empty: none that you know of"
    )
    lawful_basis: str | None = Field(None, description="Why its personal data may be processed, such as consent")
    processing_regions: tuple[str, ...] = Field(
        (), description="The only regions its text may be sent to, such as eu; empty: any"
    )


class Seeds(Part):
    """One seed file: Parquet, CSV or JSON Lines, one row per item."""

    path: str
    id: str = Field("id", description="Column with the item's lasting name")
    source: str = Field(description="Id of one of the sources")
    parent: str | None = Field(
        None, description="Column with the id, or a list of ids, of the records of this corpus the row was made from"
    )
    gold: str | None = Field(None, description="Column with the true answer; only in validation and gold")
    limit: Several | None = Field(None, description="Only the first so many rows")


class SeedFiles(Part):
    """The items to ask about, by what they are for."""

    train: Seeds
    validation: Seeds | None = None
    gold: Seeds | None = None


class Labels(Part):
    """The closed set a teacher chooses from."""

    names: tuple[str, ...] = Field(min_length=2)

    @model_validator(mode="after")
    def _distinct(self) -> Labels:
        mistakes = list(self._mistakes())
        if mistakes:
            raise Misplaced(*mistakes)
        return self

    def _mistakes(self) -> Iterator[tuple[Place, str]]:
        first: dict[str, int] = {}
        for at, name in enumerate(self.names):
            place: Place = ("names", at)
            if not name.strip() or name != name.strip() or not name.isprintable():
                yield place, f"label {name!r} must be printable text without space around it"
                continue
            other = first.setdefault(name.split()[0].casefold(), at)
            if other != at:
                alike = self.names[other]
                same = "stands twice" if alike == name else f"begins with the same word as {alike!r}"
                yield place, f"label {name!r} {same}; labels are told apart by how they begin, so rename one"


class Asking(Part):
    """How many items to ask about and in which order."""

    limit: Several = Field(1_500, description="Items of the pool to ask about")
    order: Literal["file", "random", "margin", "diverse"] = Field(
        "margin",
        description="margin: in rounds, what the student is least sure of; needs labels. diverse: what covers the pool",
    )
    first_round: Several = Field(400, description="Items in the first, random round; the calibration sample")
    round: Several = Field(400, description="Items in each later round")
    seed: Seed = 1
    samples: Annotated[int, Field(ge=1, le=64)] = Field(1, description="Answers per item")
    samples_per_call: Annotated[int, Field(ge=1, le=64)] = Field(
        1, description="Answers that one call asks for (n), where the teacher gives several; input is paid for once"
    )
    lane: Literal["live", "batch", "auto"] = Field(
        "live", description="batch: half the price, answers within a day; auto: in batches if the deadline allows it"
    )
    deadline: Annotated[float, Field(gt=0, le=8_760)] | None = Field(
        None, description="For lane: auto, hours from the run's first start until the answers are needed"
    )
    batch_size: Annotated[int, Field(ge=1, le=100_000)] | None = Field(
        None, description="Most requests of one batch; without it, as many as the provider takes"
    )

    @model_validator(mode="after")
    def _timed(self) -> Asking:
        if self.lane == "auto" and self.deadline is None:
            raise Misplaced((("lane",), "auto needs deadline: <hours from the first start until answers are needed>"))
        if self.lane != "auto" and self.deadline is not None:
            raise Misplaced((("deadline",), f"is for lane: auto, and lane is {self.lane}; remove one"))
        if self.samples_per_call > 1:
            mistakes = [(("samples_per_call",), message) for message in self._mistaken_together()]
            if mistakes:
                raise Misplaced(*mistakes)
        return self

    def _mistaken_together(self) -> Iterator[str]:
        """What speaks against several answers to a call."""
        if self.samples_per_call > self.samples:
            yield f"is at most asking.samples, which is {self.samples}; raise that, or lower this"
        if self.lane != "live":
            yield f"lines of a batch ask for one answer each, and lane is {self.lane}; remove one"


class BaseModelSpec(Part):
    """Weights that a student begins with; their licence is judged when it is trained and when it is released."""

    model: str = Field(min_length=1, description="As its publisher spells it, such as meta-llama/Llama-3.2-1B")
    provider: str = Field(min_length=1, description="Who published it, as the terms registry spells it")
    weights_sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")
    terms: tuple[str, ...] = Field((), description="Terms documents it is known to be under")


class StudentSpec(Part):
    """What learns from the records."""

    kind: Literal["bag"] = "bag"
    base: BaseModelSpec | None = Field(None, description="The model it is made from, where it is not made from nothing")
    loss: Literal["auto", "hard", "soft", "both"] = Field(
        "auto", description="auto: chosen on teacher-labelled held-out items"
    )
    seed: Seed = 1


class Aims(Part):
    """What the run hopes to reach; the report says plainly what it missed."""

    teacher_accuracy: float | None = None
    retention: float | None = Field(None, description="Student accuracy over teacher accuracy")
    retention_low: float | None = Field(None, description="Lower end of its 95 % interval")
    cost_ratio: float | None = Field(None, description="Teacher's processor time over the student's, at batch 64")


_OF_NO_QUESTION = {"budget", "aims", "description", "curate", "agreements", "organisation", "egress"}
_TOLD_OF_SOURCES = tuple(
    name for name in Source.model_fields if name not in ("id", "title", "licence", "locator", "notice")
)
_NOT_ASKED_WITH = ("in_flight", "rate", "timeout_s", "price", "free", "unbilled", "transport", "region", "unpaid")
"""Fields that a task's identity leaves out: with others it is still the same question to the same teacher."""

_OTHER_NAMES = {"order": "", "limit": "most", "first_round": "first", "round": "round", "seed": "seed"}
"""What fields of asking are called in curate.active."""


class TaskSpec(Part):
    """A whole task. ``corpusgen schema`` prints this as JSON Schema for editors."""

    name: str = Field(pattern=NAME)
    version: Count = 1
    description: str = ""
    prompt: str = Field(description="Prompt file, relative to this spec")
    input: str = Field(description="Template variable a student will read")
    kind: Literal["label", "response"] = "label"
    intended_use: IntendedUse
    sources: tuple[Source, ...] = Field(min_length=1)
    seeds: SeedFiles
    examples: Seeds | None = Field(None, description="Worked examples for the prompt")
    labels: Labels | None = None
    teachers: tuple[TeacherSpec, ...] = Field(
        min_length=1,
        max_length=16,
        description="Who is asked; of several without weights the next where the one before would or could not answer",
    )
    answer_schema: dict[str, Any] | None = Field(
        None, description="JSON schema that answers are held to; for kind: response"
    )
    answer_schema_file: str | None = Field(
        None, description="JSON file with that schema, relative to this spec, in place of answer_schema"
    )
    tools: tuple[dict[str, Any], ...] = Field(
        (), description="Functions the teacher may call, as OpenAI's chat spells them; for kind: response"
    )
    terms_files: tuple[str, ...] = Field((), description="More terms documents, relative to this spec")
    answers_as: Literal["response", "rationale", "preference", "filter", "simulated_user", "paraphrase"] = Field(
        "response", description="What the answers are used as; the terms count every use of a teacher alike"
    )
    agreements: tuple[Agreement, ...] = Field((), description="What providers have agreed to about personal data")
    organisation: Organisation = Organisation()
    egress: Literal["any", "none"] = Field(
        "any", description="none: nothing leaves this machine, whatever a teacher is"
    )
    budget: Budget = Budget()
    asking: Asking = Asking()
    curate: Curate = Field(
        Curate(), description="What is worth asking and worth keeping; without it only exact repeats go"
    )
    student: StudentSpec = StudentSpec()
    aims: Aims = Aims()

    @model_validator(mode="after")
    def _whole(self) -> TaskSpec:
        mistakes = [*self._misnamed_sources(), *self._contradictions(), *self._baseless(), *self._misjudged()]
        mistakes += self._unlike_teachers()
        if mistakes:
            raise Misplaced(*mistakes)
        return self

    def _misnamed_sources(self) -> Iterator[tuple[Place, str]]:
        times = Counter(source.id for source in self.sources)
        for at, source in enumerate(self.sources):
            if times[source.id] > 1:
                yield ("sources", at, "id"), f"{source.id!r} names {times[source.id]} sources; rename all but one"
        places: dict[Place, Seeds | None] = {
            ("seeds", "train"): self.seeds.train,
            ("seeds", "validation"): self.seeds.validation,
            ("seeds", "gold"): self.seeds.gold,
            ("examples",): self.examples,
        }
        for place, seeds in places.items():
            if seeds is not None and seeds.source not in times:
                yield (*place, "source"), f"{seeds.source!r} is not among sources: {', '.join(sorted(times))}"

    def _contradictions(self) -> Iterator[tuple[Place, str]]:
        if self.kind == "label":
            for field in ("answer_schema", "answer_schema_file", "tools"):
                if getattr(self, field):
                    yield (field,), f"{field} is for kind: response; remove it"
            yield from self._of_one_answer()
            if self.asking.order == "diverse":
                yield ("asking", "order"), "diverse is for kind: response; for labels, curate.active covers the pool"
            if self.labels is None:
                yield ("kind",), "kind: label needs labels: {names: [...]}"
            for split in ("validation", "gold"):
                seeds: Seeds | None = getattr(self.seeds, split)
                if seeds is not None and seeds.gold is None:
                    yield ("seeds", split), "gold is required: the column with the true label"
            yield from self._said_twice()
        else:
            if self.labels is not None:
                yield ("labels",), "labels are for kind: label; remove them, or write kind: label"
            if self.curate.active is not None:
                yield ("curate", "active"), "asks for labels in rounds; remove it, or write kind: label"
            if self.asking.order == "margin":
                place: Place = ("asking", "order") if "order" in self.asking.model_fields_set else ("asking",)
                yield place, "order: margin is for kind: label; write order: file, random or diverse"

        if self.answer_schema is not None and self.answer_schema_file is not None:
            yield ("answer_schema_file",), "there is answer_schema as well; remove one"

    def _of_one_answer(self) -> Iterator[tuple[Place, str]]:
        if self.asking.samples_per_call > 1:
            place = ("asking", "samples_per_call")
            yield place, "is for kind: response: a label is read from one answer; remove it"

    def _baseless(self) -> Iterator[tuple[Place, str]]:
        if self.student.kind == "bag" and self.student.base is not None:
            yield ("student", "base"), "the bag student is made from nothing; remove base"

    def _misjudged(self) -> Iterator[tuple[Place, str]]:
        if self.kind == "label" and self.curate.judge is not None:
            yield ("curate", "judge"), "scores free text; remove it, or write kind: response"

    def _said_twice(self) -> Iterator[tuple[Place, str]]:
        """What asking and curate.active say differently of the same thing."""
        if self.curate.active is None:
            return
        asked = self.questions
        for name, other in _OTHER_NAMES.items():
            written, meant = getattr(self.asking, name), getattr(asked, name)
            if name in self.asking.model_fields_set and written != meant:
                says = "asks in rounds" if name == "order" else f"says {other}: {meant}"
                yield ("asking", name), f"is {written} here, and curate.active {says}; remove one"

    @property
    def questions(self) -> Asking:
        """How many items are asked about and in which order, whether asking says so or curate.active."""
        active = self.curate.active
        if active is None:
            return self.asking
        told = {"limit": active.most, "first_round": active.first, "round": active.round, "seed": active.seed}
        return self.asking.model_copy(update={"order": "margin", **told})

    def _unlike_teachers(self) -> Iterator[tuple[Place, str]]:
        """What several teachers of one task may not be."""
        if len(self.teachers) == 1:
            if self.teachers[0].weight is not None:
                yield ("teachers", 0, "weight"), "is a share among several teachers; remove it"
            return
        if self.kind == "label":
            # Each teacher's log-probabilities are off in their own way, and one calibration is chosen for all.
            yield ("teachers", 1), "kind: label takes one teacher: one calibration cannot fit several"
        if self.asking.lane != "live":
            yield ("asking", "lane"), f"{self.asking.lane} is for one teacher; several are asked live, so remove it"
        yield from self._misweighed()
        first: dict[str, int] = {}
        for at, teacher in enumerate(self.teachers):
            if (other := first.setdefault(teacher.name, at)) != at:
                yield ("teachers", at, "name"), f"{teacher.name!r} stands at teachers.{other} already; remove one"

    def _misweighed(self) -> Iterator[tuple[Place, str]]:
        weights = [teacher.weight for teacher in self.teachers]
        if all(weight is None for weight in weights):
            return
        for at, weight in enumerate(weights):
            if weight is None:
                yield ("teachers", at), "needs weight, as the others have: its share, or 0 to be asked last"
        if None not in weights and not any(weights):
            yield ("teachers", 0, "weight"), "one weight must be more than 0"

    @property
    def identity(self) -> str:
        """sha256 of what is asked and how, without budget, price, aims and speed: the task goes on under this name."""
        # Defaults are left out, so that a field a later corpusgen adds does not begin every run anew.
        fields = self.model_dump(mode="json", exclude=_OF_NO_QUESTION, exclude_defaults=True)
        for source in fields["sources"]:  # what is told of a source for the record asks for nothing else
            for name in _TOLD_OF_SOURCES:
                source.pop(name, None)
        for teacher in fields["teachers"]:
            # A corrected price must not begin a new run, whose cap would be whole again.
            for name in _NOT_ASKED_WITH:
                teacher.pop(name, None)
        # What is dropped or masked is a matter of which rows there are; only the way of asking makes another task.
        if self.curate.active is not None:
            fields["curate"] = {"active": self.curate.active.model_dump(mode="json", exclude_defaults=True)}
        # The same question by another lane is the same task; what is left must look as if nothing had been written.
        asking = fields.pop("asking", {})
        if kept := {name: value for name, value in asking.items() if name not in ("lane", "deadline", "batch_size")}:
            fields["asking"] = kept
        return digest(fields)


@dataclass(frozen=True, kw_only=True)
class Located:
    """A spec with the file it came from, so that paths resolve and errors point at lines."""

    spec: TaskSpec
    file: Path
    lines: dict[Place, int]

    def resolve(self, relative: str) -> Path:
        """A path in the spec, relative to the spec's folder."""
        return (self.file.parent / relative).resolve()

    def line(self, *field: str | int) -> int | None:
        """The line a field stands on, or the nearest enclosing one."""
        return _line(self.lines, field)

    def where(self, *field: str | int) -> str:
        """``file:line`` of a field, for messages."""
        return f"{self.file}:{self.line(*field) or 1}"

    def problem(self, message: str, *field: str | int) -> Problem:
        """What is wrong with a field of this spec, with its line."""
        return _problem(self.file, self.line(*field), field, message)

    def error(self, message: str, *field: str | int) -> SpecError:
        """An error that points at a field of this spec."""
        return SpecError(self.problem(message, *field))


def load_spec(path: Path) -> Located:
    """The task spec in a file. Raises SpecError with every problem found."""
    value, lines = read_yaml(path)
    if not isinstance(value, dict):
        raise SpecError(Problem(file=path, line=1, field="", message="a task spec is a mapping of fields"))
    try:
        # Strict models take tuples only from JSON; going through it keeps "3" from passing as 3 and lists as tuples.
        return Located(spec=TaskSpec.model_validate_json(orjson.dumps(value)), file=path, lines=lines)
    except ValidationError as error:
        raise SpecError(*problems(path, lines, error, TaskSpec)) from error


def problems(path: Path, lines: dict[Place, int], error: ValidationError, whole: type[BaseModel]) -> Iterator[Problem]:
    """What pydantic found wrong in a file, in a person's words and each at its line."""
    for place, message in mistakes_of(error, whole):
        yield _problem(path, _line(lines, place), place, message)


def mistakes_of(error: ValidationError, whole: type[BaseModel]) -> Iterator[tuple[Place, str]]:
    """What pydantic found wrong, in a person's words, each with the path of its field."""
    for found in error.errors():
        yield from _worded(found, whole)


def _worded(found: Any, whole: type[BaseModel]) -> Iterator[tuple[Place, str]]:
    place: Place = found["loc"]
    cause = found.get("ctx", {}).get("error")
    if isinstance(cause, Misplaced):
        yield from ((place + deeper, message) for deeper, message in cause.mistakes)
    elif cause is not None:
        yield place, str(cause)
    elif found["type"] == "extra_forbidden":
        yield place, f"no such field{_suggestion(str(place[-1]), place[:-1], whole)}"
    elif found["type"] == "too_short" and len(found["input"]) >= found["ctx"]["min_length"]:
        return  # pydantic counts sound items only; those that are not sound are reported themselves
    elif found["type"] == "missing":
        yield place, "this field is required"
    else:
        yield place, f"{_wanted(found)}, found {shown(found['input'])}"


def _wanted(found: Any) -> str:
    details = found.get("ctx", {})
    words = {
        "string_type": "must be text",
        "bool_type": "must be true or false",
        "int_type": "must be a whole number",
        "int_from_float": "must be a whole number",
        "float_type": "must be a number",
        "tuple_type": "must be a list: [one, two]",
        "dict_type": "must be fields: {name: value}",
        "model_type": "must be fields: {name: value}",
        "literal_error": f"must be one of {details.get('expected', '').replace(' or ', ', ')}",
        "string_pattern_mismatch": f"must look like {details.get('pattern')}",
        "too_short": f"needs at least {details.get('min_length')}",
        "too_long": f"may have at most {details.get('max_length')}",
        "greater_than": f"must be more than {details.get('gt')}",
        "greater_than_equal": f"must be {details.get('ge')} or more",
        "less_than_equal": f"must be {details.get('le')} or less",
    }
    text = words.get(found["type"], str(found["msg"]))
    is_number = found["type"] == "string_type" and isinstance(found["input"], int | float)
    return f"{text}, in quotes" if is_number else text


def _problem(path: Path, line: int | None, field: Place, message: str) -> Problem:
    return Problem(file=path, line=line, field=".".join(map(str, field)), message=message)


def _line(lines: dict[Place, int], field: Place) -> int | None:
    for end in range(len(field), -1, -1):
        if field[:end] in lines:
            return lines[field[:end]]
    return None


def _suggestion(word: str, parent: Place, whole: type[BaseModel]) -> str:
    from difflib import get_close_matches

    part: Any = whole
    for step in parent:
        if isinstance(step, str) and _is_part(part) and step in part.model_fields:
            part = _part_of(part.model_fields[step].annotation)
    known = list(part.model_fields) if _is_part(part) else []
    close = get_close_matches(word, known, n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; fields here: {', '.join(known)}" if known else ""


def _part_of(annotation: Any) -> Any:
    if isinstance(annotation, type):
        return annotation
    parts = [_part_of(argument) for argument in getattr(annotation, "__args__", ())]
    return next((part for part in parts if _is_part(part)), None)


def _is_part(part: Any) -> bool:
    return isinstance(part, type) and issubclass(part, BaseModel)


# --- YAML ------------------------------------------------------------------------------------------------------------

_FLOAT = re.compile(r"^[-+]?(?:(?:0|[1-9][\d_]*)\.\d*|\.\d+|(?:0|[1-9][\d_]*)(?=[eE]))(?:[eE][-+]?\d+)?$")


_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")

_Safe: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml reads the terms registry 20 times faster


class _Loader(_Safe):  # type: ignore[misc] # one of two classes of the same shape
    """Safe YAML in which only true, false, null and numbers are not text."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("tag:yaml.org,2002:bool", re.compile(r"^(?:true|false)$"), "tf"),
    ("tag:yaml.org,2002:null", re.compile(r"^(?:~|null|)$"), ["~", "n", ""]),
    ("tag:yaml.org,2002:int", re.compile(r"^[-+]?(?:0|[1-9][\d_]*)$"), "-+0123456789"),
    ("tag:yaml.org,2002:float", _FLOAT, "-+.0123456789"),
):
    _Loader.add_implicit_resolver(_tag, _pattern, list(_first))


def _float(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> float:
    return float(str(loader.construct_scalar(node)).replace("_", ""))


_Loader.add_constructor("tag:yaml.org,2002:float", _float)


def read_yaml(path: Path) -> tuple[Json, dict[Place, int]]:
    """The value in a YAML file and the line of every field. Raises SpecError for anything unsafe or ambiguous."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise SpecError(Problem(file=path, line=None, field="", message=f"cannot be read: {error.strerror}")) from error
    if len(raw) > MAX_BYTES:
        raise SpecError(
            Problem(
                file=path, line=None, field="", message=f"is larger than {MAX_BYTES:,} bytes; is it the right file?"
            )
        )
    return parse_yaml(path, raw)


def parse_yaml(path: Path, raw: bytes, *, first_line: int = 1) -> tuple[Json, dict[Place, int]]:
    """As read_yaml, for text that is part of a file; ``first_line`` is where the part begins."""
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _refused(
            path, raw.count(b"\n", 0, error.start) + first_line, "is not UTF-8 text; save it as UTF-8"
        ) from error
    try:
        _refuse_oddities(path, text, first_line)
        loader = _Loader(text)
        node = loader.get_single_node()
        lines: dict[Place, int] = {}
        if node is None:
            return None, lines
        _check(path, node, (), lines, first_line)
        return loader.construct_document(node), lines
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + first_line if error.problem_mark else None
        raise _refused(path, line, f"is not YAML: {error.problem}") from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + first_line
        raise _refused(path, line, "holds a control character, which YAML does not allow") from error


def _refused(path: Path, line: int | None, message: str) -> SpecError:
    return SpecError(Problem(file=path, line=line, field="", message=message))


def _refuse_oddities(path: Path, text: str, first_line: int) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=_Safe):
        line = (event.start_mark.line if event.start_mark else 0) + first_line
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:  # seen here, before anything walks the nesting by recursion
            raise _refused(path, line, f"nested deeper than {MAX_DEPTH} levels")
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise _refused(
                path, line, "anchors (&) and aliases (*) are not allowed; write it out, or quote it if it is text"
            )
        if tag := getattr(event, "tag", None):
            raise _refused(path, line, f"tags are not allowed, found {tag!r}; quote text that begins with !")


def _check(path: Path, node: yaml.Node, field: Place, lines: dict[Place, int], first_line: int) -> None:
    line = node.start_mark.line + first_line
    lines.setdefault(field, line)
    if isinstance(node, yaml.MappingNode):
        _check_mapping(path, node, field, lines, first_line)
    elif isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            _check(path, child, (*field, index), lines, first_line)
    elif node.tag in _NUMBERS:
        _check_number(path, node, field, line)


def _check_number(path: Path, node: yaml.Node, field: Place, line: int) -> None:
    # JSON has no infinity and 64 bits for whole numbers; past that a cap would turn into no cap.
    if abs(float(str(node.value).replace("_", ""))) >= 2**63:
        raise SpecError(_problem(path, line, field, f"{shown(node.value)} is too large a number"))


def _quoting(key: yaml.Node) -> str:
    return ", in quotes if it is meant" if isinstance(key, yaml.ScalarNode) else ""


def _check_mapping(
    path: Path,
    node: yaml.MappingNode,
    field: Place,
    lines: dict[Place, int],
    first_line: int,
) -> None:
    seen: dict[str, int] = {}
    for key, child in node.value:
        line = key.start_mark.line + first_line
        name = str(key.value)
        if key.tag != "tag:yaml.org,2002:str":
            message = f"{shown(key.value)} cannot name a field; a name is text" + _quoting(key)
            raise SpecError(_problem(path, line, field, message))
        if name in seen:
            message = f"stands twice, first on line {seen[name]}; remove one"
            raise SpecError(_problem(path, line, (*field, name), message))
        seen[name] = line
        lines[(*field, name)] = line
        _check(path, child, (*field, name), lines, first_line)
