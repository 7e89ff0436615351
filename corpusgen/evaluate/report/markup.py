"""HTML pieces of the page; whatever is not Html is foreign text and gets escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from corpusgen.evaluate.report.facts import Role
from corpusgen.evaluate.report.wording import text

BEHIND = "The numbers"
"""What opens the table behind a chart."""

MARKS: dict[Role, str] = {"student": "●", "teacher": "◆", "neither": "○"}


@dataclass(frozen=True)
class Html:
    """Markup made here, safe to put on the page as it is."""

    source: str


@dataclass(frozen=True, kw_only=True)
class Section:
    """One part of the page and its place in the table of contents."""

    anchor: str
    short: str
    title: str
    body: str


def markup(value: str | Html) -> str:
    """Html as it is, anything else escaped."""
    return value.source if isinstance(value, Html) else text(value)


def key(role: Role, name: str) -> Html:
    """A name with its mark and in its colour, as in the charts."""
    return Html(f'<span class="key {role}"><span aria-hidden="true">{MARKS[role]}</span> {text(name)}</span>')


def paragraph(content: str | Html, kind: str = "") -> str:
    """A paragraph."""
    return f'<p class="{kind}">{markup(content)}</p>' if kind else f"<p>{markup(content)}</p>"


def figure(title: str, caption: str | Html, *parts: str) -> str:
    """A chart under its finding, with whatever stands behind it."""
    return f"<figure><figcaption><b>{text(title)}</b>{markup(caption)}</figcaption>{''.join(parts)}</figure>"


def folded(summary: str, *parts: str) -> str:
    """Detail that opens on request."""
    return f"<details><summary>{text(summary)}</summary>{''.join(parts)}</details>"


def bullets(items: Iterable[str | Html]) -> str:
    """An unordered list."""
    return f"<ul>{''.join(f'<li>{markup(item)}</li>' for item in items)}</ul>"


def definitions(pairs: Iterable[tuple[str, str | Html]], kind: str = "") -> str:
    """Names with their values."""
    rows = (f'<dt>{text(name)}</dt><dd class="{kind}">{markup(value)}</dd>' for name, value in pairs)
    return f'<dl class="facts">{"".join(rows)}</dl>'


def table(
    head: Sequence[str],
    rows: Iterable[Sequence[str | Html]],
    wordy: Sequence[int] = (0,),
    *,
    caption: str = "",
    stacked: bool = False,
) -> str:
    """A table whose columns are numbers but for the ``wordy`` ones; the first column names the row.

    ``stacked`` tables put their cells under each other on a phone.
    """
    names = "".join(f'<th scope="col"{_kind(at, wordy)}>{text(name)}</th>' for at, name in enumerate(head))
    body = "".join(f"<tr>{_cells(head, row, wordy)}</tr>" for row in rows)
    told = f"<caption>{text(caption)}</caption>" if caption else ""
    kind = ' class="stack"' if stacked else ""
    return f'<div class="scroll"><table{kind}>{told}<thead><tr>{names}</tr></thead><tbody>{body}</tbody></table></div>'


def _cells(head: Sequence[str], row: Sequence[str | Html], wordy: Sequence[int]) -> str:
    first = f'<th scope="row"{_kind(0, wordy)}>{markup(row[0])}</th>'
    return first + "".join(
        f'<td{_kind(at, wordy)} data-name="{text(head[at])}"><span>{markup(cell)}</span></td>'
        for at, cell in enumerate(row)
        if at
    )


def _kind(at: int, wordy: Sequence[int]) -> str:
    return "" if at in wordy else ' class="n"'
