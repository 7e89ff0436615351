"""OpenAI's files, as far as batches need them: ``/v1/files``. They stand in the journal; names are only shown."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Final

import orjson
from aiohttp import web

from corpusgen.corpus import microseconds
from corpusgen.errors import CorpusgenError, StoreError
from corpusgen.journal import Transaction
from corpusgen.records import Json
from corpusgen.serve.batches.file_form import FORM, UNNAMED, Part, form_in
from corpusgen.serve.batches.lines import told_lines
from corpusgen.serve.batches.rows import (
    KEPT_US,
    STORED_BYTES,
    Page,
    StoredFile,
    body_of_file,
    drop_file,
    files_of,
    find_batch,
    find_file,
    keep_file,
    new_id,
)
from corpusgen.serve.reading import bytes_of, parameters_of
from corpusgen.serve.refusals import refusal
from corpusgen.serve.routes import CALLER, Operation, Shape, of_vendor
from corpusgen.serve.service import SERVICE, Service
from corpusgen.serve.statuses import NoSuch, Refused

PURPOSE: Final = "batch"
MOST_LISTED: Final = 10_000
FORM_BYTES: Final = 64 << 10
"""What a form may have around its file."""
UPLOAD_S: Final = 300.0

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def operations(service: Service) -> list[Operation]:
    """What clients of OpenAI call for the files of their batches."""
    most, tell = service.config.limits.file_bytes, told_in("openai")
    return [
        Operation(
            method="POST",
            path="/v1/files",
            handler=tell(_upload),
            scope="ask",
            summary="Send a file of calls, as OpenAI's files",
            shape="openai",
            takes=(FORM,),
            most_bytes=most + FORM_BYTES,
            most_s=UPLOAD_S,
            tag="gateway",
            hidden=True,
        ),
        of_vendor("GET", "/v1/files", tell(_listing), "The files that were sent or came of batches", "openai"),
        of_vendor("GET", "/v1/files/{file}", tell(_retrieve), "One of these", "openai"),
        of_vendor("GET", "/v1/files/{file}/content", tell(_content), "What stands in it", "openai"),
        of_vendor("DELETE", "/v1/files/{file}", tell(_delete), "Forget it", "openai"),
    ]


def told_in(shape: Shape) -> Callable[[Handler], Handler]:
    """Makes a handler whose refusals are told in a vendor's words."""

    def of(handler: Handler) -> Handler:
        async def handled(request: web.Request) -> web.StreamResponse:
            try:
                return await handler(request)
            except StoreError:
                raise
            except CorpusgenError as error:
                service = request.app[SERVICE]
                service.meter.add("corpusgen_refused_total", 1, type(error).__name__)
                return refusal(shape, error, service.desk.hidden_from(request.get(CALLER)))

        return handled

    return of


# --- one after the other ----------------------------------------------------------------------------------------------


async def _upload(request: web.Request) -> web.Response:
    service, caller = request.app[SERVICE], request[CALLER]
    service.desk.admit(caller)
    parts = form_in(request.headers.get("Content-Type", ""), await bytes_of(request))
    file, purpose = parts.get("file"), parts.get("purpose")
    if file is None or purpose is None or purpose.text != PURPOSE:
        raise Refused(400, f"a form with a file and the purpose {PURPOSE!r} is needed; other files have no use here")
    _check_size(service, file)
    found = StoredFile(
        id=new_id("file-"),
        user=caller.user,
        token_id=caller.token_id,
        name=file.filename or UNNAMED,
        purpose=PURPOSE,
        size=len(file.content),
        batch_id=None,
        made_us=microseconds(service.corpus.clock()),
    )
    digest = await asyncio.to_thread(lambda: hashlib.sha256(file.content).hexdigest())
    await service.corpus.journal.run(_kept(found, digest, file.content, service.config.limits.files_bytes))
    return json_told(_told(found))


def _check_size(service: Service, file: Part) -> None:
    most = service.config.limits.file_bytes
    if len(file.content) > most:
        raise Refused(413, f"a file has at most {most:,} bytes here (limits.file_bytes)")


