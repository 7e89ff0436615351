"""Everything the parts of a running service share."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from aiohttp import web

from corpusgen.corpus import Corpus

if TYPE_CHECKING:
    from corpusgen.serve.batches.work import BatchWork
    from corpusgen.serve.bus import Bus
    from corpusgen.serve.config import ServiceSpec
    from corpusgen.serve.desk import Desk
    from corpusgen.serve.meter import Meter
    from corpusgen.serve.runs import Runs
    from corpusgen.serve.tokens import Tokens


@dataclass(kw_only=True)
class Service:
    """One service over one corpus."""

    corpus: Corpus
    config: ServiceSpec
    desk: Desk
    """Asks teachers and students for callers."""
    runs: Runs
    """Runs of tasks that were submitted."""
    batches: BatchWork
    """Batches of calls that are under way."""
    tokens: Tokens
    meter: Meter
    """Counts for ``/metrics``."""
    bus: Bus
    """What happens, told to whoever watches."""
    started: datetime
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    """Set: nothing new is begun."""


SERVICE: web.AppKey[Service] = web.AppKey("service", Service)


def service_of(request: web.Request) -> Service:
    """The service a request is for."""
    return request.app[SERVICE]
