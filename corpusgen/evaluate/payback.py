"""When a student has earned back what teaching it cost."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Payback:
    """Micro-dollars of an answer of each, and what was spent before the student could give its first."""

    teacher_microusd: float
    student_microusd: float
    fixed_microusd: float

    @property
    def break_even(self) -> float:
        """Requests after which the student is the cheaper of the two; infinity stands for never."""
        saved = self.teacher_microusd - self.student_microusd
        return self.fixed_microusd / saved if saved > 0 else math.inf
