"""Numbers and foreign text as a reader should see them."""

from __future__ import annotations

import html
import math
import re

NARROW = "\u202f"
"""Narrow no-break space: between thousands and before units."""

DASH = "\u2013"
MINUS = "\u2212"

_UNSEEN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)


def text(value: str) -> str:
    """Foreign text for HTML: escaped, and with characters that hide or turn text around made visible."""
    return html.escape(_UNSEEN.sub(lambda found: f"\u27e8U+{ord(found.group()):04X}\u27e9", value), quote=True)


def count(value: float) -> str:
    """12 345."""
    return f"{value:,.0f}".replace(",", NARROW) if math.isfinite(value) else DASH


def percent(value: float, digits: int = 1) -> str:
    """0.862 as 86.2 %."""
    return f"{value * 100:.{digits}f}{NARROW}%" if math.isfinite(value) else DASH


def dollars(microusd: float) -> str:
    """Micro-dollars as dollars: cents from a dollar up, as many places as the amount needs below."""
    if not math.isfinite(microusd):
        return DASH
    amount = microusd / 1e6
    if amount == 0 or abs(amount) >= 1:
        return f"${amount:,.2f}".replace(",", NARROW)
    places = min(6, max(2, 1 - math.floor(math.log10(abs(amount)))))
    return f"${amount:.{places}f}"


def exact_dollars(microusd: int) -> str:
    """Micro-dollars as dollars, to the last micro-dollar."""
    whole, part = divmod(abs(microusd), 1_000_000)
    places = f"{part:06d}".rstrip("0").ljust(2, "0")
    return f"{MINUS if microusd < 0 else ''}${count(whole)}.{places}"


def logprob(value: float) -> str:
    """A log-probability with a true minus sign."""
    return f"{value:.3f}".replace("-", MINUS) if math.isfinite(value) else DASH


def significant(value: float) -> str:
    """Three significant digits without an exponent: 0.0512, 3.14, 212, 4 190."""
    if not math.isfinite(value):
        return DASH
    if value == 0:
        return "0"
    places = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{min(places, 9)}f}".replace(",", NARROW)


def edge(value: float) -> str:
    """The edge of a histogram's bin, as short as it can be."""
    return f"{value:g}".replace("-", MINUS)


def times(value: float) -> str:
    """3 120 times, rounded to what a measurement carries."""
    return f"{significant(float(f'{value:.3g}'))}{NARROW}×" if math.isfinite(value) else DASH


def milliseconds(value: float) -> str:
    """Milliseconds with three significant digits."""
    return f"{significant(value)}{NARROW}ms"


def duration(seconds: float) -> str:
    """42 s, 7 min 5 s, 3 h 2 min."""
    if not math.isfinite(seconds):
        return DASH
    whole = round(seconds)
    if whole < 60:
        return f"{whole}{NARROW}s"
    if whole < 3600:
        return f"{whole // 60}{NARROW}min {whole % 60}{NARROW}s"
    return f"{whole // 3600}{NARROW}h {whole % 3600 // 60}{NARROW}min"


def plural(number: int, one: str, many: str | None = None) -> str:
    """1 item, 2 items."""
    return f"{count(number)} {one if number == 1 else many or one + 's'}"


def listed(parts: list[str]) -> str:
    """a, b and c."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}" if parts else ""


def share_of(part: float, whole: float) -> float:
    """The share, or not a number when there is nothing to take a share of."""
    return part / whole if whole else math.nan
