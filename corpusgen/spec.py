"""A task spec: what to ask, whom, for what use, and how much it may cost.

YAML 1.1's surprises are closed: a key may stand once, aliases and tags are refused, and only ``true`` and ``false`` are
booleans. Every problem of a file is reported at once, each with its line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

import orjson
import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from corpusgen.errors import Problem, SpecError
from corpusgen.records import Json, digest

MAX_BYTES = 1_000_000
MAX_DEPTH = 20
NAME = r"^[a-z0-9][a-z0-9_-]{0,63}$"

Unit = Literal["microusd", "tokens", "requests"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def microusd(value: Json) -> int:
    """Dollars as written by a person, as integer micro-dollars. Refuses fractions of a micro-dollar and negatives."""
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        raise ValueError(f"an amount of dollars is needed, found {value!r}")
    amount = _decimal(value) * 1_000_000
    if amount != amount.to_integral_value():
        raise ValueError(f"{value} has more than six decimals; the smallest amount is 0.000001")
    return int(amount)


def count(value: Json) -> int:
    """A whole, non-negative number; ``1e6`` is one."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"a whole number is needed, found {value!r}")
    number = _decimal(value)
    if number != number.to_integral_value():
        raise ValueError(f"{value!r} is not a whole number")
    return int(number)


def _decimal(value: Json) -> Decimal:
    try:
        number = Decimal(str(value))
    except ArithmeticError as error:
        raise ValueError(f"{value!r} is not a number") from error
    if not number.is_finite() or number < 0:
        raise ValueError(f"{value} must be a finite number, 0 or more")
    return number


MicroUsd = Annotated[int, BeforeValidator(microusd)]
Count = Annotated[int, BeforeValidator(count)]


class Budget(_Part):
    """Caps of one run, over all its starts. 0 sends nothing; a cap left out does not bind."""

    usd: MicroUsd | None = Field(None, description="Dollars; kept as integer micro-dollars")
    tokens: Count | None = Field(None, description="Input and output tokens together")
    requests: Count | None = Field(None, description="Requests sent, every try counted")

    def caps(self) -> dict[Unit, int]:
        """The caps that bind, by unit."""
        every: dict[Unit, int | None] = {"microusd": self.usd, "tokens": self.tokens, "requests": self.requests}
        return {unit: cap for unit, cap in every.items() if cap is not None}


class IntendedUse(_Part):
    """What the student is for; the terms of teachers and sources are judged by it."""

    student_distribution: Literal["internal", "hosted", "weights_released"] = Field(
        description="Who gets the student: your own staff, users of a service, anyone"
    )
    student_competes: Literal["yes", "no", "unknown"] = Field(
        description="Does the student compete with a teacher's provider? unknown counts as yes"
    )
    commercial: bool = Field(description="Is the student used to earn money?")
    accepted_duties: tuple[str, ...] = Field((), description="Duties you will carry out, such as attribution or naming")


class Source(_Part):
    """Where seed text comes from and under which licence."""

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")
    title: str
    licence: str = Field(description="SPDX identifier or LicenseRef-…")
    locator: str | None = None
    notice: str | None = Field(None, description="File whose text must go along with every copy, relative to this spec")


class Seeds(_Part):
    """One seed file: Parquet, CSV or JSON Lines, one row per item."""

    path: str
    id: str = Field("id", description="Column with the item's lasting name")
    source: str = Field(description="Id of one of the sources")
    gold: str | None = Field(None, description="Column with the true answer; only in validation and gold")
    limit: Count | None = None


class SeedFiles(_Part):
    """The items to ask about, by what they are for."""

    train: Seeds
    validation: Seeds | None = None
    gold: Seeds | None = None


class Price(_Part):
    """Dollars per million tokens."""

    input_usd_per_mtok: MicroUsd
    output_usd_per_mtok: MicroUsd
    source: str = Field(description="Where the price is written, and on which day")


class TeacherSpec(_Part):
    """One teacher and how to ask it."""

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9_-]*/[A-Za-z0-9][A-Za-z0-9._:/-]*$",
        description="kind/model, such as embedded/smollm2-135m",
    )
    parameters: dict[str, Any] = Field(description="Sent with every request; max_tokens is required")
    base_url: str | None = Field(None, description="Of an OpenAI-compatible server, up to and with /v1")
    key_env: str | None = Field(None, description="Name of the environment variable that holds the key")
    provider: str | None = Field(None, description="Who runs the server, as the terms registry spells it")
    route: Literal["api", "aggregator", "cloud", "self_hosted", "mock"] | None = None
    terms: tuple[str, ...] = Field((), description="Terms documents this teacher is known to be under")
    script: str | None = Field(None, description="File of a scripted teacher's answers")
    free: bool = Field(False, description="true says that this teacher costs no money")
    price: Price | None = None
    in_flight: Annotated[int, Field(ge=1, le=10_000)] | None = Field(None, description="Calls under way at once")
    timeout_s: Annotated[float, Field(gt=0, le=86_400)] = 600.0

    @model_validator(mode="after")
    def _bounded(self) -> TeacherSpec:
        limit = self.parameters.get("max_tokens")
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
            raise ValueError(f"parameters.max_tokens must be a whole number of 1 or more, found {limit!r}")
        if self.free and self.price is not None:
            raise ValueError("free: true and price exclude each other; remove one")
        return self


