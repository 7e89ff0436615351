"""What tokens cost, in integer micro-dollars, rounded against ourselves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from corpusgen.budget.amounts import Amounts
from corpusgen.records import Usage

MTOK: Final = 1_000_000
STANDARD: Final = "standard"
BATCH: Final = "batch"
_ALSO_STANDARD: Final = frozenset({"default", "on_demand"})


@dataclass(frozen=True, kw_only=True)
class PerMtok:
    """Micro-dollars per million tokens of each kind."""

    input: int
    output: int
    cached_input: int
    cache_write: int
    cache_write_1h: int

    @property
    def dearest_input(self) -> int:
        """What a token of input costs at most."""
        return max(self.input, self.cached_input, self.cache_write, self.cache_write_1h)

    @property
    def free(self) -> bool:
        """True when no token costs anything."""
        return not self.dearest_input and not self.output

    def cost(self, usage: Usage) -> int:
        """Micro-dollars of one call, rounded up."""
        brief = usage.cache_write_tokens - usage.cache_write_1h_tokens
        plain = max(0, usage.input_tokens - usage.cached_input_tokens - usage.cache_write_tokens)
        return _whole(
            plain * self.input
            + usage.cached_input_tokens * self.cached_input
            + brief * self.cache_write
            + usage.cache_write_1h_tokens * self.cache_write_1h
            + usage.output_tokens * self.output
        )


@dataclass(frozen=True, kw_only=True)
class Tier:
    """What one service tier costs. A request with more input than a mark pays that step's price as a whole."""

    base: PerMtok
    long: tuple[tuple[int, PerMtok], ...] = ()
    """Marks in tokens, rising, each with the price above it."""

    def at(self, input_tokens: int) -> PerMtok:
        """The price of a request with so much input."""
        return self.reachable(input_tokens)[-1] if self.long else self.base

    def reachable(self, input_bound: int) -> list[PerMtok]:
        """The prices a request with at most so much input may have."""
        return [self.base, *(price for mark, price in self.long if input_bound > mark)]


@dataclass(frozen=True, kw_only=True)
class Rate:
    """What a teacher's calls cost on one day, and where that is written.

    ``input_per_mtok`` and ``output_per_mtok`` are the standard tier's plain figures. ``served`` names the tiers that a
    call may be answered at: what is not known beforehand is promised at the dearest of them.
    """

    input_per_mtok: int
    output_per_mtok: int
    version: str
    tiers: Mapping[str, Tier] = field(default_factory=dict, hash=False)
    """By the provider's name; without one called ``standard``, that is the two figures above."""
    served: frozenset[str] = frozenset({STANDARD})

    @property
    def free(self) -> bool:
        """True when no call can cost money."""
        return all(price.free for tier in self._named.values() for price in (tier.base, *(p for _, p in tier.long)))

    def cost(self, input_tokens: int, output_tokens: int) -> int:
        """Micro-dollars of so many plain tokens, over however many calls, rounded up; for estimates."""
        return _whole(input_tokens * self.input_per_mtok + output_tokens * self.output_per_mtok)

    def worst(self, input_bound: int, max_tokens: int) -> Amounts:
        """The most one call can use: all of its input written to the cache, at the dearest tier within reach."""
        given, answered = next(prices for mark, *prices in self._ceilings if input_bound > mark)
        return Amounts(
            microusd=_whole(input_bound * given + max_tokens * answered),
            tokens=input_bound + max_tokens,
            requests=1,
        )

    def used(self, usage: Usage) -> Amounts:
        """What one call used, by its own answer."""
        if usage.billed_microusd is not None and not self.free:
            return Amounts(microusd=usage.billed_microusd, tokens=usage.total_tokens, requests=1)
        tiers = self._tiers_of(usage.service_tier)
        microusd = max([tier.at(usage.input_tokens).cost(usage) for tier in tiers])
        if not usage.counted:
            microusd = max(microusd, self.worst(usage.input_tokens, usage.output_tokens).microusd)
        return Amounts(microusd=microusd, tokens=usage.total_tokens, requests=1)

    def _tiers_of(self, name: str | None) -> list[Tier]:
        """The tier of that name; where the answer names none, or one without a price, all it may have been."""
        known = self._named.get(tier_name(name)) if name is not None else None
        return [self._named[one] for one in self.served] if known is None else [known]

    @cached_property
    def _named(self) -> Mapping[str, Tier]:
        plain = flat(self.input_per_mtok, self.output_per_mtok)
        return {STANDARD: Tier(base=plain), **self.tiers}

    @cached_property
    def _ceilings(self) -> list[tuple[int, int, int]]:
        """The dearest input and output of requests above each mark, longest first; computed once."""
        tiers = [self._named[name] for name in self.served]
        marks = sorted({-1, *(mark for tier in tiers for mark, _ in tier.long)}, reverse=True)
        within = [(mark, [price for tier in tiers for price in tier.reachable(mark + 1)]) for mark in marks]
        return [
            (mark, max(price.dearest_input for price in prices), max(price.output for price in prices))
            for mark, prices in within
        ]


def flat(input_per_mtok: int, output_per_mtok: int) -> PerMtok:
    """A price that knows no cache."""
    return PerMtok(
        input=input_per_mtok,
        output=output_per_mtok,
        cached_input=input_per_mtok,
        cache_write=input_per_mtok,
        cache_write_1h=input_per_mtok,
    )


def rate_from(tiers: Mapping[str, Tier], *, version: str, served: frozenset[str]) -> Rate:
    """A rate whose plain figures are those of its standard tier."""
    plain = tiers[STANDARD].base
    return Rate(input_per_mtok=plain.input, output_per_mtok=plain.output, version=version, tiers=tiers, served=served)


def dearest(tiers: Iterable[Tier]) -> Tier:
    """A tier that costs at least what each of these costs, whatever the request."""
    every = list(tiers)
    marks = sorted({mark for tier in every for mark, _ in tier.long})
    return Tier(
        base=_highest([tier.base for tier in every]),
        long=tuple((mark, _highest([tier.at(mark + 1) for tier in every])) for mark in marks),
    )


def _highest(prices: Sequence[PerMtok]) -> PerMtok:
    return PerMtok(**{name: max(getattr(price, name) for price in prices) for name in PerMtok.__dataclass_fields__})


def tier_name(name: str) -> str:
    """A provider's name for a tier as the tables spell it."""
    lower = name.lower()
    return STANDARD if lower in _ALSO_STANDARD else lower


def _whole(millionths: int) -> int:
    return -(-millionths // MTOK)
