"""Batches: many requests handed over at once, answered within a day at a lower price.

One file for each protocol, ``batch_<protocol>.py``; both go through the provider's official SDK, which is read when the
first batch is handed over. The SDK never retries: a submission that may have arrived is looked for, not repeated.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from importlib import import_module
from typing import Any, Final, Literal, Protocol, runtime_checkable

from corpusgen.errors import (
    InvalidAnswer,
    NotSent,
    RateLimited,
    RequestRefused,
    TeacherError,
    TeacherFault,
    TeacherTimeout,
    UnsupportedParameter,
)
from corpusgen.records import Request
from corpusgen.teachers.billing import BatchFact, Billing, batch_fact
from corpusgen.teachers.teacher import Teacher
from corpusgen.teachers.transport import Transport, failure_of

Outcome = Literal["answered", "errored", "expired", "canceled"]

WINDOW_S: Final = 24 * 3600
"""How long a provider may take for a batch; what it has not answered by then has expired."""
MOST_LINE: Final = 64 * 2**20
"""Most bytes of one result; more is a fault."""

_PROTOCOLS: Final = {"openai": "openai", "anthropic": "anthropic"}
"""Kinds of teachers whose own service does batches. Others do where ``data/endpoints.yaml`` says so."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The most that one batch may hold."""

    lines: int
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class BatchState:
    """How far a batch is."""

    stage: Literal["working", "ended", "failed"]
    """``failed``: it was refused as a whole and nothing of it was worked on."""
    word: str
    """The provider's own word for it."""
    total: int
    answered: int
    why: str = ""
    cut_short: Outcome | None = None
    """What became of the requests that were not answered, where the batch ended before its end."""


@dataclass(frozen=True, kw_only=True)
class BatchResult:
    """What became of one request of a batch."""

    custom_id: str
    outcome: Outcome
    body: bytes = b""
    """The reply, as it would have come over the wire."""
    status: int | None = None
    message: str = ""
    request_id: str | None = None


@dataclass(frozen=True, kw_only=True)
class Search:
    """Batches at the provider that bear a name: surely, or perhaps (which shows when they have ended)."""

    found: tuple[str, ...] = ()
    perhaps: tuple[str, ...] = ()


class Batches(Protocol):
    """Somebody who takes batches. Every verb raises a TeacherError and nothing else."""

    @property
    def limits(self) -> Limits: ...

    def line(self, custom_id: str, request: Request) -> bytes:
        """One request as a batch holds it."""
        ...

    async def submit(self, name: str, lines: Sequence[bytes]) -> str:
        """Hand a batch over; gives back the provider's name for it.

        An error that is not ``billable`` means that no batch came to be; after any other it has to be looked for.
        """
        ...

    async def find(self, name: str, lines: int, since: datetime, known: frozenset[str]) -> Search:
        """The batches that bear a name, out of all that were made since a time; ``known`` ones bear others."""
        ...

    async def poll(self, provider_id: str) -> BatchState:
        """How far a batch is."""
        ...

    def results(self, provider_id: str) -> AsyncIterator[BatchResult]:
        """What became of each request of a batch that has ended, in any order."""
        ...

    async def cancel(self, provider_id: str) -> None:
        """Ask that a batch be ended; what is answered by then is kept."""
        ...

    async def aclose(self) -> None:
        """Close the connections."""
        ...


@runtime_checkable
class Wired(Protocol):
    """A teacher behind a wire, whose requests can also be handed over in a batch."""

    transport: Transport

    def wire(self, request: Request) -> tuple[str, bytes]:
        """The path, after the base URL, and the body that asks a request."""
        ...


@dataclass(frozen=True, kw_only=True)
class BatchService:
    """A teacher's batches, and what is known of their bill."""

    batches: Batches
    unbilled: frozenset[Outcome]
    """Outcomes for which the provider says that it charges nothing."""
    billing: Billing
    """What it says of the others, by their HTTP status."""


