"""The part of a spec that says whom to ask, how, and what it costs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from corpusgen.fields import NAME, MicroUsd, Misplaced, Part, Place, Several, shown
from corpusgen.records import Json


def usd_only(value: Json) -> Json:
    """``usd``, however it is capitalised. Refuses every other currency."""
    if not isinstance(value, str) or value.lower() != "usd":
        raise ValueError(f"prices are in usd, found {shown(value)}; convert them and name the rate under source")
    return "usd"


class Figures(Part):
    """Dollars per million tokens of each kind; one left out costs what input costs."""

    input_usd_per_mtok: MicroUsd
    output_usd_per_mtok: MicroUsd
    cached_input_usd_per_mtok: MicroUsd | None = Field(None, description="Input read from the provider's prompt cache")
    cache_write_usd_per_mtok: MicroUsd | None = Field(None, description="Input written to it for minutes")
    cache_write_1h_usd_per_mtok: MicroUsd | None = Field(None, description="Input written to it for an hour or longer")


class LongContext(Figures):
    """What a whole request costs when its input is longer than so many tokens."""

    above_input_tokens: Several


class TierPrice(Figures):
    """What one service tier costs."""

    long_context: tuple[LongContext, ...] = ()

    @model_validator(mode="after")
    def _rising(self) -> TierPrice:
        marks = [step.above_input_tokens for step in self.long_context]
        late = [at for at in range(1, len(marks)) if marks[at] <= marks[at - 1]]
        if late:
            raise Misplaced((("long_context", late[0], "above_input_tokens"), "must be more than the one before"))
        return self


class Price(TierPrice):
    """What a teacher's tokens cost, at its standard tier and at others."""

    tiers: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$")], TierPrice] = Field(
        {}, description="Other service tiers by the name the provider gives them: batch, flex, priority"
    )
    currency: Annotated[Literal["usd"], BeforeValidator(usd_only)] = "usd"
    source: str = Field(description="Where the price is written, and on which day")


class RateLimits(Part):
    """What a provider lets this account send; tokens are input and output together. One left out is not known."""

    requests_per_second: Annotated[float, Field(gt=0, le=1_000_000)] | None = None
    requests_per_minute: Several | None = None
    tokens_per_minute: Several | None = None


class Unbilled(Part):
    """Failures a provider does not charge for, as far as you know; others are booked at their worst case."""

    statuses: tuple[Annotated[int, Field(ge=400, le=599)], ...] = Field(min_length=1)
    source: str = Field(min_length=1, description="Who says so, where, and on which day")


class TeacherSpec(Part):
    """One teacher and how to ask it."""

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9_-]*/[A-Za-z0-9][A-Za-z0-9._:@/-]*$",
        description="kind/model, such as embedded/smollm2-135m",
    )
    parameters: dict[str, Any] = Field(description="Sent with every request; max_tokens is required")
    base_url: str | None = Field(None, description="Of an OpenAI-compatible server, up to and with /v1")
    key_env: str | None = Field(None, description="Name of the environment variable that holds the key")
    api: Literal["chat", "responses"] | None = Field(
        None, description="How a chat is asked: chat completions (the default) or OpenAI's Responses"
    )
    api_version: str | None = Field(
        None, pattern=r"^[A-Za-z0-9.-]{1,40}$", description="Version of the provider's API, where it has several"
    )
    transport: Literal["http", "sdk"] = Field(
        "http", description="sdk: requests are written by the provider's official SDK, at more processor time"
    )
    provider: str | None = Field(None, description="Who runs the server, as the terms registry spells it")
    route: Literal["api", "aggregator", "cloud", "self_hosted", "mock"] | None = None
    terms: tuple[str, ...] = Field((), description="Terms documents this teacher is known to be under")
    unpaid: bool = Field(
        False, description="true: reached by an unpaid tier, whose provider may read and train on what is sent"
    )
    script: str | None = Field(None, description="File of a scripted teacher's answers")
    free: bool = Field(False, description="true says that this teacher costs no money")
    price: Price | None = None
    in_flight: Annotated[int, Field(ge=1, le=10_000)] | None = Field(None, description="Calls under way at once")
    rate: RateLimits = Field(
        RateLimits(), description="Limits that the provider sets; never gone beyond, and planned by"
    )
    unbilled: Unbilled | None = Field(None, description="HTTP statuses after which this provider charges nothing")
    timeout_s: Annotated[float, Field(gt=0, le=86_400)] = 600.0
    region: str | None = Field(
        None, pattern=NAME, description="Where its servers are, such as eu, for rules on personal data (curate.pii)"
    )
    weight: Annotated[float, Field(ge=0, le=1_000_000)] | None = Field(
        None, description="This teacher's share of the prompts; 0: only asked where another would or could not answer"
    )

    @model_validator(mode="after")
    def _bounded(self) -> TeacherSpec:
        mistakes = list(self._mistakes())
        if mistakes:
            raise Misplaced(*mistakes)
        return self

    def _mistakes(self) -> Iterator[tuple[Place, str]]:
        limit = self.parameters.get("max_tokens")
        if limit is None:
            yield ("parameters",), "max_tokens is required: it bounds what an answer may cost"
        elif type(limit) is not int or not 1 <= limit <= 10**9:
            yield ("parameters", "max_tokens"), f"must be a whole number of 1 or more, found {shown(limit)}"
        if self.free and self.price is not None:
            yield ("free",), "free: true and price exclude each other; remove one"
        if self.transport == "sdk" and self.name.startswith(("embedded/", "scripted/")):
            yield ("transport",), f"{self.name} is asked without a network, so there is no SDK for it; remove this"
        if self.key_env is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", self.key_env):
            # What stands there may be the key itself, so it is not repeated.
            yield ("key_env",), "must be the name of an environment variable, such as MY_API_KEY, never the key itself"
