"""One gate in front of everything that is sent to one teacher, fresh work and retries alike."""

from __future__ import annotations

import asyncio
import random

MAX_PAUSE_S = 120.0
JITTER_S = 0.25


class Pacer:
    """Holds senders back after the teacher asked for a pause."""

    def __init__(self) -> None:
        self._resume_at = 0.0

    def pause(self, seconds: float) -> None:
        """Send nothing for so long (at most two minutes)."""
        self._resume_at = max(self._resume_at, _now() + min(seconds, MAX_PAUSE_S))

    async def turn(self) -> None:
        """Wait until sending is allowed; those who waited leave spread out, not as one wave."""
        waited = False
        while (left := self._resume_at - _now()) > 0:
            waited = True
            await asyncio.sleep(left)
        if waited:
            await asyncio.sleep(random.uniform(0, JITTER_S))  # noqa: S311 - jitter, not a secret


def _now() -> float:
    return asyncio.get_running_loop().time()
