"""How far a run is: one snapshot, from whoever does the work to whoever shows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Progress:
    """One moment of a run. Money is micro-dollars, kept apart as settled, promised and unconfirmed.

    ``done`` counts what ended, answered from the cache included; ``total`` and ``seconds_left`` are None while nobody
    knows; a cap of None is no cap. ``drops`` maps a reason to how many were dropped for it.
    """

    stage: str
    done: int = 0
    total: int | None = None
    in_flight: int = 0
    from_cache: int = 0
    drops: Mapping[str, int] = field(default_factory=dict)
    rate_per_s: float = 0.0
    spent_microusd: int = 0
    promised_microusd: int = 0
    unconfirmed_microusd: int = 0
    cap_microusd: int | None = None
    tokens_spent: int = 0
    tokens_cap: int | None = None
    requests: int = 0
    requests_cap: int | None = None
    seconds_left: float | None = None
    note: str = ""

    @property
    def share(self) -> float | None:
        """How much is done, between 0 and 1; None while the total is unknown."""
        if self.total is None:
            return None
        return min(1.0, self.done / self.total) if self.total > 0 else 1.0

    @property
    def dropped(self) -> int:
        """How many were dropped, for whatever reason."""
        return sum(self.drops.values())
