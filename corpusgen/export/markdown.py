"""Markdown that shows what it is given and runs none of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def inline(text: str) -> str:
    """Text on one line, its markup shown as it was written."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return text.replace("[", "\\[").replace("]", "\\]")


def bullets(items: Iterable[str]) -> str:
    """One item to a line."""
    return "\n".join(f"- {inline(item)}" for item in items)


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table, or nothing where there are no rows."""
    if not rows:
        return ""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(inline(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def verbatim(text: str) -> str:
    """Text line by line as it was given. Indented, not fenced: it may hold any number of backticks."""
    return "\n".join(f"    {line}" for line in text.splitlines())


def page(*sections: str) -> str:
    """The sections that say something, an empty line between them."""
    return "\n\n".join(section for section in sections if section) + "\n"


def section(title: str, body: str) -> str:
    """A heading with what stands under it; nothing without the latter."""
    return f"## {title}\n\n{body}" if body else ""
