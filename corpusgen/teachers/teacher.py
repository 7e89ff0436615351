"""What every teacher is: a card that says what it can do, and three verbs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from corpusgen.records import Api, Completion, Reply, Request, TraceKind


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """What a teacher can be asked for; a spec that asks for more is refused before anything is spent."""

    apis: frozenset[Literal["chat", "completion"]]
    top_logprobs: int
    """Most runners-up per token; 0 means that it gives no log-probabilities."""
    parameters: frozenset[str] | None
    """Parameter names it takes; None means that any may be sent."""
    context_tokens: int | None = None
    max_output_tokens: int | None = None
    max_body_bytes: int | None = None
    """The largest request it takes; None: not known."""
    choices: int = 1
    """Most answers to one call."""
    seed: bool = True
    json_schema: Literal["json_schema", "json_object", "none"] = "json_schema"
    """Whether it keeps to a schema, to JSON of some kind, or to neither."""
    tools: bool = True
    batch: bool = False
    trace: TraceKind | None = None
    """The reasoning it shows; None: none, or not known."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """Parameters it refuses, each with what to do instead."""
    only_at_effort_none: frozenset[str] = frozenset()
    """Parameters it takes only where it is told not to reason."""
    api_version: str = ""
    as_of: str = ""
    """The day these facts were read, and where; empty where they are our own."""
    source: str = ""


@dataclass(frozen=True, kw_only=True)
class TeacherCard:
    """Who answers, by which road, and what the ledger must assume about it."""

    name: str
    identity: str
    """Part of every request key: ``weights:sha256:…`` or ``provider@origin``."""
    provider: str
    model: str
    route: Literal["api", "aggregator", "cloud", "self_hosted", "mock", "imported"]
    host: str
    weights_sha256: str | None
    capabilities: Capabilities
    in_flight: int
    """Calls worth having under way at once."""
    tokens_per_request: int = 16
    """Tokens a server may add to a request beyond its bytes (begin-of-text, chat template)."""
    tokens_per_message: int = 16
    revision: str = ""
    """Runtime and version, or the API version that is asked for, for the record's provenance."""
    chat_api: Api = "chat"
    """The wire format in which it is asked what a prompt calls a chat."""
    key_env: str | None = None
    """The environment variable that must hold its key before anything is sent."""


@dataclass(frozen=True, kw_only=True)
class Offer:
    """A line of ``corpusgen teachers list``: what could be named in a spec here and now."""

    name: str
    route: str
    provider: str
    installed: bool
    free: bool


class Teacher(Protocol):
    """Anything that answers requests.

    ``ask`` raises a TeacherError and nothing else; ``read`` raises InvalidAnswer. A teacher never retries by itself:
    each try is reserved by the caller. One that can answer in a stream is ``listening.Streams`` too.
    """

    @property
    def card(self) -> TeacherCard: ...

    def input_tokens_bound(self, request: Request) -> int:
        """No more input tokens than this will be billed for the request."""
        ...

    async def first_tokens(self, labels: Sequence[str]) -> tuple[bytes, ...] | None:
        """The first token each label starts with when it follows the prompt, or None when that cannot be known."""
        ...

    async def ask(self, request: Request, *, timeout_s: float) -> Reply:
        """Send the request once and give back what came over the wire."""
        ...

    def read(self, request: Request, reply: Reply) -> Completion:
        """The answer in a reply; the same reply always reads the same."""
        ...

    def read_choices(self, request: Request, reply: Reply) -> tuple[Completion, ...]:
        """Every answer in a reply, several where the request's parameters ask for ``n``."""
        ...

    async def aclose(self) -> None:
        """Let go of sockets and processes."""
        ...