def _kept(found: StoredFile, digest: str, content: bytes, most: int) -> Callable[[Transaction], None]:
    """Keep a file, where its user has room: looked at where it is kept, so that two at once do not share the room."""
    keep = keep_file(found, sha256=digest, body=content)

    def operation(transaction: Transaction) -> None:
        if transaction.rows(STORED_BYTES, (found.user,))[0][0] + found.size > most:
            raise Refused(
                403, f"all files of a user have at most {most:,} bytes here (limits.files_bytes); delete some"
            )
        keep(transaction)

    return operation


async def _listing(request: web.Request) -> web.Response:
    asked = parameters_of(request)
    page = page_of(asked, "after", "", MOST_LISTED, MOST_LISTED)
    found, more = files_of(request.app[SERVICE].corpus.journal, owner_of(request), page, asked.get("purpose"))
    return json_told(listed([_told(one) for one in found], more))


async def _retrieve(request: web.Request) -> web.Response:
    return json_told(_told(_named(request)))


async def _content(request: web.Request) -> web.StreamResponse:
    found, journal = _named(request), request.app[SERVICE].corpus.journal
    headers = {"Content-Type": "application/octet-stream"}
    if found.batch_id is None:
        body = body_of_file(journal, found.id)
        return web.Response(body=body or b"", headers=headers)
    batch = find_batch(journal, found.batch_id)
    if batch is None:
        raise NoSuch(f"no such file: {found.id}")
    good = batch.facts.get("output_file_id") == found.id
    return await streamed(request, told_lines(journal, batch, good=good, bad=not good), headers)


async def streamed(request: web.Request, pieces: Iterator[bytes], headers: Mapping[str, str]) -> web.StreamResponse:
    """Something large as an answer, in pieces, between which others have their turn."""
    response = web.StreamResponse(headers=headers)
    await response.prepare(request)
    for piece in pieces:
        await response.write(piece)
        await asyncio.sleep(0)
    return response


async def _delete(request: web.Request) -> web.Response:
    found = _named(request)
    await request.app[SERVICE].corpus.journal.run(drop_file(found.id))
    return json_told({"id": found.id, "object": "file", "deleted": True})


def _named(request: web.Request) -> StoredFile:
    """The file of an address, if it is the caller's."""
    name = request.match_info["file"]
    found = find_file(request.app[SERVICE].corpus.journal, name)
    if found is None or owner_of(request) not in (None, found.user):
        raise NoSuch(f"no such file: {name[:80]!r}")
    return found


def _told(found: StoredFile) -> dict[str, Json]:
    return {
        "id": found.id,
        "object": "file",
        "bytes": found.size,
        "created_at": found.made_us // 1_000_000,
        "expires_at": (found.made_us + KEPT_US) // 1_000_000,
        "filename": found.name,
        "purpose": found.purpose,
        "status": "processed",
        "status_details": None,
    }


# --- what batches need, too -------------------------------------------------------------------------------------------


def owner_of(request: web.Request) -> str | None:
    """Whose files and batches a caller may see; None for everybody's."""
    caller = request[CALLER]
    return None if caller.may("admin") else caller.user


def page_of(asked: Mapping[str, str], after: str, before: str, usual: int, most: int) -> Page:
    """The part of a list that the parameters of a query name. Raises Refused."""
    given, order = asked.get("limit", str(usual)), asked.get("order", "desc")
    if not (given.isascii() and given.isdigit() and len(given) <= 6 and 0 < int(given) <= most):
        raise Refused(400, f"limit: a whole number from 1 to {most} is needed")
    if order not in ("asc", "desc"):
        raise Refused(400, "order: asc or desc is needed")
    return Page(limit=int(given), after=asked.get(after), before=asked.get(before), oldest_first=order == "asc")


def listed(items: list[dict[str, Json]], more: bool) -> dict[str, Json]:
    """A page of a list as OpenAI tells it."""
    ends = {"first_id": items[0]["id"] if items else None, "last_id": items[-1]["id"] if items else None}
    return {"object": "list", "data": items, "has_more": more, **ends}


def json_told(value: Json) -> web.Response:
    """A value as the answer to a request."""
    return web.Response(body=orjson.dumps(value), content_type="application/json")