class Labels(_Part):
    """The closed set a teacher chooses from."""

    names: tuple[str, ...] = Field(min_length=2)

    @model_validator(mode="after")
    def _distinct(self) -> Labels:
        first_words = [name.split()[0].casefold() if name.split() else "" for name in self.names]
        for name, word in zip(self.names, first_words, strict=True):
            if not word:
                raise ValueError("a label must not be empty")
            if first_words.count(word) > 1:
                raise ValueError(
                    f"label {name!r} begins like another one: labels are told apart by their first token; rename it"
                )
        return self


class Asking(_Part):
    """How many items to ask about and in which order."""

    limit: Count = Field(1_500, description="Items of the pool to ask about")
    order: Literal["file", "random", "margin"] = Field(
        "margin", description="margin: in rounds, what the student is least sure of; needs labels"
    )
    first_round: Count = Field(400, description="Items in the first, random round; the calibration sample")
    round: Annotated[int, Field(ge=1)] = Field(400, description="Items in each later round")
    seed: Count = 1
    samples: Annotated[int, Field(ge=1, le=64)] = Field(1, description="Answers per item")


class StudentSpec(_Part):
    """What learns from the records."""

    kind: Literal["bag"] = "bag"
    loss: Literal["auto", "hard", "soft", "both"] = Field(
        "auto", description="auto: chosen on teacher-labelled held-out items"
    )
    seed: Count = 1


class Aims(_Part):
    """What the run hopes to reach; the report says plainly what it missed."""

    teacher_accuracy: float | None = None
    retention: float | None = Field(None, description="Student accuracy over teacher accuracy")
    retention_low: float | None = Field(None, description="Lower end of its 95 % interval")
    cost_ratio: float | None = Field(None, description="Teacher's processor time over the student's, at batch 64")


class TaskSpec(_Part):
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
    teachers: tuple[TeacherSpec, ...] = Field(min_length=1, max_length=1)
    terms_files: tuple[str, ...] = Field((), description="More terms documents, relative to this spec")
    budget: Budget = Budget()
    asking: Asking = Asking()
    student: StudentSpec = StudentSpec()
    aims: Aims = Aims()

    @model_validator(mode="after")
    def _whole(self) -> TaskSpec:
        known = {source.id for source in self.sources}
        used = [self.seeds.train, self.seeds.validation, self.seeds.gold, self.examples]
        for seeds in filter(None, used):
            if seeds.source not in known:
                raise ValueError(f"source {seeds.source!r} is not among sources: {', '.join(sorted(known))}")
        if self.kind == "label" and self.labels is None:
            raise ValueError("kind: label needs labels.names")
        if self.kind == "response" and self.asking.order == "margin":
            raise ValueError("asking.order: margin needs kind: label; write file or random")
        return self

    @property
    def identity(self) -> str:
        """sha256 of what is asked and how, budget, aims and speed left out: the same task goes on under this name."""
        fields = self.model_dump(mode="json", exclude={"budget", "aims", "description"})
        for teacher in fields["teachers"]:
            del teacher["in_flight"], teacher["timeout_s"]
        return digest(fields)


@dataclass(frozen=True, kw_only=True)
class Located:
    """A spec with the file it came from, so that paths resolve and errors point at lines."""

    spec: TaskSpec
    file: Path
    lines: dict[tuple[str | int, ...], int]

    def resolve(self, relative: str) -> Path:
        """A path in the spec, relative to the spec's folder."""
        return (self.file.parent / relative).resolve()

    def line(self, *field: str | int) -> int | None:
        """The line a field stands on, or the nearest enclosing one."""
        return _line(self.lines, field)

    def where(self, *field: str | int) -> str:
        """``file:line`` of a field, for messages."""
        return f"{self.file}:{self.line(*field) or 1}"

    def error(self, message: str, *field: str | int) -> SpecError:
        """An error that points at a field of this spec."""
        return SpecError(_problem(self.file, self.line(*field), field, message))


def load_spec(path: Path) -> Located:
    """The task spec in a file. Raises SpecError with every problem found."""
    value, lines = read_yaml(path)
    if not isinstance(value, dict):
        raise SpecError(Problem(file=path, line=1, field="", message="a task spec is a mapping of fields"))
    try:
        return Located(spec=TaskSpec.model_validate_json(_as_json(value)), file=path, lines=lines)
    except ValidationError as error:
        raise SpecError(*_problems(path, lines, error)) from error


