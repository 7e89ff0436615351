"""``corpusgen traffic``: what calls repeat, what they cost, and which a student could answer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any, Final

import click

from corpusgen.cli.options import (
    corpus_if_any,
    corpus_option,
    counted,
    emit,
    existing,
    harmless,
    json_option,
    money,
)
from corpusgen.errors import UsageError

if TYPE_CHECKING:
    from corpusgen.corpus import Corpus
    from corpusgen.stages.traffic.finding import Right, Traffic
    from corpusgen.stages.traffic.ranking import Ranked
    from corpusgen.stages.traffic.reading import Window
    from corpusgen.stages.traffic.specs import Written

SHOWN: Final = 15
"""Clusters of the table; --all shows the others."""
BAD_SHOWN: Final = 10
_SPANS: Final = {"h": "hours", "d": "days", "w": "weeks"}
_USES: Final = ("internal", "hosted", "weights_released")


@click.command()
@click.option("--since", metavar="7d|DATE", help="Calls from then on: 12h, 7d, 4w ago, or a day or time (UTC).")
@click.option("--until", metavar="1d|DATE", help="Calls before then.")
@click.option("--task", help="Calls recorded under this task only.")
@click.option("--user", help="Calls of this user only.")
@click.option(
    "--log",
    "logs",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="A log of another service (JSON Lines) in place of the corpus; may be repeated. Nothing is recorded.",
)
@click.option("--use", type=click.Choice(_USES), help="Who would get the student, for the rights of a log.")
@click.option("--write", type=click.Path(path_type=Path, file_okay=False), help="Write tasks to start from below here.")
@click.option("--cluster", "clusters", multiple=True, type=int, help="With --write: this cluster; may be repeated.")
@click.option(
    "--by",
    "order",
    type=click.Choice(("saving", "spend", "repeats", "score")),
    default="saving",
    show_default=True,
    help="Which clusters come first.",
)
@click.option("--all", "every", is_flag=True, help="All clusters, not only the first.")
@corpus_option
@json_option
def traffic(
    since: str | None,
    until: str | None,
    task: str | None,
    user: str | None,
    logs: tuple[Path, ...],
    use: str | None,
    write: Path | None,
    clusters: tuple[int, ...],
    order: Any,
    every: bool,
    corpus_folder: Path,
    as_json: bool,
) -> None:
    """Say which calls repeat, what they cost, and which a student could take over.

    Calls are grouped by the wording they share, else by meaning. Reads the corpus, or logs of other services; asks
    nobody and records nothing.
    """
    if clusters and write is None:
        raise click.UsageError("--cluster is for --write DIR; name the folder, or leave it out")
    now = datetime.now(UTC)
    window = _window(since, until, task, user, now)
    if logs:
        with corpus_if_any(corpus_folder) as corpus:
            _tell(corpus, window, logs, use, write, clusters, now, order, every=every, as_json=as_json)
    else:
        with existing(corpus_folder, reading=True) as corpus:
            _tell(corpus, window, (), use, write, clusters, now, order, every=every, as_json=as_json)


def _tell(
    corpus: Corpus | None,
    window: Window,
    logs: tuple[Path, ...],
    use: Any,
    write: Path | None,
    clusters: tuple[int, ...],
    now: datetime,
    order: Any,
    *,
    every: bool,
    as_json: bool,
) -> None:
    from corpusgen.stages.traffic.finding import in_order, of_logs, of_recorded, write_tasks
    from corpusgen.stages.traffic.reading import Log

    if corpus is not None and not logs:
        found = of_recorded(corpus, window)
    else:
        found = of_logs(Log(files=logs), window, on=now.date(), use=use, corpus=corpus)
    found = replace(found, clusters=in_order(found.clusters, order))
    written: list[Written] = []
    if write is not None:
        source = None if logs else corpus
        written = write_tasks(found, write, clusters, corpus=source, use=use, clock=lambda: now)
    if as_json:
        emit({**found.to_json(), "written": [one.to_json() for one in written]})
        return
    for line in (*_lines(found, every=every), *_of_written(written, asked=write is not None)):
        click.echo(harmless(line))


# --- Periods ---------------------------------------------------------------------------------------------------------


def _window(since: str | None, until: str | None, task: str | None, user: str | None, now: datetime) -> Window:
    from corpusgen.stages.traffic.reading import Window

    begin, end = _instant(since, now, "--since"), _instant(until, now, "--until")
    if begin is not None and end is not None and begin >= end:
        raise UsageError(f"--since {since} is not before --until {until}; exchange them")
    return Window(since_us=begin, until_us=end, task=task, user=user)


def _instant(text: str | None, now: datetime, option: str) -> int | None:
    if text is None:
        return None
    number, unit = text[:-1], text[-1:]
    try:
        if unit in _SPANS and number.isdigit():
            return round((now - timedelta(**{_SPANS[unit]: int(number)})).timestamp() * 1_000_000)
        at = datetime.fromisoformat(text)
    except (ValueError, OverflowError) as error:
        raise UsageError(f"{option} {text!r} is no time; write 12h, 7d, 4w, or a day such as 2026-11-16") from error
    return round((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1_000_000)


# --- The table -------------------------------------------------------------------------------------------------------


def _lines(found: Traffic, *, every: bool) -> Iterator[str]:
    from corpusgen.stages.traffic.finding import NOTICE, assumptions

    spent = f"{counted(found.calls, 'call')} in {found.days:,.1f} days, {money(found.microusd)}"
    cached = f", {counted(found.hits, 'more answer')} from the cache" if found.hits else ""
    yield f"{spent}{cached}, in {counted(len(found.clusters), 'cluster')}"
    if found.unpriced:
        yield f"  {counted(found.unpriced, 'call')} without a known price count as nothing"
    yield from _of_bad(found)
    shown = found.clusters if every else found.clusters[:SHOWN]
    for one in shown:
        yield ""
        yield from _of_cluster(one, found.rights.get(one.number, ()))
    if len(shown) < len(found.clusters):
        yield f"\n{counted(len(found.clusters) - len(shown), 'further cluster')}: --all shows them"
    yield "\nassumed:"
    yield from (f"  {line}" for line in assumptions())
    yield NOTICE


def _of_bad(found: Traffic) -> Iterator[str]:
    for place, why in list(found.bad.items())[:BAD_SHOWN]:
        yield f"  left out {place}: {why}"
    if found.bad_lines > BAD_SHOWN:
        yield f"  left out in all: {counted(found.bad_lines, 'line')}"
    if found.untimed:
        yield f"  {counted(found.untimed, 'call')} without a time count for every period"


def _of_cluster(one: Ranked, rights: tuple[Right, ...]) -> Iterator[str]:
    from corpusgen.stages.traffic.finding import shown_prompt
    from corpusgen.stages.traffic.ranking import share

    tally, month = one.tally, one.monthly
    yield f"CLUSTER {one.number} ({tally.cluster.kind})  {shorten(shown_prompt(one), 110, placeholder=' …')}"
    cached = f" + {tally.hits:,} from the cache" if tally.hits else ""
    near = "" if one.near_repeats is None else f", near repeats {one.near_repeats:.0%} of inputs"
    repeats = share(one.exact_repeats, tally.all_calls)
    yield f"  calls    {tally.calls:,}{cached}, {money(tally.microusd)}; exact repeats {repeats:.0%}{near}"
    yield f"  answers  {_answers(one)}"
    parts = ", ".join(f"{name} {value:.2f}" for name, value in one.parts.items())
    yield f"  student  {one.score:.2f} of 1: {parts}"
    saved = f"a student could save {money(month.saved_microusd)} of {money(month.microusd)} a month"
    yield f"  saving   {saved}, the cache {money(month.repeats_microusd)}; {_lesson(month.lesson_microusd)}"
    if rights and all(right.outcome != "allow" for right in rights):
        yield "           today's terms do not allow a student of these answers"
    for right in rights:
        yield from _of_right(right)


def _answers(one: Ranked) -> str:
    told = {
        "label": f"one of {len(one.labels)} labels: {', '.join(one.labels[:12])}",
        "fields": f"JSON with the keys {', '.join(one.keys[:12])}",
        "tools": "mostly calls of functions",
        "text": f"text, {len(one.tally.answers):,} different",
    }
    return told[one.form]


def _lesson(microusd: int) -> str:
    return f"further labels {money(microusd)} once" if microusd else "there are labels enough"


def _of_right(right: Right) -> Iterator[str]:
    use = f" for {right.use}" if right.use else ""
    told = f"{right.teacher}, {counted(right.calls, 'call')}: training{use} {right.outcome}"
    yield f"  rights   {told}; outputs {right.outputs_train}; {right.terms or 'no terms known'}"
    if right.why:
        yield f"           {shorten(right.why, 220, placeholder=' …')}"
    for duty in right.duties[:4]:
        yield f"           duty {shorten(duty, 160, placeholder=' …')}"


def _of_written(written: list[Written], *, asked: bool) -> Iterator[str]:
    if asked and not written:
        yield "nothing written: no cluster scores high enough; name one with --cluster"
    for one in written:
        seeds = counted(one.seeds, "seed")
        yield f"wrote {one.folder} (cluster {one.cluster}, kind {one.kind}, {seeds})"
        yield f"  next: corpusgen plan {one.folder}/task.yaml"
        yield from (f"  {remark}" for remark in one.remarks)
