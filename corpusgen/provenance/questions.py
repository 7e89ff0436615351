"""The lawyers' questions: one SQL file each in ``audit/``, whose head says what is asked and how to read the answer."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal, TypeAlias, get_args

ParameterType: TypeAlias = Literal[
    "provider",
    "terms",
    "teacher",
    "dataset",
    "student",
    "source",
    "rightsholder",
    "record",
    "date",
    "days",
    "count",
    "file",
]

NOTICE = "Not legal advice: what this corpus knows, put in a table."
"""What stands beside every answer."""

_FILE = re.compile(r"(q\d\d)_([a-z0-9_]+)\.sql")
_PARAMETER = re.compile(r"([a-z]+) ([a-z]+) (\S+) \| (.+)")


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One thing a question is asked of. ``default`` is ``required``, ``any``, ``today`` or a number."""

    name: str
    type: ParameterType
    default: str
    meaning: str

    @property
    def required(self) -> bool:
        """Whether there is no asking without it."""
        return self.default == "required"


@dataclass(frozen=True, kw_only=True)
class Question:
    """One question, as its file tells it."""

    number: str
    name: str
    title: str
    answer: str
    cannot_tell: str
    remark: str
    """What stands beside every answer, where there is something to do next."""
    parameters: tuple[Parameter, ...]
    passes_when_empty: bool
    reads_ledger: bool
    sql: str

    @property
    def bound(self) -> tuple[str, ...]:
        """The parameters that the SQL takes; what is asked beside them is not in the lineage."""
        return tuple(one.name for one in self.parameters if re.search(rf"\${one.name}\b", self.sql))


@cache
def questions() -> Mapping[str, Question]:
    """All questions by their number: ``q01`` to ``q20``."""
    found = (_FILE.fullmatch(file.name) for file in files("corpusgen.provenance").joinpath("audit").iterdir())
    asked = (_question(match[0], match[1], match[2].replace("_", "-")) for match in found if match)
    return {question.number: question for question in sorted(asked, key=lambda question: question.number)}


def find_question(word: str) -> Question | None:
    """The question of that number (``q01``) or name (``released-students``)."""
    return next((one for one in questions().values() if word.lower() in (one.number, one.name)), None)


def read_question(number: str, name: str, sql: str) -> Question:
    """A question from the text of its file. Raises ValueError naming the line that is not as it must be."""
    head: dict[str, list[str]] = {}
    for key, value in _head(sql):
        head.setdefault(key, []).append(value)
    missing = [key for key in ("title", "answer", "cannot tell") if key not in head]
    if missing:
        raise ValueError(f"{number}: the head of the file lacks {', '.join(missing)}")
    return Question(
        number=number,
        name=name,
        title=head["title"][0],
        answer=head["answer"][0],
        cannot_tell=head["cannot tell"][0],
        remark=head.get("remark", [""])[0],
        parameters=tuple(_parameter(number, text) for text in head.get("parameter", ())),
        passes_when_empty=head.get("passes when empty") == ["yes"],
        reads_ledger=head.get("reads the ledger") == ["yes"],
        sql=sql,
    )


def _question(file: str, number: str, name: str) -> Question:
    sql = files("corpusgen.provenance").joinpath("audit", file).read_text(encoding="utf-8")
    return read_question(number, name, sql)


def _head(sql: str) -> Iterator[tuple[str, str]]:
    """``-- key: value``, a value going on in lines that begin with ``--`` and more than one space."""
    lines = [line.removeprefix("--") for line in sql.splitlines() if line.startswith("--")]
    joined = re.sub(r"\n {2,}", " ", "\n".join(lines))
    for line in joined.splitlines():
        key, _, value = line.strip().partition(": ")
        yield key, value


def _parameter(number: str, text: str) -> Parameter:
    match = _PARAMETER.fullmatch(text)
    if match is None or match[2] not in get_args(ParameterType):
        raise ValueError(f"{number}: not a parameter: {text!r}; write NAME TYPE DEFAULT | meaning")
    return Parameter(name=match[1], type=match[2], default=match[3], meaning=match[4])  # type: ignore[arg-type]
