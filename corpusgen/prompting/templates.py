"""Templates with bare names only: ``{definition}`` is a variable, ``{{`` is a brace.

Attribute access, indexing, conversions and format specifications are refused: ``str.format`` would hand a seed file
the keys to the process, or a gigabyte of padding.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

_TOKEN = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class TemplateError(ValueError):
    """A template that is not bare names and text; carries the line inside the template."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


def variables(template: str) -> dict[str, int]:
    """The names a template uses, each with the line it first stands on (from 0). Raises TemplateError."""
    found: dict[str, int] = {}
    for token in _TOKEN.finditer(template):
        line = template.count("\n", 0, token.start())
        if token.group() in "{}":
            raise TemplateError(f"a single {token.group()!r}; write it twice for a brace in the text", line)
        if token.group(1) is not None:
            if not _NAME.fullmatch(token.group(1)):
                raise TemplateError(f"{token.group()!r} is not a bare name such as {{definition}}", line)
            found.setdefault(token.group(1), line)
    return found


def fill(template: str, values: Mapping[str, str]) -> str:
    """The template with every variable replaced; values are never read as templates. Raises KeyError for a gap."""
    return "".join([values[part] if named else part for part, named in _parts(template)])


@lru_cache(maxsize=64)
def _parts(template: str) -> tuple[tuple[str, bool], ...]:
    """A template cut into texts and names (True); a template is filled for every item, so it is read once."""
    parts: list[tuple[str, bool]] = []
    end = 0
    for token in _TOKEN.finditer(template):
        name = token.group(1)
        parts += [(template[end : token.start()], False), (token.group()[0], False) if name is None else (name, True)]
        end = token.end()
    # Without empty texts, so that a prompt that is an input and nothing else is that very string, not a copy.
    return tuple(part for part in (*parts, (template[end:], False)) if part[0])
