"""Batches of calls as OpenAI's and Anthropic's clients ask for them: ``/v1/batches`` and ``/v1/messages/batches``.

Each line is a call like any that comes by itself: budgeted, judged by the terms, recorded, known when it comes again. A
teacher that takes batches is asked in one, at its price for them; others are asked one by one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Final

from aiohttp import web

from corpusgen.corpus import microseconds
from corpusgen.records import Json
from corpusgen.serve.batches import files
from corpusgen.serve.batches.files import json_told, listed, owner_of, page_of, streamed, told_in
from corpusgen.serve.batches.lines import ENDPOINTS, read_requests, texts_of, told_lines
from corpusgen.serve.batches.rows import (
    UNFINISHED,
    Batch,
    Line,
    batches_of,
    counts,
    drop_batch,
    find_batch,
    find_file,
    keep_batch,
    new_id,
)
from corpusgen.serve.batches.telling import for_anthropic, for_openai
from corpusgen.serve.gateway import wanted_of
from corpusgen.serve.reading import bytes_of, json_of, parameters_of
from corpusgen.serve.refusals import Busy
from corpusgen.serve.routes import CALLER, Operation, of_vendor
from corpusgen.serve.service import SERVICE, Service
from corpusgen.serve.statuses import NoSuch, Refused
from corpusgen.serve.wires.calls import BadCall, Wire

LISTED: Final = 20
MOST_LISTED: Final = 1_000
MOST_METADATA: Final = 16
BUSY_S: Final = 30.0
_KNOWN: Final = frozenset({"input_file_id", "endpoint", "completion_window", "metadata", "output_expires_after"})


def operations(service: Service) -> list[Operation]:
    """What clients of OpenAI and Anthropic call for files and batches."""
    openai, anthropic, most = told_in("openai"), told_in("anthropic"), service.config.limits.file_bytes
    here = "/v1/messages/batches"
    return [
        *files.operations(service),
        of_vendor("POST", "/v1/batches", openai(_create), "Have the calls of a file answered", "openai"),
        of_vendor("GET", "/v1/batches", openai(_listing), "The batches of calls", "openai"),
        of_vendor("GET", "/v1/batches/{batch}", openai(_retrieve), "One of these", "openai"),
        of_vendor("POST", "/v1/batches/{batch}/cancel", openai(_cancel), "Ask no more of it", "openai"),
        of_vendor("POST", here, anthropic(_create_messages), "Have many calls answered", "anthropic", most),
        of_vendor("GET", here, anthropic(_list_messages), "The batches of messages", "anthropic"),
        of_vendor("GET", here + "/{batch}", anthropic(_retrieve_messages), "One of these", "anthropic"),
        of_vendor("GET", here + "/{batch}/results", anthropic(_results), "What became of its calls", "anthropic"),
        of_vendor("POST", here + "/{batch}/cancel", anthropic(_cancel_messages), "Ask no more of it", "anthropic"),
        of_vendor("DELETE", here + "/{batch}", anthropic(_delete_messages), "Forget it", "anthropic"),
    ]


# --- OpenAI -----------------------------------------------------------------------------------------------------------


async def _create(request: web.Request) -> web.Response:
    service, caller = request.app[SERVICE], request[CALLER]
    service.desk.admit(caller)
    asked = await json_of(request)
    if unknown := sorted(asked.keys() - _KNOWN):
        raise BadCall(f"unknown parameters: {unknown[0]!r:.80}; leave them out", field=unknown[0][:80])
    wire = ENDPOINTS.get(str(asked.get("endpoint")))
    if wire is None:
        raise BadCall(f"endpoint: one of {', '.join(ENDPOINTS)} is needed", field="endpoint")
    if asked.get("completion_window") != "24h":
        raise BadCall("completion_window: '24h' is needed", field="completion_window")
    facts = {"input_file_id": _source(request, asked.get("input_file_id")), "metadata": _metadata(asked)}
    return json_told(_openai(request, await _kept(request, "batch_", wire, "validating", facts, ())))


def _source(request: web.Request, name: Json) -> str:
    found = find_file(request.app[SERVICE].corpus.journal, name) if isinstance(name, str) else None
    mine = found is not None and owner_of(request) in (None, found.user)
    if found is None or not mine or found.batch_id is not None:
        raise BadCall(
            "input_file_id: the id of a file of yours with the purpose 'batch' is needed", field="input_file_id"
        )
    return found.id


def _metadata(asked: Mapping[str, Json]) -> Json:
    metadata = asked.get("metadata")
    if metadata is not None and texts_of(metadata, MOST_METADATA) is None:
        raise BadCall(f"metadata: an object of up to {MOST_METADATA} texts is needed", field="metadata")
    return metadata


async def _listing(request: web.Request) -> web.Response:
    page = page_of(parameters_of(request), "after", "", LISTED, MOST_LISTED)
    found, more = batches_of(request.app[SERVICE].corpus.journal, owner_of(request), page, messages=False)
    return json_told(listed([_openai(request, one) for one in found], more))


async def _retrieve(request: web.Request) -> web.Response:
    return json_told(_openai(request, _named(request, messages=False)))


async def _cancel(request: web.Request) -> web.Response:
    batch = _named(request, messages=False)
    if not await request.app[SERVICE].batches.cancel(batch.id) and batch.state != "cancelling":
        raise Refused(409, f"Cannot cancel a batch with status '{batch.state}'.")
    return json_told(_openai(request, _named(request, messages=False)))


def _openai(request: web.Request, batch: Batch) -> dict[str, Json]:
    return for_openai(batch, counts(request.app[SERVICE].corpus.journal, batch))


# --- Anthropic --------------------------------------------------------------------------------------------------------


async def _create_messages(request: web.Request) -> web.Response:
    service = request.app[SERVICE]
    service.desk.admit(request[CALLER])
    body, most = await bytes_of(request), service.config.limits.batch_lines
    lines = await asyncio.to_thread(read_requests, body, most)
    batch = await _kept(request, "msgbatch_", "messages", "in_progress", {}, lines)
    return json_told(_anthropic(request, batch))


async def _list_messages(request: web.Request) -> web.Response:
    page = page_of(parameters_of(request), "after_id", "before_id", LISTED, MOST_LISTED)
    found, more = batches_of(request.app[SERVICE].corpus.journal, owner_of(request), page, messages=True)
    data = [_anthropic(request, one) for one in found]
    ends = {"first_id": data[0]["id"] if data else None, "last_id": data[-1]["id"] if data else None}
    return json_told({"data": data, "has_more": more, **ends})


async def _retrieve_messages(request: web.Request) -> web.Response:
    return json_told(_anthropic(request, _named(request, messages=True)))


async def _cancel_messages(request: web.Request) -> web.Response:
    batch = _named(request, messages=True)
    if not await request.app[SERVICE].batches.cancel(batch.id) and batch.state != "cancelling":
        raise Refused(409, f"the batch {batch.id} has ended and cannot be canceled")
    return json_told(_anthropic(request, _named(request, messages=True)))


async def _delete_messages(request: web.Request) -> web.Response:
    batch = _named(request, messages=True)
    if batch.state in UNFINISHED:
        raise Refused(409, f"the batch {batch.id} is under way; cancel it, and delete it when it has ended")
    await request.app[SERVICE].corpus.journal.run(drop_batch(batch.id))
    return json_told({"id": batch.id, "type": "message_batch_deleted"})


async def _results(request: web.Request) -> web.StreamResponse:
    batch, journal = _named(request, messages=True), request.app[SERVICE].corpus.journal
    if batch.state in UNFINISHED:
        raise NoSuch(f"the batch {batch.id} is still under way and has no results")
    lines = told_lines(journal, batch, good=True, bad=True)
    return await streamed(request, lines, {"Content-Type": "application/x-jsonl"})


def _anthropic(request: web.Request, batch: Batch) -> dict[str, Json]:
    from corpusgen.serve.gate import SETTINGS

    corpus = request.app[SERVICE].corpus
    origin = f"{'https' if request.app[SETTINGS].secure else 'http'}://{request.host}"  # the gate knows this host
    return for_anthropic(batch, counts(corpus.journal, batch), origin, microseconds(corpus.clock()))


# --- both -------------------------------------------------------------------------------------------------------------


async def _kept(
    request: web.Request, kind: str, wire: Wire, state: str, facts: Mapping[str, Json], lines: Sequence[Line]
) -> Batch:
    """A new batch, in the journal and under way. Raises Busy where its token has as many as it may."""
    service, caller = request.app[SERVICE], request[CALLER]
    wanted, made_us = wanted_of(request.headers, caller, service), microseconds(service.corpus.clock())
    service.desk.check_label(caller, wanted)
    begun = {} if state == "validating" else {"began_us": made_us}
    batch = Batch(
        id=new_id(kind),
        user=caller.user,
        token_id=caller.token_id,
        wire=wire,
        state="validating" if state == "validating" else "in_progress",
        facts={"wanted": asdict(wanted), **facts, **begun},
        made_us=made_us,
        ended_us=None,
    )
    most = service.config.limits.batches
    if not await service.corpus.journal.run(keep_batch(batch, lines, most)):
        raise Busy(f"{most} batches are under way, and limits.batches is no more; come back", retry_after_s=BUSY_S)
    service.batches.begin(batch)
    return batch


def _named(request: web.Request, *, messages: bool) -> Batch:
    """The batch of an address, if it is the caller's."""
    name = request.match_info["batch"]
    found = find_batch(request.app[SERVICE].corpus.journal, name)
    if found is None or owner_of(request) not in (None, found.user) or (found.wire == "messages") is not messages:
        raise NoSuch(f"no such batch: {name[:80]!r}")
    return found
