"""What a server says of its rate limits in the headers of an answer."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal, TypeAlias

LimitUnit: TypeAlias = Literal["requests", "tokens", "input_tokens", "output_tokens"]

MINUTE_S: Final = 60.0
_QUOTA_S: Final = 600.0
"""What takes longer to fill up again is an allowance of a day, which nobody wants to spend evenly."""
_EPOCH: Final = 10.0**9
"""A reset later than this is a moment, not a number of seconds."""
_EPOCH_MS: Final = 10.0**12
_SPAN: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|h|m|s|d)")
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_WINDOW: Final = re.compile(r"\bw=(\d+)")
_QUOTA: Final = re.compile(r"\bq=(\d+)")

_OPENAI: Final[tuple[tuple[LimitUnit, str], ...]] = (("requests", "requests"), ("tokens", "tokens"))
_ANTHROPIC: Final[tuple[tuple[LimitUnit, str], ...]] = (
    ("requests", "requests"),
    ("tokens", "tokens"),
    ("input_tokens", "input-tokens"),
    ("output_tokens", "output-tokens"),
)
_NO_HEADERS: Final[Mapping[str, str]] = {}


@dataclass(frozen=True, kw_only=True)
class Limit:
    """One limit as a server states it; what it leaves out is None."""

    unit: LimitUnit
    per_s: float | None = None
    remaining: float | None = None
    resets_s: float | None = None
    """Seconds until a window that is used up begins anew; None for a limit that fills up all the time."""


def read_limits(headers: Mapping[str, str], now: datetime) -> tuple[Limit, ...]:
    """Every limit that headers state, in OpenAI's, Anthropic's and the draft standard's words."""
    return (*_openai(headers), *_anthropic(headers), *_standard(headers, now))


def only_limits(headers: Mapping[str, str]) -> Mapping[str, str]:
    """The headers that speak of limits, and nothing else."""
    said = {name.lower(): value for name, value in headers.items() if "ratelimit" in name.lower()}
    return said or _NO_HEADERS


def _openai(headers: Mapping[str, str]) -> Iterator[Limit]:
    for unit, name in _OPENAI:
        limit = _number(headers.get(f"x-ratelimit-limit-{name}"))
        if not limit:
            continue
        remaining = _number(headers.get(f"x-ratelimit-remaining-{name}"))
        full_s = span_s(headers.get(f"x-ratelimit-reset-{name}"))
        yield Limit(unit=unit, per_s=_filling(limit, remaining, full_s), remaining=remaining)


def _filling(limit: float, remaining: float | None, full_s: float | None) -> float | None:
    """Units a second of a limit by the minute; None for one by the day, as some providers name alike."""
    used = 0.0 if remaining is None else limit - remaining
    if full_s and used > 0 and limit * full_s / used > _QUOTA_S:
        return None
    return limit / MINUTE_S


def _anthropic(headers: Mapping[str, str]) -> Iterator[Limit]:
    for unit, name in _ANTHROPIC:
        limit = _number(headers.get(f"anthropic-ratelimit-{name}-limit"))
        if limit:
            remaining = _number(headers.get(f"anthropic-ratelimit-{name}-remaining"))
            yield Limit(unit=unit, per_s=limit / MINUTE_S, remaining=remaining)


def _standard(headers: Mapping[str, str], now: datetime) -> Iterator[Limit]:
    prefix = "x-ratelimit-" if "x-ratelimit-limit" in headers else "ratelimit-"
    stated = headers.get(f"{prefix}limit")
    policy = headers.get("ratelimit-policy") or stated
    if policy is None:
        return
    quota = _QUOTA.search(policy)
    window, limit = _WINDOW.search(policy), float(quota[1]) if quota else _number((stated or policy).split(",")[0])
    per_s = limit / float(window[1]) if limit and window and 0 < float(window[1]) <= _QUOTA_S else None
    remaining, resets = _number(headers.get(f"{prefix}remaining")), _number(headers.get(f"{prefix}reset"))
    yield Limit(unit="requests", per_s=per_s, remaining=remaining, resets_s=_until(resets, now))


def _until(reset: float | None, now: datetime) -> float | None:
    if reset is None or reset < _EPOCH:
        return reset
    moment = reset / 1000 if reset >= _EPOCH_MS else reset
    return max(0.0, moment - now.astimezone(UTC).timestamp())


def span_s(text: str | None) -> float | None:
    """Seconds of a span such as ``6m0s`` or ``120ms``."""
    parts = _SPAN.findall(text or "")
    return sum(float(number) * _SECONDS[unit] for number, unit in parts) if parts else _number(text)


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None
