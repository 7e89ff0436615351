"""Records by id, and where each comes from and went."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from aiohttp import web

from corpusgen.corpus import Corpus
from corpusgen.errors import UsageError
from corpusgen.records import Json
from corpusgen.serve.api.models import RecordTold, StoryTold
from corpusgen.serve.api.saying import said
from corpusgen.serve.routes import Operation, caller_of
from corpusgen.serve.service import service_of
from corpusgen.serve.slowly import READING
from corpusgen.serve.statuses import NoSuch


def record_story(corpus: Corpus, named: str) -> dict[str, Json]:
    """The story of a record by its id or a beginning of it that no other has. Raises NoSuch."""
    from corpusgen.stages.lineage.story import story

    try:
        return dict(plain(story(corpus, named).to_json()))
    except UsageError as error:
        raise NoSuch(str(error)) from error


def plain(value: Any) -> Any:
    """A value in JSON's own types: times in ISO 8601, bytes in hex, what is no number null."""
    if isinstance(value, Mapping):
        return {str(name): plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.hex()
    return str(value) if isinstance(value, Decimal | timedelta) else value


async def show_record(request: web.Request) -> web.Response:
    """A record and its texts."""
    told = await _story(request)
    return said(RecordTold(record=told["record"], text=told["text"]))


async def show_story(request: web.Request) -> web.Response:
    """A record's story."""
    return said(StoryTold(**await _story(request)))


async def _story(request: web.Request) -> dict[str, Json]:
    corpus, named = service_of(request).corpus, request.match_info["record"]
    return await READING(caller_of(request), record_story, corpus, named)


OPERATIONS: Final = (
    Operation(
        method="GET",
        path="/api/v1/records/{record}",
        handler=show_record,
        scope="read",
        summary="One record by its id, or the beginning of it",
        answer=RecordTold,
        tag="records",
    ),
    Operation(
        method="GET",
        path="/api/v1/records/{record}/why",
        handler=show_story,
        scope="read",
        summary="A record's story: source, licence, run, decision, terms, requests, parents, datasets, students",
        answer=StoryTold,
        tag="records",
    ),
)
