"""One gate in front of everything that is sent to one teacher, fresh work and retries alike.

How fast it lets pass is decided in ``rates``; here people wait in line for it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final, TypeAlias

from corpusgen.errors import NotSent, RateLimited, TeacherError, TeacherFault, TeacherTimeout
from corpusgen.records import Reply, Usage
from corpusgen.teachers.climbing import FREE
from corpusgen.teachers.limits import Limit, read_limits
from corpusgen.teachers.rates import Rates, Ticket

LEAD_S: Final = 0.01
"""How long before its moment somebody is let through, because reserving takes a while too."""
LEAD_FAST_S: Final = 0.03
FAST: Final = 1500.0
"""So many a second are reserved together, further ahead, because each commit has its price."""
SOON_S: Final = 0.004
"""What is due so soon goes at once, with its neighbours: a timer for each would cost more than it evens out."""
WAKES_S: Final = 0.003
"""Who is held back wakes at a multiple of this, with its neighbours. Less than ``SOON_S``, or some woke in vain."""
LOOK_EVERY_S: Final = 0.5
"""How often the headers of an answer are looked at, once some have been."""
LOOK_AT_FIRST: Final = 3

_Waiting: TypeAlias = tuple[asyncio.Future[Ticket], int, int]


class Pacer:
    """Lets senders through one by one, as fast as the teacher takes it.

    Without ``unknown`` nobody is held back before the teacher has refused something or has told a limit.
    """

    def __init__(self, limits: Iterable[Limit] = (), *, unknown: bool = False, rates: Rates | None = None) -> None:
        self.rates = rates or Rates()
        if not unknown:
            self.rates.climb.starting, self.rates.climb.rate = False, FREE
        self.rates.configure(limits)
        self._line: deque[_Waiting] = deque()
        self._alarm: asyncio.TimerHandle | None = None
        self._looked = 0
        self._look_at = 0.0
        self._broken: BaseException | None = None

    @property
    def _lead_s(self) -> float:
        return LEAD_FAST_S if self.rates.climb.rate > FAST else LEAD_S

    @property
    def weighs(self) -> bool:
        """Whether it wants to know how many tokens a request may take."""
        return bool(self.rates.tokens)

    @property
    def given_up(self) -> bool:
        """Whether the teacher has been away, or has refused everything, for longer than is worth waiting."""
        return self.rates.given_up

    @property
    def sent(self) -> int:
        """How many have been let through."""
        return self.rates.count

    @property
    def busy(self) -> bool:
        """Whether somebody waits in line."""
        return bool(self._line)

    def tell_requests(self, per_s: float) -> None:
        """What another process has heard of the limit."""
        self._look([Limit(unit="requests", per_s=per_s)], _now())

    def tell_found(self, per_s: float) -> None:
        """What another process has found out of a limit that nobody tells."""
        self.rates.found_elsewhere = per_s

    def pause(self, seconds: float) -> None:
        """Send nothing for so long (at most two minutes)."""
        self.rates.pause(seconds, _now())

    @property
    def paused_s(self) -> float:
        """How much longer nothing is sent; 0 where no pause is on."""
        return self.rates.paused_s(_now())

    async def turn(self, input_tokens: int = 0, output_tokens: int = 0) -> Ticket:
        """Wait until sending is allowed; in line, and not as one wave. Hand the ticket back with what came of it."""
        if self._broken is not None:
            raise self._broken
        now = _now()
        if not self._line:
            due = self.rates.due(now)
            if due <= now or due <= now + self._lead_s:
                return self._give(due, input_tokens, output_tokens)
        return await self._wait(input_tokens, output_tokens)

    def early_s(self, ticket: Ticket) -> float:
        """How much too early it is to send; ready now at 0 or less. To be asked again after having waited so long."""
        now = _now()
        moment = self.rates.leave(ticket, now)
        early_s = moment - now
        ticket.sent = early_s <= SOON_S
        if ticket.sent:
            return 0.0
        return early_s - moment % WAKES_S if ticket.leaving else early_s

    def lapsed(self, ticket: Ticket) -> bool:
        """Whether its sender has waited so long for something else that it needs another turn."""
        return self.rates.lapsed(ticket, _now())

    def fail(self, error: BaseException) -> None:
        """Let nobody through any more: who waits and who comes meets this error."""
        self._broken = error
        while self._line:
            place = self._line.popleft()[0]
            if not place.done():
                place.set_exception(error)

    # --- what came of it ---------------------------------------------------------------------------------------------

    def answered(self, ticket: Ticket, reply: Reply, usage: Usage) -> None:
        """It was answered."""
        now = _now()
        if reply.headers and (self._looked < LOOK_AT_FIRST or now >= self._look_at):
            self._look(read_limits(reply.headers, datetime.now(UTC)), now)
        self.rates.accepted(ticket, now, usage.input_tokens, usage.output_tokens)
        if self._line:
            self._release()

    def failed(self, ticket: Ticket, error: TeacherError) -> None:
        """It was refused or failed."""
        now = _now()
        limits = read_limits(error.headers, datetime.now(UTC)) if error.headers else ()
        self._look(limits, now)
        if isinstance(error, RateLimited):
            self.rates.refused(ticket, now, error.retry_after_s, room=self._has_room(limits, ticket))
        else:
            outage = isinstance(error, NotSent | TeacherTimeout | TeacherFault)
            self.rates.failed(ticket, now, error.retry_after_s, outage=outage)
        self._release()

    def unused(self, ticket: Ticket) -> None:
        """It was not sent after all."""
        self.rates.unused(ticket)
        self._release()

    def share(self, part: float) -> None:
        """From now on only this part of the limits is ours."""
        self.rates.claim(part, _now())
        self._release()

    def _look(self, limits: Iterable[Limit], now: float) -> None:
        self._looked += 1
        self._look_at = now + LOOK_EVERY_S
        self.rates.hear(limits, now)

    def _has_room(self, limits: Iterable[Limit], ticket: Ticket) -> bool:
        """Whether a refusal itself says that no limit was reached: of each, enough is left for all under way, twice."""
        many = 2 * self.rates.in_flight + 2
        left = [(limit.remaining, ticket.weight(limit.unit)) for limit in limits if limit.remaining is not None]
        return bool(left) and all(weight and remaining > many * weight for remaining, weight in left)

    # --- the line ----------------------------------------------------------------------------------------------------

    async def _wait(self, input_tokens: int, output_tokens: int) -> Ticket:
        place: asyncio.Future[Ticket] = asyncio.get_running_loop().create_future()
        self._line.append((place, input_tokens, output_tokens))
        if len(self._line) == 1:
            self._release()
        try:
            return await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled() and place.exception() is None:
                self.unused(place.result())
            raise

    def _release(self) -> None:
        """Let through whoever may go, and come back when the next one may."""
        line, rates, now = self._line, self.rates, _now()
        while line:
            place, input_tokens, output_tokens = line[0]
            if place.done():
                line.popleft()
                continue
            due = rates.due(now)
            if due > now + self._lead_s:
                self._come_back(due - self._lead_s / 2)
                return
            line.popleft()
            place.set_result(self._give(due, input_tokens, output_tokens))

    def _give(self, due: float, input_tokens: int, output_tokens: int) -> Ticket:
        ticket = self.rates.take(due, input_tokens, output_tokens)
        ticket.sent = False
        return ticket

    def _come_back(self, moment: float) -> None:
        alarm = self._alarm
        if alarm is not None and not alarm.cancelled() and _now() < alarm.when() <= moment:
            return
        if alarm is not None:
            alarm.cancel()
        self._alarm = None if moment == float("inf") else asyncio.get_running_loop().call_at(moment, self._wake)

    def _wake(self) -> None:
        self._alarm = None  # a timer may go off a trifle early, and would seem to be still to come
        self._release()


def _now() -> float:
    return asyncio.get_running_loop().time()
