"""Whether a teacher is still asked: what no other prompt would escape, what is an outage, and how long that counts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from corpusgen.errors import NotSent, RequestRefused, TeacherError, UsageOverrun

FATAL_STATUS: Final = frozenset({401, 402})
"""Refusals that no other prompt would escape: key and payment; an empty account may come as a 429."""
DOUBTFUL_STATUS: Final = frozenset({403, 404})
"""Permission and model, or one prompt that was flagged: fatal for who has answered nothing yet, or again and again."""
FAILURES_IN_A_ROW: Final = 8
REST: Final = timedelta(minutes=1)
"""How long a teacher that is away is passed over, where there is another one to ask."""


def hopeless(error: TeacherError) -> bool:
    """Whether this teacher would fail every other prompt in the same way."""
    empty_account = isinstance(error, RequestRefused) and error.status == 429
    return error.status in FATAL_STATUS or empty_account or isinstance(error, NotSent | UsageOverrun)


def is_another_model(asked: str, served: str) -> bool:
    """Whether an answer's model is neither the one asked for nor a dated version of it."""
    wanted, found = asked.casefold().rpartition("/")[2], served.casefold().rpartition("/")[2]
    return not (found.startswith(wanted) or wanted.startswith(found))


@dataclass(kw_only=True)
class Standing:
    """How one of several teachers has done so far."""

    failures_in_a_row: int = 0
    barred_in_a_row: int = 0
    has_answered: bool = False
    rests_until: datetime | None = None
    out: TeacherError | None = None
    """Why it is asked nothing more in this run."""

    def away(self, now: datetime) -> bool:
        """Whether it is passed over at this moment."""
        return self.out is not None or (self.rests_until is not None and now < self.rests_until)

    def answered(self) -> None:
        """It does its work."""
        self.failures_in_a_row, self.barred_in_a_row, self.rests_until = 0, 0, None
        self.has_answered = True

    def failed(self, error: TeacherError, now: datetime) -> None:
        """It did not; a refusal of one prompt says nothing of the others."""
        if isinstance(error, NotSent):
            self.rests_until = now + REST
        elif hopeless(error) or self._barred(error):
            self.out = error
        elif not isinstance(error, RequestRefused):
            self.failures_in_a_row += 1
            if self.failures_in_a_row >= FAILURES_IN_A_ROW:
                self.rests_until = now + REST

    def _barred(self, error: TeacherError) -> bool:
        """Whether a refusal that may be of one prompt alone is one of all."""
        if error.status not in DOUBTFUL_STATUS:
            return False
        self.barred_in_a_row += 1
        return not self.has_answered or self.barred_in_a_row >= FAILURES_IN_A_ROW
