"""The life of a batch, whoever's wire format it came in: a function of the clock, worked out when somebody looks."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol, TypeAlias, TypeVar

from corpusgen.mock import batch_faults
from corpusgen.mock.kinds import Kind
from corpusgen.mock.question import NotARequest
from corpusgen.records import Json

State: TypeAlias = Literal[
    "validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"
]
ENDED: Final[frozenset[State]] = frozenset({"failed", "completed", "expired", "cancelled"})

_SLOWER: Final = 20


@dataclass(frozen=True, kw_only=True)
class Line:
    """One request of a batch."""

    custom_id: str
    path: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Result:
    """What came of a line."""

    custom_id: str
    status: int
    request_id: str
    body: Json


class Clerk(Protocol):
    """Who answers the lines and keeps the bill."""

    def now(self) -> float:
        """Seconds since 1970."""
        ...

    def line(self, job: str, line: Line) -> Result:
        """Answer a line, charged for at half the price."""
        ...

    def fault_of_batch(self, text: str, key: str) -> Kind | None:
        """The fault of the next try at something about a batch."""
        ...


@dataclass(kw_only=True)
class Job:
    """A batch under way: its first quarter is validated, its middle half worked on, its last quarter put together."""

    id: str
    lines: Sequence[Line]
    created: float
    takes_s: float
    expires: float
    clerk: Clerk
    fault: str | None = None
    marks: str = ""
    """What faults its lines ask for by name."""
    broken: bool = False
    """Whether it will fail its validation."""
    cancelled: float | None = None
    results: list[Result] = field(default_factory=list)

    @property
    def started(self) -> float:
        """When its lines begin to be answered."""
        return self.created + self.takes_s / 4

    @property
    def worked(self) -> float:
        """When the last of them is."""
        return self.created + self.takes_s * 3 / 4

    @property
    def ended(self) -> float:
        """When nothing will change any more."""
        if self.broken:
            return self.started
        if self.cancelled is not None:
            return self.cancelled + self.takes_s / 4
        return min(self.created + self.takes_s, max(self.expires, self.created))

    def advance(self) -> State:
        """Answer and charge for the lines whose time has come, and say where the batch stands."""
        now = self.clerk.now()
        due = self._due(min(now, self.expires, now if self.cancelled is None else self.cancelled))
        while len(self.results) < due:
            self.results.append(self.clerk.line(self.id, self.lines[len(self.results)]))
        return self._state(now)

    def _due(self, at: float) -> int:
        """How many lines are to be answered by then."""
        if self.broken or at < self.started:
            return 0
        share = 1.0 if at >= self.worked else (at - self.started) / (self.worked - self.started)
        most = len(self.lines) // 2 if self.fault == batch_faults.EXPIRES else len(self.lines)
        return min(most, int(len(self.lines) * share))

    def _state(self, now: float) -> State:
        if self.broken:
            return "validating" if now < self.started else "failed"
        if self.cancelled is not None:
            return "cancelling" if now < self.ended else "cancelled"
        if now >= self.ended:
            return "completed" if len(self.results) == len(self.lines) else "expired"
        if now < self.started:
            return "validating"
        return "in_progress" if now < self.worked else "finalizing"

    @property
    def listed(self) -> bool:
        """Whether it is in the list of batches yet."""
        return self.fault != batch_faults.LATE or self.clerk.now() >= self.created + self.takes_s / 2

    def told_in_disorder(self) -> list[Result]:
        """The results, in an order of their own: no provider promises that of the lines."""
        return sorted(self.results, key=lambda result: hashlib.sha256(result.custom_id.encode()).digest())

    def undone(self) -> Sequence[Line]:
        """The lines that were never answered."""
        return self.lines[len(self.results) :]


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How long batches take and live."""

    takes_s: float
    lives_s: float


def new_job(
    name: str, lines: Sequence[Line], *, clerk: Clerk, pace: Pace, marks: str, key: str, broken: bool = False
) -> Job:
    """A batch as it begins, with the fault it meets, if any."""
    kind = clerk.fault_of_batch(marks, key)
    fault, now = None if kind is None else kind.name, clerk.now()
    return Job(
        id=name,
        lines=lines,
        created=now,
        takes_s=pace.takes_s * (_SLOWER if fault == batch_faults.SLOW else 1),
        expires=now + pace.lives_s,
        clerk=clerk,
        fault=fault,
        marks=marks,
        broken=broken or fault == batch_faults.INVALID,
    )


def spoilt_results(job: Job, told: Iterable[bytes]) -> tuple[bytes, float]:
    """The results as one file, as they are told this time, and how much of it arrives."""
    kind = job.clerk.fault_of_batch(job.marks, f"{job.id}/results")
    lines = list(told)
    name = None if kind is None else kind.name
    content = b"".join(_SPOILT.get(name, _as_they_are)(lines) if lines else lines)
    return content, 0.5 if name == batch_faults.RESET else 1.0


def _as_they_are(lines: list[bytes]) -> list[bytes]:
    return lines


_SPOILT: Final[Mapping[str | None, Callable[[list[bytes]], list[bytes]]]] = {
    batch_faults.SHORT: lambda lines: lines[:-1],
    batch_faults.CUT: lambda lines: [*lines[:-1], lines[-1][: len(lines[-1]) // 2]],
    batch_faults.TWICE: lambda lines: [*lines, lines[0]],
    batch_faults.STRAY: lambda lines: [*lines, lines[-1].replace(b'"custom_id":"', b'"custom_id":"stray-')],
}


class _Named(Protocol):
    @property
    def id(self) -> str: ...


_N = TypeVar("_N", bound=_Named)


def page(
    items: Sequence[_N], query: Mapping[str, str], *, after: str, before: str, limit: int
) -> tuple[list[_N], bool]:
    """A portion of a list, and whether there is more behind it. Raises NotARequest."""
    given = query.get("limit", str(limit))
    if not given.isdecimal() or not 0 < int(given) <= 10_000:
        raise NotARequest(f"limit: a whole number of 1 to 10000 is needed, found {given!r}")
    names = [item.id for item in items]
    start = names.index(query[after]) + 1 if query.get(after) in names else 0
    if query.get(before) in names:
        stop = names.index(query[before])
        return list(items[max(0, stop - int(given)) : stop]), stop > int(given)
    return list(items[start : start + int(given)]), start + int(given) < len(items)


NewId: TypeAlias = Callable[[str], str]
"""A name that nobody has, with a beginning of its own."""
