"""Prompt files: YAML front matter, then ``system:`` / ``user:`` / ``assistant:`` blocks.

An empty ``messages:`` block is where the conversation of each seed goes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from corpusgen.errors import LocatedError, Problem, PromptError
from corpusgen.prompting.conversations import COLUMN, Turns
from corpusgen.prompting.quoting import quoted, row_key
from corpusgen.prompting.templates import TemplateError, fill, variables
from corpusgen.records import Message
from corpusgen.spec import parse_yaml, problems

Lines = Mapping[tuple[str | int, ...], int]

_ROLE = re.compile(r"^(system|user|assistant|messages):[ \t]*$")
_Role = Literal["system", "user", "assistant", "messages"]
EXAMPLES = "examples"
ANSWERS = frozenset({"label", "answer"})
"""Names under which a worked example's own answer stands in the ``example`` template."""


_Name = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class _FrontMatter(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: str
    version: int | str = 1
    description: str = ""
    licence: str = "NOASSERTION"
    api: Literal["chat", "completion"] = "chat"
    inputs: tuple[_Name, ...] = Field(min_length=1)
    quote: tuple[_Name, ...] = ()
    example: str | None = None


@dataclass(frozen=True, kw_only=True)
class _Block:
    role: _Role
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
    quote: tuple[str, ...] = ()
    """Inputs that stand between markers of their row wherever they are used, so that they cannot pass for prompt."""
    example: str | None
    blocks: tuple[_Block, ...]

    @property
    def uses_answers(self) -> bool:
        """True when a worked example shows its answer."""
        return not ANSWERS.isdisjoint(variables(self.example or ""))

    @property
    def room(self) -> Turns | None:
        """What the conversation of a seed may be; None where there is no place for one."""
        roles = [block.role for block in self.blocks]
        if COLUMN not in roles:
            return None
        before = roles[: roles.index(COLUMN)]
        return Turns(system=set(before) <= {"system"}, last=roles[-1] == COLUMN)

    def messages(
        self, values: Mapping[str, str], examples: str, turns: tuple[Message, ...] = ()
    ) -> tuple[Message, ...]:
        """The messages for one item; its conversation stands where the prompt has room for it."""
        known = {**self._told(values), EXAMPLES: examples}
        found: list[Message] = []
        for block in self.blocks:
            if block.role == "messages":
                found += turns
            else:
                found.append(Message(role=block.role, content=fill(block.text, known)))
        return tuple(found)

    def render_examples(self, rows: list[Mapping[str, str]]) -> str:
        """The worked examples, one after the other."""
        return "".join(fill(self.example or "", self._told(row)) for row in rows)

    def _told(self, values: Mapping[str, str]) -> Mapping[str, str]:
        """The values as they stand in the prompt."""
        if not self.quote:
            return values
        key = row_key(values)
        return {name: quoted(value, key) if name in self.quote else value for name, value in values.items()}


def load_prompt(path: Path) -> PromptFile:
    """The prompt in a file. Raises PromptError with every problem found."""
    try:
        text = path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
    except OSError as error:
        raise _error(path, None, "", f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise _error(path, None, "", "is not UTF-8 text; save it as UTF-8") from error
    front, lines, body, body_line = _split(path, text)
    blocks = tuple(_blocks(path, body, body_line))
    found = list(_problems(path, front, lines, blocks))
    if found:
        raise PromptError(*found)
    return PromptFile(
        file=path,
        digest=hashlib.sha256(text.encode()).hexdigest(),
        name=front.name,
        api=front.api,
        licence=front.licence,
        inputs=front.inputs,
        quote=front.quote,
        example=front.example,
        blocks=blocks,
    )


def _error(path: Path, line: int | None, field: str, message: str) -> PromptError:
    return PromptError(Problem(file=path, line=line, field=field, message=message))


def _split(path: Path, text: str) -> tuple[_FrontMatter, Lines, str, int]:
    if not text.startswith("---\n"):
        raise _error(path, 1, "", "a prompt file begins with front matter between two lines of ---")
    end = text.find("\n---\n", 3)
    if end < 0:
        raise _error(path, 1, "", "the front matter has no closing line of ---")
    front, lines = _front_matter(path, text[4 : end + 1])
    return front, lines, text[end + 5 :], text.count("\n", 0, end + 5) + 1


def _front_matter(path: Path, text: str) -> tuple[_FrontMatter, Lines]:
    try:
        value, lines = parse_yaml(path, text.encode(), first_line=2)
    except LocatedError as error:
        raise PromptError(*error.problems) from error
    if not isinstance(value, dict):
        raise _error(path, 2, "", "front matter is fields, such as name: my-prompt and inputs: [text]")
    try:
        return _FrontMatter.model_validate_json(orjson.dumps(value)), lines
    except ValidationError as error:
        raise PromptError(*problems(path, lines, error, _FrontMatter)) from error


def _blocks(path: Path, body: str, first_line: int) -> Iterator[_Block]:
    role: _Role | None = None
    lines: list[str] = []
    start = first_line
    for number, line in enumerate(body.split("\n"), first_line):
        marker = _ROLE.match(line)
        if marker is None:
            if role is None and line.strip():
                raise _error(path, number, "", "text before the first system:, user:, assistant: or messages: line")
            lines.append(line)
            continue
        if role is not None:
            yield _Block(role=role, text="\n".join(lines).strip("\n"), line=start)
        role, lines, start = marker.group(1), [], number + 1  # type: ignore[assignment] # the pattern's four words
    if role is None:
        raise _error(path, first_line, "", "no user: block, nor a messages: block")
    yield _Block(role=role, text="\n".join(lines).strip("\n"), line=start)


def _problems(path: Path, front: _FrontMatter, lines: Lines, blocks: tuple[_Block, ...]) -> Iterator[Problem]:
    for name in sorted({EXAMPLES, *ANSWERS} & set(front.inputs)):
        yield Problem(
            file=path, line=lines[("inputs",)], field="inputs", message=f"{name!r} is taken; use another name"
        )
    yield from _quote_problems(path, front, lines)
    for block in blocks:
        yield from _unknown_variables(path, block.line, "", block.text, {*front.inputs, EXAMPLES})
        if block.role == "messages":
            yield from _conversation_problems(path, front, block)
        elif not block.text.strip():
            yield Problem(file=path, line=block.line, field=block.role, message="this block is empty")
    if front.api == "completion" and [block.role for block in blocks] != ["user"]:
        yield Problem(
            file=path, line=blocks[0].line, field="", message="api: completion takes one user: block and no other"
        )
    if [block.role for block in blocks].count("messages") > 1:
        yield Problem(file=path, line=blocks[-1].line, field="", message="one messages: block is enough; remove one")
    if blocks[-1].role not in ("user", "messages"):
        yield Problem(file=path, line=blocks[-1].line, field="", message="the last block must be user: or messages:")
    yield from _example_problems(path, front, lines, blocks)


def _quote_problems(path: Path, front: _FrontMatter, lines: Lines) -> Iterator[Problem]:
    for name in front.quote:
        if name not in front.inputs:
            known = ", ".join(front.inputs)
            message = f"{name!r} is not among the inputs, which are {known}; only inputs are quoted"
            yield Problem(file=path, line=lines[("quote",)], field="quote", message=message)
        elif name == COLUMN:
            message = "a conversation is sent as turns of its own, not as text in a block; take messages out"
            yield Problem(file=path, line=lines[("quote",)], field="quote", message=message)


def _conversation_problems(path: Path, front: _FrontMatter, block: _Block) -> Iterator[Problem]:
    if block.text.strip():
        message = "the seed's conversation stands here; put other text into a block of its own"
        yield Problem(file=path, line=block.line, field="messages", message=message)
    if COLUMN not in front.inputs:
        message = "a messages: block needs the column of that name; add messages to inputs"
        yield Problem(file=path, line=block.line, field="messages", message=message)


def _example_problems(path: Path, front: _FrontMatter, lines: Lines, blocks: tuple[_Block, ...]) -> Iterator[Problem]:
    used = any("{" + EXAMPLES + "}" in block.text for block in blocks)
    if used and front.example is None:
        message = "{examples} is used, so an example template is needed"
        yield Problem(file=path, line=2, field="example", message=message)
    if front.example is None:
        return
    line = lines[("example",)]
    if not used:
        yield Problem(file=path, line=line, field="example", message="no block uses {examples}; remove it, or use them")
    # Its text may be folded or quoted, so only the line it begins on is known.
    for found in _unknown_variables(path, line, "example", front.example, {*front.inputs, *ANSWERS}):
        yield replace(found, line=line)


def _unknown_variables(path: Path, first: int, field: str, text: str, known: set[str]) -> Iterator[Problem]:
    try:
        used = variables(text)
    except TemplateError as error:
        yield Problem(file=path, line=first + error.line, field=field, message=str(error))
        return
    for name, line in used.items():
        if name not in known:
            message = f"variable {{{name}}} is not known; known here: {', '.join(sorted(known))}"
            yield Problem(file=path, line=first + line, field=field, message=message)
