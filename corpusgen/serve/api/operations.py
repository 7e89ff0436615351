"""Everything the API answers to."""

from __future__ import annotations

from corpusgen.serve import openapi
from corpusgen.serve.api import datasets, events, exports, leases, money, queries, records, rights, runs, tokens
from corpusgen.serve.routes import Operation


def operations() -> list[Operation]:
    """The operations of the API, and the document that describes them all."""
    parts = (runs, money, leases, datasets, records, queries, exports, rights, tokens)
    return [*(one for part in parts for one in part.OPERATIONS), *events.operations(), *openapi.operations()]
