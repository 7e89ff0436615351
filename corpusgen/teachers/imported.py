"""Rows that came from outside, read as if they were replies: nobody is ever asked, and nobody was paid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

import orjson

from corpusgen.errors import InvalidAnswer, RequestRefused, UnknownTeacher
from corpusgen.records import Completion, Json, Message, Reply, Request, Usage, canonical_json
from corpusgen.teacher_fields import TeacherSpec
from corpusgen.teachers.teacher import Capabilities, Offer, TeacherCard

if TYPE_CHECKING:
    from corpusgen.teachers.transport import Clock

SCHEME: Final = "imported/"
"""What the names of imports begin with where a record names its teacher."""
ROUTE: Final = "imported"
PROVIDER: Final = "imported"
NOTHING: Final = Usage(input_tokens=0, output_tokens=0)
_FIELDS: Final = ("text", "reasoning")
_NEVER: Final = (
    "is no teacher: its rows were imported, and nobody can be asked for more; bring files in with corpusgen import"
)


@dataclass(frozen=True, kw_only=True)
class Imported:
    """Reads the rows of one import."""

    card: TeacherCard

    def input_tokens_bound(self, request: Request) -> int:
        """Nothing is ever billed."""
        return 0

    async def first_tokens(self, labels: Sequence[str]) -> tuple[bytes, ...] | None:
        """Rows have no tokens."""
        return None

    async def ask(self, request: Request, *, timeout_s: float) -> Reply:
        """Refused: there is nobody to ask."""
        raise RequestRefused(f"{self.card.name} {_NEVER}")

    def read(self, request: Request, reply: Reply) -> Completion:
        """What a row says."""
        try:
            row = orjson.loads(reply.body)
            text, reasoning = (row.get(name) for name in _FIELDS)
        except (orjson.JSONDecodeError, AttributeError) as error:
            raise InvalidAnswer(f"is no imported row: {error}") from error
        if not isinstance(text, str):
            raise InvalidAnswer("is no imported row: it has no text")
        return Completion(
            text=text,
            finish_reason="stop",
            usage=NOTHING,
            reasoning=reasoning,
            trace_kind=None if reasoning is None else "raw",
        )

    def read_choices(self, request: Request, reply: Reply) -> tuple[Completion, ...]:
        """The one answer of a row."""
        return (self.read(request, reply),)

    async def aclose(self) -> None:
        """Nothing to let go of."""


def imported(name: str, identity: str) -> Imported:
    """Who reads the rows of an import."""
    card = TeacherCard(
        name=name,
        identity=identity,
        provider=PROVIDER,
        model=name.removeprefix(SCHEME),
        route=ROUTE,
        host="",
        weights_sha256=None,
        capabilities=Capabilities(apis=frozenset({"chat"}), top_logprobs=0, parameters=frozenset()),
        in_flight=1,
    )
    return Imported(card=card)


def row_request(identity: str, model: str, messages: tuple[Message, ...], row: int) -> Request:
    """The question of a row; two rows of a file are two requests, even where they ask the same."""
    return Request(teacher=identity, model=model, api="chat", messages=messages, parameters={"row": row})


def row_body(text: str, reasoning: str | None) -> bytes:
    """The answer of a row, as it is kept."""
    told: dict[str, Json] = {"text": text} | ({} if reasoning is None else {"reasoning": reasoning})
    return canonical_json(told)


def connect(spec: TeacherSpec, *, folder: Path, clock: Clock) -> NoReturn:
    """Refused: a spec cannot ask it."""
    raise UnknownTeacher(f"{spec.name} {_NEVER}")


def offers() -> tuple[Offer, ...]:
    """None: there is nothing that a spec could name."""
    return ()
