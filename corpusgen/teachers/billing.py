"""What a failed call may have cost, by what the provider says of the status it answered with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Annotated, Final, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from corpusgen.errors import SpecError
from corpusgen.shipped import shipped
from corpusgen.spec import problems, read_yaml
from corpusgen.teachers.table import EndpointRow

_NOTHING_DONE: Final = frozenset({401, 404, 405, 406, 410, 411, 413, 414, 415, 421, 426, 431})
"""Refusals of somebody who has not looked at the prompt: no key, no such place, no such form. Others may come from a
filter or a check that is charged for, as at Azure and xAI."""


class BillingFact(BaseModel):
    """What one provider says, where it says so, and on which day it was read."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    provider: str = Field(min_length=1)
    hosts: tuple[str, ...] = Field(min_length=1, description="Host names; * stands for any part")
    statuses: tuple[Annotated[int, Field(ge=100, le=999)], ...] = Field(min_length=1)
    billed: bool
    source: str = Field(min_length=1)
    as_of: str = Field(pattern=r"^\d{4}-\d{2}-\d{2}$")


class BatchFact(BaseModel):
    """Who takes batches in which protocol, and for which of a batch's failures it says that it charges nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    provider: str = Field(min_length=1)
    hosts: tuple[str, ...] = Field(min_length=1, description="Host names; * stands for any part")
    protocol: Literal["openai", "anthropic"]
    unbilled: tuple[Literal["errored", "expired", "canceled"], ...]
    source: str = Field(min_length=1)
    as_of: str = Field(pattern=r"^\d{4}-\d{2}-\d{2}$")


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=True)

    version: Literal["corpusgen.endpoints/1"] = Field(alias="schema")
    billing: tuple[BillingFact, ...]
    batches: tuple[BatchFact, ...] = ()
    endpoints: tuple[EndpointRow, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Billing:
    """What is known of one endpoint: status → charged for or not."""

    known: Mapping[int, bool]

    def may_charge(self, status: int) -> bool:
        """Whether a call that ended with this status may be on the bill. What is not known may be."""
        stated = self.known.get(status)
        if stated is not None:
            return stated
        return status not in _NOTHING_DONE

    def without_charge(self, statuses: Iterable[int]) -> Billing:
        """The same, for somebody who knows of these that nothing is charged after them."""
        return Billing(known={**self.known, **dict.fromkeys(statuses, False)})


NOTHING_KNOWN: Final = Billing(known={})


def billing_of(provider: str, host: str, facts: Iterable[BillingFact]) -> Billing:
    """What the facts say of a provider at a host. Where two contradict each other, it is charged."""
    known: dict[int, bool] = {}
    for fact in facts:
        if fact.provider == provider and any(fnmatchcase(host.lower(), pattern) for pattern in fact.hosts):
            known |= {status: fact.billed or known.get(status, False) for status in fact.statuses}
    return Billing(known=known)


def load_facts(path: Path) -> tuple[BillingFact, ...]:
    """The facts in a YAML file. Raises SpecError with the line of each mistake."""
    return _load(path).billing


def load_rows(path: Path) -> tuple[EndpointRow, ...]:
    """The servers in a YAML file. Raises SpecError with the line of each mistake."""
    return _load(path).endpoints


def _load(path: Path) -> _Table:
    value, lines = read_yaml(path)
    try:
        return _Table.model_validate_json(orjson.dumps(value))
    except ValidationError as error:
        raise SpecError(*problems(path, lines, error, _Table)) from error


def shipped_facts() -> tuple[BillingFact, ...]:
    """The facts that come with corpusgen."""
    return _shipped().billing


def shipped_rows() -> tuple[EndpointRow, ...]:
    """The servers that corpusgen knows."""
    return _shipped().endpoints


@cache
def _shipped() -> _Table:
    return _load(shipped("data/endpoints.yaml"))


def batch_fact(provider: str, host: str) -> BatchFact | None:
    """What the shipped table says of a provider's batches at a host."""
    rows = _shipped().batches
    here = (row for row in rows if row.provider == provider and any(fnmatchcase(host.lower(), at) for at in row.hosts))
    return next(here, None)
