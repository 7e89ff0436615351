"""Rate limits on requests and tokens, told in the headers of each vendor."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from corpusgen.mock.dialect import Vendor
from corpusgen.mock.kinds import Headers
from corpusgen.mock.question import Question


@dataclass(frozen=True, kw_only=True)
class RateLimit:
    """So many requests or tokens a second, and so many at once before that counts."""

    per_s: float
    burst: int


@dataclass(kw_only=True)
class Bucket:
    """Something that fills up with time and is taken out by requests."""

    limit: RateLimit
    clock: Callable[[], float]
    left: float = field(init=False)
    seen: float = field(init=False)

    def __post_init__(self) -> None:
        self.left, self.seen = float(self.limit.burst), self.clock()

    def fill(self) -> None:
        """Bring it up to now."""
        now = self.clock()
        self.left = min(self.limit.burst, self.left + (now - self.seen) * self.limit.per_s)
        self.seen = now

    def wait_s(self, wanted: int) -> float:
        """How long until so many are in it; what would never fit waits until it is full."""
        return max(0.0, (min(wanted, self.limit.burst) - self.left) / self.limit.per_s)

    @property
    def full_in_s(self) -> float:
        """How long until nothing is missing."""
        return (self.limit.burst - self.left) / self.limit.per_s


@dataclass(kw_only=True)
class Limits:
    """What the server grants, and how it says so."""

    requests: RateLimit | None
    tokens: RateLimit | None
    told: bool
    clock: Callable[[], float]
    now: Callable[[], float]
    _buckets: dict[str, Bucket] = field(init=False)

    def __post_init__(self) -> None:
        given = {"requests": self.requests, "tokens": self.tokens}
        self._buckets = {
            name: Bucket(limit=limit, clock=self.clock) for name, limit in given.items() if limit is not None
        }

    def take(self, question: Question) -> str | None:
        """Grant a request, or say what there is not enough of; what is refused takes nothing."""
        wanted = _wanted(question)
        for bucket in self._buckets.values():
            bucket.fill()
        for name, bucket in self._buckets.items():
            if bucket.left < min(wanted[name], bucket.limit.burst):
                return name
        for name, bucket in self._buckets.items():
            bucket.left -= wanted[name]
        return None

    def headers(self, vendor: Vendor) -> Headers:
        """Where the limits stand, in the vendor's words; nothing from a server that does not tell."""
        if not self.told:
            return ()
        return tuple(
            header for name, bucket in self._buckets.items() for header in _HEADERS[vendor](name, bucket, self.now)
        )

    def pause(self, vendor: Vendor, lacking: str, question: Question) -> Headers:
        """How long to wait, in the vendor's words."""
        if not self.told:
            return ()
        milliseconds = math.ceil(self._buckets[lacking].wait_s(_wanted(question)[lacking]) * 1000)
        seconds = ("Retry-After", str(-(-milliseconds // 1000)))
        return (seconds,) if vendor == "anthropic" else (("retry-after-ms", str(milliseconds)), seconds)


def _wanted(question: Question) -> dict[str, int]:
    # As providers do: the answer counts with all it might take, before it is given.
    return {"requests": 1, "tokens": question.input_tokens + question.choices * question.max_tokens}


def _openai(name: str, bucket: Bucket, now: Callable[[], float]) -> Headers:
    return (
        (f"x-ratelimit-limit-{name}", f"{bucket.limit.per_s * 60:.12g}"),
        (f"x-ratelimit-remaining-{name}", str(max(0, int(bucket.left)))),
        (f"x-ratelimit-reset-{name}", duration(bucket.full_in_s)),
    )


def _anthropic(name: str, bucket: Bucket, now: Callable[[], float]) -> Headers:
    full = datetime.fromtimestamp(math.ceil(now() + bucket.full_in_s), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    names = ("requests",) if name == "requests" else ("tokens", "input-tokens", "output-tokens")
    return tuple(
        (f"anthropic-ratelimit-{of}-{what}", said)
        for of in names
        for what, said in (
            ("limit", f"{bucket.limit.per_s * 60:.12g}"),
            ("remaining", str(max(0, int(bucket.left)))),
            ("reset", full),
        )
    )


_HEADERS: Final[dict[Vendor, Callable[[str, Bucket, Callable[[], float]], Headers]]] = {
    "openai": _openai,
    "anthropic": _anthropic,
}


def duration(seconds: float) -> str:
    """A time as OpenAI spells it: ``250ms``, ``1s``, ``1.5s``, ``6m0s``, ``1h0m0s``."""
    milliseconds = math.ceil(seconds * 1000)
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    left = f"{rest / 1000:g}s"
    if hours:
        return f"{hours}h{minutes}m{left}"
    return f"{minutes}m{left}" if minutes else left
