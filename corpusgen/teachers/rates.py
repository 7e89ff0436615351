"""When the next request to one server may go out: rates, pauses and a circuit breaker, without a clock of its own."""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from corpusgen.teachers.climbing import BLIND_IN_FLIGHT, FIRST_IN_FLIGHT, FREE, Climb
from corpusgen.teachers.limits import Limit, LimitUnit

MARGIN: Final = 0.99
"""Of a limit that is known; the rest is for clocks that differ."""
CATCH_UP_S: Final = 0.05
"""How much of what was missed, because this process was busy, may be sent at once."""
MOST_MISSED_S: Final = 1.0
"""How much of what was missed before a limit was heard of is made up for, out of the margin."""
CUSHION_S: Final = 0.04
"""Rest after a cut, in which a server's bucket fills a little."""
MAX_PAUSE_S: Final = 120.0
JITTER_S: Final = 0.25
DRY: Final = 3
"""Refusals in a row, each of something sent after the one before, from which on only one request at a time is sent."""
DRY_PAUSE_S: Final = 0.5
ANOTHER: Final = 1.1
"""A share that has changed by less leaves a rate that was found out as it is."""
TOGETHER_BEGUN_S: Final = 2.5
"""What is found out so soon was found out beside those who began at the same time, and is a share already."""
ACCIDENT: Final = 1e-5
MEANT_S: Final = 2.0
"""A Retry-After that is no rounding and no habit: it is kept to, whatever else is known of the refusal."""
ROUNDED_UP_S: Final = 1.0
"""The least that Retry-After can say; most servers round up to it."""
LOOK_S: Final = 0.15
"""After so long one request is sent to see whether a second was meant; one more goes when the second is over."""
LOOK_AGAIN_S: Final = 0.02
OUTAGES: Final = 10
"""Failures in a row after which a server is taken for dead."""
COOL_DOWN_S: Final = 1.0
LONGEST_COOL_DOWN_S: Final = 30.0
OUTAGE_PATIENCE_S: Final = 120.0
"""For how long a server that has answered before is asked whether it is back."""
REFUSAL_PATIENCE_S: Final = 900.0
"""For how long a server may refuse everything before its refusals count as failures."""
PRESUMED_S: Final = 0.3
"""What has not been refused after so long has been taken: a refusal comes at once, an answer when it is written."""
TOGETHER_S: Final = 0.02
"""How much of what was held up on its way here may leave at once."""
LONGEST_HOLD_S: Final = 1.0
"""How long something that is reserved already is held back yet."""
LAPSES_S: Final = 0.3
"""A ticket that is so late is to be handed back for another one: its sender has waited for something else."""
NO_SHARE_S: Final = 0.5
"""How long who has no share of a limit waits before asking for it again."""
_LIMIT_MEMORY_S: Final = 60.0


class Ticket:
    """The right to send one request at a moment; it is to be handed back with what came of it."""

    __slots__ = (
        "at",
        "dropped",
        "given_at",
        "input_tokens",
        "leaving",
        "output_tokens",
        "probe",
        "sent",
        "seq",
        "taken",
        "void",
    )

    def __init__(self, seq: int, at: float, input_tokens: int, output_tokens: int, probe: bool) -> None:
        self.seq = seq
        self.at = self.given_at = at
        self.leaving = False
        """Whether its place among those that leave has been settled."""
        self.input_tokens = input_tokens
        self.output_tokens = output_tokens
        self.probe = probe
        self.taken: bool | None = None
        """Whether the server took it, where that is known or as good as known."""
        self.dropped = False
        self.sent = True
        """False for somebody who has something else to wait for and says when it has gone out."""
        self.void = False
        """Whether its moment has passed without its being sent, so that it counts no more."""

    def weight(self, unit: LimitUnit) -> float:
        """What this counts for in a unit."""
        if unit == "requests":
            return 1.0
        return (unit != "output_tokens") * self.input_tokens + (unit != "input_tokens") * self.output_tokens


@dataclass(kw_only=True)
class Bucket:
    """So much a second, and ``CATCH_UP_S`` of it at once; what weighs more is waited for afterwards."""

    per_s: float
    empty_until: float = -math.inf
    """When all that has been taken will have flowed in again."""

    def due(self) -> float:
        """When the next may be taken."""
        return self.empty_until - CATCH_UP_S

    def take(self, at: float, weight: float) -> None:
        self.empty_until = max(self.empty_until, at) + weight / self.per_s

    def give(self, weight: float) -> None:
        self.empty_until -= weight / self.per_s