def _as_json(value: Json) -> bytes:
    # Strict models take tuples only from JSON; going through it keeps "3" from passing as 3 and lists as tuples.
    return orjson.dumps(value)


def _problems(path: Path, lines: dict[tuple[str | int, ...], int], error: ValidationError) -> Iterator[Problem]:
    for found in error.errors():
        field = found["loc"]
        message = found["msg"].removeprefix("Value error, ")
        if found["type"] == "extra_forbidden":
            message = f"no such field{_suggestion(str(field[-1]), field[:-1])}"
        elif found["type"] == "missing":
            message = "this field is required"
        elif not isinstance(found["input"], dict | list):
            message = f"{message}, found {found['input']!r}" if "found" not in message else message
        yield _problem(path, _line(lines, field), field, message)


def _problem(path: Path, line: int | None, field: tuple[str | int, ...], message: str) -> Problem:
    return Problem(file=path, line=line, field=".".join(map(str, field)), message=message)


def _line(lines: dict[tuple[str | int, ...], int], field: tuple[str | int, ...]) -> int | None:
    for end in range(len(field), -1, -1):
        if field[:end] in lines:
            return lines[field[:end]]
    return None


def _suggestion(word: str, parent: tuple[str | int, ...]) -> str:
    from difflib import get_close_matches

    part: Any = TaskSpec
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

_FLOAT = re.compile(r"^[-+]?(\d[\d_]*\.\d*|\.\d+|\d[\d_]*)([eE][-+]?\d+)?$")


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


def read_yaml(path: Path) -> tuple[Json, dict[tuple[str | int, ...], int]]:
    """The value in a YAML file and the line of every field. Raises SpecError for anything unsafe or ambiguous."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise SpecError(Problem(file=path, line=None, field="", message=f"cannot be read: {error.strerror}")) from error
    if len(raw) > MAX_BYTES:
        raise SpecError(Problem(file=path, line=None, field="", message=f"larger than {MAX_BYTES} bytes"))
    return parse_yaml(path, raw)


def parse_yaml(path: Path, raw: bytes, *, first_line: int = 1) -> tuple[Json, dict[tuple[str | int, ...], int]]:
    """As read_yaml, for text that is part of a file; ``first_line`` is where the part begins."""
    try:
        loader = _Loader(raw.decode())
        _refuse_aliases(path, raw.decode(), first_line)
        node = loader.get_single_node()
        if node is None:
            return None, {}
        lines: dict[tuple[str | int, ...], int] = {}
        _check(path, node, (), lines, first_line)
        return loader.construct_document(node), lines
    except UnicodeDecodeError as error:
        raise SpecError(Problem(file=path, line=None, field="", message="is not UTF-8 text")) from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + first_line if error.problem_mark else None
        raise SpecError(Problem(file=path, line=line, field="", message=f"not YAML: {error.problem}")) from error
    except RecursionError as error:
        raise SpecError(Problem(file=path, line=None, field="", message="nested too deeply")) from error


def _refuse_aliases(path: Path, text: str, first_line: int) -> None:
    for event in yaml.parse(text, Loader=_Safe):
        line = (event.start_mark.line if event.start_mark else 0) + first_line
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise SpecError(Problem(file=path, line=line, field="", message="anchors and aliases are not allowed"))
        if tag := getattr(event, "tag", None):
            raise SpecError(Problem(file=path, line=line, field="", message=f"tags are not allowed: {tag}"))


def _check(
    path: Path, node: yaml.Node, field: tuple[str | int, ...], lines: dict[tuple[str | int, ...], int], first_line: int
) -> None:
    line = node.start_mark.line + first_line
    lines.setdefault(field, line)
    if len(field) > MAX_DEPTH:
        raise SpecError(Problem(file=path, line=line, field="", message=f"nested deeper than {MAX_DEPTH}"))
    if isinstance(node, yaml.MappingNode):
        _check_mapping(path, node, field, lines, first_line)
    elif isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            _check(path, child, (*field, index), lines, first_line)


def _check_mapping(
    path: Path,
    node: yaml.MappingNode,
    field: tuple[str | int, ...],
    lines: dict[tuple[str | int, ...], int],
    first_line: int,
) -> None:
    seen: dict[str, int] = {}
    for key, child in node.value:
        line = key.start_mark.line + first_line
        name = str(key.value)
        if name in seen:
            message = f"stands twice, first on line {seen[name]}; remove one"
            raise SpecError(_problem(path, line, (*field, name), message))
        seen[name] = line
        lines[(*field, name)] = line
        _check(path, child, (*field, name), lines, first_line)
