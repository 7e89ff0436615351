"""What can go wrong, one class for each thing a caller would handle differently.

CorpusgenError                    exit 1
├── UsageError                    exit 2   the caller can mend it: a file, a line, a value
│   ├── SpecError                          the task spec, all its problems at once
│   ├── PromptError                        a prompt file or its template
│   ├── SeedError                          a seed file that cannot be read
│   ├── EvalFileError                      an eval file that cannot be read
│   ├── OutsideFileError                   a file that cannot be imported, all its bad rows at once
│   ├── UnknownTeacher                     no teacher of that name, or it is not installed
│   ├── UnsupportedParameter               the spec asks a teacher for what it cannot do
│   └── PriceUnknown                       money cannot be bounded, so nothing is sent
├── BudgetExhausted               exit 3   a cap would be passed; what was paid for is kept
├── PolicyRefused                 exit 4   the terms do not allow it, or no more; nothing is sent from then on
├── PartialFailure                exit 5   finished, but some prompts have no answer
├── Interrupted                   exit 130 asked to stop; calls under way were waited for and kept
├── StoreError                    exit 6   the corpus on disk
│   ├── CorpusTooNew                       written by a newer corpusgen
│   ├── CorpusDamaged                      a file is not what the journal says it is
│   ├── CorpusUnwritable                   full or read-only disk
│   └── SealRefused                        provenance is incomplete, or the dataset is not sealed
├── QueryError                    exit 2   SQL refused, wrong, too long or too large
├── ServiceUnavailable            exit 7   a service that lends the budget does not answer; what was answered is kept
└── TeacherError                  exit 5   one call failed
    ├── NotSent                            refused connection: nothing was asked, nothing is owed
    ├── RateLimited                        HTTP 429 and 529: try later
    ├── RequestRefused                     the teacher will not answer this request, ever
    ├── Withheld                           the request holds a secret; it was not sent
    ├── UsageOverrun                       it billed more than its bound; booked in full, asked no more
    ├── AnswersMissing                     of the answers to one call, fewer came than were asked for
    └── OutcomeUnknown                     it may have been answered and billed
        ├── TeacherTimeout                 no answer in time
        ├── TeacherFault                   5xx, a cut connection
        └── InvalidAnswer                  HTTP 200 that is not an answer
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class CorpusgenError(Exception):
    """Root of every error corpusgen raises on purpose."""

    exit_code = 1


class UsageError(CorpusgenError):
    """Something the caller wrote is wrong; the message names the value to change."""

    exit_code = 2


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One mistake in one file: where it stands and what to write instead."""

    file: Path
    line: int | None
    field: str
    message: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line is not None else str(self.file)
        return f"{where}: {self.field}: {self.message}" if self.field else f"{where}: {self.message}"


class LocatedError(UsageError):
    """A usage error that knows its places; every problem of a file is reported at once."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


class SpecError(LocatedError):
    """The task spec does not say what it must."""


class PromptError(LocatedError):
    """A prompt file has no role, an unknown variable or broken front matter."""


class SeedError(LocatedError):
    """A seed file is missing, unreadable or lacks a column."""


class EvalFileError(LocatedError):
    """A file of eval items is missing, unreadable, empty or lacks a column."""


class OutsideFileError(LocatedError):
    """A file from outside is missing, unreadable, lacks a column or has bad rows; nothing of it was imported."""


class UnknownTeacher(UsageError):
    """No teacher goes by that name here."""


class UnsupportedParameter(UsageError):
    """The teacher's capability table says it cannot do what was asked.

    ``complaints`` says it field by field, where several things of a teacher's spec were looked at: the path of the
    field within the teacher, and what is wrong there.
    """

    def __init__(self, message: str, *, complaints: Iterable[tuple[tuple[str, ...], str]] = ()) -> None:
        super().__init__(message)
        self.complaints = tuple(complaints)


class PriceUnknown(UsageError):
    """The worst case of a call cannot be bounded in money."""


class BudgetExhausted(CorpusgenError):
    """The next call does not fit under a cap; everything paid for is kept."""

    exit_code = 3
    figures: Mapping[str, Any] | None = None
    """Of the cap that is in the way, where somebody has looked: scope, unit, cap, settled, promised and the like."""


class PolicyRefused(CorpusgenError):
    """The terms in force do not allow this use; nothing is sent from then on, and what was answered before is kept."""

    exit_code = 4


class AnswerBarred(PolicyRefused):
    """It was answered before, under terms that do not allow this use; a request is asked once, so it is not anew."""


class PartialFailure(CorpusgenError):
    """The run ended, but not every prompt has an answer."""

    exit_code = 5


class Interrupted(CorpusgenError):
    """Somebody asked to stop; the same command goes on from there."""

    exit_code = 130


class StoreError(CorpusgenError):
    """The corpus on disk cannot be used as asked."""

    exit_code = 6


class CorpusTooNew(StoreError):
    """A newer corpusgen wrote this corpus."""


class CorpusDamaged(StoreError):
    """A file differs from what the journal recorded."""


class CorpusUnwritable(StoreError):
    """The disk is full or read-only; what was committed before is intact."""


class SealRefused(StoreError):
    """The dataset cannot be sealed, or is needed sealed and is not."""


class QueryError(CorpusgenError):
    """A SQL statement was refused, failed, or took more than it may."""

    exit_code = 2


class ServiceUnavailable(CorpusgenError):
    """The service of ``--service`` does not answer, so nothing more is sent; the same command goes on from there."""

    exit_code = 7


class TeacherError(CorpusgenError):
    """One call to a teacher failed.

    ``transient`` says whether asking again may help; ``billable`` whether the provider may charge for this try.
    Both are properties of the class, so the retry policy and the ledger each have one place to look; an error says
    otherwise of itself where more is known, as of an answer that somebody has begun to hear.
    """

    exit_code = 5
    transient = False
    billable = True
    request_id: str | None = None
    """The name the provider gave the request, where its answer got far enough to tell."""
    headers: Mapping[str, str] | None = None
    """What the answer's headers say of rate limits, where there was an answer."""

    def __init__(self, message: str, *, retry_after_s: float | None = None, status: int | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.status = status


class NotSent(TeacherError):
    """No byte of the request reached the teacher."""

    transient = True
    billable = False


class RateLimited(TeacherError):
    """The teacher asks to slow down."""

    transient = True


class RequestRefused(TeacherError):
    """A 4xx that will not change by asking again."""

    billable = False


class Withheld(TeacherError):
    """The request holds something that must not leave, such as a key; nothing was sent and nothing is owed."""

    billable = False


class UsageOverrun(TeacherError):
    """The answer's usage is above the worst case that was reserved."""


class AnswersMissing(TeacherError):
    """One call gave fewer answers than it asked for, and so did one more."""

    billable = False


class OutcomeUnknown(TeacherError):
    """The request left, and whether it was answered and billed is not known."""

    transient = True


class TeacherTimeout(OutcomeUnknown):
    """No complete answer within the time limit."""


class TeacherFault(OutcomeUnknown):
    """The teacher failed or the connection was cut after the request was sent."""


class InvalidAnswer(OutcomeUnknown):
    """HTTP 200 whose body is not a usable answer. ``body`` is what came, and is kept with the call."""

    body: bytes | None = None
