"""The mock teacher's own bill: what a provider would charge, whether or not the client got its answer."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from corpusgen.records import Json, Usage

MTOK = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Prices:
    """Micro-dollars per million tokens, and what part of that is charged when."""

    input_per_mtok: int = 1_000_000
    output_per_mtok: int = 4_000_000
    cached_percent: int = 10
    """Of the input price, for what the prompt cache had."""
    write_percent: int = 125
    """Of the input price, for what is written to the prompt cache."""
    write_1h_percent: int = 200
    """Of the input price, for what is written to be kept for an hour."""
    half_percent: int = 50
    """Of everything, for batches and the slow tier."""

    def parts(self, usage: Usage, *, half: bool) -> int:
        """The price of a usage, in 10 000 millionths of a micro-dollar."""
        read, written, lasting = usage.cached_input_tokens, usage.cache_write_tokens, usage.cache_write_1h_tokens
        input_percents = (
            (usage.input_tokens - read - written) * 100
            + read * self.cached_percent
            + (written - lasting) * self.write_percent
            + lasting * self.write_1h_percent
        )
        whole = input_percents * self.input_per_mtok + usage.output_tokens * 100 * self.output_per_mtok
        return whole * (self.half_percent if half else 100)


@dataclass(kw_only=True)
class JobBill:
    """What one batch was charged for."""

    parts: int = 0
    keys: dict[str, str] = field(default_factory=dict)
    """The key of each request that was charged, by its custom_id."""


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
    jobs: dict[str, JobBill] = field(default_factory=dict)
    """The batches, by their id."""
    _parts: int = 0
    """Tiny parts of a micro-dollar: a bill is rounded once, at its end, so that no rounding hides in it."""
    _parts_by_kind: Counter[str] = field(default_factory=Counter)

    @property
    def microusd(self) -> int:
        """The sum in micro-dollars, rounded up."""
        return _microusd(self._parts)

    def asked(self, kind: str) -> None:
        """Count a request and what became of it."""
        self.requests += 1
        self.requests_by_kind[kind] += 1

    def charge(self, kind: str, key: str, usage: Usage, *, half: bool = False) -> int:
        """Charge for the tokens of one request, perhaps at half the price."""
        parts = self.prices.parts(usage, half=half)
        self.tokens += usage.total_tokens
        self.charged[key] += 1
        self._parts += parts
        self._parts_by_kind[kind] += parts
        return parts

    def charge_in_job(self, job: str, custom_id: str, kind: str, key: str, usage: Usage) -> None:
        """Charge half the price for a request in a batch."""
        charged = self.jobs.setdefault(job, JobBill())
        charged.parts += self.charge(kind, key, usage, half=True)
        charged.keys[custom_id] = key

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
            "batches": {
                job: {"requests": len(found.keys), "billed_microusd": _microusd(found.parts), "keys": found.keys}
                for job, found in self.jobs.items()
            },
        }


def _microusd(parts: int) -> int:
    return -(-parts // (MTOK * 10_000))
