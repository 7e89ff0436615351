"""Counters, gauges and histograms of a running service, as the text that Prometheus reads."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

Labels = tuple[str, ...]
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
MOST_SERIES: Final = 2_000
"""Of one family; what comes later is counted under ``other``, so that no caller makes it grow for ever."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """One name with the labels its series differ in."""

    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: Labels = ()


FAMILIES: Final[Mapping[str, Family]] = {
    "corpusgen_requests_total": Family(kind="counter", help="Requests answered.", labels=("route", "method", "status")),
    "corpusgen_request_seconds": Family(kind="histogram", help="Time to the end of an answer.", labels=("route",)),
    "corpusgen_requests_in_flight": Family(kind="gauge", help="Requests being answered."),
    "corpusgen_connections": Family(kind="gauge", help="Open connections."),
    "corpusgen_connections_refused_total": Family(kind="counter", help="Connections over the limit."),
    "corpusgen_logins_failed_total": Family(kind="counter", help="Requests with no token that is worth something."),
    "corpusgen_streams_open": Family(kind="gauge", help="Answers being streamed to callers."),
    "corpusgen_events_listeners": Family(kind="gauge", help="Listeners to events."),
    "corpusgen_upstream_calls_total": Family(kind="counter", help="Calls to teachers.", labels=("teacher", "outcome")),
    "corpusgen_upstream_seconds": Family(kind="histogram", help="Time of a teacher's answer.", labels=("teacher",)),
    "corpusgen_upstream_in_flight": Family(kind="gauge", help="Calls to teachers under way.", labels=("teacher",)),
    "corpusgen_tokens_total": Family(
        kind="counter", help="Tokens of teachers' answers.", labels=("teacher", "direction")
    ),
    "corpusgen_answers_total": Family(
        kind="counter", help="Answers given to callers, by where they came from.", labels=("cache",)
    ),
    "corpusgen_cost_microusd_total": Family(kind="counter", help="What answers cost.", labels=("teacher",)),
    "corpusgen_saved_microusd_total": Family(kind="counter", help="What answers from the cache would have cost."),
    "corpusgen_student_answers_total": Family(kind="counter", help="What students did.", labels=("student", "outcome")),
    "corpusgen_student_drift": Family(
        kind="gauge", help="How far answers of students have moved, in bits.", labels=("student",)
    ),
    "corpusgen_refused_total": Family(kind="counter", help="Calls that were refused, by reason.", labels=("reason",)),
    "corpusgen_money_microusd": Family(kind="gauge", help="Balances of scopes.", labels=("scope", "state")),
    "corpusgen_cap_microusd": Family(kind="gauge", help="Caps on scopes.", labels=("scope", "per")),
    "corpusgen_records": Family(kind="gauge", help="Records of the corpus."),
    "corpusgen_drops": Family(kind="gauge", help="Items put aside.", labels=("stage", "reason")),
    "corpusgen_runs": Family(kind="gauge", help="Submitted runs.", labels=("state",)),
    "corpusgen_loop_lag_seconds": Family(kind="gauge", help="How late the event loop is."),
    "corpusgen_resident_bytes": Family(kind="gauge", help="Memory of the process."),
    "corpusgen_started_seconds": Family(kind="gauge", help="When the service began, in seconds since 1970."),
}


@dataclass
class _Histogram:
    counts: list[int] = field(default_factory=lambda: [0] * (len(SECONDS) + 1))
    total: float = 0.0


class Meter:
    """Counts. Labels are given in the order of the family's."""

    def __init__(self) -> None:
        self._numbers: dict[str, dict[Labels, float]] = {
            name: {} for name, family in FAMILIES.items() if family.kind != "histogram"
        }
        self._histograms: dict[str, dict[Labels, _Histogram]] = {
            name: {} for name, family in FAMILIES.items() if family.kind == "histogram"
        }

    def add(self, name: str, amount: float = 1, *labels: str) -> None:
        """Count more of something, or less of a gauge."""
        series = self._numbers[name]
        if labels not in series:
            labels = _bounded(series, labels)
        series[labels] = series.get(labels, 0) + amount

    def set(self, name: str, value: float, *labels: str) -> None:
        """Let a gauge show a value."""
        series = self._numbers[name]
        series[_bounded(series, labels)] = value

    def observe(self, name: str, seconds: float, *labels: str) -> None:
        """Count a time."""
        series = self._histograms[name]
        found = series.get(labels)
        if found is None:
            found = series.setdefault(_bounded(series, labels), _Histogram())
        found.counts[bisect_left(SECONDS, seconds)] += 1
        found.total += seconds

    def forget(self, name: str) -> None:
        """Take all series of a gauge away, before it is set anew."""
        self._numbers[name].clear()

    def value(self, name: str, *labels: str) -> float:
        """What a counter or gauge stands at."""
        return self._numbers[name].get(labels, 0)

    def render(self) -> str:
        """Everything, as text."""
        return "".join(line for name, family in FAMILIES.items() for line in self._family(name, family))

    def _family(self, name: str, family: Family) -> Iterator[str]:
        yield f"# HELP {name} {family.help}\n# TYPE {name} {family.kind}\n"
        if family.kind == "histogram":
            for labels, histogram in self._histograms[name].items():
                yield from _buckets(name, family, labels, histogram)
            return
        numbers = self._numbers[name] or ({} if family.labels else {(): 0})
        for labels, value in numbers.items():
            yield f"{name}{_written(family.labels, labels)} {_number(value)}\n"


def _bounded(series: Mapping[Labels, object], labels: Labels) -> Labels:
    return labels if labels in series or len(series) < MOST_SERIES else ("other",) * len(labels)


def _buckets(name: str, family: Family, labels: Labels, histogram: _Histogram) -> Iterator[str]:
    so_far = 0
    for bound, count in zip((*map(repr, SECONDS), "+Inf"), histogram.counts, strict=True):
        so_far += count
        yield f"{name}_bucket{_written((*family.labels, 'le'), (*labels, bound))} {so_far}\n"
    at = _written(family.labels, labels)
    yield f"{name}_sum{at} {histogram.total!r}\n{name}_count{at} {so_far}\n"


_ESCAPED: Final = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


def _written(names: Labels, values: Labels) -> str:
    pairs = ",".join(f'{name}="{value.translate(_ESCAPED)}"' for name, value in zip(names, values, strict=True))
    return f"{{{pairs}}}" if pairs else ""


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)
