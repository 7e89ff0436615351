"""Whether the service lives, whether it can work, and what it counts."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Final

import orjson
from aiohttp import web

from corpusgen.budget.ledger import balances
from corpusgen.corpus import microseconds
from corpusgen.errors import StoreError
from corpusgen.journal import Transaction
from corpusgen.serve.meter import CONTENT_TYPE, Meter
from corpusgen.serve.routes import Operation
from corpusgen.serve.service import SERVICE, Service

READY_S: Final = 5.0
_SCOPES: Final = ("service", "corpus")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


def operations() -> list[Operation]:
    """What anybody may ask, and what Prometheus does."""
    return [
        Operation(
            method="GET",
            path="/healthz",
            handler=healthz,
            scope=None,
            summary="Whether the service lives",
            tag="health",
        ),
        Operation(
            method="GET", path="/readyz", handler=readyz, scope=None, summary="Whether it can work", tag="health"
        ),
        Operation(
            method="GET",
            path="/metrics",
            handler=metrics,
            scope="read",
            summary="What it counts, for Prometheus",
            content_type="text/plain",
            tag="health",
        ),
    ]


async def healthz(_: web.Request) -> web.Response:
    """Alive."""
    return _said(200, "alive")


async def readyz(request: web.Request) -> web.Response:
    """Ready: nothing was told to stop, and the journal can be written."""
    service = request.app[SERVICE]
    if service.stopping.is_set():
        return _said(503, "stopping")
    try:
        async with asyncio.timeout(READY_S):
            await asyncio.shield(service.corpus.journal.start(_nothing))
    except (StoreError, TimeoutError):
        return _said(503, "journal")
    return _said(200, "ready")


def _nothing(_: Transaction) -> None:
    """Nothing to write: the transaction itself is the question."""


def _said(status: int, word: str) -> web.Response:
    return web.Response(body=orjson.dumps({"status": word}), status=status, content_type="application/json")


async def metrics(request: web.Request) -> web.Response:
    """Everything that is counted, and the balances as they stand in the journal."""
    service = request.app[SERVICE]
    await asyncio.to_thread(_read_journal, service)  # a large corpus takes a moment to be counted
    return web.Response(body=service.meter.render().encode(), headers={"Content-Type": CONTENT_TYPE})


def _read_journal(service: Service) -> None:
    meter, journal = service.meter, service.corpus.journal
    _money(service, meter)
    meter.set("corpusgen_records", journal.query("select count(*) from records")[0][0])
    for name, sql in _COUNTED.items():
        meter.forget(name)
        for *labels, count in journal.query(sql):
            meter.set(name, count, *labels)
    meter.set("corpusgen_events_listeners", service.bus.listeners)
    meter.set("corpusgen_started_seconds", microseconds(service.started) / 1e6)
    meter.set("corpusgen_resident_bytes", _resident())


_COUNTED: Final = {
    "corpusgen_drops": "select stage, reason, count(*) from drops group by 1, 2 limit 500",
    "corpusgen_runs": "select state, count(*) from service_runs group by 1",
}


def _money(service: Service, meter: Meter) -> None:
    """Balances and caps of the service, the corpus, teachers and whatever has a cap."""
    journal = service.corpus.journal
    caps = journal.query("select scope, per, cap from caps where unit = 'microusd' limit 500")
    teachers = journal.query("select distinct scope from balances where scope glob 'teacher:*' limit 200")
    scopes = {*_SCOPES, *(row[0] for row in caps), *(row[0] for row in teachers)}
    for name in ("corpusgen_money_microusd", "corpusgen_cap_microusd"):
        meter.forget(name)
    for at in balances(journal, sorted(scopes)):
        if at.unit == "microusd":
            for state, value in (
                ("settled", at.settled),
                ("promised", at.promised),
                ("unconfirmed", at.unconfirmed),
            ):
                meter.set("corpusgen_money_microusd", value, at.scope, state)
    for scope, per, cap in caps:
        meter.set("corpusgen_cap_microusd", cap, scope, per)


def _resident() -> int:
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE
    except OSError:
        return 0
