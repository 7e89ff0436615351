"""The progress display: a panel on a terminal, lines elsewhere, nothing on stdout."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from corpusgen.cli.live import live_display, plain_line, printable
from corpusgen.progress import Progress

HOSTILE = "\x1b]0;title\x07\x1b[2J\x1b[31mred\x1b[0m\r\n\x9b1m\u202etxt\x08\ud800"


class HandClock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class BrokenPipe(io.StringIO):
    """A stream whose reader has left."""

    def write(self, text: str) -> int:
        raise BrokenPipeError


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[io.TextIOWrapper, int]]:
    """The two ends of a pseudo terminal: the one a program writes to, and the one a person sees."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    screen, program = pty.openpty()
    with open(program, "w", encoding="utf-8") as stream:
        yield stream, screen
    os.close(screen)


END = "<all written>"


def seen(stream: io.TextIOWrapper, screen: int) -> str:
    """What arrived on the screen so far; a pseudo terminal hands it over in pieces, and a moment later."""
    stream.write(END)
    stream.flush()
    arrived = b""
    while not arrived.endswith(END.encode()):
        arrived += os.read(screen, 1 << 16)
    return arrived.decode().removesuffix(END)


def asking(done: int, **more: object) -> Progress:
    return Progress(stage="ask", done=done, total=100, **more)  # type: ignore[arg-type]


def test_plain_lines_come_every_few_seconds_and_at_the_end() -> None:
    stream, clock = io.StringIO(), HandClock()
    with live_display(stream, plain=True, clock=clock) as show:
        for done in range(11):
            show(asking(done))
            clock.now += 1
    assert re.findall(r"\d+(?= of)", stream.getvalue()) == ["0", "5", "10"]


def test_a_new_stage_is_told_at_once_after_the_end_of_the_old() -> None:
    stream = io.StringIO()
    with live_display(stream, plain=True, clock=HandClock()) as show:
        for moment in (asking(0), asking(1), asking(2), Progress(stage="train")):
            show(moment)
    assert [line.split("] ")[1] for line in stream.getvalue().splitlines()] == [
        "ask: 0 of 100 (0 %)",
        "ask: 2 of 100 (2 %)",
        "train: 0 done",
    ]


def test_a_line_holds_every_figure_and_keeps_three_kinds_of_money_apart() -> None:
    line = plain_line(
        asking(
            40,
            in_flight=2,
            from_cache=7,
            drops={"no label": 3, "truncated": 1},
            rate_per_s=4.56,
            spent_microusd=1_250_000,
            promised_microusd=4_100,
            unconfirmed_microusd=21,
            cap_microusd=5_000_000,
            tokens_spent=171_022,
            tokens_cap=400_000,
            requests=33,
            requests_cap=90,
            seconds_left=166,
            note="round 3 of 4",
        ),
        3725,
    )
    assert line == (
        "[1:02:05] ask: 40 of 100 (40 %); 2:46 left; 4.6 a second; 2 in flight; money $1.25 settled, $0.0041 promised, "
        "$0.000021 unconfirmed, cap $5.00; tokens 171,022 of 400,000; requests 33 of 90; from cache 7; "
        "dropped 4 (no label 3, truncated 1); note round 3 of 4"
    )


def test_text_from_outside_cannot_steer_the_terminal() -> None:
    assert printable(HOSTILE) == "red txt"
    line = plain_line(Progress(stage=HOSTILE, drops={HOSTILE: 1}, note=HOSTILE), 0)
    assert line == "[0:00] red txt: 0 done; dropped 1 (red txt 1); note red txt"


def test_a_stream_that_breaks_does_not_stop_the_run() -> None:
    with live_display(BrokenPipe(), plain=True) as show:
        show(asking(1))
        show(Progress(stage="train"))


def test_a_closed_stream_does_not_stop_the_run() -> None:
    stream = io.StringIO()
    with live_display(stream, plain=True) as show:
        stream.close()
        show(asking(1))


def test_an_ascii_log_takes_any_stage_name() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    with live_display(stream, plain=False) as show:
        show(Progress(stage="Wörter"))
    assert raw.getvalue() == b"[0:00] W\\xf6rter: 0 done\n"


def fail_while_shown(stream: io.StringIO) -> None:
    with live_display(stream, plain=True) as show:
        show(asking(1))
        show(asking(9))
        raise KeyError("inside")


def test_an_error_inside_arrives_as_itself_after_the_last_moment() -> None:
    stream = io.StringIO()
    with pytest.raises(KeyError, match="inside"):
        fail_while_shown(stream)
    assert "9 of 100" in stream.getvalue()


def test_a_terminal_gets_a_panel_and_stdout_gets_nothing(
    terminal: tuple[io.TextIOWrapper, int], capsys: pytest.CaptureFixture[str]
) -> None:
    stream, screen = terminal
    with live_display(stream, plain=False, clock=HandClock()) as show:
        show(asking(40, tokens_spent=171_022, tokens_cap=400_000, drops={"no label": 3}))
        sys.stdout.write("data\n")
    shown = seen(stream, screen)
    assert all(words in shown for words in ("╭─", "ask", "40 of 100 (40 %)", "171,022 of 400,000", "3 (no label 3)"))
    assert capsys.readouterr().out == "data\n"


def test_a_panel_shows_hostile_text_without_its_escapes(terminal: tuple[io.TextIOWrapper, int]) -> None:
    stream, screen = terminal
    with live_display(stream, plain=False) as show:
        show(Progress(stage=HOSTILE, note="[bold]" + HOSTILE))
    shown = seen(stream, screen)
    assert "[bold]red txt" in shown
    assert not re.search("\x1b\\[2J|\x1b\\]|\u202e|\x08", shown)


def test_no_color_is_honoured(terminal: tuple[io.TextIOWrapper, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    stream, screen = terminal
    with live_display(stream, plain=False) as show:
        show(asking(40))
    assert not re.search(r"\x1b\[[0-9;]*\b3[0-8]\b[0-9;]*m", seen(stream, screen))


def test_a_dumb_terminal_gets_lines(terminal: tuple[io.TextIOWrapper, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    stream, screen = terminal
    with live_display(stream, plain=False) as show:
        show(asking(40))
    assert "\x1b" not in seen(stream, screen)


def test_rich_is_loaded_only_for_a_panel() -> None:
    code = "import sys, corpusgen.cli.live; print([name for name in sys.modules if name.startswith('rich')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "[]\n"


def test_the_share_of_an_unknown_total_is_unknown() -> None:
    assert Progress(stage="ask", done=4).share is None
    assert Progress(stage="ask", done=4, total=8).share == 0.5
    assert Progress(stage="ask", total=0).share == 1.0
