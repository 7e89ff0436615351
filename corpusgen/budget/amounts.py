"""How much of what: the units a budget counts, amounts of them, the periods caps hold for, and words for all that."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from corpusgen.fields import Per, Unit
from corpusgen.frozen import quickly_made

UNITS: tuple[Unit, ...] = ("microusd", "tokens", "requests", "compute_us")
"""What a call uses."""
CAPPED: tuple[Unit, ...] = (*UNITS, "wall_us")
"""What may have a cap: time passes without a call."""
DAY_US = 86_400_000_000


@quickly_made
@dataclass(frozen=True, kw_only=True)
class Amounts:
    """So much of each unit."""

    microusd: int = 0
    tokens: int = 0
    requests: int = 0
    compute_us: int = 0

    @property
    def each(self) -> tuple[int, int, int, int]:
        """The amounts in the order of UNITS."""
        return self.microusd, self.tokens, self.requests, self.compute_us

    def of(self, unit: Unit) -> int:
        """The amount in one unit."""
        return 0 if unit == "wall_us" else self.each[UNITS.index(unit)]

    def plus(self, other: Amounts) -> Amounts:
        """Both together."""
        return Amounts(**{unit: self.of(unit) + other.of(unit) for unit in UNITS})

    def exceeds(self, other: Amounts) -> bool:
        """True when any unit is more than the other's."""
        return (
            self.microusd > other.microusd
            or self.tokens > other.tokens
            or self.requests > other.requests
            or self.compute_us > other.compute_us
        )


NOTHING = Amounts()


def in_period(scope: str, per: Per, now_us: int) -> str:
    """What a scope is called in the period of a moment (UTC): corpus, corpus@2026-11-21 or corpus@2026-11."""
    if per == "total":
        return scope
    day = datetime.fromtimestamp(now_us // 1_000_000, UTC).date().isoformat()
    return f"{scope}@{day if per == 'day' else day[:7]}"


def period_of(name: str) -> tuple[str, Per]:
    """The scope that a booked name belongs to, and what period it is of."""
    scope, _, period = name.rpartition("@")
    if re.fullmatch(r"\d{4}-\d\d(-\d\d)?", period):
        return scope, "day" if len(period) == 10 else "month"
    return name, "total"


def money(amount: int) -> str:
    """Micro-dollars as dollars with all their digits."""
    return f"${amount / 1_000_000:.6f}"


def shown(amount: int, unit: Unit) -> str:
    """An amount of a unit as people read it: dollars, seconds, or a number."""
    if unit == "microusd":
        return money(amount)
    return f"{amount / 1_000_000:.6f}".rstrip("0").rstrip(".") if unit in ("compute_us", "wall_us") else str(amount)


_NAMES: dict[Unit, str] = {"microusd": "usd", "compute_us": "compute_s", "wall_us": "wall_s"}


def unit_name(unit: Unit) -> str:
    """The word a budget uses for a unit."""
    return _NAMES.get(unit, unit)


def describe(amounts: Mapping[Unit, int]) -> str:
    """Caps in a person's words."""
    return ", ".join(f"{shown(n, unit)} {unit_name(unit)}" for unit, n in amounts.items()) or "no caps"