@dataclass(kw_only=True)
class Rates:
    """All that is known of how fast one server may be asked; times are seconds of whatever clock the caller has."""

    climb: Climb = field(default_factory=Climb)
    draw: Callable[[], float] = random.random
    in_flight: int = 0
    given_up: bool = False
    """Waiting has not helped: everybody may go and meet the failure."""
    told: dict[LimitUnit, float] = field(default_factory=dict)
    """Units a second, for this account as a whole."""
    share: float = 1.0
    """What of that is ours, where other processes ask too."""
    found_elsewhere: float | None = None
    """Requests a second that another process has found out."""
    tokens: dict[LimitUnit, Bucket] = field(default_factory=dict)
    unasked_s: float = 0.0
    """Seconds in which a request might have gone out and nobody came for it: sending was slower than the limit."""
    _began_at: float = math.inf
    _found_share: float = 1.0
    """The share that the rate was found with."""
    _held_at: float = -math.inf
    """When somebody was last sent back for another reason than the rate."""
    _requests: Bucket = field(default_factory=lambda: Bucket(per_s=1.0))
    _missed: float = 0.0
    """Requests that would have been sent by now, had the limit been known from the first one."""
    _configured: set[LimitUnit] = field(default_factory=set)
    _told_at: dict[LimitUnit, float] = field(default_factory=dict)
    _seq: int = 0
    _unjudged: deque[Ticket] = field(default_factory=deque)
    _presumed_s: float = PRESUMED_S
    _resume_at: float = -math.inf
    _leaving: float = -math.inf
    """As a bucket's ``empty_until``, of what has really been sent."""
    _soft_seq: int | None = None
    """The refused request that made the pause; the server's taking a later one ends it."""
    _window_seq: int = -1
    """The latest request sent before that pause; refusals up to it make no other one, once it has been ended."""
    _dry: int = 0
    _dry_seq: int = -1
    _outages: int = 0
    _opened: int = 0
    _open_seq: int = -1
    _troubled_since: float | None = None
    _probing: bool = False
    _looking: bool = False
    """Whether the next request is to find out if a pause of a second was meant."""
    _spent: float = 0.6
    """What of the tokens that were thought possible is used in the end."""

    @property
    def count(self) -> int:
        """How many have been sent."""
        return self._seq

    # --- what is known beforehand ------------------------------------------------------------------------------------

    def configure(self, limits: Iterable[Limit]) -> None:
        """Limits that somebody has looked up: begin at them."""
        for limit in limits:
            if limit.per_s:
                self.told[limit.unit] = limit.per_s
                self._configured.add(limit.unit)
        self._apply(trusted=True)

    def hear(self, limits: Iterable[Limit], now: float) -> None:
        """Limits that the server names; a lower one holds at once, a higher one when none lower was heard for long."""
        changed, unknown = False, "requests" not in self.told
        for limit in limits:
            if limit.remaining == 0 and limit.resets_s:
                self.pause(limit.resets_s, now)
            if limit.per_s and limit.unit not in self._configured:
                changed |= self._believe(limit.unit, limit.per_s, now)
        if changed:
            self._apply(trusted=False)
        if unknown and "requests" in self.told and self.climb.cut_seq < 0 and self._seq:
            self._go_on_as_told(now)

    def _go_on_as_told(self, now: float) -> None:
        """Stand where the limit would have led, had it been known from the first request."""
        per_s, requests = self.climb.ceiling, self._requests
        should = (now - self._began_at) * per_s
        if self._seq > should + CATCH_UP_S * per_s:
            self.climb.excuse()
        self._missed = min(max(0.0, should - self._seq), MOST_MISSED_S * per_s)
        if self._resume_at <= now:
            requests.empty_until = min(max(now, self._began_at + self._seq / per_s), now + 2 * CATCH_UP_S)

    def _believe(self, unit: LimitUnit, per_s: float, now: float) -> bool:
        known = self.told.get(unit)
        if known is not None and per_s > known and now - self._told_at[unit] < _LIMIT_MEMORY_S:
            return False
        self.told[unit], self._told_at[unit] = per_s, now
        return known != per_s

    def claim(self, share: float, now: float) -> None:
        """From now on only this part of what was told, or of what was found out, is ours."""
        if share == self.share:
            return
        self.share, self._missed = share, 0.0
        if share <= 0:
            return
        self._apply(trusted="requests" in self._configured)
        if "requests" not in self.told:
            self._claim_found(now)

    def _claim_found(self, now: float) -> None:
        climb = self.climb
        if climb.starting and self.found_elsewhere and climb.cut_seq < 0:
            climb.take_up(self.found_elsewhere * self.share, now)
        elif climb.found and now - self._began_at > TOGETHER_BEGUN_S:
            if 1 / ANOTHER < self.share / self._found_share < ANOTHER:
                return
            climb.take_up(climb.rate * self.share / self._found_share, now)
        self._found_share = self.share

    @property
    def found(self) -> float | None:
        """Requests a second that the server takes of everybody, where that was found out and not told."""
        known = "requests" in self.told or not self.climb.found
        return None if known else self.climb.rate / self._found_share

    def _apply(self, *, trusted: bool) -> None:
        for unit, per_s in self.told.items():
            ours = per_s * MARGIN * (self.share or 1.0)
            if unit == "requests":
                self.climb.limit(ours, trusted=trusted and unit in self._configured)
            elif unit in self.tokens:
                self.tokens[unit].per_s = ours
            else:
                self.tokens[unit] = Bucket(per_s=ours)

    # --- sending -----------------------------------------------------------------------------------------------------

    def due(self, now: float) -> float:
        """When the next request may go out; infinity if something must happen first."""
        climb = self.climb
        if self._unjudged:
            self._presume(now)
        if self.share <= 0 and (self.told or self.found_elsewhere):
            self._held_at = now
            return now if self.given_up else now + NO_SHARE_S
        if self._probing or climb.settling or (climb.starting and self._enough_at_first()):
            self._held_at = now
            return now if self.given_up else self._next_judged(now)
        at = self._resume_at
        if climb.rate < FREE:
            at = max(at, self._requests.due())
        for bucket in self.tokens.values():
            at = max(at, bucket.due())
        if at <= now or self.given_up:
            return now
        climb.bound = True
        return at

    def _enough_at_first(self) -> bool:
        climb = self.climb
        most = FIRST_IN_FLIGHT + climb.answered if climb.answered else BLIND_IN_FLIGHT
        return climb.ceiling == math.inf and self.in_flight >= most

    def _next_judged(self, now: float) -> float:
        """When to look again; never so soon that it would be taken for leave to send."""
        if not self._unjudged:
            return math.inf
        first = self._unjudged[0]
        return max(first.at + self._silence_s(first), now + LOOK_AGAIN_S)

    def _silence_s(self, ticket: Ticket) -> float:
        """After how long no answer means that it was taken; who looks whether a pause was meant waits the pause out."""
        return max(self._presumed_s, ROUNDED_UP_S) if ticket.probe else self._presumed_s

    def _presume(self, now: float) -> None:
        """Tell what became of requests, in the order of their sending.

        What has been under way for longer than a refusal takes is taken for granted: else a server that is quick to
        refuse and slow to answer would seem to refuse everything.
        """
        waiting, climb = self._unjudged, self.climb
        while waiting:
            ticket = waiting[0]
            if not ticket.dropped and ticket.taken is None:
                if ticket.at + self._silence_s(ticket) > now:
                    break
                if not ticket.sent:
                    self._lapse(ticket)
            waiting.popleft()
            if ticket.dropped:
                continue
            if ticket.taken is None:
                self._taken(ticket, now)
            climb.heard(ticket.seq, now, taken=bool(ticket.taken))
        if climb.settling and (not waiting or waiting[0].seq > climb.cut_seq):
            climb.settle()

    def _lapse(self, ticket: Ticket) -> None:
        """Its sender waits for something else, perhaps for those who wait here: it holds nobody up and says nothing."""
        self._drop(ticket)
        self._give_back(ticket)
        ticket.input_tokens = ticket.output_tokens = 0
        ticket.void = True

    def lapsed(self, ticket: Ticket, now: float) -> bool:
        """Whether a ticket that has not been used is too late to be used, or a long pause has begun since."""
        paused = self._resume_at > max(now, ticket.at) + LONGEST_HOLD_S
        return paused or ticket.void or now > ticket.given_at + LAPSES_S

    def _taken(self, ticket: Ticket, now: float) -> None:
        ticket.taken = True
        self._dry = 0
        if ticket.probe and not self._opened:
            self._probing = False
        if self._soft_seq is not None and ticket.seq > self._soft_seq:
            self._lift(now)

    def take(self, at: float, input_tokens: int = 0, output_tokens: int = 0) -> Ticket:
        """The right to send at a moment that is due."""
        self._seq = seq = self._seq + 1
        self.in_flight += 1
        probe = self._looking or self._opened > 0 or (self._dry >= DRY and self._dry >= self._most_dry())
        self._probing = probe
        requests = self._requests
        requests.per_s = self.climb.rate
        if at > requests.empty_until:
            self._note_unasked(at)
        requests.take(at, 1.0 if self._missed <= 0 else self._make_up())
        ticket = Ticket(seq, at, input_tokens, output_tokens, probe)
        for unit, bucket in self.tokens.items():
            bucket.take(at, ticket.weight(unit) * self._spent)
        self.climb.sent(seq, at)
        self._unjudged.append(ticket)
        return ticket

    def _make_up(self) -> float:
        """What a request counts for while something was missed: the margin is used for it."""
        self._missed -= 1 - MARGIN
        return MARGIN

    def _note_unasked(self, at: float) -> None:
        since = max(self._requests.empty_until, self._held_at, self._resume_at)
        self._began_at = min(self._began_at, at)
        if -math.inf < since < at:
            self.unasked_s += at - since

    def leave(self, ticket: Ticket, now: float) -> float:
        """When what was reserved meanwhile is to go out; to be asked again at that moment, until it has come.

        What was reserved together would go out together, and a pause may have begun since.
        """
        if self.climb.rate >= FREE:
            return ticket.at
        if self.given_up or now > ticket.given_at + LONGEST_HOLD_S:
            return now
        if not ticket.probe and (self._resume_at > max(now, ticket.at) or self._probing):
            ticket.leaving = False
            return max(self._resume_at, now + LOOK_AGAIN_S)
        if not ticket.leaving:
            ticket.leaving, ticket.at = True, max(ticket.at, now, self._leaving - TOGETHER_S)
            self._leaving = max(self._leaving, ticket.at) + 1 / self.climb.rate
        return ticket.at

    def pause(self, seconds: float, now: float) -> None:
        """Send nothing for so long (at most two minutes), whatever is answered meanwhile."""
        self._soft_seq, self._looking = None, False
        self._sleep(seconds, now)

    def paused_s(self, now: float) -> float:
        """How much longer nothing is sent; 0 where no pause is on."""
        return max(0.0, self._resume_at - now)

    def _sleep(self, seconds: float, now: float) -> None:
        seconds = min(seconds, MAX_PAUSE_S)
        jitter = self.draw() * min(JITTER_S, seconds / 10)  # processes that were refused together do not come together
        longer = now + seconds + jitter - max(self._resume_at, now)
        if longer > 0:
            self._resume_at = now + seconds + jitter
            self.climb.rested_s += longer
        # Nobody catches up on what a pause has held back: that would be a wave.
        self._requests.empty_until = max(self._requests.empty_until, self._resume_at + CATCH_UP_S)

    # --- what came of it ---------------------------------------------------------------------------------------------

    def accepted(self, ticket: Ticket, now: float, input_tokens: int = 0, output_tokens: int = 0) -> None:
        """It was answered, and took so many tokens."""
        self.in_flight -= not ticket.void
        self._outages = 0
        if self._troubled_since is not None:
            self._recover()
        if self.tokens:
            self._correct(ticket, input_tokens, output_tokens)
        if ticket.taken is None:
            self._taken(ticket, now)
        self._presume(now)

    def refused(self, ticket: Ticket, now: float, pause_s: float | None, *, room: bool = False) -> None:
        """It was refused for now; ``pause_s`` is what the server asks for, ``room`` that it is not at its limit."""
        meant = pause_s is not None and pause_s >= MEANT_S
        room = room and not meant
        self._presumed_s += (max(PRESUMED_S, 3 * (now - ticket.at)) - self._presumed_s) / 8
        self._close(ticket)
        if ticket.taken is None:
            ticket.taken, ticket.dropped = False, room
        self._outages, self._missed = 0, 0.0
        self._give_back(ticket)
        if ticket.seq > self._dry_seq:
            self._dry, self._dry_seq = self._dry + 1, self._seq
        self._trouble(now, REFUSAL_PATIENCE_S)
        cut = not room and self.climb.alarm(ticket.seq, now)
        self._presume(now)
        dry = self._dry >= self._most_dry()
        if (room or self.climb.noise) and not dry and not meant:
            return
        if cut:
            self._requests.empty_until = max(self._requests.empty_until, now) + CUSHION_S
        if pause_s or dry:
            self._hold(ticket, max(pause_s or 0.0, self._dry_pause()), now)

    def failed(self, ticket: Ticket, now: float, pause_s: float | None = None, *, outage: bool = False) -> None:
        """It failed; an ``outage`` is a server that is not there or does not work."""
        self._drop(ticket)
        if pause_s:
            self.pause(pause_s, now)
        if not outage:
            return
        self._outages += 1
        if self.climb.answered:
            self._trouble(now, OUTAGE_PATIENCE_S)
            if self._outages >= OUTAGES and ticket.seq > self._open_seq:
                self._open(now)

    def unused(self, ticket: Ticket) -> None:
        """It was not sent after all."""
        if ticket.void:
            return
        self._drop(ticket)
        self._requests.give(1.0)
        self._give_back(ticket)

    def _drop(self, ticket: Ticket) -> None:
        """What became of it says nothing of the rate."""
        self._close(ticket)
        ticket.dropped = True

    def _close(self, ticket: Ticket) -> None:
        if ticket.void:
            return
        self.in_flight -= 1
        if ticket.probe:
            self._probing = False

    def _give_back(self, ticket: Ticket) -> None:
        for unit, bucket in self.tokens.items():
            bucket.give(ticket.weight(unit) * self._spent)

    def _correct(self, ticket: Ticket, input_tokens: int, output_tokens: int) -> None:
        possible = ticket.input_tokens + ticket.output_tokens
        if not possible:
            return
        used = Ticket(0, 0.0, input_tokens, output_tokens, False)
        for unit, bucket in self.tokens.items():
            bucket.give(ticket.weight(unit) * self._spent - used.weight(unit))
        self._spent += (min(1.0, (input_tokens + output_tokens) / possible) - self._spent) / 32

    # --- trouble -----------------------------------------------------------------------------------------------------

    def _hold(self, ticket: Ticket, seconds: float, now: float) -> None:
        """Pause for what was asked; a second may be a few milliseconds rounded up, and is looked into."""
        if seconds != ROUNDED_UP_S or ticket.probe:
            self.pause(seconds, now)
        elif ticket.seq > self._window_seq:
            self._soft_seq, self._window_seq, self._looking = ticket.seq, self._seq, True
            self._sleep(LOOK_S, now)

    def _lift(self, now: float) -> None:
        """The server has taken something that was sent after what it refused, so it takes more."""
        self._soft_seq, self._looking = None, False
        if self._resume_at > now:
            self.climb.rested_s -= self._resume_at - now
            self._resume_at = now
            self._requests.empty_until = now + CATCH_UP_S + CUSHION_S

    def _most_dry(self) -> int:
        """Refusals in a row that are no accident, however noisy the server."""
        noise = self.climb.noise
        return DRY if noise < 0.01 else max(DRY, math.ceil(math.log(ACCIDENT) / math.log(noise)))

    def _dry_pause(self) -> float:
        over = self._dry - self._most_dry()
        return 0.0 if over < 0 else min(LONGEST_COOL_DOWN_S, DRY_PAUSE_S * 2.0 ** min(over, 20))

    def _trouble(self, now: float, patience_s: float) -> None:
        self._troubled_since = now if self._troubled_since is None else self._troubled_since
        self.given_up = self.given_up or now - self._troubled_since > patience_s

    def _recover(self) -> None:
        if self._opened:
            self.climb.restart()  # not everybody at once
        self._troubled_since, self.given_up = None, False
        self._probing, self._opened = False, 0

    def _open(self, now: float) -> None:
        """Ask nobody for a while, then one, and everybody again when that one is answered."""
        self._open_seq = self._seq
        self.pause(min(LONGEST_COOL_DOWN_S, COOL_DOWN_S * 2.0 ** min(self._opened, 10)), now)
        self._opened += 1
