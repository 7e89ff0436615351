"""Public prices as the package genai-prices lists them: no network, the figures are in the package."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, date, datetime, time
from decimal import ROUND_CEILING, Decimal
from functools import lru_cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Final

from corpusgen.budget.rate import BATCH, MTOK, STANDARD, PerMtok, Tier, dearest

if TYPE_CHECKING:
    from genai_prices.data_snapshot import DataSnapshot
    from genai_prices.types import (
        ConditionalPrice,
        ModelInfo,
        ModelPrice,
        PriceVariant,
        Provider,
        StartDateConstraint,
        TieredPrices,
        TimeOfDateConstraint,
    )

    Figure = Decimal | TieredPrices
    Constraint = StartDateConstraint | TimeOfDateConstraint | None

DISTRIBUTION: Final = "genai-prices"
_PER_CALL: Final = ("requests_kcount", "output_citation_mtok")
"""Fees that a bound on tokens does not bound."""


@lru_cache(maxsize=64)
def public_tiers(provider: str | None, base_url: str | None, model: str, on: date) -> tuple[dict[str, Tier], str]:
    """What a model costs on a day, by service tier, and the name of that price.

    Computed once per model and day. Raises LookupError saying what is missing.
    """
    biller, found = _find(provider, base_url, model)
    standard = _in_force(found, on)
    _check(standard, found)
    tiers = {STANDARD: dearest(map(_tier, standard))}
    for name, changed in _variants(found, on).items():
        tiers[name] = dearest(_tier(price | change) for price in standard for change in changed)
    return tiers, f"{DISTRIBUTION} {version(DISTRIBUTION)}: {biller.id}/{found.id} on {on}"


def _find(provider: str | None, base_url: str | None, model: str) -> tuple[Provider, ModelInfo]:
    from genai_prices.data_snapshot import get_snapshot

    snapshot = get_snapshot()
    # Whoever is asked sends the bill, whatever the spec calls the provider.
    biller = _by_address(snapshot, base_url) or snapshot.find_provider(None, provider, None)
    return snapshot.find_provider_model(model, biller, None, None)


def _by_address(snapshot: DataSnapshot, base_url: str | None) -> Provider | None:
    try:
        return None if base_url is None else snapshot.find_provider(None, None, base_url)
    except LookupError:
        return None


def _in_force(model: ModelInfo, on: date) -> list[dict[str, Figure]]:
    """Every price that may hold at some time of a day: the latest that has begun, and those of its hours."""
    from genai_prices.types import ModelPrice

    if isinstance(model.prices, ModelPrice):
        return [_figures(model.prices)]
    return [_figures(price.prices) for price in _of_the_day(model.prices, on)]


def _of_the_day(prices: list[ConditionalPrice], on: date) -> Iterator[ConditionalPrice]:
    for price in reversed(prices):  # the last that holds takes precedence
        if _by_hour(price.constraint):
            yield price
        elif _begun(price.constraint, on):
            yield price
            return
    yield prices[0]


def _by_hour(constraint: Constraint) -> bool:
    from genai_prices.types import TimeOfDateConstraint

    return isinstance(constraint, TimeOfDateConstraint)


def _begun(constraint: Constraint, on: date) -> bool:
    return constraint is None or constraint.active(datetime.combine(on, time(), UTC))


def _variants(model: ModelInfo, on: date) -> dict[str, list[dict[str, Figure]]]:
    """The other prices a call may have, by the name of the tier; of what is not a tier, by its own name."""
    found: dict[str, list[dict[str, Figure]]] = {}
    for variant in model.price_variants or ():
        changed = _figures(variant.prices)
        if changed and (_by_hour(variant.constraint) or _begun(variant.constraint, on)):
            found.setdefault(_variant_name(variant), []).append(changed)
    return found


def _variant_name(variant: PriceVariant) -> str:
    if set(variant.when) == {"service_tier"}:
        return variant.when["service_tier"].lower()
    if variant.when == {"processing": "batch"}:
        return BATCH
    return ",".join(f"{key}={value}" for key, value in sorted(variant.when.items()))


def _figures(price: ModelPrice) -> dict[str, Figure]:
    return {key: value for key, value in vars(price).items() if value is not None}


def _check(prices: Iterable[Mapping[str, Figure]], model: ModelInfo) -> None:
    for figures in prices:
        if "input_mtok" not in figures or "output_mtok" not in figures:
            raise LookupError(f"{model.id!r} has no price per token")
        unbounded = [name for name in _PER_CALL if name in figures]
        if unbounded:
            raise LookupError(f"{model.id!r} also charges {unbounded[0]}, which tokens do not bound")


def _tier(figures: Mapping[str, Figure]) -> Tier:
    marks = sorted({mark for figure in figures.values() for mark in _marks(figure)})
    return Tier(base=_per_mtok(figures, 0), long=tuple((mark, _per_mtok(figures, mark + 1)) for mark in marks))


def _per_mtok(figures: Mapping[str, Figure], input_tokens: int) -> PerMtok:
    def at(name: str, otherwise: int) -> int:
        return _microusd(_at(figures[name], input_tokens)) if name in figures else otherwise

    plain = at("input_mtok", 0)
    write = at("cache_write_mtok", plain)
    return PerMtok(
        input=plain,
        output=max(at("output_mtok", 0), at("output_reasoning_mtok", 0)),
        cached_input=at("cache_read_mtok", plain),
        cache_write=write,
        cache_write_1h=at("cache_write_1h_mtok", write),
    )


def _marks(figure: Figure) -> list[int]:
    return [] if isinstance(figure, Decimal) else [step.start for step in figure.tiers]


def _at(figure: Figure, input_tokens: int) -> Decimal:
    if isinstance(figure, Decimal):
        return figure
    above = [step.price for step in figure.tiers if input_tokens > step.start]
    return above[-1] if above else figure.base


def _microusd(dollars: Decimal) -> int:
    return int((dollars * MTOK).to_integral_value(ROUND_CEILING))
