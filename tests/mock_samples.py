"""The official clients, unmodified, in front of a mock teacher."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from anthropic import AsyncAnthropic
from openai import AsyncOpenAI
from pydantic import BaseModel

from corpusgen.mock.server import MockTeacher, Options, mock_teacher

Model = TypeVar("Model", bound=BaseModel)


class Bird(BaseModel):
    """What the clients ask for where they ask for JSON."""

    name: str
    size: int
    colours: list[str]
    mate: Bird | None


@dataclass(frozen=True, kw_only=True)
class Official:
    """A mock teacher and its clients."""

    mock: MockTeacher
    openai: AsyncOpenAI
    anthropic: AsyncAnthropic

    @property
    def bill(self) -> dict[str, Any]:
        """The bill, now."""
        return self.mock.bill.to_json()


@asynccontextmanager
async def official(**fields: Any) -> AsyncIterator[Official]:
    """A running mock teacher, with the clients of both vendors."""
    async with (
        mock_teacher(Options(**fields)) as mock,
        AsyncOpenAI(base_url=mock.base_url, api_key="any", max_retries=0) as openai,
        AsyncAnthropic(base_url=mock.origin, api_key="any", max_retries=0) as anthropic,
    ):
        yield Official(mock=mock, openai=openai, anthropic=anthropic)


def checked(answer: Model) -> Model:
    """The answer, if every field of it has the type its client documents: clients themselves do not look."""
    type(answer).model_validate_json(answer.to_json())  # type: ignore[attr-defined]  # of both vendors' models
    answer.model_dump_json()
    return answer
