"""How many requests a second a server takes, found out from what it answers and what it refuses.

Begin slowly and grow quickly; at the first refusal of something sent since the last cut, cut. What a server with a
limit takes is the same whatever is sent, so after a cut to less than that nothing is refused any more. Where just as
many are refused as before, the refusals have another cause, and sending less only wastes time: they are taken as
noise, and only what goes beyond that noise is a limit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

FREE: Final = 50_000.0
"""Requests a second above which nobody is held back."""
LEAST_RATE: Final = 0.2
LEAST_SENDING: Final = 4.0
RECENT_S: Final = 0.25
DETACHED: Final = 3.0
"""A rate so many times what is sent has held nobody back."""
FIRST_RATE: Final = 80.0
FIRST_IN_FLIGHT: Final = 8
"""Unanswered requests a server nobody knows is sent at first, and one more for each answer."""
BLIND_IN_FLIGHT: Final = 4
"""The same before the first answer, whose headers may name a limit."""
GROWTH: Final = 3.0
"""Of the rate, per second, until the first refusal; a doubling takes 0.23 s."""
GENTLE: Final = 120.0
"""Below so many requests a second growth is slower, because there a refusal weighs more."""
BOLD: Final = 2500.0
"""Above so many it is faster: there are answers enough to notice a refusal soon, and much to be gained."""
BOLDEST: Final = 3.0
GROWTH_TOLD: Final = 10.0
"""The same below a limit that the server has named itself."""
HEARD_AT_ONCE: Final = 0.9
"""The part of such a limit that is gone to at once."""
GROWTH_NOISY: Final = 2.0
CUT: Final = 0.6
CUT_EARLY: Final = 0.5
"""While too little has been answered to tell how much of it was a burst."""
EARLY: Final = 40
KEPT: Final = 0.9
"""Of what was delivered, where that is known roughly."""
KEPT_MEASURED: Final = 0.985
"""Of what was delivered, where it was measured from one refusal to the next."""
SLOPE: Final = 0.12
SLOPE_MEASURED: Final = 0.4
"""Divided by the answers of a measurement: the more certain it is, the less is gained by trying more."""
BEND: Final = 0.0015
BEND_ROUGH: Final = 0.05
LEAST_KEPT: Final = 0.25
"""A window that is full refuses everything, however little over its limit one was."""
LEAST_KEPT_AGAIN: Final = 0.4
MEASURED: Final = 25
"""Answers that make a measurement."""
TRIAL: Final = 10
PROVEN: Final = 20
FRUITLESS: Final = 2
"""Cuts in vain after which refusals are noise."""
IN_VAIN: Final = 0.15
"""Refused after a cut to less than what was delivered before: too many for a limit."""
NOISE_TRIAL: Final = 40
SIGNIFICANT: Final = 3.5
"""Standard deviations."""
ABOVE_NOISE: Final = 0.08
MOST_NOISE: Final = 0.5


@dataclass(kw_only=True)
class Climb:
    """The rate that is allowed now, and why."""

    rate: float = FIRST_RATE
    ceiling: float = math.inf
    starting: bool = True
    growth: float = GROWTH
    noise: float = 0.0
    """Share of refusals that have nothing to do with the rate."""
    answered: int = 0
    rested_s: float = 0.0
    """Time since the last cut in which nothing was sent on purpose."""
    settling: bool = False
    """Whether what was under way at a first cut should be heard of before more is sent."""
    bound: bool = False
    """Whether somebody has had to wait for this rate since it last grew."""
    _last_seq: int = 0
    cut_seq: int = -1
    """The latest request that was sent before the last cut."""
    _n: int = 0
    _bad: int = 0
    _tail_n: int = 0
    _tail_bad: int = 0
    _before_rate: float = 0.0
    _before_share: float = 0.0
    _trial: bool = False
    _fruitless: int = 0
    _pool_n: int = 0
    _pool_bad: int = 0
    _event_at: float = -math.inf
    _event_answered: int = 0
    _base: float = 0.0
    _mark: tuple[int, float] = (0, -math.inf)
    _before_mark: tuple[int, float] = (0, -math.inf)
    _slope: float = 0.0
    _tau: float = 0.0
    _grown_at: float = -math.inf
    _rough: bool = False

    def limit(self, ceiling: float, *, trusted: bool) -> None:
        """Never go above a rate; one that is trusted is gone to at once."""
        self.ceiling = ceiling
        if trusted and self.starting:
            self.starting, self.rate, self._base = False, ceiling, ceiling
        elif trusted and self.cut_seq < 0:
            self.rate = self._base = ceiling
        elif self.starting and not self.noise:
            self.rate = max(self.rate, ceiling * HEARD_AT_ONCE)
        self.growth = GROWTH_TOLD
        self.rate = min(self.rate, ceiling)

    @property
    def found(self) -> bool:
        """Whether the rate is what a server was seen to take."""
        return not self.starting and self.ceiling == math.inf and not self.noise and self.rate < FREE

    def take_up(self, rate: float, now: float) -> None:
        """Go on at a rate that somebody else has found, or at another part of one's own."""
        self.starting, self.rate, self._base = False, max(rate, LEAST_RATE), max(rate, LEAST_RATE)
        self._slope, self._tau, self._grown_at = SLOPE_MEASURED / EARLY, 0.0, now
        self._event_at, self._event_answered, self.rested_s = now, self.answered, 0.0

    def excuse(self) -> None:
        """Refusals of what was sent so far, before it was known to be too much, are no reason to cut."""
        self.cut_seq = self._last_seq

    def restart(self) -> None:
        """Begin slowly again, as the server has just begun again."""
        if self.rate > FIRST_RATE:
            self.rate, self.starting = max(FIRST_RATE, min(self.rate, FREE) / 8), True

    def sent(self, seq: int, at: float) -> None:
        """Note the number of the latest request, and its moment."""
        self._last_seq = seq
        if at - self._mark[1] > RECENT_S:
            self._before_mark = self._mark if self._mark[0] else (seq - 1, at)
            self._mark = (seq, at)

    def alarm(self, seq: int, now: float) -> bool:
        """Something was refused just now; True if the rate was cut for it at once."""
        if seq <= self.cut_seq or self._trial or self.noise:
            return False
        self._cut(now)
        return True

    def heard(self, seq: int, now: float, *, taken: bool) -> None:
        """What became of a request, told in the order in which they were sent."""
        self.answered += taken
        if seq <= self.cut_seq:
            self._tail_n += 1
            self._tail_bad += not taken
        else:
            self._count(now, taken)
        if taken and self.rate < self.ceiling and self.rate < FREE:
            self._grow(now)

    def _count(self, now: float, taken: bool) -> None:
        if self._rough:
            self._settle_tail()
        self._n += 1
        self._bad += not taken
        if self.noise:
            self._judge_noise(now)
        elif taken:
            if self._trial:
                self._judge()
        elif self._trial and self._n >= TRIAL:
            self._cut_again(now)

    # --- growing -----------------------------------------------------------------------------------------------------

    def _grow(self, now: float) -> None:
        passed = min(now - self._grown_at, 0.1)
        self._grown_at = now
        if not self.bound:
            return
        self.bound = False
        if self.starting:
            self.rate *= 1 + self.growth * self._courage() * passed
        else:
            self._tau += passed
            bend = BEND_ROUGH if self._slope == SLOPE else BEND
            self.rate = self._base * (1 + self._slope * self._tau + bend * self._tau**2)
        self.rate = min(self.rate, self.ceiling)

    def _courage(self) -> float:
        if self.ceiling < math.inf:
            return 1.0
        return min(1.0, self.rate / GENTLE) * min(BOLDEST, max(1.0, self.rate / BOLD))

    # --- cutting -----------------------------------------------------------------------------------------------------

    def _sending(self, now: float) -> float:
        """Requests a second that were really sent, which a rate that binds nobody says nothing of."""
        seq, at = self._before_mark
        return max((self._last_seq - seq) / max(now - at, RECENT_S / 5), LEAST_SENDING)

    def _cut(self, now: float) -> None:
        sending = self._sending(now)
        if self.rate > DETACHED * sending:
            self.rate = sending
        self._before_rate, self._fruitless, self._pool_n, self._pool_bad = self.rate, 0, 0, 0
        measured = self.answered - self._event_answered
        if self._event_at > -math.inf and measured >= MEASURED and self.ceiling == math.inf:
            # A few are under way at both ends, which weighs little when many were answered in between. One less is
            # counted, because with few answers too much would be refused again soon.
            passed = max(now - self._event_at - self.rested_s, 1e-3)
            base = min(self.rate, (measured - 1) / passed * KEPT_MEASURED)
            self._begin(max(base, self.rate * CUT), SLOPE_MEASURED / measured, now)
        elif self.ceiling < math.inf and (not self.starting or self._at_a_limit_heard):
            self._begin(self.rate * KEPT, SLOPE, now)
        else:
            self._begin(self.rate * (CUT if self.answered >= EARLY else CUT_EARLY), SLOPE, now)
            self.settling = True
        self._rough = True

    @property
    def _at_a_limit_heard(self) -> bool:
        """Whether this is the first cut, at a rate that the server has named: then the rate is about right."""
        return self._event_at == -math.inf and self.rate >= self.ceiling * HEARD_AT_ONCE

    def _cut_again(self, now: float) -> None:
        """Refusals go on after a cut: it was too small, or they have another cause."""
        share = self._bad / self._n
        self._note_fruitless(share)
        pooled = self._pool_bad / self._pool_n
        if self._fruitless >= FRUITLESS and self._pool_n >= 2 * TRIAL and pooled <= MOST_NOISE:
            self._call_it_noise()
        else:
            self._begin(self.rate * max(1 - share, LEAST_KEPT_AGAIN) * KEPT, SLOPE, now)

    def _note_fruitless(self, share: float) -> None:
        self._fruitless = self._fruitless + 1 if share >= min(self._before_share / 2, IN_VAIN) else 0
        self._pool_n += self._n
        self._pool_bad += self._bad
        self._before_share = self._pool_bad / self._pool_n if self._fruitless else share

    def _begin(self, base: float, slope: float, now: float) -> None:
        """Go on at another rate; what is under way was sent at the old one."""
        self.rate = self._base = min(max(base, self.rate / 10, LEAST_RATE), self.ceiling)
        self._slope, self._tau, self._grown_at = slope, 0.0, now
        self.cut_seq, self.starting, self._trial, self._rough = self._last_seq, False, True, False
        self._n = self._bad = self._tail_n = self._tail_bad = 0
        self._event_at, self._event_answered, self.rested_s = now, self.answered, 0.0

    def settle(self) -> None:
        """All that was under way at the last cut has been heard of."""
        if self._rough:
            self._settle_tail()

    def _settle_tail(self) -> None:
        """What was under way at the cut has been answered, and says how far off the rate was."""
        self._rough = self.settling = False
        self._before_share = self._tail_bad / self._tail_n if self._tail_n >= 3 else 0.3
        if self._tail_n >= 8 and self._slope == SLOPE:
            better = self._before_rate * (1 - self._before_share) * KEPT
            if better < self._base:
                self.rate = self._base = max(better, self._base * LEAST_KEPT, LEAST_RATE)

    def _judge(self) -> None:
        """Whether the last cut has helped, once enough has been answered since."""
        if self._n >= PROVEN and self._bad / self._n < self._before_share / 2:
            self._trial, self._fruitless = False, 0

    # --- noise -------------------------------------------------------------------------------------------------------

    def _call_it_noise(self) -> None:
        self.noise = min(MOST_NOISE, self._pool_bad / self._pool_n)
        self.rate = self._base = self._before_rate
        self._n = self._bad = 0
        self._trial, self.starting, self._slope, self._tau = False, True, 0.0, 0.0
        self.growth = min(self.growth, GROWTH_NOISY)

    def _judge_noise(self, now: float) -> None:
        """Whether more is refused than the noise: then cut, and see if that makes it less."""
        if self._n < NOISE_TRIAL:
            return
        share = self._bad / self._n
        above = (share - self.noise) / math.sqrt(self.noise * (1 - self.noise) / self._n)
        if self._trial:
            self._end_noise_trial(share)
        elif above > SIGNIFICANT and share > self.noise + ABOVE_NOISE:
            self._before_rate, self._before_share = self.rate, share
            self._begin(self.rate * KEPT * (1 - share) / (1 - self.noise), SLOPE, now)
        elif above < -SIGNIFICANT:
            self.noise, self._pool_n, self._pool_bad = share if share > 0.02 else 0.0, self._n, self._bad
            self._n = self._bad = 0
        elif self._n >= 4 * NOISE_TRIAL:
            self._n = self._bad = 0

    def _end_noise_trial(self, share: float) -> None:
        self._trial = False
        in_vain = share > (self.noise + self._before_share) / 2
        self._pool_n, self._pool_bad = self._pool_n + self._n, self._pool_bad + self._bad
        self.noise = min(MOST_NOISE, max(self.noise, share) if in_vain else self._pool_bad / self._pool_n)
        if in_vain:
            self.rate = self._base = max(self.rate, self._before_rate)
        self._n = self._bad = 0
