"""The console: pages for people, drawn on the server from the same functions that the commands and the API call."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from corpusgen.serve.routes import Operation


def operations() -> Iterable[Operation]:
    """Everything the console answers to."""
    from corpusgen.serve.console.table import operations as every  # with templates and charts, once they are needed

    return every()
