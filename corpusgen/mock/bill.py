"""The mock teacher's own bill: what a provider would charge, whether or not the client got its answer."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from corpusgen.records import Json, Usage

MTOK = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Prices:
    """Micro-dollars per million tokens."""

    input_per_mtok: int = 1_000_000
    output_per_mtok: int = 4_000_000


@dataclass(kw_only=True)
class Bill:
    """Everything asked and everything charged for."""

    prices: Prices
    requests: int = 0
    tokens: int = 0
    requests_by_kind: Counter[str] = field(default_factory=Counter)
    answered: Counter[str] = field(default_factory=Counter)
    """How often each request was given an answer that can be kept, by its key."""
    charged: Counter[str] = field(default_factory=Counter)
    """How often each request was charged for, by its key."""
    _parts: int = 0
    """Millionths of a micro-dollar: a bill is rounded once, at its end, so that no rounding hides in it."""
    _parts_by_kind: Counter[str] = field(default_factory=Counter)

    @property
    def microusd(self) -> int:
        """The sum in micro-dollars, rounded up."""
        return _microusd(self._parts)

    def asked(self, kind: str) -> None:
        """Count a request and what became of it."""
        self.requests += 1
        self.requests_by_kind[kind] += 1

    def charge(self, kind: str, key: str, usage: Usage) -> None:
        """Charge for the tokens of one request."""
        parts = usage.input_tokens * self.prices.input_per_mtok + usage.output_tokens * self.prices.output_per_mtok
        self.tokens += usage.total_tokens
        self.charged[key] += 1
        self._parts += parts
        self._parts_by_kind[kind] += parts

    def to_json(self) -> dict[str, Json]:
        """The bill as ``GET /bill`` gives it."""
        kinds = {
            kind: {"requests": count, "billed_microusd": _microusd(self._parts_by_kind[kind])}
            for kind, count in sorted(self.requests_by_kind.items())
        }
        return {
            "requests": self.requests,
            "billed_microusd": self.microusd,
            "billed_tokens": self.tokens,
            "billed_requests": self.charged.total(),
            "by_kind": kinds,
            "answered": dict(self.answered),
            "charged": dict(self.charged),
        }


def _microusd(parts: int) -> int:
    return -(-parts // MTOK)