def open_batches(teacher: Teacher) -> BatchService:
    """The batches of a teacher; nothing is sent yet. Raises UnsupportedParameter for a teacher without."""
    card = teacher.card
    fact = batch_fact(card.provider, card.host)
    protocol = _PROTOCOLS.get(card.name.partition("/")[0]) or (fact.protocol if fact else None)
    if protocol is None or not isinstance(teacher, Wired):
        raise UnsupportedParameter(
            f"{card.name} at {card.host or 'this machine'} takes no batches; write lane: live"
            " (OpenAI and Anthropic take them, and the servers that data/endpoints.yaml lists under batches)"
        )
    batches: Batches = import_module(f"corpusgen.teachers.batch_{protocol}").connect_batches(teacher)
    return BatchService(batches=batches, unbilled=_unbilled(fact), billing=teacher.transport.billing)


def _unbilled(fact: BatchFact | None) -> frozenset[Outcome]:
    return frozenset(fact.unbilled if fact else ())


# --- what both protocols share ---------------------------------------------------------------------------------------


@contextmanager
def sdk_errors(sdk: Any, transport: Transport) -> Iterator[None]:
    """An SDK's errors as ours, with the provider's words and without the key."""
    import httpx2

    here = transport.base_url
    failure: TeacherError
    try:
        yield
        return
    except sdk.APIStatusError as error:
        failure = refusal(error.status_code, transport.masked(_words(error))[:500])
        failure.request_id = error.request_id
    except sdk.APITimeoutError as error:
        unsent = isinstance(error.__cause__, httpx2.ConnectTimeout)
        failure = NotSent(f"no connection to {here} in time") if unsent else TeacherTimeout(f"{here} took too long")
    except sdk.APIConnectionError as error:
        unsent = isinstance(error.__cause__, httpx2.ConnectError)
        failure = NotSent(f"no connection to {here}") if unsent else TeacherFault(f"the connection to {here} broke")
    except (sdk.APIError, ValueError, KeyError, TypeError, AttributeError) as error:
        failure = InvalidAnswer(f"{here} answered what no batch service says: {type(error).__name__}")
    except httpx2.HTTPError as error:
        failure = TeacherFault(f"the connection to {here} broke: {type(error).__name__}")
    # Raised out here because the SDK's errors carry the request's headers, and with them the key.
    raise failure


def _words(error: Any) -> str:
    """What the provider says of a failure."""
    said: Any = error.body if isinstance(error.body, dict) else {}
    inner = said.get("error")
    return str((inner if isinstance(inner, dict) else said).get("message") or error.message)


def refusal(status: int, message: str) -> TeacherError:
    """The error an HTTP status stands for."""
    return failure_of(status, f"HTTP {status}: {message}")


def surely_nothing(error: TeacherError) -> bool:
    """Whether an error on handing over says that no batch came to be."""
    return isinstance(error, NotSent | RequestRefused | RateLimited)


async def lines_of(
    chunks: AsyncIterator[bytes], transport: Transport, *, most: int = MOST_LINE
) -> AsyncIterator[bytes]:
    """The lines of a JSON Lines file; only a line feed ends one, whatever else Unicode calls a line.

    One that is longer than ``most`` is passed over: its call then counts as one the results do not speak of.
    """
    rest, lost = bytearray(), False
    async for chunk in chunks:
        *ends, last = chunk.split(b"\n")
        for end in ends:
            rest += end
            if rest.strip() and not lost and len(rest) <= most:
                yield transport.without_key(bytes(rest))
            rest, lost = bytearray(), False
        rest += last
        if len(rest) > most:
            rest, lost = bytearray(), True
    if rest.strip() and not lost:
        yield transport.without_key(bytes(rest))


def readable(line: bytes, read: Callable[[bytes], BatchResult]) -> BatchResult | None:
    """A line of the results; None for one that is none, whose call then counts as one the results do not speak of."""
    try:
        return read(line)
    except InvalidAnswer:
        return None


def provider_name(value: Any) -> str:
    """A name of the provider's; an SDK believes whatever came, so it is looked at here."""
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,199}", value):
        raise ValueError("no name")
    return value


def key_of(transport: Transport) -> str:
    """The key for an SDK, which will not start without one."""
    return "none" if transport.secret is None else transport.secret.reveal()
