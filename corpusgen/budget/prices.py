"""What a teacher costs: the spec's own price, else the shipped table's, else the public one, else it is not asked."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from dataclasses import replace
from datetime import date
from typing import Final
from urllib.parse import urlsplit

from corpusgen.budget.price_table import PriceTable, rate_of_price, shipped_prices
from corpusgen.budget.public_prices import public_tiers
from corpusgen.budget.rate import BATCH, MTOK, STANDARD, PerMtok, Rate, Tier, rate_from, tier_name
from corpusgen.errors import PriceUnknown
from corpusgen.teacher_fields import TeacherSpec

__all__ = ["MTOK", "PerMtok", "Rate", "Tier", "rate_of"]

_FREE: Final = Rate(input_per_mtok=0, output_per_mtok=0, version="free")
_NOT_HOSTED: Final = ("self_hosted", "mock")
_SEARCHES: Final = ("web_search_options", "search_parameters", "plugins", "enable_search", "web_search")
"""Parameters by which a call brings fees of its own."""
_REGION: Final = "inference_geo"
"""Where Anthropic is to compute; elsewhere than anywhere costs more."""
_BY_PARAMETER: Final = ("speed", "search_type")


def rate_of(teacher: TeacherSpec, *, on: date, table: PriceTable | None = None, batch: bool = False) -> Rate:
    """The price of a teacher on a day (UTC), of the tiers its parameters may be answered at.

    Looks in the spec, in the table (the shipped one), in genai-prices. Raises PriceUnknown, so that nothing is sent.
    """
    if teacher.free:
        return _FREE
    _refuse_fees(teacher)
    if teacher.price is not None:
        rate = rate_of_price(teacher.price, version=f"spec: {teacher.price.source}")
        return _serving(rate, teacher, batch)
    model = teacher.name.partition("/")[2]
    name = f"{_provider(teacher)}/{model}"
    row = (table or shipped_prices()).price(name, on) if _hosted(teacher) else None
    if row is not None:
        return _serving(rate_of_price(row, version=row.version), teacher, batch)
    return _serving(_public(teacher, model, on), teacher, batch)


def _public(teacher: TeacherSpec, model: str, on: date) -> Rate:
    if not _hosted(teacher):
        raise _unknown(teacher, "it is not a hosted teacher that a price list names")
    try:
        tiers, version = public_tiers(_provider(teacher), teacher.base_url, model, on)
    except LookupError as error:
        raise _unknown(teacher, str(error)) from error
    rate = rate_from(tiers, version=version, served=frozenset({STANDARD}))
    if rate.free:
        raise _unknown(teacher, "genai-prices lists it at nothing; say free: true if that is so")
    return rate


def _refuse_fees(teacher: TeacherSpec) -> None:
    if found := [name for name in _SEARCHES if name in teacher.parameters]:
        raise PriceUnknown(
            f"the worst case of {teacher.name!r} cannot be bounded: parameters.{found[0]} brings fees and input besides"
            " its tokens, whatever the price of those; remove it"
        )
    where = teacher.parameters.get(_REGION)
    if teacher.price is None and where not in (None, "global"):
        raise _unknown(teacher, f"parameters.{_REGION}: {where} has a surcharge that no price list here names")


def _serving(rate: Rate, teacher: TeacherSpec, batch: bool) -> Rate:
    """The rate with the tiers that may answer: a provider may serve a cheaper one than asked, or the account's own."""
    asked = teacher.parameters.get("service_tier")
    known = {STANDARD, *rate.tiers}
    if batch:
        served: Collection[str] = {BATCH} & known or {STANDARD}
    elif asked is None or asked == "auto":
        served = {name for name in known if name != BATCH and _may_be(name, teacher)}
    else:
        served = {STANDARD, tier_name(str(asked))}
    if missing := set(served) - known:
        raise _unknown(teacher, f"no price of service tier {missing.pop()!r} is written; add it under price.tiers")
    if batch and BATCH in rate.tiers:  # estimates go by the plain figures
        plain = rate.tiers[BATCH].base
        rate = replace(rate, input_per_mtok=plain.input, output_per_mtok=plain.output)
    return replace(rate, served=frozenset(served))


def _may_be(tier: str, teacher: TeacherSpec) -> bool:
    """False for what is priced by a parameter that was not given."""
    key, _, value = tier.partition("=")
    return key not in _BY_PARAMETER or teacher.parameters.get(key) == value


def _provider(teacher: TeacherSpec) -> str | None:
    kind = teacher.name.partition("/")[0]
    return teacher.provider or (None if kind == "endpoint" else kind)


def _hosted(teacher: TeacherSpec) -> bool:
    """True if somebody else runs it and sends a bill."""
    if teacher.route is not None:
        return teacher.route not in _NOT_HOSTED
    return teacher.base_url is None or not _loopback(teacher.base_url)


def _loopback(address: str) -> bool:
    try:
        host = urlsplit(address).hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _unknown(teacher: TeacherSpec, why: str) -> PriceUnknown:
    return PriceUnknown(
        f"the price of {teacher.name!r} is not known, so its worst case cannot be bounded ({why});"
        " add price: {input_usd_per_mtok, output_usd_per_mtok, source}, or free: true if it costs nothing"
    )
