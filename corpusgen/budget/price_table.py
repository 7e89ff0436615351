"""The shipped price table: hosted teachers, and what local processor time is taken to be worth."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path
from typing import Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from corpusgen.budget.rate import STANDARD, PerMtok, Rate, Tier, rate_from, tier_name
from corpusgen.errors import Problem, SpecError
from corpusgen.fields import MicroUsd
from corpusgen.shipped import shipped
from corpusgen.spec import problems, read_yaml
from corpusgen.teacher_fields import Figures, Price, TierPrice


class HostedPrice(Price):
    """One hosted teacher's price from one day on."""

    teacher: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*/.+$", description="provider/model")
    as_of: date = Field(description="The day on which the source was read")
    effective: date | None = Field(None, description="The first day, UTC, of this price; without one it always held")

    @property
    def version(self) -> str:
        """Source and day, as every row that was priced by it keeps them."""
        since = f", from {self.effective}" if self.effective else ""
        return f"prices.yaml: {self.source}, {self.as_of}{since}"


class _CpuHour(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    usd: MicroUsd
    source: str
    as_of: date


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    format: Literal["corpusgen.prices/1"] = Field(alias="schema")
    shadow_usd_per_cpu_hour: _CpuHour
    hosted: tuple[HostedPrice, ...]


@dataclass(frozen=True, kw_only=True)
class PriceTable:
    """Hosted teachers by name, and what an hour of a local processor is taken to cost in micro-dollars."""

    rows: tuple[HostedPrice, ...]
    microusd_per_cpu_hour: int
    cpu_source: str

    @property
    def hosted(self) -> tuple[tuple[str, Rate], ...]:
        """Every teacher with its latest standard price, for comparisons."""
        latest = {row.teacher: row for row in sorted(self.rows, key=_since)}
        return tuple((name, rate_of_price(row, version=f"{row.source}, {row.as_of}")) for name, row in latest.items())

    def price(self, teacher: str, on: date) -> HostedPrice | None:
        """What a teacher costs on a day, or None."""
        rows = [row for row in self.rows if row.teacher == teacher and _since(row) <= on]
        return max(rows, key=_since, default=None)


def load_prices(path: Path) -> PriceTable:
    """The table in a YAML file. Raises SpecError with every problem, each at its line."""
    value, lines = read_yaml(path)
    if not isinstance(value, dict):
        raise SpecError(Problem(file=path, line=1, field="", message="a price table is a mapping of fields"))
    try:
        file = _File.model_validate_json(orjson.dumps(value))
    except ValidationError as error:
        raise SpecError(*problems(path, lines, error, _File)) from error
    twice = [at for at, row in enumerate(file.hosted) if _same_day(row, file.hosted[:at])]
    if twice:
        place = ("hosted", twice[0])
        message = f"{file.hosted[twice[0]].teacher} has two prices from the same day; remove one, or write effective"
        raise SpecError(Problem(file=path, line=lines[place], field=f"hosted.{twice[0]}", message=message))
    hour = file.shadow_usd_per_cpu_hour
    return PriceTable(rows=file.hosted, microusd_per_cpu_hour=hour.usd, cpu_source=hour.source)


@cache
def shipped_prices() -> PriceTable:
    """The table that comes with corpusgen."""
    return load_prices(shipped("data/prices.yaml"))


def rate_of_price(price: Price, *, version: str, served: frozenset[str] = frozenset({STANDARD})) -> Rate:
    """The rate of a written price."""
    tiers = {STANDARD: _tier(price)} | {tier_name(name): _tier(tier) for name, tier in price.tiers.items()}
    return rate_from(tiers, version=version, served=served)


def _tier(price: TierPrice) -> Tier:
    return Tier(
        base=_per_mtok(price), long=tuple((step.above_input_tokens, _per_mtok(step)) for step in price.long_context)
    )


def _per_mtok(figures: Figures) -> PerMtok:
    plain = figures.input_usd_per_mtok
    cached, brief = figures.cached_input_usd_per_mtok, figures.cache_write_usd_per_mtok
    write = plain if brief is None else brief
    lasting = figures.cache_write_1h_usd_per_mtok
    return PerMtok(
        input=plain,
        output=figures.output_usd_per_mtok,
        cached_input=plain if cached is None else cached,
        cache_write=write,
        cache_write_1h=write if lasting is None else lasting,
    )


def _since(row: HostedPrice) -> date:
    return row.effective or date.min


def _same_day(row: HostedPrice, others: Iterable[HostedPrice]) -> bool:
    return any((other.teacher, other.effective) == (row.teacher, row.effective) for other in others)
