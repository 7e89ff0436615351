"""The section on money, tokens and requests: what was spent, what was planned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from corpusgen.evaluate.report import charts
from corpusgen.evaluate.report.charts import Meter
from corpusgen.evaluate.report.facts import PlanLine, PlanUnit, Spend
from corpusgen.evaluate.report.markup import Section, figure, paragraph, table
from corpusgen.evaluate.report.svg import both
from corpusgen.evaluate.report.wording import DASH, MINUS, count, dollars, duration, exact_dollars, percent, plural

SHOWN: dict[PlanUnit, Callable[[float], str]] = {"count": count, "microusd": dollars, "seconds": duration}


def spend(facts: Spend | None, plan: tuple[PlanLine, ...] | None) -> Section | None:
    """Settled, unconfirmed and promised against the caps, and the plan against what happened."""
    body = (_ledger(facts) if facts else "") + (_plan(plan) if plan else "")
    return Section(anchor="spend", short="Spending", title="What the run spent", body=body) if body else None


def _ledger(facts: Spend) -> str:
    capped = _meters(facts)
    chart = (
        figure(
            "Against the caps",
            "Strongest is settled, then unconfirmed, then promised; the track ends at the cap.",
            both(partial(_meter_chart, capped), "spend"),
        )
        if capped
        else ""
    )
    return _spend_words(facts) + chart + _spend_table(facts) + _own_machine(facts)


def _spend_words(facts: Spend) -> str:
    told = f"{plural(facts.requests, 'request')} and {count(facts.settled_tokens)} tokens "
    told += f"for {dollars(facts.settled_microusd)}."
    if facts.free_teacher:
        told += " The spec declares this teacher free; its processor time is counted apart from money."
    if facts.unconfirmed_microusd or facts.unconfirmed_tokens:
        told += " Calls with unknown outcome count in full until they are reconciled with the provider’s bill."
    if facts.from_cache:
        told += f" {plural(facts.from_cache, 'answer')} came from the cache and saved {dollars(facts.saved_microusd)}."
    return paragraph(told)


def _meters(facts: Spend) -> list[Meter]:
    money = (facts.settled_microusd, facts.unconfirmed_microusd, facts.promised_microusd)
    tokens = (facts.settled_tokens, facts.unconfirmed_tokens, facts.promised_tokens)
    sent = count(facts.requests) + " sent"
    rows = (
        ("Money", money, facts.cap_microusd, dollars, _apart(money, dollars)),
        ("Tokens", tokens, facts.cap_tokens, count, _apart(tokens, count)),
        ("Requests", (facts.requests, 0, 0), facts.cap_requests, count, sent),
        ("Processor", facts.compute_us, facts.cap_compute_us, _time, _apart(facts.compute_us, _time)),
        ("Time", (facts.wall_us, 0, 0), facts.cap_wall_us, _time, f"{_time(facts.wall_us)} worked"),
    )
    return [
        Meter(name=name, parts=_parts(amounts), cap=cap, cap_words=f"cap {show(cap)}", words=told)
        for name, amounts, cap, show, told in rows
        if cap is not None
    ]


def _parts(amounts: Sequence[int]) -> tuple[tuple[str, float], ...]:
    return tuple(zip(("settled", "unconfirmed", "promised"), amounts, strict=True))


def _apart(amounts: Sequence[int], show: Callable[[float], str]) -> str:
    return " · ".join(f"{show(amount)} {kind}" for kind, amount in _parts(amounts))


def _meter_chart(rows: list[Meter], width: int, name: str) -> str:
    told = "; ".join(f"{row.name}: {row.words}, {row.cap_words}" for row in rows)
    return charts.meters(name, "Spending against the caps", told, rows, width)


def _spend_table(facts: Spend) -> str:
    money = (facts.settled_microusd, facts.unconfirmed_microusd, facts.promised_microusd)
    tokens = (facts.settled_tokens, facts.unconfirmed_tokens, facts.promised_tokens)
    rows = (
        ("Money", *map(exact_dollars, money), _cap(facts.cap_microusd, exact_dollars)),
        ("Tokens", *map(count, tokens), _cap(facts.cap_tokens, count)),
        ("Requests", count(facts.requests), DASH, DASH, _cap(facts.cap_requests, count)),
        *([("Processor time", *map(_time, facts.compute_us), _cap(facts.cap_compute_us, _time))] * _computed(facts)),
        *([("Time worked", _time(facts.wall_us), DASH, DASH, _cap(facts.cap_wall_us, _time))] * bool(facts.wall_us)),
    )
    return table(("", "Settled", "Unconfirmed", "Promised", "Cap"), rows, stacked=True)


def _computed(facts: Spend) -> bool:
    return any(facts.compute_us) or facts.cap_compute_us is not None


def _own_machine(facts: Spend) -> str:
    """What one's own processor did, and what that is worth: apart from money, because nobody bills it."""
    if not any(facts.compute_us):
        return ""
    told = f"Processor time is that of your own machines: {_time(sum(facts.compute_us))}"
    told += f", {_time(facts.trained_us)} of it students that learned." if facts.trained_us else "."
    if facts.compute_microusd is not None:
        told += f" At your price of an hour it is worth {dollars(facts.compute_microusd)}; no cap in dollars counts it."
    return paragraph(told, "note")


def _time(microseconds: float) -> str:
    return duration(microseconds / 1e6)


def _cap(cap: int | None, show: Callable[[int], str]) -> str:
    return "none" if cap is None else show(cap)


def _plan(lines: tuple[PlanLine, ...]) -> str:
    told = f"Forecast before anything was sent. {_inside(lines)}"
    head = ("", "Low", "Likely", "High", "Actual", "Against likely")
    return "<h3>Plan against actual</h3>" + paragraph(told) + table(head, map(_plan_row, lines), stacked=True)


def _inside(lines: tuple[PlanLine, ...]) -> str:
    outside = [line.name for line in lines if not line.low <= line.actual <= line.high]
    return f"Outside the range: {', '.join(outside)}." if outside else "Everything ended within its range."


def _plan_row(line: PlanLine) -> tuple[str, ...]:
    show = SHOWN[line.unit]
    return (line.name, *(show(value) for value in (line.low, line.likely, line.high, line.actual)), _deviation(line))


def _deviation(line: PlanLine) -> str:
    if not line.likely:
        return DASH
    off = round(100 * (line.actual / line.likely - 1))
    return f"{'+' if off > 0 else MINUS if off < 0 else '±'}{percent(abs(off) / 100, 0)}"
