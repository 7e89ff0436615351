"""A teacher one listens to: it is asked for its answer in a stream, and somebody hears it as it comes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from corpusgen.errors import InvalidAnswer
from corpusgen.records import Completion, Reply, Request
from corpusgen.teachers.teacher import Teacher, TeacherCard


@runtime_checkable
class Streams(Protocol):
    """A teacher that can answer in a stream."""

    async def ask_streaming(self, request: Request, *, timeout_s: float, heard: Callable[[bytes], None]) -> Reply:
        """Send the request once; ``heard`` is given each event of the answer, and the reply is the answer whole."""
        ...


@dataclass
class Listening:
    """A teacher whose answers are heard while they come; what is sent, stored and billed is as ever.

    What somebody has begun to hear is not asked again: a second answer would not go on where the first broke off.
    """

    teacher: Teacher
    heard: Callable[[bytes], None]
    """Given each event of the answer, whole and with its blank line. It must not raise."""
    events: int = 0
    """Heard so far; none where the teacher is one that answers whole."""

    @property
    def card(self) -> TeacherCard:
        """Its teacher's."""
        return self.teacher.card

    def input_tokens_bound(self, request: Request) -> int:
        """No more input tokens than this will be billed for the request."""
        return self.teacher.input_tokens_bound(request)

    async def first_tokens(self, labels: Sequence[str]) -> tuple[bytes, ...] | None:
        """The first token each label starts with, where that can be known."""
        return await self.teacher.first_tokens(labels)

    async def ask(self, request: Request, *, timeout_s: float) -> Reply:
        """Send the request once, in a stream where the teacher can."""
        if isinstance(self.teacher, Streams):
            return await self.teacher.ask_streaming(request, timeout_s=timeout_s, heard=self._hear)
        return await self.teacher.ask(request, timeout_s=timeout_s)

    def _hear(self, event: bytes) -> None:
        self.events += 1
        self.heard(event)

    def read(self, request: Request, reply: Reply) -> Completion:
        """The answer in a reply."""
        try:
            return self.teacher.read(request, reply)
        except InvalidAnswer as error:
            raise self._for_good(error) from None

    def read_choices(self, request: Request, reply: Reply) -> tuple[Completion, ...]:
        """Every answer in a reply."""
        try:
            return self.teacher.read_choices(request, reply)
        except InvalidAnswer as error:
            raise self._for_good(error) from None

    def _for_good(self, error: InvalidAnswer) -> InvalidAnswer:
        error.transient = error.transient and not self.events
        return error

    async def aclose(self) -> None:
        """Close the teacher."""
        await self.teacher.aclose()
