"""What is known of servers and models, dated and with its source: rows of ``data/endpoints.yaml``.

A row is a scheme of its own: ``deepseek/<model>`` asks the server of the row called deepseek. Facts about single models
narrow those of their row; where several fit, the first in the file counts.
"""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from corpusgen.records import Json, TraceKind
from corpusgen.teachers.wire import Dialect

Instead = Annotated[str, Field(min_length=1)]
Confidence = Literal["high", "medium", "low"]
Most = Annotated[int, Field(ge=0)]
Route = Literal["api", "aggregator", "cloud", "self_hosted"]
"""How a server is reached."""
Schema = Literal["json_schema", "json_object", "none"]


class _Fact(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    source: str = Field(min_length=1, description="Where it is written")
    as_of: str = Field(pattern=r"^\d{4}-\d{2}-\d{2}$", description="The day it was read")
    confidence: Confidence = Field(description="high: read or run; medium: told by others; low: likely")


class ModelFact(_Fact):
    """What is known of some models of a server."""

    match: tuple[str, ...] = Field(min_length=1, description="Names in small letters; * stands for any part")
    context_tokens: Annotated[int, Field(ge=1)] | None = None
    max_output_tokens: Annotated[int, Field(ge=1)] | None = None
    top_logprobs: Most | None = None
    choices: Annotated[int, Field(ge=1)] | None = Field(None, description="Most answers to one call (n)")
    api: tuple[Literal["chat", "responses"], ...] = Field((), description="Where only these are served")
    reasons: bool = False
    only_at_effort_none: tuple[str, ...] = Field((), description="Parameters taken only without reasoning")
    refused: dict[str, Instead] = Field({}, description="Parameters it refuses, and what to do instead")
    trace: TraceKind | None = None
    json_schema: Schema | None = Field(None, description="As for the row")


class EndpointRow(_Fact):
    """What is known of one server, or of one kind of server."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$", description="The scheme")
    title: str = Field(min_length=1)
    wire: Literal["chat", "messages"] = Field("chat", description="Whose wire format it speaks: OpenAI's, Anthropic's")
    provider: str | None = Field(None, description="Who runs it, as the terms registry spells it; None: whoever")
    route: Route | None = None
    hosts: tuple[str, ...] = Field((), description="Host names; * stands for any part")
    base_url: str | None = None
    key_env: str | None = None
    terms: tuple[str, ...] = Field((), description="Terms documents its models are known to be under")
    region_env: tuple[str, ...] = Field((), description="Variables that may name the {region} in base_url")
    regions: dict[str, str] = Field({}, description="Addresses of regions that are not where base_url says")
    key_header: str = "Authorization"
    api_versions: Literal["none", "header", "query", "body"] = "none"
    api_version: str | None = Field(None, description="The version that is asked for unless the spec names one")
    version_header: str | None = None
    version_field: str = Field("", description="The field of the body a version goes into")
    versioned_path: str = Field("", description="Stands before the path where a version goes into query or body")
    apis: tuple[Literal["chat", "completion"], ...] = ("chat",)
    responses: bool = Field(False, description="It also serves /responses")
    max_tokens: str = "max_tokens"
    seed: str | None = Field("seed", description="What it calls a seed; None: it takes none")
    top_logprobs: Most = 0
    logprobs: Literal["top_logprobs", "number"] = "top_logprobs"
    choices: Annotated[int, Field(ge=1)] = Field(1, description="Most answers to one call (n)")
    json_schema: Schema = Field("none", description="How it keeps to a JSON schema")
    tools: bool = True
    batch: bool = False
    body: dict[str, Json] = Field({}, description="Sent with every request")
    trace: TraceKind | None = Field(None, description="What its reasoning field holds; None: it has none, or it varies")
    cost_is_bill: bool = Field(False, description="usage.cost is what is charged")
    stream_usage: bool = Field(True, description="It takes stream_options.include_usage")
    max_body_bytes: Annotated[int, Field(ge=1)] | None = Field(None, description="The largest request it takes")
    tool_tokens: Most = Field(0, description="Input tokens it may add for tools or a schema, unseen")
    refused: dict[str, Instead] = {}
    models: tuple[ModelFact, ...] = ()
    models_like: str | None = Field(None, description="Another row whose models it serves under their names")
    notes: str = ""

    def of(self, model: str) -> ModelFact | None:
        """What is known of one model."""
        name = model.lower()
        names = {name, name.rpartition("/")[2]}
        fits = (fact for fact in self.models for one in names if any(fnmatchcase(one, like) for like in fact.match))
        return next(fits, None)

    def is_at(self, host: str) -> bool:
        """Whether a host is one of this server's."""
        return any(fnmatchcase(host.lower(), pattern) for pattern in self.hosts)

    def dialect(self, fact: ModelFact | None, version: str = "") -> Dialect:
        """What is to be called otherwise than OpenAI calls it."""
        said = {self.version_field: version} if self.version_field and version else {}
        return Dialect(
            max_tokens=self.max_tokens,
            seed=self.seed or "seed",
            schema=(fact and fact.json_schema) or self.json_schema,
            logprobs=self.logprobs,
            body={**self.body, **said},
            trace=(fact and fact.trace) or self.trace or "raw",
            cost_is_bill=self.cost_is_bill,
            reasons=fact is not None and fact.reasons,
            stream_usage=self.stream_usage,
        )


def row_for(kind: str, provider: str | None, host: str, rows: Iterable[EndpointRow]) -> EndpointRow | None:
    """The row of a teacher: the one its scheme names, else the one of its host, else the one named as its provider."""
    known = {row.name: row for row in rows}
    if kind in known:
        return known[kind]
    at_host = next((row for row in known.values() if host and row.is_at(host)), None)
    named = known.get(provider or "")
    # A model's maker as provider, at somebody else's address, says nothing of the server there.
    return at_host or (named if named is not None and not (named.hosts and host) else None)
