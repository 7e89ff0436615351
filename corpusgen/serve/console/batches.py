"""Batches of callers: how far each is, what it has cost, and how long it takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from aiohttp import web

from corpusgen.corpus import Corpus, microseconds
from corpusgen.serve.batches.files import owner_of
from corpusgen.serve.batches.rows import UNFINISHED, Batch, Page, batches_of, cost, counts
from corpusgen.serve.console.aside import aside
from corpusgen.serve.console.pages import page
from corpusgen.serve.reading import parameters_of
from corpusgen.serve.service import service_of

MOST: Final = 20


async def batches(request: web.Request) -> web.StreamResponse:
    """A user's, or to an administrator everybody's, the newest first."""
    owner, before = owner_of(request), parameters_of(request).get("before", "")
    found = await aside(_listed, service_of(request).corpus, owner, before)
    return page(request, "batches.html", first=not before, of_all=owner is None, **found)


def _listed(corpus: Corpus, owner: str | None, before: str) -> dict[str, Any]:
    found, more = batches_of(corpus.journal, owner, Page(limit=MOST, after=before or None))
    now_us = microseconds(corpus.clock())
    return {"batches": [_told(corpus, one, now_us) for one in found], "further": found[-1].id if more else ""}


def _told(corpus: Corpus, batch: Batch, now_us: int) -> Mapping[str, Any]:
    lines, errors = counts(corpus.journal, batch), batch.facts.get("errors") or ()
    over = batch.state not in UNFINISHED
    return {
        "id": batch.id,
        "user": batch.user,
        "wire": batch.wire,
        "state": batch.state,
        "over": over,
        "calls": sum(lines.values()),
        "answered": lines.get("answered", 0),
        "others": [(word, lines[word]) for word in ("failed", "cancelled", "expired") if word in lines],
        "wrong": str(errors[0]["message"]) if errors else "",
        "cost": cost(corpus.journal, batch),
        "sent": batch.made_us,
        "took_s": max(0, ((batch.ended_us if over else None) or now_us) - batch.made_us) / 1e6,
    }
