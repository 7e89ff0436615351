"""Progress on a terminal or in a log; always on the stream it was given, never on stdout."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, TextIO, TypeAlias

from corpusgen.progress import Progress

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live
    from rich.panel import Panel
    from rich.table import Table

Show: TypeAlias = Callable[[Progress], None]
Clock: TypeAlias = Callable[[], float]
Draw: TypeAlias = Callable[[Progress, float], None]

FRAME_S = 0.1
"""Least time between two frames of one stage on a terminal."""

LINE_S = 5.0
"""Least time between two plain lines of one stage."""

_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor movement
    r"|(?:\x1b[\]P^_X]|[\x9d\x90\x9e\x9f\x98])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"  # titles, links, clipboard
    r"|\x1b[ -/]*[0-~]"
)
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]+")


def live_display(stream: TextIO, *, plain: bool, clock: Clock = time.monotonic) -> AbstractContextManager[Show]:
    """A callable that shows every ``Progress`` it gets: a panel on a terminal that can hold one, lines anywhere else.

    A stream that breaks ends the display, never the run.
    """
    return _lines(stream, clock) if plain or not _holds_panel(stream) else _panel(stream, clock)


def printable(foreign: str) -> str:
    """Foreign text on one line, without anything that moves, colours, hides or reverses it."""
    return " ".join(_CONTROLS.sub(" ", _ESCAPES.sub("", foreign)).split())


def plain_line(progress: Progress, elapsed_s: float) -> str:
    """Everything worth knowing of one moment, in one line."""
    parts = [
        f"[{clock_time(elapsed_s)}] {printable(progress.stage)}: {_done(progress)}",
        *_pace(progress),
        *_named("money", _money(progress)),
        *_named("tokens", _used(progress.tokens_spent, progress.tokens_cap)),
        *_named("requests", _used(progress.requests, progress.requests_cap)),
        *([f"from cache {progress.from_cache:,}"] if progress.from_cache else []),
        *_named("dropped", _drops(progress.drops)),
        *_named("note", printable(progress.note)),
    ]
    return "; ".join(parts)


def clock_time(seconds: float) -> str:
    """0:07, 12:34, 1:02:03."""
    minutes, rest = divmod(int(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class _Display:
    """Draws at most every so often, always when the stage changes, and the last moment at the end."""

    def __init__(self, draw: Draw, stream: TextIO, clock: Clock, least_s: float) -> None:
        self._draw, self._stream, self._clock, self._least_s = draw, stream, clock, least_s
        self._start = self._drawn_s = clock()
        self._drawn: Progress | None = None
        self._latest: Progress | None = None
        self._broken = False

    def show(self, progress: Progress) -> None:
        """Take note of a moment, and draw it when it is due."""
        before, self._latest = self._latest, progress
        new_stage = before is None or before.stage != progress.stage
        if new_stage:
            self._show(before)
        if new_stage or self._clock() - self._drawn_s >= self._least_s:
            self._show(progress)

    def finish(self) -> None:
        """Draw the last moment if nobody has seen it."""
        self._show(self._latest)

    def attempt(self, action: Callable[[], None]) -> None:
        """Do something to the stream; once it is gone, do nothing more."""
        self._broken = self._broken or self._stream.closed
        if self._broken:
            return
        try:
            action()
        except OSError:  # the reader of a pipe left, the terminal was closed: the run goes on unseen
            self._broken = True

    def _show(self, moment: Progress | None) -> None:
        if moment is None or moment is self._drawn:
            return
        self._drawn, self._drawn_s = moment, self._clock()
        self.attempt(lambda: self._draw(moment, self._drawn_s - self._start))


@contextmanager
def _lines(stream: TextIO, clock: Clock) -> Iterator[Show]:
    def draw(progress: Progress, elapsed_s: float) -> None:
        encoding = stream.encoding or "utf-8"
        line = plain_line(progress, elapsed_s).encode(encoding, "backslashreplace").decode(encoding)
        stream.write(f"{line}\n")
        stream.flush()

    display = _Display(draw, stream, clock, LINE_S)
    try:
        yield display.show
    finally:
        display.finish()


@contextmanager
def _panel(stream: TextIO, clock: Clock) -> Iterator[Show]:
    live = _open_live(stream)
    display = _Display(lambda moment, s: live.update(_frame(moment, s), refresh=True), stream, clock, FRAME_S)
    display.attempt(live.start)
    try:
        yield display.show
    finally:
        display.finish()
        display.attempt(live.stop)


def _holds_panel(stream: TextIO) -> bool:
    draws_boxes = (stream.encoding or "").lower().startswith("utf")
    return draws_boxes and stream.isatty() and os.environ.get("TERM", "dumb") not in {"dumb", "unknown", ""}


def _open_live(stream: TextIO) -> Live:
    from rich.console import Console
    from rich.live import Live

    console = Console(file=stream, force_terminal=True, highlight=False, markup=False, emoji=False)
    return Live(
        console=console,
        auto_refresh=False,
        redirect_stdout=False,  # data goes there
        redirect_stderr=stream is sys.stderr,  # warnings appear above the panel instead of through it
    )


def _frame(progress: Progress, elapsed_s: float) -> Panel:
    from rich.console import Group
    from rich.panel import Panel
    from rich.text import Text

    pace = [Text(" · ".join(found), style="dim")] if (found := _pace(progress)) else []
    title = Text(printable(progress.stage), style="bold")
    return Panel(
        Group(_bar(progress), *pace, _amounts(progress)),
        title=title,
        title_align="left",
        subtitle=Text(clock_time(elapsed_s), style="dim"),
        subtitle_align="right",
        border_style="dim",
    )


def _bar(progress: Progress) -> RenderableType:
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    if progress.share is None:
        return Text(_done(progress))
    row = Table.grid(padding=(0, 2), expand=True)
    row.add_column(ratio=1)
    row.add_column(justify="right", no_wrap=True)
    finished = progress.total or 1
    bar = ProgressBar(total=finished, completed=progress.share * finished, complete_style="blue", finished_style="blue")
    row.add_row(bar, _done(progress))
    return row


def _amounts(progress: Progress) -> Table:
    from rich.table import Table
    from rich.text import Text

    rows = Table.grid(padding=(0, 2))
    rows.add_column(style="dim", no_wrap=True)
    rows.add_column(overflow="fold")
    for name, words in _rows(progress):
        rows.add_row(name, Text(words))
    return rows


def _rows(progress: Progress) -> list[tuple[str, str]]:
    found = [
        ("money", _money(progress)),
        ("tokens", _used(progress.tokens_spent, progress.tokens_cap)),
        ("requests", _used(progress.requests, progress.requests_cap)),
        ("cache", f"{progress.from_cache:,} answered without asking" if progress.from_cache else ""),
        ("dropped", _drops(progress.drops)),
        ("note", printable(progress.note)),
    ]
    return [(name, words) for name, words in found if words]


def _done(progress: Progress) -> str:
    if progress.total is None or progress.share is None:
        return f"{progress.done:,} done"
    return f"{progress.done:,} of {progress.total:,} ({int(progress.share * 100)} %)"


def _pace(progress: Progress) -> list[str]:
    found = [
        "" if progress.seconds_left is None else f"{clock_time(progress.seconds_left)} left",
        f"{progress.rate_per_s:,.1f} a second" if progress.rate_per_s else "",
        f"{progress.in_flight:,} in flight" if progress.in_flight else "",
    ]
    return [words for words in found if words]


def _named(name: str, words: str) -> list[str]:
    return [f"{name} {words}"] if words else []


def _money(progress: Progress) -> str:
    amounts = (progress.spent_microusd, progress.promised_microusd, progress.unconfirmed_microusd)
    if not any(amounts) and progress.cap_microusd is None:
        return ""
    settled, promised, unconfirmed = map(_dollars, amounts)
    cap = "" if progress.cap_microusd is None else f", cap {_dollars(progress.cap_microusd)}"
    return f"{settled} settled, {promised} promised, {unconfirmed} unconfirmed{cap}"


def _dollars(microusd: int) -> str:
    if microusd == 0 or microusd >= 1_000_000:
        return f"${microusd / 1e6:,.2f}"
    return f"${microusd / 1e6:.4f}" if microusd >= 1000 else f"${microusd / 1e6:.6f}"


def _used(amount: int, cap: int | None) -> str:
    if cap is None:
        return f"{amount:,}" if amount else ""
    return f"{amount:,} of {cap:,}"


def _drops(drops: Mapping[str, int]) -> str:
    biggest = sorted(drops.items(), key=lambda drop: (-drop[1], drop[0]))
    told = ", ".join(f"{printable(reason)} {number:,}" for reason, number in biggest if number)
    return f"{sum(drops.values()):,} ({told})" if told else ""
