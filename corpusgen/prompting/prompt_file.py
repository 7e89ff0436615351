"""Prompt files: YAML front matter, then ``system:`` / ``user:`` / ``assistant:`` blocks."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from corpusgen.errors import LocatedError, Problem, PromptError
from corpusgen.prompting.templates import TemplateError, fill, variables
from corpusgen.records import Json, Message
from corpusgen.spec import parse_yaml

_ROLE = re.compile(r"^(system|user|assistant):[ \t]*$")
EXAMPLES = "examples"


class _FrontMatter(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    version: int | str = 1
    description: str = ""
    licence: str = "NOASSERTION"
    api: Literal["chat", "completion"] = "chat"
    inputs: tuple[str, ...] = Field(min_length=1)
    example: str | None = None


@dataclass(frozen=True, kw_only=True)
class _Block:
    role: Literal["system", "user", "assistant"]
    text: str
    line: int


@dataclass(frozen=True, kw_only=True)
class PromptFile:
    """A prompt, read and checked; ``digest`` is the sha256 of its text with normal line ends."""

    file: Path
    digest: str
    name: str
    api: Literal["chat", "completion"]
    licence: str
    inputs: tuple[str, ...]
    example: str | None
    blocks: tuple[_Block, ...]

    def messages(self, values: Mapping[str, str], examples: str) -> tuple[Message, ...]:
        """The messages for one item."""
        known = {**values, EXAMPLES: examples}
        return tuple(Message(role=block.role, content=fill(block.text, known)) for block in self.blocks)

    def render_examples(self, rows: list[Mapping[str, str]]) -> str:
        """The worked examples, one after the other."""
        return "".join(fill(self.example or "", row) for row in rows)


def load_prompt(path: Path) -> PromptFile:
    """The prompt in a file. Raises PromptError with every problem found."""
    try:
        text = path.read_bytes().decode().replace("\r\n", "\n")
    except OSError as error:
        raise _error(path, None, "", f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise _error(path, None, "", "is not UTF-8 text") from error
    front, body, body_line = _split(path, text)
    blocks = tuple(_blocks(path, body, body_line))
    problems = list(_problems(path, front, blocks))
    if problems:
        raise PromptError(*problems)
    return PromptFile(
        file=path,
        digest=hashlib.sha256(text.encode()).hexdigest(),
        name=front.name,
        api=front.api,
        licence=front.licence,
        inputs=front.inputs,
        example=front.example,
        blocks=blocks,
    )


def _error(path: Path, line: int | None, field: str, message: str) -> PromptError:
    return PromptError(Problem(file=path, line=line, field=field, message=message))


def _split(path: Path, text: str) -> tuple[_FrontMatter, str, int]:
    if not text.startswith("---\n"):
        raise _error(path, 1, "", "a prompt file begins with front matter between two lines of ---")
    end = text.find("\n---\n", 3)
    if end < 0:
        raise _error(path, 1, "", "the front matter has no closing line of ---")
    return _front_matter(path, text[4 : end + 1]), text[end + 5 :], text.count("\n", 0, end + 5) + 1


def _front_matter(path: Path, text: str) -> _FrontMatter:
    try:
        value, lines = parse_yaml(path, text.encode(), first_line=2)
        return _FrontMatter.model_validate(value)
    except LocatedError as error:
        raise PromptError(*error.problems) from error
    except ValidationError as error:
        raise PromptError(*(_located(path, lines, found) for found in error.errors())) from error


def _located(path: Path, lines: Mapping[tuple[str | int, ...], int], found: Json) -> Problem:
    field = tuple(found["loc"])
    return Problem(file=path, line=lines.get(field[:1], 2), field=".".join(map(str, field)), message=found["msg"])


def _blocks(path: Path, body: str, first_line: int) -> Iterator[_Block]:
    role: Literal["system", "user", "assistant"] | None = None
    lines: list[str] = []
    start = first_line
    for number, line in enumerate(body.split("\n"), first_line):
        marker = _ROLE.match(line)
        if marker is None:
            if role is None and line.strip():
                raise _error(path, number, "", "text before the first system:, user: or assistant: line")
            lines.append(line)
            continue
        if role is not None:
            yield _Block(role=role, text="\n".join(lines).strip("\n"), line=start)
        role, lines, start = marker.group(1), [], number + 1  # type: ignore[assignment] # the pattern's three words
    if role is None:
        raise _error(path, first_line, "", "no user: block")
    yield _Block(role=role, text="\n".join(lines).strip("\n"), line=start)


def _problems(path: Path, front: _FrontMatter, blocks: tuple[_Block, ...]) -> Iterator[Problem]:
    known = {*front.inputs, EXAMPLES}
    for block in blocks:
        yield from _unknown_variables(path, block, known)
    if front.api == "completion" and [block.role for block in blocks] != ["user"]:
        yield Problem(
            file=path, line=blocks[0].line, field="", message="api: completion takes one user: block and no other"
        )
    uses_examples = any("{" + EXAMPLES + "}" in block.text for block in blocks)
    if uses_examples and front.example is None:
        yield Problem(
            file=path, line=2, field="example", message="{examples} is used, so an example template is needed"
        )


def _unknown_variables(path: Path, block: _Block, known: set[str]) -> Iterator[Problem]:
    try:
        used = variables(block.text)
    except TemplateError as error:
        yield Problem(file=path, line=block.line + error.line, field="", message=str(error))
        return
    for name, line in used.items():
        if name not in known:
            message = f"variable {{{name}}} is not among inputs: {', '.join(sorted(known))}"
            yield Problem(file=path, line=block.line + line, field=name, message=message)
